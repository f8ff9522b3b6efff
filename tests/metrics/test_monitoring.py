"""The files for Prometheus and Grafana: made by the script, and of nothing that is not there."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxyd.metrics.exposition import exposition
from script.generate_dashboard import dashboard
from tests.metrics.readings import reading

MONITORING = Path(__file__).parent.parent.parent / "monitoring"


def test_the_dashboard_is_what_the_script_writes():
    written = (MONITORING / "grafana.json").read_text()
    assert written == dashboard(), "make it anew: script/with python script/generate_dashboard.py"


def test_the_panels_do_not_overlap():
    taken = set()
    for panel in json.loads(dashboard())["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken
                taken.add((x, y))


@pytest.mark.parametrize("name", ["grafana.json", "proxyd.rules.yml"])
def test_only_metrics_that_there_are_are_asked_for(name):
    shown = {
        each.name
        for family in text_string_to_metric_families(exposition(reading()).decode())
        for each in family.samples
    }
    asked = set(re.findall(r"\bproxyd_[a-z_]+", (MONITORING / name).read_text()))
    # Settings that are named in words, and what the command alone tells.
    others = {"proxyd_max_clients_per_peer", "proxyd_connection_rate", "proxyd_login_failures"}
    others |= {"proxyd_asleep"}
    assert asked - others <= shown
