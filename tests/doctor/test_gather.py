"""Gathering, against real sockets, real processes and a systemctl that tells what we say."""

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from certs.authority import Authority
from proxyd.config.routes import RoutingTable
from proxyd.config.settings import resolve
from proxyd.config.sources import load
from proxyd.doctor import command as doctor
from proxyd.doctor.addresses import look_at
from proxyd.doctor.backends import ask, ask_all
from proxyd.doctor.files import way_to
from proxyd.doctor.gather import gather
from proxyd.doctor.polkit import look_at_polkit
from proxyd.doctor.sasl import look_at_sasl
from proxyd.doctor.state import Answer, Mode, Process, program_of
from proxyd.doctor.surroundings import Surroundings, Unready
from proxyd.doctor.systemctl import NoSystemd, parse_show, show
from proxyd.doctor.tls import look_at_tls
from proxyd.pki.files import CertificateFiles
from proxyd.sasl.keytab import Keytab
from proxyd.sasl.passwords import PasswordFile
from proxyd.wire import remote
from proxyd.wire.failure import internal
from proxyd.wire.frame import Header
from proxyd.wire.programs import VERSION, Program, Remote
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.pki import Pki
from tests.bed.polkit import Polkitd, PrivateBus
from tests.doctor.hosts import daemon, unit
from tests.doctor.scripted import Systemctl

# As systemd 252 printed it: a service, two sockets, one that is not there, one that is masked.
SHOWN = """\
MainPID=0
ExecStart={ path=/usr/sbin/libvirtd ; argv[]=/usr/sbin/libvirtd $LIBVIRTD_ARGS ; ignore_errors=no \
; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
Id=libvirtd.service
Names=libvirtd.service
LoadState=loaded
ActiveState=inactive
UnitFileState=disabled
CapabilityBoundingSet=cap_chown cap_dac_override

Listen=/run/libvirt/libvirt-sock (Stream)
Id=libvirtd.socket
Names=libvirtd.socket
LoadState=loaded
ActiveState=active
UnitFileState=enabled

Listen=[::]:16509 (Stream)
Listen=192.0.2.1:16510 (Stream)
Id=libvirtd-tcp.socket
Names=libvirtd-tcp.socket also.socket
LoadState=loaded
ActiveState=failed
UnitFileState=disabled

Id=virtxend.socket
Names=virtxend.socket
LoadState=not-found
ActiveState=inactive
UnitFileState=

Id=virtlogd.service
Names=virtlogd.service
LoadState=masked
ActiveState=inactive
UnitFileState=masked
CapabilityBoundingSet=
"""
ALL = RoutingTable(privileged=True, system_dir="/nowhere", session_dir="/nowhere")


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    return Systemctl(tmp_path / "bin", monkeypatch)


@pytest.fixture
def directory():
    with short_directory() as directory:
        yield directory


def around(tmp_path, text="", **changes):
    """What the daemon would hand in, for files below tmp_path."""

    def loaded(path):
        if path is not None:
            raise Unready(f"there is no file {path}")
        return load(text, "virtproxyd.conf", privileged=True)

    made = Surroundings(
        config_file=str(tmp_path / "virtproxyd.conf"),
        runtime_dir=str(tmp_path),
        load=loaded,
        routing_table=lambda settings: replace(
            ALL,
            system_dir=str(tmp_path),
            routes=dict(route.split("=", 1) for route in settings.proxyd_routes),
        ),
        certificate_files=lambda _: CertificateFiles(
            ca=str(tmp_path / "pki/CA/cacert.pem"),
            crl=None,
            pairs=(
                (
                    str(tmp_path / "pki/libvirt/servercert.pem"),
                    str(tmp_path / "pki/libvirt/private/serverkey.pem"),
                ),
            ),
        ),
        keytab=lambda _: Keytab(str(tmp_path / "krb5.tab")),
        passwords=lambda _: PasswordFile(str(tmp_path / "passwords")),
    )
    return replace(made, **changes)


