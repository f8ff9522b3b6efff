import logging
import os

import pytest

from proxyd.peer.names import NameService
from tests.bed.daemon import short_directory
from tests.session.desk import Desk, KnownNames, open_descriptors
from tests.session.elsewhere import elsewhere
from tests.session.scripted_daemon import ScriptedDaemon


@pytest.fixture(scope="session")
def other_process():
    """The process that seems to be the daemon."""
    with elsewhere() as process:
        yield process


@pytest.fixture(autouse=True)
def no_descriptor_leaks(other_process):
    before = open_descriptors()
    yield
    assert open_descriptors() == before, "descriptors were leaked, or closed twice"


@pytest.fixture
def directory(no_descriptor_leaks):
    with short_directory() as made:
        yield made


@pytest.fixture
def null(no_descriptor_leaks):
    """A descriptor to pass around."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def log(caplog):
    """What was logged, from debug on."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


@pytest.fixture
def daemon_socket(directory, other_process):
    made = ScriptedDaemon(other_process.listen(directory / "sock"), directory / "sock")
    yield made
    made.close()


@pytest.fixture
async def daemon(daemon_socket, nursery):
    """A scripted daemon that serves."""
    nursery.start_soon(daemon_socket.serve)
    return daemon_socket


@pytest.fixture
async def desk(daemon, nursery):
    """Sessions with real names, a real relay and the system's own clock."""
    made = Desk(daemon, NameService(), nursery)
    nursery.start_soon(made.relay.run)
    nursery.start_soon(made.presence.run)
    yield made
    made.hang_up()


@pytest.fixture
async def slow_desk(mock_clock, daemon, nursery):
    """The same with a clock that stands until it is told to jump."""
    made = Desk(daemon, KnownNames(), nursery)
    nursery.start_soon(made.relay.run)
    nursery.start_soon(made.presence.run)
    yield made
    made.hang_up()
