"""What docs/protocol/ says in tables and in bytes is what the code has."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest

from proxyd.config.routes import _CLIENT_SIDE, _DANGEROUS, _DRIVERS, PROBED_SESSION, PROBED_SYSTEM
from proxyd.config.settings import Settings
from proxyd.pki.dname import _KNOWN
from proxyd.wire.failure import Domain, ErrorCode
from proxyd.wire.frame import FrameType
from proxyd.wire.programs import STREAMS, Feature, Program
from tests.wire.table import TABLE
from tests.wire.worked import WORKED

PROTOCOL = Path(__file__).parent.parent / "docs" / "protocol"
HEXADECIMAL = re.compile(r"^ *((?:[0-9a-f]{8} )*[0-9a-f]{2,8})(?:  .*)?$", re.MULTILINE)


def page(name):
    return (PROTOCOL / name).read_text()


def rows(name):
    """The cells of all tables of a page."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page(name).splitlines()
        if line.startswith("|")
    ]


def named_numbers(name):
    """Number and name of the rows that begin with both."""
    return {
        (int(row[0]), row[1].split(" ")[0])
        for row in rows(name)
        if len(row) > 1 and row[0].isdecimal()
    }


@pytest.mark.parametrize("worked", WORKED, ids=str)
def test_a_worked_frame_has_these_bytes(worked):
    written = "".join(HEXADECIMAL.findall(page("worked-frames.md"))).replace(" ", "")
    assert worked.wire.hex() in written


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("frames.md", FrameType), ("errors.md", ErrorCode), ("opening.md", Feature)],
)
def test_numbers_have_these_names(name, numbers):
    assert {(number.value, number.name) for number in numbers} <= named_numbers(name)


def test_error_domains_have_these_numbers():
    assert all(f"{domain.value} {domain.name}" in page("errors.md") for domain in Domain)


def test_programs_have_these_numbers():
    said = {(row[0], row[1][:10]) for row in rows("frames.md")}
    assert {(each.name, f"{each.value:#010x}") for each in Program} <= said


def test_streams_are_opened_by_these_calls():
    with TABLE.open(newline="") as text:
        opening = {
            int(row["number"])
            for row in csv.DictReader(text, delimiter="\t")
            if row["stream"] != "-"
        }
    assert opening == {int(procedure) for procedure in STREAMS}


def test_drivers_have_these_daemons():
    said = {(row[0], row[1]) for row in rows("routing.md")}
    assert {(driver, f"virt{driver}d") for driver in _DRIVERS} <= said
    assert ", ".join(PROBED_SYSTEM) in page("routing.md")
    assert ", ".join(PROBED_SESSION) in page("routing.md")


def test_these_parameters_are_the_clients_own():
    assert {each for each in _CLIENT_SIDE | _DANGEROUS if each not in page("opening.md")} == set()


def test_every_key_of_libvirts_has_its_row():
    keys = {key for row in rows("configuration.md") for key in re.findall(r"\w+", row[0])}
    keys.add("admin_keepalive_count")  # in a row with its like
    libvirts = {
        field.name for field in dataclasses.fields(Settings) if not field.name.startswith("proxyd_")
    }
    assert libvirts <= keys


def test_attributes_of_a_subject_have_these_names():
    said = set(re.findall(r"[A-Za-z]{1,40}|[\d.]{10,}", page("tls.md")))
    united = re.compile(r"jurisdictionOfIncorporation(\w+)")
    assert {united.sub(r"\1", known.name) for known in _KNOWN.values()} <= said
