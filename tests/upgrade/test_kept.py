"""Sessions that are left for the next process, and what that makes of them."""

import os
import socket
import struct

import pytest
import trio

from proxyd.admission.admission import Admission
from proxyd.audit.writer import Audit
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.peer.names import NameService
from proxyd.process.fdstore import Parcel
from proxyd.relay.loop import STOPPED
from proxyd.session.handover import Relay
from proxyd.session.roster import Roster
from proxyd.session.rulings import Rulings
from proxyd.upgrade import kept
from proxyd.upgrade.format import packed
from tests.session.desk import DEADLINE_S, eventually, seated

CALL = struct.pack(">7I", 28, 0x20008086, 1, 157, 0, 1, 0)


class Systemd:
    """Keeps a parcel, or not."""

    def __init__(self, *, keeps=True):
        self.keeps = keeps
        self.kept = []
        self.unstored = 0

    async def keep(self, parcel, _notifier):
        await trio.lowlevel.checkpoint()
        if not self.keeps:
            parcel.close()
            return False
        self.kept += [os.dup(each) for each in parcel.ends]
        parcel.hold_no_longer()
        return True

    def unstore(self, _name):
        self.unstored += 1


class Plane:
    """One process: a roster, a relay, and sessions between two sockets that the test holds."""

    def __init__(self, nursery):
        self.roster = Roster(Admission(max_clients=1000, max_anonymous=0))
        self.relay = Relay(self.roster.relay_ended)
        self.scope = trio.CancelScope()
        nursery.start_soon(self.run)

    async def run(self):
        with self.scope:
            await self.relay.run()

    def open(self, stack, *, kind=UnixEndpoint, owner="uid 0"):
        (client, near), (daemon, far) = socket.socketpair(), socket.socketpair()
        for outer in (client, daemon):
            stack.append(outer)
            outer.settimeout(DEADLINE_S)
        arrived = seated(self.roster, end=lambda _: None)
        arrived.backend, arrived.uri = "/run/libvirt/virtqemud-sock", "qemu:///system"
        pair = self.relay.adopt(
            arrived.number,
            kind(near),
            UnixEndpoint(far),
            now_ns=0,
            owner=owner,
            readonly=False,
        )
        self.roster.opened(arrived, pair, end=lambda _: None)
        return client, daemon

    async def leave(self, systemd, *, closes_apart=True):
        return await kept.leave(self.relay, self.roster, None, closes_apart=closes_apart)

    def go_on(self, systemd):
        ends, systemd.kept = systemd.kept, []
        rulings = Rulings(lambda: None, NameService(), self.roster.clients)
        kept.go_on(ends, self.relay, self.roster, Audit(), systemd, rulings)


@pytest.fixture
def systemd(monkeypatch):
    made = Systemd()
    monkeypatch.setattr(kept, "keep", made.keep)
    yield made
    for each in made.kept:
        os.close(each)


@pytest.fixture
def sockets():
    made = []
    yield made
    for each in made:
        each.close()


@pytest.fixture
async def planes(nursery):
    """The process before, and the next one."""
    return Plane(nursery), Plane(nursery)


def exchange(client, daemon):
    client.sendall(CALL)
    assert daemon.recv(100) == CALL
    daemon.sendall(CALL)
    assert client.recv(100) == CALL


async def run(function, *arguments):
    await trio.to_thread.run_sync(function, *arguments)


async def test_sessions_go_on_as_who_they_were(planes, systemd, sockets):
    before, after = planes
    ends = [before.open(sockets) for _ in range(300)]
    for each in ends:
        await run(exchange, *each)
    told = {number: str(client) for number, client in before.roster.clients.items()}
    assert await before.leave(systemd) == 300
    assert before.roster.clients == {}
    await eventually(lambda: not before.relay.loops[0].sessions, "they are let go")
    ends[0][0].sendall(CALL)  # while nobody serves it

    after.go_on(systemd)

    assert {number: str(client) for number, client in after.roster.clients.items()} == told
    assert systemd.unstored == 1
    assert await trio.to_thread.run_sync(ends[0][1].recv, 100) == CALL
    for each in ends:
        await run(exchange, *each)
    calls = {client.pair.up.calls for client in after.roster.clients.values()}
    assert calls == {2, 3}
    assert after.roster.last == 300
    assert after.roster.admission.clients == 300
    for client, daemon in ends:
        client.close()
        daemon.close()
    await eventually(lambda: not after.roster.clients, "they have ended")
    assert after.roster.admission.clients == 0


async def test_the_groups_of_who_came_before_there_were_rules_are_learned(planes, systemd, sockets):
    """A release that knew none has not told of them; a rule may ask for them now."""
    before, after = planes
    before.open(sockets)
    await before.leave(systemd)

    after.go_on(systemd)

    (client,) = after.roster.clients.values()
    assert os.getgid() in client.gids


