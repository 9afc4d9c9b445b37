"""Statements that list threads, and the checkpoints of runs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    and_,
    func,
    or_,
    select,
    union,
)

from checkpoint_sa.sql.tables import bind, checkpoints, page_size
from checkpoint_sa.types import (
    one_of,
    peer_run_id,
)

if TYPE_CHECKING:
    from sqlalchemy import (
        Select,
        Table,
    )


_of_runs = or_(
    one_of("run_ids", checkpoints.c.run_id),
    and_(
        checkpoints.c.run_id.is_(None),
        one_of("peer_run_ids", peer_run_id(checkpoints.c.metadata)),
    ),
)

GET_RUNS = select(
    checkpoints.c.thread_id, checkpoints.c.checkpoint_ns, checkpoints.c.checkpoint_id
).where(_of_runs)


COUNT_THREADS = select(func.count(checkpoints.c.thread_id.distinct()))


@cache
def thread_ids(*tables: Table, after: bool, of_runs: bool = False) -> Select[Any]:
    """Return the statement for a page of the threads that have rows in any of some tables.

    With `after`, only threads after a given id; with `of_runs`, only threads with checkpoints of
    some runs.
    """
    pages = []
    for table in tables:
        thread = table.c.thread_id
        page = select(thread).distinct().order_by(thread).limit(page_size)
        if after:
            page = page.where(thread > bind("after"))
        if of_runs:
            page = page.where(_of_runs)
        pages.append(page)
    if len(pages) == 1:
        return pages[0]
    found = union(*(select(page.subquery()) for page in pages)).subquery()
    return select(found.c.thread_id).order_by(found.c.thread_id).limit(page_size)
