"""What is to be said of a host: a pure function from its state to findings.

The worst comes first; among equals the order is that in which one would mend them.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from proxyd.doctor import behind, readiness, reading, units
from proxyd.doctor.findings import Finding, note, sentence
from proxyd.doctor.state import HostState

_SYSTEMDS: Final = ("systemctl ", "journalctl ", "proxyd switch ")


def judge(state: HostState) -> list[Finding]:
    """Every finding of this state, the worst first."""
    found = [
        *_sight(state),
        *readiness.of_configuration(state),
        *units.judge(state),
        *behind.judge(state),
        *readiness.judge(state),
        *reading.judge(state),
    ]
    if state.no_systemd:
        found = [replace(each, fix=tuple(map(_by_hand, each.fix))) for each in found]
    return sorted(found, key=lambda finding: -finding.severity)


def _by_hand(line: str) -> str:
    """A line of a fix for a host where systemd obeys nobody."""
    return f"# by hand, what this would do: {line}" if line.startswith(_SYSTEMDS) else line


def _sight(state: HostState) -> Iterator[Finding]:
    """What we were not able to look at."""
    if state.no_systemd:
        yield note(
            "no-systemd",
            "systemd does not answer here, so no unit was looked at.",
            f"{sentence(state.no_systemd)} In a container or under another init this is as it"
            " should be; then proxyd is started by hand: proxyd -d.",
        )
    if not state.as_root:
        yield note(
            "not-root",
            "This is not root, so not everything can be seen.",
            "Whose a socket is, keys and certificates, and how root is answered stay open.",
            ["sudo proxyd doctor"],
        )
