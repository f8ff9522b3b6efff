"""Every key of docs/protocol/configuration.md, section 1: its default, what it takes and what it
refuses."""

import pytest

from proxyd.config.agreement import clashes_of
from proxyd.config.grammar import ConfigError
from proxyd.config.kinds import When
from proxyd.config.settings import SPECS, Settings, keys, resolve
from proxyd.config.sources import load
from proxyd.config.transports import BY_NETWORK

SWITCHES = [
    "listen_tls",
    "listen_tcp",
    "tls_no_sanity_certificate",
    "tls_no_verify_certificate",
    "audit_logging",
    "keepalive_required",
    "admin_keepalive_required",
]
COUNTS = [
    "min_workers",
    "prio_workers",
    "max_queued_clients",
    "max_client_requests",
    "admin_min_workers",
    "admin_max_workers",
    "admin_max_clients",
    "admin_max_queued_clients",
    "admin_max_client_requests",
    "audit_level",
    "keepalive_count",
    "admin_keepalive_count",
    "ovs_timeout",
]
NUMBERS = ["keepalive_interval", "admin_keepalive_interval"]
PLAIN_TEXTS = ["listen_addr", "unix_sock_group", "unix_sock_dir"]
MODES = ["unix_sock_ro_perms", "unix_sock_rw_perms", "unix_sock_admin_perms"]
PLAIN_LISTS = ["tls_allowed_dn_list", "sasl_allowed_username_list"]
U32 = "a whole number from 0 to 4294967295"
I32 = "a whole number from -2147483648 to 2147483647"


def setting(key, text):
    loaded = load(f"{key} = {text}\n", "f", privileged=True)
    assert {doubt.key for doubt in loaded.doubts} <= set(keys(When.NEVER))
    return getattr(loaded.settings, key)


def of_use(key, text):
    """What is said of a value where somebody comes by what it is for; without, it is a doubt."""
    (transport,) = (each for each in BY_NETWORK if each.traits.listen in SPECS[key].use.switches)
    loaded = load(f"{key} = {text}\n", "f", privileged=True)
    (clash,) = clashes_of(loaded.settings, transport)
    (doubt,) = loaded.doubts
    assert clash.key == doubt.key == key
    passed_over = f"it does not matter as long as {transport.traits.listen} = 0"
    assert doubt.text == f"expected {clash.expected}; {passed_over}"
    assert doubt.is_ignored
    on = load(f"{transport.traits.listen} = 1\n{key} = {text}\n", "f", privileged=True)
    assert on.doubts == ()
    return clash.expected


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        load(text, "f", privileged=True)
    return str(caught.value)


def refused_value(key, text):
    """The message for a value, from the words behind its place and its key on."""
    head = f"f:1:{len(key) + 4}: expected {key} "
    message = refusal(f"{key} = {text}")
    assert message.startswith(head)
    return message.removeprefix(head)


def test_as_root_these_are_the_defaults():
    assert resolve({}, privileged=True) == Settings(
        listen_tls=False,
        listen_tcp=False,
        tls_port="16514",
        tcp_port="16509",
        listen_addr=None,
        unix_sock_group=None,
        unix_sock_ro_perms=0o777,
        unix_sock_rw_perms=0o777,
        unix_sock_admin_perms=0o700,
        unix_sock_dir=None,
        auth_unix_rw="polkit",
        auth_unix_ro="polkit",
        auth_tcp="sasl",
        auth_tls="none",
        access_drivers=("none",),
        tls_no_sanity_certificate=False,
        tls_no_verify_certificate=False,
        key_file=None,
        cert_file=None,
        ca_file=None,
        crl_file=None,
        tls_allowed_dn_list=None,
        tls_priority=None,
        tcp_min_ssf=56,
        sasl_allowed_username_list=None,
        min_workers=5,
        max_workers=20,
        prio_workers=5,
        max_clients=5000,
        max_queued_clients=1000,
        max_anonymous_clients=20,
        max_client_requests=5,
        admin_min_workers=5,
        admin_max_workers=20,
        admin_max_clients=5000,
        admin_max_queued_clients=20,
        admin_max_client_requests=5,
        log_level=0,
        log_filters=None,
        log_outputs=None,
        audit_level=1,
        audit_logging=False,
        host_uuid=None,
        host_uuid_source="smbios",
        keepalive_interval=5,
        keepalive_count=5,
        admin_keepalive_interval=5,
        admin_keepalive_count=5,
        ovs_timeout=5,
        keepalive_required=False,
        admin_keepalive_required=False,
        proxyd_backend_dir=None,
        proxyd_routes=(),
        proxyd_handshake_timeout=30,
        proxyd_kernel_tls=False,
        proxyd_drain_timeout=5,
        proxyd_more_certificates=(),
    )


