"""Configuration files as deployment tools, distributions and people write them, with verdicts.

Each file in `files/` was written for this, from what a tool's public templates set; FILE stands in
a verdict for its path. What libvirt's daemons say was taken from those of Debian 12 and 13
(tests/system/test_real_life.py takes it again), with virtproxyd's default for listen_tls, on a host
that is prepared as in tests/bed/prepared_host.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILES: Final = Path(__file__).with_name("files")


@dataclass(frozen=True, slots=True)
class Row:
    """A file and what is made of it: "serves", "serves without WAY", or "exit STATUS".

    Of libvirt's daemons with the last error, of proxyd with words of the reason beside it; `reason`
    is why the two differ, "" where they do not.
    """

    name: str
    source: str
    libvirtd_9: str
    libvirtd_11: str
    ours: str
    says: str
    reason: str

    @property
    def text(self) -> str:
        return (FILES / f"{self.name}.conf").read_text()

    def __str__(self) -> str:
        return self.name


def _rows() -> list[Row]:
    _, *lines = (FILES / "verdicts.tsv").read_text().splitlines()
    return [Row(*line.split("\t")) for line in lines]


ROWS: Final = _rows()
