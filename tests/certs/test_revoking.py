"""Which certificate is meant, and the list that servers read."""

import datetime as dt
from functools import partial

import pytest
from cryptography import x509
from OpenSSL import crypto

from certs.authority import LIST_DAYS, Authority
from certs.failures import CannotDo
from certs.places import flat
from certs.revoking import REASONS
from tests.pki.minting import (
    CONSTRAINTS_OF_CA,
    DAY,
    NOW,
    key_pem,
    key_usage,
    mint,
    new_key,
    pem,
)


@pytest.fixture
def issue(authority, tmp_path):
    """A client, each in a directory of its own."""
    count = iter(range(100))

    def issued(name):
        return authority.client(name, to=flat(tmp_path / f"{next(count)}"))

    return issued


def list_of(authority):
    return x509.load_pem_x509_crl(authority.places.crl.read_bytes())


def serials(authority):
    return [each.serial_number for each in list_of(authority)]


def number(authority):
    found = list_of(authority).extensions.get_extension_for_class(x509.CRLNumber)
    return found.value.crl_number


def openssl_verifies(certificate, authority):
    """With the revocation list; raises X509StoreContextError."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(authority.certificate))
    store.add_crl(list_of(authority))
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
    crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate)).verify_certificate()


# Which one


def test_by_name(authority, issue):
    joe, _ = issue("joe"), issue("ann")
    (revoked,) = authority.revoke("joe").now
    assert revoked.serial == joe.record.serial
    assert serials(authority) == [joe.record.serial]


def test_a_server_by_any_of_its_names(authority):
    server = authority.server("host.example.org", names=["2001:db8::1"])
    authority.revoke("2001:db8::1")
    assert serials(authority) == [server.record.serial]


@pytest.mark.parametrize(
    "spell",
    [
        lambda number: number,
        lambda number: number.upper(),
        lambda number: number[:8],
        lambda number: ":".join(number[at : at + 2] for at in range(0, len(number), 2)),
    ],
    ids=["whole", "upper case", "its beginning", "with colons"],
)
def test_by_serial_number(authority, issue, spell):
    joe, _ = issue("joe"), issue("ann")
    authority.revoke(spell(joe.record.number))
    assert serials(authority) == [joe.record.serial]


def test_by_file(authority, issue):
    joe, _ = issue("joe"), issue("joe")
    authority.revoke(str(joe.cert_file))
    assert serials(authority) == [joe.record.serial]


def test_a_name_with_a_slash_is_a_name_first(authority, issue):
    service = issue("libvirt/host.example.org")
    authority.revoke("libvirt/host.example.org")
    assert serials(authority) == [service.record.serial]


def test_a_file_that_the_ledger_has_forgotten(authority, issue):
    joe = issue("joe")
    authority.store.ledger.unlink()
    (revoked,) = authority.revoke(str(joe.cert_file)).now
    assert revoked == authority.ledger().records[0]
    assert revoked.purpose is joe.record.purpose
    assert serials(authority) == [joe.record.serial]


def test_of_two_with_one_name_none_is_guessed(authority, issue):
    numbers = [issue("joe").record.number for _ in range(2)]
    with pytest.raises(CannotDo) as caught:
        authority.revoke("joe")
    assert str(caught.value) == (
        '"joe" means 2 certificates; use --all, or one of the serial numbers ' + ", ".join(numbers)
    )
    assert not authority.places.crl.exists()


def test_all_of_one_name(authority, issue):
    both = [issue("joe").record.serial for _ in range(2)]
    authority.revoke("joe", every=True)
    assert serials(authority) == both


def test_of_two_with_one_name_the_one_that_is_left(authority, issue):
    first, second = issue("joe"), issue("joe")
    authority.revoke(first.record.number)
    revoked = authority.revoke("joe")
    assert [each.serial for each in revoked.now] == [second.record.serial]
    assert [each.serial for each in revoked.before] == [first.record.serial]


@pytest.mark.parametrize("which", ["nobody", "abc", "ffffffffffffffffffff", "JOE", ""])
def test_what_is_none_of_this_cas_is_refused(authority, issue, which):
    issue("joe")
    with pytest.raises(CannotDo, match="is neither the name nor the serial number of a cert"):
        authority.revoke(which)


def test_a_file_of_another_ca_is_refused(authority, tmp_path):
    other = Authority.create(tmp_path / "other", name="Example CA")
    file = other.client("joe").cert_file
    with pytest.raises(CannotDo, match="was not issued by this CA; name the --dir of the one"):
        authority.revoke(str(file))


def test_the_ca_itself_cannot_be_revoked(authority):
    with pytest.raises(CannotDo, match="is the CA's own certificate, which no list of it can"):
        authority.revoke(str(authority.places.ca))


@pytest.mark.parametrize(
    ("content", "says"), [(None, "there is no "), (b"junk", "holds no certificate in PEM")]
)
def test_a_file_without_a_certificate_is_refused(authority, tmp_path, content, says):
    file = tmp_path / "x.pem"
    if content:
        file.write_bytes(content)
    with pytest.raises(CannotDo, match=says):
        authority.revoke(str(file))


# The list


def test_openssl_refuses_who_is_on_the_list_and_nobody_else(authority, issue):
    joe, ann = issue("joe"), issue("ann")
    authority.revoke("joe")
    with pytest.raises(crypto.X509StoreContextError, match="certificate revoked"):
        openssl_verifies(joe.certificate, authority)
    openssl_verifies(ann.certificate, authority)


def test_the_number_of_the_list_grows_each_time(authority, issue):
    issue("joe")
    numbers = []
    revoke = partial(authority.revoke, "joe")
    for change in (authority.refresh_list, revoke, revoke, authority.refresh_list):
        change()
        numbers.append(number(authority))
    assert numbers == [1, 2, 3, 4]


@pytest.mark.parametrize("lost", ["ledger", "list"])
def test_the_number_grows_even_when_half_of_what_knew_it_is_lost(authority, issue, lost):
    issue("joe")
    authority.revoke("joe")
    authority.refresh_list()
    (authority.store.ledger if lost == "ledger" else authority.places.crl).unlink()
    authority.refresh_list()
    assert number(authority) == 3


@pytest.mark.parametrize("lost", ["ledger", "list"])
def test_who_was_revoked_stays_revoked_when_one_of_the_two_is_lost(authority, issue, lost):
    joe = issue("joe")
    authority.revoke("joe", reason="keyCompromise")
    (authority.store.ledger if lost == "ledger" else authority.places.crl).unlink()
    authority.refresh_list()
    (entry,) = list_of(authority)
    assert entry.serial_number == joe.record.serial
    reason = entry.extensions.get_extension_for_class(x509.CRLReason)
    assert reason.value.reason is x509.ReasonFlags.key_compromise


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_is_on_the_list_and_in_the_ledger(authority, issue, reason):
    issue("joe")
    authority.revoke("joe", reason=reason)
    (entry,) = list_of(authority)
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value == reason
    assert authority.ledger().records[0].revocation.reason == reason


def test_without_a_reason_the_list_has_none(authority, issue):
    issue("joe")
    authority.revoke("joe")
    assert len(list_of(authority)[0].extensions) == 0


def test_an_unknown_reason_is_refused_with_those_that_are_known(authority, issue):
    issue("joe")
    with pytest.raises(CannotDo, match=r"^\"spite\" is no reason; choose from keyCompromise, "):
        authority.revoke("joe", reason="spite")


def test_the_date_of_a_revocation_is_that_of_the_first(root):
    moment = [dt.datetime.now(dt.UTC).replace(microsecond=0) - 2 * DAY]
    authority = Authority.create(root, name="ca", clock=lambda: moment[0])
    authority.client("joe")
    authority.revoke("joe")
    first, moment[0] = moment[0], moment[0] + DAY
    (before,) = authority.revoke("joe").before
    assert before.revocation.at == list_of(authority)[0].revocation_date_utc == first


def test_the_list_ends_when_it_is_told_to(root):
    moment = dt.datetime.now(dt.UTC).replace(microsecond=0)
    authority = Authority.create(root, name="ca", clock=lambda: moment)
    assert authority.refresh_list().next_update_utc == moment + LIST_DAYS * DAY
    assert authority.refresh_list(days=7).next_update_utc == moment + 7 * DAY


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda other: b"junk", "holds no revocation list in PEM; move it away"),
        (lambda other: pem(other.refresh_list()), "is another CA's revocation list; move it away"),
    ],
    ids=["garbage", "another CA's"],
)
def test_a_list_that_is_not_ours_is_not_overwritten(authority, tmp_path, content, says):
    other = Authority.create(tmp_path / "other", name="Example CA")
    there = content(other)
    authority.places.crl.write_bytes(there)
    with pytest.raises(CannotDo, match=says):
        authority.refresh_list()
    assert authority.places.crl.read_bytes() == there
    assert not authority.store.ledger.exists()


@pytest.fixture
def ca_without_lists(authority):
    """As libvirt's own description makes one: certtool with cert_signing_key alone."""
    key = new_key()
    begins = dt.datetime.now(dt.UTC) - NOW - DAY
    certificate = mint(
        "ca",
        key,
        extensions=[CONSTRAINTS_OF_CA, (key_usage("key_cert_sign"), True)],
        begins=begins,
        ends=begins + 365 * DAY,
    )
    authority.places.ca.write_bytes(pem(certificate))
    authority.store.key.write_bytes(key_pem(key))
    return Authority.open(authority.places.root)


def test_a_ca_that_may_sign_no_lists_signs_none(ca_without_lists):
    # OpenSSL would refuse all of its clients, and proxyd the list.
    ca_without_lists.client("joe")
    with pytest.raises(CannotDo) as caught:
        ca_without_lists.revoke("joe")
    assert "may not sign revocation lists (keyUsage lacks cRLSign); shut clients out with" in str(
        caught.value
    )
    assert not ca_without_lists.places.crl.exists()
    assert ca_without_lists.ledger().records[0].revocation is None
