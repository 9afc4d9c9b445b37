"""Times to live: what expires isn't returned, reads postpone it, sweeps delete it."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import random
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp
from memories import Memory
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from stores import KINDS, ONE_PER_PROTOCOL, Store

from checkpoint_sa import (
    AsyncSQLAlchemyStore,
    ConfigurationError,
    InvalidInputError,
    SQLAlchemyStore,
)
from checkpoint_sa.store import repository
from checkpoint_sa.store.sweeping import TaskSweeper, ThreadSweeper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

NS = ("n",)


def left(memory: Memory) -> float:
    """Return the minutes that the only item which expires has left."""
    (minutes,) = memory.minutes_left()
    return minutes


@pytest.mark.parametrize("ttl", [0.01, 0.5, 1, 90, 60 * 24 * 365, 2**31 - 1])
def test_an_item_expires_after_its_minutes(memory: Memory, ttl: float) -> None:
    memory.put(NS, "k", {}, ttl=ttl)
    assert left(memory) == pytest.approx(ttl, abs=0.5)
    memory.put(NS, "k", {})
    assert memory.minutes_left() == []


def test_an_expired_item_is_never_returned(memory: Memory) -> None:
    memory.put(("gone",), "old", {"kind": "note"}, ttl=5)
    memory.put(NS, "new", {"kind": "note"}, ttl=5)
    memory.expire("old")
    assert memory.get(("gone",), "old") is None
    assert memory.keys(()) == memory.keys((), filter={"kind": "note"}) == ["new"]
    assert memory.list_namespaces() == [NS]
    found = memory.batch([GetOp(("gone",), "old"), GetOp(NS, "new"), ListNamespacesOp()])
    assert found[0] is None
    assert found[2] == [NS]
    assert memory.on.count("store") == 2  # nobody has swept


def test_an_expired_item_does_not_come_back_by_a_read(memory: Memory) -> None:
    memory.put(NS, "k", {}, ttl=5)
    memory.expire("k")
    memory.get(NS, "k", refresh_ttl=True)
    memory.search(NS, refresh_ttl=True)
    assert left(memory) < 0
    memory.put(NS, "k", {"a": 1})
    assert memory.found(NS, "k").value == {"a": 1}


def test_an_item_that_lives_for_a_moment_expires_by_the_clock(memory: Memory) -> None:
    memory.put(NS, "k", {}, ttl=0.3 / 60)
    deadline = time.monotonic() + 10
    while memory.get(NS, "k", refresh_ttl=False) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert memory.sweep() == 1


@pytest.mark.parametrize(
    ("given", "refresh_on_read", "refreshes"),
    [
        (None, None, True),
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (False, True, False),
    ],
)
def test_a_read_postpones_the_expiry_if_asked(
    memory: Memory, given: bool | None, refresh_on_read: bool | None, refreshes: bool
) -> None:
    config = {} if refresh_on_read is None else {"refresh_on_read": refresh_on_read}
    other = memory.using(ttl=config)
    for read in (
        lambda: other.get(NS, "k", refresh_ttl=given),
        lambda: other.search((), refresh_ttl=given),
        lambda: other.search(NS, filter={"a": 1}, refresh_ttl=given),
    ):
        memory.put(NS, "k", {"a": 1}, ttl=10)
        memory.on.sql("UPDATE store SET ttl_minutes = 100")
        assert read()
        assert left(memory) == pytest.approx(100 if refreshes else 10, abs=1)


def test_items_that_do_not_expire_cost_no_statement_for_it(memory: Memory) -> None:
    memory.put(NS, "k", {})
    memory.get(NS, "k")
    with memory.on.statements() as sent:
        memory.get(NS, "k")
        memory.search(NS)
    assert len(sent) == 2
    memory.put(NS, "k", {}, ttl=5)
    with memory.on.statements() as sent:
        memory.get(NS, "k")
    assert len([s for s in sent.texts if not s.startswith("BEGIN")]) == 2
    with memory.on.statements() as sent:
        memory.batch([GetOp(NS, "k"), SearchOp(NS), PutOp(NS, "l", {})])
    assert len([s for s in sent.texts if not s.startswith("BEGIN")]) == 4


def test_the_default_counts_where_a_put_names_none(memory: Memory) -> None:
    other = memory.using(ttl={"default_ttl": 7})
    other.put(NS, "k", {})
    assert left(memory) == pytest.approx(7, abs=0.5)
    other.put(NS, "k", {}, ttl=None)
    assert memory.minutes_left() == []
    other.put(NS, "k", {}, ttl=3)
    assert left(memory) == pytest.approx(3, abs=0.5)
    other.batch([PutOp(NS, "k", {})])  # an operation says all itself, as in LangGraph's stores
    assert memory.minutes_left() == []


def test_fractions_count_until_the_first_refresh(memory: Memory) -> None:
    """As PostgresStore's column is an integer; rounded up, so that no read shortens a life."""
    memory.put(NS, "k", {}, ttl=0.4)
    assert left(memory) == pytest.approx(0.4, abs=0.1)
    memory.get(NS, "k")
    assert left(memory) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, True, "5", 2**31])
