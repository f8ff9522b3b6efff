"""Whole runs of new sessions against fakes: what was put in must come out."""

import pytest

from loadtest.failures import TargetFailure
from loadtest.figures import against
from loadtest.scenarios.sessions import Plan, run
from loadtest.targets import parse_targets

BURN_MS = 4


@pytest.fixture
def measure(tls_opening):
    def measure(*texts, **changes):
        settings = {"rounds": 2, "warmup": 2, "slices": 2, "slice_s": 0.05} | changes
        plan = Plan(targets=parse_targets(list(texts)), opening=tls_opening, **settings)
        steps = []
        figures = run(plan, lambda: steps.append(1))
        assert len(steps) == plan.steps
        return figures

    return measure


def test_the_same_server_is_as_fast_as_itself_and_tls_is_slower(
    start_fake, start_tls_fake, measure
):
    (_, address), (_, secure) = start_fake(), start_tls_fake()
    first, again, behind_tls = measure(f"a={address}", f"b={address}", f"c={secure}", slices=5)
    assert 0.5 < against(again, first).rate_ratio.value < 2
    assert against(behind_tls, first).p50_ratio.value > 1
    assert (first.cipher, behind_tls.cipher) == (None, "TLSv1.3 TLS_AES_256_GCM_SHA384")
    assert [len(one.rounds) for one in (first, again, behind_tls)] == [2, 2, 2]
    assert first.combined().work.calls == first.combined().latencies.count


def test_what_a_session_costs_is_told_by_process(start_fake_process, measure):
    busy, idle = start_fake_process("--open-burn-ms", str(BURN_MS)), start_fake_process()
    first, other = measure(
        f"busy={busy.address},pid={busy.pid},beside={idle.pid}",
        f"idle={idle.address},pid={idle.pid}",
        slice_s=0.2,
    )
    work = first.combined().work
    assert BURN_MS * 1e6 < work.per_call_ns("pid") < BURN_MS * 1e6 * 1.5
    assert other.combined().work.per_call_ns("pid") < BURN_MS * 1e6 / 2
    assert work.cpu_ns["beside"] < work.cpu_ns["pid"] / 10
    assert work.tool_per_call_ns > 0


def test_so_many_at_a_time_make_more_of_a_server_that_waits(start_fake, measure):
    _, address = start_fake(open_wait_s=0.01)
    (lone,) = measure(f"a={address}")
    (many,) = measure(f"a={address}", connections=5)
    assert lone.combined().work.rate < 100
    assert many.combined().work.rate > 2 * lone.combined().work.rate


def test_a_wrong_process_id_is_told_before_any_session(start_fake, measure):
    script, address = start_fake()
    with pytest.raises(TargetFailure, match="target a: there is no process 4194305"):
        measure(f"a={address},pid=4194305")
    assert script.opened == []
