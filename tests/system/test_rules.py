"""Rules in force: levels, limits, changes while sessions are open, and what is told of them.

The daemon behind is libvirtd. Which line decides about whom is in tests/rules, what a session may
call in tests/relay; real virsh under each level is in test_rules_virsh.py.
"""

import datetime as dt
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import Status
from proxyd.wire.names import NAMES
from proxyd.wire.programs import Program, Remote
from proxyd.wire.remote import OPEN_READONLY, OpenArguments
from proxyd.wire.xdr import Writer
from tests.bed.command import held_open, run_to_end
from tests.bed.upgrading import upgrading
from tests.bed.virsh import unix_uri
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened, rpc_client

URI = "test:///default"
# Debian's own users and groups, which every tree has.
BIN, SYS, GAMES = 2, 3, 60
JOE = BIN
SOON_S = 20
NETWORK_DESTROY = NAMES[Program.REMOTE].index("NETWORK_DESTROY")


class Front:
    """A proxyd with rules that can be written anew; commands are given to the one that serves."""

    def __init__(self, made, rules):
        self.made = made
        self.rules = rules

    @property
    def proxyd(self):
        return self.made.proxyd

    @property
    def sock(self):
        return self.made.proxyd.sock

    def write(self, *lines):
        self.rules.write_text("".join(f"{line}\n" for line in lines))

    def apply(self, *words):
        return json.loads(self.tries_to_apply(*words).succeeded())

    def tries_to_apply(self, *words):
        where = ["--socket", str(self.proxyd.admin_sock), "--json"]
        command = [sys.executable, "-m", "proxyd", "rules", "apply", *where, *words]
        return run_to_end(command, deadline_s=SOON_S, environment=self.made.environment)

    def logs(self, text):
        wait_until(lambda: text in self.proxyd.log_text(), SOON_S, f"the log says {text!r}")

    def client(self, number=None):
        found = self.made.clients()
        if number is None:
            (one,) = found
            return one
        return next(each for each in found if each["id"] == number)


@pytest.fixture
def make_front(make_proxyd, tmp_path):
    with ExitStack() as stack:

        def make(*lines, **settings):
            rules = tmp_path / "rules"
            rules.write_text("".join(f"{line}\n" for line in lines))
            config = {"proxyd_rules_file": str(rules), "unix_sock_rw_perms": "0777", **settings}
            made = stack.enter_context(upgrading(make_proxyd(config, mode=0o755, service=True)))
            return Front(made, rules)

        yield make


@contextmanager
def session(front, uri=URI, flags=0, *, user=0, where=None):
    """A client, with what it was answered to its OPEN."""
    client = RpcClient(where or front.sock, user=user)
    try:
        client.reply = client.open(uri, flags)
        yield client
    finally:
        client.close()


def is_open(client):
    return client.reply.header.status == Status.OK


def error(reply):
    assert reply.header.status == Status.ERROR
    return Failure.unpack(reply.payload)


def works(client):
    """Both of a reading call and of the daemon's being there."""
    reply = client.call(Remote.CONNECT_GET_LIB_VERSION)
    return reply is not None and reply.header.status == Status.OK


def destroy_a_network(client):
    """A change: of a network that is not there. What the daemon says to that, or a refusal."""
    payload = Writer().string("nowhere").fixed_opaque(bytes(16)).take()
    return error(client.call(NETWORK_DESTROY, payload))


def test_who_no_rule_lets_in_is_refused_and_the_log_says_so(make_front):
    front = make_front("unix uid:0 * write")
    with session(front) as root, session(front, user=JOE) as joe:
        assert is_open(root)
        refusal = error(joe.reply)
    assert (refusal.code, refusal.message) == (
        ErrorCode.ACCESS_DENIED,
        "access denied: 'proxyd' denied access: its rules do not let this client open"
        " test:///default",
    )
    front.logs('cannot open "test:///default": no rule lets it in there')


def test_a_rule_that_denies_names_its_line_in_the_log_alone(make_front):
    front = make_front("# nobody but root", f"all uid:{JOE} * deny", "all all * write")
    with session(front, user=JOE) as joe:
        assert "line" not in error(joe.reply).message
    front.logs(f"rule 2 denies it: all uid:{JOE} * deny")


