"""`replay:cassette.yml`: a model that answers from a cassette."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmling.errors import ModelError, NotAsked
from llmling.manifest.cassettes import CassetteAnswer, CassetteError, CassetteReply
from llmling.manifest.models import ReplayModelConfig
from llmling.models.cassettes.difference import differences, nearest
from llmling.models.cassettes.exchange import error_of, request_data, response_of
from llmling.models.cassettes.tape import Recorded, Tape, load_cassette
from llmling.models.cassettes.varying import Varying
from llmling.models.fallback import FallbackModel
from llmling.models.offline import pieces
from llmling.protocols import Model, ModelRequest, ModelResponse, TextDelta
from llmling.runtime.scope import current_event
from llmling.runtime.services import Services


@dataclass(frozen=True, slots=True)
class Cassette:
    """What the models of one agent that replay the same file share."""

    name: str
    path: Path
    agent: str
    varying: Varying
    whole: tuple[Recorded, ...]
    tape: Tape


class ReplayModel:
    """Gives recorded answers and failures, at once and in their order; a request that was not recorded is an error.

    `lane` is the only model whose replies it gives; None: whoever was asked.
    """

    def __init__(self, cassette: Cassette, lane: str | None = None) -> None:
        self._cassette = cassette
        self._tape = cassette.tape if lane is None else cassette.tape.of(lane)

    @property
    def name(self) -> str:
        """`replay:` and the path as the user wrote it."""
        return self._cassette.name

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the next recorded answer of this request.

        Raises:
            ModelError: It was recorded as a failure.
            NotAsked: It was not recorded.
        """
        return self._response(self._take(request))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield the next recorded answer word by word and, last, whole.

        Raises:
            ModelError: As for `request`, behind the text that had come before the failure.
        """
        reply = self._take(request)
        if reply.error is not None:
            for piece in pieces(self._here(reply.error.text)):
                yield TextDelta(piece)
        response = self._response(reply)
        for piece in pieces(response.message.text):
            yield TextDelta(piece)
        yield response

    def _take(self, request: ModelRequest) -> CassetteReply:
        asked: dict[str, Any] = self._cassette.varying.hidden(request_data(request), current_event.get())
        found = self._tape.take(asked)
        if found is not None:
            return found.reply
        if self._cassette.tape.holds(asked):
            raise ModelError(f"{self.name}: another model was asked this", provider="replay", attempts=0)
        raise NotAsked(self._missing(asked), provider="replay", attempts=0)

    def _response(self, reply: CassetteReply) -> ModelResponse:
        if reply.error is not None:
            raise error_of(CassetteError(**self._here(reply.error.model_dump())))
        assert reply.answer is not None  # noqa: S101 - a reply has one of them
        return response_of(CassetteAnswer(**self._here(reply.answer.model_dump())), reply.model)

    def _here(self, data: Any) -> Any:
        return self._cassette.varying.shown(data, current_event.get())

    def _missing(self, asked: Mapping[str, Any]) -> str:
        cassette = self._cassette
        who = f"agent {cassette.agent!r}, {self.name}" if cassette.agent else self.name
        again = f"; record it again with --record {cassette.path.name}"
        if not cassette.tape.recorded:
            others = ", ".join(dict.fromkeys(repr(each.agent) for each in cassette.whole))
            return f"{who}: the cassette has no request of this agent; it has those of {others or 'nobody'}{again}"
        closest = nearest(asked, cassette.tape.recorded)
        assert closest is not None  # noqa: S101 - there is at least one
        what = "; ".join(differences(asked, closest.request)) or "the order of its parts"
        place = f"{cassette.path.name}:{closest.line}"
        return f"{who}: this request was not recorded. Closest is {place}, and this differs: {what}{again}"


def replay_model(config: ReplayModelConfig, services: Services) -> Model:
    """Build the model of `replay:cassette.yml`; the path starts at the manifest's folder.

    An agent that asked several models was recorded behind a fallback chain: its replay is such a chain again.

    Raises:
        StartupError: The cassette cannot be read or used.
    """
    path = services.folder / config.path
    whole = load_cassette(path)
    mine = tuple(each for each in whole if services.agent in {"", each.agent})
    varying = Varying(services.folder, os.environ)
    cassette = Cassette(f"replay:{config.path}", path, services.agent, varying, whole, Tape(mine))
    lanes = cassette.tape.models
    if len(lanes) < 2 or not services.agent:
        return ReplayModel(cassette)
    return FallbackModel.of([ReplayModel(cassette, lane) for lane in lanes], services.clock, cassette.name)
