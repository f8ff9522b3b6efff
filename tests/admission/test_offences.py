import pytest

from proxyd.admission.holder import Holder, Rank
from proxyd.admission.offences import _MOST, Offences

JOE, ANN = Holder("uid 1000", Rank.LOCAL, 1000), Holder("uid 1001", Rank.LOCAL, 1001)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def offences(clock):
    return Offences(clock)


def test_who_has_done_nothing_does_not_wait(offences):
    offences.note(JOE)
    assert offences.pause_s(ANN) == 0


def test_the_wait_grows_to_a_second_at_the_most(offences):
    pauses = []
    for _ in range(100):
        offences.note(JOE)
        pauses.append(offences.pause_s(JOE))
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < 0.1
    assert pauses[-1] == 1


def test_it_is_forgotten_after_a_while_without_any(offences, clock):
    for _ in range(5):
        offences.note(JOE)
        clock.now += 5
    assert offences.pause_s(JOE) > 0
    clock.now += 5
    assert offences.pause_s(JOE) == 0


@pytest.mark.parametrize("rank", [Rank.OWN, Rank.NETWORK])
def test_root_and_addresses_are_let_off(offences, rank):
    holder = Holder("somebody", rank)
    offences.note(holder)
    assert offences.pause_s(holder) == 0


def test_those_who_are_remembered_are_bounded(offences):
    for uid in range(2 * _MOST):
        offences.note(Holder(f"uid {uid}", Rank.LOCAL, uid))
    assert len(offences._seen) == _MOST
    assert offences.pause_s(Holder(f"uid {2 * _MOST - 1}", Rank.LOCAL, 2 * _MOST - 1)) > 0
