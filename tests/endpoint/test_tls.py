"""What only an endpoint with TLS does: records, the two kinds of end, failed handshakes."""

import contextlib
import fcntl
import hmac
import os
import select
import socket
import struct
import termios
import threading

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL
from OpenSSL._util import lib

from proxyd.endpoint import openssl, tls
from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.tls import HandshakeFailed, TlsEndpoint
from tests.bed.pairs import take_all, tcp_pair
from tests.fakes.tls import TLS_1_2, TLS_1_3, secured, server_context

SCRATCH = 65536
RECORD = 16384


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


@pytest.fixture
def ends(version, no_descriptor_leaks):
    peer, endpoint = secured(*tcp_pair(), version=version)
    yield peer, endpoint
    peer.close()
    endpoint.close()


@pytest.fixture
def scratch():
    return memoryview(bytearray(SCRATCH))


def wait_for_input(endpoint):

    assert select.select([endpoint.fileno()], [], [], 5)[0]


def test_what_is_left_of_a_record_is_pending_and_epoll_knows_nothing_of_it(ends, scratch):
    peer, endpoint = ends
    peer.sendall(b"abcdef")
    wait_for_input(endpoint)
    assert endpoint.read_into(scratch[:4]) == 4
    assert endpoint.pending
    assert not select.select([endpoint.fileno()], [], [], 0)[0]
    assert endpoint.read_into(scratch) == 2
    assert not endpoint.pending


def test_a_view_that_is_filled_exactly_leaves_nothing_pending(ends, scratch):
    peer, endpoint = ends
    peer.sendall(b"abcd")
    wait_for_input(endpoint)
    assert endpoint.read_into(scratch[:4]) == 4
    assert not endpoint.pending


def test_a_run_of_full_records_is_read_in_one_go(ends, scratch):
    peer, endpoint = ends
    peer.sendall(bytes(4 * RECORD))
    wait_for_input(endpoint)
    assert endpoint.read_into(scratch) >= 2 * RECORD  # the kernel may still carry the last ones


def test_a_write_goes_out_in_records_and_is_taken_whole(ends):
    peer, endpoint = ends
    content = os.urandom(5 * RECORD + 7)
    assert endpoint.write(memoryview(content)) == len(content)
    assert take_all(peer, len(content)) == content


@pytest.fixture
def calls(monkeypatch):
    """Which of OpenSSL's functions were called, with how many bytes, and what they said."""
    made = []

    def noting(name, function):
        def noted(handle, room, size):
            said = function(handle, room, size)
            made.append((name, size, said))
            return said

        monkeypatch.setattr(tls, name, noted)

    noting("read", openssl.read)
    noting("write", openssl.write)
    return made


def test_a_small_frame_is_one_read_and_one_write(ends, scratch, calls):
    peer, endpoint = ends
    frame = (60).to_bytes(4) + bytes(56)
    peer.sendall(frame)
    wait_for_input(endpoint)
    assert endpoint.read_into(scratch) == 60
    assert endpoint.write(scratch[:60]) == 60
    assert calls == [("read", RECORD, 60), ("write", 60, 60)]
    assert peer.recv(100) == frame


def test_behind_a_full_record_another_attempt_raises_nothing(ends, scratch, calls, monkeypatch):
    peer, endpoint = ends
    peer.sendall(bytes(RECORD))
    wait_for_input(endpoint)
    monkeypatch.setattr(openssl, "raise_error", None)
    got = 0
    while got < RECORD:
        got += max(0, endpoint.read_into(scratch))
    assert calls[-1][:2] == ("read", RECORD)
    assert not endpoint.pending


