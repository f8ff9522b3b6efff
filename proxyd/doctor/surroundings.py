"""What the doctor needs to know of the daemon, which stands on a higher floor and hands it in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxyd.admin.document import Program
from proxyd.config.routes import RoutingTable
from proxyd.config.settings import Settings
from proxyd.config.sources import Loaded
from proxyd.doctor.state import Mode, Rules

if TYPE_CHECKING:  # these bring libraries with them that a look at the units need not wait for
    from proxyd.pki.files import CertificateFiles
    from proxyd.sasl.keytab import Keytab
    from proxyd.sasl.passwords import PasswordFile


class Unready(Exception):
    """The daemon would not start with this; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The system's daemon, whoever asks: its places, and how it reads what it reads.

    `load` takes the path of a configuration file, None for the usual one, and raises Unready. The
    others read nothing by themselves but to see which of several files is there; `switching` reads
    where a switch leads that has not ended, `program` asks the proxyd that runs, if one does, and
    `rules` reads the rules, if there are any.
    """

    config_file: str
    runtime_dir: str
    load: Callable[[str | None], Loaded]
    routing_table: Callable[[Settings], RoutingTable]
    certificate_files: "Callable[[Settings], CertificateFiles]"
    keytab: "Callable[[Settings], Keytab]"
    passwords: "Callable[[Settings], PasswordFile]"
    switching: Callable[[], Mode | None] = lambda: None
    program: Callable[[Settings], Program | None] = lambda _: None
    rules: Callable[[Settings], Rules | None] = lambda _: None