def test_without_root_nobody_is_asked_and_only_the_user_gets_in():
    settings = resolve({}, privileged=False)
    assert (settings.auth_unix_rw, settings.auth_unix_ro) == ("none", "none")
    assert settings.unix_sock_rw_perms == 0o700


@pytest.mark.parametrize("privileged", [True, False])
@pytest.mark.parametrize(
    ("text", "perms"),
    [
        ('auth_unix_rw = "polkit"', 0o777),
        ('auth_unix_rw = "none"', 0o700),
        ('auth_unix_rw = "sasl"', 0o700),
        ('auth_unix_rw = "none"; unix_sock_rw_perms = "0770"', 0o770),
        ('auth_unix_rw = "polkit"; unix_sock_rw_perms = "0770"', 0o770),
    ],
)
def test_the_full_access_socket_is_open_to_all_only_where_polkit_guards_it(text, privileged, perms):
    assert load(text, "f", privileged=privileged).settings.unix_sock_rw_perms == perms


def test_the_keys_only_proxyd_knows_are_named_so():
    ours = [key for key in SPECS if key.startswith("proxyd_")]
    assert ours == [
        "proxyd_strict_start",
        "proxyd_sasl_mechanisms",
        "proxyd_keytab",
        "proxyd_passwords",
        "proxyd_rules_file",
        "proxyd_more_certificates",
        "proxyd_kernel_tls",
        "proxyd_max_clients_per_peer",
        "proxyd_connection_rate",
        "proxyd_connection_burst",
        "proxyd_login_failures",
        "proxyd_handshake_timeout",
        "proxyd_drain_timeout",
        "proxyd_retire_timeout",
        "proxyd_parting_timeout",
        "proxyd_metrics_listen",
        "proxyd_audit",
        "proxyd_audit_output",
        "proxyd_audit_required",
        "proxyd_backend_dir",
        "proxyd_routes",
    ]


@pytest.mark.parametrize("key", SPECS)
def test_every_key_says_what_it_means(key):
    assert SPECS[key].meaning.endswith(".")


@pytest.mark.parametrize("key", SWITCHES)
def test_a_switch_is_0_or_1(key):
    assert [setting(key, text) for text in ("0", "1", "+1")] == [False, True, True]


@pytest.mark.parametrize("key", SWITCHES)
@pytest.mark.parametrize(
    ("text", "found"),
    [("2", "2"), ("-1", "-1"), ("-0", "-0"), ('"yes"', '"yes"'), ("[ 1 ]", "a list")],
)
def test_a_switch_is_nothing_else(key, text, found):
    assert refused_value(key, text) == f"to be 0 or 1, not {found}"


@pytest.mark.parametrize("key", COUNTS)
def test_a_count_is_an_unsigned_number_of_32_bits(key):
    assert [setting(key, text) for text in ("0", "4294967295")] == [0, 2**32 - 1]


@pytest.mark.parametrize(
    "key", [*COUNTS, "max_clients", "max_anonymous_clients", "max_workers", "tcp_min_ssf"]
)
@pytest.mark.parametrize("text", ["-1", "-0", "4294967296", '"5"', "[]"])
def test_a_count_is_nothing_else(key, text):
    assert refused_value(key, text).startswith(f"to be {U32}, not ")


@pytest.mark.parametrize("key", NUMBERS)
def test_an_interval_may_be_negative(key):
    texts = ("-0", "-2147483648", "2147483647")
    assert [setting(key, text) for text in texts] == [0, -(2**31), 2**31 - 1]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("text", ["-2147483649", "2147483648", '"5"'])
