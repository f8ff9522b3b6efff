"""What one user of this host can do to another: nothing that takes a second.

The attackers are real connections of an unprivileged user, as many as he can have; the bystanders
are root, another user, whoever a rule of polkit's lets in, and doors that ask for nothing.
"""

import pwd
import select
import sys
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from jeepney.io.blocking import open_dbus_connection
from jeepney.low_level import HeaderFields
from jeepney.wrappers import DBusAddress, new_method_call

from proxyd.admission.capacity import Capacity
from proxyd.sasl.passwords import PasswordFile
from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import held_open
from tests.bed.daemon import short_directory
from tests.bed.descriptor_limit import limited_descriptors
from tests.bed.polkit import Polkitd, PrivateBus
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened, rpc_client
from tests.system.tls_client import connected

pytestmark = pytest.mark.system

URI = remote.OpenArguments("test:///default", 0).pack()
ATTACKER, OTHER = 65534, pwd.getpwnam("bin").pw_uid
CLIENTS = 40
BYSTANDER_S = 1.0
DEADLINE_S = 15
CAPABILITIES = 7  # a procedure with an answer of kilobytes


@pytest.fixture
def start(make_proxyd):
    def start(**config):
        settings = {"max_clients": CLIENTS, "unix_sock_rw_perms": "0777", **config}
        front = make_proxyd(settings, mode=0o711)
        wait_until(lambda: "client 1 ended" in front.log_text(), 10, "the bed's client is gone")
        return front

    return start


def served(path, user=0):
    """How long it takes until a session is open and a call is answered, in seconds."""
    began = time.monotonic()
    with opened(path, user=user) as client:
        assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
    return time.monotonic() - began


def bystanders_are_served(front):
    """On both sockets: root, and another user."""
    for path in (front.sock, front.sock_ro):
        for user in (0, OTHER):
            assert served(path, user) < BYSTANDER_S, f"uid {user} waited at {path.name}"


@contextmanager
def many(count, path, words=b"", user=ATTACKER):
    """So many connections of one user, each of which says this and then nothing."""
    with ExitStack() as stack:
        clients = [stack.enter_context(rpc_client(path, user=user)) for _ in range(count)]
        for client in clients:
            client.sock.setblocking(True)
            with suppress(BrokenPipeError):  # it has been turned away already
                client.send(words)
        yield clients


def ended(clients):
    """Those whose other side is closed; what came before is thrown away."""
    poll = select.poll()
    for client in clients:
        poll.register(client.sock, select.POLLRDHUP)
    return len(poll.poll(0))


# Places


HALF_A_CALL = remote.call(Remote.AUTH_LIST, 0).pack()[:9]
A_CALL = remote.call(Remote.AUTH_LIST, 0).pack()


@pytest.mark.parametrize("words", [b"", HALF_A_CALL, A_CALL], ids=["silent", "half", "one call"])
def test_connections_that_open_nothing_keep_out_nobody_else(start, words):
    front = start(listen_tcp=1, listen_addr="127.0.0.1", tcp_port="0", auth_tcp="none")
    with many(2 * CLIENTS, front.sock_ro, words):
        bystanders_are_served(front)
        for _ in range(3):  # who comes by the network may have to see them silent for a second
            with connected(front.tcp_address()) as sock:
                assert RpcClient(sock).open("test:///default").header.status == Status.OK


def test_open_sessions_keep_out_nobody_else(start):
    front = start()
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(opened(front.sock_ro, user=ATTACKER))
        waiting = stack.enter_context(many(CLIENTS, front.sock))

        bystanders_are_served(front)

        # He himself waits, as libvirt would have him, or is told that others of his do so already.
        standing = Capacity.of(CLIENTS).standing
        wait_until(lambda: ended(waiting) == CLIENTS - standing, DEADLINE_S, "the rest is gone")
        bystanders_are_served(front)
    log = front.log_text()
    assert log.count("no room for more clients by UNIX") == 1
    assert log.count("turned away") == 1


def test_clients_in_the_middle_of_sasl_keep_out_nobody_else(start, tmp_path):
    passwords = PasswordFile(str(tmp_path / "passwords"))
    passwords.set_password("joe", "secret")
    sasl = {"auth_unix_ro": "sasl", "proxyd_passwords": passwords.path}
    front = start(**sasl, max_anonymous_clients=10)
    with many(2 * CLIENTS, front.sock_ro, remote.call(Remote.AUTH_SASL_INIT, 0).pack()) as mine:
        assert mine[0].receive().header.status == Status.OK
        for user in (0, OTHER):
            assert served(front.sock, user) < BYSTANDER_S
            with rpc_client(front.sock_ro, user=user) as client:
                began = time.monotonic()
                assert client.call(Remote.AUTH_SASL_INIT).header.status == Status.OK
                assert time.monotonic() - began < BYSTANDER_S
    assert f"uid {ATTACKER}: 10 of 10 unauthenticated; others wait" in front.log_text()


def test_parallel_clients_of_one_user_are_served_one_after_the_other(start, tmp_path):
    path = tmp_path / "passwords"
    PasswordFile(str(path)).set_password("joe", "secret")
    front = start(auth_unix_rw="sasl", proxyd_passwords=str(path), max_anonymous_clients=2)
    with many(10, front.sock) as clients:
        for client in clients:
            assert client.call(Remote.AUTH_SASL_INIT).header.status == Status.OK
            client.close()


# Limits of one's own


