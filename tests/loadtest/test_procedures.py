import pytest

from loadtest.failures import UsageError
from loadtest.procedures import SMALL_CALLS, Storage, procedure_number
from proxyd.wire.names import procedure_name
from proxyd.wire.programs import Program, Remote


def test_every_listed_call_exists():
    assert len({procedure_number(name) for name in SMALL_CALLS}) == len(SMALL_CALLS)
    assert procedure_number("CONNECT_GET_LIB_VERSION") == Remote.CONNECT_GET_LIB_VERSION


@pytest.mark.parametrize("name", ["connect_get_lib_version", "CONNECT_GET_LIBVERSION"])
def test_an_unknown_name_is_answered_with_the_nearest(name):
    with pytest.raises(UsageError, match="nearest are: CONNECT_GET_LIB_VERSION"):
        procedure_number(name)


def test_a_name_like_nothing_is_answered_with_the_list():
    with pytest.raises(UsageError, match="known are: CONNECT_GET_HOSTNAME"):
        procedure_number("0")


@pytest.mark.parametrize("name", ["DOMAIN_CREATE", "CONNECT_OPEN", "CONNECT_GET_CAPABILITIES"])
def test_a_call_that_cannot_be_measured_is_refused(name):
    with pytest.raises(UsageError, match="takes arguments, changes something or has a large reply"):
        procedure_number(name)


@pytest.mark.parametrize("procedure", Storage)
def test_the_storage_calls_have_their_numbers(procedure):
    assert procedure_name(Program.REMOTE, procedure) == f"STORAGE_{procedure.name}"
