"""The error that a reply carries, and one constructor for each that proxyd reports.

Source: docs/protocol/errors.md.
The texts are proxyd's own where a client does not look at them; `virsh` prints `message`.
"""

from enum import IntEnum
from typing import Final, NamedTuple

from proxyd.wire.frame import Frame, Header, Status
from proxyd.wire.xdr import Reader, Writer

_LEVEL_ERROR: Final = 2
_UUID_SIZE: Final = 16


class ErrorCode(IntEnum):
    INTERNAL_ERROR = 1
    NO_SUPPORT = 3
    NO_CONNECT = 5
    INVALID_ARG = 8
    OPERATION_DENIED = 29
    SYSTEM_ERROR = 38
    RPC = 39
    AUTH_FAILED = 45
    CONFIG_UNSUPPORTED = 67
    ARGUMENT_UNSUPPORTED = 74
    AUTH_CANCELLED = 79
    OPERATION_UNSUPPORTED = 84
    ACCESS_DENIED = 88
    DBUS_SERVICE = 89
    AUTH_UNAVAILABLE = 94
    NO_SERVER = 95
    NO_CLIENT = 96


class Domain(IntEnum):
    NONE = 0
    RPC = 7
    REMOTE = 13
    URI = 45
    DBUS = 47
    IDENTITY = 53
    ACCESS = 55
    POLKIT = 60
    ADMIN = 62


# What libvirt puts in front of the detail, by code (docs/protocol/errors.md, section 3).
_PREFIX: Final[dict[int, str]] = {
    ErrorCode.INTERNAL_ERROR: "internal error: ",
    ErrorCode.NO_SUPPORT: "this function is not supported by the connection driver: ",
    ErrorCode.NO_CONNECT: "no connection driver available for ",
    ErrorCode.INVALID_ARG: "invalid argument: ",
    ErrorCode.OPERATION_DENIED: "operation forbidden: ",
    ErrorCode.SYSTEM_ERROR: "",
    ErrorCode.RPC: "",
    ErrorCode.AUTH_FAILED: "authentication failed: ",
    ErrorCode.CONFIG_UNSUPPORTED: "unsupported configuration: ",
    ErrorCode.ARGUMENT_UNSUPPORTED: "argument unsupported: ",
    ErrorCode.AUTH_CANCELLED: "authentication cancelled: ",
    ErrorCode.OPERATION_UNSUPPORTED: "Operation not supported: ",
    ErrorCode.ACCESS_DENIED: "access denied: ",
    ErrorCode.DBUS_SERVICE: "error from service: ",
    ErrorCode.AUTH_UNAVAILABLE: "authentication unavailable: ",
    ErrorCode.NO_SERVER: "Server not found: ",
    ErrorCode.NO_CLIENT: "Client not found: ",
}


class Failure(NamedTuple):
    """An error body. `int1` is the errno of a system error.

    A daemon's own goes on as it came, but for the objects that libvirt leaves out anyway.
    """

    code: int
    domain: int
    message: str
    str1: str | None = None
    str2: str | None = None
    int1: int = -1
    int2: int = -1
    str3: str | None = None
    level: int = _LEVEL_ERROR

    def pack(self) -> bytes:
        out = Writer().i32(self.code).i32(self.domain).optional_string(self.message)
        out.i32(self.level).u32(0)  # no domain object
        out.optional_string(self.str1).optional_string(self.str2).optional_string(self.str3)
        return out.i32(self.int1).i32(self.int2).u32(0).take()  # no network object

    @classmethod
    def unpack(cls, payload: bytes) -> "Failure":
        """A body as a daemon sends it; raises MalformedFrame."""
        reader = Reader(payload)
        code, domain = reader.i32(), reader.i32()
        message = reader.optional(reader.string) or ""
        level = reader.i32()
        reader.optional(lambda: (reader.string(), reader.fixed_opaque(_UUID_SIZE), reader.i32()))
        str1, str2, str3 = (reader.optional(reader.string) for _ in range(3))
        int1, int2 = reader.i32(), reader.i32()
        reader.optional(lambda: (reader.string(), reader.fixed_opaque(_UUID_SIZE)))
        return cls(code, domain, message, str1, str2, int1, int2, str3, level)

    def reply_to(self, call: Header) -> Frame:
        return Frame(call.replied(Status.ERROR), self.pack())


