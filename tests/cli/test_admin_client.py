"""The commands' end of the admin socket, against a daemon that answers as it likes."""

import errno
import json
import os
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from proxyd.cli import admin_client
from proxyd.cli.admin_client import Connection, NoAnswer, Refusal, admin_socket
from proxyd.wire import failure, proxyd_program, remote
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header, Status
from proxyd.wire.programs import OWN_PROGRAM, Keepalive, Own
from tests.admin.live import live_admin
from tests.bed.daemon import short_directory
from tests.fakes.documents import OPEN, STATUS
from tests.session.desk import effective

DEADLINE_S = 10


@pytest.fixture
def directory():
    with short_directory() as made:
        yield made


@pytest.fixture
def live(directory):
    with live_admin(directory) as made:
        yield made


def connected(live):
    return Connection.open(str(live.path))


def test_the_socket_is_the_one_that_no_other_daemon_has():
    assert admin_socket("/run/libvirt") == "/run/libvirt/virtproxyd-admin-sock"


# A daemon as it should be


@pytest.mark.parametrize("ask_daemons", [True, False])
def test_a_status_is_told(live, ask_daemons):
    live.host.state = {"version": "1", "state": "\udcff"}
    told = STATUS | live.host.state
    with connected(live) as connection:
        assert connection.status(ask_daemons=ask_daemons) == told
        assert connection.status(ask_daemons=False) == told
    assert live.host.told == [("status", ask_daemons), ("status", False)]


@pytest.mark.parametrize("count", [0, 1, proxyd_program.LONGEST_PAGE, 300])
def test_clients_are_told_all_together(live, count):
    live.host.listed = [{"id": 2 * number + 1} for number in range(count)]
    with connected(live) as connection:
        assert connection.clients() == [OPEN | each for each in live.host.listed]


def test_a_client_is_kicked_and_then_is_there_no_more(live):
    live.host.listed = [{"id": 17}]
    with connected(live) as connection:
        connection.kick(17)
        with pytest.raises(Refusal, match="there is no client 17"):
            connection.kick(17)
        assert connection.clients() == []


# No daemon


def test_a_socket_that_is_not_there(directory):
    with pytest.raises(NoAnswer) as none:
        Connection.open(str(directory / "none"))
    assert str(none.value) == (
        f"cannot reach the daemon at {directory}/none: No such file or directory; start it"
        " (systemctl start virtproxyd), or name its socket with --socket"
    )


def test_a_socket_that_nobody_listens_at(directory):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(directory / "dead"))
        with pytest.raises(NoAnswer, match="Connection refused; start it"):
            Connection.open(str(directory / "dead"))


def test_a_path_that_no_socket_can_have():
    with pytest.raises(NoAnswer, match="AF_UNIX path too long; name its socket with --socket"):
        Connection.open("/" + "x" * 200)


def test_a_file_that_is_no_socket(directory):
    (directory / "file").write_text("")
    with pytest.raises(NoAnswer, match="Connection refused"):
        Connection.open(str(directory / "file"))


def test_who_may_not_is_told_who_may(live):
    live.path.chmod(0o700)
    live.path.parent.chmod(0o755)
    with effective(65534, 65534), pytest.raises(NoAnswer) as denied:
        connected(live)
    assert str(denied.value).endswith(
        "Permission denied; ask as the user that it runs as, say root"
    )


def test_a_user_whom_the_mode_lets_in_and_the_daemon_does_not(live, monkeypatch):
    monkeypatch.setattr("proxyd.admin.visit.os.geteuid", lambda: 54321)  # it is somebody else's
    with connected(live) as connection, pytest.raises(NoAnswer, match="look at its log"):
        connection.status(ask_daemons=False)


def test_a_backlog_that_is_full(directory):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(directory / "busy"))
        busy.listen(0)
        first.connect(str(directory / "busy"))
        with pytest.raises(NoAnswer, match=f"{os.strerror(errno.EAGAIN)}; others wait there"):
            Connection.open(str(directory / "busy"))


# Another one, or one that has gone mad


