"""Every key of the configuration file: its default, its type and what it means.

The keys, types, defaults and limits are those of docs/protocol/configuration.md, section 1, so that
a host's existing file keeps its meaning; keys that only proxyd knows begin with `proxyd_`. What is
true of a key stands here alone: reload, reports, warnings, the example file and
docs/configuration.md are made from this class (script/generate_settings.py writes the two files).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from proxyd.config import checks
from proxyd.config.auditing import CHANGES, SCOPES, SESSIONS
from proxyd.config.kinds import (
    AT_START,
    IN_OWN_SOCKETS,
    Spec,
    When,
    count,
    mode,
    never,
    number,
    strings,
    switch,
    text,
)
from proxyd.config.logstrings import CATEGORIES
from proxyd.config.mechanisms import NAMES as MECHANISMS
from proxyd.config.priority import check_priority

_OPEN_TO_ALL: Final = 0o777
_OWNER_ONLY: Final = 0o700

_BEHIND_COUNT: Final = never(
    "each client has a connection of its own to the daemon behind, whose max_client_requests holds"
)
_NO_WORKERS: Final = never("calls are relayed and answered without worker threads")
_AS_IN_LIBVIRT: Final = never("libvirt does nothing with it either")
_NOTHING_AUDITED: Final = never(
    "a proxy does nothing that is audited; set it for the daemons behind, which do"
)
_UUID_BEHIND: Final = never("clients learn it from the daemons behind: set it for those")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is in force. None means unset; an empty list is not unset, it lists nobody."""

    # Listeners
    listen_tls: bool = switch(
        False,
        "Whether to listen for TLS clients; that needs certificates.",
        effect=IN_OWN_SOCKETS,
    )
    listen_tcp: bool = switch(
        False, "Whether to listen for TCP clients without TLS.", effect=IN_OWN_SOCKETS
    )
    tls_port: str = text(
        "16514",
        "Port for TLS clients: a number or a service's name. 0 is any free one; the log names it.",
        used_with=("listen_tls",),
        in_use=checks.port,
        effect=IN_OWN_SOCKETS,
    )
    tcp_port: str = text(
        "16509",
        "Port for TCP clients, likewise.",
        used_with=("listen_tcp",),
        in_use=checks.port,
        effect=IN_OWN_SOCKETS,
    )
    listen_addr: str | None = text(
        None,
        "Address or host name that both ports listen on, without brackets and port. Unset: all"
        " addresses. An empty one is none.",
        example="192.0.2.1",
        used_with=("listen_tls", "listen_tcp"),
        in_use=checks.listening_address,
        effect=IN_OWN_SOCKETS,
    )
    unix_sock_group: str | None = text(
        None,
        "Group that gets the UNIX sockets: a name or a number. Even where systemd makes the"
        " sockets it must exist, or the daemon does not start.",
        check=checks.group,
        example="libvirt",
        effect=IN_OWN_SOCKETS,
    )
    unix_sock_ro_perms: int = mode(
        _OPEN_TO_ALL,
        "Permissions of the UNIX socket for read-only clients.",
        effect=IN_OWN_SOCKETS,
    )
    unix_sock_rw_perms: int = mode(
        _OPEN_TO_ALL,
        'Permissions of the UNIX socket for full access. The default follows auth_unix_rw: "0777"'
        ' where that is "polkit", which then decides about everybody, and "0700" otherwise.',
        effect=IN_OWN_SOCKETS,
    )
    unix_sock_admin_perms: int = mode(
        _OWNER_ONLY,
        "Permissions of the UNIX socket for virt-admin. Wider ones let nobody else in: only the"
        " daemon's own user is served there.",
        effect=IN_OWN_SOCKETS,
    )
    unix_sock_dir: str | None = text(
        None,
        "Existing directory for the UNIX sockets. Unset: the run-time directory's libvirt/.",
        example="/run/libvirt",
        empty_is_unset=True,
        effect=IN_OWN_SOCKETS,
    )

    proxyd_strict_start: bool = switch(
        False,
        "Whether the daemon does not start at all where one way in is broken: certificates that are"
        " missing or have expired, no keytab, a port in use, an address that is not there. With 0"
        " the others are served, whoever comes by that one is refused, it is tried again from time"
        " to time and at each reload, and proxyd status says why.",
        effect=AT_START,
    )

    # Who may come in
    auth_unix_rw: Literal["none", "sasl", "polkit"] = text(
        "polkit",
        'How clients of the full-access UNIX socket prove who they are: "none" (the permissions'
        ' suffice), "sasl" or "polkit". Not run as root, the default is "none".',
        check=checks.one_of("none", "sasl", "polkit"),
        effect=AT_START,
    )
    auth_unix_ro: Literal["none", "sasl", "polkit"] = text(
        "polkit",
        "The same for the read-only UNIX socket, with the same defaults.",
        check=checks.one_of("none", "sasl", "polkit"),
        effect=AT_START,
    )
    auth_tcp: Literal["none", "sasl"] = text(
        "sasl",
        'How TCP clients prove who they are: "sasl", which also encrypts, or "none", which gives'
        " this host to everybody who can reach the port.",
        check=checks.network_auth_word,
        used_with=("listen_tcp",),
        in_use=checks.network_auth,
        effect=AT_START,
    )
    auth_tls: Literal["none", "sasl"] = text(
        "none",
        'How TLS clients prove who they are besides their certificate: "none" or "sasl".',
        check=checks.network_auth_word,
        used_with=("listen_tls",),
        in_use=checks.network_auth,
        effect=AT_START,
    )
    tls_allowed_dn_list: tuple[str, ...] | None = strings(
        None,
        "Subjects of client certificates that are let in, compared with the whole name as the"
        ' certificate orders it; "*" is any run of characters and "?" one. Unset: every subject'
        " that the CA signed. An empty list: nobody.",
        example=("C=GB,ST=London,L=London,O=Example,CN=*",),
    )
    sasl_allowed_username_list: tuple[str, ...] | None = strings(
        None,
        "SASL user names that are let in, with the same wildcards. Kerberos' users of this host's"
        " default realm stand there without it, others in full; users with a password by their"
        " name. Unset: everybody who authenticated. An empty list: nobody.",
        example=("joe", "*/admin", "ann@OTHER.EXAMPLE.COM"),
    )
    tcp_min_ssf: int = count(
        56,
        "Least strength of the encryption that SASL brings to TCP, in bits. 56 holds while the key"
        " is absent; a written value is 112 or more.",
        check=checks.strong_enough,
        example=112,
    )
    proxyd_sasl_mechanisms: tuple[str, ...] = strings(
        (),
        'Which SASL mechanisms are offered: "GSSAPI" (Kerberos), "SCRAM-SHA-256-PLUS" and'
        ' "SCRAM-SHA-256" (passwords; never on TCP). Empty: all that the listener allows and that'
        " have what they need.",
        each=checks.one_of(*MECHANISMS),
        example=("GSSAPI",),
    )
    proxyd_keytab: str | None = text(
        None,
        "Keytab for GSSAPI; each of its libvirt/HOST keys serves. Unset: KRB5_KTNAME of the"
        " environment, or else /etc/libvirt/krb5.tab.",
        check=checks.absolute_path,
        example="/etc/libvirt/krb5.tab",
        empty_is_unset=True,
    )
    proxyd_passwords: str | None = text(
        None,
        "What SCRAM compares passwords with; proxyd passwd NAME writes it. Unset:"
        " proxyd-passwords beside this file's usual place.",
        check=checks.absolute_path,
        example="/etc/libvirt/proxyd-passwords",
        empty_is_unset=True,
    )
    proxyd_rules_file: str | None = text(
        None,
        "File with the rules of who may open what, and do what there; proxyd rules check says"
        " whether it is in order. Whom no rule lets in is refused, and the lists above hold before"
        " it. Unset: whoever is let in may do what the daemons behind allow.",
        check=checks.absolute_path,
        example="/etc/libvirt/proxyd-rules.conf",
    )

    # Certificates
    key_file: str | None = text(
        None,
        "Private key of this server. Unset: the system's usual place. Where there are TLS clients,"
        " key_file, cert_file and ca_file are set together or not at all.",
        example="/etc/pki/libvirt/private/serverkey.pem",
    )
    cert_file: str | None = text(
        None,
        "Certificate of this server. Further ones count as well, in the usual place and in the"
        " directory of cert_file: servercert0.pem to servercert3.pem, as far as no number is"
        " missing, with serverkey0.pem and so on where the key is. Each client is shown the first"
        " that suits it.",
        example="/etc/pki/libvirt/servercert.pem",
    )
    ca_file: str | None = text(
        None,
        "The CA that signs the clients' certificates. An empty one trusts nobody.",
        example="/etc/pki/CA/cacert.pem",
    )
    proxyd_more_certificates: tuple[str, ...] = strings(
        (),
        "Further certificates of this server with their keys, behind those that cert_file tells of:"
        " for files with other names or in other places, and for more of them.",
        each=checks.certificate_pair,
        example=("/etc/pki/libvirt/ecdsacert.pem:/etc/pki/libvirt/private/ecdsakey.pem",),
    )
    crl_file: str | None = text(
        None,
        "Certificates that the CA revoked. May be set only beside the three files above, where an"
        " empty one is none; with the usual places, cacrl.pem is used if it is there.",
        example="/etc/pki/CA/cacrl.pem",
    )
    tls_no_sanity_certificate: bool = switch(
        False, "Whether to start even with certificates of our own that look unfit."
    )
    tls_no_verify_certificate: bool = switch(
        False,
        "Whether to let in TLS clients with any certificate or none; tls_allowed_dn_list then"
        " does nothing either. Sensible only beside another proof of who they are.",
    )
    tls_priority: str | None = text(
        None,
        "Which protocol versions, ciphers, groups and signatures to allow, as a GnuTLS priority"
        " string. proxyd speaks TLS 1.2 and 1.3 and refuses to start with a string that it cannot"
        " obey.",
        example="SECURE256:-VERS-TLS1.2",
        used_with=("listen_tls",),
        in_use=check_priority,
        empty_is_unset=True,
    )
    proxyd_kernel_tls: bool = switch(
        False,
        "Let the kernel encrypt what TLS clients are sent, where it (module tls) and OpenSSL"
        " (enable-ktls) can; elsewhere it has no effect. proxyd status says for how many it does.",
    )

    # Limits
    max_clients: int = count(
        5000,
        "Clients at one time. At the limit further clients wait. Some places beyond it are kept for"
        " users of this host who have few, and for root; and who has opened nothing yet may have to"
        " make way for whose user or address has fewer. Not less than max_anonymous_clients.",
    )
    max_queued_clients: int = count(
        1000,
        "How many clients the kernel keeps waiting for each listener. 0 stands for 30.",
        effect=AT_START,
    )
    max_anonymous_clients: int = count(
        20,
        "Of max_clients, how many may still be proving who they are: of each user of this host, of"
        " all who come by TCP, and of all behind their TLS handshake. 0: any number.",
    )
    proxyd_max_clients_per_peer: int = count(
        0,
        "Of max_clients, how many may be of one user of this host, or come from one address of the"
        " network (IPv6: from one /64). Who is beyond that gets an error, or is closed where TLS"
        " would have to begin for it. 0: any number.",
    )
    proxyd_connection_rate: int = count(
        0,
        "Connections a second that one user of this host, or one address of the network (IPv6: one"
        " /64), may begin. Who is beyond that is refused at once: with an error, where that is as"
        " cheap, else by closing. Root and the daemon's own user are let off. 0: any number.",
        check=checks.between(0, 100_000),
    )
    proxyd_connection_burst: int = count(
        100,
        "How many connections one of those may begin at once, before proxyd_connection_rate counts:"
        " programs open several, and all of them come again after a restart.",
        check=checks.between(1, 100_000),
    )
    proxyd_login_failures: int = count(
        20,
        "Logins by SASL a minute that may fail for one user of this host or one address of the"
        " network, and for one user name. Beyond that they are refused unseen, but for those who"
        " have come in by that name from there within a day; and the more of them fail in a row,"
        " the longer the next answer takes, 8 seconds at most. 0: any number, and no pause.",
        check=checks.between(0, 100_000),
    )
    proxyd_handshake_timeout: int = count(
        30,
        "Seconds that a client has from connecting until its session is open; then it is cut off.",
        check=checks.between(1, 3600),
    )
    proxyd_drain_timeout: int = count(
        5,
        "Seconds that calls under way have to finish when the daemon is told to stop; 0 is none.",
        check=checks.between(0, 3600),
    )
    proxyd_retire_timeout: int = count(
        0,
        "Seconds for sessions that stay with the process before when another one has taken over"
        " (proxyd upgrade): those over TLS, which cannot move. Whoever is left then is ended as at"
        " a stop. 0: it stays until they end by themselves.",
        check=checks.between(0, 31536000),
    )
    proxyd_parting_timeout: int = count(
        60,
        "Seconds that a daemon has, when a client ends, to answer the calls that are under way and"
        " to end the client's streams; then its connection is closed as it is, which libvirt's"
        " daemons may not survive. 0: closed at once.",
        check=checks.between(0, 3600),
    )
    keepalive_interval: int = number(
        5,
        "Seconds of silence after which a connection is tested. 0 or less: never. proxyd hands"
        " libvirt's own tests through and has the kernel test its network connections.",
    )
    keepalive_count: int = count(
        5, "How many tests in a row may go unanswered before the connection counts as lost."
    )

    # The admin socket
    admin_max_clients: int = count(5000, "max_clients for the admin socket.")
    admin_max_queued_clients: int = count(
        20, "max_queued_clients for the admin socket.", effect=AT_START
    )

    # Logging
    log_level: int = count(
        0,
        "What is logged: 1 debug and everything above, 2 from information, 3 from warnings,"
        " 4 errors only. 0 stands for 3.",
        check=checks.between(0, 4, "a level"),
    )
    log_filters: str | None = text(
        None,
        'Levels of their own for some categories: "LEVEL:PART" items separated by spaces. The'
        " first one whose part is found in the category counts. The categories: "
        + ", ".join(CATEGORIES)
        + ".",
        check=checks.log_filters,
        empty_is_unset=True,
        example="1:rpc 4:util",
    )
    log_outputs: str | None = text(
        None,
        'Where log lines go: items of "LEVEL:stderr", "LEVEL:journald", "LEVEL:syslog:NAME" or'
        ' "LEVEL:file:PATH" separated by spaces. Unset: the journal, standard error or a file,'
        " whichever fits how the daemon was started.",
        check=checks.log_outputs,
        empty_is_unset=True,
        example="3:syslog:virtproxyd 1:file:/var/log/libvirt/virtproxyd.log",
    )

    # Metrics
    proxyd_metrics_listen: str | None = text(
        None,
        "Where /metrics (Prometheus), /healthz and /readyz are served over HTTP: ADDRESS:PORT, or"
        " the path of a UNIX socket. Whoever can connect may read them, so an address that other"
        " hosts can reach is warned of. Unset: nowhere; proxyd metrics prints the same.",
        check=checks.metrics_address,
        example="127.0.0.1:9177",
        effect=AT_START,
    )

    # Audit
    proxyd_audit: tuple[str, ...] = strings(
        (SESSIONS,),
        'What is recorded, who did what to which guest: "sessions" (who came, was turned away, went'
        ' and was ended, and what administrators of proxyd did), "changes" (besides, each call that'
        ' is more than reading) or "all" (besides, each call). An empty list: nothing.',
        each=checks.one_of(*SCOPES),
        example=(SESSIONS, CHANGES),
    )
    proxyd_audit_output: str | None = text(
        None,
        'Where records go: "journald", "file:/PATH" (lines of JSON) or "syslog:NAME". Unset: the'
        " journal, or where there is none the file virtproxyd-audit.log beside the log.",
        check=checks.audit_output,
        empty_is_unset=True,
        example="file:/var/log/libvirt/virtproxyd-audit.log",
    )
    proxyd_audit_required: bool = switch(
        False,
        "Whether calls that change something are refused as long as records cannot be written;"
        " reading goes on. It is for those calls that proxyd_audit has recorded.",
    )

    # The daemons behind
    proxyd_backend_dir: str | None = text(
        None,
        "Directory with the sockets of the daemons behind. Unset: the run-time directory's"
        " libvirt/.",
        check=checks.absolute_path,
        empty_is_unset=True,
        example="/run/libvirt",
    )
    proxyd_routes: tuple[str, ...] = strings(
        (),
        'Which daemon serves which URI scheme, beyond the usual ones: "SCHEME=DAEMON" or'
        ' "SCHEME=/PATH/OF/SOCKET". [ "qemu=libvirtd" ] puts proxyd before the one old daemon.',
        each=checks.route,
    )

    # Accepted and ignored
    access_drivers: tuple[str, ...] = strings(
        ("none",),
        'Access control call by call: "none" or "polkit".',
        each=checks.one_of("none", "polkit"),
        effect=never(
            "proxyd does not judge single calls; set it for the daemons behind, which are told who"
            " the client is"
        ),
    )
    max_client_requests: int = count(
        5, "Calls of one client that may be under way at one time.", effect=_BEHIND_COUNT
    )
    min_workers: int = count(5, "Worker threads to begin with.", effect=_NO_WORKERS)
    max_workers: int = count(
        20, "The most worker threads.", check=checks.at_least_one, effect=_NO_WORKERS
    )
    prio_workers: int = count(5, "Worker threads for urgent calls only.", effect=_NO_WORKERS)
    admin_min_workers: int = count(5, "min_workers for the admin socket.", effect=_NO_WORKERS)
    admin_max_workers: int = count(20, "max_workers for the admin socket.", effect=_NO_WORKERS)
    admin_max_client_requests: int = count(
        5,
        "max_client_requests for the admin socket.",
        effect=never("an administrator's calls are answered one after the other"),
    )
    admin_keepalive_interval: int = number(
        5, "keepalive_interval for the admin socket.", effect=_AS_IN_LIBVIRT
    )
    admin_keepalive_count: int = count(
        5, "keepalive_count for the admin socket.", effect=_AS_IN_LIBVIRT
    )
    keepalive_required: bool = switch(
        False, "Whether to let in only clients that answer keepalive.", effect=_AS_IN_LIBVIRT
    )
    admin_keepalive_required: bool = switch(
        False, "keepalive_required for the admin socket.", effect=_AS_IN_LIBVIRT
    )
    audit_level: int = count(
        1,
        "The host's audit log: 0 unused, 1 used if there is one, 2 or more required.",
        effect=_NOTHING_AUDITED,
    )
    audit_logging: bool = switch(
        False, "Whether audit records also go to our own log.", effect=_NOTHING_AUDITED
    )
    host_uuid: str | None = text(
        None,
        "UUID of this host, in place of what host_uuid_source would give.",
        check=checks.host_uuid,
        example="8510f1dd-8c1d-4f1c-a1b4-6f0d3a3c8f52",
        effect=_UUID_BEHIND,
    )
    host_uuid_source: Literal["smbios", "machine-id"] = text(
        "smbios",
        'Where the UUID of this host comes from: "smbios" (the firmware) or "machine-id"'
        " (/etc/machine-id).",
        check=checks.one_of("smbios", "machine-id"),
        effect=_UUID_BEHIND,
    )
    ovs_timeout: int = count(
        5,
        "Seconds that Open vSwitch has to answer.",
        effect=never("nothing in a proxy asks Open vSwitch"),
    )


