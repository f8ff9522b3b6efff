"""The columns of a rule: what is in a field becomes ways, patterns and globs of URIs."""

import functools
import ipaddress
import re
from typing import Final

from proxyd.config.quoting import one_line
from proxyd.config.routes import Unroutable, parse_name
from proxyd.rules.field import Field, Piece, Unclear, alternatives, together
from proxyd.rules.glob import Glob
from proxyd.rules.nearest import found, unknown
from proxyd.rules.pattern import EVERYBODY, UID_BITS, Kind, Pattern, spelled, spelled_san
from proxyd.rules.rule import Together
from proxyd.rules.subject import San, Way

_REMEMBERED: Final = 1024  # URIs: rules of one host name the same few
_NAMES_REMEMBERED: Final = 64  # of clients, who choose how long they are
_LAST_UID: Final = 2**32 - 2  # the one behind it stands for nobody
_ALL: Final = "all"
_WAYS: Final = (*(way.value for way in Way), _ALL)
_WAYS_MEANT: Final = {
    "local": "unix",
    "rw": "unix",
    "readonly": "ro",
    "unix-ro": "ro",
    "host": "tls",
    "hostssl": "tls",
    "ssl": "tls",
    "any": "all",
    "*": "all",
}
_KINDS: Final = tuple(kind.value for kind in Kind)
_KINDS_MEANT: Final = {
    "username": "user",
    "cn": "dn",
    "subject": "dn",
    "cert": "dn",
    "gid": "group",
    "ip": "addr",
    "host": "addr",
    "address": "addr",
    "cidr": "addr",
    "principal": "sasl",
    "dns": "san",
    "email": "san",
    "uri": "san",
    "spiffe": "san",
}
_ATTRIBUTE: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)=")
_UIDS: Final = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_OCTETS: Final = re.compile(r"((?:[0-9]{1,3}\.){1,3})\*")
_LIKE_ADDRESS: Final = re.compile(r"[0-9a-fA-F.:]+(?:/[0-9.]+)?")
_SAN_TYPES: Final = ("dns", "email", "uri")
_STEPS: Final = frozenset({".", ".."})
_SLASHES: Final = re.compile(r"//+")
_ENDLESS: Final = re.compile(r"\\*$")
# A name with a transport or a host, which no daemon is ever given.
_FOREIGN: Final = re.compile(r"([^:/?*]+?)(?:\+[^:/?*]*)?:(?://([^/?*]*))?(/.*)?")


def ways_of(field: Field) -> frozenset[Way] | None:
    """Of the first column; None for all. Raises Unclear."""
    ways, every = set[Way](), False
    for piece in alternatives(field, "way"):
        if piece.text == _ALL:
            every = True
        elif piece.text in _WAYS:
            ways.add(Way(piece.text))
        else:
            raise Unclear(
                piece.place,
                "a way in (unix, ro, tcp, tls, ssh or all)"
                + unknown(piece.text, _WAYS, _WAYS_MEANT),
                key="way",
            )
    return None if every else frozenset(ways)


def who_of(field: Field) -> tuple[Together, ...]:
    """Of the second column. Raises Unclear."""
    whole = Field(_with_whole_subjects(field.pieces), field.text, field.place)
    return tuple(tuple(map(_pattern_of, pieces)) for pieces in together(whole))


def _with_whole_subjects(pieces: list[Piece]) -> list[Piece]:
    """Commas of a certificate's subject are its own, also where nobody has quoted them."""
    joined: list[Piece] = []
    for piece in pieces:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.text.startswith("dn:")
            and piece.joint == ","
            and (_ATTRIBUTE.match(piece.text) or _is_escaped(before.text))
        ):
            joined[-1] = Piece(f"{before.text},{piece.text}", before.joint, before.place)
        elif before is not None and before.text.startswith("dn:") and piece.text.startswith("*"):
            raise Unclear(
                piece.place,
                f"quotes around a subject with commas{found(piece.text)};"
                f' did you mean "{one_line(before.text)},{one_line(piece.text)}" with them?',
                key="dn",
            )
        else:
            joined.append(piece)
    return joined


def _is_escaped(text: str) -> bool:
    """Whether what comes behind has a backslash before it."""
    backslashes = _ENDLESS.search(text)
    return backslashes is not None and len(backslashes[0]) % 2 == 1


def _pattern_of(piece: Piece) -> Pattern:
    if piece.text == _ALL:
        return EVERYBODY
    kind, colon, value = piece.text.partition(":")
    if not colon or kind not in _KINDS or kind == _ALL:
        raise _no_kind(piece)
    if not value:
        raise Unclear(piece.place, f'something behind "{kind}:"', key=kind)
    match Kind(kind):
        case Kind.UID:
            return _uid(value, piece)
        case Kind.ADDR:
            return _address(value, piece)
        case Kind.SAN:
            text = _san(value, piece)
            return Pattern(Kind.SAN, text, Glob(text))
        case known:
            return Pattern(known, value, Glob(spelled(known, value)))


def _no_kind(piece: Piece) -> Unclear:
    expected = (
        "who is meant (user:NAME, group:NAME, uid:NUMBER, sasl:NAME, dn:SUBJECT, san:NAME,"
        " addr:NETWORK or all)"
    )
    kind, colon, value = piece.text.partition(":")
    guess = ""
    if _ATTRIBUTE.match(piece.text):
        guess = f"dn:{piece.text}"
    elif _LIKE_ADDRESS.fullmatch(piece.text) and not piece.text.isdecimal():
        guess = f"addr:{piece.text}"
    elif not colon and piece.text[:1] in {"@", "+", "%"}:
        guess = f"group:{piece.text[1:]}"
    elif "://" in piece.text:
        guess = f"san:{piece.text}"
    elif not colon and piece.text.isdecimal():
        guess = f"uid:{piece.text}"
    elif not colon:
        guess = {"any": _ALL, "*": _ALL, "everybody": _ALL}.get(piece.text, f"user:{piece.text}")
    elif value and kind.lower() in {*_KINDS, *_KINDS_MEANT}:
        guess = f"{_KINDS_MEANT.get(kind.lower(), kind.lower())}:{value}"
    elif value:
        return Unclear(piece.place, expected + unknown(kind, _KINDS), key="who")
    return Unclear(piece.place, expected + found(piece.text, guess), key="who")


