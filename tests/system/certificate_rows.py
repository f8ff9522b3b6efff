"""Certificates right and wrong in every way, each with libvirt's verdict and ours.

A row says what is particular about it, what a client sends or a daemon is given, and what libvirt
and proxyd make of it. `libvirt` is the verdict of 9.0.0, Debian 12's; `newer` that of 11.3.0 as
Debian 13 has it, with what came in 11.6, and it is the same unless it is given. Where ours differs
from one of them the row names the reason by a key, which docs/tls.md explains.
`test_certificate_matrix.py` holds the verdicts against the real daemons.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from tests.bed.minting import (
    DAY,
    Extension,
    ListTemplate,
    Template,
    constraints,
    extension,
    named,
    purposes,
    raw,
    usage,
)
from tests.bed.tls import Verdict

ACCEPTED, REFUSED, NO_START = Verdict

SECOND = timedelta(seconds=1)
EXPIRED = {"begins": -9 * DAY, "ends": -DAY}
FUTURE = {"begins": DAY, "ends": 9 * DAY}

CONSTRAINTS, USAGE = ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE
PURPOSES = ExtensionOID.EXTENDED_KEY_USAGE
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
ANY, CODE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.CODE_SIGNING
MAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION
UNKNOWN = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
SIGNS, ENCIPHERS = "digital_signature", "key_encipherment"
CERTIFIES, REVOKES = "key_cert_sign", "crl_sign"


# What a certificate is by default, and what a row changes of it


def changed(usual: tuple[Extension, ...], new: tuple[Extension, ...], without: object):
    """The new ones stand in the place of the usual ones of their kind."""
    kinds = {each.oid for each in new} | {without}
    return (*(each for each in usual if each.oid not in kinds), *new)


def authority(name, *new, without=None, **rest) -> Template:
    """A CA, a root unless it has an issuer."""
    usual = (constraints(ca=True), usage(CERTIFIES, REVOKES))
    return Template(name=named(name), extensions=changed(usual, new, without), **rest)


ROOT = authority("root")


def client(*new, issuer=ROOT, name="joe", without=None, **rest) -> Template:
    usual = (constraints(ca=False), usage(SIGNS, ENCIPHERS), purposes(CLIENT))
    name = name if isinstance(name, x509.Name) else named(name)
    return Template(name=name, issuer=issuer, extensions=changed(usual, new, without), **rest)


def server(*new, issuer=ROOT, name="server", without=None, **rest) -> Template:
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    usual = (
        constraints(ca=False),
        usage(SIGNS, ENCIPHERS),
        purposes(SERVER),
        extension(names, critical=False),
    )
    extensions = changed(usual, new, without)
    return Template(name=named(name), issuer=issuer, extensions=extensions, **rest)


JOE = client()


def units(size) -> x509.Name:
    """A name of so many bytes, of the shortest parts."""
    unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "a")
    return x509.Name([unit] * (size // 12))


def padding(size) -> Extension:
    """An extension that nobody reads."""
    return raw(UNKNOWN, bytes(size), critical=False)


MORE = tuple(authority(f"more {number}") for number in range(18))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRow:
    """A client knocks. `trusts` is what the daemons' ca_file has to hold for it."""

    what: str
    sends: tuple[Template, ...]
    trusts: tuple[Template, ...]
    libvirt: Verdict
    newer: Verdict
    ours: Verdict
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRow:
    """A daemon is to start with these files, and then a good client, or `client`, knocks."""

    what: str
    cert_file: tuple[Template, ...]
    ca_file: tuple[Template, ...]
    crl_file: tuple[ListTemplate, ...] | bytes | None
    client: Template
    libvirt: Verdict
    newer: Verdict
    ours: Verdict
    why: str


def row(what, sends, libvirt, *, trusts=(ROOT,), newer=None, ours=None, why="") -> ClientRow:
    """`ours` is libvirt's verdict unless there is a reason."""
    return ClientRow(
        what=what,
        sends=(sends,) if isinstance(sends, Template) else tuple(sends),
        trusts=(trusts,) if isinstance(trusts, Template) else tuple(trusts),
        libvirt=libvirt,
        newer=libvirt if newer is None else newer,
        ours=libvirt if ours is None else ours,
        why=why,
    )


def start(
    what, libvirt, *, cert=None, ca=(ROOT,), crl=None, knocks=JOE, newer=None, ours=None, why=""
) -> DaemonRow:
    cert = server() if cert is None else cert
    return DaemonRow(
        what=what,
        cert_file=(cert,) if isinstance(cert, Template) else tuple(cert),
        ca_file=(ca,) if isinstance(ca, Template) else tuple(ca),
        crl_file=(crl,) if isinstance(crl, ListTemplate) else crl,
        client=knocks,
        libvirt=libvirt,
        newer=libvirt if newer is None else newer,
        ours=libvirt if ours is None else ours,
        why=why,
    )


# A client's own certificate

