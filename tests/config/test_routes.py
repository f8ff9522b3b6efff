"""Every row of docs/protocol/routing.md, section 2, as data, and everything that a name may not
do."""

import pytest

from proxyd.config.routes import (
    MAX_NAME,
    MAX_PARAMETERS,
    PROBED_SESSION,
    PROBED_SYSTEM,
    Destination,
    RoutingTable,
    Unroutable,
    Uri,
    parse_name,
)

SYSTEM_DIR = "/run/libvirt"
SESSION_DIR = "/run/user/1000/libvirt"

# Which daemon serves which scheme; the last three stand for every scheme that nobody knows.
DAEMONS = {
    "qemu": "virtqemud",
    "xen": "virtxend",
    "lxc": "virtlxcd",
    "vbox": "virtvboxd",
    "bhyve": "virtbhyved",
    "vz": "virtvzd",
    "ch": "virtchd",
    "interface": "virtinterfaced",
    "network": "virtnetworkd",
    "nodedev": "virtnodedevd",
    "nwfilter": "virtnwfilterd",
    "secret": "virtsecretd",
    "storage": "virtstoraged",
    "x": "virtxd",
    "a.b-c": "virta.b-cd",
    "QEMU": "virtQEMUd",
}
MODULAR = {*DAEMONS.values()} - {"virtxd", "virta.b-cd", "virtQEMUd"}
INSIDE = [
    "test",
    "esx",
    "gsx",
    "vpx",
    "hyperv",
    "openvz",
    "parallels",
    "vmwareplayer",
    "vmwarews",
    "vmwarefusion",
]
CLIENT_SIDE = [
    "name",
    "auth",
    "sshauth",
    "netcat",
    "keyfile",
    "pkipath",
    "known_hosts",
    "known_hosts_verify",
    "tls_priority",
    "mode",
    "proxy",
    "no_sanity",
    "no_verify",
    "no_tty",
    "authfile",
]

served_schemes = pytest.mark.parametrize(("scheme", "daemon"), DAEMONS.items())
both_accesses = pytest.mark.parametrize("readonly", [False, True], ids=["rw", "ro"])
both_powers = pytest.mark.parametrize("privileged", [True, False], ids=["root", "user"])


def a_table(*, privileged=True, **routes):
    return RoutingTable(
        privileged=privileged, system_dir=SYSTEM_DIR, session_dir=SESSION_DIR, routes=routes
    )


def resolve(name, *, readonly=False, privileged=True, **routes):
    return a_table(privileged=privileged, **routes).resolve(name, readonly=readonly)


def refusal(name, **routes):
    with pytest.raises(Unroutable) as caught:
        resolve(name, **routes)
    return caught.value.failure


def numbers(said):
    return said.code, said.domain


# ---- scheme to daemon to socket


@served_schemes
@both_accesses
@pytest.mark.parametrize("path", ["/system", "/session", "/", ""])
def test_root_always_goes_to_the_systems_daemon(scheme, daemon, readonly, path):
    suffix = "-ro" if readonly else ""
    assert resolve(f"{scheme}://{path}", readonly=readonly) == Destination(
        name="xen:///system" if (scheme, path) == ("xen", "") else f"{scheme}://{path}",
        daemon=daemon,
        path=f"{SYSTEM_DIR}/{daemon}-sock{suffix}",
        unit=f"{daemon}{suffix}.socket",
    )


@served_schemes
@both_accesses
def test_a_users_proxyd_goes_to_the_users_own_daemon_for_a_session(scheme, daemon, readonly):
    went = resolve(f"{scheme}:///session", readonly=readonly, privileged=False)
    assert went == Destination(
        name=f"{scheme}:///session",
        daemon=daemon,
        path=f"{SESSION_DIR}/{daemon}-sock",
        unit=None,
    )


@served_schemes
@both_accesses
@pytest.mark.parametrize("path", ["/system", "/", "/session/", "/Session", "/sessions"])
def test_a_users_proxyd_goes_to_the_systems_daemon_for_anything_else(
    scheme, daemon, readonly, path
):
    went = resolve(f"{scheme}://{path}", readonly=readonly, privileged=False)
    suffix = "-ro" if readonly else ""
    assert went.path == f"{SYSTEM_DIR}/{daemon}-sock{suffix}"
    assert went.unit == f"{daemon}{suffix}.socket"


