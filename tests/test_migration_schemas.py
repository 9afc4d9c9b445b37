"""Several stores in one database, each in a schema of its own, its revision included."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from databases import bare_store, on_connection, sync_url
from sqlalchemy import event, inspect
from stores import KINDS, Store, thread

from checkpoint_sa import SchemaError, metadata, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["bare_store"]

SCHEMAS = ("one_store", "Another store")


@pytest.fixture
def schemas(bare_store: Store, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Make two schemas: databases on MySQL and MariaDB, attached files on SQLite."""
    if bare_store.kind.server:
        quote = '"' if bare_store.kind.server == "postgresql" else "`"
        for schema in SCHEMAS:
            bare_store.sql(f"CREATE SCHEMA {quote}{schema}{quote}")
        yield SCHEMAS
        if bare_store.kind.server != "postgresql":
            for schema in SCHEMAS:
                bare_store.sql(f"DROP SCHEMA `{schema}`")
        return

    def attach(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for number, schema in enumerate(SCHEMAS):
            cursor.execute(f"ATTACH '{tmp_path / f'attached{number}.db'}' AS \"{schema}\"")
        cursor.close()

    event.listen(bare_store.engine, "connect", attach)
    yield SCHEMAS


def tables(store: Store, schema: str | None) -> set[str]:
    return on_connection(store, lambda c: set(inspect(c).get_table_names(schema=schema)))


def test_two_stores_live_side_by_side(bare_store: Store, schemas: tuple[str, str]) -> None:
    first, second = (bare_store.using(bare_store.make_saver(schema=name)) for name in schemas)
    first.setup()
    with pytest.raises(SchemaError, match=f"in schema '{schemas[1]}'.*--schema {schemas[1]}"):
        second.get_tuple(thread())
    second.setup()
    first.save("t", {"a": [1]}, metadata={"run_id": "r"})
    first.put_writes(first.found(thread()).config, [("a", 2)], "task")
    second.save("t", {"a": [2]})
    assert first.found(thread()).checkpoint["channel_values"] == {"a": [1]}
    assert second.found(thread()).checkpoint["channel_values"] == {"a": [2]}
    first.delete_for_runs(["r"])
    assert first.get_tuple(thread()) is None
    assert len(second.list(None)) == 1
    ours = {*metadata.tables, migrate.VERSION_TABLE}
    assert [tables(bare_store, name) for name in (None, *schemas)] == [set(), ours, ours]


@pytest.mark.parametrize(
    "bare_store", ["sqlite", "pg-psycopg", "mariadb-pymysql", "mysql-pymysql"], indirect=True
)
def test_one_store_is_migrated_without_the_other(
    bare_store: Store, schemas: tuple[str, str]
) -> None:
    one, other = schemas
    for schema in schemas:
        migrate.upgrade(bare_store.engine, schema=schema)
    migrate.downgrade(bare_store.engine, "checkpoint_sa_0001", schema=one)
    assert migrate.current(bare_store.engine, schema=one) == "checkpoint_sa_0001"
    assert migrate.current(bare_store.engine, schema=other) == migrate.HEAD
    migrate.upgrade(bare_store.engine, schema=one)
    migrate.downgrade(bare_store.engine, "base", schema=other)
    assert tables(bare_store, other) == {migrate.VERSION_TABLE}
    migrate.verify(bare_store.engine, schema=one)


@pytest.mark.parametrize(
    "bare_store", ["pg-psycopg", "pg-asyncpg", "mysql-pymysql", "mariadb-async"], indirect=True
)
def test_the_alembic_command_takes_a_schema(bare_store: Store, schemas: tuple[str, str]) -> None:
    one, _ = schemas
    command = [sys.executable, "-m", "alembic", "-c", str(migrate.ini_path())]
    for arguments in (["upgrade", "head"], ["check"]):
        subprocess.run(
            [*command, f"-xurl={bare_store.url}", f"-xschema={one}", *arguments],
            check=True,
            capture_output=True,
            cwd="/",
        )
    migrate.verify(sync_url(bare_store), schema=one)
    assert tables(bare_store, None) == set()


@pytest.mark.parametrize("bare_store", ["pg-psycopg"], indirect=True)
def test_tables_of_the_postgres_saver_in_a_schema_are_adopted(
    bare_store: Store, schemas: tuple[str, str]
) -> None:
    from test_migration_adoption import make_peer_tables  # noqa: PLC0415

    one, _ = schemas
    there = Store(KINDS["pg-psycopg"], f"{bare_store.url}?options=-csearch_path%3D{one}")
    make_peer_tables(there, 5)
    migrate.upgrade(bare_store.engine, schema=one)
    saver = bare_store.using(bare_store.make_saver(schema=one))
    assert saver.found(thread()).checkpoint["channel_values"]["large"] == ["large"]
    there.close()


@pytest.mark.parametrize("bare_store", ["mariadb-pymysql"], indirect=True)
def test_tables_of_the_mysql_saver_in_a_schema_are_converted(
    bare_store: Store, schemas: tuple[str, str]
) -> None:
    from test_migration_adoption import fill_mysql_tables, make_mysql_tables  # noqa: PLC0415

    pytest.importorskip("langgraph.checkpoint.mysql.base")
    one, _ = schemas
    there = Store(KINDS["mariadb-pymysql"], bare_store.url.replace("/bare", f"/{one}"))
    make_mysql_tables(there.engine, 21)
    fill_mysql_tables(there.engine)
    migrate.upgrade(bare_store.engine, schema=one)
    saver = bare_store.using(bare_store.make_saver(schema=one))
    assert saver.found(thread("ü")).checkpoint["channel_values"]["small"] == "x"
    there.close()


@pytest.mark.parametrize(
    "bare_store", ["sqlite", "pg-psycopg", "mariadb-pymysql", "mysql-pymysql"], indirect=True
)
def test_a_schema_that_is_not_there_is_an_error_that_says_so(bare_store: Store) -> None:
    with pytest.raises(SchemaError, match="There is no schema 'nowhere'"):
        migrate.upgrade(bare_store.engine, schema="nowhere")
    assert tables(bare_store, None) == set()
