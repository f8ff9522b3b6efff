import json
import os

import pytest

from proxyd.deploy import layout
from tests.deploy.installing import (
    UNITS,
    Commands,
    a_host,
    run_install,
    run_uninstall,
    snapshot,
    whole_parser,
)

SERVICE = f"{UNITS}/virtproxyd.service"
NEWER = "/usr/bin/false"  # what another version has in the unit
ENVIRONMENT = "etc/default/virtproxyd"
CONFIG = "etc/libvirt/virtproxyd.conf"
MANIFEST = "var/lib/proxyd/installed.json"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def installed(root):
    assert run_install("--destdir", str(root)) == 0
    return root


def test_everything_is_in_its_place_and_nothing_else(installed):
    assert set(snapshot(installed)) == {
        *(f"{UNITS}/{name}" for name in layout.SYSTEM_UNITS),
        "usr/local/lib/systemd/user/virtproxyd.service",
        "usr/local/lib/systemd/user/virtproxyd.socket",
        "usr/local/lib/systemd/user/virtproxyd-admin.socket",
        "usr/local/lib/sysusers.d/proxyd.conf",
        "usr/local/lib/tmpfiles.d/proxyd.conf",
        "usr/local/share/man/man8/proxyd.8",
        "usr/local/share/bash-completion/completions/proxyd",
        "usr/share/polkit-1/actions/proxyd.libvirt.unix.policy",
        "etc/polkit-1/rules.d/50-proxyd-libvirt-group.rules",
        "etc/logrotate.d/virtproxyd",
        CONFIG,
        ENVIRONMENT,
        MANIFEST,
    }


def test_whoever_installs_with_a_strict_umask_leaves_readable_files(root):
    before = os.umask(0o077)
    try:
        run_install("--destdir", str(root))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()}
    directories = {p.stat().st_mode & 0o777 for p in root.rglob("*") if p.is_dir()}
    assert (modes, directories) == ({0o644}, {0o755})


def test_another_prefix_takes_what_lies_neither_in_etc_nor_in_var(root):
    run_install("--destdir", str(root), "--prefix", "/usr")
    assert (root / "usr/lib/systemd/system/virtproxyd.service").is_file()
    assert (root / "usr/share/man/man8/proxyd.8").is_file()
    assert not (root / "usr/local").exists()


def test_a_host_with_sysconfig_has_its_environment_file_there(root):
    (root / "etc/sysconfig").mkdir(parents=True)
    run_install("--destdir", str(root))
    assert (root / "etc/sysconfig/virtproxyd").is_file()
    assert not (root / ENVIRONMENT).exists()


def test_a_dry_run_tells_all_and_writes_nothing(root, capsys):
    assert run_install("--destdir", str(root), "--dry-run") == 0
    assert f"create  /{SERVICE}\n" in capsys.readouterr().out
    assert not root.exists()


def test_a_dry_run_takes_no_root(root, capsys):
    assert run_install("--dry-run", host=a_host(euid=1000, root=root)) == 0
    assert "systemctl daemon-reload" in capsys.readouterr().out


def test_a_second_installation_changes_nothing(installed, capsys):
    before = snapshot(installed)
    written = {path: path.stat().st_ino for path in installed.rglob("*")}
    capsys.readouterr()
    assert run_install("--destdir", str(installed)) == 0
    assert snapshot(installed) == before
    assert {path: path.stat().st_ino for path in installed.rglob("*")} == written
    told = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in told} == {"keep", "then"}


def test_a_newer_proxyd_replaces_what_is_as_it_was_put_there(installed, capsys):
    run_install("--destdir", str(installed), program=NEWER)
    assert f"ExecReload={NEWER} reload\n" in (installed / SERVICE).read_text()
    assert f"update  /{SERVICE}\n" in capsys.readouterr().out
    assert not list(installed.rglob("*.proxyd-new"))


def test_a_changed_file_stays_and_the_new_one_lies_beside_it(installed, capsys):
    (installed / ENVIRONMENT).write_text("VIRTPROXYD_ARGS=\n")
    assert run_install("--destdir", str(installed)) == 0
    assert (installed / ENVIRONMENT).read_text() == "VIRTPROXYD_ARGS=\n"
    assert "--timeout 120" in (installed / f"{ENVIRONMENT}.proxyd-new").read_text()
    told = capsys.readouterr().out
    assert f"keep    /{ENVIRONMENT}: changed, and so left alone" in told
    assert f"create  /{ENVIRONMENT}.proxyd-new\n" in told


def test_a_file_that_was_there_before_stays_too(root):
    (root / "etc/libvirt").mkdir(parents=True)
    (root / CONFIG).write_text("max_clients = 7\n")
    run_install("--destdir", str(root))
    run_uninstall("--destdir", str(root))
    assert snapshot(root) == {CONFIG: b"max_clients = 7\n"}


