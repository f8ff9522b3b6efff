"""Frames in every cut, before and after the hand-over, against a real daemon."""

import struct

import pytest

from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER, MAX_FRAME, Frame, FrameType, Header, Status
from proxyd.wire.programs import Keepalive, Program, Remote
from proxyd.wire.remote import OpenArguments
from proxyd.wire.xdr import Writer
from tests.bed.virsh import unix_uri, virsh
from tests.system.rpc import opened, rpc_client

pytestmark = pytest.mark.system

OPEN = OpenArguments("test:///default", 0).pack()
GET_TYPE = 3
LOOKUP_BY_NAME = 23


@pytest.fixture(autouse=True)
def unharmed(proxyd):
    """Whatever a test sends, a normal client works afterwards and nothing is left open."""
    yield
    virsh(unix_uri("test:///default", proxyd.sock), "list").succeeded()
    assert "Traceback" not in proxyd.log_text()


def test_a_whole_session_arrives_byte_by_byte(proxyd):
    with rpc_client(proxyd.sock) as client:
        calls = [(Remote.AUTH_LIST, b""), (Remote.CONNECT_OPEN, OPEN), (GET_TYPE, b"")]
        for procedure, payload in calls:
            for byte in client.frame(procedure, payload):
                client.send(bytes([byte]))
            assert client.receive().header.status == Status.OK


def test_calls_pipelined_behind_open_are_all_answered_in_order(proxyd):
    with rpc_client(proxyd.sock) as client:
        wire = client.frame(Remote.AUTH_LIST) + client.frame(Remote.CONNECT_OPEN, OPEN)
        # One call only: a daemon works on several at once and may answer them in any order.
        client.send(wire + client.frame(GET_TYPE))

        answers = [client.receive() for _ in range(3)]

        assert [frame.header.serial for frame in answers] == [0, 1, 2]
        assert answers[2].payload == Writer().string("TEST").take()


def test_many_coalesced_calls_are_all_answered(proxyd):
    with opened(proxyd.sock) as client:
        first = client.serial + 1
        client.send(b"".join(client.frame(GET_TYPE) for _ in range(500)))

        answers = [client.receive() for _ in range(500)]

        assert sorted(f.header.serial for f in answers) == list(range(first, first + 500))
        assert {f.payload for f in answers} == {Writer().string("TEST").take()}


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 13, 27, 28, 29, 31])
def test_frames_cut_anywhere_arrive(step, proxyd):
    with opened(proxyd.sock) as client:
        wire = b"".join(client.frame(GET_TYPE) for _ in range(5))
        for start in range(0, len(wire), step):
            client.send(wire[start : start + step])

        assert len({client.receive().header.serial for _ in range(5)}) == 5


def test_a_frame_of_the_largest_size_arrives(proxyd):
    with opened(proxyd.sock) as client:
        # A name that does not exist, and behind it what a decoder does not look at: the daemon
        # has to take the whole frame before it can answer.
        name = Writer().string("nosuch").take()
        padding = bytes(MAX_FRAME - 28 - len(name))
        client.send(client.frame(LOOKUP_BY_NAME, name + padding))

        answer = client.receive()

        assert answer.header.status == Status.ERROR
        assert Failure.unpack(answer.payload).message == "Domain not found"
        assert client.call(GET_TYPE).header.status == Status.OK


