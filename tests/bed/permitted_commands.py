"""Commands of virsh, the call that each is for, and by which levels of a rule it is allowed.

What a call needs is read from docs/protocol/procedures.tsv, and what a level has is said here once
more: nothing is asked of the program under test.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

PROCEDURES: Final = Path(__file__).parents[2] / "docs" / "protocol" / "procedures.tsv"
PROGRAMS: Final = {0x20008086: "REMOTE", 0x20008087: "QEMU", 0x20008088: "LXC"}
READING: Final = re.compile(r"[a-z_]+:(getattr|read|search_[a-z_]+)")
RUNNING: Final = frozenset(
    f"domain:{name}"
    for name in [
        "init_control",
        "inject_nmi",
        "open_device",
        "open_graphics",
        "pm_control",
        "reset",
        "screenshot",
        "send_input",
        "send_signal",
        "start",
        "stop",
        "suspend",
    ]
) | {"storage_pool:refresh"}

# What they have done is kept where libvirt keeps such things, and in no file of another name.
KEEPING: Final = frozenset({"DOMAIN_MANAGED_SAVE", "DOMAIN_MANAGED_SAVE_REMOVE"})

# What is more than reading in the sets of the tests, and how the rules file has it.
SETS: Final[Mapping[str, frozenset[str]]] = {
    "power": frozenset({"domain:start", "domain:stop"}),
    "upkeep": frozenset({"domain:snapshot", "domain:checkpoint", "domain:write", "network:start"}),
}
LEVELS: Final = ("deny", "read", "operate", "write", *SETS)


class Need(NamedTuple):
    """A permission that a call needs: always, or if its flags have one of `flags`.

    `flags` of a need that begins with `!` are those without which it is needed.
    """

    permission: str
    flags: frozenset[str] = frozenset()
    unless: frozenset[str] = frozenset()

    def is_asked(self, flags: frozenset[str]) -> bool:
        """Whether a call with these flags needs it."""
        if self.unless:
            return not self.unless & flags
        return not self.flags or bool(self.flags & flags)


class Call(NamedTuple):
    """A procedure, by its program and name."""

    program: str
    name: str

    @property
    def needs(self) -> tuple[Need, ...]:
        return _table()[self]


@dataclass(frozen=True, slots=True)
class Row:
    """`command` is virsh's, {dir} in it a directory; `call` what it is for; `flags` the call's."""

    command: str
    call: Call
    flags: frozenset[str] = frozenset()

    def is_allowed(self, level: str) -> bool:
        """Whether that level lets the call through."""
        if level in ("deny", "write"):
            return level == "write"
        if level == "operate" and self.call.name in KEEPING:
            return True
        asked = [need.permission for need in self.call.needs if need.is_asked(self.flags)]
        return self.call.program == "REMOTE" and all(_has(level, each) for each in asked)


def _has(level: str, permission: str) -> bool:
    if READING.fullmatch(permission):
        return True
    return permission in {"read": frozenset[str](), "operate": RUNNING, **SETS}[level]


def is_reading(call: Call) -> bool:
    """Whether every level that is not "deny" allows it, with any flags that a look-up has."""
    asked = [need.permission for need in call.needs if not need.flags]
    return call.program == "REMOTE" and all(READING.fullmatch(each) for each in asked)


@cache
def _table() -> dict[Call, tuple[Need, ...]]:
    found = {}
    for line in PROCEDURES.read_text().splitlines()[1:]:
        program, _, name, _, _, _, words, _ = line.split("\t")
        found[Call(program, name)] = tuple(_needs(words))
    return found


def _needs(words: str) -> Iterable[Need]:
    for word in words.split():
        kind, _, rest = word.partition(":")
        name, *conditions = rest.split(":")
        if word in ("none", "-"):
            continue
        flags = frozenset(conditions[-1].lstrip("!").split("|")) if conditions else frozenset()
        if conditions and conditions[-1].startswith("!"):
            yield Need(f"{kind}:{name}", unless=flags)
        else:
            yield Need(f"{kind}:{name}", flags)


@cache
def numbered() -> dict[tuple[int, int], Call]:
    """All calls by what stands in a frame's header."""
    numbers = {name: number for number, name in PROGRAMS.items()}
    rows = [line.split("\t") for line in PROCEDURES.read_text().splitlines()[1:]]
    return {
        (numbers[row[0]], int(row[1])): Call(row[0], row[2]) for row in rows if row[0] in numbers
    }


def _rows(text: str) -> tuple[Row, ...]:
    found = []
    for line in text.strip().splitlines():
        command, _, rest = line.partition(" | ")
        name, *flags = rest.split()
        program = "QEMU" if name in {"DOMAIN_MONITOR_COMMAND", "DOMAIN_AGENT_COMMAND"} else "REMOTE"
        full = frozenset(f"VIR_DOMAIN_{flag}" for flag in flags)
        found.append(Row(command.strip(), Call(program, name), full))
    return tuple(found)


