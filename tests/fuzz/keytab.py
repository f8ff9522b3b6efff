"""What stands where the keytab should: names of libvirt/…, or KeytabError."""

from proxyd.config.quoting import one_line
from proxyd.sasl.keytab import Keytab, KeytabError
from tests.fuzz.claims import claim_one_line
from tests.fuzz.memory_file import path_of

WORDS = (
    b"\x05\x02",
    b"\0\x07libvirt",
    b"\0\x09a.example",
    b"\0\x02",
    b"\xff\xff\xff\xf0",
    b"\x80\0\0\0",
)


def one_input(data):
    try:
        names = Keytab(path_of("keytab", data)).principals()
    except KeytabError as error:
        claim_one_line(error)
        return
    assert names
    for name in names:
        assert name.startswith("libvirt/")
        assert one_line(name) == name
