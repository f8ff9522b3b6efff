import os
import re
import tomllib
from pathlib import Path

import pytest

from proxyd.config.logstrings import LogLevel
from proxyd.deploy.layout import SYSTEM_UNITS, shipped_directory
from proxyd.deploy.unitfile import fitted
from proxyd.log.line import LogEntry
from proxyd.log.outputs import FileOutput
from tests.bed.blocks import blocks
from tests.bed.command import run_to_end
from tests.deploy.installing import UNITS, run_install

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "units"
SERVICE = (SHIPPED / "virtproxyd.service").read_text()
LIBVIRTS_OWN = ("libvirtd", "libvirtd-ro", "libvirtd-admin", "libvirtd-tcp", "libvirtd-tls")

# docs/protocol/systemd.md, section 3
SOCKETS = {
    "virtproxyd.socket": {
        "ListenStream": ["/run/libvirt/libvirt-sock"],
        "SocketMode": ["0666"],
        "RemoveOnStop": ["yes"],
        "Conflicts": ["libvirtd.socket"],
        "After": ["libvirtd.socket"],
        "Also": ["virtproxyd-ro.socket", "virtproxyd-admin.socket"],
    },
    "virtproxyd-ro.socket": {
        "ListenStream": ["/run/libvirt/libvirt-sock-ro"],
        "SocketMode": ["0666"],
        "RemoveOnStop": ["yes"],
        "BindsTo": ["virtproxyd.socket"],
        "Conflicts": ["libvirtd-ro.socket"],
        "After": ["virtproxyd.socket", "libvirtd-ro.socket"],
        "Also": ["virtproxyd.socket", "virtproxyd-admin.socket"],
    },
    "virtproxyd-admin.socket": {
        "ListenStream": ["/run/libvirt/libvirt-admin-sock", "/run/libvirt/virtproxyd-admin-sock"],
        "SocketMode": ["0600"],
        "RemoveOnStop": ["yes"],
        "BindsTo": ["virtproxyd.socket"],
        "Conflicts": ["libvirtd-admin.socket"],
        "After": ["virtproxyd.socket", "libvirtd-admin.socket"],
        "Also": ["virtproxyd.socket", "virtproxyd-ro.socket"],
    },
    "virtproxyd-tcp.socket": {
        "ListenStream": ["16509"],
        "BindsTo": ["virtproxyd.socket"],
        "Conflicts": ["libvirtd-tcp.socket"],
        "After": ["virtproxyd.socket", "libvirtd-tcp.socket"],
    },
    "virtproxyd-tls.socket": {
        "ListenStream": ["16514"],
        "BindsTo": ["virtproxyd.socket"],
        "Conflicts": ["libvirtd-tls.socket"],
        "After": ["virtproxyd.socket", "libvirtd-tls.socket"],
    },
}


def directives(text):
    found = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def units(tmp_path):
    """The directory of installed units, whose program's path takes quoting."""
    program = tmp_path / "an odd plàce, 100%" / "proxyd"
    program.parent.mkdir()
    program.symlink_to("/usr/bin/true")
    root = tmp_path / "root"
    assert run_install("--destdir", str(root), program=str(program)) == 0
    return root / UNITS


def verify(directory, *options, names=None, runtime_dir="/nonexistent"):
    """What systemd-analyze objects to; the empty string if nothing."""
    paths = [str(directory / name) for name in names or sorted(os.listdir(directory))]
    done = run_to_end(
        ["systemd-analyze", "verify", "--man=no", *options, *paths],
        deadline_s=60,
        environment={"XDG_RUNTIME_DIR": str(runtime_dir)},
    )
    return done.stdout + done.stderr + (f"exit status {done.status}" if done.status else "")


def test_systemd_objects_to_nothing(units):
    assert sorted(os.listdir(units)) == sorted(SYSTEM_UNITS)
    assert verify(units) == ""


def test_nor_with_libvirts_own_units_beside_them(units):
    for name in LIBVIRTS_OWN:
        (units / f"{name}.socket").write_text(
            f"[Socket]\nListenStream=/run/libvirt/{name}\nService=libvirtd.service\n"
        )
    (units / "libvirtd.service").write_text("[Service]\nExecStart=/usr/bin/true\n")
    assert verify(units, names=SYSTEM_UNITS) == ""


def test_nor_to_a_users(units, tmp_path):
    # Its sockets' paths have to fit into 107 bytes.
    assert verify(units.parent / "user", "--user", runtime_dir=tmp_path) == ""


def test_what_is_wrong_with_a_unit_would_be_seen(units):
    service = units / "virtproxyd.service"
    service.write_text(service.read_text().replace("Type=notify\n", "Type=notify-someday\n"))
    assert "notify-someday" in verify(units)


