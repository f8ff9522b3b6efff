"""Error bodies: those of docs/protocol/worked-frames.md byte for byte, and each failure's code,
domain and text."""

import errno

import pytest

from proxyd.wire import failure
from proxyd.wire.failure import Domain, ErrorCode, Failure
from proxyd.wire.frame import FrameType, Header, Status
from proxyd.wire.programs import Program
from proxyd.wire.xdr import MalformedFrame, Reader, Writer
from tests.wire.worked import BY_NAME

REQUIRED = BY_NAME["authentication required"].frame.payload
SASL = BY_NAME["SASL failure"].frame.payload

bodies = pytest.mark.parametrize(
    ("said", "body"),
    [
        (failure.authentication_required(), REQUIRED),
        (failure.authentication_failed(), SASL),
        (
            Failure(1, 7, "m"),
            bytes.fromhex(
                """00000001 00000007 00000001 00000001 6d000000 00000002 00000000
                   00000000 00000000 00000000 ffffffff ffffffff 00000000"""
            ),
        ),
    ],
    ids=["authentication required", "SASL", "the least that is legal"],
)


@bodies
def test_a_body_is_written(said, body):
    assert said.pack() == body


@bodies
def test_a_body_is_read(said, body):
    assert Failure.unpack(body) == said


@bodies
def test_a_body_is_read_with_bytes_behind_it(said, body):
    assert Failure.unpack(body + b"\xff\xff\xff") == said


@bodies
def test_a_body_cut_anywhere_is_malformed(said, body):
    for end in range(len(body)):
        with pytest.raises(MalformedFrame, match="bytes expected"):
            Failure.unpack(body[:end])


def full_body(*, int2=-1):
    """Everything that an error may hold, the objects that libvirt never sends included."""
    out = Writer().i32(8).i32(10).optional_string("bad flags").i32(2)
    out.u32(1).string("guest").fixed_opaque(bytes(16)).i32(-1)
    out.optional_string("function").optional_string("flags").optional_string("third")
    return out.i32(0).i32(int2).u32(1).string("net").fixed_opaque(bytes(16)).take()


def test_the_objects_that_an_error_may_name_are_stepped_over():
    assert Failure.unpack(full_body()) == Failure(
        8, 10, "bad flags", "function", "flags", 0, str3="third"
    )


def test_an_error_without_a_text_has_an_empty_one():
    body = Writer().i32(1).i32(7).u32(0).i32(2).u32(0).u32(0).u32(0).u32(0).i32(-1).i32(-1).u32(0)
    assert Failure.unpack(body.take()) == Failure(1, 7, "")


def test_an_argument_error_of_a_daemon_goes_on_with_both_its_numbers():
    # docs/protocol/errors.md, section 2: of flag and argument errors int1 and int2 are 0.
    out = Writer().i32(8).i32(10).optional_string("unsupported flags (0x4)").i32(2).u32(0)
    out.optional_string("open").optional_string("flags").optional_string(None)
    body = out.i32(0).i32(0).u32(0).take()
    assert Failure.unpack(body).pack() == body


@pytest.mark.parametrize("at", [12, 16], ids=["length of the text", "inside the text"])
def test_a_body_of_nonsense_is_malformed(at):
    with pytest.raises(MalformedFrame):
        Failure.unpack(REQUIRED[:at] + b"\xff" * len(REQUIRED))


def test_an_error_reply_echoes_its_call():
    called = Header(Program.LXC, 9, -5, FrameType.CALL, 0xFFFFFFFF, 2)
    frame = failure.authentication_required().reply_to(called)
    assert frame.header == Header(Program.LXC, 9, -5, FrameType.REPLY, 0xFFFFFFFF, Status.ERROR)
    assert frame.payload == REQUIRED


# the failure, its code, its domain, the whole text, the format, the detail
REPORTED = [
    (failure.authentication_required(), 39, 7, "authentication required", "%s"),
    (failure.unknown_procedure(-3), 39, 7, "unknown procedure: -3", "%s"),
    (failure.not_open(), 1, 7, "internal error: connection not open", "internal error: %1$s"),
    (
        failure.already_open(),
        1,
        7,
        "internal error: connection already open",
        "internal error: %1$s",
    ),
    (failure.internal("why"), 1, 7, "internal error: why", "internal error: %1$s"),
    (
        failure.authentication_failed(),
        45,
        7,
        "authentication failed: authentication failed",
        "authentication failed: %1$s",
    ),
    (
        failure.no_driver("x"),
        5,
        0,
        "no connection driver available for x",
        "no connection driver available for %1$s",
    ),
    (failure.bad_uri("x"), 1, 45, "internal error: x", "internal error: %1$s"),
    (failure.uri_not_allowed("x"), 8, 13, "invalid argument: x", "invalid argument: %1$s"),
    (
        failure.driver_not_served("x"),
        67,
        0,
        "unsupported configuration: x",
        "unsupported configuration: %1$s",
    ),
    (
        failure.polkit_cannot_tell_who("who?"),
        45,
        60,
        "authentication failed: who?",
        "authentication failed: %1$s",
    ),
    (failure.bus_unreachable("x"), 1, 47, "internal error: x", "internal error: %1$s"),
    (failure.bus_call_failed("x"), 89, 47, "error from service: x", "error from service: %1$s"),
    (failure.system_error(errno.ENOENT, "gone"), 38, 7, "gone", "%s"),
]


