"""What a client does by two ways, directly and through the proxy: what comes of it, and how long.

Commands differ by milliseconds, while a client that sits still does so until something wakes it: a
keepalive (after 5 s), a time-out, or nothing at all. So a second more is no question of speed.

On a machine that has more to do than it can, everybody waits for a processor, and that for seconds.
The kernel counts those (/proc/pressure/cpu), and they are allowed for, up to MOST_BUSY_S: with them
it is still less than a keepalive's interval. On a machine that is left alone there are hardly any.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.bed.command import Finished, run_to_end
from tests.bed.python_libvirt import INTERPRETER

T = TypeVar("T")

SLOWER_S: Final = 1.0
MOST_BUSY_S: Final = 3.0
DEADLINE_S: Final = 60.0
_HIDDEN: Final = "URI"


@dataclass(frozen=True, slots=True)
class Way:
    """How a client comes to a daemon: its URI, its environment, and what its command runs by.

    What it prints has "URI" for the URI, since it may say where it went.
    """

    uri: str
    environment: Mapping[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()  # say nsenter

    def virsh(self, *arguments: str, deadline_s: float = DEADLINE_S) -> Finished:
        """One run of virsh. Arguments are commands, or options before them."""
        return self._run("virsh", "-c", self.uri, *arguments, deadline_s=deadline_s)

    def script(self, script: str, *, deadline_s: float = DEADLINE_S) -> Finished:
        """A script with libvirt's Python binding, which gets the URI."""
        return self._run(INTERPRETER, "-c", script, self.uri, deadline_s=deadline_s)

    def _run(self, *command: str, deadline_s: float) -> Finished:
        done = run_to_end(
            [*self.wrapper, *command], deadline_s=deadline_s, environment=self.environment
        )
        return replace(
            done,
            command=(),
            stdout=done.stdout.replace(self.uri, _HIDDEN),
            stderr=done.stderr.replace(self.uri, _HIDDEN),
        )


@dataclass(frozen=True, slots=True)
class Timed:
    """What came of something, the seconds that it took, and those of them that were busy ones."""

    result: Any
    seconds: float
    busy_s: float


@dataclass(frozen=True)
class SideBySide:
    """Compares ways with the direct one, in turns, in so many runs."""

    runs: int = 1

    def virsh(
        self, direct: Way, through: Sequence[Way], *arguments: str, deadline_s: float = DEADLINE_S
    ) -> Finished:
        """One virsh by each way; returns what came through the proxy."""
        do = {way.uri: partial(way.virsh, *arguments, deadline_s=deadline_s) for way in through}
        directly = partial(direct.virsh, *arguments, deadline_s=deadline_s)
        return self._compare(f"virsh {' '.join(arguments)}", directly, do)

    def script(
        self, direct: Way, through: Sequence[Way], script: str, *, at_once: bool = False
    ) -> None:
        """A script that prints cases as JSON, {name: [result, seconds, busy_s]}.

        One after the other, or all ways `at_once`: for one that is silent most of its time.
        """
        ways = [direct, *through]
        for run in range(self.runs):
            with ThreadPoolExecutor(len(ways) if at_once else 1) as threads:
                told = threads.map(lambda way: _cases(way.script(script).succeeded()), ways)
                directly, *others = told
            slow = []
            for way, proxied in zip(through, others, strict=True):
                assert proxied.keys() == directly.keys(), way.uri
                slow += [
                    self._slow(f"{name}, {way.uri}", run, directly[name], case)
                    for name, case in proxied.items()
                ]
            assert not any(slow), "\n".join(filter(None, slow))

    def of(
        self,
        what: str,
        direct: Callable[[], T],
        through: Callable[[], T],
        *,
        before: Callable[[], object] = lambda: None,
    ) -> T:
        """The same result, and no later than SLOWER_S; returns the last one.

        `before` each of them something is done that takes time of its own.
        """
        return self._compare(what, direct, {"": through}, before)

    def _compare(
        self,
        what: str,
        direct: Callable[[], T],
        through: Mapping[str, Callable[[], T]],
        before: Callable[[], object] = lambda: None,
    ) -> T:
        assert through
        for run in range(self.runs):
            before()
            directly = timed(direct)
            for name, do in through.items():
                before()
                proxied = timed(do)
                told = self._slow(f"{what} {name}", run, directly, proxied)
                assert not told, told
        result: T = proxied.result
        return result

    def _slow(self, what: str, run: int, direct: Timed, through: Timed) -> str:
        """Fails on another result; returns what to say of too long a time, else ""."""
        assert through.result == direct.result, what
        if through.seconds <= direct.seconds + SLOWER_S + min(through.busy_s, MOST_BUSY_S):
            return ""
        return (
            f"{what}: {through.seconds:.2f} s through the proxy, {direct.seconds:.2f} s directly"
            f" (run {run + 1} of {self.runs}; processors were waited for {through.busy_s:.2f} s)"
        )


def timed(do: Callable[[], object]) -> Timed:
    """What it returns, with its time."""
    began, busy_s = time.monotonic(), busy_seconds()
    result = do()
    return Timed(result, time.monotonic() - began, busy_seconds() - busy_s)


def busy_seconds() -> float:
    """Those since the machine's start in which somebody waited for a processor.

    0 where the kernel does not count them.
    """
    try:
        counted = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return 0
    return int(counted.split("total=")[1].split()[0]) / 1e6


def _cases(printed: str) -> dict[str, Timed]:
    return {name: Timed(*case) for name, case in json.loads(printed).items()}
