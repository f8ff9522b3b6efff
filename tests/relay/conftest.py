import os
import tempfile
from contextlib import ExitStack

import pytest

from tests.relay.session import HandTurned, open_descriptors


@pytest.fixture(autouse=True)
def no_descriptor_leaks():
    before = open_descriptors()
    yield
    assert open_descriptors() == before, "descriptors were leaked, or closed twice"


@pytest.fixture
def start(no_descriptor_leaks):
    """Starts a session that is turned by hand; closes it at the end."""
    with ExitStack() as running:

        def starting(**kind):
            session = HandTurned(**kind)
            running.callback(session.close)
            return session

        yield starting


@pytest.fixture
def session(start):
    return start()


@pytest.fixture
def files(no_descriptor_leaks):
    """32 open files that can be told from each other by their inode."""
    with ExitStack() as opened:
        yield [opened.enter_context(tempfile.TemporaryFile()).fileno() for _ in range(32)]


@pytest.fixture
def inodes(files):
    return tuple(os.fstat(each).st_ino for each in files)