def _ordinary(code: ErrorCode, domain: Domain, detail: str) -> Failure:
    prefix = _PREFIX[code]
    str1 = f"{prefix}%1$s" if prefix else "%s"
    return Failure(code, domain, prefix + detail, str1, detail)


def system_error(errno: int, text: str, domain: Domain = Domain.RPC) -> Failure:
    """A failed system call, with everything the reader should know already in `text`."""
    return Failure(ErrorCode.SYSTEM_ERROR, domain, text, "%s", text, int1=errno)


def authentication_required() -> Failure:
    # Deliberately 39 and not 45, and to the letter: docs/protocol/errors.md, section 5.
    return _ordinary(ErrorCode.RPC, Domain.RPC, "authentication required")


def authentication_failed(detail: str = "authentication failed") -> Failure:
    return _ordinary(ErrorCode.AUTH_FAILED, Domain.RPC, detail)


def not_served(way: str) -> Failure:
    """Of a way in that is broken; what is broken is not for whoever comes by it."""
    return authentication_failed(
        f"clients by {way} are not served at present (on that host, proxyd status says why)"
    )


def polkit_denied(action: str) -> Failure:
    detail = (
        f"polkit does not let this user do {action}: add the user to group libvirt or write a"
        f" polkit rule for {action}"
    )
    return _ordinary(ErrorCode.AUTH_FAILED, Domain.POLKIT, detail)


def polkit_cannot_tell_who(detail: str) -> Failure:
    return _ordinary(ErrorCode.AUTH_FAILED, Domain.POLKIT, detail)


def polkit_wants_an_agent(action: str) -> Failure:
    # Upon this code and this domain virsh starts pkttyagent and tries again.
    detail = (
        f"polkit wants to ask for a password before it allows {action}, and nobody is there to"
        " ask: start a polkit agent (pkttyagent) or add the user to group libvirt"
    )
    return _ordinary(ErrorCode.AUTH_UNAVAILABLE, Domain.POLKIT, detail)


def polkit_dismissed(action: str) -> Failure:
    detail = (
        f"the user was asked for a password before {action} and dismissed it: connect again and"
        " give it, or add the user to group libvirt"
    )
    return _ordinary(ErrorCode.AUTH_CANCELLED, Domain.POLKIT, detail)


def bus_unreachable(detail: str) -> Failure:
    return _ordinary(ErrorCode.INTERNAL_ERROR, Domain.DBUS, detail)


def bus_call_failed(detail: str) -> Failure:
    return _ordinary(ErrorCode.DBUS_SERVICE, Domain.DBUS, detail)


def too_many_clients(whose: str, count: int) -> Failure:
    detail = f"{count} clients of {whose} are connected already (proxyd_max_clients_per_peer)"
    return _ordinary(ErrorCode.RPC, Domain.RPC, f"Too many active clients: {detail}")


def too_many_a_second(whose: str, a_second: float) -> Failure:
    detail = f"{whose} begins more than {a_second:g} a second (proxyd_connection_rate): try again"
    return _ordinary(ErrorCode.RPC, Domain.RPC, f"Too many connections: {detail} in a moment")


def no_place(count: int) -> Failure:
    detail = f"{count} are connected, and others wait already (max_clients): try again later"
    return _ordinary(ErrorCode.RPC, Domain.RPC, f"Too many active clients: {detail}")


def draining() -> Failure:
    """Of a daemon that lets in nobody new; whoever is told may be a stranger."""
    detail = (
        "this host is being taken out of service and lets in nobody new: use another host, or try"
        " again later (there, proxyd drain --undo lets in again)"
    )
    return _ordinary(ErrorCode.OPERATION_DENIED, Domain.RPC, detail)


def passed_what_hangs(whose: str) -> Failure:
    detail = (
        f"a descriptor that {whose} has passed cannot be closed, because its file system does not"
        " answer: end that file system's server or unmount it (umount -f), and connect again"
    )
    return _ordinary(ErrorCode.OPERATION_DENIED, Domain.RPC, detail)