def test_an_interval_has_32_bits(key, text):
    assert refused_value(key, text).startswith(f"to be {I32}, not ")


@pytest.mark.parametrize("key", PLAIN_TEXTS)
def test_a_string_is_taken_as_it_is(key):
    assert setting(key, '"any text"') == "any text"


@pytest.mark.parametrize(
    "key",
    [
        *PLAIN_TEXTS,
        "tls_port",
        "auth_tcp",
        "key_file",
        "log_outputs",
        "host_uuid",
        "host_uuid_source",
        "proxyd_backend_dir",
    ],
)
@pytest.mark.parametrize(("text", "found"), [("1", "1"), ('[ "x" ]', "a list")])
def test_a_string_is_nothing_else(key, text, found):
    assert refused_value(key, text) == f"to be a string in quotes, not {found}"


@pytest.mark.parametrize("key", MODES)
def test_permissions_are_octal(key):
    assert [setting(key, text) for text in ('"0"', '"0770"', "'0777'")] == [0, 0o770, 0o777]


@pytest.mark.parametrize("key", MODES)
@pytest.mark.parametrize("text", ['"0888"', '"01777"', '"0o770"', '""', '"rwx"', '"-1"', "0777"])
def test_permissions_are_nothing_else(key, text):
    expected = 'to be an octal mode in quotes, from "0" to "0777", not '
    assert refused_value(key, text).startswith(expected)


@pytest.mark.parametrize("key", PLAIN_LISTS)
def test_an_empty_list_is_not_the_same_as_none(key):
    assert setting(key, "[]") == ()
    assert setting(key, '[ "a*", "b" ]') == ("a*", "b")


@pytest.mark.parametrize("key", [*PLAIN_LISTS, "access_drivers", "proxyd_routes"])
@pytest.mark.parametrize("text", ['"none"', "1"])
def test_a_list_is_written_in_brackets(key, text):
    expected = f'to be a list of strings such as [ "one", "two" ], not {text}'
    assert refused_value(key, text) == expected


@pytest.mark.parametrize(("item", "found"), [("1", "1"), ("[]", "a list")])
def test_an_item_that_is_no_string_is_named_at_its_own_place(item, found):
    message = refusal(f'tls_allowed_dn_list = [ "a",\n  {item} ]')
    expected = "tls_allowed_dn_list to hold only strings in quotes"
    assert message == f"f:2:3: expected {expected}, not {found}"


@pytest.mark.parametrize("key", ["auth_unix_rw", "auth_unix_ro"])
def test_unix_clients_prove_who_they_are_in_three_ways(key):
    values = [setting(key, f'"{word}"') for word in ("none", "sasl", "polkit")]
    assert values == ["none", "sasl", "polkit"]
    message = refused_value(key, '"None"')
    assert message == 'to be "none", "sasl" or "polkit" (in lower case), not "None"'


@pytest.mark.parametrize("key", ["auth_tcp", "auth_tls"])
def test_network_clients_prove_who_they_are_in_two_ways(key):
    assert [setting(key, f'"{word}"') for word in ("none", "sasl")] == ["none", "sasl"]
    assert refused_value(key, '"SASL"') == 'to be "none" or "sasl" (in lower case), not "SASL"'
    assert of_use(key, '"polkit"') == (
        f'{key} to be "none" or "sasl" (polkit knows only users of this host: UNIX sockets),'
        ' not "polkit"'
    )


@pytest.mark.parametrize("key", ["tls_port", "tcp_port"])
@pytest.mark.parametrize("text", ["0", "1", "65535", "016509", "libvirt-tls", "x11-1", "whois++"])
def test_a_port_is_a_number_or_a_service(key, text):
    assert setting(key, f'"{text}"') == text


