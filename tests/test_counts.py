"""How many SQL statements an operation sends, and what the engines make of them."""

from __future__ import annotations

import itertools
import re
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, TASKS, _DeltaSnapshot
from langgraph.types import Send
from sqlalchemy import ClauseElement, event, insert
from sqlalchemy.engine.interfaces import CacheStats
from stores import KINDS, ONE_PER_PROTOCOL, Store, id_of, thread

from checkpoint_sa import Checkpoint, CheckpointBlob, CheckpointWrite, sql
from checkpoint_sa.sql import (
    deleting,
    dependencies,
    history,
    reading,
    statistics,
    tables,
    threads,
    writing,
)
from checkpoint_sa.types import ValueLookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from sqlalchemy import Executable

    Operation = Callable[[], object]

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

MYSQL_FAMILY = [name for name, kind in KINDS.items() if kind.server in ("mariadb", "mysql")]
on_mysql_family = pytest.mark.parametrize("migrated_store", MYSQL_FAMILY, indirect=True)


class Counts(NamedTuple):
    """Statements of an operation; SQLite's include the BEGIN IMMEDIATE of one that writes."""

    sqlite: int
    postgresql: int
    mysql: int
    """And MariaDB."""

    def on(self, store: Store) -> int:
        return {"": self.sqlite, "postgresql": self.postgresql}.get(store.kind.server, self.mysql)


def count(store: Store, operation: Operation) -> int:
    """Count the statements of an operation, on a saver that has checked the schema before."""
    store.get_tuple(thread("nobody"))
    with store.statements() as sent:
        operation()
    return sum(text != "BEGIN" for text in sent.texts)


def channels(number: int) -> dict[str, Any]:
    """Make so many values that are stored on their own."""
    return {f"channel {i:04}": [i] for i in range(number)}


def line(
    store: Store, length: int, *, width: int = 1, writes: int = 1, **save: Any
) -> list[RunnableConfig]:
    """Save a line of checkpoints with so many values and writes each."""
    made: list[RunnableConfig] = []
    for turn in range(length):
        config = store.save(values=channels(width), parent=made[-1] if made else None, **save)
        store.put_writes(config, [("x", i) for i in range(writes)], f"task {turn}")
        made.append(config)
    return made


