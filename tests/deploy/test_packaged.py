"""proxyd install and uninstall where the program is a Debian package's."""

import pytest

from proxyd.invocation import own_command
from tests.deploy.installing import UNITS, Commands, a_host, run_install, run_uninstall, snapshot

VERSION = "0.1.0+deb12"
CONF = "etc/libvirt/virtproxyd.conf"


@pytest.fixture
def packaged(tmp_path):
    return a_host(root=tmp_path, package=VERSION, booted=True, run=Commands())


def test_an_installation_is_done_already(packaged, capsys):
    assert run_install(host=packaged) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"note    the package proxyd {VERSION} has put all of it in place (dpkg -L proxyd)",
        f"then    {own_command()} doctor",
    ]
    assert snapshot(packaged.root) == {}
    assert packaged.run.run == []


def test_it_says_what_comes_next_on_this_host(tmp_path, capsys):
    host = a_host(
        root=tmp_path, package=VERSION, booted=True, next_lines=lambda: ["proxyd switch …"]
    )
    assert run_install(host=host) == 0
    assert f"then    {own_command()} switch …" in capsys.readouterr().out


def test_another_place_gets_its_files_as_ever(packaged, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    assert run_install("--destdir", str(elsewhere), host=packaged) == 0
    assert (elsewhere / UNITS / "virtproxyd.service").is_file()


def test_there_is_nothing_to_uninstall(packaged, capsys):
    assert run_uninstall(host=packaged) == 0
    assert "apt-get remove proxyd" in capsys.readouterr().out
    assert packaged.run.run == []


def test_what_was_installed_before_the_package_goes_but_for_what_both_have(packaged, capsys):
    before = a_host(root=packaged.root)
    assert run_install(host=before) == 0
    capsys.readouterr()
    assert run_uninstall(host=packaged) == 0
    left = snapshot(packaged.root)
    assert CONF in left
    assert {path.partition("/")[0] for path in left} == {"etc"}
    assert f"keep    /{CONF}: it is the package's as well" in capsys.readouterr().out
