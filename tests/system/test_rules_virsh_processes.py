"""Processes of this host under rules: groups that change, names with blanks, who came by sshd.

sshd is a way in and no fence (docs/rules.md): what is shown of it is also what it does not keep.
"""

import os
import pwd
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.bed.command import clean_environment, end_process, run_to_end
from tests.bed.daemon import short_directory
from tests.bed.proxyd import Proxyd
from tests.bed.proxyd_log import log_line, reload
from tests.bed.ruled_proxyd import DENIED, GROUP, GROUP_ID, NAME, other_user
from tests.bed.side_by_side import Way
from tests.bed.sshd import ADDRESS, Sshd, free_port, new_key
from tests.bed.virsh import unix_uri
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

USER = "games"
DEADLINE_S = 20

# Connects, becomes somebody else, and opens; prints whether it may.
CHANGES = """
import os, sys
from proxyd.wire.frame import Status
from tests.system.rpc import rpc_client

before, after = (
    [int(number) for number in each.split(",") if number] for each in sys.argv[2:4]
)

def become(uid, *groups):
    os.setresuid(0, 0, 0)
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, 0)

become(*before)
with rpc_client(sys.argv[1]) as client:
    become(*after)
    print(client.open("test:///default").header.status == Status.OK)
"""


@pytest.fixture(scope="module")
def place(backend_dir, qemu_backend):
    """A proxyd, whose rules are written anew by `enforce`."""
    with short_directory(0o711) as directory:
        rules = directory / "rules"
        rules.write_text("all all * deny\n")
        config = {
            "proxyd_routes": [f"test={qemu_backend.sock}"],
            "proxyd_rules_file": str(rules),
            "unix_sock_rw_perms": "0777",
        }
        with Proxyd(directory, backend_dir=backend_dir, config=config) as front:
            front.rules = rules
            yield front


def enforce(front, text):
    front.rules.write_text(text)
    reload(front)


def uid_of(user):
    return pwd.getpwnam(user).pw_uid


# Groups and users are those of the connect


@pytest.mark.parametrize(
    ("rule", "before", "after", "opens"),
    [
        (f"unix group:{GROUP}", (uid_of(USER), GROUP_ID), (uid_of(USER),), True),
        (f"unix group:{GROUP}", (uid_of(USER),), (uid_of(USER), GROUP_ID), False),
        (f"unix group:{GROUP}", (uid_of(USER), 1, 2, 3), (uid_of(USER), GROUP_ID), False),
        (f"unix group:{GROUP}", (uid_of(USER), 1, 2, GROUP_ID, 3), (uid_of(USER),), True),
        (f"unix user:{USER}", (uid_of(USER),), (uid_of("bin"),), True),
        (f"unix user:{USER}", (uid_of("bin"),), (uid_of(USER),), False),
        (f"unix uid:{uid_of(USER)}", (uid_of("bin"),), (uid_of(USER),), False),
        ("unix user:root", (uid_of(USER),), (0,), False),
    ],
)
def test_who_connected_decides_and_not_what_it_became(rule, before, after, opens, place):
    enforce(place, f"{rule} * write\n")
    words = [",".join(map(str, each)) for each in (before, after)]
    command = [sys.executable, "-c", CHANGES, str(place.sock), *words]

    done = run_to_end(command, deadline_s=DEADLINE_S)

    assert done.succeeded() == f"{opens}\n"


# Names with blanks and other characters

NAMES = ["jane doe", "jane", "EXAMPLE\\jane", "jane@example.org", "jane*"]
FIRST_UID = 4200
NAMED = """
import ctypes, os, subprocess, sys
if ctypes.CDLL(None, use_errno=True).unshare(0x00020000) != 0:
    raise OSError(ctypes.get_errno(), "unshare")
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
for name in ("passwd", "group"):
    subprocess.run(["mount", "--bind", f"{directory}/{{name}}", f"/etc/{{name}}"], check=True)
os.execv(sys.executable, [sys.executable, "-m", "proxyd", *sys.argv[1:]])
"""


@pytest.fixture
def named(make_proxyd, tmp_path):
    """A proxyd to which this host has users and groups of these names."""
    for kind, line in (("passwd", "{}:x:{}:{}::/:/bin/sh\n"), ("group", "{}:x:{}:\n")):
        with (tmp_path / kind).open("w") as file:
            file.write(Path(f"/etc/{kind}").read_text())
            for number, name in enumerate(NAMES, FIRST_UID):
                file.write(line.format(name, number, number))
    rules = tmp_path / "rules"
    rules.write_text("all all * deny\n")
    front = make_proxyd(
        {"proxyd_rules_file": str(rules), "unix_sock_rw_perms": "0777"},
        mode=0o711,
        program=("-c", NAMED.format(directory=tmp_path)),
    )
    front.rules = rules
    return front


