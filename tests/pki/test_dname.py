"""The spelling of subjects, held against the GnuTLS of this host."""

import ctypes
import datetime as dt
import functools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from hypothesis import given
from hypothesis import strategies as st

from proxyd.pki.dname import _KNOWN, distinguished_name, dname_from_der, subject_of

OCTETS, UTF8, NUMERIC, PRINTABLE, TELETEX, IA5 = 0x04, 0x0C, 0x12, 0x13, 0x14, 0x16
VISIBLE, UNIVERSAL, BMP, SEQUENCE, SET = 0x1A, 0x1C, 0x1E, 0x30, 0x31
CN, COUNTRY, ORGANIZATION, UNIT = "2.5.4.3", "2.5.4.6", "2.5.4.10", "2.5.4.11"
DOMAIN, XMPP = "0.9.2342.19200300.100.1.25", "1.3.6.1.5.5.7.8.5"
EMAIL, OGRN = "1.2.840.113549.1.9.1", "1.2.643.100.1"
PASSWORD, FRIENDLY, KEY_ID = (f"1.2.840.113549.1.9.{number}" for number in (7, 20, 21))
UNKNOWN = "1.2.3.4.5"

VERSION_3 = b"\xa0\x03\x02\x01\x02"

# The list in docs/protocol/tls.md, section 6.
NAMES = (
    "C,ST,L,O,OU,CN,DC,UID,EMAIL,street,title,serialNumber,surName,givenName,initials,"
    "generationQualifier,pseudonym,dnQualifier,postalCode,name,description,businessCategory,"
    "telephoneNumber,userPrincipalName,placeOfBirth,gender,countryOfCitizenship,"
    "countryOfResidence,XmppAddr,jurisdictionOfIncorporationLocalityName,"
    "jurisdictionOfIncorporationStateOrProvinceName,jurisdictionOfIncorporationCountryName,"
    "OGRN,SNILS,OGRNIP,INN"
)


class Datum(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_uint))


@functools.cache
def gnutls():
    library = ctypes.CDLL("libgnutls.so.30")
    library.gnutls_x509_dn_oid_name.restype = ctypes.c_char_p
    library.gnutls_check_version.restype = ctypes.c_char_p
    return library


def gnutls_subject(der):
    """What gnutls_x509_crt_get_dn says of a certificate; None when it cannot say anything."""
    crt = ctypes.c_void_p()
    gnutls().gnutls_x509_crt_init(ctypes.byref(crt))
    try:
        if gnutls().gnutls_x509_crt_import(crt, ctypes.byref(Datum(der, len(der))), 0) < 0:
            return None
        text = ctypes.create_string_buffer(200_000)
        size = ctypes.c_size_t(len(text))
        if gnutls().gnutls_x509_crt_get_dn(crt, text, ctypes.byref(size)) < 0:
            return None
        return text.raw[: size.value].decode("utf-8", "surrogateescape")
    finally:
        gnutls().gnutls_x509_crt_deinit(crt)


def tlv(tag, *contents):
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for arc in (40 * first + second, *rest):
        sevens = [arc >> shift & 0x7F for shift in range(0, max(arc.bit_length(), 1), 7)]
        out += bytes([0x80 | seven for seven in reversed(sevens[1:])] + sevens[:1])
    return tlv(0x06, out)


def name(*rdns):
    """The DER of a Name; an RDN is a list of (OID, tag, content)."""
    return tlv(
        SEQUENCE,
        *(
            tlv(SET, *(tlv(SEQUENCE, oid(of), tlv(tag, content)) for of, tag, content in rdn))
            for rdn in rdns
        ),
    )


@functools.cache
def key():
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def public_key():
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key().public_key().public_bytes(serialization.Encoding.DER, form)


def certificate(subject, *, version=VERSION_3):
    """The DER of a certificate with whatever subject. GnuTLS looks at no signature here."""
    algorithm = tlv(SEQUENCE, oid("1.2.840.10045.4.3.2"))
    times = tlv(SEQUENCE, tlv(0x17, b"250101000000Z"), tlv(0x17, b"450101000000Z"))
    body = [version, tlv(0x02, b"\x01"), algorithm, tlv(SEQUENCE), times, subject, public_key()]
    return tlv(SEQUENCE, tlv(SEQUENCE, *body), algorithm, tlv(0x03, b"\0sig"))