def test_who_is_refused_one_name_may_open_another_one(make_front):
    front = make_front("unix all test:* write")
    with session(front, "qemu:///system") as client:
        assert error(client.reply).code == ErrorCode.ACCESS_DENIED
        client.reply = client.open(URI)
        assert is_open(client)
        assert works(client)


def test_without_rules_everything_is_as_it_was(make_front):
    front = make_front(proxyd_rules_file=None)
    with session(front) as client:
        assert is_open(client)
        assert "rule" not in front.client()
        assert front.apply()["rules"] is None


def test_reading_is_a_read_only_connection_whatever_was_asked_for(make_front):
    front = make_front("all all * read")
    with session(front, flags=0) as client:
        assert is_open(client)
        assert works(client)
        told = front.client()
        assert told["readonly"]
        assert told["rule"] == {"line": 1, "text": "all all * read", "may": "read"}
        assert destroy_a_network(client).code == ErrorCode.ACCESS_DENIED
        assert works(client)
        assert front.client()["denied_calls"] == 1


def test_a_set_allows_what_it_names_and_the_session_goes_on(make_front):
    front = make_front("set watch = read network:start", "all all * watch")
    with session(front) as client:
        refusal = destroy_a_network(client)
        assert refusal.code == ErrorCode.ACCESS_DENIED
        assert "NETWORK_DESTROY" in refusal.message
        assert works(client)
        told = front.client()
        assert (told["rule"]["may"], told["denied_calls"], told["readonly"]) == ("watch", 1, False)
    front.write("all all * write")
    front.apply()
    with session(front) as client:
        assert destroy_a_network(client).code != ErrorCode.ACCESS_DENIED


def test_writing_is_everything_and_no_more_than_was_asked_for(make_front):
    front = make_front("all all * write")
    with session(front, flags=OPEN_READONLY) as client:
        assert is_open(client)
        assert front.client()["readonly"]
        assert "read" in destroy_a_network(client).message


@pytest.mark.parametrize(
    ("flags", "may"),
    [
        (["--clear-groups"], "others"),
        ([f"--groups={SYS},{GAMES}"], "players"),
        (["--clear-groups", f"--regid={GAMES}"], "players"),
    ],
)
def test_groups_are_those_that_the_process_was_in(make_front, flags, may):
    front = make_front(
        "set players = read",
        "set others = read",
        "unix group:gam* * players",
        "unix all * others",
    )
    regid = [] if any("regid" in each for each in flags) else [f"--regid={BIN}"]
    words = ["setpriv", f"--reuid={BIN}", *regid, *flags, "virsh", "-q", "-c"]
    with held_open([*words, unix_uri(URI, front.sock)]):
        told = wait_until(front.made.clients, SOON_S, "virsh has come")
        wait_until(lambda: front.client()["state"] == "open", SOON_S, "it has opened a session")
        assert told[0]["identity"]["uid"] == BIN
        assert front.client()["rule"]["may"] == may


def test_as_many_sessions_as_the_rule_allows_of_one_client_and_not_of_all(make_front):
    front = make_front("unix uid:2-5 * write sessions=2", "unix all * write")
    with ExitStack() as stack:

        def come(user):
            return stack.enter_context(session(front, user=user))

        first = come(JOE)
        assert is_open(come(JOE))
        over = come(JOE)
        assert "rule 1 allows 2 sessions of one client at a time" in error(over.reply).message
        assert is_open(come(JOE + 1))
        assert is_open(come(0))
        first.close()
        wait_until(lambda: len(front.made.clients()) == 4, SOON_S, "one has gone")
        over.reply = over.open(URI)
        assert is_open(over)


def test_an_idle_session_is_ended_and_one_that_calls_is_not(make_front):
    front = make_front("unix all * write idle=2s")
    with session(front) as idle, session(front) as busy:
        began = time.monotonic()
        while time.monotonic() - began < 5:
            assert works(busy)
        assert idle.ended()
        assert works(busy)
    front.logs("idle for 2 s, which is all that rule 1 allows")


