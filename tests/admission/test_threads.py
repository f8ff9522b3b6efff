import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.threads import SharedThreads


async def test_the_function_runs_in_a_thread_and_what_it_says_comes_back():
    threads = SharedThreads(2)
    assert await threads.run("a", threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await threads.run("a", lambda: 1 // 0)
    assert threads.busy == 0


async def test_who_has_a_thousand_things_to_do_delays_another_by_one_of_them(nursery):
    threads, order, gate = SharedThreads(1), [], threading.Event()

    async def work(key):
        await threads.run(key, lambda: (gate.wait(10), order.append(key)))

    for _ in range(20):
        nursery.start_soon(work, "many")
    await wait_all_tasks_blocked()
    nursery.start_soon(work, "one")
    await wait_all_tasks_blocked()

    gate.set()
    with trio.fail_after(10):
        while len(order) < 21:
            await trio.testing.wait_all_tasks_blocked(0.001)

    assert order.index("one") <= 2
    assert threads.busy == 0


async def test_who_gives_up_takes_no_thread(nursery):
    threads, gate, done = SharedThreads(1), threading.Event(), []

    async def work(key):
        await threads.run(key, lambda: (gate.wait(10), done.append(key)))

    nursery.start_soon(work, "first")
    await wait_all_tasks_blocked()
    with trio.move_on_after(0):
        await work("second")
    gate.set()
    with trio.fail_after(10):
        while threads.busy:
            await trio.testing.wait_all_tasks_blocked(0.001)

    assert done == ["first"]
