"""Tables of LangGraph's other savers: kept and completed, converted, or refused with the reason."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from databases import as_admin, bare_store, on_connection, sync_twin, sync_url
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.base import MIGRATIONS
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from stores import Store, thread

from checkpoint_sa import SchemaError, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Server
    from sqlalchemy import Connection, Engine

__all__ = ["bare_store"]

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def both(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bare_store", kinds, indirect=True)


def head_of(store: Store) -> str | None:
    return on_connection(store, migrate.current)


def contents(store: Store, columns: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
    """Read some columns of all tables."""
    return {
        table: [
            tuple(r) for r in store.sql(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1, 3")
        ]
        for table, names in columns.items()
    }


def columns_of(store: Store) -> dict[str, list[str]]:
    def read(connection: Connection) -> dict[str, list[str]]:
        inspector = inspect(connection)
        return {
            table: [column["name"] for column in inspector.get_columns(table)]
            for table in TABLES
            if inspector.has_table(table)
        }

    return on_connection(store, read)


# langgraph-checkpoint-postgres

CHECKPOINT_ID = "1ef4f797-8335-6428-8001-8a1503f9b875"
OLD = {
    "v": 4,
    "id": CHECKPOINT_ID,
    "ts": "2024-07-31T20:14:19.804150+00:00",
    "channel_values": {"small": "x"},
    "channel_versions": {"small": "1", "large": "1"},
    "versions_seen": {},
}


def make_peer_tables(store: Store, version: int) -> None:
    """Run the migrations of langgraph-checkpoint-postgres up to one version, and fill them."""
    admin = Store(sync_twin(store.kind), sync_url(store))
    for number, migration in enumerate(MIGRATIONS[: version + 1]):
        as_admin(admin, migration, f"INSERT INTO checkpoint_migrations (v) VALUES ({number})")
    kind, blob = JsonPlusSerializer().dumps_typed(["large"])
    values = {"kind": kind, "blob": blob, "id": CHECKPOINT_ID}
    with admin.engine.begin() as connection:
        if version >= 1:
            connection.execute(
                text(
                    "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint, metadata)"
                    " VALUES ('t', :id, :checkpoint, :metadata)"
                ),
                {
                    "id": CHECKPOINT_ID,
                    "checkpoint": json.dumps(OLD),
                    "metadata": '{"step": 1, "source": "loop", "run_id": "r"}',
                },
            )
        if version >= 2:
            connection.execute(
                text(
                    "INSERT INTO checkpoint_blobs (thread_id, channel, version, type, blob)"
                    " VALUES ('t', 'large', '1', :kind, :blob)"
                ),
                values,
            )
        if version >= 3:
            connection.execute(
                text(
                    "INSERT INTO checkpoint_writes"
                    " (thread_id, checkpoint_id, task_id, idx, channel, type, blob)"
                    " VALUES ('t', :id, 'task', 0, 'large', :kind, :blob)"
                ),
                values,
            )
    admin.close()


def peer_schema(store: Store) -> list[Any]:
    """Read what a setup() could change: columns, indexes, the ledger."""
    return [
        *store.sql(
            "SELECT table_name, column_name, data_type, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        ),
        *store.sql("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
        *store.sql("SELECT v FROM checkpoint_migrations ORDER BY 1"),
    ]


def peer_url(store: Store) -> str:
    return sync_url(store).replace("+psycopg", "")


@pytest.mark.parametrize("version", range(10))
@both("pg-psycopg", "pg-psycopg-async", "pg-asyncpg")
def test_every_version_of_the_postgres_saver_is_adopted(bare_store: Store, version: int) -> None:
    make_peer_tables(bare_store, version)
    columns = columns_of(bare_store)
    before = contents(bare_store, columns)
    bare_store.setup()
    assert contents(bare_store, columns) == before
    assert head_of(bare_store) == migrate.HEAD
    if version >= 1:
        found = bare_store.found(thread())
        values = {"small": "x"} | ({"large": ["large"]} if version >= 2 else {})
        assert found.checkpoint["channel_values"] == values
        assert found.pending_writes == ([("task", "large", ["large"])] if version >= 3 else [])
        assert [item.config for item in bare_store.list(None, filter={"run_id": "r"})] == [
            found.config
        ]
    config = bare_store.save("new", {"a": [1]})
    bare_store.put_writes(config, [("a", 2)], "task", "path")
    assert bare_store.found(config).pending_writes == [("task", "a", 2)]


@pytest.mark.parametrize("version", range(10))
@both("pg-psycopg")
def test_the_postgres_savers_setup_changes_nothing_afterwards(
    bare_store: Store, version: int
) -> None:
    make_peer_tables(bare_store, version)
    bare_store.setup()
    bare_store.save("ours", {"a": [1]})
    before = peer_schema(bare_store)
    with PostgresSaver.from_conn_string(peer_url(bare_store)) as peer:
        peer.setup()
        assert peer_schema(bare_store) == before
        ours = peer.get_tuple(thread("ours"))
        assert ours is not None
        assert ours.checkpoint["channel_values"] == {"a": [1]}
        if version >= 1:
            assert peer.get_tuple(thread()) is not None
        peer.put(thread("peer"), empty_checkpoint(), {"source": "input", "step": -1}, {})
    assert bare_store.get_tuple(thread("peer")) is not None


@both("pg-psycopg", "pg-asyncpg")
def test_indexes_on_adopted_tables_are_built_concurrently(bare_store: Store) -> None:
    make_peer_tables(bare_store, 9)
    with bare_store.statements() as statements:
        bare_store.setup()
    built = [s for s in statements.texts if s.startswith("CREATE INDEX") and "ON checkpoints" in s]
    assert len(built) == 2
    assert all(s.startswith("CREATE INDEX CONCURRENTLY") for s in built)


@contextmanager
def long_transaction(store: Store) -> Iterator[int]:
    """Hold a table as any reader does until it commits; yield the backend's number."""
    with store.engine.connect() as connection:
        connection.execute(text("SELECT count(*) FROM checkpoints"))
        yield int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


