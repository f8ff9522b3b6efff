"""The metrics of a proxyd under load, scraped by a real Prometheus and held to others' figures."""

import http.client
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.cli import main as loadtest
from loadtest.results import load
from loadtest.statuses import OK
from script.generate_dashboard import ROWS
from tests.bed.command import clean_environment, end_process, run_to_end
from tests.bed.daemon import short_directory
from tests.bed.prometheus import Prometheus, fetch
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "monitoring" / "proxyd.rules.yml"


def metrics_address(front):
    """HOST:PORT that the log tells of."""
    found = wait_until(
        lambda: re.search(r"metrics are served at (\S+)", front.log_text()), 10, "the address"
    )
    return found[1]


@pytest.fixture
def front(make_proxyd):
    return make_proxyd({"proxyd_metrics_listen": "127.0.0.1:0"})


@pytest.fixture
def prometheus(front, tmp_path):
    with Prometheus(tmp_path, metrics_address(front), RULES) as started:
        yield started


def samples(text):
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def scraped(front):
    return samples(fetch(f"http://{metrics_address(front)}/metrics"))


def ledger(front, tmp_path, *words):
    """What the load tool has counted by itself."""
    out = tmp_path / "run.json"
    assert loadtest(["run", f"unix:{front.sock}", *words, "--out", str(out)]) == OK
    return load(out).targets[0]


def test_every_figure_is_the_load_tools_own(front, prometheus, tmp_path):
    mix = "CONNECT_GET_LIB_VERSION=3,CONNECT_GET_TYPE=2,NODE_GET_INFO=2,list=1"
    words = ("--uri", "test:///default", "--mix", mix, "-R", "300", "-c", "3", "-d", "3s")
    prometheus.wait_for_scrapes()
    own = ledger(front, tmp_path, *words)
    prometheus.wait_for_scrapes()
    assert own.errors == {}
    calls = {
        dict(labels)["procedure"].upper(): value
        for labels, value in prometheus.query("proxyd_calls_total{result='ok'}").items()
    }
    counts = {name: one.count for name, one in own.procedures.items()}
    assert {name: calls[name] for name in counts} == counts
    # A client says more than its calls: it asks for features, and says goodbye.
    others = sum(calls.values()) - sum(counts.values())
    assert 0 <= others <= 20 * 3
    up = prometheus.value("sum(proxyd_bytes_total{direction='up'})")
    down = prometheus.value("sum(proxyd_bytes_total{direction='down'})")
    assert own.bytes_up <= up <= own.bytes_up + 20 * 3 * 200
    assert own.bytes_down <= down <= own.bytes_down + 20 * 3 * 200
    assert prometheus.value("sum(proxyd_sessions_opened_total)") >= 3
    assert prometheus.value("sum(proxyd_sessions)") == 0
    for name, count in counts.items():
        procedure = name.lower()
        buckets = f"proxyd_call_seconds_bucket{{procedure='{procedure}'}}"
        ours = prometheus.value(f"histogram_quantile(0.5, sum by (le) ({buckets}))")
        # The tool takes a call's time from when it was due, at both of its ends.
        assert ours <= own.procedures[name].percentile(50) / 1e9 + bucket_width(ours)
        timed = prometheus.value(f"sum(proxyd_call_seconds_count{{procedure='{procedure}'}})")
        assert timed == count


def bucket_width(seconds):
    """Of the bucket that a time is in."""
    return max(seconds, 50e-6) * 1.5


def told(front, name, *labels):
    """The one sample with these among its labels, once there is one that is not 0."""

    def found():
        # A page is half a second old at times.
        values = [
            value
            for each, value in scraped(front).items()
            if each[0] == name and set(labels) <= set(each) and value
        ]
        assert len(values) <= 1, values
        return values

    return wait_until(found, 10, f"{name} {labels}")[0]


def test_errors_are_told_by_procedure(front):
    uri = unix_uri("test:///default", front.sock)
    for _ in range(3):
        assert virsh(uri, "dominfo no-such-domain").status != 0
    assert told(front, "proxyd_calls_total", "domain_lookup_by_name", "error") == 3


def test_refusals_are_told_by_reason(front):
    assert virsh(unix_uri("esx:///system", front.sock), "list").status != 0
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(front.sock))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(64))
        while client.recv(4096):
            pass
    assert told(front, "proxyd_refusals_total", "protocol") == 1
    assert told(front, "proxyd_refusals_total", "no_route") >= 1
    assert scraped(front)["proxyd_refusals_total", "tls"] == 0


