"""A daemon that answers every call with a small reply, and misbehaves on demand.

In a test's own process it is a context manager; `python -m tests.loadtest.fake_daemon PATH` runs
it in another one (so that its CPU time is its own) until its stdin ends, and then tells as JSON
how long its waits really were.
"""

import argparse
import contextlib
import json
import socketserver
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.procedures import Storage
from proxyd.wire.failure import internal
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header
from proxyd.wire.programs import VERSION, Keepalive, Program, Remote
from proxyd.wire.remote import (
    OpenArguments,
    is_keepalive,
    keepalive,
    pack_auth_methods,
    pack_int,
    pack_sasl_mechanisms,
    reply,
)
from tests.loadtest.fake_volume import Volume


@dataclass
class Script:
    """What it does, and below the line what it saw."""

    methods: tuple[int, ...] = (0,)
    mechanisms: tuple[str, ...] = ()  # of SASL
    delay_s: float = 0.0  # a real wait before each small reply
    burn_s: float = 0.0  # CPU time used up for each small reply
    serves: tuple[str, ...] = ()  # the URIs that it opens; none: every one
    refused: dict[int, str] = field(default_factory=dict)  # procedure → error message
    ping_first: bool = False  # a PING and an event in front of each small reply
    in_pieces: bool = False  # each small reply byte by byte
    hang_up: bool = False  # instead of a small reply
    garbage: bool = False  # instead of a small reply
    silent: bool = False  # no small reply at all
    open_wait_s: float = 0.0  # a real wait before each reply to CONNECT_OPEN
    open_burn_s: float = 0.0  # CPU time used up for it
    ignored: set[int] = field(default_factory=set)  # procedures that get no reply
    confirmation: bytes = b"\1"  # behind TLS; none: it hangs up
    volume: Volume = field(default_factory=Volume)
    # ----
    opened: list[OpenArguments] = field(default_factory=list)
    closed: int = 0
    pongs: int = 0
    waits_s: list[float] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)  # of each small call: the URI it opened
    live: set[object] = field(default_factory=set)
    most_live: int = 0
    handshakes: list[str] = field(default_factory=list)  # behind TLS: full, resumed, or an error


class Connection(socketserver.BaseRequestHandler):
    server: "FakeDaemon"

    def handle(self):
        frames, script = FrameBuffer(), self.server.script
        with contextlib.suppress(ConnectionError), _counted(self, script):
            while received := self.request.recv(65536):
                frames.feed(received)
                while frame := frames.next_frame():
                    if is_keepalive(frame.header):
                        script.pongs += frame.header.procedure == Keepalive.PONG
                    elif not self.answer(frame, script):
                        return

    def answer(self, frame, script):
        """False ends the connection."""
        header = frame.header
        if header.type == FrameType.STREAM:
            self.send(*script.volume.stream(header, frame.payload))
            return True
        if header.procedure in script.ignored:
            return True
        if message := script.refused.get(header.procedure):
            self.send(internal(message).reply_to(header))
            return True
        match header.procedure:
            case Remote.AUTH_LIST:
                self.send(reply(header, pack_auth_methods(list(script.methods))))
            case Remote.AUTH_SASL_INIT:
                self.send(reply(header, pack_sasl_mechanisms(script.mechanisms)))
            case Remote.CONNECT_OPEN:
                self.opened = OpenArguments.unpack(frame.payload)
                if script.serves and self.opened.name not in script.serves:
                    message = f"no connection driver available for {self.opened.name}"
                    self.send(internal(message).reply_to(header))
                    return True
                script.opened.append(self.opened)
                threading.Event().wait(script.open_wait_s)
                _burn(script.open_burn_s)
                self.send(reply(header))
            case Remote.CONNECT_CLOSE:
                script.closed += 1
                self.send(reply(header))
            case procedure if procedure in set(Storage):
                self.of_volume(frame, script.volume)
            case _:
                return self.small_reply(header, script)
        return True

    def of_volume(self, frame, volume):
        header, payload = frame.header, frame.payload
        match header.procedure:
            case Storage.VOL_LOOKUP_BY_PATH:
                self.send(*volume.look_up(header, payload))
            case Storage.VOL_GET_INFO:
                self.send(*volume.info(header))
            case Storage.VOL_UPLOAD:
                self.send(*volume.begin_upload(header, payload))
            case Storage.VOL_DOWNLOAD:
                for answer in volume.download(header, payload):
                    self.send(answer)

    def small_reply(self, header, script):
        script.callers.append(self.opened.name)
        if script.silent or script.hang_up:
            return script.silent
        if script.garbage:
            self.request.sendall(bytes(28))
            return True
        _wait(script)
        _burn(script.burn_s)
        answer = reply(header, pack_int(42))
        if script.ping_first:
            event = Header(Program.REMOTE, VERSION, 360, FrameType.MESSAGE, 1)
            self.send(keepalive(Keepalive.PING), Frame(event, pack_int(1)), answer)
        elif script.in_pieces:
            for byte in answer.pack():
                self.request.sendall(bytes([byte]))
        else:
            self.send(answer)
        return True

    def send(self, *frames):
        self.request.sendall(b"".join(frame.pack() for frame in frames))


@contextlib.contextmanager
def _counted(connection, script):
    script.live.add(connection)
    script.most_live = max(script.most_live, len(script.live))
    try:
        yield
    finally:
        script.live.remove(connection)


def _wait(script):
    if script.delay_s:
        began = time.perf_counter()
        threading.Event().wait(script.delay_s)
        script.waits_s.append(time.perf_counter() - began)


def _burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class FakeDaemon(socketserver.ThreadingUnixStreamServer):
    """Serves in threads while its context lasts; leaving joins them, so clients must be gone."""

    request_queue_size = 64

    def __init__(self, path: Path, script: Script):
        self.script = script
        super().__init__(str(path), Connection)

    def __enter__(self):
        self.serving = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.serving.start()
        return self

    def __exit__(self, *exc_info):
        self.shutdown()
        self.serving.join()
        super().__exit__(*exc_info)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--burn-ms", type=float, default=0)
    parser.add_argument("--open-burn-ms", type=float, default=0)
    parser.add_argument("--capacity", type=int, default=1 << 20)
    options = parser.parse_args()
    script = Script(
        delay_s=options.delay_ms / 1000,
        burn_s=options.burn_ms / 1000,
        open_burn_s=options.open_burn_ms / 1000,
        volume=Volume(capacity=options.capacity),
    )
    with FakeDaemon(options.path, script):
        print("listening", flush=True)
        sys.stdin.read()
    waited = statistics.median(script.waits_s) if script.waits_s else 0
    print(json.dumps({"median_wait_ns": waited * 1e9}), flush=True)


if __name__ == "__main__":
    main()
