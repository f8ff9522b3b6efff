"""Whatever the text, it is refused or what goes on is harmless, and its socket is where we say."""

import posixpath
import random
from urllib.parse import unquote_to_bytes, urlsplit

from hypothesis import example, given
from hypothesis import strategies as st

from proxyd.config.routes import MAX_NAME, Destination, RoutingTable, Unroutable, parse_name
from tests.bed.examples import examples

SYSTEM_DIR = "/run/libvirt"
SESSION_DIR = "/run/user/1000/libvirt"
DANGEROUS = {b"socket", b"command"}
# Escaped anew a character may take three times its room.
ROOM = MAX_NAME // 3


def disguise(word, seed):
    """The word with some letters in the other case and some characters as escapes."""
    chance = random.Random(seed)
    dresses = (str, str, str, str.swapcase, lambda char: f"%{ord(char):02x}")
    return "".join(chance.choice(dresses)(char) for char in word)


def disguised(*words):
    return st.builds(disguise, st.sampled_from(words), st.integers(0, 2**32 - 1))


def mostly(innocent, nasty):
    """So that often just one part of a name is nasty, and it is not refused for another's sake."""
    return st.integers(0, 7).flatmap(lambda roll: nasty if roll == 7 else innocent)


_SCHEMES = mostly(
    st.sampled_from(["qemu", "xen", "lxc", "a.b-c"]),
    st.sampled_from(["test", "..", "a/../b", "a%2Fb", "XEN", ""]),
)
_SUFFIXES = mostly(
    st.sampled_from(["", "+unix"]), disguised("+unix", "+ext", "+ssh", "+tls", "+", "+unix+ssh")
)
_AUTHORITIES = mostly(
    st.sampled_from(["", "//"]),
    st.sampled_from(["//host", "//u@", "//:1", "//[::1]", "//%68", "//system", "//.."]),
)
_PATHS = mostly(
    st.sampled_from(["/system", "/session", "", "/"]),
    st.sampled_from(["system", "//h/x", "%2F%2Fh", "/..", "/a%3fsocket=x", "/a%23", "/%0a", "/é"])
    | disguised("/embed", "/embed/", "/session"),
)
_KEYS = mostly(
    st.sampled_from(["a", "mode", "b%20", "%2573ocket", ""]),
    disguised("socket", "command", "name", "x&socket"),
)
_VALUES = mostly(
    st.sampled_from(["", "=", "=x", "=%26socket=y", "=%3bcommand%3dy", "=c=d"]),
    st.sampled_from(["=%00", "#", "=%"]),
)
_QUERIES = st.lists(
    st.tuples(_KEYS, _VALUES, st.sampled_from(["&", ";"])).map("".join), max_size=3
).map(lambda items: "?" + "".join(items) if items else "")
_SHAPED = st.tuples(_SCHEMES, _SUFFIXES, st.just(":"), _AUTHORITIES, _PATHS, _QUERIES).map("".join)
NAMES = mostly(
    _SHAPED, st.text("quem:/?&;=#%+@.aA05\n é\udcff", max_size=30) | st.text(max_size=30)
).filter(lambda name: len(name) <= ROOM)
TABLES = st.builds(
    RoutingTable,
    privileged=st.booleans(),
    system_dir=st.just(SYSTEM_DIR),
    session_dir=st.just(SESSION_DIR),
    routes=st.sampled_from([{}, {"qemu": "libvirtd", "test": "/srv/sock"}, {"lxc": "virtxend"}]),
)


def resolved(table, name, *, readonly=False):
    try:
        return table.resolve(name, readonly=readonly)
    except Unroutable as refused:
        assert refused.failure.message  # noqa: PT017 (either outcome is fine)
        assert refused.failure.pack()  # noqa: PT017 (it can be sent, whatever the text was)
        return None


def keys_of(query):
    """The parameters' names as a daemon sees them: cut at both separators, then unescaped."""
    items = query.replace(";", "&").split("&")
    return [unquote_to_bytes(item.partition("=")[0]).lower() for item in items]


@given(TABLES, NAMES, st.booleans())
@examples(200)
def test_any_text_leads_somewhere_or_is_refused(table, name, readonly):
    went = resolved(table, name, readonly=readonly)
    assert went is None or isinstance(went, Destination)


@given(TABLES, NAMES)
@examples(500)
def test_what_goes_on_names_no_host_no_transport_and_nothing_that_acts(table, name):
    went = resolved(table, name)
    if went is None:
        return
    parts = urlsplit(went.name)
    assert (parts.netloc, parts.fragment) == ("", "")
    assert parts.scheme.isascii()
    assert "+" not in parts.scheme
    assert went.name.startswith(f"{parse_name(name).driver}://")
    assert not DANGEROUS & set(keys_of(parts.query))
    assert unquote_to_bytes(parts.path).rstrip(b"/").lower() != b"/embed"
    assert not parts.path or parts.path.startswith("/")


@given(TABLES, NAMES)
@example(RoutingTable(privileged=True, system_dir=SYSTEM_DIR, session_dir=SESSION_DIR), "xen:")
@examples(500)
def test_what_goes_on_is_plain_text_and_leads_to_the_same_place(table, name):
    went = resolved(table, name)
    if went is None:
        return
    assert went.name.isascii()
    assert went.name.isprintable()
    assert " " not in went.name
    again = table.resolve(went.name, readonly=False)
    assert again == went
    assert str(parse_name(went.name)) == went.name


@given(TABLES, NAMES, st.booleans())
@examples(300)
def test_a_socket_lies_directly_in_its_directory_or_is_the_configured_path(table, name, readonly):
    went = resolved(table, name, readonly=readonly)
    if went is None or went.path in table.routes.values():
        return
    directory, file = posixpath.split(went.path)
    assert directory in ({SYSTEM_DIR} if table.privileged else {SYSTEM_DIR, SESSION_DIR})
    assert posixpath.normpath(went.path) == went.path
    assert file.startswith(("virt", "libvirt"))
    assert file.endswith("-sock-ro" if readonly and directory == SYSTEM_DIR else "-sock")


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9.-]{0,20}", fullmatch=True), st.booleans())
def test_a_scheme_of_any_spelling_stays_a_part_of_the_sockets_name(scheme, readonly):
    table = RoutingTable(privileged=True, system_dir=SYSTEM_DIR, session_dir=SESSION_DIR)
    went = resolved(table, f"{scheme}:///system", readonly=readonly)
    assert went is None or went.path.startswith(f"{SYSTEM_DIR}/virt{scheme}d-sock")


@given(st.text(st.sampled_from("%65/:?&=+x#;"), min_size=MAX_NAME // 2, max_size=2 * MAX_NAME))
@examples(20)
def test_long_nonsense_is_refused_or_goes_on(name):
    table = RoutingTable(privileged=True, system_dir=SYSTEM_DIR, session_dir=SESSION_DIR)
    went = resolved(table, "qemu:///" + name)
    assert went is None or len(name) <= MAX_NAME
