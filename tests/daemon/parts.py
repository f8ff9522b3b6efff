"""What a live daemon is made of, for tests of one part of it: no listener, no signal, no thread."""

from dataclasses import replace

from proxyd.config.listeners import Door
from proxyd.daemon.assemble import assemble
from proxyd.daemon.entrances import load_offerings, load_tls_for
from proxyd.daemon.in_force import Current, InForce, Options
from proxyd.daemon.load_config import Source
from proxyd.daemon.load_rules import load_rules
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.places import Places, routing_table
from proxyd.log.logs import Logs
from proxyd.log.outputs import LogPlaces
from proxyd.process.systemd_notify import Notifier
from proxyd.upgrade.outgoing import UpgradeFailed
from proxyd.wire.programs import AuthMethod
from tests.session.desk import seated

DEADLINE_S = 10
UNIX_DOOR = Door(name="libvirt-sock", method=AuthMethod.NONE, readonly=False, own_uid_only=False)


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
    """The parts of a daemon, put together as it does, and not running. To be made within trio.

    `text` is its configuration; `stopped` are the reasons why somebody wanted it to end.
    """

    def __init__(self, directory, text="", *, descriptor_room=1000, privileged=True, notifier=None):
        self.directory = directory
        self.conf = directory / "conf"
        self.configure(text)
        self.options = options(directory, privileged=privileged)
        loaded = self.options.source.load()
        places = self.options.places
        self.current = Current(
            InForce(
                settings=loaded.settings,
                at_start=loaded.settings,
                routes=routing_table(loaded.settings, places),
                rules=load_rules(loaded.settings),
                tls=load_tls_for(loaded.settings, places),
                offerings=load_offerings(loaded.settings, places)[0],
                descriptor_room=descriptor_room,
            )
        )
        self.logs = LogSettings(
            Logs(places=LogPlaces(journal=str(directory / "no-journal"))), self.options
        )
        self.stopped = []
        self.why_not_now = ""  # what the succession says of that
        made = assemble(
            self.current,
            self.options,
            self.logs,
            announced=(notifier or Notifier()).reloading,
            stop=self.stopped.append,
            end=lambda: self.stopped.append("idle"),
            upgrade=_never,
            why_not_now=lambda: self.why_not_now,
        )
        self.made = made
        self.admission, self.roster, self.relay = made.admission, made.roster, made.relay
        self.admin, self.idle, self.reloader = made.admin, made.idle, made.reloader
        self.host = made.admin_services.view
        self.reporter = self.host._reporter
        self.server = self.host.servers()[0]
        # Fewer than by default, so that a test can reach the end of them.
        self.admission.change(max_clients=100, max_anonymous=20)
        self.admin.admission.change(max_clients=50, max_anonymous=0)

    @property
    def in_force(self):
        return self.current.now

    def put_in_force(self, **parts):
        """As a reload does, of some parts alone."""
        self.current.now = replace(self.current.now, **parts)

    def configure(self, text):
        self.conf.write_text(f'log_outputs = "1:file:{self.directory}/log"\n{text}')

    def arrive(self, *, anonymous=False, door=UNIX_DOOR, end=None):
        """A client that negotiates."""
        return seated(self.roster, door, anonymous=anonymous, end=end or (lambda _: None))

    def close(self):
        """What was opened, given back; nothing of it ran in a thread of its own but the log."""
        for loop in self.relay.loops:
            loop._close()
        assert self.roster.audit.close(DEADLINE_S)
        assert self.logs.logs.close(DEADLINE_S)


async def _never():
    raise UpgradeFailed("it is no process")
