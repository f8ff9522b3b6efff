"""proxyd towards a client: every stage, every verdict, and the complement of the order table."""

import gc
import weakref

import pytest

from proxyd.negotiation.events import HangUp, NeedsPolkit, NeedsSasl, Send, WantsOpen
from proxyd.negotiation.server import (
    CALL_LIMIT,
    FRAME_LIMIT,
    UNCALLED_LIMIT,
    ServerNegotiation,
    Stage,
)
from proxyd.wire import failure, remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import (
    HEADER_SIZE,
    LENGTH_SIZE,
    Frame,
    FrameType,
    Header,
    Status,
)
from proxyd.wire.programs import VERSION, AuthMethod, Keepalive, Program, Remote
from proxyd.wire.remote import OpenArguments
from proxyd.wire.xdr import Reader, Writer
from tests.negotiation.talk import (
    call_header,
    failure_of,
    feed,
    frames_in,
    numbers_of,
    only_sent,
    sent,
)
from tests.wire.table import procedures

SYSTEM = OpenArguments("qemu:///system", 0)
SASL_CALLS = (Remote.AUTH_SASL_INIT, Remote.AUTH_SASL_START, Remote.AUTH_SASL_STEP)
PAYLOADS = {
    Remote.AUTH_SASL_INIT: b"",
    Remote.AUTH_SASL_START: remote.SaslStart("PLAIN", b"x").pack(),
    Remote.AUTH_SASL_STEP: remote.pack_sasl_step(b"x"),
}
OFFERED = ("GSSAPI", "SCRAM-SHA-256")
DENIAL = Failure(45, 60, "authentication failed: polkit said no")
LOOKUP = Failure(38, 0, "no name for user 4711", int1=2)
REQUIRED = (39, 7, "authentication required")

# What a client may call before its connection is open, at each stage: docs/protocol/errors.md,
# section 6, and docs/protocol/authentication.md, section 1.
ALLOWED = {Stage.GREETED: {66, 67, 68, 69, 70}, Stage.TRUSTED: {66, 67, 68, 69, 70, 1, 2, 60}}
EVENTS = [row for row in procedures() if row.kind == "event"]
SERVED = (Program.REMOTE, Program.QEMU, Program.LXC)


def a_server(method=AuthMethod.NONE, **known):
    return ServerNegotiation(**{"method": method, "readonly": False, **known})


def call(procedure, payload=b"", serial=0):
    return remote.call(procedure, serial, payload).pack()


def open_call(arguments=SYSTEM, serial=0):
    return call(Remote.CONNECT_OPEN, arguments.pack(), serial)


def feature_call(number):
    return call(Remote.CONNECT_SUPPORTS_FEATURE, remote.pack_int(number))


def server_at(stage):
    """A machine at this stage, by the shortest way."""
    server = a_server(AuthMethod.POLKIT if stage is Stage.GREETED else AuthMethod.NONE)
    match stage:
        case Stage.DECIDING:
            feed(server, open_call())
        case Stage.OPEN:
            feed(server, open_call())
            server.opened()
        case Stage.ENDED:
            feed(server, call(Remote.CONNECT_CLOSE))
    assert server.stage is stage
    return server


reading_stages = pytest.mark.parametrize("stage", ALLOWED, ids=lambda stage: stage.name)
deaf_stages = pytest.mark.parametrize(
    "stage", [Stage.DECIDING, Stage.OPEN, Stage.ENDED], ids=lambda stage: stage.name
)


# ---- the order table, by its complement


@reading_stages
@pytest.mark.parametrize("program", SERVED, ids=lambda program: program.name)
def test_every_call_that_is_not_listed_is_refused_and_changes_nothing(stage, program):
    calls = [row.number for row in procedures() if row.program is program and row.kind == "call"]
    listed = ALLOWED[stage] if program is Program.REMOTE else set()
    told = REQUIRED if stage is Stage.GREETED else (1, 7, "internal error: connection not open")
    for number in set(calls) - listed:
        server = server_at(stage)
        header = call_header(number, 7, program)
        reply = only_sent(feed(server, Frame(header).pack()))
        said = failure_of(reply)
        assert (said.code, said.domain, said.message) == told, number
        assert reply.header == header.replied(Status.ERROR)
        assert server.stage is stage


