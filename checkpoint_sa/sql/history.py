"""Statements that walk the parents of a checkpoint, for DeltaChannels."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, literal_column, select

from checkpoint_sa.sql.reading import blob_row, newest_first, wide
from checkpoint_sa.sql.tables import (
    bind,
    blob_in,
    blobs,
    checkpoints,
    in_namespace,
    json_part,
    writes,
)
from checkpoint_sa.types import one_of

if TYPE_CHECKING:
    from sqlalchemy import Select


@cache
def older(size: int) -> Select[Any]:
    """Return the statement for a checkpoint and those before it, `size` at most, newest first."""
    return (
        select(
            checkpoints.c.checkpoint_id,
            checkpoints.c.parent_checkpoint_id,
            json_part(checkpoints.c.checkpoint, "channel_versions").label("versions"),
            json_part(checkpoints.c.checkpoint, "channel_values").label("inline"),
        )
        .where(in_namespace(checkpoints), checkpoints.c.checkpoint_id <= bind("checkpoint_id"))
        .order_by(newest_first)
        .limit(literal_column(str(size), Integer))
    )


GET_BLOB_VERSIONS = select(blobs.c.channel, blobs.c.version).where(
    in_namespace(blobs),
    one_of("channels", blobs.c.channel),
    one_of("versions", blobs.c.version),
    blobs.c.type != "empty",
)

GET_CHANNEL_WRITES = select(
    writes.c.checkpoint_id,
    writes.c.channel,
    writes.c.task_path,
    writes.c.task_id,
    writes.c.idx,
    writes.c.type,
    writes.c.blob,
).where(
    in_namespace(writes),
    one_of("checkpoint_ids", writes.c.checkpoint_id),
    one_of("channels", writes.c.channel),
)

GET_BLOBS = wide(blobs, blob_row()).where(blob_in("blob_keys"))
