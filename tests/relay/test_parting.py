"""The end of a client, as its daemon sees it: whole frames, every reply awaited, each stream ended.

The daemon here is strict: it notes what it sees, answers only when told to, and a half-close or a
frame that is cut off fails the test.
"""

import socket
import struct

import pytest

from proxyd.relay.farewell import Step
from proxyd.relay.flow import SPLICE_ABOVE
from proxyd.relay.pair import CLIENT_CLOSED
from proxyd.relay.parting import Outcome, Parting
from proxyd.relay.pipes import MOST_HELD
from proxyd.wire.frame import HEADER_SIZE, MAX_FRAME, FrameType, Status
from proxyd.wire.programs import STREAMS, Keepalive, Program, Remote
from proxyd.wire.remote import keepalive
from tests.relay import frames
from tests.relay.session import SMALL_BUFFER, fill, fill_up, open_descriptors, tcp_pair, unix_pair

DOWNLOAD, UPLOAD, CONSOLE = 209, 208, 201
TIMEOUT_S = 30


@pytest.fixture
def parting(start):
    """Starts a session whose daemon is to be told when its client is gone."""

    def starting(**kind):
        return Parted(start(**{"parting_s": TIMEOUT_S, **kind}))

    return starting


@pytest.fixture
def parted(parting):
    return parting()


class Parted:
    """A session, and the daemon's part in it, played by hand."""

    def __init__(self, session):
        self.session = session
        self.seen = 0  # frames that were looked at

    def client_sends(self, *wires):
        self.session.send(self.session.client, b"".join(wires))

    def daemon_sends(self, *wires):
        self.session.send(self.session.daemon, b"".join(wires))

    def open_stream(self, serial, procedure=DOWNLOAD):
        self.client_sends(frames.call(serial, procedure=procedure))
        self.daemon_sends(frames.reply(serial, procedure=procedure))
        self.news()

    def news(self):
        """What the daemon has got since: kind, procedure, serial, status of each frame."""
        self.session.relay()
        arrived = self.session.at_daemon.arrived[self.seen :]
        self.seen += len(arrived)
        return [
            (each.header.type, each.header.procedure, each.serial, each.header.status)
            for each in arrived
        ]

    def ends(self):
        """The client, all of a sudden."""
        self.session.client.close()
        self.session.relay()

    @property
    def loop(self):
        return self.session.loop

    @property
    def live(self):
        return len(self.loop.partings.live)

    @property
    def outcomes(self):
        ended = [there.ended for there in self.loop.partings.of.values()]
        return {outcome: number for each in ended for outcome, number in each.items()}

    @property
    def daemon_was_closed(self):
        """Perhaps by a courier, if descriptors may have come with it."""
        at_daemon = self.session.at_daemon
        self.session.turn_until(lambda: (at_daemon.take(), at_daemon.ended)[1])
        return not at_daemon.cut_off

    def confirm_close(self, news):
        """The daemon gets CONNECT_CLOSE alone, answers, and only then is its connection closed."""
        ((kind, procedure, serial, status),) = news
        assert (kind, procedure, status) == (FrameType.CALL, Remote.CONNECT_CLOSE, Status.OK)
        assert not self.session.at_daemon.ended
        self.daemon_sends(frames.reply(serial, procedure=Remote.CONNECT_CLOSE))
        assert self.daemon_was_closed
        assert self.live == 0
        assert self.outcomes == {Outcome.ORDERLY: 1}


def abort(procedure, serial):
    return (FrameType.STREAM, procedure, serial, Status.ERROR)


def confirmed(procedure, serial, status=Status.OK):
    return frames.frame(FrameType.STREAM, serial, procedure=procedure, status=status)


def data(procedure, serial, size=100):
    payload = frames.noise(size - HEADER_SIZE, serial)
    return frames.frame(
        FrameType.STREAM, serial, payload, procedure=procedure, status=Status.CONTINUE
    )


# Which way it takes.


def test_an_idle_client_that_dies_is_over_at_once_and_its_daemon_is_told(parted):
    parted.ends()
    assert parted.session.ended
    assert parted.session.reason == CLIENT_CLOSED
    assert parted.live == 1
    parted.confirm_close(parted.news())


def test_every_call_gets_its_reply_before_anything_is_said(parted):
    parted.client_sends(*map(frames.call, range(3)))
    assert len(parted.news()) == 3
    parted.ends()
    assert parted.session.ended
    for serial in (2, 0):
        parted.daemon_sends(frames.reply(serial, bytes(1000)))
        assert parted.news() == []
    parted.daemon_sends(frames.reply(1, status=Status.ERROR))
    parted.confirm_close(parted.news())


