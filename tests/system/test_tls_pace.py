"""Over TLS through proxyd nothing takes longer than directly: time is part of being the same.

One libvirtd listens for TLS itself, in its network namespace, and serves proxyd by its UNIX socket.
Real virsh and python3-libvirt do the same by both ways in turns. What went wrong here once took 5
seconds, a keepalive interval, or for ever where a client sends no keepalives: the beginning of a
frame was left inside the client's TLS (proxyd/endpoint/tls.py).

Such a wait is idle. What proxyd, the daemon or the client waits for a processor, because others
have it, is theirs, and is not counted: the kernel says how long that was.
"""

import contextlib
import filecmp
import glob
import inspect
import itertools
import json
import os
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.python_libvirt import INTERPRETER
from tests.bed.tls import LIBVIRTD_ADDRESS, listening_libvirtd
from tests.bed.virsh import tls_uri, unix_uri, virsh

pytestmark = pytest.mark.system

MIB = 1024 * 1024
SIZES = [1, 8]
LONG_SIZES = [1, 8, 64, 256]
ROUNDS, LONG_ROUNDS = 3, 10
DEADLINE_S = 120
# What is allowed to be added: a part for the work, and what another process may cost now and then.
PART, MARGIN_S = 1.2, 0.5
VERSIONS = {"TLS 1.2": "NORMAL:-VERS-TLS1.3", "TLS 1.3": "NORMAL:-VERS-ALL:+VERS-TLS1.3"}
ALL_DAEMONS = ("virtqemud", "virtnetworkd", "virtstoraged", "virtsecretd", "virtnodedevd")
HOST = LIBVIRTD_ADDRESS[0]

# Paused, so that it costs nothing; a SCSI disk comes and goes without the guest's help.
GUEST = """
<domain type='qemu'><name>guest</name><memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='scsi' index='0' model='virtio-scsi'/>
    <memballoon model='none'/></devices></domain>
"""
DISK = """
<disk type='file' device='disk'><driver name='qemu' type='raw'/>
  <source file='{file}'/><target dev='sdb' bus='scsi'/></disk>
"""


@dataclass(frozen=True)
class Way:
    """How a client comes to the daemon: its command in front, HOST:PORT, its certificate."""

    prefix: tuple
    address: str
    pkipath: object
    busy: tuple  # pids of what works for it

    def uri(self, name, version):
        return tls_uri(name, self.address, self.pkipath, tls_priority=VERSIONS[version])

    def run(self, *command):
        done = run_to_end([*self.prefix, *command], deadline_s=DEADLINE_S)
        return done.succeeded()

    def virsh(self, name, version, *commands):
        """How long each of them took, one virsh after the other."""
        took = []
        for command in commands:
            began = time.monotonic()
            waited_s = waited_for_a_processor_s(self.busy)
            self.run("virsh", "-c", self.uri(name, version), command)
            waited_s = waited_for_a_processor_s(self.busy) - waited_s
            took.append((time.monotonic() - began, waited_s))
        return took


def waited_for_a_processor_s(pids):
    """Seconds that all threads of these processes have been ready to run and did not."""
    total = 0.0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError), open(path) as file:  # it has ended meanwhile
                total += int(file.read().split()[1]) / 1e9
    return total


@dataclass
class Ways:
    """Both of them, and what stands behind."""

    direct: Way
    through: Way
    backend: Libvirtd
    front: Proxyd
    pool: Path
    scratch: Path

    @property
    def both(self):
        return {"direct": self.direct, "through": self.through}

    def in_turns(self, rounds, act):
        """What `act(way)` says took how long, a list each round, by both ways in turns."""
        took = {name: [] for name in self.both}
        for _ in range(rounds):
            for name, way in self.both.items():
                took[name].append(act(way))
        return took["direct"], took["through"]


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    pki = Pki(tmp_path_factory.mktemp("pki"))
    joe = pki.client()
    with ExitStack() as stack:
        # Not pytest's own, of which the last three runs' are kept: long volumes lie there.
        scratch = stack.enter_context(short_directory())
        pool = scratch / "pool"
        pool.mkdir()
        directory = stack.enter_context(short_directory())
        backend = stack.enter_context(
            listening_libvirtd(directory, pki.settings(pki.server([HOST])))
        )
        behind = stack.enter_context(short_directory())
        backend.serve_as(behind, *ALL_DAEMONS)
        front = stack.enter_context(
            Proxyd(
                stack.enter_context(short_directory()),
                backend_dir=behind,
                config={
                    "proxyd_routes": [f"test={backend.sock}"],
                    "listen_tls": 1,
                    "listen_addr": HOST,
                    "tls_port": "0",
                    **pki.settings(pki.server([HOST])),
                },
            )
        )
        uri = unix_uri("qemu:///system", backend.sock)
        virsh(uri, f"pool-define-as pace dir --target {pool}; pool-start pace").succeeded()
        network = f"--net=/proc/{backend.pid}/ns/net"
        yield Ways(
            direct=Way(
                ("nsenter", network), ":".join(map(str, LIBVIRTD_ADDRESS)), joe, (backend.pid,)
            ),
            through=Way(
                ("nsenter", "--net=/proc/self/ns/net"),
                front.tls_address(),
                joe,
                (front.pid, backend.pid),
            ),
            backend=backend,
            front=front,
            pool=pool,
            scratch=scratch,
        )
        assert "Traceback" not in front.log_text()


