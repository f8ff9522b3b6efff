import errno
import itertools
import os
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from proxyd.config.settings import Settings
from proxyd.config.transports import Transport
from proxyd.listen.activation import (
    Recognised,
    Service,
    activated_admin_listeners,
    activated_listeners,
    as_activated,
    recognise,
    take_passed,
    warn_of_no_effect,
)
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.wire.programs import AuthMethod

SETTINGS = Settings(auth_unix_rw="none", auth_unix_ro="polkit", auth_tcp="none")
PID = os.getpid()
FIRST = 700  # far from pytest's own, which at 3 would be in the way
ALL = [*Service]


class Systemd:
    """Listens, and passes copies in; its own are what is left when the daemon has ended."""

    def __init__(self, directory):
        self.directory = directory
        self.sockets = []
        self.given_back = ExitStack()
        self.environ = {"LISTEN_PID": str(PID), "HOME": "/root"}

    def unix(self, name="libvirt-sock", kind=socket.SOCK_STREAM, *, listens=True):
        return self.keep(socket.AF_UNIX, str(self.directory / name), kind, listens=listens)

    def tcp(self, port=0, family=socket.AF_INET):
        return self.keep(family, ("127.0.0.1" if family == socket.AF_INET else "::1", port))

    def keep(self, family, address, kind=socket.SOCK_STREAM, *, listens=True):
        made = socket.socket(family, kind)
        self.sockets.append(made)
        made.bind(address)
        if listens:
            made.listen(5)
        return made

    def pass_in(self, *descriptors, names=None, kept=None):
        """The descriptors at the numbers from FIRST on, open to children as systemd leaves them."""
        for number, fd in enumerate(descriptors, FIRST):
            os.dup2(fd if isinstance(fd, int) else fd.fileno(), number)
        self.environ["LISTEN_FDS"] = str(len(descriptors))
        if names is not None:
            self.environ["LISTEN_FDNAMES"] = ":".join(names)
        return self.take(kept)

    def take(self, kept=None):
        return take_passed(self.environ, self.given_back, pid=PID, first=FIRST, kept=kept)

    def close(self):
        self.given_back.close()
        for each in self.sockets:
            each.close()
        for number in range(FIRST, FIRST + 100):
            with suppress(OSError):
                os.close(number)


@pytest.fixture
def systemd(tmp_path):
    made = Systemd(tmp_path)
    yield made
    made.close()


def services(passed, settings=SETTINGS, *, privileged=True):
    return [each.service for each in recognise(passed, settings, privileged=privileged)]


def one_of_each(systemd):
    local = [systemd.unix(name) for name in ("a", "b", "c")]
    return systemd.pass_in(*local, systemd.tcp(), systemd.tcp(), names=ALL)


def connected(listener):
    client = socket.socket(listener.family)
    client.settimeout(5)
    client.connect(listener.getsockname())
    return client


def test_a_process_that_was_not_activated_has_no_sockets(systemd):
    del systemd.environ["LISTEN_PID"]
    assert systemd.take() == []


def test_without_a_count_there_are_no_sockets(systemd):
    assert systemd.take() == []


def test_sockets_for_another_process_are_left_alone(systemd):
    systemd.environ["LISTEN_PID"] = str(PID + 1)
    assert systemd.pass_in(systemd.unix()) == []
    assert os.get_inheritable(FIRST)


@pytest.mark.parametrize("spelled", ["", "x", "-1", " {}", "0{}", "{}\n"])
def test_a_pid_that_is_not_ours_to_the_letter_is_anothers(systemd, spelled):
    systemd.environ["LISTEN_PID"] = spelled.format(PID)
    assert systemd.pass_in(systemd.unix()) == []


def test_no_sockets_are_fine(systemd):
    assert systemd.pass_in() == []


def test_the_variables_are_taken_away_and_no_others(systemd):
    systemd.environ["LISTEN_PIDFDID"] = "1"
    systemd.pass_in(systemd.unix(), names=["virtproxyd.socket"])
    assert systemd.environ == {"HOME": "/root"}


def test_the_variables_are_taken_away_where_they_are_anothers(systemd):
    systemd.environ["LISTEN_PID"] = "1"
    systemd.pass_in(systemd.unix(), names=["x"])
    assert systemd.environ == {"HOME": "/root"}


@pytest.mark.parametrize("count", ["", "x", "-1", "+1", "1.5", "٣", "9" * 5000])
def test_a_count_that_is_no_number_is_refused(systemd, count):
    systemd.environ["LISTEN_FDS"] = count
    with pytest.raises(StartFailed, match="is not a number of sockets") as refused:
        systemd.take()
    assert refused.value.status == Exit.NETWORK


