"""`llmling serve`: the pool until a signal, with its state and events on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from types import FrameType, TracebackType
from typing import Literal, Self

import psutil

from llmling import garbage, loops
from llmling.errors import LLMlingError
from llmling.manifest import Manifest
from llmling.pool import AgentPool
from llmling.protocols import EventRecord
from llmling.report import Reload, StartReport
from llmling_cli import console, logs
from llmling_cli.events import line
from llmling_cli.notify import Notifier

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    manifest: Manifest,
    *,
    model: str | None,
    record: str | None,
    json: bool,
    log_format: Literal["text", "json"],
    debug: bool,
    follow: bool,
) -> int:
    """Run the pool until SIGINT or SIGTERM and return the exit code; a second signal ends the process at once.

    SIGHUP reloads the manifest, and so does a change of its files with `follow`.
    """
    logs.log_to_stderr(log_format, debug=debug)
    if not json:
        # The notice of the report says it, once.
        logging.getLogger("llmling.models.auto").setLevel(logging.ERROR)
        # Lines on standard output tell of both.
        logging.getLogger("llmling.reload").setLevel(logging.CRITICAL)
        logging.getLogger("llmling.delivery.waiting").setLevel(logging.CRITICAL)
    return loops.run(_serve(manifest, model, record, json=json, follow=follow))


async def _serve(manifest: Manifest, model: str | None, record: str | None, *, json: bool, follow: bool) -> int:
    with _Signals() as signals:
        try:
            lines, notifier = _Lines(json=json), Notifier()
            async with (
                notifier,
                lines,
                AgentPool[None](manifest, model=model, on_event=lines.add, record=record) as pool,
            ):
                lines.pool = pool
                signals.armed()
                garbage.keep()
                notifier.ready(_summary(pool.report))
                with _lasting():
                    _say_ready(pool.report, json=json)
                    if not json:
                        with contextlib.suppress(LLMlingError):
                            _say_waiting((await pool.counts()).get("waiting", 0), pool.manifest.named)
                async with _reloading(pool, signals, notifier, json=json, follow=follow):
                    await signals.heard.wait()
                notifier.stopping(f"draining, up to {pool.manifest.limits.drain_timeout_s:g} s")
                if not json:
                    running = (await pool.counts()).get("running", 0)
                    with _lasting():
                        _say_draining(running, pool.manifest.limits.drain_timeout_s)
        except asyncio.CancelledError:
            if not signals.heard.is_set():
                raise
    return 0


class _Signals:
    """The first signal ends waiting, or starting when it comes early; the second one ends the process."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.hangup = asyncio.Event()
        self._detached = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._terminal = _has_terminal()
        self._starting = asyncio.current_task()

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._hear, number)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
            if self.heard.is_set() and error is None:
                # Drained: one more signal while the process ends changes nothing about that.
                signal.signal(number, _leave)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def armed(self) -> None:
        """From now on a signal ends waiting instead of cancelling the start."""
        self._starting = None

    def _hang_up(self) -> None:
        """Take SIGHUP for a reload, unless it says that the terminal is gone."""
        if not self._terminal or _has_terminal():
            self.hangup.set()
        elif not self._detached:
            self._hear(signal.SIGHUP)

    def _hear(self, number: signal.Signals) -> None:
        if self.heard.is_set():
            # Now means now: what runs is taken up again at the next start, and no MCP server is left behind.
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            os._exit(128 + number)
        self.heard.set()
        if self._starting is not None:
            self._starting.cancel()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.asynccontextmanager
async def _reloading(
    pool: AgentPool[None], signals: _Signals, notifier: Notifier, *, json: bool, follow: bool
) -> AsyncGenerator[None]:
    def say(reload: Reload) -> None:
        notifier.ready(_summary(pool.report))
        with _lasting():
            _say_reload(reload, json=json)

    async def on_hangup() -> None:
        while True:
            await signals.hangup.wait()
            signals.hangup.clear()
            notifier.reloading()
            say(await pool.reload())

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(on_hangup(), name="reload on SIGHUP")]
        if follow:
            tasks.append(group.create_task(pool.reload_on_change(say), name="reload on change"))
        yield
        for task in tasks:
            task.cancel()


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)


