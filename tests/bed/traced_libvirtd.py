"""A libvirtd whose own log says which calls it carries out, and what virsh got of each of them.

virsh runs many commands in one session. Before each of them it asks for the host's name, which the
daemon dispatches as a call of its own: so its log falls into the parts of the commands.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bed.daemon import ConfigValue
from tests.bed.libvirtd import Libvirtd
from tests.bed.permitted_commands import Call, numbered
from tests.bed.side_by_side import Way
from tests.bed.waiting import wait_until

DEADLINE_S: Final = 20.0
_DISPATCHED: Final = re.compile(
    r"debug : virNetServerProgramDispatch:\d+ : prog=(\d+) ver=\d+ type=\d+ status=\d+ serial=\d+"
    r" proc=(\d+)"
)
_MARK: Final = Call("REMOTE", "CONNECT_GET_HOSTNAME")
_IN_STDOUT: Final = re.compile(r"@@\d+@@\n?")
_IN_STDERR: Final = re.compile(r"error: @@\d+@@\n?")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and which calls of it the daemon got, in their order."""

    stdout: str
    stderr: str
    calls: tuple[Call, ...]


class TracedLibvirtd(Libvirtd):
    """Root's, without listeners. Everybody may reach its sockets who reaches the directory."""

    def __init__(self, directory: Path, config: Mapping[str, ConfigValue | None] | None = None):
        self.trace = directory / "trace"
        super().__init__(
            directory,
            config={
                # How a connection is opened is told by the library, the rest by the server.
                "log_filters": "1:rpc.netserverprogram 1:libvirt",
                "log_outputs": f"1:file:{self.trace}",
                **(config or {}),
            },
        )

    def position(self) -> int:
        """Of the trace's end, for what is told from here on."""
        return self.trace.stat().st_size

    def told_since(self, position: int) -> str:
        """What was logged behind it."""
        with self.trace.open("rb") as trace:
            trace.seek(position)
            return trace.read().decode(errors="replace")

    def calls_since(self, position: int) -> list[Call]:
        """What was dispatched behind it."""
        known = numbered()
        return [
            known[int(program), int(procedure)]
            for program, procedure in _DISPATCHED.findall(self.told_since(position))
        ]

    def outcomes(self, way: Way, commands: Sequence[str]) -> list[Outcome]:
        """Of each command, all in one virsh whose only way to a daemon ends at this one.

        Nobody else has a call there meanwhile. "" is a command that is left out.
        """
        script = []
        for number, command in enumerate(commands):
            script += ["hostname", f"echo @@{number}@@", f"echo --err @@{number}@@", command]
        position = self.position()
        done = way.virsh("-q", "; ".join(filter(None, [*script, "hostname"])))
        parts: list[list[Call]] = wait_until(
            lambda: self._parts(position, len(commands)),
            DEADLINE_S,
            f"the daemon was asked for its name {len(commands) + 1} times\n{done.stderr}",
        )
        printed = _IN_STDOUT.split(done.stdout), _IN_STDERR.split(done.stderr)
        assert [len(each) for each in printed] == [len(commands) + 1] * 2, done
        return [
            Outcome(stdout, stderr, tuple(calls))
            for stdout, stderr, calls in zip(printed[0][1:], printed[1][1:], parts, strict=True)
        ]

    def _parts(self, position: int, count: int) -> list[list[Call]]:
        """The calls behind each mark but the last, once all are there."""
        parts: list[list[Call]] = [[]]
        for call in self.calls_since(position):
            if call == _MARK:
                parts.append([])
            else:
                parts[-1].append(call)
        return parts[1:-1] if len(parts) == count + 2 else []
