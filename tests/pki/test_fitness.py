"""The verdicts were compared with those of libvirtd 9.0.0 at its start, with GnuTLS 3.7.9."""

import datetime as dt
from functools import cache

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from proxyd.pki.fitness import Flaw, Purpose, flaws_of_authority, flaws_of_leaf
from tests.pki import minting
from tests.pki.minting import (
    CONSTRAINTS_OF_CA,
    CONSTRAINTS_OF_LEAF,
    DAY,
    FOR_CLIENTS,
    FOR_SERVERS,
    NOW,
    OF_CA,
    OF_SERVER,
    USAGE_OF_CA,
    USAGE_OF_LEAF,
    garbage,
    key_usage,
    mint,
    purposes,
)

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
ANYTHING = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
SECOND = dt.timedelta(seconds=1)

key = cache(minting.new_key)


def of_leaf(*extensions, purpose=Purpose.SERVER, now=NOW):
    return flaws_of_leaf(mint("joe", key(), extensions=extensions), purpose, now)


def of_authority(*extensions, now=NOW):
    return flaws_of_authority(mint("ca", key(), extensions=extensions), now)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_certificate_without_any_extension_fits_both_purposes(purpose):
    assert of_leaf(purpose=purpose) == []


def test_a_complete_certificate_has_no_flaw():
    assert of_leaf(*OF_SERVER) == []
    assert of_leaf(CONSTRAINTS_OF_LEAF, FOR_CLIENTS, purpose=Purpose.CLIENT) == []
    assert of_authority(*OF_CA) == []


@pytest.mark.parametrize("verdict", [of_leaf, of_authority])
def test_both_ends_belong_to_the_time_of_validity(verdict):
    constraints = CONSTRAINTS_OF_LEAF if verdict is of_leaf else CONSTRAINTS_OF_CA
    for moment in (NOW - DAY, NOW + 365 * DAY):
        assert verdict(constraints, now=moment) == []


@pytest.mark.parametrize("flaws_of", [flaws_of_authority, flaws_of_leaf])
def test_the_message_has_the_date(flaws_of):
    certificate = mint("ca", key(), extensions=[])
    more = () if flaws_of is flaws_of_authority else (Purpose.CLIENT,)
    early, *_ = flaws_of(certificate, *more, NOW - DAY - SECOND)
    late, *_ = flaws_of(certificate, *more, NOW + 365 * DAY + SECOND)
    assert early == Flaw(
        "is not valid before 2026-11-19 12:00:00 UTC (is this host's clock right?)", fatal=True
    )
    assert late == Flaw("expired on 2027-11-20 12:00:00 UTC", fatal=True)


def test_a_ca_is_no_server_and_no_client():
    for purpose, whose in ((Purpose.SERVER, "server's"), (Purpose.CLIENT, "client's")):
        (flaw,) = of_leaf(CONSTRAINTS_OF_CA, purpose=purpose)
        assert flaw.fatal
        assert flaw.text == f"is a CA's, not a {whose} (basicConstraints has CA:TRUE)"


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        (["digital_signature"], []),
        (["key_encipherment"], ["digitalSignature"]),
        (["key_cert_sign"], ["digitalSignature"]),
        ([], ["digitalSignature"]),
        (["digital_signature", "key_encipherment"], []),
    ],
)
def test_a_missing_key_usage_is_fatal_only_where_it_is_critical(granted, missing, critical):
    flaws = of_leaf((key_usage(*granted), critical))
    assert [flaw.fatal for flaw in flaws] == [critical] * len(missing)
    for flaw, lacking in zip(flaws, missing, strict=True):
        assert flaw.text.endswith(f"(keyUsage lacks {lacking})")


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    ("oids", "granted"),
    [
        ([SERVER_AUTH], {Purpose.SERVER}),
        ([CLIENT_AUTH], {Purpose.CLIENT}),
        ([SERVER_AUTH, CLIENT_AUTH], set(Purpose)),
        # libvirt's comparison is the wrong way round.
        ([ANYTHING], set()),
        ([ANYTHING, CLIENT_AUTH], {Purpose.CLIENT}),
        ([CODE_SIGNING], set(Purpose)),
        ([CODE_SIGNING, CLIENT_AUTH], set(Purpose)),
        ([CODE_SIGNING, ANYTHING], set(Purpose)),
        ([x509.ObjectIdentifier("1.2.3.4")], set(Purpose)),
    ],
)
def test_a_purpose_is_granted_with_libvirts_quirk(oids, granted, critical):
    for purpose in Purpose:
        flaws = of_leaf((purposes(*oids), critical), purpose=purpose)
        lacking = f"(extendedKeyUsage lacks {purpose.value}Auth)"
        assert [flaw.fatal for flaw in flaws] == ([] if purpose in granted else [critical])
        assert all(flaw.text.endswith(lacking) for flaw in flaws)


