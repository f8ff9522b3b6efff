"""The way back from a switch: to what was enabled, masked and active before it, unit by unit.

`systemctl disable` and `enable` follow Also= in unit files and so change more than is named. What
they keep are symbolic links, and these are put back themselves.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from proxyd.doctor.orders import Look, Order, order
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import DAEMONS, LOCK_DAEMON, LOG_DAEMON, sockets_of, units_of
from proxyd.switch.record import Before


def undoing(now: Before, before: Before, units: Mapping[str, Unit]) -> list[Order]:
    """What makes `now` the same as `before`; nothing if it is."""

    def look(name: str) -> Unit:
        return units.get(name) or Unit(name=name)

    stopped = list(_to_stop(now, before, look))
    orders = []
    if stopped:
        why = "Stop what did not run before. Guests go on running."
        orders.append(order(why, "stop", stopped))
    orders += _linked(now.links, before.links)
    if failed := [name for name in _ordered(before.active) if look(name).failed]:
        orders.append(order("Forget that it has failed.", "reset-failed", failed))
    left = now.active - set(stopped)
    for kind, why in (
        (".socket", "Listen where somebody listened before."),
        (".service", "Start what ran before."),
    ):
        for daemon, names in _by_daemon(before.active - left, kind):
            orders.append(order(why, "start", names, daemon))
    return orders


def _to_stop(now: Before, before: Before, look: Look) -> Iterator[str]:
    """What was not active, and a service whose sockets are to be started, with its sockets."""
    for daemon in DAEMONS:
        names = [name for name in units_of(daemon) if name in now.active]
        extra = [name for name in names if name not in before.active]
        missing = [name for name in sockets_of(daemon) if name in before.active - now.active]
        helper = daemon in {LOG_DAEMON, LOCK_DAEMON}
        if helper:  # guests write through them, and die if they are stopped
            continue
        yield from names if missing and look(f"{daemon}.service").active else extra


def _linked(now: Mapping[str, str], before: Mapping[str, str]) -> Iterator[Order]:
    gone = [path for path in now if path not in before]
    back = {path: target for path, target in before.items() if now.get(path) != target}
    if gone:
        yield Order("What was neither enabled nor masked is so no more.", ("rm", "-f", *gone))
    if missing := sorted({str(Path(path).parent) for path in back}):
        yield Order("Where systemd keeps what is enabled.", ("mkdir", "-p", *missing))
    for path, target in back.items():
        yield Order("As it was before.", ("ln", "-sfn", target, path))
    if gone or back:
        yield Order("Have systemd look.", ("systemctl", "daemon-reload"))


def _by_daemon(names: frozenset[str], kind: str) -> Iterator[tuple[str, list[str]]]:
    found = [name for name in _ordered(names) if name.endswith(kind)]
    for daemon, group in groupby(found, key=_daemon_of):
        yield daemon, list(group)


def _ordered(names: frozenset[str]) -> list[str]:
    return [name for daemon in DAEMONS for name in units_of(daemon) if name in names]


def _daemon_of(name: str) -> str:
    return next(daemon for daemon in DAEMONS if name in units_of(daemon))
