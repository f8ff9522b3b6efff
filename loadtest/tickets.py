"""Whose Kerberos tickets, and for which service; what libkrb5 does with them is in `kerberos`."""

from dataclasses import dataclass
from typing import Final

SERVICE: Final = "libvirt"


@dataclass(frozen=True, slots=True)
class Tickets:
    """Whose tickets, and for which service; for all GSSAPI targets of a run."""

    cache: str | None = None  # a file or TYPE:NAME, as in KRB5CCNAME; None: libkrb5 knows
    service: str = SERVICE
