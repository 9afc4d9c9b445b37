"""The statements on the table of items."""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from checkpoint_sa.models import StoreEmbedding, StoreItem
from checkpoint_sa.types import (
    UtcTime,
    byte_length,
    in_byte_range,
    json_text,
    key,
    locked_in_order,
    metadata_contains,
    minutes_from_now,
    one_of,
    to_json,
    typed,
    utc_now,
)
from checkpoint_sa.upsert import Upsert, UpsertRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import BindParameter, ColumnElement, CompoundSelect, FromClause, Select, Table

items: Table = StoreItem.__table__  # type: ignore[assignment]
embeddings: Table = StoreEmbedding.__table__  # type: ignore[assignment]


def _bind(name: str) -> BindParameter[str]:
    return bindparam(name, type_=key())


LIVE = or_(items.c.expires_at.is_(None), items.c.expires_at > utc_now())
_THIS = and_(items.c.prefix == _bind("prefix"), items.c.key == _bind("key"))
_THESE = one_of("keys", items.c.prefix, items.c.key)
_UNLOCKED = locked_in_order("keys", items.c.prefix, items.c.key, skip_locked=True)

_COLUMNS = (
    items.c.prefix,
    items.c.key,
    json_text(items.c.value).label("value"),
    items.c.created_at,
    items.c.updated_at,
    items.c.ttl_minutes,
)

GET_ITEM = select(*_COLUMNS).where(_THIS, LIVE)

GET_STORED = select(*_COLUMNS, items.c.expires_at).where(_THESE)
"""Expired items too."""

GET_PUT_TIMES = select(items.c.prefix, items.c.key, items.c.updated_at).where(_THESE)

GET_ITEMS = select(*_COLUMNS).where(_THESE, LIVE)

_SIZE = byte_length(json_text(items.c.value))

GET_STATISTICS = select(
    func.count().label("items"),
    func.coalesce(func.sum(_SIZE), 0).label("bytes"),
    func.count(items.c.expires_at).label("expiring"),
    func.coalesce(func.sum(case((items.c.expires_at <= utc_now(), 1), else_=0)), 0).label(
        "expired"
    ),
    func.count(items.c.prefix.distinct()).label("namespaces"),
    func.min(items.c.created_at).label("first"),
    func.max(items.c.updated_at).label("last"),
)

DELETE_ITEM = delete(items).where(_THIS)

DELETE_ITEMS = delete(items).where(locked_in_order("keys", items.c.prefix, items.c.key))

REFRESH_ITEMS = (
    update(items)
    .where(_UNLOCKED, items.c.ttl_minutes.is_not(None), LIVE)
    .values(expires_at=minutes_from_now(items.c.ttl_minutes))
)
"""An item that somebody writes or refreshes at the moment keeps the time that it gets there."""

_EXPIRED = items.c.expires_at <= utc_now()

GET_EXPIRED = (
    select(items.c.prefix, items.c.key).where(_EXPIRED).limit(bindparam("size", type_=BigInteger()))
)

DELETE_EXPIRED = delete(items).where(_UNLOCKED, _EXPIRED)
"""An item that was stored again meanwhile, or is being written, stays."""

UPDATED = ("value", "updated_at", "expires_at", "ttl_minutes")
"""The columns of an existing item that a put changes, as PostgresStore does."""


def _row(i: int) -> dict[str, ColumnElement[Any]]:
    return {
        "prefix": _bind(f"prefix_{i}"),
        "key": _bind(f"key_{i}"),
        "value": to_json(bindparam(f"value_{i}", type_=Text())),
        "created_at": utc_now(),
        "updated_at": utc_now(),
        "expires_at": minutes_from_now(typed(bindparam(f"ttl_{i}", type_=Float()))),
        "ttl_minutes": bindparam(f"ttl_minutes_{i}", type_=Integer()),
    }


ADD_ITEMS = Upsert(items).values(value=to_json(bindparam("value_json", type_=Text())))
"""An item that is there stays as it is."""

_stored_at = bindparam("stored_at", type_=UtcTime())

REPLACE_ITEMS = (
    update(items)
    .where(
        items.c.prefix == _bind("of_prefix"),
        items.c.key == _bind("of_key"),
        items.c.updated_at <= _stored_at,
    )
    .values(
        value=to_json(bindparam("value_json", type_=Text())),
        updated_at=_stored_at,
        **{
            name: bindparam(f"new_{name}", type_=items.c[name].type)
            for name in ("created_at", "expires_at", "ttl_minutes")
        },
    )
)
"""An item that somebody has put meanwhile stays as it is."""


