"""A host on which other code is installed beside the daemon that runs."""

from tests.bed.daemon import short_directory
from tests.bed.pingpong import Sessions
from tests.bed.proxyd import Proxyd
from tests.bed.upgrading import upgrading
from tests.fakes.moody_daemon import MoodyDaemon

SESSIONS = 3


class Host:
    """A daemon of what is installed, and sessions that notice nothing."""

    def __init__(self, stack, release, *, also=()):
        self.directory = stack.enter_context(short_directory())
        self.installed = self.directory / "installed"
        self.install(release)
        path = self.directory / "moody"
        stack.enter_context(MoodyDaemon(path))
        self.config = {"proxyd_routes": [f"test={path}"]}
        self.proxyd = stack.enter_context(
            Proxyd(
                stack.enter_context(short_directory()),
                backend_dir=self.directory,
                config=self.config,
                environment={"PYTHONPATH": ":".join([str(self.installed), *also])},
            )
        )
        self.front = stack.enter_context(upgrading(self.proxyd))
        self.sessions = Sessions()
        stack.callback(self.sessions.stop)
        self.sessions.open_by(self.proxyd.sock, SESSIONS)

    def install(self, release):
        """In the place of what is installed."""
        new = self.directory / "new"
        new.symlink_to(release)
        new.rename(self.installed)

    def refuses(self):
        """What is said of an upgrade that does not happen; all is as it was."""
        done = self.front.command("upgrade")
        assert (done.status, done.stdout) == (1, "")
        assert self.front.named_pid() == self.front.pid
        assert self.sessions.go_on() == []
        self.sessions.open_by(self.proxyd.sock, 1)
        assert self.sessions.go_on() == []
        return done.stderr
