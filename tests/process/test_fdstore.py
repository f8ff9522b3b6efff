import array
import os
import resource
import socket
from contextlib import ExitStack

import pytest
import trio

from proxyd.process import fdstore
from proxyd.process.fdstore import MOST_DESCRIPTORS, MOST_KEPT, NAME, Parcel, keep, taken_out
from proxyd.process.systemd_notify import Notifier
from tests.bed.daemon import short_directory

PID = os.getpid()


class Systemd:
    """Reads what it is told when the test wants it to, and keeps what comes with FDSTORE."""

    def __init__(self, stack):
        self.socket = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        directory = stack.enter_context(short_directory())
        path = str(directory / "notify")
        self.socket.bind(path)
        self.socket.setblocking(False)
        self.notifier = Notifier.from_environ({"NOTIFY_SOCKET": path}, pid=PID)
        stack.callback(self.notifier.close)
        self.kept = []
        stack.callback(self.forget)
        self.keeps = True

    def forget(self):
        while self.kept:
            os.close(self.kept.pop())

    def listen(self):
        """Whether there was something."""
        try:
            text, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 253)
        except BlockingIOError:
            return False
        lines = text.decode().split("\n")
        if lines[0] == "FDSTORE=1" and self.keeps:
            assert lines[1:] == [f"FDNAME={NAME}", "FDPOLL=0"]
            self.kept += descriptors
        else:
            if lines[0] == "FDSTOREREMOVE=1":
                self.forget()
            for each in descriptors:
                os.close(each)
        return True

    async def run(self):
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            self.listen()


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def systemd(stack, monkeypatch):
    made = Systemd(stack)
    # What it answers is played in test_systemd_manager.py, and real in test_systemd_store.py.
    monkeypatch.setattr(fdstore, "entries_kept", lambda address, pid: len(made.kept))
    return made


@pytest.fixture
def parcel(stack):
    made = Parcel()
    stack.callback(made.close)
    return made


@pytest.fixture
def pair(stack):
    """pair(): two sockets that are connected with each other."""

    def pair():
        ends = socket.socketpair()
        for each in ends:
            stack.enter_context(each)
            each.settimeout(5)
        return ends

    return pair


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def first_free():
    with open(os.devnull, "rb") as file:
        return file.fileno()


def contents(kept):
    """What is in there, closed again."""
    found = []
    for packet in taken_out(kept):
        found.append((packet.content, len(packet.descriptors)))
        packet.close()
    return found


async def test_what_one_process_leaves_the_next_one_has(systemd, parcel, pair, nursery):
    (ours, peer), content = pair(), os.urandom(300_000)
    parcel.put(content, [ours.fileno()])
    parcel.put(b"nothing with it", [])
    nursery.start_soon(systemd.run)
    assert await keep(parcel, systemd.notifier)
    ours.close()  # as its process ends
    parcel.close()
    peer.sendall(b"said meanwhile")

    first, second = taken_out([os.dup(each) for each in systemd.kept])

    assert (first.content, second.content) == (content, b"nothing with it")
    assert second.descriptors == []
    with socket.socket(fileno=first.descriptors.pop()) as resumed:
        assert not resumed.get_inheritable()
        assert resumed.recv(100) == b"said meanwhile"
        resumed.sendall(b"here")
    assert peer.recv(100) == b"here"
    assert peer.recv(100) == b""  # nobody else has it


async def test_what_was_taken_out_is_there_for_nobody_again(systemd, parcel, pair, nursery):
    parcel.put(b"x", [pair()[0].fileno()])
    nursery.start_soon(systemd.run)
    assert await keep(parcel, systemd.notifier)
    assert contents([os.dup(each) for each in systemd.kept]) == [(b"x", 1)]
    # Though systemd has not been told to forget it, and gives it to a start after this one.
    assert contents([os.dup(each) for each in systemd.kept]) == []


async def test_what_was_not_taken_out_is_there_for_the_start_after(systemd, parcel, pair, nursery):
    for content in (b"1", b"2", b"3"):
        parcel.put(content, [pair()[0].fileno()])
    nursery.start_soon(systemd.run)
    assert await keep(parcel, systemd.notifier)
    dies = taken_out([os.dup(each) for each in systemd.kept])
    next(dies).close()
    dies.close()
    assert contents([os.dup(each) for each in systemd.kept]) == [(b"2", 1), (b"3", 1)]


async def test_a_systemd_that_keeps_nothing_is_found_out(systemd, parcel, pair, nursery):
    ours, peer = pair()
    parcel.put(b"x", [ours.fileno()])
    systemd.keeps = False  # as without FileDescriptorStoreMax=
    nursery.start_soon(systemd.run)
    assert not await keep(parcel, systemd.notifier)
    ours.sendall(b"goes on")
    assert peer.recv(100) == b"goes on"


async def test_a_systemd_that_does_not_say_what_it_keeps_keeps_nothing(
    systemd, parcel, pair, nursery, monkeypatch
):
    monkeypatch.setattr(fdstore, "entries_kept", lambda address, pid: None)
    parcel.put(b"x", [pair()[0].fileno()])
    nursery.start_soon(systemd.run)
    assert not await keep(parcel, systemd.notifier)
    assert contents([os.dup(each) for each in systemd.kept]) == []


async def test_a_systemd_that_comes_too_late_has_nothing(systemd, parcel, pair, autojump_clock):
    ours, _ = pair()
    parcel.put(b"x", [ours.fileno()])
    assert not await keep(parcel, systemd.notifier)
    ours.close()

    assert systemd.listen()  # now it is told to keep it
    assert contents([os.dup(each) for each in systemd.kept]) == []


