"""A client's name for what it wants to open: nothing goes on that makes a daemon dial out.

What goes on is read again by another parser, that of the standard library.
"""

from urllib.parse import parse_qsl, urlsplit

from proxyd.config.routes import MAX_NAME, RoutingTable, Unroutable, parse_name
from proxyd.wire.failure import Failure

TABLES = tuple(
    RoutingTable(
        privileged=privileged,
        system_dir="/run/libvirt",
        session_dir="/run/user/1000/libvirt",
        routes={"ch": "virtchd", "test": "/run/test-sock"},
    )
    for privileged in (False, True)
)
HARMFUL = {"socket", "command"}
WORDS = (
    b"qemu:///system",
    b"test:///default",
    b"+unix",
    b"+ssh",
    b"%2F",
    b"%00",
    b"socket=",
    b"c%6fmmand=",
    b"/embed",
    b"xen",
    b"://",
    b"?a=b&c;d#",
)


def one_input(data):
    if not data:
        return
    name = data[1:].decode("utf-8", "surrogateescape")
    table, readonly = TABLES[data[0] & 1], bool(data[0] & 2)
    try:
        uri = parse_name(name)
    except Unroutable as refusal:
        claim_told(refusal)
        return
    passed_on = str(uri)
    assert parse_name(passed_on) == uri
    read_by_others(passed_on)
    try:
        destination = table.resolve(name, readonly=readonly)
    except Unroutable as refusal:
        claim_told(refusal)
        return
    assert destination.name == passed_on
    directory, _, file = destination.path.rpartition("/")
    assert directory in {table.system_dir, table.session_dir, "/run"}
    assert file not in {"", ".", ".."}


def claim_told(refusal):
    """The client is sent it."""
    assert Failure.unpack(refusal.failure.pack()).message == refusal.failure.message


def read_by_others(name):
    assert len(name) <= MAX_NAME
    assert name.isascii()
    assert name.isprintable()
    split = urlsplit(name)
    assert not split.netloc
    assert "+" not in split.scheme or split.scheme.endswith("+unix")
    assert not split.fragment
    assert split.path.rstrip("/").lower() != "/embed"
    keys = {key.lower() for key, _ in parse_qsl(split.query, keep_blank_values=True)}
    assert not keys & HARMFUL
