"""Files with their modes from the first moment on, never half of one and never over another."""

import os
import stat
from pathlib import Path

import pytest

from certs import storage
from certs.authority import Authority
from certs.failures import CannotDo
from certs.places import flat
from tests.bed.stranger import held_by_a_stranger


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_the_modes_are_the_same_under_every_umask(umask, tmp_path, mask):
    root, joe = tmp_path / "pki", tmp_path / "joe"
    umask(mask)
    authority = Authority.create(root, name="ca")
    authority.server("host.example.org")
    authority.client("ann")
    authority.client("joe", to=flat(joe))
    authority.revoke("joe")
    umask(0o022)

    private = {"CA/private", "CA/private/issued", "libvirt/private"}
    secret = {
        "CA/private/cakey.pem",
        "CA/private/ledger.json",
        "libvirt/private/serverkey.pem",
        "libvirt/private/clientkey.pem",
    }
    public = {"CA/cacert.pem", "CA/cacrl.pem", "libvirt/servercert.pem", "libvirt/clientcert.pem"}
    assert {mode_of(root / each) for each in private} == {0o700}
    assert {mode_of(root / each) for each in secret} == {0o600}
    assert {mode_of(root / each) for each in public} == {0o644}
    assert {mode_of(root / each) for each in ("", "CA", "libvirt")} == {0o755}
    assert mode_of(joe) == 0o700
    assert mode_of(joe / "clientkey.pem") == 0o600
    assert mode_of(joe / "clientcert.pem") == 0o644


def test_no_directory_above_is_open_to_everybody_when_there_is_no_umask(umask, tmp_path):
    umask(0)
    Authority.create(tmp_path / "a/b/pki", name="ca")
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a/b") == 0o755


def test_directories_above_are_as_private_as_the_umask_asks(umask, tmp_path):
    umask(0o077)
    Authority.create(tmp_path / "a/b/pki", name="ca")
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a/b") == 0o700


def test_a_key_is_never_readable_by_others_even_for_a_moment(umask, tmp_path, monkeypatch):
    made, really_open = {}, os.open

    def watching_open(path, flags, *mode, **more):
        descriptor = really_open(path, flags, *mode, **more)
        if flags & os.O_CREAT:
            made[Path(path).name] = (flags & os.O_EXCL, os.fstat(descriptor).st_mode & 0o777)
        return descriptor

    umask(0)
    monkeypatch.setattr(os, "open", watching_open)
    authority = Authority.create(tmp_path / "pki", name="ca")
    authority.server("host.example.org")
    authority.client("joe", to=flat(tmp_path / "joe"))
    authority.client("joe", to=flat(tmp_path / "joe"), force=True)

    keys = {name: first for name, first in made.items() if "key.pem" in name}
    assert len(keys) == 4
    assert set(keys.values()) == {(os.O_EXCL, 0o600)}
    # None of these is its final name: nobody finds half of a key there.
    assert all(name.startswith(".") for name in made)


def test_a_private_directory_is_never_open_to_others_even_for_a_moment(
    umask, tmp_path, monkeypatch
):
    made, really_mkdir = {}, os.mkdir

    def watching_mkdir(path, *mode, **more):
        really_mkdir(path, *mode, **more)
        made[Path(path).name] = mode_of(Path(path))

    umask(0)
    monkeypatch.setattr(os, "mkdir", watching_mkdir)
    Authority.create(tmp_path / "pki", name="ca").client("joe", to=flat(tmp_path / "joe"))
    assert made["private"] == made["joe"] == 0o700


def test_without_replace_the_file_that_is_there_wins(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(b"old")
    with pytest.raises(CannotDo, match=r"key\.pem is there already; --force replaces it$"):
        storage.write_file(path, b"new", mode=0o600, replace=False)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["key.pem"]


def test_a_file_that_cannot_be_finished_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "key.pem"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotDo, match=r"key\.pem cannot be written: No space left on device$"):
        storage.write_file(path, b"new", mode=0o600, replace=True)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["key.pem"]


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "link").symlink_to("victim")
    storage.write_file(tmp_path / "link", b"new", mode=0o600, replace=True)
    assert (tmp_path / "victim").read_bytes() == b"old"
    assert not (tmp_path / "link").is_symlink()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(CannotDo, match="is there already"):
        storage.write_file(tmp_path / "dangling", b"new", mode=0o600, replace=False)


def test_whoever_can_read_the_directory_of_a_ca_keeps_nobody_from_issuing(tmp_path):
    authority = Authority.create(tmp_path / "pki", name="ca")
    private = tmp_path / "pki/CA/private"
    private.chmod(0o755)  # as a copy of it may have
    with held_by_a_stranger(private, "flock"):
        authority.client("joe")

    assert not (private / ".lock").exists()


def test_another_that_issues_without_end_is_not_waited_for_without_end(tmp_path, monkeypatch):
    authority = Authority.create(tmp_path / "pki", name="ca")
    monkeypatch.setattr(storage, "_PATIENCE_S", 0.1)
    with (
        storage.locked(tmp_path / "pki/CA/private"),
        pytest.raises(CannotDo, match=r"fuser -v .*/CA/private/\.lock"),
    ):
        authority.client("joe")
