"""A virtual environment for a Debian package: what a lock file names, proxyd, and no pip.

    python script/package_environment.py wheels --sources DIRECTORY --wheels DIRECTORY --lock FILE
    python script/package_environment.py environment --wheels DIRECTORY --lock FILE
        --root DIRECTORY --path /usr/lib/NAME [--without-loadtest]

Run by the Python of an environment that has what debian/lock/build.txt names, in the checkout that
is packaged. `--sources` has the locked files, with the hashes of which they are compared; what is a
source is built, and proxyd's own wheel comes to lie beside them in `--wheels`. No network is asked.
The interpreter is the distribution's, which the package depends on.

The same sources make the same bytes: paths of the build, times, what pip notes down and its
programs are taken out, and byte code is found by its source's name and not by its time
(`unchecked-hash`): it is valid whatever a copy of the host does to times, and nothing is hashed at
a start. Debian's updates of one Python keep its byte code valid.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
VERSION: Final = "{}.{}".format(*sys.version_info[:2])
# What pip writes for itself; RECORD has the digests of programs with paths of the build.
PIPS_OWN: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
# Of libraries: their tests, and what is compiled from.
TESTS: Final = ("tests", "_tests")
SOURCES: Final = {".pyx", ".pxd", ".c", ".h"}


def main(arguments: list[str]) -> int:
    """Raises CalledProcessError, whose command has said what was wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["wheels", "environment"])
    for name in ("--root", "--sources", "--wheels", "--lock"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--path")
    parser.add_argument("--without-loadtest", action="store_true")
    given = parser.parse_args(arguments)
    if given.what == "wheels":
        make_wheels(given.sources, given.lock, given.wheels)
        return 0
    environment = given.root / given.path.removeprefix("/")
    packages = environment / "lib" / f"python{VERSION}" / "site-packages"
    make_environment(environment, packages, given.path)
    install(environment, given.wheels, given.lock)
    prune(environment, packages)
    if given.without_loadtest:
        shutil.rmtree(packages / "proxyd" / "loadtest")
    (packages / "proxyd" / "build.json").write_text(json.dumps(build(), indent=1) + "\n")
    compile_all(given.root, packages)
    return 0


def pip(*words: str | Path) -> None:
    quiet = ("--disable-pip-version-check", "--quiet", "--no-input")
    subprocess.run([sys.executable, "-m", "pip", *words[:1], *quiet, *words[1:]], check=True)


def make_wheels(sources: Path, lock: Path, wheels: Path) -> None:
    """Those that are locked, by their hashes, and proxyd's."""
    alone = ("--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels)
    found = ("--find-links", sources)
    pip("wheel", *alone, *found, "--require-hashes", "--requirement", lock)
    pip("wheel", *alone, CHECKOUT)


def make_environment(environment: Path, packages: Path, path: str) -> None:
    """With the interpreter in /usr/bin, wherever this one is."""
    programs = environment / "bin"
    programs.mkdir(parents=True)
    (programs / "python3").symlink_to(f"/usr/bin/python{VERSION}")
    (programs / "python").symlink_to("python3")
    packages.mkdir(parents=True)
    said = {
        "home": "/usr/bin",
        "include-system-site-packages": "false",
        "version": "{}.{}.{}".format(*sys.version_info[:3]),
        "executable": f"/usr/bin/python{VERSION}",
        "command": f"/usr/bin/python{VERSION} -m venv --without-pip {path}",
    }
    lines = (f"{name} = {value}\n" for name, value in said.items())
    (environment / "pyvenv.cfg").write_text("".join(lines))


def install(environment: Path, wheels: Path, lock: Path) -> None:
    """The wheels of what is locked and of proxyd; into the prefix, as a venv has it."""
    lines = lock.read_text().splitlines()
    names = [line.rstrip(" \\") for line in lines if "==" in line and line[0].isalnum()]
    offline = ("--no-index", "--no-deps", "--no-compile", "--find-links", wheels)
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--quiet", *map(str, offline), *names, "proxyd"],
        check=True,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
    )


def prune(environment: Path, packages: Path) -> None:
    """What is for nobody here, or tells of the build."""
    for program in (environment / "bin").iterdir():
        if not program.name.startswith("python"):
            program.unlink()
    for name in PIPS_OWN:
        for file in packages.glob(f"*.dist-info/{name}"):
            file.unlink()
    for directory in [each for name in TESTS for each in packages.rglob(name) if each.is_dir()]:
        shutil.rmtree(directory)
    for file in [each for each in packages.rglob("*") if each.is_file()]:
        if file.suffix in SOURCES and packages / "proxyd" not in file.parents:
            file.unlink()
        elif file.suffix == ".py" and (text := file.read_bytes()).startswith(b"#!"):
            file.write_bytes(b"#" + text[text.index(b"\n") :])  # of programs, which these are not
    shutil.rmtree(environment / "include", ignore_errors=True)


def build() -> dict[str, str]:
    """What `proxyd --version` tells of this build (proxyd/deploy/build.py)."""
    names = {"commit": "PROXYD_COMMIT", "package": "PROXYD_PACKAGE", "release": "PROXYD_RELEASE"}
    return {key: os.environ[name] for key, name in names.items()}


def compile_all(root: Path, packages: Path) -> None:
    """One after the other and with one seed: the order of what a set has is in the byte code."""
    subprocess.run(
        [
            *(sys.executable, "-m", "compileall", "-q", "-f", "-j", "1"),
            *("--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"),
            str(packages),
        ],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
