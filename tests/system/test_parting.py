"""The daemon outlives its clients: they die in the midst of transfers, and it does not notice.

Connected directly, such clients take libvirt's daemons down (docs/protocol/closing.md, section 3).
"""

import json
import operator
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest

from tests.bed.command import run_to_end
from tests.bed.daemon import descriptors, short_directory, status_field
from tests.bed.dying import ENDS, STAGES, URI, Mortal, deaths, pool_of, volumes_of
from tests.bed.kdc import Kdc
from tests.bed.libvirtd import Libvirtd
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.sasl import SERVICE
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened
from tests.system.sasl_client import by_gssapi
from tests.system.tls_client import opened_over_tls

pytestmark = pytest.mark.system

MOST_DIRECT = 400
FEW = 270
MANY = 5000
ANSWERS_S = 20.0
HANGS_S = 5.0
BUSY = 50
# From the start, so that threads can be counted.
ALL_WORKERS = {"min_workers": 20, "max_workers": 20, "prio_workers": 5}


@contextmanager
def opened_directly(path):
    """Also at a daemon that is dying just now."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.fspath(path))
        client = RpcClient(sock)
        sock.settimeout(HANGS_S)
        reply = client.open(URI)
        if reply is None:
            raise ConnectionResetError
        yield client


class Scene:
    """A daemon of one's own with its pool, and a proxyd before it with every way in."""

    def __init__(self, stack, tmp_path, config=None):
        self.backend = stack.enter_context(
            Libvirtd(stack.enter_context(short_directory()), config=ALL_WORKERS)
        )
        stack.enter_context(pool_of(self.backend, tmp_path))
        directory = stack.enter_context(short_directory())
        self.backend.serve_as(directory, "virtqemud", "virtstoraged")
        kdc = stack.enter_context(Kdc(stack.enter_context(short_directory())))
        kdc.add("joe", SERVICE)
        pki_directory = tmp_path / "pki"
        pki_directory.mkdir()
        pki = Pki(pki_directory)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("KRB5_CONFIG", str(kdc.config))
        self.front = Proxyd(
            stack.enter_context(short_directory()),
            backend_dir=directory,
            config={
                "listen_addr": "127.0.0.1",
                "listen_tls": 1,
                "tls_port": "0",
                **pki.settings(pki.server()),
                "listen_tcp": 1,
                "tcp_port": "0",
                "proxyd_keytab": str(kdc.keytab(SERVICE)),
                "max_anonymous_clients": 0,
                **(config or {}),
            },
            environment=kdc.environment,
        )
        self.front.start()
        stack.callback(self.front.stop)
        self.pid = self.backend.pid
        direct = partial(opened_directly, self.backend.sock)
        volumes = volumes_of(direct)
        self.direct = Mortal(direct, volumes)
        tickets, pkipath = kdc.tickets("joe"), pki.client()
        self.ways = [
            Mortal(partial(opened, self.front.sock, URI), volumes),
            Mortal(lambda: opened_over_tls(self.front.tls_address(), pkipath, URI), volumes),
            Mortal(lambda: by_gssapi(self.front.tcp_address(), tickets, URI), volumes),
        ]

    def answers(self):
        """Whether the daemon is the one that was started, and does what it should."""
        if not self.backend.daemon.running:
            return False
        command = ["virsh", "-c", unix_uri(URI, self.backend.sock), "vol-list", "dying"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=ANSWERS_S, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0 and b"source" in done.stdout

    def status(self):
        command = [sys.executable, "-m", "proxyd", "status", "--json", "--no-probe"]
        done = run_to_end([*command, "-s", str(self.front.directory)], deadline_s=30)
        return json.loads(done.stdout)

    def partings(self):
        """How many there are, and how those before ended."""
        (found,) = (each for each in self.status()["backends"] if each["daemon"] == "virtqemud")
        ended = dict(found["partings"])
        return ended.pop("now"), ended

    def figures(self):
        """Of the daemon."""
        return len(descriptors(self.pid)), status_field(self.pid, "Threads")

    def come_to_rest(self, before):
        """Until nothing of any client is left, at proxyd and at the daemon."""
        wait_until(lambda: self.status()["relay"]["sessions"] == 0, 60, "the sessions are over")
        wait_until(lambda: self.partings()[0] == 0, 60, "the partings are over")
        try:
            wait_until(
                lambda: all(map(operator.le, self.figures(), before)), 60, "the daemon is as before"
            )
        except TimeoutError as error:
            error.add_note(f"{before} were {self.figures()}: {descriptors(self.pid)}")
            raise


@pytest.fixture
def make_scene_of(tmp_path):
    with ExitStack() as stack:
        yield partial(Scene, stack, tmp_path)


@pytest.fixture
def a_scene(make_scene_of):
    made = make_scene_of()
    # Whatever it opens once.
    assert deaths([made.ways[0]], 36, seed=0, at_a_time=8) == []
    return made


def test_a_direct_client_that_dies_takes_the_daemon_with_it(make_scene_of, capsys):
    """Otherwise nothing below shows anything."""
    made = make_scene_of()
    began, died = time.monotonic(), 0
    while died < MOST_DIRECT and made.answers():
        deaths([made.direct], 18, seed=died, until=1)
        died += 18
    how = "hangs" if made.backend.daemon.running else f"ended with {made.backend.daemon.status}"
    with capsys.disabled():
        print(f"\nafter at most {died} deaths, {time.monotonic() - began:.0f} s: it {how}")
    gone = not made.answers()
    made.backend.kill()
    assert gone


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
def test_through_proxyd_it_outlives_them(a_scene, count, capsys):
    before = a_scene.figures()
    began = time.monotonic()
    wrong = deaths(a_scene.ways, count, seed=1)
    took_s = time.monotonic() - began
    assert a_scene.answers(), a_scene.backend.daemon.story()
    assert wrong == []
    a_scene.come_to_rest(before)
    _, ended = a_scene.partings()
    with capsys.disabled():
        print(f"\n{count} deaths in {took_s:.0f} s, partings: {ended}")
    assert ended["orderly"] >= count / 2
    assert ended["overdue"] == ended["displaced"] == ended["cut_off"] == 0
    assert a_scene.backend.pid == a_scene.pid
    assert "Traceback" not in a_scene.front.log_text()


@pytest.mark.parametrize("end", ENDS)
def test_each_stage_and_end_with_and_without_calls(a_scene, end):
    rng = random.Random(end)
    for way in a_scene.ways:
        for stage in STAGES:
            for calls in (0, 2):
                way.die(rng, stage, end, calls=calls, streams=1)
    assert a_scene.answers(), a_scene.backend.daemon.story()


def test_virsh_that_is_killed(a_scene, tmp_path):
    """As in "timeout -s KILL 0.2 virsh vol-download", over and over."""
    before = a_scene.figures()
    uri = unix_uri(URI, a_scene.front.sock)
    commands = ["vol-download source /dev/null", f"vol-upload target {tmp_path / 'source'}"]
    for number in range(24):
        command = ["virsh", "-c", uri, *commands[number % 2].split(), "--pool", "dying"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
            with suppress(subprocess.TimeoutExpired):
                client.wait(0.05 + number / 200)
            client.kill()
    assert a_scene.answers(), a_scene.backend.daemon.story()
    a_scene.come_to_rest(before)


class Transfers:
    """Downloads and uploads by virsh that go on and on."""

    def __init__(self, made, tmp_path, stack):
        uri = unix_uri(URI, made.front.sock)
        commands = ["vol-download source /dev/null", f"vol-upload target {tmp_path / 'source'}"]
        loop = 'while "$@"; do :; done'
        self.running = [
            subprocess.Popen(
                ["sh", "-c", loop, "sh", "virsh", "-c", uri, *each.split(), "--pool", "dying"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for each in commands * (BUSY // 2)
        ]
        stack.callback(self.stop)

    def stop(self):
        for each in self.running:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()


@pytest.fixture
def transfers(tmp_path):
    with ExitStack() as stack:
        yield lambda made: Transfers(made, tmp_path, stack)


def clients(made):
    command = [sys.executable, "-m", "proxyd", "clients", "--json", "-s", str(made.front.directory)]
    found = json.loads(run_to_end(command, deadline_s=30).succeeded())
    return [each["id"] for each in found if each["bytes_up"] + each["bytes_down"] > 100_000]


def test_kick_amid_transfers(a_scene, transfers):
    before = a_scene.figures()
    running = transfers(a_scene)
    kicked = 0
    while kicked < 2 * BUSY:
        found = [str(each) for each in clients(a_scene)]
        if found:
            command = [sys.executable, "-m", "proxyd", "kick", *found]
            run_to_end([*command, "-s", str(a_scene.front.directory)], deadline_s=30)
            kicked += len(found)
        if all(each.poll() is not None for each in running.running):
            running.stop()
            break
    running.stop()
    assert a_scene.answers(), a_scene.backend.daemon.story()
    a_scene.come_to_rest(before)


@pytest.mark.parametrize("drain_s", [0, 2])
def test_stopping_amid_transfers(make_scene_of, transfers, drain_s):
    made = make_scene_of({"proxyd_drain_timeout": drain_s})
    deaths([made.ways[0]], 36, seed=0, at_a_time=8)
    before = made.figures()
    running = transfers(made)
    wait_until(lambda: len(clients(made)) > BUSY // 2, 60, "transfers are under way")
    made.front.daemon.send(signal.SIGTERM)
    assert made.front.daemon.wait(drain_s + 15) == 0
    running.stop()
    assert made.answers(), made.backend.daemon.story()
    wait_until(
        lambda: all(map(operator.le, made.figures(), before)), 60, f"it is as before: {before}"
    )
    assert "cut off" not in made.front.log_text().replace("(proxyd_drain_timeout): cut off", "")


def test_an_upload_that_is_refused_ends_no_later_than_directly(
    make_libvirtd, make_proxyd, tmp_path
):
    """The daemons may crash over it by themselves, directly as well: each way has its own."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 20))
    took = {}
    for way in ("direct", "through"):
        pool = tmp_path / way
        pool.mkdir()
        (pool / "small").write_bytes(bytes(5000))
        backend = make_libvirtd()
        uri = unix_uri(URI, backend.sock)
        begin = f"capabilities; pool-define-as small dir --target {pool}; pool-start small"
        virsh(uri, begin).succeeded()
        with short_directory() as directory:
            backend.serve_as(directory, "virtqemud", "virtstoraged")
            if way == "through":
                uri = unix_uri(URI, make_proxyd(backend_dir=directory).sock)
            command = f"vol-upload small {file} --pool small --offset 1000000 --length 5000"
            began = time.monotonic()
            virsh(uri, command)
            took[way] = time.monotonic() - began
    assert took["through"] <= took["direct"] + 1, took
