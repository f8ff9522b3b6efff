"""The credentials of a keytab, as libkrb5 makes them. What they are for is told in `keytab`."""

import functools

import gssapi
from gssapi import raw
from gssapi.raw.misc import GSSError

from proxyd.sasl.gssapi_errors import words_of
from proxyd.sasl.keytab import SERVICE, Keytab, KeytabError


def accepting(keytab: Keytab) -> gssapi.Credentials:
    """What to accept clients with. Raises KeytabError."""
    store: dict[bytes | str, bytes | str] | None = None
    if keytab.path is not None:
        store = {"keytab": f"FILE:{keytab.path}"}
    try:
        return gssapi.Credentials(
            usage="accept", name=_service(), store=store, mechs=[gssapi.MechType.kerberos]
        )
    except GSSError as error:
        words = words_of(error)
        if keytab.path is not None:
            keytab.principals()  # knows better what is wrong with the file
        where = keytab.path or "the keytab that libkrb5 takes by itself"
        raise KeytabError(f"{where}: {words}; {keytab.create}") from error


@functools.cache
def _service() -> raw.Name:
    """Every libvirt/… of a keytab.

    For Kerberos' own form of the name, libkrb5 looks up what this host is called, though it makes
    no use of that; therefore once.
    """
    name = gssapi.Name(SERVICE, gssapi.NameType.hostbased_service)
    return name.canonicalize(gssapi.MechType.kerberos)
