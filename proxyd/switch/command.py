"""proxyd switch: prints what brings the host into the other mode, and on request runs it."""

import argparse
import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxyd.doctor.gather import count_guests
from proxyd.doctor.orders import Order
from proxyd.doctor.state import Mode
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.units import look_at_programs, look_at_units
from proxyd.invocation import pasteable
from proxyd.switch import record as records
from proxyd.switch.recipe import (
    NoRecipe,
    Recipe,
    SwitchHost,
    arrangement,
    network_in_use,
    recipe,
)
from proxyd.switch.record import BadRecord, Record, look_back
from proxyd.switch.undo import undoing

DESCRIPTION: Final = (
    "Prints the commands of libvirt's documentation (https://libvirt.org/daemons.html) that bring"
    " this host into the other mode, with what is already so left out, and after a question runs"
    " them one by one. Guests go on running."
)
EPILOG: Final = f"""\
examples:
  proxyd switch --to modular --dry-run     what would be done, to be read or pasted
  proxyd switch --to modular               the same, with a question, and then done
  proxyd switch --to monolithic --yes      without the question
  proxyd switch --undo                     back to what was enabled, masked and active before

How the host was is kept in {records.PATH}, written before anything is done.
Where something fails the daemon that it was for is left out, the others are brought up, and the
status is 1. Started again it goes on from there.
exit status: 0 done, nothing to do, or only printed; 1 anything else.
"""

