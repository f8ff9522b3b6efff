"""Whether the tool was what ended the rise: then the figures are not those of the target."""

from collections.abc import Iterable
from typing import Final

from ..results import ToolUse
from .gathering import Gathering

_BUSY: Final = 0.9  # of a core: beyond, an event loop answers late
# Later than this, and than a quarter of what was measured, distorts it.
_LATE_NS: Final = 1_000_000
_LATE_SHARE: Final = 0.25
_P99: Final = 99.0


def tool_use(gatherings: Iterable[Gathering], parent_cpu_s: float) -> ToolUse:
    """All workers and the parent together."""
    everyone = list(gatherings)
    done = [one for gathering in everyone for one in gathering.done]
    busiest = max(one.cpu_ns / one.elapsed_ns for one in done)
    late = [one.late.percentile(_P99) for one in everyone if one.late.count]
    return ToolUse(
        workers=len(done),
        cpu_s=sum(one.cpu_ns for one in done) / 1e9 + parent_cpu_s,
        busiest_share=busiest,
        late_p99_ns=max(late) if late else None,
        bottleneck=_short_of_cpu(everyone) or _late(everyone),
    )


def _short_of_cpu(gatherings: list[Gathering]) -> str | None:
    for gathering in gatherings:
        for one in gathering.done:
            had, waited = one.cpu_ns / one.elapsed_ns, one.waited_ns / one.elapsed_ns
            if had > _BUSY:
                return (
                    f"a worker of {gathering.result.name} used {had:.0%} of a core: "
                    "give it more with --workers, or another machine"
                )
            if had + waited > _BUSY:
                return (
                    f"a worker of {gathering.result.name} used {had:.0%} of a core and waited "
                    f"{waited:.0%} of the time for one: this machine has too few for the tool "
                    "and what else runs on it"
                )
    return None


def _late(gatherings: list[Gathering]) -> str | None:
    for gathering in gatherings:
        if not gathering.late.count or not gathering.result.calls.count:
            continue
        late, measured = (one.percentile(_P99) for one in (gathering.late, gathering.result.calls))
        if late > _LATE_NS and late > _LATE_SHARE * measured:
            return (
                f"calls to {gathering.result.name} were sent late, by {late / 1e6:.1f} ms at p99, "
                "although a connection was free"
            )
    return None
