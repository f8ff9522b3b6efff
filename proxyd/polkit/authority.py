"""Asks polkit whether a client may come in (docs/protocol/authentication.md, section 3).

One question is one call of CheckAuthorization on the bus connection that all sessions share. It
may take as long as a human needs for a password, so questions wait side by side. What must stay
true:

* Only an answer that says "authorized" and nothing else lets anybody in. Errors, silence, answers
  that contradict themselves or have another form: all refuse.
* The answer is about the process that connected. polkit is told its number, start time and uid,
  and, from polkit 124 on (older ones pass it over), its pidfd, unless somebody has misused that the
  bus carries descriptors (bus.py); and that the number is still that process's is looked at before
  the question and after a "yes".
* A question that nobody waits for any more is taken back, so that no prompt stays on a screen.
* A question is asked a second time when its answer was lost (the bus or polkitd was restarted),
  never a third. Everything ends with `timeout_s`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import trio
from jeepney.low_level import Message, MessageFlag
from jeepney.wrappers import DBusAddress, new_method_call

from proxyd.admission.turns import Turns
from proxyd.config.quoting import excerpt
from proxyd.peer.credentials import Denied, Subject, ensure_it_is_there
from proxyd.polkit.bus import BusConnection, BusGone, CallFailed, SystemBus, Unreachable
from proxyd.wire import failure
from proxyd.wire.failure import Failure

TIMEOUT_S: Final = 30.0  # libvirt's own: the time that a human has for a password

_AUTHORITY: Final = DBusAddress(
    "/org/freedesktop/PolicyKit1/Authority",
    bus_name="org.freedesktop.PolicyKit1",
    interface="org.freedesktop.PolicyKit1.Authority",
)
_PEER: Final = DBusAddress(
    "/org/freedesktop/PolicyKit1/Authority",
    bus_name="org.freedesktop.PolicyKit1",
    interface="org.freedesktop.DBus.Peer",
)
_THE_BUS: Final = DBusAddress(
    "/org/freedesktop/DBus",
    bus_name="org.freedesktop.DBus",
    interface="org.freedesktop.DBus",
)
_LOOK_S: Final = 2.0  # for somebody who looks at the status
_QUESTION: Final = "(sa{sv})sa{ss}us"
_VERDICT: Final = "(bba{ss})"
_ALLOW_USER_INTERACTION: Final = 1
_TAKE_BACK_S: Final = 1.0  # a bus that takes no message for so long has other troubles
# dbus-daemon lets a connection await 128 answers and answers the next call with an error. One user
# has some of them, and always leaves more than he has.
_AT_ONCE: Final = 100
_OF_ONE_USER: Final = 20
_LARGEST_UID: Final = 2**31 - 1  # polkit's are signed; it would go and guess what it cannot hold
_LONGEST_TEXT: Final = 200

_BUS_ERROR: Final = "org.freedesktop.DBus.Error."
_NO_REPLY: Final = f"{_BUS_ERROR}NoReply"
# What a bus says that finds no polkitd and cannot start one, itself or through systemd.
_NOT_THERE: Final = (
    f"{_BUS_ERROR}ServiceUnknown",
    f"{_BUS_ERROR}NameHasNoOwner",
    f"{_BUS_ERROR}Spawn.",
    f"{_BUS_ERROR}TimedOut",
    "org.freedesktop.systemd1.",
)


class PolkitAuthority:
    """polkit, as all sessions see it. `run` is the task behind it.

    `address` is the bus's; None: the system bus.
    """

    def __init__(self, address: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._bus = SystemBus(address)
        self.timeout_s = timeout_s
        self._turns = Turns[int](_OF_ONE_USER, total=_AT_ONCE)
        self._asked = 0

    async def run(self) -> None:
        await self._bus.run()

    async def check(self, subject: Subject, action: str) -> Failure | None:
        """Whether it may: None if it may, else what the client is told.

        Takes at most the time-out, and the blink that it takes to take the question back.
        """
        try:
            _ensure_identity(subject)
            with trio.fail_after(self.timeout_s):
                denial = await self._in_turn(subject, action)
            if denial is None:
                # Else the answer may be about whoever was given the number meanwhile.
                _ensure_identity(subject)
        except Denied as error:
            return failure.polkit_cannot_tell_who(str(error))
        except trio.TooSlowError:
            return failure.bus_call_failed(
                f"polkit did not answer within {self.timeout_s:g} s whether {action} is allowed:"
                " give the password sooner, or see what polkitd is busy with"
            )
        except Unreachable as error:
            return failure.bus_unreachable(
                f"cannot ask polkit, because there is no system bus at {error}: start it (systemctl"
                " start dbus.socket), or let auth_unix_rw and auth_unix_ro ask for no polkit"
            )
        except BusGone as error:
            return failure.bus_call_failed(
                f"the system bus broke twice over this question: {error}"
            )
        except CallFailed as error:
            return failure.bus_call_failed(_said(error, action))
        return denial

    async def trouble(self, *, wake: bool) -> str:
        """Why nobody could be asked now, or "". `wake`: polkitd is to be started if need be."""
        try:
            with trio.fail_after(_LOOK_S):
                connection = await self._bus.connection()
                if wake:
                    await connection.call(new_method_call(_PEER, "Ping"), "")
                    return ""
                name = (_AUTHORITY.bus_name,)
                [owned] = await connection.call(
                    new_method_call(_THE_BUS, "NameHasOwner", "s", name), "b"
                )
                if owned:
                    return ""
                [startable] = await connection.call(
                    new_method_call(_THE_BUS, "ListActivatableNames"), "as"
                )
        except trio.TooSlowError:
            return f"it does not answer within {_LOOK_S:g} s (systemctl status polkit)"
        except Unreachable as error:
            return f"there is no system bus at {error} (systemctl start dbus.socket)"
        except BusGone as error:
            return f"the system bus broke: {error}"
        except CallFailed as error:
            if error.name == f"{_BUS_ERROR}UnknownMethod":
                return ""  # somebody is there, and that was all the question
            return _said(error, "anything")
        if _AUTHORITY.bus_name in startable:
            return ""
        return "polkitd does not run, and the bus cannot start it (install polkitd)"

    async def _in_turn(self, subject: Subject, action: str) -> Failure | None:
        """A question waits for those of its user, and for nobody else's."""
        await self._turns.take(subject.uid)
        try:
            return await self._answer(subject, action)
        finally:
            self._turns.give_back(subject.uid)

    async def _answer(self, subject: Subject, action: str) -> Failure | None:
        try:
            return await self._ask(subject, action)
        except BusGone:
            return await self._ask(subject, action)
        except CallFailed as error:
            if error.name != _NO_REPLY:
                raise
            return await self._ask(subject, action)

    async def _ask(self, subject: Subject, action: str) -> Failure | None:
        connection = await self._bus.connection()
        if not connection.passes_descriptors:
            subject = replace(subject, pidfd=None)
        self._asked += 1
        ticket = str(self._asked)
        try:
            [verdict] = await connection.call(_question(subject, action, ticket), _VERDICT)
        except trio.Cancelled:
            await _take_back(connection, ticket)
            raise
        return _denial(*verdict, action=action)


