"""Arguments and results of the REMOTE calls that proxyd answers or makes, as bytes and back."""

import pytest

from proxyd.wire import remote
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import AuthMethod, Keepalive, Program, Remote
from proxyd.wire.remote import OpenArguments
from proxyd.wire.xdr import MalformedFrame
from tests.wire.worked import BY_NAME, FRED

QEMU_SYSTEM = "00000001 0000000e 71656d75 3a2f2f2f 73797374 656d0000"

# unpack, pack, value, the payload
CASES = {
    "OPEN of a system": (
        OpenArguments.unpack,
        OpenArguments.pack,
        OpenArguments("qemu:///system", 0),
        f"{QEMU_SYSTEM} 00000000",
    ),
    "OPEN of a session": (
        OpenArguments.unpack,
        OpenArguments.pack,
        OpenArguments("qemu:///session", 6),
        "00000001 0000000f 71656d75 3a2f2f2f 73657373 696f6e00 00000006",
    ),
    "OPEN of an empty name": (
        OpenArguments.unpack,
        OpenArguments.pack,
        OpenArguments("", 0),
        "00000001 00000000 00000000",
    ),
    "OPEN of no name": (
        OpenArguments.unpack,
        OpenArguments.pack,
        OpenArguments(None, 0),
        "00000000 00000000",
    ),
    "OPEN with every flag": (
        OpenArguments.unpack,
        OpenArguments.pack,
        OpenArguments(None, 0xFFFFFFFF),
        "00000000 ffffffff",
    ),
    "no method": (remote.unpack_auth_methods, remote.pack_auth_methods, [], "00000000"),
    "one method": (
        remote.unpack_auth_methods,
        remote.pack_auth_methods,
        [AuthMethod.NONE],
        "00000001 00000000",
    ),
    "methods known and unknown": (
        remote.unpack_auth_methods,
        remote.pack_auth_methods,
        [AuthMethod.SASL, AuthMethod.POLKIT, -1],
        "00000003 00000001 00000002 ffffffff",
    ),
    "an integer": (remote.unpack_int, remote.pack_int, 10, "0000000a"),
    "a negative integer": (remote.unpack_int, remote.pack_int, -1, "ffffffff"),
    "nobody": (remote.unpack_identity, remote.pack_identity, [], "00000000 00000000"),
    "a name": (
        remote.unpack_identity,
        remote.pack_identity,
        [Param("user-name", ParamType.STRING, "fred")],
        "00000001 00000009 75736572 2d6e616d 65000000 00000007 00000004 66726564 00000000",
    ),
    "fred": (
        remote.unpack_identity,
        remote.pack_identity,
        FRED,
        BY_NAME["SET_IDENTITY call"].frame.payload.hex(),
    ),
}
payloads = pytest.mark.parametrize(
    ("unpack", "pack", "value", "groups"), CASES.values(), ids=CASES.keys()
)


@payloads
def test_a_payload_is_read(unpack, pack, value, groups):
    assert unpack(bytes.fromhex(groups)) == value


@payloads
def test_a_payload_is_read_with_bytes_behind_it(unpack, pack, value, groups):
    assert unpack(bytes.fromhex(groups) + b"\xff\xff\xff\xff\xff") == value


@payloads
def test_a_payload_is_written(unpack, pack, value, groups):
    assert pack(value) == bytes.fromhex(groups)


@payloads
def test_a_payload_cut_anywhere_is_malformed(unpack, pack, value, groups):
    wire = bytes.fromhex(groups)
    for end in range(len(wire)):
        with pytest.raises(MalformedFrame, match="bytes expected"):
            unpack(wire[:end])


@pytest.mark.parametrize("length", [4194305, 0x80000000, 0xFFFFFFFF])
def test_an_open_of_a_name_too_long_is_malformed(length):
    payload = (1).to_bytes(4, "big") + length.to_bytes(4, "big") + b"qemu:///system"
    with pytest.raises(MalformedFrame, match=f"length of {length} where at most 4194304"):
        OpenArguments.unpack(payload)


def test_an_open_whose_name_is_longer_than_the_frame_is_malformed():
    payload = bytes.fromhex("00000001 00400000 71656d75")
    with pytest.raises(MalformedFrame, match="4194304 bytes expected, 4 are left"):
        OpenArguments.unpack(payload)


def test_the_name_of_an_open_ends_at_its_nul():
    payload = bytes.fromhex("00000001 00000007 61003a2f 2f2f7800 00000001")
    assert OpenArguments.unpack(payload) == OpenArguments("a", 1)


@pytest.mark.parametrize("unpack", [remote.unpack_auth_methods, remote.unpack_identity])
@pytest.mark.parametrize("count", [21, 0x80000000, 0xFFFFFFFF])
def test_a_list_of_more_than_twenty_is_malformed(unpack, count):
    payload = count.to_bytes(4, "big") + bytes(1000)
    with pytest.raises(MalformedFrame, match=f"length of {count} where at most 20 is allowed"):
        unpack(payload)


def test_a_reply_echoes_its_call_and_says_ok():
    called = Header(Program.QEMU, 1, 5, FrameType.CALL, 77)
    replied = Header(Program.QEMU, 1, 5, FrameType.REPLY, 77, Status.OK)
    assert remote.reply(called, b"abcd") == Frame(replied, b"abcd")


@pytest.mark.parametrize("procedure", Keepalive)
def test_what_keeps_alive_is_known_by_its_header(procedure):
    assert remote.is_keepalive(remote.keepalive(procedure).header)


@pytest.mark.parametrize(
    "header",
    [
        Header(Program.KEEPALIVE, 2, Keepalive.PING, FrameType.MESSAGE, 0),
        Header(Program.KEEPALIVE, 1, Keepalive.PING, FrameType.CALL, 0),
        Header(Program.REMOTE, 1, Keepalive.PING, FrameType.MESSAGE, 0),
        remote.call(Remote.CONNECT_OPEN, 0).header,
    ],
)
def test_what_only_looks_like_it_keeps_nothing_alive(header):
    assert not remote.is_keepalive(header)
