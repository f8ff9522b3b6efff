"""proxyd drain: nobody new is let in, and whoever asks learns when the last one has gone."""

import argparse
import json
import math
import sys
import time
from typing import Final

from proxyd.admin import document
from proxyd.cli.admin_client import Connection, NoAnswer
from proxyd.cli.commands import Command
from proxyd.cli.parser import complain
from proxyd.cli.status import told
from proxyd.cli.whereabouts import add_where, reach, whereabouts
from proxyd.daemon.places import Places
from proxyd.invocation import pasteable
from proxyd.process.exit_status import Exit

_LONGEST_WAIT_S: Final = 2147483
_LOOK_EVERY_S: Final = 0.5
_LINE_EVERY_S: Final = 10.0  # where no terminal shows it
_CLEAR_LINE: Final = "\r\x1b[K"

_EPILOG: Final = """\
Who comes is turned away at once, with an error that says why; whoever is connected goes on, and so
does whoever is still proving who he is. It lasts until --undo, or until proxyd is started anew.
Without --wait it waits until nobody is left; Ctrl-C ends the waiting alone.

examples:
  proxyd drain                     nobody new from now on; wait for the last one
  proxyd drain --wait 300          the same, for five minutes at most
  proxyd drain --wait 0            nobody new from now on; do not wait
  proxyd drain --undo              let in again

exit status: 0 nobody is left, or --undo was obeyed; 1 somebody is left, the waiting was ended,
             the command line is wrong, or the daemon was not reached.
"""


def _seconds(text: str) -> int:
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(_LONGEST_WAIT_S))
    if not digits or int(text) > _LONGEST_WAIT_S:
        raise argparse.ArgumentTypeError(
            f"seconds from 0 (not at all) to {_LONGEST_WAIT_S} expected, not {text!r}"
        )
    return int(text)


def _add(parser: argparse.ArgumentParser, places: Places) -> None:
    add_where(parser, places)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        help="wait so long, and exit with 1 if somebody is left then (default: wait for ever)",
    )
    what.add_argument("--undo", action="store_true", help="let in clients again")
    parser.add_argument("--json", action="store_true", help="for machines: how it ended")


class _Progress:
    """How many are left, as it falls: on a terminal one line, elsewhere one each ten seconds."""

    def __init__(self, drain: document.Drain, *, silent: bool) -> None:
        self.latest = drain
        self._silent = silent
        self._live = sys.stdout.isatty()
        self._shown = ""
        self._shown_at = -_LINE_EVERY_S

    def show(self) -> None:
        text, now = _left(self.latest), time.monotonic()
        if self._silent or text == self._shown:
            return
        if self._live:
            print(f"{_CLEAR_LINE}{text}", end="", flush=True)
        elif now - self._shown_at >= _LINE_EVERY_S:
            print(text, flush=True)
        else:
            return
        self._shown, self._shown_at = text, now

    def over(self) -> None:
        """What follows begins a line."""
        if self._live and self._shown:
            print(_CLEAR_LINE, end="", flush=True)
            self._shown = ""


def _act(arguments: argparse.Namespace, places: Places) -> int:
    def done() -> int:
        with reach(whereabouts(arguments, places)) as connection:
            if arguments.undo:
                return _undo(connection, as_json=arguments.json)
            return _drain(connection, arguments.wait, as_json=arguments.json)

    return told(done)


def _undo(connection: Connection, *, as_json: bool) -> int:
    changed = connection.drain(on=False).changed
    if as_json:
        print(json.dumps({"draining": False, "changed": changed}))
    elif changed:
        print("clients are let in again")
    else:
        print("it was not draining: clients are let in as before")
    return Exit.OK


def _drain(connection: Connection, wait_s: int | None, *, as_json: bool) -> int:
    drained = connection.drain(on=True)
    drain = drained.drain
    if drain is None:
        raise NoAnswer(f"{connection.path}: it does not say that it is draining")
    progress = _Progress(drain, silent=as_json)
    try:
        if not as_json:
            print(_begun(drain, already=not drained.changed), flush=True)
        last = _waited(connection, progress, wait_s)
    except KeyboardInterrupt:
        progress.over()
        complain(f"the drain stays in force, {_left(progress.latest)}: {_WHAT_NEXT}")
        return Exit.FAILED
    except NoAnswer as error:
        progress.over()
        gone = f"the daemon is gone while it was waited for, {_left(progress.latest)}: "
        raise NoAnswer(f"{gone if error.down else ''}{error}", down=error.down) from error
    progress.over()
    if as_json:
        left = 0 if last is None else last.left
        print(json.dumps({"draining": last is not None, "changed": drained.changed, "left": left}))
    return _verdict(last, wait_s, silent=as_json)


def _waited(
    connection: Connection, progress: _Progress, wait_s: int | None
) -> document.Drain | None:
    """How it is when nobody is left or the time is over; None if somebody has ended the drain.

    Raises NoAnswer.
    """
    end = math.inf if wait_s is None else time.monotonic() + wait_s
    while progress.latest.left:
        progress.show()
        pause_s = min(_LOOK_EVERY_S, end - time.monotonic())
        if pause_s <= 0:
            break
        time.sleep(pause_s)  # noqa: TID251 (sessions end by themselves)
        now = connection.draining()
        if now is None:
            return None
        progress.latest = now
    return progress.latest


_WHAT_NEXT: Final = (
    "`proxyd clients` shows who, `proxyd kick ID` ends one, `proxyd drain` waits on,"
    " `proxyd drain --undo` lets in again"
)


def _verdict(last: document.Drain | None, wait_s: int | None, *, silent: bool) -> int:
    if last is None:
        complain("somebody has ended the drain meanwhile: clients are let in again")
        return Exit.FAILED
    if last.left:
        complain(f"{_left(last)} after {wait_s} s: {_WHAT_NEXT}")
        return Exit.FAILED
    if not silent:
        print("nobody is left")
    return Exit.OK


def _begun(drain: document.Drain, *, already: bool) -> str:
    since = f"already, for {time.time() - drain.since:.0f} s" if already else "from now on"
    return pasteable(f"nobody new is let in {since}; `proxyd drain --undo` ends that")


def _left(drain: document.Drain) -> str:
    sessions = f"{drain.left} session{'' if drain.left == 1 else 's'} left"
    return f"{sessions} ({drain.negotiating} not open yet)" if drain.negotiating else sessions


DRAIN: Final = Command(
    name="drain",
    description="Lets in nobody new, lets those go on who are here, and waits until they have gone:"
    " for a host that is taken out of service.",
    epilog=_EPILOG,
    add_arguments=_add,
    act=_act,
)
