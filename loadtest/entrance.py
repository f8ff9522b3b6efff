"""What a server wants between the connection and CONNECT_OPEN: AUTH_LIST, and perhaps SASL.

Written as a generator of calls, because one driver waits for each reply and another for those of
many sessions at once: it yields a procedure and its arguments, is sent the reply's payload, and
returns the channel that the session goes on with.

Source: docs/protocol/authentication.md, section 2, and docs/protocol/sasl.md; RFC 4752 (GSSAPI),
RFC 5802 (SCRAM).
"""

from collections.abc import Generator
from typing import Final

from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.remote import (
    SaslReply,
    SaslStart,
    pack_sasl_step,
    unpack_auth_methods,
    unpack_sasl_mechanisms,
)
from proxyd.wire.xdr import MalformedFrame

from .connecting import Channel
from .credentials import Account
from .failures import NotAgreed, TargetFailure
from .scram import MECHANISM as SCRAM
from .scram import ScramLogin
from .targets import Protection, Target, TcpAddress
from .tickets import Tickets

Calls = Generator[tuple[Remote, bytes], bytes, Channel]

GSSAPI: Final = "GSSAPI"


def way_in(
    target: Target, tickets: Tickets | None, channel: Channel, account: Account | None = None
) -> Calls:
    """AUTH_LIST and what the target's kind asks for; another wish of the server is a failure."""
    mechanism = GSSAPI
    try:
        methods = unpack_auth_methods((yield Remote.AUTH_LIST, b""))
        match target.address:
            case TcpAddress(Protection.GSSAPI, host):
                assert tickets is not None, "the command line sees to it"
                _check_sasl(methods, "auth_tcp", "tcp:")
                from .gssapi_login import by_gssapi  # noqa: PLC0415 (needs an extra)

                return (yield from by_gssapi(channel, tickets, host))
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


def _by_scram(channel: Channel, login: ScramLogin) -> Calls:
    mechanisms = unpack_sasl_mechanisms((yield Remote.AUTH_SASL_INIT, b""))
    if SCRAM not in mechanisms:
        offered = ", ".join(mechanisms) or "nothing"
        raise NotAgreed(f"the server offers {offered}; it needs passwords to offer {SCRAM}")
    begun = SaslStart(SCRAM, login.first())
    challenge = token((yield Remote.AUTH_SASL_START, begun.pack()))
    ended = SaslReply.unpack((yield Remote.AUTH_SASL_STEP, pack_sasl_step(login.proof(challenge))))
    login.check(ended.data)
    if not ended.complete:  # a server may want one more turn, with nothing in it
        ended = SaslReply.unpack((yield Remote.AUTH_SASL_STEP, pack_sasl_step(b"")))
    if not ended.complete:
        raise NotAgreed("the server wants more where the exchange of RFC 5802 ends")
    return channel


def token(payload: bytes) -> bytes:
    """The token of a reply that goes on."""
    reply = SaslReply.unpack(payload)
    if reply.complete or not reply.data:
        raise NotAgreed("the server ended the exchange without proving itself; is this libvirt?")
    return reply.data


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
