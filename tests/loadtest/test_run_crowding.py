"""Whether the machine had room for what was measured."""

import os
import subprocess
import sys

import pytest

from loadtest.processes import cpu_ns
from loadtest.running.crowding import Crowding, cores, full, starving
from loadtest.targets import parse_target
from tests.bed.waiting import wait_until

STAT = """cpu  200 10 90 900 100 5 15 80 40 3
cpu0 1 2 3 4 5 6 7 8 9 10
intr 5
"""


def test_stolen_time_is_busy_and_that_of_guests_counts_once():
    per_s, found = os.sysconf("SC_CLK_TCK"), cores(STAT)
    assert (found.busy_s, found.all_s) == pytest.approx((400 / per_s, 1400 / per_s))


def test_a_machine_with_room_needs_no_note():
    assert full(18.9, 20, 5, 5) is None
    assert full(0, 0, 0, 0) is None


def test_a_full_machine_is_told_with_who_filled_it():
    assert full(19.6, 20.0, 2.0, 4.0) == (
        "the machine was full: of its CPU time 98% was in use, 10% by the load tool, 20% by the"
        " processes of pid= and 68% by all others; latencies contain waits for a core"
    )


@pytest.mark.parametrize(("ran_s", "waited_s"), [(2.0, 1.9), (0.1, 0.9), (5.0, 4.0)])
def test_a_target_that_ran_longer_than_it_waited_or_hardly_waited_needs_none(ran_s, waited_s):
    assert starving("a (pid)", 10.0, ran_s=ran_s, waited_s=waited_s) is None


def test_a_target_that_waited_for_cores_is_told():
    assert starving("a (pid)", 10.0, ran_s=1.0, waited_s=6.0) == (
        "a (pid) starved: in 10 s it ran for 1.00 s and waited for 6.00 s until there was a core"
        " for it; latencies contain that"
    )


# On the first core that it may have, until its stdin ends.
BUSY = """
import os, select, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(10000):
        pass
"""


def busy():
    return subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_process_that_shares_its_core_is_seen_to_starve():
    # Each of three has a third of a core, and waits for the other two.
    with busy() as one, busy() as two, busy() as three:
        for each in (one, two, three):
            each.stdout.readline()
        crowding = Crowding((parse_target(f"a=unix:/p,pid={one.pid},of_two={two.pid}"),))
        began = cpu_ns(one.pid)
        wait_until(lambda: cpu_ns(one.pid) - began > 100_000_000, 30, "it has run for a while")
        notes = [note for note in crowding.notes(0.3, 0.0) if "starved" in note]
    assert [note.partition(":")[0] for note in notes] == ["a (pid) starved", "a (of_two) starved"]


def test_a_process_that_is_gone_is_left_out(start_fake_process):
    fake = start_fake_process()
    crowding = Crowding((parse_target(f"a=unix:/p,pid={fake.pid}"),))
    fake.stop()
    assert [note for note in crowding.notes(1.0, 0.0) if "starved" in note] == []
