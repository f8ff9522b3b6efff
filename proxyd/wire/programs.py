"""Programs and the procedures that proxyd itself answers, makes or guards.

Source: docs/protocol/frames.md, section 4, and docs/protocol/procedures.tsv. Every procedure's name
is in `names.py`; here stand only those that code refers to.
"""

from enum import IntEnum
from typing import Final

VERSION: Final = 1  # of every program


# proxyd's own program on its admin socket, for what libvirt's has no words for. It is no `Program`:
# no daemon and no client of libvirt's ever meets it.
OWN_PROGRAM: Final = 0x70727879


class Program(IntEnum):
    REMOTE = 0x20008086
    QEMU = 0x20008087
    LXC = 0x00068000
    KEEPALIVE = 0x6B656570
    ADMIN = 0x06900690


class Remote(IntEnum):
    CONNECT_OPEN = 1
    CONNECT_CLOSE = 2
    CONNECT_SUPPORTS_FEATURE = 60
    AUTH_LIST = 66
    AUTH_SASL_INIT = 67
    AUTH_SASL_START = 68
    AUTH_SASL_STEP = 69
    AUTH_POLKIT = 70
    CONNECT_GET_LIB_VERSION = 157
    CONNECT_SET_IDENTITY = 419


# Those REMOTE calls that open a stream (docs/protocol/procedures.tsv).
STREAMS: Final = frozenset(
    {
        148,  # DOMAIN_MIGRATE_PREPARE_TUNNEL
        201,  # DOMAIN_OPEN_CONSOLE
        208,  # STORAGE_VOL_UPLOAD
        209,  # STORAGE_VOL_DOWNLOAD
        211,  # DOMAIN_SCREENSHOT
        215,  # DOMAIN_MIGRATE_PREPARE_TUNNEL3
        296,  # DOMAIN_OPEN_CHANNEL
        304,  # DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS, which libvirt's protocol file does not say
    }
)


# REMOTE calls that are answered with descriptors (docs/protocol/descriptors.md, section 2).
RETURNING_DESCRIPTORS: Final = frozenset({343})  # DOMAIN_OPEN_GRAPHICS_FD


class Admin(IntEnum):
    """All that there are (docs/protocol/admin.md, section 2)."""

    CONNECT_OPEN = 1
    CONNECT_CLOSE = 2
    CONNECT_GET_LIB_VERSION = 3
    CONNECT_LIST_SERVERS = 4
    CONNECT_LOOKUP_SERVER = 5
    SERVER_GET_THREADPOOL_PARAMETERS = 6
    SERVER_SET_THREADPOOL_PARAMETERS = 7
    SERVER_LIST_CLIENTS = 8
    SERVER_LOOKUP_CLIENT = 9
    CLIENT_GET_INFO = 10
    CLIENT_CLOSE = 11
    SERVER_GET_CLIENT_LIMITS = 12
    SERVER_SET_CLIENT_LIMITS = 13
    CONNECT_GET_LOGGING_OUTPUTS = 14
    CONNECT_GET_LOGGING_FILTERS = 15
    CONNECT_SET_LOGGING_OUTPUTS = 16
    CONNECT_SET_LOGGING_FILTERS = 17
    SERVER_UPDATE_TLS_FILES = 18
    CONNECT_SET_DAEMON_TIMEOUT = 19
    CONNECT_DAEMON_SHUTDOWN = 20


class Own(IntEnum):
    """All of proxyd's own program (wire/proxyd_program.py)."""

    STATUS = 1
    LIST_CLIENTS = 2
    CLOSE_CLIENT = 3
    RELOAD = 4
    METRICS = 5
    DRAIN = 6
    UPGRADE = 7
    RULES = 8


class Keepalive(IntEnum):
    PING = 1
    PONG = 2


class AuthMethod(IntEnum):
    NONE = 0
    SASL = 1
    POLKIT = 2


class Feature(IntEnum):
    """Of the features that a client may ask for, the one that the RPC layer answers itself."""

    PROGRAM_KEEPALIVE = 10
