"""What the packages do to hosts: come, be upgraded, go. Each test has a host of its own.

Run by `script/package --test`, for the release that the packages are of.
"""

import json
from contextlib import ExitStack, contextmanager

import pytest

from tests.bed.pingpong import DEADLINE_S as PATIENCE_S
from tests.bed.waiting import wait_until
from tests.package.host import CONF
from tests.package.other_packages import field
from tests.system.rpc import opened
from tests.system.test_systemd_restart import in_ping_pong

pytestmark = [pytest.mark.system, pytest.mark.package]

SESSIONS = 50
SOCK = "run/libvirt/libvirt-sock"
LEGACY = "qemu+unix:///system?mode=legacy"
DIRECT = "qemu+unix:///system?socket=/run/libvirt/behind/virtqemud-sock"
LIST = f"virsh --quiet -c '{LEGACY}' list --all"
LIBVIRT = "install libvirt-daemon-system libvirt-clients"
POLICY = "/usr/share/polkit-1/actions/proxyd.libvirt.unix.policy"
RULES = "/usr/share/polkit-1/rules.d/50-proxyd-libvirt-group.rules"
SERVICE, SOCKET = "virtproxyd.service", "virtproxyd.socket"
# As docs/deployment/debian.md says it.
BEHIND = f"""
cp /usr/share/proxyd/behind/* /etc/systemd/system/
echo 'proxyd_backend_dir = "/run/libvirt/behind"' >>{CONF}
systemctl daemon-reload
"""
SWITCH = "proxyd switch --to modular --yes"
# The group libvirt may have members; the rest is ucf's and debconf's own account of what they did.
STAYS = (
    "/etc/group",
    "/etc/gshadow",
    "/etc/.pwd.lock",
    "/var/lib/ucf",
    "/etc/ld.so.cache",
    "/var/lib/dpkg",
    "/etc/rc",  # links of System V's init, which systemctl has others rewrite where it enables
)


@pytest.fixture
def libvirt(host):
    """A host whose libvirtd serves, as Debian's packages have it."""
    host.apt(LIBVIRT)
    host.shell(LIST)
    return host


def exists(host, path):
    return (host.root / path[1:]).exists()


def switched(host):
    host.shell(BEHIND)
    host.shell(SWITCH)
    host.shell(LIST)


def installed(host):
    return host.shell("dpkg-query --show --showformat='${db:Status-Abbrev}${Version}' proxyd")


# ---- Installation


def test_a_host_without_libvirt(host, packages, capsys):
    before = host.state()
    seconds = host.install(packages.daemon)
    size = float(host.shell("dpkg-query -W -f '${Installed-Size}' proxyd")) / 1024
    with capsys.disabled():
        print(f"\n{packages.release}: {size:.0f} MiB installed, Python too in {seconds:.1f} s")
    after = host.state()
    started = {
        line for line in after.units - before.units if line.endswith((" running", " listening"))
    }
    assert started == set()
    assert host.show(SOCKET, "ActiveState") == "inactive"
    assert host.run("systemctl", "is-enabled", SOCKET, SERVICE).stdout.split() == ["disabled"] * 2
    assert {line.partition(":")[0] for line in after.accounts - before.accounts} == {"libvirt"}
    # What libvirt's packages would have brought.
    assert exists(host, POLICY)
    assert exists(host, RULES)
    version = host.shell("proxyd --version")
    assert f"Debian package {field(packages.daemon, 'Version')}, for {packages.release}" in version
    assert "TLS: OpenSSL" in version
    assert "has put all of it in place" in host.shell("proxyd install")
    assert host.shell("proxyd --check-config | head -1") != ""
    assert (
        host.shell("systemd-analyze verify --man=no virtproxyd.service virtproxyd-tls.socket 2>&1")
        == ""
    )


def test_it_serves_at_once_where_its_sockets_are_enabled(host, packages):
    host.install(packages.daemon)
    host.shell("systemctl enable --now virtproxyd{,-ro,-admin}.socket")
    said = json.loads(host.run("proxyd", "status", "--json", "--probe").stdout)
    assert said["version"] == host.shell("proxyd --version").split()[1]
    assert host.show(SERVICE, "ActiveState") == "active"
    # Kerberos' library is built for this release.
    host.shell("/usr/lib/proxyd/bin/python3 -I -c 'import gssapi'")


