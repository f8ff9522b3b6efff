"""What an idle daemon takes, what it has not loaded, and what an idle session over TLS takes."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.command import held_open
from tests.bed.daemon import accepts, short_directory
from tests.bed.pki import Pki
from tests.bed.waiting import wait_until
from tests.system.tls_client import opened_over_tls

pytestmark = pytest.mark.system

# 46,400 and 30,600 KiB with Python 3.11, 47,200 and 32,400 with 3.13. The system's OpenSSL would be
# 5,000 more.
TLS_KIB = 50_000
PLAIN_KIB = 34_000
# 36.2 KiB with Python 3.11, 42.8 with 3.13; 31 are OpenSSL's.
SESSION_KIB = 45
FIRST, MORE = 100, 400


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path)


@pytest.fixture
def tls_config(pki):
    server = pki.server()
    return {
        "listen_tls": 1,
        "listen_addr": "127.0.0.1",
        "tls_port": "0",
        "auth_tls": "none",
        "ca_file": str(pki.ca_file),
        "cert_file": str(server.cert_file),
        "key_file": str(server.key_file),
    }


def mapped(pid):
    """The files in the process's memory."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/" in line}


def weighed(make_proxyd, config, capsys):
    make_proxyd(config).stop()  # afterwards there is byte code of everything
    front = make_proxyd(config)
    with capsys.disabled():
        print(f"\n{front.rss_kib()} KiB resident")
    return front


def test_an_idle_daemon(make_proxyd, capsys):
    front = weighed(make_proxyd, {}, capsys)
    assert front.rss_kib() < PLAIN_KIB
    assert not [each for each in mapped(front.pid) if "libssl" in each or "libcrypto" in each]


def test_an_idle_daemon_that_listens_for_tls_has_one_openssl(make_proxyd, tls_config, capsys):
    front = weighed(make_proxyd, tls_config, capsys)
    assert front.rss_kib() < TLS_KIB
    assert not [each for each in mapped(front.pid) if "libssl" in each or "libcrypto" in each]


def test_an_idle_session_over_tls(make_proxyd, pki, tls_config, capsys):
    with short_directory() as directory, ExitStack() as sessions:
        path, client = directory / "prompt", pki.client()
        sessions.enter_context(
            held_open([sys.executable, "-m", "tests.fakes.prompt_daemon", str(path)])
        )
        wait_until(lambda: path.exists() and accepts(path), 10, "the daemon listens")
        config = {**tls_config, "proxyd_routes": [f"test={path}"]}
        front = make_proxyd(config, backend_dir=directory)
        address = front.tls_address()

        def resident_beside(count):
            for _ in range(count):
                sessions.enter_context(opened_over_tls(address, client))
            return front.rss_kib()

        first = resident_beside(FIRST)
        each_kib = (resident_beside(MORE) - first) / MORE
        with capsys.disabled():
            print(f"\n{each_kib:.1f} KiB for an idle session over TLS")
        assert each_kib < SESSION_KIB
