"""Fenced blocks of the documents, and what their first lines say is to be done with them.

    ```sh run            these commands work, one after the other, as root of a machine of their own
    ```sh run as=ann     … typed by ann
    ```sh run fails      … the last one is refused
    ```text              right behind one that runs: lines of its output; … is anything
    ```ini file=/PATH    this file is written before what follows is run (owner=, mode= as well)
    ```sh                commands that are not run: tests/test_document_blocks.py has the reason

The words behind the language are seen by nobody who reads the page.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"^( *)```(.*)$")
_HEADING: Final = re.compile(r"^## (.+)$")


@dataclass(frozen=True, slots=True)
class Block:
    page: str  # from the top of the checkout
    section: str  # the heading of the second level above it, or ""
    line: int  # of its first fence
    indented: bool
    language: str
    words: tuple[str, ...]  # behind the language
    text: str
    follows: bool  # nothing stands between it and the block before

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return "run" in self.words

    @property
    def first(self) -> str:
        """Its first line, by which tables name it."""
        return self.text.partition("\n")[0]

    def option(self, name: str) -> str | None:
        """What stands behind NAME=."""
        found = [word.partition("=")[2] for word in self.words if word.startswith(f"{name}=")]
        return found[0] if found else None


def pages() -> list[Path]:
    """What people read, but for pages that show bytes of the protocol."""
    return sorted(
        path
        for path in (*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md"))
        if "protocol" not in path.parts
    )


@cache
def blocks(path: Path) -> tuple[Block, ...]:
    return tuple(blocks_of(path.relative_to(ROOT).as_posix(), path.read_text()))


def blocks_of(page: str, text: str) -> Iterator[Block]:
    section, opened, inside, follows = "", None, [], False
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened = (number, fence)
            elif line.strip():
                follows = False
                section = found[1] if (found := _HEADING.match(line)) else section
        elif fence and not fence[2]:
            begun, start = opened
            language, *words = start[2].split() or [""]
            yield Block(
                page,
                section,
                begun,
                bool(start[1]),
                language,
                tuple(words),
                "".join(f"{each}\n" for each in inside),
                follows,
            )
            opened, inside, follows = None, [], True
        else:
            inside.append(line)
    assert opened is None, f"{page}: a block is not closed"


def commands(text: str) -> list[str]:
    """The lines of a shell block, continued ones as one, without remarks."""
    joined = text.replace("\\\n", " ")
    return [
        line.strip()
        for each in joined.splitlines()
        if (line := re.sub(r"(^|\s)#\s.*$", "", each)).strip()
    ]