def both(subject):
    return dname_from_der(subject), gnutls_subject(certificate(subject))


def test_every_known_name_is_the_one_that_gnutls_has():
    for dotted, known in _KNOWN.items():
        theirs = gnutls().gnutls_x509_dn_oid_name(dotted.encode(), 0)
        assert gnutls().gnutls_x509_dn_oid_known(dotted.encode()) == 1
        assert known.name == (theirs.decode() if theirs else dotted)


def test_no_name_of_gnutls_is_missing():
    assert {known.name for known in _KNOWN.values()} - set(_KNOWN) == set(NAMES.split(","))
    candidates = [
        *(f"2.5.4.{n}" for n in range(130)),
        *(f"1.2.840.113549.1.9.{n}" for n in range(60)),
        *(f"0.9.2342.19200300.100.1.{n}" for n in range(70)),
        *(f"1.3.6.1.5.5.7.{m}.{n}" for m in (8, 9) for n in range(20)),
        *(f"1.3.6.1.4.1.311.60.2.1.{n}" for n in range(10)),
        *(f"1.2.643.100.{n}" for n in range(120)),
        *(f"1.2.643.3.131.1.{n}" for n in range(10)),
        *(f"1.2.840.113556.1.4.{n}" for n in range(650, 660)),
    ]
    theirs = {o for o in candidates if gnutls().gnutls_x509_dn_oid_known(o.encode())}
    assert theirs == set(_KNOWN)


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (UTF8, "aä,€😀".encode()),
        (PRINTABLE, b"GB"),
        (IA5, b"joe@example.com"),
        (NUMERIC, b"12 34"),
        (TELETEX, b"plain; ascii"),
        (TELETEX, b"M\xfcller"),
        (BMP, "aä,€😀".encode("utf-16-be")),
        (UNIVERSAL, "aä".encode("utf-32-be")),
        (VISIBLE, b"visible"),
        (OCTETS, b"octets+"),
        (0x03, b"\0bits"),
        (0x02, b"\x01"),
        (0x01, b"\xff"),
        (SEQUENCE, tlv(UTF8, b"inner")),
        (0x2C, tlv(UTF8, b"pieces")),
    ],
)
def test_every_type_of_string_is_spelled_as_gnutls_does(tag, content):
    for dotted in [*_KNOWN, UNKNOWN, "2.999.1", "0.0", "1.39.1", "2.5.4.1000000"]:
        ours, theirs = both(name([(dotted, tag, content)]))
        assert ours == theirs


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (
            name(
                [(COUNTRY, PRINTABLE, b"GB")],
                [(ORGANIZATION, UTF8, b"Red Hat")],
                [(CN, UTF8, b"joe")],
            ),
            None,
        ),
        (
            name([(UNIT, UTF8, b"b"), (CN, UTF8, b"a")], [(COUNTRY, PRINTABLE, b"GB")]),
            "OU=b+CN=a,C=GB",
        ),
        (name([(CN, UTF8, b"a"), (CN, UTF8, b"a")]), "CN=a+CN=a"),
        (name([(CN, UTF8, b' #a,+"\\<>;=/* ')]), r"CN=\ #a\,\+\"\\\<\>\;=/*\ "),
        (name([(CN, UTF8, b"#a #")]), r"CN=\#a #"),
        (name([(CN, UTF8, b" ")]), "CN=\\ "),
        (name([(CN, UTF8, b"  ")]), "CN=\\ \\ "),
        (name([(CN, UTF8, b"a\nb\x7f\x01")]), "CN=a\nb\x7f\x01"),
        (name([(CN, UTF8, b"a\0b")]), "CN=#0c03610062"),
        (name([(CN, UTF8, b"ab\0")]), "CN=#0c03616200"),
        (name([(DOMAIN, IA5, b"a\0")]), "DC=#16026100"),
        (name([(CN, UTF8, b"a\xff")]), "CN=a\udcff"),
        (name([(CN, PRINTABLE, b"a\xe4*@")]), "CN=a\udce4*@"),
        (name([(DOMAIN, IA5, b"\xe4")]), "DC=\udce4"),
        (name([(COUNTRY, UTF8, b"GB")]), "C=#0c024742"),
        (name([(CN, TELETEX, b"a\xe4")]), r"CN=\#61e4"),
        (name([(CN, TELETEX, b"a\n")]), r"CN=\#610a"),
        (name([(CN, TELETEX, b"a\0")]), r"CN=\#6100"),
        (name([(CN, UNIVERSAL, b"\0\0\0a")]), r"CN=\#00000061"),
        (name([(CN, BMP, b"\0a\0")]), "CN=a"),
        (name([(CN, BMP, b"a")]), "CN="),
        (name([(CN, BMP, b"\0\0\0")]), "CN="),
        (name([(CN, BMP, b"\0a\0\0\0")]), "CN=a"),
        (name([(CN, BMP, b"\xd8\0")]), r"CN=\#d800"),
        (name([(CN, BMP, b"\0a\0\0")]), "CN=a"),
        (name([(CN, BMP, b"\0\0")]), "CN=#1e020000"),
        (name([(CN, BMP, b"\0a\0\0\0b")]), "CN=#1e06006100000062"),
        (name([(FRIENDLY, BMP, b"\0,")]), rf"{FRIENDLY}=\,"),
        (name([(FRIENDLY, UTF8, b"a")]), f"{FRIENDLY}=#0c0161"),
        (name([(PASSWORD, UTF8, b"")]), f"{PASSWORD}=#0c00"),
        (name([(PASSWORD, IA5, b"a")]), f"{PASSWORD}=#160161"),
        (name([(KEY_ID, OCTETS, b"a,\xff")]), f"{KEY_ID}=a\\,\udcff"),
        (name([(UNKNOWN, UTF8, b"")]), f"{UNKNOWN}=#0c00"),
        (name([(CN, UTF8, b"x" * 600)]), f"CN={'x' * 600}"),
        (name([(CN, UTF8, b"x" * 70_000)]), f"CN={'x' * 70_000}"),
    ],
)
def test_quirks_are_those_of_gnutls(subject, expected):
    ours, theirs = both(subject)

    assert ours == theirs
    assert expected in (None, ours)


