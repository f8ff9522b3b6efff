import datetime as dt
import struct
from contextlib import suppress

import gssapi
import pytest
from gssapi import raw
from gssapi.exceptions import GSSError
from gssapi.raw.types import RequirementFlag
from hypothesis import given
from hypothesis import strategies as st

from proxyd.sasl.gssapi import GssapiServer
from proxyd.sasl.gssapi_errors import hint_for
from proxyd.sasl.keytab import Keytab
from proxyd.sasl.mechanism import BadToken, Challenge, LoginRefused, Success
from tests.bed.examples import examples
from tests.bed.kdc import Kdc, put_clock_ahead

pytestmark = pytest.mark.system

PROTECTED = (
    RequirementFlag.mutual_authentication
    | RequirementFlag.out_of_sequence_detection
    | RequirementFlag.integrity
)
ENCRYPTED = PROTECTED | RequirementFlag.confidentiality
# Otherwise libkrb5 adds confidentiality and integrity (GSS_KRB5_CRED_NO_CI_FLAGS_X).
ONLY_FLAGS_ASKED_FOR = gssapi.OID.from_int_seq("1.2.752.43.13.29")
NO_LAYER, INTEGRITY, CONFIDENTIALITY = 1, 2, 4
SIZE = 65536


@pytest.fixture(scope="module")
def kdc(tmp_path_factory):
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc, pytest.MonkeyPatch.context() as patch:
        kdc.add(
            "joe", "joe/admin", "WELLKNOWN/SOMEBODY", "host/host.example", "afsvirt/host.example"
        )
        kdc.add("libvirt/host.example", "libvirt/other.example", "libvirt/without.key")
        for name, value in kdc.environment.items():
            patch.setenv(name, value)
        yield kdc


@pytest.fixture(scope="module")
def keytab(kdc):
    names = ("host/host.example", "afsvirt/host.example", "libvirt/host.example")
    return Keytab(str(kdc.keytab(*names, "libvirt/other.example")))


@pytest.fixture(scope="module")
def tickets(kdc):
    return kdc.tickets("joe")


class Client:
    """The initiator's side, as a client of cyrus-sasl would play it."""

    def __init__(self, tickets, *, service="libvirt@host.example", flags=ENCRYPTED):
        credentials = gssapi.Credentials(usage="initiate", store={"ccache": f"FILE:{tickets}"})
        raw.set_cred_option(ONLY_FLAGS_ASKED_FOR, credentials)
        self.context = gssapi.SecurityContext(
            name=gssapi.Name(service, gssapi.NameType.hostbased_service),
            creds=credentials,
            mech=gssapi.MechType.kerberos,
            flags=flags,
            usage="initiate",
        )
        self.first = self.context.step()

    def offered(self, server):
        """Lets itself be accepted; what the server offers then."""
        assert self.context.step(server.start(self.first).data) is None
        assert self.context.complete
        return self.context.unwrap(server.step(None).data).message

    def choose(self, server, layer, size=SIZE, authzid=b""):
        choice = struct.pack(">I", layer << 24 | size) + authzid
        return server.step(self.context.wrap(choice, encrypt=False).message)

    def succeed(self, server):
        layer = self.offered(server)[0]
        outcome = self.choose(server, layer, SIZE if layer == CONFIDENTIALITY else 0)
        assert isinstance(outcome, Success)
        return outcome


@pytest.fixture
def on_tcp(keytab):
    return GssapiServer(keytab, confidentiality=True)


@pytest.fixture
def on_tls(keytab):
    return GssapiServer(keytab, confidentiality=False)


@pytest.fixture
def client(tickets):
    return Client(tickets)


def test_on_tcp_a_client_gets_a_layer_that_encrypts(on_tcp, client):
    assert client.offered(on_tcp) == b"\4\1\0\0"
    outcome = client.choose(on_tcp, CONFIDENTIALITY)

    assert (outcome.username, outcome.detail) == ("joe", "joe@PROXYD.TEST")
    assert (outcome.ssf, outcome.data) == (256, None)
    assert outcome.layer.longest_token == SIZE
    assert client.context.unwrap(outcome.layer.wrap(b"from us")) == (b"from us", True, 0)
    assert outcome.layer.unwrap(client.context.encrypt(b"to us")) == b"to us"


def test_elsewhere_a_client_gets_no_layer(on_tls, tickets):
    client = Client(tickets, flags=PROTECTED)

    assert client.offered(on_tls) == b"\1\0\0\0"
    outcome = client.choose(on_tls, NO_LAYER, 0)

    assert (outcome.username, outcome.ssf, outcome.layer) == ("joe", 0, None)


def test_a_client_that_starts_without_a_token_is_asked_for_it(on_tcp, client):
    assert on_tcp.start(None) == Challenge(b"")
    assert isinstance(on_tcp.step(client.first), Challenge)


