import pytest

from loadtest.credentials import Credentials, client_context
from loadtest.failures import UsageError


def test_good_files_make_one_context(credentials):
    assert client_context(credentials) is client_context(credentials)


def test_a_name_in_a_certificate_is_checked_unless_told_otherwise(pki):
    assert client_context(Credentials(pki["ca.pem"])).check_hostname
    assert not client_context(Credentials(pki["ca.pem"], host_check=False)).check_hostname


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (("none.pem", None, None), "cannot read the file of --cacert, .*: No such file"),
        (("ca.key", None, None), "--cacert .*ca.key holds no certificate in PEM"),
        (("ca.pem", "none.pem", "client.key"), "cannot read the file of --cert, .*: No such file"),
        (("ca.pem", "client.pem", "none.key"), "cannot read the file of --key, .*: No such file"),
        (("ca.pem", "client.pem", "ca.key"), "are no certificate and its key in PEM"),
        (("ca.pem", "client.key", "client.key"), "are no certificate and its key in PEM"),
        (("ca.pem", "client.pem", "locked.key"), "--key .*locked.key is encrypted"),
        (("ca.pem", "client.pem", None), "--cert and --key belong together"),
        (("ca.pem", None, "client.key"), "--cert and --key belong together"),
    ],
)
def test_a_file_of_no_use_is_told_by_its_option(pki, files, complaint):
    with pytest.raises(UsageError, match=complaint):
        client_context(Credentials(*(file and pki[file] for file in files)))
