import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.grammar import (
    MAX_INTEGER,
    MOST_FAULTS,
    ConfigError,
    parse,
    parse_all,
    render,
)
from proxyd.config.report import report
from proxyd.config.settings import SPECS
from proxyd.config.sources import (
    examine,
    examine_environment,
    load,
    with_doubts_of_logging,
    with_environment,
    with_verbose,
)

SCALARS = st.integers(-MAX_INTEGER, MAX_INTEGER) | st.integers(-1, 200) | st.text("ab01:/=*'- ")
CONTENTS = SCALARS | st.lists(SCALARS, max_size=3).map(tuple)


def loaded(text=""):
    return load(text, "/etc/x.conf", privileged=True)


def doubts(text):
    return [str(doubt) for doubt in loaded(text).doubts]


def test_an_empty_file_gives_the_defaults_and_says_so():
    result = loaded()
    assert result.settings == result.defaults
    assert result.origins == dict.fromkeys(SPECS, "default")
    assert result.doubts == ()


def test_an_origin_is_the_line_of_the_key():
    result = loaded("\nlisten_tcp = 1\nproxyd_routes = [\n]")
    assert result.origins["listen_tcp"] == "/etc/x.conf:2"
    assert result.origins["proxyd_routes"] == "/etc/x.conf:3"
    assert result.origins["listen_tls"] == "default"


def test_the_first_of_two_equal_keys_counts_and_the_second_is_doubtful():
    text = "max_clients = 30\n\n  max_clients = 40"
    assert loaded(text).settings.max_clients == 30
    assert loaded(text).origins["max_clients"] == "/etc/x.conf:1"
    expected = '/etc/x.conf:3:3: "max_clients" is here again: the one in line 1 counts'
    assert doubts(text) == [expected]


def test_a_repeated_key_is_not_checked_since_it_does_not_count():
    assert len(doubts('max_clients = 30\nmax_clients = "x"')) == 1


def test_an_unknown_key_is_doubtful_and_the_nearest_name_is_offered():
    expected = '/etc/x.conf:2:1: unknown key "max_client" (did you mean "max_clients"?)'
    assert doubts("\nmax_client = 30") == [expected]


def test_an_unknown_key_like_no_other_is_only_named():
    assert doubts('mdns_name = "x"') == ['/etc/x.conf:1:1: unknown key "mdns_name"']


def test_an_unknown_key_may_have_any_value():
    assert loaded('mdns_name = [ "x", 1, [] ]').settings == loaded().settings


def test_names_are_not_searched_for_a_key_that_nobody_typed():
    (doubt,) = doubts("max_clients" * 1000 + " = 1")
    assert "did you mean" not in doubt
    assert len(doubt) < 120


def test_names_are_searched_for_the_first_unknown_keys_only():
    assert sum("did you mean" in doubt for doubt in doubts("max_client = 1\n" * 30)) == 20


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("audit_level = 2", "a proxy does nothing that is audited"),
        ('access_drivers = [ "polkit" ]', "proxyd does not judge single calls"),
        ("max_workers = 40", "calls are relayed and answered without worker threads"),
        ("keepalive_required = 1", "libvirt does nothing with it either"),
    ],
)
def test_a_key_that_nothing_obeys_is_doubtful_and_loads(text, why):
    (doubt,) = doubts(text)
    key = text.split()[0]
    assert doubt.startswith(f"/etc/x.conf:1:1: {key} has no effect here: {why}")
    assert getattr(loaded(text).settings, key) != getattr(loaded().settings, key)


def test_a_key_that_nothing_obeys_and_that_asks_for_nothing_else_is_not_spoken_of():
    assert doubts('audit_level = 1\naccess_drivers = [ "none" ]\nmax_workers = 20') == []


def test_doubts_are_in_the_order_of_the_file():
    found = loaded("ovs_timeout = 6\nmax_client = 1\naudit_level = 0\nmax_client = 1").doubts
    assert [doubt.line for doubt in found] == [1, 2, 3, 4]


