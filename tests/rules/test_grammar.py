"""The file's language as tables: what a line means, and what is said of one that means nothing."""

import datetime as dt

import pytest

from proxyd.config.grammar import MOST_FAULTS
from proxyd.rules.grammar import MAX_FILE_BYTES, MOST_RULES, parse_rules
from proxyd.rules.grant import Grant, Level
from proxyd.rules.subject import Way
from tests.rules.kit import fault_of, rules_of

UNIX, RO, TCP, TLS, SSH = Way


def rule_of(text):
    (rule,) = rules_of(text)
    return rule


def who(text):
    """The second column, as patterns are written."""
    rule = rule_of(f"all {text} * read")
    return [[str(pattern) for pattern in together] for together in rule.who]


# ---- What lines mean


def test_a_rule_with_all_columns():
    rule = rule_of("# head\n\n tls,tcp  sasl:joe\tqemu:///system  read sessions=5 idle=1h # why\n")

    assert rule.line == 3
    assert rule.text == "tls,tcp sasl:joe qemu:///system read sessions=5 idle=1h"
    assert rule.ways == {TLS, TCP}
    assert [uri.text for uri in rule.uris] == ["qemu:///system"]
    assert rule.grant == Grant(level=Level.READ, name="read", sessions=5, idle_s=3600)


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("unix", {UNIX}),
        ("ro,ssh", {RO, SSH}),
        ("unix, ro", {UNIX, RO}),
        ("all", None),
        ("tls,all", None),
    ],
)
def test_ways(text, ways):
    assert rule_of(f"{text} all * write").ways == ways


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("all", [["all"]]),
        ("user:alice", [["user:alice"]]),
        ("user:alice,group:virt", [["user:alice"], ["group:virt"]]),
        ("user:alice, group:virt", [["user:alice"], ["group:virt"]]),
        ("sasl:a&addr:10.0.0.0/8,sasl:b", [["sasl:a", "addr:10.0.0.0/8"], ["sasl:b"]]),
        ('user:"a b"', [["user:a b"]]),
        ('"user:a,b"', [["user:a,b"]]),
        ('user:"a&b#c"', [["user:a&b#c"]]),
        ('user:"a""b"', [['user:a"b']]),
        ("user:a:b", [["user:a:b"]]),
        (r"user:EX\joe", [[r"user:EX\joe"]]),
        ("uid:0", [["uid:0"]]),
        ("uid:1000-1999,uid:7-7", [["uid:1000-1999"], ["uid:7"]]),
        # Subjects have commas.
        ("dn:CN=monitor,O=Example", [["dn:CN=monitor,O=Example"]]),
        ('dn:"CN=monitor,O=Example"', [["dn:CN=monitor,O=Example"]]),
        ('"dn:CN=monitor,O=Example"', [["dn:CN=monitor,O=Example"]]),
        ("dn:C=GB,O=X,CN=*,user:joe", [["dn:C=GB,O=X,CN=*"], ["user:joe"]]),
        ("dn:CN=a,O=X&addr:::1,dn:CN=b,O=X", [["dn:CN=a,O=X", "addr:::1"], ["dn:CN=b,O=X"]]),
        ("dn:2.5.4.3=a,1.2.3=b", [["dn:2.5.4.3=a,1.2.3=b"]]),
        (r"dn:CN=a\,b,O=X", [[r"dn:CN=a\,b,O=X"]]),
        # Names of certificates.
        ("san:Kvm1.Example.org", [["san:dns:kvm1.example.org"]]),
        ("san:*.example.org", [["san:dns:*.example.org"]]),
        ("san:Joe@Example.org", [["san:email:Joe@example.org"]]),
        ("san:spiffe://X/monitor/*", [["san:uri:spiffe://X/monitor/*"]]),
        ("san:dns:a,san:email:b,san:uri:c", [["san:dns:a"], ["san:email:b"], ["san:uri:c"]]),
        # Networks.
        ("addr:192.0.2.7", [["addr:192.0.2.7"]]),
        ("addr:192.0.2.7/32", [["addr:192.0.2.7"]]),
        ("addr:10.0.0.0/255.0.0.0", [["addr:10.0.0.0/8"]]),
        ("addr:2001:DB8::/32", [["addr:2001:db8::/32"]]),
        ("addr:::ffff:192.0.2.7", [["addr:192.0.2.7"]]),
        ("addr:::ffff:10.0.0.0/104", [["addr:10.0.0.0/8"]]),
        ("addr:0.0.0.0/0", [["addr:0.0.0.0/0"]]),
    ],
)
def test_who(text, means):
    assert who(text) == means


