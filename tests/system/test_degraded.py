"""A daemon of which one way in is broken: the others serve, and it is mended without a restart."""

import json
import signal
import socket
import sys

import pytest

from proxyd.process.health import Health
from tests.bed.command import run_to_end
from tests.bed.pki import DAY, Pki
from tests.bed.proxyd_log import log_line, reload
from tests.bed.virsh import tls_uri, unix_uri, virsh
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

URI = "test:///default"
HERE = {"listen_addr": "127.0.0.1", "tls_port": "0", "tcp_port": "0"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def serves_unix(front):
    return virsh(unix_uri(URI, front.sock), "list").status == 0


def status_of(front):
    """The exit status of `proxyd status`, and the troubles that it tells."""
    command = [sys.executable, "-m", "proxyd", "status", "--no-probe", "--json"]
    done = run_to_end([*command, "-s", str(front.directory)], deadline_s=30)
    return done.status, json.loads(done.stdout)["troubles"]


def expired(pki, tmp_path):
    server = pki.server(begins=-2 * DAY, ends=-DAY)
    return {**pki.settings(server), "listen_tls": 1}, str(server.cert_file)


def missing(pki, tmp_path):
    files = {key: str(tmp_path / key) for key in ("ca_file", "cert_file", "key_file")}
    return {**files, "listen_tls": 1}, files["ca_file"]


def alone(pki, tmp_path):
    return {"cert_file": "/x", "listen_tls": 1}, "key_file and ca_file beside cert_file"


def without_key(pki, tmp_path):
    settings = pki.settings(pki.server())
    return {**settings, "key_file": "", "listen_tls": 1}, "key_file to be a path"


def revoked_list_alone(pki, tmp_path):
    return {"crl_file": "/x", "listen_tls": 1}, "key_file, cert_file and ca_file beside crl_file"


def unusable_priority(pki, tmp_path):
    settings = pki.settings(pki.server())
    return {**settings, "tls_priority": "NORMAL:+X", "listen_tls": 1}, "tls_priority to be"


def without_keytab(pki, tmp_path):
    return {"listen_tcp": 1, "proxyd_keytab": str(tmp_path / "no")}, f"{tmp_path / 'no'}: there is"


def without_passwords(pki, tmp_path):
    settings = {**pki.settings(pki.server()), "auth_tls": "sasl", "listen_tls": 1}
    return {**settings, "proxyd_keytab": str(tmp_path / "no")}, "there is no such file"


def empty_address(pki, tmp_path):
    return {"listen_tcp": 1, "auth_tcp": "none", "listen_addr": ""}, "listen_addr to be an address"


def address_of_another_host(pki, tmp_path):
    return {"listen_tcp": 1, "auth_tcp": "none", "listen_addr": "192.0.2.77"}, "192.0.2.77"


def name_of_nobody(pki, tmp_path):
    return {"listen_tcp": 1, "auth_tcp": "none", "listen_addr": "no.such.host.invalid"}, "no.such"


def port_of_nobody(pki, tmp_path):
    return {"listen_tcp": 1, "auth_tcp": "none", "tcp_port": "no-such-service"}, "no-such-service"


def number_of_no_port(pki, tmp_path):
    return {"listen_tcp": 1, "auth_tcp": "none", "tcp_port": "65536"}, "tcp_port to be a port"


def polkit_by_network(pki, tmp_path):
    return {"listen_tcp": 1, "auth_tcp": "polkit"}, "polkit knows only users of this host"


BROKEN = [
    expired,
    missing,
    alone,
    without_key,
    revoked_list_alone,
    unusable_priority,
    without_keytab,
    without_passwords,
    empty_address,
    address_of_another_host,
    name_of_nobody,
    port_of_nobody,
    number_of_no_port,
    polkit_by_network,
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.__name__)
def test_one_way_in_that_is_broken_leaves_the_others(make_proxyd, pki, tmp_path, broken):
    settings, reason = broken(pki, tmp_path)

    front = make_proxyd({**HERE, **settings})

    assert serves_unix(front)
    status, (trouble,) = status_of(front)
    assert status == Health.WARNING
    assert reason in trouble["text"]
    assert reason in log_line(front, "are not served, all others are")


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.__name__)
def test_a_strict_start_fails_by_it(make_proxyd, pki, tmp_path, broken):
    settings, reason = broken(pki, tmp_path)
    with pytest.raises(ChildProcessError, match="ended with 6") as failed:
        make_proxyd({**HERE, **settings, "proxyd_strict_start": 1})
    assert reason in "".join(failed.value.__notes__)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.__name__)
def test_the_check_finds_it_with_its_place(pki, tmp_path, broken):
    settings, reason = broken(pki, tmp_path)
    conf = tmp_path / "conf"
    text = "".join(
        f"{key} = {value if isinstance(value, int) else json.dumps(value)}\n"
        for key, value in {**HERE, "unix_sock_dir": str(tmp_path), **settings}.items()
    )
    conf.write_text(text)
    checked = run_to_end(
        [sys.executable, "-m", "proxyd", "--check-config", "-f", str(conf), "-p", ""],
        deadline_s=30,
    )
    assert checked.status == 1
    (line,) = (line for line in checked.stderr.splitlines() if reason in line)
    assert line.startswith(f"proxyd: {conf}:")
    assert line.endswith("(a daemon starts, and serves all other clients)")


