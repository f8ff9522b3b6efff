"""What words allow, what is wrong with them, and what is hardly meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.rules.allowance import Condition
from proxyd.rules.permissions import (
    OPERATE,
    PERMISSIONS,
    READ,
    allowance_of,
    remarks,
    unfit,
)
from proxyd.wire.names import NAMES
from proxyd.wire.permissions import ALWAYS, SOMETIMES
from proxyd.wire.programs import Program

REMOTE = int(Program.REMOTE)


def number(name, program=Program.REMOTE):
    return int(program), NAMES[program].index(name)


def allowed(*words):
    """By name: those that need no flag."""
    return {NAMES[program][at] for program, at in allowance_of(words).plain}


def test_nothing_is_what_every_open_connection_needs():
    assert allowed() == {
        "CONNECT_OPEN",
        "CONNECT_CLOSE",
        "CONNECT_GET_TYPE",
        "CONNECT_GET_VERSION",
        "CONNECT_GET_HOSTNAME",
        "CONNECT_SUPPORTS_FEATURE",
        "AUTH_LIST",
        "AUTH_SASL_INIT",
        "AUTH_SASL_START",
        "AUTH_SASL_STEP",
        "AUTH_POLKIT",
        "CONNECT_IS_SECURE",
        "CONNECT_GET_URI",
        "CONNECT_GET_LIB_VERSION",
        "CONNECT_REGISTER_CLOSE_CALLBACK",
        "CONNECT_UNREGISTER_CLOSE_CALLBACK",
    }
    assert not allowance_of([]).conditional


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (
            ["domain:start"],
            {"DOMAIN_CREATE", "DOMAIN_CREATE_WITH_FLAGS", "DOMAIN_CREATE_WITH_FILES"},
        ),
        (["DOMAIN:Stop"], {"DOMAIN_DESTROY", "DOMAIN_DESTROY_FLAGS"}),
        (["domain:save"], set()),
        (["secret:read*"], {"SECRET_GET_XML_DESC", "SECRET_GET_VALUE"}),
        (["s*t:read"], {"SECRET_GET_XML_DESC"}),
        (["remote:domain_reset"], {"DOMAIN_RESET"}),
        (["Remote:DOMAIN_*_CALC"], {"DOMAIN_START_DIRTY_RATE_CALC"}),
        (["qemu:domain_agent_command"], {"DOMAIN_AGENT_COMMAND"}),
        (["lxc:*"], {"DOMAIN_OPEN_NAMESPACE"}),
        (["domain:open_namespace"], set()),
        (["remote:245"], {"DOMAIN_RESET"}),
        (["domain:no_such", "remote:107", "qemu:6", "", ":", "*", "domain"], set()),
    ],
)
def test_words_allow(words, more):
    assert allowed(*words) - allowed() == more


def test_a_call_of_a_later_libvirt_is_allowed_by_its_number():
    later = len(NAMES[Program.REMOTE]) + 1
    assert (REMOTE, later) in allowance_of([f"remote:{later}"]).plain
    assert (REMOTE, 1 << 31) not in allowance_of([f"remote:{1 << 31}"]).plain


def test_no_permission_lets_other_programs_in():
    """They go past libvirt's idea of a guest: who may write a guest need not speak to its QEMU."""
    assert {program for program, _ in allowance_of(["*:*"]).plain} == {REMOTE}
    assert {program for program, _ in allowance_of(["qemu:*"]).plain} == {REMOTE, Program.QEMU}


def test_events_are_never_allowed():
    plain = allowance_of(["*:*", "remote:*", "qemu:*", "lxc:*"]).plain
    assert len(plain) == sum(each is not None for calls in ALWAYS.values() for each in calls)
    assert all(ALWAYS[program][at] is not None for program, at in plain)


@pytest.mark.parametrize(
    ("words", "name", "condition"),
    [
        (["domain:read"], "DOMAIN_GET_XML_DESC", Condition(without=9)),
        (["domain:write"], "DOMAIN_ATTACH_DEVICE_FLAGS", Condition(without=2, with_any=3)),
        (["domain:write"], "DOMAIN_SET_VCPUS_FLAGS", Condition(without=2, with_any=3)),
        (["domain:init_control"], "DOMAIN_REBOOT", Condition(without=2)),
        (["domain:read"], "DOMAIN_INTERFACE_ADDRESSES", Condition(without=1)),
        (["network:write"], "NETWORK_UPDATE", Condition(without=2, with_any=3)),
        (["domain:snapshot"], "DOMAIN_SNAPSHOT_CREATE_XML", Condition(without=64)),
    ],
)
def test_of_some_calls_the_flags_decide(words, name, condition):
    allowance = allowance_of(words)
    assert allowance.conditional[number(name)] == condition
    assert number(name) not in allowance.plain


