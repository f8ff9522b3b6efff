from collections import Counter
from itertools import islice

import pytest

from loadtest.failures import UsageError
from loadtest.mix import Large, Mix, Work, parse_mix
from loadtest.procedures import Storage
from proxyd.wire.programs import Remote

SMALL = Work(Remote.CONNECT_GET_LIB_VERSION)


@pytest.mark.parametrize(
    ("friendly", "by_procedure"),
    [
        ("small", "CONNECT_GET_LIB_VERSION"),
        ("xml=3", "CONNECT_GET_CAPABILITIES=3"),
        ("list", "CONNECT_LIST_ALL_DOMAINS=1"),
        ("small,events=2", "CONNECT_GET_LIB_VERSION,CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY=2"),
        ("download:1MiB=4", "STORAGE_VOL_DOWNLOAD:1048576=4"),
        ("upload:5KiB", "STORAGE_VOL_UPLOAD:5KiB"),
    ],
)
def test_an_item_has_a_friendly_name_and_that_of_its_procedure(friendly, by_procedure):
    assert parse_mix(friendly) == parse_mix(by_procedure)


def test_weights_of_the_same_call_add_up():
    assert parse_mix("small=2,xml=1,CONNECT_GET_LIB_VERSION=3").work == (
        (SMALL, 5),
        (Work(Large.CONNECT_GET_CAPABILITIES), 1),
    )


def test_connections_that_hold_are_counted_and_not_weighed():
    assert parse_mix("small,events=2,idle=50") == Mix(((SMALL, 1),), events=2, idle=50)


def test_a_mix_says_what_it_needs():
    mix = parse_mix("DOMAIN_GET_XML_DESC,upload:1")
    assert (mix.needs_domain, mix.needs_volume, mix.writes) == (True, True, True)
    mix = parse_mix("small,download:1")
    assert (mix.needs_domain, mix.needs_volume, mix.writes) == (False, True, False)


def test_a_title_is_the_procedure_and_the_size():
    titles = [work.title for work, _ in parse_mix("small,download:2MiB").work]
    assert titles == ["CONNECT_GET_LIB_VERSION", "STORAGE_VOL_DOWNLOAD 2 MiB"]


def test_calls_come_exactly_as_often_as_they_weigh_and_in_no_fixed_order():
    mix = parse_mix("small=6,xml=2,list=2")
    drawn = list(islice(mix.endless(seed=1), 1000))
    assert Counter(drawn) == {0: 600, 1: 200, 2: 200}
    assert drawn != sorted(drawn)
    assert drawn == list(islice(mix.endless(seed=1), 1000))
    assert drawn != list(islice(mix.endless(seed=2), 1000))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' cannot be in a mix; known are small, xml"),
        ("small,DOMAIN_DESTROY", "'DOMAIN_DESTROY' cannot be in a mix"),
        ("small=0", "'small=0' in the mix: expected NAME=NUMBER, from 1 to 10000"),
        ("small=x", "'small=x' in the mix"),
        ("small=10001", "from 1 to 10000"),
        ("idle=100001", "from 1 to 100000"),
        ("download", "'download' in the mix: '' is no size"),
        ("upload:0", "'upload:0' in the mix: '0' is no size"),
        ("small:5", "only download and upload have a size"),
    ],
)
def test_what_is_no_mix_is_refused_with_what_was_expected(text, complaint):
    with pytest.raises(UsageError) as refused:
        parse_mix(text)
    assert complaint in str(refused.value)


def test_storage_procedures_are_those_of_the_transfers():
    works = [work.procedure for work, _ in parse_mix("download:1,upload:1").work]
    assert works == [Storage.VOL_DOWNLOAD, Storage.VOL_UPLOAD]
