"""What a CA issues: chains that hold, a ledger that forgets nothing, and nothing overwritten."""

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store
from OpenSSL import crypto

import certs
from certs.authority import LEAF_DAYS, LONGEST_DAYS, Authority
from certs.failures import CannotDo
from certs.keys import KINDS
from certs.names import Attributes
from certs.places import flat, tree
from proxyd.pki.dname import subject_of
from proxyd.pki.fitness import Purpose, flaws_of_authority, flaws_of_leaf
from tests.certs.conftest import CA_NAME, HOST

DAY = dt.timedelta(days=1)
DEADLINE_S = 30
QUICK_KINDS = [kind for kind in KINDS if kind not in ("rsa:3072", "rsa:4096")]


def now():
    return dt.datetime.now(dt.UTC)


def openssl_verifies(certificate, authority):
    """As `openssl verify -x509_strict -CAfile`; raises X509StoreContextError."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(authority))
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate)).verify_certificate()


# What is issued


@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_openssl_verifies_every_kind_of_chain(root, kind):
    authority = Authority.create(root, name=CA_NAME, key=kind)
    openssl_verifies(authority.server(HOST).certificate, authority.certificate)
    openssl_verifies(authority.client("joe").certificate, authority.certificate)


@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_libvirts_rules_find_nothing_to_say(root, kind):
    authority = Authority.create(root, name=CA_NAME, key=kind)
    server, client = authority.server(HOST).certificate, authority.client("joe").certificate
    assert flaws_of_authority(authority.certificate, now()) == []
    assert flaws_of_leaf(server, Purpose.SERVER, now()) == []
    assert flaws_of_leaf(client, Purpose.CLIENT, now()) == []


def test_the_rules_of_the_web_accept_a_server(authority):
    # They are stricter than TLS itself; only the name of a host has to be asked for.
    server = authority.server(HOST, names=["192.0.2.1"]).certificate
    policy = PolicyBuilder().store(Store([authority.certificate]))
    chain = policy.build_server_verifier(x509.DNSName(HOST)).verify(server, [])
    assert chain == [server, authority.certificate]


def test_the_key_is_that_of_the_certificate_and_of_the_kind_of_the_cas(root):
    authority = Authority.create(root, name=CA_NAME, key="ed25519")
    issued = authority.client("joe")
    key = load_pem_private_key(issued.key_file.read_bytes(), None)
    assert key.public_key() == issued.certificate.public_key()
    assert authority.key_kind == "ed25519"
    assert type(key.public_key()) is type(authority.certificate.public_key())


def test_the_subject_is_what_the_record_and_the_allow_list_spell(authority):
    attributes = Attributes(country="de", organization='A, "B"')
    issued = authority.client("joe", attributes=attributes)
    assert subject_of(issued.certificate) == issued.record.subject == r"C=DE,O=A\, \"B\",CN=joe"


def test_a_certificate_is_valid_a_little_before_it_is_made(root):
    moment = now().replace(microsecond=0)
    authority = Authority.create(root, name=CA_NAME, clock=lambda: moment)
    certificate = authority.client("joe").certificate
    assert certificate.not_valid_before_utc == moment - dt.timedelta(minutes=5)
    assert certificate.not_valid_after_utc == moment + LEAF_DAYS * DAY


def test_nothing_outlives_its_ca(root):
    authority = Authority.create(root, name=CA_NAME, days=10)
    certificate = authority.client("joe", days=20).certificate
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_an_expired_ca_issues_nothing(root):
    Authority.create(root, name=CA_NAME, days=10, clock=lambda: now() - 20 * DAY)
    with pytest.raises(CannotDo, match=r"cacert\.pem expired on .* UTC; make a new CA \(proxyd"):
        Authority.open(root).client("joe")
    assert not tree(root).client.key.exists()


def test_a_clock_that_is_wrong_costs_nobody_the_ca(authority, root):
    with pytest.raises(CannotDo, match=r"is not valid before .* clock right\?\); set the clock$"):
        Authority.open(root, clock=lambda: now() - DAY).client("joe")
    assert not authority.store.ledger.exists()


@pytest.mark.parametrize("days", [0, -1, LONGEST_DAYS + 1])
def test_days_have_bounds(authority, days):
    with pytest.raises(CannotDo, match=rf"^{days} days are not possible; choose from 1 to 36500$"):
        authority.client("joe", days=days)


def test_an_unknown_kind_of_key_is_refused_with_those_that_are_known(authority):
    with pytest.raises(CannotDo, match="choose from rsa:2048, rsa:3072"):
        authority.client("joe", key="dsa")


def test_a_client_elsewhere_gets_the_ca_and_the_revocation_list(authority, tmp_path):
    authority.client("ann")
    authority.revoke("ann")
    places = flat(tmp_path / "joe")
    issued = authority.client("joe", to=places)
    assert issued.written == (
        places.ca,
        places.crl,
        places.client.certificate,
        places.client.key,
    )
    assert places.ca.read_bytes() == authority.places.ca.read_bytes()
    assert places.crl.read_bytes() == authority.places.crl.read_bytes()


def test_a_bundle_of_cas_that_has_ours_stays_as_it_is(authority, tmp_path):
    other = Authority.create(tmp_path / "other", name="Other CA")
    places = flat(tmp_path / "joe")
    bundle = other.places.ca.read_bytes() + authority.places.ca.read_bytes()
    places.root.mkdir()
    places.ca.write_bytes(bundle)
    authority.client("joe", to=places)
    assert places.ca.read_bytes() == bundle


# What is written down


def test_everything_is_in_the_ledger_with_a_copy(authority):
    server, client = authority.server(HOST), authority.client("joe")
    assert authority.ledger().records == (server.record, client.record)
    for each in (server, client):
        copy = authority.store.issued / f"{each.record.number}.pem"
        assert copy.read_bytes() == each.cert_file.read_bytes()


def test_a_certificate_that_could_not_be_written_is_in_the_ledger_all_the_same(authority, tmp_path):
    # The other way round somebody might hold one that cannot be revoked by name.
    places = flat(tmp_path / "joe")
    places.client.certificate.mkdir(parents=True)
    with pytest.raises(CannotDo, match=r"clientcert\.pem cannot be written: Is a directory$"):
        authority.client("joe", to=places, force=True)
    assert [each.subject for each in authority.ledger().records] == ["CN=joe"]


def test_a_damaged_ledger_stops_everything_and_says_what_to_do(authority):
    authority.store.ledger.write_text("{")
    with pytest.raises(CannotDo, match=r"ledger\.json is damaged: .*; restore it from a backup"):
        authority.client("joe")
    assert not authority.places.client.key.exists()


def test_eight_at_once_all_get_into_the_ledger(authority, tmp_path):
    command = [sys.executable, "-m", "certs", "client", "--dir", str(authority.places.root)]
    started = [
        subprocess.Popen(
            [*command, f"user{number}", "--flat", str(tmp_path / f"user{number}")],
            env={**os.environ, "PYTHONPATH": str(Path(certs.__file__).parents[1])},
            stdout=subprocess.DEVNULL,
        )
        for number in range(8)
    ]
    assert [each.wait(DEADLINE_S) for each in started] == [0] * 8

    records = authority.ledger().records
    assert {each.subject for each in records} == {f"CN=user{number}" for number in range(8)}
    assert len({each.serial for each in records}) == 8
    on_disk = {
        x509.load_pem_x509_certificate(path.read_bytes()).serial_number
        for path in tmp_path.glob("user*/clientcert.pem")
    }
    assert on_disk == {each.serial for each in records}


# What is there already


def test_a_second_ca_takes_no_place_without_force(authority, root):
    key = authority.store.key.read_bytes()
    with pytest.raises(CannotDo, match=r"cakey\.pem is there already; choose another --dir"):
        Authority.create(root, name="Another")
    assert authority.store.key.read_bytes() == key
    assert Authority.open(root).certificate == authority.certificate


def test_a_ca_certificate_alone_is_not_overwritten_either(root):
    # As it is on a host whose CA lives elsewhere.
    ca = tree(root).ca
    ca.parent.mkdir(parents=True)
    ca.write_text("somebody's")
    with pytest.raises(CannotDo, match=r"cacert\.pem is there already"):
        Authority.create(root, name=CA_NAME)
    assert ca.read_text() == "somebody's"


def test_with_force_the_old_ca_is_put_aside_whole(authority, root):
    authority.client("joe")
    authority.revoke("joe")
    files = [authority.store.key, authority.places.ca, authority.store.ledger, authority.places.crl]
    before = [each.read_bytes() for each in files]
    for _ in range(2):
        Authority.create(root, name="Another", force=True)

    first, second = sorted(authority.store.replaced.iterdir())
    assert [(first / each.name).read_bytes() for each in files] == before
    assert [each.name for each in (first / "issued").iterdir()]
    assert sorted(each.name for each in second.iterdir()) == ["cacert.pem", "cakey.pem"]
    assert Authority.open(root).ledger().records == ()


@pytest.mark.parametrize("in_the_way", ["clientkey.pem", "clientcert.pem"])
def test_no_key_and_no_certificate_is_overwritten_without_force(authority, tmp_path, in_the_way):
    there = tmp_path / "joe" / in_the_way
    there.parent.mkdir()
    there.write_text("old")
    with pytest.raises(CannotDo, match=rf"{in_the_way} is there already; name another directory"):
        authority.client("joe", to=flat(there.parent))
    assert there.read_text() == "old"
    assert os.listdir(there.parent) == [in_the_way]
    assert authority.ledger().records == ()


def test_with_force_both_are_replaced(authority):
    old = authority.client("joe")
    new = authority.client("joe", force=True)
    assert old.certificate.serial_number != new.certificate.serial_number
    shown = x509.load_pem_x509_certificate(new.cert_file.read_bytes())
    key = load_pem_private_key(new.key_file.read_bytes(), None)
    assert shown == new.certificate
    assert key.public_key() == shown.public_key()


def test_the_ca_of_somebody_else_is_not_overwritten_without_force(authority, tmp_path):
    other = Authority.create(tmp_path / "other", name="Other CA")
    with pytest.raises(CannotDo, match=r"cacert\.pem is another CA's; name another directory"):
        authority.client("joe", to=other.places)
    assert Authority.open(tmp_path / "other").certificate == other.certificate


# Opening one


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda ca: ca.store.key.unlink(), "there is no .*; name the --dir of your CA, or make"),
        (lambda ca: ca.places.ca.unlink(), "there is no .*; name the --dir of your CA, or make"),
        (lambda ca: ca.store.key.write_text("x"), "holds no private key in PEM; restore it"),
        (lambda ca: ca.places.ca.write_text("x"), "holds no certificate in PEM; name a file"),
        (
            lambda ca: ca.places.ca.write_bytes(ca.client("joe").cert_file.read_bytes()),
            r"cakey\.pem is not the key of .*cacert\.pem; restore the one that is",
        ),
    ],
)
def test_a_ca_that_is_not_whole_cannot_be_opened(authority, damage, says):
    damage(authority)
    with pytest.raises(CannotDo, match=says):
        Authority.open(authority.places.root)
