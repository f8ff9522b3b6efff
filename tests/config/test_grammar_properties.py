"""What holds for every text and every value."""

import string
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.grammar import MAX_INTEGER, ConfigError, parse, render

SIZE = 60_000
# A second on a busy machine; work that grows with the square of the size takes far longer.
GENEROUS_S = 5.0

# Mostly what means something in the syntax, so that texts get past the first character.
TEXTS = st.text(st.sampled_from("ab=1-+[],;#\"'\r\n \t\0é_\udcff")) | st.text()
STRINGS = st.text(st.sampled_from("ab\"' \n\r\t\\#];é")) | st.text()
CONTENTS = st.recursive(
    st.integers(-MAX_INTEGER, MAX_INTEGER) | STRINGS,
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]*", fullmatch=True)


def plain(value):
    content = value.content
    return tuple(plain(item) for item in content) if isinstance(content, tuple) else content


def outcome(text):
    try:
        return parse(text, "f")
    except ConfigError as error:
        return error


@given(TEXTS)
def test_any_text_gives_entries_or_a_config_error_with_a_place_in_the_text(text):
    lines = text.split("\n")
    match outcome(text):
        case ConfigError() as error:
            assert 1 <= error.line <= len(lines)
            assert 1 <= error.column <= len(lines[error.line - 1]) + 1
            assert str(error).startswith(f"f:{error.line}:{error.column}: expected ")
        case entries:
            for entry in entries:
                assert lines[entry.line - 1][entry.column - 1 :].startswith(entry.key)


@given(st.lists(st.tuples(NAMES, CONTENTS)))
def test_rendered_values_parse_back(pairs):
    writable = []
    lines = []
    for name, content in pairs:
        try:
            lines.append(f"{name} = {render(content)}\n")
        except ValueError:
            continue
        writable.append((name, content))
    parsed = parse("".join(lines), "f")
    assert [(entry.key, plain(entry.value)) for entry in parsed] == writable


@given(st.text(st.sampled_from("ab\"' \n\r\\")))
def test_every_string_that_parses_can_be_rendered(text):
    for quote in ('"', "'", '"""'):
        try:
            (entry,) = parse(f"a={quote}{text}{quote}\n", "f")
        except (ConfigError, ValueError):
            continue
        (again,) = parse(f"a={render(entry.value.content)}\n", "f")
        assert again.value.content == entry.value.content


@pytest.mark.parametrize(
    "text",
    [
        "[" * SIZE,
        "a=" + "[" * SIZE,
        "a=[" + "1," * SIZE,
        "a=" + "9" * SIZE,
        "a=" + "0" * SIZE,
        'a="' + "x" * SIZE,
        'a="""' + '""\n' * SIZE,
        'a="' * SIZE,
        "a=1\n" * SIZE,
        "#\n" * SIZE,
        "\n" * SIZE,
        "a" * SIZE,
        string.printable * (SIZE // 100),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_a_long_text_takes_time_in_proportion_to_its_length(text):
    start = process_time()
    with suppress(ConfigError):
        parse(text, "f")
    assert process_time() - start < GENEROUS_S
