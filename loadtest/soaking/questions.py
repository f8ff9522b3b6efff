"""Calls whose replies can be checked: by what is in them, not by their serial alone.

There are two kinds. Most ask for an object by a name that does not exist and that no other call
asks for; the error that comes back quotes it. Others ask for what is always the same.
Which of them a server knows is found out by asking (`probe`).
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final

from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, Status
from proxyd.wire.names import NAMES
from proxyd.wire.programs import Program
from proxyd.wire.xdr import MalformedFrame, Writer

from .ledger import Fault

_LOOKUPS: Final = (
    "DOMAIN_LOOKUP_BY_NAME",
    "INTERFACE_LOOKUP_BY_NAME",
    "NETWORK_LOOKUP_BY_NAME",
    "NODE_DEVICE_LOOKUP_BY_NAME",
    "NWFILTER_LOOKUP_BY_NAME",
    "STORAGE_POOL_LOOKUP_BY_NAME",
    "STORAGE_VOL_LOOKUP_BY_KEY",
    "STORAGE_VOL_LOOKUP_BY_PATH",
)
_CONSTANTS: Final = (
    "CONNECT_GET_CAPABILITIES",
    "CONNECT_GET_HOSTNAME",
    "CONNECT_GET_LIB_VERSION",
    "CONNECT_GET_TYPE",
    "CONNECT_GET_URI",
    "NODE_GET_INFO",
)
# qemu's capabilities are put together anew for each call, which would be most of a server's work.
_QUICK_NS: Final = 2_000_000

# What the processor's clock says at the moment, in replies that are always the same otherwise.
_NODE_INFO_MHZ: Final = slice(
    140, 144
)  # behind 32 characters in 4 bytes each, u64 memory, i32 cpus
_NUMBER: Final = re.compile(rb"[0-9]+")

_LARGE: Final = 1024  # bytes: of so many, 256 at once fill the sockets

_NAME: Final = re.compile(r"soak\.([0-9a-f]{8})\.([0-9]+)\.([0-9]+)\.")
_TOLD: Final = 200  # characters of what a server says
_FILLER: Final = "abcdefghijklmnopqrstuvwxyz0123456789" * 2048
SHORTEST: Final = 48  # room for a name's beginning
LONGEST: Final = 60000  # the reply quotes it twice


@dataclass(frozen=True, slots=True)
class Session:
    """Whose calls they are: no two sessions of a run share a number."""

    run: int  # 32 bits, to know our own names by
    number: int

    def name(self, serial: int, length: int) -> str:
        """What that call asks for."""
        head = f"soak.{self.run:08x}.{self.number}.{serial}."
        at = serial % 36
        return head + _FILLER[at : at + max(0, length - len(head) - 1)] + "~"


@dataclass(frozen=True, slots=True)
class Question:
    """A call under way."""

    procedure: int
    length: int  # of the name; 0: the reply is the one that is always the same
    asked_ns: int = 0  # 0: nobody wants to know how long it took


@dataclass(frozen=True, slots=True)
class Wrong:
    """What a reply is instead of the right one."""

    fault: Fault
    told: str


@dataclass(frozen=True, slots=True)
class Repertoire:
    """The calls that a server answers in a way that can be checked."""

    lookups: tuple[int, ...]
    constants: dict[int, bytes]  # procedure → the reply

    @property
    def large(self) -> int | None:
        """A constant with a reply large enough for clients that read slowly, if there is one."""
        sizes = {len(reply): procedure for procedure, reply in self.constants.items()}
        largest = max(sizes, default=0)
        return sizes[largest] if largest >= _LARGE else None

    def draw(self, rng: random.Random) -> Question:
        if self.constants and rng.random() < 0.25:
            return Question(rng.choice(list(self.constants)), 0)
        longest = LONGEST if rng.random() < 0.01 else 900
        return Question(rng.choice(self.lookups), rng.randint(SHORTEST, longest))

    def arguments(self, question: Question, session: Session, serial: int) -> bytes:
        if not question.length:
            return b""
        return Writer().string(session.name(serial, question.length)).take()

    def judge(
        self, question: Question, session: Session, serial: int, frame: Frame
    ) -> Wrong | None:
        """None if this is what the call has to hear."""
        header = frame.header
        if header.status == Status.OK:
            constant = self.constants.get(question.procedure)
            right = not question.length and steady(frame) == constant
            told = f"another reply, of {len(frame.payload)} bytes"
            return _of_procedure(question, frame) or (None if right else _corrupted(told))
        try:
            told = Failure.unpack(frame.payload).message
        except MalformedFrame as error:
            return _corrupted(f"an error that cannot be read: {error}")
        if question.length and session.name(serial, question.length) in told:
            return _of_procedure(question, frame)
        return _whose(told, session, serial)


def _corrupted(told: str) -> Wrong:
    return Wrong(Fault.CORRUPTED, told)


def _of_procedure(question: Question, frame: Frame) -> Wrong | None:
    procedure = frame.header.procedure
    if procedure == question.procedure:
        return None
    return _corrupted(f"the reply says that it is one of procedure {procedure}")


def _whose(told: str, session: Session, asked: int) -> Wrong:
    found = _NAME.search(told)
    if not found or int(found[1], 16) != session.run:
        return Wrong(Fault.REFUSED, told[:_TOLD])
    number, serial = int(found[2]), int(found[3])
    if number != session.number:
        return Wrong(Fault.MISDELIVERED, f"the reply is that to call {serial} of session {number}")
    if serial != asked:
        return Wrong(Fault.REORDERED, f"the reply is that to call {serial} of the same session")
    return _corrupted("the name in the reply is not whole")


def steady(reply: Frame) -> bytes:
    """What of a reply is always the same: all of it but what the machine does at the moment."""
    payload = reply.payload
    match NAMES[Program.REMOTE][reply.header.procedure]:
        case "NODE_GET_INFO" if len(payload) >= _NODE_INFO_MHZ.stop:
            return payload[: _NODE_INFO_MHZ.start] + payload[_NODE_INFO_MHZ.stop :]
        case "CONNECT_GET_CAPABILITIES":
            # Clocks and memory are numbers in it; with them its length and padding change.
            return _NUMBER.sub(b"", payload[4:].rstrip(b"\0"))
        case _:
            return payload


Ask = Callable[[int, bytes], Frame]


def probe(ask: Ask, session: Session) -> Repertoire:
    """What a server answers in a way that can be checked. `ask` makes one call."""
    remote = NAMES[Program.REMOTE]
    lookups = []
    for number in map(remote.index, _LOOKUPS):
        question = Question(number, 2 * SHORTEST)
        name = session.name(number, question.length)
        reply = ask(number, Writer().string(name).take())
        if Repertoire((), {}).judge(question, session, number, reply) is None:
            lookups.append(number)
    constants = {}
    for number in map(remote.index, _CONSTANTS):
        first = ask(number, b"")
        began = perf_counter_ns()
        second = ask(number, b"")
        quick = perf_counter_ns() - began < _QUICK_NS
        if first.header.status == Status.OK and steady(first) == steady(second) and quick:
            constants[number] = steady(first)
    return Repertoire(tuple(lookups), constants)