@pytest.fixture(scope="module")
def guest(ways):
    """The name of a domain of QEMU's that is paused, and has a disk to be attached."""
    pool = ways.pool
    (pool / "guest.xml").write_text(GUEST)
    (pool / "disk").write_bytes(bytes(MIB))
    uri = unix_uri("qemu:///system", ways.backend.sock)
    virsh(uri, f"define {pool}/guest.xml; start --paused guest", deadline_s=60).succeeded()
    return "guest"


@pytest.fixture
def compare(request, capsys):
    """Shows both ways' figures, by what was done, and fails when ours takes longer."""

    def compare(what, direct, through):
        lines = [
            f"{what}, {name}: direct {shown(direct[name])} s, through {shown(through[name])} s"
            for name in direct
        ]
        if request.config.getoption("--run-long"):
            with capsys.disabled():
                print("", *lines, sep="\n")
        late = {
            name: took
            for name, took in through.items()
            if max(elapsed_s - waited_s for elapsed_s, waited_s in took) > limit_s(direct[name])
        }
        assert not late, "\n".join([*lines, str(late)])

    return compare


def limit_s(direct):
    return PART * max(elapsed_s for elapsed_s, _ in direct) + MARGIN_S


def shown(took):
    elapsed = [each for each, _ in took]
    return f"{statistics.median(elapsed):.3f} (longest {max(elapsed):.3f} of {len(elapsed)})"


def by_name(names, rounds):
    """From a list for each round to one for each name."""
    return {name: [took[at] for took in rounds] for at, name in enumerate(names)}


def source(ways, size):
    """A volume of so many MiB that no compression makes smaller."""
    path = ways.pool / f"source-{size}.img"
    if not path.exists():
        block = os.urandom(MIB)
        with path.open("wb") as file:
            for number in range(size):
                file.write(number.to_bytes(8, "big") + block[8:])
        virsh(unix_uri("qemu:///system", ways.backend.sock), "pool-refresh pace").succeeded()
    return path


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("version", "size", "rounds"),
    [
        *((version, size, ROUNDS) for version in VERSIONS for size in SIZES),
        *(long(version, size, LONG_ROUNDS) for version in VERSIONS for size in LONG_SIZES),
    ],
)
def test_virsh_downloads_at_the_same_pace(ways, compare, version, size, rounds):
    volume, got = source(ways, size), ways.scratch / "got"
    command = f"vol-download --pool pace {volume.name} {got}"
    direct, through = ways.in_turns(
        rounds, lambda way: way.virsh("qemu:///system", version, command)
    )
    assert filecmp.cmp(volume, got, shallow=False)
    what = [f"{size} MiB"]
    compare(f"download, {version}", by_name(what, direct), by_name(what, through))


@pytest.mark.long
@pytest.mark.parametrize("size", LONG_SIZES)
@pytest.mark.parametrize("version", VERSIONS)
def test_virsh_uploads_at_the_same_pace(ways, compare, version, size):
    volume, put = source(ways, size), ways.pool / "put.img"
    local = unix_uri("qemu:///system", ways.backend.sock)
    virsh(local, f"vol-create-as pace {put.name} {size}M").succeeded()
    command = f"vol-upload --pool pace {put.name} {volume}"
    try:
        direct, through = ways.in_turns(
            LONG_ROUNDS, lambda way: way.virsh("qemu:///system", version, command)
        )
        assert filecmp.cmp(volume, put, shallow=False)
    finally:
        virsh(local, f"vol-delete --pool pace {put.name}").succeeded()
    what = [f"{size} MiB"]
    compare(f"upload, {version}", by_name(what, direct), by_name(what, through))


@pytest.mark.parametrize(
    ("version", "rounds"), [("TLS 1.3", 2), *(long(version, LONG_ROUNDS) for version in VERSIONS)]
)
def test_virsh_changes_things_at_the_same_pace(ways, compare, version, rounds, tmp_path):
    commands = {
        "screenshot": f"screenshot test {tmp_path}/shot.png",
        "destroy": "destroy test; start test",
        "many": "list; domstate test; dumpxml test; destroy test; start test; suspend test; list",
    }
    direct, through = ways.in_turns(
        rounds, lambda way: way.virsh("test:///default", version, *commands.values())
    )
    compare(f"virsh, {version}", by_name(commands, direct), by_name(commands, through))


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_virsh_changes_devices_at_the_same_pace(ways, compare, guest, script_files, version):
    commands = {
        "attach-device": f"attach-device {guest} {script_files[0]} --live",
        "domblklist": f"domblklist {guest}",
        "detach-disk": f"detach-disk {guest} sdb --live",
    }
    direct, through = ways.in_turns(
        LONG_ROUNDS, lambda way: way.virsh("qemu:///system", version, *commands.values())
    )
    compare(f"virsh, {version}", by_name(commands, direct), by_name(commands, through))


