import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from loadtest import kerberos
from loadtest.client import Opening
from loadtest.credentials import Credentials
from loadtest.targets import parse_target
from proxyd.sasl.passwords import PasswordFile
from tests.bed.daemon import short_directory
from tests.bed.kdc import Kdc
from tests.bed.libvirtd import Libvirtd
from tests.bed.proxyd import Proxyd
from tests.bed.sasl import SERVICE
from tests.bed.virsh import unix_uri, virsh
from tests.loadtest.fake_daemon import FakeDaemon, Script
from tests.loadtest.fake_tls import FakeTcpDaemon, FakeTlsDaemon, server_context
from tests.loadtest.minting import Pki

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse, battery"


@pytest.fixture
def socket_paths():
    """New paths, short enough for a socket address whatever the test is called."""
    with tempfile.TemporaryDirectory(prefix="lt-") as directory:
        yield (Path(directory) / f"s{number}" for number in itertools.count())


@pytest.fixture
def opening():
    return Opening("test:///default", readonly=False, wait_s=10)


@pytest.fixture
def start_fake(socket_paths):
    """Starts a fake in a thread of this process; gives its script and `unix:PATH`."""
    with ExitStack() as running:

        def start(**behaviour):
            path, script = next(socket_paths), Script(**behaviour)
            running.enter_context(FakeDaemon(path, script))
            return script, f"unix:{path}"

        yield start


@pytest.fixture
def fake_target(start_fake):
    """A target called `fake` with nothing special about it, and its script."""

    def make(**behaviour):
        script, address = start_fake(**behaviour)
        return script, parse_target(f"fake={address}")

    return make


class FakeProcess:
    def __init__(self, process, address):
        self._process, self.address, self.pid = process, address, process.pid

    def stop(self):
        """Ends it and returns what it told at the end."""
        told, _ = self._process.communicate(timeout=10)
        assert self._process.returncode == 0
        return json.loads(told)


@contextmanager
def _fake_process(path, options):
    command = [sys.executable, "-m", "tests.loadtest.fake_daemon", str(path), *options]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "listening\n"
        try:
            yield FakeProcess(process, f"unix:{path}")
        finally:
            process.kill()


@pytest.fixture
def start_fake_process(socket_paths):
    """Starts a fake in a process of its own, whose CPU time can be measured."""
    with ExitStack() as running:
        yield lambda *options: running.enter_context(_fake_process(next(socket_paths), options))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def credentials(pki):
    """Those that a server of this CA is content with."""
    return Credentials(pki["ca.pem"], pki["client.pem"], pki["client.key"])


@pytest.fixture
def tls_opening(opening, credentials):
    return dataclasses.replace(opening, credentials=credentials)


@pytest.fixture
def start_tls_fake(pki):
    """Starts a fake behind TLS in a thread of this process; gives its script and `tls:HOST:PORT`.

    What it is told is for the context (`version`, `wants_certificate`), for its address (`host`),
    or behaviour.
    """
    with ExitStack() as running:

        def start(*, host="127.0.0.1", version=None, wants_certificate=True, **behaviour):
            versions = {"version": version} if version else {}
            context = server_context(pki, wants_certificate=wants_certificate, **versions)
            script = Script(**behaviour)
            fake = running.enter_context(FakeTlsDaemon(context, script, host))
            place = f"[{host}]" if ":" in host else host
            return script, f"tls:{place}:{fake.port}"

        yield start


@pytest.fixture
def start_tcp_fake():
    """Starts a fake on TCP in a thread of this process; gives its script and `HOST:PORT`."""
    with ExitStack() as running:

        def start(**behaviour):
            script = Script(**behaviour)
            fake = running.enter_context(FakeTcpDaemon(script))
            return script, f"127.0.0.1:{fake.port}"

        yield start


@pytest.fixture
def tls_target(start_tls_fake):
    """A target called `fake` behind TLS, and its script."""

    def make(**behaviour):
        script, address = start_tls_fake(**behaviour)
        return script, parse_target(f"fake={address}")

    return make


@pytest.fixture
def run_beside():
    """Runs a function in a thread while a block lasts; what it raises comes out at the end."""

    @contextmanager
    def beside(act):
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(act)
            yield
            running.result(timeout=10)

    return beside


@pytest.fixture(scope="session")
def kdc():
    """A realm in which joe may go to libvirt/localhost."""
    with short_directory() as directory, Kdc(directory) as kdc:
        kdc.add("joe", SERVICE)
        yield kdc


@pytest.fixture(scope="session")
def keytab(kdc):
    return kdc.keytab(SERVICE)


@pytest.fixture(scope="session")
def ticket(kdc):
    """joe's, as --ticket-cache takes it."""
    return str(kdc.tickets("joe"))


@pytest.fixture
def realm(kdc, monkeypatch):
    """libkrb5 of this process knows the realm, and nothing of what it was in the last test."""
    monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
    kerberos.login.cache_clear()
    kerberos.principal.cache_clear()
    return kdc


@pytest.fixture(scope="session")
def libvirtd():
    with short_directory() as directory, Libvirtd(directory) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def backends(libvirtd):
    """The sockets of its modular daemons, which a proxyd before it looks for."""
    with short_directory() as directory:
        libvirtd.serve_as(directory, "virtqemud", "virtstoraged")
        yield directory


@pytest.fixture(scope="session")
def pool(libvirtd, tmp_path_factory):
    """A running pool; gives its directory, and how it is read again."""
    directory = tmp_path_factory.mktemp("pool")
    uri = unix_uri("qemu:///system", libvirtd.sock)
    virsh(uri, f"pool-define-as load dir --target {directory}; pool-start load").succeeded()
    yield directory, lambda: virsh(uri, "pool-refresh load").succeeded()
    virsh(uri, "pool-destroy load; pool-undefine load").succeeded()


@pytest.fixture
def make_volume(pool):
    """Makes a volume of that size, of random bytes unless it is sparse; it is nobody else's."""
    directory, refresh = pool

    def make(size, *, sparse=False):
        number, path = tempfile.mkstemp(".img", dir=directory)
        with open(number, "wb") as file:
            if sparse:
                file.truncate(size)
            else:
                file.write(os.urandom(size))
        refresh()
        return Path(path)

    return make


@pytest.fixture(scope="session")
def front(libvirtd, backends, pki, tmp_path_factory):
    """A proxyd that lets in everybody by its UNIX socket; by TLS, with certificate and password."""
    passwords = tmp_path_factory.mktemp("passwords") / "proxyd-passwords"
    PasswordFile(str(passwords)).set_password("ann", PASSWORD)
    config = {
        "proxyd_routes": [f"test={libvirtd.sock}"],
        "listen_tls": 1,
        "listen_addr": "127.0.0.1",
        "tls_port": "0",
        "auth_tls": "sasl",
        "proxyd_passwords": str(passwords),
        "ca_file": pki["ca.pem"],
        "cert_file": pki["server.pem"],
        "key_file": pki["server.key"],
        "crl_file": "",
    }
    with (
        short_directory() as directory,
        Proxyd(directory, backend_dir=backends, config=config) as front,
    ):
        yield front


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def by_password(front, pki, password_file):
    """KIND:ADDRESS of that proxyd, and the options with which it is come in there."""
    place = front.tls_address().replace("127.0.0.1", "localhost")
    options = ["--cacert", pki["ca.pem"], "--cert", pki["client.pem"], "--key", pki["client.key"]]
    options += ["--user", "ann", "--password-file", str(password_file)]
    return f"scram+tls:{place}", options
