"""The real virt-admin against the admin server: what it prints, and what it does."""

import os
import re

import pytest

from proxyd.admin.pool import check_unchanged, fixed_pool
from proxyd.admin.view import Limits, PoolBounds
from proxyd.config.logstrings import format_filters, format_outputs
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.wire import failure
from tests.admin.live import live_admin
from tests.bed.daemon import short_directory
from tests.bed.virsh import virt_admin
from tests.fakes.admin import NO_FILE

pytestmark = pytest.mark.system


@pytest.fixture
def live():
    with short_directory() as directory, live_admin(directory) as served:
        yield served


@pytest.fixture
def host(live):
    return live.host


@pytest.fixture
def run(live):
    """One command's output, or with `fails` what it says on stderr."""

    def run(*arguments, fails=False):
        finished = virt_admin(live.path, *arguments)
        if not fails:
            return finished.succeeded()
        assert finished.status == 1, finished
        return finished.stderr

    return run


def table(text):
    """`name : value` lines."""
    return dict(re.split(r"\s*: ", line, maxsplit=1) for line in text.strip().splitlines())


def rows(text):
    """The rows below a table's head, as words."""
    return [line.split() for line in text.split("---\n")[1].strip().splitlines()]


def test_servers_are_listed(run):
    assert rows(run("srv-list")) == [["0", "virtproxyd"], ["1", "admin"]]


def test_the_version_is_shown(run):
    assert "Running against daemon: 11.3.0" in run("version")


def test_the_pool_is_shown(run):
    assert table(run("srv-threadpool-info", "virtproxyd")) == {
        "minWorkers": "2",
        "maxWorkers": "8",
        "nWorkers": "3",
        "freeWorkers": "1",
        "prioWorkers": "5",
        "jobQueueDepth": "7",
    }


def test_a_pool_is_set(run, host):
    run("srv-threadpool-set", "virtproxyd", "--min-workers", "3", "--max-workers", "9")
    assert host.main.told == [PoolBounds(min_workers=3, max_workers=9, prio_workers=5)]


def test_a_pool_that_cannot_be_set_says_what_is_possible(run, host, monkeypatch):
    host.main.pool = fixed_pool(1)
    monkeypatch.setattr(
        host.main, "set_pool", lambda bounds: check_unchanged(host.main.pool, bounds)
    )
    said = run("srv-threadpool-set", "virtproxyd", "--max-workers", "9", fails=True)
    assert "Unable to change server workerpool parameters" in said
    assert "Operation not supported: no call of a client ever waits for a thread" in said
    assert "minWorkers and maxWorkers are 1, prioWorkers is 0" in said
    said = run("srv-threadpool-set", "virtproxyd", "--min-workers", "9", fails=True)
    assert "invalid argument: minWorkers 9 is more than maxWorkers 1" in said
    run("srv-threadpool-set", "virtproxyd", "--min-workers", "1", "--max-workers", "1")


def test_clients_are_listed(run, host):
    host.main.join()
    host.main.join(transport=Transport.TLS)
    host.main.join(transport=Transport.TCP, identity=None)
    assert [row[:3] for row in rows(run("client-list", "virtproxyd"))] == [
        ["1", "unix", "2023-11-14"],
        ["2", "tls", "2023-11-14"],
        ["3", "tcp", "2023-11-14"],
    ]


def test_two_thousand_clients_are_listed(run, host):
    for _ in range(2000):
        host.main.join()
    assert len(rows(run("client-list", "virtproxyd"))) == 2000


def test_virt_admin_finds_itself_among_the_clients_of_the_admin_server(run):
    ((number, transport, *_),) = rows(run("client-list", "admin"))
    assert (number, transport) == ("1", "unix")


def test_a_client_is_shown(run, host):
    host.main.join()
    shown = table(run("client-info", "virtproxyd", "1"))
    shown.pop("connection_time")
    assert shown == {
        "id": "1",
        "transport": "unix",
        "readonly": "no",
        "unix_user_id": "1000",
        "unix_user_name": "fred",
        "unix_group_id": "100",
        "unix_group_name": "users",
        "unix_process_id": "4242",
    }


def test_a_client_of_the_network_is_shown(run, host):
    host.main.join(
        transport=Transport.TLS,
        address="192.0.2.7:40000",
        identity=ClientIdentity(x509_dname="CN=kvm1,O=Example", sasl_user_name="joe@EXAMPLE"),
    ).readonly = True
    shown = table(run("client-info", "virtproxyd", "1"))
    shown.pop("connection_time")
    assert shown == {
        "id": "1",
        "transport": "tls",
        "readonly": "yes",
        "sasl_user_name": "joe@EXAMPLE",
        "sock_addr": "192.0.2.7:40000",
        "tls_x509_dname": "CN=kvm1,O=Example",
    }


