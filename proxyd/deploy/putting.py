"""Writes and removes files so that each is at any time the old one or the new one, whole."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from proxyd.deploy import manifest as manifests
from proxyd.deploy.manifest import Manifest, below
from proxyd.deploy.plan import Action, Step, after


def carry_out_installation(steps: list[Step], manifest: Manifest, root: Path) -> None:
    """Take the steps. Raises OSError; what was done by then, a later uninstall will find."""
    final = after(steps, manifest)
    written = [step.path for step in steps if step.action.writes]
    final.directories = _with_missing([*written, manifests.PATH], manifest.directories, root)
    # Known before they are there: old and new content both count as ours while this goes on.
    _write_manifest(Manifest(_merged(manifest, final), final.directories, final.former), root)
    _carry_out(steps, root)
    _write_manifest(final, root)


def carry_out_removal(steps: list[Step], manifest: Manifest, root: Path) -> None:
    """Take the steps and forget the manifest, with all directories that are empty then."""
    _carry_out(steps, root)
    with suppress(FileNotFoundError):
        below(root, manifests.PATH).unlink()
    for directory in sorted(manifest.directories, key=len, reverse=True):
        with suppress(OSError):  # somebody else uses it by now, or has removed it
            below(root, directory).rmdir()


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place at once. A symbolic link there is replaced, not followed."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            os.fchmod(handle, mode)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _carry_out(steps: Iterable[Step], root: Path) -> None:
    for step in steps:
        path = below(root, step.path)
        if step.action.writes:
            _make_directory(path.parent)
            write_whole(path, step.content, step.mode)
        elif step.action is Action.REMOVE:
            path.unlink(missing_ok=True)


def _write_manifest(manifest: Manifest, root: Path) -> None:
    path, content = below(root, manifests.PATH), manifest.encoded()
    _make_directory(path.parent)
    if not (path.is_file() and path.read_bytes() == content):
        write_whole(path, content, 0o644)


def _make_directory(path: Path) -> None:
    """With all that is missing above, whatever the umask of whoever installs: others read it."""
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir()
        path.chmod(0o755)


def _with_missing(paths: Iterable[str], known: list[str], root: Path) -> list[str]:
    parents = {str(parent) for path in paths for parent in Path(path).parents}
    missing = {each for each in parents if each != "/" and not below(root, each).is_dir()}
    return sorted(missing.union(known))


def _merged(old: Manifest, new: Manifest) -> dict[str, list[str]]:
    return {
        path: sorted({*old.files.get(path, ()), *new.files.get(path, ())})
        for path in {*old.files, *new.files}
    }
