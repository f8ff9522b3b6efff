"""Which SASL mechanisms a client is offered, which depends on the way by which it came.

What is true of each stands in config/mechanisms.py; what makes one, in `_SERVERS` here. What cannot
serve is not offered: it would only lead clients to their failure.

The best comes first, though to clients of cyrus-sasl the order says nothing: they take the
strongest that they have, and if it fails (GSSAPI without a ticket, for instance) no other. Then a
host that wants passwords as well has to do without GSSAPI: the setting proxyd_sasl_mechanisms.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxyd.config.mechanisms import GSSAPI, NAMES, SCRAM, SCRAM_PLUS, Need, serving
from proxyd.config.quoting import excerpt
from proxyd.config.transports import Transport
from proxyd.sasl import scram
from proxyd.sasl.keytab import Keytab, KeytabError
from proxyd.sasl.mechanism import LARGEST_MESSAGE, LoginRefused, Mechanism
from proxyd.sasl.passwords import PasswordError, PasswordFile


class NothingToOffer(Exception):
    """No mechanism can serve. The text has each reason with its remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """What clients of one transport are offered, and why the rest is not, for the log."""

    transport: Transport
    names: tuple[str, ...]
    withheld: tuple[str, ...]
    keytab: Keytab
    passwords: PasswordFile | None

    @property
    def longest_token(self) -> int:
        """What a client may send at once, in bytes."""
        return max(_SERVERS[name].longest_token for name in self.names)

    def lost(self) -> Iterator[tuple[str, str]]:
        """What is offered and cannot serve any more, each with why. Reads files."""
        for each in serving(self.transport):
            if each.name in self.names and (
                reason := _lacking(each.needs, self.keytab, self.passwords)
            ):
                yield each.name, reason

    def claimed(self, name: str, data: bytes) -> str:
        """Who a client says that it is in what it sends first to the mechanism of this name; ""
        where that is not said there."""
        return _SERVERS[name].claimed(data)

    def begin(self, name: str, bindings: Mapping[str, bytes] | None = None) -> Mechanism:
        """An attempt by one of the names. Raises LoginRefused for any other.

        `bindings`: what can be bound to on this TLS connection, as types (RFC 5929, RFC 9266) and
        their bytes.
        """
        if name not in self.names:
            raise LoginRefused(f"the client chose {excerpt(name)}, which was not offered")
        return _SERVERS[name].begin(self, name, bindings or {})


def _gssapi(offering: Offering, _name: str, _bindings: Mapping[str, bytes]) -> Mechanism:
    from proxyd.sasl.gssapi import GssapiServer  # noqa: PLC0415 (its library is an extra)

    private = offering.transport.traits.is_private
    return GssapiServer(offering.keytab, confidentiality=not private)


def _scram(offering: Offering, name: str, bindings: Mapping[str, bytes]) -> Mechanism:
    assert offering.passwords is not None
    return scram.ScramServer(
        offering.passwords,
        plus=name == SCRAM_PLUS,
        plus_offered=SCRAM_PLUS in offering.names,
        bindings=bindings,
    )


@dataclass(frozen=True, slots=True)
class _Server:
    """Our side of one: what makes an attempt, the longest token of a client's, in bytes, and what
    name is in the first."""

    begin: Callable[[Offering, str, Mapping[str, bytes]], Mechanism]
    longest_token: int
    claimed: Callable[[bytes], str]


def _nobody(_: bytes) -> str:
    """A ticket says its name to who has the key."""
    return ""


_SERVERS: Final = {
    GSSAPI: _Server(_gssapi, LARGEST_MESSAGE, _nobody),  # a ticket may bring a large PAC
    SCRAM_PLUS: _Server(_scram, scram.LARGEST_MESSAGE, scram.claimed),
    SCRAM: _Server(_scram, scram.LARGEST_MESSAGE, scram.claimed),
}


def offer(
    transport: Transport,
    *,
    keytab: Keytab,
    passwords: PasswordFile | None,
    wanted: Sequence[str] | None = None,
) -> Offering:
    """Reads the files, to see what can serve. Raises NothingToOffer.

    `wanted`: the only names that may be offered, None for every one.
    """
    reasons = dict(_reasons(transport, keytab, passwords, wanted))
    names = tuple(each.name for each in serving(transport) if each.name not in reasons)
    withheld = tuple(f"{name}: {reason}" for name, reason in reasons.items())
    if not names:
        raise NothingToOffer(
            f"no SASL mechanism can serve clients by {transport.name}; " + "; ".join(withheld)
        )
    return Offering(
        transport=transport, names=names, withheld=withheld, keytab=keytab, passwords=passwords
    )


def _reasons(
    transport: Transport,
    keytab: Keytab,
    passwords: PasswordFile | None,
    wanted: Sequence[str] | None,
) -> Iterator[tuple[str, str]]:
    """The mechanisms that are not offered, each with what keeps it back."""
    possible = serving(transport)
    for name in wanted or ():
        if name not in NAMES:
            yield excerpt(name), f"there is no such mechanism here, only {', '.join(NAMES)}"
        elif name not in {each.name for each in possible}:
            yield name, f"it is not for {transport.name}"
    for each in possible:
        if wanted is not None and each.name not in wanted:
            yield each.name, "proxyd_sasl_mechanisms leaves it out"
        elif reason := _lacking(each.needs, keytab, passwords):
            yield each.name, reason


def _lacking(need: Need, keytab: Keytab, passwords: PasswordFile | None) -> str:
    match need:
        case Need.KEYTAB:
            return _without_key(keytab)
        case Need.PASSWORDS:
            return _without_users(passwords)


def _without_key(keytab: Keytab) -> str:
    try:
        keytab.demand_library()
        keytab.principals()
    except KeytabError as error:
        return str(error)
    return ""


def _without_users(passwords: PasswordFile | None) -> str:
    if passwords is None:
        return "no file of passwords is set"
    try:
        return (
            ""
            if passwords.names()
            else f"{passwords.path}: it has no user; add one (proxyd passwd NAME)"
        )
    except PasswordError as error:
        return str(error)
