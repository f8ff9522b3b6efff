"""Who would like another rule to decide: other spellings of URIs, addresses in another family."""

import itertools
import socket

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.xdr import Reader
from tests.bed.network import CLIENT, SERVER, two_hosts
from tests.bed.pki import Pki
from tests.bed.proxyd_log import log_line, reload
from tests.bed.ruled_proxyd import DENIED, NAME, rule_of, ruled
from tests.bed.virsh import tls_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, rpc_client
from tests.system.tls_client import LET_IN, client_context

__all__ = ["ruled"]

pytestmark = pytest.mark.system

GET_URI = 110  # CONNECT_GET_URI


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


# What is opened

SCHEMES = ["{}", "{}+unix", "{}+UNIX", "{upper}", "{upper}+unix", "{title}", "%{code}{tail}"]
BETWEEN = ["://", ":///", ":////", ":/", ":", "://localhost/", "://%2F", ":///./", ":///x/../"]
PATHS = [
    *("{}", "{}/", "{}//", "/{}", "./{}", "{upper}", "{title}", "%{code}{tail}", "{}%2F", "{}%20"),
    *("{}%00", "{}.", "{}/.", "{};x", "{}%3Fx", "{}%23", "{}%C0%AF"),
]
TAILS = [
    *("", "?", "?x=y", "#", "#x", "?#", "??", "?no_verify=1", "?name=qemu:///session"),
    *("?socket=/nowhere", "?command=x", "?%73ocket=/nowhere", "?mode=direct", "&x=y"),
]


def spelled(template, word):
    return template.format(
        word, upper=word.upper(), title=word.title(), code=f"{ord(word[0]):02x}", tail=word[1:]
    )


def spellings(driver, path):
    """Any two of its parts written in another way."""
    parts = (
        [spelled(each, driver) for each in SCHEMES],
        BETWEEN,
        [spelled(each, path) for each in PATHS],
        TAILS,
    )
    usual = (driver, ":///", path, "")
    for varied in itertools.combinations(range(4), 2):
        for pair in itertools.product(*(parts[each] for each in varied)):
            name = list(usual)
            for where, part in zip(varied, pair, strict=True):
                name[where] = part
            yield "".join(name)


def opened_as(sock, name):
    """How the daemon calls what it has opened for it, without query; None if it has not."""
    with rpc_client(sock) as client:
        if client.open(name).header.status != Status.OK:
            return None
        uri = Reader(client.call(GET_URI).payload).string()
        return uri.partition("?")[0]


@pytest.mark.parametrize(("driver", "path"), [("test", "default"), ("qemu", "system")])
def test_no_spelling_of_a_name_opens_what_is_denied_or_not_allowed(driver, path, ruled):
    name = f"{driver}:///{path}"
    names = list(dict.fromkeys(spellings(driver, path)))
    front = ruled("unix all * write\n")
    assert len(names) > 500

    as_what = {each: opened_as(front.sock, each) for each in names}
    same = [each for each in names if as_what[each] == name]
    assert len(same) > 10

    front.rules.write_text(f"unix all {name} deny\nunix all * write\n")
    reload(front)
    assert not [each for each in names if opened_as(front.sock, each) == name]
    front.rules.write_text(f"unix all {name} write\n")
    reload(front)
    found = {each: opened_as(front.sock, each) for each in names}
    assert set(found.values()) == {None, name}
    assert [each for each in names if found[each]] == same


@pytest.mark.parametrize("readonly", [False, True])
def test_a_name_that_is_left_to_the_proxy_is_asked_about_as_the_one_that_it_becomes(
    readonly, ruled
):
    front = ruled("unix,ro all qemu:///system deny\nunix,ro all * write\n")
    sock = front.sock_ro if readonly else front.sock

    for name in ("", None):
        with rpc_client(sock) as client:
            assert client.open(name).header.status == Status.ERROR
    told = 'cannot open "": rule 1 denies it'
    wait_until(lambda: front.log_text().count(told) == 2, 10, told)


def test_a_query_has_no_say(ruled):
    front = ruled(f"unix all {NAME} write\n")

    for query in ("", "?x=y", "?x=/../qemu:///system", "?name=qemu:///system"):
        assert opened_as(front.sock, NAME + query) == NAME
    assert opened_as(front.sock, f"qemu:///system?name={NAME}") is None


# Addresses

NETWORKS = """\
tls addr:10.78.1.7,addr:10.78.2.0/30 * write
tls addr:10.78.2.0/24&dn:CN=ann * write
tls addr:::/0,addr:127.0.0.1 * write
"""
FROM = {
    "10.78.1.7": 1,
    "10.78.1.70": 0,
    "10.78.2.3": 1,
    "10.78.2.4": 0,
    "10.79.0.1": 0,
}


def test_a_client_of_another_host_is_known_by_its_address(ruled, pki, monkeypatch):
    with two_hosts([each for each in FROM if each != CLIENT]) as (server, others):
        monkeypatch.setattr("tests.bed.proxyd.WRAPPER", server.command)
        listens = {"listen_tls": 1, "listen_addr": SERVER, "tls_port": "0"}
        front = ruled(NETWORKS, {**listens, **pki.settings(pki.server([SERVER]))})
        port = int(front.tls_address(SERVER).rpartition(":")[2])
        joe, ann = pki.client(("CN", "joe")), pki.client(("CN", "ann"))

        def lines(client):
            return {each: others.run(lambda each=each: line(each, client)) for each in FROM}

        def line(source, client):
            plain = socket.create_connection((SERVER, port), 20, (source, 0))
            with client_context(client).wrap_socket(plain) as sock:
                assert sock.recv(1) == LET_IN
                opened = front.log_text().count(" opened: ")
                reply = RpcClient(sock).open(NAME)
                return rule_of(front, opened) if reply.header.status == Status.OK else 0

        assert lines(joe) == FROM
        assert lines(ann) == {**FROM, "10.78.2.4": 2}
        front.stop()


# As systemd does it: sockets of this host, and of TLS one of IPv6 that takes IPv4 as well.
PASSED = (
    "-c",
    """
import os, pathlib, socket, sys
local = socket.socket(socket.AF_UNIX)
local.bind(str(pathlib.Path(sys.argv[sys.argv.index("-f") + 1]).parent / "libvirt-sock"))
local.listen()
both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
apart = [os.dup(each.fileno()) for each in (local, both) for _ in range(4)]
for number, descriptor in ((3, apart[0]), (4, apart[-1])):
    os.dup2(descriptor, number)
os.environ |= {
    "LISTEN_PID": str(os.getpid()),
    "LISTEN_FDS": "2",
    "LISTEN_FDNAMES": "virtproxyd.socket:virtproxyd-tls.socket",
}
os.execv(sys.executable, [sys.executable, "-m", "proxyd", *sys.argv[1:]])
""",
)


def test_a_client_by_ipv4_of_a_socket_for_both_is_one_of_ipv4(ruled, pki):
    rules = "tls addr:::/0 * deny\ntls addr:::1 * deny\ntls addr:127.0.0.0/8 * write\n"
    front = ruled(rules, pki.settings(pki.server()), program=PASSED)
    port = front.tls_address("::").rpartition(":")[2]

    virsh(tls_uri(NAME, f"127.0.0.1:{port}", pki.client()), "list").succeeded()
    denied = virsh(tls_uri(NAME, f"[::1]:{port}", pki.client()), "list")

    assert rule_of(front, 0) == 3
    assert DENIED in denied.stderr
    assert log_line(front, "rule 1 denies it")
