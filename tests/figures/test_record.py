"""The record of script/figures, and the table in docs/performance.md."""

import pytest

from tests.figures.__main__ import DOCUMENT
from tests.figures.record import BEGIN, END, NotKept, Taken, as_json, as_markdown, load, update
from tests.figures.rows import MEASUREMENTS, ROWS, cells


def taken(**changes):
    usual = {
        "machine": "2 × A processor, Linux 6",
        "versions": {"proxyd": "0123", "Python": "3.11.2"},
        "when": "2026-11-30T12:00:00+00:00",
        "quick": False,
        "commands": ["proxyd-loadtest compare direct unix"],
        "values": {"added-unix": [31.0, 29.5, 33.0]},
    }
    return Taken(**usual | changes)


def table_of(text):
    """The cells of its first table, without the head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    tables = "\n".join(lines).split("| figures | how |")[0].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in tables[2:]]


def test_what_was_kept_is_read_again(tmp_path):
    record = {"calls": taken(), "bulk": taken(values={"gib-unix": [0.3]}, notes=["full"])}
    file = tmp_path / "kept.json"
    file.write_text(as_json(record))
    assert load(file) == record


def test_where_nothing_was_kept_there_is_nothing(tmp_path):
    assert load(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "other"}', '{"schema": "proxyd-figures/1"}', "\0"]
)
def test_what_is_no_record_is_told(tmp_path, text):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(NotKept, match=r"bad\.json is no record of script/figures"):
        load(file)


def test_the_table_says_where_with_what_and_how():
    text = as_markdown({"calls": taken()})
    assert "2 × A processor, Linux 6; proxyd 0123, Python 3.11.2; 2026-11-30." in text
    added = "| added median of a small call, UNIX | 76 µs | 31.0 µs (29.5 to 33.0) | – | – |"
    assert added in text
    assert "| calls | `proxyd-loadtest compare direct unix` |" in text


def test_measurements_of_several_machines_are_told_apart():
    text = as_markdown({"calls": taken(), "bulk": taken(machine="1 × another")})
    assert "\ncalls: 2 × A processor" in f"\n{text}"
    assert "\nbulk: 1 × another" in text


def test_a_quick_one_is_called_that():
    assert "too few calls" in as_markdown({"calls": taken(quick=True)})
    assert "too few calls" not in as_markdown({"calls": taken()})


def test_a_document_gets_the_table_and_keeps_the_rest(tmp_path):
    document = tmp_path / "document.md"
    document.write_text(f"before\n\n{BEGIN}\nearlier\n{END}\n\nbehind\n")
    for _ in range(2):
        update(document, {"calls": taken()})
    text = document.read_text()
    assert text.startswith(f"before\n\n{BEGIN}\n\n2 × A processor")
    assert text.endswith(f"|\n\n{END}\n\nbehind\n")
    assert "earlier" not in text


@pytest.mark.parametrize("text", ["", BEGIN, f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_one_place_for_it_stays_as_it_is(tmp_path, text):
    document = tmp_path / "document.md"
    document.write_text(text)
    with pytest.raises(NotKept, match="places for the table"):
        update(document, {"calls": taken()})
    assert document.read_text() == text


def test_the_table_of_the_documentation_has_all_rows():
    """As the script would write them; what proxyd takes is for the machine to say."""
    between = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    rows = [(title, c_daemon, goal) for title, c_daemon, _, goal, _ in table_of(between)]
    assert rows == [(row.title, row.c_daemon, cells(row, [])[1]) for row in ROWS]
    assert "--quick" not in between


def test_the_documentation_says_how_each_was_measured():
    between = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    for name in MEASUREMENTS:
        assert f"| {name} | `" in between
