"""Deleting and copying: threads, runs and old checkpoints go with what is theirs, and no more."""

from __future__ import annotations

import itertools
import re
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from databases import SYNC
from langgraph.checkpoint.serde.types import ERROR, TASKS
from langgraph.types import Send
from sqlalchemy import delete, event, insert, make_url, select, update
from sqlalchemy.exc import OperationalError
from stores import KINDS, ONE_PER_PROTOCOL, Store, id_of, thread

from checkpoint_sa import (
    Checkpoint,
    CheckpointBlob,
    CheckpointWrite,
    InvalidInputError,
    SQLAlchemySaver,
    ThreadExistsError,
)
from checkpoint_sa.engine.engines import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_core.runnables import RunnableConfig
    from sqlalchemy import Executable

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

SERVERS = [name for name, kind in KINDS.items() if kind.server]
POSTGRESQL = [name for name, kind in KINDS.items() if kind.server == "postgresql"]
FILES = [name for name, kind in KINDS.items() if not kind.server]

on_servers = pytest.mark.parametrize("migrated_store", SERVERS, indirect=True)
on_postgresql = pytest.mark.parametrize("migrated_store", POSTGRESQL, indirect=True)
on_files = pytest.mark.parametrize("migrated_store", FILES, indirect=True)


# What is stored


def execute(store: Store, statement: Executable, rows: Sequence[dict[str, Any]] = ()) -> list[Any]:
    """Run a statement of the test's own in a transaction of its own."""
    if store.async_engine is None:
        with store.engine.begin() as connection:
            result = connection.execute(statement, list(rows) or None)
            return list(result) if result.returns_rows else []

    async def in_loop() -> list[Any]:
        assert store.async_engine is not None
        async with store.async_engine.begin() as connection:
            result = await connection.execute(statement, list(rows) or None)
            return list(result) if result.returns_rows else []

    return store.run(in_loop())  # type: ignore[no-any-return]


def everything(store: Store, thread_id: str | None = None) -> list[list[Any]]:
    """Return every row of the three tables, whole and in the order of their keys."""
    found = []
    for model in (Checkpoint, CheckpointBlob, CheckpointWrite):
        table = model.__table__
        statement = select(table).order_by(*table.primary_key)
        if thread_id is not None:
            statement = statement.where(table.c.thread_id == thread_id)
        found.append([tuple(row) for row in execute(store, statement)])
    return found


def stored_values(store: Store, thread_id: str = "t") -> set[tuple[str, str]]:
    """Return namespace and channel of each blob."""
    table = CheckpointBlob.__table__
    statement = select(table.c.checkpoint_ns, table.c.channel)
    return {tuple(row) for row in execute(store, statement.where(table.c.thread_id == thread_id))}


def line(
    store: Store, length: int, thread_id: str = "t", *, ns: str = "", **save: Any
) -> list[RunnableConfig]:
    """Save a line of checkpoints: each with a value of its own, the first one's, and a write."""
    configs: list[RunnableConfig] = []
    first = store.saver.get_next_version(None, None)
    for turn in range(length):
        config = store.save(
            thread_id,
            {"first": ["first"], "turn": [turn], "small": turn},
            ns=ns,
            parent=configs[-1] if configs else None,
            versions={"first": first},
            new=["first", "turn", "small"] if turn == 0 else ["turn", "small"],
            **save,
        )
        store.put_writes(config, [("note", [turn])], f"task {turn}")
        configs.append(config)
    return configs


def values(turn: int) -> dict[str, Any]:
    """Return the values of a checkpoint in a `line`."""
    return {"first": ["first"], "turn": [turn], "small": turn}


def listed(store: Store, thread_id: str = "t", ns: str | None = None) -> list[str]:
    """Return the ids of what is left, newest first."""
    return [id_of(found.config) for found in store.list(thread(thread_id, ns=ns))]


@contextmanager
def at_statement(
    store: Store, number: int, action: Callable[[], object], beginning: str = ""
) -> Iterator[list[int]]:
    """Do something before a statement of the store is sent; collect the numbers of those sent."""
    sent: list[int] = []

    def before(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith(beginning):
            sent.append(len(sent))
            if sent[-1] == number:
                action()

    event.listen(store.root, "before_cursor_execute", before)
    try:
        yield sent
    finally:
        event.remove(store.root, "before_cursor_execute", before)


def fail() -> None:
    raise ZeroDivisionError


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "delete_thread": lambda store: store.delete_thread("t"),
    "delete_for_runs": lambda store: store.delete_for_runs(["run"]),
    "copy_thread": lambda store: store.copy_thread("t", "copy"),
    "prune": lambda store: store.prune(["t"]),
    "prune delete": lambda store: store.prune(["t"], strategy="delete"),
}


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_an_operation_that_fails_half_way_changes_nothing(store: Store, operation: str) -> None:
    configs = line(store, 3, metadata={"run_id": "run"})
    store.save(parent=configs[-1], values={"other": [1]}, metadata={"run_id": "another"})
    before = everything(store)
    change = "INSERT" if operation == "copy_thread" else "DELETE"
    for number in range(3):
        with (
            at_statement(store, number, fail, change) as sent,
            pytest.raises(ZeroDivisionError),
        ):
            OPERATIONS[operation](store)
        assert sent == list(range(number + 1))
        assert everything(store) == before


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_an_operation_on_what_is_not_there_changes_nothing(store: Store, operation: str) -> None:
    line(store, 2, "another", metadata={"run_id": "another"})
    before = everything(store)
    OPERATIONS[operation](store)
    assert everything(store) == before


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_an_operation_leaves_other_threads_alone(store: Store, operation: str) -> None:
    for thread_id in ("T", "t ", "tt", "é", "e"):
        line(store, 2, thread_id, metadata={"run_id": "another"})
        line(store, 2, thread_id, ns="child", metadata={"run_id": "RUN"})
    before = {other: everything(store, other) for other in ("T", "t ", "tt", "é", "e")}
    line(store, 3, metadata={"run_id": "run"})
    OPERATIONS[operation](store)
    assert {other: everything(store, other) for other in before} == before


