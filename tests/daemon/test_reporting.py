"""What status and clients are told: every key, and the truth behind each figure."""

import json
import os
import socket
import time

import pytest
import trio

from proxyd import __version__
from proxyd.auth.certificates import load_credentials
from proxyd.auth.files import CertificateFiles
from proxyd.config.listening import Door, Transport
from proxyd.daemon.reload import LastReload
from proxyd.daemon.reporting import described
from proxyd.negotiation.identity import ClientIdentity
from proxyd.relay.pair import RelayedPair
from proxyd.session.probing import Answered
from proxyd.wire.programs import AuthMethod
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.daemon.parts import STARTED_AT, UNIX_DOOR, Parts
from tests.fakes.endpoints import ScriptedEndpoint

TLS_DOOR = Door(
    name="tls 127.0.0.1:16514",
    transport=Transport.TLS,
    method=AuthMethod.SASL,
    readonly=False,
    own_uid_only=False,
)
FRED = ClientIdentity(uid=1000, user_name="fred", gid=100, group_name="users", pid=42)


@pytest.fixture
def directory():
    with short_directory() as made:
        yield made


@pytest.fixture
async def parts(directory):
    made = Parts(directory, f'proxyd_backend_dir = "{directory}"')
    yield made
    made.close()


def opened(parts, *, backend="", door=UNIX_DOOR):
    """A client with an open session, of which the relay knows nothing."""
    client = parts.arrive(door=door)
    client.identity = FRED
    client.known = True
    client.uri, client.backend = "qemu:///system", backend or f"{parts.directory}/virtqemud-sock"
    client.pair = RelayedPair(
        client.number,
        ScriptedEndpoint(),
        ScriptedEndpoint(),
        pipes=parts.relay.loops[0].pipes,
        figures=parts.relay.loops[0].figures,
        now_ns=time.monotonic_ns(),
    )
    return client


async def told(parts, *, ask_daemons=False):
    """The status as it comes out at the other end."""
    return json.loads(json.dumps(await parts.reporter.status(ask_daemons=ask_daemons)))


# status


async def test_an_idle_daemon_tells_all_of_this(parts):
    status = await told(parts)

    uptime_s = status.pop("uptime_s")
    assert uptime_s == pytest.approx(time.time() - STARTED_AT, abs=10)
    assert status == {
        "version": __version__,
        "pid": os.getpid(),
        "state": "serving",
        "started_at": STARTED_AT,
        "configuration": str(parts.conf),
        "idle_exit_s": 0,
        "listeners": [],
        "limits": {
            "clients": 0,
            "max_clients": 100,
            "unauthenticated": 0,
            "max_unauthenticated": 20,
            "admin_clients": 0,
            "max_admin_clients": 50,
            "descriptor_room": 1000,
            "waiting": 0,
            "silent": 0,
            "most_places": [],
        },
        "backends": [
            {
                "daemon": "virtqemud",
                "socket": f"{parts.directory}/virtqemud-sock",
                "present": False,
                "sessions": 0,
            }
        ],
        "certificates": [],
        "last_reload": None,
        "relay": {
            "threads": len(parts.relay.loops),
            "sessions": 0,
            "calls": 0,
            "bytes_up": 0,
            "bytes_down": 0,
            "errors": 0,
            "tls_in_kernel": 0,
            "own_errors": 0,
        },
        "log": {"dropped": 0, "lost": 0},
    }


async def test_a_daemon_that_lets_nobody_in_any_more_says_so(parts):
    parts.admission.close()
    assert (await told(parts))["state"] == "draining"


async def test_listeners_are_told_with_their_addresses_and_how_many_came_in_by_each(parts):
    with (
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket() as tcp,
        socket.socket(socket.AF_INET6) as tcp6,
    ):
        local.bind(f"{parts.directory}/libvirt-sock")
        abstract.bind(b"\0proxyd-tests-%d" % os.getpid())
        tcp.bind(("127.0.0.1", 0))
        tcp6.bind(("::1", 0))
        admin_door = Door(name="admin", method=AuthMethod.NONE, readonly=False, own_uid_only=True)
        parts.in_force.doors = [(local, UNIX_DOOR), (tcp, TLS_DOOR), (tcp6, TLS_DOOR)]
        parts.in_force.admin_doors = [(abstract, admin_door)]
        parts.arrive()
        parts.arrive()

        listeners = (await told(parts))["listeners"]

        assert listeners[0] == {
            "name": "libvirt-sock",
            "address": f"{parts.directory}/libvirt-sock",
            "transport": "unix",
            "authentication": "none",
            "readonly": False,
            "clients": 2,
        }
        assert [each["address"] for each in listeners[1:]] == [
            f"127.0.0.1:{tcp.getsockname()[1]}",
            f"[::1]:{tcp6.getsockname()[1]}",
            f"@proxyd-tests-{os.getpid()}",
        ]
        assert listeners[1]["authentication"] == "sasl"
        assert listeners[1]["clients"] == 0
        assert (listeners[3]["transport"], listeners[3]["clients"]) == ("admin", None)


