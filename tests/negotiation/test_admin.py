"""One admin connection without its socket: what is answered, asked for and refused."""

import pytest

from proxyd.negotiation.admin import FRAME_LIMIT, AdminNegotiation, Asked, Stage
from proxyd.negotiation.events import HangUp, Send
from proxyd.wire import adminrpc, failure, proxyd_program, remote
from proxyd.wire.adminrpc import Flags, ListServers
from proxyd.wire.frame import HEADER_SIZE, Frame, FrameType, Header, Status
from proxyd.wire.programs import OWN_PROGRAM, Admin, Keepalive, Own, Program, Remote
from tests.negotiation.talk import failure_of, feed, frames_in, numbers_of, only_sent

OPEN = adminrpc.call(Admin.CONNECT_OPEN, 0, Flags().pack())
LIST = adminrpc.call(Admin.CONNECT_LIST_SERVERS, 1, ListServers().pack())


@pytest.fixture
def service():
    return AdminNegotiation()


def header(
    procedure=Admin.CONNECT_LIST_SERVERS, kind=FrameType.CALL, program=Program.ADMIN, **more
):
    return Header(program, more.get("version", 1), procedure, kind, 5, more.get("status", 0))


def test_an_open_is_answered(service):
    assert only_sent(feed(service, OPEN.pack())) == remote.reply(OPEN.header)


def test_a_second_open_is_answered_too(service):
    feed(service, OPEN.pack())
    assert only_sent(feed(service, OPEN.pack())) == remote.reply(OPEN.header)


def test_an_open_with_flags_is_refused(service):
    call = adminrpc.call(Admin.CONNECT_OPEN, 3, Flags(8).pack())
    said = only_sent(feed(service, call.pack()))
    assert failure_of(said) == failure.unsupported_flags(8, "CONNECT_OPEN")
    assert said.header.serial == 3


def test_an_open_without_flags_cannot_be_decoded(service):
    call = adminrpc.call(Admin.CONNECT_OPEN, 3, b"\0")
    assert numbers_of(only_sent(feed(service, call.pack()))) == (39, 7)


def test_a_close_is_answered_and_ends_it(service):
    call = adminrpc.call(Admin.CONNECT_CLOSE, 9)
    said, over = feed(service, call.pack())
    assert frames_in(said.wire) == [remote.reply(call.header)]
    assert over == HangUp("the client closed the connection", orderly=True)
    assert (service.stage, service.wanted) == (Stage.ENDED, 0)


def test_a_call_leaves_as_it_came_and_nothing_is_read_until_its_answer(service):
    assert feed(service, LIST.pack()) == [Asked(Admin.CONNECT_LIST_SERVERS, LIST.payload)]
    assert service.wanted == 0

    said = service.answered(b"result!!")

    assert frames_in(said) == [remote.reply(LIST.header, b"result!!")]
    assert service.wanted == HEADER_SIZE


def test_a_call_needs_no_open_before_it(service):
    # libvirt's server does not insist on one either: docs/protocol/admin.md, section 1.
    assert feed(service, LIST.pack()) == [Asked(Admin.CONNECT_LIST_SERVERS, LIST.payload)]


def test_a_refused_call_gets_the_failure_and_the_next_one_is_heard(service):
    feed(service, LIST.pack())
    (said,) = frames_in(service.refused(failure.internal("no")))
    assert failure_of(said) == failure.internal("no")
    assert feed(service, LIST.pack()) == [Asked(Admin.CONNECT_LIST_SERVERS, LIST.payload)]


@pytest.mark.parametrize("procedure", {*Admin} - {Admin.CONNECT_OPEN, Admin.CONNECT_CLOSE})
def test_every_other_procedure_is_asked_for(service, procedure):
    call = adminrpc.call(procedure, 1, b"payload!")
    assert feed(service, call.pack()) == [Asked(procedure, b"payload!")]


@pytest.mark.parametrize("procedure", Own)
def test_every_procedure_of_proxyds_own_program_is_asked_for_and_answered_once(service, procedure):
    call = proxyd_program.call(procedure, 7, b"payload!")
    assert feed(service, call.pack()) == [Asked(procedure, b"payload!")]
    assert service.wanted == 0
    assert frames_in(service.answered(b"")) == [remote.reply(call.header)]
    with pytest.raises(ValueError, match="no call is waiting"):
        service.answered(b"")


def test_both_programs_may_be_spoken_on_one_connection(service):
    for call in (OPEN, proxyd_program.call(Own.STATUS, 1, bytes(4)), LIST):
        for event in feed(service, call.pack()):
            if isinstance(event, Asked):
                (said,) = frames_in(service.answered(b"done"))
                assert said == remote.reply(call.header, b"done")
    assert service.stage is Stage.LISTENING


