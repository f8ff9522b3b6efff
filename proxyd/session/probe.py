"""Asks a daemon whether it is there: connects, and asks it what every client asks first."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from proxyd.config.routes import Destination
from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.negotiation.backend import FRAME_LIMIT
from proxyd.session.backend import OpenFailed, connect
from proxyd.session.conversation import Conversation
from proxyd.wire.dialogue import Dialogue, Failed, Returned
from proxyd.wire.programs import Remote
from proxyd.wire.xdr import MalformedFrame

_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Answered:
    """How it went: the milliseconds of an answer, or else why there was none."""

    ms: float | None
    trouble: str = ""


async def probe(destination: Destination) -> Answered:
    """Takes two seconds at most. A socket that systemd holds starts its daemon."""
    began = time.monotonic()
    trouble = f"no answer within {_PATIENCE_S:g} s"
    with trio.move_on_after(_PATIENCE_S):
        trouble = await _ask(destination)
    return Answered(None, trouble) if trouble else Answered((time.monotonic() - began) * 1e3)


async def _ask(destination: Destination) -> str:
    """Why there is no answer, or "" for one."""
    try:
        endpoint = UnixEndpoint(await connect(destination))
    except OpenFailed as error:
        return error.failure.message
    try:
        conversation, dialogue = Conversation(endpoint), Dialogue(limit=FRAME_LIMIT)
        await _call(conversation, dialogue, Remote.AUTH_LIST)
        # A goodbye, or libvirt's daemons would log an error for each of our questions. Its reply is
        # read: a socket that is closed over unread bytes resets the connection.
        with suppress(HungUp):
            await _call(conversation, dialogue, Remote.CONNECT_CLOSE)
    except HungUp as error:
        return f"it hung up: {error.reason}"
    except MalformedFrame as error:
        return f"what it says is no libvirt: {error}"
    finally:
        endpoint.close()
    return ""


async def _call(conversation: Conversation, dialogue: Dialogue, procedure: Remote) -> None:
    """Returns when there was an answer, yes or no. Raises HungUp and MalformedFrame."""
    await conversation.send(dialogue.call(procedure))
    answer = None
    while not isinstance(answer, Returned | Failed):
        answer = dialogue.receive_data(await conversation.receive(dialogue.wanted))
