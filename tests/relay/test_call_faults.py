"""Every system call of the relay fails once, with everything that the kernel can be short of."""

import errno
import socket
import threading
from collections import Counter
from contextlib import suppress

import pytest

from proxyd.wire import failure
from tests.fakes.failing_calls import SHORTAGES, failing_calls
from tests.relay import frames
from tests.relay.receiver import Receiver
from tests.relay.session import (
    fill,
    open_descriptors,
    tcp_pair,
    unix_pair,
)

LONG = 300_000
BUFFER = 65536
REFUSED = failure.identity_is_fixed().reply_to(frames.Arrived(frames.set_identity(3)).header).pack()


@pytest.fixture
def calls():
    with failing_calls() as watched:
        yield watched


class Talk:
    """One session from its adoption to its end, and all that was given to it."""

    def __init__(self, beside, pair):
        self.loop = beside.loop
        self.reported = beside.reported
        self.client, self.daemon, self.pair = beside.open(pair=pair, buffer=BUFFER)
        self.at_client = Receiver.at_client(self.client)
        self.at_daemon = Receiver.at_daemon(self.daemon)
        self.up, self.down = [], []  # the frames that each side sent
        self.hung_up = False

    @property
    def ended(self):
        return self.pair in self.reported

    def sends_up(self, wire, *, descriptor=None, answered=None):
        """What the daemon is to get, or the answer that the client gets instead."""
        if answered is None:
            self.up.append(wire)
        else:
            self.down.append(answered)
        self._send(self.client, wire, descriptor)

    def sends_down(self, wire, *, descriptor=None):
        self.down.append(wire)
        self._send(self.daemon, wire, descriptor)

    def turn(self):
        """Both outer sides behave: who is told that nothing follows has nothing more to say."""
        self.loop.turn(0)
        for receiver in (self.at_client, self.at_daemon):
            receiver.take()
            if (receiver.ended or receiver.reset) and not self.hung_up:
                receiver.sock.close()

    def rest(self):
        """Until nothing changes any more."""
        quiet, state = 0, None
        while quiet < 3:
            self.turn()
            now = (self.at_client.taken, self.at_daemon.taken, self.pair.up.moved, self.ended)
            carrying = self.pair.up.errand is not None or self.pair.down.errand is not None
            quiet, state = (quiet + 1 if now == state and not carrying else 0), now

    def _send(self, sock, wire, descriptor):
        rest = memoryview(wire)
        try:
            while rest and sock.fileno() != -1:
                rest = rest[fill(sock, rest) :]
                self.turn()
            if descriptor is not None and sock.fileno() != -1:
                frames.send_descriptor(sock, descriptor)
        except (BrokenPipeError, ConnectionResetError, PermissionError):
            sock.close()
        self.rest()

    def close(self):
        self.client.close()
        self.daemon.close()

    def hangs_up(self):
        """The client ends its half, and is answered all the same."""
        self.hung_up = True
        self._shut(self.client)
        self.sends_down(frames.reply(9))
        self._shut(self.daemon)

    def _shut(self, sock):
        with suppress(OSError):  # it is closed, or its other end is
            sock.shutdown(socket.SHUT_WR)
        self.rest()


def whole_life(beside, pair, file):
    """Everything that a session can do: small, long, with a descriptor, refused, half-closed."""
    talk = Talk(beside, pair)
    talk.rest()
    talk.sends_up(frames.call(1))
    talk.sends_down(frames.reply(1))
    for serial in (2, 3):
        talk.sends_up(frames.packet(LONG, serial))
        talk.sends_down(frames.packet(LONG, serial))
    talk.sends_up(frames.set_identity(3), answered=REFUSED)
    if pair is unix_pair:
        talk.sends_up(frames.call_with_descriptors(1, 4), descriptor=file)
        talk.sends_down(frames.reply_with_descriptors(1, 4), descriptor=file)
    talk.sends_up(frames.call(5))
    talk.hangs_up()
    return talk


def arrived_so_far(receiver):
    return b"".join(receiver.wires) + receiver.cut_off


def works(beside):
    before = beside.at_daemon.taken, beside.at_client.taken
    beside.send(beside.client, frames.call(1))
    beside.send(beside.daemon, frames.reply(1))
    return (beside.at_daemon.taken - before[0], beside.at_client.taken - before[1]) == (28, 28)


def check(talk):
    """It has ended, once, and what arrived is what was sent, at least up to some byte of it."""
    assert talk.reported.count(talk.pair) == 1
    assert talk.pair.reason
    assert b"".join(talk.up).startswith(arrived_so_far(talk.at_daemon))
    assert b"".join(talk.down).startswith(arrived_so_far(talk.at_client))


def is_whole(talk):
    return (talk.at_daemon.wires, talk.at_client.wires) == (talk.up, talk.down)


@pytest.mark.parametrize("number", SHORTAGES, ids=errno.errorcode.get)
@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_whichever_call_fails_costs_one_session_at_the_most(
    start, files, calls, caplog, pair, number
):
    beside = start()
    descriptors, threads = open_descriptors(), others_than_couriers()
    with calls.active():
        clean = whole_life(beside, pair, files[0])
    clean.close()
    check(clean)
    assert is_whole(clean)
    made, whole = len(calls.made), 0
    assert made > 30
    for nth in range(made):
        with calls.active(nth, number):
            talk = whole_life(beside, pair, files[0])
        check(talk)
        talk.close()
        whole += is_whole(talk)
        assert works(beside), calls.failed
        beside.loop.pipes.close()
        assert open_descriptors() == descriptors, calls.failed
        assert (beside.loop.bugs, caplog.records) == (0, []), calls.failed
    assert (
        others_than_couriers() - threads == Counter()
    )  # trio's idle ones may have ended meanwhile
    assert 0 < whole < made


def others_than_couriers():
    names = [each.name for each in threading.enumerate()]
    return Counter(name for name in names if not name.startswith("courier"))
