"""`tls_priority`: a GnuTLS priority string, translated into what OpenSSL is told.

A string is a list of words with ":" between. It is worked off from left to right upon four lists:
TLS versions, ciphers, key exchanges and MACs. In the end every suite counts whose four parts are
left, in the order of the lists, as in GnuTLS. What the words became:

| word | here |
| --- | --- |
| NORMAL | TLS 1.2 and 1.3, AEAD ciphers, key exchanges with forward secrecy (ECDHE, DHE) |
| SECURE128, SECURE, PFS, SYSTEM | the same as NORMAL |
| PERFORMANCE | NORMAL with the 128-bit ciphers first |
| SECURE192, SECURE256 | NORMAL with ciphers of 256 bits alone, and %PROFILE_HIGH |
| LEGACY | NORMAL, AES-CBC with SHA1, and RSA key exchange; TLS 1.2 all the same |
| SUITEB128 | TLS 1.2, ECDHE-ECDSA, AES-GCM, and %PROFILE_HIGH |
| SUITEB192 | of SUITEB128 AES-256-GCM alone, and %PROFILE_ULTRA |
| NONE | in front: nothing, not even a version |
| @A,B,SYSTEM | NORMAL; A and B stand in GnuTLS's configuration, which is not read here |
| +NORMAL and so on, or a second one | adds that one's parts |
| +X, -X, !X | adds X to the end of its list; both others take X away |
| VERS-ALL, VERS-TLS-ALL, CIPHER-ALL, KX-ALL, MAC-ALL | with + what NORMAL has, with - everything |
| +GROUP-…, +CURVE-…, +SIGN-… | no effect: OpenSSL's own choice holds them and is not changed |
| CTYPE-X509, CTYPE-OPENPGP, COMP-… | no effect, as in GnuTLS |
| %PROFILE_… | MEDIUM, HIGH, ULTRA, FUTURE: OpenSSL's security level 2, 3, 4, 5 |
| %FORCE_ETM, %FORCE_SESSION_HASH | no effect without CBC ciphers, without TLS 1.2; else an error |
| other % | no effect where proxyd does it anyway, or is stricter; else an error |

`NORMAL:-VERS-TLS1.2` is TLS 1.3 alone. GnuTLS makes TLS 1.0 and 1.1 of it, because it does not
speak 1.3 when there is a gap below.

An error is what asks for something broken (TLS 1.1, 3DES, anonymous clients), and what would
forbid something that stays allowed here (-GROUP-X25519): pyOpenSSL has no call for groups and
signatures. To take away what is never there is no error.

Why NORMAL is less than GnuTLS's, which still has AES-CBC and RSA key exchange: every GnuTLS since
3.0 (2011), so every libvirt client since RHEL 7, has an ECDHE suite with AES-GCM in its own
NORMAL. Older ones, such as RHEL 6's, need `LEGACY`. A cipher can be added alone:
`NORMAL:+AES-256-CBC` brings it with the SHA1 MAC that stands in the list.

A security level stands as "@SECLEVEL=…" in front of the ciphers, so it reaches OpenSSL with them.
It holds for all keys and certificates, our own included (3 asks for RSA keys of 3072 bits), and
suites that OpenSSL would not use at that level are left out here. Without one OpenSSL's default
applies, which is no less than NORMAL's profile in GnuTLS.

A DHE suite needs a client that offers FFDHE groups, as GnuTLS's do. OpenSSL before 4.0 does not
look at those and uses no DHE suite unless the context was given parameters (`load_tmp_dh`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import IntEnum, StrEnum
from itertools import product
from typing import Final

from proxyd.config.quoting import excerpt

LONGEST: Final = 4096  # characters; a string of all words that there are has not that many


class TlsVersion(IntEnum):
    """The protocol versions that are spoken at all, with OpenSSL's numbers."""

    TLS1_2 = 0x0303
    TLS1_3 = 0x0304


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPolicy:
    """What OpenSSL is told: OpenSSL's own names, joined by ":", the preferred one first.

    `ciphers` is for TLS 1.2 and never empty, because OpenSSL takes no empty list: where the
    versions leave it unused, NORMAL's stand there. `suites` is for TLS 1.3.
    """

    lowest: TlsVersion
    highest: TlsVersion
    ciphers: str
    suites: str


