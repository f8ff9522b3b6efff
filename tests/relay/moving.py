"""Sessions that move between two relay loops, as they would between two processes."""

import base64
import json
import os
import socket
from contextlib import suppress

from proxyd.endpoint.moving import endpoint_from
from proxyd.relay.figures import DirectionFigures
from proxyd.relay.loop import RelayLoop
from proxyd.relay.moving import ends_in, pair_from
from proxyd.relay.trail import Trail
from tests.fakes.endpoints import HesitantEndpoint
from tests.fakes.layer import FakeLayer, SaslPeer
from tests.relay.session import HandTurned


def to_text(state):
    """JSON, where bytes are a table of one field."""
    return json.dumps(state, default=lambda raw: {"bytes": base64.b64encode(raw).decode()})


def from_text(text):
    return json.loads(text, object_hook=_bytes_again)


def _bytes_again(found):
    return base64.b64decode(found["bytes"]) if found.keys() == {"bytes"} else found


class Travelling(HandTurned):
    """`move` takes its pair to the other one of its two loops. `trail` makes what records it, and
    `pace` is what it has after its first move."""

    def __init__(self, *, trail=lambda: None, layer_from=FakeLayer.from_state, pace=None, **kind):
        super().__init__(**kind)
        self._pace = pace
        self._layer_from = layer_from
        self._trail = trail
        self.pair.record(trail())
        self.pair.stopwatch._clock = self.loop.clock
        self.moves = 0
        self.other = RelayLoop(
            report=self.reported.append, parting_timeout_s=lambda: self.parting_s, name="other"
        )

    def freeze(self):
        """The pair, out of its loop; None where it cannot move now."""
        got = []
        self.loop.freeze(self.pair.number, got.append)
        self.loop.turn(0)
        (frozen,) = got
        return frozen

    def restored(self, state, sockets, loop=None):
        loop = loop or self.other
        of_client, of_backend = ends_in(state)
        return pair_from(
            state,
            self._end(of_client, sockets[0], self.pair.client.endpoint),
            self._end(of_backend, sockets[1], self.pair.backend.endpoint),
            pipes=loop.pipes,
            figures_of=lambda _daemon: loop.figures,
            clock=loop.clock,
            guards=self._guards,
            trail=self._trail(),
            pace=self._pace,
        )

    def _end(self, state, sock, before):
        end = endpoint_from(state, sock, self._layer_from)
        if isinstance(before, HesitantEndpoint):
            return HesitantEndpoint(sock, before.takes, looks=state["looks"])
        return end

    def move(self, *, early=False):
        """Whether it could. `early`: the copies of the loop that it leaves close first."""
        frozen = self.freeze()
        if frozen is None:
            return False
        state = from_text(to_text(frozen.state))
        sockets = [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]
        pair = self.restored(state, sockets)
        if not early:
            self.other.resume(pair)
            self.other.turn(0)
        self.loop.let_go(frozen)
        self.loop.turn(0)
        if early:
            self.other.resume(pair)
            self.other.turn(0)
        self.pair = pair
        self.loop, self.other = self.other, self.loop
        self.moves += 1
        return True

    @property
    def loops(self):
        return self.loop, self.other

    @property
    def figures(self):
        """Of both loops together."""
        return {
            (way, name): [
                sum(each)
                for each in zip(
                    *(getattr(getattr(loop.figures, way), name) for loop in self.loops), strict=True
                )
            ]
            for way in ("up", "down")
            for name in DirectionFigures.__slots__
        }

    @property
    def timed(self):
        """Calls that were timed, in both loops."""
        return sum(
            sum(times.counts)
            for loop in self.loops
            for times in loop.figures.call_time
            if times is not None
        )

    @property
    def counted(self):
        return [
            (
                flow.moved,
                flow.calls,
                flow.errors,
                flow.refusals,
                flow.denials,
                flow.forbidden,
                flow.keepalives,
            )
            for flow in (self.up, self.down)
        ]

    def close(self):
        for sock in self._sockets:
            sock.close()
        for loop in self.loops:
            if not loop._closed:
                loop.stop("the test is over")
                loop.run()


class Recorder:
    """Keeps what is recorded."""

    refuses = False

    def __init__(self):
        self.calls = []

    def trail(self):
        return Trail("somebody", self, reads=True)

    def put_call(self, call):
        self.calls.append((call.program, call.procedure, call.serial, call.about, call.outcome))


class SaslSocket(SaslPeer):
    """A client's socket that never waits, for those who fill and take."""

    def __init__(self, sock, longest_token):
        super().__init__(sock, longest_token)
        self.unsent = b""

    def send(self, wire):
        """Bytes taken: in tokens of which the last one may still be on its way."""
        taken = 0
        while True:
            self.flush()
            if self.unsent:
                break
            if taken == len(wire):
                break
            part = bytes(wire[taken : taken + self.layer.longest_plain])
            self.unsent = self.token(part)
            taken += len(part)
        if not taken and wire:
            raise BlockingIOError
        return taken

    def flush(self):
        with suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def recv(self, size):
        self.flush()
        return super().recv(size)

    def setblocking(self, flag):
        self.sock.setblocking(flag)

    def fileno(self):
        return self.sock.fileno()
