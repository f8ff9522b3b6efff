"""Questions to a polkit that the test plays, on a real bus; and buses that lie."""

import os
import struct
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from jeepney.low_level import HeaderFields, MessageType
from jeepney.wrappers import new_method_return

from proxyd.peer.credentials import Subject
from proxyd.polkit.authority import PolkitAuthority
from proxyd.polkit.bus_messages import MESSAGE_LIMIT, Answers, MalformedMessage, answer_in
from tests.bed.daemon import short_directory
from tests.bed.polkit import PrivateBus
from tests.polkit.played_bus import ACTION, VERDICT, YES, authority, message, played, this_process

DEADLINE_S = 10

DENIED = (45, 60)
CANCELLED = (79, 60)
NO_AGENT = (94, 60)
NO_BUS = (1, 47)
CALL_FAILED = (89, 47)


def numbers(denial):
    return denial and (denial.code, denial.domain)


@pytest.fixture
def me():
    with this_process() as subject:
        yield subject


@pytest.fixture(scope="module")
def shared_bus():
    with short_directory() as directory, PrivateBus(directory) as made:
        yield made


@pytest.fixture
def own_bus(no_descriptor_leaks):
    """A bus that may be stopped."""
    with short_directory() as directory, PrivateBus(directory) as made:
        yield made


@pytest.fixture
async def polkitd(shared_bus):
    async with played(shared_bus) as made:
        yield made


@pytest.fixture
async def polkit(shared_bus, nursery):
    return await authority(nursery, shared_bus.address)


async def checked(polkit, subject, *parts, action=ACTION):
    """The verdict, while these play their parts to the end."""
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            for part in parts:
                nursery.start_soon(part)
            return await polkit.check(subject, action)


# ---- the question


async def test_the_question_is_libvirts(polkit, polkitd, me):
    asked = []

    async def answer():
        asked.append(await polkitd.question())
        await polkitd.says(asked[0])

    assert await checked(polkit, me, answer) is None
    [message] = asked
    assert message.header.fields[HeaderFields.signature] == "(sa{sv})sa{ss}us"
    (kind, details), action, no_details, flags, ticket = message.body
    pidfd = details.pop("pidfd")
    assert (kind, action, no_details, flags) == ("unix-process", ACTION, {}, 1)
    assert details == {
        "pid": ("u", me.pid),
        "start-time": ("t", me.start_ticks),
        "uid": ("i", me.uid),
    }
    assert pidfd[0] == "h"
    assert ticket


def fdinfo(descriptor):
    return Path(f"/proc/self/fdinfo/{descriptor}").read_text()


async def test_the_descriptor_in_the_question_is_the_process(polkit, polkitd, me):
    read = []

    async def answer():
        question = await polkitd.call("CheckAuthorization")
        with question.body[0][1]["pidfd"][1] as received:
            read.append(fdinfo(received.fileno()))
        await polkitd.says(question)

    assert await checked(polkit, me, answer) is None
    assert f"Pid:\t{os.getpid()}\n" in read[0]


async def test_without_a_pidfd_the_question_has_none(polkit, polkitd, me):
    asked = []

    async def answer():
        asked.append(await polkitd.question())
        await polkitd.says(asked[0])

    subject = Subject(pid=me.pid, start_ticks=me.start_ticks, uid=me.uid)
    assert await checked(polkit, subject, answer) is None
    assert "pidfd" not in asked[0].body[0][1]


async def test_each_question_can_be_taken_back_by_itself(polkit, polkitd, me):
    tickets = set()

    async def answer():
        question = await polkitd.question()
        tickets.add(question.body[4])
        await polkitd.says(question)

    for _ in range(3):
        await checked(polkit, me, answer)
    assert len(tickets) == 3