# delete_thread


def test_delete_thread_deletes_every_namespace_of_it(store: Store) -> None:
    for ns in ("", "child", "node:1", "node:1|inner:2"):
        line(store, 2, ns=ns)
    assert store.rows() == (8, 12, 8)
    store.delete_thread("t")
    assert store.rows() == (0, 0, 0)
    assert store.get_tuple(thread()) is None
    assert store.list(thread(ns=None)) == []


def test_delete_thread_takes_an_id_that_is_no_text(store: Store) -> None:
    store.save("7")
    store.delete_thread(7)  # type: ignore[arg-type]
    assert store.rows() == (0, 0, 0)


def test_a_late_write_does_not_bring_a_deleted_thread_back(store: Store) -> None:
    """LG#7206: a run that goes on after its thread was deleted."""
    config = store.save("t", {"x": [1]})
    store.delete_thread("t")
    store.put_writes(config, [("x", 2), (ERROR, "late")], "task")
    assert store.get_tuple(config) is None
    assert store.get_tuple(thread()) is None
    assert store.list(thread(ns=None)) == []
    store.delete_thread("t")
    assert store.rows() == (0, 0, 0)


def test_a_thread_can_begin_again_after_it_was_deleted(store: Store) -> None:
    line(store, 2)
    store.delete_thread("t")
    config = store.save("t", {"x": [1]})
    found = store.found(thread())
    assert found.config == config
    assert found.checkpoint["channel_values"] == {"x": [1]}
    assert store.rows() == (1, 1, 0)


# delete_for_runs


def test_delete_for_runs_goes_across_threads_and_namespaces(store: Store) -> None:
    doomed = [
        config
        for thread_id, ns in itertools.product(("t", "u"), ("", "child", "node:1"))
        for config in line(store, 2, thread_id, ns=ns, metadata={"run_id": "run"})
    ]
    kept = line(store, 2, "t", ns="other", metadata={"run_id": "another"})
    before = everything(store)
    store.delete_for_runs(["run"])
    assert [store.get_tuple(config) for config in doomed] == [None] * 12
    assert [store.found(config).checkpoint["channel_values"] for config in kept] == [
        values(0),
        values(1),
    ]
    assert store.rows() == (2, 3, 2)
    remaining = [[row for row in table if row[:2] == ("t", "other")] for table in before]
    assert everything(store) == remaining


def test_delete_for_runs_takes_several_runs(store: Store) -> None:
    for run in ("one", "two", "three"):
        store.save(run, {"x": [run]}, metadata={"run_id": run})
    store.delete_for_runs(["one", "three", "one", "unknown"])
    assert [found.metadata["run_id"] for found in store.list(None)] == ["two"]
    assert store.rows() == (1, 1, 0)


def test_delete_for_runs_keeps_values_that_another_run_uses(store: Store) -> None:
    version = store.saver.get_next_version(None, None)
    first = store.save(values={"shared": ["s"], "own": ["o"]}, versions={"shared": version})
    second = store.save(
        parent=first,
        values={"shared": ["s"], "mine": ["m"]},
        versions={"shared": version},
        new=["mine"],
        metadata={"run_id": "run"},
    )
    third = store.save(
        parent=second, values={"shared": ["s"]}, versions={"shared": version}, new=()
    )
    assert stored_values(store) == {("", "shared"), ("", "own"), ("", "mine")}
    store.delete_for_runs(["run"])
    assert stored_values(store) == {("", "shared"), ("", "own")}
    assert store.found(third).checkpoint["channel_values"] == {"shared": ["s"]}
    assert store.found(first).checkpoint["channel_values"] == {"shared": ["s"], "own": ["o"]}


def test_delete_for_runs_keeps_values_that_were_stored_by_the_deleted_run(store: Store) -> None:
    first = store.save(values={"shared": ["s"]}, metadata={"run_id": "run"})
    versions = store.found(first).checkpoint["channel_versions"]
    second = store.save(parent=first, values={"shared": ["s"]}, versions=versions, new=())
    store.delete_for_runs(["run"])
    assert store.found(second).checkpoint["channel_values"] == {"shared": ["s"]}
    assert store.rows() == (1, 1, 0)


def test_delete_for_runs_frees_values_that_only_deleted_runs_share(store: Store) -> None:
    first = store.save(values={"shared": ["s"]}, metadata={"run_id": "one"})
    versions = store.found(first).checkpoint["channel_versions"]
    store.save(
        parent=first,
        values={"shared": ["s"]},
        versions=versions,
        new=(),
        metadata={"run_id": "two"},
    )
    store.delete_for_runs(["one", "two"])
    assert store.rows() == (0, 0, 0)


def test_delete_for_runs_tells_namespaces_and_threads_with_equal_versions_apart(
    store: Store,
) -> None:
    for thread_id, ns, run in (("t", "", "run"), ("t", "child", "another"), ("u", "", "another")):
        store.save(
            thread_id,
            {"x": [thread_id, ns]},
            ns=ns,
            versions={"x": "1"},
            checkpoint_id="same",
            metadata={"run_id": run},
        )
    store.delete_for_runs(["run"])
    assert store.rows() == (2, 2, 0)
    found = [
        store.found(thread(*key)).checkpoint["channel_values"]
        for key in (("t", "child"), ("u", ""))
    ]
    assert found == [{"x": ["t", "child"]}, {"x": ["u", ""]}]