@pytest.mark.parametrize(
    ("dotted", "tag", "expected", "before_3_8_4"),
    [
        (DOMAIN, IA5, "DC=", "DC=#1600"),
        (COUNTRY, PRINTABLE, "C=", "C=#1300"),
        (COUNTRY, UTF8, "C=", "C=#0c00"),
        (EMAIL, IA5, "EMAIL=", "EMAIL=#1600"),
        (XMPP, UTF8, "XmppAddr=", "XmppAddr=#0c00"),
        (OGRN, NUMERIC, "OGRN=", "OGRN=#1200"),
        (FRIENDLY, BMP, f"{FRIENDLY}=", f"{FRIENDLY}=#1e00"),
        (KEY_ID, OCTETS, f"{KEY_ID}=", f"{KEY_ID}=#0400"),
    ],
)
def test_an_empty_attribute_is_spelled_as_newer_versions_do(dotted, tag, expected, before_3_8_4):
    ours, theirs = both(name([(dotted, tag, b"")]))

    assert ours == expected
    assert theirs == (expected if gnutls().gnutls_check_version(b"3.8.4") else before_3_8_4)


LONG_OID = ".".join(["1"] * 62) + ".12"  # 126 characters


def test_an_oid_may_have_as_many_digits_as_gnutls_has_room_for():
    ours, theirs = both(name([(LONG_OID, UTF8, b"a")]))

    assert ours == theirs == f"{LONG_OID}=#0c0161"


