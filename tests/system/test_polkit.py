"""Local clients and polkit: real virsh as root and as others, real polkitd on a bus of its own."""

import os
import pwd
import re

import pytest

from tests.bed.command import held_open
from tests.bed.daemon import short_directory
from tests.bed.polkit import Polkitd, PrivateBus
from tests.bed.proxyd_log import log_line
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

# Accounts that every Debian has, by what the rules below say of them.
LET_IN, REFUSED, ASKED, HELD_UP, MEMBER = "games", "bin", "daemon", "mail", "news"
RULES = """
polkit.addRule(function (action, subject) {{
    switch (subject.user) {{
    case "games": return polkit.Result.YES;
    case "bin": return polkit.Result.NO;
    case "mail": polkit.spawn(["cat", "{pipe}"]); return polkit.Result.YES;
    }}
}});
"""


@pytest.fixture(scope="module")
def bed():
    with short_directory(0o711) as directory, PrivateBus(directory) as bus:
        pipe = directory / "pipe"
        os.mkfifo(pipe)
        pipe.chmod(0o666)
        polkitd = Polkitd(directory, bus, members=[MEMBER])
        polkitd.rule(RULES.format(pipe=pipe))
        polkitd.pipe = pipe
        try:
            yield polkitd
        finally:
            polkitd.stop()


@pytest.fixture
def polkitd(bed):
    if not bed.daemon.running:
        bed.start()
    return bed


@pytest.fixture
def front(make_proxyd, polkitd):
    return listening(make_proxyd, polkitd.bus.environment)


def listening(make_proxyd, environment, **config):
    settings = {
        "auth_unix_rw": "polkit",
        "auth_unix_ro": "polkit",
        "unix_sock_rw_perms": "0777",
        **config,
    }
    return make_proxyd(settings, mode=0o711, environment=environment)


def try_virsh(front, user, *, readonly=False):
    sock = front.sock_ro if readonly else front.sock
    uid = pwd.getpwnam(user).pw_uid
    return virsh(unix_uri("test:///default", sock), "list", readonly=readonly, user=uid)


def said(finished):
    """virsh's own words for why it could not connect."""
    assert finished.status == 1
    return re.sub(r"\s+", " ", finished.stderr)


def test_root_comes_in_without_being_asked_about(front):
    try_virsh(front, "root").succeeded()
    assert "org.libvirt.unix" not in front.log_text()


@pytest.mark.parametrize("user", [LET_IN, MEMBER])
def test_whom_a_rule_lets_in_comes_in(front, user):
    try_virsh(front, user).succeeded()
    assert f"({user})" in log_line(front, " opened: libvirt-sock,")


def test_whom_a_rule_refuses_is_told_what_to_do(front):
    told = said(try_virsh(front, REFUSED))
    assert "authentication failed" in told
    assert "org.libvirt.unix.manage" in told
    assert "group libvirt" in told
    line = log_line(front, "org.libvirt.unix.manage after")
    assert " warning : " in line
    assert f"({REFUSED})" in line


def test_who_would_have_to_be_asked_and_has_no_agent_is_told_so(front):
    told = said(try_virsh(front, ASKED))
    assert "org.libvirt.unix.manage" in told
    assert "agent" in told


def test_everybody_may_look(front):
    for user in (ASKED, LET_IN):
        try_virsh(front, user, readonly=True).succeeded()
    assert "org.libvirt.unix.monitor" in said(try_virsh(front, REFUSED, readonly=True))


def test_without_polkitd_nobody_comes_in_but_root(front, polkitd):
    polkitd.stop()
    told = said(try_virsh(front, LET_IN))
    assert "polkit" in told
    assert "polkitd does not run and cannot be started" in told
    try_virsh(front, "root").succeeded()
    polkitd.start()
    try_virsh(front, LET_IN).succeeded()


def test_without_a_bus_nobody_comes_in_but_root(make_proxyd, tmp_path):
    nowhere = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/nowhere"}
    front = listening(make_proxyd, nowhere)
    told = said(try_virsh(front, LET_IN))
    assert "no system bus" in told
    try_virsh(front, "root").succeeded()


def asking(front):
    """A virsh about which polkit is thinking; the rule has begun when the pipe has a reader."""
    uid = pwd.getpwnam(HELD_UP).pw_uid
    uri = unix_uri("test:///default", front.sock)
    return held_open(["virsh", "-q", "-c", uri, "list"], user=uid)


def begun(polkitd):
    def reads():
        try:
            return os.open(polkitd.pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    return wait_until(reads, 15, "the rule is running")


def test_a_polkitd_that_dies_in_the_middle_lets_nobody_in(front, polkitd):
    with asking(front) as client:
        pipe = begun(polkitd)
        polkitd.kill()
        os.close(pipe)  # not before: at its end the rule has an answer
        assert client.wait(30) == 1
        assert client.stdout.read() == ""
    assert f"({HELD_UP})" in log_line(front, "org.libvirt.unix.manage after")
    polkitd.start()
    try_virsh(front, LET_IN).succeeded()


def test_a_client_that_goes_in_the_middle_leaves_nothing(front, polkitd):
    with asking(front) as client:
        pipe = begun(polkitd)
        client.kill()
        assert "the client is gone: closed" in log_line(front, "ended before a session was open")
        os.close(pipe)
    try_virsh(front, LET_IN).succeeded()


def test_others_are_served_while_one_is_asked_about(front, polkitd):
    with asking(front) as client:
        pipe = begun(polkitd)
        try_virsh(front, "root").succeeded()
        os.close(pipe)  # `cat` ends, the rule says yes
        assert client.wait(30) == 0