@contextmanager
def listening(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock


@contextmanager
def answering(path, *payloads):
    """Somebody who takes one client, reads its call, sends these bytes, and hangs up."""

    def serve():
        with listener.accept()[0] as client:
            client.recv(28)
            for payload in payloads:
                client.sendall(payload)

    with listening(path) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


# systemd


def test_what_systemd_prints_is_understood():
    units = parse_show(SHOWN)
    service, rw, tcp = (units[f"libvirtd{each}"] for each in (".service", ".socket", "-tcp.socket"))
    assert service.program == "/usr/sbin/libvirtd"
    assert service.command == "/usr/sbin/libvirtd $LIBVIRTD_ARGS"
    assert (service.installed, service.enabled, service.active) == (True, False, False)
    assert rw.listen == ("/run/libvirt/libvirt-sock",)
    assert (rw.enabled, rw.active, rw.failed) == (True, True, False)
    assert tcp.listen == ("[::]:16509", "192.0.2.1:16510")
    assert tcp.failed
    assert units["also.socket"] is not units["libvirtd.socket"]
    assert units["also.socket"] == tcp
    assert not units["virtxend.socket"].installed
    assert units["virtlogd.service"].masked
    assert units["virtlogd.service"].installed
    assert service.capabilities == {"cap_chown", "cap_dac_override"}
    assert units["virtlogd.service"].capabilities == frozenset()


def test_units_are_asked_for_in_one_call(systemctl):
    systemctl.know(daemon("virtqemud"))
    units = show(["virtqemud.socket", "virtxend.socket"])
    assert list(units) == ["virtqemud.socket", "virtxend.socket"]
    assert units["virtqemud.socket"].active
    assert not units["virtxend.socket"].installed
    assert systemctl.done() == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\necho 'no \x1b[31msystemd' >&2; exit 1\n", r"systemctl: no \\x1b\[31msystemd"),
        ("#!/bin/sh\nexit 1\n", "systemctl: it gives no reason"),
        ("#!/bin/sh\nexec tail -f /dev/null\n", "did not answer within 0.2 seconds"),
    ],
)
def test_without_systemd_the_reason_is_told(systemctl, script, says):
    systemctl.replace(script)
    with pytest.raises(NoSystemd, match=says):
        show(["libvirtd.socket"], deadline_s=0.2 if "tail" in script else 10)


def test_a_host_without_systemctl_is_told_as_such(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSystemd, match="there is no command systemctl"):
        show(["libvirtd.socket"])
    (tmp_path / "systemctl").touch(mode=0o644)
    with pytest.raises(NoSystemd, match="cannot be run: Permission denied"):
        show(["libvirtd.socket"])


# Sockets and who has them


def test_a_socket_is_its_process(directory):
    with listening(directory / "sock"):
        (found,) = look_at(paths=[str(directory / "sock")], ports=[])
    assert (found.there, found.listening, found.hidden) == (True, 1, False)
    (owner,) = found.owners
    assert owner.pid == os.getpid()
    # pytest's, or that of one of its workers.
    words = Path("/proc/self/cmdline").read_text().split("\0")
    assert owner.command.startswith(f"{shlex.quote(words[0])} {shlex.quote(words[1])}")


def test_a_socket_is_found_through_symbolic_links_and_with_spaces(directory):
    (directory / "real dir").mkdir()
    (directory / "link").symlink_to("real dir")
    with listening(directory / "real dir/s ck"):
        (directory / "alias").symlink_to("link/s ck")
        found = look_at(paths=[str(directory / "alias"), str(directory / "link/s ck")], ports=[])
    assert [each.listening for each in found] == [1, 1]


def test_a_socket_whose_listener_has_ended_is_there_and_nobodys(directory):
    with listening(directory / "sock"):
        pass
    gone, never = look_at(paths=[str(directory / "sock"), str(directory / "other")], ports=[])
    assert (gone.there, gone.listening, gone.owners) == (True, 0, ())
    assert (never.there, never.listening) == (False, 0)


