"""Which packages a wheel has, and what the extra "gssapi" lacks. All else is in pyproject.toml.

certs/ and loadtest/ lie beside proxyd/ in the checkout. Installed they are proxyd.certs and
proxyd.loadtest: those names in site-packages are nobody's to take.

Kerberos' library, which that extra brings, has no wheels for Linux. Its build, another project's,
ends in a traceback where a compiler or krb5-config is missing; so that is looked at here, before.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

TOOLS = ("certs", "loadtest")
beside = [each for tool in TOOLS for each in find_packages(include=[tool, f"{tool}.*"])]


class BuildFromNothing(build_py):
    """What an earlier build has left would go into the wheel, too."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode and (commit := commit_of_this()):
            Path(self.build_lib, "proxyd", "build.json").write_text(json.dumps({"commit": commit}))


def commit_of_this() -> str:
    """For `proxyd --version`; "" where this is no checkout or there is no git."""
    if not Path(__file__).with_name(".git").exists() or shutil.which("git") is None:
        return ""
    asked = ["git", "rev-parse", "--short=12", "HEAD"]
    here = Path(__file__).parent
    done = subprocess.run(asked, cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


MISSING = """
proxyd[gssapi]: Kerberos' library is built here, and this is missing: {missing}

    apt-get install gcc python3-dev libkrb5-dev     # Debian, Ubuntu
    dnf install gcc python3-devel krb5-devel        # Fedora and its kin

Then the same again. Without Kerberos proxyd needs none of it (leave out [gssapi]), and where you
have the library as a wheel, install that first: pip install gssapi
"""


def pip_is_asked_for(extra: str) -> bool:
    """A build is not told of extras; but pip's command line, which began it, names them."""
    try:
        words, pid = [""], os.getpid()
        while not {"install", "wheel", "download"} & {*words}:
            # Behind the name, which may hold anything but a ")" at the end: state, parent.
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # the first process, or a system without /proc
        return False
    # Others than pip build where what is installed cannot be seen.
    is_pip = Path(words[0]).name.startswith("python")
    return is_pip and any(re.search(rf"\[[^]]*\b{extra}\b[^]]*\]", each) for each in words)


def what_kerberos_lacks() -> list[str]:
    """Of what its library is built with; nothing where it is installed already."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    tools = [compiler]
    if "GSSAPI_LINKER_ARGS" not in os.environ:
        tools.append(os.environ.get("GSSAPI_KRB5CONFIG", "krb5-config"))
    missing = [each for each in tools if shutil.which(each) is None]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("Python.h")
    # -I: in pip's own surroundings of a build nothing else is seen.
    installed = [sys.executable, "-I", "-c", "import gssapi"]
    if missing and subprocess.run(installed, stderr=subprocess.DEVNULL, check=False).returncode:
        return missing
    return []


if pip_is_asked_for("gssapi") and (missing := what_kerberos_lacks()):
    raise SystemExit(MISSING.format(missing=", ".join(missing)))

setup(
    packages=[
        *find_packages(include=["proxyd", "proxyd.*"]),
        *(f"proxyd.{each}" for each in beside),
    ],
    package_dir={f"proxyd.{tool}": tool for tool in TOOLS},
    cmdclass={"build_py": BuildFromNothing},
)
