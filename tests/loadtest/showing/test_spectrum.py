"""What Latencies adds to the library's histogram, beside the samples themselves."""

import math

from hypothesis import given
from hypothesis import strategies as st

from loadtest.figures import Latencies

# Up to a millisecond, for the library looks at each bucket up to the highest sample.
SAMPLES = st.lists(st.integers(0, 1_000_000) | st.integers(1, 5000), min_size=1, max_size=200)


@given(SAMPLES)
def test_at_each_level_so_many_samples_are_at_most_its_value(samples):
    found = Latencies(samples).spectrum()
    for one in found:
        assert one.count == sum(sample <= one.value for sample in samples)
        assert 100 * one.count / len(samples) >= one.percent
    assert (found[0].percent, found[-1].percent) == (0, 100)
    assert found[-2].value == found[-1].value


@given(SAMPLES)
def test_the_mean_is_that_of_the_samples(samples):
    mean = sum(samples) / len(samples)
    assert math.isclose(Latencies(samples).mean, mean, rel_tol=1e-3)


def test_the_mean_is_the_librarys():
    latencies = Latencies(range(1, 5_000_000, 7919))
    assert math.isclose(latencies.mean, latencies._histogram.get_mean_value())


@given(SAMPLES)
def test_several_percentiles_at_once_are_the_same_as_one_by_one(samples):
    latencies = Latencies(samples)
    found = latencies.percentiles((99.9, 0.0, 50.0))
    assert found == {percent: latencies.percentile(percent) for percent in (0.0, 50.0, 99.9)}


@given(SAMPLES)
def test_the_lowest_is_right_after_an_empty_histogram_was_added(samples):
    latencies = Latencies()
    latencies.absorb(Latencies())
    latencies.record(samples)
    latencies.absorb(Latencies())
    assert min(samples) * 0.999 <= latencies.lowest <= min(samples)


def test_a_histogram_of_nothing_has_no_levels():
    nothing = Latencies()
    assert (nothing.spectrum(), nothing.percentiles((50.0,)), nothing.buckets()) == ([], {}, [])
    assert (nothing.mean, nothing.deviation, nothing.lowest) == (0, 0, 0)
