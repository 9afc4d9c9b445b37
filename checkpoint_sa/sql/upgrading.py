"""Statements that find the rows of earlier revisions of state, and replace them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, select

from checkpoint_sa.rows import REVISION_KEY
from checkpoint_sa.sql.tables import bind, checkpoints, in_namespace, json_part, scope, writes

if TYPE_CHECKING:
    from sqlalchemy import Select


@cache
def revisions(*, namespace: bool) -> Select[Any]:
    """Return the statement for the revisions of a thread's checkpoints, or of a namespace's."""
    return select(
        checkpoints.c.checkpoint_ns,
        checkpoints.c.checkpoint_id,
        json_part(checkpoints.c.checkpoint, REVISION_KEY).label("revision"),
    ).where(scope(checkpoints, namespace=namespace))


@cache
def task_paths(*, namespace: bool) -> Select[Any]:
    """Return the statement for the task paths of writes, which name the revisions."""
    columns = (writes.c.checkpoint_ns, writes.c.checkpoint_id, writes.c.task_path)
    return select(*columns).where(scope(writes, namespace=namespace)).distinct()


LOCK_CHECKPOINT = (
    select(checkpoints.c.checkpoint_id)
    .where(in_namespace(checkpoints), checkpoints.c.checkpoint_id == bind("checkpoint_id"))
    .with_for_update()
)

LOCK_WRITES = (
    select(writes.c.task_id, writes.c.idx)
    .where(in_namespace(writes), writes.c.checkpoint_id == bind("checkpoint_id"))
    .order_by(writes.c.task_id, writes.c.idx)
    .with_for_update()
)

DELETE_WRITE = delete(writes).where(
    and_(
        *(
            column == bindparam(f"key_{column.name}", type_=column.type)
            for column in writes.primary_key.columns
        )
    )
)
