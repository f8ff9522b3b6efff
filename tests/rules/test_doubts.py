import pytest

from proxyd.rules.doubts import MOST_DOUBTS, House, doubts_of
from proxyd.rules.grammar import parse_rules
from proxyd.rules.pattern import Kind
from proxyd.rules.subject import Way
from tests.rules.kit import NOW_S


def doubts(text, house=None):
    return [str(doubt) for doubt in doubts_of(parse_rules(text, "r"), NOW_S, house or House())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["r:1:1: there is no rule, so everybody is refused"]),
        ("all all * write\n", []),
        (
            "all all * read\ntls dn:CN=x * write\n",
            ["r:2:1: this rule never decides: line 1 takes all whom it is for"],
        ),
        (
            "all all * read\ntls dn:CN=x * write\n# c\nunix all * read\n",
            ["r:2:1: these 2 rules, to line 4, never decide: line 1 takes all whom they are for"],
        ),
        (
            "unix dn:CN=x,user:a * read\n",
            ['r:1:1: nobody fits "dn:CN=x": dn: is known of clients by tls, and this rule is for'
             " unix"],
        ),
        (
            "tls,tcp user:a * read\n",
            ['r:1:1: nobody fits "user:a": user: is known of clients by unix, ro and ssh, and this'
             " rule is for tcp and tls"],
        ),
        (
            "all user:a&dn:CN=x * read\n",
            ['r:1:1: nobody fits "user:a&dn:CN=x": no client has all of that'],
        ),
        (
            "set b = x:y c\nset c = x:z\nset d = x:y c\nall all * d\n",
            ["r:1:5: no rule names the set b"],
        ),
        ("ro all * write\n", ["r:1:1: write by ro alone: clients of the read-only socket only read,"
                              " whatever a rule says"]),
        ("tls san:* * read\n", ["r:1:1: san:* is a DNS name alone; whoever has a certificate is"
                                " dn:*"]),
    ],
)  # fmt: skip
def test_what_is_hardly_meant(text, said):
    assert doubts(text) == said


def test_a_rule_that_has_ended():
    (said,) = doubts("all all * read until=2020-01-01\nall all * deny\n")
    assert said.startswith("r:1:1: this rule ended at 2020-01-02 00:00")
    assert said.endswith(": take it out")


def test_users_and_groups_that_are_not_there_are_told_of_once():
    asked = []

    def exists(kind, name):
        asked.append((kind, name))
        return name == "alice"

    text = "all user:alice,user:bob,group:bob lxc:* read\nunix user:bob&sasl:b* * deny\n"
    assert doubts(text, House(exists=exists)) == [
        'r:1:1: this host knows no user "bob"',
        'r:1:1: this host knows no group "bob"',
    ]
    assert asked == [(Kind.USER, "alice"), (Kind.USER, "bob"), (Kind.GROUP, "bob")]


def test_sasl_names_where_nobody_proves_one():
    house = House(sasl_ways={Way.TCP, Way.UNIX})
    assert doubts("tls sasl:a,dn:CN=x * read\nssh sasl:a * read\nall sasl:b * read\n", house) == [
        "r:1:1: no client proves a SASL name by tls here: auth_unix_rw, auth_unix_ro, auth_tcp and"
        " auth_tls say so",
    ]
    assert len(doubts("all sasl:a * read\n", House(sasl_ways=()))) == 1
    assert doubts("all sasl:a * read\n") == []


def test_no_more_than_somebody_reads():
    text = "".join(f"unix dn:CN={n} * read\n" for n in range(500))
    said = doubts(text)
    assert len(said) == MOST_DOUBTS
    assert said[-1] == "r:100:1: 401 more of these from here on"


def test_of_a_file_with_faults_no_set_is_said_to_be_idle():
    assert doubts("set b = x:y\nall al * b\n") == []
