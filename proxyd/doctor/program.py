"""Whether the proxyd that runs is the one that is installed."""

from collections.abc import Iterator

from proxyd.doctor.findings import Finding, sentence, warning
from proxyd.doctor.state import HostState


def judge(state: HostState) -> Iterator[Finding]:
    program = state.program
    if program is None or not program.outdated:
        return
    ends = "" if program.remedy.startswith("proxyd ") else " That ends its sessions."
    yield warning(
        "old-program",
        "The proxyd that runs is not the one that is installed.",
        f"{sentence('; '.join(program.outdated))} What an update mends takes effect when it is"
        f" started anew.{ends}",
        [program.remedy] if program.remedy else ["# start it anew, as it was started"],
    )
