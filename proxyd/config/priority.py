"""`tls_priority`: a GnuTLS priority string, translated into what OpenSSL is told.

A string is a list of words with ":" between. It is worked off from left to right upon six lists:
TLS versions, ciphers, key exchanges, MACs, groups and signatures. In the end every suite counts
whose four parts are left, in the order of the lists, as in GnuTLS. What the words became:

| word | here |
| --- | --- |
| NORMAL | TLS 1.2 and 1.3, AEAD ciphers, key exchanges with forward secrecy (ECDHE, DHE) |
| SECURE128, SECURE, PFS, SYSTEM | the same as NORMAL |
| PERFORMANCE | NORMAL with the 128-bit ciphers first |
| SECURE192, SECURE256 | NORMAL with ciphers of 256 bits alone, and %PROFILE_HIGH |
| LEGACY | NORMAL, AES-CBC with SHA1, and RSA key exchange; TLS 1.2 all the same |
| SUITEB128 | TLS 1.2, ECDHE-ECDSA, AES-GCM, P-256 and P-384, and %PROFILE_HIGH |
| SUITEB192 | of SUITEB128 AES-256-GCM and P-384 alone, and %PROFILE_ULTRA |
| NONE | in front: nothing, not even a version; of groups and signatures see below |
| @A,B,SYSTEM | NORMAL; A and B stand in GnuTLS's configuration, which is not read here |
| +NORMAL and so on, or a second one | adds that one's parts |
| +X, -X, !X | adds X to the end of its list; both others take X away |
| VERS-ALL, VERS-TLS-ALL, CIPHER-ALL, KX-ALL, MAC-ALL | with + NORMAL's, with - everything |
| GROUP-ALL, CURVE-ALL, SIGN-ALL | likewise; CURVE-ALL is all groups, as in GnuTLS |
| GROUP-EC-ALL, GROUP-DH-ALL | likewise the curves, and the FFDHE groups |
| GROUP-X, CURVE-X | a group, such as X25519 and X25519-MLKEM768, which is hybrid |
| SIGN-X | a signature of the handshake, ours and a client's, such as ML-DSA-65 |
| CTYPE-X509, CTYPE-OPENPGP, COMP-… | no effect, as in GnuTLS |
| %PROFILE_… | MEDIUM, HIGH, ULTRA, FUTURE: OpenSSL's security level 2, 3, 4, 5 |
| %FORCE_ETM, %FORCE_SESSION_HASH | no effect without CBC ciphers, without TLS 1.2; else an error |
| other % | no effect where proxyd does it anyway, or is stricter; else an error |

`NORMAL:-VERS-TLS1.2` is TLS 1.3 alone. GnuTLS makes TLS 1.0 and 1.1 of it, because it does not
speak 1.3 when there is a gap below.

An error is what asks for something broken (TLS 1.1, 3DES, anonymous clients) or for what OpenSSL
does not have. To take away what is never there is no error. What this host's OpenSSL lacks of the
groups and signatures here is found when it is told of them (tls/offers.py), with the same rule.

Groups and signatures. NORMAL has the hybrid groups of TLS 1.3 (X25519-MLKEM768, SECP256R1-MLKEM768,
SECP384R1-MLKEM1024), X25519, SECP256R1, X448, SECP384R1, SECP521R1,
FFDHE2048 and FFDHE3072, and all signatures with SHA256 and up, in OpenSSL's order; FFDHE4096 to
FFDHE8192 cost so much that they are there only when they are added by name. The order is that of
preference: a client is asked for a hybrid group that it knows and did not bring along, but of
neighbours in the list that are alike (hybrid, curves, FFDHE) the one that it brought is taken.
Other than in GnuTLS:

* A string that begins with NONE and adds no group has those of NORMAL; likewise signatures. GnuTLS
  refuses such a string.
* SIGN-ECDSA-SHA256 (of any curve, TLS 1.2) and SIGN-ECDSA-SECP256R1-SHA256 (TLS 1.3) are one: they
  have one number, and OpenSSL keeps them together. So it is with 384 and 512.
* In TLS 1.2 OpenSSL refuses a client whose certificate is on a curve that is not among the groups.
* What is left must fit: without a curve TLS 1.2 has no ECDHE, without an RSA signature no
  ECDHE-RSA, without any group or signature there is no TLS 1.3. RSA key exchange needs neither.

libvirt's documentation switches post-quantum cryptography off with `@SYSTEM:-SIGN-ML-DSA-65:
-SIGN-ML-DSA-44:-SIGN-ML-DSA-87:-GROUP-X25519-MLKEM768:-GROUP-SECP256R1-MLKEM768:
-GROUP-SECP384R1-MLKEM1024`, which does just that.

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import IntEnum
from itertools import groupby, product
from typing import Final

from proxyd.config.priority_words import (
    AEAD_IN_NAMES,
    ALIASES,
    BITS_192_FROM,
    CERTIFICATES,
    FAMILIES,
    FLAGS,
    FORCE_ETM,
    FORCE_SESSION_HASH,
    FORWARD_SECRECY_FROM,
    GROUPS,
    LEAST_BITS,
    LEAST_TOLD,
    LEVELS,
    NEEDS,
    NEVER,
    NO_EFFECT,
    NORMAL,
    PARTS,
    PREFIXES,
    PROFILES,
    REFUSED_FLAGS,
    SIGNATURES,
    TLS_1_2,
    TLS_1_3,
    VERSIONS,
    WHOLE_LISTS,
    Group,
    Kind,
    Level,
    Signature,
)
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
    versions leave it unused, NORMAL's stand there. `suites` is for TLS 1.3. `groups`, whose
    unlike neighbours are parted by "/", and `signatures` are for both and never empty either.
    `demanded` are those of them that were added by name.
    """

    lowest: TlsVersion
    highest: TlsVersion
    ciphers: str
    suites: str
    groups: str
    signatures: str
    demanded: frozenset[str] = field(default=frozenset(), compare=False)


