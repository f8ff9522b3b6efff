"""A client that downloads without haste, and looks at each byte.

`python -m tests.fakes.slow_reader PATH URI` opens a session by the UNIX socket at PATH, asks the
flooding daemon for its volume and reads a little a hundred times a second. When its stdin ends it
prints how many whole packets it got; it fails at a byte that is not the next one.
"""

import select
import socket
import sys

from proxyd.wire import remote
from proxyd.wire.frame import FrameBuffer, Status
from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.fakes.flood_daemon import VOL_DOWNLOAD, packet

PAUSE_S = 0.01
AT_ONCE = 16384


def main(path, uri):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        serial = begin(sock, uri)
        expected, packets, begun = packet(serial, 0), 0, b""
        while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            begun += sock.recv(AT_ONCE)
            if len(begun) >= len(expected):
                assert begun.startswith(expected), f"packet {packets} is not what was sent"
                begun = begun[len(expected) :]
                packets += 1
                expected = packet(serial, packets)
        assert expected.startswith(begun), f"packet {packets} does not begin as it was sent"
    print(packets)


def begin(sock, uri):
    """Returns the serial of the stream; nothing of it has been read yet."""
    buffer = FrameBuffer()
    calls = (
        (Remote.AUTH_LIST, b""),
        (Remote.CONNECT_OPEN, OpenArguments(uri, 0).pack()),
        (VOL_DOWNLOAD, b""),
    )
    for serial, (procedure, payload) in enumerate(calls):
        sock.sendall(remote.call(procedure, serial, payload).pack())
        while (answer := buffer.next_frame()) is None:
            buffer.feed(sock.recv(buffer.wanted))
        assert answer.header.status == Status.OK
    return serial


if __name__ == "__main__":
    main(*sys.argv[1:])