def test_two_listeners_of_one_path_are_both_seen(directory):
    with listening(directory / "sock"):
        (directory / "sock").unlink()
        with listening(directory / "sock"):
            (found,) = look_at(paths=[str(directory / "sock")], ports=[])
    assert found.listening == 2


def test_all_processes_that_share_a_socket_are_told(directory):
    with listening(directory / "sock") as sock:
        command = [sys.executable, "-c", "print(flush=True); input()"]
        with subprocess.Popen(
            command,
            pass_fds=[sock.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
        ) as child:
            child.stdout.readline()
            (found,) = look_at(paths=[str(directory / "sock")], ports=[])
            child.communicate(b"\n")
    assert {owner.pid for owner in found.owners} == {os.getpid(), child.pid}


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_port_is_its_process(family, address):
    with socket.create_server((address, 0), family=family) as sock:
        port = sock.getsockname()[1]
        (found,) = look_at(paths=[], ports=[port])
    assert found.name == f"port {port}"
    assert [owner.pid for owner in found.owners] == [os.getpid()]
    (closed,) = look_at(paths=[], ports=[port])
    assert (closed.there, closed.owners) == (False, ())


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["/usr/sbin/libvirtd", "--timeout", "120"], "libvirtd"),
        (["/usr/sbin/virtproxyd"], "virtproxyd"),
        (["/usr/bin/python3", "-m", "proxyd", "-d"], "proxyd"),
        (["/usr/bin/python3.11", "-I", "-u", "/usr/local/bin/proxyd"], "proxyd"),
        (["python3", "/usr/sbin/virtproxyd"], "proxyd"),
        (["python3", "-m", "http.server"], "http"),
        (["python3", "-m"], "python3"),
        (["python3"], "python3"),
        ([], ""),
    ],
)
def test_a_program_is_called_what_it_is_called(words, program):
    assert program_of(words) == program


def test_a_process_that_is_gone_has_still_a_name():
    assert str(Process(7, "libvirtd")) == "libvirtd (pid 7)"
    assert str(Process(7, "")) == "a program (pid 7)"


# Daemons behind


def reply(methods):
    header = Header(Program.REMOTE, VERSION, Remote.AUTH_LIST, 0, 0)
    return remote.reply(header, remote.pack_auth_methods(methods)).pack()


REFUSAL = internal("no").reply_to(Header(Program.REMOTE, VERSION, Remote.AUTH_LIST, 0, 0)).pack()
OTHER = remote.reply(Header(Program.REMOTE, VERSION, Remote.CONNECT_OPEN, 0, 0)).pack()


@pytest.mark.parametrize(
    ("payloads", "answer", "methods", "detail"),
    [
        ([reply([0])], Answer.ANSWERS, ("none",), ""),
        ([reply([2, 1])], Answer.ANSWERS, ("polkit", "sasl"), ""),
        ([reply([77])], Answer.ANSWERS, ("77",), ""),
        ([reply([0])[:30], reply([0])[30:]], Answer.ANSWERS, ("none",), ""),
        ([], Answer.BROKEN, (), "it hung up without a reply"),
        ([reply([0])[:-1]], Answer.BROKEN, (), "it hung up without a reply"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], Answer.BROKEN, (), "a frame length of"),
        ([OTHER], Answer.BROKEN, (), "it replied to something that was not asked"),
        ([REFUSAL], Answer.BROKEN, (), "it replied: internal error: no"),
        ([reply([0])[:24] + b"\0\0\0\0"], Answer.BROKEN, (), "it hung up"),
    ],
)
def test_an_answer_is_told(directory, payloads, answer, methods, detail):
    with answering(directory / "sock", *payloads):
        told = ask(str(directory / "sock"), deadline_s=10)
    assert (told.answer, told.methods) == (answer, methods)
    assert told.detail.startswith(detail)