def test_a_session_is_told_where_it_is(front):
    session = virsh_event(front)
    try:
        assert told(front, "proxyd_sessions", "libvirt", "libvirt-sock", "open") == 1
    finally:
        end_process(session)


def virsh_event(front):
    command = ["virsh", "-c", unix_uri("test:///default", front.sock), "event", "--all", "--loop"]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env=clean_environment(),
    )


def test_health_and_readiness(front):
    where = metrics_address(front)
    assert fetch(f"http://{where}/healthz") == "ok\n"
    assert fetch(f"http://{where}/readyz") == "ok\n"


def test_it_is_not_ready_where_no_daemon_is(make_proxyd):
    with short_directory() as empty:
        front = make_proxyd({"proxyd_metrics_listen": "127.0.0.1:0"}, backend_dir=empty)
        host, port = metrics_address(front).split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        assert answer.status == 503
        assert b"no daemon behind has a socket" in answer.read()
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()


def test_a_path_is_a_socket_of_the_group_alone(make_proxyd, tmp_path):
    with short_directory() as directory:
        path = directory / "metrics"
        front = make_proxyd({"proxyd_metrics_listen": str(path)})
        wait_until(lambda: "metrics are served at" in front.log_text(), 10, "the socket")
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            page = b""
            while data := client.recv(65536):
                page += data
        assert page.startswith(b"HTTP/1.1 200")
        assert samples(page.partition(b"\r\n\r\n")[2].decode())["proxyd_up",] == 1
        front.daemon.send(signal.SIGTERM)
        front.daemon.wait()
        assert not path.exists()


def test_a_port_that_is_somebody_elses_is_had_once_it_is_free(make_proxyd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        front = make_proxyd({"proxyd_metrics_listen": f"127.0.0.1:{port}"})
        wait_until(lambda: "no metrics: cannot listen" in front.log_text(), 10, "the complaint")
        assert virsh(unix_uri("test:///default", front.sock), "list").status == 0
    wait_until(
        lambda: f"metrics are served at 127.0.0.1:{port}" in front.log_text(), 20, "the port"
    )
    assert scraped(front)["proxyd_up",] == 1


def test_an_address_that_others_reach_is_warned_of(make_proxyd):
    front = make_proxyd({"proxyd_metrics_listen": "0.0.0.0:0"})
    wait_until(lambda: "which other hosts may reach" in front.log_text(), 10, "the warning")


def test_the_command_prints_the_same_and_writes_it_in_one_step(front, tmp_path):
    own = [sys.executable, "-m", "proxyd", "metrics", "--socket", str(front.directory)]
    shown = samples(run_to_end(own, deadline_s=30).succeeded())
    assert shown["proxyd_up",] == 1
    assert {each[0] for each in shown} == {each[0] for each in scraped(front)}
    file = tmp_path / "proxyd.prom"
    run_to_end([*own, "--output", str(file)], deadline_s=30).succeeded()
    assert samples(file.read_text())["proxyd_up",] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["proxyd.prom"]
    front.stop()
    done = run_to_end([*own, "--output", str(file)], deadline_s=30)
    assert done.status == 1
    assert "cannot reach" in done.stderr
    assert samples(file.read_text()) == {("proxyd_up",): 0}


def test_the_alert_rules_are_sound():
    run_to_end(["promtool", "check", "rules", str(RULES)], deadline_s=30).succeeded()


def test_no_alert_fires_on_a_host_that_is_well(front, prometheus):
    virsh(unix_uri("test:///default", front.sock), "list").succeeded()
    prometheus.wait_for_scrapes(3)
    states = {rule["name"]: (rule["health"], rule["state"]) for rule in prometheus.rules()}
    assert set(states.values()) == {("ok", "inactive")}, states


def test_every_panel_of_the_dashboard_finds_what_it_asks_for(front, prometheus, tmp_path):
    ledger(front, tmp_path, "--uri", "test:///default", "-R", "100", "-d", "2s")
    virsh(unix_uri("test:///default", front.sock), "dominfo no-such-domain")
    prometheus.wait_for_scrapes(3)
    empty = []
    for panels in ROWS.values():
        for panel in panels:
            for query in panel.queries:
                expression = (
                    query.expression.replace("$job", ".*")
                    .replace("$instance", ".*")
                    .replace("$__rate_interval", "5m")
                )
                if not prometheus.query(expression):
                    empty.append(panel.title)
    # There is no TLS here, and so no handshake and no certificate.
    assert empty == ["TLS handshake", "Days until a certificate ends"]
