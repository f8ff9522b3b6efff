"""proxyd rules check and explain, as people and programs see them."""

import json
import os
import pwd
import subprocess
import sys
import time

import pytest

from proxyd.cli import rules_explain
from proxyd.cli.main import main
from tests.bed.command import run_to_end

RULES = """\
# Who may do what here
set power = domain:getattr domain:start domain:stop
set spare = read

unix,ssh  group:virt-admin                          *                 write
unix      user:alice                                qemu:///system    operate sessions=5
tls       dn:CN=monitor,O=Example                   qemu:///system    read calls=200/s idle=1h
tls       sasl:joe&addr:192.0.2.0/24,san:*.ex.org   qemu:*,lxc:///    power until=2099-12-30T12:00Z
tls       dn:CN=bad,O=Example                       *                 deny
unix      user:alice&group:users                    qemu:///system    read
"""
CHECKED = """\
RULES: 6 rules, 2 sets
  by unix or ssh: members of group virt-admin may do everything with any URI (line 5)
  by unix: user alice may operate qemu:///system, with at most 5 sessions at a time (line 6)
  by tls: whoever's certificate is CN=monitor,O=Example may read qemu:///system, at most 200 calls\
 a second, for no longer than 1h without a call (line 7)
  by tls: SASL user joe and clients of 192.0.2.0/24 or whoever's certificate has a name like\
 *.ex.org may do with qemu:* and lxc:/// what the set power allows, until 2099-12-30 12:00+00:00\
 (line 8)
  by tls: whoever's certificate is CN=bad,O=Example is refused (line 9)
  by unix: user alice and members of group users may read qemu:///system (line 10)
  everybody else is refused
"""
DOUBTS = """\
proxyd: warning: RULES:3:5: no rule names the set spare
proxyd: warning: RULES:5:1: this host knows no group "virt-admin"
proxyd: warning: RULES:10:1: this rule never decides: line 6 takes all whom it is for
"""


@pytest.fixture(autouse=True)
def alice(monkeypatch, tmp_path):
    """This host knows alice, in its groups, whoever else it knows. Its time is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    entry = pwd.struct_passwd(("alice", "x", 1234, 77, "", "/", "/bin/sh"))
    groups = {77: "users", 78: "audio"}

    def by_name(name):
        if name != "alice":
            raise KeyError(name)
        return entry

    def by_uid(uid):
        if uid != 1234:
            raise KeyError(uid)
        return entry

    def group(name):
        if name not in groups.values():
            raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", by_name)
    monkeypatch.setattr(pwd, "getpwuid", by_uid)
    monkeypatch.setattr(rules_explain.grp, "getgrnam", group)
    monkeypatch.setattr(
        rules_explain.grp, "getgrgid", lambda gid: type("Entry", (), {"gr_name": groups[gid]})
    )
    monkeypatch.setattr(os, "getgrouplist", lambda *_: [*groups])
    monkeypatch.chdir(tmp_path)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.conf"
    path.write_text(RULES)
    return path


@pytest.fixture
def said(capsys, rules):
    """Runs the command; its status, and what it says with RULES for the file's name."""

    def run(*words):
        status = main(["rules", *map(str, words)])
        out, err = capsys.readouterr()
        return status, out.replace(str(rules), "RULES"), err.replace(str(rules), "RULES")

    return run


# ---- check


def test_doubts_are_warnings_and_the_summary_is_in_words(said, rules):
    assert said("check", rules) == (1, CHECKED, DOUBTS)


def test_a_file_that_is_fine_is_status_0(said, rules):
    rules.write_text("unix user:alice * read\n")
    status, out, err = said("check", rules)
    assert (status, err) == (0, "")
    assert out.startswith("RULES: 1 rule\n")


