"""Targets that come by TCP and by Kerberos, at a real proxyd with a real KDC."""

import json
from contextlib import contextmanager

import gssapi
import pytest

from loadtest.cli import main
from loadtest.statuses import FAILED, OK, USAGE
from tests.bed.daemon import short_directory
from tests.bed.proxyd import Proxyd
from tests.bed.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("realm")]

SIZE = 3 << 20
TOLD = "3MiB"
ONE_SLICE = ["--rounds", "1", "--slices", "1", "--slice", "0.05", "--warmup", "2"]
ONE_ROUND = ["--rounds", "1", "--calls", "20", "--warmup", "2"]
KERBEROS = "b: GSSAPI ssf 256"


@contextmanager
def listening(libvirtd, backends, environment=None, **config):
    """A proxyd on TCP in front of it; gives HOST:PORT."""
    with short_directory() as directory:
        on_tcp = {"listen_tcp": 1, "listen_addr": "127.0.0.1", "tcp_port": "0"}
        settings = {"proxyd_routes": [f"test={libvirtd.sock}"], **on_tcp, **config}
        made = Proxyd(directory, backend_dir=backends, config=settings, environment=environment)
        with made as front:
            yield front.tcp_address().replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def by_kerberos(libvirtd, backends, kdc, keytab):
    with listening(libvirtd, backends, kdc.environment, proxyd_keytab=str(keytab)) as place:
        yield place


@pytest.fixture(scope="module")
def open_to_all(libvirtd, backends):
    with listening(libvirtd, backends, auth_tcp="none") as place:
        yield place


@pytest.fixture
def compare(libvirtd, capsys):
    """Runs it with libvirtd's own socket first and a target behind; gives what it prints."""

    def compare(address, *words, status=OK):
        both = ["--target", f"a=unix:{libvirtd.sock}", "--target", f"b={address}"]
        assert main(["compare", *both, *words]) == status
        printed = capsys.readouterr()
        if status != OK:
            assert printed.out == ""
            assert printed.err.count("\n") == 1
        return printed.out or printed.err

    return compare


@pytest.mark.parametrize(
    "how", [ONE_ROUND, ["-c", "3", *ONE_SLICE], ["--sessions", "-c", "2", *ONE_SLICE]]
)
def test_calls_and_sessions_by_kerberos(compare, by_kerberos, ticket, how):
    told = compare(f"gssapi:{by_kerberos}", "--ticket-cache", ticket, *how)
    assert "beside a" in told
    assert KERBEROS in told


@pytest.mark.parametrize("how", [[], ["-C"]])
def test_calls_at_a_rate_and_a_session_for_each(by_kerberos, ticket, capsys, how):
    words = ["--target", f"b=gssapi:{by_kerberos}", "--ticket-cache", ticket]
    load = ["-R", "40", "-c", "4", "-d", "500ms", "--mix", "small=3,xml=1", "--json"]
    assert main(["run", *words, *load, *how]) == OK
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert (target["calls"]["count"], target["errors"]) == (20, {})
    assert target["cipher"] == "GSSAPI ssf 256"


@pytest.mark.parametrize("how", [ONE_ROUND, ["--sessions", *ONE_SLICE]])
def test_calls_and_sessions_by_tcp(compare, open_to_all, how):
    told = compare(f"tcp:{open_to_all}", *how)
    assert "beside a" in told
    assert "b: " not in told


def test_a_volume_comes_down_by_kerberos(compare, by_kerberos, ticket, make_volume):
    words = ["--bulk", TOLD, "--volume", str(make_volume(SIZE)), "--rounds", "1", "--json"]
    told = compare(f"gssapi:{by_kerberos}", "--ticket-cache", ticket, *words)
    target = json.loads(told)["targets"][1]
    assert target["combined"]["transfers"] == 1
    assert target["cipher"] == "GSSAPI ssf 256"


def test_a_volume_goes_up_by_kerberos(compare, by_kerberos, ticket, make_volume):
    volume = make_volume(SIZE)
    before = volume.read_bytes()
    words = ["--bulk", TOLD, "--volume", str(volume), "--rounds", "1", "--upload"]
    assert KERBEROS in compare(f"gssapi:{by_kerberos}", "--ticket-cache", ticket, *words)
    assert volume.stat().st_size == SIZE
    assert volume.read_bytes() != before


def test_the_ticket_is_that_of_the_environment_unless_told(
    compare, by_kerberos, ticket, monkeypatch
):
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{ticket}")
    assert KERBEROS in compare(f"gssapi:{by_kerberos}", *ONE_ROUND)


def test_without_either_it_is_where_libkrb5_says(compare, by_kerberos, realm, ticket, monkeypatch):
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    monkeypatch.setenv("KRB5_CONFIG", str(realm.variant(default_ccache_name=f"FILE:{ticket}")))
    assert KERBEROS in compare(f"gssapi:{by_kerberos}", *ONE_ROUND)


def test_nothing_is_written_into_the_cache(compare, by_kerberos, kdc):
    fresh = kdc.tickets("joe")
    before = fresh.read_bytes()
    compare(f"gssapi:{by_kerberos}", "--ticket-cache", str(fresh), *ONE_ROUND)
    assert fresh.read_bytes() == before


