"""Groups and signatures of a priority string, as handshakes show them."""

from types import SimpleNamespace

import pytest
from OpenSSL import SSL
from OpenSSL._util import lib

from proxyd.config.priority import parse_priority
from proxyd.config.priority_words import GROUPS, SIGNATURES, Family, Signer
from proxyd.tls.offers import Lacking, limit_offers
from tests.fakes.handshake import Client, group_of, put_key, self_signed
from tests.tls.meeting import WITHOUT_POST_QUANTUM

TLS_1_2, TLS_1_3 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
HYBRID = [group.name for group in GROUPS.values() if group.family is Family.HYBRID]
# Which key makes which signature in TLS 1.3.
KEYS = {
    "SIGN-ML-DSA-44": "ml-dsa-44",
    "SIGN-ML-DSA-65": "ml-dsa-65",
    "SIGN-ML-DSA-87": "ml-dsa-87",
    "SIGN-ECDSA-SECP256R1-SHA256": "ec:p256",
    "SIGN-ECDSA-SECP384R1-SHA384": "ec:p384",
    "SIGN-EDDSA-ED25519": "ed25519",
    "SIGN-RSA-PSS-RSAE-SHA256": "rsa:2048",
    "SIGN-RSA-PSS-RSAE-SHA384": "rsa:2048",
    "SIGN-RSA-PSS-RSAE-SHA512": "rsa:2048",
}


def server(text=None, kind="ec:p256"):
    policy = parse_priority(text)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_min_proto_version(policy.lowest)
    context.set_max_proto_version(policy.highest)
    context.set_cipher_list(policy.ciphers.encode())
    context.set_tls13_ciphersuites(policy.suites.encode())
    limit_offers(context, policy)
    put_key(context, *self_signed(kind))
    return context


@pytest.mark.parametrize("group", HYBRID)
@pytest.mark.parametrize("kind", ["ec:p256", "ml-dsa-65"])
def test_a_hybrid_group_is_taken_without_being_asked_for(group, kind):
    context = server(kind=kind)
    assert group_of(context, Client(groups=group)).upper() == group.upper()
    # Also when the client has brought a share of the classical one alone and names both.
    assert group_of(context, Client(groups=f"*X25519/{group}")).upper() == group.upper()


def test_two_openssls_without_any_setting_agree_on_a_hybrid_group():
    assert group_of(server(), Client()) == "X25519MLKEM768"
    assert group_of(server(), Client(version=TLS_1_2)) == "x25519"


@pytest.mark.parametrize("group", HYBRID)
def test_the_documented_string_switches_post_quantum_groups_off(group):
    context = server(WITHOUT_POST_QUANTUM)
    assert group_of(context, Client(groups=group)) is None
    assert group_of(context, Client(groups=f"{group}:X25519")) == "x25519"


@pytest.mark.parametrize("kind", ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_the_documented_string_switches_post_quantum_signatures_off(kind):
    assert group_of(server(kind=kind), Client()) == "X25519MLKEM768"
    assert group_of(server(WITHOUT_POST_QUANTUM, kind), Client()) is None
    # A client's own signature is one as well.
    asking = server(WITHOUT_POST_QUANTUM)
    asking.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    assert group_of(asking, Client(kind=kind)) is None
    assert group_of(asking, Client(kind="ec:p256")) == "x25519"


@pytest.mark.parametrize("word", GROUPS)
def test_a_group_that_is_taken_away_is_gone_and_one_that_is_added_is_there(word):
    group = GROUPS[word]
    only = f"NORMAL:-GROUP-ALL:+{word}"
    client = Client(groups=group.name)
    assert group_of(server(only), client).upper() == group.name.upper()
    assert group_of(server(f"NORMAL:+{word}:-{word}"), client) is None
    others = ":".join(each.name for each in GROUPS.values() if each is not group)
    assert group_of(server(only), Client(groups=others)) is None


@pytest.mark.parametrize("word", [name for name in GROUPS if "MLKEM" not in name])
def test_tls_1_2_has_the_groups_that_are_allowed(word):
    group = GROUPS[word]
    dh = group.family is Family.FINITE
    context = server(f"NORMAL:-GROUP-ALL:+{word}:-VERS-TLS1.3", "rsa:2048")
    ciphers = "DHE" if dh else "ECDHE"
    client = Client(version=TLS_1_2, groups=group.name, ciphers=ciphers)
    assert group_of(context, client).upper() == group.name.upper()
    other = "ffdhe2048:X25519:X448" if word == "GROUP-SECP256R1" else "secp256r1"
    assert group_of(context, Client(version=TLS_1_2, groups=other)) is None


@pytest.mark.parametrize("word", KEYS)
def test_a_signature_that_is_taken_away_is_gone_and_one_that_is_added_is_there(word):
    signature = SIGNATURES[word]
    client = Client(version=TLS_1_3, signatures=signature.name)
    assert group_of(server(f"NORMAL:-SIGN-ALL:+{word}", KEYS[word]), client)
    context = server(f"NORMAL:-{word}", KEYS[word])
    assert group_of(context, client) is None
    # RSA's key makes others, too; every other kind of key has this one.
    rest = group_of(context, Client(version=TLS_1_3))
    assert (rest is not None) == (signature.signer is Signer.RSA)


def test_the_order_is_that_of_preference():
    client = Client(groups="X25519:secp384r1:ffdhe2048")
    text = "NORMAL:-GROUP-ALL:+GROUP-FFDHE2048:+GROUP-X25519"
    assert group_of(server(text), client) == "ffdhe2048"
    assert group_of(server(f"{text}:-GROUP-FFDHE2048:+GROUP-FFDHE2048"), client) == "x25519"


def test_what_this_openssl_lacks_is_left_out_unless_it_was_asked_for(monkeypatch):
    # OpenSSL 3.0: no hybrid groups, no ML-DSA, one separator.
    told = []

    def takes_groups(_context, names):
        told.append(names.decode())
        return int(b"MLKEM" not in names and b"/" not in names)

    older = SimpleNamespace(
        SSL_CTX_set1_curves_list=takes_groups,
        SSL_CTX_set1_sigalgs_list=lambda _, names: int(b"mldsa" not in names),
        ERR_clear_error=lib.ERR_clear_error,
    )
    monkeypatch.setattr("proxyd.endpoint.openssl._lib", older)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    for text in ("NORMAL", WITHOUT_POST_QUANTUM):
        limit_offers(context, parse_priority(text))
        assert told[-1] == "X25519:secp256r1:X448:secp384r1:secp521r1:ffdhe2048:ffdhe3072"
    for word in ("GROUP-X25519-MLKEM768", "SIGN-ML-DSA-65"):
        name = (GROUPS | SIGNATURES)[word].name
        with pytest.raises(Lacking, match=f"does not have {name}, which tls_priority adds"):
            limit_offers(context, parse_priority(f"NORMAL:+{word}"))
    with pytest.raises(Lacking, match="has none of the groups that tls_priority allows"):
        limit_offers(context, parse_priority("SECURE256:%PROFILE_FUTURE:-GROUP-SECP521R1"))
