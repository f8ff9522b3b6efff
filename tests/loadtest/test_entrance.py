"""The calls in front of CONNECT_OPEN, by a server's end that lives in the test."""

import pytest

from loadtest.entrance import way_in
from loadtest.failures import TargetFailure
from loadtest.sasl import SaslChannel
from loadtest.targets import parse_target
from loadtest.tickets import Tickets
from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.remote import SaslReply, pack_auth_methods, pack_sasl_mechanisms
from proxyd.wire.xdr import Writer
from tests.loadtest.acceptor import Acceptor, entered

KERBEROS = parse_target("fake=gssapi:localhost:16509")
TICKETS = Tickets("/nowhere")  # which nobody looks for
AUTH_LIST, INIT, START, OFFER, END = range(5)


def failure(act):
    with pytest.raises(TargetFailure) as failed:
        act()
    assert "\n" not in str(failed.value)
    return str(failed.value)


def answered(target, payload):
    """What becomes of a target whose server answers AUTH_LIST like this."""
    calls = way_in(target, TICKETS, None)
    assert next(calls) == (Remote.AUTH_LIST, b"")
    return calls.send(payload)


@pytest.mark.parametrize("kind", ["unix:/p", "tcp:localhost:16509", "tls:localhost:16514"])
@pytest.mark.parametrize("methods", [[], [AuthMethod.NONE], [AuthMethod.SASL, AuthMethod.NONE]])
def test_who_lets_in_everybody_is_asked_nothing_more(kind, methods):
    with pytest.raises(StopIteration) as done:
        answered(parse_target(f"fake={kind}"), pack_auth_methods(methods))
    assert done.value.value is None  # the channel that it began with


@pytest.mark.parametrize("kind", ["unix:/p", "tcp:localhost:16509", "tls:localhost:16514"])
def test_a_server_that_wants_sasl_says_how_that_is_measured(kind):
    target = parse_target(f"fake={kind}")
    told = failure(lambda: answered(target, pack_auth_methods([AuthMethod.SASL])))
    assert told == (
        "target fake: AUTH_LIST: the server wants SASL; besides NONE, SASL is measured, as "
        "gssapi:HOST:PORT or scram+tls:HOST:PORT"
    )


@pytest.mark.parametrize(
    ("methods", "complaint"),
    [
        ([], 'the server lets in everybody; set its auth_tcp = "sasl", or measure tcp:'),
        ([AuthMethod.NONE], "the server lets in everybody"),
        ([AuthMethod.POLKIT, 7], "the server wants POLKIT, 7 and not SASL"),
    ],
)
def test_a_server_without_sasl_is_told(methods, complaint):
    told = failure(lambda: answered(KERBEROS, pack_auth_methods(methods)))
    assert told.startswith(f"target fake: GSSAPI: {complaint}")


def test_a_list_that_cannot_be_read_is_told():
    told = failure(lambda: answered(KERBEROS, b"\0\0\0\x15"))
    assert "the server's answer about authentication cannot be read: " in told


@pytest.fixture
def calls(realm, ticket):
    return way_in(KERBEROS, Tickets(ticket), Below())


class Below:
    """A channel that nobody writes to yet."""

    fileno = setblocking = close = None


@pytest.mark.system
def test_the_exchange_ends_below_a_layer_that_encrypts(calls, keytab):
    acceptor = Acceptor(keytab)
    channel = entered(calls, acceptor)
    assert isinstance(channel, SaslChannel)
    assert channel.cipher == "GSSAPI ssf 256"
    assert acceptor.chosen == b"\x04\x01\x00\x00"
    assert acceptor.context.complete
    assert str(acceptor.context.initiator_name) == "joe@PROXYD.TEST"


@pytest.mark.system
def test_a_server_that_offers_weaker_layers_as_well_gets_the_one_that_encrypts(calls, keytab):
    acceptor = Acceptor(keytab, offer=b"\x07\xff\xff\xff")
    entered(calls, acceptor)
    assert acceptor.chosen == b"\x04\x01\x00\x00"


@pytest.mark.system
@pytest.mark.parametrize(
    ("offer", "complaint"),
    [
        (b"\x01\x00\x00\x00", "the server offers no encryption"),
        (b"\x04\x01\x00", "the server offers no encryption"),
        (b"\x04\x00\x02\x00", "the server takes tokens of at most 512 bytes, which is too small"),
        (b"\x04\x00\x00\x00", "the server takes tokens of at most 0 bytes"),
    ],
)
def test_an_offer_that_is_of_no_use_is_told(calls, keytab, offer, complaint):
    told = failure(lambda: entered(calls, Acceptor(keytab, offer)))
    assert told.startswith(f"target fake: GSSAPI: {complaint}")


@pytest.mark.system
@pytest.mark.parametrize(
    ("number", "payload", "complaint"),
    [
        (INIT, pack_sasl_mechanisms(["SCRAM-SHA-256"]), "offers SCRAM-SHA-256; it needs a keytab"),
        (INIT, pack_sasl_mechanisms([]), "the server offers nothing; it needs a keytab"),
        (START, SaslReply(True, b"x").pack(), "ended the exchange without proving itself"),
        (START, SaslReply(True, None).pack(), "ended the exchange without proving itself"),
        (START, SaslReply(False, None).pack(), "ended the exchange without proving itself"),
        (START, SaslReply(False, b"x" * 100).pack(), "GSSAPI: "),
        (START, Writer().i32(0).i32(0).u32(65537).take(), "65537 where at most 65536 is allowed"),
        (START, b"\0\0\0", "cannot be read"),
        (OFFER, SaslReply(True, None).pack(), "ended the exchange without proving itself"),
        (OFFER, SaslReply(False, b"x" * 100).pack(), "GSSAPI: "),
        (END, SaslReply(False, b"x").pack(), "the server wants more where the exchange"),
    ],
)
def test_a_server_that_does_something_else_is_told(calls, keytab, number, payload, complaint):
    told = failure(lambda: entered(calls, Acceptor(keytab), {number: payload}))
    assert complaint in told
