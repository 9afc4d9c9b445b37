"""Copies of threads in another database: the same rows, whatever the two engines are."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from conftest import url_of
from databases import as_admin
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import TASKS
from stores import KINDS, Store, id_of, thread
from test_values import PLAIN, differences

import checkpoint_sa
from checkpoint_sa import (
    AESGCMSerializer,
    ConfigurationError,
    CopySummary,
    SchemaError,
    SQLAlchemySaver,
    SQLAlchemyStore,
    ThreadExistsError,
    TransferError,
)
from checkpoint_sa.cli import main
from checkpoint_sa.moving import stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Server

Captured = pytest.CaptureFixture[str]

DONE, DATA, USAGE, _ = range(4)
NUMBERS = [math.nan, -math.inf, -0.0, 1.0, 1e22, 1e308, 5e-324, 0.1, 2**53 + 1, 2**63]
TABLES = ("checkpoint_deltas", "checkpoint_blobs", "checkpoint_writes", "checkpoints")


@pytest.fixture(scope="module")
def open_store(
    start_server: Callable[[str], Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Store]]:
    """Open an empty store on an engine, by name."""
    opened: list[Store] = []
    loop = asyncio.new_event_loop()

    def open_(name: str) -> Store:
        kind = KINDS[name]
        store = Store(kind, url_of(kind, start_server, tmp_path_factory.mktemp(name)))
        opened.append(store)
        store.loop.close()
        store.loop = loop  # both stores of an `acopy` are of one
        store.setup()
        store.clear()
        return store

    yield open_
    for store in opened:
        if store.kind.is_async:
            store.run(store.own.dispose())
        store.root.dispose()
    loop.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Two stores on SQLite, for what no engine makes different."""
    stores = [
        Store(KINDS["sqlite"], f"sqlite+pysqlite:///{tmp_path / name}.db")
        for name in ("source", "target")
    ]
    for store in stores:
        store.setup()
    yield stores[0], stores[1]
    for store in stores:
        store.close()


def test_what_is_no_saver_is_refused(sqlite_store: Store) -> None:
    saver: Any = sqlite_store.saver
    url: Any = sqlite_store.url
    expected = r"expects a saver here, this is str.*from_conn_string"
    with pytest.raises(ConfigurationError, match=rf"^copy\(\) {expected}"):
        checkpoint_sa.copy(url, saver)
    with pytest.raises(ConfigurationError, match=rf"^acopy\(\) {expected}"):
        asyncio.run(checkpoint_sa.acopy(saver, url))
    with pytest.raises(ConfigurationError, match=rf"^import_from\(\) {expected}"):
        checkpoint_sa.import_from(url, url)


def copy(source: Store, target: Store, **options: Any) -> CopySummary:
    """Copy by the sync or the async function."""
    if not (source.kind.is_async or target.kind.is_async):
        return checkpoint_sa.copy(source.saver, target.saver, **options)  # type: ignore[arg-type]
    runner = source if source.kind.is_async else target
    return runner.run(checkpoint_sa.acopy(source.saver, target.saver, **options))  # type: ignore[no-any-return]


def fill(store: Store, thread_id: str = "t", steps: int = 3) -> None:
    """Store a chain of checkpoints with a fork, a subgraph and writes."""
    config = store.save(thread_id, {"notes": ["first"] * 500, "small": 1})
    first = config
    for step in range(steps):
        store.put_writes(config, [("notes", [step]), (TASKS, {"to": step})], f"task {step}", "~p")
        config = store.save(
            parent=config,
            values={"notes": ["first"] * 500 + list(range(step + 1)), "raw": bytes(9)},
            metadata={"step": step, "run_id": f"run {step}"},
        )
    store.save(parent=first, values={"fork": "ü\U0001f600"})
    store.save(thread_id, {"inner": [1]}, ns="child:1|Child:2")


def contents(store: Store) -> dict[tuple[str, str], list[str]]:
    """Return all rows, by thread and table."""
    return {
        (str(plain(thread_id)), table): sorted(
            repr([*map(plain, row)])
            for row in store.sql(f"SELECT * FROM {table} WHERE thread_id = :t", t=thread_id)
        )
        for (thread_id,) in store.sql("SELECT DISTINCT thread_id FROM checkpoints")
        for table in TABLES
    }


def plain(value: Any) -> Any:
    """Return what a driver gave in one form."""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return bytes(value) if isinstance(value, memoryview) else value


