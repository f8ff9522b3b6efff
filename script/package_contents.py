"""What a package has to say of the libraries in it: whose they are, and a bill of materials.

    python script/package_contents.py DIRECTORY PACKAGE

DIRECTORY is where the package's files lie while it is made. Below its /usr/share/doc/PACKAGE:

copyright      Debian's: each library's licence, in its own words
bundled.txt     a list: name, version, licence, home
sbom.cdx.json  CycloneDX, validated; with the OpenSSL that cryptography's wheel has in itself

Raises SystemExit where a library does not say its licence or has brought no text of it.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

CHECKOUT: Final = Path(__file__).resolve().parents[1]
SCHEMA: Final = SchemaVersion.V1_6
NAMES: Final = re.compile(r"(licen[cs]e|copying|notice|authors)", re.IGNORECASE)
OUR_LICENCE: Final = "Apache-2.0"
# Each has its text in /usr/share/common-licenses of every Debian, or begins like this one.
COMMON: Final = {
    "Apache-2.0": "On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.",
}
# How projects name the address of theirs that tells who they are.
HOMES: Final = (
    "homepage",
    "home",
    "source",
    "source code",
    "repository",
    "documentation",
    "changelog",
)
APACHE_LENGTH: Final = 8000  # characters; a mere notice is shorter
CLASSIFIER: Final = "License :: OSI Approved :: "
# What older metadata says, as SPDX has it.
SPDX: Final = {
    "MIT License": "MIT",
    "MIT": "MIT",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A distribution in the environment. `texts` are the files of its licence."""

    name: str
    version: str
    licence: str
    home: str
    texts: tuple[str, ...]
    authors: str


def main(root: Path, package: str) -> int:
    documents = root / "usr/share/doc" / package
    (environment,) = (root / "usr/lib" / package / "lib").glob("python3*/site-packages")
    python = root / "usr/lib" / package / "bin/python3"
    libraries = sorted(bundled(environment), key=lambda each: each.name.lower())
    openssl = told_by(python, OPENSSL_QUESTION)
    documents.mkdir(parents=True, exist_ok=True)
    (documents / "copyright").write_text("\n".join(copyright_lines(libraries, package)) + "\n")
    (documents / "bundled.txt").write_text("\n".join(list_lines(libraries, openssl)) + "\n")
    (documents / "sbom.cdx.json").write_text(bill_of_materials(python, openssl, package))
    return 0


def bundled(environment: Path) -> Iterator[Library]:
    """All but proxyd itself."""
    for found in importlib.metadata.distributions(path=[str(environment)]):
        if found.name != "proxyd":
            yield library(found, environment)


def library(found: importlib.metadata.Distribution, environment: Path) -> Library:
    said = found.metadata
    stem = re.sub(r"[-_.]+", "_", found.name).lower()
    (info,) = (
        each
        for each in environment.glob("*.dist-info")
        if re.sub(r"[-_.]+", "_", each.name.partition("-")[0]).lower() == stem
    )
    files = [each for each in info.rglob("*") if each.is_file() and NAMES.match(each.name)]
    texts = tuple(each.read_text(errors="replace").strip() for each in sorted(files))
    if not texts:
        texts = tuple(filter(None, [licence_of_others(found.name)]))
    licence = said.get("License-Expression") or named_licence(said)
    if not licence or not texts:
        raise SystemExit(f"{found.name}: which licence it has, and its text, cannot be seen")
    urls = [each.partition(",") for each in said.get_all("Project-URL") or ()]
    named = {name.strip().lower(): url.strip() for name, _, url in urls}
    home = said.get("Home-page") or next((named[each] for each in HOMES if each in named), "")
    authors = said.get("Author") or said.get("Author-email") or f"the authors of {found.name}"
    return Library(
        name=found.name,
        version=found.version,
        licence=licence,
        home=home,
        texts=texts,
        authors=" ".join(str(authors).split()),
    )


