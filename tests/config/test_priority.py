"""Priority strings, held against the GnuTLS of this host, and what OpenSSL makes of them."""

import ctypes
import functools
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from proxyd.config.priority import (
    LONGEST,
    PriorityError,
    TlsPolicy,
    TlsVersion,
    check_priority,
    parse_priority,
)
from proxyd.tls.offers import limit_offers
from tests.bed.command import run_to_end
from tests.fakes.tls import certified_key

DEADLINE_S = 20
TLS_1_2, TLS_1_3 = TlsVersion.TLS1_2, TlsVersion.TLS1_3

# GnuTLS counts what it could do for TLS 1.0 and for datagrams; we have none of it.
MODERN = "-VERS-TLS1.0:-VERS-TLS1.1:-VERS-DTLS-ALL"
# Where it starts from nothing it wants to be told these as well.
REST = "+GROUP-ALL:+SIGN-ALL:+COMP-NULL"

LEVELS = ["NORMAL", "SECURE128", "SECURE192", "SECURE256", "PFS", "PERFORMANCE", "LEGACY"]
LEVELS += ["SUITEB128", "SUITEB192"]
CIPHERS = ["AES-256-GCM", "CHACHA20-POLY1305", "AES-256-CCM", "AES-256-CBC", "AES-128-GCM"]
CIPHERS += ["AES-128-CCM", "AES-128-CBC"]
EXCHANGES = ["ECDHE-ECDSA", "ECDHE-RSA", "RSA", "DHE-RSA"]
MACS = ["SHA1", "SHA256", "SHA384", "AEAD"]
PARTS = [*CIPHERS, *EXCHANGES, *MACS, "VERS-TLS1.2", "VERS-TLS1.3"]


@functools.cache
def gnutls():
    library = ctypes.CDLL("libgnutls.so.30")
    for function in ("cipher_suite_info", "cipher_get_name", "kx_get_name", "mac_get_name"):
        getattr(library, f"gnutls_{function}").restype = ctypes.c_char_p
    return library


def gnutls_suites(text):
    """The numbers of the suites that GnuTLS makes of a string; None where it makes nothing."""
    priority = ctypes.c_void_p()
    if gnutls().gnutls_priority_init(ctypes.byref(priority), text.encode(), None) < 0:
        return None
    try:
        suites, at, row = [], 0, ctypes.c_uint()
        while True:
            error = gnutls().gnutls_priority_get_cipher_suite_index(priority, at, ctypes.byref(row))
            if error == -56:  # there is no such place in the list
                return suites or None
            if error == 0:
                number = ctypes.create_string_buffer(2)
                gnutls().gnutls_cipher_suite_info(row.value, number, *[None] * 4)
                suites.append(int.from_bytes(number.raw, "big"))
            at += 1
    finally:
        gnutls().gnutls_priority_deinit(priority)


def gnutls_stumbles_at(text):
    """The column of the word that GnuTLS does not like."""
    priority, place = ctypes.c_void_p(), ctypes.c_char_p()
    raw = ctypes.create_string_buffer(text.encode())
    arguments = ctypes.byref(priority), raw, ctypes.byref(place)
    assert gnutls().gnutls_priority_init(*arguments) < 0
    return len(text) - len(place.value) + 1


def all_of_gnutls():
    """Number, cipher, key exchange and MAC of every suite that it has."""
    row = 0
    number = ctypes.create_string_buffer(2)
    kx, cipher, mac = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    parts = [ctypes.byref(kx), ctypes.byref(cipher), ctypes.byref(mac), None]
    while gnutls().gnutls_cipher_suite_info(row, number, *parts):
        yield (
            int.from_bytes(number.raw, "big"),
            gnutls().gnutls_cipher_get_name(cipher).decode(),
            (gnutls().gnutls_kx_get_name(kx) or b"").decode(),  # TLS 1.3 suites have none
            gnutls().gnutls_mac_get_name(mac).decode(),
        )
        row += 1


@functools.cache
def numbers_of_names():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    names = {each["name"]: each["id"] & 0xFFFF for each in context.get_ciphers()}
    return names | {"TLS_AES_128_CCM_SHA256": 0x1304}  # OpenSSL has to be asked for this one