GARBAGE = b"xx"
LONG_NAME = x509.Name(
    [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{i}" * 60) for i in range(9)]
    + [x509.NameAttribute(NameOID.COMMON_NAME, "joe")]
)
ODD_NAME = x509.Name(
    [
        x509.NameAttribute(UNKNOWN, "what", _ASN1Type.UTF8String),
        x509.NameAttribute(NameOID.COMMON_NAME, "jö*e,\\+", _ASN1Type.BMPString),
    ]
)

LEAVES = (
    row("a good client", JOE, ACCEPTED),
    row("no certificate at all", (), REFUSED),
    row("basicConstraints absent", client(without=CONSTRAINTS), ACCEPTED),
    row("basicConstraints non-critical", client(constraints(ca=False, critical=False)), ACCEPTED),
    row("CA:TRUE critical", client(constraints(ca=True)), REFUSED),
    row("CA:TRUE non-critical", client(constraints(ca=True, critical=False)), REFUSED),
    row("basicConstraints garbage", client(raw(CONSTRAINTS, GARBAGE, critical=False)), REFUSED),
    row("keyUsage absent", client(without=USAGE), ACCEPTED),
    row("keyUsage right, non-critical", client(usage(SIGNS, ENCIPHERS, critical=False)), ACCEPTED),
    row(
        "keyUsage only digitalSignature, critical",
        client(usage(SIGNS)),
        REFUSED,
        newer=ACCEPTED,
        ours=ACCEPTED,
        why="key-encipherment",
    ),
    row(
        "keyUsage digitalSignature and keyAgreement, critical",
        client(usage(SIGNS, "key_agreement")),
        REFUSED,
        newer=ACCEPTED,
        ours=ACCEPTED,
        why="key-encipherment",
    ),
    row(
        "Ed25519, only digitalSignature, critical",
        client(usage(SIGNS), key="Ed25519"),
        REFUSED,
        newer=ACCEPTED,
        ours=ACCEPTED,
        why="key-encipherment",
    ),
    row(
        "RSA, only digitalSignature, critical",
        client(usage(SIGNS), key="RSA-2048"),
        REFUSED,
        newer=ACCEPTED,
        ours=ACCEPTED,
        why="key-encipherment",
    ),
    row(
        "keyUsage only digitalSignature, non-critical",
        client(usage(SIGNS, critical=False)),
        ACCEPTED,
    ),
    row("keyUsage only keyEncipherment, critical", client(usage(ENCIPHERS)), REFUSED),
    row(
        "keyUsage only keyEncipherment, non-critical",
        client(usage(ENCIPHERS, critical=False)),
        REFUSED,
        ours=ACCEPTED,
        why="signature-usage",
    ),
    row("keyUsage only keyCertSign, critical", client(usage(CERTIFIES)), REFUSED),
    row(
        "keyUsage only keyCertSign, non-critical",
        client(usage(CERTIFIES, critical=False)),
        REFUSED,
        ours=ACCEPTED,
        why="signature-usage",
    ),
    row("keyUsage with keyCertSign as well", client(usage(SIGNS, ENCIPHERS, CERTIFIES)), ACCEPTED),
    row("keyUsage nothing, critical", client(raw(USAGE, b"\x03\x01\x00", critical=True)), REFUSED),
    row(
        "keyUsage nothing, non-critical",
        client(raw(USAGE, b"\x03\x01\x00", critical=False)),
        ACCEPTED,
        ours=REFUSED,
        why="empty-extensions",
    ),
    row("keyUsage garbage", client(raw(USAGE, GARBAGE, critical=False)), REFUSED),
    row("extendedKeyUsage absent", client(without=PURPOSES), ACCEPTED),
    row("extendedKeyUsage right, critical", client(purposes(CLIENT, critical=True)), ACCEPTED),
    row("only serverAuth, critical", client(purposes(SERVER, critical=True)), REFUSED),
    row("only serverAuth, non-critical", client(purposes(SERVER)), ACCEPTED),
    row("serverAuth and clientAuth", client(purposes(SERVER, CLIENT, critical=True)), ACCEPTED),
    row("only anyExtendedKeyUsage, critical", client(purposes(ANY, critical=True)), REFUSED),
    row("only anyExtendedKeyUsage, non-critical", client(purposes(ANY)), ACCEPTED),
    row("any and clientAuth", client(purposes(ANY, CLIENT, critical=True)), ACCEPTED),
    row("any and serverAuth, critical", client(purposes(ANY, SERVER, critical=True)), REFUSED),
    row("any and serverAuth, non-critical", client(purposes(ANY, SERVER)), ACCEPTED),
    row("only codeSigning, critical", client(purposes(CODE, critical=True)), ACCEPTED),
    row("only codeSigning, non-critical", client(purposes(CODE)), ACCEPTED),
    row(
        "serverAuth and emailProtection, critical",
        client(purposes(SERVER, MAIL, critical=True)),
        ACCEPTED,
    ),
    row("any and codeSigning, critical", client(purposes(ANY, CODE, critical=True)), ACCEPTED),
    row("only an unknown purpose, critical", client(purposes(UNKNOWN, critical=True)), ACCEPTED),
    row(
        "no purpose in it, critical",
        client(raw(PURPOSES, b"\x30\x00", critical=True)),
        ACCEPTED,
        ours=REFUSED,
        why="empty-extensions",
    ),
    row(
        "no purpose in it, non-critical",
        client(raw(PURPOSES, b"\x30\x00", critical=False)),
        ACCEPTED,
        ours=REFUSED,
        why="empty-extensions",
    ),
    row("extendedKeyUsage garbage", client(raw(PURPOSES, GARBAGE, critical=False)), REFUSED),
    row("unknown extension, critical", client(raw(UNKNOWN, b"\x05\0", critical=True)), REFUSED),
    row(
        "unknown extension, non-critical", client(raw(UNKNOWN, b"\x05\0", critical=False)), ACCEPTED
    ),
    row("the same extension twice", client(usage(SIGNS), usage(SIGNS, ENCIPHERS)), REFUSED),
    row("expired a day ago", client(**EXPIRED), REFUSED),
    row("expired a second ago", client(ends=-SECOND), REFUSED),
    row("valid for 30 seconds more", client(ends=30 * SECOND), ACCEPTED),
    row("valid since now", client(begins=0 * SECOND), ACCEPTED),
    row("valid in 30 seconds", client(begins=30 * SECOND), REFUSED),
    row("valid from tomorrow", client(**FUTURE), REFUSED),
    row("RSA 2048", client(key="RSA-2048"), ACCEPTED),
    row("RSA 1024", client(key="RSA-1024"), ACCEPTED, ours=REFUSED, why="short-keys"),
    row("ECDSA P-384", client(key="P-384"), ACCEPTED),
    row("ECDSA P-521", client(key="P-521"), ACCEPTED),
    row("Ed25519", client(key="Ed25519"), ACCEPTED),
    row("Ed448", client(key="Ed448"), ACCEPTED),
    row("signed with SHA-384", client(digest="SHA384"), ACCEPTED),
    row("signed with SHA-1", client(digest="SHA1"), REFUSED),
    row("signature that is not one", client(has_broken_signature=True), REFUSED),
    row("empty subject", client(name=""), REFUSED),
    row("subject of 600 bytes", client(name=LONG_NAME), ACCEPTED),
    row("odd characters in the subject", client(name=ODD_NAME), ACCEPTED),
    row("serial number 0", client(serial=0), ACCEPTED),
    row("serial number negative", client(serial=-5), ACCEPTED),
    row("serial number of 20 bytes", client(serial=(1 << 159) - 1), ACCEPTED),
    row("serial number of 60 bytes", client(serial=1 << 470), ACCEPTED),
    row("version 1", replace(JOE, version=1, extensions=()), ACCEPTED),
    row("version 1 with extensions", replace(JOE, version=1), REFUSED),
    row(
        "version 2",
        replace(JOE, version=2, extensions=(), has_unique_id=True),
        ACCEPTED,
        ours=REFUSED,
        why="version-2",
    ),
    row("version 5", replace(JOE, version=5), ACCEPTED, ours=REFUSED, why="version-2"),
    row("version 5, self-signed", replace(JOE, version=5, issuer=None), REFUSED),
    row("unique identifier", client(has_unique_id=True), ACCEPTED),
)

# Who signed it

STRANGER = authority("stranger")
IMPOSTOR = replace(ROOT, holder="impostor")
SELF = replace(JOE, issuer=None)
TRUSTED_SELF = replace(SELF, name=named("trusted self"))
TRUSTED_LEAF = client(issuer=STRANGER, name="trusted leaf")
RSA_ROOT = authority("rsa root", key="RSA-2048")

ISSUERS = (
    row("unrelated CA", client(issuer=STRANGER), REFUSED),
    row("unrelated CA that is sent, too", (client(issuer=STRANGER), STRANGER), REFUSED),
    row("CA of the same name with another key", client(forger=IMPOSTOR), REFUSED),
    row("the same, with that CA sent", (client(issuer=IMPOSTOR), IMPOSTOR), REFUSED),
    row("self-signed", SELF, REFUSED),
    row("self-signed CA", authority("self"), REFUSED),
    row("self-signed, but in ca_file", TRUSTED_SELF, REFUSED, trusts=TRUSTED_SELF),
    row("its own certificate in ca_file", TRUSTED_LEAF, REFUSED, trusts=TRUSTED_LEAF),
    row("a CA of ours as a client", authority("sub", issuer=ROOT), REFUSED),
    row("our root itself as a client", ROOT, REFUSED),
    row("RSA CA", client(issuer=RSA_ROOT), ACCEPTED, trusts=RSA_ROOT),
    row("RSA-PSS signature", client(issuer=RSA_ROOT, digest="PSS"), ACCEPTED, trusts=RSA_ROOT),
    row("RSA with SHA-1", client(issuer=RSA_ROOT, digest="SHA1"), REFUSED, trusts=RSA_ROOT),
    row("RSA with MD5", client(issuer=RSA_ROOT, digest="MD5"), REFUSED, trusts=RSA_ROOT),
    row(
        "another CA's key identifier",
        client(raw(ExtensionOID.AUTHORITY_KEY_IDENTIFIER, b"\x30\x04\x80\x02xx", critical=False)),
        ACCEPTED,
    ),
)


# Chains of three and four

MIDDLE = authority("middle", issuer=ROOT)


def chain(what, middle, libvirt, **rest) -> ClientRow:
    """Client, this intermediate, our root."""
    return row(what, (client(issuer=middle), middle), libvirt, **rest)


def middle(name, *new, **rest) -> Template:
    return authority(name, *new, **{"issuer": ROOT, **rest})


SHORT_ROOT = authority("short root", constraints(ca=True, longest=0))
LAST_MIDDLE = middle("last middle", constraints(ca=True, longest=0))
TOO_LOW = middle("too low", issuer=LAST_MIDDLE)
UPPER = middle("upper", constraints(ca=True, longest=1))
LOWER = middle("lower", constraints(ca=True, longest=0), issuer=UPPER)
ANCHOR = middle("anchor", issuer=STRANGER)
OLD_ANCHOR = middle("old anchor", issuer=STRANGER, **EXPIRED)
WEAK_ANCHOR = middle("weak anchor", issuer=RSA_ROOT, digest="SHA1")

CHAINS = (
    chain("chain of three", MIDDLE, ACCEPTED),
    row("the intermediate is not sent", client(issuer=MIDDLE), REFUSED),
    row("the root is sent, too", (client(issuer=MIDDLE), MIDDLE, ROOT), ACCEPTED),
    row("root before intermediate", (client(issuer=MIDDLE), ROOT, MIDDLE), ACCEPTED),
    row("a stranger sent as well", (JOE, STRANGER), ACCEPTED),
    row("an expired stranger sent as well", (JOE, replace(STRANGER, **EXPIRED)), REFUSED),
    row("a future stranger sent as well", (JOE, replace(STRANGER, **FUTURE)), REFUSED),
    row("the same one twice", (JOE, JOE), ACCEPTED),
    chain("intermediate without CA:TRUE", middle("ca false", constraints(ca=False)), REFUSED),
    chain("without basicConstraints", middle("no bc", without=CONSTRAINTS), REFUSED),
    chain(
        "intermediate: basicConstraints non-critical",
        middle("bc non", constraints(ca=True, critical=False)),
        ACCEPTED,
    ),
    chain("intermediate: keyUsage absent", middle("no ku", without=USAGE), ACCEPTED),
    chain("without keyCertSign, critical", middle("ku crit", usage(REVOKES)), REFUSED),
    chain(
        "without keyCertSign, non-critical",
        middle("ku non", usage(REVOKES, critical=False)),
        REFUSED,
    ),
    chain("only serverAuth", middle("eku server", purposes(SERVER)), ACCEPTED),
    chain(
        "intermediate: only serverAuth, critical",
        middle("eku crit", purposes(SERVER, critical=True)),
        ACCEPTED,
    ),
    chain("only clientAuth", middle("eku client", purposes(CLIENT)), ACCEPTED),
    chain("only anyExtendedKeyUsage", middle("eku any", purposes(ANY)), ACCEPTED),
    chain("only codeSigning", middle("eku code", purposes(CODE)), ACCEPTED),
    chain(
        "unknown critical extension",
        middle("unknown", raw(UNKNOWN, b"\x05\0", critical=True)),
        REFUSED,
    ),
    chain("expired intermediate", middle("expired", **EXPIRED), REFUSED),
    chain("future intermediate", middle("future", **FUTURE), REFUSED),
    chain("intermediate signed with SHA-1", middle("sha1", digest="SHA1"), REFUSED),
    chain(
        "intermediate of RSA 1024",
        middle("rsa1024", key="RSA-1024"),
        ACCEPTED,
        ours=REFUSED,
        why="short-keys",
    ),
    chain("intermediate of Ed25519", middle("ed25519", key="Ed25519"), ACCEPTED),
    chain("intermediate of version 1", replace(middle("v1"), version=1, extensions=()), REFUSED),
    chain(
        "intermediate of an impostor", middle("forged", forger=IMPOSTOR), REFUSED, trusts=(ROOT,)
    ),
    chain(
        "root with pathlen 0", middle("below short", issuer=SHORT_ROOT), REFUSED, trusts=SHORT_ROOT
    ),
    row("a client below pathlen 0", client(issuer=SHORT_ROOT), ACCEPTED, trusts=SHORT_ROOT),
    row(
        "pathlen of an intermediate exceeded",
        (client(issuer=TOO_LOW), TOO_LOW, LAST_MIDDLE),
        REFUSED,
    ),
    row("chain of four in the pathlen", (client(issuer=LOWER), LOWER, UPPER), ACCEPTED),
    row("no root, only an intermediate in ca_file", client(issuer=ANCHOR), ACCEPTED, trusts=ANCHOR),
    row(
        "the same, with it and its root sent",
        (client(issuer=ANCHOR), ANCHOR, STRANGER),
        ACCEPTED,
        trusts=ANCHOR,
    ),
    row("expired intermediate in ca_file", client(issuer=OLD_ANCHOR), REFUSED, trusts=OLD_ANCHOR),
    row(
        "intermediate in ca_file signed with SHA-1",
        client(issuer=WEAK_ANCHOR),
        ACCEPTED,
        trusts=(WEAK_ANCHOR, RSA_ROOT),
    ),
)


# Roots, which are trusted and may be wrong all the same


def root(what, trusted, libvirt, **rest) -> ClientRow:
    """A client of this root, which is in ca_file."""
    return row(what, client(issuer=trusted), libvirt, trusts=trusted, **rest)


def names_limited(**which) -> Extension:
    """nameConstraints over subjects."""
    limits = {"permitted_subtrees": None, "excluded_subtrees": None}
    organization = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")])
    limits |= {f"{each}_subtrees": [x509.DirectoryName(organization)] for each in which}
    return extension(x509.NameConstraints(**limits), critical=True)


def dns_limited(*, critical) -> Extension:
    value = x509.NameConstraints(None, [x509.DNSName("example.com")])
    return extension(value, critical=critical)


EXAMPLE_JOE = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        x509.NameAttribute(NameOID.COMMON_NAME, "joe"),
    ]
)
IN_EXAMPLE_COM = extension(
    x509.SubjectAlternativeName([x509.DNSName("joe.example.com")]), critical=False
)
EXCLUDES = authority("excludes", names_limited(excluded=True))
PERMITS = authority("permits", names_limited(permitted=True))
NO_DNS = authority("no dns", dns_limited(critical=True))
NO_DNS_SOFT = authority("no dns soft", dns_limited(critical=False))
TWIN_A, TWIN_B = authority("twin", holder="a"), authority("twin", holder="b")
RENEWED = authority("renewed")
OUTDATED = replace(RENEWED, **EXPIRED)
TWICE = authority("twice")
UNFIT_SIGNATURE = authority("unfit signature", has_broken_signature=True)
FAR_DOWN = authority("far down")
FILLERS = tuple(authority(f"filler {number}") for number in range(20))

