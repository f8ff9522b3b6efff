import errno
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.peer.credentials import Denied
from proxyd.peer.names import NameService


class Asked:
    """The system's name service, with other answers; `pairs` is what it was asked for."""

    def __init__(self):
        self.pairs = []
        self.unknown = set()

    def __call__(self, uid, gid):
        self.pairs.append((uid, gid))
        if uid in self.unknown:
            raise Denied(f"no user has the uid {uid}")
        return f"user{uid}", f"group{gid}"


@pytest.fixture
def asked(monkeypatch):
    service = Asked()
    monkeypatch.setattr("proxyd.peer.names.names_of", service)
    return service


async def test_roots_names_are_those_of_the_system():
    assert await NameService().names_of(0, 0) == ("root", "root")


async def test_a_user_is_asked_for_once(asked):
    names = NameService()

    answers = [await names.names_of(1, 2) for _ in range(3)]

    assert answers == [("user1", "group2")] * 3
    assert asked.pairs == [(1, 2)]


async def test_the_same_user_in_another_group_is_asked_for_anew(asked):
    names = NameService()
    assert await names.names_of(1, 2) == ("user1", "group2")
    assert await names.names_of(1, 3) == ("user1", "group3")
    assert asked.pairs == [(1, 2), (1, 3)]


async def test_a_flood_of_unknown_uids_delays_nobody_who_has_been_named_before(
    asked, autojump_clock, monkeypatch
):
    names = NameService()
    await names.names_of(1, 2)
    await trio.sleep(61)
    run_sync, hang = trio.to_thread.run_sync, trio.Event()

    async def slow_for_unknown(function, uid, gid, *, limiter, **options):
        if uid < 1000:
            return await run_sync(function, uid, gid, limiter=limiter, **options)
        async with limiter:
            await hang.wait()
        raise AssertionError("it hangs for ever")

    monkeypatch.setattr(trio.to_thread, "run_sync", slow_for_unknown)
    async with trio.open_nursery() as nursery:
        for uid in range(100_000, 100_100):
            nursery.start_soon(names.names_of, uid, uid)
        await trio.testing.wait_all_tasks_blocked()
        assert await names.names_of(1, 2) == ("user1", "group2")
        assert await names.names_of(0, 0) == ("user0", "group0")
        nursery.cancel_scope.cancel()


async def test_what_is_remembered_grows_old(asked, mock_clock):
    names = NameService()
    await names.names_of(1, 2)
    mock_clock.jump(59)
    await names.names_of(1, 2)
    assert len(asked.pairs) == 1

    mock_clock.jump(2)
    await names.names_of(1, 2)

    assert len(asked.pairs) == 2


async def test_a_silent_name_service_keeps_nobody_waiting_who_was_named_before(
    asked, autojump_clock, monkeypatch
):
    names = NameService()
    await names.names_of(1, 2)
    tried, comes_back = [], trio.Event()

    async def silent(function, uid, gid, *, limiter, **options):
        tried.append(uid)
        async with limiter:
            await comes_back.wait()
        return f"renamed{uid}", f"group{gid}"

    monkeypatch.setattr(trio.to_thread, "run_sync", silent)
    for _ in range(20):
        await trio.sleep(61)
        began = trio.current_time()
        for _ in range(100):
            assert await names.names_of(1, 2) == ("user1", "group2")
        assert trio.current_time() - began < 0.5
    assert len(tried) == 20

    comes_back.set()
    await trio.sleep(6)

    assert await names.names_of(1, 2) == ("renamed1", "group2")


async def test_who_has_no_name_is_asked_about_once_in_a_while(asked, mock_clock):
    names = NameService()
    asked.unknown.add(1)
    for _ in range(10):
        with pytest.raises(Denied, match="no user has the uid 1"):
            await names.names_of(1, 2)
    assert asked.pairs == [(1, 2)]

    asked.unknown.clear()
    mock_clock.jump(6)

    assert await names.names_of(1, 2) == ("user1", "group2")


async def test_that_it_could_not_be_asked_is_not_remembered(asked, monkeypatch):
    names = NameService()

    def out_of_descriptors(uid, gid):
        raise Denied("cannot ask", errno.EMFILE)

    with monkeypatch.context() as patched:
        patched.setattr("proxyd.peer.names.names_of", out_of_descriptors)
        with pytest.raises(Denied, match="cannot ask"):
            await names.names_of(1, 2)

    assert await names.names_of(1, 2) == ("user1", "group2")


async def test_many_without_a_name_take_no_memory_from_those_who_have_one(asked):
    names = NameService()
    await names.names_of(0, 0)
    asked.unknown.update(range(1, 3000))
    for uid in range(1, 3000):
        with pytest.raises(Denied):
            await names.names_of(uid, 0)

    assert await names.names_of(0, 0) == ("user0", "group0")
    assert asked.pairs.count((0, 0)) == 1


