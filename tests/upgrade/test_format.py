"""What one process tells another: everything comes over as it was, and nothing else is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.upgrade import format as messages
from proxyd.upgrade.format import Unreadable, packed, unpacked

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
DOCUMENTS = st.dictionaries(
    st.text(),
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "bytes"), inner)
        ),
        max_leaves=20,
    ),
)


@given(DOCUMENTS)
def test_a_document_comes_over_as_it_was(document):
    assert unpacked(*packed(document)) == document


def test_bytes_stand_beside_the_text():
    text, beside = packed({"up": {"unsent": b"hello"}, "head": bytearray(b"you")})
    assert text == b'{"up":{"unsent":{"bytes":[0,5]}},"head":{"bytes":[5,3]}}'
    assert beside == b"helloyou"


@given(st.binary(), st.binary())
def test_what_nobody_packed_is_unreadable_and_nothing_else(text, beside):
    try:
        found = unpacked(text, beside)
    except Unreadable:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":{"bytes":[0,4]}}',
        b'{"a":{"bytes":[-1,1]}}',
        b'{"a":{"bytes":[1,-1]}}',
        b'{"a":{"bytes":[4,0,0]}}',
        b'{"a":{"bytes":"all"}}',
        b'{"a":{"bytes":[0.0,1]}}',
    ],
)
def test_a_message_that_cannot_be_is_unreadable(text):
    with pytest.raises(Unreadable):
        unpacked(text, b"abc")


def test_what_is_too_long_is_not_sent(monkeypatch):
    monkeypatch.setattr(messages, "LONGEST_BYTES", 10)
    assert packed({"a": bytes(10)})
    with pytest.raises(Unreadable, match="11 bytes"):
        packed({"a": bytes(11)})
