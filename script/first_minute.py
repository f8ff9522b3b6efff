"""The first minute of newcomers, played on a minimal host. See script/first-minute.

Runs in the private tree of the same release, whose systemd-nspawn boots the host and whose
debootstrap makes it. The host has what debootstrap's smallest variant has, and beside it systemd,
D-Bus, polkit, sudo and git. Its users are no model users:

  ann   may make namespaces, and nothing else; then not even that
  joe   may not, but use sudo; what he makes nobody else may read, and his language is not installed
  root  has a checkout with a path that has to be quoted

Each has a clone in a home that is closed to others. What is made once is kept in .bed: the host as
debootstrap makes it, packages, wheels. joe makes the tree of the tests, as root would, and root is
given his. The tests are a few folders: script/test runs the whole elsewhere.
"""

import ctypes
import os
import re
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from script.environment import requirements
from tests.bed.command import clean_environment, end_process
from tests.bed.daemon import short_directory
from tests.bed.machine import Machine, escaped
from tests.bed.waiting import wait_until

CHECKOUT: Final = Path(__file__).resolve().parents[1]
BED: Final = Path(os.environ.get("PROXYD_BED", CHECKOUT / ".bed"))
PACKAGES: Final = "systemd,systemd-sysv,libpam-systemd,dbus,polkitd,sudo,git,ca-certificates,procps"
# Not those with daemons: a container refuses them limits and networks that a host would grant.
TESTS: Final = ("tests/wire", "tests/log")
PATIENCE_S: Final = 1800.0
ATTEMPTS: Final = 2  # of whatever fetches here
# What apt and pip say of it.
NO_NETWORK: Final = re.compile(
    r"Temporary failure|Could not resolve|Failed to fetch|Connection timed out|Connection reset"
    r"|Hash Sum mismatch|50[0-4] +\S|ReadTimeoutError|NewConnectionError|ProtocolError"
)
POLKIT_LIMIT_S: Final = 5.0  # without the bus it takes 25
# Before the first useful line: two a step, and one that says that daemons start.
NOISE_LIMIT: Final = 10
KEPT: Final = "/var/cache/bed"  # on the host
# How the host reaches the network.
NETWORK: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pip.conf",
    "/run/home/.config/pip/pip.conf",
)

# Of the host's files what changes by itself.
LIVELY: Final = re.compile(
    r"/(proc|sys|dev|run/(systemd|log|udev|sudo|user|utmp|dbus|agetty\.reload)|var/log|var/lib/sudo"
    r"|var/lib/systemd|var/cache/bed|etc/resolv\.conf)(/|$)"
)
IN_A_NAMESPACE: Final = """
mount -t tmpfs tmpfs /run
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec systemd-nspawn "$@"
"""


class Host(Machine):
    """The newcomers' machine: a directory with a whole system, which keeps what is written."""

    name = "host"

    def __init__(self, directory: Path, system: Path, kept: Path) -> None:
        super().__init__(directory)
        self.system = system
        self.kept = kept

    def _launch(self) -> "subprocess.Popen[bytes]":
        command = [
            *("unshare", "--mount", "sh", "-ec", IN_A_NAMESPACE, "host"),
            *(*map(str, self._groups), "--"),
            *("--quiet", "--register=no", "--keep-unit", "--machine=host"),
            *("-D", str(self.system), "--capability=all"),
            f"--bind-ro={escaped(self.kept)}:{KEPT}",
            *("--link-journal=no", "--resolv-conf=copy-host", "--timezone=off"),
            *("--console=read-only", "--notify-ready=yes", "--boot", "fstab=no"),
        ]
        with self.output.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment({"NOTIFY_SOCKET": str(self.directory / "notify")}),
                start_new_session=True,
            )


