"""What a live daemon is made of, for tests of one part of it: no listener, no signal, no thread."""

from proxyd.admin.visitors import AdminServer
from proxyd.config.listening import Door
from proxyd.daemon.hosting import LiveHost, ProxyServer
from proxyd.daemon.idle import IdleExit
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.loaded import Source
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.logoutputs import LogPlaces
from proxyd.daemon.logs import Logs
from proxyd.daemon.notify import Notifier
from proxyd.daemon.places import Places, routing_table
from proxyd.daemon.reload import Reloader
from proxyd.daemon.reporting import Reporter
from proxyd.session.admission import Admission
from proxyd.session.handover import Relay
from proxyd.session.roster import Roster
from proxyd.wire.programs import AuthMethod
from tests.session.desk import seated

DEADLINE_S = 10
UNIX_DOOR = Door(name="libvirt-sock", method=AuthMethod.NONE, readonly=False, own_uid_only=False)
STARTED_AT = 1700000000.0


def options(directory, *, privileged=True):
    """Of a daemon whose files are all in this directory; the configuration is `conf`."""
    conf = str(directory / "conf")
    return Options(
        source=Source(path=conf, named=True, verbose=False, privileged=privileged, environ={}),
        places=Places(
            privileged=privileged,
            config_file=conf,
            runtime_dir=str(directory / "run"),
            pid_file=str(directory / "pid"),
            log_file=str(directory / "default.log"),
            passwords=str(directory / "passwords"),
        ),
        pid_file="",
        directory=str(directory),
        background=False,
        idle_exit_s=0,
    )


class Parts:
    """The parts of a daemon, put together as running.py does it. To be made within trio.

    `text` is its configuration; `stopped` are the reasons why somebody wanted it to end.
    """

    def __init__(self, directory, text="", *, descriptor_room=1000, privileged=True, notifier=None):
        self.directory = directory
        self.conf = directory / "conf"
        self.configure(text)
        self.options = options(directory, privileged=privileged)
        loaded = self.options.source.load()
        self.in_force = InForce(
            settings=loaded.settings,
            at_start=loaded.settings,
            routes=routing_table(loaded.settings, self.options.places),
            tls=None,
            offerings={},
            descriptor_room=descriptor_room,
        )
        self.admission = Admission(max_clients=100, max_anonymous=20)
        self.roster = Roster(self.admission)
        self.admin = AdminServer(max_clients=50)
        self.relay = Relay(self.roster.relay_ended)
        self.logs = LogSettings(
            Logs(places=LogPlaces(journal=str(directory / "no-journal"))), self.options
        )
        self.stopped = []
        admissions = (self.admission, self.admin.admission)
        self.idle = IdleExit(0, admissions, lambda: self.stopped.append("idle"))
        self.reloader = Reloader(
            self.in_force,
            self.options,
            self.logs,
            admissions,
            announced=(notifier or Notifier()).reloading,
        )
        self.reporter = Reporter(
            in_force=self.in_force,
            options=self.options,
            roster=self.roster,
            admin=self.admin,
            relay=self.relay,
            logs=self.logs,
            idle=self.idle,
            reloader=self.reloader,
            started_at=STARTED_AT,
        )
        self.server = ProxyServer(self.in_force, self.roster, self.relay, self.reloader)
        self.host = LiveHost(
            self.server,
            self.admin,
            roster=self.roster,
            logs=self.logs,
            idle=self.idle,
            reporter=self.reporter,
            stop=self.stopped.append,
        )

    def configure(self, text):
        self.conf.write_text(f'log_outputs = "1:file:{self.directory}/log"\n{text}')

    def arrive(self, *, anonymous=False, door=UNIX_DOOR, end=None):
        """A client that negotiates."""
        return seated(self.roster, door, anonymous=anonymous, end=end or (lambda _: None))

    def close(self):
        """What was opened, given back; nothing of it ran in a thread of its own but the log."""
        for loop in self.relay.loops:
            loop._close()
        assert self.logs.logs.close(DEADLINE_S)
