"""Which files are a daemon's identities: libvirt's names, as far as they are there."""

import pytest

from proxyd.config.settings import resolve
from proxyd.daemon.load_tls import certificate_files
from proxyd.daemon.places import places_of
from proxyd.pki.fitness import Purpose
from proxyd.pki.identities import in_usual_places, numbered


@pytest.fixture
def tree(tmp_path):
    """A function that puts these names into a directory of certificates and one of keys."""
    (tmp_path / "private").mkdir()

    def put(*names):
        for name in names:
            where = tmp_path / "private" if "key" in name else tmp_path
            (where / f"{name}.pem").touch()
        return str(tmp_path), str(tmp_path / "private")

    return put


def names_of(pairs):
    return [pair[0].rpartition("/")[2].removesuffix(".pem") for pair in pairs]


def whole(*numbers, role="server"):
    return [f"{role}{part}{number}" for number in numbers for part in ("cert", "key")]


@pytest.mark.parametrize(
    ("there", "found", "behind"),
    [
        ([], ["servercert"], []),
        ([""], ["servercert"], []),
        (["", 0], ["servercert", "servercert0"], []),
        ([0], ["servercert0"], []),
        ([0, 1, 2, 3], [f"servercert{n}" for n in range(4)], []),
        (["", 0, 1, 2, 3], ["servercert", *(f"servercert{n}" for n in range(4))], []),
        (["", 1], ["servercert"], ["servercert1"]),
        ([0, 2, 3], ["servercert0"], ["servercert2", "servercert3"]),
        ([0, 1, 2, 3, 4], [f"servercert{n}" for n in range(4)], []),
        (["", "00", "x"], ["servercert"], []),
    ],
)
def test_numbers_end_where_one_is_missing(tree, there, found, behind):
    directories = tree(*whole(*there))
    pairs, behind_gap = in_usual_places(*directories)
    assert names_of(pairs) == found
    assert names_of(behind_gap) == behind
    for certificate, key in pairs:
        assert certificate.startswith(f"{directories[0]}/servercert")
        assert key.startswith(f"{directories[1]}/serverkey")


@pytest.mark.parametrize("half", ["servercert1", "serverkey1"])
def test_half_an_identity_counts_so_that_its_other_half_is_asked_for(tree, half):
    pairs, _ = numbered(*tree(*whole(0), half))
    assert names_of(pairs) == ["servercert0", "servercert1"]


def test_a_key_without_its_certificate_is_no_reason_to_leave_out_the_usual_one(tree):
    pairs, _ = in_usual_places(*tree("serverkey", *whole(0)))
    assert names_of(pairs) == ["servercert", "servercert0"]


def test_a_link_that_leads_nowhere_counts(tree, tmp_path):
    directories = tree(*whole(0))
    (tmp_path / "servercert1.pem").symlink_to("nowhere")
    assert names_of(numbered(*directories)[0]) == ["servercert0", "servercert1"]


def test_a_client_s_are_called_likewise(tree):
    pairs, _ = in_usual_places(*tree(*whole("", 0, role="client")), Purpose.CLIENT)
    assert names_of(pairs) == ["clientcert", "clientcert0"]


# From settings


def settings_of(**given):
    return resolve(given, privileged=True)


ROOT = places_of({}, euid=0)


def test_beside_configured_files_numbered_ones_count_and_then_further_ones(tree):
    certificates, keys = tree("mine", *whole("", 0, 1), "mykey")
    further = "/elsewhere/cert.pem:/elsewhere/key.pem"
    files = certificate_files(
        settings_of(
            ca_file="/ca.pem",
            cert_file=f"{certificates}/mine.pem",
            key_file=f"{keys}/mykey.pem",
            proxyd_more_certificates=(further,),
        ),
        ROOT,
    )
    assert names_of(files.pairs) == ["mine", "servercert0", "servercert1", "cert"]
    assert files.pairs[1] == (f"{certificates}/servercert0.pem", f"{keys}/serverkey0.pem")


def test_what_is_found_and_named_as_well_is_taken_once_and_in_its_first_place(tree):
    certificates, keys = tree(*whole("", 0, 1))
    files = certificate_files(
        settings_of(
            ca_file="/ca.pem",
            cert_file=f"{certificates}/servercert1.pem",
            key_file=f"{keys}/serverkey1.pem",
            proxyd_more_certificates=(
                f"{certificates}/servercert0.pem:{keys}/serverkey0.pem",
                f"{certificates}/servercert.pem:{keys}/serverkey.pem",
            ),
        ),
        ROOT,
    )
    assert names_of(files.pairs) == ["servercert1", "servercert0", "servercert"]


def test_relative_files_have_theirs_beside_them(tree, monkeypatch):
    certificates, _ = tree("servercert", *whole(0))
    monkeypatch.chdir(certificates)
    files = certificate_files(
        settings_of(ca_file="ca.pem", cert_file="servercert.pem", key_file="private/serverkey.pem"),
        ROOT,
    )
    assert names_of(files.pairs) == ["servercert", "servercert0"]


@pytest.mark.parametrize("own", [[""], [0], ["", 0]])
def test_a_user_s_own_identities_count_if_one_is_complete(tmp_path, own):
    directory = tmp_path / ".pki/libvirt"
    directory.mkdir(parents=True)
    for name in whole(*own):
        (directory / f"{name}.pem").touch()
    places = places_of({"HOME": str(tmp_path)}, euid=1000)
    files = certificate_files(settings_of(), places)
    assert names_of(files.pairs) == [f"servercert{number}" for number in own]
    assert all(path.startswith(str(directory)) for pair in files.pairs for path in pair)


@pytest.mark.parametrize("half", ["servercert", "serverkey", "servercert0", "serverkey0"])
def test_half_an_identity_of_a_user_s_own_leads_to_the_system_s(tmp_path, half):
    directory = tmp_path / ".pki/libvirt"
    directory.mkdir(parents=True)
    (directory / f"{half}.pem").touch()
    files = certificate_files(settings_of(), places_of({"HOME": str(tmp_path)}, euid=1000))
    assert all(path.startswith("/etc/pki/libvirt/") for pair in files.pairs for path in pair)