async def test_where_systemd_keeps_nothing_they_go_on_here(planes, systemd, sockets):
    before, _ = planes
    systemd.keeps = False
    ends = [before.open(sockets) for _ in range(3)]
    assert await before.leave(systemd) is None
    for each in ends:
        await run(exchange, *each)
    assert len(before.roster.clients) == 3


async def test_when_it_is_given_up_they_go_on_here(planes, systemd, sockets, monkeypatch):
    before, _ = planes

    async def never(_parcel, _notifier):
        await trio.sleep_forever()

    monkeypatch.setattr(kept, "keep", never)
    ends = before.open(sockets)
    with trio.move_on_after(0.1):
        await before.leave(systemd)
    await run(exchange, *ends)


async def test_nobody_is_left_where_nobody_is(planes, systemd):
    before, after = planes
    assert await before.leave(systemd) == 0
    after.go_on(systemd)
    assert systemd.unstored == 0


@pytest.mark.parametrize("owner", ["uid 0", "uid 1000"])
@pytest.mark.parametrize("kind", [UnixEndpoint, PlainEndpoint])
@pytest.mark.parametrize("closes_apart", [True, False])
async def test_what_strangers_can_put_into_a_queue_is_not_left_to_pid_1(
    planes, systemd, sockets, owner, kind, closes_apart
):
    """A socket pair takes descriptors from its first moment on."""
    before, _ = planes
    ends = before.open(sockets, kind=kind, owner=owner)
    left = await before.leave(systemd, closes_apart=closes_apart)
    dangerous = kind is UnixEndpoint and owner != "uid 0" and not closes_apart
    assert left == (0 if dangerous else 1)
    if dangerous:
        await run(exchange, *ends)


async def test_one_that_was_ended_meanwhile_is_not_left(planes, systemd, sockets):
    before, _ = planes
    before.open(sockets)
    before.relay.drop(1, STOPPED)
    assert await before.leave(systemd) == 0
    await eventually(lambda: not before.roster.clients, "it has ended")


def parcel_of(systemd, document, descriptors=(), *, cut=0):
    """What another release may have left."""
    text, beside = packed(document)
    content = struct.pack(">QQ", len(text), len(beside)) + text + beside
    parcel = Parcel()
    parcel.put(content[: len(content) - cut], descriptors)
    systemd.kept += [os.dup(each) for each in parcel.ends]
    parcel.hold_no_longer()


@pytest.mark.parametrize(
    ("document", "sockets_with_it", "cut"),
    [
        ({}, 0, 0),
        ({"format": 99, "sessions": []}, 0, 0),
        ({"format": 1, "sessions": "none"}, 0, 0),
        ({"format": 1, "sessions": [{}]}, 1, 0),
        ({"format": 1, "sessions": []}, 2, 0),
        ({"format": 1, "sessions": [{}]}, 2, 1),
        ({"format": 1, "sessions": [{}]}, 2, 0),
        ({"format": 1, "sessions": ["x"]}, 2, 0),
        ({"format": 1, "sessions": [{"client": {}, "state": {}}]}, 2, 0),
        ({"format": 1, "last": "x", "sessions": [{"client": {"number": 1}}]}, 2, 0),
    ],
)
async def test_what_is_malformed_is_one_line_and_closed(
    planes, systemd, caplog, document, sockets_with_it, cut
):
    _, after = planes
    ours, peer = socket.socketpair()
    peer.settimeout(DEADLINE_S)
    with ours, peer:
        parcel_of(systemd, document, [ours.fileno()] * sockets_with_it, cut=cut)
    caplog.clear()
    after.go_on(systemd)
    assert after.roster.clients == {}
    assert after.roster.admission.clients == 0
    warnings = [each for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "\n" not in warnings[0].getMessage()


async def test_a_state_that_is_malformed_ends_that_session_alone(
    planes, systemd, sockets, caplog, monkeypatch
):
    before, after = planes
    ends = [before.open(sockets) for _ in range(3)]
    original = kept.packed

    def damaged(document):
        del document["sessions"][1]["state"]["up"]
        return original(document)

    monkeypatch.setattr(kept, "packed", damaged)
    assert await before.leave(systemd) == 3
    after.go_on(systemd)
    assert list(after.roster.clients) == [1, 3]
    assert await trio.to_thread.run_sync(ends[1][0].recv, 100) == b""
    await run(exchange, *ends[0])
    await run(exchange, *ends[2])
    assert "a session that the process before has left cannot go on" in caplog.text
    assert after.roster.admission.clients == 2
