"""Fits the shipped unit files to this host: its program."""

from typing import Final

_EXEC_RELOAD: Final = "ExecReload=/usr/sbin/proxyd "
_EXEC_START: Final = "ExecStart=/usr/sbin/proxyd "
_PROTECT_HOME: Final = "ProtectHome=yes\n"


def fitted(text: str, *, command: str, in_a_home: bool) -> str:
    """A unit file's text for this host.

    `command` is what ExecStart= and ExecReload= begin with.
    """
    if _EXEC_START not in text:  # a socket
        return text
    text = text.replace(_EXEC_START, f"ExecStart={command} ")
    text = text.replace(_EXEC_RELOAD, f"ExecReload={command} ")
    if in_a_home:
        text = text.replace(_PROTECT_HOME, "ProtectHome=read-only\n")
    return text
