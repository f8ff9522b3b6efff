"""What one process of this service leaves with systemd for the next.

    before the end    Parcel.put … put ── keep ── exit
    at the start      take_passed (listen/activation.py) ── taken_out ── Notifier.unstore

systemd compares each descriptor that it is given with all that it keeps, so that the sockets of
3,000 sessions stop it for seconds, and those of 5,000 keep a service from starting
(docs/protocol/systemd.md, section 7). So it is given very few: sockets in whose queues the others
lie, some in each packet, beside a file in memory with what is to be known of them. What was taken
out of a queue is gone from there for whoever looks next: a process that dies after that, or a
message to systemd that is lost, never has anything served twice. And what nobody took out is still
there for the start after one that failed.

Nothing here may be believed, though nobody but this service can have put it there: it may have been
another release.
"""

import array
import errno
import fcntl
import logging
import os
import select
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from proxyd.endpoint.couriers import COURIERS
from proxyd.process.systemd_manager import entries_kept
from proxyd.process.systemd_notify import Notifier

# Names of what is ours begin so, in this release and in others. systemd gives them back in
# LISTEN_FDNAMES.
PREFIX: Final = "proxyd-"
NAME: Final = f"{PREFIX}sessions"
MOST_KEPT: Final = 16  # FileDescriptorStoreMax= of the unit
MOST_DESCRIPTORS: Final = 252  # in a packet: SCM_MAX_FD, and one is the file's
PATIENCE_S: Final = 5.0

_MAGIC: Final = b"proxyd kept 1"
_INT: Final = array.array("i").itemsize
_LONGEST: Final = 512 << 20  # of a file: all calls that the relay may hold, and more
_FULL: Final = {errno.EAGAIN, errno.ENOBUFS}
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

log = logging.getLogger("daemon.virtproxyd")


class Unreadable(Exception):
    """Not what this release puts there."""


