"""The way in by GSSAPI, of which the library is an extra of the package.

Source: docs/protocol/sasl.md, section 5; RFC 4752.
"""

from typing import Final

import gssapi
from gssapi import raw
from gssapi.raw.misc import GSSError

from proxyd.wire.programs import Remote
from proxyd.wire.remote import SaslReply, SaslStart, pack_sasl_step, unpack_sasl_mechanisms

from .connecting import Channel
from .entrance import GSSAPI, Calls, token
from .failures import NotAgreed
from .kerberos import context_for, words_of
from .sasl import MAX_TOKEN, SaslChannel
from .tickets import Tickets

_ENCRYPTS: Final = 4  # the bit of the layer with confidentiality
_OFFER_SIZE: Final = 4  # a byte of layers and three of the longest token
# Into a smaller token goes hardly more than its own overhead.
_LEAST_PLAIN: Final = 512


def by_gssapi(channel: Channel, tickets: Tickets, host: str) -> Calls:
    """SASL from INIT to its end. Raises NotAgreed, and MalformedFrame as `way_in` expects it."""
    try:
        return (yield from _by_context(channel, context_for(tickets, host)))
    except GSSError as error:
        raise NotAgreed(words_of(error)) from error


def _by_context(channel: Channel, context: gssapi.SecurityContext) -> Calls:
    mechanisms = unpack_sasl_mechanisms((yield Remote.AUTH_SASL_INIT, b""))
    if GSSAPI not in mechanisms:
        offered = ", ".join(mechanisms) or "nothing"
        raise NotAgreed(f"the server offers {offered}; it needs a keytab to offer GSSAPI")
    begun = SaslStart(GSSAPI, context.step())
    context.step(token((yield Remote.AUTH_SASL_START, begun.pack())))
    if not context.complete:
        raise NotAgreed("the server wants another exchange than RFC 4752 has")
    offer = raw.unwrap(context, token((yield Remote.AUTH_SASL_STEP, pack_sasl_step(None))))
    longest = _longest_plain(context, offer.message)
    chosen = bytes([_ENCRYPTS]) + MAX_TOKEN.to_bytes(_OFFER_SIZE - 1, "big")
    last = pack_sasl_step(raw.wrap(context, chosen, False).message)
    if not SaslReply.unpack((yield Remote.AUTH_SASL_STEP, last)).complete:
        raise NotAgreed("the server wants more where the exchange of RFC 4752 ends")
    return SaslChannel(channel, context, longest)


def _longest_plain(context: gssapi.SecurityContext, offer: bytes) -> int:
    """How much goes into one token, of those that the server takes."""
    if len(offer) != _OFFER_SIZE or not offer[0] & _ENCRYPTS:
        raise NotAgreed("the server offers no encryption, which libvirt's clients want on TCP")
    size = int.from_bytes(offer[1:], "big")
    longest = raw.wrap_size_limit(context, min(size, MAX_TOKEN))
    if longest < _LEAST_PLAIN:
        raise NotAgreed(f"the server takes tokens of at most {size} bytes, which is too small")
    return longest
