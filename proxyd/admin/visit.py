"""One client of the admin socket, from accept to its last byte, in one task.

Only the daemon's own uid is served, whatever the socket's mode; anybody else is closed without a
byte. A client may stay as long as it likes between two calls, but not in the middle of something:
one that has not made a call yet, has sent part of a frame, or does not take its reply is closed
after the timeout. It costs one frame and one reply of memory at most.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from proxyd.admin.procedures import act_of, answer, closed_by
from proxyd.admin.recording import administrator, event_of, limits_of, target_of
from proxyd.admin.view import CallRefused, DaemonView
from proxyd.admin.visitors import OWN_USER, AdminServer, Visitor
from proxyd.audit.record import Value, Who
from proxyd.audit.writer import Audit
from proxyd.endpoint.contract import HungUp
from proxyd.negotiation.admin import AdminNegotiation, Asked, Event
from proxyd.negotiation.events import HangUp, Send
from proxyd.negotiation.identity import ClientIdentity
from proxyd.peer.credentials import Denied, credentials_of
from proxyd.peer.names import NameService
from proxyd.session.conversation import Conversation
from proxyd.session.greeting import Untrusted
from proxyd.session.leaving import Part, part_at_once
from proxyd.wire.programs import Admin, Own

# virt-admin shows who is who by name. When a name service hangs is when it is needed most.
_NAMES_S: Final = 1.0

log = logging.getLogger("daemon.admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitServices:
    """What every visit needs. `timeout_s` gives what is in force right now."""

    server: AdminServer
    view: DaemonView
    names: NameService
    timeout_s: Callable[[], float]
    part: Part = part_at_once
    audit: Audit = field(default_factory=Audit)


async def serve_visitor(visitor: Visitor, services: VisitServices) -> None:
    """Serves an accepted connection to its end and closes it. Never raises for a client."""
    reason, level, part = "an error of proxyd's own", logging.ERROR, services.part
    try:
        with visitor.scope:
            reason, level = await _Visit(visitor, services).last()
        if visitor.scope.cancelled_caught:
            reason, level = "closed by an administrator", logging.INFO
    except Untrusted as error:
        reason, level, part = str(error), logging.WARNING, part_at_once
    except HungUp as error:
        reason, level = f"the client is gone: {error.reason}", logging.DEBUG
        part = part_at_once
    except trio.Cancelled:
        reason, level, part = "proxyd stopped", logging.INFO, part_at_once
        raise
    except Exception:  # around one visit, as there is one around each session
        log.exception("%s: an error of proxyd's own", visitor)
    finally:
        part(visitor.endpoint, OWN_USER)
        services.server.left(visitor)
        log.log(level, "%s: ended: %s", visitor, reason)


class _Visit:
    """The connection while it lasts."""

    def __init__(self, visitor: Visitor, services: VisitServices) -> None:
        self._visitor = visitor
        self._services = services
        self._conversation = Conversation(visitor.endpoint)
        self._service = AdminNegotiation()
        self._timeout_s = services.timeout_s()
        self._patience = trio.CancelScope(relative_deadline=self._timeout_s)

    async def last(self) -> tuple[str, int]:
        """Returns why it ended, and the level to log that at. Raises Untrusted and HungUp."""
        service = self._service
        with self._patience:
            self._visitor.known_identity = identity = _own_user(self._visitor)
            self._visitor.known_identity = await self._named(identity)
            while True:
                received = await self._conversation.receive(service.wanted)
                events = service.receive_data(received)
                self._set_patience()
                for event in events:
                    over = await self._carry_out(event)
                    if over is not None:
                        return over
        what = "sent part of a frame" if service.midway else "made no call"
        return f"it {what} and then nothing for {self._timeout_s:g} s", logging.WARNING

    async def _named(self, identity: ClientIdentity) -> ClientIdentity:
        """With its names, if they can be had soon."""
        assert identity.uid is not None
        assert identity.gid is not None
        with trio.move_on_after(_NAMES_S):
            try:
                user, group = await self._services.names.names_of(identity.uid, identity.gid)
            except Denied as error:
                log.debug("%s: %s", self._visitor, error)
            else:
                return replace(identity, user_name=user, group_name=group)
        return identity

    def _set_patience(self) -> None:
        """Counts from the first byte of a frame to its last, after a first call that was prompt."""
        if not self._service.spoken_to:
            return
        if not self._service.midway:
            self._patience.deadline = float("inf")
        elif self._patience.deadline == float("inf"):
            self._patience.deadline = trio.current_time() + self._timeout_s

    async def _carry_out(self, event: Event) -> tuple[str, int] | None:
        """Does what the machine asks for; what it returns ends the visit."""
        match event:
            case Send(wire):
                return await self._send(wire)
            case HangUp(reason, orderly):
                return reason, logging.DEBUG if orderly else logging.WARNING
            case Asked():
                return await self._send(await self._answer(event))

    async def _answer(self, asked: Asked) -> bytes:
        """The reply, when the call has been carried out or refused."""
        changes = act_of(asked.procedure).changes
        level = logging.INFO if changes else logging.DEBUG
        what = asked.procedure.name
        if whom := closed_by(self._services.view, asked.procedure, asked.payload):
            what = f"{what} of {whom}"
        log.log(level, "%s: %s", self._visitor, what)
        # These end the daemon, or this process of it, when the one who asked has gone.
        if asked.procedure is Admin.CONNECT_DAEMON_SHUTDOWN or asked.procedure is Own.UPGRADE:
            self._visitor.asked_to_stop = True
        view = self._services.view
        target = target_of(view, asked.procedure, asked.payload) if changes else None
        try:
            result = await answer(view, asked.procedure, asked.payload)
        except CallRefused as refusal:
            log.log(level, "%s: %s: %s", self._visitor, asked.procedure.name, refusal)
            if target is not None:
                self._record(asked, target, {"outcome": "error", "reason": str(refusal)})
            return self._service.refused(refusal.failure)
        if target is not None:
            now = limits_of(view, asked.procedure, asked.payload)
            self._record(asked, target, {"outcome": "ok", **now})
        return self._service.answered(result)

    def _record(self, asked: Asked, target: Who, values: dict[str, Value | None]) -> None:
        by = administrator(self._visitor)
        procedure = {"procedure": asked.procedure.name}
        event = event_of(asked.procedure)
        self._services.audit.put(event, target, {**by, **procedure, **values})

    async def _send(self, wire: bytes) -> tuple[str, int] | None:
        with trio.move_on_after(self._timeout_s) as sending:
            await self._conversation.send(wire)
        if sending.cancelled_caught:
            return f"it did not take its reply within {self._timeout_s:g} s", logging.WARNING
        return None


def _own_user(visitor: Visitor) -> ClientIdentity:
    """Who is connected, when that is the user whose daemon this is. Raises Untrusted."""
    try:
        peer = credentials_of(visitor.sock)
    except Denied as error:
        raise Untrusted(str(error)) from error
    if peer.uid != os.geteuid():
        raise Untrusted(
            f"uid {peer.uid} (pid {peer.pid}) is not served here, only uid {os.geteuid()} is"
        )
    return ClientIdentity(
        uid=peer.uid,
        gid=peer.gid,
        pid=peer.pid,
        start_ticks=peer.start_ticks,
        selinux_context=peer.selinux_context,
    )