def test_delete_for_runs_leaves_children_without_a_parent(store: Store) -> None:
    first, second, third, fourth = line(store, 4)
    for config in (second,):
        execute(
            store,
            update(Checkpoint)
            .where(Checkpoint.checkpoint_id == id_of(config))
            .values(run_id="run"),
        )
    store.delete_for_runs(["run"])
    parents = [store.found(config).parent_config for config in (first, third, fourth)]
    assert parents == [None, None, third]
    assert store.found(third).checkpoint["channel_values"] == values(2)


RUNS = [
    "run",
    "Run",
    "rún",
    "run ",
    " run",
    "run\n",
    "run\0",
    "run\ud800",
    "😀",
    "r'u\"n",
    "r%n",
    "r_n",
    "sha256:x",
    "0",
    "r" * 255,
    "r" * 256,
    "r" * 5_000,
    "é" * 127,
    "é" * 128,
]


def test_delete_for_runs_goes_by_the_exact_run(store: Store) -> None:
    for run in RUNS:
        store.save("t", metadata={"run_id": run})
    for number, run in enumerate(RUNS, start=1):
        store.delete_for_runs([run])
        left = [found.metadata["run_id"] for found in reversed(store.list(thread()))]
        assert left == RUNS[number:]


@pytest.mark.parametrize("run", [7, 1.5, True])
def test_delete_for_runs_finds_a_run_that_is_no_text_by_its_text(store: Store, run: Any) -> None:
    store.save("t", metadata={"run_id": run})
    store.save("u", metadata={"run_id": "70"})
    store.delete_for_runs([str(run)])
    assert [found.metadata["run_id"] for found in store.list(None)] == ["70"]


def test_delete_for_runs_finds_a_run_that_the_config_names(store: Store) -> None:
    config = {**thread(), "metadata": {"run_id": "run"}}
    checkpoint = store.found(store.save("u")).checkpoint
    store.put(config, checkpoint, {"source": "loop"}, {})  # type: ignore[arg-type]
    assert store.found(thread()).metadata["run_id"] == "run"
    store.delete_for_runs(["run"])
    assert store.get_tuple(thread()) is None
    assert store.rows() == (1, 0, 0)


def test_delete_for_runs_leaves_checkpoints_without_a_run(store: Store) -> None:
    for run in (None, "run"):
        store.save(str(run), metadata={} if run is None else {"run_id": run})
    store.save("null", metadata={"run_id": None})
    store.delete_for_runs(["", "None", "null"])
    assert len(store.list(None)) == 3


def test_delete_for_runs_goes_by_the_metadata_that_was_stored_last(store: Store) -> None:
    config = store.save("t", metadata={"run_id": "one"}, checkpoint_id="same")
    store.save("t", metadata={"run_id": "two"}, checkpoint_id="same")
    store.delete_for_runs(["one"])
    assert store.found(config).metadata["run_id"] == "two"
    store.delete_for_runs(["two"])
    assert store.get_tuple(config) is None


@pytest.mark.parametrize("migrated_store", SYNC[1:], indirect=True)
@pytest.mark.parametrize("other", ["prune", "delete_for_runs"])
def test_deleting_a_run_beside_another_deletion_is_no_deadlock(store: Store, other: str) -> None:
    saver: Any = store.make_saver()
    start = threading.Barrier(2)

    def delete_(how: str, threads_or_runs: list[str]) -> None:
        start.wait()
        getattr(saver, how)(threads_or_runs)

    with ThreadPoolExecutor(2) as pool:
        for race in range(12):
            bulk(store, f"t{race}", 250)
            beside = [f"t{race}"] if other == "prune" else ["run 0"]
            running = [
                pool.submit(delete_, "delete_for_runs", ["run 0"]),
                pool.submit(delete_, other, beside),
            ]
            for each in running:
                each.result()
            assert store.rows() == (0, 0, 0)
    assert saver.metrics.retries == 0


DELETIONS: dict[str, Callable[[Store], object]] = {
    "prune": lambda store: store.prune(["t"]),
    "prune by rule": lambda store: store.prune(keep=2),
    "prune an idle thread": lambda store: store.prune(idle_for=timedelta(0)),
    "delete_for_runs": lambda store: store.delete_for_runs(["run"]),
    "delete_where": lambda store: store.delete_where({"run_id": "run"}, whole_threads=False),
    "vacuum_orphans": lambda store: store.vacuum_orphans(timedelta(0)),
    "a shallow put": lambda store: store.using(store.make_saver(shallow=True)).save(
        parent=thread("t", checkpoint_id=listed(store)[0]), values={"x": [1]}
    ),
}

LOCK_ORDER = (
    "DELETE FROM checkpoints",
    "DELETE FROM checkpoint_writes",
    "UPDATE checkpoints",
    "DELETE FROM checkpoint_blobs",
    "DELETE FROM checkpoint_deltas",
)


@pytest.mark.parametrize("deletion", list(DELETIONS))
def test_every_deletion_locks_rows_in_one_order(store: Store, deletion: str) -> None:
    changes = store.using(store.make_saver(incremental=True))
    texts = ["a" * 3_000]
    config = None
    for turn in range(6):
        texts.append(str(turn))
        run = {"run_id": "run" if turn > 3 else "another"}
        config = changes.save(values={"log": texts}, parent=config, metadata=run)
        changes.put_writes(config, [("note", turn)], "task")
    changes.save(values={"x": [1]}, parent=config)
    late = thread("t", checkpoint_id="1f000000-0000-6000-8000-000000000000")
    changes.put_writes(late, [("note", "late")], "task")
    orphan = {"thread_id": "t", "checkpoint_ns": "", "channel": "x", "version": "9"}
    execute(store, insert(CheckpointBlob), [{**orphan, "type": "bytes", "blob": b"123"}])
    with store.statements() as sent:
        DELETIONS[deletion](store)
    found = [
        number
        for text in sent.texts
        for number, beginning in enumerate(LOCK_ORDER)
        if re.match(rf"{beginning}\b", text.replace("`", ""))
    ]
    assert len(set(found)) > 1
    assert found == sorted(found)


