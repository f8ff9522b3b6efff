"""proxyd towards a daemon: the exact calls, and everything that is not the daemon's own yes."""

import pytest

from proxyd.negotiation.backend import (
    FRAME_LIMIT,
    BackendNegotiation,
    BackendStage,
)
from proxyd.negotiation.events import DaemonOpened, DaemonRefused, Send
from proxyd.wire import failure, remote
from proxyd.wire.dialogue import UNANSWERING_LIMIT
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER_SIZE, LENGTH_SIZE, Frame, FrameType, Status
from proxyd.wire.programs import Keepalive, Program, Remote
from proxyd.wire.remote import OpenArguments
from tests.negotiation.talk import feed, frames_in
from tests.wire.worked import EVENT_CONNECTION_CLOSED, FRED

ARGUMENTS = OpenArguments("qemu:///system", 7)
NO = Failure(88, 10, "access denied: says the daemon", "access denied: %1$s", "says the daemon")
PING = remote.keepalive(Keepalive.PING).pack()
NO_PROOF = remote.pack_auth_methods([0])

# stage, the result that leads on
STEPS = [
    (BackendStage.LISTING, NO_PROOF),
    (BackendStage.PROBING, remote.pack_int(1)),
    (BackendStage.OPENING, b""),
    (BackendStage.NAMING, b""),
]
AWAITING = [stage for stage, _ in STEPS]
at_every_stage = pytest.mark.parametrize("stage", AWAITING, ids=lambda stage: stage.name)


def a_backend(*, keepalive=True):
    return BackendNegotiation(ARGUMENTS, FRED, keepalive=keepalive)


def backend_at(stage):
    """A negotiation that waits for this stage's reply, and the header of the call it made."""
    backend = a_backend()
    (made,) = frames_in(backend.start())
    for answered, result in STEPS[: AWAITING.index(stage)]:
        assert backend.stage is answered
        (event,) = feed(backend, remote.reply(made.header, result).pack())
        (made,) = frames_in(event.wire)
    assert backend.stage is stage
    return backend, made.header


def result_of(stage):
    return dict(STEPS)[stage]


def refusal_at(stage, wire):
    """What these bytes lead to while the stage's reply is awaited: a refusal and nothing else."""
    backend, _ = backend_at(stage)
    (event,) = feed(backend, wire)
    assert isinstance(event, DaemonRefused)
    assert (backend.stage, backend.wanted) == (BackendStage.REFUSED, 0)
    assert event.stage == stage.name.lower()
    return event.failure


@pytest.mark.parametrize("piece", [None, 1, 5])
def test_with_keepalive_four_calls_open_a_connection(piece):
    backend = a_backend(keepalive=True)
    calls, events = frames_in(backend.start()), []
    for _, result in STEPS:
        (event,) = feed(backend, remote.reply(calls[-1].header, result).pack(), piece=piece)
        events.append(event)
        calls += frames_in(event.wire) if isinstance(event, Send) else []
    assert calls == [
        remote.call(Remote.AUTH_LIST, 0),
        remote.call(Remote.CONNECT_SUPPORTS_FEATURE, 1, remote.pack_int(10)),
        remote.call(Remote.CONNECT_OPEN, 2, ARGUMENTS.pack()),
        remote.call(Remote.CONNECT_SET_IDENTITY, 3, remote.pack_identity(FRED)),
    ]
    assert events[-1] == DaemonOpened()
    assert (backend.stage, backend.wanted) == (BackendStage.OPEN, 0)


def test_without_keepalive_the_probe_is_left_out():
    backend = a_backend(keepalive=False)
    calls, events = frames_in(backend.start()), []
    for stage, result in STEPS:
        if stage is not BackendStage.PROBING:
            (event,) = feed(backend, remote.reply(calls[-1].header, result).pack())
            events.append(event)
            calls += frames_in(event.wire) if isinstance(event, Send) else []
    assert calls == [
        remote.call(Remote.AUTH_LIST, 0),
        remote.call(Remote.CONNECT_OPEN, 1, ARGUMENTS.pack()),
        remote.call(Remote.CONNECT_SET_IDENTITY, 2, remote.pack_identity(FRED)),
    ]
    assert events[-1] == DaemonOpened()