UNSPEAKABLE = {
    "an empty name for a person": name([(CN, UTF8, b"")]),
    "another empty name": name([(CN, BMP, b"")]),
    "nothing at all for a person": name([(CN, 0x05, b"")]),
    "a NUL among octets": name([(KEY_ID, OCTETS, b"ab\0c")]),
    "a long OID": name([(f"{LONG_OID}3", UTF8, b"a")]),
    "a number of more than 64 bits": name([(f"2.5.4.{2**64}", UTF8, b"a")]),
    "an OID with leading zeros": tlv(
        SEQUENCE, tlv(SET, tlv(SEQUENCE, b"\x06\x04\x55\x04\x80\x03", tlv(UTF8, b"a")))
    ),
    "an empty OID": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, b"\x06\0", tlv(UTF8, b"a")))),
    "an OID that is none": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, tlv(UTF8, b"a") * 2))),
    "two values": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(CN), tlv(UTF8, b"a") * 2))),
    "no value": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(CN)))),
    "a value without an end": tlv(
        SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(CN), b"\x2c\x80\x0c\x01a\0\0"))
    ),
    "a value that is cut off": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(CN), b"\x0c\x02a"))),
    "a value without a length": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(CN), b"\x0c"))),
    "a sequence for a set": tlv(SEQUENCE, tlv(SEQUENCE, tlv(SEQUENCE, oid(CN), tlv(UTF8, b"a")))),
}


@pytest.mark.parametrize("case", UNSPEAKABLE)
def test_where_gnutls_has_no_name_there_is_none(case):
    with pytest.raises(ValueError, match=r"\w"):
        dname_from_der(UNSPEAKABLE[case])
    assert gnutls_subject(certificate(UNSPEAKABLE[case])) is None


STRICTER = {
    # GnuTLS fails an assertion here and takes its process with it, or it writes a negative number.
    "an RDN without attributes": tlv(SEQUENCE, tlv(SET)),
    "a number of 64 bits": name([(f"2.5.4.{2**63}", UTF8, b"a")]),
    # It reads these; cryptography loads no certificate that has them.
    "a length with a spare byte": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(CN), b"\x0c\x81\x01a"))),
    "a length with a zero in front": tlv(
        SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(CN), b"\x0c\x82\0\xff" + b"a" * 255))
    ),
    "a tag of two bytes": tlv(
        SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(UNKNOWN), b"\x1f\x81\x01\x01a"))
    ),
    "an OID that is cut off": tlv(
        SEQUENCE, tlv(SET, tlv(SEQUENCE, b"\x06\x03\x55\x04\x83", tlv(UTF8, b"a")))
    ),
    # These are no name in any certificate.
    "nothing": b"",
    "two names": tlv(SEQUENCE) * 2,
    "a set": tlv(SET),
    "a byte": b"\x30",
    "a length of five bytes": b"\x30\x85\x01\0\0\0\0",
    "a length that is too long": b"\x30\x84\x7f\xff\xff\xff",
    "a length that is cut off": b"\x30\x82\x01",
}


@pytest.mark.parametrize("case", STRICTER)
def test_what_is_no_der_has_no_name(case):
    with pytest.raises(ValueError, match=r"\w"):
        dname_from_der(STRICTER[case])


def test_an_empty_subject_is_empty_where_gnutls_has_none():
    assert both(tlv(SEQUENCE)) == ("", None)
    assert distinguished_name(x509.Name([])) == ""


def signed(subject):
    now = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=9999))
        .serial_number(1)
        .public_key(key().public_key())
        .sign(key(), hashes.SHA256())
    )


def test_a_certificate_and_its_name_say_the_same():
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "GB"),
            x509.NameAttribute(x509.NameOID.STATE_OR_PROVINCE_NAME, "London"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Red Hat, Inc."),
            x509.NameAttribute(x509.NameOID.EMAIL_ADDRESS, "joe@example.com"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "joe"),
        ]
    )
    issued = signed(subject)
    expected = "C=GB,ST=London,O=Red Hat\\, Inc.,EMAIL=joe@example.com,CN=joe"

    assert distinguished_name(subject) == expected
    assert subject_of(issued) == expected
    assert gnutls_subject(issued.public_bytes(serialization.Encoding.DER)) == expected


