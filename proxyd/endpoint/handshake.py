"""A TLS handshake of which OpenSSL sees one record after the other, and not too many.

OpenSSL by itself reads a handshake off the socket for as long as something is there: 128 KiB of
hello, 100 of certificates, in records of one byte if the peer likes that, two system calls for
each. That takes up to 30 ms of a processor, and pyOpenSSL has no call to lower the limits. So here
the records are read, counted and handed to OpenSSL through memory; what it says goes the same way.

Nothing behind the handshake may be read, because it could not be put back for OpenSSL to find it
when the socket is its own afterwards. Until records are encrypted the handshake's are told by their
type. Of those behind a change of cipher (TLS 1.2) or of TLS 1.3's encrypted ones each could be the
last, so these go one by one.

Of several contexts a client gets the first that suits it, which OpenSSL alone can say: what the
client has sent so far is shown to one after the other until one has an answer. What OpenSSL says to
the client when a context does not suit is kept back; it finds that out before it signs anything.
"""

import contextlib
import socket
from collections.abc import Iterable
from typing import Final

from OpenSSL import SSL

from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.hello import offered_signatures

# Mutual TLS with three certificates of ML-DSA-87 takes 31 KiB, with those of today's kinds 2 to 6.
LONGEST_HANDSHAKE: Final = 36864
MOST_RECORDS: Final = 128  # with 512 bytes in each (RFC 6066) that is still more

_HEADER_SIZE: Final = 5  # type, version, length
_MESSAGE_HEADER_SIZE: Final = 4  # of a handshake's messages: type, length
_MAJOR_VERSION: Final = 3  # of SSL 3.0 and every TLS
_LONGEST_RECORD: Final = 16384 + 256
_ESTABLISHED: Final = 1  # TCP_ESTABLISHED, the first byte of tcp_info; netinet/tcp.h
_AT_ONCE: Final = 4096  # what OpenSSL's memory has once held it keeps room for
_CHANGE_CIPHER, _ALERT, _HANDSHAKE, _APPLICATION, _HEARTBEAT = range(20, 25)
# OpenSSL's words for a client whom another certificate may suit.
_UNSUITABLE: Final = ("no shared cipher", "no suitable signature algorithm", "unsupported protocol")
_TYPES: Final = frozenset({_CHANGE_CIPHER, _ALERT, _HANDSHAKE, _APPLICATION, _HEARTBEAT})


class TooMuch(Exception):
    """More than a handshake needs; the text says how much."""


class RecordReader:
    """Takes whole records from a socket and never a byte behind them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._partial = bytearray()
        self._heard = 0
        self._count = 0
        self._cipher_changed = False

    def take(self) -> bytes:
        """Some records that are there, up to one that may be the last; b"" if there is none yet.

        Raises TooMuch, OSError, and HungUp at the end.
        """
        taken = bytearray()
        while self._fill(has_taken=bool(taken)):
            taken += self._partial
            self._check()
            kind = self._partial[0]
            self._partial.clear()
            self._cipher_changed = self._cipher_changed or kind == _CHANGE_CIPHER
            if self._cipher_changed or kind != _HANDSHAKE or len(taken) > _AT_ONCE:
                break
        return bytes(taken)

    def _fill(self, *, has_taken: bool) -> bool:
        """Whether the present record is complete."""
        while missing := self._missing():
            try:
                got = self._sock.recv(missing)
            except BlockingIOError:
                return False
            if not got:
                if has_taken:  # the end can wait
                    return False
                raise HungUp("closed", while_writing=False)
            self._partial += got
        return True

    def _missing(self) -> int:
        held = len(self._partial)
        if held < _HEADER_SIZE:
            return _HEADER_SIZE - held
        length = int.from_bytes(self._partial[3:_HEADER_SIZE], "big")
        kind, version = self._partial[:2]
        if kind not in _TYPES or version != _MAJOR_VERSION or length > _LONGEST_RECORD:
            return 0  # no TLS: OpenSSL says best what it could be
        return _HEADER_SIZE + length - held

    def _check(self) -> None:
        self._heard += len(self._partial)
        self._count += 1
        if self._heard > LONGEST_HANDSHAKE or self._count > MOST_RECORDS:
            raise TooMuch(
                f"{self._heard} bytes in {self._count} records before it was let in, where at most"
                f" {LONGEST_HANDSHAKE} and {MOST_RECORDS} are read (send a shorter chain or hello)"
            )


class HelloEnd:
    """Where a client's first message ends, of which more and more is seen."""

    def __init__(self) -> None:
        self._at = 0  # behind the records that were whole
        self._records = 0
        self._said = 0  # bytes of the message in them
        self._begins = b""  # the message's type and length

    def wanted(self, seen: bytes | bytearray) -> int:
        """How many bytes it takes to see more of the hello, or all of it.

        No more than there are where it is whole, or is none, or too long. `seen` is what was seen
        before and more.
        """
        while self._records < MOST_RECORDS:
            start = self._at + _HEADER_SIZE
            if len(seen) < start:
                return start
            end = start + int.from_bytes(seen[self._at + 3 : start], "big")
            if seen[self._at] != _HANDSHAKE or end > LONGEST_HANDSHAKE:
                break
            if seen[self._at + 1] != _MAJOR_VERSION or end - start > _LONGEST_RECORD:
                break  # no record: OpenSSL says so best, and at once
            if len(seen) < end:
                return end
            self._begins += seen[start : min(end, start + _MESSAGE_HEADER_SIZE - len(self._begins))]
            self._said += end - start
            self._at = end
            self._records += 1
            length = int.from_bytes(self._begins[1:], "big") + _MESSAGE_HEADER_SIZE
            if len(self._begins) == _MESSAGE_HEADER_SIZE and self._said >= length:
                break
        return len(seen)


