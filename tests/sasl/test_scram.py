import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient

from proxyd.sasl import passwords as module
from proxyd.sasl import scram as scram_module
from proxyd.sasl.mechanism import Challenge, LoginRefused, Success
from proxyd.sasl.passwords import PasswordFile
from proxyd.sasl.scram import ScramServer, claimed
from tests.bed.examples import examples

ENDPOINT = {"tls-server-end-point": b"digest of the certificate"}
EXPORTER = {"tls-exporter": b"what both ends derived from their keys"}


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    file = PasswordFile(str(tmp_path_factory.mktemp("scram") / "passwords"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ITERATIONS", 4096)
        file.set_password("joe", "sesame")
        file.set_password("a,b=c", "sesame")
        yield file


@pytest.fixture
def server(users):
    return ScramServer(users)


def plus(users, bindings):
    return ScramServer(users, plus=True, bindings=bindings)


def proof(password, header, bare, challenge, bound=b""):
    """The client's final message, made by RFC 5802's own words."""
    fields = dict(each.split("=", 1) for each in challenge.data.decode().split(","))
    salted = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), b64decode(fields["s"]), int(fields["i"])
    )
    key = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c={b64encode(header + bound).decode()},r={fields['r']}".encode()
    signed = b",".join([bare, challenge.data, without])
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    bits = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return without + b",p=" + b64encode(bits)


def attempt(server, password="sesame", *, header=b"n,,", bare=b"n=joe,r=nonce", bound=b""):
    challenge = server.start(header + bare)
    assert isinstance(challenge, Challenge)
    return server.step(proof(password, header, bare, challenge, bound))


def test_a_user_with_the_right_password_gets_in(server):
    client = ScramClient(["SCRAM-SHA-256"], "joe", "sesame")
    client.set_server_first(server.start(client.get_client_first().encode()).data.decode())
    outcome = server.step(client.get_client_final().encode())

    client.set_server_final(outcome.data.decode())  # which checks that the server knew, too
    assert (outcome.username, outcome.ssf, outcome.layer) == ("joe", 0, None)
    assert outcome.detail == "joe by SCRAM-SHA-256"


def test_the_exchange_is_that_of_the_rfc(tmp_path, monkeypatch):
    # RFC 7677, section 3.
    file = PasswordFile(str(tmp_path / "passwords"))
    text = (
        f"proxyd-passwords 1 {'A' * 43}=\n"
        "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n"
    )
    with open(os.open(file.path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
        out.write(text)
    nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    monkeypatch.setattr("scramp.core.token_hex", lambda: nonce)
    server = ScramServer(file)

    first = server.start(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert first.data == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    last = server.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert last.data == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_client_that_starts_without_a_message_is_asked_for_it(server):
    assert server.start(None) == Challenge(b"")
    assert isinstance(server.step(b"n,,n=joe,r=nonce"), Challenge)


def test_names_may_have_commas_and_equals_signs(server):
    assert attempt(server, bare=b"n=a=2Cb=3Dc,r=nonce").username == "a,b=c"


def test_names_are_prepared(server):
    assert attempt(server, bare="n=j\u00adoe,r=nonce".encode()).username == "joe"


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"n,,n=joe,r=nonce", "joe"),
        (b"p=tls-exporter,a=joe,n=joe,r=nonce", "joe"),
        (b"n,,n=a=2Cb=3Dc,r=nonce", "a,b=c"),
        ("n,,n=j\u00adoe,r=nonce".encode(), "joe"),
        ("n,,n=\uff4aoe,r=nonce".encode(), "joe"),
        (b"n,,n=" + 200 * b"x" + b",r=nonce", 64 * "x"),
        (b"n,,n=" + 300 * b"x" + b",r=nonce", ""),
        ("n,,n=\u0627x,r=nonce".encode(), ""),  # in two directions, which is not allowed
        (b"n,,r=nonce", ""),
        (b"\xff", ""),
        (b"", ""),
        (bytes(5000), ""),
    ],
)
def test_who_a_client_says_that_it_is_has_one_spelling(first, name):
    assert claimed(first) == name


def test_a_file_that_cannot_be_used_is_nobodys_wrong_password(tmp_path):
    with pytest.raises(LoginRefused) as refused:
        ScramServer(PasswordFile(str(tmp_path / "none"))).start(b"n,,n=joe,r=nonce")
    assert refused.value.ours


def test_a_wrong_password_is_refused(server):
    with pytest.raises(LoginRefused, match="wrong password") as refused:
        attempt(server, "Sesame")
    assert refused.value.username == "joe"


