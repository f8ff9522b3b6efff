"""A libvirtd with all of its listeners: what a client by TLS or TCP finds without a proxy.

They are in the daemon's own network namespace, at libvirt's usual ports, so its clients go there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.bed.kdc import Kdc
from tests.bed.libvirtd import Libvirtd
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE, tcp_uri
from tests.bed.side_by_side import Way
from tests.bed.virsh import tls_uri, unix_uri
from tests.bed.waiting import wait_until

TLS_ADDRESS: Final = "127.0.0.1:16514"
TCP_ADDRESS: Final = "127.0.0.1:16509"
DEADLINE_S: Final = 10.0
_LISTEN: Final = "0A"  # a socket's state in /proc/net/tcp


class ListeningLibvirtd(Libvirtd):
    """By TLS it wants a certificate of `pki`, by TCP a ticket (see `trust`), locally nothing."""

    def __init__(self, directory: Path, pki: Pki) -> None:
        self.krb5_conf = directory / "krb5.conf"
        super().__init__(
            directory,
            listens=True,
            config={
                "listen_tls": 1,
                "listen_tcp": 1,
                "auth_tls": "none",
                "auth_tcp": "sasl",
                **pki.settings(pki.server()),
            },
            environment={"KRB5_CONFIG": str(self.krb5_conf)},
        )

    def start(self) -> None:
        super().start()
        # The local socket is there before the certificates are looked at.
        wait_until(self._listens_everywhere, DEADLINE_S, "libvirtd listens by TCP and TLS")

    def _listens_everywhere(self) -> bool:
        if not self.daemon.running:
            raise ChildProcessError(f"libvirtd ended with {self.daemon.status}")
        table = Path(f"/proc/{self.pid}/net/tcp").read_text()
        ports = (int(address.rpartition(":")[2]) for address in (TLS_ADDRESS, TCP_ADDRESS))
        return all(f":{port:04X} 00000000:0000 {_LISTEN} " in table for port in ports)

    def trust(self, kdc: Kdc) -> None:
        """From now on clients by TCP can have tickets of this KDC's; the last one counts."""
        conf = kdc.variant(
            # libvirtd asks for the key of this host's name, which is not that of the tickets.
            ignore_acceptor_hostname="true",
            default_keytab_name=f"FILE:{kdc.keytab(SERVICE)}",
        )
        self.krb5_conf.write_bytes(conf.read_bytes())

    def unix_way(self, name: str) -> Way:
        """To a driver's name by the local socket."""
        return Way(unix_uri(name, self.sock))

    def tls_way(self, name: str, pkipath: Path, **query: str) -> Way:
        """By TLS, with the files of a client."""
        return Way(tls_uri(name, TLS_ADDRESS, pkipath, **query), wrapper=self.there)

    def tcp_way(self, name: str, environment: Mapping[str, str], **query: str) -> Way:
        """By TCP, with tickets, that for SERVICE among them: the KDC is not to be seen there."""
        uri = tcp_uri(name, TCP_ADDRESS, **query)
        return Way(uri, environment=environment, wrapper=self.there)

    @property
    def there(self) -> tuple[str, ...]:
        """Makes a command run in the daemon's network."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net")
