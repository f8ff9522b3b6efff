"""proxyd status, clients and kick, from the command line to a live admin socket."""

import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager

import pytest

from proxyd import __version__
from proxyd.cli import admin_client
from proxyd.cli.main import main
from tests.admin.live import live_admin
from tests.bed.command import clean_environment
from tests.bed.daemon import short_directory
from tests.fakes.documents import NEGOTIATING, OPEN, STATUS, status_with

DEADLINE_S = 20
WELL = status_with(backends=[], certificates=[])


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """Nothing of the caller's environment counts."""
    for name in list(os.environ):
        if name.startswith(("LIBVIRT_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def directory():
    with short_directory() as made:
        yield made


@pytest.fixture
def live(directory):
    """A daemon that is well; its socket has a name of its own as well as the usual one."""
    with live_admin(directory) as made:
        made.host.state = WELL
        (directory / "virtproxyd-admin-sock").symlink_to(made.path)
        yield made


def ask(live, command, *arguments):
    return main([command, "--socket", str(live.path), *arguments])


# status


def test_the_status_of_a_daemon_that_is_well_is_status_0(live, capsys):
    assert ask(live, "status") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(
        f"proxyd {__version__}  serving for 1h02m, pid 4242\nconfiguration /etc/"
    )
    assert live.host.told == [("status", True)]


def test_a_daemon_that_is_not_what_is_installed_is_a_warning_with_the_command(live, capsys):
    remedy = "kill 4242; tail --pid=4242 -f /dev/null; cd / && " + "long/" * 60 + "proxyd"
    outdated = ["0.0.9 runs, 0.1.0 is installed", "libssl.so.3 was replaced"]
    well = {"backends": [], "certificates": []}
    live.host.state = well | {
        "program": {"outdated": outdated, "installed": "0.1.0", "remedy": remedy}
    }
    assert ask(live, "status", "--json") == 1
    said = json.loads(capsys.readouterr().out)["verdict"]["attention"]
    assert [each["level"] for each in said] == ["WARNING"]
    assert said[0]["text"] == (
        "what runs is not what is installed: 0.0.9 runs, 0.1.0 is installed; libssl.so.3 was"
        f" replaced. To mend that, which ends its sessions: {remedy}"
    )


def test_a_daemon_that_can_go_over_to_the_new_program_is_told_to_without_an_end(live, capsys):
    program = {"outdated": ["its files were removed"], "installed": "", "remedy": "proxyd upgrade"}
    live.host.state = {"backends": [], "certificates": [], "program": program}
    assert ask(live, "status", "--json") == 1
    said = json.loads(capsys.readouterr().out)["verdict"]["attention"][0]["text"]
    assert "its files were removed. To mend that: " in said
    assert said.endswith(f" upgrade --socket {live.path}")


@pytest.mark.parametrize("version", ["0.0.9", __version__])
def test_a_daemon_that_does_not_know_the_question_is_older(live, capsys, version):
    live.host.state = {"version": version, "program": None, "backends": [], "certificates": []}
    assert ask(live, "status", "--json") == 1
    said = json.loads(capsys.readouterr().out)["verdict"]["attention"][0]["text"]
    older = f"the daemon, proxyd {version}, is older than this command, {__version__}. To mend"
    assert older in said


def test_a_command_that_is_not_the_daemons_own_says_so(live, capsys):
    live.host.state = {"version": "9.1", "backends": [], "certificates": []}
    assert ask(live, "status", "--json") == 0
    assert f"the daemon is proxyd 9.1, this command is {__version__}" in capsys.readouterr().err


def test_a_daemon_that_is_drained_is_a_warning(live, capsys):
    drain = {"since": time.time() - 90, "left": 1, "negotiating": 0}
    live.host.state = {"state": "draining", "drain": drain, "backends": [], "certificates": []}
    assert ask(live, "status") == 1
    out = capsys.readouterr().out
    assert "draining for 1m30s, up for 1h02m, pid 4242" in out
    assert "! draining for 1m30s, nobody new is let in, 1 session left: `" in out
    assert f"drain --socket {live.path} --undo` lets in again" in out


def test_the_daemons_behind_are_not_asked_if_nobody_wants_it(live):
    assert ask(live, "status", "--no-probe") == 0
    assert live.host.told == [("status", False)]


SOON = {"certificates": [{**STATUS["certificates"][0], "days_left": 3.0}]}
TROUBLES = {"troubles": [{"way": "tls", "since": 1.0, "text": "no certificate"}]}
FAULTS = {"faults": [{"subject": "polkit", "text": "it is gone"}]}
GONE = {"backends": [{**STATUS["backends"][0], "present": False, "missing": True}]}
BROKEN = {"listeners": [{**STATUS["listeners"][0], "broken": "its file is gone"}]}


@pytest.mark.parametrize("how", [(), ("--json",), ("--passive",), ("--json", "--probe")])
@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({}, 0, ""),
        (SOON, 1, "ends in 3 days"),
        (TROUBLES, 1, "clients by tls are not served: no certificate"),
        ({"last_reload": {"at": 1.0, "succeeded": False, "text": "no"}}, 1, "no"),
        (FAULTS, 2, "polkit: it is gone"),
        (GONE, 2, "virtqemud was there and is gone"),
        (BROKEN, 2, "libvirt-sock-ro: its file is gone"),
        ({"backends": STATUS["backends"]}, 2, "no answer within 2 s"),
        ({**SOON, **FAULTS}, 2, "polkit"),
    ],
)
def test_its_codes_are_those_of_monitoring_plugins(live, capsys, how, changes, status, says):
    live.host.state = WELL | changes
    assert ask(live, "status", *how) == status
    said = capsys.readouterr().out
    assert says in said
    if "--json" in how:
        verdict = json.loads(said)["verdict"]
        assert verdict["status"] == status
        assert verdict["name"] == ("OK", "WARNING", "CRITICAL")[status]
        levels = {each["level"] for each in verdict["attention"]}
        assert (verdict["name"] in levels) is (status > 0)


