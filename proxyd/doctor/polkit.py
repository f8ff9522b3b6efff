"""Whether polkit answers and knows libvirt's actions, where it is asked at all."""

import os
from collections.abc import Iterator
from typing import Any, Final

from proxyd.config.quoting import one_line
from proxyd.config.settings import Settings
from proxyd.doctor.findings import Finding, error, fine, sentence
from proxyd.doctor.state import HostState, PolkitState

POLKIT_ACTIONS: Final = ("org.libvirt.unix.manage", "org.libvirt.unix.monitor")
_BUS: Final = "/run/dbus/system_bus_socket"
_AUTHORITY: Final = "/org/freedesktop/PolicyKit1/Authority"
_INTERFACE: Final = "org.freedesktop.PolicyKit1.Authority"
_DESTINATION: Final = "org.freedesktop.PolicyKit1"
_ERROR: Final = 3  # a message's type


def look_at_polkit(settings: Settings, *, deadline_s: float) -> PolkitState | None:
    """Whether polkit answers and knows libvirt's actions; None if it is not asked."""
    keys = [key for key in ("auth_unix_rw", "auth_unix_ro") if getattr(settings, key) == "polkit"]
    if not keys:
        return None
    asked_by = f'{keys[0]} = "polkit"'
    try:
        known = _actions(deadline_s)
    except _NoPolkit as error:
        return PolkitState(asked_by=asked_by, trouble=str(error))
    missing = tuple(action for action in POLKIT_ACTIONS if action not in known)
    return PolkitState(asked_by=asked_by, missing=missing)


class _NoPolkit(Exception):
    """Why it does not answer."""


def _actions(deadline_s: float) -> set[str]:
    """The actions that polkit knows. Raises _NoPolkit."""
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415 (seldom needed)
    from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415

    where = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _BUS
    address = DBusAddress(_AUTHORITY, bus_name=_DESTINATION, interface=_INTERFACE)
    question = new_method_call(address, "EnumerateActions", "s", ("",))
    try:
        with open_dbus_connection("SYSTEM", auth_timeout=deadline_s) as bus:
            answer: Any = bus.send_and_get_reply(question, timeout=deadline_s)
    except TimeoutError as error:
        raise _NoPolkit(f"polkit did not answer within {deadline_s:g} seconds") from error
    except Exception as error:  # jeepney raises whatever it stumbles over
        raise _NoPolkit(f"the system bus at {where} cannot be used: {_reason(error)}") from error
    if answer.header.message_type.value == _ERROR:
        raise _NoPolkit(f"polkit does not answer: {_reason(answer.body)}")
    return {action[0] for action in answer.body[0]}


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, tuple):
        error = error[0] if error else "no reason given"
    return one_line(str(error))


def judge(state: HostState) -> Iterator[Finding]:
    polkit = state.polkit
    if polkit is None:
        return
    if polkit.trouble:
        yield _without_polkit(polkit)
    elif polkit.missing:
        names = ", ".join(polkit.missing)
        yield error(
            "polkit-actions",
            f"polkit does not know {names}.",
            f"{polkit.asked_by} asks it about everybody but root, and it refuses what it does not"
            " know.",
            ["proxyd install"],
        )
    else:
        yield fine("polkit", "polkit answers and knows libvirt's actions.")


def _without_polkit(polkit: PolkitState) -> Finding:
    return error(
        "polkit",
        sentence(polkit.trouble),
        f"{polkit.asked_by} asks polkit about everybody but root; without an answer all of them"
        " are refused.",
        [
            "# where it is not installed: package polkitd on Debian and Ubuntu, elsewhere polkit",
            "systemctl start dbus.socket polkit.service",
            '# or, without polkit: auth_unix_rw = "none" and a group in unix_sock_group',
        ],
    )
