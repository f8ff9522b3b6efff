"""Opens a daemon in a client's name: connect, then drive BackendNegotiation to its end."""

import errno
import logging
import os
import socket
import stat
from typing import Final

import trio

from proxyd.autostart.starter import NotStarted, Starter
from proxyd.config.routes import Destination
from proxyd.config.shortage import explained
from proxyd.endpoint.ancillary import refuse_descriptors
from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.negotiation.backend import BackendNegotiation
from proxyd.negotiation.events import DaemonOpened, DaemonRefused, Send
from proxyd.negotiation.identity import ClientIdentity
from proxyd.peer.credentials import peer_pid
from proxyd.session.conversation import Conversation
from proxyd.wire import failure
from proxyd.wire.failure import Failure
from proxyd.wire.remote import OpenArguments

# At a full backlog the kernel offers nothing to wait for.
_FIRST_RETRY_S: Final = 0.005
_LONGEST_RETRY_S: Final = 0.2

_ABSENT: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED})

log = logging.getLogger("remote.remote_driver")


class OpenFailed(Exception):
    """No connection for this client; `failure` is what it is told, `stage` where it happened."""

    def __init__(self, stage: str, reason: Failure) -> None:
        super().__init__(f"{stage}: {reason.message}")
        self.stage = stage
        self.failure = reason


async def open_backend(
    destination: Destination,
    flags: int,
    identity: ClientIdentity,
    *,
    keepalive: bool,
    starter: Starter,
) -> UnixEndpoint:
    """A daemon's connection that is open and knows whose it is. Raises OpenFailed.

    A user's own daemon that is not there is started. The endpoint is the caller's to close.
    """
    endpoint = UnixEndpoint(await _connect_or_start(destination, starter))
    try:
        arguments = OpenArguments(destination.name, flags)
        negotiation = BackendNegotiation(arguments, identity.params(), keepalive=keepalive)
        await _negotiate(Conversation(endpoint), negotiation, destination)
    except BaseException:
        endpoint.close()
        raise
    return endpoint


async def _negotiate(
    conversation: Conversation, negotiation: BackendNegotiation, destination: Destination
) -> None:
    try:
        await conversation.send(negotiation.start())
        while True:
            for event in negotiation.receive_data(await conversation.receive(negotiation.wanted)):
                match event:
                    case Send(wire):
                        await conversation.send(wire)
                    case DaemonRefused(stage, reason):
                        raise OpenFailed(f"{destination.daemon} {stage}", reason)
                    case DaemonOpened():
                        return
    except HungUp as error:
        stage = negotiation.stage.name.lower()
        raise OpenFailed(
            f"{destination.daemon} {stage}",
            failure.internal(
                f"{destination.daemon} at '{destination.path}': the connection ended while it was"
                f" opened: {error.reason}; its log says why"
            ),
        ) from error


async def _connect_or_start(destination: Destination, starter: Starter) -> socket.socket:
    try:
        return await connect(destination)
    except OpenFailed as error:
        if error.failure.int1 not in _ABSENT or not starter.starts(destination):
            raise
    try:
        await starter.start(destination)
    except NotStarted as error:
        raise OpenFailed("starting", error.failure) from error
    return await connect(destination)


async def connect(destination: Destination) -> socket.socket:
    """A connection to its daemon, non-blocking. Raises OpenFailed."""
    try:
        sock = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
    except OSError as error:
        raise OpenFailed("connecting", _unreachable(destination, error)) from error
    try:
        refuse_descriptors(sock)  # until a client makes a call that is answered with some
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                sock.connect(destination.path)
                break
            except BlockingIOError:
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_RETRY_S)
        _refuse_ourselves(sock, destination)
    except OSError as error:
        sock.close()
        raise OpenFailed("connecting", _unreachable(destination, error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_ourselves(sock: socket.socket, destination: Destination) -> None:
    """A route that leads back here would open connections without end."""
    if peer_pid(sock) == os.getpid():
        raise OpenFailed(
            "connecting",
            failure.internal(
                f"the route to {destination.daemon} leads back to this proxy"
                f" ('{destination.path}'); mend proxyd_routes or proxyd_backend_dir"
            ),
        )


def _guarded(path: str) -> str:
    """Whom a socket lets in, as far as that can be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    return f", the socket has mode {mode:04o}, uid {found.st_uid}, gid {found.st_gid}"


def _unreachable(destination: Destination, error: OSError) -> Failure:
    number = error.errno or errno.EIO
    hint = ""
    if number in {errno.ENOENT, errno.ECONNREFUSED} and destination.unit:
        hint = f" (to start it: systemctl start {destination.unit})"
    if number in {errno.EACCES, errno.EPERM}:
        hint = f" (asked by proxyd as uid {os.geteuid()}{_guarded(destination.path)})"
    text = explained(error, f"Failed to connect socket to '{destination.path}'")
    return failure.system_error(number, f"{text}{hint}")
