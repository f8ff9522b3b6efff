import pytest

from loadtest.failures import UsageError
from loadtest.figures import Latencies
from loadtest.results import TargetResult
from loadtest.thresholds import judge, parse_threshold

# 1 to 100 ms, of which one is an error reply; and three calls that got none.
CALLS = [number * 1_000_000 for number in range(1, 101)]


@pytest.fixture
def target():
    return TargetResult(
        name="proxyd",
        address="unix:/p",
        uri="test:///default",
        elapsed_s=2.0,
        calls=Latencies(CALLS),
        connects=Latencies([5_000_000]),
        errors={"error 38": 1, "reset": 2, "unsent": 1},
    )


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("p50<51ms", True),
        ("p50<49ms", False),
        ("p90 < 0.0905s", True),
        ("p99<98500us", False),
        ("p99.9<101ms", True),
        ("max<=99ms", False),
        ("mean<51ms", True),
        ("mean>51ms", False),
        ("connect_p99<6ms", True),
        ("connect_max<4ms", False),
        ("connect_mean>=1ns", True),
        ("rate>49", True),
        ("rate>51/s", False),
        ("errors<5", True),
        ("errors<4", False),
        ("errors<4%", True),  # four of 103
        ("errors<3.8%", False),
        ("proxyd:p50<51ms", True),
    ],
)
def test_a_threshold_is_met_or_missed(target, text, met):
    (verdict,) = judge([parse_threshold(text)], [target])
    assert (verdict.text, verdict.target, verdict.met) == (text, "proxyd", met)


def test_times_are_in_nanoseconds_and_percents_are_shares(target):
    texts = ["p50<1ms", "errors<1%", "rate>1", "errors<1"]
    values = [one.value for one in judge(map(parse_threshold, texts), [target])]
    assert values == [pytest.approx(50_000_000, rel=0.001), 4 / 103, 50, 4]


def test_what_was_never_measured_is_not_kept_to():
    silent = TargetResult(name="a", address="unix:/p", uri="x")
    verdicts = judge(map(parse_threshold, ["p99<1s", "errors<1%", "rate>0"]), [silent])
    assert [(one.value, one.met) for one in verdicts] == [(None, False)] * 3


def test_one_without_a_name_is_for_every_target(target):
    other = TargetResult(name="direct", address="unix:/q", uri="x")
    thresholds = [parse_threshold("max<1s"), parse_threshold("direct:errors<1")]
    told = [(one.text, one.target) for one in judge(thresholds, [other, target])]
    assert told == [("max<1s", "direct"), ("max<1s", "proxyd"), ("direct:errors<1", "direct")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("p99", "expected [TARGET:]FIGURE<LIMIT, as in 'p99<2ms'"),
        ("p99=2ms", "expected [TARGET:]FIGURE<LIMIT"),
        ("speed<2", "'speed' is no figure"),
        ("p101<2ms", "p101 is no percentile"),
        ("p9.9.9<2ms", "p9.9.9 is no percentile"),
        ("p99<2", "'' is no unit of p99; known are 'ns', 'us', 'µs', 'ms', 's'"),
        ("errors<1ms", "'ms' is no unit of errors"),
    ],
)
def test_what_is_no_threshold_is_refused_with_what_was_expected(text, complaint):
    with pytest.raises(UsageError) as refused:
        parse_threshold(text)
    assert complaint in str(refused.value)