def daemons(status):
    return [(each["daemon"], each["present"], each["sessions"]) for each in status["backends"]]


async def test_daemons_that_have_a_socket_are_told(parts):
    for name in ("virtlxcd-sock", "virtstoraged-sock", "virtlogd-sock"):
        (parts.directory / name).touch()
    assert daemons(await told(parts)) == [("virtlxcd", True, 0), ("virtstoraged", True, 0)]


async def test_daemons_that_a_route_names_are_told_whether_they_are_there_or_not(directory):
    routes = 'proxyd_routes = [ "test=/run/none", "x=virtxd", "qemu+ssh=/run/never" ]'
    made = Parts(directory, f'proxyd_backend_dir = "{directory}"\n{routes}')
    assert daemons(await told(made)) == [("none", False, 0), ("virtxd", False, 0)]
    made.close()


async def test_a_users_daemon_does_not_list_every_daemon_that_could_be(directory):
    made = Parts(directory, f'proxyd_backend_dir = "{directory}"', privileged=False)
    assert daemons(await told(made)) == [("virtqemud", False, 0)]
    made.close()


async def test_sessions_are_told_at_the_daemon_where_they_are_even_if_nothing_else_names_it(parts):
    for backend in ("virtqemud-sock", "virtqemud-sock", "virtqemud-sock-ro", "virtyd-sock"):
        opened(parts, backend=f"{parts.directory}/{backend}")
    negotiating = parts.arrive()
    negotiating.backend = f"{parts.directory}/virtqemud-sock"

    status = await told(parts)

    assert [(each["daemon"], each["socket"], each["sessions"]) for each in status["backends"]] == [
        ("virtqemud", f"{parts.directory}/virtqemud-sock", 2),
        ("virtqemud", f"{parts.directory}/virtqemud-sock-ro", 1),
        ("virtyd", f"{parts.directory}/virtyd-sock", 1),
    ]
    assert status["relay"]["sessions"] == 4


async def test_daemons_are_asked_all_at_one_time_and_only_if_they_are_to_be(
    parts, monkeypatch, autojump_clock
):
    asked = []

    async def slow(destination):
        asked.append(destination.daemon)
        await trio.sleep(1.5)
        return Answered(1.25) if destination.daemon == "virtlxcd" else Answered(None, "no!")

    monkeypatch.setattr("proxyd.daemon.reporting.probe", slow)
    for name in ("virtlxcd-sock", "virtqemud-sock"):
        (parts.directory / name).touch()

    assert "answers" not in (await told(parts))["backends"][0]
    assert asked == []
    with trio.fail_after(1.6):
        status = await told(parts, ask_daemons=True)

    silent, answers = status["backends"]
    assert (silent["answers"], silent["answered_ms"], silent["trouble"]) == (False, None, "no!")
    assert (answers["answers"], answers["answered_ms"], answers["trouble"]) == (True, 1.25, "")


async def test_certificates_are_told_with_their_ends(parts, tmp_path):
    pki = Pki(tmp_path)
    server = pki.server()
    crl = pki.revoke(pki.client())
    files = CertificateFiles(
        ca=str(pki.ca_file), crl=str(crl), pairs=((str(server.cert_file), str(server.key_file)),)
    )
    now = server.certificate.not_valid_before_utc
    credentials = load_credentials(files, now=now, check=False)

    class Tls:
        pass

    parts.in_force.tls = Tls()
    parts.in_force.tls.credentials = credentials

    own, authority, revocations = (await told(parts))["certificates"]

    assert (own["role"], authority["role"], revocations["role"]) == ("server", "ca", "crl")
    assert own["subject"] == server.certificate.subject.rfc4514_string()
    ends = server.certificate.not_valid_after_utc.timestamp()
    assert own["expires_at"] == ends
    assert own["days_left"] == pytest.approx((ends - time.time()) / 86400, abs=0.01)
    assert revocations["subject"] == authority["subject"]


