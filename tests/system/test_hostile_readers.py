"""Clients that do not read what they asked for take nothing that others need."""

import sys

import pytest

from tests.bed.command import held_open
from tests.bed.daemon import accepts, short_directory
from tests.bed.descriptor_limit import limited_descriptors
from tests.bed.proxyd_log import log_line
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

FEW = 128

# As many as are let in open a stream each and take nothing of it; then all begin anew.
DEAF = """
from hostile_kit import *
directory, name, count = sys.argv[1:]
VOL_DOWNLOAD = 209
get_ready()
socks = []
while True:
    try:
        while len(socks) < int(count):
            sock = open_session(f"{directory}/{name}", "lxc:///system")
            sock.sendall(frame(VOL_DOWNLOAD, serial=2))
            socks.append(sock)
        select.select([], [], [], 0.3)
    except OSError:
        select.select([], [], [], 0.3)
    if len(socks) == int(count):
        for sock in socks[::2]:
            sock.close()
        del socks[::2]
"""


@pytest.fixture
def flood():
    """A daemon that sends a volume without end; the path of its socket."""
    with short_directory() as directory:
        path = directory / "flood"
        with held_open([sys.executable, "-m", "tests.fakes.flood_daemon", str(path)]):
            wait_until(lambda: path.exists() and accepts(path), 10, "the daemon listens")
            yield path


@pytest.mark.parametrize(
    "name", ["libvirt-sock-ro", pytest.param("libvirt-sock", marks=pytest.mark.long)]
)
def test_clients_that_do_not_read_leave_descriptors_to_others(make_scene, endures, flood, name):
    with limited_descriptors(FEW):
        made = make_scene(hostile_daemon=flood)
    told = log_line(made.front, "descriptors for ")
    room = int(told.partition("descriptors for ")[2].split()[0])
    # The bystander, a new client and one that is only just leaving have places, too.
    felt = endures(made, DEAF, name, str(room - 6))
    assert felt.most_descriptors <= FEW
    assert "Too many open files" not in made.front.log_text()
