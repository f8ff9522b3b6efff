"""What the doctor says of hosts that were made up: every word of it, in expected/NAME.txt.

After a change that is meant: remove those files and run the tests twice; the first run writes
them anew and fails, so that nobody forgets to read them.
"""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from proxyd.admin.document import Program
from proxyd.cli.main import build_parser
from proxyd.daemon.places import places_of
from proxyd.doctor.findings import exit_status
from proxyd.doctor.gather import judge
from proxyd.doctor.report import report, report_json
from proxyd.doctor.state import Answer, Mode, PolkitState, Process, Rules, SaslState, TlsState
from proxyd.pki.problems import fatal, warning
from tests.doctor.hosts import (
    C_PROXY,
    CONF,
    LIBVIRTD,
    LIBVIRTD_UNITS,
    LOG_AND_LOCK,
    MODULAR_UNITS,
    NETWORK,
    PROXY_UNITS,
    PROXYD,
    RUN,
    SYSTEMD,
    addresses,
    backend,
    backends,
    configuration,
    daemon,
    down,
    held,
    host,
    masked,
    monolithic,
    nothing,
    step,
    unit,
    units,
    way,
)

EXPECTED = Path(__file__).with_name("expected")
TLS_UNIT = {
    "virtproxyd-tls.socket": unit("virtproxyd-tls.socket", enabled=True, active=True),
}
KEYTAB = "/etc/libvirt/krb5.tab"
NO_KEYTAB = f"{KEYTAB}: there is no such file; kadmin: ktadd -k {KEYTAB} libvirt/HOST"

HOME_KEYTAB = "/home/alice/krb5.tab"
PKI = "/etc/pki/libvirt"
RULES = "/etc/libvirt/proxyd-rules.conf"
PRIVATE = f"{PKI}/private/serverkey.pem"
CLOSED = {
    "units": units(MODULAR_UNITS, PROXY_UNITS, TLS_UNIT),
    "configuration": replace(configuration(), files=(way(CONF),)),
    "tls": TlsState(
        asked_by="virtproxyd-tls.socket",
        problems=(),
        until="2027-01-31",
        files=(
            way("/etc/pki/CA/cacert.pem", secret=False),
            way(
                f"{PKI}/servercert.pem",
                step(f"{PKI}/servercert.pem", "alice:alice", 0o640, directory=False),
                secret=False,
            ),
            way(PRIVATE, step(PRIVATE, "alice:alice", 0o600, directory=False)),
            # A link out of a directory that is nobody's trouble, and a pair in one file.
            way(
                "/etc/ssl/both.pem",
                step("/srv/alice's", "alice:alice", 0o700),
                step("/srv/alice's/both.pem", "alice:alice", 0o600, directory=False),
                leads_to="/srv/alice's/both.pem",
                secret=False,
            ),
            way(
                "/srv/alice's/both.pem",
                step("/srv/alice's", "alice:alice", 0o700),
                step("/srv/alice's/both.pem", "alice:alice", 0o600, directory=False),
            ),
        ),
    ),
    "sasl": (
        SaslState(
            asked_by='auth_tls = "sasl"',
            transport="TLS",
            offered=("GSSAPI", "SCRAM-SHA-256"),
            keytab="/srv/x/krb5.tab",
            passwords=True,
            files=(
                way("/srv/x/krb5.tab", step("/srv/x", "alice:ssl-cert", 0o750)),
                way(
                    "/srv/y/z/proxyd-passwords",
                    step("/srv/y", "root:root", 0o655),
                    step("/srv/y/z", "alice:root", 0o705),
                ),
            ),
        ),
        SaslState(
            asked_by='auth_tcp = "sasl"',
            transport="TCP",
            offered=("GSSAPI",),
            keytab="/srv/x/krb5.tab",
            files=(way("/srv/x/krb5.tab", step("/srv/x", "alice:ssl-cert", 0o750)),),
        ),
    ),
}
OPEN = {
    "configuration": configuration(),
    "tls": replace(CLOSED["tls"], files=()),
    "sasl": tuple(replace(each, files=()) for each in CLOSED["sasl"]),
}


