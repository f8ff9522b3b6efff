"""Records read back: from files that were rotated, filtered, and while they are written."""

import gzip
import json
import os
import threading
from datetime import datetime

import pytest

from proxyd.audit.reading import Unreadable, Wanted, at, moment, of_file
from tests.bed.waiting import wait_until

NOW = datetime(2026, 11, 29, 12, 30).astimezone().timestamp()


def record(number, **more):
    time = datetime.fromtimestamp(NOW + number).astimezone().isoformat()
    return {"time": time, "event": "call", "serial": number, **more}


def write(path, *records, opened=open):
    with opened(path, "wb") as file:
        file.write(b"".join(json.dumps(each).encode() + b"\n" for each in records))


def serials(path, since=None):
    return [each["serial"] for each in of_file(str(path), since=since, follow=False)]


def test_files_that_were_rotated_away_come_first_the_oldest_in_front(tmp_path):
    path = tmp_path / "audit.log"
    write(path, record(3))
    write(tmp_path / "audit.log.1", record(2))
    write(tmp_path / "audit.log.2.gz", record(1), opened=gzip.open)
    write(tmp_path / "audit.log.bak", record(9))
    for age, name in enumerate(("audit.log.2.gz", "audit.log.1", "audit.log")):
        os.utime(tmp_path / name, (NOW + age, NOW + age))
    assert serials(path) == [1, 2, 3]
    assert serials(path, since=NOW + 1) == [2, 3]


def test_half_a_line_and_nonsense_are_passed_over(tmp_path):
    path = tmp_path / "audit.log"
    write(path, record(1))
    with path.open("ab") as file:
        file.write(b'{"time":"20\n\xff\xfe\n[]\n' + b"x" * 50_000 + b"\n")
        file.write(json.dumps(record(2)).encode() + b"\n")
    assert serials(path) == [1, 2]


def test_a_file_that_may_not_be_read_is_said(tmp_path):
    with pytest.raises(Unreadable, match="cannot read"):
        serials(tmp_path)


def test_what_follows_is_read_also_when_the_file_is_begun_anew(tmp_path):
    path = tmp_path / "audit.log"
    write(path, record(1))
    found, three = [], threading.Event()

    def follow():
        for each in of_file(str(path), since=None, follow=True):
            found.append(each["serial"])
            if len(found) == 3:
                three.set()
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    wait_until(lambda: found, 10, "the first one is read")
    with path.open("ab") as file:
        file.write(json.dumps(record(2)).encode() + b"\n")
    path.rename(tmp_path / "moved")
    write(path, record(3))
    assert three.wait(10)
    assert found == [1, 2, 3]
    thread.join()


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        ({}, True),
        ({"user": "fred"}, True),
        ({"user": "fr*"}, True),
        ({"user": "1000"}, True),
        ({"user": "fre"}, False),
        ({"obj": "web?"}, True),
        ({"obj": "pool"}, True),
        ({"obj": "fred"}, False),
        ({"daemon": "virtqemud"}, True),
        ({"event": "call"}, True),
        ({"event": "DOMAIN_*"}, True),
        ({"since": NOW}, True),
        ({"until": NOW}, False),
        ({"since": NOW + 1}, False),
        ({"user": "fred", "obj": "other"}, False),
    ],
)
def test_filters_are_taken_together(wanted, admitted):
    fields = record(
        0,
        user="fred",
        uid=1000,
        name="web1",
        parent="pool",
        daemon="virtqemud",
        procedure="DOMAIN_DESTROY",
    )
    assert Wanted(**wanted).admits(fields) is admitted


def test_an_object_is_asked_for_as_it_is_called():
    assert Wanted(obj="a\nb\\").admits(record(0, name="a\\nb\\\\"))


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-11-29 12:00", NOW - 1800),
        ("2026-11-29T12:00:00", NOW - 1800),
        ("2026-11-29", NOW - 45000),
        ("12:00", NOW - 1800),
        ("9:30", NOW - 10800),
        ("today", NOW - 45000),
        ("yesterday", NOW - 45000 - 86400),
        ("now", NOW),
        ("90s", NOW - 90),
        ("15m", NOW - 900),
        ("2h", NOW - 7200),
        ("3d", NOW - 3 * 86400),
        ("1w", NOW - 7 * 86400),
    ],
)
def test_times_may_be_said_in_many_ways(text, when):
    assert moment(text, NOW) == when


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01", "h", "1y", "٣d"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 (any words)
        moment(text, NOW)


def test_a_record_without_a_time_is_as_old_as_can_be():
    assert at({}) == at({"time": "nonsense"}) == 0.0
