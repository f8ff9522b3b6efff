"""The page for Prometheus, read by another implementation's parser, and by its conventions."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxyd.metrics.exposition import exposition
from proxyd.metrics.reading import Times
from proxyd.relay.histogram import CALL_NS, SESSION_NS, STEP_NS, TURN_NS, Histogram
from tests.metrics.readings import reading, status

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
UNITS = ("_seconds", "_bytes", "_total", "_info")


def families(shown):
    return {each.name: each for each in text_string_to_metric_families(shown.decode())}


def samples(shown):
    """By name and labels, in the order of the labels' names but for `le`, which comes last."""
    return {
        (each.name, *(value for _, value in sorted(each.labels.items(), key=_le_last))): each.value
        for family in families(shown).values()
        for each in family.samples
    }


def _le_last(label):
    return label[0] == "le", label[0]


def test_every_figure_is_there():
    shown = samples(exposition(reading()))
    assert shown["proxyd_up",] == 1
    assert shown["proxyd_info", "1.2.3"] == 1
    assert shown["proxyd_start_time_seconds",] == 1000.5
    assert shown["proxyd_draining",] == 0
    assert shown["proxyd_last_reload_successful",] == 0
    assert shown["proxyd_last_reload_time_seconds",] == 1500
    assert shown["proxyd_log_lines_lost_total", "queue"] == 8
    assert shown["proxyd_log_lines_lost_total", "output"] == 9
    assert shown["proxyd_errors_total",] == 6
    assert shown["proxyd_certificate_expiry_time_seconds", "/etc/s.pem", "server"] == 2e9
    assert ("proxyd_certificate_expiry_time_seconds", "", "crl") not in shown
    assert shown["proxyd_sessions", "virtqemud", "libvirt-sock", "open"] == 2
    assert shown["proxyd_sessions_opened_total", "virtqemud", "libvirt-sock"] == 5
    assert shown["proxyd_refusals_total", "tls"] == 4
    assert shown["proxyd_refusals_total", "no_place"] == 0
    assert shown["proxyd_clients", "all"] == 7
    assert shown["proxyd_clients_max", "unauthenticated"] == 20
    assert shown["proxyd_waiting", "silent"] == 4
    assert shown["proxyd_descriptor_room",] == 400
    assert shown["proxyd_backend_socket_present", "virtqemud", "/run/q"] == 1
    assert shown["proxyd_backend_socket_present", "virtxend", "/run/x"] == 0
    assert shown["proxyd_calls_total", "virtqemud", "domain_get_info", "ok"] == 4
    assert shown["proxyd_calls_total", "virtqemud", "domain_get_info", "error"] == 2
    assert shown["proxyd_calls_under_way", "virtqemud"] == 3
    assert shown["proxyd_bytes_total", "virtqemud", "down"] == 2000
    assert shown["proxyd_relay_sessions", "plain"] == 2
    assert shown["proxyd_streams", "virtqemud"] == 4
    assert shown["proxyd_partings", "virtqemud"] == 1
    assert shown["proxyd_partings_ended_total", "virtqemud", "overdue"] == 4


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("proxyd_call_seconds", ("virtqemud", "domain_get_info")),
        ("proxyd_session_seconds", ("virtqemud",)),
        ("proxyd_opening_seconds", ("virtqemud",)),
        ("proxyd_handshake_seconds", ("tls [::1]:1",)),
        ("proxyd_relay_turn_seconds", ("plain",)),
    ],
)
def test_times_are_told_by_buckets_that_grow(name, labels):
    shown = samples(exposition(reading()))
    assert shown[f"{name}_bucket", *labels, "0.001"] == 3
    assert shown[f"{name}_bucket", *labels, "0.1"] == 5
    assert shown[f"{name}_bucket", *labels, "+Inf"] == 6
    assert shown[f"{name}_count", *labels] == 6
    assert shown[f"{name}_sum", *labels] == 1.5


def test_of_a_host_on_which_nothing_has_happened():
    shown = exposition(
        reading(
            status=status(certificates=(), last_reload=None),
            states={},
            opened={},
            refused={},
            session_time={},
            opening_time={},
            handshake_time={},
            daemons=[],
        )
    )
    assert samples(shown)["proxyd_up",] == 1
    assert "proxyd_last_reload_successful" not in families(shown)


def test_hostile_labels_stay_labels():
    """A path of a configuration may hold anything; what clients say is never a label."""
    hostile = 'a"b\\c\nproxyd_up 0\n\x00é'
    shown = exposition(reading(states={(hostile, "virtqemud", "open"): 1}))
    assert samples(shown)["proxyd_sessions", "virtqemud", hostile, "open"] == 1
    assert samples(shown)["proxyd_up",] == 1


def test_names_are_as_prometheus_wants_them():
    for name, family in families(exposition(reading())).items():
        assert re.fullmatch(r"proxyd_[a-z_]+", name)
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(each.name.endswith("_total") for each in family.samples)
        if family.type == "histogram":
            assert name.endswith("_seconds")


def test_the_document_lists_every_family():
    told = set(re.findall(r"^\| `(proxyd_[a-z_]+)`", DOCUMENT.read_text(), re.MULTILINE))
    shown = {
        f"{name}_total" if family.type == "counter" else name
        for name, family in families(exposition(reading())).items()
    }
    assert told == shown


@pytest.mark.parametrize("bounds", [CALL_NS, STEP_NS, SESSION_NS, TURN_NS])
def test_a_time_is_in_the_first_bucket_that_it_fits_into(bounds):
    histogram = Histogram(bounds)
    for at, bound in enumerate(bounds):
        histogram.observe(int(bound))
        histogram.observe(int(bound) + 1)
        assert histogram.counts[at] == (1 if not at else 2)
    assert list(bounds) == sorted(bounds)
    assert Times.of(histogram).bounds_s == pytest.approx([each / 1e9 for each in bounds])
    assert sum(histogram.counts) == 2 * len(bounds)