def may(*capabilities):
    """The service with these."""
    name = "virtproxyd.service"
    return {name: unit(name, enabled=True, active=True, capabilities=capabilities)}


# Name, exit status, state.
HOSTS = [
    ("all_is_well", 0, host()),
    ("libvirtd_alone", 0, monolithic()),
    (
        "rules_in_force",
        0,
        host(
            rules=Rules(
                path=RULES,
                count=2,
                summary=("by tls: SASL user eve may read any URI", "everybody else is refused"),
                files=(way(RULES, secret=False),),
            )
        ),
    ),
    (
        "rules_that_are_hardly_meant_and_anybodys",
        1,
        host(
            rules=Rules(
                path=RULES,
                count=1,
                doubts=(f"{RULES}:1:1: the rule in line 1 ended on 2026-01-01",),
                summary=("everybody is refused",),
                files=(
                    way(
                        RULES,
                        step("/etc/libvirt", "alice:alice"),
                        step(RULES, mode=0o664, directory=False),
                        secret=False,
                    ),
                ),
            )
        ),
    ),
    (
        "rules_with_faults",
        2,
        host(
            rules=Rules(
                path=RULES,
                faults=(f"{RULES}:1:12: expected what may be done", f"{RULES}:2:1: expected a way"),
                files=(way(RULES, secret=False),),
            )
        ),
    ),
    (
        "rules_that_are_not_there",
        2,
        host(rules=Rules(path=RULES, trouble=f"cannot load the rules: {RULES}: no such file")),
    ),
    (
        "an_update_that_is_not_in_force",
        1,
        host(
            program=Program(
                outdated=("0.1.0 runs, 0.2.0 is installed", "libssl.so.3 was replaced"),
                installed="0.2.0",
                remedy="systemctl restart virtproxyd.service",
            )
        ),
    ),
    (
        "libvirtd_and_virtproxyd_enabled_for_one_socket",
        2,
        host(
            units=units(
                MODULAR_UNITS,
                PROXY_UNITS,
                daemon("libvirtd", active=False, but=["-admin"]),
                TLS_UNIT,
            ),
        ),
    ),
    (
        "libvirtd_runs_beside_modular_daemons",
        2,
        host(
            units=units(MODULAR_UNITS, down("virtproxyd"), LIBVIRTD_UNITS),
            addresses=addresses(SYSTEMD, LIBVIRTD),
            guests=3,
        ),
    ),
    (
        "libvirtd_runs_by_hand_and_holds_the_sockets",
        2,
        host(
            units=units(MODULAR_UNITS, daemon("virtproxyd", active=False, but=NETWORK)),
            addresses=addresses(LIBVIRTD),
        ),
    ),
    (
        # On Debian 12, which has no modular daemons: systemd has stopped libvirtd's sockets for the
        # proxy's, and libvirtd itself has gone on with its own.
        "virtproxyd_enabled_beside_a_libvirtd_that_runs",
        2,
        monolithic(
            units=units(
                daemon("libvirtd", active=False, running=True, but=NETWORK),
                daemon("virtproxyd", but=NETWORK),
                LOG_AND_LOCK,
            ),
            addresses=tuple(
                replace(each, listening=2 if each.owners else 0)
                for each in addresses(SYSTEMD, LIBVIRTD)
            ),
            proxy_program="proxyd",
        ),
    ),
    (
        "virtproxyd_started_beside_a_libvirtd_that_runs",
        2,
        host(
            units=units(
                MODULAR_UNITS,
                daemon("virtproxyd", but=NETWORK),
                daemon("libvirtd", enabled=False, active=False, running=True),
            ),
            addresses=addresses(
                SYSTEMD,
                PROXYD,
                rw=held(f"{RUN}/libvirt-sock", SYSTEMD, LIBVIRTD, listening=2),
            ),
        ),
    ),
    (
        "a_port_is_taken",
        2,
        host(
            units=units(
                MODULAR_UNITS,
                PROXY_UNITS,
                {"virtproxyd-tls.socket": unit("virtproxyd-tls.socket", enabled=True, failed=True)},
            ),
            addresses=addresses(
                SYSTEMD,
                PROXYD,
                tls=held("port 16514", Process(99, "stunnel4", "stunnel4 /etc/stunnel/x.conf")),
            ),
            tls=TlsState(asked_by="virtproxyd-tls.socket", problems=(), until="2027-01-31"),
        ),
    ),
    (
        "two_daemons_bound_one_path",
        2,
        host(
            addresses=addresses(
                SYSTEMD, PROXYD, rw=held(f"{RUN}/libvirt-sock", SYSTEMD, C_PROXY, listening=2)
            )
        ),
    ),
    (
        "a_socket_without_anybody",
        1,
        host(
            units=units(MODULAR_UNITS, down("virtproxyd")),
            addresses=addresses(rw=held(f"{RUN}/libvirt-sock", there=True)),
        ),
    ),
    (
        "a_socket_left_by_a_daemon_that_was_switched_off",
        2,
        monolithic(
            units=units(LIBVIRTD_UNITS, down("virtqemud"), LOG_AND_LOCK),
            backends=backends(Answer.ABSENT, qemu=backend("qemu", Answer.REFUSED)),
        ),
    ),
    (
        "masked_and_half_enabled_units",
        1,
        host(
            units=units(
                MODULAR_UNITS,
                PROXY_UNITS,
                daemon("virtqemud", but=("-ro", "-admin")),
                daemon("virtsecretd", but=("-admin",)),
                masked("virtproxyd-ro.socket", "virtproxyd-admin.socket"),
            ),
        ),
    ),
    (
        "a_daemon_failed_and_one_was_not_started",
        2,
        host(
            units=units(
                MODULAR_UNITS,
                PROXY_UNITS,
                down("virtnetworkd"),
                {"virtstoraged.service": unit("virtstoraged.service", failed=True)},
            ),
            backends=backends(
                network=backend("network", Answer.ABSENT),
                storage=backend("storage", Answer.REFUSED),
                secret=backend("secret", Answer.SILENT),
                nodedev=backend("nodedev", Answer.BROKEN, detail="it hung up without a reply"),
                nwfilter=backend("nwfilter", methods=("sasl",)),
            ),
        ),
    ),
    (
        "a_service_failed_with_its_sockets",
        2,
        host(
            units=units(
                MODULAR_UNITS,
                daemon("virtproxyd", active=False, but=NETWORK),
                {
                    name: unit(name, enabled=True, failed=True)
                    for name in ("virtproxyd.service", "virtproxyd.socket", "virtproxyd-ro.socket")
                },
            ),
            addresses=addresses(),
        ),
    ),
    (
        "a_port_enabled_while_the_service_ran",
        1,
        host(
            units=units(
                MODULAR_UNITS,
                PROXY_UNITS,
                {"virtproxyd-tls.socket": unit("virtproxyd-tls.socket", enabled=True)},
            ),
            tls=TlsState(asked_by="virtproxyd-tls.socket", problems=(), until="2027-01-31"),
        ),
    ),
    (
        "nothing_behind_the_proxy",
        2,
        host(
            units=units(down("libvirtd"), PROXY_UNITS, LOG_AND_LOCK),
            addresses=addresses(SYSTEMD, C_PROXY),
            proxy_program="virtproxyd",
            backends=backends(Answer.ABSENT),
        ),
    ),
    (
        "routes_that_lead_nowhere_and_back",
        2,
        host(
            backends=(
                *backends(),
                backend("test", Answer.ABSENT, path="/srv/x/libvirt-sock", schemes=("test",)),
                backend("esx", path=f"{RUN}/libvirt-sock", schemes=("esx", "vpx")),
            )
        ),
    ),
    (
        "nothing_is_left_after_a_boot",
        1,
        host(
            units=units(
                *(daemon(name, enabled=False) for name in ("virtqemud", "virtnetworkd")),
                LOG_AND_LOCK,
                daemon("virtproxyd", enabled=False, but=NETWORK),
            ),
            backends=(backend("qemu"), backend("network")),
        ),
    ),
    (
        "installed_and_never_enabled",
        1,
        host(
            units=units(down("virtqemud"), LOG_AND_LOCK, nothing("virtproxyd")),
            addresses=addresses(),
            proxy_program="",
            backends=backends(Answer.ABSENT),
        ),
    ),
    (
        "no_libvirt_at_all",
        2,
        host(
            units={},
            programs=frozenset(),
            addresses=addresses(),
            proxy_program="",
            backends=backends(Answer.ABSENT),
        ),
    ),
    (
        "guests_without_virtlogd",
        2,
        host(units=units(MODULAR_UNITS, PROXY_UNITS, nothing("virtlogd"), nothing("virtlockd"))),
    ),
    (
        "virtlogd_masked",
        2,
        host(units=units(MODULAR_UNITS, PROXY_UNITS, masked("virtlogd.service"))),
    ),
    (
        "virtlogd_down",
        1,
        host(units=units(MODULAR_UNITS, PROXY_UNITS, down("virtlogd"))),
    ),
    (
        "certificates_keytab_and_polkit_in_disorder",
        2,
        host(
            units=units(MODULAR_UNITS, PROXY_UNITS, TLS_UNIT),
            tls=TlsState(
                asked_by="virtproxyd-tls.socket",
                directory="/etc/pki",
                there=frozenset({"/etc/pki/libvirt/servercert.pem"}),
                problems=(
                    fatal(
                        "/etc/pki/libvirt/servercert.pem",
                        "the certificate of CN=host expired on 2026-11-01 00:00:00 UTC",
                        "issue a new one (proxyd certs server)",
                    ),
                    warning(
                        "/etc/pki/CA/cacrl.pem",
                        "the revocation list of CN=ca expired on 2026-11-02 00:00:00 UTC, and"
                        " clients of that CA are refused",
                        "make a new one (proxyd certs crl) and reload",
                    ),
                    warning(
                        "/etc/pki/CA/cacert.pem",
                        "others may change it",
                        "chmod go-w /etc/pki/CA/cacert.pem",
                    ),
                ),
            ),
            sasl=(
                SaslState(
                    asked_by='auth_tcp = "sasl"',
                    transport="TCP",
                    trouble=f"no SASL mechanism can serve clients by TCP; GSSAPI: {NO_KEYTAB}",
                    kerberos_missing=NO_KEYTAB,
                    keytab=KEYTAB,
                ),
                SaslState(
                    asked_by='auth_tls = "sasl"',
                    transport="TLS",
                    offered=("SCRAM-SHA-256",),
                    kerberos_missing=NO_KEYTAB,
                    keytab=KEYTAB,
                    passwords=True,
                ),
                SaslState(
                    asked_by='auth_unix_rw = "sasl"',
                    transport="UNIX",
                    trouble="no SASL mechanism can serve clients by UNIX; SCRAM-SHA-256: there is"
                    " no such file",
                    passwords=True,
                ),
            ),
            polkit=PolkitState(
                asked_by='auth_unix_ro = "polkit"', missing=("org.libvirt.unix.manage",)
            ),
        ),
    ),
    (
        "a_certificate_of_a_ca_that_is_elsewhere",
        2,
        host(
            units=units(MODULAR_UNITS, PROXY_UNITS, TLS_UNIT),
            tls=TlsState(
                asked_by="virtproxyd-tls.socket",
                there=frozenset({"/etc/pki/libvirt/servercert.pem"}),
                problems=(
                    fatal(
                        "/etc/pki/libvirt/servercert.pem",
                        "the certificate of CN=host expired on 2026-11-01 00:00:00 UTC",
                        "issue a new one (proxyd certs server)",
                    ),
                ),
            ),
        ),
    ),
    (
        "a_switch_that_has_not_ended",
        2,
        host(
            units=units(MODULAR_UNITS, down("virtproxyd"), down("libvirtd")),
            addresses=addresses(),
            switching=Mode.MODULAR,
        ),
    ),
    (
        "a_socket_file_that_was_removed",
        2,
        host(
            addresses=addresses(
                SYSTEMD,
                PROXYD,
                rw=replace(held(f"{RUN}/libvirt-sock", SYSTEMD, PROXYD, there=False), lost=True),
            )
        ),
    ),
    (
        "libvirtd_failed_on_a_modular_host",
        1,
        host(
            units=units(
                MODULAR_UNITS,
                PROXY_UNITS,
                down("libvirtd"),
                {"libvirtd.socket": unit("libvirtd.socket", failed=True)},
                {"libvirtd.service": unit("libvirtd.service", failed=True)},
            ),
        ),
    ),
    ("files_that_are_closed_to_root_without_capabilities", 2, host(**CLOSED)),
    (
        "a_keytab_in_a_home_directory",
        2,
        host(
            sasl=(
                SaslState(
                    asked_by='auth_unix_rw = "sasl"',
                    transport="UNIX",
                    offered=("GSSAPI",),
                    files=(way(HOME_KEYTAB, step("/home/alice", "alice:alice", 0o700)),),
                ),
            ),
        ),
    ),
    (
        "a_configuration_that_cannot_be_used",
        2,
        host(
            configuration=configuration(
                trouble="cannot load the configuration: /etc/libvirt/virtproxyd.conf:3:14: tls_port"
                ' a port expected, not "x"'
            )
        ),
    ),
    (
        "keys_that_do_nothing",
        1,
        host(
            configuration=configuration(
                listen_tls=True,
                doubts=('/etc/libvirt/virtproxyd.conf:1:1: unknown key "listen_tsl"',),
            )
        ),
    ),
    (
        "a_container_without_systemd",
        2,
        host(
            no_systemd="systemctl: System has not been booted with systemd as init system",
            units={},
            proxy_program="",
            addresses=addresses(LIBVIRTD, tcp=held("port 16509", Process(31, "nc", "nc -l 16509"))),
            configuration=configuration(listen_tcp=True),
            sasl=(SaslState(asked_by='auth_tcp = "sasl"', transport="TCP", offered=("GSSAPI",)),),
            polkit=PolkitState(
                asked_by='auth_unix_rw = "polkit"', trouble="polkit does not answer: no such name"
            ),
        ),
    ),
    (
        "seen_by_an_ordinary_user",
        0,
        host(
            as_root=False,
            addresses=tuple(
                held(each.name, listening=each.listening) for each in addresses(SYSTEMD)
            ),
            configuration=configuration(trouble="cannot load the configuration: it is root's"),
            backends=backends(Answer.DENIED, network=backend("network", methods=("polkit",))),
        ),
    ),
]


