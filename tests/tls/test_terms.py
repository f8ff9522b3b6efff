"""What was agreed on, held against what a client of OpenSSL's sees on the wire."""

import pytest
from OpenSSL import SSL

from proxyd.config.priority import parse_priority
from proxyd.negotiation.terms import NONE, UNKNOWN
from proxyd.tls.offers import limit_offers
from proxyd.tls.terms import NUMBERS, makes_of, terms_of
from tests.fakes.handshake import Client, meet, put_key, self_signed

TLS_1_2, TLS_1_3 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
NAMES = {number: name for name, number in NUMBERS.items()}
KINDS = ["rsa:2048", "ec:p256", "ec:p384", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]
PQ = "mldsa44:mldsa65:mldsa87:"
OFFERS = [
    "",
    f"{PQ}rsa_pss_rsae_sha512:rsa_pkcs1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp256r1_sha256:ed25519",
    f"{PQ}rsa_pkcs1_sha512:rsa_pss_rsae_sha384:ecdsa_secp521r1_sha512:ecdsa_secp384r1_sha384:ed25519",
    "rsa_pkcs1_sha384:ecdsa_secp384r1_sha384",
]
PRIORITIES = ["NORMAL", "NORMAL:-SIGN-RSA-PSS-RSAE-SHA256:-SIGN-ECDSA-SHA256", "SECURE256"]


def agreed(text, kind, client, *, seen=True):
    """The terms as the server works them out; None where there is no handshake."""
    policy = parse_priority(text)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_min_proto_version(policy.lowest)
    context.set_max_proto_version(policy.highest)
    context.set_cipher_list(policy.ciphers.encode())
    context.set_tls13_ciphersuites(policy.suites.encode())
    limit_offers(context, policy)
    try:
        for each in kind.split("+"):
            put_key(context, *self_signed(each))
        ours, _ = meet(context, client)
    except SSL.Error:
        return None
    numbers = [NUMBERS[name] for name in client.signatures.split(":")] if client.signatures else []
    # Without a list of its own OpenSSL's client offers all.
    offered = numbers or list(NUMBERS.values())
    certificate = ours.get_certificate().to_cryptography()
    makes = makes_of(certificate, policy.signatures.split(":"))
    return terms_of(ours, makes, offered if seen else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("text", PRIORITIES)
def test_the_signature_is_the_one_on_the_wire(kind, offer, text):
    met = []
    for version in (TLS_1_2, TLS_1_3):
        client = Client(version=version, signatures=offer)
        terms = agreed(text, kind, client)
        if terms is not None:
            assert terms.signature == NAMES[client.signature]
            met.append(version)
    assert met or offer or text != "NORMAL"


@pytest.mark.parametrize("kind", ["rsa:2048+ec:p256+ml-dsa-65", "ed25519+rsa:2048"])
@pytest.mark.parametrize("offer", OFFERS)
def test_of_several_keys_it_is_that_of_the_one_that_was_shown(kind, offer):
    for version in (TLS_1_2, TLS_1_3):
        client = Client(version=version, signatures=offer)
        terms = agreed(None, kind, client)
        assert terms is None or terms.signature == NAMES[client.signature]


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_offer_was_not_seen_what_depends_on_it_is_unknown(kind):
    client = Client(version=TLS_1_3)
    terms = agreed(None, kind, client, seen=False)
    expected = UNKNOWN if kind == "rsa:2048" else NAMES[client.signature]
    assert terms.signature == expected


def test_all_four_have_their_usual_names():
    terms = agreed(None, "ec:p256", Client())
    assert str(terms) == ("TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768 ecdsa_secp256r1_sha256")
    terms = agreed(None, "rsa:2048", Client(version=TLS_1_2, groups="secp384r1"))
    assert str(terms) == ("TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384 secp384r1 rsa_pss_rsae_sha256")
    terms = agreed("LEGACY", "rsa:2048", Client(version=TLS_1_2, ciphers="AES256-SHA"))
    assert str(terms) == f"TLSv1.2 AES256-SHA {NONE} {NONE}"
    terms = agreed(None, "rsa:2048", Client(version=TLS_1_2, ciphers="DHE"))
    assert terms.group == "ffdhe2048"