def test_a_session_is_known_by_its_path_after_unescaping():
    went = resolve("qemu:///%73ession", privileged=False)
    assert (went.name, went.path) == ("qemu:///session", f"{SESSION_DIR}/virtqemud-sock")


@pytest.mark.parametrize("name", ["xen", "XEN", "Xen", "xen://"])
@both_powers
def test_a_bare_xen_means_the_system(name, privileged):
    went = resolve(name, privileged=privileged)
    assert (went.name, went.path) == ("xen:///system", f"{SYSTEM_DIR}/virtxend-sock")


@pytest.mark.parametrize("name", ["xen:", "xen:?mode=auto", "xen:#top", "XEN:"])
def test_a_xen_without_a_path_means_the_same_when_it_is_read_again(name):
    went = resolve(name)
    assert resolve(went.name) == went


@pytest.mark.parametrize("name", ["qemu", "lxc", "xenx", "xe"])
def test_another_bare_name_has_no_scheme(name):
    assert numbers(refusal(name)) == (5, 0)


# ---- transports


@pytest.mark.parametrize("suffix", ["", "+unix", "+UNIX", "+Unix"])
def test_a_local_transport_is_taken_off(suffix):
    went = resolve(f"qemu{suffix}:///system?a=b")
    assert (went.name, went.daemon) == ("qemu:///system?a=b", "virtqemud")


@pytest.mark.parametrize(
    "transport",
    [
        "tls",
        "tcp",
        "ssh",
        "libssh",
        "libssh2",
        "ext",
        "SSH",
        "Ext",
        "tCP",
        "unix+ssh",
        "unixx",
        "ssh+unix",
        "-",
    ],
)
@pytest.mark.parametrize("rest", [":///system", "://host/system", ":/system", "://", ":"])
def test_any_other_transport_is_refused(transport, rest):
    said = refusal(f"qemu+{transport}{rest}")
    assert numbers(said) == (8, 13)
    assert "transport" in said.message


def test_an_empty_transport_is_refused():
    # docs/protocol/routing.md, section 1: an unknown transport is an error of code 8.
    assert refusal("qemu+:///system").code == 8


@pytest.mark.parametrize("name", ["+unix:///system", "+ssh://h/", "+:///", "1qemu:///system"])
def test_a_name_without_a_driver_is_no_uri(name):
    assert numbers(refusal(name)) == (1, 45)


# ---- hosts


@pytest.mark.parametrize(
    "authority",
    [
        "host",
        "HOST.example.org",
        "host:16509",
        ":16509",
        ":",
        "user@host",
        "user@",
        "@",
        "user:secret@host:1",
        "127.0.0.1",
        "[::1]",
        "[::1]:16514",
        "[]",
        "localhost",
        "%68ost",
        "%2F",
        "..",
        ".",
    ],
)
@pytest.mark.parametrize("scheme", ["qemu", "qemu+unix", "network"])
def test_a_host_is_refused(authority, scheme):
    said = refusal(f"{scheme}://{authority}/system")
    assert numbers(said) == (8, 13)
    assert authority in said.message


@pytest.mark.parametrize("host", ["system", "session"])
@pytest.mark.parametrize("scheme", ["qemu", "vbox", "vz"])
@pytest.mark.parametrize("rest", ["", "/", "?a=b"])
def test_a_forgotten_slash_is_answered_with_the_right_name(scheme, host, rest):
    said = refusal(f"{scheme}://{host}{rest}")
    assert f"{scheme}:///{host}" in said.message


@pytest.mark.parametrize("name", ["qemu://system", "vbox://session", "vz://system"])
def test_a_forgotten_slash_has_the_numbers_of_the_reference(name):
    # docs/protocol/routing.md, section 1: code 1 domain 0.
    assert numbers(refusal(name)) == (1, 0)


@pytest.mark.parametrize("name", ["network://system", "qemu://systems", "qemu://%73ystem"])
def test_only_the_known_typos_get_a_hint(name):
    assert "did you mean" not in refusal(name).message


