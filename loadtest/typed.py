"""What people type for a target, as the text that `targets` reads: NAME=KIND:ADDRESS,key=value…

Besides that text itself they type KIND:ADDRESS, the path of a socket, or the URI that virsh takes.
A name is then made of the address. Nothing is opened here; whether a socket is there is looked at.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode

from .failures import UsageError

WAYS: Final = (
    "a socket's path, unix:PATH, KIND:HOST:PORT (KIND is tcp, tls, gssapi or scram+tls), or a"
    " URI as for virsh"
)
EXAMPLES: Final = "/run/libvirt/virtqemud-sock /run/libvirt/libvirt-sock"

# Who serves a scheme, and so how its socket is called.
DAEMONS: Final = {
    "qemu": "virtqemud",
    "xen": "virtxend",
    "lxc": "virtlxcd",
    "ch": "virtchd",
    "vbox": "virtvboxd",
    "vz": "virtvzd",
    "bhyve": "virtbhyved",
    "storage": "virtstoraged",
    "network": "virtnetworkd",
    "interface": "virtinterfaced",
    "nodedev": "virtnodedevd",
    "nwfilter": "virtnwfilterd",
    "secret": "virtsecretd",
}
_LEGACY: Final = "libvirt"
_NAMED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_URI: Final = re.compile(
    r"(?P<driver>[a-z]+)(\+(?P<transport>[a-z0-9]+))?://(?P<host>[^/?]*)(?P<path>[^?]*)"
    r"(\?(?P<query>.*))?"
)
_PORTS: Final = {"tcp": 16509, "tls": 16514}
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Files:
    """What URIs said about certificates; for all targets of a run."""

    pkipath: str | None = None
    unverified: bool = False


def spelled_out(texts: Iterable[str]) -> tuple[list[str], Files]:
    """Each with its name and kind. Raises UsageError, which says what to type."""
    found: list[str] = []
    names: set[str] = set()
    files = Files()
    for text in texts:
        named = _NAMED.fullmatch(text)
        name, rest = (named[1], named[2]) if named else ("", text)
        place, comma, more = rest.partition(",")
        address, own = _address(place, text)
        files = _both(files, own)
        if not named:
            name = _free(_name_of(address), names)
        names.add(name)
        found.append(f"{name}={address}{comma}{more}")
    return found, files


def _address(place: str, whole: str) -> tuple[str, Files]:
    """KIND:ADDRESS, perhaps with ,uri=URI behind it."""
    if place.startswith("/"):
        return f"unix:{place}", Files()
    uri = _URI.fullmatch(place)
    if uri is not None:
        return _of_uri(uri, place)
    if not re.match(r"[a-z+]+:", place):
        raise UsageError(f"{whole!r} is no target; type {WAYS}")
    return place, Files()


def _of_uri(uri: re.Match[str], text: str) -> tuple[str, Files]:
    asked = dict(parse_qsl(uri["query"] or "", keep_blank_values=True))
    socket, mode = asked.pop("socket", ""), asked.pop("mode", "auto")
    files = Files(asked.pop("pkipath", None), asked.pop("no_verify", "0") == "1")
    inner = f"{uri['driver']}://{uri['path']}" + (f"?{urlencode(asked)}" if asked else "")
    transport = uri["transport"] or ("tls" if uri["host"] else "unix")
    if transport == "unix":
        return f"unix:{socket or _usual_socket(uri, mode)},uri={inner}", files
    if transport not in _PORTS:
        raise UsageError(
            f"{text}: {transport} is not measured; there are unix, tcp and tls, and without a"
            " transport unix, or tls where there is a host"
        )
    host = uri["host"].rpartition("@")[2]
    if not re.search(r":[0-9]+$", host):
        host = f"{host}:{_PORTS[transport]}"
    return f"{transport}:{host},uri={inner}", files


def _usual_socket(uri: re.Match[str], mode: str) -> str:
    """Where libvirt's own client would connect to, for its `mode` of auto, direct or legacy."""
    if uri["path"].rstrip("/").endswith("/session"):
        above = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    else:
        above = "/run"
    daemon = DAEMONS.get(uri["driver"], _LEGACY)
    direct, legacy = (f"{above}/libvirt/{each}-sock" for each in (daemon, _LEGACY))
    if mode not in {"auto", "direct", "legacy"}:
        raise UsageError(f"mode={mode}: libvirt knows auto, direct and legacy")
    return direct if mode == "direct" or (mode == "auto" and Path(direct).exists()) else legacy


def _both(one: Files, other: Files) -> Files:
    if one.pkipath and other.pkipath and one.pkipath != other.pkipath:
        raise UsageError(
            f"pkipath={one.pkipath} and pkipath={other.pkipath}: all targets of a run show the same"
            " certificate"
        )
    return Files(one.pkipath or other.pkipath, one.unverified or other.unverified)


def _name_of(address: str) -> str:
    kind, _, place = address.partition(",")[0].partition(":")
    name = re.sub(r"-sock(-ro)?$", r"\1", os.path.basename(place)) if kind == "unix" else kind
    return _NO_NAME.sub("-", name).strip("-._") or "target"


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
