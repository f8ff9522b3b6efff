import errno
import logging
import os
import socket
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from proxyd.process.systemd_notify import Notifier, feed_watchdog, keep_status, status_of
from tests.bed.daemon import descriptors, short_directory

PID = os.getpid()


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.notifiers = []

    def notifier(self, **environ):
        environ = {"NOTIFY_SOCKET": self.path, **environ}
        made = Notifier.from_environ(environ, pid=PID)
        self.notifiers.append(made)
        return made

    @property
    def path(self):
        name = self.socket.getsockname()
        return name if isinstance(name, str) else "@" + name[1:].decode()

    def heard(self):
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return messages

    def close(self):
        self.socket.close()
        for each in self.notifiers:
            each.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request):
    with short_directory() as directory:
        name = str(directory / "notify")
        made = Systemd(name if request.param == "path" else f"\0{name}")
        yield made
        made.close()


@pytest.fixture
def notifier(systemd):
    return systemd.notifier(WATCHDOG_USEC="10000000")


def client(backend="", *, opened=True):
    """Of a client in the roster, what the status is made of."""
    return SimpleNamespace(backend=backend, pair=object() if opened else None)


def sockets():
    """The numbers of this process's sockets."""
    return {fd for fd, leads_to in descriptors(PID).items() if leads_to.startswith("socket:")}


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (Notifier.ready, "READY=1"),
        (Notifier.stopping, "STOPPING=1"),
        (Notifier.watchdog, "WATCHDOG=1"),
        (lambda notifier: notifier.main_pid(42), "MAINPID=42"),
        (lambda notifier: notifier.extend_timeout(30), "EXTEND_TIMEOUT_USEC=30000000"),
        (lambda notifier: notifier.status("2 sessions"), "STATUS=2 sessions"),
    ],
)
def test_each_message_is_a_datagram(systemd, notifier, say, message):
    say(notifier)
    assert systemd.heard() == [message]


async def test_descriptors_are_given_by_a_name_and_taken_back_by_it(systemd, notifier):
    with socket.socket() as sock:
        assert await notifier.store("some", [sock.fileno(), sock.fileno()])
        message, descriptors, _, _ = socket.recv_fds(systemd.socket, 4096, 9)
        assert message == b"FDSTORE=1\nFDNAME=some\nFDPOLL=0"
        assert len(descriptors) == 2
        for each in descriptors:
            assert os.fstat(each).st_ino == os.fstat(sock.fileno()).st_ino
            os.close(each)
    notifier.unstore("some")
    assert systemd.heard() == ["FDSTOREREMOVE=1\nFDNAME=some"]


async def test_systemd_has_heard_what_it_was_told_when_it_closes_the_barrier(
    systemd, notifier, nursery, autojump_clock
):
    before = len(os.listdir("/proc/self/fd"))
    over = trio.Event()

    async def wait():
        assert await notifier.heard()
        over.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    message, (barrier,), _, _ = socket.recv_fds(systemd.socket, 4096, 9)
    assert message == b"BARRIER=1"
    with trio.move_on_after(10):
        await over.wait()
    assert not over.is_set()
    os.close(barrier)
    await over.wait()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_without_a_socket_nobody_has_heard():
    assert not await Notifier().heard()


async def test_without_a_socket_nothing_is_stored():
    assert not await Notifier().store("some", [0])


def test_a_reload_says_when_it_began(systemd, notifier):
    before = time.monotonic_ns() // 1000
    with notifier.reloading():
        (message,) = systemd.heard()
    first, second = message.split("\n")
    assert first == "RELOADING=1"
    name, _, usec = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(usec) <= time.monotonic_ns() // 1000


def first_words(messages):
    return [message.partition("\n")[0] for message in messages]


def test_the_end_of_several_reloads_is_told_once_when_none_is_left(systemd, notifier):
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(notifier.reloading())
        second.enter_context(notifier.reloading())
        first.close()
        with notifier.reloading():
            pass
        assert first_words(systemd.heard()) == ["RELOADING=1"] * 3

    assert systemd.heard() == ["READY=1"]


def test_a_reload_that_fails_is_over_too(systemd, notifier):
    with pytest.raises(ZeroDivisionError), notifier.reloading():
        raise ZeroDivisionError

    assert first_words(systemd.heard()) == ["RELOADING=1", "READY=1"]


def test_who_stops_speaks_of_no_reload(systemd, notifier):
    with notifier.reloading():
        notifier.stopping()
    with notifier.reloading():
        pass
    notifier.ready()

    assert first_words(systemd.heard()) == ["RELOADING=1", "STOPPING=1"]


def test_a_status_is_one_line_whatever_is_in_it(systemd, notifier):
    notifier.status("virt\nREADY=1\x1b[31m" + "x" * 9999)
    (message,) = systemd.heard()
    assert message.startswith("STATUS=virt\\nREADY=1\\x1b[31mxxx")
    assert len(message) == len("STATUS=") + 500


def test_a_status_that_is_no_text_is_sent_all_the_same(systemd, notifier):
    notifier.status("virt\udcffd")
    assert systemd.heard() == ["STATUS=virt\\udcffd"]


def test_without_a_socket_nobody_is_told():
    notifier = Notifier.from_environ({"WATCHDOG_USEC": "1000000"}, pid=PID)
    before = os.listdir("/proc/self/fd")
    notifier.ready()
    assert notifier.watchdog_s == 0
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("path", ["", "relative", "vsock:2:1234", "/" + "x" * 107, "@" + "x" * 107])
def test_an_address_of_no_known_kind_is_nobodys(path):
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": path}, pid=PID)
    before = len(os.listdir("/proc/self/fd"))
    notifier.ready()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_variables_are_taken_away_and_no_others():
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier.from_environ(environ, pid=PID).close()
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID + 1)}, 0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({}, 0),
        ({"WATCHDOG_USEC": ""}, 0),
        ({"WATCHDOG_USEC": "-1"}, 0),
        ({"WATCHDOG_USEC": "x"}, 0),
        ({"WATCHDOG_USEC": "9" * 5000}, 0),
    ],
)
def test_the_watchdog_is_what_the_environment_says_to_this_process(systemd, environ, seconds):
    assert systemd.notifier(**environ).watchdog_s == seconds


