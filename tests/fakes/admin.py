"""A daemon for the admin protocol that does nothing but remember what it was told."""

from proxyd.admin import document
from proxyd.admin.view import CallRefused, Limits, Pool
from proxyd.config.logstrings import parse_filters, parse_outputs
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.wire import failure
from proxyd.wire.failure import Domain
from tests.fakes.documents import OPEN, STATUS

FRED = ClientIdentity(user_name="fred", uid=1000, group_name="users", gid=100, pid=4242)
LIB_VERSION = 11003000
NO_FILE = "/proc/nonexistent/log"


class FakeClient:
    def __init__(
        self, number, *, identity=FRED, transport=Transport.UNIX, address="", authentication=""
    ):
        self.number = number
        self.transport = transport
        self.connected_s = 1700000000.75 + number
        self.readonly = False
        self.address = address
        self.known_identity = identity
        self.authentication = authentication
        self.closed = False

    def close(self):
        self.closed = True


class FakeServer:
    """Obeys whatever it is told, unless `refusal` says why not."""

    def __init__(self, name):
        self.name = name
        self.everybody = []
        self.pool = Pool(
            min_workers=2, max_workers=8, workers=3, free_workers=1, prio_workers=5, queued=7
        )
        self.limits = Limits(max_clients=5000, max_anonymous=20)
        self.anonymous = 0
        self.told = []  # every change that it was asked for
        self.refusal = None

    def join(self, **known):
        client = FakeClient(len(self.everybody) + 1, **known)
        self.everybody.append(client)
        return client

    def clients(self):
        return [client for client in self.everybody if not client.closed]

    def find(self, number):
        return next((client for client in self.clients() if client.number == number), None)

    def set_pool(self, bounds):
        self._tell(bounds)

    def set_limits(self, limits):
        self._tell(limits)
        self.limits = limits

    async def update_tls(self):
        self._tell("TLS")

    def _tell(self, what):
        if self.refusal is not None:
            raise CallRefused(self.refusal)
        self.told.append(what)


class FakeView:
    """`more` are servers beside its own, which is called virtproxyd."""

    lib_version = LIB_VERSION

    def __init__(self, *more, name="virtproxyd"):
        self.main = FakeServer(name)
        self.more = more
        self.log_outputs = parse_outputs("3:stderr 1:file:/var/log/x")
        self.log_filters = parse_filters("")
        self.told = []
        self.reload_fails = ""
        self.state = {}  # what `status` tells; what is not there is as in documents.py
        self.listed = []  # what `described` tells of, likewise: a dictionary with an "id" each

    def servers(self):
        return [self.main, *self.more]

    async def set_log_outputs(self, outputs):
        for output in outputs:
            if output.target == NO_FILE:
                text = f"cannot open {NO_FILE}: No such file or directory"
                raise CallRefused(failure.system_error(2, text, Domain.NONE))
        self.log_outputs = outputs or parse_outputs("3:journald")

    async def set_log_filters(self, filters):
        self.log_filters = filters

    def set_idle_exit(self, seconds):
        self.told.append(("idle exit", seconds))

    def shut_down(self, *, preserve):
        self.told.append(("shut down", preserve))

    async def status(self, *, ask_daemons, ask_busy=False):
        self.told.append(("status", "busy" if ask_busy and not ask_daemons else ask_daemons))
        return document.read(document.Status, STATUS | self.state)

    def described(self, *, after, most):
        self.told.append(("described", after, most))
        listed = [each for each in self.listed if each["id"] > after][:most]
        return [document.read(document.Client, OPEN | each) for each in listed]

    async def reload(self):
        self.told.append("reload")
        if self.reload_fails:
            raise CallRefused(failure.system_error(0, f"nothing was changed: {self.reload_fails}"))
        return "configuration reloaded from /etc/libvirt/virtproxyd.conf"

    async def metrics(self):
        self.told.append("metrics")
        return "proxyd_up 1\n"

    def drain(self, *, on):
        self.told.append(("drain", on))
        if not on:
            return document.Drained(changed=True)
        drain = document.Drain(since=1.7e9, left=3, negotiating=1)
        return document.Drained(changed=True, drain=drain)

    async def apply_rules(self, *, now):
        self.told.append(("rules", now))
        return document.Applied(reloaded="", rules=2, open=1, count=0, done=now, sessions=())

    def close_client(self, number):
        if number not in {each["id"] for each in self.listed}:
            raise CallRefused(failure.no_client(f"there is no client {number}", Domain.ADMIN))
        self.listed = [each for each in self.listed if each["id"] != number]
        self.told.append(("close", number))
