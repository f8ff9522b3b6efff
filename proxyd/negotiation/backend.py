"""proxyd towards a daemon: the calls that open a connection in a client's name.

One call at a time: a daemon works on several calls of a connection at once, so an identity that
was pipelined behind the OPEN could be handled before it (docs/protocol/opening.md, section 5).

    AUTH_LIST ─ [SUPPORTS_FEATURE 10] ─ CONNECT_OPEN ─ CONNECT_SET_IDENTITY ─ opened

AUTH_LIST comes first because a daemon with polkit lets root in only after it was asked. The
keepalive probe is made only for a client that made it: an answer of 1 starts the daemon's
pings, and they pass through to the client. An identity that is refused refuses the client:
there is no way from NAMING to OPEN but the daemon's own yes.
"""

from enum import Enum
from typing import Final

from proxyd.negotiation.events import BackendEvent, DaemonOpened, DaemonRefused, Send
from proxyd.wire import failure, remote
from proxyd.wire.dialogue import Dialogue, Failed, Pinged, Returned
from proxyd.wire.failure import Failure
from proxyd.wire.params import Param
from proxyd.wire.programs import AuthMethod, Feature, Remote
from proxyd.wire.xdr import MalformedFrame

# Replies here are empty, one word, or an error text, of which 1 MiB would take 9 ms to decode.
FRAME_LIMIT: Final = 65536


class BackendStage(Enum):
    """The value is the call whose reply is awaited."""

    LISTING = Remote.AUTH_LIST
    PROBING = Remote.CONNECT_SUPPORTS_FEATURE
    OPENING = Remote.CONNECT_OPEN
    NAMING = Remote.CONNECT_SET_IDENTITY
    OPEN = 0
    REFUSED = -1


class BackendNegotiation:
    """The sans-io client side. Send what `start` returns, then feed `wanted` bytes at a time."""

    def __init__(
        self, arguments: remote.OpenArguments, identity: list[Param], *, keepalive: bool
    ) -> None:
        self._arguments = arguments
        self._identity = identity
        self._keepalive = keepalive
        self._dialogue = Dialogue(limit=FRAME_LIMIT)
        self.stage = BackendStage.LISTING

    def start(self) -> bytes:
        return self._call(BackendStage.LISTING)

    @property
    def wanted(self) -> int:
        """How many bytes to read next; zero when the connection is open or was refused."""
        return 0 if self.stage is BackendStage.REFUSED else self._dialogue.wanted

    def receive_data(self, received: bytes | bytearray | memoryview) -> list[BackendEvent]:
        """Takes at most `wanted` bytes and says what to do."""
        if len(received) > self.wanted:
            raise ValueError("more was read than was wanted: the relay would miss it")
        try:
            match self._dialogue.receive_data(received):
                case Returned(payload):
                    return self._succeeded(payload)
                case Failed(reason):
                    return self._failed(reason)
                case Pinged(pong):
                    return [Send(pong)]
                case None:
                    return []
        except MalformedFrame as error:
            return self._refuse(failure.internal(f"the daemon broke the protocol: {error}"))

    def _failed(self, reason: Failure) -> list[BackendEvent]:
        if self.stage is BackendStage.PROBING:
            # An old daemon that does not ping; libvirt's own client shrugs as well.
            return [Send(self._call(BackendStage.OPENING))]
        return self._refuse(reason)

    def _succeeded(self, payload: bytes) -> list[BackendEvent]:
        match self.stage:
            case BackendStage.LISTING:
                methods = remote.unpack_auth_methods(payload)
                if AuthMethod.NONE not in methods:
                    return self._refuse(self._asks_for_proof(methods))
                after = BackendStage.PROBING if self._keepalive else BackendStage.OPENING
                return [Send(self._call(after))]
            case BackendStage.PROBING:
                return [Send(self._call(BackendStage.OPENING))]
            case BackendStage.OPENING:
                return [Send(self._call(BackendStage.NAMING))]
            case _:
                self.stage = BackendStage.OPEN
                return [DaemonOpened()]

    def _call(self, stage: BackendStage) -> bytes:
        self.stage = stage
        payload = b""
        match stage:
            case BackendStage.PROBING:
                payload = remote.pack_int(Feature.PROGRAM_KEEPALIVE)
            case BackendStage.OPENING:
                payload = self._arguments.pack()
            case BackendStage.NAMING:
                payload = remote.pack_identity(self._identity)
        return self._dialogue.call(stage.value, payload)

    def _refuse(self, reason: Failure) -> list[BackendEvent]:
        stage, self.stage = self.stage, BackendStage.REFUSED
        return [DaemonRefused(stage.name.lower(), reason)]

    def _asks_for_proof(self, methods: list[int]) -> Failure:
        names = {AuthMethod.SASL: "SASL", AuthMethod.POLKIT: "polkit"}
        asked = ", ".join(names.get(AuthMethod(m), str(m)) for m in methods if m in names)
        return failure.authentication_failed(
            f"the daemon behind the proxy asks the proxy itself to authenticate"
            f" ({asked or 'by an unknown method'}); run proxyd as root or set"
            ' auth_unix_rw = "none" in that daemon\'s configuration'
        )
