"""Under which rule a session is: decided when it opens, and anew when an administrator says so.

Asked is how the client came in, who it is by everything that is known of it, and the name that it
opens. What no rule asks for is not looked up.
"""

import errno
import functools
import time
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakValueDictionary

import trio

from proxyd.admission.holder import site
from proxyd.config.transports import Transport
from proxyd.peer.credentials import Denied, ensure_it_is_there
from proxyd.peer.names import NameService
from proxyd.peer.ssh import came_by_ssh
from proxyd.relay.guards import GUARDED, Guards, restricted
from proxyd.relay.pace import Pace
from proxyd.rules.grant import Grant, Level
from proxyd.rules.permissions import allowance_of
from proxyd.rules.reading import name_matched
from proxyd.rules.rule import Rule
from proxyd.rules.ruling import Ruling
from proxyd.rules.subject import Subject, Way
from proxyd.rules.table import RuleTable
from proxyd.session.roster import Client
from proxyd.wire import failure
from proxyd.wire.failure import Domain, Failure

_FEW_NAMES: Final = 16  # in a certificate; each is compared with up to 200 patterns
_MOST_SETS: Final = 256  # beyond it a session's table is made anew
_MOST_KEPT: Final = 4096  # paces of client identities; beyond it half of those that owe stay
_NETWORK: Final = {Transport.TCP: Way.TCP, Transport.TLS: Way.TLS}


class Forbidden(Exception):
    """No session comes of it. `failure` is for the client, the text for the log.

    `ruling` is the rule that has decided so, where one has.
    """

    def __init__(self, reason: str, told: Failure, ruling: Ruling | None = None) -> None:
        super().__init__(reason)
        self.failure = told
        self.ruling = ruling


