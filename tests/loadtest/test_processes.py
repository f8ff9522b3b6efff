import os
import time

import pytest

from loadtest.failures import TargetFailure
from loadtest.processes import Meter, cpu_ns, spent
from loadtest.targets import parse_target

NO_PROCESS = 2**22 + 1  # above the highest pid_max there is


def test_the_clock_of_a_process_is_its_own():
    before = time.process_time_ns()
    read = cpu_ns(os.getpid())
    assert before <= read <= time.process_time_ns()


def test_pids_of_a_group_are_added_up():
    own = os.getpid()
    once = Meter(parse_target(f"a=unix:/p,pid={own}"))
    meter = Meter(parse_target(f"a=unix:/p,pid={own}+{own},other={own}"))
    once_ns, both_ns = once.read()["pid"], meter.read()
    assert both_ns["pid"] >= 2 * once_ns
    assert both_ns["pid"] > both_ns["other"] >= once_ns


def test_memory_and_descriptors_are_seen():
    meter = Meter(parse_target(f"a=unix:/p,pid={os.getpid()}"))
    (before,) = meter.standings()
    with open(os.devnull, "rb"):
        (after,) = meter.standings()
    assert after.descriptors == before.descriptors + 1
    assert before.rss_kib > 1024


def test_a_process_that_is_not_there_is_named():
    meter = Meter(parse_target(f"a=unix:/p,pid={NO_PROCESS}"))
    for ask in (meter.read, meter.standings):
        with pytest.raises(TargetFailure, match=f"target a: there is no process {NO_PROCESS}"):
            ask()


def test_what_was_spent_is_told_by_label():
    assert spent({"a": 1, "b": 5}, {"a": 4, "b": 5}) == {"a": 3, "b": 0}
