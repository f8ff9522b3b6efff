"""The rules for single values: one rule, one message each.

A check answers None for a fine value, else what was expected, as words that go on after
"expected KEY to be" (or "to hold only", for the items of a list). The rules follow
docs/protocol/configuration.md, section 1.
"""

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from proxyd.config.auditing import AuditOutputUnclear, parse_audit_output
from proxyd.config.logstrings import LogStringError, parse_filters, parse_outputs

TextCheck: TypeAlias = Callable[[str], str | None]

_HIGHEST_PORT: Final = 65535
_SERVICE_NAME: Final = re.compile(r"[0-9._+-]*[A-Za-z][A-Za-z0-9._+-]*")
_BRACKETED: Final = re.compile(r"\[.*\]")
_WITH_PORT: Final = re.compile(r"[^:]*:[^:]*")
_LIKE_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]+(%.+)?")
_LIKE_IPV4: Final = re.compile(r"[0-9.]+")
_NO_NAME: Final = re.compile(r"[/,;]")
_PARTS_OF_IPV4: Final = 4
_DIGITS_OF_IPV4: Final = 10
_BYTE: Final = 255
LAST_GID: Final = 2**32 - 2  # the one behind it stands for "leave it"
_DIGITS: Final = re.compile(r"[0-9]+")
_LONGEST_PATH: Final = 107  # of a UNIX socket
_ADDRESS_AND_PORT: Final = re.compile(
    r"(?:localhost|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-fA-F:.]{2,45}\]):([0-9]{1,5})"
)
_HOST_UUID: Final = re.compile(r"[0-9a-fA-F]{2}(?:[- ]*[0-9a-fA-F]{2}){15}")
_ROUTE: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*=(?:/.*|[a-zA-Z0-9_.-]+)", re.DOTALL)
# docs/protocol/configuration.md, section 1: below this libvirt refuses an explicit value, although
# 56 is its default.
_LEAST_WRITTEN_SSF: Final = 112


def between(low: int, high: int, meaning: str = "a whole number") -> Callable[[int], str | None]:
    """Make a check for a number in a range with both ends in it."""

    def check(value: int) -> str | None:
        return None if low <= value <= high else f"{meaning} from {low} to {high}"

    return check


def at_least_one(value: int) -> str | None:
    return None if value >= 1 else "at least 1"


def strong_enough(value: int) -> str | None:
    if value >= _LEAST_WRITTEN_SSF:
        return None
    return f"at least {_LEAST_WRITTEN_SSF} (leave the key out for the default of 56)"


def one_of(*words: str) -> TextCheck:
    """Make a check for a word from a list, in exactly this spelling."""
    quoted = [f'"{word}"' for word in words]
    expected = f"{', '.join(quoted[:-1])} or {quoted[-1]} (in lower case)"

    def check(text: str) -> str | None:
        return None if text in words else expected

    return check


def network_auth_word(text: str) -> str | None:
    """libvirt passes over "polkit" as long as nobody comes by that way."""
    return None if text == "polkit" else one_of("none", "sasl")(text)


def network_auth(text: str) -> str | None:
    if text == "polkit":
        return '"none" or "sasl" (polkit knows only users of this host: UNIX sockets)'
    return None


def port(text: str) -> str | None:
    if _DIGITS.fullmatch(text):
        # Five digits at most, before int() has to look at a million of them.
        digits = text.lstrip("0")
        fine = len(digits) <= len(str(_HIGHEST_PORT)) and int(digits or 0) <= _HIGHEST_PORT
    else:
        fine = _SERVICE_NAME.fullmatch(text) is not None
    return None if fine else f"a port from 0 (any free one) to {_HIGHEST_PORT} or a service's name"


def listening_address(text: str) -> str | None:
    """What can be neither an address nor a name; whether there is such a one, the resolver says."""
    if not text:
        return "an address or a host name (leave the key out for all addresses)"
    if text.startswith("[") or _BRACKETED.search(text):
        return "an address without brackets, such as ::1"
    if _WITH_PORT.fullmatch(text):
        return "an address or a host name alone (the ports are tls_port and tcp_port)"
    if ":" in text:
        return None if _LIKE_IPV6.fullmatch(text) else "an IPv6 address such as ::1"
    if _LIKE_IPV4.fullmatch(text):
        return None if _is_ipv4(text) else "an IPv4 address such as 192.0.2.1"
    if _NO_NAME.search(text):
        return "one address or host name, and nothing else beside it"
    return None


def _is_ipv4(text: str) -> bool:
    """As inet_aton(3) reads it: the last part may stand for several."""
    *first, last = text.split(".")
    numbers = [each for each in (*first, last) if each and len(each) <= _DIGITS_OF_IPV4]
    return (
        len(numbers) == len(first) + 1 <= _PARTS_OF_IPV4
        and all(int(each) <= _BYTE for each in first)
        and int(last) < 256 ** (_PARTS_OF_IPV4 - len(first))
    )


def absolute_path(text: str) -> str | None:
    return None if text.startswith("/") else 'an absolute path, with a "/" in front'


def metrics_address(text: str) -> str | None:
    if text.startswith("/"):
        fine = len(text.encode(errors="surrogateescape")) <= _LONGEST_PATH
    else:
        found = _ADDRESS_AND_PORT.fullmatch(text)
        fine = found is not None and int(found[1]) <= _HIGHEST_PORT
    return None if fine else '"ADDRESS:PORT", as "127.0.0.1:9177", or the path of a UNIX socket'


def certificate_pair(text: str) -> str | None:
    paths = text.split(":")
    fine = len(paths) == 2 and all(path.startswith("/") for path in paths)
    return None if fine else '"/PATH/OF/CERTIFICATE:/PATH/OF/ITS/KEY"'


def group(text: str) -> str | None:
    number = text.removeprefix("+")
    if _DIGITS.fullmatch(number) and (len(number) > 10 or int(number) > LAST_GID):
        return f"a group's name or a number up to {LAST_GID}"
    return None if text else "a group's name or number"


def route(text: str) -> str | None:
    if _ROUTE.fullmatch(text):
        return None
    return 'routes such as "qemu=virtqemud" or "test=/run/test-sock"'


def host_uuid(text: str) -> str | None:
    if not _HOST_UUID.fullmatch(text):
        return 'a UUID of 32 hexadecimal digits ("-" and spaces may stand between pairs)'
    digits = bytes.fromhex(text.replace("-", ""))
    # All zeros or all ones is what boards without a serial number report: it names no host.
    return None if len(set(digits)) > 1 else "a UUID whose bytes are not all equal"


def log_outputs(text: str) -> str | None:
    try:
        parse_outputs(text)
    except LogStringError as error:
        return f'outputs such as "3:stderr 1:file:/var/log/proxyd.log" ({error})'
    return None


def log_filters(text: str) -> str | None:
    try:
        parse_filters(text)
    except LogStringError as error:
        return f'filters such as "1:rpc 4:util" ({error})'
    return None


def audit_output(text: str) -> str | None:
    try:
        parse_audit_output(text)
    except AuditOutputUnclear as error:
        return f'"journald", "file:/PATH" or "syslog:NAME" ({error})'
    return None
