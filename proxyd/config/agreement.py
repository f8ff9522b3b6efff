"""The rules between keys: each value may be fine by itself and wrong beside another.

A rule looks at settings and at which keys the file gave, and answers None or what it expected
and whose place in the file to name. The rules follow reference/config.md section 1.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeAlias

from proxyd.config.settings import Settings

_TLS_FILES: Final = ("key_file", "cert_file", "ca_file")


@dataclass(frozen=True, slots=True)
class Clash:
    """`key` is one that the file gave; `expected` is a whole clause."""

    key: str
    expected: str


Rule: TypeAlias = Callable[[Settings, Collection[str]], Clash | None]


def first_clash(settings: Settings, given: Collection[str]) -> Clash | None:
    """Return what the first broken rule says, or None. `given` holds the keys of the file."""
    clashes = (rule(settings, given) for rule in RULES)
    return next((clash for clash in clashes if clash is not None), None)


def _anonymous_clients_fit_in(settings: Settings, given: Collection[str]) -> Clash | None:
    most, anonymous = settings.max_clients, settings.max_anonymous_clients
    if most >= anonymous:
        return None
    key = "max_clients" if "max_clients" in given else "max_anonymous_clients"
    return Clash(
        key,
        f"max_clients ({most}) to be at least max_anonymous_clients ({anonymous});"
        " raise the one or lower the other",
    )


def _tls_files_come_together(_: Settings, given: Collection[str]) -> Clash | None:
    there = [key for key in _TLS_FILES if key in given]
    missing = [key for key in _TLS_FILES if key not in given]
    if not there or not missing:
        return None
    return Clash(
        there[0], f"{' and '.join(missing)} beside {there[0]}: the three are set together or none"
    )


def _crl_goes_with_the_tls_files(_: Settings, given: Collection[str]) -> Clash | None:
    if "crl_file" not in given or all(key in given for key in _TLS_FILES):
        return None
    # libvirt ignores the key then: revoked certificates would pass, and nobody would know.
    return Clash(
        "crl_file",
        "key_file, cert_file and ca_file beside crl_file; without them put the list where the"
        " CA's certificate is, as cacrl.pem",
    )


def _routes_name_a_scheme_once(settings: Settings, given: Collection[str]) -> Clash | None:
    schemes = [route.partition("=")[0] for route in settings.proxyd_routes]
    for scheme in schemes:
        if schemes.count(scheme) > 1:
            return Clash(
                "proxyd_routes", f'one route for "{scheme}", which has several; leave one of them'
            )
    return None


RULES: Final[tuple[Rule, ...]] = (
    _anonymous_clients_fit_in,
    _tls_files_come_together,
    _crl_goes_with_the_tls_files,
    _routes_name_a_scheme_once,
)
