"""The loop of a worker, in the test's own process, with fakes in threads."""

import socket
from collections import Counter
from contextlib import closing
from time import perf_counter_ns

import pytest

from loadtest.client import Opening
from loadtest.mix import parse_mix
from loadtest.running.engine import Engine
from loadtest.running.parcels import samples
from loadtest.running.plan import Load, Order, Part
from loadtest.stages import parse_stages, steady
from loadtest.targets import parse_target
from proxyd.wire.programs import Remote
from tests.loadtest.fake_host import XML, Stall, fake_host

WHOLE = Part(0, 1)
SMALL = Remote.CONNECT_GET_LIB_VERSION
EVERYTHING = (
    "small=5,xml=2,list=1,DOMAIN_GET_XML_DESC=1,download:1MiB=1,upload:600KiB=1,events=2,idle=3"
)


def load(rate=200.0, length_s=0.5, mix="small", connections=2, **more):
    return Load(course=steady(rate, length_s), mix=parse_mix(mix), connections=connections, **more)


def closed(connections=2, length_s=0.3, **more):
    return load(float(connections), length_s, connections=connections, closed=True, **more)


class Told:
    """What an engine sent home, added up."""

    def __init__(self, opened, parcels, done):
        self.opened, self.parcels, self.done = opened, parcels, done
        self.errors = sum((Counter(parcel.errors) for parcel in parcels), Counter())
        self.connects = [one for parcel in parcels for one in samples(parcel.connects)]
        self.late = [one for parcel in parcels for one in samples(parcel.late)]
        self.events = sum(parcel.events for parcel in parcels)
        self.bytes_up = sum(parcel.bytes_up for parcel in parcels)
        self.bytes_down = sum(parcel.bytes_down for parcel in parcels)

    def calls(self, place=0):
        return [one for parcel in self.parcels for one in samples(parcel.calls.get(place, b""))]


def driven(target, opening, load, part=WHOLE):
    with closing(Engine(Order(target, opening, load, part))) as engine:
        opened, parcels = engine.prepare(), []
        done = engine.run(perf_counter_ns() + 1_000_000, parcels.append)
        return Told(opened, parcels, done)


@pytest.fixture
def drive(fake_target, opening):
    """Drives a fake of that behaviour with a load."""

    def drive(load, wait_s=10.0, **behaviour):
        script, target = fake_target(**behaviour)
        return script, driven(target, Opening(opening.uri, readonly=False, wait_s=wait_s), load)

    return drive


@pytest.fixture
def drive_host(socket_paths, opening):
    """The same with a fake that has a domain and events."""

    def drive_host(load, **behaviour):
        path = next(socket_paths)
        with fake_host(path, **behaviour) as host:
            return host, driven(parse_target(f"fake=unix:{path}"), opening, load)

    return drive_host


def test_every_call_that_is_due_is_made_and_no_other(drive):
    script, told = drive(load(rate=600, length_s=0.5))
    assert len(told.calls()) == len(script.callers) == 300
    assert (told.errors, told.connects) == ({}, [])
    assert told.opened.connections == len(script.opened) == 2
    assert told.done.elapsed_ns == pytest.approx(0.5e9, rel=0.1)


def test_parts_of_a_load_make_it_whole(drive, opening, fake_target):
    _, target = fake_target()
    numbers = [
        len(
            driven(
                target, opening, load(rate=202, length_s=0.25, connections=3), Part(place, 2)
            ).calls()
        )
        for place in (0, 1)
    ]
    assert sum(numbers) == 50


def test_calls_of_the_warmup_are_not_counted(drive):
    script, told = drive(load(rate=400, length_s=0.25, warmup_s=0.25))
    assert 99 <= len(told.calls()) <= 100
    assert len(script.callers) == 200


def test_bytes_are_counted_both_ways(drive):
    _, told = drive(load(rate=200, length_s=0.25))
    assert (told.bytes_up, told.bytes_down) == (50 * 28, 50 * 32)