@contextmanager
def answering(directory, says):
    """A daemon for one connection that says these bytes to the first call and then hangs up.

    `says` gets the call; None is silence for as long as the block lasts.
    """
    over = threading.Event()

    def serve():
        sock, _ = listener.accept()
        with sock:
            buffer = FrameBuffer()
            while (call := buffer.next_frame()) is None:
                buffer.feed(sock.recv(65536))
            said = says(call)
            if said is None:
                assert over.wait(DEADLINE_S)
            else:
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):  # the rest was not to its liking
                    while sock.recv(65536):
                        continue

    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE_S)
        listener.bind(str(directory / "sock"))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with Connection.open(str(directory / "sock")) as connection:
                yield connection
        finally:
            over.set()
            thread.join()


def refusing(reason):
    return lambda call: reason.reply_to(call.header).pack()


def returning(payload):
    return lambda call: remote.reply(call.header, payload).pack()


def trouble(directory, says, ask=lambda connection: connection.clients()):
    with answering(directory, says) as connection, pytest.raises(NoAnswer) as caught:
        ask(connection)
    said = str(caught.value)
    assert said.isprintable()
    return said.replace(str(directory), "DIR")


def test_another_daemons_socket_is_told_as_that(directory):
    says = refusing(failure.unknown_program(OWN_PROGRAM, 1))
    assert trouble(directory, says) == (
        "DIR/sock is not proxyd's admin socket but another one of libvirt's; name proxyd's with"
        " --socket, or use virt-admin"
    )


def test_a_refusal_is_told_in_the_daemons_words_without_its_control_characters(directory):
    says = refusing(failure.internal("no\x1b]0;title\x07\nprogram \udcff"))
    assert trouble(directory, says) == ("internal error: no\\x1b]0;title\\x07\\nprogram \\udcff")


def test_a_daemon_that_is_older_than_what_is_asked_of_it(directory):
    said = trouble(
        directory,
        refusing(failure.unknown_procedure(Own.DRAIN)),
        lambda connection: connection.drain(on=True),
    )
    assert "is older than this command and cannot do that" in said
    assert "systemctl restart virtproxyd.service" in said


def test_a_refusal_that_does_not_decode(directory):
    def says(call):
        return Frame(call.header.replied(Status.ERROR), b"\0\0").pack()

    assert trouble(directory, says).startswith("DIR/sock: no libvirt daemon answers there: ")


@pytest.mark.parametrize("said", [b"", b"\0\0\0", remote.keepalive(Keepalive.PING).pack()])
def test_a_daemon_that_hangs_up(directory, said):
    assert trouble(directory, lambda call: said) == (
        "DIR/sock: it closed the connection; look at its log"
    )


@pytest.mark.parametrize("length", [0, 27, (4 << 20) + 1, 0xFFFFFFFF, 0x47455420])
def test_a_frame_that_lies_about_its_length(directory, length):
    said = trouble(directory, lambda call: length.to_bytes(4, "big") + bytes(100))
    assert said.startswith(f"DIR/sock: no libvirt daemon answers there: a frame length of {length}")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff\xff\xff",
        proxyd_program.pack_text(""),
        proxyd_program.pack_text("{"),
        proxyd_program.pack_text("\udcff"),
        proxyd_program.pack_text("[" * 100_000),
    ],
)
@pytest.mark.parametrize(
    "ask", [Connection.clients, lambda connection: connection.status(ask_daemons=False)]
)
def test_an_answer_that_cannot_be_read(directory, payload, ask):
    said = trouble(directory, returning(payload), ask)
    assert said.startswith("DIR/sock: its answer cannot be read: ")


def test_what_is_no_reply_is_passed_over(directory):
    def says(call):
        event = Frame(Header(OWN_PROGRAM, 1, Own.STATUS, FrameType.MESSAGE, 0), b"event...")
        reply = remote.reply(call.header, proxyd_program.pack_text(json.dumps({"a": 1})))
        return event.pack() + remote.keepalive(Keepalive.PING).pack() + reply.pack()

    with answering(directory, says) as connection:
        assert connection.status(ask_daemons=True) == {"a": 1}


def test_a_daemon_that_is_silent(directory, monkeypatch):
    monkeypatch.setattr(admin_client, "_PATIENCE_S", 0.05)
    assert trouble(directory, lambda call: None) == (
        "DIR/sock: it is silent for 0.05 s: look at its log"
    )
