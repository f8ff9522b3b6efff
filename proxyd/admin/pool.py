"""What virt-admin's thread-pool figures mean here.

A worker of libvirt's carries out one call at a time, so how many there are is a limit that an
administrator has to choose. Here no thread waits for a call: there are relay threads, one for plain
sessions and some for encrypted ones, and each moves the bytes of all that it was given. The admin
socket is answered by the control plane's own thread.

    minWorkers, maxWorkers, nWorkers    the threads that serve these clients
    freeWorkers                         those of them that have no client at this moment
    prioWorkers, jobQueueDepth          0: no call waits for a thread

So there is nothing to choose: a change is accepted if it asks for what is there already.
"""

from proxyd.admin.view import CallRefused, Pool, PoolBounds
from proxyd.wire import failure


def fixed_pool(threads: int, *, free: int = 0) -> Pool:
    """The figures of so many threads, which live as long as the daemon does."""
    return Pool(
        min_workers=threads,
        max_workers=threads,
        workers=threads,
        free_workers=free,
        prio_workers=0,
        queued=0,
    )


def check_unchanged(pool: Pool, bounds: PoolBounds) -> None:
    """Raises CallRefused, with what is possible, unless the bounds are those of this fixed pool."""
    if bounds != PoolBounds(
        min_workers=pool.min_workers, max_workers=pool.max_workers, prio_workers=pool.prio_workers
    ):
        raise CallRefused(
            failure.cannot_be_changed(
                "no call of a client ever waits for a thread of proxyd, so their number is fixed:"
                f" minWorkers and maxWorkers are {pool.max_workers},"
                f" prioWorkers is {pool.prio_workers}"
            )
        )