@contextlib.contextmanager
def _lasting() -> Generator[None]:
    # Whoever read the output may go away; the pool goes on without a reader.
    try:
        yield
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lives as long as the process


class _Lines:
    """One line per event that is settled or waits for a person, in order; leaving prints what is left.

    The engine tells of an event without its answer. Looking that up is for people, so it happens only while lines
    are read as fast as events come.
    """

    _MOST_BEHIND = 20

    def __init__(self, *, json: bool) -> None:
        self.pool: AgentPool[None] | None = None
        self._json = json
        self._records: asyncio.Queue[EventRecord] = asyncio.Queue()
        self._printing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._printing = asyncio.create_task(self._print(), name="event lines")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._printing is not None:
            self._printing.cancel()
            await asyncio.wait({self._printing})
        while not self._records.empty():
            self._show(self._records.get_nowait())

    def add(self, record: EventRecord) -> None:
        """Take an event that is settled or waits."""
        if self._json:
            self._show(record)
        else:
            self._records.put_nowait(record)

    async def _print(self) -> None:
        while True:
            record = await self._records.get()
            try:
                if self.pool is not None and self._records.qsize() < self._MOST_BEHIND:
                    with contextlib.suppress(LLMlingError):
                        record = await self.pool.inspect(record.id) or record
            finally:
                self._show(record)

    def _show(self, record: EventRecord) -> None:
        with _lasting():
            if self._json:
                kind = "waiting" if record.status == "waiting" else "event"
                console.say_json({"type": kind, **record.to_dict()})
            else:
                console.say(line(record))


def _say_waiting(waiting: int, file: str) -> None:
    if waiting:
        text = f"! {console.count(waiting, 'event')} waiting for a person: llmling events list {file} --status waiting"
        console.say(console.paint(text, "yellow"))


def _say_reload(reload: Reload, *, json: bool) -> None:
    if json:
        console.say_json({"type": "reload", **reload.to_dict()})
    elif reload.applied:
        console.say(console.paint(console.masked(str(reload)), "yellow" if reload.restart else "green"))
    else:
        console.say(console.paint(console.masked("not reloaded: " + "\n".join(reload.problems)), "red"))


def _say_draining(running: int, grace_s: float) -> None:
    work = f"{console.count(running, 'event')} running, up to {grace_s:g} s" if running else "nothing is running"
    console.say(f"draining: {work} (again to force)")


def _say_ready(report: StartReport, *, json: bool) -> None:
    if json:
        console.say_json({"type": "ready", **report.to_dict()})
        return
    agents = [(a.name, a.model, str(a.tools), _state(a.state, a.reason)) for a in report.agents]
    console.say_table(agents, ("AGENT", "MODEL", "TOOLS", "STATE"))
    if report.triggers:
        console.say()
        triggers = [(trigger.name, trigger.type, trigger.agent, trigger.place) for trigger in report.triggers]
        console.say_table(triggers, ("TRIGGER", "TYPE", "AGENT", "LISTENS TO"))
    if report.servers:
        console.say()
        servers = [
            (s.name, str(s.tools), "-" if s.seconds is None else f"{s.seconds:.1f}", _state(s.state, s.reason))
            for s in report.servers
        ]
        console.say_table(servers, ("MCP SERVER", "TOOLS", "SECONDS", "STATE"))
    console.say()
    for notice in report.notices:
        console.say(console.paint(f"! {console.masked(notice)}", "yellow"))
    if not report.triggers:
        console.say(console.paint("! no trigger is enabled: nothing will start an agent", "yellow"))
    console.say(console.paint(f"{_summary(report)} · Ctrl+C stops", "green"))


def _summary(report: StartReport) -> str:
    facts = [
        f"ready in {report.seconds:.1f} s",
        console.count(len(report.agents), "agent"),
        console.count(len(report.triggers), "trigger"),
        *([report.server_url] if report.server_url else []),
    ]
    return " · ".join(facts)


def _state(state: str, reason: str) -> str:
    return console.masked(f"{state}: {console.short(reason, 100)}" if reason else state)