def test_every_flaw_is_told_in_libvirts_order():
    flaws = of_leaf(CONSTRAINTS_OF_CA, (key_usage(), True), FOR_CLIENTS, now=NOW + 400 * DAY)
    assert [(flaw.text.split()[0], flaw.fatal) for flaw in flaws] == [
        ("expired", True),
        ("is", True),
        ("is", True),
        ("is", False),
    ]


@pytest.mark.parametrize("constraints", [[], [CONSTRAINTS_OF_LEAF]])
def test_a_ca_must_say_that_it_is_one(constraints):
    (flaw,) = of_authority(*constraints, USAGE_OF_CA)
    assert flaw == Flaw("is no CA's (basicConstraints lacks CA:TRUE)", fatal=True)


@pytest.mark.parametrize("critical", [True, False])
def test_a_ca_that_may_not_sign_is_fatal_only_where_that_is_critical(critical):
    (flaw,) = of_authority(CONSTRAINTS_OF_CA, (key_usage("crl_sign"), critical))
    assert flaw.fatal is critical
    assert "keyCertSign" in flaw.text


def test_a_ca_may_leave_its_key_usage_open_and_its_constraints_uncritical():
    assert of_authority((CONSTRAINTS_OF_CA[0], False)) == []


def test_the_purpose_of_a_ca_is_nobodys_business():
    assert of_authority(*OF_CA, (FOR_CLIENTS[0], True)) == []


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    "oid",
    [
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ],
)
def test_a_malformed_extension_is_fatal(oid, critical):
    for flaws in (of_leaf((garbage(oid), critical)), of_authority((garbage(oid), critical))):
        (flaw,) = flaws
        assert flaw.fatal
        assert flaw.text.startswith("has a malformed extension (")


@pytest.mark.parametrize(
    "twice",
    [
        (CONSTRAINTS_OF_LEAF, CONSTRAINTS_OF_CA),
        (USAGE_OF_LEAF, USAGE_OF_CA),
        (FOR_SERVERS, FOR_CLIENTS),
    ],
)
def test_the_same_extension_twice_is_fatal_whatever_it_says(twice):
    for flaws in (of_leaf(*twice), of_authority(*twice)):
        (flaw,) = flaws
        assert flaw == Flaw(f"has an extension twice ({twice[0][0].oid.dotted_string})", fatal=True)


def test_an_unknown_extension_is_fine():
    unknown = x509.ObjectIdentifier("1.2.3.4")
    assert of_leaf((garbage(unknown), False)) == []


def test_a_malformed_certificate_is_expired_all_the_same():
    oid = ExtensionOID.KEY_USAGE
    late, malformed = of_leaf((garbage(oid), True), now=NOW + 400 * DAY)
    assert late.text.startswith("expired on")
    assert malformed.text.startswith("has a malformed extension")


KNOWN = [value for name, value in vars(ExtensionOID).items() if name.isupper()]


@given(st.sampled_from(KNOWN), st.binary(max_size=40), st.booleans())
def test_whatever_is_in_an_extension_nothing_is_raised(oid, content, critical):
    flaws = [
        *of_leaf((garbage(oid, content), critical)),
        *of_authority((garbage(oid, content), critical)),
    ]
    assert all(flaw.text.isprintable() for flaw in flaws)


@cache
def issued():
    return minting.der(mint("joe", key(), extensions=OF_SERVER))


# A negative serial number, say, is warned of when the certificate is loaded.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_is_changed_in_a_certificate_nothing_is_raised(changes):
    der = bytearray(issued())
    for place, byte in changes:
        der[place % len(der)] = byte
    try:
        changed = x509.load_der_x509_certificate(bytes(der))
    except (ValueError, x509.InvalidVersion):
        return  # no certificate at all: it gets no further than the TLS library
    flaws = [*flaws_of_leaf(changed, Purpose.CLIENT, NOW), *flaws_of_authority(changed, NOW)]
    assert all(flaw.text.isprintable() for flaw in flaws)
