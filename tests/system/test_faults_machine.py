"""A machine that fails: a full disk, system calls that say no, clocks that jump, storms of signals.

In each a session that was open goes on, a real virsh works afterwards, and nothing is left over.
"""

import itertools
import re
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import held_open
from tests.bed.daemon import short_directory
from tests.bed.frozen import sockets_of, wait_until_still
from tests.bed.proxyd_log import log_line
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.fakes.moody_daemon import ECHOES, MoodyDaemon
from tests.relay.frames import noise
from tests.system.rpc import DEADLINE_S, RpcClient, opened, rpc_client

pytestmark = pytest.mark.system

URI = "test:///default"
GET_TYPE = 3


def answers(client):
    reply = client.call(GET_TYPE)
    return reply.header.status == Status.OK and reply.header.serial == client.serial


@contextmanager
def unharmed(front):
    """Whatever happens in the block: a session beside it goes on, and nothing is left of it."""
    with opened(front.sock) as beside:
        assert answers(beside)
        sockets, threads = wait_until_still(front), front.threads()
        yield beside
        assert answers(beside)
        virsh(unix_uri(URI, front.sock), "list").succeeded()
        wait_until(lambda: sockets_of(front) == sockets, 20, f"{sockets} descriptors are left")
        wait_until(lambda: front.threads() <= threads, 20, f"{threads} threads are left")


ON_A_SMALL_DISK = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
VISITS = 20
A_LINE_OF_A_SESSION = re.compile(
    r"session \d+ (opened: .*/libvirt-sock|ended: .* errors)$", re.MULTILINE
)
LOST = re.compile(r"(\d+) log messages did not get here: No space left on device")


def visit(front):
    with opened(front.sock) as client:
        assert answers(client)


