"""What to do when the system has no more of something; every other remedy would mislead then."""

import errno
from typing import Final

_MORE_OF: Final = {
    errno.EMFILE: "raise the limit of open files (LimitNOFILE=, ulimit -n)",
    errno.ENFILE: "the whole system has no descriptor left (sysctl fs.file-max)",
    errno.ENOMEM: "the system, or this service's share of it, has no memory left",
    errno.ENOBUFS: "the kernel has no memory left for sockets",
}


def remedy(error: OSError, otherwise: str) -> str:
    """Where more of what is short comes from; `otherwise` where nothing is."""
    return _MORE_OF.get(error.errno or 0, otherwise)


def is_shortage(error: OSError) -> bool:
    return error.errno in _MORE_OF


def explained(error: OSError, failed: str) -> str:
    """Why something failed that was done for a client, who is not to blame for a shortage of ours.

    As in `cannot look at process 7: Permission denied`.
    """
    said = error.strerror or str(error)
    if not is_shortage(error):
        return f"{failed}: {said}"
    return f"{failed}: proxyd itself is short, not the client: {said}: {remedy(error, '')}"
