"""A real browser without a window and without a network: what it makes of a page.

Debian's chromium, by its command line alone: it prints the document as its scripts left it, and
takes pictures. Everything that it says on a page's console, and each address that it asks for, is
kept, because a page that stands alone asks for nothing.
"""

import json
import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bed.command import SYSTEM_PATH, Finished, run_to_end

_DEADLINE_S: Final = 60.0
_NO_PAGE: Final = "not an origin"
# --no-sandbox: root may not have one. The rest: nothing of its own on the network or on disk.
_QUIET: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
# Of blink's settings: 0 is dark, 1 light.
_DARK: Final = "--blink-settings=preferredColorScheme=0"


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of opening a page."""

    dom: str  # as markup, after its scripts
    console: list[str]  # errors, refusals of its policy, and what scripts say
    requests: list[str]  # addresses off this machine that the page wanted something from


def visit(page: Path, directory: Path) -> Visit:
    """Opens a file; what the browser keeps goes below `directory`."""
    log = directory / "net.json"
    done = _chromium(page, directory, "--dump-dom", f"--log-net-log={log}")
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Visit(done.stdout, console, _requests(log))


def screenshot(
    page: Path, directory: Path, *, width: int = 1280, height: int = 1600, dark: bool = False
) -> "Picture":
    """What of a file can be seen in a window of that size."""
    png = directory / "screenshot.png"
    flags = [f"--screenshot={png}", f"--window-size={width},{height}", *([_DARK] if dark else [])]
    _chromium(page, directory, *flags)
    return _decoded(png.read_bytes())


@dataclass(frozen=True, slots=True)
class Picture:
    width: int
    rows: list[bytes]  # red, green, blue of each pixel

    def count(self, colour: str) -> int:
        """How many pixels are of exactly this one, `#rrggbb`."""
        wanted = bytes.fromhex(colour.removeprefix("#"))
        return sum(row[at : at + 3] == wanted for row in self.rows for at in range(0, len(row), 3))


def _chromium(page: Path, directory: Path, *flags: str) -> Finished:
    if shutil.which("chromium", path=SYSTEM_PATH) is None:
        raise RuntimeError("missing: apt-get install chromium")
    profile = directory / f"profile-{os.urandom(4).hex()}"
    # In a network of its own, which leads nowhere.
    command = ["unshare", "--net", "chromium", *_QUIET, f"--user-data-dir={profile}", *flags]
    home = {"HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    done = run_to_end([*command, page.as_uri()], deadline_s=_DEADLINE_S, environment=home)
    done.succeeded()
    return done


def _requests(log: Path) -> list[str]:
    """Without those of the browser itself, which asks for updates whatever its flags say."""
    document = json.loads(log.read_text())
    kind = document["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    started = [event.get("params", {}) for event in document["events"] if event["type"] == kind]
    return [
        params["url"]
        for params in started
        if params.get("initiator", _NO_PAGE) != _NO_PAGE and "url" in params
    ]


def _decoded(png: bytes) -> Picture:
    """PNG with 8 bits of red, green and blue, as chromium writes it (RFC 2083)."""
    at, packed = 8, b""
    width = channels = 0
    while at < len(png):
        (length,), name = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        chunk = png[at + 8 : at + 8 + length]
        if name == b"IHDR":
            width, _, depth, colour = struct.unpack(">IIBB", chunk[:10])
            channels = {2: 3, 6: 4}[colour]
            assert depth == 8
        elif name == b"IDAT":
            packed += chunk
        at += 12 + length
    raw = zlib.decompress(packed)
    rows: list[bytes] = []
    above = bytes(width * channels)
    for start in range(0, len(raw), width * channels + 1):
        row = _unfiltered(
            raw[start], raw[start + 1 : start + 1 + width * channels], above, channels
        )
        above = row
        rows.append(row if channels == 3 else _without_alpha(row))
    return Picture(width, rows)


def _without_alpha(row: bytes) -> bytes:
    made = bytearray(len(row) // 4 * 3)
    for channel in range(3):
        made[channel::3] = row[channel::4]
    return bytes(made)


def _unfiltered(kind: int, row: bytes, above: bytes, step: int) -> bytes:
    if kind == 0:
        return row
    made = bytearray(row)
    for at in range(len(made)):
        left = made[at - step] if at >= step else 0
        corner = above[at - step] if at >= step else 0
        match kind:
            case 1:
                guess = left
            case 2:
                guess = above[at]
            case 3:
                guess = (left + above[at]) // 2
            case _:
                guess = _paeth(left, above[at], corner)
        made[at] = (made[at] + guess) & 0xFF
    return bytes(made)


def _paeth(left: int, above: int, corner: int) -> int:
    near = left + above - corner
    return min((left, above, corner), key=lambda one: abs(near - one))
