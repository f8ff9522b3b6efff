"""Log outputs, filters and levels, as the configuration, the environment and virt-admin give
them: they are understood and read back, or refused in plain words."""

from proxyd.config.logstrings import (
    LogStringError,
    format_filters,
    format_outputs,
    parse_filters,
    parse_level,
    parse_outputs,
)
from tests.fuzz.claims import claim_one_line

WORDS = (b"1:", b"4:", b"stderr", b"journald", b"syslog:", b"file:/", b" ", b":", b"+", b"debug")


def one_input(data):
    text = data.decode("utf-8", "surrogateescape")
    for parse in (parse_level, outputs, filters):
        try:
            parse(text)
        except LogStringError as error:
            claim_one_line(error)


def outputs(text):
    found = parse_outputs(text)
    assert parse_outputs(format_outputs(found)) == found
    assert len({(each.kind, each.target) for each in found}) == len(found)


def filters(text):
    found = parse_filters(text)
    again = parse_filters(format_filters(found))
    assert [each.priority for each in again] == [each.priority for each in found]
    assert all(b.pattern == f"*{a.pattern}*" for a, b in zip(found, again, strict=True))
