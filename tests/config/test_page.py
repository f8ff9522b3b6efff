"""docs/configuration.md is what the settings say."""

from pathlib import Path

from proxyd.config.kinds import When
from proxyd.config.page import page
from proxyd.config.settings import CHAPTERS, SPECS, keys

FILE = Path(__file__).parents[2] / "docs" / "configuration.md"
REFRESH = "make it anew: script/with python script/generate_settings.py"


def test_the_page_in_the_repository_is_the_one_that_the_settings_give():
    assert FILE.read_text(encoding="utf-8") == page(), REFRESH


def test_every_key_has_a_heading_below_its_chapter():
    headings = [line for line in page().splitlines() if line.startswith(("## ", "### "))]
    expected = []
    for key in SPECS:
        if key in CHAPTERS:
            expected.append(f"## {CHAPTERS[key]}")
        expected.append(f"### `{key}`")
    assert headings == expected


def test_what_takes_a_restart_and_what_has_no_effect_says_so():
    text = page().replace("\n", " ")
    assert text.count("Takes a restart") == len(keys(When.START))
    assert text.count("No effect here: ") == len(keys(When.NEVER))
