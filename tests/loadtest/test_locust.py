"""The Locust user: under a real master with two workers, and alone."""

import csv
import json
import os
import socket
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.bed.command import end_process
from tests.bed.waiting import wait_until
from tests.loadtest.conftest import ROOT

LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]
HEADLESS = ["--headless", "--only-summary", "--stop-timeout", "5"]
DEADLINE_S = 40
SMALL, LIST = "CONNECT_GET_LIB_VERSION", "CONNECT_LIST_ALL_DOMAINS"


@pytest.fixture
def start_locust(tmp_path):
    """Starts a process of it; what still runs at the end is stopped."""
    running = []

    def start(*words):
        process = subprocess.Popen(
            [*LOCUST, *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        with process:
            end_process(process)


def ended(process):
    """Its exit status and what it said."""
    told, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, told


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def rows(path):
    with path.open() as file:
        return {row["Name"]: row for row in csv.DictReader(file)}


def test_a_master_and_two_workers_share_the_load(start_locust, start_fake, tmp_path):
    script, address = start_fake()
    port = free_port()
    options = ["--host", address, "--mix", f"small=3,{LIST}=1", *HEADLESS]
    load = ["-u", "4", "-r", "10", "--csv", str(tmp_path / "load")]
    bind = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    master = start_locust("--master", *bind, "--expect-workers", "2", *options, *load)
    towards = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    workers = [start_locust(*towards) for _ in range(2)]

    def reported():
        """Whether enough is in the master's file, which it writes anew every second."""
        with suppress(FileNotFoundError, KeyError):
            stats = rows(tmp_path / "load_stats.csv")
            sessions, small = (int(stats[name]["Request Count"]) for name in ("session", SMALL))
            return sessions == 4 and small > 100
        return False

    wait_until(reported, DEADLINE_S, "every session and a hundred calls are reported")
    master.terminate()
    status, told = ended(master)

    assert status == 0, told
    assert all(ended(worker)[0] == 0 for worker in workers)
    stats = rows(tmp_path / "load_stats.csv")
    small, listed = (int(stats[name]["Request Count"]) for name in (SMALL, LIST))
    assert small > 100
    assert small / listed == pytest.approx(3, rel=0.2)
    assert stats["Aggregated"]["Failure Count"] == "0"
    assert stats["session"]["Request Count"] == "4"
    assert len(script.opened) == 4
    assert script.closed == 4


@pytest.fixture
def alone(start_locust, tmp_path):
    """Runs it in one process for a second; gives its status, its statistics and what it said."""

    def alone(*words, status=0):
        where = tmp_path / "alone.json"
        load = ["-u", "2", "-r", "10", "-t", "1s", "--json-file", str(where.with_suffix(""))]
        found, told = ended(start_locust(*HEADLESS, *load, *words))
        assert found == status, told
        stats = json.loads(where.read_text()) if where.exists() else []
        return {each["name"]: each for each in stats}, told

    return alone


def test_a_user_keeps_to_the_rate(alone, start_fake):
    _, address = start_fake()
    stats, _ = alone("--host", address, "--rate-per-user", "20")
    # Two users in a second, which begins before they do; and without a rate it would be thousands.
    assert 2 <= stats[SMALL]["num_requests"] <= 60


def test_a_call_that_fails_is_counted_and_the_session_opened_again(alone, start_fake):
    script, address = start_fake(hang_up=True)
    stats, _ = alone("--host", address, "--rate-per-user", "20", status=1)
    assert stats[SMALL]["num_failures"] == stats[SMALL]["num_requests"] >= 2
    assert len(script.opened) == stats["session"]["num_requests"] >= stats[SMALL]["num_requests"]


def test_a_target_that_is_silent_is_given_up_although_the_kernel_does_not(alone, start_fake):
    _, address = start_fake(silent=True)
    stats, _ = alone("--host", address, "--timeout", "0.2", status=1)
    assert stats[SMALL]["num_failures"] == stats[SMALL]["num_requests"] >= 2
    assert 195 < stats[SMALL]["min_response_time"] < 900


def test_what_makes_no_sense_ends_it_before_it_begins(alone):
    _, told = alone("--host", "http://example.org", status=1)
    assert "locustfile: " in told
    assert "the kinds are: gssapi, scram+tls" in told
    assert "Traceback" not in told


# All in one process: to start it takes two seconds. It is not this one, which would have gevent.
JUDGE = """
import json, sys
from locust.argument_parser import parse_options
from loadtest import locust_user
from loadtest.failures import UsageError
for words in json.load(sys.stdin):
    options = parse_options(words)
    try:
        print("judged: ", locust_user.plan_of(options.host, options))
    except UsageError as error:
        print("judged: ", error)
"""
SENSELESS = [
    (["--host", "unix:/p", "--mix", "nothing=1"], "cannot be in a mix"),
    (["--host", "unix:/p", "--mix", "small=1,idle=5"], "events and idle hold connections"),
    (["--host", "unix:/p", "--mix", "download:1MiB=1"], "transfers need --volume"),
    (["--host", "tls:h:1"], "tls: targets need --cacert"),
    (["--host", "unix:/p", "--cert", "x"], "--cert is for tls: targets"),
]


def test_what_makes_no_sense_is_told_by_what_it_is():
    asked = json.dumps([words for words, _ in SENSELESS])
    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        cwd=ROOT,
        input=asked,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    # Locust has a word of its own to say.
    told = [line for line in done.stdout.splitlines() if line.startswith("judged: ")]
    for (_, complaint), line in zip(SENSELESS, told, strict=True):
        assert complaint in line


@pytest.mark.system
def test_users_come_in_by_tls_and_a_password_at_a_real_proxyd(alone, by_password):
    address, options = by_password
    mix = "small=2,DOMAIN_GET_XML_DESC=1,list=1"
    stats, _ = alone("-t", "2s", "--host", address, "--mix", mix, *options)
    assert stats["DOMAIN_GET_XML_DESC"]["num_requests"] > 5
    assert not any(each["num_failures"] for each in stats.values())
