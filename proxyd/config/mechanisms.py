"""The SASL mechanisms, and what each needs: the table is `MECHANISMS`, the best one first.

What makes one, for a client, stands in sasl/mechanisms.py by the same names.

On a way that is not private all that follows has to be encrypted by the mechanism itself. Elsewhere
that is not needed, so passwords serve as well and no mechanism brings a layer
(docs/protocol/sasl.md, section 3).
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from proxyd.config.transports import Transport

GSSAPI: Final = "GSSAPI"
SCRAM: Final = "SCRAM-SHA-256"
SCRAM_PLUS: Final = "SCRAM-SHA-256-PLUS"


class Need(Enum):
    """What a host must have for it."""

    KEYTAB = auto()  # proxyd_keytab
    PASSWORDS = auto()  # proxyd_passwords


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslMechanism:
    """`encrypts`: it can bring a layer. `binds`: it proves where a TLS connection ends."""

    name: str
    needs: Need
    encrypts: bool = False
    binds: bool = False

    def serves(self, transport: Transport) -> bool:
        """Whether clients who come by this may be offered it."""
        traits = transport.traits
        return (self.encrypts or traits.is_private) and (not self.binds or traits.shakes_hands)


MECHANISMS: Final = (
    SaslMechanism(name=GSSAPI, needs=Need.KEYTAB, encrypts=True),
    SaslMechanism(name=SCRAM_PLUS, needs=Need.PASSWORDS, binds=True),
    SaslMechanism(name=SCRAM, needs=Need.PASSWORDS),
)
NAMES: Final = tuple(each.name for each in MECHANISMS)


def serving(transport: Transport) -> tuple[SaslMechanism, ...]:
    """Those that clients by this may be offered."""
    return tuple(each for each in MECHANISMS if each.serves(transport))


def needs_of(transport: Transport, wanted: Collection[str]) -> set[Need]:
    """What a host must have for those of them that are wanted; for all if none is named."""
    return {each.needs for each in serving(transport) if not wanted or each.name in wanted}