ROOTS = (
    root("expired root", authority("root expired", **EXPIRED), REFUSED),
    root("future root", authority("root future", **FUTURE), REFUSED),
    root("root without basicConstraints", authority("root no bc", without=CONSTRAINTS), ACCEPTED),
    root("root with CA:FALSE", authority("root false", constraints(ca=False)), REFUSED),
    root(
        "root with basicConstraints non-critical",
        authority("root bc non", constraints(ca=True, critical=False)),
        ACCEPTED,
    ),
    root("root without keyUsage", authority("root no ku", without=USAGE), ACCEPTED),
    root("root without keyCertSign", authority("root ku crit", usage(REVOKES)), REFUSED),
    root(
        "root without keyCertSign, non-critical",
        authority("root ku non", usage(REVOKES, critical=False)),
        REFUSED,
    ),
    root("root only for serverAuth", authority("root eku", purposes(SERVER)), ACCEPTED),
    root(
        "root with an unknown critical extension",
        authority("root unknown", raw(UNKNOWN, b"\x05\0", critical=True)),
        REFUSED,
    ),
    root("root of version 1", replace(authority("root v1"), version=1, extensions=()), ACCEPTED),
    root("root signed with SHA-1", authority("root sha1", digest="SHA1"), ACCEPTED),
    root("root signed with MD5", authority("root md5", key="RSA-2048", digest="MD5"), ACCEPTED),
    root("root with a signature that is not one", UNFIT_SIGNATURE, ACCEPTED),
    root(
        "root of RSA 1024",
        authority("root rsa1024", key="RSA-1024"),
        ACCEPTED,
        ours=REFUSED,
        why="short-keys",
    ),
    root("root of Ed25519", authority("root ed25519", key="Ed25519"), ACCEPTED),
    root("root of Ed448", authority("root ed448", key="Ed448"), ACCEPTED),
    root("root of P-521", authority("root p521", key="P-521", digest="SHA512"), ACCEPTED),
    row(
        "a subject that its CA excludes",
        client(issuer=EXCLUDES, name=EXAMPLE_JOE),
        REFUSED,
        trusts=EXCLUDES,
    ),
    row(
        "a subject that its CA does not exclude",
        client(issuer=EXCLUDES),
        REFUSED,
        trusts=EXCLUDES,
        ours=ACCEPTED,
        why="directory-names",
    ),
    row(
        "a subject that its CA permits",
        client(issuer=PERMITS, name=EXAMPLE_JOE),
        ACCEPTED,
        trusts=PERMITS,
    ),
    row(
        "a subject that its CA does not permit",
        client(issuer=PERMITS),
        ACCEPTED,
        trusts=PERMITS,
        ours=REFUSED,
        why="directory-names",
    ),
    row(
        "a host name that its CA excludes",
        client(IN_EXAMPLE_COM, issuer=NO_DNS),
        REFUSED,
        trusts=NO_DNS,
    ),
    row(
        "the same, non-critical",
        client(IN_EXAMPLE_COM, issuer=NO_DNS_SOFT),
        REFUSED,
        trusts=NO_DNS_SOFT,
    ),
    row("no host name where one is excluded", client(issuer=NO_DNS), ACCEPTED, trusts=NO_DNS),
    row(
        "first of two roots of one name",
        client(issuer=TWIN_A),
        REFUSED,
        trusts=(TWIN_A, TWIN_B),
        ours=ACCEPTED,
        why="same-name-roots",
    ),
    row(
        "second of two roots of one name",
        client(issuer=TWIN_B),
        ACCEPTED,
        trusts=(TWIN_A, TWIN_B),
        ours=REFUSED,
        why="same-name-roots",
    ),
    row(
        "renewed root, the old first", client(issuer=RENEWED), ACCEPTED, trusts=(OUTDATED, RENEWED)
    ),
    row("root twice in ca_file", client(issuer=TWICE), ACCEPTED, trusts=(TWICE, TWICE)),
    row("root behind more than 20 others", client(issuer=FAR_DOWN), ACCEPTED, trusts=FAR_DOWN),
    row("subject of 1000 bytes", client(name=units(1000)), ACCEPTED),
    row("subject of 1100 bytes", client(name=units(1100)), ACCEPTED, ours=REFUSED, why="sizes"),
    row("extensions of 4000 bytes", client(padding(3800)), ACCEPTED),
    row("extensions of 4200 bytes", client(padding(4200)), ACCEPTED, ours=REFUSED, why="sizes"),
    row("20 KiB", client(padding(20480)), ACCEPTED, ours=REFUSED, why="sizes"),
    row("15 more than it needs", (JOE, *MORE[:15]), ACCEPTED),
    row("16 more than it needs", (JOE, *MORE[:16]), REFUSED),
    row("18 more than it needs", (JOE, *MORE), REFUSED),
)

