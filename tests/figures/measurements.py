"""Each takes a stage and amounts, lets proxyd-loadtest measure, and gives a value for each round.

The load tool's own scenarios do all the work; only sessions that are held idle are opened here.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from loadtest.client import Opening, Session, open_session
from loadtest.credentials import Credentials
from loadtest.targets import Target, parse_target
from tests.bed.proxyd import Proxyd
from tests.bed.waiting import wait_until
from tests.figures.stage import IDLE_URI, VOLUMES, Stage, address, settled_kib, told_ready

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 200.0  # of one command of the load tool
UPLOADS: Final = VOLUMES
CLIENTS: Final = 16
AT_A_TIME: Final = 8  # sessions that are being opened
IDLE: Final = 1000
DESCRIPTORS: Final = 2  # of a session
IDLE_TLS: Final = 500
MIB: Final = 1 << 20
GIB: Final = 1 << 30
_OF_FILES: Final = ("--volume", "--ticket-cache")
_NUMBER: Final = re.compile(r"[0-9.]+")
TICKS: Final = os.sysconf("SC_CLK_TCK")

Values = dict[str, list[float]]  # of each round, by the row's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much is measured."""

    rounds: int = 3
    calls: int = 3000  # with one connection, of each target and round
    slices: int = 20  # likewise, with several; of 0.1 s
    session_slices: int = 8  # of 0.4 s
    span_s: float = 3.0  # of uploads, and of calls beside a transfer
    upload: int = 64 * MIB
    bulk: int = 256 * MIB
    idle: int = IDLE
    idle_tls: int = IDLE_TLS


QUICK: Final = Amounts(
    rounds=1,
    calls=100,
    slices=2,
    session_slices=1,
    span_s=0.3,
    upload=MIB,
    bulk=4 * MIB,
    idle=50,
    idle_tls=20,
)


