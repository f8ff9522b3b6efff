"""What is declared of when a setting takes effect is true of the code that reads it."""

import ast
from pathlib import Path

import pytest

from proxyd.config.kinds import When
from proxyd.config.settings import SPECS, keys
from proxyd.config.transports import Transport

PACKAGE = Path(__file__).parents[2] / "proxyd"
# What looks at settings without obeying them: rules between keys, and what tells people of them.
LOOK_ONLY = ("config/agreement.py", "doctor/", "cli/")


def read_attributes(text):
    """The attributes that are read of anything called settings."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(
                value=ast.Name(id="settings") | ast.Attribute(attr="settings"),
                attr=key,
                ctx=ast.Load(),
            ):
                yield key
            case ast.Call(
                func=ast.Name(id="getattr"),
                args=[
                    ast.Name(id="settings") | ast.Attribute(attr="settings"),
                    ast.Attribute(attr=column) | ast.Subscript(value=ast.Attribute(attr=column)),
                    *_,
                ],
            ):
                yield from in_table(column)


def in_table(column):
    """The settings that the table of transports names in one column."""
    for transport in Transport:
        named = getattr(transport.traits, column, ())
        yield from (named,) if isinstance(named, str) else named


def obeyed():
    """Every setting that code reads in order to do what it says."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if not str(path.relative_to(PACKAGE)).startswith(LOOK_ONLY):
            found.update(read_attributes(path.read_text()))
    return found & set(SPECS)


def test_every_setting_is_read_or_says_why_not():
    known = obeyed()  # every file is parsed for it
    unread = [key for key in SPECS if key not in known]
    assert unread == list(keys(When.NEVER)), "declare effect=never(why), or read it"


@pytest.mark.parametrize("key", SPECS)
def test_what_never_takes_effect_says_why_and_nothing_else_does(key):
    effect = SPECS[key].effect
    assert bool(effect.why_not) == (effect.when is When.NEVER)
    assert not effect.in_own_sockets or effect.when is When.START
    assert not effect.why_not.endswith(".")


def test_a_reader_is_seen_and_others_things_of_the_same_name_are_not():
    text = "settings.a; x.settings.b; pool.c; settings.d = 1; self._in_force.settings.e.f"
    assert list(read_attributes(text)) == ["a", "b", "e"]


def test_a_reader_that_goes_by_the_table_of_transports_is_seen():
    text = "getattr(settings, x.listen); getattr(settings, x.auth[0]); getattr(settings, key)"
    assert set(read_attributes(text)) == {
        *("", "listen_tcp", "listen_tls"),
        *("auth_unix_rw", "auth_unix_ro", "auth_tcp", "auth_tls"),
    }
