"""Where a run of the tests takes place: a /tmp, mounts and a network that nobody else sees.

For root alone, and before the first test:

* /tmp is a directory that goes away with the run, however that ends: a process that holds the other
  end of a pipe removes it. Mounts are seen by the run alone and end with its last process.
* Tests run daemons and clients as other users, who have to reach the checkout and its interpreter.
  Below a home directory of mode 0700 they could not. Over the first directory that is closed to
  them an overlay is mounted that is open; nothing on the disk changes.
* What libvirt's daemons find out about QEMU is kept in that /tmp for all of them.
* A worker that runs beside others has a network of its own, a loopback interface: what it takes for
  a free port is free.

Where mounts or networks are not allowed (a container without the right to it), all stays as it is.
"""

import ctypes
import fcntl
import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bed.libvirtd import SHARED

CHECKOUT: Final = Path(__file__).resolve().parents[2]

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 4096
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_TMP: Final = Path("/tmp")
_JANITOR: Final = 'read -r _; rm -rf -- "$1"'
_JANITOR_S: Final = 120.0


class Janitor:
    """Removes a directory at the latest when this process is gone."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", _JANITOR, "sh", str(directory)],
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )

    def finish(self) -> None:
        """Removes it, and returns when it is gone."""
        self._process.communicate(timeout=_JANITOR_S)


def enter() -> Janitor | None:
    """For the process that starts the run; None where nothing was done."""
    if os.geteuid() != 0:
        return None
    directory = Path(tempfile.mkdtemp(prefix="proxyd-tests-", dir=_TMP))
    janitor = Janitor(directory)  # which sees the directory by its own name
    try:
        _unshare(_CLONE_NEWNS)
        _mount("--make-rprivate", "/")
        here = Path.cwd()
        directory.chmod(0o1777)
        with _kept(CHECKOUT):
            for needed in (CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)):
                _open_way_to(needed, directory)
            _mount("--bind", str(directory), str(_TMP))
        os.chdir(here)
        known = _TMP / "qemu"
        known.mkdir(mode=0o700)
        os.environ[SHARED] = str(known)  # workers have it from us
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the tests share /tmp and mounts with this host: {error}", file=sys.stderr)
    return janitor


def enter_own_network() -> None:
    """For a worker: sockets that it makes from now on are seen by itself and its children."""
    if os.geteuid() != 0:
        return
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:  # a container that has no right to it: ports are the host's
        return
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    """What is mounted in the meantime over a directory above this one does not hide it."""
    held = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield
        path.mkdir(parents=True, exist_ok=True)
        if not os.path.samestat(os.fstat(held), path.stat()):
            _bind(f"/proc/self/fd/{held}", path)
    finally:
        os.close(held)


def _open_way_to(path: Path, room: Path) -> None:
    """Lets every user search the directories above it."""
    closed = [each for each in reversed(path.parents) if not _may_be_searched(each)]
    if not closed:
        return
    first = closed[0]
    layer = Path(tempfile.mkdtemp(prefix="overlay-", dir=room))
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(layer))
    upper, work = layer / "upper", layer / "work"
    upper.mkdir(mode=0o755)
    work.mkdir()
    options = f"lowerdir={_escaped(first)},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    _mount("-t", "overlay", "-o", options, "overlay", str(first))
    for each in closed:
        each.chmod(stat.S_IMODE(each.stat().st_mode) | 0o111)


def _may_be_searched(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IXOTH)


def _escaped(path: Path) -> str:
    """As overlayfs' options want it."""
    return "".join(f"\\{char}" if char in "\\:," else char for char in str(path))


def _unshare(flags: int) -> None:
    _checked(_libc().unshare(flags))


def _bind(source: str, target: Path) -> None:
    """Where mount(8) would put what the link says in the place of what it leads to."""
    arguments = (source.encode(), os.fsencode(target), None, ctypes.c_ulong(_MS_BIND), None)
    _checked(_libc().mount(*arguments))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
