"""What a session may hold at the moment when it moves, one thing at a time; and moves that fail."""

import copy
import os
import socket
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.endpoint.ancillary import SO_PASSRIGHTS, has_never_taken_any, refuse_descriptors
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.moving import endpoint_from
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.endpoint.sasl import SaslEndpoint
from proxyd.relay.guards import Guards
from proxyd.relay.loop import STOPPED
from proxyd.relay.moving import FLOW, PAIR, STOPWATCH
from proxyd.relay.moving import state_of as state_of_pair
from proxyd.relay.pair import CLIENT_CLOSED
from proxyd.relay.trail import Outcome
from proxyd.wire.frame import FrameType, Header, Status
from proxyd.wire.programs import Program, Remote
from tests.bed.examples import examples
from tests.fakes.layer import FakeLayer, framed, layered
from tests.fakes.tls import TLS_1_3, secured
from tests.relay import frames
from tests.relay.conversations import DESTROY, GUEST, UPLOAD
from tests.relay.frames import call, packet, reply, send_descriptor, set_identity
from tests.relay.moving import Recorder, Travelling, from_text, to_text
from tests.relay.session import SMALL_BUFFER, fill, tcp_pair, unix_pair


@pytest.fixture
def travel(no_descriptor_leaks):
    """Starts a session that can move; closes it at the end."""
    running = []

    def starting(**kind):
        running.append(Travelling(**kind))
        return running[-1]

    yield starting
    for each in running:
        each.close()


def state_of(session):
    """Its state now; it thaws again."""
    frozen = session.freeze()
    session.loop.thaw(frozen)
    session.loop.turn(0)
    return frozen.state


def test_a_header_in_parts(travel):
    session = travel()
    for at in range(28):
        session.client.send(call(1)[at : at + 1])
        session.come_to_rest()
        assert session.move()
    assert session.at_daemon.wires == []
    session.relay()
    assert session.at_daemon.wires == [call(1)]


def test_a_long_call_that_is_held_until_it_is_whole_and_its_memory(travel):
    session = travel()
    wire = call(1, frames.noise(200_000))
    session.client.send(wire[:100_000])
    session.come_to_rest()
    assert state_of(session)["up"]["lent"] == 100_000

    assert session.move()

    here, before = session.loops
    assert (here.pipes.memory._of.total(), before.pipes.memory._of.total()) == (100_000, 0)
    session.send(session.client, wire[100_000:])
    assert session.at_daemon.wires == [wire]
    assert not here.pipes.memory._of


def test_memory_that_is_held_already_moves_where_none_is_left(travel):
    session = travel()
    wire = call(1, frames.noise(200_000))
    session.client.send(wire[:100_000])
    session.come_to_rest()
    session.other.pipes.memory._most = 1
    assert session.move()
    session.client.send(wire[100_000:])
    session.turn_until(lambda: session.ended)
    assert "no memory is left" in session.reason  # for more
    assert not session.loop.pipes.memory._of


def test_what_a_pipe_holds_goes_in_front_of_all_else(travel):
    session = travel(buffer=SMALL_BUFFER, pair=unix_pair)
    wire = packet(250_000)
    rest = memoryview(wire)
    while not session.down._piped:
        rest = rest[fill(session.daemon, rest) :]
        session.turn()
    session.client.send(set_identity(9))
    session.come_to_rest()
    held = session.down._piped

    assert session.move()

    here, before = session.loops
    assert len(session.down._unsent) == held
    assert not before.pipes._held
    while rest:
        rest = rest[fill(session.daemon, rest) :]
        session.relay()
    session.relay()
    assert session.at_client.wires[0] == wire
    assert session.at_client.serials[1:] == [9]
    assert not here.pipes._held


def test_a_call_that_is_being_taken_out(travel):
    session = travel()
    wire = set_identity(5, size=100_000)
    session.client.send(wire[:40_000])
    session.come_to_rest()
    assert session.move()
    session.send(session.client, wire[40_000:] + call(6))
    assert session.at_client.serials == [5]
    assert session.at_daemon.serials == [6]
    assert session.up.refusals == 1