def numbers(policy):
    """The suites of a policy as IANA numbers them, TLS 1.3 first as in GnuTLS's lists."""
    names = policy.suites.split(":") if policy.highest == TLS_1_3 else []
    if policy.lowest == TLS_1_2:
        names += [name for name in policy.ciphers.split(":") if not name.startswith("@")]
    return [numbers_of_names()[name] for name in names]


def security(policy):
    first = policy.ciphers.split(":")[0]
    return int(first.removeprefix("@SECLEVEL=")) if first.startswith("@") else None


def policy_or_error(text):
    try:
        return parse_priority(text)
    except PriorityError as error:
        return error


def refusal(text):
    with pytest.raises(PriorityError) as caught:
        parse_priority(text)
    return caught.value


NORMAL = parse_priority("NORMAL")


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_gnutls_s_own_without_cbc_and_without_rsa_key_exchange(level):
    left_out = {
        number
        for number, cipher, exchange, _ in all_of_gnutls()
        if level != "LEGACY" and (cipher.endswith("-CBC") or exchange == "RSA")
    }
    theirs = gnutls_suites(f"{level}:{MODERN}")

    assert numbers(parse_priority(level)) == [number for number in theirs if number not in left_out]


@pytest.mark.parametrize(
    ("text", "lowest", "highest", "level"),
    [
        (None, TLS_1_2, TLS_1_3, None),
        ("", TLS_1_2, TLS_1_3, None),
        ("NORMAL", TLS_1_2, TLS_1_3, None),
        ("LEGACY", TLS_1_2, TLS_1_3, None),
        ("SECURE128", TLS_1_2, TLS_1_3, None),
        ("SECURE192", TLS_1_2, TLS_1_3, 3),
        ("SECURE256", TLS_1_2, TLS_1_3, 3),
        ("SUITEB128", TLS_1_2, TLS_1_2, 3),
        ("SUITEB192", TLS_1_2, TLS_1_2, 4),
        ("SUITEB192:+VERS-TLS1.3", TLS_1_2, TLS_1_3, 4),
        ("NORMAL:-VERS-TLS1.3", TLS_1_2, TLS_1_2, None),
        ("NORMAL:!VERS-TLS1.2", TLS_1_3, TLS_1_3, None),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.3", TLS_1_3, TLS_1_3, None),
        ("NORMAL:-VERS-TLS-ALL:+VERS-TLS1.2", TLS_1_2, TLS_1_2, None),
        ("NORMAL:-VERS-ALL:+VERS-TLS-ALL", TLS_1_2, TLS_1_3, None),
        ("NORMAL:-KX-ALL", TLS_1_3, TLS_1_3, None),
        ("LEGACY:-AEAD", TLS_1_2, TLS_1_2, None),
        ("NORMAL:%PROFILE_LOW", TLS_1_2, TLS_1_3, None),
        ("NORMAL:%PROFILE_MEDIUM", TLS_1_2, TLS_1_3, 2),
        ("NORMAL:%PROFILE_ULTRA", TLS_1_2, TLS_1_3, 4),
        ("NORMAL:%PROFILE_FUTURE", TLS_1_2, TLS_1_3, 5),
        ("SECURE256:%PROFILE_LOW", TLS_1_2, TLS_1_3, None),
        ("SECURE256:+NORMAL", TLS_1_2, TLS_1_3, None),
        ("NORMAL:-VERS-TLS1.2:%PROFILE_HIGH", TLS_1_3, TLS_1_3, 3),
    ],
)
def test_versions_and_security_level(text, lowest, highest, level):
    policy = parse_priority(text)

    assert (policy.lowest, policy.highest, security(policy)) == (lowest, highest, level)