def is_unsuitable(error: SSL.Error) -> bool:
    """Whether a handshake failed because of the certificate that we would have shown."""
    queue = error.args[0] if error.args else ()
    return any(text in str(entry[-1]) for entry in queue for text in _UNSUITABLE)


class Handshake:
    """The server's side of it, on a connection that has no socket yet.

    `others` makes connections to go on with when this one does not suit the client; which it is in
    the end is in `connection`.
    """

    def __init__(
        self,
        connection: SSL.Connection,
        sock: socket.socket,
        others: Iterable[SSL.Connection] = (),
    ) -> None:
        self.connection = connection
        self._others = others
        self._hello = bytearray()  # what was heard before the first answer
        self._hello_end: HelloEnd | None = HelloEnd()  # until it has come whole
        self._has_answered = False
        self._sock = sock
        self._reader = RecordReader(sock)
        self._unsent = bytearray()
        self._done = False
        self.offered: tuple[int, ...] | None = None  # the client's signatures: see hello.py

    @property
    def wants_room(self) -> bool:
        """Whether it waits for the socket to take more."""
        return bool(self._unsent)

    def advance(self) -> bool:
        """Goes on as far as the socket allows; whether it is done and all of it sent.

        Raises TooMuch, SSL.Error, OSError, and HungUp at the end.
        """
        while self._flushed():
            if self._done:
                return True
            heard = self._reader.take()
            if not heard:
                return False
            if not self._has_answered:
                self._hello += heard
                if self._hello_end is not None:
                    # Until then nobody else holds it: a stranger may well send a part and wait.
                    if self._hello_end.wanted(self._hello) > len(self._hello):
                        continue
                    self._hello_end, heard = None, bytes(self._hello)
            self.connection.bio_write(heard)
            try:
                self._done = self._went_on()
            except SSL.Error:
                with contextlib.suppress(OSError):
                    self._flushed()  # the alert is an offer
                raise
        return False

    def _went_on(self) -> bool:
        """Whether the handshake is done. Raises SSL.Error of the first context if none suits."""
        try:
            return _step(self.connection)
        except SSL.Error as error:
            if self._has_answered or not is_unsuitable(error):
                raise
            for other in self._others:
                other.bio_write(self._hello)
                try:
                    done = _step(other)
                except SSL.Error as same:
                    if not is_unsuitable(same):
                        raise
                    continue
                self.connection = other
                return done
            raise

    def _flushed(self) -> bool:
        """Sends what OpenSSL has to say; whether the socket took all of it."""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self._unsent += self.connection.bio_read(_LONGEST_RECORD)
        if self._unsent and not self._has_answered:
            self._has_answered = True
            self.offered = offered_signatures(self._hello)
            self._hello.clear()
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                del self._unsent[: self._sock.send(self._unsent)]
        return not self._unsent


class Hello:
    """What a client says first, looked at on the socket, where all of it stays to be read.

    The kernel takes over records only if OpenSSL makes the handshake on the socket itself, and
    there is no second try: the context has to be known before. So it is found out on connections
    in memory, whose answers nobody gets. That costs a signature, and only where the kernel is asked
    for and there are several contexts.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._end = HelloEnd()
        self._wanted = 1

    def look(self) -> bytes | None:
        """The records with the hello; None until they are there.

        Until then the socket does not count as readable. What is no hello, is too long for one, or
        has come to its end, is given as it is. Raises OSError.
        """
        try:
            seen = self._sock.recv(LONGEST_HANDSHAKE, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        wanted = self._end.wanted(seen)
        if len(seen) < wanted and not self._has_ended():
            # Woken by less than that we would be called for each byte again.
            self._wake_at(wanted)
            return None
        self._wake_at(1)
        return seen

    def _wake_at(self, count: int) -> None:
        if count != self._wanted:
            self._wanted = count
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _has_ended(self) -> bool:
        """Whether no more will come: whatever is there counts as readable then."""
        try:
            state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return True
        return state != _ESTABLISHED


def first_that_suits(connections: Iterable[SSL.Connection], hello: bytes) -> int:
    """Which of them answers this hello; the first if none does."""
    for number, connection in enumerate(connections):
        connection.bio_write(hello)
        try:
            _step(connection)
        except SSL.Error as error:
            if is_unsuitable(error):
                continue
        return number
    return 0


def _step(connection: SSL.Connection) -> bool:
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    return True
