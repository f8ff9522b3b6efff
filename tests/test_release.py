"""What script/release refuses and the notes it makes; what script/vulnerabilities.py tells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "script"
CHANGES = "# Changes\n\n## 0.2.0\n\n* New.\n\n## 0.1.0\n\n* First.\n"


class Checkout:
    """One with a commit, at version 0.2.0."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "script").mkdir()
        for name in ("release", "common"):
            shutil.copy(SCRIPT / name, directory / "script")
        (directory / "proxyd").mkdir()
        self.write("proxyd/__init__.py", '__version__ = "0.2.0"\n')
        self.write("CHANGELOG.md", CHANGES)
        self.git("init", "-q")
        self.commit()

    def write(self, name, text):
        (self.directory / name).write_text(text)

    def git(self, *words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(self.directory), *who, *words], check=True)

    def commit(self):
        self.git("add", ".")
        self.git("commit", "-q", "-m", "one")

    def release(self, *options):
        return subprocess.run(
            [str(self.directory / "script/release"), *options],
            env={"PATH": os.environ["PATH"], "PROXYD_BED": str(self.directory.parent / "bed")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def refuses(self, *options):
        done = self.release(*options)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr


@pytest.fixture
def checkout(tmp_path):
    directory = tmp_path / "checkout"
    directory.mkdir()
    return Checkout(directory)


def test_the_notes_are_the_section_of_the_version(checkout):
    done = checkout.release("--notes")
    assert (done.returncode, done.stdout.strip()) == (0, "* New.")


def test_a_version_that_was_released_is_refused(checkout):
    checkout.git("tag", "v0.2.0")
    assert "there is a release 0.2.0 already" in checkout.refuses("--notes")


def test_a_version_that_is_older_than_the_newest_is_refused(checkout):
    checkout.git("tag", "v0.10.0")
    assert "0.2.0 is older than 0.10.0" in checkout.refuses("--notes")


@pytest.mark.parametrize("version", ["0.2", "0.2.0rc1", "01.2.0", "v0.2.0"])
def test_what_is_no_semantic_version_is_refused(checkout, version):
    checkout.write("proxyd/__init__.py", f'__version__ = "{version}"\n')
    assert "is no version for a release" in checkout.refuses("--notes")


@pytest.mark.parametrize(
    "changes",
    [
        "# Changes\n\n## 0.2.0\n\n## 0.1.0\n\n* First.\n",
        "# Changes\n\n## 0.2.01\n\n* Another.\n",
        "",
    ],
)
def test_a_version_of_which_nothing_is_said_is_refused(checkout, changes):
    checkout.write("CHANGELOG.md", changes)
    assert "says nothing of 0.2.0" in checkout.refuses("--notes")


def test_what_is_new_stands_below_the_version(checkout):
    checkout.write("CHANGELOG.md", CHANGES.replace("## 0.2.0", "## Unreleased\n\n* x\n\n## 0.2.0"))
    assert "Unreleased" in checkout.refuses("--notes")


def test_what_is_not_committed_is_refused(checkout):
    checkout.write("more", "")
    assert "there is what is not committed: ?? more" in checkout.refuses("--no-checks")
    assert not (checkout.directory / "dist").exists()


# ---- Vulnerabilities

FLAWED = """{"dependencies": [{"name": "a", "version": "1", "vulns":
    [{"id": "PYSEC-1", "fix_versions": ["2"]}]}, {"name": "b", "version": "1", "vulns": []}]}"""
FINE = '{"dependencies": [{"name": "b", "version": "1", "vulns": []}]}'
UNKNOWN = '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (FLAWED, 1, "lock.txt: a 1 has PYSEC-1 (mended in 2)"),
        (FINE, 0, "1 of 1 libraries were looked at"),
        (UNKNOWN, 0, "0 of 1 libraries were looked at"),
        ("", 0, "cannot be asked: no way there"),
    ],
)
def test_only_a_known_vulnerability_fails(tmp_path, answer, status, said):
    stub = f"import sys\nprint({answer!r})\nprint('no way there', file=sys.stderr)\nsys.exit(1)\n"
    (tmp_path / "pip_audit.py").write_text(stub)
    done = subprocess.run(
        [sys.executable, str(SCRIPT / "vulnerabilities.py"), "lock.txt"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status
    assert said in done.stdout + done.stderr
