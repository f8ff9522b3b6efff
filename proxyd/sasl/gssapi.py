"""The GSSAPI mechanism: clients with a Kerberos ticket for this host's libvirt service.

The exchange, as a client of cyrus-sasl leads it (RFC 4752; docs/protocol/sasl.md, section 5):

    client   AP-REQ token
    server   AP-REP token
    client   nothing
    server   wrapped: the layers that we offer, and the longest token that we take
    client   wrapped: the layer that it chooses, the longest token that it takes, and whom it
             wants to act as, which must be nobody or itself
    server   done

On plain TCP only the layer that encrypts is offered; elsewhere, where the transport does what is
needed, only none at all.
"""

import datetime as dt
import functools
import re
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

import gssapi
from gssapi import raw
from gssapi.raw.misc import GSSError
from gssapi.raw.types import RequirementFlag

from proxyd.config.mechanisms import GSSAPI
from proxyd.config.quoting import excerpt
from proxyd.sasl.gssapi_errors import hint_for, words_of
from proxyd.sasl.keytab import SERVICE, Keytab, KeytabError
from proxyd.sasl.mechanism import LARGEST_MESSAGE, BadToken, Challenge, LoginRefused, Success
from proxyd.wire.state import State, content, taken, whole, words

# The functions under the methods of the same name, which cost a small token as much again: measured
# 151 µs of proxyd's CPU for a call with the methods, 97 with these.
_wrap: Final = raw.wrap
_unwrap: Final = raw.unwrap

_NO_LAYER: Final = 1
_INTEGRITY: Final = 2
_CONFIDENTIALITY: Final = 4
_SIZES: Final = struct.Struct(">I")  # a byte of layers and the three of a size
_LARGEST_SIZE: Final = 0xFFFFFF
# Into a smaller buffer goes hardly more than the token's own overhead.
_LEAST_PLAIN: Final = 512

_SSF_ATTRIBUTE: Final = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2.5.15")
_SSF_UNKNOWN: Final = 56  # cyrus assumes single DES where the library does not tell

# Of a context that moves. Some 500 bytes are libkrb5's; the rest is what the ticket says of its
# owner, which a realm's directory may make 64 KiB of.
_LONGEST_CONTEXT: Final = 1 << 20
_LAYER_FIELDS: Final = {
    "context": content(_LONGEST_CONTEXT, 1),
    "digest": content(32, 32),
    "library": words(64),
    "longest_plain": whole(LARGEST_MESSAGE, _LEAST_PLAIN),
}
# Device and inode of the file that is mapped; what replaces it is another one.
_LIBRARY: Final = re.compile(r"^\S+ \S+ \S+ (\S+) (\d+) +/\S*/libkrb5\.so", re.MULTILINE)

_LONGEST_PRINCIPAL: Final = 1024
_NEEDED: Final = {
    RequirementFlag.mutual_authentication: "mutual authentication",
    RequirementFlag.integrity: "integrity",
    RequirementFlag.out_of_sequence_detection: "the detection of tokens out of sequence",
}
_NEEDED_TO_ENCRYPT: Final = {RequirementFlag.confidentiality: "confidentiality"}


