"""The one place where commands for systemd are made, whoever prints or runs them.

Doctor, switch and install bring a host's daemons into a state, and what they say has to work when
it is pasted, on this host in this state. What systemd does, and each order here heeds:

* It starts nothing that is masked, nor what requires it, and enables it neither: `unmask` goes
  first, and also for the helpers of the daemons that have guests.
* It starts no socket whose service runs ("already active, refusing"), nor makes one anew: the
  service is stopped first. That is one command with its sockets, for through them the next client
  would start it again between two. What is bound to a socket (BindsTo=) stops with it, and so all
  that were active are started afterwards.
* What was started too often is refused until it is `reset-failed`, a service and its sockets.
* Starting a unit stops what conflicts with it: no order is given for a daemon of another mode than
  the host's. That is for those to see to who ask for one: here nothing is known of modes.

`enable` follows Also= in the unit files, so more may be enabled by it than is named.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import LOCK_DAEMON, LOG_DAEMON, MONOLITHIC, suffixes_of, units_of

# What is known of a unit by its name; of one that is not there, just that.
Look: TypeAlias = Callable[[str], Unit]

# Requires= of their units, in some versions of libvirt (docs/protocol/systemd.md).
_REQUIRED: Final = dict.fromkeys((MONOLITHIC, "virtqemud"), (LOG_DAEMON, LOCK_DAEMON))
_SOCKETS_FIRST: Final = "A socket cannot be started while {daemon} runs. Guests go on running."


@dataclass(frozen=True, slots=True)
class Order:
    """One command, and why it is given. `daemon` is whom it brings up; "" if none."""

    why: str
    words: tuple[str, ...]
    daemon: str = ""

    @property
    def line(self) -> str:
        """For a shell. Names of units need no quotes."""
        return " ".join(self.words)


def order(why: str, verb: str, names: Iterable[str], daemon: str = "") -> Order:
    """One of systemctl's."""
    return Order(why, ("systemctl", verb, *names), daemon)


def listening(
    look: Look,
    daemon: str,
    suffixes: Sequence[str],
    *,
    boot: Collection[str] | None = None,
    anew: bool = False,
    never_stop: bool = False,
) -> Iterator[Order]:
    """What has these sockets of a daemon listen, now and after the next boot.

    `boot` names the units to be enabled, if not these sockets. `anew`: the sockets that listen
    already are made once more. `never_stop`: the service may not be ended for it, so that a socket
    listens from the next boot on where it runs. Units that are not installed are left out.
    """
    service = look(f"{daemon}.service")
    if suffixes and not _socket(look, daemon, "").active:
        suffixes = ["", *(suffix for suffix in suffixes if suffix)]  # the others are bound to it
    sockets = [unit for suffix in suffixes if (unit := _socket(look, daemon, suffix)).installed]
    if not sockets:
        return
    yield from _let(look, daemon, [service, *sockets])
    named = [unit.name for unit in sockets] if boot is None else boot
    wanted = [look(name) for name in units_of(daemon) if name in named]
    if disabled := [unit.name for unit in wanted if unit.installed and unit.may_be_enabled]:
        yield order(f"Start {daemon} at boot.", "enable", disabled, daemon)
    down = [unit.name for unit in sockets if not unit.active]
    up = _active_sockets(look, daemon)
    if never_stop:
        down = [] if service.active else down
    elif anew or (down and (service.active or up)):
        # All of it, also what does not run: a client may come before the next command.
        down = list(dict.fromkeys([*(unit.name for unit in sockets), *up]))
        yield order(_SOCKETS_FIRST.format(daemon=daemon), "stop", [service.name, *down], daemon)
    if down:
        why = f"Listen for clients of {daemon}, which the first starts."
        yield order(why, "start", down, daemon)


def started_anew(look: Look, daemon: str) -> Iterator[Order]:
    """What has its service run again, as a new process; its sockets stay as they are."""
    service = look(f"{daemon}.service")
    if service.installed:
        yield from _let(look, daemon, [service])
        yield order(f"Start {daemon} anew.", "restart", [service.name], daemon)


def started(look: Look, daemon: str) -> Iterator[Order]:
    """What has a service run that nobody's socket starts."""
    yield from _let(look, daemon, [look(f"{daemon}.service")])
    yield order(f"Start {daemon}.", "start", [f"{daemon}.service"], daemon)


def forgotten(units: Iterable[Unit]) -> Iterator[Order]:
    """What takes the mark of a failure from units that nobody is to start."""
    if failed := [unit.name for unit in units if unit.failed]:
        yield order("What has failed is not needed here.", "reset-failed", failed)


def lines(orders: Iterable[Order]) -> list[str]:
    """As a finding has them."""
    return [each.line for each in orders]


def ends_sessions(look: Look, orders: Iterable[Order]) -> bool:
    """Whether a service that runs is stopped, and with it whoever is connected."""
    return any(
        each.words[1] in {"stop", "restart"} and look(name).active and name.endswith(".service")
        for each in orders
        for name in each.words[2:]
    )


def if_it_ends(look: Look, orders: Iterable[Order], why: str = "") -> str:
    """What a finding has to say of sessions, with why they end; "" where none does."""
    ends = " The service is stopped for it, which ends its sessions."
    return why + ends if ends_sessions(look, orders) else ""


def _socket(look: Look, daemon: str, suffix: str) -> Unit:
    return look(f"{daemon}{suffix}.socket")


def _active_sockets(look: Look, daemon: str) -> list[str]:
    every = (_socket(look, daemon, suffix) for suffix in suffixes_of(daemon))
    return [unit.name for unit in every if unit.active]


def _let(look: Look, daemon: str, wanted: Sequence[Unit]) -> Iterator[Order]:
    """What takes away that systemd refuses to start them."""
    helpers = [look(name) for each in _REQUIRED.get(daemon, ()) for name in units_of(each)]
    if masked := [unit.name for unit in (*wanted, *helpers) if unit.masked]:
        yield order(f"Let {daemon} be started again.", "unmask", masked, daemon)
    every = [look(f"{daemon}.service"), *(_socket(look, daemon, s) for s in suffixes_of(daemon))]
    if failed := [unit.name for unit in every if unit.failed]:
        yield order(f"Forget that {daemon} has failed.", "reset-failed", failed, daemon)
