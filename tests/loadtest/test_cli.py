import json
import subprocess
import sys
import tomllib

import pytest

from loadtest.cli import main
from loadtest.extras import REQUIREMENTS
from loadtest.scenarios import compare
from loadtest.statuses import FAILED, INTERRUPTED, OK, USAGE
from tests.loadtest.conftest import ROOT

QUICK = ["--rounds", "2", "--calls", "20", "--warmup", "5", "--slices", "2", "--slice", "0.02"]


def targets(*texts):
    return [word for text in texts for word in ("--target", text)]


@pytest.mark.parametrize("connections", ["1", "3"])
def test_a_run_prints_a_table_and_nothing_else(start_fake, capsys, connections):
    _, address = start_fake()
    both = targets(f"a={address}", f"b={address}")
    assert main(["compare", *both, *QUICK, "-c", connections]) == OK
    printed = capsys.readouterr()
    assert "beside a" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("connections", ["1", "3"])
def test_json_is_one_document(start_fake, capsys, connections):
    _, address = start_fake()
    asked = ["compare", *targets(f"a={address}"), *QUICK, "--json", "-c", connections]
    assert main(asked) == OK
    document = json.loads(capsys.readouterr().out)
    assert [target["name"] for target in document["targets"]] == ["a"]
    assert document["plan"]["connections"] == int(connections)
    assert len(document["targets"][0]["rounds"]) == 2


def test_readonly_and_the_uri_reach_the_server(start_fake):
    script, address = start_fake()
    main(["compare", *targets(f"a={address}"), *QUICK, "--readonly", "--uri", "qemu:///system"])
    assert {(opened.name, opened.flags) for opened in script.opened} == {("qemu:///system", 1)}


@pytest.mark.parametrize("connections", ["1", "3"])
def test_a_target_that_is_not_there_is_status_1_and_one_line(socket_paths, capsys, connections):
    path = next(socket_paths)
    assert main(["compare", *targets(f"a=unix:{path}"), "-c", connections]) == FAILED
    told = capsys.readouterr().err
    assert told == (
        f"proxyd-loadtest: target a: cannot connect to {path}: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "SCENARIO"),
        (["compare"], "which targets? Type their addresses, as in: /run/libvirt/virtqemud-sock"),
        (["compare", "udp:x:1"], "the kinds are: gssapi, scram+tls, tcp, tls, unix"),
        (["compare", "qemu+ssh://h/system"], "ssh is not measured; there are unix, tcp and tls"),
        (["run", "libvirt-sock", "-R", "1"], "'libvirt-sock' is no target; type a socket's path"),
        (["compare", "--target", "a=udp:x"], "the kinds are: gssapi, scram+tls, tcp, tls, unix"),
        (["compare", "--target", "a=unix:/p", "--calls", "0"], "no whole number above 0"),
        (["compare", "--target", "a=unix:/p", "--slice", "nan"], "no number of seconds"),
        (["compare", "--target", "a=unix:/p", "--procedure", "CONNECT_GET_HOST"], "nearest are"),
    ],
)
def test_a_senseless_command_line_is_status_2(capsys, arguments, complaint):
    assert main(arguments) == USAGE
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1


def test_help_is_no_failure(capsys):
    assert main(["compare", "--help"]) == OK
    assert "--target" in capsys.readouterr().out


def test_an_interruption_is_told_apart(monkeypatch):
    def interrupted(plan, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "run", interrupted)
    assert main(["compare", "--target", "a=unix:/p"]) == INTERRUPTED


def test_it_runs_as_a_module(start_fake):
    _, address = start_fake()
    command = [sys.executable, "-m", "loadtest", "compare", *targets(f"a={address}"), *QUICK]
    command += ["-c", "2", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (OK, "")
    assert json.loads(done.stdout)["machine"]["command"].startswith("proxyd-loadtest compare")


@pytest.mark.parametrize("how", [[], ["-c", "3"], ["--sessions"], ["--bulk", "1MiB"]])
def test_tls_beside_a_plain_socket(start_fake, start_tls_fake, capsys, pki, how):
    (_, address), (_, secure) = start_fake(), start_tls_fake()
    asked = ["compare", *targets(f"a={address}", f"b={secure}"), "--rounds", "1", *how]
    asked += ["--cacert", pki["ca.pem"], "--cert", pki["client.pem"], "--key", pki["client.key"]]
    asked += {
        "--sessions": ["--slices", "1", "--slice", "0.02"],
        "--bulk": ["--volume", "/pool/volume"],
        "-c": ["--slices", "1", "--slice", "0.02"],
    }.get(how[0] if how else "", ["--calls", "20"])
    assert main(asked) == OK
    printed = capsys.readouterr()
    assert "beside a" in printed.out
    assert "b: TLSv1.3 TLS_AES_256_GCM_SHA384" in printed.out
    assert printed.err == ""


def test_what_compare_keeps_is_shown_again_by_report(start_fake, capsys, tmp_path):
    _, address = start_fake()
    kept = tmp_path / "kept.json"
    assert main(["compare", *targets(f"a={address}"), *QUICK, "--out", str(kept)]) == OK
    told = capsys.readouterr().out
    assert main(["report", str(kept)]) == OK
    assert capsys.readouterr().out == told
    assert main(["report", str(kept), "--format", "json"]) == OK
    assert json.loads(capsys.readouterr().out) == json.loads(kept.read_text())
    assert main(["report", str(kept), "-o", str(tmp_path / "page.html")]) == USAGE
    assert "text or as json" in capsys.readouterr().err


def test_where_nothing_can_be_kept_nothing_is_measured(capsys, tmp_path):
    asked = ["compare", *targets("a=unix:/nowhere"), "--out", str(tmp_path / "no" / "kept.json")]
    assert main(asked) == USAGE
    assert "kept.json" in capsys.readouterr().err


def test_what_an_extra_needs_is_what_the_package_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {name: [needed] for name, needed in REQUIREMENTS.items()} == {
        name: extras[name] for name in REQUIREMENTS
    }
