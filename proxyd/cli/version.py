"""proxyd --version: the release, which build of it this is, and the OpenSSL that it brings."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any, Final

from proxyd import __version__
from proxyd.deploy.build import Build
from proxyd.tls.tickets import load_openssl

_ROLE: Final = "in the role of libvirt's virtproxyd 11.3.0"


class ShowVersion(argparse.Action):
    """Looks when it is asked for: the build may have to ask git, and OpenSSL takes time to load."""

    def __init__(self, option_strings: list[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write("".join(f"{line}\n" for line in _lines()))
        parser.exit()


def _lines() -> Iterator[str]:
    yield f"proxyd {__version__} ({_ROLE})"
    yield f"build: {Build.this().told()}"
    yield f"TLS: {_tls()}"


def _tls() -> str:
    """cryptography's wheel has an OpenSSL of its own, which the host's updates do not reach."""
    try:
        load_openssl()
        import cryptography  # noqa: PLC0415 (what they are in is loaded in a certain way)
        from OpenSSL.SSL import OPENSSL_VERSION, OpenSSL_version  # noqa: PLC0415
        from OpenSSL.version import __version__ as pyopenssl  # noqa: PLC0415
    except ImportError as error:
        return f"not to be had: {error}"
    openssl = OpenSSL_version(OPENSSL_VERSION).decode()
    return f"{openssl}, with cryptography {cryptography.__version__} and pyOpenSSL {pyopenssl}"