def test_an_identity_of_nobody_is_told_all_the_same():
    backend = BackendNegotiation(ARGUMENTS, [], keepalive=False)
    (made,) = frames_in(backend.start())
    for result in (NO_PROOF, b""):
        (event,) = feed(backend, remote.reply(made.header, result).pack())
        (made,) = frames_in(event.wire)
    assert made == remote.call(Remote.CONNECT_SET_IDENTITY, 2, bytes(8))


@pytest.mark.parametrize(
    "stage",
    [BackendStage.LISTING, BackendStage.OPENING, BackendStage.NAMING],
    ids=lambda stage: stage.name,
)
def test_a_daemons_error_is_handed_on_as_it_is(stage):
    _, made = backend_at(stage)
    assert refusal_at(stage, NO.reply_to(made).pack()) == NO


def test_a_daemon_that_does_not_know_the_probe_is_opened_without_pings():
    backend, made = backend_at(BackendStage.PROBING)
    (event,) = feed(backend, failure.unknown_procedure(60).reply_to(made).pack())
    assert frames_in(event.wire) == [remote.call(Remote.CONNECT_OPEN, 2, ARGUMENTS.pack())]


@pytest.mark.parametrize("answer", [0, 1, -1])
def test_whatever_the_probe_says_the_connection_is_opened_next(answer):
    backend, made = backend_at(BackendStage.PROBING)
    (event,) = feed(backend, remote.reply(made, remote.pack_int(answer)).pack())
    assert frames_in(event.wire) == [remote.call(Remote.CONNECT_OPEN, 2, ARGUMENTS.pack())]


@at_every_stage
@pytest.mark.parametrize(
    "change",
    [
        {"serial": 77},
        {"procedure": Remote.CONNECT_CLOSE},
        {"procedure": -1},
        {"program": Program.QEMU},
        {"program": Program.KEEPALIVE},
        {"version": 2},
        {"type": FrameType.CALL},
        {"type": FrameType.STREAM},
        {"type": FrameType.REPLY_WITH_FDS},
        {"type": 99},
    ],
    ids=str,
)
def test_a_reply_to_something_else_refuses(stage, change):
    _, made = backend_at(stage)
    header = made.replied(Status.OK)._replace(**change)
    said = refusal_at(stage, Frame(header, result_of(stage)).pack())
    assert (said.code, said.domain) == (1, 7)
    assert "broke the protocol" in said.message


@at_every_stage
@pytest.mark.parametrize("status", [Status.CONTINUE, 3, -1])
def test_a_reply_that_is_neither_yes_nor_no_refuses(stage, status):
    _, made = backend_at(stage)
    wire = Frame(made.replied(status), result_of(stage)).pack()
    said = refusal_at(stage, wire)
    assert (said.code, said.domain) == (1, 7)


@at_every_stage
def test_the_reply_to_the_call_before_refuses(stage):
    _, made = backend_at(stage)
    stale = made._replace(serial=(made.serial - 1) % (1 << 32))
    assert refusal_at(stage, remote.reply(stale, result_of(stage)).pack()).code == 1


@at_every_stage
def test_an_error_that_does_not_decode_refuses(stage):
    _, made = backend_at(stage)
    said = refusal_at(stage, Frame(made.replied(Status.ERROR), b"\0\0\0\1").pack())
    assert "broke the protocol" in said.message


