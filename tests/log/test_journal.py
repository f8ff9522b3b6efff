import array
import fcntl
import os
import socket
import struct

import pytest

from proxyd.config.logstrings import LogLevel
from proxyd.log.journal import (
    JournalOutput,
    encoded_field,
    journal_is_available,
    priority_of_error,
)
from proxyd.log.line import LogEntry


class Journald:
    """A journald that takes the protocol apart again, as the real one does."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(5)
        self.seals = None

    def message(self):
        data, ancillary, _, _ = self.socket.recvmsg(1 << 18, socket.CMSG_SPACE(4))
        for _, _, passed in ancillary:
            (memory,) = array.array("i", passed)
            self.seals = fcntl.fcntl(memory, fcntl.F_GET_SEALS)
            with os.fdopen(memory, "rb") as file:
                file.seek(0)
                data = file.read()
        return dict(self.fields(data))

    def fields(self, data):
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack("<Q", data[:8])
                value, end, data = data[8 : 8 + length], data[8 + length], data[9 + length :]
                assert end == ord("\n")
            yield name.decode(), value.decode()


@pytest.fixture
def journald(tmp_path):
    fake = Journald(tmp_path / "socket")
    yield fake
    fake.socket.close()


@pytest.fixture
def output(journald):
    opened = JournalOutput(journald.path, stall_s=0.05)
    yield opened
    opened.close()


def entry(text="hello", level=LogLevel.INFO, **more):
    place = {"function": "run", "file": "/src/x.py", "line": 7} | more
    return LogEntry(when=0.0, tid=11, level=level, category="rpc.x", text=text, **place)


def test_a_message_arrives_with_its_fields(journald, output):
    output.write(entry())
    assert journald.message() == {
        "MESSAGE": "hello",
        "PRIORITY": "6",
        "SYSLOG_FACILITY": "3",
        "SYSLOG_IDENTIFIER": "proxyd",
        "TID": "11",
        "LIBVIRT_SOURCE": "rpc.x",
        "CODE_FILE": "/src/x.py",
        "CODE_LINE": "7",
        "CODE_FUNC": "run",
    }


@pytest.mark.parametrize(("level", "number"), [(1, "7"), (2, "6"), (3, "4"), (4, "3")])
def test_levels_become_severities(journald, output, level, number):
    output.write(entry(level=LogLevel(level)))
    assert journald.message()["PRIORITY"] == number


def test_an_error_carries_its_libvirt_numbers(journald, output):
    output.write(entry(level=LogLevel.ERROR, libvirt_domain=7, libvirt_code=38))
    message = journald.message()
    assert (message["LIBVIRT_DOMAIN"], message["LIBVIRT_CODE"]) == ("7", "38")


def test_only_an_error_carries_libvirt_numbers(journald, output):
    output.write(entry(level=LogLevel.WARNING, libvirt_domain=7, libvirt_code=38))
    assert not {"LIBVIRT_DOMAIN", "LIBVIRT_CODE"} & journald.message().keys()


def test_a_message_without_a_function_names_no_place(journald, output):
    output.write(entry(function=None))
    assert not any(name.startswith("CODE_") for name in journald.message())


def test_a_peer_cannot_add_a_field(journald, output):
    output.write(entry("x\nPRIORITY=0\n"))
    message = journald.message()
    assert message["MESSAGE"] == "x\\nPRIORITY=0\\n"
    assert message["PRIORITY"] == "6"


def test_a_value_with_a_line_feed_is_sent_with_its_length():
    assert encoded_field("A", "x\ny") == b"A\n\x03\0\0\0\0\0\0\0x\ny\n"
    assert encoded_field("A", "xy") == b"A=xy\n"


def test_a_message_with_a_stack_is_one_message(journald, output):
    output.write(entry(stack="Stack:\n  here"))
    assert journald.message()["MESSAGE"] == "hello\n    Stack:\n      here"


def test_a_name_that_is_no_utf8_is_still_logged(journald, output):
    output.write(entry("file \udcff"))
    assert journald.message()["MESSAGE"] == "file \\udcff"


def test_a_message_too_big_for_a_datagram_comes_in_sealed_memory(journald, output):
    descriptors = len(os.listdir("/proc/self/fd"))
    text = "x" * (1 << 20)
    output.write(entry(text))
    assert journald.message()["MESSAGE"] == text
    every_seal = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert journald.seals == every_seal
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_journald_that_does_not_read_is_an_error_and_no_hang(output):
    def write_until_its_queue_is_full():
        while True:
            output.write(entry())

    with pytest.raises(BlockingIOError):
        write_until_its_queue_is_full()


def test_a_restarted_journald_is_found_again(journald, output, tmp_path):
    output.write(entry("before"))
    os.unlink(journald.path)
    with pytest.raises(FileNotFoundError):
        output.write(entry("lost"))
    again = Journald(tmp_path / "socket")
    output.write(entry("after"))
    assert again.message()["MESSAGE"] == "after"
    again.socket.close()


def test_the_journal_is_available_when_its_socket_is_there(journald, tmp_path):
    assert journal_is_available(journald.path)
    assert not journal_is_available(str(tmp_path / "absent"))


def test_a_line_for_the_journal_says_that_it_is_an_error(tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert priority_of_error(stream.fileno()) == "<3>"
        with (tmp_path / "other").open("w") as other:
            assert priority_of_error(other.fileno()) == ""
        monkeypatch.delenv("JOURNAL_STREAM")
        assert priority_of_error(stream.fileno()) == ""
    assert priority_of_error(-1) == ""
