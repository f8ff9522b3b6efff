"""Who did what to which guest: real virsh by every way in, administrators, who is turned away."""

import json
import subprocess
import sys

import pytest

from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.bed.proxyd_log import reload
from tests.bed.sasl import SERVICE, tcp_uri, with_tickets
from tests.bed.sshd import Sshd
from tests.bed.virsh import admin_uri, held_virsh, tls_uri, unix_uri, virsh
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system


def proxyd_command(*words):
    return [sys.executable, "-m", "proxyd", *words]


GUEST = ("domain", "test", "6695eb01-f6a4-8304-79aa-97f2502e193f")
NETWORK = ("network", "default")
POOL = ("storage_pool", "default-pool")
VOLUME = ("storage_vol", "v1")

# Ten commands, and what of them is more than reading.
COMMANDS = {
    "list --all": (),
    "suspend test": (("DOMAIN_SUSPEND", *GUEST[:2], "ok"),),
    "dominfo test": (),
    "resume test": (("DOMAIN_RESUME", *GUEST[:2], "ok"),),
    "dumpxml test": (),
    "resume test ": (("DOMAIN_RESUME", *GUEST[:2], "error"),),
    "net-destroy default": (("NETWORK_DESTROY", *NETWORK, "ok"),),
    "net-start default": (("NETWORK_CREATE", *NETWORK, "ok"),),
    "vol-create-as default-pool v1 1M": (("STORAGE_VOL_CREATE_XML", *POOL, "ok"),),
    "vol-delete v1 default-pool": (("STORAGE_VOL_DELETE", *VOLUME, "ok"),),
}
CHANGES = [change for changes in COMMANDS.values() for change in changes]


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def audited(make_proxyd, tmp_path):
    """Starts a proxyd whose changes are recorded in a file; settings add to that."""

    def audited(config=None, **options):
        path = tmp_path / "audit.log"
        settings = {
            "proxyd_audit": ["sessions", "changes"],
            "proxyd_audit_output": f"file:{path}",
            **(config or {}),
        }
        made = make_proxyd(settings, **options)
        made.audit = path
        return made

    return audited


def records(proxyd, **wanted):
    """Those that there are, once the last session has ended."""
    found = [json.loads(line) for line in proxyd.audit.read_text().splitlines()]
    return [each for each in found if wanted.items() <= each.items()]


def recorded(proxyd, **wanted):
    """Likewise, as soon as there is one."""
    return wait_until(lambda: records(proxyd, **wanted), 10, f"it is recorded: {wanted}")


def ended_since(proxyd, before):
    """The session that has ended behind so many records."""
    return wait_until(
        lambda: [each for each in records(proxyd)[before:] if each["event"] == "session_ended"],
        10,
        "the session has ended",
    )[0]


def test_forty_commands_by_four_ways_in_are_who_what_and_which_guest(audited, pki, kdc):
    client = pki.client(("O", "Example"), ("CN", "joe"))
    proxyd = audited(
        {
            "listen_tls": 1,
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "tcp_port": "0",
            "proxyd_keytab": str(kdc.keytab(SERVICE)),
            **pki.settings(pki.server()),
        },
        environment=kdc.environment,
    )
    joe = with_tickets(kdc, kdc.tickets("joe"))
    with short_directory(0o711) as directory:
        run_dir = directory / "run"
        run_dir.mkdir(mode=0o755)
        (run_dir / "libvirt-sock").symlink_to(proxyd.sock)
        with Sshd(directory, run_dir) as sshd:
            ways = {
                "libvirt-sock": (unix_uri("test:///default", proxyd.sock), {}, {"user": "root"}),
                "tls": (
                    tls_uri("test:///default", proxyd.tls_address(), client),
                    {},
                    {"certificate": "O=Example,CN=joe"},
                ),
                "tcp": (
                    tcp_uri("test:///default", proxyd.tcp_address()),
                    {"environment": joe},
                    {"sasl_user": "joe"},
                ),
                "ssh": (sshd.uri("test:///default", proxy="netcat"), {}, {"user": "root"}),
            }
            for name, (uri, options, who) in ways.items():
                before = len(records(proxyd))
                virsh(uri, ";".join(COMMANDS), **options)
                ended = ended_since(proxyd, before)
                new = [each for each in records(proxyd)[before:] if each["event"] == "call"]
                found = [
                    (each["procedure"], each["object"], each["name"], each["outcome"])
                    for each in new
                ]
                assert found == CHANGES, name
                for each in new:
                    assert who.items() <= each.items(), name
                    assert each["session"] == ended["session"]
                    assert (each["daemon"], each["uri"]) == ("libvirt", "test:///default")
                    assert 0 <= each["seconds"] < 10
                guests = [each["uuid"] for each in new if each["object"] == "domain"]
                assert guests == [GUEST[2]] * 3
                volume = [each for each in new if each["object"] == "storage_vol"]
                assert [each["parent"] for each in volume] == ["default-pool"]
                if "certificate" in who or "sasl_user" in who:
                    assert ended["address"].startswith("127.0.0.1:")
    # What proxyd audit shows is the same.
    shown = run_to_end(
        proxyd_command("audit", "-f", str(proxyd.conf), "--user", "joe", "--json"), deadline_s=30
    ).succeeded()
    found = [json.loads(line) for line in shown.splitlines()]
    assert [each["procedure"] for each in found if each["event"] == "call"] == [
        change[0] for change in CHANGES
    ]
    table = run_to_end(
        proxyd_command("audit", "-f", str(proxyd.conf), "--object", GUEST[2], "--since", "today"),
        deadline_s=30,
    ).succeeded()
    assert table.count("DOMAIN_SUSPEND") == 4
    assert "NETWORK" not in table


