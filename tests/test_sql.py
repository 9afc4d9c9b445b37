"""The SQL of the statements that every step of a graph sends, as text for a reader to see.

    CHECKPOINT_SA_WRITE_SQL=1 python -m pytest tests/test_sql.py

writes tests/sql anew. A change of the text that nobody meant fails here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Insert
from sqlalchemy import __version__ as sqlalchemy_version
from sqlalchemy.dialects import mysql, postgresql, sqlite

from checkpoint_sa import types
from checkpoint_sa.sql import reading as reading_sql
from checkpoint_sa.sql import tables
from checkpoint_sa.sql import writing as writing_sql
from checkpoint_sa.store import sql as store_sql
from checkpoint_sa.types import ValueLookup, value_lookup
from checkpoint_sa.upsert import (
    UpsertRows,
    supports_insert_ctes,
    supports_insert_select,
    supports_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Dialect
    from sqlalchemy.sql import ClauseElement

_BEGIN_A_LINE = ("UNION ALL", "VALUES", "ON CONFLICT", "ON DUPLICATE KEY", "SELECT", "ORDER BY")

_EXTRACTED = "JSON_EXTRACT(found.checkpoint, ?)"

FOLDER = Path(__file__).parent / "sql"


def dialects() -> Iterator[tuple[str, Dialect]]:
    yield "sqlite", sqlite.dialect()
    yield "postgresql", postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
    for name, version in (("mysql", (9, 7, 0)), ("mariadb", (10, 11, 0))):
        dialect: Any = mysql.pymysql.dialect(is_mariadb=name == "mariadb")
        dialect.name = name
        dialect.server_version_info = version
        yield name, dialect


DIALECTS = dict(dialects())

_PLAIN = ("thread_id", "checkpoint_ns", "channel", "version", "type", "blob")
_KEYS: dict[Any, list[str]] = {
    table: [column.name for column in table.c if column.name not in tables.DOCUMENTS]
    for table in (tables.blobs, tables.writes, tables.deltas, tables.checkpoints)
}
"""The columns that a row gives a value for: documents are JSON text in another parameter."""


def hot(dialect: Dialect) -> Iterator[tuple[str, ClauseElement]]:
    """Yield the statements of put, put_writes, get_tuple and a page of list, and of the store."""
    if supports_insert_ctes(dialect):
        yield "put: two values", writing_sql.put_at_once(2, 0)
        yield "put, incremental: one value whole, one as a delta", writing_sql.put_at_once(1, 1)
    else:
        if supports_insert_select(dialect):
            yield "put: two values", writing_sql.put_blobs_at_once(2)
        else:
            yield "put: values", writing_sql.PUT_BLOBS
        yield "put: checkpoint", writing_sql.PUT_CHECKPOINT
        if supports_insert_select(dialect):
            yield "put, incremental: the row of a chain", writing_sql.put_deltas(1)
        else:
            yield "put, incremental: lock the values that are appended to", writing_sql.LOCK_BASES
            yield "put, incremental: the rows of chains", writing_sql.PUT_DELTAS
        yield "put, incremental: values in chains", writing_sql.PUT_CHAINED
    if supports_insert_select(dialect):
        yield "put_writes: two ordinary ones", writing_sql.put_writes_at_once(2, special=False)
        yield "put_writes: two special ones", writing_sql.put_writes_at_once(2, special=True)
    else:
        yield "put_writes: ordinary ones", writing_sql.PUT_WRITES
        yield "put_writes: special ones", writing_sql.REPLACE_WRITES
    lookup = value_lookup(dialect)
    if lookup is ValueLookup.SECOND_STATEMENT:
        yield "get_tuple: the latest", reading_sql.GET_LATEST_HEAD
        yield "get_tuple: one", reading_sql.GET_HEAD
        yield "get_tuple: its parts, two values", reading_sql.parts(2, chains=False)
        yield "get_tuple, incremental: its parts, two values", reading_sql.parts(2, chains=True)
    else:
        yield "get_tuple: the latest", reading_sql.GET_LATEST[lookup, False]
        yield "get_tuple: one", reading_sql.GET_ONE[lookup, False]
        yield "get_tuple, incremental: the latest", reading_sql.GET_LATEST[lookup, True]
    page = reading_sql.page(
        lookup=lookup,
        thread=True,
        namespace=True,
        checkpoint=False,
        before=False,
        filtered=False,
        after=True,
        size=10,
    )
    yield "list: a page of a namespace", page
    if lookup is ValueLookup.SECOND_STATEMENT:
        yield "list: the parts of a page", reading_sql.GET_PARTS
    yield "store: get", store_sql.GET_ITEM
    yield "store: get several", store_sql.GET_ITEMS
    yield "store: put two", store_sql.put_items(2)
    if supports_records(dialect):
        yield "store: put several", store_sql.PUT_RECORDS
    yield "store: delete", store_sql.DELETE_ITEM
    yield "store: let times to live begin anew", store_sql.REFRESH_ITEMS
    search = store_sql.search(is_scoped=True, has_filter=True, is_later_page=False)
    yield "store: search a namespace with a filter", search


def text(dialect: Dialect) -> str:
    blocks = []
    for name, statement in hot(dialect):
        keys = None
        if isinstance(statement, Insert) and not isinstance(statement, UpsertRows):
            keys = _PLAIN if statement is writing_sql.PUT_BLOBS else _KEYS.get(statement.table)
        compiled = str(statement.compile(dialect=dialect, column_keys=keys))
        for words in _BEGIN_A_LINE:
            compiled = compiled.replace(f" {words} ", f"\n{words} ")
        lines = (line.strip() for line in compiled.splitlines() if line.strip())
        blocks.append("\n".join([f"-- {name}", *lines]) + ";\n")
    return "\n".join(blocks)


@pytest.mark.parametrize("name", list(DIALECTS))
def test_the_sql_is_the_one_in_the_file(name: str) -> None:
    file = FOLDER / f"{name}.sql"
    found = text(DIALECTS[name])
    if os.environ.get("CHECKPOINT_SA_WRITE_SQL"):
        file.write_text(found)
    expected = file.read_text()
    if sqlalchemy_version.startswith("2.0"):  # it doesn't cast there
        expected = expected.replace(f"CAST({_EXTRACTED} AS INTEGER)", _EXTRACTED)
    assert found == expected


def test_the_old_names_of_the_value_lookup_still_work() -> None:
    assert types.Reach is ValueLookup
    assert ValueLookup["NONE"] is ValueLookup.SECOND_STATEMENT
    assert types.REACH is types.VALUE_LOOKUP
    assert types.reach is value_lookup
