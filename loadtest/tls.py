"""The client's end of TLS on a socket, written so that a measured call costs what it must.

OpenSSL works on buffers in memory, and the socket is read and written here. `ssl.SSLSocket` would
not do, for three reasons:

* The deadline of every wait is the kernel's (SO_RCVTIMEO). A blocking SSLSocket takes the EAGAIN
  that ends such a wait for "not yet" and waits again, for ever. With `settimeout` it makes a
  receive that fails and a poll(2) in front of each one that succeeds.
* It receives every record in two system calls: its header, then its body. Both together are 20 µs
  of CPU per call here against 31 with `settimeout` (28 bytes there, 32 back, over loopback, tool
  alone; bulk costs the same either way).
* It may hold bytes that epoll knows nothing of. Here one `recv_into` gives all that can be
  decrypted, provided that its buffer has LARGE_ENOUGH bytes: what was received at once and the
  rest of a record before that are never more. So whoever waits with epoll misses nothing.

A record need not carry data: OpenSSL servers send session tickets. On a blocking socket
`recv_into` then goes on to the next record; on a non-blocking one it raises BlockingIOError, as a
plain socket does when there is nothing.

How a server hangs up does not matter: close_notify, or just the end of TCP, which is how libvirt
does it.
"""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .credentials import Credentials, client_context
from .failures import NotAgreed

CONFIRMATION: Final = b"\1"  # what a libvirt server sends once it accepts the certificate
MAX_RECORD: Final = 5 + 16384 + 2048  # RFC 5246, 6.2.3; TLS 1.3 allows less
_RAW_SIZE: Final = 32768  # 256 KiB took 6 % off the tool's CPU for bulk and nothing off its time
LARGE_ENOUGH: Final = _RAW_SIZE + MAX_RECORD

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of <openssl/x509_vfy.h>
_WRONG_HOST: Final = (62, 64)
_ABOUT_CERTIFICATES: Final = ("certificate", "unknown ca", "access denied", "handshake failure")
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")

_Read = Callable[[int, bytearray | memoryview], int]


class TlsChannel:
    """A connected socket with TLS on it; closing it closes the socket."""

    def __init__(self, sock: socket.socket, host: str, credentials: Credentials) -> None:
        self._sock = sock
        self._shows_certificate = credentials.cert is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # No `session=`: every handshake is a full one.
        self._tls = client_context(credentials).wrap_bio(
            self._incoming, self._outgoing, server_hostname=host
        )
        # With a buffer it returns a count; the types of the library know only the other form.
        self._read: _Read = self._tls.read  # type: ignore[assignment]
        # Of its own: in a thread that waits in the receive nobody else's bytes may get into it.
        self._raw = memoryview(bytearray(_RAW_SIZE))
        self._holds = False  # whether bytes may be here that were not asked for yet
        self.fileno = sock.fileno
        self.setblocking = sock.setblocking
        self.close = sock.close

    def handshake(self) -> None:
        """To its end; on a non-blocking socket BlockingIOError asks to be called again."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._receive():
                    raise NotAgreed(
                        "the server hung up in the middle of the handshake; its log says why"
                    ) from None
            except ssl.SSLError as error:
                with suppress(OSError):  # the alert that tells the server why
                    self._flush()
                raise self._trouble(error) from error
            else:
                self._flush()
                self._holds = True
                return

    def confirm(self) -> None:
        """Takes the byte by which the server accepts us; may be called again, as `handshake`."""
        first = bytearray(len(CONFIRMATION) + 1)
        try:
            got = self.recv_into(first)
        except ConnectionResetError:
            got = 0  # a server that hangs up with something of ours unread
        if got == 0:
            raise NotAgreed(f"the server hung up instead of confirming; {self._advice()}")
        if first[:got] != CONFIRMATION:
            raise NotAgreed("the server confirmed with other bytes than 0x01; is this libvirt?")

    @property
    def cipher(self) -> str:
        """Version and cipher suite that were agreed upon."""
        suite = self._tls.cipher()
        assert suite is not None, "asked before the handshake"
        return f"{self._tls.version()} {suite[0]}"

    def sendall(self, data: bytes | bytearray | memoryview, /) -> None:
        """All of it, or an error: half a record would be the end of the connection."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise self._trouble(error) from error
        self._sock.sendall(self._outgoing.read())

    def send(self, data: bytes, /) -> int:
        """As a socket's; takes all of it."""
        self.sendall(data)
        return len(data)

    def recv_into(self, buffer: bytearray | memoryview, /) -> int:
        """At least one byte unless the server has hung up."""
        try:
            while True:
                if not self._holds and not self._receive():
                    return 0
                try:
                    return self._decrypt(buffer)
                except ssl.SSLWantReadError:
                    self._holds = False
        except ssl.SSLError as error:
            raise self._trouble(error) from error

    def _decrypt(self, buffer: bytearray | memoryview) -> int:
        size = len(buffer)
        got = self._read(size, buffer)
        if self._incoming.pending and got < size:  # several records at once
            rest = memoryview(buffer)
            with suppress(ssl.SSLWantReadError):
                while self._incoming.pending and got < size:
                    got += self._read(size - got, rest[got:])
        self._holds = got == size
        return got

    def _receive(self) -> int:
        got = self._sock.recv_into(self._raw)
        if got:
            self._incoming.write(self._raw[:got])
        return got

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())

    def _trouble(self, error: ssl.SSLError) -> NotAgreed:
        name = error.reason or ""
        if isinstance(error, ssl.SSLCertVerificationError):
            return NotAgreed(_distrust(error))
        if "_ALERT_" in name:
            alert = name.partition("_ALERT_")[2].lower().replace("_", " ")
            certificates = any(word in alert for word in _ABOUT_CERTIFICATES)
            advice = self._advice() if certificates else "its log says why"
            return NotAgreed(f"the server sent the alert {alert!r}; {advice}")
        if name in _NOT_TLS:
            return NotAgreed("the server does not speak TLS on this port")
        return NotAgreed(name.lower().replace("_", " ") or str(error))

    def _advice(self) -> str:
        if self._shows_certificate:
            return "does it know the CA of --cert, and allow its name? Its log says why"
        return "it may want a certificate of ours: give --cert and --key"


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _WRONG_HOST:
        return (
            f"{error.verify_message.rstrip('.')}; "
            "name the target as its certificate does, or give --no-host-check"
        )
    return (
        f"the server's certificate is not trusted: {error.verify_message}; "
        "is --cacert the CA that signed it?"
    )
