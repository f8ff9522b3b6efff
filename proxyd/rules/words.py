"""A rules file in sentences."""

from collections.abc import Iterator, Sequence
from typing import Final

from proxyd.config.quoting import one_line, shortened
from proxyd.rules.explanation import moment, ways_in_words
from proxyd.rules.glob import Glob
from proxyd.rules.grant import Grant, Level
from proxyd.rules.pattern import Kind, Pattern
from proxyd.rules.rule import Rule

MOST_RULES_TOLD: Final = 100
_MOST_TOLD: Final = 5  # alternatives in one sentence
_LONGEST: Final = 120

_ANY_URI: Final = "any URI"
_ONE: Final = {
    Kind.USER: "user {}",
    Kind.GROUP: "members of group {}",
    Kind.UID: "uid {}",
    Kind.SASL: "SASL user {}",
    Kind.DN: "whoever's certificate is {}",
    Kind.SAN: "whoever's certificate has the name {}",
    Kind.ADDR: "{}",
}
_MANY: Final = {
    Kind.USER: "users {}",
    Kind.GROUP: "members of groups {}",
    Kind.UID: "uids {}",
    Kind.SASL: "SASL users {}",
    Kind.DN: "whoever's certificate is like {}",
    Kind.SAN: "whoever's certificate has a name like {}",
    Kind.ADDR: "clients of {}",
}
_ANY: Final = {
    Kind.USER: "every user of this host",
    Kind.GROUP: "members of any group",
    Kind.SASL: "everybody with a SASL name",
    Kind.DN: "everybody with a certificate",
}


def summary(rules: Sequence[Rule]) -> Iterator[str]:
    """One sentence a rule, as far as there are not too many, and one for everybody else."""
    told = rules[:MOST_RULES_TOLD]
    for rule in told:
        if rule is rules[-1] and _refuses_the_rest(rule):
            break
        yield sentence(rule)
    more = rules[MOST_RULES_TOLD:]
    if more:
        yield f"… and {len(more)} more rules, from line {more[0].line} to {more[-1].line}"
    last = rules[-1] if rules and _refuses_the_rest(rules[-1]) else None
    who = "everybody else" if rules and rules[0] is not last else "everybody"
    yield f"{who} is refused" + (f" (line {last.line})" if last is not None else "")


def _refuses_the_rest(rule: Rule) -> bool:
    return (
        rule.ways is None
        and rule.grant.level is Level.DENY
        and any(len(each) == 1 and each[0].kind is Kind.ALL for each in rule.who)
        and any(uri.is_any for uri in rule.uris)
    )


def sentence(rule: Rule) -> str:
    """What one rule says."""
    way = "by any way" if rule.ways is None else f"by {ways_in_words(rule.ways, 'or')}"
    who = _listed([" and ".join(map(_who, together)) for together in rule.who], "or")
    return f"{way}: {who} {what_may_be_done(rule.grant, _what(rule.uris))} (line {rule.line})"


def what_may_be_done(grant: Grant, what: str) -> str:
    """With the limits, as it goes on behind who may do it."""
    match grant.level:
        case Level.DENY:
            return "is refused" if what == _ANY_URI else f"is refused {what}"
        case Level.READ:
            may = f"may read {what}"
        case Level.WRITE:
            may = f"may do everything with {what}"
        case Level.SET if grant.name == "operate":
            may = f"may operate {what}"
        case Level.SET:
            may = f"may do with {what} what the set {grant.name} allows"
    return ", ".join((may, *_limits(grant)))


def _limits(grant: Grant) -> Iterator[str]:
    if grant.sessions:
        plural = "s" if grant.sessions > 1 else ""
        yield f"with at most {grant.sessions} session{plural} at a time"
    if grant.calls_per_s:
        rate = f"{grant.calls_per_s:g} calls a second"
        if grant.calls_per_s < 1:
            rate = f"{grant.calls_per_s * 60:g} calls a minute"
        yield f"at most {rate}"
    if grant.idle_s:
        yield f"for no longer than {span(grant.idle_s)} without a call"
    if grant.until_s:
        yield f"until {moment(grant.until_s)}"


def span(seconds: int) -> str:
    """The same as it is written in a rule: 90s, 15min, 2h, 3d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _who(pattern: Pattern) -> str:
    if pattern.kind is Kind.ALL:
        return "everybody"
    if pattern.glob is not None and pattern.glob.is_any and pattern.kind in _ANY:
        return _ANY[pattern.kind]
    many = pattern.low < pattern.high or (pattern.glob is not None and not pattern.glob.is_exact)
    text = pattern.text.partition(":")[2] if pattern.kind is Kind.SAN else pattern.text
    return (_MANY if many else _ONE)[pattern.kind].format(one_line(shortened(text, _LONGEST)))


def _what(uris: Sequence[Glob]) -> str:
    if any(uri.is_any for uri in uris):
        return _ANY_URI
    return _listed([shortened(uri.text, _LONGEST) for uri in uris], "and")


def _listed(texts: Sequence[str], last: str) -> str:
    if len(texts) > _MOST_TOLD:
        texts = [*texts[:_MOST_TOLD], f"{len(texts) - _MOST_TOLD} more"]
    return ", ".join(texts[:-1]) + f" {last} {texts[-1]}" if len(texts) > 1 else texts[0]