def test_a_refusal_that_waits_for_the_end_of_a_frame(travel):
    session = travel()
    wire = packet(100_000)
    session.daemon.send(wire[:50_000])
    session.come_to_rest()
    session.client.send(set_identity(5) + call(6))
    session.come_to_rest()
    assert state_of(session)["down"]["inserting"]
    assert session.move()
    session.send(session.daemon, wire[50_000:])
    assert session.at_client.serials == [1, 5]
    assert session.at_daemon.serials == [6]


def test_packets_that_wait_for_their_stream(travel):
    session = travel()
    about = {"procedure": UPLOAD}
    session.client.send(call(1, **about))
    session.come_to_rest()
    upward = frames.frame(FrameType.STREAM, 1, b"content", status=Status.CONTINUE, **about)
    session.client.send(upward)
    session.come_to_rest()
    assert state_of(session)["up"]["waits"]
    assert session.move()
    session.relay()
    assert session.at_daemon.wires == [call(1, **about)]
    session.send(session.daemon, reply(1, **about))
    assert session.at_daemon.wires == [call(1, **about), upward]


def test_a_call_that_waits_for_its_first_descriptor(travel, files, inodes):
    session = travel()
    wire = frames.call_with_descriptors(2)
    session.client.send(wire)
    session.come_to_rest()
    assert state_of(session)["up"]["held"] == {"content": wire, "missing": 0}
    assert session.move()
    for each in files[:2]:
        send_descriptor(session.client, each)
        session.relay()
        assert session.move()
    session.relay()
    assert [each.files for each in session.at_daemon.arrived] == [inodes[:2]]
    assert session.figures["up", "bytes"][frames.NODE_GET_INFO] == len(wire)


def test_a_descriptor_in_a_queue_stays_there(travel, files, inodes):
    session = travel()
    session.client.send(frames.call_with_descriptors(1))
    send_descriptor(session.client, files[0])
    frozen = session.freeze()  # the turn before has read what is in front of it
    if frozen is None:
        session.relay()
        pytest.fail("a courier was quicker than the freeze")
    session.loop.thaw(frozen)
    session.relay()
    assert [each.files for each in session.at_daemon.arrived] == [inodes[:1]]


def test_while_a_courier_is_at_it_a_session_does_not_move(travel, files):
    session = travel()
    session.client.send(frames.call_with_descriptors(1))
    send_descriptor(session.client, files[0])
    session.turn_until(lambda: session.up.errand is not None)
    assert session.freeze() is None
    session.relay()
    assert session.move()


def test_a_client_that_has_ended_its_half_and_waits(travel):
    session = travel(parting_s=30)
    session.client.send(call(1))
    session.client.shutdown(socket.SHUT_WR)
    session.come_to_rest()
    assert session.pair.leaving
    assert session.move()
    session.come_to_rest()
    session.daemon.send(reply(1))
    session.relay()
    assert session.at_client.wires == [reply(1)]
    assert session.ended
    assert session.reason == CLIENT_CLOSED
    assert session.at_daemon.serials[-1] == 0x7FFFFFFF  # told in order


def test_a_client_that_is_gone_is_parted_with_where_its_session_is(travel):
    session = travel(parting_s=30)
    session.client.send(call(1, procedure=UPLOAD))
    session.come_to_rest()
    assert session.move()
    session.client.close()
    session.relay()
    assert session.ended
    assert len(session.loop.partings.live) == 1
    session.daemon.send(reply(1, procedure=UPLOAD))
    session.relay()
    header = session.at_daemon.arrived[-1].header
    assert (header.procedure, header.type, header.status) == (
        UPLOAD,
        FrameType.STREAM,
        Status.ERROR,
    )


def test_the_time_of_a_call_goes_on(travel):
    session = travel()
    session.client.send(call(1))
    session.come_to_rest()
    assert session.move()
    session.send(session.daemon, reply(1))
    assert session.pair.stopwatch.timed == 1
    assert 0 < session.pair.stopwatch.sum_ns < 10**10
    assert session.timed == 1