def test_who_has_both_has_the_call_whatever_its_flags():
    allowance = allowance_of(["domain:read", "domain:read_secure"])
    assert number("DOMAIN_GET_XML_DESC") in allowance.plain
    named = allowance_of(["domain:read", "remote:domain_get_xml_desc"])
    assert number("DOMAIN_GET_XML_DESC") in named.plain
    assert number("DOMAIN_GET_XML_DESC") not in named.conditional


def test_what_libvirt_asks_too_little_for_is_asked_more_for():
    assert "DOMAIN_SET_SCHEDULER_PARAMETERS" not in allowed("domain:read")
    assert "DOMAIN_SET_SCHEDULER_PARAMETERS" in allowed("domain:read", "domain:write")
    assert "DOMAIN_SET_MAX_MEMORY" not in allowed("domain:write")


@pytest.mark.parametrize(
    ("searching", "listed", "name"),
    [
        ("connect:search_domains", "domain:getattr", "CONNECT_LIST_ALL_DOMAINS"),
        ("connect:search_domains", "domain:getattr", "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY"),
        ("connect:search_secrets", "secret:getattr", "CONNECT_LIST_ALL_SECRETS"),
        (
            "connect:search_nwfilter_bindings",
            "nwfilter_binding:getattr",
            "CONNECT_LIST_ALL_NWFILTER_BINDINGS",
        ),
        (
            "storage_pool:search_storage_vols",
            "storage_vol:getattr",
            "STORAGE_POOL_LIST_ALL_VOLUMES",
        ),
        ("network:search_ports", "network_port:getattr", "NETWORK_LIST_ALL_PORTS"),
    ],
)
def test_a_list_takes_what_each_of_its_items_would(searching, listed, name):
    """libvirt leaves out what the caller may not see, which cannot be done from here."""
    assert name not in allowed(searching)
    assert name in allowed(searching, listed)


def test_every_list_is_of_something():
    searching = {each for each in PERMISSIONS if ":search_" in each}
    assert len(searching) == 10
    for each in searching:
        assert allowed(
            each, *(each for each in PERMISSIONS if each.endswith(":getattr"))
        ) > allowed(*(each for each in PERMISSIONS if each.endswith(":getattr")))


def test_the_figures_of_all_guests_are_for_who_may_read_them():
    words = ("connect:search_domains", "domain:getattr")
    assert "CONNECT_GET_ALL_DOMAIN_STATS" not in allowed(*words)
    assert "CONNECT_GET_ALL_DOMAIN_STATS" in allowed(*words, "domain:read")


def test_reading_changes_nothing_and_gives_nothing_away():
    found = allowed("read")
    assert not {each for each in found if "_SET_" in each or "CREATE" in each or "OPEN_" in each}
    assert {"DOMAIN_GET_INFO", "CONNECT_LIST_ALL_DOMAINS", "SECRET_GET_XML_DESC"} <= found
    assert "SECRET_GET_VALUE" not in found
    assert {each.partition(":")[2].partition("_")[0] for each in READ} == {
        "getattr",
        "read",
        "search",
    }
    assert "domain:read_secure" not in READ


@pytest.mark.parametrize(
    "name",
    [
        "DOMAIN_CREATE",
        "DOMAIN_DESTROY",
        "DOMAIN_SHUTDOWN",
        "DOMAIN_SUSPEND",
        "DOMAIN_MANAGED_SAVE",
        "DOMAIN_OPEN_CONSOLE",
        "DOMAIN_SCREENSHOT",
        "STORAGE_POOL_REFRESH",
        "DOMAIN_GET_INFO",
    ],
)
def test_operators_may(name):
    assert name in allowed("operate")


@pytest.mark.parametrize(
    "name",
    [
        "DOMAIN_DEFINE_XML_FLAGS",
        "DOMAIN_CREATE_XML",
        "DOMAIN_UNDEFINE_FLAGS",
        "DOMAIN_ATTACH_DEVICE_FLAGS",
        "DOMAIN_RESTORE",
        "DOMAIN_MIGRATE_PERFORM3_PARAMS",
        "DOMAIN_CORE_DUMP",
        "DOMAIN_MEMORY_PEEK",
        "DOMAIN_SNAPSHOT_CREATE_XML",
        "NETWORK_DESTROY",
        "STORAGE_VOL_DELETE",
        "STORAGE_VOL_DOWNLOAD",
        "SECRET_GET_VALUE",
        "NODE_SUSPEND_FOR_DURATION",
        "NODE_DEVICE_DETACH_FLAGS",
        "DOMAIN_MONITOR_COMMAND",
    ],
)
def test_operators_may_not(name):
    assert name not in allowed("operate")


