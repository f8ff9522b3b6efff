"""What clients by SASL have: Kerberos tickets in their environment, or a file of passwords."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from tests.bed.kdc import Kdc

HOST: Final = "localhost"  # what clients put into their URIs, and who the tickets are for
SERVICE: Final = f"libvirt/{HOST}"


def tcp_uri(name: str, address: str, **query: str) -> str:
    """A client's URI for a driver's name over TCP; the address' port at the host of the tickets."""
    driver, rest = name.split(":///", 1)
    port = address.rpartition(":")[2]
    more = f"?{urlencode(query, quote_via=quote)}" if query else ""
    return f"{driver}+tcp://{HOST}:{port}/{rest}{more}"


def with_tickets(kdc: Kdc, tickets: Path) -> Mapping[str, str]:
    """The environment of a client that has logged in."""
    return {**kdc.environment, "KRB5CCNAME": f"FILE:{tickets}"}


def auth_file(path: Path, user: str, password: str) -> Path:
    """The file of passwords that libvirt's clients read: LIBVIRT_AUTH_FILE, authfile=."""
    path.write_text(
        f"[credentials-{user}]\nauthname={user}\npassword={password}\n"
        f"[auth-libvirt-default]\ncredentials={user}\n"
    )
    path.chmod(0o600)
    return path
