"""What the documents tell people to type works on a host: a machine with libvirt's units, where
proxyd is installed as a service.

All pages share it. Each section begins anew: with the files that were shipped, the service and
virtqemud's sockets on, and nobody connected. tests/bed/blocks.py says which blocks are run.
"""

import re
import shlex
from contextlib import suppress

import pytest

from tests.bed.blocks import ROOT, blocks, pages
from tests.bed.daemon import short_directory
from tests.bed.installed import install_proxyd, shell
from tests.bed.libvirt_host import put_libvirt
from tests.bed.machine import Machine
from tests.bed.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.distribution]

CONF = "/etc/libvirt/virtproxyd.conf"
JOE = "qemu+tls://localhost/system?pkipath=/root/joe"
SOCKETS = "virtproxyd{,-ro,-admin,-tls}.socket"
BEHIND = "virtqemud{,-ro,-admin}.socket"
DEADLINE_S = 30
PLAYED = [
    (path.relative_to(ROOT).as_posix(), section)
    for path in pages()
    for section in dict.fromkeys(each.section for each in blocks(path) if each.runs)
]
# ann may manage (group libvirt), bob and eve are nobody in particular; joe comes by TLS.
BUILD = f"""
useradd --create-home --groups libvirt ann
useradd --create-home bob
useradd --create-home eve
proxyd switch --to modular --yes
proxyd certs init --dir /etc/pki
proxyd certs server --dir /etc/pki localhost
proxyd certs client --dir /etc/pki joe --flat /root/joe
install -D -o ann /etc/pki/CA/cacert.pem ~ann/.pki/libvirt/cacert.pem
systemctl stop virtproxyd.service
systemctl enable --now {SOCKETS}
"""
# What a page takes for granted.
AN_OPEN_SESSION = f"systemd-run --unit=joe.service virsh -c '{JOE}' event --all --loop"
GIVEN = {
    ("docs/deployment/debian.md", "libvirtd behind it"): "proxyd switch --to monolithic --yes",
    ("docs/recipes.md", "Lock somebody out"): AN_OPEN_SESSION,
}
# Of "proxyd certs init" for a host that has none.
GIVEN[("docs/tls.md", "")] = (
    "mv /etc/pki /etc/pki.kept; mv /root/joe /root/joe.kept; hostname localhost"
)
RESTORED = {
    ("docs/tls.md", ""): (
        "rm -r /etc/pki /root/joe; mv /etc/pki.kept /etc/pki; mv /root/joe.kept /root/joe"
    )
}


class Host:
    """The machine, and what has to be undone in it."""

    def __init__(self, machine):
        self.machine = machine
        self.shipped = (machine.root / CONF[1:]).read_text()
        self.written = []

    def play(self, page, section):
        said = ""
        for block in blocks(ROOT / page):
            if block.section != section:
                continue
            if path := block.option("file"):
                self.write(path, block)
            elif block.runs:
                typed, said = block, self.typed(block)
            elif block.language == "text" and block.follows and said:
                self.check(typed, said, block)

    def check(self, typed, said, wanted):
        last = typed.text.splitlines()[-1]
        if last.startswith("journalctl") and unsaid(said, wanted):
            # The line of a session's end comes when its client has gone already.
            with suppress(TimeoutError):
                wait_until(
                    lambda: not unsaid(shell(self.machine, last), wanted), DEADLINE_S, "the line"
                )
            said = shell(self.machine, last)
        assert not unsaid(said, wanted), f"{wanted}: nobody said {unsaid(said, wanted)!r}:\n{said}"

    def write(self, path, block):
        owner, mode = block.option("owner") or "root", int(block.option("mode") or "644", 8)
        self.machine.write(path, block.text, mode)
        shell(self.machine, f"chown --recursive {owner}: {shlex.quote(path)}")
        if owner != "root":
            shell(self.machine, f"chown --recursive {owner}: ~{owner}")
        self.written.append(path)

    def typed(self, block):
        """As people do in a shell, but that it ends with the first command that fails."""
        user = block.option("as")
        login = ["runuser", "--login", "--shell=/bin/bash", user, "-c"]
        become = login if user else ["env", "HOME=/root", "bash", "-lc"]
        # Without a terminal, as which nobody sits at it.
        command = ["setsid", "--wait", "timeout", "50", *become]
        done = self.machine.run(*command, f"cd; set -eo pipefail\n{block.text}")
        said = done.stdout + done.stderr
        failed = done.status != 0
        assert failed == ("fails" in block.words), f"{block}: status {done.status}\n{said}"
        return said

    def begin(self):
        """Undoes what a section has done; the service runs."""
        if not self.written:
            shell(self.machine, "systemctl start virtproxyd.service")
            return
        written = " ".join(map(shlex.quote, self.written))
        self.machine.write(CONF, self.shipped)
        lines = [
            "systemctl stop joe.service 2>/dev/null || true",
            f"rm --force {written} /etc/libvirt/proxyd-passwords",
            "systemctl stop virtproxyd.service",
            "systemctl start virtproxyd.service",
        ]
        if "/systemd/" in written:  # sockets may be elsewhere, proxyd's or the daemon's
            lines[1:1] = [f"systemctl stop virtqemud.service {BEHIND}"]
            lines[3:3] = ["systemctl daemon-reload", f"systemctl start {BEHIND}"]
            lines[-1:-1] = [f"systemctl restart {SOCKETS}"]
        # Sections are faster than administrators: systemd would start nothing any more.
        shell(self.machine, "set -e\nsystemctl reset-failed\n" + "\n".join(lines))
        self.written = []


