"""What each call does to a daemon, and what it says when that cannot be done."""

import pytest
import trio

from proxyd.admin.procedures import ACTS, act_of
from proxyd.admin.proxyd_program import OWN_ACTS
from proxyd.admin.view import Limits, PoolBounds
from proxyd.config.logstrings import parse_filters, parse_outputs
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.wire import adminrpc, failure
from proxyd.wire.adminrpc import (
    ClientEntry,
    ClientList,
    Flags,
    ListClients,
    ListServers,
    LookUpClient,
    OfClient,
    OfServer,
    ServerList,
    SetLogging,
    SetParams,
    SetTimeout,
)
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import Admin, Own
from tests.admin.asking import ask, counts, numbers, refused, shown
from tests.fakes.admin import LIB_VERSION, NO_FILE, FakeServer, FakeView

NOBODY = ClientEntry("virtproxyd", 77)
ELSEWHERE = ClientEntry("libvirtd", 1)


@pytest.fixture
def host():
    return FakeView(FakeServer("admin"))


def test_every_procedure_but_open_and_close_is_carried_out_here():
    assert set(ACTS) == set(Admin) - {Admin.CONNECT_OPEN, Admin.CONNECT_CLOSE}
    assert set(OWN_ACTS) == set(Own)


def test_what_changes_something_is_known():
    known = [each for each in (*ACTS, *OWN_ACTS) if act_of(each).changes]
    assert {each.name for each in known} == {
        "SERVER_SET_THREADPOOL_PARAMETERS",
        "CLIENT_CLOSE",
        "SERVER_SET_CLIENT_LIMITS",
        "CONNECT_SET_LOGGING_OUTPUTS",
        "CONNECT_SET_LOGGING_FILTERS",
        "SERVER_UPDATE_TLS_FILES",
        "CONNECT_SET_DAEMON_TIMEOUT",
        "CONNECT_DAEMON_SHUTDOWN",
        "CLOSE_CLIENT",
        "RELOAD",
        "DRAIN",
        "UPGRADE",
        "RULES",
    }


async def test_the_version_is_that_of_the_libvirt_it_stands_for(host):
    said = await ask(host, Admin.CONNECT_GET_LIB_VERSION)
    assert adminrpc.unpack_version(said) == LIB_VERSION


async def test_servers_are_listed(host):
    said = await ask(host, Admin.CONNECT_LIST_SERVERS, ListServers())
    assert ServerList.unpack(said) == ServerList(("virtproxyd", "admin"), 2)


async def test_servers_are_only_counted_when_no_results_are_needed(host):
    said = await ask(host, Admin.CONNECT_LIST_SERVERS, ListServers(need_results=False))
    assert ServerList.unpack(said) == ServerList((), 2)


@pytest.mark.parametrize("flags", [0, 4])
async def test_a_server_is_found_whatever_the_flags_say(host, flags):
    said = await ask(host, Admin.CONNECT_LOOKUP_SERVER, OfServer("admin", flags))
    assert adminrpc.unpack_server(said) == "admin"


async def test_the_pool_is_shown_with_six_counts_in_libvirts_order(host):
    said = await ask(host, Admin.SERVER_GET_THREADPOOL_PARAMETERS, OfServer("virtproxyd"))
    assert shown(said) == [
        ("minWorkers", "UINT", 2),
        ("maxWorkers", "UINT", 8),
        ("nWorkers", "UINT", 3),
        ("freeWorkers", "UINT", 1),
        ("prioWorkers", "UINT", 5),
        ("jobQueueDepth", "UINT", 7),
    ]


async def test_a_pool_is_told_its_new_bounds_and_keeps_what_is_not_named(host):
    arguments = counts("virtproxyd", maxWorkers=9, prioWorkers=0)
    assert await ask(host, Admin.SERVER_SET_THREADPOOL_PARAMETERS, arguments) == b""
    assert host.main.told == [PoolBounds(min_workers=2, max_workers=9, prio_workers=0)]


