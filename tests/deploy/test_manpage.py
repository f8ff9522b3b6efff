import argparse

import pytest

from proxyd.cli.main import build_parser
from proxyd.daemon.places import places_of
from proxyd.deploy.manpage import man_page
from tests.bed.command import run_to_end


def small_parser():
    parser = argparse.ArgumentParser(
        prog="proxyd",
        description='Says "yes" – or no.\n\n.nothing\\special',
        epilog="examples:\n  proxyd -x    do\n    more\n\nexit status: 0 ok;\n   1 not\n\n'prose",
    )
    parser.add_argument(
        "-n", "--number", metavar="N", type=int, default=3, help="50%% of %(default)s"
    )
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    below = parser.add_subparsers().add_parser("kick", description="Ends one.")
    below.add_argument("client", metavar="CLIENT", nargs="+", help="whose session")
    below.add_argument("how", choices=["now", "soon"], nargs="?", help="when")
    return parser


PARSERS = {"small": small_parser, "whole": lambda: build_parser(places_of({}, euid=0), whole=True)}


@pytest.fixture(params=PARSERS)
def page(request, tmp_path):
    path = tmp_path / "proxyd.8"
    path.write_text(man_page(PARSERS[request.param]()))
    return path


def shown(path):
    environment = {"MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MANROFFOPT": "-c"}
    done = run_to_end(
        ["man", "--warnings", "-P", "cat", "-l", str(path)], deadline_s=60, environment=environment
    )
    assert done.stderr == ""
    return done.succeeded()


def test_man_finds_nothing_to_warn_of(page):
    text = shown(page)
    headings = [line for line in text.splitlines() if line.isupper() and line[0] != " "]
    assert [each for each in headings if not each.startswith("PROXYD(8)")][:4] == [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
    ]


def test_groff_finds_nothing_to_warn_of(page):
    done = run_to_end(["groff", "-man", "-ww", "-Tutf8", "-z", str(page)], deadline_s=60)
    assert done.stderr == ""
    assert done.status == 0


def test_it_says_what_the_parser_knows(tmp_path):
    path = tmp_path / "proxyd.8"
    path.write_text(man_page(small_parser()))
    text = " ".join(shown(path).split())
    assert "proxyd [OPTION...] proxyd kick [OPTION...] CLIENT... [now|soon]" in text
    assert 'Says "yes" – or no. .nothing\\special' in text
    assert "-n, --number N 50% of 3" in text
    assert "EXAMPLES proxyd -x do more EXIT STATUS 0 ok; 1 not 'prose" in text
    assert "secret" not in text


def test_lines_of_an_example_stay_as_they_are(tmp_path):
    path = tmp_path / "proxyd.8"
    path.write_text(man_page(small_parser()))
    lines = shown(path).splitlines()
    first = lines.index("       proxyd -x    do")
    assert lines[first + 1] == "         more"


def test_every_command_of_the_real_one_is_there(tmp_path):
    path = tmp_path / "proxyd.8"
    path.write_text(man_page(build_parser(places_of({}, euid=0), whole=True)))
    text = shown(path)
    assert "   proxyd passwd\n" in text
    assert "--check-config" in text
