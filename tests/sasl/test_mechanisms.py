import pytest

from proxyd.config.mechanisms import NAMES
from proxyd.config.transports import Transport
from proxyd.sasl import passwords as module
from proxyd.sasl.keytab import Keytab
from proxyd.sasl.mechanism import LoginRefused
from proxyd.sasl.mechanisms import NothingToOffer, offer
from proxyd.sasl.passwords import PasswordFile
from tests.sasl.keytabs import entry, keytab_of

SCRAM, PLUS = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"


@pytest.fixture
def keytab(tmp_path):
    return keytab_of(tmp_path, entry(b"libvirt", b"host.example"))


@pytest.fixture
def no_keytab(tmp_path):
    return Keytab(str(tmp_path / "missing"))


@pytest.fixture
def users(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ITERATIONS", 4096)
    file = PasswordFile(str(tmp_path / "passwords"))
    file.set_password("joe", "sesame")
    return file


@pytest.mark.parametrize(
    ("transport", "names"),
    [
        (Transport.TCP, ("GSSAPI",)),
        (Transport.TLS, ("GSSAPI", PLUS, SCRAM)),
        (Transport.UNIX, ("GSSAPI", SCRAM)),
    ],
)
def test_each_way_in_has_its_mechanisms(transport, names, keytab, users):
    offering = offer(transport, keytab=keytab, passwords=users)
    assert offering.names == names
    assert offering.withheld == ()
    assert offering.longest_token == 65536


def test_without_a_keytab_there_are_passwords(no_keytab, users):
    offering = offer(Transport.TLS, keytab=no_keytab, passwords=users)
    assert offering.names == (PLUS, SCRAM)
    assert offering.longest_token == 4096
    (reason,) = offering.withheld
    assert reason.startswith(f"GSSAPI: {no_keytab.path}: there is no such file; kadmin")


def test_without_passwords_there_are_tickets(keytab, tmp_path):
    for missing, says in [
        (None, "SCRAM-SHA-256: no file of passwords is set"),
        (PasswordFile(str(tmp_path / "passwords")), "there is no such file"),
    ]:
        offering = offer(Transport.UNIX, keytab=keytab, passwords=missing)
        assert offering.names == ("GSSAPI",)
        assert says in offering.withheld[0]


def test_a_file_without_users_is_not_offered(keytab, users):
    users.remove("joe")
    offering = offer(Transport.UNIX, keytab=keytab, passwords=users)
    assert offering.withheld == (
        f"SCRAM-SHA-256: {users.path}: it has no user; add one (proxyd passwd NAME)",
    )


def test_only_what_is_wanted_is_offered_in_our_order(keytab, users):
    offering = offer(Transport.TLS, keytab=keytab, passwords=users, wanted=(SCRAM, PLUS))
    assert offering.names == (PLUS, SCRAM)
    assert offering.withheld == ("GSSAPI: proxyd_sasl_mechanisms leaves it out",)


def test_names_that_nobody_knows_are_told_of(keytab, users):
    offering = offer(Transport.TCP, keytab=keytab, passwords=users, wanted=("GSSAPI", "DIGEST-MD5"))
    assert offering.names == ("GSSAPI",)
    assert offering.withheld == (
        f'"DIGEST-MD5": there is no such mechanism here, only {", ".join(NAMES)}',
    )


@pytest.mark.parametrize("wanted", [(), (SCRAM,), ("gssapi",)])
def test_nothing_at_all_is_an_error_with_its_reasons(keytab, users, wanted):
    with pytest.raises(NothingToOffer, match=r"clients by TCP; .*GSSAPI: proxyd_sasl_mechanisms"):
        offer(Transport.TCP, keytab=keytab, passwords=users, wanted=wanted)


def test_nothing_that_serves_is_an_error_with_its_remedy(no_keytab):
    with pytest.raises(NothingToOffer, match=r"addprinc.*; SCRAM-SHA-256: no file of passwords"):
        offer(Transport.UNIX, keytab=no_keytab, passwords=None)


@pytest.mark.parametrize("transport", Transport)
def test_each_mechanism_that_is_offered_can_be_begun(transport, keytab, users):
    offering = offer(transport, keytab=keytab, passwords=users)
    begun = [offering.begin(name, {"tls-exporter": b"bytes"}).name for name in offering.names]
    assert begun == list(offering.names)


@pytest.mark.parametrize("name", ["", "gssapi", "PLAIN", "EXTERNAL", SCRAM, "x" * 70000])
def test_what_is_not_offered_cannot_be_begun(keytab, users, name):
    offering = offer(Transport.TCP, keytab=keytab, passwords=users)
    with pytest.raises(LoginRefused, match="was not offered"):
        offering.begin(name)


def test_on_tls_a_shortened_list_is_noticed_unless_plus_was_not_on_it(keytab, users):
    whole = offer(Transport.TLS, keytab=keytab, passwords=users)
    with pytest.raises(LoginRefused, match="not told of"):
        whole.begin(SCRAM).start(b"y,,n=joe,r=nonce")

    short = offer(Transport.TLS, keytab=keytab, passwords=users, wanted=(SCRAM,))
    assert short.begin(SCRAM).start(b"y,,n=joe,r=nonce").data
