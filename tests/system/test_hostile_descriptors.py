"""Descriptors that a client passes once its session is open are felt by nobody else.

An attacker has files of a FUSE file system of his own, whose server does not answer, sockets whose
close waits, and sockets whose lock he holds. Where there is no /dev/fuse to be had, sockets take
the files' place; the output says so.
"""

import os
import socket
import sys
from functools import partial
from subprocess import TimeoutExpired

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.bystander import URI, scene
from tests.bed.command import held_open
from tests.bed.daemon import accepts, short_directory
from tests.bed.frozen import sockets_of
from tests.bed.hostile import hostile
from tests.bed.open_domain import domain
from tests.bed.passrights import ON_AN_OLDER_KERNEL, PASSRIGHTS
from tests.bed.python_libvirt import run_script
from tests.bed.virsh import unix_uri
from tests.bed.waiting import wait_until
from tests.relay import frames
from tests.system.rpc import opened

__all__ = ["domain"]

pytestmark = pytest.mark.system

# What proxyd, all its processes together, may hold at one time.
MOST_HELD = 1024
PASSES_S = 5
KERNEL = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
READ_ONLY, READ_WRITE = "libvirt-sock-ro", "libvirt-sock"

PELTS = """
from hostile_kit import *
directory, name = sys.argv[1:]
passed = handful()
stream = frame(CONNECT_GET_LIB_VERSION, bytes(16000), kind=MESSAGE)
crowd = Crowd(6, lambda: open_session(f"{directory}/{name}", "lxc:///system"))
get_ready()
while True:
    crowd.each(lambda peer: peer.send_byte_of(stream, passed))
    crowd.drain()
"""


@pytest.mark.parametrize("passrights", PASSRIGHTS)
@pytest.mark.parametrize("name", [READ_ONLY, pytest.param(READ_WRITE, marks=pytest.mark.long)])
def test_descriptors_on_each_byte_are_not_felt(make_scene, endures, name, passrights):
    felt = endures(make_scene(passrights=passrights), PELTS, name)
    assert felt.most_descriptors < MOST_HELD


# What somebody who may write sends, by the name of what is wrong with it.
WRONG = {
    "on a byte of a frame": lambda client, files: (
        client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION)[:9]),
        socket.send_fds(client.sock, [b"\0"], files[:1]),
    ),
    "on the first byte of a frame": lambda client, files: (
        socket.send_fds(client.sock, [client.frame(Remote.CONNECT_GET_LIB_VERSION)], files[:1]),
    ),
    "on a byte of a long frame": lambda client, files: (
        client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION, bytes(200_000))[:100_000]),
        socket.send_fds(client.sock, [bytes(1000)], files[:1]),
    ),
    "on the announcement itself": lambda client, files: (
        socket.send_fds(client.sock, [announcing(client, 1)], files[:1]),
    ),
    "two in place of one": lambda client, files: (
        client.send(announcing(client, 1)),
        socket.send_fds(client.sock, [b"\0"], files[:2]),
    ),
    "one in place of two": lambda client, files: (
        client.send(announcing(client, 2)),
        socket.send_fds(client.sock, [b"\0"], files[:1]),
        client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION)),
    ),
    "none in place of one": lambda client, files: (
        client.send(announcing(client, 1) + client.frame(Remote.CONNECT_GET_LIB_VERSION)),
    ),
    "more than a frame may have": lambda client, files: client.send(announcing(client, 33)),
}


def announcing(client, count):
    client.serial += 1
    return frames.call_with_descriptors(count, client.serial, procedure=60000)


@pytest.fixture(scope="module", params=PASSRIGHTS)
def front(request, qemu_backend, backend_dir):
    with scene(qemu_backend.sock, backend_dir=backend_dir, passrights=request.param) as made:
        yield made.front


@pytest.mark.parametrize("wrong", WRONG)
def test_who_passes_what_he_did_not_announce_ends_his_session_and_no_other(front, wrong):
    with opened(front.sock, URI) as other, opened(front.sock, URI) as client:
        before = sockets_of(front)
        with open(os.devnull) as null:
            WRONG[wrong](client, [null.fileno()] * 3)
        assert client.ended()
        assert other.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        # Two of the session are closed; the user's courier may be there for the next one.
        wait_until(lambda: sockets_of(front) <= before, 10, "descriptors are as before")
    with opened(front.sock, URI) as another:
        assert another.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
    assert "Traceback" not in front.log_text()


def test_who_may_only_read_passes_none(front):
    """Either the kernel does not let them through, or they end the session."""
    with opened(front.sock_ro, URI) as other, opened(front.sock_ro, URI) as client:
        with open(os.devnull) as null:
            passes = partial(socket.send_fds, client.sock, [b"\0"], [null.fileno()])
            if front.passrights and KERNEL >= (6, 16):
                with pytest.raises(PermissionError):
                    passes()
                assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
            else:
                passes()
                assert client.ended()
        assert other.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


