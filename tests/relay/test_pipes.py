import os
import resource
import subprocess
import sys

import pytest

from proxyd.relay.pipes import IDLE_LIMIT, PIPE_SIZE, PipePool
from tests.relay.session import open_descriptors


@pytest.fixture
def whole(no_descriptor_leaks):
    pool = PipePool()
    yield pool
    pool.close()


@pytest.fixture
def pool(whole):
    """As one of its owners sees it."""
    return whole.of("joe")


def test_a_pipe_carries_bytes_and_blocks_nobody(pool):
    pipe = pool.take()
    assert os.write(pipe.write, b"abc") == 3
    assert os.read(pipe.read, 10) == b"abc"
    with pytest.raises(BlockingIOError):
        os.read(pipe.read, 10)
    assert not os.get_inheritable(pipe.read)
    assert not os.get_inheritable(pipe.write)
    pool.give_back(pipe)


def test_a_pipe_knows_how_much_the_kernel_lets_it_hold(pool):
    pipe = pool.take()
    assert pipe.size == PIPE_SIZE  # root's pipes have no limit below this
    for _ in range(pipe.size // 65536):
        assert os.write(pipe.write, bytes(65536)) == 65536
    with pytest.raises(BlockingIOError):
        os.write(pipe.write, b"x")
    pool.throw_away(pipe)


def test_a_pipe_given_back_is_taken_again_and_no_other_is_made(pool):
    pipe = pool.take()
    pool.give_back(pipe)
    before = open_descriptors()
    assert pool.take() is pipe
    assert open_descriptors() == before
    pool.give_back(pipe)


def test_no_two_takers_get_the_same_pipe(pool):
    pipes = [pool.take() for _ in range(2 * IDLE_LIMIT)]
    assert len({end for pipe in pipes for end in (pipe.read, pipe.write)}) == 4 * IDLE_LIMIT
    for pipe in pipes:
        pool.throw_away(pipe)


def test_of_many_pipes_given_back_only_a_few_are_kept(pool):
    before = open_descriptors()
    for pipe in [pool.take() for _ in range(3 * IDLE_LIMIT)]:
        pool.give_back(pipe)
    assert open_descriptors() == before + 2 * IDLE_LIMIT


def test_a_closed_pool_holds_no_descriptor(whole, pool):
    before = open_descriptors()
    for pipe in [pool.take() for _ in range(3)]:
        pool.give_back(pipe)
    whole.close()
    whole.close()
    assert open_descriptors() == before


def test_without_descriptors_left_there_is_no_pipe_and_later_one_again(pool):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    try:
        for limit in (0, os.open("/dev/null", os.O_RDONLY)):  # none left, and one of two
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            assert pool.take() is None
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if limit:
                os.close(limit)
            assert open_descriptors() == before + (0 if limit else 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    pipe = pool.take()
    assert pipe is not None
    pool.give_back(pipe)


def taken(share):
    pipes = []
    while (pipe := share.take()) is not None:
        pipes.append(pipe)
    return pipes


def test_nobody_takes_so_many_that_none_is_left_for_somebody_else():
    pool = PipePool(16)
    before = open_descriptors()
    held = {each: taken(pool.of(each)) for each in ("joe", "ann", "eve", "bob", "sue")}
    assert [len(each) for each in held.values()] == [8, 4, 2, 1, 1]
    assert open_descriptors() == before + 2 * 16
    for pipe in held.pop("joe"):
        pool.of("joe").give_back(pipe)
    held["mia"] = taken(pool.of("mia"))
    assert len(held["mia"]) == 4
    for each, pipes in held.items():
        for pipe in pipes:
            pool.of(each).throw_away(pipe)
    pool.close()


def test_a_pool_of_none_gives_none():
    assert PipePool(0).of("joe").take() is None


UNPRIVILEGED = """
import fcntl, os
os.setuid(65534)
from proxyd.relay.pipes import PipePool
pool = PipePool(10_000).of("joe")
pipes = [pool.take() for _ in range(400)]
had = [pipe for pipe in pipes if pipe is not None]
assert had and len(had) < len(pipes), "the limit was never met"
for pipe in had:
    assert pipe.size == fcntl.fcntl(pipe.read, fcntl.F_GETPIPE_SZ) >= 65536
"""


@pytest.mark.system  # becomes somebody who has a limit
def test_beyond_the_users_share_there_is_no_pipe_worth_having():
    subprocess.run([sys.executable, "-c", UNPRIVILEGED], check=True, timeout=10)
