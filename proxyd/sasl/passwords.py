"""The file of users who come in by SCRAM: what their passwords are checked with, not passwords.

Its first line has a key for the salts of users that do not exist (see `Passwords.verifier`), each
other line a user, whose verifier is spelled as PostgreSQL does it:

    proxyd-passwords 1 KEY
    joe:SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY

Who reads a verifier can try passwords against it, and with the server key pose as this host; so
the file is its owner's alone, and is not used when it is not.
"""

import hmac
import os
import re
import secrets
import stat
import tempfile
import time
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from scramp import ScramException, ScramMechanism
from scramp.utils import saslprep

from proxyd.config.quoting import excerpt
from proxyd.sasl.lock import NotLocked, own_lock

# The client computes them, once per connection; one of cyrus-sasl takes no more than these.
# With another number, users whose passwords were set before can be told from those that do not
# exist.
ITERATIONS: Final = 65536

_FEWEST_ITERATIONS: Final = 4096  # RFC 7677
_SALT_SIZE: Final = 16
_KEY_SIZE: Final = 32  # of what SHA-256 makes
_LARGEST_FILE: Final = 1 << 20  # some 6000 users
# What has changed less long ago may change again within the same tick of the file system's clock.
_SETTLED_NS: Final = 1_000_000_000
LONGEST_NAME: Final = 255
_LONGEST_PASSWORD: Final = 1024
_PATIENCE_S: Final = 10.0  # with others who write, which takes milliseconds

_HEADER: Final = re.compile(r"proxyd-passwords 1 ([A-Za-z0-9+/]{43}=)")
_LINE: Final = re.compile(
    r"([^:]+):SCRAM-SHA-256\$([1-9][0-9]{3,5})"
    r":([A-Za-z0-9+/]{22}==)\$([A-Za-z0-9+/]{43}=):([A-Za-z0-9+/]{43}=)"
)


