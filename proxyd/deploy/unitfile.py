"""Fits the shipped unit files to this host: its program, its systemd."""

from typing import Final

# Version of systemd that knows Type=notify-reload, where `systemctl reload` waits until the new
# configuration is in force. An older one takes an unknown Type= for "simple", with a warning.
_NOTIFY_RELOAD_SINCE: Final = 253
_TYPE: Final = (
    '# "proxyd install" makes this notify-reload (without ExecReload=) where systemd is 253 or'
    " newer.\nType=notify\n"
)
_EXEC_RELOAD: Final = "ExecReload=/bin/kill -HUP $MAINPID\n"
_EXEC_START: Final = "ExecStart=/usr/sbin/proxyd "
_PROTECT_HOME: Final = "ProtectHome=yes\n"


def fitted(text: str, *, command: str, systemd: int | None, in_a_home: bool) -> str:
    """A unit file's text for this host.

    `command` is what ExecStart= begins with; `systemd` the version, None where it is not known.
    """
    if _EXEC_START not in text:  # a socket
        return text
    text = text.replace(_EXEC_START, f"ExecStart={command} ")
    if systemd is not None and systemd >= _NOTIFY_RELOAD_SINCE:
        text = text.replace(_TYPE, "Type=notify-reload\n").replace(_EXEC_RELOAD, "")
    if in_a_home:
        text = text.replace(_PROTECT_HOME, "ProtectHome=read-only\n")
    return text
