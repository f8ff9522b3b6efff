"""proxyd switch: what it would do to made-up hosts, and that it does just that."""

import argparse
import io
import os
import pty
import shlex
import subprocess
import sys

import pytest

from proxyd.doctor.state import Mode
from proxyd.doctor.systemctl import Unit, show
from proxyd.doctor.unitnames import ALL_UNITS
from proxyd.invocation import pasteable
from proxyd.switch import command as switch
from proxyd.switch import record as records
from proxyd.switch.command import folded, spelled
from proxyd.switch.recipe import NoRecipe, SwitchHost, recipe
from proxyd.switch.record import Record
from tests.doctor.hosts import (
    LIBVIRTD_UNITS,
    LOG_AND_LOCK,
    MODULAR,
    MODULAR_UNITS,
    PROXY_UNITS,
    daemon,
    down,
    masked,
    unit,
    units,
)
from tests.doctor.scripted import Systemctl

MONOLITHIC_HOST = units(LIBVIRTD_UNITS, LOG_AND_LOCK, down("virtqemud"), down("virtproxyd"))
MODULAR_HOST = units(MODULAR_UNITS, PROXY_UNITS, down("libvirtd"))
TO_MODULAR = """\
# 2 QEMU guests are running and will go on running. libvirt itself recommends to
# shut guests down or to migrate them first. Until the first client comes,
# nobody looks after them.
# Clients that are connected to libvirtd now lose their connection.
# What libvirtd.conf says about sockets, certificates and who may come in does
# not carry over: look at /etc/libvirt/virtproxyd.conf first.

# Stop libvirtd with its sockets. Guests go on running; nobody manages them
# until the new daemons run.
systemctl stop libvirtd.service libvirtd.socket libvirtd-ro.socket \\
    libvirtd-admin.socket

# Start libvirtd no more, also not at boot.
systemctl disable libvirtd.service libvirtd.socket libvirtd-ro.socket \\
    libvirtd-admin.socket

# Keep what guests need: the units disabled above may have taken it along
# (Also=).
systemctl enable virtlogd.service virtlogd.socket virtlogd-admin.socket \\
    virtlockd.service virtlockd.socket virtlockd-admin.socket

# Start virtproxyd at boot.
systemctl enable virtproxyd.service virtproxyd.socket virtproxyd-ro.socket \\
    virtproxyd-admin.socket

# Listen for clients of virtproxyd, which the first starts.
systemctl start virtproxyd.socket virtproxyd-ro.socket virtproxyd-admin.socket

# Start virtqemud at boot.
systemctl enable virtqemud.service virtqemud.socket virtqemud-ro.socket \\
    virtqemud-admin.socket

# Listen for clients of virtqemud, which the first starts.
systemctl start virtqemud.socket virtqemud-ro.socket virtqemud-admin.socket
"""


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    made = Systemctl(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("proxyd.switch.command.count_guests", lambda: 2)
    monkeypatch.setattr("proxyd.switch.command.look_at_programs", frozenset)
    monkeypatch.setattr("proxyd.switch.record.PATH", tmp_path / "var" / "switch.json")
    monkeypatch.setattr("proxyd.switch.record.LINKS", (tmp_path / "etc", tmp_path / "run"))
    return made


def run(*words, stdin=None, monkeypatch=None):
    parser = argparse.ArgumentParser()
    switch.add_arguments(parser)
    if stdin is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    return switch.run(parser.parse_args(["--to", *words]))


def run_undo(*words):
    parser = argparse.ArgumentParser()
    switch.add_arguments(parser)
    return switch.run(parser.parse_args(["--undo", *words]))


def made(known, to, *, programs=(), guests=0):
    return recipe(SwitchHost(units=known, programs=frozenset(programs), guests=guests), to)


def lines(known, to, **more):
    """The commands of a recipe."""
    return [" ".join(order.words[1:]) for order in made(known, to, **more).orders]


# The recipe


def test_the_way_from_libvirtd_to_modular_daemons_is_libvirts_own():
    assert spelled(made(MONOLITHIC_HOST, Mode.MODULAR, guests=2)) == TO_MODULAR


def test_the_way_back():
    commands = lines(MODULAR_HOST, Mode.MONOLITHIC)
    stopped = [*PROXY_UNITS] + [name for each in MODULAR for name in daemon(each)]
    # The services are not running, so only sockets are stopped but for the proxy's own.
    running = [name for name in stopped if MODULAR_HOST[name].active]
    enabled = [name for name in stopped if MODULAR_HOST[name].enabled]
    assert commands == [
        f"stop {' '.join(running)}",
        f"disable {' '.join(enabled)}",
        "enable virtlogd.service virtlogd.socket virtlogd-admin.socket"
        " virtlockd.service virtlockd.socket virtlockd-admin.socket",
        "enable libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket",
        "start libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket",
    ]


@pytest.mark.parametrize(
    ("known", "to"), [(MODULAR_HOST, Mode.MODULAR), (MONOLITHIC_HOST, Mode.MONOLITHIC)]
)
def test_a_host_that_is_there_already_needs_nothing(known, to):
    assert made(known, to, guests=3).orders == ()
    assert made(known, to, guests=3).remarks == ()


def test_network_sockets_move_to_the_other_side():
    tls = {"libvirtd-tls.socket": unit("libvirtd-tls.socket", active=True)}
    commands = lines(units(MONOLITHIC_HOST, tls), Mode.MODULAR)
    assert commands[0].endswith(" libvirtd-tls.socket")
    started = [each for each in commands if each.startswith("start virtproxyd")]
    assert started[0].endswith(" virtproxyd-tls.socket")
    assert "tcp" not in " ".join(commands)
    both = units(MODULAR_HOST, daemon("virtproxyd"))
    assert lines(both, Mode.MONOLITHIC)[-1].endswith(" libvirtd-tcp.socket libvirtd-tls.socket")


def test_only_what_is_masked_is_unmasked_and_only_if_something_is_behind_it():
    hidden = masked("virtqemud.service", "virtqemud-ro.socket")
    commands = lines(units(MONOLITHIC_HOST, hidden), Mode.MODULAR)
    assert "unmask virtqemud.service virtqemud-ro.socket" in commands
    whole = masked(*daemon("virtxend"))
    assert "xen" not in " ".join(lines(units(MONOLITHIC_HOST, whole), Mode.MODULAR))
    with_program = lines(units(MONOLITHIC_HOST, whole), Mode.MODULAR, programs=["virtxend"])
    assert f"unmask {' '.join(whole)}" in with_program


def test_a_running_service_is_stopped_before_its_sockets_are_started():
    known = units(MONOLITHIC_HOST, {"virtqemud.service": unit("virtqemud.service", active=True)})
    commands = lines(known, Mode.MODULAR)
    stop = commands.index(
        "stop virtqemud.service virtqemud.socket virtqemud-ro.socket virtqemud-admin.socket"
    )
    assert commands[stop + 1].startswith("start virtqemud.socket ")


def test_a_unit_that_cannot_be_enabled_is_left_as_it_is():
    known = units(
        MODULAR_HOST,
        {"virtqemud.service": Unit(name="virtqemud.service", load="loaded", file="static")},
    )
    assert lines(known, Mode.MODULAR) == []


@pytest.mark.parametrize(
    ("known", "to", "says"),
    [
        (units(LIBVIRTD_UNITS, down("virtnetworkd")), Mode.MODULAR, "libvirt-daemon-driver-qemu"),
        (units(MODULAR_UNITS, PROXY_UNITS), Mode.MONOLITHIC, "libvirtd is not installed"),
        ({}, Mode.MODULAR, "no modular daemon"),
    ],
)
def test_what_is_not_installed_is_not_switched_to(known, to, says):
    with pytest.raises(NoRecipe, match=says):
        made(known, to)


def test_remarks_say_what_else_to_know():
    without_proxy = units(LIBVIRTD_UNITS, down("virtqemud"))
    assert "run proxyd install first" in " ".join(made(without_proxy, Mode.MODULAR).remarks)
    listening = units(MODULAR_HOST, masked("libvirtd.socket"))
    assert "--listen" in " ".join(made(listening, Mode.MONOLITHIC).remarks)
    assert "1 QEMU guest is running" in made(MODULAR_HOST, Mode.MONOLITHIC, guests=1).remarks[0]


def test_commands_are_folded_for_a_shell_and_stay_the_same():
    words = ("systemctl", "start", *(f"virt{number}d.socket" for number in range(20)), "a b")
    text = "\n".join(folded(words))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert shlex.split(text.replace("\\\n", "")) == list(words)


# The command


def test_a_dry_run_prints_what_a_run_does(systemctl, capfd):
    systemctl.know(MONOLITHIC_HOST)
    assert run("modular", "--dry-run") == 0
    printed = capfd.readouterr().out
    assert printed == TO_MODULAR
    assert systemctl.done() == []
    assert run("modular", "--yes") == 0
    said = capfd.readouterr().out
    assert said.startswith(TO_MODULAR)
    assert pasteable("This host is modular now. See for yourself: proxyd doctor") in said
    commands = [
        line for line in printed.replace("\\\n", "").splitlines() if line and line[0] != "#"
    ]
    assert systemctl.done() == [" ".join(shlex.split(each)[1:]) for each in commands]


def test_pasted_into_a_shell_the_dry_run_does_the_same(systemctl, capfd):
    systemctl.know(MONOLITHIC_HOST)
    run("modular", "--dry-run")
    script = capfd.readouterr().out
    subprocess.run(["bash", "-e"], input=script, text=True, check=True, timeout=30)
    assert run("modular", "--yes") == 0
    assert capfd.readouterr().out == "# This host is modular already: there is nothing to do.\n"


def test_there_and_back_again_leaves_guests_what_they_need(systemctl, capfd):
    systemctl.know(MONOLITHIC_HOST)
    for mode in ("modular", "monolithic", "modular", "monolithic"):
        assert run(mode, "--yes") == 0
        assert capfd.readouterr().err == ""
        known = show(ALL_UNITS)
        kept = [known[f"{name}.socket"] for name in ("virtlogd", "virtlockd")]
        assert [(each.enabled, each.active) for each in kept] == [(True, True)] * 2
        assert known["libvirtd.socket"].active is (mode == "monolithic")
        assert known["virtproxyd.socket"].active is (mode == "modular")


@pytest.mark.parametrize(
    ("failing", "done_before"),
    [("stop libvirtd", 0), ("disable libvirtd", 1), ("enable virtlogd", 2)],
)
def test_while_the_old_daemons_are_left_it_ends_at_the_first_failure_and_goes_on_from_there(
    systemctl, capfd, failing, done_before
):
    systemctl.know(MONOLITHIC_HOST)
    systemctl.fail(failing)
    assert run("modular", "--yes") == 1
    said = capfd.readouterr()
    demand_both_ways_out(said.err, failing)
    if done_before:
        assert f"Done before it ({done_before} of 7):" in said.err
    else:
        assert "Nothing was done before it." in said.err
    assert len(systemctl.done()) == done_before + 1
    systemctl.fail("")
    assert run("modular", "--yes") == 0
    demand_modular()


@pytest.mark.parametrize("failing", ["start virtqemud", "enable virtqemud", "start virtproxyd"])
def test_a_daemon_that_cannot_be_started_keeps_no_other_from_it(systemctl, capfd, failing):
    systemctl.know(MONOLITHIC_HOST)
    systemctl.fail(failing)
    assert run("modular", "--yes") == 1
    demand_both_ways_out(capfd.readouterr().err, failing)
    known = show(ALL_UNITS)
    other = "virtproxyd" if "qemu" in failing else "virtqemud"
    assert known[f"{other}.socket"].active
    assert Record.load(records.PATH).to is Mode.MODULAR
    assert records.under_way(records.PATH) is Mode.MODULAR
    systemctl.fail("")
    assert run("modular", "--yes") == 0
    demand_modular()
    assert records.under_way(records.PATH) is None


def demand_both_ways_out(said, failing):
    verb = failing.partition(" ")[0]
    assert f"proxyd: systemctl {verb} ended with status 1" in said
    assert pasteable("To go on:      proxyd switch --to modular") in said
    assert pasteable("To go back:    proxyd switch --undo") in said


def demand_modular():
    known = show(ALL_UNITS)
    for name in ("virtqemud.socket", "virtproxyd.socket", "virtlogd.socket", "virtlockd.socket"):
        assert (known[name].enabled, known[name].active) == (True, True)
    assert not known["libvirtd.socket"].wanted


# What is kept of it


TLS = {"libvirtd-tls.socket": unit("libvirtd-tls.socket", enabled=True, active=True)}


def test_a_port_is_not_forgotten_by_a_switch_that_had_to_be_begun_again(systemctl, capfd):
    systemctl.know(units(MONOLITHIC_HOST, TLS))
    systemctl.fail("enable virtproxyd")  # libvirtd's is stopped and disabled by then
    assert run("modular", "--yes") == 1
    systemctl.fail("")
    assert run("modular", "--yes") == 0
    known = show(ALL_UNITS)
    assert (known["virtproxyd-tls.socket"].enabled, known["virtproxyd-tls.socket"].active) == (
        True,
        True,
    )


def test_the_plan_and_what_was_before_are_written_first_and_for_root_alone(systemctl, capfd):
    systemctl.know(MONOLITHIC_HOST)
    systemctl.fail("stop libvirtd")
    assert run("modular", "--dry-run") == 0
    assert not records.PATH.exists()
    assert run("modular", "--yes") == 1
    assert records.PATH.stat().st_mode & 0o777 == 0o600
    kept = Record.load(records.PATH)
    assert (kept.to, kept.done, kept.finished) == (Mode.MODULAR, 0, False)
    assert kept.plan[0][:3] == ("systemctl", "stop", "libvirtd.service")
    assert "libvirtd.socket" in kept.before.active


def test_a_daemon_that_was_off_stays_off_on_the_way_back(systemctl, capfd):
    systemctl.know(units(MODULAR_HOST, down("virtlxcd")))
    before = wanted()
    assert run("monolithic", "--yes") == 0
    assert run("modular", "--yes") == 0
    assert wanted() == before


def wanted():
    known = show(ALL_UNITS).values()
    return {each.name: (each.enabled, each.active) for each in known if each.name[-6:] == "socket"}


@pytest.mark.parametrize("failing", ["", "disable libvirtd", "start virtqemud", "start virtproxyd"])
def test_undone_the_host_is_as_it_was(systemctl, capfd, tmp_path, failing):
    etc = tmp_path / "etc"
    (etc / "sockets.target.wants").mkdir(parents=True)
    (etc / "virtqemud-admin.socket").symlink_to("/dev/null")
    wants = etc / "sockets.target.wants" / "libvirtd.socket"
    wants.symlink_to("/usr/lib/systemd/system/libvirtd.socket")
    systemctl.know(units(MONOLITHIC_HOST, TLS, down("virtlxcd")))
    active = {name for name, each in show(ALL_UNITS).items() if each.active}
    systemctl.fail(failing)
    assert run("modular", "--yes") == (1 if failing else 0)
    # As systemd's own would have done.
    wants.unlink()
    (etc / "virtqemud-admin.socket").unlink()
    other = etc / "sockets.target.wants" / "virtqemud.socket"
    other.symlink_to("/usr/lib/systemd/system/virtqemud.socket")
    systemctl.fail("")
    assert run_undo("--yes") == 0
    assert {name for name, each in show(ALL_UNITS).items() if each.active} == active
    assert str((etc / "virtqemud-admin.socket").readlink()) == "/dev/null"
    assert wants.is_symlink()
    assert not other.is_symlink()
    assert not records.PATH.exists()
    assert run_undo() == 1
    assert "nothing to undo" in capfd.readouterr().err


def test_what_is_kept_and_cannot_be_read_is_one_line(systemctl, capfd):
    systemctl.know(MONOLITHIC_HOST)
    records.PATH.parent.mkdir()
    for broken in ("{", '{"version": 9}', "[]"):
        records.PATH.write_text(broken)
        assert run("modular", "--yes") == 1
        said = capfd.readouterr().err
        assert str(records.PATH) in said
        assert len(said.splitlines()) == 1
    assert systemctl.done() == []


def test_only_clients_that_are_cut_are_named():
    idle = units(MONOLITHIC_HOST, {"libvirtd.service": unit("libvirtd.service", enabled=True)})
    assert "lose their connection" not in " ".join(made(idle, Mode.MODULAR).remarks)
    both = units(MODULAR_HOST, {"virtqemud.service": unit("virtqemud.service", active=True)})
    remarks = " ".join(made(both, Mode.MONOLITHIC).remarks)
    assert "Clients that are connected to virtproxyd and virtqemud now lose" in remarks


def test_without_a_terminal_nothing_is_done_unasked(systemctl, capfd, monkeypatch):
    systemctl.know(MONOLITHIC_HOST)
    assert run("modular", stdin="y\n", monkeypatch=monkeypatch) == 1
    said = capfd.readouterr()
    assert said.out == TO_MODULAR
    assert "there is nobody to ask; use --yes" in said.err
    assert systemctl.done() == []


@pytest.mark.parametrize(
    ("typed", "status"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("no\n", 1), ("\x04", 1)]
)
def test_on_a_terminal_it_asks(systemctl, capfd, monkeypatch, typed, status):
    systemctl.know(MONOLITHIC_HOST)
    outside, inside = pty.openpty()
    with open(inside) as terminal:
        os.write(outside, typed.encode())
        monkeypatch.setattr("sys.stdin", terminal)
        assert run("modular") == status
    os.close(outside)
    said = capfd.readouterr().out
    assert "Run these 7 commands now? [y/N] " in said
    assert len(systemctl.done()) == (7 if status == 0 else 0)
    assert ("Nothing was changed." in said) is (status == 1)


def test_only_root_may(systemctl, capfd, monkeypatch):
    systemctl.know(MONOLITHIC_HOST)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("modular", "--dry-run") == 0
    assert run("modular", "--yes") == 1
    assert "only root may do this; nothing was changed" in capfd.readouterr().err
    assert systemctl.done() == []


def test_without_systemd_there_is_nothing_to_switch(systemctl, capfd):
    systemctl.replace("#!/bin/sh\necho 'no systemd' >&2; exit 1\n")
    assert run("modular") == 1
    assert capfd.readouterr().err == (
        "proxyd: systemctl: no systemd; there is nothing to switch without systemd\n"
    )


def test_what_is_missing_is_one_line(systemctl, capfd):
    systemctl.know(LIBVIRTD_UNITS)
    assert run("modular", "--dry-run") == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("words", [["both"], ["modular", "--yes", "--dry-run"]])
def test_a_wrong_line_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        run(*words)
    assert "error" in capsys.readouterr().err


def test_sys_stdin_is_not_read_for_a_dry_run(systemctl, monkeypatch, capfd):
    systemctl.know(MONOLITHIC_HOST)
    monkeypatch.setattr(sys, "stdin", None)
    assert run("modular", "--dry-run") == 0
    assert capfd.readouterr().out == TO_MODULAR
