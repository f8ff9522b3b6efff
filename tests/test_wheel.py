"""The wheel, installed into an environment of its own: its files, its commands, what it says where
an extra is missing. Nothing is fetched: what proxyd needs is lent by the tests' own environment.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.bed.command import clean_environment, held_open, run_to_end
from tests.bed.daemon import short_directory

ROOT = Path(__file__).parent.parent
SOURCES = ("certs", "loadtest", "proxyd", "units")
BESIDE = ("LICENSE", "README.md", "pyproject.toml", "setup.py")
SHIPPED = {".py", ".c", ".cnf", ".css", ".js"}
# The modules of the extras, as they are called in an environment; and what is proxyd itself.
EXTRAS = re.compile(r"(gssapi|k5test|hdrh|pyhdrh|matplotlib)\b")
OURS = re.compile(r"(__editable__|_?proxyd\b)")
DEADLINE_S = 120


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy, for setuptools leaves its work behind; with what an older version has left there."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "build/lib/certs").mkdir(parents=True)
    (tree / "build/lib/certs/__init__.py").touch()
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run_to_end(
        [*build, "--disable-pip-version-check", "-w", str(out), str(tree)], deadline_s=DEADLINE_S
    ).succeeded()
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def files(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


class Environment:
    """A virtual environment with the wheel, and a directory where somebody types."""

    def __init__(self, directory):
        self.directory = directory
        self.here = directory / "a place"
        (self.here / "proxyd").mkdir(parents=True)  # as beside a checkout: no package, but a folder
        self.programs = directory / "env/bin"

    def __call__(self, command, *, path=True, cwd=None):
        """Types a command line, with or without the environment on the PATH."""
        environment = clean_environment()
        if path:
            environment["PATH"] = f"{self.programs}:{environment['PATH']}"
        return subprocess.run(
            ["sh", "-c", command],
            cwd=cwd or self.here,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )


def make_environment(directory, wheel, lent):
    made = Environment(directory)
    python = made.programs / "python"
    venv = [sys.executable, "-m", "venv", "--without-pip", str(directory / "env")]
    run_to_end(venv, deadline_s=DEADLINE_S).succeeded()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = ["--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    run_to_end([*pip, *install], deadline_s=DEADLINE_S).succeeded()
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    made.packages = Path(
        run_to_end([str(python), "-c", query], deadline_s=DEADLINE_S).succeeded().strip()
    )
    for each in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        for entry in each.iterdir():
            if lent(entry.name) and not (made.packages / entry.name).exists():
                (made.packages / entry.name).symlink_to(entry)
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory, wheel):
    """Installed as `pip install proxyd` does it: without extras."""

    def lent(name):
        return not EXTRAS.match(name) and not OURS.match(name)

    return make_environment(tmp_path_factory.mktemp("plain env"), wheel, lent)


@pytest.fixture(scope="module")
def full(tmp_path_factory, wheel):
    """Installed with all extras."""
    return make_environment(
        tmp_path_factory.mktemp("full env"), wheel, lambda name: not OURS.match(name)
    )


def test_it_has_every_module_and_no_package_but_one(files):
    assert {name.partition("/")[0].partition("-")[0] for name in files} == {"proxyd"}
    for source, package in (("proxyd", ""), ("certs", "proxyd/"), ("loadtest", "proxyd/")):
        shipped = {
            f"{package}{path.relative_to(ROOT)}"
            for path in (ROOT / source).rglob("*")
            if path.suffix in SHIPPED
        }
        assert shipped
        assert shipped - files == set()
    assert not {name for name in files if name.startswith(("certs/", "loadtest/", "tests/"))}


def test_it_has_the_files_of_the_service(files):
    units = {
        path.relative_to(ROOT / "units") for path in (ROOT / "units").rglob("*") if path.is_file()
    }
    shipped = {name.partition("/share/proxyd/units/")[2] for name in files}
    assert {str(unit) for unit in units} - shipped == set()


def test_what_is_installed_is_one_package_and_its_two_commands(full):
    ours = {each.name for each in full.packages.iterdir() if not each.is_symlink()}
    assert {name.partition("-")[0] for name in ours} == {"proxyd"}
    assert {each.name for each in full.programs.glob("proxyd*")} == {"proxyd", "proxyd-loadtest"}


def test_its_commands_work_from_anywhere(full, plain):
    for environment in (full, plain):
        assert environment("proxyd --version").stdout.startswith("proxyd ")
        assert "proxyd certs" in environment("proxyd certs --help").stdout
        there = environment("proxyd install --dry-run --destdir ./root --program /usr/sbin/proxyd")
        assert (there.returncode, there.stderr) == (0, "")
        assert "/usr/local/lib/systemd/system/virtproxyd.service" in there.stdout
    told = full("proxyd-loadtest --help")
    assert (told.returncode, told.stderr) == (0, "")
    assert "compare" in told.stdout


def test_what_it_prints_can_be_pasted_where_no_shell_finds_it(plain):
    program = shlex.quote(str(plain.programs / "proxyd"))
    first = plain(f"{program} certs init --dir ./pki", path=False)
    assert first.returncode == 0
    (server,) = re.findall(r"^    (.* certs server .*)$", first.stdout, re.MULTILINE)
    pasted = plain(server.replace("HOST", "host.example.org"), path=False, cwd="/")
    assert (pasted.returncode, pasted.stderr) == (0, "")
    checked = plain(f"{server.partition(' certs ')[0]} certs check --dir ./pki --json", path=False)
    assert '"roles": [\n    "server"\n  ]' in checked.stdout


def test_its_processes_find_the_tool_beside_a_folder_of_its_name(full):
    quick = "--rounds 1 --calls 20 --warmup 5 --slices 1 --slice 0.02 --json"
    with short_directory() as directory:
        fake = [sys.executable, "-m", "tests.loadtest.fake_daemon", str(directory / "sock")]
        with held_open(fake, environment={"PYTHONPATH": str(ROOT)}) as process:
            assert process.stdout.readline() == "listening\n"
            target = f"a=unix:{directory}/sock"
            done = full(f"proxyd-loadtest compare --target {target} -c 2 {quick}")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["plan"]["connections"] == 2


def test_without_the_load_tools_extra_it_says_what_to_type(plain):
    done = plain("proxyd-loadtest compare --target a=unix:/p")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    python = shlex.quote(str(plain.programs / "python"))
    assert line.endswith(f"{python} -m pip install 'hdrhistogram>=0.10.3'")


def test_without_kerberos_a_host_that_wants_it_is_told_the_packages(plain):
    conf = plain.here / "conf"
    conf.write_text('listen_tls = 0\nlisten_tcp = 1\nauth_tcp = "sasl"\n')
    done = plain(f"proxyd --check-config -f {shlex.quote(str(conf))}")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    for said in ("apt-get install gcc python3-dev libkrb5-dev", "dnf install", "proxyd[gssapi]"):
        assert said in last
    assert "Traceback" not in done.stderr


def install_where_nothing_can_be_built(environment, what):
    """`pip install WHAT`, as far as to what a build is asked for, on a host without a compiler."""
    options = "--quiet --no-build-isolation --no-index --no-deps --dry-run"
    python = shlex.quote(str(environment.programs / "python"))
    return environment(
        f"PATH=/nonexistent exec {shlex.quote(sys.executable)} -m pip --disable-pip-version-check"
        f" --python {python} install {options} {shlex.quote(what)}"
    )


def test_kerberos_that_cannot_be_built_is_refused_with_the_packages_names(plain, tree):
    done = install_where_nothing_can_be_built(plain, f"{tree}[gssapi]")
    assert done.returncode == 1
    missing = "krb5-config"
    for said in (missing, "apt-get install gcc python3-dev libkrb5-dev", "dnf install gcc python3"):
        assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_what_needs_no_compiler_is_installed_without_one(plain, full, tree):
    for environment, what in ((plain, tree), (full, f"{tree}[gssapi]")):
        done = install_where_nothing_can_be_built(environment, str(what))
        assert (done.returncode, done.stderr) == (0, "")


def test_without_kerberos_passwords_still_serve(plain):
    conf, passwords = plain.here / "scram", plain.here / "passwords"
    passwords.unlink(missing_ok=True)
    conf.write_text(f'auth_unix_rw = "sasl"\nproxyd_passwords = "{passwords}"\n')
    quoted = shlex.quote(str(conf))
    assert plain(f"echo secret | proxyd passwd --stdin joe -f {quoted}").returncode == 0
    done = plain(f"proxyd --check-config -f {quoted}")
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_that_a_plain_installation_needs_is_built_from_source(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
    wanted = re.findall(r"^Requires-Dist: ([^;\n]*)$", archive.read(name).decode(), re.MULTILINE)
    known = {
        *("cryptography", "h11", "jeepney", "prometheus-client", "pyopenssl", "rich", "scramp"),
        "trio",
    }
    assert {re.match(r"[a-z0-9-]*", each)[0] for each in wanted} == known