@reading_stages
def test_every_call_that_is_listed_is_taken(stage):
    for number in ALLOWED[stage]:
        server = server_at(stage)
        events = feed(server, call(number, remote.pack_int(10) + bytes(8)))
        texts = [failure_of(f).message for f in sent(events) if f.header.status == Status.ERROR]
        assert not {"authentication required", "internal error: connection not open"} & set(texts)


@pytest.mark.parametrize("method", [AuthMethod.NONE, AuthMethod.POLKIT])
def test_where_no_token_comes_frames_are_shorter(method):
    (event,) = feed(a_server(method), (FRAME_LIMIT + 1).to_bytes(LENGTH_SIZE, "big"))
    assert isinstance(event, HangUp)


def test_what_a_peer_has_sent_is_gone_with_the_machine_and_waits_for_no_collector():
    server = a_server(AuthMethod.SASL)
    feed(server, call(Remote.AUTH_LIST))
    gone = weakref.ref(server)
    gc.disable()
    try:
        del server
        assert gone() is None
    finally:
        gc.enable()


@reading_stages
@pytest.mark.parametrize(
    ("program", "number"),
    [
        (program, number)
        for program, beyond in ((Program.REMOTE, 454), (Program.QEMU, 8), (Program.LXC, 2))
        for number in (0, -1, -(1 << 31), beyond, (1 << 31) - 1)
    ],
)
def test_a_number_outside_the_table_is_an_unknown_procedure(stage, program, number):
    server = server_at(stage)
    reply = only_sent(feed(server, Frame(call_header(number, 3, program)).pack()))
    assert failure_of(reply).message == f"unknown procedure: {number}"
    assert numbers_of(reply) == (39, 7)
    assert server.stage is stage


@reading_stages
@pytest.mark.parametrize("program", [Program.REMOTE, Program.QEMU], ids=lambda p: p.name)
def test_the_number_of_an_event_is_an_unknown_procedure(stage, program):
    # docs/protocol/frames.md, section 4: an event has no server function.
    numbers = [row.number for row in EVENTS if row.program is program]
    texts = []
    for number in numbers:
        server = server_at(stage)
        reply = only_sent(feed(server, Frame(call_header(number, 3, program)).pack()))
        texts.append(failure_of(reply).message)
    assert texts == [f"unknown procedure: {number}" for number in numbers]


@deaf_stages
def test_nothing_is_read_while_a_verdict_is_awaited_or_afterwards(stage):
    server = server_at(stage)
    assert server.wanted == 0
    assert server.receive_data(b"") == []
    with pytest.raises(ValueError, match="more was read than was wanted"):
        server.receive_data(call(Remote.AUTH_LIST)[:1])
    assert server.stage is stage


# ---- docs/protocol/errors.md, section 5, row by row


