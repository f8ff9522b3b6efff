"""The environment of socket activation: as many sockets as it says, or a start that fails."""

import fcntl
import os
import resource
import socket
from contextlib import ExitStack, contextmanager

from proxyd.config.sources import load
from proxyd.listen.activation import recognise, take_passed
from proxyd.process.exit_status import StartFailed

NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
PID = 4242
SOCKETS = 3
SETTINGS = load("", "", privileged=True).settings
WORDS = (
    b"4242",
    b"\xff3\xff",
    b"\xff3\xffvirtproxyd.socket:virtproxyd-ro.socket:virtproxyd-admin.socket",
    b"virtproxyd-tls.socket",
    b":",
    "٣".encode(),
    b"+3",
    b"03",
    b"99999999999",
)


def one_input(data):
    """LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES with 0xFF between; some of them may be absent."""
    values = [each.decode("utf-8", "surrogateescape") for each in data.split(b"\xff", 3)]
    environ = dict(zip(NAMES, values, strict=False))
    with passed_sockets() as first, ExitStack() as given_back:
        try:
            passed = take_passed(environ, given_back, pid=PID, first=first)
            recognised = recognise(passed, SETTINGS, privileged=True)
        except StartFailed as failed:
            claim_told(failed)
        else:
            assert len(recognised) <= SOCKETS
            assert not recognised or len(recognised) == int(values[1])
        assert not environ


def claim_told(failed):
    # A name of the environment stands in it as it is: whoever logs it puts it on one line.
    assert failed.args[0]


@contextmanager
def passed_sockets():
    """A row of listening sockets at descriptors that nobody else uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, first_free())
        for more in range(1, SOCKETS):
            os.dup2(first, first + more, inheritable=False)
    try:
        yield first
    finally:
        os.closerange(first, first + SOCKETS)


def first_free():
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024) - 2 * SOCKETS
