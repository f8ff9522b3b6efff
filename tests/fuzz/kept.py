"""Which targets there are, and the inputs that are kept for each."""

import hashlib
from pathlib import Path
from typing import Final

# Each with its share of the runs of all: what runs fast gets more.
SHARES: Final = {
    "frames": 15,
    "payloads": 20,
    "client_talk": 3,
    "daemon_talk": 4,
    "admin": 3,
    "config_file": 6,
    "routes": 8,
    "log_strings": 3,
    "globs": 2,
    "priority": 2,
    "scram": 3,
    "sasl_tokens": 5,
    "dname": 10,
    "keytab": 4,
    "passwords": 4,
    "bus": 5,
    "activation": 2,
    "relay": 6,
}
TARGETS: Final = tuple(SHARES)
CORPUS: Final = Path(__file__).parent / "corpus"


def kept(target):
    """The inputs, in an order that is the same everywhere."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def name_of(data):
    """What the file of an input is called."""
    return hashlib.sha256(data).hexdigest()[:16]
