from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
import threading
import time

import pytest

from llmling.runtime.threads import Threads, run_in_thread

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def test_context_variables_arrive_and_the_thread_is_ours() -> None:
    name.set("somebody")

    def look(prefix: str, *, suffix: str) -> tuple[str, str]:
        return prefix + name.get() + suffix, threading.current_thread().name

    text, thread = await run_in_thread(look, "<", suffix=">")
    assert text == "<somebody>"
    assert thread.startswith("llmling-")


async def test_errors_arrive() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await run_in_thread(int, "missing")


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(3), KeyboardInterrupt()])
async def test_what_would_end_the_loop_is_contained(error: BaseException) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__):
        await run_in_thread(fails)


async def test_threads_are_bounded_and_reused() -> None:
    threads = Threads(3, name="bounded")
    seen: set[str] = set()
    running = 0
    most = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            seen.add(threading.current_thread().name)
        time.sleep(0.005)
        with lock:
            running -= 1

    await asyncio.gather(*(threads.run(work) for _ in range(30)))
    assert most == 3
    assert seen == {"bounded-1", "bounded-2", "bounded-3"}
    idle = Threads(8, name="idle")
    for _ in range(20):
        await idle.run(work)
    assert "idle-8" not in seen


async def test_sixty_four_calls_run_at_once() -> None:
    barrier = threading.Barrier(64, timeout=10)
    await asyncio.gather(*(run_in_thread(barrier.wait) for _ in range(64)))


async def test_a_cancelled_caller_returns_at_once_and_a_late_failure_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started, finish = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        finish.wait(10)
        raise ValueError("too late")

    task = asyncio.create_task(run_in_thread(slow))
    await run_in_thread(started.wait, 10)
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 9
    with caplog.at_level(logging.WARNING, "llmling"):
        finish.set()
        async with asyncio.timeout(30):
            # The record is there before its text.
            while "slow failed after its caller had gone: too late" not in caplog.text:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.005)


async def test_a_call_cancelled_while_it_waits_never_runs() -> None:
    threads = Threads(1)
    finish = threading.Event()
    ran: list[int] = []
    first = asyncio.create_task(threads.run(finish.wait, 10))
    second = asyncio.create_task(threads.run(ran.append, 2))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    finish.set()
    await first
    await threads.run(ran.append, 3)
    assert ran == [3]


def test_a_function_that_never_returns_does_not_keep_the_interpreter() -> None:
    program = (
        "import asyncio, threading\n"
        "from llmling.runtime.threads import run_in_thread\n"
        "async def main():\n"
        "    task = asyncio.create_task(run_in_thread(threading.Event().wait))\n"
        "    await asyncio.sleep(0.05)\n"
        "    task.cancel()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=20, check=False)
    assert done.returncode == 0