@pytest.fixture
def bare_stores(
    start_server: Callable[[str], Server],
) -> Iterator[Callable[[str], tuple[str, list[str]]]]:
    """Make two schemas on a server; the MySQL family calls a database so."""
    admins: list[Store] = []
    schemas = ["copied_from", "copied_to"]

    def make(name: str) -> tuple[str, list[str]]:
        kind = KINDS[name]
        admins.append(Store(kind, start_server(kind.server).url(kind.driver)))
        as_admin(admins[0], *(f"CREATE SCHEMA {schema}" for schema in schemas))
        return admins[0].url, schemas

    yield make
    for admin in admins:
        cascade = " CASCADE" if admin.kind.server == "postgresql" else ""
        as_admin(admin, *(f"DROP SCHEMA {schema}{cascade}" for schema in schemas))
        admin.close()


def same(source: Store, target: Store, thread_id: str = "t") -> None:
    """Assert that both savers read the same."""
    for found, expected in zip(
        target.list({"configurable": {"thread_id": thread_id}}),
        source.list({"configurable": {"thread_id": thread_id}}),
        strict=True,
    ):
        assert found == expected


PAIRS = [
    ("sqlite", "pg-psycopg"),
    ("pg-psycopg", "mariadb-pymysql"),
    ("mariadb-pymysql", "mysql-pymysql"),
    ("mysql-pymysql", "sqlite"),
    ("sqlite", "mariadb-pymysql"),
    ("mariadb-pymysql", "pg-psycopg"),
    ("pg-psycopg", "mysql-pymysql"),
    ("mysql-pymysql", "pg-psycopg"),
    ("pg-psycopg", "sqlite"),
    ("sqlite", "mysql-pymysql"),
    ("mysql-pymysql", "mariadb-pymysql"),
    ("mariadb-pymysql", "sqlite"),
    ("aiosqlite", "pg-asyncpg"),
    ("pg-asyncpg", "mysql-async"),
    ("mysql-async", "mariadb-async"),
    ("mariadb-async", "pg-psycopg-async"),
    ("sqlite", "pg-asyncpg"),
    ("pg-psycopg-async", "sqlite"),
]


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=map("-to-".join, PAIRS))
def test_every_engine_to_every_other(
    open_store: Callable[[str], Store], source: str, target: str
) -> None:
    one, other = open_store(source), open_store(target)
    one = one.using(one.make_saver(incremental=True))
    fill(one)
    nasty = one.save(
        "nasty",
        {str(i): value for i, value in enumerate(PLAIN.values())},
        metadata={"numbers": NUMBERS, "text": "\0 ü \U0001f600", "10": 1e22, "lone": 1.0},
    )
    before = contents(one)
    done = copy(one, other)
    assert (done.threads, done.skipped) == (2, 0)
    assert (done.checkpoints, done.values, done.writes) == one.rows()
    assert contents(one) == before
    assert one.count("checkpoint_deltas") == other.count("checkpoint_deltas") > 0
    same(one, other)
    found, expected = other.found(nasty), one.found(nasty)
    values = found.checkpoint["channel_values"]
    assert not differences({name: values[str(i)] for i, name in enumerate(PLAIN)}, PLAIN)
    assert repr(sorted(found.metadata.items())) == repr(sorted(expected.metadata.items()))
    assert copy(one, other) == CopySummary(0, 2, 0, 0, 0, 0)


