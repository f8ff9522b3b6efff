"""What counts as a change, and what calls name: by the rule, out of the table."""

import importlib.util
from pathlib import Path

import pytest

from proxyd.wire import changes
from proxyd.wire.changes import CHANGES, NAMED
from proxyd.wire.names import NAMES
from proxyd.wire.objects import Where
from proxyd.wire.programs import Program
from tests.wire.table import TABLE

GENERATOR = Path(__file__).parents[2] / "script" / "generate_changes.py"


@pytest.fixture(name="generator", scope="module")
def fixture_generator():
    spec = importlib.util.spec_from_file_location("generate_changes", GENERATOR)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def number(name):
    return NAMES[Program.REMOTE].index(name)


def test_the_committed_file_is_what_the_generator_writes(generator):
    assert Path(changes.__file__).read_text() == generator.render(generator.table(TABLE))


def test_a_call_is_a_change_exactly_if_it_always_needs_more_than_reading(generator):
    for row in generator.table(TABLE):
        if row["program"] not in generator.PROGRAMS:
            continue
        always = [each for each in row["permissions"].split() if each.count(":") == 1]
        words = {each.partition(":")[2] for each in always}
        reading = {each for each in words if each in {"read", "getattr"} or "search" in each}
        expected = bool(words - reading) or row["name"] == "DOMAIN_SET_SCHEDULER_PARAMETERS"
        found = int(row["number"]) in CHANGES[Program[row["program"]]]
        assert found is expected, row["name"]


@pytest.mark.parametrize(
    "name",
    [
        "DOMAIN_CREATE",
        "DOMAIN_DESTROY",
        "DOMAIN_DEFINE_XML_FLAGS",
        "DOMAIN_MIGRATE_PERFORM3_PARAMS",
        "DOMAIN_SET_SCHEDULER_PARAMETERS",
        "STORAGE_VOL_DOWNLOAD",
        "SECRET_GET_VALUE",
        "NODE_DEVICE_DETACH_FLAGS",
        "CONNECT_SET_IDENTITY",
        "INTERFACE_CHANGE_COMMIT",
    ],
)
def test_these_are_changes(name):
    assert number(name) in CHANGES[Program.REMOTE]


@pytest.mark.parametrize(
    "name",
    [
        "CONNECT_OPEN",
        "CONNECT_CLOSE",
        "DOMAIN_GET_XML_DESC",
        "DOMAIN_GET_INFO",
        "CONNECT_LIST_ALL_DOMAINS",
        "CONNECT_GET_ALL_DOMAIN_STATS",
        "STORAGE_POOL_LIST_ALL_VOLUMES",
        "AUTH_SASL_STEP",
    ],
)
def test_these_are_none(name):
    assert number(name) not in CHANGES[Program.REMOTE]


def test_what_is_made_from_a_description_is_named_by_the_reply():
    assert NAMED[Program.REMOTE][number("DOMAIN_DEFINE_XML")] == ("domain", Where.REPLY)
    assert NAMED[Program.REMOTE][number("DOMAIN_DESTROY")] == ("domain", Where.ARGUMENT)
    assert NAMED[Program.REMOTE][number("NODE_DEVICE_DESTROY")] == ("node_device", Where.NAME)
    assert number("DOMAIN_RESTORE") not in NAMED[Program.REMOTE]
