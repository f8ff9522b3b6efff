"""What is known of a client when it is decided what it may do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Way(StrEnum):
    """How a client came in, as the first column of a rule says it.

    A client that came through sshd is at a UNIX socket as well: it has two ways.
    """

    UNIX = "unix"  # the socket for reading and writing
    RO = "ro"  # the read-only one
    TCP = "tcp"
    TLS = "tls"
    SSH = "ssh"


class San(NamedTuple):
    """A name in a certificate's subjectAltName: `kind` is "dns", "email" or "uri"."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A client; what does not apply to its way in is None or empty.

    `groups` are names of this host's groups that its process is in, `address` is that of a client
    of the network, without the port.
    """

    ways: frozenset[Way]
    user: str | None = None
    uid: int | None = None
    groups: frozenset[str] = frozenset()
    sasl: str | None = None
    dn: str | None = None
    sans: tuple[San, ...] = ()
    address: str = ""


NOBODY: Final = Subject(ways=frozenset())
