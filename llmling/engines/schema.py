"""The tables of the journal, their version, and how a connection to them is opened."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmling.errors import EngineError

VERSION = 4
APPLICATION_ID = 0x4C4C6D6C
BUSY_TIMEOUT_MS = 10_000
_BUSY_AGAIN_S = 0.01
_CACHE_KIB, _LOG_PAGES = 16_384, 4_000
_OLDEST_SQLITE = (3, 35, 0)

# An event's `first` is the id of its first delivery; `line` is the order key, or nothing, of one that is skipped or
# coalesced beside others of its trigger. A delivery has `turn` when none of the same agent and order key is open before
# it; it keeps it until it settles. `reply` is its last step, as a JSON array of key, kind and data, where that was
# written together with its end. `untold` holds settled events that the serving process has not heard of, `inbox` how
# many deliveries wait, by agent: new ones are counted by whoever inserts them, many at a time; all else is kept right
# by triggers, whoever writes, so that no statement can forget it.
_DELIVERY = """
create table delivery(
    seq integer primary key, id text not null unique, event_id text not null, agent text not null,
    status text not null, attempts integer not null default 0, crashes integer not null default 0,
    not_before real not null default 0, wait_s real not null default 0, hops integer not null, message text not null,
    content, error, usage text, cost real, model text, created real not null, finished real, order_key,
    priority integer not null default 0, turn integer not null default 1, reply text);
"""
_TABLES = f"""
create table event(
    n integer primary key, id text not null unique, trigger text not null, agent text not null, type text not null,
    status text not null, outcome text, created real not null, finished real, data text not null, first text,
    cost real, error, line);
{_DELIVERY}create table step(
    delivery_id text not null, key text not null, kind text not null, data text not null,
    primary key (delivery_id, key));
create table key(
    trigger text not null, key not null, event_id text not null, expires real,
    primary key (trigger, key)) without rowid;
create table store(space text not null, key not null, value text not null, primary key (space, key)) without rowid;
create table inbox(agent text primary key, pending integer not null) without rowid;
create table untold(event_id text primary key) without rowid;
"""
_RULES = """
create index event_status on event(status, n) where status != 'done';
create index event_line on event(trigger, line) where line is not null and finished is null;
create index delivery_event on delivery(event_id, seq);
create index delivery_pending on delivery(agent, turn, priority, seq) where status = 'pending';
create index delivery_delayed on delivery(agent, not_before) where status = 'pending' and not_before > 0;
create index delivery_line on delivery(agent, order_key, turn, seq) where order_key is not null and finished is null;
create index key_expires on key(expires) where expires is not null;
create view event_record as
    select e.id, e.trigger, e.agent, e.status, e.outcome, coalesce(d.attempts, 0) as attempts, e.created, e.finished,
        e.cost, e.error, e.data, e.n, d.status as first_status
    from event e left join delivery d on d.id = e.first;
create view delivery_record as
    select id, agent, status, attempts, hops, message, content, error, cost, created, finished, reply,
        event_id, seq
    from delivery;
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
create trigger delivery_leaves_line after update of status on delivery
when new.order_key is not null and new.turn and new.finished is not null and old.finished is null begin
    update delivery set turn = 1 where seq = (select min(seq) from delivery
        where agent = new.agent and order_key = new.order_key and turn = 0 and finished is null);
end;
create trigger delivery_joins_line after update of status on delivery
when new.order_key is not null and new.finished is null and old.finished is not null begin
    update delivery set turn = not exists (select 1 from delivery where agent = new.agent
        and order_key = new.order_key and turn = 1 and finished is null and seq != new.seq) where seq = new.seq;
end;
"""
# From each earlier format to the next one; the rules are dropped before and made anew afterwards.
_STEPS: dict[int, tuple[str, ...]] = {
    1: (
        """
alter table event add column line;
alter table delivery add column order_key;
alter table delivery add column priority integer not null default 0;
alter table delivery add column turn integer not null default 1;
alter table inbox add column running integer not null default 0;
""",
    ),
    2: (),
    3: (
        """
create table untold(event_id text primary key) without rowid;
insert into untold select id from event where told = 0 and finished is not null;
alter table event drop column told;
alter table inbox drop column running;
alter table delivery rename to before;
""",
        _DELIVERY,
        """
insert into delivery(seq, id, event_id, agent, status, attempts, crashes, not_before, wait_s, hops, message, content,
    error, usage, cost, model, created, finished, order_key, priority, turn)
    select seq, id, event_id, agent, status, attempts, crashes, not_before, wait_s, hops, message, content,
    error, usage, cost, model, created, finished, order_key, priority, turn from before order by seq;
drop table before;
""",
    ),
}


def open_file(path: Path, served: Callable[[], bool] = lambda: False) -> sqlite3.Connection:
    """Return a connection to the journal at `path`, which is made when it is not there.

    One of an earlier format is brought to this one, unless it is `served`: an earlier release could not go on with it.

    Raises:
        EngineError: The folder or file cannot be written, is no journal of ours, is damaged or of a newer release, or
            an earlier one serves it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"the engine's folder {path.parent} cannot be made: {error.strerror}; change `engine.path` or its rights"
        ) from error
    return _opened(str(path), path, served)


