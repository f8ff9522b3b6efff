"""The commented example file, made from the settings' own declarations.

`#key = value` is a default: taking the # away changes nothing. `# key = value`, with a space, is
an example for a key whose default is to be absent.
"""

from collections.abc import Iterator
from typing import Final

from proxyd.config.grammar import render
from proxyd.config.kinds import Effect, When
from proxyd.config.settings import CHAPTERS, SPECS

_WIDTH: Final = 80

_HEAD: Final = (
    "Configuration of proxyd, which takes the place of libvirt's virtproxyd. The syntax and the"
    " keys are libvirt's own, so a file written for virtproxyd works as it is. Keys that begin"
    " with proxyd_ are known to proxyd only; libvirt passes over them.",
    'Lines of "#key = value" show the defaults of a daemon that runs as root. Lines of "# key ='
    ' value" are examples for keys that are absent by default.',
    "proxyd --check-config tells what a changed file means, without starting anything. A reload"
    " puts it in force, but for the keys that take a restart.",
)


def example() -> str:
    """Return the whole example file."""
    return "\n".join(_lines())


def effect_in_words(effect: Effect) -> str:
    """Sentences behind a key's meaning; "" for a key that a reload puts in force."""
    if effect.when is When.NEVER:
        return f"No effect here: {effect.why_not}."
    if effect.in_own_sockets:
        return "Takes a restart; under systemd the socket units decide."
    return "Takes a restart." if effect.when is When.START else ""


def _lines() -> Iterator[str]:
    for paragraph in _HEAD:
        yield from _comment(paragraph)
        yield ""
    for key in SPECS:
        if key in CHAPTERS:
            yield from ("", f"# ---- {CHAPTERS[key]} ----", "")
        yield from _key(key)
        yield ""


def _key(key: str) -> Iterator[str]:
    spec = SPECS[key]
    yield from _comment(f"{spec.meaning} {effect_in_words(spec.effect)}")
    default = spec.content(spec.default)
    if default is not None:
        yield f"#{key} = {render(default)}"
    elif spec.example is not None:
        content = spec.content(spec.example)
        assert content is not None, f"the example for {key} fails the key's own check"
        yield f"# {key} = {render(content)}"


def _comment(text: str) -> Iterator[str]:
    return folded(text, begin="# ", width=_WIDTH)


def folded(text: str, *, begin: str = "", width: int) -> Iterator[str]:
    """Yield lines of whole words, each with the same beginning."""
    line = ""
    for word in text.split():
        if line and len(begin) + len(line) + 1 + len(word) > width:
            yield begin + line
            line = ""
        line += f" {word}" if line else word
    yield begin + line