async def test_without_systemd_nothing_is_kept(parcel, pair):
    ours, peer = pair()
    parcel.put(b"x", [ours.fileno()])
    with trio.fail_after(5):
        assert not await keep(parcel, Notifier(), patience_s=0.1)
    ours.sendall(b"goes on")
    assert peer.recv(100) == b"goes on"


async def test_a_full_queue_of_systemds_is_waited_for(systemd, parcel, pair, nursery):
    parcel.put(b"x", [pair()[0].fileno()])
    with trio.move_on_after(0.1):
        while True:
            await systemd.notifier.store(NAME, [])
    systemd.keeps = False
    nursery.start_soon(keep, parcel, systemd.notifier)
    await trio.testing.wait_all_tasks_blocked()
    while systemd.listen():
        pass
    systemd.keeps = True
    with trio.fail_after(5):
        while not systemd.kept:
            systemd.listen()
            await trio.sleep(0.01)


def test_what_is_put_stays_open_and_a_parcel_that_nobody_keeps_is_destroyed(pair):
    ours, peer = pair()
    before = open_descriptors()
    parcel = Parcel()
    parcel.put(b"x", [ours.fileno()])
    elsewhere = [os.dup(each) for each in parcel.ends]
    parcel.close()
    assert contents(elsewhere) == []
    ours.sendall(b"goes on")
    assert peer.recv(100) == b"goes on"
    assert open_descriptors() == before


def test_thousands_of_sessions_take_few_entries(pair):
    sessions = [each.fileno() for each in pair()] * (MOST_DESCRIPTORS // 2)
    parcel = Parcel()
    count = 5000 * 2 // MOST_DESCRIPTORS + 1
    for number in range(count):
        parcel.put(b"%d" % number, sessions)
    assert len(parcel.ends) == 1
    elsewhere = [os.dup(each) for each in parcel.ends]
    assert contents(elsewhere) == [(b"%d" % each, len(sessions)) for each in range(count)]
    parcel.close()


def test_a_queue_that_is_full_gets_a_second_one_beside_it(pair):
    before = open_descriptors()
    parcel = Parcel()
    puts = 0
    while len(parcel.ends) < 3:
        parcel.put(b"%d" % puts, [])
        puts += 1
    elsewhere = [os.dup(each) for each in parcel.ends]
    assert [content for content, _ in contents(elsewhere)] == [b"%d" % each for each in range(puts)]
    parcel.close()
    assert open_descriptors() == before


def put_for_ever(parcel, puts):
    for number in puts:
        parcel.put(b"%d" % number, [])


def test_more_than_fits_is_an_error_and_what_was_put_is_there():
    parcel = Parcel()
    puts = iter(range(1_000_000))
    with pytest.raises(OSError, match="the queues are full"):
        put_for_ever(parcel, puts)
    assert len(parcel.ends) == MOST_KEPT
    found = contents([os.dup(each) for each in parcel.ends])
    assert len(found) == next(puts) - 1
    parcel.close()


@pytest.mark.parametrize("count", [MOST_DESCRIPTORS + 1, 1000])
def test_more_descriptors_than_a_packet_takes_are_an_error(count):
    parcel = Parcel()
    with pytest.raises(OSError, match=f"{count} descriptors"):
        parcel.put(b"", [0] * count)
    parcel.close()


def packet_of(word, *descriptors):
    """A queue with one packet, as another release may have left it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        ours.sendmsg([word], rights if descriptors else [])
    for each in descriptors:
        os.close(each)
    return theirs.detach()


def test_what_is_not_understood_is_closed_and_told_and_the_rest_goes_on(pair, caplog):
    before = open_descriptors()
    parcel = Parcel()
    parcel.put(b"x", [])
    good = [os.dup(each) for each in parcel.ends]
    readable, writable = os.pipe()
    os.close(writable)
    file = os.memfd_create("x")
    kept = [
        readable,
        file,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach(),
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
        packet_of(b"proxyd kept 2", os.memfd_create("x")),
        packet_of(b"proxyd kept 1"),
        packet_of(b"proxyd kept 1", *os.pipe()),
        packet_of(b"\xff" * 1000, os.memfd_create("x")),
        *good,
    ]
    assert contents(kept) == [(b"x", 0)]
    parcel.close()
    assert open_descriptors() == before
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 8
    assert len({each.partition(": ")[2] for each in caplog.messages}) >= 5
    assert not any("\n" in each for each in caplog.messages)


def test_many_packets_that_are_not_understood_are_one_line(caplog):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        for _ in range(50):
            ours.send(b"proxyd kept 2")
    assert contents([theirs.detach()]) == []
    assert len(caplog.messages) == 1


def test_descriptors_that_have_no_room_are_told_and_nothing_is_left_open(parcel, pair, caplog):
    ours, peer = pair()
    parcel.put(b"x", [ours.fileno()] * 200)
    kept = [os.dup(each) for each in parcel.ends]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free() + 10, limits[1]))
    try:
        found = contents(kept)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found == []
    assert "descriptors were lost: is LimitNOFILE large enough?" in caplog.text
    ours.close()
    assert peer.recv(100) == b""


def test_what_a_packet_says_cannot_be_changed_any_more(pair):
    parcel = Parcel()
    parcel.put(b"x", [])
    (end,) = [os.dup(each) for each in parcel.ends]
    with socket.socket(fileno=end) as queue:
        _, (file,), _, _ = socket.recv_fds(queue, 100, 1)
    with pytest.raises(PermissionError):
        os.pwrite(file, b"y", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(file, 0)
    os.close(file)
    parcel.close()
