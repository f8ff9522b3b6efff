"""Meets a client of this host: the kernel knows who it is, the name service what it is called."""

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from proxyd.config.shortage import explained
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.negotiation.identity import ClientIdentity
from proxyd.peer.credentials import (
    Denied,
    PeerCredentials,
    Subject,
    credentials_of,
    peer_pidfd,
)
from proxyd.peer.names import NameService
from proxyd.session.greeting import Untrusted
from proxyd.session.roster import Client
from proxyd.wire import failure
from proxyd.wire.failure import Domain, Failure


class UnixGreeting:
    """An accepted UNIX connection. Owns the socket."""

    step = "looking up who the client is"
    bindings: Mapping[str, bytes] = MappingProxyType({})

    def __init__(self, sock: socket.socket, names: NameService) -> None:
        self.endpoint = UnixEndpoint(sock)
        self._sock = sock
        self._names = names

    async def meet(self, client: Client) -> Failure | None:
        unknown = await self._identify(client)
        uid = client.identity.uid
        if client.door.own_uid_only and uid != os.geteuid():
            if uid is None and unknown is not None:
                raise Untrusted(unknown.message)
            raise Untrusted(f"this daemon serves only uid {os.geteuid()}")
        return unknown

    @contextmanager
    def process(self, identity: ClientIdentity) -> Iterator[Subject]:
        pid, start_ticks, uid = identity.pid, identity.start_ticks, identity.uid
        if pid is None or start_ticks is None or uid is None:
            raise Denied("who connected is not known")
        pidfd = peer_pidfd(self._sock)
        try:
            yield Subject(pid=pid, start_ticks=start_ticks, uid=uid, pidfd=pidfd)
        finally:
            if pidfd is not None:
                os.close(pidfd)

    async def _identify(self, client: Client) -> Failure | None:
        """Finds out who connected; the failure that its calls get when nobody can say."""
        try:
            peer = credentials_of(self._sock)
        except Denied as error:
            return failure.system_error(error.errno, str(error), Domain.NONE)
        except OSError as error:
            number = error.errno or errno.EIO
            text = explained(error, "cannot find out who connected")
            return failure.system_error(number, text, Domain.NONE)
        client.identity = _identity(peer, None, None)
        client.gids = peer.gids
        try:
            user, group = await self._names.names_of(peer.uid, peer.gid)
        except Denied as error:
            return failure.system_error(error.errno, str(error), Domain.NONE)
        client.identity = _identity(peer, user, group)
        return None


def _identity(peer: PeerCredentials, user: str | None, group: str | None) -> ClientIdentity:
    return ClientIdentity(
        user_name=user,
        uid=peer.uid,
        group_name=group,
        gid=peer.gid,
        pid=peer.pid,
        start_ticks=peer.start_ticks,
        selinux_context=peer.selinux_context,
    )
