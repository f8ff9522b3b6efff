"""A proxyd with thousands of sessions."""

import resource
import socket
import sys
from contextlib import ExitStack, contextmanager

import pytest

from proxyd.wire import remote
from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.command import held_open
from tests.bed.daemon import accepts, short_directory
from tests.bed.waiting import wait_until

URI = "test:///default"


@pytest.fixture
def room():
    """Descriptors for both ends of everything."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def front(room, make_proxyd):
    """A proxyd before a daemon that thousands do not slow down."""
    with short_directory() as directory:
        path = directory / "prompt"
        command = [sys.executable, "-m", "tests.fakes.prompt_daemon", str(path)]
        with held_open(command):
            wait_until(lambda: path.exists() and accepts(path), 10, "the daemon listens")
            yield make_proxyd(
                {"proxyd_routes": [f"test={path}"], "log_level": 3, "max_clients": 6000},
                backend_dir=directory,
                service=True,
            )


@contextmanager
def sessions(front, count):
    """So many that are open, as non-blocking sockets."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(front.sock))
            calls = (
                remote.call(Remote.AUTH_LIST, 0),
                remote.call(Remote.CONNECT_OPEN, 1, OpenArguments(URI, 0).pack()),
            )
            for call in calls:
                sock.sendall(call.pack())
                assert sock.recv(4096)
            sock.setblocking(False)
            opened.append(sock)
        yield opened
