"""What each call of proxyd's own program does to a daemon."""

import json

import pytest

from proxyd.admin.procedures import answer
from proxyd.admin.view import CallRefused
from proxyd.wire import proxyd_program
from proxyd.wire.programs import Own
from proxyd.wire.proxyd_program import LONGEST_PAGE, AskDrain, AskPage, AskRules, AskStatus
from tests.fakes.admin import FakeView
from tests.fakes.documents import STATUS


@pytest.fixture
def host():
    return FakeView()


async def refused(host, procedure, payload):
    with pytest.raises(CallRefused) as refusal:
        await answer(host, procedure, payload)
    return refusal.value.failure


async def paged(host, most=LONGEST_PAGE):
    """The numbers of all clients, page by page, as a client of the program asks for them."""
    pages, after = [], 0
    while True:
        said = await answer(host, Own.LIST_CLIENTS, AskPage(after, most).pack())
        page = [each["id"] for each in json.loads(proxyd_program.unpack_text(said))]
        if not page:
            return pages
        pages.append(page)
        after = page[-1]


@pytest.mark.parametrize(
    ("flags", "asks"), [(0, False), (1, True), (2, "busy"), (4, False), (0xFFFF, True)]
)
async def test_the_status_is_told_as_json_and_daemons_are_asked_if_the_flag_says_so(
    host, flags, asks
):
    host.state = {"version": "1", "configuration": "\udcff\x1b"}
    said = await answer(host, Own.STATUS, AskStatus(flags).pack())
    assert json.loads(proxyd_program.unpack_text(said)) == STATUS | host.state
    assert host.told == [("status", asks)]


@pytest.mark.parametrize("count", [0, 1, LONGEST_PAGE - 1, LONGEST_PAGE, LONGEST_PAGE + 1, 2000])
async def test_clients_are_told_page_by_page_and_each_once(host, count):
    numbers = [3 * number + 1 for number in range(count)]
    host.listed = [{"id": number} for number in numbers]
    pages = await paged(host)
    assert [number for page in pages for number in page] == numbers
    assert len(pages) == -(-count // LONGEST_PAGE)


@pytest.mark.parametrize(
    ("most", "got"),
    [(0, 0), (1, 1), (LONGEST_PAGE + 1, LONGEST_PAGE), (2**32 - 1, LONGEST_PAGE)],
)
async def test_no_page_is_longer_than_the_longest(host, most, got):
    host.listed = [{"id": number} for number in range(1, LONGEST_PAGE + 9)]
    said = await answer(host, Own.LIST_CLIENTS, AskPage(0, most).pack())
    assert len(json.loads(proxyd_program.unpack_text(said))) == got


async def test_a_client_is_closed(host):
    host.listed = [{"id": 17}]
    assert await answer(host, Own.CLOSE_CLIENT, proxyd_program.pack_number(17)) == b""
    assert host.told == [("close", 17)]


async def test_a_client_that_is_not_there_cannot_be_closed(host):
    said = await refused(host, Own.CLOSE_CLIENT, proxyd_program.pack_number(2**64 - 1))
    assert "there is no client 18446744073709551615" in said.message
    assert host.told == []


async def test_a_reload_tells_what_was_done(host):
    assert await answer(host, Own.RELOAD, b"") == proxyd_program.pack_text(
        "configuration reloaded from /etc/libvirt/virtproxyd.conf"
    )
    assert host.told == ["reload"]


async def test_a_reload_that_changed_nothing_is_refused_with_the_reason(host):
    host.reload_fails = "x.conf:1:2: expected something"
    said = await refused(host, Own.RELOAD, b"")
    assert said.message == f"nothing was changed: {host.reload_fails}"


@pytest.mark.parametrize(("flags", "on"), [(0, True), (1, False)])
async def test_it_is_drained_or_lets_in_again(host, flags, on):
    said = await answer(host, Own.DRAIN, AskDrain(flags).pack())
    found = json.loads(proxyd_program.unpack_text(said))
    assert (found["changed"], "drain" in found) == (True, on)
    assert host.told == [("drain", on)]


@pytest.mark.parametrize("flags", [2, 3, 1 << 31])
async def test_a_drain_of_a_kind_that_is_not_known_changes_nothing(host, flags):
    said = await refused(host, Own.DRAIN, AskDrain(flags).pack())
    assert said.message.startswith("unsupported flags")
    assert host.told == []


@pytest.mark.parametrize(("flags", "now"), [(0, False), (1, True)])
async def test_open_sessions_are_held_to_the_rules_if_the_flag_says_so(host, flags, now):
    said = await answer(host, Own.RULES, AskRules(flags).pack())
    found = json.loads(proxyd_program.unpack_text(said))
    assert (found["rules"], found["done"]) == (2, now)
    assert host.told == [("rules", now)]


@pytest.mark.parametrize("flags", [2, 3, 1 << 31])
async def test_what_else_might_be_done_with_rules_is_not(host, flags):
    said = await refused(host, Own.RULES, AskRules(flags).pack())
    assert said.message.startswith("unsupported flags")
    assert host.told == []


@pytest.mark.parametrize("procedure", Own)
async def test_arguments_that_do_not_decode_are_refused_and_nothing_is_done(host, procedure):
    said = await refused(host, procedure, b"\0")
    assert (said.code, said.domain) == (39, 7)
    assert host.told == []
