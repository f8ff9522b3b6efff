"""What the daemon needs besides itself, and whether that is there: for `proxyd status`.

Nothing is looked at until somebody asks. What was there once, say a daemon's socket, and is not any
more is a fault; a reload of the configuration forgets what was.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from proxyd.admin import document
from proxyd.audit.writer import Audit
from proxyd.config.routes import Destination
from proxyd.daemon.in_force import Current
from proxyd.session.roster import Roster

if TYPE_CHECKING:  # it brings D-Bus with it
    from proxyd.polkit.authority import PolkitAuthority


@dataclass(slots=True, kw_only=True)
class Needs:
    """`can_start` is whether this process itself starts a daemon that is not there."""

    current: Current
    roster: Roster
    polkit: "PolkitAuthority | None"
    can_start: Callable[[Destination], bool]
    audit: Audit = field(default_factory=Audit)
    _present: set[str] = field(init=False)
    _files: dict[str, tuple[int, int] | None] = field(init=False)

    def __post_init__(self) -> None:
        self._files = {path: _identity(path) for path in self._paths()}
        self.remember()

    def remember(self) -> None:
        """The daemons that are there now, and no others."""
        table = self.current.now.routes
        self._present = {each.path for each in table.known() if os.path.exists(each.path)}
        self.roster.backends.clear()

    def was_present(self, destination: Destination) -> bool:
        """Whether its socket was there at any time. To be asked of whatever is told of."""
        path = destination.path
        if os.path.exists(path):
            self._present.add(path)
        return path in self._present or path in self.roster.backends

    def is_missing(self, destination: Destination) -> bool:
        """Whether it was there, is not, and does not come by itself when a client does."""
        return (
            self.was_present(destination)
            and not os.path.exists(destination.path)
            and not self.can_start(destination)
        )

    def broken(self, path: str) -> str | None:
        """Why nobody reaches the listener that was bound to this path."""
        was, now = self._files.get(path), _identity(path)
        if now is None:
            return "its file is gone: nobody can connect to it; start proxyd (or its socket) anew"
        if was is not None and was != now:
            return (
                "its file was replaced, and clients reach somebody else; stop whoever listens there"
                " now, and start proxyd (or its socket) anew"
            )
        return None

    async def faults(self, *, wake: bool) -> list[document.Fault]:
        """What is wrong now. polkitd is started for it, if need be, where that is allowed."""
        found = [*self._of_backends()]
        if self.audit.trouble:
            found.append(document.Fault(subject="audit", text=self.audit.trouble))
        if self.polkit is not None:
            trouble = await self.polkit.trouble(wake=wake)
            if trouble:
                text = f"clients that polkit is asked about are refused: {trouble}"
                found.append(document.Fault(subject="polkit", text=text))
        found += await trio.to_thread.run_sync(lambda: [*self._of_sasl()])
        return found

    def _of_backends(self) -> Iterator[document.Fault]:
        now = self.current.now
        directory = now.settings.proxyd_backend_dir
        if directory is not None and not os.path.isdir(directory):
            text = f"{directory}: there is no such directory, so no daemon is found there"
            yield document.Fault(subject="proxyd_backend_dir", text=text)
        elif not any(map(self._is_there, self._served())):
            text = "no daemon behind has a socket: whatever a client opens, it gets an error"
            yield document.Fault(subject="daemons", text=text)

    def _served(self) -> Iterator[Destination]:
        """The hypervisors' daemons, and those that a route names."""
        table = self.current.now.routes
        for _, name in table.probed(readonly=False):
            yield table.resolve(name, readonly=False)
        named = set(table.routes.values())
        for each in table.known():
            if {each.daemon, each.path} & named:
                yield each

    def _is_there(self, destination: Destination) -> bool:
        return os.path.exists(destination.path) or self.can_start(destination)

    def _of_sasl(self) -> Iterator[document.Fault]:
        """Reads files."""
        told = set[str]()
        for offering in self.current.now.offerings.values():
            for name, reason in offering.lost():
                if reason not in told:
                    told.add(reason)
                    text = f"clients are offered {name}, which cannot serve: {reason}"
                    yield document.Fault(subject="sasl", text=text)

    def _paths(self) -> Iterator[str]:
        """Of the sockets that listen."""
        now = self.current.now
        for listener, _ in (*now.listeners, *now.admin_listeners):
            name = listener.getsockname()
            if isinstance(name, str) and name.startswith("/"):
                yield name


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
