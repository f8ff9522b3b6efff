"""Groups and signatures in a priority string, held against the GnuTLS of this host."""

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.priority import PriorityError, TlsVersion, parse_priority
from proxyd.config.priority_words import ALIASES, GROUPS, SIGNATURES, Family
from tests.bed.command import run_to_end

DEADLINE_S = 20
NORMAL = parse_priority(None)
# Since GnuTLS 3.8, and that of this host may be older.
NEWER = [name for name in (*GROUPS, *SIGNATURES) if "MLKEM" in name or "ML-DSA" in name]
COMMON_GROUPS = [name for name in GROUPS if name not in NEWER]
COMMON_SIGNATURES = [name for name in SIGNATURES if name not in NEWER]


def policy_or_error(text):
    try:
        return parse_priority(text)
    except PriorityError as error:
        return error


def groups(text):
    return parse_priority(text).groups.replace("/", ":").split(":")


def signatures(text):
    return parse_priority(text).signatures.split(":")


def of_gnutls(text, kind):
    """The words of the groups ("group") or signatures ("sign") that GnuTLS has left."""
    library = ctypes.CDLL("libgnutls.so.30")
    name_of = getattr(library, f"gnutls_{kind}_get_name")
    name_of.restype = ctypes.c_char_p
    priority, listed = ctypes.c_void_p(), ctypes.POINTER(ctypes.c_uint)()
    assert library.gnutls_priority_init(ctypes.byref(priority), text.encode(), None) == 0
    try:
        list_of = getattr(library, f"gnutls_priority_{kind}_list")
        count = list_of(priority, ctypes.byref(listed))
        return [f"{kind.upper()}-{name_of(listed[at]).decode().upper()}" for at in range(count)]
    finally:
        library.gnutls_priority_deinit(priority)


ORDERS = st.lists(st.tuples(st.sampled_from("+-!"), st.sampled_from(COMMON_GROUPS)), max_size=12)


@given(ORDERS)
def test_any_changes_leave_the_groups_of_gnutls_in_its_order(changes):
    text = ":".join(["NORMAL:-GROUP-ALL:+GROUP-X448", *(sign + word for sign, word in changes)])
    # Without any the priorities of TLS 1.3 would be another matter: see `suites` there.
    text += ":+GROUP-SECP521R1"
    assert groups(text) == [GROUPS[word].name for word in of_gnutls(text, "group")]


@given(st.lists(st.tuples(st.sampled_from("+-!"), st.sampled_from(COMMON_SIGNATURES)), max_size=12))
def test_any_changes_leave_the_signatures_of_gnutls_in_its_order(changes):
    text = ":".join(["NORMAL:-SIGN-ALL", *(sign + word for sign, word in changes)])
    text += ":+SIGN-EDDSA-ED25519"
    theirs = [ALIASES.get(word, word) for word in of_gnutls(text, "sign")]
    assert signatures(text) == [SIGNATURES[word].name for word in dict.fromkeys(theirs)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NORMAL:-CURVE-ALL:+CURVE-SECP384R1", "secp384r1"),
        ("NORMAL:-GROUP-ALL:+group-x25519:+Curve-X448", "X25519:X448"),
        ("NORMAL:-GROUP-ALL:+GROUP-EC-ALL", "X25519:secp256r1:X448:secp384r1:secp521r1"),
        ("NORMAL:-GROUP-ALL:+GROUP-DH-ALL", "ffdhe2048:ffdhe3072"),
        ("NORMAL:-GROUP-EC-ALL", NORMAL.groups.partition("/X25519")[0] + "/ffdhe2048:ffdhe3072"),
        ("NORMAL:-GROUP-DH-ALL", NORMAL.groups.removesuffix("/ffdhe2048:ffdhe3072")),
        ("NORMAL:+GROUP-FFDHE8192:-GROUP-DH-ALL", NORMAL.groups.rpartition("/")[0]),
        ("NORMAL:+GROUP-FFDHE4096", f"{NORMAL.groups}:ffdhe4096"),
        ("NORMAL:-GROUP-ALL:+GROUP-X25519:+GROUP-X25519-MLKEM768", "X25519/X25519MLKEM768"),
        ("NONE:+VERS-TLS1.3:+AES-256-GCM:+AEAD", NORMAL.groups),
        ("NONE:+VERS-TLS1.3:+AES-256-GCM:+AEAD:+GROUP-X448", "X448"),
        (
            "NONE:-GROUP-X448:+VERS-TLS1.3:+AES-256-GCM:+AEAD",
            NORMAL.groups.replace(":X448", ""),
        ),
        ("NONE:+SUITEB192:+VERS-TLS1.2", "secp384r1"),
        ("SUITEB128", "secp256r1:secp384r1"),
        (
            "SUITEB128:+NORMAL:-GROUP-EC-ALL",
            "X25519MLKEM768:SecP256R1MLKEM768:SecP384R1MLKEM1024/ffdhe2048:ffdhe3072",
        ),
        ("SECURE256:-GROUP-EC-ALL", NORMAL.groups.partition("/X25519")[0] + "/ffdhe3072"),
        ("NORMAL:%PROFILE_FUTURE", "SecP384R1MLKEM1024/secp521r1"),
    ],
)
def test_groups_of(text, expected):
    assert parse_priority(text).groups == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NORMAL:-SIGN-ALL:+SIGN-EdDSA-Ed25519", "ed25519"),
        ("NORMAL:-SIGN-ALL:+SIGN-ECDSA-SHA384", "ecdsa_secp384r1_sha384"),
        ("NONE:+VERS-TLS1.3:+AES-256-GCM:+AEAD", NORMAL.signatures),
        ("NONE:+VERS-TLS1.3:+AES-256-GCM:+AEAD:+SIGN-ML-DSA-65", "mldsa65"),
        ("SUITEB192", "ecdsa_secp384r1_sha384"),
    ],
)
def test_signatures_of(text, expected):
    assert parse_priority(text).signatures == expected


