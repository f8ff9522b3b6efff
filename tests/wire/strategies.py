"""What hypothesis makes of the wire: headers, frames, texts, parameters, failures."""

import random

from hypothesis import strategies as st

from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, Header
from proxyd.wire.params import Param, ParamType

U32 = st.integers(0, 2**32 - 1)
I32 = st.integers(-(2**31), 2**31 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)

# Whatever bytes a C string can hold, as Python carries them: most of them no UTF-8.
TEXTS = st.one_of(
    st.binary(max_size=30).map(
        lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
)
FIELDS = TEXTS.filter(lambda text: len(text.encode("utf-8", "surrogateescape")) <= 79)

HEADERS = st.builds(Header, U32, U32, I32, I32, U32, I32)
FRAMES = st.builds(Frame, HEADERS, st.binary(max_size=80))

_VALUES = {
    ParamType.INT: I32,
    ParamType.UINT: U32,
    ParamType.LLONG: I64,
    ParamType.ULLONG: U64,
    ParamType.DOUBLE: st.floats(allow_nan=False),
    ParamType.BOOLEAN: st.booleans(),
    ParamType.STRING: TEXTS,
}
PARAMS = st.sampled_from(ParamType).flatmap(
    lambda kind: st.builds(Param, FIELDS, st.just(kind), _VALUES[kind])
)

_SAID = st.none() | TEXTS
FAILURES = st.builds(Failure, I32, I32, TEXTS, _SAID, _SAID, I32, I32, _SAID, I32)


def pieces(wire, seed):
    """The bytes cut anywhere, the empty piece included; the same seed cuts the same way."""
    chance = random.Random(seed)
    places = sorted(chance.randint(0, len(wire)) for _ in range(chance.randint(0, 12)))
    return [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]
