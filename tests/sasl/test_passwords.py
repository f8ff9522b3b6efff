import os
import stat
import threading
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.sasl import passwords as module
from proxyd.sasl.lock import own_lock
from proxyd.sasl.passwords import PasswordError, PasswordFile, Verifier, verifier_for
from tests.bed.stranger import held_by_a_stranger

HEADER = "proxyd-passwords 1 " + "A" * 43 + "="
VERIFIER = f"SCRAM-SHA-256$4096:{'B' * 22}==${'C' * 43}=:{'D' * 43}="


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    monkeypatch.setattr(module, "ITERATIONS", 4096)


@pytest.fixture
def file(tmp_path):
    return PasswordFile(str(tmp_path / "passwords"))


def write(file, text, mode=0o600):
    with open(os.open(file.path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
        out.write(text)
    os.chmod(file.path, mode)


def test_the_verifier_is_that_of_the_rfc(monkeypatch):
    # RFC 7677, section 3, gives salt and count; the keys are what PostgreSQL makes of them.
    monkeypatch.setattr(
        module.secrets, "token_bytes", lambda _: b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    )
    assert str(verifier_for("pencil")) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_user_is_there_after_the_password_is_set(file):
    file.set_password("joe", "sesame")
    file.set_password("ann", "open")
    assert file.names() == ("ann", "joe")


def test_no_password_stands_in_the_file_and_nobody_else_may_read_it(file, tmp_path):
    file.set_password("joe", "sesame")
    status = os.stat(file.path)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert b"sesame" not in (tmp_path / "passwords").read_bytes()
    assert os.listdir(tmp_path) == ["passwords"]


def test_no_verifier_is_shown_where_it_is_not_meant_to_be(file):
    file.set_password("joe", "sesame")
    passwords = file.read()
    assert b64decode(str(passwords.verifiers["joe"]).rpartition(":")[2]) not in repr(
        passwords.verifiers
    ).encode("latin-1")
    assert repr(passwords.verifiers["joe"]) == "Verifier(iterations=4096)"


def test_setting_a_password_again_replaces_it(file):
    file.set_password("joe", "sesame")
    first = file.read().verifier("joe")
    file.set_password("joe", "sesame")
    assert file.names() == ("joe",)
    assert file.read().verifier("joe") != first


def test_a_removed_user_is_gone(file):
    file.set_password("joe", "sesame")
    file.set_password("ann", "open")
    file.remove("joe")
    assert file.names() == ("ann",)


def test_nobody_is_removed_who_is_not_there(file):
    file.set_password("joe", "sesame")
    with pytest.raises(PasswordError, match='has no user "ann"'):
        file.remove("ann")


def test_a_verifier_survives_the_file(file):
    file.set_password("joe", "sesame")
    line = Path(file.path).read_text().splitlines()[1]
    assert line == f"joe:{file.read().verifier('joe')}"


def test_an_unknown_user_has_the_same_salt_each_time_and_no_key_that_fits(file):
    file.set_password("joe", "sesame")
    first, again = file.read().verifier("ann"), file.read().verifier("ann")
    assert (first.salt, first.iterations) == (again.salt, again.iterations)
    assert first.stored_key != again.stored_key
    assert first.salt != file.read().verifier("bob").salt
    real = file.read().verifier("joe")
    assert (len(first.salt), first.iterations) == (len(real.salt), real.iterations)


def test_the_salts_of_unknown_users_outlive_changes_and_differ_between_hosts(file, tmp_path):
    file.set_password("joe", "sesame")
    before = file.read().verifier("ann").salt
    file.set_password("bob", "sesame")
    assert file.read().verifier("ann").salt == before
    other = PasswordFile(str(tmp_path / "other"))
    other.set_password("joe", "sesame")
    assert other.read().verifier("ann").salt != before


def test_names_are_prepared(file):
    file.set_password("jo\u00ade", "sesame")  # a soft hyphen is nothing
    file.set_password("\u2168", "sesame")  # the numeral nine, in one sign
    assert file.names() == ("IX", "joe")


@pytest.mark.parametrize("name", ["", "\u00ad", "a:b", "a\nb", "a\0b", "\u0627b", "x" * 256])
def test_a_name_that_will_not_do_changes_nothing(file, name):
    file.set_password("joe", "sesame")
    with pytest.raises(PasswordError):
        file.set_password(name, "sesame")
    assert file.names() == ("joe",)


@pytest.mark.parametrize("password", ["", "\u00ad", "\x07", "x" * 1025])
def test_a_password_that_will_not_do_is_refused_and_not_repeated(file, password):
    with pytest.raises(PasswordError) as refused:
        file.set_password("joe", password)
    assert not password or password not in str(refused.value)
    assert not os.path.exists(file.path)


def test_a_missing_file_is_told(file):
    with pytest.raises(PasswordError, match="no such file; set the first user's password"):
        file.names()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o602])
def test_a_file_that_others_may_use_is_not_used(file, mode):
    write(file, f"{HEADER}\njoe:{VERIFIER}\n", mode)
    for use in (file.names, lambda: file.set_password("ann", "open"), lambda: file.remove("joe")):
        with pytest.raises(
            PasswordError, match=rf"others may use it \(mode {mode:04o}\); chmod 0600"
        ):
            use()


