"""`soak` against a real libvirtd and a real proxyd before it."""

import os

import pytest

from loadtest.cli import main
from loadtest.results import load
from loadtest.soaking.cli import CLEAN
from proxyd.auth.passwords import PasswordFile
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.proxyd import Proxyd
from tests.bed.virsh import unix_uri, virsh

pytestmark = pytest.mark.system

PASSWORD = "correct horse, battery"
SIZE = 2 << 20
PIPES = "32"  # proxyd keeps eight per relay thread for the next long frame


@pytest.fixture(scope="module")
def libvirtd():
    with short_directory() as directory, Libvirtd(directory) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def volume(libvirtd, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pool")
    (directory / "random.img").write_bytes(os.urandom(SIZE))
    uri = unix_uri("qemu:///system", libvirtd.sock)
    virsh(uri, f"pool-define-as load dir --target {directory}; pool-start load").succeeded()
    yield directory / "random.img"
    virsh(uri, "pool-destroy load; pool-undefine load").succeeded()


@pytest.fixture(scope="module")
def front(libvirtd, pki, tmp_path_factory):
    """A proxyd that lets in by its UNIX socket, and by TLS with a password."""
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
    with short_directory() as directory, short_directory() as backends:
        libvirtd.serve_as(backends, "virtqemud", "virtstoraged")
        with Proxyd(directory, backend_dir=backends, config=config) as front:
            yield front


@pytest.fixture
def soak(capsys, tmp_path):
    """Runs it for three seconds; gives the result, and what it printed."""

    def soak(*words):
        out = tmp_path / "soak.json"
        status = main(["soak", *words, "-d", "3s", "-c", "8", "--out", str(out)])
        told = capsys.readouterr().out
        assert status == CLEAN, told
        return load(out), told

    return soak


def ledger(made, name):
    found = made.plan["ledger"][name]
    assert not any(found["faults"].values())
    assert found["answered"] > 100
    assert found["sessions"] > 10
    return found


def test_nothing_is_lost_with_a_proxyd_and_without(soak, libvirtd, front, volume):
    made, told = soak(
        *("--target", f"direct=unix:{libvirtd.sock},pid={libvirtd.pid}"),
        *("--target", f"proxyd=unix:{front.sock},pid={front.pid},backend={libvirtd.pid}"),
        *("--volume", str(volume), "--bulk", "2MiB", "--kept", PIPES),
    )
    assert "CLEAN" in told
    for name in ("direct", "proxyd"):
        assert ledger(made, name)["stream_bytes"] > 0
    proxyd = made.targets[1].processes[0]
    assert proxyd.descriptors > 0
    assert proxyd.cpu_s > 0


def test_nothing_is_lost_inside_tls_with_a_password(soak, front, pki, tmp_path):
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    place = front.tls_address().replace("127.0.0.1", "localhost")
    made, told = soak(
        *("--target", f"proxyd=scram+tls:{place},pid={front.pid}"),
        *("--cacert", pki["ca.pem"], "--cert", pki["client.pem"], "--key", pki["client.key"]),
        *("--user", "ann", "--password-file", str(password)),
    )
    ledger(made, "proxyd")
    assert made.targets[0].cipher.startswith("TLSv1.3")
    assert PASSWORD not in told