@pytest.mark.parametrize("count", [65, 9999999999])
def test_more_sockets_than_fit_are_refused_before_one_is_touched(systemd, count):
    systemd.environ["LISTEN_FDS"] = str(count)
    with pytest.raises(StartFailed, match="64 are the most: take ListenStream= lines out"):
        systemd.take()


def test_sixty_four_sockets_are_fine(systemd):
    assert len(systemd.pass_in(*[systemd.unix()] * 64)) == 64


def test_what_the_process_before_has_left_is_apart_wherever_it_stands(systemd):
    kept = []
    ends = os.pipe()
    listeners = [systemd.unix("libvirt-sock"), systemd.unix("libvirt-sock-ro")]
    passed = systemd.pass_in(
        ends[0],
        listeners[0],
        ends[1],
        listeners[1],
        names=["proxyd-sessions", Service.FULL, "proxyd-of-a-later-release", Service.READONLY],
        kept=kept,
    )
    assert services(passed) == [Service.FULL, Service.READONLY]
    assert kept == [FIRST, FIRST + 2]
    assert not any(os.get_inheritable(each) for each in kept)
    for end in ends:
        os.close(end)


def test_what_nobody_wants_of_that_is_closed(systemd):
    assert systemd.pass_in(systemd.unix(), names=["proxyd-sessions"]) == []
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(FIRST)


def test_as_many_sockets_as_ever_are_fine_beside_it(systemd):
    names = [*[Service.FULL] * 64, *["proxyd-sessions"] * 16]
    kept = []
    assert len(systemd.pass_in(*[systemd.unix()] * 80, names=names, kept=kept)) == 64
    assert len(kept) == 16


def test_but_no_more_of_them(systemd):
    names = [*[Service.FULL] * 65, *["proxyd-sessions"] * 15]
    with pytest.raises(StartFailed, match="64 are the most"):
        systemd.pass_in(*[systemd.unix()] * 80, names=names, kept=[])


def test_each_is_recognised_by_its_name_in_any_order(systemd):
    for order in itertools.permutations(ALL):
        kinds = [systemd.tcp() if each.over_network else None for each in order]
        sockets = [each or systemd.unix(f"{os.urandom(4).hex()}") for each in kinds]
        systemd.environ["LISTEN_PID"] = str(PID)
        assert services(systemd.pass_in(*sockets, names=order)) == list(order)
        systemd.given_back.close()


def test_several_sockets_may_have_the_same_name(systemd):
    passed = systemd.pass_in(systemd.tcp(), systemd.tcp(), names=[Service.TLS] * 2)
    assert services(passed) == [Service.TLS] * 2


@pytest.mark.parametrize(
    ("file", "service"),
    [
        ("libvirt-sock", Service.FULL),
        ("libvirt-sock-ro", Service.READONLY),
        ("libvirt-admin-sock", Service.ADMIN),
        ("virtproxyd-admin-sock", Service.ADMIN),
    ],
)
@pytest.mark.parametrize("names", [None, ["unknown"], ["libvirtd.socket"], ["a", "b"], [""]])
def test_a_local_socket_without_a_name_of_ours_is_recognised_by_its_path(
    systemd, file, service, names
):
    assert services(systemd.pass_in(systemd.unix(file), names=names)) == [service]


def test_a_port_without_a_name_of_ours_is_recognised_by_its_number(systemd):
    plain, safe = systemd.tcp(), systemd.tcp(family=socket.AF_INET6)
    ports = {
        "tcp_port": str(plain.getsockname()[1]),
        "tls_port": str(safe.getsockname()[1]),
    }
    passed = systemd.pass_in(plain, safe)
    assert services(passed, replace(SETTINGS, **ports)) == [Service.TCP, Service.TLS]


def test_a_port_that_is_called_by_its_service_is_recognised(systemd, monkeypatch):
    listener = systemd.tcp()
    port = listener.getsockname()[1]
    monkeypatch.setattr(socket, "getservbyname", lambda *asked: port)
    settings = replace(SETTINGS, tls_port="libvirt-tls")
    assert services(systemd.pass_in(listener), settings) == [Service.TLS]


def test_a_port_of_both_is_the_one_with_tls(systemd):
    listener = systemd.tcp()
    port = str(listener.getsockname()[1])
    settings = replace(SETTINGS, tcp_port=port, tls_port=port)
    assert services(systemd.pass_in(listener), settings) == [Service.TLS]


