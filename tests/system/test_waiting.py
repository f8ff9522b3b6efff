"""Nothing makes a client wait that would not make it wait without proxyd, by any transport.

What a client prints is compared elsewhere. Here it is time: what programs do all day, errors, odd
networks, silence. libvirtd's own listeners are the measure, on the same daemon. It has none for
SSH, and cannot send a volume through GSSAPI (9.0.0: "failed to decode SASL data"), so there the
measure is another transport.
"""

import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import pytest

from proxyd.sasl.passwords import PasswordFile
from tests.bed.cases import BESIDE, EVERYTHING, IDLE
from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.sasl import SERVICE, auth_file, tcp_uri, with_tickets
from tests.bed.side_by_side import Way
from tests.bed.virsh import tls_uri, unix_uri

pytestmark = pytest.mark.system

NAME = "test:///default"
TLS_1_2 = {"tls_priority": "NORMAL:-VERS-TLS1.3"}
TRANSPORTS = ["unix", "tls 1.3", "tls 1.2", "tls 1.3 by IPv6", "tcp"]


@pytest.fixture(scope="module")
def tickets(kdc):
    made = kdc.tickets("joe")
    kdc.prepare(made, SERVICE)
    return with_tickets(kdc, made)


@pytest.fixture(scope="module")
def listening(backend_dir, qemu_backend, host_pki, kdc):
    """Starts a proxyd with all listeners on an address; settings add to that."""
    with ExitStack() as stack:

        def listening(host="127.0.0.1", **config):
            settings = {
                "proxyd_routes": [f"test={qemu_backend.sock}"],
                "listen_tls": 1,
                "listen_tcp": 1,
                "listen_addr": host,
                "tls_port": "0",
                "tcp_port": "0",
                "proxyd_keytab": str(kdc.keytab(SERVICE)),
                **host_pki.settings(host_pki.server()),
                **config,
            }
            directory = stack.enter_context(short_directory())
            front = Proxyd(
                directory, backend_dir=backend_dir, config=settings, environment=kdc.environment
            )
            return stack.enter_context(front)

        yield listening


@pytest.fixture(scope="module")
def direct(qemu_backend, direct_tls, direct_tcp):
    """For each transport the way to the daemon itself."""
    return {
        "unix": qemu_backend.unix_way(NAME),
        "tls 1.3": direct_tls(NAME),
        "tls 1.2": direct_tls(NAME, **TLS_1_2),
        "tls 1.3 by IPv6": direct_tls(NAME),
        "tcp": direct_tcp(NAME),
    }


@pytest.fixture(scope="module")
def ways_to(host_client, tickets):
    """For each transport the way through a proxyd."""

    def ways_to(front):
        address = front.tls_address()
        return {
            "unix": Way(unix_uri(NAME, front.sock)),
            "tls 1.3": Way(tls_uri(NAME, address, host_client)),
            "tls 1.2": Way(tls_uri(NAME, address, host_client, **TLS_1_2)),
            "tcp": Way(tcp_uri(NAME, front.tcp_address()), tickets),
        }

    return ways_to


@pytest.fixture(scope="module")
def front(listening):
    return listening()


@pytest.fixture(scope="module")
def through(front, listening, ways_to, host_client):
    by_ipv6 = tls_uri(NAME, listening("::1").tls_address("::1"), host_client)
    return {**ways_to(front), "tls 1.3 by IPv6": Way(by_ipv6)}


# ---- What programs do all day


@pytest.mark.usefixtures("cases_pool")
@pytest.mark.parametrize(
    ("measure", "transports"),
    [
        ("unix", ["unix", "tcp"]),
        ("tls 1.3", ["tls 1.3", "tls 1.3 by IPv6"]),
        ("tls 1.2", ["tls 1.2"]),
    ],
)
def test_a_program_never_waits(measure, transports, direct, through, side_by_side):
    ways = [through[transport] for transport in transports]

    side_by_side.script(direct[measure], ways, EVERYTHING)


def test_silent_connections_are_served_at_once(direct, through, side_by_side):
    """After some intervals of keepalive, each of which both sides have answered."""
    side_by_side.script(direct["unix"], list(through.values()), IDLE, at_once=True)


# ---- Errors


def failing_then_working(wrong, right, times=3):
    """Whoever fails again and again does not make the next one wait."""
    failed = [wrong.virsh("list").status != 0 for _ in range(times)]
    return failed, right.virsh("list").status


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["nosuch:///system", "lxc:///system", "test:///nosuch/file"])
def test_what_cannot_be_opened_fails_at_once(transport, name, direct, through, side_by_side):
    """A driver that nobody has, a daemon that is not there, one that refuses."""

    def tried(way):
        return partial(failing_then_working, elsewhere(way, name), way)

    side_by_side.of(name, tried(direct[transport]), tried(through[transport]))