def test_a_call_under_way_is_recorded_once_with_what_it_is_about(travel):
    recorder = Recorder()
    session = travel(trail=recorder.trail)
    session.client.send(call(1, GUEST, procedure=DESTROY))
    session.come_to_rest()
    assert session.move()
    assert recorder.calls == []
    session.send(session.daemon, reply(1, procedure=DESTROY))
    ((_, procedure, serial, about, outcome),) = recorder.calls
    assert (procedure, serial, about.name, outcome) == (DESTROY, 1, b"guest", Outcome.OK)


def test_a_change_that_cannot_be_recorded_and_has_not_come_whole(travel):
    recorder = Recorder()
    session = travel(trail=recorder.trail)
    recorder.refuses = True
    wire = frames.call_with_descriptors(1, 4, GUEST, procedure=DESTROY)
    session.client.send(wire[:30] + b"")
    session.come_to_rest()
    assert session.move()
    session.send(session.client, wire[30:] + b"")
    session.client.send(b"")
    assert session.move()
    with open("/dev/null") as null:
        send_descriptor(session.client, null.fileno())
        session.relay()
    session.turn_until(lambda: session.up.denials == 1)
    session.relay()
    assert session.at_client.serials == [4]
    assert session.at_daemon.wires == []


@pytest.mark.parametrize("readonly", [True, False])
def test_who_may_only_look_still_may_not_pass_descriptors(travel, readonly):
    session = travel(readonly=readonly)
    assert session.move()
    session.client.send(frames.call_with_descriptors(1, payload=b"argument"))
    session.come_to_rest()
    assert session.ended is readonly
    assert session.pair.readonly is readonly


def passes(sock):
    return sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS)


def test_a_socket_that_refuses_descriptors_goes_on_to_refuse_them(travel, files):
    def as_a_listener_makes_it(sock):
        refuse_descriptors(sock)
        return UnixEndpoint(sock)

    session = travel(asked=False, readonly=True, client_end=as_a_listener_makes_it)
    assert session.move()
    refuses = has_never_taken_any(session.pair.client.endpoint._sock)
    assert state_of(session)["client"] == {"kind": "unix", "looks": not refuses}
    if refuses:  # an older kernel cannot
        with pytest.raises(PermissionError):
            send_descriptor(session.client, files[0])
    session.send(session.client, call(1))
    assert session.at_daemon.serials == [1]


def test_a_socket_with_descriptors_in_its_queue_still_looks(files):
    near, far = unix_pair()
    with near:
        send_descriptor(near, files[0])
        before = UnixEndpoint(far, bury=close)
        settings = options(far)
        copy = far.dup()
        after = endpoint_from(from_text(to_text(before.state())), copy)
        assert options(copy) == settings
        assert after.read_into(memoryview(bytearray(10))) == -2  # DESCRIPTOR
        before.let_go()
        near.close()
        after.close()


def close(sock):
    sock.close()


def options(sock):
    names = (socket.SO_OOBINLINE, SO_PASSRIGHTS, socket.SO_PASSCRED)
    found = []
    for each in names:
        try:
            found.append(sock.getsockopt(socket.SOL_SOCKET, each))
        except OSError:  # an older kernel
            found.append(None)
    return found


WRONG_SOCKETS = [
    ({"kind": "unix", "looks": True}, tcp_pair, "no UNIX socket"),
    ({"kind": "plain"}, unix_pair, "no socket of the network"),
    ({"kind": "plain"}, lambda: socket.socketpair(type=socket.SOCK_DGRAM), "no stream"),
    ({"kind": "tls"}, tcp_pair, "unknown here"),
    ({"kind": "sasl", "below": {"kind": "plain"}, "layer": {}}, tcp_pair, "no security layer"),
    ({"kind": "unix", "looks": False, "more": 1}, unix_pair, "'more' is unknown"),
    ({}, unix_pair, "unknown here"),
    (None, unix_pair, "is no table"),
]