@pytest.mark.system
def test_a_file_of_another_user_is_not_used(file):
    write(file, f"{HEADER}\njoe:{VERIFIER}\n")
    os.chown(file.path, 65534, -1)
    with pytest.raises(PasswordError, match="belongs to uid 65534; chown"):
        file.names()


def test_what_is_no_file_is_not_used(file):
    os.mkfifo(file.path, 0o600)
    with pytest.raises(PasswordError, match="no regular file"):
        file.names()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no file of proxyd's passwords"),
        ("joe:secret\n", "no file of proxyd's passwords"),
        (HEADER.replace(" 1 ", " 2 "), "no file of proxyd's passwords"),
        (f"{HEADER}\njoe\n", ":2: no user's verifier; take that line out"),
        (f"{HEADER}\njoe:{VERIFIER}\n\n", ":3: no user's verifier"),
        (f"{HEADER}\njoe:{VERIFIER}\njoe:{VERIFIER}\n", ":3: no user's verifier"),
        (f"{HEADER}\njoe:{VERIFIER.replace('4096', '1000')}\n", ":2: no user's verifier"),
        (f"{HEADER}\njoe:{VERIFIER.replace('4096', '9999999')}\n", ":2: no user's verifier"),
        (f"{HEADER}\njoe:{VERIFIER.replace('C', '', 1)}\n", ":2: no user's verifier"),
        (f"{HEADER}\n{'x' * (1 << 20)}", "larger than 1 MiB"),
    ],
)
def test_a_broken_file_is_told_with_its_line_and_not_its_content(file, text, says):
    write(file, text)
    with pytest.raises(PasswordError, match=says) as told:
        file.names()
    assert "CCC" not in str(told.value)
    assert "secret" not in str(told.value)


@given(st.text(max_size=200))
def test_any_line_is_a_user_or_an_error(tmp_path_factory, line):
    file = PasswordFile(str(tmp_path_factory.getbasetemp() / "any.passwords"))
    with open(os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(f"{HEADER}\n{line}".encode())
    try:
        names = file.names()
    except PasswordError:
        return
    assert len(names) <= line.count(":")


def test_who_cannot_write_is_told(tmp_path):
    with pytest.raises(PasswordError, match=r"No such file or directory \(as uid"):
        PasswordFile(str(tmp_path / "missing" / "passwords")).set_password("joe", "sesame")


def test_a_rewrite_that_fails_leaves_the_old_file_alone(file, tmp_path, monkeypatch):
    file.set_password("joe", "sesame")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(PasswordError, match="No space left"):
        file.set_password("ann", "open")
    assert os.listdir(tmp_path) == ["passwords"]
    assert file.names() == ("joe",)


def test_two_who_write_at_the_same_time_lose_nothing(file):
    names = [f"user{number}" for number in range(8)]
    writers = [threading.Thread(target=file.set_password, args=(each, "sesame")) for each in names]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert file.names() == tuple(names)


@pytest.mark.parametrize("what", ["directory", "file"])
def test_whoever_can_read_the_directory_or_the_file_keeps_nobody_from_writing(file, tmp_path, what):
    file.set_password("joe", "sesame")
    held = tmp_path if what == "directory" else tmp_path / "passwords"
    with held_by_a_stranger(held, "flock"):
        file.set_password("ann", "open")

    assert file.names() == ("ann", "joe")
    assert os.listdir(tmp_path) == ["passwords"]


def test_another_who_writes_without_end_is_not_waited_for_without_end(file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    with (
        own_lock(tmp_path / ".passwords.lock", 0),
        pytest.raises(PasswordError, match=r"fuser -v .*\.passwords\.lock"),
    ):
        file.set_password("joe", "sesame")


def test_verifiers_are_compared_by_content():
    assert Verifier(4096, b"a", b"b", b"c") == Verifier(4096, b"a", b"b", b"c")


@pytest.fixture
def settled(monkeypatch):
    """As if what there is had been there for a while."""
    monkeypatch.setattr(module, "_SETTLED_NS", -1)


def test_a_file_that_does_not_change_is_taken_apart_once(file, settled, monkeypatch):
    file.set_password("joe", "sesame")
    known = file.read()
    monkeypatch.setattr(PasswordFile, "_parsed", lambda *_: pytest.fail("taken apart"))
    assert file.read() is known


def test_a_file_that_was_changed_a_moment_ago_is_taken_apart_each_time(file):
    file.set_password("joe", "sesame")
    assert file.read() is not file.read()


def test_every_change_is_seen_at_once(file, settled):
    file.set_password("joe", "sesame")
    file.read()
    file.set_password("fred", "sesame")
    assert file.names() == ("fred", "joe")
    # In place, with the size as it was.
    path = Path(file.path)
    path.write_text(path.read_text().replace("fred:", "gred:"))
    assert file.names() == ("gred", "joe")
    path.chmod(0o644)
    with pytest.raises(PasswordError, match="others may use it"):
        file.read()