@pytest.mark.parametrize(("name", "status", "state"), HOSTS, ids=[each[0] for each in HOSTS])
def test_every_word_of_it(name, status, state):
    findings = judge(state)
    said = report(state, findings, colour=False)
    expected = EXPECTED / f"{name}.txt"
    if not expected.exists():
        expected.write_text(said)
        pytest.fail(f"{expected} was written: read it")
    assert said == expected.read_text()
    assert exit_status(findings) == status


@pytest.mark.parametrize(
    ("left", "found"),
    [
        ({}, []),
        ({"virtqemud.socket": unit("virtqemud.socket", failed=True)}, ["unit-failed"]),
        (
            {"virtqemud.service": unit("virtqemud.service", enabled=True, failed=True)},
            ["unit-failed"],
        ),
    ],
)
def test_a_daemon_that_was_switched_away_from_may_have_ended_badly(left, found):
    """libvirt 11.3's may hang when they are told to end, and then end with status 1."""
    failed = {"virtqemud.service": unit("virtqemud.service", failed=True)}
    state = monolithic(units=units(LIBVIRTD_UNITS, LOG_AND_LOCK, down("virtqemud"), failed, left))
    said = [each.code for each in judge(state) if each.code == "unit-failed"]
    assert said == found


@pytest.mark.parametrize("state", [each[2] for each in HOSTS], ids=[each[0] for each in HOSTS])
def test_80_columns_are_enough_for_all_but_commands(state):
    lines = report(state, judge(state), colour=False).splitlines()
    wide = [line for line in lines if len(line) > 80]
    commands = {line for finding in judge(state) for line in finding.fix}
    assert [line for line in wide if line.strip() not in commands] == []


