"""One client's SASL: whose steps meet, who is let in, and that nobody's thread is waited for."""

import threading
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from proxyd.admission.logins import Logins
from proxyd.config.listeners import Door
from proxyd.config.settings import SPECS
from proxyd.negotiation.events import NeedsSasl
from proxyd.sasl.mechanism import Challenge, LoginRefused, Success
from proxyd.session.sasl_exchange import Policy, Proof, SaslExchange, proving_threads
from proxyd.wire import remote
from proxyd.wire.frame import Status
from proxyd.wire.programs import AuthMethod, Remote
from tests.session.desk import SOMEBODY, failure_of, lines, succeeded, tracebacks

BY_SASL = Door(name="libvirt-sock", method=AuthMethod.SASL, readonly=False, own_uid_only=False)


class Riddle:
    """A mechanism of two steps: the answer is the client's name, or a `!` and why not."""

    name = "RIDDLE"

    def __init__(self, ssf=0):
        self.ssf = ssf
        self.thread = None

    def start(self, data):
        self.thread = threading.get_ident()
        return Challenge(b"who?")

    def step(self, data):
        answer = (data or b"").decode()
        if answer.startswith("!"):
            raise LoginRefused(answer[1:], username="somebody", hint="look at the moon")
        return Success(answer, self.ssf, b"welcome", None, f"{answer} of the riddle")


class Offer:
    """In the place of an Offering."""

    names = ("RIDDLE",)
    longest_token = 100

    def __init__(self, ssf=0):
        self.ssf = ssf
        self.begun = []

    def claimed(self, name, data):
        return data.decode().lstrip("!")

    def begin(self, name, bindings):
        assert name in self.names
        assert bindings == {}
        self.begun.append(Riddle(self.ssf))
        return self.begun[-1]


def proof(offer=None, *, allowed=None, least_ssf=0):
    return Proof(
        offering=offer or Offer(),
        policy=Policy(allowed=allowed, least_ssf=least_ssf),
        threads=proving_threads(),
    )


@asynccontextmanager
async def aside():
    yield


def of(asked, logins=None):
    return SaslExchange(asked, {}, SOMEBODY, logins or Logins(), aside)


def exchange(**policy):
    return of(proof(**policy))


async def test_steps_are_computed_in_another_thread():
    offer = Offer()
    sasl = of(proof(offer))
    assert await sasl.answer(NeedsSasl("RIDDLE", None)) == Challenge(b"who?")
    assert offer.begun[0].thread != threading.get_ident()


async def test_a_new_attempt_has_a_mechanism_of_its_own():
    offer = Offer()
    sasl = of(proof(offer))
    await sasl.answer(NeedsSasl("RIDDLE", None))
    await sasl.answer(NeedsSasl("RIDDLE", None))
    assert len(offer.begun) == 2
    assert (await sasl.answer(NeedsSasl(None, b"joe"))).username == "joe"


@pytest.mark.parametrize("end", [b"joe", b"!no"])
async def test_after_the_end_no_step_reaches_a_mechanism(end):
    sasl = exchange()
    await sasl.answer(NeedsSasl("RIDDLE", None))
    with suppress(LoginRefused):
        await sasl.answer(NeedsSasl(None, end))
    with pytest.raises(AssertionError):
        await sasl.answer(NeedsSasl(None, b"joe"))


@pytest.mark.parametrize(
    ("allowed", "name", "says"),
    [
        (None, "anybody", ""),
        (["joe"], "joe", ""),
        (["*/admin", "j?e"], "joe", ""),
        (["joe"], "Joe", "lets in other names only"),
        (["jo"], "joe", "lets in other names only"),
        ([], "joe", "lets in nobody"),
    ],
)
async def test_the_list_of_names_decides(allowed, name, says):
    sasl = exchange(allowed=allowed)
    await sasl.answer(NeedsSasl("RIDDLE", None))
    if not says:
        assert (await sasl.answer(NeedsSasl(None, name.encode()))).username == name
        return
    with pytest.raises(LoginRefused, match=says) as refused:
        await sasl.answer(NeedsSasl(None, name.encode()))
    assert refused.value.username == name


@pytest.mark.parametrize(("ssf", "least", "fine"), [(256, 112, True), (56, 112, False)])
async def test_a_layer_must_be_strong_enough(ssf, least, fine):
    sasl = exchange(offer=Offer(ssf), least_ssf=least)
    await sasl.answer(NeedsSasl("RIDDLE", None))
    if fine:
        await sasl.answer(NeedsSasl(None, b"joe"))
        return
    with pytest.raises(LoginRefused, match="56 bits and 112 are asked for"):
        await sasl.answer(NeedsSasl(None, b"joe"))


