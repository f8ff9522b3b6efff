"""What was decided of one session."""

from dataclasses import dataclass

from proxyd.rules.grant import Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """By which line (from 1, with its text), and what it gives.

    `holder` is the client identity that its limits are of, `by_ssh` whether it came through sshd.
    """

    line: int
    text: str
    grant: Grant
    holder: str
    by_ssh: bool = False

    @property
    def purse(self) -> tuple[str, str]:
        """Sessions with the same one share their limits. Lines move in a file; their text stays."""
        return self.text, self.holder

    def __str__(self) -> str:
        return f"rule {self.line} ({self.grant.name})"
