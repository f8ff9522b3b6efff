"""The real polkitd, on a bus of the tests' own, asked about real processes of several users."""

import errno
import os
import pwd
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest
import trio
from jeepney.io.trio import open_dbus_connection
from jeepney.low_level import HeaderFields
from jeepney.wrappers import DBusAddress, new_error, new_method_call, new_method_return

from proxyd.peer.credentials import Subject, credentials_of, peer_pidfd
from proxyd.polkit.authority import PolkitAuthority
from tests.bed.command import effective, held_open
from tests.bed.daemon import descriptors, short_directory
from tests.bed.polkit import NAME, Polkitd, PrivateBus
from tests.bed.waiting import wait_until
from tests.session.desk import eventually

pytestmark = pytest.mark.system

MANAGE = "org.libvirt.unix.manage"
MONITOR = "org.libvirt.unix.monitor"
DEADLINE_S = 15

DENIED = (45, 60)
CANCELLED = (79, 60)
NO_AGENT = (94, 60)
NO_BUS = (1, 47)
CALL_FAILED = (89, 47)

# Accounts that every Debian has, by what the rules below say of them.
LET_IN, REFUSED, ASKED, HELD_UP, MEMBER = "games", "bin", "daemon", "mail", "news"

# `cat` opens the pipe and waits there, with it the rule and all of polkitd, until somebody has
# written to the pipe; whoever opens it for writing knows by that that the rule is running.
RULES = """
polkit.addAdminRule(function (action, subject) {{ return ["unix-user:0"]; }});
polkit.addRule(function (action, subject) {{
    switch (subject.user) {{
    case "{let_in}": return polkit.Result.YES;
    case "{refused}": return polkit.Result.NO;
    case "{held_up}": polkit.spawn(["cat", "{pipe}"]); return polkit.Result.YES;
    }}
}});
"""

CLIENT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
sys.stdin.read()
"""


def numbers(denial):
    return denial and (denial.code, denial.domain)


@contextmanager
def client(user):
    """A process of this user has connected: who that is, as the kernel says it."""
    uid = pwd.getpwnam(user).pw_uid
    with short_directory(0o711) as directory, socket.socket(socket.AF_UNIX) as listener:
        path = directory / "sock"
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        listener.settimeout(DEADLINE_S)
        with held_open(["/usr/bin/python3", "-c", CLIENT, str(path)], user=uid) as process:
            sock, _ = listener.accept()
            with sock:
                peer, pidfd = credentials_of(sock), peer_pidfd(sock)
            assert (peer.pid, peer.uid) == (process.pid, uid)
            try:
                yield Subject(pid=peer.pid, start_ticks=peer.start_ticks, uid=peer.uid, pidfd=pidfd)
            finally:
                os.close(pidfd)


@pytest.fixture(scope="module")
def bed():
    with short_directory(0o711) as directory, PrivateBus(directory) as bus:
        pipe = directory / "pipe"
        os.mkfifo(pipe)
        pipe.chmod(0o666)
        polkitd = Polkitd(directory, bus, members=[MEMBER])
        polkitd.rule(RULES.format(let_in=LET_IN, refused=REFUSED, held_up=HELD_UP, pipe=pipe))
        try:
            yield polkitd
        finally:
            polkitd.stop()


@pytest.fixture
def polkitd(bed):
    """One that runs, whatever the last test did to it."""
    if not bed.daemon.running:
        bed.start()
    return bed


async def authority(nursery, address, **limits):
    made = PolkitAuthority(address, **limits)
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()
    return made


@pytest.fixture
async def polkit(polkitd, nursery):
    return await authority(nursery, polkitd.bus.address)


async def checked(polkit, subject, action=MANAGE):
    with trio.fail_after(DEADLINE_S):
        return await polkit.check(subject, action)


class Agent:
    """Who asks a user for the password. The test plays its part, and its set-uid helper's."""

    PATH = "/org/freedesktop/PolicyKit1/AuthenticationAgent"
    AUTHORITY = DBusAddress(
        "/org/freedesktop/PolicyKit1/Authority",
        bus_name=NAME,
        interface="org.freedesktop.PolicyKit1.Authority",
    )

    def __init__(self, connection):
        self.connection = connection

    async def register(self, subject):
        details = {
            "pid": ("u", subject.pid),
            "start-time": ("t", subject.start_ticks),
            "uid": ("i", subject.uid),
        }
        arguments = ("unix-process", details), "C", self.PATH
        await self._ask("RegisterAuthenticationAgent", "(sa{sv})ss", arguments)

    async def called(self, method):
        """polkitd's next call of this method."""
        while True:
            message = await self.connection.receive()
            if message.header.fields.get(HeaderFields.member) == method:
                return message

    async def dismiss(self):
        prompt = await self.called("BeginAuthentication")
        error = new_error(prompt, "org.freedesktop.PolicyKit1.Error.Cancelled", "s", ("enough",))
        await self.connection.send(error)

    async def give_the_password(self, bus, subject):
        prompt = await self.called("BeginAuthentication")
        root = ("unix-user", {"uid": ("u", 0)})
        arguments = subject.uid, prompt.body[4], root
        async with await open_dbus_connection(bus.address) as helper:
            await Agent(helper)._ask("AuthenticationAgentResponse2", "us(sa{sv})", arguments)
        await self.connection.send(new_method_return(prompt))

    async def _ask(self, method, signature, arguments):
        async with self.connection.router() as router:
            call = new_method_call(self.AUTHORITY, method, signature, arguments)
            answer = await router.send_and_get_reply(call)
        assert HeaderFields.error_name not in answer.header.fields, answer.body


