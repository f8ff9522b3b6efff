"""What is to be known of a procedure to carry it out: the shape of a row in the tables of them."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from proxyd.admin.view import DaemonView


class Act(NamedTuple):
    """`carry_out` takes the arguments as bytes and returns the result, or what is to be awaited.

    It raises CallRefused, and MalformedFrame. `changes`: something is different afterwards, which
    the log says at the level of information. `closes` says whom, before it is done, as the server's
    name and the client's number; it raises MalformedFrame.
    """

    carry_out: Callable[[DaemonView, bytes], bytes | Awaitable[bytes]]
    changes: bool = False
    closes: Callable[[bytes], tuple[str, int]] | None = None