def test_a_session_ends_with_its_rule_and_nobody_comes_by_it_any_more(make_front):
    end = dt.datetime.now().astimezone() + dt.timedelta(seconds=4)
    front = make_front(f"unix all * write until={end.isoformat(timespec='seconds')}")
    with session(front) as client:
        assert is_open(client)
        assert client.ended()
        assert time.time() >= int(end.timestamp())
    with session(front) as late:
        assert error(late.reply).code == ErrorCode.ACCESS_DENIED
    front.logs("the time of rule 1 is over")


CALLS = 120


def test_calls_come_no_faster_than_the_rule_says_and_all_are_answered(make_front):
    front = make_front("unix all * write calls=40/s")
    with session(front) as one, session(front) as other:
        began = time.monotonic()
        for client in (one, other):
            client.send(
                b"".join(client.frame(Remote.CONNECT_GET_LIB_VERSION) for _ in range(CALLS))
            )
        serials = [
            [client.receive().header.serial for _ in range(CALLS)] for client in (one, other)
        ]
        assert works(one)
        # A second's calls at once, and the rest at the rate: together, since it is one client.
        assert time.monotonic() - began > (2 * CALLS - 40) / 40 - 1
    assert all(sorted(each) == list(range(2, CALLS + 2)) for each in serials)


def test_who_comes_again_and_again_makes_no_more_calls_than_one_who_stays(make_front):
    front = make_front("unix all * write calls=20/min")
    answered, ended_at = 0, time.monotonic() + 3
    while time.monotonic() < ended_at:
        with session(front) as client:
            client.send(
                b"".join(client.frame(Remote.CONNECT_GET_LIB_VERSION) for _ in range(CALLS))
            )
            while select.select([client.sock], [], [], 0.2)[0] and client.receive():
                answered += 1
    assert 1 <= answered <= 18  # of one read, which nobody had paid for before


def test_a_new_file_is_for_new_sessions_until_somebody_says_otherwise(make_front):
    front = make_front("unix all * write")
    with session(front) as root, session(front, user=JOE) as joe:
        front.write("unix uid:0 * operate")
        said = front.apply()
        assert (said["rules"], said["open"], said["count"], said["done"]) == (1, 2, 2, False)
        assert [each["change"] for each in said["sessions"]] == ["changed", "refused"]
        assert works(joe)
        assert destroy_a_network(root).code != ErrorCode.ACCESS_DENIED
        with session(front, user=JOE) as late:
            assert error(late.reply).code == ErrorCode.ACCESS_DENIED
        said = front.apply("--now")
        assert (said["count"], said["done"]) == (2, True)
        assert joe.ended()
        assert destroy_a_network(root).code == ErrorCode.ACCESS_DENIED
        assert works(root)
        assert front.client()["rule"]["may"] == "operate"
        assert front.apply("--now")["count"] == 0
    front.logs("the rules changed: no rule lets it in there")


def test_who_may_do_more_than_before_may_do_so_at_once(make_front):
    front = make_front("unix all * operate")
    with session(front) as client:
        assert destroy_a_network(client).code == ErrorCode.ACCESS_DENIED
        front.write("unix all * write")
        front.apply("--now")
        assert destroy_a_network(client).code != ErrorCode.ACCESS_DENIED


@contextmanager
def opening(front, daemon, client):
    """Its session is being opened as long as the block runs: the daemon stands still."""
    client.call(Remote.AUTH_LIST)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        client.send(client.frame(Remote.CONNECT_OPEN, OpenArguments(URI, 0).pack()))
        wait_until(lambda: front.client()["uri"], SOON_S, "its session is being opened")
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("rules", "may"),
    [
        (["unix uid:0 * write"], None),
        (["unix uid:0 * write", "unix all * operate"], "operate"),
        (["unix all * read"], "read"),
        (["unix all * write sessions=1"], "write"),
    ],
)
def test_a_session_that_is_being_opened_is_held_to_the_rules_as_well(
    make_front, make_libvirtd, rules, may
):
    own = make_libvirtd()
    front = make_front("unix all * write", proxyd_routes=[f"test={own.sock}"])
    with rpc_client(front.sock, user=JOE) as joe:
        with opening(front, own, joe):
            front.write(*rules)
            front.apply("--now")
        joe.reply = joe.receive()
        if may is None:
            assert error(joe.reply).code == ErrorCode.ACCESS_DENIED
            return
        assert is_open(joe)
        told = front.client()
        assert (told["rule"]["may"], told["rule"]["text"]) == (may, rules[-1])
        assert told["readonly"] == (may == "read")
        assert works(joe)


