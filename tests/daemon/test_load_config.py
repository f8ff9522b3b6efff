import os
import subprocess
import sys

import pytest

from proxyd.config.grammar import MAX_FILE_BYTES
from proxyd.config.settings import Settings
from proxyd.daemon.load_config import Source, demand_what_exists
from proxyd.process.exit_status import Exit, StartFailed


@pytest.fixture
def conf(tmp_path):
    return tmp_path / "virtproxyd.conf"


def source(conf, **differing):
    given = {"named": True, "verbose": False, "privileged": True, "environ": {}, **differing}
    return Source(path=str(conf), **given)


def failure(conf, **differing):
    with pytest.raises(StartFailed) as failed:
        source(conf, **differing).load()
    assert failed.value.status == Exit.FAILED
    return str(failed.value)


def test_a_file_is_read(conf):
    conf.write_text("max_clients = 33")
    loaded = source(conf).load()
    assert loaded.settings.max_clients == 33
    assert loaded.origins["max_clients"] == f"{conf}:1"


def test_a_default_file_may_be_missing(conf):
    loaded = source(conf, named=False).load()
    assert loaded.settings == loaded.defaults


def test_a_named_file_may_not_be_missing(conf):
    assert failure(conf) == f"cannot load the configuration: there is no file {conf}"


def test_a_broken_link_is_a_missing_file(conf):
    conf.symlink_to("nowhere")
    assert source(conf, named=False).load().settings
    assert "there is no file" in failure(conf)


@pytest.mark.parametrize("named", [True, False])
def test_a_directory_is_no_file(conf, named):
    conf.mkdir()
    assert f"{conf}: Is a directory" in failure(conf, named=named)


@pytest.mark.parametrize("named", [True, False])
def test_a_file_in_no_directory_is_an_error_that_says_so(conf, named):
    conf.write_text("")
    assert f"{conf / 'below'}: Not a directory" in failure(conf / "below", named=named)


def test_a_default_file_that_may_not_be_read_is_an_error(conf):
    # As another user: root may read everything.
    conf.write_text("")
    conf.chmod(0)
    conf.parent.chmod(0o755)
    script = (
        "import os, sys\n"
        "from proxyd.daemon.load_config import Source\n"
        "os.chdir(sys.argv[1])\n"
        "os.seteuid(65534)\n"
        "Source(path='virtproxyd.conf', named=False, verbose=False, privileged=True,"
        " environ={}).load()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(conf.parent)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "virtproxyd.conf: Permission denied; let this user read it" in done.stderr


def test_a_mistake_is_named_with_file_line_and_column(conf):
    conf.write_text('\nmax_clients = "many"\n')
    assert failure(conf).startswith(f"cannot load the configuration: {conf}:2:15: ")


def test_a_file_that_is_too_long_is_an_error_and_not_a_wait(conf):
    with conf.open("wb") as file:
        file.truncate(10 * MAX_FILE_BYTES)
    assert str(conf) in failure(conf)


def test_bytes_that_are_no_text_are_kept_or_named_but_never_a_traceback(conf):
    conf.write_bytes(b'unix_sock_dir = "/srv/\xff"\n')
    assert os.fsencode(source(conf).load().settings.unix_sock_dir) == b"/srv/\xff"
    conf.write_bytes(b"\xff\xfe = 1\n")
    assert f"{conf}:1:1: " in failure(conf)


def test_the_environment_counts_before_the_file_and_the_option_before_both(conf):
    conf.write_text("log_level = 4")
    environ = {"LIBVIRT_DEBUG": "3"}
    assert source(conf).load().settings.log_level == 4
    assert source(conf, environ=environ).load().settings.log_level == 3
    assert source(conf, environ=environ, verbose=True).load().settings.log_level == 2


def test_a_senseless_variable_is_an_error(conf):
    conf.write_text("")
    assert "environment LIBVIRT_DEBUG" in failure(conf, environ={"LIBVIRT_DEBUG": "loud"})


def test_each_load_reads_the_file_again(conf):
    read = source(conf)
    conf.write_text("max_clients = 33")
    read.load()
    conf.write_text("max_clients = 44")
    assert read.load().settings.max_clients == 44


def test_who_runs_it_decides_the_defaults(conf):
    conf.write_text("")
    assert source(conf).load().settings.auth_unix_rw == "polkit"
    assert source(conf, privileged=False).load().settings.auth_unix_rw == "none"


def test_the_defaults_ask_for_nothing_that_does_not_exist():
    demand_what_exists(Settings())
    demand_what_exists(Settings(auth_unix_rw="none", auth_unix_ro="none", auth_tls="sasl"))


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_of_daemons_that_is_not_there_is_doubted(tmp_path, there):
    directory = tmp_path / "behind"
    if there:
        directory.mkdir()
    conf = tmp_path / "conf"
    conf.write_text(f'max_clients = 50\nproxyd_backend_dir = "{directory}"\n')
    source = Source(path=str(conf), named=True, verbose=False, privileged=True, environ={})
    told = [str(each) for each in source.load().doubts]
    assert [each for each in told if "there is no such directory" in each] == told
    assert len(told) == (not there)
    assert there or told[0].startswith(f"{conf}:2:1: proxyd_backend_dir")
