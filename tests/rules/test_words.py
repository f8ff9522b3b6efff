import pytest

from proxyd.rules.words import span, summary
from tests.rules.kit import rules_of

REST = "everybody else is refused"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("all all * write", "by any way: everybody may do everything with any URI"),
        ("unix,ssh user:alice qemu:* read", "by unix or ssh: user alice may read qemu:*"),
        ("ro user:* * deny", "by ro: every user of this host is refused"),
        ("unix user:a*,uid:7,uid:1-3 lxc:///,xen:* operate",
         "by unix: users a*, uid 7 or uids 1-3 may operate lxc:/// and xen:*"),
        ("unix group:virt&user:a lxc:/// deny",
         "by unix: members of group virt and user a is refused lxc:///"),
        ("tls dn:CN=a,O=X * read sessions=1",
         "by tls: whoever's certificate is CN=a,O=X may read any URI, with at most 1 session at a"
         " time"),
        ("tls dn:*,san:*.x.org,san:a@x.org * read calls=30/min",
         "by tls: everybody with a certificate, whoever's certificate has a name like *.x.org or"
         " whoever's certificate has the name a@x.org may read any URI, at most 30 calls a minute"),
        ("tls addr:10.0.0.0/8,addr:::1 * read calls=200/s idle=90min",
         "by tls: clients of 10.0.0.0/8 or ::1 may read any URI, at most 200 calls a second, for no"
         " longer than 90min without a call"),
        ("tcp " + ",".join(f"sasl:u{n}" for n in range(9)) + " * read",
         "by tcp: SASL user u0, SASL user u1, SASL user u2, SASL user u3, SASL user u4 or 4 more"
         " may read any URI"),
    ],
)  # fmt: skip
def test_a_rule_in_words(line, said):
    assert list(summary(rules_of(line))) == [f"{said} (line 1)", REST]


def test_a_set_in_words():
    text = "set power = domain:start\nall all qemu:* power"
    said, _ = summary(rules_of(text))
    assert said == ("by any way: everybody may do with qemu:* what the set power allows (line 2)")


def test_the_last_line_may_be_everybody_else():
    assert list(summary(rules_of("all user:a * write\nall all * deny"))) == [
        "by any way: user a may do everything with any URI (line 1)",
        "everybody else is refused (line 2)",
    ]
    assert list(summary(rules_of("all all all deny"))) == ["everybody is refused (line 1)"]
    assert list(summary(())) == ["everybody is refused"]


def test_many_rules_are_not_told_one_by_one():
    said = list(summary(rules_of("all user:a * read\n" * 20_000)))
    assert len(said) == 102
    assert said[-2:] == ["… and 19900 more rules, from line 101 to 20000", REST]


def test_spans_are_written_as_in_a_rule():
    assert [span(s) for s in (86400, 7200, 5400, 90)] == ["1d", "2h", "90min", "90s"]