async def test_the_figures_of_all_relay_threads_are_told_together(parts):
    for loop in parts.relay.loops:
        loop.figures.up.frames[0] += 3
        loop.figures.up.bytes[0] += 100
        loop.figures.down.bytes[0] += 2000
        loop.figures.down.errors[0] += 1
        loop.bugs += 1
    count = len(parts.relay.loops)
    relay = (await told(parts))["relay"]
    assert [relay[key] for key in ("calls", "bytes_up", "bytes_down", "errors", "own_errors")] == [
        3 * count,
        100 * count,
        2000 * count,
        count,
        count,
    ]


async def test_the_last_reload_is_told(parts):
    parts.reloader.last = LastReload(at_s=1.5, succeeded=False, text="no")
    assert (await told(parts))["last_reload"] == {"at": 1.5, "succeeded": False, "text": "no"}


# clients


async def test_a_client_that_negotiates_is_told_with_what_is_known_of_it(parts):
    before = time.time()
    parts.arrive(anonymous=True, door=TLS_DOOR).address = "[::1]:4711"

    (client,) = described(parts.roster, after=0, most=9)

    assert before - 1 <= client.pop("connected_at") <= time.time()
    assert 0 <= client.pop("age_s") < 10
    assert client == {
        "id": 1,
        "listener": "tls 127.0.0.1:16514",
        "transport": "tls",
        "address": "[::1]:4711",
        "who": "not known yet",
        "identity": {},
        "authenticated": False,
        "readonly": False,
        "state": "negotiating",
        "uri": "",
        "backend": "",
        "idle_s": 0.0,
        "calls": 0,
        "errors": 0,
        "bytes_up": 0,
        "bytes_down": 0,
    }


async def test_an_open_session_is_told_with_its_figures(parts):
    made = opened(parts)
    pair = made.pair
    pair.up.moved, pair.down.moved, pair.up.calls, pair.down.errors = 100, 2000, 3, 1
    pair.active_ns -= 5 * 10**9
    made.started_ns -= 60 * 10**9

    (client,) = described(parts.roster, after=0, most=9)

    assert client["who"] == "uid 1000 (fred) pid 42"
    assert client["identity"] == {
        "user_name": "fred",
        "uid": 1000,
        "group_name": "users",
        "gid": 100,
        "pid": 42,
    }
    assert (client["state"], client["uri"]) == ("open", "qemu:///system")
    assert client["idle_s"] == pytest.approx(5, abs=5)
    assert client["age_s"] == pytest.approx(60, abs=5)
    figures = [client[key] for key in ("bytes_up", "bytes_down", "calls", "errors")]
    assert figures == [100, 2000, 3, 1]


def pages(parts, most, meanwhile=lambda: None):
    """The numbers of all clients, page by page."""
    found, after = [], 0
    while page := described(parts.roster, after=after, most=most):
        found.append([each["id"] for each in page])
        after = found[-1][-1]
        meanwhile()
    return found


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 2000])
async def test_clients_are_told_page_by_page(parts, count):
    for _ in range(count):
        parts.arrive()
    found = pages(parts, 64)
    assert [number for page in found for number in page] == list(range(1, count + 1))
    assert all(len(page) == 64 for page in found[:-1])


async def test_numbers_may_have_gaps(parts):
    clients = [parts.arrive() for _ in range(20)]
    for client in clients[::2]:
        parts.roster.ended(client, "gone")
    assert pages(parts, 3) == [[2, 4, 6], [8, 10, 12], [14, 16, 18], [20]]


async def test_who_leaves_and_who_comes_between_two_pages_spoils_nothing(parts):
    clients = [parts.arrive() for _ in range(6)]

    def one_leaves_and_another_comes():
        if clients:
            parts.roster.ended(clients.pop(), "gone")
            parts.roster.ended(clients.pop(0), "gone")
        if parts.roster._last < 8:
            parts.arrive()

    assert pages(parts, 2, one_leaves_and_another_comes) == [[1, 2], [3, 4], [7, 8]]
