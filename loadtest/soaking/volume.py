"""What a volume holds, block by block, and whether a transfer brought the same."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from .ledger import Fault
from .questions import Wrong

BLOCK: Final = 65536
_DIGEST_SIZE: Final = 16


def _digest(block: bytes | bytearray | memoryview) -> bytes:
    return hashlib.blake2b(block, digest_size=_DIGEST_SIZE).digest()


@dataclass(slots=True)
class Reference:
    """The digests of a volume's blocks, in their order; 16 bytes of ours for 64 KiB of it."""

    volume: bytes  # as the calls take it
    blocks: list[bytes] = field(default_factory=list)

    @property
    def alike(self) -> bool:
        """Whether some blocks could change places and nobody would notice."""
        return len(set(self.blocks)) < len(self.blocks)


class Digester:
    """Cuts a stream into blocks, however it comes."""

    def __init__(self) -> None:
        self.moved = 0
        self.digests: list[bytes] = []
        self._held = bytearray()

    def update(self, data: bytes) -> None:
        self.moved += len(data)
        self._held += data
        whole = len(self._held) // BLOCK * BLOCK
        if whole:
            with memoryview(self._held) as held:
                self.digests += [_digest(held[at : at + BLOCK]) for at in range(0, whole, BLOCK)]
            del self._held[:whole]


def judge(reference: Reference, first: int, count: int, found: Digester) -> Wrong | None:
    """None if these are `count` blocks from the `first` one on."""
    asked = count * BLOCK
    if found.moved < asked:
        return Wrong(Fault.LOST, f"{asked - found.moved} of {asked} bytes did not come")
    if found.moved > asked:
        return Wrong(Fault.DUPLICATED, f"{found.moved - asked} bytes more than {asked} came")
    expected = reference.blocks[first : first + count]
    wrong = [at for at in range(count) if found.digests[at] != expected[at]]
    if not wrong:
        return None
    at_byte = (first + wrong[0]) * BLOCK
    where = f"{len(wrong)} of {count} blocks of 64 KiB, the first at byte {at_byte}"
    if sorted(found.digests) == sorted(expected):
        return Wrong(Fault.REORDERED, f"in another order: {where}")
    return Wrong(Fault.CORRUPTED, f"not those of the volume: {where}")