def test_a_socket_that_is_not_there_or_has_nobody_behind_is_told_apart(directory):
    with listening(directory / "sock"):
        pass
    (directory / "file").touch()
    names = ("none", "sock", "file")
    told = ask_all([str(directory / name) for name in names], deadline_s=10)
    assert [each.answer for each in told.values()] == [
        Answer.ABSENT,
        Answer.REFUSED,
        Answer.REFUSED,
    ]


def test_daemons_that_are_silent_cost_the_deadline_once(directory):
    with listening(directory / "a"), listening(directory / "b"):
        told = ask_all([str(directory / name) for name in "ab"], deadline_s=0.1)
    assert [each.answer for each in told.values()] == [Answer.SILENT, Answer.SILENT]


def test_a_queue_that_is_full_counts_as_silence(directory):
    with listening(directory / "sock") as sock:
        sock.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(directory / "sock"))
            assert ask(str(directory / "sock"), deadline_s=0.1).answer is Answer.SILENT


def test_a_path_too_long_for_a_socket_is_broken():
    assert "too long" in ask("/" + "x" * 200, deadline_s=1).detail


@pytest.mark.system
def test_a_real_libvirtd_in_a_network_of_its_own_answers_and_is_named():
    with short_directory() as directory, Libvirtd(directory) as libvirtd:
        libvirtd.serve_as(directory, "virtqemud")
        told = ask(str(directory / "virtqemud-sock"), deadline_s=30)
        (found,) = look_at(paths=[str(directory / "virtqemud-sock")], ports=[])
    assert (told.answer, told.methods) == (Answer.ANSWERS, ("none",))
    assert (found.there, found.listening) == (True, 1)
    assert [(each.pid, each.program) for each in found.owners] == [(libvirtd.pid, "libvirtd")]


@pytest.mark.system
def test_an_ordinary_user_is_told_what_cannot_be_seen():
    script = (
        "import sys; from proxyd.doctor.backends import ask;"
        "from proxyd.doctor.addresses import look_at;"
        "(found,) = look_at(paths=[sys.argv[1]], ports=[]);"
        "print(ask(sys.argv[1], deadline_s=10).answer, found.hidden)"
    )
    with short_directory(mode=0o755) as directory, listening(directory / "sock"):
        (directory / "sock").chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-B", "-c", script, str(directory / "sock")],
            capture_output=True,
            text=True,
            user="nobody",
            extra_groups=[],
            cwd=Path(__file__).parents[2],
            timeout=30,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("denied True\n", "")


# Certificates, keytab, polkit


def test_certificates_are_looked_at_when_somebody_listens_for_tls(tmp_path):
    settings = replace(resolve({}, privileged=True), listen_tls=True)
    assert look_at_tls(around(tmp_path), resolve({}, privileged=True), {}) is None
    missing = look_at_tls(around(tmp_path), settings, {})
    assert missing.asked_by == "listen_tls = 1"
    assert (missing.directory, missing.there) == ("", frozenset())  # no CA that could issue any
    assert [problem.fatal for problem in missing.problems] == [True] * 3
    authority = Authority.create(tmp_path / "pki", name="CA")
    issued = authority.server("host.example", names=["192.0.2.1"])
    found = look_at_tls(around(tmp_path), settings, {})
    assert found.problems == ()
    assert found.directory == str(tmp_path / "pki")
    assert found.there == {way.path for way in found.files}
    assert found.until == f"{issued.certificate.not_valid_after_utc:%Y-%m-%d}"
    assert found.files == (
        way_to(f"{tmp_path}/pki/CA/cacert.pem", secret=False),
        way_to(f"{tmp_path}/pki/libvirt/servercert.pem", secret=False),
        way_to(f"{tmp_path}/pki/libvirt/private/serverkey.pem", secret=True),
    )
    assert all(way.steps for way in found.files)


def test_under_systemd_the_units_say_who_listens(tmp_path):
    settings = replace(resolve({}, privileged=True), listen_tls=True)
    activated = {"virtproxyd.socket": unit("virtproxyd.socket", enabled=True)}
    assert look_at_tls(around(tmp_path), settings, activated) is None
    tls = {"virtproxyd-tls.socket": unit("virtproxyd-tls.socket", active=True)}
    found = look_at_tls(around(tmp_path), resolve({}, privileged=True), activated | tls)
    assert found.asked_by == "virtproxyd-tls.socket"