class PasswordError(Exception):
    """The file cannot be used or what is asked cannot be done: which, why, and what mends it."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What tells whether somebody knows a password (RFC 5802, section 3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __str__(self) -> str:
        salt, stored, server = (
            b64encode(each).decode() for each in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def __repr__(self) -> str:
        return f"Verifier(iterations={self.iterations})"  # the rest belongs in no log


@dataclass(frozen=True, slots=True)
class Passwords:
    """The file as it was at one moment."""

    made_up: bytes
    verifiers: Mapping[str, Verifier]

    def verifier(self, name: str) -> Verifier:
        """The verifier of this user; for one that does not exist, one that nothing satisfies.

        Its salt is the same whenever the file is asked, as a user's would be: thus a client
        cannot find out by trying which names exist.
        """
        salt = hmac.digest(self.made_up, name.encode(), "sha256")[:_SALT_SIZE]
        nobody = Verifier(
            ITERATIONS, salt, secrets.token_bytes(_KEY_SIZE), secrets.token_bytes(_KEY_SIZE)
        )
        return self.verifiers.get(name, nobody)


def may_be_a_name(text: str) -> bool:
    """Whether it is short enough for a user's name. To be asked before `prepared`.

    That takes 2 µs for a character, and first makes up to eighteen characters of one.
    """
    return (
        len(text) <= LONGEST_NAME
        and len(unicodedata.ucd_3_2_0.normalize("NFKC", text)) <= LONGEST_NAME
    )


def prepared(text: str) -> str:
    """A name or a password in the form in which they are compared. Raises PasswordError."""
    try:
        return str(saslprep(text))
    except ScramException as error:
        # What it says holds no part of the text, which may be a password.
        raise PasswordError(f"characters that SASL does not allow: {error.args[0]}") from error


def verifier_for(password: str) -> Verifier:
    """A new verifier for a password. Raises PasswordError when it will not do as one."""
    if not (prepared(password) and len(password) <= _LONGEST_PASSWORD):
        raise PasswordError(f"a password has 1 to {_LONGEST_PASSWORD} characters")
    salt, stored_key, server_key, iterations = ScramMechanism("SCRAM-SHA-256").make_auth_info(
        password, ITERATIONS, secrets.token_bytes(_SALT_SIZE)
    )
    return Verifier(iterations, salt, stored_key, server_key)


class PasswordFile:
    """Where the verifiers lie. Every attempt looks at the file anew, so a change counts at once.

    What is in it is remembered until it changes: to take 6000 users apart is 24 ms of Python, and
    anybody may make an attempt.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._known: tuple[tuple[int, ...], Passwords] | None = None

    def read(self) -> Passwords:
        """Raises PasswordError if it is not there, not in order or not ours alone."""
        try:
            with open(self.path, "rb", opener=_open) as file:
                status = os.fstat(file.fileno())
                self._check(status)
                version = _version(status)
                known = self._known
                if known is not None and known[0] == version:
                    return known[1]
                content = self._content(file)
        except FileNotFoundError:
            fix = "set the first user's password, which makes it (proxyd passwd NAME)"
            raise PasswordError(f"{self.path}: there is no such file; {fix}") from None
        except OSError as error:
            raise self._failed(error) from error
        passwords = self._parsed(content)
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
        self._known = (version, passwords) if settled else None
        return passwords

    def names(self) -> tuple[str, ...]:
        """Who has a password, sorted. Raises PasswordError."""
        return tuple(sorted(self.read().verifiers))

    def set_password(self, name: str, password: str) -> None:
        """Adds a user or changes a password; makes the file if there is none.

        Raises PasswordError, and the file is as it was.
        """
        name = self._usable(name)
        verifier = verifier_for(password)
        with self._locked():
            if os.path.lexists(self.path):
                old = self.read()
            else:
                old = Passwords(secrets.token_bytes(_KEY_SIZE), {})
            self._write(Passwords(old.made_up, {**old.verifiers, name: verifier}))

    def remove(self, name: str) -> None:
        """Takes a user out. Raises PasswordError, also if there is no such user."""
        name = prepared(name)
        with self._locked():
            old = self.read()
            if name not in old.verifiers:
                raise PasswordError(f"{self.path}: it has no user {excerpt(name)}")
            kept = {each: value for each, value in old.verifiers.items() if each != name}
            self._write(Passwords(old.made_up, kept))

    def _usable(self, name: str) -> str:
        name = prepared(name) if may_be_a_name(name) else ""
        if not name:
            raise PasswordError(f"a user's name has 1 to {LONGEST_NAME} characters")
        if ":" in name or not name.isprintable():
            raise PasswordError(f"a colon or a special character is in the name {excerpt(name)}")
        return name

    def _content(self, file: BinaryIO) -> bytes:
        content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise PasswordError(f"{self.path}: it is larger than {_LARGEST_FILE >> 20} MiB")
        return content

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise PasswordError(f"{self.path}: it is no regular file; name another")
        if status.st_uid not in {0, os.geteuid()}:
            fix = f"chown it to uid {os.geteuid()} and set every password again"
            raise PasswordError(f"{self.path}: it belongs to uid {status.st_uid}; {fix}")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(status.st_mode)
            fix = "chmod 0600 and, if somebody may have looked, set every password again"
            raise PasswordError(f"{self.path}: others may use it (mode {mode:04o}); {fix}")

    def _parsed(self, content: bytes) -> Passwords:
        try:
            header, *lines = content.decode().splitlines()
        except ValueError:  # no UTF-8, or no line at all
            header, lines = "", []
        begin = _HEADER.fullmatch(header)
        if not begin:
            fix = "move it away and set the passwords again"
            raise PasswordError(f"{self.path}: it is no file of proxyd's passwords; {fix}")
        verifiers: dict[str, Verifier] = {}
        for number, line in enumerate(lines, 2):
            found = _LINE.fullmatch(line)
            if not found or int(found[2]) < _FEWEST_ITERATIONS or found[1] in verifiers:
                fix = "take that line out and set this user's password again"
                raise PasswordError(f"{self.path}:{number}: no user's verifier; {fix}")
            verifiers[found[1]] = Verifier(int(found[2]), *map(b64decode, found.groups()[2:]))
        return Passwords(b64decode(begin[1]), verifiers)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among those who write. The file itself is replaced, so another one is locked."""
        path = Path(self.path)
        try:
            with own_lock(path.with_name(f".{path.name}.lock"), _PATIENCE_S):
                yield
        except NotLocked as error:
            raise PasswordError(f"{self.path}: {error}") from error
        except OSError as error:
            raise self._failed(error) from error

    def _write(self, passwords: Passwords) -> None:
        """Either the whole new content is there afterwards or the old, also after a crash."""
        lines = [f"proxyd-passwords 1 {b64encode(passwords.made_up).decode()}"]
        lines += [f"{name}:{value}" for name, value in sorted(passwords.verifiers.items())]
        directory = Path(self.path).parent
        descriptor, new = tempfile.mkstemp(prefix=".passwords.", dir=directory)  # mode 0600
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(descriptor)
            os.replace(new, self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(new)
            raise
        lasting = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(lasting)
        finally:
            os.close(lasting)

    def _failed(self, error: OSError) -> PasswordError:
        return PasswordError(f"{self.path}: {error.strerror} (as uid {os.geteuid()})")


def _version(status: os.stat_result) -> tuple[int, ...]:
    """Another one, whenever the file was changed or replaced."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _open(path: str, flags: int) -> int:
    # Otherwise a FIFO would keep us waiting for somebody who writes.
    return os.open(path, flags | os.O_NONBLOCK)
