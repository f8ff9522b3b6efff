"""Knocking at a TLS listener, libvirt's or ours, with any certificate and without checks.

A server of libvirt's kind answers a completed handshake with exactly one byte when the client may
come in, and hangs up when it may not (docs/protocol/tls.md, section 1). What the client thinks
of the server's certificate is left out: virsh would refuse half of what the tests show it.
"""

import ctypes
import os
import re
import signal
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from OpenSSL import SSL, crypto

from tests.bed.command import SYSTEM_PATH
from tests.bed.daemon import ConfigValue
from tests.bed.libvirtd import Libvirtd
from tests.bed.minting import Template, key_of, minted
from tests.bed.proxyd import Proxyd
from tests.bed.waiting import wait_until

LET_IN: Final = b"\x01"
DEADLINE_S: Final = 10.0
LIBVIRTD: Final = "/usr/sbin/libvirtd"
# Of a network namespace that the daemon has for itself, so nobody else can hold it.
LIBVIRTD_ADDRESS: Final = ("127.0.0.1", 16514)
CLONE_NEWNET: Final = 0x40000000
PROXYD_LISTENS: Final[dict[str, ConfigValue]] = {
    "listen_tls": 1,
    "listen_addr": "127.0.0.1",
    "tls_port": "0",
    "auth_tls": "none",
}
RELOADED: Final = re.compile("configuration reloaded|reload failed")


class Verdict(IntEnum):
    """What came of it; what is larger is stricter."""

    ACCEPTED = 0
    REFUSED = 1  # the client is: by an alert, or by hanging up
    NO_START = 2  # the daemon does not even start with such files


@dataclass(frozen=True, slots=True)
class Door:
    """A daemon that listens: how to get there and what it logs."""

    connect: Callable[[], socket.socket]
    log_text: Callable[[], str]


class Unexpected(Exception):
    """The handshake failed by our own fault, which says nothing of the server's verdict."""


def knock(door: Door, chain: tuple[Template, ...], *, highest: int = SSL.TLS1_3_VERSION) -> Verdict:
    """Show this chain, the leaf first, or no certificate at all."""
    with door.connect() as sock:
        secured = SSL.Connection(client_context(chain, highest), sock)
        secured.set_connect_state()
        try:
            secured.do_handshake()
            said = secured.recv(16)
        except (SSL.SysCallError, SSL.ZeroReturnError):
            return Verdict.REFUSED
        except SSL.WantReadError as error:
            raise TimeoutError(f"no word within {DEADLINE_S:g} s") from error
        except SSL.Error as error:
            if not was_alerted(error):
                raise Unexpected(str(error)) from error
            return Verdict.REFUSED
    if said != LET_IN:
        raise Unexpected(f"the server said {said!r}")
    return Verdict.ACCEPTED


def was_alerted(error: SSL.Error) -> bool:
    """Whether it is the server that ends it: by an alert, or by less than TLS asks for."""
    return any("alert" in text or "unexpected eof" in text for _, _, text in error.args[0])


def client_context(chain: tuple[Template, ...], highest: int) -> SSL.Context:
    """One that takes any certificate, the server's and its own."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(highest)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if chain:
        # pyOpenSSL's own class, although it is deprecated: neither `cryptography` nor `ssl` loads
        # a certificate of version 2.
        leaf, *others = (
            crypto.load_certificate(crypto.FILETYPE_ASN1, minted(each)) for each in chain
        )
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.use_certificate(leaf)
            for each in others:
                context.add_extra_chain_cert(each)
        context.use_privatekey(key_of(chain[0]))
    return context


def patient(sock: socket.socket) -> socket.socket:
    """Blocking, as OpenSSL wants it, but not for ever."""
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(DEADLINE_S), 0))
    return sock


@contextmanager
def libvirtd_door(directory: Path, config: Mapping[str, ConfigValue]) -> Iterator[Door]:
    """A libvirtd that listens for TLS; ChildProcessError when it does not start."""
    with listening_libvirtd(directory, config) as libvirtd:
        yield Door(lambda: patient(connected_beside(libvirtd.pid)), libvirtd.daemon.log_text)
        # There is nothing of it to be kept.
        libvirtd.kill()


@contextmanager
def listening_libvirtd(directory: Path, config: Mapping[str, ConfigValue]) -> Iterator[Libvirtd]:
    """The same, as a daemon: it listens at LIBVIRTD_ADDRESS of its own network namespace."""
    programs = directory / "bin"
    programs.mkdir()
    # It listens only when the command line says so, too.
    wrapper = programs / "libvirtd"
    wrapper.write_text(f'#!/bin/sh\nexec {LIBVIRTD} --listen "$@"\n')
    wrapper.chmod(0o755)
    with Libvirtd(
        directory,
        config={"listen_tls": 1, "listen_tcp": 0, "auth_tls": "none", **config},
        environment={"PATH": f"{programs}:{SYSTEM_PATH}"},
    ) as libvirtd:
        # The UNIX socket is there before the certificates are looked at.
        wait_until(lambda: is_decided(libvirtd), DEADLINE_S, "libvirtd listens or has ended")
        if not libvirtd.daemon.running:
            raise ChildProcessError(f"libvirtd ended with {libvirtd.daemon.status}")
        yield libvirtd


def is_decided(libvirtd: Libvirtd) -> bool:
    """Whether it accepts TLS clients or has ended."""
    try:
        connected_beside(libvirtd.pid).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return not libvirtd.daemon.running
    return True


def connected_beside(pid: int) -> socket.socket:
    """A connection to the TLS listener in the network namespace of a process.

    A socket belongs to the namespace that its thread was in, so a thread goes there and is gone.
    """
    result: list[socket.socket | OSError] = []

    def connect() -> None:
        try:
            enter_network(pid)
            result.append(socket.create_connection(LIBVIRTD_ADDRESS, timeout=DEADLINE_S))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    (found,) = result
    if isinstance(found, OSError):
        raise found
    return found


def enter_network(pid: int) -> None:
    """This thread's, and only its."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


@contextmanager
def proxyd_door(directory: Path, config: Mapping[str, ConfigValue]) -> Iterator[Door]:
    """A proxyd that listens for TLS; ChildProcessError when it does not start."""
    with listening_proxyd(directory, config) as proxyd:
        yield door_of(proxyd)


def listening_proxyd(directory: Path, config: Mapping[str, ConfigValue]) -> Proxyd:
    """Not started yet. Behind it is nothing: a client is let in before a daemon is needed."""
    return Proxyd(directory, backend_dir=directory, config={**PROXYD_LISTENS, **config})


def door_of(proxyd: Proxyd) -> Door:
    host, _, port = proxyd.tls_address().rpartition(":")
    return Door(
        lambda: patient(socket.create_connection((host, int(port)), timeout=DEADLINE_S)),
        proxyd.log_text,
    )


def takes(proxyd: Proxyd, config: Mapping[str, ConfigValue]) -> bool:
    """Whether a running one takes over these settings, which it checks like at a start."""
    before = len(RELOADED.findall(proxyd.log_text()))
    proxyd.configure({**PROXYD_LISTENS, **config})
    proxyd.daemon.send(signal.SIGHUP)
    outcomes = wait_until(
        lambda: RELOADED.findall(proxyd.log_text())[before:], DEADLINE_S, "it has reloaded or not"
    )
    return outcomes[-1] == "configuration reloaded"
