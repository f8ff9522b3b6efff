"""What a rule denies looks to virsh's user as what libvirt's own access control denies.

Beside each other: a libvirtd that asks polkit about each call, and one that asks nobody, behind a
proxy whose rules allow the same. Definitions of qemu:///system alone; no guest is run.
"""

import pwd
import re

import pytest

from tests.bed.daemon import open_ways, short_directory
from tests.bed.guarded_libvirtd import guarded_libvirtd
from tests.bed.libvirtd import Libvirtd
from tests.bed.proxyd import Proxyd
from tests.bed.ruled_proxyd import other_user
from tests.bed.side_by_side import Way
from tests.bed.virsh import unix_uri, virsh
from tests.bed.virsh_commands import FILES

pytestmark = pytest.mark.system

USER = "games"
NAME = "qemu:///system"
# Everybody reads, and may do what the set of the rules has besides.
POLKIT_RULE = """
polkit.addRule(function (action, subject) {
    var word = action.id.replace("org.libvirt.api.", "");
    if (/^[a-z-]+\\.(getattr|read|search-[a-z-]+)$/.test(word)) return polkit.Result.YES;
    return word == "domain.save" || word == "domain.write" ? polkit.Result.YES : polkit.Result.NO;
});
"""
RULES = f"""
unix user:{USER} {NAME} changes
set changes = read domain:write domain:save
"""
FILTER = """
<filter name='made'><uuid>55555555-2222-3333-4444-555555555555</uuid></filter>
"""
SECRET = "22222222-2222-3333-4444-555555555555"
ALLOWED = (
    "list --all",
    "dominfo made",
    "dumpxml made",
    "domstate made",
    "net-dumpxml made",
    "pool-list --all",
    "secret-list",
    f"secret-dumpxml {SECRET}",
    "nwfilter-dumpxml made",
    "autostart made",
    "setmem made 32768 --config",
    "setvcpus made 1 --config",
    "desc made --config words",
    "define {dir}/qemu.xml",
)
DENIED = (
    "domcapabilities --virttype qemu --arch x86_64",
    "start made",
    "destroy made",
    "shutdown made",
    "reboot made",
    "reset made",
    "suspend made",
    "resume made",
    "inject-nmi made",
    "save made /nowhere",
    "managedsave made",
    "dump made /nowhere",
    "dumpxml --security-info made",
    "snapshot-create-as made one",
    "checkpoint-create-as made one",
    "blockresize made vda 1M",
    "set-user-password made root secret",
    "domfsfreeze made",
    "undefine made",
    "create {dir}/qemu.xml",
    "net-define {dir}/network.xml",
    "net-autostart made",
    "net-start made",
    "net-undefine made",
    "pool-define-as other dir --target /nowhere",
    "pool-start made",
    "pool-build made",
    "pool-autostart made",
    "pool-undefine made",
    "secret-define {dir}/secret.xml",
    f"secret-set-value {SECRET} c2VjcmV0",
    f"secret-get-value {SECRET}",
    f"secret-undefine {SECRET}",
    "nwfilter-define {dir}/filter.xml",
    "nwfilter-undefine made",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    for name, text in {**FILES, "filter.xml": FILTER}.items():
        (directory / name).write_text(text)
    open_ways(directory)
    return directory


@pytest.fixture(scope="module")
def ways(files):
    """The user's, directly and through the proxy; both daemons know the same objects."""
    with (
        short_directory(0o711) as guarded,
        short_directory() as plain,
        short_directory(0o711) as front,
        guarded_libvirtd(guarded, POLKIT_RULE) as asking,
        Libvirtd(plain) as daemon,
    ):
        for each in (asking, daemon):
            begin = (
                f"define {files}/qemu.xml; net-define {files}/network.xml;"
                f" pool-define-as made dir --target /nowhere; secret-define {files}/secret.xml;"
                f" nwfilter-define {files}/filter.xml"
            )
            virsh(unix_uri(NAME, each.sock), begin).succeeded()
        (front / "rules").write_text(RULES)
        config = {
            "proxyd_routes": [f"qemu={daemon.sock}"],
            "proxyd_rules_file": str(front / "rules"),
            "unix_sock_rw_perms": "0777",
        }
        for each in (guarded / "libvirtd", guarded / "libvirtd" / "x"):
            each.chmod(0o711)
        with Proxyd(front, backend_dir=plain, config=config) as proxyd:
            yield [
                Way(unix_uri(NAME, sock), wrapper=other_user(USER))
                for sock in (asking.sock, proxyd.sock)
            ]


def test_it_is_about_enough_of_them():
    assert len(ALLOWED) + len(DENIED) >= 48
    assert pwd.getpwnam(USER).pw_uid != 0  # whom polkit lets do everything


@pytest.mark.parametrize("command", ALLOWED)
def test_what_both_allow_ends_alike(command, ways, files):
    polkit, proxied = (way.virsh(command.format(dir=files)) for way in ways)

    assert "denied access" not in polkit.stderr
    assert proxied == polkit


@pytest.mark.parametrize("command", DENIED)
def test_what_both_deny_is_told_alike(command, ways, files):
    polkit, proxied = (way.virsh(command.format(dir=files)) for way in ways)

    assert (proxied.status, proxied.stdout) == (polkit.status, polkit.stdout)
    assert polkit.status == 1
    *before, last = polkit.stderr.splitlines()
    assert re.fullmatch(r"error: access denied: '[^']+' denied access.*", last)
    *ours, last = proxied.stderr.splitlines()
    assert ours == before
    assert re.fullmatch(r"error: access denied: 'proxyd' denied access: its rules do not .*", last)