# ---- verdicts


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (YES, None),
        ((True, False, {"polkit.lockdown_enabled": "true"}), None),
        ((True, False, {"polkit.dismissed": "false"}), None),
        ((False, False, {}), DENIED),
        ((False, False, {"polkit.result": "auth_admin"}), DENIED),
        ((False, True, {}), NO_AGENT),
        ((False, True, {"polkit.retains_authorization_after_challenge": "1"}), NO_AGENT),
        ((False, False, {"polkit.dismissed": "true"}), CANCELLED),
        ((False, True, {"polkit.dismissed": "true"}), CANCELLED),
        ((True, True, {}), NO_AGENT),
        ((True, False, {"polkit.dismissed": "true"}), CANCELLED),
    ],
)
async def test_only_a_plain_yes_lets_in(polkit, polkitd, me, values, expected):
    denial = await checked(polkit, me, lambda: polkitd.answers(values))

    assert numbers(denial) == expected
    if denial is not None:
        assert ACTION in denial.message
        assert "group libvirt" in denial.message


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("b", True),
        ("(bb)", (True, False)),
        ("(bbs)", (True, False, "")),
        ("(uua{ss})", (1, 0, {})),
        ("(bba{sv})", (True, False, {})),
        ("(bba{ss}b)", (True, False, {}, True)),
        ("((bba{ss}))", (YES,)),
        ("v", (VERDICT, YES)),
        ("a(bba{ss})", [YES]),
        ("s", "yes"),
    ],
)
async def test_an_answer_of_another_form_is_no_yes(polkit, polkitd, me, signature, values):
    denial = await checked(polkit, me, lambda: polkitd.answers(values, signature))
    assert numbers(denial) == CALL_FAILED
    assert "cannot be understood" in denial.message

    assert await checked(polkit, me, polkitd.answers) is None


async def test_an_answer_of_nothing_is_no_yes(polkit, polkitd, me):
    async def answer():
        await polkitd.connection.send(new_method_return(await polkitd.question()))

    assert numbers(await checked(polkit, me, answer)) == CALL_FAILED


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        (
            "org.freedesktop.PolicyKit1.Error.Failed",
            f"Action {ACTION} is not registered",
            "units/polkit/proxyd.libvirt.unix.policy, into /usr/share/polkit-1/actions",
        ),
        ("org.freedesktop.DBus.Error.ServiceUnknown", "no", "polkitd does not run and cannot be"),
        ("org.freedesktop.DBus.Error.Spawn.ExecFailed", "no", "polkitd does not run and cannot be"),
        ("org.freedesktop.systemd1.UnitMasked", "no", "systemctl status polkit"),
        ("org.freedesktop.DBus.Error.AccessDenied", "no", "does not let proxyd ask polkit"),
        ("org.freedesktop.PolicyKit1.Error.NotAuthorized", "no", "cannot say whether"),
        ("org.freedesktop.PolicyKit1.Error.Cancelled", "no", "cannot say whether"),
        ("x.y", "line\nof \x1b[31m" + "x" * 9999, "cannot say whether"),
    ],
)
async def test_an_error_is_told_with_what_mends_it(polkit, polkitd, me, name, text, hint):
    denial = await checked(polkit, me, lambda: polkitd.fails(name, text))
    assert numbers(denial) == CALL_FAILED
    assert hint in denial.message
    assert name in denial.message
    assert denial.message.isprintable()
    assert len(denial.message) < 600


# ---- waiting


async def test_silence_ends_with_the_timeout_and_the_question_is_taken_back(
    shared_bus, polkitd, nursery, me
):
    polkit = await authority(nursery, shared_bus.address, timeout_s=0.2)
    tickets = []

    async def say_nothing():
        tickets.append((await polkitd.question()).body[4])
        tickets.append((await polkitd.call("CancelCheckAuthorization")).body[0])

    denial = await checked(polkit, me, say_nothing)
    assert numbers(denial) == CALL_FAILED
    assert "within 0.2 s" in denial.message
    assert tickets[0] == tickets[1]


async def test_a_client_that_goes_takes_its_question_back(polkit, polkitd, me):
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(polkit.check, me, ACTION)
            question = await polkitd.question()
            nursery.cancel_scope.cancel()
        taken_back = await polkitd.call("CancelCheckAuthorization")
    assert taken_back.body == (question.body[4],)

    await polkitd.says(question)  # too late, and for nobody
    assert numbers(await checked(polkit, me, lambda: polkitd.answers((False, False, {})))) == DENIED