def test_a_guest_that_is_made_from_a_description_is_named(audited, tmp_path):
    proxyd = audited()
    xml = tmp_path / "made.xml"
    uuid = "7c5f4ab1-9c5f-4b0e-8a8c-3a7b5a1f0001"
    xml.write_text(
        f"<domain type='test'><name>mädé</name><uuid>{uuid}</uuid>"
        "<memory>1024</memory><os><type>hvm</type></os></domain>"
    )
    uri = unix_uri("test:///default", proxyd.sock)
    virsh(uri, f"define {xml}; start mädé; destroy mädé; undefine mädé").succeeded()
    recorded(proxyd, event="session_ended")
    found = records(proxyd, event="call")
    calls = [each["procedure"].removesuffix("_FLAGS") for each in found]
    assert calls == ["DOMAIN_DEFINE_XML", "DOMAIN_CREATE", "DOMAIN_DESTROY", "DOMAIN_UNDEFINE"]
    assert {(each["object"], each["name"], each["uuid"]) for each in found} == {
        ("domain", "mädé", uuid)
    }
    assert "<domain" not in proxyd.audit.read_text()


def test_reads_are_recorded_where_all_calls_are(audited):
    proxyd = audited({"proxyd_audit": ["all"]})
    virsh(unix_uri("test:///default", proxyd.sock), "dominfo test").succeeded()
    recorded(proxyd, event="session_ended")
    assert records(proxyd, event="call", procedure="DOMAIN_GET_INFO", name="test", outcome="ok")


def test_sessions_alone_are_recorded_by_default(audited):
    proxyd = audited({"proxyd_audit": None})
    virsh(unix_uri("test:///default", proxyd.sock), "suspend test").succeeded()
    ended = recorded(proxyd, event="session_ended")[0]
    assert [each["event"] for each in records(proxyd)] == [
        "started",
        "session_opened",
        "session_ended",
    ]
    assert ended["calls"] > 1
    assert ended["reason"]


def test_who_is_turned_away_is_recorded_with_the_reason(audited, pki):
    proxyd = audited(
        {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "tls_allowed_dn_list": ["CN=ann"],
            **pki.settings(pki.server()),
        }
    )
    client = pki.client(("O", "Example"), ("CN", "joe"))
    turned = virsh(tls_uri("test:///default", proxyd.tls_address(), client), "list")
    assert turned.status
    denied = recorded(proxyd, event="session_denied")[0]
    assert denied["listener"].startswith("tls")
    assert denied["address"].startswith("127.0.0.1:")
    assert "CN=joe" in denied["reason"]

    virsh(unix_uri("esx:///nowhere", proxyd.sock), "list")
    denied = recorded(proxyd, event="session_denied", user="root")[0]
    assert "esx" in denied["reason"]


