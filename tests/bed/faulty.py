"""proxyd with a fault at one step of an upgrade: `python -m tests.bed.faulty ARGUMENTS`.

Steps are listed nowhere: each function of the rooms that hand over is one when it is called first,
and each system call of the channel and of the start of another process. Those that a process comes
by are written down, in their order, to DIRECTORY/{old,new}.PID. DIRECTORY/plan says what is to
happen: {"side": "new", "step": "…", "fault": "SIGKILL"}, where a fault is a signal to itself or the
name of an error; and how patient the old one is. DIRECTORY is in PROXYD_TEST_FAULTS.
"""

import errno
import functools
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from trio._socket import _SocketType as OfTrio

import proxyd
from proxyd.cli.main import main
from proxyd.upgrade import outgoing, relaunch
from proxyd.upgrade.channel import Channel

DIRECTORY = "PROXYD_TEST_FAULTS"
ROOMS = (
    "daemon/doors.py",
    "daemon/lineage.py",
    "daemon/succession.py",
    "process/pidfile.py",
    "relay/moving.py",
    "upgrade/incoming.py",
    "upgrade/moves.py",
    "upgrade/outgoing.py",
    "upgrade/predecessor.py",
    "upgrade/relaunch.py",
    "upgrade/retirement.py",
)
AS_IN = {f"{Path(proxyd.__file__).parent}/{each}": each for each in ROOMS}


class Steps:
    """Of one process. Those of the old one are counted from when it is to upgrade."""

    def __init__(self, side, directory):
        self.directory = directory
        self.side = side
        self.passed = set()
        self.plan = {}
        self.active = False

    def begin(self):
        with suppress(FileNotFoundError):
            self.plan = json.loads((self.directory / "plan").read_text())
        for name, seconds in self.plan.get("patience", {}).items():
            setattr(outgoing, name, seconds)
        self.passed.clear()
        self.active = True
        if self.plan.get("functions", True):
            threading.setprofile(self.called)
            sys.setprofile(self.called)

    def called(self, frame, event, _argument):
        room = AS_IN.get(frame.f_code.co_filename) if event == "call" else None
        if room is not None and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # no class
            self.come_by(f"{room}:{frame.f_code.co_qualname}")

    def come_by(self, step):
        """Raises OSError where that is the fault."""
        if not step or not self.active or step in self.passed:
            return
        self.passed.add(step)
        with (self.directory / f"{self.side}.{os.getpid()}").open("a") as written:
            written.write(f"{step}\n")
        if (self.plan.get("side"), self.plan.get("step")) == (self.side, step):
            fault = self.plan["fault"]
            if not fault.startswith("SIG"):
                number = getattr(errno, fault)
                raise OSError(number, os.strerror(number))
            os.kill(os.getpid(), getattr(signal, fault))


def watch(steps):
    """What is said and heard, and the system calls by which that and a start are done."""

    def before(owner, name, step):
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*arguments, **more):
            steps.come_by(step(*arguments) if callable(step) else step)
            return original(*arguments, **more)

        setattr(owner, name, watched)

    watch_talk(steps)
    for name in ("sendmsg", "send", "recvmsg", "recv_into"):
        original = getattr(OfTrio, name)

        async def call(self, *arguments, original=original, name=name):
            if self.type == socket.SOCK_SEQPACKET:
                steps.come_by(f"system call {name}")
            return await original(self, *arguments)

        setattr(OfTrio, name, call)
    before(socket, "socketpair", "system call socketpair")
    before(os, "memfd_create", "system call memfd_create")
    before(os, "pread", "system call pread")
    before(os, "rename", "system call rename")
    for name in ("open", "lstat", "unlink"):
        before(os, name, functools.partial(_of_a_file, name))
    before(subprocess.Popen, "_execute_child", "system call fork")
    started = threading.Thread.start

    def start(self):
        try:
            steps.come_by("system call clone")
        except OSError as error:
            raise RuntimeError("can't start new thread") from error  # as Python has it
        started(self)

    threading.Thread.start = start


def watch_talk(steps):
    """What is said and heard."""
    heard = Channel.receive

    async def receive(self):
        message = await heard(self)
        if message is not None:
            steps.come_by(f"heard {message.kind}")
        return message

    Channel.receive = receive
    said = Channel.send

    async def send(self, kind, document=None, descriptors=()):
        steps.come_by(f"about to say {kind}")
        await said(self, kind, document, descriptors)
        steps.come_by(f"has said {kind}")

    Channel.send = send


def _of_a_file(call, path, *_):
    name = Path(os.fsdecode(path)).name
    return f"system call {call} of {name}" if not path.startswith(("/proc", "/dev")) else ""


def run():
    directory = Path(os.environ[DIRECTORY])
    is_new = relaunch.CHANNEL in os.environ
    steps = Steps("new" if is_new else "old", directory)
    watch(steps)
    if is_new:
        steps.begin()
    upgraded = outgoing.HandOver.run

    async def upgrade(self):
        steps.side = "old"
        steps.begin()
        try:
            return await upgraded(self)
        finally:
            steps.active = False
            sys.setprofile(None)
            threading.setprofile(None)

    outgoing.HandOver.run = upgrade
    return main()


if __name__ == "__main__":
    raise SystemExit(run())
