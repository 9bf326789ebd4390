"""The deadline of a block behaves as `asyncio.timeout` does, and many blocks have one timer."""

from __future__ import annotations

import asyncio

import pytest

from runner.system.deadline import Deadline

SHORT_S, LONG_S = 0.01, 600.0


async def forever():
    await asyncio.Event().wait()


async def test_a_block_that_takes_too_long_ends_with_a_timeout():
    with pytest.raises(TimeoutError), Deadline(SHORT_S):
        await forever()
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)  # nothing of the cancellation is left


async def test_a_block_that_ends_in_time_is_left_alone():
    with Deadline(SHORT_S):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), Deadline(2 * SHORT_S):  # so that the time of the first block passes, too
        await forever()


async def test_a_block_without_a_bound_is_one():
    with Deadline(None):
        await asyncio.sleep(2 * SHORT_S)


async def test_errors_and_results_pass():
    with pytest.raises(KeyError), Deadline(LONG_S):
        raise KeyError


@pytest.mark.parametrize("seconds", [LONG_S, None])
async def test_a_cancellation_from_outside_stays_one(seconds):
    begun = asyncio.Event()

    async def block():
        with Deadline(seconds):
            begun.set()
            await forever()

    task = asyncio.create_task(block())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("outer", "inner"), [(SHORT_S, LONG_S), (LONG_S, SHORT_S)])
async def test_of_two_blocks_the_first_that_is_due_ends(outer, inner):
    ended = []

    async def block():
        try:
            with Deadline(inner):
                await forever()
        except BaseException as error:
            ended.append(type(error))
            raise

    with pytest.raises(TimeoutError), Deadline(outer):
        await block()
    assert ended == [asyncio.CancelledError if outer < inner else TimeoutError]


async def test_a_deadline_that_is_reached_while_an_error_is_raised_leaves_the_error():
    async def block():
        try:
            await forever()
        except asyncio.CancelledError:
            raise KeyError from None

    with pytest.raises(KeyError), Deadline(SHORT_S):
        await block()
    assert asyncio.current_task().cancelling() == 0


async def test_many_blocks_share_their_timers(monkeypatch):
    loop, timers = asyncio.get_running_loop(), []
    set_timer = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *arguments, **more: timers.append(arguments) or set_timer(*arguments, **more))
    ended = asyncio.Event()

    async def block(seconds):
        with Deadline(seconds):
            await ended.wait()

    long = [asyncio.create_task(block(LONG_S)) for _ in range(50)]
    late = [asyncio.create_task(block(SHORT_S)) for _ in range(3)]
    found = await asyncio.gather(*late, return_exceptions=True)
    assert [type(error) for error in found] == [TimeoutError] * 3
    ended.set()
    await asyncio.gather(*long)
    assert len(timers) <= 2 + len(late)  # for the first block, for each short one, and for those that are left
