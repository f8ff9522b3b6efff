"""An endpoint whose bytes go through a SASL security layer: 4 bytes of length, then a token.

Source: docs/protocol/sasl.md, section 4. The layer is whatever wraps
and unwraps; both planes drive the endpoint, one after the other.

What such a layer does that a bare socket does not:

* Tokens know nothing of frames, and the socket nothing of tokens. What came of a token in parts is
  held back, at most one token and one receive. What a token brought beyond the caller's buffer, or
  a further token that came with it, is there although the socket may be empty: `pending`.
* A token that the socket did not take whole must go out as it is, because the layer counts its
  tokens. Its plain bytes are not reported as taken until then; by the contract they come again, in
  front of the next offer, and are passed over.
* A token that is too long, empty, or not the next one of this peer ends the session: nothing behind
  it could be believed.
"""

from typing import Final, Protocol

from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.plain import PlainEndpoint, hung_up
from proxyd.wire.state import State, content, part, taken, whole

_LENGTH_SIZE: Final = 4
_RECEIVE: Final = 65536 + _LENGTH_SIZE  # the longest token of any libvirt client, in one call
# What there may be at most: of tokens a whole one and what one receive brought behind it.
_MOST_HELD: Final = 2 * _RECEIVE
_FIELDS: Final = {
    "kind": lambda _kind: None,
    "below": part,
    "layer": part,
    "held": content(_MOST_HELD),
    "plain": content(_RECEIVE),
    "unsent": content(_RECEIVE),
    "wrapped": whole(_RECEIVE),
}
_LOOKED_AT: Final = memoryview(bytearray(_RECEIVE))  # nobody reads it, so anybody may write to it


class Layer(Protocol):
    """A security layer that was negotiated; each direction is used by one thread at a time.

    `longest_token` is what the peer may send in one token, `longest_plain` what one of ours may
    hold so that the peer takes it.
    """

    @property
    def longest_token(self) -> int: ...

    @property
    def longest_plain(self) -> int: ...

    def wrap(self, plain: bytes) -> bytes:
        """Raises ValueError when it cannot be done any more; its text is for the log."""

    def unwrap(self, token: bytes) -> bytes:
        """Raises ValueError for anything but the peer's next token; its text is for the log."""

    def state(self) -> State:
        """What another one goes on with in its place. Raises ValueError where that cannot be."""

    def go_on(self) -> None:
        """None has gone on: it is used again. Raises ValueError where that cannot be."""


class SaslEndpoint:
    """A bare endpoint below a layer that is in force from its next byte on, and that owns it."""

    __slots__ = ("_bare", "_held", "_layer", "_plain", "_unsent", "_wrapped", "pending")

    may_splice = False
    carries_descriptors = False
    moves = True
    reads_when_writable = False

    def __init__(self, bare: PlainEndpoint, layer: Layer) -> None:
        self._bare = bare
        self._layer = layer
        self._held = bytearray()  # tokens as they came, the last one perhaps in part
        self._plain = memoryview(b"")  # of a token, not yet taken
        self._unsent = bytearray()  # of our own token
        self._wrapped = 0  # how many plain bytes that token stands for
        self.pending = False

    def fileno(self) -> int:
        return self._bare.fileno()

    def read_into(self, view: memoryview) -> int:
        """One token's bytes at most, so that a broken token costs nothing of what came before."""
        while not self._plain:
            if not self._is_next_whole():
                got = self._receive()
                if got <= 0:
                    return got
            else:
                self._plain = memoryview(self._unwrapped())
        part = self._plain[: len(view)]
        view[: len(part)] = part
        self._plain = self._plain[len(part) :]
        self.pending = bool(self._plain) or self._is_next_whole()
        return len(part)

    def _receive(self) -> int:
        """Bytes added to the tokens held; 0 at the end, NOTHING when there are none now.

        DESCRIPTOR where some ride on the next byte: no token of this layer has any.
        """
        self.pending = False
        count = self._bare.plain_bytes(_LOOKED_AT)
        if count <= 0:
            return count
        try:
            received = self._bare.receive(count)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            raise hung_up(error, while_writing=False) from error
        self._held += received
        return len(received)

    def _next_length(self) -> int:
        return int.from_bytes(self._held[:_LENGTH_SIZE], "big")

    def _is_next_whole(self) -> bool:
        """Whether a token can be unwrapped, or refused for its length."""
        if len(self._held) < _LENGTH_SIZE:
            return False
        length = self._next_length()
        return length > self._layer.longest_token or len(self._held) >= _LENGTH_SIZE + length

    def _unwrapped(self) -> bytes:
        """What is in the next token; never empty, or nobody would end the caller's loop."""
        length = self._next_length()
        if not 0 < length <= self._layer.longest_token:
            raise HungUp(f"SASL: a token of {length} bytes", while_writing=False)
        token = bytes(self._held[_LENGTH_SIZE : _LENGTH_SIZE + length])
        del self._held[: _LENGTH_SIZE + length]
        try:
            plain = self._layer.unwrap(token)
        except ValueError as error:
            raise HungUp(f"SASL: {error}", while_writing=False) from error
        if not plain:
            raise HungUp("SASL: a token with nothing in it", while_writing=False)
        return plain

    def write(self, view: memoryview) -> int:
        taken = 0
        while True:
            if self._unsent:
                if not self._sent():
                    return taken
                taken += self._wrapped
            if taken >= len(view):
                return taken
            plain = bytes(view[taken : taken + self._layer.longest_plain])
            token = self._wrap(plain)
            self._unsent += len(token).to_bytes(_LENGTH_SIZE, "big")
            self._unsent += token
            self._wrapped = len(plain)

    def _wrap(self, plain: bytes) -> bytes:
        try:
            return self._layer.wrap(plain)
        except ValueError as error:
            raise HungUp(f"SASL: {error}", while_writing=True) from error

    def _sent(self) -> bool:
        """Whether the socket has taken the rest of our token."""
        try:
            sent = self._bare.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError as error:
            raise hung_up(error, while_writing=True) from error
        del self._unsent[:sent]
        return not self._unsent

    def take_descriptors(self) -> None:
        raise NotImplementedError("what is wrapped carries no descriptors")

    def splice_to(self, pipe: int, count: int) -> int:
        raise NotImplementedError("what is wrapped cannot be spliced")

    def splice_from(self, pipe: int, count: int) -> int:
        raise NotImplementedError("what is wrapped cannot be spliced")

    def end_write(self) -> None:
        self._bare.end_write()

    def close(self) -> None:
        self._bare.close()

    def state(self) -> State:
        return {
            "kind": "sasl",
            "below": self._bare.state(),
            "layer": self._layer.state(),
            "held": bytes(self._held),
            "plain": bytes(self._plain),
            "unsent": bytes(self._unsent),
            "wrapped": self._wrapped,
        }

    def take_up(self, state: State) -> None:
        """Goes on where another one stood, with its socket and its layer. Raises ValueError."""
        found = taken(state, _FIELDS)
        unsent, wrapped = found["unsent"], found["wrapped"]
        if unsent and not 0 < wrapped <= self._layer.longest_plain:
            raise ValueError("wrapped: no token holds so much")
        self._held += found["held"]
        self._plain = memoryview(found["plain"])
        self._unsent += unsent
        self._wrapped = wrapped
        self.pending = bool(self._plain) or self._is_next_whole()

    @property
    def owed(self) -> int:
        """Plain bytes of a token that the socket has not taken whole: they are offered again."""
        return self._wrapped if self._unsent else 0

    def go_on(self) -> None:
        self._layer.go_on()

    def let_go(self) -> None:
        self._bare.let_go()
