"""What a daemon is told of a client: names, types and order, and log lines."""

import pytest

from proxyd.negotiation.identity import UNSEEN_PID, UNSEEN_START, ClientIdentity
from proxyd.wire import remote
from proxyd.wire.params import Param, ParamType
from tests.wire.worked import BY_NAME, FRED

LOCAL = ClientIdentity(
    user_name="fred", uid=1000, group_name="fred", gid=1000, pid=4242, start_ticks=123456
)


def test_a_local_client_is_told_byte_for_byte_as_libvirt_does():
    payload = remote.pack_identity(LOCAL.params())
    assert payload == BY_NAME["SET_IDENTITY call"].frame.payload
    assert LOCAL.params() == FRED


def test_everything_that_can_be_known_has_libvirts_name_and_type():
    everything = ClientIdentity(
        user_name="u",
        uid=1,
        group_name="g",
        gid=2,
        pid=3,
        start_ticks=4,
        selinux_context="c",
        sasl_user_name="s",
        x509_dname="CN=x",
    )
    assert {param.field: (param.type, param.value) for param in everything.params()} == {
        "user-name": (ParamType.STRING, "u"),
        "unix-user-id": (ParamType.ULLONG, 1),
        "group-name": (ParamType.STRING, "g"),
        "unix-group-id": (ParamType.ULLONG, 2),
        "process-id": (ParamType.LLONG, 3),
        "process-time": (ParamType.ULLONG, 4),
        "sasl-user-name": (ParamType.STRING, "s"),
        "x509-distinguished-name": (ParamType.STRING, "CN=x"),
        "selinux-context": (ParamType.STRING, "c"),
    }
    assert len(everything.params()) <= remote.MAX_IDENTITY_PARAMS


def test_an_anonymous_client_is_told_as_no_parameters():
    assert ClientIdentity().params() == []


@pytest.mark.parametrize(
    ("identity", "fields"),
    [
        (ClientIdentity(x509_dname="CN=x"), ["x509-distinguished-name"]),
        (ClientIdentity(sasl_user_name="joe"), ["sasl-user-name"]),
        (
            ClientIdentity(sasl_user_name="joe", x509_dname="CN=x"),
            ["sasl-user-name", "x509-distinguished-name"],
        ),
    ],
)
def test_what_does_not_apply_is_left_out(identity, fields):
    assert [param.field for param in identity.params()] == fields


def test_what_is_zero_or_empty_is_told_all_the_same():
    root = ClientIdentity(user_name="", uid=0, gid=0, pid=0, start_ticks=0)
    assert [param.value for param in root.params()] == ["", 0, 0, 0, 0]


def test_a_process_that_cannot_be_seen_is_told_as_libvirt_does():
    unseen = ClientIdentity(pid=UNSEEN_PID, start_ticks=UNSEEN_START)
    params = remote.unpack_identity(remote.pack_identity(unseen.params()))
    assert params == [
        Param("process-id", ParamType.LLONG, -1),
        Param("process-time", ParamType.ULLONG, 0xFFFFFFFFFFFFFFFF),
    ]


def test_a_name_that_is_no_utf_8_reaches_the_daemon_as_it_is():
    payload = remote.pack_identity(ClientIdentity(user_name="fr\udce9d").params())
    assert b"fr\xe9d" in payload


@pytest.mark.parametrize(
    ("identity", "line"),
    [
        (LOCAL, "uid 1000 (fred) pid 4242"),
        (ClientIdentity(), "anonymous"),
        (ClientIdentity(uid=0, user_name="root"), "uid 0 (root)"),
        (ClientIdentity(uid=4711), "uid 4711 (no name)"),
        (ClientIdentity(pid=UNSEEN_PID), "pid -1"),
        (ClientIdentity(sasl_user_name="joe@A"), "SASL user 'joe@A'"),
        (ClientIdentity(x509_dname="C=GB,CN=x"), "x509 'C=GB,CN=x'"),
    ],
)
def test_a_log_line_names_whoever_it_is(identity, line):
    assert str(identity) == line


@pytest.mark.parametrize("nasty", ["a\nb", "a\rb", "a\x1b[2J", "\udcff"])
def test_a_name_that_the_client_chose_cannot_break_the_log(nasty):
    lines = [str(ClientIdentity(x509_dname=nasty)), str(ClientIdentity(sasl_user_name=nasty))]
    assert all(line.isprintable() for line in lines)


def test_names_without_end_are_cut_in_a_log_line_and_told_a_daemon_in_full():
    long = ClientIdentity(sasl_user_name="s" * 1024, x509_dname="CN=" + "x" * 3000)
    assert len(str(long)) < 1100
    assert [len(str(param.value)) for param in long.params()] == [1024, 3003]
