"""The bare relays of a run: processes of ours between its client and the daemon."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from ..client import Opening
from ..failures import TargetFailure
from ..targets import PidGroup, Protection, Target, TcpAddress, UnixAddress
from . import certificate
from .build import built

NAMES: Final = {False: "bare", True: "bare-tls"}  # whether it speaks TLS
_END_S: Final = 10.0


@contextmanager
def bare_relays(
    direct: Target, opening: Opening, kinds: set[bool]
) -> Iterator[dict[bool, tuple[Target, Opening]]]:
    """One of each kind in front of the daemon, and how sessions are opened through it.

    Raises UsageError where none can be built, TargetFailure where one does not start.
    """
    # The directory is ours alone, and with it the way to a daemon that may trust us.
    with tempfile.TemporaryDirectory(prefix="limit-") as made, ExitStack() as running:
        directory = Path(made)
        programs = {tls: built(directory, tls=tls) for tls in sorted(kinds)}
        found = {}
        for tls, program in programs.items():
            meets, own = str(directory / "sock"), opening
            if tls:
                own = replace(opening, credentials=certificate.made(directory))
                meets = str(directory / "both.pem")
            process, port = running.enter_context(_started(program, meets, direct))
            address = TcpAddress(Protection.TLS, "127.0.0.1", port) if tls else UnixAddress(meets)
            groups = (PidGroup("pid", (process.pid,)),)
            found[tls] = Target(NAMES[tls], address, groups, direct.uri), own
        yield found


@contextmanager
def _started(
    program: Path, meets: str, direct: Target
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    assert isinstance(direct.address, UnixAddress), "the command line sees to it"
    # In a session of its own Ctrl-C does not reach it: it ends with its input, when we do.
    with subprocess.Popen(
        [str(program), meets, direct.address.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            port = process.stdout.readline()
            if not port:
                raise TargetFailure(program.name, process.stderr.read().strip())
            yield process, int(port)
        finally:
            process.stdin.close()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
