"""Records that nobody waits for: written in order, kept through trouble, counted when lost."""

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing, contextmanager

import pytest

from proxyd.audit.outputs import AuditOutputError, AuditPlaces, FileOutput
from proxyd.audit.record import MESSAGE_ID, Event, Who
from proxyd.audit.writer import Audit
from proxyd.config.auditing import AuditOutput
from proxyd.relay.trail import Call, Outcome
from proxyd.wire.objects import Named
from proxyd.wire.programs import Program
from tests.bed.waiting import wait_until

SCOPES = ("sessions", "changes")


def call(serial, *, procedure=12, name=b"guest"):
    now = time.monotonic_ns()
    who = Who({"session": 1, "user": "fred"})
    return Call(who, Program.REMOTE, procedure, serial, Named("domain", name), now, now, Outcome.OK)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


@contextmanager
def auditing(output, *, asked=SCOPES, required=False, places=None, **options):
    audit = Audit(places=places, retry_s=0.05, **options)
    try:
        opened = audit.opened(output) if asked else None
        audit.put_in_force(asked, output, opened, required=required)
        yield audit
    finally:
        assert audit.close(5)


def to(path):
    return AuditOutput("file", str(path))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def serials(path):
    return [each["serial"] for each in read(path) if each["event"] == "call"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_records_are_written_in_order_between_the_start_and_the_end(path):
    with auditing(to(path)) as audit:
        for serial in range(1000):
            audit.put_call(call(serial))
    assert serials(path) == list(range(1000))
    assert [each["event"] for each in read(path) if each["event"] != "call"] == [
        "started",
        "stopped",
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_recorded_where_nothing_is_asked_for(path):
    with auditing(to(path), asked=()) as audit:
        audit.put(Event.OPENED)
        assert audit.trail(Who({})) is None
    assert not path.exists()


def test_calls_are_recorded_where_they_are_asked_for(path):
    with auditing(to(path), asked=("sessions",)) as audit:
        assert audit.trail(Who({})) is None
        audit.put_in_force(("all",), to(path), audit.opened(to(path)), required=False)
        assert 6 in audit.trail(Who({})).procedures
        audit.put_in_force(("changes",), to(path), audit.opened(to(path)), required=False)
        assert 6 not in audit.trail(Who({})).procedures


@pytest.mark.parametrize("reopens", [True, False])
def test_no_record_is_lost_while_the_file_is_rotated_under_load(path, reopens):
    """By renaming it, with a reload behind it or without one."""
    most, rotated, pause = 30_000, [], threading.Event()
    with auditing(to(path)) as audit:

        def rotate():
            while thread.is_alive():
                pause.wait(0.02)
                if path.exists():
                    rotated.append(path.with_name(f"audit.log.{len(rotated)}"))
                    path.rename(rotated[-1])
                    if reopens:
                        audit.put_in_force(SCOPES, to(path), audit.opened(to(path)), required=False)

        def record():
            for serial in range(most):
                audit.put_call(call(serial))
                if not serial % 100:
                    pause.wait(0.002)

        thread = threading.Thread(target=record)
        thread.start()
        rotate()
    assert len(rotated) > 3
    found = [serial for each in [*rotated, path] if each.exists() for serial in serials(each)]
    assert found == list(range(most))


def test_a_full_disk_loses_nothing_as_long_as_the_queue_has_room(small_disk, caplog):
    path, filler = small_disk / "audit.log", small_disk / "filler"
    filler.write_bytes(bytes(40_000))
    with auditing(to(path), required=True) as audit:
        assert not audit.refuses
        for serial in range(250):
            audit.put_call(call(serial))
        wait_until(lambda: audit.trouble, 5, "the disk is full")
        assert "No space left on device" in audit.trouble
        assert "no change is let pass" in audit.trouble
        assert audit.refuses
        filler.unlink()
        wait_until(lambda: not audit.trouble, 5, "there is room again")
        assert not audit.refuses
    assert serials(path) == list(range(250))
    said = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert "No space left on device" in said[0]
    assert "are written to file:" in said[1]


def test_what_the_queue_has_no_room_for_is_counted_and_told(small_disk):
    path, filler = small_disk / "audit.log", small_disk / "filler"
    with auditing(to(path), queue_limit=100, required=True) as audit:
        wait_until(lambda: audit.written == 1, 5, "the first one is written")
        filler.write_bytes(bytes(61440))
        for serial in range(300):
            audit.put_call(call(serial))
        wait_until(lambda: audit.refuses, 5, "changes are refused")
        assert audit.lost >= 200
        lost = audit.lost
        filler.unlink()
        wait_until(lambda: not audit.refuses, 5, "they pass again")
    gaps = [each for each in read(path) if each["event"] == "gap"]
    assert sum(each["lost"] for each in gaps) == lost
    assert len(serials(path)) == 300 - lost


def test_reads_make_way_for_changes(path):
    audit = Audit(queue_limit=100)  # nobody writes
    for serial in range(100):
        audit.put_call(call(serial, procedure=6))
    assert audit.lost == 50
    for serial in range(50):
        audit.put_call(call(serial))
    assert audit.lost == 50
    audit.put_call(call(99))
    assert audit.lost == 51


def test_a_file_that_cannot_be_opened_is_said_and_changes_nothing(path):
    with auditing(to(path)) as audit:
        with pytest.raises(AuditOutputError, match="make the directory /no/such"):
            audit.opened(AuditOutput("file", "/no/such/file"))
        audit.put_call(call(5))
    assert serials(path) == [5]


def test_a_half_line_is_taken_back(path):
    path.write_text("")
    with closing(FileOutput(str(path))) as output:
        pid = os.fork()
        if not pid:  # a limit of the process, and a signal that would end it
            import resource  # noqa: PLC0415

            from proxyd.audit.writer import record_of  # noqa: PLC0415

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            one = record_of(call(1), now=1.0, now_ns=1)
            output.write([one])
            size = path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
            try:
                output.write([one])
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
    assert serials(path) == [1]
    assert path.read_bytes().endswith(b"}\n")


def test_the_journal_gets_a_field_for_each_value_and_is_found_again(tmp_path):
    journal = tmp_path / "journal"
    with auditing(
        AuditOutput("journald"), required=True, places=AuditPlaces(journal=str(journal))
    ) as audit:
        audit.put_call(call(5, name=b"gu\nest"))
        wait_until(lambda: audit.refuses, 5, "there is no journal")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(str(journal))
            listening.settimeout(5)
            assert b"PROXYD_EVENT=started\n" in listening.recv(9999)
            datagram = listening.recv(9999)
            wait_until(lambda: not audit.refuses, 5, "there is one again")
            fields = datagram.split(b"\n")
            assert b"PROXYD_NAME=gu\\nest" in fields
            assert b"PROXYD_PROCEDURE=DOMAIN_DESTROY" in fields
            assert f"MESSAGE_ID={MESSAGE_ID}".encode() in fields
            audit.close(5)


def test_syslog_gets_a_line_of_json(tmp_path):
    place = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place))
        listening.settimeout(5)
        with auditing(AuditOutput("syslog", "proxyd"), places=AuditPlaces(syslog=str(place))):
            line = listening.recv(9999).decode()
    assert line.startswith("<86>")
    assert json.loads(line[line.index("{") :])["event"] == "started"


def test_a_flood_of_strangers_does_not_fill_the_disk(path):
    with auditing(to(path)) as audit:
        for _ in range(20_000):
            audit.denied(Who({"address": "192.0.2.1"}), "its certificate has expired")
        wait_until(lambda: audit.written > 1, 5, "they are written")
        wait_until(lambda: not audit._waiting, 5, "all of them")
        audit.put(Event.RELOAD)
    found = read(path)
    denied = sum(each["event"] == "session_denied" for each in found)
    assert 10_000 <= denied < 12_000
    assert denied + sum(each.get("lost", 0) for each in found) == 20_000
