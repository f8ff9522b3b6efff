"""One log message as a value, and the line of text that it becomes.

Source: docs/protocol/logging.md, section 2.

A message often quotes what a peer sent: a name, a distinguished name, an error text. So nothing
that ends or hides a line reaches an output raw: a peer that puts a line feed and something like a
time stamp into its name must not be able to write a line of its own. Nor a long one: a text is
cut in its middle, so that what was quoted goes and what is said of it stays.
"""

import logging
import threading
import time
from dataclasses import dataclass
from traceback import TracebackException
from typing import Final

from proxyd.config.logstrings import LogLevel
from proxyd.config.quoting import one_line, shortened

# What the standard library's levels are called here. Between two levels the lower one counts;
# CRITICAL has no libvirt word and is an error.
STDLIB_LEVEL: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}

# The first digit of a severity of RFC 5424; syslog and the journal use the same.
SEVERITY: Final = {
    LogLevel.DEBUG: 7,
    LogLevel.INFO: 6,
    LogLevel.WARNING: 4,
    LogLevel.ERROR: 3,
}

_LONGEST_TEXT: Final = 4096  # characters; a URI, the longest that a client may name, has as many
_TRACE_INDENT: Final = "    "


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A message on its way from the thread that logged it to the outputs."""

    when: float  # seconds since the epoch
    tid: int  # the kernel's number of the thread that logged
    level: LogLevel
    category: str
    text: str  # as it was given: the outputs escape it
    function: str | None = None
    file: str = ""
    line: int = 0
    trace: TracebackException | None = None
    stack: str | None = None
    libvirt_domain: int | None = None
    libvirt_code: int | None = None


def level_of(levelno: int) -> LogLevel:
    """The libvirt level of a level of the standard library."""
    if levelno >= logging.ERROR:
        return LogLevel.ERROR
    if levelno >= logging.WARNING:
        return LogLevel.WARNING
    return LogLevel.INFO if levelno >= logging.INFO else LogLevel.DEBUG


def entry_of(record: logging.LogRecord) -> LogEntry:
    """Take from a record what the outputs need, in the thread that logged it.

    Arguments are formatted here, because they may change before the writer comes to them. The
    source lines of a traceback are not read here, because that would be disk work on the caller.
    An error may carry its libvirt numbers: `extra={"libvirt_domain": 7, "libvirt_code": 38}`.
    """
    trace = None
    if record.exc_info and record.exc_info[1] is not None:
        kind, error, frames = record.exc_info
        trace = TracebackException(kind, error, frames, lookup_lines=False)
    return LogEntry(
        when=record.created,
        tid=threading.get_native_id(),
        level=level_of(record.levelno),
        category=record.name,
        text=_text_of(record),
        # "(unknown function)" is what the standard library says when it cannot tell.
        function=None if record.funcName in (None, "(unknown function)") else record.funcName,
        file=record.pathname,
        line=record.lineno,
        trace=trace,
        stack=record.stack_info,
        libvirt_domain=getattr(record, "libvirt_domain", None),
        libvirt_code=getattr(record, "libvirt_code", None),
    )


def _text_of(record: logging.LogRecord) -> str:
    try:
        return shortened(record.getMessage(), _LONGEST_TEXT)
    except Exception as error:  # noqa: BLE001 (arguments are any objects: a log call never raises)
        shown = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{shown} (this message cannot be made: {type(error).__name__})"


def stamp(when: float) -> str:
    """UTC with milliseconds: `2026-11-21 02:43:06.563+0000`."""
    seconds, milliseconds = divmod(int(when * 1000), 1000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}+0000"


def head(entry: LogEntry) -> str:
    """`TID: level : function:line : `; without a function its part is missing."""
    place = "" if entry.function is None else f"{entry.function}:{entry.line} : "
    return f"{entry.tid}: {entry.level.name.lower()} : {place}"


def message(entry: LogEntry) -> str:
    """The message alone, one safe line."""
    return one_line(entry.text)


def trace_lines(entry: LogEntry) -> list[str]:
    """The lines of the traceback and of the stack, safe and indented.

    They are indented because an exception quotes peers too: no line of one can look like the
    start of a message.
    """
    chunks = list(entry.trace.format()) if entry.trace else []
    if entry.stack:
        chunks.append(entry.stack)
    lines = [line for chunk in chunks for line in chunk.split("\n") if line]
    return [_TRACE_INDENT + one_line(line) for line in lines]


def rendered(entry: LogEntry) -> bytes:
    """The bytes for a file or a terminal, with the line feed."""
    first = f"{stamp(entry.when)}: {head(entry)}{message(entry)}"
    return ("\n".join([first, *trace_lines(entry)]) + "\n").encode("utf-8", "backslashreplace")
