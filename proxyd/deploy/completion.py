"""Completion for bash, made from the command line's parser.

The script needs nothing but bash itself. It looks for the command among the words before the
cursor, and for an option that waits for its value; then one table has the words that fit.
"""

import argparse
import shlex
from collections.abc import Iterable
from typing import Final

from proxyd.deploy.commands import Command, Option, described

# What the name of a value says about it.
_KINDS: Final = {"FILE": "-f", "DIR": "-d"}

_SCRIPT: Final = """\
# Completion of @name@ for bash, made from its own command line.
_@name@() {
    local current=${COMP_WORDS[COMP_CWORD]} command= waiting= word i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == "=" ]]; then
            continue
        elif [[ $waiting ]]; then
            waiting=
            continue
        fi
        case "$command $word" in
@commands@
@waiting@
        esac
    done
    [[ $current == "=" ]] && current=
    case "$command $waiting" in
@values@
    esac
    [[ $waiting ]] && return
    case "$command|$current" in
@words@
    esac
}
complete -F _@name@ @name@
"""


def bash_completion(parser: argparse.ArgumentParser) -> str:
    """The script, to be found by bash-completion under the command's name."""
    whole = described(parser)
    parts = {
        "name": whole.words[0],
        "commands": _cases(_commands(whole)),
        "waiting": _cases(_waiting(whole)),
        "values": _cases(_values(whole)),
        "words": _cases(_words(whole), more="*"),
    }
    script = _SCRIPT
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    return "".join(f"{line}\n" for line in script.splitlines() if line.strip())


def _cases(cases: Iterable[tuple[list[str], str]], more: str = "") -> str:
    """Branches of a `case`; `more` is what may follow each pattern."""
    return "\n".join(
        f"        {' | '.join(shlex.quote(each) + more for each in patterns)}) {reply} ;;"
        for patterns, reply in cases
        if patterns and reply
    )


def _key(command: Command) -> str:
    """How the script names it: with a space before each word behind the program's name."""
    return "".join(f" {word}" for word in command.words[1:])


def _commands(whole: Command) -> list[tuple[list[str], str]]:
    below = [_key(each) for each in whole.all()[1:]]
    return [(below, 'command="$command $word"')]


def _waiting(whole: Command) -> list[tuple[list[str], str]]:
    flags = [
        f"{_key(command)} {flag}"
        for command in whole.all()
        for option in command.options
        if option.value
        for flag in option.flags
    ]
    return [(flags, "waiting=$word")]


def _values(whole: Command) -> list[tuple[list[str], str]]:
    return [
        ([f"{_key(command)} {flag}" for flag in option.flags], reply)
        for command in whole.all()
        for option in command.options
        if (reply := _reply(option))
    ]


def _reply(option: Option) -> str:
    if option.choices:
        return _among(option.choices)
    if option.value in _KINDS:
        found = f'mapfile -t COMPREPLY < <(compgen {_KINDS[option.value]} -- "$current")'
        return f"compopt -o filenames; {found}"
    return ""


def _words(whole: Command) -> list[tuple[list[str], str]]:
    return [case for command in whole.all() for case in _words_of(command)]


def _words_of(command: Command) -> list[tuple[list[str], str]]:
    flags = [flag for option in command.options for flag in option.flags]
    names = [each.words[-1] for each in command.commands]
    choices = [choice for each in command.arguments for choice in each.choices]
    files = [reply for each in command.arguments if (reply := _reply(each)) and not each.choices]
    return [
        ([f"{_key(command)}|-"], _among(flags)),
        ([f"{_key(command)}|"], _among([*names, *choices]) if names or choices else ""),
        ([f"{_key(command)}|"], "".join(files[:1])),
    ]


def _among(words: Iterable[str]) -> str:
    listed = shlex.quote(" ".join(words))
    return f'mapfile -t COMPREPLY < <(compgen -W {listed} -- "$current")'
