"""A system bus of the tests' own and a real polkitd on it.

polkitd lives in a mount namespace where its actions and rules are files below one directory, so
that a test writes what is allowed and nothing of the host decides. It drops root: what it reads
is readable by everybody.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

from tests.bed.daemon import Daemon
from tests.bed.waiting import wait_until

POLKITD: Final = "/usr/lib/polkit-1/polkitd"
SHIPPED: Final = Path(__file__).parents[2] / "units" / "polkit"
LIBVIRT_GID: Final = 64999
NAME: Final = "org.freedesktop.PolicyKit1"
DEADLINE_S: Final = 15.0

ALLOW_ALL: Final = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
"""
# What /usr/share/dbus-1/system.conf lets users do, and what polkit's own file adds.
AS_THE_SYSTEMS: Final = f"""
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="{NAME}"/>
  </policy>
  <policy user="root"><allow own="{NAME}"/></policy>
"""
# A bus without a directory of services: it starts nothing by itself.
BUS_CONF: Final = """
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={sock}</listen>
  <auth>EXTERNAL</auth>
  {policy}
</busconfig>
"""

# What is mounted where polkitd looks; the third has distributions' rules, which have no say here.
IN_A_NAMESPACE: Final = """
mount --bind "$1/actions" /usr/share/polkit-1/actions
mount --bind "$1/rules" /etc/polkit-1/rules.d
mount --bind "$1/group" /etc/group
[ ! -d /usr/share/polkit-1/rules.d ] || mount --bind "$1/nothing" /usr/share/polkit-1/rules.d
exec "$0" --no-debug
"""


class PrivateBus:
    """A dbus-daemon below directory, started and stopped by a with block or by hand."""

    def __init__(self, directory: Path, policy: str = ALLOW_ALL) -> None:
        self.sock = directory / "bus"
        (directory / "dbus").mkdir()
        self.daemon = Daemon("dbus-daemon", directory / "dbus")
        self.daemon.conf.write_text(BUS_CONF.format(sock=self.sock, policy=policy))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return f"unix:path={self.sock}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes a program take this bus for the system's."""
        return {"DBUS_SYSTEM_BUS_ADDRESS": self.address}

    def start(self) -> None:
        """Also again after stop()."""
        self.sock.unlink(missing_ok=True)
        command = ["dbus-daemon", f"--config-file={self.daemon.conf}", "--nofork", "--nopidfile"]
        self.daemon.start(command, sock=self.sock, environment={})

    def stop(self) -> None:
        self.daemon.stop()

    def is_owned(self, name: str) -> bool:
        """Whether somebody has this well-known name."""
        with open_dbus_connection(self.address) as connection:
            said = connection.send_and_get_reply(message_bus.NameHasOwner(name), timeout=DEADLINE_S)
            return bool(said.body[0])


class Polkitd:
    """polkitd on this bus, below directory; started and stopped by a with block or by hand.

    It knows the actions that proxyd ships and the rule for the group libvirt, whose members are
    `members`; `rule` adds to what is allowed.
    """

    def __init__(self, directory: Path, bus: PrivateBus, members: Sequence[str] = ()) -> None:
        self.bus = bus
        self.directory = directory
        self.actions = directory / "actions"
        self.rules = directory / "rules"
        for each in (self.actions, self.rules, directory / "nothing", directory / "polkitd"):
            each.mkdir(mode=0o755)
        self.daemon = Daemon("polkitd", directory / "polkitd")
        shutil.copy(SHIPPED / "proxyd.libvirt.unix.policy", self.actions)
        shutil.copy(SHIPPED / "50-proxyd-libvirt-group.rules", self.rules)
        groups = Path("/etc/group").read_text().splitlines()
        others = [line for line in groups if not line.startswith("libvirt:")]
        libvirt = f"libvirt:x:{LIBVIRT_GID}:{','.join(members)}"
        (directory / "group").write_text("\n".join([*others, libvirt, ""]))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def rule(self, script: str) -> None:
        """Says what is allowed, in polkit's JavaScript, from the next start on."""
        (self.rules / "60-test.rules").write_text(script)

    def start(self) -> None:
        """Start it, also again after kill() or stop(), and wait until it can be asked."""
        command = ["unshare", "--mount", "bash", "-ec", IN_A_NAMESPACE, POLKITD]
        self.daemon.start(
            [*command, str(self.directory)], sock=self.bus.sock, environment=self.bus.environment
        )
        try:
            wait_until(self._is_there, DEADLINE_S, "polkitd is on the bus")
        except BaseException as cause:
            self.kill()
            cause.add_note(self.daemon.story())
            raise

    def _is_there(self) -> bool:
        if not self.daemon.running:
            raise ChildProcessError(f"polkitd ended with {self.daemon.status} at start")
        return self.bus.is_owned(NAME)

    def kill(self) -> None:
        """SIGKILL, and wait until the bus has seen it."""
        self.daemon.kill()
        if self.bus.daemon.running:
            wait_until(lambda: not self.bus.is_owned(NAME), DEADLINE_S, "polkitd left the bus")

    def stop(self) -> None:
        self.daemon.stop()
