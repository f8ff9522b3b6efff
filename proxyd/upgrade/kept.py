"""Sessions that go on in the next process of the service, though this one ends before it starts.

    leave: freeze ── into a parcel ── systemd has it ── let go ── exit
    go_on: taken out ── [state, sockets] ── relay

In between systemd holds them (process/fdstore.py), nobody serves them, and what comes waits in the
queues of their sockets. A session is in one of three hands: this process has it until systemd has
said that it keeps all of them; the next one has it from the moment at which it takes it out of the
queue, and it is in no queue then.

Who drops a socket last closes what is in its queue, which a stranger may have made such that it
waits. If that could be PID 1 itself, those sessions are not left (`closes_apart`).
"""

import functools
import logging
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from proxyd.admin.document import written
from proxyd.audit.writer import Audit
from proxyd.endpoint.ancillary import ROOT
from proxyd.endpoint.couriers import COURIERS
from proxyd.process.fdstore import MOST_DESCRIPTORS, NAME, Packet, Parcel, keep, taken_out
from proxyd.process.systemd_notify import Notifier
from proxyd.relay.moving import Frozen
from proxyd.session.handover import Relay
from proxyd.session.roster import Client, Roster
from proxyd.session.rulings import Rulings
from proxyd.upgrade.documents import ClientTold, client_told, learn_groups
from proxyd.upgrade.format import FORMAT, READS, Unreadable, check_lengths, packed, unpacked

_SOCKETS: Final = 2  # the client's, the daemon's
_IN_A_PACKET: Final = MOST_DESCRIPTORS // _SOCKETS
_LENGTHS: Final = struct.Struct(">QQ")
_LOOK_EVERY_S: Final = 0.02
_PATIENCE_S: Final = 2.0  # with a descriptor that is on its way: a courier needs milliseconds

log = logging.getLogger("daemon.upgrade")


@dataclass(slots=True)
class _Stopped:
    """A session that stands still here."""

    client: Client
    frozen: Frozen


async def leave(
    relay: Relay, roster: Roster, notifier: Notifier, *, closes_apart: bool
) -> int | None:
    """Leaves all sessions that can go on with systemd; how many these are.

    None where it does not keep them: then all of them go on here. Else this process may only end.
    """
    stopped: list[_Stopped] = []
    parcel = Parcel()
    kept = False
    try:
        began = time.monotonic()
        await _freeze_all(relay, roster, stopped, closes_apart=closes_apart)
        stopped.sort(key=lambda each: each.client.number)
        # Who was told to go meanwhile does so when it thaws.
        put = _put(parcel, [each for each in stopped if not each.frozen.dropped], roster.last)
        kept = await keep(parcel, notifier) if put else True
        if not kept:
            return None
        for each in put:
            relay.let_go(each.frozen)
            roster.left_behind(each.client)
            stopped.remove(each)
        log.info(
            "%d sessions go on in the process that is started next; %.3f s",
            len(put),
            time.monotonic() - began,
        )
        return len(put)
    finally:
        if not kept:
            parcel.close()
        for each in stopped:
            relay.thaw(each.frozen)


async def _freeze_all(
    relay: Relay, roster: Roster, stopped: list[_Stopped], *, closes_apart: bool
) -> None:
    waiting = list(roster.clients.values())
    end = trio.current_time() + _PATIENCE_S
    while waiting:
        again: list[Client] = []

        async def freeze(client: Client, again: list[Client] = again) -> None:
            frozen = await relay.freeze(client.number)
            if frozen is None:
                again.append(client)
            elif closes_apart or _holds_nothing_of_strangers(frozen):
                stopped.append(_Stopped(client, frozen))
            else:
                relay.thaw(frozen)

        async with trio.open_nursery() as nursery:
            for client in waiting:
                if client.number in roster.clients and can_be_left(client):
                    nursery.start_soon(freeze, client)
        waiting = again if trio.current_time() < end else []
        if waiting:
            await trio.sleep(_LOOK_EVERY_S)


def can_be_left(client: Client) -> bool:
    """By what it is made of."""
    pair = client.relayed
    return pair is not None and pair.moves


def _holds_nothing_of_strangers(frozen: Frozen) -> bool:
    """Whether nobody but root can have put descriptors into the queue of the client's socket.

    The daemon's is root's, or that user's whose own systemd this is.
    """
    match frozen.state.get("client"):
        case {"kind": "unix", "looks": looks}:
            return not looks or frozen.pair.owner == ROOT
    return True


