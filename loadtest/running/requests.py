"""The calls of a mix as bytes that are made once, and how their replies begin.

A connection has one call outstanding at most, so all calls of an item carry the same serial, on
every connection.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from proxyd.wire.frame import HEADER, LENGTH_SIZE, Frame, FrameType, Status
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.remote import call
from proxyd.wire.xdr import MalformedFrame, Reader, Writer

from ..mix import Large, Mix, Work
from ..procedures import Storage
from .errors import NothingThere

# Above those of a session's opening.
_FIRST_SERIAL: Final = 1000
_MOST_DOMAINS: Final = 16384  # in one reply, libvirt's own limit
_UUID_SIZE: Final = 16

LIST_ARGUMENTS: Final = Writer().i32(1).u32(0).take()  # with the domains, no flags
EVENTS_ARGUMENTS: Final = Writer().i32(0).u32(0).take()  # lifecycle, of any domain

# A call, sent the reply's payload: for whoever has to find out something first.
Asking = Generator[tuple[int, bytes], bytes, None]


@dataclass(slots=True)
class Request:
    """One item of the mix. A transfer has no `wire`: it is more than one frame."""

    place: int
    work: Work
    serial: int
    wire: bytes = b""
    arguments: bytes = b""
    # The reply's header behind its length, when all is well.
    usual: bytes = b""


class Requests:
    """Those of one worker. Those about a domain or a volume wait until that has been looked up."""

    def __init__(self, mix: Mix, volume: str | None) -> None:
        self._volume = volume
        self._needs_domain, self._needs_volume = mix.needs_domain, mix.needs_volume
        self.all = [
            Request(place, work, _FIRST_SERIAL + place) for place, (work, _) in enumerate(mix.work)
        ]
        for request in self.all:
            _set(request, LIST_ARGUMENTS if _lists(request) else b"")

    def look_up(self) -> Asking:
        """Asks for what is still unknown. Raises NothingThere, or MalformedFrame."""
        if self._needs_domain:
            listed = yield Large.CONNECT_LIST_ALL_DOMAINS, LIST_ARGUMENTS
            domain = _first_domain(listed)
            for request in self.all:
                if request.work.procedure == Large.DOMAIN_GET_XML_DESC:
                    _set(request, domain + Writer().u32(0).take())
            self._needs_domain = False
        if self._needs_volume:
            assert self._volume is not None, "the command line sees to it"
            path = Writer().string(self._volume).take()
            volume = yield Storage.VOL_LOOKUP_BY_PATH, path
            self._check_size((yield Storage.VOL_GET_INFO, volume))
            for request in self.all:
                if request.work.size:
                    request.arguments = volume + _range(request.work.size)
            self._needs_volume = False

    def _check_size(self, info: bytes) -> None:
        reader = Reader(info)
        reader.i32()  # its type: a file, a block device…
        capacity, wanted = reader.u64(), max(one.work.size for one in self.all)
        if capacity < wanted:
            raise NothingThere(
                f"{self._volume} holds {capacity} bytes and not the {wanted} of --mix; "
                "ask for less, or make it larger with virsh vol-resize"
            )


def _lists(request: Request) -> bool:
    return request.work.procedure == Large.CONNECT_LIST_ALL_DOMAINS


def _set(request: Request, arguments: bytes) -> None:
    request.arguments = arguments
    if not request.work.size:
        procedure, serial = request.work.procedure, request.serial
        request.wire = call(procedure, serial, arguments).pack()
        request.usual = HEADER.pack(
            0, Program.REMOTE, VERSION, procedure, FrameType.REPLY, serial, Status.OK
        )[LENGTH_SIZE:]


def _range(size: int) -> bytes:
    return Writer().u64(0).u64(size).u32(0).take()  # offset, length, flags


def _first_domain(listed: bytes) -> bytes:
    """As a call takes it: name, UUID, number."""
    reader = Reader(listed)
    if not reader.count(_MOST_DOMAINS):
        raise NothingThere("there is no domain that DOMAIN_GET_XML_DESC could describe")
    name, uuid, number = reader.string(), reader.fixed_opaque(_UUID_SIZE), reader.i32()
    return Writer().string(name).fixed_opaque(uuid).i32(number).take()


def answers(frame: Frame, serial: int) -> None:
    """Raises MalformedFrame unless it is the reply with this serial."""
    header = frame.header
    if header.type != FrameType.REPLY or header.serial != serial:
        raise MalformedFrame(f"a frame of type {header.type}, serial {header.serial}")
