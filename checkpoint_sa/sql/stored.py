"""Statements for rows as they are stored, on their way to another database."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Text,
    bindparam,
    select,
    tuple_,
)

from checkpoint_sa.sql.statistics import SIZES
from checkpoint_sa.sql.tables import DOCUMENTS, bind, blobs, checkpoints, deltas, page_size, writes
from checkpoint_sa.sql.writing import PUT_BLOBS, PUT_WRITES
from checkpoint_sa.types import (
    json_text,
    to_json,
)
from checkpoint_sa.upsert import Upsert

if TYPE_CHECKING:
    from sqlalchemy import (
        Select,
        Table,
    )


STORE_ROWS: dict[Table, Upsert] = {
    deltas: Upsert(deltas),
    blobs: PUT_BLOBS,
    writes: PUT_WRITES,
    checkpoints: Upsert(checkpoints).values(
        {name: to_json(bindparam(parameter, type_=Text())) for name, parameter in DOCUMENTS.items()}
    ),
}

GET_CHECKPOINT_KEYS = select(*checkpoints.primary_key).where(
    checkpoints.c.thread_id == bind("thread_id")
)


@cache
def stored_sizes(table: Table, *, after: bool) -> Select[Any]:
    """Return the statement for the sizes of a page of a thread's rows, `after` a given row."""
    return _page_of_thread(select(SIZES[table].label("bytes")), table, after=after)


@cache
def stored_rows(table: Table, *, after: bool) -> Select[Any]:
    """Return the statement for a page of a thread's rows, `after` a given row.

    Documents are text, under the names of `STORE_ROWS`' parameters.
    """
    columns = (
        json_text(column).label(DOCUMENTS[column.name]) if column.name in DOCUMENTS else column
        for column in table.c
    )
    return _page_of_thread(select(*columns), table, after=after)


def _page_of_thread(page: Select[Any], table: Table, *, after: bool) -> Select[Any]:
    thread, *rest = table.primary_key
    page = page.where(thread == bind("thread_id")).order_by(thread, *rest).limit(page_size)
    if not after:
        return page
    last = [bindparam(f"after_{column.name}", type_=column.type) for column in rest]
    # The MySQL family looks up a single column in the index, but no tuple.
    return page.where(rest[0] >= last[0], tuple_(*rest) > tuple_(*last))