@asynccontextmanager
async def agent_of(bus, subject):
    # It runs as that user: polkit 126 does not listen to another one's.
    with effective(subject.uid, subject.uid):
        connection = await open_dbus_connection(bus.address)
    async with connection:
        made = Agent(connection)
        await made.register(subject)
        yield made


def written_to(pipe):
    """Opens the pipe at which the rule waits; closing it lets the rule go on.

    Bounded: polkitd may have given up the rule, or never come to it, and then nobody reads there.
    """

    def opened():
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    return wait_until(opened, DEADLINE_S, "the rule waits at its pipe")


# ---- verdicts


@pytest.mark.parametrize(
    ("user", "action", "expected"),
    [
        ("root", MANAGE, None),
        ("root", MONITOR, None),
        (LET_IN, MANAGE, None),
        (REFUSED, MANAGE, DENIED),
        (REFUSED, MONITOR, DENIED),
        (ASKED, MANAGE, NO_AGENT),
        (ASKED, MONITOR, None),
        (MEMBER, MANAGE, None),
        (ASKED, "org.libvirt.unix.nothing", CALL_FAILED),
        (LET_IN, "no action at all", CALL_FAILED),
        ("root", "", CALL_FAILED),
    ],
)
async def test_policy_and_rules_decide(polkit, user, action, expected):
    with client(user) as subject:
        assert numbers(await checked(polkit, subject, action)) == expected
        without_pidfd = replace(subject, pidfd=None)
        assert numbers(await checked(polkit, without_pidfd, action)) == expected


async def test_an_action_without_its_policy_file_is_told_as_such(polkit):
    with client(ASKED) as subject:
        denial = await checked(polkit, subject, "org.libvirt.unix.nothing")
    assert "polkit does not know org.libvirt.unix.nothing" in denial.message
    assert "/usr/share/polkit-1/actions" in denial.message


async def test_two_users_at_once_get_their_own_verdicts(polkit):
    said = {}

    async def ask(number, subject):
        said.setdefault(subject.uid, set()).add(numbers(await checked(polkit, subject)))

    with client(LET_IN) as one, client(REFUSED) as other:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number, one if number % 2 else other)
    assert said == {one.uid: {None}, other.uid: {DENIED}}


async def test_polkitd_keeps_none_of_the_descriptors_that_it_is_sent(polkitd, polkit):
    with client(LET_IN) as subject:
        await checked(polkit, subject)
        before = len(descriptors(polkitd.daemon.pid))
        for _ in range(20):
            await checked(polkit, subject)
        # It closes them in a thread of its own.
        await eventually(
            lambda: len(descriptors(polkitd.daemon.pid)) <= before, "polkitd has closed them"
        )


# ---- prompts


async def test_a_password_lets_in(polkitd, polkit):
    with client(ASKED) as subject:
        async with agent_of(polkitd.bus, subject) as agent, trio.open_nursery() as nursery:
            nursery.start_soon(agent.give_the_password, polkitd.bus, subject)
            assert await checked(polkit, subject) is None


async def test_a_prompt_that_is_dismissed_is_told_as_such(polkitd, polkit):
    with client(ASKED) as subject:
        async with agent_of(polkitd.bus, subject) as agent, trio.open_nursery() as nursery:
            nursery.start_soon(agent.dismiss)
            assert numbers(await checked(polkit, subject)) == CANCELLED


