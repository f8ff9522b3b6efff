"""A host that is taken out of service: nobody new is let in, whoever is here goes on.

How those who come are told stands in session/reception.py. A reload changes nothing of it, and a
daemon that is started anew knows nothing of it; so there is no idle exit meanwhile (idle.py), or
the next client would have systemd start one that lets him in.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from proxyd.admin import document
from proxyd.invocation import pasteable
from proxyd.session.roster import Roster

NOTE: Final = "draining, nobody new is let in"

log = logging.getLogger("daemon.virtproxyd")


@dataclass(frozen=True, eq=False, slots=True)
class _Begun:
    at: float = field(default_factory=time.time)


class Drain:
    """Begins and ends by an administrator's word. `on_change` is called when it has."""

    def __init__(self, roster: Roster) -> None:
        self.on_change: Callable[[], None] = _nobody_listens
        self._roster = roster
        self._begun: _Begun | None = None
        self._changed = trio.Event()

    @property
    def told(self) -> document.Drain | None:
        """How far it is; None while everybody is let in."""
        if self._begun is None:
            return None
        left = self._roster.admission.clients
        return document.Drain(since=self._begun.at, left=left, negotiating=left - self._open())

    def begin(self) -> bool:
        """From now on nobody new is let in; whether that is news."""
        if self._begun is not None:
            return False
        self._begun = _Begun()
        log.warning(
            "draining: nobody new is let in any more (%s ends that); %s",
            pasteable("`proxyd drain --undo`"),
            _here(self._roster.admission.clients),
        )
        self._put(on=True)
        return True

    def go_on(self, since: float) -> None:
        """Before anybody is let in: the process that this one takes the place of is draining."""
        self._begun = _Begun(since)
        self._put(on=True)

    def undo(self) -> bool:
        """From now on clients are let in; whether that is news."""
        if self._begun is None:
            return False
        log.warning(
            "draining no more, after %.0f s: clients are let in again; %s",
            time.time() - self._begun.at,
            _here(self._roster.admission.clients),
        )
        self._begun = None
        self._put(on=False)
        return True

    async def run(self) -> None:
        """Says when the last one has gone."""
        admission = self._roster.admission
        while True:
            changed, begun = self._changed, self._begun
            if begun is not None and admission.clients:
                while self._begun is begun and admission.clients:
                    await admission.wait_change()
                if self._begun is begun:
                    log.warning("draining: the last client has gone, nobody is left")
            await changed.wait()

    def _open(self) -> int:
        return sum(client.pair is not None for client in self._roster.clients.values())

    def _put(self, *, on: bool) -> None:
        self._roster.admission.drain(on=on)
        self._changed.set()
        self._changed = trio.Event()
        self.on_change()


def _here(clients: int) -> str:
    if clients == 1:
        return "1 client is here"
    return f"{clients or 'no'} clients are here"


def _nobody_listens() -> None:
    """Until somebody does."""
