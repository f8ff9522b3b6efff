"""The real virt-admin against proxyd and against libvirtd, side by side."""

import re
from contextlib import contextmanager
from functools import partial

import pytest

from tests.bed.client_list import client_numbers
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE, tcp_uri, with_tickets
from tests.bed.side_by_side import SideBySide
from tests.bed.virsh import held_virsh, tls_uri, unix_uri, virt_admin
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

URI = "test:///default"

# In this order, since what one changes is there for the next.
COMMANDS = [
    ("server-list",),
    ("server-threadpool-info", "SERVER"),
    ("server-threadpool-info", "admin"),
    ("server-threadpool-info", "nowhere"),
    ("server-threadpool-set", "SERVER"),
    ("server-threadpool-set", "SERVER", "--min-workers", "500"),
    ("client-list", "SERVER"),
    ("client-list", "admin"),
    ("client-list", "nowhere"),
    ("client-info", "SERVER", "ID"),
    ("client-info", "SERVER", "7777"),
    ("client-info", "nowhere", "1"),
    ("client-disconnect", "SERVER", "7777"),
    ("server-clients-info", "SERVER"),
    ("server-clients-info", "admin"),
    ("server-clients-set", "SERVER", "--max-clients", "100"),
    ("server-clients-set", "SERVER", "--max-clients", "50", "--max-unauth-clients", "9"),
    ("server-clients-info", "SERVER"),
    ("server-clients-set", "SERVER", "--max-unauth-clients", "5000"),
    ("server-clients-set", "SERVER"),
    ("server-clients-set", "nowhere", "--max-clients", "5"),
    ("server-update-tls", "SERVER"),
    ("server-update-tls", "nowhere"),
    ("daemon-log-filters",),
    ("daemon-log-filters", "1:rpc 3:util"),
    ("daemon-log-filters",),
    ("daemon-log-filters", "7:rpc"),
    ("daemon-log-filters", ""),
    ("daemon-log-outputs", "nonsense"),
    ("daemon-log-outputs", "1:file:/proc/no/such/log"),
    ("daemon-log-outputs", "2:stderr 3:syslog:somebody"),
    ("daemon-log-outputs",),
    ("daemon-timeout", "--timeout", "0"),
    ("daemon-timeout", "--timeout", "300"),
    ("client-disconnect", "SERVER", "ID"),
]


class Side:
    """A daemon, the name of its main server, and a client of it."""

    def __init__(self, name, daemon):
        self.name = name
        self.sock = daemon.sock
        self.admin_sock = daemon.admin_sock

    def run(self, *arguments):
        """One command; `SERVER` and `ID` stand for what they are here."""
        words = [self.name if each == "SERVER" else each for each in arguments]
        if "ID" in words:
            words[words.index("ID")] = self.numbers()[-1]
        return virt_admin(self.admin_sock, *words)

    def numbers(self):
        return client_numbers(self.admin_sock, self.name)

    def told(self, *arguments):
        """What can be compared: names and numbers are replaced, the tables' rules cut short.

        Of an error it is its kind, where it has one: the texts are each daemon's own.
        """
        done = self.run(*arguments)
        lines = re.sub(r"\d+", "N", done.stdout.replace(self.name, "SERVER")).splitlines()
        shown = sorted(" ".join(re.sub("-+", "-", line).split()) for line in lines)
        errors = [kind(line) for line in done.stderr.splitlines()]
        return done.status, shown, errors


def kind(line):
    """What stands before the text of an error, or all of virt-admin's own words."""
    if re.match(r"error: (failed|cannot) (to )?open", line):  # a bare text with the code 38
        return "error: open"
    return re.sub(r"^(error: [^:]*):.*", r"\1", line)


def info(admin_sock, number):
    """What client-info says, by its words."""
    text = virt_admin(admin_sock, "client-info", "virtproxyd", number).succeeded()
    return dict(re.split(r"\s*: ", line, maxsplit=1) for line in text.strip().splitlines())