def test_the_name_counts_more_than_the_address(systemd):
    passed = systemd.pass_in(systemd.unix("libvirt-sock"), names=[Service.READONLY])
    assert services(passed) == [Service.READONLY]


def test_an_abstract_address_is_recognised_as_a_path_is(systemd):
    name = f"\0/{os.urandom(8).hex()}/libvirt-sock".ljust(107, "\0")
    passed = systemd.pass_in(systemd.keep(socket.AF_UNIX, name))
    assert services(passed) == [Service.FULL]
    assert passed[0].address.startswith("@/")
    assert passed[0].address.endswith("libvirt-sock")


def test_what_nobody_can_tell_is_refused_with_the_names_there_are(systemd):
    passed = systemd.pass_in(systemd.unix("other"), names=["mine.socket"])
    with pytest.raises(StartFailed) as refused:
        services(passed)
    assert str(refused.value) == (
        f'the socket "mine.socket" at {systemd.directory}/other was passed in, and nothing says'
        " what it is for: write FileDescriptorName= into its socket unit, with one of"
        " virtproxyd.socket, virtproxyd-ro.socket, virtproxyd-admin.socket, virtproxyd-tcp.socket,"
        " virtproxyd-tls.socket; or take that unit away from this service"
    )
    assert refused.value.status == Exit.NETWORK


def test_a_port_that_nobody_knows_is_refused(systemd):
    listener = systemd.tcp()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(StartFailed, match=f"without a name at {address} was passed in, and noth"):
        services(systemd.pass_in(listener), replace(SETTINGS, tls_port="no-such-service"))


@pytest.mark.parametrize("service", ALL)
def test_a_name_on_the_wrong_kind_of_socket_is_refused(systemd, service):
    listener = systemd.unix() if service.over_network else systemd.tcp()
    with pytest.raises(StartFailed, match=f"cannot serve as {service}, which takes a"):
        services(systemd.pass_in(listener, names=[service]))


def test_a_read_only_socket_of_a_users_daemon_is_refused(systemd):
    passed = systemd.pass_in(systemd.unix(), names=[Service.READONLY])
    with pytest.raises(StartFailed, match="run: systemctl --user disable --now virtproxyd-ro"):
        services(passed, privileged=False)


def test_a_descriptor_that_is_not_open_is_refused(systemd):
    systemd.environ["LISTEN_FDS"] = "1"
    with pytest.raises(StartFailed, match=f"descriptor {FIRST}, .* is not open"):
        systemd.take()


def test_a_pipe_is_refused(systemd):
    ends = os.pipe()
    with pytest.raises(StartFailed, match="is no socket: leave ListenFIFO="):
        systemd.pass_in(*ends)
    for end in ends:
        os.close(end)


def test_a_datagram_socket_is_refused(systemd):
    with pytest.raises(StartFailed, match="of the type SOCK_DGRAM: use ListenStream="):
        systemd.pass_in(systemd.unix(kind=socket.SOCK_DGRAM, listens=False))


def test_a_socket_of_packets_is_refused(systemd):
    with pytest.raises(StartFailed, match="of the type SOCK_SEQPACKET: use ListenStream="):
        systemd.pass_in(systemd.unix(kind=socket.SOCK_SEQPACKET))


def test_a_socket_of_another_family_is_refused(systemd):
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    systemd.sockets.append(netlink)
    with pytest.raises(StartFailed, match="is of the family AF_NETLINK: only UNIX"):
        systemd.pass_in(netlink)


def test_a_socket_that_does_not_listen_is_refused(systemd):
    with pytest.raises(StartFailed, match="does not listen: set Accept=no"):
        systemd.pass_in(systemd.unix(listens=False))


def test_a_connection_is_refused(systemd):
    with connected(systemd.unix()) as client, pytest.raises(StartFailed, match="does not listen"):
        systemd.pass_in(client)


def test_what_was_taken_before_a_refusal_is_given_back(systemd):
    with pytest.raises(StartFailed):
        systemd.pass_in(systemd.unix("a"), systemd.unix("b"), systemd.unix("c", listens=False))
    systemd.given_back.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(FIRST)


def test_they_do_not_block_and_children_do_not_have_them(systemd):
    passed = one_of_each(systemd)
    assert not any(os.get_inheritable(each.listener.fileno()) for each in passed)
    for each in passed:
        with pytest.raises(BlockingIOError):
            each.listener.accept()


