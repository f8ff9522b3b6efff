"""What a run prints of tests that fail: enough, not more, and once."""

import sys

import pytest

from tests.bed.command import run_to_end
from tests.bed.place import CHECKOUT

FAILING = """
import pytest

def test_a_long_difference():
    lines = [f"line {n}\\n" for n in range(9000)]
    assert "".join(lines) == "".join(lines[1:])

def test_a_long_output():
    print("\\n".join(f"printed {n}" for n in range(9000)))
    raise AssertionError("the reason of it" + ", and so on" * 9000)

def test_bytes():
    assert bytes(100_000) == bytes(99_999) + b"1", "bytes differ"

@pytest.fixture(scope="module")
def broken():
    raise RuntimeError("the fixture's own trouble")

@pytest.mark.parametrize("number", range(50))
def test_what_wants_a_fixture(broken, number):
    pass
"""


@pytest.fixture(scope="module", params=["", "true"], ids=["at a terminal", "in CI"])
def said(request, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("failing")
    (tmp_path / "test_it.py").write_text(FAILING)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "tests.bed.telling", "-p", "no:cacheprovider", "-p", "no:locust"]
    environment = {"PYTHONPATH": str(CHECKOUT), "COLUMNS": "100"}
    if request.param:
        environment["CI"] = request.param
    command = [sys.executable, "-m", "pytest", "-ra", *plugins, str(tmp_path)]
    done = run_to_end(command, deadline_s=60, environment=environment)
    assert done.status == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return done.stdout


def test_it_is_short_and_says_what_happened(said):
    lines = said.splitlines()
    assert len(lines) < 600
    assert max(map(len, lines)) < 600
    assert "the reason of it" in said
    assert "printed 8999" in said
    assert "bytes differ" in said
    assert "line 0" in said


def test_a_fixture_that_fails_is_told_once(said):
    own = [line for line in said.splitlines() if "the fixture's own trouble" in line]
    # In the source, as the error, and where there is room in the line at the end.
    assert 2 <= len(own) <= 3, own
    assert "as test_it.py::test_what_wants_a_fixture[0]" in said