# Revocation lists: one file with the lists of many CAs


def listed(name, *, ca=(), **rest) -> tuple[Template, ListTemplate]:
    """A CA and its list, which has the client `revoked by …` on it."""
    issuer = authority(name, *ca)
    gone = client(issuer=issuer, name=f"revoked by {name}")
    return issuer, ListTemplate(issuer=issuer, **{"revoked": (gone,), **rest})


def revoked_by(issuer) -> Template:
    (name,) = (each.value for each in issuer.name)
    return client(issuer=issuer, name=f"revoked by {name}")


LISTED, PLAIN_LIST = listed("listed")
LATE, LATE_LIST = listed("late", **EXPIRED)
EARLY, EARLY_LIST = listed("early", **FUTURE)
FORGED, FORGED_LIST = listed("forged", forger=IMPOSTOR)
NO_RIGHT, NO_RIGHT_LIST = listed("no right", ca=[usage(CERTIFIES)])
ENDLESS, ENDLESS_LIST = listed("endless", ends=None)
OLD_DIGEST, OLD_DIGEST_LIST = listed("old digest", digest="SHA1")
STRANGE, STRANGE_LIST = listed("strange", extensions=(raw(UNKNOWN, b"\x05\0", critical=True),))
PARTIAL, PARTIAL_LIST = listed(
    "partial",
    extensions=(
        extension(
            x509.IssuingDistributionPoint(None, None, False, True, None, False, False),
            critical=True,
        ),
    ),
)
TWO_LISTS, FIRST_LIST = listed("two lists", begins=-9 * DAY)
SECOND_LIST = replace(FIRST_LIST, revoked=(), begins=-DAY)
LISTED_ROOT = authority("listed root")
GONE_MIDDLE = authority("gone middle", issuer=LISTED_ROOT)
KEPT_MIDDLE = authority("kept middle", issuer=LISTED_ROOT)
MIDDLE_WITH_LIST = authority("middle with list", issuer=ROOT)
GONE_BELOW = client(issuer=MIDDLE_WITH_LIST, name="gone below")
SUICIDAL = authority("suicidal")