def test_a_name_of_cryptography_has_its_sets_in_order():
    pair = [
        x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "b"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "a"),
    ]

    assert distinguished_name(x509.Name([x509.RelativeDistinguishedName(pair)])) == "CN=a+OU=b"


@pytest.mark.parametrize("version", [VERSION_3, b""])
def test_a_subject_that_cryptography_refuses_is_read(version):
    subject = name([(CN, UTF8, b"joe"), (CN, UTF8, b"joe")], [(UNIT, UTF8, b"admins")])
    loaded = x509.load_der_x509_certificate(certificate(subject, version=version))

    with pytest.raises(ValueError, match="duplicate"):
        _ = loaded.subject
    assert subject_of(loaded) == "CN=joe+CN=joe,OU=admins"


def test_a_subject_of_an_unusual_type_is_read():
    loaded = x509.load_der_x509_certificate(certificate(name([(CN, 0x03, b"\0bits")])))

    with pytest.raises(TypeError):
        _ = loaded.subject
    assert subject_of(loaded) == "CN=#03050062697473"


ENCODINGS = {
    UTF8: "utf-8",
    PRINTABLE: "latin-1",
    IA5: "latin-1",
    NUMERIC: "latin-1",
    TELETEX: "latin-1",
    BMP: "utf-16-be",
    UNIVERSAL: "utf-32-be",
    OCTETS: "utf-8",
    VISIBLE: "latin-1",
}
# Text is likelier to be special than chance would have it.
TEXTS = st.text(max_size=20) | st.text(st.sampled_from(' #,+"\\<>;=\0aä€😀\n'), max_size=6)
VALUES = st.one_of(
    st.builds(
        lambda tag, text: (tag, text.encode(ENCODINGS[tag], "replace")),
        st.sampled_from(sorted(ENCODINGS)),
        TEXTS,
    ),
    st.tuples(st.sampled_from(sorted(ENCODINGS)), st.binary(max_size=20)),
)
# Empty ones are spelled differently from version to version; the table above has them.
ATTRIBUTES = st.tuples(st.sampled_from([*_KNOWN, UNKNOWN, "2.999.5.1234567"]), VALUES).map(
    lambda pair: (pair[0], pair[1][0], pair[1][1] or b"x")
)
SUBJECTS = st.lists(st.lists(ATTRIBUTES, min_size=1, max_size=3), min_size=1, max_size=5)


@given(SUBJECTS)
def test_any_subject_is_spelled_as_gnutls_does(rdns):
    subject = name(*rdns)
    try:
        ours = dname_from_der(subject)
    except ValueError:
        ours = None

    assert ours == gnutls_subject(certificate(subject))


TYPES = st.sampled_from([_ASN1Type.UTF8String, _ASN1Type.BMPString, _ASN1Type.UniversalString])
CRYPTOGRAPHYS = st.builds(
    lambda dotted, text, kind: x509.NameAttribute(
        x509.ObjectIdentifier(dotted), text, kind, _validate=False
    ),
    st.sampled_from([*_KNOWN, UNKNOWN]),
    st.text(min_size=1, max_size=20),
    TYPES,
)


@pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning")
@given(
    st.lists(
        st.lists(CRYPTOGRAPHYS, min_size=1, max_size=3, unique=True).map(
            x509.RelativeDistinguishedName
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_name_of_cryptography_is_spelled_as_gnutls_does(rdns):
    subject = x509.Name(rdns)
    try:
        ours = distinguished_name(subject)
    except ValueError:
        ours = None

    assert ours == gnutls_subject(certificate(subject.public_bytes()))


@given(st.binary(max_size=80), SUBJECTS, st.data())
def test_any_bytes_give_a_text_or_value_error(noise, rdns, data):
    subject = name(*rdns)
    at = data.draw(st.integers(0, len(subject)))
    width = data.draw(st.integers(0, 3))
    for hostile in (noise, subject[:at], subject[:at] + noise[:4] + subject[at + width :]):
        try:
            text = dname_from_der(hostile)
        except ValueError:
            continue
        assert "\0" not in text
        assert text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == text
