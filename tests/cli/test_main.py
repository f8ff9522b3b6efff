import argparse
import json
import os
import re
import subprocess
import sys

import pytest

from proxyd import __version__
from proxyd.cli.commands import COMMANDS
from proxyd.cli.main import DAEMONS_OWN, main
from proxyd.config.settings import SPECS
from proxyd.daemon.places import places_of
from proxyd.deploy.build import Build
from tests.bed.command import clean_environment


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """Nothing of the caller's environment counts; relative paths start in an empty directory."""
    for name in list(os.environ):
        if name.startswith(("LIBVIRT_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def conf(tmp_path):
    made = tmp_path / "x.conf"
    made.write_text("")
    return made


def check(conf, *more):
    return main(["--check-config", "-f", str(conf), *more])


# The command line itself


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_option_and_exit_status(option, capsys):
    assert main([option]) == 0

    said = capsys.readouterr().out
    for name in ("--config", "--pid-file", "--daemon", "--timeout", "--verbose", "--check-config"):
        assert name in said
    assert "SIGHUP" in said
    assert "exit status: 0 ok; 1 command line" in said


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_printed(option, capsys):
    assert main([option]) == 0
    first, build, tls = capsys.readouterr().out.splitlines()
    assert first == f"proxyd {__version__} (in the role of libvirt's virtproxyd 11.3.0)"
    assert build == f"build: {Build.this().told()}"
    assert re.fullmatch(r"TLS: OpenSSL [3-9]\.\S+ .*, with cryptography \S+ and pyOpenSSL \S+", tls)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["something"], "something"),
        (["-l"], "-l"),
        (["--listen"], "--listen"),
        (["--nonsense"], "--nonsense"),
        (["-f"], "expected one argument"),
        (["--conf=x"], "--conf=x"),
        (["-t"], "expected one argument"),
        (["-t", "-1"], "-1"),
        (["-t", "soon"], "seconds from 0 (never) to 2147483 expected, not 'soon'"),
        (["-t", "1.5"], "expected, not '1.5'"),
        (["-t", " 1"], "expected, not ' 1'"),
        (["-t", "²"], "expected, not '²'"),
        (["-t", "2147484"], "expected, not '2147484'"),
        (["-t", "9" * 5000], "-t/--timeout"),
        (["-t", ""], "expected, not ''"),
    ],
)
def test_a_wrong_command_line_is_status_1_with_a_reason(arguments, says, capsys):
    assert main(arguments) == 1

    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert "(try --help)" in said.err
    assert said.err.startswith("usage: proxyd ")


def test_a_wrong_option_behind_a_check_is_no_check(conf, capsys):
    assert check(conf, "-l") == 1
    assert capsys.readouterr().out == ""


def test_help_does_not_wait_for_the_loop():
    script = (
        "import sys\n"
        "from proxyd.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "assert 'trio' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, env=clean_environment()
    )
    assert (done.returncode, done.stderr) == (0, b"")


# --check-config


def test_a_check_prints_every_setting_and_is_status_0(conf, capsys):
    conf.write_text("max_clients = 33\n")

    assert check(conf) == 0

    said = capsys.readouterr()
    assert said.err == ""
    assert f"# {conf}:1" in said.out
    for key in SPECS:
        assert key in said.out


def test_a_check_for_programs_is_json(conf, capsys):
    conf.write_text("max_clients = 33\nmax_client = 1\n")

    assert check(conf, "--json") == 0

    said = capsys.readouterr()
    told = json.loads(said.out)
    assert said.err == ""
    assert told["settings"]["max_clients"] == {
        "value": 33,
        "origin": f"{conf}:1",
        "takes_effect": "reload",
    }
    (doubt,) = told["doubts"]
    assert (doubt["line"], doubt["column"], doubt["key"]) == (2, 1, "max_client")


def test_an_unknown_key_is_a_warning_with_the_nearest_name(conf, capsys):
    conf.write_text("\nmax_client = 33\n")

    assert check(conf) == 0

    assert capsys.readouterr().err == (
        f'proxyd: warning: {conf}:2:1: unknown key "max_client" (did you mean "max_clients"?)\n'
    )


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_wrong_value_is_status_1_with_file_line_and_column(conf, capsys, more):
    conf.write_text("\n\nmax_clients = yes\n")

    assert check(conf, *more) == 1

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"proxyd: cannot load the configuration: {conf}:3:15: ")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("listen_tcp = 1", 'auth_tcp = "sasl": no SASL mechanism can serve clients by TCP; GSSAPI'),
        ('auth_unix_rw = "sasl"', 'auth_unix_rw = "sasl": no SASL mechanism can serve'),
        ('auth_unix_ro = "sasl"', 'auth_unix_ro = "sasl": no SASL mechanism can serve'),
        ("listen_tls = 1", "cannot listen for TLS clients: "),
    ],
)
def test_a_listener_without_the_files_that_it_needs_is_status_1(conf, tmp_path, capsys, text, says):
    missing = [f'{key}_file = "{tmp_path}/no-{key}"' for key in ("ca", "cert", "key")]
    missing += [f'proxyd_{key} = "{tmp_path}/no-{key}"' for key in ("keytab", "passwords")]
    conf.write_text("\n".join([text, *missing]))

    assert check(conf) == 1

    said = capsys.readouterr()
    assert says in said.err
    assert f"{tmp_path}/no-" in said.err
    assert "# As by default:" in said.out


