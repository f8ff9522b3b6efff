import os

import pytest


@pytest.fixture
def open_descriptors():
    return lambda: len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_leaks(open_descriptors):
    before = open_descriptors()
    yield
    assert open_descriptors() == before, "descriptors were leaked, or closed twice"
