"""Couriers: processes that have to do with other people's descriptors, so that this one has not.

A courier (courier.py) serves one user, the one at the other end of the client's socket. It is
started when there is something for it to do and ends when there is nothing for a while. A thread
of its own waits for its answers; errands of a user are done one after the other.

What a user can do with it, and who pays:

* A descriptor whose close lingers holds up this user's next one. The courier is then killed, and
  dying it lingers for nothing; the next errand gets another one.
* One whose close never returns (a file of a FUSE file system whose server does not answer) keeps
  the courier from dying. The user is then `hanging`: his errands fail, his new clients are turned
  away, and what would have to be closed for him waits elsewhere (keepers.py). That ends when the
  courier does.
* Couriers are few: from `most` on those that have nothing to do leave, and there are never more
  than twice as many. Each takes two descriptors of ours, and one more while its user hangs. What
  has to be closed meanwhile for somebody who gets none waits with one who hangs, or for its turn.

None of this process's threads ever closes what somebody has passed, and nothing that holds it stays
here: so this process can always end, once it is `settled`. Couriers end when it does, but for those
that hang.
"""

import errno
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from proxyd.endpoint import courier as program
from proxyd.endpoint.ancillary import cut_off, has_never_taken_any, holds_none, owner_of
from proxyd.endpoint.errands import Burial, Errand, Task
from proxyd.endpoint.keepers import Dying, Started

MOST: Final = 32  # where descriptors are plenty
PATIENCE_S: Final = 2.0
IDLE_S: Final = 5.0
_DYING_AT_ONCE_S: Final = 0.1
_DYING_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.1
_RETRY_S: Final = 1.0
_LONGEST_ANSWER: Final = 256
_MOST_WAITING: Final = 64  # errands of one user; libvirt's clients pass one at a time, seldom
_QUEUED: Final = 1 << 24  # bytes of a process's queue: a socket that comes alone takes up 768
_SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h; Python has no name for it
SPARE: Final = 8  # descriptors of ours that a start takes for a moment
_NO_COURIER: Final = "no courier can be had for its descriptors"
_TOO_MANY: Final = "too many descriptors of its user are under way"
_HANGS: Final = "what its user has passed before cannot be closed"

log = logging.getLogger("proxyd.relay")


