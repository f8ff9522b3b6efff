"""Over TLS every frame comes by itself: no record of a whole proxyd's holds bytes of two frames.

Whoever made them: the daemon, the control plane before the session is open, the relay that refuses
a call. Records are looked at from outside; a client that reads as libvirt's does gets all of them
by waiting for its socket alone (tests/bed/libvirt_reader.py).
"""

import itertools
import os
import random
import ssl
from contextlib import ExitStack, contextmanager

import pytest

from proxyd.wire import remote
from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import HEADER_SIZE, FrameType, Status
from proxyd.wire.programs import Feature, Program, Remote
from proxyd.wire.xdr import Writer
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.tls_records import RecordClient, check_records
from tests.bed.virsh import unix_uri, virsh
from tests.fakes.moody_daemon import ECHOES, PLAYS, MoodyDaemon
from tests.relay import frames
from tests.system.rpc import DEADLINE_S
from tests.system.tls_client import client_context, connected, opened_over_tls

pytestmark = pytest.mark.system

TEST, SCRIPTED = "test:///default", "lxc:///system"
DOMAIN_LOOKUP_BY_NAME = 23
DOMAIN_RESUME, DOMAIN_SUSPEND = 28, 34
DOMAIN_EVENT_REGISTER, DOMAIN_EVENT = 316, 318
DOMAIN_SCREENSHOT = 211
ATTEMPTS = 5
SPARSE = 1  # a volume's holes come as frames of their own
NOISE = random.Random(17).randbytes(300_000)


@pytest.fixture(scope="module")
def front(backend_dir, qemu_backend, tmp_path_factory):
    """A proxyd with a real daemon and a scripted one behind it, and what its clients need."""
    pki = Pki(tmp_path_factory.mktemp("pki"))
    with ExitStack() as stack:
        daemon = stack.enter_context(
            MoodyDaemon(stack.enter_context(short_directory()) / "daemon-sock")
        )
        made = stack.enter_context(
            Proxyd(
                stack.enter_context(short_directory()),
                backend_dir=backend_dir,
                config={
                    "proxyd_routes": [f"test={qemu_backend.sock}", f"lxc={daemon.path}"],
                    "listen_tls": 1,
                    "listen_addr": "127.0.0.1",
                    "tls_port": "0",
                    **pki.settings(pki.server()),
                },
            )
        )
        made.pkipath, made.daemon_behind = pki.client(), daemon
        yield made
        assert "Traceback" not in made.log_text()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def version(request):
    return request.param


class Watched:
    """A client whose TLS records are looked at; `calls` counts its serials."""

    def __init__(self, sock, context):
        self.records = RecordClient(sock, context)
        self.records.shake_hands()
        self.records.let_in()
        self.serial = -1

    def frame(self, procedure, payload=b""):
        self.serial += 1
        return remote.call(procedure, self.serial, payload).pack()

    def send(self, *wires):
        """All in one record, if they fit into one."""
        self.records.send(b"".join(wires))

    def ask(self, procedure, payload=b""):
        reply, packets = self.ask_for_stream(procedure, payload)
        assert not packets
        return reply

    def ask_for_stream(self, procedure, payload=b""):
        """The reply, and packets that were ahead of it: two of the daemon's threads send."""
        self.send(self.frame(procedure, payload))
        packets = []
        while (reply := self.records.receive(1)[0]).header.type == FrameType.STREAM:
            packets.append(reply)
        assert reply.header.status == Status.OK, Failure.unpack(reply.payload)
        return reply, packets

    def opening(self, uri):
        return self.frame(Remote.CONNECT_OPEN, remote.OpenArguments(uri, 0).pack())


@contextmanager
def watched(front, version, uri=None):
    """At the end every record has bytes of one frame only."""
    context = client_context(front.pkipath)
    context.minimum_version = context.maximum_version = version
    with connected(front.tls_address()) as sock:
        sock.settimeout(DEADLINE_S)
        client = Watched(sock, context)
        if uri is not None:
            client.ask(Remote.AUTH_LIST)
            client.send(client.opening(uri))
            client.records.receive(1)
        try:
            yield client
        finally:
            check_records(client.records.records)
        check_records(client.records.records, len(client.records.frames))