@pytest.mark.parametrize(
    "text",
    [
        "normal",
        " NORMAL",
        "SYSTEM",
        "@SYSTEM",
        "@LIBVIRT,SYSTEM",
        "@QEMU,LIBVIRT,SYSTEM",
        "PFS",
        "SECURE128",
        "+NORMAL",
        "%COMPAT:NORMAL",
        "NORMAL:NORMAL",
        "NORMAL: -RSA",
        "NORMAL:-RSA:-AES-128-CBC:-3DES-CBC:!ARCFOUR-128:-ANON-ECDH:-CAMELLIA-256-CBC",
        "NORMAL:-vers-tls1.0:-VERS-TLS1.1:-VERS-SSL3.0:-VERS-DTLS-ALL",
        "NORMAL:-SIGN-RSA-SHA1:-SIGN-RSA-MD5:-GROUP-SECP192R1:-GOST:-CTYPE-OPENPGP:-MD5",
        "NORMAL:+GROUP-ALL:+GROUP-X25519:+CURVE-SECP384R1:+SIGN-RSA-PSS-SHA256:+SIGN-ALL",
        "NORMAL:+CTYPE-X509:+CTYPE-X.509:+CTYPE-CLI-X509:+COMP-NULL:-COMP-DEFLATE:+SHA512",
        "NORMAL:%SERVER_PRECEDENCE:%COMPAT:%SAFE_RENEGOTIATION:%LATEST_RECORD_VERSION",
        "NORMAL:%NO_TICKETS:%NO_ETM:%FORCE_ETM:%DISABLE_WILDCARDS",
        "@LIBVIRT,SYSTEM:%NO_TICKETS",
        f"NONE:+VERS-TLS-ALL:+CIPHER-ALL:+KX-ALL:+MAC-ALL:{REST}",
        f"NONE:+NORMAL:+VERS-ALL:{REST}:+GROUP-X25519",
    ],
)
def test_what_changes_nothing(text):
    assert parse_priority(text) == NORMAL


def test_a_host_s_own_words_are_passed_over():
    assert parse_priority("@LIBVIRT,SYSTEM:-VERS-TLS1.2") == parse_priority("NORMAL:-VERS-TLS1.2")


@pytest.mark.parametrize(
    "text",
    [
        "LEGACY:+SHA256:+SHA384",
        "LEGACY:-RSA",
        "LEGACY:-ECDHE-ECDSA:-DHE-RSA:-AES-128-CBC",
        "LEGACY:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM",
        "LEGACY:-KX-ALL:+RSA",
        "LEGACY:-SHA1",
        "LEGACY:-AEAD:+SHA384",
        "LEGACY:-MAC-ALL:+AEAD",
        "NONE:+VERS-TLS1.3:+AES-256-GCM:+AEAD",
        "NONE:+VERS-TLS1.2:+AES-256-GCM:+AEAD:+ECDHE-RSA",
        "NONE:+VERS-TLS-ALL:+CHACHA20-POLY1305:+AES-128-CBC:+SHA256:+AEAD:+RSA:+DHE-RSA",
        "NONE:+VERS-TLS1.2:+AES-128-CBC:+RSA:+SHA1",
    ],
)
def test_a_whole_list_is_the_one_of_gnutls(text):
    assert numbers(parse_priority(f"{text}:{REST}")) == gnutls_suites(f"{text}:{MODERN}:{REST}")


CHANGES = st.lists(st.tuples(st.sampled_from("+-!"), st.sampled_from(PARTS)), max_size=20)


@given(st.sampled_from(["LEGACY", "NONE", "NONE:+VERS-TLS-ALL:+AEAD"]), CHANGES)
def test_any_parts_make_the_suites_of_gnutls(start, changes):
    text = ":".join([start, *(sign + part for sign, part in changes)])
    outcome = policy_or_error(f"{text}:{REST}")
    ours = None if isinstance(outcome, PriorityError) else numbers(outcome)

    assert ours == gnutls_suites(f"{text}:{MODERN}:{REST}")


def test_a_cipher_brings_suites_with_what_is_there():
    added = set(numbers(parse_priority("NORMAL:+AES-256-CBC"))) - set(numbers(NORMAL))

    assert added == {
        number
        for number, cipher, exchange, mac in all_of_gnutls()
        if (cipher, mac) == ("AES-256-CBC", "SHA1") and exchange in EXCHANGES and exchange != "RSA"
    }


