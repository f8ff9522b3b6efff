"""What has failed is told to whoever asked, by the run itself alone."""

import os
from types import SimpleNamespace

import pytest

from tests import conftest


@pytest.mark.parametrize(
    ("is_worker", "told"), [(False, b"tests/one.py::test\n"), (True, b"")], ids=["run", "worker"]
)
def test_a_worker_tells_nobody_what_failed(monkeypatch, is_worker, told):
    """By the number of that descriptor it has its line to the run."""
    monkeypatch.setattr(conftest, "_failed", {"tests/one.py::test": True})
    ours, theirs = os.pipe()
    config = SimpleNamespace(getoption=lambda _: theirs, **{"workerinput": {}} if is_worker else {})

    conftest.pytest_sessionfinish(SimpleNamespace(config=config))

    os.close(theirs)
    assert os.read(ours, 100) == told
    os.close(ours)