def test_no_ticket_is_told_before_anything_starts(compare, monkeypatch):
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    told = compare("gssapi:localhost:1", status=USAGE)
    assert told.startswith("proxyd-loadtest: gssapi: targets: No Kerberos credentials available")
    assert "get a ticket with kinit, or name a file that has one with --ticket-cache" in told


def test_a_file_that_is_no_cache_is_told(compare, tmp_path):
    told = compare("gssapi:localhost:1", "--ticket-cache", f"{tmp_path}/none", status=USAGE)
    assert told.startswith(f"proxyd-loadtest: --ticket-cache {tmp_path}/none: ")
    assert "kinit" in told


def has_expired(cache):
    try:
        gssapi.Credentials(usage="initiate", store={"ccache": cache}).inquire()
    except gssapi.exceptions.ExpiredCredentialsError:
        return True
    return False


def test_a_ticket_that_has_expired_is_told(compare, kdc):
    short = str(kdc.tickets("joe", "-l", "1s"))
    wait_until(lambda: has_expired(short), 15, "the ticket has expired")
    told = compare("gssapi:localhost:1", "--ticket-cache", short, status=USAGE)
    assert "expired; get a ticket with kinit" in told


def test_a_host_that_the_kdc_does_not_know_is_told_with_its_remedy(compare, by_kerberos, ticket):
    numbered = by_kerberos.replace("localhost", "127.0.0.1")
    words = ["--ticket-cache", ticket, *ONE_ROUND]
    told = compare(f"gssapi:{numbered}", *words, status=FAILED)
    assert told.startswith(
        "proxyd-loadtest: target b: GSSAPI: Server libvirt/127.0.0.1@PROXYD.TEST not found in"
        " Kerberos database; give the address the host that is in the server's key"
    )


def test_the_name_of_the_service_is_that_of_the_option(compare, by_kerberos, ticket):
    words = ["--ticket-cache", ticket, "--service", "vnc", *ONE_ROUND]
    told = compare(f"gssapi:{by_kerberos}", *words, status=FAILED)
    assert "Server vnc/localhost@PROXYD.TEST not found" in told


def test_a_host_of_another_realm_is_told(
    compare, by_kerberos, ticket, realm, tmp_path, monkeypatch
):
    config = tmp_path / "krb5.conf"
    config.write_text(f"{realm.config.read_text()}  localhost = ELSEWHERE.TEST\n")
    monkeypatch.setenv("KRB5_CONFIG", str(config))
    words = ["--ticket-cache", ticket, *ONE_ROUND]
    told = compare(f"gssapi:{by_kerberos}", *words, status=FAILED)
    assert "Server krbtgt/ELSEWHERE.TEST@PROXYD.TEST not found" in told
    assert "whose realm krb5.conf must know" in told


def test_a_realm_without_a_kdc_is_told(compare, by_kerberos, ticket, tmp_path, monkeypatch):
    config = tmp_path / "krb5.conf"
    config.write_text(
        "[libdefaults]\n  dns_lookup_kdc = false\n  dns_canonicalize_hostname = false\n"
    )
    monkeypatch.setenv("KRB5_CONFIG", str(config))
    words = ["--ticket-cache", ticket, *ONE_ROUND]
    told = compare(f"gssapi:{by_kerberos}", *words, status=FAILED)
    assert 'Cannot find KDC for realm "PROXYD.TEST"; krb5.conf must name a KDC' in told


def test_a_server_that_does_not_take_the_ticket_is_told(compare, libvirtd, backends, kdc, ticket):
    kdc.add("libvirt/elsewhere.example")
    other = str(kdc.keytab("libvirt/elsewhere.example"))
    with listening(libvirtd, backends, kdc.environment, proxyd_keytab=other) as place:
        words = ["--ticket-cache", ticket, *ONE_ROUND]
        told = compare(f"gssapi:{place}", *words, status=FAILED)
    assert told.startswith("proxyd-loadtest: target b: AUTH_SASL_START: authentication failed")
    assert told.endswith("; its log says why\n")


def test_a_server_without_sasl_is_told(compare, open_to_all, ticket):
    words = ["--ticket-cache", ticket, *ONE_ROUND]
    told = compare(f"gssapi:{open_to_all}", *words, status=FAILED)
    assert "target b: GSSAPI: the server lets in everybody" in told


def test_a_server_that_wants_kerberos_says_so(compare, by_kerberos):
    told = compare(f"tcp:{by_kerberos}", *ONE_ROUND, status=FAILED)
    assert "the server wants SASL; besides NONE, SASL is measured, as gssapi:HOST:PORT or" in told


def test_a_server_without_gssapi_is_told(compare, start_tcp_fake, ticket):
    _, place = start_tcp_fake(methods=(1,), mechanisms=("SCRAM-SHA-256",))
    numbered = f"gssapi:{place}"
    words = ["--ticket-cache", ticket, *ONE_ROUND]
    told = compare(numbered, *words, status=FAILED)
    assert "the server offers SCRAM-SHA-256; it needs a keytab to offer GSSAPI" in told
