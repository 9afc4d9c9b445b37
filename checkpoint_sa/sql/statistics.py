"""Statements that count rows and bytes: of serialized values, and of documents as text."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    func,
    select,
    tuple_,
    union_all,
)

from checkpoint_sa.sql.reading import HEAD_COLUMNS
from checkpoint_sa.sql.tables import (
    INTERRUPT,
    bind,
    blobs,
    checkpoints,
    deltas,
    page_size,
    writes,
    zero,
)
from checkpoint_sa.types import (
    byte_length,
    json_text,
    metadata_contains,
    one_of,
)

if TYPE_CHECKING:
    from sqlalchemy import (
        ColumnElement,
        Select,
        Table,
    )


_document_bytes = (
    byte_length(json_text(checkpoints.c.checkpoint))
    + byte_length(json_text(checkpoints.c.metadata))
    + func.coalesce(byte_length(checkpoints.c.exact), zero)
)

SIZES: dict[Table, ColumnElement[int]] = {
    checkpoints: _document_bytes,
    blobs: byte_length(blobs.c.blob),
    deltas: byte_length(deltas.c.data),
    writes: byte_length(writes.c.blob),
}

_said_time = func.nullif(checkpoints.c.checkpoint["ts"].as_string(), "")


@cache
def candidates(*, filtered: bool, after: bool, inside: bool) -> Select[Any]:
    """Return the statement for a page of checkpoints with their metadata, by thread.

    The page begins `after` a thread; or `inside` it, after a checkpoint.
    """
    columns = checkpoints.c
    page = (
        select(*checkpoints.primary_key, *HEAD_COLUMNS[3:])
        .order_by(*checkpoints.primary_key)
        .limit(page_size)
    )
    if filtered:
        wanted = bindparam("filter_json", type_=Text())
        page = page.where(metadata_contains(columns.metadata, wanted))
    if inside:
        last = (bind("after"), bind("after_ns"), bind("after_id"))
        # The MySQL family looks up a single column in the index, but no tuple.
        page = page.where(
            columns.thread_id >= last[0], tuple_(*checkpoints.primary_key) > tuple_(*last)
        )
    elif after:
        page = page.where(columns.thread_id > bind("after"))
    return page


def _of_threads(table: Table, *more: ColumnElement[Any]) -> Select[Any]:
    return (
        select(
            table.c.thread_id,
            func.count().label("rows"),
            func.sum(SIZES[table]).label("bytes"),
            *more,
        )
        .where(one_of("thread_ids", table.c.thread_id))
        .group_by(table.c.thread_id)
    )


SUMMARIZE_CHECKPOINTS = _of_threads(
    checkpoints,
    func.count(checkpoints.c.checkpoint_ns.distinct()).label("namespaces"),
    func.min(_said_time).label("first_time"),
    func.max(_said_time).label("last_time"),
    func.min(checkpoints.c.checkpoint_id).label("first_id"),
    func.max(checkpoints.c.checkpoint_id).label("last_id"),
)

SUMMARIZE_OTHERS = {table: _of_threads(table) for table in (blobs, deltas, writes)}

GET_STEPS = (
    select(checkpoints.c.checkpoint_ns, *HEAD_COLUMNS[:4], _document_bytes.label("bytes"))
    .where(checkpoints.c.thread_id == bind("thread_id"))
    .order_by(checkpoints.c.checkpoint_ns, checkpoints.c.checkpoint_id)
)

_is_interrupt = writes.c.channel == INTERRUPT

_pending = select(
    writes.c.thread_id,
    writes.c.checkpoint_ns,
    writes.c.checkpoint_id,
    writes.c.task_id,
    writes.c.channel,
    writes.c.type,
    case((_is_interrupt, writes.c.blob)).label("blob"),
).order_by(*writes.primary_key)
"""Writes, of which only interrupts have their value."""

_latest = (
    select(checkpoints.c.thread_id, func.max(checkpoints.c.checkpoint_id).label("checkpoint_id"))
    .where(one_of("thread_ids", checkpoints.c.thread_id), checkpoints.c.checkpoint_ns == "")
    .group_by(checkpoints.c.thread_id)
    .subquery("latest")
)

GET_LATEST_PENDING = _pending.join(
    _latest,
    and_(
        writes.c.thread_id == _latest.c.thread_id,
        writes.c.checkpoint_ns == "",
        writes.c.checkpoint_id == _latest.c.checkpoint_id,
    ),
)
"""The writes of the latest checkpoint of some threads."""

_interrupted = writes.alias("interrupted")

GET_INTERRUPTED = _pending.where(
    writes.c.thread_id == bind("thread_id"),
    writes.c.task_id.in_(
        select(_interrupted.c.task_id).where(
            _interrupted.c.thread_id == bind("thread_id"), _interrupted.c.channel == INTERRUPT
        )
    ),
)
"""The writes of a thread's tasks that were interrupted."""

GET_TABLE_SIZES = {
    table.name: select(func.count().label("rows"), func.sum(size).label("bytes")).select_from(table)
    for table, size in SIZES.items()
}

_of_channels = union_all(
    *(
        select(table.c.channel, SIZES[table].label("bytes")).select_from(table)
        for table in (blobs, deltas)
    )
).subquery("stored")

GET_CHANNEL_SIZES = (
    select(
        _of_channels.c.channel,
        func.count().label("rows"),
        func.sum(_of_channels.c.bytes).label("bytes"),
    )
    .group_by(_of_channels.c.channel)
    .order_by(func.sum(_of_channels.c.bytes).desc(), _of_channels.c.channel)
    .limit(page_size)
)
