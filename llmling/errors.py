"""Every exception of llmling.

LLMlingError
├── ManifestError            the manifest is wrong; carries all problems of all its files
├── StartupError             a part could not be started
├── EngineError              the store of events cannot be used
│   ├── EngineBusy           another process holds it
│   └── Full                 no room for another event right now (retry_after_s)
├── RunError                 one run of an agent failed
│   ├── ModelError           the model or its provider failed (status, provider, attempts, retryable, too_long)
│   │   └── NotAsked         no model may be asked: not in the cassette, or a test forbids it
│   ├── LimitExceeded        a limit of the run was reached
│   ├── OutputError          the answer never matched the output schema
│   ├── DecisionNeeded       a tool call was in flight at a crash and may not be repeated blindly
│   │   └── Asked            a tool call or a question waits for a person
│   ├── NobodyToAsk          a person should answer, and there is none
│   ├── TeamError            a team found nobody to answer, or no list to map over
│   ├── HookError            a hook vetoed a model request, or failed (retryable)
│   ├── SinkError            an answer did not arrive where it should (retryable)
│   └── BudgetExceeded       money or tokens for the period are spent
├── ToolError                a tool failed; the model sees the text
├── Veto                     raised by a hook: this must not happen
└── SyncInAsyncError         a sync method was called inside a running event loop
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


class LLMlingError(Exception):
    """Base of every error llmling raises on purpose."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a manifest, with its exact place.

    `line` and `column` count from 1. `excerpt` is the source line, `length` how many characters the caret marks.
    """

    path: str
    line: int
    column: int
    code: str
    message: str = field(compare=False)
    severity: str = field(default="error", compare=False)
    excerpt: str = field(default="", compare=False)
    length: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.severity} {self.code}: {self.message}"

    def render(self) -> str:
        """Return the problem with its source line and a caret below it."""
        if not self.excerpt:
            return str(self)
        number = str(self.line)
        gutter = " " * (len(number) + 1)
        # Tabs are kept so that the caret stays under the character in any terminal.
        pad = "".join("\t" if char == "\t" else " " for char in self.excerpt[: self.column - 1])
        return f"{self}\n{number} | {self.excerpt}\n{gutter}| {pad}{'^' * max(1, self.length)}"


class ManifestError(LLMlingError):
    """The manifest cannot be used; `problems` lists every mistake in all its files, sorted by place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        super().__init__("\n".join(problem.render() for problem in self.problems))


class StartupError(LLMlingError):
    """A part could not be started; the message names the agent, the part and the reason.

    `usage` is true when the user can mend it in the manifest or the environment (missing key, port in use).
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


class EngineError(LLMlingError):
    """The store of events cannot be used: corrupt file, disk full, newer format."""


class EngineBusy(EngineError):
    """Another process holds the engine's file."""


class Full(EngineError):
    """There is no room for another event; try again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RunError(LLMlingError):
    """One run of an agent failed.

    `retryable` says whether a later attempt of the same delivery can succeed.
    """

    retryable: bool = True


class ModelError(RunError):
    """The model or its provider failed.

    `status` is the HTTP status (None when no answer came), `attempts` the requests made so far,
    `retry_after_s` what the provider asked for. `too_long` is true when the exchange did not fit the model's window,
    `unsent` when nothing reached the provider, so that it can have cost nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        provider: str = "",
        attempts: int = 1,
        retryable: bool = False,
        retry_after_s: float | None = None,
        too_long: bool = False,
        unsent: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.provider = provider
        self.attempts = attempts
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.too_long = too_long
        self.unsent = unsent


class NotAsked(ModelError):
    """No model may be asked: a cassette does not hold the request, or a test forbids real models.

    It is final: there is no other try, and no model of a fallback chain takes over.
    """


class LimitExceeded(RunError):
    """A limit of the run was reached; the message names the manifest key to raise."""

    retryable = False


class OutputError(RunError):
    """The answer did not match the output schema, also after the model was asked again."""

    retryable = False


class DecisionNeeded(RunError):
    """A tool call without `idempotent: true` was in flight when the process died; a person must decide."""

    retryable = False


class Asked(DecisionNeeded):
    """A tool call needs a person's yes, or a question an answer; the engine keeps the run until there is one."""


class NobodyToAsk(RunError):
    """A person should answer, and nobody can be asked; `question` is what."""

    retryable = False

    def __init__(self, message: str, *, question: str = "") -> None:
        super().__init__(message)
        self.question = question


class TeamError(RunError):
    """A team found nobody to answer its message, or no list to map over; the message names the team."""

    retryable = False


class BudgetExceeded(RunError):
    """The money or tokens of a period are spent; the message names the manifest key to raise."""

    retryable = False


class ToolError(LLMlingError):
    """A tool failed in a way the model may read about: raise it inside a tool to choose the text."""


class Veto(LLMlingError):
    """Raise it in a hook to forbid a tool call, whose model reads the text, or a model request, whose run fails."""


class HookError(RunError):
    """A hook vetoed a model request or answer, or failed; `retryable` is false after a veto."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class SinkError(RunError):
    """An answer did not arrive where it should; `retryable` says whether sending it again can help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class SyncInAsyncError(LLMlingError, RuntimeError):
    """A sync method was called inside a running event loop; the message names the async one."""
