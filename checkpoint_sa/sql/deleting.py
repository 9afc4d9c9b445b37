"""Statements that list the rows of a thread, and delete some."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Integer,
    Text,
    bindparam,
    case,
    delete,
    func,
    select,
    update,
)

from checkpoint_sa.rows import BLOB_KEY
from checkpoint_sa.sql.tables import (
    bind,
    blob_in,
    blobs,
    checkpoint_in,
    checkpoints,
    deltas,
    in_namespace,
    scope,
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
        Select,
    )


_delete_thread = {
    table: delete(table).where(table.c.thread_id == bind("thread_id"))
    for table in (deltas, blobs, checkpoints, writes)
}

# Deltas twice: after the first rows of chains are gone, no writer appends any more.
DELETE_THREAD = (_delete_thread[deltas], *_delete_thread.values())
"""Statements of their own, in this order: each sees what others have committed before it."""

DELETE_BLOBS = delete(blobs).where(blob_in("keys"))

DELETE_CHECKPOINTS = delete(checkpoints).where(checkpoint_in("keys", checkpoints))

DELETE_WRITES = delete(writes).where(checkpoint_in("keys", writes))

DELETE_OLDER_WRITES = delete(writes).where(
    in_namespace(writes), writes.c.checkpoint_id < bind("checkpoint_id")
)

CLEAR_PARENT = (
    update(checkpoints).where(checkpoint_in("keys", checkpoints)).values(parent_checkpoint_id=None)
)

GET_VALUES = select(
    *(blobs.c[name] for name in (*BLOB_KEY, "type", "chain", "position")),
    byte_length(blobs.c.blob).label("size"),
    case((blobs.c.chain.is_not(None), blobs.c.blob)).label("reference"),
).where(blobs.c.thread_id == bind("thread_id"))

_chain_key = (deltas.c.thread_id, deltas.c.checkpoint_ns, deltas.c.channel, deltas.c.chain)

GET_CHAINS = (
    select(blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.chain)
    .where(blob_in("blob_keys"), blobs.c.chain.is_not(None))
    .distinct()
)

LOCK_CHAINS = (
    select(deltas.c.thread_id, deltas.c.checkpoint_ns, deltas.c.channel, deltas.c.chain)
    .where(one_of("chain_keys", *_chain_key), deltas.c.position == zero)
    .order_by(*_chain_key)
    .with_for_update()
)

# Locked, to read the newest rows even in a transaction that reads an older snapshot.
GET_CHAINED = (
    select(
        blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.chain, blobs.c.position
    )
    .where(
        one_of("channel_keys", blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel),
        one_of("chains", blobs.c.chain),
    )
    .with_for_update(read=True)
)

DELETE_CHAINS = delete(deltas).where(one_of("keys", *_chain_key))

DELETE_TAIL = delete(deltas).where(
    deltas.c.thread_id == bind("thread_id"),
    deltas.c.checkpoint_ns == bind("checkpoint_ns"),
    deltas.c.channel == bind("channel"),
    deltas.c.chain == bind("chain"),
    deltas.c.position > bindparam("position", type_=Integer()),
)


@cache
def blob_keys(*, namespace: bool) -> Select[Any]:
    """Return the statement for the keys of a thread's blobs."""
    columns = (c for c in blobs.c if c.name not in ("thread_id", "blob"))
    return select(*columns).where(scope(blobs, namespace=namespace))


GET_DELTA_SIZES = select(
    deltas.c.checkpoint_ns,
    deltas.c.channel,
    deltas.c.chain,
    deltas.c.position,
    byte_length(deltas.c.data).label("size"),
).where(deltas.c.thread_id == bind("thread_id"))

GET_WRITE_SIZES = (
    select(
        writes.c.checkpoint_ns,
        writes.c.checkpoint_id,
        func.count().label("rows"),
        func.sum(byte_length(writes.c.blob)).label("bytes"),
    )
    .where(writes.c.thread_id == bind("thread_id"))
    .group_by(writes.c.checkpoint_ns, writes.c.checkpoint_id)
)


@cache
def metadata_of(*, filtered: bool) -> Select[Any]:
    """Return the statement for the metadata of some threads' checkpoints."""
    columns = checkpoints.c
    found = select(
        columns.thread_id,
        columns.checkpoint_ns,
        columns.checkpoint_id,
        json_text(columns.metadata).label("metadata"),
        columns.type,
        columns.exact,
    ).where(one_of("thread_ids", columns.thread_id))
    if filtered:
        wanted = bindparam("filter_json", type_=Text())
        found = found.where(metadata_contains(columns.metadata, wanted))
    return found