def test_the_new_one_is_not_offered_again_once_it_was_removed(installed):
    (installed / ENVIRONMENT).write_text("VIRTPROXYD_ARGS=\n")
    run_install("--destdir", str(installed))
    (installed / f"{ENVIRONMENT}.proxyd-new").unlink()
    for _ in range(2):
        assert run_install("--destdir", str(installed)) == 0
        assert not (installed / f"{ENVIRONMENT}.proxyd-new").exists()


def test_the_new_one_goes_when_the_administrator_has_taken_it_over(installed):
    (installed / ENVIRONMENT).write_text("VIRTPROXYD_ARGS=\n")
    run_install("--destdir", str(installed))
    (installed / ENVIRONMENT).write_bytes((installed / f"{ENVIRONMENT}.proxyd-new").read_bytes())
    run_install("--destdir", str(installed))
    assert not list(installed.rglob("*.proxyd-new"))


def test_logrotate_does_not_take_the_new_file_beside_its_own_for_another_one(installed):
    (installed / "etc/logrotate.d/virtproxyd").write_text("# none\n")
    run_install("--destdir", str(installed))
    beside = {path.name for path in (installed / "etc/logrotate.d").iterdir()} - {"virtproxyd"}
    assert beside == {"virtproxyd.proxyd-new.disabled"}


def test_a_packages_file_in_the_way_stops_the_installation_before_it_begins(root, capsys):
    unit = root / "usr/lib/systemd/system/virtproxyd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    before = snapshot(root)
    assert run_install("--destdir", str(root), "--prefix", "/usr") == 1
    assert snapshot(root) == before
    told = capsys.readouterr()
    assert told.out.startswith("refuse  /usr/lib/systemd/system/virtproxyd.service: it was not")
    assert "nothing was installed" in told.err


def test_a_packages_units_stay_where_they_are_and_are_named(root, capsys):
    for directory in ("usr/lib/systemd/system", "etc/systemd/system"):
        (root / directory).mkdir(parents=True)
        (root / directory / "virtproxyd.socket").write_text("[Socket]\n")
    (root / "lib").symlink_to("usr/lib")
    assert run_install("--destdir", str(root)) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert notes == [
        "note    /etc/systemd/system has virtproxyd.socket, which systemd prefers to proxyd's:"
        " remove them",
        "note    /usr/lib/systemd/system has virtproxyd.socket of a package; systemd prefers"
        f" proxyd's in /{UNITS}",
    ]


def test_a_symbolic_link_is_neither_followed_nor_replaced(root, tmp_path, capsys):
    target = tmp_path / "target"
    target.write_text("precious\n")
    (root / "etc/libvirt").mkdir(parents=True)
    (root / CONFIG).symlink_to(target)
    assert run_install("--destdir", str(root)) == 1
    assert target.read_text() == "precious\n"
    assert (root / CONFIG).is_symlink()
    assert f"refuse  /{CONFIG}: it is a symbolic link to {target}" in capsys.readouterr().out


def test_uninstalling_leaves_nothing(installed, capsys):
    assert run_uninstall("--destdir", str(installed)) == 0
    assert list(installed.iterdir()) == []
    assert f"remove  /{SERVICE}\n" in capsys.readouterr().out


def test_uninstalling_leaves_directories_that_were_there_before(root):
    (root / "etc/libvirt").mkdir(parents=True)
    (root / "usr/local").mkdir(parents=True)
    run_install("--destdir", str(root))
    run_uninstall("--destdir", str(root))
    left = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert left == {"etc", "etc/libvirt", "usr", "usr/local"}


def test_uninstalling_leaves_what_was_changed_and_says_so(installed, capsys):
    (installed / CONFIG).write_text("max_clients = 7\n")
    assert run_uninstall("--destdir", str(installed)) == 0
    assert snapshot(installed) == {CONFIG: b"max_clients = 7\n"}
    assert f"keep    /{CONFIG}: changed since" in capsys.readouterr().out


def test_uninstalling_removes_the_new_files_beside_changed_ones(installed):
    (installed / CONFIG).write_text("max_clients = 7\n")
    run_install("--destdir", str(installed))
    run_uninstall("--destdir", str(installed))
    assert set(snapshot(installed)) == {CONFIG}


def test_uninstalling_does_not_follow_a_symbolic_link(installed, tmp_path):
    target = tmp_path / "target"
    target.write_bytes((installed / CONFIG).read_bytes())
    (installed / CONFIG).unlink()
    (installed / CONFIG).symlink_to(target)
    assert run_uninstall("--destdir", str(installed)) == 0
    assert target.exists()
    assert (installed / CONFIG).is_symlink()