class Couriers:
    """Those of this process, by the uid that they serve. Any thread may call."""

    def __init__(self) -> None:
        self.most = MOST
        self.on_hanging: Callable[[str], None] = _nobody_listens  # in a thread of the courier's
        self._changed = threading.Condition()
        self._by_owner: dict[str, _Courier] = {}
        self._left: dict[str, Burial] = {}  # by owner: when nobody was to be had
        self._spare: list[int] = []  # descriptors for when there are no others

    def carry(self, owner: str, errand: Errand) -> None:
        """Done soon, or not at all: its reason then says why."""
        self._give(owner, errand)

    def bury(self, sock: socket.socket) -> None:
        """Closes a UNIX socket, whatever is in its queue. Once is enough; more is harmless."""
        if sock.fileno() >= 0 and cut_off(sock):
            self._give(owner_of(sock), Burial(sock))
        else:
            sock.close()

    def let_go(self, sock: socket.socket) -> None:
        """Closes our copy of a UNIX socket that another process goes on with: nothing is shut down.

        Should that process end before this close, it is the last one, and drops what is queued.
        """
        if sock.fileno() < 0 or holds_none(sock):
            sock.close()
        else:
            self._give(owner_of(sock), Burial(sock))

    def close(self, sock: socket.socket) -> None:
        """Closes an accepted connection of any kind that no endpoint has."""
        if sock.family == socket.AF_UNIX and not has_never_taken_any(sock):
            self.bury(sock)
        else:
            sock.close()

    def hangs(self, owner: str) -> bool:
        """Whether something that this user has passed cannot be closed."""
        courier = self._by_owner.get(owner)
        return courier is not None and courier.hanging

    def settled(self, timeout_s: float) -> bool:
        """Waits until no socket that is to be closed is ours any more; whether that came in time.

        Before this process ends: else the kernel closes them in it, and it may never end.
        """
        with self._changed:
            self._give_what_was_left()
            return self._changed.wait_for(
                lambda: not (self._left or any(each.buries for each in self._by_owner.values())),
                timeout_s,
            )

    def start(self, *role: str) -> Started:
        """A process and the way to it. Raises OSError.

        That descriptors have run out is no reason: it may be what gets them back.
        """
        try:
            return _start(*role)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._spare:
                raise
        self._give_spare_back()
        try:
            return _start(*role)
        finally:
            self._set_spare_aside()

    def dismiss(self, timeout_s: float) -> bool:
        """Sends all away that have nothing to do any more; whether they have left in time."""
        with self._changed:
            for each in self._by_owner.values():
                each.make_room()
            return self._changed.wait_for(lambda: not self._by_owner, timeout_s)

    def _give(self, owner: str, task: Task) -> None:
        with self._changed:
            courier = self._by_owner.get(owner) or self._new(owner)
            if isinstance(task, Burial):
                self._give_burial(courier, owner, task)
                return
            refusal = _NO_COURIER if courier is None else courier.take(task)
        if refusal:
            task.end(refusal)

    def _give_burial(self, courier: "_Courier | None", owner: str, burial: Burial) -> None:
        """With the lock held. Never lets go of it: that would close what is in there, here."""
        if courier is None:
            courier = next((each for each in self._by_owner.values() if each.hanging), None)
        if courier is not None:
            courier.take(burial)
        elif owner in self._left:
            self._left[owner].add(burial)
        else:
            self._left[owner] = burial

    def _give_what_was_left(self) -> None:
        """With the lock held. Somebody may be to be had by now."""
        left, self._left = self._left, {}
        for owner, burial in left.items():
            self._give_burial(self._by_owner.get(owner) or self._new(owner), owner, burial)

    def _set_spare_aside(self) -> None:
        with self._changed, suppress(OSError):
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _give_spare_back(self) -> None:
        with self._changed:
            while self._spare:
                os.close(self._spare.pop())

    def _new(self, owner: str) -> "_Courier | None":
        """With the lock held. None when there are too many, or no room for another thread."""
        if len(self._by_owner) >= self.most:
            for each in self._by_owner.values():
                each.make_room()
            if len(self._by_owner) >= 2 * self.most:
                return None
        self._set_spare_aside()
        courier = _Courier(self, owner, self._changed)
        try:
            threading.Thread(target=courier.run, name=f"courier-{owner}", daemon=True).start()
        except RuntimeError:
            return None
        self._by_owner[owner] = courier
        return courier

    def forget(self, owner: str) -> None:
        """With the lock held: its courier leaves."""
        del self._by_owner[owner]
        self._give_what_was_left()
        if not self._by_owner:
            self._give_spare_back()
        self._changed.notify_all()