def test_open_streams_are_aborted_and_the_daemons_word_is_awaited(parted):
    parted.open_stream(1)
    parted.open_stream(2, UPLOAD)
    parted.ends()
    assert sorted(parted.news()) == [abort(UPLOAD, 2), abort(DOWNLOAD, 1)]
    parted.daemon_sends(data(DOWNLOAD, 1, 300_000), confirmed(UPLOAD, 2), data(DOWNLOAD, 1))
    assert parted.news() == []
    parted.daemon_sends(confirmed(DOWNLOAD, 1, Status.ERROR))
    parted.confirm_close(parted.news())


def test_replies_come_first_and_then_aborts(parted):
    parted.open_stream(1)
    parted.client_sends(frames.call(2))
    parted.news()
    parted.ends()
    parted.daemon_sends(data(DOWNLOAD, 1))
    assert parted.news() == []
    parted.daemon_sends(frames.reply(2))
    assert parted.news() == [abort(DOWNLOAD, 1)]
    parted.daemon_sends(confirmed(DOWNLOAD, 1))
    parted.confirm_close(parted.news())


def test_a_stream_whose_opening_call_is_answered_later_is_aborted(parted):
    parted.client_sends(frames.call(1, procedure=DOWNLOAD))
    parted.news()
    parted.ends()
    parted.daemon_sends(data(DOWNLOAD, 1))  # overtakes
    assert parted.news() == []
    parted.daemon_sends(frames.reply(1, procedure=DOWNLOAD))
    assert parted.news() == [abort(DOWNLOAD, 1)]
    parted.daemon_sends(confirmed(DOWNLOAD, 1))
    parted.confirm_close(parted.news())


@pytest.mark.parametrize("opening", [True, False])
@pytest.mark.parametrize("procedure", sorted(STREAMS))
def test_a_stream_that_is_over_is_not_aborted(parting, procedure, opening):
    parted = parting()
    parted.client_sends(frames.call(1, procedure=procedure))
    if opening:  # even the daemon's last word may overtake
        parted.daemon_sends(confirmed(procedure, 1), frames.reply(1, procedure=procedure))
    else:
        parted.daemon_sends(frames.reply(1, procedure=procedure), confirmed(procedure, 1))
    parted.news()
    parted.ends()
    parted.confirm_close(parted.news())


def test_a_stream_that_was_refused_is_not_aborted(parted):
    parted.client_sends(frames.call(1, procedure=DOWNLOAD))
    parted.daemon_sends(frames.reply(1, procedure=DOWNLOAD, status=Status.ERROR))
    parted.news()
    parted.ends()
    parted.confirm_close(parted.news())


def test_a_client_that_has_said_goodbye_is_not_said_goodbye_for(parted):
    parted.client_sends(frames.call(1, procedure=Remote.CONNECT_CLOSE))
    parted.daemon_sends(frames.reply(1, procedure=Remote.CONNECT_CLOSE))
    parted.news()
    parted.ends()
    assert parted.news() == []
    assert parted.daemon_was_closed
    assert parted.outcomes == {Outcome.ORDERLY: 1}


def test_a_daemon_that_has_ended_is_told_nothing(parted):
    parted.client_sends(frames.call(1))
    parted.session.daemon.close()
    parted.session.relay()
    parted.session.client.close()
    parted.session.relay()
    assert parted.session.ended
    assert (parted.live, parted.outcomes) == (0, {})


def test_a_ping_is_answered_between_frames(parted):
    """A daemon that hears nothing for half a minute hangs up, with a call under way."""
    parted.client_sends(frames.call(1))
    parted.news()
    parted.ends()
    for _ in range(3):
        parted.daemon_sends(keepalive(Keepalive.PING).pack())
        assert parted.news() == [(FrameType.MESSAGE, Keepalive.PONG, 0, Status.OK)]
    assert parted.session.at_daemon.arrived[-1].header.program == Program.KEEPALIVE
    parted.daemon_sends(frames.reply(1))
    parted.confirm_close(parted.news())


# How a client may end.


def killed(session):
    session.client.close()


def thrown_out(session):
    session.loop.drop(session.pair.number, "thrown out")


def breaks_the_protocol(session):
    session.client.sendall(bytes(HEADER_SIZE))


