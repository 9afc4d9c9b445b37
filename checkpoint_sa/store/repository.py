"""Functions over a `Connection` that read and write items; none of them commits."""

from __future__ import annotations

import heapq
import json
import math
from contextlib import suppress
from functools import partial
from itertools import islice
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqlalchemy import JSON, VARBINARY, inspect
from sqlalchemy.exc import OperationalError

from checkpoint_sa.calls import THREAD_BYTES
from checkpoint_sa.engine.cursors import fetch_all
from checkpoint_sa.engine.statements import Statement, execute
from checkpoint_sa.engine.waiting import offload
from checkpoint_sa.errors import SchemaError
from checkpoint_sa.rows import MAX_TUPLES, as_bytes, chunks
from checkpoint_sa.store import filters, pgvector, sql, sqlitevec, values
from checkpoint_sa.store.namespaces import BEHIND_DOT, to_labels
from checkpoint_sa.store.plan import Put, has
from checkpoint_sa.upsert import rows_at_once, supports_records, supports_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Dialect, Select

    from checkpoint_sa.engine.cursors import Parameters
    from checkpoint_sa.rows import AnyRow
    from checkpoint_sa.store.index import Index
    from checkpoint_sa.store.namespaces import Namespace
    from checkpoint_sa.store.plan import Key, List, Plan, Search
    from checkpoint_sa.upsert import Upsert

    Vector: TypeAlias = tuple[str, str, str, bytes]
    """Prefix, key and field of a vector, and the vector as 32-bit floats."""

_AT_ONCE = 128
"""Items that one statement stores; there is a statement for each number of items."""

_BYTES_AT_ONCE = 1024 * 1024
"""The most characters of the values that one statement stores, unless it stores a single one."""

_PAGE_BYTES = 4 * 1024 * 1024
"""About so many characters of values are read at once where Python looks through them."""

_PAGE_ROWS = (50, 2_000)
"""The least and the most rows of such a page."""

_CANDIDATES = 4
"""The nearest vectors that are looked at for each item of a page: an item may have several."""

_MOST_CANDIDATES = 10_000
"""With more of them, all vectors are ranked at once."""

_NAMESPACES = 5_000
"""Namespaces that are read at once."""

_SWEPT = 500
"""Expired items that one transaction deletes."""

COLUMNS = {"prefix", "key", "value", "created_at", "updated_at", "expires_at", "ttl_minutes"}


class ItemRow(NamedTuple):
    """A row of the statements that read items."""

    prefix: str
    key: str
    value: str
    created_at: datetime
    updated_at: datetime
    ttl_minutes: int | None
    rank: int = 0
    """Its place in the order of a search."""


Ranked: TypeAlias = tuple[ItemRow, float]
"""An item and its score."""


class Found(NamedTuple):
    """The results of a batch's reads."""

    results: list[Any]
    """An item's row, rows, namespaces or None, by the operation's place in the batch."""
    expiring: set[Key]
    """The items whose time to live begins anew."""
    scores: dict[int, dict[Key, float]]
    """How alike the items of a search with a query are to it, by the operation's place."""


class Ranking(NamedTuple):
    """An index, and the vectors of the texts of a batch."""

    by: Index
    texts: dict[str, bytes]
    """Of the items that the batch stores."""
    queries: dict[str, NDArray[Any]]


def check_table(connection: Connection, schema: str | None) -> None:
    """Check that the table `store` is ours or PostgresStore's.

    Raises:
        SchemaError: It is an application's own, or another package's.
    """
    inspector = inspect(connection)
    found: dict[str, Any] = {}
    if inspector.has_table(sql.items.name, schema=schema):
        columns = inspector.get_columns(sql.items.name, schema=schema)
        found = {column["name"]: column["type"] for column in columns}
        if found.keys() >= COLUMNS and (
            isinstance(found["value"], JSON) or isinstance(found["prefix"], VARBINARY)
        ):
            return
    again = "run `checkpoint-sa downgrade checkpoint_sa_0005` and `checkpoint-sa upgrade`"
    if not found:
        raise SchemaError(
            "There is no table `store` in this database, though it was upgraded: the table was"
            f" dropped or renamed since, or was another's then. To create it, {again}."
        )
    raise SchemaError(
        "There is a table `store` of another layout in this database: an application's own, or that"
        " of LangGraph's SqliteStore or MySQLStore? Give this store a schema or a database of its"
        f" own, or rename the table and {again}."
    )


