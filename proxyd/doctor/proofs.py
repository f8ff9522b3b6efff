"""What clients prove who they are with, looked at before the first one comes.

Only what the settings or the socket units ask for is looked at: certificates on a host that
listens for no TLS are nobody's trouble.
"""

import datetime as dt
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from proxyd.config.listening import Transport
from proxyd.config.quoting import one_line
from proxyd.config.settings import Settings
from proxyd.doctor.state import PolkitState, SaslState, TlsState
from proxyd.doctor.surroundings import Surroundings
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import PROXY
from proxyd.doctor.ways import Way, way_to

if TYPE_CHECKING:
    from proxyd.auth.certificates import Credentials
    from proxyd.auth.files import CertificateFiles

POLKIT_ACTIONS: Final = ("org.libvirt.unix.manage", "org.libvirt.unix.monitor")

_CA_BELOW_PKI: Final = "/CA/cacert.pem"
_BUS: Final = "/run/dbus/system_bus_socket"
_AUTHORITY: Final = "/org/freedesktop/PolicyKit1/Authority"
_INTERFACE: Final = "org.freedesktop.PolicyKit1.Authority"
_DESTINATION: Final = "org.freedesktop.PolicyKit1"
_ERROR: Final = 3  # a message's type


def listens_by(suffix: str, settings: Settings, units: Mapping[str, Unit]) -> str:
    """Which unit or setting has the proxy listen on the network; "" if none does."""
    unit = units.get(f"{PROXY}{suffix}.socket")
    if unit and unit.wanted:
        return unit.name
    main = units.get(f"{PROXY}.socket")
    if main and main.wanted:  # then the keys do nothing
        return ""
    key = {"-tcp": "listen_tcp", "-tls": "listen_tls"}[suffix]
    return f"{key} = 1" if getattr(settings, key) else ""


def look_at_tls(
    around: Surroundings, settings: Settings, units: Mapping[str, Unit]
) -> TlsState | None:
    """The certificates; None if nobody is to listen for TLS."""
    asked_by = listens_by("-tls", settings, units)
    if not asked_by:
        return None
    from proxyd.auth.certificates import load_credentials  # noqa: PLC0415 (slow to load)
    from proxyd.auth.problems import CertificateError  # noqa: PLC0415

    files = around.certificate_files(settings)
    found = TlsState(
        asked_by=asked_by, problems=(), directory=_directory_of(files), files=tuple(_ways(files))
    )
    try:
        credentials = load_credentials(
            files, now=dt.datetime.now(dt.UTC), check=not settings.tls_no_sanity_certificate
        )
    except CertificateError as error:
        return replace(found, problems=error.problems)
    return replace(found, problems=credentials.warnings, until=_first_end(credentials))


def _ways(files: "CertificateFiles") -> Iterator[Way]:
    public = [files.ca, *([files.crl] if files.crl else []), *(pair[0] for pair in files.pairs)]
    yield from (way_to(path, secret=False) for path in public)
    yield from (way_to(key, secret=True) for _, key in files.pairs)


def _directory_of(files: "CertificateFiles") -> str:
    return files.ca.removesuffix(_CA_BELOW_PKI) if files.ca.endswith(_CA_BELOW_PKI) else ""


def _first_end(credentials: "Credentials") -> str:
    shown = [pair.certificate for pair in credentials.pairs]
    ends = [each.not_valid_after_utc for each in (*shown, *credentials.authorities)]
    return f"{min(ends):%Y-%m-%d}" if ends else ""


def look_at_sasl(
    around: Surroundings, settings: Settings, units: Mapping[str, Unit]
) -> tuple[SaslState, ...]:
    """What each transport that asks for SASL could offer."""
    asking = {
        "auth_unix_ro": Transport.UNIX,
        "auth_unix_rw": Transport.UNIX,
        "auth_tcp": Transport.TCP if listens_by("-tcp", settings, units) else None,
        "auth_tls": Transport.TLS if listens_by("-tls", settings, units) else None,
    }
    transports = {
        transport: f'{key} = "sasl"'
        for key, transport in asking.items()
        if transport is not None and getattr(settings, key) == "sasl"
    }
    return tuple(
        _offered(around, settings, transport, key) for transport, key in transports.items()
    )


