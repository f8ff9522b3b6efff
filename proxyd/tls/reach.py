"""Whom our identities serve under a tls_priority, tried out: `problems_of_reach`.

An identity that no client at all can use is fatal, unless tls_priority has taken away its
signatures and others are left: that is how post-quantum identities are switched off. What keeps
libvirt's clients out is a warning, judged over all identities, since each client is shown the first
that suits it. What tls_priority gives up is said here as well, and both hold for a start, a reload
and whoever checks the files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from proxyd.config.concessions import concessions
from proxyd.config.priority import TlsPolicy, TlsVersion
from proxyd.config.quoting import excerpt
from proxyd.config.settings import Settings
from proxyd.pki.content import key_kind, naming, public_key
from proxyd.pki.files import KeyPair
from proxyd.pki.problems import ISSUE, Problem, fatal, warning
from proxyd.tls.terms import NUMBERS, makes_of
from proxyd.tls.trial import LIBVIRT, WIDEST, Offer, Outcome, objection_of_gnutls, tried

_SPELLED: Final = {TlsVersion.TLS1_2: "TLS 1.2", TlsVersion.TLS1_3: "TLS 1.3"}
_NO_SIGNATURE: Final = "no suitable signature algorithm"  # OpenSSL's words
_CURVES: Final = ("P-256", "P-384", "P-521")
_LONGEST_PRIORITY: Final = 200
_REMEDY: Final = f"{ISSUE}, with a key of another kind, or change tls_priority"
_USUAL: Final = "libvirt's clients with usual settings (GnuTLS's NORMAL)"


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """One of our certificates, and what connections are made with that are shown it."""

    pair: KeyPair
    context: SSL.Context


def problems_of_reach(
    identities: Sequence[Identity], policy: TlsPolicy, priority: str | None
) -> list[Problem]:
    """What is wrong or to be known. `priority` is what the policy was made of."""
    refusals = {
        each: outcome.refusal
        for each in identities
        if not (outcome := tried(each.context, WIDEST)).version
    }
    some_serve = len(refusals) < len(identities)
    found = [
        _of_switched_off(each.pair, priority)
        if some_serve and (_NO_SIGNATURE in reason or _is_switched_off(each.pair, policy))
        else _of_useless(each.pair, policy, priority, reason)
        for each, reason in refusals.items()
    ]
    if not any(each.fatal for each in found):
        found += _of_left_out(identities, policy, priority)
    return [*found, *of_concessions(policy, priority)]


def of_concessions(policy: TlsPolicy, priority: str | None) -> Iterator[Problem]:
    """What tls_priority gives up, as warnings."""
    for text, word in concessions(policy):
        yield warning(_spelled(priority), text, f"add {word} unless clients need it")


def of_no_verification(settings: Settings) -> Iterator[Problem]:
    """What tls_no_verify_certificate gives up, as a warning."""
    if not settings.tls_no_verify_certificate:
        return
    asks_sasl = settings.auth_tls == "sasl"
    text = "TLS clients may come with any certificate or none"
    if not asks_sasl:
        text += ", and nothing else is asked of them: whoever reaches the port owns this host"
    if settings.tls_allowed_dn_list is not None:
        text += "; tls_allowed_dn_list does nothing"
    fix = "leave it out" if asks_sasl else 'leave it out, or set auth_tls = "sasl"'
    yield warning("tls_no_verify_certificate = 1", text, fix)


def of_loading(pair: KeyPair, priority: str | None, reason: str) -> Problem:
    """OpenSSL has not even taken this identity."""
    text = f"OpenSSL refuses {naming(pair.certificate)} under {_spelled(priority)}: {reason}"
    return fatal(pair.certificate_file, text, _REMEDY)


def _of_switched_off(pair: KeyPair, priority: str | None) -> Problem:
    kind = key_kind(public_key(pair.certificate))
    text = f"no client is shown it: {_spelled(priority)} has no signatures of its {kind} key"
    return warning(pair.certificate_file, text, "take it away as well, or change tls_priority")


def of_lacking(priority: str | None, text: str) -> Problem:
    """OpenSSL has not what tls_priority asks for."""
    return fatal(_spelled(priority), text, "take it out")


def _of_useless(pair: KeyPair, policy: TlsPolicy, priority: str | None, reason: str) -> Problem:
    kind = key_kind(public_key(pair.certificate))
    signatures = "it has no signatures of such keys" if _is_switched_off(pair, policy) else ""
    why = "; ".join(filter(None, [signatures, _why(kind, policy)]))
    text = (
        f"no client can use its {kind} key with {_spelled(priority)}"
        f" ({reason}{': ' if why else ''}{why})"
    )
    return fatal(pair.certificate_file, text, _REMEDY)


def _is_switched_off(pair: KeyPair, policy: TlsPolicy) -> bool:
    """Whether the policy has taken away all signatures that this key can make.

    OpenSSL's own reason does not tell: of EC keys it is "no shared cipher" in TLS 1.2, and
    "unsupported protocol" in TLS 1.3.
    """

    def made(allowed: Sequence[str]) -> bool:
        makes = makes_of(pair.certificate, allowed)
        return any(makes[each] for each in TlsVersion if policy.lowest <= each <= policy.highest)

    return made(tuple(NUMBERS)) and not made(policy.signatures.split(":"))


def _why(kind: str, policy: TlsPolicy) -> str:
    """What OpenSSL's reason means here; "" where that is not clear."""
    in_tls_1_3 = policy.highest >= TlsVersion.TLS1_3
    if kind.startswith("ML-DSA"):
        return "" if in_tls_1_3 else "such keys are for TLS 1.3"
    exchanges = ("ECDHE-RSA-", "DHE-RSA-", "AES") if kind.startswith("RSA") else ("ECDHE-ECDSA-",)
    if not in_tls_1_3 and not any(each.startswith(exchanges) for each in policy.ciphers.split(":")):
        return f"TLS 1.2 lacks a key exchange for it, such as +{exchanges[0].rstrip('-')}"
    if kind.startswith(("RSA", "Ed", *_CURVES)):
        return ""
    return f"TLS has no use for this curve, but for {', '.join(_CURVES)}"


