"""docs/rules.md: each of its files is in order, and decides about each client as its table says."""

import json
import re
import shlex
from itertools import pairwise

import pytest

from proxyd.cli.main import main
from proxyd.rules.grammar import parse_rules
from proxyd.rules.shadows import shadows
from tests.bed.blocks import ROOT, blocks

PAGE = ROOT / "docs" / "rules.md"
FILES = {
    block.section: block.text
    for block in blocks(PAGE)
    if block.option("file") == "/etc/libvirt/proxyd-rules.conf"
}
ROW = re.compile(r"^\| `(--[^`]*)` \| ([a-z-]+) \| (\d*) ?\|$")
TSV = ROOT / "docs" / "protocol" / "procedures.tsv"


def rows():
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        if found := ROW.match(line):
            yield section, found[1], found[2], found[3]


ROWS = list(rows())


def permissions():
    """All that libvirt's calls need, by the call."""
    table = [line.split("\t") for line in TSV.read_text().splitlines()[1:]]
    return {
        row[2]: {":".join(word.split(":")[:2]).lstrip("!") for word in row[6].split()}
        for row in table
        if row[0] == "REMOTE" and row[5] == "call"
    }


def test_five_houses_have_clients():
    houses = [section for section in FILES if section.startswith("House ")]
    assert len(houses) == 5
    assert {section for section, *_ in ROWS} == set(houses)


@pytest.mark.parametrize("section", FILES)
def test_a_file_has_no_faults_and_each_of_its_rules_can_decide(section):
    known = {word for words in permissions().values() for word in words}
    parsed = parse_rules(
        FILES[section], "r", unfit=lambda word: None if word in known else "no permission"
    )
    assert (parsed.faults, parsed.doubts) == ((), ())
    assert list(shadows(parsed.rules)) == []
    assert parsed.sets_in_use == parsed.sets.keys()
    told = {int(line) for house, _, _, line in ROWS if house == section and line}
    if section in {house for house, *_ in ROWS}:
        assert told >= {rule.line for rule in parsed.rules if rule.grant.name != "write"}


@pytest.mark.parametrize(("section", "options", "may", "line"), ROWS)
def test_a_client_may_do_what_the_page_says(section, options, may, line, tmp_path, capsys):
    file = tmp_path / "rules"
    file.write_text(FILES[section])
    status = main(["rules", "explain", str(file), "--json", *shlex.split(options)])
    said = json.loads(capsys.readouterr().out)
    assert said["allowed"] == (may != "nothing")
    assert status == (0 if said["allowed"] else 1)
    rule = said["rule"]
    assert (rule and (rule["name"], rule["line"])) == ((may, int(line)) if line else None)


def test_what_the_migration_set_allows_is_enough_for_a_migration():
    words = set(parse_rules(FILES["House 4: a migration user"], "r").sets["migrate"].words)
    needed = {
        word
        for call, asked in permissions().items()
        if call.startswith("DOMAIN_MIGRATE_")
        for word in asked
    }
    assert needed == words - {"read"}


def test_the_page_names_every_option_and_level():
    text = PAGE.read_text()
    for word in ("sessions=", "calls=", "idle=", "until=", "`deny`", "`read`", "`operate`"):
        assert word in text


def test_what_is_said_of_the_file_that_is_tried(tmp_path, capsys):
    """As tests/system/test_document_commands.py has it, on a host."""
    tried = [block for block in blocks(PAGE) if block.section == "Trying it"]
    file = next(block for block in tried if block.option("file"))
    path = tmp_path / "rules"
    path.write_text(file.text)
    shown = [
        (typed.text.split()[1:], wanted.text.replace(file.option("file"), str(path)))
        for typed, wanted in pairwise(tried)
        if typed.runs and wanted.language == "text"
    ]
    assert len(shown) == 2
    for (rules, verb, _, *options), wanted in shown:
        main([rules, verb, str(path), *options])
        assert capsys.readouterr() == (wanted, "")
