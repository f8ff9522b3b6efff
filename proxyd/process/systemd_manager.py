"""What systemd says of this service: whether it is about to be started again, and what is kept.
And how it is made to start it again.

A SIGTERM does not say that it is a restart, but the job does that systemd has for the unit until
the process is gone (docs/protocol/systemd.md, section 6). It is asked over systemd's own socket,
beside the one that takes our messages: root is answered there whether or not the host has a bus,
and by a user's systemd that user. A systemctl would not do: what is started while a service stops
belongs to it and is killed with it.
"""

import logging
import os
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Final, Self

from jeepney.low_level import Message
from jeepney.wrappers import DBusAddress, new_method_call

from proxyd.polkit.bus_messages import Answer, Answers, MalformedMessage

PATIENCE_S: Final = 2.0  # PID 1 answers in a millisecond, on a busy host in some

_SOCKET: Final = "private"
_MANAGER: Final = DBusAddress(
    "/org/freedesktop/systemd1",
    bus_name="org.freedesktop.systemd1",
    interface="org.freedesktop.systemd1.Manager",
)
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_SERVICE: Final = "org.freedesktop.systemd1.Service"
_UNITS: Final = "/org/freedesktop/systemd1/unit/"
_ROW: Final = "a(ssssssouso)"  # of ListUnitsByNames
_UNIT_PATH, _JOB_TYPE = 6, 8
_RESTART: Final = "restart"  # what try-restart and reload-or-restart become as well
_CLOSES_APART: Final = 257  # the oldest of which it was seen
_RECEIVE: Final = 65536
_LONGEST_WELCOME: Final = 256

log = logging.getLogger("daemon.virtproxyd")


class _NoAnswer(Exception):
    """Nobody can tell; the text says why."""


_NOTHING: Final = (_NoAnswer, OSError, MalformedMessage, ValueError)


@dataclass(frozen=True, slots=True)
class Restart:
    """The unit is started again when it has ended.

    `closes_apart`: what systemd has kept and nobody took is closed by another process than PID 1.
    """

    closes_apart: bool


def restart_under_way(notify_address: str | bytes, pid: int) -> Restart | None:
    """Whether the unit of the process `pid` is started again; None also when nobody can tell.

    Blocks for PATIENCE_S at the most.
    """
    try:
        with _Manager(notify_address) as manager:
            if manager.job_of(manager.unit_of(pid)) != _RESTART:
                return None
            return Restart(closes_apart=manager.version() >= _CLOSES_APART)
    except _NOTHING as error:
        log.info("systemd does not say whether this is a restart, so it is an end: %s", error)
        return None


def entries_kept(notify_address: str | bytes, pid: int) -> int | None:
    """How many descriptors systemd keeps for the unit of this process; likewise."""
    try:
        with _Manager(notify_address) as manager:
            return manager.kept_for(manager.unit_of(pid))
    except _NOTHING as error:
        log.info("systemd does not say what it keeps: %s", error)
        return None


def start_again(notify_address: str | bytes, pid: int) -> bool:
    """Has the service of this process ended and started again; whether systemd does so.

    Not where it has something else to do with it already.
    """
    try:
        with _Manager(notify_address) as manager:
            unit = manager.unit_of(pid)
            if manager.job_of(unit):
                return False
            manager.restart(unit)
    except _NOTHING as error:
        log.warning("systemd does not start the service again: %s", error)
        return False
    return True


class _Manager:
    """A connection to a systemd; each call waits for its answer. Raises OSError and _NoAnswer."""

    def __init__(self, notify_address: str | bytes) -> None:
        self._beside = os.fsdecode(notify_address)
        self._end = time.monotonic() + PATIENCE_S
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._answers = Answers()
        self._serial = 0

    def __enter__(self) -> Self:
        try:
            self._hurry()
            self._socket.connect(self._address())
            # BEGIN comes along: what systemd reads together with one that comes alone, it leaves
            # unlooked at until more comes.
            self._send(f"\0AUTH EXTERNAL {str(os.geteuid()).encode().hex()}\r\nBEGIN\r\n".encode())
            self._demand_welcome()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _address(self) -> str:
        if not self._beside.startswith("/"):
            raise _NoAnswer("it has not started this process")
        return os.path.join(os.path.dirname(self._beside), _SOCKET)

    def _demand_welcome(self) -> None:
        said = b""
        while not said.endswith(b"\n"):
            if len(said) > _LONGEST_WELCOME:
                raise _NoAnswer("it is no systemd")
            said += self._received()
        if not said.startswith(b"OK "):
            raise _NoAnswer(f"it refuses us: {said!a}")

    def unit_of(self, pid: int) -> str:
        """The path of the unit of this process."""
        path = str(self._call(new_method_call(_MANAGER, "GetUnitByPID", "u", (pid,)), "o")[0])
        if not path.startswith(_UNITS):
            raise _NoAnswer(f"{path!r} is no unit")
        return path

    def job_of(self, unit: str) -> str:
        """The kind of the job that this unit has; empty for none."""
        name = _name(unit)
        asked = new_method_call(_MANAGER, "ListUnitsByNames", "as", ([name],))
        rows: Any = self._call(asked, _ROW)[0]
        job = next((str(row[_JOB_TYPE]) for row in rows if row[_UNIT_PATH] == unit), None)
        if job is None:
            raise _NoAnswer(f"it knows no unit {name!r}")
        return job

    def restart(self, unit: str) -> None:
        """Returns when it is about to."""
        asked = new_method_call(_MANAGER, "RestartUnit", "ss", (_name(unit), "replace"))
        self._call(asked, "o")

    def kept_for(self, unit: str) -> int:
        """How many descriptors are in the store of this unit."""
        match self._property(unit, _SERVICE, "NFileDescriptorStore"):
            case ("u", int(count)):
                return count
        raise _NoAnswer("it keeps nothing for units of this kind")

    def version(self) -> int:
        """The number of the release; 0 for one that tells none."""
        match self._property(_MANAGER.object_path, _MANAGER.interface, "Version"):
            case ("s", str(said)):
                number = re.match(r"v?(\d{1,9})", said, re.ASCII)
                return int(number[1]) if number else 0
        return 0

    def _property(self, path: str, interface: str, name: str) -> object:
        of = DBusAddress(path, bus_name=_MANAGER.bus_name, interface=_PROPERTIES)
        return self._call(new_method_call(of, "Get", "ss", (interface, name)), "v")[0]

    def _call(self, message: Message, returns: str) -> tuple[object, ...]:
        self._serial += 1
        self._send(message.serialise(self._serial))
        while True:
            for answer in self._answers.receive_data(self._received()):
                if answer.serial == self._serial:
                    return self._values(answer, returns)

    def _values(self, answer: Answer, returns: str) -> tuple[object, ...]:
        if answer.error is not None:
            raise _NoAnswer(f"{answer.error}: {answer.text()}")
        return answer.values(returns)

    def _send(self, packed: bytes) -> None:
        self._hurry()
        self._socket.sendall(packed)

    def _received(self) -> bytes:
        self._hurry()
        received = self._socket.recv(_RECEIVE)
        if not received:
            raise _NoAnswer("it hung up")
        return received

    def _hurry(self) -> None:
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("it takes too long")
        self._socket.settimeout(left_s)


def _name(unit: str) -> str:
    """What D-Bus cannot have in a path is there as _ and two hexadecimal digits."""
    return re.sub("_([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), unit.removeprefix(_UNITS))