@both("pg-psycopg")
def test_a_long_transaction_makes_an_upgrade_say_whom_to_wait_for(bare_store: Store) -> None:
    make_peer_tables(bare_store, 9)
    with long_transaction(bare_store) as backend, pytest.raises(SchemaError) as error:
        migrate.upgrade(bare_store.engine, lock_timeout=1)
    assert f"backend {backend} " in str(error.value)
    assert "checkpoints" in str(error.value)
    assert head_of(bare_store) is None
    bare_store.setup()
    assert head_of(bare_store) == migrate.HEAD


@both("pg-psycopg")
def test_readers_go_on_while_an_upgrade_waits(bare_store: Store) -> None:
    make_peer_tables(bare_store, 9)
    with long_transaction(bare_store):
        upgrade = threading.Thread(target=migrate.upgrade, args=(bare_store.engine,))
        upgrade.start()
        wait_until(bare_store, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        for _ in range(5):
            # 0.9 s: longer than the upgrade asks for the lock at a time.
            rows = bare_store.sql("SET lock_timeout = 900") or bare_store.sql(
                "SELECT count(*) FROM checkpoints"
            )
            assert rows == [(1,)]
    upgrade.join()
    assert head_of(bare_store) == migrate.HEAD


def wait_until(store: Store, question: str) -> None:
    while store.sql(question) == [(0,)]:
        pass


@both("pg-psycopg")
def test_another_applications_table_is_refused(bare_store: Store) -> None:
    bare_store.sql("CREATE TABLE checkpoints (id INTEGER PRIMARY KEY, place TEXT)")
    with pytest.raises(SchemaError, match=r"checkpoint_id, checkpoint_ns.*Nothing was changed"):
        bare_store.setup()
    assert columns_of(bare_store) == {"checkpoints": ["id", "place"]}


# langgraph-checkpoint-mysql

HASH = "LEFT(SHA2(checkpoint_ns, 256), 32)"
"""Stands for MD5(checkpoint_ns), which MySQL has in a component since 9.6, for statements only."""


@pytest.fixture
def md5(start_server: Callable[[str], Server], bare_store: Store) -> Iterator[None]:
    """Let langgraph-checkpoint-mysql have the MD5 that it needs, as far as MySQL gives it."""
    try:
        bare_store.sql("SELECT md5('')")
        installed = False
    except DBAPIError:
        bare_store.sql("INSTALL COMPONENT 'file://component_classic_hashing'")
        installed = True
    yield
    if installed:
        bare_store.sql("UNINSTALL COMPONENT 'file://component_classic_hashing'")


def make_mysql_tables(engine: Engine, version: int) -> None:
    """Run the migrations of langgraph-checkpoint-mysql up to one version."""
    peer = pytest.importorskip("langgraph.checkpoint.mysql.base")
    with engine.connect() as connection:
        for number, migration in enumerate(peer.MIGRATIONS[: version + 1]):
            connection.exec_driver_sql(migration.replace("MD5(checkpoint_ns)", HASH))
            connection.exec_driver_sql(f"INSERT INTO checkpoint_migrations (v) VALUES ({number})")
        connection.commit()


def fill_mysql_tables(engine: Engine, *, threads: tuple[str, ...] = ("t", "ü")) -> None:
    """Write as langgraph-checkpoint-mysql does, into the columns that exist."""
    with engine.begin() as connection:
        inspector = inspect(connection)
        if not inspector.has_table("checkpoints"):
            return
        has_hash = "checkpoint_ns_hash" in {c["name"] for c in inspector.get_columns("checkpoints")}
        generated = has_hash and any(
            c["name"] == "checkpoint_ns_hash" and c.get("computed")
            for c in inspector.get_columns("checkpoints")
        )
        names, values = ("", "")
        if has_hash and not generated:
            names, values = (
                ", checkpoint_ns_hash",
                f", UNHEX({HASH.replace('checkpoint_ns', ':ns')})",
            )
        kind, blob = JsonPlusSerializer().dumps_typed(["large"])
        for number, thread_id in enumerate(threads):
            for ns in ("", "inner:1"):
                row = {
                    "thread_id": thread_id,
                    "ns": ns,
                    # Early versions leave the namespace out of the keys.
                    "id": f"{CHECKPOINT_ID[:-2]}{number}{len(ns) % 10}",
                    "checkpoint": json.dumps(
                        OLD | {"id": f"{CHECKPOINT_ID[:-2]}{number}{len(ns) % 10}"}
                    ),
                    "metadata": json.dumps(METADATA[number % len(METADATA)]),
                    "version": f"1{len(ns)}",
                    "kind": kind,
                    "blob": blob,
                }
                connection.execute(
                    text(
                        f"INSERT INTO checkpoints (thread_id, checkpoint_ns{names}, checkpoint_id,"
                        f" checkpoint, metadata) VALUES (:thread_id, :ns{values}, :id, :checkpoint,"
                        " :metadata)"
                    ),
                    row,
                )
                if inspector.has_table("checkpoint_blobs"):
                    connection.execute(
                        text(
                            f"INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns{names},"
                            " channel, version, type, `blob`) VALUES"
                            f" (:thread_id, :ns{values}, 'large', :version, :kind, :blob)"
                        ),
                        row,
                    )
                if inspector.has_table("checkpoint_writes"):
                    connection.execute(
                        text(
                            f"INSERT INTO checkpoint_writes (thread_id, checkpoint_ns{names},"
                            " checkpoint_id, task_id, idx, channel, type, `blob`) VALUES"
                            f" (:thread_id, :ns{values}, :id, 'task', 0, 'large', :kind, :blob)"
                        ),
                        row,
                    )


METADATA: tuple[dict[str, Any], ...] = (
    {"step": 1, "source": "loop", "run_id": "r"},
    {"step": 1, "source": "loop"},
    {"step": 1, "source": "loop", "run_id": None},
    {"step": 1, "source": "loop", "run_id": 7},
    {"step": 1, "source": "loop", "run_id": "x" * 300},
    {"step": 1, "source": "loop", "run_id": "ü\n"},
)


def logical(store: Store) -> list[list[tuple[Any, ...]]]:
    """Read what the rows say, whatever the type of their columns."""
    tables = {
        "checkpoints": ["thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint", "metadata"],
        "checkpoint_blobs": ["thread_id", "checkpoint_ns", "channel", "version", "type", "`blob`"],
        "checkpoint_writes": ["thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "`blob`"],
    }
    present = columns_of(store)
    return [
        sorted(
            tuple(v.encode() if isinstance(v, str) else v for v in row)
            for row in store.sql(f"SELECT {', '.join(names)} FROM {table}")
        )
        for table, names in tables.items()
        if table in present
    ]


def structure(store: Store) -> dict[str, Any]:
    """Describe our tables."""

    def read(connection: Connection) -> dict[str, Any]:
        inspector = inspect(connection)
        return {
            table: (
                [
                    (c["name"], str(c["type"].compile(connection.dialect)), c["nullable"])
                    for c in inspector.get_columns(table)
                ],
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted(str(i["name"]) for i in inspector.get_indexes(table)),
            )
            for table in TABLES
        }

    return on_connection(store, read)


@pytest.mark.parametrize("version", [0, 1, 3, 4, 8, 11, 12, 14, 17, 18, 21])
@both("mariadb-pymysql", "mysql-pymysql")
def test_every_shape_of_the_mysql_savers_tables_is_converted(
    bare_store: Store, version: int
) -> None:
    make_mysql_tables(bare_store.engine, version)
    fill_mysql_tables(bare_store.engine)
    before = logical(bare_store)
    bare_store.setup()
    assert logical(bare_store)[: len(before)] == before
    assert head_of(bare_store) == migrate.HEAD
    converted = structure(bare_store)
    migrate.downgrade(bare_store.engine, "base")
    bare_store.setup()
    assert converted == structure(bare_store)


@both("mariadb-pymysql", "mariadb-async", "mysql-pymysql", "mysql-async")
def test_converted_checkpoints_are_read_found_and_continued(bare_store: Store) -> None:
    engine = create_engine(sync_url(bare_store))
    make_mysql_tables(engine, 21)
    fill_mysql_tables(engine, threads=("a", "b", "c", "d", "e", "ü"))
    engine.dispose()
    bare_store.setup()
    for name in ("a", "ü"):
        found = bare_store.found(thread(name, "inner:1"))
        assert found.checkpoint["channel_values"]["small"] == "x"
        assert found.pending_writes == [("task", "large", ["large"])]
    assert len(bare_store.list(thread("Ü"))) == 0
    next_config = bare_store.save(parent=bare_store.found(thread("a")).config, values={"n": [1]})
    assert bare_store.found(next_config).parent_config is not None
    for run, left in (("r", 10 + 1), ("7", 8 + 1), ("x" * 300, 6 + 1), ("ü\n", 4 + 1)):
        bare_store.delete_for_runs([run])
        assert bare_store.count("checkpoints") == left, run


@both("mariadb-pymysql", "mysql-pymysql")
def test_what_the_mysql_saver_wrote_is_read_by_ours(
    bare_store: Store, md5: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("langgraph.checkpoint.mysql.pymysql").PyMySQLSaver
    migrations = [migration.replace("MD5(checkpoint_ns)", HASH) for migration in peer.MIGRATIONS]
    monkeypatch.setattr(peer, "MIGRATIONS", migrations)
    url = peer_mysql_url(bare_store)
    with peer.from_conn_string(url) as saver:
        saver.setup()
        theirs = Store.using(bare_store, saver).save("t", {"a": [1], "b": "x", "c": None})
        Store.using(bare_store, saver).put_writes(theirs, [("a", [2])], "task", "path")
    bare_store.setup()
    found = bare_store.found(theirs)
    assert found.checkpoint["channel_values"] == {"a": [1], "b": "x", "c": None}
    assert found.pending_writes == [("task", "a", [2])]
    before = structure(bare_store)
    with peer.from_conn_string(url) as saver:
        saver.setup()
    assert structure(bare_store) == before


def peer_mysql_url(store: Store) -> str:
    return store.url.replace(store.kind.driver, "mysql")


@both("mariadb-pymysql", "mysql-pymysql")
def test_ids_in_another_character_set_become_utf8(bare_store: Store) -> None:
    bare_store.sql("ALTER DATABASE bare CHARACTER SET latin1")
    make_mysql_tables(bare_store.engine, 21)
    fill_mysql_tables(bare_store.engine, threads=("ü", "t"))
    bare_store.setup()
    assert bare_store.found(thread("ü")).checkpoint["channel_values"]["small"] == "x"
    assert sorted({row[0] for row in bare_store.sql("SELECT thread_id FROM checkpoints")}) == [
        b"t",
        "ü".encode(),
    ]


@both("mariadb-pymysql", "mysql-pymysql")
def test_an_id_that_does_not_fit_is_refused_before_anything_is_converted(bare_store: Store) -> None:
    bare_store.sql("ALTER DATABASE bare CHARACTER SET utf8mb4")
    make_mysql_tables(bare_store.engine, 21)
    fill_mysql_tables(bare_store.engine, threads=("\U0001f600" * 150,))
    with pytest.raises(SchemaError, match="thread_id of 600 bytes"):
        bare_store.setup()
    assert bare_store.sql("SELECT count(*) FROM checkpoints WHERE checkpoint_ns_hash IS NOT NULL")
    assert bare_store.count("checkpoints") == 2


# langgraph-checkpoint-sqlite, and other layouts


@pytest.fixture
def sqlite_peer(tmp_path: Path) -> Path:
    peer = pytest.importorskip("langgraph.checkpoint.sqlite").SqliteSaver
    file = tmp_path / "bare.db"
    with peer.from_conn_string(str(file)) as saver:
        saver.put(thread(), empty_checkpoint(), {"source": "input", "step": -1}, {})
    return file


@both("sqlite", "aiosqlite")
def test_a_database_of_the_sqlite_saver_is_refused_with_the_way_out(
    bare_store: Store, sqlite_peer: Path
) -> None:
    def dump() -> list[str]:
        with sqlite3.connect(sqlite_peer) as connection:
            lines = list(connection.iterdump())
        connection.close()
        return lines

    before = dump()
    with pytest.raises(SchemaError, match="checkpoint-sa import"):
        bare_store.setup()
    assert dump() == before
    with pytest.raises(SchemaError, match="checkpoint-sa import"):
        bare_store.get_tuple(thread())


@both("pg-psycopg")
def test_tables_of_a_shallow_saver_are_refused(bare_store: Store) -> None:
    shallow = pytest.importorskip("langgraph.checkpoint.postgres.shallow")
    for migration in shallow.MIGRATIONS[:4]:
        bare_store.sql(migration)
    with pytest.raises(SchemaError, match=r"without checkpoint_id: .*shallow"):
        bare_store.setup()
    assert head_of(bare_store) is None
