import logging

import pytest

from tests.session.desk import open_descriptors


@pytest.fixture
def no_descriptor_leaks():
    """For tests whose server is no other thread: nothing is left open when they end."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before, "descriptors were leaked, or closed twice"


@pytest.fixture
def log(caplog):
    """What was logged, from debug on."""
    with caplog.at_level(logging.DEBUG):
        yield caplog
