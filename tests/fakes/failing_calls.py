"""The kernel says no: the n-th system call that proxyd makes fails, and only that one.

Calls are told by who makes them: what a test, trio or the standard library asks of the kernel is
neither counted nor failed. Left alone are calls that need neither memory nor a descriptor's number
and so have nothing to run out of: closing, shutting down, waiting in epoll, reading and writing an
eventfd.
"""

import errno
import fcntl
import functools
import os
import select
import socket
import sys
import threading
from contextlib import contextmanager

import pytest
import trio

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

_OF_A_SOCKET = (
    "accept",
    "connect",
    "getsockopt",
    "recv",
    "recv_into",
    "recvmsg_into",
    "send",
    "sendmsg",
    "setsockopt",
)
_OF_THE_SYSTEM = ("open", "pipe2", "read", "splice", "write")
_OF_AN_EPOLL = ("modify", "register", "unregister")


class FailingCalls:
    """Counts the calls of one thread while `active`; the one numbered `fails` (from 0) fails.

    `made` names the calls so far; `failed` is the name of the one that did.
    """

    def __init__(self):
        self.made = []
        self.failed = ""
        self._fails = -1
        self._errno = 0
        self._thread = 0

    @contextmanager
    def active(self, fails=-1, number=0):
        """In this thread, while the block lasts. Without arguments calls are just counted."""
        self.made, self.failed = [], ""
        self._fails, self._errno = fails, number
        self._thread = threading.get_ident()
        try:
            yield self
        finally:
            self._thread = 0

    def passes(self, name, caller):
        """Counts a call; raises instead when it is the one."""
        if threading.get_ident() != self._thread or not _is_ours(caller):
            return
        self.made.append(name)
        if len(self.made) - 1 == self._fails:
            self.failed = f"{name} in {caller.f_code.co_qualname}"
            raise OSError(self._errno, os.strerror(self._errno))


def _is_ours(frame):
    return frame.f_globals.get("__name__", "").startswith("proxyd.")


@contextmanager
def failing_calls():
    """Sees to everything by which proxyd reaches the kernel, while the block lasts."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield _watched(monkeypatch)


def _watched(monkeypatch):
    calls = FailingCalls()

    def watch(owner, name, called):
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*arguments, **more):
            calls.passes(called, sys._getframe(1))
            return original(*arguments, **more)

        monkeypatch.setattr(owner, name, watched)

    for name in _OF_A_SOCKET:
        watch(socket.socket, name, name)
    for name in _OF_THE_SYSTEM:
        watch(os, name, name)
    watch(fcntl, "fcntl", "fcntl")
    watch(fcntl, "ioctl", "ioctl")
    # What they fail with is epoll_ctl; trio has no other way to wait for a socket.
    watch(trio.lowlevel, "wait_readable", "epoll_ctl")
    watch(trio.lowlevel, "wait_writable", "epoll_ctl")
    _watch_new_sockets(calls, monkeypatch)
    _watch_new_epolls(calls, monkeypatch)
    return calls


def _watch_new_sockets(calls, monkeypatch):
    original = socket.socket.__init__

    def watched(self, *arguments, **more):
        if more.get("fileno") is None:
            calls.passes("socket", sys._getframe(1))
        original(self, *arguments, **more)

    monkeypatch.setattr(socket.socket, "__init__", watched)


def _watch_new_epolls(calls, monkeypatch):
    """An epoll object has no attributes of its own to replace, so ours are wrapped."""
    original = select.epoll

    class WatchedEpoll:
        def __init__(self):
            self._epoll = original()

        def __getattr__(self, name):
            method = getattr(self._epoll, name)
            if name not in _OF_AN_EPOLL:
                return method

            def watched(*arguments):
                calls.passes(f"epoll {name}", sys._getframe(1))
                return method(*arguments)

            return watched

    monkeypatch.setattr(
        select, "epoll", lambda: WatchedEpoll() if _is_ours(sys._getframe(1)) else original()
    )
