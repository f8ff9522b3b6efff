"""What status and clients are told: every key, and the truth behind each figure."""

import json
import os
import socket
import time
from dataclasses import replace

import pytest
import trio

from proxyd import __version__
from proxyd.admin import document
from proxyd.admin.view import CallRefused
from proxyd.cli.screens import attention, clients_view, status_view
from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.daemon.status_document import described
from proxyd.negotiation.identity import ClientIdentity
from proxyd.negotiation.terms import TlsTerms
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.process.program import Program
from proxyd.relay.pair import RelayedPair
from proxyd.sasl.passwords import PasswordFile
from proxyd.session.probe import Answered
from proxyd.wire.programs import AuthMethod
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.cli.terminal import printed
from tests.daemon.parts import UNIX_DOOR, Parts
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
    status = await parts.host.status(ask_daemons=ask_daemons)
    found = json.loads(json.dumps(document.written(status)))
    assert document.read(document.Status, found) == status
    return found


def told_of(parts, after=0, most=9):
    """Clients, likewise."""
    clients = described(parts.roster, after=after, most=most)
    found = json.loads(json.dumps([document.written(each) for each in clients]))
    assert [document.read(document.Client, each) for each in found] == clients
    return found


# status


async def test_an_idle_daemon_tells_all_of_this(parts):
    before = time.time()
    status = await told(parts)

    started_at, uptime_s = status.pop("started_at"), status.pop("uptime_s")
    assert before - 10 < started_at <= before
    assert 0 <= uptime_s <= time.time() - started_at
    assert status.pop("program")["remedy"]
    assert status == {
        "format": 1,
        "version": __version__,
        "pid": os.getpid(),
        "state": "serving",
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
            "over_rate": [],
            "over_logins": [],
        },
        "backends": [
            {
                "daemon": "virtqemud",
                "socket": f"{parts.directory}/virtqemud-sock",
                "present": False,
                "missing": False,
                "sessions": 0,
                "partings": {
                    "now": 0,
                    "orderly": 0,
                    "daemon_gone": 0,
                    "overdue": 0,
                    "displaced": 0,
                    "cut_off": 0,
                },
            }
        ],
        "certificates": [],
        "last_reload": None,
        "troubles": [],
        "faults": [
            {
                "subject": "daemons",
                "text": "no daemon behind has a socket: whatever a client opens, it gets an error",
            }
        ],
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
        "processes": [],
    }


async def test_a_daemon_knows_whether_it_is_what_is_installed(parts, tmp_path):
    assert (await told(parts))["program"]["outdated"] == []
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "1.0"\n')
    older = replace(parts.reporter, program=Program.of(package, "1.0"))
    (package / "__init__.py").write_text('__version__ = "2.0.1"\n')

    found = (await older.status(ask_daemons=False)).program

    assert (found.outdated, found.installed) == (("1.0 runs, 2.0.1 is installed",), "2.0.1")


async def test_a_daemon_that_is_drained_says_since_when_and_who_is_left(parts):
    parts.arrive()
    assert parts.host.drain(on=True).changed
    status = await told(parts)
    assert status["state"] == "draining"
    assert (status["drain"]["left"], status["drain"]["negotiating"]) == (1, 1)
    assert abs(status["drain"]["since"] - time.time()) < 60
    assert not parts.host.drain(on=True).changed
    assert parts.host.drain(on=False) == document.Drained(changed=True)
    assert parts.host.drain(on=False) == document.Drained(changed=False)
    assert "drain" not in await told(parts)


async def test_a_daemon_that_stops_cannot_be_drained_nor_let_in_again(parts):
    parts.host.drain(on=True)
    parts.admission.close()
    for on in (True, False):
        with pytest.raises(CallRefused, match="it has been told to stop"):
            parts.host.drain(on=on)
    assert (await told(parts))["state"] == "draining"


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
        parts.put_in_force(
            listeners=[(local, UNIX_DOOR), (tcp, TLS_DOOR), (tcp6, TLS_DOOR)],
            admin_listeners=[(abstract, admin_door)],
        )
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
        assert listeners[1]["authentication"] == "x509 + sasl"
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

    monkeypatch.setattr("proxyd.daemon.status_document.probe", slow)
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

    parts.put_in_force(tls=Tls())
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
        loop.figures.up.bytes[0] += 100
        loop.figures.down.bytes[0] += 2000
        loop.figures.down.errors[0] += 1
        loop.bugs += 1
    count = len(parts.relay.loops)
    relay = (await told(parts))["relay"]
    assert [relay[key] for key in ("bytes_up", "bytes_down", "errors", "own_errors")] == [
        100 * count,
        2000 * count,
        count,
        count,
    ]


