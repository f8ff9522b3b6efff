import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.rules.explanation import why_not
from proxyd.rules.pattern import Client
from proxyd.rules.subject import NOBODY, Way
from proxyd.rules.table import RuleTable
from tests.rules.kit import NOW_S, SYSTEM, by_tls, client, decided, local, rules_of
from tests.rules.strategies import TEXTS, TIMES, URIS, subjects


@given(TEXTS, subjects(), st.sampled_from(URIS), TIMES)
def test_the_index_finds_what_a_look_at_each_rule_finds(text, subject, uri, now_s):
    rules = rules_of(text)
    fits = (rule for rule in rules if why_not(rule, Client(subject), uri, now_s) is None)
    assert RuleTable(rules).decide(subject, uri, now_s) == next(fits, None)


@given(TEXTS, subjects(), st.sampled_from(URIS), TIMES)
def test_an_explanation_has_the_same_rule_and_each_before_it(text, subject, uri, now_s):
    table = RuleTable(rules_of(text))
    found = table.explain(subject, uri, now_s)
    assert found.rule == table.decide(subject, uri, now_s)
    last = len(table.rules) if found.rule is None else table.rules.index(found.rule)
    assert [each.first for each in found.before] == [rule.line for rule in table.rules[:last]]
    assert all(each.text and each.reason for each in found.before)


def test_the_first_rule_that_fits_decides_and_no_rule_refuses():
    text = "unix user:alice * read\nunix user:a* * deny\nunix all qemu:* write\n"
    assert decided(text, local("alice")) == 1
    assert decided(text, local("anna")) == 2
    assert decided(text, local("joe")) == 3
    assert decided(text, local("joe"), "lxc:///") is None
    assert decided(text, by_tls()) is None
    assert decided("", local()) is None


@pytest.mark.parametrize(
    ("who", "subject", "fits"),
    [
        ("user:alice", local("alice"), True),
        ("user:Alice", local("alice"), False),
        ("user:*", local("alice"), True),
        ("user:*", local(None), False),
        ("user:*", by_tls(), False),
        ("group:virt", local(groups=("users", "virt")), True),
        ("group:v*", local(groups=("users", "virt")), True),
        ("group:*", local(groups=()), False),
        ("uid:1000-1999", local(uid=1999), True),
        ("uid:1000-1999", local(uid=2000), False),
        ("uid:0", local(uid=0), True),
        ("uid:0", by_tls(), False),
        ("sasl:joe", client(Way.TCP, sasl="joe"), True),
        ("sasl:*@EX", client(Way.TCP, sasl="joe@EX"), True),
        ("sasl:*", client(Way.TCP), False),
        ("sasl:joe&addr:10.0.0.0/8", client(Way.TCP, sasl="joe", address="10.9.9.9"), True),
        ("sasl:joe&addr:10.0.0.0/8", client(Way.TCP, sasl="joe", address="11.9.9.9"), False),
        ("sasl:ann&addr:10.0.0.0/8", client(Way.TCP, sasl="joe", address="10.9.9.9"), False),
        ("dn:CN=a,O=X", by_tls("CN=a,O=X"), True),
        ("dn:CN=a", by_tls("CN=a,O=X"), False),
        ('dn:"CN=*,O=X"', by_tls("CN=a,O=X"), True),
        ("san:KVM1.example.org", by_tls(sans=[("dns", "kvm1.EXAMPLE.org")]), True),
        ("san:kvm1.example.org", by_tls(sans=[("email", "kvm1.example.org")]), False),
        ("san:a@example.org", by_tls(sans=[("email", "a@Example.ORG")]), True),
        ("san:a@example.org", by_tls(sans=[("email", "A@example.org")]), False),
        ("san:spiffe://x/*", by_tls(sans=[("dns", "y"), ("uri", "spiffe://x/mon")]), True),
        ("san:spiffe://x/*", by_tls(sans=[("uri", "spiffe://X/mon")]), False),
        ("addr:192.0.2.0/24", by_tls(address="192.0.2.7"), True),
        ("addr:192.0.2.0/24", by_tls(address="::ffff:192.0.2.7"), True),
        ("addr:::/0", by_tls(address="::ffff:192.0.2.7"), False),
        ("addr:0.0.0.0/0", by_tls(address="::1"), False),
        ("addr:fe80::/10", by_tls(address="fe80::1%eth0"), True),
        ("addr:0.0.0.0/0,addr:::/0", local(), False),
        ("all", NOBODY, True),
        ("all&user:alice", local("alice"), True),
    ],
)
def test_who_fits(who, subject, fits):
    assert decided(f"all {who} * write", subject) == (1 if fits else None)