async def test_an_answered_question_is_not_taken_back(polkit, polkitd, me):
    seen = []

    async def answer_all():
        for _ in range(2):
            message = await polkitd.connection.receive()
            while message.header.message_type is not MessageType.method_call:
                message = await polkitd.connection.receive()
            seen.append(message.header.fields[HeaderFields.member])
            message.body[0][1]["pidfd"][1].close()
            await polkitd.says(message)

    async def ask_again():
        assert await polkit.check(me, ACTION) is None

    assert await checked(polkit, me, answer_all, ask_again) is None
    assert seen == ["CheckAuthorization"] * 2


async def test_fifty_wait_side_by_side_and_one_that_is_slow_holds_up_nobody(polkit, polkitd, me):
    said = {}

    async def ask(number):
        said[number] = await polkit.check(replace(me, uid=number % 5), ACTION)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            for number in range(51):
                nursery.start_soon(ask, number)
            slow, *others = [await polkitd.question() for _ in range(51)]
            assert not said
            for question in reversed(others):
                await polkitd.says(question)
            while len(said) < 50:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await polkitd.says(slow)
    assert set(said.values()) == {None}
    assert len(said) == 51


async def test_each_gets_its_own_answer(polkit, polkitd, me):
    said = {}

    async def ask(number):
        said[number] = numbers(await polkit.check(me, f"a.n{number}"))

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
            questions = [await polkitd.question() for _ in range(20)]
            for question in questions:
                number = int(question.body[1].removeprefix("a.n"))
                await polkitd.says(question, (number % 3 == 0, number % 3 == 1, {}))
    expected = [None, NO_AGENT, DENIED]
    assert said == {number: expected[number % 3] for number in range(20)}


async def test_more_than_the_bus_lets_wait_are_asked_about_later(polkit, polkitd, me):
    said = []

    async def ask():
        said.append(await polkit.check(me, ACTION))

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
            for _ in range(200):
                await polkitd.answers()
    assert said == [None] * 200


# ---- what breaks


async def test_a_polkitd_that_ends_is_followed_by_the_next(shared_bus, polkit, polkitd, me):
    async with played(shared_bus) as successor:
        denial = await checked(polkit, me, polkitd.ends_when_asked, successor.answers)
    assert denial is None


async def test_a_question_that_ends_two_polkitds_is_not_asked_a_third(
    shared_bus, polkit, polkitd, me
):
    async with played(shared_bus) as second, played(shared_bus) as third:
        parts = polkitd.ends_when_asked, second.ends_when_asked
        denial = await checked(polkit, me, *parts)
        assert numbers(denial) == CALL_FAILED
        assert "ended twice" in denial.message

        assert await checked(polkit, me, third.answers) is None


async def test_a_bus_that_is_stopped_under_a_question(own_bus, nursery, me):
    polkit = await authority(nursery, own_bus.address)

    async with played(own_bus) as polkitd:

        async def stop_the_bus():
            await polkitd.question()
            own_bus.stop()

        denial = await checked(polkit, me, stop_the_bus)
    assert numbers(denial) == NO_BUS
    assert str(own_bus.sock) in denial.message


async def test_a_bus_that_was_restarted_is_opened_again(own_bus, nursery, me):
    polkit = await authority(nursery, own_bus.address)
    for _ in range(3):
        async with played(own_bus) as polkitd:
            assert await checked(polkit, me, polkitd.answers) is None
        own_bus.stop()
        own_bus.start()


async def test_fifty_questions_survive_the_restart_of_bus_and_polkitd(
    own_bus, shared_bus, directory, nursery, me
):
    # The bus that comes next has its polkit already, as one has that starts services.
    link = directory / "the-bus"
    link.symlink_to(own_bus.sock)
    polkit = await authority(nursery, f"unix:path={link}")
    said = []

    async def ask(number):
        said.append(await polkit.check(replace(me, uid=number % 5), ACTION))

    async with played(own_bus) as first, played(shared_bus) as second:
        with trio.fail_after(DEADLINE_S):
            async with trio.open_nursery() as asking:
                for number in range(50):
                    asking.start_soon(ask, number)
                for _ in range(50):
                    await first.question()
                link.unlink()
                link.symlink_to(shared_bus.sock)
                own_bus.stop()
                for _ in range(50):
                    await second.answers()
    assert said == [None] * 50


