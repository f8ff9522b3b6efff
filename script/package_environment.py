"""A virtual environment for a Debian package: what a lock file names, proxyd, and no pip.

    python script/package_environment.py --root DIRECTORY --path /usr/lib/NAME --sources DIRECTORY
        --wheels DIRECTORY --lock FILE [--without-loadtest]

Run by the Python of an environment that has what debian/lock/build.txt names, in the checkout that
is packaged. `--sources` has the locked files, with the hashes of which they are compared; what is a
source is built into `--wheels` first, where proxyd's own wheel comes to lie as well. No network is
asked. The interpreter is the distribution's, which the package depends on.

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
# Of libraries: their tests, and what is compiled here from.
NOT_NEEDED: Final = ("gssapi/tests", "cffi/_imp_emulation.py")
SOURCES: Final = {".pyx", ".pxd", ".c", ".h"}


def main(arguments: list[str]) -> int:
    """Raises CalledProcessError, whose command has said what was wrong."""
    parser = argparse.ArgumentParser()
    for name in ("--root", "--sources", "--wheels", "--lock"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--without-loadtest", action="store_true")
    given = parser.parse_args(arguments)
    environment = given.root / given.path.removeprefix("/")
    make_wheels(given.sources, given.lock, given.wheels)
    make_environment(environment, given.path)
    install(environment, given.wheels, given.lock)
    packages = environment / "lib" / f"python{VERSION}" / "site-packages"
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


def make_environment(environment: Path, path: str) -> None:
    """With the interpreter in /usr/bin, wherever this one is."""
    programs = environment / "bin"
    programs.mkdir(parents=True)
    (programs / "python3").symlink_to(f"/usr/bin/python{VERSION}")
    (programs / "python").symlink_to("python3")
    (environment / "lib" / f"python{VERSION}" / "site-packages").mkdir(parents=True)
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
    wanted = [line.split()[0] for line in lock.read_text().splitlines() if "==" in line]
    markers = [line for line in lock.read_text().splitlines() if "==" in line and ";" in line]
    conditions = {line.split()[0]: line.partition(";")[2].rstrip(" \\") for line in markers}
    names = [f"{each} ; {conditions[each]}" if each in conditions else each for each in wanted]
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
    for name in NOT_NEEDED:
        shutil.rmtree(packages / name, ignore_errors=True)
    for file in packages.rglob("*"):
        if file.suffix in SOURCES and file.is_file():
            file.unlink()
    for left in ("include", "lib64"):
        shutil.rmtree(environment / left, ignore_errors=True)


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
