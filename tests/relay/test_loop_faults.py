"""Faults of our own and of the machine: what one pair's costs the others."""

import logging
import resource

import pytest

from proxyd.relay.flow import SPLICE_ABOVE
from proxyd.relay.loop import SCRATCH_SIZE, RelayLoop
from proxyd.relay.pair import RelayedPair
from tests.fakes.endpoints import BrokenEndpoint, HesitantEndpoint
from tests.relay import frames
from tests.relay.session import endpoint_on, unix_pair


@pytest.mark.parametrize("method", ["read_into", "write", "close"])
def test_an_error_of_ours_ends_that_pair_alone_and_is_counted_and_logged(start, caplog, method):
    session = start()
    client, daemon, pair = session.open(client_end=lambda sock: BrokenEndpoint(sock, method))
    session.turn()
    with caplog.at_level(logging.ERROR, "proxyd.relay"):
        if method == "close":
            session.loop.drop(pair.number, "dropped")
        daemon.sendall(frames.reply(1))
        client.sendall(frames.call(1))
        session.turn(2)
    assert session.reported == [pair]
    assert session.loop.bugs == 1
    assert any(record.exc_info for record in caplog.records)
    session.send(session.client, frames.call(2))
    assert session.at_daemon.serials == [2]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_endpoint_may_keep_a_part_of_what_it_failed_to_write(start, direction):
    """While the error is handled, its traceback holds what the endpoint made of the view."""
    end = "client_end" if direction == "down" else "daemon_end"
    session = start(**{end: lambda sock: HesitantEndpoint(sock, [0])})
    sender, receiver = session.client, session.daemon
    if direction == "down":
        sender, receiver = receiver, sender
    sender.sendall(frames.call(1))
    session.turn()
    receiver.close()
    session.come_to_rest()
    sender.close()
    session.come_to_rest()
    assert session.ended
    assert session.loop.bugs == 0


@pytest.mark.parametrize("how", ["ended", "protocol error", "dropped"])
def test_a_report_that_fails_ends_no_other_pair(no_descriptor_leaks, how):
    """Reports go through trio's token, which raises once trio's run is over."""

    def failing(pair):
        raise RuntimeError("nobody listens")

    loop = RelayLoop(report=failing)
    sockets = []

    def adopt(number):
        (client, near), (daemon, far) = unix_pair(), unix_pair()
        sockets.extend([client, daemon])
        kind = {"pipes": loop.pipes, "figures": loop.figures, "now_ns": 0}
        loop.adopt(RelayedPair(number, endpoint_on(near), endpoint_on(far), **kind))
        return client, daemon

    try:
        client, daemon = adopt(1)
        other_client, other_daemon = adopt(2)
        loop.turn(0)
        if how == "ended":
            client.close()
            daemon.close()
        elif how == "protocol error":
            client.sendall(bytes(28))
        else:
            loop.drop(1, "dropped")
        for _ in range(3):
            loop.turn(0)
        other_client.sendall(frames.call(1))
        loop.turn(0)
        assert other_daemon.recv(100) == frames.call(1)
    finally:
        for sock in sockets:
            sock.close()
        loop.stop("the test is over")
        try:
            loop.run()
        except RuntimeError:
            loop.run()


def test_a_pair_that_cannot_be_watched_is_ended_and_reported(start):
    session = start()
    client, daemon, pair = session.open()
    pair.backend.endpoint.close()
    session.turn()
    assert session.reported == [pair]
    assert pair.reason == "the relay cannot watch it: Bad file descriptor"
    assert client.recv(1) == b""
    assert daemon.recv(1) == b""


@pytest.mark.parametrize("size", [SCRATCH_SIZE + SPLICE_ABOVE + 1000, 3_000_000])
def test_without_descriptors_for_pipes_long_frames_are_copied(start, size):
    session = start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wires = [frames.packet(size, 1), frames.call(2)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        session.send(session.client, b"".join(wires))
        session.send(session.daemon, b"".join(wires))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert session.at_daemon.wires == wires
    assert session.at_client.wires == wires
    assert session.loop.bugs == 0


def test_a_descriptor_that_the_process_has_no_room_for_ends_the_session(session, files):
    session.client.sendall(frames.call_with_descriptors(1))
    session.relay()
    frames.send_descriptor(session.client, files[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        session.relay()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert session.ended
    assert "no courier can be had for its descriptors" in session.reason


def test_the_last_activity_is_that_of_the_last_byte(session):
    before = session.pair.active_ns
    session.send(session.client, frames.call(1))
    between = session.pair.active_ns
    assert between > before
    session.send(session.daemon, frames.reply(1))
    assert session.pair.active_ns > between
