"""Column types and SQL constructs that keep one meaning on every engine.

Another dialect joins by SQLAlchemy's own means: `@compiles` on a construct, a variant on a type.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    JSON,
    VARBINARY,
    DateTime,
    Integer,
    LargeBinary,
    String,
    Text,
    any_,
    bindparam,
    cast,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, MEDIUMBLOB
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from checkpoint_sa.times import in_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, Dialect
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

    PostgreSQL's TEXT and SQLite's TEXT compare bytes. The MySQL family compares by collation: the
    defaults fold case and accents, and binary collations still pad with blanks. So keys are UTF-8
    in VARBINARY there. VARBINARY also counts bytes, so that 2000 bytes of namespace fit into
    InnoDB's 3072 bytes of key.
    """
    text: TypeEngine[str] = Text() if length is None else String(length)
    return text.with_variant(Text(), *POSTGRESQL_FAMILY, "sqlite").with_variant(
        _BinaryKey(length), *MYSQL_FAMILY
    )


Document = JSON().with_variant(JSONB(), *POSTGRESQL_FAMILY)
"""A JSON document that the engine can look into."""

Blob = LargeBinary().with_variant(LONGBLOB(), *MYSQL_FAMILY).with_variant(VARBINARY(), "mssql")
"""Bytes of any length: `LargeBinary` alone ends at 65,535 bytes on the MySQL family."""


class UtcTime(TypeDecorator[datetime]):
    """A moment, to the microsecond: aware and in UTC in Python, in UTC in the database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column's type."""
        is_mysql = dialect.name in MYSQL_FAMILY
        return dialect.type_descriptor(DATETIME(fsp=6) if is_mysql else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; engines without a zone in their type get none."""
        if value is None or dialect.name in POSTGRESQL_FAMILY:
            return value
        return value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the moment in UTC."""
        return None if value is None else in_utc(value)


class _JsonList(TypeDecorator[Any]):
    """A list as JSON text, whatever serializer the engine was given for its JSON columns."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002
        """Encode."""
        return json.dumps(value)


class to_json(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function that it is
    """JSON text, as the codec wrote it, on its way into a `Document` column."""

    inherit_cache = True
    type = JSON()


class typed(FunctionElement[Any]):  # noqa: N801
    """A parameter with the type of its column, if a SELECT wouldn't give it a type."""

    inherit_cache = True

    def __init__(self, clause: ColumnElement[Any]) -> None:
        super().__init__(clause)
        self.type = clause.type


class one_of(FunctionElement[bool]):  # noqa: N801
    """Whether a column, or some columns as a tuple, are in a list that is a parameter.

    By default it is `IN` with a parameter for each value, which takes longer to write, send and
    plan than to execute. An engine that can look into an array or JSON text gets the list as a
    single parameter (half of the time for 5,000 values).
    """

    inherit_cache = True

    def __init__(self, name: str, *columns: ColumnElement[Any]) -> None:
        super().__init__(bindparam(name, expanding=True), *columns)


class locked_in_order(FunctionElement[bool]):  # noqa: N801
    """Whether a row is in a list, as `one_of` says; for an UPDATE or DELETE of several rows.

    PostgreSQL locks the rows of such a statement in no order, so that two of them deadlock: there
    they are locked in the order of their keys first. The engines of the MySQL family lock in the
    order of the primary key, and SQLite has one writer.

    Args:
        name: The parameter with the list.
        columns: The columns, which are the primary key.
        skip_locked: Whether rows that somebody has locked are left out, where rows are locked.
    """

    inherit_cache = True

    def __init__(self, name: str, *columns: Column[Any], skip_locked: bool = False) -> None:
        listed = columns[0].table.alias("listed")
        keys = [listed.c[column.name] for column in columns]
        ordered = (
            select(*keys)
            .where(one_of(name, *keys))
            .order_by(*(column.collate("C") for column in keys))
            .with_for_update(skip_locked=skip_locked)
        )
        super().__init__(one_of(name, *columns), tuple_(*columns).in_(ordered))


class json_text(FunctionElement[str]):  # noqa: N801
    """A `Document`, or a part of one, as JSON text on its way to the codec."""

    inherit_cache = True
    type = Text()


class metadata_contains(FunctionElement[bool]):  # noqa: N801
    """Whether a metadata document may match a filter, both as JSON.

    It may be true too often, never too seldom: `codec.matches` decides. Without a rule for an
    engine it is true for every row.
    """

    inherit_cache = True


class channel_versions(FunctionElement[Any]):  # noqa: N801
    """The `channel_versions` of a checkpoint as rows of `key` and `value`, both text.

    With it, one statement reads a checkpoint and its values. An engine without a rule needs a
    second statement; `VALUE_LOOKUP` lists the engines with a rule.
    """

    inherit_cache = True


class peer_run_id(FunctionElement[str]):  # noqa: N801
    """The run of a row that langgraph-checkpoint-postgres wrote; NULL on other engines."""

    inherit_cache = True
    type = Text()


class byte_length(FunctionElement[int]):  # noqa: N801
    """The size of a text in UTF-8, or of bytes; dialects have different names for it.

    PostgreSQL knows it without unpacking a compressed value. `of_bytes` tells a rule whether the
    value is bytes.
    """

    inherit_cache = True
    type = Integer()

    def __init__(self, clause: ColumnElement[Any]) -> None:
        super().__init__(clause)
        self.of_bytes = isinstance(clause.type, LargeBinary)


class utc_now(FunctionElement[datetime]):  # noqa: N801
    """The server's time, as `UtcTime` columns have it; on PostgreSQL the transaction's begin."""

    inherit_cache = True
    type = UtcTime()


class minutes_from_now(FunctionElement[datetime]):  # noqa: N801
    """The server's time some minutes from now, fractions too; NULL if the number is NULL."""

    inherit_cache = True
    type = UtcTime()


class in_byte_range(FunctionElement[bool]):  # noqa: N801
    """Whether a key is at or after one text and before another, in the order of their bytes.

    PostgreSQL's own operators of that order use the index that langgraph-checkpoint-postgres makes
    for LIKE; its `<` is the database's collation.
    """

    inherit_cache = True


@compiles(to_json)
@compiles(json_text)
@compiles(typed)
def _as_it_is(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(next(iter(element.clauses)), **kw)


def _postgresql_to_json(element: to_json, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(next(iter(element.clauses)), **kw)} AS JSONB)"


def _postgresql_json_text(element: json_text, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(next(iter(element.clauses)), **kw)} AS TEXT)"


