"""What all tests share: the markers' meaning, hypothesis without a clock, the daemons' logs."""

import functools
import os
import shutil
from pathlib import Path

from proxyd.tls.tickets import load_openssl

load_openssl()  # before anybody else does: it has to be done in a certain way

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from proxyd import invocation  # noqa: E402
from tests.bed import examples, place, telling  # noqa: E402
from tests.bed.command import SYSTEM_PATH, run_to_end  # noqa: E402
from tests.bed.python_libvirt import INTERPRETER  # noqa: E402
from tests.bed.side_by_side import SideBySide  # noqa: E402

HERE = Path(__file__).parent

# Files and folders whose tests compare times or loads, or look at all that this host has.
ALONE = (
    "bed/test_bed.py",
    "bed/test_bystander.py",
    "bed/test_hostile.py",
    "daemon/test_serve.py",  # and the next: a worker has threads that take signals
    "process/test_signals.py",
    "endpoint/test_couriers",
    "audit/test_load.py",
    "loadtest/test_run",
    "loadtest/test_soak",
    "system/test_admin_thousands.py",
    "system/test_before_authentication.py",  # weighs a process that nobody else has used
    "system/test_faults_pace.py",
    "system/test_hostile_descriptors.py",
    "system/test_hostile_floods.py",
    "system/test_hostile_handshakes.py",
    "system/test_hostile_readers.py",
    "system/test_hostile_strangers.py",
    "system/test_readme_commands.py",
    "system/test_real_life.py::test_libvirtd",
    "system/test_scale.py",
    "system/test_stopping.py",
    "system/test_strangers.py",
    "system/test_tls_hostile.py",
    "system/test_upgrade_attacks.py",
    "system/test_upgrade_load.py",
    "system/test_upgrade_pause.py",
    "test_strangers_work.py",
)
# Of those that run side by side, what takes longest begins first, so that no worker is at it when
# the others have nothing left to do: by how long a file takes, then the other ones with daemons.
FIRST = (
    "figures/test_figures.py",
    "system/test_waiting.py",
    "system/test_systemd_doctor.py",
    "system/test_before_authentication.py",
    "system/test_document_commands.py",
    "relay/test_call_faults.py",
    "system/test_ssh.py",
    "system/test_faults_machine.py",
    "session/test_reception.py",
    "system/test_systemd_install.py",
    "system/test_tls.py",
    "system/test_same_as_direct",
    "system/",
    "loadtest/",
    "test_wheel.py",
)
# Those that compare times or loads. On a machine that others use as well, one comparison in some
# hundreds is not the program's: where a few of these are all that failed, they are tried once more,
# with nothing beside them (tests/__main__.py).
MEASURED = (
    "loadtest/test_compare.py",
    "audit/test_load.py",
    "loadtest/test_run",
    "system/test_admin_thousands.py",
    "system/test_before_authentication.py",
    "system/test_bulk.py",
    "system/test_faults_pace.py",
    "system/test_hostile_",
    "system/test_memory.py",
    "system/test_same_as_direct",
    "system/test_sasl_bulk.py",
    "system/test_scale.py",
    "system/test_ssh.py",
    "system/test_stopping.py",
    "system/test_strangers.py",
    "system/test_tls_bulk.py",
    "system/test_tls_hostile.py",
    "system/test_tls_pace.py",
    "system/test_upgrade_load.py",
    "system/test_upgrade_pause.py",
    "system/test_waiting",
    "test_strangers_work.py",
)
# What --unit runs: as any user, with nothing but Python and the wheels.
UNIT = (
    "admin/test_p",
    "config/",
    "endpoint/",
    "metrics/",
    "negotiation/",
    "pki/",
    "relay/",
    "sasl/",
    "test_floors.py",
    "tls/",
    "wire/",
)
# Of these, those that need root or packages all the same.
NOT_UNIT = (
    "endpoint/test_ancillary.py",
    "endpoint/test_couriers",
    "relay/test_flow_descriptors.py",
    "sasl/test_gssapi.py",
    "sasl/test_gssapi_moving.py",
    "sasl/test_mechanisms.py",
)

# Where the answer may be another one on another release of the distribution: files, folders or
# tests, by what decides there. These run on every release that is supported. What Python alone
# decides is in UNIT as well. OpenSSL is not in it: ours comes with the wheel of cryptography.
DISTRIBUTION = (
    # Python's argparse and fork, and who reads what is made by it: bash, man, systemd, logrotate
    "cli/test_main.py",
    "deploy/",
    "process/test_background.py",
    "system/test_command_line.py::test_in_the_background",
    # libvirt's daemons, virsh, virt-admin, the binding
    "admin/test_same_as_libvirtd.py",
    "admin/test_virt_admin.py",
    "autostart/test_starter_real.py",
    "bed/test_bed.py",
    "doctor/test_gather.py::test_a_real_libvirtd",
    "system/test_admin.py",
    "system/test_command_line.py::test_a_path_that_libvirtd_serves",
    "system/test_command_line.py::test_a_users_daemon",
    "system/test_descriptors.py",
    "system/test_hostile_second_open.py",
    "system/test_identity.py",
    "system/test_moving.py",
    "system/test_parting.py",
    "system/test_readme_commands.py",
    "system/test_routing.py",
    "system/test_rules_virsh.py",
    "system/test_rules_virsh_polkit.py",
    "system/test_same_as_direct.py",
    "system/test_session_mode.py",
    "system/test_upgrade.py",
    # certtool, GnuTLS as libvirt has it, the openssl command
    "certs/test_programs.py",
    "certs/test_revoking.py",
    "pki/test_dname.py",
    "system/test_certificate_matrix.py",
    "system/test_rules_virsh_names.py",
    "system/test_tls.py",
    "system/test_tls_post_quantum.py",
    # the compiler, OpenSSL as it is built with
    "loadtest/test_limit_re",
    # Kerberos, cyrus-sasl
    "sasl/test_gssapi.py",
    "sasl/test_gssapi_moving.py",
    "sasl/test_keytab.py",
    "system/test_sasl.py",
    # polkit, D-Bus
    "doctor/test_gather.py::test_the_real_polkit",
    "polkit/test_authority_real.py",
    "system/test_polkit.py",
    # systemd, util-linux, sshd
    "bed/test_place.py",
    "system/test_ssh.py",
    "system/test_systemd",
)
# Of these, those that would say nothing new. By every transport virsh is compared on the hypervisor
# driver; on the test driver that is done once, locally. The clone's tests are some of these.
NOT_DISTRIBUTION = (
    "system/test_readme_commands.py::test_script_test",
    "system/test_sasl.py::test_virsh_says_the_same_of_the_test_driver",
    "system/test_ssh.py::test_a_program_never_waits",
    "system/test_ssh.py::test_virsh_says_the_same_of_the_test_driver",
    "system/test_tls.py::test_virsh_says_the_same_of_the_test_driver",
)

