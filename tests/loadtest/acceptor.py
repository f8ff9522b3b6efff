"""The server's end of SASL by GSSAPI: what it answers to each call, and its context at the end."""

import gssapi

from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.remote import (
    SaslReply,
    SaslStart,
    pack_auth_methods,
    pack_sasl_mechanisms,
    unpack_sasl_step,
)

ENCRYPTS = b"\x04\x01\x00\x00"  # nothing but that, and tokens of 65536 bytes


class Acceptor:
    def __init__(self, keytab, offer=ENCRYPTS):
        ours = gssapi.Credentials(usage="accept", store={"keytab": str(keytab)})
        self.context = gssapi.SecurityContext(creds=ours, usage="accept")
        self.offer = offer
        self.chosen = None  # by the client: its layer and the longest token that it takes

    def answer(self, procedure, payload):
        match procedure:
            case Remote.AUTH_LIST:
                return pack_auth_methods([AuthMethod.SASL])
            case Remote.AUTH_SASL_INIT:
                return pack_sasl_mechanisms(["SCRAM-SHA-256", "GSSAPI"])
            case Remote.AUTH_SASL_START:
                begun = SaslStart.unpack(payload)
                assert begun.mechanism == "GSSAPI"
                return SaslReply(False, self.context.step(begun.data)).pack()
            case Remote.AUTH_SASL_STEP:
                return self.step(unpack_sasl_step(payload)).pack()

    def step(self, data):
        if data is None:
            return SaslReply(False, self.context.wrap(self.offer, False).message)
        self.chosen = self.context.unwrap(data).message
        return SaslReply(True, None)


def entered(calls, acceptor, spoilt=()):
    """The channel at the end of the way in. `spoilt`: replies that are others, by their number."""
    asked, replies = next(calls), dict(spoilt)
    try:
        for number in range(10):
            answer = acceptor.answer(*asked)
            asked = calls.send(replies.get(number, answer))
    except StopIteration as done:
        return done.value
    raise AssertionError("it does not come to an end")