# No keepalive: it is virsh that asks for it, and libvirt's Python has none of its own. A client
# that is left without a frame then waits for ever.
SCRIPT = """
import contextlib, glob, json, sys, threading, time
import libvirt

qemu, test, listens, guest, disk, source, upload, size, count, *busy = sys.argv[1:]
busy.append("self")
if int(listens):
    libvirt.virEventRegisterDefaultImpl()

    def turn():
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=turn, daemon=True).start()
seen, took = [], {}


def opened(uri):
    connection = libvirt.open(uri)
    if int(listens):
        def note(*said):
            seen.append(said)

        of_domains = ["LIFECYCLE"] + ["DEVICE_ADDED", "DEVICE_REMOVED"] * (uri == qemu)
        for event in of_domains:
            number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{event}")
            connection.domainEventRegisterAny(None, number, note, None)
        connection.storagePoolEventRegisterAny(
            None, libvirt.VIR_STORAGE_POOL_EVENT_ID_REFRESH, note, None)
    return connection


def timed(name, act):
    began, waited_s = time.monotonic(), waited_for_a_processor_s(busy)
    act()
    waited_s = waited_for_a_processor_s(busy) - waited_s
    took.setdefault(name, []).append((time.monotonic() - began, waited_s))


def taken(stream):
    total = 0
    while piece := stream.recv(262120):
        total += len(piece)
    stream.finish()
    return total


def download():
    stream = at_qemu.newStream()
    volume.download(stream, 0, 0, 0)
    assert taken(stream) == int(size)


def put():
    stream = at_qemu.newStream()
    target.upload(stream, 0, int(size), 0)
    with open(source, "rb") as file:
        while piece := file.read(262120):
            while piece:
                piece = piece[stream.send(piece):]
    stream.finish()


def screenshot():
    stream = at_test.newStream()
    assert domain.screenshot(stream, 0) == "image/png"
    assert taken(stream) > 1000


at_qemu, at_test = opened(qemu), opened(test)
pool = at_qemu.storagePoolLookupByName("pace")
volume = pool.storageVolLookupByName(source.rpartition("/")[2])
target = pool.storageVolLookupByName(upload)
domain = at_test.lookupByName("test")
if guest:
    guest, xml = at_qemu.lookupByName(guest), open(disk).read()
for _ in range(int(count)):
    timed("download", download)
    timed("upload", put)
    timed("screenshot", screenshot)
    timed("destroy", domain.destroy)
    timed("create", domain.create)
    timed("suspend and resume", lambda: (domain.suspend(), domain.resume()))
    if guest:
        timed("attach", lambda: guest.attachDeviceFlags(xml, 1))
        timed("detach", lambda: guest.detachDeviceFlags(xml, 1))
    timed("refresh", pool.refresh)
    timed("questions", lambda: [at_test.getLibVersion() for _ in range(40)])
print(json.dumps({"took": took, "events": len(seen)}))
at_test.close()
at_qemu.close()
"""
PYTHON_MIB = 10
UPLOADED = "python.img"


@pytest.fixture(scope="module")
def script_files(ways):
    volume = source(ways, PYTHON_MIB)
    local = unix_uri("qemu:///system", ways.backend.sock)
    virsh(local, f"vol-create-as pace {UPLOADED} {PYTHON_MIB}M").succeeded()
    disk = ways.pool / "disk.xml"
    disk.write_text(DISK.format(file=ways.pool / "disk"))
    return disk, volume, UPLOADED, PYTHON_MIB * MIB


def measuring(script):
    """With a function of ours in front, since that interpreter knows none of our modules."""
    return f"{inspect.getsource(waited_for_a_processor_s)}\n{script}"


SHORT, ALL = (1, 5, ""), (3, 20, "guest")


@pytest.mark.parametrize(
    ("version", "listens", "amount"),
    [
        ("TLS 1.3", True, SHORT),
        *(long(version, listens, ALL) for version in VERSIONS for listens in (False, True)),
    ],
)
def test_a_program_without_keepalive_works_at_the_same_pace(
    request, ways, compare, script_files, version, listens, amount
):
    rounds, times, guest = amount
    if guest:
        request.getfixturevalue("guest")

    def act(way):
        uris = way.uri("qemu:///system", version), way.uri("test:///default", version)
        arguments = map(str, (*uris, int(listens), guest, *script_files, times, *way.busy))
        return json.loads(way.run(INTERPRETER, "-c", measuring(SCRIPT), *arguments))

    direct, through = ways.in_turns(rounds, act)
    if listens:
        # Each change of a domain and each refresh: those of the last ones may be on their way.
        for said in (*direct, *through):
            assert said["events"] > 4 * times
    events = "beside events" if listens else "without events"
    compare(f"python3-libvirt, {version}, {events}", merged(direct), merged(through))


def merged(rounds):
    """All times of each act, of all rounds."""
    return {
        name: list(itertools.chain.from_iterable(said["took"][name] for said in rounds))
        for name in rounds[0]["took"]
    }