@dataclass(frozen=True, slots=True)
class User:
    """Somebody on the host, where the clone is, and what this user's shell has been told."""

    name: str
    clone: str
    has_sudo: bool = False
    may_make_namespaces: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: str = "022"

    @property
    def wheels(self) -> str:
        """Where pip finds what is kept, for those who run the tests; in .bed, which trees have."""
        return f"{self.clone}/.bed/wheels"

    def typed(self, host: Host, line: str, directory: str = "/") -> list[str]:
        """The words that type a line into this user's shell; in a session of its own."""
        # The user's login shell would forget where packages are kept for all of them.
        entered = ["nsenter", "--all", f"--target={host.pid}", "--", "setsid"]
        become = ["setpriv", "--reset-env", f"--reuid={self.name}", f"--regid={self.name}"]
        told = {"PROXYD_BED_PACKAGES": KEPT, **self.environment}
        if self.has_sudo:
            # A URL: the variable is split at blanks.
            told |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"file://{quote(self.wheels)}"}
        given = ["--init-groups", "env", *(f"{name}={value}" for name, value in told.items())]
        shell = f"umask {self.umask} && cd {shlex.quote(directory)} && {line}"
        return [*entered, *become, *given, "bash", "-c", shell]

    def bounds(self) -> dict[str, Any]:
        """What subprocess needs to start a command as this user's."""
        return {} if self.may_make_namespaces else {"preexec_fn": without_user_namespaces}


ANN: Final = User("ann", "/home/ann/my code/proxyd")
NOBODY: Final = replace(ANN, may_make_namespaces=False)
JOE: Final = User(
    "joe",
    "/home/joe/my code/proxyd",
    has_sudo=True,
    may_make_namespaces=False,
    environment={"LC_ALL": "xx_XX.UTF-8", "TERM": "dumb"},
    umask="077",
)
ROOT: Final = User("root", "/root/it's all größe/proxyd", has_sudo=True)
USERS: Final = (ANN, JOE, ROOT)