def test_who_has_a_ticket_is_vouched_for_from_then_on(on_tcp, client):
    assert not on_tcp.start(None).vouched
    assert on_tcp.step(client.first).vouched


def test_any_host_name_with_a_key_serves(on_tcp, tickets):
    assert Client(tickets, service="libvirt@other.example").succeed(on_tcp).username == "joe"


def test_a_client_that_delegates_gets_in(kdc, on_tcp):
    tickets = kdc.tickets("joe", "-f")
    client = Client(tickets, flags=ENCRYPTED | RequirementFlag.delegate_to_peer)
    assert client.context.actual_flags & RequirementFlag.delegate_to_peer
    assert client.succeed(on_tcp).username == "joe"


def test_an_instance_is_part_of_the_name(kdc, on_tcp):
    assert Client(kdc.tickets("joe/admin")).succeed(on_tcp).username == "joe/admin"


def test_users_of_another_than_the_default_realm_keep_it(kdc, on_tcp, client, monkeypatch):
    monkeypatch.setenv("KRB5_CONFIG", str(kdc.variant(default_realm="ANOTHER.TEST")))
    assert client.succeed(on_tcp).username == "joe@PROXYD.TEST"


def test_it_is_told_when_the_ticket_ends(kdc, on_tcp):
    outcome = Client(kdc.tickets("joe", "-l", "1h")).succeed(on_tcp)
    left = outcome.expires - dt.datetime.now(dt.UTC)
    # libkrb5 allows for clocks that differ by five minutes, and counts whole seconds.
    assert dt.timedelta(minutes=59) < left <= dt.timedelta(minutes=65, seconds=1)


@pytest.mark.parametrize("size", [SIZE, 2**24 - 1, 2048])
def test_tokens_fit_the_clients_buffer(on_tcp, client, size):
    client.offered(on_tcp)
    layer = client.choose(on_tcp, CONFIDENTIALITY, size).layer

    longest = layer.wrap(bytes(layer.longest_plain))

    assert size - 64 < len(longest) <= size or len(longest) in range(SIZE - 64, SIZE + 1)
    assert client.context.decrypt(longest) == bytes(layer.longest_plain)


def test_a_client_may_send_as_much_as_we_said(on_tcp, client):
    layer = client.succeed(on_tcp).layer
    plain = bytes(client.context.get_wrap_size_limit(layer.longest_token))

    assert layer.unwrap(client.context.encrypt(plain)) == plain


@pytest.mark.parametrize("size", [0, 1, 60, 512])
def test_a_client_with_next_to_no_buffer_is_refused(on_tcp, client, size):
    client.offered(on_tcp)
    with pytest.raises(LoginRefused, match="too small"):
        client.choose(on_tcp, CONFIDENTIALITY, size)


def test_a_client_may_name_integrity_beside_confidentiality(on_tcp, client):
    client.offered(on_tcp)
    assert client.choose(on_tcp, CONFIDENTIALITY | INTEGRITY).layer is not None


@pytest.mark.parametrize("layer", [0, NO_LAYER, INTEGRITY, NO_LAYER | CONFIDENTIALITY, 8, 255])
def test_on_tcp_a_layer_that_was_not_offered_is_refused(on_tcp, client, layer):
    client.offered(on_tcp)
    with pytest.raises(LoginRefused, match=f"chose layer {layer}, which does not encrypt"):
        client.choose(on_tcp, layer)


@pytest.mark.parametrize("layer", [0, INTEGRITY, CONFIDENTIALITY, NO_LAYER | INTEGRITY, 255])
def test_elsewhere_every_layer_is_refused(on_tls, client, layer):
    client.offered(on_tls)
    with pytest.raises(LoginRefused, match=f"chose layer {layer}, and none was offered"):
        client.choose(on_tls, layer)


def test_a_client_may_ask_to_be_who_it_is(on_tcp, client):
    client.offered(on_tcp)
    assert client.choose(on_tcp, CONFIDENTIALITY, authzid=b"joe").username == "joe"


@pytest.mark.parametrize("authzid", [b"root", b"jo", b"joe\0", b"\xff", b"joe/admin", b"x" * 5000])
def test_a_client_that_asks_to_be_somebody_else_is_refused(on_tcp, client, authzid):
    client.offered(on_tcp)
    with pytest.raises(LoginRefused, match="act as somebody else") as refused:
        client.choose(on_tcp, CONFIDENTIALITY, authzid=authzid)
    assert refused.value.username == "joe@PROXYD.TEST"


@pytest.mark.parametrize("choice", [b"", b"\4", b"\4\1\0"])
def test_a_choice_that_is_cut_off_is_refused(on_tcp, client, choice):
    client.offered(on_tcp)
    with pytest.raises(LoginRefused, match="cut off"):
        on_tcp.step(client.context.wrap(choice, encrypt=False).message)


