"""Tells in the log of certificates and revocation lists that are about to end, without being asked.

A daemon may run for months, and what was in order at its start is not for ever. Each is told of
once a day from 30 days before its end on (proxyd/config/expiry.py); a reload's new ones count from
then on. What is wrong at a start or a reload is told of by those.
"""

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import trio

from proxyd.config.expiry import EXPIRY_S
from proxyd.config.quoting import one_line
from proxyd.daemon.in_force import Current

if TYPE_CHECKING:
    from proxyd.pki.certificates import Credentials

DAY_S: Final = 24 * 60 * 60

log = logging.getLogger("daemon.virtproxyd")


def utc_now() -> dt.datetime:
    """The time of day."""
    return dt.datetime.now(dt.UTC)


async def tell_of_ends(current: Current, now: Callable[[], dt.datetime] = utc_now) -> None:
    """Runs until it is cancelled. The first look is a day after the start, which has its own."""
    while True:
        await trio.sleep(DAY_S)
        tls = current.now.tls
        for line in ending(tls.credentials, now()) if tls is not None else ():
            log.warning("%s", line)


def ending(credentials: "Credentials", now: dt.datetime) -> Iterator[str]:
    """A line for each that ends soon or has ended, with what to do."""
    for pair in credentials.pairs:
        yield from _line(
            pair.certificate_file,
            "this server's certificate",
            pair.certificate.not_valid_after_utc,
            now,
            "proxyd certs renew makes a new one, where its CA is; then reload",
        )
    for authority in credentials.authorities:
        yield from _line(
            credentials.files.ca,
            "the CA's certificate",
            authority.not_valid_after_utc,
            now,
            "with its end all that it has signed ends",
        )
    for each in credentials.revocations:
        yield from _line(
            credentials.files.crl or "",
            "the revocation list",
            each.next_update_utc,
            now,
            "clients are refused then; proxyd certs crl makes a new one, where its CA is; then"
            " reload",
        )


def _line(
    path: str, what: str, end: dt.datetime | None, now: dt.datetime, remedy: str
) -> Iterator[str]:
    if end is None or (end - now).total_seconds() >= EXPIRY_S:
        return
    left = (end - now).days
    when = (
        f"has ended on {end:%Y-%m-%d}" if end < now else f"ends on {end:%Y-%m-%d}, in {left} days"
    )
    yield one_line(f"{path}: {what} {when}; {remedy}")
