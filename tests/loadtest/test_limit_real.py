"""`limit` with a real libvirtd, and proxyd before it."""

import json

import pytest

from loadtest.cli import main
from loadtest.statuses import OK
from tests.bed.daemon import short_directory
from tests.bed.proxyd import Proxyd

pytestmark = pytest.mark.system


@pytest.fixture
def open_front(libvirtd, backends, pki):
    """A proxyd that lets in everybody by its UNIX socket, and by TLS whoever has a certificate."""
    config = {
        "proxyd_routes": [f"test={libvirtd.sock}"],
        "listen_tls": 1,
        "listen_addr": "127.0.0.1",
        "tls_port": "0",
        "auth_tls": "none",
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


def test_what_proxyd_adds_is_set_beside_what_a_bare_relay_adds(
    libvirtd, open_front, pki, capsys, tmp_path
):
    secure = open_front.tls_address().replace("127.0.0.1", "localhost")
    kept = tmp_path / "limit.json"
    asked = [
        *("limit", f"direct=unix:{libvirtd.sock},pid={libvirtd.pid}"),
        f"proxyd=unix:{open_front.sock},pid={open_front.pid}",
        f"tls=tls:{secure},pid={open_front.pid}",
        *("--rounds", "2", "--calls", "200", "--out", str(kept)),
        *("--cacert", pki["ca.pem"], "--cert", pki["client.pem"], "--key", pki["client.key"]),
    ]
    assert main(asked) == OK
    assert "× bare" in capsys.readouterr().out
    document = json.loads(kept.read_text())
    targets = {each["name"]: each for each in document["targets"]}
    assert list(targets) == ["direct", "bare", "bare-tls", "proxyd", "tls"]
    for order in ("warm", "cold"):
        for name in ("bare", "bare-tls", "proxyd", "tls"):
            found = targets[name][order]
            assert found["samples"] == 400
            assert len(found["added_p50_ns"]["per_round"]) == 2
            assert found["latency_ns"]["p50"] > 0
    assert targets["proxyd"]["cpu_per_call_ns"]["pid"] > 0
    assert targets["tls"]["cipher"] == targets["bare-tls"]["cipher"]
