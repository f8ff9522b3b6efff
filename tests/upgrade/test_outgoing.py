"""What an attempt comes to that has met several errors at once."""

import trio

from proxyd.upgrade.channel import ChannelBroken, Gone
from proxyd.upgrade.outgoing import UpgradeFailed, _as_failed

WHY = "it gave no reason"


async def both_sides_of_a_channel_break():
    async def fail(error):
        raise error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, Gone("ended"))
        nursery.start_soon(fail, ChannelBroken("took nothing"))


async def test_two_errors_at_once_are_one_reason():
    try:
        await both_sides_of_a_channel_break()
    except BaseException as error:  # noqa: BLE001
        failed = _as_failed(error, WHY)
    assert isinstance(failed, UpgradeFailed)
    assert str(failed) in (f"ended: {WHY}", f"took nothing: {WHY}")


async def test_a_cancellation_is_passed_on_whatever_else_went_wrong():
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            group = BaseExceptionGroup("", [Gone("ended"), BaseExceptionGroup("", [cancelled])])
            raise _as_failed(group, WHY) from cancelled
    assert scope.cancelled_caught


def test_an_error_of_our_own_is_told_as_one(caplog):
    failed = _as_failed(ExceptionGroup("", [KeyError("x")]), WHY)
    assert isinstance(failed, UpgradeFailed)
    assert "an error of proxyd's own" in str(failed)
    assert caplog.records[0].exc_info
