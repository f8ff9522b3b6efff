"""GnuTLS priority strings: refused in plain words, or something that OpenSSL takes."""

import functools

from OpenSSL import SSL

from proxyd.config.priority import PriorityError, check_priority, parse_priority
from tests.fuzz.claims import claim_one_line

WORDS = tuple(
    f"{word}:".encode()
    for word in (
        *("NORMAL", "SECURE256", "LEGACY", "PERFORMANCE", "SUITEB192", "NONE", "@A,SYSTEM"),
        *("+VERS-TLS1.3", "-VERS-TLS1.2", "-VERS-ALL", "+AES-256-CBC", "-CIPHER-ALL", "+SHA1"),
        *("-MAC-ALL", "+AEAD", "-KX-ALL", "+ECDHE-RSA", "+RSA", "+AES-128-GCM", "%FORCE_ETM"),
        *("%PROFILE_HIGH", "%PROFILE_ULTRA", "%PROFILE_LOW", "+GROUP-ALL", "!3DES-CBC", "+AES"),
    )
)


def one_input(data):
    text = data.decode("utf-8", "surrogateescape")
    try:
        policy = parse_priority(text)
    except PriorityError as error:
        claim_placed(error, text)
        return
    assert check_priority(text) is None
    assert policy.lowest <= policy.highest
    taken_by_openssl(policy)


def claim_placed(error, text):
    claim_one_line(error)
    assert 1 <= error.column <= len(text) + 1
    assert str(error) in (check_priority(text) or "")


@functools.lru_cache
def taken_by_openssl(policy):
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_cipher_list(policy.ciphers.encode())
    if policy.suites:
        context.set_tls13_ciphersuites(policy.suites.encode())
