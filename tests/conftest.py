"""What all tests share: the markers' meaning, hypothesis without a clock, the daemons' logs."""

import functools
import os
import shutil
from pathlib import Path

from proxyd.auth.tickets import load_openssl

load_openssl()  # before anybody else does: it has to be done in a certain way

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from tests.bed.command import SYSTEM_PATH, run_to_end  # noqa: E402
from tests.bed.daemon import STARTED  # noqa: E402
from tests.bed.python_libvirt import INTERPRETER  # noqa: E402

# How long an example takes says nothing on a loaded machine; figures belong to loadtest. In CI
# (hypothesis sees it by itself and then repeats the same examples) there is no clock either.
hypothesis.settings.register_profile("proxyd", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("proxyd")

COMMANDS = {
    "certtool": "gnutls-bin",
    "chromium": "chromium",
    "dbus-daemon": "dbus-daemon",
    "faketime": "faketime",
    "gnutls-cli": "gnutls-bin",
    "groff": "groff-base",
    "ip": "iproute2",
    "kadmin.local": "krb5-admin-server",
    "kinit": "krb5-user",
    "krb5kdc": "krb5-kdc",
    "libvirtd": "libvirt-daemon",
    "logrotate": "logrotate",
    "man": "man-db",
    "nc": "netcat-openbsd",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "strace": "strace",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
    "useradd": "passwd",
    "virsh": "libvirt-clients",
    "virt-admin": "libvirt-clients",
}


def pytest_addoption(parser):
    parser.addoption("--run-long", action="store_true", help="also run the tests marked long")


def pytest_collection_modifyitems(config, items):
    """Leave out the long ones unless asked: not skipped, because nothing is wrong with them."""
    if config.getoption("--run-long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A missing part of the system is an error with its remedy: a skip would go unnoticed."""
    if item.get_closest_marker("system") and (remedy := what_is_missing()):
        raise RuntimeError(remedy)


@functools.cache
def what_is_missing():
    if os.geteuid() != 0:
        return "the system tests need root (mount namespaces): run script/test"
    packages = {
        package
        for command, package in COMMANDS.items()
        if shutil.which(command, path=SYSTEM_PATH) is None
    }
    if not list(Path("/usr").glob("lib*/**/connection-driver/libvirt_driver_qemu.so")):
        packages.add("libvirt-daemon-driver-qemu")
    if run_to_end([INTERPRETER, "-c", "import libvirt"], deadline_s=30).status != 0:
        packages.add("python3-libvirt")
    return f"missing: apt-get install {' '.join(sorted(packages))}" if packages else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show beside a failure what the daemons that it may have used said."""
    report = yield
    if report.failed and item.get_closest_marker("system"):
        for daemon in STARTED:
            if daemon.directory.exists():
                report.sections.append((f"{daemon.name} {daemon.directory}", daemon.story()))
    return report
