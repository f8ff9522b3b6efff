import pytest

from proxyd.rules.subject import Way
from proxyd.rules.table import RuleTable
from tests.rules.kit import NOW_S, SYSTEM, by_tls, client, local, rules_of

PLAIN = client(Way.UNIX)
ENDED = "it ended at "


@pytest.mark.parametrize(
    ("line", "subject", "why"),
    [
        ("tls all * read", local(), "by tls, and this client came by unix"),
        ("tcp,tls all * read", client(Way.UNIX, Way.SSH), "by tcp or tls, and this client came by"
         " unix and ssh"),
        ("ssh all * read", local(), "by ssh, and this client came by unix"),
        ("unix user:joe * read", local(), "for user:joe: it is alice"),
        ("unix user:joe * read", PLAIN, "for user:joe: no user of this host is known of it"),
        ("unix group:virt * read", local(groups=("users", "audio")),
         "for group:virt: it is in audio, users"),
        ("unix group:virt * read", local(groups=map(str, range(7))),
         "for group:virt: it is in 0, 1, 2, 3, 4 and 2 more"),
        ("unix group:virt * read", PLAIN, "for group:virt: it is in no group that is known"),
        ("unix uid:0 * read", local(), "for uid:0: it has 1000"),
        ("all uid:0 * read", by_tls(), "for uid:0: no uid is known of it"),
        ("all sasl:joe * read", by_tls(), "for sasl:joe: it did not prove a SASL name"),
        ("all sasl:joe * read", by_tls(sasl="ann"), "for sasl:joe: it is ann"),
        ("all dn:CN=b * read", by_tls(), "for dn:CN=b: it is CN=a,O=X"),
        ("all dn:CN=b * read", local(), "for dn:CN=b: it showed no certificate"),
        ("all san:x * read", by_tls(sans=[("dns", "y")]),
         "for san:dns:x: its certificate has dns:y"),
        ("all san:x * read", by_tls(), "for san:dns:x: it showed no certificate with other names"),
        ("all addr:10.0.0.0/8 * read", by_tls(address="192.0.2.1"),
         "for addr:10.0.0.0/8: it is at 192.0.2.1"),
        ("all addr:10.0.0.0/8 * read", local(), "for addr:10.0.0.0/8: it came by no network"),
        ("unix user:a,user:b&group:c * read", local(), "it is none of user:a, user:b&group:c"),
        ("unix user:alice&group:c * read", local(), "for group:c: it is in users"),
        ("unix all lxc:*,xen:* read", local(), "for lxc:*, xen:*, and it asks for qemu:///system"),
        ("unix all * read until=2020-01-01T00:00Z", local(), ENDED),
    ],
)  # fmt: skip
def test_why_a_rule_did_not_decide(line, subject, why):
    found = RuleTable(rules_of(line)).explain(subject, SYSTEM, NOW_S)
    assert found.rule is None
    (passed,) = found.before
    text = passed.text
    assert str(passed) == f"line 1: {text}"
    assert text == why or (why is ENDED and text.startswith(f"{ENDED}20"))


def test_what_a_stranger_chose_stays_on_one_line_and_is_cut():
    name = "a\nline 9 decides: " + "x" * 5000
    found = RuleTable(rules_of("all dn:CN=b * read")).explain(by_tls(name), SYSTEM, NOW_S)
    text = found.before[0].text
    assert text.isprintable()
    assert len(text) < 250