def read(connection: Connection, plan: Plan, ranking: Ranking | None) -> Found:
    """Do the reads of a batch."""
    results: list[Any] = [None] * plan.size
    expiring: set[Key] = set()
    if plan.gets:
        rows = _get(connection, {operation.key for operation in plan.gets.values()})
        for i, operation in plan.gets.items():
            results[i] = rows.get(operation.key)
    scores: dict[int, dict[Key, float]] = {}
    for i, wanted in plan.searches.items():
        if wanted.query is None or ranking is None:
            results[i] = _search(connection, wanted)
            continue
        ranked = _rank(connection, wanted, ranking.by, ranking.queries[wanted.query])
        results[i] = [row for row, _ in ranked]
        scores[i] = {(row.prefix, row.key): score for row, score in ranked}
    for i, listed in plan.lists.items():
        results[i] = _list(connection, listed)
    for i, operation in plan.gets.items():
        if operation.refresh and results[i] is not None:
            expiring |= _expiring([results[i]])
    for i, wanted in plan.searches.items():
        if wanted.refresh:
            expiring |= _expiring(results[i])
    return Found(results, expiring, scores)


def _expiring(rows: Sequence[ItemRow]) -> set[Key]:
    return {(row.prefix, row.key) for row in rows if row.ttl_minutes is not None}


def _items(connection: Connection, statement: Select[Any], parameters: Parameters) -> list[ItemRow]:
    return [ItemRow(*row) for row in fetch_all(connection, statement, parameters)]


def _get(connection: Connection, keys: set[Key]) -> dict[Key, ItemRow]:
    if len(keys) == 1:
        ((prefix, key),) = keys
        found = _items(connection, sql.GET_ITEM, {"prefix": prefix, "key": key})
        return {(row.prefix, row.key): row for row in found}
    return {
        (row.prefix, row.key): row
        for part in chunks(sorted(keys), MAX_TUPLES)
        for row in _items(connection, sql.GET_ITEMS, {"keys": part})
    }


def _search(connection: Connection, wanted: Search) -> list[ItemRow]:
    if wanted.limit == 0:
        return []
    if wanted.filter is None:
        return _page(connection, wanted, wanted.limit, skip=wanted.offset)
    matching: list[ItemRow] = []
    skip = wanted.offset
    for rows in _candidates(connection, wanted):
        most = skip + wanted.limit - len(matching)
        found = _matching(connection, rows, wanted.filter, most)
        matching += found[skip:]
        skip = max(0, skip - len(found))
        if len(matching) == wanted.limit:
            break
    return matching


def _matching(
    connection: Connection, rows: Sequence[ItemRow], wanted: Mapping[str, Any], most: int
) -> list[ItemRow]:
    """Return the first rows that match a filter; with an async driver, look in a thread."""

    def look() -> list[ItemRow]:
        found = (row for row in rows if filters.matches(values.load(row.value), wanted))
        return [*islice(found, min(most, len(rows)))]

    is_large = sum(len(row.value) for row in rows) >= THREAD_BYTES
    return offload(connection, look) if is_large else look()


