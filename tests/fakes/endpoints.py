"""Endpoints that do what they are told, and count what is asked of them."""

from collections import deque

from proxyd.endpoint.contract import NOTHING
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint


class ScriptedEndpoint:
    """No socket: reads give what `arriving` holds, writes are kept in `written`.

    An item of `arriving` is bytes for one read (b"" is the end) or an exception to raise.
    `room` is how much a write takes at most, all of it together; None is everything.
    """

    may_splice = False
    carries_descriptors = False
    pending = False
    reads_when_writable = False

    def __init__(self, *arriving, room=None):
        self.arriving = deque(arriving)
        self.room = room
        self.written = bytearray()
        self.reads = self.writes = self.ends = 0
        self.longest_read = 0

    def read_into(self, view):
        self.reads += 1
        if not self.arriving:
            return NOTHING
        item = self.arriving.popleft()
        if isinstance(item, Exception):
            raise item
        got = min(len(item), len(view))
        view[:got] = item[:got]
        if got < len(item):
            self.arriving.appendleft(item[got:])
        self.longest_read = max(self.longest_read, got)
        return got

    def write(self, view):
        self.writes += 1
        taken = len(view) if self.room is None else min(len(view), self.room)
        if self.room is not None:
            self.room -= taken
        self.written += view[:taken]
        return taken

    def take_descriptors(self):
        raise NotImplementedError

    def splice_to(self, pipe, count):
        raise NotImplementedError

    def splice_from(self, pipe, count):
        raise NotImplementedError

    def end_write(self):
        self.ends += 1

    def fileno(self):
        return -1

    def close(self):
        pass


class _Counting:
    """Counts the calls of a real endpoint and the bytes that went through user space."""

    def __init__(self, sock):
        super().__init__(sock)
        self.reads = self.writes = self.splices = 0
        self.copied = 0

    def read_into(self, view):
        self.reads += 1
        got = super().read_into(view)
        self.copied += max(got, 0)
        return got

    def write(self, view):
        self.writes += 1
        return super().write(view)

    def splice_to(self, pipe, count):
        self.splices += 1
        return super().splice_to(pipe, count)


class CountingPlainEndpoint(_Counting, PlainEndpoint):
    pass


class CountingUnixEndpoint(_Counting, UnixEndpoint):
    pass


class BrokenEndpoint(UnixEndpoint):
    """A real endpoint with a fault of ours: the methods named in `broken` raise RuntimeError."""

    def __init__(self, sock, *broken):
        super().__init__(sock)
        self.broken = broken

    def read_into(self, view):
        self._fail("read_into")
        return super().read_into(view)

    def write(self, view):
        self._fail("write")
        return super().write(view)

    def close(self):
        super().close()
        self._fail("close")

    def _fail(self, method):
        if method in self.broken:
            raise RuntimeError(f"{method} is broken")


class HesitantEndpoint(UnixEndpoint):
    """A real endpoint whose next writes take no more bytes than the numbers in `takes`."""

    def __init__(self, sock, takes=(), **more):
        super().__init__(sock, **more)
        self.takes = deque(takes)

    def write(self, view):
        limit = self._limit(len(view))
        return super().write(view[:limit]) if limit else 0

    def splice_from(self, pipe, count):
        limit = self._limit(count)
        return super().splice_from(pipe, limit) if limit else 0

    def _limit(self, count):
        return min(count, self.takes.popleft()) if self.takes else count
