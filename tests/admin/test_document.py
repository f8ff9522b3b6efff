"""What status and clients are told, from values to JSON and back; docs/status.md has all of it."""

import re
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.admin.document import FORMAT, Answer, Client, Status, Unreadable, read, written
from tests.fakes.documents import NEGOTIATING, OPEN, STATUS, status_with

PAGE = Path(__file__).parents[2] / "docs" / "status.md"
ROW = re.compile(r"^\| `(?P<key>[\w.\[\]]+)` \| (?P<type>\w+) \| (?P<meaning>.*)\|$", re.MULTILINE)
NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def shape(kind, prefix="", begins=""):
    """Every key with its type's name, and what else may be in its place or its object's."""
    types = get_type_hints(kind)
    for each in fields(kind):
        wanted, name, may = types[each.name], f"{prefix}{each.name}", begins
        begins = ""  # what is true of an object is said at its first key
        if isinstance(wanted, UnionType):
            wanted = get_args(wanted)[0]
            may = "may be missing" if each.default is None else "may be null"
        if get_origin(wanted) is tuple:
            wanted, name = get_args(wanted)[0], f"{name}[]"
        if is_dataclass(wanted):
            yield from shape(wanted, prefix if "flat" in each.metadata else f"{name}.", may)
        else:
            yield name, NAMES[wanted], may


@pytest.mark.parametrize(("kind", "title"), [(Status, "## 1."), (Client, "## 2.")])
def test_the_page_has_every_key_with_its_type_and_what_may_be_in_its_place(kind, title):
    text = PAGE.read_text().partition(title)[2].partition("\n## ")[0]
    rows = [(row["key"], row["type"], row["meaning"]) for row in ROW.finditer(text)]
    assert [row[:2] for row in rows] == [each[:2] for each in shape(kind)]
    for (key, _, meaning), (_, _, may) in zip(rows, shape(kind), strict=True):
        assert ("may be" in meaning, may in meaning) == (bool(may), True), key


def test_the_page_says_which_format_it_is_of():
    assert f"`format` counts up when a key changes its meaning\n  or goes; it is {FORMAT}," in (
        PAGE.read_text()
    )


@pytest.mark.parametrize(
    ("kind", "found"), [(Status, STATUS), (Client, OPEN), (Client, NEGOTIATING)]
)
def test_what_was_written_is_read_and_what_was_read_is_written(kind, found):
    assert written(read(kind, found)) == found
    assert read(kind, written(read(kind, found))) == read(kind, found)


def test_what_is_not_known_is_passed_over():
    more = status_with(new=[1], limits={**STATUS["limits"], "new": {}})
    assert read(Status, more) == read(Status, STATUS)


def test_a_daemon_that_is_older_says_less():
    older = status_with()
    for key in ("waiting", "silent", "most_places", "over_rate", "over_logins"):
        del older["limits"][key]
    del older["format"], older["troubles"]
    status = read(Status, older)
    assert (status.format, status.limits.waiting, status.limits.most_places) == (0, 0, ())
    assert status.troubles == ()
    client = {key: value for key, value in OPEN.items() if key != "authentication"}
    assert read(Client, client).authentication == ""


def test_what_a_newer_daemon_means_by_its_keys_is_not_guessed():
    with pytest.raises(Unreadable, match=f"format {FORMAT + 1} is newer than what is known here"):
        read(Status, status_with(format=FORMAT + 1))


def test_a_daemon_that_was_not_asked_has_no_answer():
    asked_of = STATUS["backends"][1]
    unasked = {"daemon": "virtqemud", "socket": "/x", "present": True, "missing": False}
    unasked |= {key: asked_of[key] for key in ("sessions", "partings")}
    asked, silent, not_asked = read(
        Status, status_with(backends=[*STATUS["backends"], unasked])
    ).backends
    assert asked.answer == Answer(answers=True, answered_ms=0.51, trouble="")
    assert (silent.answer.answers, silent.answer.answered_ms) == (False, None)
    assert not_asked.answer is None
    assert written(not_asked) == unasked
    assert written(silent)["answered_ms"] is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pid": "1"}, "pid: a whole number was expected"),
        ({"pid": True}, "pid: a whole number was expected"),
        ({"pid": None}, "pid: a whole number was expected"),
        ({"uptime_s": float("nan")}, "uptime_s: a number was expected"),
        ({"state": ["serving"]}, "state: a string was expected"),
        ({"listeners": {}}, "listeners: a list was expected"),
        ({"listeners": [None]}, r"listeners\[0\]: an object was expected"),
        ({"relay": {}}, "relay.threads: it is not there"),
        ({"last_reload": {"at": 1}}, "last_reload.succeeded: it is not there"),
        (
            {"backends": [{**STATUS["backends"][0], "answered_ms": "1"}]},
            r"backends\[0\].answered_ms: a number was expected",
        ),
    ],
)
def test_what_is_no_such_document_says_where(changes, says):
    with pytest.raises(Unreadable, match=says):
        read(Status, status_with(**changes))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*STATUS, *OPEN]), inner),
)


@given(st.sampled_from([Status, Client]), JSON)
def test_any_value_is_a_document_or_unreadable(kind, found):
    with suppress(Unreadable):
        read(kind, found)


@given(st.sampled_from([*STATUS]), JSON)
def test_a_status_with_any_value_in_one_place_is_a_document_or_unreadable(key, found):
    with suppress(Unreadable):
        assert read(Status, {**STATUS, key: found}).version is not None