def test_a_host_whose_libvirtd_serves_goes_on_as_it_was(libvirt, packages):
    before = libvirt.state()
    pid = libvirt.show("libvirtd.service", "MainPID")
    events = ["virsh", "-c", "qemu:///system", "event", "--all", "--loop"]
    with libvirt.held(*events) as held:
        libvirt.install(packages.daemon)
        assert libvirt.show("libvirtd.service", "MainPID") == pid
        assert held.poll() is None
    after = libvirt.state()
    gone = before.units - after.units
    assert {line for line in gone if line.split()[0].startswith(("libvirt", "virt"))} == set()
    assert {each for each in after.units - before.units if each.startswith("virtproxyd")} == {
        f"virtproxyd{suffix} disabled"
        for suffix in (
            ".service",
            *(f"{each}.socket" for each in ("", "-ro", "-admin", "-tcp", "-tls")),
        )
    }
    assert before.accounts == after.accounts
    # libvirt's own are there, and two of a kind are one too many.
    assert not exists(libvirt, POLICY)
    assert not exists(libvirt, RULES)
    libvirt.shell(LIST)
    assert "proxyd switch" in libvirt.shell("proxyd install")


def test_polkit_is_told_by_libvirts_packages_or_by_ours_and_never_by_both(host, packages):
    host.install(packages.daemon)
    assert exists(host, POLICY)
    host.apt(LIBVIRT)
    assert not exists(host, POLICY)
    assert not exists(host, RULES)
    host.apt("purge '?and(?installed,?name(^libvirt-daemon))'")
    assert exists(host, POLICY)
    assert exists(host, RULES)


def test_the_first_virsh_after_the_switch(libvirt, packages):
    libvirt.install(packages.daemon)
    libvirt.shell(BEHIND)
    libvirt.shell(SWITCH)
    assert libvirt.show(SERVICE, "ActiveState") == "inactive"
    libvirt.shell(LIST)
    assert libvirt.show(SERVICE, "ActiveState") == "active"
    assert "/usr/sbin/proxyd" in libvirt.show(SERVICE, "ExecStart")
    assert libvirt.show("libvirtd.service", "ActiveState") == "inactive"


# ---- Upgrades


@contextmanager
def in_use(host):
    """Sessions that never rest; none of them is lost in the block."""
    with ExitStack() as stack:
        players = [
            stack.enter_context(
                in_ping_pong(stack.enter_context(opened(host.root / SOCK, "qemu:///system")))
            )
            for _ in range(SESSIONS)
        ]
        yield
        counts = [calls[0] for calls, _, _ in players]
        wait_until(
            lambda: all(
                calls[0] > count + 5 for (calls, _, _), count in zip(players, counts, strict=True)
            ),
            PATIENCE_S,
            "all of them go on",
        )
        assert [wrong for _, wrong, _ in players] == [[]] * SESSIONS
        longest = max(longest[0] for _, _, longest in players)
    print(f"the longest call took {longest:.3f} s")


def test_an_upgrade_and_a_downgrade_lose_no_session(libvirt, packages):
    libvirt.install(packages.before)
    switched(libvirt)
    for package, options in ((packages.daemon, ""), (packages.before, "--allow-downgrades")):
        before = libvirt.show(SERVICE, "MainPID")
        with in_use(libvirt):
            numbers = {each["id"] for each in json.loads(libvirt.shell("proxyd clients --json"))}
            assert len(numbers) == SESSIONS
            libvirt.install(package, options)
            assert libvirt.show(SERVICE, "MainPID") not in {before, "0"}
            after = {each["id"] for each in json.loads(libvirt.shell("proxyd clients --json"))}
            assert after == numbers
        assert installed(libvirt).endswith(field(package, "Version"))
        said = json.loads(libvirt.run("proxyd", "status", "--json", "--passive").stdout)
        assert said["version"] == libvirt.shell("proxyd --version").split()[1]
        assert not said["program"]["outdated"]
    libvirt.shell(LIST)