@pytest.mark.parametrize("piece", [1, 3, 4, 27, 28, 29])
def test_a_call_may_come_in_pieces(service, piece):
    events = feed(service, OPEN.pack() + LIST.pack(), piece=piece)
    assert events == [
        Send(remote.reply(OPEN.header).pack()),
        Asked(Admin.CONNECT_LIST_SERVERS, LIST.payload),
    ]


def test_there_is_nothing_to_answer_before_a_call(service):
    with pytest.raises(ValueError, match="no call is waiting"):
        service.answered(b"")


def test_a_call_is_answered_once(service):
    feed(service, LIST.pack())
    service.answered(b"")
    with pytest.raises(ValueError, match="no call is waiting"):
        service.refused(failure.internal("no"))


def test_reading_more_than_is_wanted_is_a_mistake_of_the_driver(service):
    with pytest.raises(ValueError, match="more was read"):
        service.receive_data(LIST.pack())


def test_a_ping_is_answered_by_a_pong(service):
    ping = remote.keepalive(Keepalive.PING)
    assert only_sent(feed(service, ping.pack())) == remote.keepalive(Keepalive.PONG)
    assert feed(service, remote.keepalive(Keepalive.PONG).pack()) == []


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (header(Remote.CONNECT_OPEN, program=Program.REMOTE), "Cannot find program 536903814 ver"),
        (header(version=2), "Cannot find program 110102160 version 2"),
        (header(program=0xFFFFFFFF), "Cannot find program -1 version 1"),
        (header(Keepalive.PING, program=Program.KEEPALIVE), "Cannot find program 1801807216 ver"),
        (header(1, program=OWN_PROGRAM, version=2), "Cannot find program 1886550137 version 2"),
        (header(0, program=OWN_PROGRAM), "unknown procedure: 0"),
        (header(99, program=OWN_PROGRAM), "unknown procedure: 99"),
        (header(-1, program=OWN_PROGRAM), "unknown procedure: -1"),
        (header(1, program=OWN_PROGRAM, status=Status.ERROR), "Unexpected message status 1"),
        (header(0), "unknown procedure: 0"),
        (header(21), "unknown procedure: 21"),
        (header(-1), "unknown procedure: -1"),
        (header(status=Status.ERROR), "Unexpected message status 1"),
    ],
)
def test_what_is_no_call_of_the_program_is_refused_and_asks_for_nothing(service, refused, text):
    said = only_sent(feed(service, Frame(refused, b"abcd").pack()))
    assert said.header == refused.replied(Status.ERROR)
    assert numbers_of(said) == (39, 7)
    assert failure_of(said).message.startswith(text)
    assert not service.spoken_to


@pytest.mark.parametrize(
    "kind",
    [
        FrameType.REPLY,
        FrameType.MESSAGE,
        FrameType.STREAM,
        FrameType.REPLY_WITH_FDS,
        FrameType.STREAM_HOLE,
        -1,
        99,
    ],
)
def test_what_is_no_call_at_all_is_dropped(service, kind):
    assert feed(service, Frame(header(kind=kind), b"abcd").pack()) == []
    assert service.wanted == HEADER_SIZE


def test_descriptors_end_it(service):
    call = Frame(header(kind=FrameType.CALL_WITH_FDS), bytes(4))
    assert feed(service, call.pack()) == [HangUp("descriptors on the admin socket")]
    assert service.wanted == 0


@pytest.mark.parametrize("length", [0, 27, FRAME_LIMIT + 1, 0x47455420, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_it(service, length):
    (over,) = feed(service, length.to_bytes(4, "big"))
    assert over.reason.startswith(f"protocol error: a frame length of {length}")
    assert (service.stage, service.wanted) == (Stage.ENDED, 0)


def test_the_longest_frame_is_heard(service):
    call = adminrpc.call(Admin.CONNECT_SET_LOGGING_FILTERS, 0, bytes(FRAME_LIMIT - 28))
    assert feed(service, call.pack()) == [Asked(Admin.CONNECT_SET_LOGGING_FILTERS, call.payload)]


def test_it_is_midway_from_the_first_byte_of_a_frame_to_its_last(service):
    heard = [service.midway]
    for number in range(len(OPEN.pack())):
        service.receive_data(OPEN.pack()[number : number + 1])
        heard.append(service.midway)
    assert heard == [False, *[True] * 31, False]
    assert service.spoken_to
