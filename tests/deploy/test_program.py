import os
import sys
from pathlib import Path

import pytest

from proxyd.deploy.program import (
    Program,
    UnfitProgram,
    command_line,
    named_program,
    this_program,
)


@pytest.fixture
def checkout(monkeypatch):
    """As if this checkout were nowhere special, wherever it is."""
    monkeypatch.setattr("proxyd.deploy.program._HIDDEN", ())


@pytest.mark.usefixtures("checkout")
def test_the_program_that_runs_here_runs_as_a_service_too():
    program = this_program()
    assert program.words == (sys.executable, "-I", "-m", "proxyd")
    assert command_line(program).endswith(" -I -m proxyd")


@pytest.mark.usefixtures("checkout")
def test_an_interpreter_without_proxyd_is_refused_with_what_it_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", os.path.realpath(sys.executable))
    with pytest.raises(UnfitProgram, match=r"No module named .*: install proxyd|install proxyd"):
        this_program()


@pytest.mark.usefixtures("checkout")
def test_an_interpreter_that_is_gone_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UnfitProgram, match="does not run"):
        this_program()


def test_an_interpreter_that_the_service_could_not_see_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/tmp/venv")
    with pytest.raises(UnfitProgram, match="temporary"):
        this_program()


@pytest.mark.parametrize("path", ["/root/venv/bin/python", "/home/joe/proxyd", "/run/user/7/x"])
def test_a_home_directory_is_known_as_one(path):
    assert Program(("p",), ("/opt/a", path)).in_a_home == path


@pytest.mark.parametrize("path", ["/opt/venv/bin/python", "/homely/proxyd", "/roots"])
def test_another_is_not(path):
    assert Program(("p",), (path,)).in_a_home is None


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/opt/venv-3.11/bin/python", "/opt/venv-3.11/bin/python"),
        ("/opt/my venv/p", '"/opt/my venv/p"'),
        ("/opt/100%/p", '"/opt/100%%/p"'),
        ("/opt/plàce/p", '"/opt/plàce/p"'),
    ],
)
def test_a_path_is_spelled_as_systemd_reads_it(path, line):
    assert command_line(named_program(path)) == line


@pytest.mark.parametrize("path", ["/a$b", "/a\nb", '/a"b', "/a'b", "/a\\b", "/a\udcffb"])
def test_a_path_that_systemd_cannot_be_given_is_refused(path):
    with pytest.raises(UnfitProgram, match="systemd cannot be given"):
        named_program(path)


def test_who_else_can_change_what_root_runs_is_told(tmp_path):
    program = tmp_path / "bin" / "proxyd"
    program.parent.mkdir(mode=0o755)
    program.touch(mode=0o755)
    for mode, found in ((0o775, f"{program.parent} has mode 0775"), (0o757, "has mode 0757")):
        program.parent.chmod(mode)
        assert found in str(Program((), (str(program),)).changeable())


def test_a_directory_where_all_may_write_their_own_files_lets_nobody_change_others():
    assert Path("/tmp").stat().st_mode & 0o1777 == 0o1777
    assert Program((), ("/tmp",)).changeable() is None


def test_another_owner_than_root_is_told(tmp_path):
    program = tmp_path / "proxyd"
    program.touch()
    os.chown(program, 65534, -1)
    assert Program((), (str(program),)).changeable() == f"{program} belongs to uid 65534"
