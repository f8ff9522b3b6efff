"""The Locust user of locustfile.py.

--host is a target's KIND:ADDRESS, and the other options are those of `run`. Master, workers, the
web page, CSV and statistics are Locust's own. Each user has one session and one call at a time.

Locust has patched the standard library for gevent before this is imported, so what is written for
blocking sockets gives way to the other users here. The kernel's deadlines (SO_RCVTIMEO) do nothing
for such sockets; that is what `gevent.Timeout` is for.
"""

import argparse
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from gevent import Timeout, sleep
from locust import User, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from proxyd.wire.xdr import MalformedFrame

from . import amounts
from .client import Opening, Session, open_session
from .failures import TargetFailure, UsageError
from .mix import KNOWN, Mix, Work, parse_mix
from .opening_options import add_opening, opening_of
from .procedures import Storage
from .running.errors import NothingThere
from .running.requests import Request, Requests
from .targets import Target, parse_target
from .transfer import download, find_volume, upload

_CALLS_URI: Final = "test:///default"
_VOLUME_URI: Final = "qemu:///system"
_BACK_OFF_S: Final = 1.0  # a target that lets nobody in is not asked without a break
_NAME: Final = "host"  # of the target, in what goes wrong


@dataclass(frozen=True, slots=True)
class Plan:
    """What the options ask of each user."""

    target: Target
    opening: Opening
    mix: Mix
    volume: str | None
    rate: float | None  # calls per second of each user; None: the next one at once


def _add_options(parser: LocustArgumentParser) -> None:
    # In a group of their own, which the web page does not show: who may open that page need not
    # say which files are read.
    group = parser.add_argument_group("libvirt", "Of loadtest/locustfile.py")
    add = group.add_argument
    add("--mix", default="small", metavar="NAME=WEIGHT,…", help=f"which calls (small): {KNOWN}")
    add("--uri", help=f"to open ({_CALLS_URI}; with transfers in the mix {_VOLUME_URI})")
    add("--readonly", action="store_true", help="open the connections read-only")
    add("--volume", metavar="PATH", help="of download and upload: in a running pool")
    add(
        "--rate-per-user",
        type=amounts.rate,
        help="calls per second of each user (default: the next one at once)",
    )
    add_opening(add)


def _check_options(environment: Environment, **_: object) -> None:
    """A senseless command line ends the process before it begins."""
    if environment.host is None:
        return  # to be given on the web page
    try:
        plan_of(environment.host, environment.parsed_options)
    except UsageError as error:
        raise SystemExit(f"locustfile: {error}") from None


def plan_of(host: str, options: argparse.Namespace | None) -> Plan:
    """Raises UsageError."""
    assert options is not None, "Locust was started as a command"
    target, mix = parse_target(f"{_NAME}={host}"), parse_mix(options.mix)
    if mix.events or mix.idle:
        raise UsageError("--mix: events and idle hold connections, which users here do not")
    if mix.needs_volume and options.volume is None:
        raise UsageError("--mix: transfers need --volume PATH")
    uri = options.uri or (_VOLUME_URI if mix.needs_volume else _CALLS_URI)
    opening = opening_of(options, (target,), uri, readonly=options.readonly)
    return Plan(target, opening, mix, options.volume, options.rate_per_user)


class LibvirtUser(User):
    """One client: a session, and calls as the mix says. A session that breaks is opened again."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        try:
            self._plan = plan_of(str(self.host), environment.parsed_options)
        except UsageError as error:
            logging.getLogger(__name__).error("%s", error)
            raise StopUser from error
        self._requests = Requests(self._plan.mix, self._plan.volume)
        self._order = self._plan.mix.endless(seed=id(self))
        self._session: Session | None = None
        self._volume = b""
        rate = self._plan.rate
        self._pace = constant_throughput(rate) if rate is not None else _at_once

    def wait_time(self) -> float:
        """Seconds until the next call."""
        return self._pace(self)

    def on_stop(self) -> None:
        """Says goodbye."""
        if self._session is not None:
            with Timeout(self._plan.opening.wait_s, TimeoutError()), closing(self._session):
                self._session = None

    @task
    def make_a_call(self) -> None:
        """The next one of the mix."""
        if self._session is None and not self._told("CONNECT", "session", self._open):
            sleep(_BACK_OFF_S)
            return
        request = self._requests.all[next(self._order)]
        kind = "STREAM" if request.work.size else "CALL"
        self._told(kind, request.work.title, lambda: self._made(request))

    def _open(self) -> int:
        plan = self._plan
        self._session = open_session(plan.target, plan.opening)
        asking = self._requests.look_up()
        try:
            asked = next(asking)
            while True:
                asked = asking.send(self._session.call(*asked).payload)
        except StopIteration:
            pass  # it knows what it has to
        if plan.volume is not None and plan.mix.needs_volume:
            largest = max(work.size for work, _ in plan.mix.work)
            self._volume = find_volume(self._session, plan.volume, largest)
        return 0

    def _made(self, request: Request) -> int:
        """Makes it; returns how many bytes came for it, or went."""
        assert self._session is not None
        work: Work = request.work
        if work.size:
            move = upload if work.procedure == Storage.VOL_UPLOAD else download
            move(self._session, self._volume, work.size)
            return work.size
        return len(self._session.call(work.procedure, request.arguments).payload)

    def _told(self, kind: str, name: str, act: Callable[[], int]) -> bool:
        """Does it, and tells Locust's statistics; False if it failed."""
        began, length, failed = perf_counter(), 0, None
        wait_s = self._plan.opening.wait_s
        try:
            with Timeout(wait_s, TimeoutError(f"nothing happened for {wait_s:g} s")):
                length = act()
        except (TargetFailure, NothingThere, MalformedFrame, OSError) as error:
            failed = error
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=(perf_counter() - began) * 1000,
            response_length=length,
            exception=failed,
            context={},
        )
        if failed is not None:
            self._drop()
        return failed is None

    def _drop(self) -> None:
        if self._session is not None:
            self._session.sock.close()
            self._session = None


def _at_once(_user: User) -> float:
    return 0.0


# Locust asks for both when it has loaded locustfile.py.
events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_check_options)  # type: ignore[no-untyped-call]
