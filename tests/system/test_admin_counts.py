"""A call is counted once, and the same everywhere: in status, clients, for machines, in the log."""

import json
import re
import sys

import pytest

from proxyd.wire import remote
from proxyd.wire.frame import FrameType
from proxyd.wire.programs import Keepalive, Program, Remote
from tests.bed.command import run_to_end
from tests.bed.waiting import wait_until
from tests.system.rpc import opened

pytestmark = pytest.mark.system

PINGS = 7
CALLS = 3


def asked(front, *arguments):
    command = [sys.executable, "-m", "proxyd", *arguments, "-s", str(front.directory)]
    return run_to_end(command, deadline_s=30)


def figures(front):
    """The calls of the one session there is, by each way of asking."""
    (client,) = json.loads(asked(front, "clients", "--json").succeeded())
    table = asked(front, "clients").succeeded().splitlines()
    at = table[0].index("CALLS")
    total = json.loads(asked(front, "status", "--json", "--no-probe").stdout)["relay"]["calls"]
    shown = re.search(r"calls (\d+)", asked(front, "status", "--no-probe").stdout)
    return {
        "clients --json": client["calls"],
        "clients": int(table[1][at : at + len("CALLS")]),
        "status --json": total,
        "status": int(shown[1]),
    }


def test_keepalive_is_no_call_wherever_calls_are_told(make_proxyd):
    front = make_proxyd()
    with opened(front.sock) as client:
        for _ in range(PINGS):
            client.send(remote.keepalive(Keepalive.PING).pack())
            pong = client.receive()
            assert (pong.header.program, pong.header.type) == (
                Program.KEEPALIVE,
                FrameType.MESSAGE,
            )
        for _ in range(CALLS):
            client.call(Remote.CONNECT_GET_LIB_VERSION)
        assert set(figures(front).values()) == {CALLS}, figures(front)
    line = wait_until(
        lambda: re.search(r"session \d+ ended: .* (\d+) calls,", front.log_text()),
        10,
        "the log line",
    )
    assert int(line[1]) == CALLS
    # And of sessions that have ended.
    told = json.loads(asked(front, "status", "--json", "--no-probe").stdout)
    assert told["relay"]["calls"] == CALLS