def _offered(
    around: Surroundings, settings: Settings, transport: Transport, asked_by: str
) -> SaslState:
    from proxyd.auth.keytab import KeytabError  # noqa: PLC0415 (brings Kerberos' libraries)
    from proxyd.auth.offering import GSSAPI, NothingToOffer, offer  # noqa: PLC0415

    keytab, passwords = around.keytab(settings), around.passwords(settings)
    wanted = settings.proxyd_sasl_mechanisms
    offered: tuple[str, ...] = ()
    trouble = kerberos_missing = ""
    try:
        offered = offer(transport, keytab=keytab, passwords=passwords, wanted=wanted or None).names
    except NothingToOffer as error:
        trouble = str(error)
    if not wanted or GSSAPI in wanted:
        try:
            keytab.principals()
        except KeytabError as error:
            kerberos_missing = str(error)
    return SaslState(
        asked_by=asked_by,
        transport=transport.name,
        offered=offered,
        trouble=trouble,
        kerberos_missing=kerberos_missing,
        keytab=keytab.path or "",
        passwords=transport is not Transport.TCP,
        files=tuple(_secrets(around, settings, transport)),
    )


def _secrets(around: Surroundings, settings: Settings, transport: Transport) -> Iterator[Way]:
    """The files behind the mechanisms that this transport may offer."""
    from proxyd.auth import scram  # noqa: PLC0415 (slow to load)
    from proxyd.auth.offering import GSSAPI  # noqa: PLC0415

    by_password = {
        Transport.TCP: set[str](),
        Transport.TLS: {scram.PLUS, scram.PLAIN},
        Transport.UNIX: {scram.PLAIN},
    }[transport]
    wanted = set(settings.proxyd_sasl_mechanisms) or {GSSAPI, *by_password}
    keytab = around.keytab(settings).path
    if keytab and GSSAPI in wanted:
        yield way_to(keytab, secret=True)
    if wanted & by_password:
        yield way_to(around.passwords(settings).path, secret=True)


def look_at_polkit(settings: Settings, *, deadline_s: float) -> PolkitState | None:
    """Whether polkit answers and knows libvirt's actions; None if it is not asked."""
    keys = [key for key in ("auth_unix_rw", "auth_unix_ro") if getattr(settings, key) == "polkit"]
    if not keys:
        return None
    asked_by = f'{keys[0]} = "polkit"'
    try:
        known = _actions(deadline_s)
    except _NoPolkit as error:
        return PolkitState(asked_by=asked_by, trouble=str(error))
    missing = tuple(action for action in POLKIT_ACTIONS if action not in known)
    return PolkitState(asked_by=asked_by, missing=missing)


class _NoPolkit(Exception):
    """Why it does not answer."""


def _actions(deadline_s: float) -> set[str]:
    """The actions that polkit knows. Raises _NoPolkit."""
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415 (seldom needed)
    from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415

    where = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _BUS
    address = DBusAddress(_AUTHORITY, bus_name=_DESTINATION, interface=_INTERFACE)
    question = new_method_call(address, "EnumerateActions", "s", ("",))
    try:
        with open_dbus_connection("SYSTEM", auth_timeout=deadline_s) as bus:
            answer: Any = bus.send_and_get_reply(question, timeout=deadline_s)
    except TimeoutError as error:
        raise _NoPolkit(f"polkit did not answer within {deadline_s:g} seconds") from error
    except Exception as error:  # jeepney raises whatever it stumbles over
        raise _NoPolkit(f"the system bus at {where} cannot be used: {_reason(error)}") from error
    if answer.header.message_type.value == _ERROR:
        raise _NoPolkit(f"polkit does not answer: {_reason(answer.body)}")
    return {action[0] for action in answer.body[0]}


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, tuple):
        error = error[0] if error else "no reason given"
    return one_line(str(error))
