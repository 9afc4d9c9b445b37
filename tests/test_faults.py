"""Connections that break: each operation is done all the same, once."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from databases import sync_twin, sync_url
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import ERROR
from proxy import Proxy
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError
from stores import KINDS, Store, id_of, thread
from test_connections import joined

from checkpoint_sa import ThreadExistsError
from checkpoint_sa.engine import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server
    from sqlalchemy import Connection

ON_SERVERS = [name for name, kind in KINDS.items() if kind.server]
on_servers = pytest.mark.parametrize("migrated_store", ON_SERVERS, indirect=True)
on_mysql_family = pytest.mark.parametrize(
    "migrated_store",
    ["mariadb-pymysql", "mariadb-async", "mysql-pymysql", "mysql-async"],
    indirect=True,
)


@pytest.fixture
def proxied(migrated_store: Store) -> Iterator[tuple[Store, Proxy]]:
    """A store behind a proxy, which it has used before."""
    with Proxy(migrated_store.url) as proxy:
        far = Store(migrated_store.kind, proxy.url)
        far.get_tuple(thread())
        yield far, proxy
        far.close()


def put(store: Store, checkpoint_id: str, *, parent: str | None = None, of: str = "a") -> None:
    checkpoint = empty_checkpoint()
    checkpoint["id"], checkpoint["ts"] = checkpoint_id, "2026-01-01T00:00:00+00:00"
    checkpoint["channel_values"] = {"list": [checkpoint_id], "small": checkpoint_id}
    checkpoint["channel_versions"] = {"list": checkpoint_id, "small": checkpoint_id}
    store.put(
        thread(of, checkpoint_id=parent),
        checkpoint,
        {"source": "loop", "step": 1, "parents": {}, "run_id": f"run-{checkpoint_id}"},
        checkpoint["channel_versions"],
    )


def fill(store: Store) -> None:
    store.clear()
    put(store, "1")
    put(store, "2", parent="1")
    store.put_writes(thread("a", checkpoint_id="1"), [("list", "x")], "task")


def shallow(store: Store) -> Store:
    return store.using(store.make_saver(shallow=True))


READS: dict[str, Callable[[Store], Any]] = {
    "get_tuple": lambda s: s.get_tuple(thread("a")),
    "list": lambda s: s.list(None),
    "history": lambda s: s.history(thread("a", checkpoint_id="2"), ["list"]),
}
CHANGES: dict[str, Callable[[Store], Any]] = {
    "put": lambda s: put(s, "3", parent="2"),
    "put_shallow": lambda s: put(shallow(s), "3", parent="2"),
    "put_writes": lambda s: s.put_writes(
        thread("a", checkpoint_id="2"), [("list", 1), (ERROR, "e"), ("list", 2)], "task"
    ),
    "delete_thread": lambda s: s.delete_thread("a"),
    "delete_for_runs": lambda s: s.delete_for_runs(["run-1"]),
    "copy_thread": lambda s: s.copy_thread("a", "b"),
    "prune": lambda s: s.prune(["a"]),
}


def dump(store: Store) -> list[str]:
    """Return every row of the tables."""
    tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    return sorted(
        repr((table, *row)) for table in tables for row in store.sql(f"SELECT * FROM {table}")
    )


@on_servers
@pytest.mark.parametrize("name", [*READS, *CHANGES])
def test_a_connection_reset_at_any_message_loses_nothing_and_does_nothing_twice(
    migrated_store: Store, proxied: tuple[Store, Proxy], name: str
) -> None:
    far, proxy = proxied
    act = (READS | CHANGES)[name]
    fill(migrated_store)
    result = act(migrated_store)
    expected = dump(migrated_store)
    for answered in (False, True):
        for message in count():
            if name in CHANGES:
                fill(migrated_store)
            far.get_tuple(thread())  # has a connection in the pool
            proxy.reset_at(message, answered=answered)
            assert act(far) == result
            if not proxy.disarm():
                break
            assert dump(migrated_store) == expected, (message, answered)
        assert message > 0


# What the server says


@pytest.fixture
def admin(migrated_store: Store) -> Iterator[Connection]:
    """A sync connection of the test's own."""
    engine = create_engine(sync_url(migrated_store), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def own(migrated_store: Store) -> Iterator[Store]:
    """The same store with another pool, whose connections may break."""
    store = Store(migrated_store.kind, migrated_store.url)
    yield store
    store.close()


def session_of(connection: Connection) -> int:
    is_postgresql = connection.dialect.name == "postgresql"
    function = "pg_backend_pid()" if is_postgresql else "connection_id()"
    return int(connection.exec_driver_sql(f"SELECT {function}").scalar_one())


def end_session(admin: Connection, number: int) -> None:
    if admin.dialect.name == "postgresql":
        admin.exec_driver_sql(f"SELECT pg_terminate_backend({number}, 5000)")
    else:
        admin.exec_driver_sql(f"KILL {number}")


@contextmanager
def before_statement(
    store: Store, number: int, act: Callable[[Connection], object]
) -> Iterator[list[str]]:
    """Act once, before the n-th statement from now; give the statements there were."""
    seen: list[str] = []

    def hook(connection: Connection, _: object, statement: str, *__: object) -> None:
        seen.append(statement)
        if len(seen) == number + 1:
            act(connection)

    event.listen(store.root, "before_cursor_execute", hook)
    try:
        yield seen
    finally:
        event.remove(store.root, "before_cursor_execute", hook)


@on_servers
@pytest.mark.parametrize("name", ["get_tuple", "put", "prune"])
def test_a_session_that_is_killed_before_any_statement_is_replaced(
    migrated_store: Store, own: Store, admin: Connection, name: str
) -> None:
    act = (READS | CHANGES)[name]
    fill(migrated_store)
    result = act(migrated_store)
    expected = dump(migrated_store)
    own.get_tuple(thread())
    for number in count():
        if name in CHANGES:
            fill(migrated_store)

        def kill(connection: Connection) -> None:
            end_session(admin, session_of(connection))

        retries = own.saver.metrics.retries
        with before_statement(own, number, kill) as statements:
            assert act(own) == result
        assert dump(migrated_store) == expected
        if len(statements) <= number:
            break
        assert own.saver.metrics.retries > retries
    assert number > 0


CODES = [
    (name, code)
    for name, is_mysql in (("pg-psycopg", False), ("mariadb-pymysql", True), ("mysql-async", True))
    for code in faults._FAULTS  # noqa: SLF001 - each of them is tried
    if isinstance(code, int) is is_mysql
]


@pytest.mark.parametrize(("migrated_store", "code"), CODES, indirect=["migrated_store"], ids=str)
def test_each_error_that_passes_is_retried(
    migrated_store: Store, own: Store, code: int | str
) -> None:
    """The server itself raises it, as a statement asks it to."""
    raised = (
        f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}"
        if isinstance(code, int)
        else f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$"
    )
    fill(migrated_store)
    own.get_tuple(thread())
    with before_statement(own, 0, lambda connection: connection.exec_driver_sql(raised)):
        put(own, "3", parent="2")
    assert own.saver.metrics.retries == 1
    assert own.saver.metrics.failures == 0
    assert ids(migrated_store) == ["3", "2", "1"]


