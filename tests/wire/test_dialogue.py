"""One call and its reply: what counts as one, what is passed over, and what ends it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire import failure, remote
from proxyd.wire.dialogue import UNANSWERING_LIMIT, Dialogue, Failed, Pinged, Returned
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import OWN_PROGRAM, VERSION, Keepalive, Program
from proxyd.wire.xdr import MalformedFrame

PROCEDURE = 157
PING = remote.keepalive(Keepalive.PING).pack()
PONG = remote.keepalive(Keepalive.PONG).pack()
LIMIT = 4096


def header(program=Program.REMOTE, serial=0):
    return Header(program, VERSION, PROCEDURE, FrameType.CALL, serial)


def asking(program=Program.REMOTE):
    dialogue = Dialogue(program, limit=LIMIT)
    dialogue.call(PROCEDURE)
    return dialogue


def heard(dialogue, wire):
    """What it makes of these bytes, but for None; it is fed as it wants to be."""
    found = []
    while wire and dialogue.wanted:
        part, wire = wire[: dialogue.wanted], wire[dialogue.wanted :]
        said = dialogue.receive_data(part)
        found += [] if said is None else [said]
    return found, wire


@pytest.mark.parametrize("program", [Program.REMOTE, OWN_PROGRAM, Program.ADMIN])
def test_calls_are_counted_and_each_has_its_reply(program):
    dialogue = Dialogue(program, limit=LIMIT)
    assert dialogue.wanted == 0
    for serial in range(3):
        called = header(program, serial)
        assert dialogue.call(PROCEDURE, b"payload!") == Frame(called, b"payload!").pack()
        answer, rest = heard(dialogue, remote.reply(called, b"result..").pack() + b"more")
        assert answer == [Returned(b"result..")]
        assert rest == b"more"  # it is nobody's yet
        assert dialogue.wanted == 0


def test_an_error_is_an_answer():
    reason = failure.not_open()
    assert heard(asking(), reason.reply_to(header()).pack())[0] == [Failed(reason)]


@given(cuts=st.lists(st.integers(1, 60)))
def test_any_cut_gives_the_same(cuts):
    dialogue = asking()
    wire = PING + PONG + remote.reply(header(), b"result..").pack()
    found = []
    while wire:
        size = min(cuts.pop(0) if cuts else len(wire), dialogue.wanted)
        said = dialogue.receive_data(wire[:size])
        found += [] if said is None else [said]
        wire = wire[size:]
    assert found == [Pinged(PONG), Returned(b"result..")]


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_malformed_frame_and_nothing_else(wire):
    try:
        found, _ = heard(asking(), wire)
    except MalformedFrame:
        return
    assert all(isinstance(each, Returned | Failed | Pinged) for each in found)


@pytest.mark.parametrize(
    "change",
    [
        {"serial": 1},
        {"procedure": PROCEDURE + 1},
        {"program": Program.QEMU},
        {"version": 2},
        {"type": FrameType.CALL},
        {"type": FrameType.REPLY_WITH_FDS},
        {"status": Status.CONTINUE},
    ],
    ids=str,
)
def test_what_is_no_reply_to_it_ends_it(change):
    wire = Frame(header().replied(Status.OK)._replace(**change)).pack()
    with pytest.raises(MalformedFrame, match=r"^it replied "):
        heard(asking(), wire)


@pytest.mark.parametrize("program", [Program.REMOTE, OWN_PROGRAM])
def test_events_are_passed_over_but_not_without_end(program):
    dialogue = asking(program)
    event = Frame(header(program)._replace(type=FrameType.MESSAGE)).pack()
    assert heard(dialogue, event * UNANSWERING_LIMIT) == ([], b"")
    with pytest.raises(MalformedFrame, match="more than 32 frames that answer nothing"):
        heard(dialogue, event)


def test_one_call_at_a_time():
    with pytest.raises(ValueError, match="no answer yet"):
        asking().call(PROCEDURE)


def test_nothing_is_taken_before_it_asks_or_behind_the_answer():
    with pytest.raises(ValueError, match="more was read than was wanted"):
        Dialogue(limit=LIMIT).receive_data(b"x")
    dialogue = asking()
    with pytest.raises(ValueError, match="more was read than was wanted"):
        dialogue.receive_data(bytes(dialogue.wanted + 1))


@pytest.mark.parametrize("length", [0, 27, LIMIT + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_it(length):
    with pytest.raises(MalformedFrame, match=f"a frame length of {length}"):
        heard(asking(), length.to_bytes(4, "big") + bytes(24))
