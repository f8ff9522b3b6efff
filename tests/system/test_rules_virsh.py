"""Real virsh under rules: each kind of client, each level, and every command of a table.

What the table expects follows from the permissions column of docs/protocol/procedures.tsv. What is
allowed prints what it prints directly, in a session in which nothing else was ever typed; what is
not allowed leaves no trace in the daemon's own log.
"""

import json
import re
from collections import Counter

import pytest

from tests.bed.command import held_open
from tests.bed.daemon import open_ways
from tests.bed.permitted_commands import LEVELS, TEST_ROWS, is_reading
from tests.bed.proxyd_log import log_line
from tests.bed.ruled_proxyd import KINDS, LINES, NAME, house, proxyd_command
from tests.bed.side_by_side import Way
from tests.bed.virsh import unix_uri
from tests.bed.virsh_commands import FILES
from tests.bed.waiting import wait_until
from tests.system.daemon_clients import clients_of, info_of

pytestmark = pytest.mark.system

MORE_FILES = {
    "transient.xml": FILES["test.xml"].replace("made", "passing").replace("11111111", "44444444"),
    "disk.xml": "<disk type='file' device='disk'><source file='/nowhere'/>"
    "<target dev='vdz' bus='virtio'/></disk>",
}
# Where nothing has stopped the guest, virsh finds nothing to do, and asks for nothing.
LOOK_FIRST = {"start test", "managedsave-remove test"}
DENIED = "error: access denied: 'proxyd' denied access: its rules do not let this client "


@pytest.fixture(scope="module")
def place(tmp_path_factory, kdc):
    directory = tmp_path_factory.mktemp("rules")
    with house(directory, kdc) as made:
        yield made


@pytest.fixture
def files(tmp_path):
    """Makes a directory of its own for a session, in which everybody may write."""
    count = 0

    def make():
        nonlocal count
        count += 1
        directory = tmp_path / str(count)
        directory.mkdir()
        directory.chmod(0o777)
        for name, text in {**FILES, **MORE_FILES}.items():
            (directory / name).write_text(text)
        open_ways(tmp_path)
        return directory

    return make


@pytest.fixture(scope="module")
def references():
    """What was found out directly, by socket and by what was typed."""
    return {}


def typed(rows, directory):
    return [row.command.format(dir=directory) if row else "" for row in rows]


def shown(text, directory):
    """The same for all directories, and whenever it is."""
    return re.sub(r"(CPU time: *)\S+", r"\1…", text.replace(str(directory), "DIR"))


@pytest.fixture
def directly(place, files, references):
    def directly(rows, *, readonly):
        """Of each row that is not None, in a session directly with the daemon."""
        key = readonly, tuple(rows)
        if key not in references:
            directory = files()
            sock = place.daemon.sock_ro if readonly else place.daemon.sock
            found = place.daemon.outcomes(Way(unix_uri(NAME, sock)), typed(rows, directory))
            references[key] = [
                (shown(each.stdout, directory), shown(each.stderr, directory), each.calls)
                for each in found
            ]
        return references[key]

    return directly


# The table itself


def test_it_has_all_there_is_to_tell_apart():
    assert len(TEST_ROWS) >= 80
    allowed = {level: [row.is_allowed(level) for row in TEST_ROWS] for level in LEVELS}
    assert len(set(map(tuple, allowed.values()))) == len(LEVELS)
    assert {level: sum(each) for level, each in allowed.items()} == {
        "deny": 0,
        "read": 22,
        "operate": 39,
        "write": len(TEST_ROWS),
        "power": 26,
        "upkeep": 32,
    }


def test_each_command_makes_the_call_that_the_table_says_and_else_reads(directly):
    for row, (_, _, calls) in zip(TEST_ROWS, directly(TEST_ROWS, readonly=False), strict=True):
        assert row.call in calls, row.command
        assert all(is_reading(call) for call in calls if call != row.call), row.command


def test_the_level_read_is_what_the_read_only_socket_lets_through(directly):
    for row, (_, stderr, _) in zip(TEST_ROWS, directly(TEST_ROWS, readonly=True), strict=True):
        if row.command not in LOOK_FIRST:
            assert ("operation forbidden: " in stderr) is not row.is_allowed("read"), row.command


# Each client, each level


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("level", [each for each in LEVELS if each != "deny"])
def test_commands_fare_as_the_table_says(level, name, place, files, directly):
    place.enforce(level)
    before = len(place.records(name))
    directory = files()
    readonly = KINDS[name].readonly
    rows = [row if row.is_allowed(level) else None for row in TEST_ROWS]

    found = place.daemon.outcomes(place.ways[name], typed(TEST_ROWS, directory))

    expected = directly(rows, readonly=readonly or level == "read")
    for row, got, (stdout, stderr, calls) in zip(TEST_ROWS, found, expected, strict=True):
        told = shown(got.stderr, directory)
        if row.is_allowed(level):
            assert (shown(got.stdout, directory), told, got.calls) == (stdout, stderr, calls), row
            continue
        assert row.call not in got.calls, row
        assert all(map(is_reading, got.calls)), row
        if row.command not in LOOK_FIRST or DENIED in told:
            assert told.splitlines()[-1].startswith(f"{DENIED}call {row.call.name} "), row
    check_records(name, level, place.records_of_next(name, before), found)