def test_waiting_for_a_connection_is_latency_and_not_lateness_of_the_tool(drive):
    # One connection and 20 ms a call hold 50 calls per second: the rest waits ever longer.
    _, told = drive(load(rate=100, length_s=0.5, connections=1), delay_s=0.02)
    calls = told.calls()
    assert max(calls) > 200_000_000
    assert sorted(told.late)[len(told.late) // 2] < 5_000_000
    assert told.errors["unsent"] == 50 - len(calls)
    assert told.errors["unsent"] >= 15


def test_a_stall_is_charged_to_all_calls_that_it_held_up(drive_host):
    _, told = drive_host(load(rate=200, length_s=1.0), stall=Stall(at=50, seconds=0.5))
    calls = sorted(told.calls())
    assert len(calls) == 200
    # 100 calls were due while it lasted, and waited 0.25 s in the mean.
    assert sum(call > 100_000_000 for call in calls) == pytest.approx(80, abs=15)
    assert calls[150] == pytest.approx(250_000_000, rel=0.2)
    assert calls[-1] == pytest.approx(500_000_000, rel=0.15)


def test_the_closed_model_does_not_see_a_stall_but_once_per_connection(drive_host):
    _, told = drive_host(closed(length_s=1.0), stall=Stall(at=100, seconds=0.5))
    calls = sorted(told.calls())
    assert sum(call > 100_000_000 for call in calls) == 2
    assert calls[len(calls) * 99 // 100] < 50_000_000


def test_the_whole_mix_is_done_in_its_proportion(drive_host):
    host, told = drive_host(load(rate=440, length_s=0.5, mix=EVERYTHING, volumes=("/pool/volume",)))
    numbers = [len(told.calls(place)) for place in range(6)]
    assert sum(numbers) == 220
    assert numbers == pytest.approx([100, 40, 20, 20, 20, 20], abs=14)
    assert told.errors == {}
    assert (host.registered, told.opened.connections) == (2, 7)
    assert host.script.volume.uploaded == numbers[5] * 600 * 1024
    assert told.bytes_up > numbers[5] * 600 * 1024
    assert told.bytes_down > numbers[4] * (1 << 20) + (numbers[1] + numbers[3]) * len(XML)


def test_events_are_counted(drive_host):
    _, told = drive_host(closed(mix="small,events=2"))
    # Each came with the registration, which was before the measured part.
    assert told.events == 0
    _, told = drive_host(load(rate=200, length_s=0.25), ping_first=True)
    assert told.events == 50


def test_connections_follow_the_stages(drive):
    ramp = Load(
        course=parse_stages("0.2s:8,0.2s:8,0.2s:0"),
        mix=parse_mix("small"),
        connections=8,
        closed=True,
    )
    script, told = drive(ramp, delay_s=0.005)
    assert script.most_live == 8
    assert told.opened.connections == 1
    assert len(told.connects) == pytest.approx(8, abs=1)
    assert told.errors == {}


def test_calls_follow_the_stages(drive):
    ramp = Load(course=parse_stages("0.3s:600,0.3s:0"), mix=parse_mix("small"), connections=2)
    _, told = drive(ramp)
    assert len(told.calls()) == 180


@pytest.mark.parametrize("made", [load(rate=100, anew=True), closed(anew=True)])
def test_a_session_per_call_has_its_connect_apart(drive, made):
    script, told = drive(made, open_wait_s=0.005)
    assert len(told.calls()) == len(told.connects) == len(script.callers) == script.closed
    # And one that stays, beside them.
    assert len(script.opened) == len(told.calls()) + 1
    assert min(told.connects) > 5_000_000
    assert sorted(told.calls())[len(told.calls()) // 2] < 5_000_000
    assert told.errors == {}


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ({"refused": {SMALL: "tired"}}, "error 1"),
        ({"hang_up": True}, "closed"),
        ({"garbage": True}, "protocol"),
    ],
)
def test_calls_that_fail_are_counted_by_what_happened(drive, behaviour, kind):
    script, told = drive(load(rate=100, length_s=0.5), **behaviour)
    assert set(told.errors) <= {kind, "unsent"}
    assert told.errors[kind] >= 4
    assert told.errors.total() == 50
    if kind == "error 1":
        assert len(told.calls()) == 50  # it was answered
        assert len(script.opened) == 2
    else:
        assert told.calls() == []
        assert len(script.opened) > 2  # opened again


def test_no_reply_in_time_is_a_timeout(drive):
    _, told = drive(load(rate=20, length_s=0.5, connections=10), wait_s=0.1, silent=True)
    assert set(told.errors) == {"timeout"}
    assert told.errors["timeout"] == 10


@pytest.mark.parametrize("behaviour", [{"ping_first": True}, {"in_pieces": True}])
def test_replies_that_are_not_as_usual_are_counted_once(drive, behaviour):
    script, told = drive(load(rate=200, length_s=0.25), **behaviour)
    assert len(told.calls()) == 50
    assert told.errors == {}
    assert script.pongs == (50 if "ping_first" in behaviour else 0)


def test_refusals_are_counted_for_every_session_that_was_due(opening, socket_paths):
    path = next(socket_paths)
    told = driven(parse_target(f"fake=unix:{path}"), opening, load(rate=100, anew=True))
    assert told.opened.connections == 0
    assert told.opened.reason == f"No such file or directory: {path}"
    # What is tried now and then is the session that stays.
    assert 50 <= told.errors["refused"] < 65


def test_a_server_that_comes_later_is_found(socket_paths, opening):
    path, parcels = next(socket_paths), []
    order = Order(parse_target(f"fake=unix:{path}"), opening, load(rate=100), WHOLE)
    engine = Engine(order)
    assert engine.prepare().connections == 0
    # The engine goes first: the fake waits for its clients to be gone.
    with fake_host(path), closing(engine):
        done = engine.run(perf_counter_ns(), parcels.append)
    assert len(Told(None, parcels, done).calls()) == 50


def test_tls_is_driven_as_well(tls_target, tls_opening):
    script, target = tls_target(ping_first=True)
    made = load(rate=100, mix="small=9,upload:600KiB=1", volumes=("/pool/volume",))
    told = driven(target, tls_opening, made)
    assert len(told.calls(0)) + len(told.calls(1)) == 50
    assert told.errors == {}
    assert told.opened.cipher == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert script.volume.uploaded == len(told.calls(1)) * 600 * 1024
    assert script.handshakes == ["full"] * 2


@pytest.mark.parametrize(
    ("behaviour", "mix", "reason"),
    [
        ({"refused": {Remote.CONNECT_OPEN: "no such driver"}}, "small", "no such driver"),
        ({"methods": (1,)}, "small", "the server wants SASL"),
        ({}, "download:2MiB", "/pool/volume holds 1048576 bytes and not the 2097152 of --mix"),
    ],
)
def test_why_no_connection_came_about_is_told(drive, behaviour, mix, reason):
    made = load(mix=mix, length_s=0.1, volumes=("/pool/volume",))
    _, told = drive(made, **behaviour)
    assert told.opened.connections == 0
    assert reason in told.opened.reason


def test_a_session_per_call_over_tls(tls_target, tls_opening):
    script, target = tls_target()
    # A place for each: on a busy machine a call that waits for one would never be sent.
    told = driven(target, tls_opening, load(rate=40, connections=20, anew=True))
    assert len(told.calls()) == len(told.connects) == 20
    assert told.errors == {}
    assert script.handshakes == ["full"] * 21


@pytest.mark.parametrize("anew", [False, True])
def test_every_address_of_a_name_is_tried(tls_target, tls_opening, monkeypatch, anew):
    script, target = tls_target()
    # As "::1 localhost" in /etc/hosts has it, where nobody listens on ::1.
    port = target.address.port
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        places = [nobody.getsockname(), ("127.0.0.1", port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        told = driven(target, tls_opening, load(rate=40, connections=20, anew=anew))
    assert told.errors == {}
    assert len(told.calls()) == 20
    assert told.opened.connections > 0
    assert {*script.handshakes} == {"full"}


def test_a_name_of_which_no_address_answers_is_one_error_for_each_attempt(opening, monkeypatch):
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", s.getsockname()) for s in (one, other)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        told = driven(parse_target("a=tcp:name:1"), opening, load(connections=1, length_s=0.1))
    assert told.opened.connections == 0
    assert "refused" in told.opened.reason
    assert set(told.errors) <= {"refused", "unsent"}


def test_a_connection_that_breaks_is_one_error_and_opened_again(drive_host):
    host, told = drive_host(load(rate=200, length_s=0.5, mix="small,events=1"), hang_up_at=30)
    assert told.errors == {"closed": 1}
    assert len(told.calls()) == 99
    assert len(host.script.opened) == 4  # two, one for events, and the new one