@on_servers
def test_with_no_time_to_retry_a_lost_connection_is_the_callers(
    migrated_store: Store, own: Store, admin: Connection
) -> None:
    never = own.using(own.make_saver(retry_seconds=0))
    never.get_tuple(thread())
    with (
        before_statement(own, 0, lambda connection: end_session(admin, session_of(connection))),
        pytest.raises(DBAPIError),
    ):
        put(never, "1")
    put(never, "2")  # the pool is in order
    assert never.saver.metrics[:3] == (3, 0, 1)
    assert ids(migrated_store) == ["2"]


def ids(store: Store) -> list[str]:
    return [id_of(item.config) for item in store.list(None)]


@on_servers
def test_the_transaction_of_the_caller_is_never_tried_again(
    store: Store, own: Store, admin: Connection
) -> None:
    with joined(own) as (within, _):
        put(within, "1")
        with (
            before_statement(own, 0, lambda connection: end_session(admin, session_of(connection))),
            pytest.raises(DBAPIError),
        ):
            put(within, "2")
        assert within.saver.metrics.retries == 0
    assert ids(store) == []


@on_servers
def test_what_takes_too_long_fails_with_what_was_tried(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(store.url) as proxy:
        far = Store(store.kind, proxy.url)
        hasty = far.using(far.make_saver(retry_seconds=0.2))
        hasty.get_tuple(thread())
    with pytest.raises((DBAPIError, OSError)) as caught:
        hasty.get_tuple(thread("planted"))
    far.close()
    assert hasty.saver.metrics.failures == 1
    assert hasty.saver.metrics.retries >= 2
    if isinstance(caught.value, DBAPIError) or sys.version_info >= (3, 11):
        said = "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert re.search(r"get_tuple: the server can't be reached; \d+ attempts in 0\.\d s", said)
    logged = [record for record in caplog.records if record.name == "checkpoint_sa.retry"]
    assert [record.levelname for record in logged] == [
        *["WARNING"] * hasty.saver.metrics.retries,
        "ERROR",
    ]
    assert "planted" not in caplog.text


@on_servers
def test_a_server_that_was_never_reached_is_not_waited_for(store: Store) -> None:
    with Proxy(store.url) as proxy:
        pass
    far = Store(store.kind, proxy.url)
    with pytest.raises((DBAPIError, OSError)):
        far.get_tuple(thread())
    far.close()
    assert far.saver.metrics[:3] == (1, 0, 1)


@pytest.mark.parametrize("name", ["postgresql", "mariadb", "mysql"])
def test_work_goes_on_while_the_server_is_restarted(
    start_server: Callable[[str], Server], name: str
) -> None:
    with type(start_server(name))(start_server(name).command) as server:
        kinds = [kind for kind in KINDS.values() if kind.server == name]
        stores = [Store(kind, server.url(kind.driver)) for kind in kinds]
        for store in stores:
            store.saver.retry_seconds = 60
        stores[0].setup()
        put(stores[0], "start")
        stop = threading.Event()
        stored: list[list[str]] = [[] for _ in stores]

        def work(store: Store, mine: list[str]) -> None:
            for i in count():
                put(store, f"{i:06}", of=store.kind.driver + str(store.kind.is_async))
                mine.append(f"{i:06}")
                if stop.is_set() and store.saver.metrics.retries:
                    return

        with ThreadPoolExecutor() as pool:
            running = [pool.submit(work, *each) for each in zip(stores, stored, strict=True)]
            while not all(len(mine) > 3 for mine in stored):
                time.sleep(0.01)
            server.restart()
            stop.set()
            for each in running:
                each.result()
        for store, mine in zip(stores, stored, strict=True):
            own_thread = thread(store.kind.driver + str(store.kind.is_async))
            assert [id_of(item.config) for item in store.list(own_thread)] == mine[::-1]
            store.close()


# Other transactions


@contextmanager
def serializable(store: Store) -> Iterator[Store]:
    """Yield the store on an engine whose transactions are all SERIALIZABLE."""
    other = Store(store.kind, store.url, isolation_level="SERIALIZABLE", pool_size=8)
    other.saver.retry_seconds = 60
    yield other
    other.close()


@pytest.mark.parametrize(
    "migrated_store", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"], indirect=True
)
def test_writers_of_one_thread_get_through_under_serializable(store: Store) -> None:
    with serializable(store) as other:
        other.get_tuple(thread())
        shallow_saver = other.make_saver(shallow=True, retry_seconds=60)

        def one(i: int) -> Any:
            checkpoint = empty_checkpoint()
            config = thread("contended")
            saver = other.saver if i % 2 else shallow_saver
            arguments: Any = (config, checkpoint, {"source": "loop", "step": i, "parents": {}}, {})
            if store.kind.is_async:
                return saver.aput(*arguments)
            return saver.put(*arguments)

        if store.kind.is_async:

            async def all_at_once() -> None:
                await asyncio.gather(*map(one, range(60)))

            other.run(all_at_once())
        else:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(one, range(60)))
        assert other.saver.metrics.operations == 31
        assert other.saver.metrics.failures == 0
        assert shallow_saver.metrics[2] == 0
        assert shallow_saver.metrics.retries > 0