def test_an_upgrade_that_could_not_start_leaves_the_old_program(libvirt, packages):
    libvirt.install(packages.before)
    switched(libvirt)
    pid = libvirt.show(SERVICE, "MainPID")
    libvirt.shell(f"cp {CONF} /root/conf; echo 'max_clients = many' >>{CONF}")
    with in_use(libvirt):
        libvirt.install(packages.daemon)
        assert installed(libvirt).startswith("ii")
        assert libvirt.show(SERVICE, "MainPID") == pid
        libvirt.shell(f"cp /root/conf {CONF}")
        libvirt.shell("proxyd upgrade")
        assert libvirt.show(SERVICE, "MainPID") not in {pid, "0"}


def test_who_cannot_be_asked_to_hand_over_is_restarted(libvirt, packages):
    libvirt.install(packages.before)
    switched(libvirt)
    pid = libvirt.show(SERVICE, "MainPID")
    libvirt.shell("rm /run/libvirt/libvirt-admin-sock /run/libvirt/virtproxyd-admin-sock")
    libvirt.install(packages.daemon)
    assert libvirt.show(SERVICE, "MainPID") not in {pid, "0"}
    libvirt.shell(LIST)


def test_an_administrators_policy_keeps_an_upgrade_from_touching_the_service(libvirt, packages):
    libvirt.install(packages.before)
    switched(libvirt)
    pid = libvirt.show(SERVICE, "MainPID")
    libvirt.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    libvirt.install(packages.daemon)
    assert libvirt.show(SERVICE, "MainPID") == pid
    libvirt.shell(LIST)


def test_a_configuration_that_was_edited_stays_and_nobody_is_asked(host, packages):
    host.install(packages.before)
    before = (host.root / CONF[1:]).read_text()
    assert before.startswith("# Of an older release.")
    edited = before + "max_clients = 77\n"
    host.write(CONF, edited)
    host.write("/etc/default/virtproxyd", 'VIRTPROXYD_ARGS="--timeout 7"\n')
    host.install(packages.daemon)
    assert (host.root / CONF[1:]).read_text() == edited
    assert "--timeout 7" in (host.root / "etc/default/virtproxyd").read_text()
    assert "max_clients" in (host.root / f"{CONF[1:]}.ucf-dist").read_text()


def test_a_configuration_that_was_left_alone_is_brought_up_to_date(host, packages):
    host.install(packages.before)
    host.install(packages.daemon)
    shipped = host.root / "usr/share/proxyd/virtproxyd.conf"
    assert (host.root / CONF[1:]).read_bytes() == shipped.read_bytes()
    assert not exists(host, f"{CONF}.ucf-dist")


# ---- Beside others


def test_units_of_libvirts_own_proxy_make_room_and_come_back(host, packages):
    path = f"/opt/packages/{packages.libvirts.name}"
    host.apt(f"install {path}")
    host.shell("systemctl enable --now virtproxyd.socket virtproxyd.service")
    pid = host.show(SERVICE, "MainPID")
    (here,) = host.shell("dpkg -L made-up-virtproxyd | grep 'virtproxyd.service$'").split()
    for options in ("", "--reinstall"):
        host.install(packages.daemon, options)
        assert host.show(SERVICE, "MainPID") == pid
        assert host.show(SOCKET, "ActiveState") == "active"
    assert "proxyd" in host.show(SERVICE, "ExecStart")
    assert exists(host, f"{here}.libvirt")
    # Its settings are ours: the file is read by both.
    assert (host.root / CONF[1:]).read_text() == "max_clients = 66\n"
    host.apt("remove proxyd")
    assert "libvirt's own" in host.show(SERVICE, "Description")
    assert host.show(SOCKET, "ActiveState") == "active"
    assert host.run("systemctl", "is-enabled", SOCKET).stdout == "enabled\n"
    assert not exists(host, f"{here}.libvirt")
    assert "proxyd" not in host.shell("dpkg-divert --list proxyd")
    host.apt("purge proxyd")
    assert (host.root / CONF[1:]).read_text() == "max_clients = 66\n"
    assert host.run("systemctl", "is-enabled", SOCKET).stdout == "enabled\n"


