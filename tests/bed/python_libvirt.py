"""Scripts that use libvirt's own Python binding, run by the distribution's interpreter.

The binding is the package python3-libvirt of /usr/bin/python3; the virtual environment has none.
"""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final

from tests.bed.command import Finished, held_open, run_to_end

INTERPRETER: Final = "/usr/bin/python3"


def run_script(
    script: str,
    *arguments: str,
    pass_fds: Sequence[int] = (),
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    deadline_s: float = 60,
) -> Finished:
    """Run a script to its end; sys.argv[1:] are the arguments, descriptors keep their numbers."""
    return run_to_end(
        [INTERPRETER, "-c", script, *arguments],
        pass_fds=pass_fds,
        user=user,
        environment=environment,
        deadline_s=deadline_s,
    )


def held_script(
    script: str,
    *arguments: str,
    pass_fds: Sequence[int] = (),
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a script with pipes to its stdin and from its stdout; it ends with the block."""
    return held_open(
        [INTERPRETER, "-u", "-c", script, *arguments],
        pass_fds=pass_fds,
        user=user,
        environment=environment,
    )
