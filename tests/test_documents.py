"""Every document, section and file that a comment, a docstring or a document names is there.

Whoever renames or moves one is told here who speaks of it. What counts as naming:

    docs/protocol/errors.md, section 5   a document, from the top or from where the one that names
                                         it lies; its sections by number, or by title:
                                         docs/limits.md, "Limits of this version"
    proxyd/wire/frame.py, frame.py       a file of ours, from the top or from proxyd/, or by its
                                         name alone
    [text](FILE#1-from-accept-to-…)      a link in a document, with the anchor as GitHub makes it
"""

import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTOCOL = ROOT / "docs" / "protocol"
FOLDERS = ("proxyd", "tests", "loadtest", "certs", "script", "units", "docs", ".ci")
BINARY = {".pyc", ".png", ".tsv"}

ENDINGS = (".md", ".tsv", ".py", ".cnf")
DOCUMENT = re.compile(
    r"(?<!\]\()(?<![\w./-])(?P<path>(?:[\w.-]+/)*[\w-]+\.(?:md|tsv))(?![\w/])"
    r"(?:,?\s+sections?\s+(?P<sections>\d+(?:(?:,|\s+and|\s+to)\s+\d+)*)"
    r"|,\s+\"(?P<title>[^\"]+)\")?"
)
CODE = re.compile(r"(?<![\w./<-])(?P<path>(?:[\w.-]+/)*[A-Za-z_]\w*\.(?:py|cnf))(?![\w/])")
WITHOUT_WORDS = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}
LINK = re.compile(r"\[(?P<text>[^]]*)\]\((?P<target>[^)\s]+)\)")
NUMBERED = re.compile(r"^## (?P<number>\d+)\. (?P<title>.+)$", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def files():
    """Everything that people write, but for what fuzzing has kept."""
    listed = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        listed += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(
        path
        for path in listed
        if path.suffix not in BINARY and "corpus" not in path.parts and path.name != ".git"
    )


def prose_of_python(text):
    """Comments and docstrings, each in its line."""
    lines = text.splitlines()
    said = [""] * len(lines)
    begins = True  # a statement; a string that does is a docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            said[token.start[0] - 1] = token.string.lstrip("# ")
        elif token.type == tokenize.STRING and begins:
            said[token.start[0] - 1 : token.end[0]] = lines[token.start[0] - 1 : token.end[0]]
        if token.type not in WITHOUT_WORDS:
            begins = token.type == tokenize.NEWLINE
    return "\n".join(said)


def prose(path, text):
    """What a file says to people: all of a document, of others what stands in comments."""
    if path.suffix == ".md":
        return FENCED.sub(lambda found: "\n" * found[0].count("\n"), text)
    if path.suffix == ".py":
        return prose_of_python(text)
    return "\n".join(
        line.strip().lstrip("# ") if line.lstrip().startswith("#") else ""
        for line in text.splitlines()
    )


@cache
def content(path):
    return path.read_text(errors="replace")


@cache
def names():
    return {path.name for path in files()}


def anchors(path):
    """GitHub's: lower case, without punctuation; a second one of the same text gets a number."""
    found = set()
    for title in HEADING.findall(FENCED.sub("", content(path))):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        anchor = base = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = 0
        while anchor in found:
            count += 1
            anchor = f"{base}-{count}"
        found.add(anchor)
    return found


def titles(path):
    return {re.sub(r"^\d+\. ", "", title) for title in HEADING.findall(content(path))}


def sections(path):
    return {int(found["number"]) for found in NUMBERED.finditer(content(path))}


def cited(numbers):
    """The numbers of "2, 4 and 6 to 8"."""
    found = []
    for number, joined in re.findall(r"(\d+)(,|\s+and|\s+to)?", numbers):
        if found and found[-1] == "to":
            found[-1:] = range(found[-2] + 1, int(number) + 1)
        else:
            found.append(int(number))
        if joined.strip() == "to":
            found.append("to")
    return found


def document(path, named):
    """The file that is meant, or None."""
    return next(
        (each for each in (ROOT / named, path.parent / named) if each.is_file()),
        None,
    )


def complaints_of_documents(path, said):
    said = LINK.sub(lambda found: re.sub(r"\S", " ", found[0]), said)  # links are looked at below
    for found in DOCUMENT.finditer(said):
        named = found["path"]
        meant = document(path, named)
        if meant is None:
            yield found.start(), f"{named}, which is not there"
            continue
        if found["sections"]:
            for number in cited(found["sections"]):
                if number not in sections(meant):
                    yield found.start(), f"{named}, section {number}, which it does not have"
        if found["title"] and " ".join(found["title"].split()) not in titles(meant):
            yield found.start(), f'{named}, "{found["title"]}", which is no heading of it'


def complaints_of_code(path, said):
    for found in CODE.finditer(said):
        named = found["path"]
        if "/" not in named:
            there = named in names()
        else:
            there = any(
                (base / named).is_file()
                for base in (ROOT, ROOT / "proxyd", path.parent, path.parent.parent)
            )
        if not there:
            yield found.start(), f"{named}, which is not there"


def section_of(text):
    """How the anchor of a link begins that speaks of a section by its number."""
    numbered = re.search(r"section\s+(\d+)$", text)
    return f"{numbered[1]}-" if numbered else ""


def complaints_of_links(path, said):
    for found in LINK.finditer(said):
        target, _, anchor = found["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        meant = path.parent / target if target else path
        if not meant.exists():
            yield found.start(), f"[{found['text']}]({found['target']}): no such file"
        elif anchor and anchor not in anchors(meant):
            yield found.start(), f"[{found['text']}]({found['target']}): no such heading"
        elif not anchor.startswith(section_of(found["text"])):
            yield found.start(), f"[{found['text']}] leads to another section: {anchor}"


def complaints(path, text):
    """What a file names that is not there, with the line on which it does."""
    if path.suffix != ".md" and not any(ending in text for ending in ENDINGS):
        return []  # taking it apart is what takes time
    said = prose(path, text)
    found = [*complaints_of_documents(path, said), *complaints_of_code(path, said)]
    if path.suffix == ".md":
        found += complaints_of_links(path, said)
    where = path.relative_to(ROOT)
    return [f"{where}:{line_of(said, at)} names {what}" for at, what in sorted(found)]


def line_of(text, place):
    return text.count("\n", 0, place) + 1


def test_what_is_named_is_there():
    found = [line for path in files() for line in complaints(path, content(path))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", sorted(PROTOCOL.glob("*.md")), ids=lambda path: path.name)
def test_sections_are_numbered_in_order(path):
    numbers = [int(found["number"]) for found in NUMBERED.finditer(content(path))]
    assert numbers == sorted(set(numbers))


def test_the_index_has_every_page():
    linked = {
        found["target"].partition("#")[0]
        for found in LINK.finditer(content(PROTOCOL / "README.md"))
    }
    assert {path.name for path in PROTOCOL.iterdir()} - linked == {"README.md"}


# The test's own eyes: what it would not see, nobody would be told of.

BESIDE = ROOT / "proxyd" / "wire" / "made_up.py"
PAGE = PROTOCOL / "made_up.md"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("# reference/wire.md, section 1\n", ["1 names reference/wire.md"]),
        (
            "# See docs/protocol/errors.md, section\n# 99.\n",
            ["1 names docs/protocol/errors.md, se"],
        ),
        (
            '"""Of\n\ndocs/protocol/errors.md, sections 1 and 99."""\n',
            ["3 names docs/protocol/err"],
        ),
        ('def f():\n    """Of docs/protocol/none.tsv."""\n', ["2 names docs/protocol/none.tsv"]),
        ('# README.md, "No such title"\n', ['1 names README.md, "No such title"']),
        ("x = 1  # as in no_such_file.py\n", ["1 names no_such_file.py"]),
        ("# proxyd/no/frame.py and wire/frame.py and frame.py\n", ["1 names proxyd/no/frame.py"]),
        ("# docs/protocol/errors.md, section 5, and docs/protocol/xdr.md, sections 1 to 4\n", []),
        ('x = "docs/protocol/none.md"\n', []),
    ],
)
def test_code_that_names_what_is_not_there(text, named):
    found = complaints(BESIDE, text)
    assert len(found) == len(named)
    for line, expected in zip(found, named, strict=True):
        assert line.startswith(f"proxyd/wire/made_up.py:{expected}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("See\n[this](none.md).\n", ["2 names [this](none.md): no such file"]),
        ("[this](tls.md#none)\n", ["1 names [this](tls.md#none): no such heading"]),
        ("[tls.md, section 2](tls.md#1-from-accept-to-the-first-frame)\n", ["1 names [tls.md, se"]),
        ("[tls.md, section 1](tls.md#1-from-accept-to-the-first-frame)\n", []),
        ("```\nnone.md\n```\n[this](https://example.org/none.md)\n", []),
    ],
)
def test_a_document_that_names_what_is_not_there(text, named):
    found = complaints(PAGE, text)
    assert len(found) == len(named)
    for line, expected in zip(found, named, strict=True):
        assert line.startswith(f"docs/protocol/made_up.md:{expected}")
