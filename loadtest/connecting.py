"""From a target's address to a connected channel, with a deadline on every wait.

The deadline is the kernel's own (SO_RCVTIMEO, SO_SNDTIMEO) and not `settimeout`: that one puts
a poll(2) in front of every call, which would be measured with it and make every ratio look
better than it is.
"""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol, runtime_checkable

from .credentials import Credentials
from .failures import TargetFailure
from .targets import Address, Protection, Target, TcpAddress, UnixAddress
from .tls import TlsChannel

_TIMEVAL: Final = struct.Struct("ll")


class Channel(Protocol):
    """What a session asks of its connection; a socket is one as it stands."""

    def fileno(self) -> int: ...
    def setblocking(self, flag: bool, /) -> None: ...
    def sendall(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def send(self, data: bytes, /) -> int: ...
    def recv_into(self, buffer: bytearray | memoryview, /) -> int: ...
    def close(self) -> None: ...


@runtime_checkable
class Protected(Channel, Protocol):
    """A channel that encrypts."""

    @property
    def cipher(self) -> str: ...


def cipher_of(channel: Channel) -> str | None:
    """What protects a connection, or None."""
    return channel.cipher if isinstance(channel, Protected) else None


def connect(target: Target, wait_s: float, credentials: Credentials | None) -> Channel:
    """A channel on which calls can be made; its operations give up after `wait_s`."""
    return secure(target, reach(target, wait_s), wait_s, credentials)


def reach(target: Target, wait_s: float) -> socket.socket:
    """A connected, blocking socket whose operations give up after `wait_s`."""
    try:
        return _reach(target.address, wait_s)
    except OSError as error:
        reason = f"cannot connect to {target.address.place}: {reason_of(error, wait_s)}"
        raise TargetFailure(target.name, reason) from error


def secure(
    target: Target, sock: socket.socket, wait_s: float, credentials: Credentials | None
) -> Channel:
    """TLS where the address asks for it, else the socket. A failure closes the socket."""
    channel = tls_channel(sock, target.address, credentials)
    if channel is None:
        return sock
    try:
        channel.handshake()
        channel.confirm()
    except OSError as error:
        sock.close()
        raise TargetFailure(target.name, f"TLS: {reason_of(error, wait_s)}") from error
    return channel


def tls_channel(
    sock: socket.socket, address: Address, credentials: Credentials | None
) -> TlsChannel | None:
    """TLS of which nothing has happened yet; None where the address does not ask for it."""
    match address:
        case TcpAddress(Protection.TLS | Protection.SCRAM_TLS, host):
            assert credentials is not None, "a TLS target needs them; the command line sees to it"
            return TlsChannel(sock, host, credentials)
        case _:
            return None


def until_done(act: Callable[[], None]) -> Iterator[None]:
    """A handshake on a non-blocking socket, with a yield wherever it must wait for the server."""
    while True:
        try:
            return act()
        except BlockingIOError:
            yield


def reason_of(error: OSError, wait_s: float) -> str:
    # A wait that ran out is EAGAIN, whose own text ("try again") would mislead here.
    if isinstance(error, BlockingIOError):
        return f"nothing happened for {wait_s:g} s"
    if isinstance(error, socket.gaierror):  # its numbers are not those of errno
        return f"{error.strerror}; is the name right?"
    return os.strerror(error.errno) if error.errno else str(error)


def _reach(address: Address, wait_s: float) -> socket.socket:
    if isinstance(address, UnixAddress):
        return _connected(socket.AF_UNIX, address.path, wait_s)
    problem: OSError | None = None
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for family, _, _, _, place in found:
        try:
            return _connected(family, place, wait_s)
        except OSError as error:
            problem = problem or error
    assert problem is not None, "getaddrinfo gives one address or fails"
    raise problem


def _connected(family: int, place: str | tuple[object, ...], wait_s: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    whole_s, rest_s = divmod(wait_s, 1)
    timeval = _TIMEVAL.pack(int(whole_s), int(rest_s * 1_000_000))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        sock.connect(place)
        send_at_once(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def send_at_once(sock: socket.socket) -> None:
    """No waiting for more to send, as libvirt's own clients have it."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