# ---- what would make a daemon act


@pytest.mark.parametrize(
    "key",
    [
        "socket",
        "SOCKET",
        "Socket",
        "%73ocket",
        "%53OCKET",
        "s%6fcket",
        "%73%6F%63%6B%65%74",
        "command",
        "COMMAND",
        "comMand",
        "%63ommand",
        "comman%64",
        "comman%44",
    ],
)
@pytest.mark.parametrize(
    "shape",
    ["?{}=/bin/x", "?{}", "?{}=", "?a=b&{}=x", "?a=b;{}=x", "?;&{}=x&c=d", "?a=b&{}=x#f"],
)
@pytest.mark.parametrize("start", ["qemu:///system", "qemu+unix:///session", "qemu:"])
def test_a_parameter_that_makes_a_daemon_act_is_refused(start, shape, key):
    said = refusal(start + shape.format(key))
    assert numbers(said) == (8, 13)
    assert "parameter" in said.message


@pytest.mark.parametrize(
    "key", ["sockets", "xsocket", "socke", "command2", "%2573ocket", "+socket"]
)
def test_a_parameter_that_only_looks_alike_is_the_drivers_own(key):
    assert resolve(f"qemu:///system?{key}=1").name.endswith("=1")


def test_an_escaped_percent_stays_one_level_deep():
    went = resolve("qemu:///system?%2573ocket=x&a=%2526socket=y")
    assert went.name == "qemu:///system?%2573ocket=x&a=%2526socket%3Dy"


def test_an_escaped_separator_does_not_become_one():
    went = resolve("qemu:///system?a=b%26socket=/x%3Bcommand%3Dy%23")
    assert went.name == "qemu:///system?a=b%26socket%3D/x%3Bcommand%3Dy%23"


def test_an_escaped_question_mark_stays_in_the_path():
    went = resolve("qemu:///system%3Fsocket=/x%23y")
    assert went.name == "qemu:///system%3Fsocket=/x%23y"


@pytest.mark.parametrize(
    "path",
    ["/embed", "/EMBED", "/Embed", "/embed/", "/embed//", "/%65mbed", "/%45MBED", "/embe%64%2F"],
)
@pytest.mark.parametrize("rest", ["", "?root=/srv/x", "?a=b#c"])
@pytest.mark.parametrize("start", ["qemu://", "qemu+unix://", "qemu:", "secret://"])
def test_loading_a_driver_into_a_daemon_is_refused(start, path, rest):
    said = refusal(start + path + rest)
    assert numbers(said) == (8, 13)
    assert "embed" in said.message


@pytest.mark.parametrize("name", ["qemu:///embedded", "qemu:///system/embed", "qemu:///embe"])
def test_a_path_that_only_looks_alike_goes_on(name):
    assert resolve(name).name == name


# ---- parameters


@pytest.mark.parametrize("key", CLIENT_SIDE)
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_a_parameter_of_the_clients_library_is_dropped(key, spelling):
    went = resolve(f"qemu:///system?a=1&{spelling(key)}=x&b=2")
    assert went.name == "qemu:///system?a=1&b=2"


def test_an_escaped_parameter_of_the_clients_library_is_dropped():
    assert resolve("qemu:///system?%6Dode=legacy&n%61me=lxc:///").name == "qemu:///system"


@pytest.mark.parametrize(
    ("query", "sent_on"),
    [
        ("z=1&a=2&m=3", "?z=1&a=2&m=3"),
        ("a=1&a=2&a=1", "?a=1&a=2&a=1"),
        ("a=1;b=2", "?a=1&b=2"),
        ("a=1&;&b=2;", "?a=1&b=2"),
        ("=value", ""),
        ("=value&a=b&=", "?a=b"),
        ("a", "?a="),
        ("a&b", "?a=&b="),
        ("a=", "?a="),
        ("a=b=c", "?a=b%3Dc"),
        ("keep=a%20b", "?keep=a%20b"),
        ("k=+", "?k=%2B"),
        ("k=%41%7e", "?k=A~"),
        ("k=%c3%a9%FF", "?k=%C3%A9%FF"),
        ("k=/x:y@z", "?k=/x:y@z"),
        ("k=?", "?k=%3F"),
        ("%C3%A9=1", "?%C3%A9=1"),
        ("", ""),
        ("&&;;", ""),
    ],
)
def test_the_drivers_own_parameters_go_on_in_their_order(query, sent_on):
    assert resolve(f"qemu:///system?{query}").name == f"qemu:///system{sent_on}"


