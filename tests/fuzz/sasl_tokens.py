"""Tokens of a SASL layer on a socket, in any cuts: what is in them arrives once and in order.

Compared with a parser that sees the whole stream. The other way round, what is written reaches a
peer that takes few bytes at a time.
"""

from collections import deque

from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.plain import PlainEndpoint
from proxyd.endpoint.sasl import SaslEndpoint
from tests.fakes.layer import OVERHEAD, FakeLayer, framed
from tests.fuzz.supply import Supply

LONGEST_TOKEN = 64
WORDS = (b"\0\0\0\x40", b"\0\0\0\x41", b"\0\0\0\0", b"\0\0\0\x09", b"\xff\xff\xff\xff")


class ScriptedSocket:
    """Gives `arriving` piece by piece, and takes as many bytes as the next of `takes` says."""

    def __init__(self, arriving, takes):
        self.arriving = deque(arriving)
        self.takes = deque(takes)
        self.taken = bytearray()
        self.ended = False

    def setblocking(self, _):
        pass

    def fileno(self):
        return -1

    def recv(self, size):
        if not self.arriving:
            if self.ended:
                return b""
            raise BlockingIOError
        piece = self.arriving.popleft()
        if len(piece) > size:
            self.arriving.appendleft(piece[size:])
        return piece[:size]

    def send(self, view):
        limit = self.takes.popleft() if self.takes else len(view)
        if not limit:
            raise BlockingIOError
        self.taken += view[:limit]
        return min(limit, len(view))


def one_input(data):
    supply = Supply(data)
    views = [1 + each for each in supply.bytes(supply.byte() % 4)] or [4096]
    takes = supply.bytes(supply.byte() % 16)
    written = [supply.piece() for _ in range(supply.byte() % 4)]
    pieces = arriving(supply)
    stream = b"".join(pieces)
    sock = ScriptedSocket([each for each in pieces if each], takes)
    endpoint = SaslEndpoint(PlainEndpoint(sock), FakeLayer(LONGEST_TOKEN))
    plain, broken = unwrapped_slowly(stream)
    assert read_all(endpoint, sock, views) == (plain, broken)
    write_all(endpoint, b"".join(written))
    assert unwrapped_slowly(bytes(sock.taken)) == (b"".join(written), False)


def arriving(supply):
    """Tokens that are right, now and then bytes that are not, cut somewhere."""
    sender, stream = FakeLayer(LONGEST_TOKEN), bytearray()
    cuts = [1 + each for each in supply.bytes(supply.byte() % 8)] or [1 << 20]
    while supply.left:
        shape = supply.byte()
        if shape < 192:
            stream += framed(sender.wrap(bytes([shape]) * (1 + shape % (LONGEST_TOKEN - OVERHEAD))))
        elif shape < 208:
            stream += framed(supply.piece())
        else:
            stream += supply.piece()
    pieces, at, turn = [], 0, 0
    while at < len(stream):
        pieces.append(bytes(stream[at : at + cuts[turn % len(cuts)]]))
        at, turn = at + len(pieces[-1]), turn + 1
    return pieces


def unwrapped_slowly(stream):
    """All that the tokens hold up to the first that is wrong, and whether there is one."""
    layer, plain, at = FakeLayer(LONGEST_TOKEN), b"", 0
    while at + 4 <= len(stream):
        length = int.from_bytes(stream[at : at + 4], "big")
        if not 0 < length <= LONGEST_TOKEN:
            return plain, True
        token = stream[at + 4 : at + 4 + length]
        if len(token) < length:
            break
        try:
            inside = layer.unwrap(token)
        except ValueError:
            return plain, True
        if not inside:
            return plain, True
        plain += inside
        at += 4 + length
    return plain, False


def read_all(endpoint, sock, views):
    plain, turn = b"", 0
    while True:
        view = memoryview(bytearray(views[turn % len(views)]))
        turn += 1
        try:
            got = endpoint.read_into(view)
        except HungUp:
            return plain, True
        assert got != 0 or sock.ended
        if got == 0:
            return plain, False
        if got == NOTHING:
            assert not sock.arriving
            assert not endpoint.pending
            sock.ended = True
            continue
        plain += view[:got]


def write_all(endpoint, plain):
    """By the contract: what was not taken comes first in the next offer."""
    rest = memoryview(plain)
    while rest:
        taken = endpoint.write(rest)
        assert 0 <= taken <= len(rest)
        rest = rest[taken:]
