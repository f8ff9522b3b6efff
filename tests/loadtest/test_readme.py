"""What loadtest/README.md tells people to type is what the command line knows."""

import re
import shlex

import pytest

from loadtest.cli import command_line
from tests.loadtest.conftest import ROOT

README = (ROOT / "loadtest" / "README.md").read_text()
# Blocks that are indented are to be typed, fenced ones are what came of it.
TYPED = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE).replace("\\\n", " ")
COMMANDS = re.findall(r"^    proxyd-loadtest (.*)$", TYPED, re.MULTILINE)
SCENARIOS = ("compare", "limit", "run", "soak", "report", "plot")


def parsed(command):
    return command_line().parse_args(shlex.split(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_understood(command):
    assert callable(parsed(command).act)


def test_every_scenario_has_a_command_and_a_section():
    assert {command.split()[0] for command in COMMANDS} == set(SCENARIOS)
    for scenario in SCENARIOS:
        assert re.search(rf"^## .*`{scenario}`", README, re.MULTILINE)


def options_of(scenario):
    (scenarios,) = (each for each in command_line()._actions if each.choices)
    actions = scenarios.choices[scenario]._actions
    return {flag for action in actions for flag in action.option_strings} - {"-h", "--help"}


def test_every_option_of_the_tables_exists_and_none_is_left_out():
    known = set().union(*(options_of(scenario) for scenario in SCENARIOS))
    rows = re.findall(r"^\| (`-.*?) \|", README, re.MULTILINE)
    told = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", " ".join(rows)))
    long = {flag for flag in known if flag.startswith("--")}
    short = {"-R": "--rate", "-c": "--connections", "-d": "--duration", "-C": "--new-sessions"}
    short["-o"] = "--output"
    assert told <= known
    assert {short.get(flag, flag) for flag in told} == long
