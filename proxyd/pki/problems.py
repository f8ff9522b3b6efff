"""What is wrong with a file of certificates, and what mends it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxyd.config.quoting import one_line
from proxyd.invocation import pasteable

ISSUE: Final = "issue a new one (proxyd certs server)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a file and what to do about it. Not fatal: worth a warning."""

    path: str
    text: str
    fix: str
    fatal: bool

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.text}; {pasteable(self.fix)}")


class CertificateError(Exception):
    """These files will not do. `problems` has the warnings, too; the text has what is fatal."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(each) for each in self.problems if each.fatal))


def fatal(path: str, text: str, fix: str) -> Problem:
    return Problem(path=path, text=text, fix=fix, fatal=True)


def warning(path: str, text: str, fix: str) -> Problem:
    return Problem(path=path, text=text, fix=fix, fatal=False)
