"""Recording: a model that passes everything on and writes down what was asked and what came of it."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmling.errors import LLMlingError, ModelError, NotAsked, StartupError
from llmling.manifest.cassettes import is_cassette
from llmling.models.cassettes.exchange import answer_data, error_data, request_data
from llmling.models.cassettes.varying import Varying
from llmling.models.cassettes.writing import CassetteFile
from llmling.protocols import Model, ModelRequest, ModelResponse, TextDelta
from llmling.runtime.scope import current_event
from llmling.runtime.threads import run_in_thread

logger = logging.getLogger("llmling.models")


class Recording:
    """Records every model of a pool in one cassette; leaving it makes sure that all is in the file.

    Raises:
        StartupError: The file cannot be written.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._varying = Varying(folder, os.environ)
        self._file = CassetteFile(path)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._file.flush()
        if self._file.fault is not None and error is None:
            raise LLMlingError(f"cassette {self._file.path} is not complete: {self._file.fault.strerror}")
        if self._file.empty:
            logger.warning("cassette %s: no model was asked, so nothing was recorded", self._file.path)

    def around(self, model: Model, agent: str) -> Model:
        """Return a model that is recorded.

        Raises:
            StartupError: It replays a cassette itself.
        """
        if model.name.startswith("replay:"):
            who = f"agent {agent!r}" if agent else "a model"
            text = f"{who} answers from {model.name}, so there is nothing to record: name a model, such as --model auto"
            raise StartupError(text, usage=True)
        return RecordingModel(model, agent, self)

    async def add(self, agent: str, request: ModelRequest, reply: dict[str, Any]) -> None:
        """Write down what came of one request."""
        event = current_event.get()
        asked, replied = (self._varying.hidden(data, event) for data in (request_data(request), reply))
        await self._file.add(agent, asked, replied)
        if self._file.fault is not None:
            # The answer is paid for, so the run goes on; leaving the pool tells of it again.
            logger.error("cassette %s cannot be written: %s", self._file.path, self._file.fault)


@asynccontextmanager
async def recorded(
    path: str | Path | None, folder: Path, manifest: Path | None = None
) -> AsyncGenerator[Callable[[Model, str], Model]]:
    """Yield what `Services.around_model` has to be: it records when a path is given, relative to `folder`.

    Raises:
        StartupError: The file cannot be written, or is something else than a cassette, such as the manifest.
    """
    if path is None:
        yield lambda model, agent: model
        return
    recording = Recording(folder / path, folder)
    await run_in_thread(_refuse_other, folder / path, manifest)
    async with recording:
        yield recording.around


def _refuse_other(path: Path, manifest: Path | None) -> None:
    """Refuse to record over what is no recording.

    Raises:
        StartupError: The file is there and no cassette, or it cannot be read.
    """
    if not path.exists():
        return
    try:
        if manifest is not None and manifest.exists() and path.samefile(manifest):
            reason = "is the manifest"
        else:
            reason = "" if is_cassette(path) else "is not a cassette"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    if reason:
        raise StartupError(f"{path} {reason}; name another file for --record", usage=True)


class RecordingModel:
    """A model in front of another one; what is cut off from outside, or left early, is not recorded."""

    def __init__(self, model: Model, agent: str, recording: Recording) -> None:
        self._model = model
        self._agent = agent
        self._recording = recording

    @property
    def name(self) -> str:
        """The name of the model behind it."""
        return self._model.name

    def __getattr__(self, name: str) -> Any:
        # Whether it retries by itself, what it has to say at the start: all that is known of the model behind it.
        return getattr(self._model, name)

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the answer of the model behind it.

        Raises:
            ModelError: It failed.
        """
        try:
            response = await self._model.request(request)
        except ModelError as error:
            await self._failed(request, error, "")
            raise
        await self._answered(request, response)
        return response

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield what the model behind it yields.

        Raises:
            ModelError: It failed.
        """
        parts = self._model.stream(request)
        said: list[str] = []
        try:
            async for part in parts:
                if isinstance(part, TextDelta):
                    said.append(part.text)
                else:
                    await self._answered(request, part)
                yield part
        except ModelError as error:
            await self._failed(request, error, "".join(said))
            raise
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()

    async def _answered(self, request: ModelRequest, response: ModelResponse) -> None:
        name = self.name
        await self._recording.add(self._agent, request, {"model": name, "answer": answer_data(response, name)})

    async def _failed(self, request: ModelRequest, error: ModelError, text: str) -> None:
        if not isinstance(error, NotAsked):
            reply = {"model": self.name, "error": error_data(error, text)}
            await self._recording.add(self._agent, request, reply)
