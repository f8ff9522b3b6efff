"""A machine on which an administrator has installed proxyd: in /opt/proxyd, and as a service."""

import sys
import sysconfig
from pathlib import Path
from typing import Final

from tests.bed.machine import CHECKOUT, ENVIRONMENT, PYTHON, Machine

HOME: Final = "/opt/proxyd"
LOCAL: Final = "virtproxyd{,-ro,-admin}.socket"  # for bash, as the documentation writes it
UNITS: Final = (
    "virtproxyd.service",
    "virtproxyd.socket",
    "virtproxyd-ro.socket",
    "virtproxyd-admin.socket",
    "virtproxyd-tcp.socket",
    "virtproxyd-tls.socket",
)
LEGACY: Final = "qemu+unix:///system?mode=legacy"  # by libvirt-sock, whatever else there is

# What pip would write.
COMMAND: Final = f"""#!{HOME}/bin/python
import sys
from proxyd.cli.main import main
sys.exit(main())
"""


def install_proxyd(machine: Machine) -> str:
    """Have it installed by its own command, and return what that said. Nothing is enabled."""
    machine.run(str(PYTHON), "-m", "venv", "--without-pip", HOME).succeeded()
    # The packages are those of the tests' own environment.
    packages = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    machine.write(f"{HOME}/{packages}/checkout.pth", f"{CHECKOUT}\n{ENVIRONMENT / packages}\n")
    machine.write(f"{HOME}/bin/proxyd", COMMAND, 0o755)
    machine.run("ln", "--symbolic", f"{HOME}/bin/proxyd", "/usr/local/bin/proxyd").succeeded()
    return machine.run("proxyd", "install").succeeded()


def shell(machine: Machine, line: str) -> str:
    """Type a line into root's bash; a failure is an error with its words."""
    return machine.run("bash", "-c", line).succeeded()


def reset(machine: Machine, *units: str) -> None:
    """Stop and disable these units, without a drop-in; what has failed counts no more."""
    machine.systemctl("stop", *units)
    drop_ins = [f"/etc/systemd/system/{unit}.d" for unit in units]
    machine.run("rm", "--recursive", "--force", *drop_ins).succeeded()
    machine.systemctl("disable", "--quiet", *units)  # which also has units read again
    machine.systemctl("reset-failed")  # also how often a unit was started lately