def test_pages_end_by_rows_and_by_bytes(
    two: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = two
    source.save("t", {str(i): b"x" * 1000 * i for i in range(40)})
    source.save("t", {f"b{i}": b"y" for i in range(40)})
    sizes = []
    store = stored.store

    def counted(connection: Any, table: Any, rows: Any) -> None:
        sizes.append((len(rows), sum(len(row.get("blob") or b"") for row in rows)))
        store(connection, table, rows)

    monkeypatch.setattr(stored, "store", counted)
    monkeypatch.setattr(stored, "PAGE_ROWS", 7)
    monkeypatch.setattr(stored, "PAGE_BYTES", 50_000)
    copy(source, target)
    same(source, target)
    assert max(rows for rows, _ in sizes) == 7
    assert max(size for _, size in sizes) <= 50_000


def test_what_was_copied_goes_on(two: tuple[Store, Store]) -> None:
    source, target = two
    fill(source, "t")
    copy(source, target)
    goes_on = target.save(parent=target.list(thread())[0].config, values={"notes": ["next"]})
    assert target.found(goes_on).checkpoint["channel_values"]["notes"] == ["next"]


def test_encrypted_values_stay_readable(two: tuple[Store, Store]) -> None:
    source, target = two
    serde = AESGCMSerializer(bytes(32))
    sealed = source.using(source.make_saver(serde=serde))
    fill(sealed)
    copy(source, target)
    same(sealed, target.using(target.make_saver(serde=serde)))


class InterruptedCopyError(Exception):
    """What ends a copy in these tests."""


@contextmanager
def interrupted_after(pages: int) -> Iterator[None]:
    """End a copy when it stores another page."""
    left = iter(range(pages))
    store = stored.store

    def fail(*args: Any) -> None:
        if next(left, None) is None:
            raise InterruptedCopyError
        store(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "store", fail)
        with pytest.raises(InterruptedCopyError):
            yield


@pytest.mark.parametrize("pages", range(1, 9))
def test_an_interrupted_copy_goes_on(
    two: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    source, target = two
    source = source.using(source.make_saver(incremental=True))
    fill(source)
    monkeypatch.setattr(stored, "PAGE_ROWS", 2)
    with interrupted_after(pages):
        copy(source, target)
    partial = sum(map(target.count, TABLES))
    assert 0 < partial < sum(map(source.count, TABLES))
    done = copy(source, target)
    assert done.threads == 1
    assert contents(target) == contents(source)


KILLED = """
import os, signal, sys
from checkpoint_sa.cli import main
from checkpoint_sa.moving import stored

stored.PAGE_ROWS = 2
store, left = stored.store, iter(range(4))

def killed(*args):
    store(*args)
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)

stored.store = killed
main(["copy", "--from", sys.argv[1], "--to", sys.argv[2]])
"""
"""Is killed in the transaction of its fifth page."""


def test_a_copy_that_was_killed_goes_on(two: tuple[Store, Store]) -> None:
    source, target = two
    fill(source)
    result = subprocess.run(
        [sys.executable, "-c", KILLED, source.url, target.url], check=False, capture_output=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert sum(map(target.count, TABLES)) == 8
    copy(source, target)
    assert contents(target) == contents(source)


def test_a_copy_in_the_transaction_of_the_caller(two: tuple[Store, Store]) -> None:
    source, target = two
    fill(source)
    with target.engine.connect() as connection:
        saver = SQLAlchemySaver(connection)
        assert checkpoint_sa.copy(source.saver, saver).threads == 1  # type: ignore[arg-type]
        connection.rollback()
    assert target.rows() == (0, 0, 0)


def test_a_second_copy_brings_what_is_new(two: tuple[Store, Store]) -> None:
    source, target = two
    fill(source, "t")
    fill(source, "u")
    copy(source, target)
    source.save(parent=source.list(thread())[0].config, values={"notes": ["next"]})
    done = copy(source, target)
    assert done[:5] == (1, 1, 1, 1, 0)
    assert 0 < done.bytes < 1000
    assert contents(target) == contents(source)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE checkpoint_blobs SET blob = 'other' WHERE channel = 'notes'",
        "UPDATE checkpoint_writes SET task_path = 'other'",
        "UPDATE checkpoints SET parent_checkpoint_id = NULL",
        "UPDATE checkpoints SET metadata = '{}'",
        "UPDATE checkpoint_writes SET task_id = 'another'",
    ],
)
def test_other_content_is_an_error_before_anything_is_changed(
    two: tuple[Store, Store], change: str
) -> None:
    source, target = two
    fill(source, "t")
    copy(source, target)
    target.sql(change)
    source.save(parent=source.list(thread())[0].config, values={"notes": ["next"]})
    before = contents(target)
    with pytest.raises(ThreadExistsError, match="'t' with other content"):
        copy(source, target)
    assert contents(target) == before


def test_a_thread_that_went_on_in_the_target_is_other_content(two: tuple[Store, Store]) -> None:
    source, target = two
    fill(source, "t")
    copy(source, target)
    target.save(parent=target.list(thread())[0].config, values={"notes": ["mine"]})
    with pytest.raises(ThreadExistsError):
        copy(source, target)


def test_what_is_read_back_is_compared(
    two: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = two
    fill(source)
    store = stored.store

    def damage(connection: Any, table: Any, rows: Any) -> None:
        store(connection, table, [{**row, "type": "other"} for row in rows])

    monkeypatch.setattr(stored, "store", damage)
    with pytest.raises(TransferError, match="'t'"):
        copy(source, target)


def test_a_checkpoint_stored_meanwhile_comes_with_the_next_copy(
    two: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = two
    fill(source)
    store = stored.store
    news: list[str] = []

    def and_write(connection: Any, table: Any, rows: Any) -> None:
        store(connection, table, rows)
        if not news:
            last = source.list(thread())[0].config
            news.append(id_of(source.save(parent=last, values={"notes": ["meanwhile"]})))

    with monkeypatch.context() as patch:
        patch.setattr(stored, "store", and_write)
        copy(source, target)
    expected = [item for item in source.list(thread()) if id_of(item.config) not in news]
    assert target.list(thread()) == expected
    assert copy(source, target).checkpoints == 1
    same(source, target)


def test_a_thread_that_is_deleted_meanwhile_is_passed_over(two: tuple[Store, Store]) -> None:
    source, target = two
    for name in ("a", "b", "c"):
        fill(source, name)
    assert copy(source, target, progress=lambda _: source.delete_thread("b")).threads == 2
    assert {name for name, _ in contents(target)} == {"a", "c"}


def test_only_the_threads_that_are_asked_for(two: tuple[Store, Store]) -> None:
    source, target = two
    for name in ("a", "b", "c"):
        fill(source, name)
    done: list[str] = []
    assert copy(source, target, threads=["c", "a", "c"], progress=done.append).threads == 2
    assert done == ["c", "a"]
    assert {name for name, _ in contents(target)} == {"a", "c"}
    with pytest.raises(TransferError, match="no thread 'd'"):
        copy(source, target, threads=["d"])


def test_a_dry_run_counts_and_writes_nothing(two: tuple[Store, Store]) -> None:
    source, target = two
    fill(source)
    counted = copy(source, target, dry_run=True)
    assert target.rows() == (0, 0, 0)
    assert copy(source, target) == counted


def test_a_target_without_tables_is_refused(two: tuple[Store, Store]) -> None:
    source, target = two
    fill(source)
    target.sql("DROP TABLE checkpoint_sa_version")
    with pytest.raises(SchemaError):
        copy(source, target)


# The command


@pytest.mark.parametrize(
    ("source", "target"),
    [("sqlite", "pg-psycopg"), ("aiosqlite", "pg-asyncpg"), ("pg-asyncpg", "mysql-pymysql")],
)
def test_the_command_on_sync_and_async_drivers(
    open_store: Callable[[str], Store], source: str, target: str, capsys: Captured
) -> None:
    one, other = open_store(source), open_store(target)
    fill(one)
    given = ["copy", "--from", one.url, "--to", other.url, "--json"]
    assert main(given) == DONE
    assert json.loads(capsys.readouterr().out)["threads"] == 1
    same(one, other)
    assert main([*given, "t"]) == DONE
    assert json.loads(capsys.readouterr().out)["skipped"] == 1
    assert main([*given, "--dry-run", "nosuch"]) == DATA
    assert "nosuch" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pg-psycopg", "mariadb-pymysql", "mysql-pymysql"])
def test_the_command_copies_from_schema_to_schema(
    bare_stores: Callable[[str], tuple[str, list[str]]], name: str, capsys: Captured
) -> None:
    url, (one, other) = bare_stores(name)
    savers = []
    for schema in (one, other):
        assert main(["upgrade", "--url", url, "--schema", schema]) == DONE
        savers.append(SQLAlchemySaver.from_conn_string(url, schema=schema))
    with savers[0] as source, savers[1] as target:
        config = source.put(thread(), empty_checkpoint(), {"source": "input"}, {})
        SQLAlchemyStore(source.bind, schema=one).put(("n",), "k", {"a": 1})
        ends = ["--from", url, "--from-schema", one, "--to", url, "--to-schema", other]
        assert main(["copy", *ends]) == DONE
        assert target.get_tuple(config) == source.get_tuple(config)
        item = SQLAlchemyStore(target.bind, schema=other).get(("n",), "k")
        assert item is not None
        assert item.value == {"a": 1}
    assert capsys.readouterr().err == ""


def test_the_command_needs_two_databases(capsys: Captured) -> None:
    assert main(["copy", "--from", "sqlite://"]) == USAGE
    assert "CHECKPOINT_SA_TO" in capsys.readouterr().err


def test_the_command_shows_no_password(capsys: Captured) -> None:
    url = "postgresql+psycopg://app:s3cret@127.0.0.1:1/app"
    main(["copy", "--from", url, "--to", url.replace("s3cret", "h1dden")])
    said = capsys.readouterr().err
    assert "s3cret" not in said
    assert "h1dden" not in said


def test_a_saver_on_an_async_engine_is_not_for_the_sync_function(tmp_path: Path) -> None:
    store = Store(KINDS["aiosqlite"], f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    store.setup()
    with pytest.raises(ConfigurationError, match="acopy"):
        checkpoint_sa.copy(store.saver, store.saver)  # type: ignore[arg-type]
    store.close()
