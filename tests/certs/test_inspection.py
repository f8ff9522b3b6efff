"""What `check` finds: each kind of damage with its file, its words and what mends it."""

import datetime as dt
import os
import socket
from dataclasses import replace

import pytest

from certs.inspection import inspect
from certs.places import OF_A_USER, flat, own_site, site_in, tree
from proxyd.invocation import pasteable
from tests.certs.conftest import HOST
from tests.certs.damage import DAMAGES, WARNINGS, Tree, forget_a_revocation


@pytest.fixture
def sound(root):
    return Tree(root)


def problems_in(document, path):
    return [each for each in document["problems"] if each["path"] == str(path)]


# A sound tree


def test_a_sound_tree_is_fine_and_says_what_is_in_it(check, sound):
    status, document = check("--dir", sound.root, "--host", HOST)
    assert status == 0
    assert document["fine"] is True
    assert document["problems"] == []
    assert document["roles"] == ["server", "client"]
    assert [each["path"] for each in document["known"]] == [
        str(each)
        for each in (
            sound.places.ca,
            sound.server.certificate,
            sound.client.certificate,
            sound.places.crl,
        )
    ]


def test_a_sound_directory_of_a_client_is_fine(check, authority, tmp_path):
    authority.client("joe", to=flat(tmp_path / "joe"))
    status, document = check("--dir", tmp_path / "joe", "--role", "client")
    assert status == 0
    assert document["problems"] == []
    assert document["roles"] == ["client"]


def test_people_see_the_same(certs, sound):
    answer = certs("check", "--dir", sound.root, "--host", HOST)
    assert answer.status == 0
    assert answer.out.startswith(f"{sound.root}: a server and a client\n\nok       ")
    assert f"ok       {sound.server.certificate}" in answer.out
    assert answer.out.endswith("\n\nno problems, no warnings\n")


def test_the_document_is_the_same_each_time(certs, sound):
    sound.server.key.chmod(0o644)
    os.unlink(sound.client.key)
    first, second = (certs("check", "--json", "--dir", sound.root) for _ in range(2))
    assert first == second


# Damage


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_with_its_file_and_what_mends_it(check, sound, damage):
    harm, where, text, fix = DAMAGES[damage]
    fix = pasteable(fix)
    harm(sound)

    status, document = check("--dir", sound.root, "--host", HOST)

    path = where(sound)
    assert status == 2
    assert document["fine"] is False
    assert any(
        text in each["text"] and fix.format(path) in each["fix"] and each["fatal"]
        for each in problems_in(document, path)
    ), document["problems"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_people_are_told_of_it_in_lines(certs, sound, damage):
    harm, where, text, fix = DAMAGES[damage]
    fix = pasteable(fix)
    harm(sound)

    answer = certs("check", "--dir", sound.root, "--host", HOST)

    path = where(sound)
    assert answer.status == 2
    lines = answer.out[answer.out.index(f"PROBLEM  {path}\n") :].split("\n\n")[0]
    assert f"\n       ! {text}" in lines or text in lines
    assert fix.format(path) in lines


def test_what_mends_a_revocation_list_mends_it(check, sound):
    forget_a_revocation(sound)
    sound.authority.refresh_list()
    assert check("--dir", sound.root, "--host", HOST)[0] == 0


@pytest.mark.parametrize(
    ("host", "status"),
    [(HOST, 0), ("192.0.2.7", 0), ("other.example.org", 2), ("192.0.2.8", 2), ("host", 2)],
)
def test_a_host_that_the_certificate_does_not_cover_is_a_problem(check, sound, host, status):
    sound.authority.server(HOST, names=["192.0.2.7"], force=True)
    found, document = check("--dir", sound.root, "--host", HOST, "--host", host)
    assert found == status
    said = [each["text"] for each in problems_in(document, sound.server.certificate)]
    expected = f'the certificate does not name "{host}", and clients look for that'
    assert said == ([expected] if status else [])


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_role_has_to_be_there_when_it_is_asked_for(check, authority, tmp_path, role):
    other = "client" if role == "server" else "server"
    issue = {"client": authority.client, "server": authority.server}[other]
    issue("x.example.org", to=flat(tmp_path / "x"))
    assert check("--dir", tmp_path / "x")[0] == 0
    status, document = check("--dir", tmp_path / "x", "--role", role)
    assert status == 2
    missing = {each["path"] for each in document["problems"]}
    assert missing == {str(tmp_path / "x" / f"{role}{what}.pem") for what in ("cert", "key")}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no such directory"),
        (lambda path: path.write_text("x"), "it is no directory"),
    ],
)
def test_a_directory_that_is_none_is_a_problem(check, tmp_path, make, says):
    path = tmp_path / "x"
    make(path)
    status, document = check("--dir", path)
    assert status == 2
    assert [(each["path"], each["text"]) for each in document["problems"]] == [(str(path), says)]


# Warnings


@pytest.mark.parametrize("case", WARNINGS)
def test_a_warning_is_told_and_is_status_1(check, sound, case):
    change, where, text = WARNINGS[case]
    change(sound)
    status, document = check("--dir", sound.root)
    assert status == 1
    assert [
        (text in each["text"], each["fatal"], each["path"]) for each in document["problems"]
    ] == [(True, False, str(where(sound)))]


# /etc/pki and ~/.pki


