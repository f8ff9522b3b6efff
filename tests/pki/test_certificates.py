"""What is said of our own files; the verdicts on them are those of libvirtd 9.0.0 at its start,
but for those that the module names."""

import datetime as dt
import ipaddress
import os
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed448,
    ed25519,
    mldsa,
    padding,
    rsa,
    x25519,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyd.invocation import pasteable
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.pki.problems import CertificateError
from tests.pki import minting
from tests.pki.minting import (
    CONSTRAINTS_OF_CA,
    CONSTRAINTS_OF_LEAF,
    DAY,
    FOR_CLIENTS,
    FOR_SERVERS,
    HOST_NAMES,
    NOW,
    OF_CA,
    OF_SERVER,
    USAGE_OF_CA,
    USAGE_OF_LEAF,
    der,
    garbage,
    key_pem,
    key_usage,
    mint,
    mint_list,
    pem,
    purposes,
)

SECOND = dt.timedelta(seconds=1)
EXPIRED = {"begins": -9 * DAY, "ends": -DAY}
FUTURE = {"begins": DAY}
ISSUE = "issue a new one (proxyd certs server)"

new_key = cache(lambda of: minting.new_key())
rsa_key = cache(lambda bits: rsa.generate_private_key(65537, bits))


@cache
def authority(name="ca", **more):
    return mint(name, new_key(name), extensions=OF_CA, **more)


def limited(usage, *, critical):
    """A CA whose key is for this only."""
    return mint("ca", new_key("ca"), extensions=[CONSTRAINTS_OF_CA, (key_usage(usage), critical)])


def intermediate(extensions=OF_CA, **more):
    return mint(
        "inter", new_key("inter"), issuer="ca", signer=new_key("ca"), extensions=extensions, **more
    )


def server(extensions=OF_SERVER, *, name="server", by="ca", key=None, **more):
    key = key or new_key("server")
    return mint(name, key, issuer=by, signer=new_key(by), extensions=extensions, **more)