def main(release: str) -> int:
    """0 when all went as it should; an AssertionError says what did not."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # noqa: TID251
    began = time.monotonic()
    took: dict[str, float] = {}
    kept = BED / "apt" / release / "cache" / "archives"  # what this tree was made of
    work = BED / f"first-minute-{release}"
    remove(work)
    try:
        system = make_system(release, work / "host", kept)
        tell(began, "there is a minimal host")
        with short_directory(0o755) as directory, Host(directory, system, kept) as host:
            settle(host)
            tell(began, "it has booted")
            for user in USERS:
                started = time.monotonic()
                play(host, user, began)
                took[user.name] = time.monotonic() - started
                if user is JOE:
                    hand_over(system, f"{release}-test", JOE, ROOT)
    finally:
        remove(work)
    shown = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
    tell(began, f"all {len(took)} passed: {shown}")
    return 0


def tell(began: float, what: str) -> None:
    print(f"{time.monotonic() - began:5.0f} s  {what}", flush=True)


def remove(work: Path) -> None:
    if work.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", work], check=True)


def minimal_system(release: str, kept: Path) -> Path:
    """What debootstrap makes, kept for the next time."""
    system = BED / "hosts" / release
    made = system.with_name(f"{release}.made")
    if made.exists():
        return system
    options = ["--variant=minbase", f"--include={PACKAGES}", f"--cache-dir={kept}"]
    fetch_into(system, ["debootstrap", *options, release, str(system), mirror(release)])
    made.touch()
    return system


def fetch_into(directory: Path, command: Sequence[str]) -> None:
    """Run what fetches from the network, into an empty directory; twice, if it has to be.

    What it says matters only if it fails.
    """
    for attempt in range(ATTEMPTS):
        remove(directory)
        directory.mkdir(parents=True)
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return
        end = "\n".join(done.stdout.splitlines()[-30:])
        print(f"{command[0]} failed, {attempt + 1} of {ATTEMPTS} times:\n{end}", flush=True)
    raise AssertionError(f"{command[0]} failed with status {done.returncode}")


def make_system(release: str, system: Path, kept: Path) -> Path:
    """A minimal host, with three users and a clone for each."""
    system.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", minimal_system(release, kept), system], check=True)
    shutil.copy("/etc/apt/sources.list", system / "etc/apt/sources.list")
    for name in NETWORK:
        if Path(name).is_file():
            shutil.copy(name, system / ("etc/pip.conf" if "pip" in name else name[1:]))
    # The checkout may belong to the user who called sudo, whom git would distrust.
    (system.parent / ".gitconfig").write_text(
        "[safe]\ndirectory = *\n[init]\ndefaultBranch = main\n[advice]\ndetachedHead = false\n"
    )
    clone = system.parent / "clone"
    subprocess.run(
        ["git", "clone", "--quiet", "--no-local", CHECKOUT, clone],
        check=True,
        env=clean_environment({"HOME": str(system.parent)}),
    )
    (system / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 host\n")
    wheels = wheels_of(release)
    for user in USERS:
        if user is not ROOT:
            inside(system, "useradd", "--create-home", "--shell=/bin/bash", user.name)
            (system / "home" / user.name).chmod(0o700)
            if user.has_sudo:
                allowed = f"{user.name} ALL=(ALL) NOPASSWD: ALL\n"
                (system / "etc/sudoers.d" / user.name).write_text(allowed)
        own = system / user.clone[1:]
        own.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", clone, own], check=True)
        if user.has_sudo:  # for the others pip fetches what they need, as for any newcomer
            shutil.copytree(wheels, system / user.wheels[1:])
        inside(system, "chown", "--recursive", f"{user.name}:", str(Path(user.clone).parent))
    return system


def extras_of_the_tests() -> list[str]:
    """As bootstrap has them."""
    found = re.search(r"^ *test\) extras=\((.+)\)", (CHECKOUT / "script/common").read_text(), re.M)
    assert found is not None
    return found[1].split()


def wheels_of(release: str) -> Path:
    """The Python packages that both commands need, kept for the next time."""
    wheels = BED / "wheels" / release
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = requirements(project, extras_of_the_tests())
    made = wheels.with_name(f"{release}.made")
    if not made.exists() or made.read_text().splitlines() != wanted:
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        fetch_into(wheels, [*wheel, f"--wheel-dir={wheels}", *wanted])
        made.write_text("\n".join(wanted))
    return wheels


def hand_over(system: Path, tree: str, before: User, after: User) -> None:
    """A tree that one has made is the next one's."""
    (system / before.clone[1:] / ".bed" / tree).rename(system / after.clone[1:] / ".bed" / tree)


def inside(system: Path, *words: str) -> None:
    subprocess.run(["chroot", system, *words], check=True, env=clean_environment())


def mirror(release: str) -> str:
    """Where this tree's own packages are from."""
    for line in Path("/etc/apt/sources.list").read_text().splitlines():
        found = re.fullmatch(r"deb (?:\[.*\] )?(\S+) (\S+) .*", line)
        if found and found[2] == release:
            return found[1]
    raise AssertionError(f"no source of {release} in /etc/apt/sources.list")


def settle(host: Host) -> None:
    """What a host does once, some time after its first start, is done."""
    host.run("systemctl", "is-system-running", "--wait", deadline_s=120)
    polkit_seconds(host)


