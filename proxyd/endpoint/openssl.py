"""What proxyd needs of OpenSSL and pyOpenSSL has no call for: its private parts, all in this file.

The functions of OpenSSL's come of `cryptography`'s bindings, which pyOpenSSL hands on. Which of
them there are may change with each release of either, so all that is used is looked for when this
is imported, and pyproject.toml says which releases may be installed.

`read`, `write` and `memory` are OpenSSL's own functions without a wrapper, for the path on which
every byte goes: `read(handle, room, size)`, where `room` is what `memory(view)` gives for a block.
"""

import socket
from typing import Any, Final

import cryptography
import OpenSSL
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

_RELEASES: Final = "pyopenssl 26.3 or a later 26"  # as pyproject.toml has it

_ENABLE_KTLS: Final = 0x8  # SSL_OP_ENABLE_KTLS
_NO_AUTO_CHAIN: Final = 0x8  # SSL_MODE_NO_AUTO_CHAIN
_ENABLE_PARTIAL_WRITE: Final = 0x1  # SSL_MODE_ENABLE_PARTIAL_WRITE

_FUNCTIONS: Final = (
    "ERR_clear_error",
    "SSL_CTX_get_cert_store",
    "SSL_CTX_get_options",
    "SSL_CTX_set1_curves_list",
    "SSL_CTX_set1_sigalgs_list",
    "SSL_CTX_set_cert_store",
    "SSL_CTX_use_PrivateKey",
    "SSL_MODE_AUTO_RETRY",
    "SSL_ERROR_WANT_READ",
    "SSL_clear_mode",
    "SSL_get_error",
    "SSL_read",
    "SSL_set_fd",
    "SSL_write",
    "X509_STORE_up_ref",
)
_OF_CONTEXTS: Final = ("_context", "_raise_passphrase_exception")
_OF_CONNECTIONS: Final = ("_ssl", "_socket", "_into_ssl", "_from_ssl", "_raise_ssl_error")
_OF_KEYS: Final = ("_pkey", "_initialized", "_only_public")


def demand(library: object, context: object, connection: object, key: object) -> None:
    """Raises ImportError, for whoever installed them to read, where something is not there."""
    used = (
        (library, _FUNCTIONS),
        (context, _OF_CONTEXTS),
        (connection, _OF_CONNECTIONS),
        (key, _OF_KEYS),
    )
    lacking = [name for holder, names in used for name in names if not hasattr(holder, name)]
    if lacking:
        raise ImportError(
            f"pyopenssl {OpenSSL.__version__} with cryptography {cryptography.__version__} is"
            f" another one than proxyd was made for: it has no {', '.join(lacking)}; install"
            f" {_RELEASES}",
            name=OpenSSL.__name__,
        )


_context = SSL.Context(SSL.TLS_METHOD)
demand(_lib, _context, SSL.Connection(_context, None), crypto.PKey())
del _context

memory: Final = _ffi.from_buffer
read: Final = _lib.SSL_read
write: Final = _lib.SSL_write


def handle_of(connection: SSL.Connection) -> Any:
    """What `read` and `write` take. It belongs to the connection, and ends with it."""
    return connection._ssl  # noqa: SLF001


def raise_error(connection: SSL.Connection, result: int) -> None:
    """Raises what `recv` or `send` would, after `read` or `write` have returned 0 or less."""
    connection._raise_ssl_error(connection._ssl, result)  # noqa: SLF001


def waits_for_input(handle: Any, result: int) -> bool:
    """Whether that is all, after `read` has returned 0 or less: so without an exception."""
    return bool(_lib.SSL_get_error(handle, result) == _lib.SSL_ERROR_WANT_READ)


def forget_errors() -> None:
    """OpenSSL has one list of errors for each thread, and pyOpenSSL leaves a socket's in it.

    OpenSSL 3 looks there for what a call of any other connection has met: one that has only to
    wait for its peer would then be taken for broken.
    """
    _lib.ERR_clear_error()


def use_socket(connection: SSL.Connection, sock: socket.socket) -> None:
    """From here on OpenSSL reads and writes the socket, on a connection that had none so far."""
    _lib.SSL_set_fd(connection._ssl, sock.fileno())  # noqa: SLF001
    connection._socket = sock  # noqa: SLF001
    connection._into_ssl = connection._from_ssl = None  # noqa: SLF001


def read_one_record(connection: SSL.Connection) -> None:
    """Takes back what pyOpenSSL sets: that one read goes on for as long as records come that have
    no content. A peer that sends key updates would hold the thread with it."""
    _lib.SSL_clear_mode(connection._ssl, _lib.SSL_MODE_AUTO_RETRY)  # noqa: SLF001


def show_own_chain_only(context: SSL.Context) -> None:
    """OpenSSL would complete our chain from the CAs that clients are checked with, which may be
    other ones than those that signed our certificate."""
    context.set_mode(_NO_AUTO_CHAIN)


def write_whole(context: SSL.Context) -> None:
    """Takes back what pyOpenSSL sets: that each record is a call from Python, which for a long
    stream is a third more CPU."""
    context.clear_mode(_ENABLE_PARTIAL_WRITE)


def ask_kernel(context: SSL.Context) -> None:
    """Lets the kernel encrypt records where it can (module tls) and OpenSSL was built for it."""
    context.set_options(_ENABLE_KTLS)


def asks_kernel(context: SSL.Context) -> bool:
    """Whether `ask_kernel` was said of it."""
    return bool(_lib.SSL_CTX_get_options(context._context) & _ENABLE_KTLS)  # noqa: SLF001


def set_groups(context: SSL.Context, names: str) -> bool:
    """Which groups a handshake may have, joined by ":"; False if this OpenSSL lacks one of them."""
    return _done(_lib.SSL_CTX_set1_curves_list(context._context, names.encode()))  # noqa: SLF001


def set_signatures(context: SSL.Context, names: str) -> bool:
    """Which signatures a handshake may have, likewise."""
    return _done(_lib.SSL_CTX_set1_sigalgs_list(context._context, names.encode()))  # noqa: SLF001


def share_store(context: SSL.Context, other: SSL.Context) -> None:
    """Checks clients of the one with what those of the other are checked with."""
    store = _lib.SSL_CTX_get_cert_store(other._context)  # noqa: SLF001
    _lib.X509_STORE_up_ref(store)
    _lib.SSL_CTX_set_cert_store(context._context, store)  # noqa: SLF001


def use_key(context: SSL.Context, key: crypto.PKey) -> None:
    """Without the warning that pyOpenSSL's own kind of key is deprecated. Raises SSL.Error."""
    if not _lib.SSL_CTX_use_PrivateKey(context._context, key._pkey):  # noqa: SLF001
        context._raise_passphrase_exception()  # noqa: SLF001


def public_half(key: crypto.PKey) -> crypto.PKey:
    """The same for what asks for a public key: pyOpenSSL shows that of nothing else."""
    half = crypto.PKey()
    half._pkey, half._initialized, half._only_public = key._pkey, True, True  # noqa: SLF001
    return half


def _done(result: int) -> bool:
    forget_errors()
    return result == 1
