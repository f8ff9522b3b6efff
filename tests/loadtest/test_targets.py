import pytest

from loadtest.failures import UsageError
from loadtest.targets import (
    PidGroup,
    Protection,
    Target,
    TcpAddress,
    UnixAddress,
    parse_target,
    parse_targets,
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a=unix:/p", Target("a", UnixAddress("/p"))),
        ("a=unix:/p,pid=1", Target("a", UnixAddress("/p"), (PidGroup("pid", (1,)),))),
        ("a=unix:/p,pid=1+2", Target("a", UnixAddress("/p"), (PidGroup("pid", (1, 2)),))),
        ("a=unix:/p,pid=1,pid=2", Target("a", UnixAddress("/p"), (PidGroup("pid", (1, 2)),))),
        (
            "a=unix:/p,pid=1,backend=2",
            Target("a", UnixAddress("/p"), (PidGroup("pid", (1,)), PidGroup("backend", (2,)))),
        ),
        ("a=tls:host:16514", Target("a", TcpAddress(Protection.TLS, "host", 16514))),
        ("a=tls:h-1.example.org:1", Target("a", TcpAddress(Protection.TLS, "h-1.example.org", 1))),
        (
            "a=tls:127.0.0.1:2,pid=1",
            Target("a", TcpAddress(Protection.TLS, "127.0.0.1", 2), (PidGroup("pid", (1,)),)),
        ),
        ("a=tls:[::1]:65535", Target("a", TcpAddress(Protection.TLS, "::1", 65535))),
        ("a=tcp:host:16509", Target("a", TcpAddress(Protection.NONE, "host", 16509))),
        ("a=gssapi:host:16509", Target("a", TcpAddress(Protection.GSSAPI, "host", 16509))),
        ("a=scram+tls:h:16514", Target("a", TcpAddress(Protection.SCRAM_TLS, "h", 16514))),
        (
            "a=unix:/p=q,uri=test:///default?a=b",
            Target("a", UnixAddress("/p=q"), (), "test:///default?a=b"),
        ),
    ],
)
def test_a_target_is_read(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("unix:/p", "expected NAME=KIND:ADDRESS"),
        ("=unix:/p", "expected NAME=KIND:ADDRESS"),
        ("a=/p", "the kinds are: gssapi, scram+tls, tcp, tls, unix"),
        ("a=udp:localhost:16509", "target a: 'udp:localhost:16509' is no KIND:ADDRESS"),
        ("a=unix:p", "no absolute path"),
        ("a=unix:/" + "p" * 107, "longer than the 107 bytes"),
        ("a=gssapi:host", "no HOST:PORT or [IPV6]:PORT, as in gssapi:[::1]:16509"),
        ("a=tcp:host:0", "0 is no port; libvirt's own for TCP is 16509"),
        ("a=tls:host", "no HOST:PORT or [IPV6]:PORT, as in tls:[::1]:16514"),
        ("a=scram+tls:host", "no HOST:PORT or [IPV6]:PORT, as in scram+tls:[::1]:16514"),
        ("a=tls:::1:16514", "no HOST:PORT or [IPV6]:PORT"),
        ("a=tls::16514", "no HOST:PORT"),
        ("a=tls:no..name:16514", "no HOST:PORT"),
        ("a=tls:" + "n" * 64 + ":16514", "no HOST:PORT"),
        ("a=tls:host:https", "no HOST:PORT"),
        ("a=tls:host:0", "0 is no port; libvirt's own for TLS is 16514"),
        ("a=tls:host:65536", "65536 is no port"),
        ("a=unix:/p,pid", "no key=value"),
        ("a=unix:/p,pid=x", "pid=x is no process id"),
        ("a=unix:/p,pid=0", "pid=0 is no process id"),
        ("a=unix:/p,pid=1+", "is no process id"),
        ("a=unix:/p,url=test:///default", "besides uri= every key is a label"),
        ("a=unix:/p,PID=1", "'PID' is no label"),
    ],
)
def test_what_is_no_target_is_refused_with_what_was_expected(text, complaint):
    with pytest.raises(UsageError) as refused:
        parse_target(text)
    assert complaint in str(refused.value)


def test_two_targets_may_share_an_address_but_not_a_name():
    assert len(parse_targets(["a=unix:/p", "b=unix:/p"])) == 2
    with pytest.raises(UsageError, match="target a is given twice"):
        parse_targets(["a=unix:/p", "a=unix:/q"])


@pytest.mark.parametrize(
    "address",
    ["unix:/p", "tls:host:16514", "tls:[::1]:16514", "tcp:h:1", "gssapi:h:1", "scram+tls:h:1"],
)
def test_an_address_is_shown_as_it_was_given(address):
    assert str(parse_target(f"a={address}").address) == address