def test_with_an_empty_address_nobody_listens_anywhere(make_proxyd):
    """libvirt does not either; an empty one is not the same as none."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    front = make_proxyd(
        {"listen_tcp": 1, "auth_tcp": "none", "listen_addr": "", "tcp_port": str(port)}
    )
    for host in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=10)
    assert serves_unix(front)


def test_who_comes_by_a_broken_way_is_told_and_let_in_when_it_is_mended(make_proxyd, tmp_path):
    pki = Pki(tmp_path / "pki")
    files = pki.settings(pki.server())
    joe = pki.client()
    away = tmp_path / "away"
    pki.ca_file.rename(away)
    front = make_proxyd({**HERE, **files, "listen_tls": 1})
    (listener,) = (each for each in listeners(front) if each["transport"] == "tls")
    uri = tls_uri(URI, listener["address"], joe)

    assert virsh(uri, "list").status == 1
    assert str(pki.ca_file) in log_line(front, "turned away")

    away.rename(pki.ca_file)
    front.daemon.send(signal.SIGHUP)
    log_line(front, "clients by TLS are served again")
    virsh(uri, "list").succeeded()
    assert status_of(front)[1] == []


def listeners(front):
    command = [sys.executable, "-m", "proxyd", "status", "--no-probe", "--json"]
    done = run_to_end([*command, "-s", str(front.directory)], deadline_s=30)
    return json.loads(done.stdout)["listeners"]


def test_a_unix_socket_without_its_proof_says_so_and_the_other_one_serves(make_proxyd, tmp_path):
    front = make_proxyd({"auth_unix_rw": "sasl", "proxyd_keytab": str(tmp_path / "no")})
    refused = virsh(unix_uri(URI, front.sock), "list")
    assert "clients by UNIX are not served at present" in refused.stderr
    assert str(tmp_path / "no") not in refused.stderr
    virsh(unix_uri(URI, front.sock_ro), "--readonly", "list").succeeded()
    assert status_of(front)[0] == Health.WARNING


def test_a_port_that_becomes_free_is_served_by_and_by(make_proxyd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        front = make_proxyd({**HERE, "listen_tcp": 1, "auth_tcp": "none", "tcp_port": str(port)})
        assert f"127.0.0.1:{port} is in use by pid" in log_line(front, "are not served")
    log_line(front, f"tcp 127.0.0.1:{port} is served from now on")
    wait_until(lambda: status_of(front) == (0, []), 10, "all is well")
    uri = f"test+tcp://127.0.0.1:{port}/default"
    virsh(uri, "list").succeeded()


def test_what_a_proxyd_that_runs_holds_is_no_fault_of_its_own_file(make_proxyd):
    front = make_proxyd({**HERE, "listen_tcp": 1, "auth_tcp": "none"})
    port = log_line(front, "serves").rpartition(":")[2].strip()
    front.conf.write_text(front.conf.read_text().replace('"0"', f'"{port}"'))
    command = [sys.executable, "-m", "proxyd", "--check-config", "-f", str(front.conf)]
    checked = run_to_end([*command, "-p", str(front.daemon.pid_file)], deadline_s=30)
    assert (checked.status, checked.stderr) == (0, "")
    assert serves_unix(front)


def test_a_reload_opens_what_the_file_now_says_of_a_broken_port(make_proxyd):
    front = make_proxyd({**HERE, "listen_tcp": 1, "auth_tcp": "none", "listen_addr": "[::1]"})
    assert "an address without brackets, such as ::1" in log_line(front, "are not served")
    front.conf.write_text(front.conf.read_text().replace("[::1]", "::1"))
    reload(front)
    assert "tcp [::1]:" in log_line(front, "is served from now on")
    assert status_of(front) == (0, [])


def test_a_ca_that_is_empty_trusts_nobody_and_shows_the_certificate_that_is_set(make_proxyd, pki):
    """libvirt serves the configured certificate then, and so nobody gets in by another one's CA."""
    server, joe = pki.server(), pki.client()
    front = make_proxyd({**HERE, **pki.settings(server), "ca_file": "", "listen_tls": 1})
    assert virsh(tls_uri(URI, front.tls_address(), joe), "list").status == 1
    log_line(front, "not issued by a CA of ours")
    told = [
        each["file"]
        for each in json.loads(
            run_to_end(
                [sys.executable, "-m", "proxyd", "status", "--json", "-s", str(front.directory)],
                deadline_s=30,
            ).stdout
        )["certificates"]
    ]
    assert told == [str(server.cert_file)]
    assert "no CA is trusted" in log_line(front, 'ca_file = ""')


def test_a_revocation_list_that_is_empty_is_none(make_proxyd, pki):
    joe = pki.client()
    front = make_proxyd({**HERE, **pki.settings(pki.server()), "crl_file": "", "listen_tls": 1})
    virsh(tls_uri(URI, front.tls_address(), joe), "list").succeeded()


@pytest.mark.parametrize(
    "files",
    [
        {"ca_file": ""},
        {"ca_file": "/nowhere"},
        {"cert_file": "/nowhere", "key_file": "/nowhere"},
        {"crl_file": "/nowhere"},
        {"listen_addr": "", "tls_port": "", "tcp_port": "x y", "auth_tcp": "polkit"},
        {"tls_priority": "no such thing"},
    ],
)
def test_what_nobody_asks_for_is_passed_over(make_proxyd, files):
    front = make_proxyd(files)
    assert serves_unix(front)
    assert status_of(front) == (0, [])
    assert "as long as listen_t" in front.log_text()