def test_a_full_queue_holds_nobody_up(systemd, notifier, caplog):
    caplog.set_level(logging.DEBUG)
    for _ in range(10_000):
        notifier.watchdog()
        if caplog.messages:
            break
    assert caplog.messages == [f"systemd was not told WATCHDOG=1: {os.strerror(errno.EAGAIN)}"]
    assert set(systemd.heard()) == {"WATCHDOG=1"}
    notifier.ready()  # read again, it is told again
    assert systemd.heard() == ["READY=1"]


def test_a_socket_that_nobody_reads_any_more_holds_nobody_up(systemd, notifier, caplog):
    caplog.set_level(logging.DEBUG)
    systemd.socket.close()
    notifier.stopping()
    assert caplog.messages == [
        f"systemd was not told STOPPING=1: {os.strerror(errno.ECONNREFUSED)}"
    ]


def test_no_child_has_the_socket(systemd):
    before = sockets()
    systemd.notifier()
    (added,) = sockets() - before
    assert not os.get_inheritable(added)


def test_after_the_close_nothing_is_said(systemd, notifier):
    notifier.close()
    notifier.close()
    notifier.ready()
    assert systemd.heard() == []


class Relay:
    """A relay thread that answers while it is told to."""

    def __init__(self):
        self.stuck = False
        self.asked = 0

    async def answers(self):
        self.asked += 1
        if self.stuck:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()


async def test_the_watchdog_is_fed_at_half_its_interval(systemd, notifier, nursery, autojump_clock):
    nursery.start_soon(feed_watchdog, notifier, Relay().answers)
    await trio.sleep(21)
    assert systemd.heard() == ["WATCHDOG=1"] * 5


async def test_a_relay_that_is_stuck_starves_the_watchdog(
    systemd, notifier, nursery, autojump_clock, caplog
):
    relay = Relay()
    nursery.start_soon(feed_watchdog, notifier, relay.answers)
    await trio.sleep(1)
    relay.stuck = True
    systemd.heard()
    await trio.sleep(12)
    assert systemd.heard() == []
    assert caplog.messages == ["the relay thread has not answered for 5 s"]


async def test_a_relay_that_comes_back_is_fed_for_again(
    systemd, notifier, nursery, autojump_clock, caplog
):
    relay = Relay()
    relay.stuck = True
    nursery.start_soon(feed_watchdog, notifier, relay.answers)
    await trio.sleep(1)
    relay.stuck = False
    await trio.sleep(5)
    assert systemd.heard() == ["WATCHDOG=1"]
    assert caplog.messages == ["the relay thread has not answered for 5 s"]


async def test_without_a_watchdog_the_relay_is_not_asked(systemd):
    relay = Relay()
    await feed_watchdog(systemd.notifier(), relay.answers)
    assert relay.asked == 0


def test_the_status_counts_sessions_by_backend():
    clients = [
        client("/run/libvirt/virtqemud-sock"),
        client("/run/libvirt/virtqemud-sock-ro"),
        client("/run/libvirt/virtnetworkd-sock"),
        client("/run/libvirt/virtqemud-sock", opened=False),
    ]
    said = "3 sessions, 1 being opened, backends: virtqemud 2, virtnetworkd 1"
    assert status_of(clients) == said


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        ([], "0 sessions, 0 being opened"),
        ([client(opened=False)], "0 sessions, 1 being opened"),
        ([client("/x/virtqemud-sock")], "1 session, 0 being opened, backends: virtqemud 1"),
    ],
)
def test_the_status_of_few(clients, said):
    assert status_of(clients) == said


def test_the_status_names_ten_backends_at_most():
    said = status_of(client(f"/x/virt{number}d-sock") for number in range(11))
    assert said.endswith("virt9d 1, …")
    assert said.count(" 1,") == 10


async def test_the_status_is_told_once_a_second_at_most(systemd, notifier, nursery, autojump_clock):
    clients = []
    changed = trio.Event()

    async def wait_change():
        await changed.wait()

    nursery.start_soon(keep_status, notifier, lambda: clients, wait_change)
    await trio.testing.wait_all_tasks_blocked()
    assert systemd.heard() == ["STATUS=0 sessions, 0 being opened"]
    changed.set()  # from now on something changes all the time
    for _ in range(20):
        clients.append(client("/x/virtqemud-sock"))
        await trio.sleep(0.1)
    assert 1 <= len(systemd.heard()) <= 2


async def test_a_status_that_stays_the_same_is_not_told_again(
    systemd, notifier, nursery, autojump_clock
):
    async def wait_change():
        await trio.lowlevel.checkpoint()

    nursery.start_soon(keep_status, notifier, list, wait_change)
    await trio.sleep(10)
    assert systemd.heard() == ["STATUS=0 sessions, 0 being opened"]


async def test_a_session_that_is_opened_after_all_is_told(
    systemd, notifier, nursery, autojump_clock
):
    slow = client("/x/virtqemud-sock", opened=False)
    nursery.start_soon(keep_status, notifier, lambda: [slow], trio.sleep_forever)
    await trio.sleep(3.5)
    slow.pair = object()
    await trio.sleep(1)
    assert systemd.heard() == [
        "STATUS=0 sessions, 1 being opened",
        "STATUS=1 session, 0 being opened, backends: virtqemud 1",
    ]
