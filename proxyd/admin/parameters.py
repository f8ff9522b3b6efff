"""Typed parameters of the admin protocol, both ways (docs/protocol/admin.md, section 3)."""

from collections.abc import Collection, Sequence
from typing import Final

from proxyd.admin.view import CallRefused, Client, Limits, Pool, PoolBounds, Server
from proxyd.config.quoting import excerpt
from proxyd.negotiation.identity import ClientIdentity
from proxyd.wire import failure
from proxyd.wire.failure import Domain
from proxyd.wire.params import Param, ParamType, Value

_MIN_WORKERS: Final = "minWorkers"
_MAX_WORKERS: Final = "maxWorkers"
_PRIO_WORKERS: Final = "prioWorkers"
_MAX_CLIENTS: Final = "nclients_max"
_MAX_ANONYMOUS: Final = "nclients_unauth_max"


def pool_params(pool: Pool) -> list[Param]:
    listed = (
        (_MIN_WORKERS, pool.min_workers),
        (_MAX_WORKERS, pool.max_workers),
        ("nWorkers", pool.workers),
        ("freeWorkers", pool.free_workers),
        (_PRIO_WORKERS, pool.prio_workers),
        ("jobQueueDepth", pool.queued),
    )
    return [Param(field, ParamType.UINT, count) for field, count in listed]


def asked_bounds(params: Sequence[Param], pool: Pool) -> PoolBounds:
    """What the pool would be with these parameters. Raises CallRefused as libvirt would."""
    given = _counts(params, (_MIN_WORKERS, _MAX_WORKERS, _PRIO_WORKERS))
    bounds = PoolBounds(
        min_workers=given.get(_MIN_WORKERS, pool.min_workers),
        max_workers=given.get(_MAX_WORKERS, pool.max_workers),
        prio_workers=given.get(_PRIO_WORKERS, pool.prio_workers),
    )
    if bounds.min_workers > bounds.max_workers:
        text = f"{_MIN_WORKERS} {bounds.min_workers} is more than {_MAX_WORKERS}"
        raise CallRefused(failure.invalid_argument(f"{text} {bounds.max_workers}"))
    if bool(bounds.max_workers) != bool(pool.max_workers):
        text = f"{_MAX_WORKERS} cannot change from {pool.max_workers} to {bounds.max_workers}"
        raise CallRefused(failure.invalid_argument(text))
    return bounds


def limit_params(server: Server) -> list[Param]:
    limits = server.limits
    listed = (
        (_MAX_CLIENTS, limits.max_clients),
        ("nclients", len(server.clients())),
        (_MAX_ANONYMOUS, limits.max_anonymous),
        ("nclients_unauth", server.anonymous),
    )
    return [Param(field, ParamType.UINT, count) for field, count in listed]


def asked_limits(params: Sequence[Param], limits: Limits) -> Limits:
    """What the limits would be with these parameters. Raises CallRefused as libvirt would."""
    given = _counts(params, (_MAX_CLIENTS, _MAX_ANONYMOUS))
    asked = Limits(
        max_clients=given.get(_MAX_CLIENTS, limits.max_clients),
        max_anonymous=given.get(_MAX_ANONYMOUS, limits.max_anonymous),
    )
    if asked.max_clients < asked.max_anonymous:
        text = f"{_MAX_ANONYMOUS} {asked.max_anonymous} is more than {_MAX_CLIENTS}"
        raise CallRefused(failure.invalid_argument(f"{text} {asked.max_clients}", Domain.RPC))
    return asked


def info_params(client: Client, identity: ClientIdentity) -> list[Param]:
    """Who a client is; what does not apply to its transport, or is not known, is left out."""
    by_network = client.transport.traits.by_network
    listed: tuple[tuple[str, ParamType, Value | None], ...] = (
        ("readonly", ParamType.BOOLEAN, client.readonly),
        ("sasl_user_name", ParamType.STRING, identity.sasl_user_name),
        ("sock_addr", ParamType.STRING, client.address if by_network else None),
        ("tls_x509_dname", ParamType.STRING, identity.x509_dname),
        ("unix_user_id", ParamType.INT, _signed(identity.uid)),
        ("unix_user_name", ParamType.STRING, identity.user_name),
        ("unix_group_id", ParamType.INT, _signed(identity.gid)),
        ("unix_group_name", ParamType.STRING, identity.group_name),
        ("unix_process_id", ParamType.INT, identity.pid),
        ("selinux_context", ParamType.STRING, identity.selinux_context),
        # libvirt has no such field, but virt-admin prints whatever it is sent.
        ("authentication", ParamType.STRING, _authentication(client)),
    )
    return [Param(field, kind, value) for field, kind, value in listed if value is not None]


def _authentication(client: Client) -> str | None:
    """Of a TLS client: the others have the fields that libvirtd gives them, and no more."""
    return (client.authentication or None) if client.transport.traits.shakes_hands else None


def _signed(number: int | None) -> int | None:
    """The protocol has an INT where the kernel has 32 bits without a sign."""
    return number - (1 << 32) if number is not None and number >= 1 << 31 else number


def _counts(params: Sequence[Param], settable: Collection[str]) -> dict[str, int]:
    """Values by name; every one of them is a UINT. Raises CallRefused."""
    given: dict[str, int] = {}
    for param in params:
        if param.field not in settable:
            text = f"{excerpt(param.field)} cannot be set, only {' and '.join(settable)} can"
            raise CallRefused(failure.unknown_parameter(text))
        if param.type is not ParamType.UINT:
            text = f"{param.field} is of type {param.type.name}, expected is UINT"
            raise CallRefused(failure.invalid_argument(text))
        if param.field in given:
            raise CallRefused(failure.invalid_argument(f"{param.field} is given more than once"))
        given[param.field] = int(param.value)
    return given