@on_files
@pytest.mark.parametrize("wrong", ["run", b"run"])
def test_delete_for_runs_refuses_a_single_id(store: Store, wrong: Any) -> None:
    store.save("t", metadata={"run_id": "r"})
    before = everything(store)
    with store.statements() as statements:
        with pytest.raises(InvalidInputError, match="Pass a list of ids"):
            store.delete_for_runs(wrong)
        assert len(statements) == 0
    assert everything(store) == before


@on_files
def test_no_runs_are_no_statements(store: Store) -> None:
    with store.statements() as statements:
        store.delete_for_runs([])
        assert len(statements) == 0


def test_many_thousands_of_runs_go_at_once(store: Store) -> None:
    for run in range(3):
        store.save("t", {"x": [run]}, metadata={"run_id": str(run * 12_000)})
    store.delete_for_runs([str(run) for run in range(24_000)])
    assert [found.metadata["run_id"] for found in store.list(thread())] == ["24000"]
    assert store.rows() == (1, 1, 0)


@on_postgresql
def test_delete_for_runs_finds_rows_of_langgraphs_own_saver(store: Store) -> None:
    for run in ("run", "another", None):
        store.save(str(run), {"x": [run]}, metadata={} if run is None else {"run_id": run})
    execute(store, update(Checkpoint).values(run_id=None))
    store.delete_for_runs(["run"])
    assert sorted(found.config["configurable"]["thread_id"] for found in store.list(None)) == [
        "None",
        "another",
    ]


def bulk(store: Store, thread_id: str, length: int, *, ns: str = "", runs: int = 1) -> list[str]:
    """Insert a line of checkpoints, each with a value and a write, and return their ids."""
    ids = [f"{number:08}" for number in range(length)]
    execute(
        store,
        insert(Checkpoint),
        [
            {
                "thread_id": thread_id,
                "checkpoint_ns": ns,
                "checkpoint_id": checkpoint_id,
                "parent_checkpoint_id": ids[number - 1] if number else None,
                "checkpoint": {
                    "v": 4,
                    "id": checkpoint_id,
                    "ts": "2026-01-01T00:00:00+00:00",
                    "channel_values": {},
                    "channel_versions": {"x": checkpoint_id},
                    "versions_seen": {},
                    "updated_channels": None,
                },
                "metadata": {"run_id": f"run {number % runs}"},
                "run_id": f"run {number % runs}",
            }
            for number, checkpoint_id in enumerate(ids)
        ],
    )
    keys = {"thread_id": thread_id, "checkpoint_ns": ns, "type": "null", "blob": b""}
    execute(store, insert(CheckpointBlob), [{**keys, "channel": "x", "version": i} for i in ids])
    task = {"task_id": "task", "idx": 0, "channel": "x", "task_path": ""}
    execute(store, insert(CheckpointWrite), [{**keys, **task, "checkpoint_id": i} for i in ids])
    return ids


def test_a_run_of_thousands_of_checkpoints_is_deleted(store: Store) -> None:
    ids = bulk(store, "t", 2_100, runs=2)
    store.delete_for_runs(["run 1"])
    assert store.rows() == (1_050, 1_050, 1_050)
    assert listed(store)[:2] == [ids[-2], ids[-4]]
    assert {found.parent_config for found in store.list(thread(), limit=5)} == {None}


