"""The names that figures and logs print are those of the table, and the committed file is fresh."""

import importlib.util
from pathlib import Path

import pytest

from proxyd.wire import names, programs
from proxyd.wire.names import NAMES, procedure_name
from proxyd.wire.programs import Program, Remote
from tests.wire.table import TABLE, procedures

GENERATOR = Path(__file__).parents[2] / "script" / "generate_names.py"


@pytest.fixture(name="generator")
def fixture_generator():
    spec = importlib.util.spec_from_file_location("generate_names", GENERATOR)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_file_is_what_the_generator_writes(generator):
    fresh = generator.render(*generator.table(TABLE))
    assert Path(names.__file__).read_text() == fresh


def test_a_table_with_a_gap_is_refused(generator, tmp_path):
    gap = tmp_path / "gap.tsv"
    gap.write_text(
        "program\tnumber\tname\tpriority\tstream\tkind\n"
        "REMOTE\t1\tONE\tlow\t-\tcall\nREMOTE\t3\tTHREE\tlow\t-\tcall\n"
    )
    with pytest.raises(ValueError, match="REMOTE 3 is out of order"):
        generator.table(gap)


def test_every_row_of_the_table_has_its_name():
    rows = procedures()
    assert [procedure_name(row.program, row.number) for row in rows] == [row.name for row in rows]


def test_there_are_no_names_beside_the_table():
    assert sum(len(listed) - 1 for listed in NAMES.values()) == len(procedures())


@pytest.mark.parametrize("number", Remote)
def test_a_procedure_that_code_refers_to_bears_the_name_of_the_table(number):
    assert procedure_name(Program.REMOTE, number) == number.name


@pytest.mark.parametrize(
    ("program", "procedure", "printed"),
    [
        (Program.REMOTE, 0, "0x20008086/0"),
        (Program.REMOTE, -1, "0x20008086/-1"),
        (Program.REMOTE, len(NAMES[Program.REMOTE]), "0x20008086/454"),
        (Program.KEEPALIVE, 1, "0x6b656570/1"),
        (0, 1, "0x0/1"),
        (0xFFFFFFFF, -(1 << 31), "0xffffffff/-2147483648"),
    ],
)
def test_a_procedure_that_nobody_knows_is_printed_as_numbers(program, procedure, printed):
    assert procedure_name(program, procedure) == printed


def test_the_numbers_of_programs_are_libvirts():
    assert {program.name: int(program) for program in Program} == {
        "REMOTE": 0x20008086,
        "QEMU": 0x20008087,
        "LXC": 0x00068000,
        "KEEPALIVE": 0x6B656570,
        "ADMIN": 0x06900690,
    }
    assert programs.VERSION == 1
