"""Statements that turn whole values into deltas and back."""

from __future__ import annotations

from sqlalchemy import (
    bindparam,
    select,
    update,
)

from checkpoint_sa.rows import BLOB_KEY
from checkpoint_sa.sql.tables import bind, blob_in, blobs, writes

LOCK_VALUES = (
    select(*(blobs.c[name] for name in BLOB_KEY), *(c for c in blobs.c if c.name not in BLOB_KEY))
    .where(blob_in("blob_keys"))
    .order_by(*(blobs.c[name] for name in BLOB_KEY))
    .with_for_update()
)

REWRITE_VALUE = update(blobs).where(*(blobs.c[name] == bind(f"key_{name}") for name in BLOB_KEY))

GET_CHANGED_WRITES = (
    select(writes.c.checkpoint_ns, writes.c.checkpoint_id)
    .where(writes.c.thread_id == bind("thread_id"), writes.c.type.like(bind("pattern")))
    .distinct()
)

REWRITE_WRITE = update(writes).where(
    *(
        column == bindparam(f"key_{column.name}", type_=column.type)
        for column in writes.primary_key.columns
    )
)
