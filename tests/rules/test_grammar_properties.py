"""Any text gives rules, or faults that say where: nothing else, and nothing that is not there."""

from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.grammar import MOST_FAULTS, ConfigError
from proxyd.rules.grammar import parse_rules
from proxyd.rules.words import sentence
from tests.rules.strategies import LINES, TEXTS

WORDS = st.sampled_from(
    [
        *(
            "unix",
            "tls",
            "all",
            ",",
            "&",
            '"',
            "\\",
            "\\\n",
            "#",
            "\n",
            "\r\n",
            "set",
            "=",
            "power",
        ),
        *("user:", "user:a", "dn:CN=a", "O=X", "san:*@", "addr:::/0", "uid:1-2", "qemu:///system"),
        *("*", "read", "deny", "operate", "x:y", "sessions=5", "calls=1/s", "until=2026-12-31"),
        *("\t", "\x00", "\udcff", "\u2028", "\xa0", "é"),
    ]
)
SOUP = st.lists(WORDS | st.text(max_size=3), max_size=40).map(" ".join)


@given(SOUP | st.text(max_size=200))
def test_any_text_gives_rules_or_faults_with_places_in_it(text):
    parsed = parse_rules(text, "p")
    rows = text.split("\n")
    assert len(parsed.faults) <= MOST_FAULTS
    for fault in parsed.faults:
        assert isinstance(fault, ConfigError)
        assert fault.path == "p"
        assert 1 <= fault.line <= len(rows)
        assert 1 <= fault.column <= len(rows[fault.line - 1]) + 1
        assert fault.expected.isprintable()
    places = [(fault.line, fault.column) for fault in parsed.faults]
    assert places == sorted(places)
    for rule in parsed.rules:
        assert rule.text.isprintable()
        assert sentence(rule).isprintable()


@given(LINES)
def test_the_text_of_a_rule_reads_as_the_same_rule(line):
    (rule,) = parse_rules(f"\n\n{line}  # as said", "p").rules
    (again,) = parse_rules(rule.text, "p").rules
    assert (rule.ways, rule.who, rule.uris, rule.grant) == (
        again.ways,
        again.who,
        again.uris,
        again.grant,
    )


@given(TEXTS, st.integers(0, 400))
def test_a_blank_may_be_a_line_that_goes_on(text, place):
    blanks = [at for at, character in enumerate(text) if character == " "]
    if not blanks:
        return
    at = blanks[place % len(blanks)]
    broken = f"{text[:at]} \\\n {text[at + 1 :]}"
    assert [rule.text for rule in parse_rules(broken, "p").rules] == [
        rule.text for rule in parse_rules(text, "p").rules
    ]


@given(TEXTS, SOUP)
def test_a_broken_line_does_not_change_what_the_others_mean(text, soup):
    rules = parse_rules(text, "p").rules
    line = f'tsl "{soup}'.replace("\n", " ").replace("\r", " ").rstrip("\\ ")
    parsed = parse_rules(f"{text}\n{line}\n{text}", "p")
    assert [rule.text for rule in parsed.rules] == [rule.text for rule in (*rules, *rules)]
    assert len(parsed.faults) == 1
