"""What a stranger's bytes can make Python do takes about a millisecond at most, whatever they are.

While Python works on one client's bytes it works on nobody else's: the interpreter has one lock.
Each row is the worst input that the limits let through, or one that they refuse, for a place where
such bytes are looked at. What it takes is held against a loop of a known length, timed in the same
moment, so a slow or busy machine changes nothing.

A new place belongs here, with the dearest input that somebody who means harm would find for it.
"""

import os
import time
from contextlib import suppress

import pytest
from OpenSSL import crypto

from proxyd.config import routes
from proxyd.config.globs import matches
from proxyd.config.quoting import excerpt, shortened
from proxyd.config.routes import MAX_NAME, RoutingTable, Unroutable
from proxyd.log.line import entry_of, rendered
from proxyd.negotiation import backend, server
from proxyd.negotiation.identity import ClientIdentity
from proxyd.sasl import passwords as passwords_module
from proxyd.sasl import scram
from proxyd.sasl.gssapi_errors import words_of
from proxyd.sasl.mechanism import LoginRefused
from proxyd.sasl.passwords import PasswordFile, Passwords, verifier_for
from proxyd.tls.verify import ChainCheck, Inspection
from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER_SIZE, Header
from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.xdr import MalformedFrame
from tests.bed.minting import SEQUENCE, dotted, tlv
from tests.bed.odd_certificates import attribute, certificate, name, part
from tests.log.records import record_of

# Turns of an empty loop: 1 ms of CPython 3.11 on the machine where the limits were measured.
TURNS = 100_000
ALLOWED = 2  # of such milliseconds: the dearest is at 0.9
TRIES = 15

TABLE = RoutingTable(privileged=True, system_dir="/run/libvirt", session_dir="/none")
LIGATURE = "\ufdfa"  # one character that becomes eighteen
UNSAFE = "\u202e"  # that a log line spells out
CALL = Header(1, 1, 1, 0, 1)


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def a_millisecond():
    for _ in range(TURNS):
        pass


def route(text):
    def work():
        routes._understood.cache_clear()
        try:
            TABLE.resolve(text, readonly=False)
        except Unroutable as error:
            str(error)

    return work


def log(template, *arguments):
    return lambda: rendered(entry_of(record_of(template, *arguments)))


def object_to(*parts, **rest):
    """OpenSSL calls for a certificate of which it does not know the issuer."""
    der = certificate(name(*parts), **rest)
    shown = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
    check, unknown_issuer = ChainCheck(enforce=True), 20

    def work():
        connection = Connection()
        assert not check(connection, shown, unknown_issuer, 0, 0)
        assert connection.inspection.refusal

    return work


class Connection:
    """Of a TLS connection what its callback asks for."""

    def __init__(self):
        self.inspection = Inspection()

    def get_app_data(self):
        return self.inspection


def feed(payload, procedure=Remote.AUTH_SASL_START):
    """A whole frame of a client that has proven nothing."""
    wire = remote.call(procedure, 0, payload).pack()

    def work():
        machine = server.ServerNegotiation(
            method=AuthMethod.SASL,
            readonly=False,
            mechanisms=("GSSAPI",),
            longest_token=remote.MAX_SASL_DATA,
        )
        machine.receive_data(wire[:HEADER_SIZE])
        if machine.wanted:
            machine.receive_data(wire[HEADER_SIZE:])

    return work


def error_body(message):
    payload = Failure(1, 1, message).pack()

    def work():
        with suppress(MalformedFrame):  # where the limit cut it
            Failure.unpack(payload[: backend.FRAME_LIMIT]).reply_to(CALL).pack()

    return work


