"""From settings to what clients prove themselves with by SASL: `load_offerings`.

Imported only where a listener asks for SASL: Kerberos' libraries take memory that other hosts need
not spend.
"""

import logging
import os
from collections.abc import Mapping
from typing import Final

from proxyd.auth.keytab import Keytab
from proxyd.auth.offering import NothingToOffer, Offering, offer
from proxyd.auth.passwords import PasswordFile
from proxyd.config.listening import Transport
from proxyd.config.settings import Settings
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.places import Places

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


def load_offerings(
    settings: Settings, places: Places, transports: Mapping[Transport, str]
) -> dict[Transport, Offering]:
    """What each of these transports offers; the values name the settings that ask for it.

    Raises StartFailed where that would be nothing. Reads files.
    """
    keytab, passwords = keytab_of(settings), passwords_of(settings, places)
    found = {}
    for transport, key in transports.items():
        try:
            offering = offer(
                transport,
                keytab=keytab,
                passwords=passwords,
                wanted=settings.proxyd_sasl_mechanisms or None,
            )
        except NothingToOffer as error:
            raise StartFailed(Exit.NETWORK, f'{key} = "sasl": {error}') from error
        log.info("clients by %s are offered %s", transport.name, ", ".join(offering.names))
        for each in offering.withheld:
            log.info("clients by %s are not offered %s", transport.name, each)
        found[transport] = offering
    return found
