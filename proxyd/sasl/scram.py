"""The mechanisms SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: clients with a user name and a password.

Source: RFC 5802, RFC 7677; docs/protocol/sasl.md, section 7. There is no layer, so they are for
UNIX and TLS; PLUS proves in addition that the TLS connection ends where the client thinks.

The proof is scramp's affair. What stands before it in the client's first message, the GS2 header,
is read here, because scramp refuses a client that names itself as whom it wants to act, and does
not know tls-exporter. scramp gets the rest of the message with an empty header, and what it has
to find in the final message is put into `gs2_header`, where it would keep its own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scramp import ScramException, ScramMechanism
from scramp.utils import ServerError

from proxyd.config.mechanisms import SCRAM, SCRAM_PLUS
from proxyd.sasl.mechanism import Challenge, LoginRefused, Success
from proxyd.sasl.passwords import (
    LONGEST_NAME,
    PasswordError,
    PasswordFile,
    Passwords,
    may_be_a_name,
    prepared,
)

# Names, a nonce and a proof; a nonce of this size is searched in 0.8 ms.
LARGEST_MESSAGE: Final = 4096
# Flag of channel binding with its type, the name to act as, and the message that scramp reads.
_FIRST: Final = re.compile(r"((n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,]+))?,)(.+)", re.DOTALL)
_COUNTED_BY: Final = 64
_NAME: Final = re.compile(r"n=([^,]*)")


@dataclass(frozen=True, slots=True)
class _BoundHeader:
    """In place of scramp's: the client's header as it was, and the bytes that it is bound to."""

    content: bytes

    def make_cbind_input(self, _channel_binding: object) -> bytes:
        return self.content


def claimed(data: bytes) -> str:
    """Who the client's first message says that it is; "" where that will be refused.

    One spelling for each user, as far as the first characters go: it is to count by, and to prepare
    the longest of names takes half a millisecond.
    """
    try:
        found = _FIRST.fullmatch(_text(data))
        named = _NAME.match(found[5]) if found else None
        name = _unescaped(named[1]) if named else ""
        if not may_be_a_name(name):
            return ""
        name = name[:_COUNTED_BY]
        return name if name.isascii() else prepared(name)
    except (LoginRefused, PasswordError):
        return ""


class ScramServer:
    """One attempt by SCRAM.

    `bindings` are the types that this connection has with their bytes (RFC 5929, RFC 9266).
    `plus`: they are used. `plus_offered`: the client was told that they can be, so a client that
    could and says that we cannot (its flag "y") was told a shorter list by somebody between.
    """

    def __init__(
        self,
        passwords: PasswordFile,
        *,
        plus: bool = False,
        plus_offered: bool = False,
        bindings: Mapping[str, bytes] | None = None,
    ) -> None:
        self._passwords = passwords
        self._plus = plus
        self._plus_offered = plus or plus_offered
        self._bindings = bindings or {}
        self._turn: Callable[[bytes | None], Challenge | Success] = self._first
        self._server: Any = None  # scramp has no types
        self._username = ""
        self._known = False

    @property
    def name(self) -> str:
        return SCRAM_PLUS if self._plus else SCRAM

    def start(self, data: bytes | None) -> Challenge | Success:
        if data is None:
            return Challenge(b"")  # the client speaks first, be it in a message of its own
        return self.step(data)

    def step(self, data: bytes | None) -> Challenge | Success:
        # Whatever is not answered by a challenge was the last turn.
        turn, self._turn = self._turn, _over
        return turn(data)

    def _first(self, data: bytes | None) -> Challenge:
        found = _FIRST.fullmatch(_text(data))
        if not found:
            raise LoginRefused("the client's first message is malformed")
        header, flag, binding, authzid, bare = found.groups()
        _check_names(bare, authzid)
        bound = self._bound_to(flag, binding)
        try:
            passwords = self._passwords.read()
        except PasswordError as error:
            reason = f"without passwords nobody can come in: {error}"
            raise LoginRefused(reason, ours=True) from error
        self._server = ScramMechanism(SCRAM).make_server(
            lambda username: self._verifier(passwords, username)
        )
        try:
            self._server.set_client_first(f"n,,{bare}")
            answer: str = self._server.get_server_first()
        except ScramException as error:
            raise self._refused(error.args[0]) from error
        if authzid is not None and _act_as(authzid) != self._username:
            raise self._refused("the client wants to act as somebody else")
        self._server.gs2_header = _BoundHeader(header.encode() + bound)
        self._turn = self._final
        return Challenge(answer.encode())

    def _bound_to(self, flag: str, binding: str | None) -> bytes:
        """What the client has to have seen of the TLS connection, b"" if nothing."""
        if binding is not None and self._plus:
            try:
                return self._bindings[binding]
            except KeyError:
                raise LoginRefused(
                    "the client binds to something that this connection has not"
                ) from None
        if self._plus or binding is not None:
            raise LoginRefused(f"the client chose {self.name} and did otherwise")
        if flag == "y" and self._plus_offered:
            hint = "somebody may stand between: see which way this client's connections go"
            raise LoginRefused(
                f"the client was not told of {SCRAM_PLUS}, which was offered", hint=hint
            )
        return b""

    def _verifier(self, passwords: Passwords, username: str) -> tuple[bytes, bytes, bytes, int]:
        self._username = username
        self._known = username in passwords.verifiers
        found = passwords.verifier(username)
        return found.salt, found.stored_key, found.server_key, found.iterations

    def _final(self, data: bytes | None) -> Success:
        try:
            self._server.set_client_final(_text(data))
            answer: str = self._server.get_server_final()
        except ScramException as error:
            raise self._refused(self._reason(error)) from error
        return Success(
            username=self._username,
            ssf=0,
            data=answer.encode(),
            layer=None,
            detail=f"{self._username} by {self.name}",
        )

    def _reason(self, error: ScramException) -> str:
        if not self._known:
            return f"no such user in {self._passwords.path}"
        match error.server_error:
            case ServerError.INVALID_PROOF:
                return "wrong password"
            case ServerError.CHANNEL_BINDINGS_DONT_MATCH:
                return "the client is bound to another connection than this"
        return str(error.args[0])

    def _refused(self, reason: str) -> LoginRefused:
        return LoginRefused(reason, username=self._username or None)


def _text(data: bytes | None) -> str:
    if not data or len(data) > LARGEST_MESSAGE:
        raise LoginRefused(f"the client sent a message of {len(data or b'')} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise LoginRefused("the client sent a message that is no UTF-8") from None


def _check_names(bare: str, authzid: str | None) -> None:
    """Before anybody prepares them, which takes 50 ms for the longest that fit into a message."""
    named = _NAME.match(bare)
    names = (named[1] if named else "", authzid or "")
    if not all(may_be_a_name(_unescaped(each)) for each in names):
        raise LoginRefused(f"the client gave a name of more than {LONGEST_NAME} characters")


def _unescaped(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")


def _act_as(escaped: str) -> str:
    try:
        return prepared(_unescaped(escaped))
    except PasswordError:
        return ""


def _over(_data: bytes | None) -> Challenge | Success:
    raise AssertionError("this attempt has ended")