def test_who_is_over_his_own_limit_is_gone_in_a_second_and_counts_nowhere(start):
    front = start(proxyd_max_clients_per_peer=5)
    with many(CLIENTS, front.sock_ro) as clients:
        began = time.monotonic()
        wait_until(lambda: ended(clients) == CLIENTS - 5, DEADLINE_S, "the others are gone")
        assert time.monotonic() - began < 3
        bystanders_are_served(front)
        with rpc_client(front.sock, user=ATTACKER) as one_more:
            said = Failure.unpack(one_more.call(Remote.AUTH_LIST).payload).message
            assert "5 clients of uid 65534 are connected already (proxyd_max_clients_per" in said
            assert one_more.ended()
    assert front.log_text().count("turned away") == 1


def test_uids_without_a_name_hold_no_places(start):
    front = start()
    with ExitStack() as stack:
        nameless = [
            stack.enter_context(rpc_client(front.sock_ro, user=uid))
            for uid in range(100_000, 100_000 + 3 * CLIENTS)
        ]
        bystanders_are_served(front)
        wait_until(lambda: ended(nameless) == len(nameless), 5, "all of them are gone")
    assert front.log_text().count(" warning : ") == 1
    assert "Traceback" not in front.log_text()


# polkit


RULES = """
polkit.addRule(function (action, subject) {
    if (subject.user == "games") return polkit.Result.YES;
});
"""
# Asks as many times as it is told, on as many connections, and waits.
ASKING = """
import socket, sys
from proxyd.wire import remote
from proxyd.wire.programs import Remote
sys.stdin.readline()
clients = []
for _ in range(int(sys.argv[2])):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    client.send(remote.call(Remote.AUTH_LIST, 0).pack() + remote.call(Remote.AUTH_POLKIT, 1).pack())
    clients.append(client)
print("asked", flush=True)
sys.stdin.read()
"""
PROMPTS = 30


@pytest.fixture
def polkitd():
    with short_directory(0o711) as directory, PrivateBus(directory) as bus:
        made = Polkitd(directory, bus)
        made.rule(RULES)
        with made:
            yield made


class SilentAgent:
    """Says to polkit that it asks a process's user for passwords, and never does."""

    def __init__(self, bus, pid):
        self.connection = open_dbus_connection(bus.address)
        with open(f"/proc/{pid}/stat") as stat:
            started = int(stat.read().rpartition(")")[2].split()[19])
        authority = DBusAddress(
            "/org/freedesktop/PolicyKit1/Authority",
            bus_name="org.freedesktop.PolicyKit1",
            interface="org.freedesktop.PolicyKit1.Authority",
        )
        subject = ("unix-process", {"pid": ("u", pid), "start-time": ("t", started)})
        register = new_method_call(
            authority, "RegisterAuthenticationAgent", "(sa{sv})ss", (subject, "C", "/agent")
        )
        answer = self.connection.send_and_get_reply(register, timeout=DEADLINE_S)
        assert HeaderFields.error_name not in answer.header.fields, answer.body

    def prompts(self, count):
        """Waits until it has been told to ask so many times."""
        while count:
            message = self.connection.receive(timeout=DEADLINE_S)
            count -= message.header.fields.get(HeaderFields.member) == "BeginAuthentication"

    def close(self):
        self.connection.close()


def test_prompts_that_nobody_answers_are_their_own_users_matter(make_proxyd, polkitd):
    front = make_proxyd(
        {"auth_unix_rw": "polkit", "unix_sock_rw_perms": "0777", "max_clients": 100},
        mode=0o711,
        environment=polkitd.bus.environment,
    )
    command = [sys.executable, "-c", ASKING, str(front.sock), str(PROMPTS)]
    with held_open(command, user=pwd.getpwnam("daemon").pw_uid) as asking:
        agent = SilentAgent(polkitd.bus, asking.pid)
        try:
            print(file=asking.stdin, flush=True)
            assert asking.stdout.readline() == "asked\n"
            agent.prompts(20)

            assert served(front.sock) < BYSTANDER_S  # root
            assert served(front.sock_ro, OTHER) < BYSTANDER_S  # a door without authentication
            began = time.monotonic()
            by_a_rule = pwd.getpwnam("games").pw_uid
            virsh(unix_uri("test:///default", front.sock), "list", user=by_a_rule).succeeded()
            assert time.monotonic() - began < 2 * BYSTANDER_S  # virsh has to be started, too
        finally:
            agent.close()
    assert "20 of 20 unauthenticated; others wait" in front.log_text()


# Descriptors


def stalled(path):
    """Asks for more than its socket takes, and reads nothing: a session that holds what it can."""
    client = RpcClient(path, user=ATTACKER)
    client.sock.settimeout(1)
    try:
        client.send(client.frame(Remote.AUTH_LIST) + client.frame(Remote.CONNECT_OPEN, URI))
        for _ in range(50):
            client.send(client.frame(CAPABILITIES))
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        pass  # it waits for a place, or was told that there is none
    return client


@pytest.mark.parametrize("limit", [64, 128, 256])
def test_with_few_descriptors_one_user_uses_up_his_own(make_proxyd, limit):
    with limited_descriptors(limit):
        front = make_proxyd({"unix_sock_rw_perms": "0777"}, mode=0o711)
    wait_until(lambda: "client 1 ended" in front.log_text(), 10, "the bed's client is gone")
    clients = []
    try:
        clients.extend(stalled(front.sock_ro) for _ in range(limit))
        bystanders_are_served(front)
        assert len(front.descriptors()) < limit
    finally:
        for client in clients:
            client.close()
    assert "Too many open files" not in front.log_text()
    assert "Traceback" not in front.log_text()
