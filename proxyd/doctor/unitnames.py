"""libvirt's daemons and their systemd units (docs/protocol/systemd.md, section 3)."""

from typing import Final

from proxyd.config.addresses import ADMIN_SOCKETS, LEGACY, LEGACY_READONLY

# Every daemon is virt + driver + d. The first group runs guests, the second serves them.
HYPERVISORS: Final = ("qemu", "xen", "lxc", "vbox", "bhyve", "vz", "ch")
SECONDARY: Final = ("interface", "network", "nodedev", "nwfilter", "secret", "storage")

MONOLITHIC: Final = "libvirtd"
PROXY: Final = "virtproxyd"
HYPERVISOR_DAEMONS: Final = tuple(f"virt{driver}d" for driver in HYPERVISORS)
MODULAR: Final = (*HYPERVISOR_DAEMONS, *(f"virt{driver}d" for driver in SECONDARY))
# QEMU's guests need them; no proxy stands before them.
LOG_DAEMON: Final = "virtlogd"
LOCK_DAEMON: Final = "virtlockd"
DAEMONS: Final = (MONOLITHIC, PROXY, *MODULAR, LOG_DAEMON, LOCK_DAEMON)

LOCAL: Final = ("", "-ro", "-admin")
NETWORK: Final = ("-tcp", "-tls")
PORTS: Final = {"-tcp": 16509, "-tls": 16514}
_FILES: Final = {"": LEGACY, "-ro": LEGACY_READONLY, "-admin": ADMIN_SOCKETS[0]}


def suffixes_of(daemon: str) -> tuple[str, ...]:
    """What tells a daemon's socket units apart."""
    if daemon in {MONOLITHIC, PROXY}:
        return (*LOCAL, *NETWORK)
    return ("", "-admin") if daemon in {LOG_DAEMON, LOCK_DAEMON} else LOCAL


def sockets_of(daemon: str) -> tuple[str, ...]:
    """A daemon's socket units; the first is the one that the others depend on."""
    return tuple(f"{daemon}{suffix}.socket" for suffix in suffixes_of(daemon))


def units_of(daemon: str) -> tuple[str, ...]:
    """A daemon's units, the service first."""
    return (f"{daemon}.service", *sockets_of(daemon))


def legacy_paths(runtime_dir: str) -> dict[str, str]:
    """The sockets that libvirtd and virtproxyd both listen on, by the suffix of their units."""
    return {suffix: f"{runtime_dir}/{name}" for suffix, name in _FILES.items()}


ALL_UNITS: Final = tuple(unit for daemon in DAEMONS for unit in units_of(daemon))
