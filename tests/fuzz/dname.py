"""The DER of a stranger's name: a text, or ValueError."""

from types import SimpleNamespace

from proxyd.pki.dname import dname_from_der, subject_of

WORDS = (
    bytes.fromhex("300f310d300b06035504030c046a6f6521"),
    bytes.fromhex("0603550406"),
    bytes.fromhex("0603550403"),
    bytes.fromhex("060a0992268993f22c640119"),
    bytes.fromhex("1e04"),
    bytes.fromhex("1404"),
    bytes.fromhex("31820100"),
    bytes.fromhex("3081ff"),
)


def one_input(data):
    """The first byte says whether it is a name or all of a certificate."""
    if not data:
        return
    try:
        if data[0] & 1:
            text = subject_of(SimpleNamespace(tbs_certificate_bytes=data[1:]))
        else:
            text = dname_from_der(data[1:])
    except ValueError:
        return
    assert "\0" not in text
    text.encode("utf-8", "surrogateescape")
