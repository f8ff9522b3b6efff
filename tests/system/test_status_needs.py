"""`proxyd status` of a real daemon whose surroundings have gone since its start."""

import json
import sys

import pytest

from tests.bed.command import run_to_end
from tests.bed.sasl import SERVICE

pytestmark = pytest.mark.system


def asked(front, *how):
    command = [sys.executable, "-m", "proxyd", "status", *how, "-s", str(front.directory)]
    said = run_to_end(command, deadline_s=30)
    return said.status, said


def test_a_keytab_that_has_gone_is_an_alarm_until_it_is_back(make_proxyd, kdc):
    keytab = kdc.keytab(SERVICE)
    front = make_proxyd(
        {
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "proxyd_keytab": str(keytab),
        },
        environment=kdc.environment,
    )
    assert asked(front)[0] == 0
    kept = keytab.read_bytes()
    keytab.unlink()
    for how in ((), ("--json",), ("--passive",)):
        status, said = asked(front, *how)
        assert (status, str(keytab) in said.stdout) == (2, True), said
    keytab.write_bytes(kept)
    assert asked(front)[0] == 0


def test_a_listener_whose_file_somebody_has_removed_is_an_alarm(make_proxyd):
    front = make_proxyd()
    front.sock.unlink()
    status, said = asked(front)
    assert (status, "libvirt-sock: its file is gone" in said.stdout) == (2, True), said


def test_a_directory_of_daemons_that_was_removed_is_an_alarm(make_proxyd, tmp_path):
    behind = tmp_path / "behind"
    behind.mkdir()
    front = make_proxyd({"proxyd_routes": []}, backend_dir=behind)
    status, said = asked(front, "--json")
    assert status == 2
    assert json.loads(said.stdout)["faults"][0]["subject"] == "daemons"
    behind.rmdir()
    status, said = asked(front, "--json")
    assert json.loads(said.stdout)["faults"][0]["subject"] == "proxyd_backend_dir"
