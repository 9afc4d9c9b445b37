"""Copies of threads inside the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoint_sa.errors import ThreadExistsError
from checkpoint_sa.sql import copying as sql
from checkpoint_sa.sql import dependencies as dependencies_sql

if TYPE_CHECKING:
    from sqlalchemy import Connection


def copy_thread(connection: Connection, source: str, target: str, empty: set[str]) -> None:
    """Copy all of a thread inside the database: five statements.

    Args:
        connection: The connection.
        source: The thread to copy.
        target: The thread to make.
        empty: Gets the target once it was seen without rows. If a retry finds a copy there, an
            earlier attempt has made it: the answer to its commit was lost.

    Raises:
        ThreadExistsError: The target has rows already.
    """
    if connection.execute(sql.THREAD_EXISTS, {"thread_id": target}).first():
        if target in empty and _is_copy(connection, source, target):
            return
        raise ThreadExistsError(
            f"Thread {target!r} already has checkpoints, so {source!r} was not copied to it."
            " Copy to a thread_id that is not in use, or delete_thread() the target first."
        )
    empty.add(target)
    for statement in sql.COPY_THREAD:
        connection.execute(statement, {"source": source, "target": target})


def _is_copy(connection: Connection, source: str, target: str) -> bool:
    """Whether one thread has all checkpoints of the other: either may have grown meanwhile."""
    ids: dict[str, set[tuple[str, str]]] = {}
    for thread_id in (source, target):
        rows = connection.execute(
            dependencies_sql.thread_checkpoints(namespace=False), {"thread_id": thread_id}
        )
        ids[thread_id] = {(row.checkpoint_ns, row.checkpoint_id) for row in rows}
    return ids[source] <= ids[target] or ids[target] <= ids[source]
