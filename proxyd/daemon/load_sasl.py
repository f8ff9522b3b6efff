"""From settings to what clients prove themselves with by SASL: `load_offerings`.

Imported only where a listener asks for SASL: Kerberos' libraries take memory that other hosts need
not spend.
"""

import logging
import os
from typing import Final

from proxyd.config.settings import Settings
from proxyd.config.transports import Transport
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.sasl.keytab import Keytab
from proxyd.sasl.mechanisms import NothingToOffer, Offering, offer
from proxyd.sasl.passwords import PasswordFile

_KEYTAB: Final = "/etc/libvirt/krb5.tab"  # libvirt's own, from its sasl2/libvirt.conf

log = logging.getLogger("rpc.netsaslcontext")


def keytab_of(settings: Settings) -> Keytab:
    """The keys that the settings name, unread."""
    # The library looks into this variable by itself.
    default = None if os.environ.get("KRB5_KTNAME") else _KEYTAB
    return Keytab(settings.proxyd_keytab or default)


def passwords_of(settings: Settings, places: Places) -> PasswordFile:
    """The passwords that the settings name, unread."""
    return PasswordFile(settings.proxyd_passwords or places.passwords)


def load_offering(settings: Settings, places: Places, transport: Transport, key: str) -> Offering:
    """What clients of this transport are offered; `key` is the setting that asks for it.

    Raises StartFailed where that would be nothing. Reads files.
    """
    try:
        offering = offer(
            transport,
            keytab=keytab_of(settings),
            passwords=passwords_of(settings, places),
            wanted=settings.proxyd_sasl_mechanisms or None,
        )
    except NothingToOffer as error:
        raise StartFailed(Exit.NETWORK, f'{key} = "sasl": {error}', key=key) from error
    log.info("clients by %s are offered %s", transport.name, ", ".join(offering.names))
    for each in offering.withheld:
        log.info("clients by %s are not offered %s", transport.name, each)
    return offering
