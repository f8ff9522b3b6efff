import argparse
import shlex

import pytest

from proxyd.cli.main import build_parser
from proxyd.daemon.places import places_of
from proxyd.deploy.completion import bash_completion
from tests.bed.command import run_to_end

# What bash does when the tab key is pressed behind the words, the last of them being the one that
# is completed.
PRESS = """\
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
complete -p proxyd >/dev/null || exit
compopt() { :; }  # it works within a completion only
_proxyd
printf '%s\\n' "${COMPREPLY[@]}"
"""


def parser():
    parser = argparse.ArgumentParser(prog="proxyd")
    parser.add_argument("-f", "--config", metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    commands = parser.add_subparsers()
    switch = commands.add_parser("switch")
    switch.add_argument("--to", choices=["modular", "monolithic"])
    switch.add_argument("--for", metavar="SECONDS")
    switch.add_argument("--root", metavar="DIR")
    look = commands.add_parser("look")
    look.add_argument("at", metavar="FILE")
    how = commands.add_parser("how")
    how.add_argument("kind", choices=["fast", "slow"])
    return parser


@pytest.fixture
def press(tmp_path, monkeypatch):
    """Completes a command line, in a directory with a file and a directory."""
    script = tmp_path / "completion"
    script.write_text(bash_completion(parser()))
    here = tmp_path / "here"
    (here / "a directory").mkdir(parents=True)
    (here / "a file").touch()
    monkeypatch.chdir(here)
    return lambda *words: completed(script, "proxyd", *words)


def completed(script, *words):
    done = run_to_end(
        ["bash", "--noprofile", "--norc", "-uc", PRESS, "bash", str(script), *words], deadline_s=30
    )
    assert done.stderr == ""
    return sorted(line for line in done.succeeded().splitlines() if line)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("''", "how look switch"),
        ("s", "switch"),
        ("x", ""),
        ("-", "--config --help --json -f -h"),
        ("--j", "--json"),
        ("switch -", "--for --help --root --to -h"),
        ("switch --to ''", "modular monolithic"),
        ("switch --to mod", "modular"),
        ("switch --to =", "modular monolithic"),
        ("switch --to = mon", "monolithic"),
        ("switch --to modular --r", "--root"),
        ("switch --for ''", ""),
        ("switch ''", ""),
        ("--json s", "switch"),
        ("-f switch ''", "how look switch"),
        ("-f switch switch --t", "--to"),
        ("how s", "slow"),
    ],
)
def test_what_fits_is_offered(press, line, offered):
    assert press(*shlex.split(line)) == offered.split()


def test_a_file_is_offered_whole_whatever_its_name(press):
    for line in ("-f a", "--config = a", "look a"):
        assert press(*line.split()) == ["a directory", "a file"]


def test_where_a_directory_is_wanted_only_those_are_offered(press):
    assert press("switch", "--root", "a") == ["a directory"]


def test_the_real_commands_are_all_offered(tmp_path):
    script = tmp_path / "completion"
    script.write_text(bash_completion(build_parser(places_of({}, euid=0), whole=True)))
    assert "passwd" in completed(script, "proxyd", "")
    assert completed(script, "proxyd", "--che") == ["--check-config"]
    assert "--delete" in completed(script, "proxyd", "passwd", "--")


def test_bash_itself_takes_the_script_without_a_word(tmp_path):
    script = tmp_path / "completion"
    script.write_text(bash_completion(build_parser(places_of({}, euid=0), whole=True)))
    done = run_to_end(["bash", "-n", str(script)], deadline_s=30)
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
