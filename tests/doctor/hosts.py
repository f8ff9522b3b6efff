"""Made-up hosts: a modular one on which all is well, and what makes others of it."""

from dataclasses import replace
from pathlib import PurePath

from proxyd.config.settings import resolve
from proxyd.doctor.state import (
    Address,
    Answer,
    Backend,
    Configuration,
    HostState,
    PolkitState,
    Process,
    Reply,
    Step,
    Way,
    port_name,
)
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import PORTS, PROXY, legacy_paths, sockets_of, suffixes_of, units_of

RUN = "/run/libvirt"
CONF = "/etc/libvirt/virtproxyd.conf"
SYSTEMD = Process(1, "systemd", "/sbin/init")
PROXYD = Process(812, "proxyd", "/usr/bin/python3 -m proxyd --timeout 120")
C_PROXY = Process(813, "virtproxyd", "/usr/sbin/virtproxyd --timeout 120")
LIBVIRTD = Process(700, "libvirtd", "/usr/sbin/libvirtd --timeout 120")
DRIVERS = ("qemu", "interface", "network", "nodedev", "nwfilter", "secret", "storage")
MODULAR = tuple(f"virt{driver}d" for driver in DRIVERS)
NETWORK = ("-tcp", "-tls")
IDS = {"root": 0, "ssl-cert": 110, "alice": 1000}


def listen_of(unit):
    """The address that libvirt gives a socket unit."""
    daemon, _, kind = unit.removesuffix(".socket").partition("-")
    suffix = f"-{kind}" if kind else ""
    if suffix in PORTS:
        return f"[::]:{PORTS[suffix]}"
    if daemon in {PROXY, "libvirtd"}:
        return legacy_paths(RUN)[suffix]
    return f"{RUN}/{daemon}-{'admin-' if suffix == '-admin' else ''}sock" + (
        "-ro" if suffix == "-ro" else ""
    )


def unit(
    name,
    *,
    enabled=False,
    active=False,
    masked=False,
    failed=False,
    program="",
    command="",
    capabilities=(),
):
    """An installed one."""
    return Unit(
        name=name,
        load="masked" if masked else "loaded",
        file="masked" if masked else "enabled" if enabled else "disabled",
        activity="failed" if failed else "active" if active else "inactive",
        listen=(listen_of(name),) if name.endswith(".socket") else (),
        program=program,
        command=command,
        capabilities=frozenset(capabilities),
    )


def daemon(name, *, enabled=True, active=True, running=False, but=()):
    """All units of one, by name; those whose suffix is in `but` are installed and no more."""
    sockets = {
        socket: unit(
            socket, enabled=enabled and suffix not in but, active=active and suffix not in but
        )
        for suffix, socket in zip(suffixes_of(name), sockets_of(name), strict=True)
    }
    service = f"{name}.service"
    return {service: unit(service, enabled=enabled, active=running), **sockets}


def down(name):
    """A daemon that is installed and neither enabled nor running."""
    return daemon(name, enabled=False, active=False)


def nothing(name):
    """A daemon that is not installed."""
    return {each: Unit(name=each) for each in units_of(name)}


def masked(*names):
    return {name: unit(name, masked=True) for name in names}


def units(*parts):
    """Several daemons' units together; of a name that is in two the last counts."""
    return {name: each for part in parts for name, each in part.items()}


LOG_AND_LOCK = units(daemon("virtlogd"), daemon("virtlockd"))
PROXY_UNITS = daemon(PROXY, running=True, but=NETWORK)
MODULAR_UNITS = units(*(daemon(name) for name in MODULAR), LOG_AND_LOCK)
LIBVIRTD_UNITS = daemon("libvirtd", running=True, but=NETWORK)


def held(name, *owners, listening=None, there=None):
    """An address and who has it."""
    count = (1 if owners else 0) if listening is None else listening
    return Address(
        name=name, there=count > 0 if there is None else there, listening=count, owners=owners
    )


def addresses(*owners, **more):
    """libvirt's addresses: the UNIX sockets are these processes', the ports nobody's.

    `more` has what is otherwise, by the suffix of the unit without its hyphen ("rw" for none).
    """
    paths = {suffix.lstrip("-") or "rw": path for suffix, path in legacy_paths(RUN).items()}
    found = {key: held(path, *owners) for key, path in paths.items()}
    found |= {suffix.lstrip("-"): held(port_name(port)) for suffix, port in PORTS.items()}
    found |= more
    return tuple(found.values())


def backend(driver, answer=Answer.ANSWERS, *, methods=("none",), detail="", path="", schemes=()):
    name = f"virt{driver}d"
    return Backend(
        schemes=schemes or (driver,),
        daemon=path.rpartition("/")[2] or name,
        path=path or f"{RUN}/{name}-sock",
        unit=None if path else f"{name}.socket",
        routed=bool(path),
        reply=Reply(
            answer=answer,
            methods=methods if answer is Answer.ANSWERS else (),
            detail=detail,
            took_ms=2 if answer is Answer.ANSWERS else 0,
        ),
    )


def backends(answer=Answer.ANSWERS, **more):
    """Those of the usual drivers, and Xen's, which is not there; `more` by driver."""
    found = {driver: backend(driver, answer) for driver in DRIVERS}
    found["xen"] = backend("xen", Answer.ABSENT)
    return tuple((found | more).values())


def configuration(*, trouble="", doubts=(), changed=(), **settings):
    made = replace(resolve({}, privileged=True), **settings)
    return Configuration(path=CONF, settings=made, trouble=trouble, doubts=doubts, changed=changed)


def step(path, owner="root:root", mode=0o755, *, directory=True):
    uid, gid = (IDS[name] for name in owner.split(":"))
    return Step(path=path, directory=directory, uid=uid, gid=gid, mode=mode, owner=owner)


def way(path, *others, secret=True, leads_to=""):
    """To a file of root's in directories of root's, but for these steps.

    `leads_to`: the file that `path` is a symbolic link to, in place of its last step.
    """
    directories = [each for name in (path, leads_to) if name for each in parents(name)]
    last = step(leads_to or path, mode=0o600 if secret else 0o644, directory=False)
    steps = {each.path: each for each in (*map(step, directories), last, *others)}
    return Way(path=path, secret=secret, steps=tuple(steps.values()))


def parents(path):
    """/, then each directory below it."""
    return [str(each) for each in reversed(PurePath(path).parents)]


def host(**changes):
    """The host on which all is well, but for these fields."""
    well = HostState(
        as_root=True,
        runtime_dir=RUN,
        configuration=configuration(),
        units=units(MODULAR_UNITS, PROXY_UNITS),
        programs=frozenset({*MODULAR, "virtlogd", "virtlockd"}),
        proxy_program="proxyd",
        addresses=addresses(SYSTEMD, PROXYD),
        backends=backends(),
        polkit=PolkitState(asked_by='auth_unix_rw = "polkit"'),
    )
    return replace(well, **changes)


def monolithic(**changes):
    """A host with libvirtd alone, on which all is well."""
    whole = {
        "units": units(LIBVIRTD_UNITS, LOG_AND_LOCK),
        "programs": frozenset({"libvirtd", "virtlogd", "virtlockd"}),
        "proxy_program": "",
        "addresses": addresses(SYSTEMD, LIBVIRTD),
        "backends": backends(Answer.ABSENT),
    }
    return host(**{**whole, **changes})