async def test_calls_are_those_of_all_sessions_also_of_those_that_have_ended(parts):
    first, second = opened(parts), opened(parts)
    first.pair.up.calls, second.pair.up.calls = 3, 4
    parts.roster.ended(first, "gone")
    assert (await told(parts))["relay"]["calls"] == 7


async def test_the_last_reload_is_told(parts):
    parts.reloader.last = document.Reload(at=1.5, succeeded=False, text="no")
    assert (await told(parts))["last_reload"] == {"at": 1.5, "succeeded": False, "text": "no"}


# clients


async def test_a_client_that_negotiates_is_told_with_what_is_known_of_it(parts):
    before = time.time()
    parts.arrive(anonymous=True, door=TLS_DOOR).address = "[::1]:4711"

    (client,) = told_of(parts)

    assert before - 1 <= client.pop("connected_at") <= time.time()
    assert 0 <= client.pop("age_s") < 10
    assert client == {
        "id": 1,
        "listener": "tls 127.0.0.1:16514",
        "transport": "tls",
        "address": "[::1]:4711",
        "who": "not known yet",
        "identity": {},
        "tls": None,
        "authenticated": False,
        "authentication": "",
        "readonly": False,
        "state": "negotiating",
        "uri": "",
        "backend": "",
        "idle_s": 0.0,
        "calls": 0,
        "errors": 0,
        "bytes_up": 0,
        "bytes_down": 0,
        "timed_calls": 0,
        "timed_s": 0.0,
        "denied_calls": 0,
    }


async def test_what_a_tls_client_has_agreed_on_is_told(parts):
    client = parts.arrive(door=TLS_DOOR)
    client.tls = TlsTerms(
        version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", group="x25519", signature="mldsa65"
    )
    (told,) = told_of(parts)
    assert told["tls"] == {
        "version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "group": "x25519",
        "signature": "mldsa65",
    }


async def test_an_open_session_is_told_with_its_figures(parts):
    made = opened(parts)
    pair = made.pair
    pair.up.moved, pair.down.moved, pair.up.calls, pair.down.errors = 100, 2000, 3, 1
    pair.active_ns -= 5 * 10**9
    made.started_ns -= 60 * 10**9

    (client,) = told_of(parts)

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
    while page := told_of(parts, after, most):
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
        if parts.roster.last < 8:
            parts.arrive()

    assert pages(parts, 2, one_leaves_and_another_comes) == [[1, 2], [3, 4], [7, 8]]


# The screens, on what a daemon really tells


async def test_the_screen_shows_a_status_that_a_daemon_tells(parts, monkeypatch):
    async def answers(destination):
        return Answered(1.25)

    monkeypatch.setattr("proxyd.daemon.status_document.probe", answers)
    (parts.directory / "virtqemud-sock").touch()
    opened(parts)
    parts.reloader.last = document.Reload(at=time.time() - 60, succeeded=True, text="it went well")

    shown = printed(status_view(await parts.host.status(ask_daemons=True)))

    for part in (
        "clients 1 of 100",
        f"pid {os.getpid()}",
        "virtqemud",
        "in 1.2 ms",
        "it went well",
    ):
        assert part in shown
    assert attention(await parts.host.status(ask_daemons=False)) == []


async def test_the_screen_shows_clients_that_a_daemon_tells_of(parts):
    opened(parts)
    parts.arrive(anonymous=True, door=TLS_DOOR).address = "[::1]:4711"

    shown = printed(clients_view(described(parts.roster, after=0, most=9)))

    first, second = shown.splitlines()[1:3]
    for part in ("libvirt-sock", "uid 1000 (fred) pid 42", "qemu:///system", "virtqemud"):
        assert part in first
    for part in ("[::1]:4711", "not known yet", "negotiating"):
        assert part in second


# What it needs, and does not find