# What is passed: `fresh` makes descriptors for one attack, `sent` is called when they were passed.
FLUSHES = """
system = fuse.FileSystem(device, os.getcwd() + "/mnt", {fuse.FLUSH})
files = [system.open(str(number)) for number in range(12)]
def fresh():
    return files
def sent(): pass
"""
# Each is written to when nothing but the message holds it, so that giving it up waits as well.
DIRTY = """
system = fuse.FileSystem(device, os.getcwd() + "/mnt", {fuse.WRITE}, writeback=True)
kept, pairs, names = [], [], map(str, range(1 << 30))
def fresh():
    pairs[:] = [(system.open(name), system.open(name)) for name in (next(names), next(names))]
    return [clean for clean, _ in pairs]
def sent():
    for clean, dirty in pairs:
        os.close(clean)
        os.write(dirty, bytes(8192))
        kept.append(dirty)
"""
LINGERS = """
pairs, readers = [], []
def fresh():
    del readers[:-3]
    pairs[:] = [lingering() for _ in range(3)]
    return [sock.fileno() for _, sock in pairs]
def sent():
    for reader, sock in pairs:
        readers.append(reader)
        sock.close()
"""
LOCKED = """
system = fuse.FileSystem(device, os.getcwd() + "/mnt")
keeps, locked = system.locked_socket()
def fresh():
    return [locked.fileno()] * 12
def sent(): pass
"""
# For what an attacker's own work does to the machine.
HARMLESS = """
passed = handful(12)
def fresh():
    return passed
def sent(): pass
"""
KINDS = {
    "harmless": HARMLESS,
    "flushes": FLUSHES,
    "dirty": DIRTY,
    "lingers": LINGERS,
    "locked": LOCKED,
}

# How they are passed.
AS_ANNOUNCED = """
def attack(session):
    for at, number in enumerate(fresh()):
        session.sendall(frame(60000 + at, struct.pack(">I", 1), kind=CALL_WITH_FDS))
        send_descriptors(session, [number])
"""
UNANNOUNCED = """
def attack(session):
    wire = frame(60000, bytes(100), kind=MESSAGE)
    for number in fresh():
        session.sendall(wire[:50])
        send_descriptors(session, [number], wire[50:51])
        session.sendall(wire[51:])
"""
# A look passes over an urgent byte, and a read throws it away, with what rides on it.
URGENT = """
def attack(session):
    for number in fresh():
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [number]))
        session.sendmsg([b"!"], [rights], socket.MSG_OOB)
        session.sendall(frame(60000, bytes(100), kind=MESSAGE))
"""
TOO_MANY = """
def attack(session):
    session.sendall(frame(60000, struct.pack(">I", 1), kind=CALL_WITH_FDS))
    send_descriptors(session, fresh())
"""
TOO_FEW = """
def attack(session):
    passed = fresh()
    session.sendall(frame(60000, struct.pack(">I", len(passed) + 1), kind=CALL_WITH_FDS))
    for number in passed:
        send_descriptors(session, [number])
    session.sendall(frame(60000))
"""
BEGIN_LONG = """
def begin_long(session):
    session.sendall(frame(VOL_UPLOAD, kind=STREAM, status=CONTINUE, length=1 << 25))
"""
ON_SPLICED_BYTES = """
def attack(session):
    begin_long(session)
    session.sendall(bytes(200_000))
    for number in fresh():
        send_descriptors(session, [number], bytes(1000))
        session.sendall(bytes(100_000))
"""
# Behind what the daemon does not take, so that they stay where they are until the session ends.
NOT_READ = """
def attack(session):
    session.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
    begin_long(session)
    with suppress(OSError):
        for _ in range(200):
            session.send(bytes(8192))
    session.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for number in fresh():
        send_descriptors(session, [number])
"""
WAYS = {
    "as announced": AS_ANNOUNCED,
    "unannounced": UNANNOUNCED,
    "urgent": URGENT,
    "too many": TOO_MANY,
    "too few": TOO_FEW,
    "on spliced bytes": BEGIN_LONG + ON_SPLICED_BYTES,
    "not read": BEGIN_LONG + NOT_READ,
}

BEGINS = """
import fuse
from hostile_kit import *
directory, name, device = sys.argv[1:]
"""
# A session for each attack; the last eight are kept.
AGAIN_AND_AGAIN = """
get_ready()
sessions = []
while True:
    try:
        session = open_session(f"{directory}/{name}", "lxc:///system")
        session.settimeout(0.2)
        attack(session)
        sent()
    except OSError:
        select.select([], [], [], 0.01)
    else:
        sessions.append(session)
    for old in sessions[:-8]:
        old.close()
    del sessions[:-8]
"""


def script(kind, way):
    return BEGINS + KINDS[kind] + WAYS[way] + AGAIN_AND_AGAIN


ASSOCIATES = """
import libvirt, os, sys
uri, domain, path = sys.argv[1:]
connection = libvirt.open(uri)
passed = [os.open(path, os.O_RDONLY) for _ in range(3)]
connection.lookupByName(domain).FDAssociate("g", passed, 0)
print("associated")
"""