def serials(received):
    return sorted(each.header.serial for each in received)


@pytest.mark.parametrize("count", [2, 40, 500])
def test_replies_to_pipelined_calls(front, version, count):
    with watched(front, version, TEST) as client:
        first = client.serial + 1
        client.send(*(client.frame(Remote.CONNECT_GET_LIB_VERSION) for _ in range(count)))
        assert serials(client.records.receive(count)) == [*range(first, first + count)]


def test_all_that_opens_a_session_and_calls_behind_it_in_one_record(front, version):
    with watched(front, version) as client:
        feature = Writer().i32(Feature.PROGRAM_KEEPALIVE).take()
        client.send(
            client.frame(Remote.AUTH_LIST),
            client.frame(Remote.CONNECT_SUPPORTS_FEATURE, feature),
            client.opening(TEST),
            *(client.frame(Remote.CONNECT_GET_LIB_VERSION) for _ in range(40)),
        )
        received = client.records.receive(43)
        assert serials(received) == [*range(43)]
        assert {each.header.status for each in received} == {Status.OK}


def test_errors_before_a_session_is_open(front, version):
    with watched(front, version) as client:
        client.send(
            *(client.frame(Remote.CONNECT_GET_LIB_VERSION) for _ in range(5)),
            client.frame(Remote.AUTH_LIST),
            client.opening("nosuch:///system"),
        )
        received = client.records.receive(7)
        statuses = [each.header.status for each in received]
        assert statuses == [Status.ERROR] * 5 + [Status.OK, Status.ERROR]


@pytest.mark.parametrize("uri", [TEST, SCRIPTED])
def test_refusals_between_replies(front, version, uri):
    with watched(front, version, uri) as client:
        wires, refused = [], set()
        procedure = Remote.CONNECT_GET_LIB_VERSION if uri == TEST else ECHOES
        for at in range(60):
            wires.append(client.frame(procedure))
            if at % 3 == 0:
                make = frames.second_open if at % 2 else frames.set_identity
                client.serial += 1
                wires.append(make(client.serial))
                refused.add(client.serial)
        client.send(*wires)
        received = client.records.receive(80)
        failed = [each for each in received if each.header.status == Status.ERROR]
        assert {each.header.serial for each in failed} == refused
        codes = {Failure.unpack(each.payload).code for each in failed}
        assert codes == {ErrorCode.INTERNAL_ERROR, ErrorCode.ACCESS_DENIED}


def test_refusals_between_packets(front, version):
    """They wait for the end of a packet that comes slowly, and go in front of the next."""
    sizes = [28, 29, 16_384, 16_385, 65_536, 65_537, 262_172, 300_000, 60, 28]
    with playing(front, version, sizes, chunk=9973) as client:
        client.serial += 1
        refused = frames.second_open(client.serial)
        client.send(client.frame(PLAYS), refused, client.frame(PLAYS), refused)
        received = client.records.receive(2 * len(sizes) + 2)
        packets = [each for each in received if each.header.type == FrameType.STREAM]
        assert [HEADER_SIZE + len(each.payload) for each in packets] == 2 * sizes


@contextmanager
def playing(front, version, sizes, chunk):
    """A client of the scripted daemon, which has packets of these sizes to send."""
    daemon = front.daemon_behind
    daemon.script, daemon.chunk = b"".join(map(packet, itertools.count(), sizes)), chunk
    with watched(front, version, SCRIPTED) as client:
        yield client


def packet(number, size):
    content = NOISE[number : number + size - HEADER_SIZE]
    return frames.frame(
        FrameType.STREAM,
        number,
        content,
        procedure=frames.VOL_DOWNLOAD,
        status=Status.CONTINUE,
    )


@pytest.mark.parametrize("chunk", [1, 27, 4096, 65_535, 1 << 20])
def test_packets_of_odd_sizes_in_any_cut(front, version, chunk):
    rng = random.Random(chunk)
    longest = 300 if chunk == 1 else 20_000 if chunk == 27 else 299_000
    sizes = [rng.randint(HEADER_SIZE, rng.choice((40, longest))) for _ in range(40)]
    with playing(front, version, sizes, chunk) as client:
        client.send(client.frame(PLAYS))
        received = client.records.receive(len(sizes))
        assert [each.pack() for each in received] == list(map(packet, itertools.count(), sizes))


