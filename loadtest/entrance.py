"""What a server wants between the connection and CONNECT_OPEN: AUTH_LIST, and perhaps SASL.

Written as a generator of calls, because one driver waits for each reply and another for those of
many sessions at once: it yields a procedure and its arguments, is sent the reply's payload, and
returns the channel that the session goes on with.

Source: reference/handshake.md, sections 5 and 7; RFC 4752 (GSSAPI), RFC 5802 (SCRAM).
"""

from collections.abc import Generator
from typing import Final

import gssapi
from gssapi import raw
from gssapi.raw.misc import GSSError

from loadtest.connecting import Channel
from loadtest.credentials import Account
from loadtest.failures import NotAgreed, TargetFailure
from loadtest.sasl import MAX_TOKEN, SaslChannel
from loadtest.scram import MECHANISM as SCRAM
from loadtest.scram import ScramLogin
from loadtest.targets import Protection, Target, TcpAddress
from loadtest.tickets import Tickets, context_for, words_of
from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.remote import (
    SaslReply,
    SaslStart,
    pack_sasl_step,
    unpack_auth_methods,
    unpack_sasl_mechanisms,
)
from proxyd.wire.xdr import MalformedFrame

Calls = Generator[tuple[Remote, bytes], bytes, Channel]

_MECHANISM: Final = "GSSAPI"
_ENCRYPTS: Final = 4  # the bit of the layer with confidentiality
_OFFER_SIZE: Final = 4  # a byte of layers and three of the longest token
# Into a smaller token goes hardly more than its own overhead.
_LEAST_PLAIN: Final = 512


def way_in(
    target: Target, tickets: Tickets | None, channel: Channel, account: Account | None = None
) -> Calls:
    """AUTH_LIST and what the target's kind asks for; another wish of the server is a failure."""
    mechanism = _MECHANISM
    try:
        methods = unpack_auth_methods((yield Remote.AUTH_LIST, b""))
        match target.address:
            case TcpAddress(Protection.GSSAPI, host):
                assert tickets is not None, "the command line sees to it"
                _check_sasl(methods, "auth_tcp", "tcp:")
                return (yield from _by_gssapi(channel, context_for(tickets, host)))
            case TcpAddress(Protection.SCRAM_TLS):
                assert account is not None, "the command line sees to it"
                mechanism = SCRAM
                _check_sasl(methods, "auth_tls", "tls:")
                return (yield from _by_scram(channel, ScramLogin(account)))
            case _:
                if methods and AuthMethod.NONE not in methods:
                    raise TargetFailure(target.name, _wanted(methods))
                return channel
    except MalformedFrame as error:
        reason = f"the server's answer about authentication cannot be read: {error}"
        raise TargetFailure(target.name, reason) from error
    except NotAgreed as error:
        raise TargetFailure(target.name, f"{mechanism}: {error}") from error
    except GSSError as error:
        raise TargetFailure(target.name, f"GSSAPI: {words_of(error)}") from error


def _by_gssapi(channel: Channel, context: gssapi.SecurityContext) -> Calls:
    mechanisms = unpack_sasl_mechanisms((yield Remote.AUTH_SASL_INIT, b""))
    if _MECHANISM not in mechanisms:
        offered = ", ".join(mechanisms) or "nothing"
        raise NotAgreed(f"the server offers {offered}; it needs a keytab to offer GSSAPI")
    begun = SaslStart(_MECHANISM, context.step())
    context.step(_token((yield Remote.AUTH_SASL_START, begun.pack())))
    if not context.complete:
        raise NotAgreed("the server wants another exchange than RFC 4752 has")
    offer = raw.unwrap(context, _token((yield Remote.AUTH_SASL_STEP, pack_sasl_step(None))))
    longest = _longest_plain(context, offer.message)
    chosen = bytes([_ENCRYPTS]) + MAX_TOKEN.to_bytes(_OFFER_SIZE - 1, "big")
    last = pack_sasl_step(raw.wrap(context, chosen, False).message)
    if not SaslReply.unpack((yield Remote.AUTH_SASL_STEP, last)).complete:
        raise NotAgreed("the server wants more where the exchange of RFC 4752 ends")
    return SaslChannel(channel, context, longest)


def _by_scram(channel: Channel, login: ScramLogin) -> Calls:
    mechanisms = unpack_sasl_mechanisms((yield Remote.AUTH_SASL_INIT, b""))
    if SCRAM not in mechanisms:
        offered = ", ".join(mechanisms) or "nothing"
        raise NotAgreed(f"the server offers {offered}; it needs passwords to offer {SCRAM}")
    begun = SaslStart(SCRAM, login.first())
    challenge = _token((yield Remote.AUTH_SASL_START, begun.pack()))
    ended = SaslReply.unpack((yield Remote.AUTH_SASL_STEP, pack_sasl_step(login.proof(challenge))))
    login.check(ended.data)
    if not ended.complete:  # a server may want one more turn, with nothing in it
        ended = SaslReply.unpack((yield Remote.AUTH_SASL_STEP, pack_sasl_step(b"")))
    if not ended.complete:
        raise NotAgreed("the server wants more where the exchange of RFC 5802 ends")
    return channel


def _token(payload: bytes) -> bytes:
    """The token of a reply that goes on."""
    reply = SaslReply.unpack(payload)
    if reply.complete or not reply.data:
        raise NotAgreed("the server ended the exchange without proving itself; is this libvirt?")
    return reply.data


def _longest_plain(context: gssapi.SecurityContext, offer: bytes) -> int:
    """How much goes into one token, of those that the server takes."""
    if len(offer) != _OFFER_SIZE or not offer[0] & _ENCRYPTS:
        raise NotAgreed("the server offers no encryption, which libvirt's clients want on TCP")
    size = int.from_bytes(offer[1:], "big")
    longest = raw.wrap_size_limit(context, min(size, MAX_TOKEN))
    if longest < _LEAST_PLAIN:
        raise NotAgreed(f"the server takes tokens of at most {size} bytes, which is too small")
    return longest


def _check_sasl(methods: list[int], setting: str, kind: str) -> None:
    if AuthMethod.SASL in methods:
        return
    if not methods or AuthMethod.NONE in methods:
        raise NotAgreed(
            f'the server lets in everybody; set its {setting} = "sasl", or measure {kind}'
        )
    raise NotAgreed(f"the server wants {_names(methods)} and not SASL")


def _wanted(methods: list[int]) -> str:
    return (
        f"AUTH_LIST: the server wants {_names(methods)}; besides NONE, SASL is measured, as "
        "gssapi:HOST:PORT or scram+tls:HOST:PORT"
    )


def _names(methods: list[int]) -> str:
    known = {method.value: method.name for method in AuthMethod}
    return ", ".join(known.get(method, str(method)) for method in methods)
