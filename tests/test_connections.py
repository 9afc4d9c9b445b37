"""A saver on a `Connection`: the caller owns the transaction, the saver takes part in it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from stores import Store, thread

from checkpoint_sa import (
    AsyncSQLAlchemySaver,
    ConfigurationError,
    SQLAlchemySaver,
    ThreadExistsError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def joined(store: Store) -> Iterator[tuple[Store, Any]]:
    """Open a connection without a transaction; give a store on it, and the way to end it."""
    if not store.kind.is_async:
        with store.engine.connect() as connection:
            yield store.using(SQLAlchemySaver(connection)), connection
        return
    assert store.async_engine is not None
    async_connection = store.run(store.async_engine.connect().start())
    try:
        yield store.using(AsyncSQLAlchemySaver(async_connection)), async_connection
    finally:
        store.run(async_connection.close())


def finish(store: Store, connection: Any, how: str) -> None:
    result = getattr(connection, how)()
    if store.kind.is_async:
        store.run(result)


def execute(store: Store, connection: Any, statement: str) -> Any:
    result = connection.execute(text(statement))
    return store.run(result) if store.kind.is_async else result


def use_everything(store: Store) -> None:
    first = store.save("a", {"x": [1]}, metadata={"run_id": "r"})
    second = store.save(parent=first, values={"x": [2]})
    store.put_writes(second, [("x", 1)], "task")
    store.copy_thread("a", "b")
    store.delete_for_runs(["r"])
    store.prune(["a"])
    store.delete_thread("c")
    store.history(second, ["x"])
    assert len(store.list(None)) == 2


def test_nothing_is_committed_by_the_saver(store: Store) -> None:
    with joined(store) as (own, connection):
        use_everything(own)
        finish(store, connection, "rollback")
    assert store.rows() == (0, 0, 0)


def test_the_caller_commits(store: Store) -> None:
    with joined(store) as (own, connection):
        use_everything(own)
        finish(store, connection, "commit")
    assert {item.config["configurable"]["thread_id"] for item in store.list(None)} == {"a", "b"}


def test_application_rows_and_a_checkpoint_commit_together(store: Store) -> None:
    store.sql("DROP TABLE IF EXISTS orders")
    store.sql("CREATE TABLE orders (id INTEGER)")
    for how, expected in (("rollback", 0), ("commit", 1)):
        with joined(store) as (own, connection):
            execute(store, connection, "INSERT INTO orders VALUES (1)")
            own.save("order", {"x": [1]})
            finish(store, connection, how)
        assert store.count("orders") == expected
        assert store.count("checkpoints") == expected
    store.sql("DROP TABLE orders")


def test_a_failed_operation_leaves_the_transaction_of_the_caller_usable(store: Store) -> None:
    with joined(store) as (own, connection):
        own.save("a", {"x": [1]})
        own.save("b", {"x": [1]})
        with pytest.raises(ThreadExistsError):
            own.copy_thread("a", "b")
        own.save("c", {"x": [1]})
        finish(store, connection, "commit")
    assert store.count("checkpoints") == 3


def test_a_statement_that_fails_is_taken_back_alone(store: Store) -> None:
    with joined(store) as (own, connection):
        own.save("a", {"x": [1]})
        with pytest.raises(ZeroDivisionError):
            with_failure(own, store)
        finish(store, connection, "commit")
    assert [item.config["configurable"]["thread_id"] for item in store.list(None)] == ["a"]
    assert store.count("checkpoint_blobs") == 1


def with_failure(own: Store, store: Store) -> None:
    def fail(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "INSERT INTO checkpoints " in statement:
            raise ZeroDivisionError

    event.listen(store.root, "before_cursor_execute", fail)
    try:
        own.save("b", {"x": [1]})
    finally:
        event.remove(store.root, "before_cursor_execute", fail)


def test_operations_of_many_threads_or_tasks_take_turns(store: Store) -> None:
    if store.kind.server == "" and not store.kind.is_async:
        pytest.skip("an SQLite connection belongs to the thread that opened it")
    with joined(store) as (own, connection):
        writes = [thread(f"t{i}", checkpoint_id="1") for i in range(30)]

        async def use() -> None:
            await asyncio.gather(*(own.saver.aput_writes(c, [("x", c)], "task") for c in writes))

        store.run(use())
        finish(store, connection, "commit")
    assert store.count("checkpoint_writes") == 30


def test_setup_is_part_of_the_transaction(store: Store) -> None:
    with joined(store) as (own, connection):
        own.setup()
        finish(store, connection, "rollback")
    assert store.list(None) == []


@pytest.mark.parametrize("where", ["connection", "engine"])
def test_an_autocommit_connection_is_refused(store: Store, where: str) -> None:
    if store.kind.is_async:

        async def use() -> None:
            engine = create_async_engine(
                store.url, **({"isolation_level": "AUTOCOMMIT"} if where == "engine" else {})
            )
            async with engine.connect() as connection:
                if where == "connection":
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                    AsyncSQLAlchemySaver(connection)
            await engine.dispose()

        store.run(use())
        return
    option = store.engine.execution_options(isolation_level="AUTOCOMMIT")
    with option.connect() as connection, pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        SQLAlchemySaver(connection)


def test_an_async_connection_that_is_not_open_is_refused(store: Store) -> None:
    if store.async_engine is None:
        pytest.skip("async only")
    with pytest.raises(ConfigurationError, match="isn't open"):
        AsyncSQLAlchemySaver(store.async_engine.connect())
