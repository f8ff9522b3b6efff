"""The path of a small call makes nothing that stays."""

import gc
import sys

import pytest

from proxyd.relay.guards import GUARDED, restricted
from proxyd.rules.permissions import allowance_of
from tests.relay import frames

CALLS = 2000


@pytest.fixture(scope="module", autouse=True)
def nothing_of_others_to_collect():
    """What tests of other folders have left would be closed in the midst of ours."""
    gc.collect()


@pytest.mark.parametrize("guards", [GUARDED, restricted(allowance_of(["read"]))])
def test_calls_leave_no_object_behind_and_wake_no_collector(start, guards):
    session = start(guards=guards)
    call, reply = frames.call(1), frames.reply(1)
    scratch = bytearray(len(call) + len(reply))

    def converse(times):
        for _ in range(times):
            session.client.send(call)
            session.turn()
            session.daemon.recv_into(scratch)
            session.daemon.send(reply)
            session.turn()
            session.client.recv_into(scratch)

    converse(100)
    gc.collect()
    blocks, collections = sys.getallocatedblocks(), gc.get_stats()[0]["collections"]
    converse(CALLS)

    assert sys.getallocatedblocks() - blocks < CALLS / 20
    assert gc.get_stats()[0]["collections"] == collections
    assert (session.up.calls, session.down.calls) == (CALLS + 100, CALLS + 100)
