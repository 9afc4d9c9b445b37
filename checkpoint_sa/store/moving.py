"""Items from another database into a store: of our own table, or of LangGraph's own stores.

LangGraph's SqliteStore, MySQLStore and PostgresStore have a table of the same name and columns,
some of them without times to live. SqliteStore has vectors as we have them, PostgresStore in
pgvector's types; MySQLStore has none.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Text, and_, cast, column, inspect, literal_column, select, table
from sqlalchemy.types import NullType

from checkpoint_sa.engine import engines, transactions
from checkpoint_sa.errors import SchemaError, TransferError
from checkpoint_sa.rows import as_bytes
from checkpoint_sa.store import pgvector, repository, sql, values
from checkpoint_sa.store.namespaces import to_labels, to_text
from checkpoint_sa.times import in_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, Select, TableClause

    from checkpoint_sa.rows import AnyRow
    from checkpoint_sa.store.repository import Vector
    from checkpoint_sa.store.sync import SQLAlchemyStore

_PAGE = 200
_NAMES = [part.name for part in sql.items.c]
_EMBEDDINGS = sql.embeddings.name
_OF_VECTOR = ("prefix", "key", "field_name", "embedding")
_OF_ITEM = ("prefix", "key", "updated_at", "expires_at")
_ALWAYS = {"prefix", "key", "value", "created_at", "updated_at"}
"""The columns that the table has in each of the stores."""


class Copied(NamedTuple):
    """The counts of a copy."""

    items: int
    """Items that were stored."""
    present: int
    """Items that the target had already, as late or later, which stay as they are."""
    vectors: int = 0
    """Vectors of the items that both have now; they are stored again by each run."""


def copy_items(
    source: Engine, target: SQLAlchemyStore, *, schema: str | None = None, dry_run: bool = False
) -> Copied:
    """Copy the items that haven't expired, with their times and vectors, into a store.

    Of two items with one key the one that was put later counts, so a second run continues an
    interrupted one, and copies changes.

    Args:
        source: A database with the table `store` of ours, SqliteStore, MySQLStore or PostgresStore.
        target: The store.
        schema: The schema of the source's table.
        dry_run: Whether to compare and count only.

    Raises:
        SchemaError: The source has no such table.
        TransferError: An item or its vectors can't be stored; the message names it.
    """
    run = target.database.read if dry_run else target.database.write
    place = target.database.read("store.copy", pgvector.find, target.schema)
    stored = present = vectors = 0
    with transactions.snapshot(source) as connection:
        names = _checked_columns(connection, schema)
        engines.read_times_in_utc(connection)  # MySQLStore's times are in the session's zone
        for page in _pages(connection, names, schema):
            rows = [_row(row) for row in page if not _has_expired(row)]
            if rows:
                added = run("store.copy", repository.copy, rows, place, dry_run=dry_run)
                stored += added
                present += len(rows) - added
        for name in (_EMBEDDINGS, pgvector.TABLE):
            for page in _pages_of_vectors(connection, name, names, schema):
                found = [_vector(row, place) for row in page if not _has_expired(row)]
                if found:
                    vectors += run(
                        "store.copy", repository.copy_vectors, found, place, dry_run=dry_run
                    )
    return Copied(stored, present, vectors)


def has_items_table(source: Engine, schema: str | None) -> bool:
    """Whether a database has a table `store` of ours or of LangGraph's stores."""
    with source.connect() as connection:
        return (_columns(connection, schema) or set()) >= _ALWAYS


def _columns(connection: Connection, schema: str | None) -> set[str] | None:
    """Return the names of the columns of the table `store`; None without the table."""
    inspector = inspect(connection)
    if not inspector.has_table("store", schema=schema):
        return None
    return {item["name"] for item in inspector.get_columns("store", schema=schema)}