@pytest.mark.parametrize(("state", "pair", "said"), WRONG_SOCKETS)
def test_a_socket_that_is_not_what_its_state_says_is_refused(state, pair, said):
    near, far = pair()
    with near, far:
        with pytest.raises(ValueError, match=said):
            endpoint_from(state, far)
        assert far.fileno() >= 0  # still the caller's


def test_a_state_does_not_let_descriptors_in_that_were_refused():
    near, far = unix_pair()
    with near, far:
        assert not has_never_taken_any(far)  # as sockets are made
        with pytest.raises(ValueError, match="its state says that none can"):
            endpoint_from({"kind": "unix", "looks": False}, far)


def test_neither_side_sees_anything_of_a_session_that_is_let_go(travel):
    session = travel()
    frozen = session.freeze()
    sockets = [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]
    session.loop.let_go(frozen)
    session.turn()
    for sock in (session.client, session.daemon):
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    assert session.reported == []
    assert session.loop.sessions == 0
    for sock in sockets:
        sock.close()


def test_what_is_let_go_with_descriptors_in_its_queue_is_closed_by_a_courier(travel, files):
    session = travel()
    frozen = session.freeze()
    send_descriptor(session.client, files[0])
    sockets = [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]
    session.loop.let_go(frozen)
    session.turn()
    assert COURIERS.settled(10)
    content, got, _, _ = socket.recv_fds(sockets[0], 10, 1)  # nobody took it, nothing was shut down
    assert (content, len(got)) == (b"\0", 1)
    os.close(got[0])
    for sock in sockets:
        sock.close()


def test_a_session_that_thaws_goes_on(travel):
    session = travel()
    session.client.send(call(1))
    frozen = session.freeze()
    session.client.send(call(2))
    session.turn(3)
    assert session.loop.sessions == 1
    session.loop.thaw(frozen)
    session.relay()
    assert session.at_daemon.serials == [1, 2]
    session.loop.thaw(frozen)  # twice is harmless, and so is letting go of what has thawed
    session.loop.let_go(frozen)
    session.send(session.daemon, reply(1))
    assert session.at_client.serials == [1]


ENDS = {
    "drop": lambda loop: loop.drop(1, "thrown out"),
    "all of its owner": lambda loop: loop.drop_all_of("", "thrown out"),
    "quiet ones": lambda loop: loop.end_quiet("thrown out"),
    "all": lambda loop: loop.part_all("thrown out"),
}


@pytest.mark.parametrize("end", ENDS)
def test_who_is_thrown_out_while_frozen_ends_when_it_thaws(travel, end):
    session = travel()
    frozen = session.freeze()
    ENDS[end](session.loop)
    session.turn(2)
    assert session.reported == []
    assert frozen.dropped == "thrown out"
    session.loop.thaw(frozen)
    session.turn()
    assert session.reported == [session.pair]
    assert session.reason == "thrown out"


@pytest.mark.parametrize("end", ENDS)
def test_who_was_thrown_out_and_is_let_go_lives_on_elsewhere(travel, end):
    session = travel()
    frozen = session.freeze()
    sockets = [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]
    pair = session.restored(from_text(to_text(frozen.state)), sockets)
    ENDS[end](session.loop)
    session.loop.let_go(frozen)
    session.turn()
    session.other.resume(pair)
    session.loop, session.other, session.pair = session.other, session.loop, pair
    session.send(session.client, call(1))
    assert session.at_daemon.serials == [1]


def test_what_is_frozen_when_the_loop_stops_is_ended_and_reported(travel):
    session = travel()
    frozen = session.freeze()
    session.loop.stop(STOPPED)
    session.loop.run()
    assert session.reported == [session.pair]
    assert session.reason == STOPPED
    assert session.client.recv(1) == b""
    session.loop.thaw(frozen)
    session.loop.let_go(frozen)
    got = []
    session.loop.freeze(1, got.append)
    assert got == [None]