def execute(store: Store, statement: Executable, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows in a transaction of their own."""
    if store.async_engine is None:
        with store.engine.begin() as connection:
            connection.execute(statement, list(rows))
        return

    async def in_loop() -> None:
        assert store.async_engine is not None
        async with store.async_engine.begin() as connection:
            await connection.execute(statement, list(rows))

    store.run(in_loop())


# Writing


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (0, Counts(sqlite=1, postgresql=1, mysql=1)),
        (1, Counts(sqlite=3, postgresql=1, mysql=2)),
        (16, Counts(sqlite=3, postgresql=1, mysql=2)),
        (17, Counts(sqlite=3, postgresql=2, mysql=2)),
        (300, Counts(sqlite=3, postgresql=2, mysql=2)),
    ],
)
def test_put(store: Store, width: int, expected: Counts) -> None:
    first = line(store, 3)[-1]
    assert count(store, lambda: store.save(parent=first, values=channels(width))) == expected.on(
        store
    )
    assert len(store.found(thread()).checkpoint["channel_values"]) == width


def test_put_with_values_that_need_no_row_of_their_own(store: Store) -> None:
    small = {f"channel {i}": i for i in range(300)}
    expected = Counts(sqlite=1, postgresql=1, mysql=1)
    assert count(store, lambda: store.save(values=small)) == expected.on(store)


def test_put_again_and_in_a_long_thread(store: Store) -> None:
    made = line(store, 40)
    again = store.found(made[-1])
    expected = Counts(sqlite=3, postgresql=1, mysql=2)
    assert count(store, lambda: store.save(parent=made[-1], values={"x": [1]})) == expected.on(
        store
    )
    versions: Any = dict(again.checkpoint["channel_versions"])
    assert again.parent_config is not None
    put = partial(store.put, again.parent_config, again.checkpoint, again.metadata, versions)
    assert count(store, put) == expected.on(store)


@pytest.mark.parametrize("number", [1, 16])
def test_put_writes(store: Store, number: int) -> None:
    config = store.save()
    writes = [(f"channel {i}", [i]) for i in range(number)]
    expected = Counts(sqlite=1, postgresql=1, mysql=1)
    assert count(store, lambda: store.put_writes(config, writes, "task")) == expected.on(store)
    assert store.count("checkpoint_writes") == number


def test_put_many_writes(store: Store) -> None:
    config = store.save()
    writes = [("channel", [i]) for i in range(500)]
    expected = Counts(sqlite=2, postgresql=1, mysql=1)
    assert count(store, lambda: store.put_writes(config, writes, "task")) == expected.on(store)
    assert store.count("checkpoint_writes") == 500


@pytest.mark.parametrize("ordinary", [0, 1, 100])
def test_put_writes_with_special_ones(store: Store, ordinary: int) -> None:
    config = store.save()
    writes = [("x", i) for i in range(ordinary)]
    special = [(ERROR, "e"), (INTERRUPT, "i"), (RESUME, "r")]
    sent = count(store, lambda: store.put_writes(config, [*writes, *special], "task"))
    expected = Counts(sqlite=3, postgresql=2, mysql=2) if ordinary else Counts(1, 1, 1)
    assert sent == expected.on(store)
    assert store.count("checkpoint_writes") == ordinary + 3


@on_mysql_family
def test_the_server_is_asked_as_often_for_many_rows_as_for_one(store: Store) -> None:
    """The drivers send an executemany as one INSERT where they understand the statement."""

    def asked(width: int) -> int:
        def questions() -> int:
            return int(store.sql("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])

        before = questions()
        config = store.save(values=channels(width))
        store.put_writes(config, [("x", i) for i in range(width)], "task")
        return questions() - before

    asked(1)
    assert asked(16) == asked(1)
    assert asked(200) == asked(17)


@on_mysql_family
def test_the_server_is_asked_no_more_than_it_has_to(store: Store) -> None:
    """No transaction around one statement, no ROLLBACK when a connection goes back to the pool."""

    def questions() -> int:
        return int(store.sql("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])

    def asked(operation: Operation) -> int:
        before = questions()
        operation()
        return questions() - before - nothing

    nothing = 0
    nothing = asked(lambda: None)
    config = store.save()
    store.get_tuple(config)
    assert asked(lambda: store.get_tuple(config)) == 2
    assert asked(lambda: store.put_writes(config, [("x", 1), ("y", 2), ("z", 3)], "task")) == 1
    assert asked(lambda: store.save(values={"small": 1})) == 1
    assert asked(lambda: store.save(values=channels(3))) == 4  # BEGIN, two INSERTs, COMMIT


@on_mysql_family
def test_the_limit_of_the_server_is_asked_for_once(store: Store) -> None:
    large = {f"channel {i}": b"x" * (4 * 2**20) for i in range(3)}
    assert count(store, lambda: store.save(values=large)) == 3


# Reading


READ = Counts(sqlite=1, postgresql=1, mysql=2)


@pytest.mark.parametrize(
    ("length", "width", "writes"), [(1, 0, 0), (1, 1, 1), (30, 3, 3), (2, 500, 200)]
)
def test_get_tuple(store: Store, length: int, width: int, writes: int) -> None:
    made = line(store, length, width=width, writes=writes)
    assert count(store, lambda: store.found(thread())) == READ.on(store)
    assert count(store, lambda: store.found(made[0])) == READ.on(store)
    assert len(store.found(thread()).checkpoint["channel_values"]) == width
    assert len(store.found(thread()).pending_writes or ()) == writes


def test_get_tuple_with_writes_of_many_tasks(store: Store) -> None:
    config = store.save()
    for task in range(60):
        store.put_writes(config, [("x", task)], f"task {task}")
    assert count(store, lambda: store.found(config)) == READ.on(store)
    assert len(store.found(config).pending_writes or ()) == 60


def test_get_tuple_with_pending_sends_of_the_parent(store: Store) -> None:
    first = store.save()
    for task in range(30):
        store.put_writes(first, [(TASKS, Send("node", task))], f"task {task}")
    config = store.save(parent=first, v=3)
    assert count(store, lambda: store.found(config)) == READ.on(store)
    assert len(store.found(config).checkpoint["channel_values"][TASKS]) == 30


def test_get_tuple_of_what_is_not_there(store: Store) -> None:
    assert count(store, lambda: store.get_tuple(thread("nobody"))) == 1
    assert count(store, lambda: store.get_tuple(thread(checkpoint_id="none"))) == 1


@pytest.mark.parametrize(("length", "width", "writes"), [(1, 1, 1), (9, 0, 0), (9, 50, 20)])
def test_a_page_of_list(store: Store, length: int, width: int, writes: int) -> None:
    line(store, length, width=width, writes=writes)
    assert count(store, lambda: store.list(thread())) == READ.on(store)
    assert count(store, lambda: store.list(None)) == READ.on(store)
    assert count(store, lambda: store.list(None, filter={"step": 1})) == READ.on(store)
    assert len(store.list(None)) == length


def test_list_with_a_limit_is_one_page(store: Store) -> None:
    line(store, 30)
    for limit in (1, 10):
        assert count(store, partial(store.list, thread(), limit=limit)) == READ.on(store)


def test_pages_of_list_grow(store: Store) -> None:
    """Ten checkpoints first, then many small ones at a time."""
    line(store, 100, width=0, writes=0)
    expected = Counts(sqlite=2, postgresql=2, mysql=4)
    assert count(store, lambda: store.list(thread())) == expected.on(store)


def delta_line(store: Store, length: int, names: Sequence[str]) -> RunnableConfig:
    """Save a line whose first checkpoint has snapshots, and later ones writes to every channel."""
    config = store.save(values={name: _DeltaSnapshot([name]) for name in names})
    for turn in range(length):
        store.put_writes(config, [(name, turn) for name in names], "task")
        versions = {name: store.saver.get_next_version(None, None) for name in names}
        counters = {name: [turn + 1, turn + 1] for name in names}
        config = store.save(
            parent=config,
            versions=versions,
            metadata={"counters_since_delta_snapshot": counters},
        )
    return config


@pytest.mark.parametrize(("length", "width"), [(1, 1), (30, 1), (2, 100)])
def test_delta_history(store: Store, length: int, width: int) -> None:
    names = list(channels(width))
    config = delta_line(store, length, names)
    found = store.history(config, names)
    assert [len(found[name]["writes"]) for name in names] == [length] * width
    assert count(store, lambda: store.history(config, names)) == 4
    assert count(store, lambda: store.history(thread(), names)) == 5


# Deleting and copying


@pytest.mark.parametrize(("length", "width", "namespaces"), [(1, 1, 1), (30, 5, 4)])
def test_delete_thread(store: Store, length: int, width: int, namespaces: int) -> None:
    for ns in range(namespaces):
        line(store, length, width=width, ns=f"{ns or ''}")
    expected = Counts(sqlite=6, postgresql=5, mysql=5)
    assert count(store, lambda: store.delete_thread("t")) == expected.on(store)
    assert store.rows() == (0, 0, 0)


@pytest.mark.parametrize(("length", "width", "namespaces"), [(1, 1, 1), (30, 5, 4)])
def test_copy_thread(store: Store, length: int, width: int, namespaces: int) -> None:
    for ns in range(namespaces):
        line(store, length, width=width, ns=f"{ns or ''}")
    expected = Counts(sqlite=6, postgresql=5, mysql=5)
    assert count(store, lambda: store.copy_thread("t", "copy")) == expected.on(store)
    assert store.count("checkpoints") == 2 * length * namespaces


@pytest.mark.parametrize(("threads", "length", "width"), [(1, 2, 1), (8, 12, 6)])
def test_delete_for_runs(store: Store, threads: int, length: int, width: int) -> None:
    runs = [f"run {number}" for number in range(threads)]
    for run in runs:
        last = line(store, length, width=width, metadata={"run_id": run}, thread_id=run)[-1]
        store.save(parent=last)
    expected = Counts(sqlite=8, postgresql=7, mysql=7)
    assert count(store, lambda: store.delete_for_runs(runs)) == expected.on(store)
    assert store.rows() == (threads, 0, 0)
    nothing = Counts(sqlite=2, postgresql=1, mysql=1)
    assert count(store, lambda: store.delete_for_runs(runs)) == nothing.on(store)


@pytest.mark.parametrize(("length", "width", "namespaces"), [(2, 1, 1), (30, 5, 5)])
def test_prune(store: Store, length: int, width: int, namespaces: int) -> None:
    for ns in range(namespaces):
        line(store, length, width=width, ns=f"{ns or ''}")
    expected = Counts(sqlite=8, postgresql=7, mysql=7)
    assert count(store, lambda: store.prune(["t"])) == expected.on(store)
    assert store.rows() == (namespaces, namespaces * width, namespaces)
    nothing = Counts(sqlite=3, postgresql=2, mysql=2)
    assert count(store, lambda: store.prune(["t"])) == nothing.on(store)


@pytest.mark.parametrize("number", [1, 25])
def test_prune_of_a_thread_with_subgraph_calls(store: Store, number: int) -> None:
    root = line(store, 2)
    for call in range(number):
        metadata = {"parents": {"": id_of(root[call % 2])}}
        line(store, 2, ns=f"node:{call}", metadata=metadata)
    expected = Counts(sqlite=8, postgresql=7, mysql=7)
    assert count(store, lambda: store.prune(["t"])) == expected.on(store)
    assert store.count("checkpoints") == 1 + number // 2


@pytest.mark.parametrize("number", [1, 12])
def test_prune_of_a_thread_with_pending_sends(store: Store, number: int) -> None:
    for ns in range(number):
        last = line(store, 2, ns=f"{ns or ''}")[-1]
        store.put_writes(last, [(TASKS, Send("node", 1))], "task")
        store.save(parent=last, v=3)
    expected = Counts(sqlite=9, postgresql=8, mysql=8)
    assert count(store, lambda: store.prune(["t"])) == expected.on(store)
    assert store.count("checkpoints") == 2 * number


@pytest.mark.parametrize(("namespaces", "length", "width"), [(1, 2, 1), (12, 2, 1), (1, 25, 20)])
def test_prune_of_a_thread_with_delta_channels(
    store: Store, namespaces: int, length: int, width: int
) -> None:
    names = list(channels(width))
    for ns in range(namespaces):
        first = store.save(ns=f"{ns or ''}")
        snapshot = {name: _DeltaSnapshot([name]) for name in names}
        config = store.save(parent=first, values=snapshot)
        for turn in range(1, length + 1):
            counters = {name: [turn, turn] for name in names}
            versions = {name: store.saver.get_next_version(None, None) for name in names}
            config = store.save(
                parent=config,
                versions=versions,
                metadata={"counters_since_delta_snapshot": counters},
            )
    expected = Counts(sqlite=8, postgresql=7, mysql=7)
    assert count(store, lambda: store.prune(["t"])) == expected.on(store)
    assert store.rows() == (namespaces * (length + 1), namespaces * width, 0)


@pytest.mark.parametrize(("namespaces", "length"), [(1, 2), (12, 2), (1, 25)])
def test_prune_of_a_thread_with_delta_channels_that_nobody_counted(
    store: Store, namespaces: int, length: int
) -> None:
    for ns in range(namespaces):
        first = store.save(ns=f"{ns or ''}")
        config = store.save(parent=first, values={"log": _DeltaSnapshot(["log"])})
        for turn in range(1, length + 1):
            store.put_writes(config, [("log", turn)], "task")
            version = store.saver.get_next_version(None, None)
            config = store.save(parent=config, versions={"log": version})
    expected = Counts(sqlite=9, postgresql=8, mysql=8)
    assert count(store, lambda: store.prune(["t"])) == expected.on(store)
    assert store.rows() == (namespaces * (length + 1), namespaces, namespaces * length)


@pytest.mark.parametrize(("length", "width"), [(1, 1), (30, 5)])
def test_prune_that_deletes_everything(store: Store, length: int, width: int) -> None:
    line(store, length, width=width)
    expected = Counts(sqlite=6, postgresql=5, mysql=5)
    assert count(store, lambda: store.prune(["t"], strategy="delete")) == expected.on(store)
    assert store.rows() == (0, 0, 0)


@pytest.mark.parametrize(("length", "width"), [(1, 1), (15, 6)])
def test_put_that_keeps_the_latest_only(store: Store, length: int, width: int) -> None:
    shallow = store.using(store.make_saver(shallow=True))
    last = line(shallow, length, width=width)[-1]
    expected = Counts(sqlite=10, postgresql=8, mysql=9)
    put = partial(shallow.save, parent=last, values=channels(width))
    assert count(shallow, put) == expected.on(store)
    assert store.rows() == (1, width, 0)


# SQLAlchemy's cache

SQL = [import_module(f"checkpoint_sa.sql.{module.name}") for module in iter_modules(sql.__path__)]


def hot_statements() -> Iterator[tuple[str, ClauseElement]]:  # noqa: C901, PLR0912 - one case after another
    """Name every statement that the store sends."""

    def flat(name: str, found: Any) -> Iterator[tuple[str, ClauseElement]]:
        if isinstance(found, ClauseElement):
            yield name, found
        elif isinstance(found, tuple):
            for number, item in enumerate(found):
                yield from flat(f"{name}[{number}]", item)
        elif isinstance(found, dict):
            for key, item in found.items():
                yield from flat(f"{name}[{key}]", item)

    constants = ((m.__name__, *item) for m in SQL for item in vars(m).items())
    for module, name, found in constants:
        if name.isupper() and not name.startswith("_"):
            yield from flat(f"{module}.{name}", found)
    for number in range(1, writing.MAX_INSERTED + 1):
        for chained in (0, 1, number):
            made = writing.put_at_once(number, chained)
            yield f"put_at_once({number}, {chained})", made
        yield f"put_blobs_at_once({number})", writing.put_blobs_at_once(number)
        for special in (False, True):
            made = writing.put_writes_at_once(number, special=special)
            yield f"put_writes_at_once({number}, {special=})", made
    for chains, count in itertools.product((False, True), (None, 1, 2, 4, 8, reading.MAX_UNROLLED)):
        yield f"parts({count}, {chains=})", reading.parts(count, chains=chains)
    for namespace in (False, True):
        for times in (False, True):
            found = dependencies.thread_checkpoints(namespace=namespace, times=times)
            yield f"thread_checkpoints({namespace=}, {times=})", found
        yield f"blob_keys({namespace=})", deleting.blob_keys(namespace=namespace)
    for after in (False, True):
        for of in ((tables.checkpoints,), (tables.blobs,), tables.TABLES):
            yield f"thread_ids({of}, {after=})", threads.thread_ids(*of, after=after)
        found = threads.thread_ids(tables.checkpoints, after=after, of_runs=True)
        yield f"thread_ids({after=}, of_runs=True)", found
    for size in (64, 512, 4_096):
        yield f"older({size})", history.older(size)
    places = ((False, False), (True, False), (False, True))
    for filtered, (after, inside) in itertools.product((False, True), places):
        page = statistics.candidates(filtered=filtered, after=after, inside=inside)
        yield f"candidates({filtered=}, {after=}, {inside=})", page
    names = ("thread", "namespace", "checkpoint", "before", "filtered", "after")
    for lookup, flags in itertools.product(ValueLookup, itertools.product((False, True), repeat=6)):
        criteria = dict(zip(names, flags, strict=True))
        for size in (10, 100):
            found = reading.page(lookup=lookup, **criteria, size=size)
            yield f"page({lookup=}, {criteria}, {size=})", found


def test_every_hot_statement_has_a_cache_key() -> None:
    found = dict(hot_statements())
    assert len(found) > 250
    without = [name for name, made in found.items() if made._generate_cache_key() is None]  # noqa: SLF001
    assert without == []


def test_no_two_hot_statements_share_a_cache_key() -> None:
    by_key: dict[Any, dict[int, str]] = {}
    for name, made in hot_statements():
        key = made._generate_cache_key()  # noqa: SLF001
        assert key is not None
        by_key.setdefault(key.key, {})[id(made)] = name
    assert [names for names in by_key.values() if len(names) > 1] == []


def test_statements_that_vary_are_made_once() -> None:
    assert dict(hot_statements()) == dict(hot_statements())
    for (name, first), (_, second) in zip(hot_statements(), hot_statements(), strict=True):
        assert first is second, name


def test_rows_of_checkpoints_and_parts_have_one_shape() -> None:
    narrow = ["kind", "text_1", "text_2", "text_3", "number", "tag", "data"]
    wide = ["thread_id", "checkpoint_ns", "checkpoint_id", *narrow]
    names = ("GET_LATEST", "GET_ONE", "GET_PARTS", "GET_DELTAS", "GET_BLOBS", "page")
    shapes = dict.fromkeys(names, wide)
    shapes["parts"] = narrow  # PyMySQL takes 20 us for a column's description
    found: dict[str, Any] = {
        name: made for name, made in hot_statements() if re.split(r"\W", name)[0] in shapes
    }
    assert len(found) > 200
    for name, made in found.items():
        assert made.selected_columns.keys() == shapes[re.split(r"\W", name)[0]], name


def everything(store: Store, turn: int) -> None:
    """Do all that a saver does, with other numbers of rows each turn."""
    name = f"thread {turn}"
    first = store.save(name, channels(turn), metadata={"run_id": name})
    store.put_writes(first, [(f"c{i}", i) for i in range(turn)], "task")
    store.put_writes(first, [(ERROR, turn), ("x", turn)], "task", "path")
    second = store.save(parent=first, values=channels(40 * turn), ns="")
    store.put_writes(second, [("x", i) for i in range(40 * turn)], "task")
    store.save(name, {"x": [1]}, ns="node:1", metadata={"parents": {"": id_of(first)}})
    for config in (thread(name), first, thread(name, checkpoint_id="none")):
        store.get_tuple(config)
    for criteria in ({}, {"filter": {"step": turn}}, {"before": second}, {"limit": turn}):
        store.list(thread(name), **criteria)
        store.list(thread(name, ns=None), **criteria)
        store.list(None, **criteria)
    store.history(second, list(channels(turn)))
    store.copy_thread(name, f"copy of {name}")
    store.prune([name])
    store.delete_for_runs([name, *map(str, range(turn))])
    store.prune([name], strategy="delete")
    store.delete_thread(f"copy of {name}")


def test_repeated_operations_are_compiled_once(store: Store) -> None:
    missed: list[str] = []

    def watch(_: Any, __: Any, statement: str, ___: Any, context: Any, *____: Any) -> None:
        if context.compiled is not None and context.cache_hit is not CacheStats.CACHE_HIT:
            missed.append(statement)

    # With a listener all statements go through SQLAlchemy; test_cursors has the others.
    event.listen(store.root, "before_cursor_execute", watch)
    try:
        for turn in (1, 2, 3, 2):
            everything(store, turn)
        cached = len(store.engine._compiled_cache or ())  # noqa: SLF001
        missed.clear()
        for turn in (3, 1, 2):
            everything(store, turn)
    finally:
        event.remove(store.root, "before_cursor_execute", watch)
    assert missed == []
    assert len(store.engine._compiled_cache or ()) == cached  # noqa: SLF001


# The engines' plans


def fill(store: Store) -> None:
    """Insert thirty threads of a hundred checkpoints, and let the engine count them."""
    keys = [(f"thread {i}", f"{j:08}") for i in range(30) for j in range(100)]
    base = {"checkpoint_ns": "", "type": "null", "blob": b""}
    checkpoints = [
        {
            "thread_id": thread_id,
            "checkpoint_ns": "",
            "checkpoint_id": checkpoint_id,
            "checkpoint": {"v": 4, "id": checkpoint_id, "channel_versions": {"x": checkpoint_id}},
            "metadata": {"step": 1},
            "run_id": "",
        }
        for thread_id, checkpoint_id in keys
    ]
    execute(store, insert(Checkpoint), checkpoints)
    blobs = [{**base, "thread_id": t, "channel": "x", "version": c} for t, c in keys]
    execute(store, insert(CheckpointBlob), blobs)
    write = {**base, "task_id": "task", "idx": 0, "channel": "x", "task_path": ""}
    writes = [{**write, "thread_id": t, "checkpoint_id": c} for t, c in keys]
    execute(store, insert(CheckpointWrite), writes)
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        analyze = "ANALYZE TABLE" if store.kind.server in ("mariadb", "mysql") else "ANALYZE"
        store.sql(f"{analyze} {table}")


def plans(store: Store, operation: Operation) -> list[list[Any]]:
    """Return the engine's plan for each statement of an operation."""
    explain = {"": "EXPLAIN QUERY PLAN", "mysql": "EXPLAIN FORMAT=TRADITIONAL"}.get(
        store.kind.server, "EXPLAIN"
    )
    store.get_tuple(thread("nobody"))
    sent: list[tuple[str, Any]] = []

    def collect(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((f"{explain} {statement}", parameters))

    event.listen(store.root, "before_cursor_execute", collect)
    try:
        operation()
    finally:
        event.remove(store.root, "before_cursor_execute", collect)
    found = []
    for statement, parameters in sent:
        if store.async_engine is None:
            with store.engine.connect() as connection:
                rows = connection.exec_driver_sql(statement, parameters).mappings().all()
        else:

            async def in_loop(statement: str = statement, parameters: Any = parameters) -> Any:
                assert store.async_engine is not None
                async with store.async_engine.connect() as connection:
                    result = await connection.exec_driver_sql(statement, parameters)
                    return result.mappings().all()

            rows = store.run(in_loop())
        found.append(list(rows))
    return found


def of_tables(plan: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of a MySQL or MariaDB plan that read one of our tables."""
    return [row for row in plan if str(row["table"]).startswith("checkpoint")]


READS: dict[str, Callable[[Store], object]] = {
    "the latest": lambda store: store.found(thread("thread 7")),
    "one": lambda store: store.found(thread("thread 7", checkpoint_id="00000042")),
    "a page": lambda store: store.list(thread("thread 7"), limit=5),
    "a page further on": lambda store: store.list(
        thread("thread 7"), before=thread(checkpoint_id="00000042"), limit=5
    ),
}


@pytest.mark.parametrize("read", list(READS))
def test_reading_looks_everything_up_by_primary_keys(store: Store, read: str) -> None:
    fill(store)
    found = plans(store, lambda: READS[read](store))
    assert len(found) == READ.on(store)
    lines = [line for plan in found for line in plan]
    if store.kind.server in ("mariadb", "mysql"):
        used = {
            (row["table"], row["type"], row["key"]) for plan in found for row in of_tables(plan)
        }
        assert {table for table, *_ in used} == {
            *("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        }
        assert {key for *_, key in used} == {"PRIMARY"}
        assert {how for _, how, _ in used} <= {"const", "ref", "range", "eq_ref"}
        assert not any("filesort" in str(row["Extra"]) for row in of_tables(lines))
    elif store.kind.server == "postgresql":
        text = "\n".join(str(line["QUERY PLAN"]) for line in lines)
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            assert f"using {table}_pkey" in text
        assert "Seq Scan" not in text
        assert "checkpoint_id DESC" not in text  # the Sort Key of a sort
    else:
        text = "\n".join(str(line["detail"]) for line in lines)
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            assert f"USING INDEX sqlite_autoindex_{table}_1 (thread_id=?" in text
        assert not scanned(text)
        # A page may be put in order once more, the whole thread may not.
        assert text.count("TEMP B-TREE FOR ORDER BY") <= ("page" in read)


@pytest.mark.parametrize("migrated_store", ["pg-psycopg"], indirect=True)
def test_what_a_step_sends_is_short_enough_for_psycopgs_cache(store: Store) -> None:
    """Longer statements than 4,096 characters are converted at each execution: 0.1 ms."""
    values = {"messages": ["x" * 3000], "other": ["y"]}
    with store.statements() as sent:
        for saver in (store, store.using(store.make_saver(incremental=True))):
            config = saver.save("t", values)
            saver.put_writes(config, list(values.items()), "task")
            saver.found(config)
            saver.found(thread())
    assert max(map(len, sent.texts)) < 4096 - 100  # the name of a schema


def scanned(text: str) -> set[str]:
    """Name the tables that a plan of SQLite's reads from end to end."""
    names = {*re.findall(r"SCAN (\w+)", text)}
    return {name for name in names if name in ("b", "d", "w") or name.startswith("checkpoint")}


def test_the_latest_is_one_row_at_the_end_of_the_index(store: Store) -> None:
    fill(store)
    first = plans(store, lambda: store.found(thread("thread 7")))[0]
    if store.kind.server in ("mariadb", "mysql"):
        (row,) = of_tables(first)
        assert (row["key"], row["ref"]) == ("PRIMARY", "const,const")
    elif store.kind.server == "postgresql":
        text = "\n".join(str(line["QUERY PLAN"]) for line in first)
        assert "Index Scan Backward using checkpoints_pkey on checkpoints" in text
    else:
        text = "\n".join(str(line["detail"]) for line in first)
        index = "SEARCH checkpoints USING INDEX sqlite_autoindex_checkpoints_1"
        assert f"{index} (thread_id=? AND checkpoint_ns=?)" in text


def test_chains_are_looked_up_by_primary_keys(store: Store) -> None:
    changes = store.using(store.make_saver(incremental=True))
    text = "a" * 3000
    for number in range(20):
        parent = None
        for step in range(20):
            parent = changes.save(
                f"thread {number}",
                {channel: [text, step, number] for channel in "xyz"},
                parent=parent,
                checkpoint_id=f"{step + 30:08}",
            )
    if store.kind.server == "postgresql":
        # Of a small table PostgreSQL rightly reads every row.
        for table, columns, values in (
            ("checkpoint_blobs", "version, type", "'1', 'null'"),
            ("checkpoint_deltas", "chain, position, data", "'1', 0, ''"),
        ):
            store.sql(
                f"INSERT INTO {table} (thread_id, checkpoint_ns, channel, {columns})"
                f" SELECT 'other ' || n, '', 'x', {values} FROM generate_series(1, 50000) n"
            )
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_deltas"):
        analyze = "ANALYZE TABLE" if store.kind.server in ("mariadb", "mysql") else "ANALYZE"
        store.sql(f"{analyze} {table}")
    for read in READS.values():
        for plan in plans(changes, partial(read, changes)):
            if store.kind.server in ("mariadb", "mysql"):
                empty = "checkpoint_writes"
                used = [row for row in of_tables(plan) if row["table"] != empty]
                assert {row["key"] for row in used} <= {"PRIMARY"}
                assert {row["type"] for row in used} <= {"const", "ref", "range", "eq_ref"}
            elif store.kind.server == "postgresql":
                lines = "\n".join(str(line["QUERY PLAN"]) for line in plan)
                assert "Seq Scan on checkpoint_blobs" not in lines
                assert "Seq Scan on checkpoint_deltas" not in lines
            else:
                lines = "\n".join(str(line["detail"]) for line in plan)
                assert not scanned(lines)
