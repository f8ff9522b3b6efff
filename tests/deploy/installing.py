"""Installs into a directory, as `proxyd install` does, on a host of the test's making."""

import argparse

from proxyd.deploy.host import Host
from proxyd.deploy.install import (
    add_install_arguments,
    add_uninstall_arguments,
    install,
    uninstall,
)

PROGRAM = "/usr/bin/true"  # it need not be proxyd, but systemd-analyze wants it to be there
UNITS = "usr/local/lib/systemd/system"


class Commands:
    """What was run, in order; `failing` maps a command's first words to its complaint."""

    def __init__(self, failing=None):
        self.run = []
        self._failing = failing or {}

    def __call__(self, command):
        self.run.append(" ".join(command))
        return next(
            (said for it, said in self._failing.items() if self.run[-1].startswith(it)), None
        )


def a_host(**changes):
    return Host(**{"euid": 0, "systemd": 252, "booted": False, "run": Commands(), **changes})


def whole_parser():
    """A command line that is like proxyd's, and smaller."""
    whole = argparse.ArgumentParser(prog="proxyd", description="Serves.")
    commands = whole.add_subparsers()
    add_install_arguments(commands.add_parser("install", description="Puts in place."))
    add_uninstall_arguments(commands.add_parser("uninstall", description="Takes away."))
    return whole


def run_install(*options, host=None, program=PROGRAM):
    """Returns the exit status."""
    whole = whole_parser()
    named = ["--program", program] if program else []
    return install(whole.parse_args(["install", *named, *options]), whole, host or a_host())


def run_uninstall(*options, host=None):
    return uninstall(whole_parser().parse_args(["uninstall", *options]), host or a_host())


def snapshot(root):
    """Every file below a directory and what it holds."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
