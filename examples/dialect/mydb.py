"""A dialect of a third party: here SQLite under another name, so that the example runs anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.compiler import compiles

from checkpoint_sa.types import (
    VALUE_LOOKUP,
    ValueLookup,
    byte_length,
    channel_versions,
    minutes_from_now,
    utc_now,
)
from checkpoint_sa.upsert import Upsert

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


class MyDialect(SQLiteDialect_pysqlite):
    """The dialect of `mydb://` URLs."""

    name = "mydb"
    supports_statement_cache = True


# A published dialect is an entry point of the group sqlalchemy.dialects.
registry.register("mydb", __name__, "MyDialect")


class MyImpl(SQLiteImpl):
    """How Alembic changes tables: without one it knows no `mydb`."""

    __dialect__ = "mydb"


# Required of every engine: there is no standard SQL for it.
@compiles(Upsert, "mydb")
def insert_or_update(element: Upsert, compiler: SQLCompiler, **kw: Any) -> str:
    """INSERT, and update `element.update` where the primary key is there; leave all if empty."""
    insert = compiler.visit_insert(element, **kw)  # type: ignore[no-untyped-call]
    key = ", ".join(map(compiler.preparer.quote, element.key))
    changes = ", ".join(f"{name} = excluded.{name}" for name in element.update)
    action = f"UPDATE SET {changes}" if changes else "NOTHING"
    return f"{insert} ON CONFLICT ({key}) DO {action}"


# Where the engine has no OCTET_LENGTH, or has it for text or for bytes only.
@compiles(byte_length, "mydb")
def size(element: byte_length, compiler: SQLCompiler, **kw: Any) -> str:
    """Return the size of bytes, or of a text in UTF-8."""
    found = compiler.process(next(iter(element.clauses)), **kw)
    return f"LENGTH({found})" if element.of_bytes else f"LENGTH(CAST({found} AS BLOB))"


# The long-term memory, where the engine has no CURRENT_TIMESTAMP in UTC or no INTERVAL.
_TIME = "STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'{})"


@compiles(utc_now, "mydb")
def now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001
    """Return the time in UTC, as a DateTime column has it."""
    return _TIME.format("")


@compiles(minutes_from_now, "mydb")
def later(element: minutes_from_now, compiler: SQLCompiler, **kw: Any) -> str:
    """Return a time some minutes from now; NULL for NULL."""
    minutes = compiler.process(next(iter(element.clauses)), **kw)
    return _TIME.format(f", ({minutes} * 60) || ' seconds'")


# Optional, for speed: one statement instead of two reads a checkpoint with its values.
@compiles(channel_versions, "mydb")
def versions(element: channel_versions, compiler: SQLCompiler, **kw: Any) -> str:
    """Return the channel_versions of a checkpoint as rows of key and value."""
    document = compiler.process(next(iter(element.clauses)), **kw)
    return f"json_each({document}, '$.channel_versions')"


VALUE_LOOKUP["mydb"] = ValueLookup.JOIN