@pytest.mark.parametrize("method", AuthMethod)
@pytest.mark.parametrize("length", [0, 3, 4, 27, FRAME_LIMIT + 1, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_hung_up_on_without_a_word(method, length):
    server = a_server(method)
    (event,) = feed(server, length.to_bytes(LENGTH_SIZE, "big"))
    assert isinstance(event, HangUp)
    assert f"length of {length}" in event.reason
    assert (server.stage, server.wanted) == (Stage.ENDED, 0)


@reading_stages
@pytest.mark.parametrize(
    ("program", "version", "printed"),
    [
        (Program.ADMIN, 1, "110102160 version 1"),
        (Program.REMOTE, 2, "536903814 version 2"),
        (Program.KEEPALIVE, 1, "1801807216 version 1"),
        (0x87539319, 1, "-2024565991 version 1"),
        (Program.QEMU, 0x7FFFFFFF, "536903815 version 2147483647"),
    ],
)
def test_a_program_that_is_not_served_is_answered_in_its_own_name(stage, program, version, printed):
    server = server_at(stage)
    header = Header(program, version, Remote.AUTH_LIST, FrameType.CALL, 8, Status.ERROR)
    reply = only_sent(feed(server, Frame(header).pack()))
    assert reply.header == header.replied(Status.ERROR)
    assert numbers_of(reply) == (39, 7)
    assert failure_of(reply).message.endswith(printed)
    assert server.stage is stage


@reading_stages
@pytest.mark.parametrize("program", [Program.REMOTE, Program.ADMIN, 0])
@pytest.mark.parametrize(
    "kind",
    [
        FrameType.REPLY,
        FrameType.MESSAGE,
        FrameType.STREAM,
        FrameType.REPLY_WITH_FDS,
        FrameType.STREAM_HOLE,
        7,
        -1,
    ],
)
def test_what_is_no_call_is_dropped(stage, program, kind):
    server = server_at(stage)
    header = call_header(Remote.CONNECT_OPEN, 0, program)._replace(type=kind)
    assert feed(server, Frame(header, SYSTEM.pack()).pack()) == []
    assert server.stage is stage


@reading_stages
@pytest.mark.parametrize("status", [Status.ERROR, Status.CONTINUE, 3, -1])
@pytest.mark.parametrize("procedure", [Remote.AUTH_LIST, Remote.CONNECT_OPEN, 454])
def test_a_call_with_a_status_is_refused_before_its_procedure_is_looked_at(
    stage, status, procedure
):
    server = server_at(stage)
    header = call_header(procedure, 5)._replace(status=status)
    reply = only_sent(feed(server, Frame(header, SYSTEM.pack()).pack()))
    assert reply.header == header.replied(Status.ERROR)
    assert numbers_of(reply) == (39, 7)
    assert "status" in failure_of(reply).message
    assert server.stage is stage


@pytest.mark.parametrize(
    "wire",
    [
        call(Remote.CONNECT_OPEN),
        call(Remote.CONNECT_OPEN, SYSTEM.pack()[:-1]),
        call(Remote.CONNECT_OPEN, bytes.fromhex("00000001 ffffffff 00000000")),
        call(Remote.CONNECT_OPEN, bytes.fromhex("00000001 00000009 71656d75")),
        call(Remote.CONNECT_SUPPORTS_FEATURE),
        call(Remote.CONNECT_SUPPORTS_FEATURE, b"\0\0\0"),
    ],
)
def test_a_payload_that_does_not_decode_is_refused_and_the_next_is_not(wire):
    server = a_server()
    reply = only_sent(feed(server, wire))
    assert numbers_of(reply) == (39, 7)
    assert server.stage is Stage.TRUSTED
    assert feed(server, open_call()) == [WantsOpen(SYSTEM, keepalive=False)]


def test_bytes_behind_a_payload_are_ignored():
    server = a_server()
    events = feed(server, call(Remote.CONNECT_OPEN, SYSTEM.pack() + b"more than that"))
    assert events == [WantsOpen(SYSTEM, keepalive=False)]


@pytest.mark.parametrize("method", AuthMethod)
def test_descriptors_before_a_connection_is_open_end_it(method):
    server = a_server(method)
    header = Header(Program.REMOTE, VERSION, 249, FrameType.CALL_WITH_FDS, 1)
    (event,) = feed(server, Frame(header, Writer().u32(1).take()).pack())
    assert isinstance(event, HangUp)
    assert server.stage is Stage.ENDED


# ---- who may come in


@pytest.mark.parametrize("method", AuthMethod)
def test_auth_list_names_the_method_of_the_listener(method):
    server = a_server(method)
    reply = only_sent(feed(server, call(Remote.AUTH_LIST, serial=9)))
    assert reply == remote.reply(call_header(66, 9), remote.pack_auth_methods([method]))
    assert server.authenticated is (method is AuthMethod.NONE)


@pytest.mark.parametrize("method", [AuthMethod.SASL, AuthMethod.POLKIT])
def test_a_listener_that_asks_for_proof_opens_nothing_without_it(method):
    server = a_server(method)
    for number in ALLOWED[Stage.GREETED] - {Remote.AUTH_POLKIT}:
        feed(server, call(number))
    reply = only_sent(feed(server, open_call()))
    assert numbers_of(reply) == REQUIRED[:2]
    assert server.stage is Stage.GREETED


def test_root_is_let_in_by_polkit_once_it_has_asked():
    server = a_server(AuthMethod.POLKIT, is_root=True)
    reply = only_sent(feed(server, call(Remote.AUTH_LIST)))
    assert remote.unpack_auth_methods(reply.payload) == [AuthMethod.NONE]
    assert (server.stage, server.authenticated) == (Stage.TRUSTED, True)


def test_root_that_did_not_ask_is_not_let_in():
    server = a_server(AuthMethod.POLKIT, is_root=True)
    reply = only_sent(feed(server, open_call()))
    assert failure_of(reply).message == "authentication required"
    assert (server.stage, server.authenticated) == (Stage.GREETED, False)


def test_root_has_to_prove_itself_where_polkit_is_not_asked():
    server = a_server(AuthMethod.SASL, is_root=True)
    reply = only_sent(feed(server, call(Remote.AUTH_LIST)))
    assert remote.unpack_auth_methods(reply.payload) == [AuthMethod.SASL]
    assert server.stage is Stage.GREETED


@pytest.mark.parametrize(
    ("readonly", "action"),
    [(False, "org.libvirt.unix.manage"), (True, "org.libvirt.unix.monitor")],
)
def test_polkit_is_asked_about_the_action_of_the_listener(readonly, action):
    server = a_server(AuthMethod.POLKIT, readonly=readonly)
    assert feed(server, call(Remote.AUTH_POLKIT)) == [NeedsPolkit(action)]
    assert (server.stage, server.authenticated) == (Stage.DECIDING, False)


def test_polkits_yes_lets_the_client_in():
    server = a_server(AuthMethod.POLKIT)
    feed(server, call(Remote.AUTH_POLKIT, serial=4))
    (reply,) = frames_in(server.polkit_says(None))
    assert reply == remote.reply(call_header(70, 4), remote.pack_int(1))
    assert (server.stage, server.authenticated) == (Stage.TRUSTED, True)
    listed = only_sent(feed(server, call(Remote.AUTH_LIST)))
    assert remote.unpack_auth_methods(listed.payload) == [AuthMethod.NONE]


def test_polkits_no_is_passed_on_and_the_client_may_ask_again():
    server = a_server(AuthMethod.POLKIT)
    feed(server, call(Remote.AUTH_POLKIT, serial=4))
    (reply,) = frames_in(server.polkit_says(DENIAL))
    assert reply == DENIAL.reply_to(call_header(70, 4))
    assert (server.stage, server.authenticated) == (Stage.GREETED, False)
    assert numbers_of(only_sent(feed(server, open_call()))) == REQUIRED[:2]
    assert len(feed(server, call(Remote.AUTH_POLKIT))) == 1
    server.polkit_says(None)
    assert server.stage is Stage.TRUSTED


@pytest.mark.parametrize("method", [AuthMethod.NONE, AuthMethod.SASL])
def test_polkit_where_it_is_not_asked_for_fails(method):
    server = a_server(method)
    stage = server.stage
    assert numbers_of(only_sent(feed(server, call(Remote.AUTH_POLKIT)))) == (1, 7)
    assert server.stage is stage


def test_whoever_was_let_in_cannot_ask_polkit_again():
    server = a_server(AuthMethod.POLKIT)
    feed(server, call(Remote.AUTH_POLKIT))
    server.polkit_says(None)
    assert numbers_of(only_sent(feed(server, call(Remote.AUTH_POLKIT)))) == (1, 7)
    assert server.stage is Stage.TRUSTED


@pytest.mark.parametrize("procedure", SASL_CALLS)
@pytest.mark.parametrize("method", [AuthMethod.NONE, AuthMethod.POLKIT])
def test_sasl_where_it_is_not_asked_for_fails_as_sasl_does(method, procedure):
    server = a_server(method)
    stage = server.stage
    payload = PAYLOADS[procedure]
    said = failure_of(only_sent(feed(server, call(procedure, payload))))
    assert said == failure.authentication_failed()
    assert server.stage is stage


# ---- SASL


def a_sasl_server(**more):
    return ServerNegotiation(
        method=AuthMethod.SASL,
        readonly=False,
        mechanisms=OFFERED,
        longest_token=remote.MAX_SASL_DATA,
        **more,
    )


def start_call(mechanism="GSSAPI", data=b"token", serial=0):
    return call(Remote.AUTH_SASL_START, remote.SaslStart(mechanism, data).pack(), serial=serial)


def step_call(data=b"token", serial=0):
    return call(Remote.AUTH_SASL_STEP, remote.pack_sasl_step(data), serial=serial)


def started(**more):
    """A server whose first verdict is awaited."""
    server = a_sasl_server(**more)
    feed(server, call(Remote.AUTH_SASL_INIT))
    feed(server, start_call(serial=3))
    return server


def assert_fails_as_sasl_does(server, wire):
    assert failure_of(only_sent(feed(server, wire))) == failure.authentication_failed()
    assert server.stage is Stage.GREETED


def test_sasl_in_one_attempt():
    server = a_sasl_server()
    offered = only_sent(feed(server, call(Remote.AUTH_SASL_INIT)))
    assert Reader(offered.payload).string() == "GSSAPI,SCRAM-SHA-256"

    assert feed(server, start_call(data=b"first", serial=3)) == [NeedsSasl("GSSAPI", b"first")]
    (reply,) = frames_in(server.sasl_goes_on(b"challenge"))
    assert reply.header == call_header(Remote.AUTH_SASL_START, 3).replied(Status.OK)
    assert remote.SaslReply.unpack(reply.payload) == remote.SaslReply(False, b"challenge")
    assert not server.authenticated

    assert feed(server, step_call(data=None, serial=4)) == [NeedsSasl(None, None)]
    (reply,) = frames_in(server.sasl_succeeded(None))
    assert reply.header == call_header(Remote.AUTH_SASL_STEP, 4).replied(Status.OK)
    assert remote.SaslReply.unpack(reply.payload) == remote.SaslReply(True, None)
    assert server.authenticated
    assert server.stage is Stage.TRUSTED


def test_the_wire_tells_nothing_from_empty():
    # docs/protocol/sasl.md, section 1: the two differ in SASL.
    assert remote.unpack_sasl_step(remote.pack_sasl_step(None)) is None
    assert remote.unpack_sasl_step(remote.pack_sasl_step(b"")) == b""
    assert remote.pack_sasl_step(b"\x82") == bytes.fromhex("00000000 00000001 ffffff82")


def test_a_failed_attempt_may_be_followed_by_another():
    server = started()
    (reply,) = frames_in(server.sasl_failed())
    assert failure_of(reply) == failure.authentication_failed()
    assert_fails_as_sasl_does(server, step_call())
    feed(server, call(Remote.AUTH_SASL_INIT))
    assert feed(server, start_call()) == [NeedsSasl("GSSAPI", b"token")]


def test_a_second_init_fails_and_leaves_the_first_attempt_alone():
    server = started()
    server.sasl_goes_on(b"challenge")
    assert_fails_as_sasl_does(server, call(Remote.AUTH_SASL_INIT))
    assert feed(server, step_call()) == [NeedsSasl(None, b"token")]


@pytest.mark.parametrize("wire", [start_call(), step_call()])
def test_a_token_before_init_fails(wire):
    assert_fails_as_sasl_does(a_sasl_server(), wire)


def test_a_second_start_ends_the_attempt():
    server = started()
    server.sasl_goes_on(b"challenge")
    assert_fails_as_sasl_does(server, start_call("SCRAM-SHA-256"))
    assert_fails_as_sasl_does(server, step_call())


@pytest.mark.parametrize("name", ["PLAIN", "", "gssapi", "GSSAPI,SCRAM-SHA-256", "ANONYMOUS"])
def test_what_was_not_offered_fails(name):
    server = a_sasl_server()
    feed(server, call(Remote.AUTH_SASL_INIT))
    assert_fails_as_sasl_does(server, start_call(name))


def test_a_listener_that_can_offer_nothing_fails():
    server = ServerNegotiation(method=AuthMethod.SASL, readonly=False)
    assert_fails_as_sasl_does(server, call(Remote.AUTH_SASL_INIT))


def test_nobody_proves_it_twice():
    server = started()
    server.sasl_succeeded(None)
    for wire in (call(Remote.AUTH_SASL_INIT), start_call(), step_call()):
        assert failure_of(only_sent(feed(server, wire))) == failure.authentication_failed()
        assert server.authenticated
    listed = only_sent(feed(server, call(Remote.AUTH_LIST)))
    assert remote.unpack_auth_methods(listed.payload) == [AuthMethod.NONE]


def test_a_token_of_the_longest_size_comes_through_and_no_longer_one():
    server = a_sasl_server()
    feed(server, call(Remote.AUTH_SASL_INIT))
    longest = b"\xff" * remote.MAX_SASL_DATA
    assert feed(server, start_call(data=longest)) == [NeedsSasl("GSSAPI", longest)]
    server.sasl_goes_on(None)
    (reply,) = frames_in(feed(server, step_call(data=longest + b"x"))[0].wire)
    assert failure_of(reply).code == failure.undecodable("").code


def test_root_proves_itself_like_everybody_by_sasl():
    server = a_sasl_server(is_root=True)
    listed = only_sent(feed(server, call(Remote.AUTH_LIST)))
    assert remote.unpack_auth_methods(listed.payload) == [AuthMethod.SASL]


# ---- opening


@pytest.mark.parametrize("flags", [0, 1, 2, 6, 0x80000000, 0xFFFFFFFE])
def test_a_read_only_listener_forces_bit_zero_and_nothing_else(flags):
    server = a_server(readonly=True)
    (event,) = feed(server, open_call(OpenArguments("a:///b", flags)))
    assert event == WantsOpen(OpenArguments("a:///b", flags | 1), keepalive=False)


@pytest.mark.parametrize("flags", [0, 1, 7, 0xFFFFFFFF])
@pytest.mark.parametrize("name", [None, "", "qemu:///system"])
def test_another_listener_leaves_name_and_flags_alone(name, flags):
    server = a_server()
    asked = OpenArguments(name, flags)
    assert feed(server, open_call(asked)) == [WantsOpen(asked, keepalive=False)]


def test_an_opened_connection_is_told_with_the_clients_serial():
    server = a_server()
    feed(server, open_call(serial=0xFFFFFFFF))
    (reply,) = frames_in(server.opened())
    assert reply == remote.reply(call_header(Remote.CONNECT_OPEN, 0xFFFFFFFF))
    assert (server.stage, server.authenticated) == (Stage.OPEN, True)


def test_after_a_refused_open_the_client_may_try_again():
    server = a_server()
    feed(server, open_call(serial=2))
    (reply,) = frames_in(server.refused(failure.no_driver("'x:///'")))
    assert reply == failure.no_driver("'x:///'").reply_to(call_header(1, 2))
    assert server.stage is Stage.TRUSTED
    assert feed(server, open_call(serial=3)) == [WantsOpen(SYSTEM, keepalive=False)]


def test_somebody_who_is_opening_counts_as_authenticated():
    server = server_at(Stage.DECIDING)
    assert server.authenticated


def test_a_client_that_asked_for_pings_says_so_in_its_open():
    server = a_server()
    reply = only_sent(feed(server, feature_call(10)))
    assert (reply.header.status, remote.unpack_int(reply.payload)) == (Status.OK, 1)
    assert feed(server, open_call()) == [WantsOpen(SYSTEM, keepalive=True)]


@pytest.mark.parametrize("number", [0, 2, 8, 9, 11, 14, 15, 16, 17, -1])
def test_another_feature_needs_an_open_connection(number):
    server = a_server()
    assert numbers_of(only_sent(feed(server, feature_call(number)))) == (1, 7)
    assert feed(server, open_call()) == [WantsOpen(SYSTEM, keepalive=False)]


def test_a_client_that_closes_before_it_opened_is_answered_first():
    server = a_server()
    said, end = feed(server, call(Remote.CONNECT_CLOSE, serial=6))
    assert frames_in(said.wire) == [remote.reply(call_header(Remote.CONNECT_CLOSE, 6))]
    assert isinstance(end, HangUp)
    assert (server.stage, server.wanted) == (Stage.ENDED, 0)


# ---- a peer whom the kernel's answer does not name


@pytest.mark.parametrize("number", sorted(ALLOWED[Stage.TRUSTED]))
def test_a_peer_that_could_not_be_looked_up_is_refused_every_call(number):
    server = a_server(unknown=LOOKUP)
    payload = remote.pack_int(0) + bytes(8)
    reply = only_sent(feed(server, call(number, payload, serial=5)))
    assert reply == LOOKUP.reply_to(call_header(number, 5))
    assert server.stage is Stage.TRUSTED


@pytest.mark.parametrize("number", sorted(ALLOWED[Stage.GREETED]))
def test_a_root_that_could_not_be_looked_up_is_not_let_in(number):
    server = a_server(AuthMethod.POLKIT, is_root=True, unknown=LOOKUP)
    reply = only_sent(feed(server, call(number, PAYLOADS.get(number, b""))))
    assert failure_of(reply) == LOOKUP
    assert server.stage is Stage.GREETED


def test_a_missing_proof_comes_before_a_peer_that_could_not_be_looked_up():
    server = a_server(AuthMethod.POLKIT, unknown=LOOKUP)
    assert numbers_of(only_sent(feed(server, open_call()))) == REQUIRED[:2]


def test_an_undecodable_payload_comes_before_a_peer_that_could_not_be_looked_up():
    # docs/protocol/errors.md, section 5: the rows are checked in their order.
    server = a_server(unknown=LOOKUP)
    reply = only_sent(feed(server, call(Remote.CONNECT_OPEN, b"\0")))
    assert numbers_of(reply) == (39, 7)


def test_a_peer_that_could_not_be_looked_up_comes_before_a_connection_that_is_not_open():
    # docs/protocol/errors.md, section 5: every call fails like this; "not open" is a handler's
    # error.
    server = a_server(unknown=LOOKUP)
    reply = only_sent(feed(server, call(Remote.CONNECT_GET_LIB_VERSION)))
    assert failure_of(reply) == LOOKUP


# ---- bounds


def test_the_last_call_within_the_bound_is_answered_and_the_next_ends_it():
    server = a_server()
    answers = [feed(server, call(Remote.AUTH_LIST)) for _ in range(CALL_LIMIT)]
    assert all(isinstance(event, Send) for (event,) in answers)
    (event,) = feed(server, call(Remote.AUTH_LIST))
    assert isinstance(event, HangUp)
    assert (server.stage, server.wanted) == (Stage.ENDED, 0)


@pytest.mark.parametrize("kind", [FrameType.REPLY, FrameType.STREAM, 99])
def test_frames_that_are_dropped_are_bounded_too(kind):
    server = a_server(AuthMethod.POLKIT)
    dropped = Frame(call_header(1)._replace(type=kind)).pack()
    assert feed(server, dropped * UNCALLED_LIMIT) == []
    (event,) = feed(server, dropped)
    assert isinstance(event, HangUp)


@reading_stages
def test_pings_are_bounded_and_calls_do_not_make_room_for_more(stage):
    server = server_at(stage)
    for _ in range(UNCALLED_LIMIT):
        only_sent(feed(server, remote.keepalive(Keepalive.PING).pack()))
        only_sent(feed(server, call(Remote.AUTH_LIST)))
    (event,) = feed(server, remote.keepalive(Keepalive.PING).pack())
    assert isinstance(event, HangUp)


def test_a_client_that_is_refused_again_and_again_comes_to_an_end():
    server = a_server(AuthMethod.POLKIT)
    for _ in range(CALL_LIMIT):
        feed(server, call(Remote.AUTH_POLKIT))
        server.polkit_says(DENIAL)
    (event,) = feed(server, call(Remote.AUTH_POLKIT))
    assert isinstance(event, HangUp)


def test_a_frame_as_long_as_may_be_is_read():
    server = a_server()
    name = "x" * (FRAME_LIMIT - HEADER_SIZE - 12)
    wire = open_call(OpenArguments(name, 0))
    assert len(wire) == FRAME_LIMIT
    assert feed(server, wire) == [WantsOpen(OpenArguments(name, 0), keepalive=False)]


# ---- keepalive


@reading_stages
def test_a_ping_is_answered_by_a_pong_and_changes_nothing(stage):
    server = server_at(stage)
    ping = remote.keepalive(Keepalive.PING).pack()
    assert feed(server, ping) == [Send(remote.keepalive(Keepalive.PONG).pack())]
    assert server.stage is stage
    assert server.authenticated is (stage is Stage.TRUSTED)


def test_a_ping_does_not_ask_for_pings():
    server = a_server()
    feed(server, remote.keepalive(Keepalive.PING).pack())
    assert feed(server, open_call()) == [WantsOpen(SYSTEM, keepalive=False)]


def test_a_ping_lets_no_root_in():
    server = a_server(AuthMethod.POLKIT, is_root=True)
    feed(server, remote.keepalive(Keepalive.PING).pack())
    assert server.stage is Stage.GREETED


def test_a_peer_that_could_not_be_looked_up_gets_its_pong():
    server = a_server(unknown=LOOKUP)
    ping = remote.keepalive(Keepalive.PING).pack()
    assert feed(server, ping) == [Send(remote.keepalive(Keepalive.PONG).pack())]


@reading_stages
@pytest.mark.parametrize("number", [0, Keepalive.PONG, 3, -1])
def test_what_else_keeps_alive_is_dropped(stage, number):
    server = server_at(stage)
    header = remote.keepalive(Keepalive.PING).header._replace(procedure=number)
    assert feed(server, Frame(header).pack()) == []
    assert server.stage is stage


def test_a_ping_of_another_version_is_dropped():
    server = a_server()
    header = remote.keepalive(Keepalive.PING).header._replace(version=2)
    assert feed(server, Frame(header).pack()) == []


# ---- how it is driven


@pytest.mark.parametrize("piece", [None, 1, 3, 5])
def test_a_conversation_is_the_same_in_any_pieces(piece):
    server = a_server(AuthMethod.POLKIT, is_root=True)
    wire = call(Remote.AUTH_LIST, serial=0) + feature_call(10) + open_call(serial=2)
    events = feed(server, wire, piece=piece)
    assert [type(event) for event in events] == [Send, Send, WantsOpen]
    assert events[-1] == WantsOpen(SYSTEM, keepalive=True)


def test_first_the_header_is_wanted_and_then_the_rest():
    server = a_server()
    wire = open_call()
    asked = [server.wanted]
    server.receive_data(wire[:HEADER_SIZE])
    asked.append(server.wanted)
    assert asked == [HEADER_SIZE, len(wire) - HEADER_SIZE]


@pytest.mark.parametrize("fed", [0, LENGTH_SIZE, HEADER_SIZE, HEADER_SIZE + 1])
def test_one_byte_more_than_wanted_is_the_drivers_mistake(fed):
    server = a_server()
    wire = open_call()
    feed(server, wire[:fed])
    before = server.wanted
    with pytest.raises(ValueError, match="descriptors would be lost"):
        server.receive_data(bytes(before + 1))
    assert server.wanted == before
    assert feed(server, wire[fed:]) == [WantsOpen(SYSTEM, keepalive=False)]


@pytest.mark.parametrize(
    "verdict",
    [
        ServerNegotiation.opened,
        lambda server: server.refused(DENIAL),
        lambda server: server.polkit_says(None),
        lambda server: server.polkit_says(DENIAL),
    ],
    ids=["opened", "refused", "polkit's yes", "polkit's no"],
)
@pytest.mark.parametrize(
    "stage",
    [Stage.GREETED, Stage.TRUSTED, Stage.OPEN, Stage.ENDED],
    ids=lambda stage: stage.name,
)
def test_a_verdict_that_nobody_awaits_is_the_drivers_mistake(stage, verdict):
    server = server_at(stage)
    with pytest.raises(ValueError, match="no verdict is awaited"):
        verdict(server)
    assert server.stage is stage
