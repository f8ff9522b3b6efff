"""Meets a client of the network: TLS, its certificate, the byte that says it is let in.

The handshake burns milliseconds of CPU, so every step of it runs in a thread and this task only
waits for the socket. The threads are few: a flood of handshakes queues for them, address by
address, and neither the control plane nor the relay does. A peer that is silent holds no thread.

What the certificate must satisfy was fixed when the connection was accepted (`ServerTls`); a
reload in the meantime is for the next one.
"""

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

from proxyd.admission.holder import Holder
from proxyd.admission.threads import SharedThreads
from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.tls import HandshakeFailed, TlsEndpoint
from proxyd.negotiation.identity import ClientIdentity
from proxyd.negotiation.terms import TlsTerms
from proxyd.session.conversation import Conversation, Pace, wait_to_read
from proxyd.session.greeting import Untrusted, no_process
from proxyd.session.roster import Client
from proxyd.tls.server_context import ServerTls, channel_bindings
from proxyd.tls.verify import Inspection
from proxyd.wire.programs import AuthMethod

# docs/protocol/tls.md, section 1: the client waits for exactly this, in a record of its own.
LET_IN: Final = b"\x01"

log = logging.getLogger("rpc.nettlscontext")


def handshake_threads() -> SharedThreads[Holder]:
    """As many handshakes at one time as there are processors to make them."""
    return SharedThreads(max(2, len(os.sched_getaffinity(0))))


class TlsGreeting:
    """An accepted connection that begins with TLS. Owns the socket."""

    step = "the TLS handshake"
    process = no_process

    def __init__(
        self, sock: socket.socket, address: str, tls: ServerTls, threads: SharedThreads[Holder]
    ) -> None:
        self._inspection = Inspection()
        self.endpoint = TlsEndpoint(sock, tls.contexts[0], self._inspection, tls.contexts[1:])
        self._address = address
        self._tls = tls
        self._threads = threads
        self._terms: TlsTerms | None = None
        self.bindings: Mapping[str, bytes] = {}

    async def meet(self, client: Client) -> None:
        client.address = self._address
        done, pace = False, Pace()
        while not done:
            # It is the client's turn before the first step, too: without his words a thread has no
            # work. And while we do not listen to him: who sends his hello byte by byte would take
            # a thread for each of them.
            client.place.await_client()
            await pace.keep()
            await wait_to_read(self.endpoint)
            client.place.think()
            step = await self._threads.run(client.place.holder, self._handshake)
            match step:
                case HandshakeFailed():
                    raise Untrusted(self._tls.explain(self._inspection, str(step)))
                case HungUp():
                    raise HungUp(step.reason, while_writing=step.while_writing)
                case bool():
                    done = step
                    pace.part()
        client.tls = self._terms
        verdict = self._inspection.verdict
        client.identity = ClientIdentity(x509_dname=verdict.dname)
        client.names = verdict.names
        client.certificate = self._tls.proof
        if verdict.refusal:
            # A goodbye instead of the byte: virsh then says that its certificate was refused.
            self.endpoint.end_write()
            raise Untrusted(verdict.refusal)
        if client.door.method is AuthMethod.SASL:
            self.bindings = channel_bindings(self.endpoint.connection)
        for remark in verdict.remarks:
            log.info("client %d: %s: its certificate %s", client.number, client, remark)
        await Conversation(self.endpoint).send(LET_IN)

    def _handshake(self) -> bool | HandshakeFailed | HungUp:
        """Whether it is done. What went wrong is returned: in trio's hands an error of a thread's
        stays in a cycle with its traceback, and with it all that a stranger has sent."""
        try:
            done = self.endpoint.handshake()
        except (HandshakeFailed, HungUp) as error:
            return error
        if done:
            self._tls.judge(self._inspection, self.endpoint.connection)
            if not self._inspection.verdict.refusal:
                self._terms = self._tls.terms(self.endpoint.connection, self.endpoint.offered)
        return done
