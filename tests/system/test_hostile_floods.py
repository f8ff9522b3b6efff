"""Who sends without end, in crumbs or in floods, or comes and goes, is felt by nobody else."""

import pytest

pytestmark = pytest.mark.system

BEGINS = """
from hostile_kit import *
directory = sys.argv[1]
def stranger():
    return connected(f"{directory}/libvirt-sock-ro")
def session():
    return open_session(f"{directory}/libvirt-sock-ro", "lxc:///system")
get_ready()
"""
CRUMBS = """
stream = {stream}
crowd = Crowd(6, {begin})
while True:
    for _ in range(50):
        crowd.each(lambda peer: peer.send_byte_of(stream))
    crowd.drain()
"""
FLOOD = """
stream = {stream}
crowd = Crowd(6, {begin})
while True:
    crowd.each(lambda peer: peer.send(stream))
    crowd.drain()
"""
COMES_AND_GOES = """
while True:
    try:
        socks = [{begin}() for _ in range(6)]
    except OSError:
        select.select([], [], [], 0.001)
        continue
    for sock in socks:
        sock.close()
"""
# A session that is opened by one call, without waiting for an answer.
HURRIED = """
def hurried():
    sock = stranger()
    sock.sendall(
        frame(AUTH_LIST) + frame(CONNECT_OPEN, opening("lxc:///system", READONLY), serial=1)
    )
    return sock
"""

PINGS = "ping() * 200"
NO_CALLS = """b"".join(
    frame(60000, bytes(size), kind=kind)
    for kind in (REPLY, MESSAGE, STREAM, STREAM_HOLE, REPLY_WITH_FDS)
    for size in (0, 4, 100)
) * 20"""
LIES = """b"".join(
    frame(60000 + at, bytes(at), kind=at - 5, status=at, program=REMOTE + at, version=at)
    for at in range(100)
    if at not in (5, 9)
)"""
GUARDED = "frame(SET_IDENTITY, bytes(8)) + frame(CONNECT_GET_LIB_VERSION) * 100"
# As long as a stranger's frame may be; an answer, and the next one.
LONGEST = "frame(AUTH_LIST, bytes(16000))"

ATTACKS = {
    "crumbs of a stranger": CRUMBS.format(stream=LONGEST, begin="stranger"),
    "crumbs in a session": CRUMBS.format(stream=PINGS, begin="session"),
    "pings of a stranger": FLOOD.format(stream=PINGS, begin="stranger"),
    "pings in a session": FLOOD.format(stream=PINGS, begin="session"),
    "no calls of a stranger": FLOOD.format(stream=NO_CALLS, begin="stranger"),
    "no calls in a session": FLOOD.format(stream=NO_CALLS, begin="session"),
    "nonsense in a session": FLOOD.format(stream=LIES, begin="session"),
    "guarded calls in a session": FLOOD.format(stream=GUARDED, begin="session"),
    "strangers come and go": COMES_AND_GOES.format(begin="stranger"),
    "sessions come and go": COMES_AND_GOES.format(begin="session"),
    "sessions are not waited for": HURRIED + COMES_AND_GOES.format(begin="hurried"),
}
# Crumbs and pings in a session are on the edge of what is allowed, on a machine's slower hours
# beyond it: they run when asked for.
ALWAYS = [
    "no calls of a stranger",
    "strangers come and go",
]


@pytest.mark.parametrize(
    "attack",
    [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.long]) for name in ATTACKS],
)
def test_who_sends_without_end_is_not_felt(make_scene, endures, attack):
    endures(make_scene(), BEGINS + ATTACKS[attack])
