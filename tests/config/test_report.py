import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.report import report, report_json
from proxyd.config.settings import SPECS
from proxyd.config.sources import load, with_environment, with_verbose

FULL = """
listen_tcp = 1
listen_addr = '"quoted"'
unix_sock_rw_perms = "770"
tls_allowed_dn_list = []
sasl_allowed_username_list = [ "a", 'b"c' ]
key_file = "/k"; cert_file = "/c"; ca_file = "/a"
tcp_min_ssf = 112
keepalive_interval = -1
unix_sock_dir = \"\"\"/a
b"'c\"\"\"
proxyd_routes = [ "qemu=libvirtd", "test=/x" ]
"""


def loaded(text="", path="/etc/x.conf", privileged=True):
    return load(text, path, privileged=privileged)


@pytest.mark.parametrize("privileged", [True, False])
@pytest.mark.parametrize("text", ["", FULL, 'auth_unix_rw = "none"', 'auth_unix_ro = "sasl"'])
def test_a_report_is_a_file_that_gives_the_same_settings(text, privileged):
    before = loaded(text, privileged=privileged)
    after = loaded(report(before), privileged=privileged)
    assert after.settings == before.settings
    assert after.doubts == ()


def test_a_report_carries_what_the_environment_and_the_option_said():
    before = with_verbose(with_environment(loaded(), {"LIBVIRT_LOG_OUTPUTS": "1:file:/a'b"}))
    assert loaded(report(before)).settings == before.settings


@pytest.mark.parametrize("key", SPECS)
def test_every_key_is_reported_once(key):
    names = [line.lstrip("#").split(" = ")[0].strip() for line in report(loaded()).splitlines()]
    assert names.count(key) == 1


def test_what_is_set_comes_first_and_says_from_where():
    lines = report(loaded("\nmax_clients = 100\nlisten_tcp = 0")).splitlines()
    assert lines[0] == "# Set, or changed by something that is set:"
    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "listen_tcp = 0 # /etc/x.conf:3 (the default)",
        "max_clients = 100 # /etc/x.conf:2",
        "",
        "# As by default:",
    ]


def test_a_default_that_follows_another_key_is_shown_beside_it():
    lines = report(loaded('auth_unix_rw = "none"')).splitlines()
    assert [" ".join(line.split()) for line in lines[1:3]] == [
        'unix_sock_rw_perms = "0700" # default (follows another key)',
        'auth_unix_rw = "none" # /etc/x.conf:1',
    ]


def test_a_report_of_defaults_says_that_nothing_is_set():
    assert report(loaded()).startswith("# Nothing is set.\n\n# As by default:\n")


def test_what_has_no_effect_says_so():
    lines = [" ".join(line.split()) for line in report(loaded("audit_level = 2")).splitlines()]
    assert "audit_level = 2 # /etc/x.conf:1 (no effect here)" in lines
    assert "ovs_timeout = 5 # default (no effect here)" in lines


def test_what_a_file_cannot_say_is_a_comment():
    lines = [" ".join(line.split()) for line in report(loaded()).splitlines()]
    assert "#listen_addr = unset # default" in lines
    assert "#tcp_min_ssf = 56 # default" in lines


def test_a_string_of_the_environment_that_no_quotes_can_hold_is_a_comment():
    before = with_environment(loaded(), {"LIBVIRT_LOG_OUTPUTS": "1:file:/a'b\""})
    text = report(before)
    assert "#log_outputs" in text
    assert loaded(text).settings.log_outputs is None


def test_the_columns_are_aligned():
    lines = [line for line in report(loaded("log_level = 1")).splitlines() if " = " in line]
    assert len({line.index(" = ") for line in lines}) == 1
    assert len({line.index("  # ") for line in lines if len(line) < 90}) == 1


def test_a_path_with_a_line_end_cannot_write_a_line_of_its_own():
    before = load("listen_tcp = 1", "/x\nlisten_tls = 1", privileged=True)
    assert not loaded(report(before)).settings.listen_tls


def test_the_report_for_programs_has_values_and_origins_and_doubts():
    result = json.loads(report_json(loaded(FULL + "max_client = 1")))
    settings = result["settings"]
    assert list(settings) == list(SPECS)
    assert settings["listen_tcp"] == {
        "value": 1,
        "origin": "/etc/x.conf:2",
        "takes_effect": "start",
    }
    assert settings["unix_sock_rw_perms"]["value"] == "0770"
    assert settings["sasl_allowed_username_list"]["value"] == ["a", 'b"c']
    assert settings["tls_allowed_dn_list"]["value"] == []
    assert settings["keepalive_interval"]["value"] == -1
    assert settings["host_uuid"] == {
        "value": None,
        "origin": "default",
        "takes_effect": "never",
    }
    assert settings["tcp_min_ssf"]["value"] == 112
    assert result["doubts"] == [
        {
            "path": "/etc/x.conf",
            "line": 13,
            "column": 1,
            "key": "max_client",
            "text": 'unknown key "max_client" (did you mean "max_clients"?)',
            "is_ignored": False,
        }
    ]


def test_the_report_for_programs_has_also_what_no_file_can_say():
    settings = json.loads(report_json(loaded()))["settings"]
    assert settings["tcp_min_ssf"] == {"value": 56, "origin": "default", "takes_effect": "reload"}


@given(st.text())
def test_any_path_and_any_string_survive_the_report_for_programs(text):
    environ = {"LIBVIRT_LOG_OUTPUTS": f"1:file:/{text.replace(' ', '').replace(':', '')}"}
    before = with_environment(load("listen_tcp = 1", text, privileged=True), environ)
    settings = json.loads(report_json(before))["settings"]
    assert settings["listen_tcp"]["origin"] == f"{text}:1"
    assert settings["log_outputs"]["value"] == environ["LIBVIRT_LOG_OUTPUTS"]
