import re
from pathlib import Path

from proxyd.config.example import example
from proxyd.config.kinds import When
from proxyd.config.settings import CHAPTERS, SPECS, keys
from proxyd.config.sources import load

FILE = Path(__file__).parents[2] / "units" / "virtproxyd.conf"
REFRESH = "make it anew: script/with python script/generate_settings.py"
DEFAULT = re.compile(r"^#(\w+ = )", re.MULTILINE)
EXAMPLE = re.compile(r"^# ?(\w+ = )", re.MULTILINE)


def test_the_file_in_the_repository_is_the_one_that_the_settings_give():
    assert FILE.read_text(encoding="utf-8") == example(), REFRESH


def test_as_it_stands_the_example_sets_nothing():
    loaded = load(example(), "f", privileged=True)
    assert loaded.settings == loaded.defaults
    assert set(loaded.origins.values()) == {"default"}


def test_uncommenting_every_default_changes_nothing():
    loaded = load(DEFAULT.sub(r"\1", example()), "f", privileged=True)
    assert loaded.settings == loaded.defaults
    assert loaded.doubts == ()
    assert {key for key, origin in loaded.origins.items() if origin == "default"} == {
        key for key, spec in SPECS.items() if spec.default is None
    } | {"tcp_min_ssf"}


def test_uncommenting_the_examples_too_gives_every_key_a_value_that_passes():
    loaded = load(EXAMPLE.sub(r"\1", example()), "f", privileged=True)
    assert "default" not in loaded.origins.values()
    assert [doubt.key for doubt in loaded.doubts] == [
        key for key in keys(When.NEVER) if SPECS[key].default is None
    ]


def test_lines_fit_a_terminal():
    assert max(len(line) for line in example().splitlines()) <= 80


def test_every_chapter_opens_with_a_key():
    assert set(CHAPTERS) <= set(SPECS)


def test_a_chapter_is_of_one_kind_of_keys_where_nothing_is_obeyed():
    ignored = list(SPECS)[list(SPECS).index("access_drivers") :]
    assert tuple(ignored) == keys(When.NEVER)


def test_what_takes_a_restart_and_what_has_no_effect_says_so():
    text = example().replace("\n# ", " ")
    assert text.count("Takes a restart") == len(keys(When.START))
    assert text.count("No effect here: ") == len(keys(When.NEVER))
