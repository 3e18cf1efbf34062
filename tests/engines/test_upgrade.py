"""A file of an earlier format: it is brought to this one when it is opened, and nothing that is queued is lost."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from engine_world import World, until

from llmling.engines import schema
from llmling.engines.lock import FileLock
from llmling.errors import EngineError
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Policy
from llmling.records import gone

FORMAT_1 = """
create table event(
    n integer primary key, id text not null unique, trigger text not null, agent text not null, type text not null,
    status text not null, outcome text, created real not null, finished real, data text not null, first text,
    cost real, error, told integer not null default 0);
create index event_status on event(status, n);
create index event_untold on event(n) where told = 0 and finished is not null;
create table delivery(
    seq integer primary key autoincrement, id text not null unique, event_id text not null, agent text not null,
    status text not null, attempts integer not null default 0, crashes integer not null default 0,
    not_before real not null default 0, wait_s real not null default 0, hops integer not null, message text not null,
    content, error, usage text, cost real, model text, created real not null, finished real);
create index delivery_event on delivery(event_id, seq);
create index delivery_pending on delivery(agent, seq) where status = 'pending';
create index delivery_delayed on delivery(agent, not_before) where status = 'pending' and not_before > 0;
create table step(
    delivery_id text not null, key text not null, kind text not null, data text not null,
    primary key (delivery_id, key));
create table key(
    trigger text not null, key not null, event_id text not null, expires real,
    primary key (trigger, key)) without rowid;
create index key_expires on key(expires) where expires is not null;
create table store(space text not null, key not null, value text not null, primary key (space, key)) without rowid;
create table inbox(agent text primary key, pending integer not null) without rowid;
create view event_record as
    select e.id, e.trigger, e.agent, e.status, e.outcome, coalesce(d.attempts, 0) as attempts, e.created, e.finished,
        e.cost, e.error, e.data, e.n, d.status as first_status
    from event e left join delivery d on d.id = e.first;
create view delivery_record as
    select id, agent, status, attempts, hops, message, content, error, cost, created, finished, event_id, seq
    from delivery;
create trigger delivery_queued after insert on delivery when new.status = 'pending' begin
    insert into inbox values (new.agent, 1) on conflict (agent) do update set pending = pending + 1;
end;
create trigger delivery_requeued after update of status on delivery
when new.status = 'pending' and old.status != 'pending' begin
    insert into inbox values (new.agent, 1) on conflict (agent) do update set pending = pending + 1;
end;
create trigger delivery_taken after update of status on delivery
when new.status != 'pending' and old.status = 'pending' begin
    update inbox set pending = pending - 1 where agent = new.agent;
end;
create trigger delivery_started after update of status on delivery
when new.status = 'running' and old.status != 'running' begin
    update event set status = 'running' where id = new.event_id and status != 'running';
end;
create trigger delivery_removed after delete on delivery when old.status = 'pending' begin
    update inbox set pending = pending - 1 where agent = old.agent;
end;
"""
QUEUED = 1_000


def build(path: Path) -> list[str]:
    """Make a file of format 1 with an event that ran, one that waits, queued ones, a done one nobody was told of."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FORMAT_1)
        connection.execute(f"pragma application_id = {schema.APPLICATION_ID}")
        connection.execute("pragma user_version = 1")
        statuses = ["running", "waiting", *["pending"] * QUEUED, "done"]
        ids = [_insert(connection, number, status) for number, status in enumerate(statuses)]
        connection.commit()
    return ids


def _insert(connection: sqlite3.Connection, number: int, status: str) -> str:
    event = Event("inbox", "t", data=number)
    finished = time.time() if status == "done" else None
    connection.execute(
        "insert into event(id, trigger, agent, type, status, created, data, first, finished)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (event.id, "inbox", "a", "t", status, 1.0, json.dumps(event.to_dict()), f"{event.id}/a", finished),
    )
    message = json.dumps(Message.user(str(number)).to_dict())
    connection.execute(
        "insert into delivery(id, event_id, agent, status, attempts, hops, message, created, finished)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (f"{event.id}/a", event.id, "a", status, int(status != "pending"), 0, message, 1.0, finished),
    )
    connection.execute("insert into key values (?, ?, ?, ?)", ("inbox", str(number), event.id, None))
    return event.id