def test_one_that_is_being_opened_goes_on_as_it_began_unless_rules_are_applied(
    make_front, make_libvirtd
):
    own = make_libvirtd()
    front = make_front("unix all * write", proxyd_routes=[f"test={own.sock}"])
    with rpc_client(front.sock, user=JOE) as joe:
        with opening(front, own, joe):
            front.write("unix uid:0 * write")
            front.apply()
        joe.reply = joe.receive()
        assert is_open(joe)


def test_a_read_only_connection_stays_one_until_the_next(make_front):
    front = make_front("unix all * read")
    with session(front) as client:
        front.write("unix all * write")
        assert front.apply("--now")["count"] == 1
        assert works(client)
        assert "read" in destroy_a_network(client).message
    with session(front) as client:
        assert "read" not in destroy_a_network(client).message.partition(":")[0]


def test_without_rules_from_now_on_everything_is_allowed(make_front):
    front = make_front("unix all * operate")
    with session(front) as client:
        assert destroy_a_network(client).code == ErrorCode.ACCESS_DENIED
        front.proxyd.configure({"proxyd_routes": routes(front)})
        said = front.apply("--now")
        assert (said["rules"], said["count"]) == (None, 1)
        assert destroy_a_network(client).code != ErrorCode.ACCESS_DENIED


def routes(front):
    for line in front.proxyd.conf.read_text().splitlines():
        if line.startswith("proxyd_routes"):
            return json.loads(line.partition("=")[2])
    raise AssertionError(front.proxyd.conf.read_text())


@pytest.mark.parametrize(
    "lines", [["unix all * wriet"], ["unix all * write", "tls nobody"], ["unix all"]]
)
def test_a_file_with_a_fault_changes_nothing(make_front, lines):
    front = make_front("unix uid:0 * write")
    front.write(*lines)
    failed = front.tries_to_apply()
    assert failed.status == 1
    assert f"{front.rules}:" in failed.stderr
    with session(front) as root, session(front, user=JOE) as joe:
        assert is_open(root)
        assert not is_open(joe)


def test_a_file_that_is_gone_changes_nothing(make_front):
    front = make_front("unix uid:0 * write")
    front.rules.unlink()
    failed = front.tries_to_apply()
    assert "No such file" in failed.stderr
    with session(front, user=JOE) as joe:
        assert not is_open(joe)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_holds_up_nothing(make_front, make):
    front = make_front("unix uid:0 * write")
    front.rules.unlink()
    make(front.rules)
    assert f"cannot load the rules: {front.rules}" in front.tries_to_apply().stderr
    front.rules.rename(front.rules.with_name("elsewhere"))
    front.write(f"unix uid:{JOE} * write")
    assert front.apply()["rules"] == 1
    with session(front, user=JOE) as joe:
        assert is_open(joe)


def test_a_file_that_everybody_may_write_is_not_obeyed(make_front):
    front = make_front("unix uid:0 * write")
    front.rules.chmod(0o666)
    failed = front.tries_to_apply()
    assert f"everybody may write {front.rules}; run: chmod o-w {front.rules}" in failed.stderr


def test_a_session_is_under_its_rule_in_the_next_process_too(make_front):
    front = make_front("unix all * operate sessions=1 calls=1000/s")
    with session(front) as client:
        before = front.client()
        for _ in range(2):
            done = front.made.upgrade()
            assert (done["moved"], done["staying"]) == (1, 0)
            assert destroy_a_network(client).code == ErrorCode.ACCESS_DENIED
        told = front.client()
        assert told["rule"] == before["rule"]
        assert told["denied_calls"] == 2
        with session(front) as second:
            assert "rule 1 allows 1 sessions" in error(second.reply).message
        front.write("unix uid:1 * write")
        assert front.apply("--now")["sessions"][0]["change"] == "refused"
        assert client.ended()


