import socket
import ssl
from contextlib import closing, contextmanager

import pytest

from loadtest.churn import Churn
from loadtest.client import Opening
from loadtest.failures import TargetFailure
from loadtest.generator_process import GeneratorProcess
from loadtest.turns import SessionOrder, Turn
from proxyd.wire.programs import Remote

THIRTY = Turn(0, least=30)
IMPATIENT = Opening("test:///default", readonly=False, wait_s=0.1)


@contextmanager
def churning(target, opening, connections=1):
    """A churn whose first session is open."""
    with closing(Churn(SessionOrder(target, opening, connections))) as churn:
        churn.open()
        yield churn


def churned(target, opening, turn=THIRTY, connections=1):
    with churning(target, opening, connections) as churn:
        return churn.work(turn)


def test_every_session_opens_and_says_goodbye(fake_target, opening):
    script, target = fake_target()
    done = churned(target, opening)
    assert len(done.samples()) == script.closed == 30
    assert len(script.opened) == 31  # and the first one, which stays
    assert {opened.name for opened in script.opened} == {"test:///default"}
    assert max(done.samples()) <= done.elapsed_ns


def test_so_many_are_under_way_at_a_time(fake_target, opening):
    script, target = fake_target(open_wait_s=0.02)
    done = churned(target, opening, connections=5)
    # Those of the last ones that were under way when the thirtieth ended.
    assert 30 <= len(done.samples()) == script.closed <= 34
    # A server notices the end of one later than the client begins the next.
    assert script.most_live >= 5
    assert done.elapsed_ns < sum(done.samples()) / 2


def test_it_works_for_as_long_as_it_is_told(fake_target, opening):
    _, target = fake_target()
    assert churned(target, opening, Turn(50_000_000)).elapsed_ns >= 50_000_000


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_handshake_is_a_full_one(tls_target, tls_opening, version):
    script, target = tls_target(version=version)
    done = churned(target, tls_opening, connections=3)
    assert len(done.samples()) == script.closed
    assert set(script.handshakes) == {"full"}
    assert len(script.handshakes) == script.closed + 1


def test_it_runs_in_a_process_of_its_own(tls_target, tls_opening):
    script, target = tls_target()
    with closing(GeneratorProcess(SessionOrder(target, tls_opening, 2))) as generator:
        generator.wait_until_started()
        assert generator.open() == "TLSv1.3 TLS_AES_256_GCM_SHA384"
        done = generator.work(THIRTY)
    assert 30 <= len(done.samples()) == script.closed <= 31
    assert done.cpu_ns > 0


def test_a_target_that_cannot_be_opened_is_told_before_any_turn(fake_target, opening):
    _, target = fake_target(refused={Remote.CONNECT_OPEN: "no such driver"})
    with pytest.raises(TargetFailure, match=r"target fake: CONNECT_OPEN: .*no such driver"):
        churned(target, opening)


def failure(churn):
    with pytest.raises(TargetFailure) as failed:
        churn.work(THIRTY)
    return str(failed.value)


def test_an_error_in_a_later_session_is_told(fake_target, opening):
    script, target = fake_target()
    with churning(target, opening, connections=2) as churn:
        script.refused[Remote.CONNECT_CLOSE] = "tired"
        assert failure(churn) == "target fake: CONNECT_CLOSE: internal error: tired"


def test_a_server_that_hangs_up_is_told(tls_target, tls_opening):
    script, target = tls_target()
    with churning(target, tls_opening) as churn:
        script.confirmation = b""
        assert failure(churn).startswith("target fake: the server hung up instead of confirming")


def test_a_session_that_gets_stuck_is_given_up(fake_target):
    script, target = fake_target()
    with churning(target, IMPATIENT) as churn:
        script.ignored.add(Remote.CONNECT_OPEN)
        assert failure(churn) == "target fake: no new session got any further for 0.1 s"


def test_a_server_that_is_gone_is_told(fake_target, opening):
    _, target = fake_target()
    with churning(target, opening) as churn, socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        churn._family, churn._place = socket.AF_INET, unheard.getsockname()
        place = churn._target.address.place
        assert failure(churn) == f"target fake: cannot connect to {place}: Connection refused"


def test_a_full_queue_is_told_with_its_remedy(fake_target, opening, socket_paths):
    _, target = fake_target()
    with (
        churning(target, opening, connections=5) as churn,
        socket.socket(socket.AF_UNIX) as busy,
    ):
        busy.bind(str(next(socket_paths)))
        busy.listen(1)
        churn._place = busy.getsockname()
        assert "its queue of new connections is full; ask for fewer" in failure(churn)
