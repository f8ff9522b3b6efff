"""What a peer can make the daemon hold before anybody knows who it is: how much, and how long.

How much is measured: the resident memory of a real proxyd grows by so much for each of many peers
that send all but the last byte of the longest thing that is read at their stage. What the kernel
holds in its socket buffers is not counted.

It is less than 64 KiB wherever that is ours to say, but for what OpenSSL itself needs. One stage
takes more, by its protocol: a Kerberos token of 64 KiB has four times as many bytes on the wire.
"""

import fcntl
import socket
import struct
import termios
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxyd.config.settings import Settings
from proxyd.endpoint.handshake import LONGEST_HANDSHAKE
from proxyd.negotiation.server import FRAME_LIMIT, frame_limit
from proxyd.sasl.passwords import PasswordFile
from proxyd.sasl.scram import LARGEST_MESSAGE
from proxyd.wire import remote
from proxyd.wire.frame import HEADER, FrameType, Status
from proxyd.wire.programs import VERSION, Program, Remote
from tests.bed.daemon import short_directory
from tests.bed.kdc import Kdc
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, rpc_client
from tests.system.tls_client import LET_IN, client_context, connected

pytestmark = pytest.mark.system

TIMEOUT_S = 4
PEERS = 40
KIB = 1024
# A session's own: its task, its socket, what was negotiated. Measured: 2 to 7.
SESSION_KIB = 16
# OpenSSL's, for a connection, and while it shakes hands. Measured: 25 to 55.
TLS_KIB = 40
HANDSHAKE_KIB = 72
LONGEST_RECORD = 16384


def unfinished_frame(limit, procedure=Remote.CONNECT_OPEN):
    """All but the last byte of a call that is as long as it may be."""
    header = HEADER.pack(limit, Program.REMOTE, VERSION, procedure, FrameType.CALL, 9, Status.OK)
    return header + bytes(limit - len(header) - 1)