def half_closed(session):
    session.client.shutdown(socket.SHUT_WR)


def reset(session):
    session.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.client.close()


def everybody_is_thrown_out(session):
    session.loop.part_all("proxyd stops")


ENDS = [killed, thrown_out, breaks_the_protocol, half_closed, reset, everybody_is_thrown_out]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_whatever_ends_a_client_its_daemon_is_told_in_order(parting, end, pair):
    parted = parting(pair=pair)
    session = parted.session
    parted.open_stream(1)
    end(session)
    session.turn_until(lambda: session.ended)
    session.turn_until(lambda: (session.at_daemon.take(), len(session.at_daemon.arrived) > 1)[1])
    assert parted.news() == [abort(DOWNLOAD, 1)]
    parted.daemon_sends(confirmed(DOWNLOAD, 1))
    parted.confirm_close(parted.news())


def test_frames_in_front_of_one_that_cannot_be_still_get_their_replies(parted):
    parted.client_sends(frames.call(1) + frames.call(2) + bytes(HEADER_SIZE))
    assert parted.session.ended
    assert len(parted.news()) == 2
    parted.daemon_sends(frames.reply(1), frames.reply(2))
    parted.confirm_close(parted.news())


def test_a_client_that_half_closes_gets_its_replies_and_nothing_else(parted):
    parted.client_sends(frames.call(1), frames.call(2))
    half_closed(parted.session)
    assert len(parted.news()) == 2
    assert not parted.session.ended
    parted.daemon_sends(frames.reply(1))
    assert not parted.session.ended
    big = frames.reply(2, bytes(200_000))
    parted.daemon_sends(big[:100_000])
    assert not parted.session.ended
    parted.daemon_sends(big[100_000:])
    assert parted.session.ended
    assert parted.session.at_client.serials == [1, 2]
    parted.session.at_client.take()
    assert parted.session.at_client.ended
    parted.confirm_close(parted.news())


def test_a_client_that_half_closed_and_then_dies_is_not_waited_for(parted):
    parted.client_sends(frames.call(1))
    half_closed(parted.session)
    parted.news()
    assert not parted.session.ended
    parted.ends()
    assert parted.session.ended
    parted.daemon_sends(frames.reply(1))
    parted.confirm_close(parted.news())


def test_a_client_that_half_closed_gets_its_reply_in_the_midst_of_a_stream(parted):
    parted.open_stream(1)
    parted.client_sends(frames.call(2))
    half_closed(parted.session)
    parted.news()
    parted.daemon_sends(*[data(DOWNLOAD, 1, 100_000)] * 20)
    assert not parted.session.ended
    parted.daemon_sends(frames.reply(2), data(DOWNLOAD, 1, 100_000))
    assert parted.session.ended
    assert 2 in parted.session.at_client.serials
    assert parted.news() == [abort(DOWNLOAD, 1)]


def test_a_half_closed_client_waits_for_its_reply_as_long_as_that_takes(parting):
    """It has a session and a place; what is bounded is the parting behind it."""
    parted = parting(parting_s=1)
    parted.client_sends(frames.call(1))
    half_closed(parted.session)
    parted.news()
    parted.session.loop.turn(1.2)
    assert not parted.session.ended
    parted.daemon_sends(frames.reply(1))
    assert parted.session.ended
    assert parted.session.at_client.serials == [1]
    parted.confirm_close(parted.news())


def test_close_beside_an_open_stream_does_not_reach_the_daemon(parted):
    """libvirt 11.3 hangs over it."""
    parted.open_stream(1)
    parted.client_sends(frames.call(2), frames.call(3, procedure=Remote.CONNECT_CLOSE))
    assert parted.news() == [(FrameType.CALL, frames.NODE_GET_INFO, 2, Status.OK)]
    parted.daemon_sends(frames.reply(2))
    assert parted.session.ended
    assert parted.session.reason == CLIENT_CLOSED
    assert parted.session.at_client.serials == [1, 2]
    assert parted.news() == [abort(DOWNLOAD, 1)]
    parted.daemon_sends(confirmed(DOWNLOAD, 1))
    parted.confirm_close(parted.news())


# Where in a frame it ends.


CUTS = [1, 4, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1]