def test_every_fault_is_told_of_with_its_place(said, rules):
    rules.write_text("tsl all * read\nall all * read\nall alice * raed\nall all * power\n")
    assert said("check", rules) == (
        2,
        "RULES: 1 rule, 3 faults: such a file is not put in force\n",
        "proxyd: RULES:1:1: expected a way in (unix, ro, tcp, tls, ssh or all), found"
        ' "tsl"; did you mean "tls"?\n'
        "proxyd: RULES:3:5: expected who is meant (user:NAME, group:NAME, uid:NUMBER, sasl:NAME,"
        ' dn:SUBJECT, san:NAME, addr:NETWORK or all), found "alice"; did you mean "user:alice"?\n'
        "proxyd: RULES:4:11: expected deny, read, operate, write or the name of a set, found"
        ' "power"\n',
    )


def test_a_check_for_machines(said, rules):
    rules.write_text(RULES + "tls\n")
    status, out, err = said("check", rules, "--json")
    assert (status, err) == (2, "")
    found = json.loads(out)
    assert found == {
        "path": "RULES",
        "fine": False,
        "rules": 6,
        "sets": {"power": ["domain:getattr", "domain:start", "domain:stop"], "spare": ["read"]},
        "summary": [],
        "faults": [
            {
                "path": "RULES",
                "line": 11,
                "column": 4,
                "key": "who",
                "expected": "who is meant (user:NAME, group:NAME, sasl:NAME, dn:SUBJECT … or all)"
                " in column 2",
            }
        ],
        "doubts": [
            {
                "path": "RULES",
                "line": 5,
                "column": 1,
                "key": "group",
                "text": 'this host knows no group "virt-admin"',
            },
            {
                "path": "RULES",
                "line": 10,
                "column": 1,
                "key": "",
                "text": "this rule never decides: line 6 takes all whom it is for",
            },
        ],
    }


def test_the_summary_for_machines(said, rules):
    status, out, _ = said("check", rules, "--json")
    found = json.loads(out)
    assert (status, found["fine"], found["faults"]) == (1, True, [])
    assert [f"  {each}" for each in found["summary"]] == CHECKED.splitlines()[1:]


# ---- Which file


@pytest.fixture
def conf(tmp_path, rules):
    path = tmp_path / "virtproxyd.conf"
    path.write_text(f'proxyd_rules_file = "{rules}"\n')
    return path


@pytest.mark.parametrize("verb", ["check", "explain"])
def test_without_a_file_it_is_the_one_of_the_configuration(said, conf, rules, verb):
    named = said(verb, rules, "-f", conf)
    assert said(verb, "-f", conf) == named
    assert "unix" in named[1]


def test_a_configuration_says_who_proves_sasl_names(said, conf, rules):
    rules.write_text("tls sasl:joe * read\ntcp sasl:joe * read\n")
    assert said("check", "-f", conf)[::2] == (
        1,
        "proxyd: warning: RULES:1:1: no client proves a SASL name by tls here: auth_unix_rw,"
        " auth_unix_ro, auth_tcp and auth_tls say so\n",
    )
    assert said("check", rules)[0] == 0
    conf.write_text(conf.read_text() + 'auth_tls = "sasl"\n')
    assert said("check", "-f", conf)[0] == 0


def test_a_file_may_come_through_a_pipe(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "proxyd", "rules", "check"]
    with subprocess.Popen([*command, fifo], stdout=subprocess.PIPE, text=True) as check:
        fifo.write_text("unix user:root * write\n")
        assert check.communicate()[0].startswith(f"{fifo}: 1 rule\n")
    assert check.returncode == 0


@pytest.mark.parametrize("verb", ["check", "explain"])
def test_what_cannot_be_said_is_status_3_and_says_what_to_do(said, tmp_path, conf, verb):
    assert said(verb, "nowhere.conf") == (
        3,
        "",
        "proxyd: cannot load the rules: nowhere.conf: No such file or directory; mend that, or name"
        " another file in proxyd_rules_file\n",
    )
    conf.write_text("")
    assert said(verb, "-f", conf) == (
        3,
        "",
        f"proxyd: there are no rules: proxyd_rules_file is not set in {conf}; set it, or name a"
        " file\n",
    )
    conf.write_text('proxyd_rules_file = "rules"\n')
    status, out, err = said(verb, "-f", conf)
    assert (status, out) == (3, "")
    assert 'expected proxyd_rules_file to be an absolute path, with a "/" in front' in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "the following arguments are required: VERB"),
        (["chek"], "invalid choice: 'chek'"),
        (["check", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["explain", "--way", "tlss"], "invalid choice: 'tlss'"),
        (["explain", "--uid", "joe"], "a number expected, not 'joe'"),
        (["explain", "--address", "kvm1"], "an address expected, not 'kvm1'"),
        (["explain", "--san", "dns:a/b"], 'a DNS name, found "a/b"; did you mean "uri:a/b"?'),
        (["explain", "--at", "soon"], "a date as 2026-12-31"),
        (["explain", "--uri", "qemu+ssh://h/system"], "transport 'ssh' in a name would make"),
    ],
)
def test_a_command_line_that_is_wrong_is_status_3(said, words, says):
    status, out, err = said(*words)
    assert (status, out) == (3, "")
    assert says in err
    assert "(try --help)" in err