PUT_ITEM = Upsert(items, update=UPDATED).values(_row(0))
"""Stores an item; its parameters are those of the first item of `put_items`."""


@cache
def put_items(count: int) -> UpsertRows:
    """Return the statement that stores `count` items."""
    return UpsertRows(items, _row, count, update=UPDATED)


_record = (
    func.json_to_recordset(cast(bindparam("records", type_=Text()), JSON()))
    .table_valued(
        column("prefix", Text()),
        column("key", Text()),
        column("value", Text()),
        column("ttl", Float()),
        column("ttl_minutes", Integer()),
    )
    .render_derived(name="record", with_types=True)
)

PUT_RECORDS = Upsert(items, update=UPDATED).from_select(
    ["prefix", "key", "value", "created_at", "updated_at", "expires_at", "ttl_minutes"],
    select(
        _record.c.prefix,
        _record.c.key,
        to_json(_record.c.value),
        utc_now(),
        utc_now(),
        minutes_from_now(_record.c.ttl),
        _record.c.ttl_minutes,
    ),
)
"""Stores the items of `records`, a list as JSON text, in its order: a statement for any number.

A statement with parameters for each item is a long text, which psycopg searches for them at every
execution: half of the CPU of 100 puts.
"""


DELETE_EMBEDDINGS = delete(embeddings).where(one_of("keys", embeddings.c.prefix, embeddings.c.key))


def _embedding(i: int) -> dict[str, ColumnElement[Any]]:
    return {
        "prefix": _bind(f"prefix_{i}"),
        "key": _bind(f"key_{i}"),
        "field_name": _bind(f"field_{i}"),
        "embedding": bindparam(f"embedding_{i}", type_=embeddings.c.embedding.type),
    }


PUT_EMBEDDING = Upsert(embeddings, update=("embedding",)).values(_embedding(0))


@cache
def put_embeddings(count: int) -> UpsertRows:
    """Return the statement that stores `count` vectors."""
    return UpsertRows(embeddings, _embedding, count, update=("embedding",))


