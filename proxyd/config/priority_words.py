"""The words of a priority string and what each stands for: tables, no more (see priority.py)."""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final


class Kind(StrEnum):
    """The lists that a string makes; the value is how a message calls a member."""

    VERSION = "TLS version"
    CIPHER = "cipher"
    EXCHANGE = "key exchange"
    MAC = "MAC"
    GROUP = "group"
    SIGNATURE = "signature"


class Family(Enum):
    """What makes groups alike: a client that comes with any of them need not be asked for more."""

    HYBRID = auto()  # a curve and ML-KEM together, against quantum computers; TLS 1.3 alone
    CURVE = auto()
    FINITE = auto()  # Diffie-Hellman without curves


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the key exchange: OpenSSL's name, and how strong that finds it."""

    name: str
    family: Family
    bits: int


class Signer(Enum):
    """Whose key makes a signature."""

    RSA = auto()
    CURVE = auto()  # ECDSA and EdDSA, which are one key exchange in TLS 1.2
    ML_DSA = auto()  # TLS 1.3 alone


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of the handshake: its name at IANA and in OpenSSL, and how strong that is."""

    name: str
    signer: Signer
    bits: int
    in_tls_1_3: bool = True


VERSIONS: Final = ("VERS-TLS1.3", "VERS-TLS1.2")
_STRONG: Final = ("AES-256-GCM", "CHACHA20-POLY1305", "AES-256-CCM")
_AEAD: Final = (*_STRONG, "AES-128-GCM", "AES-128-CCM")
_FAST: Final = ("AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CCM", "AES-256-CCM")
_WITH_CBC: Final = (*_STRONG, "AES-256-CBC", "AES-128-GCM", "AES-128-CCM", "AES-128-CBC")
_FORWARD_SECRET: Final = ("ECDHE-ECDSA", "ECDHE-RSA", "DHE-RSA")
_WITH_RSA: Final = ("ECDHE-ECDSA", "ECDHE-RSA", "RSA", "DHE-RSA")
_ALL_MACS: Final = ("SHA1", "SHA256", "SHA384", "AEAD")

GROUPS: Final = {
    "GROUP-X25519-MLKEM768": Group("X25519MLKEM768", Family.HYBRID, 192),
    "GROUP-SECP256R1-MLKEM768": Group("SecP256R1MLKEM768", Family.HYBRID, 192),
    "GROUP-SECP384R1-MLKEM1024": Group("SecP384R1MLKEM1024", Family.HYBRID, 256),
    "GROUP-X25519": Group("X25519", Family.CURVE, 128),
    "GROUP-SECP256R1": Group("secp256r1", Family.CURVE, 128),
    "GROUP-X448": Group("X448", Family.CURVE, 224),
    "GROUP-SECP384R1": Group("secp384r1", Family.CURVE, 192),
    "GROUP-SECP521R1": Group("secp521r1", Family.CURVE, 256),
    "GROUP-FFDHE2048": Group("ffdhe2048", Family.FINITE, 112),
    "GROUP-FFDHE3072": Group("ffdhe3072", Family.FINITE, 128),
    "GROUP-FFDHE4096": Group("ffdhe4096", Family.FINITE, 128),
    "GROUP-FFDHE6144": Group("ffdhe6144", Family.FINITE, 128),
    "GROUP-FFDHE8192": Group("ffdhe8192", Family.FINITE, 192),
}
# Only when they are named: a stranger can have so much work done for a few bytes.
_COSTLY: Final = ("GROUP-FFDHE4096", "GROUP-FFDHE6144", "GROUP-FFDHE8192")
# In OpenSSL's own order, which begins with what quantum computers do not break.
_GROUPS: Final = tuple(name for name in GROUPS if name not in _COSTLY)

# In OpenSSL's own order. Each name of GnuTLS's for TLS 1.2, where ECDSA's curve is left open, is
# the same number as one for TLS 1.3, where it is not.
SIGNATURES: Final = {
    "SIGN-ML-DSA-65": Signature("mldsa65", Signer.ML_DSA, 192),
    "SIGN-ML-DSA-87": Signature("mldsa87", Signer.ML_DSA, 256),
    "SIGN-ML-DSA-44": Signature("mldsa44", Signer.ML_DSA, 128),
    "SIGN-ECDSA-SECP256R1-SHA256": Signature("ecdsa_secp256r1_sha256", Signer.CURVE, 128),
    "SIGN-ECDSA-SECP384R1-SHA384": Signature("ecdsa_secp384r1_sha384", Signer.CURVE, 192),
    "SIGN-ECDSA-SECP521R1-SHA512": Signature("ecdsa_secp521r1_sha512", Signer.CURVE, 256),
    "SIGN-EDDSA-ED25519": Signature("ed25519", Signer.CURVE, 128),
    "SIGN-EDDSA-ED448": Signature("ed448", Signer.CURVE, 224),
    "SIGN-RSA-PSS-SHA256": Signature("rsa_pss_pss_sha256", Signer.RSA, 128),
    "SIGN-RSA-PSS-SHA384": Signature("rsa_pss_pss_sha384", Signer.RSA, 192),
    "SIGN-RSA-PSS-SHA512": Signature("rsa_pss_pss_sha512", Signer.RSA, 256),
    "SIGN-RSA-PSS-RSAE-SHA256": Signature("rsa_pss_rsae_sha256", Signer.RSA, 128),
    "SIGN-RSA-PSS-RSAE-SHA384": Signature("rsa_pss_rsae_sha384", Signer.RSA, 192),
    "SIGN-RSA-PSS-RSAE-SHA512": Signature("rsa_pss_rsae_sha512", Signer.RSA, 256),
    "SIGN-RSA-SHA256": Signature("rsa_pkcs1_sha256", Signer.RSA, 128, in_tls_1_3=False),
    "SIGN-RSA-SHA384": Signature("rsa_pkcs1_sha384", Signer.RSA, 192, in_tls_1_3=False),
    "SIGN-RSA-SHA512": Signature("rsa_pkcs1_sha512", Signer.RSA, 256, in_tls_1_3=False),
}
ALIASES: Final = {
    "SIGN-ECDSA-SHA256": "SIGN-ECDSA-SECP256R1-SHA256",
    "SIGN-ECDSA-SHA384": "SIGN-ECDSA-SECP384R1-SHA384",
    "SIGN-ECDSA-SHA512": "SIGN-ECDSA-SECP521R1-SHA512",
} | {
    name.replace("GROUP-", "CURVE-"): name
    for name, group in GROUPS.items()
    if group.family is Family.CURVE
}


@dataclass(frozen=True, slots=True)
class Level:
    """What a word such as NORMAL puts into the lists. No versions: they stay as they are."""

    ciphers: tuple[str, ...]
    exchanges: tuple[str, ...]
    macs: tuple[str, ...] = ("SHA1", "AEAD")
    versions: tuple[str, ...] = ()
    groups: tuple[str, ...] = _GROUPS
    signatures: tuple[str, ...] = tuple(SIGNATURES)
    security: int = 1  # OpenSSL's number for GnuTLS's profile; 0 is none

    def part(self, kind: Kind) -> tuple[str, ...]:
        match kind:
            case Kind.VERSION:
                return self.versions
            case Kind.CIPHER:
                return self.ciphers
            case Kind.EXCHANGE:
                return self.exchanges
            case Kind.MAC:
                return self.macs
            case Kind.GROUP:
                return self.groups
            case Kind.SIGNATURE:
                return self.signatures


NORMAL: Final = Level(_AEAD, _FORWARD_SECRET)
_SECURE: Final = Level(_STRONG, _FORWARD_SECRET, ("AEAD",), security=3)
LEVELS: Final = {
    "NORMAL": NORMAL,
    "SYSTEM": NORMAL,
    "SECURE": NORMAL,
    "SECURE128": NORMAL,
    "PFS": NORMAL,
    "PERFORMANCE": Level(_FAST, _FORWARD_SECRET),
    "LEGACY": Level(_WITH_CBC, _WITH_RSA, security=0),
    "SECURE192": _SECURE,
    "SECURE256": _SECURE,
    "SUITEB128": Level(
        ("AES-256-GCM", "AES-128-GCM"),
        ("ECDHE-ECDSA",),
        ("AEAD",),
        ("VERS-TLS1.2",),
        ("GROUP-SECP256R1", "GROUP-SECP384R1"),
        ("SIGN-ECDSA-SECP256R1-SHA256", "SIGN-ECDSA-SECP384R1-SHA384"),
        security=3,
    ),
    "SUITEB192": Level(
        ("AES-256-GCM",),
        ("ECDHE-ECDSA",),
        ("AEAD",),
        ("VERS-TLS1.2",),
        ("GROUP-SECP384R1",),
        ("SIGN-ECDSA-SECP384R1-SHA384",),
        security=4,
    ),
}

PARTS: Final = {
    **dict.fromkeys(VERSIONS, Kind.VERSION),
    **dict.fromkeys(_WITH_CBC, Kind.CIPHER),
    **dict.fromkeys(_WITH_RSA, Kind.EXCHANGE),
    **dict.fromkeys(_ALL_MACS, Kind.MAC),
    **dict.fromkeys(GROUPS, Kind.GROUP),
    **dict.fromkeys(SIGNATURES, Kind.SIGNATURE),
}
WHOLE_LISTS: Final = {
    "VERS-ALL": Kind.VERSION,
    "VERS-TLS-ALL": Kind.VERSION,
    "CIPHER-ALL": Kind.CIPHER,
    "KX-ALL": Kind.EXCHANGE,
    "MAC-ALL": Kind.MAC,
    "GROUP-ALL": Kind.GROUP,
    "CURVE-ALL": Kind.GROUP,
    "SIGN-ALL": Kind.SIGNATURE,
}
FAMILIES: Final = {"GROUP-EC-ALL": Family.CURVE, "GROUP-DH-ALL": Family.FINITE}

TLS_1_3: Final = {
    "AES-256-GCM": "TLS_AES_256_GCM_SHA384",
    "CHACHA20-POLY1305": "TLS_CHACHA20_POLY1305_SHA256",
    "AES-128-GCM": "TLS_AES_128_GCM_SHA256",
    "AES-128-CCM": "TLS_AES_128_CCM_SHA256",
}
PREFIXES: Final = {
    "ECDHE-ECDSA": "ECDHE-ECDSA-",
    "ECDHE-RSA": "ECDHE-RSA-",
    "DHE-RSA": "DHE-RSA-",
    "RSA": "",
}
# What TLS 1.2 needs for a key exchange; RSA's own needs neither.
NEEDS: Final = {
    "ECDHE-ECDSA": (Family.CURVE, Signer.CURVE),
    "ECDHE-RSA": (Family.CURVE, Signer.RSA),
    "DHE-RSA": (Family.FINITE, Signer.RSA),
}
# Which name a cipher with a MAC has in OpenSSL, and with which key exchanges there is a suite.
TLS_1_2: Final[dict[tuple[str, str], tuple[str, tuple[str, ...]]]] = {
    ("AES-256-GCM", "AEAD"): ("AES256-GCM-SHA384", _WITH_RSA),
    ("AES-128-GCM", "AEAD"): ("AES128-GCM-SHA256", _WITH_RSA),
    ("CHACHA20-POLY1305", "AEAD"): ("CHACHA20-POLY1305", _FORWARD_SECRET),
    ("AES-256-CCM", "AEAD"): ("AES256-CCM", ("ECDHE-ECDSA", "RSA", "DHE-RSA")),
    ("AES-128-CCM", "AEAD"): ("AES128-CCM", ("ECDHE-ECDSA", "RSA", "DHE-RSA")),
    ("AES-256-CBC", "SHA1"): ("AES256-SHA", _WITH_RSA),
    ("AES-128-CBC", "SHA1"): ("AES128-SHA", _WITH_RSA),
    ("AES-256-CBC", "SHA256"): ("AES256-SHA256", ("RSA", "DHE-RSA")),
    ("AES-128-CBC", "SHA256"): ("AES128-SHA256", _WITH_RSA),
    ("AES-256-CBC", "SHA384"): ("AES256-SHA384", ("ECDHE-ECDSA", "ECDHE-RSA")),
}


def _each(names: str, reason: str = "") -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


_SIDES: Final = ("CTYPE-", "CTYPE-CLI-", "CTYPE-SRV-")

# Known to GnuTLS and never here: taking it away is fine, adding it is refused for this reason.
NEVER: Final = {
    **_each(
        "3DES-CBC DES-CBC RC2-40 ARCFOUR-40 ARCFOUR-128 NULL MAC-NULL MD5 RSA-EXPORT",
        "is broken; proxyd offers AEAD and AES-CBC ciphers",
    ),
    **_each(
        "AES-128-CCM-8 AES-256-CCM-8 AES-192-CBC AES-192-GCM CAMELLIA-128-CBC CAMELLIA-192-CBC"
        " CAMELLIA-256-CBC CAMELLIA-128-GCM CAMELLIA-256-GCM",
        "is not offered; proxyd has AES-GCM, AES-CCM, AES-CBC and CHACHA20-POLY1305",
    ),
    **_each("ANON-DH ANON-ECDH", "lets in anyone; proxyd tells clients apart by certificate"),
    **_each(
        "PSK RSA-PSK DHE-PSK ECDHE-PSK SRP SRP-RSA SRP-DSS DHE-DSS",
        "is not offered; proxyd has the key exchanges ECDHE-RSA, ECDHE-ECDSA, DHE-RSA and RSA",
    ),
    **_each(
        "VERS-SSL3.0 VERS-TLS1.0 VERS-TLS1.1",
        "is broken; proxyd speaks TLS 1.2 and 1.3, which NORMAL has",
    ),
    **_each(
        "VERS-DTLS0.9 VERS-DTLS1.0 VERS-DTLS1.2 VERS-DTLS-ALL",
        "is for datagrams; proxyd speaks TLS 1.2 and 1.3",
    ),
    **_each(
        "SIGN-RSA-SHA1 SIGN-ECDSA-SHA1 SIGN-DSA-SHA1 SIGN-RSA-MD5 SIGN-RSA-MD2 SIGN-RSA-RMD160",
        "is broken; OpenSSL neither makes nor accepts such a signature",
    ),
    **_each(
        "GROUP-SECP192R1 GROUP-SECP224R1 CURVE-SECP192R1 CURVE-SECP224R1",
        "is too small; groups start at SECP256R1",
    ),
    **_each(
        "GOST VKO-GOST-12 GOST28147-TC26Z-CNT GOST28147-TC26Z-IMIT CIPHER-GOST-ALL KX-GOST-ALL"
        " MAC-GOST-ALL GROUP-GOST-ALL SIGN-GOST-ALL",
        "is not in OpenSSL; proxyd has AES and CHACHA20-POLY1305",
    ),
    **_each(
        "GROUP-GC256A GROUP-GC256B GROUP-GC256C GROUP-GC256D GROUP-GC512A GROUP-GC512B GROUP-GC512C"
        " GROUP-X25519-KYBER768 CURVE-ED25519 CURVE-ED448",
        "is not in OpenSSL; proxyd has the groups " + ", ".join(GROUPS),
    ),
    **_each(
        "SIGN-RSA-RAW SIGN-RSA-SHA224 SIGN-ECDSA-SHA224 SIGN-RSA-SHA3-224 SIGN-RSA-SHA3-256"
        " SIGN-RSA-SHA3-384 SIGN-RSA-SHA3-512 SIGN-ECDSA-SHA3-224 SIGN-ECDSA-SHA3-256"
        " SIGN-ECDSA-SHA3-384 SIGN-ECDSA-SHA3-512 SIGN-DSA-SHA224 SIGN-DSA-SHA256 SIGN-DSA-SHA384"
        " SIGN-DSA-SHA512 SIGN-DSA-SHA3-224 SIGN-DSA-SHA3-256 SIGN-DSA-SHA3-384 SIGN-DSA-SHA3-512"
        " SIGN-GOSTR341001 SIGN-GOSTR341012-256 SIGN-GOSTR341012-512",
        "is not offered; proxyd has signatures of RSA, ECDSA, EdDSA and ML-DSA with SHA256 and up",
    ),
    **{f"{side}RAWPK": "is no certificate; proxyd takes X.509 ones" for side in _SIDES},
}

# In no suite, or nothing to GnuTLS either.
NO_EFFECT: Final = frozenset(
    _each("SHA224 SHA512 UMAC-96 UMAC-128 CTYPE-OPENPGP COMP-ALL COMP-NULL COMP-DEFLATE COMP-LZO")
)

# There without being asked for, and staying.
CERTIFICATES: Final = frozenset(
    f"{side}{kind}" for side in _SIDES for kind in ("X509", "X.509", "ALL")
)

AEAD_IN_NAMES: Final = ("GCM", "CCM", "CHACHA20")  # of OpenSSL's

PROFILES: Final = {
    "%PROFILE_VERY_WEAK": 1,
    "%PROFILE_LOW": 1,
    "%PROFILE_LEGACY": 1,
    "%PROFILE_MEDIUM": 2,
    "%PROFILE_HIGH": 3,
    "%PROFILE_ULTRA": 4,
    "%PROFILE_FUTURE": 5,
    "%PROFILE_SUITEB128": 3,
    "%PROFILE_SUITEB192": 4,
}
LEAST_TOLD: Final = 2  # below it OpenSSL's default is as strict or stricter
FORWARD_SECRECY_FROM: Final = 3  # the security level at which OpenSSL drops RSA key exchange
BITS_192_FROM: Final = 4  # and at which ciphers of 128 bits and the SHA1 MAC go
# The weakest group and signature at a level; below 3 there is none that is too weak.
LEAST_BITS: Final = {3: 128, 4: 192, 5: 256}

FORCE_ETM: Final = "%FORCE_ETM"
FORCE_SESSION_HASH: Final = "%FORCE_SESSION_HASH"
REFUSED_FLAGS: Final = {
    "%NO_EXTENSIONS": "cannot be translated: OpenSSL always uses extensions",
    "%VERIFY_ALLOW_BROKEN": "is refused: certificates with broken signatures stay out",
    "%VERIFY_ALLOW_SIGN_RSA_MD5": "is refused: certificates signed with MD5 stay out",
    "%VERIFY_ALLOW_SIGN_WITH_SHA1": "is refused: certificates signed with SHA1 stay out",
    "%VERIFY_DISABLE_CRL_CHECKS": "cannot be translated: leave out crl_file instead",
}
FLAGS: Final = frozenset(
    {*PROFILES, *REFUSED_FLAGS, FORCE_ETM, FORCE_SESSION_HASH}
    # A client's matter, a relaxation that is not made, or what proxyd does in any case.
    | _each(
        "%COMPAT %DUMBFW %SERVER_PRECEDENCE %FALLBACK_SCSV %STATELESS_COMPRESSION %NO_TICKETS"
        " %NO_TICKETS_TLS12 %NO_STATUS_REQUEST %NO_SHUFFLE_EXTENSIONS %SAFE_RENEGOTIATION"
        " %PARTIAL_RENEGOTIATION %DISABLE_SAFE_RENEGOTIATION %UNSAFE_RENEGOTIATION %NEW_PADDING"
        " %ALLOW_SMALL_RECORDS %NO_ETM %NO_SESSION_HASH %LATEST_RECORD_VERSION"
        " %SSL3_RECORD_VERSION %DISABLE_TLS13_COMPAT_MODE %DISABLE_WILDCARDS"
        " %DEBUG_ALLOW_KEY_USAGE_VIOLATIONS %VERIFY_ALLOW_X509_V1_CA_CRT"
    ).keys()
)
