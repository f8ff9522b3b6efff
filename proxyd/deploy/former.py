"""Who had the names of our units before us, so that an uninstallation can give them back.

libvirt's own virtproxyd has the same. Ours lie where systemd prefers them, and so whether they are
enabled and run is said of ours then; when they go, the others are as they were.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from proxyd.deploy.host import Host
from proxyd.deploy.layout import SYSTEM_UNITS
from proxyd.deploy.manifest import below

_UNITS_OF_PACKAGES: Final = ("/usr/lib/systemd/system", "/lib/systemd/system")
_LINKS: Final = "/etc/systemd/system"
_OF_LIBVIRTD: Final = ("libvirtd.socket", "libvirtd.service")

Former = Mapping[str, Sequence[str] | Mapping[str, str]]


def former(root: Path, host: Host) -> Former:
    """What a package's units of these names are like now; nothing if there are none."""
    if not any(_has(root, directory, SYSTEM_UNITS[0]) for directory in _UNITS_OF_PACKAGES):
        return {}
    active = [name for name in SYSTEM_UNITS if host.booted and _is(host, "is-active", name)]
    return {"links": dict(_links(root)), "active": active}


def giving_back(before: Former) -> Iterator[Sequence[str]]:
    """The commands that do, once our files are gone."""
    links, active = before.get("links", {}), before.get("active", [])
    assert isinstance(links, Mapping)
    for path, target in links.items():
        yield ("mkdir", "-p", str(Path(path).parent))
        yield ("ln", "-sfn", target, path)
    yield ("systemctl", "daemon-reload")
    # A service is started by its sockets, where those ran.
    sockets = [name for name in active if name.endswith(".socket")]
    if sockets or active:
        yield ("systemctl", "start", *(sockets or active))


def gave_way(host: Host) -> bool:
    """Whether libvirtd has their addresses by now: then nobody is to take them from it."""
    return any(
        _is(host, "is-active", name) or _is(host, "is-enabled", name) for name in _OF_LIBVIRTD
    )


def _is(host: Host, question: str, name: str) -> bool:
    return host.run(("systemctl", question, "--quiet", name)) is None


def _has(root: Path, directory: str, name: str) -> bool:
    return os.path.lexists(below(root, f"{directory}/{name}"))


def _links(root: Path) -> Iterator[tuple[str, str]]:
    place = below(root, _LINKS)
    for directory in (place, *sorted(place.glob("*.wants")), *sorted(place.glob("*.requires"))):
        for name in SYSTEM_UNITS:
            if (directory / name).is_symlink():
                path = "/" + str((directory / name).relative_to(root))
                yield path, os.readlink(directory / name)