def test_an_offer_needs_no_answer_but_the_choice(on_tcp, client):
    client.offered(on_tcp)
    with pytest.raises(LoginRefused, match="choice of a layer"):
        on_tcp.step(None)


def test_nothing_may_follow_the_first_token(on_tcp, client):
    on_tcp.start(client.first)
    with pytest.raises(LoginRefused, match="sent more"):
        on_tcp.step(b"more")


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (RequirementFlag.mutual_authentication, "mutual authentication"),
        (RequirementFlag.out_of_sequence_detection, "out of sequence"),
        (RequirementFlag.confidentiality, "confidentiality"),
        (RequirementFlag.integrity, "integrity"),
    ],
)
def test_on_tcp_every_protection_is_needed(on_tcp, tickets, missing, says):
    client = Client(tickets, flags=ENCRYPTED & ~missing)
    with pytest.raises(LoginRefused, match=says) as refused:
        on_tcp.start(client.first)
    assert refused.value.username == "joe@PROXYD.TEST"


def test_names_that_stand_for_nobody_are_refused(kdc, on_tcp):
    client = Client(kdc.tickets("WELLKNOWN/SOMEBODY"))
    with pytest.raises(LoginRefused, match="anonymous"):
        on_tcp.start(client.first)


@pytest.mark.parametrize("service", ["host@host.example", "afsvirt@host.example"])
def test_keys_of_other_services_do_not_serve(on_tcp, tickets, service):
    with pytest.raises(LoginRefused, match="does not match server principal libvirt"):
        on_tcp.start(Client(tickets, service=service).first)


def test_the_name_on_a_ticket_is_not_believed(on_tcp, tickets):
    # It is the one part that is not encrypted; both names are of the same length.
    token = Client(tickets, service="afsvirt@host.example").first
    forged = token.replace(b"afsvirt", b"libvirt")
    assert forged != token
    with pytest.raises(LoginRefused):
        on_tcp.start(forged)


def test_a_host_name_without_a_key_is_refused_with_advice(on_tcp, keytab, tickets):
    client = Client(tickets, service="libvirt@without.key")
    with pytest.raises(LoginRefused, match=r"libvirt/without.key@PROXYD.TEST not found") as refused:
        on_tcp.start(client.first)
    assert f"addprinc -randkey libvirt/HOST, then ktadd -k {keytab.path}" in refused.value.hint


def test_an_old_keytab_is_refused_with_advice_until_it_is_exported_again(kdc):
    kdc.add("libvirt/rekeyed.example")
    old = kdc.keytab("libvirt/rekeyed.example")
    kdc.new_key("libvirt/rekeyed.example")
    tickets = kdc.tickets("joe")
    service = "libvirt@rekeyed.example"
    server = GssapiServer(Keytab(str(old)), confidentiality=True)
    with pytest.raises(LoginRefused, match="kvno 2 not found in keytab") as refused:
        server.start(Client(tickets, service=service).first)
    assert "ktadd" in refused.value.hint

    kdc.keytab("libvirt/rekeyed.example").replace(old)

    server = GssapiServer(Keytab(str(old)), confidentiality=True)
    assert Client(tickets, service=service).succeed(server).username == "joe"


def test_the_same_key_number_with_another_key_is_refused_with_advice(kdc, tmp_path, tickets):
    (tmp_path / "other").mkdir()
    with Kdc(tmp_path / "other") as other:
        other.add("libvirt/host.example")
        wrong = other.keytab("libvirt/host.example")
    with pytest.raises(LoginRefused, match="cannot decrypt ticket") as refused:
        GssapiServer(Keytab(str(wrong)), confidentiality=True).start(Client(tickets).first)
    assert "ktadd" in refused.value.hint


def test_clocks_that_differ_are_told_of(kdc, on_tcp):
    tickets = kdc.tickets("joe")
    Client(tickets)  # now the service's ticket is there, too, for which the KDC looks at the clock
    put_clock_ahead(tickets, 3600)
    client = Client(tickets)
    with pytest.raises(LoginRefused, match="Clock skew too great") as refused:
        on_tcp.start(client.first)
    assert "NTP" in refused.value.hint


def test_a_token_serves_once(keytab, client):
    GssapiServer(keytab, confidentiality=True).start(client.first)
    with pytest.raises(LoginRefused, match="replay"):
        GssapiServer(keytab, confidentiality=True).start(client.first)


def test_a_memory_of_replays_that_cannot_be_kept_is_told_of(
    kdc, on_tcp, client, monkeypatch, tmp_path
):
    nowhere = kdc.variant(default_rcache_name=f"file2:{tmp_path}/missing/replays")
    monkeypatch.setenv("KRB5_CONFIG", str(nowhere))
    with pytest.raises(LoginRefused) as refused:
        on_tcp.start(client.first)
    assert "default_rcache_name" in refused.value.hint


