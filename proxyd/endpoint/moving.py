"""Ends of a session that somebody else has had, another loop or another process.

A socket takes along what is in its queues and what was set on it. The rest of an endpoint is its
`state()`. What is made of the two here does what the one before would have done with the next byte,
and lets in no descriptor that it would not have.

Nothing is read, written, set or closed, and what is malformed is a ValueError: the socket is still
the caller's then, and whoever gave the state can go on himself.
"""

import socket
from collections.abc import Callable
from typing import Final

from proxyd.endpoint.ancillary import has_never_taken_any
from proxyd.endpoint.contract import Endpoint
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.endpoint.sasl import Layer, SaslEndpoint
from proxyd.wire.state import State, flag, part, taken

_NETWORK: Final = (socket.AF_INET, socket.AF_INET6)
_PLAIN_FIELDS: Final = {"kind": lambda _kind: None}
_UNIX_FIELDS: Final = _PLAIN_FIELDS | {"looks": flag}

LayerFrom = Callable[[State], Layer]


def no_layer(_state: State) -> Layer:
    """For whoever has none."""
    raise ValueError("no security layer is known here")


def endpoint_from(state: object, sock: socket.socket, layer_from: LayerFrom = no_layer) -> Endpoint:
    """Takes the socket up, unless it raises ValueError."""
    if part(state).get("kind") != "sasl":
        return _bare_from(state, sock)
    found = part(state)
    bare = _bare_from(found.get("below"), sock)
    endpoint = SaslEndpoint(bare, layer_from(part(found.get("layer"))))
    endpoint.take_up(found)
    return endpoint


def _bare_from(state: object, sock: socket.socket) -> PlainEndpoint:
    kind = part(state).get("kind")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("no stream socket")
    if kind == "plain":
        taken(state, _PLAIN_FIELDS)
        if sock.family not in _NETWORK:  # on another one it would not see descriptors come
            raise ValueError("no socket of the network, as its state says")
        return PlainEndpoint(sock)
    if kind != "unix":
        raise ValueError("an end of a kind that is unknown here")
    looks = taken(state, _UNIX_FIELDS)["looks"]
    if sock.family != socket.AF_UNIX:
        raise ValueError("no UNIX socket, as its state says")
    if not looks and not has_never_taken_any(sock):
        raise ValueError("descriptors may come on it, and its state says that none can")
    return UnixEndpoint(sock, looks=looks)