@pytest.mark.parametrize(
    ("text", "globs"),
    [
        ("*", ["*"]),
        ("all", ["*"]),
        ("qemu:*", ["qemu:*"]),
        ("qemu:///system,lxc:///", ["qemu:///system", "lxc:///"]),
        ("test:///default", ["test:///default"]),
        ("???:///system", ["???:///system"]),
    ],
)
def test_what(text, globs):
    assert [uri.text for uri in rule_of(f"all all {text} read").uris] == globs


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("deny", Level.DENY, ()),
        ("read", Level.READ, ()),
        ("operate", Level.SET, ("operate",)),
        ("write", Level.WRITE, ()),
    ],
)
def test_levels(text, level, words):
    assert rule_of(f"all all * {text}").grant == Grant(level=level, name=text, words=words)


def local_time(*when):
    return dt.datetime(*when).timestamp()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("sessions=5", "sessions", 5),
        ("calls=200/s", "calls_per_s", 200.0),
        ("calls=30/min", "calls_per_s", 0.5),
        ("idle=90s", "idle_s", 90),
        ("idle=15min", "idle_s", 900),
        ("idle=1h", "idle_s", 3600),
        ("idle=7d", "idle_s", 604800),
        ("until=2026-12-31", "until_s", local_time(2027, 1, 1)),
        ("until=2026-12-31T18:00", "until_s", local_time(2026, 12, 31, 18)),
        ("until=2026-12-31T18:00:30Z", "until_s", 1798740030.0),
        ("until=2026-12-31T18:00+01:00", "until_s", 1798736400.0),
    ],
)
def test_options(text, name, value):
    assert getattr(rule_of(f"all all * write {text}").grant, name) == value


def test_a_line_goes_on_behind_a_backslash():
    first, second = rules_of(
        "unix user:a,\\\n   user:b \\\n\t* \\\r\n read\r\n# no more \\\nall all * deny"
    )
    assert (first.line, first.text) == (1, "unix user:a,user:b * read")
    assert (second.line, second.text) == (6, "all all * deny")


def test_a_comment_may_stand_right_behind_a_word():
    assert rule_of("all all * deny# no blank").grant.level is Level.DENY


def test_sets_are_words_of_sets_defined_anywhere():
    text = (
        "all user:a * c\n"
        "set c = b, domain:stop\n"
        "set b=domain:start read domain:start\n"
        "all user:b * b\n"
    )
    first, second = rules_of(text)
    assert first.grant == Grant(
        level=Level.SET, name="c", words=("domain:start", "read", "domain:stop")
    )
    assert second.grant.words == ("domain:start", "read")
    parsed = parse_rules(text, "r")
    assert {name: known.place.line for name, known in parsed.sets.items()} == {"c": 2, "b": 3}
    assert parsed.sets_in_use == {"b", "c"}


def test_words_are_judged_by_who_knows_them():
    place, said = fault_of(
        "set a = domain:start domain:strat read\nall all * a\n",
        unfit=lambda word: "no permission" if word == "domain:strat" else None,
    )
    assert place == "1:22"
    assert said == (
        "words of a set (domain:start, qemu:*, read, operate or another set), found"
        ' "domain:strat": no permission'
    )


def test_what_is_remarkable_of_a_set_is_a_doubt_at_its_name():
    text = "set b = a\nset a = x:y\nall all * b\n"
    parsed = parse_rules(text, "r", remarks=lambda words: [f"no use of {' '.join(words)}"])
    assert [str(doubt) for doubt in parsed.doubts] == [
        "r:1:5: set b: no use of x:y",
        "r:2:5: set a: no use of x:y",
    ]


def test_an_empty_file_has_no_rules_and_no_faults():
    for text in ("", "\n", "# nothing\n\n   # at all", "\r\n"):
        parsed = parse_rules(text, "r")
        assert (parsed.rules, parsed.faults) == ((), ())


