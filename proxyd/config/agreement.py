"""The rules between keys: each value may be fine by itself and wrong beside another.

A rule looks at settings and answers None or what it expected and whose place in the file to name.
Some hold for the whole daemon. Others are about one way by which clients come: libvirt asks them
where somebody comes by it and passes over them otherwise, and so does proxyd, where one that is
broken takes that way with it and no other. The rules follow docs/protocol/configuration.md,
section 1.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from proxyd.config.kinds import spelled
from proxyd.config.settings import SPECS, Settings
from proxyd.config.transports import Transport

_TLS_FILES: Final = ("key_file", "cert_file", "ca_file")


@dataclass(frozen=True, slots=True)
class Clash:
    """`key` is one that the file gave; `expected` is a whole clause."""

    key: str
    expected: str


Rule: TypeAlias = Callable[[Settings, Collection[str]], Clash | None]


def clashes(settings: Settings, given: Collection[str]) -> Iterator[Clash]:
    """What the broken rules of the whole daemon say. `given` holds the keys of the file."""
    for rule in RULES:
        clash = rule(settings, given)
        if clash is not None:
            yield clash


def clashes_of(settings: Settings, transport: Transport) -> Iterator[Clash]:
    """What keeps clients from coming by this way, if they were to."""
    switch = transport.traits.listen
    for key, spec in SPECS.items():
        setting = getattr(settings, key)
        if switch in spec.use.switches and setting is not None:
            expected = spec.use.check(setting)
            if expected is not None:
                yield Clash(key, f"{key} to be {expected}, not {spelled(setting)}")
    if transport is Transport.TLS:
        yield from _of_tls_files(settings)


def _of_tls_files(settings: Settings) -> Iterator[Clash]:
    there = [key for key in _TLS_FILES if getattr(settings, key) is not None]
    missing = [key for key in _TLS_FILES if key not in there]
    if there and missing:
        yield Clash(
            there[0],
            f"{' and '.join(missing)} beside {there[0]}: the three are set together or none",
        )
    for key in ("key_file", "cert_file"):
        if getattr(settings, key) == "" and not missing:
            # libvirt listens then, and no handshake succeeds.
            yield Clash(
                key,
                f"{key} to be a path, for without a certificate and its key nobody can be served"
                " (leave key_file, cert_file and ca_file out for the usual places)",
            )
    if settings.crl_file and missing:
        # libvirt ignores the key then: revoked certificates would pass, and nobody would know.
        yield Clash(
            "crl_file",
            "key_file, cert_file and ca_file beside crl_file; without them put the list where the"
            " CA's certificate is, as cacrl.pem",
        )


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


def _routes_name_a_scheme_once(settings: Settings, given: Collection[str]) -> Clash | None:
    schemes = [route.partition("=")[0] for route in settings.proxyd_routes]
    for scheme in schemes:
        if schemes.count(scheme) > 1:
            return Clash(
                "proxyd_routes", f'one route for "{scheme}", which has several; leave one of them'
            )
    return None


RULES: Final[tuple[Rule, ...]] = (_anonymous_clients_fit_in, _routes_name_a_scheme_once)