@dataclass(slots=True)
class Packet:
    """Some descriptors, which belong to whoever has it, and what is to be known of them."""

    content: bytes
    descriptors: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Gives up what nobody took."""
        while self.descriptors:
            _close(self.descriptors.pop())


class Parcel:
    """What is put into it stays open for its owner as well, who closes his own copies or goes on.

    `close` destroys what it holds, unless it is kept.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def put(self, content: bytes, descriptors: Sequence[int]) -> None:
        """Raises OSError; then nothing of it was put."""
        if len(content) > _LONGEST or len(descriptors) > MOST_DESCRIPTORS:
            raise OSError(errno.EMSGSIZE, f"{len(content)} bytes, {len(descriptors)} descriptors")
        file = _file_of(content)
        try:
            self._send(array.array("i", [file, *descriptors]))
        finally:
            os.close(file)

    @property
    def ends(self) -> list[int]:
        """The descriptors that are to be kept."""
        return [theirs.fileno() for _, theirs in self._pairs]

    def hold_no_longer(self) -> bool:
        """Whether somebody else has all the ends, now that this process closes its own. Then this
        parcel has nothing any more."""
        for _, theirs in self._pairs:
            theirs.close()
        poll = select.poll()
        for ours, _ in self._pairs:
            poll.register(ours, 0)  # POLLHUP comes without being asked for
        if poll.poll(0):
            return False
        for ours, _ in self._pairs:
            ours.close()
        self._pairs = []
        return True

    def close(self) -> None:
        """Destroys what is in there, even where somebody else has the ends already."""
        for ours, theirs in self._pairs:
            with suppress(OSError):  # it is closed already, or empty now
                # There is no room for descriptors, so the kernel drops them; none is the last of
                # its file, since whoever has put it in has it as well.
                while theirs.recv(1):
                    pass
            theirs.close()
            ours.close()
        self._pairs = []

    def _send(self, rights: "array.array[int]") -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        if self._pairs:
            try:
                self._pairs[-1][0].sendmsg([_MAGIC], ancillary, socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
            else:
                return
        if len(self._pairs) == MOST_KEPT:
            raise OSError(errno.ENOBUFS, "the queues are full")
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._pairs.append(pair)
        pair[0].sendmsg([_MAGIC], ancillary, socket.MSG_NOSIGNAL)


async def keep(parcel: Parcel, notifier: Notifier, patience_s: float = PATIENCE_S) -> bool:
    """Whether systemd has all of it, for the next start of the service.

    Then this process may touch nothing any more whose descriptors are in there, and ends. Else
    nothing is left of the parcel anywhere, and this process may go on.
    """
    with trio.move_on_after(patience_s):
        if await _store(parcel.ends, notifier) and parcel.hold_no_longer():
            return True
    parcel.close()
    notifier.unstore(NAME)
    return False


async def _store(ends: Sequence[int], notifier: Notifier) -> bool:
    """Whether it keeps them. What it does not want it closes in its own time, so it is asked."""
    before = await _kept(notifier)
    for end in ends:
        await notifier.store(NAME, [end])
    if before is None or not await notifier.heard():
        return False
    return await _kept(notifier) == before + len(ends)


async def _kept(notifier: Notifier) -> int | None:
    return await trio.to_thread.run_sync(entries_kept, notifier.address, os.getpid())


def taken_out(kept: Sequence[int]) -> Iterator[Packet]:
    """All that the process before has left, each once; `kept` is closed on the way.

    What cannot be understood is closed and told, and the rest goes on.
    """
    left = list(kept)
    try:
        while left:
            descriptor = left.pop(0)
            try:
                yield from _packets_of(descriptor)
            except Unreadable as error:
                _tell(error)
    finally:
        for each in left:
            _close(each)


def _packets_of(descriptor: int) -> Iterator[Packet]:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        _close(descriptor)
        raise Unreadable("it is no socket")
    with socket.socket(fileno=descriptor) as sock:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            raise Unreadable("it is a socket of another kind")
        sock.setblocking(False)
        told = False
        for packet, problem in _packets(sock):
            if problem is None:
                yield packet
                continue
            packet.close()
            if not told:
                _tell(problem)
            told = True


def _packets(sock: socket.socket) -> Iterator[tuple[Packet, Unreadable | None]]:
    """What is in the queue, and what is wrong with it."""
    room = socket.CMSG_SPACE((MOST_DESCRIPTORS + 1) * _INT)
    while True:
        try:
            word, ancillary, flags, _ = sock.recvmsg(len(_MAGIC) + 1, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:  # whoever fills it has not ended
            return
        packet = Packet(b"", _descriptors(ancillary))
        if not word and not packet.descriptors:
            return
        try:
            _fill(packet, word, lost=bool(flags & socket.MSG_CTRUNC))
        except Unreadable as error:
            yield packet, error
        else:
            yield packet, None


def _tell(error: Unreadable) -> None:
    log.warning(
        "what the process before has left with systemd cannot be used, and is closed: %s", error
    )


def _close(descriptor: int) -> None:
    """Also what holds descriptors of strangers, whose close could wait."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        COURIERS.close(socket.socket(fileno=descriptor))
    else:
        os.close(descriptor)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) // _INT * _INT])
    return list(descriptors)


def _fill(packet: Packet, word: bytes, *, lost: bool) -> None:
    """Replaces the file by what is in it. Raises Unreadable."""
    if word != _MAGIC or not packet.descriptors:
        raise Unreadable(f"{word!r} is not of this release")
    if lost:
        raise Unreadable("descriptors were lost: is LimitNOFILE large enough?")
    file = packet.descriptors.pop(0)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST:
            raise Unreadable("it is not described by a file")
        packet.content = _whole(file, status.st_size)
    except OSError as error:
        raise Unreadable(f"its description cannot be read: {error.strerror}") from error
    finally:
        os.close(file)


def _whole(file: int, size: int) -> bytes:
    parts, at = [], 0
    while at < size and (part := os.pread(file, size - at, at)):
        parts.append(part)
        at += len(part)
    if at < size:
        raise Unreadable("its description is shorter than it says")
    return b"".join(parts)


def _file_of(content: bytes) -> int:
    """A file in memory that nobody can change any more. Raises OSError."""
    file = os.memfd_create("proxyd-sessions", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with memoryview(content) as view:
            at = 0
            while at < len(view):
                at += os.write(file, view[at:])
        # Where the kernel cannot seal, it is private all the same.
        with suppress(OSError):
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file