@contextmanager
def connected(uri, admin_sock, server="virtproxyd", environment=None):
    """A virsh that stays, and its number."""
    before = set(client_numbers(admin_sock, server))
    with held_virsh(uri, "event", "--all", "--loop", environment=environment):
        new = wait_until(
            lambda: set(client_numbers(admin_sock, server)) - before, 10, "virsh is connected"
        )
        yield new.pop()


@pytest.fixture
def sides(make_libvirtd, make_proxyd):
    libvirtd = Side("libvirtd", make_libvirtd())
    proxyd = Side("virtproxyd", make_proxyd())
    with (
        connected(unix_uri(URI, libvirtd.sock), libvirtd.admin_sock, "libvirtd"),
        connected(unix_uri(URI, proxyd.sock), proxyd.admin_sock),
    ):
        yield libvirtd, proxyd


def test_every_command_says_what_it_says_of_libvirtd(sides):
    libvirtd, proxyd = sides
    once = SideBySide()  # a second run would find what the first has changed
    for command in COMMANDS:
        once.of(" ".join(command), partial(libvirtd.told, *command), partial(proxyd.told, *command))


def test_both_names_of_the_socket_serve(proxyd):
    for driver in ("libvirtd", "virtproxyd"):
        sock = proxyd.sock.with_name(
            "libvirt-admin-sock" if driver == "libvirtd" else f"{driver}-admin-sock"
        )
        said = virt_admin(sock, "version", driver=driver).succeeded()
        assert "Running against daemon: 11.3.0" in said


def test_the_pool_cannot_be_changed_and_the_error_says_why(proxyd):
    done = virt_admin(
        proxyd.admin_sock, "server-threadpool-set", "virtproxyd", "--max-workers", "30"
    )
    assert done.status == 1
    assert "no call of a client ever waits for a thread of proxyd" in done.stderr
    unchanged = virt_admin(
        proxyd.admin_sock, "server-threadpool-set", "virtproxyd", "--max-workers", "2"
    )
    unchanged.succeeded()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def everywhere(make_proxyd, kdc, pki):
    """A proxyd that listens on all transports."""
    return make_proxyd(
        {
            "listen_tcp": 1,
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "tls_port": "0",
            "proxyd_keytab": str(kdc.keytab(SERVICE)),
            **pki.settings(pki.server()),
        },
        environment=kdc.environment,
    )


def test_a_unix_clients_identity_is_shown(everywhere):
    with connected(unix_uri(URI, everywhere.sock_ro), everywhere.admin_sock) as number:
        shown = info(everywhere.admin_sock, number)
    assert shown["transport"] == "unix"
    assert shown["readonly"] == "yes"
    assert (shown["unix_user_id"], shown["unix_user_name"]) == ("0", "root")
    assert (shown["unix_group_id"], shown["unix_group_name"]) == ("0", "root")
    assert int(shown["unix_process_id"]) > 1
    assert "sock_addr" not in shown


def test_a_tls_clients_identity_is_shown(everywhere, pki):
    joe = pki.client(("O", "Example"), ("CN", "joe"))
    uri = tls_uri(URI, everywhere.tls_address(), joe)
    with connected(uri, everywhere.admin_sock) as number:
        shown = info(everywhere.admin_sock, number)
    assert shown["transport"] == "tls"
    assert shown["readonly"] == "no"
    assert shown["tls_x509_dname"] == "O=Example,CN=joe"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", shown["sock_addr"])
    assert "unix_user_id" not in shown


def test_a_kerberos_clients_identity_is_shown(everywhere, kdc):
    uri = tcp_uri(URI, everywhere.tcp_address())
    environment = with_tickets(kdc, kdc.tickets("joe"))
    with connected(uri, everywhere.admin_sock, environment=environment) as number:
        shown = wait_until(
            lambda: (found := info(everywhere.admin_sock, number)).get("sasl_user_name") and found,
            10,
            "the client has proven who it is",
        )
    assert shown["transport"] == "tcp"
    assert shown["sasl_user_name"] == "joe"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", shown["sock_addr"])
    assert "tls_x509_dname" not in shown
