"""What SASL could offer on each transport that asks for it, and what keeps it from more."""

import shlex
from collections.abc import Iterator, Mapping
from itertools import chain

from proxyd.config.mechanisms import Need, needs_of
from proxyd.config.settings import Settings
from proxyd.config.transports import Transport
from proxyd.doctor.files import in_the_way, way_to
from proxyd.doctor.findings import RELOAD, Finding, error, fine, note, sentence
from proxyd.doctor.state import HostState, SaslState, Way
from proxyd.doctor.surroundings import Surroundings
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.units import listens_by


def look_at_sasl(
    around: Surroundings, settings: Settings, units: Mapping[str, Unit]
) -> tuple[SaslState, ...]:
    """What each transport that asks for SASL could offer."""
    found = []
    for transport in Transport:
        traits = transport.traits
        listens = not traits.by_network or listens_by(transport, settings, units)
        asking = [key for key in traits.auth if getattr(settings, key) == "sasl"]
        if listens and asking:
            found.append(_offered(around, settings, transport, f'{asking[0]} = "sasl"'))
    return tuple(found)


def _offered(
    around: Surroundings, settings: Settings, transport: Transport, asked_by: str
) -> SaslState:
    from proxyd.sasl.keytab import KerberosMissing, KeytabError  # noqa: PLC0415 (brings Kerberos' libraries)
    from proxyd.sasl.mechanisms import NothingToOffer, offer  # noqa: PLC0415

    keytab, passwords = around.keytab(settings), around.passwords(settings)
    wanted = settings.proxyd_sasl_mechanisms
    offered: tuple[str, ...] = ()
    trouble = kerberos_missing = ""
    library: tuple[str, ...] = ()
    try:
        offered = offer(transport, keytab=keytab, passwords=passwords, wanted=wanted or None).names
    except NothingToOffer as error:
        trouble = str(error)
    if Need.KEYTAB in needs_of(transport, wanted):
        try:
            keytab.demand_library()
            keytab.principals()
        except KeytabError as error:
            kerberos_missing = str(error)
            library = error.remedy if isinstance(error, KerberosMissing) else ()
    return SaslState(
        asked_by=asked_by,
        transport=transport.name,
        offered=offered,
        trouble=trouble,
        kerberos_missing=kerberos_missing,
        kerberos_library=library,
        keytab=keytab.path or "",
        passwords=Need.PASSWORDS in needs_of(transport, ()),
        files=tuple(_secrets(around, settings, transport)),
    )


def _secrets(around: Surroundings, settings: Settings, transport: Transport) -> Iterator[Way]:
    """The files behind the mechanisms that this transport may offer."""
    needs = needs_of(transport, settings.proxyd_sasl_mechanisms)
    keytab = around.keytab(settings).path
    if keytab and Need.KEYTAB in needs:
        yield way_to(keytab, secret=True)
    if Need.PASSWORDS in needs:
        yield way_to(around.passwords(settings).path, secret=True)


def judge(state: HostState) -> Iterator[Finding]:
    """What can be said of each transport."""
    return chain.from_iterable(_of_transport(state, each) for each in state.sasl)


def _of_transport(state: HostState, sasl: SaslState) -> Iterator[Finding]:
    if not sasl.trouble:
        if not in_the_way(state, sasl.files):
            names = ", ".join(sasl.offered)
            yield fine("sasl", f"Clients by {sasl.transport} are offered {names}.")
        if sasl.kerberos_missing:
            yield note(
                "no-kerberos",
                f"Kerberos is not offered by {sasl.transport}: {sasl.kerberos_missing}.",
                "Where it is not wanted, proxyd_sasl_mechanisms says so and ends this note.",
                _new_key(sasl),
            )
        return
    fix = _new_key(sasl) if sasl.kerberos_missing else []
    if sasl.passwords:
        fix.append("# for users with a password: proxyd passwd NAME")
    say = error if state.as_root else note
    yield say(
        "sasl",
        sentence(f"{sasl.asked_by}: {sasl.trouble}"),
        "Until then nobody is let in this way.",
        fix,
    )


def _new_key(sasl: SaslState) -> list[str]:
    if sasl.kerberos_library:
        return [*sasl.kerberos_library, RELOAD]
    keytab = f" -k {shlex.quote(sasl.keytab)}" if sasl.keytab else ""
    return [
        "# as an administrator of the realm",
        'kadmin -q "addprinc -randkey libvirt/$(hostname -f)"',
        f'kadmin -q "ktadd{keytab} libvirt/$(hostname -f)"',
    ]
