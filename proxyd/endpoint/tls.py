"""An endpoint that is a socket with TLS on it: OpenSSL reads and writes the socket itself.

The same object serves both planes: `handshake` is called by the control plane, again and again
as the socket allows; afterwards it is read and written like any other endpoint.

It does so once the handshake is over, of which it is handed the records: see handshake.py.

What OpenSSL does that a bare socket does not:

* One read decrypts one record, 16 KiB at most. A record that did not fit leaves the rest inside
  OpenSSL, and epoll says nothing of it: `pending`. A full record is followed by another attempt,
  because bulk comes in runs of full records; a shorter one is not, so that a small call costs
  no second receive.
* A write that the socket does not take whole has encrypted a record already, and perhaps sent
  others. OpenSSL then wants the same bytes again, at least as many, possibly elsewhere in memory.
  Flows and conversations keep what was not taken and offer it first, which is just that. Whether
  one call takes one record or all of them is the context's mode; both are fine here.
* A read may have to write: a key update that the peer asks for is answered from inside the read.
  When the socket is full at that moment the read waits for room: `reads_when_writable`. The
  opposite, a write that waits for input, cannot happen: TLS 1.3 has no such case and
  renegotiation is switched off.
* A record may hold no bytes of two frames. libvirt's client reads a frame and then waits for its
  socket alone, never asking what TLS has still decrypted: the beginning of the next frame would lie
  there until more comes, for ever if the client sends no keepalives (docs/protocol/tls.md,
  section 3). So the endpoint follows the frames that it is given and no write goes beyond one's
  end, whoever gives them, however they are cut; a long one takes as many records as it needs.
* The end may come with a close_notify or, from every libvirt client, without one
  (docs/protocol/closing.md, section 1). Both count as the end. What a cut connection could hide
  from a daemon is the end of a frame, which the frame's length tells.

Handshakes take milliseconds of CPU (RSA-2048 about 2, RSA-4096 about 9 on the design machine), so
whoever drives `handshake` does it in a thread.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from OpenSSL import SSL

from proxyd.endpoint import openssl
from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.handshake import Handshake, Hello, TooMuch, first_that_suits
from proxyd.endpoint.hello import offered_signatures
from proxyd.endpoint.openssl import memory, read, write
from proxyd.wire.frame import HEADER_SIZE, LENGTH_SIZE
from proxyd.wire.state import State

_FULL_RECORD: Final = 16384
_LONGEST_WRITE: Final = 4 * _FULL_RECORD  # what is reported as taken, or not, in one piece
# Frames of one turn. 64 KiB of the shortest are 2,340, each a call of OpenSSL's and one of the
# kernel's: 12 ms in which nobody else is served. The rest goes on when the socket is writable.
_MOST_FRAMES: Final = 128
_SHORTEST_FRAME: Final = HEADER_SIZE
_length: Final = struct.Struct(">I").unpack_from
_LETTING_IN: Final = 1  # the byte in front of the first frame
_CLOSED: Final = "closed"
_TCP_ULP: Final = 31  # linux/tcp.h
_LONGEST_LAYER_NAME: Final = 16
_OPTIONS: Final = SSL.OP_NO_RENEGOTIATION | SSL.OP_IGNORE_UNEXPECTED_EOF


class HandshakeFailed(Exception):
    """No TLS came of it; the reason is OpenSSL's. The peer has been sent its alert."""


