"""What is declared to take effect at a reload does, and what is to wait for a start waits."""

import datetime as dt
import shutil
import socket

import pytest
from OpenSSL import SSL
from OpenSSL._util import lib

from proxyd.config.kinds import When
from proxyd.config.listeners import Door
from proxyd.config.settings import keys
from proxyd.config.transports import Transport
from proxyd.daemon.entrances import Entrances
from proxyd.listen.listener import Listener
from proxyd.sasl import passwords as module
from proxyd.sasl.passwords import PasswordFile
from proxyd.wire.programs import AuthMethod
from tests.bed.pki import Pki
from tests.daemon.parts import Parts
from tests.sasl.test_keytab import entry, keytab_of

EXPIRED = dt.timedelta(hours=-1)


def door(transport):
    return Door(
        name="x", transport=transport, method=AuthMethod.SASL, readonly=False, own_uid_only=False
    )


TLS, TCP = door(Transport.TLS), door(Transport.TCP)


class Host:
    """Files for a daemon with every kind of listener, and other ones that it may be led to.

    `text` is a configuration, `others` a change for each key that takes files.
    """

    def __init__(self, directory):
        pki = Pki(directory / "pki")
        server = pki.server()
        expired = pki.server(ends=EXPIRED)
        keytabs, passwords = [], []
        for name in ("one", "two"):
            place = directory / name
            place.mkdir()
            keytabs.append(keytab_of(place, entry(b"libvirt", name.encode())).path)
            passwords.append(str(place / "passwords"))
            PasswordFile(passwords[-1]).set_password("joe", "sesame")
        rules = directory / "rules"
        rules.write_text("all all * write\n")
        self.log = directory / "log"
        self.settings = {
            "log_outputs": f'"1:file:{self.log}"',
            "listen_tls": 1,
            "listen_tcp": 1,
            "auth_tls": '"sasl"',
            "proxyd_keytab": f'"{keytabs[0]}"',
            "proxyd_passwords": f'"{passwords[0]}"',
            **quoted(pki.settings(server)),
        }
        self.others = {
            "log_outputs": {"log_outputs": f'"1:file:{directory}/other-log"'},
            "proxyd_audit_output": {"proxyd_audit_output": f'"file:{directory}/other-audit"'},
            "proxyd_keytab": {"proxyd_keytab": f'"{keytabs[1]}"'},
            "proxyd_passwords": {"proxyd_passwords": f'"{passwords[1]}"'},
            "proxyd_rules_file": {"proxyd_rules_file": f'"{rules}"'},
            "crl_file": {"crl_file": f'"{pki.revoke(pki.client())}"'},
            "proxyd_more_certificates": {
                "proxyd_more_certificates": f'[ "{expired.cert_file}:{expired.key_file}" ]',
                "tls_no_sanity_certificate": 1,
            },
            "tls_no_sanity_certificate": {
                **quoted(pki.settings(expired)),
                "tls_no_sanity_certificate": 1,
            },
        }
        for key, path in pki.settings(server).items():
            copy = directory / f"other-{key}"
            shutil.copy(path, copy)
            self.others[key] = {key: f'"{copy}"'}

    def text(self, **changes):
        return "".join(f"{key} = {value}\n" for key, value in (self.settings | changes).items())


def quoted(paths):
    return {key: f'"{path}"' for key, path in paths.items()}


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ITERATIONS", 4096)
    return Host(tmp_path)


@pytest.fixture
async def parts(host, tmp_path):
    made = Parts(tmp_path, host.text())
    made.conf.write_text(host.text())
    made.logs.start(made.options.source.load())
    yield made
    made.close()


def proof(parts, where=TLS):
    return parts.made.services.proof(where)


def contexts(parts):
    return parts.in_force.tls.contexts


def ciphers(parts):
    return [SSL.Connection(each, None).get_cipher_list() for each in contexts(parts)]


def options(parts):
    return [lib.SSL_CTX_get_options(each._context) for each in contexts(parts)]


def files(parts):
    return parts.in_force.tls.credentials.files


def serials(parts):
    return [pair.certificate.serial_number for pair in parts.in_force.tls.credentials.pairs]


