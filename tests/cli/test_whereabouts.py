"""Where the commands look for the daemon when things are not as usual."""

import socket
import threading
from dataclasses import replace

import pytest

from proxyd.cli import whereabouts
from proxyd.cli.main import main
from proxyd.daemon.places import places_of
from tests.admin.live import live_admin
from tests.bed.daemon import short_directory
from tests.fakes.documents import status_with

WELL = status_with(backends=[], certificates=[])
COMMANDS = [["status"], ["clients"], ["kick", "1"], ["reload"]]


@pytest.fixture
def directory():
    with short_directory() as made:
        yield made


@pytest.fixture
def system(directory, monkeypatch):
    """Where the system's daemon has its sockets, and its configuration, for root and others."""
    made = directory / "system"
    made.mkdir()
    places = replace(
        places_of({}, euid=0), runtime_dir=str(made), config_file=str(directory / "system.conf")
    )
    monkeypatch.setattr(whereabouts, "_SYSTEM", places)
    monkeypatch.setattr("proxyd.cli.main.places_of", lambda *_, **__: places)
    return made


@pytest.fixture
def user(directory, system, monkeypatch):
    """The same of a user who is not root."""
    made = directory / "user"
    made.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(made), "XDG_CONFIG_HOME": str(made), "HOME": str(made)}
    places = places_of(environ, euid=1000)
    monkeypatch.setattr("proxyd.cli.main.places_of", lambda *_, **__: places)
    (made / "libvirt").mkdir()
    return made / "libvirt"


@pytest.fixture
def live(directory):
    with live_admin(directory) as made:
        made.host.state = WELL
        made.host.listed = [{"id": 1}]
        yield made


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "text", ["max_clients = yes\n", "max_clients = \n[", 'listen_tls = "x\n', "\0"]
)
def test_a_configuration_that_is_broken_keeps_nobody_from_asking(
    system, directory, live, capsys, command, text
):
    (directory / "system.conf").write_text(text)
    (system / "virtproxyd-admin-sock").symlink_to(live.path)
    assert main(command) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{directory}/system.conf:1:" in line
    assert f"was found at {system}/virtproxyd-admin-sock all the same" in line


def test_what_a_broken_file_says_of_its_sockets_is_heeded(system, directory, live, capsys):
    other = directory / "other"
    other.mkdir()
    (directory / "system.conf").write_text(f'max_clients = yes\nunix_sock_dir = "{other}"\n')
    (other / "virtproxyd-admin-sock").symlink_to(live.path)
    assert main(["status"]) == 0
    assert f"was found at {other}/virtproxyd-admin-sock" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_name_that_the_proxy_before_us_had_serves_as_well(system, live, capsys, command):
    (system / "libvirt-admin-sock").symlink_to(live.path)
    assert main(command) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"there is no {system}/virtproxyd-admin-sock, so {system}/libvirt-admin-sock" in line


def test_another_daemons_socket_of_that_name_is_none_of_ours(system, directory, capsys):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(system / "libvirt-admin-sock"))
        listener.listen()
        listener.setblocking(True)

        def hang_up():
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert main(["status"]) == 3
        thread.join()
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "another daemon of libvirt's listens there" in said


def test_a_users_own_daemon_comes_first(user, system, live, capsys):
    (user / "virtproxyd-admin-sock").symlink_to(live.path)
    assert main(["status"]) == 0
    assert capsys.readouterr().err == ""


def test_a_user_without_one_is_told_of_the_systems_and_how_to_ask_it(user, system, capsys):
    with socket.socket(socket.AF_UNIX) as listener:
        path = system / "virtproxyd-admin-sock"
        listener.bind(str(path))  # nobody listens: as good as forbidden, but that root may all
        (user / "x").touch()
        forbidden = PermissionError(13, "Permission denied")
        with pytest.MonkeyPatch.context() as patch:
            connect = whereabouts.Connection.connect

            def refused(at):
                if at == str(path):
                    raise forbidden
                return connect(at)

            patch.setattr(whereabouts.Connection, "connect", refused)
            patch.setattr("sys.argv", ["proxyd", "clients", "--json"])
            assert main(["clients", "--json"]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"no proxyd of this user answers at {user}/virtproxyd-admin-sock" in said
    assert f"the system's is at {path}, which only root may ask: sudo " in said
    assert said.rstrip().endswith("clients --json")


def test_where_there_is_none_at_all_a_user_is_told_how_to_start_either(user, system, capsys):
    assert main(["status"]) == 2
    said = capsys.readouterr().err
    assert f"{user}/virtproxyd-admin-sock" in said
    assert f"{system}/virtproxyd-admin-sock" in said
    for command in (
        "sudo systemctl start virtproxyd.socket",
        "systemctl --user start virtproxyd.socket",
    ):
        assert command in said


@pytest.mark.parametrize("how", [["--passive"], ["--json"]])
def test_who_is_asleep_is_not_woken_by_machines(system, live, capsys, monkeypatch, how):
    (system / "virtproxyd-admin-sock").symlink_to(live.path)
    monkeypatch.setattr(whereabouts, "short_name", lambda _: "systemd")
    assert main(["status", *how]) == 3
    said = capsys.readouterr().out
    assert "proxyd was not asked" in said
    assert live.host.told == []
    assert main(["status"]) == 0  # a person wants to know


def test_one_who_is_asleep_has_no_clients(system, live, capsys, monkeypatch):
    (system / "virtproxyd-admin-sock").symlink_to(live.path)
    monkeypatch.setattr(whereabouts, "short_name", lambda _: "systemd")
    assert main(["clients", "--json"]) == 0
    assert capsys.readouterr() == ("[]\n", "")
    assert live.host.told == []
