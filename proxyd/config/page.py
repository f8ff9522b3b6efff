"""docs/configuration.md, made from the settings' own declarations."""

from collections.abc import Iterator
from typing import Final

from proxyd.config.example import effect_in_words, folded
from proxyd.config.grammar import Content, render
from proxyd.config.settings import CHAPTERS, SPECS

_WIDTH: Final = 120
_HEAD: Final = (
    "# Settings",
    "Every key of `virtproxyd.conf`, made from the program's own declarations by"
    " `script/generate_settings.py`. The syntax and most keys are libvirt's"
    " ([protocol/configuration.md](protocol/configuration.md)), so a host's existing file works as"
    " it is; keys that begin with `proxyd_` are known to proxyd only."
    " [units/virtproxyd.conf](../units/virtproxyd.conf) is the same as a file to edit.",
    "A reload (`systemctl reload virtproxyd`, SIGHUP) puts changed values in force, but for the"
    " keys that take a restart: a change of one of those is a warning, and what it was at the start"
    " stays in force. A key that has no effect here is a warning at the start, at a reload and in"
    " `proxyd --check-config`, where it asks for something else than its default.",
    "Defaults are those of a daemon that runs as root.",
)


def page() -> str:
    """Return the whole document."""
    lines = [line for text in (*_HEAD, *_chapters()) for line in (*_folded(text), "")]
    return "\n".join(lines)


def _chapters() -> Iterator[str]:
    """Headings and paragraphs, none of them folded."""
    for key in SPECS:
        if key in CHAPTERS:
            yield f"## {CHAPTERS[key]}"
        yield from _key(key)


def _key(key: str) -> Iterator[str]:
    spec = SPECS[key]
    facts = [spec.kind.name, _default(spec.content(spec.default), spec.default)]
    if spec.default is None and (shown := spec.content(spec.example)) is not None:
        facts.append(f"such as `{render(shown)}`")
    yield from (f"### `{key}`", f"*{_begun('; '.join(facts))}.*")
    yield f"{spec.meaning} {effect_in_words(spec.effect)}".replace("*", r"\*")


def _default(content: Content | None, default: object) -> str:
    if default is None:
        return "by default unset"
    return f"by default `{default if content is None else render(content)}`"


def _folded(text: str) -> Iterator[str]:
    return folded(text, width=_WIDTH)


def _begun(words: str) -> str:
    return words[:1].upper() + words[1:]
