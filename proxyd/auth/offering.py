"""Which SASL mechanisms a client is offered, which depends on the way by which it came.

On plain TCP all that follows has to be encrypted by the mechanism itself, which only GSSAPI can.
TLS encrypts and a UNIX socket never leaves the host, so SCRAM is offered there as well, and no
mechanism brings a layer (reference/handshake.md, section 7). What cannot serve is not offered: it
would only lead clients to their failure.

The best comes first, though to clients of cyrus-sasl the order says nothing: they take the
strongest that they have, and if it fails (GSSAPI without a ticket, for instance) no other. Then a
host that wants passwords as well has to do without GSSAPI: the setting proxyd_sasl_mechanisms.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxyd.auth import scram
from proxyd.auth.gss import GssapiServer
from proxyd.auth.keytab import Keytab, KeytabError
from proxyd.auth.mechanism import LARGEST_MESSAGE, Mechanism, Refused
from proxyd.auth.passwords import PasswordError, PasswordFile
from proxyd.config.listening import Transport
from proxyd.config.quoting import excerpt

GSSAPI: Final = "GSSAPI"

_POSSIBLE: Final = {
    Transport.TCP: (GSSAPI,),
    Transport.TLS: (GSSAPI, scram.PLUS, scram.PLAIN),
    Transport.UNIX: (GSSAPI, scram.PLAIN),
}
EVERY: Final = _POSSIBLE[Transport.TLS]


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
        """What a client may send at once, in bytes. A Kerberos ticket may bring a large PAC."""
        return LARGEST_MESSAGE if GSSAPI in self.names else scram.LARGEST_MESSAGE

    def begin(self, name: str, bindings: Mapping[str, bytes] | None = None) -> Mechanism:
        """An attempt by one of the names. Raises Refused for any other.

        `bindings`: what PLUS can bind to on this TLS connection, as types (RFC 5929, RFC 9266)
        and their bytes.
        """
        if name not in self.names:
            raise Refused(f"the client chose {excerpt(name)}, which was not offered")
        if name == GSSAPI:
            return GssapiServer(self.keytab, confidentiality=self.transport is Transport.TCP)
        assert self.passwords is not None
        return scram.ScramServer(
            self.passwords,
            plus=name == scram.PLUS,
            plus_offered=scram.PLUS in self.names,
            bindings=bindings,
        )


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
    possible = _POSSIBLE[transport]
    reasons = dict(_reasons(transport, keytab, passwords, wanted))
    names = tuple(each for each in possible if each not in reasons)
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
    for name in wanted or ():
        if name not in EVERY:
            yield excerpt(name), f"there is no such mechanism here, only {', '.join(EVERY)}"
        elif name not in _POSSIBLE[transport]:
            yield name, f"it is not for {transport.name}"
    for name in _POSSIBLE[transport]:
        if wanted is not None and name not in wanted:
            yield name, "proxyd_sasl_mechanisms leaves it out"
        elif reason := _without_key(keytab) if name == GSSAPI else _without_users(passwords):
            yield name, reason


def _without_key(keytab: Keytab) -> str:
    try:
        keytab.principals()
    except KeytabError as error:
        return str(error)
    return ""


def _without_users(passwords: PasswordFile | None) -> str:
    if passwords is None:
        return "no file of passwords is set"
    try:
        return "" if passwords.names() else f"{passwords.path}: it has no user; add one"
    except PasswordError as error:
        return str(error)