def test_all_of_operate_is_a_permission():
    assert OPERATE < PERMISSIONS


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("domain:strat", "no permission of libvirt's: did you mean domain:start?"),
        ("start", "no permission of libvirt's: did you mean domain:start?"),
        ("oprate", "no permission of libvirt's: did you mean operate?"),
        ("remote:domain_screensho", "no call of remote: did you mean remote:domain_screenshot?"),
        ("qemu:6", "expected the number of a call of qemu, and no event's"),
        ("remote:-1", "expected the number of a call of remote, and no event's"),
        ("remote:9999999999", "expected the number of a call of remote, and no event's"),
        (
            "interface:zz",
            "no permission of libvirt's: interface has delete, getattr, read, save, start, stop,"
            " write",
        ),
        (
            "qemu:zz",
            "no call of qemu: names are those of libvirt's procedures, such as"
            " qemu:domain_monitor_command",
        ),
        (
            "*",
            "no permission of libvirt's: expected OBJECT:PERMISSION such as domain:start,"
            " PROGRAM:CALL such as qemu:domain_monitor_command, read or operate",
        ),
    ],
)
def test_it_is_said_what_is_wrong_with_a_word(word, said):
    assert unfit(word) == said


@pytest.mark.parametrize("word", [*sorted(PERMISSIONS), "read", "operate", "qemu:*", "*:*"])
def test_these_words_are_fit(word):
    assert unfit(word) is None
    assert unfit(word.upper()) is None


@given(st.text(max_size=80))
def test_a_word_is_fit_exactly_if_it_can_be_taken_for_something(word):
    assert (unfit(word) is None) or allowance_of([word]) == allowance_of([])


@given(st.sets(st.sampled_from(sorted(PERMISSIONS))))
def test_a_call_is_allowed_exactly_if_all_is_that_it_needs(words):
    """By the definition, without the flags; what libvirt asks too little for and lists aside."""
    allowance, all_of_them = allowance_of(words), {*words, "connect:getattr"}
    for at, needed in enumerate(ALWAYS[Program.REMOTE]):
        key = REMOTE, at
        if at in {30, 58} or needed is None or any(":search_" in each for each in needed):
            continue
        missing = {
            each.permission
            for each in SOMETIMES[Program.REMOTE].get(at, ())
            if each.permission not in all_of_them
        }
        may = set(needed) <= all_of_them
        assert (key in allowance.plain) is (may and not missing)
        assert (key in allowance.conditional) is (may and bool(missing))


@pytest.mark.parametrize("words", [["read"], ["operate"], ["qemu:*"], ["*:*"]])
def test_there_is_nothing_to_remark_on(words):
    assert remarks(words) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["domain:start"],
            "domain:start without domain:getattr: no client can look up a domain by its name, so"
            " few can use it",
        ),
        (
            ["domain:save", "domain:getattr"],
            "domain:save allows nothing by itself: its calls need domain:write as well",
        ),
        (
            ["connect:search_domains", "domain:getattr"],
            "connect:search_domains without connect:read: a client that waits for events cannot"
            " stop that",
        ),
        (
            ["connect:search_secrets", "connect:read"],
            "connect:search_secrets allows nothing by itself: its calls need secret:getattr as"
            " well",
        ),
        ([], "nothing is allowed but to open a connection and to close it"),
    ],
)
def test_what_is_hardly_meant_is_remarked_on(words, said):
    assert remarks(words) == [said]


def test_who_runs_guests_keeps_what_they_did_where_libvirt_does_and_writes_over_no_file():
    plain = allowance_of(["operate"]).plain
    names = {NAMES[Program.REMOTE][number] for _, number in plain}
    assert {"DOMAIN_MANAGED_SAVE", "DOMAIN_MANAGED_SAVE_REMOVE"} <= names
    assert not {name for name in names if name.startswith(("DOMAIN_SAVE", "DOMAIN_CORE_DUMP"))} - {
        "DOMAIN_SAVE_IMAGE_GET_XML_DESC"
    }
