"""Who came through sshd, and who only looks so."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from proxyd.peer import ssh
from proxyd.peer.ssh import came_by_ssh

SLEEPER = "import sys; print('here', flush=True); sys.stdin.read()"


@contextmanager
def child(*wrapper):
    """The process at the end of a row of them, which each start the next."""
    command = [*wrapper, sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        yield process.pid
        process.stdin.close()


def test_a_process_of_this_host_did_not():
    with child() as pid:
        assert not came_by_ssh(pid)


@pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1])
def test_nobody_did_not(pid):
    assert not came_by_ssh(pid)


def below(program, uid):
    """What is started below a shell that runs from `program`: exec keeps it there."""
    script = f'{sys.executable} -c "{SLEEPER}"; true'
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", program, "-c", script]


@pytest.mark.parametrize(
    ("name", "uid", "place", "came"),
    [
        ("sshd", 0, True, True),
        ("sshd-session", 0, True, True),
        ("sshd", 1000, True, False),  # anybody may run it, on a port of his own
        ("sshd", 0, False, False),  # a link to a program that becomes root
        ("bash", 0, True, False),
    ],
)
def test_an_ancestor_is_sshd_run_by_root_from_where_root_puts_programs(
    tmp_path, monkeypatch, name, uid, place, came
):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and str(parent) != "/":
            parent.chmod(parent.stat().st_mode | 0o055)
    program = tmp_path / name
    shutil.copy(os.path.realpath("/bin/bash"), program)
    if place:
        monkeypatch.setattr(ssh, "_PLACES", (f"{tmp_path}/",))
    with subprocess.Popen(
        below(str(program), uid), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline()
        [grandchild] = os.listdir(f"/proc/{process.pid}/task")  # it has one thread
        children = f"/proc/{process.pid}/task/{grandchild}/children"
        with open(children) as listed:
            pid = int(listed.read().split()[0])
        assert came_by_ssh(pid) is came
        process.stdin.close()


SESSION = "/user.slice/user-1000.slice/session-7.scope"


@pytest.mark.parametrize(
    ("group", "service", "came"),
    [
        (SESSION, "sshd", True),
        (SESSION, "login", False),
        ("/user.slice/user-1000.slice/session-8.scope", "sshd", False),  # there is no such one
        # What a user makes in his own part of the tree.
        (f"/user.slice/user-1000.slice/user@1000.service{SESSION}", "sshd", False),
        ("/user.slice/user-1000.slice/user@1000.service/session-7.scope", "sshd", False),
        (f"{SESSION}/below", "sshd", False),
        ("/", "sshd", False),
    ],
)
def test_a_process_whose_ancestors_have_ended_is_in_the_session_that_sshd_has_opened(
    tmp_path, monkeypatch, group, service, came
):
    (tmp_path / "7").write_text(f"UID=1000\nSERVICE={service}\nREMOTE=1\n")
    monkeypatch.setattr(ssh, "_SESSIONS", str(tmp_path))
    read = ssh._read
    monkeypatch.setattr(
        ssh, "_read", lambda path: f"0::{group}\n" if path.endswith("/cgroup") else read(path)
    )
    assert came_by_ssh(os.getpid()) is came
