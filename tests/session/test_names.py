import pytest
import trio

from proxyd.auth.peercred import Denied
from proxyd.session.names import NameService


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
    monkeypatch.setattr("proxyd.session.names.names_of", service)
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


async def test_what_is_remembered_grows_old(asked, mock_clock):
    names = NameService()
    await names.names_of(1, 2)
    mock_clock.jump(59)
    await names.names_of(1, 2)
    assert len(asked.pairs) == 1

    mock_clock.jump(2)
    await names.names_of(1, 2)

    assert len(asked.pairs) == 2


async def test_a_denial_is_not_remembered(asked):
    names = NameService()
    asked.unknown.add(1)
    with pytest.raises(Denied, match="no user has the uid 1"):
        await names.names_of(1, 2)

    asked.unknown.clear()

    assert await names.names_of(1, 2) == ("user1", "group2")


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

    monkeypatch.setattr("proxyd.session.names.names_of", hanging)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(NameService().names_of, 1, 2)
        await entered.wait()
        nursery.cancel_scope.cancel()
    release.set()
