"""An INSERT that keeps or updates an existing row, on every engine.

It replaces the constructs of the dialects: these must know the dialect when the statement is built,
and SQLAlchemy 2.0 doesn't cache them (0.16 to 0.55 ms a call).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Insert
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

from checkpoint_sa.types import MYSQL_FAMILY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Dialect, Table
    from sqlalchemy.sql.compiler import SQLCompiler


class Upsert(Insert):
    """`INSERT`, and on a conflict of the primary key update some columns, or none.

    Args:
        table: The table; a conflict is a conflict of its primary key.
        update: Columns that take the new row's value on a conflict. Empty keeps the old row.
    """

    inherit_cache = True
    stringify_dialect = "sqlite"
    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy makes the cache key from these
        *Insert._traverse_internals,  # noqa: SLF001
        ("update", InternalTraversal.dp_plain_obj),
    ]

    def __init__(self, table: Table, *, update: Sequence[str] = ()) -> None:
        super().__init__(table)
        self.update = tuple(update)
        self.key = tuple(column.name for column in table.primary_key)


class UpsertRows(Upsert):
    """An `Upsert` of several rows by one statement, which is compiled once for each number of rows.

    Args:
        table: The table.
        row: Returns column -> value of the row with a number, from 0 on. A module's function: it is
            part of the statement's cache key.
        count: How many rows.
        update: Columns that take the new row's value on a conflict.
    """

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012
        *Upsert._traverse_internals,  # noqa: SLF001
        ("row", InternalTraversal.dp_plain_obj),
        ("count", InternalTraversal.dp_plain_obj),
    ]

    def __init__(
        self,
        table: Table,
        row: Callable[[int], dict[str, ColumnElement[Any]]],
        count: int,
        *,
        update: Sequence[str] = (),
    ) -> None:
        super().__init__(table, update=update)
        self.row = row
        self.count = count


def _insert(element: Upsert, compiler: SQLCompiler, **kw: Any) -> str:
    if not isinstance(element, UpsertRows):
        return compiler.visit_insert(element, **kw)  # type: ignore[no-any-return, no-untyped-call]
    rows = [element.row(i) for i in range(element.count)]
    names = ", ".join(map(compiler.preparer.quote, rows[0]))
    values = (", ".join(compiler.process(value, **kw) for value in row.values()) for row in rows)
    table = compiler.preparer.format_table(element.table)
    # Names of a table and its columns, and the values as SQLAlchemy compiles them.
    return f"INSERT INTO {table} ({names}) VALUES {', '.join(f'({row})' for row in values)}"  # noqa: S608


@compiles(Upsert)
def _no_rule(element: Upsert, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001
    raise CompileError(
        f"checkpoint_sa has no upsert for the dialect {compiler.dialect.name!r}."
        " Register a rule with sqlalchemy.ext.compiler.compiles(checkpoint_sa.upsert.Upsert,"
        f" {compiler.dialect.name!r})."
    )


def _on_conflict(element: Upsert, compiler: SQLCompiler, **kw: Any) -> str:
    insert = _insert(element, compiler, **kw)
    quote = compiler.preparer.quote
    key = ", ".join(map(quote, element.key))
    if not element.update:
        return f"{insert} ON CONFLICT ({key}) DO NOTHING"
    changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in element.update)
    return f"{insert} ON CONFLICT ({key}) DO UPDATE SET {changes}"


def _on_duplicate_key(element: Upsert, compiler: SQLCompiler, **kw: Any) -> str:
    # Not INSERT IGNORE: it swallows truncation and NULLs as well.
    insert = _insert(element, compiler, **kw)
    quote = compiler.preparer.quote
    if not element.update:
        first = quote(element.key[0])
        return f"{insert} ON DUPLICATE KEY UPDATE {first} = {first}"
    # VALUES() is MariaDB's only way; MySQL 8.0.20 and later warn about it at every statement.
    dialect = compiler.dialect
    warns = not getattr(dialect, "is_mariadb", False) and (
        (dialect.server_version_info or ()) >= (8, 0, 20)
    )
    new = "{0} = new.{0}" if warns else "{0} = VALUES({0})"
    changes = ", ".join(new.format(quote(name)) for name in element.update)
    return f"{insert}{' AS new' if warns else ''} ON DUPLICATE KEY UPDATE {changes}"


NESTING = {"postgresql", "cockroachdb"}
"""Dialects where one statement may hold several INSERTs (`WITH ... AS (INSERT ...) INSERT ...`).

SQLAlchemy drops such a WITH without a word on the MySQL family; SQLite has no such syntax.
"""

SELECTING = {*NESTING, "sqlite"}
"""Dialects where INSERT takes a SELECT of parameters, a row each.

MySQL takes the parameters of two rows for text of one character set; bytes aren't such text.
"""

RECORDS = {"postgresql", "cockroachdb"}
"""Dialects where an INSERT may read its rows from a list as JSON, by `json_to_recordset`."""

ROWS = {*SELECTING, *MYSQL_FAMILY}
"""Dialects whose rule for `Upsert` knows `UpsertRows`."""

MAX_PARAMETERS: dict[str, int] = {}
"""By dialect, the most parameters of a statement; of those that take fewer than some thousand."""

_BATCH_BYTES = dict.fromkeys(("pymysql", "aiomysql", "asyncmy"), 256 * 1024)
"""Drivers that send an executemany as one INSERT, and the most bytes of its values.

They end a statement at 1,024,000 bytes of text, in which a byte of a value takes at most two.
"""


def supports_insert_ctes(dialect: Dialect) -> bool:
    """Whether rows of two tables can be stored by one statement."""
    return dialect.name in NESTING


def supports_insert_select(dialect: Dialect) -> bool:
    """Whether several rows can be stored by one statement."""
    return dialect.name in SELECTING


def supports_records(dialect: Dialect) -> bool:
    """Whether an INSERT may read its rows from a list as JSON."""
    return dialect.name in RECORDS


def supports_rows(dialect: Dialect) -> bool:
    """Whether one INSERT may store several rows; otherwise it is executed once for each."""
    return dialect.name in ROWS


def rows_at_once(dialect: Dialect, columns: int, most: int) -> int:
    """Return how many rows of so many parameters a statement stores, at most."""
    return min(most, MAX_PARAMETERS.get(dialect.name, most * columns) // columns)


def driver_batches(dialect: Dialect, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the driver makes one statement of these rows, by the size of their blobs."""
    most = _BATCH_BYTES.get(dialect.driver)
    return most is not None and sum(len(row["blob"]) for row in rows) <= most


for _dialect in ("postgresql", "cockroachdb", "sqlite"):
    compiles(Upsert, _dialect)(_on_conflict)
for _dialect in ("mysql", "mariadb"):
    compiles(Upsert, _dialect)(_on_duplicate_key)