def test_a_client_that_nobody_knows_yet_is_not_shown(run, host):
    host.main.join(identity=None)
    said = run("client-info", "virtproxyd", "1", fails=True)
    assert "who client 1 of virtproxyd is, is not known yet" in said


def test_a_client_is_disconnected(run, host):
    client = host.main.join()
    assert "Client '1' disconnected" in run("client-disconnect", "virtproxyd", "1")
    assert client.closed


@pytest.mark.parametrize("command", ["client-info", "client-disconnect"])
def test_an_unknown_client_is_not_found(run, command):
    said = run(command, "virtproxyd", "77", fails=True)
    assert "Client not found: virtproxyd has no client 77" in said


@pytest.mark.parametrize(
    "command",
    [
        ["srv-threadpool-info"],
        ["srv-threadpool-set", "--max-workers", "9"],
        ["client-list"],
        ["client-info", "--client", "1"],
        ["client-disconnect", "--client", "1"],
        ["srv-clients-info"],
        ["srv-clients-set", "--max-clients", "9"],
        ["server-update-tls"],
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_server_is_not_found(run, command):
    said = run(command[0], "--server", "libvirtd", *command[1:], fails=True)
    assert 'Server not found: no server is called "libvirtd", there are virtproxyd and adm' in said


def test_limits_are_shown(run, host):
    host.main.join()
    assert table(run("srv-clients-info", "virtproxyd")) == {
        "nclients_max": "5000",
        "nclients": "1",
        "nclients_unauth_max": "20",
        "nclients_unauth": "0",
    }
    assert table(run("srv-clients-info", "admin"))["nclients"] == "1"


def test_limits_are_set(run, host):
    run("srv-clients-set", "virtproxyd", "--max-clients", "100", "--max-unauth-clients", "50")
    assert host.main.limits == Limits(max_clients=100, max_anonymous=50)
    run("srv-clients-set", "admin", "--max-clients", "7")
    assert table(run("srv-clients-info", "admin"))["nclients_max"] == "7"


def test_limits_that_contradict_each_other_are_refused(run):
    said = run("srv-clients-set", "virtproxyd", "--max-clients", "10", fails=True)
    assert "invalid argument: nclients_unauth_max 20 is more than nclients_max 10" in said


def test_log_outputs_are_shown_and_set(run, host):
    assert "Logging outputs: 3:stderr 1:file:/var/log/x\n" in run("daemon-log-outputs")
    run("daemon-log-outputs", "--outputs", "1:stderr 2:syslog:px")
    assert format_outputs(host.log_outputs) == "1:stderr 2:syslog:px"
    run("daemon-log-outputs", "--outputs", "")
    assert "Logging outputs: 3:journald\n" in run("daemon-log-outputs")


def test_log_filters_are_shown_and_set(run, host):
    assert run("daemon-log-filters").strip() == "Logging filters:"
    run("daemon-log-filters", "--filters", "1:rpc 4:util")
    assert "Logging filters: 1:*rpc* 4:*util* \n" in run("daemon-log-filters")
    run("daemon-log-filters", "--filters", "")
    assert format_filters(host.log_filters) == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--outputs", "bogus"], 'invalid argument: "bogus": an output is a level'),
        (["--outputs", f"1:file:{NO_FILE}"], f"cannot open {NO_FILE}: No such file or directory"),
    ],
)
def test_log_outputs_that_cannot_be_are_refused(run, arguments, text):
    said = run("daemon-log-outputs", *arguments, fails=True)
    assert "Unable to change daemon logging settings" in said
    assert text in said


def test_a_log_filter_that_cannot_be_is_refused(run):
    said = run("daemon-log-filters", "--filters", "7:rpc", fails=True)
    assert 'invalid argument: "7:rpc": the level is 1 (debug)' in said


def test_certificates_are_loaded_anew(run, host):
    said = run("server-update-tls", "virtproxyd")
    assert said.strip() == "update tls related files succeed"
    assert host.main.told == ["TLS"]


def test_certificates_that_cannot_be_loaded_are_told_of(run, host):
    host.main.refusal = failure.internal("servercert.pem: has expired")
    said = run("server-update-tls", "virtproxyd", fails=True)
    assert "Unable to update server's tls related files." in said
    assert "servercert.pem: has expired" in said
    assert "the admin server has no TLS listener" in run("server-update-tls", "admin", fails=True)


def test_the_idle_timeout_is_set(run, host):
    run("daemon-timeout", "--timeout", "30")
    assert host.told == [("idle exit", 30)]


def test_another_user_gets_nothing(live):
    directory = os.path.dirname(live.path)
    os.chmod(directory, 0o755)
    os.chmod(live.path, 0o777)
    finished = virt_admin(live.path, "srv-list", user=65534)
    # Not a word: depending on who is faster it hears of the end, or writes into it (SIGPIPE).
    assert finished.status != 0
    assert finished.stdout.strip() == ""
    assert virt_admin(live.path, "srv-list").succeeded()