def test_an_unknown_user_fails_as_late_as_a_known_one(users):
    with pytest.raises(LoginRefused, match="no such user") as refused:
        attempt(ScramServer(users), bare=b"n=ann,r=nonce")
    assert refused.value.username == "ann"


def test_nobody_can_tell_an_unknown_user_from_a_known_one(users):
    def shape(name):
        nonce, salt, count = ScramServer(users).start(b"n,,n=%b,r=nonce" % name).data.split(b",")
        return len(nonce), salt, count

    assert shape(b"ann") == shape(b"ann")
    assert shape(b"ann")[1] != shape(b"bob")[1]
    assert len(shape(b"ann")[1]) == len(shape(b"joe")[1])
    assert shape(b"ann")[::2] == shape(b"joe")[::2]


def test_no_nonce_comes_twice(users):
    first, second = (ScramServer(users).start(b"n,,n=joe,r=nonce").data for _ in range(2))
    assert first.startswith(b"r=nonce")
    assert first != second


def test_an_old_proof_does_not_serve_again(users):
    server, bare = ScramServer(users), b"n=joe,r=nonce"
    final = proof("sesame", b"n,,", bare, server.start(b"n,," + bare))
    assert isinstance(server.step(final), Success)

    again = ScramServer(users)
    again.start(b"n,," + bare)
    with pytest.raises(LoginRefused, match="nonce"):
        again.step(final)


def test_a_client_may_ask_to_be_who_it_is(users):
    # As a client of cyrus-sasl does when it is told a user name besides the authentication name.
    assert attempt(ScramServer(users), header=b"n,a=joe,").username == "joe"
    outcome = attempt(ScramServer(users), header=b"n,a=a=2Cb=3Dc,", bare=b"n=a=2Cb=3Dc,r=nonce")
    assert outcome.username == "a,b=c"


@pytest.mark.parametrize("authzid", [b"root", b"joe2", b"Joe", b"=2C", b"\x07"])
def test_a_client_that_asks_to_be_somebody_else_is_refused(server, authzid):
    with pytest.raises(LoginRefused, match="act as somebody else"):
        server.start(b"n,a=%b,n=joe,r=nonce" % authzid)


def test_whom_a_client_acts_as_is_part_of_the_proof(server):
    challenge = server.start(b"n,a=joe,n=joe,r=nonce")
    with pytest.raises(LoginRefused):
        server.step(proof("sesame", b"n,,", b"n=joe,r=nonce", challenge))


@pytest.mark.parametrize("bindings", [ENDPOINT, EXPORTER, ENDPOINT | EXPORTER])
def test_with_plus_the_connection_is_part_of_the_proof(users, bindings):
    for kind, bound in bindings.items():
        header = f"p={kind},,".encode()
        outcome = attempt(plus(users, bindings), header=header, bound=bound)
        assert (outcome.username, outcome.detail) == ("joe", "joe by SCRAM-SHA-256-PLUS")


def test_with_plus_another_connection_is_refused(users):
    with pytest.raises(LoginRefused, match="bound to another connection"):
        attempt(plus(users, EXPORTER), header=b"p=tls-exporter,,", bound=b"of somebody between")


@pytest.mark.parametrize("kind", [b"tls-unique", b"tls-exporter", b"x"])
def test_a_binding_that_the_connection_has_not_is_refused(users, kind):
    with pytest.raises(LoginRefused, match="this connection has not"):
        plus(users, ENDPOINT).start(b"p=%b,,n=joe,r=nonce" % kind)


@pytest.mark.parametrize("flag", [b"n", b"y"])
def test_plus_without_a_binding_is_refused(users, flag):
    with pytest.raises(LoginRefused, match="chose SCRAM-SHA-256-PLUS and did otherwise"):
        plus(users, ENDPOINT).start(flag + b",,n=joe,r=nonce")


def test_a_binding_without_plus_is_refused(users):
    server = ScramServer(users, plus_offered=True, bindings=ENDPOINT)
    with pytest.raises(LoginRefused, match="chose SCRAM-SHA-256 and did otherwise"):
        server.start(b"p=tls-server-end-point,,n=joe,r=nonce")


def test_a_client_that_was_not_told_of_plus_is_refused(users):
    server = ScramServer(users, plus_offered=True, bindings=ENDPOINT)
    with pytest.raises(LoginRefused, match="not told of SCRAM-SHA-256-PLUS") as refused:
        server.start(b"y,,n=joe,r=nonce")
    assert "between" in refused.value.hint


def test_where_plus_is_not_offered_a_client_may_miss_it(users):
    assert attempt(ScramServer(users), header=b"y,,").username == "joe"