def test_the_status_for_machines_is_what_the_daemon_tells_and_what_follows_from_it(live, capsys):
    assert ask(live, "status", "--json") == 0
    verdict = {"status": 0, "name": "OK", "attention": [], "not_asked": []}
    assert json.loads(capsys.readouterr().out) == WELL | {"verdict": verdict}


@pytest.mark.parametrize(
    ("how", "asked"),
    [
        ((), True),
        (("--json",), "busy"),
        (("--passive",), "busy"),
        (("--json", "--probe"), True),
        (("--json", "--no-probe"), False),
    ],
)
def test_machines_start_no_daemon_unless_they_want_to(live, capsys, how, asked):
    assert ask(live, "status", *how) == 0
    assert live.host.told == [("status", asked)]


def test_machines_are_told_who_was_not_asked(live, capsys):
    unasked = {"daemon": "virtqemud", "socket": "/x", "present": True, "sessions": 0}
    live.host.state = WELL | {"backends": [unasked]}
    assert ask(live, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["not_asked"] == ["virtqemud"]
    assert ask(live, "status", "--passive") == 0
    assert "not asked" in capsys.readouterr().out


# clients


def test_clients_are_a_table(live, capsys):
    live.host.listed = [OPEN, NEGOTIATING]
    assert ask(live, "clients") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert [line[:3] for line in said.out.splitlines()] == ["ID ", "17 ", "18 ", "2 c"]


@pytest.mark.parametrize(
    "listed", [[], [OPEN], [{**OPEN, "id": number} for number in range(1, 400)]]
)
def test_clients_for_machines_are_a_list(live, capsys, listed):
    live.host.listed = listed
    assert ask(live, "clients", "--json") == 0
    assert json.loads(capsys.readouterr().out) == listed


# kick


def test_a_client_is_kicked(live, capsys):
    live.host.listed = [OPEN]
    assert ask(live, "kick", "17") == 0
    assert capsys.readouterr().out == "client 17: its session is ended\n"
    assert live.host.listed == []


def test_of_several_those_that_are_there_are_kicked_and_each_once(live, capsys):
    live.host.listed = [OPEN, NEGOTIATING]
    assert ask(live, "kick", "17", "99", "18", "17") == 2
    said = capsys.readouterr()
    assert said.out == "client 17: its session is ended\nclient 18: its session is ended\n"
    assert said.err == "proxyd: Client not found: there is no client 99\n"


@pytest.mark.parametrize(("number", "status"), [("17", 0), ("18", 2)])
def test_a_kick_for_machines_tells_who_was_kicked(live, capsys, number, status):
    live.host.listed = [OPEN]
    assert ask(live, "kick", "--json", number) == status
    assert json.loads(capsys.readouterr().out) == {"kicked": [17] if status == 0 else []}


@pytest.mark.parametrize(
    "number", ["0", "-1", "x", "", "1.0", "²", str(2**64), "1" + "0" * 30, "9" * 5000]
)
def test_what_is_no_number_of_a_client_is_refused_by_the_command_line(live, capsys, number):
    assert ask(live, "kick", number) == 1
    assert "(try --help)" in capsys.readouterr().err
    assert live.host.told == []


def test_the_largest_number_may_be_asked_for(live, capsys):
    assert ask(live, "kick", str(2**64 - 1)) == 2
    said = capsys.readouterr().err
    assert said == "proxyd: Client not found: there is no client 18446744073709551615\n"


# Where the daemon is


def test_the_socket_may_be_named_by_its_directory(live, capsys):
    assert main(["status", "-s", str(live.path.parent)]) == 0
    assert "pid 4242" in capsys.readouterr().out


@pytest.mark.parametrize("before", [True, False])
def test_the_socket_may_be_named_by_the_configuration(live, tmp_path, capsys, before):
    (tmp_path / "conf").write_text(f'unix_sock_dir = "{live.path.parent}"\n')
    named, command = ["-f", str(tmp_path / "conf")], ["status"]
    assert main([*named, *command] if before else [*command, *named]) == 0
    assert "pid 4242" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "max_clients = yes"])
