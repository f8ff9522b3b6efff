"""The log tells of certificates that are about to end, a day apart, and without being asked."""

import datetime as dt
import logging
from types import SimpleNamespace

import pytest
import trio

from proxyd.config.expiry import EXPIRY_DAYS
from proxyd.daemon.expiry import DAY_S, ending, tell_of_ends

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def credentials(*, server=400 * DAY, ca=4000 * DAY, crl=None):
    pair = SimpleNamespace(
        certificate_file="/pki/servercert.pem",
        certificate=SimpleNamespace(not_valid_after_utc=NOW + server),
    )
    return SimpleNamespace(
        pairs=[pair],
        authorities=[SimpleNamespace(not_valid_after_utc=NOW + ca)],
        revocations=[SimpleNamespace(next_update_utc=crl and NOW + crl)],
        files=SimpleNamespace(ca="/pki/cacert.pem", crl="/pki/cacrl.pem"),
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (credentials(), []),
        (credentials(server=EXPIRY_DAYS * DAY), []),
        (
            credentials(server=EXPIRY_DAYS * DAY - DAY),
            ["servercert.pem: this server's certificate ends"],
        ),
        (credentials(server=-DAY), ["has ended on 2026-11-19"]),
        (
            credentials(ca=2 * DAY),
            ["cacert.pem: the CA's certificate ends on 2026-11-22, in 2 days"],
        ),
        (credentials(crl=DAY), ["cacrl.pem: the revocation list ends"]),
        (credentials(server=DAY, crl=DAY), ["proxyd certs renew", "proxyd certs crl"]),
    ],
)
def test_what_ends_soon_is_a_line_with_what_to_do(found, says):
    lines = list(ending(found, NOW))
    assert len(lines) == len(says)
    for line, part in zip(lines, says, strict=True):
        assert part in line


async def test_it_is_said_once_a_day_and_of_what_is_in_force_then(autojump_clock, caplog):
    caplog.set_level(logging.WARNING)
    tls = SimpleNamespace(credentials=credentials(server=DAY))
    current = SimpleNamespace(now=SimpleNamespace(tls=tls))
    with trio.move_on_after(3 * DAY_S + 1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_of_ends, current, lambda: NOW)
            await trio.sleep(2 * DAY_S + 1)
            assert len(caplog.records) == 2
            current.now.tls = None  # a reload without TLS
            await trio.sleep_forever()
    assert len(caplog.records) == 2
