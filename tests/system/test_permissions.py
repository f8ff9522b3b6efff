"""The table of permissions, against what a real libvirtd asks polkit about real clients' calls."""

import ast
import pwd
import subprocess
from collections import defaultdict, deque

import pytest

from proxyd.rules.permissions import PERMISSIONS
from proxyd.wire import failure
from proxyd.wire.flags import SHAPES, flags_of
from proxyd.wire.frame import HEADER, HEADER_SIZE, FrameType
from proxyd.wire.names import NAMES
from proxyd.wire.permissions import ALWAYS, SOMETIMES
from proxyd.wire.programs import Program
from tests.bed import versions
from tests.bed.daemon import short_directory
from tests.bed.guarded_libvirtd import asked_of, guarded_libvirtd
from tests.bed.python_libvirt import run_script
from tests.bed.tap import tapped
from tests.bed.virsh import unix_uri, virsh
from tests.system.permission_commands import (
    BESIDES,
    COMMANDS,
    FILES,
    MORE,
    NEWER,
    OF_THE_BINDING,
    UNCOMPARED,
    UUID,
)

pytestmark = [pytest.mark.system, pytest.mark.distribution]

CALLS = {int(FrameType.CALL): 0, int(FrameType.CALL_WITH_FDS): 4}


@pytest.fixture(name="compared", scope="module")
def fixture_compared():
    """What was asked of each call, and its frame, where it went through the tap."""
    with short_directory(0o711) as directory, guarded_libvirtd(directory) as daemon:
        (directory / "pool").mkdir()
        for name, text in FILES.items():
            (directory / name).write_text(text.replace("{dir}", str(directory)))
        for name in ("made", "fresh", "more"):
            image = directory / f"{name}.img"
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
        with tapped(directory / "tap", daemon.sock) as tap:
            uri = unix_uri("qemu:///system", directory / "tap")
            for command in COMMANDS:
                virsh(uri, command.format(dir=directory, again=uri))
            frames = [frame for each in tap.seen for frame in calls_in(bytes(each))]
        # Its descriptors would get lost in the tap.
        direct = unix_uri("qemu:///system", daemon.sock)
        done = run_script(MORE, direct, UUID.format(4), *OF_THE_BINDING)
        assert (done.status, done.stderr) == (0, "")
        return together(asked_of(daemon), frames)


def hardly_there():
    """The oldest of them answers nothing that came later."""
    return NEWER if versions.libvirt() < (11, 0) else frozenset()


def calls_in(wire):
    while len(wire) >= HEADER_SIZE:
        length, program, _, procedure, kind, serial, _ = HEADER.unpack_from(wire)
        if kind in CALLS:
            yield (program, procedure, serial), wire[:length]
        wire = wire[length:]


def together(asked, frames):
    """The connections came one after the other, so the same numbers come in the same order."""
    waiting = defaultdict(deque)
    for key, wire in frames:
        waiting[key].append(wire)
    found = []
    for each in asked:
        queue = waiting[each.program, each.procedure, each.serial]
        found.append((each, queue.popleft() if queue else None))
    return found


def needed(call, wire):
    """By the table; None where that cannot be said without the call's flags."""
    words = set(ALWAYS[call.program][call.procedure])
    sometimes = SOMETIMES.get(call.program, {}).get(call.procedure)
    if not sometimes:
        return words
    if wire is None:
        return None
    _, _, _, _, kind, _, _ = HEADER.unpack_from(wire)
    flags = flags_of(call.procedure, memoryview(wire)[HEADER_SIZE + CALLS[kind] :])
    for permission, bits, unless in sometimes:
        if not flags & bits if unless else flags & bits == bits:
            words.add(permission)
    return words


def is_besides(call, permission):
    """Asked of what a list has in it, of an object on the way to another, and whether strings may
    stand among parameters."""
    name = NAMES[call.program][call.procedure]
    return permission.endswith(":getattr") or permission in BESIDES.get(name, ())


def test_each_call_is_asked_about_as_the_table_says(compared):
    wrong, seen = [], set()
    for call, wire in compared:
        expected, asked = needed(call, wire), set(call.asked)
        if expected is None or (expected and not asked & expected):
            continue  # it went wrong before anybody was asked
        seen.add((call.program, call.procedure))
        strange = {each for each in asked - expected if not is_besides(call, each)}
        if strange or expected - asked:
            wrong.append((NAMES[call.program][call.procedure], expected, asked))
    assert wrong == []
    rest = {
        NAMES[program][number]
        for program, calls in ALWAYS.items()
        for number, words in enumerate(calls)
        if words is not None and (program, number) not in seen
    }
    assert rest - UNCOMPARED - hardly_there() == set(), f"{len(seen)} were compared"


def test_both_with_the_flags_and_without_them_were_seen(compared):
    """Of each call that asks for more with some flags, unless this libvirt does not have it."""
    seen = defaultdict(set)
    for call, wire in compared:
        if wire is not None and call.program == Program.REMOTE and call.procedure in SHAPES:
            words = needed(call, wire)
            if set(call.asked) & words:
                seen[call.procedure].add(frozenset(words))
    one_way = {NAMES[Program.REMOTE][number] for number in SHAPES if len(seen[number]) < 2}
    assert one_way - hardly_there() == {"DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS"}


def test_every_permission_that_is_asked_for_is_in_the_table(compared):
    assert {each for call, _ in compared for each in call.asked} <= PERMISSIONS


# polkit lets root do everything, so it is somebody else who is denied.
SOMEBODY = "games"
DENIES = """
polkit.addRule(function (action, subject) {
    var denied = ["org.libvirt.api.domain.start", "org.libvirt.api.connect.write"];
    return denied.indexOf(action.id) < 0 ? polkit.Result.YES : polkit.Result.NO;
});
"""
ASKS = """
import libvirt, sys
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open(sys.argv[1])
for call in (connection.lookupByName("made").create, connection.getDomainCapabilities):
    try:
        call()
    except libvirt.libvirtError as error:
        print(error.err)
"""


def test_a_denial_is_what_proxyd_answers():
    """But for its text, which names the driver there."""
    user = pwd.getpwnam(SOMEBODY).pw_uid
    own = failure.access_denied("anything")
    with short_directory(0o711) as directory, guarded_libvirtd(directory, DENIES) as daemon:
        definition = directory / "made.xml"
        definition.write_text(FILES["made.xml"].replace("{dir}", str(directory)))
        uri = unix_uri("qemu:///system", daemon.sock)
        assert virsh(uri, "define", str(definition)).status == 0

        said = run_script(ASKS, uri, user=user, environment={"HOME": "/nonexistent"}).succeeded()
        found = [ast.literal_eval(line) for line in said.splitlines()]
        assert len(found) == 2
        for code, domain, text, level, first, second, third, *numbers in found:
            assert (code, domain, level) == (own.code, own.domain, own.level)
            assert (third, numbers) == (own.str3, [own.int1, own.int2])
            assert text == f"access denied: {second}" == "access denied: 'QEMU' denied access"
            assert first.replace("%1$s", "%s") == own.str1.replace("%1$s", "%s")
            assert own.message.startswith("access denied: 'proxyd' denied access")

        done = virsh(uri, "start", "made", user=user, environment={"HOME": "/nonexistent"})
        assert done.status == 1
        assert done.stderr == (
            "error: Failed to start domain 'made'\nerror: access denied: 'QEMU' denied access\n"
        )
        virsh(uri, "undefine", "made")