# ---- What is said of lines that mean nothing

WAYS = "a way in (unix, ro, tcp, tls, ssh or all)"
WHO = (
    "who is meant (user:NAME, group:NAME, uid:NUMBER, sasl:NAME, dn:SUBJECT, san:NAME,"
    " addr:NETWORK or all)"
)
URI = "a URI as the daemon gets it, as qemu:///system or qemu:*"
MAY = "deny, read, operate, write or the name of a set"
OPTION = "an option (sessions=5, calls=200/s, idle=1h or until=2026-12-31)"
SET = "words of a set (domain:start, qemu:*, read, operate or another set)"
UNTIL = "until= a date as 2026-12-31, or with a time as 2026-12-31T18:00, 18:00Z or 18:00+01:00"
CALLS = "calls= a whole number from 1 to 1000000 with /s or /min"
IDLE = "idle= a number with s, min, h or d, at most 366d"
NETWORK = "addr: an address, or a network as 10.0.0.0/8 or 2001:db8::/32"
LONG = "x" * 4097


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        # Columns that are missing, or in the wrong order.
        ("tls", "1:4", "who is meant (user:NAME, group:NAME, sasl:NAME, dn:SUBJECT … or all)"
         " in column 2"),
        ("tls all", "1:8", "a URI (qemu:///system, qemu:* or all) in column 3"),
        ("tls all *", "1:10", f"{MAY} in column 4"),
        ("tls all * # read", "1:17", f"{MAY} in column 4"),
        # Ways.
        ("tsl all * read", "1:1", f'{WAYS}, found "tsl"; did you mean "tls"?'),
        ("hostssl all * read", "1:1", f'{WAYS}, found "hostssl"; did you mean "tls"?'),
        ("local all * read", "1:1", f'{WAYS}, found "local"; did you mean "unix"?'),
        ("tls,zzz all * read", "1:5", f'{WAYS}, found "zzz"'),
        ("tls&tcp all * read", "1:5", '"," or a blank before "tcp", found "&", which joins'
         " conditions of the second column alone"),
        # Who.
        ("all alice * read", "1:5", f'{WHO}, found "alice"; did you mean "user:alice"?'),
        ("all @virt * read", "1:5", f'{WHO}, found "@virt"; did you mean "group:virt"?'),
        ("all 1000 * read", "1:5", f'{WHO}, found "1000"; did you mean "uid:1000"?'),
        ("all 10.0.0.0/8 * read", "1:5", f'{WHO}, found "10.0.0.0/8"; did you mean'
         ' "addr:10.0.0.0/8"?'),
        ("all CN=a,O=X * read", "1:5", f'{WHO}, found "CN=a"; did you mean "dn:CN=a"?'),
        ("all ip:::1 * read", "1:5", f'{WHO}, found "ip:::1"; did you mean "addr:::1"?'),
        ("all User:joe * read", "1:5", f'{WHO}, found "User:joe"; did you mean "user:joe"?'),
        ("all usr:joe * read", "1:5", f'{WHO}, found "usr"; did you mean "user"?'),
        ("all spiffe://x/y * read", "1:5", f'{WHO}, found "spiffe://x/y"; did you mean'
         ' "san:spiffe://x/y"?'),
        ("all user:a,everybody * read", "1:12", f'{WHO}, found "everybody"; did you mean "all"?'),
        ("all user: * read", "1:5", 'something behind "user:"'),
        ("all uid:joe * read", "1:5", "uid: a number, or a range as 1000-1999, of at most"
         ' 4294967294, found "joe"'),
        ("all uid:9-1 * read", "1:5", "uid: a number, or a range as 1000-1999, of at most"
         ' 4294967294, found "9-1"'),
        ("all dn:CN=a,* * read", "1:13", 'quotes around a subject with commas, found "*"; did you'
         ' mean "dn:CN=a,*" with them?'),
        ("all san:urn:x * read", "1:5", 'san: a DNS name, found "urn:x"; did you mean'
         ' "uri:urn:x"?'),
        ("all san:dns: * read", "1:5", "san: a name behind dns:"),
        ("all addr:10.1.0.0/8 * read", "1:5", "addr: a network whose bits behind the prefix are 0,"
         ' found "10.1.0.0/8"; did you mean "addr:10.0.0.0/8"?'),
        ("all addr:10.1.* * read", "1:5", f'{NETWORK}, found "10.1.*"; did you mean'
         ' "addr:10.1.0.0/16"?'),
        ("all addr:[::1] * read", "1:5", f'{NETWORK}, found "[::1]"; did you mean "addr:::1"?'),
        ("all addr:fe80::1%eth0 * read", "1:5", f'{NETWORK}, found "fe80::1%eth0"; did you mean'
         ' "fe80::1"?'),
        ("all addr:kvm1 * read", "1:5", f'{NETWORK}, found "kvm1"'),
        ("all " + "&".join(f"user:{n}" for n in range(9)) + " * read", "1:61",
         'at most 8 conditions joined by "&"'),
        # What.
        ("all all qemu read", "1:9", f'{URI}, found "qemu"; did you mean "qemu:*"?'),
        ("all all qemu://system read", "1:9", f'{URI}, found "qemu://system"; did you mean'
         ' "qemu:///system"?'),
        ("all all qemu+ssh://h/system read", "1:9", f'{URI}, found "qemu+ssh://h/system"; did you'
         ' mean "qemu:///system"?'),
        ("all all qemu+tls://*/system read", "1:9", f'{URI}, found "qemu+tls://*/system"; did you'
         ' mean "qemu://"?'),
        ("all all qemu:///system,xen://h/ read", "1:24", f'{URI}, found "xen://h/"; did you mean'
         ' "xen:///"?'),
        ("all all xen read", "1:9", f'{URI}, found "xen"; did you mean "xen:///system"?'),
        # May.
        ("all all * allow", "1:11", f'{MAY}, found "allow"; did you mean "write"?'),
        ("all all * reject", "1:11", f'{MAY}, found "reject"; did you mean "deny"?'),
        ("all all * raed", "1:11", f'{MAY}, found "raed"; did you mean "read"?'),
        ("all all * read,write", "1:16", 'one word in column 4, found "read,write"; a set may have'
         " several"),
        # Options.
        ("all all * read quick", "1:16", f'{OPTION}, found "quick"'),
        ("all all * read session=5", "1:16", f'{OPTION}, found "session"; did you mean'
         ' "sessions"?'),
        ("all all * read timeout=5", "1:16", f'{OPTION}, found "timeout"; did you mean "idle"?'),
        ("all all * read sessions=0", "1:16", "sessions= a whole number from 1 to 1000000,"
         ' found "0"'),
        ("all all * read sessions=5 sessions=6", "1:27", "one sessions= in a rule, found another"),
        ("all all * read sessions=5,idle=1h", "1:27", 'a blank between options, found ","'),
        ("all all * read calls=200", "1:16", f'{CALLS}, found "200"; did you mean "calls=200/s"?'),
        ("all all * read calls=2/h", "1:16", f'{CALLS}, found "2/h"'),
        ("all all * read idle=5m", "1:16", f'{IDLE}, found "5m"; did you mean "idle=5min"?'),
        ("all all * read idle=999d", "1:16", f'{IDLE}, found "999d"'),
        ("all all * read until=tomorrow", "1:16", f'{UNTIL}, found "tomorrow"'),
        ("all all * read until=2026-02-30", "1:16", f'{UNTIL}, of a day that there is, found'
         ' "2026-02-30"'),
        ("all all * read until=1969-02-20", "1:16", f'{UNTIL}, behind 1970, found "1969-02-20"'),
        ("all all * deny sessions=5", "1:16", 'no option in a rule that denies, found'
         ' "sessions=5"'),
        # Sets.
        ("set", "1:4", 'a name behind "set", as set NAME = domain:start'),
        ("set a", "1:6", '"=" behind the name of the set'),
        ("set a b", "1:7", '"=" behind the name of the set'),
        ("set a =", "1:8", 'words behind the "=", as domain:start'),
        ("set 1a = x:y", "1:5", 'a name of at most 64 letters, digits, "_" and "-", with a letter'
         ' in front, found "1a"'),
        ("set read = x:y", "1:5", 'another name than "read", which has a meaning of its own'),
        ("set a = b", "1:9", f'{SET}, found "b"'),
        ("set a = raed", "1:9", f'{SET}, found "raed"; did you mean "read"?'),
        ("set a = write", "1:9", 'permissions, calls, sets, read or operate, found "write", which'
         " is no part of a set"),
        ("set a = x:y z:", "1:13", f'{SET}, found "z:": neither OBJECT:PERMISSION nor'
         " PROGRAM:CALL"),
        ("set a = a", "1:9", 'sets that are not inside of themselves, found "a"'),
        ("set a = b\nset b = c\nset c = a", "3:9", "sets that are not inside of themselves,"
         ' found "a"'),
        ("set a = x:y\nset a = x:z", "2:5", 'one set "a", found the one of line 1'),
        # The text itself.
        ('all "user:a * read', "1:5", "a closing '\"' on the same line"),
        ("all user:a, \nall all * read", "1:13", 'something behind the "," of the line'),
        ("all ,user:a * read", "1:5", 'something before the ","'),
        ("all user:a,,user:b * read", "1:12", 'something before the ","'),
        ("all all * read \\ ", "1:16", "nothing behind the backslash that ends the line,"
         " found blanks"),
        ("all all * read \\", "1:16", "another line behind the backslash"),
        ("all user:a\x1bb * read", "1:11", "characters that are seen, found U+001B"),
        ("all user:a\u202eb * read", "1:11", "characters that are seen, found U+202E"),
        ("all user:a\udcffb * read", "1:11", "text in UTF-8, found a byte that is none"),
        ("\ufeffall all * read", "1:1", "characters that are seen, found U+FEFF"),
        (f"all user:{LONG} * read", "1:5", "a column of at most 4096 characters"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_line_that_means_nothing(text, place, said):
    assert fault_of(text) == (place, said)


def test_every_broken_line_is_one_fault_and_the_others_are_read():
    parsed = parse_rules(
        "tsl alice qemu raed\n"
        "all all * power\n"
        "set power = b\\\n"
        "     c\n"
        "tls all * read\n"
        "x y\\\n"
        "  z\n",
        "r",
    )
    assert [(fault.line, fault.key) for fault in parsed.faults] == [
        (1, "way"),
        (3, "power"),  # and the rule that names it is no other fault
        (6, "way"),
    ]
    assert [rule.line for rule in parsed.rules] == [5]


def test_a_fault_says_where_it_is():
    (fault,) = parse_rules("all all * raed", "/etc/rules").faults
    assert str(fault).startswith("/etc/rules:1:11: expected deny, read, operate, write or the")


def test_no_more_faults_than_somebody_reads():
    parsed = parse_rules("x\n" * 5000, "r")
    assert len(parsed.faults) == MOST_FAULTS
    assert [fault.line for fault in parsed.faults] == [*range(1, MOST_FAULTS + 1)]


def test_there_are_bounds():
    assert len(rules_of("all all * deny\n" * MOST_RULES)) == MOST_RULES
    text = "all all * deny\n" * (MOST_RULES + 1)
    assert fault_of(text) == (f"{MOST_RULES + 1}:1", f"at most {MOST_RULES} rules")
    assert fault_of("#" * (MAX_FILE_BYTES + 1)) == (
        "1:1",
        f"a file of at most {MAX_FILE_BYTES} bytes",
    )
    names = [f"user:{n}" for n in range(256)]
    assert len(who(",".join(names))) == 256
    assert fault_of(f"all {','.join([*names, 'user:x'])} * read")[1] == (
        "at most 256 alternatives in one column"
    )
    words = " ".join(f"x:y{n}" for n in range(1025))
    assert fault_of(f"set a = {words}")[1] == "at most 1024 words, found 1025"
    assert fault_of(f"set a = {words} {words}")[1] == "at most 1100 columns in one line"
    sets = "".join(f"set s{n} = x:y\n" for n in range(257))
    assert fault_of(sets) == ("257:5", "at most 256 sets")
    chain = "set s0 = x:y\n" + "".join(f"set s{n} = s{n - 1}\n" for n in range(1, 256))
    assert rules_of(f"{chain}all all * s255\n")[0].grant.words == ("x:y",)
