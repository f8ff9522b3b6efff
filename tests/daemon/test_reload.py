"""Reading the configuration again: one at a time, all of it or nothing, and never the end."""

import logging
import random
import socket
import threading
import time
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.daemon import reload
from proxyd.process.exit_status import StartFailed
from proxyd.process.systemd_notify import Notifier
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.bed.waiting import wait_until
from tests.daemon.parts import DEADLINE_S, Parts


@pytest.fixture
async def parts(tmp_path):
    made = Parts(tmp_path)
    yield made
    made.close()


@pytest.fixture
def log(caplog):
    with caplog.at_level(logging.INFO):
        yield caplog


class HeldUp:
    """Stands for a file system or a name service that hangs; `began` counts who has met it."""

    def __init__(self, monkeypatch, name):
        self.began = 0
        self.goes_on = threading.Event()
        self._usual = getattr(reload, name)
        monkeypatch.setattr(reload, name, self)

    def __call__(self, *arguments):
        self.began += 1
        assert self.goes_on.wait(DEADLINE_S)
        return self._usual(*arguments)

    async def reached(self, times=1):
        await trio.to_thread.run_sync(
            wait_until, lambda: self.began == times, DEADLINE_S, "it is held up"
        )


@pytest.fixture
def held_up(monkeypatch):
    """Reading files takes until `goes_on` is set."""
    made = HeldUp(monkeypatch, "load_checked")
    yield made
    made.goes_on.set()


async def test_what_the_file_says_is_in_force_afterwards_and_remembered(parts, log):
    before = time.time()
    parts.configure(
        "max_clients = 70\nmax_anonymous_clients = 3\nadmin_max_clients = 2\n"
        'log_filters = "1:rpc"\nproxyd_routes = [ "test=/run/t" ]'
    )

    await parts.reloader.reload()

    assert (parts.admission.max_clients, parts.admission.max_anonymous) == (70, 3)
    assert parts.admin.admission.max_clients == 2
    assert parts.in_force.routes.routes == {"test": "/run/t"}
    assert [each.pattern for each in parts.logs.filters] == ["*rpc*"]
    last = parts.reloader.last
    assert (last.succeeded, last.text) == (True, f"configuration reloaded from {parts.conf}")
    assert before <= last.at <= time.time()


async def test_nothing_is_remembered_before_the_first(parts):
    assert parts.reloader.last is None


@pytest.mark.parametrize(
    "text", ["max_clients = 0x", 'unix_sock_group = "nosuchgroup"', 'log_outputs = "1:file:/no/x"']
)
async def test_a_file_that_cannot_be_obeyed_changes_nothing_and_is_remembered(parts, log, text):
    await parts.reloader.reload()
    settings, limits = parts.in_force.settings, parts.admission.max_clients
    parts.conf.write_text(f"max_clients = 70\n{text}\n")

    await parts.reloader.reload()

    assert parts.in_force.settings is settings
    assert parts.admission.max_clients == limits
    assert not parts.reloader.last.succeeded
    assert log.messages[-1] == (
        f"reload failed, everything stays as it was: {parts.reloader.last.text}"
    )


async def test_an_error_of_our_own_does_not_end_the_daemon(parts, log, monkeypatch):
    def broken(source):
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patched:
        patched.setattr(reload, "load_checked", broken)
        await parts.reloader.reload()

    assert "a mistake" in log.text
    assert parts.reloader.last.text == "an error of proxyd's own, see the log"
    await parts.reloader.reload()
    assert parts.reloader.last.succeeded


async def test_of_a_storm_of_signals_one_is_obeyed_now_and_one_afterwards(parts, held_up, nursery):
    for _ in range(50):
        nursery.start_soon(parts.reloader.reload)
    await held_up.reached()
    for _ in range(50):
        nursery.start_soon(parts.reloader.reload)
    await wait_all_tasks_blocked(0.01)
    assert held_up.began == 1
    parts.configure("max_clients = 70")  # which the second one sees

    held_up.goes_on.set()
    with trio.fail_after(DEADLINE_S):
        while nursery.child_tasks:
            await wait_all_tasks_blocked(0.01)

    assert held_up.began == 2
    assert parts.in_force.settings.max_clients == 70


async def test_a_signal_while_certificates_wait_to_be_loaded_is_not_lost(parts, held_up, nursery):
    nursery.start_soon(parts.reloader.reload)
    await held_up.reached()
    nursery.start_soon(parts.reloader.reload_tls)
    await wait_all_tasks_blocked(0.01)
    parts.configure("max_clients = 70")
    nursery.start_soon(parts.reloader.reload)
    await wait_all_tasks_blocked(0.01)

    held_up.goes_on.set()
    with trio.fail_after(DEADLINE_S):
        while nursery.child_tasks:
            await wait_all_tasks_blocked(0.01)

    assert held_up.began == 2
    assert parts.in_force.settings.max_clients == 70


@pytest.mark.parametrize(
    ("held", "method"), [("load_checked", "reload"), ("load_tls_for", "reload_tls")]
)
async def test_a_reload_that_hangs_does_not_keep_the_daemon_from_ending(
    parts, monkeypatch, held, method
):
    hangs = HeldUp(monkeypatch, held)
    try:
        with trio.fail_after(DEADLINE_S / 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(getattr(parts.reloader, method))
                await hangs.reached()
                nursery.cancel_scope.cancel()
    finally:
        hangs.goes_on.set()
    assert parts.reloader.last is None


async def test_a_setting_that_is_built_into_the_sockets_stays_with_a_warning(parts, log):
    parts.configure('unix_sock_rw_perms = "0700"\nmax_clients = 70')

    await parts.reloader.reload()

    assert parts.in_force.settings.unix_sock_rw_perms != 0o700
    assert parts.in_force.settings.max_clients == 70
    (line,) = (text for text in log.messages if "takes a restart" in text)
    assert line.startswith("unix_sock_rw_perms has changed in the file")
    said = parts.reloader.last.text  # which status shows
    assert said.endswith("; what changed of unix_sock_rw_perms waits for a restart")


# Certificates alone


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path / "pki")