def test_keepalives_errors_and_events_between_packets(front, version):
    rng = random.Random(18)
    ping = frames.frame(FrameType.MESSAGE, 0, procedure=1, program=Program.KEEPALIVE)
    failed = Failure(1, 2, "something").reply_to(remote.call(ECHOES, 7, b"").header).pack()
    event = frames.frame(FrameType.MESSAGE, 0, bytes(100), procedure=DOMAIN_EVENT)
    wires = [rng.choice([ping, failed, event, packet(1, 3000)]) for _ in range(300)]
    with playing(front, version, [], chunk=1 << 20) as client:
        front.daemon_behind.script = b"".join(wires)
        client.send(client.frame(PLAYS))
        assert [each.pack() for each in client.records.receive(300)] == wires


def test_a_client_that_did_not_read_for_long(front, version):
    """The daemon stalls, proxyd holds what it has begun, and then it comes frame by frame."""
    sizes = [70_000, 28, 28, 28, 16_400] * 100
    with playing(front, version, sizes, chunk=1 << 20) as client:
        before = front.rss_kib()
        client.send(client.frame(PLAYS))
        # A second session sees to it that the relay has been at it for a while.
        with opened_over_tls(front.tls_address(), front.pkipath, TEST) as other:
            for _ in range(50):
                assert other.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        assert front.rss_kib() - before < 4096
        assert len(client.records.receive(len(sizes))) == len(sizes)


def test_events_between_replies(front, version):
    """A domain is suspended and resumed by calls in one record; replies and events come mixed."""
    with watched(front, version, TEST) as client:
        domain = client.ask(DOMAIN_LOOKUP_BY_NAME, Writer().string("test").take()).payload
        lifecycle_of_all = Writer().i32(0).u32(0).take()
        client.ask(DOMAIN_EVENT_REGISTER, lifecycle_of_all)
        calls = [DOMAIN_SUSPEND, DOMAIN_RESUME] * 20
        client.send(*(client.frame(each, domain) for each in calls))
        # One is worked on at a time, but several workers may take them in another order; events are
        # yet another thread's to send, so that the first may come behind all of the replies.
        received = client.records.receive(40)
        while len(replies_of(received)) < 40 or events_in(received) < 2:
            more = client.records.receive(1)
            assert more
            received += more
        assert len(replies_of(received)) == 40
        assert events_in(received) > 1


def test_a_screenshot(front, version):
    """A stream that begins in the reply's own record, if nobody minds; or, rarely, ahead of it."""
    with watched(front, version, TEST) as client:
        domain = client.ask(DOMAIN_LOOKUP_BY_NAME, Writer().string("test").take()).payload
        client.send(client.frame(DOMAIN_SCREENSHOT, domain + Writer().u32(0).u32(0).take()))
        received = client.records.receive(2)
        # Two of the daemon's threads send: a packet may overtake the reply, even the last one.
        while not (replies_of(received) and ends_stream(received)):
            more = client.records.receive(1)
            assert more
            received += more
        (reply,) = replies_of(received)
        assert reply.header.status == Status.OK
        packets = [each for each in received if each.header.type == FrameType.STREAM]
        assert len(packets) == len(received) - 1
        assert sum(len(each.payload) for each in packets) > 10_000


def replies_of(received):
    return [each for each in received if each.header.type == FrameType.REPLY]


def events_in(received):
    return sum(each.header.procedure == DOMAIN_EVENT for each in received)


def ends_stream(received):
    return any(each.header.type == FrameType.STREAM and not each.payload for each in received)


@pytest.fixture(scope="module")
def sparse(qemu_backend, tmp_path_factory):
    """A volume of data and holes, none of a round size; and the client's name for it."""
    directory = tmp_path_factory.mktemp("sparse")
    with (directory / "sparse.img").open("wb") as file:
        for at in range(5):
            file.seek(at * 1_000_001)
            file.write(os.urandom(300_007))
        file.truncate(6_000_011)
    uri = unix_uri("qemu:///system", qemu_backend.sock)
    virsh(uri, f"pool-define-as sparse dir --target {directory}; pool-start sparse").succeeded()
    yield directory / "sparse.img"
    virsh(uri, "pool-destroy sparse; pool-undefine sparse").succeeded()


