"""What the words of a set allow: libvirt's permissions, calls by name, and the short words.

The words, in any case:

* `OBJECT:PERMISSION`, as libvirt's access control knows them: `domain:start`. Both sides may have
  globs: `domain:*`, `*:read`.
* `remote:NAME`, `qemu:NAME`, `lxc:NAME`: calls of a program, by the names that they have in
  docs/protocol/procedures.tsv, whatever permissions they need: `remote:domain_reset`, `qemu:*`.
  `remote:455` is one by its number, also of those that this table does not know yet.
* `read`: getattr, read and search_… of all objects. It is what libvirt lets through on a read-only
  connection, but for what this asks a guest's agent for.
* `operate`: what runs guests, and not what defines them (OPERATE, and DOMAIN_MANAGED_SAVE).

A call of REMOTE is allowed if all is allowed that it needs. Other programs, whose calls go past
libvirt's idea of a guest, are allowed where they are named and by no permission. What every open
connection needs is always allowed. Events cannot be called.

It is never less than libvirt asks for, and in places more, where what libvirt does cannot be done
from outside (_NEEDED_BESIDES, _SEARCHING).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from proxyd.config.globs import matches
from proxyd.rules.allowance import Allowance, Condition
from proxyd.wire.names import NAMES
from proxyd.wire.permissions import ALWAYS, SOMETIMES, Asked
from proxyd.wire.programs import Program

_PROGRAMS: Final = {"remote": Program.REMOTE, "qemu": Program.QEMU, "lxc": Program.LXC}
_HIGHEST: Final = (1 << 31) - 1  # of the numbers that a procedure can have
_LIKELY: Final = 0.8  # how much a word has to be like the one that is proposed
_EXCERPT: Final = 80


def _all_permissions() -> Iterator[str]:
    for calls in ALWAYS.values():
        for words in calls:
            yield from words or ()
    for asked in SOMETIMES[Program.REMOTE].values():
        yield from (each.permission for each in asked)


PERMISSIONS: Final = frozenset(_all_permissions())
_OBJECTS: Final = frozenset(each.partition(":")[0] for each in PERMISSIONS)

READ: Final = frozenset(
    each for each in PERMISSIONS if re.fullmatch(r"getattr|read|search_.*", each.partition(":")[2])
)

# Beyond reading. The rule: nothing that changes what a guest, a network or a disk is, nothing that
# changes the host or reads what others keep there, nothing that gives secrets away. What each does
# ends with the guest's run, or can be undone by whoever may do it.
#
# Not domain:write, which is libvirt's word for all changes of a guest's hardware while it runs, and
# for its agent; nor save, delete, snapshot, checkpoint: definitions, or what is on their disks. Not
# migrate, since where a guest runs is a decision about hosts. Not core_dump, mem_read, block_read,
# read_secure: they give away what a guest holds. Not fs_trim, fs_freeze, set_time, set_password,
# which change what is inside. Not open_namespace, which is a way into the host. Of networks,
# interfaces, devices and filters nothing but reading: other guests hang on them. Of pools the
# refresh alone, which only looks again at what is there.
#
# Not hibernate: with it DOMAIN_SAVE has the daemon write, as root, over whatever file it names. But
# whoever may stop a guest may as well keep what it was doing, where libvirt keeps such things: two
# calls are in by their names (_CALLS_OF).
OPERATE: Final = READ | {
    "domain:init_control",
    "domain:inject_nmi",
    "domain:open_device",
    "domain:open_graphics",
    "domain:pm_control",
    "domain:reset",
    "domain:screenshot",
    "domain:send_input",
    "domain:send_signal",
    "domain:start",
    "domain:stop",
    "domain:suspend",
    "storage_pool:refresh",
}
LEVELS: Final[Mapping[str, frozenset[str]]] = {"read": READ, "operate": OPERATE}
_CALLS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "operate": ("domain_managed_save", "domain_managed_save_remove"),
}

_OF_EACH_CONNECTION: Final = frozenset({"connect:getattr"})

# What the table asks too little for. DOMAIN_SET_MAX_MEMORY: the QEMU driver asks for domain:save as
# well. DOMAIN_SET_SCHEDULER_PARAMETERS, for which libvirt asks for domain:read: whoever may only
# read is kept from it there by the connection's own flag, which a set does not have.
# CONNECT_GET_ALL_DOMAIN_STATS: libvirt leaves out whatever its caller may not read.
_NEEDED_BESIDES: Final = {30: ("domain:save",), 58: ("domain:write",), 344: ("domain:read",)}

# Of a list, too, libvirt leaves out what its caller has no getattr for. A list cannot be looked
# into here, so all of it takes that.
_SEARCHING: Final = re.compile(r".*:search_(.*)s")
_LISTED: Final = {"port": "network_port"}  # others are called what they are


def allowance_of(words: Iterable[str]) -> Allowance:
    """What these allow together. Words that are `unfit` allow nothing."""
    words = [each.lower() for each in words]
    allowed = _OF_EACH_CONNECTION.union(*map(_permissions_of, words))
    named = frozenset(call for each in words for call in _calls_of(each))
    plain, conditional = set(named), {}
    for number in range(len(ALWAYS[Program.REMOTE])):
        key = int(Program.REMOTE), number
        if key in named or not _needed(number) <= allowed:
            continue
        asked = [
            each
            for each in SOMETIMES[Program.REMOTE].get(number, ())
            if each.permission not in allowed
        ]
        if asked:
            conditional[key] = _condition(asked)
        else:
            plain.add(key)
    return Allowance(plain=frozenset(plain), conditional=conditional)


def unfit(word: str) -> str | None:
    """What is wrong with a word, as the end of a sentence about it; None where nothing is."""
    lower = word.lower()
    if _permissions_of(lower) or any(True for _ in _calls_of(lower)):
        return None
    program, colon, name = lower.partition(":")
    known: list[str]
    if program in _PROGRAMS and colon:
        known = [f"{program}:{each}" for each in _names(_PROGRAMS[program]).values()]
        wrong = f"no call of {program}"
        if re.fullmatch(r"-?[0-9]+", name):
            return f"expected the number of a call of {program}, and no event's"
    else:
        known = [*sorted(PERMISSIONS), *LEVELS]
        wrong = "no permission of libvirt's"
    likely = get_close_matches(lower, known, n=1, cutoff=_LIKELY) if name or not colon else []
    likely = [each for each in known if each.endswith(f":{lower}")][:1] or likely
    if likely:
        return f"{wrong}: did you mean {likely[0]}?"
    if colon and program in _OBJECTS and "*" not in name:
        own = sorted(each for each in PERMISSIONS if each.startswith(f"{program}:"))
        return f"{wrong}: {program} has {', '.join(each.partition(':')[2] for each in own)}"
    if colon and program in _PROGRAMS:
        return f"{wrong}: names are those of libvirt's procedures, such as {known[0]}"
    return (
        f"{wrong}: expected OBJECT:PERMISSION such as domain:start, PROGRAM:CALL such as"
        " qemu:domain_monitor_command, read or operate"
    )


def remarks(words: Iterable[str]) -> list[str]:
    """What is hardly meant, a sentence each."""
    words = list(dict.fromkeys(each.lower() for each in words))
    allowed = _OF_EACH_CONNECTION.union(*map(_permissions_of, words))
    named = any(True for each in words for _ in _calls_of(each))
    found = []
    for kind in sorted({each.partition(":")[0] for each in allowed} - {"connect"}):
        own = sorted(each for each in allowed if each.startswith(f"{kind}:"))
        if f"{kind}:getattr" not in allowed:
            found.append(
                f"{own[0]} without {kind}:getattr: no client can look up a {_spoken(kind)} by its"
                " name, so few can use it"
            )
    for each in sorted(allowed & set(words)):
        needed = None if _lets_in(each, allowed) else _missing_for(each, allowed)
        if needed:
            found.append(f"{each} allows nothing by itself: its calls need {needed} as well")
    searching = sorted(each for each in allowed if each.startswith("connect:search_"))
    if searching and "connect:read" not in allowed:
        found.append(
            f"{searching[0]} without connect:read: a client that waits for events cannot stop that"
        )
    if not named and allowed <= _OF_EACH_CONNECTION:
        found.append("nothing is allowed but to open a connection and to close it")
    return found


def _permissions_of(word: str) -> frozenset[str]:
    if word in LEVELS:
        return LEVELS[word]
    if word in PERMISSIONS:
        return frozenset({word})
    kind, colon, name = word.partition(":")
    if not colon or kind in _PROGRAMS or not ("*" in word or "?" in word):
        return frozenset()
    return frozenset(
        each
        for each in PERMISSIONS
        if matches(kind, each.partition(":")[0]) and matches(name, each.partition(":")[2])
    )


def _calls_of(word: str) -> Iterator[tuple[int, int]]:
    for call in _CALLS_OF.get(word, ()):
        yield from _calls_of(f"remote:{call}")
    prefix, colon, name = word.partition(":")
    program = _PROGRAMS.get(prefix)
    if program is None or not colon:
        return
    known = _names(program)
    if re.fullmatch(r"[0-9]{1,10}", name):
        number = int(name)
        if number in known or len(NAMES[program]) <= number <= _HIGHEST:
            yield int(program), number
        return
    yield from ((int(program), number) for number, each in known.items() if matches(name, each))


@lru_cache
def _names(program: Program) -> dict[int, str]:
    """Of what can be called, in small letters."""
    return {
        number: name.lower()
        for number, name in enumerate(NAMES[program])
        if number < len(ALWAYS[program]) and ALWAYS[program][number] is not None
    }


def _needed(number: int) -> frozenset[str]:
    """Of a REMOTE call; for what cannot be called something that nobody has."""
    always = ALWAYS[Program.REMOTE][number]
    if always is None:
        return frozenset({""})
    return frozenset((*always, *_NEEDED_BESIDES.get(number, ()), *_listed(always)))


def _listed(always: Iterable[str]) -> Iterator[str]:
    for each in always:
        if found := _SEARCHING.fullmatch(each):
            kind = found[1]
            yield f"{_LISTED.get(kind, kind)}:getattr"


def _condition(asked: Iterable[Asked]) -> Condition:
    without = with_any = 0
    for each in asked:
        if each.unless:
            with_any |= each.flags
        else:
            without |= each.flags
    return Condition(without=without, with_any=with_any)


def _lets_in(permission: str, allowed: frozenset[str]) -> bool:
    """Whether any call, or some flag of one, is allowed that would not be without it."""
    for number in range(len(ALWAYS[Program.REMOTE])):
        needed = _needed(number)
        asked = SOMETIMES[Program.REMOTE].get(number, ())
        if needed <= allowed and (
            permission in needed or any(each.permission == permission for each in asked)
        ):
            return True
    return False


def _missing_for(permission: str, allowed: frozenset[str]) -> str:
    """What the least demanding of its calls needs besides."""
    least: list[str] = []
    for number in range(len(ALWAYS[Program.REMOTE])):
        needed = _needed(number)
        asked = SOMETIMES[Program.REMOTE].get(number, ())
        if permission in needed or any(each.permission == permission for each in asked):
            missing = sorted(needed - allowed)
            if not least or len(missing) < len(least):
                least = missing
    return " and ".join(least)


def _spoken(kind: str) -> str:
    return kind.replace("_", " ")