def unfinished_hello():
    """All but the last byte of what is read of a handshake: a ClientHello in full records."""
    message = b"\x01" + (LONGEST_HANDSHAKE - 4).to_bytes(3, "big") + b"\x03\x03"
    message = message.ljust(LONGEST_HANDSHAKE - 20, b"\0")
    parts = [message[at : at + LONGEST_RECORD] for at in range(0, len(message), LONGEST_RECORD)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def by_unix(front):
    client = RpcClient(front.sock)
    client.send(unfinished_frame(FRAME_LIMIT))
    return client.sock


def by_tcp(front):
    sock = connected(front.tcp_address())
    sock.sendall(unfinished_frame(FRAME_LIMIT))
    return sock


def by_tls(front):
    """The handshake is done; what follows is a frame as elsewhere."""
    sock = client_context(front.pkipath).wrap_socket(connected(front.tls_address()))
    assert sock.recv(1) == LET_IN
    sock.sendall(unfinished_frame(FRAME_LIMIT))
    return sock


def in_the_handshake(front):
    sock = connected(front.tls_address())
    sock.sendall(unfinished_hello())
    return sock


def in_the_middle_of_scram(front):
    client = RpcClient(front.sock_ro)
    assert client.call(Remote.AUTH_SASL_INIT).header.status == Status.OK
    begun = remote.SaslStart("SCRAM-SHA-256", b"n,,n=joe,r=nonce")
    assert client.call(Remote.AUTH_SASL_START, begun.pack()).header.status == Status.OK
    client.send(unfinished_frame(frame_limit(LARGEST_MESSAGE), Remote.AUTH_SASL_STEP))
    return client.sock


def before_a_ticket(front):
    sock = connected(front.tcp_address())
    sock.sendall(unfinished_frame(frame_limit(remote.MAX_SASL_DATA), Remote.AUTH_SASL_START))
    return sock


# What a peer makes the daemon hold, in KiB. A buffer that grows has an eighth in reserve.
STAGES = [
    pytest.param(by_unix, 9 / 8 * FRAME_LIMIT / KIB + SESSION_KIB, id="UNIX"),
    pytest.param(by_tcp, 9 / 8 * FRAME_LIMIT / KIB + SESSION_KIB, id="TCP"),
    pytest.param(by_tls, 9 / 8 * FRAME_LIMIT / KIB + SESSION_KIB + TLS_KIB, id="TLS"),
    pytest.param(
        in_the_middle_of_scram,
        9 / 8 * frame_limit(LARGEST_MESSAGE) / KIB + SESSION_KIB,
        id="SCRAM",
    ),
    pytest.param(
        in_the_handshake,
        LONGEST_HANDSHAKE / KIB + SESSION_KIB + HANDSHAKE_KIB,
        id="TLS handshake",
    ),
]


OPEN_FOR_ALL = {
    "listen_addr": "127.0.0.1",
    "listen_tcp": 1,
    "tcp_port": "0",
    "auth_tcp": "none",
    "max_anonymous_clients": PEERS,
    "proxyd_handshake_timeout": TIMEOUT_S,
}


@dataclass
class Front:
    """A proxyd that listens wherever a peer may come from, and what its clients need."""

    daemon: object
    pkipath: Path | None

    def __getattr__(self, name):
        return getattr(self.daemon, name)


@pytest.fixture
def front(make_proxyd, tmp_path):
    """It lets in all of them at a time; on its read-only socket they have to prove themselves."""
    pki = Pki(tmp_path / "pki")
    passwords = PasswordFile(str(tmp_path / "passwords"))
    passwords.set_password("joe", "secret")
    daemon = make_proxyd(
        {
            **OPEN_FOR_ALL,
            "auth_unix_ro": "sasl",
            "proxyd_passwords": passwords.path,
            "listen_tls": 1,
            "tls_port": "0",
            **pki.settings(pki.server()),
        }
    )
    return Front(daemon, pki.client())


@pytest.mark.parametrize(("come", "most_kib"), STAGES)
def test_a_stranger_holds_so_much_memory_and_his_place_until_the_deadline(front, come, most_kib):
    check_what_strangers_hold(front, come, most_kib)


def test_who_may_have_a_ticket_holds_room_for_the_longest(make_proxyd):
    with short_directory() as directory, Kdc(directory) as kdc:
        kdc.add(SERVICE)
        settings = {"auth_tcp": "sasl", "proxyd_keytab": str(kdc.keytab(SERVICE))}
        front = Front(make_proxyd({**OPEN_FOR_ALL, **settings}, environment=kdc.environment), None)
        most_kib = 9 / 8 * frame_limit(remote.MAX_SASL_DATA) / KIB + SESSION_KIB
        check_what_strangers_hold(front, before_a_ticket, most_kib)


def check_what_strangers_hold(front, come, most_kib):
    come(front).close()  # whatever is loaded by the first one
    wait_until(lambda: front.log_text().count("ended before") >= 2, 10, "it is gone")
    before, descriptors = front.rss_kib(), len(front.descriptors())
    began = time.monotonic()
    with ExitStack() as stack:
        peers = [stack.enter_context(come(front)) for _ in range(PEERS)]
        wait_until(lambda: not any(map(unread, peers)), TIMEOUT_S, "all that was sent is read")
        each_kib = (front.rss_kib() - before) / PEERS
        assert time.monotonic() - began < TIMEOUT_S, "some of them have gone already"
        for peer in peers:
            assert is_closed(peer, began + 2 * TIMEOUT_S)
    assert most_kib / 4 < each_kib < most_kib
    wait_until(lambda: cut_off(front) == PEERS, 10, "the log tells of each of them")
    wait_until(lambda: len(front.descriptors()) <= descriptors, 10, "every descriptor is back")
    assert "Traceback" not in front.log_text()


def cut_off(front):
    """How many clients were out of time."""
    said = (f"was opened within {TIMEOUT_S} s", f"took longer than {TIMEOUT_S} s")
    return sum(front.log_text().count(each) for each in said)


def test_a_stranger_who_goes_on_sending_gets_no_more_time(front):
    frame, sent = unfinished_frame(FRAME_LIMIT), 0
    began = time.monotonic()
    with rpc_client(front.sock) as slow:
        while not is_closed(slow.sock, time.monotonic() + 0.05):
            assert time.monotonic() - began < 2 * TIMEOUT_S
            slow.send(frame[sent : sent + 1])
            sent += 1
    assert sent > TIMEOUT_S
    assert time.monotonic() - began > TIMEOUT_S - 1


def test_without_a_setting_the_deadline_is_thirty_seconds():
    assert Settings().proxyd_handshake_timeout == 30


def unread(sock):
    """Bytes that the daemon has not taken yet."""
    waiting = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    if sock.family == socket.AF_UNIX or waiting:
        return waiting
    # Over TCP what the kernel has acknowledged may lie there: see how much, by our address.
    ours = f":{sock.getsockname()[1]:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return next((int(row[4].split(":")[1], 16) for row in rows if row[2].endswith(ours)), 0)


def is_closed(sock, deadline):
    """Whether the other side closes until then; what comes before is taken."""
    sock.settimeout(max(0.01, deadline - time.monotonic()))
    try:
        while sock.recv(65536):
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass  # it closed with something of ours unread
    except TimeoutError:
        return False
    return True


VISITS = 300


def test_strangers_who_come_and_go_leave_little_behind(front):
    def visits(total):
        for _ in range(VISITS):
            in_the_handshake(front).close()
        gone = total + PEERS
        wait_until(lambda: front.log_text().count("ended before") >= gone, 30, "all are gone")
        return front.rss_kib()

    # What many at once have needed, the allocator keeps: so there are as many as may be, once.
    with ExitStack() as stack:
        peers = [stack.enter_context(in_the_handshake(front)) for _ in range(PEERS)]
        wait_until(lambda: not any(map(unread, peers)), 10, "all that was sent is read")
    wait_until(lambda: front.log_text().count("ended before") >= PEERS, 30, "all are gone")
    before = visits(VISITS)
    assert visits(2 * VISITS) - before < 12 * KIB
