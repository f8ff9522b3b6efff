"""Nobody gets a second identity: CONNECT_SET_IDENTITY stops at the proxy."""

import os

import pytest

from proxyd.wire import remote
from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import FrameType, Status
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import Remote
from tests.bed.python_libvirt import run_script
from tests.system.daemon_clients import clients_of, info_of, only_new_client
from tests.system.rpc import opened, send_descriptor

pytestmark = pytest.mark.system

AS_SOMEBODY_ELSE = remote.pack_identity(
    [
        Param("unix-user-id", ParamType.ULLONG, 4242),
        Param("process-id", ParamType.LLONG, 1),
        Param("user-name", ParamType.STRING, "impostor"),
    ]
)


def refused(frame):
    failure = Failure.unpack(frame.payload)
    return (
        frame.header.procedure == Remote.CONNECT_SET_IDENTITY
        and frame.header.status == Status.ERROR
        and failure.code == ErrorCode.ACCESS_DENIED
    )


@pytest.fixture
def client(proxyd, qemu_backend):
    """An open session whose identity at the daemon must be ours, before and after."""
    before = clients_of(qemu_backend)
    with opened(proxyd.sock, "qemu:///system") as connected:
        number = only_new_client(qemu_backend, before)
        yield connected
        alive = connected.call(Remote.CONNECT_GET_LIB_VERSION)
        assert alive.header.serial == connected.serial
        assert alive.header.status == Status.OK
        info = info_of(qemu_backend, number)
        assert (info["unix_user_id"], info["unix_process_id"]) == ("0", str(os.getpid()))


def test_it_is_answered_with_access_denied(client):
    reply = client.call(Remote.CONNECT_SET_IDENTITY, AS_SOMEBODY_ELSE)

    assert refused(reply)
    assert reply.header.serial == client.serial


def test_a_frame_that_comes_byte_by_byte_is_refused(client):
    for byte in client.frame(Remote.CONNECT_SET_IDENTITY, AS_SOMEBODY_ELSE):
        client.send(bytes([byte]))

    assert refused(client.receive())


def test_one_that_hides_between_other_calls_is_refused(client):
    client.send(
        client.frame(Remote.CONNECT_GET_LIB_VERSION)
        + client.frame(Remote.CONNECT_SET_IDENTITY, AS_SOMEBODY_ELSE)
        + client.frame(Remote.CONNECT_GET_LIB_VERSION)
    )

    # Replies may come out of order: the daemon works on several calls at a time.
    replies = {frame.header.serial: frame for frame in (client.receive() for _ in range(3))}
    assert refused(replies[client.serial - 1])
    assert replies[client.serial].header.status == Status.OK
    assert replies[client.serial - 2].header.status == Status.OK


def test_one_that_hides_behind_a_spliced_frame_is_refused(client):
    long = client.frame(Remote.CONNECT_GET_LIB_VERSION, bytes(1_000_000))

    client.send(long + client.frame(Remote.CONNECT_SET_IDENTITY, AS_SOMEBODY_ELSE))

    replies = {frame.header.serial: frame for frame in (client.receive() for _ in range(2))}
    assert refused(replies[client.serial])
    assert replies[client.serial - 1].header.status == Status.OK


def test_one_with_descriptors_is_refused_with_them(client):
    frame = client.frame(Remote.CONNECT_SET_IDENTITY, (1).to_bytes(4, "big") + AS_SOMEBODY_ELSE)
    with_descriptor = frame[:16] + int(FrameType.CALL_WITH_FDS).to_bytes(4, "big") + frame[20:]
    client.send(with_descriptor)
    with open(os.devnull) as null:
        send_descriptor(client.sock, null.fileno())

    assert refused(client.receive())


def test_libvirts_own_call_is_refused(proxyd):
    script = """
import libvirt, sys
connection = libvirt.open(sys.argv[1])
try:
    connection.setIdentity({"unix-user-id": 0, "user-name": "root"}, 0)
except libvirt.libvirtError as error:
    print(error.get_error_code(), error.get_error_message())
print(connection.getLibVersion() > 0)
"""
    uri = f"qemu+unix:///system?socket={proxyd.sock}"

    said = run_script(script, uri).succeeded()

    assert said.startswith("88 access denied: the identity of this connection was set by the proxy")
    assert said.endswith("True\n")


def test_the_attempt_is_in_the_log_at_warning(make_proxyd):
    front = make_proxyd()
    with opened(front.sock) as client:
        client.call(Remote.CONNECT_SET_IDENTITY, AS_SOMEBODY_ELSE)
    front.stop()

    line = next(line for line in front.log_text().splitlines() if "refused" in line)
    assert " warning : " in line
    assert "1 attempts to replace its identity or connection refused" in line
