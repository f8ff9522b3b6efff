"""What an administrator has done, for the audit: which event it is, to whom, and what holds now."""

from collections.abc import Mapping
from typing import Final

from proxyd.admin.view import Client, DaemonView
from proxyd.admin.visitors import Visitor
from proxyd.audit.record import NOBODY, Event, Value, Who
from proxyd.negotiation.identity import ClientIdentity
from proxyd.session.recording import who
from proxyd.wire import adminrpc, proxyd_program
from proxyd.wire.programs import Admin, Own
from proxyd.wire.xdr import MalformedFrame

_EVENTS: Final[Mapping[Admin | Own, Event]] = {
    Admin.CLIENT_CLOSE: Event.KICKED,
    Own.CLOSE_CLIENT: Event.KICKED,
    Admin.SERVER_SET_CLIENT_LIMITS: Event.LIMITS,
    Own.DRAIN: Event.DRAIN,
}
# IntEnum members of both programs are equal where their numbers are.
_BY_PROGRAM: Final = {(type(key), int(key)): event for key, event in _EVENTS.items()}


def event_of(procedure: Admin | Own) -> Event:
    return _BY_PROGRAM.get((type(procedure), int(procedure)), Event.ADMINISTRATOR)


def target_of(view: DaemonView, procedure: Admin | Own, payload: bytes) -> Who:
    """Whom a call is about, to be asked before it is carried out."""
    try:
        if isinstance(procedure, Own):
            if procedure is not Own.CLOSE_CLIENT:
                return NOBODY
            server, number = view.servers()[0].name, proxyd_program.unpack_number(payload)
        elif procedure is Admin.CLIENT_CLOSE:
            asked = adminrpc.OfClient.unpack(payload).client
            server, number = asked.server, asked.number
        else:
            return NOBODY
    except MalformedFrame:
        return NOBODY
    for each in view.servers():
        found = each.find(number) if each.name == server else None
        if found is not None:
            return _known(found)
    return Who({"session": number})


def limits_of(view: DaemonView, procedure: Admin | Own, payload: bytes) -> dict[str, Value | None]:
    """What is in force now of what a call was to change."""
    if procedure is Own.DRAIN:
        return _of_drain(payload)
    if isinstance(procedure, Own) or procedure is not Admin.SERVER_SET_CLIENT_LIMITS:
        return {}
    try:
        name = adminrpc.SetParams.unpack(payload).server
    except MalformedFrame:
        return {}
    for each in view.servers():
        if each.name == name:
            limits = each.limits
            return {
                "max_clients": limits.max_clients,
                "max_anonymous_clients": limits.max_anonymous,
                "reason": f"of the server {name}",
            }
    return {}


def _of_drain(payload: bytes) -> dict[str, Value | None]:
    try:
        flags = proxyd_program.AskDrain.unpack(payload).flags
    except MalformedFrame:
        return {}
    lets_in = flags & proxyd_program.LET_IN
    return {"reason": "everybody is let in" if lets_in else "nobody new is let in"}


def administrator(visitor: Visitor) -> dict[str, Value | None]:
    known = visitor.known_identity or ClientIdentity()
    return {"by_uid": known.uid, "by_user": known.user_name, "by_pid": known.pid}


def _known(client: Client) -> Who:
    return who(
        client.known_identity or ClientIdentity(),
        number=client.number,
        address=client.address,
        readonly=client.readonly,
    )
