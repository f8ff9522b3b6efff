"""Rules from text, and clients to ask them about."""

from proxyd.rules.grammar import parse_rules
from proxyd.rules.subject import San, Subject, Way
from proxyd.rules.table import RuleTable

NOW_S = 1_800_000_000.0  # 2027-01-15
SYSTEM = "qemu:///system"


def rules_of(text, **functions):
    """The rules of a text without faults."""
    parsed = parse_rules(text, "r", **functions)
    assert parsed.faults == ()
    return parsed.rules


def fault_of(text, **functions):
    """Place and text of the one fault that it has."""
    (fault,) = parse_rules(text, "r", **functions).faults
    return f"{fault.line}:{fault.column}", fault.expected


def decided(text, subject, uri=SYSTEM, now_s=NOW_S):
    """The line that decides, or None."""
    rule = RuleTable(rules_of(text)).decide(subject, uri, now_s)
    return None if rule is None else rule.line


def client(*ways, **known):
    """`sans` as pairs."""
    known["sans"] = tuple(San(*each) for each in known.pop("sans", ()))
    known["groups"] = frozenset(known.pop("groups", ()))
    return Subject(ways=frozenset(ways), **known)


def local(user="alice", uid=1000, groups=("users",), **more):
    return client(Way.UNIX, user=user, uid=uid, groups=groups, **more)


def by_tls(dn="CN=a,O=X", **more):
    return client(Way.TLS, dn=dn, **more)
