"""One call and its reply on a blocking socket: for commands, which have nothing else to do."""

import socket
import time
from typing import Final

from proxyd.endpoint.contract import HungUp
from proxyd.wire.dialogue import Answer, Dialogue, Failed, Returned

_CHUNK: Final = 65536


def exchanged(
    sock: socket.socket, dialogue: Dialogue, procedure: int, payload: bytes = b"", *, end: float
) -> Answer:
    """The answer, if there is one before `end` (of time.monotonic).

    Raises TimeoutError, HungUp when it closes instead, OSError and MalformedFrame. Pings are not
    answered: whoever asks one thing is gone before a daemon would miss that.
    """
    _give_until(sock, end)
    sock.sendall(dialogue.call(procedure, payload))
    while True:
        _give_until(sock, end)
        received = sock.recv(min(dialogue.wanted, _CHUNK))
        if not received:
            raise HungUp("closed", while_writing=False)
        match dialogue.receive_data(received):
            case Returned() | Failed() as answer:
                return answer


def _give_until(sock: socket.socket, end: float) -> None:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
