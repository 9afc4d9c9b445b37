"""Statements on the driver's cursor: results, errors and transactions as with SQLAlchemy's own."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiosqlite
import psycopg
import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR
from proxy import Proxy
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from stores import KINDS, Store, exact, thread
from test_connections import joined

from checkpoint_sa import AsyncSQLAlchemySaver, SQLAlchemySaver
from checkpoint_sa.engine import cursors
from checkpoint_sa.engine.statements import Statement
from checkpoint_sa.sql import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from stores import Saver

VALUES = {
    "text": "ä\x00🙂" * 100,
    "bytes": bytes(range(256)),
    "list": [1, 2.5, None, {"a": "b"}],
    "small": 1,
    "big": 2**70,
}


CHAINED = {
    "thread_id": "t",
    "checkpoint_ns": "",
    "channel": "c",
    "version": "1",
    "type": "x",
    "blob": b"",
    "chain": None,
    "position": None,
}
"""A row of `PUT_CHAINED`."""


@pytest.fixture
def on_cursor(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what goes to the cursor: executions, and compilations."""
    counted: Counter[str] = Counter()
    for name in ("_execute", "_compile"):
        original = getattr(cursors, name)

        def count(*args: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            counted[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(cursors, name, count)
    return counted


@contextmanager
def watched(store: Store) -> Iterator[list[str]]:
    """Listen to the engine's statements."""
    seen: list[str] = []

    def see(_: object, __: object, statement: str, *___: object) -> None:
        seen.append(statement)

    event.listen(store.root, "before_cursor_execute", see)
    try:
        yield seen
    finally:
        event.remove(store.root, "before_cursor_execute", see)


def fill(store: Store) -> list[Any]:
    """Store a thread, and return all that is read of it."""
    store.clear()
    first = store.save("t", VALUES, checkpoint_id="1", ts="2026-01-01T00:00:00+00:00")
    store.put_writes(first, [("list", [1]), ("text", "x"), (ERROR, "e")], "task", "path")
    second = store.save(
        parent=first, values={"list": [2], "many": "x" * 9}, checkpoint_id="2", ts="2026"
    )
    store.put_writes(second, [(f"c{i}", i) for i in range(40)], "task")
    return [
        store.found(thread("t")),
        store.found(first),
        store.get_tuple(thread("t", checkpoint_id="none")),
        store.list(None),
        store.history(second, ["list", "text"]),
    ]


@pytest.mark.parametrize("incremental", [False, True])
def test_both_ways_store_and_read_the_same(
    migrated_store: Store, on_cursor: Counter[str], incremental: bool
) -> None:
    store = migrated_store.using(migrated_store.make_saver(incremental=incremental))
    by_cursor = fill(store)
    assert on_cursor["_execute"] >= 8
    on_cursor.clear()
    with watched(store) as seen:
        by_connection = fill(store)
    assert not on_cursor
    assert len(seen) >= 8
    for one, other in zip(by_cursor, by_connection, strict=True):
        assert without_versions(one) == without_versions(other)


def without_versions(found: Any) -> Any:
    """Return a result without the versions of channels, which are random in part."""
    if isinstance(found, list):
        return [without_versions(item) for item in found]
    if isinstance(found, CheckpointTuple):
        checkpoint = {**found.checkpoint, "channel_versions": {}, "versions_seen": {}}
        return exact([found.config, checkpoint, *found[2:]])
    return exact(found)


on_postgresql = pytest.mark.parametrize(
    "migrated_store", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"], indirect=True
)


@on_postgresql
@pytest.mark.parametrize("is_autocommit", [False, True])
def test_an_operation_leaves_autocommit_as_it_was(store: Store, is_autocommit: bool) -> None:
    """The driver commits a single statement; the application's transactions stay as they were."""
    seen: list[bool] = []

    def before(connection: Any, *_: object) -> None:
        connection.autocommit = is_autocommit

    def after(connection: Any, *_: object) -> None:
        seen.append(connection.autocommit)

    with on_engine_of_application(store) as (store_, engine):
        event.listen(engine, "checkout", before)
        event.listen(engine, "checkin", after)
        saved = store_.save("t", VALUES)
        store_.put_writes(saved, [("a", 1)], "task")
        with pytest.raises(DBAPIError):
            in_loop(store, lambda: store_.saver.database.read("fails", fail))
    assert store.found(thread("t")).pending_writes == [("task", "a", 1)]
    assert seen == [is_autocommit] * len(seen)
    assert len(seen) >= 4


def fail(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT nothing FROM nowhere")


@pytest.mark.parametrize("moment", ["connect", "checkout", "engine_connect"])
def test_a_listener_that_executes_a_statement_loses_nothing(store: Store, moment: str) -> None:
    """As a listener does that sets a role, or asks whether the connection is still open."""
    seen = 0

    def listen(connection: Any, *_: object) -> None:
        nonlocal seen
        seen += 1
        if isinstance(connection, Connection):
            connection.exec_driver_sql("SELECT 1")
        else:
            connection.cursor().execute("SELECT 1")

    with on_engine_of_application(store) as (own, engine):
        own.get_tuple(thread("t"))
        in_loop(store, engine.dispose)  # the next connection is opened for an operation
        event.listen(engine, moment, listen)
        own.put_writes(own.save("t", VALUES), [("a", 1)], "task")
        assert own.found(thread("t")) == store.found(thread("t"))
        assert store.found(thread("t")).pending_writes == [("task", "a", 1)]
        in_loop(store, engine.dispose)
        own.delete_thread("t")
    assert store.rows() == (0, 0, 0)
    assert seen


@on_postgresql
def test_a_listener_of_begin_that_comes_later_loses_nothing(store: Store) -> None:
    with on_engine_of_application(store) as (own, engine):
        saved = own.save("t", VALUES)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        own.put_writes(saved, [("a", 1)], "task")
        assert own.found(thread("t")).pending_writes == [("task", "a", 1)]
    assert store.found(thread("t")).pending_writes == [("task", "a", 1)]


@on_postgresql
def test_the_log_says_commit(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with on_engine_of_application(store) as (own, _):
        own.get_tuple(thread("t"))
        with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
            own.save("t", VALUES)
    messages = [record.message.partition(" ")[0] for record in caplog.records]
    assert "COMMIT" in messages
    assert "ROLLBACK" not in messages


@contextmanager
def on_engine_of_application(store: Store) -> Iterator[tuple[Store, Engine]]:
    """Open an engine as an application makes it, and a saver on it."""
    own = create_async_engine(store.url) if store.is_async else create_engine(store.url)
    engine = own.sync_engine if isinstance(own, AsyncEngine) else own
    yield store.using(saver_on(own)), engine
    in_loop(store, engine.dispose)


def saver_on(engine: Engine | AsyncEngine) -> Saver:
    if isinstance(engine, AsyncEngine):
        return AsyncSQLAlchemySaver(engine)
    return SQLAlchemySaver(engine)


def test_a_statement_is_compiled_once(store: Store, on_cursor: Counter[str]) -> None:
    fill(store)
    on_cursor.clear()
    fill(store)
    assert on_cursor["_execute"] >= 8
    assert on_cursor["_compile"] == 0


def test_savers_of_one_engine_share_what_is_compiled(store: Store, on_cursor: Counter[str]) -> None:
    fill(store)
    on_cursor.clear()
    fill(store.using(store.make_saver()))
    assert on_cursor["_compile"] == 0


def test_echo_shows_every_statement(
    store: Store, on_cursor: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    fill(store)
    on_cursor.clear()
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        fresh = Store(store.kind, store.url, echo=True)
        fill(fresh)
        fresh.close()
    assert not on_cursor
    assert sum("INTO checkpoints" in record.message for record in caplog.records) == 2


def test_a_listener_of_begin_sees_each_transaction(store: Store, on_cursor: Counter[str]) -> None:
    """As row-level security with SET LOCAL has one."""
    expected = fill(store)
    own = Store(store.kind, store.url)
    begun: list[object] = []
    event.listen(own.root, "begin", begun.append)
    fresh = own.using(own.make_saver())
    on_cursor.clear()
    found = fresh.found(thread("t"))
    assert without_versions(found) == without_versions(expected[0])
    assert begun
    assert not on_cursor
    own.close()


@pytest.mark.parametrize("name", ["engine_connect", "begin", "commit", "rollback"])
def test_every_event_of_a_connection_is_heard(
    store: Store, on_cursor: Counter[str], name: str
) -> None:
    heard = 0

    def listen(*_: object) -> None:
        nonlocal heard
        heard += 1

    with on_engine_of_application(store) as (own, engine):
        event.listen(engine, name, listen)
        saved = own.save("t", VALUES)
        own.put_writes(saved, [("a", 1)], "task")
        if name == "rollback":
            with pytest.raises(DBAPIError):
                in_loop(store, lambda: own.saver.database.write("fails", fail))
        assert heard
        assert not on_cursor
        event.remove(engine, name, listen)
        assert own.found(thread("t")).pending_writes == [("task", "a", 1)]
        assert on_cursor["_execute"]


@pytest.mark.parametrize("name", [*cursors._EVENTS, *cursors._DRIVER_EVENTS])  # noqa: SLF001
def test_sqlalchemy_says_who_has_had_a_listener(name: str) -> None:
    """`has_listeners` reads an attribute that isn't public."""
    engine = create_engine("sqlite://")
    assert not cursors.has_listeners(engine)
    assert not cursors.has_listeners(engine.dialect)
    derived = engine.execution_options()
    event.listen(engine, name, print)
    for owner in (engine, derived):
        assert cursors.has_listeners(owner) or cursors.has_listeners(owner.dialect)
    engine.dispose()


@pytest.mark.parametrize("how", ["rollback", "commit", None])
def test_sqlalchemy_says_how_a_pool_resets(how: str | None) -> None:
    engine = create_engine("sqlite://", pool_reset_on_return=how)
    assert cursors._rolls_back(engine.pool) is (how == "rollback")  # noqa: SLF001
    engine.dispose()


@pytest.mark.parametrize("ends_well", [True, False])
def test_statements_of_both_ways_are_one_transaction(store: Store, ends_well: bool) -> None:
    """Some statements need SQLAlchemy's own connection, in the middle of a transaction."""

    def write(connection: Connection) -> None:
        cursors.execute(connection, writing.PUT_CHAINED, [CHAINED])
        counted = connection.execute(text("SELECT count(*) FROM checkpoint_blobs"))
        assert counted.scalar() == 1
        cursors.execute(connection, writing.PUT_CHAINED, [CHAINED | {"version": "2"}])
        if not ends_well:
            raise ZeroDivisionError

    database = store.saver.database
    if ends_well:
        in_loop(store, lambda: database.write("put", write))
    else:
        with pytest.raises(ZeroDivisionError):
            in_loop(store, lambda: database.write("put", write))
    assert store.rows() == (0, 2 if ends_well else 0, 0)


@on_postgresql
def test_a_transaction_leaves_an_autocommit_engine_as_it_was(store: Store) -> None:
    seen: list[bool] = []

    def see(connection: Any, _: object) -> None:
        seen.append(connection.autocommit)

    event.listen(store.root, "checkin", see)
    store.save("t", VALUES)
    store.delete_thread("t")  # several statements
    with pytest.raises(DBAPIError):
        in_loop(store, lambda: store.saver.database.write("fails", fail))
    store.save("t", VALUES)
    event.remove(store.root, "checkin", see)
    assert seen
    assert all(seen)


def test_a_transaction_is_begun_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that begins transactions itself isn't sent a second BEGIN."""
    sent: list[str] = []
    execute = cursors._execute  # noqa: SLF001

    def see(connection: Any, text: str, *args: Any, **options: Any) -> Any:
        sent.append(text)
        return execute(connection, text, *args, **options)

    monkeypatch.setattr(cursors, "_execute", see)
    store.save("t", VALUES)
    store.delete_thread("t")
    database = store.saver.database
    row = [CHAINED]
    in_loop(store, lambda: database.write("put", cursors.execute, writing.PUT_CHAINED, row))
    begins = {"": ["BEGIN IMMEDIATE"] * 3, "postgresql": []}.get(store.kind.server, ["BEGIN"] * 3)
    assert [text for text in sent if text.startswith("BEGIN")] == begins


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_write_that_goes_on_after_an_error_loses_nothing(store: Store, is_ours: bool) -> None:
    if store.kind.server == "postgresql":  # the server ends the transaction at the first error
        return

    def write(connection: Connection) -> None:
        cursors.execute(connection, writing.PUT_CHAINED, [CHAINED])
        with pytest.raises(IntegrityError):
            cursors.execute(connection, writing.PUT_CHAINED, [CHAINED])
        cursors.execute(connection, writing.PUT_CHAINED, [CHAINED | {"version": "2"}])

    with on_engine_of_application(store) as (own, _):
        database = (store if is_ours else own).saver.database
        in_loop(store, lambda: database.write("put", write))
    assert store.rows() == (0, 2, 0)


def test_a_lost_connection_is_not_used_any_more(store: Store) -> None:
    def write(connection: Connection) -> None:
        cursors.execute(connection, writing.PUT_CHAINED, [CHAINED])
        connection.invalidate()
        with pytest.raises(PendingRollbackError):
            cursors.execute(connection, writing.PUT_CHAINED, [CHAINED])
        with pytest.raises(PendingRollbackError):
            connection.execute(text("SELECT 1"))

    with pytest.raises(PendingRollbackError):
        in_loop(store, lambda: store.saver.database.write("put", write))
    assert store.rows() == (0, 0, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, psycopg.OperationalError("lost")])
@pytest.mark.parametrize("migrated_store", ["pg-psycopg"], indirect=True)
def test_a_connection_that_cannot_be_put_back_as_it_was_is_dropped(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException | type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error

    saved = store.save("t", VALUES)
    with monkeypatch.context() as patch:
        patch.setattr(store.root.dialect, "set_isolation_level", fail)
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OperationalError):
            store.saver.database._write_once(fail)  # noqa: SLF001
    assert store.found(thread("t"))
    with monkeypatch.context() as patch:
        patch.setattr(store.root.dialect, "reset_isolation_level", fail)
        with suppress(KeyboardInterrupt):
            store.delete_thread("t")
    assert store.rows() == (0, 0, 0)
    store.put_writes(saved, [("a", 1)], "task")
    assert store.rows() == (0, 0, 1)


def test_listeners_on_the_class_of_connections_are_heard(
    store: Store, on_cursor: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "_has_events", True)
    store.save("t", VALUES)
    assert store.found(thread("t"))
    assert not on_cursor


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("ends_well", [True, False])
def test_an_interruption_at_any_line_leaves_the_database_in_order(
    sqlite_store: Store, is_ours: bool, ends_well: bool
) -> None:
    """No transaction stays open, and none is committed by a later operation."""
    versions = ("1", "2" if ends_well else "1", "1")
    with on_engine_of_application(sqlite_store) as (own, engine):
        database = (sqlite_store if is_ours else own).saver.database
        pool: Any = (sqlite_store.root if is_ours else engine).pool
        database.write("put", lambda _: None)  # the first operation looks at the schema

        def write(connection: Connection) -> None:
            for version in versions[:2]:
                row = CHAINED | {"version": version}
                cursors.execute(connection, writing.PUT_CHAINED, [row])

        for number in itertools.count():
            if not interrupt(number, lambda: database._write_once(write)):  # noqa: SLF001
                break
            if pool.checkedout():
                gc.collect()  # frames of the error hold a connection that was just opened
            assert not pool.checkedout()
            assert sqlite_store.rows()[1] in ((0, 2) if ends_well else (0,))
            later = CHAINED | {"version": "3"}
            database.write("put", cursors.execute, writing.PUT_CHAINED, [later])
            assert sqlite_store.rows()[1] in ((1, 3) if ends_well else (1,))
            sqlite_store.clear()
        assert number > 50


def interrupt(number: int, function: Callable[[], object]) -> bool:
    """Call a function, and interrupt it at a line of the engine; return False if it has ended."""
    left = number

    def count(_: object, what: str, __: object) -> Any:
        nonlocal left
        left -= what == "line"
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return count

    def choose(frame: FrameType, *_: object) -> Any:
        file = frame.f_code.co_filename
        return count if file.endswith(("cursors.py", "transactions.py", "database.py")) else None

    before = sys.gettrace()
    sys.settrace(choose)
    try:
        function()
    except (KeyboardInterrupt, IntegrityError):
        pass
    finally:
        sys.settrace(before)
    return left < 0


def test_no_read_leaves_a_transaction_open_in_a_pool_that_does_not_reset(store: Store) -> None:
    """It would go on reading the snapshot of its first statement."""
    level = {} if not store.kind.server else {"isolation_level": "REPEATABLE READ"}
    own = Store(store.kind, store.url, pool_size=1, pool_reset_on_return=None, **level)
    fill(store)
    assert len(own.list(None)) == 2
    assert own.found(thread("t")).config["configurable"]["checkpoint_id"] == "2"
    store.save("t", {"x": [1]}, checkpoint_id="3")
    assert own.found(thread("t")).config["configurable"]["checkpoint_id"] == "3"
    own.close()


@pytest.mark.parametrize("migrated_store", ["aiosqlite"], indirect=True)
def test_an_aiosqlite_connection_that_was_closed_is_replaced(store: Store) -> None:
    fill(store)
    own = Store(store.kind, store.url, pool_size=1)
    own.found(thread("t"))

    async def close() -> None:
        assert own.async_engine is not None
        async with own.async_engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.close()

    own.run(close())
    assert own.found(thread("t")).config["configurable"]["checkpoint_id"] == "2"
    own.close()


@pytest.mark.parametrize("migrated_store", ["aiosqlite"], indirect=True)
def test_aiosqlite_hops_between_threads_as_rarely_as_it_can(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[str] = []
    execute: Any = aiosqlite.Connection._execute  # noqa: SLF001 - each call of its thread

    async def count(connection: Any, function: Any, *args: Any, **options: Any) -> Any:
        hops.append(function.__name__.strip("_"))
        return await execute(connection, function, *args, **options)

    fill(store)
    monkeypatch.setattr(aiosqlite.Connection, "_execute", count)
    stored = store.save("t", VALUES, checkpoint_id="3")
    assert hops == ["execute_fetchall"] * 3 + ["commit"]  # BEGIN, values, checkpoint
    hops.clear()
    store.put_writes(stored, [("list", [1]), ("text", "x")], "task")
    store.found(thread("t"))
    assert hops == ["execute_fetchall"] * 2


def test_a_statement_is_compiled_once_for_all_schemas(
    sqlite_store: Store, on_cursor: Counter[str], tmp_path: Path
) -> None:
    engine = sqlite_store.root

    @event.listens_for(engine, "connect")
    def attach(connection: Any, _: object) -> None:
        for i in range(3):
            connection.execute(f"ATTACH '{tmp_path / f'{i}.db'}' AS \"Tenant {i}\"")

    engine.dispose()
    for i in range(3):
        saver = SQLAlchemySaver(engine, schema=f"Tenant {i}")
        saver.setup()
        if i == 1:
            on_cursor.clear()
        one = sqlite_store.using(saver)
        one.save(f"t{i}", VALUES, checkpoint_id="1")
        assert [item.config["configurable"]["thread_id"] for item in one.list(None)] == [f"t{i}"]
        assert one.found(thread(f"t{i}")).checkpoint["channel_values"] == VALUES
    assert on_cursor["_compile"] == 0
    assert on_cursor["_execute"] > 0


def test_a_connection_of_the_callers_goes_through_sqlalchemy(
    store: Store, on_cursor: Counter[str]
) -> None:
    with joined(store) as (within, _):
        on_cursor.clear()
        within.save("t", VALUES)
        assert within.found(thread("t")).checkpoint["channel_values"] == VALUES
    assert not on_cursor


def test_an_error_is_sqlalchemys_and_names_no_parameter(
    store: Store, on_cursor: Counter[str]
) -> None:
    fill(store)
    store.sql("ALTER TABLE checkpoint_blobs RENAME TO hidden")
    try:
        on_cursor.clear()
        with pytest.raises(DBAPIError) as caught:
            store.save("planted", VALUES)
        assert on_cursor["_execute"] >= 1
    finally:
        store.sql("ALTER TABLE hidden RENAME TO checkpoint_blobs")
    assert isinstance(caught.value, ProgrammingError | OperationalError)
    assert caught.value.statement is not None
    assert "checkpoint_blobs" in caught.value.statement
    assert not caught.value.params
    assert "planted" not in str(caught.value)
    assert not caught.value.connection_invalidated
    assert fill(store)[0].checkpoint["channel_values"]["list"] == [2]  # the pool is in order


def test_a_table_that_changed_is_read_all_the_same(store: Store, on_cursor: Counter[str]) -> None:
    expected = fill(store)
    kind = {"postgresql": "TEXT", "": "TEXT"}.get(store.kind.server, "LONGTEXT")
    for change in (f"ADD COLUMN another {kind}", "DROP COLUMN another"):
        other = Store(store.kind, store.url)
        other.sql(f"ALTER TABLE checkpoints {change}")
        other.close()
        on_cursor.clear()
        assert without_versions(store.found(thread("t"))) == without_versions(expected[0])
        assert on_cursor["_execute"] >= 1


def test_a_row_that_is_there_already_is_an_integrity_error(
    store: Store, on_cursor: Counter[str]
) -> None:
    database = store.saver.database

    def act() -> None:
        for _ in range(2):
            database.write("put", cursors.execute, writing.PUT_CHAINED, [CHAINED])

    with pytest.raises(IntegrityError):
        in_loop(store, act)
    assert on_cursor["_execute"] >= 2
    assert store.rows() == (0, 1, 0)


def test_the_first_error_of_several_statements_rolls_all_back(store: Store) -> None:
    other = CHAINED | {"version": "2"}
    statements = [Statement(writing.PUT_CHAINED, each) for each in (CHAINED, CHAINED, other)]
    database = store.saver.database
    with pytest.raises(IntegrityError, match="INSERT INTO checkpoint_blobs"):
        in_loop(store, lambda: database.execute("put", statements))
    assert store.rows() == (0, 0, 0)
    in_loop(store, lambda: database.execute("put", [statements[0], statements[2]]))
    assert store.rows() == (0, 2, 0)


@pytest.mark.parametrize("migrated_store", ["pg-psycopg", "pg-psycopg-async"], indirect=True)
def test_psycopg_sends_several_statements_together(store: Store) -> None:
    """`delete_thread` is five statements; one by one, with BEGIN and COMMIT, seven round trips."""
    with Proxy(store.url) as proxy:
        far = Store(store.kind, proxy.url, pool_size=1)
        for _ in range(3):
            far.save("t", VALUES)
            before = proxy.trips
            far.delete_thread("t")
        trips = proxy.trips - before
        far.close()
    assert trips <= 4, trips  # three, or one more where the proxy gets an answer in two parts
    assert store.rows() == (0, 0, 0)


def in_loop(store: Store, function: Any) -> None:
    if store.async_engine is None:
        function()
        return

    async def call() -> None:
        await store.saver._acall(function)  # noqa: SLF001

    store.run(call())


def test_a_dialect_that_is_not_known_goes_through_sqlalchemy(
    sqlite_store: Store, on_cursor: Counter[str]
) -> None:
    class Another(type(sqlite_store.root.dialect)):  # type: ignore[misc]
        supports_statement_cache = True

    Another.__module__ = "elsewhere"
    engine = create_engine(sqlite_store.url)
    engine.dialect.__class__ = Another
    saver = SQLAlchemySaver(engine)
    assert saver.get_tuple(thread("t")) is None
    engine.dispose()
    assert not on_cursor


def test_every_driver_of_the_tests_uses_its_cursor() -> None:
    tested = {kind.driver.partition("+")[2] for kind in KINDS.values()}
    assert tested <= cursors._DRIVERS | {"psycopg"}  # noqa: SLF001
