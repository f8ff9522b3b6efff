"""How many places there are: all that follows from max_clients.

    max_clients ─┬─ for everybody
                 ├─ + spare: for users of this host who hold few, whoever holds the others
                 └─ + reserved: for root, or the user whose daemon this is

The network never gets more than max_clients, so that it keeps nobody of this host out, and one
user never more than that and a handful, so that he keeps out no other. Who finds no place stands
where it costs a descriptor and little else, or is told so.
"""

import bisect
from dataclasses import dataclass
from typing import Final, Self

# The client's and the daemon's connection. Whoever polkit is asked about has no daemon yet, and
# holds the descriptor of its process instead.
_EACH: Final = 2

_MOST_STRANGERS: Final = 256  # in their handshake; each may hold 175 KiB
_FEWEST_STRANGERS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """`few` is how many a user may hold and still come in by a spare place."""

    max_clients: int
    spare: int = 0
    few: int = 0
    reserved: int = 0
    handshakes: int = 0  # of TLS, at one time
    callers: int = 0  # of the network, who have no place yet
    standing: int = 0  # of this host, likewise
    turned_away: int = 0  # who are being told that there is no place for them
    leaving: int = 0  # who have been told all, and have not closed their end yet

    @classmethod
    def of(cls, max_clients: int, *, by_network: bool = True) -> Self:
        """`by_network`: whether anybody can come from there."""
        if max_clients <= 0:
            return cls(max_clients=0)

        def part(one_in: int, *, least: int, most: int) -> int:
            return min(most, max(least, max_clients // one_in))

        spare = part(8, least=2, most=256)
        return cls(
            max_clients=max_clients,
            spare=spare,
            few=max(1, spare // 8),
            reserved=part(16, least=2, most=64),
            handshakes=min(max_clients, part(4, least=_FEWEST_STRANGERS, most=_MOST_STRANGERS)),
            callers=part(1, least=2, most=4096) if by_network else 0,
            standing=part(16, least=2, most=256),
            turned_away=part(16, least=2, most=32),
            leaving=part(16, least=2, most=32),
        )

    @property
    def places(self) -> int:
        return self.max_clients + self.spare + self.reserved

    @property
    def descriptors(self) -> int:
        """What all of them may hold."""
        waiting = self.callers + self.standing
        return _EACH * self.places + waiting + self.turned_away + self.leaving


def largest_within(descriptors: int, *, by_network: bool) -> int:
    """The largest max_clients for which so many descriptors suffice; at least one."""
    fits = range(1, max(2, descriptors))
    return max(
        1,
        bisect.bisect_right(
            fits, descriptors, key=lambda most: Capacity.of(most, by_network=by_network).descriptors
        ),
    )
