"""SCRAM's server side: whoever does not know the password is refused, and nothing else is raised.

The messages stand one behind the other with 0xFF between. In them NONCE stands for what the
challenge said, PROOF for the proof of somebody who knows the password, and BOUND for what a client
has to have seen.
"""

import functools
import hashlib
import hmac
import re
from base64 import b64encode

from scramp import ScramMechanism

from proxyd.sasl.mechanism import Challenge, LoginRefused
from proxyd.sasl.passwords import Passwords, Verifier
from proxyd.sasl.scram import ScramServer, claimed
from tests.fuzz.claims import claim_one_line

USERS = ("joe", "a,b=c")
PASSWORD = "sesame"  # of nobody: there is no file
ITERATIONS = 4096
BINDINGS = {"tls-exporter": b"what both ends derived", "tls-server-end-point": b"a digest"}
WORDS = (
    b"n,,n=joe,r=x\xffc=BOUND,r=NONCE,p=PROOF",
    b"n,a=joe,n=joe,r=x\xff",
    b"y,,n=joe,r=x",
    b"p=tls-exporter,,n=joe,r=x",
    b"n=a=2Cb=3Dc",
    b",r=NONCE",
    b"c=biws",
    b",p=PROOF",
    b",m=x",
    b"\xff",
)


class KnownPasswords:
    """In place of a file of them."""

    path = "/nonexistent"

    @functools.cache  # noqa: B019 (there is one)
    def read(self):
        return Passwords(bytes(32), {name: verifier() for name in USERS})


@functools.cache
def verifier():
    info = ScramMechanism("SCRAM-SHA-256").make_auth_info(PASSWORD, ITERATIONS, b"salt of tests...")
    salt, stored_key, server_key, iterations = info
    return Verifier(iterations, salt, stored_key, server_key)


@functools.cache
def client_key():
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), verifier().salt, ITERATIONS)
    return hmac.digest(salted, b"Client Key", "sha256")


PASSWORDS = KnownPasswords()


def one_input(data):
    if not data:
        return
    server = ScramServer(
        PASSWORDS, plus=bool(data[0] & 1), plus_offered=bool(data[0] & 2), bindings=BINDINGS
    )
    messages = data[1:].split(b"\xff", 3)
    turns, first, knows = [server.start, server.step, server.step, server.step], b"", False
    challenge, said = b"", ""
    for turn, message in zip(turns, [None, *messages] if data[0] & 4 else messages, strict=False):
        if challenge and message is not None:
            knows = message.endswith(b"PROOF")
            message = filled_in(message, first, challenge)  # noqa: PLW2901
        try:
            answer = turn(message)
        except LoginRefused as refusal:
            claim_one_line(refusal)
            return
        if not isinstance(answer, Challenge):
            assert knows
            assert answer.username in USERS
            assert answer.username == said
            return
        if not challenge:
            said = claimed(message or b"")
        first, challenge = message or b"", answer.data


def filled_in(message, first, challenge):
    """The client's final message, by RFC 5802's own words."""
    header, bare = re.match(rb"([^,]*,[^,]*,)(.*)", first, re.DOTALL).groups()
    binding = header[2:].split(b",")[0].decode(errors="replace")
    bound = b64encode(header + BINDINGS.get(binding, b""))
    nonce = challenge.split(b",")[0].removeprefix(b"r=")
    message = message.replace(b"NONCE", nonce).replace(b"BOUND", bound)
    signed = b",".join([bare, challenge, message.removesuffix(b"PROOF").removesuffix(b",p=")])
    key = client_key()
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return message.replace(b"PROOF", b64encode(proof))
