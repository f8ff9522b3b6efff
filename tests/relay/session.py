"""One session on socket pairs, in a relay whose loop turns when it is told to."""

import os
import socket
import time

from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.relay.guards import GUARDED
from proxyd.relay.loop import RelayLoop
from proxyd.relay.pair import RelayedPair
from proxyd.relay.parting import MOST
from tests.relay.receiver import Receiver

DEADLINE_S = 5
SMALL_BUFFER = 4608  # about the least that the kernel grants


def open_descriptors():
    assert COURIERS.dismiss(10)
    return len(os.listdir("/proc/self/fd"))


def unix_pair():
    return socket.socketpair()


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def endpoint_on(sock):
    return UnixEndpoint(sock) if sock.family == socket.AF_UNIX else PlainEndpoint(sock)


class HandTurned:
    """`client` and `daemon` are the outer sockets, `at_client` and `at_daemon` their receivers."""

    def __init__(
        self,
        *,
        pair=unix_pair,
        client_end=endpoint_on,
        daemon_end=endpoint_on,
        buffer=None,
        readonly=False,
        guards=GUARDED,
        asked=True,
        parting_s=0,
        partings=MOST,
        beside=None,
    ):
        self._readonly = readonly
        self._asked = asked
        self._guards = guards
        self.reported = []
        self.parting_s = parting_s
        self.loop = RelayLoop(
            report=self.reported.append,
            parting_timeout_s=lambda: self.parting_s,
            partings=partings,
            beside=beside,
        )
        self._sockets = []
        self._number = 0
        self._closed = False
        self.client, self.daemon, self.pair = self.open(
            pair=pair, client_end=client_end, daemon_end=daemon_end, buffer=buffer
        )
        self.at_client = Receiver.at_client(self.client)
        self.at_daemon = Receiver.at_daemon(self.daemon)
        self.loop.turn(0)

    def open(self, *, pair=unix_pair, client_end=endpoint_on, daemon_end=endpoint_on, buffer=None):
        """One more session in the same loop: its two outer sockets and its pair."""
        client, near = pair()
        daemon, far = pair()
        if buffer is not None:
            for sock in (client, near, daemon, far):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._sockets += [client, daemon]
        self._number += 1
        ends = client_end(near), daemon_end(far)
        # As the control plane does for the client; and the daemon has been asked for some.
        for end in ends if self._asked else ends[:1]:
            if end.carries_descriptors and not self._readonly:
                end.take_descriptors()
        relayed = RelayedPair(
            self._number,
            *ends,
            pipes=self.loop.pipes,
            figures=self.loop.figures,
            now_ns=time.monotonic_ns(),
            readonly=self._readonly,
            guards=self._guards,
            daemon=f"/daemon/{self._number % 2}",
            parts=self.parting_s > 0,
        )
        self.loop.adopt(relayed)
        client.setblocking(False)
        daemon.setblocking(False)
        return client, daemon, relayed

    @property
    def up(self):
        return self.pair.up

    @property
    def down(self):
        return self.pair.down

    @property
    def ended(self):
        return self.pair in self.reported

    @property
    def reason(self):
        return self.pair.reason

    def turn(self, times=1):
        for _ in range(times):
            self.loop.turn(0)

    def turn_until(self, condition):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"it never came so far: {self._state()}"
            self.loop.turn(0)

    def come_to_rest(self):
        """Turns until nothing changes any more; nobody outside takes anything meanwhile."""
        quiet, state = 0, self._state()
        while quiet < 3:
            self.loop.turn(0.001 if self._carrying else 0)
            quiet = quiet + 1 if self._state() == state and not self._carrying else 0
            state = self._state()

    def relay(self):
        """Turns and takes at both outer sides until nothing changes any more."""
        quiet, state = 0, self._state()
        while quiet < 3:
            self.loop.turn(0.001 if self._carrying else 0)
            self.at_client.take()
            self.at_daemon.take()
            quiet = quiet + 1 if self._state() == state and not self._carrying else 0
            state = self._state()

    def send(self, sock, wire):
        """Sends all of it, however little fits at a time, while both outer sides are read."""
        rest = memoryview(wire)
        deadline = time.monotonic() + DEADLINE_S
        while rest:
            assert time.monotonic() < deadline, f"{len(rest)} bytes were not taken"
            rest = rest[fill(sock, rest) :]
            self.loop.turn(0)
            self.at_client.take()
            self.at_daemon.take()
        self.relay()

    def waits(self, timeout_s=0.03):
        """Whether a turn has nothing to do and really waits."""
        began = time.monotonic()
        self.loop.turn(timeout_s)
        return time.monotonic() - began >= timeout_s * 0.9

    def close(self):
        if self._closed:
            return
        self._closed = True
        for sock in self._sockets:
            sock.close()
        self.loop.stop("the test is over")
        self.loop.run()

    @property
    def _carrying(self):
        """Another process has something to do."""
        return self.up.errand is not None or self.down.errand is not None

    def _state(self):
        flows = [
            (flow.moved, flow.stalled, flow.paused, flow.ended, flow.done, flow.refusals)
            for flow in (self.up, self.down)
        ]
        return flows, self.at_client.taken, self.at_daemon.taken, len(self.reported)


def fill(sock, wire):
    """Sends what the socket takes now; returns how much that was."""
    try:
        return sock.send(wire)
    except BlockingIOError:
        return 0


def fill_up(sock, wire):
    """Sends until the socket is full; returns how much that was."""
    sent = 0
    while sent < len(wire):
        more = fill(sock, wire[sent:])
        if not more:
            break
        sent += more
    return sent
