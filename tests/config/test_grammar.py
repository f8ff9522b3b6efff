"""Every row of docs/protocol/configuration.md, section 2, as data."""

import pytest

from proxyd.config.grammar import (
    MAX_FILE_BYTES,
    MAX_INTEGER,
    MAX_NESTING,
    ConfigError,
    parse,
    render,
)

ASSIGNMENT = '"=" behind the key name'
CLOSED = '"]" at the end of the list'
NAME = "a key name"
SEPARATOR = 'the end of the line, ";" or a comment'
VALUE = "a value (a number, a string in quotes or a list)"


def plain(value):
    content = value.content
    return [plain(item) for item in content] if isinstance(content, tuple) else content


def pairs(text):
    return [(entry.key, plain(entry.value)) for entry in parse(text, "f")]


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# c", []),
        ("  # c", []),
        ("\n\n \t\n# c", []),
        ("# c\n\n  ", []),
        ("a=1", [("a", 1)]),
        ("\t a \t=\t 1 \t", [("a", 1)]),
        ("a=1 ; b=2", [("a", 1), ("b", 2)]),
        ("a=1;", [("a", 1)]),
        ("a=1;\n\n b=2", [("a", 1), ("b", 2)]),
        ("a=1\nb=2\n", [("a", 1), ("b", 2)]),
        ("a=1\rb=2", [("a", 1), ("b", 2)]),
        ("a=1\r\n\r\nb=2\r\n", [("a", 1), ("b", 2)]),
        ("a=1 # c\nb=2# d", [("a", 1), ("b", 2)]),
        ("a=1 # c\rb=2", [("a", 1), ("b", 2)]),
        ("a=1 # c ; b=2", [("a", 1)]),
        ("a=1\na=2", [("a", 1), ("a", 2)]),
        ("aB_9=1", [("aB_9", 1)]),
    ],
)
def test_statements_are_separated_as_in_libvirt(text, expected):
    assert pairs(text) == expected


@pytest.mark.parametrize(
    ("text", "expected", "signed"),
    [
        ("0", 0, False),
        ("+1", 1, False),
        ("-1", -1, True),
        ("-0", 0, True),
        ("007", 7, False),
        ("0" * 5000 + "7", 7, False),
        (str(MAX_INTEGER), MAX_INTEGER, False),
        (f"-{MAX_INTEGER}", -MAX_INTEGER, True),
    ],
)
def test_a_number_is_decimal_and_knows_whether_a_minus_was_written(text, expected, signed):
    (entry,) = parse(f"a={text}", "f")
    assert (entry.value.content, entry.value.signed) == (expected, signed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"x"', "x"),
        ("'x'", "x"),
        ('""', ""),
        ("''", ""),
        ("'a\"b'", 'a"b'),
        ('"a\'b"', "a'b"),
        (r'"a\n"', r"a\n"),
        (r'"a\\"', r"a\\"),
        ('"# ; ]"', "# ; ]"),
        ('"Zoë ✓"', "Zoë ✓"),
        ('"""x"""', "x"),
        ('"""a\n"b" \'c\'\r\n"""', "a\n\"b\" 'c'\r\n"),
        ('""""x"""', '"x'),
        ('""""""\n', ""),
    ],
)
def test_a_string_is_taken_as_it_stands_between_its_quotes(text, expected):
    assert pairs(f"a={text}") == [("a", expected)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        ("[ \n\r\t ]", []),
        ('["x"]', ["x"]),
        ('["x","y"]', ["x", "y"]),
        ('[ "x", "y", ]', ["x", "y"]),
        ('[\n"x"\n,\r\n"y"\n]', ["x", "y"]),
        ("[1, -2, 'x']", [1, -2, "x"]),
        ('[["x"], [], 1]', [["x"], [], 1]),
    ],
)
def test_a_list_may_span_lines_and_end_in_a_comma(text, expected):
    assert pairs(f"a={text}") == [("a", expected)]


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        (" ", (1, 2), NAME),
        ("\n\n", (3, 1), NAME),
        (" \r\n\t", (2, 2), NAME),
        ("a=1;;b=2", (1, 5), NAME),
        ("a=1\n;b=2", (2, 1), NAME),
        (";a=1", (1, 1), NAME),
        ("_a=1", (1, 1), NAME),
        ("1a=1", (1, 1), NAME),
        ("\ufeffa=1", (1, 1), NAME),
        ("é=1", (1, 1), NAME),
        ("\va=1", (1, 1), NAME),
        ("a=1 b=2", (1, 5), SEPARATOR),
        ('a="x" "y"', (1, 7), SEPARATOR),
        (r'a="a\"b"', (1, 7), SEPARATOR),
        ("a=0x10", (1, 4), SEPARATOR),
        ("a=1.5", (1, 4), SEPARATOR),
        ("a=1 2", (1, 5), SEPARATOR),
        ('a=""""""', (1, 5), SEPARATOR),  # six bytes to the end: no triple quote, two and two
        ('a="""x""""', (1, 10), SEPARATOR),
        ("a=yes", (1, 3), VALUE),
        ("a=", (1, 3), VALUE),
        ("a= # c", (1, 4), VALUE),
        ("a==1", (1, 3), VALUE),
        ("a=\n1", (1, 3), VALUE),
        ("a=[,]", (1, 4), VALUE),
        ('a=["x",,"y"]', (1, 8), VALUE),
        ('a=[\n# c\n"x"]', (2, 1), VALUE),
        ('a=["x", # c\n"y"]', (1, 9), VALUE),
        ("a=٣", (1, 3), VALUE),
        ("a 1", (1, 3), ASSIGNMENT),
        ("a-b=1", (1, 2), ASSIGNMENT),
        ("a.b=1", (1, 2), ASSIGNMENT),
        ("a\n=1", (1, 2), ASSIGNMENT),
        ("a", (1, 2), ASSIGNMENT),
        ('a="x', (1, 3), 'a closing " on the same line'),
        ("a='x\n'", (1, 3), "a closing ' on the same line"),
        ('a="x\r"', (1, 3), 'a closing " on the same line'),
        ('a="""x\n""', (1, 3), 'a closing """ for'),
        ("a=-", (1, 4), "digits behind the sign"),
        ("a=+ 1", (1, 4), "digits behind the sign"),
        ('a=["x"', (1, 7), CLOSED),
        ('a=["x",\n', (2, 1), CLOSED),
        ("a=[", (1, 4), CLOSED),
        ('a=["x" "y"]', (1, 8), '"," or "]"'),
        ('a=["x" # c\n]', (1, 8), '"," or "]"'),
        ("a=9223372036854775808", (1, 3), "a number of at most 9223372036854775807"),
        ("a=-9223372036854775808", (1, 3), "a number of at most 9223372036854775807"),
        ("a=" + "9" * 5000, (1, 3), "a number of at most 9223372036854775807"),
        ("a='x\0'", (1, 3), "a string without NUL"),
        ("a=" + "[" * 1000, (1, 3 + MAX_NESTING), "lists nested at most"),
    ],
)
def test_what_libvirt_refuses_is_refused_where_it_stands(text, place, expected):
    error = refusal(text)
    assert error.expected.startswith(expected)
    assert (error.line, error.column) == place