def _ensure_identity(subject: Subject) -> None:
    ensure_it_is_there(subject.pid, subject.start_ticks, subject.pidfd)
    if subject.uid > _LARGEST_UID:
        raise Denied(f"polkit knows no uid as large as {subject.uid}: connect as another user")


def _question(subject: Subject, action: str, ticket: str) -> Message:
    details: dict[str, tuple[str, Any]] = {
        "pid": ("u", subject.pid),
        "start-time": ("t", subject.start_ticks),
        "uid": ("i", subject.uid),
    }
    if subject.pidfd is not None:
        details["pidfd"] = ("h", subject.pidfd)
    no_details: dict[str, str] = {}
    body = (("unix-process", details), action, no_details, _ALLOW_USER_INTERACTION, ticket)
    return new_method_call(_AUTHORITY, "CheckAuthorization", _QUESTION, body)


async def _take_back(connection: BusConnection, ticket: str) -> None:
    """Removes the prompt that may be on a screen."""
    message = new_method_call(_AUTHORITY, "CancelCheckAuthorization", "s", (ticket,))
    message.header.flags |= MessageFlag.no_reply_expected
    with trio.move_on_after(_TAKE_BACK_S, shield=True):
        try:
            await connection.tell(message)
        except BusGone:
            return  # polkitd forgets the questions of a connection that has ended


def _denial(
    authorized: int, challenge: int, details: Mapping[str, str], *, action: str
) -> Failure | None:
    if not {authorized, challenge} <= {0, 1}:
        raise CallFailed("", "the answer cannot be understood: it is neither yes nor no")
    if details.get("polkit.dismissed") == "true":
        return failure.polkit_dismissed(action)
    if challenge:
        return failure.polkit_wants_an_agent(action)
    return None if authorized else failure.polkit_denied(action)


def _said(error: CallFailed, action: str) -> str:
    """Why there is no verdict, and what mends it."""
    said = f"{error.name}: {excerpt(str(error), _LONGEST_TEXT)}" if error.name else str(error)
    if error.name.startswith(_NOT_THERE):
        return f"polkitd does not run and cannot be started (systemctl status polkit): {said}"
    if error.name == _NO_REPLY:
        return f"polkitd ended twice over this question (journalctl -u polkit): {said}"
    if error.name == f"{_BUS_ERROR}AccessDenied":
        return f"the bus does not let proxyd ask polkit (it must run as root): {said}"
    if "is not registered" in str(error):
        return (
            f"polkit does not know {action}: put libvirt's org.libvirt.unix.policy, or proxyd's"
            f" units/polkit/proxyd.libvirt.unix.policy, into /usr/share/polkit-1/actions: {said}"
        )
    return f"polkit cannot say whether {action} is allowed: {said}"
