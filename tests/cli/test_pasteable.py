"""What is told to be pasted leads to the daemon that the command was about."""

import pytest

from proxyd import invocation
from proxyd.invocation import name_the_daemon, pasteable


@pytest.fixture(autouse=True)
def by_name(monkeypatch):
    monkeypatch.setattr(invocation, "own_command", lambda: "PROXYD")
    monkeypatch.setattr(invocation, "_named", "")


@pytest.mark.parametrize(
    ("text", "pasted"),
    [
        ("run `proxyd drain --undo`", "run `PROXYD drain --undo`"),
        ("proxyd kick 12; proxyd certs renew", "PROXYD kick 12; PROXYD certs renew"),
        ("proxyd --check-config", "PROXYD --check-config"),
        ("the proxyd that runs, proxyd 0.1.0", "the proxyd that runs, proxyd 0.1.0"),
        ("/usr/sbin/proxyd status, x-proxyd status", "/usr/sbin/proxyd status, x-proxyd status"),
        ("proxyd statuses", "proxyd statuses"),
    ],
)
def test_commands_of_ours_are_spelled_out(text, pasted):
    assert pasteable(text) == pasted


@pytest.mark.parametrize(
    ("text", "pasted"),
    [
        ("`proxyd drain --undo`", "`PROXYD drain --socket '/run/a b/s' --undo`"),
        ("proxyd clients", "PROXYD clients --socket '/run/a b/s'"),
        ("proxyd certs renew", "PROXYD certs renew"),
        ("proxyd doctor", "PROXYD doctor"),
        ("proxyd status -s /run/x", "PROXYD status -s /run/x"),
    ],
)
def test_a_daemon_that_was_named_is_named_again(text, pasted):
    name_the_daemon("--socket", "/run/a b/s")
    assert pasteable(text) == pasted
