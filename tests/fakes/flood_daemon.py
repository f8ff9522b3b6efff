"""A daemon that sends a volume without end, as fast as it is taken.

`python -m tests.fakes.flood_daemon PATH` serves until its stdin ends. Packet by packet the stream
says where it is, so that whoever reads it notices a byte that is missing or comes twice.
"""

import socket
import sys
import threading
from contextlib import suppress

from proxyd.wire import remote
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header, Status
from proxyd.wire.programs import VERSION, AuthMethod, Program, Remote

VOL_DOWNLOAD = 209
PACKET = 262_120
PATTERN = bytes(range(251)) * (PACKET // 251 + 2)  # a prime: no power of two repeats it


def packet(serial, number):
    """The packet of this number, from 0."""
    header = Header(
        Program.REMOTE, VERSION, VOL_DOWNLOAD, FrameType.STREAM, serial, Status.CONTINUE
    )
    at = number % 251
    return Frame(header, number.to_bytes(8, "big") + PATTERN[at : at + PACKET]).pack()


def serve(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=attend, args=(sock,), daemon=True).start()


def attend(sock):
    buffer = FrameBuffer()
    with sock, suppress(ConnectionError):
        while received := sock.recv(65536):
            buffer.feed(received)
            while (frame := buffer.next_frame()) is not None:
                listed = frame.header.procedure == Remote.AUTH_LIST
                payload = remote.pack_auth_methods([AuthMethod.NONE]) if listed else b""
                sock.sendall(remote.reply(frame.header, payload).pack())
                if frame.header.procedure == VOL_DOWNLOAD:
                    flood(sock, frame.header.serial)


def flood(sock, serial):
    number = 0
    while True:
        sock.sendall(packet(serial, number))
        number += 1


if __name__ == "__main__":
    threading.Thread(target=serve, args=(sys.argv[1],), daemon=True).start()
    sys.stdin.read()