def test_a_keytab_that_went_away_refuses_everybody(tmp_path, client):
    server = GssapiServer(Keytab(str(tmp_path / "keytab")), confidentiality=True)
    with pytest.raises(LoginRefused, match=r"there is no such file; kadmin: addprinc"):
        server.start(client.first)


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"x",
        b"\x60",
        b"\x60\x00",
        b"\x60\x84\xff\xff\xff\xff",
        b"NTLMSSP\0" + bytes(40),
        bytes(SIZE),
    ],
    ids=lambda token: f"{len(token)} bytes",
)
def test_garbage_is_refused(on_tcp, token):
    with pytest.raises(LoginRefused):
        on_tcp.start(token)


@pytest.mark.parametrize("cut", [1, 20, 100, 400])
def test_a_token_that_is_cut_off_is_refused(on_tcp, client, cut):
    with pytest.raises(LoginRefused):
        on_tcp.start(client.first[:-cut])


def test_after_the_end_nobody_may_ask_again(on_tcp, client):
    client.succeed(on_tcp)
    with pytest.raises(AssertionError, match="has ended"):
        on_tcp.step(None)


@examples(60)
@given(st.integers(0, 680), st.binary(min_size=1, max_size=8))
def test_no_change_of_a_first_token_makes_another_user(tickets, keytab, at, bytes_):
    client = Client(tickets)
    client.first = client.first[:at] + bytes_ + client.first[at + len(bytes_) :]
    with suppress(LoginRefused):
        # Some of its parts bear no meaning and are not protected.
        assert client.succeed(GssapiServer(keytab, confidentiality=True)).username == "joe"


@examples(60)
@given(st.binary(max_size=200) | st.none())
def test_no_choice_but_a_wrapped_one_is_accepted(tickets, keytab, data):
    server = GssapiServer(keytab, confidentiality=True)
    Client(tickets).offered(server)
    with pytest.raises(LoginRefused):
        server.step(data)


def test_a_repeated_token_is_a_bad_one(on_tcp, client):
    layer = client.succeed(on_tcp).layer
    token = client.context.encrypt(b"once")
    layer.unwrap(token)
    with pytest.raises(BadToken):
        layer.unwrap(token)


def test_a_token_that_comes_too_early_or_too_late_is_a_bad_one(on_tcp, client):
    layer = client.succeed(on_tcp).layer
    first, second = client.context.encrypt(b"1"), client.context.encrypt(b"2")
    for token in (second, first):
        with pytest.raises(BadToken, match="token"):
            layer.unwrap(token)


def test_a_token_that_is_only_signed_is_a_bad_one(on_tcp, client):
    layer = client.succeed(on_tcp).layer
    signed = client.context.wrap(b"readable", encrypt=False).message
    with pytest.raises(BadToken, match="not encrypted"):
        layer.unwrap(signed)


def test_a_token_of_ours_sent_back_is_a_bad_one(on_tcp, client):
    layer = client.succeed(on_tcp).layer
    with pytest.raises(BadToken):
        layer.unwrap(layer.wrap(b"mirror"))


@pytest.mark.parametrize("token", [b"", b"\5\4", bytes(100), bytes(SIZE), bytes(SIZE + 1)])
def test_garbage_is_a_bad_token(on_tcp, client, token):
    layer = client.succeed(on_tcp).layer
    with pytest.raises(BadToken):
        layer.unwrap(token)


@examples(40)
@given(st.data())
def test_any_flipped_bit_makes_a_bad_token(tickets, keytab, data):
    client = Client(tickets)
    layer = client.succeed(GssapiServer(keytab, confidentiality=True)).layer
    token = bytearray(client.context.encrypt(b"some plain text"))
    bit = data.draw(st.integers(0, 8 * len(token) - 1))
    token[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadToken):
        layer.unwrap(bytes(token))


def test_many_tokens_go_both_ways(on_tcp, client):
    layer = client.succeed(on_tcp).layer
    for number in range(300):
        text = str(number).encode()
        assert layer.unwrap(client.context.encrypt(text)) == text
        assert client.context.decrypt(layer.wrap(text)) == text


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (31, "NEW it"),
        (32, "kinit"),
        (33, "for later"),
        (37, "NTP"),
        (44, "NEW it"),
        (35, "MAKE it"),
        (60, ""),
    ],
)
def test_each_failure_has_its_advice(number, says):
    error = GSSError(13 << 16, (1 << 32) - 1765328384 + number)
    hint = hint_for(error, create="MAKE it", export="NEW it")
    assert says in hint
    assert bool(says) == bool(hint)
