"""Asks the daemons behind whether they answer: a connection, AUTH_LIST, and its reply.

AUTH_LIST is what proxyd itself asks first, so an answer means that a client would get as far as
its OPEN. A daemon that systemd starts on demand is started by it.
"""

import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxyd.config.quoting import one_line
from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Status
from proxyd.wire.programs import VERSION, AuthMethod, Program, Remote
from proxyd.wire.xdr import MalformedFrame

_SERIAL: Final = 0
_LARGEST_REPLY: Final = 65536  # an error text, at most
_MOST_AT_ONCE: Final = 32


class Answer(StrEnum):
    ANSWERS = "answers"
    ABSENT = "absent"  # there is no such socket
    REFUSED = "refused"  # nobody listens behind it
    DENIED = "denied"  # not for this user
    SILENT = "silent"  # no reply in time
    BROKEN = "broken"  # something that is no reply, or an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of one question. `methods` are names; `detail` is for BROKEN."""

    answer: Answer
    methods: tuple[str, ...] = ()
    detail: str = ""
    took_ms: int = 0


def ask_all(paths: Iterable[str], *, deadline_s: float) -> dict[str, Reply]:
    """Each socket's reply; all are asked side by side. Takes the deadline at most."""
    paths = list(dict.fromkeys(paths))
    if not paths:
        return {}
    # One that waits in a queue would not have the whole deadline: each has its thread.
    with ThreadPoolExecutor(max_workers=min(len(paths), _MOST_AT_ONCE)) as threads:
        replies = threads.map(lambda path: ask(path, deadline_s=deadline_s), paths)
        return dict(zip(paths, replies, strict=True))


def ask(path: str, *, deadline_s: float) -> Reply:
    """One socket's reply. Blocks until then, for the deadline at most."""
    begin = time.monotonic()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            frame = _exchange(sock, path, begin + deadline_s)
        methods = _methods_in(frame)
    except FileNotFoundError:
        return Reply(answer=Answer.ABSENT)
    except ConnectionRefusedError:
        return Reply(answer=Answer.REFUSED)
    except PermissionError:
        return Reply(answer=Answer.DENIED)
    except (TimeoutError, BlockingIOError):  # the latter: a full queue of clients
        return Reply(answer=Answer.SILENT)
    except (OSError, MalformedFrame) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Reply(answer=Answer.BROKEN, detail=one_line(words))
    took_ms = round((time.monotonic() - begin) * 1000)
    return Reply(answer=Answer.ANSWERS, methods=methods, took_ms=took_ms)


def _exchange(sock: socket.socket, path: str, end: float) -> Frame:
    _give_until(sock, end)
    sock.connect(path)
    sock.sendall(remote.call(Remote.AUTH_LIST, _SERIAL).pack())
    buffer = FrameBuffer(_LARGEST_REPLY)
    while (frame := buffer.next_frame()) is None:
        _give_until(sock, end)
        received = sock.recv(buffer.wanted)
        if not received:
            raise MalformedFrame("it hung up without a reply")
        buffer.feed(received)
    return frame


def _give_until(sock: socket.socket, end: float) -> None:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _methods_in(frame: Frame) -> tuple[str, ...]:
    header = frame.header
    asked = (Program.REMOTE, VERSION, Remote.AUTH_LIST, FrameType.REPLY, _SERIAL)
    if asked != (header.program, header.version, header.procedure, header.type, header.serial):
        raise MalformedFrame("it replied to something that was not asked")
    if header.status != Status.OK:
        raise MalformedFrame(f"it replied: {Failure.unpack(frame.payload).message}")
    names = {each.value: each.name.lower() for each in AuthMethod}
    return tuple(
        names.get(number, str(number)) for number in remote.unpack_auth_methods(frame.payload)
    )
