"""What an accepted TCP connection is set to before its first byte."""

import socket
from typing import Final

_LONGEST_INTERVAL_S: Final = 32767  # what the kernel takes
_MOST_PROBES: Final = 127

# Bytes that wait in the socket, not sent yet, beyond which it takes no more. The kernel would take
# megabytes, and the reply to a small call or an event stands behind them, as it does directly, and
# behind what we hold ourselves. What is on its way is not bounded, nor so the speed of long lines.
# Beside a download at 4 Mbit/s a call by GSSAPI took 2.1 s without this; directly, by TLS, 1.2 s.
_MOST_UNSENT: Final = 256 * 1024


def tune(sock: socket.socket, *, interval_s: int, count: int) -> None:
    """No waiting for more to send or in long queues, and probes on a silent connection.

    Raises OSError. `interval_s` of 0 or less means no probes; after `count` unanswered ones the
    peer is gone.

    TCP_USER_TIMEOUT is left alone on purpose: the kernel applies it also to a peer that is alive
    and merely does not read (Linux 6.18, tried: cut off although its kernel answered every
    probe), which would end the download of a client that pauses.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT)
    if interval_s <= 0:
        return
    interval_s = min(interval_s, _LONGEST_INTERVAL_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(1, min(count, _MOST_PROBES)))
