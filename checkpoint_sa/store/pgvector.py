"""The vectors of PostgresStore, in pgvector's types: ranked by the server.

The table `store_vectors` is PostgresStore's own. Where it is there, it is used, so that both stores
find the embeddings of the other store.
"""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Column,
    Float,
    ForeignKeyConstraint,
    MetaData,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    func,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy import Index as Index_

from checkpoint_sa.engine.cursors import full
from checkpoint_sa.errors import ConfigurationError
from checkpoint_sa.store import sql
from checkpoint_sa.types import UtcTime, one_of, utc_now
from checkpoint_sa.upsert import UpsertRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.types import TypeEngine

    from checkpoint_sa.store.index import Index, Metric

TABLE = "store_vectors"

_OPERATORS = {"cosine": "cosine_ops", "l2": "l2_ops", "inner_product": "ip_ops"}
"""The ends of the names of pgvector's operator classes."""


class Place(NamedTuple):
    """Where the vectors are: in `store_vectors`, in one of pgvector's types."""

    kind: str
    """`vector` or `halfvec`."""
    dims: int
    """The number of dimensions."""


def find(connection: Connection, schema: str | None, dims: int | None = None) -> Place | None:
    """Return where vectors are, if PostgresStore's table is there.

    Args:
        connection: The connection.
        schema: The schema of the table.
        dims: The number of dimensions that vectors must have.

    Raises:
        ConfigurationError: Its vectors are of another type or length, or the package pgvector isn't
            installed.
    """
    if connection.dialect.name != "postgresql":
        return None
    if not inspect(full(connection)).has_table(TABLE, schema=schema):
        return None
    found = connection.scalar(
        text(
            "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
            " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relname = :table AND a.attname = 'embedding'"
            " AND n.nspname = COALESCE(CAST(:schema AS TEXT), current_schema())"
        ),
        {"table": TABLE, "schema": schema},
    )
    kind, _, length = str(found).rpartition(".")[2].rstrip(")").partition("(")
    if kind not in ("vector", "halfvec") or not length or dims not in (None, int(length)):
        expected = "`vector` or `halfvec` with a length was expected"
        if dims is not None:
            expected = f"`dims` of `index` is {dims}"
        raise ConfigurationError(
            f"The embeddings of {TABLE} are of type {found}, {expected}."
            " Use the `index` that they were stored with."
        )
    _type(kind)
    return Place(kind, int(length))


def create(connection: Connection, schema: str | None, index: Index) -> None:
    """Create PostgresStore's table where the extension is, and no vectors are elsewhere.

    Raises:
        ConfigurationError: The table is there, and its vectors are of another length.
    """
    if connection.dialect.name != "postgresql":
        return
    has_extension = text("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
    if connection.scalar(has_extension) is None:
        return
    if connection.execute(select(sql.embeddings.c.prefix).limit(1)).first() is not None:
        return
    models = MetaData()
    sql.items.to_metadata(models)
    _table(models, _type(index.kind, index.dims), refers=True).create(connection, checkfirst=True)
    place = find(connection, schema, index.dims)
    if index.ann is not None and place is not None:
        Index_(
            "store_vectors_embedding_idx",
            _table(MetaData(), _type(place.kind)).c.embedding,
            postgresql_using=index.ann.kind,
            postgresql_ops={"embedding": f"{place.kind}_{_OPERATORS[index.metric]}"},
            postgresql_with=index.ann.parameters,
        ).create(connection, checkfirst=True)


def _type(kind: str, dims: int | None = None) -> TypeEngine[Any]:
    try:
        from pgvector.sqlalchemy import HALFVEC, VECTOR  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            f"{TABLE} has pgvector's types, and the package pgvector isn't installed. Install it:"
            ' pip install "langgraph-checkpoint-sa[pgvector]".'
        ) from None
    found: TypeEngine[Any] = VECTOR(dims) if kind == "vector" else HALFVEC(dims)
    return found


