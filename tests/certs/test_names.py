"""Who a certificate may be for, what is refused and in which words."""

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certs.authority import Authority
from certs.failures import CannotDo
from certs.names import Attributes, covers, host_names, may_name, subject_for
from proxyd.pki.dname import distinguished_name, subject_of

LABEL = "a" * 63
LONGEST = ".".join([LABEL, LABEL, LABEL, "a" * 61])


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("ca"), name="ca")


def server(ca, name, *names):
    return ca.server(name, names=names, force=True).certificate


def alternatives(certificate):
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(each.value) for each in found.value]


# The subject


def test_the_attributes_stand_in_one_order_whatever_the_options_order():
    attributes = Attributes(unit="U", country="de", organization="A, B", locality="L", state="S")
    subject = distinguished_name(subject_for("joe", attributes))
    assert subject == r"C=DE,ST=S,L=L,O=A\, B,OU=U,CN=joe"


@pytest.mark.parametrize("country", ["DEU", "D", "D1", "DÉ", "D\n", "12"])
def test_a_country_is_two_letters(country):
    with pytest.raises(CannotDo, match=r"^the country \".*\" is not two letters, like DE or JP$"):
        subject_for("joe", Attributes(country=country))


@pytest.mark.parametrize("name", ["jo\ne", "jo\0e", "\x1b[31mjoe", "jo\u202ee", "jo\udcffe"])
def test_what_cannot_be_printed_is_in_no_name(name):
    with pytest.raises(CannotDo, match="has characters that cannot be printed") as caught:
        subject_for(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ü" * 33, "has 66 bytes, and X.509 allows 64"),
        ("", "the name is empty"),
        (" joe", 'the name " joe" begins or ends with a space'),
        ("joe ", 'the name "joe " begins or ends with a space'),
        ("x" * 65, "has 65 bytes, and X.509 allows 64; name a server shorter and give the"),
    ],
)
def test_a_common_name_that_fits_nobody_is_refused(name, says):
    with pytest.raises(CannotDo) as caught:
        subject_for(name)
    assert says in str(caught.value)


@given(st.text(max_size=70))
def test_any_text_is_a_common_name_that_survives_or_one_line_of_reason(text):
    said, kept = "", text
    try:
        (attribute,) = subject_for(text)
        kept = attribute.value
    except CannotDo as reason:
        said = str(reason)
    assert said.isprintable()
    assert kept == text


# A server's names


def test_addresses_are_addresses_and_the_rest_are_dns_names():
    names = host_names(["host", "192.0.2.1", "2001:DB8:0::1", "host", "*.example.org"])
    assert [(type(each), str(each.value)) for each in names] == [
        (x509.DNSName, "host"),
        (x509.IPAddress, "192.0.2.1"),
        (x509.IPAddress, "2001:db8::1"),
        (x509.DNSName, "*.example.org"),
    ]


def test_a_server_named_by_its_address_has_it_in_its_shortest_form(ca):
    certificate = server(ca, "2001:DB8:0:0:0:0:0:1")
    assert subject_of(certificate) == "CN=2001:db8::1"
    assert alternatives(certificate) == ["2001:db8::1"]


def test_the_common_name_is_one_of_the_names(ca):
    assert alternatives(server(ca, "host.example.org", "host")) == ["host.example.org", "host"]


def test_a_long_name_goes_beside_a_short_one(ca):
    assert alternatives(server(ca, "host", LONGEST)) == ["host", LONGEST]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        "a.*.b",
        "*a.example.org",
        "-host",
        "host-",
        "host.",
        "a..b",
        "host:16514",
        "[::1]",
        "fe80::1%eth0",
        "2001:db8::zz",
        "192.0.2.256",
        "192.0.2",
        "ho st",
        "host\n",
        "http://host/",
        f"{LABEL}a.example.org",
        f"{LONGEST}a",
    ],
)
def test_what_is_no_host_name_is_refused_with_an_example_of_one(name):
    with pytest.raises(CannotDo) as caught:
        host_names([name])
    said = str(caught.value)
    assert said.endswith(
        "is no host name or address; write one like host.example.org or 192.0.2.1, without port"
        " or brackets"
    )
    assert said.isprintable()


def test_a_name_that_is_not_ascii_has_to_be_spelled_as_dns_does():
    with pytest.raises(CannotDo, match=r"write it as DNS does \(xn--…\)$"):
        host_names(["höst.example.org"])


# Finding a host in a certificate


@pytest.mark.parametrize(
    ("names", "host", "found"),
    [
        (["host.example.org"], "host.example.org", True),
        (["host.example.org"], "HOST.Example.ORG", True),
        (["host.example.org"], "host", False),
        (["*.example.org"], "host.example.org", True),
        (["*.example.org"], "a.host.example.org", False),
        (["*.example.org"], "example.org", False),
        (["*.org"], "example.org", False),
        (["192.0.2.1"], "192.0.2.1", True),
        (["192.0.2.1"], "192.0.2.2", False),
        (["2001:db8::1"], "2001:db8:0::1", True),
        (["host.example.org", "192.0.2.1"], "192.0.2.1", True),
    ],
)
def test_a_host_is_found_by_one_of_the_names(ca, names, host, found):
    assert covers(server(ca, *names), host) is found


def test_without_names_of_its_own_a_certificate_is_found_by_its_common_name(ca):
    certificate = ca.client("host.example.org", force=True).certificate
    assert covers(certificate, "host.example.org")
    assert not covers(certificate, "192.0.2.1")


@pytest.mark.parametrize(
    ("host", "may"),
    [("kvm1", True), ("kvm1.example.net", True), ("kvm2", False), ("kvm2.example.org", False)],
)
def test_a_host_may_know_itself_by_its_first_label_alone(ca, host, may):
    assert may_name(server(ca, "kvm1.example.org"), host) is may
