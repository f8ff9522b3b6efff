import pytest

from proxyd.admin.parameters import pool_params
from proxyd.admin.pool import check_unchanged, fixed_pool
from proxyd.admin.view import CallRefused, PoolBounds

TWO = fixed_pool(2, free=1)


def test_a_fixed_pool_shows_its_threads_and_no_queue():
    assert [param.value for param in pool_params(TWO)] == [2, 2, 2, 1, 0, 0]


def test_asking_for_what_is_there_is_accepted():
    check_unchanged(TWO, PoolBounds(min_workers=2, max_workers=2, prio_workers=0))


@pytest.mark.parametrize("bounds", [(1, 2, 0), (2, 3, 0), (2, 2, 1)])
def test_asking_for_anything_else_is_refused_with_what_is_possible(bounds):
    minimum, maximum, prio = bounds
    with pytest.raises(
        CallRefused, match="minWorkers and maxWorkers are 2, prioWorkers is 0"
    ) as no:
        check_unchanged(
            TWO, PoolBounds(min_workers=minimum, max_workers=maximum, prio_workers=prio)
        )
    assert (no.value.failure.code, no.value.failure.domain) == (84, 62)
