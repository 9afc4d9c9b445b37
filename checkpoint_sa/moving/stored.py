"""Stored rows for a copy to another database; over a `Connection`, without the serializer.

Engines normalise JSON, so documents are compared by their content and all other columns by their
bytes. Engines also sort text in different orders, so no comparison depends on the order of rows.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa import codec
from checkpoint_sa.engine import limits
from checkpoint_sa.sql import stored as sql
from checkpoint_sa.sql import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table

PAGE_ROWS = 500
PAGE_BYTES = 8 * 2**20
_DIGEST_BYTES = 16

_DOCUMENTS = tuple(tables.DOCUMENTS.values())


class Page(NamedTuple):
    """Some rows of a table, in the order of their keys."""

    table: Table
    rows: list[dict[str, Any]]
    last: dict[str, Any] | None
    """The key after which the next page begins; None after the last page."""


def page(connection: Connection, table: Table, thread_id: str, last: dict[str, Any] | None) -> Page:
    """Read a page of a thread's rows, at least one row, limited in bytes: two statements."""
    parameters: dict[str, Any] = {"thread_id": thread_id, "size": PAGE_ROWS, **(last or {})}
    after = last is not None
    total = size = 0
    for row in connection.execute(sql.stored_sizes(table, after=after), parameters).all():
        if size and total + int(row.bytes or 0) > PAGE_BYTES:
            break
        total += int(row.bytes or 0)
        size += 1
    if not size:
        return Page(table, [], None)
    found = connection.execute(sql.stored_rows(table, after=after), {**parameters, "size": size})
    rows = [_plain(row._asdict()) for row in found]
    if not rows:
        return Page(table, [], None)
    _, *key = table.primary_key
    return Page(table, rows, {f"after_{c.name}": rows[-1][c.name] for c in key})


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    for name, value in row.items():
        if isinstance(value, memoryview):
            row[name] = bytes(value)
        elif name in _DOCUMENTS:
            row[name] = normalise_numbers(value)
    return row


def checkpoint_keys(connection: Connection, thread_id: str) -> set[bytes]:
    """Return the digests of the keys of a thread's checkpoints."""
    found = connection.execute(sql.GET_CHECKPOINT_KEYS, {"thread_id": thread_id})
    return {key_digest(tables.checkpoints, row._asdict()) for row in found}


def store(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the missing rows; rows that exist stay as they are.

    Raises:
        ValueTooLargeError: The server refuses a row for its size.
    """
    limits.check_size(connection, rows)
    connection.execute(sql.STORE_ROWS[table], list(rows))


def size_of(row: dict[str, Any]) -> int:
    """Return the number of bytes of a row's values and documents."""
    stored = (row.get(name) for name in ("blob", "data", "exact", *_DOCUMENTS))
    return sum(len(part) for part in stored if part is not None)


def key_digest(table: Table, row: dict[str, Any]) -> bytes:
    """Return a digest of a row's primary key."""
    return digest([table.name, *(row[column.name] for column in table.primary_key)])


def row_digest(table: Table, row: dict[str, Any]) -> bytes:
    """Return a digest of a row's content."""
    ignore_rounding = row.get("exact") is not None
    return digest(
        [
            table.name,
            *(
                canonical_json(row[n], ignore_rounding=ignore_rounding)
                if n in _DOCUMENTS
                else row[n]
                for n in row
            ),
        ]
    )


def digest(parts: Sequence[Any]) -> bytes:
    """Return a digest of bytes and of values that JSON can represent."""
    made = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part).encode()
        made.update(b"%d%c" % (len(data), b"t" if data is not part else b"b"))
        made.update(data)
    return made.digest()


def normalise_numbers(text: str) -> str:
    """Return a document in Python's JSON; a number that isn't an integer has a decimal point.

    MySQL writes 1e15 without a point, and PostgreSQL would store it as an integer.
    """
    return codec.encode_json(json.loads(text))


def canonical_json(text: str, *, ignore_rounding: bool) -> str:
    """Return a document in canonical JSON.

    `ignore_rounding`: where the column `exact` has the numbers, an engine may have rounded
    the numbers in the document.
    """
    numbers: dict[str, Any] = (
        {"parse_float": _rounded, "parse_int": _rounded} if ignore_rounding else {}
    )
    return json.dumps(json.loads(text, **numbers), sort_keys=True)


def _rounded(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