class _Courier:
    """One user's. `changed` is the lock of all that is here, notified of every change."""

    def __init__(self, couriers: Couriers, owner: str, changed: threading.Condition) -> None:
        self.owner = owner
        self.hanging = False
        self._couriers = couriers
        self._changed = changed
        self._at_once: socket.socket | None = None  # to its process, if there is one
        self._tasks: deque[Task] = deque()
        self._leaving = False

    @property
    def buries(self) -> bool:
        return any(isinstance(each, Burial) for each in self._tasks)

    def take(self, task: Task) -> str:
        """With the lock held. Why an errand is not taken, or "".

        What has to be closed is always taken, it would be lost else; and the process gets it at
        once, if there is one, whatever it is busy with.
        """
        if isinstance(task, Burial):
            if self._at_once is not None and not self.buries:
                with suppress(OSError):
                    task.hand_to(self._at_once)
                    return ""
        elif self.hanging:
            return _HANGS
        elif len(self._tasks) >= _MOST_WAITING:
            return _TOO_MANY
        self._tasks.append(task)
        self._changed.notify_all()
        return ""

    def make_room(self) -> None:
        """With the lock held. Leaves as soon as nothing is to be done."""
        self._leaving = True
        self._changed.notify_all()

    def run(self) -> None:
        """The thread's life: one process after the other, until there is nothing to do."""
        while self._wait_for_a_task():
            self._employ()

    def _wait_for_a_task(self) -> bool:
        """False when there is none and none can come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._leaving, IDLE_S)
            if self._tasks:
                return True
            self._couriers.forget(self.owner)
            return False

    def _employ(self) -> None:
        """Starts a process and gives it tasks for as long as it does them."""
        try:
            process, control = self._couriers.start()
        except OSError as error:
            log.warning("no courier for descriptors can be started: %s", error.strerror)
            self._fail_all(_NO_COURIER)
            self._pause()
            return
        with control, _that_never_waits(control) as at_once:
            with self._changed:
                self._at_once = at_once
            try:
                while self._do_next(control):
                    pass
            finally:
                process.kill()
                self._wait_for_the_end_of(process)
                with self._changed:
                    self._at_once = None

    def _do_next(self, control: socket.socket) -> bool:
        """False when there is nothing to do, or the courier is of no use any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._leaving, IDLE_S)
            if not self._tasks:
                return False
            if self.buries:
                return self._bury()
            task = self._tasks.popleft()
        try:
            return self._did(task, control)
        except TimeoutError:
            task.end("it cannot be closed, or its receiver takes nothing")
        except OSError as error:
            task.end(f"its courier: {error.strerror}")
        return False

    def _bury(self) -> bool:
        """With the lock held. False if the courier does not even take what it is to close."""
        assert self._at_once is not None
        burials = [each for each in self._tasks if isinstance(each, Burial)]
        self._tasks = deque(each for each in self._tasks if isinstance(each, Errand))
        whole = burials[0]
        for each in burials[1:]:
            whole.add(each)
        try:
            whole.hand_to(self._at_once)
        except OSError:
            self._tasks.append(whole)
            return False
        finally:
            self._changed.notify_all()
        return True

    def _did(self, task: Task, control: socket.socket) -> bool:
        if not task.hand_to(control):
            return True
        while answer := control.recv(_LONGEST_ANSWER):
            if answer == b".":
                return True
            task.end(answer[1:].decode(errors="replace"))
        task.end("its courier has ended")
        return False

    def _wait_for_the_end_of(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DYING_AT_ONCE_S)
            return
        dying, end = Dying(process, self._couriers.start), time.monotonic() + _DYING_S
        while not dying.has_ended():
            if not self.hanging and time.monotonic() >= end:
                self._begin_hanging(process)
            self._have_kept(dying)
        if self.hanging:
            with self._changed:
                self.hanging = False
            log.warning("what %s has passed is closed: that user is served again", self.owner)

    def _begin_hanging(self, process: subprocess.Popen[bytes]) -> None:
        log.warning(
            "a descriptor that %s has passed cannot be closed, its file system does not"
            " answer: that user is not served until courier %d has ended",
            self.owner,
            process.pid,
        )
        with self._changed:
            self.hanging = True
        self._fail_all(_HANGS)
        self._couriers.on_hanging(self.owner)

    def _have_kept(self, dying: Dying) -> None:
        """Waits a moment for what the present queue does not take: that goes into another one."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.buries, _LOOK_EVERY_S) or self._bury():
                return
        try:
            way = dying.another_keeper()
        except OSError as error:
            log.warning("no keeper for descriptors can be started: %s", error.strerror)
            self._pause()
            return
        with self._changed:
            self._at_once = way
            self._bury()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: False, _RETRY_S)

    def _fail_all(self, reason: str) -> None:
        with self._changed:
            errands = [each for each in self._tasks if isinstance(each, Errand)]
            self._tasks = deque(each for each in self._tasks if isinstance(each, Burial))
            self._changed.notify_all()
        for each in errands:
            each.end(reason)


@contextmanager
def _that_never_waits(control: socket.socket) -> Iterator[socket.socket]:
    """Another object for the same descriptor: a second one might not be to be had."""
    same = socket.socket(fileno=control.fileno())
    same.setblocking(False)
    try:
        yield same
    finally:
        same.detach()


def _start(*role: str) -> Started:
    """A courier or a keeper, without our environment, our directory and our descriptors, and the
    way to it. Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE_S)
    with theirs:
        try:
            with suppress(PermissionError):  # a user's own daemon has no other users
                ours.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _QUEUED // 2)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", program.__file__, *role],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def _nobody_listens(_owner: str) -> None:
    """Until somebody does."""


COURIERS: Final = Couriers()
