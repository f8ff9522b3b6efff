"""What GSSAPI and libkrb5 say when something fails, and what mends it."""

from typing import Final

from gssapi.raw.misc import GSSError

from proxyd.config.quoting import one_line, shortened

# Major status of an error that only the minor one explains.
_UNSPECIFIED: Final = 13 << 16
_LONGEST_TEXT: Final = 250  # the name in a ticket, which anybody can make up, may have 64 KiB
_EMPTY_TEXTS: Final = frozenset({"", "Success", "Unknown error"})

# libkrb5's numbers, as GSSAPI shows them: a table of errors of the host, up to 255, and its own.
_LAST_ERRNO: Final = 255
_PROTOCOL_ERRORS: Final = (1 << 32) - 1765328384  # RFC 4120's numbers count from here
_HINTS: Final = {
    31: "the keytab's key is not the KDC's: {export}",
    32: "the client needs a new ticket: kinit",
    33: "the ticket is for later, or a clock is wrong: compare those of client, KDC and this host",
    34: "nothing to do if it was once; often it means that somebody sends what others sent before",
    35: "the client asked for a host name that has no key here: {create}",
    37: "the clocks of client and this host are too far apart: let both follow NTP",
    44: "the keytab is older than the key at the KDC: {export}, and let the client get new tickets",
    45: "the keytab has no key for this ticket: {export}",
}
_REPLAYS: Final = (
    "libkrb5 notes every ticket's use in a file below /var/tmp (default_rcache_name in krb5.conf"
    " names another): it must be able to write there"
)


def words_of(error: GSSError) -> str:
    """What the library says, without what says nothing."""
    texts = error.get_all_statuses(error.min_code, False)
    if error.maj_code != _UNSPECIFIED or _EMPTY_TEXTS.issuperset(texts):
        texts = [*error.get_all_statuses(error.maj_code, True), *texts]
    said = [
        one_line(shortened(text, _LONGEST_TEXT))
        for text in dict.fromkeys(texts)
        if text not in _EMPTY_TEXTS
    ]
    return ": ".join(said) or f"GSS error {error.maj_code}"


def hint_for(error: GSSError, *, create: str, export: str) -> str:
    """What the administrator can do when a client was not accepted; "" if that is unknown.

    `create` and `export` are the commands that make a key and write it into the keytab.
    """
    if 0 < error.min_code <= _LAST_ERRNO:
        return _REPLAYS
    text = _HINTS.get(error.min_code - _PROTOCOL_ERRORS, "")
    return text.format(create=create, export=export)
