"""Where the keys of this host's libvirt service lie.

Every key of libvirt/ANYTHING in the keytab serves, whatever this host calls itself: clients take
the name from their URI, and a host may have many. Keys of other services in it do not serve. Both
is settled by asking for the credentials of "libvirt" without a host, for which libkrb5 tries
these keys alone. It would not do to let it try all and to look at the name then: where services
share a key, as they do in Active Directory, it would report the first of them. Nor is the
service's name in a ticket of any worth, being the one part of it that is not protected.
"""

import os
import shlex
import stat
import struct
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Final

from proxyd.config.quoting import one_line

if TYPE_CHECKING:
    import gssapi

SERVICE: Final = "libvirt"

_CREATE: Final = "kadmin: addprinc -randkey libvirt/HOST, then ktadd -k {file} libvirt/HOST"
_EXPORT: Final = "kadmin: ktadd -k {file} libvirt/HOST"
# The package with the library has no wheels for Linux, so it is built.
_BUILT_WITH: Final = (
    "apt-get install gcc python3-dev libkrb5-dev    # Debian, Ubuntu",
    "dnf install gcc python3-devel krb5-devel       # Fedora and its kin",
)
_LARGEST_KEYTAB: Final = 1 << 20
_VERSION: Final = b"\x05\x02"


class KeytabError(Exception):
    """No key of ours can be had. The text names the file, what is wrong and what mends it."""


class KerberosMissing(KeytabError):
    """The extra "gssapi" was not installed, or libkrb5 is gone. `remedy` has lines for a shell."""

    def __init__(self, cause: ImportError) -> None:
        pip = shlex.join([sys.executable, "-m", "pip", "install", "proxyd[gssapi]"])
        self.remedy = (_BUILT_WITH[0], f"# or: {_BUILT_WITH[1]}", pip)
        debian, fedora = (each.partition("   ")[0] for each in _BUILT_WITH)
        super().__init__(
            f"Kerberos needs a library that is not here ({one_line(str(cause))}); {debian} (on"
            f" Fedora: {fedora}), then {pip}"
        )


class Keytab:
    """Where the service's keys lie. Nothing is kept: every attempt reads the file anew.

    So a new key serves without a reload. It costs 0.05 ms. Without a path it is the file that
    libkrb5 takes by itself: KRB5_KTNAME, default_keytab_name in krb5.conf, or /etc/krb5.keytab.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        file = path or "/etc/krb5.keytab"
        self.create = _CREATE.format(file=file)
        self.export = _EXPORT.format(file=file)

    def principals(self) -> tuple[str, ...]:
        """The libvirt/… names that have a key, as libvirt/HOST@REALM. Raises KeytabError.

        Without a path there are none to show, for libkrb5 does not tell which file it took; no
        error means that there is a key.
        """
        if self.path is None:
            self.credentials()
            return ()
        ours = [each for each in self._everyone(self.path) if each.startswith(f"{SERVICE}/")]
        if not ours:
            raise KeytabError(f"{self.path}: it has no key of libvirt/HOST; {self.create}")
        return tuple(dict.fromkeys(ours))

    def demand_library(self) -> None:
        """Raises KerberosMissing where no key would be of any use."""
        _kerberos()

    def credentials(self) -> "gssapi.Credentials":
        """What to accept clients with. Raises KeytabError."""
        found: gssapi.Credentials = _kerberos().accepting(self)
        return found

    def _everyone(self, path: str) -> list[str]:
        try:
            content = _read(path)
        except FileNotFoundError:
            raise KeytabError(f"{path}: there is no such file; {self.create}") from None
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            fix = f"it must be a keytab that this process (uid {os.geteuid()}) can read"
            raise KeytabError(f"{path}: {words}; {fix}") from error
        try:
            return list(_names_in(content))
        except (ValueError, struct.error) as error:
            fix = f"move it away and make a new one ({self.create})"
            raise KeytabError(f"{path}: it is no keytab, or a broken one; {fix}") from error


def _kerberos() -> ModuleType:
    """What works with libkrb5, which a host without Kerberos need not have."""
    try:
        from proxyd.sasl import gssapi_keytab  # noqa: PLC0415 (its library may be missing)
    except ImportError as error:
        raise KerberosMissing(error) from error
    return gssapi_keytab


def _open(path: str, flags: int) -> int:
    # Otherwise a FIFO would keep us waiting for somebody who writes.
    return os.open(path, flags | os.O_NONBLOCK)


def _read(path: str) -> bytes:
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(_LARGEST_KEYTAB + 1)
    if len(content) > _LARGEST_KEYTAB:
        raise ValueError(f"it is larger than {_LARGEST_KEYTAB >> 20} MiB")
    return content


def _names_in(content: bytes) -> Iterator[str]:
    """Whose keys are in a keytab: MIT's documented format, version 2.

    Each entry has its length before it, negative for one that was deleted; it begins with the
    number of the name's components, the realm, and the components.
    """
    if not content.startswith(_VERSION):
        raise ValueError("no keytab of version 2")
    at = len(_VERSION)
    while at < len(content):
        (size,) = struct.unpack_from(">i", content, at)
        at += 4
        if size > 0:
            yield _name_of(content[at : at + size])
        elif size == 0:
            return
        at += abs(size)


def _name_of(entry: bytes) -> str:
    (count,) = struct.unpack_from(">H", entry)
    at, parts = 2, []
    for _ in range(count + 1):
        (length,) = struct.unpack_from(">H", entry, at)
        at += 2
        parts.append(one_line(entry[at : at + length].decode(errors="backslashreplace")))
        if len(entry) < at + length:
            raise ValueError("cut off")
        at += length
    realm, *components = parts
    return f"{'/'.join(components)}@{realm}"