# ---- explain


def explained(said, rules, *options):
    status, out, err = said("explain", rules, *options)
    assert err == ""
    return status, out


def test_the_line_that_decides_and_why_those_before_it_do_not(said, rules):
    assert explained(
        said, rules, "--dn", "CN=kvm1,O=Example", "--san", "kvm1.EX.org", "--uri", "qemu:///session"
    ) == (
        0,
        "certificate CN=kvm1,O=Example with kvm1.EX.org by tls, qemu:///session:\n"
        "  line 8 decides: tls sasl:joe&addr:192.0.2.0/24,san:*.ex.org qemu:*,lxc:/// power"
        " until=2099-12-30T12:00Z\n"
        "  by tls: SASL user joe and clients of 192.0.2.0/24 or whoever's certificate has a name"
        " like *.ex.org may do with qemu:* and lxc:/// what the set power allows, until 2099-12-30"
        " 12:00+00:00 (line 8)\n"
        "the rules before it do not:\n"
        "  line 5: by unix or ssh, and this client came by tls\n"
        "  line 6: by unix, and this client came by tls\n"
        "  line 7: for dn:CN=monitor,O=Example: it is CN=kvm1,O=Example\n",
    )


def test_a_user_has_the_groups_that_this_host_says(said, rules):
    assert explained(said, rules, "--user", "alice", "--uri", "lxc:///") == (
        1,
        "user alice uid 1234 in audio, users by unix, lxc:///:\n"
        "  no rule is for this client, so it is refused:\n"
        "  line 5: for group:virt-admin: it is in audio, users\n"
        "  line 6: for qemu:///system, and it asks for lxc:///\n"
        "  line 7: by tls, and this client came by unix\n"
        "  line 8: by tls, and this client came by unix\n"
        "  line 9: by tls, and this client came by unix\n"
        "  line 10: for qemu:///system, and it asks for lxc:///\n",
    )
    by_uid = explained(said, rules, "--uid", "1234", "--uri", "lxc:///")
    assert by_uid == explained(said, rules, "--user", "alice", "--uri", "lxc:///")
    status, out = explained(said, rules, "--user", "alice", "--group", "virt-admin")
    assert (status, out.splitlines()[0]) == (
        0,
        "user alice uid 1234 in virt-admin by unix, qemu:///system:",
    )


def test_a_rule_that_denies_is_status_1(said, rules):
    status, out = explained(said, rules, "--dn", "CN=bad,O=Example")
    assert status == 1
    assert "  line 9 decides: tls dn:CN=bad,O=Example * deny\n" in out


def test_who_is_not_known_here_is_told_of(said, rules):
    status, out, err = said("explain", rules, "--user", "zoe")
    assert status == 1
    assert out.startswith("user zoe by unix, qemu:///system:\n")
    assert err == (
        "proxyd: this host knows no user zoe, so nothing but the name counts; give --uid and"
        " --group for more\n"
    )
    assert said("explain", rules, "--user", "zoe", "--uid", "7")[2] == ""


