"""Ten thousand changes a second are recorded, all of them, and a session beside feels nothing.

Measured against the same load of calls that are not recorded, in turns of one run.
"""

import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from proxyd.wire.frame import HEADER_SIZE, Frame, FrameType, Header
from proxyd.wire.names import NAMES
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.xdr import Writer
from tests.bed.daemon import short_directory
from tests.bed.proxyd import Proxyd
from tests.bed.waiting import wait_until
from tests.system.rpc import opened

DESTROY = NAMES[Program.REMOTE].index("DOMAIN_DESTROY")
GET_INFO = NAMES[Program.REMOTE].index("DOMAIN_GET_INFO")
GUEST = Writer().opaque(b"a-guest-with-a-name").fixed_opaque(bytes(16)).i32(1).take()
SIZE = HEADER_SIZE + len(GUEST)
BATCH, EVERY_S, TURN_S, TURNS = 100, 0.01, 0.7, 4

# Opens whatever it is asked to, then answers each frame of SIZE bytes by its header.
DAEMON = """
import socket, sys, threading
from proxyd.wire.frame import FrameBuffer, Status
from proxyd.wire.programs import Remote
from proxyd.wire.remote import pack_auth_methods, reply
path, size = sys.argv[1], int(sys.argv[2])

def exactly(sock, count):
    got = sock.recv(count, socket.MSG_WAITALL)
    if len(got) < count:
        raise EOFError
    return got

def serve(sock):
    buffer, there = FrameBuffer(), False
    while not there:
        buffer.feed(exactly(sock, buffer.wanted))
        frame = buffer.next_frame()
        if frame is None:
            continue
        header = frame.header
        payload = pack_auth_methods([0]) if header.procedure == Remote.AUTH_LIST else b""
        sock.sendall(reply(header, payload).pack())
        there = header.procedure == Remote.CONNECT_SET_IDENTITY
    rest = b""
    while got := sock.recv(1 << 16):
        rest += got
        whole = len(rest) // size * size
        answers = b"".join(
            b"\\0\\0\\0\\x1c" + rest[at + 4 : at + 16] + b"\\0\\0\\0\\1" + rest[at + 20 : at + 28]
            for at in range(0, whole, size)
        )
        rest = rest[whole:]
        sock.sendall(answers)

def served(sock):
    with sock:
        try:
            serve(sock)
        except (EOFError, OSError):
            pass

with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    listener.listen(64)
    print("listening", flush=True)
    while True:
        threading.Thread(target=served, args=(listener.accept()[0],), daemon=True).start()
"""


def call(procedure, serial):
    return Frame(Header(Program.REMOTE, VERSION, procedure, FrameType.CALL, serial), GUEST).pack()


@contextmanager
def answering(path):
    command = [sys.executable, "-c", DAEMON, str(path), str(SIZE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        try:
            assert daemon.stdout.readline() == b"listening\n"
            yield
        finally:
            daemon.kill()


@pytest.fixture
def scene():
    """Starts a proxyd before such a daemon, with settings."""
    with short_directory() as directory:
        (directory / "front").mkdir()
        sock = directory / "behind"
        with answering(sock):

            @contextmanager
            def starting(**settings):
                config = {"proxyd_routes": [f"test={sock}"], **settings}
                front = Proxyd(directory / "front", backend_dir=directory, config=config)
                with front:
                    yield front

            yield starting


def send_for(sock, procedure, until, paced=True):
    """Batches of calls; returns how many there were."""
    batch = b"".join(call(procedure, serial) for serial in range(BATCH))
    sent, pause, due = 0, threading.Event(), time.monotonic()
    while time.monotonic() < until:
        sock.sendall(batch)
        sock.recv(BATCH * HEADER_SIZE, socket.MSG_WAITALL)
        sent += BATCH
        due += EVERY_S
        if paced:
            pause.wait(max(0.0, due - time.monotonic()))
    return sent


def times_of(sock, until):
    """Of small calls one after the other, in microseconds."""
    wire, took = call(GET_INFO, 7), []
    while time.monotonic() < until:
        began = time.perf_counter_ns()
        sock.sendall(wire)
        sock.recv(HEADER_SIZE, socket.MSG_WAITALL)
        took.append((time.perf_counter_ns() - began) / 1000)
    return took


def test_a_session_beside_ten_thousand_recorded_changes_a_second_is_not_slowed(scene, capsys):
    with short_directory() as directory:
        path = directory / "audit.log"
        settings = {
            "proxyd_audit": ["changes"],
            "proxyd_audit_output": f"file:{path}",
            "proxyd_audit_required": 1,
        }
        with scene(**settings) as front, opened(front.sock) as busy, opened(front.sock) as beside:
            sent, took = {DESTROY: 0, GET_INFO: 0}, {DESTROY: [], GET_INFO: []}
            for procedure in (DESTROY, GET_INFO) * TURNS:
                until = time.monotonic() + TURN_S

                def load(procedure=procedure, until=until):
                    sent[procedure] += send_for(busy.sock, procedure, until)

                thread = threading.Thread(target=load)
                thread.start()
                took[procedure] += times_of(beside.sock, until)
                thread.join()

            def written():
                return path.read_bytes().count(b'"event":"call"') == sent[DESTROY]

            wait_until(written, 10, "each change is recorded")
        p50 = {each: statistics.median(took[each]) for each in took}
        p99 = {each: statistics.quantiles(took[each], n=100)[98] for each in took}
    rate = sent[DESTROY] / (TURNS * TURN_S)
    with capsys.disabled():
        print(
            f"\n{rate:.0f} changes a second beside it: p50 {p50[DESTROY]:.0f} µs recorded,"
            f" {p50[GET_INFO]:.0f} not; p99 {p99[DESTROY]:.0f} and {p99[GET_INFO]:.0f}"
        )
    assert rate > 9000
    assert p50[DESTROY] < 1.5 * p50[GET_INFO]
    assert p99[DESTROY] < 3 * p99[GET_INFO] + 1000