@pytest.fixture
async def secured(tmp_path, pki):
    """A daemon with a TLS listener, as far as its settings say."""
    given = pki.settings(pki.server())
    text = "listen_tls = 1\n" + "".join(f'{key} = "{path}"\n' for key, path in given.items())
    made = Parts(tmp_path, text)
    yield made
    made.close()


async def test_certificates_are_loaded_from_where_the_settings_in_force_say(secured, log):
    secured.conf.write_text("this is no configuration")  # and is not even read

    await secured.reloader.reload_tls()

    (pair,) = secured.in_force.tls.credentials.pairs
    assert "localhost" in pair.certificate.subject.rfc4514_string()
    last = secured.reloader.last
    assert (last.succeeded, last.text) == (True, "certificates loaded anew")


async def test_certificates_that_cannot_be_loaded_leave_the_old_ones_in_force(secured, pki, log):
    await secured.reloader.reload_tls()
    old = secured.in_force.tls
    pki.ca_file.write_text("no certificate")

    with pytest.raises(StartFailed) as failed:
        await secured.reloader.reload_tls()

    assert secured.in_force.tls is old
    last = secured.reloader.last
    assert (last.succeeded, last.text) == (False, str(failed.value))
    assert str(pki.ca_file) in last.text
    assert log.messages[-1].startswith("certificates not loaded, those in force stay: ")


# ---- what systemd hears


class ServiceManager:
    """systemd as it is towards a service of Type=notify-reload (src/core/service.c)."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(address)
        self.notifier = Notifier(address)
        self.state = "running"
        self._began_usec = 0

    def signals(self):
        """`systemctl reload`: what it waits for must not be older than this."""
        assert self.state == "running"
        self.state = "signalled"
        self._began_usec = time.monotonic_ns() // 1000

    def hear(self):
        """The first words of what has come."""
        heard = []
        with suppress(BlockingIOError):
            while True:
                fields = dict(
                    line.split("=") for line in self.socket.recv(65536).decode().splitlines()
                )
                heard.append(next(iter(fields)))
                self._heed(fields)
        return heard

    def _heed(self, fields):
        if "READY" in fields:
            if self.state == "reloading":
                self.state = "running"
        elif self.state == "running" or int(fields["MONOTONIC_USEC"]) >= self._began_usec:
            self.state = "reloading"

    def close(self):
        self.notifier.close()
        self.socket.close()


class Outstanding:
    """Reloads that were asked for; `done` counts those that are over."""

    def __init__(self, parts, nursery):
        self.reloader = parts.reloader
        self.nursery = nursery
        self.asked = self.done = 0

    @property
    def count(self):
        return self.asked - self.done

    def ask(self, method):
        self.asked += 1
        self.nursery.start_soon(self._carry_out, method)

    async def _carry_out(self, method):
        await method()
        self.done += 1


@pytest.fixture
def manager():
    with short_directory() as directory:
        made = ServiceManager(str(directory / "notify"))
        yield made
        made.close()


class OneByOne:
    """Stands for reading files: each takes until it is let through."""

    def __init__(self, monkeypatch):
        self._gate = threading.Semaphore(0)
        for name in ("load_checked", "load_tls_for"):
            monkeypatch.setattr(reload, name, self._held(getattr(reload, name)))
        self._within = False

    def _held(self, usual):
        def held(*arguments):
            if usual.__name__ == "load_tls_for" and self._passed():
                return usual(*arguments)  # the second half of a whole reload
            assert self._gate.acquire(timeout=DEADLINE_S)
            self._within = usual.__name__ == "load_checked"
            return usual(*arguments)

        return held

    def _passed(self):
        within, self._within = self._within, False
        return within

    def let_through(self):
        self._gate.release()


@pytest.fixture
async def managed(tmp_path, manager):
    made = Parts(tmp_path, notifier=manager.notifier)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(20))
async def test_however_reloads_overlap_systemd_is_told_of_their_end_once(
    managed, manager, monkeypatch, nursery, seed
):
    """Signals of systemd's, of somebody else's, and update-tls, in any order, ending one by one."""
    held = OneByOne(monkeypatch)
    outstanding = Outstanding(managed, nursery)
    chance = random.Random(seed)

    async def end_one():
        over = outstanding.done
        held.let_through()
        await trio.to_thread.run_sync(
            wait_until, lambda: outstanding.done > over, DEADLINE_S, "one is over"
        )

    def ask_as_systemd():
        manager.signals()
        outstanding.ask(managed.reloader.reload)

    steps = [chance.choice(["ask", "ask", "update-tls", "end", "end", "end"]) for _ in range(15)]
    for what in (*steps, *["end"] * len(steps)):
        before = outstanding.count
        if what == "end" and before:
            await end_one()
        elif what == "update-tls":
            outstanding.ask(managed.reloader.reload_tls)
        elif what == "ask" and manager.state == "running" and chance.random() < 0.7:
            ask_as_systemd()
        elif what == "ask":
            outstanding.ask(managed.reloader.reload)
        await wait_all_tasks_blocked(0.001)
        heard = manager.hear()
        assert manager.state == ("reloading" if outstanding.count else "running")
        assert heard.count("READY") == (not outstanding.count and before > 0)
    assert outstanding.asked == outstanding.done > 0
