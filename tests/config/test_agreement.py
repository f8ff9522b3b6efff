"""The rules between keys."""

import pytest

from proxyd.config.agreement import clashes_of
from proxyd.config.grammar import ConfigError
from proxyd.config.sources import load
from proxyd.config.transports import Transport

FILES = {key: f'{key} = "/{key}"' for key in ("key_file", "cert_file", "ca_file", "crl_file")}


def settings(*lines):
    return load("\n".join(lines), "f", privileged=True).settings


def of_tls(*lines):
    """What keeps TLS clients from being served, and no others."""
    loaded = load("\n".join(["listen_tls = 1", *lines]), "f", privileged=True)
    assert not list(clashes_of(loaded.settings, Transport.TCP))
    return list(clashes_of(loaded.settings, Transport.TLS))


def refusal(*lines):
    with pytest.raises(ConfigError) as caught:
        settings(*lines)
    return str(caught.value)


def test_all_clients_may_be_anonymous():
    assert settings("max_clients = 20").max_clients == 20
    assert settings("max_anonymous_clients = 0", "max_clients = 0").max_clients == 0


def test_there_are_no_more_anonymous_clients_than_clients():
    advice = "raise the one or lower the other"
    expected = "expected max_clients (19) to be at least max_anonymous_clients (20)"
    assert refusal("", "max_clients = 19") == f"f:2:15: {expected}; {advice}"
    expected = "expected max_clients (5000) to be at least max_anonymous_clients (5001)"
    assert refusal("max_anonymous_clients = 5001") == f"f:1:25: {expected}; {advice}"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["key_file"], "cert_file and ca_file"),
        (["cert_file"], "key_file and ca_file"),
        (["ca_file", "crl_file"], "key_file and cert_file"),
        (["key_file", "ca_file"], "cert_file"),
    ],
)
def test_key_certificate_and_ca_are_set_together(given, missing):
    clash, *_ = of_tls(*(FILES[key] for key in given))
    assert clash.expected == (f"{missing} beside {given[0]}: the three are set together or none")
    assert clash.key == given[0]


@pytest.mark.parametrize("given", [["key_file"], ["ca_file", "crl_file"], ["crl_file"]])
@pytest.mark.parametrize("value", ["/x", ""])
def test_where_nobody_comes_by_tls_its_files_are_passed_over_as_libvirt_does(given, value):
    loaded = load("".join(f'{key} = "{value}"\n' for key in given), "f", privileged=True)
    assert all("as long as listen_tls = 0" in doubt.text for doubt in loaded.doubts)
    assert all(doubt.is_ignored for doubt in loaded.doubts)


@pytest.mark.parametrize("key", ["key_file", "cert_file"])
def test_without_a_certificate_or_its_key_nobody_can_be_served(key):
    three = {each: f"/{each}" for each in ("key_file", "cert_file", "ca_file")} | {key: ""}
    (clash,) = of_tls(*(f'{each} = "{path}"' for each, path in three.items()))
    assert clash.key == key
    assert clash.expected.startswith(f"{key} to be a path")


def test_a_ca_that_is_empty_is_a_choice_and_a_revocation_list_that_is_none():
    assert not of_tls('key_file = "/k"', 'cert_file = "/c"', 'ca_file = ""', 'crl_file = ""')
    assert not of_tls('crl_file = ""')


def test_key_certificate_and_ca_may_come_with_and_without_a_revocation_list():
    three = [FILES["key_file"], FILES["cert_file"], FILES["ca_file"]]
    assert settings(*three).crl_file is None
    assert settings(*three, FILES["crl_file"]).crl_file == "/crl_file"


def test_a_revocation_list_alone_is_refused_because_libvirt_would_not_use_it():
    (clash,) = of_tls(FILES["crl_file"])
    assert (clash.key, clash.expected) == (
        "crl_file",
        "key_file, cert_file and ca_file beside crl_file; without them put the list where the"
        " CA's certificate is, as cacrl.pem",
    )


def test_a_scheme_with_two_routes_is_refused_because_one_of_them_would_count_in_silence():
    assert refusal('proxyd_routes = [ "qemu=libvirtd", "test=/t", "qemu=/q" ]') == (
        'f:1:17: expected one route for "qemu", which has several; leave one of them'
    )