def test_where_plus_is_offered_a_client_may_do_without(users):
    server = ScramServer(users, plus_offered=True, bindings=ENDPOINT)
    assert attempt(server).username == "joe"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n",
        b"n,,",
        b"n,,n=joe",
        b"n,,r=nonce",
        b"n,,r=nonce,n=joe",
        b"n,,n=,r=nonce",
        b"n,,n=joe,r=",
        b"n,,n=joe,r=\x01",
        b"n,,n=joe,n=root,r=nonce",
        b"n,,m=x,n=joe,r=nonce",
        b"n,,n=jo=e,r=nonce",
        b"n,,n=j\0oe,r=nonce",
        b"n,,n=\xd8\xa7b,r=nonce",
        b"n,,n=\xff,r=nonce",
        b"n,,n=\xed\xa0\x80,r=nonce",
        b"n,a=,n=joe,r=nonce",
        b"x,,n=joe,r=nonce",
        b"p,,n=joe,r=nonce",
        b"p=,,n=joe,r=nonce",
        b"n,,n=joe,r=" + bytes(4096),
        bytes(65536),
    ],
    ids=lambda message: repr(message[:30]),
)
def test_a_malformed_first_message_is_refused(server, message):
    with pytest.raises(LoginRefused):
        server.start(message)


@pytest.mark.parametrize(
    "message",
    [
        None,
        b"",
        b"c=biws",
        b"c=biws,r=R",
        b"c=biws,r=R,p=",
        b"c=biws,r=R,p=AAAA",
        b"c=biws,r=R,p=!",
        b"c=!,r=R,p=AAAA",
        b"c=eSws,r=R,p=AAAA",
        b"r=R,c=biws,p=AAAA",
        b"c=biws,r=Rx,p=AAAA",
        b"c=biws,r=R,p=\xc3\xa9",
        b"c=\xc3\xa9,r=R,p=AAAA",
        bytes(65536),
    ],
    ids=lambda message: repr(message and message[:30]),
)
def test_a_malformed_final_message_is_refused(server, message):
    nonce = server.start(b"n,,n=joe,r=nonce").data.split(b",")[0][2:]
    with pytest.raises(LoginRefused):
        server.step(message and message.replace(b"R", nonce))


def test_no_message_of_the_client_stands_in_a_reason(server):
    server.start(b"n,,n=joe,r=nonce")
    with pytest.raises(LoginRefused) as refused:
        server.step(b"c=biws,secret=1,r=nonce,p=AAAA")
    assert "secret" not in str(refused.value)


def test_without_its_file_nobody_gets_in(tmp_path):
    with pytest.raises(LoginRefused, match="there is no such file"):
        ScramServer(PasswordFile(str(tmp_path / "passwords"))).start(b"n,,n=joe,r=nonce")


def test_after_the_end_nobody_may_ask_again(server):
    attempt(server)
    with pytest.raises(AssertionError, match="has ended"):
        server.step(b"")


PIECES = st.sampled_from(
    [
        b"n",
        b"y",
        b"p=tls-exporter",
        b",",
        b"a=",
        b"n=",
        b"joe",
        b"r=",
        b"c=",
        b"biws",
        b"=2C",
        b"\0",
    ]
)
MESSAGES = st.binary(max_size=80) | st.lists(PIECES, max_size=15).map(b"".join) | st.none()


@examples(200)
@given(MESSAGES, MESSAGES, st.booleans())
def test_whatever_comes_it_is_refused_and_nothing_else(users, first, final, with_plus):
    server = ScramServer(users, plus=with_plus, plus_offered=True, bindings=EXPORTER)
    with suppress(LoginRefused):
        assert isinstance(server.start(first), Challenge)
        assert isinstance(server.step(final), Challenge)  # for it was the first message
        assert first is None


@examples(100)
@given(MESSAGES)
def test_whatever_comes_instead_of_a_proof_is_refused(users, final):
    server = ScramServer(users)
    server.start(b"n,,n=joe,r=nonce")
    with pytest.raises(LoginRefused):
        server.step(final)


@pytest.mark.parametrize("name", ["x" * 256, "\ufdfa" * 15, "=2C" * 256, "\u00ad" * 256])
@pytest.mark.parametrize("first", ["n,,n={},r=abc", "n,a={},n=joe,r=abc"])
def test_a_name_that_is_too_long_for_any_user_is_not_prepared(server, monkeypatch, first, name):
    for where in (module, scram_module):
        monkeypatch.setattr(where, "prepared", lambda _: pytest.fail("it was prepared"))
    with pytest.raises(LoginRefused, match="a name of more than 255 characters"):
        server.start(first.format(name).encode())


def test_the_longest_name_comes_in(users):
    users.set_password("é" * 255, "sesame")
    server = ScramServer(users)
    assert isinstance(server.start(f"n,,n={'é' * 255},r=abc".encode()), Challenge)
