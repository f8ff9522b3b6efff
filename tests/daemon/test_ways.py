"""Decisions about ways in that are broken: pure, with whatever clock the test says."""

from itertools import pairwise

import pytest

from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.daemon.ways import Part, Patience, Trouble, still_known
from proxyd.wire.programs import AuthMethod

HOUR_S = 3600


def trouble(transport, part=Part.PORT, reason="r"):
    return Trouble(transport=transport, part=part, reason=reason, key="", since=1.0)


def door(transport, method=AuthMethod.NONE):
    return Door(name="d", transport=transport, method=method, readonly=False, own_uid_only=False)


def tried(patience, *, until):
    """When it is tried again and each time told, in seconds."""
    now = 0.0
    patience.begin(now)
    tries, told = [], []
    while (now := patience.try_at) < until:
        tries.append(now)
        if patience.failed(now):
            told.append(now)
    return tries, told


def test_it_is_tried_again_soon_and_then_less_and_less_often():
    tries, _ = tried(Patience(), until=2000)
    assert tries[:8] == [2, 6, 14, 30, 62, 126, 254, 510]
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert max(pauses) == 300


def test_it_is_told_again_once_an_hour():
    _, told = tried(Patience(), until=10 * HOUR_S)
    gaps = [after - before for before, after in pairwise([0, *told])]
    assert len(told) == 9
    assert all(HOUR_S <= gap < HOUR_S + 301 for gap in gaps)


def test_what_breaks_anew_is_tried_soon_again():
    patience = Patience()
    tried(patience, until=5000)
    patience.begin(6000)
    assert patience.try_at == 6002


@pytest.mark.parametrize("method", list(AuthMethod))
@pytest.mark.parametrize("part", list(Part))
def test_a_way_of_the_network_that_is_broken_lets_nobody_in_and_concerns_no_other(part, method):
    broken = trouble(Transport.TLS, part)
    assert broken.concerns(door(Transport.TLS, method))
    assert not broken.concerns(door(Transport.TCP, method))
    assert not broken.concerns(door(Transport.UNIX, method))


def test_unix_sockets_serve_whoever_needs_no_sasl():
    broken = trouble(Transport.UNIX, Part.SASL)
    assert broken.concerns(door(Transport.UNIX, AuthMethod.SASL))
    assert not broken.concerns(door(Transport.UNIX, AuthMethod.POLKIT))
    assert not broken.concerns(door(Transport.UNIX, AuthMethod.NONE))
    assert broken.way == "SASL by UNIX"


def test_a_trouble_goes_on_whatever_its_reason():
    known = [trouble(Transport.TLS, Part.PORT), trouble(Transport.TLS, Part.CERTIFICATES)]
    assert still_known(known, trouble(Transport.TLS, Part.CERTIFICATES, "other")) is known[1]
    assert still_known(known, trouble(Transport.TCP, Part.PORT)) is None