def probes(parts):
    """What a connection that is accepted now is set to."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        parts.put_in_force(listeners=[Listener(listener, TCP)])
        entrance = Entrances(parts.current, None).at(parts.in_force.listeners[0])
        entrance.greet(accepted)
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPCNT)
        return [accepted.getsockopt(socket.IPPROTO_TCP, name) for name in names]


# What a key is changed to, where that is not a file, and where in the daemon it shows.
CHANGES = {
    "tls_allowed_dn_list": '[ "CN=joe" ]',
    "sasl_allowed_username_list": '[ "joe" ]',
    "tcp_min_ssf": 128,
    "proxyd_sasl_mechanisms": '[ "GSSAPI" ]',
    "tls_no_verify_certificate": 1,
    "tls_priority": '"SECURE256:-VERS-TLS1.3"',
    "proxyd_kernel_tls": 1,
    "max_clients": 70,
    "max_anonymous_clients": 7,
    "proxyd_max_clients_per_peer": 7,
    "proxyd_connection_rate": 7,
    "proxyd_connection_burst": 7,
    "proxyd_login_failures": 7,
    "admin_max_clients": 7,
    "proxyd_handshake_timeout": 7,
    "proxyd_drain_timeout": 7,
    "proxyd_parting_timeout": 7,
    "proxyd_retire_timeout": 7,
    "keepalive_interval": 70,
    "keepalive_count": 7,
    "log_level": 1,
    "log_filters": '"1:rpc"',
    "proxyd_audit": '[ "changes" ]',
    "proxyd_audit_required": 1,
    "proxyd_backend_dir": '"/run/behind"',
    "proxyd_routes": '[ "test=/run/t" ]',
}
SHOWS = {
    "tls_allowed_dn_list": lambda parts: parts.in_force.tls.proof,
    "sasl_allowed_username_list": lambda parts: proof(parts).policy.allowed,
    "tcp_min_ssf": lambda parts: proof(parts, TCP).policy.least_ssf,
    "proxyd_sasl_mechanisms": lambda parts: proof(parts).offering.names,
    "proxyd_keytab": lambda parts: proof(parts).offering.keytab.path,
    "proxyd_passwords": lambda parts: proof(parts).offering.passwords.path,
    "proxyd_rules_file": lambda parts: parts.in_force.rules and parts.in_force.rules.rules,
    "key_file": lambda parts: files(parts).pairs,
    "cert_file": lambda parts: files(parts).pairs,
    "ca_file": lambda parts: files(parts).ca,
    "proxyd_more_certificates": lambda parts: len(contexts(parts)),
    "crl_file": lambda parts: files(parts).crl,
    "tls_no_sanity_certificate": serials,
    "tls_no_verify_certificate": lambda parts: parts.in_force.tls.proof,
    "tls_priority": ciphers,
    "proxyd_kernel_tls": options,
    "max_clients": lambda parts: parts.admission.max_clients,
    "max_anonymous_clients": lambda parts: parts.admission.max_anonymous,
    "proxyd_max_clients_per_peer": lambda parts: parts.admission.most_each,
    "proxyd_connection_rate": lambda parts: parts.admission.rate.a_second,
    "proxyd_connection_burst": lambda parts: parts.admission.rate.burst,
    "proxyd_login_failures": lambda parts: parts.admission.logins.a_minute,
    "admin_max_clients": lambda parts: parts.admin.admission.max_clients,
    "proxyd_handshake_timeout": lambda parts: parts.made.services.timeout_s(),
    "proxyd_drain_timeout": lambda parts: parts.in_force.settings.proxyd_drain_timeout,
    "proxyd_retire_timeout": lambda parts: parts.in_force.settings.proxyd_retire_timeout,
    "proxyd_parting_timeout": lambda parts: parts.relay.loops[0].partings.timeout_s(),
    "keepalive_interval": probes,
    "keepalive_count": probes,
    "log_level": lambda parts: parts.logs.level,
    "log_filters": lambda parts: parts.logs.filters,
    "log_outputs": lambda parts: parts.logs.outputs,
    "proxyd_audit": lambda parts: parts.roster.audit.asked,
    "proxyd_audit_output": lambda parts: parts.roster.audit.output,
    "proxyd_audit_required": lambda parts: parts.roster.audit.required,
    "proxyd_backend_dir": lambda parts: [each.path for each in parts.in_force.routes.known()],
    "proxyd_routes": lambda parts: parts.in_force.routes.routes,
}


def test_every_setting_that_a_reload_takes_is_looked_at():
    assert set(SHOWS) == set(keys(When.RELOAD))


async def test_every_setting_that_a_reload_takes_shows_afterwards(parts, host):
    await parts.reloader.reload()
    before = {key: show(parts) for key, show in SHOWS.items()}
    unmoved = {}
    for key, show in SHOWS.items():
        parts.conf.write_text(host.text(**host.others.get(key, {key: CHANGES.get(key)})))
        await parts.reloader.reload()
        if not parts.reloader.last.succeeded or show(parts) == before[key]:
            unmoved[key] = parts.reloader.last.text
    assert unmoved == {}

    parts.conf.write_text(host.text())
    await parts.reloader.reload()
    assert {key: show(parts) for key, show in SHOWS.items()} == before


OTHERS_AT_START = {
    "listen_tls": 0,
    "listen_tcp": 0,
    "tls_port": '"1"',
    "tcp_port": '"2"',
    "listen_addr": '"127.0.0.1"',
    "unix_sock_group": '"0"',
    "unix_sock_ro_perms": '"0700"',
    "unix_sock_rw_perms": '"0700"',
    "unix_sock_admin_perms": '"0777"',
    "unix_sock_dir": '"/run/x"',
    "proxyd_strict_start": 1,
    "auth_unix_rw": '"none"',
    "auth_unix_ro": '"none"',
    "auth_tcp": '"none"',
    "auth_tls": '"none"',
    "max_queued_clients": 7,
    "admin_max_queued_clients": 7,
    "proxyd_metrics_listen": '"127.0.0.1:1"',
}


async def test_every_setting_that_a_start_takes_stays_and_is_told_of(parts, host, caplog):
    assert set(OTHERS_AT_START) == set(keys(When.START))
    before = {key: getattr(parts.in_force.settings, key) for key in OTHERS_AT_START}
    parts.conf.write_text(host.text(**OTHERS_AT_START))

    await parts.reloader.reload()

    assert parts.reloader.last.succeeded
    assert {key: getattr(parts.in_force.settings, key) for key in OTHERS_AT_START} == before
    told = [line.split()[0] for line in caplog.messages if "takes a restart" in line]
    assert told == list(keys(When.START))