def test_a_pair_that_comes_to_a_loop_that_has_stopped_is_ended(travel):
    session = travel()
    frozen = session.freeze()
    sockets = [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]
    pair = session.restored(frozen.state, sockets)
    session.loop.let_go(frozen)
    session.turn()
    session.other.stop("enough")
    session.other.run()
    session.other.resume(pair)
    assert session.reported == [pair]


def test_nobody_by_that_number(travel):
    session = travel()
    got = []
    session.loop.freeze(99, got.append)
    session.turn()
    assert got == [None]


def test_tls_stays_where_it_is(travel):
    peer, endpoint = secured(*tcp_pair(), version=TLS_1_3)
    session = travel(client_end=lambda sock: (sock.close(), endpoint)[1])
    assert not session.pair.moves
    assert session.freeze() is None
    peer.close()


def test_a_layer_that_thaws_is_used_again(travel):
    peers = []

    def client_end(_):
        peer, endpoint = layered(*unix_pair())
        peers.append((peer, endpoint))
        return endpoint

    session = travel(client_end=lambda sock: (sock.close(), client_end(sock))[1])
    ((peer, endpoint),) = peers
    peer.sendall(call(1))
    session.relay()
    frozen = session.freeze()
    assert endpoint._layer.moved
    session.loop.thaw(frozen)
    peer.sendall(call(2))
    session.relay()
    assert session.at_daemon.serials == [1, 2]
    peer.close()


class StubbornLayer(FakeLayer):
    """Cannot be moved, or cannot be used again when it has not moved after all."""

    exports = True

    def state(self):
        if not self.exports:
            raise ValueError("it cannot be moved")
        return super().state()

    def go_on(self):
        if self.exports:
            raise ValueError("it is lost")


@pytest.mark.parametrize("exports", [True, False])
def test_a_layer_that_fails_costs_its_own_session_at_most(travel, exports):
    layer = StubbornLayer()
    layer.exports = exports
    session = travel(client_end=lambda sock: SaslEndpoint(UnixEndpoint(sock), layer))
    frozen = session.freeze()
    if exports:
        session.loop.thaw(frozen)
        session.turn()
        assert session.reason == "it cannot go on: it is lost"
        assert session.ended
    else:
        assert frozen is None
        session.client.send(framed(FakeLayer().wrap(call(1))))
        session.relay()
        assert session.at_daemon.serials == [1]
    assert session.loop.bugs == 0


def test_an_error_of_our_own_leaves_the_session_where_it_is(travel, monkeypatch, caplog):
    session = travel()
    monkeypatch.setattr(UnixEndpoint, "state", lambda _: 1 / 0)
    assert session.freeze() is None
    assert session.loop.bugs == 1
    session.send(session.client, call(1))
    assert session.at_daemon.serials == [1]
    assert "ZeroDivisionError" in caplog.text


def busy(travel):
    """A session of which nearly everything is to be said."""
    session = travel(trail=Recorder().trail)
    session.client.send(call(1, procedure=UPLOAD) + call(2, GUEST, procedure=DESTROY))
    session.come_to_rest()
    session.daemon.send(reply(1, procedure=UPLOAD) + packet(1000)[:600])
    session.come_to_rest()
    session.client.send(set_identity(5) + call(3, bytes(100_000))[:50_000])
    session.come_to_rest()
    return session


def test_a_frame_that_is_refused_no_more_is_answered_all_the_same(travel):
    """Its beginning is gone; whoever goes on may have other rules."""
    session = travel()
    wire = set_identity(5, size=100_000)
    session.client.send(wire[:40_000])
    session.come_to_rest()
    session._guards = Guards({})
    assert session.move()
    session.send(session.client, wire[40_000:] + call(6))
    assert session.at_daemon.serials == [6]
    assert session.at_client.serials == [5]


def restore(session, state, frozen):
    """As another process would; its copies of the sockets are closed if nothing comes of it."""
    sockets = [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]
    try:
        return session.restored(state, sockets)
    finally:
        for sock in sockets:
            sock.close()


