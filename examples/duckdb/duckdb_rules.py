"""checkpoint_sa on DuckDB: the rules for its dialect, which is the package duckdb-sqlalchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb_sqlalchemy
from alembic.ddl.impl import DefaultImpl
from sqlalchemy import ForeignKeyConstraint
from sqlalchemy.dialects import registry
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

from checkpoint_sa.types import byte_length, metadata_contains
from checkpoint_sa.upsert import Upsert

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler

_Compiler: Any = duckdb_sqlalchemy.Dialect.statement_compiler


class DuckDBCompiler(_Compiler):  # type: ignore[misc]
    """The statements of a dialect that takes PostgreSQL's compiler for its base."""

    def for_update_clause(self, select: Any, **kw: Any) -> str:  # noqa: ARG002
        """Lock no rows: DuckDB compares two transactions at their commit, and has no FOR UPDATE."""
        return ""


class DuckDB(duckdb_sqlalchemy.Dialect):
    """The dialect of `duckdb://` URLs."""

    supports_statement_cache = True
    statement_compiler = DuckDBCompiler


registry.register("duckdb", __name__, "DuckDB")


class DuckDBImpl(DefaultImpl):
    """How Alembic changes tables: without one it knows no `duckdb`."""

    __dialect__ = "duckdb"


# Required of every engine: there is no standard SQL for it.
@compiles(Upsert, "duckdb")
def insert_or_update(element: Upsert, compiler: SQLCompiler, **kw: Any) -> str:
    """INSERT, and update `element.update` where the primary key is there; leave all if empty."""
    insert = compiler.visit_insert(element, **kw)  # type: ignore[no-untyped-call]
    key = ", ".join(map(compiler.preparer.quote, element.key))
    changes = ", ".join(f"{name} = excluded.{name}" for name in element.update)
    action = f"UPDATE SET {changes}" if changes else "NOTHING"
    return f"{insert} ON CONFLICT ({key}) DO {action}"


# DuckDB's OCTET_LENGTH takes bytes only, and its LENGTH counts characters.
@compiles(byte_length, "duckdb")
def size(element: byte_length, compiler: SQLCompiler, **kw: Any) -> str:
    """Return the size of bytes, of a text, or of a JSON document as text."""
    found = compiler.process(next(iter(element.clauses)), **kw)
    return f"OCTET_LENGTH({found})" if element.of_bytes else f"STRLEN(CAST({found} AS VARCHAR))"


# Optional, for speed: the engine compares a filter, where the default reads every row.
@compiles(metadata_contains, "duckdb")
def contains(element: metadata_contains, compiler: SQLCompiler, **kw: Any) -> str:
    """Whether the document has the members of a filter."""
    metadata, wanted = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"JSON_CONTAINS({metadata}, {wanted})"


# The tables, by Alembic: DuckDB has neither partial indexes nor ON DELETE.
@compiles(CreateIndex, "duckdb")
def create_index(create: CreateIndex, compiler: DDLCompiler, **_: Any) -> str:
    """Index all rows."""
    index, preparer = create.element, compiler.preparer
    columns = ", ".join(preparer.quote(column.name) for column in index.columns)
    assert index.table is not None
    name, table = preparer.format_index(index), preparer.format_table(index.table)
    return f"CREATE INDEX {name} ON {table} ({columns})"


@compiles(ForeignKeyConstraint, "duckdb")
def foreign_key(constraint: ForeignKeyConstraint, compiler: DDLCompiler, **kw: Any) -> str:
    """Declare a foreign key without its action."""
    text: str = compiler.visit_foreign_key_constraint(constraint, **kw)
    return text.removesuffix(" ON DELETE CASCADE")
