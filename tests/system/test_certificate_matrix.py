"""Which certificates let a client in and a daemon start: libvirt's verdict and ours, row by row.

The verdicts of each row in `certificate_rows.py` are held against the daemons: libvirt's against
the real libvirtd that is there, 9.0.0 or Debian 13's 11.3.0, ours against proxyd.

The clients knock at two daemons of each kind, one without revocation lists and one with, that trust
all their CAs. Some of these are unfit, so the check of the daemon's own files is off there; it has
rows of its own, for which a libvirtd is started and proxyd told to reload.
"""

import itertools
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed import versions
from tests.bed.daemon import short_directory
from tests.bed.minting import certificates_pem, key_pem, lists_pem
from tests.bed.tls import (
    Verdict,
    door_of,
    knock,
    libvirtd_door,
    listening_proxyd,
    proxyd_door,
    takes,
)
from tests.system.certificate_rows import (
    CLIENTS,
    FAR_DOWN,
    FILLERS,
    LISTS,
    REVOCATIONS,
    ROOT,
    STARTS,
    server,
)

PAGE = Path(__file__).parents[2] / "docs" / "tls.md"
EVERY_ROW = (*CLIENTS, *REVOCATIONS, *STARTS)
NO_CHECK = {"tls_no_sanity_certificate": 1}

# Where ours is the laxer verdict: GnuTLS's own limits, not a rule that libvirt has, or one that it
# has given up.
LAXER = {
    "signature-usage",
    "own-chain",
    "all-of-ca-file",
    "directory-names",
    "same-name-roots",
    "key-encipherment",
}
FIRST_NEWER = (11, 3)


def expected(row):
    """libvirt's verdict, that of the one that is here, and ours."""
    return (row.newer if versions.libvirt() >= FIRST_NEWER else row.libvirt), row.ours


def written(directory, *, cert_file, ca_file, crl_file=None):
    """The settings that lead to these files, which are made now."""
    contents = {
        "ca_file": certificates_pem(ca_file),
        "cert_file": certificates_pem(cert_file),
        "key_file": key_pem(cert_file[0]),
    }
    if crl_file is not None:
        contents["crl_file"] = crl_file if isinstance(crl_file, bytes) else lists_pem(crl_file)
    for key, content in contents.items():
        (directory / key).write_bytes(content)
    return {key: str(directory / key) for key in contents}


def bundle(rows):
    """What the clients of these rows need to be trusted: FAR_DOWN comes last."""
    roots = [each for row in rows for each in row.trusts if each != FAR_DOWN]
    return (*roots, *FILLERS, FAR_DOWN)


@pytest.fixture(scope="module")
def doors():
    """A function: libvirt's door and ours for clients that have to do with lists or not."""
    with ExitStack() as stack:
        found = {}
        for lists, rows in ((None, CLIENTS), (LISTS, REVOCATIONS)):
            files = stack.enter_context(short_directory())
            config = NO_CHECK | written(
                files, cert_file=(server(),), ca_file=bundle(rows), crl_file=lists
            )
            found[lists is not None] = tuple(
                stack.enter_context(door(stack.enter_context(short_directory()), config))
                for door in (libvirtd_door, proxyd_door)
            )
        yield lambda *, lists: found[lists]
        for _, ours in found.values():
            assert "Traceback" not in ours.log_text()


@pytest.fixture(scope="module")
def proxyd():
    """One that is told to reload again and again; its check of the files is the one at a start."""
    with short_directory() as directory:
        config = written(directory, cert_file=(server(),), ca_file=(ROOT,))
        with listening_proxyd(directory, config) as running:
            yield running


def by_what(row):
    return row.what


@pytest.mark.system
@pytest.mark.parametrize("row", CLIENTS, ids=by_what)
def test_a_client_is_let_in_or_not(doors, row):
    libvirt, ours = doors(lists=False)
    assert (knock(libvirt, row.sends), knock(ours, row.sends)) == expected(row)


@pytest.mark.system
@pytest.mark.parametrize("row", REVOCATIONS, ids=by_what)
def test_a_client_is_let_in_or_not_where_there_are_revocation_lists(doors, row):
    libvirt, ours = doors(lists=True)
    assert (knock(libvirt, row.sends), knock(ours, row.sends)) == expected(row)


@pytest.mark.system
@pytest.mark.parametrize("row", STARTS, ids=by_what)
def test_a_daemon_starts_with_its_files_or_not(proxyd, row):
    with short_directory() as files:
        config = written(files, cert_file=row.cert_file, ca_file=row.ca_file, crl_file=row.crl_file)
        assert (of_libvirt(config, row), of_ours(proxyd, config, row)) == expected(row)


def of_libvirt(config, row):
    with short_directory() as directory:
        try:
            with libvirtd_door(directory, config) as door:
                return knock(door, (row.client,))
        except ChildProcessError:
            return Verdict.NO_START


def of_ours(proxyd, config, row):
    if not takes(proxyd, config):
        return Verdict.NO_START
    return knock(door_of(proxyd), (row.client,))


def test_every_row_is_another():
    names = sorted(row.what for row in EVERY_ROW)
    assert [one for one, other in itertools.pairwise(names) if one == other] == []


@pytest.mark.parametrize("row", EVERY_ROW, ids=by_what)
def test_a_verdict_of_our_own_has_a_reason(row):
    assert bool(row.why) == (row.ours is not row.libvirt or row.ours is not row.newer)
    assert row.ours >= max(row.libvirt, row.newer) or row.why in LAXER


def test_the_page_explains_each_reason():
    explained = PAGE.read_text().partition("\n## Which certificates are accepted")[2]
    reasons = {row.why for row in EVERY_ROW if row.why}
    assert {reason for reason in reasons if f"*{reason}*" not in explained} == set()
