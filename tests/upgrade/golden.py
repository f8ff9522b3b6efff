"""One message of each kind as this release writes it, sessions in odd states among them.

    python -m tests.upgrade.golden > tests/upgrade/state-2.json

makes the golden file of a format. A file that a release has once written is never made again: when
FORMAT counts up, another one is made beside it.
"""

import base64
import json
import sys
from contextlib import ExitStack

from proxyd.admin.document import written
from proxyd.admission.holder import Holder, Rank
from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.negotiation.terms import TlsTerms
from proxyd.upgrade.documents import (
    ClientTold,
    DoorTold,
    FiguresTold,
    HolderTold,
    NameTold,
    RulingTold,
)
from proxyd.upgrade.format import FORMAT, packed
from proxyd.wire.programs import AuthMethod
from tests.fakes.layer import FakeLayer
from tests.relay import frames
from tests.relay.conversations import DESTROY, DOWNLOAD, GUEST
from tests.relay.moving import Recorder, Travelling
from tests.relay.session import tcp_pair

BUFFER = 65536
NOW_NS = 1_000_000_000  # in the place of what a clock says


def door(name, transport, method):
    return Door(name=name, transport=transport, method=method, readonly=False, own_uid_only=False)


def client(number, **differs):
    told = {
        "number": number,
        "door": DoorTold.of(door("libvirt-sock", Transport.UNIX, AuthMethod.POLKIT)),
        "holder": HolderTold.of(Holder("uid 1000", Rank.LOCAL, 1000)),
        "anonymous": False,
        "connected_s": 1.5,
        "started_ns": NOW_NS,
        "address": "",
        "identity": ClientIdentity(uid=1000, gid=1000, user_name="joe", pid=4711),
        "known": True,
        "certificate": "",
        "mechanism": "",
        "readonly": False,
        "uri": "qemu:///system",
        "backend": "/run/libvirt/virtqemud-sock",
        "tls": None,
        "figures": FiguresTold(
            calls=3,
            errors=1,
            bytes_up=84,
            bytes_down=1000,
            unanswered=1,
            streams=2,
            active_ns=NOW_NS,
        ),
    }
    return written(ClientTold(**told | differs))


def clients():
    by_tls = door("tls [::]:16514", Transport.TLS, AuthMethod.NONE)
    return [
        client(1),
        client(2, figures=None, uri="", backend="", known=False, identity=ClientIdentity()),
        client(
            3,
            door=DoorTold.of(by_tls),
            holder=HolderTold.of(Holder("2001:db8::1", Rank.NETWORK, None)),
            address="[2001:db8::1]:4711",
            certificate="C=XX,CN=joe",
            identity=ClientIdentity(x509_dname="C=XX,CN=joe"),
            tls=TlsTerms(
                version="TLSv1.3",
                cipher="TLS_AES_256_GCM_SHA384",
                group="X25519",
                signature="ed25519",
            ),
            names=(NameTold(kind="uri", value="spiffe://example.org/joe"),),
        ),
        client(
            4,
            gids=(1000, 107),
            ruling=RulingTold(
                line=7,
                text="ssh group:virt qemu:///system operators sessions=5 calls=200/s idle=1h",
                holder="uid:1000",
                by_ssh=True,
                level="set",
                name="operators",
                words=("operate", "network:start"),
                sessions=5,
                calls_per_s=200.0,
                idle_s=3600,
                until_s=1798761600.0,
            ),
        ),
    ]


def at_rest(session):
    session.client.send(frames.call(1))
    session.relay()
    session.daemon.send(frames.reply(1))


def amid_a_head(session):
    session.client.send(frames.call(1)[:13])


def amid_a_long_call(session):
    session.client.send(frames.packet(300_000)[:1000])


def a_change_that_is_held(session):
    session.client.send(frames.call(7, GUEST, procedure=DESTROY))


def amid_a_refusal(session):
    session.client.send(frames.set_identity(3, size=400)[:200])


def before_descriptors(session):
    session.client.send(frames.call_with_descriptors(2, 4))


def amid_a_download(session):
    session.client.send(frames.call(9, procedure=DOWNLOAD))
    session.relay()
    session.daemon.send(frames.reply(9, procedure=DOWNLOAD))


def half_closed(session):
    session.client.send(frames.call(1))
    session.relay()
    session.client.shutdown(1)


BY_NETWORK = {"pair": tcp_pair}
STATES = (
    (at_rest, {}),
    (at_rest, BY_NETWORK),
    (at_rest, {"readonly": True}),
    (amid_a_head, {}),
    (amid_a_long_call, {}),
    (a_change_that_is_held, {}),
    (amid_a_refusal, {}),
    (before_descriptors, {}),
    (amid_a_download, {}),
    (half_closed, {"parting_s": 30}),
)


def sessions():
    """Frozen at that moment; what a clock says in them is always the same."""
    for number, (happens, kind) in enumerate(STATES, 1):
        recorder = Recorder()
        session = Travelling(trail=recorder.trail, buffer=BUFFER, **kind)
        with ExitStack() as stack:
            stack.callback(session.close)
            happens(session)
            session.relay()
            frozen = session.freeze()
            state = frozen.state
            session.loop.thaw(frozen)
            session.loop.turn(0)
        state |= {"number": number, "active_ns": NOW_NS}
        state["stopwatch"] |= {"began_ns": NOW_NS, "sum_ns": NOW_NS}
        state["under_way"] = [[*each[:3], NOW_NS, *each[4:]] for each in state["under_way"]]
        if kind == BY_NETWORK:
            bare = state
        yield {"number": number, "state": state}
    layered = {**bare, "number": number + 1}
    layered["client"] = {
        "kind": "sasl",
        "below": {"kind": "plain"},
        "layer": FakeLayer().state(),
        "held": b"\0\0\0\x20half",
        "plain": b"unwrapped",
        "unsent": b"",
        "wrapped": 0,
    }
    yield {"number": number + 1, "state": layered}


def messages():
    """Kind and document of each."""
    listening = [
        {"transport": "UNIX", "service": "", "file": [2049, 1234]},
        {"transport": "TLS", "service": ""},
        {"transport": "", "service": "virtproxyd.socket"},
    ]
    yield "offer", {"format": FORMAT, "pid": 4711, "listening": listening}
    yield "ready", {}
    yield "never mind", {}
    yield "clients", {"clients": clients()}
    yield "take", {"last": 40, "draining": 1.5}
    yield "taken", {}
    for each in sessions():
        yield "session", each
    yield "has", {"number": 1}
    yield "cannot", {"number": 2, "reason": "its sockets did not come over"}
    yield "gone", {"number": 3}
    yield "figures", {"of": [[1, client(1)["figures"]]]}
    yield "kick", {"number": 1, "reason": "closed by an administrator"}
    yield "stop", {"reason": "SIGTERM"}
    yield "signal", {"number": 1}
    yield "caller", {"door": "libvirt-sock"}
    yield "left", {}
    yield "retired", {"pid": 4710, "clients": clients()}
    yield "finished", {}


def golden():
    """As they stand in the file: the text as JSON, and what stands beside it."""
    found = []
    for kind, document in messages():
        text, beside = packed({**document, "kind": kind})
        found.append({"text": json.loads(text), "beside": base64.b64encode(beside).decode()})
    return found


if __name__ == "__main__":
    json.dump(golden(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
