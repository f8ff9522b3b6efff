"""Whole runs against fakes: what was put in must come out."""

import pytest

from loadtest.failures import TargetFailure
from loadtest.figures import against, cpu_ratio
from loadtest.scenarios.compare import BLOCKS, LEAST_BLOCK, Plan, run
from loadtest.targets import parse_targets
from proxyd.wire.programs import Remote

BURN_MS = 4


@pytest.fixture
def measure(opening):
    """Runs a small plan; what it gives is by target, in the order of the command line."""

    def measure(*texts, **changes):
        settings = {"rounds": 2, "warmup": 5, "calls": 60, "slices": 2, "slice_s": 0.15} | changes
        plan = Plan(
            targets=parse_targets(list(texts)),
            procedure=Remote.CONNECT_GET_LIB_VERSION,
            opening=opening,
            **settings,
        )
        steps = []
        figures = run(plan, lambda: steps.append(1))
        assert len(steps) == plan.steps
        return figures

    return measure


def test_a_delay_is_measured(start_fake_process, measure):
    prompt, slow = start_fake_process(), start_fake_process("--delay-ms", "5")
    first, delayed = measure(f"prompt={prompt.address}", f"slow={slow.address}")
    # What the fake really waited, and not 5 ms: a loaded machine wakes it up late.
    waited_ns = slow.stop()["median_wait_ns"]
    assert waited_ns >= 5_000_000
    assert against(delayed, first).added_p50_ns.value == pytest.approx(waited_ns, rel=0.05)


def test_a_delay_limits_the_rate_of_busy_connections(start_fake_process, measure):
    slow = start_fake_process("--delay-ms", "5")
    (only,) = measure(f"slow={slow.address}", connections=4)
    whole = only.combined()
    assert whole.p50_ns >= 5_000_000
    # Four calls at a time, 5 ms each at least; one at a time would make 200 a second at most.
    assert 200 < whole.work.rate <= 800


def test_a_target_is_as_fast_as_itself(start_fake_process, measure):
    fake = start_fake_process()
    first, second = measure(f"a={fake.address}", f"b={fake.address}", calls=400)
    found = against(second, first)
    assert 0.67 < found.p50_ratio.value < 1.5
    assert abs(found.added_ratio.value) < 0.5
    assert first.combined().latencies.count == second.combined().latencies.count == 800


@pytest.mark.parametrize("connections", [1, 4])
def test_cpu_is_told_apart_by_target_and_process(start_fake_process, measure, connections):
    busy, idle = start_fake_process("--burn-ms", str(BURN_MS)), start_fake_process()
    first, other = measure(
        f"busy={busy.address},pid={busy.pid},beside={idle.pid}",
        f"idle={idle.address},pid={idle.pid}",
        connections=connections,
        rounds=1,
        slice_s=0.3,
    )
    work = first.combined().work
    assert work.per_call_ns("pid") == pytest.approx(BURN_MS * 1e6, rel=0.15)
    # The idle one shares each round with the busy one, and must not be charged for it.
    assert other.combined().work.per_call_ns("pid") < BURN_MS * 1e6 / 4
    assert work.cpu_ns["beside"] < work.cpu_ns["pid"] / 10
    ratio = cpu_ratio(first, "pid", "beside")
    assert ratio is None or ratio.value > 10
    assert 0 < work.tool_per_call_ns < BURN_MS * 1e6 / 4
    assert [standing.label for standing in first.standings] == ["pid", "beside"]


def test_calls_are_interleaved_and_nobody_always_goes_first(start_fake, measure):
    script, address = start_fake()
    measure(f"a={address},uri=test:///a", f"b={address},uri=test:///b", rounds=1)
    blocks = 2 * BLOCKS * LEAST_BLOCK
    interleaved = script.callers[-(60 + blocks) : -blocks]  # of the second half of the round
    pairs = [tuple(interleaved[at : at + 2]) for at in range(0, 60, 2)]
    assert all(set(pair) == {"test:///a", "test:///b"} for pair in pairs)
    leads = sum(pair[0] == "test:///a" for pair in pairs)
    assert 5 < leads < 25


def test_slices_make_the_connections_that_were_asked_for(start_fake, measure):
    script, address = start_fake()
    (only,) = measure(f"a={address}", connections=3, slice_s=0.01)
    assert len(script.opened) == 3
    assert only.combined().work.calls == only.combined().latencies.count


@pytest.mark.parametrize(("connections", "order"), [(1, "abba"), (4, "abbaabba")])
def test_no_target_is_always_opened_first(start_fake, measure, connections, order):
    script, address = start_fake()
    both = (f"a={address},uri=test:///a", f"b={address},uri=test:///b")
    measure(*both, connections=connections, rounds=1, slice_s=0.01)
    assert [opened.name[-1] for opened in script.opened] == list(order)


@pytest.mark.parametrize("connections", [1, 4])
def test_a_wrong_process_id_is_told_before_any_call(start_fake, measure, connections):
    script, address = start_fake()
    with pytest.raises(TargetFailure, match="target a: there is no process 4194305"):
        measure(f"a={address},pid=4194305", connections=connections)
    assert script.callers == []


def test_one_broken_target_ends_the_run_and_all_sessions(start_fake, measure, socket_paths):
    script, address = start_fake()
    with pytest.raises(TargetFailure, match="target b: cannot connect to"):
        measure(f"a={address}", f"b=unix:{next(socket_paths)}")
    assert script.closed == 1