def test_a_full_disk_costs_the_lines_that_did_not_fit_and_they_are_counted(make_proxyd, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        in_a_namespace = ("unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, str(disk))
        patch.setattr("tests.bed.proxyd.WRAPPER", in_a_namespace)
        # The audit has a file beside the log, which would take all the room that there is.
        front = make_proxyd({"log_outputs": f"2:file:{disk}/log", "proxyd_audit": []})
    seen = Path(f"/proc/{front.pid}/root{disk}")  # its mounts are its own
    log = seen / "log"
    visits = 0

    def visit_and_look():
        nonlocal visits
        visit(front)
        visits += 1
        return LOST.search(log.read_text())

    with opened(front.sock) as beside:
        fill(seen / "filler")
        for _ in range(VISITS):
            assert not visit_and_look()
        assert answers(beside)
        (seen / "filler").unlink()
        lost = wait_until(visit_and_look, 20, "the log says what it has lost")
        assert answers(beside)
    expected = 2 * (visits + 1)
    wait_until(
        lambda: len(A_LINE_OF_A_SESSION.findall(log.read_text())) + int(lost[1]) == expected,
        10,
        f"all of {expected} lines are there or counted",
    )


def fill(path):
    """Up to the last byte."""
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


SHORTAGES = ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS")
# Of the relay: with recvfrom and sendto those of TCP. Of trio's thread: what a set-up asks for.
OF_THE_RELAY = ("epoll_ctl", "pipe2", "splice", "recvmsg", "recvfrom", "sendto")
OF_A_SET_UP = ("accept4", "socket", "connect", "epoll_ctl", "recvmsg", "sendto")


@contextmanager
def injected(front, threads, call, error, nth):
    """The n-th such call of each of these threads fails."""
    command = ["strace", "--quiet=all", "-o", "/dev/null", "-e", f"trace={call}"]
    command += ["-e", f"inject={call}:error={error}:when={nth}"]
    command += [f"--attach={thread}" for thread in threads]

    def traced_by(pid):
        return all(
            f"TracerPid:\t{pid}\n" in Path(f"/proc/{front.pid}/task/{thread}/status").read_text()
            for thread in threads
        )

    with held_open(command) as strace:
        wait_until(lambda: traced_by(strace.pid), 10, "strace has them")
        yield
    assert traced_by(0)


def relay_threads(front):
    """Those that wait in the same system call as the main thread, which is trio's."""

    def waits_in(task):
        return (task / "syscall").read_text().split()[0]

    tasks = {int(task.name): task for task in Path(f"/proc/{front.pid}/task").iterdir()}
    waits = waits_in(tasks.pop(front.pid))
    return [number for number, task in tasks.items() if waits_in(task) == waits]


def some_traffic(front, payload):
    """By TCP, in long frames; whatever comes back is what was sent, or nothing more comes."""
    host, _, port = front.tcp_address().rpartition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as sock:
        client = RpcClient(sock)
        with suppress(ConnectionError):
            answer = client.open("qemu:///system")
            if answer is None or answer.header.status != Status.OK:
                return
            for _ in range(3):
                answer = client.call(ECHOES, payload)
                if answer is None:
                    return
                assert (answer.header.serial, answer.payload) == (client.serial, payload)


@pytest.fixture
def front(make_proxyd, qemu_backend):
    """A proxyd before a real daemon (test) and an echo (qemu), by UNIX and by TCP."""
    with short_directory() as directory, MoodyDaemon(directory / "echo") as echo:
        yield make_proxyd(
            {
                "proxyd_routes": [f"test={qemu_backend.sock}", f"qemu={echo.path}"],
                "listen_tcp": 1,
                "auth_tcp": "none",
                "listen_addr": "127.0.0.1",
                "tcp_port": "0",
                "listen_tls": 0,
            },
            backend_dir=directory,
        )


def fail_calls(front, threads, calls, errors):
    payload = noise(300_000)
    for call, (nth, error) in itertools.product(calls, errors):
        with injected(front, threads, call, error, nth):
            virsh(unix_uri(URI, front.sock), "list", deadline_s=DEADLINE_S)
            some_traffic(front, payload)
        virsh(unix_uri(URI, front.sock), "list").succeeded()


ONE_EACH = tuple(zip(range(1, 6), itertools.cycle(SHORTAGES), strict=False))
ALL = tuple(itertools.product(range(1, 6), SHORTAGES))
each_error = pytest.mark.parametrize(
    "errors",
    [pytest.param(ONE_EACH, id="one-each"), pytest.param(ALL, id="all", marks=pytest.mark.long)],
)


@each_error
def test_whatever_call_of_a_set_up_fails_the_next_client_is_served(front, errors):
    with unharmed(front) as beside:
        for call in OF_A_SET_UP:
            fail_calls(front, [front.pid], [call], errors)
            assert answers(beside)
    assert "Traceback" not in front.log_text()


@each_error
def test_whatever_call_of_the_relay_fails_the_next_client_is_served(front, errors):
    with unharmed(front):
        fail_calls(front, relay_threads(front), OF_THE_RELAY, errors)
    assert "Traceback" not in front.log_text()


STORM = 3000
AT_ONCE_S = 3  # proxyd_drain_timeout is 5


def storm(front, number):
    for _ in range(STORM):
        front.daemon.send(number)


def test_a_storm_of_reloads_ends_no_session_and_is_obeyed_a_few_times(front):
    with unharmed(front) as beside:
        with storming(front, signal.SIGHUP):
            assert all(answers(beside) for _ in range(200))
        log_line(front, "configuration reloaded")
    assert front.log_text().count("configuration reloaded") < STORM
    assert "Traceback" not in front.log_text()


def test_a_storm_of_signals_that_mean_nothing_is_one_line_in_the_log(front):
    with unharmed(front) as beside:
        with storming(front, signal.SIGUSR2):
            assert all(answers(beside) for _ in range(200))
        log_line(front, "SIGUSR2 means nothing here and is ignored")
    assert front.log_text().count("means nothing here") == 1


def test_a_storm_of_orders_to_end_is_an_orderly_end(front):
    with opened(front.sock) as idle, opened(front.sock, "qemu:///system") as busy:
        busy.send(busy.frame(ECHOES, noise(1000))[:500])  # under way: it keeps the daemon here
        storm(front, signal.SIGTERM)
        log_line(front, "SIGTERM: stopping")
        began = time.monotonic()
        storm(front, signal.SIGTERM)  # of the first one only some got there: they are all one

        assert front.daemon.wait() == 0

        assert time.monotonic() - began < AT_ONCE_S

        assert idle.ended()
        assert busy.ended()
    left = {each.name for each in front.directory.iterdir()}
    kept = {front.conf.name, front.log.name, front.daemon.output.name}
    assert left == {*kept, "virtproxyd-audit.log"}
    assert "Traceback" not in front.log_text()


@contextmanager
def storming(front, number):
    """From another thread, while the block lasts and to its own end."""
    thread = threading.Thread(target=storm, args=(front, number))
    thread.start()
    try:
        yield
    finally:
        thread.join()


# Root could set the host's clock, which is everybody's. No namespace has a CLOCK_REALTIME of its
# own, and CLOCK_MONOTONIC, by which everything here is timed, jumps for nobody.
(FAKETIME,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
A_YEAR = "400d"


def test_a_clock_that_jumps_changes_what_the_log_says_and_nothing_else(
    make_proxyd, qemu_backend, tmp_path
):
    clock = tmp_path / "clock"

    def jump(to):
        (tmp_path / "next").write_text(f"{to}\n")
        (tmp_path / "next").rename(clock)

    jump("+0")
    front = make_proxyd(
        {"proxyd_handshake_timeout": 20},
        environment={
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )
    years = {time.gmtime(time.time() + days * 86400).tm_year for days in (400, -400)}
    with unharmed(front) as beside:
        for to in (f"+{A_YEAR}", f"-{A_YEAR}", "+0"):
            with rpc_client(front.sock) as half_way:
                assert half_way.call(Remote.AUTH_LIST).header.status == Status.OK
                jump(to)
                assert answers(beside)
                assert half_way.open(URI).header.status == Status.OK
                virsh(unix_uri(URI, front.sock), "list").succeeded()
    assert {int(year) for year in re.findall("^[0-9]{4}", front.log_text(), re.MULTILINE)} >= years
    assert " took longer than " not in front.log_text()
    assert "Traceback" not in front.log_text()
