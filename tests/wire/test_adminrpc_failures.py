"""The failures that only the admin protocol knows, with the numbers of docs/protocol/admin.md,
section 4."""

import pytest

from proxyd.wire import failure
from proxyd.wire.failure import Domain

# the failure, its code, its domain, the whole text, the format, the detail
REPORTED = [
    (failure.no_server("x", Domain.RPC), 95, 7, "Server not found: x", "Server not found: %1$s"),
    (failure.no_server("x", Domain.ADMIN), 95, 62, "Server not found: x", "Server not found: %1$s"),
    (failure.no_client("x", Domain.RPC), 96, 7, "Client not found: x", "Client not found: %1$s"),
    (failure.no_client("x", Domain.ADMIN), 96, 62, "Client not found: x", "Client not found: %1$s"),
    (
        failure.unknown_parameter("x"),
        74,
        0,
        "argument unsupported: x",
        "argument unsupported: %1$s",
    ),
    (failure.invalid_argument("x"), 8, 0, "invalid argument: x", "invalid argument: %1$s"),
    (
        failure.invalid_argument("x", Domain.RPC),
        8,
        7,
        "invalid argument: x",
        "invalid argument: %1$s",
    ),
    (
        failure.cannot_be_changed("x"),
        84,
        62,
        "Operation not supported: x",
        "Operation not supported: %1$s",
    ),
]


@pytest.mark.parametrize(("said", "code", "domain", "text", "form"), REPORTED)
def test_a_failure_has_the_numbers_and_texts_of_the_reference(said, code, domain, text, form):
    assert (said.code, said.domain, said.message, said.str1) == (code, domain, text, form)
    assert (said.str2, said.int1, said.int2) == ("x", -1, -1)


def test_unsupported_flags_are_told_as_libvirt_tells_them():
    said = failure.unsupported_flags(0x14, "CONNECT_OPEN")
    assert (said.code, said.domain) == (8, 62)
    assert said.message == "unsupported flags (0x14) in function CONNECT_OPEN"
    assert (said.str1, said.str2, said.int1, said.int2) == ("CONNECT_OPEN", "flags", 0, 0)
