"""A second CONNECT_OPEN, however it comes: nobody makes root's daemon run a program or dial out.

libvirt's daemons refuse it and forget on their way out that they had a connection, and obey the
next one whatever its name says (docs/protocol/opening.md, section 6). So none of these may reach
one; each is answered as libvirt does it, and the session goes on.
"""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxyd.wire import remote
from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import FrameType, Status
from proxyd.wire.programs import Remote
from tests.bed.daemon import short_directory
from tests.bed.hostile import hostile
from tests.bed.kdc import Kdc
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.sasl import SERVICE
from tests.relay import frames
from tests.system.rpc import DEADLINE_S, opened, send_descriptor
from tests.system.sasl_client import by_gssapi
from tests.system.tls_client import opened_over_tls

pytestmark = pytest.mark.system

URI = "test:///default"
PROGRAM = "#!/bin/sh\ntouch {ran}\n"
WAYS = ["UNIX", "UNIX, read-only", "TLS", "SASL"]


class Trap:
    """A program that must not run, a listener that must not be connected to, and their names."""

    def __init__(self, directory: Path):
        self.ran = directory / "ran"
        program = directory / "program"
        program.write_text(PROGRAM.format(ran=self.ran))
        program.chmod(0o755)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.setblocking(False)
        self.listener.bind(os.fspath(directory / "listens"))
        self.listener.listen()
        self.names = [
            f"qemu+ssh://anywhere/system?command={program}",
            f"test+unix:///default?socket={directory / 'listens'}",
        ]

    @property
    def sprung(self):
        """What happened that must not."""
        found = ["a program ran"] if self.ran.exists() else []
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return found
        return [*found, "somebody connected"]


@pytest.fixture
def trap():
    with short_directory(0o755) as directory:
        made = Trap(directory)
        yield made
        made.listener.close()


@pytest.fixture(scope="module")
def doors(backend_dir, qemu_backend, tmp_path_factory):
    """What opens a session, by the name of the way."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        kdc = stack.enter_context(Kdc(stack.enter_context(short_directory())))
        kdc.add("joe", SERVICE)
        pki = Pki(tmp_path_factory.mktemp("pki"))
        patch.setenv("KRB5_CONFIG", str(kdc.config))
        front = stack.enter_context(
            Proxyd(
                stack.enter_context(short_directory(0o755)),
                backend_dir=backend_dir,
                config={
                    "proxyd_routes": [f"test={qemu_backend.sock}"],
                    "listen_addr": "127.0.0.1",
                    "listen_tls": 1,
                    "tls_port": "0",
                    **pki.settings(pki.server()),
                    "listen_tcp": 1,
                    "tcp_port": "0",
                    "proxyd_keytab": str(kdc.keytab(SERVICE)),
                },
                environment=kdc.environment,
            )
        )
        tickets, pkipath = kdc.tickets("joe"), pki.client()
        yield {
            "UNIX": lambda: opened(front.sock, URI),
            "UNIX, read-only": lambda: opened(front.sock_ro, URI),
            "TLS": lambda: opened_over_tls(front.tls_address(), pkipath, URI),
            "SASL": lambda: by_gssapi(front.tcp_address(), tickets, URI),
            "front": front,
        }
        assert "Traceback" not in front.log_text()


@pytest.fixture(params=WAYS)
def door(request, doors):
    """Opens a session, again and again."""
    return doors[request.param]


def arguments(name):
    return remote.OpenArguments(name, 0).pack()


def second_open(client, name, kind=FrameType.CALL, status=Status.OK, descriptors=0):
    """One as it goes over the wire, with the client's next serial."""
    client.serial += 1
    payload = arguments(name)
    if kind in {FrameType.CALL_WITH_FDS, FrameType.REPLY_WITH_FDS}:
        payload = descriptors.to_bytes(4, "big") + payload
    return frames.frame(kind, client.serial, payload, procedure=Remote.CONNECT_OPEN, status=status)


def check_refused(client, frame, serial=None):
    assert frame is not None, "the session has ended"
    assert frame.header.serial == (client.serial if serial is None else serial)
    assert (frame.header.type, frame.header.status) == (FrameType.REPLY, Status.ERROR)
    failure = Failure.unpack(frame.payload)
    assert failure.code == ErrorCode.INTERNAL_ERROR
    assert failure.message == "internal error: connection already open"


def check_goes_on(client):
    reply = client.call(Remote.CONNECT_GET_LIB_VERSION)
    assert reply is not None
    assert (reply.header.serial, reply.header.status) == (client.serial, Status.OK)


def names_of(trap):
    """A harmless one, which is what makes a daemon forget, and then those that it would obey."""
    return [URI, *trap.names]


def test_it_is_answered_as_libvirt_does_it(door, trap):
    with door() as client:
        for name in names_of(trap):
            client.send(second_open(client, name))
            check_refused(client, client.receive())
        check_goes_on(client)
    assert not trap.sprung