class KerberosError:
    """What libkrb5 says of a ticket: the name in it is the stranger's own."""

    maj_code, min_code = 13 << 16, 39756033

    def __init__(self, name):
        self._text = f"Request ticket server {name} not found in keytab"

    def get_all_statuses(self, _code, _is_major):
        return [self._text]


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """As many as fit into the file, which nobody has touched for a while."""
    path = tmp_path_factory.mktemp("users") / "passwords"
    file = PasswordFile(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords_module, "ITERATIONS", 4096)
        one = verifier_for("sesame")
    file._write(Passwords(os.urandom(32), {f"user{n}": one for n in range(6000)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords_module, "_SETTLED_NS", -1)
        file.read()
    return file


def scram_first(text):
    def work(users):
        try:
            scram.ScramServer(users).start(text.encode())
        except LoginRefused as refusal:
            str(refusal)

    return work


def scram_final(text):
    def work(users):
        attempt = scram.ScramServer(users)
        attempt.start(b"n,,n=user1,r=abc")
        with pytest.raises(LoginRefused):
            attempt.step(text.encode())

    return work


ROOM = scram.LARGEST_MESSAGE
WITH_USERS = {
    "a user's name of 4 KiB": scram_first(f"n,,n={'a' * (ROOM - 100)},r=a"),
    "a user's name of the longest that may be": scram_first(f"n,,n={'a' * 255},r=a"),
    "a user's name that grows": scram_first(f"n,,n={LIGATURE * (ROOM // 3 - 10)},r=a"),
    "a short user's name that grows": scram_first(f"n,,n={LIGATURE * 255},r=a"),
    "a user's name that vanishes": scram_first(f"n,,n={'­' * 255},r=a"),
    "a user's name from right to left": scram_first(f"n,,n={'ا' * 255},r=a"),
    "a user's name of marks": scram_first(f"n,,n=a{'̣́' * 127},r=a"),
    "a user's name of escapes": scram_first(f"n,,n={'=2C' * (ROOM // 3 - 10)},r=a"),
    "whom to act as, grown": scram_first(f"n,a={LIGATURE * (ROOM // 3 - 20)},n=joe,r=a"),
    "a nonce of 4 KiB": scram_first(f"n,,n=user1,r={'a' * (ROOM - 20)}"),
    "attributes without number": scram_first(f"n,,{',' * (ROOM - 10)}"),
    "a proof of 4 KiB": scram_final(f"c=biws,r=abc,p={'A' * (ROOM - 40)}"),
    "a final nonce of 4 KiB": scram_final(f"c=biws,r={'a' * (ROOM - 40)},p=AAAA"),
    "a user who is not there": scram_first("n,,n=nobody,r=a"),
}

WORK = {
    # certificates
    "a subject of many parts": object_to(*[part()] * 3500),
    "a subject as large as may be": object_to(*[part()] * 82),
    "a subject of attributes unknown": object_to(
        part(*[attribute(b"", kind=dotted(f"1.2.{n}"), tag=0x13) for n in range(100)])
    ),
    "a subject of one value": object_to(part(attribute(b"," * 90_000))),
    "a subject of escapes as large as may be": object_to(part(attribute(b"," * 990))),
    "a serial number of 16 KiB": object_to(serial=b"\x7f" * 16_000),
    "extensions without number": object_to(
        extensions=[tlv(SEQUENCE, dotted(f"1.2.3.{n}"), tlv(4, b"")) for n in range(4000)]
    ),
    # names of destinations
    "a plain path": route("qemu:///" + "a" * (MAX_NAME - 8)),
    "a path of escapes": route("qemu:///" + "%41" * ((MAX_NAME - 8) // 3)),
    "a path of escapes that stay": route("qemu:///" + "%ff" * ((MAX_NAME - 8) // 3)),
    "parameters without number": route("qemu:///system?" + "a=b&" * 1000),
    "empty parameters": route("qemu:///system?" + "&" * 4000),
    "as many parameters as may be": route(
        "qemu:///system?" + "&".join(["%41=" + "%42" * 19] * routes.MAX_PARAMETERS)[:4081]
    ),
    "a scheme": route("a" * (MAX_NAME - 4) + ":///"),
    "a transport": route("qemu+" + "a" * (MAX_NAME - 9) + ":///"),
    "colons": route(":" * MAX_NAME),
    "what is no URI": route(UNSAFE * MAX_NAME),
    "a name of a whole frame": route("a" * server.FRAME_LIMIT),
    # lists of who may come in
    "a list's worst pattern": lambda: matches("*" + "?" * 60 + "b*", "a" * 3000),
    "a pattern of stars": lambda: matches("*a" * 60 + "*b", "a" * 3000),
    "a pattern that nearly fits": lambda: matches("*" + "ab" * 40 + "c*", "ab" * 1500),
    # what becomes of bytes
    "a token of 64 KiB": feed(remote.SaslStart("GSSAPI", b"\xff" * 65536).pack()),
    "a mechanism of 256 KiB": feed(remote.SaslStart("A" * 260_000, b"").pack()),
    "a mechanism that is no UTF-8": feed(remote.SaslStart("\udcff" * 60_000, b"").pack()),
    "an answer of 64 KiB": lambda: remote.SaslReply(False, b"\xff" * 65536).pack(),
    "an error text of a daemon": error_body("\udcff" * 60_000),
    "an error text of 1 MiB": error_body("\udcff" * 1_000_000),
    # what is said of it
    "a ticket's name of 64 KiB": lambda: words_of(KerberosError("x" * 65536)),
    "a ticket's name of what is unsafe": lambda: words_of(KerberosError("\x01" * 65536)),
    "a reason of 64 KiB": lambda: str(LoginRefused(UNSAFE * 65536, username=UNSAFE * 65536)),
    "an excerpt of 64 KiB": lambda: excerpt(UNSAFE * 65536),
    "a shortened text": lambda: shortened("a" * 65536, 500),
    "a log line of 4 KiB": log("%s", UNSAFE * 4096),
    "a log line of 64 KiB": log("%s and %r", UNSAFE * 65536, UNSAFE),
    "a log line of half of it": log("%s", f"é{UNSAFE}" * 2048),
    "a client's names in a log line": log(
        "%s", ClientIdentity(sasl_user_name=UNSAFE * 1024, x509_dname=UNSAFE * 3000)
    ),
}


@pytest.mark.parametrize("what", WORK)
def test_no_input_takes_more_than_a_moment(what):
    assert_moment(WORK[what])


@pytest.mark.parametrize("what", WITH_USERS)
def test_no_attempt_to_prove_oneself_takes_more_than_a_moment(what, users):
    assert_moment(lambda: WITH_USERS[what](users))


def assert_moment(work):
    took, moment = [], []
    for _ in range(TRIES):
        moment.append(seconds(a_millisecond))
        took.append(seconds(work))
    assert min(took) < ALLOWED * min(moment), f"{min(took) * 1e3:.2f} ms"