LISTS = (
    PLAIN_LIST,
    LATE_LIST,
    EARLY_LIST,
    FORGED_LIST,
    NO_RIGHT_LIST,
    ENDLESS_LIST,
    OLD_DIGEST_LIST,
    STRANGE_LIST,
    PARTIAL_LIST,
    FIRST_LIST,
    SECOND_LIST,
    ListTemplate(issuer=LISTED_ROOT, revoked=(GONE_MIDDLE,)),
    ListTemplate(issuer=MIDDLE_WITH_LIST, revoked=(GONE_BELOW,)),
    ListTemplate(issuer=SUICIDAL, revoked=(SUICIDAL,)),
    ListTemplate(issuer=STRANGER),
)


def of_list(what, issuer, ours=ACCEPTED):
    """Two clients of a CA with a list: one that is not on it, and one that is."""
    why = "" if ours is ACCEPTED else "revocation-lists"
    joe, mallory = client(issuer=issuer), revoked_by(issuer)
    yield row(f"{what}: not on it", joe, ACCEPTED, trusts=issuer, ours=ours, why=why)
    yield row(f"{what}: revoked", mallory, REFUSED, trusts=issuer)


REVOCATIONS = (
    row("CA without a list", JOE, ACCEPTED),
    row("list of a CA that is not ours", client(issuer=STRANGER), REFUSED),
    *of_list("list", LISTED),
    *of_list("expired list", LATE, REFUSED),
    *of_list("list not yet valid", EARLY, REFUSED),
    *of_list("list with another's signature", FORGED, REFUSED),
    *of_list("CA without cRLSign", NO_RIGHT, REFUSED),
    *of_list("list without an end", ENDLESS),
    *of_list("list signed with SHA-1", OLD_DIGEST),
    *of_list("list with an unknown critical extension", STRANGE, REFUSED),
    *of_list("list for CAs only", PARTIAL, REFUSED),
    row("revoked on the older of two lists", revoked_by(TWO_LISTS), ACCEPTED, trusts=TWO_LISTS),
    row(
        "intermediate revoked",
        (client(issuer=GONE_MIDDLE), GONE_MIDDLE),
        REFUSED,
        trusts=LISTED_ROOT,
    ),
    row(
        "intermediate not revoked, and without a list of its own",
        (client(issuer=KEPT_MIDDLE), KEPT_MIDDLE),
        ACCEPTED,
        trusts=LISTED_ROOT,
    ),
    row("revoked by the intermediate", (GONE_BELOW, MIDDLE_WITH_LIST), REFUSED),
    row(
        "not revoked by the intermediate",
        (client(issuer=MIDDLE_WITH_LIST), MIDDLE_WITH_LIST),
        ACCEPTED,
    ),
    row("the root revoked by itself", client(issuer=SUICIDAL), ACCEPTED, trusts=SUICIDAL),
)

