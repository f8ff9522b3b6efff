import pytest

from loadtest.client import Opening
from loadtest.credentials import Credentials
from loadtest.failures import UsageError
from loadtest.options import parse_plan
from loadtest.scenarios import bulk, compare, sessions
from proxyd.wire.programs import Remote

A = ["compare", "--target", "a=unix:/p"]
TLS = ["compare", "--target", "a=tls:h:16514"]
GSSAPI = ["compare", "--target", "a=gssapi:h:16509"]
VOLUME = ["--volume", "/v"]


def plan(*words):
    return parse_plan(list(words))[0]


def test_calls_are_what_is_measured_unless_told_otherwise():
    made = plan(*A)
    assert isinstance(made, compare.Plan)
    assert made.procedure == Remote.CONNECT_GET_LIB_VERSION
    assert made.opening == Opening("test:///default", readonly=False, wait_s=10)
    assert (made.connections, made.calls, made.slices, made.slice_s) == (1, 2000, 20, 0.1)


def test_sessions_have_amounts_of_their_own():
    made = plan(*A, "--sessions", "-c", "16", "--rounds", "5", "--slice", "1", "--readonly")
    assert isinstance(made, sessions.Plan)
    assert (made.connections, made.rounds, made.slices, made.slice_s) == (16, 5, 5, 1)
    assert made.opening.readonly


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10KiB", 10240), ("256MiB", 256 << 20), ("1GiB", 1 << 30)],
)
def test_bulk_takes_a_size_with_its_unit(text, size):
    made = plan(*A, "--bulk", text, *VOLUME)
    assert isinstance(made, bulk.Plan)
    assert (made.size, made.volume, made.upload) == (size, "/v", False)
    assert made.opening.uri == "qemu:///system"


def test_bulk_goes_the_other_way_when_told():
    assert plan(*A, "--bulk", "1", *VOLUME, "--upload", "--uri", "x:///").upload


def test_tls_targets_share_their_files(pki):
    files = [pki["ca.pem"], pki["client.pem"], pki["client.key"]]
    words = [
        word for pair in zip(("--cacert", "--cert", "--key"), files, strict=True) for word in pair
    ]
    assert plan(*TLS, *words).opening.credentials == Credentials(*files)
    assert not plan(*TLS, *words, "--no-host-check").opening.credentials.host_check


def test_json_is_for_whoever_wants_it():
    assert [parse_plan([*A, *more])[1] for more in ([], ["--json"])] == [False, True]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([*A, "--sessions", "--bulk", "1MiB"], "not allowed with argument"),
        ([*A, "--bulk", "1MB"], "'1MB' is no size; give bytes, or KiB, MiB or GiB of them"),
        ([*A, "--bulk", "0"], "'0' is no size"),
        ([*A, "--bulk", "1"], "--bulk needs --volume PATH"),
        ([*A, "--bulk", "1", *VOLUME, "-c", "2"], "-c means nothing for --bulk; leave it out"),
        ([*A, "--bulk", "1", *VOLUME, "--slice", "2"], "--slice means nothing for --bulk"),
        ([*A, "--bulk", "1", *VOLUME, "--readonly"], "--readonly means nothing for --bulk"),
        ([*A, "--sessions", "--calls", "2"], "--calls means nothing for --sessions"),
        ([*A, "--sessions", "--procedure", "X"], "--procedure means nothing for --sessions"),
        ([*A, "--upload"], "--upload means nothing for calls"),
        ([*A, *VOLUME], "--volume means nothing for calls"),
        ([*A, "--cert", "f"], "--cert is for tls: targets, and there is none"),
        ([*A, "--no-host-check"], "--no-host-check is for tls: targets"),
        ([*A, "--ticket-cache", "f"], "--ticket-cache is for gssapi: targets, and there is none"),
        ([*A, "--service", "s"], "--service is for gssapi: targets, and there is none"),
        ([*A, "--service", "libvirt/host"], "'libvirt/host' is no service; give a name without"),
        ([*GSSAPI, "--ticket-cache", "/nowhere"], "--ticket-cache /nowhere: "),
        (TLS, "tls: targets need --cacert FILE"),
        ([*TLS, "--cacert", "/nowhere"], "cannot read the file of --cacert, /nowhere"),
        ([*TLS, "--cacert", "f", "--cert", "g"], "--cert and --key belong together"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_expected(words, complaint):
    with pytest.raises(UsageError) as refused:
        plan(*words)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