@pytest.mark.parametrize(
    "migrated_store", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"], indirect=True
)
@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_an_engine_with_an_isolation_level_of_its_own_keeps_it_and_commits(
    store: Store, level: str
) -> None:
    other = Store(store.kind, store.url, isolation_level=level)
    seen: list[str] = []

    def look(connection: Connection) -> None:
        seen.append(connection.get_isolation_level())

    with before_statement(other, 1, look):  # the first is the check of the revision
        put(other, "1")
    other.close()
    assert seen == [level]
    assert ids(store) == ["1"]


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Let nobody else change the checkpoints."""
    engine = create_engine(sync_url(store))
    with engine.connect() as holder:
        holder.exec_driver_sql("SELECT * FROM checkpoints FOR UPDATE")
        yield
        holder.rollback()
    engine.dispose()


@on_mysql_family
def test_a_lock_that_is_waited_for_too_long_is_waited_for_again(store: Store) -> None:
    put(store, "1")
    other = Store(
        store.kind, store.url, connect_args={"init_command": "SET innodb_lock_wait_timeout = 1"}
    )
    with ThreadPoolExecutor(1) as pool:
        with locked(store):
            done = pool.submit(other.delete_thread, "a")
            while not other.saver.metrics.retries:
                assert not done.done()
                time.sleep(0.02)
        done.result()
    other.close()
    assert ids(store) == []


@on_mysql_family
@pytest.mark.parametrize("what", ["QUERY", "CONNECTION"])
def test_a_statement_that_is_killed_while_it_waits_is_sent_again(
    store: Store, admin: Connection, what: str
) -> None:
    put(store, "1")
    with ThreadPoolExecutor(1) as pool:
        with locked(store):
            done = pool.submit(store.delete_thread, "a")
            while not store.saver.metrics.retries:
                assert not done.done()
                for row in admin.exec_driver_sql("SHOW FULL PROCESSLIST").mappings():
                    if "DELETE" in str(row["Info"]):
                        with suppress(DBAPIError):  # it has just ended by itself
                            admin.exec_driver_sql(f"KILL {what} {row['Id']}")
                time.sleep(0.02)
        done.result()
    assert ids(store) == []


@on_servers
def test_a_copy_whose_answer_was_lost_is_told_from_another_thread(
    store: Store, own: Store, admin: Connection
) -> None:
    fill(store)
    own.get_tuple(thread())

    def fill_target_and_kill(connection: Connection) -> None:
        end_session(admin, session_of(connection))
        put(second, "9", of="b")

    second = Store(sync_twin(store.kind), sync_url(store))
    with (
        before_statement(own, 1, fill_target_and_kill),  # the first finds the target empty
        pytest.raises(ThreadExistsError),
    ):
        own.copy_thread("a", "b")
    second.close()
    assert own.saver.metrics.retries == 1
    assert [id_of(item.config) for item in store.list(thread("b"))] == ["9"]
