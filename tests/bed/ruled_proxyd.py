"""Proxies that go by a file of rules, and a client of each kind that a rule can name.

The rules differ in how far they let a client go, which is one word for all of them; so each kind
has the same line at every level.
"""

import json
import pwd
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509

from proxyd.sasl.passwords import PasswordFile
from tests.bed.command import Finished, run_to_end
from tests.bed.daemon import short_directory
from tests.bed.kdc import Kdc
from tests.bed.permitted_commands import SETS
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.proxyd_log import reload
from tests.bed.sasl import SERVICE, auth_file, tcp_uri, with_tickets
from tests.bed.side_by_side import Way
from tests.bed.sshd import Sshd
from tests.bed.traced_libvirtd import TracedLibvirtd
from tests.bed.virsh import tls_uri, unix_uri
from tests.bed.waiting import wait_until

NAME: Final = "test:///default"
DENIED: Final = f"denied access: its rules do not let this client open {NAME}"
DEADLINE_S: Final = 20.0
PASSWORD: Final = "correct horse, battery"
# Accounts and a group that every Debian has, by what a rule says of them.
BY_USER, BY_UID, BY_GROUP, BY_SSH, GROUP = "games", "bin", "man", "news", "operator"
GROUP_ID: Final = 37
OTHER_NAMES: Final[Mapping[str, x509.GeneralName]] = {
    "dns": x509.DNSName("kvm7.example.org"),
    "email": x509.RFC822Name("ann@example.org"),
    "uri": x509.UniformResourceIdentifier("spiffe://example.org/monitor"),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of client: the two columns of its rule, and what `rules explain` is told of it.

    `record` is what an audit record has of it, `listener` where it comes in.
    """

    rule: str
    explained: tuple[str, ...]
    record: Mapping[str, object] = field(default_factory=dict)
    listener: str = "libvirt-sock"

    @property
    def readonly(self) -> bool:
        return self.listener.endswith("-ro")


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


_ADDRESSES: Final = {"address-4": "127.0.0.1", "address-6": "::1"}
KINDS: Final[Mapping[str, Kind]] = {
    "user": Kind(f"unix user:{BY_USER}", ("--user", BY_USER), {"user": BY_USER}),
    "group": Kind(
        f"unix group:{GROUP}", ("--user", BY_GROUP, "--group", GROUP), {"user": BY_GROUP}
    ),
    "readonly": Kind(
        f"ro uid:{_uid(BY_UID)}",
        ("--uid", str(_uid(BY_UID)), "--readonly"),
        {"user": BY_UID},
        "libvirt-sock-ro",
    ),
    "ticket": Kind("tcp sasl:joe", ("--sasl", "joe", "--way", "tcp"), {"sasl_user": "joe"}, "tcp"),
    "password": Kind(
        "tls sasl:ann&dn:CN=joe",
        ("--sasl", "ann", "--dn", "CN=joe"),
        {"sasl_user": "ann", "certificate": "CN=joe"},
        "tls",
    ),
    "subject": Kind(
        'tls dn:"O=Example,CN=monitor"',
        ("--dn", "O=Example,CN=monitor", "--address", "127.0.0.1"),
        {"certificate": "O=Example,CN=monitor"},
        "tls",
    ),
    **{
        f"san-{kind}": Kind(
            f"tls san:{name.value}",
            ("--dn", f"CN={kind}", "--san", f"{kind}:{name.value}", "--address", "127.0.0.1"),
            {"certificate": f"CN={kind}"},
            "tls",
        )
        for kind, name in OTHER_NAMES.items()
    },
    **{
        name: Kind(
            f"tls addr:{address}",
            ("--dn", "CN=anybody", "--address", address),
            {"certificate": "CN=anybody"},
            "tls",
        )
        for name, address in _ADDRESSES.items()
    },
    "ssh-netcat": Kind(f"ssh user:{BY_SSH}", ("--user", BY_SSH, "--way", "ssh"), {"user": BY_SSH}),
    "ssh-native": Kind(
        f"unix,ssh user:{BY_SSH}", ("--user", BY_SSH, "--way", "ssh"), {"user": BY_SSH}
    ),
}
LINES: Final = {name: number for number, name in enumerate(KINDS, 1)} | {
    # Both come by sshd as the same user: the first of their lines decides.
    "ssh-native": list(KINDS).index("ssh-netcat") + 1
}


def rules_text(may: str) -> str:
    """A line for each kind, in their order, and the sets."""
    lines = [f"{kind.rule} {NAME} {may}" for kind in KINDS.values()]
    lines += [f"set {name} = read {' '.join(sorted(words))}" for name, words in SETS.items()]
    return "\n".join([*lines, ""])


@dataclass
class House:
    """`ways` lead to `daemon` through proxies, by kind; `fronts` are the proxies, likewise."""

    daemon: TracedLibvirtd
    rules: Path
    audit: Mapping[Proxyd, Path]
    fronts: Mapping[str, Proxyd]
    ways: Mapping[str, Way]
    may: str = ""

    def enforce(self, may: str) -> None:
        """Everybody may go so far from now on."""
        if may != self.may:
            self.rules.write_text(rules_text(may))
            for front in self.audit:
                reload(front)
            self.may = may

    def records(self, name: str) -> list[dict[str, Any]]:
        """All that were written so far by the proxy of this kind of client."""
        path = self.audit[self.fronts[name]]
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def records_of_next(self, name: str, before: int) -> list[dict[str, Any]]:
        """Of the session that began behind so many records, once it has ended."""
        return wait_until(
            lambda: (
                found
                if (found := self.records(name)[before:])
                and any(each["event"] == "session_ended" for each in found)
                else None
            ),
            DEADLINE_S,
            "the session has ended",
        )

    def asked(self, name: str, *words: str) -> Finished:
        """A command of proxyd's to the proxy of this kind of client."""
        where = ("-s", str(self.fronts[name].directory))
        return proxyd_command(*words, *where)

    def clients(self, name: str) -> list[dict[str, Any]]:
        """As `proxyd clients --json` lists them."""
        listed: list[dict[str, Any]] = json.loads(self.asked(name, "clients", "--json").succeeded())
        return listed


def proxyd_command(*words: str) -> Finished:
    """Run one to its end."""
    return run_to_end([sys.executable, "-m", "proxyd", *words], deadline_s=DEADLINE_S)


def other_user(user: str, *groups: int) -> tuple[str, ...]:
    """Makes a command run as this user, with the group of the user's number and these."""
    number = str(_uid(user))
    extra = ("--groups", ",".join(map(str, groups))) if groups else ("--clear-groups",)
    return ("setpriv", "--reuid", number, "--regid", number, *extra)


@contextmanager
def house(directory: Path, kdc: Kdc) -> Iterator[House]:
    """Everybody has to get into the directory."""
    with ExitStack() as stack:

        def room() -> Path:
            return stack.enter_context(short_directory(0o711))

        daemon = stack.enter_context(TracedLibvirtd(room()))
        behind = room()
        daemon.serve_as(behind, "virtqemud")
        rules = directory / "rules"
        rules.write_text(rules_text("deny"))
        pki = Pki(directory / "pki")
        passwords = directory / "passwords"
        PasswordFile(str(passwords)).set_password("ann", PASSWORD)
        audit: dict[Proxyd, Path] = {}

        def front(settings: Mapping[str, str | int]) -> Proxyd:
            audited = directory / f"audit{len(audit)}"
            config = {
                "proxyd_routes": ["test=virtqemud"],  # which has a socket that is read-only
                "proxyd_rules_file": str(rules),
                "proxyd_audit": ["sessions", "changes"],
                "proxyd_audit_output": f"file:{audited}",
                "unix_sock_rw_perms": "0777",
                "listen_tls": 1,
                "listen_addr": "localhost",
                "tls_port": "0",
                **pki.settings(pki.server()),
                **settings,
            }
            made = Proxyd(room(), backend_dir=behind, config=config, environment=kdc.environment)
            audit[stack.enter_context(made)] = audited
            return made

        usual = front({"listen_tcp": 1, "tcp_port": "0", "proxyd_keytab": str(kdc.keytab(SERVICE))})
        with_password = front({"auth_tls": "sasl", "proxyd_passwords": str(passwords)})
        run_dir = room()
        run_dir.chmod(0o755)
        (run_dir / "libvirt-sock").symlink_to(usual.sock)
        (run_dir / "libvirt-sock-ro").symlink_to(usual.sock_ro)
        sshd = stack.enter_context(Sshd(room(), run_dir))
        ann = {"LIBVIRT_AUTH_FILE": str(auth_file(directory / "auth.conf", "ann", PASSWORD))}
        anybody = pki.client(("CN", "anybody"))
        monitor = pki.client(("O", "Example"), ("CN", "monitor"))
        ways = {
            "user": Way(unix_uri(NAME, usual.sock), wrapper=other_user(BY_USER)),
            "group": Way(unix_uri(NAME, usual.sock), wrapper=other_user(BY_GROUP, GROUP_ID)),
            "readonly": Way(unix_uri(NAME, usual.sock_ro), wrapper=other_user(BY_UID)),
            "ticket": Way(
                tcp_uri(NAME, usual.tcp_address()), with_tickets(kdc, kdc.tickets("joe"))
            ),
            "password": Way(
                tls_uri(
                    NAME,
                    with_password.tls_address(),
                    pki.client(),
                    auth="sasl.SCRAM-SHA-256",
                ),
                ann,
            ),
            "subject": Way(tls_uri(NAME, usual.tls_address(), monitor)),
            **{
                f"san-{kind}": Way(
                    tls_uri(NAME, usual.tls_address(), pki.client(("CN", kind), names=[name]))
                )
                for kind, name in OTHER_NAMES.items()
            },
            **{
                kind: Way(tls_uri(NAME, usual.tls_address(address), anybody))
                for kind, address in _ADDRESSES.items()
            },
            **{
                f"ssh-{proxy}": Way(sshd.uri(NAME, user=BY_SSH, proxy=proxy))
                for proxy in ("netcat", "native")
            },
        }
        fronts = {name: with_password if name == "password" else usual for name in ways}
        yield House(daemon, rules, audit, fronts, ways)


@pytest.fixture
def ruled(make_proxyd: Any, tmp_path: Path) -> Any:
    """Makes a proxyd that goes by these rules; settings add to that."""

    def ruled(text: str, config: Any = None, **options: Any) -> Any:
        rules = tmp_path / "rules"
        rules.write_text(text)
        made = make_proxyd({"proxyd_rules_file": str(rules), **(config or {})}, **options)
        made.rules = rules
        return made

    return ruled


def rule_of(front: Proxyd, number: int) -> int:
    """The line by which the session was opened that is the log's one of this number, from 0."""
    found = re.compile(r" opened: .*, by rule (\d+) ")
    opened = wait_until(
        lambda: found.findall(front.log_text())[number:], DEADLINE_S, "the session is open"
    )
    return int(opened[0])