BOTH = {
    "_bulk": 3,
    "_crowded": 5,
    "_due": 2,
    "_head": b"abc",
    "_left": 9,
    "_lent": 12,
    "_rider_waits": True,
    "_unsent": b"unsent",
    "broken": True,
    "calls": 101,
    "denials": 102,
    "done": False,
    "ended": True,
    "errors": 103,
    "exhausted": True,
    "keepalives": 104,
    "last": 6,
    "lost": "gone",
    "moved": 105,
    "refusals": 106,
    "wants_courier": True,
}
VALUES = {
    "up": {
        **BOTH,
        "_denied": True,
        "_dropping": 7,
        "_refused": Header(Program.REMOTE, 1, int(Remote.CONNECT_SET_IDENTITY), 4, 9, 0),
        "_resumes": True,
        "_seen": 4,
        "_seen_of": 8,
        "_unasked": True,
        "_waits": True,
        "_held": None,  # of which there are tests
        "inserting": b"",
    },
    "down": {
        **BOTH,
        "inserting": b"a refusal",
        **dict.fromkeys(["_denied", "_resumes", "_unasked", "_waits"], False),
        **dict.fromkeys(["_dropping", "_seen", "_seen_of"], 0),
        **dict.fromkeys(["_held", "_refused"]),
    },
    "stopwatch": {"serial": 11, "_procedure": 12, "_began_ns": 13, "sum_ns": 14, "timed": 15},
    "": {
        "active_ns": 21,
        "daemon": "/its/socket",
        "number": 22,
        "offended": True,
        "owner": "uid 23",
        "parts": True,
        "readonly": False,
        "reason": "because",
    },
}
NOTHING_LEFT = {
    "done": True,
    "_unsent": b"",
    "inserting": b"",
    **dict.fromkeys(["_rider_waits", "wants_courier"], False),
}


def given_values(owner, values):
    for attribute, value in values.items():
        setattr(owner, attribute, value)


def test_every_attribute_arrives_as_it_was(travel):
    session = travel()
    frozen = session.freeze()
    pair = frozen.pair
    before = {attribute: getattr(pair, attribute) for attribute in PAIR}
    for name, table in {"up": FLOW, "down": FLOW, "stopwatch": STOPWATCH, "": PAIR}.items():
        assert VALUES[name].keys() == table.keys()
        given_values(getattr(pair, name) if name else pair, VALUES[name])

    other = restore(session, from_text(to_text(state_of_pair(pair))), frozen)

    for name, values in VALUES.items():
        owner = getattr(other, name) if name else other
        assert {each: getattr(owner, each) for each in values} == values
    for flow in (pair.up, pair.down):
        given_values(flow, {**VALUES["down"], **NOTHING_LEFT})
    other = restore(session, from_text(to_text(state_of_pair(pair))), frozen)
    assert other.done
    given_values(pair, before)


def test_a_reason_that_is_long_is_cut(travel):
    session = travel()
    frozen = session.freeze()
    frozen.pair.reason = frozen.pair.up.lost = "long" * 5000
    other = restore(session, from_text(to_text(state_of_pair(frozen.pair))), frozen)
    assert len(other.reason) == len(other.up.lost) == 4096


ODD = [None, True, False, -1, 0, 1, 1 << 31, 1 << 40, 1 << 70, 1.5, "", "text", b"", b"\0" * 40]
ODD += [[], {}, [1], {"a": 1}]
# Copies: what is damaged once more would be another one in the next example.
of_odd = st.sampled_from(ODD).map(copy.deepcopy)
odd = of_odd | st.integers() | st.binary(max_size=60) | st.text(max_size=10)


def places(state, at=()):
    """The way to everything in there."""
    yield at
    pairs = state.items() if isinstance(state, dict) else enumerate(state)
    for key, value in pairs:
        yield (*at, key)
        if isinstance(value, dict | list) and value:
            yield from places(value, (*at, key))