class PriorityError(Exception):
    """A priority string that cannot be obeyed. `column` counts characters from 1."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column


class _Kind(StrEnum):
    """The four lists; the value is how a message calls a member."""

    VERSION = "TLS version"
    CIPHER = "cipher"
    EXCHANGE = "key exchange"
    MAC = "MAC"


@dataclass(frozen=True, slots=True)
class _Level:
    """What a word such as NORMAL puts into the lists. No versions: they stay as they are."""

    ciphers: tuple[str, ...]
    exchanges: tuple[str, ...]
    macs: tuple[str, ...] = ("SHA1", "AEAD")
    versions: tuple[str, ...] = ()
    security: int = 1  # OpenSSL's number for GnuTLS's profile; 0 is none

    def part(self, kind: _Kind) -> tuple[str, ...]:
        match kind:
            case _Kind.VERSION:
                return self.versions
            case _Kind.CIPHER:
                return self.ciphers
            case _Kind.EXCHANGE:
                return self.exchanges
            case _Kind.MAC:
                return self.macs


_VERSIONS: Final = ("VERS-TLS1.3", "VERS-TLS1.2")
_STRONG: Final = ("AES-256-GCM", "CHACHA20-POLY1305", "AES-256-CCM")
_AEAD: Final = (*_STRONG, "AES-128-GCM", "AES-128-CCM")
_FAST: Final = ("AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CCM", "AES-256-CCM")
_WITH_CBC: Final = (*_STRONG, "AES-256-CBC", "AES-128-GCM", "AES-128-CCM", "AES-128-CBC")
_FORWARD_SECRET: Final = ("ECDHE-ECDSA", "ECDHE-RSA", "DHE-RSA")
_WITH_RSA: Final = ("ECDHE-ECDSA", "ECDHE-RSA", "RSA", "DHE-RSA")
_ALL_MACS: Final = ("SHA1", "SHA256", "SHA384", "AEAD")

_NORMAL: Final = _Level(_AEAD, _FORWARD_SECRET)
_SECURE: Final = _Level(_STRONG, _FORWARD_SECRET, ("AEAD",), security=3)
_SUITE_B: Final = ("VERS-TLS1.2",)
_LEVELS: Final = {
    "NORMAL": _NORMAL,
    "SYSTEM": _NORMAL,
    "SECURE": _NORMAL,
    "SECURE128": _NORMAL,
    "PFS": _NORMAL,
    "PERFORMANCE": _Level(_FAST, _FORWARD_SECRET),
    "LEGACY": _Level(_WITH_CBC, _WITH_RSA, security=0),
    "SECURE192": _SECURE,
    "SECURE256": _SECURE,
    "SUITEB128": _Level(
        ("AES-256-GCM", "AES-128-GCM"), ("ECDHE-ECDSA",), ("AEAD",), _SUITE_B, security=3
    ),
    "SUITEB192": _Level(("AES-256-GCM",), ("ECDHE-ECDSA",), ("AEAD",), _SUITE_B, security=4),
}

_PARTS: Final = {
    **dict.fromkeys(_VERSIONS, _Kind.VERSION),
    **dict.fromkeys(_WITH_CBC, _Kind.CIPHER),
    **dict.fromkeys(_WITH_RSA, _Kind.EXCHANGE),
    **dict.fromkeys(_ALL_MACS, _Kind.MAC),
}
_WHOLE_LISTS: Final = {
    "VERS-ALL": _Kind.VERSION,
    "VERS-TLS-ALL": _Kind.VERSION,
    "CIPHER-ALL": _Kind.CIPHER,
    "KX-ALL": _Kind.EXCHANGE,
    "MAC-ALL": _Kind.MAC,
}

_TLS_1_3: Final = {
    "AES-256-GCM": "TLS_AES_256_GCM_SHA384",
    "CHACHA20-POLY1305": "TLS_CHACHA20_POLY1305_SHA256",
    "AES-128-GCM": "TLS_AES_128_GCM_SHA256",
    "AES-128-CCM": "TLS_AES_128_CCM_SHA256",
}
_PREFIXES: Final = {
    "ECDHE-ECDSA": "ECDHE-ECDSA-",
    "ECDHE-RSA": "ECDHE-RSA-",
    "DHE-RSA": "DHE-RSA-",
    "RSA": "",
}
# Which name a cipher with a MAC has in OpenSSL, and with which key exchanges there is a suite.
_TLS_1_2: Final[dict[tuple[str, str], tuple[str, tuple[str, ...]]]] = {
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
_NEVER: Final = {
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
    **{f"{side}RAWPK": "is no certificate; proxyd takes X.509 ones" for side in _SIDES},
}

# In no suite, or nothing to GnuTLS either.
_NO_EFFECT: Final = frozenset(
    _each("SHA224 SHA512 UMAC-96 UMAC-128 CTYPE-OPENPGP COMP-ALL COMP-NULL COMP-DEFLATE COMP-LZO")
)

# There without being asked for, and staying.
_CERTIFICATES: Final = frozenset(
    f"{side}{kind}" for side in _SIDES for kind in ("X509", "X.509", "ALL")
)
_WHOLE_CHOICES: Final = frozenset(_each("GROUP-ALL GROUP-EC-ALL GROUP-DH-ALL CURVE-ALL SIGN-ALL"))
_CHOICES: Final = frozenset(
    _each(
        "GROUP-SECP256R1 GROUP-SECP384R1 GROUP-SECP521R1 GROUP-X25519 GROUP-X448 CURVE-SECP256R1"
        " CURVE-SECP384R1 CURVE-SECP521R1 CURVE-X25519 CURVE-X448 GROUP-FFDHE2048 GROUP-FFDHE3072"
        " GROUP-FFDHE4096 GROUP-FFDHE6144 GROUP-FFDHE8192 GROUP-X25519-MLKEM768"
        " GROUP-SECP256R1-MLKEM768 GROUP-SECP384R1-MLKEM1024 SIGN-RSA-SHA256 SIGN-RSA-SHA384"
        " SIGN-RSA-SHA512 SIGN-RSA-PSS-SHA256 SIGN-RSA-PSS-SHA384 SIGN-RSA-PSS-SHA512"
        " SIGN-RSA-PSS-RSAE-SHA256 SIGN-RSA-PSS-RSAE-SHA384 SIGN-RSA-PSS-RSAE-SHA512"
        " SIGN-ECDSA-SHA256 SIGN-ECDSA-SHA384 SIGN-ECDSA-SHA512 SIGN-ECDSA-SECP256R1-SHA256"
        " SIGN-ECDSA-SECP384R1-SHA384 SIGN-ECDSA-SECP521R1-SHA512 SIGN-EDDSA-ED25519"
        " SIGN-EDDSA-ED448"
    )
)

_AEAD_IN_NAMES: Final = ("GCM", "CCM", "CHACHA20")  # of OpenSSL's

_PROFILES: Final = {
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
_LEAST_TOLD: Final = 2  # below it OpenSSL's default is as strict or stricter
_FORWARD_SECRECY_FROM: Final = 3  # the security level at which OpenSSL drops RSA key exchange
_192_BITS_FROM: Final = 4  # and at which ciphers of 128 bits and the SHA1 MAC go

_FORCE_ETM: Final = "%FORCE_ETM"
_FORCE_SESSION_HASH: Final = "%FORCE_SESSION_HASH"
_REFUSED_FLAGS: Final = {
    "%NO_EXTENSIONS": "cannot be translated: OpenSSL always uses extensions",
    "%VERIFY_ALLOW_BROKEN": "is refused: certificates with broken signatures stay out",
    "%VERIFY_ALLOW_SIGN_RSA_MD5": "is refused: certificates signed with MD5 stay out",
    "%VERIFY_ALLOW_SIGN_WITH_SHA1": "is refused: certificates signed with SHA1 stay out",
    "%VERIFY_DISABLE_CRL_CHECKS": "cannot be translated: leave out crl_file instead",
}
_FLAGS: Final = frozenset(
    {*_PROFILES, *_REFUSED_FLAGS, _FORCE_ETM, _FORCE_SESSION_HASH}
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
_ALWAYS_THERE: Final = _CERTIFICATES | _WHOLE_CHOICES | _CHOICES
_NAMES: Final = {*_LEVELS, *_PARTS, *_WHOLE_LISTS, *_NEVER} | _NO_EFFECT | _ALWAYS_THERE
_UNDERSTOOD: Final = (
    "a string is a word such as NORMAL, SECURE256 or PERFORMANCE and changes to it, each behind a"
    ' ":", such as -VERS-TLS1.2, +AES-256-CBC, -DHE-RSA or %SERVER_PRECEDENCE'
)


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    column: int

    def error(self, problem: str) -> PriorityError:
        return PriorityError(
            self.column, f"{excerpt(self.text)} at character {self.column} {problem}"
        )


@dataclass(slots=True)
class _Choice:
    """What is left of everything while the words are worked off."""

    kept: dict[_Kind, list[str]] = field(default_factory=lambda: {kind: [] for kind in _Kind})
    security: int = 0
    leveled: bool = False  # a second level adds to the first
    from_nothing: bool = False  # groups and signatures are only those that are named

    def level(self, level: _Level, *, add: bool) -> None:
        for kind in _Kind:
            part = level.part(kind)
            if part and not add:
                self.kept[kind].clear()
            self.add(kind, part)
        if level.security:
            # Of several the weakest, as in GnuTLS.
            self.security = min(level.security, self.security or level.security)
        self.from_nothing = False

    def add(self, kind: _Kind, parts: tuple[str, ...]) -> None:
        kept = self.kept[kind]
        kept.extend(part for part in parts if part not in kept)

    def remove(self, kind: _Kind, part: str) -> None:
        if part in self.kept[kind]:
            self.kept[kind].remove(part)


def parse_priority(text: str | None) -> TlsPolicy:
    """Translates a priority string; None and "" are NORMAL. Raises PriorityError."""
    words = list(_words(text or "NORMAL"))
    choice = _Choice()
    more = words[_begin(choice, words[0]) :]
    emptied_by = words[0] if _is_empty(choice) else None
    for word in more:
        _apply(choice, word)
        emptied_by = (emptied_by or word) if _is_empty(choice) else None
    if emptied_by:
        raise emptied_by.error(f"leaves nothing: {_what_is_missing(choice)}")
    for word in words:
        _check_demand(choice, word)
    return _policy(choice)


def check_priority(text: str) -> str | None:
    """A check as in checks.py: None for a fine string, else what was expected."""
    try:
        parse_priority(text)
    except PriorityError as error:
        return f'a GnuTLS priority string such as "NORMAL" or "SECURE256:-VERS-TLS1.2" ({error})'
    return None


def _words(text: str) -> Iterator[_Word]:
    if len(text) > LONGEST:
        raise PriorityError(LONGEST + 1, f"no more than {LONGEST} characters are read")
    column = 1
    for each in text.split(":"):
        word = each.lstrip(" \t\n\v\f\r" if column == 1 else " ")
        yield _Word(word, column + len(each) - len(word))
        column += len(each) + 1


def _begin(choice: _Choice, first: _Word) -> int:
    """Starts from the first word; how many words are done with."""
    if first.text.upper() == "NONE":
        choice.leveled = choice.from_nothing = True
        return 1
    choice.add(_Kind.VERSION, _VERSIONS)
    if not first.text.startswith("@"):
        return 0
    # GnuTLS takes the first of them that its configuration defines, and SYSTEM is always there.
    if "SYSTEM" not in first.text[1:].split(","):
        raise first.error(
            "stands for something in GnuTLS's configuration, which is not read here; SYSTEM can be"
            " used, at the end of such a list too, and means NORMAL"
        )
    choice.level(_NORMAL, add=False)
    choice.leveled = True
    return 1


def _apply(choice: _Choice, word: _Word) -> None:
    name = word.text.upper() if word.text.isascii() else word.text
    if name in _LEVELS:
        choice.level(_LEVELS[name], add=choice.leveled)
        choice.leveled = True
    elif name.startswith("%"):
        _apply_flag(choice, word)
    elif name.startswith("+"):
        _add(choice, word, name[1:])
    elif name.startswith(("-", "!")):
        _remove(choice, word, name[1:])
    else:
        raise _not_understood(word)


def _add(choice: _Choice, word: _Word, name: str) -> None:
    if name in _LEVELS:
        choice.level(_LEVELS[name], add=True)
    elif name in _WHOLE_LISTS:
        kind = _WHOLE_LISTS[name]
        choice.add(kind, _NORMAL.part(kind) or _VERSIONS)
    elif name in _PARTS:
        choice.add(_PARTS[name], (name,))
    elif name in _NEVER:
        raise word.error(f"is refused: it {_NEVER[name]}")
    elif name in _CHOICES and choice.from_nothing:
        whole = f"+{name.partition('-')[0]}-ALL"
        raise word.error(
            "cannot be translated: behind NONE it would leave out all others, and which there are"
            f" is OpenSSL's choice; write {whole}"
        )
    elif name not in _NO_EFFECT | _ALWAYS_THERE:
        raise _not_understood(word)


def _remove(choice: _Choice, word: _Word, name: str) -> None:
    if name in _WHOLE_LISTS:
        choice.kept[_WHOLE_LISTS[name]].clear()
    elif name in _PARTS:
        choice.remove(_PARTS[name], name)
    elif name in _CERTIFICATES:
        raise word.error("cannot be translated: X.509 certificates are the only ones")
    elif name in _CHOICES | _WHOLE_CHOICES:
        raise word.error(
            "cannot be translated: groups and signatures are OpenSSL's choice; versions, ciphers,"
            " key exchanges and MACs can be taken away, and %PROFILE_HIGH or %PROFILE_ULTRA asks"
            " for stronger ones of everything"
        )
    elif name not in _NEVER and name not in _NO_EFFECT:
        raise _not_understood(word)


def _apply_flag(choice: _Choice, word: _Word) -> None:
    # In this spelling only, as in GnuTLS.
    if word.text in _PROFILES:
        choice.security = _PROFILES[word.text]
    elif word.text in _REFUSED_FLAGS:
        raise word.error(_REFUSED_FLAGS[word.text])
    elif word.text not in _FLAGS:
        raise _not_understood(word)


def _not_understood(word: _Word) -> PriorityError:
    sign, name = (word.text[:1], word.text[1:]) if word.text[:1] in {*"+-!"} else ("", word.text)
    likely = get_close_matches(
        name.upper()[:40], _FLAGS if name.startswith("%") else _NAMES if sign else _LEVELS, 1
    )
    advice = f'did you mean "{sign}{likely[0]}"?' if likely else _UNDERSTOOD
    return word.error(f"is not understood: {advice}")


def _policy(choice: _Choice) -> TlsPolicy:
    suites, ciphers = _suites(choice), _ciphers(choice)
    told = ciphers or _ciphers(_normal(choice.security))
    level = [f"@SECLEVEL={choice.security}"] if choice.security >= _LEAST_TOLD else []
    return TlsPolicy(
        lowest=TlsVersion.TLS1_2 if ciphers else TlsVersion.TLS1_3,
        highest=TlsVersion.TLS1_3 if suites else TlsVersion.TLS1_2,
        ciphers=":".join(level + told),
        suites=":".join(suites),
    )


def _is_empty(choice: _Choice) -> bool:
    return not _suites(choice) and not _ciphers(choice)


def _normal(security: int) -> _Choice:
    choice = _Choice()
    choice.add(_Kind.VERSION, _VERSIONS)
    choice.level(_NORMAL, add=True)
    choice.security = security
    return choice


def _suites(choice: _Choice) -> list[str]:
    kept = choice.kept
    if "VERS-TLS1.3" not in kept[_Kind.VERSION] or "AEAD" not in kept[_Kind.MAC]:
        return []
    return [
        _TLS_1_3[cipher]
        for cipher in kept[_Kind.CIPHER]
        if cipher in _TLS_1_3 and _usable(choice.security, cipher)
    ]


def _ciphers(choice: _Choice) -> list[str]:
    if "VERS-TLS1.2" not in choice.kept[_Kind.VERSION]:
        return []
    parts = product(*(choice.kept[kind] for kind in (_Kind.EXCHANGE, _Kind.CIPHER, _Kind.MAC)))
    return [
        _PREFIXES[exchange] + _TLS_1_2[cipher, mac][0]
        for exchange, cipher, mac in parts
        if (cipher, mac) in _TLS_1_2
        and exchange in _TLS_1_2[cipher, mac][1]
        and _usable(choice.security, cipher, mac, exchange)
    ]


def _usable(security: int, cipher: str, mac: str = "", exchange: str = "") -> bool:
    """Whether OpenSSL would use this at a security level."""
    if exchange == "RSA" and security >= _FORWARD_SECRECY_FROM:
        return False
    return security < _192_BITS_FROM or not ("-128-" in cipher or mac == "SHA1")


def _what_is_missing(choice: _Choice) -> str:
    if not choice.leveled:
        return "the string has to begin with a word such as NORMAL"
    for kind, example in (
        (_Kind.VERSION, "+VERS-TLS1.3"),
        (_Kind.CIPHER, "+AES-256-GCM"),
        (_Kind.MAC, "+AEAD"),
    ):
        if not choice.kept[kind]:
            return f"there is no {kind}, such as {example}"
    if not choice.kept[_Kind.EXCHANGE]:
        return "TLS 1.2 lacks a key exchange, such as +ECDHE-RSA, and TLS 1.3 is off or lacks AEAD"
    return (
        "what there is makes no suite; with AEAD go AES-GCM, AES-CCM and CHACHA20-POLY1305, with"
        " SHA1, SHA256 and SHA384 goes AES-CBC in TLS 1.2"
    )


def _check_demand(choice: _Choice, word: _Word) -> None:
    """For the words that are fulfilled only when something else is gone in the end."""
    names = _ciphers(choice)
    cbc = [name for name in names if not any(aead in name for aead in _AEAD_IN_NAMES)]
    if word.text == _FORCE_ETM and cbc:
        raise word.error(
            "cannot be translated while there are CBC ciphers; add -AES-128-CBC:-AES-256-CBC"
        )
    if word.text == _FORCE_SESSION_HASH and names:
        raise word.error("cannot be translated for TLS 1.2; add -VERS-TLS1.2")
