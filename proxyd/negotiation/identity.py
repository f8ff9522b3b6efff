"""What is known of a client, as the parameters that tell a daemon.

Source: docs/protocol/identity.md, section 3.
"""

from dataclasses import dataclass
from typing import Final

from proxyd.wire.params import Param, ParamType

# What libvirt reports of a process that it cannot see, one in a foreign pid namespace
# (docs/protocol/identity.md, section 1).
UNSEEN_PID: Final = -1
UNSEEN_START: Final = 2**64 - 1

_LONGEST_NAME: Final = 500  # in a log line; a subject may have 3000 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIdentity:
    """Who a client is; what does not apply to its transport is None.

    `start_ticks` is the process's start time in clock ticks since boot.
    """

    user_name: str | None = None
    uid: int | None = None
    group_name: str | None = None
    gid: int | None = None
    pid: int | None = None
    start_ticks: int | None = None
    selinux_context: str | None = None
    sasl_user_name: str | None = None
    x509_dname: str | None = None

    def params(self) -> list[Param]:
        """The parameters of CONNECT_SET_IDENTITY, those that are known, in libvirt's order."""
        listed = (
            ("user-name", ParamType.STRING, self.user_name),
            ("unix-user-id", ParamType.ULLONG, self.uid),
            ("group-name", ParamType.STRING, self.group_name),
            ("unix-group-id", ParamType.ULLONG, self.gid),
            ("process-id", ParamType.LLONG, self.pid),
            ("process-time", ParamType.ULLONG, self.start_ticks),
            ("sasl-user-name", ParamType.STRING, self.sasl_user_name),
            ("x509-distinguished-name", ParamType.STRING, self.x509_dname),
            ("selinux-context", ParamType.STRING, self.selinux_context),
        )
        return [Param(field, kind, value) for field, kind, value in listed if value is not None]

    def __str__(self) -> str:
        """For log lines: `uid 1000 (fred) pid 4242`."""
        parts = []
        if self.uid is not None:
            parts.append(f"uid {self.uid} ({self.user_name or 'no name'})")
        if self.pid is not None:
            parts.append(f"pid {self.pid}")
        if self.sasl_user_name is not None:
            parts.append(f"SASL user {_beginning(self.sasl_user_name)!r}")
        if self.x509_dname is not None:
            parts.append(f"x509 {_beginning(self.x509_dname)!r}")
        return " ".join(parts) or "anonymous"


def _beginning(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