@pytest.mark.parametrize(("said", "code", "domain", "text", "form"), REPORTED)
def test_a_failure_has_the_numbers_and_texts_of_the_reference(said, code, domain, text, form):
    assert (said.code, said.domain, said.message, said.str1) == (code, domain, text, form)
    assert form.replace("%1$s", said.str2).replace("%s", said.str2) == text


@pytest.mark.parametrize(
    ("said", "code", "domain"),
    [
        (failure.polkit_denied("org.libvirt.unix.manage"), 45, 60),
        (failure.polkit_dismissed("org.libvirt.unix.manage"), 79, 60),
        (failure.polkit_wants_an_agent("org.libvirt.unix.manage"), 94, 60),
        (failure.unexpected_status(1), 39, 7),
        (failure.undecodable("cut"), 39, 7),
        (failure.identity_is_fixed(), 88, 13),
        (failure.system_error(errno.ESRCH, "who?", Domain.NONE), 38, 0),
    ],
)
def test_a_failure_with_a_text_of_our_own_has_the_numbers_of_the_reference(said, code, domain):
    assert (said.code, said.domain) == (code, domain)
    assert said.message.endswith(said.str2)


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        (failure.polkit_denied("a.b"), "authentication failed: "),
        (failure.polkit_dismissed("a.b"), "authentication cancelled: "),
        (failure.polkit_wants_an_agent("a.b"), "authentication unavailable: "),
    ],
)
def test_a_refusal_of_polkits_begins_as_libvirts_names_the_action_and_says_what_helps(said, begins):
    assert said.message.startswith(begins)
    assert "a.b" in said.message
    assert "group libvirt" in said.message


def test_only_a_system_error_carries_an_errno():
    assert failure.system_error(errno.ECONNREFUSED, "no").int1 == errno.ECONNREFUSED
    assert {said.int1 for said, *_ in REPORTED[:-1]} == {-1}


def test_an_unknown_procedure_begins_as_clients_expect():
    assert failure.unknown_procedure(454).message == "unknown procedure: 454"


@pytest.mark.parametrize(
    ("program", "version", "printed"),
    [
        (Program.ADMIN, 1, "110102160 version 1"),
        (0x87539319, 1, "-2024565991 version 1"),
        (0xFFFFFFFF, 2, "-1 version 2"),
        (0x7FFFFFFF, 1, "2147483647 version 1"),
        (0x80000000, 1, "-2147483648 version 1"),
        (0, 0xFFFFFFFF, "0 version -1"),
        (0x80000000, 0x80000000, "-2147483648 version -2147483648"),
    ],
)
def test_an_unknown_program_is_named_in_signed_decimal(program, version, printed):
    assert failure.unknown_program(program, version).message.endswith(printed)


def test_the_codes_and_domains_are_libvirts():
    assert {code.name: int(code) for code in ErrorCode}.items() >= {
        ("INTERNAL_ERROR", 1),
        ("NO_CONNECT", 5),
        ("INVALID_ARG", 8),
        ("SYSTEM_ERROR", 38),
        ("RPC", 39),
        ("AUTH_FAILED", 45),
        ("CONFIG_UNSUPPORTED", 67),
        ("AUTH_CANCELLED", 79),
        ("ACCESS_DENIED", 88),
        ("DBUS_SERVICE", 89),
        ("AUTH_UNAVAILABLE", 94),
    }
    assert {domain.name: int(domain) for domain in Domain}.items() >= {
        ("NONE", 0),
        ("RPC", 7),
        ("REMOTE", 13),
        ("URI", 45),
        ("DBUS", 47),
        ("POLKIT", 60),
    }


def test_a_body_holds_every_field_in_its_place():
    reader = Reader(failure.system_error(errno.ENOENT, "gone").pack())
    texts = [reader.i32(), reader.i32(), reader.optional(reader.string), reader.i32(), reader.u32()]
    texts += [reader.optional(reader.string) for _ in range(3)]
    assert texts == [38, 7, "gone", 2, 0, "%s", "gone", None]
    assert [reader.i32(), reader.i32(), reader.u32(), reader.left] == [errno.ENOENT, -1, 0, 0]
