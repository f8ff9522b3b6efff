"""`limit` against fakes: its options, its document, what it says where nothing can be compiled."""

import json

import pytest

from loadtest.cli import main
from loadtest.failures import UsageError
from loadtest.figures import Round, TargetFigures
from loadtest.limit import build
from loadtest.limit.measure import Entrant, Order
from loadtest.limit.outcome import added, judge, parse_threshold
from loadtest.statuses import FAILED, MISSED, OK, USAGE
from loadtest.targets import parse_target

QUICK = ["--rounds", "2", "--calls", "20", "--row", "5", "--warmup", "5"]


@pytest.fixture
def limit(start_fake, capsys):
    """Runs it with fakes as the daemon and as a proxy; gives what it prints."""
    (_, direct), (_, proxy) = start_fake(), start_fake()

    def limit(*words, status=OK):
        assert main(["limit", f"direct={direct}", f"proxyd={proxy}", *QUICK, *words]) == status
        return capsys.readouterr()

    return limit


def test_it_prints_both_orders_and_nothing_else(limit):
    printed = limit()
    for said in ("limit CONNECT_GET_LIB_VERSION: 2 rounds of 20", "warm, µs", "cold, µs", "bare"):
        assert said in printed.out
    assert printed.err == ""


def test_json_has_every_figure_of_both_orders(limit):
    document = json.loads(limit("--json").out)
    assert document["scenario"] == "limit"
    direct, bare, proxyd = document["targets"]
    assert [each["name"] for each in (direct, bare, proxyd)] == ["direct", "bare", "proxyd"]
    assert (direct["beside"], bare["beside"], proxyd["beside"]) == (None, "bare", "bare")
    for order, samples_of_direct in (("warm", 40), ("cold", 80)):  # cold: before each relay's call
        assert direct[order]["samples"] == samples_of_direct
        assert (bare[order]["samples"], proxyd[order]["samples"]) == (40, 40)
        assert direct[order]["added_p50_ns"] is None
        assert len(bare[order]["added_p50_ns"]["per_round"]) == 2
        assert bare[order]["multiple"] is None
    assert bare["cpu_per_call_ns"]["pid"] > 0


def test_tls_is_measured_beside_a_bare_relay_with_tls(limit, start_tls_fake, pki):
    _, secure = start_tls_fake()
    own = ["--cacert", pki["ca.pem"], "--cert", pki["client.pem"], "--key", pki["client.key"]]
    document = json.loads(limit("--target", f"tls={secure}", *own, "--json").out)
    targets = {each["name"]: each for each in document["targets"]}
    assert list(targets) == ["direct", "bare", "bare-tls", "proxyd", "tls"]
    assert targets["tls"]["beside"] == "bare-tls"
    assert (
        targets["bare-tls"]["cipher"]
        == targets["tls"]["cipher"]
        == ("TLSv1.3 TLS_AES_256_GCM_SHA384")
    )
    assert document["notes"] == []


def test_what_it_keeps_is_shown_again_by_report(limit, capsys, tmp_path):
    kept = tmp_path / "kept.json"
    told = limit("--out", str(kept)).out
    assert main(["report", str(kept)]) == OK
    assert capsys.readouterr().out == told


def test_a_threshold_that_is_missed_is_status_99(start_fake, capsys):
    (_, direct), (_, slow) = start_fake(), start_fake(burn_s=0.002)
    missed = "proxyd:cold<0.000001"
    words = ["limit", f"direct={direct}", f"proxyd={slow}", *QUICK]
    assert main([*words, "--json", "--threshold", missed]) == MISSED
    document = json.loads(capsys.readouterr().out)
    (verdict,) = document["verdicts"]
    assert (verdict["text"], verdict["target"], verdict["met"]) == (missed, "proxyd", False)
    assert f"✗ {missed}" in document["text"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["unix:/a"], "which proxies?"),
        (["tcp:h:1", "unix:/a"], "the first target is the daemon itself, by a UNIX socket"),
        (["unix:/a", "tcp:h:1"], "bare relays are for unix: and tls: alone"),
        (["unix:/a", "bare=unix:/b"], "that is a bare relay's name"),
        (["unix:/a", "unix:/b", "--threshold", "p99<1ms"], "expected [TARGET:]warm<NUMBER"),
        (["unix:/a", "unix:/b", "--threshold", "x:warm<1"], "no proxy is called x"),
    ],
)
def test_a_senseless_command_line_is_status_2(capsys, words, complaint):
    assert main(["limit", *words]) == USAGE
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1


def test_without_a_compiler_it_says_what_to_install(limit, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    told = limit(status=USAGE).err
    assert "no C compiler, no-such-compiler: No such file or directory" in told
    assert "apt-get install gcc libc6-dev libssl-dev" in told
    assert told.count("\n") == 1


def test_without_the_headers_of_openssl_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "cc -DOPENSSL_SSL_H -include /nowhere/openssl/ssl.h")
    with pytest.raises(UsageError, match=r"cannot be compiled: .*openssl.*; apt-get install"):
        build.built(tmp_path, tls=True)


def test_the_relay_compiles_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "cc -Wall -Wextra -Werror")
    for tls in (False, True):
        assert build.built(tmp_path, tls=tls).exists()


def test_a_daemon_that_hangs_up_is_status_1_and_one_line(start_fake, capsys):
    (_, direct), (_, proxy) = start_fake(), start_fake(hang_up=True)
    assert main(["limit", f"a={direct}", f"b={proxy}", *QUICK]) == FAILED
    told = capsys.readouterr().err
    assert told.startswith("proxyd-loadtest: target b: ")
    assert told.count("\n") == 1


def entrant(name, address, *p50s_ns):
    """One whose warm calls took so long in each round."""
    made = Entrant(parse_target(f"{name}={address}"), None)
    for each in p50s_ns:
        one = Round()
        one.latencies.record([each] * 3)
        made.warm.rounds.append(one)
    return made


def test_a_multiple_is_of_what_is_added_and_not_of_the_whole():
    direct, bare = entrant("d", "unix:/d", 100, 100), entrant("bare", "unix:/b", 120, 140)
    proxyd = entrant("p", "unix:/p", 130, 150)
    found = added([direct, bare, proxyd], proxyd, Order.WARM)
    assert found.p50_ns.per_round == (30, 50)
    assert found.multiple.per_round == (1.5, 1.25)
    assert added([direct, bare, proxyd], bare, Order.WARM).multiple is None
    kept, equal, missed = map(parse_threshold, ("warm < 2", "p:warm<=1", "p:warm<1"))
    proxyd = entrant("p", "unix:/p", 120, 140)
    verdicts = judge([kept, equal, missed], [direct, bare, proxyd])
    assert [each.met for each in verdicts] == [True, True, False]


def test_where_the_bare_relay_adds_nothing_there_is_no_multiple_and_no_threshold_is_kept():
    direct, bare = entrant("d", "unix:/d", 100, 100), entrant("bare", "unix:/b", 120, 100)
    everybody = [direct, bare, entrant("p", "unix:/p", 130, 150)]
    assert added(everybody, everybody[2], Order.WARM).multiple is None
    (verdict,) = judge([parse_threshold("warm<9")], everybody)
    assert (verdict.target, verdict.value, verdict.met) == ("p", None, False)


def test_figures_of_an_entrant_are_apart_by_order():
    made = entrant("d", "unix:/d")
    assert made.figures(Order.WARM) is made.warm
    assert made.figures(Order.COLD) is made.cold
    assert isinstance(made.cold, TargetFigures)
