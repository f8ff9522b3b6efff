"""Who calls, and from where."""

from proxyd.admission.holder import Holder, Rank
from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.wire.programs import AuthMethod

UNIX, TCP, TLS = Transport.UNIX, Transport.TCP, Transport.TLS
ROOT = Holder("uid 0", Rank.OWN, 0)
FRED, ANNA, BERT = (Holder(f"uid {uid}", Rank.LOCAL, uid) for uid in (1000, 1001, 1002))
HERE, THERE = (Holder(f"10.0.0.{number}", Rank.NETWORK) for number in (1, 2))


def door(transport=UNIX, method=AuthMethod.NONE):
    return Door(
        name=transport.name, transport=transport, method=method, readonly=False, own_uid_only=False
    )


LOCAL, LOCAL_SASL = door(), door(method=AuthMethod.SASL)
BY_TCP, TCP_SASL = door(TCP), door(TCP, AuthMethod.SASL)