def plan(store: Store, number: int, operation: Callable[[], object]) -> str:
    """Return the engine's plan for a statement of an operation."""
    store.get_tuple(thread("nobody"))  # the first use checks the schema
    sent: list[tuple[str, Any]] = []

    def collect(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((statement, parameters))

    event.listen(store.root, "before_cursor_execute", collect)
    try:
        operation()
    finally:
        event.remove(store.root, "before_cursor_execute", collect)
    statement, parameters = sent[number]
    explain = {"": "EXPLAIN QUERY PLAN", "mysql": "EXPLAIN FORMAT=TRADITIONAL"}
    explained = f"{explain.get(store.kind.server, 'EXPLAIN')} {statement}"
    if store.async_engine is None:
        with store.engine.connect() as connection:
            rows = connection.exec_driver_sql(explained, parameters).mappings().all()
    else:

        async def in_loop() -> Any:
            assert store.async_engine is not None
            async with store.async_engine.connect() as connection:
                return (await connection.exec_driver_sql(explained, parameters)).mappings().all()

        rows = store.run(in_loop())
    return "\n".join(str(dict(row)) for row in rows)


@pytest.mark.parametrize("count", [1, 10])
def test_delete_for_runs_looks_runs_up_in_their_index(store: Store, count: int) -> None:
    bulk(store, "t", 3_000, runs=1_000)
    analyze = {"": "ANALYZE", "postgresql": "ANALYZE checkpoints"}
    store.sql(analyze.get(store.kind.server, "ANALYZE TABLE checkpoints"))
    runs = [f"unknown {number}" for number in range(count)]
    shown = plan(store, 0, lambda: store.delete_for_runs(runs))
    assert "ix_checkpoints_run_id" in shown
    scans = {
        "": "SCAN checkpoints",
        "postgresql": "Seq Scan",
        "mariadb": "'type': 'ALL'",
        "mysql": "'type': 'ALL'",
    }
    assert scans[store.kind.server] not in shown


# copy_thread


def test_copy_thread_copies_every_row_exactly(store: Store) -> None:
    for ns in ("", "child", "node:1", "node:1|inner:2"):
        line(store, 2, ns=ns, metadata={"run_id": "run", "exact": (2**70, "\0", {"k": None})})
    store.put_writes(thread(checkpoint_id="none"), [(ERROR, "early")], "task", "path")
    before = everything(store)
    store.copy_thread("t", "copy")
    assert everything(store, "t") == before
    copied = [[("t", *row[1:]) for row in table] for table in everything(store, "copy")]
    assert copied == before


def test_a_copy_reads_as_its_source(store: Store) -> None:
    line(store, 2, metadata={"exact": [-0.0, 2**70]})
    line(store, 2, ns="child")
    store.copy_thread("t", "copy")

    def shown(thread_id: str) -> list[Any]:
        return [
            (
                found.config["configurable"]["checkpoint_ns"],
                found.checkpoint,
                found.metadata,
                found.pending_writes,
                found.parent_config and id_of(found.parent_config),
            )
            for found in store.list(thread(thread_id, ns=None))
        ]

    assert shown("copy") == shown("t")
    assert len(shown("copy")) == 4
    for found in store.list(thread("copy", ns=None)):
        for config in (found.config, found.parent_config):
            assert config is None or config["configurable"]["thread_id"] == "copy"


def test_a_copy_has_a_future_of_its_own(store: Store) -> None:
    last = line(store, 2)[-1]
    store.copy_thread("t", "copy")
    source = everything(store, "t")
    head = store.found(thread("copy")).config
    store.put_writes(head, [("note", "copy's")], "task of the copy")
    after = store.save(parent=head, values={"turn": ["copy's"]})
    assert everything(store, "t") == source
    store.delete_thread("t")
    assert store.get_tuple(last) is None
    assert store.found(thread("copy")).config == after
    assert store.found(head).checkpoint["channel_values"] == values(1)


def test_a_copy_is_in_its_runs(store: Store) -> None:
    line(store, 2, metadata={"run_id": "run"})
    store.copy_thread("t", "copy")
    store.delete_for_runs(["run"])
    assert store.rows() == (0, 0, 0)


def test_copy_thread_refuses_a_target_that_is_in_use(store: Store) -> None:
    line(store, 2)
    line(store, 1, "used")
    before = everything(store)
    with pytest.raises(ThreadExistsError, match="'used' already has checkpoints, so 't' was not"):
        store.copy_thread("t", "used")
    assert everything(store) == before


def test_copy_thread_refuses_a_target_that_has_only_a_namespace_or_writes(store: Store) -> None:
    line(store, 2)
    store.save("child only", ns="child")
    store.put_writes(thread("writes only", checkpoint_id="x"), [("x", 1)], "task")
    before = everything(store)
    for target in ("child only", "writes only"):
        with pytest.raises(ThreadExistsError):
            store.copy_thread("t", target)
    assert everything(store) == before


def test_copying_a_thread_to_itself_is_refused(store: Store) -> None:
    line(store, 2)
    before = everything(store)
    with pytest.raises(ThreadExistsError):
        store.copy_thread("t", "t")
    assert everything(store) == before


def test_copy_thread_tells_targets_apart_exactly(store: Store) -> None:
    line(store, 1)
    for target in ("T", "t ", "ţ"):
        store.copy_thread("t", target)
    assert store.rows() == (4, 8, 4)


def test_copying_an_unknown_thread_leaves_the_target_free(store: Store) -> None:
    store.copy_thread("unknown", "target")
    assert store.rows() == (0, 0, 0)
    store.save("t")
    store.copy_thread("t", "target")
    assert store.rows() == (2, 0, 0)


def test_copy_thread_takes_ids_that_are_no_text(store: Store) -> None:
    store.save("7", {"x": [1]})
    store.copy_thread(7, 8)  # type: ignore[arg-type]
    assert store.found(thread("8")).checkpoint["channel_values"] == {"x": [1]}


@on_files
def test_copy_thread_refuses_an_over_long_target(store: Store) -> None:
    store.save("t")
    with store.statements() as statements, pytest.raises(InvalidInputError, match="513 bytes"):
        store.copy_thread("t", "t" * 513)
    assert len(statements) == 0


def test_a_thread_of_thousands_of_checkpoints_is_copied(store: Store) -> None:
    ids = bulk(store, "t", 1_050)
    store.copy_thread("t", "copy")
    assert store.rows() == (2_100, 2_100, 2_100)
    assert id_of(store.found(thread("copy")).config) == ids[-1]


# prune


def test_keep_latest_keeps_the_latest_with_its_values_and_writes(store: Store) -> None:
    configs = line(store, 5)
    assert store.rows() == (5, 6, 5)
    before = store.found(configs[-1])
    store.prune(["t"])
    assert store.rows() == (1, 2, 1)
    assert store.found(thread()) == before._replace(parent_config=None)
    assert before.checkpoint["channel_values"] == values(4)
    assert before.pending_writes == [("task 4", "note", [4])]
    assert [store.get_tuple(config) for config in configs[:-1]] == [None] * 4


def test_keep_latest_is_the_default(store: Store) -> None:
    line(store, 2)
    line(store, 2, "u")
    store.prune(["t"])
    store.prune(["u"], strategy="keep_latest")
    assert [len(listed(store, thread_id)) for thread_id in ("t", "u")] == [1, 1]


def test_keep_latest_of_a_single_checkpoint_changes_nothing(store: Store) -> None:
    line(store, 1)
    before = everything(store)
    store.prune(["t"])
    assert everything(store) == before


def test_keep_latest_again_changes_nothing(store: Store) -> None:
    root = line(store, 3)
    for caller in root[1:]:
        line(store, 2, ns=f"node:{id_of(caller)}", metadata={"parents": {"": id_of(caller)}})
    line(store, 3, ns="child")
    store.prune(["t"])
    before = everything(store)
    assert len(before[0]) == 3
    store.prune(["t"])
    assert everything(store) == before


def test_keep_latest_goes_by_the_id_and_not_by_the_time_of_storing(store: Store) -> None:
    store.save("t", {"x": ["newest"]}, checkpoint_id="c")
    store.save("t", {"x": ["oldest"]}, checkpoint_id="a")
    store.save("t", {"x": ["middle"]}, checkpoint_id="b")
    store.prune(["t"])
    assert listed(store) == ["c"]
    assert store.found(thread()).checkpoint["channel_values"] == {"x": ["newest"]}
    assert store.rows() == (1, 1, 0)


def test_keep_latest_deletes_other_branches(store: Store) -> None:
    base = line(store, 2)[0]
    fork = store.save(parent=base, values={"turn": ["fork"]})
    store.put_writes(fork, [("note", "fork")], "task")
    store.prune(["t"])
    assert listed(store) == [id_of(fork)]
    assert store.found(thread()).checkpoint["channel_values"] == {"turn": ["fork"]}
    assert store.rows() == (1, 1, 1)


def test_keep_latest_keeps_the_latest_of_each_namespace(store: Store) -> None:
    namespaces = ("", "child", "Child", "child ", "other|child")
    latest = {ns: line(store, 3, ns=ns)[-1] for ns in namespaces}
    store.prune(["t"])
    assert store.rows() == (5, 10, 5)
    for ns, config in latest.items():
        assert listed(store, ns=ns) == [id_of(config)]
        assert store.found(config).checkpoint["channel_values"] == values(2)


def test_keep_latest_tells_equal_versions_of_two_namespaces_apart(store: Store) -> None:
    for ns, versions in (("", ("1", "2")), ("child", ("2", "1"))):
        for number, version in enumerate(versions):
            store.save(
                "t", {"x": [ns, version]}, ns=ns, versions={"x": version}, checkpoint_id=f"{number}"
            )
    store.prune(["t"])
    assert store.rows() == (2, 2, 0)
    for ns, version in (("", "2"), ("child", "1")):
        assert store.found(thread(ns=ns)).checkpoint["channel_values"] == {"x": [ns, version]}


@pytest.mark.parametrize("versions", [(1, 2), (1.0, 2.0), ("1", "2")])
def test_keep_latest_keeps_values_whatever_their_versions_are(
    store: Store, versions: tuple[Any, Any]
) -> None:
    first = store.save("t", {"x": [1], "y": [1]}, versions={"x": versions[0], "y": versions[0]})
    store.save(
        parent=first,
        values={"x": [2], "y": [1]},
        versions={"x": versions[1], "y": versions[0]},
        new=["x"],
    )
    store.prune(["t"])
    assert store.found(thread()).checkpoint["channel_values"] == {"x": [2], "y": [1]}
    assert store.rows() == (1, 2, 0)


def test_keep_latest_frees_values_that_a_later_put_of_the_same_id_replaced(store: Store) -> None:
    first = store.save("t", {"x": [1]})
    second = store.save(parent=first, values={"x": [2]}, checkpoint_id="z")
    store.save(parent=first, values={"x": [3]}, checkpoint_id="z")
    store.prune(["t"])
    assert store.found(second).checkpoint["channel_values"] == {"x": [3]}
    assert store.rows() == (1, 1, 0)


def call(store: Store, ns: str, caller: RunnableConfig, turns: int = 2) -> list[RunnableConfig]:
    """Save what a subgraph stores that was called from a root checkpoint."""
    return line(store, turns, ns=ns, metadata={"parents": {"": id_of(caller)}})


def test_a_subgraph_call_goes_with_the_root_checkpoint_that_made_it(store: Store) -> None:
    root = line(store, 3)
    call(store, "node:1", root[0])
    call(store, "node:2", root[1])
    latest = call(store, "node:3", root[2])[-1]
    store.prune(["t"])
    assert sorted(listed(store)) == sorted([id_of(latest), id_of(root[2])])
    assert store.rows() == (2, 4, 2)
    assert store.found(latest).checkpoint["channel_values"] == values(1)


def test_a_call_inside_a_call_goes_with_the_root_checkpoint(store: Store) -> None:
    root = line(store, 2)
    for number, caller in enumerate(root):
        call(store, f"node:{number}", caller)
        call(store, f"node:{number}|inner:{number}", caller)
        call(store, f"mine|inner:{number}", caller)
    call(store, "node:0|inner:1", root[1])
    store.prune(["t"])
    left = {found.config["configurable"]["checkpoint_ns"] for found in store.list(thread(ns=None))}
    assert left == {"", "node:1", "node:1|inner:1", "mine|inner:1", "node:0|inner:1"}
    assert store.rows() == (5, 10, 5)


def test_a_subgraph_with_a_memory_of_its_own_keeps_its_latest(store: Store) -> None:
    """checkpointer=True: its namespace has no task id, its state outlives each call."""
    root = line(store, 3)
    for caller in root[:2]:
        latest = line(store, 2, ns="child", metadata={"parents": {"": id_of(caller)}})[-1]
    store.prune(["t"])
    assert listed(store, ns="child") == [id_of(latest)]
    assert store.rows() == (2, 4, 2)


def test_the_last_checkpoint_of_a_call_says_who_called(store: Store) -> None:
    root = line(store, 2)
    first = call(store, "node:1", root[0])[-1]
    last = store.save(parent=first, values={"x": [1]}, metadata={"parents": {"": id_of(root[1])}})
    store.prune(["t"])
    assert listed(store, ns="node:1") == [id_of(last)]


@pytest.mark.parametrize("parents", [{}, {"": "not stored yet"}, {"": None}, None])
def test_a_call_whose_caller_is_not_there_keeps_its_latest(store: Store, parents: Any) -> None:
    line(store, 2)
    latest = line(store, 2, ns="node:1", metadata={"parents": parents})[-1]
    store.prune(["t"])
    assert listed(store, ns="node:1") == [id_of(latest)]
    assert store.rows() == (2, 4, 2)


def test_calls_of_a_thread_without_root_checkpoints_keep_their_latest(store: Store) -> None:
    for number in range(2):
        line(store, 2, ns=f"node:{number}", metadata={"parents": {"": "gone"}})
    store.prune(["t"])
    assert store.rows() == (2, 4, 2)


def test_a_namespace_that_begins_like_a_call_is_another_one(store: Store) -> None:
    root = line(store, 2)
    call(store, "node:1", root[0])
    kept = call(store, "Node:1", root[1])[-1]
    store.prune(["t"])
    assert listed(store, ns="Node:1") == [id_of(kept)]
    assert listed(store, ns="node:1") == []


def test_pending_sends_before_version_4_keep_their_parent(store: Store) -> None:
    first, second = line(store, 2)
    store.put_writes(second, [(TASKS, Send("node", 1)), (TASKS, Send("node", 2))], "sender")
    latest = store.save(parent=second, values={"turn": [2]}, v=3)
    before = store.found(latest)
    assert before.checkpoint["channel_values"][TASKS] == [Send("node", 1), Send("node", 2)]
    store.prune(["t"])
    assert store.found(latest) == before
    assert listed(store) == [id_of(latest), id_of(second)]
    assert store.found(second).parent_config is None
    assert store.get_tuple(first) is None
    assert store.rows() == (2, 3, 3)
    again = everything(store)
    store.prune(["t"])
    assert everything(store) == again


def test_a_parent_without_pending_sends_goes(store: Store) -> None:
    first = line(store, 1)[0]
    store.put_writes(first, [("note", 1)], "no sender")
    latest = store.save(parent=first, values={"turn": [2]}, v=3)
    store.prune(["t"])
    assert listed(store) == [id_of(latest)]
    assert store.found(latest).parent_config is None
    assert store.rows() == (1, 1, 0)


def test_from_version_4_on_pending_sends_need_no_parent(store: Store) -> None:
    first = line(store, 1)[0]
    store.put_writes(first, [(TASKS, Send("node", 1))], "sender")
    latest = store.save(parent=first, values={TASKS: [Send("node", 1)]}, v=4)
    store.prune(["t"])
    assert listed(store) == [id_of(latest)]
    assert store.found(latest).checkpoint["channel_values"] == {TASKS: [Send("node", 1)]}


def test_a_checkpoint_that_names_no_version_is_pruned_like_an_old_one(store: Store) -> None:
    first, second = line(store, 2)
    store.put_writes(first, [(TASKS, Send("node", 1))], "sender")
    checkpoint = store.found(second).checkpoint
    del checkpoint["v"]  # type: ignore[misc]
    store.put(first, checkpoint, {}, {})
    store.prune(["t"])
    assert store.found(second).checkpoint["channel_values"][TASKS] == [Send("node", 1)]
    assert listed(store) == [id_of(second), id_of(first)]


def test_a_thread_whose_latest_has_no_parent_any_more_is_pruned(store: Store) -> None:
    """Its parent went by another way, as the one before may have at delete_for_runs."""
    first, second, third = line(store, 3)
    execute(store, delete(Checkpoint).where(Checkpoint.checkpoint_id == id_of(second)))
    store.prune(["t"])
    assert listed(store) == [id_of(third)]
    assert store.get_tuple(first) is None
    assert store.found(third).checkpoint["channel_values"] == values(2)


def test_thousands_of_checkpoints_are_pruned(store: Store) -> None:
    ids = bulk(store, "t", 1_050)
    bulk(store, "t", 3, ns="child")
    store.prune(["t"])
    assert store.rows() == (2, 2, 2)
    assert listed(store, ns="") == [ids[-1]]


def test_more_than_a_thousand_subgraph_calls_are_pruned(store: Store) -> None:
    root = line(store, 2)
    row = dict(execute(store, select(Checkpoint.__table__)).pop()._mapping)  # noqa: SLF001
    row["metadata"] = {"parents": {"": id_of(root[0])}}
    calls = [{**row, "checkpoint_ns": f"node:{number}"} for number in range(1_050)]
    execute(store, insert(Checkpoint), calls)
    store.prune(["t"])
    assert store.rows() == (1, 2, 1)


def test_prune_takes_several_threads_each_once(store: Store) -> None:
    for thread_id in ("t", "u", "7", "other"):
        line(store, 3, thread_id)
    store.prune(["t", "u", "t", 7, "unknown"])  # type: ignore[list-item]
    left = {thread_id: len(listed(store, thread_id)) for thread_id in ("t", "u", "7", "other")}
    assert left == {"t": 1, "u": 1, "7": 1, "other": 3}
    assert store.rows() == (6, 10, 6)


def test_threads_before_one_that_fails_stay_pruned(store: Store) -> None:
    for thread_id in ("t", "u"):
        line(store, 3, thread_id)
    with at_statement(store, 4, fail, "DELETE"), pytest.raises(ZeroDivisionError):
        store.prune(["t", "u"])
    assert [len(listed(store, thread_id)) for thread_id in ("t", "u")] == [1, 3]
    assert store.rows() == (4, 6, 4)


@pytest.mark.parametrize("strategy", ["delete", "delete_all"])  # the latter is the server's
def test_strategy_delete_deletes_all_of_some_threads(store: Store, strategy: str) -> None:
    for thread_id in ("t", "u", "v"):
        for ns in ("", "child", "node:1"):
            line(store, 2, thread_id, ns=ns)
    before = everything(store, "v")
    store.prune(["t", "u"], strategy=strategy)
    assert everything(store) == before


@on_files
@pytest.mark.parametrize("strategy", ["keep_all", "", "Delete", "keep_latest "])
def test_an_unknown_strategy_is_refused(store: Store, strategy: str) -> None:
    line(store, 2)
    before = everything(store)
    with store.statements() as statements:
        with pytest.raises(InvalidInputError, match="there are 'keep_latest', 'delete'"):
            store.prune(["t"], strategy=strategy)
        assert len(statements) == 0
    assert everything(store) == before


@on_files
@pytest.mark.parametrize("strategy", ["keep_latest", "delete"])
@pytest.mark.parametrize("wrong", ["t", b"t"])
def test_prune_refuses_a_single_id(store: Store, wrong: Any, strategy: str) -> None:
    line(store, 2)
    before = everything(store)
    with store.statements() as statements:
        with pytest.raises(InvalidInputError, match="Pass a list of ids"):
            store.prune(wrong, strategy=strategy)
        assert len(statements) == 0
    assert everything(store) == before


@on_files
def test_no_threads_are_no_statements(store: Store) -> None:
    with store.statements() as statements:
        store.prune([])
        assert len(statements) == 0


# Beside a graph that runs


def beside(store: Store, **options: Any) -> Store:
    """Return the same database through an engine of its own, of a driver that needs no loop."""
    drivers = {"": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
    driver = drivers.get(store.kind.server, f"{store.kind.server}+pymysql")
    other = Store(KINDS["sqlite"], "sqlite://")
    other.close()
    other.engine = make_engine(make_url(store.url).set(drivername=driver), **options)
    other.saver = SQLAlchemySaver(other.engine)
    return other


@pytest.fixture
def writer(store: Store) -> Iterator[Store]:
    """Another writer on the same database, that waits for nobody."""
    options: dict[str, Any] = {"connect_args": {"timeout": 0}}
    if store.kind.server == "postgresql":
        options = {"connect_args": {"options": "-c lock_timeout=5s"}}
    elif store.kind.server:
        options = {"connect_args": {"init_command": "SET innodb_lock_wait_timeout = 5"}}
    other = beside(store, **options)
    yield other
    other.engine.dispose()


def prune_with(store: Store, number: int, action: Callable[[], object]) -> int:
    """Prune, and do something before a statement; return how many statements there were.

    What has to wait for a row that prune has changed goes on when prune is done.
    """
    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[object]] = []

        def begin() -> None:
            begun.append(pool.submit(action))
            wait(begun, timeout=0.2)

        with at_statement(store, number, begin) as sent:
            store.prune(["t"])
        for future in begun:
            future.result()
    return len(sent)


@on_servers
def test_what_a_running_graph_stores_between_the_statements_of_prune_is_whole(
    store: Store, writer: Store
) -> None:
    for number in itertools.count():
        store.clear()
        configs = line(store, 3)
        call(store, "node:1", configs[0])
        call(store, "node:2", configs[2])
        head = store.found(configs[-1])
        stored: list[RunnableConfig] = []

        def go_on(head: Any = head, stored: list[RunnableConfig] = stored) -> None:
            writer.put_writes(head.config, [("note", ["late"])], "late task")
            step = writer.save(
                parent=head.config,
                values={**values(2), "turn": ["next"]},
                versions={"first": head.checkpoint["channel_versions"]["first"]},
                new=["turn", "small"],
            )
            last = writer.save(
                parent=step,
                values={**values(2), "turn": ["last"]},
                versions=writer.found(step).checkpoint["channel_versions"]
                | {"turn": writer.saver.get_next_version(None, None)},
                new=["turn"],
            )
            writer.put_writes(last, [("note", ["on the last"])], "last task")
            stored.extend((step, last))

        count = prune_with(store, number, go_on)
        if count <= number:
            break
        found = store.found(thread())
        assert found.config == stored[-1]
        assert found.checkpoint["channel_values"] == {**values(2), "turn": ["last"]}
        assert found.pending_writes == [("last task", "note", ["on the last"])]
        for left in store.list(thread(ns="")):
            assert set(left.checkpoint["channel_values"]) == {"first", "turn", "small"}
            assert left.checkpoint["channel_values"]["first"] == ["first"]
        store.prune(["t"])
        assert len(listed(store, ns="")) == 1
        assert store.found(thread()) == found._replace(parent_config=None)
    assert number >= 6


@on_servers
def test_a_checkpoint_that_is_stored_again_between_the_statements_of_prune_is_whole(
    store: Store, writer: Store
) -> None:
    for number in itertools.count():
        store.clear()
        configs = line(store, 3)
        head = store.found(configs[-1])
        versions = {**head.checkpoint["channel_versions"], "turn": "9"}

        def again(head: Any = head, versions: Any = versions) -> None:
            changed: Any = {**head.checkpoint, "channel_versions": versions}
            changed["channel_values"] = {**values(2), "turn": ["again"]}
            writer.put(head.parent_config, changed, head.metadata, {"turn": "9"})

        if prune_with(store, number, again) <= number:
            break
        found = store.found(thread())
        assert found.config == configs[-1]
        assert found.checkpoint["channel_values"] == {**values(2), "turn": ["again"]}
    assert number >= 6


@on_servers
def test_threads_beside_the_pruned_one_do_not_wait(store: Store, writer: Store) -> None:
    for number in itertools.count():
        store.clear()
        line(store, 3)
        other = line(store, 2, "u")

        def write_elsewhere(other: Any = other) -> None:
            writer.put_writes(other[-1], [("x", 1)], "beside")
            writer.save(parent=other[-1], values={"turn": ["beside"]})
            writer.prune(["u"])

        if prune_with(store, number, write_elsewhere) <= number:
            break
        assert store.found(thread("u")).checkpoint["channel_values"] == {"turn": ["beside"]}
        assert store.rows() == (2, 3, 1)
    assert number >= 6


@on_files
def test_prune_and_a_writer_take_turns_on_sqlite(store: Store, writer: Store) -> None:
    configs = line(store, 3)
    refused = []

    def put() -> None:
        with pytest.raises(OperationalError) as error:
            writer.save(parent=configs[-1], values={"turn": ["beside"]})
        refused.append(error.value.orig)

    assert prune_with(store, 1, put) > 1
    assert [type(error) for error in refused] == [sqlite3.OperationalError]
    assert str(refused[0]) == "database is locked"
    writer.save(parent=configs[-1], values={"turn": ["afterwards"]})
    assert store.found(thread()).checkpoint["channel_values"] == {"turn": ["afterwards"]}
    assert store.rows() == (2, 3, 1)
