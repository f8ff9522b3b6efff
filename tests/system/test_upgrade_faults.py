"""Whatever goes wrong with an upgrade: the old process goes on, or the new one with what it has.

The steps at which it goes wrong are those that an upgrade without a fault has come by
(tests/bed/faulty.py), so that a new one has its fault without anybody thinking of it.
"""

import json
import os
import re
import signal
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from proxyd.process.sockets import all_pids, command_line
from tests.bed.command import held_open
from tests.bed.daemon import short_directory
from tests.bed.faulty import DIRECTORY
from tests.bed.frozen import sockets_of, wait_until_still
from tests.bed.pingpong import Sessions, Visitors
from tests.bed.proxyd import Proxyd
from tests.bed.sasl import SERVICE
from tests.bed.upgrading import lives, upgrading
from tests.bed.waiting import wait_until
from tests.fakes.moody_daemon import MoodyDaemon
from tests.system.sasl_client import by_gssapi

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]
SESSIONS = 4
SHORTAGES = ("EMFILE", "ENOMEM")
# Less than what it is, for processes that are stopped. A start takes half a second, and on a busy
# machine ten times that: who is stopped for STOPPED_S needs no short patience with a start.
IMPATIENT = {"READY_S": 4, "TAKEN_S": 1, "SILENT_S": 1}
STOPPED = {"READY_S": 20, "TAKEN_S": 3, "SILENT_S": 3}
STOPPED_S = 3.5
GIVEN = re.compile(r"it had gone on in process|goes on in process")


@pytest.fixture(scope="module")
def keytab(kdc):
    return kdc.keytab(SERVICE)


@pytest.fixture(scope="module")
def tickets(kdc):
    return kdc.tickets("joe")


class Scene:
    """A proxyd that can be told to fail, before a daemon that gives back what it gets."""

    def __init__(self, stack, kdc, keytab, tickets, *, sessions=SESSIONS, **options):
        self._stack = stack
        self.directory = stack.enter_context(short_directory())
        path = self.directory / "moody"
        stack.enter_context(MoodyDaemon(path))
        config = {
            "proxyd_routes": [f"test={path}"],
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "proxyd_keytab": str(keytab),
        }
        environment = {
            **kdc.environment,
            DIRECTORY: str(self.directory),
            "PYTHONPATH": str(REPOSITORY),
        }
        options = {"program": ("-m", "tests.bed.faulty"), **options}
        self.proxyd = Proxyd(
            stack.enter_context(short_directory()),
            backend_dir=self.directory,
            config=config,
            environment=environment,
            **options,
        )
        self.tickets = tickets
        self.sessions = Sessions()
        self.begin()
        self.sessions.open_by(self.proxyd.sock, sessions)
        self.open_by_kerberos()
        stack.callback(self.sessions.stop)
        self.sockets = wait_until_still(self.proxyd)
        self.visitors = Visitors(self.proxyd.sock)
        stack.callback(self.end_visits)

    def end_visits(self):
        self.visitors.stop()

    def begin(self):
        """Starts it, or another one in its place."""
        self.proxyd.log.unlink(missing_ok=True)
        self.proxyd.start()
        self._stack.callback(self.proxyd.daemon.kill)
        self.front = self._stack.enter_context(upgrading(self.proxyd))

    def open_by_kerberos(self):
        client = self._stack.enter_context(by_gssapi(self.proxyd.tcp_address(), self.tickets))
        self.kerberos = self.sessions.open(client)

    def plan(self, **plan):
        (self.directory / "plan").write_text(json.dumps(plan))

    def steps(self, side, pid):
        return (self.directory / f"{side}.{pid}").read_text().splitlines()

    def started(self):
        """The new processes so far."""
        return {int(each.suffix[1:]) for each in self.directory.glob("new.*")}

    def processes(self):
        """All that live, whoever their parent is."""
        told = [str(self.proxyd.conf), "tests.bed.faulty"]
        return [pid for pid in all_pids() if {*told} <= {*command_line(pid)} and lives(pid)]

    def names(self, pid):
        """Whether the pid file does, which may be missing for a moment."""
        path = self.proxyd.daemon.pid_file
        return path.exists() and path.read_text() == str(pid)

    def serving(self, known):
        """The new process whom the pid file names, of others than those."""
        return {pid for pid in self.started() - known if self.names(pid)}

    @property
    def given(self):
        """How many sessions have been given away whole so far."""
        return len(GIVEN.findall(self.proxyd.log_text()))

    def gone_on_in(self, pid):
        """How many sessions that process has taken up."""
        pattern = rf": {pid}: info : [^ ]* : session [0-9]+ goes on here"
        return len(re.findall(pattern, self.proxyd.log_text()))

    def refill(self, lost):
        """Others come for those who are gone."""
        for each in lost:
            if each is self.kerberos:
                self.open_by_kerberos()
            else:
                self.sessions.open_by(self.proxyd.sock, 1)