def _uid(value: str, piece: Piece) -> Pattern:
    match = _UIDS.fullmatch(value)
    low = int(match[1]) if match else -1
    high = int(match[2]) if match and match[2] else low
    if not 0 <= low <= high <= _LAST_UID:
        raise Unclear(
            piece.place,
            f"uid: a number, or a range as 1000-1999, of at most {_LAST_UID}{found(value)}",
            key="uid",
        )
    return Pattern(
        Kind.UID, str(low) if low == high else f"{low}-{high}", None, low, high, UID_BITS
    )


def _address(value: str, piece: Piece) -> Pattern:
    expected = "addr: an address, or a network as 10.0.0.0/8 or 2001:db8::/32"
    try:
        network = ipaddress.ip_network(value, strict=False)
        given = ipaddress.ip_address(value.partition("/")[0])
    except ValueError:
        raise Unclear(
            piece.place, expected + found(value, _network_meant(value)), key="addr"
        ) from None
    if given != network.network_address:
        guess = f"addr:{network}"
        raise Unclear(
            piece.place,
            f"addr: a network whose bits behind the prefix are 0{found(value, guess)}",
            key="addr",
        )
    low, high = network.network_address, network.broadcast_address
    if isinstance(low, ipaddress.IPv6Address) and isinstance(high, ipaddress.IPv6Address):
        if getattr(low, "scope_id", None):
            raise Unclear(
                piece.place, expected + found(value, str(low).partition("%")[0]), key="addr"
            )
        mapped = (low.ipv4_mapped, high.ipv4_mapped)
        if mapped[0] is not None and mapped[1] is not None:
            network = ipaddress.ip_network((int(mapped[0]), network.prefixlen - 96))
            low, high = network.network_address, network.broadcast_address
    one = low == high
    return Pattern(
        Kind.ADDR,
        str(low) if one else str(network),
        None,
        int(low),
        int(high),
        network.max_prefixlen,
    )


def _network_meant(value: str) -> str:
    octets = _OCTETS.fullmatch(value)
    if octets:
        count = octets[1].count(".")
        return f"addr:{octets[1]}{'.'.join('0' * (4 - count))}/{8 * count}"
    if value.startswith("[") and value.endswith("]"):
        return f"addr:{value[1:-1]}"
    return "addr:0.0.0.0/0,addr:::/0" if value in {"*", _ALL, "any"} else ""


def _san(value: str, piece: Piece) -> str:
    try:
        return spelled_san(*san_of(value))
    except ValueError as error:
        raise Unclear(piece.place, f"san: {error}", key="san") from error


def san_of(text: str) -> San:
    """A name of a certificate, its type as it is said or as it looks. Raises ValueError."""
    kind, colon, name = text.partition(":")
    if not colon or kind not in _SAN_TYPES:
        kind, name = ("uri" if "://" in text else "email" if "@" in text else "dns"), text
    if not name:
        raise ValueError(f"a name behind {kind}:")
    if kind == "dns" and not {":", "/", "@"}.isdisjoint(name):
        guess = f"email:{name}" if "@" in name else f"uri:{name}"
        raise ValueError(f"a DNS name{found(name, guess)}")
    return San(kind, name)


def uris_of(field: Field) -> tuple[Glob, ...]:
    """Of the third column. Raises Unclear."""
    globs = []
    for piece in alternatives(field, "what"):
        glob, meant = _uri("*" if piece.text == _ALL else piece.text)
        if meant is not None:
            raise Unclear(
                piece.place,
                "a URI as the daemon gets it, as qemu:///system or qemu:*"
                + found(glob.text, meant),
                key="what",
            )
        globs.append(glob)
    return tuple(globs)


@functools.lru_cache(_REMEMBERED)
def _uri(text: str) -> tuple[Glob, str | None]:
    """The glob, and what it should say if no name can fit it: "" if that is not known."""
    glob = Glob(text)
    return glob, _name_meant(glob)


def _name_meant(glob: Glob) -> str | None:
    if glob.is_exact:
        written = name_matched(glob.text)
        if written == glob.text:
            return None
        if written is not None:
            return written
    foreign = _FOREIGN.match(glob.text)
    if foreign is None:
        return f"{glob.text}:*" if glob.is_exact and glob.text.isalnum() else None
    driver, host, path = foreign[1], foreign[2] or "", foreign[3] or ""
    transport = glob.text[len(driver)] == "+"
    if glob.is_exact or transport or host:
        if host in {"system", "session"} and not path:
            path = f"/{host}"
        meant = f"{driver}://{path}"
        return meant if meant != glob.text and (path or not glob.is_exact) else ""
    return None


@functools.lru_cache(_NAMES_REMEMBERED)
def name_matched(name: str) -> str | None:
    """How a client's name is compared with the third column; None for one that no rule fits.

    It is the name that goes to the daemon (docs/protocol/routing.md), without its query. Some
    drivers take a path for a file's: slashes in a row are one, and none goes a step back.
    """
    try:
        uri = parse_name(name)
    except Unroutable:
        return None
    if not _STEPS.isdisjoint(uri.path.split("/")):
        return None
    return str(uri._replace(path=_SLASHES.sub("/", uri.path), query=()))