def _checked_columns(connection: Connection, schema: str | None) -> set[str]:
    names = _columns(connection, schema)
    if names is None:
        raise SchemaError("The source has no table `store`: neither ours nor one of LangGraph's.")
    if not names >= _ALWAYS:
        raise SchemaError("The source's table `store` is neither ours nor one of LangGraph's.")
    return names


def _table(name: str, columns: Iterable[str], schema: str | None) -> TableClause:
    """Return a table without types: each store has its own for the same text, JSON and times."""
    return table(name, *(column(each, NullType()) for each in columns), schema=schema)


def _column(found: TableClause, name: str, names: set[str]) -> ColumnElement[Any]:
    """Return a column of the table `store`; NULL where it has none of this name."""
    return found.c[name] if name in names else literal_column("NULL").label(name)


def _partitions(connection: Connection, wanted: Select[Any]) -> Iterator[Sequence[AnyRow]]:
    rows = connection.execution_options(stream_results=True).execute(wanted)
    yield from rows.partitions(_PAGE)


def _pages(
    connection: Connection, names: set[str], schema: str | None
) -> Iterator[Sequence[AnyRow]]:
    found = _table("store", _NAMES, schema)
    wanted = select(*(_column(found, name, names) for name in _NAMES))
    return _partitions(connection, wanted)


def _pages_of_vectors(
    connection: Connection, name: str, names: set[str], schema: str | None
) -> Iterator[Sequence[AnyRow]]:
    """Iterate over the vectors of a table, with the times of their items."""
    if not inspect(connection).has_table(name, schema=schema):
        return iter(())
    items, found = _table("store", _OF_ITEM, schema), _table(name, _OF_VECTOR, schema)
    is_text = connection.dialect.name == "postgresql" and name == pgvector.TABLE
    wanted = select(
        found.c.prefix,
        found.c.key,
        found.c.field_name,
        cast(found.c.embedding, Text) if is_text else found.c.embedding,
        items.c.updated_at,
        _column(items, "expires_at", names),
    ).join_from(found, items, and_(items.c.prefix == found.c.prefix, items.c.key == found.c.key))
    return _partitions(connection, wanted)


def _has_expired(row: AnyRow) -> bool:
    expires_at = _time(row.expires_at)
    return expires_at is not None and expires_at <= datetime.now(timezone.utc)


def _row(row: AnyRow) -> dict[str, Any]:
    prefix, key = _text(row.prefix), _text(row.key)
    try:
        # PostgreSQL's drivers may have read the JSON.
        text = json.dumps(row.value) if isinstance(row.value, dict) else _text(row.value)
        return {
            "prefix": to_text(to_labels(prefix)),
            "key": key,
            "value": values.dump(values.load(text)),
            "created_at": _time(row.created_at),
            "updated_at": _time(row.updated_at),
            "expires_at": _time(row.expires_at),
            "ttl_minutes": None if row.ttl_minutes is None else max(1, round(row.ttl_minutes)),
        }
    except ValueError as error:
        raise TransferError(
            f"The item {key!r} of the namespace {to_labels(prefix)!r} can't be stored: {error}"
        ) from None


def _vector(row: AnyRow, place: pgvector.Place | None) -> tuple[Vector, datetime]:
    prefix, key, field, found = *map(_text, row[:3]), row.embedding
    vector = pgvector.from_text(found) if isinstance(found, str) else as_bytes(found)
    dims = len(vector) // 4
    if place is not None and dims != place.dims:
        raise TransferError(
            f"The vectors of the item {key!r} of the namespace {to_labels(prefix)!r} have {dims}"
            f" dimensions, the target's table {pgvector.TABLE} takes {place.dims}. Copy into a"
            " database whose `index` has the same `dims`, and put items anew to change it."
        )
    put_at = _time(row.updated_at)
    assert put_at is not None  # noqa: S101 - the column is never NULL
    return (to_text(to_labels(prefix)), key, field, vector), put_at


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes | bytearray) else str(value)


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    return in_utc(value if isinstance(value, datetime) else datetime.fromisoformat(_text(value)))
