import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.rules.shadows import shadows, situations
from proxyd.rules.table import RuleTable
from tests.rules.kit import rules_of
from tests.rules.strategies import TEXTS, TIMES, URIS, subjects


def lines(text):
    return [(rule.line, why.line) for rule, why in shadows(rules_of(text))]


@given(TEXTS, st.lists(subjects(), min_size=5, max_size=20), st.sampled_from(URIS), TIMES)
def test_a_rule_in_a_shadow_never_decides(text, clients, uri, now_s):
    rules = rules_of(text)
    dark = {rule.line for rule, _ in shadows(rules)}
    table = RuleTable(rules)
    for subject in clients:
        decides = table.decide(subject, uri, now_s)
        assert decides is None or decides.line not in dark


@given(TEXTS, subjects(), st.sampled_from(URIS), TIMES)
def test_a_rule_that_nobody_can_fit_never_decides(text, subject, uri, now_s):
    decides = RuleTable(rules_of(text)).decide(subject, uri, now_s)
    assert decides is None or any(situations(decides, together) for together in decides.who)


SHADOWED = [
    ("all all *", "tls dn:CN=a qemu:*"),
    ("unix all *", "unix user:a *"),
    ("unix,ro all *", "ssh user:a *"),
    ("tls all *", "all dn:CN=a *"),
    ("tls,tcp all *", "all addr:::1 *"),
    ("all user:a *", "unix user:a *"),
    ("all user:a* *", "unix user:ab*,user:a *"),
    ("all user:a,group:b *", "unix group:b *"),
    ("all user:a *", "all user:a&group:b *"),
    ("all group:b&user:a *", "all user:a&group:b *"),
    ("all uid:0-99 *", "all uid:10-20,uid:0 *"),
    ("all addr:10.0.0.0/8 *", "all addr:10.1.0.0/16,addr:10.0.0.1 *"),
    ("all addr:0.0.0.0/0 *", "all addr:::ffff:10.0.0.1 *"),
    ("all san:*.ex.org *", "all san:A.ex.org *"),
    ("all all qemu:*", "all all qemu:///system,qemu:///session"),
    ("all all *", "all all *"),
]
LIT = [
    ("unix all *", "ro all *"),
    ("unix all *", "ssh all *"),  # which comes to the read-only socket as well
    ("unix all *", "unix,ssh user:a *"),
    ("ssh all *", "unix all *"),
    ("tls all *", "tls,tcp all *"),
    ("tls all *", "all sasl:a *"),
    ("all user:* *", "unix all *"),
    ("all user:a *", "all user:A *"),
    ("all user:a&group:b *", "all user:a *"),
    ("all user:ab* *", "all user:a* *"),
    ("all user:a *", "all sasl:a *"),
    ("all uid:0-99 *", "all uid:99-100 *"),
    ("all addr:::/0 *", "all addr:10.0.0.1 *"),
    ("all addr:10.0.0.0/8 *", "all addr:8.0.0.0/6 *"),
    ("all san:dns:a *", "all san:email:a *"),
    ("all all qemu:*", "all all qemu:///system,lxc:///"),
]


@pytest.mark.parametrize(("first", "second"), SHADOWED)
def test_what_an_earlier_rule_takes_whole_is_in_its_shadow(first, second):
    assert lines(f"{first} deny\n{second} write\n") == [(2, 1)]
    assert lines(f"ro user:zz xen:* read\n{first} deny\n{second} write\n") == [(3, 2)]


@pytest.mark.parametrize(("first", "second"), LIT)
def test_what_an_earlier_rule_leaves_is_not(first, second):
    assert lines(f"{first} deny\n{second} write\n") == []


def test_a_rule_that_ends_takes_only_what_ends_no_later():
    def pair(first, second):
        return lines(f"all all * read {first}\nall user:a * read {second}")

    assert pair("until=2027-01-02", "") == []
    assert pair("until=2027-01-02", "until=2027-01-03") == []
    assert pair("until=2027-01-02", "until=2027-01-02") == [(2, 1)]
    assert pair("", "until=2027-01-02") == [(2, 1)]


def test_many_rules_are_compared_in_a_moment():
    text = "".join(f"tls dn:CN=host{n},O=X qemu:* read\n" for n in range(5000))
    assert lines(text + text) == [(n + 5000, n) for n in range(1, 5001)]
    assert len(lines("all all * deny\n" + text)) == 5000
