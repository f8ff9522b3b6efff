"""What --check-config finds: all that a start would, with its place, and nothing is made."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from proxyd.daemon.rehearsal import rehearse
from tests.bed.command import clean_environment
from tests.bed.daemon import conf_text, short_directory
from tests.daemon.parts import options


@pytest.fixture
def directory():
    with short_directory() as made:
        yield made


def checked(directory, text, **changes):
    """What is found, as lines; the file's own place is spelled F."""
    given = replace(options(directory), **changes)
    (directory / "conf").write_text(text)
    found = rehearse(given.source.examine(), given)
    return [str(each).replace(given.source.path, "F") for each in found]


def test_nothing_is_wrong_and_nothing_is_made(directory):
    given = {"unix_sock_dir": str(directory), "log_outputs": f"1:file:{directory}/log"}
    assert checked(directory, conf_text(given), pid_file=f"{directory}/pid") == []
    assert os.listdir(directory) == ["conf"]


def test_every_fault_is_told_with_its_place_those_of_the_file_first(directory):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = checked(
            directory,
            "max_clients = yes\n"
            f'unix_sock_dir = "{directory}/nowhere"\n'
            f'log_outputs = "1:file:{directory}/missing/log"\n'
            'unix_sock_group = "nosuchgroup"\n'
            "listen_tcp = 1\n"
            'listen_addr = "127.0.0.1"\n'
            f'tcp_port = "{port}"\n'
            f'proxyd_keytab = "{directory}/no-keytab"\n'
            "listen_tls = 1\n"
            f'key_file = "{directory}/key"\n'
            'cert_file = ""\n'
            f'ca_file = "{directory}/ca"\n'
            "admin_max_clients = -1\n",
        )
    told = [line.removeprefix("cannot load the configuration: ") for line in found]
    assert [line.split(": ")[0] for line in told] == [
        *("F:1:15", "F:13:21"),  # what stands in the file and stops a start
        "F:3:15",  # the log
        "F:4:19",  # the group
        "F:7:12",  # a port that is taken
        "F:11:13",  # a certificate that is needed now
        "F:5:14",  # SASL's keytab, by what asks for TCP clients
        "F:2:17",  # the sockets' directory
    ]
    serves = "(a daemon starts, and serves all other clients)"
    assert [line.endswith(serves) for line in told] == [False] * 4 + [True] * 3 + [False]


def test_with_a_strict_start_all_of_it_stops_one(directory):
    text = f'unix_sock_dir = "{directory}"\nlisten_tcp = 1\nlisten_addr = ""\n'
    (one, two) = checked(directory, text + "proxyd_strict_start = 1\n")
    assert one.startswith("F:3:15: expected listen_addr to be an address")
    assert two.startswith("F:2:14: auth_tcp = ")
    assert "serves all other" not in one + two


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"unix_sock_dir": "/nowhere"}, "F:1:17: cannot listen on /nowhere/libvirt-sock: there is"),
        ({"unix_sock_dir": "/" + "x" * 120}, "bytes and the kernel takes 107"),
        ({"log_outputs": "1:file:/nowhere/log"}, "F:2:15: cannot log: cannot open the log file"),
        ({"unix_sock_group": "nosuchgroup"}, "run: groupadd --system nosuchgroup"),
    ],
)
def test_what_is_not_there_is_found(directory, settings, says):
    given = {"unix_sock_dir": str(directory), **settings}
    (found,) = checked(directory, conf_text(given))
    assert says in found


def test_a_certificate_that_does_not_fit_is_told_at_the_key_that_names_it(directory):
    text = conf_text(
        {
            "unix_sock_dir": str(directory),
            "listen_tls": 1,
            "tls_port": "0",
            "ca_file": f"{directory}/ca",
            "cert_file": f"{directory}/cert",
            "key_file": f"{directory}/key",
        }
    )
    found = checked(directory, text)
    assert [line.split(": ")[0] for line in found] == ["F:4:11", "F:5:13", "F:6:12"]
    assert all("cannot listen for TLS clients" in line for line in found)


def test_somebody_elses_socket_is_found_and_nobody_is_connected_to(directory):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{directory}/libvirt-sock")
        other.listen()
        other.setblocking(False)
        (found,) = checked(directory, conf_text({"unix_sock_dir": str(directory)}))
        assert f"libvirt-sock is served by pid {os.getpid()}" in found
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_stale_socket_is_no_fault_and_stays(directory):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{directory}/libvirt-sock")
    assert checked(directory, conf_text({"unix_sock_dir": str(directory)})) == []
    assert (directory / "libvirt-sock").is_socket()


def test_a_file_in_the_way_is_found(directory):
    (directory / "libvirt-sock").write_text("mine")
    (found,) = checked(directory, conf_text({"unix_sock_dir": str(directory)}))
    assert "it is a regular file, which this daemon never removes" in found


@pytest.mark.parametrize("pid_file", ["missing/pid", "a-directory"])
def test_a_pid_file_that_cannot_be_made_is_found(directory, pid_file):
    (directory / "a-directory").mkdir()
    text = conf_text({"unix_sock_dir": str(directory)})
    (found,) = checked(directory, text, pid_file=f"{directory}/{pid_file}")
    assert "pid file" in found


def test_standard_output_that_is_a_socket_has_advice_that_fits(directory):
    ours, theirs = socket.socketpair()
    conf = directory / "conf"
    given = {"unix_sock_dir": str(directory), "log_outputs": "1:file:/dev/stdout"}
    conf.write_text(conf_text(given))
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-m", "proxyd", "-f", str(conf), "-p", ""],
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
            env=clean_environment(),
            timeout=60,
        )
    assert done.returncode == 1
    said = done.stderr.decode()
    assert "it is a socket or a pipe that nobody reads" in said
    assert '"LEVEL:stderr" or "LEVEL:journald"' in said
    assert "make its directory" not in said


def test_for_machines_faults_are_listed(directory):
    conf = directory / "conf"
    conf.write_text(conf_text({"unix_sock_dir": str(directory), "unix_sock_group": "nosuchgroup"}))
    done = subprocess.run(
        [sys.executable, "-m", "proxyd", "--check-config", "--json", "-f", str(conf), "-p", ""],
        capture_output=True,
        check=False,
        env=clean_environment(),
        timeout=60,
    )
    assert done.returncode == 1
    (fault,) = json.loads(done.stdout)["faults"]
    assert (fault["place"], fault["key"], fault["stops"]) == (
        f"{conf}:2:19",
        "unix_sock_group",
        True,
    )
