"""Meeting clients over TLS in trio: nobody is waited for longer than the caller likes."""

import datetime as dt
import threading

import pytest
import trio
from OpenSSL import SSL

from proxyd.admission.admission import Admission
from proxyd.config.listeners import Door
from proxyd.config.priority import parse_priority
from proxyd.config.transports import Transport
from proxyd.endpoint.contract import HungUp
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.session import tls_greeting
from proxyd.session.greeting import Untrusted
from proxyd.session.roster import Roster
from proxyd.session.tls_greeting import LET_IN, TlsGreeting, handshake_threads
from proxyd.tls.server_context import make_server_tls
from proxyd.wire.programs import AuthMethod
from tests.bed.pairs import tcp_pair
from tests.bed.pki import Pki
from tests.fakes.tls import TLS_1_3, TlsPeer
from tests.session.desk import seated

DOOR = Door(
    name="tls 127.0.0.1:16514",
    transport=Transport.TLS,
    method=AuthMethod.NONE,
    readonly=False,
    own_uid_only=False,
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def tls(pki):
    server = pki.server()
    files = CertificateFiles(
        ca=str(pki.ca_file), crl=None, pairs=((str(server.cert_file), str(server.key_file)),)
    )
    return make_server_tls(
        load_credentials(files, now=dt.datetime.now(dt.UTC)),
        parse_priority(None),
        enforce=True,
        allowed=["CN=joe"],
    )


class Visit:
    """A client at the other end of a greeting."""

    def __init__(self, tls, threads=None):
        self.sock, near = tcp_pair()
        self.greeting = TlsGreeting(near, "127.0.0.1:4711", tls, threads or handshake_threads())
        self.client = seated(Roster(Admission(max_clients=5, max_anonymous=5)), DOOR)

    def meet(self):
        return self.greeting.meet(self.client)

    def shake_hands(self, pkipath):
        """To be run in a thread: a whole TLS client up to the byte that lets it in."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.use_certificate_chain_file(str(pkipath / "clientcert.pem"))
        context.use_privatekey_file(str(pkipath / "clientkey.pem"))
        peer = TlsPeer(self.sock, TLS_1_3)
        peer.connection = SSL.Connection(context, self.sock)
        peer.connection.set_connect_state()
        peer._wait_for(peer.connection.do_handshake)
        return peer.recv(100)

    def close(self):
        self.sock.close()
        self.greeting.endpoint.close()


@pytest.fixture
def visit(tls):
    visits = []

    def visit(**options):
        visits.append(Visit(tls, **options))
        return visits[-1]

    yield visit
    for each in visits:
        each.close()


async def test_a_client_gets_the_byte_and_has_a_name_and_an_address(visit, pki, nursery):
    visit = visit()
    nursery.start_soon(visit.meet)
    joe = pki.client()
    assert await trio.to_thread.run_sync(visit.shake_hands, joe) == LET_IN
    assert visit.client.identity.x509_dname == "CN=joe"
    assert visit.client.identity.uid is None
    assert str(visit.client.tls) == (
        "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768 ecdsa_secp256r1_sha256"
    )
    assert str(visit.client) == "tls 127.0.0.1:16514, from 127.0.0.1:4711, x509 'CN=joe'"


async def test_a_client_that_may_not_come_in_gets_a_goodbye_instead(visit, pki, nursery):
    visit, refused = visit(), []

    async def meet():
        with pytest.raises(Untrusted) as untrusted:
            await visit.meet()
        refused.append(str(untrusted.value))

    nursery.start_soon(meet)
    fred = pki.client(("CN", "fred"))
    assert await trio.to_thread.run_sync(visit.shake_hands, fred) == b""
    assert "is not in tls_allowed_dn_list" in refused[0]
    assert visit.client.identity.x509_dname is None


async def test_handshakes_burn_their_time_in_other_threads(visit, pki, nursery, monkeypatch):
    threads = set()
    handshake = tls_greeting.TlsEndpoint.handshake

    def noted(endpoint):
        threads.add(threading.get_ident())
        return handshake(endpoint)

    monkeypatch.setattr(tls_greeting.TlsEndpoint, "handshake", noted)
    visit = visit()
    nursery.start_soon(visit.meet)
    assert await trio.to_thread.run_sync(visit.shake_hands, pki.client()) == LET_IN
    assert threads
    assert threading.get_ident() not in threads


async def test_a_silent_client_holds_no_thread_and_is_left_at_the_deadline(visit, autojump_clock):
    threads = handshake_threads()
    visit = visit(threads=threads)
    with trio.move_on_after(30) as deadline:
        await visit.meet()
    assert deadline.cancelled_caught
    assert threads.busy == 0


async def test_what_is_no_tls_is_refused_with_a_reason(visit):
    visit = visit()
    visit.sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(Untrusted, match="no TLS: http request"):
        await visit.meet()


async def test_a_client_that_goes_is_gone(visit):
    visit = visit()
    visit.sock.close()
    with pytest.raises(HungUp):
        await visit.meet()


def client_hello():
    """The first words of a TLS client, taken from one that talks to nobody."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(65536)


async def test_a_hello_that_comes_byte_by_byte_does_not_take_a_thread_for_each(
    visit, nursery, monkeypatch
):
    steps = []
    handshake = tls_greeting.TlsEndpoint.handshake

    def counted(endpoint):
        steps.append(endpoint)
        return handshake(endpoint)

    monkeypatch.setattr(tls_greeting.TlsEndpoint, "handshake", counted)
    visit = visit()
    nursery.start_soon(visit.meet)
    hello = client_hello()
    for each in hello:
        visit.sock.send(bytes([each]))
        await trio.sleep(0.001)

    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(visit.sock)  # it has been understood and is answered

    assert len(steps) < len(hello) / 4
