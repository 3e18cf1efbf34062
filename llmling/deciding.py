"""Telling a person's decision to an event that waits for it."""

from __future__ import annotations

from dataclasses import replace

from llmling.asks import Ask, Decision, open_asks, place
from llmling.errors import OutputError
from llmling.protocols import Engine
from llmling.runtime.output import output_type
from llmling.shapes import filled, wanted


async def decide(engine: Engine, event_id: str, decision: Decision) -> tuple[Ask, ...]:
    """Settle what the first waiting delivery of an event asks that such a decision answers; return what that was.

    A yes or no settles every tool call that delivery asks for, an answer its first question. Nothing is returned when
    nothing of the kind is asked, or somebody else was quicker.

    Raises:
        LookupError: There is no such event.
        OutputError: The answer does not match the agent's `output`; the message says where.
        EngineError: The engine cannot be used.
    """
    record = await engine.inspect(event_id)
    if record is None:
        raise LookupError(f"no event {event_id!r}; `llmling events list` shows those there are")
    waiting = (delivery for delivery in record.deliveries if delivery.status == "waiting")
    found = ((delivery.id, decision.settles(open_asks(delivery.steps))) for delivery in waiting)
    delivery_id, asks = next(((delivery_id, asks) for delivery_id, asks in found if asks), ("", ()))
    if decision.answer is not None and asks:
        decision = replace(decision, answer=_fitting(asks[0], decision.answer))
    # What has come to be asked since then is not what this decision is about.
    seen = {place(delivery_id, ask) for ask in asks}
    return asks if asks and await engine.decide(event_id, decision, seen=seen) else ()


def _fitting(ask: Ask, answer: str) -> str:
    if ask.output_schema is None:
        return answer
    answer = filled(ask.output_schema, answer)
    try:
        output_type(ask.output_schema).parse(answer)
    except OutputError as error:
        raise OutputError(f"{error}\nAnswer with {wanted(ask.output_schema)}") from None
    return answer
