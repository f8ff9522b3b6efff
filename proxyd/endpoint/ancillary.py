"""Descriptors that ride on the bytes of a UNIX socket: refused, or seen before they are read.

What a stranger passes is a danger as soon as it is ours to close (docs/protocol/descriptors.md,
section 6): the close of a file runs its file system's flush, which may never return, and the last
close of a socket may linger for as long as its peer likes. So this process holds none, ever:

* SO_PASSRIGHTS (Linux 6.16) switched off makes the kernel refuse them to the sender. A connection
  has it from its listener, from its first moment on, so that nothing is ever in its queue.
* Where descriptors are wanted, or the kernel is older, a look comes before each read: MSG_PEEK
  without room for them says by MSG_CTRUNC that some are in the queue. It takes, installs and closes
  nothing. What the look has seen to be free of them is what the read takes, at most.
* Those that a frame has announced are carried by a process of their own (couriers.py). Those that
  are left in a queue when its socket is closed are never installed, but dropped by whoever closes
  it last: that process again.
"""

import array
import contextlib
import errno
import fcntl
import mmap
import os
import socket
import struct
import termios
from typing import Final

SO_PASSRIGHTS: Final = 83  # asm-generic/socket.h; Python has no name for it

_LONGEST_FDINFO: Final = 1024
_NONE_QUEUED: Final = b"\nscm_fds: 0\n"
# Plain numbers: the arithmetic of enum members takes longer than the system call.
_LOOK: Final = int(socket.MSG_PEEK)
_CUT_SHORT: Final = int(socket.MSG_CTRUNC)
# Longer than any buffer of the kernel's own that holds a part of a stream (36 KiB), so that one
# that carries descriptors begins and ends in there. Nobody reads it: anybody may write to it.
_LOOKED_AT: Final = memoryview(bytearray(65536))
ROOT: Final = "uid 0"
_CREDENTIALS: Final = struct.Struct("@iII")  # pid, uid, gid


def refuse_descriptors(sock: socket.socket) -> bool:
    """From now on whoever sends some fails with EPERM; False where the kernel cannot refuse them.

    On a listener it holds for everybody who connects from now on.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


def take_descriptors(sock: socket.socket) -> None:
    """From now on they may come."""
    with contextlib.suppress(OSError):  # an older kernel, where they always may
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 1)


def read_urgent_bytes_in_line(sock: socket.socket) -> None:
    """Else a read passes over a byte that was sent as urgent (MSG_OOB, Linux 5.15), a look does not
    see it, and the kernel drops its descriptors in the reading thread."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def has_never_taken_any(sock: socket.socket) -> bool:
    """Whether nothing can be in its queue, nor come there, until `take_descriptors`."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0
    except OSError:
        return False


def bytes_in_front(sock: socket.socket, view: memoryview) -> int | None:
    """How many bytes a read of this size may take before it meets descriptors; 0 at the end.

    None: the next byte carries some. Overwrites the view. Raises OSError as a read does.
    """
    got, _, flags, _ = sock.recvmsg_into((view,), 0, _LOOK)
    if not flags & _CUT_SHORT:
        return got
    return min(len(view), _first_with_descriptors(sock)) or None


def _first_with_descriptors(sock: socket.socket) -> int:
    """How many bytes stand in front of the message that carries some.

    A look goes on to the end of that message, in the queue as in what it returns. Where the message
    begins is told by a second look, whose last byte has no room: the kernel gives up on the whole
    message and says how much it had before.
    """
    got, _, _, _ = sock.recvmsg_into((_LOOKED_AT,), 0, _LOOK)
    try:
        return sock.recvmsg_into((_LOOKED_AT[: got - 1], _NO_ROOM), 0, _LOOK)[0]
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return 0


def _no_room() -> memoryview:
    """A byte of memory that a system call cannot write to: there is no file behind its page."""
    file = os.memfd_create("no room", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, 1)
        page = mmap.mmap(file, 1)
        os.ftruncate(file, 0)
    finally:
        os.close(file)
    return memoryview(page)


_NO_ROOM: Final = _no_room()


def bytes_without(sock: socket.socket) -> int:
    """How many bytes are there that certainly carry none; 0 when that cannot be said.

    For a splice, before which a look would copy what is not to be copied. What is counted first
    is free of them if none is in the whole queue afterwards.
    """
    count = array.array("i", [0])
    with contextlib.suppress(OSError):  # then it stays at 0
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0] if count[0] and _none_queued(sock.fileno()) else 0


def _none_queued(fd: int) -> bool:
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _NONE_QUEUED in os.read(info, _LONGEST_FDINFO)
    except OSError:
        return False
    finally:
        os.close(info)


def holds_none(sock: socket.socket) -> bool:
    """Whether no descriptors are in its queue now; they may be there a moment later."""
    return _none_queued(sock.fileno())


def cut_off(sock: socket.socket) -> bool:
    """Ends a connection that is about to be closed; whether descriptors may be left in its queue.

    Nothing is added to the queue of a connection that is shut down, so what is said stays true.
    """
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    return not _none_queued(sock.fileno())


def owner_of(sock: socket.socket) -> str:
    """Whose process is at the other end, as the kernel knows it: `uid 1000`."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return "unknown users"
    return f"uid {_CREDENTIALS.unpack(raw)[1]}"
