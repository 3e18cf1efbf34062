"""A whole prompt made of parts, that can be run by itself or instruct an agent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmling.messages import RunResult
from llmling.prompts import variables as placeholders
from llmling.prompts.execution import Call, run_prompt
from llmling.prompts.parts import Constraints, Directive, Guidance, system_text
from llmling.protocols import Model
from llmling.runtime.sync import run_outside_loop

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A prompt made of parts: guidance and constraints are the system turn, the directive is the user turn.

    `{{ name }}` in any part is filled from `variables`, here and now; values are inserted as they are and never read
    as placeholders. `data` is material for the directive and stands behind it, between `<data>` and `</data>`; what is
    not a text becomes JSON. `output` is a JSON Schema or a pydantic model: `result.content` is then that object.

    It holds no key, no connection and no state, so one may be run any number of times at once. As `instructions=` of
    an agent it frames the user's message, which is inserted where the directive has `{{ message }}`, else behind it.

    Raises:
        ValueError: A placeholder has no variable, or a variable no placeholder.
        TypeError: A part is of the wrong type.

    Example:
        >>> context = Context(
        ...     guidance=Guidance(role="Senior data analyst", goal="Find what is unusual"),
        ...     directive=Directive("Analyse {{ quarter }}: revenue dropped 18 % in APAC."),
        ...     variables={"quarter": "Q3"},
        ... )
        >>> result = await context.aexecute(provider="openai")
    """

    guidance: Guidance | str = ""
    directive: Directive | str = ""
    constraints: Constraints | str = ""
    variables: Mapping[str, object] = field(default_factory=dict[str, object])
    data: Any = None
    output: type | Mapping[str, Any] | None = None
    name: str = "context"
    _system: str = field(init=False, repr=False, compare=False)
    _user: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        variables = dict(self.variables)
        object.__setattr__(self, "variables", variables)
        directive = _text_of(self, "directive", Directive)
        pieces = [directive] if "message" in variables else placeholders.around_message(directive)
        texts = [_text_of(self, "guidance", Guidance), _text_of(self, "constraints", Constraints), *pieces]
        placeholders.check((name for text in texts for name in placeholders.names(text)), variables)

        def fill(text: str) -> str:
            return placeholders.fill(text, variables)

        parts = (self.guidance, self.constraints)
        filled = [fill(part) if isinstance(part, str) else part.filled(fill) for part in parts]
        object.__setattr__(self, "_system", system_text(*filled))
        object.__setattr__(self, "_user", tuple(fill(piece) for piece in pieces))

    def system(self, values: Mapping[str, Any] = _NOTHING) -> str:
        """Return the system turn; `values` of a run change nothing, because everything is filled already."""
        return self._system

    def user(self, message: str = "", values: Mapping[str, Any] = _NOTHING) -> str:
        """Return the user turn, with the message of a run inside it."""
        framed = message.join(self._user).strip()
        outside = message if len(self._user) == 1 else ""
        return "\n\n".join(text for text in (framed, _material(self.data), outside) if text.strip())

    async def aexecute(
        self,
        provider: str | None = None,
        model: str | Mapping[str, Any] | Model | None = None,
        *,
        api_key: str | None = None,
        api_base: str | None = None,
        stream: bool = False,
        timeout_s: float | None = None,
        retries: int | None = None,
        **settings: Any,
    ) -> RunResult:
        """Ask a model and return its answer.

        `provider` alone takes its default model, `model="openai/gpt-4o-mini"` needs no provider, neither is `auto`.
        `stream` lets the provider send the answer in pieces; the result is the same. `timeout_s` (default 300) bounds
        all tries together, `retries` (default 2) are the tries after the first. `settings` are `temperature`,
        `max_tokens`, `top_p`, `seed`, `stop`, and what else the provider takes. Cancelling it ends the request.

        Raises:
            ValueError: The directive is empty, the provider unknown or a setting out of range; nothing was sent.
            TypeError: There is no such argument; nothing was sent.
            ModelError: The provider failed; it carries status, provider and attempts.
            LimitExceeded: There was no answer within `timeout_s`.
        """
        call = Call(provider, model, api_key, api_base, stream, timeout_s, retries, settings)
        return await run_prompt(self.name, self._ready_user(), self._system, self.output, call)

    def execute(
        self,
        provider: str | None = None,
        model: str | Mapping[str, Any] | Model | None = None,
        *,
        api_key: str | None = None,
        api_base: str | None = None,
        stream: bool = False,
        timeout_s: float | None = None,
        retries: int | None = None,
        **settings: Any,
    ) -> RunResult:
        """Do as `aexecute`, from code without an event loop, on any thread.

        Raises:
            SyncInAsyncError: Called inside a running event loop; write `await ctx.aexecute(...)` there.
        """
        call = Call(provider, model, api_key, api_base, stream, timeout_s, retries, settings)
        return run_outside_loop(
            lambda: run_prompt(self.name, self._ready_user(), self._system, self.output, call),
            called="execute",
            instead="await ctx.aexecute(...)",
        )

    def _ready_user(self) -> str:
        if not "".join(self._user).strip():
            raise ValueError("the directive is empty: pass what the model should do, as directive=Directive(...)")
        if len(self._user) > 1:
            raise ValueError(
                "the directive has a place for {{ message }}, which only the run of an agent has: "
                "give variables={'message': ...}, or use the context as `instructions=` of an agent"
            )
        return self.user()


def _text_of(context: Context, name: str, kind: type[Any]) -> str:
    part: Any = getattr(context, name)
    if isinstance(part, str):
        return part
    if not isinstance(part, kind):
        raise TypeError(f"Context({name}=...) should be a {kind.__name__} or a text, not {type(part).__name__}")
    return part.text()


def _material(data: Any) -> str:
    if data is None:
        return ""
    text = data if isinstance(data, str) else json.dumps(data, indent=2, ensure_ascii=False, default=str)
    return f"<data>\n{text}\n</data>"
