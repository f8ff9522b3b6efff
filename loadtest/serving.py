"""Which URI to ask targets for, where the command line names none.

A modular daemon knows its own drivers only, and a daemon tells nobody which those are: so the
socket's name is asked first, and then the daemon itself, one URI after the other.
"""

import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

from .client import Opening, open_session
from .failures import TargetFailure
from .targets import Target, UnixAddress
from .typed import DAEMONS

_SCHEMES: Final = {daemon: scheme for scheme, daemon in DAEMONS.items()}
_REFUSED: Final = "CONNECT_OPEN: "


def settled(targets: Sequence[Target], opening: Opening, *, given: bool) -> Opening:
    """The opening, with a URI that all targets serve unless one was `given`.

    Says on stderr what it chose if that is not what the help tells. A target that cannot be asked
    at all is left to who goes on with the opening. Raises TargetFailure if there is no such URI.
    """
    unsettled = [target for target in targets if target.uri is None]
    if given or not unsettled:
        return opening
    refusals: dict[str, str] = {}
    for uri in _candidates(unsettled, opening.uri):
        tried = replace(opening, uri=uri)
        if all(_may_open(target, tried, refusals) for target in unsettled):
            if uri != opening.uri:
                print(f"proxyd-loadtest: without --uri: {uri} is opened", file=sys.stderr)
            return tried
    name, reason = next(iter(refusals.items()))
    raise TargetFailure(name, f"{reason}; no usual URI is served by all targets, so type --uri URI")


def _may_open(target: Target, opening: Opening, refusals: dict[str, str]) -> bool:
    try:
        with closing(open_session(target, opening)):
            return True
    except TargetFailure as failure:
        _, reason = failure.args
        if not reason.startswith(_REFUSED):
            return True  # it has other trouble, which whoever measures it tells better
        refusals.setdefault(target.name, reason)
        return False


def _candidates(targets: Iterable[Target], usual: str) -> list[str]:
    """What all of them might serve, the likeliest first."""
    schemes = dict.fromkeys(scheme for each in targets if (scheme := _scheme_of(each)))
    first = [] if schemes else [usual]
    rest = [*schemes, *(each for each in DAEMONS if each not in schemes)]
    return list(
        dict.fromkeys([*first, *(f"{s}:///{mode}" for s in rest for mode in ("system", "session"))])
    )


def _scheme_of(target: Target) -> str | None:
    """By the name of a modular daemon's socket."""
    if not isinstance(target.address, UnixAddress):
        return None
    name = target.address.path.rpartition("/")[2].removesuffix("-ro").removesuffix("-sock")
    return _SCHEMES.get(name)
