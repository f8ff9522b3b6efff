"""Somebody who connects again and again, as fast as he can, and counts what becomes of it.

    python -m tests.fakes.knocker COUNT PATH
    python -m tests.fakes.knocker COUNT HOST PORT [ADDRESS …]

He says what a client says first, or a ClientHello where `PROXYD_TEST_HELLO` is set, and waits until
he hears something or is closed. He comes from the addresses in turn. Each line of the input begins
a round; the answer is a line: how many were answered, how many were told that they come too fast,
how many were closed without a word, and how many seconds it took.
"""

import os
import socket
import sys
import time

from proxyd.wire import remote
from proxyd.wire.programs import Remote
from tests.fakes.half_open import client_hello

DEADLINE_S = 30.0
TOO_FAST = b"proxyd_connection_rate"


def main(count, *where):
    hello = client_hello() if os.environ.get("PROXYD_TEST_HELLO") else None
    words = hello or remote.call(Remote.AUTH_LIST, 0, b"").pack()
    print("ready", flush=True)
    for _ in sys.stdin:
        found = {"answered": 0, "told": 0, "closed": 0}
        began = time.monotonic()
        for number in range(int(count)):
            found[visit(where, number, words)] += 1
        print(*found.values(), time.monotonic() - began, flush=True)


def visit(where, number, words):
    with connected(where, number) as sock:
        try:
            sock.sendall(words)
            heard = sock.recv(65536)
        except ConnectionError:
            return "closed"
    if not heard:
        return "closed"
    return "told" if TOO_FAST in heard else "answered"


def connected(where, number):
    match where:
        case (path,):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)  # blocking: it waits its turn where the backlog is full
            sock.settimeout(DEADLINE_S)
            return sock
        case (host, port, *addresses):
            source = (addresses[number % len(addresses)], 0) if addresses else None
            return socket.create_connection((host, int(port)), DEADLINE_S, source)


if __name__ == "__main__":
    main(*sys.argv[1:])