def _put(parcel: Parcel, stopped: Sequence[_Stopped], last: int) -> list[_Stopped]:
    """Those that are in the parcel now."""
    put: list[_Stopped] = []
    for at in range(0, len(stopped), _IN_A_PACKET):
        put += _put_some(parcel, stopped[at : at + _IN_A_PACKET], last)
    return put


def _put_some(parcel: Parcel, some: Sequence[_Stopped], last: int) -> list[_Stopped]:
    sessions = [
        {"client": written(ClientTold.of(each.client)), "state": each.frozen.state} for each in some
    ]
    try:
        text, beside = packed({"format": FORMAT, "last": last, "sessions": sessions})
        content = _LENGTHS.pack(len(text), len(beside)) + text + beside
        parcel.put(content, [fd for each in some for fd in each.frozen.descriptors])
    except (Unreadable, OSError) as error:
        if len(some) > 1:  # fewer may fit
            half = len(some) // 2
            return _put_some(parcel, some[:half], last) + _put_some(parcel, some[half:], last)
        log.warning("session %d cannot be left: %s", some[0].client.number, error)
        return []
    return list(some)


def go_on(
    kept: Sequence[int],
    relay: Relay,
    roster: Roster,
    audit: Audit,
    notifier: Notifier,
    rulings: Rulings,
) -> None:
    """With what the process before has left, which is in nobody's hands else."""
    if not kept:
        return
    began, count = time.monotonic(), 0
    for packet in taken_out(kept):
        try:
            for told, state, socks in _sessions(packet, roster):
                if _goes_on(told, state, socks, relay, roster, audit, rulings):
                    count += 1
        except Unreadable as error:
            log.warning("sessions that the process before has left cannot go on: %s", error)
        finally:
            packet.close()
    notifier.unstore(NAME)
    log.info("%d sessions of the process before go on; %.3f s", count, time.monotonic() - began)


def _sessions(packet: Packet, roster: Roster) -> "list[tuple[Any, Any, list[socket.socket]]]":
    """What is in there, with the sockets of each. Raises Unreadable."""
    if len(packet.content) < _LENGTHS.size:
        raise Unreadable("they are not described")
    text, beside = _LENGTHS.unpack_from(packet.content)
    check_lengths(text, beside)
    described = packet.content[_LENGTHS.size :]
    if len(described) != text + beside:
        raise Unreadable("they are described in part")
    document = unpacked(described[:text], described[text:])
    if document.get("format") not in READS:
        raise Unreadable(
            f"they are of format {document.get('format')!r}, known are {sorted(READS)}"
        )
    last, sessions = document.get("last"), document.get("sessions")
    if not isinstance(sessions, list) or len(packet.descriptors) != _SOCKETS * len(sessions):
        raise Unreadable("their sockets are not all there")
    if type(last) is int:
        roster.last = max(roster.last, last)
    found = []
    for each in sessions:
        pair = [socket.socket(fileno=packet.descriptors.pop(0)) for _ in range(_SOCKETS)]
        told = each if isinstance(each, dict) else {}
        found.append((told.get("client"), told.get("state"), pair))
    return found


def _goes_on(
    told: Any,
    state: Any,
    socks: Sequence[socket.socket],
    relay: Relay,
    roster: Roster,
    audit: Audit,
    rulings: Rulings,
) -> bool:
    try:
        document = client_told(told)
        _demand_new(document.number, roster)
        client = document.client(roster.admission)
        learn_groups(client, socks[0])
    except (ValueError, OSError) as error:
        _give_up(socks, error)
        return False
    try:
        pair = relay.restored(
            state,
            socks[0],
            socks[1],
            guards=rulings.guards_of(client.ruling),
            pace=rulings.pace_of(client.ruling),
            trail=audit.trail(client.recorded),
        )
        _demand_same(pair.number, client.number)
    except (ValueError, OSError) as error:
        roster.admission.left(client.place)
        _give_up(socks, error)
        return False
    roster.last = max(roster.last, client.number)
    roster.came_back(client, pair, functools.partial(relay.drop, client.number))
    relay.go_on_with(pair)
    return True


def _demand_new(number: int, roster: Roster) -> None:
    if number in roster.clients:
        raise Unreadable(f"there is a session {number} already")


def _demand_same(number: int, told: int) -> None:
    if number != told:
        raise Unreadable(f"the state of session {number} came with client {told}")


def _give_up(socks: Sequence[socket.socket], error: Exception) -> None:
    log.warning("a session that the process before has left cannot go on: %s", error)
    for each in socks:
        COURIERS.close(each)
