"""A client proves by SASL who it is; the mechanism's work is done in a thread.

Opening a keytab, a Kerberos token or a password's hash takes milliseconds and sometimes a disk, so
each step runs in one of a few threads. A client that is silent between two steps holds none.

What counts as success is decided here: the mechanism says who it is and how strong the layer is,
`sasl_allowed_username_list` and `tcp_min_ssf` say whether that is enough.

An attempt counts (admission/logins.py) from its first token on: a client that asks for that of the
server has said nothing, and nothing was looked at. One that is left in the middle has failed.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxyd.admission.holder import Holder
from proxyd.admission.logins import Aside, Attempt, Logins
from proxyd.admission.threads import SharedThreads
from proxyd.config.globs import matches
from proxyd.config.quoting import excerpt
from proxyd.negotiation.events import NeedsSasl
from proxyd.sasl.mechanism import Challenge, LoginRefused, Mechanism, Success

if TYPE_CHECKING:  # it brings Kerberos' libraries with it, for which few hosts have a use
    from proxyd.sasl.mechanisms import Offering

_THREADS: Final = 4


def proving_threads() -> SharedThreads[Holder]:
    """Where steps are computed; a holder's wait for each other, not for another's."""
    return SharedThreads(_THREADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who may come in once it is known who it is. `allowed` None: everybody.

    `least_ssf` is what the layer has to bring, in bits; 0 where none is asked for.
    """

    allowed: Sequence[str] | None
    least_ssf: int

    def judge(self, success: Success) -> None:
        """Raises LoginRefused."""
        name = success.username
        if success.ssf < self.least_ssf:
            raise LoginRefused(
                f"its encryption has {success.ssf} bits and {self.least_ssf} are asked for"
                " (tcp_min_ssf)",
                username=name,
            )
        if self.allowed is None or any(matches(pattern, name) for pattern in self.allowed):
            return
        who = "nobody" if not self.allowed else "other names only"
        raise LoginRefused(
            f"{excerpt(name)} is not in sasl_allowed_username_list, which lets in {who}",
            username=name,
            hint=self._hint(name),
        )

    def _hint(self, name: str) -> str:
        """What to write, where the list has this user in another spelling."""
        user, at, _ = name.partition("@")
        for pattern in self.allowed or ():
            listed, listed_at, _ = pattern.partition("@")
            if not at and listed_at and matches(listed, name):
                return (
                    "users of the default realm stand there without it: write"
                    f" {excerpt(listed)} instead of {excerpt(pattern)}"
                )
            if at and not listed_at and matches(pattern, user):
                return (
                    "users of another realm than the default one stand there in full: write"
                    f" {excerpt(name)}"
                )
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a listener with SASL asks of its clients at present."""

    offering: "Offering"
    policy: Policy
    threads: SharedThreads[Holder]


class SaslExchange:
    """The attempts of one client, one after the other.

    `bindings` are what its TLS connection can be told by (RFC 5929), for the mechanisms that want
    to know. `aside` is entered while an attempt has to wait for a time of its own. To be closed.
    """

    def __init__(
        self,
        proof: Proof,
        bindings: Mapping[str, bytes],
        holder: Holder,
        logins: Logins,
        aside: Aside,
    ) -> None:
        self._proof = proof
        self._logins = logins
        self._aside = aside
        self._attempt: Attempt | None = None
        self._bindings = bindings
        self._holder = holder
        self._mechanism: Mechanism | None = None
        self.name = ""  # of the mechanism that was begun last

    @property
    def offered(self) -> Sequence[str]:
        """The mechanisms, the best one first."""
        return self._proof.offering.names

    @property
    def longest_token(self) -> int:
        """In bytes, of those that are read of a client."""
        return self._proof.offering.longest_token

    async def answer(self, wanted: NeedsSasl) -> Challenge | Success:
        """What the mechanism says to a token. Raises LoginRefused, and the attempt is over, and
        TooManyFailures, where it is not even begun."""
        mechanism, self._mechanism = self._mechanism, None
        if wanted.mechanism is not None:
            self.close()
            self.name = wanted.mechanism
        begins = self._attempt is None and (wanted.mechanism is None or wanted.data is not None)
        if begins:
            self._attempt = await self._begin(wanted.data or b"")
        step = functools.partial(self._step, wanted, mechanism)
        try:
            answer, mechanism = await self._proof.threads.run(self._holder, step)
            if isinstance(answer, Success):
                self._proof.policy.judge(answer)
        except LoginRefused as error:
            self._fail(error)
            raise
        if isinstance(answer, Challenge):
            self._mechanism = mechanism
        self._go_on(answer)
        return answer

    async def pause(self) -> None:
        """Returns when the client may be told that it has failed."""
        if self._attempt is not None:
            await self._logins.pause(self._attempt, self._aside)

    def close(self) -> None:
        """No more comes of the attempt that is going on, if one is."""
        if self._attempt is not None:
            self._attempt.left()
            self._attempt = None

    async def _begin(self, data: bytes) -> Attempt:
        name = self._proof.offering.claimed(self.name, data)
        return await self._logins.begin(self._holder, name, self._aside)

    def _fail(self, error: LoginRefused) -> None:
        if self._attempt is not None and error.ours:
            self._attempt.vouched()
            self._attempt.left()
        elif self._attempt is not None:
            self._attempt.failed()

    def _go_on(self, answer: Challenge | Success) -> None:
        if self._attempt is not None and isinstance(answer, Success):
            self._attempt.succeeded()
        elif self._attempt is not None and isinstance(answer, Challenge) and answer.vouched:
            self._attempt.vouched()

    def _step(
        self, wanted: NeedsSasl, mechanism: Mechanism | None
    ) -> tuple[Challenge | Success, Mechanism]:
        if wanted.mechanism is not None:
            mechanism = self._proof.offering.begin(wanted.mechanism, self._bindings)
            return mechanism.start(wanted.data), mechanism
        assert mechanism is not None  # the negotiation asks for no step of an attempt that is over
        return mechanism.step(wanted.data), mechanism