def test_pipelined_ones_are_answered_each(door, trap):
    with door() as client:
        first = client.serial + 1
        calls = [second_open(client, name) for name in names_of(trap)]
        client.send(b"".join(calls) + client.frame(Remote.CONNECT_GET_LIB_VERSION))
        replies = {frame.header.serial: frame for frame in (client.receive() for _ in range(4))}
        for serial in range(first, first + 3):
            check_refused(client, replies[serial], serial)
        assert replies[first + 3].header.status == Status.OK
    assert not trap.sprung


@pytest.mark.parametrize("cut", [1, 3, 4, 7, 11, 12, 15, 16, 19, 20, 24, 27, 28, 29, 40, 0])
def test_one_that_comes_in_two_parts_is_refused(door, trap, cut):
    """0 is byte by byte."""
    with door() as client:
        for name in names_of(trap):
            wire = second_open(client, name)
            parts = [wire[:cut], wire[cut:]] if cut else [bytes([byte]) for byte in wire]
            for part in parts:
                client.send(part)
            check_refused(client, client.receive())
        check_goes_on(client)
    assert not trap.sprung


def test_one_that_is_cut_at_any_byte_is_refused(doors, trap):
    size = len(frames.call(0, arguments(trap.names[0])))
    for cut in range(1, size):
        with doors["UNIX, read-only"]() as client:
            for name in names_of(trap):
                wire = second_open(client, name)
                client.send(wire[:cut])
                client.send(wire[cut:])
                check_refused(client, client.receive())
    assert not trap.sprung


@pytest.mark.parametrize(("way", "descriptors"), [("UNIX", 0), ("UNIX", 3), ("TLS", 0)])
def test_one_with_descriptors_is_refused_with_them(doors, trap, way, descriptors):
    with doors[way]() as client, open(os.devnull) as null:
        for name in names_of(trap):
            client.send(second_open(client, name, FrameType.CALL_WITH_FDS, descriptors=descriptors))
            for _ in range(descriptors):
                send_descriptor(client.sock, null.fileno())
            check_refused(client, client.receive())
        check_goes_on(client)
    assert not trap.sprung


@pytest.mark.parametrize("size", [40_000, 1_000_000])
def test_one_behind_a_long_frame_is_refused(door, trap, size):
    with door() as client:
        for name in names_of(trap):
            long = client.frame(Remote.CONNECT_GET_LIB_VERSION, bytes(size))
            client.send(long + second_open(client, name))
            replies = {frame.header.serial: frame for frame in (client.receive(), client.receive())}
            check_refused(client, replies[client.serial])
            assert replies[client.serial - 1].header.status == Status.OK
    assert not trap.sprung


@pytest.mark.parametrize("status", [1, 2, 3, -1, 2**31 - 1])
def test_one_that_says_something_else_of_its_status_does_no_harm(door, trap, status):
    """libvirt answers it with an error of its own; it counts only that nothing is obeyed."""
    with door() as client:
        for name in names_of(trap):
            client.send(second_open(client, name, status=status))
            assert client.receive().header.status == Status.ERROR
        client.send(second_open(client, trap.names[0]))
        check_refused(client, client.receive())
        check_goes_on(client)
    assert not trap.sprung


@pytest.mark.parametrize("kind", [*set(FrameType) - {0, 4}, 7, -1, 2**31 - 1])
def test_one_that_is_no_call_does_no_harm(door, trap, kind):
    """A daemon drops it."""
    with door() as client:
        for name in names_of(trap):
            client.send(second_open(client, name, kind))
        client.send(second_open(client, trap.names[0]))
        check_refused(client, client.receive())
        check_goes_on(client)
    assert not trap.sprung


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_one_of_another_version_does_no_harm(door, trap, version):
    with door() as client:
        for name in names_of(trap):
            wire = second_open(client, name)
            client.send(wire[:8] + version.to_bytes(4, "big") + wire[12:])
            assert client.receive().header.status == Status.ERROR
        client.send(second_open(client, trap.names[0]))
        check_refused(client, client.receive())
    assert not trap.sprung


def test_one_that_never_ends_reaches_nobody(door, trap):
    with door() as client:
        client.send(second_open(client, URI))
        check_refused(client, client.receive())
        client.send(second_open(client, trap.names[0])[:-1])
    with door() as client:
        check_goes_on(client)
    assert not trap.sprung


# The whole attack, as somebody without rights does it at the address for everybody.
NOBODYS = """
from hostile_kit import *
directory, *names = sys.argv[1:]
sock = open_session(f"{directory}/libvirt-sock-ro")
for serial, name in enumerate(["test:///default", *names]):
    sock.sendall(frame(CONNECT_OPEN, opening(name, READONLY), serial=serial))
    fields, _ = receive(sock)
    say(fields[5:])
"""


def test_somebody_without_rights_gets_nothing_run(doors, trap):
    front = doors["front"]
    front.sock_ro.chmod(0o777)
    with hostile(NOBODYS, front.directory, *trap.names) as nobody:
        for serial in range(3):
            assert nobody.hear(DEADLINE_S) == [serial, Status.ERROR]
    assert not trap.sprung
