from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.globs import matches
from proxyd.rules.glob import Glob

PATTERNS = st.text("ab*?", max_size=7)
TEXTS = st.text("abc", max_size=8)


@given(PATTERNS, TEXTS)
def test_it_says_the_same_as_the_patterns_of_other_settings(pattern, text):
    assert Glob(pattern).matches(text) == matches(pattern, text)


@given(PATTERNS, PATTERNS, TEXTS)
def test_who_takes_another_fits_whatever_that_one_fits(wide, narrow, text):
    if Glob(wide).takes(Glob(narrow)) and Glob(narrow).matches(text):
        assert Glob(wide).matches(text)


@given(PATTERNS)
def test_a_witness_fits(pattern):
    assert Glob(pattern).matches(Glob(pattern).witness())


def test_what_takes_another():
    takes = [("*", "a*b?"), ("a*", "ab*"), ("a*", "abc"), ("*c", "b*bc"), ("a?", "a?"), ("a", "a")]
    for wide, narrow in takes:
        assert Glob(wide).takes(Glob(narrow)), (wide, narrow)
    for wide, narrow in [("ab*", "a*"), ("a", "*"), ("a?", "ab*"), ("*b*", "*b"), ("", "*")]:
        assert not Glob(wide).takes(Glob(narrow)), (wide, narrow)
