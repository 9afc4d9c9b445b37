"""Column types and SQL constructs that keep one meaning on every engine.

Another dialect joins by SQLAlchemy's own means: `@compiles` on a construct, a variant on a type.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, VARBINARY, LargeBinary, String, Text, literal_column
from sqlalchemy.dialects import mssql
from sqlalchemy.dialects.mysql import LONGBLOB, MEDIUMBLOB
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import ColumnElement

MYSQL_FAMILY = ("mysql", "mariadb")
POSTGRESQL_FAMILY = ("postgresql", "cockroachdb")


class _BinaryKey(TypeDecorator[str]):
    """Text as UTF-8 in a binary column."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, length: int | None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:  # noqa: ARG002
        """Return the column's type."""
        return MEDIUMBLOB() if self.length is None else VARBINARY(self.length)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        """Encode."""
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Decode; a literal in a UNION may come as text."""
        return value.decode() if isinstance(value, bytes | bytearray) else value


def key(length: int | None = None) -> TypeEngine[str]:
    """Return the type of text that equals itself only: case, accents and trailing blanks count.

    PostgreSQL's TEXT and SQLite's TEXT compare bytes. The MySQL family compares by collation, whose
    defaults fold case and accents and whose binary ones still pad with blanks, so keys are UTF-8 in
    VARBINARY there; it also counts bytes, which is what lets 2000 bytes of namespace fit into
    InnoDB's 3072 bytes of key.
    """
    text: TypeEngine[str] = Text() if length is None else String(length)
    return text.with_variant(Text(), *POSTGRESQL_FAMILY, "sqlite").with_variant(
        _BinaryKey(length), *MYSQL_FAMILY
    )


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


class channel_versions(FunctionElement[Any]):  # noqa: N801
    """The `channel_versions` of a checkpoint as rows of `key` and `value`, both text.

    Lets a checkpoint be read with its values in one statement. An engine without a rule reads them
    with a second one; `REACH` says which engines have a rule.
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


def _postgresql_versions(element: channel_versions, compiler: SQLCompiler, **kw: Any) -> str:
    document = compiler.process(next(iter(element.clauses)), **kw)
    return f"jsonb_each_text({document} -> 'channel_versions')"


@compiles(channel_versions, "sqlite")
def _sqlite_versions(element: channel_versions, compiler: SQLCompiler, **kw: Any) -> str:
    document = compiler.process(next(iter(element.clauses)), **kw)
    return f"json_each({document}, '$.channel_versions')"


def _postgresql_run_id(element: peer_run_id, compiler: SQLCompiler, **kw: Any) -> str:
    # The key is spelled out, not bound: the partial index has it as a constant.
    return f"({compiler.process(next(iter(element.clauses)), **kw)} ->> 'run_id')"


for _dialect in POSTGRESQL_FAMILY:
    compiles(to_json, _dialect)(_postgresql_to_json)
    compiles(json_text, _dialect)(_postgresql_json_text)
    compiles(metadata_contains, _dialect)(_postgresql_contains)
    compiles(peer_run_id, _dialect)(_postgresql_run_id)
    compiles(channel_versions, _dialect)(_postgresql_versions)


class Reach(Enum):
    """How far into a checkpoint's JSON one statement can look."""

    NONE = "none"
    """There is no rule for `channel_versions`: values are read with a second statement."""
    JOIN = "join"
    """Values are joined to `channel_versions`; the engine looks each one up in the index."""
    LATERAL = "lateral"
    """The same, spelled out as a look-up each: a planner with a choice might read the table."""


REACH: dict[str, Reach] = {
    **dict.fromkeys(POSTGRESQL_FAMILY, Reach.LATERAL),
    "sqlite": Reach.JOIN,
}
"""By dialect; others have none."""


def reach(dialect: Dialect) -> Reach:
    """Return how far one statement can look."""
    return REACH.get(dialect.name, Reach.NONE)


def no_key() -> ColumnElement[str]:
    """Return an empty key, to fill a column in an arm of a UNION."""
    return literal_column("''", key())
