"""The ways by which clients come, and what is true of each: the table is `Transport`.

Whoever has to treat them differently asks for what makes the difference, `by_network` say, and not
for a name. One thing is not here, because it takes sockets: how a client of each is met
(daemon/entrances.py).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What is true of one way.

    `by_network`: its clients come from other hosts. An address is all that is known of them; they
    wait outside until they have said something, and never get the places that this host's own
    users have. Of the others the kernel says who they are.

    `shakes_hands`: a TLS handshake comes before the first frame, so there are certificates, the
    connection can be told from others (channel binding), and nobody can be told anything cheaply.

    `is_private`: nobody on the way reads or changes what is said. Where that is not so, SASL has to
    encrypt it (tcp_min_ssf), and without SASL whoever connects owns the host.

    `auth` are the settings that say how clients prove who they are; where there are two, the second
    is for the read-only socket. `listen` says whether it is listened at all, `port` where; `unit`
    is systemd's. None of these three where it is always listened, at a path.
    """

    by_network: bool
    shakes_hands: bool
    is_private: bool
    auth: tuple[str, ...]
    listen: str = ""
    port: str = ""
    unit: str = ""


class Transport(IntEnum):
    """The numbers are those that virt-admin shows (docs/protocol/admin.md, section 2)."""

    traits: Traits

    UNIX = (
        0,
        Traits(
            by_network=False,
            shakes_hands=False,
            is_private=True,
            auth=("auth_unix_rw", "auth_unix_ro"),
        ),
    )
    TCP = (
        1,
        Traits(
            by_network=True,
            shakes_hands=False,
            is_private=False,
            auth=("auth_tcp",),
            listen="listen_tcp",
            port="tcp_port",
            unit="virtproxyd-tcp.socket",
        ),
    )
    TLS = (
        2,
        Traits(
            by_network=True,
            shakes_hands=True,
            is_private=True,
            auth=("auth_tls",),
            listen="listen_tls",
            port="tls_port",
            unit="virtproxyd-tls.socket",
        ),
    )

    def __new__(cls, number: int, traits: Traits) -> Self:
        member = int.__new__(cls, number)
        member._value_ = number
        member.traits = traits
        return member


BY_NETWORK = tuple(each for each in Transport if each.traits.by_network)