@pytest.mark.parametrize("wake", [True, False])
async def test_a_polkitd_that_is_silent_does_not_hold_up_who_looks_at_the_status(
    polkit, polkitd, wake
):
    began = trio.current_time()
    said = await polkit.trouble(wake=wake)
    assert trio.current_time() - began < 5
    # Who does not wake it looks for its name alone, and is told by the bus.
    assert ("does not answer" in said) is wake


async def test_without_a_polkitd_the_client_is_told_what_is_missing(polkit, me):
    denial = await checked(polkit, me)
    assert numbers(denial) == CALL_FAILED
    assert "polkitd does not run" in denial.message


@pytest.mark.parametrize(
    "address",
    [
        "unix:path=/nonexistent/bus",
        "unix:abstract=pxd-nobody-listens-here",
        f"unix:path=/{'x' * 200}",
        "tcp:host=127.0.0.1,port=1",
        "unix:runtime=yes",
        "launchd:env=X",
        "nonsense",
        "unix:path",
        ";;",
    ],
)
async def test_without_a_bus_the_client_is_told_where_it_was_looked_for(nursery, me, address):
    polkit = await authority(nursery, address)
    denial = await checked(polkit, me)
    assert numbers(denial) == NO_BUS
    assert address in denial.message


async def test_the_first_address_that_answers_is_taken(shared_bus, polkitd, nursery, me):
    polkit = await authority(nursery, f"unix:path=/nonexistent/bus;{shared_bus.address}")
    assert await checked(polkit, me, polkitd.answers) is None


async def test_the_environment_names_the_bus(shared_bus, polkitd, nursery, me, monkeypatch):
    for name, value in shared_bus.environment.items():
        monkeypatch.setenv(name, value)
    polkit = await authority(nursery, None)
    assert await checked(polkit, me, polkitd.answers) is None


