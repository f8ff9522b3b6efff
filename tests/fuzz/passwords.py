"""What stands where the file of passwords should: verifiers, or PasswordError that tells none."""

from proxyd.sasl.passwords import PasswordError, PasswordFile
from tests.fuzz.memory_file import path_of

HEADER = b"proxyd-passwords 1 " + b"A" * 43 + b"=\n"
VERIFIER = b":SCRAM-SHA-256$4096:" + b"A" * 22 + b"==$" + b"B" * 43 + b"=:" + b"C" * 43 + b"=\n"
SHORTEST_SECRET = 8
WORDS = (
    HEADER,
    b"joe" + VERIFIER,
    VERIFIER,
    b"\xe2\x80\xa8",
    b"\x85",
    b"\n",
    b"$1000:",
    b"$999999:",
)


def one_input(data):
    """The first byte says whether the usual header stands in front."""
    if not data:
        return
    content = (HEADER if data[0] & 1 else b"") + data[1:]
    path = path_of("passwords", content)
    try:
        found = PasswordFile(path).read()
    except PasswordError as error:
        said = str(error).removeprefix(path)
        secrets = content.decode(errors="replace").replace("$", ":").split(":")
        assert not any(len(each) >= SHORTEST_SECRET and each in said for each in secrets[1:])
        return
    for name, verifier in found.verifiers.items():
        assert name
        sizes = [len(each) for each in (verifier.salt, verifier.stored_key, verifier.server_key)]
        assert sizes == [16, 32, 32]
        assert found.verifier(name) is verifier