def play(host: Host, user: User, began: float) -> None:
    """Type both commands, and compare the host before and after."""
    before = state_of(host)
    polkit = host.show("polkit.service", "MainPID")
    lines, noise = demo(host, user, "")
    tell(began, f"{user.name}: ./script/run, and {lines} lines of it pasted, after {noise} others")
    more, _ = demo(host, user, " -v")
    assert more > lines
    tell(began, f"{user.name}: ./script/run -v, and {more} lines of it pasted")
    line = f"./script/test {' '.join(TESTS)}"
    if user.has_sudo:
        tested, said = to_end(host, user, line, user.clone)
        if tested != 0 and lacked_network(said):
            tested, said = to_end(host, user, line, user.clone)
        assert tested == 0, said
        passed = re.search(r"^=+ (\d+ passed.*?) =+$", said, re.MULTILINE)
        assert passed, said
        tell(began, f"{user.name}: {line}: {passed[1]}")
    else:
        run = "./script/run"  # names three ways out
        for each, refused, most in ((user, line, 4), (NOBODY, line, 4), (NOBODY, run, 9)):
            tested, said = to_end(host, each, refused, user.clone)
            assert tested == 1, said
            assert "Ask the administrator" in said, said
            assert len(said.splitlines()) <= most, said
        tell(began, f"{user.name}: what takes root or namespaces is refused")
    status, said = to_end(host, user, "git status --porcelain 2>&1 | sed s/^/git:/", user.clone)
    assert status == 0, said
    assert "git:" not in said, said
    polkit_now = host.show("polkit.service", "MainPID")
    assert polkit_now == polkit, "\n".join(host.journal("polkit.service")[-10:])
    after = state_of(host)
    for what, was in before.items():
        assert after[what] == was, f"{what}:\n{difference(was, after[what])}"
    seconds = polkit_seconds(host)
    assert seconds < POLKIT_LIMIT_S, f"polkit takes {seconds:.1f} s to answer"
    clone = host.root / user.clone[1:]
    owners = {path.lstat().st_uid for path in everything(clone, without=".bed")}
    assert owners == {clone.stat().st_uid}
    tell(began, f"{user.name}: the host is as it was; polkit answers in {seconds:.2f} s")


def everything(top: Path, *, without: str) -> Iterator[Path]:
    for directory, below, names in os.walk(top):
        below[:] = [each for each in below if each != without]
        yield from (Path(directory, each) for each in (*below, *names))