def test_a_doubt_knows_its_place_and_its_key():
    (doubt,) = loaded(" max_client = 1").doubts
    assert (doubt.path, doubt.line, doubt.column, doubt.key) == ("/etc/x.conf", 1, 2, "max_client")


def test_the_environment_goes_over_the_file():
    environ = {
        "LIBVIRT_DEBUG": "info",
        "LIBVIRT_LOG_FILTERS": "1:rpc",
        "LIBVIRT_LOG_OUTPUTS": "1:stderr",
        "HOME": "/",
    }
    text = 'log_level = 4\nlog_filters = "4:x"\nlog_outputs = "4:journald"'
    result = with_environment(loaded(text), environ)
    assert result.settings.log_level == 2
    assert result.settings.log_filters == "1:rpc"
    assert result.settings.log_outputs == "1:stderr"
    assert result.origins["log_level"] == "environment LIBVIRT_DEBUG"
    assert result.origins["log_filters"] == "environment LIBVIRT_LOG_FILTERS"
    assert result.origins["log_outputs"] == "environment LIBVIRT_LOG_OUTPUTS"
    assert result.origins["listen_tcp"] == "default"


@pytest.mark.parametrize("name", ["LIBVIRT_DEBUG", "LIBVIRT_LOG_FILTERS", "LIBVIRT_LOG_OUTPUTS"])
def test_an_empty_variable_is_as_good_as_none(name):
    before = loaded('log_outputs = "4:journald"')
    assert with_environment(before, {name: ""}) == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "LIBVIRT_DEBUG",
            "loud",
            "environment LIBVIRT_DEBUG: expected a log level: a level is a number from 1 to 4 or"
            ' debug, info, warning or error, not "loud"',
        ),
        (
            "LIBVIRT_LOG_FILTERS",
            "rpc",
            'environment LIBVIRT_LOG_FILTERS: expected filters such as "1:rpc 4:util" ("rpc":'
            ' a filter is a level, ":" and a part of a category), not "rpc"',
        ),
        (
            "LIBVIRT_LOG_OUTPUTS",
            "1:stderr:x",
            "environment LIBVIRT_LOG_OUTPUTS: expected outputs such as"
            ' "3:stderr 1:file:/var/log/proxyd.log" ("1:stderr:x": nothing may follow "stderr"),'
            ' not "1:stderr:x"',
        ),
    ],
)
def test_a_variable_that_makes_no_sense_is_an_error_that_names_it(name, value, message):
    with pytest.raises(ConfigError) as caught:
        with_environment(loaded(), {name: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "level", "origin"),
    [
        ("", 2, "option -v"),
        ("log_level = 0", 2, "option -v"),
        ("log_level = 4", 2, "option -v"),
        ("log_level = 3", 2, "option -v"),
        ("log_level = 2", 2, "/etc/x.conf:1"),
        ("log_level = 1", 1, "/etc/x.conf:1"),
    ],
)
def test_verbose_lowers_the_level_to_info_and_never_raises_it(text, level, origin):
    result = with_verbose(loaded(text))
    assert (result.settings.log_level, result.origins["log_level"]) == (level, origin)


def test_verbose_goes_over_the_environment():
    result = with_verbose(with_environment(loaded(), {"LIBVIRT_DEBUG": "4"}))
    assert (result.settings.log_level, result.origins["log_level"]) == (2, "option -v")


@given(st.lists(st.tuples(st.sampled_from(list(SPECS)), CONTENTS), max_size=4))
def test_any_values_give_settings_that_a_report_gives_again_or_a_config_error(pairs):
    text = "\n".join(f"{key} = {render(content)}" for key, content in pairs)
    try:
        before = loaded(text)
    except ConfigError:
        return
    assert loaded(report(before)).settings == before.settings


# Every fault


