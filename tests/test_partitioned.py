"""Behaviour on tables partitioned by hash of thread_id, as docs/distributed.md makes them.

All of test_behaviour runs here again, on another `migrated_store`. The plans show that each
statement about a thread stays in one partition, but for those by keys and the pages of `list`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from databases import on_connection, sync_url
from langgraph.checkpoint.serde.types import ERROR
from sqlalchemy import create_engine, event, make_url
from stores import KINDS, Store, id_of, thread
from test_behaviour import *  # noqa: F403

from checkpoint_sa import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_core.runnables import RunnableConfig
    from servers import Server

SCRIPT = Path(__file__).parents[1] / "examples" / "partitioned.sql"


@pytest.fixture(scope="module", params=["pg-psycopg", "pg-asyncpg"])
def migrated_store(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server]
) -> Iterator[Store]:
    kind = KINDS[request.param]
    server = start_server("postgresql")
    admin = create_engine(server.url("postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE IF EXISTS partitioned WITH (FORCE)")
        connection.exec_driver_sql("CREATE DATABASE partitioned")
    url = make_url(server.url(kind.driver)).set(database="partitioned")
    store = Store(kind, url.render_as_string(hide_password=False))
    store.setup()
    config = store.save("before", {"x": [1]})
    store.put_writes(config, [("x", 2)], "task")
    partition(store)
    found = store.found(config)
    assert found.checkpoint["channel_values"] == {"x": [1]}
    assert found.pending_writes == [("task", "x", 2)]
    yield store
    store.close()
    with admin.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE partitioned WITH (FORCE)")
    admin.dispose()


def partition(store: Store) -> None:
    engine = create_engine(sync_url(store))
    with engine.begin() as connection:
        script = connection.execution_options(no_parameters=True)
        script.exec_driver_sql(SCRIPT.read_text())
    engine.dispose()


def test_the_revision_is_still_the_one(store: Store) -> None:
    on_connection(store, migrate.verify)
    store.setup()
    kinds = store.sql("SELECT relname FROM pg_class WHERE relkind = 'p' ORDER BY relname")
    assert [name for (name,) in kinds] == [
        "checkpoint_blobs",
        "checkpoint_deltas",
        "checkpoint_writes",
        "checkpoints",
    ]
    compressed = "SELECT DISTINCT attcompression FROM pg_attribute WHERE attname = 'blob'"
    assert len(store.sql(compressed)) == 1  # of the parents as of the partitions


# Plans

PARTITION = re.compile(r"(checkpoint\w*?)_(\d+)")


def scanned(plan: dict[str, Any]) -> set[tuple[str, int]]:
    """Return the partitions that were read: those of a plan that were pruned have no loops."""
    found = set()
    match = PARTITION.fullmatch(plan.get("Relation Name", ""))
    if match and plan["Actual Loops"] and plan["Node Type"] != "ModifyTable":
        found.add((match[1], int(match[2])))
    for part in plan.get("Plans", ()):
        found |= scanned(part)
    return found


@contextmanager
def explained(store: Store) -> Iterator[list[tuple[str, set[tuple[str, int]]]]]:
    """Collect each statement with the partitions that it reads, before it is run."""
    found: list[tuple[str, set[tuple[str, int]]]] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if not statement.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
            return
        one = parameters[0] if isinstance(parameters, list) else parameters
        driver = connection.connection.driver_connection
        with driver.transaction(force_rollback=True):
            # A test's tables are too small to be read by index: have them read as large ones are.
            for way in ("hashjoin", "mergejoin", "seqscan"):
                driver.execute(f"SET LOCAL enable_{way} = off")
            plan = driver.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", one).fetchone()
        found.append((statement, scanned(plan[0][0]["Plan"])))

    event.listen(store.root, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(store.root, "before_cursor_execute", explain)


MESSAGES = [
    f"item {i} of a list that is long enough to be stored as what changed" for i in range(40)
]


def using(store: Store, **options: Any) -> Store:
    other = store.using(store.make_saver(**options))
    other.get_tuple(thread("nobody"))  # checks the revision
    return other


def grow(store: Store, config: RunnableConfig) -> None:
    store.save(values={"items": [*MESSAGES, "one more"], "y": [1]}, parent=config)


ONE_THREAD: dict[str, Callable[[Store, RunnableConfig], object]] = {
    "put": lambda s, c: s.save(values={"x": [1], "y": [2]}, parent=c),
    "put of many values": lambda s, c: s.save(values={f"x{i}": [i] for i in range(20)}, parent=c),
    "put_writes": lambda s, c: s.put_writes(c, [("x", [1]), ("y", [1])], "task"),
    "put_writes, special": lambda s, c: s.put_writes(c, [(ERROR, "e"), ("x", 1)], "task"),
    "get_tuple of the latest": lambda s, _: s.get_tuple(thread("a")),
    "get_tuple by id": lambda s, c: s.get_tuple(c),
    "history": lambda s, c: s.history(c, ["items"]),
    "delete_thread": lambda s, _: s.delete_thread("a"),
    "prune": lambda s, _: s.prune(["a"]),
    "incremental get_tuple": lambda s, c: using(s, incremental=True).get_tuple(c),
    "incremental put": lambda s, c: grow(using(s, incremental=True), c),
    "shallow put": lambda s, c: grow(using(s, shallow=True), c),
    "checked put": lambda s, c: grow(using(s, check_parent=True), c),
    "rewrite": lambda s, _: s.rewrite(["a"], incremental=False),
}


def fill(store: Store) -> RunnableConfig:
    changes = store.using(store.make_saver(incremental=True))
    config = None
    for thread_id in ("b", "c", "d", "a"):
        config = None
        for turn in range(5):
            values: dict[str, Any] = {"items": [*MESSAGES, turn], "x": [turn], "small": turn}
            config = changes.save(thread_id, values, parent=config)
            changes.put_writes(config, [("items", [turn]), ("x", turn)], "task")
    assert config is not None
    store.sql("ANALYZE")
    return config


BY_KEYS = "json_array_elements"
"""Of statements that name rows by a list of keys: PostgreSQL learns the threads as it runs."""

on_psycopg = pytest.mark.parametrize("migrated_store", ["pg-psycopg"], indirect=True)


@on_psycopg
@pytest.mark.parametrize("name", list(ONE_THREAD))
def test_a_statement_about_a_thread_reads_one_partition(store: Store, name: str) -> None:
    config = fill(store)
    store.get_tuple(thread("nobody"))
    with explained(store) as found:
        ONE_THREAD[name](store, config)
    assert found
    wide = [
        sent
        for sent, partitions in found
        if BY_KEYS not in sent and len({number for _, number in partitions}) > 1
    ]
    assert not wide, "\n\n".join(wide)


@on_psycopg
def test_a_page_of_a_thread_reads_checkpoints_of_one_partition(store: Store) -> None:
    config = fill(store)
    with explained(store) as found:
        store.list(thread("a"))
        store.list(thread("a"), before=config, limit=2)
    for _, partitions in found:
        assert len({number for table, number in partitions if table == "checkpoints"}) <= 1


@on_psycopg
def test_copying_reads_the_partitions_of_two_threads(store: Store) -> None:
    fill(store)
    with explained(store) as found:
        store.copy_thread("a", "e")
    assert all(len({number for _, number in partitions}) <= 2 for _, partitions in found)


@on_psycopg
def test_what_is_about_no_thread_reads_all_partitions(store: Store) -> None:
    config = fill(store)
    with explained(store) as found:
        store.list(None)
        store.delete_for_runs(["nobody"])
    assert any(len(partitions) >= 16 for _, partitions in found)
    assert id_of(store.found(thread("a")).config) == id_of(config)