@pytest.mark.parametrize(
    ("way", "by", "fits"),
    [
        ("unix", [Way.UNIX], True),
        ("unix", [Way.UNIX, Way.SSH], True),
        ("unix", [Way.RO, Way.SSH], False),
        ("ro", [Way.RO, Way.SSH], True),
        ("ssh", [Way.UNIX, Way.SSH], True),
        ("ssh", [Way.UNIX], False),
        ("tls,ssh", [Way.TLS], True),
        ("tcp", [Way.TLS], False),
        ("all", [], True),
    ],
)
def test_ways(way, by, fits):
    assert decided(f"{way} all * write", client(*by)) == (1 if fits else None)


def test_a_rule_ends_at_its_moment():
    text = "all all * write until=2026-12-31T18:00Z"
    assert decided(text, local(), now_s=1798739999.9) == 1
    assert decided(text, local(), now_s=1798740000.0) is None


def test_what_has_to_be_asked_for_is_known():
    assert RuleTable(rules_of("all group:virt&user:a * read")).needs_groups
    assert not RuleTable(rules_of("all user:group * read")).needs_groups
    assert RuleTable(rules_of("tls,ssh all * read")).needs_ssh
    assert not RuleTable(rules_of("all all * read")).needs_ssh


# ---- Ten thousand rules

COUNT = 10_000
LAST = COUNT - 1
KINDS = {
    "user": ("unix user:u{} qemu:///system read", local(f"u{LAST}")),
    "group": ("unix group:g{} qemu:///system read", local(groups=("x", f"g{LAST}"))),
    "uid": ("unix uid:{} qemu:///system read", local(uid=LAST)),
    "dn": ("tls dn:CN=c{},O=X * read", by_tls(f"CN=c{LAST},O=X")),
    "sasl": ("tcp sasl:u{}@EX qemu:* read", client(Way.TCP, sasl=f"u{LAST}@EX")),
    "san": ("tls san:h{}.ex.org * read", by_tls(sans=[("dns", f"h{LAST}.ex.org")])),
    "one user": ("unix user:joe test:///{} read", local("joe")),
    "prefixes": ('tls "dn:CN=c{},*" * read', by_tls(f"CN=c{LAST},O=X")),
    "suffixes": ("tls san:*-h{}.ex.org * read", by_tls(sans=[("dns", f"a-h{LAST}.ex.org")])),
}


class Calls:
    """How many functions of the rules are called."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)

    def _seen(self, frame, event, _):
        if event == "call" and "rules" in frame.f_code.co_filename:
            self.count += 1


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_rules_few_are_looked_at(kind):
    line, subject = KINDS[kind]
    table = RuleTable(rules_of("".join(f"{line.format(n)}\n" for n in range(COUNT))))
    uri = f"test:///{LAST}" if kind == "one user" else SYSTEM
    with Calls() as calls:
        rule = table.decide(subject, uri, NOW_S)
    assert rule is not None
    assert rule.line == COUNT
    assert calls.count < 60


def test_many_networks_and_ranges_are_few_looks_as_well():
    text = "".join(f"all addr:10.{n >> 8}.{n & 255}.0/24 * read\n" for n in range(COUNT))
    text += "".join(f"all uid:{n * 10}-{n * 10 + 7} * read\n" for n in range(COUNT))
    table = RuleTable(rules_of(text))
    with Calls() as calls:
        assert table.decide(by_tls(address="10.39.15.9"), SYSTEM, NOW_S).line == COUNT
        assert table.decide(local(uid=LAST * 10 + 7), SYSTEM, NOW_S).line == 2 * COUNT
        assert table.decide(local(uid=LAST * 10 + 8), SYSTEM, NOW_S) is None
    assert calls.count < 150


def test_ten_thousand_rules_take_less_than_thirty_megabytes():
    text = "".join(f"tls dn:CN=host{n},O=Example * read sessions=5\n" for n in range(COUNT))
    tracemalloc.start()
    try:
        table = RuleTable(rules_of(text))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(table.rules) == COUNT
    assert taken < 30 * 2**20


def test_many_rules_are_explained_in_ranges():
    text = (
        "unix user:a * read\n"
        + "".join(f"tls dn:CN={n} * read\n" for n in range(3000))
        + "".join(f"unix user:u{n} * read\n" for n in range(3000))
        + "unix user:u1 lxc:* read\n"
    )
    found = RuleTable(rules_of(text)).explain(local("joe"), SYSTEM, NOW_S)
    assert [str(each) for each in found.before] == [
        "line 1: for user:a: it is joe",
        "lines 2 to 3001, 3000 rules: for other ways in",
        "lines 3002 to 6002, 3001 rules: for other clients",
    ]


def test_many_rules_that_alternate_are_bounded_too():
    text = "tls all * read\nunix user:a * read\n" * 500
    found = RuleTable(rules_of(text)).explain(local("joe"), SYSTEM, NOW_S)
    assert len(found.before) == 41
    assert str(found.before[20]) == ("lines 21 to 980, 960 rules: each for one of several reasons")
    assert sum(each.count for each in found.before) == 1000