def test_a_named_file_that_is_missing_is_status_1(tmp_path, capsys):
    assert check(tmp_path / "missing") == 1
    assert f"there is no file {tmp_path / 'missing'}" in capsys.readouterr().err


def test_a_relative_file_starts_from_here(conf, capsys):
    conf.write_text("max_clients = 33\n")
    assert check(conf.name) == 0
    assert f"# {conf}:1" in capsys.readouterr().out


def test_the_environment_and_the_option_are_named_as_origins(conf, capsys, monkeypatch):
    monkeypatch.setenv("LIBVIRT_LOG_OUTPUTS", "1:stderr")

    assert check(conf, "-v") == 0

    said = capsys.readouterr().out
    assert "# environment LIBVIRT_LOG_OUTPUTS" in said
    assert "# option -v" in said


def test_a_check_takes_nothing_and_starts_nothing(conf, tmp_path, capsys):
    conf.write_text(f'unix_sock_dir = "{tmp_path}"\nlog_outputs = "1:file:{tmp_path}/log"\n')

    assert check(conf, "-p", str(tmp_path / "pid"), "-d", "-t", "1") == 0

    assert os.listdir(tmp_path) == [conf.name]


@pytest.mark.parametrize(
    ("value", "encoding"),
    [(b"\xff", "utf-8:strict"), ("€".encode(), "latin-1:strict")],
)
def test_a_value_that_the_terminal_cannot_show_is_no_traceback(conf, value, encoding):
    directory = os.fsencode(conf.parent / "sockets-") + value
    os.mkdir(directory)
    conf.write_bytes(b'unix_sock_dir = "' + directory + b'"\n')

    done = subprocess.run(
        [sys.executable, "-m", "proxyd", "--check-config", "-f", str(conf)],
        check=False,
        capture_output=True,
        env=clean_environment({"PYTHONIOENCODING": encoding}),
    )

    assert b"Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("group", ["99999999999999999999", "+4294967296", "4294967295"])
def test_a_number_that_no_group_can_have_is_found_by_the_check(conf, group, capsys):
    conf.write_text(f'unix_sock_group = "{group}"')
    assert check(conf) == 1
    assert "unix_sock_group" in capsys.readouterr().err


# Starting


def test_an_error_of_the_start_is_its_status_and_one_line(conf, tmp_path, capfd):
    conf.write_text('unix_sock_group = "nosuchgroup"\nlog_outputs = "4:stderr"\n')

    assert main(["-f", str(conf), "-p", str(tmp_path / "pid")]) == 6

    said = capfd.readouterr().err
    assert said.startswith('proxyd: unix_sock_group = "nosuchgroup": there is no such group')
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "pid").exists()


def test_a_bad_configuration_starts_nothing(conf, tmp_path, capfd):
    conf.write_text("max_clients = 0x10")

    assert main(["-f", str(conf), "-p", str(tmp_path / "pid")]) == 1

    assert f"{conf}:1:16: " in capfd.readouterr().err
    assert os.listdir(tmp_path) == [conf.name]


def test_json_without_a_check_starts_no_daemon(conf, tmp_path, capfd):
    conf.write_text('unix_sock_group = "nosuchgroup"')  # so that no daemon can start in this test

    assert main(["--json", "-f", str(conf), "-p", str(tmp_path / "pid")]) == 1

    assert "--check-config" in capfd.readouterr().err


# Commands


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["-t", "5"], "--timeout"),
        (["-t", "0"], "--timeout"),
        (["-d"], "--daemon"),
        (["-v"], "--verbose"),
        (["-p", ""], "--pid-file"),
        (["--check-config"], "--check-config"),
        (["--json"], "--json"),
    ],
)
@pytest.mark.parametrize("command", [["status"], ["kick", "1"], ["passwd", "--list"]])
def test_an_option_of_the_daemon_before_a_command_is_one_clear_line(
    option, named, command, tmp_path, capsys
):
    misused = 3 if command == ["status"] else 1  # what a monitoring plugin has for it
    assert main(["-f", str(tmp_path / "none"), *option, *command]) == misused

    assert capsys.readouterr() == (
        "",
        f"proxyd: error: {named} before a command is for the daemon itself, {command[0]} takes its"
        f" options behind its name (try {command[0]} --help)\n",
    )


def test_no_command_has_an_option_that_would_hide_one_of_the_daemons():
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        command.load().add_arguments(parser, places_of({}, euid=0))
        assert not {action.dest for action in parser._actions} & {*DAEMONS_OWN.values()}


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_help_of_its_own(command, capsys):
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: proxyd {command} ")


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for command in COMMANDS:
        assert f"    {command.name} " in said


def test_a_command_does_not_wait_for_the_loop_either():
    script = (
        "import sys\n"
        "from proxyd.cli.main import main\n"
        "assert main(['status', '-s', '/nonexistent/sock']) == 2\n"
        "assert 'trio' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
