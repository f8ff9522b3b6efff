"""Random rules and clients that are likely to meet: of few names, networks and URIs."""

from hypothesis import strategies as st

from proxyd.rules.shadows import SITUATIONS
from proxyd.rules.subject import San, Subject, Way

NAMES = st.sampled_from(["a", "ab", "abc", "b", "ba", "c"])
GLOBS = st.sampled_from(["a", "ab", "b", "*", "a*", "ab*", "*a", "*b*", "a?", "?b", "a*c", "c"])
UIDS = st.integers(0, 20)
NUMBERS = ("10.0.0.1", "10.0.1.1", "10.1.0.1", "192.0.2.1", "2001:db8::1", "2001:db9::1")
NETWORKS = (
    *NUMBERS,
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/23",
    "0.0.0.0/0",
    "2001:db8::/31",
    "::/0",
    "::ffff:10.0.0.0/104",
)
URIS = ("qemu:///system", "qemu:///session", "lxc:///", "test:///default")
URI_GLOBS = (*URIS, "*", "qemu:*", "*system", "test:*", "*:///s*")
NOW_S = 1_000.0


def ranges():
    return st.tuples(UIDS, UIDS).map(lambda pair: f"uid:{min(pair)}-{max(pair)}")


PATTERNS = st.one_of(
    st.builds("{}:{}".format, st.sampled_from(["user", "group", "sasl", "dn"]), GLOBS),
    st.builds("san:{}:{}".format, st.sampled_from(["dns", "email", "uri"]), GLOBS),
    st.builds("addr:{}".format, st.sampled_from(NETWORKS)),
    st.builds("uid:{}".format, UIDS),
    ranges(),
    st.just("all"),
)
WHO = st.lists(
    st.lists(PATTERNS, min_size=1, max_size=2).map("&".join), min_size=1, max_size=3
).map(",".join)
WAYS = st.lists(
    st.sampled_from([*(way.value for way in Way), "all", "all"]), min_size=1, max_size=2
).map(",".join)
UNTIL = st.sampled_from(["", "", "", " until=2010-01-01", " until=2030-01-01", " until=2031-01-01"])
LINES = st.builds(
    "{} {} {} read{}".format,
    WAYS,
    WHO,
    st.lists(st.sampled_from(URI_GLOBS), min_size=1, max_size=2).map(",".join),
    UNTIL,
)
TEXTS = st.lists(LINES, max_size=12).map("\n".join)


@st.composite
def subjects(draw):
    """Clients as there can be: of each way in, what is known of those who come by it."""
    ways = draw(st.sampled_from(SITUATIONS))
    known = {"sasl": draw(st.none() | NAMES)}
    if not ways.isdisjoint({Way.UNIX, Way.RO}):
        known |= {
            "user": draw(st.none() | NAMES),
            "uid": draw(UIDS),
            "groups": frozenset(draw(st.lists(NAMES, max_size=3))),
        }
    else:
        known["address"] = draw(st.sampled_from((*NUMBERS, "::ffff:10.0.0.1", "fe80::1%eth0")))
    if Way.TLS in ways:
        known["dn"] = draw(NAMES)
        kinds = st.sampled_from(["dns", "email", "uri"])
        known["sans"] = tuple(draw(st.lists(st.builds(San, kinds, NAMES), max_size=2)))
    return Subject(ways=ways, **known)


TIMES = st.sampled_from([1.0, 1_400_000_000.0, 1_910_000_000.0, 4_000_000_000.0])
