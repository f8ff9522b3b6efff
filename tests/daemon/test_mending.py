"""What is broken of a way in is tried again, told each hour, and served as soon as it can be."""

import logging
import socket
from contextlib import ExitStack
from dataclasses import replace

import pytest
import trio
import trio.testing

from proxyd.config.transports import Transport
from proxyd.daemon import mending
from proxyd.daemon.entrances import attempted, load_offerings, load_tls_for, open_ports
from proxyd.daemon.ways import Part, Trouble
from proxyd.sasl.passwords import PasswordFile
from tests.bed.pki import Pki
from tests.daemon.parts import Parts

HOUR_S = 3600


class Broken:
    """The parts of a daemon whose ways in are as its file and this host make them."""

    def __init__(self, directory, text, clock):
        self.parts = Parts(directory)
        self.clock = clock
        self.parts.configure(text)
        loaded = self.parts.options.source.load()
        self.given_back = []
        places = self.parts.options.places
        tls = attempted(
            lambda: load_tls_for(loaded.settings, places), Transport.TLS, Part.CERTIFICATES
        )
        offerings, troubles = load_offerings(loaded.settings, places)
        stack = ExitStack()
        ports, unopened = open_ports(loaded.settings, stack)
        self.given_back.append(stack)
        if isinstance(tls, Trouble):
            troubles, tls = [tls, *troubles], None
        self.parts.put_in_force(
            settings=loaded.settings,
            at_start=loaded.settings,
            tls=tls,
            offerings=offerings,
            listeners=ports,
            troubles=(*troubles, *unopened),
        )
        self.served = []
        self.parts.reloader.opened = self._opened
        self.parts.reloader.on_change = self.parts.made.mender.look

    def _opened(self, ports, given_back):
        self.given_back.append(given_back)
        self.served += [each.door.name for each in ports]

    @property
    def troubles(self):
        return [(each.transport, each.part) for each in self.parts.in_force.troubles]

    async def after(self, seconds, *, step=1):
        """Lets the time pass, and what is due be done."""
        for _ in range(seconds // step):
            self.clock.jump(step)
            await trio.testing.wait_all_tasks_blocked()
            async with self.parts.reloader.meanwhile():
                pass
            await trio.testing.wait_all_tasks_blocked()

    def close(self):
        for each in self.given_back:
            each.close()
        self.parts.close()


@pytest.fixture
def make(tmp_path, mock_clock, nursery):
    made = []

    async def broken(text):
        each = Broken(tmp_path, text, mock_clock)
        made.append(each)
        nursery.start_soon(each.parts.made.mender.run)
        await trio.testing.wait_all_tasks_blocked()
        return each

    yield broken
    for each in made:
        each.close()


@pytest.fixture
def taken():
    """A port of ours that somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other


def tcp(port):
    return f'listen_tcp = 1\nauth_tcp = "none"\nlisten_addr = "127.0.0.1"\ntcp_port = "{port}"\n'


def port_of(sock):
    return sock.getsockname()[1]


async def test_a_port_that_becomes_free_is_served(make, mock_clock, taken, caplog):
    broken = await make(tcp(port_of(taken)))
    assert broken.troubles == [(Transport.TCP, Part.PORT)]
    await broken.after(10)
    assert broken.served == []
    where = f"tcp 127.0.0.1:{port_of(taken)}"
    taken.close()

    await broken.after(10)

    assert broken.served == [where]
    assert broken.troubles == []
    assert [door.name for _, door in broken.parts.in_force.listeners] == [where]
    assert "clients by TCP are served again" in caplog.messages


async def test_it_is_told_each_hour_and_not_at_each_try(make, mock_clock, taken, caplog):
    broken = await make(tcp(port_of(taken)))
    with caplog.at_level(logging.WARNING):
        await broken.after(3 * HOUR_S, step=100)
    told = [line for line in caplog.messages if line.startswith("clients by TCP are not served")]
    assert len(told) in {2, 3}
    assert f"127.0.0.1:{port_of(taken)} is in use" in told[0]


async def test_it_is_told_anew_when_the_reason_is_another_one(make, mock_clock, taken, caplog):
    broken = await make(tcp(port_of(taken)))
    since = broken.parts.in_force.troubles[0].since
    settings = replace(broken.parts.in_force.settings, listen_addr="")
    broken.parts.put_in_force(settings=settings)
    await broken.after(5)
    assert "expected listen_addr to be an address" in caplog.messages[-1]
    assert broken.parts.in_force.troubles[0].since == since


async def test_certificates_that_come_late_are_loaded(make, mock_clock, tmp_path, caplog):
    pki = Pki(tmp_path / "pki")
    given = pki.settings(pki.server())
    away = tmp_path / "away"
    pki.ca_file.rename(away)
    files = "".join(f'{key} = "{path}"\n' for key, path in given.items())
    broken = await make('listen_tls = 1\ntls_port = "0"\nlisten_addr = "127.0.0.1"\n' + files)
    assert broken.troubles == [(Transport.TLS, Part.CERTIFICATES)]
    (listener,) = broken.parts.in_force.listeners
    assert broken.parts.current.trouble_of(listener.door) is not None
    away.rename(pki.ca_file)

    await broken.after(3)

    assert broken.parts.current.trouble_of(listener.door) is None
    assert broken.parts.in_force.tls is not None


async def test_passwords_that_come_late_are_offered(make, mock_clock, tmp_path):
    broken = await make('auth_unix_rw = "sasl"\nproxyd_sasl_mechanisms = [ "SCRAM-SHA-256" ]\n')
    assert broken.troubles == [(Transport.UNIX, Part.SASL)]
    PasswordFile(str(tmp_path / "passwords")).set_password("joe", "sesame")

    await broken.after(3)

    assert broken.troubles == []
    assert broken.parts.in_force.offerings[Transport.UNIX].names == ("SCRAM-SHA-256",)


async def test_an_error_of_our_own_is_no_end_of_it(make, mock_clock, taken, monkeypatch, caplog):
    broken = await make(tcp(port_of(taken)))

    def mistake(*_):
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patched:
        patched.setattr(mending, "open_ports", mistake)
        await broken.after(10)
    assert "a mistake" in caplog.text
    taken.close()
    await broken.after(60)
    assert broken.troubles == []


async def test_a_reload_tries_again_what_is_broken_with_what_the_file_says_now(
    make, mock_clock, taken
):
    broken = await make(tcp(port_of(taken)))
    broken.parts.configure(tcp(0) + "max_clients = 70\n")

    await broken.parts.reloader.reload()

    assert broken.parts.reloader.last.succeeded
    assert len(broken.served) == 1
    assert broken.troubles == []
    assert broken.parts.in_force.settings.max_clients == 70


async def test_a_reload_may_find_it_still_broken_and_changes_the_rest(make, mock_clock, taken):
    broken = await make(tcp(port_of(taken)))
    broken.parts.configure(tcp(port_of(taken)) + "max_clients = 70\n")

    await broken.parts.reloader.reload()

    assert broken.parts.reloader.last.succeeded
    assert broken.troubles == [(Transport.TCP, Part.PORT)]
    assert broken.parts.in_force.settings.max_clients == 70


async def test_a_way_that_the_file_no_longer_asks_for_is_no_trouble_any_more(
    make, mock_clock, taken, caplog
):
    broken = await make(tcp(port_of(taken)))
    broken.parts.configure("listen_tcp = 0\n")

    await broken.parts.reloader.reload()

    assert broken.troubles == []
    assert not broken.parts.in_force.settings.listen_tcp
    assert not [line for line in caplog.messages if "takes a restart" in line]


async def test_what_breaks_only_now_changes_nothing(make, mock_clock, tmp_path):
    pki = Pki(tmp_path / "pki")
    given = pki.settings(pki.server())
    files = "".join(f'{key} = "{path}"\n' for key, path in given.items())
    text = 'listen_tls = 1\ntls_port = "0"\nlisten_addr = "127.0.0.1"\n' + files
    broken = await make(text)
    assert broken.troubles == []
    pki.ca_file.unlink()
    broken.parts.configure(text + "max_clients = 70\n")

    await broken.parts.reloader.reload()

    assert not broken.parts.reloader.last.succeeded
    assert str(pki.ca_file) in broken.parts.reloader.last.text
    assert broken.parts.in_force.settings.max_clients != 70
    assert broken.troubles == []
