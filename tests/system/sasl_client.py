"""A SASL client of our own, on python-gssapi, for what virsh would not do."""

from contextlib import contextmanager

import gssapi
from gssapi.raw import RequirementFlag

from proxyd.wire import remote
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.sasl import SERVICE
from tests.system.rpc import RpcClient
from tests.system.tls_client import connected

LONGEST = 65536
NO_LAYER, CONFIDENTIALITY = b"\x01\x00\x00\x00", b"\x04\x01\x00\x00"


class Layered:
    """A socket below a Kerberos layer, with the methods that RpcClient needs."""

    def __init__(self, sock, context):
        self.sock = sock
        self.context = context
        self.longest = context.get_wrap_size_limit(LONGEST, True)
        self.held = bytearray()
        self.plain = b""

    def token(self, plain):
        wrapped = self.context.wrap(plain, True).message
        return len(wrapped).to_bytes(4, "big") + wrapped

    def sendall(self, data):
        for at in range(0, len(data), self.longest):
            self.sock.sendall(self.token(bytes(data[at : at + self.longest])))

    def recv(self, size):
        while not self.plain:
            length = int.from_bytes(self.held[:4], "big")
            if len(self.held) >= 4 + length and length:
                self.plain = self.context.unwrap(bytes(self.held[4 : 4 + length])).message
                del self.held[: 4 + length]
            else:
                more = self.sock.recv(1 << 18)
                if not more:
                    return b""
                self.held += more
        taken, self.plain = self.plain[:size], self.plain[size:]
        return taken

    def settimeout(self, seconds):
        self.sock.settimeout(seconds)

    def fileno(self):
        return self.sock.fileno()

    def close(self):
        self.sock.close()


def login(tickets, *, encrypts, service=SERVICE):
    """A context for an exchange; its first token is `context.step()`."""
    flags = [RequirementFlag.mutual_authentication, RequirementFlag.out_of_sequence_detection]
    flags += [RequirementFlag.integrity]
    flags += [RequirementFlag.confidentiality] if encrypts else []
    return gssapi.SecurityContext(
        name=gssapi.Name(service.replace("/", "@"), gssapi.NameType.hostbased_service),
        creds=gssapi.Credentials(usage="initiate", store={"ccache": f"FILE:{tickets}"}),
        mech=gssapi.MechType.kerberos,
        flags=flags,
        usage="initiate",
    )


def start(client, context):
    """INIT and START; returns the answer to the first token."""
    assert client.call(Remote.AUTH_LIST).header.status == Status.OK
    assert client.call(Remote.AUTH_SASL_INIT).header.status == Status.OK
    begun = remote.SaslStart("GSSAPI", context.step())
    return remote.SaslReply.unpack(client.call(Remote.AUTH_SASL_START, begun.pack()).payload)


def step(client, data):
    reply = client.call(Remote.AUTH_SASL_STEP, remote.pack_sasl_step(data))
    assert reply.header.status == Status.OK
    return remote.SaslReply.unpack(reply.payload)


def authenticate(client, context, *, layer):
    """The whole exchange (docs/protocol/sasl.md, section 5)."""
    context.step(start(client, context).data)
    offered = step(client, None)
    assert context.unwrap(offered.data).message == layer
    assert step(client, context.wrap(layer, False).message) == remote.SaslReply(True, None)


@contextmanager
def by_gssapi(address, tickets, uri="test:///default"):
    """An open connection over TCP. Below `client.sock` is the layer."""
    with connected(address) as sock:
        client = RpcClient(sock)
        context = login(tickets, encrypts=True)
        authenticate(client, context, layer=CONFIDENTIALITY)
        assert client.buffer.held == 0
        client.sock = Layered(sock, context)
        if uri:
            reply = client.call(Remote.CONNECT_OPEN, remote.OpenArguments(uri, 0).pack())
            assert reply is not None
            assert reply.header.status == Status.OK
        yield client
