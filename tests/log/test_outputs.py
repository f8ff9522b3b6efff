import os
import resource
import select
import signal
import socket
import stat

import pytest

from proxyd.config.logstrings import LogLevel, LogOutput
from proxyd.log import outputs
from proxyd.log.line import LogEntry
from proxyd.log.outputs import (
    FileOutput,
    LogOutputError,
    LogPlaces,
    StderrOutput,
    SyslogOutput,
    open_output,
)


def entry(text="hello", level=LogLevel.INFO, **more):
    return LogEntry(when=0.0, tid=11, level=level, category="rpc.x", text=text, **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "daemon.log"


@pytest.fixture
def file_output(path):
    opened = FileOutput(str(path))
    yield opened
    opened.close()


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def quick_stall(monkeypatch):
    monkeypatch.setattr(outputs, "STALL_S", 0.02)


def test_a_log_file_is_made_for_its_owner_alone(file_output, path):
    file_output.write(entry())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "1970-01-01 00:00:00.000+0000: 11: info : hello\n"


def test_what_is_in_a_log_file_stays(path):
    path.write_text("before\n")
    opened = FileOutput(str(path))
    opened.write(entry())
    opened.close()
    assert path.read_text().startswith("before\n1970")


def test_a_log_file_is_not_inherited(file_output, path):
    fds = [int(name) for name in os.listdir("/proc/self/fd")]
    ours = [fd for fd in fds if os.path.realpath(f"/proc/self/fd/{fd}") == str(path)]
    assert ours
    assert not any(os.get_inheritable(fd) for fd in ours)


@pytest.mark.parametrize("happens", ["moved", "replaced", "removed"])
def test_after_rotation_messages_go_to_a_new_file(file_output, path, happens):
    file_output.write(entry("old"))
    if happens == "removed":
        path.unlink()
    else:
        path.rename(path.with_suffix(".1"))
    if happens == "replaced":
        path.touch(0o600)
    descriptors = len(os.listdir("/proc/self/fd"))
    file_output.write(entry("new"))
    assert path.read_text().endswith(": new\n")
    assert "old" not in path.read_text()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_log_file_without_its_directory_is_an_error_until_it_is_back(tmp_path):
    directory = tmp_path / "logs"
    directory.mkdir()
    opened = FileOutput(str(directory / "x"))
    directory.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        opened.write(entry("lost"))
    directory.mkdir()
    opened.write(entry("back"))
    opened.close()
    assert (directory / "x").read_text().endswith(": back\n")


def test_a_relative_path_means_where_the_daemon_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = FileOutput("x.log")
    monkeypatch.chdir("/")
    opened.write(entry())
    opened.close()
    assert opened.name == f"file:{tmp_path}/x.log"
    assert (tmp_path / "x.log").exists()


def test_a_file_that_cannot_be_opened_says_which_and_what_to_do(tmp_path):
    with pytest.raises(LogOutputError, match=r"absent/x: No such file.*make its directory"):
        FileOutput(str(tmp_path / "absent" / "x"))


def test_a_named_pipe_without_a_reader_is_an_error_and_no_hang(path):
    os.mkfifo(path)
    with pytest.raises(LogOutputError, match="No such device"):
        FileOutput(str(path))


def test_a_full_disk_is_an_error_and_half_a_line_stays_alone(file_output, path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file_output.write(entry("half"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    file_output.write(entry("whole"))
    assert path.read_text() == (
        "1970-01-01 00:00:00.\n1970-01-01 00:00:00.000+0000: 11: info : whole\n"
    )


def test_stderr_gets_the_line_and_stays_open(pipe):
    reader, writer = pipe
    opened = StderrOutput(writer)
    opened.write(entry())
    opened.close()
    assert os.read(reader, 100) == b"1970-01-01 00:00:00.000+0000: 11: info : hello\n"
    os.fstat(writer)


def test_a_stderr_that_nobody_reads_is_an_error_and_no_hang(pipe, quick_stall):
    opened = StderrOutput(pipe[1])
    with pytest.raises(TimeoutError, match="nobody reads"):
        opened.write(entry("x" * (1 << 20)))


def test_a_stderr_that_is_read_again_begins_a_new_line(pipe, quick_stall):
    reader, writer = pipe
    opened = StderrOutput(writer)
    with pytest.raises(TimeoutError):
        opened.write(entry("x" * (1 << 20)))
    while select.select([reader], [], [], 0)[0]:
        os.read(reader, 1 << 16)
    opened.write(entry())
    assert os.read(reader, 100).startswith(b"\n1970")


def test_a_stderr_without_a_reader_is_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        StderrOutput(writer).write(entry())
    os.close(writer)


@pytest.fixture
def dev_log(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as fake:
        fake.bind(str(tmp_path / "log"))
        fake.settimeout(5)
        yield fake


@pytest.fixture
def syslog(dev_log):
    opened = SyslogOutput("virtproxyd", dev_log.getsockname())
    yield opened
    opened.close()


@pytest.mark.parametrize(("level", "number"), [(1, 31), (2, 30), (3, 28), (4, 27)])
def test_syslog_gets_facility_severity_ident_and_text(dev_log, syslog, level, number):
    syslog.write(entry(level=LogLevel(level), function="run", line=7))
    datagram = dev_log.recv(1000).decode()
    word = LogLevel(level).name.lower()
    assert datagram.startswith(f"<{number}>Jan ")
    assert datagram.endswith(f" virtproxyd: 11: {word} : run:7 : hello")


def test_syslog_gets_a_stack_line_by_line(dev_log, syslog):
    syslog.write(entry(stack="Stack:\n  here"))
    texts = [dev_log.recv(1000).decode().partition("info : ")[2] for _ in range(3)]
    assert texts == ["hello", "    Stack:", "      here"]


def test_syslog_gets_a_long_message_cut_between_characters(dev_log, syslog):
    syslog.write(entry("ä" * 10_000))
    datagram = dev_log.recv(1 << 17)
    assert 8185 < len(datagram) <= 8192
    assert datagram.decode().endswith("ä…")


def test_a_syslog_that_is_not_there_is_an_error_only_when_written_to(tmp_path):
    opened = SyslogOutput("x", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError):
        opened.write(entry())
    opened.close()


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (LogOutput(1, "stderr"), "stderr"),
        (LogOutput(1, "journald"), "journald"),
        (LogOutput(1, "syslog", "me"), "syslog:me"),
        (LogOutput(1, "file", "/dev/null"), "file:/dev/null"),
    ],
)
def test_every_kind_of_output_can_be_opened(asked, name):
    opened = open_output(asked, LogPlaces())
    assert opened.name == name
    opened.close()
