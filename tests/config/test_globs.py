from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.globs import matches

ALPHABET = "ab*?.[\\é\n"


def naive(pattern, text):
    """The definition, word for word; exponential, so for short inputs only."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[cut:]) for cut in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and naive(pattern[1:], text[1:])


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", ""),
        ("*", ""),
        ("*", "a/b,c\nd"),
        ("abc", "abc"),
        ("a*", "a"),
        ("a*c", "abbc"),
        ("a*c", "acbc"),
        ("*b*", "abc"),
        ("**", "x"),
        ("a?c", "abc"),
        ("?", "é"),
        ("?", "\n"),
        ("a?*", "ab"),
        ("*CN=joe", "C=GB,O=Red Hat,CN=joe"),
        ("*util*", "util.error"),
        ("[ab]", "[ab]"),
        ("a.c", "a.c"),
        ("\\?", "\\x"),
        ("*?b", "ab"),
    ],
)
def test_these_fit(pattern, text):
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "a"),
        ("a", ""),
        ("abc", "ABC"),
        ("abc", "abcd"),
        ("abc", "xabc"),
        ("abc", "abc\n"),
        ("?", ""),
        ("?", "ab"),
        ("a*b", "abc"),
        ("aa*aa", "aaa"),
        ("[ab]", "a"),
        ("{a,b}", "a"),
        ("\\*", "*"),
        ("a.c", "abc"),
    ],
)
def test_these_do_not(pattern, text):
    assert not matches(pattern, text)


@given(st.text(ALPHABET, max_size=7), st.text(ALPHABET, max_size=9))
def test_the_matcher_agrees_with_the_definition(pattern, text):
    assert matches(pattern, text) == naive(pattern, text)


@given(st.text(), st.text(), st.text())
def test_a_star_stands_for_anything(before, between, after):
    before, after = (part.replace("*", "").replace("?", "") for part in (before, after))
    assert matches(f"{before}*{after}", before + between + after)


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "*?" * 30 + "b", "*" * 500 + "b"])
def test_many_stars_do_not_make_a_text_expensive(pattern):
    start = perf_counter()
    assert not matches(pattern, "a" * 2000)
    assert perf_counter() - start < 1.0
