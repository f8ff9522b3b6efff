"""Which remedy is told."""

import errno
import os

import pytest

from proxyd.config.shortage import explained, is_shortage, remedy


def failed(number):
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EMFILE, "LimitNOFILE="),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOMEM, "no memory left"),
        (errno.ENOBUFS, "no memory left for sockets"),
    ],
)
def test_what_is_short_has_its_own_remedy(number, says):
    assert says in remedy(failed(number), "let this user write there")
    assert is_shortage(failed(number))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.ENOSPC])
def test_everything_else_keeps_the_remedy_of_whoever_met_it(number):
    assert remedy(failed(number), "let this user write there") == "let this user write there"
    assert not is_shortage(failed(number))


def test_a_shortage_of_ours_is_not_blamed_on_the_client_for_whom_something_was_done():
    said = explained(failed(errno.EMFILE), "cannot look at process 7")
    assert said.startswith("cannot look at process 7: proxyd itself is short, not the client: Too")
    assert "LimitNOFILE=" in said
    assert explained(failed(errno.EACCES), "cannot look") == "cannot look: Permission denied"


def test_an_error_without_a_number_is_no_shortage():
    assert remedy(OSError("AF_UNIX path too long"), "choose another one") == "choose another one"