async def test_after_the_end_nobody_is_let_in(shared_bus, polkitd, me):
    polkit = PolkitAuthority(shared_bus.address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(polkit.run)
        await trio.testing.wait_all_tasks_blocked()
        assert await checked(polkit, me, polkitd.answers) is None
        nursery.cancel_scope.cancel()
    assert numbers(await checked(polkit, me)) == NO_BUS


# ---- the process that is asked about


@contextmanager
def another_process():
    """A process that does nothing, and what is known of it."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        pidfd = os.pidfd_open(process.pid)
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        start_ticks = int(stat.rpartition(")")[2].split()[19])
        try:
            yield process, Subject(pid=process.pid, start_ticks=start_ticks, uid=0, pidfd=pidfd)
        finally:
            os.close(pidfd)
            process.kill()


@pytest.mark.parametrize("with_pidfd", [True, False])
async def test_a_number_that_was_reused_is_refused_without_a_question(polkit, me, with_pidfd):
    # Nobody plays polkit: the question would fail in another way.
    reused = Subject(
        pid=me.pid,
        start_ticks=me.start_ticks - 1,
        uid=me.uid,
        pidfd=me.pidfd if with_pidfd else None,
    )
    denial = await checked(polkit, reused)
    assert numbers(denial) == DENIED
    assert "is not the one that connected" in denial.message


@pytest.mark.parametrize("with_pidfd", [True, False])
async def test_a_process_that_ended_is_refused(polkit, with_pidfd):
    with another_process() as (process, known):
        process.kill()
        process.wait()
        subject = (
            known if with_pidfd else Subject(pid=known.pid, start_ticks=known.start_ticks, uid=0)
        )
        denial = await checked(polkit, subject)
    assert numbers(denial) == DENIED
    assert "has ended" in denial.message


async def test_a_yes_for_a_process_that_ended_meanwhile_is_none(polkit, polkitd):
    with another_process() as (process, subject):

        async def end_it_and_say_yes():
            question = await polkitd.question()
            process.kill()
            process.wait()
            await polkitd.says(question)

        denial = await checked(polkit, subject, end_it_and_say_yes)
    assert numbers(denial) == DENIED
    assert "has ended" in denial.message


async def test_a_pidfd_of_another_process_is_refused(polkit, me):
    with another_process() as (_, other):
        mixed = Subject(pid=me.pid, start_ticks=me.start_ticks, uid=0, pidfd=other.pidfd)
        assert numbers(await checked(polkit, mixed)) == DENIED


async def test_a_process_that_cannot_be_seen_is_refused(polkit):
    unseen = Subject(pid=-1, start_ticks=2**64 - 1, uid=0)
    denial = await checked(polkit, unseen)
    assert numbers(denial) == DENIED
    assert "pid namespace" in denial.message


@pytest.mark.parametrize("uid", [2**31, 2**32 - 1])
async def test_a_uid_that_polkit_cannot_hold_is_refused(polkit, uid):
    with this_process(uid=uid) as subject:
        assert numbers(await checked(polkit, subject)) == DENIED


# ---- buses that lie


# What a client of a bus says, one after the other, until it has put its question.
SAID = (b"AUTH EXTERNAL", b"NEGOTIATE_UNIX_FD", b"Hello", b"CheckAuthorization")


class LyingBus:
    """Answers each thing SAID by the next of its script: bytes are sent, None hangs up."""

    def __init__(self, directory, script):
        self.path = directory / "lies"
        self.address = f"unix:path={self.path}"
        self.script = script
        self.connections = 0

    async def serve(self, task_status=trio.TASK_STATUS_IGNORED):
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(str(self.path))
        listener.listen()
        task_status.started()
        with listener:
            async with trio.open_nursery() as nursery:
                while True:
                    sock, _ = await listener.accept()
                    self.connections += 1
                    nursery.start_soon(self.lie, sock)

    async def lie(self, sock):
        with sock:
            stream = trio.SocketStream(sock)
            heard = b""
            with suppress(trio.BrokenResourceError):
                for said, answer in zip(SAID, self.script, strict=False):
                    while said not in heard:
                        heard += await stream.receive_some()
                    if answer is None:
                        return
                    await stream.send_all(answer)
                while await stream.receive_some():
                    pass


def text(value):
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def reply(serial, signature="", body=b""):
    fields = [(5, "u", struct.pack("<I", serial))]
    if signature:
        fields.append((8, "g", bytes([len(signature)]) + signature.encode() + b"\0"))
    return message(2, fields, body)


def verdict(authorized=1, challenge=0):
    """Without details: an array of no bytes, whose elements would begin at a multiple of 8."""
    return struct.pack("<IIII", authorized, challenge, 0, 0)


OK = b"OK 00112233445566778899aabbccddeeff\r\n"
AGREED = b"AGREE_UNIX_FD\r\n"
HELLO = reply(1, "s", text(":1.1"))
GREETED = (OK, AGREED, HELLO)
TO_THE_QUESTION = 2  # serial: Hello was the first


@pytest.fixture
async def lying(nursery, directory):
    """Starts a bus that lies, and gives an authority that asks there."""

    async def start(*script):
        bus = LyingBus(directory, script)
        await nursery.start(bus.serve)
        return bus, await authority(nursery, bus.address, timeout_s=0.3)

    return start


async def test_the_bus_that_lies_can_tell_the_truth(lying, me):
    bus, polkit = await lying(*GREETED, reply(TO_THE_QUESTION, VERDICT, verdict()))
    assert await checked(polkit, me) is None
    assert bus.connections == 1


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([None], id="hangs up at once"),
        pytest.param([], id="says nothing"),
        pytest.param([b"REJECTED EXTERNAL\r\n"], id="rejects us"),
        pytest.param([b"\r\n"], id="an empty line"),
        pytest.param([b"\xff" * 100 + b"\r\n"], id="garbage"),
        pytest.param([b"x" * 100_000], id="a line without end"),
        pytest.param([OK + HELLO], id="more than it was asked"),
        pytest.param([OK, None], id="hangs up in the handshake"),
        pytest.param([OK, b"ERROR\r\n"], id="takes no descriptors"),
        pytest.param([OK, AGREED, None], id="hangs up at Hello"),
        pytest.param([OK, AGREED], id="says nothing to Hello"),
        pytest.param([OK, AGREED, reply(1, "u", bytes(4))], id="Hello is a number"),
        pytest.param([OK, AGREED, reply(9, "s", text(":1.1"))], id="Hello answers another call"),
        pytest.param([OK, AGREED, b"GET / HTTP/1.0\r\n\r\n"], id="no D-Bus"),
    ],
)
async def test_a_bus_that_does_not_greet_is_no_bus(lying, me, script):
    _, polkit = await lying(*script)
    denial = await checked(polkit, me)
    assert numbers(denial) in {NO_BUS, CALL_FAILED}
    late = "within 0.3 s" in denial.message
    assert numbers(denial) == (CALL_FAILED if late else NO_BUS)


NESTED = b"\1v\0" * 20_000

LIES = {
    "hangs up": None,
    "garbage": b"\xff" * 64,
    "no bytes of a message": b"l" + b"\2" * 15,
    "4 GiB": struct.pack("<cBBBIII", b"l", 2, 0, 1, 2**32 - 1, 3, 0),
    "a header of 4 GiB": struct.pack("<cBBBIII", b"l", 2, 0, 1, 0, 3, 2**32 - 1),
    "64 MiB": struct.pack("<cBBBIII", b"l", 2, 0, 1, 2**26, 3, 0),
    "an array of nothing in the header": message(2, [(5, "a()", struct.pack("<IIII", 8, 0, 0, 0))]),
    "variants in variants": message(2, [(5, "v", NESTED)]),
    "a signature that never ends": message(2, [(8, "g", b"\xff" + b"(" * 255 + b"\0")]),
    "a signature of nothing known": reply(TO_THE_QUESTION, "z", bytes(4)),
    "an array of nothing": reply(TO_THE_QUESTION, "a()", struct.pack("<II", 2**31, 0)),
    "a body cut": reply(TO_THE_QUESTION, VERDICT, verdict()[:8]),
    "a body with more behind": reply(TO_THE_QUESTION, VERDICT, verdict() + bytes(8)),
    "no body": reply(TO_THE_QUESTION, VERDICT),
    "no signature": reply(TO_THE_QUESTION, "", verdict()),
    "true is 2": reply(TO_THE_QUESTION, VERDICT, verdict(authorized=2)),
    "true is all": reply(TO_THE_QUESTION, VERDICT, verdict(authorized=2**32 - 1)),
    "false is 2": reply(TO_THE_QUESTION, VERDICT, verdict(challenge=2)),
    "an error that says yes": message(
        3,
        [
            (4, "s", text("a.b")),
            (5, "u", struct.pack("<I", TO_THE_QUESTION)),
            (8, "g", b"\x09(bba{ss})\0"),
        ],
        verdict(),
    ),
    "an error without a name": message(3, [(5, "u", struct.pack("<I", TO_THE_QUESTION))]),
    "another's answer": reply(99, VERDICT, verdict()),
    "the answer to Hello once more": reply(1, VERDICT, verdict()),
    "an answer to no call": message(2, [(8, "g", b"\x09(bba{ss})\0")], verdict()),
    "a number that is a text": message(2, [(5, "s", text("2"))], verdict()),
    "a signal that says yes": message(
        4,
        [(5, "u", struct.pack("<I", TO_THE_QUESTION)), (8, "g", b"\x09(bba{ss})\0")],
        verdict(),
    ),
    "a call that says yes": message(
        1,
        [(5, "u", struct.pack("<I", TO_THE_QUESTION)), (8, "g", b"\x09(bba{ss})\0")],
        verdict(),
    ),
    "a kind of message that there is none of": message(
        9,
        [(5, "u", struct.pack("<I", TO_THE_QUESTION)), (8, "g", b"\x09(bba{ss})\0")],
        verdict(),
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_lie_lets_nobody_in_and_nobody_wait(lying, me, lie):
    bus, polkit = await lying(*GREETED, lie)
    denial = await checked(polkit, me)
    assert numbers(denial) == CALL_FAILED
    assert bus.connections <= 2


async def test_a_bus_that_breaks_over_each_question_is_asked_twice(lying, me):
    bus, polkit = await lying(*GREETED, None)
    denial = await checked(polkit, me)
    assert "broke twice" in denial.message
    assert bus.connections == 2


async def test_a_bus_that_does_not_even_accept_ends_with_the_timeout(directory, nursery, me):
    with (
        trio.socket.socket(trio.socket.AF_UNIX) as listener,
        trio.socket.socket(trio.socket.AF_UNIX) as first,
    ):
        await listener.bind(str(directory / "full"))
        listener.listen(0)
        await first.connect(str(directory / "full"))
        polkit = await authority(nursery, f"unix:path={directory / 'full'}", timeout_s=0.2)
        denial = await checked(polkit, me)
    assert numbers(denial) == CALL_FAILED
    assert "within 0.2 s" in denial.message


async def test_answers_that_come_in_pieces_or_together_are_read(lying, me):
    answer = reply(TO_THE_QUESTION, VERDICT, verdict())
    noise = message(4, [(5, "u", struct.pack("<I", 3))])
    _, polkit = await lying(*GREETED, noise + noise + answer + noise)
    assert await checked(polkit, me) is None


# ---- messages


def signal(size):
    """One of about so many bytes, as anybody may send it."""
    return message(4, [(5, "u", struct.pack("<I", TO_THE_QUESTION))], bytes(size))


ANSWER = reply(TO_THE_QUESTION, VERDICT, verdict())


@pytest.mark.parametrize("size", [0, 100, MESSAGE_LIMIT, 1_000_000])
@pytest.mark.parametrize("cut", [1, 7, 4096, 65536])
def test_what_nobody_asked_for_passes_by_and_the_answer_behind_it_is_found(size, cut):
    stream = signal(size) + ANSWER + signal(size) + signal(0) + ANSWER
    if cut < 100:
        stream = stream[: 20_000 if size > 20_000 else None]
    answers, found = Answers(), []
    for at in range(0, len(stream), cut):
        found += answers.receive_data(stream[at : at + cut])
        assert answers.held < MESSAGE_LIMIT
    expected = 0 if cut < 100 and size > 20_000 else 2
    assert [answer.serial for answer in found] == [TO_THE_QUESTION] * expected


def test_of_what_is_no_answer_only_the_beginning_is_looked_at(monkeypatch):
    monkeypatch.setattr("proxyd.polkit.bus_messages.Header", None)  # nothing is unpacked
    broken = struct.pack("<cBBBIII", b"l", 4, 0, 1, 2**20, 3, 77)

    assert Answers().receive_data(broken + bytes(2**20 + 80)) == []


def test_what_is_longer_than_a_message_may_be_is_none():
    with pytest.raises(MalformedMessage, match="of which D-Bus allows"):
        Answers().receive_data(struct.pack("<cBBBIII", b"l", 4, 0, 1, 2**27, 3, 0))


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order):
    body = struct.pack(f"{order}IIII", 1, 0, 0, 0)
    fields = [(5, "u", struct.pack(f"{order}I", 77)), (8, "g", b"\x09(bba{ss})\0")]
    answer = answer_in(message(2, fields, body, order=order))
    assert answer.serial == 77
    assert answer.values(VERDICT) == ((1, 0, {}),)


def read_all(packed):
    """What is to be had from a message, or that it is malformed."""
    try:
        answers = Answers().receive_data(packed)
        return [(answer.text(), answer.values(VERDICT)) for answer in answers]
    except MalformedMessage as error:
        return str(error)


@given(st.binary(min_size=16, max_size=300))
def test_any_bytes_are_read_or_malformed(packed):
    assert read_all(packed) != ""


@given(
    st.sampled_from([each for each in LIES.values() if each and len(each) < 200]),
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_message_is_read_or_malformed(packed, changes):
    damaged = bytearray(packed)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    assert read_all(bytes(damaged)) != ""