def test_what_users_need_of_etc_pki_has_to_be_readable(sound):
    sound.places.ca.parent.chmod(0o700)
    site = site_in(sound.root, os.geteuid())
    assert inspect_now(site, hosts=[HOST]).problems == ()

    (found,) = inspect_now(as_etc_pki(site), hosts=[HOST]).problems
    assert found.text == "not every user may read it, and virsh needs it"
    assert found.fix == f"chmod 755 {sound.places.ca.parent}"
    assert not found.fatal


def test_etc_pki_should_name_this_host(sound, monkeypatch):
    site = as_etc_pki(site_in(sound.root, os.geteuid()))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    assert inspect_now(site).problems == ()

    monkeypatch.setattr(socket, "gethostname", lambda: "kvm9")
    (found,) = inspect_now(site).problems
    assert found.text == 'the certificate does not name this host, "kvm9"'
    assert not found.fatal
    assert inspect_now(site, hosts=[HOST]).problems == ()


def inspect_now(site, **more):
    return inspect(site, now=dt.datetime.now(dt.UTC), euid=0, **more)


def as_etc_pki(site):
    return replace(site, of_this_host=True)


def test_a_user_has_what_is_at_home_and_else_what_the_host_has(authority, tmp_path):
    home = tmp_path / "home"
    mine, system = flat(home / OF_A_USER), tree(tmp_path / "pki")
    assert own_site(home, 1000, system.root).places.client == system.client

    authority.client("joe", to=mine)
    mine.ca.unlink()
    places = own_site(home, 1000, system.root).places
    assert places.client == mine.client
    assert places.ca == system.ca

    mine.client.key.unlink()  # a certificate without its key counts as none
    assert own_site(home, 1000, system.root).places.client == system.client


def test_files_of_another_user_are_a_problem(sound):
    # Root's are accepted, so the one who asks is somebody else here.
    site = site_in(sound.root, 12345)
    strangers = replace(site, owners=frozenset({12345}))
    texts = {each.text for each in inspect_now(strangers).problems}
    assert all("who may change it at any time" in each for each in texts)
    assert texts


def test_a_fifo_in_the_place_of_a_file_keeps_nobody_waiting(check, sound):
    sound.places.ca.unlink()
    os.mkfifo(sound.places.ca)
    status, document = check("--dir", sound.root)
    assert status == 2
    assert "it is no regular file" in problems_in(document, sound.places.ca)[0]["text"]


# Several identities


def numbered(sound, number, pair):
    """A pair of files with this number, with what is in another one."""
    for path in (pair.certificate, pair.key):
        copy = path.with_name(path.name.replace(".pem", f"{number}.pem"))
        copy.write_bytes(path.read_bytes())
        copy.chmod(path.stat().st_mode)
        yield copy


def test_every_identity_is_looked_at(check, sound):
    server, key = numbered(sound, 0, sound.server)
    client, _ = numbered(sound, 0, sound.client)
    key.chmod(0o644)

    status, document = check("--dir", sound.root, "--host", HOST)

    known = [each["path"] for each in document["known"]]
    assert {str(server), str(client)} <= set(known)
    assert problems_in(document, key)
    (same,) = problems_in(document, server)
    assert "no client is shown it" in same["text"]
    assert status == 2  # for the key, which all may read


def test_half_an_identity_is_a_problem_with_what_is_missing(check, sound):
    certificate, key = numbered(sound, 0, sound.server)
    key.unlink()
    status, document = check("--dir", sound.root, "--host", HOST)
    (missing,) = problems_in(document, key)
    assert status == 2
    assert f"there is no such file, but there is {certificate}" in missing["text"]


def test_an_identity_behind_a_gap_is_a_warning(check, sound):
    certificate, _ = numbered(sound, 2, sound.server)
    status, document = check("--dir", sound.root, "--host", HOST)
    (gap,) = problems_in(document, certificate)
    assert status == 1
    assert "it is not used" in gap["text"]
    assert "servercert0.pem" in gap["text"]


def test_of_a_client_s_identities_too(check, sound):
    certificate, _ = numbered(sound, 2, sound.client)
    status, document = check("--dir", sound.root, "--host", HOST)
    (gap,) = problems_in(document, certificate)
    assert status == 1
    assert "clientcert0.pem" in gap["text"]


def test_what_lies_behind_a_gap_alone_is_no_identity_and_is_told(check, sound):
    """proxyd does not start with that either."""
    certificate, _ = numbered(sound, 1, sound.server)
    sound.server.certificate.unlink()
    sound.server.key.unlink()
    status, document = check("--dir", sound.root, "--host", HOST)
    (gap,) = problems_in(document, certificate)
    (missing,) = problems_in(document, sound.server.certificate)
    assert status == 2
    assert "it is not used" in gap["text"]
    assert "there is no such file" in missing["text"]


def test_numbered_ones_alone_make_a_server(check, sound):
    certificate, _ = numbered(sound, 0, sound.server)
    sound.server.certificate.unlink()
    sound.server.key.unlink()
    status, document = check("--dir", sound.root, "--host", HOST, "--role", "server")
    assert status == 0
    assert str(certificate) in [each["path"] for each in document["known"]]


def test_the_server_s_files_are_tried_under_a_priority(check, certs, sound):
    only_rsa = "NORMAL:-VERS-TLS1.3:-ECDHE-ECDSA"
    status, document = check("--dir", sound.root, "--host", HOST, "--tls-priority", only_rsa)
    (useless,) = problems_in(document, sound.server.certificate)
    assert status == 2
    assert f'no client can use its P-256 key with tls_priority = "{only_rsa}"' in useless["text"]
    assert certs("check", "--dir", sound.root, "--tls-priority", "NONSENSE").status == 3