class TlsEndpoint:
    """The server's side of TLS on a connected socket, which belongs to the endpoint.

    What is written is one byte, by which libvirt's servers let a client in, and frames behind it.
    `application` is kept on the connection, where the context's callbacks find it. `others` are
    contexts for clients whom the first does not suit, in that order.
    """

    __slots__ = (
        "_application",
        "_begun",
        "_broken",
        "_contexts",
        "_fd",
        "_frame",
        "_handshake",
        "_hello",
        "_sock",
        "_ssl",
        "connection",
        "offered",
        "pending",
        "reads_when_writable",
    )

    may_splice = False
    carries_descriptors = False
    moves = False  # OpenSSL gives nobody the state of a connection

    def __init__(
        self,
        sock: socket.socket,
        context: SSL.Context,
        application: object,
        others: Sequence[SSL.Context] = (),
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()
        self._application = application
        self._contexts = (context, *others)
        # The kernel can take over from OpenSSL only if the handshake was made on the socket.
        in_kernel = openssl.asks_kernel(context)
        self._hello = Hello(sock) if in_kernel and others else None
        self._use(_made(context, application, sock if in_kernel else None))
        spares = (_made(each, application) for each in others)
        self._handshake = None if in_kernel else Handshake(self.connection, sock, spares)
        self.offered: tuple[int, ...] | None = None  # the client's signatures, if they were seen
        self.pending = False
        self.reads_when_writable = False
        self._frame = _LETTING_IN  # bytes of what is being written that have still to be taken
        self._begun = b""  # a length word that was cut, as far as it was taken
        self._broken: HungUp | None = None  # OpenSSL gives the reason of a failure only once

    def _use(self, connection: SSL.Connection) -> None:
        self.connection = connection
        self._ssl = openssl.handle_of(connection)

    def fileno(self) -> int:
        return self._fd

    @property
    def in_kernel(self) -> bool:
        """Whether the kernel encrypts its records: OpenSSL has then put its layer on the socket."""
        try:
            layer = self._sock.getsockopt(socket.IPPROTO_TCP, _TCP_ULP, _LONGEST_LAYER_NAME)
        except OSError:
            return False
        return layer.startswith(b"tls")

    def handshake(self) -> bool:
        """Goes on with the handshake; False when the socket has to become ready first.

        Which way is in `reads_when_writable`. Raises HandshakeFailed and HungUp. Burns CPU.
        """
        self.reads_when_writable = False
        try:
            if self._handshake is not None:
                return self._advance(self._handshake)
            if self._hello is not None and not self._choose(self._hello):
                return False
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.WantWriteError:
            self.reads_when_writable = True
            return False
        except SSL.ZeroReturnError as error:
            raise HungUp(_CLOSED, while_writing=False) from error
        except (SSL.SysCallError, OSError) as error:
            raise _hung_up(error, while_writing=False) from error
        except SSL.Error as error:
            raise HandshakeFailed(_reason(error)) from error
        except TooMuch as error:
            raise HandshakeFailed(str(error)) from error
        return True

    def _choose(self, hello: Hello) -> bool:
        """Whether it is known which context suits the client."""
        seen = hello.look()
        if seen is None:
            return False
        self.offered = offered_signatures(seen)
        application = self._application
        number = first_that_suits((_made(each, application) for each in self._contexts), seen)
        if number:
            self._use(_made(self._contexts[number], application, self._sock))
        self._hello = None
        return True

    def _advance(self, handshake: Handshake) -> bool:
        """After the handshake the socket is OpenSSL's own, without a copy through memory."""
        done = handshake.advance()
        if self.connection is not handshake.connection:
            self._use(handshake.connection)
        if not done:
            self.reads_when_writable = handshake.wants_room
            return False
        self.offered = handshake.offered
        openssl.use_socket(self.connection, self._sock)
        self._handshake = None
        return True

    def read_into(self, view: memoryview) -> int:
        self.reads_when_writable = self.pending = False
        size = len(view)
        got: int = read(self._ssl, memory(view), size if size < _FULL_RECORD else _FULL_RECORD)
        if 0 < got < _FULL_RECORD:  # nearly always; OpenSSL has decrypted to where it is wanted
            if got == size:
                self.pending = self.connection.pending() > 0
            return got
        return self._read_on(view, got)

    def _read_on(self, view: memoryview, part: int) -> int:
        """After a read that gave a full record, or none."""
        got, size = 0, len(view)
        try:
            while part > 0:
                got += part
                if part < _FULL_RECORD or got == size:
                    break
                part = read(
                    self._ssl, memory(view[got : got + _FULL_RECORD]), min(size - got, _FULL_RECORD)
                )
            else:
                if openssl.waits_for_input(self._ssl, part):
                    return got or NOTHING
                openssl.raise_error(self.connection, part)
        except SSL.WantReadError:
            return got or NOTHING
        except SSL.WantWriteError:
            self.reads_when_writable = not got  # what came goes on first; the next read sees to it
            self.pending = got > 0
            return got or NOTHING
        except SSL.ZeroReturnError:
            return got
        except (SSL.Error, OSError) as error:
            return self._break(got, error)
        if got == size:
            self.pending = self.connection.pending() > 0
        return got

    def _break(self, got: int, error: Exception) -> int:
        """A read has failed: says so now, or, if bytes came before that, next time."""
        self._broken = self._broken or _hung_up(error, while_writing=False)
        if not got:
            raise self._broken from error
        self.pending = True  # the socket may be empty
        return got

    def write(self, view: memoryview) -> int:
        size = len(view)
        taken: int | None = None
        if (
            not self._frame
            and _SHORTEST_FRAME <= size <= _LONGEST_WRITE
            and _length(view)[0] == size
            and not self._begun
            and self._broken is None
        ):  # nearly always: one frame
            taken = write(self._ssl, memory(view), size)
            if taken == size:
                return size
            self._frame = size - max(0, taken)
        return self._write_on(view, taken)

    def _write_on(self, view: memoryview, taken: int | None) -> int:
        """Any number of frames, in any parts; `taken` is what OpenSSL has said of the first."""
        if self._broken is not None:  # OpenSSL takes nothing any more, and would not say why
            raise HungUp(self._broken.reason, while_writing=True) from self._broken
        sent, size, frame = max(0, taken or 0), len(view), self._frame
        writes = _MOST_FRAMES
        try:
            while (taken is None or taken > 0) and sent < size and writes:
                writes -= 1
                if not frame:
                    frame = self._begin_frame(view[sent:])
                part = min(frame, _LONGEST_WRITE, size - sent)
                taken = write(self._ssl, memory(view[sent : sent + part]), part)
                sent += max(0, taken)
                frame -= max(0, taken)
            if taken is not None and taken <= 0:
                openssl.raise_error(self.connection, taken)
        except SSL.WantWriteError:
            return sent
        except (SSL.Error, OSError) as error:
            raise _hung_up(error, while_writing=True) from error
        finally:
            self._frame = frame
        return sent

    def _begin_frame(self, view: memoryview) -> int:
        """How many bytes the frame has that `view` begins with, or goes on with in its length."""
        word = self._begun + view[: LENGTH_SIZE - len(self._begun)]
        if len(word) < LENGTH_SIZE:
            self._begun = word
            return len(view)
        length = int.from_bytes(word) - len(self._begun)
        self._begun = b""
        # Whoever sent it has been told what frames are; what is none has no ends to keep to.
        return length if length >= HEADER_SIZE - LENGTH_SIZE else len(view)

    def take_descriptors(self) -> None:
        raise NotImplementedError("TLS carries no descriptors")

    def splice_to(self, pipe: int, count: int) -> int:
        raise NotImplementedError("what is encrypted cannot be spliced")

    def splice_from(self, pipe: int, count: int) -> int:
        raise NotImplementedError("what is encrypted cannot be spliced")

    def end_write(self) -> None:
        if self._sock.fileno() == -1:
            return  # OpenSSL knows the descriptor by its number, which may be somebody else's now
        # The close_notify is an offer: there may be no room for it, or nobody to read it.
        with contextlib.suppress(SSL.Error, OSError):
            self.connection.shutdown()
        openssl.forget_errors()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()

    def state(self) -> State:
        raise NotImplementedError("TLS does not move")

    def go_on(self) -> None:
        raise NotImplementedError("TLS does not move")

    def let_go(self) -> None:
        raise NotImplementedError("TLS does not move")


def _made(
    context: SSL.Context, application: object, sock: socket.socket | None = None
) -> SSL.Connection:
    """No method: what makes the spare ones must not hold the endpoint, which holds it."""
    connection = SSL.Connection(context, sock)
    connection.set_options(_OPTIONS)
    connection.set_app_data(application)
    connection.set_accept_state()
    openssl.read_one_record(connection)
    return connection


def _hung_up(error: Exception, *, while_writing: bool) -> HungUp:
    openssl.forget_errors()
    if isinstance(error, SSL.Error) and not isinstance(error, SSL.SysCallError):
        return HungUp(f"TLS: {_reason(error)}", while_writing=while_writing)
    # -1 is the kernel's end of file where TLS expected more.
    number = error.args[0]
    said = os.strerror(number) if number > 0 else _CLOSED
    return HungUp(said, while_writing=while_writing)


def _reason(error: Exception) -> str:
    """OpenSSL's texts, innermost first; an error without any is one that a callback has made."""
    queue = error.args[0] if error.args else ()
    texts = [str(entry[2]) for entry in queue if len(entry) == 3 and entry[2]]
    return "; ".join(dict.fromkeys(texts)) or "refused"
