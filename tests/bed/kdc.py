"""A real MIT KDC with a realm of its own, on a free port of the loopback, below one directory.

Nobody needs /etc/krb5.conf for it: commands get KRB5_CONFIG in their environment, and a test that
calls libkrb5 in its own process sets the variable from `environment` (libkrb5 reads it for each
call anew). Names are not looked up in DNS, and TCP is all that is spoken.
"""

import os
import socket
import struct
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tests.bed.command import clean_environment, end_process, run_to_end
from tests.bed.waiting import wait_until

REALM: Final = "PROXYD.TEST"
START_DEADLINE_S: Final = 15.0
COMMAND_DEADLINE_S: Final = 20.0
ATTEMPTS: Final = 5  # a port found free may be taken before the KDC has it
# The beginning of a ticket cache: version 4, the length of the header, its only field (a kind,
# a length), and the seconds that the KDC's clock is ahead of this host's.
_CACHE_START: Final = struct.Struct(">HHHHi")
_CACHE_VERSION: Final = 0x0504
_OFFSET_FIELD: Final = (12, 1, 8)


class Kdc:
    """A KDC below directory, which exists; started and stopped by a with block.

    Its clients' and servers' configuration is `config`; `variant` makes others.
    """

    def __init__(self, directory: Path, realm: str = REALM) -> None:
        self.directory = directory
        self.realm = realm
        self.config = directory / "krb5.conf"
        self.log = directory / "kdc.log"
        self._profile = directory / "kdc.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._count = 0

    def __enter__(self) -> Self:
        self._configure()
        # The master key goes into a file; its password is asked for twice and never used again.
        secret = os.urandom(16).hex()
        create = ["kdb5_util", "create", "-s", "-r", self.realm]
        self._run(create, stdin=f"{secret}\n{secret}\n")
        for _ in range(ATTEMPTS):
            if self._started():
                return self
            self._configure()
        raise ChildProcessError(f"the KDC does not start\n{self._story()}")

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        end_process(self._process)

    @property
    def environment(self) -> dict[str, str]:
        """What libkrb5 has to find in the environment."""
        return {"KRB5_CONFIG": str(self.config)}

    def variant(self, **libdefaults: str) -> Path:
        """A krb5.conf for the same realm with other values in its [libdefaults]."""
        path = self._next("krb5.conf")
        path.write_text(self._krb5_conf(libdefaults))
        return path

    def add(self, *principals: str) -> None:
        """Makes principals with random keys."""
        for each in principals:
            self._kadmin(f"addprinc -randkey {each}")

    def new_key(self, principal: str) -> None:
        """Gives it another key, whose number is one higher. No keytab follows."""
        self._kadmin(f"change_password -randkey {principal}")

    def keytab(self, *principals: str) -> Path:
        """A new keytab with the present keys of these."""
        path = self._next("keytab")
        for each in principals:
            self._kadmin(f"ktadd -k {path} -norandkey {each}")
        return path

    def tickets(self, principal: str, *options: str) -> Path:
        """The ticket cache of somebody who has just logged in, `options` being those of kinit."""
        path = self._next("tickets")
        keytab = self.keytab(principal)
        self._run(["kinit", "-c", str(path), "-k", "-t", str(keytab), *options, principal])
        return path

    def prepare(self, tickets: Path, service: str) -> None:
        """Adds a ticket for that service, which needs no KDC then."""
        self._run(["kvno", "-c", str(tickets), service])

    def _next(self, what: str) -> Path:
        self._count += 1
        return self.directory / f"{self._count}.{what}"

    def _kadmin(self, query: str) -> None:
        done = self._run(["kadmin.local", "-r", self.realm, "-q", query])
        # Its exit status is 0 whatever happens.
        if any(word in done for word in ("already exists", "does not exist", "while ")):
            raise AssertionError(f"kadmin.local: {query}\n{done}")

    def _run(self, command: list[str], *, stdin: str | None = None) -> str:
        done = run_to_end(
            command, deadline_s=COMMAND_DEADLINE_S, stdin=stdin, environment=self._own_environment
        )
        return done.succeeded() + done.stderr

    @property
    def _own_environment(self) -> Mapping[str, str]:
        return {**self.environment, "KRB5_KDC_PROFILE": str(self._profile)}

    def _configure(self) -> None:
        self._port = _free_port()
        self.config.write_text(self._krb5_conf({}))
        self._profile.write_text(self._kdc_conf())

    def _krb5_conf(self, libdefaults: Mapping[str, str]) -> str:
        values = {
            "default_realm": self.realm,
            "dns_lookup_kdc": "false",
            "dns_lookup_realm": "false",
            "dns_canonicalize_hostname": "false",
            "rdns": "false",
            "udp_preference_limit": "1",  # so that TCP comes first
            "default_ccache_name": f"FILE:{self.directory}/default.tickets",
            "default_keytab_name": f"FILE:{self.directory}/default.keytab",
            "default_rcache_name": f"file2:{self.directory}/replays",
            **libdefaults,
        }
        lines = "".join(f"  {key} = {value}\n" for key, value in values.items())
        address = f"127.0.0.1:{self._port}"
        return (
            f"[libdefaults]\n{lines}"
            f"[realms]\n  {self.realm} = {{\n    kdc = {address}\n  }}\n"
            f"[domain_realm]\n  .example = {self.realm}\n"
        )

    def _kdc_conf(self) -> str:
        return (
            f'[kdcdefaults]\n  kdc_listen = ""\n  kdc_tcp_listen = 127.0.0.1:{self._port}\n'
            f"[realms]\n  {self.realm} = {{\n"
            f"    database_name = {self.directory}/principal\n"
            f"    key_stash_file = {self.directory}/stash\n"
            f"    acl_file = {self.directory}/kadm5.acl\n"
            f"    supported_enctypes = aes256-cts-hmac-sha1-96:normal\n  }}\n"
            f"[logging]\n  kdc = FILE:{self.log}\n"
        )

    def _started(self) -> bool:
        """Whether it accepts; false when it ended, because of its port for instance."""
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["krb5kdc", "-n", "-r", self.realm],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=clean_environment(self._own_environment),
                start_new_session=True,
            )
        process = self._process
        try:
            wait_until(
                lambda: process.poll() is not None or _accepts(self._port),
                START_DEADLINE_S,
                "the KDC accepts",
            )
        except BaseException:
            end_process(process)
            raise
        return process.poll() is None

    def _story(self) -> str:
        files = (self.log, self.directory / "output")
        return "\n".join(each.read_text(errors="replace") for each in files if each.exists())


def put_clock_ahead(tickets: Path, seconds: int) -> None:
    """Makes whoever uses this ticket cache believe that the KDC's clock is so much ahead."""
    content = bytearray(tickets.read_bytes())
    version, *field, _ = _CACHE_START.unpack_from(content)
    assert (version, tuple(field)) == (_CACHE_VERSION, _OFFSET_FIELD)
    _CACHE_START.pack_into(content, 0, version, *field, seconds)
    tickets.write_bytes(content)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), START_DEADLINE_S):
        return True
    return False
