"""The live daemon as the admin protocol sees it: what is shown, changed, refused."""

import errno
import socket

import pytest
import trio

from proxyd.admin.view import CallRefused, Limits, PoolBounds
from proxyd.config.logstrings import LogOutput, parse_filters
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.wire.failure import Domain, ErrorCode
from tests.daemon.parts import Parts


@pytest.fixture
async def parts(tmp_path):
    made = Parts(tmp_path)
    made.logs.start(made.options.source.load())
    yield made
    made.close()


def refused(caught):
    said = caught.value.failure
    return said.code, said.domain


async def test_there_are_two_servers(parts):
    assert parts.host.servers() == (parts.server, parts.admin)
    assert [server.name for server in parts.host.servers()] == ["virtproxyd", "admin"]


async def test_it_stands_for_the_libvirt_in_whose_role_it_is(parts):
    assert parts.host.lib_version == 11003000


async def test_clients_are_those_of_the_roster_in_the_order_in_which_they_came(parts):
    first, second, third = (parts.arrive() for _ in range(3))
    parts.roster.ended(second, "gone")
    assert parts.server.clients() == [first, third]
    assert parts.server.find(3) is third
    assert parts.server.find(2) is None


async def test_a_list_of_clients_is_a_snapshot(parts):
    parts.arrive()
    listed = parts.server.clients()
    parts.arrive()
    assert len(listed) == 1


async def test_a_relay_thread_is_free_while_it_has_no_session(parts):
    parts.arrive()
    pool = parts.server.pool
    assert pool.free_workers == pool.workers == pool.max_workers == 2
    near, far = (UnixEndpoint(sock) for sock in socket.socketpair())
    parts.relay.adopt(1, near, far, now_ns=0, owner="", readonly=False)
    parts.relay.loops[0].turn(0)  # it takes the order
    assert parts.server.pool.free_workers == 1
    parts.relay.drop(1, "enough")
    parts.relay.loops[0].turn(0)
    assert parts.server.pool.free_workers == 2


async def test_the_pool_cannot_be_changed(parts):
    pool = parts.server.pool
    same = PoolBounds(
        min_workers=pool.min_workers, max_workers=pool.max_workers, prio_workers=pool.prio_workers
    )
    parts.server.set_pool(same)
    with pytest.raises(CallRefused):
        parts.server.set_pool(PoolBounds(min_workers=1, max_workers=99, prio_workers=0))


async def test_limits_and_who_is_anonymous_are_those_of_the_admission(parts):
    parts.arrive(anonymous=True)
    assert parts.server.limits == Limits(max_clients=100, max_anonymous=20)
    assert parts.server.anonymous == 1
    parts.server.set_limits(Limits(max_clients=3, max_anonymous=2))
    assert (parts.admission.max_clients, parts.admission.max_anonymous) == (3, 2)
    assert parts.admission.clients == 1


async def test_limits_below_the_present_use_send_nobody_away(parts):
    for _ in range(5):
        parts.arrive()
    parts.server.set_limits(Limits(max_clients=1, max_anonymous=1))
    assert len(parts.server.clients()) == 5


async def test_no_more_clients_than_there_are_descriptors_for(parts):
    parts.server.set_limits(Limits(max_clients=1000, max_anonymous=20))
    with pytest.raises(CallRefused, match="there are descriptors for 1000 sessions") as caught:
        parts.server.set_limits(Limits(max_clients=1001, max_anonymous=1))
    assert refused(caught) == (ErrorCode.INVALID_ARG, Domain.NONE)
    assert parts.server.limits == Limits(max_clients=1000, max_anonymous=20)


async def test_a_limit_that_is_too_high_already_may_be_kept_and_lowered(parts):
    parts.put_in_force(descriptor_room=10)
    parts.server.set_limits(Limits(max_clients=100, max_anonymous=5))
    parts.server.set_limits(Limits(max_clients=50, max_anonymous=5))
    with pytest.raises(CallRefused):
        parts.server.set_limits(Limits(max_clients=51, max_anonymous=5))