class PriorityError(Exception):
    """A priority string that cannot be obeyed. `column` counts characters from 1."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column


_NAMES: Final = {*LEVELS, *PARTS, *ALIASES, *WHOLE_LISTS, *FAMILIES, *NEVER} | (
    NO_EFFECT | CERTIFICATES
)
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

    kept: dict[Kind, list[str]] = field(default_factory=lambda: {kind: [] for kind in Kind})
    security: int = 0
    leveled: bool = False  # a second level adds to the first
    implied: set[Kind] = field(default_factory=set)  # behind NONE: there until one is named
    demanded: set[str] = field(default_factory=set)

    def level(self, level: Level, *, add: bool) -> None:
        for kind in Kind:
            part = level.part(kind)
            if part and not add:
                self.kept[kind].clear()
            self.add(kind, part)
        if level.security:
            # Of several the weakest, as in GnuTLS.
            self.security = min(level.security, self.security or level.security)

    def add(self, kind: Kind, parts: Sequence[str]) -> None:
        kept = self.kept[kind]
        if kind in self.implied and parts:
            self.implied.remove(kind)
            kept.clear()
        kept.extend(part for part in parts if part not in kept)

    def remove(self, kind: Kind, part: str) -> None:
        if part in self.kept[kind]:
            self.kept[kind].remove(part)

    @property
    def groups(self) -> list[Group]:
        """Those that OpenSSL would use at this security level."""
        least = LEAST_BITS.get(self.security, 0)
        groups = (GROUPS[name] for name in self.kept[Kind.GROUP])
        return [group for group in groups if group.bits >= least]

    @property
    def signatures(self) -> list[Signature]:
        """Likewise."""
        least = LEAST_BITS.get(self.security, 0)
        signatures = (SIGNATURES[name] for name in self.kept[Kind.SIGNATURE])
        return [signature for signature in signatures if signature.bits >= least]


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
        choice.leveled = True
        for kind in (Kind.GROUP, Kind.SIGNATURE):
            choice.add(kind, NORMAL.part(kind))
            choice.implied.add(kind)
        return 1
    choice.add(Kind.VERSION, VERSIONS)
    if not first.text.startswith("@"):
        return 0
    # GnuTLS takes the first of them that its configuration defines, and SYSTEM is always there.
    if "SYSTEM" not in first.text[1:].split(","):
        raise first.error(
            "stands for something in GnuTLS's configuration, which is not read here; SYSTEM can be"
            " used, at the end of such a list too, and means NORMAL"
        )
    choice.level(NORMAL, add=False)
    choice.leveled = True
    return 1


def _apply(choice: _Choice, word: _Word) -> None:
    name = word.text.upper() if word.text.isascii() else word.text
    if name in LEVELS:
        choice.level(LEVELS[name], add=choice.leveled)
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
    name = ALIASES.get(name, name)
    if name in LEVELS:
        choice.level(LEVELS[name], add=True)
    elif name in WHOLE_LISTS:
        kind = WHOLE_LISTS[name]
        choice.add(kind, NORMAL.part(kind) or VERSIONS)
    elif name in FAMILIES:
        family = FAMILIES[name]
        choice.add(Kind.GROUP, [each for each in NORMAL.groups if GROUPS[each].family is family])
    elif name in PARTS:
        choice.add(PARTS[name], (name,))
        choice.demanded.add(name)
    elif name in NEVER:
        raise word.error(f"is refused: it {NEVER[name]}")
    elif name not in NO_EFFECT | CERTIFICATES:
        raise _not_understood(word)


def _remove(choice: _Choice, word: _Word, name: str) -> None:
    name = ALIASES.get(name, name)
    if name in WHOLE_LISTS:
        choice.implied.discard(WHOLE_LISTS[name])
        choice.kept[WHOLE_LISTS[name]].clear()
    elif name in FAMILIES:
        for each, group in GROUPS.items():
            if group.family is FAMILIES[name]:
                choice.remove(Kind.GROUP, each)
    elif name in PARTS:
        choice.remove(PARTS[name], name)
    elif name in CERTIFICATES:
        raise word.error("cannot be translated: X.509 certificates are the only ones")
    elif name not in NEVER and name not in NO_EFFECT:
        raise _not_understood(word)


def _apply_flag(choice: _Choice, word: _Word) -> None:
    # In this spelling only, as in GnuTLS.
    if word.text in PROFILES:
        choice.security = PROFILES[word.text]
    elif word.text in REFUSED_FLAGS:
        raise word.error(REFUSED_FLAGS[word.text])
    elif word.text not in FLAGS:
        raise _not_understood(word)


def _not_understood(word: _Word) -> PriorityError:
    sign, name = (word.text[:1], word.text[1:]) if word.text[:1] in {*"+-!"} else ("", word.text)
    likely = get_close_matches(
        name.upper()[:40], FLAGS if name.startswith("%") else _NAMES if sign else LEVELS, 1
    )
    advice = f'did you mean "{sign}{likely[0]}"?' if likely else _UNDERSTOOD
    return word.error(f"is not understood: {advice}")


def _policy(choice: _Choice) -> TlsPolicy:
    suites, ciphers = _suites(choice), _ciphers(choice)
    normal = _normal(choice.security)
    told = ciphers or _ciphers(normal)
    level = [f"@SECLEVEL={choice.security}"] if choice.security >= LEAST_TOLD else []
    groups = choice.groups or normal.groups
    signatures = choice.signatures or normal.signatures
    return TlsPolicy(
        lowest=TlsVersion.TLS1_2 if ciphers else TlsVersion.TLS1_3,
        highest=TlsVersion.TLS1_3 if suites else TlsVersion.TLS1_2,
        ciphers=":".join(level + told),
        suites=":".join(suites),
        groups="/".join(
            ":".join(group.name for group in alike)
            for _, alike in groupby(groups, lambda group: group.family)
        ),
        signatures=":".join(signature.name for signature in signatures),
        demanded=frozenset(
            [group.name for name, group in GROUPS.items() if name in choice.demanded]
            + [each.name for name, each in SIGNATURES.items() if name in choice.demanded]
        ),
    )


def _is_empty(choice: _Choice) -> bool:
    return not _suites(choice) and not _ciphers(choice)


def _normal(security: int) -> _Choice:
    choice = _Choice()
    choice.add(Kind.VERSION, VERSIONS)
    choice.level(NORMAL, add=True)
    choice.security = security
    return choice


def _suites(choice: _Choice) -> list[str]:
    kept = choice.kept
    if "VERS-TLS1.3" not in kept[Kind.VERSION] or "AEAD" not in kept[Kind.MAC]:
        return []
    if not choice.groups or not any(each.in_tls_1_3 for each in choice.signatures):
        return []
    return [
        TLS_1_3[cipher]
        for cipher in kept[Kind.CIPHER]
        if cipher in TLS_1_3 and _usable(choice.security, cipher)
    ]


def _ciphers(choice: _Choice) -> list[str]:
    if "VERS-TLS1.2" not in choice.kept[Kind.VERSION]:
        return []
    families = {group.family for group in choice.groups}
    signers = {signature.signer for signature in choice.signatures}
    exchanges = [
        name
        for name in choice.kept[Kind.EXCHANGE]
        if name not in NEEDS or (NEEDS[name][0] in families and NEEDS[name][1] in signers)
    ]
    parts = product(exchanges, choice.kept[Kind.CIPHER], choice.kept[Kind.MAC])
    return [
        PREFIXES[exchange] + TLS_1_2[cipher, mac][0]
        for exchange, cipher, mac in parts
        if (cipher, mac) in TLS_1_2
        and exchange in TLS_1_2[cipher, mac][1]
        and _usable(choice.security, cipher, mac, exchange)
    ]


def _usable(security: int, cipher: str, mac: str = "", exchange: str = "") -> bool:
    """Whether OpenSSL would use this at a security level."""
    if exchange == "RSA" and security >= FORWARD_SECRECY_FROM:
        return False
    return security < BITS_192_FROM or not ("-128-" in cipher or mac == "SHA1")


def _what_is_missing(choice: _Choice) -> str:
    if not choice.leveled:
        return "the string has to begin with a word such as NORMAL"
    for kind, example in (
        (Kind.VERSION, "+VERS-TLS1.3"),
        (Kind.CIPHER, "+AES-256-GCM"),
        (Kind.MAC, "+AEAD"),
        (Kind.GROUP, "+GROUP-X25519"),
        (Kind.SIGNATURE, "+SIGN-RSA-PSS-RSAE-SHA256"),
    ):
        if not choice.kept[kind]:
            return f"there is no {kind}, such as {example}"
    if not choice.kept[Kind.EXCHANGE]:
        return "TLS 1.2 lacks a key exchange, such as +ECDHE-RSA, and TLS 1.3 is off or lacks AEAD"
    return (
        "what there is makes no suite; with AEAD go AES-GCM, AES-CCM and CHACHA20-POLY1305, with"
        " SHA1, SHA256 and SHA384 goes AES-CBC in TLS 1.2; TLS 1.3 needs a group and a signature"
        " (not SIGN-RSA-SHA…), ECDHE-ECDSA a curve and ECDSA or EdDSA, ECDHE-RSA a curve and RSA"
    )


def _check_demand(choice: _Choice, word: _Word) -> None:
    """For the words that are fulfilled only when something else is gone in the end."""
    names = _ciphers(choice)
    cbc = [name for name in names if not any(aead in name for aead in AEAD_IN_NAMES)]
    if word.text == FORCE_ETM and cbc:
        raise word.error(
            "cannot be translated while there are CBC ciphers; add -AES-128-CBC:-AES-256-CBC"
        )
    if word.text == FORCE_SESSION_HASH and names:
        raise word.error("cannot be translated for TLS 1.2; add -VERS-TLS1.2")
