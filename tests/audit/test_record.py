"""A record as each output writes it; docs/audit.md has the fields that there are."""

import json
import re
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.audit.record import (
    FIELDS,
    LONGEST,
    Event,
    Record,
    Who,
    from_journal,
    journal_datagram,
    json_line,
    message,
    record_of,
)
from proxyd.relay.trail import Call, Outcome
from proxyd.wire.objects import KEPT, Named
from proxyd.wire.programs import Program

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
ROW = re.compile(
    r"^\| `(?P<name>[a-z_]+)` \| (?P<kind>[a-z]+) \| (?P<meaning>.*) \|$", re.MULTILINE
)
UUID = uuid.UUID(int=77)

FRED = Who(
    {
        "session": 7,
        "listener": "libvirt-sock",
        "uid": 1000,
        "user": "fred",
        "pid": 42,
        "readonly": False,
        "uri": "qemu:///system",
        "daemon": "virtqemud",
        "sasl_user": None,
    }
)
DESTROY = Call(
    FRED,
    Program.REMOTE,
    12,
    3,
    Named("domain", b"gu\nest", UUID.bytes),
    5_000_000_000,
    5_250_000_000,
    Outcome.OK,
)


def test_a_call_is_a_record_at_the_time_at_which_it_was_made():
    fields = record_of(DESTROY, now=1_000_000.0, now_ns=6_000_000_000).fields
    assert fields == {
        "time": "1970-01-12T13:46:39.000000+00:00",
        "event": "call",
        "session": 7,
        "listener": "libvirt-sock",
        "uid": 1000,
        "user": "fred",
        "pid": 42,
        "readonly": False,
        "uri": "qemu:///system",
        "daemon": "virtqemud",
        "procedure": "DOMAIN_DESTROY",
        "serial": 3,
        "object": "domain",
        "name": "gu\\nest",
        "uuid": str(UUID),
        "outcome": "ok",
        "seconds": 0.25,
    }


def test_a_record_in_words_says_what_who_and_how_it_went():
    fields = record_of(DESTROY, now=1.0, now_ns=6_000_000_000).fields
    assert message(fields) == "call DOMAIN_DESTROY gu\\nest ok by fred (session 7)"


def hostile(text):
    """A record whose every text is this."""
    apart = {"time", "event", "reason"}
    values = {name: text for name, field in FIELDS.items() if field.longest and name not in apart}
    return Record(0.0, Event.DENIED, Who(values), {"reason": text, "session": 2**63, "lost": 1})


@pytest.mark.parametrize(
    "text", ["\n" * 65536, "\\" * 65536, '"' * 65536, "\U0001f600" * 65536, "\udcff\x1b" * 999]
)
def test_the_longest_record_is_one_line_that_syslog_takes(text):
    line = json_line(hostile(text))
    assert len(line) + len("<85>Nov 29 12:00:00 proxyd: ") <= LONGEST + 1
    assert line.count(b"\n") == 1
    assert json.loads(line)["session"] == 2**63


@given(st.text(max_size=2000))
def test_whatever_a_client_chose_no_line_of_its_own_comes_of_it(text):
    record = hostile(text)
    assert json_line(record).count(b"\n") == 1
    assert json.loads(json_line(record)) == record.fields
    # In the journal's first form a field is a line.
    datagram = journal_datagram(record)
    lines = datagram.decode().splitlines()
    assert datagram.count(b"\n") == len(lines)
    assert all(re.match(r"[A-Z_]+=", line) for line in lines)
    entry = dict(line.split("=", 1) for line in lines)
    assert from_journal(entry) == record.fields


@given(st.binary(max_size=KEPT + 1), st.binary(max_size=KEPT + 1))
def test_any_name_of_an_object_is_recorded(name, parent):
    about = Named("snapshot", name, b"", parent, UUID.bytes)
    record = record_of(DESTROY._replace(about=about), now=9.0, now_ns=9_000_000_000)
    read = json.loads(json_line(record))
    assert read == record.fields
    assert read["parent_uuid"] == str(UUID)
    assert ("name" in read, "parent" in read) == (bool(name), bool(parent))


def test_the_page_has_every_field_with_its_kind_and_meaning():
    rows = [(row["name"], row["kind"], row["meaning"]) for row in ROW.finditer(PAGE.read_text())]
    assert rows == [(name, field.kind, field.meaning) for name, field in FIELDS.items()]


def test_the_page_has_every_event():
    text = PAGE.read_text()
    assert [each.value for each in Event if f"* `{each.value}`" not in text] == []
