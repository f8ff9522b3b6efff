"""The client's side of SCRAM-SHA-256, whose messages and proof are scramp's affair.

Source: RFC 5802, RFC 7677. Nothing is bound to the TLS connection below (that would be
SCRAM-SHA-256-PLUS), as with libvirt's own clients.
"""

from functools import cache, lru_cache
from typing import Any, Final

from scramp import ScramClient, ScramException, core

from .credentials import Account, password_of
from .failures import NotAgreed, UsageError

MECHANISM: Final = "SCRAM-SHA-256"
_SALTS: Final = 64  # whose keys are remembered: servers have one per user


class ScramLogin:
    """One exchange."""

    def __init__(self, account: Account) -> None:
        _remember_keys()
        try:
            self._client: Any = ScramClient([MECHANISM], account.user, password_of(account))
        except ScramException as error:  # what it says holds no part of the password
            reason = f"--user and --password-file hold what SASL does not allow: {error.args[0]}"
            raise UsageError(reason) from None

    def first(self) -> bytes:
        message: str = self._client.get_client_first()
        return message.encode()

    def proof(self, challenge: bytes) -> bytes:
        """The answer to the server's first message. Raises NotAgreed."""
        try:
            self._client.set_server_first(_text(challenge))
            message: str = self._client.get_client_final()
        except ScramException as error:
            raise NotAgreed(f"the server's challenge: {error.args[0]}") from error
        return message.encode()

    def check(self, last: bytes | None) -> None:
        """Raises NotAgreed unless the server knows the password as well."""
        try:
            self._client.set_server_final(_text(last or b""))
        except ScramException as error:
            raise NotAgreed(f"the server did not prove itself: {error.args[0]}") from error


def _text(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise NotAgreed("the server sent a message that is no UTF-8") from None


@cache  # once per process
def _remember_keys() -> None:
    """Lets scramp remember the keys of a password, as RFC 5802, section 5.1 allows to clients.

    65536 rounds of HMAC, which proxyd asks for, are 100 ms of CPU: with them every session rate
    would be that of the tool.
    """
    derive = core.hi

    @lru_cache(_SALTS)
    def remembered(algorithm: object, password: bytes, salt: bytes, rounds: int) -> Any:
        return derive(algorithm, password, salt, rounds)

    # scramp's own number of rounds cannot be looked up in a table.
    core.hi = lambda *known: remembered(*known[:3], int(known[3]))