@pytest.mark.parametrize("length", [0, 3, 4, 27, 65537, MAX_FRAME + 1, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_a_session_that_is_not_open(length, proxyd):
    with rpc_client(proxyd.sock) as client:
        client.send(struct.pack(">I", length) + client.frame(Remote.AUTH_LIST)[4:])

        assert client.ended()


@pytest.mark.parametrize("length", [0, 4, 27, MAX_FRAME + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_an_open_session(length, proxyd):
    with opened(proxyd.sock) as client:
        client.send(struct.pack(">I", length) + client.frame(GET_TYPE)[4:])

        assert client.ended()


@pytest.mark.parametrize("program", [0x12345678, 0xFFFFFFFF, Program.ADMIN, Program.KEEPALIVE])
def test_an_unknown_program_gets_the_error_of_a_daemon(program, proxyd, qemu_backend):
    frame = Frame(Header(program, 1, 5, FrameType.CALL, 77))

    def answer(path):
        with rpc_client(path) as client:
            client.send(frame.pack())
            said = client.receive()
            assert client.call(Remote.AUTH_LIST).header.status == Status.OK, "it stays open"
            return said.header, Failure.unpack(said.payload)

    header, failure = answer(proxyd.sock)
    direct_header, direct = answer(qemu_backend.sock)

    assert header == direct_header
    assert (failure.code, failure.domain, failure.message) == (
        direct.code,
        direct.domain,
        direct.message,
    )


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (Header(Program.REMOTE, 1, 9999, FrameType.CALL, 1), b""),
        (Header(Program.REMOTE, 1, -5, FrameType.CALL, 2), b""),
        (Header(Program.REMOTE, 2, 66, FrameType.CALL, 3), b""),
        (Header(Program.REMOTE, 1, 66, FrameType.CALL, 4, 1), b""),
        (Header(Program.REMOTE, 1, GET_TYPE, FrameType.CALL, 5), b""),
        (Header(Program.REMOTE, 1, 1, FrameType.CALL, 6), b"\0\0\0\1\xff\xff\xff\xff"),
        (Header(Program.REMOTE, 1, 60, FrameType.CALL, 7), b"\0\0"),
        (Header(Program.REMOTE, 1, 419, FrameType.CALL, 8), remote.pack_identity([])),
    ],
)
def test_wrong_calls_before_open_fail_as_they_do_directly(header, payload, proxyd, qemu_backend):
    def answer(path):
        with rpc_client(path) as client:
            client.send(Frame(header, payload).pack())
            said = client.receive()
            failure = Failure.unpack(said.payload)
            return said.header, failure.code, failure.domain

    assert answer(proxyd.sock) == answer(qemu_backend.sock)


def test_what_is_no_call_is_dropped_before_open(proxyd):
    with rpc_client(proxyd.sock) as client:
        for kind in (FrameType.REPLY, FrameType.MESSAGE, FrameType.STREAM, FrameType.STREAM_HOLE):
            client.send(Frame(Header(Program.REMOTE, 1, 66, kind, 9)).pack())

        assert client.call(Remote.AUTH_LIST).header.serial == 0


def test_a_ping_is_answered_before_and_after_open(proxyd):
    pong = remote.keepalive(Keepalive.PONG).header
    with rpc_client(proxyd.sock) as client:
        client.send(remote.keepalive(Keepalive.PING).pack())
        assert client.receive().header == pong

        client.open("test:///default")
        client.send(remote.keepalive(Keepalive.PING).pack())
        assert client.receive().header == pong


def test_a_second_open_is_refused_by_the_daemon_itself(proxyd):
    with opened(proxyd.sock) as client:
        again = client.call(Remote.CONNECT_OPEN, OPEN)

        assert Failure.unpack(again.payload).message.endswith("connection already open")


def test_a_refused_open_may_be_tried_again(proxyd):
    with rpc_client(proxyd.sock) as client:
        assert client.open("lxc:///system").header.status == Status.ERROR
        assert client.open("test:///default").header.status == Status.OK


def test_a_header_with_every_field_at_its_edge_harms_nobody(proxyd):
    with opened(proxyd.sock) as client:
        edge = HEADER.pack(28, 0xFFFFFFFF, 0xFFFFFFFF, -(2**31), -(2**31), 0xFFFFFFFF, -(2**31))
        client.send(edge)

        # A daemon drops what is no call; the session goes on.
        assert client.call(GET_TYPE).header.status == Status.OK