async def test_few_threads_serve_many_clients():
    started = threading.Semaphore(0)
    go_on = threading.Event()

    class Slow(Riddle):
        def start(self, data):
            started.release()
            go_on.wait(10)
            return Challenge(None)

    class Slowly(Offer):
        def begin(self, name, bindings):
            return Slow()

    asked = proof(Slowly())
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(of(asked).answer, NeedsSasl("RIDDLE", None))
        for _ in range(asked.threads.most):
            await trio.to_thread.run_sync(started.acquire)
        await trio.testing.wait_all_tasks_blocked()
        assert asked.threads.busy == asked.threads.most
        assert not started.acquire(blocking=False)
        go_on.set()


# ---- a whole session


@pytest.fixture
def by_sasl(desk):
    desk.proof = proof(allowed=["joe"])
    return desk.connect(BY_SASL)


def start():
    return Remote.AUTH_SASL_START, remote.SaslStart("RIDDLE", None).pack()


def step(data):
    return Remote.AUTH_SASL_STEP, remote.pack_sasl_step(data)


async def test_a_client_that_proves_itself_is_told_so_and_served(desk, by_sasl, caplog):
    caplog.set_level("INFO")
    listed = await by_sasl.call(Remote.AUTH_LIST)
    assert remote.unpack_auth_methods(listed.payload) == [AuthMethod.SASL]
    offered = await by_sasl.call(Remote.AUTH_SASL_INIT)
    assert remote.unpack_sasl_mechanisms(offered.payload) == ["RIDDLE"]
    await by_sasl.call(*start())
    assert desk.admission.anonymous == 1
    said = await by_sasl.call(*step(b"joe"))
    assert remote.SaslReply.unpack(said.payload) == remote.SaslReply(True, b"welcome")
    assert succeeded(await by_sasl.open())
    assert desk.admission.anonymous == 0
    (client,) = desk.roster.clients.values()
    assert client.identity.sasl_user_name == "joe"
    assert client.identity.uid == 0
    assert client.authentication == "sasl RIDDLE"
    assert "came in by RIDDLE, joe of the riddle, 0 bits" in lines(caplog, "came in")[0]


async def test_why_somebody_is_refused_is_in_the_log_alone(desk, by_sasl, caplog):
    for answer in (b"!a secret reason", b"mallory"):
        await by_sasl.call(Remote.AUTH_SASL_INIT)
        await by_sasl.call(*start())
        said = await by_sasl.call(*step(answer))
        assert said.header.status == Status.ERROR
        assert failure_of(said).message == "authentication failed: authentication failed"
    first, second = lines(caplog, "RIDDLE: ")
    assert 'RIDDLE: "somebody": a secret reason; look at the moon' in first
    assert '"mallory" is not in sasl_allowed_username_list' in second
    assert desk.admission.anonymous == 1


async def test_who_tries_again_and_again_does_not_fill_the_log(desk, by_sasl, caplog):
    for _ in range(10):
        await by_sasl.call(Remote.AUTH_SASL_INIT)
        await by_sasl.call(*start())
        await by_sasl.call(*step(b"!no"))
    assert len(lines(caplog, "RIDDLE: ")) == 3


async def test_a_deadline_while_a_step_waits_for_a_thread_is_one_line(desk, log):
    desk.timeout_s = 0.5
    desk.proof = proof()
    desk.proof.threads.busy = desk.proof.threads.most
    caller = desk.connect(BY_SASL)
    await caller.call(Remote.AUTH_SASL_INIT)
    caller.send(caller.frame(*start()))
    assert await caller.ended()
    await desk.is_empty()
    assert lines(log, "no connection was opened within 0.5 s")
    assert not tracebacks(log)


@pytest.mark.parametrize(
    ("allowed", "name", "hint"),
    [
        (("joe@EXAMPLE.COM",), "joe", 'write "joe" instead of "joe@EXAMPLE.COM"'),
        (("*/admin@EXAMPLE.COM",), "joe/admin", 'write "*/admin" instead of'),
        (("joe",), "joe@OTHER.EXAMPLE.COM", 'write "joe@OTHER.EXAMPLE.COM"'),
        (("ann",), "joe", ""),
        (("ann@EXAMPLE.COM",), "joe", ""),
        ((), "joe", ""),
    ],
)
def test_who_is_listed_in_another_spelling_is_refused_with_what_to_write(allowed, name, hint):
    with pytest.raises(LoginRefused) as refused:
        Policy(allowed=allowed, least_ssf=0).judge(Success(name, 0, b"", None, ""))
    assert hint in refused.value.hint
    assert bool(refused.value.hint) is bool(hint)


def test_the_example_of_the_list_lets_in_those_whom_it_names():
    listed = SPECS["sasl_allowed_username_list"].example
    policy = Policy(allowed=listed, least_ssf=0)
    for name in ("joe", "joe/admin", "ann@OTHER.EXAMPLE.COM"):  # of the default realm and another
        policy.judge(Success(name, 0, b"", None, ""))
