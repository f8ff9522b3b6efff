"""Which files a daemon's identities are in: libvirt's names, as far as they are there.

An identity is a certificate and its key. libvirt 11.10 and later know `servercert.pem` with
`serverkey.pem`, then `servercert0.pem` with `serverkey0.pem`, and so on to number 3; the numbers
end where one is missing. A client's are called likewise.

Half of an identity counts as there, so that its other half is asked for.
"""

import os
from typing import Final

from proxyd.pki.fitness import Purpose

MOST_NUMBERED: Final = 4

Pair = tuple[str, str]  # the certificate's file and the key's


def numbered(
    certificates: str, keys: str, purpose: Purpose = Purpose.SERVER
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Those with numbers that count, and those behind a gap: certificate, missing certificate.

    The two directories may be one. Looks whether files exist.
    """
    every = [_pair(certificates, keys, purpose, str(n)) for n in range(MOST_NUMBERED)]
    there = [any(map(os.path.lexists, pair)) for pair in every]
    count = there.index(False) if False in there else len(every)
    behind = [pair for pair, is_there in zip(every, there, strict=True) if is_there][count:]
    return tuple(every[:count]), tuple((pair[0], every[count][0]) for pair in behind)


def in_usual_places(
    certificates: str, keys: str, purpose: Purpose = Purpose.SERVER
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """All that are there, the unnumbered one first, and those behind a gap.

    Where there is none, the unnumbered one is what is missing.
    """
    first = _pair(certificates, keys, purpose, "")
    others, behind_gap = numbered(certificates, keys, purpose)
    if not others or any(map(os.path.lexists, first)):
        return (first, *others), behind_gap
    return others, behind_gap


def _pair(certificates: str, keys: str, purpose: Purpose, number: str) -> Pair:
    return (
        f"{certificates}/{purpose.value}cert{number}.pem",
        f"{keys}/{purpose.value}key{number}.pem",
    )
