"""Pages of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkpoint_sa.sql import tables
from checkpoint_sa.sql import threads as sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table


def count(connection: Connection) -> int:
    """Count the threads that have checkpoints: one statement, over the whole primary key."""
    return int(connection.scalar(sql.COUNT_THREADS) or 0)


def thread_ids(
    connection: Connection,
    size: int,
    after: str | None = None,
    *,
    tables: Sequence[Table] = (tables.checkpoints,),
    runs: tuple[Sequence[str], Sequence[str]] | None = None,
) -> list[str]:
    """List a page of threads, in the database's order of their ids: one statement.

    Args:
        connection: The connection.
        size: The largest number of threads.
        after: The last thread of the page before; None for the first page.
        tables: Only threads with rows in any of these tables.
        runs: Only threads with checkpoints of these runs, as `GET_RUNS` looks for them.
    """
    wanted: dict[str, Any] = {"size": size}
    if after is not None:
        wanted["after"] = after
    if runs is not None:
        wanted |= {"run_ids": runs[0], "peer_run_ids": runs[1]}
    statement = sql.thread_ids(*tables, after=after is not None, of_runs=runs is not None)
    return [row.thread_id for row in connection.execute(statement, wanted)]