def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path, capsys, text):
    if text is not None:
        (tmp_path / "conf").write_text(text)
    assert main(["-f", str(tmp_path / "conf"), "clients"]) == 1
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert str(tmp_path / "conf") in said.err


def test_socket_and_configuration_are_not_both_named(live, capsys):
    assert ask(live, "status", "-f", "conf") == 3
    assert "not allowed with argument" in capsys.readouterr().err


# What goes wrong


@pytest.mark.parametrize("command", [["status"], ["clients"], ["clients", "--json"], ["kick", "1"]])
def test_without_a_daemon_there_is_one_line_that_says_what_to_do(directory, capsys, command):
    assert main([*command, "-s", f"{directory}/none"]) == (2 if command == ["status"] else 1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"proxyd: cannot reach the daemon at {directory}/none: No such file or directory; start it"
        " (systemctl start virtproxyd), or name its socket with --socket\n"
    )


@contextmanager
def listening(directory, serve):
    """Something else at a socket; `serve` gets its one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE_S)
        listener.bind(str(directory / "other"))
        listener.listen()

        def run():
            with listener.accept()[0] as sock:
                serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield str(directory / "other")
        finally:
            thread.join()


def garbage(sock):
    sock.recv(100)
    sock.sendall(b"\xff" * 40)


@pytest.mark.parametrize(
    ("serve", "says", "status"),
    [
        (lambda sock: None, "look at its log", 2),
        (garbage, "no libvirt daemon answers there: a frame length of 4294967295", 3),
        (lambda sock: sock.recv(100) and sock.recv(100), "it is silent for 0.2 s", 2),
    ],
)
@pytest.mark.parametrize("command", ["status", "clients"])
def test_whatever_listens_there_costs_one_line_and_no_traceback(
    directory, capsys, monkeypatch, command, serve, says, status
):
    monkeypatch.setattr(admin_client, "_PATIENCE_S", 0.2)
    with listening(directory, serve) as path:
        assert main([command, "-s", path]) == (status if command == "status" else 1)
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert said.err.startswith(f"proxyd: {path}: ")
    assert says in said.err


@pytest.mark.parametrize("command", ["status", "clients"])
def test_an_answer_that_is_no_document_costs_one_line(live, capsys, monkeypatch, command):
    found = {"status": {"version": 1}, "clients": [{"id": "x"}]}[command]
    monkeypatch.setattr(admin_client.Connection, command, lambda *_, **__: found)
    assert ask(live, command) == (3 if command == "status" else 1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("proxyd: the daemon's answer cannot be read: ")
    assert len(said.err.splitlines()) == 1


def test_what_a_newer_daemon_says_more_reaches_machines(live, capsys, monkeypatch):
    monkeypatch.setattr(admin_client.Connection, "status", lambda *_, **__: WELL | {"new": 1})
    assert ask(live, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["new"] == 1


def test_a_user_who_tires_of_waiting_gets_no_traceback(live, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(admin_client.Connection, "status", interrupted)
    assert ask(live, "status") == 3
    assert capsys.readouterr() == ("", "\n")


def run(live, *arguments, **how):
    command = [sys.executable, "-m", "proxyd", arguments[0], "-s", str(live.path), *arguments[1:]]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **how)


@pytest.mark.parametrize("how", [["--json"], []])
@pytest.mark.parametrize("count", [1, 2000])
def test_a_reader_that_has_gone_gets_no_traceback(live, how, count):
    live.host.listed = [{**OPEN, "id": number} for number in range(1, count + 1)]
    reading, writing = os.pipe()
    os.close(reading)
    with run(live, "clients", *how, stdout=writing) as process:
        os.close(writing)
        assert process.communicate(timeout=DEADLINE_S) == (None, b"")
    assert process.returncode == 1


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1:strict", "utf-8:strict"])
@pytest.mark.parametrize("how", [["--json"], []])
def test_a_name_that_the_terminal_cannot_show_is_no_traceback(live, encoding, how):
    live.host.listed = [{**OPEN, "who": "jö€\udcff"}]
    environment = clean_environment({"PYTHONIOENCODING": encoding, "COLUMNS": "240"})
    with run(live, "clients", *how, stdout=subprocess.PIPE, env=environment) as process:
        said, complained = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, complained) == (0, b"")
    assert b"\\udcff" in said


# --watch


@pytest.mark.parametrize("command", ["status", "clients"])
def test_nothing_is_watched_without_a_terminal(live, capsys, command):
    assert ask(live, command, "--watch") == (3 if command == "status" else 1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "proxyd: --watch needs a terminal; without one, use --json in a loop\n"


@pytest.mark.parametrize("pause", ["0", "0.09", "-1", "nan", "inf", "1e9", "x", ""])
def test_a_pause_that_is_none_is_refused(live, capsys, pause):
    assert ask(live, "status", f"--watch={pause}") == 3
    assert "seconds from 0.1 to 3600, not " in capsys.readouterr().err


def test_json_is_not_watched(live, capsys):
    assert ask(live, "clients", "--json", "--watch") == 1
    assert "not allowed with argument" in capsys.readouterr().err


class Terminal:
    """A pseudo-terminal with a process in it that it controls."""

    def __init__(self, live, *arguments):
        self.master, slave = pty.openpty()
        self.seen = b""
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\0\x78\0" + bytes(4))  # 24 lines of 120

        def prepare():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started us may ignore it
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        environment = clean_environment({"TERM": "xterm-256color"})
        environment.pop("COLUMNS", None)
        self.before = termios.tcgetattr(slave)
        self.process = run(
            live,
            *arguments,
            stdin=slave,
            stdout=slave,
            start_new_session=True,
            preexec_fn=prepare,
            env=environment,
        )
        self.slave = slave

    def until(self, text):
        """Reads on until this has appeared since the last time."""
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], DEADLINE_S)
            assert ready, f"{text!r} did not appear in {self.seen!r}"
            self.seen += os.read(self.master, 65536)
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, keys):
        os.write(self.master, keys)

    def ended(self):
        """Its status and what it complained about."""
        _, complained = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, complained

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    made = []

    def start(*arguments):
        made.append(Terminal(*arguments))
        return made[-1]

    yield start
    for each in made:
        each.close()


ENTERED, LEFT, CURSOR_SHOWN = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def test_what_is_watched_is_asked_again_and_again_until_ctrl_c(live, terminal):
    screen = terminal(live, "status", "--watch=0.1")
    screen.until(ENTERED)
    screen.until(b"pid 4242")
    live.host.state = {**WELL, "uptime_s": 86400.0}
    screen.until(b"1d00h")

    screen.type(b"\x03")

    screen.until(LEFT)
    assert screen.ended() == (0, b"")
    assert termios.tcgetattr(screen.slave) == screen.before
    # Asking daemons again and again would keep those from ending that nobody needs.
    first, *others = (asks for _, asks in live.host.told)
    assert (first, set(others)) == (True, {False})


def test_clients_are_watched_as_they_come_and_go(live, terminal):
    screen = terminal(live, "clients", "--watch=0.1")
    screen.until(b"nobody is connected")
    live.host.listed = [OPEN]
    screen.until(b"qemu:///system")
    live.host.listed = []
    screen.until(b"nobody is connected")
    screen.type(b"\x03")
    screen.until(LEFT)
    assert screen.ended() == (0, b"")


def test_the_top_is_shown_until_ctrl_c(live, terminal):
    screen = terminal(live, "top", "--every=0.1", "--sort=bytes", "-n", "5")
    screen.until(b"0 open")
    live.host.listed = [OPEN, NEGOTIATING]
    screen.until(b"1 open")
    screen.until(b"qemu:///system")
    screen.type(b"\x03")
    screen.until(LEFT)
    assert screen.ended() == (0, b"")


def test_what_is_watched_until_it_ends_leaves_the_terminal_as_it_was(directory, terminal):
    with live_admin(directory) as live:
        live.host.state = WELL
        screen = terminal(live, "status", "--watch=0.1")
        screen.until(b"pid 4242")
    screen.until(b"no answer for ")
    screen.type(b"\x03")
    screen.until(LEFT)
    status, complained = screen.ended()
    assert (status, len(complained.splitlines())) == (2, 1)
    assert str(live.path).encode() in complained


def test_a_watch_outlives_the_daemon_and_says_how_old_is_what_it_shows(directory, terminal):
    there = {**STATUS["backends"][0], "socket": "/run/libvirt/virtxend-sock"}
    with live_admin(directory) as live:
        live.host.state = WELL | {"backends": [there]}
        screen = terminal(live, "status", "--watch=0.1")
        screen.until(b"in 0.5 ms")
    screen.until(b"no answer for ")
    live.path.unlink()
    screen.until(b"cannot reach the daemon")
    with live_admin(directory) as again:
        again.host.state = WELL | {"pid": 5555}
        screen.until(b"pid 5555")
        screen.until(b"missing")  # a row that was there
        screen.type(b"\x03")
        screen.until(LEFT)
        assert screen.ended() == (2, b"")
        # It is another daemon, whose daemons have not been asked yet.
        assert ("status", True) in again.host.told


def test_a_watch_says_how_old_an_answer_is(live, terminal):
    answered = STATUS["backends"][0]
    silent = {key: answered[key] for key in ("daemon", "socket", "present", "sessions")}
    live.host.state = WELL | {"backends": [answered]}
    screen = terminal(live, "status", "--watch=0.1")
    screen.until(b"in 0.5 ms")
    live.host.state = WELL | {"backends": [silent]}
    screen.until(b" ago")
    screen.type(b"\x03")
    screen.until(LEFT)
    assert screen.ended() == (0, b"")


def test_the_end_of_a_watch_tells_whether_something_needs_attention(live, terminal):
    live.host.state = STATUS
    screen = terminal(live, "status", "--watch=0.1")
    screen.until(b"pid 4242")
    screen.type(b"\x03")
    screen.until(LEFT)
    assert screen.ended() == (2, b"")


def test_names_are_harmless_on_a_terminal_too(live, terminal):
    live.host.listed = [{**OPEN, "who": "\x1b]0;evil\x07"}]
    screen = terminal(live, "clients", "--watch=0.1")
    screen.until(b"\\x1b]0;")
    screen.type(b"\x03")
    shown = screen.until(LEFT)
    assert b"\x1b]0;" not in shown
    assert screen.ended() == (0, b"")
