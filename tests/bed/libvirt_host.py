"""libvirt's own services in a machine: libvirtd as Debian has it, and a modular virtqemud.

Debian 12 ships no units for modular daemons, and the package with libvirtd's would start it on the
host. So these are made here, with what matters of theirs: names, paths, modes, dependencies. Both
are the real libvirtd; to that one the sockets of virtqemud are called as its own are.
"""

from typing import Final

from tests.bed.machine import Machine

DIRECTORY: Final = "/usr/lib/systemd/system"
LOCAL_SUFFIXES: Final = ("", "-ro", "-admin")
HELPERS: Final = ("virtlogd", "virtlockd")

SERVICE: Final = """\
[Unit]
{unit}
[Service]
Type=notify
ExecStart=/usr/sbin/libvirtd --timeout 120 --pid-file /run/{daemon}.pid
ExecReload=/bin/kill -HUP $MAINPID
# Nobody of those whom it asks over the bus is there.
Environment=DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent
KillMode=process
Restart=on-failure
[Install]
WantedBy=multi-user.target
{also}
"""
SOCKET: Final = """\
[Unit]
{unit}
Before={daemon}.service
[Socket]
ListenStream={listen}
FileDescriptorName={name}
Service={daemon}.service
SocketMode={mode}
RemoveOnStop=yes
[Install]
WantedBy=sockets.target
"""
HELPER: Final = """\
[Unit]
Requires={daemon}.socket
Requires={daemon}-admin.socket
[Service]
ExecStart=/usr/sbin/{daemon}
[Install]
Also={daemon}.socket
"""
# QEMU as root and without what the machine has not; the account is compiled into libvirtd.
QEMU_CONF: Final = 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\n'
ACCOUNT: Final = "libvirt-qemu"

LIBVIRTD: Final = ("libvirtd.service", *(f"libvirtd{suffix}.socket" for suffix in LOCAL_SUFFIXES))
NETWORK: Final = ("libvirtd-tcp.socket", "libvirtd-tls.socket")
VIRTQEMUD: Final = (
    "virtqemud.service",
    *(f"virtqemud{suffix}.socket" for suffix in LOCAL_SUFFIXES),
)
HELPER_SOCKETS: Final = tuple(
    f"{helper}{suffix}.socket" for helper in HELPERS for suffix in ("", "-admin")
)


def put_libvirt(machine: Machine) -> None:
    """Install both ways to run libvirt; of it, only the sockets of the helpers are enabled."""
    machine.write("/etc/libvirt/qemu.conf", QEMU_CONF)
    if machine.run("id", ACCOUNT).status != 0:
        machine.run("useradd", "--system", "--user-group", ACCOUNT).succeeded()
    for helper in HELPERS:
        _put(machine, f"{helper}.service", HELPER.format(daemon=helper))
        for suffix in ("", "-admin"):
            _put_socket(machine, helper, suffix, f"/run/libvirt/{helper}{suffix}-sock", helper)
    _put_daemon(
        machine,
        "libvirtd",
        {suffix: _path("libvirt", suffix) for suffix in LOCAL_SUFFIXES}
        | {"-tcp": "16509", "-tls": "16514"},
        unit="Requires=virtlogd.socket\nRequires=virtlockd.socket",
        also="Also=virtlogd.socket\nAlso=virtlockd.socket",
    )
    _put_daemon(
        machine,
        "virtqemud",
        {suffix: _path("virtqemud", suffix) for suffix in LOCAL_SUFFIXES},
        unit="Requires=virtlogd.socket\nConflicts=libvirtd.service\nAfter=libvirtd.service",
    )
    machine.systemctl("daemon-reload")
    machine.systemctl("enable", "--quiet", "--now", *HELPER_SOCKETS)


def _path(name: str, suffix: str) -> str:
    kind = {"": "sock", "-ro": "sock-ro", "-admin": "admin-sock"}[suffix]
    return f"/run/libvirt/{name}-{kind}"


def _put_daemon(
    machine: Machine, daemon: str, listens: dict[str, str], *, unit: str, also: str = ""
) -> None:
    local = [f"{daemon}{suffix}.socket" for suffix in LOCAL_SUFFIXES]
    wants = "".join(f"\nWants={each}" for each in local)
    beside = "".join(f"\nAlso={each}" for each in local[:2])
    text = SERVICE.format(daemon=daemon, unit=unit + wants, also=also + beside)
    _put(machine, f"{daemon}.service", text)
    for suffix, listen in listens.items():
        _put_socket(machine, daemon, suffix, listen, "libvirtd")


def _put_socket(machine: Machine, daemon: str, suffix: str, listen: str, known_as: str) -> None:
    main = f"BindsTo={daemon}.socket\nAfter={daemon}.socket" if suffix else ""
    text = SOCKET.format(
        unit=main,
        daemon=daemon,
        listen=listen,
        name=f"{known_as}{suffix}.socket",
        mode="0600" if suffix == "-admin" or daemon in HELPERS else "0666",
    )
    _put(machine, f"{daemon}{suffix}.socket", text)


def _put(machine: Machine, name: str, text: str) -> None:
    machine.write(f"{DIRECTORY}/{name}", text)
