"""What of an exchange a model is shown: old turns and call groups are left out whole, old tool results cut short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from llmling.frozen import frozen
from llmling.messages import Message, Part, TextPart, ToolCallResponsePart
from llmling.runtime.gauge import Gauge

KEPT_CHARACTERS = 200
"""What is left of an old tool result."""
_WORTH_CUTTING = KEPT_CHARACTERS + 100
_NAMED_TOOLS = 10


@frozen
class Compaction:
    """What is left out: the first `turns` before the question, the first `groups` after it.

    `cut` has the characters that are left of the tool results in a message, by its place in the exchange.
    """

    turns: int = 0
    groups: int = 0
    cut: Mapping[int, int] = field(default_factory=dict[int, int])
    summary: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` takes back and JSON can hold."""
        cut = {str(index): kept for index, kept in self.cut.items()}
        return {"turns": self.turns, "groups": self.groups, "cut": cut, "summary": self.summary}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Compaction:
        """Build what `to_dict` gave."""
        cut = {int(index): kept for index, kept in data["cut"].items()}
        return cls(data["turns"], data["groups"], cut, data["summary"])


@frozen
class Sizes:
    """Tokens: a request over `limit` is made smaller, down to `target` where possible; none is over `most`."""

    target: float
    limit: float
    most: float

    @classmethod
    def of(cls, most: float, share: float, floor: float) -> Sizes:
        """Return the bounds of a window; `floor` is what cannot be left out."""
        limit = most * share
        target = limit * 2 / 3
        if floor >= target:
            # Measured from the floor, so that a long question does not cost the run its memory at every turn.
            limit = floor + (most - floor) * share
            target = (floor + limit) / 2
        return cls(target, limit, most)


class Layout:
    """An exchange and what belongs together in it.

    Before the question that is a turn, from one message of the user to the next; after it a call group, an answer of
    the model with the results of its tool calls.
    """

    def __init__(self, exchange: Sequence[Message], question: int) -> None:
        self.exchange = exchange
        self.question = question
        lead = 1 if exchange and exchange[0].role == "system" and question > 0 else 0
        self.lead = range(lead)
        self.turns = _units(exchange, lead, question, "user")
        self.groups = _units(exchange, question + 1, len(exchange), "assistant")

    def shown(self, left: Compaction) -> list[int]:
        """Return the places of the messages that are shown."""
        units = (self.lead, *self.turns[left.turns :], (self.question,), *self.groups[left.groups :])
        return [index for unit in units for index in unit]

    def gone(self, before: Compaction, after: Compaction) -> list[Message]:
        """Return the messages that `after` leaves out and `before` does not."""
        units = (*self.turns[before.turns : after.turns], *self.groups[before.groups : after.groups])
        return [self.exchange[index] for unit in units for index in unit]

    def messages(self, left: Compaction, notes: str) -> list[Message]:
        """Return the messages for the model; `notes` stand behind the question, so that roles alternate as before."""
        messages = [self.message(index, left) for index in self.shown(left)]
        if notes:
            place = self.shown(left).index(self.question)
            asked = messages[place]
            messages[place] = replace(asked, parts=(*asked.parts, TextPart(f"\n\n{notes}")))
        return messages

    def message(self, index: int, left: Compaction) -> Message:
        """Return one message as it is shown."""
        message = self.exchange[index]
        kept = left.cut.get(index)
        return message if kept is None else replace(message, parts=tuple(_cut(part, kept) for part in message.parts))

    def results(self, index: int) -> int:
        """Return how many tool results a message has."""
        return sum(isinstance(part, ToolCallResponsePart) for part in self.exchange[index].parts)

    def note(self, left: Compaction) -> str:
        """Return what the model is told about what it does not see; empty when it sees everything."""
        if not left.turns and not left.groups:
            return ""
        gone: list[str] = []
        if left.turns:
            gone.append(counted(left.turns, "earlier turn", "of this conversation"))
        calls = [call for message in self.gone(Compaction(), replace(left, turns=0)) for call in message.tool_calls]
        if calls:
            names = list(dict.fromkeys(call.name for call in calls))
            more = ", ..." if len(names) > _NAMED_TOOLS else ""
            gone.append(counted(len(calls), "earlier tool call", f"({', '.join(names[:_NAMED_TOOLS])}{more})"))
        elif left.groups:
            gone.append(counted(left.groups, "earlier answer", "of yours"))
        if not gone:
            return ""
        note = f"[Left out to fit the context window: {'; '.join(gone)}.]"
        return f"{note}\n[A summary of what was left out:\n{left.summary}]" if left.summary else note