COMMANDS = {
    "cc": "gcc",
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
    "prometheus": "prometheus",
    "promtool": "prometheus",
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

# The tests that have failed, by name, and whether they may be looked at twice: those that compare
# times or look at all that this host has, and those with other people's daemons, whose threads race
# with each other now and then.
_failed = {}


def pytest_configure(config):
    config.pluginmanager.register(telling)
    examples.all_of_them = config.option.run_long
    hypothesis.settings.register_profile("proxyd", examples.profile())
    hypothesis.settings.load_profile("proxyd")
    if hasattr(config, "workerinput"):
        place.enter_own_network()
    elif not config.option.collectonly:
        config.proxyd_janitor = place.enter()


def pytest_runtest_logreport(report):
    if report.failed:
        measured = report.nodeid.removeprefix("tests/").startswith((*MEASURED, *ALONE))
        _failed[report.nodeid] = measured or "system" in report.keywords


def pytest_sessionfinish(session):
    # Workers have been given the option, too, and by this number something else.
    told = session.config.getoption("--tell-failed")
    if told and not hasattr(session.config, "workerinput") and all(_failed.values()):
        os.write(told, "".join(f"{each}\n" for each in _failed).encode())


def pytest_unconfigure(config):
    if janitor := getattr(config, "proxyd_janitor", None):
        janitor.finish()


def pytest_addoption(parser):
    parser.addoption("--run-long", action="store_true", help="also run the tests marked long")
    parser.addoption(
        "--packages", metavar="DIRECTORY", help="what script/package has built: run tests/package"
    )
    parser.addoption(
        "--unit", action="store_true", help="only tests that need no package of the system"
    )
    parser.addoption(
        "--tell-failed",
        metavar="DESCRIPTOR",
        type=int,
        help="write there what failed, if all of it may be looked at twice",
    )
    parser.addoption(
        "--part",
        choices=["beside", "alone"],
        help="only tests that may run beside others, or only those that may not",
    )


def pytest_ignore_collect(collection_path, config):
    """Of files and folders that --unit leaves out not even the imports must work.

    The part that runs alone is spared those of the other, unless tests were asked for by name.
    """
    if HERE not in collection_path.parents:
        return None
    path = collection_path.relative_to(HERE).as_posix()
    is_directory = collection_path.is_dir()
    if config.getoption("--unit") and not _is_in(path, is_directory, UNIT):
        return True
    if config.getoption("--unit") and path.startswith(NOT_UNIT):
        return True
    whole = all(Path(each).resolve() in {HERE, HERE.parent} for each in config.args)
    if config.getoption("--part") == "alone" and whole and not _is_in(path, is_directory, ALONE):
        return True
    return None


def _is_in(path, is_directory, names):
    """Whether a file is one of these, or a directory may hold some."""
    return path.startswith(names) or (
        is_directory and any(each.startswith(f"{path}/") for each in names)
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leave out what was not asked for: not skipped, because nothing is wrong with it."""
    for item in items:
        path = item.path.relative_to(HERE).as_posix()
        if item.get_closest_marker("alone"):
            raise pytest.UsageError(f"{path}: which tests run alone, tests/conftest.py says")
        name = f"{path}::{item.name}"
        if name.startswith(ALONE):
            item.add_marker("alone")
        if name.startswith(DISTRIBUTION) and not name.startswith(NOT_DISTRIBUTION):
            item.add_marker("distribution")
    left_out = [item for item in items if not _is_asked_for(config, item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
    if config.getoption("--part") == "beside":
        items.sort(key=_turn)


def _turn(item):
    """The place of its file among those that are to begin first."""
    path = item.path.relative_to(HERE).as_posix()
    return next((at for at, each in enumerate(FIRST) if path.startswith(each)), len(FIRST))


def _is_asked_for(config, item):
    if item.get_closest_marker("long") and not config.getoption("--run-long"):
        return False
    if item.get_closest_marker("package") and not config.getoption("--packages"):
        return False
    if config.getoption("--unit") and item.get_closest_marker("system"):
        return False
    part = config.getoption("--part")
    return part is None or (part == "alone") == (item.get_closest_marker("alone") is not None)


@pytest.fixture(scope="session")
def side_by_side(request):
    """Compares what a client does through proxyd with the direct way, time included."""
    return SideBySide(runs=3 if request.config.getoption("--run-long") else 1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A missing part of the system is an error with its remedy: a skip would go unnoticed."""
    invocation._named = ""  # which a command that ran in this process was told
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