def _table(models: MetaData, embedding: TypeEngine[Any], *, refers: bool = False) -> Table:
    keys = ["prefix", "key"]
    to_items = ForeignKeyConstraint(keys, [f"store.{name}" for name in keys], ondelete="CASCADE")
    now = func.current_timestamp()
    return Table(
        TABLE,
        models,
        *(Column(name, Text(), primary_key=True) for name in (*keys, "field_name")),
        Column("embedding", embedding),
        Column("created_at", UtcTime(), server_default=now),
        Column("updated_at", UtcTime(), server_default=now),
        *([to_items] if refers else ()),
    )


@cache
def _vectors(kind: str) -> Table:
    return _table(MetaData(), _type(kind))


def as_text(vector: bytes) -> str:
    """Return a vector as pgvector reads it."""
    return f"[{','.join(map(repr, struct.unpack(f'<{len(vector) // 4}f', vector)))}]"


def from_text(vector: str) -> bytes:
    """Return a vector as ours are stored, of the text that pgvector writes."""
    numbers = json.loads(vector)
    return struct.pack(f"<{len(numbers)}f", *numbers)


def _given(name: str, kind: str) -> ColumnElement[Any]:
    """Return a parameter: drivers know the type of text, not pgvector's."""
    return cast(bindparam(name, type_=Text()), _type(kind))


def _row(kind: str, i: int) -> dict[str, ColumnElement[Any]]:
    return {
        "prefix": bindparam(f"prefix_{i}", type_=Text()),
        "key": bindparam(f"key_{i}", type_=Text()),
        "field_name": bindparam(f"field_{i}", type_=Text()),
        "embedding": _given(f"embedding_{i}", kind),
        "created_at": utc_now(),
        "updated_at": utc_now(),
    }


def _vector_row(i: int) -> dict[str, ColumnElement[Any]]:
    return _row("vector", i)


def _halfvec_row(i: int) -> dict[str, ColumnElement[Any]]:
    return _row("halfvec", i)


@cache
def put(kind: str, count: int) -> UpsertRows:
    """Return the statement that stores `count` vectors."""
    row = _vector_row if kind == "vector" else _halfvec_row
    return UpsertRows(_vectors(kind), row, count, update=("embedding", "updated_at"))


@cache
def delete_vectors(kind: str) -> Any:
    """Return the statement that deletes the vectors of items."""
    table = _vectors(kind)
    return delete(table).where(one_of("keys", table.c.prefix, table.c.key))


@cache
def rank(
    kind: str, metric: Metric, *, candidates: sql.Candidates, is_scoped: bool, has_filter: bool
) -> Select[Any]:
    """Return the statement that ranks items by the best of their vectors, some after a number.

    Args:
        kind: The type of the vectors.
        metric: How two vectors are compared.
        candidates: The vectors whose items are ranked.
        is_scoped: In one namespace and those below it, not in all.
        has_filter: That the engine's JSON may match a filter.
    """
    table = _vectors(kind)
    embedding: Any = table.c.embedding
    query = _given("query", kind)
    operators = {
        "cosine": embedding.cosine_distance,
        "l2": embedding.l2_distance,
        "inner_product": embedding.max_inner_product,
    }
    operator = operators[metric](query)
    # A vector of zeros has no angle to another one: it is as alike as one at a right angle.
    no_angle = literal_column("'NaN'::float8", Float())
    distance = func.coalesce(func.nullif(operator, no_angle), literal_column("1.0", Float()))
    # PostgresStore's index on the beginnings of prefixes is on the items, none is on the vectors.
    # An array is looked up in the vectors' primary key; for IN the planner would read all vectors.
    prefixes = select(sql.items.c.prefix).where(sql.below(sql.items.c.prefix)).distinct()
    is_below = table.c.prefix == any_(func.array(prefixes.scalar_subquery(), type_=ARRAY(Text())))
    return sql.best_first(
        table,
        operator,
        distance,
        [sql.exactly(table.c.prefix), is_below],
        candidates=candidates,
        is_scoped=is_scoped,
        has_filter=has_filter,
    )


def rows(vectors: Sequence[tuple[str, str, str, bytes]]) -> list[tuple[str, str, str, str]]:
    """Return rows with vectors as text."""
    return [(*row[:3], as_text(row[3])) for row in vectors]
