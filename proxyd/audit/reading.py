"""Records read back, from files or the journal, and those among them that somebody asks for."""

import gzip
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Final, cast

from proxyd.audit.escape import plain
from proxyd.audit.record import FIELDS, LONGEST, MESSAGE_ID, Value, from_journal
from proxyd.config.globs import matches

_USERS: Final = ("user", "uid", "sasl_user", "certificate", "by_user", "by_uid", "target")
_OBJECTS: Final = ("name", "uuid", "parent", "parent_uuid")
_AGO: Final = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LOOK_EVERY_S: Final = 0.3
# Behind the name of a file that was rotated away.
_ROTATED: Final = re.compile(r"(?:[.-]\d{1,8})(?:\.gz)?")

Fields = Mapping[str, Value]


class Unreadable(Exception):
    """Records cannot be read; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records; None: any. Patterns have `*` and `?`."""

    user: str | None = None
    obj: str | None = None
    daemon: str | None = None
    event: str | None = None
    since: float | None = None
    until: float | None = None

    def admits(self, fields: Fields) -> bool:
        when = at(fields)
        return (
            (self.since is None or when >= self.since)
            and (self.until is None or when < self.until)
            and _any(self.user, fields, _USERS)
            and _any(self.obj, fields, _OBJECTS)
            and _any(self.daemon, fields, ("daemon",))
            and _any(self.event, fields, ("event", "procedure"))
        )


def at(fields: Fields) -> float:
    """When it happened, in seconds since the epoch."""
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(str(fields.get("time", ""))).timestamp()
    return 0.0


def moment(text: str, now: float) -> float:
    """`2026-11-29`, `2026-11-29 12:30`, `12:30`, `today`, `yesterday`, or `90s`, `15m`, `2h`, `3d`,
    `1w` ago; local time where none is named. Raises ValueError."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago["count"]) * _UNITS[ago["unit"]]
    today = (
        datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    )
    if text == "now":
        return now
    if text == "today":
        return today.timestamp()
    if text == "yesterday":
        return (today - timedelta(days=1)).timestamp()
    if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
        text = f"{today.date().isoformat()} {text.zfill(5)}"
    return datetime.fromisoformat(text).astimezone().timestamp()


def of_file(path: str, *, since: float | None, follow: bool) -> Iterator[Fields]:
    """The oldest first. Raises Unreadable."""
    for each in _rotated(path, since):
        with _opened(each) as file:
            yield from _lines(file)
    if not follow:
        if os.path.exists(path):
            with _opened(path) as file:
                yield from _lines(file)
        return
    yield from _followed(path)


def of_journal(*, since: float | None, follow: bool) -> Iterator[Fields]:
    """Raises Unreadable."""
    words = ["journalctl", "--output=json", "--all", "--quiet", f"MESSAGE_ID={MESSAGE_ID}"]
    # A call is recorded when it is over: whoever asks from when it was made asks from then on.
    words += [] if since is None else [f"--since=@{since:.6f}"]
    words += ["--follow", "--no-tail"] if follow else []
    try:
        reading = subprocess.Popen(words, stdout=subprocess.PIPE)
    except OSError as error:
        raise Unreadable(f"cannot run journalctl: {error.strerror}") from error
    with reading:
        assert reading.stdout is not None
        try:
            for line in reading.stdout:
                entry = _object(line)
                if entry is not None:
                    yield from_journal(entry)
        finally:
            reading.terminate()


def _any(pattern: str | None, fields: Fields, names: Sequence[str]) -> bool:
    if pattern is None:
        return True
    # As a record spells it.
    spelled = plain(pattern, FIELDS["name"].longest)
    return any(name in fields and matches(spelled, str(fields[name])) for name in names)


def _rotated(path: str, since: float | None) -> list[str]:
    """Files with the records in front of those in `path`, the oldest first."""
    directory, name = os.path.split(path)
    found = []
    with suppress(OSError):
        for entry in os.scandir(directory or "."):
            behind = entry.name.removeprefix(name)
            if entry.name != name and entry.name.startswith(name) and _ROTATED.fullmatch(behind):
                changed = entry.stat().st_mtime
                if since is None or changed >= since:
                    found.append((changed, entry.path))
    return [each for _, each in sorted(found)]


def _opened(path: str) -> IO[bytes]:
    try:
        return cast(IO[bytes], gzip.open(path)) if path.endswith(".gz") else open(path, "rb")
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error


def _lines(file: IO[bytes]) -> Iterator[Fields]:
    while line := file.readline(2 * LONGEST):
        found = _object(line)
        if found is not None:
            yield _values(found)


def _followed(path: str) -> Iterator[Fields]:
    """For ever, also when the file is renamed and begun anew."""
    while True:
        try:
            file = open(path, "rb")  # noqa: SIM115 (closed below)
        except FileNotFoundError:
            time.sleep(_LOOK_EVERY_S)  # noqa: TID251 (a person looks at it meanwhile)
            continue
        except OSError as error:
            raise Unreadable(f"cannot read {path}: {error.strerror}") from error
        with file:
            rest = b""
            while True:
                gone = _is_another(file, path)
                rest += file.read()
                *whole, rest = rest.split(b"\n")
                for line in whole:
                    found = _object(line)
                    if found is not None:
                        yield _values(found)
                if gone:
                    break
                time.sleep(_LOOK_EVERY_S)  # noqa: TID251


def _is_another(file: IO[bytes], path: str) -> bool:
    try:
        return not os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return True


def _object(line: bytes) -> dict[str, object] | None:
    """None for what is no record: half a line, say, in front of a full disk."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _values(found: dict[str, object]) -> Fields:
    return {name: each for name, each in found.items() if isinstance(each, str | int | float)}


def local_time(fields: Fields) -> str:
    """For people."""
    when = datetime.fromtimestamp(at(fields), UTC).astimezone()
    return when.strftime("%Y-%m-%d %H:%M:%S")
