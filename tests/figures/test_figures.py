"""script/figures with real daemons, quickly."""

import json
import resource
import sys

import pytest

from tests.bed.command import run_to_end
from tests.figures.__main__ import main
from tests.figures.measurements import BY_NAME, CHECKOUT, NotMeasured
from tests.figures.rows import ROWS

pytestmark = pytest.mark.system

DEADLINE_S = 300


def figures(*words):
    command = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "tests.figures", *words]
    return run_to_end(command, deadline_s=DEADLINE_S)


def positive(kept, measurement):
    """What every round of it has come to."""
    values = kept["measurements"][measurement]["values"]
    assert {*values} == {row.name for row in ROWS if row.measurement == measurement}
    return {name: rounds[0] for name, rounds in values.items() if len(rounds) == 1}


def test_figures_are_measured_and_kept_beside_those_of_before(tmp_path):
    """By UNIX, by TLS, with a ticket; a transfer, an idle session, a start."""
    file = tmp_path / "kept.json"
    figures("--quick", "--only", "start", "--into", str(file)).succeeded()
    done = figures("--quick", "--only", "calls", "uploads", "--into", str(file))
    text = done.succeeded()
    kept = json.loads(file.read_text())
    assert list(kept["measurements"]) == ["calls", "uploads", "start"]
    assert positive(kept, "calls")["direct"] > 0
    assert min(positive(kept, "uploads").values()) > 0
    started = positive(kept, "start")
    assert started["ready"] > 0
    assert started["resident-tls"] > started["idle-tls"] / 1024
    assert text.count("\n| ") > len(ROWS)
    assert "Made with --quick" in text


def test_what_cannot_be_measured_takes_nothing_else_with_it(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise NotMeasured("the tool says no")

    monkeypatch.setitem(BY_NAME, "calls", fails)
    monkeypatch.setitem(BY_NAME, "start", lambda *_: {"ready": [0.25]})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    file = tmp_path / "kept.json"
    assert main(["--quick", "--only", "calls", "start", "--json", str(file)]) == 1
    told = capsys.readouterr()
    assert "script/figures: calls: the tool says no" in told.err
    assert "| from exec to READY, TLS on | – | 0.25 s | ≤ 0.2 s | no |" in told.out
    kept = json.loads(file.read_text())["measurements"]
    assert {name: one["values"] for name, one in kept.items()} == {"start": {"ready": [0.25]}}
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_the_table_is_made_again_without_measuring(tmp_path):
    text = figures("--only", "--into", str(tmp_path / "none.json")).succeeded()
    assert text.count("| – |") >= len(ROWS)


def test_what_cannot_be_kept_is_one_line(tmp_path):
    file = tmp_path / "kept.json"
    file.write_text("[]")
    done = figures("--only", "--into", str(file))
    assert done.status == 1
    assert done.stderr.startswith(f"script/figures: {file} is no record")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--quick", "--update"], "--quick makes no figures for a document"),
        (["--only", "calls", "--update"], "takes the others' figures from --into FILE"),
    ],
)
def test_a_document_gets_whole_tables_alone(words, why):
    done = figures(*words)
    assert done.status == 2
    assert why in done.stderr