def test_each_leads_to_the_door_that_the_settings_describe(systemd):
    sockets = recognise(one_of_each(systemd), SETTINGS, privileged=True)
    settings = as_activated(SETTINGS, sockets)
    listeners = activated_listeners(sockets, settings, privileged=True)
    doors = [door for _, door in listeners]
    assert [(door.transport, door.method, door.readonly) for door in doors] == [
        (Transport.UNIX, AuthMethod.NONE, False),
        (Transport.UNIX, AuthMethod.POLKIT, True),
        (Transport.TCP, AuthMethod.NONE, False),
        (Transport.TLS, AuthMethod.NONE, False),
    ]
    assert not any(door.own_uid_only for door in doors)
    port = listeners[3][0].getsockname()[1]
    assert [door.name for door in doors][::3] == ["libvirt-sock", f"tls 127.0.0.1:{port}"]


def test_the_administrators_sockets_are_apart(systemd):
    sockets = recognise(one_of_each(systemd), SETTINGS, privileged=True)
    ((admin, door),) = activated_admin_listeners(sockets, SETTINGS)
    assert admin.getsockname() == str(systemd.directory / "c")
    assert door.own_uid_only


def test_a_users_own_daemon_serves_that_user_alone(systemd):
    sockets = recognise(systemd.pass_in(systemd.unix()), SETTINGS, privileged=False)
    ((_, door),) = activated_listeners(sockets, SETTINGS, privileged=False)
    assert door.own_uid_only


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    "there", [set(chosen) for n in range(6) for chosen in itertools.combinations(ALL, n)]
)
def test_whether_there_are_network_clients_is_for_the_sockets_to_say(there, asked):
    asking = replace(SETTINGS, listen_tcp=asked, listen_tls=asked)
    settings = as_activated(asking, [Recognised(None, each) for each in there])
    if there:
        asking = replace(asking, listen_tcp=Service.TCP in there, listen_tls=Service.TLS in there)
    assert settings == asking


def test_the_backlog_is_the_settings_own(systemd):
    passed = systemd.pass_in(systemd.unix(), names=[Service.FULL])  # five, as made
    settings = replace(SETTINGS, max_queued_clients=1)
    sockets = recognise(passed, settings, privileged=True)
    ((listener, _),) = activated_listeners(sockets, settings, privileged=True)
    with ExitStack() as clients:
        for _ in range(2):  # the kernel takes one more than it was told
            clients.enter_context(connected(listener))
        third = clients.enter_context(socket.socket(socket.AF_UNIX))
        third.setblocking(False)
        with pytest.raises(BlockingIOError):
            third.connect(listener.getsockname())


def test_who_connects_when_ours_are_closed_is_met_by_the_next_daemon(systemd):
    listener = systemd.unix()
    systemd.pass_in(listener)
    with connected(listener) as early:
        systemd.given_back.close()
        assert os.path.exists(listener.getsockname())
        with connected(listener) as late:
            systemd.environ["LISTEN_PID"] = str(PID)
            (again,) = systemd.pass_in(listener)
            for client in (early, late):
                met, _ = again.listener.accept()
                with met:
                    met.sendall(b"welcome")
                    assert client.recv(7) == b"welcome"


def test_settings_that_the_units_decide_are_named_with_what_to_run(systemd, caplog):
    settings = replace(SETTINGS, listen_tls=True, listen_tcp=True, unix_sock_group="libvirt")
    warn_of_no_effect(settings, [Recognised(None, Service.FULL), Recognised(None, Service.TCP)])
    assert caplog.messages == [
        "listen_tls = 1 has no effect where systemd makes the sockets, and there is none for TLS"
        " clients; run, which ends sessions: systemctl stop virtproxyd.service &&"
        " systemctl enable --now virtproxyd-tls.socket",
        'unix_sock_group = "libvirt" is not applied where systemd makes the sockets; run: systemctl'
        " edit virtproxyd.socket, and write there: [Socket] SocketGroup=libvirt",
    ]


def test_other_settings_that_the_units_decide_are_named_where_they_are_set(caplog):
    changed = ["unix_sock_rw_perms", "max_clients", "unix_sock_group", "listen_addr"]
    warn_of_no_effect(SETTINGS, [Recognised(None, Service.FULL)], changed)
    assert [line.split(";")[0] for line in caplog.messages] == [
        f"{key} is not applied where systemd makes the sockets"
        for key in ("unix_sock_rw_perms", "listen_addr")
    ]


def test_settings_that_ask_for_what_is_there_are_not_spoken_of(caplog):
    settings = replace(SETTINGS, listen_tls=True)
    warn_of_no_effect(settings, [Recognised(None, Service.TLS)])
    assert caplog.messages == []
