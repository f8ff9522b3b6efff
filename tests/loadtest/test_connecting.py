"""Targets behind TLS, from the connect to the byte that confirms."""

import dataclasses
import socket
import ssl
from contextlib import closing

import pytest

from loadtest.client import open_session
from loadtest.connecting import reach, reason_of
from loadtest.credentials import Credentials
from loadtest.failures import TargetFailure
from loadtest.targets import parse_target
from proxyd.wire.programs import Remote
from tests.bed.waiting import wait_until

SMALL = Remote.CONNECT_GET_LIB_VERSION


def measured(target, opening, calls=3):
    with closing(open_session(target, opening)) as session:
        session.prepare(SMALL)
        return [session.round_trip() for _ in range(calls)]


def failure(target, opening):
    with pytest.raises(TargetFailure) as failed:
        measured(target, opening)
    assert "\n" not in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_calls_are_made_over_tls(tls_target, tls_opening, version):
    script, target = tls_target(version=version)
    assert len(measured(target, tls_opening)) == 3
    assert script.handshakes == ["full"]
    assert script.closed == 1


def test_over_ipv6_as_well(tls_target, tls_opening):
    _, target = tls_target(host="::1")
    assert len(measured(target, tls_opening)) == 3


def test_a_name_is_resolved_and_checked(start_tls_fake, tls_opening):
    _, address = start_tls_fake()
    named = address.replace("127.0.0.1", "localhost")
    assert len(measured(parse_target(f"fake={named}"), tls_opening)) == 3


@pytest.mark.parametrize("behaviour", [{"ping_first": True}, {"in_pieces": True}])
def test_replies_that_are_not_as_usual_count_over_tls_too(tls_target, tls_opening, behaviour):
    script, target = tls_target(**behaviour)
    assert len(measured(target, tls_opening)) == 3
    assert script.pongs in (0, 4)


def test_small_packets_are_sent_at_once(tls_target):
    _, target = tls_target()
    with reach(target, 10) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_certificate_of_ours_is_shown_only_if_there_is_one(tls_target, opening, pki):
    _, target = tls_target(wants_certificate=False)
    bare = dataclasses.replace(opening, credentials=Credentials(pki["ca.pem"]))
    assert len(measured(target, bare)) == 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate_says_so(tls_target, opening, pki, version):
    _, target = tls_target(version=version)
    bare = dataclasses.replace(opening, credentials=Credentials(pki["ca.pem"]))
    told = failure(target, bare)
    assert told.startswith("target fake: TLS: the server sent the alert '")
    assert told.endswith("it may want a certificate of ours: give --cert and --key")


def test_a_certificate_that_the_server_does_not_know_is_told(tls_target, opening, pki):
    _, target = tls_target()
    strange = Credentials(pki["ca.pem"], pki["stranger.pem"], pki["stranger.key"])
    told = failure(target, dataclasses.replace(opening, credentials=strange))
    assert told == (
        "target fake: TLS: the server sent the alert 'unknown ca'; "
        "does it know the CA of --cert, and allow its name? Its log says why"
    )


def test_a_server_of_another_ca_is_not_trusted_and_hears_of_it(tls_target, opening, pki):
    script, target = tls_target()
    other = dataclasses.replace(opening, credentials=Credentials(pki["other-ca.pem"]))
    told = failure(target, other)
    assert told.startswith("target fake: TLS: the server's certificate is not trusted: ")
    assert told.endswith("is --cacert the CA that signed it?")
    # The server's thread may come to it a little later.
    wait_until(lambda: script.handshakes, 10, "the server has its handshake behind it")
    assert "alert unknown ca" in script.handshakes[0]


def test_a_wrong_name_is_refused_unless_names_do_not_matter(start_tls_fake, opening, credentials):
    _, address = start_tls_fake(host="127.0.0.2")
    target = parse_target(f"fake={address}")
    strict = dataclasses.replace(opening, credentials=credentials)
    lax = dataclasses.replace(
        opening, credentials=dataclasses.replace(credentials, host_check=False)
    )
    told = failure(target, strict)
    assert "not valid for '127.0.0.2'; name the target as its certificate does" in told
    assert len(measured(target, lax)) == 3


def test_a_server_that_does_not_confirm_is_told(tls_target, tls_opening):
    _, target = tls_target(confirmation=b"")
    assert "the server hung up instead of confirming" in failure(target, tls_opening)


def test_another_byte_is_no_confirmation(tls_target, tls_opening):
    _, target = tls_target(confirmation=b"\0")
    assert "other bytes than 0x01" in failure(target, tls_opening)


@pytest.fixture
def answering():
    """A port on which the first thing that a client sends is answered with some bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, parse_target(f"fake=tls:127.0.0.1:{listener.getsockname()[1]}")


def test_a_server_without_tls_is_told(answering, tls_opening, run_beside):
    listener, target = answering

    def plain():
        sock, _ = listener.accept()
        with sock:
            sock.recv(4096)
            sock.sendall(b"220 welcome to another service\r\n")

    with run_beside(plain):
        told = failure(target, tls_opening)
    assert told == "target fake: TLS: the server does not speak TLS on this port"


def test_a_server_that_hangs_up_in_the_handshake_is_told(answering, tls_opening, run_beside):
    listener, target = answering

    def hasty():
        sock, _ = listener.accept()
        with sock:
            sock.recv(4096)

    with run_beside(hasty):
        told = failure(target, tls_opening)
    assert "hung up in the middle of the handshake" in told


def test_a_server_that_is_silent_in_the_handshake_is_given_up(answering, tls_opening):
    _, target = answering
    impatient = dataclasses.replace(tls_opening, wait_s=0.05)
    assert failure(target, impatient) == "target fake: TLS: nothing happened for 0.05 s"


def test_a_silent_server_is_given_up_after_the_deadline_over_tls_too(tls_target, tls_opening):
    _, target = tls_target(silent=True)
    told = failure(target, dataclasses.replace(tls_opening, wait_s=0.2))
    assert told == "target fake: CONNECT_GET_LIB_VERSION: nothing happened for 0.2 s"


def test_a_server_that_hangs_up_later_is_told(tls_target, tls_opening):
    _, target = tls_target(hang_up=True)
    assert failure(target, tls_opening).endswith("the server closed the connection")


def test_nobody_listening_is_one_clear_line(tls_opening):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unheard.getsockname()[1]}"
        told = failure(parse_target(f"fake=tls:{place}"), tls_opening)
    assert told == f"target fake: cannot connect to {place}: Connection refused"


def test_a_name_that_nobody_knows_is_told_in_the_resolver_s_words():
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert reason_of(unknown, 10) == "Name or service not known; is the name right?"