@at_every_stage
@pytest.mark.parametrize("length", [0, 4, 27, FRAME_LIMIT + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_refuses(stage, length):
    said = refusal_at(stage, length.to_bytes(LENGTH_SIZE, "big"))
    assert f"length of {length}" in said.message


def test_an_error_that_refuses_the_identity_never_opens():
    backend, made = backend_at(BackendStage.NAMING)
    events = feed(backend, failure.identity_is_fixed().reply_to(made).pack())
    assert events == [DaemonRefused("naming", failure.identity_is_fixed())]
    with pytest.raises(ValueError, match="more was read than was wanted"):
        backend.receive_data(remote.reply(made).pack()[:1])
    assert backend.stage is BackendStage.REFUSED


@pytest.mark.parametrize(
    ("methods", "named"),
    [([1], "SASL"), ([2], "polkit"), ([1, 2], "SASL, polkit"), ([], "unknown"), ([9], "unknown")],
)
def test_a_daemon_that_asks_proxyd_for_proof_refuses_and_says_what_helps(methods, named):
    _, made = backend_at(BackendStage.LISTING)
    wire = remote.reply(made, remote.pack_auth_methods(methods)).pack()
    said = refusal_at(BackendStage.LISTING, wire)
    assert said.code == 45
    assert named in said.message
    assert "auth_unix_rw" in said.message


@pytest.mark.parametrize("methods", [[0], [2, 0], [0, 1]])
def test_a_daemon_that_offers_to_ask_for_nothing_is_taken_at_its_word(methods):
    backend, made = backend_at(BackendStage.LISTING)
    wire = remote.reply(made, remote.pack_auth_methods(methods)).pack()
    assert [type(event) for event in feed(backend, wire)] == [Send]


@pytest.mark.parametrize("payload", ["", "00000001", "00000015", "ffffffff"])
def test_a_list_of_methods_that_does_not_decode_refuses(payload):
    _, made = backend_at(BackendStage.LISTING)
    wire = remote.reply(made, bytes.fromhex(payload)).pack()
    assert "broke the protocol" in refusal_at(BackendStage.LISTING, wire).message


@at_every_stage
def test_a_ping_is_answered_by_a_pong_and_nothing_else_happens(stage):
    backend, _ = backend_at(stage)
    assert feed(backend, PING) == [Send(remote.keepalive(Keepalive.PONG).pack())]
    assert backend.stage is stage


@at_every_stage
def test_a_pong_that_nobody_asked_for_is_dropped(stage):
    backend, _ = backend_at(stage)
    assert feed(backend, remote.keepalive(Keepalive.PONG).pack()) == []
    assert backend.stage is stage


@at_every_stage
@pytest.mark.parametrize("number", [EVENT_CONNECTION_CLOSED, 318, Remote.CONNECT_SET_IDENTITY])
def test_an_event_is_dropped_and_the_reply_still_counts(stage, number):
    backend, made = backend_at(stage)
    event = made._replace(procedure=number, type=FrameType.MESSAGE)
    assert feed(backend, Frame(event, remote.pack_int(1)).pack()) == []
    (answer,) = feed(backend, remote.reply(made, result_of(stage)).pack())
    assert isinstance(answer, Send | DaemonOpened)


@at_every_stage
@pytest.mark.parametrize("kind", ["events", "pings", "both"])
def test_a_daemon_that_says_much_and_answers_nothing_refuses_and_says_what_it_did(stage, kind):
    backend, made = backend_at(stage)
    event = Frame(made._replace(procedure=318, type=FrameType.MESSAGE)).pack()
    said = {"events": [event, event], "pings": [PING, PING], "both": [event, PING]}[kind]
    for number in range(UNANSWERING_LIMIT):
        feed(backend, said[number % 2])
        assert backend.stage is stage

    (refused,) = feed(backend, said[0])

    assert isinstance(refused, DaemonRefused)
    assert "more than 32 frames that answer nothing" in refused.failure.message
    assert backend.stage is BackendStage.REFUSED


@at_every_stage
def test_nothing_behind_the_awaited_reply_is_wanted(stage):
    backend, made = backend_at(stage)
    rest = remote.reply(made, result_of(stage)).pack() + PING
    events = []
    while not events:
        wanted = backend.wanted
        events = backend.receive_data(rest[:wanted])
        rest = rest[wanted:]
    assert rest == PING


@at_every_stage
def test_one_byte_more_than_wanted_is_the_drivers_mistake(stage):
    backend, made = backend_at(stage)
    wire = remote.reply(made, result_of(stage)).pack()
    with pytest.raises(ValueError, match="more was read than was wanted"):
        backend.receive_data(wire[:HEADER_SIZE] + b"x")
    assert len(feed(backend, wire)) == 1


def test_an_open_connection_belongs_to_the_relay():
    backend, made = backend_at(BackendStage.NAMING)
    feed(backend, remote.reply(made).pack())
    with pytest.raises(ValueError, match="the relay would miss it"):
        backend.receive_data(PING)
