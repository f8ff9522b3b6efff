import logging
import time

import pytest
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.admission import Admission
from proxyd.config.listeners import Door
from proxyd.negotiation.identity import ClientIdentity
from proxyd.relay.figures import Figures
from proxyd.relay.pair import RelayedPair
from proxyd.relay.pipes import PipePool
from proxyd.session.roster import CLOSED_BY_ADMINISTRATOR, Roster
from proxyd.wire.programs import AuthMethod
from tests.fakes.endpoints import ScriptedEndpoint
from tests.session.desk import seated

DOOR = Door(name="libvirt-sock", method=AuthMethod.NONE, readonly=False, own_uid_only=False)


def never():
    raise AssertionError("nobody closed it")


@pytest.fixture
def log(caplog):
    with caplog.at_level(logging.DEBUG):
        yield caplog


@pytest.fixture
async def roster():
    return Roster(Admission(max_clients=10, max_anonymous=5))


def pair_of(client, reason="the client closed the connection"):
    figures = Figures()
    pair = RelayedPair(
        client.number,
        ScriptedEndpoint(),
        ScriptedEndpoint(),
        pipes=PipePool(),
        figures=figures,
        now_ns=0,
    )
    pair.up.moved, pair.down.moved, pair.up.calls, pair.down.errors = 100, 2000, 3, 1
    pair.because(reason)
    return pair


def opened(roster):
    client = seated(roster, DOOR, end=never)
    client.identity = ClientIdentity(uid=1000, user_name="fred", pid=42)
    client.uri, client.backend = "qemu:///system", "/run/libvirt/virtqemud-sock"
    pair = pair_of(client)
    roster.opened(client, pair, end=never)
    return client, pair


async def test_numbers_start_at_one_and_only_grow(roster):
    first, second = (seated(roster, DOOR, end=never) for _ in range(2))
    roster.ended(first, "gone")
    roster.ended(second, "gone")

    third = seated(roster, DOOR, end=never)

    assert (first.number, second.number, third.number) == (1, 2, 3)
    assert list(roster.clients) == [3]


async def test_a_client_is_counted_from_its_arrival_until_its_end(roster):
    before = time.time()
    client = seated(roster, DOOR, anonymous=True, end=never)
    assert before <= client.connected_s <= time.time()
    assert (roster.admission.clients, roster.admission.anonymous) == (1, 1)

    roster.ended(client, "gone")

    assert (roster.admission.clients, roster.admission.anonymous) == (0, 0)
    assert roster.clients == {}


async def test_a_client_proves_itself_once(roster):
    client = seated(roster, DOOR, anonymous=True, end=never)

    roster.proved(client)
    roster.proved(client)

    assert (roster.admission.clients, roster.admission.anonymous) == (1, 0)
    roster.ended(client, "gone")
    assert (roster.admission.clients, roster.admission.anonymous) == (0, 0)


async def test_a_client_that_needed_no_proof_does_not_prove_anothers(roster):
    seated(roster, DOOR, anonymous=True, end=never)

    roster.proved(seated(roster, DOOR, end=never))

    assert roster.admission.anonymous == 1


async def test_a_session_is_one_line_when_it_opens_and_one_when_it_ends(roster, log):
    client, pair = opened(roster)
    client.started_ns -= 1_500_000_000

    roster.relay_ended(pair)

    who = "libvirt-sock, uid 1000 (fred) pid 42, qemu:///system at /run/libvirt/virtqemud-sock"
    assert log.messages[0] == f"session 1 opened: {who}"
    assert log.messages[1].startswith(
        f"session 1 ended: {who}: the client closed the connection; 1.50"
    )
    assert log.messages[1].endswith(" s, 100 bytes up, 2000 bytes down, 3 calls, 1 errors")
    assert [record.levelno for record in log.records] == [logging.INFO] * 2
    assert roster.clients == {}


async def test_attempts_to_replace_the_identity_raise_the_level(roster, log):
    _, pair = opened(roster)
    pair.up.refusals = 2

    roster.relay_ended(pair)

    assert log.records[-1].levelno == logging.WARNING
    assert log.messages[-1].endswith(", 2 attempts to replace its identity or connection refused")


async def test_a_client_that_opened_nothing_is_one_line_with_the_reason(roster, log):
    client = seated(roster, DOOR, end=never)

    roster.ended(client, "protocol error: x", logging.WARNING)

    (line,) = log.messages
    assert line.startswith(
        "client 1 ended before a session was open: libvirt-sock, anonymous: protocol error: x; 0.0"
    )
    assert log.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("event", ["arrived", "ended"])
async def test_whoever_waits_for_a_change_hears_of_it(roster, nursery, event):
    client = seated(roster, DOOR, end=never)
    heard = []

    async def listen():
        await roster.admission.wait_change()
        heard.append(True)

    nursery.start_soon(listen)
    await wait_all_tasks_blocked()
    assert heard == []

    if event == "arrived":
        seated(roster, DOOR, end=never)
    else:
        roster.ended(client, "gone")
    await wait_all_tasks_blocked()

    assert heard == [True]


async def test_a_change_before_the_wait_is_not_waited_for(roster, nursery):
    seated(roster, DOOR, end=never)
    heard = []

    async def listen():
        await roster.admission.wait_change()
        heard.append(True)

    nursery.start_soon(listen)
    await wait_all_tasks_blocked()

    assert heard == []
    nursery.cancel_scope.cancel()


async def test_closing_a_client_ends_it_by_whoever_has_it_at_that_time(roster):
    told = []
    client = seated(roster, DOOR, end=told.append)
    client.close()
    roster.opened(client, pair_of(client), end=lambda why: told.append(f"the relay: {why}"))
    client.close()
    assert told == [CLOSED_BY_ADMINISTRATOR, f"the relay: {CLOSED_BY_ADMINISTRATOR}"]


async def test_an_identity_is_shown_once_it_is_known_and_may_be_nobody(roster):
    client = seated(roster, DOOR, anonymous=True, end=never)
    assert client.known_identity is None

    client.known = True

    assert client.known_identity == ClientIdentity()
