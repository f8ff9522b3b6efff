"""Who holds a place, and pays for it: known at accept, before a byte is read.

Of a client of this host the kernel says whose process connected. Of one of the network there is
the address: without the port, and of IPv6 the network of it, of which a host has all addresses.
"""

import ipaddress
import os
import socket
from enum import IntEnum
from typing import Final, NamedTuple

from proxyd.config.transports import Transport
from proxyd.peer.credentials import peer_uid

_SITE_BITS: Final = 64


class Rank(IntEnum):
    """Whose places are kept free whatever those below him do."""

    NETWORK = 0
    LOCAL = 1
    OWN = 2  # root, and the user whose daemon this is


class Holder(NamedTuple):
    """Whose connections are counted together; the name is for people."""

    name: str
    rank: Rank
    uid: int | None = None


UNKNOWN_USERS: Final = Holder("unknown users", Rank.LOCAL)
NAMELESS_USERS: Final = Holder("users without a name", Rank.LOCAL)


def holder_of(sock: socket.socket, transport: Transport) -> Holder:
    """Raises OSError when a client of the network has gone already."""
    if transport.traits.by_network:
        return Holder(site(str(sock.getpeername()[0])), Rank.NETWORK)
    try:
        uid = peer_uid(sock)
    except OSError:  # a kernel that does not tell, or has no memory to
        return UNKNOWN_USERS
    return Holder(f"uid {uid}", Rank.OWN if uid in {0, os.geteuid()} else Rank.LOCAL, uid)


def site(host: str) -> str:
    """The part of an address that one host cannot change at will."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _SITE_BITS), strict=False))
