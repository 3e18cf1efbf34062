"""How a delivery ends, as it is written down: what became of its run, judged by the rules of its agent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import assert_never

from llmling.engines import records
from llmling.engines.records import NewDelivery, Row, StepRow
from llmling.frozen import frozen
from llmling.protocols import Again, Dead, Delivery, Done, EventStatus, Settlement, Waiting
from llmling.written import usage_text


@frozen
class Verdict:
    """How a delivery ends or goes on, as it is written down; `follows` are its successors as they will run."""

    status: EventStatus
    content: str | bytes | None = None
    error: str | bytes | None = None
    usage: str | None = None
    cost_usd: float | None = None
    model: str = ""
    wait_s: float = 0.0
    not_before: float = 0.0
    successors: Sequence[NewDelivery] = ()
    follows: Sequence[Delivery] = ()


@frozen
class Ending:
    """How a delivery ended at a time, in its so many-th try.

    `begins` are those of what follows that start with it, `step` is its last step where that is not written yet.
    """

    row: Row
    attempt: int
    verdict: Verdict
    now: float
    begins: Collection[str] = ()
    step: StepRow | None = None

    @property
    def delivery(self) -> Delivery:
        """What has ended."""
        return self.row.delivery

    @property
    def reply(self) -> str | None:
        """Its last step as its own row holds it."""
        return None if self.step is None else records.reply(self.step)

    @property
    def leaves_a_step(self) -> bool:
        """Whether its last step is written beside its row, which cannot hold a key with lone surrogates."""
        return self.step is not None and not isinstance(self.step[1], str)

    @property
    def cost_usd(self) -> float | None:
        """What all its tries have cost."""
        before, last = self.row.cost_usd, self.verdict.cost_usd
        return before if last is None else last if before is None else before + last

    @property
    def is_last(self) -> bool:
        """Whether its event, if it is done, ends with it: all but the first delivery follow from others."""
        return not self.verdict.successors and not self.row.delivery.hops


def judge(settlement: Settlement, attempt: int, most: int, now: float) -> Verdict:
    """Return how a delivery ends in its so many-th try, of which it may have so many."""
    match settlement:
        case Done(content, successors, usage, cost_usd, model):
            new = [records.new_delivery(delivery) for delivery in successors] if successors else ()
            spent = usage_text(usage) if usage.requests else None
            return Verdict(
                "done", records.stored(content), None, spent, cost_usd, model, successors=new, follows=successors
            )
        case Again(reason, after_s, cost_usd) if attempt < most:
            return Verdict("pending", None, records.stored(reason), None, cost_usd, "", after_s, now + after_s)
        case Again(reason, _, cost_usd) | Dead(reason, cost_usd):
            return Verdict("dead", None, records.stored(reason), cost_usd=cost_usd)
        case Waiting(reason, cost_usd):
            return Verdict("waiting", None, records.stored(reason), cost_usd=cost_usd)
        case _ as never:
            assert_never(never)