@pytest.mark.parametrize("key", ["tls_port", "tcp_port"])
@pytest.mark.parametrize("text", ["", "65536", "-1", "9" * 5000, "16 509", "/x", "é"])
def test_a_port_is_nothing_else(key, text):
    expected = f"{key} to be a port from 0 (any free one) to 65535 or a service's name, not "
    assert of_use(key, f'"{text}"').startswith(expected)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "an address or a host name (leave the key out for all addresses)"),
        ("[::1]", "an address without brackets, such as ::1"),
        ("[::1]:16514", "an address without brackets, such as ::1"),
        ("127.0.0.1:16509", "an address or a host name alone (the ports are tls_port and"),
        ("localhost:16509", "an address or a host name alone (the ports are tls_port and"),
        ("999.1.1.1", "an IPv4 address such as 192.0.2.1"),
        ("1.2.3.4.5", "an IPv4 address such as 192.0.2.1"),
        ("192.0.2.", "an IPv4 address such as 192.0.2.1"),
        ("9" * 5000, "an IPv4 address such as 192.0.2.1"),
        ("fe80::g", "an IPv6 address such as ::1"),
        ("192.0.2.0/24", "one address or host name, and nothing else beside it"),
        ("192.0.2.1,192.0.2.2", "one address or host name, and nothing else beside it"),
    ],
)
@pytest.mark.parametrize("switch", ["listen_tls", "listen_tcp"])
def test_what_cannot_be_an_address_is_a_clash_where_somebody_listens(switch, text, wanted):
    loaded = load(f'{switch} = 1\nlisten_addr = "{text}"\n', "f", privileged=True)
    (transport,) = (each for each in BY_NETWORK if each.traits.listen == switch)
    (clash,) = clashes_of(loaded.settings, transport)
    assert clash.key == "listen_addr"
    assert clash.expected.startswith(f"listen_addr to be {wanted}")
    assert loaded.doubts == ()
    (doubt,) = load(f'listen_addr = "{text}"\n', "f", privileged=True).doubts
    assert (doubt.key, doubt.is_ignored) == ("listen_addr", True)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "127.1",
        "192.0.2.1",
        "::",
        "::1",
        "fe80::1%eth0",
        "::ffff:192.0.2.1",
        "localhost",
        "host-1.example.org",
        "a_b",
        "*",
    ],
)
def test_what_may_be_an_address_is_for_the_resolver_to_say(text):
    loaded = load(f'listen_tls = 1\nlisten_addr = "{text}"\n', "f", privileged=True)
    assert not [each for way in BY_NETWORK for each in clashes_of(loaded.settings, way)]


@pytest.mark.parametrize(
    "key",
    [
        "unix_sock_dir",
        "log_outputs",
        "log_filters",
        "tls_priority",
        "proxyd_keytab",
        "proxyd_passwords",
        "proxyd_backend_dir",
    ],
)
def test_a_text_that_is_there_and_empty_counts_as_unset(key):
    loaded = load(f'listen_tls = 1\n{key} = ""\n', "f", privileged=True)
    assert getattr(loaded.settings, key) is None
    (doubt,) = loaded.doubts
    assert str(doubt) == f"f:2:1: {key} is empty, which counts as unset"
    assert doubt.is_ignored


def test_every_text_says_what_an_empty_one_means():
    """Each of them is one of four: unset, refused, passed over until it is used, or a choice."""
    meant = {"key_file", "cert_file", "ca_file", "crl_file"}  # agreement.py, load_tls.py
    for key, spec in SPECS.items():
        if spec.kind.name != "a string" or key in meant:
            continue
        use = spec.use
        refused = spec.check("") is not None or use.check("") is not None
        assert refused or use.empty_is_unset, key


def test_access_drivers_are_none_and_polkit():
    assert setting("access_drivers", '[ "none", "polkit" ]') == ("none", "polkit")
    assert setting("access_drivers", "[]") == ()
    assert refusal('access_drivers = [ "none", "selinux" ]') == (
        'f:1:28: expected access_drivers to hold only "none" or "polkit" (in lower case),'
        ' not "selinux"'
    )


def test_a_written_strength_is_at_least_112_and_56_is_had_by_leaving_it_out():
    assert setting("tcp_min_ssf", "112") == 112
    hint = "(leave the key out for the default of 56)"
    assert refused_value("tcp_min_ssf", "111") == f"to be at least 112 {hint}, not 111"


def test_there_is_at_least_one_worker():
    assert setting("max_workers", "1") == 1
    assert refused_value("max_workers", "0") == "to be at least 1, not 0"


