from contextlib import closing

import pytest

from loadtest.client import Opening
from loadtest.failures import TargetFailure
from loadtest.generator import Generator
from loadtest.generator_process import GeneratorProcess
from loadtest.turns import CallOrder, Turn
from proxyd.wire.programs import Remote

SMALL = Remote.CONNECT_GET_LIB_VERSION
THIRTY = Turn(0, least=30)


def open_three(generator):
    for _ in range(3):
        generator.open()


def worked(target, opening, turn=THIRTY):
    """A slice, by a process that is gone when this returns."""
    with closing(GeneratorProcess(CallOrder(target, opening, SMALL))) as generator:
        generator.wait_until_started()
        open_three(generator)
        return generator.work(turn)


def test_every_connection_is_a_session(fake_target, opening):
    script, target = fake_target()
    worked(target, opening)
    assert len(script.opened) == 3


def test_it_counts_every_call_and_drains_what_is_under_way(fake_target, opening):
    _, target = fake_target()
    done = worked(target, opening)
    # The last calls of the two other connections were under way already.
    assert 30 <= len(done.samples()) <= 32
    assert done.cpu_ns > 0
    assert max(done.samples()) <= done.elapsed_ns


def test_connections_are_served_at_the_same_time(fake_target, opening):
    _, target = fake_target(delay_s=0.02)
    done = worked(target, opening, Turn(0, least=9))
    assert min(done.samples()) >= 20_000_000
    assert done.elapsed_ns < sum(done.samples()) / 2


def test_it_works_for_as_long_as_it_is_told(fake_target, opening):
    _, target = fake_target()
    assert worked(target, opening, Turn(50_000_000)).elapsed_ns >= 50_000_000


@pytest.mark.parametrize("behaviour", [{"ping_first": True}, {"in_pieces": True}])
def test_replies_that_are_not_as_usual_are_counted_once(fake_target, opening, behaviour):
    script, target = fake_target(**behaviour)
    done = worked(target, opening)
    assert 30 <= len(done.samples()) <= 32
    assert script.pongs in (0, len(done.samples()) + 3)


def test_a_failure_to_open_comes_out_of_the_process(fake_target, opening):
    _, target = fake_target(refused={Remote.CONNECT_OPEN: "no such driver"})
    with pytest.raises(TargetFailure, match=r"target fake: CONNECT_OPEN: .*no such driver"):
        worked(target, opening)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hang_up": True}, "the server closed the connection"),
        ({"silent": True}, "no reply for 0.1 s"),
        ({"refused": {SMALL: "tired"}}, "tired"),
    ],
)
def test_a_failure_during_a_slice_is_told(fake_target, change, complaint):
    script, target = fake_target()
    impatient = Opening("test:///default", readonly=False, wait_s=0.1)
    with closing(Generator(CallOrder(target, impatient, SMALL))) as generator:
        open_three(generator)
        for name, value in change.items():
            setattr(script, name, value)
        with pytest.raises(TargetFailure, match=complaint):
            generator.work(Turn(0, least=10))


def test_a_generator_that_dies_is_no_mystery(fake_target, opening):
    _, target = fake_target()
    with closing(GeneratorProcess(CallOrder(target, opening, SMALL))) as generator:
        generator.wait_until_started()
        generator._spawned._process.kill()
        with pytest.raises(TargetFailure, match="its generator has died"):
            generator.work(Turn(0, least=10))


def test_connections_behind_tls_are_kept_busy_as_well(tls_target, tls_opening):
    script, target = tls_target(ping_first=True)
    done = worked(target, tls_opening)
    assert 30 <= len(done.samples()) <= 32
    assert script.handshakes == ["full"] * 3


def test_a_failure_of_tls_during_a_slice_is_told(tls_target, tls_opening):
    script, target = tls_target()
    with closing(Generator(CallOrder(target, tls_opening, SMALL))) as generator:
        open_three(generator)
        script.hang_up = True
        with pytest.raises(TargetFailure, match="the server closed the connection"):
            generator.work(THIRTY)