def test_a_ttl_that_is_none_is_an_error(memory: Memory, ttl: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"ttl is .* Expected minutes"):
        memory.put(NS, "k", {}, ttl=ttl)
    with pytest.raises(ConfigurationError, match="default_ttl of `ttl`"):
        memory.using(ttl={"default_ttl": ttl})


# Sweeping


def test_a_sweep_deletes_what_has_expired(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_SWEPT", 7)
    memory.batch([PutOp(NS, f"{i}", {}, ttl=5) for i in range(40)])
    memory.batch([PutOp(("kept",), f"{i}", {}, ttl=5 if i else None) for i in range(5)])
    memory.on.sql("UPDATE store SET ttl_minutes = 1 WHERE prefix = 'n'")
    for i in range(40):
        memory.expire(f"{i}") if i > 4 else None
    assert memory.sweep() == 35
    assert memory.sweep() == 0
    assert memory.on.count("store") == 10


def test_sweeps_at_once_delete_each_item_once(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_SWEPT", 20)
    memory.batch([PutOp(NS, f"{i}", {}, ttl=5) for i in range(300)])
    memory.on.sql("UPDATE store SET expires_at = created_at")
    if memory.on.kind.is_async:

        async def sweep() -> Any:
            return await asyncio.gather(*(memory.store.sweep_ttl() for _ in range(6)))

        counts = memory.on.run(sweep())
    else:
        with ThreadPoolExecutor(6) as pool:
            counts = list(pool.map(lambda _: memory.store.sweep_ttl(), range(6)))
    assert sum(counts) == 300
    assert memory.on.count("store") == 0


@pytest.mark.parametrize(
    "migrated_store", ["pg-psycopg", "mariadb-pymysql", "mysql-pymysql"], indirect=True
)
def test_an_item_that_is_stored_again_meanwhile_is_not_swept(memory: Memory) -> None:
    """Between the two statements of a sweep. SQLite lets nobody write there."""
    memory.put(NS, "k", {"v": 1}, ttl=5)
    memory.expire("k")
    again: list[str] = []

    def put_again(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("DELETE") and not again:
            again.append(statement)
            memory.on.sql("UPDATE store SET expires_at = NULL")

    event.listen(memory.on.root, "before_cursor_execute", put_again)
    try:
        assert memory.sweep() == 0
    finally:
        event.remove(memory.on.root, "before_cursor_execute", put_again)
    assert again
    assert memory.found(NS, "k").value == {"v": 1}


def wait_until_swept(memory: Memory) -> None:
    deadline = time.monotonic() + 20
    while memory.on.count("store"):
        assert time.monotonic() < deadline
        memory.on.run(asyncio.sleep(0.02))


def test_a_sweeper_deletes_until_it_is_stopped(memory: Memory) -> None:
    other = memory.using(ttl={"sweep_interval_minutes": 0.05 / 60})
    for _ in range(2):
        running = other.run("start_ttl_sweeper")
        assert other.run("start_ttl_sweeper") is running
        memory.put(NS, "k", {}, ttl=5)
        memory.expire("k")
        wait_until_swept(memory)
        assert not running.done()
        assert other.run("stop_ttl_sweeper", 10)
        assert running.done()
    assert other.run("stop_ttl_sweeper")


def test_a_sweeper_is_stopped_by_cancelling_it(memory: Memory) -> None:
    other = memory.using(ttl={})
    running = other.run("start_ttl_sweeper", 60)
    assert running.cancel()
    assert other.run("stop_ttl_sweeper", 10)


def test_without_a_configuration_there_is_no_sweeper(memory: Memory) -> None:
    running = memory.run("start_ttl_sweeper", 0.01)
    memory.on.run(asyncio.sleep(0.01))
    assert running.done()
    assert memory.run("stop_ttl_sweeper")


def test_a_sweeper_goes_on_after_a_failure(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    other = memory.using(ttl={"sweep_interval_minutes": 0.05 / 60})
    failures: list[str] = []

    def fail(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "expires_at <=" in statement and len(failures) < 2:
            failures.append(statement)
            raise ZeroDivisionError

    memory.put(NS, "secret", {"a": "secret"}, ttl=5)
    memory.expire("secret")
    event.listen(memory.on.root, "before_cursor_execute", fail)
    try:
        with caplog.at_level(logging.ERROR):
            other.run("start_ttl_sweeper")
            wait_until_swept(memory)
    finally:
        event.remove(memory.on.root, "before_cursor_execute", fail)
        assert other.run("stop_ttl_sweeper", 10)
    assert len(failures) == 2
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_a_sweeper_does_not_keep_its_store_alive(sqlite_store: Store) -> None:
    often: Any = {"sweep_interval_minutes": 0.01 / 60}
    store = SQLAlchemyStore(sqlite_store.own, ttl=often)
    running, alive = store.start_ttl_sweeper(), weakref.ref(store)
    del store
    deadline = time.monotonic() + 20
    while alive() is not None or not running.done():
        assert time.monotonic() < deadline
        gc.collect()
        time.sleep(0.01)


def test_a_connections_store_has_no_sweeper(sqlite_store: Store) -> None:
    with sqlite_store.engine.connect() as connection:
        store = SQLAlchemyStore(connection, ttl={"sweep_interval_minutes": 1})
        with pytest.raises(ConfigurationError, match="Start the sweeper of a store on an engine"):
            store.start_ttl_sweeper()
        store.put(NS, "k", {}, ttl=1)
        assert store.sweep_ttl() == 0
        connection.rollback()


def race(memory: Memory, *acts: Any, rounds: int = 60) -> None:
    """Do things at the same time, again and again; each act gets a random number generator."""

    def act(number: int) -> None:
        generator = random.Random(number)
        for _ in range(rounds):
            acts[number](generator)

    async def act_async(number: int) -> None:
        generator = random.Random(number)
        for _ in range(rounds):
            await acts[number](generator)

    async def all_async() -> None:
        await asyncio.gather(*map(act_async, range(len(acts))))

    if memory.on.kind.is_async:
        memory.on.run(all_async())
    else:
        with ThreadPoolExecutor(len(acts)) as pool:
            list(pool.map(act, range(len(acts))))


def some(generator: random.Random) -> list[str]:
    return [str(i) for i in generator.sample(range(200), generator.choice([2, 10, 80]))]


@pytest.mark.parametrize(
    "migrated_store", ["pg-psycopg", "pg-asyncpg", "mariadb-pymysql", "mysql-async"], indirect=True
)
@pytest.mark.parametrize("other", ["put", "delete", "sweep"])
def test_reads_that_refresh_are_in_nobodys_way(memory: Memory, other: str) -> None:
    """Nor are deletions of several items, and sweeps: each retry costs PostgreSQL a second."""
    one = memory.using(ttl={"default_ttl": 60})
    do = one.store.abatch if memory.on.kind.is_async else one.store.batch
    sweep = one.store.sweep_ttl
    one.batch([PutOp(NS, str(i), {"a": i}, ttl=60) for i in range(200)])

    def gets(generator: random.Random) -> Any:
        return do([GetOp(NS, key) for key in some(generator)])

    def puts(generator: random.Random) -> Any:
        ttl = 0.0001 if other == "sweep" else 60
        return do([PutOp(NS, key, {"a": 1}, ttl=ttl) for key in some(generator)])

    def deletes(generator: random.Random) -> Any:
        return do([PutOp(NS, key, None) for key in some(generator)])

    others = {"put": gets, "delete": deletes, "sweep": lambda _: sweep()}[other]
    retries = one.store.metrics.retries
    race(memory, gets, puts, others, others, puts, rounds=25)
    conflicts = one.store.metrics.retries - retries
    assert conflicts == 0 if memory.on.kind.server == "postgresql" else conflicts < 25
    assert one.store.metrics.failures == 0


@pytest.mark.parametrize(
    ("migrated_store", "kinds"),
    [
        *product(("pg-psycopg", "pg-asyncpg"), ("put delete", "get put", "get put delete")),
        *product(("mariadb-pymysql", "mysql-async"), ("get put",)),
    ],
    indirect=["migrated_store"],
)
def test_batches_that_do_several_things_do_not_deadlock(memory: Memory, kinds: str) -> None:
    """Their puts and deletions lock in one order; refreshes have a transaction of their own."""
    one = memory.using()
    do = one.store.abatch if memory.on.kind.is_async else one.store.batch
    make: dict[str, Callable[[str], Any]] = {
        "get": lambda key: GetOp(NS, key),
        "put": lambda key: PutOp(NS, key, {"a": 1}, ttl=60),
        "delete": lambda key: PutOp(NS, key, None),
    }
    one.batch([make["put"](str(i)) for i in range(200)])

    def several(generator: random.Random) -> Any:
        return do([make[generator.choice(kinds.split())](key) for key in some(generator)])

    race(memory, *[several] * 5, rounds=25)
    assert one.store.metrics.retries == one.store.metrics.failures == 0


def test_a_batch_that_puts_and_deletes_leaves_what_it_puts(memory: Memory) -> None:
    memory.batch([PutOp(NS, key, {"a": 1}, ttl=5) for key in "abcd"])
    before = memory.found(NS, "b").created_at
    gets = [GetOp(NS, "a"), GetOp(NS, "b"), GetOp(NS, "x")]
    puts = [PutOp(NS, key, {"a": 2}) for key in "bxd"]
    deletes = [PutOp(NS, key, None) for key in ("a", "c", "nothing")]
    found = memory.batch([*gets, *puts, *deletes])
    assert (found[0].value, found[1].value, found[2]) == ({"a": 1}, {"a": 1}, None)
    assert sorted(memory.keys(NS)) == ["b", "d", "x"]
    assert memory.on.count("store") == 3
    assert memory.minutes_left() == []
    item = memory.found(NS, "b")
    assert (item.value, item.created_at) == ({"a": 2}, before)


_SESSION = {"init_command": "SET SESSION TRANSACTION READ ONLY"}

READ_ONLY = {
    "sqlite": {},
    "aiosqlite": {},
    "mariadb-pymysql": _SESSION,
    "mariadb-async": _SESSION,
    "mysql-pymysql": _SESSION,
    "mysql-async": _SESSION,
    "pg-psycopg": {"options": "-c default_transaction_read_only=on"},
    "pg-asyncpg": {"server_settings": {"default_transaction_read_only": "on"}},
}


@pytest.mark.parametrize("migrated_store", [*READ_ONLY], indirect=True)
def test_where_nothing_can_be_written_a_read_refreshes_nothing(memory: Memory) -> None:
    memory.put(NS, "k", {"a": 1}, ttl=5)
    (name,) = (name for name in READ_ONLY if KINDS[name] == memory.on.kind)
    url = memory.on.url
    if not memory.on.kind.server:
        url = url.replace("///", "///file:") + "?mode=ro&uri=true"
    on = Store(memory.on.kind, url, connect_args=READ_ONLY[name])
    try:
        replica = Memory(on)
        for _ in range(3):
            assert replica.found(NS, "k").value == {"a": 1}
            assert replica.keys(NS) == ["k"]
        assert replica.store.metrics[1:3] == (0, 0)  # neither retries nor failures
        replica.store.database.retry_seconds = 0
        with pytest.raises(DBAPIError, match=r"(?i)read.?only (transaction|database)"):
            replica.batch([GetOp(NS, "k"), PutOp(NS, "l", {})])
    finally:
        on.close()


@pytest.mark.parametrize(
    "migrated_store", ["sqlite", "pg-psycopg", "mariadb-pymysql", "mysql-pymysql"], indirect=True
)
def test_a_read_in_a_read_only_transaction_leaves_it_usable(memory: Memory) -> None:
    memory.put(NS, "k", {"a": 1}, ttl=5)
    begin = {"": "PRAGMA query_only=ON", "postgresql": "SET TRANSACTION READ ONLY"}
    with memory.on.engine.begin() as connection:
        connection.exec_driver_sql(begin.get(memory.on.kind.server, "START TRANSACTION READ ONLY"))
        joined = SQLAlchemyStore(connection)
        for _ in range(2):
            item = joined.get(NS, "k")
            assert item is not None
            assert item.value == {"a": 1}
        if not memory.on.kind.server:
            connection.exec_driver_sql("PRAGMA query_only=OFF")  # it outlives the transaction


def test_a_sweeper_that_was_cancelled_can_be_started_again(memory: Memory) -> None:
    other = memory.using(ttl={"default_ttl": 60})
    try:
        first = other.run("start_ttl_sweeper", 60)
        first.cancel()
        second = other.run("start_ttl_sweeper", 60)
        assert second is not first
        assert not second.done()
    finally:
        assert other.run("stop_ttl_sweeper", 10)


@pytest.mark.parametrize("migrated_store", ["aiosqlite"], indirect=True)
def test_who_stops_a_sweeper_can_be_cancelled(memory: Memory) -> None:
    other = memory.using(ttl={"default_ttl": 60})

    async def stop() -> None:
        async def never_ends() -> None:
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    if ended.is_set():
                        raise

        ended = asyncio.Event()
        await other.store.start_ttl_sweeper(60)
        other.store._sweeper.task.cancel()  # noqa: SLF001 - one that is slow to end takes its place
        slow = other.store._sweeper.task = asyncio.create_task(never_ends())  # noqa: SLF001
        stopping = asyncio.create_task(other.store.stop_ttl_sweeper())
        await asyncio.sleep(0.05)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        ended.set()
        slow.cancel()
        await asyncio.wait([slow])

    memory.on.run(stop())


@pytest.mark.parametrize("number", [2**31, sys.maxsize, 2**80])
def test_any_limit_and_offset_are_taken(memory: Memory, number: int) -> None:
    memory.put(NS, "a", {"x": 1})
    assert memory.keys(NS, limit=number) == ["a"]
    assert memory.keys(NS, limit=number, offset=number) == []
    assert memory.list_namespaces(limit=number) == [NS]


def test_a_sweeper_ends_with_its_store(
    sqlite_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="checkpoint_sa")
    store = SQLAlchemyStore(sqlite_store.own)
    swept: list[int] = []
    event.listen(sqlite_store.root, "commit", lambda _: swept.append(1))
    sweeper = ThreadSweeper(store, 0.02)
    while len(swept) < 2:
        time.sleep(0.01)
    assert not [record for record in caplog.records if "deleted" in record.message]
    del store
    gc.collect()
    assert sweeper.future.result(5) is None
    assert not sweeper.is_running


def test_an_async_sweeper_ends_with_its_store(tmp_path: Path) -> None:
    async def use() -> None:
        url = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
        async with AsyncSQLAlchemyStore.from_conn_string(url) as opened:
            await opened.setup()
            store = AsyncSQLAlchemyStore(opened.bind)
            sweeper = TaskSweeper(store, 0.02)
            await asyncio.sleep(0.1)
            assert not sweeper.task.done()
            del store
            gc.collect()
            await asyncio.wait_for(sweeper.task, 5)

    asyncio.run(use())