def unsaid(said, block):
    """The first of its lines that is none of the output's, or ""."""
    lines = [re.sub(" +", " ", line.rstrip()) for line in said.splitlines()]
    for wanted in block.text.splitlines():
        parts = re.sub(" +", " ", wanted).split("…")
        pattern = re.compile(".*".join(map(re.escape, parts)))
        if not any(map(pattern.search, lines)):
            return wanted
    return ""


@pytest.fixture(scope="module")
def built():
    with short_directory() as directory, Machine(directory) as machine:
        put_libvirt(machine)
        install_proxyd(machine)
        shell(machine, f"set -e\n{BUILD}")
        yield Host(machine)


@pytest.fixture
def host(built):
    built.begin()
    return built


@pytest.mark.parametrize(("page", "section"), PLAYED, ids=lambda each: each.replace(" ", "-"))
def test_what_a_page_says_can_be_typed(host, page, section):
    if given := GIVEN.get((page, section)):
        shell(host.machine, given)
    if given == AN_OPEN_SESSION:
        wait_until(
            lambda: "CN=joe" in shell(host.machine, "proxyd clients"), DEADLINE_S, "joe is there"
        )
    try:
        host.play(page, section)
    finally:
        if restored := RESTORED.get((page, section)):
            shell(host.machine, restored)


# ---- The table from a client's message to the log's line

