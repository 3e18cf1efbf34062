"""A person as a model: whoever is there answers, and where nobody is, the event waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from llmling.asks import AskPerson, Question
from llmling.errors import NobodyToAsk, RunError
from llmling.manifest.models import HumanModelConfig
from llmling.protocols import ModelRequest, ModelResponse, RunInfo, TextDelta
from llmling.runtime.asking import human_reply, question_of
from llmling.runtime.callables import call_user
from llmling.runtime.scope import current_request
from llmling.runtime.services import Services
from llmling.shapes import filled


class HumanModel:
    """Hands the last message to `ask(question, run)`, sync or async, and answers with the text it returns.

    The question is a text; its `about` is what the agent was told, its `output_schema` what the answer has to match.
    In a run that an engine keeps nobody is kept waiting: the event waits instead, for `llmling events answer`.

    Example:
        >>> agent = Agent("boss", model="human", ask=lambda question, run: input(question))
    """

    name = "human"
    unbounded = True  # no budget and no limit of requests counts a person

    def __init__(self, ask: AskPerson | None = None) -> None:
        self._ask = ask

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the person's answer.

        Raises:
            NobodyToAsk: There is no `ask`, or an engine keeps the run.
            RunError: `ask` failed, or returned no text.
        """
        question = question_of(request)
        run = current_request.get()
        if self._ask is None or run is None:
            raise NobodyToAsk(
                "a person should answer (model: human), and there is nobody to ask here: give the agent or the "
                "pool `ask=`, run it on a terminal, or let a trigger start it, so that the event "
                "waits for `llmling events answer`",
                question=question,
            )
        return human_reply(filled(request.output_schema, await _said(self._ask, question, run)))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield the person's answer as a text and, last, as a response."""
        response = await self.request(request)
        yield TextDelta(response.message.text)
        yield response


async def _said(ask: AskPerson, question: Question, run: RunInfo) -> str:
    try:
        said = await call_user(ask, question, run)
    except RunError:
        raise
    except Exception as error:  # the border to what users wrote
        raise RunError(f"`ask` of agent {run.agent!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(said, str):
        raise RunError(f"`ask` of agent {run.agent!r} returned {said!r}: return the answer as text")
    return said


def human_model(config: HumanModelConfig, services: Services) -> HumanModel:
    """Build the model of `model: human`; the pool knows how to ask a person who is there, if anybody is."""
    return HumanModel(services.person)