def test_a_message_names_file_place_expectation_and_what_was_found():
    with pytest.raises(ConfigError) as caught:
        parse("a = 1\nb-c = 2\n", "/etc/x.conf")
    assert str(caught.value) == '/etc/x.conf:2:2: expected "=" behind the key name, found "-"'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=", "the end of the file"),
        ("a=\n", "the end of the line"),
        ('a=1"', "'\"'"),
        ("a=\x01", "U+0001"),
    ],
)
def test_a_message_says_in_words_what_cannot_be_printed(text, found):
    assert refusal(text).expected.endswith(f", found {found}")


def test_a_message_without_a_place_names_only_its_source():
    error = ConfigError("environment NAME", 0, 0, "something else")
    assert str(error) == "environment NAME: expected something else"


def test_keys_and_values_and_list_items_know_their_places():
    first, second = parse('# c\r\n  a = 1\r  b = [ "x",\n "y" ]', "f")
    assert (first.line, first.column) == (2, 3)
    assert (first.value.line, first.value.column) == (2, 7)
    # A lone CR ends the statement, but libvirt's line numbers count LF only.
    assert (second.line, second.column) == (2, 11)
    assert [(item.line, item.column) for item in second.value.content] == [(2, 17), (3, 2)]


def test_lines_inside_a_string_count():
    assert [entry.line for entry in parse('a="""x\n\n"""\nb=1', "f")] == [1, 4]


def test_nesting_up_to_the_bound_parses():
    text = "a=" + "[" * MAX_NESTING + "]" * MAX_NESTING
    assert len(parse(text, "f")) == 1


def test_the_seven_bytes_behind_a_triple_quote_are_bytes_not_characters():
    # Six characters to the end, and seven bytes: the triple quote counts, and is not closed.
    assert refusal('a="""é""').expected.startswith('a closing """')
    assert refusal('a="""e""').expected.startswith(SEPARATOR)


def test_a_file_over_the_limit_is_refused_before_it_is_read():
    error = refusal("#" * (MAX_FILE_BYTES + 1))
    assert error.expected == "a file of at most 10485760 bytes"


def test_the_limit_counts_bytes():
    assert refusal("#" + "é" * (MAX_FILE_BYTES // 2)).expected.startswith("a file of at most")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (7, "7"),
        (-7, "-7"),
        ("x", '"x"'),
        ('a"b', "'a\"b'"),
        ("a\nb", '"""a\nb"""'),
        ("a\"b'c", '"""a"b\'c"""'),
        ((), "[]"),
        (("x", 1, ("y",)), '[ "x", 1, [ "y" ] ]'),
    ],
)
def test_a_value_is_written_in_the_plainest_quotes_that_hold_it(content, text):
    assert render(content) == text


@pytest.mark.parametrize("content", ["\0", "a'b\"", '\'\n"""x', ("fine", "a'b\"")])
def test_a_string_that_no_quotes_can_hold_is_not_written(content):
    with pytest.raises(ValueError, match="no quotes"):
        render(content)