async def test_the_prompt_of_a_client_that_goes_is_taken_away(polkitd, polkit):
    with client(ASKED) as subject:
        async with agent_of(polkitd.bus, subject) as agent:
            with trio.fail_after(DEADLINE_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(polkit.check, subject, MANAGE)
                    prompt = await agent.called("BeginAuthentication")
                    nursery.cancel_scope.cancel()
                taken_away = await agent.called("CancelAuthentication")
    assert taken_away.body == (prompt.body[4],)


async def test_the_prompt_of_one_who_takes_too_long_is_taken_away(polkitd, nursery):
    # Long enough for polkitd to have asked the agent, on a busy machine too.
    polkit = await authority(nursery, polkitd.bus.address, timeout_s=2)
    with client(ASKED) as subject:
        async with agent_of(polkitd.bus, subject) as agent:
            denial = await checked(polkit, subject)
            with trio.fail_after(DEADLINE_S):
                await agent.called("CancelAuthentication")
    assert numbers(denial) == CALL_FAILED


async def test_the_prompts_of_a_proxyd_that_stops_are_taken_away(polkitd):
    with client(ASKED) as subject:
        async with agent_of(polkitd.bus, subject) as agent:
            with trio.fail_after(DEADLINE_S):
                async with trio.open_nursery() as proxyd:
                    polkit = await authority(proxyd, polkitd.bus.address)
                    proxyd.start_soon(polkit.check, subject, MANAGE)
                    await agent.called("BeginAuthentication")
                    proxyd.cancel_scope.cancel()
                await agent.called("CancelAuthentication")


async def test_a_prompt_holds_up_nobody_else(polkitd, polkit):
    with client(ASKED) as slow, client(LET_IN) as quick:
        async with agent_of(polkitd.bus, slow) as agent, trio.open_nursery() as nursery:
            nursery.start_soon(polkit.check, slow, MANAGE)
            await agent.called("BeginAuthentication")
            assert await checked(polkit, quick) is None
            nursery.cancel_scope.cancel()


# ---- what breaks


async def test_a_polkitd_killed_in_mid_check_lets_nobody_in(polkitd, polkit):
    said = []

    async def ask(subject):
        said.append(await checked(polkit, subject))

    with client(HELD_UP) as subject:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, subject)
            pipe = polkitd.directory / "pipe"
            held = await trio.to_thread.run_sync(written_to, pipe)
            polkitd.kill()
            os.close(held)
    assert numbers(said[0]) == CALL_FAILED
    assert "polkitd does not run" in said[0].message


async def test_a_rule_that_takes_its_time_decides_in_the_end(polkitd, polkit):
    said = []

    async def ask(subject):
        said.append(await checked(polkit, subject))

    with client(HELD_UP) as subject:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, subject)
            held = await trio.to_thread.run_sync(written_to, polkitd.directory / "pipe")
            assert not said
            os.close(held)
    assert said == [None]


async def test_a_polkitd_that_hangs_lets_nobody_in(polkitd, nursery):
    polkit = await authority(nursery, polkitd.bus.address, timeout_s=0.3)
    said = []

    async def ask(subject):
        said.append(await checked(polkit, subject))

    with client(HELD_UP) as subject, client(LET_IN) as other:
        async with trio.open_nursery() as asking:
            asking.start_soon(ask, subject)
            held = await trio.to_thread.run_sync(written_to, polkitd.directory / "pipe")
            asking.start_soon(ask, other)  # it is asked about behind the rule that hangs
        os.close(held)
        assert [numbers(denial) for denial in said] == [CALL_FAILED, CALL_FAILED]
        assert await checked(await authority(nursery, polkitd.bus.address), other) is None


async def test_a_polkitd_that_was_restarted_is_asked_again(polkitd, polkit):
    with client(LET_IN) as subject:
        assert await checked(polkit, subject) is None
        polkitd.kill()
        denial = await checked(polkit, subject)
        assert numbers(denial) == CALL_FAILED
        assert "systemctl status polkit" in denial.message
        polkitd.start()
        assert await checked(polkit, subject) is None


async def test_bus_and_polkitd_may_be_restarted(polkitd, polkit):
    with client(LET_IN) as subject:
        assert await checked(polkit, subject) is None
        polkitd.stop()
        polkitd.bus.stop()
        assert numbers(await checked(polkit, subject)) == NO_BUS
        polkitd.bus.start()
        polkitd.start()
        assert await checked(polkit, subject) is None


async def test_a_reused_number_is_refused_whatever_polkit_thinks(polkit):
    with client(LET_IN) as subject:
        reused = replace(subject, start_ticks=subject.start_ticks - 1)
        assert numbers(await checked(polkit, reused)) == DENIED


# Whether it is there, for the status


@pytest.mark.parametrize("wake", [True, False])
async def test_a_polkitd_that_is_there_is_no_trouble_and_one_that_has_gone_is(
    polkitd, polkit, wake
):
    with trio.fail_after(DEADLINE_S):
        assert await polkit.trouble(wake=wake) == ""
        polkitd.stop()
        assert "polkitd does not run" in await polkit.trouble(wake=wake)
        polkitd.start()
        assert await polkit.trouble(wake=wake) == ""


@pytest.mark.parametrize("wake", [True, False])
async def test_a_bus_that_is_gone_is_trouble(nursery, wake):
    polkit = await authority(nursery, "unix:path=/nonexistent/bus")
    with trio.fail_after(DEADLINE_S):
        assert "there is no system bus" in await polkit.trouble(wake=wake)
