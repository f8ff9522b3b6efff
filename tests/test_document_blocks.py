"""Every block of the documents is run, or has a reason why not; and names what there is.

What runs is run by tests/system/test_document_commands.py.
"""

import re
import shlex
from pathlib import Path

import pytest

from certs import options as certificates
from proxyd.cli.commands import COMMANDS
from proxyd.cli.main import build_parser
from proxyd.cli.parser import Ended
from proxyd.daemon.places import places_of
from tests.bed.blocks import ROOT, blocks, blocks_of, commands, pages

EVERY_BLOCK = [block for path in pages() for block in blocks(path)]
VERBS = {"init", "server", "client", "revoke", "crl", "list", "check"}  # of proxyd certs
LANGUAGES = {"sh", "text", "ini", "js", "python", "console", "yaml"}
# Pages whose commands have a test of their own, which finds them by itself.
PLAYED_ELSEWHERE = {
    "certs/README.md": "tests/certs/test_cli.py",
    "loadtest/README.md": "tests/loadtest/test_readme.py",
}
# Blocks that are not run here, by their page and first line: who runs them, or why nobody can.
NOT_RUN = {
    ("README.md", "./script/run"): "tests/system/test_readme_commands.py",
    ("CONTRIBUTING.md", "./script/test"): "they are the tests, and what .ci/run does with them",
    ("docs/getting-started.md", "python3 -m venv /opt/proxyd"): "tests/test_wheel.py",
    ("docs/getting-started.md", "proxyd                  "): "tests/system/test_command_line.py",
    ("docs/deployment/systemd.md", "proxyd switch --to monolithic"): (
        "tests/system/test_systemd_doctor.py"
    ),
    ("docs/deployment/debian.md", "apt install ./proxyd_"): "tests/package/test_packages.py",
    ("docs/deployment/debian.md", "cp /usr/share/proxyd/behind"): "tests/package/test_packages.py",
    ("docs/deployment/debian.md", "script/package  "): (
        "they build packages, which .ci/run does for one release and script/release for both"
    ),
    ("docs/recipes.md", "proxyd switch --to monolithic"): "tests/system/test_systemd_install.py",
    ("docs/ssh.md", "virsh -c 'qemu+ssh:"): "tests/system/test_ssh.py",
    ("docs/metrics.md", "proxyd metrics --output"): "tests/system/test_metrics.py",
    ("docs/testing.md", "script/test  "): (
        "they run tests: of the first ones script/test is run by"
        " tests/system/test_readme_commands.py, script/with by all who develop, and"
        " script/first-minute takes two hosts of its own"
    ),
    ("docs/deployment/user.md", "systemctl --user enable"): (
        "tests/system/test_systemd_install.py"
    ),
    ("docs/recipes.md", "/opt/proxyd/bin/pip install --upgrade ."): (
        "pip asks an index on the network, and tests have none; that a wheel can be installed is"
        " shown by tests/test_wheel.py"
    ),
    ("docs/recipes.md", "rm -r /opt/proxyd"): (
        "the test goes on with the installation; there is nothing of proxyd's in these commands"
    ),
}


def reason(block):
    found = [
        why
        for (page, begins), why in NOT_RUN.items()
        if block.page == page and block.first.startswith(begins)
    ]
    assert len(found) <= 1, f"{block} has two reasons"
    return found[0] if found else None


@pytest.mark.parametrize("block", EVERY_BLOCK, ids=str)
def test_a_block_says_what_it_is(block):
    if block.page in PLAYED_ELSEWHERE:
        return_to = ROOT / PLAYED_ELSEWHERE[block.page]
        assert Path(block.page).name in return_to.read_text()
        return
    assert block.language in LANGUAGES
    assert not block.indented, "it begins at the margin, or its marks are not seen"
    if block.language == "sh":
        assert block.runs or reason(block), 'mark it "sh run", or say in NOT_RUN why it is not run'
        assert not (block.runs and reason(block))
    if block.language in {"ini", "js"}:
        assert block.option("file"), "a file that nothing is tried with: give it file=/PATH"


def test_every_reason_belongs_to_a_block_and_every_test_is_there():
    for page, begins in NOT_RUN:
        found = [
            each for each in EVERY_BLOCK if (each.page, each.first[: len(begins)]) == (page, begins)
        ]
        assert len(found) == 1, (page, begins)
    for why in (*NOT_RUN.values(), *PLAYED_ELSEWHERE.values()):
        if why.startswith("tests/"):
            assert (ROOT / why).is_file(), why


# ---- Words of the command line that stand in blocks and in sentences


def in_sentences(path):
    """`proxyd …` between backquotes; what is elided there is no command line."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    spans = [" ".join(each.split()) for each in re.findall(r"`(proxyd [^`]+)`", text)]
    return [each for each in spans if "…" not in each]


def typed():
    for path in pages():
        page = path.relative_to(ROOT).as_posix()
        if page in {*PLAYED_ELSEWHERE, "CHANGELOG.md"}:
            continue
        for block in blocks(path):
            if block.language == "sh":
                for line in commands(block.text):
                    for each in re.split(r"\s*(?:&&|\|\||[|;>])\s*", line):
                        if each.startswith("proxyd"):
                            yield page, each
        for each in in_sentences(path):
            yield page, each


@pytest.mark.parametrize(("page", "command"), sorted(set(typed())))
def test_the_command_line_knows_what_a_page_says(page, command):
    _, *words = shlex.split(command)
    if {"--help", "--version"} & {*words}:
        return
    words = ["7" if word == "ID" else word for word in words]
    if words and (words in [[each.name] for each in COMMANDS] or words[1:] in [[v] for v in VERBS]):
        return  # speaks of the command
    try:
        if words[:1] == ["certs"]:
            certificates.parser().parse_args(words[1:])
        else:
            build_parser(places_of({}, euid=0)).parse_args(words)
    except (Ended, SystemExit) as ended:
        pytest.fail(f"{page}: {command}: {ended}")


# ---- The test's own eyes


def test_blocks_are_found_with_their_marks():
    text = "## A\n```sh run as=ann\nx\ny\n```\n\n```text\nz\n```\nw\n```ini file=/a\n```\n"
    first, second, third = blocks_of("p.md", text)
    assert (first.section, first.runs, first.option("as"), first.text) == (
        "A",
        True,
        "ann",
        "x\ny\n",
    )
    assert (second.language, second.follows, second.line) == ("text", True, 7)
    assert (third.option("file"), third.follows, third.text) == ("/a", False, "")


def test_remarks_are_no_commands():
    assert commands("a -b   # c\n# d\ne \\\n  f\n") == ["a -b", "e    f"]