@pytest.mark.parametrize("state", [each[2] for each in HOSTS], ids=[each[0] for each in HOSTS])
def test_all_that_is_worse_than_a_note_says_why_and_what_mends_it(state):
    bad = [each for each in judge(state) if each.severity > 1 and each.code != "nothing-runs"]
    assert [each.code for each in bad if not each.why or not each.fix] == []


@pytest.mark.parametrize("state", [each[2] for each in HOSTS], ids=[each[0] for each in HOSTS])
def test_commands_of_ours_are_such_and_no_line_has_a_gap_to_be_filled(state):
    lines = [line for finding in judge(state) for line in finding.fix if line[0] != "#"]
    parser = build_parser(places_of({}, euid=0), whole=True)
    for words in (shlex.split(line) for line in lines):
        assert not [word for word in words if word in {"NAME", "HOST", "PATH"}]
        if words[0] == "proxyd":
            parser.parse_args(words[1:])


@pytest.mark.parametrize(
    "changes",
    [
        {"units": units(CLOSED["units"], may("cap_chown", "cap_dac_read_search"))},
        {"units": units(CLOSED["units"], may("cap_dac_override"))},
        {"units": units(CLOSED["units"], nothing("virtproxyd"))},
        {"units": units(CLOSED["units"], down("virtproxyd"))},
        {"units": {}, "no_systemd": "there is no command systemctl"},
    ],
    ids=["may read all", "may do all", "no unit", "an unused unit", "no systemd"],
)
def test_where_no_unit_takes_the_capabilities_whose_a_file_is_does_not_matter(changes):
    assert judge(host(**CLOSED | changes)) == judge(host(**CLOSED | OPEN | changes))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("unix_sock_rw_perms",), "unix_sock_rw_perms is not applied"),
        (
            ("unix_sock_group", "max_clients", "unix_sock_dir"),
            "unix_sock_group and unix_sock_dir are not applied",
        ),
        (("max_clients", "tls_port", "listen_tls"), None),
    ],
)
def test_settings_of_sockets_that_systemd_makes_are_told_of(changed, says):
    findings = judge(host(configuration=configuration(changed=changed)))
    found = [each.what for each in findings if each.code == "sockets-of-systemd"]
    assert found == ([f"{says}, because systemd makes the sockets."] if says else [])
    unactivated = host(units={}, configuration=configuration(changed=changed))
    assert "sockets-of-systemd" not in {each.code for each in judge(unactivated)}


