"""Which files belong to proxyd as a service, and where each has its place."""

import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNIT_SUFFIXES: Final = (".service", ".socket")
SYSTEM_UNITS: Final = (
    "virtproxyd.service",
    "virtproxyd.socket",
    "virtproxyd-ro.socket",
    "virtproxyd-admin.socket",
    "virtproxyd-tcp.socket",
    "virtproxyd-tls.socket",
)
SYSUSERS: Final = "lib/sysusers.d/proxyd.conf"
TMPFILES: Final = "lib/tmpfiles.d/proxyd.conf"

_POLICY: Final = "polkit/proxyd.libvirt.unix.policy"
_RULES: Final = "polkit/50-proxyd-libvirt-group.rules"
# polkit before version 124 looks for actions in no other place, whatever the prefix.
_POLKIT_ACTIONS: Final = "usr/share/polkit-1/actions"
_POLKIT_RULES: Final = ("etc/polkit-1/rules.d", "usr/share/polkit-1/rules.d")
_ACTION: Final = "org.libvirt.unix.manage"


class ShippedMissing(Exception):
    """This copy of proxyd came without its unit files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file that a host gets. `path` is absolute, as it is once the host runs.

    `beside` is where it goes when somebody else's file is at its path.
    """

    path: str
    content: bytes
    mode: int = 0o644
    beside: str = ""

    @property
    def administrators(self) -> bool:
        """Whether files of that place are the administrator's to change."""
        return self.path.startswith("/etc/")


def shipped_directory() -> Path:
    """`units` of a checkout, or what a wheel has put into share. Raises ShippedMissing."""
    checkout = Path(__file__).parents[2] / "units"
    installed = Path(sysconfig.get_path("data")) / "share/proxyd/units"
    for directory in (checkout, installed):
        if (directory / "virtproxyd.service").is_file():
            return directory
    raise ShippedMissing(
        f"there are no unit files, neither in {checkout} nor in {installed}: install proxyd anew,"
        " from a wheel or a checkout"
    )


def items(
    shipped: Path,
    *,
    units: Mapping[str, str],
    generated: Mapping[str, str],
    root: Path,
    prefix: str,
) -> list[Item]:
    """All files but those that the host below `root` has from libvirt already.

    `units` is what becomes of unit files, by their name in `shipped`; `generated` has the texts
    that are made, by path below the prefix.
    """
    return [
        *(_unit(name, text, prefix) for name, text in units.items()),
        *(Item(path=f"{prefix}/{path}", content=text.encode()) for path, text in generated.items()),
        *_copied(shipped, root, prefix),
        *_polkit(shipped, root),
    ]


def unit_names(shipped: Path) -> list[str]:
    """The unit files' names below `shipped`, those for users as `user/NAME`."""
    found = [*shipped.iterdir(), *(shipped / "user").iterdir()]
    return sorted(str(p.relative_to(shipped)) for p in found if p.suffix in UNIT_SUFFIXES)


def _unit(name: str, text: str, prefix: str) -> Item:
    directory = "systemd" if name.startswith("user/") else "systemd/system"
    return Item(path=f"{prefix}/lib/{directory}/{name}", content=text.encode())


def _copied(shipped: Path, root: Path, prefix: str) -> Iterator[Item]:
    yield Item(path=f"{prefix}/{SYSUSERS}", content=(shipped / "sysusers.conf").read_bytes())
    yield Item(path=f"{prefix}/{TMPFILES}", content=(shipped / "tmpfiles.conf").read_bytes())
    yield Item(
        path="/etc/logrotate.d/virtproxyd",
        content=(shipped / "logrotate.conf").read_bytes(),
        # logrotate reads every file of its directory but those with certain endings.
        beside="/etc/logrotate.d/virtproxyd.proxyd-new.disabled",
    )
    yield Item(
        path="/etc/libvirt/virtproxyd.conf", content=(shipped / "virtproxyd.conf").read_bytes()
    )
    yield Item(
        path=f"{_environment_directory(root)}/virtproxyd",
        content=(shipped / "environment").read_bytes(),
    )


def _environment_directory(root: Path) -> str:
    """Debian and its kin have no sysconfig; others may have both, and then keep services there."""
    known = (directory / "etc/sysconfig" for directory in (root, Path("/")))
    return "/etc/sysconfig" if any(each.is_dir() for each in known) else "/etc/default"


def _polkit(shipped: Path, root: Path) -> Iterator[Item]:
    """libvirt's packages bring the same; of two files that declare one action either may count."""
    policy, rules = Path(_POLICY), Path(_RULES)
    if not _speaks_of_libvirt(root / _POLKIT_ACTIONS, but=policy.name):
        yield Item(
            path=f"/{_POLKIT_ACTIONS}/{policy.name}", content=(shipped / policy).read_bytes()
        )
    if not any(_speaks_of_libvirt(root / each, but=rules.name) for each in _POLKIT_RULES):
        yield Item(path=f"/{_POLKIT_RULES[0]}/{rules.name}", content=(shipped / rules).read_bytes())


def _speaks_of_libvirt(directory: Path, *, but: str) -> bool:
    if not directory.is_dir():
        return False
    suffix = Path(but).suffix
    return any(
        each.name != but and each.suffix == suffix and _ACTION.encode() in each.read_bytes()
        for each in directory.iterdir()
        if each.is_file()
    )
