"""What is installed does not start, or is no daemon at all: the one that runs goes on."""

import shutil
import socket
import sys
import sysconfig
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.daemon import conf_text
from tests.bed.releases import Host

REPOSITORY = Path(__file__).parents[2]
SAYS = """
import os, socket
socket.socket(fileno=int(os.environ["PROXYD_HANDOVER_FD"])).send({!r})
raise SystemExit("it has spoken")
"""
# What is installed as `python -m proxyd`, and what is told of it.
PROGRAMS = {
    "def main(:": "SyntaxError: ",
    "import proxyd.nothing_of_this_name": "No module named 'proxyd.nothing_of_this_name'",
    "raise SystemExit('cannot start: the moon is full')": "the moon is full (exit status 1)",
    "import os; os.abort()": "it ended with signal 6 and gave no reason",
    "": "it ended with exit status 0 and gave no reason",
    SAYS.format(b"hello"): "that is no message: it has spoken",
    SAYS.format(b"prxd" + bytes(14)): "a message is no JSON: ",
    SAYS.format(b"prxd" + b"\xff" * 14): "a message of ",
}


@pytest.fixture
def host():
    with ExitStack() as stack:
        yield Host(stack, REPOSITORY)


@pytest.mark.parametrize(("program", "told"), PROGRAMS.items(), ids=range(len(PROGRAMS)))
def test_a_program_that_does_not_start_is_told_of(host, tmp_path, program, told):
    shutil.copytree(REPOSITORY / "proxyd", tmp_path / "proxyd")
    (tmp_path / "proxyd/__main__.py").write_text(program)
    host.install(tmp_path)
    said = host.refuses()
    assert f"process {host.front.pid} goes on to serve: " in said
    assert told in said
    assert len(said.splitlines()) == 1
    host.install(REPOSITORY)
    host.front.upgrade()
    assert host.sessions.go_on() == []


def test_a_configuration_with_a_fault_is_told_of(host):
    before = host.proxyd.conf.read_text()
    host.proxyd.conf.write_text(before + 'max_clients = "many"\n')
    said = host.refuses()
    assert "max_clients" in said
    assert str(host.proxyd.conf) in said
    host.proxyd.conf.write_text(before)
    host.front.upgrade()
    assert host.sessions.go_on() == []


def test_a_port_that_somebody_has_is_told_of(host):
    before = host.proxyd.conf.read_text()
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        more = {
            "listen_tcp": 1,
            "auth_tcp": "none",
            "listen_addr": "127.0.0.1",
            "tcp_port": str(port),
            "proxyd_strict_start": 1,
            "unix_sock_rw_perms": "0751",
        }
        mode = host.proxyd.sock.stat().st_mode
        host.proxyd.conf.write_text(before + conf_text(more))
        said = host.refuses()
        assert f"127.0.0.1:{port} is in use by pid " in said
        assert host.proxyd.sock.stat().st_mode == mode
    host.front.upgrade()
    assert host.proxyd.sock.stat().st_mode & 0o777 == 0o751
    assert host.sessions.go_on() == []


def test_a_python_that_is_gone_is_told_of(tmp_path, monkeypatch):
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    site = sysconfig.get_path("purelib")
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(python))
            host = Host(stack, REPOSITORY, also=[site])
        python.unlink()
        said = host.refuses()
        assert f"the program cannot be started: {python}: No such file or directory" in said
        python.symlink_to(sys.executable)
        host.front.upgrade()
        assert host.sessions.go_on() == []