def test_log_levels_are_0_to_4():
    assert [setting("log_level", str(level)) for level in range(5)] == [0, 1, 2, 3, 4]
    assert refused_value("log_level", "5") == "to be a level from 0 to 4, not 5"


def test_log_strings_are_checked_and_kept_as_written():
    assert setting("log_outputs", '"3:stderr"') == "3:stderr"
    assert setting("log_filters", '"1:+rpc"') == "1:+rpc"
    assert refused_value("log_outputs", '"9:stderr"') == (
        'to be outputs such as "3:stderr 1:file:/var/log/proxyd.log"'
        ' ("9:stderr": the level is 1 (debug), 2 (info), 3 (warning) or 4 (error)),'
        ' not "9:stderr"'
    )
    assert refused_value("log_filters", '"rpc"') == (
        'to be filters such as "1:rpc 4:util"'
        ' ("rpc": a filter is a level, ":" and a part of a category), not "rpc"'
    )


@pytest.mark.parametrize(
    "text",
    [
        "8510f1dd-8c1d-4f1c-a1b4-6f0d3a3c8f52",
        "8510F1DD8C1D4F1CA1B46F0D3A3C8F52",
        "85 10f1dd - 8c1d--4f1ca1b46f0d3a3c8f52",
        "00000000-0000-0000-0000-000000000001",
    ],
)
def test_a_host_uuid_is_32_digits_with_dashes_and_spaces_between_pairs(text):
    assert setting("host_uuid", f'"{text}"') == text


@pytest.mark.parametrize(
    "text", ["", "x" * 32, "85" * 15, "8510f1dd" * 4 + "00", "8-510f1dd8c1d4f1ca1b46f0d3a3c8f52"]
)
def test_a_host_uuid_is_nothing_else(text):
    expected = 'to be a UUID of 32 hexadecimal digits ("-" and spaces may stand between pairs), not'
    assert refused_value("host_uuid", f'"{text}"').startswith(expected)


@pytest.mark.parametrize("text", ["00" * 16, "ff" * 16, "Ab" * 16])
def test_a_host_uuid_of_equal_bytes_names_no_host(text):
    expected = f'to be a UUID whose bytes are not all equal, not "{text}"'
    assert refused_value("host_uuid", f'"{text}"') == expected


def test_the_host_uuid_has_two_sources():
    assert setting("host_uuid_source", '"machine-id"') == "machine-id"
    expected = 'to be "smbios" or "machine-id" (in lower case), not "dmi"'
    assert refused_value("host_uuid_source", '"dmi"') == expected


def test_the_directory_of_the_daemons_behind_is_absolute():
    assert setting("proxyd_backend_dir", '"/run/x"') == "/run/x"
    expected = 'to be an absolute path, with a "/" in front, not "run/x"'
    assert refused_value("proxyd_backend_dir", '"run/x"') == expected


@pytest.mark.parametrize(
    "item", ["qemu=libvirtd", "test=/run/x y/sock", "a+b.c-d=virt_x.d-1", "X9=/", "a=/b=c"]
)
def test_a_route_is_a_scheme_and_a_daemon_or_a_path(item):
    assert setting("proxyd_routes", f'[ "{item}" ]') == (item,)


@pytest.mark.parametrize("item", ["", "qemu", "qemu=", "=x", "9p=x", "a_b=x", "a=b/c", "a= b"])
def test_a_route_is_nothing_else(item):
    expected = 'expected proxyd_routes to hold only routes such as "qemu=virtqemud" or'
    found = f'"test=/run/test-sock", not "{item}"'
    assert refusal(f'proxyd_routes = [ "{item}" ]') == f"f:1:19: {expected} {found}"


def test_the_handshake_takes_at_least_a_second_and_at_most_an_hour():
    key = "proxyd_handshake_timeout"
    assert [setting(key, "1"), setting(key, "3600")] == [1, 3600]
    assert refused_value(key, "0") == "to be a whole number from 1 to 3600, not 0"
    assert refused_value(key, "3601") == "to be a whole number from 1 to 3600, not 3601"


def test_a_message_shows_only_the_beginning_of_a_long_value_on_one_line():
    message = refused_value("auth_tls", '"""' + "x\n" * 1000 + '"""')
    assert message.endswith(', not "' + r"x\n" * 30 + '…"')
