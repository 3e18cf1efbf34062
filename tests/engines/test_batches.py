"""The daily writes of many at once: what they leave in the tables is what each for itself would have left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from llmling.engines import records
from llmling.engines.batches import Batches
from llmling.engines.ledger import Ledger
from llmling.engines.lookups import steps_of
from llmling.engines.records import Arrival, Origin, Row
from llmling.engines.schema import open_memory
from llmling.engines.transaction import OneByOne
from llmling.engines.verdict import Ending, Verdict
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Delivery, Policy, Step


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(open_memory()) as connection:
        yield connection


@pytest.fixture
def batches() -> Batches:
    ledger = Ledger()
    ledger.serve({"a": Policy()}, 200, heard=True)
    return Batches(ledger)


def begun(connection: sqlite3.Connection, batches: Batches, count: int) -> list[Row]:
    """Write events down whose first deliveries start with that, and return these."""
    rows = [(event, Delivery(f"{event.id}/a", event.id, "a", Message.user("x"))) for event in _events(count)]
    batches.accept(connection, [_arrival(event, delivery) for event, delivery in rows])
    return [Row(n, delivery, Origin(event, "hook", "a", 1.0)) for n, (event, delivery) in enumerate(rows, 1)]


def _events(count: int) -> list[Event]:
    return [Event("hook", "t", data=number) for number in range(count)]


def _arrival(event: Event, delivery: Delivery) -> Arrival:
    new = records.new_delivery(delivery)
    return Arrival(event, records.encode(event.to_dict()), "hook", "a", new, None, None, None, None, 1.0, begins=True)


def ending(row: Row) -> Ending:
    step = row.delivery.id, "0:reply", "reply", '{"text":"fine"}'
    return Ending(row, 1, Verdict("done", "fine", cost_usd=0.5), 2.0, step=step)


def written(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    events = "select status, outcome, finished, error, cost, first_status, attempts from event_record order by n"
    deliveries = "select status, content, error, cost, finished, reply is not null from delivery_record order by seq"
    return [*connection.execute(events), *connection.execute(deliveries), *connection.execute("select * from inbox")]


def test_what_ends_together_is_written_as_if_each_had_ended_for_itself(batches: Batches) -> None:
    found: list[list[tuple[object, ...]]] = []
    for together in (True, False):
        with closing(open_memory()) as connection:
            endings = [ending(row) for row in begun(connection, batches, 3)]
            groups = [endings] if together else [[each] for each in endings]
            changes = [change for group in groups for change in batches.settle(connection, group)]
            assert [row[0] for change in changes for row in change.settled] == [e.delivery.event_id for e in endings]
            assert [row[0] for row in connection.execute("select event_id from untold").fetchall()] == sorted(
                each.delivery.event_id for each in endings
            )
            assert [step.key for step in steps_of(connection, endings[0].delivery.id, endings[0].reply)] == ["0:reply"]
            found.append(written(connection))
    assert found[0] == found[1]


def test_where_one_is_not_running_any_more_each_is_settled_for_itself(
    connection: sqlite3.Connection, batches: Batches
) -> None:
    endings = [ending(row) for row in begun(connection, batches, 3)]
    other = endings[1].delivery.id
    connection.execute("update delivery set status = 'dead' where id = ?", (other,))
    connection.execute("savepoint before")
    with pytest.raises(OneByOne):
        batches.settle(connection, endings)
    connection.execute("rollback to before")
    changes = [batches.settle(connection, [each])[0] for each in endings]
    assert [len(change.settled) for change in changes] == [1, 0, 1]
    # It was paid for: somebody may let it go on from there.
    assert [step.key for step in steps_of(connection, other)] == ["0:reply"]


def test_a_step_that_its_row_cannot_hold_is_written_beside_it(connection: sqlite3.Connection, batches: Batches) -> None:
    endings = [ending(row) for row in begun(connection, batches, 3)]
    step = records.step_row(endings[1].delivery.id, Step("\ud800", "reply", {"text": "fine"}))
    endings[1] = replace(endings[1], step=step)
    batches.settle(connection, endings)
    assert [each.key for each in steps_of(connection, endings[1].delivery.id)] == ["\ud800"]