def test_a_moment_may_be_named(said, rules):
    joe = ("--sasl", "joe", "--way", "tls", "--address", "192.0.2.7")
    assert explained(said, rules, *joe, "--at", "2099-12-30T11:59")[0] == 0
    status, out = explained(said, rules, *joe, "--at", "2099-12-30T12:00")
    assert status == 1
    assert "  line 8: it ended at 2099-12-30 12:00+00:00\n" in out


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        ([], ["unix"]),
        (["--readonly"], ["ro"]),
        (["--way", "ro"], ["ro"]),
        (["--way", "ssh"], ["unix", "ssh"]),
        (["--way", "ssh", "--readonly"], ["ro", "ssh"]),
        (["--user", "alice"], ["unix"]),
        (["--user", "alice", "--sasl", "joe"], ["unix"]),
        (["--sasl", "joe"], ["tcp"]),
        (["--sasl", "joe", "--dn", "CN=x"], ["tls"]),
        (["--san", "x"], ["tls"]),
        (["--address", "::1"], ["tls"]),
        (["--address", "::1", "--way", "tcp"], ["tcp"]),
    ],
)
def test_the_way_is_the_one_that_such_a_client_comes_by(said, rules, options, ways):
    out = said("explain", rules, "--json", *options)[1]
    assert json.loads(out)["client"]["ways"] == ways


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--user", "alice", "--way", "tls"], "--user is known of clients by unix, ro and ssh, and"
         " this one comes by tls: leave one of them out"),
        (["--user", "alice", "--dn", "CN=x"], "--user is known of clients by unix, ro and ssh, and"
         " this one comes by tls: leave one of them out"),
        (["--dn", "CN=x", "--way", "ssh"], "--dn is known of clients by tls, and this one comes by"
         " unix and ssh: leave one of them out"),
        (["--address", "::1", "--readonly"], "--readonly is the UNIX socket, and this client comes"
         " by tls"),
    ],
)  # fmt: skip
def test_no_client_is_like_that(said, rules, options, says):
    assert said("explain", rules, *options) == (3, "", f"proxyd: {says}\n")


def test_a_file_with_faults_explains_nothing(said, rules):
    rules.write_text("tls all * raed\n")
    status, out, err = said("explain", rules)
    assert (status, out) == (2, "")
    assert err.startswith("proxyd: RULES:1:11: expected deny, read")


def test_an_explanation_for_machines(said, rules):
    status, out, _ = said(
        "explain", rules, "--json", "--dn", "CN=monitor,O=Example", "--san", "a@Ex.org",
        "--at", "2026-12-01T00:00Z",
    )  # fmt: skip
    assert status == 0
    assert json.loads(out) == {
        "client": {
            "ways": ["tls"],
            "user": None,
            "uid": None,
            "groups": [],
            "sasl": None,
            "dn": "CN=monitor,O=Example",
            "sans": [{"kind": "email", "value": "a@Ex.org"}],
            "address": None,
        },
        "uri": "qemu:///system",
        "at": 1796083200.0,
        "allowed": True,
        "rule": {
            "line": 7,
            "text": "tls dn:CN=monitor,O=Example qemu:///system read calls=200/s idle=1h",
            "level": "read",
            "name": "read",
            "words": [],
            "sessions": 0,
            "calls_per_s": 200.0,
            "idle_s": 3600,
            "until_s": 0.0,
        },
        "before": [
            {
                "first": 5,
                "last": 5,
                "count": 1,
                "reason": "way",
                "text": "by unix or ssh, and this client came by tls",
            },
            {
                "first": 6,
                "last": 6,
                "count": 1,
                "reason": "way",
                "text": "by unix, and this client came by tls",
            },
        ],
    }


def test_names_of_a_stranger_stay_on_their_line(said, rules):
    out = said("explain", rules, "--dn", "CN=a\nline 1 decides: \x1b[31m")[1]
    assert (
        out.splitlines()[0] == r"certificate CN=a\nline 1 decides: \x1b[31m by tls, qemu:///system:"
    )


# ---- As a process


def test_nothing_waits_for_the_loop_and_nothing_is_needed(rules):
    rules.write_text("all all * read\n")
    done = run_to_end([sys.executable, "-m", "proxyd", "rules", "check", str(rules)], deadline_s=30)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == (
        f"{rules}: 1 rule\n  by any way: everybody may read any URI (line 1)\n"
        "  everybody else is refused\n"
    )
