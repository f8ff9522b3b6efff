"""What each call of proxyd's own program does (wire/ownrpc.py)."""

import json

from proxyd.admin.host import Host
from proxyd.wire import ownrpc
from proxyd.wire.programs import Own


async def answer_own(host: Host, procedure: Own, payload: bytes) -> bytes:
    """Carries out one call and returns its result. Raises Refused and MalformedFrame."""
    match procedure:
        case Own.STATUS:
            asked = ownrpc.AskStatus.unpack(payload)
            found = await host.status(ask_daemons=bool(asked.flags & ownrpc.ASK_DAEMONS))
            return ownrpc.pack_text(json.dumps(found))
        case Own.LIST_CLIENTS:
            page = ownrpc.AskPage.unpack(payload)
            most = min(page.most, ownrpc.LONGEST_PAGE)
            return ownrpc.pack_text(json.dumps(host.described(after=page.after, most=most)))
        case Own.CLOSE_CLIENT:
            host.close_client(ownrpc.unpack_number(payload))
            return b""
