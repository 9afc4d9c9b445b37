"""Column types and SQL constructs that keep one meaning on every engine.

Another dialect joins by SQLAlchemy's own means: `@compiles` on a construct, a variant on a type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, VARBINARY, LargeBinary, String, Text, literal_column, type_coerce
from sqlalchemy.dialects import mssql
from sqlalchemy.dialects.mysql import LONGBLOB, MEDIUMBLOB
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import ColumnElement
    from sqlalchemy.types import TypeEngine

MYSQL_FAMILY = ("mysql", "mariadb")
POSTGRESQL_FAMILY = ("postgresql", "cockroachdb")


class Key(TypeDecorator[str]):
    """Text that equals itself only: case, accents and trailing blanks count.

    PostgreSQL's TEXT and SQLite's TEXT compare bytes. The MySQL family compares by collation, whose
    defaults fold case and accents and whose binary ones still pad with blanks, so keys are UTF-8 in
    VARBINARY there; it also counts bytes, which is what lets 2000 bytes of namespace fit into
    InnoDB's 3072 bytes of key.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the engine's type that compares bytes."""
        if dialect.name in MYSQL_FAMILY:
            return VARBINARY(self.length) if self.length else MEDIUMBLOB()
        if dialect.name in (*POSTGRESQL_FAMILY, "sqlite") or self.length is None:
            return Text()
        return String(self.length)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Encode where the column is binary."""
        if value is not None and dialect.name in MYSQL_FAMILY:
            return value.encode()
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Decode what a binary column, or a literal in a UNION with one, gives back."""
        if isinstance(value, bytes | bytearray):
            return value.decode()
        return value  # type: ignore[no-any-return]


Document = JSON().with_variant(JSONB(), *POSTGRESQL_FAMILY)
"""A JSON document that the engine can look into."""

Blob = (
    LargeBinary()
    .with_variant(LONGBLOB(), *MYSQL_FAMILY)
    .with_variant(
        mssql.VARBINARY("max"),  # type: ignore[no-untyped-call]
        "mssql",
    )
)
"""Bytes of any length: `LargeBinary` alone ends at 65,535 bytes on the MySQL family."""


class to_json(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function that it is
    """JSON text, as the codec wrote it, on its way into a `Document` column."""

    inherit_cache = True
    type = JSON()


class json_text(FunctionElement[str]):  # noqa: N801
    """A `Document`, or a part of one, as JSON text on its way to the codec."""

    inherit_cache = True
    type = Text()


class metadata_contains(FunctionElement[bool]):  # noqa: N801
    """Whether a metadata document may match a filter, both as JSON.

    Says true too often, never too seldom: what matches is decided by `codec.matches`. Without a
    rule for an engine it says true for every row.
    """

    inherit_cache = True


class peer_run_id(FunctionElement[str]):  # noqa: N801
    """The run of a row that langgraph-checkpoint-postgres wrote; NULL where it has no rows."""

    inherit_cache = True
    type = Text()


@compiles(to_json)
@compiles(json_text)
def _as_it_is(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(next(iter(element.clauses)), **kw)


def _postgresql_to_json(element: to_json, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(next(iter(element.clauses)), **kw)} AS JSONB)"


def _postgresql_json_text(element: json_text, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(next(iter(element.clauses)), **kw)} AS TEXT)"


@compiles(metadata_contains)
def _every_row(element: metadata_contains, compiler: SQLCompiler, **kw: Any) -> str:
    _, wanted = element.clauses
    return f"{compiler.process(wanted, **kw)} IS NOT NULL"


def _postgresql_contains(element: metadata_contains, compiler: SQLCompiler, **kw: Any) -> str:
    metadata, wanted = element.clauses
    return f"{compiler.process(metadata, **kw)} @> CAST({compiler.process(wanted, **kw)} AS JSONB)"


@compiles(metadata_contains, "mysql")
@compiles(metadata_contains, "mariadb")
def _mysql_contains(element: metadata_contains, compiler: SQLCompiler, **kw: Any) -> str:
    metadata, wanted = element.clauses
    return f"JSON_CONTAINS({compiler.process(metadata, **kw)}, {compiler.process(wanted, **kw)})"


@compiles(metadata_contains, "sqlite")
def _sqlite_contains(element: metadata_contains, compiler: SQLCompiler, **kw: Any) -> str:
    # Top-level scalars only: `atom` is NULL for null and for containers. Keys and values stay
    # bound data on both sides, so a hostile key is no path.
    metadata, wanted = (compiler.process(clause, **kw) for clause in element.clauses)
    found = f"SELECT 1 FROM json_each({metadata}) AS found"  # noqa: S608 - a column's name
    return (
        f"NOT EXISTS (SELECT 1 FROM json_each({wanted}) AS wanted"  # noqa: S608 - a placeholder
        f" WHERE NOT EXISTS ({found}"
        " WHERE found.key = wanted.key AND found.atom IS wanted.atom))"
    )


@compiles(peer_run_id)
def _no_peer(element: peer_run_id, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001
    return "NULL"


def _postgresql_run_id(element: peer_run_id, compiler: SQLCompiler, **kw: Any) -> str:
    # The key is spelled out, not bound: the partial index has it as a constant.
    return f"({compiler.process(next(iter(element.clauses)), **kw)} ->> 'run_id')"


for _dialect in POSTGRESQL_FAMILY:
    compiles(to_json, _dialect)(_postgresql_to_json)
    compiles(json_text, _dialect)(_postgresql_json_text)
    compiles(metadata_contains, _dialect)(_postgresql_contains)
    compiles(peer_run_id, _dialect)(_postgresql_run_id)


def no_key() -> ColumnElement[str]:
    """Return an empty key, to fill a column in an arm of a UNION."""
    return type_coerce(literal_column("''"), Key())