# ---- paths


@pytest.mark.parametrize(
    "name", ["a/../../x:///system", "../x:///system", "a%2F..:///system", "a%2fb:///", "a\\b:///"]
)
def test_a_scheme_never_leads_out_of_the_directory(name):
    assert refusal(name).code in {1, 5}


@pytest.mark.parametrize(
    ("name", "sent_on"),
    [
        ("qemu:/system", "qemu:///system"),
        ("qemu:///system#top", "qemu:///system"),
        ("qemu:///system#?socket=/x", "qemu:///system"),
        ("qemu:////host/system", "qemu:////host/system"),
        ("qemu:%2F%2Fhost/system", "qemu:////host/system"),
        ("qemu:///a%20b", "qemu:///a%20b"),
        ("qemu:///%7Euser/%41", "qemu:///~user/A"),
        ("qemu:///a;b,c=d", "qemu:///a;b,c=d"),
        ("qemu:///[a]", "qemu:///%5Ba%5D"),
        ("qemu:///%ff", "qemu:///%FF"),
        ("qemu:///..", "qemu:///.."),
        ("lxc:///", "lxc:///"),
        ("ch:", "ch://"),
        ("ch:?a=b", "ch://?a=b"),
    ],
)
def test_what_goes_on_is_put_together_anew(name, sent_on):
    assert resolve(name).name == sent_on


@pytest.mark.parametrize(
    "name", ["qemu:system", "qemu:session", "qemu:host/system", "qemu:%73ystem", "qemu:..", "xen:x"]
)
def test_a_relative_path_never_becomes_a_host(name):
    said = refusal(name)
    assert numbers(said) == (1, 45)
    assert "relative" in said.message


# ---- texts that are no URI


@pytest.mark.parametrize(
    "name",
    [
        "qemu:///sys tem",
        " qemu:///system",
        "qemu:///system ",
        "qemu:///system\n",
        "qemu:///sys\ttem",
        "qemu:///\x00",
        "qemu:///\x7f",
        "qemu:///é",
        "qemu:///\udcff",
        "qému:///system",
        "qemu:///％65mbed",
        'qemu:///"',
        "qemu:///<x>",
        "qemu:///a\\b",
        "qemu:///^`{|}",
        "qemu:///%",
        "qemu:///%6",
        "qemu:///%6g",
        "qemu:///%%65mbed",
        "qemu:///system?a=%zz",
        "qemu:///system?a=%",
        "qemu:///system#%",
        ":///system",
        "://",
        ":",
        "qemu\n:///system",
        "[::1]:1",
    ],
)
def test_what_is_no_uri_is_refused(name):
    assert numbers(refusal(name)) == (1, 45)


@pytest.mark.parametrize("escape", ["%00", "%0A", "%0d", "%09", "%1B", "%1f", "%7F"])
@pytest.mark.parametrize("shape", ["/sys{}", "/system?a={}", "/system?{}=a", "/system?mode={}"])
def test_a_hidden_control_character_is_refused(shape, escape):
    said = refusal("qemu://" + shape.format(escape))
    assert numbers(said) == (1, 45)
    assert "control character" in said.message


@pytest.mark.parametrize("name", ["", "/system", "system", "//host/system", "?a=b", "#f"])
def test_a_text_without_a_scheme_has_no_driver(name):
    assert numbers(refusal(name)) == (5, 0)


@pytest.mark.parametrize("name", ["/system:x", "./a:b", "//host:16509/system", "?a=b:c", "#a:b"])
def test_a_colon_further_on_makes_no_scheme(name):
    # docs/protocol/routing.md, section 1: a URI without a scheme is code 5 domain 0.
    assert numbers(refusal(name)) == (5, 0)