_FAILED: Final = 1
_WIDTH: Final = 80
_INDENT: Final = "    "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `proxyd switch`."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--to",
        choices=[Mode.MODULAR.value, Mode.MONOLITHIC.value],
        help="modular: virtqemud and its kin behind the proxy; monolithic: libvirtd alone",
    )
    which.add_argument(
        "--undo",
        action="store_true",
        help="go back to the state before the last switch, whether it came to its end or not",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only print the commands")
    how.add_argument("--yes", action="store_true", help="run them without asking")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is to be run, and what is kept of it. `record` is None for the way back."""

    orders: tuple[Order, ...]
    remarks: tuple[str, ...]
    done: str  # what is said at the end
    to: Mode | None = None
    record: Record | None = None


def run(arguments: argparse.Namespace) -> int:
    """Prints, asks, runs. Returns the exit status."""
    units, no_systemd = look_at_units()
    if no_systemd:
        return _complain(f"{no_systemd}; there is nothing to switch without systemd")
    try:
        known = _known(arguments)
        work = _back(known, units) if arguments.undo else _there(known, units, Mode(arguments.to))
    except (NoRecipe, BadRecord) as error:
        return _complain(str(error))
    if not work.orders:
        print(f"# {work.done}: there is nothing to do.")
        return _finish(work) if known is not None and not arguments.dry_run else 0
    print(pasteable(spelled(work)), end="", flush=True)
    if arguments.dry_run:
        return 0
    if os.geteuid() != 0:
        return _complain("only root may do this; nothing was changed")
    if not arguments.yes and not _agreed(len(work.orders)):
        return _FAILED
    return _carry_out(work)


def _known(arguments: argparse.Namespace) -> Record | None:
    try:
        return Record.load(records.PATH)
    except PermissionError as error:
        if arguments.undo:
            raise BadRecord(f"{records.PATH} is root's: use sudo") from error
        return None


def _there(known: Record | None, units: dict[str, Unit], to: Mode) -> _Work:
    host = SwitchHost(units=units, programs=look_at_programs(), guests=count_guests())
    half_way = known if known is not None and not known.finished else None
    made = recipe(
        host,
        to,
        network=half_way.network if half_way else None,
        as_before=known.sides.get(to) if known else None,
    )
    remarks = made.remarks
    if half_way and made.orders:
        remarks = (
            f"The switch to {half_way.to} that was begun {half_way.day} has not ended.",
            *remarks,
        )
    record = Record(
        to=to,
        begun=half_way.begun if half_way else time.time(),
        network=half_way.network if half_way else tuple(network_in_use(host, to)),
        before=half_way.before if half_way else look_back(units, records.LINKS),
        plan=tuple(order.words for order in made.orders),
        sides=dict(known.sides if known else {}),
    )
    if not half_way:
        left = Mode.MONOLITHIC if to is Mode.MODULAR else Mode.MODULAR
        side = arrangement(host, left)
        if side.served:
            record = replace(record, sides={**record.sides, left: side})
    return _Work(
        orders=made.orders,
        remarks=remarks,
        done=f"This host is {to} already" if not made.orders else f"This host is {to} now",
        to=to,
        record=record if made.orders or half_way else None,
    )


def _back(known: Record | None, units: dict[str, Unit]) -> _Work:
    if known is None:
        raise NoRecipe(f"no switch is known of here ({records.PATH} has none): nothing to undo")
    orders = undoing(look_back(units, records.LINKS), known.before, units)
    stopped = {name for each in orders if each.words[1] == "stop" for name in each.words[2:]}
    cut = [name for name in stopped if name.endswith(".service") and units[name].active]
    remarks = [f"Back from the switch to {known.to} that was begun {known.day}."]
    if cut:
        daemons = ", ".join(sorted(name.removesuffix(".service") for name in cut))
        remarks.append(f"Clients that are connected to {daemons} now lose their connection.")
    return _Work(
        orders=tuple(orders),
        remarks=tuple(remarks),
        done=f"This host is as it was before the switch of {known.day}",
    )


def spelled(work: _Work | Recipe) -> str:
    """The recipe as a script for root's shell, one that does what `run` does."""
    lines = [line for remark in work.remarks for line in _comment(remark)]
    for order in work.orders:
        lines += ["", *_comment(order.why), *folded(order.words)]
    return "\n".join(lines) + "\n"


def folded(words: Sequence[str]) -> Iterator[str]:
    """A command in lines of at most 80 columns, as long as no word is longer."""
    line = ""
    for word in map(shlex.quote, words):
        if line and len(f"{line} {word} \\") > _WIDTH:
            yield f"{line} \\"
            line = _INDENT + word
        else:
            line = f"{line} {word}" if line else word
    yield line


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        _complain("there is nobody to ask; use --yes to run this, --dry-run to print it")
        return False
    what = "this command" if count == 1 else f"these {count} commands"
    try:
        answer = input(f"\nRun {what} now? [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
        print()
    if answer.strip().lower() in {"y", "yes"}:
        return True
    print("Nothing was changed.")
    return False


def _carry_out(work: _Work) -> int:
    """One command after the other, each with the terminal for itself."""
    failures: dict[int, str] = {}
    try:
        for number, order in enumerate(work.orders):
            if work.record is not None:
                work.record.after(number).save(records.PATH)
            if order.daemon and order.daemon in {work.orders[each].daemon for each in failures}:
                continue  # it would only complain again
            print(f"\n[{number + 1}/{len(work.orders)}] {shlex.join(order.words)}", flush=True)
            failure = _failure_of(order)
            if not failure:
                continue
            failures[number] = failure
            _complain(f"{shlex.join(order.words[:2])} {failure}")
            if not order.daemon or failure == _INTERRUPTED:
                break  # nothing may be brought up beside what was not stopped
    except OSError as error:
        return _complain(f"{error.filename or records.PATH}: {error.strerror}; it ends here")
    if failures:
        print(pasteable("\n".join(_after_failure(work, failures))), file=sys.stderr)
        return _FAILED
    status = _finish(work)
    if status == 0:
        print(pasteable(f"\n{work.done}. See for yourself: proxyd doctor"))
    return status


def _finish(work: _Work) -> int:
    """It has come to its end, and a later one begins anew."""
    try:
        if work.record is not None:
            replace(work.record, done=len(work.orders), finished=True).save(records.PATH)
        elif work.to is None:
            records.PATH.unlink(missing_ok=True)
    except PermissionError:
        return 0 if not work.orders else _complain(f"{records.PATH} cannot be written")
    except OSError as error:
        return _complain(f"{records.PATH}: {error.strerror}")
    return 0


_INTERRUPTED: Final = "was interrupted"


def _failure_of(order: Order) -> str:
    try:
        status = subprocess.run(order.words, check=False).returncode
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    except KeyboardInterrupt:
        return _INTERRUPTED
    return f"ended with status {status}" if status else ""


def _after_failure(work: _Work, failures: dict[int, str]) -> Iterator[str]:
    """Where the host is now, and both ways out."""
    for number, failure in failures.items():
        order = work.orders[number]
        whom = f" (for {order.daemon})" if order.daemon else ""
        yield f"Failed{whom}: {shlex.join(order.words)} {failure}"
    first = min(failures)
    if first:
        yield f"Done before it ({first} of {len(work.orders)}):"
        yield from (f"  {shlex.join(order.words)}" for order in work.orders[:first])
    else:
        yield "Nothing was done before it."
    yield "To see why:    systemctl status; journalctl -b -n 50"
    again = f"--to {work.to}" if work.to else "--undo"
    yield f"To go on:      proxyd switch {again}"
    if work.to:
        yield "To go back:    proxyd switch --undo"


def _complain(message: str) -> int:
    print(f"proxyd: {pasteable(message)}", file=sys.stderr)
    return _FAILED
