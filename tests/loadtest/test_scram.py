"""Targets that want a password inside TLS: the exchange, and a real proxyd."""

import dataclasses
import hashlib
import json
import pickle
from contextlib import closing

import pytest
from scramp import ScramMechanism

from loadtest.cli import main
from loadtest.client import Opening, open_session
from loadtest.credentials import Account, Credentials, password_of
from loadtest.entrance import way_in
from loadtest.failures import TargetFailure, UsageError
from loadtest.generator_process import GeneratorProcess
from loadtest.statuses import OK
from loadtest.targets import parse_target
from loadtest.turns import SessionOrder, Turn
from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.remote import (
    SaslReply,
    SaslStart,
    pack_auth_methods,
    pack_sasl_mechanisms,
    unpack_sasl_step,
)
from tests.loadtest.conftest import PASSWORD

TARGET = parse_target("fake=scram+tls:localhost:16514")


@pytest.fixture
def account(password_file):
    return Account("ann", str(password_file))


# ---- the file


def test_the_password_is_the_line_of_the_file(account):
    assert password_of(account) == PASSWORD


def test_the_password_stays_where_it_is(account):
    password_of(account)
    assert PASSWORD not in repr(account)
    assert PASSWORD.encode() not in pickle.dumps(account)
    assert PASSWORD not in str(dataclasses.asdict(account))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_use_is_refused(account, password_file, mode):
    password_file.chmod(mode)
    with pytest.raises(UsageError, match=rf"others may use it \(mode {mode:04o}\); chmod 0600"):
        password_of(account)


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe", b"x" * 5000])
def test_a_file_that_is_no_line_is_refused(account, password_file, content):
    password_file.write_bytes(content)
    with pytest.raises(UsageError, match="it must hold one line, which is the password"):
        password_of(account)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="cannot read the file of --password-file"):
        password_of(Account("ann", str(tmp_path / "none")))


# ---- the exchange


class Verifier:
    """The server's end, by scramp."""

    def __init__(self, password=PASSWORD):
        mechanism = ScramMechanism("SCRAM-SHA-256")
        known = mechanism.make_auth_info(password, 4096, b"the salt of this")
        self.server = mechanism.make_server(lambda _: known)

    def answer(self, procedure, payload):
        match procedure:
            case Remote.AUTH_LIST:
                return pack_auth_methods([AuthMethod.SASL])
            case Remote.AUTH_SASL_INIT:
                return pack_sasl_mechanisms(["GSSAPI", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
            case Remote.AUTH_SASL_START:
                begun = SaslStart.unpack(payload)
                assert begun.mechanism == "SCRAM-SHA-256"
                self.server.set_client_first(begun.data.decode())
                return SaslReply(False, self.server.get_server_first().encode()).pack()
            case Remote.AUTH_SASL_STEP:
                self.server.set_client_final(unpack_sasl_step(payload).decode())
                return SaslReply(True, self.server.get_server_final().encode()).pack()


def entered(account, verifier, spoilt=()):
    """What the way in returns. `spoilt`: replies that are others, by their number."""
    calls, replies, below = way_in(TARGET, None, object(), account), dict(spoilt), None
    asked = next(calls)
    try:
        for number in range(10):
            below = replies[number] if number in replies else verifier.answer(*asked)
            asked = calls.send(below)
    except StopIteration as done:
        return done.value
    raise AssertionError("it does not come to an end")


def test_both_ends_prove_themselves(account):
    verifier = Verifier()
    assert entered(account, verifier) is not None
    assert verifier.server.error is None


def test_the_rounds_are_computed_once_per_salt(account, monkeypatch):
    entered(account, Verifier())
    verifier = Verifier()
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", None)  # whoever computes them fails
    assert entered(account, verifier) is not None


INIT, START, END = 1, 2, 3


@pytest.mark.parametrize(
    ("number", "payload", "complaint"),
    [
        (0, pack_auth_methods([AuthMethod.NONE]), 'set its auth_tls = "sasl", or measure tls:'),
        (0, pack_auth_methods([AuthMethod.POLKIT]), "the server wants POLKIT and not SASL"),
        (INIT, pack_sasl_mechanisms(["GSSAPI"]), "offers GSSAPI; it needs passwords to offer"),
        (INIT, pack_sasl_mechanisms([]), "the server offers nothing"),
        (START, SaslReply(True, b"x").pack(), "ended the exchange without proving itself"),
        (START, SaslReply(False, b"x").pack(), "the server's challenge: "),
        (START, SaslReply(False, b"\xff").pack(), "a message that is no UTF-8"),
        (START, SaslReply(False, b"r=other,s=YWJjYWJjYWJjYWJj,i=4096").pack(), "nonce"),
        (END, SaslReply(True, None).pack(), "the server did not prove itself: "),
        (END, SaslReply(True, b"v=AAAA").pack(), "the server did not prove itself: "),
        (END, b"\0", "cannot be read"),
    ],
)
def test_a_server_that_does_something_else_is_told(account, number, payload, complaint):
    with pytest.raises(TargetFailure) as failed:
        entered(account, Verifier(), {number: payload})
    assert complaint in str(failed.value)
    assert "\n" not in str(failed.value)
    assert PASSWORD not in str(failed.value)


def test_a_name_that_sasl_does_not_allow_is_told(password_file):
    with pytest.raises(UsageError, match="--user and --password-file hold what SASL"):
        entered(Account("a\u0007b", str(password_file)), Verifier())


# ---- a real proxyd


@pytest.fixture
def over_tls(by_password, pki, account):
    """The target and its opening."""
    credentials = Credentials(pki["ca.pem"], pki["client.pem"], pki["client.key"])
    opening = Opening("test:///default", False, 10, credentials, account=account)
    return parse_target(f"it={by_password[0]}"), opening


@pytest.mark.system
def test_a_session_at_a_real_proxyd(over_tls, front):
    target, opening = over_tls
    with closing(open_session(target, opening)) as session:
        assert session.cipher.startswith("TLSv1.3")
        assert session.call(Remote.CONNECT_GET_LIB_VERSION).payload
    assert "ann" in front.log_text()
    assert PASSWORD not in front.log_text()


@pytest.mark.system
def test_many_sessions_at_a_real_proxyd(over_tls):
    target, opening = over_tls
    with closing(GeneratorProcess(SessionOrder(target, opening, 3))) as generator:
        generator.wait_until_started()
        assert generator.open().startswith("TLSv1.3")
        done = generator.work(Turn(0, least=20))
    assert len(done.samples()) >= 20


@pytest.mark.system
def test_a_wrong_password_is_told(over_tls, tmp_path):
    target, opening = over_tls
    wrong = tmp_path / "wrong"
    wrong.write_text("incorrect horse")
    wrong.chmod(0o600)
    opening = dataclasses.replace(opening, account=Account("ann", str(wrong)))
    with pytest.raises(TargetFailure, match=r"target it: AUTH_SASL_STEP: .*its log says why"):
        open_session(target, opening)


@pytest.mark.system
def test_calls_at_a_rate_and_a_session_for_each_at_a_real_proxyd(by_password, capsys):
    address, options = by_password
    words = ["--target", f"it={address}", *options, "-R", "40", "-c", "4", "-d", "500ms"]
    for how in ([], ["-C"]):
        assert main(["run", *words, *how, "--json"]) == OK
        printed = capsys.readouterr().out
        (target,) = json.loads(printed)["targets"]
        assert (target["calls"]["count"], target["errors"]) == (20, {})
        assert target["cipher"].startswith("TLSv1.3")
        assert PASSWORD not in printed
    assert target["connects"]["count"] == 20
