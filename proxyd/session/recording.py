"""Sessions as the audit's records name them (audit/record.py)."""

from proxyd.audit.record import Value, Who
from proxyd.config.addresses import daemon_at
from proxyd.negotiation.identity import ClientIdentity
from proxyd.rules.ruling import Ruling


def who(
    identity: ClientIdentity,
    *,
    number: int,
    listener: str | None = None,
    address: str,
    readonly: bool,
    uri: str = "",
    backend: str = "",
    ruling: Ruling | None = None,
) -> Who:
    """Whatever is known of a client by now."""
    values: dict[str, Value | None] = {
        "session": number,
        "listener": listener,
        "address": address or None,
        "uid": identity.uid,
        "user": identity.user_name,
        "pid": identity.pid,
        "sasl_user": identity.sasl_user_name,
        "certificate": identity.x509_dname,
        "readonly": readonly,
        "uri": uri or None,
        "daemon": daemon_at(backend) if backend else None,
        "rule": None if ruling is None else ruling.line,
        "may": None if ruling is None else ruling.grant.name,
    }
    return Who(values)
