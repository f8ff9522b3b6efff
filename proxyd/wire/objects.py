"""The objects that calls are about, as they stand in front of a payload: by name and uuid.

Source: libvirt's remote_protocol.x, the structures `remote_nonnull_…`. Of whatever else they hold,
nothing is read. A payload may come from anybody: only so much of a name is copied, however long it
is, and one that cannot be understood names nothing.
"""

from enum import Enum
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

_LENGTH: Final = Struct(">I")
_UUID_SIZE: Final = 16

# Bytes of a name that are looked at: libvirt's own have 255 at most, those of files.
KEPT: Final = 1024


class Where(Enum):
    """What of a call names its object: the first argument does, is its name alone, or the reply
    does, since the call has made it from a description."""

    ARGUMENT = "argument"
    NAME = "name"
    REPLY = "reply"


class Named(NamedTuple):
    """An object of some kind; what it lacks is empty. Of a longer name there are KEPT + 1 bytes.

    A volume's parent is its pool, that of a snapshot or a checkpoint its guest, and that of a port
    its network.
    """

    kind: str
    name: bytes = b""
    uuid: bytes = b""
    parent: bytes = b""
    parent_uuid: bytes = b""


# What stands in front, in this order: the fields of Named that it fills.
_SHAPES: Final[dict[str, tuple[str, ...]]] = {
    "domain": ("name", "uuid"),
    "network": ("name", "uuid"),
    "storage_pool": ("name", "uuid"),
    "storage_vol": ("parent", "name"),
    "snapshot": ("name", "parent", "parent_uuid"),
    "checkpoint": ("name", "parent", "parent_uuid"),
    "interface": ("name",),
    "secret": ("uuid",),
    "network_port": ("parent", "parent_uuid", "uuid"),
    "nwfilter": ("name", "uuid"),
    "nwfilter_binding": ("name",),
    "node_device": ("name",),
}
_NAME_ALONE: Final = ("name",)
_NAME_AND_UUID: Final = ("name", "uuid")
_SHORT: Final = 256  # bytes of both, to be remembered
_UUIDS: Final = ("uuid", "parent_uuid")


def named(kind: str, where: Where, payload: memoryview) -> Named | None:
    """The object that a payload begins with; None where it does not."""
    shape = _NAME_ALONE if where is Where.NAME else _SHAPES[kind]
    if shape == _NAME_AND_UUID and len(payload) >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(payload)
        end = _LENGTH.size + size + -size % 4 + _UUID_SIZE
        if end <= min(len(payload), _SHORT):
            # No more than this: what follows may be a password.
            return _remembered(kind, bytes(payload[:end]))
    return _read(kind, shape, payload)


@lru_cache(maxsize=1024)  # half a megabyte at most
def _remembered(kind: str, payload: bytes) -> Named | None:
    """Who starts, stops and asks does it to the same guests again: a tenth of the time."""
    return _read(kind, _NAME_AND_UUID, memoryview(payload))


def _read(kind: str, shape: tuple[str, ...], payload: memoryview) -> Named | None:
    found: dict[str, bytes] = {}
    at = 0
    for part in shape:
        if part in _UUIDS:
            end = at + _UUID_SIZE
            if end > len(payload):
                return None
            found[part], at = bytes(payload[at:end]), end
            continue
        begin = at + _LENGTH.size
        if begin > len(payload):
            return None
        (size,) = _LENGTH.unpack_from(payload, at)
        if size > len(payload) - begin:
            return None
        # A daemon sees what is in front of the first NUL.
        found[part] = bytes(payload[begin : begin + min(size, KEPT + 1)]).partition(b"\0")[0]
        at = begin + size + -size % 4
    return Named(kind, **found)