class Files:
    """The files of a server in a directory; each may be replaced by other certificates or bytes."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = directory / "cacert.pem"
        self.crl = directory / "cacrl.pem"
        self.pairs = [(directory / "servercert.pem", directory / "serverkey.pem")]
        (self.certificate, self.key) = self.pairs[0]
        self.write(self.ca, authority())
        self.write(self.certificate, server())
        self.write(self.key, key_pem(new_key("server")))

    def write(self, path, *contents, mode=0o600):
        path.write_bytes(
            b"".join(each if isinstance(each, bytes) else pem(each) for each in contents)
        )
        path.chmod(mode)

    def replace(self, contents):
        for which, values in contents.items():
            self.write(getattr(self, which), *values)

    def add_pair(self, certificate, key):
        number = len(self.pairs)
        pair = (self.directory / f"{number}cert.pem", self.directory / f"{number}key.pem")
        self.write(pair[0], certificate)
        self.write(pair[1], key_pem(key))
        self.pairs.append(pair)

    def load(self, *, check=True, now=NOW):
        files = CertificateFiles(
            ca=str(self.ca),
            crl=str(self.crl) if os.path.lexists(self.crl) else None,
            pairs=tuple((str(one), str(other)) for one, other in self.pairs),
        )
        return load_credentials(files, now=now, check=check)

    def problems(self, **options):
        """Everything that is said of them, fatal or not."""
        try:
            return self.load(**options).warnings
        except CertificateError as error:
            return error.problems

    def only_problem(self, **options):
        (problem,) = self.problems(**options)
        return problem


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_fine_files_become_one_snapshot_without_warnings(files):
    files.write(files.crl, mint_list("ca", new_key("ca")))
    loaded = files.load()
    (pair,) = loaded.pairs
    assert pair.certificate.subject == minting.name_of("server")
    assert pair.chain == ()
    assert pair.key.public_key() == new_key("server").public_key()
    assert loaded.authorities == (authority(),)
    assert [each.issuer for each in loaded.revocations] == [minting.name_of("ca")]
    assert loaded.warnings == ()


def test_without_a_revocation_list_there_is_none(files):
    assert files.load().revocations == ()


def test_the_order_in_the_files_is_kept(files):
    others = [authority(f"ca{number}") for number in range(20)]
    lists = [mint_list(f"ca{number}", new_key(f"ca{number}")) for number in range(3)]
    files.write(files.ca, *others, authority())  # libvirtd would not see the last ones
    files.write(files.certificate, server(by="inter"), intermediate(), authority())
    files.write(files.crl, *lists)
    loaded = files.load()
    assert loaded.authorities == (*others, authority())
    assert [each.subject for each in loaded.pairs[0].chain] == list(
        map(minting.name_of, ["inter", "ca"])
    )
    assert loaded.revocations == tuple(lists)


@pytest.mark.parametrize(
    "key",
    [
        rsa_key(2048),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
        mldsa.MLDSA44PrivateKey.generate(),
        mldsa.MLDSA65PrivateKey.generate(),
        mldsa.MLDSA87PrivateKey.generate(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_every_type_of_key_that_tls_knows_is_taken(files, key):
    files.write(files.certificate, server(key=key))
    files.write(files.key, key_pem(key))
    assert files.load().warnings == ()


@pytest.mark.parametrize("kind", ["MLDSA44", "MLDSA65", "MLDSA87"])
@pytest.mark.parametrize("leaf", [None, "MLDSA65"])
def test_an_ml_dsa_ca_signs_chains_and_revocation_lists(files, kind, leaf):
    root, between = (getattr(mldsa, f"{kind}PrivateKey").generate() for _ in range(2))
    key = getattr(mldsa, f"{leaf}PrivateKey").generate() if leaf else new_key("server")
    files.write(files.ca, mint("ca", root, extensions=OF_CA))
    files.write(files.crl, mint_list("ca", root))
    files.write(
        files.certificate,
        mint("server", key, issuer="inter", signer=between, extensions=OF_SERVER),
        mint("inter", between, issuer="ca", signer=root, extensions=OF_CA),
    )
    files.write(files.key, key_pem(key))
    assert files.load().warnings == ()
    files.write(files.crl, mint_list("ca", between))
    assert "is signed by no CA in" in str(files.only_problem())


def test_text_around_the_blocks_and_foreign_blocks_are_ignored(files):
    both = b"Certificate:\r\n  Data\n" + pem(server()) + b"\n" + key_pem(new_key("server"))
    files.write(files.certificate, both)
    files.write(files.key, both.replace(b"\n", b"\r\n"))
    files.write(files.ca, b"the CA\n", pem(authority()).replace(b" CERT", b" X509 CERT"))
    assert files.load().warnings == ()


def test_the_parameters_that_openssl_writes_before_a_key_are_ignored(files):
    old = key_pem(new_key("server"), form=serialization.PrivateFormat.TraditionalOpenSSL)
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    files.write(files.key, parameters, old)
    assert files.load().warnings == ()


def test_one_file_may_hold_certificate_and_key(files):
    files.write(files.certificate, server(), key_pem(new_key("server")))
    files.pairs = [(files.certificate, files.certificate)]
    assert files.load().pairs[0].certificate.subject == minting.name_of("server")


# What fails with or without the check


def broken(kind):
    return b"-----BEGIN %s-----\nAAAA\n-----END %s-----\n" % (kind, kind)


CUT_OFF = pem(authority())[:-40]
CONTENTS = {
    "ca": {
        b"": "it is empty; put the CA's certificate there (proxyd certs init makes one) or",
        b"\n": "it is empty",
        b"hello": "it is not PEM",
        CUT_OFF: "the certificate in it is cut off",
        der(
            authority()
        ): "it is DER, not PEM; convert it (openssl x509 -inform DER -in {path} -out",
        key_pem(new_key("ca")): 'it holds no certificate, but "PRIVATE KEY"',
        broken(b"CERTIFICATE"): "certificate number 1 in it cannot be read (",
        pem(authority()) + broken(b"CERTIFICATE"): "certificate number 2 in it cannot be read (",
        b" " * (1 << 20) + pem(authority()): "it is larger than 1 MiB",
    },
    "certificate": {
        b"": "it is empty; put this server's certificate there (proxyd certs server makes one)",
        der(authority()): "it is DER, not PEM; convert it (openssl x509",
        broken(b"CERTIFICATE"): "certificate number 1 in it cannot be read (",
    },
    "key": {
        b"": "it is empty; put the key of this server's certificate there",
        b"\x30\x81\x87": "it is DER, not PEM; convert it (openssl pkey -inform DER -in {path} -out",
        pem(authority()): 'it holds no private key, but "CERTIFICATE"',
        broken(b"PRIVATE KEY"): "the key in it cannot be read (",
        key_pem(new_key("server"), b"secret"): "the key is encrypted, and nobody is there to type"
        " the password; decrypt it: umask 077; openssl pkey -in {path} -out ",
        key_pem(
            new_key("server"), b"secret", serialization.PrivateFormat.TraditionalOpenSSL
        ): "the key is encrypted",
        key_pem(x25519.X25519PrivateKey.generate()): "TLS has no use for a key of this type, only"
        " for RSA, EC, Ed25519, Ed448, ML-DSA-44, ML-DSA-65, ML-DSA-87; issue a new one",
    },
    "crl": {
        b"": "it is empty; put the CA's list there (proxyd certs crl makes one) or leave out",
        der(mint_list("ca", new_key("ca"))): "it is DER, not PEM; convert it (openssl crl ",
        pem(authority()): 'it holds no revocation list, but "CERTIFICATE"',
        broken(b"X509 CRL"): "revocation list number 1 in it cannot be read (",
        pem(mint_list("ca", new_key("ca"))) + broken(b"X509 CRL"): "revocation list number 2 in",
        b" " * (16 << 20) + b"\n": "it is larger than 16 MiB",
    },
}


@pytest.mark.parametrize(
    ("which", "number"),
    [(which, number) for which, cases in CONTENTS.items() for number in range(len(cases))],
)
def test_what_cannot_be_understood_is_named_with_a_remedy(files, which, number):
    content, text = list(CONTENTS[which].items())[number]
    path = getattr(files, which)
    files.write(path, content)
    for check in (False, True):
        problem = files.only_problem(check=check)
        assert problem.fatal
        assert str(problem).startswith(f"{path}: {pasteable(text.format(path=path))}")


@pytest.mark.parametrize("which", ["ca", "certificate", "key", "crl"])
def test_a_file_that_is_not_there_is_named_with_its_setting(files, which):
    path = getattr(files, which)
    path.unlink(missing_ok=True)
    if which == "crl":
        path.symlink_to("nowhere")
    problem = files.only_problem(check=False)
    setting = {"certificate": "cert"}.get(which, which)
    assert str(problem).startswith(f"{path}: there is no such file; put ")
    assert problem.fix.endswith(f"{setting}_file")


@pytest.mark.parametrize("which", ["ca", "certificate", "key", "crl"])
def test_what_is_no_file_is_refused_and_does_not_block(files, which):
    path = getattr(files, which)
    path.unlink(missing_ok=True)
    before = os.listdir("/proc/self/fd")
    os.mkfifo(path)
    assert files.only_problem().text == "it cannot be read (it is no regular file)"
    path.unlink()
    path.mkdir()
    assert files.only_problem().text == "it cannot be read (it is no regular file)"
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/proc/self/mem", "/x\0y", "/" + "x" * 300, "/etc/passwd/x"]
)
def test_odd_paths_are_refused(files, path):
    files.ca = path
    problem = files.only_problem()
    assert problem.path == path
    assert problem.fatal


def test_what_may_not_be_read_is_told_with_the_uid(files, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("proxyd.pki.files.os.open", refuse)
    problems = files.problems()
    assert [each.path for each in problems] == [str(files.ca), *map(str, files.pairs[0])]
    for each in problems:
        assert each.text == f"it may not be read by this process (uid {os.geteuid()})"
        assert each.fix.endswith(f": namei -l {each.path}")


def test_a_key_of_another_certificate_is_told_with_both_files(files):
    files.write(files.key, key_pem(new_key("other")))
    problem = files.only_problem(check=False)
    assert problem.path == str(files.key)
    assert problem.text == (
        f'the key does not belong to the certificate of "CN=server" in {files.certificate}'
    )
    assert ISSUE in problem.fix


def test_a_chain_that_starts_with_the_ca_is_told_to_be_turned_round(files):
    files.write(files.certificate, intermediate(), server(by="inter"))
    problem = files.only_problem(check=False)
    assert problem.path == str(files.certificate)
    assert problem.text == f"the key in {files.key} is that of certificate number 2 in it"
    assert "first" in problem.fix


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (rsa_key(1024), "has an RSA key of 1024 bits, and OpenSSL wants 2048"),
        (
            ec.generate_private_key(ec.SECP192R1()),
            "has an EC key of 192 bits, and OpenSSL wants 224",
        ),
    ],
)
def test_a_key_that_openssl_finds_too_short_is_refused(files, key, text):
    files.write(files.certificate, server(key=key))
    files.write(files.key, key_pem(key))
    assert files.only_problem(check=False).text == f'the certificate of "CN=server" {text}'


def test_of_two_pairs_with_one_kind_of_key_the_second_is_warned_of(files):
    key = minting.new_key()
    files.add_pair(server(key=rsa_key(2048)), rsa_key(2048))
    assert files.problems() == ()
    files.add_pair(server(key=key), key)
    loaded = files.load(check=False)
    (problem,) = loaded.warnings
    assert len(loaded.pairs) == 3
    assert problem.path == str(files.pairs[2][0])
    assert problem.text == (
        f"no client is shown it: {files.certificate} comes first and suits the same ones"
    )


def test_of_two_pairs_with_keys_of_one_type_and_different_size_both_are_shown(files):
    key = ec.generate_private_key(ec.SECP384R1())
    files.add_pair(server(key=key), key)
    assert files.problems() == ()


def test_everything_that_is_wrong_is_told_at_once_and_a_warning_is_not_in_the_text(files):
    files.ca.unlink()
    files.write(files.certificate, server(**EXPIRED))
    files.write(files.key, key_pem(new_key("other")), mode=0o644)
    files.write(files.crl, b"")
    with pytest.raises(CertificateError) as refused:
        files.load()
    problems = refused.value.problems
    fatal = [each for each in problems if each.fatal]
    assert {each.path for each in fatal} == {
        str(each) for each in (files.ca, files.certificate, files.key, files.crl)
    }
    assert str(refused.value) == "; ".join(map(str, fatal))
    assert [each.fix for each in problems if not each.fatal] == [f"chmod 600 (or 640) {files.key}"]


# What only the check sees


def leaf(*extensions, **more):
    return {"certificate": [server(extensions, **more)]}


NO_HOST = (CONSTRAINTS_OF_LEAF, USAGE_OF_LEAF, FOR_SERVERS)
UNKNOWN = x509.ObjectIdentifier("1.2.3.4")

FATAL = {
    "server expired": (
        {"certificate": [server(**EXPIRED)]},
        'the certificate of "CN=server" expired on 2026-11-19 12:00:00 UTC; issue a new one',
    ),
    "server of the future": (
        {"certificate": [server(**FUTURE)]},
        'the certificate of "CN=server" is not valid before 2026-11-21 12:00:00 UTC (is this host',
    ),
    "server is a CA": (
        leaf(CONSTRAINTS_OF_CA, HOST_NAMES),
        "the certificate of \"CN=server\" is a CA's, not a server's",
    ),
    "server without signatures": (
        leaf((key_usage("key_encipherment"), True), HOST_NAMES),
        'the certificate of "CN=server" is not for signatures (keyUsage lacks digitalSignature)',
    ),
    "server for clients": (
        leaf((FOR_CLIENTS[0], True), HOST_NAMES),
        'the certificate of "CN=server" is not for a server (extendedKeyUsage lacks serverAuth)',
    ),
    "malformed": (
        leaf((garbage(ExtensionOID.KEY_USAGE), False), HOST_NAMES),
        'the certificate of "CN=server" has a malformed extension (',
    ),
    "twice": (
        leaf(HOST_NAMES, HOST_NAMES),
        'the certificate of "CN=server" has an extension twice (2.5.29.17)',
    ),
    "unknown and critical": (
        leaf((garbage(UNKNOWN), True), HOST_NAMES),
        'the certificate of "CN=server" has a critical extension that clients do not know (1.2.3',
    ),
    "issued by somebody else": (
        {"certificate": [server(by="other")]},
        'the certificate of "CN=server" was issued by "CN=other", which is not in {ca};'
        " put the CA that signed it into {ca}, or issue",
    ),
    "self-signed": (
        {"certificate": [mint("server", new_key("server"), extensions=OF_SERVER)]},
        'the certificate of "CN=server" is self-signed and not in {ca}',
    ),
    "issued by a CA of the same name": (
        {"ca": [mint("ca", new_key("younger"), extensions=OF_CA)]},
        'the certificate of "CN=server" names "CN=ca" as its issuer, but the CA of that name in'
        " {ca} did not sign it",
    ),
    "without the CA between": (
        {"certificate": [server(by="inter")]},
        'the certificate of "CN=server" was issued by "CN=inter", which is not in {ca}',
    ),
    "with a CA between that leads elsewhere": (
        {
            "certificate": [server(by="inter"), intermediate()],
            "ca": [authority("other")],
        },
        'the certificate of "CN=inter" was issued by "CN=ca", which is not in {ca}',
    ),
    "with a whole chain that leads elsewhere": (
        {
            "certificate": [server(by="inter"), intermediate(), authority()],
            "ca": [authority("other")],
        },
        'the certificate of "CN=ca" is self-signed and not in {ca}',
    ),
    "CA between expired": (
        {"certificate": [server(by="inter"), intermediate(**EXPIRED)]},
        'the certificate of "CN=inter" expired on 2026-11-19 12:00:00 UTC; put a newer one',
    ),
    "CA between is none": (
        {"certificate": [server(by="inter"), intermediate(())]},
        'the certificate of "CN=inter" is no CA\'s (basicConstraints lacks CA:TRUE)',
    ),
    "CA between may not sign": (
        {
            "certificate": [
                server(by="inter"),
                intermediate([CONSTRAINTS_OF_CA, (key_usage("crl_sign"), False)]),
            ]
        },
        'the certificate of "CN=server" was issued by "CN=inter", which may not issue any',
    ),
    "too many CAs between": (
        {
            "ca": [mint("ca", new_key("ca"), extensions=[(x509.BasicConstraints(True, 0), True)])],
            "certificate": [server(by="inter"), intermediate()],
        },
        'the certificate of "CN=ca" allows 0 CAs below it, and here are 1 (pathLenConstraint)',
    ),
    "CA expired": (
        {"ca": [authority(**EXPIRED)]},
        'the certificate of "CN=ca" expired on 2026-11-19 12:00:00 UTC; make a new CA',
    ),
    "second CA expired": (
        {"ca": [authority(), authority("other", **EXPIRED)]},
        'the certificate of "CN=other" expired on 2026-11-19 12:00:00 UTC; take it out if',
    ),
    "CA of the future": (
        {"ca": [authority(**FUTURE)]},
        'the certificate of "CN=ca" is not valid before 2026-11-21 12:00:00 UTC',
    ),
    "second CA is none": (
        {"ca": [authority(), mint("other", new_key("other"), extensions=[USAGE_OF_CA])]},
        'the certificate of "CN=other" is no CA\'s (basicConstraints lacks CA:TRUE)',
    ),
    "list of another CA": (
        {"crl": [mint_list("other", new_key("other"))]},
        'the revocation list of "CN=other" is signed by no CA in {ca}; put the CA',
    ),
    "forged list": (
        {"crl": [mint_list("ca", new_key("other"))]},
        'the revocation list of "CN=ca" is signed by no CA in {ca}',
    ),
    "list of a CA that may not": (
        {"ca": [limited("key_cert_sign", critical=False)], "crl": [mint_list("ca", new_key("ca"))]},
        'the revocation list of "CN=ca" is signed by a CA that may not (keyUsage lacks cRLSign)',
    ),
}

WARNINGS = {
    "server without signatures": (
        leaf((key_usage("key_encipherment"), False), HOST_NAMES),
        'the certificate of "CN=server" is not for signatures (keyUsage lacks digitalSignature)',
    ),
    "server for clients": (
        leaf(FOR_CLIENTS, HOST_NAMES),
        'the certificate of "CN=server" is not for a server (extendedKeyUsage lacks serverAuth)',
    ),
    "no host name": (
        leaf(*NO_HOST),
        'the certificate of "CN=server" has no host name (subjectAltName), and clients look for',
    ),
    "other names only": (
        leaf(*NO_HOST, (x509.SubjectAlternativeName([x509.RFC822Name("a@b.example")]), False)),
        'the certificate of "CN=server" has no host name (subjectAltName), and clients look for',
    ),
    "no subject": (
        leaf(*OF_SERVER, name=""),
        "the certificate with serial number ",
    ),
    "server expires": (
        {"certificate": [server(ends=14 * DAY)]},
        'the certificate of "CN=server" expires on 2026-12-04 12:00:00 UTC, in 14 days; issue',
    ),
    "server expires in a month": (
        {"certificate": [server(ends=30 * DAY)]},
        'the certificate of "CN=server" expires on 2026-12-20 12:00:00 UTC, in 30 days; issue',
    ),
    "server expires tomorrow": (
        {"certificate": [server(ends=DAY)]},
        'the certificate of "CN=server" expires on 2026-11-21 12:00:00 UTC, in 1 day; issue',
    ),
    "CA expires": (
        {"ca": [authority(ends=9 * DAY)]},
        'the certificate of "CN=ca" expires on 2026-11-29 12:00:00 UTC, in 9 days; make a new CA',
    ),
    "CA between expires": (
        {"certificate": [server(by="inter"), intermediate(ends=9 * DAY)]},
        'the certificate of "CN=inter" expires on 2026-11-29 12:00:00 UTC, in 9 days; put a',
    ),
    "second CA may not sign": (
        {
            "ca": [
                authority(),
                mint(
                    "other",
                    new_key("other"),
                    extensions=[CONSTRAINTS_OF_CA, (key_usage("crl_sign"), False)],
                ),
            ]
        },
        'the certificate of "CN=other" is not for signing certificates (keyUsage lacks',
    ),
    "CA between that clients are not shown": (
        {"ca": [authority(), intermediate()], "certificate": [server(by="inter")]},
        'the certificate of "CN=server" was issued by "CN=inter", which is no root and not in here',
    ),
    "old list": (
        {"crl": [mint_list("ca", new_key("ca"), last=-9 * DAY, next_=-DAY)]},
        'the revocation list of "CN=ca" expired on 2026-11-19 12:00:00 UTC, and clients of that CA'
        " are refused; make a new one (proxyd certs crl) and reload",
    ),
    "list of the future": (
        {"crl": [mint_list("ca", new_key("ca"), last=DAY)]},
        'the revocation list of "CN=ca" is not valid before 2026-11-21 12:00:00 UTC, and clients',
    ),
}


@pytest.mark.parametrize("case", FATAL)
def test_what_libvirtd_would_not_start_with_is_fatal_unless_told_otherwise(files, case):
    contents, text = FATAL[case]
    files.replace(contents)
    told = [str(each) for each in files.problems() if each.fatal]
    assert len(told) == 1
    assert text.format(ca=files.ca) in told[0]
    assert files.load(check=False).warnings == ()


@pytest.mark.parametrize("case", WARNINGS)
def test_what_does_not_keep_libvirtd_from_starting_is_a_warning(files, case):
    contents, text = WARNINGS[case]
    files.replace(contents)
    told = [str(each) for each in files.load().warnings]
    assert [each for each in told if pasteable(text) in each]
    assert all(str(files.directory) in each for each in told)
    assert files.load(check=False).warnings == ()


FINE = {
    "no extensions but the name": leaf(HOST_NAMES),
    "any purpose of another kind": leaf(
        (purposes(ExtendedKeyUsageOID.CODE_SIGNING), True), HOST_NAMES
    ),
    "CA twice": {"ca": [authority(), authority()]},
    "CA without key usage": {"ca": [mint("ca", new_key("ca"), extensions=[CONSTRAINTS_OF_CA])]},
    "a CA that is no root": {"ca": [intermediate()], "certificate": [server(by="inter")]},
    "a CA between in cert_file": {"certificate": [server(by="inter"), intermediate()]},
    "and in ca_file as well": {
        "ca": [intermediate(), authority()],
        "certificate": [server(by="inter"), intermediate()],
    },
    "more in cert_file than needed": {"certificate": [server(), authority("other"), authority()]},
    "two CAs of one name": {"ca": [mint("ca", new_key("younger"), extensions=OF_CA), authority()]},
    "an old list beside a new one": {
        "crl": [
            mint_list("ca", new_key("ca"), last=-9 * DAY, next_=-DAY),
            mint_list("ca", new_key("ca")),
        ]
    },
    "expires in more than a month": {"certificate": [server(ends=30 * DAY + SECOND)]},
    "an address for a name": leaf(
        *NO_HOST,
        (
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("::1"))]),
            False,
        ),
    ),
}


@pytest.mark.parametrize("case", FINE)
def test_what_is_fine_is_not_talked_about(files, case):
    files.replace(FINE[case])
    assert files.load().warnings == ()


def test_a_ca_that_may_not_sign_is_warned_of_and_what_it_signed_is_refused(files):
    files.write(files.ca, limited("crl_sign", critical=False))
    authority_, leaf_ = files.problems()
    assert (authority_.path, authority_.fatal) == (str(files.ca), False)
    assert "is not for signing certificates" in authority_.text
    assert (leaf_.path, leaf_.fatal) == (str(files.certificate), True)
    assert leaf_.text.endswith("which may not issue any (keyUsage lacks keyCertSign)")
    files.write(files.ca, limited("crl_sign", critical=True))
    assert [each.fatal for each in files.problems()] == [True, True]


def test_a_certificate_of_ours_that_is_revoked_is_warned_of(files):
    ours, other = server(), server()
    files.write(files.certificate, ours)
    files.write(files.crl, mint_list("ca", new_key("ca"), other))
    assert files.problems() == ()
    files.write(files.crl, mint_list("ca", new_key("ca"), other, ours))
    problem = files.only_problem()
    assert (problem.path, problem.fatal) == (str(files.certificate), False)
    assert 'of "CN=server" was revoked on 2026-11-19 12:00:00 UTC' in problem.text


def test_the_same_number_on_the_list_of_another_ca_is_not_ours(files):
    files.write(files.ca, authority(), authority("other"))
    ours = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    files.write(files.crl, mint_list("other", new_key("other"), ours))
    assert files.problems() == ()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_a_negative_serial_number_is_on_no_list(files):
    ours = server()
    number = ours.serial_number.to_bytes(20, "big")
    while number[0] < 0x40:  # of the same length with the highest bit set
        ours = server()
        number = ours.serial_number.to_bytes(20, "big")
    negative = der(ours).replace(number, bytes([number[0] | 0x80]) + number[1:])
    files.write(files.certificate, x509.load_der_x509_certificate(negative))
    files.write(files.crl, mint_list("ca", new_key("ca"), ours))
    # Whoever signed it did not sign this.
    assert "did not sign it" in files.only_problem().text


SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")
SHA1_WITH_RSA = SHA256_WITH_RSA[:-1] + b"\x05"


def with_sha1(signed, tbs, key):
    """The same with SHA1; nothing makes these any more."""
    signature = key.sign(
        tbs.replace(SHA256_WITH_RSA, SHA1_WITH_RSA), padding.PKCS1v15(), hashes.SHA1()
    )
    return der(signed).replace(SHA256_WITH_RSA, SHA1_WITH_RSA).replace(signed.signature, signature)


def test_signatures_with_sha1_are_refused_for_what_they_are(files):
    key = rsa_key(2048)
    ca = mint("ca", key, extensions=OF_CA)
    ours = mint("server", new_key("server"), issuer="ca", signer=key, extensions=OF_SERVER)
    crl = mint_list("ca", key)
    files.write(files.ca, ca)
    files.write(files.certificate, ours)
    files.write(files.crl, crl)
    assert files.problems() == ()

    # The root's own signature proves nothing, whatever it is made with.
    root = x509.load_der_x509_certificate(with_sha1(ca, ca.tbs_certificate_bytes, key))
    files.write(files.ca, root)
    files.write(files.certificate, ours, root)
    assert files.problems() == ()

    files.write(
        files.certificate,
        x509.load_der_x509_certificate(with_sha1(ours, ours.tbs_certificate_bytes, key)),
    )
    files.write(files.crl, x509.load_der_x509_crl(with_sha1(crl, crl.tbs_certlist_bytes, key)))
    assert [(each.path, each.fatal) for each in files.problems()] == [
        (str(files.crl), True),
        (str(files.certificate), True),
    ]
    assert all(" is signed with sha1, " in each.text for each in files.problems())


@pytest.mark.parametrize(
    ("mode", "fixes"),
    [
        (0o600, []),
        (0o400, []),
        (0o640, []),
        (0o440, []),
        (0o604, ["chmod 600 {}"]),
        (0o644, ["chmod 600 (or 640) {}"]),
        (0o660, ["chmod go-w {}"]),
        (0o620, ["chmod go-w {}"]),
        (0o602, ["chmod go-w {}"]),
        (0o666, ["chmod 600 (or 640) {}", "chmod go-w {}"]),
    ],
)
def test_a_key_is_nobody_elses_business(files, mode, fixes):
    files.key.chmod(mode)
    problems = files.problems()
    assert [each.fix for each in problems] == [fix.format(files.key) for fix in fixes]
    assert not any(each.fatal for each in problems)


def test_a_key_that_is_a_link_is_judged_by_where_it_leads(files):
    real = files.directory / "a file"
    files.key.rename(real)
    files.key.symlink_to(real)
    real.chmod(0o604)
    assert files.only_problem().fix == f"chmod 600 {files.key}"


@pytest.mark.parametrize("which", ["ca", "certificate", "crl"])
def test_certificates_are_for_all_to_read_and_not_for_all_to_change(files, which):
    files.write(files.crl, mint_list("ca", new_key("ca")))
    path = getattr(files, which)
    path.chmod(0o664)
    assert files.problems() == ()
    path.chmod(0o666)
    problem = files.only_problem()
    assert (problem.path, problem.fix) == (str(path), f"chmod go-w {path}")
    assert not problem.fatal


def test_a_path_in_a_command_is_quoted(files):
    odd = files.directory / "my key's.pem"
    files.key.rename(odd)
    odd.chmod(0o604)
    files.pairs = [(files.certificate, odd)]
    assert files.only_problem().fix.endswith("""/my key'"'"'s.pem'""")


