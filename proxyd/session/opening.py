"""One client: from its first byte to the hand-over, in one task that then ends.

    meet ─ negotiate ─ route ─ open the daemon ─ reply ─ hand over

Nothing of the client reaches a daemon here: the daemon gets calls that this side makes. The
client's next byte is still in its endpoint when the relay takes over, and by then the daemon has
acknowledged whose connection it is.
"""

import errno
import functools
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from proxyd.admission.holder import NAMELESS_USERS, Holder
from proxyd.admission.logins import TooManyFailures
from proxyd.admission.place import Place
from proxyd.config.addresses import daemon_at
from proxyd.config.listeners import Door
from proxyd.config.quoting import excerpt
from proxyd.config.routes import Unroutable
from proxyd.endpoint.contract import Endpoint, HungUp
from proxyd.endpoint.plain import PlainEndpoint
from proxyd.endpoint.sasl import SaslEndpoint
from proxyd.log.episodes import Episodes
from proxyd.negotiation.events import (
    HangUp,
    NeedsPolkit,
    NeedsSasl,
    Send,
    ServerEvent,
    WantsOpen,
)
from proxyd.negotiation.server import ServerNegotiation
from proxyd.peer.credentials import Denied
from proxyd.sasl.mechanism import Challenge, LoginRefused
from proxyd.session.backend import OpenFailed
from proxyd.session.conversation import Conversation, SentDescriptors
from proxyd.session.greeting import Greeting, Untrusted
from proxyd.session.handover import Relay
from proxyd.session.leaving import Part, part_at_once
from proxyd.session.opener import Opener
from proxyd.session.presence import Presence
from proxyd.session.refusal import PATIENCE_S, Refusals
from proxyd.session.roster import Client, Roster
from proxyd.session.rulings import Forbidden
from proxyd.session.sasl_exchange import Proof, SaslExchange
from proxyd.session.tally import Refusal, Tally
from proxyd.wire import failure
from proxyd.wire.failure import Failure
from proxyd.wire.programs import AuthMethod

_REFUSALS_LOGGED: Final = 3
_PROMPTS: Final = 5
_KIND_OF: Final[Mapping[type[Exception], Refusal]] = {
    Unroutable: Refusal.NO_ROUTE,
    Forbidden: Refusal.RULES,
    OpenFailed: Refusal.DAEMON,
}
_WARNINGS: Final = 10  # about the ends of one holder's clients, in one episode

if TYPE_CHECKING:  # it brings D-Bus with it
    from proxyd.polkit.authority import PolkitAuthority