async def test_certificates_of_no_tls_listener_cannot_be_loaded(parts):
    with pytest.raises(CallRefused, match="no TLS listener is open") as caught:
        await parts.server.update_tls()
    assert refused(caught) == (ErrorCode.INTERNAL_ERROR, Domain.RPC)


async def test_certificates_are_loaded_by_the_reloader_and_its_refusal_is_told(parts, monkeypatch):
    async def reload_tls():
        raise StartFailed(Exit.NETWORK, "the certificate has ended")

    parts.put_in_force(tls=object())
    monkeypatch.setattr(parts.reloader, "reload_tls", reload_tls)
    with pytest.raises(CallRefused, match="the certificate has ended") as caught:
        await parts.server.update_tls()
    assert refused(caught) == (ErrorCode.SYSTEM_ERROR, Domain.RPC)


async def test_rules_are_not_applied_while_sessions_are_on_their_way(parts):
    parts.configure("")
    parts.why_not_now = "an upgrade is under way"
    with pytest.raises(CallRefused, match="nothing was changed: an upgrade is under way"):
        await parts.host.apply_rules(now=True)
    assert parts.reloader.last is None
    assert not (await parts.host.apply_rules(now=False)).done


async def test_whoever_applies_rules_is_told_when_some_sessions_left_in_the_midst(
    parts, monkeypatch
):
    async def revise(**_):
        parts.why_not_now = "process 7 has taken over: ask that one"
        return []

    parts.configure("")
    monkeypatch.setattr(parts.host._revision, "revise", revise)
    with pytest.raises(CallRefused, match="not to all open sessions: process 7 has taken over"):
        await parts.host.apply_rules(now=True)


async def test_rules_are_applied_as_long_as_names_are_told(parts, monkeypatch, autojump_clock):
    """A name service that hangs holds up nobody who applies rules when it is back."""
    client = parts.arrive()
    client.pair = object()  # its session is open

    async def decide(*_):
        await trio.sleep_forever()

    parts.configure("")
    monkeypatch.setattr(parts.host._revision._rulings, "decide", decide)
    with pytest.raises(CallRefused, match="the name service has not answered within 10 s"):
        await parts.host.apply_rules(now=True)
    monkeypatch.undo()
    assert (await parts.host.apply_rules(now=True)).done
    assert client.number in parts.roster.clients


async def test_log_settings_are_shown_and_changed(parts, tmp_path):
    await parts.host.set_log_filters(parse_filters("1:rpc"))
    await parts.host.set_log_outputs([LogOutput(1, "file", "relative")])
    assert tuple(parts.host.log_filters) == tuple(parse_filters("1:rpc"))
    assert list(parts.host.log_outputs) == [LogOutput(1, "file", f"{tmp_path}/relative")]


async def test_a_log_file_that_cannot_be_opened_is_refused_with_the_systems_number(parts):
    before = parts.host.log_outputs
    with pytest.raises(CallRefused, match="cannot open the log file /no/log") as caught:
        await parts.host.set_log_outputs([LogOutput(1, "file", "/no/log")])
    assert refused(caught) == (ErrorCode.SYSTEM_ERROR, Domain.NONE)
    assert caught.value.failure.int1 == errno.ENOENT
    assert parts.host.log_outputs == before


async def test_the_time_without_a_client_is_set(parts):
    parts.host.set_idle_exit(120)
    assert parts.idle.seconds == 120


@pytest.mark.parametrize("preserve", [True, False])
async def test_a_shut_down_stops_the_daemon_and_says_who_wanted_it(parts, preserve):
    parts.host.shut_down(preserve=preserve)
    assert parts.stopped == ["asked to by an administrator"]


async def test_a_client_is_closed_by_its_number(parts):
    ended = []
    for number in (1, 2, 3):
        parts.arrive(end=lambda why, number=number: ended.append((number, why)))
    parts.host.close_client(2)
    assert ended == [(2, "closed by an administrator")]


@pytest.mark.parametrize("number", [0, 2, 2**64 - 1])
async def test_a_client_that_is_not_there_is_refused(parts, number):
    parts.arrive()
    with pytest.raises(CallRefused, match=f"there is no client {number}") as caught:
        parts.host.close_client(number)
    assert refused(caught) == (ErrorCode.NO_CLIENT, Domain.ADMIN)
