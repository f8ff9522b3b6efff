"""What is remembered of the objects that calls are about."""

from proxyd.wire import objects
from proxyd.wire.objects import Named, Where, named
from proxyd.wire.xdr import Writer

UUID = bytes(range(16))
GUEST = Writer().opaque(b"web1").fixed_opaque(UUID).take()


def guest_and(secret):
    return memoryview(GUEST + Writer().opaque(secret).take())


def test_what_follows_an_object_is_not_remembered_with_it():
    objects._remembered.cache_clear()
    for secret in (b"a password", b"another one"):
        assert named("domain", Where.ARGUMENT, guest_and(secret)) == Named("domain", b"web1", UUID)
    found = objects._remembered.cache_info()
    assert (found.currsize, found.hits) == (1, 1)


def test_what_is_too_long_or_cut_is_not_remembered():
    objects._remembered.cache_clear()
    long = Writer().opaque(b"x" * 300).fixed_opaque(UUID).take()
    assert named("domain", Where.ARGUMENT, memoryview(long)) == Named("domain", b"x" * 300, UUID)
    for end in range(len(GUEST)):
        assert named("domain", Where.ARGUMENT, memoryview(GUEST)[:end]) is None
    assert objects._remembered.cache_info().currsize == 0
