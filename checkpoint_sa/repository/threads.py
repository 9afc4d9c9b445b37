"""Pages of threads, and operations that go from thread to thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from checkpoint_sa.sql import tables
from checkpoint_sa.sql import threads as sql

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection, Table

    from checkpoint_sa.repository.deleting import Deleted

T = TypeVar("T")
Total = TypeVar("Total", int, "Deleted")
Steps: TypeAlias = "Generator[Callable[[Connection], Any], Any, T]"
"""The parts of an operation, each a transaction of its own; the generator gets their results."""

_PAGE = 100
"""The number of threads that are listed at a time."""


def count(connection: Connection) -> int:
    """Count the threads that have checkpoints: one statement, over the whole primary key."""
    return int(connection.scalar(sql.COUNT_THREADS) or 0)


def list_ids(
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


def for_each(
    thread_ids: Sequence[str] | None,
    steps: Callable[[str], Steps[Total]],
    total: Total,
    *,
    tables: Sequence[Table] = (tables.checkpoints,),
) -> Steps[Total]:
    """Yield the steps of each thread; return the sum of their results.

    Args:
        thread_ids: The threads; None means all threads.
        steps: Returns the steps of a thread.
        total: The sum to begin with: zero.
        tables: For all threads: only threads with rows in any of these tables.
    """
    last: str | None = None
    page = partial(list_ids, size=_PAGE, tables=tables)
    while ids := (yield partial(page, after=last)) if thread_ids is None else thread_ids:
        for thread_id in ids:
            total += yield from steps(thread_id)
        if thread_ids is not None:
            break
        last = ids[-1]
    return total
