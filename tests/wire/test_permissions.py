"""What calls need: by the table, compactly, and where their flags stand."""

import importlib.util
import sys
from pathlib import Path

import pytest

from proxyd.wire import permissions
from proxyd.wire.flags import SHAPES
from proxyd.wire.names import NAMES
from proxyd.wire.permissions import ALWAYS, SOMETIMES, Asked
from proxyd.wire.programs import Program
from tests.wire.table import TABLE, procedures

GENERATOR = Path(__file__).parents[2] / "script" / "generate_permissions.py"


@pytest.fixture(name="generator", scope="module")
def fixture_generator():
    spec = importlib.util.spec_from_file_location("generate_permissions", GENERATOR)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def number(name):
    return NAMES[Program.REMOTE].index(name)


def test_the_committed_file_is_what_the_generator_writes(generator):
    assert Path(permissions.__file__).read_text() == generator.render(generator.table(TABLE))


def test_there_is_an_entry_for_each_number_and_none_for_events():
    for each in procedures():
        if each.program not in ALWAYS:
            continue
        words = ALWAYS[each.program][each.number]
        assert (words is None) is (each.kind == "event"), each.name
    assert {program: len(calls) for program, calls in ALWAYS.items()} == {
        program: len(NAMES[program]) for program in ALWAYS
    }


@pytest.mark.parametrize(
    ("name", "always", "sometimes"),
    [
        ("CONNECT_CLOSE", (), ()),
        ("DOMAIN_CREATE", ("domain:start",), ()),
        ("DOMAIN_DEFINE_XML", ("domain:write", "domain:save"), ()),
        ("DOMAIN_REBOOT", ("domain:init_control",), (Asked("domain:write", 2),)),
        (
            "DOMAIN_GET_XML_DESC",
            ("domain:read",),
            (Asked("domain:read_secure", 1), Asked("domain:read_secure", 8)),
        ),
        (
            "DOMAIN_ATTACH_DEVICE_FLAGS",
            ("domain:write",),
            (Asked("domain:save", 3, unless=True), Asked("domain:save", 2)),
        ),
        ("DOMAIN_INTERFACE_ADDRESSES", ("domain:read",), (Asked("domain:write", 1),)),
    ],
)
def test_these_need(name, always, sometimes):
    assert ALWAYS[Program.REMOTE][number(name)] == always
    assert SOMETIMES[Program.REMOTE].get(number(name), ()) == sometimes


def test_of_each_call_whose_flags_matter_it_is_known_where_they_stand():
    assert SHAPES.keys() == SOMETIMES[Program.REMOTE].keys()
    assert all(shape.count("F") == 1 for shape in SHAPES.values())


def test_one_flag_of_a_kind_decides():
    """What the conditions of allowances can say: none of these bits, and one of those."""
    for asked in SOMETIMES[Program.REMOTE].values():
        assert sum(each.unless for each in asked) <= 1
        assert all(each.flags.bit_count() == 1 for each in asked if not each.unless)


def test_equal_entries_are_one_object():
    """453 entries, and less than 20 KiB."""
    every = [each for calls in ALWAYS.values() for each in calls if each is not None]
    assert len({id(each) for each in every}) == len(set(every))
    tables = sum(sys.getsizeof(calls) for calls in ALWAYS.values())
    assert tables + sum(sys.getsizeof(each) for each in set(every)) < 20 << 10