@pytest.fixture
def somebody_passes(domain, tmp_path):
    """Another user who may write passes descriptors, as libvirt does; says whether that fails."""
    path = tmp_path / "passed"
    path.touch()

    def somebody_passes(front):
        uri = unix_uri("qemu:///system", front.sock)
        try:
            done = run_script(ASSOCIATES, uri, domain, str(path), deadline_s=PASSES_S)
        except TimeoutExpired:
            return "descriptors of others do not get through"
        return "" if done.stdout == "associated\n" else f"descriptors of others: {done.stderr}"

    return somebody_passes


@pytest.fixture
def deaf():
    """A daemon that opens and then reads nothing; the path of its socket."""
    with short_directory() as directory:
        path = directory / "deaf"
        command = [sys.executable, "-m", "tests.fakes.sink_daemon", str(path), "deaf"]
        with held_open(command):
            wait_until(lambda: path.exists() and accepts(path), 10, "the daemon listens")
            yield path


@pytest.fixture
def hold_up(make_scene, endures, device, capsys, somebody_passes, deaf):
    """Lets one attack have its way; its figures, which are fine."""

    def hold_up(kind, way, name, passrights):
        if not device and kind != "lingers":
            kind = "lingers"
            with capsys.disabled():
                print("\nno /dev/fuse here: sockets that linger take the place of its files")
        made = make_scene(passrights=passrights, hostile_daemon=deaf if way == "not read" else None)
        return endures(
            made,
            script(kind, way),
            name,
            device,
            beside={
                "quiet": lambda sink: hostile(script("harmless", way), sink, name, device),
                "meanwhile": lambda: somebody_passes(made.front),
                "kicks": way == "not read",
            },
        )

    return hold_up


# Each kind and each way, by who may read and by who may write; all pairs would take minutes.
ATTACKS = [
    ("flushes", "as announced", READ_WRITE),
    ("flushes", "unannounced", READ_ONLY),
    ("dirty", "not read", READ_ONLY),
    ("dirty", "unannounced", READ_ONLY),
    ("lingers", "urgent", READ_WRITE),
    ("lingers", "too many", READ_WRITE),
    ("locked", "unannounced", READ_ONLY),
]
MORE_ATTACKS = [
    ("flushes", "unannounced", READ_WRITE),
    ("flushes", "on spliced bytes", READ_WRITE),
    ("flushes", "not read", READ_WRITE),
    ("dirty", "not read", READ_WRITE),
    ("dirty", "unannounced", READ_WRITE),
    ("dirty", "urgent", READ_ONLY),
    ("dirty", "on spliced bytes", READ_WRITE),
    ("lingers", "as announced", READ_WRITE),
    ("lingers", "on spliced bytes", READ_ONLY),
    ("lingers", "not read", READ_ONLY),
    ("locked", "as announced", READ_WRITE),
    ("locked", "too few", READ_WRITE),
    ("locked", "not read", READ_WRITE),
]


@pytest.mark.parametrize(("kind", "way", "name"), ATTACKS)
def test_what_cannot_be_closed_holds_up_nobody(hold_up, kind, way, name):
    assert hold_up(kind, way, name, ON_AN_OLDER_KERNEL).most_descriptors < MOST_HELD


@pytest.mark.long
@pytest.mark.parametrize("passrights", PASSRIGHTS)
@pytest.mark.parametrize(("kind", "way", "name"), ATTACKS + MORE_ATTACKS)
def test_no_kind_in_no_way_holds_up_anybody(hold_up, kind, way, name, passrights):
    assert hold_up(kind, way, name, passrights).most_descriptors < MOST_HELD


# One whose courier hangs is turned away, and comes again and again with descriptors in front: each
# of these connections has to be closed by somebody, and nobody can.
COMES_AGAIN = """
def attack(session):
    for at, number in enumerate(fresh()[:2]):
        session.sendall(frame(60000 + at, struct.pack(">I", 1), kind=CALL_WITH_FDS))
        send_descriptors(session, [number])
        select.select([], [], [], 0.5)  # the first one is being closed by then
get_ready()
with suppress(OSError):
    attack(open_session(f"{directory}/libvirt-sock", "lxc:///system"))
    sent()
passed = handful(1)
while True:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(0.2)
        sock.connect(f"{directory}/{name}")
        send_descriptors(sock, passed)
        select.select([], [], [], 0.001)
"""
FEW = 200  # of whom each, and all of them, are far fewer than MOST_HELD


def test_who_hangs_and_comes_again_and_again_uses_nothing_up(make_scene, endures, device):
    script = BEGINS + KINDS["flushes" if device else "lingers"] + COMES_AGAIN
    made = make_scene({"max_clients": FEW}, passrights=ON_AN_OLDER_KERNEL)

    def used_up():
        held = len(made.front.descriptors())
        return f"{held} descriptors are held" if held > MOST_HELD else ""

    beside = {"rounds": 12, "meanwhile": used_up}
    endures(made, script, READ_ONLY, device, beside=beside)