def test_a_dry_run_of_uninstalling_removes_nothing(installed):
    before = snapshot(installed)
    assert run_uninstall("--destdir", str(installed), "--dry-run") == 0
    assert snapshot(installed) == before


def test_uninstalling_twice_is_no_mistake(installed, capsys):
    run_uninstall("--destdir", str(installed))
    capsys.readouterr()
    assert run_uninstall("--destdir", str(installed)) == 0
    assert "nothing is there" in capsys.readouterr().out


def test_an_installation_that_was_interrupted_can_be_taken_away(root, monkeypatch, capsys):
    replaced = os.replace
    written = []

    def fail_late(source, target):
        written.append(target)
        if len(written) == 8:
            raise OSError(28, "No space left on device", str(target))
        replaced(source, target)

    monkeypatch.setattr(os, "replace", fail_late)
    assert run_install("--destdir", str(root)) == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert not [path for path in snapshot(root) if os.path.basename(path).startswith(".")]
    assert run_uninstall("--destdir", str(root)) == 0
    assert list(root.iterdir()) == []


def test_an_update_that_was_interrupted_goes_on_the_next_time(installed, monkeypatch):
    replaced = os.replace

    def fail_at_the_service(source, target):
        if str(target).endswith("/system/virtproxyd.service"):
            raise OSError(28, "No space left on device", str(target))
        replaced(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_service)
    assert run_install("--destdir", str(installed), program=NEWER) == 1
    monkeypatch.undo()
    assert run_install("--destdir", str(installed), program=NEWER) == 0
    assert f"ExecReload={NEWER} reload\n" in (installed / SERVICE).read_text()
    assert not list(installed.rglob("*.proxyd-new"))


def test_who_is_not_root_is_told_what_to_do(root, capsys):
    for run in (run_install, run_uninstall):
        assert run(host=a_host(euid=1000, root=root)) == 1
        assert "use sudo" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--destdir", ""), "--destdir is empty"),
        (("--prefix", "usr"), "an absolute path is wanted"),
        (("--prefix", "/"), "an absolute path is wanted"),
        (("--prefix", "/usr/../.."), "an absolute path is wanted"),
        (("--program", "proxyd"), "systemd wants an absolute path"),
        (("--program", "/opt/a$b"), "dollar signs"),
    ],
)
def test_wrong_input_is_refused(root, options, said, capsys):
    assert run_install("--destdir", str(root), *options) == 1
    assert said in capsys.readouterr().err
    assert not root.exists()


def test_a_destination_that_is_a_file_is_refused(root, capsys):
    root.write_text("")
    assert run_install("--destdir", str(root)) == 1
    assert capsys.readouterr().err.startswith(f"proxyd: {root}")


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"version": 2, "files": {}, "directories": []}', '{"files": {"../a": []}}'],
)
def test_a_manifest_that_makes_no_sense_stops_everything(installed, content, capsys):
    (installed / MANIFEST).write_text(content)
    before = snapshot(installed)
    for run in (run_install, run_uninstall):
        assert run("--destdir", str(installed)) == 1
        assert "bring it back from a backup" in capsys.readouterr().err
    assert snapshot(installed) == before