# Of test:///default, in an order in which each finds what it is for as long as none before it did
# anything, and most of them also if all did. Their other calls only read.
TEST_ROWS: Final = _rows("""
list --all | CONNECT_LIST_ALL_DOMAINS
dominfo test | DOMAIN_GET_INFO
domstate test | DOMAIN_GET_STATE
domid test | DOMAIN_LOOKUP_BY_NAME
dumpxml test | DOMAIN_GET_XML_DESC
dumpxml --security-info test | DOMAIN_GET_XML_DESC XML_SECURE
dumpxml --migratable test | DOMAIN_GET_XML_DESC XML_MIGRATABLE
domstats --state test | CONNECT_GET_ALL_DOMAIN_STATS
vcpucount test | DOMAIN_GET_VCPUS_FLAGS
domblklist test | DOMAIN_GET_XML_DESC
schedinfo test | DOMAIN_GET_SCHEDULER_TYPE
net-list --all | CONNECT_LIST_ALL_NETWORKS
net-dumpxml default | NETWORK_GET_XML_DESC
pool-list --all | CONNECT_LIST_ALL_STORAGE_POOLS
pool-info default-pool | STORAGE_POOL_GET_INFO
vol-list default-pool | STORAGE_POOL_LIST_ALL_VOLUMES
nodedev-list | CONNECT_LIST_ALL_NODE_DEVICES
nodedev-dumpxml computer | NODE_DEVICE_GET_XML_DESC
iface-list --all | CONNECT_LIST_ALL_INTERFACES
iface-dumpxml eth1 | INTERFACE_GET_XML_DESC
capabilities | CONNECT_GET_CAPABILITIES
nodeinfo | NODE_GET_INFO
version | CONNECT_GET_VERSION
snapshot-list test | DOMAIN_LIST_ALL_SNAPSHOTS
domcapabilities | CONNECT_GET_DOMAIN_CAPABILITIES
suspend test | DOMAIN_SUSPEND
resume test | DOMAIN_RESUME
send-key test KEY_A | DOMAIN_SEND_KEY
inject-nmi test | DOMAIN_INJECT_NMI
screenshot test {dir}/shot | DOMAIN_SCREENSHOT
send-process-signal test 1 sigterm | DOMAIN_SEND_PROCESS_SIGNAL
dompmsuspend test mem | DOMAIN_PM_SUSPEND_FOR_DURATION
reset test | DOMAIN_RESET
reboot test | DOMAIN_REBOOT
reboot test --mode agent | DOMAIN_REBOOT REBOOT_GUEST_AGENT
shutdown test --mode agent | DOMAIN_SHUTDOWN_FLAGS SHUTDOWN_GUEST_AGENT
shutdown test | DOMAIN_SHUTDOWN
start test | DOMAIN_CREATE
destroy test | DOMAIN_DESTROY
start test | DOMAIN_CREATE
managedsave test | DOMAIN_MANAGED_SAVE
managedsave-remove test | DOMAIN_MANAGED_SAVE_REMOVE
start test | DOMAIN_CREATE
dump test {dir}/core | DOMAIN_CORE_DUMP
setmem test 1048576 | DOMAIN_SET_MEMORY_FLAGS AFFECT_LIVE
setmem test 1048576 --current | DOMAIN_SET_MEMORY_FLAGS
setmem test 1048576 --config | DOMAIN_SET_MEMORY_FLAGS AFFECT_CONFIG
setvcpus test 1 | DOMAIN_SET_VCPUS
setvcpus test 1 --config | DOMAIN_SET_VCPUS_FLAGS AFFECT_CONFIG
vcpupin test 0 0 --live | DOMAIN_PIN_VCPU_FLAGS AFFECT_LIVE
memtune test --hard-limit 1048576 --live | DOMAIN_SET_MEMORY_PARAMETERS AFFECT_LIVE
desc test --config words | DOMAIN_SET_METADATA AFFECT_CONFIG
autostart test | DOMAIN_SET_AUTOSTART
attach-device test {dir}/disk.xml --live | DOMAIN_ATTACH_DEVICE_FLAGS AFFECT_LIVE
set-user-password test root secret | DOMAIN_SET_USER_PASSWORD
domfsfreeze test | DOMAIN_FSFREEZE
domfstrim test | DOMAIN_FSTRIM
domhostname test | DOMAIN_GET_HOSTNAME
blockresize test vda 1M | DOMAIN_BLOCK_RESIZE
snapshot-create-as test one | DOMAIN_SNAPSHOT_CREATE_XML
checkpoint-create-as test one | DOMAIN_CHECKPOINT_CREATE_XML
define {dir}/test.xml | DOMAIN_DEFINE_XML
create {dir}/transient.xml | DOMAIN_CREATE_XML
qemu-monitor-command test info | DOMAIN_MONITOR_COMMAND
qemu-agent-command test info | DOMAIN_AGENT_COMMAND
net-destroy default | NETWORK_DESTROY
net-start default | NETWORK_CREATE
net-autostart default | NETWORK_SET_AUTOSTART
net-define {dir}/network.xml | NETWORK_DEFINE_XML
net-create {dir}/network.xml | NETWORK_CREATE_XML
net-undefine default | NETWORK_UNDEFINE
pool-refresh default-pool | STORAGE_POOL_REFRESH
pool-autostart default-pool | STORAGE_POOL_SET_AUTOSTART
vol-create-as default-pool v1 1M | STORAGE_VOL_CREATE_XML
pool-define-as made dir --target /nowhere | STORAGE_POOL_DEFINE_XML
pool-destroy default-pool | STORAGE_POOL_DESTROY
pool-build default-pool | STORAGE_POOL_BUILD
pool-start default-pool | STORAGE_POOL_CREATE
nodedev-destroy scsi_host11 | NODE_DEVICE_DESTROY
iface-begin | INTERFACE_CHANGE_BEGIN
iface-destroy eth1 | INTERFACE_DESTROY
iface-start eth1 | INTERFACE_CREATE
iface-undefine eth1 | INTERFACE_UNDEFINE
node-memory-tune --shm-pages-to-scan 1 | NODE_SET_MEMORY_PARAMETERS
save test {dir}/saved | DOMAIN_SAVE
restore {dir}/saved | DOMAIN_RESTORE
undefine test | DOMAIN_UNDEFINE_FLAGS
""")
