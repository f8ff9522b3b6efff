import pytest

from proxyd.config.listeners import (
    Door,
    UnixListening,
    admin_listenings,
    authentication,
    by_certificate,
    unix_listenings,
)
from proxyd.config.sources import load
from proxyd.config.transports import Transport
from proxyd.wire.programs import AuthMethod

INT_MAX = 2**31 - 1


def listenings(text="", *, privileged=True):
    settings = load(text, "/etc/x.conf", privileged=privileged).settings
    return unix_listenings(settings, privileged=privileged, directory="/run/libvirt")


def test_root_listens_at_both_legacy_sockets():
    assert listenings() == [
        UnixListening(
            path="/run/libvirt/libvirt-sock",
            mode=0o777,
            backlog=1000,
            door=Door(
                name="libvirt-sock", method=AuthMethod.POLKIT, readonly=False, own_uid_only=False
            ),
        ),
        UnixListening(
            path="/run/libvirt/libvirt-sock-ro",
            mode=0o777,
            backlog=1000,
            door=Door(
                name="libvirt-sock-ro", method=AuthMethod.POLKIT, readonly=True, own_uid_only=False
            ),
        ),
    ]


def test_a_users_daemon_has_no_read_only_socket_and_serves_that_user_alone():
    (only,) = listenings(privileged=False)
    assert only.path == "/run/libvirt/libvirt-sock"
    assert only.mode == 0o700
    assert only.door == Door(
        name="libvirt-sock", method=AuthMethod.NONE, readonly=False, own_uid_only=True
    )


def test_even_with_permissions_for_all_a_users_daemon_serves_that_user_alone():
    (only,) = listenings('unix_sock_rw_perms = "0777"', privileged=False)
    assert (only.mode, only.door.own_uid_only) == (0o777, True)


def test_root_without_authentication_opens_the_socket_to_nobody_else():
    full, readonly = listenings('auth_unix_rw = "none"')
    assert (full.door.method, full.mode) == (AuthMethod.NONE, 0o700)
    assert (readonly.door.method, readonly.mode) == (AuthMethod.POLKIT, 0o777)


def test_each_socket_has_its_own_authentication_and_permissions():
    full, readonly = listenings(
        'auth_unix_rw = "none"\nauth_unix_ro = "sasl"\n'
        'unix_sock_rw_perms = "0770"\nunix_sock_ro_perms = "0707"'
    )
    assert (full.door.method, full.mode) == (AuthMethod.NONE, 0o770)
    assert (readonly.door.method, readonly.mode) == (AuthMethod.SASL, 0o707)


@pytest.mark.parametrize(("queued", "backlog"), [(0, 30), (1, 1), (4096, 4096)])
def test_the_backlog_is_what_may_be_queued_and_zero_is_libvirts_thirty(queued, backlog):
    assert {each.backlog for each in listenings(f"max_queued_clients = {queued}")} == {backlog}


def test_the_backlog_is_a_number_that_listen_takes():
    assert all(each.backlog <= INT_MAX for each in listenings("max_queued_clients = 4294967295"))


# The sockets for virt-admin


def admin_sockets(text="", *, privileged=True):
    settings = load(text, "/etc/x.conf", privileged=privileged).settings
    return admin_listenings(settings, directory="/run/libvirt")


@pytest.mark.parametrize("privileged", [True, False])
def test_virt_admin_is_listened_for_by_both_of_its_names(privileged):
    assert admin_sockets(privileged=privileged) == [
        UnixListening(
            path=f"/run/libvirt/{name}",
            mode=0o700,
            backlog=20,
            door=Door(name=name, method=AuthMethod.NONE, readonly=False, own_uid_only=True),
        )
        for name in ("libvirt-admin-sock", "virtproxyd-admin-sock")
    ]


def test_wider_permissions_let_nobody_else_administrate():
    for each in admin_sockets('unix_sock_admin_perms = "0777"'):
        assert (each.mode, each.door.own_uid_only) == (0o777, True)


@pytest.mark.parametrize(("queued", "backlog"), [(0, 30), (1, 1), (4294967295, INT_MAX)])
def test_the_admin_backlog_has_a_setting_of_its_own(queued, backlog):
    text = f"admin_max_queued_clients = {queued}\nmax_queued_clients = 7"
    assert {each.backlog for each in admin_sockets(text)} == {backlog}


def test_no_setting_of_the_clients_sockets_changes_those_for_virt_admin():
    assert admin_sockets('auth_unix_rw = "none"\nunix_sock_rw_perms = "0777"') == admin_sockets()


X509, LISTED, UNVERIFIED = (
    by_certificate(enforce=enforce, allowed=allowed)
    for enforce, allowed in ((True, None), (True, ()), (False, ("CN=joe",)))
)


@pytest.mark.parametrize(
    ("transport", "method", "certificate", "mechanism", "says"),
    [
        (Transport.UNIX, AuthMethod.NONE, X509, "", "none"),
        (Transport.UNIX, AuthMethod.POLKIT, LISTED, "", "polkit"),
        (Transport.UNIX, AuthMethod.SASL, X509, "GSSAPI", "sasl GSSAPI"),
        (Transport.TCP, AuthMethod.NONE, X509, "", "none"),
        (Transport.TCP, AuthMethod.SASL, UNVERIFIED, "", "sasl"),
        (Transport.TLS, AuthMethod.NONE, X509, "", "x509"),
        (Transport.TLS, AuthMethod.NONE, LISTED, "", "x509 + allowed list"),
        (Transport.TLS, AuthMethod.SASL, X509, "", "x509 + sasl"),
        (Transport.TLS, AuthMethod.SASL, LISTED, "GSSAPI", "x509 + allowed list + sasl GSSAPI"),
        (Transport.TLS, AuthMethod.NONE, UNVERIFIED, "", "none (certificates are not verified)"),
        (Transport.TLS, AuthMethod.SASL, UNVERIFIED, "", "sasl (certificates are not verified)"),
    ],
)
def test_what_a_door_takes_a_word_on(transport, method, certificate, mechanism, says):
    door = Door(name="x", transport=transport, method=method, readonly=False, own_uid_only=False)
    assert authentication(door, certificate, mechanism) == says