@pytest.mark.parametrize("name", ["a b", "é", "%", "a\n", "\x00"])
def test_what_is_no_uri_is_so_even_without_a_colon(name):
    # docs/protocol/routing.md, section 1: unparsable is code 1 domain 45.
    assert numbers(refusal(name)) == (1, 45)


def test_a_name_as_long_as_may_be_goes_on():
    name = "qemu:///" + "x" * (MAX_NAME - len("qemu:///"))
    assert resolve(name).name == name


@pytest.mark.parametrize("name", ["qemu:///" + "x" * MAX_NAME, "x" * (MAX_NAME + 1)])
def test_a_name_too_long_is_refused(name):
    said = refusal(name)
    assert numbers(said) == (1, 45)
    assert f"more than {MAX_NAME}" in said.message
    assert len(said.message) < 200


def test_a_name_that_escapes_make_too_long_is_refused():
    name = "qemu:///system?a=" + "!" * (MAX_NAME // 2)
    assert f"more than {MAX_NAME}" in refusal(name).message


# ---- routes of the configuration


@both_accesses
@both_powers
@pytest.mark.parametrize("path", ["/system", "/session"])
def test_a_route_may_name_another_daemon(readonly, privileged, path):
    went = resolve(f"ch://{path}", readonly=readonly, privileged=privileged, ch="virtqemud")
    instead = resolve(f"qemu://{path}", readonly=readonly, privileged=privileged)
    assert (went.daemon, went.path, went.unit) == (instead.daemon, instead.path, instead.unit)
    assert went.name == f"ch://{path}"


@pytest.mark.parametrize(
    ("path", "readonly", "privileged", "socket"),
    [
        ("/system", False, True, f"{SYSTEM_DIR}/libvirt-sock"),
        ("/system", True, True, f"{SYSTEM_DIR}/libvirt-sock-ro"),
        ("/system", True, False, f"{SYSTEM_DIR}/libvirt-sock-ro"),
        ("/session", False, True, f"{SYSTEM_DIR}/libvirt-sock"),
        ("/session", False, False, f"{SESSION_DIR}/libvirt-sock"),
        ("/session", True, False, f"{SESSION_DIR}/libvirt-sock"),
    ],
)
def test_the_monolithic_daemon_has_sockets_of_its_own_name(path, readonly, privileged, socket):
    went = resolve(f"qemu://{path}", readonly=readonly, privileged=privileged, qemu="libvirtd")
    assert (went.daemon, went.path) == ("libvirtd", socket)


@both_accesses
@both_powers
@pytest.mark.parametrize("path", ["/system", "/session", "/default"])
def test_a_route_to_a_path_is_that_path(readonly, privileged, path):
    went = resolve(f"test://{path}", readonly=readonly, privileged=privileged, test="/srv/t-sock")
    assert went == Destination(f"test://{path}", "t-sock", "/srv/t-sock", None)


def test_a_route_matches_its_scheme_to_the_letter():
    assert resolve("QEMU:///system", qemu="/srv/sock").daemon == "virtQEMUd"
    assert resolve("qemu+unix:///system", qemu="/srv/sock").path == "/srv/sock"


@pytest.mark.parametrize(
    "name", ["test://host/", "test+ssh:///", "test:///x?socket=/y", "test:///embed"]
)
def test_a_route_lets_nothing_dangerous_pass(name):
    assert numbers(refusal(name, test="/srv/t-sock")) == (8, 13)


@pytest.mark.parametrize("scheme", INSIDE)
@both_powers
def test_a_driver_that_no_daemon_serves_is_refused_with_the_remedy(scheme, privileged):
    said = refusal(f"{scheme}:///default", privileged=privileged)
    assert numbers(said) == (67, 0)
    assert f'proxyd_routes = [ "{scheme}=/path/to/socket" ]' in said.message


@pytest.mark.parametrize("scheme", INSIDE)
def test_a_driver_that_a_route_names_is_served(scheme):
    went = resolve(f"{scheme}:///default", **{scheme: "libvirtd"})
    assert went.path == f"{SYSTEM_DIR}/libvirt-sock"


# ---- an empty name


@both_accesses
def test_root_looks_for_the_systems_daemons_in_the_order_of_the_reference(readonly):
    suffix = "-ro" if readonly else ""
    assert list(a_table().probed(readonly=readonly)) == [
        (f"{SYSTEM_DIR}/virt{driver}d-sock{suffix}", f"{driver}:///system")
        for driver in ("xen", "qemu", "lxc", "vbox", "bhyve", "vz")
    ]


@both_accesses
def test_a_user_looks_for_the_users_own_daemons(readonly):
    assert list(a_table(privileged=False).probed(readonly=readonly)) == [
        (f"{SESSION_DIR}/virt{driver}d-sock", f"{driver}:///session") for driver in ("qemu", "vbox")
    ]


def test_a_route_is_looked_for_where_it_leads():
    found = dict(a_table(qemu="libvirtd", vbox="/srv/vbox").probed(readonly=True))
    assert found[f"{SYSTEM_DIR}/libvirt-sock-ro"] == "qemu:///system"
    assert found["/srv/vbox"] == "vbox:///system"


@pytest.mark.parametrize("driver", [*PROBED_SYSTEM, *PROBED_SESSION])
def test_everything_that_is_looked_for_has_a_daemon(driver):
    assert DAEMONS[driver] == f"virt{driver}d"


# ---- the parts of a name


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("qemu:///system", Uri("qemu", "/system")),
        ("qemu+unix:///a%20b?c=d%26;e", Uri("qemu", "/a b", (("c", "d&"), ("e", "")))),
        ("test:///%E9", Uri("test", "/\udce9")),
        ("lxc:", Uri("lxc", "")),
    ],
)
def test_a_name_is_taken_apart(name, uri):
    assert parse_name(name) == uri


