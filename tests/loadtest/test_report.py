import json

import pytest

from loadtest.client import Opening
from loadtest.document import as_json
from loadtest.figures import Latencies, Round, TargetFigures, Work
from loadtest.machine import Machine, this_machine
from loadtest.processes import Standing
from loadtest.report import WIDTH, Report, as_text, notes
from loadtest.scenarios import bulk, sessions
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
    return Report(machine, plan, [direct, through])


def sessions_report():
    """The same figures as if they had been of sessions: 10 ms and more for one."""
    report = a_report()
    plan = sessions.Plan(targets=TARGETS, opening=report.plan.opening, connections=16)
    direct, through = report.figures
    direct.rounds[:] = [a_round(10_000, pid=0.4), a_round(11_000, pid=0.4)]
    through.rounds[:] = [a_round(p50, pid=0.1, backend=0.4) for p50 in (140_000, 155_000)]
    through.cipher = "TLSv1.3 TLS_AES_256_GCM_SHA384"
    return Report(MACHINE, plan, report.figures)


def a_transfer(seconds, tool=0.5, **shares):
    made = Round()
    cpu_ns = {label: int(share * seconds * 1e9) for label, share in shares.items()}
    made.add(Work(1, int(seconds * 1e9), int(tool * seconds * 1e9), cpu_ns))
    return made


def bulk_report(tool=0.5):
    report = a_report()
    plan = bulk.Plan(
        targets=TARGETS, opening=report.plan.opening, volume="/v", size=1 << 30, upload=True
    )
    direct, through = report.figures
    direct.rounds[:] = [a_transfer(seconds, tool, pid=0.5) for seconds in (1, 2, 1)]
    through.rounds[:] = [a_transfer(2, tool, pid=0.5, backend=0.25) for _ in range(3)]
    return Report(MACHINE, plan, report.figures)


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


def test_sessions_are_shown_in_milliseconds_by_the_same_layout():
    text = as_text(sessions_report())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("compare new sessions: 16 at a time, 3 rounds of 5 slices of 0.4 s per")
    latency, beside, processes, footnotes = text.split("\n\n")[1:]
    assert latency.splitlines()[0].split("  ")[0] == "latency, ms"
    assert "sessions/s" in latency
    cells = line_of(beside, "proxyd")
    assert cells[1:3] == ["14.01", "(14.01..14.09)"]
    assert cells[3:5] == ["130.1", "(130.1..144.1)"]
    assert "CPU/session, µs" in processes
    assert "sessions/s ÷ is the median over neighbouring" in footnotes
    assert "proxyd: TLSv1.3 TLS_AES_256_GCM_SHA384" in footnotes


def test_transfers_are_shown_in_seconds_and_megabytes():
    text = as_text(bulk_report())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("compare upload of 1 GiB: 3 rounds of 1 transfer per target")
    transfers, beside, processes, footnotes = text.split("\n\n")[1:]
    direct = line_of(transfers, "direct")
    assert direct[1:5] == ["1.000", "(1.000..2.000)", "1074", "(537..1074)"]
    assert direct[5:] == ["0.667", "50%"]
    cells = line_of(beside, "proxyd")
    assert cells[1:3] == ["2.00", "(1.00..2.00)"]
    assert cells[3:5] == ["1.000", "(0.000..1.000)"]
    assert cells[5:7] == ["0.50", "(0.50..1.00)"]
    assert cells[7:] == ["3.00", "(1.50..3.00)"]
    own = processes.splitlines()[2].split()
    assert own == ["proxyd", "pid", "1.000", "50%", "20000", "–"]
    assert "all CPU ÷: all processes of a target together" in footnotes


def test_a_tool_that_is_the_limit_of_a_transfer_says_so():
    told = notes(bulk_report(tool=0.97))
    assert [note.partition(":")[0] for note in told] == ["direct", "proxyd"]
    assert "the load tool is the limit: it used 97% of a core" in told[0]


def test_the_documents_of_sessions_and_transfers_use_their_own_words():
    of_sessions, of_bulk = (json.loads(as_json(made())) for made in (sessions_report, bulk_report))
    assert (of_sessions["mode"], of_sessions["unit"]) == ("sessions", "session")
    proxyd = of_sessions["targets"][1]
    assert proxyd["combined"]["cpu_per_session_ns"]["pid"] == 10000
    assert proxyd["cipher"] == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert (of_bulk["mode"], of_bulk["plan"]["size"]) == ("bulk", 1 << 30)
    proxyd = of_bulk["targets"][1]
    assert proxyd["combined"]["cpu_per_transfer_ns"] == {"pid": 1e9, "backend": 0.5e9}
    assert proxyd["rounds"][0]["bytes_per_s"] == 2**29
    assert proxyd["against_first"]["seconds_ratio"]["per_round"] == [2, 1, 2]
    assert proxyd["against_first"]["all_cpu_ratio"]["value"] == 3


def test_without_process_ids_there_is_no_ratio_of_their_cpu():
    report = bulk_report()
    bare = parse_targets(["direct=unix:/a", "proxyd=unix:/b"])
    report.figures[:] = [
        TargetFigures(target, figures.rounds)
        for target, figures in zip(bare, report.figures, strict=True)
    ]
    assert line_of(as_text(report).split("\n\n")[2], "proxyd")[-1] == "–"
