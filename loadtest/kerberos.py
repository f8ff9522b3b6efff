"""Kerberos tickets: what a client by GSSAPI shows, and what libkrb5 says of them.

Imported where a target asks for it: the library that it needs is an extra of the package.
"""

from functools import cache
from typing import Final

import gssapi
from gssapi.raw.misc import GSSError
from gssapi.raw.types import RequirementFlag

from .failures import UsageError
from .tickets import Tickets

# What cyrus-sasl asks for on TCP (docs/protocol/sasl.md, section 5).
_FLAGS: Final = (
    RequirementFlag.mutual_authentication
    | RequirementFlag.out_of_sequence_detection
    | RequirementFlag.integrity
    | RequirementFlag.confidentiality
)
_EMPTY_TEXTS: Final = ("", "Success", "Unknown error")
# libkrb5's errors have a table of their own; RFC 4120's numbers are its first ones.
_FIRST_ERROR: Final = (1 << 32) - 1765328384
_Store = dict[bytes | str, bytes | str]  # as the library spells it
_NO_KDC: Final = "krb5.conf must name a KDC of that realm that can be reached; KRB5_CONFIG moves it"
_REMEDIES: Final = {
    7: "give the address the host that is in the server's key (klist -k there), whose realm "
    "krb5.conf must know; --service if it is not libvirt",
    32: "get a new ticket with kinit",
    37: "the clocks of this host, the KDC and the server must agree",
    154: _NO_KDC,
    156: _NO_KDC,
}


@cache  # else each session would pay 200 µs for it
def login(tickets: Tickets) -> gssapi.Credentials:
    """Whoever the cache belongs to. Raises UsageError unless the ticket is good.

    It is a copy in memory: a session that reads a file costs 110 µs more, and tickets for the
    servers that are measured would be written into it.
    """
    store: _Store | None = {"ccache": tickets.cache} if tickets.cache else None
    copy: _Store = {"ccache": f"MEMORY:proxyd-loadtest {tickets.cache}"}
    try:
        found = gssapi.Credentials(usage="initiate", store=store)
        found.inquire()  # raises when the ticket has expired
        found.store(store=copy, usage="initiate", overwrite=True)
        return gssapi.Credentials(usage="initiate", store=copy)
    except GSSError as error:
        given = f"--ticket-cache {tickets.cache}" if tickets.cache else "gssapi: targets"
        raise UsageError(
            f"{given}: {words_of(error)}; get a ticket with kinit, or name a file that has one"
            " with --ticket-cache"
        ) from error


def context_for(tickets: Tickets, host: str) -> gssapi.SecurityContext:
    """A context that has not begun. The first `step` for a host asks the KDC for a ticket."""
    return gssapi.SecurityContext(
        name=principal(tickets.service, host),
        creds=login(tickets),
        mech=gssapi.MechType.kerberos,
        flags=_FLAGS,
        usage="initiate",
    )


@cache  # libkrb5 may ask DNS for it
def principal(service: str, host: str) -> gssapi.Name:
    name = gssapi.Name(f"{service}@{host}", gssapi.NameType.hostbased_service)
    return name.canonicalize(gssapi.MechType.kerberos)


def words_of(error: GSSError) -> str:
    """What the library says, in one line, and what mends it where that is known."""
    texts = error.get_all_statuses(error.min_code, False)
    if texts[0] in _EMPTY_TEXTS:
        texts = error.get_all_statuses(error.maj_code, True)
    said = ": ".join(texts)
    remedy = _REMEDIES.get(error.min_code - _FIRST_ERROR)
    return f"{said}; {remedy}" if remedy else said