def test_a_refusal_reads_as_its_failure():
    with pytest.raises(Unroutable) as caught:
        parse_name("qemu://host/system")
    assert str(caught.value) == caught.value.failure.message


# ---- where connections may go


def known(*, privileged=True, **routes):
    return a_table(privileged=privileged, **routes).known()


@both_powers
def test_libvirts_own_daemons_are_known(privileged):
    directory = SYSTEM_DIR if privileged else SESSION_DIR
    assert [each.path for each in known(privileged=privileged)] == [
        f"{directory}/{daemon}-sock" for daemon in DAEMONS.values() if daemon in MODULAR
    ]


def test_what_the_routes_name_comes_first_and_in_the_place_of_the_rule():
    found = known(test="/run/test-sock", qemu="/srv/qemu-sock", a="virtad")
    assert [each.path for each in found[:3]] == [
        "/run/test-sock",
        "/srv/qemu-sock",
        f"{SYSTEM_DIR}/virtad-sock",
    ]
    assert "virtqemud" not in {each.daemon for each in found}
    assert len(found) == 3 + len(MODULAR) - 1


def test_a_socket_that_several_names_lead_to_is_known_once():
    found = known(test="/run/one", esx="/run/one", QEMU="virtqemud")
    assert [each.path for each in found].count("/run/one") == 1
    assert [each.daemon for each in found].count("virtqemud") == 1


def test_a_route_for_a_name_that_no_client_may_give_is_left_out():
    routes = {"qemu+ssh": "virtqemud", "x" * MAX_NAME: "virtxd", "xen+tls": "/run/x"}
    assert known(**routes) == known()


def test_a_route_for_a_driver_inside_is_known_and_the_driver_alone_is_not():
    assert next(each.path for each in known(esx="/run/esx")) == "/run/esx"
    assert not {each.daemon for each in known()} & {f"virt{driver}d" for driver in INSIDE}


def test_as_many_parameters_as_may_be_go_on():
    query = "&".join(f"a{n}=b" for n in range(MAX_PARAMETERS))
    assert str(parse_name(f"qemu:///system?{query}")).endswith(query)


@pytest.mark.parametrize("separator", "&;")
def test_more_parameters_lead_nowhere(separator):
    query = separator.join(["a=b"] * (MAX_PARAMETERS + 1))
    said = refusal(f"qemu:///system?{query}").message
    assert f"more than {MAX_PARAMETERS} parameters" in said
