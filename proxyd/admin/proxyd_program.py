"""What each call of proxyd's own program does (wire/proxyd_program.py)."""

import json
from typing import Final

from proxyd.admin.act import Act
from proxyd.admin.document import written
from proxyd.admin.view import CallRefused, DaemonView
from proxyd.wire import failure, proxyd_program
from proxyd.wire.programs import Own


async def _status(view: DaemonView, payload: bytes) -> bytes:
    asked = proxyd_program.AskStatus.unpack(payload)
    found = await view.status(
        ask_daemons=bool(asked.flags & proxyd_program.ASK_DAEMONS),
        ask_busy=bool(asked.flags & proxyd_program.ASK_BUSY),
    )
    return proxyd_program.pack_text(json.dumps(written(found)))


def _list_clients(view: DaemonView, payload: bytes) -> bytes:
    page = proxyd_program.AskPage.unpack(payload)
    most = min(page.most, proxyd_program.LONGEST_PAGE)
    listed = view.described(after=page.after, most=most)
    return proxyd_program.pack_text(json.dumps([written(each) for each in listed]))


async def _metrics(view: DaemonView, payload: bytes) -> bytes:
    proxyd_program.unpack_nothing(payload)
    return proxyd_program.pack_text(await view.metrics())


def _close_client(view: DaemonView, payload: bytes) -> bytes:
    view.close_client(proxyd_program.unpack_number(payload))
    return b""


async def _reload(view: DaemonView, payload: bytes) -> bytes:
    proxyd_program.unpack_nothing(payload)
    return proxyd_program.pack_text(await view.reload())


def _drain(view: DaemonView, payload: bytes) -> bytes:
    flags = proxyd_program.AskDrain.unpack(payload).flags
    unknown = flags & ~proxyd_program.LET_IN
    if unknown:  # whatever it is, it is no plain drain
        raise CallRefused(failure.unsupported_flags(unknown, Own.DRAIN.name))
    drained = view.drain(on=not flags & proxyd_program.LET_IN)
    return proxyd_program.pack_text(json.dumps(written(drained)))


async def _upgrade(view: DaemonView, payload: bytes) -> bytes:
    proxyd_program.unpack_nothing(payload)
    return proxyd_program.pack_text(json.dumps(written(await view.upgrade())))


async def _rules(view: DaemonView, payload: bytes) -> bytes:
    flags = proxyd_program.AskRules.unpack(payload).flags
    unknown = flags & ~proxyd_program.APPLY_NOW
    if unknown:
        raise CallRefused(failure.unsupported_flags(unknown, Own.RULES.name))
    applied = await view.apply_rules(now=bool(flags & proxyd_program.APPLY_NOW))
    return proxyd_program.pack_text(json.dumps(written(applied)))


OWN_ACTS: Final[dict[Own, Act]] = {
    Own.STATUS: Act(_status),
    Own.LIST_CLIENTS: Act(_list_clients),
    Own.CLOSE_CLIENT: Act(
        _close_client,
        changes=True,
        closes=lambda payload: ("", proxyd_program.unpack_number(payload)),
    ),
    Own.RELOAD: Act(_reload, changes=True),
    Own.METRICS: Act(_metrics),
    Own.DRAIN: Act(_drain, changes=True),
    Own.UPGRADE: Act(_upgrade, changes=True),
    Own.RULES: Act(_rules, changes=True),
}
