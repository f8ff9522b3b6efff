import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.sasl.keytab import Keytab, KeytabError
from tests.bed.kdc import Kdc
from tests.sasl.keytabs import entry, keytab_of


def test_it_lists_the_names_of_our_service_once_each(tmp_path):
    ours, other = entry(b"libvirt", b"a.example"), entry(b"libvirt", b"b.example")
    keytab = keytab_of(tmp_path, ours, entry(b"host", b"a.example"), ours, other, entry(b"joe"))
    assert keytab.principals() == (
        "libvirt/a.example@PROXYD.TEST",
        "libvirt/b.example@PROXYD.TEST",
    )


def test_deleted_entries_do_not_count(tmp_path):
    hole = struct.pack(">i", -40) + entry(b"libvirt", b"a.example")[4:44]
    keytab = keytab_of(tmp_path, hole, entry(b"libvirt", b"b.example"))
    assert keytab.principals() == ("libvirt/b.example@PROXYD.TEST",)


def test_a_name_of_any_bytes_can_be_shown(tmp_path):
    keytab = keytab_of(tmp_path, entry(b"libvirt", b"\xff\n"))
    assert keytab.principals() == (r"libvirt/\xff\n@PROXYD.TEST",)


def test_a_missing_file_is_told_with_the_commands_that_make_it(tmp_path):
    path = tmp_path / "keytab"
    with pytest.raises(KeytabError) as told:
        Keytab(str(path)).principals()
    assert str(told.value) == (
        f"{path}: there is no such file; kadmin: addprinc -randkey libvirt/HOST,"
        f" then ktadd -k {path} libvirt/HOST"
    )


@pytest.mark.system  # with Kerberos' library
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no keytab, or a broken one; move it away"),
        (b"-----BEGIN", "no keytab, or a broken one"),
        (b"\x05\x01", "no keytab, or a broken one"),
        (b"\x05\x02", "no key of libvirt/HOST; kadmin"),
        (b"\x05\x02\0\0", "no keytab, or a broken one"),
        (b"\x05\x02" + entry(b"host", b"a.example"), "no key of libvirt/HOST; kadmin"),
        (b"\x05\x02" + entry(b"libvirt", b"a.example")[:25], "no keytab, or a broken one"),
        (b"\x05\x02" + bytes(1 << 20), "larger than 1 MiB"),
    ],
)
def test_a_file_without_a_key_of_ours_is_told_what_is_wrong(tmp_path, content, says):
    path = tmp_path / "keytab"
    path.write_bytes(content)
    for ask in (Keytab(str(path)).principals, Keytab(str(path)).credentials):
        with pytest.raises(KeytabError, match=says):
            ask()


def test_a_directory_is_no_keytab(tmp_path):
    with pytest.raises(KeytabError, match="Is a directory; it must be a keytab"):
        Keytab(str(tmp_path)).principals()


def test_a_fifo_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "keytab")
    with pytest.raises(KeytabError, match="no regular file"):
        Keytab(str(tmp_path / "keytab")).principals()


def test_a_file_that_cannot_be_read_leaves_nothing_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KeytabError):
        Keytab(str(tmp_path)).principals()
    assert os.listdir("/proc/self/fd") == before


@given(st.binary(max_size=300))
def test_any_content_gives_names_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.keytab"
    path.write_bytes(b"\x05\x02" + content)
    try:
        names = Keytab(str(path)).principals()
    except KeytabError:
        return
    assert all(each.startswith("libvirt/") for each in names)


@pytest.mark.system
def test_a_real_keytab_is_read_and_serves(tmp_path, monkeypatch):
    with Kdc(tmp_path) as kdc:
        kdc.add("libvirt/host.example", "nfs/host.example")
        monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
        keytab = Keytab(str(kdc.keytab("nfs/host.example", "libvirt/host.example")))
        only_others = Keytab(str(kdc.keytab("nfs/host.example")))

    assert keytab.principals() == ("libvirt/host.example@PROXYD.TEST",)
    assert keytab.credentials().usage == "accept"
    with pytest.raises(KeytabError, match="no key of libvirt/HOST"):
        only_others.credentials()


@pytest.mark.system
def test_without_a_path_it_is_libkrb5s_own(tmp_path, monkeypatch):
    with Kdc(tmp_path) as kdc:
        kdc.add("libvirt/host.example")
        monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
        with pytest.raises(KeytabError, match=r"default.keytab.*addprinc"):
            Keytab(None).principals()

        monkeypatch.setenv("KRB5_KTNAME", str(kdc.keytab("libvirt/host.example")))

    assert Keytab(None).principals() == ()
    assert Keytab(None).credentials().usage == "accept"