FAULTY = """\
max_clients = yes
listen_tls = 2
log_level = [
  # no comments here
  1 ]
unix_sock_group = "x
tls_port = 16514
proxyd_routes = [ "qemu=a", "qemu=b" ]
keepalive_count 5
admin_max_clients = 3
"""


def test_every_fault_of_a_file_is_found_and_not_the_first_alone():
    examined = examine(FAULTY, "f", privileged=True)
    places = sorted((each.line, each.column, each.key) for each in examined.faults)
    assert places == [
        (1, 15, "max_clients"),
        (2, 14, "listen_tls"),
        (4, 3, "log_level"),
        (6, 19, "unix_sock_group"),
        (7, 12, "tls_port"),
        (8, 17, "proxyd_routes"),
        (9, 17, "keepalive_count"),
    ]
    # What can be read, is.
    assert examined.loaded.settings.admin_max_clients == 3


def test_the_first_of_them_is_what_a_start_is_refused_for():
    with pytest.raises(ConfigError) as caught:
        load(FAULTY, "f", privileged=True)
    assert str(caught.value) == str(examine(FAULTY, "f", privileged=True).faults[0])


def test_the_faults_of_one_file_have_an_end():
    assert len(examine("a b\nc = 1\n" * 5000, "f", privileged=True).faults) == MOST_FAULTS


@given(st.text(alphabet="a=[]\"'#\n 1,;-x"))
def test_whatever_stands_there_a_file_is_refused_by_what_is_found_in_it(text):
    faults = parse_all(text, "f")[1]
    if faults:
        with pytest.raises(ConfigError) as caught:
            parse(text, "f")
        assert str(caught.value) == str(faults[0])
    else:
        assert parse(text, "f") == parse_all(text, "f")[0]
    assert [each.line for each in faults] == sorted(each.line for each in faults)


def test_every_variable_of_the_environment_that_makes_no_sense_is_found():
    environ = {"LIBVIRT_DEBUG": "9", "LIBVIRT_LOG_OUTPUTS": "x"}
    found = examine_environment(loaded(), environ).faults
    assert [each.path for each in found] == [f"environment {name}" for name in environ]


def test_where_a_value_stands_is_known():
    result = loaded("\n listen_tcp =  1\nlog_level = 2")
    assert result.places == {"listen_tcp": "/etc/x.conf:2:16", "log_level": "/etc/x.conf:3:13"}
    assert "log_level" not in with_verbose(loaded("log_level = 3")).places


def doubts_of_logging(text):
    return [str(each) for each in with_doubts_of_logging(loaded(text)).doubts]


def test_a_filter_that_no_line_fits_is_doubtful_and_the_categories_are_named():
    (doubt,) = doubts_of_logging('log_level = 1\nlog_filters = "1:qemu 1:rpc"')
    assert doubt.startswith(
        '/etc/x.conf:2:15: log_filters: no line of proxyd\'s has a category with "qemu" in it; its'
        " categories are daemon.admin, "
    )
    assert "remote.remote_driver" in doubt


def test_an_output_that_gets_less_than_it_asks_for_is_doubtful():
    (doubt,) = doubts_of_logging('log_outputs = "1:file:/x"')
    assert doubt == (
        "/etc/x.conf:1:15: log_outputs asks for level 1, and log_level lets through 3 and above"
        " alone: set log_level = 1 for it"
    )
    assert doubts_of_logging('log_level = 1\nlog_outputs = "1:file:/x"') == []
    assert doubts_of_logging('log_filters = "1:rpc"\nlog_outputs = "1:file:/x"') == []


def test_what_is_doubtful_in_the_environment_is_told_by_its_name():
    environ = {"LIBVIRT_LOG_OUTPUTS": "1:stderr"}
    (doubt,) = with_doubts_of_logging(with_environment(loaded(), environ)).doubts
    assert str(doubt).startswith("environment LIBVIRT_LOG_OUTPUTS: log_outputs asks for level 1")