def elsewhere(way, name):
    """That transport, with another driver's name."""
    driver, path = name.split(":///")
    begin, _, rest = way.uri.partition("/default")
    return replace(way, uri=f"{driver}{begin.removeprefix('test')}/{path}{rest}")


@pytest.mark.parametrize("transport", [each for each in TRANSPORTS if each.startswith("tls")])
@pytest.mark.parametrize("shown", ["another CA's", "none"])
def test_a_wrong_certificate_is_refused_at_once(
    transport, shown, direct, through, side_by_side, tmp_path, host_pki, host_client
):
    if shown == "none":
        files = host_pki.stranger()
    else:
        files = Pki(tmp_path / "other", name="somebody else").client(("CN", "mallory"))
        shutil.copy(host_pki.ca_file, files / "cacert.pem")

    def tried(way):
        uri = way.uri.replace(quoted(host_client), quoted(files)) + "&no_sanity=1"
        return partial(failing_then_working, replace(way, uri=uri), way)

    side_by_side.of(shown, tried(direct[transport]), tried(through[transport]))


def quoted(path):
    return quote(str(path), safe="")


def test_who_has_no_ticket_is_refused_at_once(direct, through, kdc, side_by_side):
    def tried(way):
        return partial(failing_then_working, replace(way, environment=kdc.environment), way)

    side_by_side.of("no ticket", tried(direct["tcp"]), tried(through["tcp"]))


@pytest.mark.parametrize("user", ["ann", "nobody"])
def test_a_wrong_password_is_refused_at_once(user, listening, side_by_side, tmp_path):
    """libvirtd has no passwords here: the measure is how fast the right one is let in.

    Nearly all of it is the client's own, who hashes the password many thousand times.
    """
    passwords = PasswordFile(str(tmp_path / "passwords"))
    passwords.set_password("ann", "correct horse")
    front = listening(auth_unix_rw="sasl", proxyd_passwords=passwords.path)
    uri = unix_uri(NAME, front.sock, auth="sasl.SCRAM-SHA-256")

    def way(name, password):
        file = auth_file(tmp_path / f"{name}-{password}.conf", name, password)
        return Way(uri, {"LIBVIRT_AUTH_FILE": str(file)})

    wrong, right = way(user, "incorrect horse"), way("ann", "correct horse")

    def let_in():
        for _ in range(2):
            right.virsh("list").succeeded()
        return [True], 0

    side_by_side.of("a wrong password", let_in, partial(failing_then_working, wrong, right, 1))


# ---- Networks


@pytest.fixture(scope="module")
def beside(qemu_backend, listening):
    """A proxyd in the daemon's network, so that clients of both meet the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.bed.proxyd.WRAPPER", qemu_backend.there)
        return listening()


@contextmanager
def network(backend, *commands):
    """The daemon's own network, changed by these; it is as before when the block ends."""
    restore = ("ip link set lo mtu 65536", "tc qdisc del dev lo root")
    with ExitStack() as undo:
        for command in restore:
            undo.callback(run_to_end, [*backend.there, *command.split()], deadline_s=10)
        for command in commands:
            run_to_end([*backend.there, *command.split()], deadline_s=10).succeeded()
        yield


@pytest.mark.usefixtures("cases_pool")
def test_small_packets_make_nobody_wait(qemu_backend, beside, ways_to, direct, side_by_side):
    ways = ways_to(beside)
    there = [
        replace(ways[transport], wrapper=qemu_backend.there) for transport in ("tls 1.3", "tcp")
    ]
    with network(qemu_backend, "ip link set lo mtu 296"):
        side_by_side.script(direct["tls 1.3"], there, EVERYTHING)


@pytest.mark.usefixtures("cases_pool")
@pytest.mark.parametrize("transport", ["tls 1.3", "tcp"])
def test_a_download_by_a_slow_line_makes_nobody_wait(
    transport, qemu_backend, beside, ways_to, direct, side_by_side
):
    """Calls of the same connection, whose replies queue behind what is on its way already."""
    way = replace(ways_to(beside)[transport], wrapper=qemu_backend.there)
    slow = "tc qdisc add dev lo root tbf rate 4mbit burst 8kb latency 100ms"
    with network(qemu_backend, "ip link set lo mtu 1500", slow):
        side_by_side.script(direct["tls 1.3"], [way], BESIDE)