def children_of(pid):
    return {
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    }


@pytest.fixture(scope="module")
def make_scene_of_upgrades(kdc, keytab, tickets):
    """make_scene_of_upgrades(stack, sessions=1): ends with the stack."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(kdc.config))
        yield partial(Scene, kdc=kdc, keytab=keytab, tickets=tickets)


@pytest.fixture
def scene(make_scene_of_upgrades):
    with ExitStack() as stack:
        yield make_scene_of_upgrades(stack)


@pytest.fixture(scope="module")
def steps(make_scene_of_upgrades):
    """Those of each side up to where the new process is the daemon, and no further."""
    with ExitStack() as stack:
        scene = make_scene_of_upgrades(stack)
        scene.plan()
        old = scene.front.pid
        done = scene.front.upgrade()
        assert scene.sessions.go_on() == []
        scene.visitors.are_served()
        assert scene.visitors.closed == scene.visitors.cut == []
        found = {"old": scene.steps("old", old), "new": scene.steps("new", done["pid"])}
    # That somebody has left meanwhile is told, or there is nothing to be told.
    always = {side: [each for each in found[side] if "gone" not in each] for side in found}
    return {
        "old": always["old"][: always["old"].index("has said finished")],
        "new": always["new"][: always["new"].index("has said has") + 1],
    }


@pytest.fixture
def told(capsys):
    def told(text):
        with capsys.disabled():
            print(f"\n{text}")

    return told


def chosen(steps, request):
    """All with --run-long, else a quarter of what is said and heard and of the kernel's calls."""
    if request.config.getoption("--run-long"):
        return steps
    return [each for each in steps if ".py:" not in each][::4]


def attempted(scene, side, step, fault, **more):
    """An upgrade with this fault: what the command said, and whether it happened all the same."""
    scene.plan(side=side, step=step, fault=fault, **more)
    done = scene.front.command("upgrade", "--json")
    assert done.status in (0, 1), (step, done)
    if done.status == 0:
        pid = json.loads(done.stdout)["pid"]
        wait_until(lambda: scene.names(pid), 10, f"{step}: the pid file names it")
        scene.front.took_over(pid)
    return done


def check_all_is_well(scene, step, given):
    """One process serves, and all go on whom it has not given away whole. Returns who was lost."""
    front = scene.front
    assert front.named_pid() == front.pid, step
    lost = scene.sessions.go_on()
    assert len(lost) <= scene.given - given, (step, [each.error for each in lost])
    scene.visitors.are_served()
    assert scene.visitors.closed == [], step
    for pid in scene.started() - {front.pid}:
        front.gone(pid)
    return lost


def check_nothing_is_left(scene, *, of_first=True):
    """Neither descriptors nor processes nor places, and an upgrade works."""
    front = scene.front
    scene.visitors.are_served()
    scene.visitors.stop()
    if of_first:
        wait_until(lambda: sockets_of(scene.proxyd) <= scene.sockets, 20, "its sockets are closed")
    assert not front.proxyd.daemon.pid_file.with_name("pid.new").exists()
    wait_until(lambda: not zombies_of(front.pid), 20, "its children are buried")
    scene.plan()
    front.upgrade()
    assert scene.sessions.go_on() == []
    count = len(scene.sessions.all)
    wait_until(lambda: len(front.clients()) == count, 10, "nobody else is here")
    assert front.status()["limits"]["clients"] == count


def zombies_of(pid):
    return [child for child in children_of(pid) if not lives(child)]


def test_a_new_process_that_is_killed_costs_nothing_that_it_did_not_have(
    scene, steps, request, told
):
    old, lost = scene.front.pid, 0
    tried = chosen(steps["new"], request)
    for step in tried:
        given = scene.given
        done = attempted(scene, "new", step, "SIGKILL")
        assert done.status == 1, step
        assert f"process {old} goes on to serve" in done.stderr, (step, done.stderr)
        gone = check_all_is_well(scene, step, given)
        lost += len(gone)
        scene.refill(gone)
    told(f"{len(tried)} steps; {lost} sessions had been given and ended with their process")
    check_nothing_is_left(scene)