def test_every_expected_text_belongs_to_a_host():
    assert {path.stem for path in EXPECTED.glob("*.txt")} == {each[0] for each in HOSTS}


def test_colour_marks_the_severity_and_nothing_else():
    state = host(polkit=PolkitState(asked_by="x", trouble="polkit does not answer"))
    plain = report(state, judge(state), colour=False)
    coloured = report(state, judge(state), colour=True)
    assert "\x1b[31;1mERROR\x1b[0m polkit does not answer." in coloured
    for code in ("\x1b[31;1m", "\x1b[32m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


def test_json_has_all_of_it():
    state = host(
        units={"virtproxyd.socket": unit("virtproxyd.socket", enabled=True, active=True)},
        addresses=(held(f"{RUN}/libvirt-sock", SYSTEMD),),
        backends=(backend("qemu"),),
        guests=2,
    )
    whole = json.loads(report_json(state, judge(state)))
    assert whole["mode"] == {"now": "none", "at_boot": "none"}
    assert (whole["version"], whole["exit_status"], whole["guests"]) == (1, 2, 2)
    assert whole["systemd"] == {"answers": True, "reason": ""}
    assert [each for each in whole["units"] if each["installed"]] == [
        {
            "name": "virtproxyd.socket",
            "installed": True,
            "enabled": True,
            "active": True,
            "masked": False,
            "failed": False,
        }
    ]
    assert whole["addresses"] == [
        {
            "name": "/run/libvirt/libvirt-sock",
            "there": True,
            "listening": 1,
            "owners": [{"pid": 1, "program": "systemd", "command": "/sbin/init"}],
        }
    ]
    assert whole["backends"] == [
        {
            "daemon": "virtqemud",
            "schemes": ["qemu"],
            "path": "/run/libvirt/virtqemud-sock",
            "answer": "answers",
            "methods": ["none"],
            "detail": "",
            "took_ms": 2,
        }
    ]
    assert whole["findings"][0]["severity"] == "error"
    assert {"code", "what", "why", "fix"} < set(whole["findings"][0])
