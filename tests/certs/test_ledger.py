"""What a CA remembers, as a value and as a file."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.ledger import Ledger, Record, Revocation, as_json, from_json, spelled_serial
from proxyd.pki.fitness import Purpose

DAY = dt.timedelta(days=1)
NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
RECORD = Record(
    serial=0xABC,
    purpose=Purpose.CLIENT,
    subject="CN=joe",
    names=("joe",),
    begins=NOW,
    ends=NOW + DAY,
)

records = st.builds(
    Record,
    serial=st.integers(1, 2**159 - 1),
    purpose=st.sampled_from(Purpose),
    subject=st.text(),
    names=st.lists(st.text()).map(tuple),
    begins=st.datetimes(timezones=st.just(dt.UTC)),
    ends=st.datetimes(timezones=st.just(dt.UTC)),
    revocation=st.none()
    | st.builds(Revocation, st.datetimes(timezones=st.just(dt.UTC)), st.text()),
)


@given(st.builds(Ledger, st.integers(0), st.lists(records).map(tuple)))
def test_a_ledger_comes_back_from_its_file_as_it_was(ledger):
    assert from_json(as_json(ledger)) == ledger


@given(st.binary() | st.recursive(st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_bytes_are_a_ledger_or_a_value_error(content):
    with pytest.raises(ValueError):  # noqa: PT011 (the JSON parser's words are its own)
        from_json(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "its version is 2 and not 1"),
        ({"issued": 3}, "it is no ledger"),
        ({"issued": [{}]}, "it is no ledger"),
        ({"crl_number": "x"}, "invalid literal"),
    ],
)
def test_what_is_damaged_is_told(change, says):
    document = json.loads(as_json(Ledger(1, (RECORD,)))) | change
    with pytest.raises(ValueError, match=says):
        from_json(json.dumps(document).encode())


def test_a_date_without_a_time_zone_is_damage():
    content = as_json(Ledger(1, (RECORD,))).replace(b"+00:00", b"")
    with pytest.raises(ValueError, match="lacks its time zone"):
        from_json(content)


def test_a_record_takes_the_place_of_the_one_with_its_serial_number():
    revoked = Record(
        serial=RECORD.serial,
        purpose=RECORD.purpose,
        subject=RECORD.subject,
        names=RECORD.names,
        begins=RECORD.begins,
        ends=RECORD.ends,
        revocation=Revocation(NOW),
    )
    assert Ledger().with_records(RECORD).with_records(revoked).records == (revoked,)


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (NOW - DAY, "future"),
        (NOW, "valid"),
        (NOW + DAY, "valid"),
        (NOW + DAY + dt.timedelta(seconds=1), "expired"),
    ],
)
def test_both_ends_belong_to_the_time_of_a_certificate(now, state):
    assert RECORD.state(now) == state


@pytest.mark.parametrize(("serial", "spelled"), [(0xABC, "0abc"), (0x1A, "1a"), (0, "00")])
def test_a_serial_number_is_spelled_in_whole_bytes(serial, spelled):
    assert spelled_serial(serial) == spelled