def _of_left_out(
    identities: Sequence[Identity], policy: TlsPolicy, priority: str | None
) -> list[Problem]:
    """Who is not served by any of them."""
    reason, whose = _objection(identities, None)
    if reason:
        kinds = ", ".join(key_kind(public_key(each.pair.certificate)) for each in identities)
        text = (
            f"{_USUAL} are left out: they cannot use {kinds} under {_spelled(priority)} ({reason})"
        )
        fix = "add an identity for them (servercert0.pem), or change tls_priority"
        return [warning(whose.pair.certificate_file, text, fix)]
    found = []
    if policy.lowest < policy.highest:
        for version in TlsVersion:
            reason, whose = _objection(identities, version)
            if reason:
                text = (
                    f"clients that speak {_SPELLED[version]} alone are left out under"
                    f" {_spelled(priority)} ({reason})"
                )
                fix = "add an identity for them (servercert0.pem), or change tls_priority"
                found.append(warning(whose.pair.certificate_file, text, fix))
    return found


def _objection(
    identities: Sequence[Identity], only: TlsVersion | None, offer: Offer = LIBVIRT
) -> tuple[str, Identity]:
    """Why such a client is not served, "" if it is, and by whose fault.

    It gets the first identity that suits both OpenSSLs, as in the endpoint.
    """
    refusal = ""
    for each in identities:
        outcome: Outcome = tried(each.context, offer, only=only)
        if outcome.version:
            return objection_of_gnutls(each.pair.certificate, each.pair.chain, outcome), each
        refusal = refusal or outcome.refusal
    return refusal, identities[0]


def _spelled(priority: str | None) -> str:
    if not priority:
        return "the default tls_priority"
    return f"tls_priority = {excerpt(priority, _LONGEST_PRIORITY)}"
