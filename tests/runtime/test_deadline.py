"""Time limits that share a timer."""

from __future__ import annotations

import asyncio

import pytest

from llmling.events import new_id
from llmling.runtime.deadline import Deadline, DeadlineOver, Limit


async def test_what_takes_too_long_is_cancelled_and_what_does_not_is_left_alone() -> None:
    async def work(seconds: float) -> str:
        limit = Limit(0.05)
        try:
            with limit:
                await asyncio.sleep(seconds)
        except TimeoutError:
            return f"late {limit.expired()}"
        return f"in time {limit.expired()}"

    assert await asyncio.gather(work(60), work(0), work(60)) == ["late True", "in time False", "late True"]
    # The timer they shared is set again for those that come later.
    assert await work(60) == "late True"


async def test_of_limits_inside_each_other_the_shorter_one_ends_its_own_block_only() -> None:
    with Limit(60):
        with pytest.raises(TimeoutError), Limit(0.01):
            await asyncio.sleep(60)
        with pytest.raises(KeyError), Limit(60):
            raise KeyError
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_stays_one() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        with Limit(60):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_every_loop_has_timers_of_its_own() -> None:
    async def late() -> None:
        with pytest.raises(TimeoutError), Limit(0.01):
            await asyncio.sleep(60)

    for _ in range(3):
        asyncio.run(late())


def test_ids_ascend_also_within_a_millisecond() -> None:
    ids = [new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert {len(each) for each in ids} == {26}


async def test_a_deadline_over_many_waits_cuts_the_one_that_goes_on_and_lets_none_begin() -> None:
    deadline = Deadline(0.05)
    for _ in range(3):
        with deadline:
            await asyncio.sleep(0)
    with pytest.raises(DeadlineOver), deadline:
        await asyncio.Event().wait()
    with pytest.raises(DeadlineOver), deadline:
        pytest.fail("it was entered")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_deadline_that_is_over_between_two_waits_cancels_nobody() -> None:
    deadline, over = Deadline(0), asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, over.set)
    await over.wait()
    with pytest.raises(DeadlineOver), deadline:
        pytest.fail("it was entered")


@pytest.mark.parametrize("left_s", [None, 60])
async def test_a_cancellation_from_outside_stays_one_in_a_wait_of_many(left_s: float | None) -> None:
    begun, deadline = asyncio.Event(), Deadline(left_s)

    async def work() -> None:
        with deadline:
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.close()