def test_libvirts_own_proxy_may_come_later(host, packages):
    host.install(packages.daemon)
    path = f"/opt/packages/{packages.libvirts.name}"
    host.apt(f"-o Dpkg::Options::=--force-confold install {path}")
    assert "proxyd" in host.show(SERVICE, "ExecStart")
    host.apt("purge made-up-virtproxyd")
    assert "proxyd" in host.show(SERVICE, "ExecStart")
    host.apt("purge proxyd")
    assert host.show(SERVICE, "LoadState") == "not-found"


def test_an_installation_by_hand_is_named_and_can_go(host, packages):
    host.install(packages.daemon)
    host.apt("remove proxyd")
    host.shell(
        'mkdir -p /var/lib/proxyd; echo \'{"version": 1, "files": {}, "directories": []}\''
        " >/var/lib/proxyd/installed.json"
    )
    assert "proxyd uninstall" in host.apt(f"install /opt/packages/{packages.daemon.name}")


# ---- Going


def test_a_host_that_was_switched_has_its_libvirtd_back(libvirt, packages):
    libvirt.apt(f"satisfy '{field(packages.daemon, 'Depends')}'")
    before = libvirt.state()
    libvirt.install(packages.daemon)
    switched(libvirt)
    libvirt.apt("remove proxyd")
    assert libvirt.show("libvirtd.socket", "ActiveState") == "active"
    libvirt.shell(LIST)
    libvirt.shell("rm /etc/systemd/system/virtqemud*; systemctl daemon-reload")
    libvirt.apt("purge proxyd")
    after = libvirt.state()
    assert {path for path in before.paths_that_differ(after) if not path.startswith(STAYS)} == set()
    enabled = {line for line in before.units ^ after.units if line.endswith(("abled", "masked"))}
    assert enabled == set()


def test_a_host_that_was_switched_back_stays_so(libvirt, packages):
    libvirt.install(packages.daemon)
    switched(libvirt)
    libvirt.shell("proxyd switch --to monolithic --yes")
    libvirt.shell("virsh list")
    pid = libvirt.show("libvirtd.service", "MainPID")
    libvirt.apt("purge proxyd")
    assert libvirt.show("libvirtd.service", "MainPID") == pid
    libvirt.shell("virsh list")
    assert not exists(libvirt, "/var/lib/proxyd")


def test_nothing_is_left_after_a_purge_and_it_can_come_again(host, packages, capsys):
    depends = field(packages.daemon, "Depends")
    host.apt(f"satisfy '{depends}'")
    before = host.state()
    for _ in range(2):
        seconds = host.install(packages.daemon)
        host.shell("systemctl enable --now virtproxyd.socket")
        host.run("proxyd", "status")
        host.apt("remove proxyd")
        assert exists(host, CONF)
        assert not exists(host, f"/{SOCK}")
        host.apt("purge proxyd")
        after = host.state()
        left = {path for path in before.paths_that_differ(after) if not path.startswith(STAYS)}
        assert left == set()
        assert {line.partition(":")[0] for line in after.accounts - before.accounts} <= {"libvirt"}
        assert after.units - before.units == set()
    with capsys.disabled():
        print(f"\n{packages.release}: on a host with Python it is there after {seconds:.1f} s")
    assert "proxyd" not in host.shell("dpkg-divert --list proxyd")


def test_what_was_removed_comes_back_with_its_settings(host, packages):
    host.install(packages.daemon)
    host.write(CONF, "max_clients = 77\n")
    host.apt("remove proxyd")
    host.install(packages.daemon)
    assert (host.root / CONF[1:]).read_text() == "max_clients = 77\n"


# ---- The load tool


def test_the_load_tool_needs_no_daemon(host, packages, capsys):
    seconds = host.install(packages.loadtest)
    with capsys.disabled():
        print(f"\n{packages.release}: the load tool is there after {seconds:.1f} s")
    assert "SCENARIO" in host.shell("proxyd-loadtest --help")
    assert host.run("systemctl", "cat", SERVICE).status != 0
    host.apt("purge proxyd-loadtest")
    assert not exists(host, "/usr/lib/proxyd-loadtest")
