"""proxyd switch: what it would do to made-up hosts, and that it does just that."""

import argparse
import io
import os
import pty
import shlex
import subprocess
import sys

import pytest

from proxyd.doctor import switch
from proxyd.doctor.state import Mode
from proxyd.doctor.switch import folded, spelled
from proxyd.doctor.switch_recipe import NoRecipe, SwitchHost, recipe
from proxyd.doctor.systemctl import Unit, show
from proxyd.doctor.unitnames import ALL_UNITS
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
# Clients that are connected now lose their connection.
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

# Start virtqemud at boot.
systemctl enable virtqemud.service virtqemud.socket virtqemud-ro.socket \\
    virtqemud-admin.socket

# Listen for clients of virtqemud, which the first starts.
systemctl start virtqemud.socket virtqemud-ro.socket virtqemud-admin.socket

# Start virtproxyd at boot.
systemctl enable virtproxyd.service virtproxyd.socket virtproxyd-ro.socket \\
    virtproxyd-admin.socket

# Listen for clients of virtproxyd, which the first starts.
systemctl start virtproxyd.socket virtproxyd-ro.socket virtproxyd-admin.socket
"""


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    made = Systemctl(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("proxyd.doctor.switch.count_guests", lambda: 2)
    monkeypatch.setattr("proxyd.doctor.switch.look_at_programs", frozenset)
    return made


def run(*words, stdin=None, monkeypatch=None):
    parser = argparse.ArgumentParser()
    switch.add_arguments(parser)
    if stdin is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    return switch.run(parser.parse_args(["--to", *words]))


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
    assert commands[-1].endswith(" virtproxyd-tls.socket")
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
    stop = commands.index("stop virtqemud.service")
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
    assert "This host is modular now. See for yourself: proxyd doctor" in said
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
    [("stop libvirtd", 0), ("disable libvirtd", 1), ("enable virtlogd", 2), ("start virtqemud", 4)],
)
def test_it_ends_at_the_first_failure_says_so_and_goes_on_from_there(
    systemctl, capfd, failing, done_before
):
    systemctl.know(MONOLITHIC_HOST)
    systemctl.fail(failing)
    assert run("modular", "--yes") == 1
    said = capfd.readouterr()
    verb = failing.partition(" ")[0]
    assert f"proxyd: systemctl {verb} ended with status 1" in said.err
    assert "To go on:      proxyd switch --to modular" in said.err
    assert "To go back:    proxyd switch --to monolithic" in said.err
    if done_before:
        assert f"Done before it ({done_before} of 7):" in said.err
    else:
        assert "Nothing was done before it." in said.err
    assert len(systemctl.done()) == done_before + 1
    systemctl.fail("")
    assert run("modular", "--yes") == 0
    known = show(ALL_UNITS)
    for name in ("virtqemud.socket", "virtproxyd.socket", "virtlogd.socket", "virtlockd.socket"):
        assert (known[name].enabled, known[name].active) == (True, True)
    assert not known["libvirtd.socket"].wanted


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
