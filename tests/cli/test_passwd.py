"""proxyd passwd as a person and a script use it."""

import io
import os
import pty
import stat
import subprocess
import sys

import pytest

from proxyd.cli.main import main
from proxyd.sasl.passwords import PasswordFile

SECRET = "correct horse"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "passwords"


def run(file, monkeypatch, *arguments, stdin=""):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    return main(["passwd", "--file", str(file), *arguments])


def test_a_password_from_standard_input_is_set_and_nothing_else_may_read_it(
    file, monkeypatch, capsys
):
    assert run(file, monkeypatch, "--stdin", "joe", stdin=f"{SECRET}\nnot this\n") == 0
    said = capsys.readouterr()
    assert "joe has a password in" in said.out
    assert SECRET not in said.out + said.err + file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PasswordFile(str(file)).names() == ("joe",)


def test_users_are_listed_and_removed(file, monkeypatch, capsys):
    for name in ("joe", "ann"):
        run(file, monkeypatch, "--stdin", name, stdin=SECRET)
    capsys.readouterr()
    assert run(file, monkeypatch, "--list") == 0
    assert capsys.readouterr().out == "ann\njoe\n"
    assert run(file, monkeypatch, "--delete", "joe") == 0
    assert PasswordFile(str(file)).names() == ("ann",)


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (["--stdin", "joe"], "", "standard input has no password"),
        (["--stdin", "joe"], "\n", "standard input has no password"),
        (["--stdin", "joe"], "x" * 2000, "a password has 1 to"),
        (["--stdin", "a:b"], SECRET, "a colon or a special character"),
        (["--stdin", ""], SECRET, "a user's name has 1 to"),
        (["--delete", "joe"], "", "there is no such file"),
        (["--list"], "", "there is no such file"),
        (["joe"], SECRET, "there is nobody to ask for the password; use --stdin"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(
    file, monkeypatch, capsys, arguments, stdin, says
):
    assert run(file, monkeypatch, *arguments, stdin=stdin) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert not file.exists()


@pytest.mark.parametrize("arguments", [[], ["--list", "joe"], ["--list", "--delete"], ["--what"]])
def test_a_wrong_line_shows_the_usage(file, monkeypatch, capsys, arguments):
    assert run(file, monkeypatch, *arguments) == 1
    assert "usage: proxyd passwd" in capsys.readouterr().err


def test_the_configuration_says_where_the_file_is(file, tmp_path, monkeypatch, capsys):
    conf = tmp_path / "virtproxyd.conf"
    conf.write_text(f'proxyd_passwords = "{file}"')
    monkeypatch.setattr("sys.stdin", io.StringIO(SECRET))
    assert main(["passwd", "-f", str(conf), "--stdin", "joe"]) == 0
    assert PasswordFile(str(file)).names() == ("joe",)
    assert main(["passwd", "-f", str(tmp_path / "missing"), "--list"]) == 1
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "says", "status"),
    [
        ((SECRET, SECRET), "joe has a password", 0),
        ((SECRET, "incorrect"), "two different passwords; nothing was changed", 1),
    ],
)
def test_a_person_is_asked_twice_and_nothing_is_shown(file, typed, says, status):
    reading, writing = pty.openpty()
    command = [sys.executable, "-m", "proxyd", "passwd", "--file", str(file), "joe"]
    with subprocess.Popen(
        command, stdin=writing, stdout=writing, stderr=writing, start_new_session=True
    ) as asked:
        os.close(writing)
        shown = b""
        for prompt, answer in zip((b"Password for joe: ", b"Again: "), typed, strict=True):
            while not shown.endswith(prompt):
                shown += os.read(reading, 1000)
            os.write(reading, answer.encode() + b"\n")
        while True:
            try:
                shown += os.read(reading, 1000)
            except OSError:  # it has ended
                break
        assert asked.wait(10) == status
    os.close(reading)
    assert says in shown.decode()
    assert SECRET not in shown.decode()
    assert file.exists() is (status == 0)