def test_of_a_crowd_of_frames_some_are_taken_and_the_rest_is_for_another_turn(ends):
    peer, endpoint = ends
    frame = (28).to_bytes(4) + bytes(24)
    view = memoryview(frame * 2340)
    turns = []
    while view:
        turns.append(endpoint.write(view))
        view = view[turns[-1] :]
        assert take_all(peer, turns[-1]) == frame * (turns[-1] // 28)
    assert max(turns) <= 128 * 28
    assert len(turns) < 20


def test_a_goodbye_is_the_end_and_the_answer_still_goes_out(ends, scratch):
    peer, endpoint = ends
    peer.say_goodbye()
    wait_for_input(endpoint)
    assert [endpoint.read_into(scratch), endpoint.read_into(scratch)] == [0, 0]
    assert endpoint.write(memoryview(b"answer")) == 6
    assert peer.recv(100) == b"answer"


def test_an_end_without_goodbye_is_the_end_and_the_answer_still_goes_out(ends, scratch):
    peer, endpoint = ends
    peer.shutdown(socket.SHUT_WR)
    wait_for_input(endpoint)
    assert [endpoint.read_into(scratch), endpoint.read_into(scratch)] == [0, 0]
    assert endpoint.write(memoryview(b"answer")) == 6
    assert peer.recv(100) == b"answer"


def test_ending_the_writing_says_goodbye(ends):
    peer, endpoint = ends
    endpoint.end_write()
    with pytest.raises(SSL.ZeroReturnError):
        peer._wait_for(lambda: peer.connection.recv(1))
    assert peer.connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN


def test_a_forged_record_is_a_hang_up_with_a_reason_that_stays(ends, scratch):
    peer, endpoint = ends
    peer.sendall(b"genuine")
    peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    wait_for_input(endpoint)
    assert endpoint.read_into(scratch) == 7
    wait_for_input(endpoint)
    for _ in range(2):
        with pytest.raises(HungUp, match=r"TLS: .*(mac|decrypt|record)") as hung_up:
            endpoint.read_into(scratch)
        assert not hung_up.value.while_writing
    with pytest.raises(HungUp, match="TLS: ") as hung_up:
        endpoint.write(memoryview(b"x"))
    assert hung_up.value.while_writing


def test_a_forged_record_behind_a_full_one_is_announced_although_the_socket_is_empty(ends, scratch):
    peer, endpoint = ends
    peer.sendall(bytes(RECORD))
    forged = b"\x17\x03\x03\x00\x20" + bytes(32)
    peer.sock.sendall(forged)
    waiting = bytearray(4)
    while struct.unpack("i", waiting)[0] < RECORD + len(forged):
        fcntl.ioctl(endpoint.fileno(), termios.FIONREAD, waiting)
    assert endpoint.read_into(scratch) == RECORD
    assert endpoint.pending
    with pytest.raises(HungUp, match="TLS: "):
        endpoint.read_into(scratch)


def test_a_client_may_not_start_the_handshake_again(no_descriptor_leaks, scratch):
    peer, endpoint = secured(*tcp_pair(), version=TLS_1_2)
    peer.connection.renegotiate()
    with pytest.raises(SSL.WantReadError):
        peer.connection.do_handshake()
    wait_for_input(endpoint)
    assert endpoint.read_into(scratch) == NOTHING  # answered with an alert, nothing more
    with pytest.raises(SSL.Error, match="renegotiation"):
        peer._wait_for(peer.connection.do_handshake)
    peer.close()
    endpoint.close()


@pytest.fixture
def unsecured(no_descriptor_leaks):
    other, sock = tcp_pair()
    endpoint = TlsEndpoint(sock, server_context(), None)
    yield other, endpoint
    other.close()
    endpoint.close()


def test_a_handshake_waits_for_its_peer(unsecured):
    _, endpoint = unsecured
    assert not endpoint.handshake()
    assert not endpoint.reads_when_writable


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "http request"),
        (b"\0\0\0\x1c\x20\0\x80\x86" + bytes(20), "wrong version number"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "bad extension"),
    ],
)
def test_what_is_no_tls_fails_the_handshake_with_a_reason(unsecured, sent, reason):
    other, endpoint = unsecured
    other.sendall(sent)
    wait_for_input(endpoint)
    with pytest.raises(HandshakeFailed, match=reason):
        endpoint.handshake()


def test_an_end_in_the_middle_of_the_handshake_is_a_hang_up(unsecured):
    other, endpoint = unsecured
    other.shutdown(socket.SHUT_WR)
    wait_for_input(endpoint)
    with pytest.raises(HungUp, match="closed"):
        endpoint.handshake()


def test_a_handshake_at_a_full_socket_waits_for_room(no_descriptor_leaks):
    other, sock = socket.socketpair()
    sock.setblocking(False)
    filled = 0
    while True:  # so that the server's first answer finds no room
        try:
            filled += sock.send(bytes(1 << 16))
        except BlockingIOError:
            break
    hello = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    hello.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        hello.do_handshake()
    other.sendall(hello.bio_read(SCRATCH))
    endpoint = TlsEndpoint(sock, server_context(), None)
    assert not endpoint.handshake()
    assert endpoint.reads_when_writable
    while filled:
        filled -= len(other.recv(min(filled, 1 << 20)))
    assert not endpoint.handshake()
    assert not endpoint.reads_when_writable
    assert other.recv(SCRATCH).startswith(b"\x16\x03\x03")
    other.close()
    endpoint.close()


def test_records_without_content_hold_no_read(no_descriptor_leaks):
    """A peer that sends nothing but key updates; each read ends with the record that it took."""
    secrets = {}
    other, sock = tcp_pair()
    for each in (other, sock):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    endpoint = TlsEndpoint(sock, server_context(), None)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")

    def keep(_, line):
        label, _, secret = line.split()
        secrets[label] = bytes.fromhex(secret.decode())

    context.set_keylog_callback(keep)
    client = SSL.Connection(context, other)
    client.set_connect_state()
    thread = threading.Thread(target=client.do_handshake)
    thread.start()
    while not endpoint.handshake():
        select.select([sock], [], [], 5)
    thread.join()
    updates = key_updates(secrets[b"CLIENT_TRAFFIC_SECRET_0"], 500)
    other.sendall(updates)
    reads = 0
    scratch = memoryview(bytearray(65536))
    while select.select([sock], [], [], 0.2)[0]:
        assert endpoint.read_into(scratch) == NOTHING
        reads += 1
    assert reads == 500
    other.close()
    endpoint.close()


def key_updates(secret, count):
    """So many records, each with a KeyUpdate that wants no answer (RFC 8446, 4.6.3 and 7.2)."""

    def expanded(label, size):
        info = struct.pack(">HB", size, 6 + len(label)) + b"tls13 " + label + b"\0\x01"
        return hmac.digest(secret, info, "sha256")[:size]

    header, content = bytes([23, 3, 3, 0, 22]), bytes([24, 0, 0, 1, 0, 22])
    records = []
    for _ in range(count):
        cipher = AESGCM(expanded(b"key", 16))
        records.append(header + cipher.encrypt(expanded(b"iv", 12), content, header))
        secret = expanded(b"traffic upd", 32)
    return b"".join(records)


def reset_by(peer):
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize(
    "meets_it",
    [
        lambda endpoint, scratch: endpoint.end_write(),
        lambda endpoint, scratch: endpoint.write(scratch[:100]),
        lambda endpoint, scratch: endpoint.read_into(scratch),
    ],
    ids=["the goodbye", "a write", "a read"],
)
def test_a_reset_leaves_nothing_in_the_threads_list_of_errors(ends, scratch, meets_it):
    peer, endpoint = ends
    reset_by(peer)
    wait_for_input(endpoint)
    with contextlib.suppress(HungUp):
        meets_it(endpoint, scratch)
    assert lib.ERR_peek_error() == 0
