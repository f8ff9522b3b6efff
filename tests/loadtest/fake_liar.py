"""A daemon for `soak` that quotes names as libvirt does, and lies about some of them."""

import os
import socketserver
import threading
from dataclasses import dataclass, field

from loadtest.procedures import Storage
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header, Status
from proxyd.wire.names import NAMES
from proxyd.wire.programs import VERSION, Program, Remote
from proxyd.wire.remote import is_keepalive, pack_auth_methods, pack_int, reply
from proxyd.wire.xdr import MalformedFrame, Reader, Writer

LOOKUPS = {NAMES[Program.REMOTE].index(f"{kind}_LOOKUP_BY_NAME") for kind in ("DOMAIN", "NETWORK")}
CONSTANT = Remote.CONNECT_GET_LIB_VERSION
NOT_FOUND = 43
PACKET = 100_000
HONEST = 60  # lookups before it lies: nobody should do so while it is asked what it knows


@dataclass
class Lie:
    """What it does with one lookup in so many, or with each stream; below, what it saw."""

    lose: bool = False
    double: bool = False
    swap: bool = False  # with the latest lookup of another session
    turn_round: bool = False  # the name of another call of this session
    other_serial: bool = False  # sent to a session that never made such a call
    garble: bool = False
    refuse: bool = False
    hang_up: bool = False
    no_end: bool = False  # a client that sends no more is not left
    stream: str = ""  # short, long, flipped, order
    leak_fds: bool = False
    leak_kib: int = 0  # per lookup
    # ----
    lookups: int = 0
    told: int = 0  # lies
    leaked: list = field(default_factory=list)
    latest: dict = field(default_factory=dict)  # connection → name
    lock: threading.Lock = field(default_factory=threading.Lock)


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        frames, self.lie = FrameBuffer(), self.server.lie
        self.names = []
        try:
            while received := self.request.recv(65536):
                frames.feed(received)
                while frame := frames.next_frame():
                    if not is_keepalive(frame.header) and not self.answer(frame):
                        return
            if self.lie.no_end:
                self.server.closing.wait()
        except (ConnectionError, MalformedFrame):  # it vanishes, or begins with nonsense
            return
        finally:
            with self.lie.lock:
                self.lie.latest.pop(self, None)

    def answer(self, frame):
        """False ends the connection."""
        header = frame.header
        if header.type == FrameType.STREAM:
            self.send(_stream(header, Status.OK))
            return True
        match header.procedure:
            case Remote.AUTH_LIST:
                self.send(reply(header, pack_auth_methods([0])))
            case procedure if procedure in LOOKUPS:
                return self.look_up(header, Reader(frame.payload).string())
            case Storage.VOL_LOOKUP_BY_PATH:
                self.send(reply(header, Writer().string("p").string("v").string("k").take()))
            case Storage.VOL_GET_INFO:
                self.send(reply(header, Writer().i32(0).u64(len(self.server.content)).take()))
            case Storage.VOL_DOWNLOAD:
                self.download(header, frame.payload)
            case number if number == CONSTANT:
                self.send(reply(header, pack_int(42)))
            case Remote.CONNECT_OPEN | Remote.CONNECT_CLOSE:
                self.send(reply(header))
            case _:
                self.send(_not_found(header, "nothing"))
        return True

    def look_up(self, header, name):
        lie = self.lie
        with lie.lock:
            lie.lookups += 1
            if lie.leak_fds and lie.lookups % 20 == 0:
                lie.leaked.append(os.open("/dev/null", os.O_RDONLY))
            if lie.leak_kib:
                lie.leaked.append(os.urandom(lie.leak_kib << 10))
            others = [each for who, each in lie.latest.items() if who is not self]
            lie.latest[self] = name
            turn = lie.lookups > HONEST and lie.lookups % 10 == 0
        self.names = [*self.names[-3:], name]
        if turn and (answers := self.lying(header, name, others)) is not None:
            lie.told += 1
            self.send(*answers)
            return not lie.hang_up
        self.send(_not_found(header, name))
        return True

    def lying(self, header, name, others):
        lie, true = self.lie, _not_found(header, name)
        if lie.lose or lie.hang_up:
            return []
        if lie.double:
            return [true, true]
        if lie.swap and others:
            return [_not_found(header, others[-1])]
        if lie.turn_round and len(self.names) > 1:
            return [_not_found(header, self.names[-2])]
        if lie.other_serial:
            other = Header(Program.REMOTE, VERSION, header.procedure, 0, header.serial ^ 1 << 31)
            return [_not_found(other, name), true]
        if lie.garble:
            return [_not_found(header, name[:-2] + "?~")]
        if lie.refuse:
            return [_not_found(header, "too many clients")]
        return None

    def download(self, header, payload):
        reader = Reader(payload)
        assert [reader.string() for _ in range(3)] == ["p", "v", "k"]
        offset, length = reader.u64(), reader.u64()
        data = bytearray(self.server.content[offset : offset + length])
        with self.lie.lock:
            self.server.downloads += 1
            turn = self.server.downloads > 1  # the first one is the reference
        if turn and self.lie.stream:
            self.lie.told += 1
            data = _spoilt(data, self.lie.stream)
        self.send(reply(header))
        for at in range(0, len(data), PACKET):
            self.send(_stream(header, Status.CONTINUE, bytes(data[at : at + PACKET])))
        self.send(_stream(header, Status.CONTINUE))

    def send(self, *frames):
        self.request.sendall(b"".join(frame.pack() for frame in frames))


def _spoilt(data, how):
    if how == "short":
        return data[:-7]
    if how == "long":
        return data + data[-7:]
    if how == "order":
        return data[65536:] + data[:65536]
    data[len(data) // 2] ^= 1
    return data


def _not_found(header, name):
    told = f"Network not found: no network with matching name '{name}'"
    return Failure(NOT_FOUND, 19, told, "%s", name).reply_to(header)


def _stream(header, status, payload=b""):
    of_stream = Header(
        Program.REMOTE, VERSION, header.procedure, FrameType.STREAM, header.serial, status
    )
    return Frame(of_stream, payload)


class FakeLiar(socketserver.ThreadingUnixStreamServer):
    """Serves in threads while its context lasts; its volume has `blocks` of 64 KiB."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(self, path, lie, blocks=16):
        self.lie, self.content, self.downloads = lie, os.urandom(blocks << 16), 0
        self.closing = threading.Event()
        super().__init__(str(path), Connection)

    def __enter__(self):
        self.serving = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.serving.start()
        return self

    def __exit__(self, *exc_info):
        self.closing.set()
        self.shutdown()
        self.serving.join()
        for each in self.lie.leaked:
            if isinstance(each, int):
                os.close(each)
        super().__exit__(*exc_info)
