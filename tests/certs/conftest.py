"""A CA in a directory, and the command in this process."""

import json
import os
from dataclasses import dataclass

import pytest

from certs.authority import Authority
from certs.cli import main

CA_NAME = "Example CA"
HOST = "host.example.org"


@dataclass
class Answer:
    status: int
    out: str
    err: str

    @property
    def complaint(self):
        """The one line on stderr, without the program's name."""
        (line,) = self.err.splitlines()
        return line.removeprefix("proxyd certs: ")


@pytest.fixture
def certs(capsys):
    """The command: arguments to an exit status and what was said."""

    def run(*arguments):
        status = main([str(each) for each in arguments])
        said = capsys.readouterr()
        return Answer(status, said.out, said.err)

    return run


@pytest.fixture
def check(certs):
    """The exit status of `check --json`, and the document that it prints."""

    def run(*arguments):
        answer = certs("check", "--json", *arguments)
        return answer.status, json.loads(answer.out)

    return run


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pki"


@pytest.fixture
def authority(root):
    return Authority.create(root, name=CA_NAME)


@pytest.fixture
def umask():
    """Sets it for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)