SPECS: Final[Mapping[str, Spec]] = {f.name: f.metadata["spec"] for f in fields(Settings)}

# The key that opens each chapter of the documents.
CHAPTERS: Final[Mapping[str, str]] = {
    "listen_tls": "Listeners",
    "auth_unix_rw": "Who may come in",
    "key_file": "Certificates",
    "max_clients": "Limits",
    "admin_max_clients": "The admin socket",
    "log_level": "Logging",
    "proxyd_metrics_listen": "Metrics",
    "proxyd_audit": "Audit",
    "proxyd_backend_dir": "The daemons behind",
    "access_drivers": "Accepted and ignored",
}


def keys(when: When) -> tuple[str, ...]:
    """The keys that take effect then."""
    return tuple(key for key, spec in SPECS.items() if spec.effect.when is when)


def resolve(given: Mapping[str, Any], *, privileged: bool) -> Settings:
    """Complete the values of the file by defaults. The only place that asks who we run as.

    `privileged` is whether that is root.
    """
    auth = "polkit" if privileged else "none"
    values = {"auth_unix_rw": auth, "auth_unix_ro": auth, **given}
    # docs/protocol/configuration.md, section 1, note 1: libvirt asks the *default* of auth_unix_rw
    # here, so that root with "none" opens the socket to everybody. We ask what is in force.
    guarded = values["auth_unix_rw"] == "polkit"
    values.setdefault("unix_sock_rw_perms", _OPEN_TO_ALL if guarded else _OWNER_ONLY)
    return Settings(**values)