def test_what_a_dead_process_has_given_goes_on_in_the_new_one(scene, steps, request, told):
    tried, served, kept, lost = chosen(steps["old"], request), 0, 0, 0
    for step in tried:
        old, known = scene.front.pid, scene.started()
        scene.plan(side="old", step=step, fault="SIGKILL")
        done = scene.front.command("upgrade", "--json")
        assert done.status == 1, step
        assert "closed the connection; look at its log" in done.stderr, (step, done.stderr)
        scene.front.gone(old)
        offered = step in steps["old"][steps["old"].index("has said offer") :]
        if offered:  # it has the sockets: nobody meets a closed door
            wait_until(lambda known=known: scene.started() - known, 20, f"{step}: it has begun")
        # Else with the sockets, perhaps, and a part of the offer, or before it has looked for it;
        # and a step that is come by often may have come later than when they were recorded.
        wait_until(
            lambda known=known, gave=offered: (
                scene.serving(known) or not (gave or scene.processes())
            ),
            20,
            f"{step}: it serves, or nobody is left",
        )
        offered = bool(scene.serving(known))
        if offered:
            (pid,) = scene.serving(known)
            scene.front.took_over(pid)
            scene.visitors.are_served()
            assert scene.visitors.closed == [], step
            served += 1
        gone = scene.sessions.go_on()
        here = scene.gone_on_in(scene.front.pid) if offered else 0
        at_most_a_visitor = here - len(scene.sessions.all)
        assert at_most_a_visitor in (0, 1), (step, here, [each.error for each in gone])
        if not offered:
            scene.end_visits()
            scene.begin()
            scene.visitors = Visitors(scene.proxyd.sock)
        kept, lost = kept + len(scene.sessions.all), lost + len(gone)
        scene.refill(gone)
        scene.visitors.closed.clear()
    told(f"{len(tried)} steps, {served} successors; {kept} sessions went on, {lost} died with it")
    assert served > len(tried) / 2
    assert kept
    check_nothing_is_left(scene, of_first=False)


@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("side", ["old", "new"])
def test_whatever_call_fails_costs_no_session(scene, steps, side, shortage, request, told):
    calls = chosen([each for each in steps[side] if each.startswith("system call")], request)
    happened = 0
    for step in calls:
        given = scene.given
        done = attempted(scene, side, step, shortage)
        if done.status:
            assert "goes on to serve" in done.stderr, (step, done.stderr)
            assert "silent for" not in done.stderr, (step, done.stderr)
            lost = check_all_is_well(scene, step, given)
            scene.refill(lost)
        else:
            happened += 1
            assert scene.sessions.go_on() == [], step
            check_all_is_well(scene, step, scene.given)
        assert "Traceback" not in scene.proxyd.daemon.output.read_text(), step
    told(f"{side}, {shortage}: {len(calls)} calls, {happened} upgrades happened all the same")
    check_nothing_is_left(scene, of_first=not happened)


def said_and_heard(steps):
    return [each for each in steps if each.startswith(("about", "heard"))]


def test_a_new_process_that_hangs_is_given_up(scene, steps, request, told):
    old, lost = scene.front.pid, 0
    tried = chosen(said_and_heard(steps["new"]), request)
    for step in tried:
        given = scene.given
        done = attempted(scene, "new", step, "SIGSTOP", patience=IMPATIENT)
        assert done.status == 1, step
        assert f"process {old} goes on to serve" in done.stderr, step
        assert "silent for" in done.stderr, (step, done.stderr)
        gone = check_all_is_well(scene, step, given)
        lost += len(gone)
        scene.refill(gone)
    told(f"{len(tried)} steps; {lost} sessions had been given")
    check_nothing_is_left(scene)


def test_an_old_process_that_was_stopped_for_long_goes_on_with_it(scene, steps, request):
    for step in chosen(said_and_heard(steps["old"]), request):
        old = scene.front.pid
        scene.plan(side="old", step=step, fault="SIGSTOP", patience=STOPPED)
        with held_open(scene.front.words("upgrade", "--json")) as asking:
            wait_until(lambda old=old: " T" in stat_of(old), 20, f"{step}: it is stopped")
            threading.Event().wait(STOPPED_S)  # which is what is tried
            os.kill(old, signal.SIGCONT)
            out, _ = asking.communicate(timeout=60)
        assert asking.returncode == 0, step
        scene.front.took_over(json.loads(out)["pid"])
        assert scene.sessions.go_on() == [], step
        check_all_is_well(scene, step, scene.given)
    assert scene.visitors.cut == []


def stat_of(pid):
    return "".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2:])[:2]
