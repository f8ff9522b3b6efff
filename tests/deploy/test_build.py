"""Which build of proxyd runs, as its file says or git."""

import json
import subprocess

import pytest

from proxyd.deploy.build import Build


@pytest.fixture
def package(tmp_path):
    made = tmp_path / "proxyd"
    made.mkdir()
    return made


def test_a_package_says_its_version_its_release_and_its_commit(package):
    said = {"commit": "0123456789ab", "package": "0.1.0+deb12", "release": "bookworm"}
    (package / "build.json").write_text(json.dumps(said))
    found = Build.this(package)
    assert found == Build(**said)
    assert found.told() == "Debian package 0.1.0+deb12, for bookworm, of commit 0123456789ab"


def test_a_wheel_says_its_commit(package):
    (package / "build.json").write_text('{"commit": "0123456789ab"}')
    assert Build.this(package).told() == "of commit 0123456789ab"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_file_that_is_damaged_is_no_reason_to_fail(package, content):
    (package / "build.json").write_bytes(content)
    assert Build.this(package).told() == "of an unknown commit"


def test_without_a_file_git_is_asked(package):
    assert Build.this(package) == Build()
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", "-C", str(package.parent), *words], check=True)
    asked = ["git", "-C", str(package.parent), "rev-parse", "HEAD"]
    head = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert Build.this(package).commit == head[:12]