async def test_what_an_earlier_release_has_queued_is_run(tmp_path: Path) -> None:
    ids = build(tmp_path / "state" / "pool.db")
    world = World("sqlite", tmp_path)
    await world.engine.open()
    try:
        assert await world.engine.counts() == {"running": 1, "waiting": 1, "pending": QUEUED, "done": 1}
        assert not (await world.accept(key="7")).new
        await world.start()
        await until(lambda: len(world.settled) == QUEUED + 2)
        assert ids[-1] in {record.id for record in world.settled}
        assert [delivery for delivery, _ in world.started] == [f"{event_id}/a" for event_id in (ids[0], *ids[2:-1])]
        assert await world.engine.retry(ids[1]) == 1
        assert (await world.finished(ids[1])).status == "done"
        assert await world.engine.counts() == {"done": QUEUED + 3}
    finally:
        await world.engine.stop(0)
    with closing(sqlite3.connect(tmp_path / "state" / "pool.db")) as connection:
        assert connection.execute("select * from inbox").fetchall() == [("a", 0)]
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


def test_an_upgraded_file_is_like_a_new_one(tmp_path: Path) -> None:
    build(tmp_path / "old" / "pool.db")
    facts: list[object] = []
    for path in (tmp_path / "old" / "pool.db", tmp_path / "new.db"):
        with closing(schema.open_file(path)) as connection:
            rules = "select type, name, sql from sqlite_master where type != 'table' order by name"
            tables = connection.execute(
                "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
            ).fetchall()
            columns = {
                table: sorted(
                    connection.execute('select name, type, "notnull", dflt_value, pk from pragma_table_info(?)', table)
                )
                for table in tables
            }
            version = connection.execute("pragma user_version").fetchone()
            facts.append((connection.execute(rules).fetchall(), columns, version))
    assert facts[0] == facts[1]


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pool.db"
    build(path)
    with closing(sqlite3.connect(path)) as connection:
        # In the way of the last step: what came before it has to be taken back.
        connection.execute("create table delivery_line(x)")
    with pytest.raises(EngineError):
        schema.open_file(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("drop table delivery_line")
        assert connection.execute("pragma user_version").fetchone() == (1,)
        assert "priority" not in {row[1] for row in connection.execute("pragma table_info(delivery)")}
    schema.open_file(path).close()


async def test_a_file_that_an_earlier_release_serves_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pool.db"
    build(path)
    lock = FileLock(path.with_name("pool.db.lock"))
    await lock.take(path)
    world = World("sqlite", tmp_path)
    try:
        with pytest.raises(EngineError, match=r"served by an older llmling \(format 1, this release writes 4\); stop"):
            await world.engine.open()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("pragma user_version").fetchone() == (1,)
    finally:
        lock.free()
    await world.engine.open()
    await world.engine.stop(0)


async def test_what_an_earlier_release_still_accepts_after_the_upgrade_is_counted_at_the_next_start(
    tmp_path: Path,
) -> None:
    world = World("sqlite", tmp_path)
    await world.engine.open()
    with closing(sqlite3.connect(tmp_path / "state" / "pool.db")) as connection:
        ids = [_insert(connection, number, "pending") for number in range(2)]
        connection.commit()
    try:
        await world.start({"b": Policy()})
        for event_id in ids:
            assert (await world.finished(event_id)).error == gone("a")
    finally:
        await world.engine.stop(0)
    with closing(sqlite3.connect(tmp_path / "state" / "pool.db")) as connection:
        assert connection.execute("select * from inbox").fetchall() == [("a", 0)]


async def test_an_untold_event_that_an_earlier_release_has_forgotten_keeps_nobody_from_hearing_of_the_others(
    tmp_path: Path,
) -> None:
    world = World("sqlite", tmp_path)
    await world.engine.open()
    try:
        receipt = await world.accept()
        await world.engine.drop(receipt.event_id)
        with closing(sqlite3.connect(tmp_path / "state" / "pool.db")) as connection:
            connection.execute("insert into untold values ('0')")
            connection.commit()
        await world.start()
        await until(lambda: [record.id for record in world.settled] == [receipt.event_id])
    finally:
        await world.engine.stop(0)
