"""Tells OpenSSL which groups and signatures a handshake may have (config/priority.py).

A list with one name that this OpenSSL does not know is refused as a whole, so each is tried.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Final

from OpenSSL import SSL

from proxyd.config.priority import TlsPolicy
from proxyd.endpoint import openssl

_UNLIKE: Final = "/"  # OpenSSL before 3.5 knows no more than ":"


class Lacking(Exception):
    """What was asked for by name, or everything of a kind, is not in this OpenSSL."""


def limit_offers(context: SSL.Context, policy: TlsPolicy) -> None:
    """Sets both lists, without what this OpenSSL lacks. Raises Lacking."""
    signatures = policy.signatures.split(":")
    _limit("signatures", partial(openssl.set_signatures, context), [signatures], policy.demanded)
    alike = [names.split(":") for names in policy.groups.split(_UNLIKE)]
    _limit("groups", partial(openssl.set_groups, context), alike, policy.demanded)


def _limit(
    what: str,
    put: Callable[[str], bool],
    names: Iterable[Iterable[str]],
    demanded: frozenset[str],
) -> None:
    named = [list(alike) for alike in names]
    known = [[each for each in alike if put(each)] for alike in named]
    missing = demanded & (set(chain(*named)) - set(chain(*known)))
    if missing:
        raise Lacking(
            f"this OpenSSL does not have {', '.join(sorted(missing))}, which tls_priority adds"
        )
    lists = [":".join(alike) for alike in known if alike]
    if not lists:
        raise Lacking(f"this OpenSSL has none of the {what} that tls_priority allows")
    if not (put(_UNLIKE.join(lists)) or put(":".join(lists))):
        raise Lacking(f"this OpenSSL does not take the {what} that tls_priority allows")
