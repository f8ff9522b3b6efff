import argparse
import json
from xml.etree import ElementTree as ET

import pytest

from loadtest import results
from loadtest.failures import UsageError
from loadtest.showing.cli import add_parsers
from tests.loadtest.showing.made import a_busy_result, a_result, a_target


def show(*words):
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers(required=True))
    options = parser.parse_args([str(word) for word in words])
    return options.act(options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "run.json"
    results.save(a_result(a_target(seconds=2)), path)
    return path


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    path = tmp_path_factory.mktemp("busy") / "busy.json"
    results.save(a_busy_result(), path)
    return path


def test_a_report_is_text_on_stdout_by_default(saved, capsys):
    assert show("report", saved) == 0
    assert capsys.readouterr().out.startswith("run, started 2026-01-02")


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("a.html", "<!DOCTYPE html>"),
        ("a.csv", "run,target,address,series,count"),
        ("a.hgrm", "       Value     Percentile"),
        ("a.json", '{\n "schema"'),
        ("a.txt", "run, started"),
    ],
)
def test_the_outputs_name_says_its_format(saved, tmp_path, name, begins):
    output = tmp_path / "out" / name
    output.parent.mkdir()
    assert show("report", saved, "-o", output) == 0
    assert output.read_text().startswith(begins)


def test_a_format_that_was_asked_for_wins(saved, tmp_path):
    assert show("report", saved, "--format", "intervals", "-o", tmp_path / "a.html") == 0
    assert (tmp_path / "a.html").read_text().startswith("run,target,begins_s")


def test_json_is_the_result_again(saved, capsys):
    assert show("report", saved, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(saved.read_text())


def test_histograms_of_several_targets_go_into_a_directory(saved, busy, tmp_path):
    directory = tmp_path / "out"
    directory.mkdir()
    assert show("report", saved, busy, "--format", "hgrm", "-o", directory) == 0
    assert sorted(path.name for path in directory.iterdir()) == [
        "busy-direct.hgrm",
        "busy-libvirtd.hgrm",
        "busy-proxyd.hgrm",
        "run-direct.hgrm",
    ]


@pytest.mark.parametrize("kind", ["percentiles", "latency", "throughput", "errors"])
def test_a_plot_is_svg_of_the_kind_asked_for(saved, busy, tmp_path, kind):
    output = tmp_path / "a.svg"
    assert show("plot", saved, busy, "-o", output, "--kind", kind) == 0
    assert ET.parse(output).getroot().get("class") == f"plot {kind}"


def test_what_makes_no_sense_is_told_before_anything_is_written(saved, busy, tmp_path):
    with pytest.raises(UsageError, match="name a directory that exists"):
        show("report", busy, "-o", tmp_path / "a.hgrm")
    with pytest.raises(UsageError, match="one result at a time"):
        show("report", saved, busy, "--format", "json")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": "other"}', '{"schema": "proxyd-loadtest/1"}']
)
def test_a_file_that_no_run_has_written_is_one_line(tmp_path, capsys, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert show("report", path) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"proxyd-loadtest: {path} ")
    assert said.endswith("; give a file that --out has written\n")


def test_files_that_cannot_be_read_or_written_are_named(saved, tmp_path, capsys):
    assert show("report", tmp_path / "none.json") == 1
    assert "none.json: No such file" in capsys.readouterr().err
    assert show("plot", saved, "-o", tmp_path / "none" / "a.svg") == 1
    assert "a.svg: No such file" in capsys.readouterr().err