def test_sasl_is_looked_at_where_it_is_asked(tmp_path):
    settings = replace(
        resolve({}, privileged=True), auth_unix_rw="sasl", auth_tls="sasl", listen_tcp=True
    )
    PasswordFile(str(tmp_path / "passwords")).set_password("joe", "correct horse")
    unix, tcp = look_at_sasl(around(tmp_path), settings, {})
    assert (unix.transport, unix.offered, unix.passwords) == ("UNIX", ("SCRAM-SHA-256",), True)
    assert "there is no such file" in unix.kerberos_missing
    assert (tcp.transport, tcp.asked_by, tcp.offered) == ("TCP", 'auth_tcp = "sasl"', ())
    assert "no SASL mechanism can serve clients by TCP" in tcp.trouble
    assert tcp.keytab == str(tmp_path / "krb5.tab")
    plain = replace(settings, proxyd_sasl_mechanisms=("SCRAM-SHA-256",), listen_tcp=False)
    (unix,) = look_at_sasl(around(tmp_path), plain, {})
    assert unix.kerberos_missing == ""


def test_every_certificate_and_the_revocation_list_are_on_the_way(tmp_path):
    files = CertificateFiles(ca="/ca", crl="/crl", pairs=(("/a", "/a.key"), ("/b", "/b.key")))
    settings = replace(resolve({}, privileged=True), listen_tls=True)
    found = look_at_tls(around(tmp_path, certificate_files=lambda _: files), settings, {})
    assert [way.path for way in found.files if not way.secret] == ["/ca", "/crl", "/a", "/b"]
    assert [way.path for way in found.files if way.secret] == ["/a.key", "/b.key"]


@pytest.mark.parametrize(
    ("mechanisms", "unix", "tcp", "tls"),
    [
        ((), ["krb5.tab", "passwords"], ["krb5.tab"], ["krb5.tab", "passwords"]),
        (("GSSAPI",), ["krb5.tab"], ["krb5.tab"], ["krb5.tab"]),
        (("SCRAM-SHA-256",), ["passwords"], [], ["passwords"]),
        (("SCRAM-SHA-256-PLUS",), [], [], ["passwords"]),
    ],
)
def test_only_what_the_mechanisms_need_is_on_the_way(tmp_path, mechanisms, unix, tcp, tls):
    settings = replace(
        resolve({}, privileged=True),
        proxyd_sasl_mechanisms=mechanisms,
        auth_unix_rw="sasl",
        auth_tls="sasl",
        listen_tcp=True,
        listen_tls=True,
    )
    found = {each.transport: each.files for each in look_at_sasl(around(tmp_path), settings, {})}
    names = {name: [Path(way.path).name for way in files] for name, files in found.items()}
    assert names == {"UNIX": unix, "TCP": tcp, "TLS": tls}
    assert all(way.secret for files in found.values() for way in files)


def test_a_keytab_that_the_library_chooses_is_left_open(tmp_path):
    settings = replace(
        resolve({}, privileged=True), proxyd_sasl_mechanisms=("GSSAPI",), auth_unix_rw="sasl"
    )
    surroundings = around(tmp_path, keytab=lambda _: Keytab(None))
    (found,) = look_at_sasl(surroundings, settings, {})
    assert (found.keytab, found.files) == ("", ())


def test_no_bus_is_told_of_and_polkit_not_asked_for_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    settings = resolve({}, privileged=True)
    found = look_at_polkit(settings, deadline_s=10)
    assert found.asked_by == 'auth_unix_rw = "polkit"'
    assert found.trouble.endswith("/bus cannot be used: No such file or directory")
    silent = replace(settings, auth_unix_rw="none", auth_unix_ro="none")
    assert look_at_polkit(silent, deadline_s=10) is None


