"""The person at the terminal: asked for tool calls and questions of a run, on standard error, one at a time."""

from __future__ import annotations

import asyncio
import sys

from llmling.asks import Attending, Question
from llmling.errors import RunError
from llmling.masking import masked_arguments
from llmling.messages import ToolCallPart
from llmling.records import RunInfo
from llmling.shapes import wanted
from llmling_cli import console


class Person:
    """Whoever sits in front of a terminal."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def approve(self, call: ToolCallPart, run: RunInfo) -> bool | str:
        """Ask whether a tool may be called; anything but yes or no is the reason of a no."""
        async with self._turn:
            shown = console.short(masked_arguments(call.arguments), 500)
            console.complain(f"agent {run.agent!r} wants to call {call.name}({shown})", "yellow")
            said = await _line("allow it? y, or n, or why not: ")
        if said.lower() in {"y", "yes"}:
            return True
        return False if said.lower() in {"", "n", "no"} else said

    async def answer(self, question: Question, run: RunInfo) -> str:
        """Ask a question until a line is typed that is not empty, and return it."""
        async with self._turn:
            if question.about:
                console.complain(question.about)
            console.complain(f"question to {run.agent!r}: {question}", "yellow")
            if how := wanted(question.output_schema):
                console.complain(f"answer with {how}", "yellow")
            while not (said := await _line("answer: ")):
                pass
            return said


def attending() -> Attending:
    """Return the person at the terminal, nobody when a script or pipe runs this."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return {}
    person = Person()
    return {"approve": person.approve, "ask": person.answer}


async def _line(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    # Not input() in a thread: Ctrl+C would have to wait for the line.
    typed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    line = sys.stdin.readline()
    if not line:
        raise RunError("the terminal was closed before a person answered; run it again")
    return line.strip()