def test_one_number_is_taken_away_by_both_of_its_names():
    for word in ("SIGN-ECDSA-SHA256", "SIGN-ECDSA-SECP256R1-SHA256"):
        text = f"NORMAL:-{word}"
        assert "ecdsa_secp256r1_sha256" not in signatures(text)
        assert len(signatures(text)) == len(NORMAL.signatures.split(":")) - 1


@pytest.mark.parametrize(
    ("text", "lowest", "highest", "exchanges"),
    [
        # RSA key exchange needs neither, TLS 1.3 both.
        ("LEGACY:-GROUP-ALL", 2, 2, {"RSA"}),
        ("LEGACY:-SIGN-ALL", 2, 2, {"RSA"}),
        ("NORMAL:-GROUP-EC-ALL", 2, 3, {"DHE-RSA"}),
        ("NORMAL:-GROUP-DH-ALL", 2, 3, {"ECDHE-ECDSA", "ECDHE-RSA"}),
        ("NORMAL:-GROUP-EC-ALL:-GROUP-DH-ALL", 3, 3, set()),
        ("NORMAL:-SIGN-ALL:+SIGN-RSA-SHA256", 2, 2, {"ECDHE-RSA", "DHE-RSA"}),
        ("NORMAL:-SIGN-ALL:+SIGN-EDDSA-ED25519", 2, 3, {"ECDHE-ECDSA"}),
        ("NORMAL:-SIGN-ALL:+SIGN-ML-DSA-65", 3, 3, set()),
    ],
)
def test_what_is_left_fits_together(text, lowest, highest, exchanges):
    policy = parse_priority(text)
    names = policy.ciphers.split(":") if policy.lowest == TlsVersion.TLS1_2 else []
    found = {
        next(
            (each for each in ("ECDHE-ECDSA", "ECDHE-RSA", "DHE-RSA") if name.startswith(each)),
            "RSA",
        )
        for name in names
    }
    assert (policy.lowest & 0xF, policy.highest & 0xF) == (lowest + 1, highest + 1)
    assert found == exchanges


@pytest.mark.parametrize("word", NEWER)
def test_the_words_of_newer_libvirt_may_be_added_and_taken_away(word):
    name = (GROUPS | SIGNATURES)[word].name
    text = f"NORMAL:-{word}"
    assert name not in groups(text) + signatures(text)
    back = parse_priority(f"{text}:+{word}")
    assert name in back.groups.replace("/", ":").split(":") + back.signatures.split(":")
    assert name in back.demanded


@pytest.mark.system  # gnutls-cli
def test_every_group_and_signature_that_gnutls_lists_is_known():
    listed = run_to_end(["gnutls-cli", "--list"], deadline_s=DEADLINE_S).succeeded()
    words = [
        word
        for line in listed.splitlines()
        if line.startswith(("Groups:", "PK-signatures:"))
        for word in line.partition(": ")[2].split(", ")
    ]
    assert len(words) > 40
    errors = {word: policy_or_error(f"NORMAL:-{word}") for word in words}
    assert [word for word, each in errors.items() if isinstance(each, PriorityError)] == []
    added = [policy_or_error(f"NORMAL:+{word}") for word in words]
    refused = [str(each) for each in added if isinstance(each, PriorityError)]
    assert len(refused) < len(words) - 20
    assert [text for text in refused if "is refused: it is" not in text] == []


def test_the_hybrid_groups_are_the_first():
    first, *_ = parse_priority(None).groups.split("/")
    assert first.split(":") == [
        group.name for group in GROUPS.values() if group.family is Family.HYBRID
    ]
