"""Real daemons for the system tests: two libvirtd as the modular daemons, proxyd before them.

The session-wide ones are shared by all tests, so a test that stops, floods or configures a daemon
makes its own with make_libvirtd and make_proxyd.
"""

import os
from contextlib import ExitStack
from functools import partial

import pytest

from tests.bed.bystander import Bystander, scene
from tests.bed.daemon import short_directory
from tests.bed.hostile import fuse_device, hostile
from tests.bed.kdc import Kdc
from tests.bed.libvirtd import Libvirtd
from tests.bed.listening_libvirtd import ListeningLibvirtd
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.sasl import SERVICE, with_tickets
from tests.bed.virsh import unix_uri, virsh

BEHIND_QEMU = (
    "virtqemud",
    "virtinterfaced",
    "virtnodedevd",
    "virtnwfilterd",
    "virtsecretd",
    "virtstoraged",
)

MIB = 1 << 20


@pytest.fixture(scope="session")
def host_pki(tmp_path_factory):
    """Whose certificates the daemon itself takes of clients by TLS."""
    return Pki(tmp_path_factory.mktemp("host-pki"))


@pytest.fixture(scope="session")
def qemu_backend(host_pki):
    """The daemon that serves all but networks, and test:///default; it has all the listeners."""
    with short_directory() as directory, ListeningLibvirtd(directory, host_pki) as backend:
        yield backend


@pytest.fixture(scope="session")
def host_client(host_pki):
    """The files of such a client, for ?pkipath=."""
    return host_pki.client()


@pytest.fixture(scope="session")
def direct_tls(qemu_backend, host_client):
    """The way by TLS to that daemon for a driver's name: direct_tls("qemu:///system")."""
    return partial(qemu_backend.tls_way, pkipath=host_client)


@pytest.fixture(scope="session")
def cases_pool(qemu_backend, tmp_path_factory):
    """Its pool "cases" (tests/bed/cases.py)."""
    directory = tmp_path_factory.mktemp("cases")
    (directory / "source").write_bytes(os.urandom(MIB))
    (directory / "target").write_bytes(bytes(MIB))
    with (directory / "big").open("wb") as big:
        big.truncate(256 * MIB)
    uri = unix_uri("qemu:///system", qemu_backend.sock)
    # The first question about QEMU takes seconds.
    begin = f"capabilities; pool-define-as cases dir --target {directory}; pool-start cases"
    virsh(uri, begin).succeeded()
    yield
    virsh(uri, "pool-destroy cases; pool-undefine cases").succeeded()


@pytest.fixture(scope="session")
def kdc():
    """A KDC with all the principals that tests have a use for."""
    with short_directory() as directory, Kdc(directory) as kdc:
        kdc.add("joe", "fred", "joe/admin", SERVICE, "host/localhost", "libvirt/elsewhere.example")
        yield kdc


@pytest.fixture(scope="session")
def direct_tcp(qemu_backend, kdc):
    """The way by TCP to that daemon, with a ticket, likewise."""
    qemu_backend.trust(kdc)
    tickets = kdc.tickets("joe")
    kdc.prepare(tickets, SERVICE)
    return partial(qemu_backend.tcp_way, environment=with_tickets(kdc, tickets))


@pytest.fixture(scope="session")
def network_backend():
    """A second daemon, to see that network:///system goes elsewhere."""
    with short_directory() as directory, Libvirtd(directory) as backend:
        yield backend


@pytest.fixture(scope="session")
def backend_dir(qemu_backend, network_backend):
    """A directory with the sockets of all modular daemons."""
    with short_directory() as directory:
        qemu_backend.serve_as(directory, *BEHIND_QEMU)
        network_backend.serve_as(directory, "virtnetworkd")
        yield directory


@pytest.fixture(scope="session")
def proxyd(backend_dir, qemu_backend):
    """A proxyd before both daemons; it must still run when all tests are done, and end well."""
    with short_directory() as directory:
        shared = Proxyd(
            directory,
            backend_dir=backend_dir,
            config={"proxyd_routes": [f"test={qemu_backend.sock}"]},
        )
        shared.start()
        try:
            yield shared
            assert shared.daemon.running, f"a test ended the shared proxyd\n{shared.daemon.story()}"
        finally:
            status = shared.stop()
        assert status == 0


@pytest.fixture
def make_libvirtd():
    """Make libvirtd of one's own: make_libvirtd(config={"max_client_requests": 1}, user=65534)."""
    with ExitStack() as stack:

        def make(**options):
            directory = stack.enter_context(short_directory())
            return stack.enter_context(Libvirtd(directory, **options))

        yield make


@pytest.fixture
def make_proxyd(request):
    """Make a running proxyd of one's own: make_proxyd({"max_clients": 3}, backend_dir=…).

    Without a backend_dir it stands before the shared daemons, and routes test:///default as well.
    """
    with ExitStack() as stack:

        def make(config=None, *, backend_dir=None, mode=0o700, **options):
            if backend_dir is None:
                backend_dir = request.getfixturevalue("backend_dir")
                shared = request.getfixturevalue("qemu_backend")
                if not isinstance(config, str):
                    config = {"proxyd_routes": [f"test={shared.sock}"], **(config or {})}
            directory = stack.enter_context(short_directory(mode))
            made = Proxyd(directory, backend_dir=backend_dir, config=config, **options)
            return stack.enter_context(made)

        yield make


@pytest.fixture
def make_scene(backend_dir, qemu_backend):
    """Make a proxyd that somebody attacks: make_scene({"log_level": 3}, passrights=False).

    test:///default is a real daemon, lxc:///system a sink; everybody may read and write.
    """
    with ExitStack() as stack:

        def make(config=None, **options):
            made = scene(qemu_backend.sock, backend_dir=backend_dir, config=config, **options)
            return stack.enter_context(made)

        yield make


@pytest.fixture
def endures(request, capsys):
    """What others feel of a script, shown and checked: endures(scene, SCRIPT, argument, user=1).

    A script gets the directory with the sockets that it attacks, and the arguments. `beside` are
    more words to Bystander.beside.
    """

    def endures(made, script, *arguments, beside=None, **options):
        def start(directory):
            return hostile(script, directory, *arguments, **options)

        with Bystander(made) as bystander:
            felt = bystander.beside(start, **(beside or {}))
            bystander.stop_beside(start, felt)
        with capsys.disabled():
            print(f"\n{request.node.name}: {felt}")
        felt.check()
        return felt

    return endures


@pytest.fixture(scope="session")
def device():
    """A /dev/fuse for everybody, or "" where there is none to be had."""
    with short_directory(0o755) as directory:
        yield fuse_device(directory)
