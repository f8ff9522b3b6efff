"""What a release of this format has written is read by this one, and this one writes the same."""

import base64
import json
import socket
from pathlib import Path

import pytest

from proxyd.endpoint.moving import endpoint_from
from proxyd.relay.figures import Figures
from proxyd.relay.loop import RelayLoop
from proxyd.relay.moving import ends_in, pair_from
from proxyd.upgrade.documents import client_told, figures_told
from proxyd.upgrade.format import FORMAT, READS, unpacked
from proxyd.upgrade.predecessor import _offered
from tests.fakes.layer import FakeLayer
from tests.relay.moving import Recorder
from tests.relay.session import tcp_pair, unix_pair
from tests.upgrade.golden import golden

HERE = Path(__file__).parent
FORMATS = sorted(READS)


def kept(number):
    return json.loads((HERE / f"state-{number}.json").read_text())


def read(number):
    for each in kept(number):
        text = json.dumps(each["text"]).encode()
        document = unpacked(text, base64.b64decode(each["beside"]))
        yield document.pop("kind"), document


def test_this_release_writes_its_format():
    assert golden() == kept(FORMAT), "what is written has changed: FORMAT counts up for that"


@pytest.mark.parametrize("number", FORMATS)
def test_the_sessions_of_every_format_that_is_read_go_on(number):
    states = [document["state"] for kind, document in read(number) if kind == "session"]
    assert len(states) >= 10
    loop = RelayLoop(report=lambda _pair: None)
    for state in states:
        ends, outer = [], []
        for told in ends_in(state):
            kind = told.get("below", told)["kind"]
            near, far = unix_pair() if kind == "unix" else tcp_pair()
            outer.append(near)
            ends.append(endpoint_from(told, far, FakeLayer.from_state))
        pair = pair_from(
            state,
            *ends,
            pipes=loop.pipes,
            figures_of=lambda _: Figures(),
            clock=loop.clock,
            trail=Recorder().trail(),
        )
        assert pair.number == state["number"]
        loop.resume(pair)
        loop.turn(0)
        for each in outer:
            each.close()
    loop.stop("over")
    loop.run()
    assert loop.bugs == 0


@pytest.mark.parametrize("number", FORMATS)
def test_whatever_else_is_told_is_understood(number):
    seen = set()
    for kind, document in read(number):
        seen.add(kind)
        for each in document.get("clients", ()):
            assert client_told(each).number == each["number"]
        if kind == "figures":
            assert [figures_told(each).calls for _, each in document["of"]] == [3]
        if kind == "offer":
            assert document["format"] == number
            found = [_offered(socket.socket(), each) for each in document["listening"]]
            told = [(each.transport, each.service, each.file) for each in found]
            assert told == [
                ("UNIX", "", (2049, 1234)),
                ("TLS", "", None),
                ("", "virtproxyd.socket", None),
            ]
            for each in found:
                each.sock.close()
    assert seen == {
        *("offer", "ready", "never mind", "clients", "take", "taken", "session", "has", "cannot"),
        *("gone", "figures", "kick", "stop", "retired", "finished", "signal", "caller", "left"),
    }
