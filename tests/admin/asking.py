"""How a test asks a daemon: arguments as values, answers as values."""

import pytest

from proxyd.admin.procedures import answer
from proxyd.admin.view import CallRefused
from proxyd.wire import adminrpc
from proxyd.wire.params import Param, ParamType


async def ask(host, procedure, arguments=None):
    """What the call returns, as bytes."""
    return await answer(host, procedure, b"" if arguments is None else arguments.pack())


async def refused(host, procedure, arguments):
    """The failure that the call gets."""
    with pytest.raises(CallRefused) as refusal:
        await ask(host, procedure, arguments)
    return refusal.value.failure


def numbers(failure):
    return failure.code, failure.domain


def counts(server, flags=0, **named):
    """Arguments that set so many of everything that is named."""
    params = tuple(Param(field, ParamType.UINT, count) for field, count in named.items())
    return adminrpc.SetParams(server, params, flags)


def shown(payload, limit=64):
    """Typed parameters as they are listed: name, type, value."""
    return [
        (param.field, param.type.name, param.value)
        for param in adminrpc.unpack_params(payload, limit)
    ]
