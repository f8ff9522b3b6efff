"""The command: what it prints, its exit statuses, and that wrong input is one line."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import certs as package
from certs.authority import Authority
from certs.cli import main
from certs.options import PROGRAM, parser
from certs.places import flat
from proxyd.invocation import own_command
from tests.bed.command import clean_environment
from tests.certs.conftest import HOST

SOURCES = Path(package.__file__).parents[1]
README = Path(package.__file__).with_name("README.md")
VERBS = ("init", "server", "client", "renew", "revoke", "crl", "list", "check")
DEADLINE_S = 30


def as_process(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "certs", *map(str, arguments)],
        env=clean_environment({"PYTHONPATH": str(SOURCES)}),
        text=True,
        check=False,
        timeout=DEADLINE_S,
        stderr=subprocess.PIPE,
        **more,
    )


# Everything once, as a new user would


def test_from_nothing_to_a_revoked_client(certs, check, root, tmp_path):
    joe = tmp_path / "joe"
    assert certs("init", "--dir", root, "--name", "Example CA").status == 0
    assert certs("server", "--dir", root, HOST, "--ip", "192.0.2.1", "--ip", "::1").status == 0
    client = certs("client", "--dir", root, "joe", "-O", "Example", "--flat", joe)
    assert 'tls_allowed_dn_list = [ "O=Example,CN=joe" ]' in client.out
    assert f"virsh -c 'qemu+tls://SERVER/system?pkipath={joe}' list" in client.out

    revoked = certs("revoke", "--dir", root, joe / "clientcert.pem", "--reason", "superseded")
    assert revoked.out.startswith("revoked ")
    assert "O=Example,CN=joe" in revoked.out
    again = certs("revoke", "--dir", root, "joe")
    assert again.status == 0
    assert re.search(r"O=Example,CN=joe, was revoked on .* UTC already$", again.out, re.MULTILINE)

    assert certs("crl", "--dir", root).out.startswith(f"wrote {root}/CA/cacrl.pem\n")
    server_line, client_line = certs("list", "--dir", root).out.splitlines()
    assert re.search(rf"  server  .*  CN={re.escape(HOST)}  valid$", server_line)
    assert re.search(r"  client  .*  O=Example,CN=joe  revoked \S+, superseded$", client_line)
    assert check("--dir", root, "--host", HOST)[0] == 0


def test_what_was_written_is_said_with_names_serial_number_and_end(certs, authority, root):
    answer = certs("server", "--dir", root, HOST, "--ip", "2001:DB8::1")
    (record,) = authority.ledger().records
    assert answer.out.startswith(
        f"wrote {root}/libvirt/servercert.pem\n"
        f"wrote {root}/libvirt/private/serverkey.pem\n"
        "\n"
        f"subject  CN={HOST}\n"
        f"names    {HOST}, 2001:db8::1\n"
        f"serial   {record.number}\n"
        f"until    {record.ends:%Y-%m-%d %H:%M:%S} UTC\n"
    )


def test_the_list_for_programs_says_what_the_ledger_does(certs, authority, root, tmp_path):
    authority.server(HOST)
    authority.client("joe", to=flat(tmp_path / "joe"))
    authority.revoke("joe", reason="keyCompromise")
    answer = certs("list", "--dir", root, "--json")
    server, client = json.loads(answer.out)
    assert list(server) == [
        "serial",
        "purpose",
        "subject",
        "names",
        "begins",
        "ends",
        "revoked",
        "state",
    ]
    assert (server["purpose"], server["names"], server["state"]) == ("server", [HOST], "valid")
    assert (client["subject"], client["state"]) == ("CN=joe", "revoked")
    assert client["revoked"]["reason"] == "keyCompromise"
    assert certs("list", "--dir", root, "--json") == answer


def test_an_empty_list_says_so(certs, authority, root):
    assert certs("list", "--dir", root).out == "nothing was issued yet\n"
    assert json.loads(certs("list", "--dir", root, "--json").out) == []


def test_a_command_line_with_a_space_in_it_can_be_copied(certs, tmp_path):
    root = tmp_path / "my pki"
    said = certs("init", "--dir", root).out
    command = re.escape(f"{own_command()} certs")
    (server,) = re.findall(rf"^    {command} (server .*)$", said, re.MULTILINE)
    assert certs(*shlex.split(server.replace("HOST", HOST))).status == 0


@pytest.fixture
def elsewhere(tmp_path):
    """An ssh that runs its command in the home of another user, a directory here."""
    home, programs = tmp_path / "home", tmp_path / "programs"
    home.mkdir()
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\ncd {shlex.quote(str(home))} && sh -c "$2"\n')
    (programs / "ssh").chmod(0o755)
    return home, {"PATH": f"{programs}:{os.environ['PATH']}"}


def test_the_command_that_copies_a_client_copies_it_with_its_modes(
    certs, authority, root, tmp_path, elsewhere
):
    home, environment = elsewhere
    authority.refresh_list()
    said = certs("client", "--dir", root, "joe", "--flat", tmp_path / "joe's").out
    (copy,) = (line for line in said.splitlines() if "| ssh" in line)
    subprocess.run(["sh", "-c", copy], env=environment, check=True, timeout=DEADLINE_S)

    target = home / ".pki/libvirt"
    modes = {each.name: each.stat().st_mode & 0o777 for each in target.iterdir()}
    assert modes == {
        "cacert.pem": 0o644,
        "cacrl.pem": 0o644,
        "clientcert.pem": 0o644,
        "clientkey.pem": 0o600,
    }
    assert target.stat().st_mode & 0o777 == 0o700
    assert certs("check", "--dir", target, "--role", "client").status == 0


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["client", "j\no"], 'the name "j\\no" has characters that cannot be printed'),
        (["client", "joe", "-C", "DEU"], 'the country "DEU" is not two letters, like DE or JP'),
        (["client", "joe", "-O", "x" * 65], "has 65 bytes, and X.509 allows 64"),
        (["server", "a" * 65], "has 65 bytes, and X.509 allows 64; name a server shorter and give"),
        (["server", "host:22"], '"host:22" is no host name or address; write one like'),
        (["server", "[::1]"], '"[::1]" is no host name or address; write one like'),
        (["server", "*"], '"*" is no host name or address; write one like'),
        (["server", "a.*.b"], '"a.*.b" is no host name or address; write one like'),
        (["server", HOST, "--dns", "b.*"], '"b.*" is no host name or address; write one like'),
        (["server", HOST, "--ip", "1.2.3"], '"1.2.3" is no address; write one like 192.0.2.1 or'),
        (["server", HOST, "--ip", HOST], f'"{HOST}" is no address; write one like 192.0.2.1 or'),
        (["server", HOST, "--ip", "::1%lo"], '"::1%lo" is no address; write one like'),
        (["revoke", "nobody"], '"nobody" is neither the name nor the serial number of a cert'),
        (["revoke", "./no.pem"], "there is no no.pem; name the certificate's file, its name or"),
    ],
)
def test_wrong_names_are_one_line_and_status_1(certs, authority, root, tmp_path, arguments, says):
    verb, *rest = arguments
    out = [] if verb == "revoke" else ["--out", tmp_path / "out"]
    answer = certs(verb, "--dir", root, *out, *rest)
    assert answer.status == 1
    assert answer.out == ""
    assert says in answer.complaint
    assert not (tmp_path / "out").exists()
    assert authority.ledger().records == ()


@pytest.mark.parametrize("verb", ["server", "client", "revoke", "crl", "list"])
def test_without_a_ca_each_verb_says_how_to_make_one(certs, root, verb):
    names = [] if verb in ("crl", "list") else ["x.example.org"]
    answer = certs(verb, "--dir", root, *names)
    assert answer.status == 1
    assert answer.complaint == (
        f"there is no {root}/CA/private/cakey.pem; name the --dir of your CA, or make one there:"
        f" {own_command()} certs init --dir {root}"
    )


def test_a_key_that_is_there_is_left_alone_with_status_1(certs, authority, root):
    key = authority.client("joe").key_file
    before = key.read_bytes()
    answer = certs("client", "--dir", root, "joe")
    assert answer.status == 1
    assert answer.complaint == (
        f"{key} is there already; name another directory with --out or --flat, or use --force to"
        f" replace it"
    )
    assert key.read_bytes() == before
    assert certs("client", "--dir", root, "joe", "--force").status == 0
    assert key.read_bytes() != before


def test_a_ca_that_is_there_is_left_alone_with_status_1(certs, authority, root):
    answer = certs("init", "--dir", root)
    assert answer.status == 1
    assert "cakey.pem is there already; choose another --dir, or use --force" in answer.complaint
    assert Authority.open(root).certificate == authority.certificate


def test_a_file_in_the_place_of_a_directory_is_told(certs, tmp_path):
    (tmp_path / "CA").write_text("")
    answer = certs("init", "--dir", tmp_path)
    assert answer.status == 1
    assert answer.complaint == f"{tmp_path}/CA is in the way: it is no directory"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: VERB"),
        (["make"], "invalid choice: 'make'"),
        (["init"], "required: --dir"),
        (["init", "--dir", ""], "the name of the directory is empty"),
        (["client", "--dir", "x"], "required: NAME"),
        (["client", "--dir", "x", "joe", "--out", "a", "--flat", "b"], "not allowed with"),
        (["client", "--dir", "x", "joe", "--key", "dsa"], "invalid choice: 'dsa'"),
        (["client", "--dir", "x", "joe", "--days", "0"], "'0' is not a number from 1 to 36500"),
        (["client", "--dir", "x", "joe", "--days", "1e3"], "'1e3' is not a number from 1 to"),
        (["client", "--dir", "x", "joe", "--days", "٣"], "is not a number from 1 to 36500"),
        (["revoke", "--dir", "x", "joe", "--reason", "spite"], "invalid choice: 'spite'"),
        (["check", "--role", "judge"], "invalid choice: 'judge'"),
        (["crl", "--dir", "x", "--json"], "unrecognized arguments: --json"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_status_2_or_3_of_a_check(certs, arguments, says):
    answer = certs(*arguments)
    assert answer.status == (3 if arguments[:1] == ["check"] else 2)
    assert answer.out == ""
    assert answer.err.startswith("usage: proxyd certs ")
    assert says in answer.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(certs, verb):
    answer = certs(verb, "--help")
    assert answer.status == 0
    assert answer.out.startswith(f"usage: proxyd certs {verb} ")
    assert verb in certs("--help").out


def commands_in(text):
    """Every line of our command in a text, without comments."""
    command = rf"(?:proxyd|{re.escape(own_command())}) certs"
    for line in re.findall(rf"^ *{command} (.*?)(?: {{8}}.*)?$", text, re.MULTILINE):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("text", ["README", *VERBS[1:5], "check", ""])
def test_every_command_that_is_written_down_is_understood(certs, text):
    said = README.read_text() if text == "README" else certs(*text.split(), "--help").out
    examples = said if text == "README" else said[said.index("examples:") :]
    commands = list(commands_in(examples))
    assert commands
    for each in commands:
        assert parser().parse_args(each).verb in VERBS


# Around the command


def test_as_a_process_it_has_the_same_exit_statuses(tmp_path):
    assert as_process("init", "--dir", tmp_path, stdout=subprocess.PIPE).returncode == 0
    again = as_process("init", "--dir", tmp_path, stdout=subprocess.PIPE)
    assert again.returncode == 1
    assert again.stderr.startswith(f"{PROGRAM}: {tmp_path}/CA/private/cakey.pem is there already;")
    assert as_process("initialise", stdout=subprocess.PIPE).returncode == 2


def test_a_reader_that_has_seen_enough_is_no_failure(authority, root):
    reader, writer = os.pipe()
    os.close(reader)
    done = as_process("list", "--dir", root, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_one_line(authority, root):
    with open("/dev/full", "w") as full:
        done = as_process("list", "--dir", root, stdout=full)
    assert done.returncode == 1
    assert done.stderr == f"{PROGRAM}: stdout: No space left on device\n"


def test_ctrl_c_is_status_130(capsys, monkeypatch, root):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Authority, "open", interrupted)
    assert main(["list", "--dir", str(root)]) == 130
    assert capsys.readouterr().err == f"{PROGRAM}: interrupted\n"


# Renewing


def names_in(out):
    return next(line for line in out.splitlines() if line.startswith("names"))


def test_a_renewed_certificate_says_the_same_and_each_name_once(certs, check, root):
    certs("init", "--dir", root)
    more = ["--dns", HOST, "--ip", "192.0.2.1", "--key", "rsa:2048", "-O", "Example"]
    first = certs("server", "--dir", root, HOST, *more, "--days", "20")
    key = (root / "libvirt/private/serverkey.pem").read_bytes()
    assert check("--dir", root)[1]["problems"] != []  # it ends soon
    renewed = certs("renew", "--dir", root)
    assert (renewed.status, renewed.err) == (0, "")
    assert names_in(renewed.out) == names_in(first.out) == f"names    {HOST}, 192.0.2.1"
    assert "subject  O=Example,CN=" in renewed.out
    assert (root / "libvirt/private/serverkey.pem").read_bytes() != key
    status, found = check("--dir", root, "--host", HOST)
    assert (status, found["problems"]) == (0, [])
    assert "RSA" in found["known"][1]["text"]


def test_a_clients_is_renewed_in_its_own_directory(certs, root, tmp_path):
    certs("init", "--dir", root)
    certs("client", "--dir", root, "joe", "--flat", tmp_path / "joe")
    before = (tmp_path / "joe/clientcert.pem").read_bytes()
    assert certs("renew", "--dir", root, tmp_path / "joe/clientcert.pem").status == 0
    assert (tmp_path / "joe/clientcert.pem").read_bytes() != before


def test_what_cannot_be_renewed_is_one_line(certs, root, tmp_path):
    certs("init", "--dir", root)
    certs("init", "--dir", tmp_path / "other")
    certs("server", "--dir", tmp_path / "other", HOST)
    theirs = tmp_path / "other/libvirt/servercert.pem"
    assert "was not issued by this CA" in certs("renew", "--dir", root, theirs).complaint
    assert certs("renew", "--dir", root).complaint.startswith("there is no /")
    odd = tmp_path / "odd.pem"
    odd.write_bytes(theirs.read_bytes())
    assert "the name that" in certs("renew", "--dir", tmp_path / "other", odd).complaint


# What to do on the host


def test_the_advice_after_a_servers_certificate_fits_a_host_of_either_kind(certs, root):
    certs("init", "--dir", root)
    out = certs("server", "--dir", root, HOST).out
    lines = [line.strip() for line in out.splitlines()]
    start = lines.index("systemctl stop virtproxyd.service")
    assert lines[start + 1] == "systemctl enable --now virtproxyd-tls.socket"
    assert any(line.startswith("systemctl try-reload-or-restart virtproxyd ") for line in lines)
    assert "listen_tls = 1 in virtproxyd.conf, and start it anew" in out
    assert "; then systemctl reload" not in out


def test_every_line_that_is_to_be_pasted_is_one_for_a_shell(certs, root, tmp_path):
    certs("init", "--dir", root)
    certs("client", "--dir", root, "ann", "--flat", tmp_path / "ann")
    for words in (
        ["server", "--dir", root, HOST],
        ["client", "--dir", root, "joe"],
        ["renew", "--dir", root],
        ["revoke", "--dir", root, "ann"],
        ["crl", "--dir", root],
    ):
        out = certs(*words).out
        lines = [line for line in out.splitlines() if line.startswith("    ")]
        commands = [line for line in lines if "tls_allowed_dn_list" not in line]
        assert commands
        for line in commands:
            assert line.split()[0] in {"systemctl", "scp", "tar", "virsh", "proxyd"}, line
            subprocess.run(["bash", "-n", "-c", line], check=True, timeout=DEADLINE_S)