class Fitting:
    """Makes an exchange small enough; `besides` are the tokens of what is sent beside it."""

    def __init__(self, layout: Layout, gauge: Gauge, besides: float) -> None:
        self._layout = layout
        self._gauge = gauge
        self._besides = besides
        self._weights = [gauge.whole(message, index) for index, message in enumerate(layout.exchange)]

    @property
    def floor(self) -> float:
        """The tokens of what is never left out."""
        kept = (*self._layout.lead, self._layout.question)
        return self._besides + sum(self._weights[index] for index in kept)

    def size(self, left: Compaction) -> float:
        """Return the tokens of the request."""
        weights = sum(self._weight(index, left) for index in self._layout.shown(left))
        return self._besides + weights + self._gauge.text(self._layout.note(left))

    def fit(self, left: Compaction, bounds: Sizes, *, cut_first: bool) -> Compaction:
        """Leave out more, oldest first: cut results, whole turns, whole groups; last the results just come in."""
        size = self.size(left)
        for smaller, saved in self._steps(left, cut_first):
            if size <= bounds.target:
                break
            left, size = smaller, size - saved
        if self.size(left) > bounds.limit:
            left = self._cut_last(left, bounds.limit)
        if self.size(left) > bounds.most:
            left = replace(left, groups=len(self._layout.groups))
        return left

    def _weight(self, index: int, left: Compaction) -> float:
        if index not in left.cut:
            return self._weights[index]
        return self._gauge.message(self._layout.message(index, left), index)

    def _steps(self, left: Compaction, cut_first: bool) -> Iterator[tuple[Compaction, float]]:
        layout = self._layout
        if cut_first:
            old = (*layout.turns[left.turns :], *layout.groups[left.groups : -1])
            for index in (index for unit in old for index in unit):
                if _longest_result(layout.exchange[index]) > _WORTH_CUTTING and index not in left.cut:
                    smaller = replace(left, cut={**left.cut, index: KEPT_CHARACTERS})
                    yield smaller, self._weight(index, left) - self._weight(index, smaller)
                    left = smaller
        while left.turns < len(layout.turns):
            saved = sum(self._weight(index, left) for index in layout.turns[left.turns])
            left = replace(left, turns=left.turns + 1)
            yield left, saved
        while left.groups < len(layout.groups) - 1:
            saved = sum(self._weight(index, left) for index in layout.groups[left.groups])
            left = replace(left, groups=left.groups + 1)
            yield left, saved

    def _cut_last(self, left: Compaction, limit: float) -> Compaction:
        last = self._layout.groups[left.groups :][-1:]
        places = [index for unit in last for index in unit if _longest_result(self._layout.exchange[index])]
        kept = max((_longest_result(self._layout.exchange[index]) for index in places), default=0)
        while kept > KEPT_CHARACTERS and self.size(left) > limit:
            kept = max(KEPT_CHARACTERS, kept * 3 // 4)
            left = replace(left, cut={**left.cut, **dict.fromkeys(places, kept)})
        return left


def counted(count: int, noun: str, rest: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'} {rest}"


def _units(exchange: Sequence[Message], start: int, stop: int, opens: str) -> list[range]:
    starts = [index for index in range(start, stop) if exchange[index].role == opens or index == start]
    if not starts:
        return []
    return [range(here, there) for here, there in zip(starts, (*starts[1:], stop), strict=True)]


def _longest_result(message: Message) -> int:
    return max((len(part.response) for part in message.parts if isinstance(part, ToolCallResponsePart)), default=0)


def _cut(part: Part, kept: int) -> Part:
    if not isinstance(part, ToolCallResponsePart) or len(part.response) <= kept:
        return part
    note = f"[cut to fit the context window: the first {kept:,} of {len(part.response):,} characters]"
    return replace(part, response=f"{part.response[:kept]}\n{note}")
