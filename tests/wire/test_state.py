"""Plain data that is taken up: every field for its type and its bounds, and no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire.state import content, flag, items, part, perhaps, row, taken, whole, words

CHECKS = {
    "number": whole(10, -1),
    "flag": flag,
    "bytes": content(4, 1),
    "text": words(3),
    "items": items(whole(1), 2),
    "row": row(words(1), flag),
    "perhaps": perhaps(content(1)),
    "part": part,
}
SOUND = {
    "number": 10,
    "flag": True,
    "bytes": b"four",
    "text": "abc",
    "items": [0, 1],
    "row": ["x", False],
    "perhaps": None,
    "part": {"anything": [1]},
}


def test_what_is_sound_is_taken():
    assert taken(SOUND, CHECKS) == {**SOUND, "row": ("x", False)}
    assert taken({**SOUND, "perhaps": b"1"}, CHECKS)["perhaps"] == b"1"


UNSOUND = [
    ("number", 11, "is not between -1 and 10"),
    ("number", -2, "is not between"),
    ("number", 1.0, "is no whole number"),
    ("number", True, "is no whole number"),
    ("flag", 1, "is neither true nor false"),
    ("bytes", b"", "has 0 bytes"),
    ("bytes", b"fives", "has 5 bytes"),
    ("bytes", bytearray(2), "is no sequence of bytes"),
    ("text", "abcd", "has 4 characters"),
    ("text", b"abc", "is no text"),
    ("items", [0, 1, 0], "has 3 items"),
    ("items", [2], "is not between"),
    ("items", (0,), "is no list"),
    ("row", ["x"], "is no list of 2"),
    ("row", {"x": True, "y": True}, "is no list of 2"),
    ("perhaps", b"12", "has 2 bytes"),
    ("part", [], "is no table"),
]


@pytest.mark.parametrize(("name", "value", "said"), UNSOUND)
def test_what_is_not_is_an_error_that_names_the_field(name, value, said):
    with pytest.raises(ValueError, match=f"^{name}: {said}"):
        taken({**SOUND, name: value}, CHECKS)


def test_what_is_missing_or_unknown_is_named_as_well():
    with pytest.raises(ValueError, match=r"^'flag' is missing$"):
        taken({name: value for name, value in SOUND.items() if name != "flag"}, CHECKS)
    with pytest.raises(ValueError, match=r"^'x+' is unknown$") as raised:
        taken({**SOUND, "x" * 1000: 1}, CHECKS)
    assert len(str(raised.value)) < 100


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(anything)
def test_whatever_it_is_the_error_is_one_of_value(whatever):
    with pytest.raises(ValueError, match=r"is no table|is missing|is unknown"):
        taken(whatever, CHECKS)


@given(st.fixed_dictionaries(dict.fromkeys(CHECKS, anything)))
def test_so_it_is_where_all_fields_are_there(fields):
    try:
        taken(fields, CHECKS)
    except ValueError as error:
        assert str(error).partition(":")[0] in CHECKS  # noqa: PT017 (most are unsound)
