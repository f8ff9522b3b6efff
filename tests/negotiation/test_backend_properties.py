"""Whatever a daemon sends: it opens by its own four yeses and by nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from proxyd.negotiation.backend import FRAME_LIMIT, BackendNegotiation, BackendStage
from proxyd.negotiation.events import DaemonOpened, DaemonRefused, Send
from proxyd.wire import remote
from proxyd.wire.frame import Frame, FrameType, Status
from proxyd.wire.programs import Keepalive, Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.examples import examples
from tests.negotiation.talk import frames_in
from tests.wire.strategies import FAILURES, FRAMES, I32, PARAMS, TEXTS, U32

ARGUMENTS = st.builds(OpenArguments, st.none() | TEXTS, U32)
IDENTITIES = st.lists(PARAMS, max_size=5)
CUTS = st.integers(1, 40) | st.just(FRAME_LIMIT)
ENDS = {BackendStage.OPEN, BackendStage.REFUSED}
RESULTS = {
    Remote.AUTH_LIST: remote.pack_auth_methods([0]),
    Remote.CONNECT_SUPPORTS_FEATURE: remote.pack_int(1),
}


def yes_to(call):
    return remote.reply(call.header, RESULTS.get(call.header.procedure, b""))


def changed(frame, change):
    return Frame(frame.header._replace(**change), frame.payload)


# What a daemon may say instead of yes.
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "program": U32,
        "version": U32,
        "procedure": I32,
        "type": st.integers(-1, 8),
        "serial": U32,
        "status": st.integers(-1, 3),
    },
)
ANSWERS = st.one_of(
    st.just(yes_to),
    CHANGES.map(lambda change: lambda call: changed(yes_to(call), change)),
    FAILURES.map(lambda said: lambda call: said.reply_to(call.header)),
    FRAMES.map(lambda frame: lambda _: frame),
    st.sampled_from(Keepalive).map(lambda kind: lambda _: remote.keepalive(kind)),
    st.just(lambda call: Frame(call.header._replace(type=FrameType.MESSAGE))),
)


def hear(backend, wire, cut):
    events = []
    while wire and backend.wanted:
        size = min(backend.wanted, cut)
        events += backend.receive_data(wire[:size])
        wire = wire[size:]
    return events


def is_pong(frame):
    return frame == remote.keepalive(Keepalive.PONG)


@given(ARGUMENTS, IDENTITIES, st.booleans(), CUTS)
def test_a_willing_daemon_opens_in_any_cut(arguments, identity, keepalive, cut):
    backend = BackendNegotiation(arguments, identity, keepalive=keepalive)
    calls, events = frames_in(backend.start()), []
    while backend.stage not in ENDS:
        events += hear(backend, yes_to(calls[-1]).pack(), cut)
        calls += [] if events[-1] == DaemonOpened() else frames_in(events[-1].wire)
    asked = [call.header.procedure for call in calls]
    assert asked == [66, *([60] if keepalive else []), 1, 419]
    assert OpenArguments.unpack(calls[-2].payload) == arguments
    assert remote.unpack_identity(calls[-1].payload) == identity
    assert [call.header.serial for call in calls] == list(range(len(calls)))
    assert backend.stage is BackendStage.OPEN


@given(st.booleans(), st.lists(ANSWERS, max_size=12), CUTS)
@examples(400)
def test_only_a_yes_to_every_call_opens(keepalive, answers, cut):
    backend = BackendNegotiation(OpenArguments(None, 0), [], keepalive=keepalive)
    (call,) = frames_in(backend.start())
    granted = set()
    for answer in answers:
        if backend.stage in ENDS:
            break
        frame = answer(call)
        if frame.header == call.header.replied(Status.OK):
            granted.add(call.header.procedure)
        for event in hear(backend, frame.pack(), cut):
            if isinstance(event, Send):
                (said,) = frames_in(event.wire)
                call = call if is_pong(said) else said
            else:
                assert backend.stage in ENDS
    assert backend.stage is not BackendStage.OPEN or granted >= {66, 1, 419}


@given(st.booleans(), st.lists(ANSWERS, max_size=5), CUTS)
@examples(200)
def test_a_call_is_made_only_when_the_one_before_was_answered(keepalive, answers, cut):
    backend = BackendNegotiation(OpenArguments(None, 0), [], keepalive=keepalive)
    (call,) = frames_in(backend.start())
    for answer in answers:
        if backend.stage in ENDS:
            break
        frame, before = answer(call), call
        for event in hear(backend, frame.pack(), cut):
            if isinstance(event, Send) and not is_pong(frames_in(event.wire)[0]):
                (call,) = frames_in(event.wire)
                assert call.header.serial == before.header.serial + 1
                assert frame.header.serial == before.header.serial
                assert frame.header.procedure == before.header.procedure


@given(st.binary(max_size=300), CUTS)
@examples(200)
def test_any_bytes_are_waited_for_or_refuse(stream, cut):
    backend = BackendNegotiation(OpenArguments("a:///", 0), [], keepalive=False)
    backend.start()
    events = hear(backend, stream, cut)
    assert backend.stage in {BackendStage.LISTING, BackendStage.REFUSED}
    assert all(isinstance(event, DaemonRefused) for event in events)
