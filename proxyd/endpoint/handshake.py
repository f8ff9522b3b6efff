"""A TLS handshake of which OpenSSL sees one record after the other, and not too many.

OpenSSL by itself reads a handshake off the socket for as long as something is there: 128 KiB of
hello, 100 of certificates, in records of one byte if the peer likes that, two system calls for
each. That takes up to 30 ms of a processor, and pyOpenSSL has no call to lower the limits. So here
the records are read, counted and handed to OpenSSL through memory; what it says goes the same way.

Nothing behind the handshake may be read, because it could not be put back for OpenSSL to find it
when the socket is its own afterwards. Until records are encrypted the handshake's are told by their
type. Of those behind a change of cipher (TLS 1.2) or of TLS 1.3's encrypted ones each could be the
last, so these go one by one.
"""

import contextlib
import socket
from typing import Final

from OpenSSL import SSL

from proxyd.endpoint.contract import HungUp

# Mutual TLS with three certificates of ML-DSA-87 takes 31 KiB, with those of today's kinds 2 to 6.
LONGEST_HANDSHAKE: Final = 36864
MOST_RECORDS: Final = 128  # with 512 bytes in each (RFC 6066) that is still more

_HEADER_SIZE: Final = 5  # type, version, length
_LONGEST_RECORD: Final = 16384 + 256
_AT_ONCE: Final = 4096  # what OpenSSL's memory has once held it keeps room for
_CHANGE_CIPHER, _ALERT, _HANDSHAKE, _APPLICATION, _HEARTBEAT = range(20, 25)
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
        if self._partial[0] not in _TYPES or length > _LONGEST_RECORD:
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


class Handshake:
    """The server's side of it, on a connection that has no socket yet."""

    def __init__(self, connection: SSL.Connection, sock: socket.socket) -> None:
        self._connection = connection
        self._sock = sock
        self._reader = RecordReader(sock)
        self._unsent = bytearray()
        self._done = False

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
            self._connection.bio_write(heard)
            try:
                self._connection.do_handshake()
                self._done = True
            except SSL.WantReadError:
                continue
            except SSL.Error:
                with contextlib.suppress(OSError):
                    self._flushed()  # the alert is an offer
                raise
        return False

    def _flushed(self) -> bool:
        """Sends what OpenSSL has to say; whether the socket took all of it."""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self._unsent += self._connection.bio_read(_LONGEST_RECORD)
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                del self._unsent[: self._sock.send(self._unsent)]
        return not self._unsent