def test_for_machines_there_is_json(root, capsys):
    assert run_install("--destdir", str(root), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["done"] is True
    assert {"action": "create", "path": f"/{SERVICE}", "why": ""} in told["steps"]
    assert run_install("--destdir", "", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["steps"]) == (False, [])
    assert "--destdir is empty" in told["failed"]


def test_systemd_is_told_of_new_units_groups_and_directories(root):
    commands = Commands()
    assert run_install(host=a_host(root=root, booted=True, run=commands)) == 0
    assert commands.run == [
        "systemd-sysusers /usr/local/lib/sysusers.d/proxyd.conf",
        "systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/proxyd.conf",
        "systemctl daemon-reload",
    ]


def test_without_a_running_systemd_nothing_is_run(root, capsys):
    commands = Commands()
    assert run_install(host=a_host(root=root, run=commands)) == 0
    assert commands.run == []
    assert "none of the commands was run" in capsys.readouterr().out


def test_a_command_that_fails_is_named_with_what_it_said(root, capsys):
    commands = Commands({"systemd-sysusers": "Read-only file system"})
    assert run_install(host=a_host(root=root, booted=True, run=commands)) == 1
    assert (root / SERVICE).is_file()
    assert len(commands.run) == 3
    assert "proxyd.conf` has failed: Read-only file system" in capsys.readouterr().err


def test_a_service_is_stopped_before_its_unit_goes(root):
    run_install(host=a_host(root=root))
    there = []

    def run(command):
        there.append((command[1], (root / SERVICE).exists()))

    assert run_uninstall(host=a_host(root=root, booted=True, run=run)) == 0
    assert there == [("disable", True), ("daemon-reload", False)]


PACKAGES = "usr/lib/systemd/system"
ENABLED = "etc/systemd/system/sockets.target.wants/virtproxyd.socket"


@pytest.fixture
def c_proxy(root):
    """A host with libvirt's own virtproxyd, of which one socket is enabled."""
    for name in layout.SYSTEM_UNITS:
        (root / PACKAGES).mkdir(parents=True, exist_ok=True)
        (root / PACKAGES / name).write_text("[Unit]\n")
    (root / ENABLED).parent.mkdir(parents=True)
    (root / ENABLED).symlink_to(f"/{PACKAGES}/virtproxyd.socket")
    return root


def only(*units):
    """A systemd in which these are active, and nothing else is or is enabled."""
    every = [*layout.SYSTEM_UNITS, "libvirtd.socket", "libvirtd.service"]
    no = {f"systemctl is-active --quiet {name}": "no" for name in every if name not in units}
    return Commands(no | {"systemctl is-enabled": "no"})


def test_whose_units_had_these_names_has_them_again_as_they_were(c_proxy):
    before = only("virtproxyd.socket", "virtproxyd.service")
    assert run_install(host=a_host(root=c_proxy, booted=True, run=before)) == 0
    run_install(host=a_host(root=c_proxy, booted=True, run=only()))  # an upgrade
    after = only()
    assert run_uninstall(host=a_host(root=c_proxy, booted=True, run=after)) == 0
    assert [each for each in after.run if "is-" not in each][1:] == [
        f"mkdir -p /{ENABLED.rpartition('/')[0]}",
        f"ln -sfn /{PACKAGES}/virtproxyd.socket /{ENABLED}",
        "systemctl daemon-reload",
        "systemctl start virtproxyd.socket",
    ]


def test_they_are_not_started_beside_a_libvirtd_that_serves(c_proxy, capsys):
    run_install(host=a_host(root=c_proxy, booted=True, run=only("virtproxyd.socket")))
    after = only("libvirtd.socket")
    assert run_uninstall(host=a_host(root=c_proxy, booted=True, run=after)) == 0
    assert [each for each in after.run if "is-" not in each][1:] == ["systemctl daemon-reload"]
    assert "libvirtd serves here" in capsys.readouterr().out


def test_what_comes_next_depends_on_the_host(root, capsys):
    host = a_host(root=root, booted=True, next_lines=lambda: ["# so", "proxyd switch --to modular"])
    assert run_install("--json", host=host) == 0
    then = json.loads(capsys.readouterr().out)["then"]
    assert [then[0], then[1].rpartition("switch")[2]] == ["# so", " --to modular"]
    assert run_install("--json", "--destdir", str(root / "other")) == 0
    assert "systemctl enable" not in capsys.readouterr().out


def test_a_service_that_cannot_be_stopped_keeps_its_units(root, capsys):
    run_install(host=a_host(root=root))
    before = snapshot(root)
    commands = Commands({"systemctl disable --now": "Connection timed out"})
    assert run_uninstall(host=a_host(root=root, booted=True, run=commands)) == 1
    assert snapshot(root) == before
    assert "nothing was removed" in capsys.readouterr().err


def test_a_dry_run_runs_nothing(root):
    commands = Commands()
    run_install(host=a_host(root=root, booted=True, run=commands))
    commands.run.clear()
    for run in (run_install, run_uninstall):
        assert run("--dry-run", host=a_host(root=root, booted=True, run=commands)) == 0
    assert commands.run == []


def test_a_host_with_libvirts_own_policy_and_rule_gets_neither(root):
    for path in ("actions/org.libvirt.unix.policy", "rules.d/60-libvirt.rules"):
        (root / "usr/share/polkit-1" / path).parent.mkdir(parents=True)
        (root / "usr/share/polkit-1" / path).write_text("… org.libvirt.unix.manage …")
    run_install("--destdir", str(root))
    assert not list(root.rglob("*proxyd*.policy"))
    assert not list(root.rglob("*proxyd*.rules"))


def test_our_policy_goes_when_libvirts_own_has_come(installed, capsys):
    theirs = installed / "usr/share/polkit-1/actions/org.libvirt.unix.policy"
    theirs.write_text('<action id="org.libvirt.unix.manage">')
    capsys.readouterr()
    run_install("--destdir", str(installed))
    assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]
    ours = "/usr/share/polkit-1/actions/proxyd.libvirt.unix.policy"
    assert f"remove  {ours}\n" in capsys.readouterr().out


def test_the_parser_shows_where_things_go(capsys):
    with pytest.raises(SystemExit):
        whole_parser().parse_args(["install", "--help"])
    assert "/usr/local" in capsys.readouterr().out