@pytest.mark.parametrize("size", [100, 5000, SPLICE_ABOVE + 1, 70_000, 300_000])
@pytest.mark.parametrize("kind", [FrameType.CALL, FrameType.STREAM_HOLE, FrameType.MESSAGE, 9])
def test_of_a_call_that_is_not_whole_the_daemon_sees_nothing(parting, kind, size):
    for cut in (*CUTS, size // 2, size - 1):
        parted = parting()
        wire = frames.frame(kind, 2, bytes(size - HEADER_SIZE))
        parted.client_sends(frames.call(1), wire[:cut])
        parted.ends()
        assert len(parted.news()) == 1
        parted.daemon_sends(frames.reply(1))
        parted.confirm_close(parted.news())
        parted.session.close()


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
@pytest.mark.parametrize("size", [SPLICE_ABOVE + 1, 70_000, 262_148, 1_000_000])
def test_a_stream_packet_that_is_not_whole_is_filled_up(parting, size, pair):
    for cut in (HEADER_SIZE, HEADER_SIZE + 1, size // 2, size - 1):
        parted = parting(pair=pair)
        parted.open_stream(1, UPLOAD)
        wire = data(UPLOAD, 1, size)
        parted.client_sends(wire[:cut])
        parted.session.turn_until(lambda cut=cut, parted=parted: parted.session.up.moved >= cut)
        parted.ends()
        while len(parted.session.at_daemon.arrived) < 3:
            parted.session.relay()
        arrived = parted.session.at_daemon.wires[1]
        assert arrived == wire[:cut] + bytes(size - cut)
        assert parted.news()[1:] == [abort(UPLOAD, 1)]
        parted.daemon_sends(confirmed(UPLOAD, 1))
        parted.confirm_close(parted.news())
        parted.session.close()


@pytest.mark.parametrize("size", [100, SPLICE_ABOVE])
def test_a_short_stream_packet_goes_on_when_it_is_whole(parting, size):
    """What a human types into a console is not filled up with zeros."""
    for cut in (HEADER_SIZE, HEADER_SIZE + 1, size - 1):
        parted = parting()
        parted.open_stream(1, CONSOLE)
        parted.client_sends(data(CONSOLE, 1, size)[:cut])
        parted.ends()
        assert parted.news() == [abort(CONSOLE, 1)]
        parted.session.close()


def test_a_packet_of_a_stream_that_is_being_opened_waits_for_the_reply(parted):
    """libvirt 11.3 knows such a stream by half."""
    packets = [data(UPLOAD, 1, 1000), data(UPLOAD, 1, 100_000)]
    parted.client_sends(frames.call(1, procedure=UPLOAD), packets[0], frames.call(2), packets[1])
    assert [each[2] for each in parted.news()] == [1]
    assert parted.session.up.paused
    assert parted.session.waits()
    parted.daemon_sends(frames.reply(1, procedure=UPLOAD))
    parted.news()
    assert parted.session.at_daemon.wires[1:] == [packets[0], frames.call(2), packets[1]]


def test_a_packet_of_a_stream_that_was_not_opened_goes_on_then(parted):
    packet = data(UPLOAD, 1, 1000)
    parted.client_sends(frames.call(1, procedure=UPLOAD), packet, frames.call(2))
    assert len(parted.news()) == 1
    parted.daemon_sends(frames.reply(1, procedure=UPLOAD, status=Status.ERROR))
    assert [each[2] for each in parted.news()] == [1, 2]


@pytest.mark.parametrize("size", [SPLICE_ABOVE + 1, 70_000, 3_000_000, MAX_FRAME])
def test_the_longest_call_arrives_when_it_is_whole(parting, size):
    parted = parting()
    wire = frames.call(1, frames.noise(size - HEADER_SIZE))
    parted.client_sends(frames.call(0), wire[: size - 1])
    assert len(parted.news()) == 1
    parted.client_sends(wire[size - 1 :], frames.call(2))
    parted.news()
    assert parted.session.at_daemon.wires == [frames.call(0), wire, frames.call(2)]
    assert parted.session.loop.pipes.memory.lend(MOST_HELD // 2, "somebody"), (
        "memory was not given back"
    )


def test_calls_that_are_held_are_bounded_all_together(start):
    session = start(parting_s=TIMEOUT_S)
    others = [session.open() for _ in range(4)]
    session.turn()
    wire = frames.call(1, bytes(MAX_FRAME - HEADER_SIZE))[:-1]
    ended = []
    for client, _, pair in others:
        rest = memoryview(wire)
        while rest and pair not in session.reported:
            rest = rest[fill(client, rest) :]
            session.turn()
        session.turn(3)
        ended.append(pair in session.reported)
    assert ended == [False, True, True, True]
    assert "no memory is left" in others[1][2].reason


def test_a_call_with_descriptors_goes_on_with_the_first_of_them(parting, files, inodes):
    parted = parting()
    wire = frames.call_with_descriptors(2, 1, b"args")
    parted.client_sends(wire)
    assert parted.news() == []
    frames.send_descriptor(parted.session.client, files[0])
    frames.send_descriptor(parted.session.client, files[1])
    parted.client_sends(frames.call(2))
    parted.news()
    assert parted.session.at_daemon.wires == [wire, frames.call(2)]
    assert parted.session.at_daemon.arrived[0].files == inodes[:2]


def test_a_call_whose_descriptor_never_comes_is_not_begun(parted):
    parted.client_sends(frames.call(1), frames.call_with_descriptors(1, 2, b"args"))
    parted.ends()
    assert len(parted.news()) == 1
    parted.daemon_sends(frames.reply(1))
    parted.confirm_close(parted.news())


def test_a_daemon_that_waits_for_the_second_descriptor_is_cut_off(parting, files):
    """Nobody can give it what it waits for."""
    parted = parting()
    parted.client_sends(frames.call_with_descriptors(2, 1, b"args"))
    frames.send_descriptor(parted.session.client, files[0])
    parted.session.relay()
    parted.ends()
    assert parted.session.ended
    assert parted.live == 0
    parted.session.relay()
    assert parted.session.at_daemon.ended


def test_descriptors_that_come_for_nobody_are_taken_and_closed(parting, files):
    parted = parting()
    parted.client_sends(frames.call(1, procedure=frames.DOMAIN_OPEN_GRAPHICS_FD))
    parted.news()
    parted.ends()
    session = parted.session
    session.daemon.sendall(frames.reply_with_descriptors(2, 1))
    for each in files[:2]:
        frames.send_descriptor(session.daemon, each)
    session.turn_until(lambda: (session.at_daemon.take(), len(session.at_daemon.arrived) == 2)[1])
    parted.confirm_close(parted.news())


# A daemon that is slow, that does not answer, or worse.


def test_what_a_daemon_has_not_taken_yet_still_goes_in_front(parting):
    parted = parting(buffer=SMALL_BUFFER)
    session = parted.session
    parted.open_stream(1, UPLOAD)
    wire = data(UPLOAD, 1, 300_000)
    sent = 0
    while sent < 100_000:
        more = fill(session.client, wire[sent : sent + 10_000])
        sent += more
        session.turn(3)
        session.at_daemon.take(0 if more else 5000)
    session.turn(5)
    session.loop.drop(session.pair.number, "thrown out")
    session.turn()
    assert session.ended
    parted.news()
    came = session.up.moved - HEADER_SIZE
    assert session.at_daemon.wires[1][:came] == wire[:came]
    assert len(session.at_daemon.wires[1]) == len(wire)
    assert session.at_daemon.arrived[2].header.status == Status.ERROR


def test_one_that_never_answers_an_abort_is_closed_when_its_time_is_over(parting):
    parted = parting(parting_s=1)
    parted.open_stream(1)
    before = open_descriptors()
    parted.ends()
    assert parted.news() == [abort(DOWNLOAD, 1)]
    while parted.live:
        parted.session.loop.turn(None)  # wakes by itself
    assert open_descriptors() == before - 3  # the client's two and the daemon's
    assert parted.outcomes == {Outcome.OVERDUE: 1}


def test_one_that_streams_on_is_read_fairly_and_closed_when_its_time_is_over(parting):
    parted = parting(parting_s=1)
    session = parted.session
    parted.open_stream(1)
    parted.ends()
    packet, rest = data(DOWNLOAD, 1, 262_148), b""
    client, daemon, _ = session.open()
    turns = 0
    while parted.live:
        try:
            while True:
                rest = rest or packet
                rest = rest[session.daemon.send(rest) :]
        except (BlockingIOError, BrokenPipeError):
            pass
        fill(client, frames.call(1))
        session.loop.turn(0)
        turns += 1
        daemon.setblocking(False)
        assert daemon.recv(1 << 16) if turns > 1 else True
    assert parted.outcomes == {Outcome.OVERDUE: 1}


def test_one_that_dies_in_a_parting_is_done_with(parted):
    parted.open_stream(1)
    parted.ends()
    parted.session.daemon.close()
    parted.session.relay()
    assert parted.live == 0
    assert parted.outcomes == {Outcome.DAEMON_GONE: 1}


@pytest.mark.parametrize("wire", [bytes(HEADER_SIZE), frames.reply_with_descriptors(40)])
def test_one_that_cannot_be_understood_is_closed(parted, wire):
    parted.client_sends(frames.call(1))
    parted.ends()
    parted.daemon_sends(wire)
    assert parted.live == 0
    assert parted.outcomes == {Outcome.CUT_OFF: 1}


def test_one_that_broke_the_protocol_is_told_nothing(parted):
    parted.client_sends(frames.call(1))
    parted.news()
    parted.daemon_sends(bytes(HEADER_SIZE))
    assert parted.session.ended
    assert (parted.live, parted.outcomes, parted.news()) == (0, {}, [])


def test_beyond_the_places_of_one_daemon_its_oldest_goes(start):
    session = start(parting_s=TIMEOUT_S, partings=8)
    others = [session.open() for _ in range(14)]  # at two daemons in turns
    session.turn()
    for client, _, _ in others:
        client.close()
        session.turn(2)
    partings = session.loop.partings
    assert len(partings.live) == 8
    assert [there.now for there in partings.of.values()] == [4, 4]
    assert [there.ended for there in partings.of.values()] == [{Outcome.DISPLACED: 3}] * 2
    closed = [daemon.recv(100) and daemon.recv(100) == b"" for _, daemon, _ in others[:6]]
    assert closed == [True] * 6


def test_places_of_several_threads_are_counted_together(start):
    """As those that encrypt have them. Each makes room among its own, if it has any."""
    beside = []
    first, second = (start(parting_s=TIMEOUT_S, partings=8, beside=beside) for _ in range(2))
    for session, count in ((first, 7), (second, 3)):
        others = [session.open() for _ in range(count)]
        session.turn()
        for client, _, _ in others:
            client.close()
            session.turn(2)
    of_both = [session.loop.partings for session in (first, second)]
    assert [len(each.live) for each in of_both] == [7, 1]
    assert of_both[0].of.keys() == of_both[1].of.keys()
    displaced = [sum(each.ended.total() for each in both.of.values()) for both in of_both]
    assert displaced == [0, 2]


def test_a_parting_owns_one_descriptor_and_no_buffer(parting):
    parted = parting()
    before = open_descriptors()
    parted.open_stream(1)
    parted.ends()
    assert open_descriptors() == before - 2  # the client's two ends
    ((_, parting),) = parted.loop.partings.live.items()
    assert not parting.up.stalled
    assert parting._farewell.step is Step.STREAMS


def test_the_end_of_the_loop_ends_partings_at_once(parted):
    parted.open_stream(1)
    parted.ends()
    assert parted.live == 1
    parted.loop.stop("the end")
    parted.session.turn()
    assert (parted.live, parted.outcomes) == (0, {Outcome.CUT_OFF: 1})


def test_a_timeout_of_zero_closes_at_once(parting):
    parted = parting(parting_s=0)
    parted.open_stream(1)
    parted.client_sends(frames.call(2))
    parted.ends()
    parted.session.relay()
    assert parted.session.at_daemon.ended
    assert (parted.live, parted.outcomes) == (0, {})


def test_an_error_of_the_relays_own_ends_one_parting_alone(parted, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("a slip of ours")

    parted.open_stream(1)
    parted.ends()
    monkeypatch.setattr(Parting, "serve", fails)
    parted.daemon_sends(confirmed(DOWNLOAD, 1))
    assert (parted.live, parted.loop.partings.bugs) == (0, 1)
    assert "a slip of ours" in caplog.text
    client, daemon, _ = parted.session.open()
    parted.session.turn()
    client.send(frames.call(1))
    parted.session.turn()
    assert daemon.recv(100) == frames.call(1)


def test_an_upload_that_fills_everything_up_is_bounded(parting):
    """A client that sends on and on to a daemon that takes nothing, and is thrown out."""
    parted = parting(buffer=SMALL_BUFFER)
    session = parted.session
    parted.open_stream(1, UPLOAD)
    wire = data(UPLOAD, 1, 200_000) * 20
    at = 0
    while more := fill_up(session.client, wire[at:]):
        at += more
        session.come_to_rest()
    session.loop.drop(session.pair.number, "thrown out")
    session.turn()
    assert session.ended
    assert parted.live == 1
    assert parted.news()[-1] == abort(UPLOAD, 1)