RECIPES = ROOT / "docs" / "recipes.md"
MESSAGES = """\
log_level = 2
auth_tls = "sasl"
proxyd_sasl_mechanisms = [ "SCRAM-SHA-256" ]
tls_allowed_dn_list = [ "CN=joe", "CN=gone" ]
"""
# On a busy machine virsh may end by SIGPIPE without a word: it writes on to who has refused it and
# closed (22 of 300, none of 250 on a quiet one). Then it is asked again.
TLS = (
    "while virsh -c 'qemu+tls://{host}/system?pkipath=/root/{name}&authfile=/root/auth' uri;"
    " [ $? = 141 ]; do :; done"
)
LOCAL = "virsh {options} -c 'qemu+unix:///system?mode=legacy' {command}"
# How each row comes about: by the words that its message begins with.
PROVOKED = {
    "Failed to connect socket to '/var/run": f"""
        systemctl stop virtproxyd{{,-tls}}.socket
        {LOCAL.format(options="", command="uri")}""",
    "unable to connect to server": TLS.format(host="localhost", name="joe"),
    "Failed to connect socket to '/run/libvirt/virtnetworkd": f"""
        systemctl start {SOCKETS}
        virsh -c 'network+unix:///system?mode=legacy' uri""",
    "authentication unavailable": (f"runuser -u eve -- {LOCAL.format(options='', command='uri')}"),
    "authentication failed: polkit": f"""
        echo 'polkit.addRule(function () {{ return polkit.Result.NO; }});' > $RULE
        runuser -u eve -- {LOCAL.format(options="", command="uri")}
        rm $RULE""",
    "operation forbidden: this host": f"""
        proxyd drain --wait 0
        {LOCAL.format(options="", command="uri")}
        proxyd drain --undo""",
    "operation forbidden: read": f"""
        echo '<domain type="qemu"><name>x</name></domain>' > /root/x.xml
        {LOCAL.format(options="--readonly", command="define /root/x.xml")}""",
    "server verification": f"""
        proxyd certs client --dir /etc/pki eve --flat /root/eve
        {TLS.format(host="localhost", name="eve")}""",
    "Unable to read TLS confirmation": f"""
        proxyd certs client --dir /etc/pki gone --flat /root/gone
        proxyd certs revoke --dir /etc/pki gone
        systemctl reload virtproxyd
        {TLS.format(host="localhost", name="gone")}""",
    "authentication failed: Failed to verify": TLS.format(host="127.0.0.1", name="joe"),
    "authentication failed: authentication failed": TLS.format(host="localhost", name="joe"),
    "invalid argument": """
        virsh -c 'qemu+unix:///system?mode=legacy&name=qemu%2Bssh://other/system' uri""",
    "unsupported configuration": "virsh -c 'test+unix:///default?mode=legacy' uri",
    "Disconnected": f"""
        {LOCAL.format(options="", command="event --all --loop")} 2>/root/said &
        until proxyd clients --json | grep qemu:///system; do :; done
        proxyd clients | awk '/qemu/ {{ print $1 }}' | xargs proxyd kick
        wait; cat /root/said""",
    "Too many active clients": f"""
        echo proxyd_max_clients_per_peer = 1 >> {CONF}
        systemctl reload virtproxyd
        {LOCAL.format(options="", command="event --all --loop")} &
        until proxyd clients --json | grep qemu:///system; do :; done
        {LOCAL.format(options="", command="uri")}
        kill $!""",
}
AUTH = """\
[credentials-wrong]
authname=joe
password=wrong
[auth-libvirt-localhost]
credentials=wrong
"""


def rows():
    """The client's message and the log's line of each; "" where the log says nothing."""
    table = RECIPES.read_text().partition("\n## From a client's message")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if line.startswith("| `"):
            message, logged, _ = line.strip("| ").split(" | ", 2)
            code = re.findall(r"`([^`]+)`", logged)
            assert code or logged == "nothing", line
            yield message.strip("`"), code[0] if code else ""


ROWS = dict(rows())


def elided(text):
    return re.compile(".*".join(map(re.escape, text.split("…"))))


def test_every_row_is_provoked():
    begun = {begins: [row for row in ROWS if row.startswith(begins)] for begins in PROVOKED}
    assert {begins: len(found) for begins, found in begun.items()} == dict.fromkeys(PROVOKED, 1)
    assert len(ROWS) == len(PROVOKED)


@pytest.fixture(scope="module")
def messages(built):
    """A service that says all that it can."""
    built.begin()
    machine = built.machine
    machine.write(CONF, MESSAGES)
    machine.write("/root/auth", AUTH)
    built.written.append(CONF)
    shell(machine, "echo secret | proxyd passwd --stdin joe; systemctl restart virtproxyd.service")
    yield machine
    built.begin()


@pytest.mark.parametrize("begins", PROVOKED)
def test_a_message_stands_beside_its_line_in_the_log(messages, begins):
    message = next(row for row in ROWS if row.startswith(begins))
    before = len(messages.journal("virtproxyd.service"))
    script = f"exec 2>&1; RULE=/etc/polkit-1/rules.d/00-no.rules; {PROVOKED[begins]}"
    said = messages.run("setsid", "--wait", "timeout", "50", "bash", "-c", script).stdout
    assert elided(message).search(said), said
    logged = ROWS[message]

    def found():
        lines = messages.journal("virtproxyd.service")[before:]
        return not logged or any(map(elided(logged).search, lines))

    wait_until(found, DEADLINE_S, f"the journal says {logged}")
