import pytest

from proxyd.admission.capacity import Capacity, largest_within


@pytest.mark.parametrize("most", [1, 2, 3, 20, 100, 5000, 100_000])
def test_beyond_max_clients_there_is_always_something_for_those_who_are_kept_out_else(most):
    capacity = Capacity.of(most)
    assert capacity.spare >= 2
    assert capacity.reserved >= 2
    assert 1 <= capacity.few < capacity.spare
    assert 0 < capacity.handshakes <= most


def test_nobody_is_let_in_where_max_clients_is_zero():
    assert Capacity.of(0).places == 0


def test_what_strangers_hold_is_bounded_however_many_clients_there_may_be():
    capacity = Capacity.of(1_000_000)
    assert capacity.handshakes == 256
    assert capacity.callers == 4096
    assert Capacity.of(5000, by_network=False).callers == 0


@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("descriptors", [1, 20, 40, 100, 1000, 8000, 500_000])
def test_the_largest_that_fits_is_the_largest_that_fits(descriptors, by_network):
    most = largest_within(descriptors, by_network=by_network)
    held = Capacity.of(most, by_network=by_network).descriptors
    assert held <= descriptors or most == 1
    assert Capacity.of(most + 1, by_network=by_network).descriptors > descriptors
