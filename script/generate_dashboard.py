"""Writes monitoring/grafana.json, the dashboard.

`script/with python script/generate_dashboard.py`, after a change here. A row is its title and its
panels; a panel is its title, the unit of its axis, and queries with the names of their lines.
Where it stands follows from its place in the list. tests/metrics/test_monitoring.py holds the file
to what this writes, and every query to what the page has.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

TARGET: Final = Path(__file__).resolve().parent.parent / "monitoring" / "grafana.json"
_WIDTH, _HEIGHT, _ACROSS = 24, 8, 2  # of the page, of a panel, panels beside each other
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


class Query(NamedTuple):
    expression: str
    line: str


class Panel(NamedTuple):
    title: str
    unit: str
    queries: tuple[Query, ...]


def _of(metric: str, **labels: str) -> str:
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f'{metric}{{job=~"$job",instance=~"$instance"{more}}}'


def _rate(metric: str, *by: str, **labels: str) -> Query:
    """So many a second, by these labels."""
    rate = f"sum by ({', '.join(by)}) (rate({_of(metric, **labels)}[$__rate_interval]))"
    return Query(rate, " ".join(f"{{{{{each}}}}}" for each in by))


def _quantile(quantile: float, metric: str, *by: str) -> Query:
    """Of a histogram, by these labels."""
    buckets, line = _rate(f"{metric}_bucket", *by, "le"), " ".join(f"{{{{{each}}}}}" for each in by)
    return Query(
        f"histogram_quantile({quantile}, {buckets.expression})", f"{line} p{quantile * 100:g}"
    )


def _now(metric: str, *by: str) -> Query:
    return Query(
        f"sum by ({', '.join(by)}) ({_of(metric)})", " ".join(f"{{{{{each}}}}}" for each in by)
    )


_SLOWEST: Final = _quantile(0.99, "proxyd_call_seconds", "daemon", "procedure")
ROWS: Final = {
    "Clients": (
        Panel("Sessions", "short", (_now("proxyd_sessions", "daemon"),)),
        Panel(
            "Places taken",
            "percentunit",
            (
                Query(
                    f"{_of('proxyd_clients')} / on (job, instance, kind)"
                    f" ({_of('proxyd_clients_max')} > 0)",
                    "{{instance}} {{kind}}",
                ),
            ),
        ),
        Panel("New sessions", "ops", (_rate("proxyd_sessions_opened_total", "listener"),)),
        Panel("Refused", "ops", (_rate("proxyd_refusals_total", "reason"),)),
        Panel(
            "Waiting, for logins failed",
            "short",
            (_rate("proxyd_login_delay_seconds_total", "instance"),),
        ),
    ),
    "Calls": (
        Panel("Calls", "ops", (_rate("proxyd_calls_total", "daemon"),)),
        Panel(
            "Time of a call",
            "s",
            tuple(_quantile(each, "proxyd_call_seconds", "daemon") for each in (0.5, 0.99)),
        ),
        Panel(
            "Slowest procedures", "s", (Query(f"topk(10, {_SLOWEST.expression})", _SLOWEST.line),)
        ),
        Panel(
            "Answered by an error",
            "ops",
            (_rate("proxyd_calls_total", "procedure", result="error"),),
        ),
        Panel("Waiting for a reply", "short", (_now("proxyd_calls_under_way", "daemon"),)),
    ),
    "Bytes and time": (
        Panel("Bytes", "Bps", (_rate("proxyd_bytes_total", "daemon", "direction"),)),
        Panel("TLS handshake", "s", (_quantile(0.99, "proxyd_handshake_seconds", "listener"),)),
        Panel("Opening a daemon", "s", (_quantile(0.99, "proxyd_opening_seconds", "daemon"),)),
        Panel("Relay turn", "s", (_quantile(0.99, "proxyd_relay_turn_seconds", "thread"),)),
    ),
    "The daemon itself": (
        Panel("CPU", "percentunit", (_rate("proxyd_process_cpu_seconds_total", "instance"),)),
        Panel("Resident", "bytes", (_now("proxyd_process_resident_memory_bytes", "instance"),)),
        Panel("Open descriptors", "short", (_now("proxyd_process_open_fds", "instance"),)),
        Panel(
            "Days until a certificate ends",
            "d",
            (
                Query(
                    f"({_of('proxyd_certificate_expiry_time_seconds')} - time()) / 86400",
                    "{{instance}} {{role}} {{file}}",
                ),
            ),
        ),
    ),
}


def dashboard() -> str:
    """The whole file."""
    variables = [_variable(each) for each in ("job", "instance")]
    source = {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}
    made = {
        "title": "proxyd",
        "uid": "proxyd",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "panels": list(_panels()),
    }
    return json.dumps(made, indent=1) + "\n"


def _variable(label: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values(proxyd_info, {label})",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> Iterator[dict[str, Any]]:
    number = top = 0
    for title, panels in ROWS.items():
        number += 1
        place = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "gridPos": place}
        top += 1
        for at, panel in enumerate(panels):
            number += 1
            row, column = divmod(at, _ACROSS)
            width = _WIDTH // _ACROSS
            place = {"x": column * width, "y": top + row * _HEIGHT, "w": width, "h": _HEIGHT}
            yield {"id": number, "gridPos": place, **_panel(panel)}
        top += -(-len(panels) // _ACROSS) * _HEIGHT


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.line,
            }
            for at, query in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    TARGET.write_text(dashboard(), encoding="utf-8")