@pytest.mark.parametrize("unknown", [False, True])
async def test_of_many_who_ask_for_the_same_one_takes_a_thread(asked, monkeypatch, unknown):
    names, said = NameService(), []
    goes_on = threading.Event()
    asked.unknown = {1} if unknown else set()

    def slow(uid, gid):
        assert uid == 2 or goes_on.wait(10)
        return asked(uid, gid)

    monkeypatch.setattr("proxyd.peer.names.names_of", slow)

    async def ask():
        try:
            said.append(await names.names_of(1, 2))
        except Denied as error:
            said.append(str(error))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert await names.names_of(2, 2) == ("user2", "group2")  # for whom there are threads left
        goes_on.set()

    assert asked.pairs.count((1, 2)) == 1
    assert said == ["no user has the uid 1" if unknown else ("user1", "group2")] * 100


async def test_who_waits_for_anothers_question_asks_himself_when_that_is_given_up(
    asked, monkeypatch
):
    names, said = NameService(), []
    gives_up = trio.CancelScope()
    began, goes_on = threading.Event(), threading.Event()

    def hanging_at_first(uid, gid):
        if not asked.pairs:
            asked.pairs.append("given up")
            began.set()
            assert goes_on.wait(10)
        return asked(uid, gid)

    monkeypatch.setattr("proxyd.peer.names.names_of", hanging_at_first)

    async def first():
        with gives_up:
            await names.names_of(1, 2)

    async def second():
        said.append(await names.names_of(1, 2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        assert await trio.to_thread.run_sync(began.wait, 10)
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        gives_up.cancel()
    goes_on.set()

    assert said == [("user1", "group2")]


async def test_more_users_than_are_remembered_get_their_own_names(asked):
    names = NameService()
    for uid in range(1030):
        assert await names.names_of(uid, 0) == (f"user{uid}", "group0")
    assert await names.names_of(0, 0) == ("user0", "group0")
    assert len(asked.pairs) == 1031


async def test_a_look_up_does_not_hold_up_the_loop_and_can_be_given_up(asked, monkeypatch):
    release, entered = trio.Event(), trio.Event()

    def hanging(uid, gid):
        trio.from_thread.run_sync(entered.set)
        trio.from_thread.run(release.wait)

    monkeypatch.setattr("proxyd.peer.names.names_of", hanging)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(NameService().names_of, 1, 2)
        await entered.wait()
        nursery.cancel_scope.cancel()
    release.set()


class Groups:
    """The system's groups, with other names; `asked` is which were looked up."""

    def __init__(self):
        self.asked = []

    def __call__(self, gids):
        self.asked += gids
        return frozenset(f"group{gid}" for gid in gids if gid != WITHOUT_NAME)


WITHOUT_NAME = 4


@pytest.fixture
def groups(monkeypatch):
    service = Groups()
    monkeypatch.setattr("proxyd.peer.names.group_names_of", service)
    return service


async def test_roots_group_is_that_of_the_system():
    assert await NameService().group_names_of([0]) == {"root"}


async def test_each_group_is_asked_for_once_and_one_without_a_name_has_none(groups):
    names = NameService()
    assert await names.group_names_of([2, 3, WITHOUT_NAME, 2]) == {"group2", "group3"}
    assert await names.group_names_of([3, 5]) == {"group3", "group5"}
    assert groups.asked == [2, 3, WITHOUT_NAME, 5]


async def test_a_group_that_was_renamed_is_seen_after_a_minute(groups, mock_clock):
    names = NameService()
    await names.group_names_of([2])
    mock_clock.jump(61)
    await names.group_names_of([2])
    assert groups.asked == [2, 2]


async def test_of_a_process_in_more_groups_than_anybody_none_is_asked_for(groups):
    with pytest.raises(Denied, match="it is in 1025 groups, 1024 are looked up"):
        await NameService().group_names_of(range(1025))
    assert groups.asked == []


async def test_groups_that_were_named_before_wait_for_no_name_service_that_hangs(
    groups, autojump_clock, monkeypatch
):
    names = NameService()
    await names.group_names_of([2, 3])
    await trio.sleep(61)
    run_sync, hung = trio.to_thread.run_sync, []

    async def hang(*asked, **_):
        hung.append(asked)
        await trio.sleep_forever()

    monkeypatch.setattr(trio.to_thread, "run_sync", hang)
    began = trio.current_time()
    for _ in range(10):
        assert await names.group_names_of([2, 3]) == {"group2", "group3"}
    assert trio.current_time() - began < 0.5
    assert len(hung) == 1
    with trio.move_on_after(20) as waiting:  # of one of whom nothing is known
        await names.group_names_of([2, 5])
    assert waiting.cancelled_caught
    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    assert await names.group_names_of([2, 5]) == {"group2", "group5"}
