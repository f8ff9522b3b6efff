import json

import pytest

from loadtest.client import Opening
from loadtest.figures import Latencies, Round, TargetFigures, Work
from loadtest.machine import Machine, this_machine
from loadtest.processes import Standing
from loadtest.report import WIDTH, Report, as_json, as_text, notes
from loadtest.scenarios.compare import Plan
from loadtest.targets import parse_targets

MACHINE = Machine(
    4, "A processor", "Linux 6", "3.11.2", "0.1.0", None, "proxyd-loadtest compare", 0.1
)
TARGETS = parse_targets(["direct=unix:/a,pid=2", "proxyd=unix:/b,pid=1,backend=2"])
CALLS, ELAPSED_NS = 1000, 100_000_000  # 100 µs each


def a_round(p50_us, tool=0.2, **shares):
    cpu_ns = {label: int(share * ELAPSED_NS) for label, share in shares.items()}
    latencies = Latencies([p50_us * 1000] * 9)
    made = Round(latencies)
    made.add(Work(CALLS, ELAPSED_NS, int(tool * ELAPSED_NS), cpu_ns))
    return made


def a_report(connections=1, tool=0.2, proxyd=0.1, backend=0.4, machine=MACHINE):
    direct = TargetFigures(TARGETS[0], [a_round(100, pid=backend), a_round(110, pid=backend)])
    rounds = [a_round(p50, tool, pid=proxyd, backend=backend) for p50 in (140, 155)]
    through = TargetFigures(TARGETS[1], rounds)
    direct.standings = [Standing("pid", (2,), 25000, 29)]
    through.standings = [Standing("pid", (1,), 20000, None), Standing("backend", (2,), 25000, 29)]
    opening = Opening("test:///default", readonly=False, wait_s=10)
    plan = Plan(targets=TARGETS, procedure=157, opening=opening, connections=connections)
    return Report(machine, plan, "CONNECT_GET_LIB_VERSION", [direct, through])


def line_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


def test_the_table_is_narrow_enough_and_says_what_was_measured():
    text = as_text(a_report())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("compare CONNECT_GET_LIB_VERSION: 1 connection, 3 rounds of 2000 inter")
    assert "4 × A processor, Linux 6, Python 3.11.2" in text
    assert "commit unknown" in text


def test_added_latency_and_ratios_stand_in_the_table_with_their_spread():
    _, beside, *_ = [part for part in as_text(a_report()).split("\n\n") if "proxyd  " in part]
    cells = line_of(beside, "proxyd")
    assert cells[1:3] == ["1.40", "(1.40..1.41)"]
    assert cells[3:5] == ["40.0", "(40.0..45.0)"]
    assert cells[7:] == ["1.00", "(1.00..1.00)"]


def test_cpu_per_call_and_its_ratio_stand_in_the_table():
    *_, processes, _ = as_text(a_report()).split("\n\n")
    own, backend = [line.split() for line in processes.splitlines()[2:]]
    assert own == ["proxyd", "pid", "10.0", "10%", "20000", "–"]
    assert backend == ["proxyd", "backend", "40.0", "40%", "0.25", "(0.25..0.25)", "25000", "29"]


def test_a_single_target_has_nothing_beside_it():
    report = a_report()
    report.figures.pop()
    assert "beside" not in as_text(report)


def test_the_document_holds_every_round():
    document = json.loads(as_json(a_report()))
    assert document["machine"]["cores"] == 4
    assert document["mode"] == "interleaved"
    proxyd = document["targets"][1]
    assert len(proxyd["rounds"]) == 2
    assert proxyd["combined"]["cpu_per_call_ns"] == {"pid": 10000.0, "backend": 40000.0}
    assert proxyd["cpu_ratio"]["pid/backend"]["per_round"] == [0.25, 0.25]
    assert proxyd["against_first"]["p50_ratio"]["high"] == pytest.approx(1.41, rel=0.01)
    assert proxyd["processes"][0]["descriptors"] is None


def test_a_tool_that_is_the_limit_says_so():
    (note,) = notes(a_report(connections=16, tool=0.95, proxyd=0.3))
    assert note.startswith("proxyd: the load tool is the limit: it used 95% of a core")
    assert "NOTE proxyd: the load tool" in as_text(a_report(connections=16, tool=0.95))


def test_a_busy_tool_beside_a_busy_target_is_no_limit():
    assert notes(a_report(connections=16, tool=0.95, proxyd=0.99)) == []


def test_a_machine_without_cores_left_says_so():
    machine = Machine(2, "A processor", "Linux 6", "3.11.2", "0.1.0", None, "proxyd-loadtest", 0.1)
    report = a_report(connections=16, tool=0.5, proxyd=0.7, backend=0.75, machine=machine)
    assert notes(report) == ["proxyd: the machine is the limit: 1.95 of its 2 cores were in use"]


def test_a_process_under_two_labels_is_in_use_once():
    (target,) = parse_targets(["a=unix:/a,pid=2,again=2"])
    report = a_report(connections=16)
    report.figures[:] = [TargetFigures(target, [a_round(100, tool=0.2, pid=1.9, again=1.9)])]
    assert notes(report) == []  # 2.1 of 4 cores, not 4.0


def test_this_machine_is_described():
    machine = this_machine(["compare", "--target", "a=unix:/p q"])
    assert machine.command == "proxyd-loadtest compare --target 'a=unix:/p q'"
    assert machine.cores >= 1
    assert machine.load >= 0
    assert machine.cpu_model
