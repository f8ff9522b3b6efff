"""A security layer that numbers and checks its tokens, and a client's socket below one."""

import hashlib
import hmac
import socket

from proxyd.endpoint.plain import PlainEndpoint
from proxyd.endpoint.sasl import SaslEndpoint

KEY = b"of both sides"
INVERTED = bytes(range(255, -1, -1))
OVERHEAD = 8
LONGEST_TOKEN = 65536


class FakeLayer:
    """Bytes are turned around, so that nothing passes as it is; a token fits one place only."""

    def __init__(self, longest_token=LONGEST_TOKEN):
        self.longest_token = longest_token
        self.longest_plain = longest_token - OVERHEAD
        self.wrapped = self.unwrapped = 0
        self.moved = False

    @classmethod
    def from_state(cls, state):
        layer = cls(state["longest_token"])
        layer.wrapped, layer.unwrapped = state["wrapped"], state["unwrapped"]
        return layer

    def state(self):
        self.moved = True
        return {
            "longest_token": self.longest_token,
            "wrapped": self.wrapped,
            "unwrapped": self.unwrapped,
        }

    def go_on(self):
        self.moved = False

    def wrap(self, plain):
        assert not self.moved
        assert 0 < len(plain) <= self.longest_plain
        self.wrapped += 1
        return seal(self.wrapped, plain) + inverted(plain)

    def unwrap(self, token):
        assert not self.moved
        plain = inverted(token[OVERHEAD:])
        self.unwrapped += 1
        if token[:OVERHEAD] != seal(self.unwrapped, plain):
            raise ValueError("a token that is not the next one")
        return plain


def inverted(plain):
    return plain.translate(INVERTED)


def seal(number, plain):
    return hmac.digest(KEY, number.to_bytes(8, "big") + plain, hashlib.sha256)[:OVERHEAD]


def framed(token):
    return len(token).to_bytes(4, "big") + token


class SaslPeer:
    """The client's side: the methods of a blocking socket that the tests need."""

    def __init__(self, sock, longest_token=LONGEST_TOKEN):
        self.sock = sock
        self.layer = FakeLayer(longest_token)
        self.family = sock.family
        self.held = b""
        self.plain = b""

    def token(self, plain):
        """The next token, with its length."""
        return framed(self.layer.wrap(plain))

    def sendall(self, data):
        for at in range(0, len(data), self.layer.longest_plain):
            self.sock.sendall(self.token(bytes(data[at : at + self.layer.longest_plain])))

    def recv(self, size):
        while not self.plain:
            length = int.from_bytes(self.held[:4], "big")
            if len(self.held) >= 4 and len(self.held) >= 4 + length:
                token, self.held = self.held[4 : 4 + length], self.held[4 + length :]
                self.plain = self.layer.unwrap(token)
                continue
            more = self.sock.recv(1 << 20)
            if not more:
                return b""
            self.held += more
        taken, self.plain = self.plain[:size], self.plain[size:]
        return taken

    def shutdown(self, how):
        self.sock.shutdown(how)

    def settimeout(self, seconds):
        self.sock.settimeout(seconds)

    def setsockopt(self, *option):
        self.sock.setsockopt(*option)

    def close(self):
        self.sock.close()


def layered(near: socket.socket, far: socket.socket, longest_token=LONGEST_TOKEN):
    """A peer, and the endpoint that it talks with."""
    peer = SaslPeer(near, longest_token)
    return peer, SaslEndpoint(PlainEndpoint(far), FakeLayer(longest_token))
