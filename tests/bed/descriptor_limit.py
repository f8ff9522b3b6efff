"""A proxyd that may have few descriptors."""

from contextlib import contextmanager

import pytest


@contextmanager
def limited_descriptors(hard):
    """What is started in this block has no more, whatever it asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.bed.proxyd.WRAPPER", ("prlimit", f"--nofile={hard}:{hard}"))
        yield
