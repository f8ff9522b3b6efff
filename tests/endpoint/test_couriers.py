"""Couriers carry other people's descriptors: each user's own, and nobody waits for another's."""

import os
import resource
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from proxyd.endpoint import couriers
from proxyd.endpoint.couriers import Couriers
from proxyd.endpoint.errands import Errand
from tests.bed.waiting import wait_until
from tests.fakes.lingering import lingering

DEADLINE_S = 20
CARRIED = ""


@pytest.fixture
def hub():
    hub = Couriers()
    yield hub
    assert hub.dismiss(DEADLINE_S)


class Session:
    """`client` passes descriptors; what is carried arrives at `daemon`."""

    def __init__(self, hub, owner="joe"):
        self.hub, self.owner = hub, owner
        self.client, self._source = socket.socketpair()
        self.daemon, self._destination = socket.socketpair()
        self.said = []
        self._answered = threading.Event()

    def passes(self, *descriptors, content=b"\0"):
        socket.send_fds(self.client, [content], descriptors)

    def begin(self, *, nowhere=False):
        destination = None if nowhere else self._destination.fileno()
        errand = Errand(self._source.fileno(), destination, self._told)
        self.hub.carry(self.owner, errand)
        return errand

    def carry(self, **how):
        self._answered.clear()
        self.begin(**how)
        assert self._answered.wait(DEADLINE_S)
        return self.said[-1]

    def arrived(self):
        self.daemon.settimeout(DEADLINE_S)
        content, descriptors, _, _ = socket.recv_fds(self.daemon, 10, 10)
        assert content == b"\0"
        inodes = [os.fstat(each).st_ino for each in descriptors]
        for each in descriptors:
            os.close(each)
        return inodes

    def _told(self, reason):
        self.said.append(reason)
        self._answered.set()

    def close(self):
        for each in (self.client, self._source, self.daemon, self._destination):
            each.close()


@pytest.fixture
def make_session(hub):
    with ExitStack() as sessions:

        def make(owner="joe"):
            session = Session(hub, owner)
            sessions.callback(session.close)
            return session

        yield make


@pytest.fixture
def file(tmp_path):
    with (tmp_path / "file").open("w") as file:
        yield file.fileno()


def children():
    mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for thread in Path("/proc/self/task").iterdir():
        mine += (thread / "children").read_text().split()
    return {int(each) for each in mine if "courier.py" in Path(f"/proc/{each}/cmdline").read_text()}


def is_closed(other):
    """Waits until it is; with bytes in its queue that is a reset."""
    other.settimeout(DEADLINE_S)
    with suppress(ConnectionResetError):
        assert other.recv(1) == b""
    return True


def with_descriptors(*descriptors):
    """Two connected sockets; what the second one would read brings these."""
    other, near = socket.socketpair()
    socket.send_fds(other, [b"\0"], descriptors)
    return other, near


