# ruff: noqa: SLF001 (the other half of flow.py and its neighbours: it takes down what is theirs)
"""A live session as plain data: taken out of one relay loop, put into another one.

Between two events a pair is at rest: no call of its flows is under way, and all that it knows is in
their attributes. The tables below say of each how it moves, and tests/relay/test_moving.py sees to
it that none is forgotten:

* what is in a table of fields goes along as it is, checked for its bounds on arrival;
* what is in `DERIVED` is made anew by the code that goes on: guards, figures and memory of the loop
  that it comes to, what follows from the kinds of both ends.

What a pipe holds is read out of it, in front of what waits behind it. What is in the queues of a
socket stays there, descriptors included. A pair whose descriptor is carried at this moment does
not move (loop.py).

Bytes of frames that have not gone on are counted already, and memory for them is borrowed: both
move from the loop that the pair leaves (`left`) to the one where it arrives (`arrived`), so that no
figure is wrong afterwards, and no memory lost.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from proxyd.endpoint.contract import Endpoint
from proxyd.endpoint.sasl import SaslEndpoint
from proxyd.relay.figures import KNOWN, Clock, Figures, Stopwatch
from proxyd.relay.flow import BULK, REFUSALS_LIMIT, SHORT_READS, SPLICE_ABOVE, Flow, Held
from proxyd.relay.guards import GUARDED, Guards
from proxyd.relay.ledger import STREAMS_LIMIT, Ledger
from proxyd.relay.pace import Pace
from proxyd.relay.pair import RelayedPair
from proxyd.relay.pipes import PipePool
from proxyd.relay.trail import MOST_UNDER_WAY, Begun, Trail
from proxyd.wire.frame import HEADER, HEADER_SIZE, LENGTH_SIZE, MAX_DESCRIPTORS, MAX_FRAME, Header
from proxyd.wire.objects import KEPT, Named
from proxyd.wire.programs import Program
from proxyd.wire.state import (
    WORD,
    Check,
    Plain,
    State,
    content,
    flag,
    items,
    part,
    perhaps,
    row,
    taken,
    whole,
    words,
)

_SIGNED: Final = 1 << 31  # a procedure or a type, as a header has it
_LONGEST_TEXT: Final = 4096  # a reason beyond that is cut; paths and addresses are shorter
_ONE_READ: Final = 1 << 16  # what may have come behind the last frame
# Of our own error: its text is short.
LONGEST_REFUSALS: Final = (REFUSALS_LIMIT + 2) * 4096
# A call that was held until it was whole, or a pipe, and what came behind it.
_MOST_UNSENT: Final = MAX_FRAME + (1 << 21)


def _place(value: object) -> int:
    """Of a procedure in the figures: one that this release does not know is among the others."""
    place: int = whole(WORD)(value)
    return place if place < KNOWN else 0


def _at_most(limit: int) -> Check:
    """A number that may be larger where this release would not have it so."""
    number = whole(WORD)
    return lambda value: min(number(value), limit)


_HELD: Final[Mapping[str, Check]] = {
    "content": content(MAX_FRAME, HEADER_SIZE),
    "missing": whole(MAX_FRAME),
}
_number: Final = whole(_SIGNED - 1, -_SIGNED)
_HEADER: Final = row(whole(WORD), whole(WORD), _number, _number, whole(WORD), _number)


def _held(value: object) -> Held:
    found = taken(value, _HELD)
    wire, missing = found["content"], found["missing"]
    if int.from_bytes(wire[:LENGTH_SIZE]) != len(wire) + missing:
        raise ValueError("is no part of a frame of its length")
    return Held(bytearray(wire), missing)


def _header(value: object) -> Header:
    return Header(*_HEADER(value))


FLOW: Final[Mapping[str, Check]] = {
    "_bulk": _at_most(BULK),
    "_crowded": _at_most(SHORT_READS),
    "_denied": flag,
    "_dropping": whole(MAX_FRAME),
    "_due": whole(MAX_DESCRIPTORS),
    "_head": content(MAX_FRAME + _ONE_READ),
    "_held": perhaps(_held),
    "_left": whole(MAX_FRAME),
    "_lent": whole(2 * MAX_FRAME),
    "_refused": perhaps(_header),
    "_resumes": flag,
    "_rider_waits": flag,
    "_seen": whole(MAX_FRAME),
    "_seen_of": _place,
    "_unasked": flag,
    "_unsent": content(_MOST_UNSENT),
    "_waits": flag,
    "broken": flag,
    "calls": whole(),
    "denials": whole(),
    "done": flag,
    "ended": flag,
    "errors": whole(),
    "exhausted": flag,
    "inserting": content(LONGEST_REFUSALS),
    "keepalives": whole(),
    "last": _place,
    "lost": words(_LONGEST_TEXT),
    "moved": whole(),
    "refusals": whole(),
    "wants_courier": flag,
}
# Written where it says something, so that what has none of it is what it always was.
FLOW_AT_TIMES: Final[Mapping[str, tuple[Check, Plain]]] = {"forbidden": (whole(), 0)}
STOPWATCH: Final[Mapping[str, Check]] = {
    "_began_ns": whole(),
    "_procedure": _place,
    "serial": whole(WORD, -1),
    "sum_ns": whole(),
    "timed": whole(),
}
PAIR: Final[Mapping[str, Check]] = {
    "active_ns": whole(),
    "daemon": words(_LONGEST_TEXT),
    "number": whole(),
    "offended": flag,
    "owner": words(_LONGEST_TEXT),
    "parts": flag,
    "readonly": flag,
    "reason": words(_LONGEST_TEXT),
}
_STREAM: Final = row(whole(_SIGNED), whole(WORD), flag)
_NAMED: Final = row(words(32), *(content(KEPT + 1) for _ in Named._fields[1:]))
_CALL: Final = row(whole(WORD), _number, whole(WORD), whole(), perhaps(_NAMED))
_PARTS: Final[Mapping[str, Check]] = {
    "backend": part,
    "client": part,
    "down": part,
    "streams": perhaps(items(_STREAM, STREAMS_LIMIT)),
    "stopwatch": part,
    "under_way": items(_CALL, MOST_UNDER_WAY),
    "up": part,
}

# By class: what is not in the tables above, and where it comes from instead.
DERIVED: Final[Mapping[type, Mapping[str, str]]] = {
    Flow: {
        "_allowed": "restrict()",
        "_by_procedure": "the loop's figures",
        "_bytes": "the loop's figures",
        "_calling": "a constant",
        "_carrier": "guard()",
        "_counted": "guard()",
        "_errors": "the loop's figures",
        "_frames": "the loop's figures",
        "_guarded": "restrict() and record()",
        "_guards": "restrict()",
        "_ledger": "the pair",
        "paced": "whoever goes on",
        "unpaid": "a new process asks for no time that is owed",
        "_pipe": "read out and given back",
        "_piped": "in front of _unsent",
        "_pipes": "the loop's",
        "_splice_above": "both ends and readonly",
        "_stopwatch": "the pair",
        "_trail": "record()",
        "_whole": "guard()",
        "carries": "both ends and readonly",
        "changed": "whoever adopts looks at everything",
        "dst": "the pair",
        "errand": "with one a pair does not move",
        "partner": "the pair",
        "passes_end": "parts",
        "src": "the pair",
    },
    Stopwatch: {"_clock": "the loop's", "_times": "the loop's figures"},
    Ledger: {"streams": "`streams`"},
    Trail: {
        "_reads": "the settings in force",
        "_recorder": "the settings in force",
        "_who": "whoever goes on",
        "procedures": "the settings in force",
        "under_way": "`under_way`",
    },
    RelayedPair: {
        "home": "the loop's",
        "backend": "`backend`",
        "charged": "what has come before is not charged for",
        "client": "`client`",
        "down": "`down`",
        "ledger": "`streams`",
        "pace": "whoever goes on",
        "paid_ns": "what its identity owes, as whoever goes on has it",
        "stopwatch": "`stopwatch`",
        "trail": "`under_way`, and whoever goes on",
        "up": "`up`",
    },
}


class Frozen:
    """A pair that no loop moves: it thaws where it was, or is let go.

    `state` is what another loop goes on with, and both sockets. `dropped` is why it is to be ended,
    if somebody wanted that meanwhile: it is when it thaws; whoever has let it go tells the other.
    """

    __slots__ = ("dropped", "pair", "state")

    def __init__(self, pair: RelayedPair) -> None:
        """Raises ValueError where it cannot be moved; then it has to `go_on`."""
        self.pair = pair
        self.dropped = ""
        self.state = state_of(pair)

    @property
    def descriptors(self) -> tuple[int, int]:
        """The client's socket and the daemon's; ours until it thaws, is let go or the loop ends."""
        return self.pair.client.endpoint.fileno(), self.pair.backend.endpoint.fileno()

    def drop(self, reason: str) -> None:
        self.dropped = self.dropped or reason

    def go_on(self) -> None:
        """Raises ValueError where a security layer cannot come back."""
        go_on(self.pair)

    def let_go(self) -> None:
        """Whatever one of the two says, the other one is closed too."""
        left(self.pair)
        try:
            self.pair.client.endpoint.let_go()
        finally:
            self.pair.backend.endpoint.let_go()


def go_on(pair: RelayedPair) -> None:
    """It has not moved after all. Raises ValueError where a security layer cannot come back."""
    for end in (pair.client, pair.backend):
        end.endpoint.go_on()


def state_of(pair: RelayedPair) -> State:
    """Of one that is out of its loop. Nothing of it is used after that but what `Frozen` does.

    Raises ValueError where an end cannot be moved.
    """
    for flow in (pair.up, pair.down):
        _empty_pipe(flow)
    streams, trail = pair.ledger.streams, pair.trail
    return {
        **_fields(pair, PAIR),
        "up": _flow(pair.up),
        "down": _flow(pair.down),
        "stopwatch": _fields(pair.stopwatch, STOPWATCH),
        "streams": None
        if streams is None
        else [[*key, is_open] for key, is_open in streams.items()],
        "under_way": [] if trail is None else [_call(*each) for each in trail.under_way.items()],
        "client": pair.client.endpoint.state(),
        "backend": pair.backend.endpoint.state(),
    }


def ends_in(state: object) -> tuple[object, object]:
    """The states of the client's end and the daemon's. Raises ValueError."""
    found = part(state)
    return found.get("client"), found.get("backend")


def pair_from(  # noqa: PLR0913 (made in one place, by keywords)
    state: object,
    client: Endpoint,
    backend: Endpoint,
    *,
    pipes: PipePool,
    figures_of: Callable[[str], Figures],
    clock: Clock,
    guards: Guards = GUARDED,
    trail: Trail | None = None,
    pace: Pace | None = None,
) -> RelayedPair:
    """The pair that had this state, for a loop to go on with; both ends stand where they stood.

    Raises ValueError, and has changed nothing then.
    """
    found = taken(state, {**PAIR, **_PARTS})
    up, down = _taken_flow(found["up"], "up"), _taken_flow(found["down"], "down")
    stopwatch = _taken(found["stopwatch"], STOPWATCH, "stopwatch")
    _check_up(up)
    _check_down(down)
    carries = client.carries_descriptors and backend.carries_descriptors
    if found["readonly"] or not carries:
        _check_carries_none(up, down)
    _check_owed(client, down, "client")
    _check_owed(backend, up, "backend")
    pair = RelayedPair(
        found["number"],
        client,
        backend,
        pipes=pipes,
        figures=figures_of(found["daemon"]),
        clock=clock,
        now_ns=0,
        owner=found["owner"],
        daemon=found["daemon"],
        parts=found["parts"],
        readonly=found["readonly"],
        guards=guards,
        trail=trail,
    )
    for owner, fields in ((pair.up, up), (pair.down, down), (pair.stopwatch, stopwatch)):
        for name, value in fields.items():
            setattr(owner, name, value)
    for name in PAIR:
        setattr(pair, name, found[name])
    pair.set_pace(pace)
    if found["streams"] is not None:
        pair.ledger.streams = {tuple(key): is_open for *key, is_open in found["streams"]}
    if trail is not None:
        trail.under_way |= {key[:3]: _begun(*key[3:]) for key in found["under_way"]}
    return pair


def arrived(pair: RelayedPair) -> None:
    """The loop that goes on with it counts what it brings. In the relay thread."""
    for flow in (pair.up, pair.down):
        _count(flow, 1)
        if flow._lent:
            flow._pipes.owe(flow._lent)


def left(pair: RelayedPair) -> None:
    """Another loop goes on with it, and counts. In the relay thread."""
    for flow in (pair.up, pair.down):
        _count(flow, -1)
        if flow._lent:
            flow._pipes.take_back(flow._lent)
            flow._lent = 0


def _count(flow: Flow, sign: int) -> None:
    """The bytes of a frame that has not gone on: the walk, or a refusal, takes them back."""
    if flow._seen:
        flow._bytes[flow._seen_of] += sign * flow._seen
        flow._frames[flow._seen_of] += sign
    if flow._held is not None and not flow._held.missing:
        wire = flow._held.content
        _, program, _, procedure, _, _, _ = HEADER.unpack_from(wire)
        known = program == Program.REMOTE and 0 < procedure < KNOWN
        flow._bytes[procedure if known else 0] += sign * len(wire)


def _empty_pipe(flow: Flow) -> None:
    pipe = flow._pipe
    if pipe is None:
        return
    front = bytearray()
    while len(front) < flow._piped:
        front += os.read(pipe.read, flow._piped - len(front))
    # Not in place: whoever failed to write may still hold a view of it.
    flow._unsent = front + flow._unsent
    flow._pipes.give_back(pipe)
    flow._pipe, flow._piped = None, 0


def _flow(flow: Flow) -> State:
    told = _fields(flow, FLOW)
    for name, (_, usual) in FLOW_AT_TIMES.items():
        value = getattr(flow, name)
        if value != usual:
            told[name] = _plain(value)
    return told


def _taken_flow(state: object, what: str) -> dict[str, Any]:
    usual = {name: value for name, (_, value) in FLOW_AT_TIMES.items()}
    table = {**FLOW, **{name: check for name, (check, _) in FLOW_AT_TIMES.items()}}
    return _taken(usual | part(state), table, what)


def _fields(owner: object, table: Mapping[str, Check]) -> State:
    return {name.lstrip("_"): _plain(getattr(owner, name)) for name in table}


def _plain(value: Any) -> Plain:
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, Held):
        return {"content": bytes(value.content), "missing": value.missing}
    if isinstance(value, Header):
        return [int(each) for each in value]
    return value  # type: ignore[no-any-return]


def _taken(state: object, table: Mapping[str, Check], what: str) -> dict[str, Any]:
    """By the names of attributes."""
    try:
        found = taken(state, {name.lstrip("_"): check for name, check in table.items()})
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    found = {name: found[name.lstrip("_")] for name in table}
    if "_unsent" in found:
        found["_unsent"] = bytearray(found["_unsent"])
    return found


def _check_up(up: dict[str, Any]) -> None:
    """What cannot be at the same time: the flow would break over it, or never move again."""
    refused = up["_refused"]
    if up["_dropping"] and refused is None:
        raise ValueError("up: bytes are taken out of no call")
    held = up["_held"]
    if held is not None and not (held.missing or up["_due"]):
        raise ValueError("up: a frame is held that waits for nothing")
    if (up["_waits"] or up["_resumes"]) and not up["_head"]:
        raise ValueError("up: nothing waits for its stream")
    if up["inserting"]:
        raise ValueError("up: a refusal on its way to the daemon")
    _check_both(up, "up")


def _check_down(down: dict[str, Any]) -> None:
    strange = ("_denied", "_dropping", "_held", "_refused", "_resumes", "_seen", "_waits")
    if any(down[name] for name in strange):
        raise ValueError("down: what only the way up has")
    _check_both(down, "down")


def _check_both(flow: dict[str, Any], what: str) -> None:
    # Behind a head there has to be room for a read.
    if len(flow["_head"]) > SPLICE_ABOVE and not (flow["_waits"] or flow["_resumes"]):
        raise ValueError(f"{what}: head: is longer than a header in parts")
    stalled = flow["_unsent"] or flow["_rider_waits"] or flow["_resumes"]
    if flow["done"] and (not flow["ended"] or stalled):
        raise ValueError(f"{what}: is done, and has something left")
    if flow["ended"] and not (flow["done"] or stalled):
        raise ValueError(f"{what}: has ended, and nothing is done about it")
    if (flow["_rider_waits"] or flow["wants_courier"]) and not flow["_due"]:
        raise ValueError(f"{what}: a descriptor that no frame announced")


def _check_carries_none(up: dict[str, Any], down: dict[str, Any]) -> None:
    if up["_unasked"] or up["_due"] or down["_due"]:
        raise ValueError("descriptors where none are carried")


def _check_owed(end: Endpoint, writes: dict[str, Any], what: str) -> None:
    """Bytes that a layer has wrapped and not sent come again, so whoever writes has them."""
    if isinstance(end, SaslEndpoint) and not writes["done"] and end.owed > len(writes["_unsent"]):
        raise ValueError(f"{what}: wrapped: more than there is to be sent")


def _call(key: tuple[int, int, int], begun: Begun) -> Plain:
    about = begun.about
    return [*map(int, key), begun.began_ns, None if about is None else list(about)]


def _begun(began_ns: int, about: tuple[Any, ...] | None) -> Begun:
    return Begun(None if about is None else Named(*about), began_ns)