async def test_clients_are_listed_in_the_order_in_which_they_came(host):
    host.main.join()
    host.main.join(transport=Transport.TLS, identity=None)
    said = await ask(host, Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd"))
    assert ClientList.unpack(said) == ClientList(
        (
            ClientEntry("virtproxyd", 1, 1700000001, 0),
            ClientEntry("virtproxyd", 2, 1700000002, 2),
        ),
        2,
    )


async def test_clients_are_only_counted_when_no_results_are_needed(host):
    host.main.join()
    said = await ask(host, Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd", need_results=False))
    assert ClientList.unpack(said) == ClientList((), 1)


async def test_as_many_clients_are_listed_as_the_protocol_allows(host, autojump_clock):
    for _ in range(adminrpc.MAX_CLIENTS):
        host.main.join()
    said = ClientList.unpack(await ask(host, Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd")))
    assert said.total == adminrpc.MAX_CLIENTS
    assert [client.number for client in said.clients] == list(range(1, adminrpc.MAX_CLIENTS + 1))


async def test_more_clients_than_the_protocol_allows_are_counted_and_not_listed(host):
    for _ in range(adminrpc.MAX_CLIENTS + 1):
        host.main.join()
    said = await refused(host, Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd"))
    assert (*numbers(said), said.str2) == (
        1,
        7,
        "16385 clients are connected, a list has room for 16384",
    )
    count = await ask(
        host, Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd", need_results=False)
    )
    assert ClientList.unpack(count).total == 16385


async def test_others_get_their_turn_while_many_clients_are_listed(host, nursery, autojump_clock):
    for _ in range(5000):
        host.main.join()
    turns = []

    async def take_turns():
        while True:
            turns.append(trio.current_time())
            await trio.sleep(0.0002)

    nursery.start_soon(take_turns)
    await ask(host, Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd"))
    assert len(turns) >= 4  # the pauses between five pieces
    nursery.cancel_scope.cancel()


async def test_who_leaves_while_a_list_is_made_does_not_spoil_it(host, nursery, autojump_clock):
    clients = [host.main.join() for _ in range(3000)]

    async def leave():
        await trio.sleep(0.0001)
        for client in clients:
            client.close()

    nursery.start_soon(leave)
    said = await ask(host, Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd"))
    assert host.main.clients() == []
    assert len(ClientList.unpack(said).clients) == 3000


async def test_a_client_is_found(host):
    host.main.join(transport=Transport.TCP)
    said = await ask(host, Admin.SERVER_LOOKUP_CLIENT, LookUpClient("virtproxyd", 1))
    assert ClientEntry.unpack(said) == ClientEntry("virtproxyd", 1, 1700000001, 1)


async def test_a_client_is_closed_whatever_else_its_entry_says(host):
    client = host.main.join()
    entry = ClientEntry("virtproxyd", 1, timestamp=-5, transport=99)
    assert await ask(host, Admin.CLIENT_CLOSE, OfClient(entry)) == b""
    assert client.closed


async def info(host, **known):
    client = host.main.join(**known)
    entry = ClientEntry("virtproxyd", client.number)
    return shown(await ask(host, Admin.CLIENT_GET_INFO, OfClient(entry)))


async def test_a_client_of_this_host_is_shown_with_user_group_and_process(host):
    everything = ClientIdentity(
        user_name="fred",
        uid=1000,
        group_name="users",
        gid=100,
        pid=4242,
        start_ticks=9,
        selinux_context="staff_u:staff_r:staff_t:s0",
        sasl_user_name="fred@EXAMPLE.COM",
    )
    assert await info(host, identity=everything) == [
        ("readonly", "BOOLEAN", False),
        ("sasl_user_name", "STRING", "fred@EXAMPLE.COM"),
        ("unix_user_id", "INT", 1000),
        ("unix_user_name", "STRING", "fred"),
        ("unix_group_id", "INT", 100),
        ("unix_group_name", "STRING", "users"),
        ("unix_process_id", "INT", 4242),
        ("selinux_context", "STRING", "staff_u:staff_r:staff_t:s0"),
    ]


async def test_a_client_of_the_network_is_shown_with_address_and_certificate(host):
    shown_info = await info(
        host,
        transport=Transport.TLS,
        address="[::1]:40000",
        identity=ClientIdentity(x509_dname="CN=kvm1", sasl_user_name="joe"),
    )
    assert shown_info == [
        ("readonly", "BOOLEAN", False),
        ("sasl_user_name", "STRING", "joe"),
        ("sock_addr", "STRING", "[::1]:40000"),
        ("tls_x509_dname", "STRING", "CN=kvm1"),
    ]


async def test_only_of_a_tls_client_is_shown_what_its_word_is_taken_on(host):
    shown_info = await info(host, transport=Transport.TLS, address="x:1", authentication="x509")
    assert ("authentication", "STRING", "x509") in shown_info
    others = await info(host, authentication="polkit")
    assert [name for name, _, _ in others] == [name for name, _, _ in await info(host)]


async def test_numbers_above_two_billion_are_shown_as_an_int_can(host):
    odd = ClientIdentity(uid=2**32 - 2, gid=2**31, pid=-1)
    assert await info(host, identity=odd) == [
        ("readonly", "BOOLEAN", False),
        ("unix_user_id", "INT", -2),
        ("unix_group_id", "INT", -(2**31)),
        ("unix_process_id", "INT", -1),
    ]


async def test_limits_are_shown_with_four_counts_in_libvirts_order(host):
    host.main.join()
    host.main.anonymous = 1
    said = await ask(host, Admin.SERVER_GET_CLIENT_LIMITS, OfServer("virtproxyd"))
    assert shown(said) == [
        ("nclients_max", "UINT", 5000),
        ("nclients", "UINT", 1),
        ("nclients_unauth_max", "UINT", 20),
        ("nclients_unauth", "UINT", 1),
    ]


async def test_limits_are_set_and_what_is_not_named_stays(host):
    await ask(host, Admin.SERVER_SET_CLIENT_LIMITS, counts("virtproxyd", nclients_max=100))
    assert host.main.limits == Limits(max_clients=100, max_anonymous=20)
    await ask(host, Admin.SERVER_SET_CLIENT_LIMITS, counts("virtproxyd", nclients_unauth_max=100))
    assert host.main.limits == Limits(max_clients=100, max_anonymous=100)


@pytest.mark.parametrize(
    "procedure", [Admin.SERVER_SET_CLIENT_LIMITS, Admin.SERVER_SET_THREADPOOL_PARAMETERS]
)
async def test_setting_nothing_changes_nothing(host, procedure):
    assert await ask(host, procedure, counts("virtproxyd")) == b""
    assert host.main.told == []


async def test_log_outputs_are_read_back_in_one_line(host):
    said = await ask(host, Admin.CONNECT_GET_LOGGING_OUTPUTS, Flags())
    assert adminrpc.unpack_outputs(said) == ("3:stderr 1:file:/var/log/x", 2)


async def test_log_filters_are_read_back_as_they_are_kept(host):
    host.log_filters = parse_filters("1:rpc 4:+util")
    said = await ask(host, Admin.CONNECT_GET_LOGGING_FILTERS, Flags())
    assert adminrpc.unpack_filters(said) == ("1:*rpc* 4:*util* ", 2)


async def test_no_log_filters_are_read_back_as_none(host):
    said = await ask(host, Admin.CONNECT_GET_LOGGING_FILTERS, Flags())
    assert adminrpc.unpack_filters(said) == (None, 0)


async def test_log_outputs_are_set(host):
    await ask(host, Admin.CONNECT_SET_LOGGING_OUTPUTS, SetLogging("1:stderr  2:syslog:px"))
    assert host.log_outputs == parse_outputs("1:stderr 2:syslog:px")


@pytest.mark.parametrize("nothing", ["", " ", None])
async def test_no_log_outputs_stand_for_the_default(host, nothing):
    await ask(host, Admin.CONNECT_SET_LOGGING_OUTPUTS, SetLogging(nothing))
    assert host.log_outputs == parse_outputs("3:journald")


@pytest.mark.parametrize(("text", "kept"), [("1:rpc", "1:rpc"), ("", ""), (None, "")])
async def test_log_filters_are_set(host, text, kept):
    host.log_filters = parse_filters("4:before")
    await ask(host, Admin.CONNECT_SET_LOGGING_FILTERS, SetLogging(text))
    assert host.log_filters == parse_filters(kept)


async def test_certificates_are_loaded_anew(host):
    assert await ask(host, Admin.SERVER_UPDATE_TLS_FILES, OfServer("virtproxyd")) == b""
    assert host.main.told == ["TLS"]


async def test_what_the_daemon_cannot_do_is_told_in_its_own_words(host):
    host.main.refusal = failure.internal("the certificate has expired")
    for procedure, arguments in (
        (Admin.SERVER_UPDATE_TLS_FILES, OfServer("virtproxyd")),
        (Admin.SERVER_SET_CLIENT_LIMITS, counts("virtproxyd", nclients_max=99)),
        (Admin.SERVER_SET_THREADPOOL_PARAMETERS, counts("virtproxyd", maxWorkers=99)),
    ):
        assert await refused(host, procedure, arguments) == host.main.refusal


async def test_the_idle_timeout_is_set(host):
    await ask(host, Admin.CONNECT_SET_DAEMON_TIMEOUT, SetTimeout(30))
    await ask(host, Admin.CONNECT_SET_DAEMON_TIMEOUT, SetTimeout(0))
    assert host.told == [("idle exit", 30), ("idle exit", 0)]


@pytest.mark.parametrize("preserve", [False, True])
async def test_the_daemon_is_shut_down(host, preserve):
    await ask(host, Admin.CONNECT_DAEMON_SHUTDOWN, Flags(preserve))
    assert host.told == [("shut down", preserve)]


FLAGGED = [
    (Admin.CONNECT_LIST_SERVERS, ListServers(flags=4)),
    (Admin.SERVER_GET_THREADPOOL_PARAMETERS, OfServer("virtproxyd", 4)),
    (Admin.SERVER_SET_THREADPOOL_PARAMETERS, counts("virtproxyd", 4, bogus=1)),
    (Admin.SERVER_LIST_CLIENTS, ListClients("virtproxyd", flags=4)),
    (Admin.SERVER_LOOKUP_CLIENT, LookUpClient("virtproxyd", 1, 4)),
    (Admin.CLIENT_GET_INFO, OfClient(ClientEntry("virtproxyd", 1), 4)),
    (Admin.CLIENT_CLOSE, OfClient(ClientEntry("virtproxyd", 1), 4)),
    (Admin.SERVER_GET_CLIENT_LIMITS, OfServer("virtproxyd", 4)),
    (Admin.SERVER_SET_CLIENT_LIMITS, counts("virtproxyd", 4, bogus=1)),
    (Admin.CONNECT_GET_LOGGING_OUTPUTS, Flags(4)),
    (Admin.CONNECT_GET_LOGGING_FILTERS, Flags(4)),
    (Admin.CONNECT_SET_LOGGING_OUTPUTS, SetLogging("bogus", 4)),
    (Admin.CONNECT_SET_LOGGING_FILTERS, SetLogging("bogus", 4)),
    (Admin.SERVER_UPDATE_TLS_FILES, OfServer("virtproxyd", 4)),
    (Admin.CONNECT_SET_DAEMON_TIMEOUT, SetTimeout(30, 4)),
    (Admin.CONNECT_DAEMON_SHUTDOWN, Flags(5)),
]


@pytest.mark.parametrize(("procedure", "arguments"), FLAGGED)
async def test_unknown_flags_are_refused_and_nothing_is_done(host, procedure, arguments):
    client = host.main.join()
    said = await refused(host, procedure, arguments)
    assert said == failure.unsupported_flags(4, procedure.name)
    assert (host.told, host.main.told, client.closed) == ([], [], False)


UNKNOWN = [
    (Admin.CONNECT_LOOKUP_SERVER, OfServer("libvirtd"), (95, 7)),
    (Admin.SERVER_GET_THREADPOOL_PARAMETERS, OfServer("libvirtd", 4), (95, 7)),
    (Admin.SERVER_SET_THREADPOOL_PARAMETERS, counts("libvirtd", 4, bogus=1), (95, 62)),
    (Admin.SERVER_LIST_CLIENTS, ListClients("libvirtd"), (95, 7)),
    (Admin.SERVER_LOOKUP_CLIENT, LookUpClient("libvirtd", 1), (95, 7)),
    (Admin.SERVER_LOOKUP_CLIENT, LookUpClient("virtproxyd", 77), (96, 7)),
    (Admin.CLIENT_GET_INFO, OfClient(ELSEWHERE), (95, 62)),
    (Admin.CLIENT_GET_INFO, OfClient(NOBODY), (96, 62)),
    (Admin.CLIENT_CLOSE, OfClient(ELSEWHERE), (95, 7)),
    (Admin.CLIENT_CLOSE, OfClient(NOBODY), (96, 7)),
    (Admin.SERVER_GET_CLIENT_LIMITS, OfServer("libvirtd"), (95, 7)),
    (Admin.SERVER_SET_CLIENT_LIMITS, counts("libvirtd", 4, bogus=1), (95, 62)),
    (Admin.SERVER_UPDATE_TLS_FILES, OfServer("libvirtd"), (95, 7)),
]


@pytest.mark.parametrize(("procedure", "arguments", "expected"), UNKNOWN)
async def test_what_is_not_there_is_not_found(host, procedure, arguments, expected):
    said = await refused(host, procedure, arguments)
    assert numbers(said) == expected
    wanted = "there are virtproxyd and admin" if said.code == 95 else "virtproxyd has no client 77"
    assert wanted in said.message


async def test_a_client_that_nobody_knows_yet_has_no_info(host):
    host.main.join(identity=None)
    said = await refused(host, Admin.CLIENT_GET_INFO, OfClient(ClientEntry("virtproxyd", 1)))
    assert (*numbers(said), said.str2) == (1, 7, "who client 1 of virtproxyd is, is not known yet")


POOL = Admin.SERVER_SET_THREADPOOL_PARAMETERS
LIMITS = Admin.SERVER_SET_CLIENT_LIMITS
UINT = ParamType.UINT


@pytest.mark.parametrize(
    ("procedure", "params", "expected", "text"),
    [
        (POOL, [("bogus", UINT, 1)], (74, 0), '"bogus" cannot be set, only minWorkers and max'),
        (POOL, [("nWorkers", UINT, 1)], (74, 0), '"nWorkers" cannot be set'),
        (LIMITS, [("nclients", UINT, 1)], (74, 0), "only nclients_max and nclients_unauth_max can"),
        (POOL, [("minWorkers", ParamType.INT, 1)], (8, 0), "minWorkers is of type INT"),
        (POOL, [("minWorkers", ParamType.STRING, "1")], (8, 0), "expected is UINT"),
        (LIMITS, [("nclients_max", ParamType.ULLONG, 1)], (8, 0), "is of type ULLONG"),
        (POOL, [("minWorkers", UINT, 1)] * 2, (8, 0), "minWorkers is given more than once"),
        (LIMITS, [("nclients_max", UINT, 99)] * 2, (8, 0), "nclients_max is given more than once"),
        (POOL, [("minWorkers", UINT, 9)], (8, 0), "minWorkers 9 is more than maxWorkers 8"),
        (POOL, [("maxWorkers", UINT, 1)], (8, 0), "minWorkers 2 is more than maxWorkers 1"),
        (
            POOL,
            [("maxWorkers", UINT, 0), ("minWorkers", UINT, 0)],
            (8, 0),
            "maxWorkers cannot change from 8 to 0",
        ),
        (
            LIMITS,
            [("nclients_max", UINT, 19)],
            (8, 7),
            "unauth_max 20 is more than nclients_max 19",
        ),
        (
            LIMITS,
            [("nclients_unauth_max", UINT, 2**32 - 1)],
            (8, 7),
            "4294967295 is more than nclients_max 5000",
        ),
    ],
)
async def test_a_parameter_that_cannot_be_is_refused(host, procedure, params, expected, text):
    listed = tuple(Param(*fields) for fields in params)
    said = await refused(host, procedure, SetParams("virtproxyd", listed))
    assert numbers(said) == expected
    assert text in said.message
    assert host.main.told == []


@pytest.mark.parametrize(
    ("procedure", "text", "told"),
    [
        (Admin.CONNECT_SET_LOGGING_OUTPUTS, "bogus", '"bogus": an output is a level'),
        (Admin.CONNECT_SET_LOGGING_OUTPUTS, "3:stderr 5:stderr", '"5:stderr": the level is 1'),
        (Admin.CONNECT_SET_LOGGING_FILTERS, "bogus", '"bogus": a filter is a level'),
    ],
)
async def test_a_bad_log_string_is_refused(host, procedure, text, told):
    before = host.log_outputs, host.log_filters
    said = await refused(host, procedure, SetLogging(text))
    assert numbers(said) == (8, 0)
    assert told in said.message
    assert (host.log_outputs, host.log_filters) == before


async def test_a_log_file_that_cannot_be_opened_is_a_system_error(host):
    said = await refused(host, Admin.CONNECT_SET_LOGGING_OUTPUTS, SetLogging(f"1:file:{NO_FILE}"))
    assert (*numbers(said), said.int1) == (38, 0, 2)


@pytest.mark.parametrize("procedure", set(ACTS) - {Admin.CONNECT_GET_LIB_VERSION})
async def test_arguments_that_are_cut_cannot_be_decoded(host, procedure):
    class Cut:
        def pack(self):
            return b"\0\0\0"

    said = await refused(host, procedure, Cut())
    assert numbers(said) == (39, 7)
    assert said.message.startswith("Unable to decode message payload: ")


async def test_too_many_parameters_cannot_be_decoded(host):
    class TooMany:
        def pack(self):
            return bytes.fromhex("00000005 61646d69 6e000000 00000021") + bytes(1000)

    said = await refused(host, POOL, TooMany())
    assert numbers(said) == (39, 7)
