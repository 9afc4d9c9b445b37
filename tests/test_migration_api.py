"""`checkpoint_sa.migrate` from Python: whatever names the database, and what it refuses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from databases import SYNC, bare_store, on_connection
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from stores import KINDS, Store
from test_migration_adoption import structure

from checkpoint_sa import ConfigurationError, SchemaError, metadata, migrate
from checkpoint_sa.engine import locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["bare_store"]

on_each_engine = pytest.mark.parametrize("bare_store", SYNC, indirect=True)
on_async_drivers = pytest.mark.parametrize(
    "bare_store", [name for name, kind in KINDS.items() if kind.is_async], indirect=True
)
with_ddl_in_transactions = pytest.mark.parametrize(
    "bare_store", ["sqlite", "pg-psycopg"], indirect=True
)
without = pytest.mark.parametrize("bare_store", ["mariadb-pymysql", "mysql-pymysql"], indirect=True)


def revision_of(store: Store) -> str | None:
    """Read the revision on a connection of its own."""
    return on_connection(store, migrate.current)


# What names the database


@on_each_engine
@pytest.mark.parametrize("form", ["engine", "connection", "url", "text"])
def test_sync_functions_take_it_in_any_form(bare_store: Store, form: str) -> None:
    with bare_store.engine.connect() as connection:
        bind: Any = {
            "engine": bare_store.engine,
            "connection": connection,
            "url": bare_store.engine.url,
            "text": bare_store.url,
        }[form]
        migrate.upgrade(bind)
        assert revision_of(bare_store) == migrate.HEAD
        migrate.verify(bind)
        migrate.downgrade(bind, "checkpoint_sa_0001")
        assert revision_of(bare_store) == migrate.current(bind) == "checkpoint_sa_0001"
        with pytest.raises(SchemaError, match="checkpoint_sa_0001, this release needs"):
            migrate.verify(bind)


@on_async_drivers
@pytest.mark.parametrize("form", ["engine", "connection", "url", "text"])
def test_async_twins_take_it_in_any_form(bare_store: Store, form: str) -> None:
    async def check() -> None:
        engine = bare_store.async_engine
        assert engine is not None
        async with engine.connect() as connection:
            bind: Any = {
                "engine": engine,
                "connection": connection,
                "url": engine.url,
                "text": bare_store.url,
            }[form]
            await migrate.aupgrade(bind)
            assert await migrate.acurrent(engine) == migrate.HEAD
            await migrate.averify(bind)
            await migrate.adowngrade(bind, "checkpoint_sa_0001")
            assert await migrate.acurrent(bind) == "checkpoint_sa_0001"
            with pytest.raises(SchemaError, match="checkpoint_sa_0001, this release needs"):
                await migrate.averify(bind)

    bare_store.run(check())
    assert revision_of(bare_store) == "checkpoint_sa_0001"


@on_async_drivers
def test_sync_functions_take_the_url_of_an_async_driver(bare_store: Store) -> None:
    migrate.upgrade(bare_store.url)
    assert migrate.current(bare_store.url) == migrate.HEAD


@pytest.mark.parametrize("bare_store", ["sqlite", "pg-psycopg"], indirect=True)
def test_async_twins_take_the_url_of_a_sync_driver(bare_store: Store) -> None:
    asyncio.run(migrate.aupgrade(bare_store.url))
    assert revision_of(bare_store) == migrate.HEAD


def test_a_sync_call_with_an_async_driver_in_an_event_loop_names_the_twin(tmp_path: Path) -> None:
    async def call() -> None:
        migrate.upgrade(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")

    with pytest.raises(ConfigurationError, match=r"await migrate\.aupgrade"):
        asyncio.run(call())


def test_a_sync_call_with_a_sync_driver_works_in_an_event_loop(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    async def call() -> None:
        migrate.upgrade(url)

    asyncio.run(call())
    migrate.verify(url)


def test_the_other_colours_engine_is_refused_with_the_name_of_the_twin() -> None:
    with pytest.raises(ConfigurationError, match=r"Use `await migrate\.averify"):
        migrate.verify(create_async_engine("sqlite+aiosqlite://"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"Use migrate\.verify"):
        asyncio.run(migrate.averify(create_engine("sqlite://")))  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite://"])
def test_a_database_in_memory_needs_an_engine(url: str) -> None:
    with pytest.raises(ConfigurationError, match="in memory"):
        migrate.upgrade(url)


def test_what_is_no_url_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError) as error:
        migrate.upgrade("postgresql//app:secret@host")
    assert "secret" not in str(error.value)


# Transactions


@on_each_engine
def test_an_autocommit_engine_upgrades(bare_store: Store) -> None:
    engine = create_engine(bare_store.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    migrate.upgrade(engine)
    migrate.verify(engine)
    assert revision_of(bare_store) == migrate.HEAD


@on_each_engine
def test_an_autocommit_connection_upgrades(bare_store: Store) -> None:
    engine = create_engine(bare_store.url, poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        migrate.upgrade(connection)
    assert revision_of(bare_store) == migrate.HEAD


@pytest.mark.parametrize("bare_store", ["pg-asyncpg", "mysql-async"], indirect=True)
def test_an_async_autocommit_engine_upgrades(bare_store: Store) -> None:
    async def upgrade() -> None:
        engine = create_async_engine(
            bare_store.url, isolation_level="AUTOCOMMIT", poolclass=NullPool
        )
        await migrate.aupgrade(engine)

    bare_store.run(upgrade())
    assert revision_of(bare_store) == migrate.HEAD


@on_each_engine
def test_a_connection_without_a_transaction_is_committed(bare_store: Store) -> None:
    with bare_store.engine.connect() as connection:
        assert migrate.current(connection) is None
        migrate.upgrade(connection)
        assert not connection.in_transaction()
    assert revision_of(bare_store) == migrate.HEAD


@with_ddl_in_transactions
def test_an_upgrade_is_part_of_the_callers_transaction(
    bare_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with bare_store.engine.begin() as connection:
        migrate.upgrade(connection)
        connection.execute(text("CREATE TABLE mine (id INTEGER)"))
    assert revision_of(bare_store) == migrate.HEAD
    assert bare_store.count("mine") == 0
    assert not caplog.records


@with_ddl_in_transactions
def test_an_upgrade_that_is_rolled_back_with_the_callers_transaction_is_logged(
    bare_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with bare_store.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        migrate.upgrade(connection)
    assert revision_of(bare_store) is None
    assert ["rolled back" in record.message for record in caplog.records] == [True]


@without
def test_mysql_refuses_to_commit_the_callers_transaction(bare_store: Store) -> None:
    bare_store.sql("CREATE TABLE mine (id INTEGER)")
    with bare_store.engine.connect() as connection:
        connection.execute(text("INSERT INTO mine VALUES (1)"))
        with pytest.raises(ConfigurationError, match="Pass the engine, or commit first"):
            migrate.upgrade(connection)
    assert bare_store.count("mine") == 0
    assert revision_of(bare_store) is None


def test_a_transaction_on_an_autocommit_connection_is_refused(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}", isolation_level="AUTOCOMMIT")
    with (
        engine.begin() as connection,
        pytest.raises(ConfigurationError, match="AUTOCOMMIT"),
    ):
        migrate.upgrade(connection)


@pytest.mark.parametrize("bare_store", ["sqlite"], indirect=True)
def test_an_application_that_begins_sqlites_transactions_itself_upgrades(bare_store: Store) -> None:
    from sqlalchemy import event  # noqa: PLC0415

    engine = create_engine(bare_store.url, poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    migrate.upgrade(engine)
    assert revision_of(bare_store) == migrate.HEAD


# Locks


@contextmanager
def migrating(store: Store) -> Iterator[str]:
    """Be another session that migrates; yield what a message should call it."""
    with store.engine.connect() as connection:
        question = {
            "postgresql": "SELECT pg_backend_pid()",
            "mysql": "SELECT connection_id()",
            "mariadb": "SELECT connection_id()",
            "sqlite": "SELECT 'bare.db'",
        }[connection.dialect.name]
        name = str(connection.scalar(text(question)))
        connection.rollback()
        with locks.migration_lock(connection):
            yield name


@on_each_engine
def test_a_lock_that_cannot_be_had_says_whom_to_wait_for(bare_store: Store) -> None:
    with migrating(bare_store) as name, pytest.raises(SchemaError) as error:
        migrate.upgrade(bare_store.url, lock_timeout=0.5)
    assert name in str(error.value)
    assert "0.5 seconds" in str(error.value)
    migrate.upgrade(bare_store.url, lock_timeout=0.5)
    assert revision_of(bare_store) == migrate.HEAD


@pytest.mark.parametrize("bare_store", ["pg-psycopg"], indirect=True)
def test_a_lock_is_waited_for_in_the_callers_transaction_too(bare_store: Store) -> None:
    with (
        migrating(bare_store) as name,
        pytest.raises(SchemaError) as error,
        bare_store.engine.begin() as connection,
    ):
        migrate.upgrade(connection, lock_timeout=0.5)
    assert f"backend {name}" in str(error.value)


def test_another_thread_that_migrates_is_waited_for_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = threading.Lock()
    monkeypatch.setattr(migrate, "_process_lock", lock)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with lock:
        with pytest.raises(SchemaError, match="thread or task of this process"):
            migrate.upgrade(url, lock_timeout=0.1)
        with pytest.raises(SchemaError, match="thread or task of this process"):
            asyncio.run(migrate.aupgrade(url, lock_timeout=0.1))
    migrate.upgrade(url, lock_timeout=0.1)


@on_each_engine
def test_eight_threads_upgrade_one_database(bare_store: Store) -> None:
    errors: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(bare_store.url)
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert bare_store.sql(f"SELECT version_num FROM {migrate.VERSION_TABLE}") == [(migrate.HEAD,)]


@on_async_drivers
def test_eight_tasks_upgrade_one_database(bare_store: Store) -> None:
    async def upgrade() -> None:
        await asyncio.gather(*(migrate.aupgrade(bare_store.url) for _ in range(8)))

    bare_store.run(upgrade())
    assert bare_store.sql(f"SELECT version_num FROM {migrate.VERSION_TABLE}") == [(migrate.HEAD,)]


@pytest.mark.parametrize("bare_store", ["sqlite"], indirect=True)
def test_an_upgrade_inside_an_applications_alembic_is_refused(bare_store: Store) -> None:
    config = Config(migrate.ini_path())
    with (
        EnvironmentContext(config, ScriptDirectory.from_config(config)),
        pytest.raises(ConfigurationError, match="version_locations"),
    ):
        migrate.upgrade(bare_store.engine)
    assert revision_of(bare_store) is None


# Knowing where one stands


@on_each_engine
def test_verify_changes_nothing(bare_store: Store) -> None:
    with pytest.raises(SchemaError), bare_store.statements() as statements:
        migrate.verify(bare_store.engine)
    assert not on_connection(bare_store, lambda connection: inspect(connection).get_table_names())
    changes = ("CREATE", "ALTER", "INSERT", "UPDATE", "DELETE")
    assert not [s for s in statements.texts if s.lstrip().upper().startswith(changes)]


def test_verify_makes_no_sqlite_file_and_leaves_its_journal(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with pytest.raises(Exception, match="unable to open"):
        migrate.verify(f"sqlite:///{file}")
    assert not file.exists()
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE mine (id INTEGER)"))
    before = file.read_bytes()
    with pytest.raises(SchemaError):
        migrate.verify(f"sqlite:///{file}")
    assert file.read_bytes() == before


@pytest.mark.parametrize("bare_store", ["sqlite", "pg-asyncpg", "mysql-pymysql"], indirect=True)
def test_tables_without_a_revision_are_told_from_no_tables(bare_store: Store) -> None:
    bare_store.setup()
    bare_store.sql(f"DROP TABLE {migrate.VERSION_TABLE}")
    saver = bare_store.using(bare_store.make_saver())
    with pytest.raises(SchemaError, match=r"aren't migrated yet.*checkpoint-sa upgrade"):
        saver.list(None)
    bare_store.setup()
    assert saver.list(None) == []


@pytest.mark.parametrize("bare_store", ["sqlite", "pg-asyncpg", "mysql-pymysql"], indirect=True)
@pytest.mark.parametrize(
    ("revision", "outcome"),
    [
        (migrate.HEAD, ""),
        ("checkpoint_sa_0001", "checkpoint_sa_0001.*the application's `alembic upgrade heads`"),
        ("checkpoint_sa_9999", "Install the release"),
        ("0123456789ab", "at no revision"),
    ],
)
def test_the_revision_is_found_in_an_applications_version_table(
    bare_store: Store, revision: str, outcome: str
) -> None:
    bare_store.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    bare_store.sql(f"INSERT INTO alembic_version VALUES ('{revision}'), ('f00')")
    if not outcome:
        for name in ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_deltas"):
            bare_store.sql(f"CREATE TABLE {name} (x INTEGER)")
        on_connection(bare_store, migrate.verify)
        bare_store.setup()
        assert bare_store.count("alembic_version") == 2
        return
    with pytest.raises(SchemaError, match=outcome):
        bare_store.get_tuple({"configurable": {"thread_id": "t"}})


@pytest.mark.parametrize("bare_store", ["sqlite", "pg-asyncpg"], indirect=True)
def test_setup_leaves_an_applications_branch_to_the_application(bare_store: Store) -> None:
    bare_store.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    bare_store.sql("INSERT INTO alembic_version VALUES ('checkpoint_sa_0001')")
    with pytest.raises(SchemaError, match="the application's `alembic upgrade heads`"):
        bare_store.setup()


# Scripts

DIALECTS = ["postgresql", "mysql", "mariadb", "sqlite", "mssql", "oracle"]
DRIVERS = "psycopg psycopg2 asyncpg pymysql MySQLdb aiomysql aiosqlite pyodbc oracledb cx_Oracle"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_script_needs_no_driver(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in DRIVERS.split():
        monkeypatch.setitem(sys.modules, driver, None)
    script = migrate.sql(dialect)
    assert script.count("CREATE TABLE") == 7
    assert "ix_checkpoints_run_id" in script
    assert "VALUES ('checkpoint_sa_0001')" in script
    assert script == migrate.sql(f"{dialect}://user:secret@host/database")
    back = migrate.sql(dialect, f"{migrate.HEAD}:base", downgrade=True)
    assert back.count("DROP TABLE") == 6


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_script_puts_everything_into_the_schema(dialect: str) -> None:
    script = migrate.sql(dialect, schema="agents")
    for line in script.splitlines():
        if line.startswith(("CREATE TABLE", "INSERT", "UPDATE")):
            assert "agents." in line


def test_a_script_of_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'nosuch'"):
        migrate.sql("nosuch")


@on_each_engine
def test_a_script_makes_what_an_upgrade_makes(bare_store: Store) -> None:
    bare_store.setup()
    expected = structure(bare_store)
    migrate.downgrade(bare_store.engine, "base")
    bare_store.sql(f"DROP TABLE {migrate.VERSION_TABLE}")
    run_script(bare_store, migrate.sql(bare_store.engine))
    assert structure(bare_store) == expected
    migrate.verify(bare_store.engine)
    run_script(bare_store, migrate.sql(bare_store.engine, f"{migrate.HEAD}:base", downgrade=True))
    assert revision_of(bare_store) is None


def run_script(store: Store, script: str) -> None:
    driver = create_engine(store.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with driver.connect() as connection:
        for statement in script.split(";\n"):
            lines = [line for line in statement.splitlines() if not line.startswith("--")]
            if sql := "\n".join(lines).strip():
                connection.exec_driver_sql(sql)


@pytest.mark.parametrize("bare_store", ["pg-psycopg"], indirect=True)
def test_a_script_completes_the_tables_of_the_postgres_saver(bare_store: Store) -> None:
    from test_migration_adoption import contents, make_peer_tables  # noqa: PLC0415

    make_peer_tables(bare_store, 3)
    columns = {"checkpoints": ["thread_id", "metadata", "checkpoint_id"]}
    before = contents(bare_store, columns)
    run_script(bare_store, migrate.sql(bare_store.engine))
    migrate.verify(bare_store.engine)
    assert contents(bare_store, columns) == before
    bare_store.save("new", {"a": [1]})


def test_alembic_is_not_imported_before_it_is_needed(tmp_path: Path) -> None:
    program = (
        "import sys, checkpoint_sa.cli; from checkpoint_sa import SQLAlchemySaver;"
        "print('alembic' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout == "False\n"


# An application's autogenerate


@pytest.mark.parametrize(
    ("schema_of_table", "schema", "ours"),
    [(None, None, True), ("agents", "agents", True), ("agents", None, False)],
)
def test_include_object_leaves_out_our_tables_in_their_schema_only(
    schema_of_table: str | None, schema: str | None, ours: bool
) -> None:
    from sqlalchemy import Column, Integer, MetaData, Table  # noqa: PLC0415

    def include(name: str, kind: str = "table") -> bool:
        table = Table(name, MetaData(), schema=schema_of_table)
        return migrate.include_object(table, name, kind, True, None, schema=schema)

    for name in (*metadata.tables, migrate.VERSION_TABLE):
        assert include(name) is not ours
    assert include("orders")
    assert include("checkpoints", "column")
    shop = Table("store", MetaData(), Column("id", Integer), schema=schema_of_table)
    assert migrate.include_object(shop, "store", "table", True, None, schema=schema)


def test_verify_looks_whether_the_tables_are_there(bare_store: Store) -> None:
    bare_store.setup()
    bare_store.sql("DROP TABLE checkpoint_deltas")
    with pytest.raises(SchemaError, match="has no table checkpoint_deltas"):
        on_connection(bare_store, migrate.verify)


def test_with_two_version_tables_the_application_downgrades(sqlite_store: Store) -> None:
    sqlite_store.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    sqlite_store.sql("INSERT INTO alembic_version VALUES (:head)", head=migrate.HEAD)
    with pytest.raises(SchemaError, match=r"alembic downgrade checkpoint_sa@base"):
        migrate.downgrade(sqlite_store.engine, "base")
    assert migrate.verify(sqlite_store.engine) == migrate.HEAD