def test_who_is_being_opened_in_the_process_before_is_ended_when_rules_are_applied(
    make_front, make_libvirtd
):
    own = make_libvirtd()
    front = make_front("unix all * write", proxyd_routes=[f"test={own.sock}"])
    with rpc_client(front.sock, user=JOE) as joe, opening(front, own, joe):
        front.made.upgrade()
        front.apply("--now")
        assert joe.receive() is None
    front.logs("the rules changed: an older process may decide by others")


def children_of(pid):
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


def read_by(pid):
    """Bytes that it has read so far."""
    try:
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    except OSError:  # gone
        return 0


def test_rules_that_are_read_while_another_process_starts_are_in_force_there_too(make_front):
    # More than all else that it reads, and the reading of it takes seconds.
    front = make_front("unix all * write", *["#########"] * 1_000_000)
    size = front.rules.stat().st_size
    with subprocess.Popen(
        front.made.words("upgrade", "--json"),
        stdout=subprocess.PIPE,
        env={**os.environ, **front.made.environment},
    ) as upgrade:
        wait_until(
            lambda: any(read_by(pid) > size for pid in children_of(front.proxyd.pid)),
            SOON_S,
            "the other one has the file",
        )
        front.write("unix uid:0 * write")
        assert front.apply()["rules"] == 1
        assert upgrade.poll() is None
        front.made.took_over(json.loads(upgrade.communicate()[0])["pid"])

    def is_refused():
        with session(front, user=JOE) as joe:
            return not is_open(joe)

    wait_until(is_refused, SOON_S, "the rules of now are in force")


def test_what_is_recorded_says_which_rule(make_front, tmp_path):
    records = tmp_path / "records"
    front = make_front(
        "unix uid:0 * operate",
        f"unix uid:{JOE} * deny",
        proxyd_audit=["sessions", "changes"],
        proxyd_audit_output=f"file:{records}",
    )
    with session(front) as client:
        destroy_a_network(client)
        with session(front, user=JOE):
            pass

    def found():
        rows = [json.loads(line) for line in records.read_text().splitlines()]
        kinds = {row["event"] for row in rows}
        return rows if {"call", "session_denied"} <= kinds else None

    rows = wait_until(found, SOON_S, "records of a call and of a refusal")
    call = next(row for row in rows if row["event"] == "call")
    assert (call["procedure"], call["outcome"]) == ("NETWORK_DESTROY", "refused")
    assert (call["rule"], call["may"]) == (1, "operate")
    denied = next(row for row in rows if row["event"] == "session_denied")
    assert f"rule 2 denies it: unix uid:{JOE} * deny" in denied["reason"]
    assert (denied["rule"], denied["may"], denied["uri"]) == (2, "deny", URI)


def test_the_log_says_by_which_rule_a_session_was_opened(make_front):
    front = make_front("", "unix all * operate")
    with session(front):
        front.logs(", by rule 2 (operate)")


def test_status_says_which_rules_are_in_force(make_front):
    front = make_front("unix all * operate", "tls all * deny")
    assert front.made.status()["rules"] == {"file": str(front.rules), "count": 2}


def test_the_daemon_does_not_start_with_a_file_that_has_a_fault(make_proxyd, tmp_path):
    rules = tmp_path / "rules"
    rules.write_text("unix all * wriet\n")
    with pytest.raises(ChildProcessError) as failed:
        make_proxyd({"proxyd_rules_file": str(rules)})
    said = "".join(failed.value.__notes__)
    assert f"cannot load the rules: {rules}:1:12: expected" in said


def test_whom_two_of_libvirts_lists_keep_out_no_rule_lets_in(make_front):
    """The rules come behind whatever a door asks for."""
    front = make_front("all all * write", auth_unix_rw="sasl")
    with opened_or_not(front) as refused:
        assert refused


@contextmanager
def opened_or_not(front):
    """Whether a client is refused that does not prove who it is."""
    client = RpcClient(front.sock)
    try:
        reply = client.open(URI)
        yield reply is None or reply.header.status == Status.ERROR
    finally:
        client.close()


def test_one_that_is_open_needs_no_rule_for_what_it_does(make_front):
    front = make_front("unix all * write")
    with opened(front.sock) as client:
        front.write("unix uid:1 * write")
        front.apply()
        assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