# A daemon's own files

RSA_SERVER = server(key="RSA-2048")
SUBROOT = middle("subroot")
FAR_SERVER = server(issuer=FAR_DOWN)


def ca(what, libvirt, *new, without=None, ours=None, why="", **rest) -> DaemonRow:
    """The daemon's CA, which is the client's, too, changed like this."""
    return start(
        what, libvirt, ca=authority("root", *new, without=without, **rest), ours=ours, why=why
    )


def own(what, libvirt, *new, newer=None, ours=None, why="", **rest) -> DaemonRow:
    """The daemon's certificate changed like this."""
    return start(what, libvirt, cert=server(*new, **rest), newer=newer, ours=ours, why=why)


STARTS = (
    start("a good server", ACCEPTED),
    own("server expired", NO_START, **EXPIRED),
    own("server from the future", NO_START, **FUTURE),
    own("server without basicConstraints", ACCEPTED, without=CONSTRAINTS),
    own(
        "server with basicConstraints non-critical", ACCEPTED, constraints(ca=False, critical=False)
    ),
    own("server with CA:TRUE", NO_START, constraints(ca=True)),
    own("server with CA:TRUE non-critical", NO_START, constraints(ca=True, critical=False)),
    own("server without keyUsage", ACCEPTED, without=USAGE),
    own("server with keyUsage non-critical", ACCEPTED, usage(SIGNS, ENCIPHERS, critical=False)),
    own(
        "server: only digitalSignature",
        NO_START,
        usage(SIGNS),
        newer=ACCEPTED,
        ours=ACCEPTED,
        why="key-encipherment",
    ),
    own(
        "RSA server: only digitalSignature",
        NO_START,
        usage(SIGNS),
        key="RSA-2048",
        newer=ACCEPTED,
        ours=ACCEPTED,
        why="key-encipherment",
    ),
    own(
        "Ed25519 server: digitalSignature and keyAgreement",
        NO_START,
        usage(SIGNS, "key_agreement"),
        key="Ed25519",
        newer=ACCEPTED,
        ours=ACCEPTED,
        why="key-encipherment",
    ),
    own("server: only digitalSignature, non-critical", ACCEPTED, usage(SIGNS, critical=False)),
    own("server: only keyEncipherment", NO_START, usage(ENCIPHERS)),
    own(
        "server: only keyEncipherment, non-critical",
        REFUSED,
        usage(ENCIPHERS, critical=False),
        ours=ACCEPTED,
        why="signature-usage",
    ),
    own(
        "RSA server: only keyEncipherment, non-critical",
        ACCEPTED,
        usage(ENCIPHERS, critical=False),
        key="RSA-2048",
    ),
    own("server: only keyCertSign", NO_START, usage(CERTIFIES)),
    own(
        "server: only keyCertSign, non-critical",
        REFUSED,
        usage(CERTIFIES, critical=False),
        ours=ACCEPTED,
        why="signature-usage",
    ),
    own(
        "RSA server: only keyCertSign, non-critical",
        REFUSED,
        usage(CERTIFIES, critical=False),
        key="RSA-2048",
        ours=ACCEPTED,
        why="signature-usage",
    ),
    own("server without extendedKeyUsage", ACCEPTED, without=PURPOSES),
    own("server with extendedKeyUsage critical", ACCEPTED, purposes(SERVER, critical=True)),
    own("server: only clientAuth", ACCEPTED, purposes(CLIENT)),
    own("server: only clientAuth, critical", NO_START, purposes(CLIENT, critical=True)),
    own("server: serverAuth and clientAuth", ACCEPTED, purposes(CLIENT, SERVER, critical=True)),
    own("server: only anyExtendedKeyUsage", ACCEPTED, purposes(ANY)),
    own("server: only anyExtendedKeyUsage, critical", NO_START, purposes(ANY, critical=True)),
    own("server: any and clientAuth, critical", NO_START, purposes(ANY, CLIENT, critical=True)),
    own("server: only codeSigning", ACCEPTED, purposes(CODE)),
    own("server: only codeSigning, critical", ACCEPTED, purposes(CODE, critical=True)),
    own("server: unknown critical extension", NO_START, raw(UNKNOWN, b"\x05\0", critical=True)),
    own("server: keyUsage garbage", NO_START, raw(USAGE, GARBAGE, critical=False)),
    own("server without a subject", ACCEPTED, name=""),
    own("server of RSA 2048", ACCEPTED, key="RSA-2048"),
    own("server of RSA 1024", ACCEPTED, key="RSA-1024", ours=NO_START, why="short-keys"),
    own("server of P-384", ACCEPTED, key="P-384"),
    own("server of Ed25519", ACCEPTED, key="Ed25519"),
    own("server signed with SHA-1", NO_START, digest="SHA1"),
    start("server of version 1", ACCEPTED, cert=replace(server(), version=1, extensions=())),
    start("server of an unrelated CA", NO_START, cert=server(issuer=STRANGER)),
    start("server of a CA of the same name", NO_START, cert=server(forger=IMPOSTOR)),
    start("server self-signed", NO_START, cert=replace(server(), issuer=None)),
    ca("CA expired", NO_START, **EXPIRED),
    ca("CA from the future", NO_START, **FUTURE),
    ca("CA without basicConstraints", NO_START, without=CONSTRAINTS),
    ca("CA with CA:FALSE", NO_START, constraints(ca=False)),
    ca("CA with CA:FALSE non-critical", NO_START, constraints(ca=False, critical=False)),
    ca("CA with basicConstraints non-critical", ACCEPTED, constraints(ca=True, critical=False)),
    ca("CA without keyUsage", ACCEPTED, without=USAGE),
    ca("CA with keyUsage non-critical", ACCEPTED, usage(CERTIFIES, REVOKES, critical=False)),
    ca("CA without keyCertSign", NO_START, usage(SIGNS)),
    ca("CA without keyCertSign, non-critical", NO_START, usage(SIGNS, critical=False)),
    ca("CA only for serverAuth", ACCEPTED, purposes(SERVER)),
    ca("CA only for clientAuth", ACCEPTED, purposes(CLIENT)),
    ca("CA with pathlen 0", ACCEPTED, constraints(ca=True, longest=0)),
    start("CA of version 1", NO_START, ca=replace(authority("root"), version=1, extensions=())),
    start("CA twice", ACCEPTED, ca=(ROOT, ROOT)),
    start("another CA beside it", ACCEPTED, ca=(STRANGER, ROOT)),
    start("an expired CA beside it", NO_START, ca=(ROOT, replace(STRANGER, **EXPIRED))),
    start(
        "a CA without keyCertSign beside it",
        ACCEPTED,
        ca=(ROOT, authority("other", usage(SIGNS, critical=False))),
    ),
    start("20 CAs, the server's first", ACCEPTED, ca=(ROOT, *FILLERS[:19])),
    start(
        "20 CAs, the server's last",
        NO_START,
        ca=(*FILLERS[:19], ROOT),
        ours=ACCEPTED,
        why="all-of-ca-file",
    ),
    start(
        "20 CAs, the client's last",
        ACCEPTED,
        ca=(ROOT, *FILLERS[:18], FAR_DOWN),
        knocks=client(issuer=FAR_DOWN),
    ),
    start(
        "20 CAs, the last expired",
        ACCEPTED,
        ca=(ROOT, *FILLERS[:18], authority("x", **EXPIRED)),
        ours=NO_START,
        why="all-of-ca-file",
    ),
    start(
        "intermediate and root in ca_file",
        ACCEPTED,
        cert=server(issuer=SUBROOT),
        ca=(SUBROOT, ROOT),
    ),
    start(
        "intermediate in cert_file",
        NO_START,
        cert=(server(issuer=SUBROOT), SUBROOT),
        ours=ACCEPTED,
        why="own-chain",
    ),
    start("intermediate nowhere", NO_START, cert=server(issuer=SUBROOT)),
    start(
        "intermediate alone in ca_file",
        ACCEPTED,
        cert=server(issuer=SUBROOT),
        ca=SUBROOT,
        knocks=client(issuer=SUBROOT),
    ),
    start("revocation list of the CA", ACCEPTED, crl=ListTemplate(issuer=ROOT)),
    start(
        "revocation list with the client on it",
        REFUSED,
        crl=ListTemplate(issuer=ROOT, revoked=(JOE,)),
    ),
    start(
        "revocation list with the server on it",
        ACCEPTED,
        crl=ListTemplate(issuer=ROOT, revoked=(server(),)),
    ),
    start(
        "revocation list of another CA",
        ACCEPTED,
        crl=ListTemplate(issuer=STRANGER),
        ours=NO_START,
        why="revocation-lists",
    ),
    start(
        "expired revocation list",
        ACCEPTED,
        crl=ListTemplate(issuer=ROOT, **EXPIRED),
        ours=REFUSED,
        why="revocation-lists",
    ),
    start(
        "revocation list not yet valid",
        ACCEPTED,
        crl=ListTemplate(issuer=ROOT, **FUTURE),
        ours=REFUSED,
        why="revocation-lists",
    ),
    start(
        "revocation list with another's signature",
        ACCEPTED,
        crl=ListTemplate(issuer=ROOT, forger=IMPOSTOR),
        ours=NO_START,
        why="revocation-lists",
    ),
    start(
        "revocation list signed with SHA-1",
        ACCEPTED,
        crl=ListTemplate(issuer=ROOT, digest="SHA1"),
        ours=NO_START,
        why="revocation-lists",
    ),
    start(
        "revocation list of a CA without cRLSign",
        ACCEPTED,
        crl=ListTemplate(issuer=ROOT),
        ca=authority("root", usage(CERTIFIES)),
        ours=NO_START,
        why="revocation-lists",
    ),
    start("empty revocation list file", NO_START, crl=b""),
    start("garbage for a revocation list", NO_START, crl=b"hello"),
)

CLIENTS = (*LEAVES, *ISSUERS, *CHAINS, *ROOTS)
EVERY_ROW = (*CLIENTS, *REVOCATIONS, *STARTS)