@dataclass(slots=True)
class Tool:
    """proxyd-loadtest, with what it was told and had to remark."""

    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def measure(
        self,
        words: Sequence[str],
        targets: Mapping[str, str],
        opening: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The document of one command. `opening` are words about files that lie anywhere."""
        self._remember(words, targets)
        done = subprocess.run(
            _command(words, targets, opening),
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        if done.returncode != 0:
            raise NotMeasured(f"{self.commands[-1]}: {done.stderr.strip()}")
        document: dict[str, Any] = json.loads(done.stdout)
        for note in document.get("notes", []):
            # One of each kind: whose numbers differ says nothing more.
            if not any(_NUMBER.sub("", note) == _NUMBER.sub("", other) for other in self.notes):
                self.notes.append(note)
        return document

    @contextmanager
    def beside(
        self,
        words: Sequence[str],
        targets: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> Iterator[None]:
        """A load that goes on while the block lasts, whose figures nobody wants."""
        self._remember(words, targets)
        with subprocess.Popen(
            _command(words, targets, ()),
            cwd=CHECKOUT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield
                if process.poll() is not None:
                    raise NotMeasured(f"{self.commands[-1]}: it ended with {process.returncode}")
            finally:
                # As Ctrl-C, after which it ends its workers.
                process.send_signal(signal.SIGINT)
                process.wait(PATIENCE_S)

    def _remember(self, words: Sequence[str], targets: Mapping[str, str]) -> None:
        told = " ".join(["proxyd-loadtest", *_without_files(words), *targets])
        if told not in self.commands:
            self.commands.append(told)


class NotMeasured(Exception):
    """The load tool failed; what it said."""


def _command(words: Sequence[str], targets: Mapping[str, str], opening: Sequence[str]) -> list[str]:
    named = [f"--target={name}={target}" for name, target in targets.items()]
    # As proxyd-loadtest would be called; in the environment of a wheel it has another name.
    return [sys.executable, "-m", "loadtest", *words, "--json", *opening, *named]


def _without_files(words: Sequence[str]) -> Iterator[str]:
    """Where volumes and tickets were, like sockets, is of no interest afterwards."""
    for flag, word in zip(["", *words], words, strict=False):
        if word not in _OF_FILES and flag not in _OF_FILES:
            yield word


def calls(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """One small call at a time, straight, by UNIX and by TLS in turns."""
    targets = {
        "direct": stage.direct(),
        "unix": stage.unix(stage.proxyd),
        "tls": stage.tls(stage.proxyd),
    }
    words = ["compare", "--rounds", str(amounts.rounds), "--calls", str(amounts.calls)]
    straight, unix, tls = tool.measure(words, targets, stage.tls_words)["targets"]
    direct = [one["latency_ns"]["p50"] / 1e3 for one in straight["rounds"]]
    return {"direct": direct, "added-unix": _added_us(unix), "added-tls": _added_us(tls)}


def limit(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """What is added beside what a bare relay in C adds, in rows of calls and one by one."""
    targets = {
        "direct": stage.direct(),
        "unix": stage.unix(stage.proxyd),
        "tls": stage.tls(stage.proxyd),
    }
    words = ["limit", "--rounds", str(amounts.rounds), "--calls", str(amounts.calls)]
    document = tool.measure(words, targets, stage.tls_words)
    found = {target["name"]: target for target in document["targets"]}
    return {
        f"limit-{name}-{order}": (found[name][order]["multiple"] or {"per_round": []})["per_round"]
        for name in ("unix", "tls")
        for order in ("warm", "cold")
    }


def clients(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """So many clients that each make one call after the other."""
    words = ["compare", "-c", str(CLIENTS), *_slices(amounts.rounds, amounts.slices)]
    _, unix = tool.measure(words, _unix_and_direct(stage))["targets"]
    return {
        "clients-rate": unix["against_first"]["rate_ratio"]["per_round"],
        "clients-cpu": _cpu_us(unix, "call"),
    }


def sessions(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """New sessions by UNIX, a few at a time."""
    words = ["compare", "--sessions", "-c", str(AT_A_TIME)]
    words += _slices(amounts.rounds, amounts.session_slices)
    _, unix = tool.measure(words, _unix_and_direct(stage))["targets"]
    return {
        "sessions-rate": unix["against_first"]["rate_ratio"]["per_round"],
        "sessions-cpu": [each / 1e3 for each in _cpu_us(unix, "session")],
    }


def tls_sessions(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """New sessions by TLS, with whole handshakes."""
    words = ["compare", "--sessions", "-c", str(AT_A_TIME)]
    words += _slices(amounts.rounds, amounts.session_slices)
    document = tool.measure(words, {"tls": stage.tls(stage.proxyd)}, stage.tls_words)
    (tls,) = document["targets"]
    return {
        "tls-sessions-rate": [one["sessions_per_s"] for one in tls["rounds"]],
        "tls-sessions-cpu": [each / 1e3 for each in _cpu_us(tls, "session")],
    }


def uploads(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """One upload after the other, and several clients that do that at once, in turns."""
    ways = {
        "tls": (stage.tls(stage.proxyd), stage.tls_words),
        "gssapi": (stage.gssapi(stage.proxyd), ["--ticket-cache", str(stage.ticket)]),
    }
    values: Values = {}
    for _ in range(amounts.rounds):
        for name, (target, opening) in ways.items():
            one, several = (
                _upload_rate(stage, amounts, tool, connections, {name: target}, opening)
                for connections in (1, UPLOADS)
            )
            values.setdefault(f"uploads-{name}", []).append(several / one)
            values.setdefault(f"uploads-{name}-rate", []).append(several / MIB)
    return values


def _upload_rate(
    stage: Stage,
    amounts: Amounts,
    tool: Tool,
    connections: int,
    target: Mapping[str, str],
    opening: Sequence[str],
) -> float:
    words = ["run", "--closed", "-c", str(connections), "-d", f"{amounts.span_s:g}s"]
    words += ["--workers", str(connections), "--mix", f"upload:{amounts.upload // MIB}MiB"]
    for volume in stage.volumes(stage.backend)[:connections]:
        words += ["--volume", volume]
    (found,) = tool.measure(words, target, opening, stage.environment)["targets"]
    if found["errors"]:
        raise NotMeasured(f"uploads failed: {found['errors']}")
    return float(found["bytes_up"] / found["elapsed_s"])


def beside(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """Small calls by UNIX alone and beside a download with a ticket, which other daemons serve."""
    proxyd = stage.transfers_proxyd
    volume = stage.volumes(stage.other_backend)[0]
    transfer = ["run", "--closed", "-c", "1", "-d", "1h", "--mix", "download:1GiB"]
    transfer += ["--volume", volume, "--ticket-cache", str(stage.ticket)]
    ways = {"beside": {"unix": stage.unix(proxyd)}, "beside-direct": {"direct": stage.direct()}}
    values: Values = {name: [] for name in ways}
    for _ in range(amounts.rounds):
        alone = {name: _p99_ms(amounts, tool, target) for name, target in ways.items()}
        before = _cpu_s(proxyd)
        with tool.beside(transfer, {"gssapi": stage.gssapi(proxyd)}, stage.environment):
            wait_until(lambda: _cpu_s(proxyd) - before > 0.2, 30, "the transfer has begun")  # noqa: B023
            for name, target in ways.items():
                values[name].append(_p99_ms(amounts, tool, target) - alone[name])
    return values


def _p99_ms(amounts: Amounts, tool: Tool, target: Mapping[str, str]) -> float:
    words = ["run", "--closed", "-c", "1", "-d", f"{amounts.span_s:g}s", "--mix", "small"]
    (found,) = tool.measure([*words, "--uri", "test:///default"], target)["targets"]
    return float(found["calls"]["p99_ns"] / 1e6)


def start(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """proxyd with TLS on, started anew: how soon, how large, and how large its sessions are."""
    values: Values = {"ready": [], "resident-tls": [], "idle-tls": []}
    config = {"proxyd_routes": [f"lxc={stage.prompt}"], **stage.tls_settings}
    tool.commands.append("proxyd -f FILE -p FILE")
    with stage.fresh_proxyd(config):
        pass  # the first one finds no byte code
    for _ in range(amounts.rounds):
        place = stage.prompt.with_name("notify")
        with told_ready(place) as ready:
            began = time.monotonic()
            with stage.fresh_proxyd(config, notify=place) as proxyd:
                wait_until(lambda: ready, 10, "proxyd says that it is ready")
                values["ready"].append(ready[0] - began)
                values["resident-tls"].append(settled_kib(proxyd) / 1024)
                target = parse_target(f"tls=tls:{address(proxyd, 'tls')}")
                values["idle-tls"].append(_idle_kib(stage, proxyd, target, amounts.idle_tls))
    return values


def idle(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """A thousand sessions that do nothing, and a small call beside them."""
    values: Values = {"idle-unix": [], "idle-descriptors": [], "idle-added": []}
    routes = [f"test={stage.backend.sock}", f"lxc={stage.prompt}"]
    for _ in range(amounts.rounds):
        with stage.fresh_proxyd({"proxyd_routes": routes}) as proxyd, ExitStack() as stack:
            target = parse_target(f"idle=unix:{proxyd.sock}")
            with _idle(stage, target, 1):
                before, descriptors = settled_kib(proxyd), len(proxyd.descriptors())
                stack.enter_context(_idle(stage, target, amounts.idle))
            values["idle-unix"].append((settled_kib(proxyd) - before) / amounts.idle)
            # The first one, which was there before, has gone.
            more = len(proxyd.descriptors()) - descriptors + DESCRIPTORS
            values["idle-descriptors"].append(more / amounts.idle)
            targets = {"direct": stage.direct(), "unix": stage.unix(proxyd)}
            words = ["compare", "--rounds", "1", "--calls", str(amounts.calls)]
            _, unix = tool.measure(words, targets)["targets"]
            values["idle-added"] += _added_us(unix)
    return values


def _idle_kib(stage: Stage, proxyd: Proxyd, target: Target, number: int) -> float:
    """What each of so many takes; the first one, which is not counted, brings what all share."""
    with _idle(stage, target, 1):
        before = settled_kib(proxyd)
        with _idle(stage, target, number):
            return (settled_kib(proxyd) - before) / number


@contextmanager
def _idle(stage: Stage, target: Target, number: int) -> Iterator[list[Session]]:
    client = stage.pki / "client"
    files = [str(client / name) for name in ("cacert.pem", "clientcert.pem", "clientkey.pem")]
    opening = Opening(IDLE_URI, readonly=False, wait_s=10, credentials=Credentials(*files))
    with ExitStack() as stack:
        yield [stack.enter_context(closing(open_session(target, opening))) for _ in range(number)]


def bulk(stage: Stage, amounts: Amounts, tool: Tool) -> Values:
    """A volume comes down by each way in turn; what proxyd takes for it."""
    volume = stage.volumes(stage.backend)[0]
    targets = {
        "unix": stage.unix(stage.proxyd),
        "tls": stage.tls(stage.proxyd),
        "gssapi": stage.gssapi(stage.proxyd),
    }
    words = ["compare", "--bulk", f"{amounts.bulk // MIB}MiB", "--rounds", str(amounts.rounds)]
    opening = [*stage.tls_words, "--ticket-cache", str(stage.ticket)]
    words += ["--volume", volume]
    document = tool.measure(words, targets, opening, stage.environment)
    return {
        f"gib-{target['name']}": [
            each / 1e6 * GIB / amounts.bulk for each in _cpu_us(target, "transfer")
        ]
        for target in document["targets"]
    }


def _unix_and_direct(stage: Stage) -> dict[str, str]:
    return {"direct": stage.direct(), "unix": stage.unix(stage.proxyd)}


def _slices(rounds: int, slices: int) -> list[str]:
    return ["--rounds", str(rounds), "--slices", str(slices)]


def _added_us(target: Mapping[str, Any]) -> list[float]:
    return [each / 1e3 for each in target["against_first"]["added_p50_ns"]["per_round"]]


def _cpu_us(target: Mapping[str, Any], unit: str) -> list[float]:
    """Of proxyd, for each call, session, transfer."""
    return [one[f"cpu_per_{unit}_ns"]["pid"] / 1e3 for one in target["rounds"]]


def _cpu_s(proxyd: Proxyd) -> float:
    fields = Path(f"/proc/{proxyd.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


Measurement = Callable[[Stage, Amounts, Tool], Values]
BY_NAME: Final[dict[str, Measurement]] = {
    "calls": calls,
    "limit": limit,
    "clients": clients,
    "sessions": sessions,
    "tls-sessions": tls_sessions,
    "uploads": uploads,
    "beside": beside,
    "start": start,
    "idle": idle,
    "bulk": bulk,
}
