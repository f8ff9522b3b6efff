"""What is asked of the rules for a client, and what comes of it."""

import gc
import time

import pytest

from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.peer.names import NameService
from proxyd.relay.guards import GUARDED
from proxyd.rules.grammar import parse_rules
from proxyd.rules.subject import San
from proxyd.rules.table import RuleTable
from proxyd.session import rulings
from proxyd.session.rulings import Forbidden, Rulings, host_of
from proxyd.wire.programs import AuthMethod

URI = "qemu:///system"


class Client:
    """As much of one as is asked about."""

    def __init__(self, transport=Transport.UNIX, *, readonly=False, **known):
        self.door = Door(
            name="a door",
            transport=transport,
            method=AuthMethod.NONE,
            readonly=readonly,
            own_uid_only=False,
        )
        self.address = known.pop("address", "")
        self.names = known.pop("names", ())
        self.gids = known.pop("gids", None)
        self.identity = ClientIdentity(**known)
        self.ruling = None


def table(*lines):
    parsed = parse_rules("\n".join(lines), "rules")
    assert parsed.faults == ()
    return RuleTable(parsed.rules)


@pytest.fixture
def deciding():
    """Rulings by these lines; `clients` are those that are connected."""

    class Deciding:
        def __init__(self):
            self.clients = {}
            self.names = NameService()

        def by(self, *lines):
            known = table(*lines)
            return Rulings(lambda: known, self.names, self.clients)

    return Deciding()


async def decided(rules, client, uri=URI):
    """The line, 0 where there is none."""
    try:
        return (await rules.decide(client, uri)).line
    except Forbidden:
        return 0


async def test_without_rules_nothing_is_decided():
    rules = Rulings(lambda: None, NameService(), {})
    assert await rules.decide(Client(), URI) is None
    assert rules.guards_of(None) is GUARDED
    assert rules.pace_of(None) is None
    rules.demand_room(Client(), None)


@pytest.mark.parametrize(
    ("client", "line"),
    [
        (Client(uid=0, user_name="root"), 1),
        (Client(uid=0, user_name="root", readonly=True), 2),
        (Client(Transport.TCP, sasl_user_name="joe", address="192.0.2.1:4711"), 3),
        (Client(Transport.TCP, address="192.0.2.1:4711"), 0),
        (Client(Transport.TLS, x509_dname="CN=joe", address="[2001:db8::1]:4711"), 4),
        (Client(Transport.TLS, names=(San("uri", "spiffe://a/b"),), address="[::1]:1"), 5),
        (Client(Transport.TLS, address="[::ffff:192.0.2.7]:4711"), 6),
    ],
)
async def test_a_client_is_asked_about_by_all_that_is_known_of_it(deciding, client, line):
    rules = deciding.by(
        "unix user:root * write",
        "ro uid:0 * read",
        "tcp sasl:joe * write",
        "tls dn:CN=joe&addr:2001:db8::/32 * write",
        "tls san:spiffe://a/* * write",
        "tls addr:192.0.2.0/24 * write",
    )
    assert await decided(rules, client) == line


async def test_the_query_of_a_name_is_nobodys_business(deciding):
    rules = deciding.by("all all qemu:///system write")
    assert await decided(rules, Client(), f"{URI}?mode=other") == 1


async def test_groups_are_looked_up_where_a_rule_asks_for_them_alone(deciding, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "proxyd.peer.names.group_names_of", lambda gids: asked.append(gids) or frozenset({"virt"})
    )
    client = Client(uid=1000, gids=(1000, 107))
    assert await decided(deciding.by("all all * write"), client) == 1
    assert asked == []
    assert await decided(deciding.by("unix group:virt * write"), client) == 1
    assert asked == [[1000], [107]]


@pytest.mark.parametrize(
    ("gids", "says"),
    [
        (None, "the kernel does not tell which groups it is in"),
        (tuple(range(2000)), "it is in 2000 groups, 1024 are looked up"),
    ],
)
async def test_whose_groups_cannot_be_found_out_is_refused_where_a_rule_asks(deciding, gids, says):
    """A rule that denies a group would not hold for whoever hides that he is in it."""
    rules = deciding.by("unix group:contractors * deny", "unix all * write")
    with pytest.raises(Forbidden, match=says) as refused:
        await rules.decide(Client(uid=1000, gids=gids), URI)
    assert says in refused.value.failure.message
    assert await decided(rules, Client(Transport.TLS, x509_dname="CN=joe")) == 0


async def test_ssh_is_looked_for_where_a_rule_asks_for_it_alone(deciding, monkeypatch):
    asked = []
    monkeypatch.setattr(rulings, "came_by_ssh", lambda pid: asked.append(pid) or True)
    monkeypatch.setattr(rulings, "ensure_it_is_there", lambda pid, start: None)
    client = Client(uid=1000, pid=4711, start_ticks=1)
    assert await decided(deciding.by("unix all * write"), client) == 1
    assert asked == []
    rules = deciding.by("ssh all * operate", "unix all * write")
    assert await decided(rules, client) == 1
    assert asked == [4711]


async def test_who_came_by_ssh_did_so_also_when_that_process_has_ended(deciding):
    rules = deciding.by("ssh all * operate", "unix all * write")
    client = Client(uid=1000, pid=2**22 + 1, start_ticks=1)
    assert await decided(rules, client) == 2
    client.ruling = type("Ruling", (), {"by_ssh": True})
    assert await decided(rules, client) == 1


