import os

import pytest

from proxyd.endpoint.couriers import COURIERS


@pytest.fixture
def open_descriptors():
    def count():
        assert COURIERS.dismiss(10)
        return len(os.listdir("/proc/self/fd"))

    return count


@pytest.fixture(autouse=True)
def no_descriptor_leaks(open_descriptors):
    before = open_descriptors()
    yield
    assert open_descriptors() == before, "descriptors were leaked, or closed twice"