def check_records(name, level, records, found):
    """The session's. Of calls that read none is recorded, so neither are those with a flag."""
    law = {"rule": LINES[name], "may": level, "uri": NAME, **KINDS[name].record}
    for each in records:
        assert law.items() <= each.items(), each
    refused = Counter(each["procedure"] for each in records if each.get("outcome") == "refused")
    assert refused == Counter(
        row.call.name
        for row, got in zip(TEST_ROWS, found, strict=True)
        if DENIED in got.stderr and not is_reading(row.call)
    )


@pytest.mark.parametrize("name", KINDS)
def test_who_is_denied_everything_is_told_so_and_never_gets_to_the_daemon(name, place):
    place.enforce("deny")
    position, before = place.daemon.position(), len(place.records(name))

    done = place.ways[name].virsh("list")

    assert done.status == 1
    assert done.stdout == ""
    assert done.stderr == (f"error: failed to connect to the hypervisor\n{DENIED}open {NAME}\n")
    assert place.daemon.calls_since(position) == []
    rule = list(KINDS.values())[LINES[name] - 1].rule
    line = log_line(place.fronts[name], f"rule {LINES[name]} denies it: ")
    assert f'cannot open "{NAME}": rule {LINES[name]} denies it: {rule}' in line
    denied = wait_until(
        lambda: [
            each for each in place.records(name)[before:] if each["event"] == "session_denied"
        ],
        20,
        "it is recorded",
    )
    assert KINDS[name].record.items() <= denied[0].items()
    assert f"rule {LINES[name]} denies it: {rule}" in denied[0]["reason"]


@pytest.mark.parametrize("level", ["read", "operate"])
def test_commands_end_with_the_status_that_they_have_directly_and_what_is_denied_with_1(
    level, place, files
):
    """Each in a process of its own, of one kind of client."""
    place.enforce(level)
    sock = place.daemon.sock_ro if level == "read" else place.daemon.sock
    direct = Way(unix_uri(NAME, sock))

    for row in TEST_ROWS:
        (command,) = typed([row], files())
        done = place.ways["user"].virsh(command)
        if row.is_allowed(level):
            assert done.status == direct.virsh(*typed([row], files())).status, row
        elif row.command not in LOOK_FIRST:
            assert done.status == 1, row
            last = done.stderr.splitlines()[-1]
            assert last.startswith(f"{DENIED}call {row.call.name} "), row


# Reading only


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.readonly])
def test_who_reads_has_the_read_only_socket_and_flag_whatever_was_asked_for(name, place):
    place.enforce("read")
    way, position = place.ways[name], place.daemon.position()
    with held_open(
        [*way.wrapper, "virsh", "-q", "-c", way.uri], environment=way.environment
    ) as client:
        (one,) = wait_until(
            lambda: [each for each in place.clients(name) if each["state"] == "open"], 20, "open"
        )
        (number,) = clients_of(place.daemon)
        info = info_of(place.daemon, number)
        client.stdin.write("quit\n")
        client.stdin.close()
        assert client.wait(20) == 0

    assert one["readonly"] is True
    assert one["backend"].endswith("/virtqemud-sock-ro")
    assert info["readonly"] == "yes"
    told = place.daemon.told_since(position)
    assert re.findall(r" virConnectOpenAuth:\d+ : name=(\S+), auth=\S+, (flags=\S+)\n", told) == [
        (NAME, "flags=0x1")  # VIR_CONNECT_RO
    ]


# What a user and an administrator see


@pytest.mark.parametrize("name", KINDS)
def test_explain_and_clients_and_the_log_name_the_same_line(name, place):
    place.enforce("operate")
    way = place.ways[name]
    words = ("rules", "explain", str(place.rules), *KINDS[name].explained, "--uri", NAME, "--json")

    explained = json.loads(proxyd_command(*words).succeeded())
    with held_open(
        [*way.wrapper, "virsh", "-q", "-c", way.uri], environment=way.environment
    ) as client:
        client.stdin.write("autostart test\n")
        client.stdin.flush()
        listed = wait_until(
            lambda: [each for each in place.clients(name) if each["denied_calls"]], 20, "denied"
        )

    (one,) = listed
    assert one["rule"]["line"] == explained["rule"]["line"] == LINES[name]
    assert one["rule"]["text"] == explained["rule"]["text"]
    assert one["rule"]["may"] == explained["rule"]["name"] == "operate"
    assert one["denied_calls"] == 1
    assert one["listener"].split()[0] == KINDS[name].listener
    assert one["readonly"] is KINDS[name].readonly
    opened = log_line(place.fronts[name], f"session {one['id']} opened: ")
    assert f", by rule {LINES[name]} (operate)" in opened