def subjects(status):
    return [each["subject"] for each in status["faults"]]


async def test_a_daemon_that_was_there_and_has_gone_is_missing_until_a_reload(parts):
    for name in ("virtqemud-sock", "virtlxcd-sock"):
        (parts.directory / name).touch()
    assert [each["missing"] for each in (await told(parts))["backends"]] == [False, False]

    (parts.directory / "virtqemud-sock").unlink()

    status = await told(parts)
    assert {each["daemon"]: each["missing"] for each in status["backends"]} == {
        "virtqemud": True,
        "virtlxcd": False,
    }
    assert subjects(status) == []
    (parts.directory / "virtlxcd-sock").unlink()
    assert subjects(await told(parts)) == ["daemons"]

    (parts.directory / "virtlxcd-sock").touch()
    await parts.reloader.reload()
    assert daemons(await told(parts)) == [("virtlxcd", True, 0)]


async def test_a_daemon_that_only_a_session_has_seen_may_be_missing_too(parts):
    path = parts.directory / "virtqemud-sock"
    path.touch()
    client = opened(parts, backend=str(path))
    parts.roster.opened(client, client.pair, lambda _: None)
    parts.roster.ended(client, "gone")
    path.unlink()
    (row,) = (await told(parts))["backends"]
    assert (row["present"], row["missing"]) == (False, True)


async def test_what_this_process_starts_itself_is_not_missing(parts, monkeypatch):
    (parts.directory / "virtqemud-sock").touch()
    await told(parts)
    (parts.directory / "virtqemud-sock").unlink()
    parts.reporter.needs.can_start = lambda destination: destination.daemon == "virtqemud"
    status = await told(parts)
    assert subjects(status) == []
    assert not any(each["missing"] for each in status["backends"])


async def test_a_directory_of_daemons_that_does_not_exist_is_told(directory):
    made = Parts(directory, f'proxyd_backend_dir = "{directory}/none"')
    (fault,) = (await told(made))["faults"]
    assert fault["subject"] == "proxyd_backend_dir"
    assert f"{directory}/none: there is no such directory" in fault["text"]
    made.close()


async def test_a_listener_whose_file_is_gone_or_somebody_elses_is_told(parts):
    path = f"{parts.directory}/libvirt-sock"
    with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as other:
        ours.bind(path)
        parts.put_in_force(listeners=[(ours, UNIX_DOOR)])
        parts.reporter.needs.__post_init__()
        assert "broken" not in (await told(parts))["listeners"][0]
        os.unlink(path)
        assert "its file is gone" in (await told(parts))["listeners"][0]["broken"]
        other.bind(path)
        assert "was replaced" in (await told(parts))["listeners"][0]["broken"]


async def test_what_clients_are_offered_and_no_longer_serves_is_told(directory):
    path = directory / "passwords"
    PasswordFile(str(path)).set_password("ann", "a long secret")
    config = f'listen_tls = 0\nauth_unix_rw = "sasl"\nproxyd_backend_dir = "{directory}"'
    (directory / "virtqemud-sock").touch()
    made = Parts(directory, f'{config}\nproxyd_passwords = "{path}"')
    assert subjects(await told(made)) == []
    path.unlink()
    (fault,) = (await told(made))["faults"]
    assert fault["subject"] == "sasl"
    assert str(path) in fault["text"]
    made.close()


class SilentPolkit:
    async def trouble(self, *, wake):
        return "it was woken" if wake else "it sleeps"


async def test_polkit_is_asked_and_woken_only_where_that_is_allowed(parts):
    (parts.directory / "virtqemud-sock").touch()
    parts.reporter.needs.polkit = SilentPolkit()
    for ask, says in ((False, "it sleeps"), (True, "it was woken")):
        (fault,) = (await told(parts, ask_daemons=ask))["faults"]
        assert (fault["subject"], says in fault["text"]) == ("polkit", True)


async def test_a_drain_that_began_in_another_process_goes_on(parts, caplog):
    with caplog.at_level("INFO"):
        parts.made.drain.go_on(1700000000.5)
    assert not [each for each in caplog.messages if "draining" in each]  # it was told before
    assert (await told(parts))["drain"]["since"] == 1700000000.5
    assert parts.admission.draining
    assert not parts.host.drain(on=True).changed
