"""Tells what an installation or its removal has done, for people and for machines."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from proxyd.deploy.plan import Action, Step
from proxyd.invocation import pasteable

_WIDTH: Final = 7


@dataclass(slots=True, kw_only=True)
class Account:
    """What happened, or would happen; `then` is left to do.

    `failed` says why it is not all that was asked for.
    """

    steps: Sequence[Step] = ()
    commands: Sequence[Sequence[str]] = ()
    notes: list[str] = field(default_factory=list)
    then: Sequence[str] = ()
    failed: str | None = None

    def tell(self, *, as_json: bool) -> int:
        """Print it; returns the exit status."""
        self._make_pasteable()
        if as_json:
            print(json.dumps(self._as_values(), indent=1))
        else:
            print("".join(f"{line}\n" for line in self._lines()), end="")
        if self.failed is not None:
            print(f"proxyd: {self.failed}", file=sys.stderr)
        return 0 if self.failed is None else 1

    def _make_pasteable(self) -> None:
        self.steps = [replace(step, why=pasteable(step.why)) for step in self.steps]
        self.notes = [pasteable(note) for note in self.notes]
        self.then = [pasteable(line) for line in self.then]
        if self.failed is not None:
            self.failed = pasteable(self.failed)

    def _as_values(self) -> dict[str, object]:
        return {
            "done": self.failed is None,
            "failed": self.failed,
            "steps": [
                {"action": str(step.action), "path": step.path, "why": step.why}
                for step in self.steps
            ],
            "commands": [list(command) for command in self.commands],
            "notes": self.notes,
            "then": list(self.then),
        }

    def _lines(self) -> list[str]:
        told = [step for step in self.steps if step.action is not Action.KEEP or step.why]
        lines = [
            f"{step.action:{_WIDTH}} {step.path}" + (f": {step.why}" if step.why else "")
            for step in told
        ]
        if len(told) < len(self.steps):
            unchanged = len(self.steps) - len(told)
            lines.append(f"{Action.KEEP:{_WIDTH}} {unchanged} files that are as they should be")
        lines += [f"{'run':{_WIDTH}} {shlex.join(command)}" for command in self.commands]
        lines += [f"{'note':{_WIDTH}} {note}" for note in self.notes]
        lines += [f"{'then':{_WIDTH}} {line}" for line in self.then]
        return lines