def _candidates(connection: Connection, wanted: Search) -> Iterator[list[ItemRow]]:
    """Iterate over pages, of bounded size, of the items that may match a filter."""
    least, most = _PAGE_ROWS
    # Where the engine answers the filter, the first page has all of the result.
    size = min(max(wanted.offset + wanted.limit, least), most)
    last = None
    while True:
        rows = _page(connection, wanted, size, after=last)
        yield rows
        if len(rows) < size:
            return
        last = rows[-1]
        average = sum(len(row.value) for row in rows) // len(rows) + 1
        size = min(max(_PAGE_BYTES // average, least), most)


def _rank(
    connection: Connection, wanted: Search, index: Index, query: NDArray[Any]
) -> list[Ranked]:
    """Return the items whose texts are the most alike to a query, the most alike first."""
    if not wanted.limit:
        return []
    if index.place is not None:
        return _rank_there(connection, wanted, index, query)
    if index.in_sqlite:
        # It fails at a vector of another length: the error below says more.
        with suppress(OperationalError):
            return _rank_there(connection, wanted, index, query)
    count = wanted.offset + wanted.limit
    best: dict[Key, float] = {}
    for rows in _vectors(connection, wanted, index):
        best = offload(connection, _best, best, rows, count, wanted.filter, index, query)
    page = [*best.items()][wanted.offset :]
    items = _get(connection, {key for key, _ in page}) if page else {}
    return [(items[key], score) for key, score in page if key in items]


def _best(  # noqa: PLR0913, PLR0917 - runs in a thread, on plain arguments
    best: dict[Key, float],
    rows: Sequence[AnyRow],
    count: int,
    wanted: Mapping[str, Any] | None,
    index: Index,
    query: NDArray[Any],
) -> dict[Key, float]:
    """Return the best of those that were found before and of a page of vectors."""
    scores = index.scores(query, [as_bytes(row.embedding) for row in rows])
    least = min(best.values()) if len(best) >= count else -math.inf
    found = dict(best)
    for row, score in zip(rows, scores, strict=True):
        key = (row.prefix, row.key)
        if score < least or score <= found.get(key, -math.inf):
            continue
        if wanted and not filters.matches(values.load(row.value), wanted):
            continue
        found[key] = score
    return dict(heapq.nsmallest(count, found.items(), key=lambda item: (-item[1], item[0])))


def _rank_there(
    connection: Connection, wanted: Search, index: Index, query: NDArray[Any]
) -> list[Ranked]:
    """`_rank`, by the database."""
    fetch = partial(_fetch_ranked, connection, wanted, index, query)
    if wanted.filter is not None:
        return _first_matching(connection, wanted, fetch)
    page = {"size": wanted.limit, "skip": wanted.offset}
    most = _CANDIDATES * (wanted.limit + wanted.offset)
    if most <= _MOST_CANDIDATES:
        if index.place is not None and index.ann is not None:
            found, _ = fetch(sql.Candidates.INDEXED, candidates=most, **page)
            if len(found) == wanted.limit:
                return found
        found, count = fetch(sql.Candidates.NEAREST, candidates=most, **page)
        if len(found) == wanted.limit or 0 < count < most:
            return found
    return fetch(sql.Candidates.ALL, **page)[0]


def _fetch_ranked(
    connection: Connection,
    wanted: Search,
    index: Index,
    query: NDArray[Any],
    candidates: sql.Candidates,
    /,
    **page: int,
) -> tuple[list[Ranked], int]:
    """Return a page of ranked items, and the number of the candidates, 0 without items."""
    criteria = {"is_scoped": bool(wanted.prefix), "has_filter": wanted.filter_json is not None}
    vector: Any = query.tobytes()
    if index.place is None:
        statement = sqlitevec.rank(index.metric, candidates=candidates, **criteria)
    else:
        vector = pgvector.as_text(vector)
        kind = index.place.kind
        statement = pgvector.rank(kind, index.metric, candidates=candidates, **criteria)
    rows = fetch_all(connection, statement, {"query": vector, **_criteria(wanted), **page})
    found = [(ItemRow(*row), distance) for *row, distance, _ in rows]
    found.sort(key=lambda each: (each[1], each[0].prefix, each[0].key))
    ranked = [(row, index.score(distance)) for row, distance in found]
    return ranked, rows[0][-1] if rows else 0


def _first_matching(
    connection: Connection, wanted: Search, fetch: Callable[..., tuple[list[Ranked], int]]
) -> list[Ranked]:
    """Return the page of those ranked items that match the filter."""
    assert wanted.filter is not None  # noqa: S101 - the caller looked
    least, most = _PAGE_ROWS
    size = min(max(wanted.offset + wanted.limit, least), most)
    matching: list[Ranked] = []
    skip = 0
    while len(matching) < wanted.offset + wanted.limit:
        page, _ = fetch(sql.Candidates.ALL, size=size, skip=skip)
        kept = _matching(connection, [row for row, _ in page], wanted.filter, len(page))
        keys = {(row.prefix, row.key) for row in kept}
        matching += [(row, score) for row, score in page if (row.prefix, row.key) in keys]
        if len(page) < size:
            break
        skip += size
    return matching[wanted.offset : wanted.offset + wanted.limit]


def _vectors(connection: Connection, wanted: Search, index: Index) -> Iterator[list[AnyRow]]:
    """Iterate over pages of vectors, of bounded size where values aren't large."""
    least, most = _PAGE_ROWS
    size = min(max(_PAGE_BYTES // index.size, least), most if wanted.filter is None else 5 * least)
    parameters = {"size": size, **_criteria(wanted)}
    is_later_page = False
    while True:
        statement = sql.vectors(
            is_scoped=bool(wanted.prefix),
            reads_values=wanted.filter is not None,
            has_filter=wanted.filter_json is not None,
            is_later_page=is_later_page,
        )
        rows = [*connection.execute(statement, parameters)]
        if rows:
            yield rows
        if len(rows) < size:
            return
        last = rows[-1]
        parameters |= {
            "after_prefix": last.prefix,
            "after_key": last.key,
            "after_field": last.field_name,
        }
        is_later_page = True


def _page(
    connection: Connection,
    wanted: Search,
    size: int,
    *,
    skip: int = 0,
    after: ItemRow | None = None,
) -> list[ItemRow]:
    statement = sql.search(
        is_scoped=bool(wanted.prefix),
        has_filter=wanted.filter_json is not None,
        is_later_page=after is not None,
    )
    parameters = {"size": size, **_criteria(wanted)}
    if after is None:
        parameters["skip"] = skip
    else:
        parameters |= {
            "updated_at": after.updated_at,
            "after_prefix": after.prefix,
            "after_key": after.key,
        }
    return sorted(_items(connection, statement, parameters), key=attrgetter("rank"))


def _criteria(wanted: Search) -> dict[str, Any]:
    """Return the parameters of `sql.criteria`."""
    parameters = _scope(wanted.prefix)
    if wanted.filter_json is not None:
        parameters["filter_json"] = wanted.filter_json
    return parameters


def _scope(prefix: str) -> dict[str, Any]:
    if not prefix:
        return {}
    return {"prefix": prefix, "low": f"{prefix}.", "high": f"{prefix}{BEHIND_DOT}"}


def _list(connection: Connection, wanted: List) -> list[Namespace]:
    """Return namespaces in the order of their labels, which isn't that of their texts.

    So all are read, and as many kept as come first.
    """
    found = (
        namespace[: wanted.max_depth]
        for namespace in _namespaces(connection, wanted.prefix)
        if all(has(namespace, condition) for condition in wanted.conditions)
    )
    first: list[Namespace] = []
    while part := [*islice(found, _NAMESPACES)]:
        first = heapq.nsmallest(wanted.offset + wanted.limit, {*first, *part})
    return first[wanted.offset :]


def _namespaces(connection: Connection, prefix: str) -> Iterator[Namespace]:
    last = None
    while True:
        statement = sql.namespaces(is_scoped=bool(prefix), is_later_page=last is not None)
        parameters = {"size": _NAMESPACES, **_scope(prefix)}
        if last is not None:
            parameters["after_prefix"] = last
        texts = connection.scalars(statement, parameters).all()
        yield from map(to_labels, texts)
        if len(texts) < _NAMESPACES:
            return
        last = texts[-1]


def refresh(connection: Connection, keys: set[Key]) -> None:
    """Let the time to live of items begin anew."""
    parts = chunks(sorted(keys), MAX_TUPLES)
    execute(connection, [Statement(sql.REFRESH_ITEMS, {"keys": part}) for part in parts])


def read_and_write(connection: Connection, plan: Plan, ranking: Ranking | None) -> Found:
    """Do a batch that reads and writes; the times to live of the items that it reads stay."""
    found = read(connection, plan, ranking)
    execute(connection, writes(connection.dialect, plan, ranking))
    return found


def writes(dialect: Dialect, plan: Plan, ranking: Ranking | None) -> list[Statement]:
    """Return the statements that do the writes of a batch: one for each kind of a usual size."""
    stored = plan.puts
    if plan.puts and plan.deletes:
        # One order of locks for all: an item to delete is locked as if it were put. A lock by
        # SELECT would leave out the rows that other batches are about to insert.
        nothing = dict.fromkeys(plan.deletes, Put("{}", None, []))
        stored = dict(sorted((plan.puts | nothing).items(), key=itemgetter(0)))
    statements = [_put(dialect, part) for part in _parts(dialect, stored)]
    if len(plan.deletes) == 1:
        prefix, key = plan.deletes[0]
        statements.append(Statement(sql.DELETE_ITEM, {"prefix": prefix, "key": key}))
    else:
        statements += [
            Statement(sql.DELETE_ITEMS, {"keys": part}) for part in chunks(plan.deletes, MAX_TUPLES)
        ]
    if ranking is not None:
        statements += _index(dialect, plan.puts, ranking)
    return statements


def _index(dialect: Dialect, puts: dict[Key, Put], ranking: Ranking) -> Iterator[Statement]:
    """Make the statements that replace the vectors of items."""
    rows = [
        (*key, text.field, ranking.texts[text.text])
        for key, put in puts.items()
        for text in put.texts
    ]
    yield from _drop_vectors([*puts], ranking.by.place)
    yield from _put_vectors(dialect, rows, ranking.by.place)


def _drop_vectors(keys: Sequence[Key], place: pgvector.Place | None) -> Iterator[Statement]:
    """Make the statements that delete the vectors of items."""
    drop = sql.DELETE_EMBEDDINGS if place is None else pgvector.delete_vectors(place.kind)
    for part in chunks(keys, MAX_TUPLES):
        yield Statement(drop, {"keys": part})


def _put_vectors(
    dialect: Dialect, rows: Sequence[Vector], place: pgvector.Place | None
) -> Iterator[Statement]:
    """Make the statements that store vectors, or replace those of the same fields."""
    names = ("prefix", "key", "field", "embedding")
    size = max((len(row[3]) for row in rows), default=1)
    at_once = rows_at_once(dialect, len(names), _AT_ONCE)
    for part in chunks(rows, max(1, min(at_once, _BYTES_AT_ONCE // size))):
        given = part if place is None else pgvector.rows(part)
        named = [dict(zip(names, row, strict=True)) for row in given]
        if place is None:
            yield _put_rows(dialect, named, sql.PUT_EMBEDDING, sql.put_embeddings)
        else:
            put = partial(pgvector.put, place.kind)
            yield _put_rows(dialect, named, put(1), put)


def _parts(dialect: Dialect, puts: dict[Key, Put]) -> Iterator[list[tuple[Key, Put]]]:
    at_once = rows_at_once(dialect, 5, _AT_ONCE)
    part: list[tuple[Key, Put]] = []
    size = 0
    for item in puts.items():
        size += len(item[1].value)
        if part and (len(part) == at_once or size > _BYTES_AT_ONCE):
            yield part
            part, size = [], len(item[1].value)
        part.append(item)
    if part:
        yield part


def _put(dialect: Dialect, part: Sequence[tuple[Key, Put]]) -> Statement:
    """Make the statement that stores some items."""
    records = [
        {
            "prefix": prefix,
            "key": key,
            "value": put.value,
            "ttl": put.ttl,
            "ttl_minutes": None if put.ttl is None else math.ceil(put.ttl),
        }
        for (prefix, key), put in part
    ]
    if len(records) > 1 and supports_records(dialect):
        return Statement(sql.PUT_RECORDS, {"records": json.dumps(records, ensure_ascii=False)})
    return _put_rows(dialect, records, sql.PUT_ITEM, sql.put_items)


def _put_rows(
    dialect: Dialect,
    rows: Sequence[Mapping[str, Any]],
    put_one: Upsert,
    put: Callable[[int], Upsert],
) -> Statement:
    """Make the statement that stores rows: of one row, where the dialect has no rule for more."""
    if len(rows) == 1 or not supports_rows(dialect):
        return Statement(put_one, [{f"{name}_0": row[name] for name in row} for row in rows])
    numbered = {f"{name}_{i}": row[name] for i, row in enumerate(rows) for name in row}
    return Statement(put(len(rows)), numbered)


def copy(
    connection: Connection,
    rows: Sequence[dict[str, Any]],
    place: pgvector.Place | None,
    *,
    dry_run: bool,
) -> int:
    """Store items with their times, unless they are there as late or later.

    The vectors of a replaced item go with its value; `copy_vectors` brings those of the new one.

    Returns:
        The number of items that were stored; of a dry run, that would be.
    """
    rows = sorted(rows, key=_key_of)
    found = connection.execute(sql.GET_STORED, {"keys": [*map(_key_of, rows)]})
    there = {(row.prefix, row.key): row for row in found}
    new = [row for row in rows if _key_of(row) not in there]
    later = [row for row in rows if _key_of(row) in there and _is_later(row, there[_key_of(row)])]
    if new and not dry_run:
        connection.execute(sql.ADD_ITEMS, [_renamed(row, {"value": "value_json"}) for row in new])
    if later and not dry_run:
        connection.execute(sql.REPLACE_ITEMS, [_renamed(row, _REPLACING) for row in later])
        execute(connection, [*_drop_vectors([*map(_key_of, later)], place)])
    return len(new) + len(later)


def copy_vectors(
    connection: Connection,
    vectors: Sequence[tuple[Vector, datetime]],
    place: pgvector.Place | None,
    *,
    dry_run: bool,
) -> int:
    """Store vectors of items, unless the items are gone, or have been put at another time.

    Args:
        connection: The connection.
        vectors: The vectors, each with the time at which its item was put.
        place: Where vectors are.
        dry_run: Whether to count only.

    Returns:
        The number of vectors that were stored; of a dry run, that would be.
    """
    keys = [*{row[:2] for row, _ in vectors}]
    found = connection.execute(sql.GET_PUT_TIMES, {"keys": keys})
    times = {(row.prefix, row.key): row.updated_at for row in found}
    rows = [
        row
        for row, put_at in vectors
        if (there := times.get(row[:2])) == put_at
        or (dry_run and (there is None or there < put_at))
    ]
    if not dry_run:
        execute(connection, [*_put_vectors(connection.dialect, rows, place)])
    return len(rows)


_REPLACING = {
    "prefix": "of_prefix",
    "key": "of_key",
    "value": "value_json",
    "updated_at": "stored_at",
    "created_at": "new_created_at",
    "expires_at": "new_expires_at",
    "ttl_minutes": "new_ttl_minutes",
}
"""The parameters of `sql.REPLACE_ITEMS`: a column's own name would be a column to set."""


def _renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()}


def _key_of(row: Mapping[str, Any]) -> Key:
    return row["prefix"], row["key"]


def _is_later(row: Mapping[str, Any], there: AnyRow) -> bool:
    """Whether an item was put, or its time to live begun anew, after the one that is there.

    LangGraph's SqliteStore and MySQLStore count whole seconds: of equal times the values decide.
    """
    if row["updated_at"] != there.updated_at:
        return bool(row["updated_at"] > there.updated_at)
    if _comparable(row["value"]) != _comparable(there.value):
        return True
    expires_at = row["expires_at"]
    return None not in (expires_at, there.expires_at) and bool(expires_at > there.expires_at)


def _comparable(value: str) -> str:
    """Return a stored value as JSON that is equal where the value is; NaN equals itself."""
    return json.dumps(values.load(value), sort_keys=True)


def sweep(connection: Connection) -> tuple[int, bool]:
    """Delete expired items, as many as one transaction should.

    Returns:
        The number of items that this transaction deleted, and whether there may be more. Another
        process may have deleted some of the items that were found.
    """
    found = connection.execute(sql.GET_EXPIRED, {"size": _SWEPT}).all()
    if not found:
        return 0, False
    keys = sorted((row.prefix, row.key) for row in found)
    deleted = connection.execute(sql.DELETE_EXPIRED, {"keys": keys}).rowcount
    return deleted, deleted > 0 and len(found) == _SWEPT


class Statistics(NamedTuple):
    """Counts of the table of items, expired items included."""

    items: int
    namespaces: int
    bytes: int
    """Of the values."""
    expiring: int
    """Items that expire, or have."""
    expired: int
    first: datetime | None
    """When the oldest item was first stored."""
    last: datetime | None
    """When an item was last stored."""


def statistics(connection: Connection) -> Statistics:
    """Count items; reads the whole table."""
    found = connection.execute(sql.GET_STATISTICS).one()
    return Statistics(
        items=found.items,
        namespaces=found.namespaces,
        bytes=int(found.bytes),
        expiring=found.expiring,
        expired=int(found.expired),
        first=found.first,
        last=found.last,
    )