def open_memory() -> sqlite3.Connection:
    """Return a connection to an empty journal in memory."""
    return _opened(":memory:", Path(":memory:"), lambda: False)


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a second connection to a journal that is open already; it only reads."""
    connection = _connected(str(path))
    connection.execute("pragma query_only = on")
    return connection


def check(connection: sqlite3.Connection) -> None:
    """Look for damage in the whole file.

    Raises:
        sqlite3.DatabaseError: There is some.
    """
    found = [row[0] for row in connection.execute("pragma quick_check(1)").fetchall()]
    if found != ["ok"]:
        raise sqlite3.DatabaseError(str(found[0]).splitlines()[-1])


def explain(path: Path, error: sqlite3.Error) -> EngineError:
    """Return the error to raise for one of SQLite: which file, what is wrong and what to do."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return EngineError(
            f"{path} is not an SQLite file; move it away or change `engine.path`, llmling does not overwrite it"
        )
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return EngineError(f"{path} cannot be written ({error}); check that path and folder exist and their rights")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return EngineError(f"{path} is locked by another program ({error}); close it and try again")
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return EngineError(f"{path} cannot be written ({error}); check the space and the health of its disk")
    if code in {sqlite3.SQLITE_CORRUPT, None}:
        return EngineError(
            f"{path} is damaged ({error}); restore it from a backup, or save what is left with "
            f"`sqlite3 {path} .recover`, then move it and its -wal and -shm files away to start empty"
        )
    return EngineError(f"{path} cannot be used: {error}")


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code, None when the error is not SQLite's own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _connected(target: str) -> sqlite3.Connection:
    # Each connection stays in one thread; only closing it may come from another one.
    connection = sqlite3.connect(
        target, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000, cached_statements=512
    )
    connection.execute(f"pragma busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


def _opened(target: str, path: Path, served: Callable[[], bool]) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise EngineError(
            f"Python's SQLite is {sqlite3.sqlite_version}, llmling needs 3.35 or later; use a newer Python"
        )
    connection: sqlite3.Connection | None = None
    try:
        connection = _connected(target)
        _prepare(connection, path, served)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise explain(path, error) from error
    except EngineError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _turn_into_wal(connection: sqlite3.Connection) -> None:
    """Switch the mode, which SQLite refuses at once, without its busy timeout, while another process does the same."""
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_BUSY_AGAIN_S)
        else:
            return


def _prepare(connection: sqlite3.Connection, path: Path, served: Callable[[], bool]) -> None:
    if _one(connection, "pragma journal_mode") not in {"wal", "memory"}:
        # Look before touching: turning a stranger's file into WAL mode would already change it.
        _refuse_strangers(connection, path)
        _turn_into_wal(connection)
    connection.execute("pragma synchronous = full")
    # What is written is looked for again in each step of a delivery: events of the last minutes stay at hand, and a
    # page that many commits change is copied from the log into the file once.
    connection.execute(f"pragma cache_size = -{_CACHE_KIB}")
    connection.execute(f"pragma wal_autocheckpoint = {_LOG_PAGES}")
    connection.execute("pragma journal_size_limit = 67108864")
    # Immediate: two processes that open a new file at once must not both create the tables, and a file that
    # cannot be written is found out here rather than at the first event.
    connection.execute("begin immediate")
    try:
        _refuse_strangers(connection, path)
        if (version := _one(connection, "pragma user_version")) != VERSION:
            if version and served():
                raise EngineError(
                    f"{path} is served by an older llmling (format {version}, this release writes {VERSION}); "
                    "stop that one first"
                )
            _upgrade(connection, version)
        connection.execute("commit")
    finally:
        if connection.in_transaction:
            connection.execute("rollback")


def _refuse_strangers(connection: sqlite3.Connection, path: Path) -> None:
    version = _one(connection, "pragma user_version")
    empty = _one(connection, "select count(*) from sqlite_master") == 0
    if not empty and _one(connection, "pragma application_id") != APPLICATION_ID:
        raise EngineError(f"{path} belongs to another program; change `engine.path`, llmling does not touch it")
    if version > VERSION:
        raise EngineError(
            f"{path} was written by a newer llmling (format {version}, this release knows {VERSION}); "
            "upgrade llmling, or change `engine.path` to start with an empty file"
        )


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Make the tables, or bring those of an earlier format to this one; nothing that is queued is lost."""
    if version == 0:
        _execute(connection, _TABLES)
    rules = connection.execute("select type, name from sqlite_master where type != 'table' and sql is not null")
    for kind, name in rules.fetchall():
        connection.execute(f"drop {kind} {name}")
    for earlier in range(version or VERSION, VERSION):
        for script in _STEPS[earlier]:
            _execute(connection, script)
    _execute(connection, _RULES)
    connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma user_version = {VERSION}")


def _execute(connection: sqlite3.Connection, script: str) -> None:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        # Not executescript: it would commit first.
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _one(connection: sqlite3.Connection, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]