@pytest.mark.parametrize("flags", [0, SPARSE], ids=["all", "holes"])
def test_a_volume(front, version, sparse, flags):
    with watched(front, version, "qemu:///system") as client:
        pool = client.ask(84, Writer().string("sparse").take()).payload
        volume = client.ask(95, pool + Writer().string(sparse.name).take()).payload
        wanted = volume + Writer().u64(0).u64(0).u32(flags).take()
        reply, ahead = client.ask_for_stream(frames.VOL_DOWNLOAD, wanted)
        data = hole = 0
        while (frame := (ahead or client.records.receive(1)).pop(0)).payload:
            assert frame.header.serial == reply.header.serial
            if frame.header.type == FrameType.STREAM_HOLE:
                hole += int.from_bytes(frame.payload[:8], "big")
            else:
                data += len(frame.payload)
        assert data + hole == sparse.stat().st_size
        assert bool(hole) == bool(flags)


def test_the_end_of_a_session(front, version):
    """Asked for behind calls. Of one session in fifty libvirtd itself loses the reply to that.

    It closes when it has sent any reply after that call was made: also one to a call before it.
    """
    for _ in range(ATTEMPTS):
        with watched(front, version, TEST) as client:
            calls = [client.frame(Remote.CONNECT_GET_LIB_VERSION) for _ in range(40)]
            client.send(*calls, client.frame(Remote.CONNECT_CLOSE))
            received = client.records.receive(50)
            assert client.records.ended
            if serials(received)[-1] == client.serial:
                return
    raise AssertionError("it is never answered")


def test_who_reads_as_libvirt_gets_all_of_it(front):
    sizes = [28, 29, 60, 16_384, 262_172, 28, 28, 65_537] * 5
    daemon = front.daemon_behind
    daemon.script, daemon.chunk = b"".join(map(packet, itertools.count(), sizes)), 50_021
    with opened_over_tls(front.tls_address(), front.pkipath, SCRIPTED) as client:
        client.serial += 1
        client.send(frames.second_open(client.serial) + client.frame(PLAYS))
        client.send(b"".join(client.frame(ECHOES, bytes(at)) for at in range(100)))
        received = [client.receive() for _ in range(1 + len(sizes) + 100)]
        assert all(received)
        assert sum(each.header.program == Program.REMOTE for each in received) == len(received)
        assert client.reader.frames == 2 + len(received)


MIXES, LONG_MIXES = 10, 200


@pytest.mark.parametrize("count", [MIXES, pytest.param(LONG_MIXES, marks=pytest.mark.long)])
def test_random_mixes(front, count):
    """LoginRefused calls, echoes and what the daemon has to say, read as libvirt does."""
    first = random.SystemRandom().randrange(1 << 48)
    for seed in range(first, first + count):
        try:
            check_mix(random.Random(seed), front)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def check_mix(rng, front):
    daemon = front.daemon_behind
    with opened_over_tls(front.tls_address(), front.pkipath, SCRIPTED) as client:
        for _ in range(3):
            longest = rng.choice((40, 1000, 20_000, 299_000))
            sizes = [rng.randint(HEADER_SIZE, longest) for _ in range(rng.randint(1, 40))]
            daemon.script = b"".join(map(packet, itertools.count(), sizes))
            daemon.chunk = rng.choice((500, 4096, 40_001, 1 << 20))
            calls = [client.frame(PLAYS)]
            for _ in range(rng.randint(0, 20)):
                if rng.random() < 0.5:
                    calls.append(client.frame(ECHOES, bytes(rng.choice((0, 9, 3000)))))
                else:
                    client.serial += 1
                    calls.append(frames.second_open(client.serial))
            rng.shuffle(calls)
            wire = b"".join(calls)
            cut = rng.randint(0, len(wire))
            expected = len(calls) - 1 + len(sizes)
            client.send(wire[:cut])
            # A part of it is read before the rest is asked for, if anything has come by then.
            early = [client.reader.take() for _ in range(rng.randint(0, 5))]
            client.send(wire[cut:])
            for _ in range(expected - sum(each is not None for each in early)):
                assert client.receive() is not None
        assert client.reader.take() is None
