"""Real daemons for the system tests: two libvirtd as the modular daemons, proxyd before them.

The session-wide ones are shared by all tests, so a test that stops, floods or configures a daemon
makes its own with make_libvirtd and make_proxyd.
"""

from contextlib import ExitStack

import pytest

from tests.bed.bystander import Bystander, scene
from tests.bed.daemon import short_directory
from tests.bed.hostile import fuse_device, hostile
from tests.bed.libvirtd import Libvirtd
from tests.bed.proxyd import Proxyd

BEHIND_QEMU = (
    "virtqemud",
    "virtinterfaced",
    "virtnodedevd",
    "virtnwfilterd",
    "virtsecretd",
    "virtstoraged",
)


@pytest.fixture(scope="session")
def qemu_backend():
    """The daemon that serves all but networks, and test:///default."""
    with short_directory() as directory, Libvirtd(directory) as backend:
        yield backend


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