@pytest.mark.parametrize(
    ("text", "word", "reason"),
    [
        ("NORMAL:+VERS-TLS1.0", "+VERS-TLS1.0", "proxyd speaks TLS 1.2 and 1.3"),
        ("NORMAL:-RSA:+VERS-TLS1.1", "+VERS-TLS1.1", "is broken"),
        ("NORMAL:+VERS-SSL3.0", "+VERS-SSL3.0", "is broken"),
        ("NORMAL:+VERS-DTLS1.2", "+VERS-DTLS1.2", "datagrams"),
        ("NORMAL:+NULL", "+NULL", "is broken"),
        ("NORMAL:+3DES-CBC:+RSA", "+3DES-CBC", "is broken"),
        ("NORMAL:+ARCFOUR-128", "+ARCFOUR-128", "is broken"),
        ("NORMAL:+RSA-EXPORT", "+RSA-EXPORT", "is broken"),
        ("NORMAL:+MD5", "+MD5", "is broken"),
        ("NORMAL:+ANON-ECDH", "+ANON-ECDH", "lets in anyone"),
        ("NORMAL:+PSK", "+PSK", "is not offered"),
        ("NORMAL:+CAMELLIA-256-GCM", "+CAMELLIA-256-GCM", "is not offered"),
        ("NORMAL:+AES-128-CCM-8", "+AES-128-CCM-8", "is not offered"),
        ("NORMAL:+GOST", "+GOST", "is not in OpenSSL"),
        ("NORMAL:+SIGN-RSA-SHA1", "+SIGN-RSA-SHA1", "is broken"),
        ("NORMAL:+CURVE-SECP192R1", "+CURVE-SECP192R1", "too small"),
        ("NORMAL:+CTYPE-RAWPK", "+CTYPE-RAWPK", "X.509"),
        ("NORMAL:-CTYPE-X509", "-CTYPE-X509", "cannot be translated"),
        ("NORMAL:-GROUP-ALL", "-GROUP-ALL", "no group, such as"),
        ("NORMAL:-CURVE-ALL", "-CURVE-ALL", "no group, such as"),
        ("NORMAL:-SIGN-ALL", "-SIGN-ALL", "no signature, such as"),
        (
            "NORMAL:-VERS-TLS1.2:-SIGN-ALL:+SIGN-RSA-SHA256",
            "-SIGN-ALL",
            "TLS 1.3 needs a group and a signature (not SIGN-RSA-SHA",
        ),
        (
            "NORMAL:-VERS-TLS1.3:-GROUP-EC-ALL:-DHE-RSA",
            "-DHE-RSA",
            "ECDHE-RSA a curve and RSA",
        ),
        ("NORMAL:+GROUP-X25519-KYBER768", "+GROUP-X25519-KYBER768", "is not in OpenSSL"),
        ("NORMAL:+SIGN-DSA-SHA256", "+SIGN-DSA-SHA256", "is not offered"),
        ("LEGACY:%FORCE_ETM", "%FORCE_ETM", "CBC"),
        ("NORMAL:%FORCE_SESSION_HASH", "%FORCE_SESSION_HASH", "-VERS-TLS1.2"),
        ("NORMAL:%NO_EXTENSIONS", "%NO_EXTENSIONS", "cannot be translated"),
        ("NORMAL:%VERIFY_ALLOW_SIGN_WITH_SHA1", "%VERIFY_ALLOW_SIGN_WITH_SHA1", "is refused"),
        ("NORMAL:%VERIFY_DISABLE_CRL_CHECKS", "%VERIFY_DISABLE_CRL_CHECKS", "crl_file"),
        ("@LIBVIRT", "@LIBVIRT", "SYSTEM"),
        ("@LIBVIRT,NORMAL:-RSA", "@LIBVIRT,NORMAL", "SYSTEM"),
        ("@", "@", "SYSTEM"),
        ("NORMAL:-VERS-ALL", "-VERS-ALL", "no TLS version"),
        ("NORMAL:-VERS-TLS1.2:-VERS-TLS1.3:+AES-128-CBC", "-VERS-TLS1.3", "no TLS version"),
        ("NORMAL:-CIPHER-ALL", "-CIPHER-ALL", "no cipher"),
        ("NORMAL:-CIPHER-ALL:-RSA:%COMPAT", "-CIPHER-ALL", "no cipher"),
        ("NORMAL:-MAC-ALL", "-MAC-ALL", "no MAC"),
        ("NORMAL:-AEAD", "-AEAD", "makes no suite"),
        ("NORMAL:-VERS-TLS1.3:-KX-ALL", "-KX-ALL", "key exchange"),
        ("NONE", "NONE", "no TLS version"),
        ("NONE:+VERS-TLS1.2", "NONE", "no cipher"),
        ("NONE:+VERS-TLS1.2:+AES-256-GCM:+ECDHE-RSA", "NONE", "+AEAD"),
        ("SUITEB128:-AES-256-GCM:%PROFILE_ULTRA", "%PROFILE_ULTRA", "makes no suite"),
        ("-RSA", "-RSA", "begin with a word such as NORMAL"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(text, word, reason):
    error = refusal(text)

    assert error.column == text.index(word) + 1
    assert str(error).startswith(f'"{word}" at character {error.column} ')
    assert reason in str(error)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("NORML", 'did you mean "NORMAL"?'),
        ("NORMAL,-RSA", 'did you mean "NORMAL"?'),
        ("NORMAL:PF", 'did you mean "PFS"?'),
        ("NORMAL:-VERS-TLS1", 'did you mean "-VERS-TLS1.'),
        ("NORMAL:-AES256-GCM", 'did you mean "-AES-256-GCM"?'),
        ("NORMAL:%compat", 'did you mean "%COMPAT"?'),
        ("NORMAL:-PFS", "is not understood"),
        ("NORMAL:+FOO:-RSA", "a string is a word such as NORMAL"),
        ("NORMAL:", "a string is a word such as NORMAL"),
        ("NORMAL::-RSA", "is not understood"),
        ("FOO", "is not understood"),
        (":NORMAL", "is not understood"),
        ("NORMAL:NONE", "is not understood"),
        ("NORMAL:RSA", "is not understood"),
        ("NORMAL:-RSA ", "is not understood"),
        ("NORMAL:+", "is not understood"),
    ],
)
def test_gnutls_stumbles_over_the_same_word(text, advice):
    error = refusal(text)

    assert advice in str(error)
    assert error.column == gnutls_stumbles_at(text)


def test_spaces_in_front_of_a_word_count_as_columns():
    assert refusal("  NORMAL:   +FOO").column == 13


def test_letters_that_only_resemble_others_are_not_understood():
    assert "is not understood" in str(refusal("NORMAL:-ſHA1"))  # its capital is a plain S


@pytest.mark.system  # gnutls-cli
def test_every_word_that_could_concern_a_suite_of_gnutls_is_known():
    words = {word for _, *parts in all_of_gnutls() for word in parts if word}
    words |= {f"VERS-{name}" for name in ("SSL3.0", "TLS1.0", "TLS1.1", "TLS1.2", "TLS1.3")}
    listed = run_to_end(["gnutls-cli", "--list"], deadline_s=DEADLINE_S).succeeded()
    exchanges = next(
        line for line in listed.splitlines() if line.startswith("Key exchange algorithms:")
    )
    words |= set(exchanges.partition(": ")[2].split(", "))

    changes = [f"NORMAL:{sign}{word}" for word in sorted(words) for sign in "+-"]
    assert len(changes) > 60
    for text in changes:
        assert "is not understood" not in str(policy_or_error(text))


@pytest.mark.parametrize("word", ["3DES-CBC", "VERS-TLS1.0", "ANON-DH", "CAMELLIA-128-CBC"])
def test_what_is_never_there_may_be_taken_away(word):
    assert parse_priority(f"NORMAL:-{word}") == NORMAL
    assert refusal(f"NORMAL:+{word}").column == 8


def test_a_string_may_have_so_many_characters():
    words = "NORMAL" + ":-RSA" * (LONGEST // 5)

    assert parse_priority(words[:LONGEST].removesuffix(":").removesuffix(":-")) == NORMAL
    error = refusal(words + ":-RSA")
    assert error.column == LONGEST + 1
    assert str(LONGEST) in str(error)


def test_the_check_says_what_was_expected():
    assert check_priority("NORMAL:-VERS-TLS1.2") is None
    expected = check_priority("NORMAL:+FOO")
    assert expected.startswith("a GnuTLS priority string")
    assert "character 8" in expected


FLAGS = ["%COMPAT", "%PROFILE_HIGH", "%PROFILE_ULTRA", "%FORCE_ETM", "%NONSENSE"]
MORE = ["CIPHER-ALL", "KX-ALL", "MAC-ALL", "VERS-ALL", "VERS-TLS-ALL", "GROUP-X25519", "3DES-CBC"]
MORE += ["GROUP-ALL", "CURVE-ALL", "GROUP-EC-ALL", "GROUP-DH-ALL", "GROUP-X25519-MLKEM768"]
MORE += ["SIGN-ALL", "SIGN-ML-DSA-65", "SIGN-RSA-SHA256", "SIGN-ECDSA-SHA384"]
WORDS = st.one_of(
    st.sampled_from([*LEVELS, *FLAGS, "NONE", "@SYSTEM", "@A,SYSTEM", "@A", ""]),
    st.builds("{}{}".format, st.sampled_from("+-!"), st.sampled_from([*PARTS, *LEVELS, *MORE])),
    st.text(max_size=8),
)
STRINGS = st.text() | st.lists(WORDS, max_size=12).map(":".join)


@given(STRINGS)
def test_any_text_gives_a_policy_that_openssl_takes_or_an_error(text):
    outcome = policy_or_error(text)
    if isinstance(outcome, PriorityError):
        assert 1 <= outcome.column <= len(text) + 1
        assert str(outcome).isprintable()
        assert len(str(outcome)) < 500
        assert str(outcome) in check_priority(text)
    else:
        assert check_priority(text) is None
        assert outcome.lowest <= outcome.highest
        assert configured(outcome)
        assert len(set(numbers(outcome))) == len(numbers(outcome)) > 0


@given(STRINGS)
def test_whatever_gnutls_does_not_allow_is_not_allowed_here(text):
    # Words of an administrator and a bare SYSTEM mean nothing to the GnuTLS of a test host.
    ours_alone = "\0" in text or "SYSTEM" in text.upper()
    theirs = None if ours_alone else gnutls_suites(f"{text}:{MODERN}")
    if theirs is not None:
        with suppress(PriorityError):
            assert set(numbers(parse_priority(text))) <= set(theirs)


def configured(policy, method=SSL.TLS_SERVER_METHOD):
    context = SSL.Context(method)
    context.set_min_proto_version(policy.lowest)
    context.set_max_proto_version(policy.highest)
    context.set_cipher_list(policy.ciphers.encode())
    context.set_tls13_ciphersuites(policy.suites.encode())
    limit_offers(context, policy)
    return context


@functools.cache
def rsa_pair():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    template = certified_key()[0]
    certificate = (
        x509.CertificateBuilder(template.subject, template.subject, key.public_key(), 1)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def server_for(policy, pair):
    context = configured(policy)
    context.use_certificate(pair[0])
    context.use_privatekey(pair[1])
    return context


def negotiated_with_gnutls(context, priority):
    """What the server finds agreed on with a real GnuTLS client; None when nothing was."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        listener.settimeout(DEADLINE_S)
        port = str(listener.getsockname()[1])
        client = ["gnutls-cli", "--insecure", "--priority", priority, "--port", port, "127.0.0.1"]
        done = pool.submit(run_to_end, client, deadline_s=DEADLINE_S)
        sock, _ = listener.accept()
        with sock:
            sock.setblocking(True)  # the client's deadline ends it
            connection = SSL.Connection(context, sock)
            connection.set_accept_state()
            try:
                connection.do_handshake()
            except SSL.Error:
                return None
            connection.shutdown()
        done.result()
        return connection.get_protocol_version_name(), connection.get_cipher_name()


OLD_CLIENT = f"NONE:+VERS-TLS1.2:+AES-128-CBC:+SHA1:+RSA:+DHE-RSA:{REST}"  # much like GnuTLS 2.12
RHEL_7_CLIENT = f"NONE:+VERS-TLS1.2:+AES-128-GCM:+AES-128-CBC:+SHA1:+AEAD:+ECDHE-RSA:+RSA:{REST}"


@pytest.mark.system  # gnutls-cli
@pytest.mark.parametrize(
    ("text", "client", "expected"),
    [
        ("NORMAL", "NORMAL", ("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        ("NORMAL", "NORMAL:-VERS-TLS1.3", ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384")),
        ("NORMAL:-VERS-TLS1.3", "NORMAL", ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384")),
        ("NORMAL:-VERS-TLS1.2", "NORMAL", ("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        ("NORMAL:-VERS-TLS1.2", "NORMAL:-VERS-TLS1.3", None),
        ("NORMAL:-VERS-TLS1.3", "NORMAL:-VERS-TLS1.2", None),
        ("NORMAL", "NORMAL:-VERS-TLS1.3:-VERS-TLS1.2", None),
        ("LEGACY", "NORMAL:-VERS-TLS1.3:-VERS-TLS1.2", None),
        ("NORMAL", "SECURE128:-AES-256-GCM", ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256")),
        ("NORMAL:-AES-256-GCM:-CHACHA20-POLY1305", "NORMAL", ("TLSv1.3", "TLS_AES_128_GCM_SHA256")),
        ("NORMAL", RHEL_7_CLIENT, ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256")),
        ("NORMAL", OLD_CLIENT, None),
        ("LEGACY:-DHE-RSA", OLD_CLIENT, ("TLSv1.2", "AES128-SHA")),
        ("NORMAL:+RSA:+AES-128-CBC:-DHE-RSA", OLD_CLIENT, ("TLSv1.2", "AES128-SHA")),
        ("NORMAL:-ECDHE-RSA", RHEL_7_CLIENT, None),
        ("LEGACY:-AEAD", "NORMAL", ("TLSv1.2", "ECDHE-RSA-AES256-SHA")),
        (
            f"NONE:+VERS-TLS1.3:+AES-128-CCM:+AEAD:{REST}",
            "NORMAL",
            ("TLSv1.3", "TLS_AES_128_CCM_SHA256"),
        ),
    ],
)
def test_a_real_client_ends_with_what_is_allowed(text, client, expected):
    context = server_for(parse_priority(text), rsa_pair())
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)

    assert negotiated_with_gnutls(context, client) == expected


@pytest.mark.system  # gnutls-cli
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SECURE256", ("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        ("SECURE256:-VERS-TLS1.3", ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")),
        ("SUITEB128", ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")),
        ("PERFORMANCE", ("TLSv1.3", "TLS_AES_128_GCM_SHA256")),
    ],
)
def test_a_real_client_gets_on_with_a_key_on_a_curve(text, expected):
    context = server_for(parse_priority(text), certified_key())
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)

    assert negotiated_with_gnutls(context, "NORMAL") == expected


def test_a_high_profile_does_not_take_a_short_rsa_key():
    with pytest.raises(SSL.Error, match="key too small"):
        server_for(parse_priority("SECURE256"), rsa_pair())


def handshake(server, client):
    """Two sides in memory; the name of the cipher that they agree on, or None."""
    sides = [SSL.Connection(client, None), SSL.Connection(server, None)]
    sides[0].set_connect_state()
    sides[1].set_accept_state()
    for _ in range(4):
        for side, other in (sides, sides[::-1]):
            try:
                side.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error:
                return None
            with suppress(SSL.WantReadError):
                while True:
                    other.bio_write(side.bio_read(1 << 16))
    return sides[1].get_cipher_name()


@pytest.mark.parametrize("text", ["LEGACY", "NORMAL", "LEGACY:+SHA256:+SHA384"])
@pytest.mark.parametrize("profile", ["LOW", "MEDIUM", "HIGH"])
def test_openssl_uses_every_suite_that_is_told_to_it(text, profile):
    policy = parse_priority(f"{text}:-VERS-TLS1.3:-DHE-RSA:%PROFILE_{profile}")
    names = [name for name in policy.ciphers.split(":") if not name.startswith("@")]
    pair = certified_key()
    for name in names:
        if "ECDSA" in name:
            client = SSL.Context(SSL.TLS_CLIENT_METHOD)
            client.set_max_proto_version(TLS_1_2)
            client.set_cipher_list(name.encode())
            assert handshake(server_for(policy, pair), client) == name


def test_the_unused_half_is_never_negotiated():
    policy = parse_priority("NORMAL:-VERS-TLS1.2")
    assert policy == TlsPolicy(
        lowest=TLS_1_3,
        highest=TLS_1_3,
        ciphers=NORMAL.ciphers,
        suites=NORMAL.suites,
        groups=NORMAL.groups,
        signatures=NORMAL.signatures,
    )
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_max_proto_version(TLS_1_2)

    assert handshake(server_for(policy, certified_key()), client) is None
    assert handshake(server_for(NORMAL, certified_key()), client) is not None
