"""Which deliveries are suspects after crashes, and when they may start."""

from __future__ import annotations

from llmling.engines.inbox import Inbox
from llmling.engines.quarantine import Quarantine
from llmling.engines.records import Origin, Row
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Delivery, Policy


def row(seq: int, crashes: int, attempts: int | None = None) -> Row:
    """Return a delivery that was in so many crashes."""
    event = Event(f"e{seq}", "hook", "test", "")
    delivery = Delivery(f"d{seq}", event.id, "a", Message.user("x"), 0)
    return Row(seq, delivery, Origin(event, "hook", "a", 0.0), crashes if attempts is None else attempts, crashes)


def test_one_crash_makes_no_suspect_unless_only_one_try_is_left() -> None:
    quarantine, inbox = Quarantine(), Inbox("a", Policy(attempts=5))
    assert not quarantine.take(inbox, row(1, 0, attempts=4))
    assert not quarantine.take(inbox, row(2, 1))
    assert quarantine.take(inbox, row(3, 2))
    assert quarantine.take(inbox, row(4, 1, attempts=4))
    assert quarantine.take(Inbox("b", Policy(attempts=2)), row(5, 1))


def test_suspects_start_one_at_a_time_and_more_as_they_end_well() -> None:
    quarantine, inbox = Quarantine(), Inbox("a", Policy(attempts=9, concurrency=4))
    rows = [row(seq, 2) for seq in range(5)]
    for suspect in reversed(rows):
        assert quarantine.take(inbox, suspect)
    assert not quarantine.closes_the_pool
    assert quarantine.start(active=3) == (inbox, rows[0])
    assert quarantine.start(active=4) is None
    quarantine.left(rows[0])
    inbox.left(rows[0])
    assert quarantine.start(active=3) == (inbox, rows[1])
    assert quarantine.start(active=4) == (inbox, rows[2])
    assert quarantine.start(active=5) is None


def test_the_last_try_runs_alone_after_the_other_suspects() -> None:
    quarantine, inbox = Quarantine(), Inbox("a", Policy(attempts=5))
    last, other = row(1, 4), row(2, 2)
    assert quarantine.take(inbox, last)
    assert quarantine.closes_the_pool
    assert quarantine.take(inbox, other)
    assert not quarantine.closes_the_pool
    assert quarantine.start(active=1) == (inbox, other)
    assert quarantine.closes_the_pool
    assert quarantine.start(active=2) is None
    quarantine.left(other)
    assert quarantine.start(active=1) is None
    assert quarantine.start(active=0) == (inbox, last)
    assert quarantine.closes_the_pool
    quarantine.left(last)
    assert not quarantine.closes_the_pool


def test_suspects_of_an_agent_are_forgotten_when_the_disk_is_read_again() -> None:
    quarantine, one, two = Quarantine(), Inbox("a", Policy()), Inbox("b", Policy())
    assert quarantine.take(one, row(1, 2))
    assert quarantine.take(two, row(2, 2))
    quarantine.forget(one)
    assert one.held == set()
    assert two.held == {"d2"}
    assert quarantine.take(one, row(1, 2))
    assert quarantine.take(one, row(1, 2))
    quarantine.forget(two)
    found = quarantine.start(active=0)
    assert found is not None
    assert found[1].delivery.id == "d1"
    quarantine.left(found[1])
    assert quarantine.start(active=0) is None