@pytest.mark.parametrize("by", ["proxyd kick", "virt-admin"])
def test_a_kick_says_whom_and_by_whom(audited, by):
    proxyd = audited()
    with held_virsh(unix_uri("test:///default", proxyd.sock)):
        opened = recorded(proxyd, event="session_opened")[0]
        number = str(opened["session"])
        if by == "virt-admin":
            command = [
                "virt-admin",
                "-c",
                admin_uri(proxyd.admin_sock, "virtproxyd"),
                "client-disconnect",
                "virtproxyd",
                number,
            ]
        else:
            command = proxyd_command("kick", "-s", str(proxyd.admin_sock), number)
        run_to_end(command, deadline_s=30).succeeded()
    kicked = recorded(proxyd, event="session_kicked")[0]
    assert (kicked["session"], kicked["user"], kicked["pid"]) == (
        opened["session"],
        "root",
        opened["pid"],
    )
    assert (kicked["by_uid"], kicked["by_user"], kicked["outcome"]) == (0, "root", "ok")
    assert kicked["by_pid"] != kicked["pid"]
    ended = recorded(proxyd, event="session_ended")[0]
    assert ended["reason"] == "closed by an administrator"


def test_what_administrators_change_is_recorded(audited):
    proxyd = audited()
    uri = admin_uri(proxyd.admin_sock, "virtproxyd")
    words = ["virt-admin", "-c", uri, "server-clients-set", "virtproxyd", "--max-clients", "77"]
    run_to_end(words, deadline_s=30).succeeded()
    limits = recorded(proxyd, event="limits_changed")[0]
    assert (limits["max_clients"], limits["by_user"]) == (77, "root")

    reload(proxyd)
    assert recorded(proxyd, event="reload")[0]["outcome"] == "ok"

    passwords = proxyd.directory / "passwords"
    config = proxyd.conf.read_text() + f'proxyd_passwords = "{passwords}"\n'
    proxyd.conf.write_text(config)
    run_to_end(
        proxyd_command("passwd", "-f", str(proxyd.conf), "--stdin", "ann"),
        deadline_s=30,
        stdin="sesame\n",
    ).succeeded()
    changed = recorded(proxyd, event="password_set")[0]
    assert (changed["target"], changed["by_uid"]) == ("ann", 0)
    assert "sesame" not in proxyd.audit.read_text()


def test_a_live_session_is_recorded_from_a_reload_on(audited):
    proxyd = audited({"proxyd_audit": ["sessions"]})
    with held_virsh(unix_uri("test:///default", proxyd.sock)) as session:
        recorded(proxyd, event="session_opened")
        text = proxyd.conf.read_text()
        proxyd.conf.write_text(text.replace('"sessions"', '"changes"'))
        reload(proxyd)
        session.stdin.write("suspend test\n")
        session.stdin.flush()
        assert recorded(proxyd, event="call")[0]["procedure"] == "DOMAIN_SUSPEND"


def test_a_full_disk_is_an_alarm_and_where_it_is_required_nothing_is_changed(make_proxyd, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=True)
    try:
        proxyd = make_proxyd(
            {
                "proxyd_audit": ["changes"],
                "proxyd_audit_required": 1,
                "proxyd_audit_output": f"file:{disk}/audit.log",
            }
        )
        proxyd.audit = disk / "audit.log"
        recorded(proxyd, event="started")
        filler = disk / "filler"
        filler.write_bytes(bytes(12288))
        uri = unix_uri("test:///default", proxyd.sock)
        said = wait_until(
            lambda: (done := virsh(uri, "suspend test")).status and done.stderr,
            30,
            "the disk is full and no change passes",
        )
        assert "proxyd_audit_required" in said
        virsh(uri, "dominfo test").succeeded()
        assert "No space left on device" in proxyd.log_text()
        status = run_to_end(proxyd_command("status", "-s", str(proxyd.admin_sock)), deadline_s=30)
        assert status.status == 2
        assert "audit records cannot be written" in status.stdout

        filler.unlink()
        wait_until(
            lambda: virsh(uri, "suspend test").status == 0, 10, "there is room, so changes pass"
        )
        refused = [each for each in records(proxyd, event="call") if each["outcome"] == "refused"]
        assert refused[0]["name"] == "test"
        status = run_to_end(proxyd_command("status", "-s", str(proxyd.admin_sock)), deadline_s=30)
        assert "audit" not in status.stdout
    finally:
        proxyd.stop()
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("file:relative", "an absolute path must follow"),
        ("nowhere", "is none of them"),
        ("file:/no/such/directory/file", "make the directory /no/such/directory"),
    ],
)
def test_an_output_that_cannot_be_is_said_by_the_check_and_the_start(tmp_path, output, says):
    conf = tmp_path / "conf"
    conf.write_text(f'proxyd_audit_output = "{output}"\nunix_sock_dir = "{tmp_path}"\n')
    checked = run_to_end(proxyd_command("--check-config", "-f", str(conf)), deadline_s=30)
    assert checked.status
    assert says in checked.stderr