def _postgresql_typed(element: typed, compiler: SQLCompiler, **kw: Any) -> str:
    (clause,) = element.clauses
    return compiler.process(cast(clause, clause.type), **kw)


@compiles(byte_length)
def _octet_length(element: byte_length, compiler: SQLCompiler, **kw: Any) -> str:
    return f"OCTET_LENGTH({compiler.process(next(iter(element.clauses)), **kw)})"


@compiles(byte_length, "sqlite")
def _sqlite_byte_length(element: byte_length, compiler: SQLCompiler, **kw: Any) -> str:
    (clause,) = element.clauses
    found = compiler.process(clause, **kw)
    # Of a column of bytes SQLite knows the length without reading the value; a CAST reads it.
    return f"LENGTH({found})" if element.of_bytes else f"LENGTH(CAST({found} AS BLOB))"


@compiles(utc_now)
def _current_timestamp(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001
    return "UTC_TIMESTAMP(6)"


# SQLAlchemy reads and writes six digits after the seconds; SQLite's clock has three.
_SQLITE_TIME = "STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'{})"


@compiles(utc_now, "sqlite")
def _sqlite_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001
    return _SQLITE_TIME.format("")


@compiles(minutes_from_now)
def _add_minutes(element: minutes_from_now, compiler: SQLCompiler, **kw: Any) -> str:
    minutes = compiler.process(next(iter(element.clauses)), **kw)
    return f"(CURRENT_TIMESTAMP + {minutes} * INTERVAL '1' MINUTE)"


@compiles(minutes_from_now, "mysql")
@compiles(minutes_from_now, "mariadb")
def _mysql_add_minutes(element: minutes_from_now, compiler: SQLCompiler, **kw: Any) -> str:
    minutes = compiler.process(next(iter(element.clauses)), **kw)
    return f"TIMESTAMPADD(MICROSECOND, ROUND({minutes} * 60000000), UTC_TIMESTAMP(6))"


@compiles(minutes_from_now, "sqlite")
def _sqlite_add_minutes(element: minutes_from_now, compiler: SQLCompiler, **kw: Any) -> str:
    minutes = compiler.process(next(iter(element.clauses)), **kw)
    return _SQLITE_TIME.format(f", ({minutes} * 60) || ' seconds'")


@compiles(in_byte_range)
def _between(element: in_byte_range, compiler: SQLCompiler, **kw: Any) -> str:
    found, low, high = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({found} >= {low} AND {found} < {high})"


@compiles(in_byte_range, "postgresql")
def _postgresql_between(element: in_byte_range, compiler: SQLCompiler, **kw: Any) -> str:
    found, low, high = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({found} ~>=~ {low} AND {found} ~<~ {high})"


@compiles(locked_in_order)
def _in_list(element: locked_in_order, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(next(iter(element.clauses)), **kw)


def _postgresql_locked(element: locked_in_order, compiler: SQLCompiler, **kw: Any) -> str:
    _, ordered = element.clauses
    return compiler.process(ordered, **kw)


@compiles(one_of)
def _in(element: one_of, compiler: SQLCompiler, **kw: Any) -> str:
    wanted, *columns = element.clauses
    found = columns[0] if len(columns) == 1 else tuple_(*columns)
    return compiler.process(found.in_(wanted), **kw)


def _postgresql_in(element: one_of, compiler: SQLCompiler, **kw: Any) -> str:
    wanted, *columns = element.clauses
    if len(columns) == 1:
        array = bindparam(wanted.key, type_=ARRAY(Text()))
        return compiler.process(columns[0] == any_(array), **kw)
    found, parts, items = _json_columns(str(wanted.key), "item ->> {}", columns, compiler, **kw)
    # The parts are our columns' names and the placeholder.
    return f"({found}) IN (SELECT {parts} FROM json_array_elements(CAST({items} AS JSON)) AS item)"  # noqa: S608


@compiles(one_of, "sqlite")
def _sqlite_in(element: one_of, compiler: SQLCompiler, **kw: Any) -> str:
    wanted, *columns = element.clauses
    part = "value" if len(columns) == 1 else "json_extract(value, '$[{}]')"
    found, parts, items = _json_columns(str(wanted.key), part, columns, compiler, **kw)
    # A list of tuples as VALUES makes SQLite read the whole table.
    return f"({found}) IN (SELECT {parts} FROM json_each({items}))"  # noqa: S608


def _json_columns(
    name: str, part: str, columns: Sequence[ColumnElement[Any]], compiler: SQLCompiler, **kw: Any
) -> tuple[str, str, str]:
    """Return the columns to look up, the fields of an item of the list, and the list as JSON."""
    found = ", ".join(compiler.process(column, **kw) for column in columns)
    parts = ", ".join(part.format(i) for i in range(len(columns)))
    return found, parts, compiler.process(bindparam(name, type_=_JsonList()), **kw)


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
    compiles(typed, _dialect)(_postgresql_typed)
    compiles(one_of, _dialect)(_postgresql_in)
    compiles(locked_in_order, _dialect)(_postgresql_locked)
    compiles(json_text, _dialect)(_postgresql_json_text)
    compiles(metadata_contains, _dialect)(_postgresql_contains)
    compiles(peer_run_id, _dialect)(_postgresql_run_id)
    compiles(channel_versions, _dialect)(_postgresql_versions)


class ValueLookup(Enum):
    """How a checkpoint's values are found by its `channel_versions`, which are JSON."""

    SECOND_STATEMENT = "second_statement"
    """There is no rule for `channel_versions`: values are read with a second statement."""
    JOIN = "join"
    """Values are joined to `channel_versions`; the engine looks each one up in the index."""
    LATERAL = "lateral"
    """The same, written as a look-up for each: a planner with a choice might read the table."""
    NONE = SECOND_STATEMENT


VALUE_LOOKUP: dict[str, ValueLookup] = {
    **dict.fromkeys(POSTGRESQL_FAMILY, ValueLookup.LATERAL),
    "sqlite": ValueLookup.JOIN,
}
"""By dialect; the others need a second statement."""


def value_lookup(dialect: Dialect) -> ValueLookup:
    """Return how a dialect finds a checkpoint's values."""
    return VALUE_LOOKUP.get(dialect.name, ValueLookup.SECOND_STATEMENT)


# The old names; the release after the next one drops them, and `ValueLookup.NONE`.
Reach = ValueLookup
REACH = VALUE_LOOKUP
reach = value_lookup


def no_key() -> ColumnElement[str]:
    """Return an empty key, to fill a column in an arm of a UNION."""
    return literal_column("''", key())