def unknown_program(program: int, version: int) -> Failure:
    # Both in signed decimal, as libvirt prints them.
    return _ordinary(
        ErrorCode.RPC,
        Domain.RPC,
        f"Cannot find program {_signed(program)} version {_signed(version)}",
    )


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def unknown_procedure(procedure: int) -> Failure:
    # Clients test for this very beginning: docs/protocol/errors.md, section 4.
    return _ordinary(ErrorCode.RPC, Domain.RPC, f"unknown procedure: {procedure}")


def unexpected_status(status: int) -> Failure:
    return _ordinary(ErrorCode.RPC, Domain.RPC, f"Unexpected message status {status}")


def undecodable(detail: str) -> Failure:
    return _ordinary(ErrorCode.RPC, Domain.RPC, f"Unable to decode message payload: {detail}")


def not_open() -> Failure:
    return _ordinary(ErrorCode.INTERNAL_ERROR, Domain.RPC, "connection not open")


def already_open() -> Failure:
    return _ordinary(ErrorCode.INTERNAL_ERROR, Domain.RPC, "connection already open")


def internal(detail: str) -> Failure:
    return _ordinary(ErrorCode.INTERNAL_ERROR, Domain.RPC, detail)


def no_driver(detail: str) -> Failure:
    return _ordinary(ErrorCode.NO_CONNECT, Domain.NONE, detail)


def bad_uri(detail: str) -> Failure:
    return _ordinary(ErrorCode.INTERNAL_ERROR, Domain.URI, detail)


def uri_typo(detail: str) -> Failure:
    return _ordinary(ErrorCode.INTERNAL_ERROR, Domain.NONE, detail)


def uri_not_allowed(detail: str) -> Failure:
    return _ordinary(ErrorCode.INVALID_ARG, Domain.REMOTE, detail)


def driver_not_served(detail: str) -> Failure:
    return _ordinary(ErrorCode.CONFIG_UNSUPPORTED, Domain.NONE, detail)


def too_many_sessions(detail: str) -> Failure:
    """To whom a rule allows as many as are open."""
    return _ordinary(ErrorCode.OPERATION_DENIED, Domain.REMOTE, detail)


def identity_is_fixed() -> Failure:
    """What a client's own CONNECT_SET_IDENTITY gets: proxyd has told the daemon who it is."""
    return _ordinary(
        ErrorCode.ACCESS_DENIED,
        Domain.REMOTE,
        "the identity of this connection was set by the proxy and cannot be replaced",
    )


def access_denied(what: str) -> Failure:
    """What somebody gets whom the rules do not let do something: `what`, as "open URI"."""
    detail = f"'proxyd' denied access: its rules do not let this client {what}"
    return _ordinary(ErrorCode.ACCESS_DENIED, Domain.ACCESS, detail)


def not_recorded() -> Failure:
    """What a change gets that has to be recorded while that is not possible."""
    return _ordinary(
        ErrorCode.ACCESS_DENIED,
        Domain.REMOTE,
        "the proxy's audit log cannot be written and proxyd_audit_required is set, so nothing may"
        " be changed now; reading goes on",
    )


def no_server(detail: str, domain: Domain) -> Failure:
    return _ordinary(ErrorCode.NO_SERVER, domain, detail)


def no_client(detail: str, domain: Domain) -> Failure:
    return _ordinary(ErrorCode.NO_CLIENT, domain, detail)


def unsupported_flags(flags: int, procedure: str) -> Failure:
    # The one kind of error without a prefix: docs/protocol/errors.md, section 2.
    text = f"unsupported flags ({flags:#x}) in function {procedure}"
    return Failure(ErrorCode.INVALID_ARG, Domain.ADMIN, text, procedure, "flags", int1=0, int2=0)


def unknown_parameter(detail: str) -> Failure:
    return _ordinary(ErrorCode.ARGUMENT_UNSUPPORTED, Domain.NONE, detail)


def invalid_argument(detail: str, domain: Domain = Domain.NONE) -> Failure:
    return _ordinary(ErrorCode.INVALID_ARG, domain, detail)


def cannot_be_changed(detail: str) -> Failure:
    return _ordinary(ErrorCode.OPERATION_UNSUPPORTED, Domain.ADMIN, detail)
