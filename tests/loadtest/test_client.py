from contextlib import closing

import pytest

from loadtest.client import Opening, open_session
from loadtest.failures import TargetFailure
from loadtest.targets import parse_target
from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.remote import OpenArguments, unpack_int

SMALL = Remote.CONNECT_GET_LIB_VERSION


def measured(target, opening, calls=3):
    with closing(open_session(target, opening)) as session:
        session.prepare(SMALL)
        return [session.round_trip() for _ in range(calls)]


def failure(target, opening):
    with pytest.raises(TargetFailure) as failed:
        measured(target, opening)
    return str(failed.value)


def test_a_session_opens_calls_and_says_goodbye(fake_target, opening):
    script, target = fake_target()
    with closing(open_session(target, opening)) as session:
        assert unpack_int(session.call(SMALL).payload) == 42
    assert script.opened == [OpenArguments("test:///default", 0)]
    assert script.closed == 1


def test_a_target_has_a_uri_of_its_own_and_may_be_opened_readonly(start_fake):
    script, address = start_fake()
    target = parse_target(f"fake={address},uri=qemu:///system")
    open_session(target, Opening("test:///default", readonly=True, wait_s=10)).close()
    assert script.opened == [OpenArguments("qemu:///system", 1)]


def test_a_round_trip_takes_as_long_as_the_server_does(fake_target, opening):
    _, target = fake_target(delay_s=0.005)
    assert all(nanoseconds >= 5_000_000 for nanoseconds in measured(target, opening))


def test_pings_are_answered_and_events_dropped(fake_target, opening):
    script, target = fake_target(ping_first=True)
    assert len(measured(target, opening, calls=5)) == 5
    assert script.pongs == 6  # one for the call that prepares


def test_a_reply_may_come_in_pieces(fake_target, opening):
    _, target = fake_target(in_pieces=True)
    assert len(measured(target, opening)) == 3


def test_nobody_listening_is_one_clear_line(opening, socket_paths):
    path = next(socket_paths)
    target = parse_target(f"fake=unix:{path}")
    expected = f"target fake: cannot connect to {path}: No such file or directory"
    assert failure(target, opening) == expected


def test_an_error_reply_is_shown_with_its_message(fake_target, opening):
    _, target = fake_target(refused={Remote.CONNECT_OPEN: "no such driver"})
    expected = "target fake: CONNECT_OPEN: internal error: no such driver"
    assert failure(target, opening) == expected


def test_an_error_in_the_middle_of_measuring_is_shown(fake_target, opening):
    script, target = fake_target()
    with closing(open_session(target, opening)) as session:
        session.prepare(SMALL)
        session.round_trip()
        script.refused[SMALL] = "tired"
        with pytest.raises(TargetFailure, match="CONNECT_GET_LIB_VERSION: internal error: tired"):
            session.round_trip()
    assert script.closed == 0  # a broken session is not talked to again


def test_authentication_is_not_done_and_said_so(fake_target, opening):
    _, target = fake_target(methods=(AuthMethod.SASL, AuthMethod.POLKIT))
    assert "the server wants SASL, POLKIT" in failure(target, opening)


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ({"hang_up": True}, "the server closed the connection"),
        ({"garbage": True}, "the server sent what is no frame: a frame length of 0"),
    ],
)
def test_a_broken_server_is_named(fake_target, opening, behaviour, complaint):
    _, target = fake_target(**behaviour)
    assert complaint in failure(target, opening)


def test_a_silent_server_is_given_up_after_the_deadline(fake_target):
    _, target = fake_target(silent=True)
    told = failure(target, Opening("test:///default", readonly=False, wait_s=0.05))
    assert told == "target fake: CONNECT_GET_LIB_VERSION: nothing happened for 0.05 s"