class GssapiServer:
    """One attempt by GSSAPI. `confidentiality`: with the layer that encrypts, else with none."""

    def __init__(self, keytab: Keytab, *, confidentiality: bool) -> None:
        self._keytab = keytab
        self._layers = _CONFIDENTIALITY if confidentiality else _NO_LAYER
        self._turn: Callable[[bytes | None], Challenge | Success] = self._accept
        self._context: gssapi.SecurityContext
        self._principal = ""
        self._username = ""
        self._expires: dt.datetime | None = None

    @property
    def name(self) -> str:
        return GSSAPI

    def start(self, data: bytes | None) -> Challenge | Success:
        if data is None:
            return Challenge(b"")  # the client's token comes first, be it in its own message
        return self.step(data)

    def step(self, data: bytes | None) -> Challenge | Success:
        # Whatever is not answered by a challenge was the last turn.
        turn, self._turn = self._turn, _over
        return turn(data)

    def _accept(self, data: bytes | None) -> Challenge:
        if not data:
            raise LoginRefused("the client sent no token")
        try:
            # What the client delegates to us, nobody keeps: it is gone when this returns.
            accepted = raw.accept_sec_context(data, self._keytab.credentials())
            if accepted.more_steps or accepted.mech != gssapi.MechType.kerberos:
                raise LoginRefused("the client wants another exchange than RFC 4752 has")
            about = raw.inquire_context(accepted.context)
            service = _spelled(about.target_name)
            self._principal = _spelled(accepted.initiator_name)
            self._username = _username(accepted.initiator_name, self._principal)
        except KeytabError as error:
            reason = f"without a key nobody can come in: {error}"
            raise LoginRefused(reason, ours=True) from error
        except GSSError as error:
            hint = hint_for(error, create=self._keytab.create, export=self._keytab.export)
            raise LoginRefused(words_of(error), hint=hint) from error
        if not service.startswith(f"{SERVICE}/"):
            raise self._refused(f"the ticket is for {excerpt(service)}, not for libvirt")
        self._check_flags(int(accepted.flags))
        if accepted.lifetime is not None:
            now = dt.datetime.now(dt.UTC)
            self._expires = now + dt.timedelta(seconds=accepted.lifetime)
        self._context = gssapi.SecurityContext(accepted.context)
        self._turn = self._offer
        return Challenge(accepted.token, vouched=True)

    def _check_flags(self, flags: int) -> None:
        encrypts = self._layers == _CONFIDENTIALITY
        needed = _NEEDED | _NEEDED_TO_ENCRYPT if encrypts else _NEEDED
        missing = [text for flag, text in needed.items() if not flags & flag]
        if missing:
            raise self._refused(f"the client did without {', '.join(missing)}")
        # RFC 8062: whoever asks may be WELLKNOWN/ANONYMOUS.
        if flags & RequirementFlag.anonymity or self._principal.startswith("WELLKNOWN/"):
            raise self._refused("the client is anonymous")

    def _offer(self, data: bytes | None) -> Challenge:
        if data:
            raise self._refused("the client sent more after its ticket was accepted")
        size = LARGEST_MESSAGE if self._layers == _CONFIDENTIALITY else 0
        try:
            wrapped = self._context.wrap(_SIZES.pack(self._layers << 24 | size), encrypt=False)
        except GSSError as error:
            raise self._refused(words_of(error)) from error
        self._turn = self._choose
        return Challenge(wrapped.message, vouched=True)

    def _choose(self, data: bytes | None) -> Success:
        try:
            chosen = self._context.unwrap(data or b"").message
        except GSSError as error:
            raise self._refused(f"the client's choice of a layer: {words_of(error)}") from error
        if len(chosen) < _SIZES.size:
            raise self._refused("the client's choice of a layer is cut off")
        self._check_identity(chosen[_SIZES.size :])
        word = _SIZES.unpack_from(chosen)[0]
        layer, size = word >> 24, word & _LARGEST_SIZE
        if self._layers == _CONFIDENTIALITY:
            # Some clients name every layer that they could live with.
            if layer & ~_INTEGRITY != _CONFIDENTIALITY:
                raise self._refused(f"the client chose layer {layer}, which does not encrypt")
            return self._succeeded(_Encrypting(self._context, self._longest_plain(size)))
        if layer != _NO_LAYER:
            raise self._refused(f"the client chose layer {layer}, and none was offered")
        return self._succeeded(None)

    def _check_identity(self, authzid: bytes) -> None:
        if authzid and authzid != self._username.encode():
            raise self._refused("the client wants to act as somebody else")

    def _longest_plain(self, size: int) -> int:
        try:
            plain = self._context.get_wrap_size_limit(min(size, LARGEST_MESSAGE))
        except GSSError as error:
            raise self._refused(words_of(error)) from error
        if plain < _LEAST_PLAIN:
            raise self._refused(f"the client takes tokens of at most {size} bytes, too small")
        return plain

    def _succeeded(self, layer: "_Encrypting | None") -> Success:
        return Success(
            username=self._username,
            ssf=_ssf(self._context) if layer else 0,
            data=None,
            layer=layer,
            detail=self._principal,
            expires=self._expires,
        )

    def _refused(self, reason: str) -> LoginRefused:
        return LoginRefused(reason, username=self._principal)


