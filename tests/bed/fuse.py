"""A real file system of an unprivileged user whose server stops answering.

The user mounts it in a user and a mount namespace of his own, so nobody else sees it; what leaves
the namespace is a descriptor of one of its files. A close of that descriptor asks the server, and
waits for the answer without being interruptible. It can always be ended: when the server's process
ends, at the latest when the test does, /dev/fuse closes, and the kernel aborts the connection and
wakes everybody who waits.

It runs in the user's script, so it is nothing but Python's own. Numbers and layouts are those of
linux/fuse.h, version 7.31. The tests' side of it, the device, is in hostile.py.
"""

import ctypes
import mmap
import os
import select
import socket
import stat
import struct
import sys
from contextlib import suppress

from hostile_kit import die_with_the_test

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_NOSUID, MS_NODEV = 2, 4

LOOKUP, FORGET, GETATTR, SETATTR = 1, 2, 3, 4
OPEN, READ, WRITE, STATFS, RELEASE = 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR = 20, 25, 26, 27, 29
INTERRUPT, BATCH_FORGET = 36, 42
ONE_WAY = {FORGET, INTERRUPT, BATCH_FORGET}
EVERYTHING = frozenset(range(64)) - {INIT}
WRITEBACK_CACHE = 1 << 16

SIZE = 1 << 20  # of each file
ROOT = 1
LARGEST_REQUEST = 1 << 18
ENOSYS = 38

REQUEST = struct.Struct("=IIQQIIIHH")
ANSWER = struct.Struct("=IiQ")
ATTRIBUTES = struct.Struct("=6Q10I")


class FileSystem:
    """A mounted file system with a file of any name, and its server's process.

    The first one that a process makes takes it into namespaces of its own, so the process must
    have one thread. `silent` are the requests that are not answered from the start.
    """

    def __init__(self, path, mountpoint, silent=(), *, writeback=False):
        _enter_namespaces()
        self.mountpoint = mountpoint
        os.mkdir(mountpoint)
        self._orders, theirs = socket.socketpair()
        # Of the namespace that it is mounted in: the kernel compares them.
        fuse = os.open(path, os.O_RDWR)
        options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
        _call("mount", b"hostile", mountpoint.encode(), b"fuse", MS_NOSUID | MS_NODEV, options)
        self.pid = os.fork()
        if not self.pid:
            self._orders.close()
            _serve(fuse, theirs, frozenset(silent), writeback)
        os.close(fuse)
        theirs.close()

    def open(self, name="file", flags=os.O_RDWR):
        return os.open(os.path.join(self.mountpoint, name), flags)

    def silence(self, requests):
        """From now on these, and only these, are not answered."""
        self._orders.sendall(bytes(sorted(requests)) or b"\0")
        self._orders.recv(1)

    def send_dirty(self, sock, name="dirty"):
        """Passes a descriptor whose last reference waits for the server, wherever it is given up.

        For one with `writeback`. The file is closed here while it is clean, and written to by
        another descriptor afterwards, which this process keeps: returned.
        """
        clean, kept = self.open(name), self.open(name)
        socket.send_fds(sock, [b"\0"], [clean])
        os.close(clean)
        self.silence({WRITE})
        os.write(kept, bytes(8192))
        return kept

    def locked_socket(self):
        """A TCP socket whose lock is held for ever, by a send from a page that never comes.

        Returns what keeps it so, and the socket.
        """
        page = mmap.mmap(self.open("page"), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        self.silence({READ})
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.create_connection(listener.getsockname())
            reader, _ = listener.accept()
        if not os.fork():
            sock.send(page)
            os._exit(0)
        return (reader, page), sock


def _enter_namespaces():
    if os.environ.get("IN_NAMESPACES"):
        return
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    os.environ["IN_NAMESPACES"] = "1"
    die_with_the_test()


def _call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    as_c = [each.encode() if isinstance(each, str) else each for each in arguments]
    if getattr(libc, name)(*as_c) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _serve(fuse, orders, silent, writeback):
    """The server's process. It also ends when the test has gone, which holds our stdin."""
    nodes = {}
    poll = select.poll()
    poll.register(fuse, select.POLLIN)
    poll.register(orders, select.POLLIN)
    poll.register(sys.stdin, 0)
    os.setpgid(0, 0)  # a script that is stopped, and killed then, needs it to be able to die
    while True:
        for number, events in poll.poll():
            if number == sys.stdin.fileno() and events:
                os._exit(0)
            elif number == fuse:
                with suppress(InterruptedError, FileNotFoundError):  # a request was taken back
                    request = os.read(fuse, LARGEST_REQUEST)
                    answer = _answer(request, silent, nodes, writeback)
                    if answer is not None:
                        os.write(fuse, answer)
            elif number == orders.fileno():
                wanted = orders.recv(64)
                if not wanted:  # those who use it can still be waiting for it
                    poll.unregister(orders)
                    continue
                silent = frozenset(wanted)
                orders.sendall(b"\1")


def _answer(request, silent, nodes, writeback):
    _, opcode, unique, node, *_ = REQUEST.unpack_from(request)
    body = request[REQUEST.size :]
    if opcode in ONE_WAY or opcode in silent:
        return None
    error, said = 0, b""
    if opcode == INIT:
        flags = WRITEBACK_CACHE if writeback else 0
        said = struct.pack("=4IHHIIHHI28x", 7, 31, 131072, flags, 16, 12, 131072, 1, 32, 0, 0)
    elif opcode == LOOKUP:
        number = nodes.setdefault(bytes(body), ROOT + 1 + len(nodes))
        said = struct.pack("=4QII", number, 1, 3600, 3600, 0, 0) + _attributes(number)
    elif opcode in (GETATTR, SETATTR):
        said = struct.pack("=QII", 3600, 0, 0) + _attributes(node)
    elif opcode in (OPEN, OPENDIR):
        said = struct.pack("=QII", node, 0, 0)
    elif opcode == READ:
        said = bytes(struct.unpack_from("=QQI", body)[2])
    elif opcode == WRITE:
        said = struct.pack("=II", struct.unpack_from("=QQI", body)[2], 0)
    elif opcode not in (FLUSH, FSYNC, RELEASE, RELEASEDIR):
        error = -ENOSYS
    return ANSWER.pack(ANSWER.size + len(said), error, unique) + said


def _attributes(node):
    kind = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o666
    size = 0 if node == ROOT else SIZE
    return ATTRIBUTES.pack(node, size, size // 512, *[0] * 6, kind, 1, 0, 0, 0, 4096, 0)