log = logging.getLogger("rpc.netserverclient")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What every session needs. `timeout_s` gives what is in force right now."""

    roster: Roster
    relay: Relay
    timeout_s: Callable[[], int]
    proof: Callable[[Door], Proof]  # for doors that ask for SASL
    refusals: Refusals
    episodes: Episodes
    presence: Presence
    polkit: "PolkitAuthority | None"  # for doors that ask for it
    opener: Opener
    part: Part = part_at_once  # from whom no session came of
    trouble_of: Callable[[Door], str] = lambda _: ""  # why nobody can be let in by a door


async def serve_client(session: "OpeningSession") -> None:
    """Serves an accepted connection until it is relayed or over. Never raises for a client."""
    services = session.services
    reason, level = "an error of proxyd's own", logging.ERROR
    part = services.part
    try:
        with session.deadline:
            reason, level = await session.negotiate()
        if session.cut:
            reason, level = session.cut, session.level
        elif session.deadline.cancelled_caught:
            reason, level = session.out_of_time(), logging.WARNING
            session.tally.refused[Refusal.TIMEOUT] += 1
    except Untrusted as error:
        session.tally.refused[Refusal.TLS] += 1
        reason, level = str(error), logging.WARNING
    except SentDescriptors as error:
        session.offend()
        part, reason, level = part_at_once, f"protocol error: {error.reason}", logging.WARNING
    except HungUp as error:
        part = part_at_once
        reason, level = session.gone(error.reason)
    except trio.Cancelled:
        part, reason, level = part_at_once, "proxyd stopped", logging.INFO
        raise
    except Exception:  # the one net of this plane, around one session
        log.exception("client %d: an error of proxyd's own", session.client.number)
    finally:
        if session.client.pair is None:
            part(session.endpoint, session.holder)
            if level >= logging.WARNING and not session.denied:
                session.deny(reason)
            services.roster.ended(session.client, *session.told(reason, level))


class OpeningSession:
    """One session before its hand-over, from the moment in which it has a place.

    Owns the connection; `serve_client` closes it or hands it over.
    """

    def __init__(self, greeting: Greeting, door: Door, services: Services, place: Place) -> None:
        self.door = door
        self.services = services
        self.endpoint = greeting.endpoint
        self.conversation = Conversation(self.endpoint)
        self.client: Client = services.roster.arrived(door, place, end=self._cut_off)
        self.machine: ServerNegotiation | None = None
        self._place = place
        self._greeting = greeting
        self._unknown: Failure | None = None  # why nobody can say who it is
        self._sasl: SaslExchange | None = None
        self._refusals = 0
        self.denied = False  # which was recorded
        self.timeout_s = services.timeout_s()
        self.deadline = trio.CancelScope(relative_deadline=self.timeout_s)
        self._prompts = 0
        self._applied = 0  # how often rules had been applied when its session was decided about
        self.cut, self.level = "", logging.INFO  # why somebody ended it before its time

    @property
    def holder(self) -> Holder:
        return self._place.holder

    @property
    def tally(self) -> Tally:
        return self.services.roster.tally

    async def negotiate(self) -> tuple[str, int]:
        """Returns why no session came of it, with the level to log that at; or hands over."""
        await self._wait_in_line()
        await self._do_penance()
        self._unknown = await self._greeting.meet(self.client)
        self.client.known = True
        if self._unknown is not None:
            return await self._tell(self._unknown)
        if self.door.transport.traits.shakes_hands:
            took_ns = time.monotonic_ns() - self.client.started_ns
            self.tally.handshake(self.door.name, took_ns)
            await self._leave_the_handshake()
        if self.door.method is AuthMethod.SASL:
            self._sasl = SaslExchange(
                self.services.proof(self.door),
                self._greeting.bindings,
                self._place.holder,
                self.services.roster.admission.logins,
                self._aside,
            )
            with closing(self._sasl):
                return await self._converse()
        return await self._converse()

    def deny(self, reason: str) -> None:
        """Records that it is not let in, or not to where it wants to go."""
        self.denied = True
        self.services.roster.audit.denied(self.client.recorded, reason)

    async def _do_penance(self) -> None:
        pause_s = self.services.roster.offences.pause_s(self._place.holder)
        if pause_s:
            await trio.sleep(pause_s)

    def offend(self) -> None:
        """The client has broken the protocol: the next ones of its user wait for a moment."""
        self.services.roster.offences.note(self._place.holder)
        self.tally.refused[Refusal.PROTOCOL] += 1

    async def _converse(self) -> tuple[str, int]:
        machine = self.machine = ServerNegotiation(
            method=self.door.method,
            readonly=self.door.readonly,
            mechanisms=() if self._sasl is None else self._sasl.offered,
            longest_token=0 if self._sasl is None else self._sasl.longest_token,
            is_root=self.client.identity.uid == 0,
            unknown=self._unknown,
        )
        place, admission = self._place, self.services.roster.admission
        while True:
            place.await_client()
            received = await self.conversation.receive(machine.wanted)
            place.think()
            for event in machine.receive_data(received):
                over = await self._carry_out(machine, event)
                if over is not None:
                    return over
                admission.heard(place)
            if machine.authenticated:
                self.services.roster.proved(self.client)

    async def _wait_in_line(self) -> None:
        """One user has so many clients at a time that prove who they are. The others keep their
        time for when it is their turn."""
        place, admission = self._place, self.services.roster.admission
        if not admission.needs_turn(place):
            return
        if self.services.episodes.begins((place.holder, "in line")):
            log.warning(
                "%s: %d of %d unauthenticated; others wait (see max_anonymous_clients)",
                place.holder.name,
                admission.turns.held_by(place.holder),
                admission.max_anonymous,
            )
        self.deadline.deadline = math.inf
        place.await_client()
        with self.services.presence.watched(self.endpoint.fileno(), self._has_gone):
            await admission.turn(place)
        place.think()
        self.deadline.deadline = trio.current_time() + self.timeout_s

    async def _leave_the_handshake(self) -> None:
        """Behind it the client is known by its certificate, or has to prove who it is by SASL."""
        admission = self.services.roster.admission
        if self.door.method is AuthMethod.NONE:
            admission.proved(self._place)
            return
        await admission.leave_handshake(self._place)
        admission.heard(self._place)

    async def _tell(self, unknown: Failure) -> tuple[str, int]:
        """Whoever nobody can name is told so for a second, and holds no place of others' meanwhile.

        One user may have thousands of uids that nobody has a name for.
        """
        self.services.roster.admission.left(self._place)
        self.deny(unknown.message)
        self.cut, self.level = unknown.message, self.services.refusals.level(NAMELESS_USERS)
        with self.services.refusals.place(NAMELESS_USERS) as may:
            if may:
                self.deadline.deadline = trio.current_time() + PATIENCE_S
                return await self._converse()
        return self.cut, self.level

    async def _carry_out(
        self, machine: ServerNegotiation, event: ServerEvent
    ) -> tuple[str, int] | None:
        """Does what the machine asks for; what it returns ends the negotiation."""
        match event:
            case Send(wire):
                await self.conversation.send(wire)
            case HangUp(reason, orderly):
                if not orderly:
                    self.offend()
                return reason, logging.INFO if orderly else logging.WARNING
            case NeedsPolkit(action):
                with self.services.presence.watched(self.endpoint.fileno(), self._has_gone):
                    denial = await self._ask_polkit(action)
                await self.conversation.send(machine.polkit_says(denial))
            case NeedsSasl():
                return await self._prove(machine, event)
            case WantsOpen():
                with self.services.presence.watched(self.endpoint.fileno(), self._has_gone):
                    backend = await self._opened(machine, event)
                if backend is not None:
                    return await self._hand_over(machine, backend)
        return None

    def told(self, reason: str, level: int) -> tuple[str, int]:
        """For the log. Whoever comes again and again for nothing must not fill it."""
        if level != logging.WARNING:
            return reason, level
        times = self.services.episodes.times((self._place.holder, "for nothing"))
        if times == _WARNINGS:
            reason = f"{reason} (more like this of {self._place.holder.name} are told as info)"
        return reason, level if times <= _WARNINGS else logging.INFO

    def gone(self, reason: str) -> tuple[str, int]:
        """For the log: where a client leaves tells mostly what it did not like."""
        text, machine = f"the client is gone: {reason}", self.machine
        if machine is None:
            return text, logging.INFO
        if self._sasl is not None and machine.has_offered:
            names = ", ".join(self._sasl.offered)
            return (
                f"{text}, when it had been offered {names}: has it no ticket (klist), no password,"
                " or none of these mechanisms?",
                logging.WARNING,
            )
        if self.door.transport.traits.shakes_hands and not machine.called:
            return (
                f"{text}, right after our certificate: is the name or address by which it comes in"
                " there (subjectAltName), and does it trust the CA that issued it?",
                logging.WARNING,
            )
        return text, logging.INFO

    def out_of_time(self) -> str:
        """The deadline has passed: says so to a client that waits for an answer, and why."""
        seconds = self.timeout_s
        machine = self.machine
        if machine is None:
            return f"{self._greeting.step} took longer than {seconds} s"
        if not machine.opening:
            return f"no connection was opened within {seconds} s"
        backend = self.client.backend or "the daemon"
        text = f"{backend} did not answer within {seconds} s: {os.strerror(errno.ETIMEDOUT)}"
        reply = machine.refused(failure.system_error(errno.ETIMEDOUT, text))
        # One try without waiting: a client that does not even take an error has had its time.
        self.endpoint.write(memoryview(reply))
        return text

    async def _ask_polkit(self, action: str) -> Failure | None:
        """polkit's verdict: a human may be looking for a password, which has a limit of its own."""
        assert self.services.polkit is not None
        began, deadline = trio.current_time(), self.deadline.deadline
        self.deadline.deadline = math.inf
        try:
            with self._greeting.process(self.client.identity) as subject:
                denial = await self.services.polkit.check(subject, action)
        except Denied as error:
            denial = failure.polkit_cannot_tell_who(str(error))
        took_s = trio.current_time() - began
        self._prompts += 1
        # virsh asks five times. Who goes on asking does so in the time that everybody has.
        self.deadline.deadline = deadline + (took_s if self._prompts <= _PROMPTS else 0)
        if denial is not None:
            self.tally.refused[Refusal.POLKIT] += 1
            self._log_refusal(f"{action} after {took_s:.1f} s: {denial.message}")
        return denial

    def _has_gone(self) -> None:
        self._cut_off("the client is gone: closed")

    def _cut_off(self, why: str) -> None:
        self.cut = self.cut or why
        self.deadline.cancel()

    @asynccontextmanager
    async def _aside(self) -> AsyncIterator[None]:
        """The client waits for a time of its own, and keeps no other one from anything by it."""
        place, admission = self._place, self.services.roster.admission
        admission.step_aside(place)
        place.await_client()  # it has to make way, as if it were silent
        with self.services.presence.watched(self.endpoint.fileno(), self._has_gone):
            yield
            await admission.step_back(place, self.door.transport)
        place.think()

    async def _prove(self, machine: ServerNegotiation, wanted: NeedsSasl) -> tuple[str, int] | None:
        """One step of SASL; after the last one the client has a name and perhaps a layer."""
        assert self._sasl is not None
        try:
            answer = await self._sasl.answer(wanted)
        except TooManyFailures as error:
            self.tally.refused[Refusal.LOGINS] += 1
            await self.conversation.send(machine.sasl_failed())
            return str(error), self.services.refusals.level(self._place.holder, Refusal.LOGINS)
        except LoginRefused as error:
            self.tally.refused[Refusal.SASL] += 1
            self._log_refusal(f"{self._sasl.name}: {_told(error)}")
            await self._sasl.pause()
            await self.conversation.send(machine.sasl_failed())
            return None
        if isinstance(answer, Challenge):
            await self.conversation.send(machine.sasl_goes_on(answer.data))
            return None
        self.client.identity = replace(self.client.identity, sasl_user_name=answer.username)
        self.client.mechanism = self._sasl.name
        log.info(
            "client %d: %s: came in by %s, %s, %d bits",
            self.client.number,
            self.client,
            self._sasl.name,
            answer.detail,
            answer.ssf,
        )
        # Told in the clear; from the next byte on, both ways, the layer is in force.
        await self.conversation.send(machine.sasl_succeeded(answer.data))
        if answer.layer is not None:
            assert isinstance(self.endpoint, PlainEndpoint)
            self.endpoint = SaslEndpoint(self.endpoint, answer.layer)
            self.conversation = Conversation(self.endpoint)
        return None

    async def _opened(self, machine: ServerNegotiation, wanted: WantsOpen) -> Endpoint | None:
        """The daemon's connection; None when the client was told why there is none."""
        rulings = self.services.opener.rulings
        self._applied = rulings.applied
        began_ns = time.monotonic_ns()
        try:
            backend = await self.services.opener.open(self.client, wanted)
        except (Unroutable, Forbidden, OpenFailed) as error:
            self.tally.refused[_KIND_OF[type(error)]] += 1
            name = excerpt(wanted.arguments.name or "")
            # It is under the rule that refuses it for as long as that is recorded.
            self.client.ruling = error.ruling if isinstance(error, Forbidden) else None
            self._log_refusal(f"cannot open {name}: {error}")
            self.client.ruling = None
            await self.conversation.send(machine.refused(error.failure))
            return None
        if self._applied != rulings.applied:
            backend.close()
            return await self._opened(machine, wanted)  # by the rules of now
        self.tally.opening(daemon_at(self.client.backend), time.monotonic_ns() - began_ns)
        return backend

    async def _hand_over(self, machine: ServerNegotiation, backend: Endpoint) -> tuple[str, int]:
        try:
            if self.endpoint.carries_descriptors and not self.client.readonly:
                # A client may send some as soon as it knows that it is open.
                self.endpoint.take_descriptors()
            await self.conversation.send(machine.opened())
            # Whoever was closed in this very turn of the loop has met no checkpoint since.
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._applied != self.services.opener.rulings.applied:
                backend.close()
                return "the rules changed while it was opened; it may come again", logging.WARNING
            # From here to the end of the task nothing waits: the session is in one plane or the
            # other.
            pair = self.services.relay.adopt(
                self.client.number,
                self.endpoint,
                backend,
                now_ns=time.monotonic_ns(),
                owner=self._place.holder.name,
                daemon=self.client.backend,
                readonly=self.client.readonly,
                guards=self.services.opener.rulings.guards_of(self.client.ruling),
                pace=self.services.opener.rulings.pace_of(self.client.ruling),
                trail=self.services.roster.audit.trail(self.client.recorded),
            )
        except BaseException:
            backend.close()
            raise
        self.services.roster.opened(
            self.client,
            pair,
            end=functools.partial(self.services.relay.drop, pair.number),
        )
        return "", logging.INFO

    def _log_refusal(self, what: str) -> None:
        """One line for a client's first attempts; one that goes on trying must not fill the log."""
        self._refusals += 1
        if self._refusals > _REFUSALS_LOGGED:
            return
        self.deny(what)
        log.warning(
            "client %d: %s: %s%s",
            self.client.number,
            self.client,
            what,
            " (further attempts are not logged)" if self._refusals == _REFUSALS_LOGGED else "",
        )


def _told(refusal: LoginRefused) -> str:
    """For the log: who it was if that is known, why, and what mends it."""
    who = f"{excerpt(refusal.username)}: " if refusal.username else ""
    hint = f"; {refusal.hint}" if refusal.hint else ""
    return f"{who}{refusal}{hint}"
