"""One connection, on which calls are pipelined and every reply is held against its call."""

import random
import socket
import struct
from array import array
from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter_ns
from typing import Final

from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header, Status
from proxyd.wire.names import procedure_name
from proxyd.wire.programs import VERSION, Keepalive, Program, Remote
from proxyd.wire.remote import call, is_keepalive, keepalive
from proxyd.wire.xdr import MalformedFrame, Writer

from ..client import SCRATCH_SIZE, Opening
from ..connecting import Channel, cipher_of, reach, reason_of, secure
from ..entrance import way_in
from ..failures import TargetFailure
from ..procedures import Storage
from ..targets import Target
from .ledger import Entries, Fault, Ledger
from .questions import Question, Repertoire, Session
from .volume import BLOCK, Digester, Reference, judge

# Serials begin anywhere, so that a reply that went astray is known by its own, too.
_LAST_BEGINNING: Final = 1 << 30
_RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: close(2) sends RST


class Ended(Exception):
    """The connection is of no use any more; what it means is in the ledger already."""


class Conversation:
    """A session from its connect to its end.

    Whoever made it calls one of `say_goodbye`, `half_close`, `close` and `vanish`, which are the
    ways in which it ends on our side, or, after Ended or TargetFailure, `give_up`.
    """

    def __init__(self, target: Target, opening: Opening, session: Session, ledger: Ledger) -> None:
        self._target, self._opening, self._session = target, opening, session
        self._ledger = ledger
        self._entries, self._latencies = Entries(), array("q")
        self._frames = FrameBuffer()
        self._scratch = bytearray(SCRATCH_SIZE)
        rng = random.Random(f"{session.run} {session.number}")  # noqa: S311 (nothing secret)
        self._first = self._next = rng.randrange(_LAST_BEGINNING)
        self._pending: dict[int, Question] = {}
        self._repertoire = Repertoire((), {})
        self._is_open = self._leaving = False
        self._sock = reach(target, opening.wait_s)
        self._channel: Channel = self._sock

    @property
    def cipher(self) -> str | None:
        return cipher_of(self._channel)

    def open(self, repertoire: Repertoire) -> None:
        """TLS, authentication, CONNECT_OPEN. Raises TargetFailure."""
        opening, began = self._opening, perf_counter_ns()
        self._repertoire = repertoire
        self._channel = secure(self._target, self._sock, opening.wait_s, opening.credentials)
        calls = way_in(self._target, opening.tickets, self._channel, opening.account)
        try:
            asked = next(calls)
            while True:
                asked = calls.send(self._must(*asked))
        except StopIteration as done:
            self._channel = done.value
        self._must(Remote.CONNECT_OPEN, opening.arguments(self._target))
        self._is_open = True
        self._entries.sessions += 1
        self._ledger.connected(perf_counter_ns() - began)

    # ---- calls

    def ask(self, procedure: int, payload: bytes) -> Frame:
        """A call that is none of the ledger's, and its reply whatever it says."""
        serial = self._next
        self._next += 1
        self._send(call(procedure, serial, payload).pack())
        for frame in self._arriving():
            if frame.header.type == FrameType.REPLY and frame.header.serial == serial:
                return frame
            self._unasked(frame)
        raise AssertionError("it goes on until something happens")

    def put(self, questions: list[Question], *, timed: bool = True) -> None:
        """Sends these calls, all at once, and does not wait.

        `timed`: their latency counts. It does not where we read slowly, for it would be ours.
        """
        wire = bytearray()
        for question in questions:
            serial = self._next
            self._next += 1
            payload = self._repertoire.arguments(question, self._session, serial)
            wire += call(question.procedure, serial, payload).pack()
            self._pending[serial] = Question(question.procedure, question.length, perf_counter_ns())
        self._entries.sent += len(questions)
        self._send(wire)

    def hear(self, *, at_a_time: int = SCRATCH_SIZE) -> bool:
        """Takes what comes next, so much of it at most; True while calls are under way."""
        if self._pending:
            self._receive(at_a_time)
            for frame in self._whole():
                self._held_against(frame)
        if not self._pending:
            self.tell()
        return bool(self._pending)

    def hear_all(self) -> None:
        while self.hear():
            pass

    def tell(self) -> None:
        """Puts what was done so far into the ledger."""
        self._ledger.enter(self._entries, self._latencies)
        self._entries, self._latencies = Entries(), array("q")

    # ---- streams

    def download(self, volume: bytes, first: int, count: int, found: Digester) -> Iterator[None]:
        """So many blocks into `found`, with a yield for each packet, until the end is confirmed."""
        serial = self.begin_download(volume, first, count)
        replied = confirmed = False  # even the stream's last packet may overtake the reply
        for frame in self._arriving():
            header = frame.header
            if header.serial != serial:
                self._unasked(frame)
            elif header.status == Status.ERROR:
                self._ledger.fault(Fault.REFUSED, f"{self._who}: a download: {_message(frame)}")
                raise Ended
            elif header.type == FrameType.REPLY or header.status == Status.OK:
                replied |= header.type == FrameType.REPLY
                confirmed |= header.type == FrameType.STREAM
                if replied and confirmed:
                    return
            elif header.type == FrameType.STREAM and frame.payload:
                found.update(frame.payload)
                yield
            elif header.type == FrameType.STREAM:
                self._send(_finish(serial))
                yield

    def begin_download(self, volume: bytes, first: int, count: int) -> int:
        """Asks for so many blocks, and does not wait; the serial of the stream."""
        serial = self._next
        self._next += 1
        arguments = Writer().u64(first * BLOCK).u64(count * BLOCK).u32(0).take()
        self._send(call(Storage.VOL_DOWNLOAD, serial, volume + arguments).pack())
        return serial

    def check_download(self, reference: Reference, first: int, count: int, found: Digester) -> None:
        wrong = judge(reference, first, count, found)
        if wrong is None:
            self._entries.stream_bytes += found.moved
            self._entries.streams += 1
        else:
            self._ledger.fault(wrong.fault, f"{self._who}: a download: {wrong.told}")
        self.tell()

    # ---- ends

    def say_goodbye(self) -> None:
        """CONNECT_CLOSE, and nothing may come behind its reply."""
        self.ask(Remote.CONNECT_CLOSE, b"")
        self.half_close()

    def half_close(self) -> None:
        """Sends no more, and hears what still comes until the other side ends it, too."""
        self._leaving = True
        with suppress(OSError):  # it may have ended already, which is what we want
            self._sock.shutdown(socket.SHUT_WR)
        try:
            while True:
                self._receive(SCRATCH_SIZE)
                for frame in self._whole():
                    self._held_against(frame)
        except Ended:
            self.close()

    def close(self) -> None:
        """Without a word."""
        self._leaving = True
        self.give_up()

    def vanish(self, torn: bytes = b"") -> None:
        """As a client that is killed, in the middle of a frame if there is something `torn`."""
        self._leaving = True
        with suppress(OSError):
            if torn:
                self._channel.sendall(torn)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.give_up()

    def stillborn(self, beginning: bytes) -> None:
        """Says this instead of anything sensible, and vanishes."""
        self._entries.stillborn += 1
        self.vanish(beginning)

    def give_up(self) -> None:
        """Closes the socket. What is still under way was our own doing, or is lost."""
        if self._pending:
            if self._leaving:
                self._entries.given_up += len(self._pending)
            else:
                self._lose()
            self._pending.clear()
        self.tell()
        self._sock.close()

    # ---- below

    @property
    def _who(self) -> str:
        return f"session {self._session.number}"

    def _lose(self) -> None:
        self._entries.lost += len(self._pending)
        names = {procedure_name(Program.REMOTE, one.procedure) for one in self._pending.values()}
        serials = sorted(self._pending)
        told = f"{self._who}: no reply to call {serials[0]} ({', '.join(sorted(names)[:3])})"
        more = f" and {len(serials) - 1} others" if len(serials) > 1 else ""
        self._ledger.fault(Fault.LOST, told + more, len(serials))

    def _must(self, procedure: int, payload: bytes) -> bytes:
        """The reply's payload; an error or an end is a TargetFailure."""
        name = procedure_name(Program.REMOTE, procedure)
        try:
            frame = self.ask(procedure, payload)
        except Ended as ended:
            raise TargetFailure(self._target.name, f"{name}: {ended}") from ended
        if frame.header.status != Status.OK:
            raise TargetFailure(self._target.name, f"{name}: {_message(frame)}")
        return frame.payload

    def _held_against(self, frame: Frame) -> None:
        serial = frame.header.serial
        question = self._pending.get(serial)
        if question is None or frame.header.type != FrameType.REPLY:
            self._unasked(frame)
            return
        del self._pending[serial]
        wrong = self._repertoire.judge(question, self._session, serial, frame)
        if wrong is None:
            self._entries.answered += 1
            if question.asked_ns:
                self._latencies.append(perf_counter_ns() - question.asked_ns)
        else:
            self._entries.wrong += 1
            name = procedure_name(Program.REMOTE, question.procedure)
            self._ledger.fault(wrong.fault, f"{self._who}, call {serial} ({name}): {wrong.told}")

    def _unasked(self, frame: Frame) -> None:
        header = frame.header
        if header.type != FrameType.REPLY:
            told = f"a frame of type {header.type}, serial {header.serial}, out of the blue"
            # Of a stream that we have ended, or that never was.
            self._ledger.fault(Fault.CORRUPTED, f"{self._who}: {told}")
        elif self._first <= header.serial < self._next:
            told = f"a second reply to call {header.serial}"
            self._ledger.fault(Fault.DUPLICATED, f"{self._who}: {told}")
        else:
            told = f"a reply to call {header.serial}, which it did not make"
            self._ledger.fault(Fault.MISDELIVERED, f"{self._who}: {told}")

    def _arriving(self) -> Iterator[Frame]:
        while True:
            yield from self._whole()
            self._receive(SCRATCH_SIZE)

    def _whole(self) -> Iterator[Frame]:
        """The frames that are here, but for events and PINGs, which are answered."""
        try:
            while (frame := self._frames.next_frame()) is not None:
                if is_keepalive(frame.header):
                    if frame.header.procedure == Keepalive.PING and not self._leaving:
                        self._send(keepalive(Keepalive.PONG).pack())
                elif frame.header.type != FrameType.MESSAGE:
                    yield frame
        except MalformedFrame as error:
            self._ledger.fault(Fault.CORRUPTED, f"{self._who}: what came is no frame: {error}")
            raise Ended(str(error)) from error

    def _receive(self, at_most: int) -> None:
        """Raises Ended at the end, having told the ledger unless we are leaving."""
        try:
            buffer = memoryview(self._scratch)[:at_most]
            got = self._channel.recv_into(buffer)
        except OSError as error:
            raise self._ended(error) from error
        if not got:
            raise self._ended(None)
        self._entries.bytes_down += got
        self._frames.feed(memoryview(self._scratch)[:got])

    def _send(self, wire: bytes | bytearray) -> None:
        try:
            self._channel.sendall(wire)
        except OSError as error:
            raise self._ended(error) from error
        self._entries.bytes_up += len(wire)

    def _ended(self, error: OSError | None) -> Ended:
        reason = "the server closed the connection"
        if error is not None:
            reason = reason_of(error, self._opening.wait_s)
        silent, who = isinstance(error, BlockingIOError), self._who
        if self._leaving:
            if silent:
                self._ledger.fault(Fault.STUCK, f"{who}: after we sent no more, {reason}")
        elif self._is_open and not silent:
            self._ledger.fault(Fault.DROPPED, f"{who}: {reason}")
        elif self._is_open and not self._pending:  # else each of these is a loss
            self._ledger.fault(Fault.LOST, f"{who}: in a transfer or a goodbye {reason}")
        return Ended(reason)


def _message(frame: Frame) -> str:
    try:
        return Failure.unpack(frame.payload).message
    except MalformedFrame as error:
        return f"an error that cannot be read: {error}"


def _finish(serial: int) -> bytes:
    header = Header(Program.REMOTE, VERSION, Storage.VOL_DOWNLOAD, FrameType.STREAM, serial)
    return Frame(header).pack()
