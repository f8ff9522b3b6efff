"""Couriers: processes that have to do with other people's descriptors, so that this one has not.

A courier (courier.py) serves one user, the one at the other end of the client's socket. It is
started when there is something for it to do and ends when there is nothing for a while. A thread
of its own waits for its answers; errands of a user are done one after the other.

What a user can do with it, and who pays:

* A descriptor whose close lingers holds up this user's next one. The courier is then killed, and
  dying it lingers for nothing; the next errand gets another one.
* One whose close never returns (a file of a FUSE file system whose server does not answer) keeps
  the courier from dying. The user is then `hanging`: his errands fail, his new clients are turned
  away, and what would have to be closed for him waits. That ends when the courier does.
* Couriers are few: from `most` on those that have nothing to do leave, and there are never more
  than twice as many. Each takes two descriptors of ours.

None of this process's threads ever closes what somebody has passed, so it can always end; couriers
end when it does, but for those that hang.
"""

import logging
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from proxyd.endpoint import courier as program
from proxyd.endpoint.passing import cut_off, has_never_taken_any, owner_of

MOST: Final = 32  # where descriptors are plenty
PATIENCE_S: Final = 2.0
IDLE_S: Final = 10.0
_DYING_S: Final = 1.0
_RETRY_S: Final = 1.0
_LONGEST_ANSWER: Final = 256
_MOST_WAITING: Final = 64  # errands of one user; libvirt's clients pass one at a time, seldom
_MOST_IN_ONE: Final = 250  # descriptors in a message; the kernel takes three more
_NO_COURIER: Final = "no courier can be had for its descriptors"
_TOO_MANY: Final = "too many descriptors of its user are under way"
_HANGS: Final = "what its user has passed before cannot be closed"

log = logging.getLogger("proxyd.relay")


class Errand:
    """One descriptor: the next byte of `source` carries it.

    It goes on to `destination`, or nowhere if that is None. Both are borrowed until `cancel` or
    the answer: `done` is called once, in another thread, with the reason why not, or "".
    """

    def __init__(self, source: int, destination: int | None, done: Callable[[str], None]) -> None:
        self._sockets = [source] if destination is None else [source, destination]
        self._word = b"take" if destination is None else b"carry"
        self._done: Callable[[str], None] | None = done
        self._lock = threading.Lock()  # between giving the sockets and losing them

    def cancel(self) -> None:
        """Nobody waits for it any more; from here on its sockets are the owner's alone."""
        with self._lock:
            self._done = None

    def hand_to(self, control: socket.socket) -> bool:
        """False if it has been cancelled. Raises OSError."""
        with self._lock:
            if self._done is None:
                return False
            socket.send_fds(control, [self._word], self._sockets)
            return True

    def end(self, reason: str) -> None:
        """Says how it went; only the first word counts."""
        with self._lock:
            done, self._done = self._done, None
        if done is not None:
            done(reason)


class Burial:
    """Sockets of one user that are to be closed, and in whose queues descriptors are left."""

    def __init__(self, sock: socket.socket) -> None:
        self._sockets = [sock]

    def add(self, other: "Burial") -> None:
        self._sockets += other._sockets  # noqa: SLF001 (the same class)

    def __len__(self) -> int:
        return len(self._sockets)

    def hand_to(self, control: socket.socket) -> bool:
        """Whatever fails, each is closed here only once the courier has it as well."""
        while some := self._sockets[:_MOST_IN_ONE]:
            socket.send_fds(control, [b"hold"], [each.fileno() for each in some])
            del self._sockets[: len(some)]
            for each in some:
                each.close()
        with suppress(BlockingIOError):  # they are dropped with the next ones then
            control.send(b"drop")
        return True

    def end(self, reason: str) -> None:
        """Nobody waits for it."""


Task = Errand | Burial


class Couriers:
    """Those of this process, by the uid that they serve. Any thread may call."""

    def __init__(self) -> None:
        self.most = MOST
        self.on_hanging: Callable[[str], None] = _nobody_listens  # in a thread of the courier's
        self._changed = threading.Condition()
        self._by_owner: dict[str, _Courier] = {}

    def carry(self, owner: str, errand: Errand) -> None:
        """Done soon, or not at all: its reason then says why."""
        self._give(owner, errand)

    def bury(self, sock: socket.socket) -> None:
        """Closes a UNIX socket, whatever is in its queue. Once is enough; more is harmless."""
        if sock.fileno() >= 0 and cut_off(sock):
            self._give(owner_of(sock), Burial(sock))
        else:
            sock.close()

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
            return self._changed.wait_for(
                lambda: not any(each.buries for each in self._by_owner.values()), timeout_s
            )

    def dismiss(self, timeout_s: float) -> bool:
        """Sends all away that have nothing to do any more; whether they have left in time."""
        with self._changed:
            for each in self._by_owner.values():
                each.make_room()
            return self._changed.wait_for(lambda: not self._by_owner, timeout_s)

    def _give(self, owner: str, task: Task) -> None:
        with self._changed:
            courier = self._by_owner.get(owner) or self._new(owner)
            refusal = _NO_COURIER if courier is None else courier.take(task)
        if refusal:
            task.end(refusal)

    def _new(self, owner: str) -> "_Courier | None":
        """With the lock held. None when there are too many, or no room for another thread."""
        if len(self._by_owner) >= self.most:
            for each in self._by_owner.values():
                each.make_room()
            if len(self._by_owner) >= 2 * self.most:
                return None
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
            process, control = _start()
        except OSError as error:
            log.warning("no courier for descriptors can be started: %s", error.strerror)
            self._fail_all(_NO_COURIER)
            with self._changed:
                self._changed.wait_for(lambda: self._leaving, _RETRY_S)
            return
        with control, control.dup() as at_once:
            at_once.setblocking(False)
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
            process.wait(_DYING_S)
            return
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
        self._outlive(process)
        with self._changed:
            self.hanging = False
        log.warning("what %s has passed is closed: that user is served again", self.owner)

    def _outlive(self, process: subprocess.Popen[bytes]) -> None:
        """What is to be closed meanwhile waits in the queue of the one that hangs."""
        while process.poll() is None:
            with self._changed:
                if self._changed.wait_for(lambda: self.buries, _RETRY_S) and not self._bury():
                    self._changed.wait(_RETRY_S)

    def _fail_all(self, reason: str) -> None:
        with self._changed:
            errands = [each for each in self._tasks if isinstance(each, Errand)]
            self._tasks = deque(each for each in self._tasks if isinstance(each, Burial))
            self._changed.notify_all()
        for each in errands:
            each.end(reason)


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A courier without our environment, our directory and our descriptors, and the way to it.

    Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE_S)
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", program.__file__],
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