@pytest.mark.parametrize("kind", ["user", "group"])
def test_names_are_compared_as_a_whole_whatever_is_in_them(kind, named):
    patterns = {
        f"{kind}:jane": {"jane"},
        f'"{kind}:jane doe"': {"jane doe"},
        f'{kind}:"jane doe"': {"jane doe"},
        f"{kind}:EXAMPLE\\jane": {"EXAMPLE\\jane"},
        f"{kind}:jane@example.org": {"jane@example.org"},
        f"{kind}:jane@*": {"jane@example.org"},
        f"{kind}:JANE": set(),
        f"{kind}:jane*": set(NAMES) - {"EXAMPLE\\jane"},
    }
    for pattern, fit in patterns.items():
        enforce(named, f"unix {pattern} * write\n")
        found = {
            name
            for number, name in enumerate(NAMES, FIRST_UID)
            if run_to_end(
                ["virsh", "-q", "-c", unix_uri(NAME, named.sock), "list"],
                deadline_s=DEADLINE_S,
                user=number,
            ).status
            == 0
        }
        assert found == fit, pattern


# sshd


@pytest.fixture(scope="module")
def sshd(place):
    with short_directory(0o711) as directory:
        run_dir = directory / "run"
        run_dir.mkdir(mode=0o755)
        (run_dir / "libvirt-sock").symlink_to(place.sock)
        with Sshd(directory, run_dir) as made:
            yield made


def is_decided(process, log):
    """Whether it listens, or has ended, because of its port for instance."""
    return "Server listening" in log.read_text() or process.poll() is not None


@contextmanager
def sshd_of(user, sshd):
    """The user's own, beside root's and with the same accounts; gives its port."""
    with short_directory(0o755) as directory:
        new_key(directory / "host")
        os.chown(directory / "host", uid_of(user), -1)
        log = directory / "log"
        for _ in range(5):
            port = free_port()
            (directory / "conf").write_text(
                f"Port {port}\nListenAddress {ADDRESS}\nHostKey {directory}/host\n"
                f"AuthorizedKeysFile {sshd.directory}/authorized_keys\nPidFile none\n"
                "StrictModes no\nUsePAM no\n"
            )
            there = ["nsenter", f"--mount=/proc/{sshd.pid}/ns/mnt", *other_user(user)]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*there, "/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=clean_environment(),
                    start_new_session=True,
                )
            try:
                wait_until(partial(is_decided, process, log), DEADLINE_S, "sshd listens")
                if process.poll() is None:
                    yield port
                    return
            finally:
                end_process(process)
        raise ChildProcessError(log.read_text())


def by_ssh(sshd, port, user, command):
    """What a command says that this user runs behind a login."""
    options = [*("-o", "StrictHostKeyChecking=no"), *("-o", "UserKnownHostsFile=/dev/null")]
    words = [*options, "-i", str(sshd.key), "-p", str(port), f"{user}@{ADDRESS}", command]
    return run_to_end([str(sshd.ssh), *words], deadline_s=DEADLINE_S)


def test_an_sshd_that_a_user_runs_is_no_way_in_by_ssh(place, sshd):
    enforce(place, f"ssh user:{USER} * write\n")
    command = f"virsh -q -c '{unix_uri(NAME, place.sock)}' list"

    by_roots = by_ssh(sshd, sshd.port, USER, command)
    with sshd_of(USER, sshd) as port:
        by_own = by_ssh(sshd, port, USER, command)
    locally = Way(unix_uri(NAME, place.sock), wrapper=other_user(USER)).virsh("list")

    by_roots.succeeded()
    for refused in (by_own, locally):
        assert refused.status == 1
        assert DENIED in refused.stderr


def test_who_leaves_the_login_is_a_local_user_like_any_other(place, sshd):
    """So a rule for ssh that is missed has to end in a refusal."""
    uri = unix_uri(NAME, place.sock)
    with short_directory(0o777) as directory:
        script = directory / "leaves"
        script.write_text(
            f"until grep -q '^PPid:.1$' /proc/$$/status; do :; done\n"
            f"virsh -q -c '{uri}' list >{directory}/said 2>&1\n"
            f"echo $? >{directory}/status.new; mv {directory}/status.new {directory}/status\n"
        )

        def status():
            (directory / "status").unlink(missing_ok=True)
            left = f"setsid -f sh {script} </dev/null >/dev/null 2>&1"
            by_ssh(sshd, sshd.port, USER, left).succeeded()
            wait_until((directory / "status").exists, DEADLINE_S, "it has ended")
            return int((directory / "status").read_text())

        enforce(place, f"ssh user:{USER} * write\n")
        assert status() == 1
        assert DENIED in (directory / "said").read_text()
        enforce(place, f"ssh user:{USER} * deny\nunix user:{USER} * write\n")
        assert status() == 0
        assert "by rule 2 (write)" in log_line(place, f" opened: libvirt-sock, uid {uid_of(USER)} ")
