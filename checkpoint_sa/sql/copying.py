"""Statements that copy a thread inside the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    Integer,
    insert,
    literal_column,
    select,
    union_all,
)

from checkpoint_sa.sql.tables import bind, blobs, checkpoints, deltas, writes

if TYPE_CHECKING:
    from sqlalchemy import (
        Insert,
        Table,
    )


THREAD_EXISTS = union_all(
    *(
        select(literal_column("1", Integer)).where(
            select(table.c.thread_id).where(table.c.thread_id == bind("thread_id")).exists()
        )
        for table in (blobs, checkpoints, writes)
    )
)


def _copy(table: Table) -> Insert:
    others = [column for column in table.c if column.name != "thread_id"]
    return insert(table).from_select(
        ["thread_id", *(column.name for column in others)],
        select(bind("target").label("thread_id"), *others).where(
            table.c.thread_id == bind("source")
        ),
    )


COPY_THREAD = tuple(_copy(table) for table in (deltas, blobs, checkpoints, writes))