class _Encrypting:
    """The layer in which every token is encrypted, and comes exactly once and in its order.

    Its `state` takes the context out of this process, keys and numbers of tokens included: nobody
    wraps or unwraps here from then on, but for `go_on`.
    """

    def __init__(self, context: gssapi.SecurityContext, longest_plain: int) -> None:
        self._context = context
        self._exported = b""
        self.longest_token = LARGEST_MESSAGE
        self.longest_plain = longest_plain

    def wrap(self, plain: bytes) -> bytes:
        try:
            wrapped = _wrap(self._context, plain, True)
        except GSSError as error:
            raise BadToken(words_of(error)) from error
        if not wrapped.encrypted:
            raise BadToken("the library did not encrypt")
        return wrapped.message

    def unwrap(self, token: bytes) -> bytes:
        if len(token) > self.longest_token:
            raise BadToken(f"a token of {len(token)} bytes")
        try:
            # A token that is sound but was here before, or is not the next one, raises as well.
            unwrapped = _unwrap(self._context, token)
        except GSSError as error:
            raise BadToken(words_of(error)) from error
        if not unwrapped.encrypted:
            raise BadToken("a token that is not encrypted")
        return unwrapped.message

    def state(self) -> State:
        if not self._exported:
            try:
                self._exported = raw.export_sec_context(self._context)
            except GSSError as error:
                raise ValueError(f"the security context: {words_of(error)}") from error
        context = self._exported
        return {
            "context": context,
            "digest": sha256(context).digest(),
            "library": _library(),
            "longest_plain": self.longest_plain,
        }

    def go_on(self) -> None:
        if self._exported:
            self._context, self._exported = _imported(self._exported), b""


def layer_from(state: State) -> _Encrypting:
    """Goes on where another one stood, which is not used any more. Raises ValueError."""
    found = taken(state, _LAYER_FIELDS)
    # libkrb5 trusts what it has exported: one byte that is damaged crashes 1.20.
    if sha256(found["context"]).digest() != found["digest"]:
        raise ValueError("context: it is damaged")
    if found["library"] != _library():
        raise ValueError("context: it is of another libkrb5, which was replaced meanwhile")
    return _Encrypting(_imported(found["context"]), found["longest_plain"])


@functools.cache
def _library() -> str:
    """Which libkrb5 this process has: a context is in a form of its own, which it trusts."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return ""
    found = _LIBRARY.search(maps)
    return " ".join(found.groups()) if found else ""


def _imported(exported: bytes) -> gssapi.SecurityContext:
    try:
        return gssapi.SecurityContext(raw.import_sec_context(exported))
    except GSSError as error:
        raise ValueError(f"the security context: {words_of(error)}") from error


def _over(_data: bytes | None) -> Challenge | Success:
    raise AssertionError("this attempt has ended")


def _spelled(name: raw.Name | None) -> str:
    """A principal in full. Refuses what no principal of a sane realm looks like."""
    try:
        text = raw.display_name(name, name_type=False).name.decode() if name else ""
    except UnicodeDecodeError:
        text = ""
    if not (text and text.isprintable() and len(text) <= _LONGEST_PRINCIPAL):
        raise LoginRefused("the name in the ticket is no readable one")
    return text


def _username(name: raw.Name | None, principal: str) -> str:
    """The name that policy sees: without the realm if that is the default one, as with cyrus."""
    without_realm = principal.partition("@")[0]
    try:
        short = gssapi.Name(without_realm, gssapi.NameType.user)
        same = name is not None and raw.compare_name(
            name, short.canonicalize(gssapi.MechType.kerberos)
        )
    except GSSError:  # so it is none without its realm
        return principal
    return without_realm if same else principal


def _ssf(context: gssapi.SecurityContext) -> int:
    try:
        values = raw.inquire_sec_context_by_oid(context, _SSF_ATTRIBUTE)
        return int(struct.unpack(">I", values[0])[0])
    except (GSSError, IndexError, struct.error):
        return _SSF_UNKNOWN
