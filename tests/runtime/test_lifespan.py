from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llmling.runtime.lifespan import Lifespans, leaf, reason


class Part:
    """A resource that notes who entered and who left it."""

    def __init__(self) -> None:
        self.entered_by: asyncio.Task[None] | None = None
        self.left_by: asyncio.Task[None] | None = None
        self.release = asyncio.Event()
        self.entering = asyncio.Event()

    @asynccontextmanager
    async def open(self, *, wait: bool = False, fail: Exception | None = None) -> AsyncGenerator[str, None]:
        self.entered_by = asyncio.current_task()
        self.entering.set()
        try:
            if wait:
                await self.release.wait()
            if fail is not None:
                raise fail
            yield "value"
        finally:
            self.left_by = asyncio.current_task()


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


async def test_the_task_that_enters_is_the_task_that_leaves() -> None:
    parts = {name: Part() for name in "abc"}
    async with Lifespans() as spans:
        started = await spans.enter_all({name: part.open() for name, part in parts.items()})
        assert {name: (item.value, item.error) for name, item in started.items()} == dict.fromkeys(
            "abc", ("value", None)
        )
        assert list(spans.timings) == ["a", "b", "c"]
        assert all(part.left_by is None for part in parts.values())
    owners = {part.entered_by for part in parts.values()}
    assert len(owners) == 3
    assert asyncio.current_task() not in owners
    assert all(part.left_by is part.entered_by for part in parts.values())


async def test_they_start_side_by_side() -> None:
    first, second = Part(), Part()

    async def release_once_both_are_entering() -> None:
        await first.entering.wait()
        await second.entering.wait()
        first.release.set()
        second.release.set()

    async with Lifespans() as spans, asyncio.TaskGroup() as group:
        group.create_task(release_once_both_are_entering())
        started = await spans.enter_all({"first": first.open(wait=True), "second": second.open(wait=True)})
        assert all(item.error is None for item in started.values())


async def test_one_after_the_other_when_not_parallel() -> None:
    order: list[str] = []

    @asynccontextmanager
    async def noting(name: str) -> AsyncGenerator[None, None]:
        order.append(f"{name} starts")
        await asyncio.sleep(0)
        order.append(f"{name} ready")
        yield

    async with Lifespans() as spans:
        await spans.enter_all({"a": noting("a"), "b": noting("b")}, parallel=False)
    assert order == ["a starts", "a ready", "b starts", "b ready"]


async def test_a_failure_leaves_its_siblings_alone_and_is_unwrapped() -> None:
    bad, good = Part(), Part()
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [FileNotFoundError("no such file: nope-cmd")])])
    async with Lifespans() as spans:
        started = await spans.enter_all({"bad": bad.open(fail=group), "good": good.open()})
        assert isinstance(started["bad"].error, FileNotFoundError)
        assert started["bad"].value is None
        assert started["good"].value == "value"
        assert good.left_by is None


async def test_a_start_that_takes_too_long_fails_alone() -> None:
    slow, good = Part(), Part()
    async with Lifespans() as spans:
        started = await spans.enter_all({"slow": slow.open(wait=True), "good": good.open()}, timeout_s={"slow": 0.05})
        assert str(started["slow"].error) == "not ready within 0.05 s"
        assert started["slow"].seconds >= 0.05
        assert started["good"].error is None
    assert slow.left_by is slow.entered_by


async def test_cancelling_the_entering_task_leaves_what_had_started() -> None:
    ready, waiting = Part(), Part()

    async def open_both() -> None:
        async with Lifespans() as spans:
            await spans.enter_all({"ready": ready.open(), "waiting": waiting.open(wait=True)})

    task = asyncio.create_task(open_both())
    await waiting.entering.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ready.left_by is ready.entered_by is not None
    assert waiting.left_by is waiting.entered_by is not None


async def test_an_end_that_hangs_is_cancelled_after_the_grace() -> None:
    cancelled = False

    @asynccontextmanager
    async def hangs() -> AsyncGenerator[None, None]:
        nonlocal cancelled
        yield
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    async with Lifespans(grace_s=0.05) as spans:
        await spans.enter_all({"hangs": hangs()})
    assert cancelled


async def test_cancelling_the_leaving_task_ends_the_grace() -> None:
    leaving = asyncio.Event()

    @asynccontextmanager
    async def hangs() -> AsyncGenerator[None, None]:
        yield
        leaving.set()
        await asyncio.Event().wait()

    async def hold() -> None:
        async with Lifespans(grace_s=600) as spans:
            await spans.enter_all({"hangs": hangs()})

    task = asyncio.create_task(hold())
    await leaving.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failing_end_is_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def fails() -> AsyncGenerator[None, None]:
        yield
        raise ConnectionError("the other side is gone")

    with caplog.at_level(logging.WARNING, "llmling"):
        async with Lifespans() as spans:
            await spans.enter_all({"search": fails()})
    assert caplog.messages == ["leaving search failed: the other side is gone"]


async def test_an_error_inside_the_block_still_leaves_everything() -> None:
    part = Part()
    with contextlib.suppress(LookupError):
        async with Lifespans() as spans:
            await spans.enter_all({"part": part.open()})
            raise LookupError
    assert part.left_by is part.entered_by is not None


async def test_a_name_is_used_once() -> None:
    async with Lifespans() as spans:
        await spans.enter_all({"a": Part().open()})
        with pytest.raises(ValueError, match="already entered: a"):
            await spans.enter_all({"a": Part().open()})


def test_leaf_prefers_what_is_not_a_cancellation() -> None:
    group = BaseExceptionGroup("g", [asyncio.CancelledError(), ExceptionGroup("h", [KeyError("x")])])
    assert isinstance(leaf(group), KeyError)
    assert isinstance(leaf(BaseExceptionGroup("g", [asyncio.CancelledError()])), asyncio.CancelledError)
    assert reason(ExceptionGroup("g", [TimeoutError()])) == "TimeoutError"
