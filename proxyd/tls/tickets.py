"""Loads OpenSSL such that a server sends no TLS 1.3 session tickets.

A libvirt client reads one record after the handshake and takes it for the byte that lets it in;
a ticket that comes first makes it give up (docs/protocol/tls.md, section 2). pyOpenSSL has no
call for it, OpenSSL's own configuration does, and that is read once, when it is loaded. Whether it
worked is tried out at every start: see `server_tls.sends_tickets`.
"""

import importlib
import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "OPENSSL_CONF"
CONFIGURATION: Final = Path(__file__).with_name("openssl.cnf")


def load_openssl() -> None:
    """To be called before anything else imports OpenSSL or cryptography.

    An administrator's own OPENSSL_CONF is left alone. The variable is gone afterwards: programs
    that this one starts have their own needs.
    """
    if VARIABLE in os.environ:
        importlib.import_module("OpenSSL.SSL")
        return
    os.environ[VARIABLE] = str(CONFIGURATION)
    try:
        importlib.import_module("OpenSSL.SSL")
    finally:
        del os.environ[VARIABLE]
