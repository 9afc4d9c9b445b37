"""Statements that read the dependencies of checkpoints."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    and_,
    case,
    func,
    select,
)

from checkpoint_sa.sql.tables import (
    TASKS,
    bind,
    checkpoint_in,
    checkpoints,
    json_part,
    scope,
    writes,
)
from checkpoint_sa.types import (
    one_of,
)

if TYPE_CHECKING:
    from sqlalchemy import (
        FromClause,
        Select,
    )


CHECKPOINTS_WITH_SENDS = (
    select(writes.c.checkpoint_ns, writes.c.checkpoint_id)
    .where(checkpoint_in("keys", writes), writes.c.channel == TASKS)
    .distinct()
)

GET_WRITTEN = (
    select(writes.c.checkpoint_ns, writes.c.channel, writes.c.checkpoint_id)
    .where(
        writes.c.thread_id == bind("thread_id"),
        one_of("namespaces", writes.c.checkpoint_ns),
    )
    .distinct()
)

GET_REFERENCES = select(
    checkpoints.c.thread_id,
    checkpoints.c.checkpoint_ns,
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    json_part(checkpoints.c.checkpoint, "channel_versions").label("versions"),
    json_part(checkpoints.c.checkpoint, "channel_values").label("inline"),
).where(one_of("namespace_keys", checkpoints.c.thread_id, checkpoints.c.checkpoint_ns))


@cache
def thread_checkpoints(*, namespace: bool, times: bool = False) -> Select[Any]:
    """Return the statement for a thread's checkpoints, with the columns that decide which stay.

    With `times`, also the time of each. The versions and inline values, which are much to read in a
    long thread, come with each checkpoint of one namespace, or with the latest of each namespace.
    """
    columns = checkpoints.c
    found: FromClause = checkpoints
    versions = json_part(columns.checkpoint, "channel_versions")
    inline = json_part(columns.checkpoint, "channel_values")
    if not namespace:
        latest = (
            select(columns.checkpoint_ns, func.max(columns.checkpoint_id).label("checkpoint_id"))
            .where(scope(checkpoints, namespace=False))
            .group_by(columns.checkpoint_ns)
            .subquery("latest")
        )
        is_latest = and_(
            latest.c.checkpoint_ns == columns.checkpoint_ns,
            latest.c.checkpoint_id == columns.checkpoint_id,
        )
        found = checkpoints.outerjoin(latest, is_latest)
        versions = case((latest.c.checkpoint_id.is_not(None), versions))
        inline = case((latest.c.checkpoint_id.is_not(None), inline))
    made = (json_part(columns.checkpoint, "ts").label("ts"),) if times else ()
    return (
        select(
            columns.checkpoint_ns,
            columns.checkpoint_id,
            columns.parent_checkpoint_id,
            json_part(columns.checkpoint, "v").label("v"),
            json_part(columns.metadata, "counters_since_delta_snapshot").label("counters"),
            json_part(columns.metadata, "delta_writes_versioned").label("delta"),
            json_part(columns.metadata, "parents").label("parents"),
            json_part(columns.metadata, "source").label("source"),
            versions.label("versions"),
            inline.label("inline"),
            *made,
        )
        .select_from(found)
        .where(scope(checkpoints, namespace=namespace))
        .order_by(columns.checkpoint_ns, columns.checkpoint_id)
    )