def to_end(host: Host, user: User, line: str, directory: str = "/") -> tuple[int, str]:
    """Exit status and output of a line."""
    done = subprocess.run(
        user.typed(host, line, directory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=clean_environment(),
        timeout=PATIENCE_S,
        check=False,
        **user.bounds(),
    )
    return done.returncode, done.stdout


def demo(host: Host, user: User, options: str) -> tuple[int, int]:
    """Start it, paste what it prints, stop it; how many lines were pasted, and stood before."""
    with demo_running(host, user, options) as output:
        before, useful, shown = output.read_text().partition("\nproxyd runs ")
        assert useful, before
        # Each bash says that a language is not installed, the user's own first.
        ours = [line for line in before.strip().splitlines() if "setlocale" not in line]
        assert len(ours) <= NOISE_LIMIT, before
        lines = re.findall(r"^  (\S.*)$", shown, re.MULTILINE)
        for line in lines:
            status, said = to_end(host, user, line, "/usr")
            assert status == 0, f"{line}\n{said}"
        wait_until(
            lambda: "has been cut off" in output.read_text(), 15, "the demo says who was cut off"
        )
    said = output.read_text()
    assert "Traceback" not in said, said
    return len(lines), len(ours)


@contextmanager
def demo_running(host: Host, user: User, options: str) -> Iterator[Path]:
    """Its output; it has printed its lines, and is stopped as Ctrl-C does it."""
    output = host.directory / "demo"
    process = start_demo(host, user, options, output)
    try:
        if process.poll() is not None and lacked_network(output.read_text()):
            process = start_demo(host, user, options, output)
        assert process.poll() is None, output.read_text()
        yield output
        # nsenter passes no signal on; whom it has started leads a session of its own.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.killpg(int(children[0]), signal.SIGINT)
        status = process.wait(60)
        assert status == 0, f"status {status}\n{output.read_text()}"
    finally:
        end_process(process)


def start_demo(host: Host, user: User, options: str, output: Path) -> "subprocess.Popen[bytes]":
    """Returns when it has printed its lines, or has ended."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            user.typed(host, f"./script/run{options}", user.clone),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            **user.bounds(),
        )
    try:
        wait_until(
            lambda: "Ctrl-C here" in output.read_text() or process.poll() is not None,
            PATIENCE_S,
            f"{user.name}'s demo has started",
        )
    except BaseException:
        end_process(process)
        raise
    return process


def lacked_network(said: str) -> bool:
    """Whether it may be typed once more: that is nobody's fault here."""
    lacked = NO_NETWORK.search(said) is not None
    if lacked:
        print(f"once more, for the network failed:\n{said}", flush=True)
    return lacked


def without_user_namespaces() -> None:
    """From here on, for this process and those that it starts, unshare(CLONE_NEWUSER) fails.

    The host's own switch would be thrown for the whole machine, whose kernel all of this shares.
    Root may set a filter without PR_SET_NO_NEW_PRIVS, which would disarm sudo.
    """
    unshare = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
    clone_newuser, eperm = 0x10000000, 1
    load, jump_if_equal, jump_if_set, give = 0x20, 0x15, 0x45, 0x06
    program = (
        (load, 0, 0, 0),  # the call's number
        (jump_if_equal, 0, 2, unshare),
        (load, 0, 0, 16),  # the low half of its first argument
        (jump_if_set, 1, 0, clone_newuser),
        (give, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        (give, 0, 0, 0x00050000 | eperm),  # SECCOMP_RET_ERRNO
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    filtered = struct.pack("HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(22, 2, ctypes.c_char_p(filtered), 0, 0) != 0:  # PR_SET_SECCOMP, a filter
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def state_of(host: Host) -> dict[str, list[str]]:
    """All of the host that is to be as it was."""
    polkit_seconds(host)  # which starts it, if it does not run
    show = ("--no-legend", "--no-pager", "--plain", "--full")
    running = host.systemctl("list-units", "--state=active", "--type=service,socket,timer", *show)
    return {
        "units enabled": host.systemctl("list-unit-files", *show).splitlines(),
        "units running": sorted(line.split()[0] for line in running.splitlines()),
        "mounts": sorted(
            line.split()[4] for line in Path(f"/proc/{host.pid}/mountinfo").read_text().splitlines()
        ),
        "processes": sorted(processes(host)),
        "files": sorted(files(host.root)),
    }


def processes(host: Host) -> Iterator[str]:
    """The command lines of its processes but those of this very question."""
    listing = host.run("ps", "-e", "-o", "args=").succeeded()
    for line in listing.splitlines():
        if not re.match(r"ps -e|\(sd-pam\)|\[", line):
            yield line.strip()


def files(root: Path) -> Iterator[str]:
    """Every file of the host outside of the clones, with what could have been changed of it."""
    top = os.fspath(root)
    clones = {top + user.clone for user in USERS}
    for directory, below, names in os.walk(top):
        shown = directory.removeprefix(top)
        below[:] = [
            each
            for each in below
            if not LIVELY.match(f"{shown}/{each}") and f"{directory}/{each}" not in clones
        ]
        for each in (*names, *below):
            path = f"{shown}/{each}"
            if not LIVELY.match(path):
                found = os.lstat(f"{directory}/{each}")
                # Of a directory the size says nothing, and its time not more than the files in it.
                sized = (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else ()
                yield f"{path} {found.st_mode:o} {found.st_uid}:{found.st_gid} {sized}"


def difference(was: Sequence[str], now: Sequence[str]) -> str:
    gone = [f"- {each}" for each in sorted(set(was) - set(now))]
    new = [f"+ {each}" for each in sorted(set(now) - set(was))]
    return "\n".join([*gone, *new][:50])


def polkit_seconds(host: Host) -> float:
    """How long polkit takes to say whether root may do something."""
    began = time.monotonic()
    question = ["pkcheck", "--action-id", "org.freedesktop.policykit.exec", "--process", "1"]
    host.run(*question, deadline_s=60).succeeded()
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
