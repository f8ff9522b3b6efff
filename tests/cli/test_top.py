"""proxyd top: rates between two screens, and who comes first."""

import pytest

from proxyd.admin import document
from proxyd.cli.screens import top_view
from proxyd.cli.top import SORTS, rates
from tests.cli.terminal import printed
from tests.fakes.documents import NEGOTIATING, OPEN


def client(**changes):
    return document.read(document.Client, {**OPEN, **changes})


def test_rates_are_those_since_the_screen_before():
    before = client(calls=100, bytes_up=1000, bytes_down=0, timed_calls=10, timed_s=1.0)
    now = client(calls=150, bytes_up=3000, bytes_down=500, timed_calls=30, timed_s=1.5)
    (found,) = rates([now], {before.id: before}, 2.0)
    assert (found.calls, found.bytes_up, found.bytes_down) == (25, 1000, 250)
    assert found.latency_s == pytest.approx(0.025)


def test_of_a_new_session_they_are_those_since_it_was_opened():
    (found,) = rates([client(age_s=10.0, calls=50, timed_calls=0, timed_s=0.0)], {}, 2.0)
    assert found.calls == 5
    assert found.latency_s is None


def test_who_has_no_session_is_left_out():
    assert rates([document.read(document.Client, NEGOTIATING)], {}, 1.0) == []


def test_no_time_at_all_is_no_division_by_zero():
    now = client()
    assert rates([now], {now.id: now}, 0.0)[0].calls == 0


@pytest.mark.parametrize(
    ("sort", "first"), [("calls", 1), ("bytes", 2), ("latency", 3), ("age", 4)]
)
def test_what_comes_first(sort, first):
    quiet = {"calls": 0, "bytes_up": 0, "bytes_down": 0, "timed_calls": 1, "timed_s": 0.001}
    found = rates(
        [
            client(**{**quiet, "id": 1, "calls": 1000, "age_s": 1.0}),
            client(**{**quiet, "id": 2, "bytes_down": 10**9, "age_s": 1.0}),
            client(**{**quiet, "id": 3, "timed_s": 5.0, "age_s": 1.0}),
            client(**{**quiet, "id": 4, "age_s": 1000.0}),
        ],
        {},
        1.0,
    )
    assert max(found, key=SORTS[sort]).client.id == first


def test_the_screen():
    found = rates([client(age_s=2.0, calls=10, timed_calls=5, timed_s=0.01)], {}, 1.0)
    shown = printed(top_view(found, found))
    assert "1 open, 5.0 calls/s" in shown
    assert "virtqemud" in shown
    assert "2.00" in shown
