"""Status and clients as a person reads them. Everything that a client chose is plain text here."""

import os
import sys
import time
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxyd.config.quoting import one_line

EXPIRY_DAYS: Final = 30
_BAD: Final = "bold red"
_DIM: Final = "dim"
# Characters of any text: a client may choose a name of thousands.
_LONGEST: Final = 200
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def console() -> Console:
    """As wide as the terminal; where there is none, wide enough for any row."""
    return Console(
        width=None if sys.stdout.isatty() else 240,
        highlight=False,
        emoji=False,
        markup=False,
        no_color="NO_COLOR" in os.environ,
    )


def attention(found: dict[str, Any]) -> list[str]:
    """What an administrator should look at, a line each."""
    found = _plain(found)
    lines = [
        f"{each['daemon']} does not answer: {each['trouble']}"
        for each in found["backends"]
        if each.get("answers") is False and (each["present"] or each["sessions"])
    ]
    for each in found["certificates"]:
        left = each["days_left"]
        if left is not None and left < EXPIRY_DAYS:
            when = f"ended {-left:.0f} days ago" if left < 0 else f"ends in {left:.0f} days"
            lines.append(f"the {each['role']} certificate {each['subject']} {when}: renew it")
    reload = found["last_reload"]
    if reload is not None and not reload["succeeded"]:
        lines.append(f"the last reload failed: {reload['text']}")
    lines += _shortage(found["limits"])
    if found["log"]["dropped"] or found["log"]["lost"]:
        lines.append(
            "log lines were lost: an output does not keep up or cannot be written, or somebody"
            " makes too many of one kind"
        )
    if found["relay"]["own_errors"]:
        lines.append("sessions ended by errors of proxyd's own: the log has their tracebacks")
    return lines


def _shortage(limits: dict[str, Any]) -> list[str]:
    """That places are short, and who has them. A daemon that is older says less of it."""
    waiting = limits.get("waiting", 0)
    if limits["clients"] < limits["max_clients"] and not waiting:
        return []
    held = ", ".join(
        f"{each['holder']} {each['clients']}" for each in limits.get("most_places", ())
    )
    what = (
        "max_clients is reached, new clients wait: raise it, or see who is connected"
        if limits["clients"] >= limits["max_clients"]
        else f"{waiting} clients wait for others to prove who they are"
    )
    return [f"{what} (most are of {held})" if held else what]


def status_view(found: dict[str, Any]) -> RenderableType:
    """The whole status, as one thing to print."""
    found = _plain(found)
    limits, relay = found["limits"], found["relay"]
    head = Text.assemble(
        (f"proxyd {found['version']}", "bold"),
        f"  {found['state']} for {_span(found['uptime_s'])}, pid {found['pid']}\n"
        f"configuration {found['configuration']}",
    )
    use = Text(
        f"clients {limits['clients']} of {limits['max_clients']},"
        f" unauthenticated {limits['unauthenticated']} of"
        f" {limits['max_unauthenticated'] or 'any number'} by each user or way in,"
        f" administrators {limits['admin_clients']} of {limits['max_admin_clients']}\n"
        f"sessions {relay['sessions']}, calls {relay['calls']}, errors {relay['errors']},"
        f" up {_size(relay['bytes_up'])}, down {_size(relay['bytes_down'])}"
        + (f", {relay['tls_in_kernel']} encrypted by the kernel" if relay["tls_in_kernel"] else "")
    )
    parts: list[RenderableType] = [head, use, _listeners(found), _backends(found)]
    if found["certificates"]:
        parts.append(_certificates(found))
    reload = found["last_reload"]
    if reload is not None:
        ago = _span(time.time() - reload["at"])
        parts.append(
            Text(f"{ago} ago: {reload['text']}", style="" if reload["succeeded"] else _BAD)
        )
    parts += [Text(f"! {line}", style=_BAD) for line in attention(found)]
    return Group(*parts)


def clients_view(clients: list[dict[str, Any]]) -> RenderableType:
    """A row for each."""
    table = _table("ID", "FROM", "WHO", "URI", "DAEMON", "AGE", "IDLE", "CALLS", "UP", "DOWN")
    for column in (0, 5, 6, 7, 8, 9):
        table.columns[column].justify = "right"
        table.columns[column].no_wrap = True
    for each in _plain(clients):
        is_open = each["state"] == "open"
        where = " ".join(filter(None, (each["listener"], each["address"])))
        table.add_row(
            str(each["id"]),
            Text(where + (" (read-only)" if each["readonly"] else "")),
            Text(each["who"]),
            Text(each["uri"] or each["state"]),
            Text(os.path.basename(each["backend"]).removesuffix("-ro").removesuffix("-sock")),
            _span(each["age_s"]),
            _span(each["idle_s"]) if is_open else "",
            str(each["calls"]),
            _size(each["bytes_up"]),
            _size(each["bytes_down"]),
        )
    count = f"{len(clients)} client{'' if len(clients) == 1 else 's'}"
    return Group(table, Text(count, style=_DIM)) if clients else Text("nobody is connected")


def _listeners(found: dict[str, Any]) -> Table:
    table = _table("LISTENER", "ADDRESS", "AUTHENTICATION", "CLIENTS")
    for each in found["listeners"]:
        table.add_row(
            each["name"] + (" (read-only)" if each["readonly"] else ""),
            Text(each["address"]),
            each["authentication"],
            "" if each["clients"] is None else str(each["clients"]),
        )
    return table


def _backends(found: dict[str, Any]) -> Table:
    table = _table("DAEMON", "SOCKET", "SESSIONS", "ANSWERS")
    for each in found["backends"]:
        if "answers" not in each:
            said = Text("not asked" if each["present"] else "no socket", style=_DIM)
        elif each["answers"]:
            said = Text(f"in {each['answered_ms']:.1f} ms")
        else:
            said = Text(each["trouble"], style=_BAD if each["present"] else _DIM)
        table.add_row(each["daemon"], Text(each["socket"]), str(each["sessions"]), said)
    return table


def _certificates(found: dict[str, Any]) -> Table:
    table = _table("CERTIFICATE", "OF", "ENDS")
    for each in found["certificates"]:
        left = each["days_left"]
        if left is None:
            ends = Text("never")
        else:
            date = time.strftime("%Y-%m-%d", time.gmtime(each["expires_at"]))
            ends = Text(f"{date}, in {left:.0f} days", style=_BAD if left < EXPIRY_DAYS else "")
        table.add_row(each["role"], Text(each["subject"]), ends)
    return table


def _plain(found: Any) -> Any:
    """The same with all texts harmless: no control characters, no line ends, none too long."""
    match found:
        case str():
            cut = found[:_LONGEST] + "…" if len(found) > _LONGEST else found
            return one_line(cut)
        case list():
            return [_plain(each) for each in found]
        case dict():
            return {key: _plain(each) for key, each in found.items()}
        case _:
            return found


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")  # on a narrow terminal nothing is cut off
    return table


def _span(seconds: float) -> str:
    """As short as top writes it: 4.2s, 17m03s, 5h12m, 3d04h."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes everything")