class Rulings:
    """`table` gives the rules in force, None where there are none; `clients` are all by number."""

    def __init__(
        self,
        table: Callable[[], RuleTable | None],
        names: NameService,
        clients: Mapping[int, Client],
    ) -> None:
        self._table = table
        self._names = names
        self._clients = clients
        self._paces = WeakValueDictionary[tuple[str, str], Pace]()
        # Who owes calls goes on to do so when the last of his sessions has ended.
        self._kept: dict[tuple[str, str], Pace] = {}
        # How often open sessions were held to the rules. What was decided before the last time is
        # not to be opened any more.
        self.applied = 0

    async def decide(self, client: Client, uri: str) -> Ruling | None:
        """The ruling for a session of this client's; None where there are no rules.

        `uri` is the name as it goes to the daemon. Raises Forbidden.
        """
        table = self._table()
        if table is None:
            return None
        denied = failure.access_denied(f"open {uri}")
        name = name_matched(uri)
        if name is None:
            raise Forbidden("no rule fits a name with . or .. in its path", denied)
        subject = await self._subject_of(client, table)
        decide = functools.partial(table.decide, subject, name, time.time())
        is_slow = table.is_slow or len(subject.sans) > _FEW_NAMES
        rule = await _in_a_thread(decide) if is_slow else decide()
        if rule is None:
            raise Forbidden("no rule lets it in there", denied)
        ruling = Ruling(
            line=rule.line,
            text=rule.text,
            grant=rule.grant,
            holder=_holder(subject),
            by_ssh=Way.SSH in subject.ways,
        )
        if rule.grant.level is Level.DENY:
            raise Forbidden(f"rule {rule.line} denies it: {rule.text}", denied, ruling)
        return ruling

    def demand_room(self, client: Client, ruling: Ruling | None) -> None:
        """Raises Forbidden where its rule allows no more sessions of this identity."""
        most = 0 if ruling is None else ruling.grant.sessions
        if ruling is None or not most:
            return
        held = sum(
            each.ruling is not None and each.ruling.purse == ruling.purse and each is not client
            for each in self._clients.values()
        )
        if held >= most:
            text = f"rule {ruling.line} allows {most} sessions of one client at a time"
            told = failure.too_many_sessions(f"{text}, and as many are open")
            raise Forbidden(text, told, ruling)

    @staticmethod
    def guards_of(ruling: Ruling | None) -> Guards:
        """What its session is held to. One that may only read is opened read-only as well: here the
        daemon does not even see what it would refuse."""
        if ruling is None or ruling.grant.level is Level.WRITE:
            return GUARDED
        return _guards(_words(ruling.grant))

    def pace_of(self, ruling: Ruling | None) -> Pace | None:
        """What it shares with the other sessions of its identity; None for any number of calls."""
        if ruling is None or not ruling.grant.calls_per_s:
            return None
        pace = self._paces.get(ruling.purse)
        if pace is None:
            pace = self._paces[ruling.purse] = Pace(ruling.grant.calls_per_s)
        self._keep(ruling.purse, pace)
        return pace

    def _keep(self, purse: tuple[str, str], pace: Pace) -> None:
        """Until nothing is owed, and there is somebody to keep in its place."""
        if len(self._kept) >= _MOST_KEPT and purse not in self._kept:
            now_ns = time.monotonic_ns()
            owing = {key: each for key, each in self._kept.items() if not each.is_full(now_ns)}
            while len(owing) > _MOST_KEPT // 2:
                del owing[next(iter(owing))]
            self._kept = owing
        self._kept[purse] = pace

    async def _subject_of(self, client: Client, table: RuleTable) -> Subject:
        """Raises Forbidden where it cannot be found out what a rule asks for."""
        identity, transport = client.identity, client.door.transport
        if transport.traits.by_network:
            ways = {_NETWORK[transport]}
        else:
            ways = {Way.RO if client.door.readonly else Way.UNIX}
            if table.needs_ssh and self._by_ssh(client):
                ways.add(Way.SSH)
        return Subject(
            ways=frozenset(ways),
            user=identity.user_name,
            uid=identity.uid,
            groups=await self._groups_of(client) if table.needs_groups else frozenset(),
            sasl=identity.sasl_user_name,
            dn=identity.x509_dname,
            sans=client.names,
            address=host_of(client.address),
        )

    def _by_ssh(self, client: Client) -> bool:
        """Who came so stays so, also when its process has ended."""
        identity = client.identity
        if client.ruling is not None and client.ruling.by_ssh:
            return True
        if identity.pid is None or identity.start_ticks is None:
            return False
        try:
            ensure_it_is_there(identity.pid, identity.start_ticks)
        except Denied:
            return False
        return came_by_ssh(identity.pid)

    async def _groups_of(self, client: Client) -> frozenset[str]:
        if client.identity.uid is None:
            return frozenset()
        if client.gids is None:
            text = "the kernel does not tell which groups it is in"
            raise Forbidden(text, failure.system_error(errno.ENOSYS, text, Domain.NONE))
        try:
            return await self._names.group_names_of(client.gids)
        except Denied as error:
            told = failure.system_error(error.errno, str(error), Domain.NONE)
            raise Forbidden(str(error), told) from error


async def _in_a_thread(decide: Callable[[], Rule | None]) -> Rule | None:
    try:
        return await trio.to_thread.run_sync(decide, abandon_on_cancel=True)
    except RuntimeError as error:  # EAGAIN of clone(), as threading tells it
        text = f"cannot look into the rules: {error}"
        told = failure.system_error(errno.EAGAIN, text, Domain.NONE)
        raise Forbidden(text, told) from error


@functools.lru_cache(_MOST_SETS)
def _guards(words: tuple[str, ...]) -> Guards:
    return restricted(allowance_of(words))


def _words(grant: Grant) -> tuple[str, ...]:
    return (Level.READ.value,) if grant.level is Level.READ else grant.words


def _holder(subject: Subject) -> str:
    """Whose limits these are: who it is by the strongest proof, else where it comes from."""
    if subject.sasl is not None:
        return f"sasl:{subject.sasl}"
    if subject.dn is not None:
        return f"dn:{subject.dn}"
    if subject.uid is not None:
        return f"uid:{subject.uid}"
    return f"addr:{site(subject.address)}"


def host_of(address: str) -> str:
    """Of HOST:PORT, whose host of IPv6 stands in brackets; without the zone. "" of ""."""
    host = address.rpartition(":")[0]
    return host.removeprefix("[").removesuffix("]").partition("%")[0]