def named_licence(said: Any) -> str:
    """Of metadata from before there were SPDX's expressions."""
    given = str(said.get("License") or "").strip()
    if given and "\n" not in given:
        return SPDX.get(given, given)
    classifiers = said.get_all("Classifier") or ()
    names = [each.removeprefix(CLASSIFIER) for each in classifiers if each.startswith(CLASSIFIER)]
    return SPDX.get(names[0], names[0]) if names else ""


def licence_of_others(name: str) -> str:
    """Of those that bring no text, as debian/licences has it."""
    file = CHECKOUT / "debian" / "licences" / name
    return file.read_text().strip() if file.is_file() else ""


OPENSSL_QUESTION: Final = (
    "from OpenSSL.SSL import OPENSSL_VERSION, OpenSSL_version;"
    "print(OpenSSL_version(OPENSSL_VERSION).decode().split()[1])"
)


def told_by(python: Path, question: str) -> str:
    asked = [str(python), "-I", "-c", question]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def copyright_lines(libraries: Iterable[Library], package: str) -> Iterator[str]:
    """In Debian's format 1.0."""
    yield "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    yield "Upstream-Name: proxyd"
    yield ""
    yield "Files: *"
    yield "Copyright: the maintainers of proxyd"
    yield f"License: {OUR_LICENCE}"
    yield ""
    for each in libraries:
        stem = each.name.replace("-", "?")
        yield f"Files: usr/lib/{package}/lib/python3*/site-packages/{stem}*"
        yield f"Copyright: {each.authors}"
        yield f"License: {own_name(each)}"
        yield from (f" {line}".rstrip() or " ." for line in quoted(each))
        yield ""
    yield f"License: {OUR_LICENCE}"
    yield f" {COMMON[OUR_LICENCE]}"


def own_name(each: Library) -> str:
    """Of the paragraph with its text, which is another one for each library."""
    return f"{each.licence.replace(' ', '-')}-of-{each.name}"


def quoted(each: Library) -> Iterator[str]:
    for text in each.texts:
        if len(text) > APACHE_LENGTH and "Apache License" in text:
            yield from textwrap.wrap(COMMON[OUR_LICENCE], 78)
        else:
            yield from (line.rstrip() or "." for line in text.splitlines())
        yield "."


def list_lines(libraries: Iterable[Library], openssl: str) -> Iterator[str]:
    yield "# What is bundled"
    yield ""
    yield "| library | version | licence | home |"
    yield "| --- | --- | --- | --- |"
    for each in libraries:
        yield f"| {each.name} | {each.version} | {each.licence} | {each.home} |"
    yield f"| OpenSSL (in cryptography) | {openssl} | Apache-2.0 | https://www.openssl.org |"


def bill_of_materials(python: Path, openssl: str, package: str) -> str:
    made = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
            *("--spec-version", SCHEMA.to_version(), "--output-format", "JSON", str(python)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    bill = json.loads(made)
    bill["metadata"]["component"] = {
        "type": "application",
        "bom-ref": package,
        "name": package,
        "version": (CHECKOUT / "debian/changelog").read_text().partition("(")[2].partition(")")[0],
        "licenses": [{"license": {"id": OUR_LICENCE}}],
    }
    bill["components"].append(
        {
            "type": "library",
            "bom-ref": f"openssl=={openssl}",
            "name": "openssl",
            "version": openssl,
            "cpe": f"cpe:2.3:a:openssl:openssl:{openssl}:*:*:*:*:*:*:*",
            "purl": f"pkg:generic/openssl@{openssl}",
            "licenses": [{"license": {"id": OUR_LICENCE}}],
            "description": "linked into the wheel of cryptography",
        }
    )
    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    if fault := JsonStrictValidator(SCHEMA).validate_str(text):
        raise SystemExit(f"the bill of materials is not CycloneDX: {fault}")
    return text


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))  # noqa: TID251 (the one place that ends it)