def test_a_strange_name_stays_on_one_line_and_is_bounded(files):
    files.write(files.certificate, server(name="a\nb" * 20, **EXPIRED))
    problem = files.only_problem()
    assert "\n" not in problem.text
    assert '"CN=a\\nba\\nb' in problem.text


def test_both_ends_belong_to_the_validity_of_a_list(files):
    files.write(files.crl, mint_list("ca", new_key("ca"), last=dt.timedelta(), next_=DAY))
    assert files.problems(now=NOW) == ()
    assert files.problems(now=NOW + DAY) == ()
    assert "expired" in files.only_problem(now=NOW + DAY + SECOND).text


PIECES = st.sampled_from(
    [
        pem(authority()),
        pem(server()),
        pem(intermediate()),
        key_pem(new_key("server")),
        pem(mint_list("ca", new_key("ca"))),
        der(authority()),
        CUT_OFF,
        broken(b"CERTIFICATE"),
        broken(b"X509 CRL"),
        broken(b"PRIVATE KEY"),
    ]
)
CONTENT = st.lists(PIECES | st.binary(max_size=20), max_size=3).map(b"".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.tuples(CONTENT, CONTENT, CONTENT, CONTENT), check=st.booleans())
def test_whatever_is_in_the_files_is_loaded_or_refused(files, contents, check):
    for path, content in zip((files.ca, files.crl, *files.pairs[0]), contents, strict=True):
        files.write(path, content)
    try:
        problems, loaded = files.load(check=check).warnings, True
    except CertificateError as error:
        problems, loaded = error.problems, False
    assert any(each.fatal for each in problems) is not loaded
    assert all(str(each).isprintable() for each in problems)
