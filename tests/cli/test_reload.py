"""proxyd reload, from the command line to a live admin socket."""

import pytest

from proxyd.cli.main import main
from tests.admin.live import live_admin
from tests.bed.daemon import conf_text, short_directory


@pytest.fixture
def live():
    with short_directory() as directory, live_admin(directory) as made:
        (directory / "virtproxyd-admin-sock").symlink_to(made.path)
        yield made


def test_what_was_done_is_printed_and_status_0(live, capsys):
    assert main(["reload", "--socket", str(live.path)]) == 0
    said = capsys.readouterr()
    assert said == ("configuration reloaded from /etc/libvirt/virtproxyd.conf\n", "")
    assert live.host.told == ["reload"]


def test_where_nothing_was_changed_the_reason_is_one_line_and_status_1(live, capsys):
    live.host.reload_fails = "/x.conf:1:2: expected something"
    assert main(["reload", "--socket", str(live.path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "proxyd: reload failed, nothing was changed: /x.conf:1:2: expected something\n"
    )


@pytest.mark.parametrize("broken", ["", "max_clients = yes\n", "max_clients = 0x1\n"])
def test_a_file_that_is_broken_leads_to_the_daemon_all_the_same(live, tmp_path, broken):
    conf = tmp_path / "conf"
    conf.write_text(broken + conf_text({"unix_sock_dir": str(live.path.parent)}))
    assert main(["reload", "-f", str(conf)]) == 0
    assert live.host.told == ["reload"]


def test_where_no_daemon_is_the_reason_is_one_line(tmp_path, capsys):
    assert main(["reload", "--socket", str(tmp_path)]) == 1
    assert "cannot reach the daemon at" in capsys.readouterr().err
