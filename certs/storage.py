"""Files that appear whole or not at all, with their permissions from the first moment on."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from proxyd.sasl.lock import NotLocked, own_lock

from .failures import CannotDo

KEY_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
PRIVATE_DIRECTORY: Final = 0o700
PUBLIC_DIRECTORY: Final = 0o755
_PATIENCE_S: Final = 60.0  # with others who issue certificates: some make their key meanwhile
_LARGEST: Final = 16 << 20  # as proxyd's limit for a revocation list


def write_file(path: Path, content: bytes, *, mode: int, replace: bool) -> None:
    """Writes a file under another name and then gives it its own. Raises CannotDo.

    Without `replace` a file of that name is left as it is, whoever made it and however late.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            _write_new(temporary, content, mode)
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)
    except FileExistsError:
        raise CannotDo(f"{path} is there already; --force replaces it") from None
    except OSError as error:
        raise CannotDo(f"{path} cannot be written: {error.strerror}") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    # With the owner's rights alone, until all of them are given.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(descriptor, mode)  # which the umask does not change
        os.fsync(descriptor)


def make_directory(path: Path, mode: int) -> None:
    """Makes a directory that is not there, and what is missing above it. Raises CannotDo."""
    try:
        for above in reversed(path.parents):
            above.mkdir(PUBLIC_DIRECTORY, exist_ok=True)  # or less, as the umask says
        os.mkdir(path, mode & 0o700)
        os.chmod(path, mode)
    except FileExistsError:
        if not path.is_dir():
            raise CannotDo(f"{path} is in the way: it is no directory") from None
    except OSError as error:
        raise CannotDo(f"{path} cannot be made: {error.strerror}") from error


def read_file(path: Path, remedy: str) -> bytes:
    """The content. Raises CannotDo, with the remedy if there is no such file."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise CannotDo(f"there is no {path}; {remedy}") from None
    except OSError as error:
        raise CannotDo(f"{path} cannot be read: {error.strerror}") from error


def read_regular(path: Path) -> bytes:
    """The content of a file of somebody's, who may have put anything there. Raises OSError."""
    # Without O_NONBLOCK a FIFO would keep us waiting for somebody who writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if status.st_size > _LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_LARGEST)
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps others out that lock the same directory; waits for them. Ends with the process.

    Raises CannotDo, and OSError where there is no such directory.
    """
    try:
        with own_lock(directory / ".lock", _PATIENCE_S):
            yield
    except NotLocked as error:
        raise CannotDo(str(error)) from error


def _sync(directory: Path) -> None:
    """Makes the names in a directory outlast a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