def test_the_service_is_little_exposed(units):
    done = run_to_end(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            f"{units}/virtproxyd.service",
        ],
        deadline_s=60,
    )
    figure = re.search(r"exposure level for virtproxyd.service: ([0-9.]+)", done.succeeded())
    assert figure is not None
    print(f"exposure of virtproxyd.service: {figure[1]}")
    assert float(figure[1]) < 2.0


@pytest.mark.parametrize("name", SOCKETS)
def test_a_socket_is_libvirts(name):
    found = directives((SHIPPED / name).read_text())
    del found["Description"]
    service = {"Service": ["virtproxyd.service"], "WantedBy": ["sockets.target"]}
    assert found == SOCKETS[name] | service


def test_the_service_is_bound_to_its_sockets_as_libvirts():
    found = directives(SERVICE)
    sockets = ["virtproxyd.socket", "virtproxyd-ro.socket", "virtproxyd-admin.socket"]
    assert found["BindsTo"] == sockets[:1]
    assert found["Wants"] == sockets[1:]
    assert found["After"][:3] == found["Also"] == sockets
    assert found["Conflicts"] == ["libvirtd.service"]
    assert found["Environment"] == ['VIRTPROXYD_ARGS="--timeout 120"']


def test_no_socket_has_another_name_than_that_of_its_unit():
    # The daemon is given it in LISTEN_FDNAMES.
    ours = [path for path in SHIPPED.rglob("*.socket") if path.parent.name != "behind"]
    texts = [path.read_text() for path in ours]
    assert len(texts) == 7
    assert not any("FileDescriptorName" in text for text in texts)


@pytest.mark.parametrize("name", ["virtproxyd.service", "user/virtproxyd.service"])
def test_a_reload_is_a_command_that_can_fail(name):
    text = (SHIPPED / name).read_text()
    found = directives(fitted(text, command="/p -m x", in_a_home=False))
    # With notify-reload systemd sends a signal, and nobody can tell it that nothing was changed.
    assert (found["Type"], found["ExecReload"]) == (["notify"], ["/p -m x reload"])


def test_a_program_in_a_home_directory_may_be_read_and_no_more():
    found = directives(fitted(SERVICE, command="/p", in_a_home=True))
    assert found["ProtectHome"] == ["read-only"]
    assert directives(SERVICE)["ProtectHome"] == ["yes"]


def test_everything_in_the_folder_comes_with_a_wheel():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = {
        (target, path.name)
        for target, globs in patterns["data-files"].items()
        for glob in globs
        for path in ROOT.glob(glob)
    }
    there = {
        (str(Path("share/proxyd") / path.parent.relative_to(ROOT)), path.name)
        for path in SHIPPED.rglob("*")
        if path.is_file()
    }
    assert shipped == there
    assert shipped_directory() == SHIPPED


def test_the_group_is_made(tmp_path):
    (tmp_path / "etc").mkdir()
    run_to_end(
        ["systemd-sysusers", f"--root={tmp_path}", str(SHIPPED / "sysusers.conf")], deadline_s=30
    ).succeeded()
    assert re.search(r"^libvirt:", (tmp_path / "etc/group").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("before", "after"), [(None, 0o755), (0o711, 0o711)])
def test_the_runtime_directory_is_made_and_one_of_libvirts_is_left_as_it_is(
    tmp_path, before, after
):
    directory = tmp_path / "run/libvirt"
    if before is not None:
        directory.mkdir(parents=True)
        directory.chmod(before)
    run_to_end(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(SHIPPED / "tmpfiles.conf")],
        deadline_s=30,
    ).succeeded()
    assert directory.stat().st_mode & 0o777 == after


def test_logrotate_takes_the_log_away_and_nobody_has_to_tell_the_daemon(tmp_path):
    log = tmp_path / "virtproxyd.log"
    rules = tmp_path / "rules"
    text = (SHIPPED / "logrotate.conf").read_text()
    rules.write_text(text.replace("/var/log/libvirt/virtproxyd.log", str(log)))
    output = FileOutput(str(log))
    try:
        output.write(entry("before"))
        run_to_end(
            ["logrotate", "--force", "--state", str(tmp_path / "state"), str(rules)], deadline_s=30
        ).succeeded()
        output.write(entry("after"))
    finally:
        output.close()
    assert "before" in (tmp_path / "virtproxyd.log.1").read_text()
    assert "after" in log.read_text()
    assert "before" not in log.read_text()


def entry(text):
    return LogEntry(when=0.0, tid=11, level=LogLevel.INFO, category="daemon", text=text)


@pytest.mark.parametrize("name", ["virtqemud.service", "virtqemud.socket", "virtqemud-ro.socket"])
def test_what_a_package_has_for_libvirtd_behind_proxyd_is_what_the_page_says(name):
    shown = [each for each in blocks(ROOT / "docs/deployment/debian.md") if each.option("file")]
    (text,) = (each.text for each in shown if each.option("file").endswith(f"/{name}"))
    assert (ROOT / "units" / "behind" / name).read_text().strip() == text.strip()
