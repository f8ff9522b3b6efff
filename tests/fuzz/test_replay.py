"""Every kept input again, and so many mutations of them that are the same in each run.

It takes seconds. What guides mutations by coverage is `python -m tests.fuzz`.
"""

import importlib

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.kept import CORPUS, TARGETS, kept, name_of
from tests.fuzz.mutations import mutations

MUTATIONS = 500
MOST_KEPT_BYTES = 300_000


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_kept_and_what_is_near_to_it_raises_nothing_undocumented(target):
    module = importlib.import_module(f"tests.fuzz.{target}")
    corpus = kept(target)
    assert corpus
    for data in (b"", *corpus, *mutations(corpus, module.WORDS, MUTATIONS, seed=target)):
        try:
            module.one_input(data)
        except BaseException as finding:
            finding.add_note(f"the input is {data!r}")
            raise


def test_the_same_seed_gives_the_same_mutations():
    corpus = [b"one input", b"another"]
    first = list(mutations(corpus, (b"word",), 50, seed="a"))
    assert list(mutations(corpus, (b"word",), 50, seed="a")) == first
    assert list(mutations(corpus, (b"word",), 50, seed="b")) != first
    assert len(set(first)) > 25


def test_every_kept_input_is_kept_once_and_all_of_them_are_small():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert all(path.name == name_of(path.read_bytes()) for path in files)
    assert sum(path.stat().st_size for path in files) < MOST_KEPT_BYTES


def test_without_atheris_it_says_what_is_missing_and_what_runs_without(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _: None)
    assert command.main(["routes", "--time", "1"]) == 2
    assert "atheris is not installed" in capsys.readouterr().err


def test_the_shares_of_all_add_up_to_what_was_asked_for():
    runs = [command.runs_of(target, 10_000_000) for target in TARGETS]
    assert sum(runs) >= 10_000_000
    assert min(runs) > 100_000
