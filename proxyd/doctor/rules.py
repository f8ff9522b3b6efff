"""The rules file: read as the daemon does, put into words, and judged."""

import shlex
import stat
from collections.abc import Iterator
from typing import Final

from proxyd.doctor.files import in_the_way
from proxyd.doctor.findings import RELOAD, Finding, error, fine, note, sentence, warning
from proxyd.doctor.state import HostState, Rules

_MOST_TOLD: Final = 10  # sentences, and doubts
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def judge(state: HostState) -> Iterator[Finding]:
    """What is wrong with it, and what it says."""
    rules = state.rules
    if rules is None:
        return
    check = f"proxyd rules check {shlex.quote(rules.path)}"
    if rules.trouble:
        yield (
            error(
                "rules",
                sentence(rules.trouble),
                "Without its rules proxyd does not start, and a reload changes nothing.",
                [
                    f"# mend that, or unset proxyd_rules_file ({state.configuration.path}), then",
                    RELOAD,
                ],
            )
            if state.as_root
            else note(
                "rules",
                sentence(rules.trouble),
                "It may be that root can read it.",
                [f"sudo {check}"],
            )
        )
        return
    if rules.faults:
        more = f" It has {len(rules.faults)} faults." if rules.faults[1:] else ""
        yield error(
            "rules-fault",
            f"The rules cannot be obeyed: {sentence(rules.faults[0])}{more}",
            "With this file proxyd does not start, and a reload changes nothing.",
            [f"# correct {rules.path}, then", check, RELOAD],
        )
    for doubt in rules.doubts[:_MOST_TOLD]:
        yield warning(
            "rules-doubt",
            sentence(doubt),
            "It is hardly what was meant; whom it is about, another line decides of.",
            [f"# correct {rules.path}, then", check, RELOAD],
        )
    yield from _of_writers(rules)
    if not rules.faults and not in_the_way(state, rules.files):
        told = "; ".join(rules.summary[:_MOST_TOLD])
        more = "; …" if rules.summary[_MOST_TOLD:] else ""
        count = "1 rule says" if rules.count == 1 else f"{rules.count} rules say"
        said = f"{count} who may do what ({rules.path}): {told}{more}."
        yield fine("rules", said)


def _of_writers(rules: Rules) -> Iterator[Finding]:
    """Who writes the rules has them say what he likes, and so has who may replace the file."""
    for way in rules.files:
        for step in way.steps:
            sticky = step.directory and step.mode & stat.S_ISVTX
            if step.uid == 0 and (sticky or not step.mode & _OTHERS_WRITE):
                continue
            name = shlex.quote(step.path)
            yield warning(
                "rules-writable",
                f"{step.path} belongs to {step.owner} and has mode {step.mode:04o}.",
                "Whoever may write there decides who may do what here.",
                [f"chown root:root {name}", f"chmod go-w {name}"],
            )