def test_a_bus_that_is_silent_is_told_of(monkeypatch, directory):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={directory}/bus")
    with listening(directory / "bus"):
        found = look_at_polkit(resolve({}, privileged=True), deadline_s=0.1)
    assert found.trouble == "polkit did not answer within 0.1 seconds"


@pytest.mark.system
def test_the_real_polkit_is_asked_for_its_actions(monkeypatch):
    settings = resolve({}, privileged=True)
    with short_directory(0o755) as directory, PrivateBus(directory) as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        nobody = look_at_polkit(settings, deadline_s=15)
        polkitd = Polkitd(directory, bus)
        with polkitd:
            complete = look_at_polkit(settings, deadline_s=15)
        (polkitd.actions / "proxyd.libvirt.unix.policy").unlink()
        with polkitd:
            without = look_at_polkit(settings, deadline_s=15)
    assert nobody.trouble.startswith("polkit does not answer: ")
    assert (complete.trouble, complete.missing) == ("", ())
    assert without.missing == ("org.libvirt.unix.manage", "org.libvirt.unix.monitor")


# All of it


def test_a_whole_host_is_gathered(systemctl, directory, monkeypatch):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={directory}/bus")
    systemctl.know(daemon("virtqemud") | daemon("virtproxyd", but=("-tcp", "-tls")))
    text = 'proxyd_routes = [ "test=/nowhere/sock" ]\ntcp_port = "1234"\n'
    text += "max_client = 3\nmax_workers = 7"
    (directory / "virtproxyd.conf").write_text(text)
    with (
        answering(directory / "virtqemud-sock", reply([0])),
        listening(directory / "libvirt-sock"),
    ):
        state = gather(around(directory, text), config=None, deadline_s=10)
    assert (state.mode(), state.mode_at_boot()) == (Mode.MODULAR, Mode.MODULAR)
    assert [each.name for each in state.addresses] == [
        *(f"{directory}/libvirt-{name}" for name in ("sock", "sock-ro", "admin-sock")),
        "port 16509",
        "port 16514",
        "port 1234",
    ]
    answers = {each.daemon: each.reply.answer for each in state.backends}
    assert answers["virtqemud"] is Answer.ANSWERS
    assert answers["virtstoraged"] is Answer.ABSENT
    assert [(each.schemes, each.path) for each in state.backends if each.routed] == [
        (("test",), "/nowhere/sock")
    ]
    assert 'unknown key "max_client"' in state.configuration.doubts[0]
    assert "max_workers has no effect here" in state.configuration.ignored[0]
    (configuration,) = state.configuration.files
    assert configuration == way_to(f"{directory}/virtproxyd.conf", secret=True)
    assert configuration.steps[-1].path == f"{directory}/virtproxyd.conf"
    assert state.polkit.trouble


@pytest.mark.parametrize(
    ("program", "arguments", "content", "expected"),
    [
        ("a dir/proxyd", " --pid-file= $VIRTPROXYD_ARGS", b"#!/usr/bin/python3", "proxyd"),
        ("a dir/python3.11", " -I -m proxyd", b"\x7fELF", "proxyd"),
        ("virtproxyd", " --timeout 120", b"\x7fELF", "virtproxyd"),
        ("virtproxyd", " --timeout 120", b"#!/usr/bin/python3", "proxyd"),
        ("something", "", b"", ""),
    ],
)
def test_what_the_unit_starts_tells_whose_virtproxyd_it_is(
    systemctl, directory, program, arguments, content, expected
):
    path = directory / program
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    systemctl.know(
        {"x": unit("virtproxyd.service", program=str(path), command=f"{path}{arguments}")}
    )
    calm = around(directory, 'auth_unix_rw = "none"\nauth_unix_ro = "none"')
    assert gather(calm, config=None, deadline_s=10).proxy_program == expected