@contextmanager
def no_descriptor_left():
    """For what this process opens, until the block ends or closes some."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)


def test_a_descriptor_arrives_on_a_byte_of_its_own(make_session, file):
    session = make_session()
    for _ in range(3):
        session.passes(file)
        assert session.carry() == CARRIED
        assert session.arrived() == [os.fstat(file).st_ino]
    assert len(children()) == 1


def test_one_that_goes_nowhere_is_taken_off(make_session, file):
    session = make_session()
    session.passes(file)
    session.client.send(b"next")
    assert session.carry(nowhere=True) == CARRIED
    assert session._source.recv(10) == b"next"
    session.daemon.setblocking(False)
    with pytest.raises(BlockingIOError):
        session.daemon.recv(1)


@pytest.mark.parametrize("many", [2, 253])
def test_several_on_one_byte_are_refused(make_session, file, many):
    session = make_session()
    session.passes(*[file] * many)
    assert session.carry() == f"{many} descriptors where one was announced"
    session.daemon.setblocking(False)
    with pytest.raises(BlockingIOError):
        session.daemon.recv(1)


def test_a_byte_without_any_is_refused(make_session):
    session = make_session()
    session.client.send(b"\0")
    assert session.carry() == "0 descriptors where one was announced"


def test_nothing_at_all_is_refused(make_session):
    assert make_session().carry() == os.strerror(11)


def test_a_receiver_that_is_gone_is_told_of(make_session, file):
    session = make_session()
    session.passes(file)
    session.daemon.close()
    assert session.carry() == "Broken pipe"


def test_an_errand_that_was_cancelled_is_not_done(make_session, hub, file):
    session = make_session()
    other = make_session()
    session.passes(file)
    with hub._changed:  # its thread waits for that
        errand = session.begin()
        errand.cancel()
    other.passes(file)
    assert other.carry() == CARRIED
    assert session.said == []
    assert session._source.recv(10) == b"\0"


def test_a_close_that_lingers_keeps_nobody_else_waiting(make_session, file):
    slow, quick = make_session("joe"), make_session("ann")
    reader, sock = lingering()
    slow.passes(sock.fileno())
    sock.close()
    assert slow.carry(nowhere=True) == CARRIED  # and now its close waits
    began = time.monotonic()
    quick.passes(file)
    assert quick.carry() == CARRIED
    assert time.monotonic() - began < couriers.PATIENCE_S
    reader.close()


def test_the_same_users_next_one_gets_another_courier_then(make_session, file, monkeypatch):
    monkeypatch.setattr(couriers, "PATIENCE_S", 0.3)
    session = make_session()
    reader, sock = lingering()
    session.passes(sock.fileno())
    sock.close()
    assert session.carry(nowhere=True) == CARRIED
    (first,) = children()
    session.passes(file)
    assert session.carry() == CARRIED
    assert first not in children()
    reader.close()


def test_a_courier_that_dies_fails_one_errand_and_is_replaced(make_session, file):
    session = make_session()
    session.passes(file)
    session.carry()
    (courier,) = children()
    os.kill(courier, signal.SIGSTOP)
    session.passes(file)
    session.begin()
    os.kill(courier, signal.SIGKILL)
    wait_until(lambda: len(session.said) == 2, DEADLINE_S, "it is told")
    assert "courier" in session.said[1] or session.said[1] == CARRIED
    session.passes(file)
    assert session.carry() in (CARRIED, "2 descriptors where one was announced")


def test_a_courier_that_cannot_be_started_is_said_and_not_tried_without_end(
    make_session, file, monkeypatch, caplog
):
    tried = []

    def no_process():
        tried.append(True)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(couriers, "_start", no_process)
    session = make_session()
    session.passes(file)
    assert session.carry() == "no courier can be had for its descriptors"
    assert len(tried) == 1
    assert caplog.text.count("no courier for descriptors can be started") == 1


def test_one_that_does_not_die_makes_its_user_wait_and_nobody_else(
    make_session, hub, file, monkeypatch
):
    """What hangs in a file system does not die of SIGKILL; here a stand-in for its process."""
    monkeypatch.setattr(couriers, "_DYING_S", 0.1)
    told, immortal = [], []

    class Immortal(subprocess.Popen):
        def kill(self):
            immortal.append(self)

    hub.on_hanging = told.append
    session, other = make_session(), make_session("ann")
    session.passes(file)
    assert session.carry() == CARRIED
    (courier,) = children()
    with monkeypatch.context() as patch:
        patch.setattr(couriers.subprocess, "Popen", Immortal)
        assert hub.dismiss(DEADLINE_S)
        session.passes(file)
        assert session.carry() == CARRIED
    (courier,) = children()
    os.kill(courier, signal.SIGSTOP)
    session.passes(file)
    assert session.carry() == "it cannot be closed, or its receiver takes nothing"
    wait_until(lambda: hub.hangs("joe"), DEADLINE_S, "the user is known to hang")
    assert told == ["joe"]
    began = time.monotonic()
    assert session.carry() == "what its user has passed before cannot be closed"
    assert time.monotonic() - began < 1
    other.passes(file)
    assert other.carry() == CARRIED
    assert not hub.hangs("ann")
    os.kill(courier, signal.SIGKILL)
    wait_until(lambda: not hub.hangs("joe"), DEADLINE_S, "the user is served again")


def test_couriers_of_many_users_make_room_for_others(make_session, hub, file):
    hub.most = 2
    for owner in range(8):
        session = make_session(f"uid {owner}")
        session.passes(file)
        assert session.carry() in (CARRIED, "no courier can be had for its descriptors")
        assert len(children()) <= 4
    wait_until(lambda: len(children()) <= 2, DEADLINE_S, "those that have nothing to do leave")


def test_sockets_with_descriptors_in_them_are_closed_however_many(hub, file):
    before = len(os.listdir("/proc/self/fd"))
    others = []
    for _ in range(300):
        other, near = socket.socketpair()
        socket.send_fds(other, [b"\0"], [file] * 3)
        hub.bury(near)
        others.append(other)
    for other in others:
        assert is_closed(other)
        other.close()
    assert hub.dismiss(DEADLINE_S)
    assert len(os.listdir("/proc/self/fd")) == before


def no_thread(_thread):
    raise RuntimeError("can't start new thread")


def test_one_that_is_closed_before_its_courier_is_there_holds_up_nobody(hub, file):
    near, far = socket.socketpair()
    send(near, file)
    hub.bury(far)
    hub.bury(far)  # before its courier has started
    far.close()
    near.close()
    assert hub.settled(DEADLINE_S)


def test_what_is_let_go_is_not_shut_down(hub, file):
    near, far = socket.socketpair()
    send(near, file)
    elsewhere = far.dup()
    hub.let_go(far)
    hub.let_go(far)
    assert hub.settled(DEADLINE_S)
    wait_until(lambda: far.fileno() < 0, DEADLINE_S, "our copy is closed")
    near.send(b"more")
    assert elsewhere.recv(10) == b"\0"
    assert elsewhere.recv(10) == b"more"
    near.close()
    elsewhere.close()


def send(sock, descriptor):
    socket.send_fds(sock, [b"\0"], [descriptor])


@pytest.mark.parametrize("why", ["too many", "no thread"])
def test_what_nobody_can_be_had_for_is_not_closed_here_but_later(hub, monkeypatch, why):
    reader, sock = lingering()
    other, near = with_descriptors(sock.fileno())
    sock.close()
    with monkeypatch.context() as patch:
        if why == "too many":
            patch.setattr(hub, "most", 0)
        else:
            patch.setattr(couriers.threading.Thread, "start", no_thread)
        began = time.monotonic()
        hub.bury(near)
        del near  # who lets go of it last closes it
        assert not hub.settled(0)
        assert time.monotonic() - began < couriers.PATIENCE_S
    assert hub.settled(DEADLINE_S)
    assert is_closed(other)
    other.close()
    reader.close()


def test_that_descriptors_have_run_out_keeps_none_from_being_closed(hub, make_session, file):
    session = make_session("ann")
    session.passes(file)
    assert session.carry() == CARRIED
    other, near = with_descriptors(file)
    with no_descriptor_left():
        hub.bury(near)
        assert hub.settled(DEADLINE_S)
    assert is_closed(other)
    other.close()


@pytest.fixture
def hangs(hub, make_session, file, monkeypatch):
    """Joe does, until this is called."""
    monkeypatch.setattr(couriers, "PATIENCE_S", 0.1)
    monkeypatch.setattr(couriers, "_DYING_S", 0.1)

    class Immortal(subprocess.Popen):
        def kill(self):
            """As if it could not be."""

    session = make_session("joe")
    session.passes(file)
    with monkeypatch.context() as patch:
        patch.setattr(couriers.subprocess, "Popen", Immortal)
        assert session.carry() == CARRIED
    (courier,) = children()
    os.kill(courier, signal.SIGSTOP)
    session.passes(file)
    session.carry()
    wait_until(lambda: hub.hangs("joe"), DEADLINE_S, "joe hangs")
    return lambda: os.kill(courier, signal.SIGKILL)


@pytest.mark.parametrize("queue", [1, 1 << 24])
def test_what_comes_from_one_who_hangs_leaves_this_process(hub, file, hangs, monkeypatch, queue):
    """The courier's queue takes some of it, and then those of others do."""
    monkeypatch.setattr(couriers, "_QUEUED", queue)
    monkeypatch.setattr(couriers, "owner_of", lambda _: "joe")
    before = len(os.listdir("/proc/self/fd"))
    others = []
    for _ in range(1000):
        other, near = with_descriptors(file)
        others.append(other)
        hub.bury(near)
    assert hub.settled(DEADLINE_S)
    assert len(os.listdir("/proc/self/fd")) < before + len(others) + 20
    assert hub.hangs("joe")
    hangs()
    wait_until(lambda: not hub.hangs("joe"), DEADLINE_S, "joe is served again")
    for other in others:
        assert is_closed(other)
        other.close()
    assert hub.dismiss(DEADLINE_S)
    assert not children()


def test_one_who_hangs_keeps_what_others_leave_when_there_are_too_many(hub, file, hangs):
    hub.most = 0
    other, near = with_descriptors(file)
    hub.bury(near)
    assert hub.settled(DEADLINE_S)
    hangs()
    assert is_closed(other)
    other.close()