def exactly(prefix: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition of a namespace without those below it."""
    return prefix == _bind("prefix")


def below(prefix: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition of the namespaces below a namespace."""
    return in_byte_range(prefix, _bind("low"), _bind("high"))


def within(prefix: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition of a namespace and those below it."""
    return or_(exactly(prefix), below(prefix))


def criteria(*, is_scoped: bool, has_filter: bool) -> list[ColumnElement[bool]]:
    """Return the conditions on the items that a search looks through.

    Args:
        is_scoped: In one namespace and those below it, not in all.
        has_filter: That the engine's JSON may match a filter.
    """
    found = [LIVE]
    if is_scoped:
        found.append(within(items.c.prefix))
    if has_filter:
        found.append(metadata_contains(items.c.value, bindparam("filter_json", type_=Text())))
    return found


_updated = bindparam("updated_at", type_=UtcTime())

_AFTER = or_(
    items.c.updated_at < _updated,
    and_(
        items.c.updated_at == _updated,
        tuple_(items.c.prefix, items.c.key) > tuple_(_bind("after_prefix"), _bind("after_key")),
    ),
)


@cache
def search(*, is_scoped: bool, has_filter: bool, is_later_page: bool) -> Select[Any]:
    """Return the statement that finds items, the latest first, and reads them in any order.

    The rows that are sorted have no values: MySQL's sort fails on large ones, and PostgreSQL would
    unpack all of them. `rank` has the order.

    Args:
        is_scoped: In one namespace and those below it, not in all.
        has_filter: That the engine's JSON may match a filter.
        is_later_page: That come after a position, and not after a number of items.
    """
    wanted = criteria(is_scoped=is_scoped, has_filter=has_filter)
    if is_later_page:
        wanted.append(_AFTER)
    order = (items.c.updated_at.desc(), items.c.prefix, items.c.key)
    ranked = (
        select(items.c.prefix, items.c.key, func.row_number().over(order_by=order).label("rank"))
        .where(*wanted)
        .order_by(*order)
        .limit(bindparam("size", type_=BigInteger()))
    )
    if not is_later_page:
        ranked = ranked.offset(bindparam("skip", type_=BigInteger()))
    found = ranked.subquery("found")
    return select(*_COLUMNS, found.c.rank).join_from(
        found, items, and_(items.c.prefix == found.c.prefix, items.c.key == found.c.key)
    )


_VECTOR = (embeddings.c.prefix, embeddings.c.key, embeddings.c.field_name)


@cache
def vectors(
    *, is_scoped: bool, reads_values: bool, has_filter: bool, is_later_page: bool
) -> Select[Any]:
    """Return the statement that reads a page of vectors, those of one item after each other."""
    wanted = criteria(is_scoped=is_scoped, has_filter=has_filter)
    if is_later_page:
        # By the item: PostgreSQL, without statistics of a new table, would look for each item's
        # vectors from the last one read on.
        prefix, key_ = _bind("after_prefix"), _bind("after_key")
        is_other = or_(embeddings.c.prefix != prefix, embeddings.c.key != key_)
        wanted += [
            tuple_(items.c.prefix, items.c.key) >= tuple_(prefix, key_),
            or_(is_other, embeddings.c.field_name > _bind("after_field")),
        ]
    columns: list[Any] = [*_VECTOR, embeddings.c.embedding]
    if reads_values:
        columns.append(json_text(items.c.value).label("value"))
    same = and_(items.c.prefix == embeddings.c.prefix, items.c.key == embeddings.c.key)
    return (
        select(*columns)
        .join_from(embeddings, items, same)
        .where(*wanted)
        .order_by(*_VECTOR)
        .limit(bindparam("size", type_=BigInteger()))
    )


class Candidates(Enum):
    """The vectors whose items are ranked."""

    ALL = "all"
    NEAREST = "nearest"
    """The nearest of the namespace."""
    INDEXED = "indexed"
    """Those that an approximate index finds, of any namespace."""


def best_first(  # noqa: PLR0913 - the parts of a ranking
    vectors: FromClause,
    operator: ColumnElement[float],
    distance: ColumnElement[float],
    scopes: Sequence[ColumnElement[bool]],
    *,
    candidates: Candidates,
    is_scoped: bool,
    has_filter: bool,
) -> Select[Any]:
    """Return the statement that reads a page of items, the nearest first, in any order.

    Behind the columns of an item are its distance, which is that of its best vector, and the number
    of the candidates. Fewer than `candidates` are all there are, unless an index found them.

    Args:
        vectors: The table of vectors.
        operator: The distance of a vector from the query, as an index has it.
        distance: The same, but a number where there is no angle.
        scopes: Conditions; a vector of the namespace, or of one below it, meets exactly one.
        candidates: The vectors whose items are ranked.
        is_scoped: In one namespace and those below it, not in all.
        has_filter: That the engine's JSON may match a filter.
    """
    every = select(vectors.c.prefix, vectors.c.key, distance.label("distance"))
    found: Select[Any] | CompoundSelect[Any] = every
    if candidates is Candidates.NEAREST:
        if is_scoped:
            arms = [every.where(scope) for scope in scopes]
            found = arms[0] if len(arms) == 1 else union_all(*arms)
        prefix, key_, nearness = found.selected_columns
        found = found.order_by(nearness, prefix, key_)
    elif candidates is Candidates.INDEXED:  # an index knows neither conditions nor expressions
        found = every.order_by(operator)
    nearest: FromClause
    count: ColumnElement[int]
    if candidates is Candidates.ALL:
        nearest, count = every.subquery("nearest"), literal_column("0")
    else:
        nearest = found.limit(bindparam("candidates", type_=BigInteger())).cte("nearest")
        count = select(func.count()).select_from(nearest).scalar_subquery()
    least = func.min(nearest.c.distance)
    best = (
        select(nearest.c.prefix, nearest.c.key, least.label("distance"))
        .join_from(nearest, items, _same_item(nearest))
        .where(*criteria(is_scoped=is_scoped, has_filter=has_filter))
        .group_by(nearest.c.prefix, nearest.c.key)
        .order_by(least, nearest.c.prefix, nearest.c.key)
        .limit(bindparam("size", type_=BigInteger()))
        .offset(bindparam("skip", type_=BigInteger()))
        .subquery("best")
    )
    return select(*_COLUMNS, best.c.distance, count.label("candidates")).join_from(
        best, items, _same_item(best)
    )


def _same_item(found: FromClause) -> ColumnElement[bool]:
    return and_(items.c.prefix == found.c.prefix, items.c.key == found.c.key)


@cache
def namespaces(*, is_scoped: bool, is_later_page: bool) -> Select[Any]:
    """Return the statement that reads a page of the namespaces that have items."""
    wanted = criteria(is_scoped=is_scoped, has_filter=False)
    if is_later_page:
        wanted.append(items.c.prefix > _bind("after_prefix"))
    return (
        select(items.c.prefix)
        .where(*wanted)
        .distinct()
        .order_by(items.c.prefix)
        .limit(bindparam("size", type_=BigInteger()))
    )