def test_the_command_prints_and_its_status_says_how_bad_it_is(
    systemctl, directory, monkeypatch, capsys
):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={directory}/bus")
    systemctl.know({})
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    assert doctor.run(parser.parse_args([]), around(directory)) == 2
    assert "There is no daemon of libvirt on this host." in capsys.readouterr().out
    missing = str(directory / "missing")
    assert doctor.run(parser.parse_args(["--json", "-f", missing]), around(directory)) == 2
    whole = json.loads(capsys.readouterr().out)
    assert f"There is no file {missing}." in [each["what"] for each in whole["findings"]]
    systemctl.replace("#!/bin/sh\nexit 1\n")
    calm = around(directory, 'auth_unix_rw = "none"\nauth_unix_ro = "none"')
    assert doctor.run(parser.parse_args([]), calm) == 1


@pytest.mark.parametrize("given", ["0", "-1", "301", "soon", "nan"])
def test_a_deadline_must_make_sense(given, capsys):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--wait", given])
    assert "seconds above 0" in capsys.readouterr().err


def test_every_identity_is_told_of_and_tried(tmp_path):
    pki = Pki(tmp_path / "pki")
    pairs = [pki.server(), pki.server(key=ed25519.Ed25519PrivateKey.generate())]
    files = CertificateFiles(
        ca=str(pki.ca_file),
        crl=None,
        pairs=tuple((str(each.cert_file), str(each.key_file)) for each in pairs),
    )
    settings = replace(resolve({}, privileged=True), listen_tls=True)

    def looked(**changes):
        given = around(tmp_path, certificate_files=lambda _: files)
        return look_at_tls(given, replace(settings, **changes), {})

    found = looked()
    assert found.problems == ()
    assert [each.rpartition(", until ")[0] for each in found.identities] == [
        f'{pairs[0].cert_file}: P-256, "CN=localhost"',
        f'{pairs[1].cert_file}: Ed25519, "CN=localhost"',
    ]
    useless = looked(tls_priority="NORMAL:-VERS-TLS1.3:-ECDHE-ECDSA").problems
    assert [(each.path, each.fatal) for each in useless] == [
        (str(each.cert_file), True) for each in pairs
    ]
    given_up = looked(tls_priority="NORMAL:+RSA", tls_no_verify_certificate=True).problems
    assert [each.path for each in given_up] == [
        'tls_priority = "NORMAL:+RSA"',
        "tls_no_verify_certificate = 1",
    ]
    assert not any(each.fatal for each in given_up)


@pytest.mark.parametrize("in_its_place", ["", "a file", "another's socket that is closed"])
def test_a_path_that_leads_to_its_listener_no_more_is_told_of(directory, in_its_place):
    path = directory / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        (before,) = look_at(paths=[str(path)], ports=[])
        path.unlink()
        if in_its_place == "a file":
            path.touch()
        elif in_its_place:
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
        (after,) = look_at(paths=[str(path)], ports=[])
    assert (before.lost, before.there, before.listening) == (False, True, 1)
    assert (after.lost, after.there, after.listening) == (True, in_its_place != "", 1)
    assert [owner.pid for owner in after.owners] == [os.getpid()]


def test_a_listener_in_another_ones_place_is_not_lost(directory):
    path = directory / "sock"
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for each in (first, second):
            path.unlink(missing_ok=True)
            each.bind(str(path))
            each.listen()
        (found,) = look_at(paths=[str(path)], ports=[])
    assert (found.lost, found.listening) == (False, 2)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"tls_priority": "no such thing"}, "tls_priority"),
        ({"cert_file": "/x"}, "cert_file"),
        ({"cert_file": "", "key_file": "/k", "ca_file": "/ca"}, "cert_file"),
        ({"crl_file": "/x"}, "crl_file"),
    ],
)
def test_settings_that_break_tls_are_found_before_any_file_is_looked_for(tmp_path, changes, key):
    settings = resolve({"listen_tls": True, **changes}, privileged=True)
    found = look_at_tls(around(tmp_path), settings, {})
    assert {problem.path for problem in found.problems} == {key}
    assert all(problem.fatal for problem in found.problems)
    assert found.files == ()
