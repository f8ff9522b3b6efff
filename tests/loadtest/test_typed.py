"""What people type for a target, and which URI they get where they name none."""

from contextlib import ExitStack

import pytest

from loadtest.cli import main
from loadtest.failures import UsageError
from loadtest.statuses import FAILED, OK
from loadtest.typed import Files, spelled_out
from tests.bed.daemon import short_directory
from tests.loadtest.fake_daemon import FakeDaemon, Script

QUICK = ["--rounds", "1", "--calls", "20", "--warmup", "5", "--slices", "2", "--slice", "0.02"]
RUN = ["-R", "100", "-d", "200ms", "--workers", "1"]


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("/run/libvirt/virtqemud-sock", "virtqemud=unix:/run/libvirt/virtqemud-sock"),
        ("unix:/x/libvirt-sock-ro,pid=1", "libvirt-ro=unix:/x/libvirt-sock-ro,pid=1"),
        ("direct=/x/sock", "direct=unix:/x/sock"),
        ("a=unix:/p=q,uri=test:///default", "a=unix:/p=q,uri=test:///default"),
        ("tls:host:16514", "tls=tls:host:16514"),
        ("scram+tls:h:1", "scram-tls=scram+tls:h:1"),
        ("qemu+unix:///system?socket=/x/y-sock", "y=unix:/x/y-sock,uri=qemu:///system"),
        ("qemu:///system?mode=legacy", "libvirt=unix:/run/libvirt/libvirt-sock,uri=qemu:///system"),
        (
            "network:///system?mode=direct",
            "virtnetworkd=unix:/run/libvirt/virtnetworkd-sock,uri=network:///system",
        ),
        ("test+unix:///default?socket=/s", "s=unix:/s,uri=test:///default"),
        ("test+tcp://[::1]/default", "tcp=tcp:[::1]:16509,uri=test:///default"),
        ("far=qemu+tls://joe@h/system", "far=tls:h:16514,uri=qemu:///system"),
        ("qemu://h:7/system", "tls=tls:h:7,uri=qemu:///system"),
        ("esx+unix:///?socket=/s&a=b", "s=unix:/s,uri=esx:///?a=b"),
    ],
)
def test_what_is_typed_is_understood(text, spelled):
    assert spelled_out([text])[0] == [spelled]


def test_names_that_were_made_do_not_meet():
    typed = ["/a/libvirt-sock", "libvirt-2=/b", "/c/libvirt-sock"]
    assert [each.partition("=")[0] for each in spelled_out(typed)[0]] == [
        "libvirt",
        "libvirt-2",
        "libvirt-3",
    ]


def test_a_users_own_daemon_is_in_its_runtime_directory(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/7")
    assert spelled_out(["qemu:///session"])[0] == [
        "libvirt=unix:/nowhere/7/libvirt/libvirt-sock,uri=qemu:///session"
    ]


def test_a_modular_daemons_socket_is_taken_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "libvirt").mkdir()
    (tmp_path / "libvirt/virtqemud-sock").touch()
    (found,), _ = spelled_out(["qemu:///session"])
    assert found.startswith("virtqemud=unix:")


def test_what_a_uri_says_of_certificates_is_kept():
    typed = ["qemu+tls://h/system?pkipath=/joe&no_verify=1", "/p"]
    spelled, files = spelled_out(typed)
    assert files == Files("/joe", unverified=True)
    assert spelled == ["tls=tls:h:16514,uri=qemu:///system", "p=unix:/p"]


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (["libvirt-sock"], "'libvirt-sock' is no target; type a socket's path, unix:PATH, KIND:"),
        (["a=libvirt-sock"], "'a=libvirt-sock' is no target; type a socket's path"),
        ([""], "'' is no target; type a socket's path"),
        (["qemu+ssh://h/system"], "ssh is not measured; there are unix, tcp and tls"),
        (["qemu:///system?mode=fast"], "mode=fast: libvirt knows auto, direct and legacy"),
        (["qemu://a/system?pkipath=/a", "qemu://b/system?pkipath=/b"], "show the same certificate"),
    ],
)
def test_what_is_no_target_is_refused_with_what_to_type(typed, complaint):
    with pytest.raises(UsageError) as refused:
        spelled_out(typed)
    assert complaint in str(refused.value)


@pytest.fixture
def serve():
    """Starts a daemon that opens these URIs alone, at a socket of that name; gives its path."""
    with ExitStack() as running:
        directory = running.enter_context(short_directory())

        def serve(name, *uris):
            script, path = Script(serves=uris), directory / name
            running.enter_context(FakeDaemon(path, script))
            return script, str(path)

        yield serve


def opened(script):
    return {each.name for each in script.opened}


def test_two_plain_paths_are_compared_by_what_the_modular_daemon_serves(serve, capsys):
    direct, modular = serve("virtqemud-sock", "qemu:///system")
    front, legacy = serve("libvirt-sock", "qemu:///system", "test:///default")
    assert main(["compare", modular, legacy, *QUICK]) == OK
    printed = capsys.readouterr()
    assert "beside virtqemud" in printed.out
    assert printed.err == "proxyd-loadtest: without --uri: qemu:///system is opened\n"
    assert opened(direct) == opened(front) == {"qemu:///system"}


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("virtnetworkd-sock", "network:///system"),
        ("virtqemud-sock-ro", "qemu:///session"),
        ("libvirt-sock", "lxc:///system"),
        ("libvirt-sock", "storage:///session"),
    ],
)
def test_a_daemon_is_asked_until_it_opens_one(serve, capsys, name, served):
    script, path = serve(name, served)
    assert main(["run", path, *RUN]) == OK
    assert opened(script) == {served}
    assert f"without --uri: {served} is opened" in capsys.readouterr().err


def test_the_usual_uri_is_opened_where_it_is_served(serve, capsys):
    script, path = serve("libvirt-sock", "test:///default", "qemu:///system")
    assert main(["compare", path, *QUICK]) == OK
    assert opened(script) == {"test:///default"}
    assert capsys.readouterr().err == ""


def test_a_target_with_a_uri_is_asked_for_nothing_else(serve):
    script, path = serve("virtqemud-sock", "esx:///x")
    assert main(["compare", f"esx+unix:///x?socket={path}", *QUICK]) == OK
    assert opened(script) == {"esx:///x"}


def test_where_nothing_is_served_by_all_of_them_it_says_what_to_type(serve, capsys):
    _, qemu = serve("virtqemud-sock", "qemu:///system")
    _, network = serve("virtnetworkd-sock", "network:///system")
    assert main(["compare", qemu, network, *QUICK]) == FAILED
    told = capsys.readouterr().err
    assert told.startswith("proxyd-loadtest: target virtnetworkd: CONNECT_OPEN: ")
    assert told.endswith("; no usual URI is served by all targets, so type --uri URI\n")
    assert told.count("\n") == 1
