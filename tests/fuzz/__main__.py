"""Coverage-guided fuzzing of one target, or of one after the other.

    python -m tests.fuzz routes --time 60
    python -m tests.fuzz all --runs 10000000 --corpus /tmp/found
    python -m tests.fuzz merge routes --corpus /tmp/found

A finding ends the run with a traceback; the input that made it is left in the current directory.
`merge` takes over from --corpus, into the repository, what reaches anything that the kept inputs
do not.

atheris guides and counts. Each target gets a process of its own, because atheris ends it.
"""

import argparse
import importlib
import importlib.util
import math
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.kept import CORPUS, SHARES, TARGETS, name_of

LONGEST_INPUT = 2048
LONGEST_RUN_S = 20  # of a single input
MOST_MIB = 2048
INSTRUMENTED = ["proxyd", "jeepney", "scramp"]
NO_ATHERIS = (
    "atheris is not installed, and without it nothing guides the mutations: pip install '.[fuzz]'"
    " (the kept inputs and fixed mutations of them run without it: pytest tests/fuzz)"
)


def main(argv):
    options = parsed(argv)
    if importlib.util.find_spec("atheris") is None:
        print(NO_ATHERIS, file=sys.stderr)
        return 2
    names = TARGETS if options.target == "all" else (options.target,)
    if options.inside:
        return fuzz(options.target, options.inside)
    worst = 0
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            status = run(name, options, Path(scratch))
        worst = max(worst, abs(status))
    return worst


def parsed(argv):
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", nargs="?", choices=["run", "merge"], default="run")
    parser.add_argument("target", choices=["all", *TARGETS])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--runs", type=int, help="inputs; of all, spread over the targets")
    length.add_argument("--time", type=int, help="seconds, for each target")
    parser.add_argument("--corpus", type=Path, help="where new inputs are kept, by target")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    words = list(argv)
    if words and words[0] not in {"run", "merge"} and not words[0].startswith("-"):
        words.insert(0, "run")
    return parser.parse_args(words)


def run(name, options, scratch):
    """One target in a process of its own; its exit status."""
    found = (options.corpus or scratch / "found") / name
    found.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    words = scratch / "words"
    target = importlib.import_module(f"tests.fuzz.{name}")
    words.write_text("".join(f'"{escaped(word)}"\n' for word in target.WORDS))
    flags = [
        f"-dict={words}",
        f"-max_len={LONGEST_INPUT}",
        f"-timeout={LONGEST_RUN_S}",
        f"-rss_limit_mb={MOST_MIB}",
        f"-artifact_prefix={name}-",
        "-print_final_stats=1",
    ]
    if options.verb == "merge":
        merged = scratch / "merged"
        merged.mkdir()
        status = started(name, ["-merge=1", *flags, str(merged), str(kept), str(found)])
        if status == 0 and any(merged.iterdir()):
            replace(kept, merged)
        return status
    if options.runs is not None:
        runs = runs_of(name, options.runs) if options.target == "all" else options.runs
        flags.append(f"-runs={runs}")
    if options.time is not None:
        flags.append(f"-max_total_time={options.time}")
    print(f"--- {name}", flush=True)
    return started(name, [*flags, str(found), str(kept)])


def runs_of(name, total):
    """What is this target's part of all."""
    return math.ceil(total * SHARES[name] / sum(SHARES.values()))


def started(name, flags):
    return subprocess.run([*inside(name), *flags], check=False).returncode


def inside(name):
    """The command of a target's own process."""
    return [sys.executable, "-m", "tests.fuzz", name, "--inside"]


def replace(kept, merged):
    for path in kept.iterdir():
        path.unlink()
    for path in merged.iterdir():
        data = path.read_bytes()
        (kept / name_of(data)).write_bytes(data)


def escaped(word):
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in word
    )


def fuzz(name, flags):
    """Never returns: libFuzzer ends the process."""
    import atheris  # noqa: PLC0415 (optional)

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module(f"tests.fuzz.{name}")
    # To merge, libFuzzer starts itself again, through a shell.
    atheris.Setup([shlex.join(inside(name)), *flags], target.one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