@given(st.data())
@examples(400)
def test_a_state_that_is_damaged_is_an_error_of_value_or_something_that_may_be(data):
    running = []
    session = busy(lambda **kind: running.append(Travelling(**kind)) or running[0])
    try:
        frozen = session.freeze()
        state = from_text(to_text(frozen.state))
        for _ in range(data.draw(st.integers(1, 3))):
            *way, last = data.draw(st.sampled_from([each for each in places(state) if each]))
            inside = state
            for key in way:
                inside = inside[key]
            match data.draw(st.sampled_from(["other", "other", "gone", "more"])):
                case "other":
                    inside[last] = data.draw(odd)
                case "gone":
                    del inside[last]
                case _ if isinstance(inside, dict):
                    inside[data.draw(st.text(max_size=5))] = data.draw(odd)
        with expecting_at_most(ValueError):
            restore(session, state, frozen)
        session.loop.thaw(frozen)
        session.turn()
        assert session.reported == []
    finally:
        session.close()


@given(st.data())
@examples(300)
def test_a_damaged_state_that_may_be_harms_its_own_session_at_most(data):
    running = []
    session = busy(lambda **kind: running.append(Travelling(**kind)) or running[0])
    try:
        frozen = session.freeze()
        state = from_text(to_text(frozen.state))
        way = data.draw(st.sampled_from(["up", "down"]))
        for _ in range(data.draw(st.integers(1, 4))):
            name = data.draw(st.sampled_from(sorted(state[way])))
            state[way][name] = data.draw(likely(state[way][name]))
        sockets = [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]
        try:
            pair = session.restored(state, sockets)
        except ValueError:
            for sock in sockets:
                sock.close()
            session.loop.thaw(frozen)
            session.turn()
            return
        session.loop.let_go(frozen)
        session.turn()
        session.other.resume(pair)
        for wire in (call(7), packet(40_000), set_identity(8)):
            for sock in (session.client, session.daemon):
                with suppress(OSError):
                    sock.send(wire)
            for _ in range(5):
                session.other.turn(0)
        session.client.close()
        session.daemon.close()
        for _ in range(20):
            session.other.turn(0)
        assert session.other.bugs == 0
        assert session.reported == [pair]
    finally:
        session.close()


def likely(value):
    match value:
        case bool():
            return st.booleans()
        case int():
            return st.sampled_from([0, 1, 2, 28, 32, 1000, 40_000]) | st.integers(0, 1 << 25)
        case bytes():
            whole = st.sampled_from([b"", call(1), call(1) * 3, set_identity(4), packet(50_000)])
            return whole | st.binary(max_size=60)
        case str():
            return st.text(max_size=5)
        case None:
            return st.sampled_from(
                [None, [0x20008086, 1, 419, 0, 5, 0], {"content": call(1)[:28], "missing": 0}]
            )
    return st.sampled_from([None, value])


@contextmanager
def expecting_at_most(error):
    said = ""
    try:
        yield
    except error as raised:
        said = str(raised)
    assert "\n" not in said
    assert len(said) < 500


@given(odd)
@examples(100)
def test_what_is_no_state_at_all_is_an_error_of_value(whatever):
    near, far = unix_pair()
    with near, far:
        with pytest.raises(ValueError, match=r"is no table|unknown here"):
            endpoint_from(whatever, far)
        assert far.fileno() >= 0


@pytest.mark.parametrize("name", sorted({each.lstrip("_") for each in FLOW}))
@pytest.mark.parametrize("way", ["up", "down"])
def test_no_field_of_a_flow_may_be_missing(travel, way, name):
    session = busy(travel)
    frozen = session.freeze()
    del frozen.state[way][name]
    with pytest.raises(ValueError, match=f"^{way}: '{name}' is missing$"):
        restore(session, frozen.state, frozen)
    session.loop.thaw(frozen)
    session.turn()


@pytest.mark.parametrize("name", sorted(PAIR))
def test_no_field_of_a_pair_may_be_missing(travel, name):
    session = busy(travel)
    frozen = session.freeze()
    del frozen.state[name]
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        restore(session, frozen.state, frozen)
    session.loop.thaw(frozen)
    session.turn()
