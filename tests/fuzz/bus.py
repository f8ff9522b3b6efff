"""Messages of a bus that has gone mad: answers, or MalformedMessage; never long, never for ever.

jeepney unpacks what this guard lets pass.
"""

from proxyd.polkit.bus_messages import Answers, MalformedMessage

PIECE = 1000
SIGNATURES = ("s", "(bba{ss})", "u", "as")
WORDS = (
    b"l\2\0\1",
    b"B\3\0\1",
    b"\5\1u\0",
    b"\x08\1g\0\1s\0",
    b"\x08\1g\0\x09(bba{ss})\0",
    b"\4\1s\0",
    b"a()",
    b"()",
    b"v\0",
    b"\0\0\0\x08",
    b"\x08\0\0\0",
)


def one_input(data):
    """As the task that reads does: whatever comes, until it is no message."""
    answers = Answers()
    try:
        for at in range(0, len(data), PIECE):
            for answer in answers.receive_data(data[at : at + PIECE]):
                unpack(answer)
    except MalformedMessage:
        return


def unpack(answer):
    assert isinstance(answer.text(), str)
    for signature in SIGNATURES:
        try:
            answer.values(signature)
        except MalformedMessage:
            continue
        assert answer.signature == signature