async def test_a_table_that_takes_long_is_asked_in_a_thread(deciding):
    rules = deciding.by(*(f"tls san:*a{each}b* * read" for each in range(300)), "all all * write")
    assert rules._table().is_slow
    names = tuple(San("dns", f"x{each}.example.org") for each in range(64))
    assert await decided(rules, Client(Transport.TLS, names=names)) == 301


async def test_sessions_are_counted_by_rule_and_client(deciding):
    rules = deciding.by("unix uid:1000-1999 * write sessions=2", "tls all * write sessions=1")
    made = []

    async def comes(number, client):
        ruling = await rules.decide(client, URI)
        rules.demand_room(client, ruling)
        client.ruling = ruling
        deciding.clients[number] = client
        made.append(client)

    await comes(1, Client(uid=1000))
    await comes(2, Client(uid=1000))
    await comes(3, Client(uid=1001))
    await comes(4, Client(Transport.TLS, x509_dname="CN=joe"))
    await comes(5, Client(Transport.TLS, x509_dname="CN=fred"))
    for client in (Client(uid=1000), Client(Transport.TLS, x509_dname="CN=joe")):
        with pytest.raises(Forbidden, match=r"allows \d sessions of one client"):
            await comes(6, client)
    del deciding.clients[1]
    await comes(6, Client(uid=1000))
    rules.demand_room(made[-1], made[-1].ruling)  # itself does not count


async def test_what_a_client_may_call_is_one_table_for_all_of_its_kind(deciding):
    rules = deciding.by("unix all * operate calls=5/s")
    first = await rules.decide(Client(uid=1000), URI)
    again = await rules.decide(Client(uid=1000), URI)
    other = await rules.decide(Client(uid=1001), URI)
    assert rules.guards_of(first) is rules.guards_of(other) is not GUARDED
    pace = rules.pace_of(first)
    assert rules.pace_of(again) is pace
    assert rules.pace_of(other) is not pace


async def test_who_owes_calls_owes_them_when_he_comes_again(deciding):
    rules = deciding.by("unix all * write calls=6/min")
    ruling = await rules.decide(Client(uid=1000), URI)
    owed = rules.pace_of(ruling).charge(10, 0)
    gc.collect()
    assert rules.pace_of(ruling).charge(0, 0) == owed


async def test_of_many_who_come_those_are_forgotten_that_owe_nothing(deciding, monkeypatch):
    monkeypatch.setattr(rulings, "_MOST_KEPT", 10)
    rules = deciding.by("unix all * write calls=6/min")
    owing = [await rules.decide(Client(uid=uid), URI) for uid in (1, 2)]
    now_ns = time.monotonic_ns()
    dues = [rules.pace_of(each).charge(30, now_ns) for each in owing]
    for uid in range(1000, 1100):
        rules.pace_of(await rules.decide(Client(uid=uid), URI))
    assert [rules.pace_of(each).charge(0, now_ns) for each in owing] == dues
    assert len(rules._kept) <= 10


async def test_of_too_many_who_owe_some_are_forgotten(deciding, monkeypatch):
    monkeypatch.setattr(rulings, "_MOST_KEPT", 10)
    rules = deciding.by("unix all * write calls=6/min")
    for uid in range(100):
        pace = rules.pace_of(await rules.decide(Client(uid=uid), URI))
        pace.charge(30, time.monotonic_ns())
    assert len(rules._kept) <= 10


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("", ""),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[fe80::1%eth0]:4711", "fe80::1"),
    ],
)
def test_the_host_of_an_address(address, host):
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("test:///srv/a", 1),
        ("test:////srv//a", 1),
        ("test:///srv/../etc/a", 0),
        ("test:///srv/%2e%2e/etc/a", 0),
        ("test:///srv/./a", 0),
        ("test:///srv/..a", 1),
        ("test:///etc/a", 2),
    ],
)
async def test_a_path_that_goes_back_fits_no_rule(deciding, uri, line):
    rules = deciding.by("all all test:///srv/* write", "all all * read")
    assert await decided(rules, Client(), uri) == line


@pytest.mark.parametrize(
    ("dn", "line"),
    [
        ("CN=joe,O=Example", 1),
        ("CN=joe,OU=unit,O=Example", 1),
        (r"CN=joe\,O=Example", 0),
        (r"CN=joe,O=y\,O=Example", 0),
        (r"CN=joe\\,O=Example", 1),
        (r"CN=joe\\\,O=Example", 0),
        (r"CN=a\+b,O=Example", 1),
        (r"CN=odd\,name,O=Other", 2),
        ("CN=odd,name,O=Other", 0),
    ],
)
async def test_what_is_escaped_in_a_subject_is_no_separator(deciding, dn, line):
    rules = deciding.by('tls dn:"CN=*,O=Example" * write', r'tls dn:"CN=odd\,name,O=*" * read')
    assert await decided(rules, Client(Transport.TLS, x509_dname=dn)) == line


async def test_a_name_behind_hundreds_of_others_counts_as_they_do(deciding):
    rules = deciding.by("tls san:*.bad.example * deny", "tls all * write")
    names = [San("dns", f"n{each}.example.org") for each in range(600)]
    assert await decided(rules, Client(Transport.TLS, names=tuple(names))) == 2
    names.append(San("dns", "x.bad.example"))
    assert await decided(rules, Client(Transport.TLS, names=tuple(names))) == 0
