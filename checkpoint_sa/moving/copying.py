"""Copy stored threads from one database to another; no value is deserialized.

Each thread is compared with its rows in the target, copied page by page, checkpoints last, and read
back. Each page is a transaction of its own, so an interrupted copy continues where it stopped.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.util import greenlet_spawn

from checkpoint_sa import codec
from checkpoint_sa.aio import AsyncSQLAlchemySaver
from checkpoint_sa.base import BaseSaver
from checkpoint_sa.engine import binds
from checkpoint_sa.errors import ConfigurationError, ThreadExistsError, TransferError
from checkpoint_sa.moving import stored
from checkpoint_sa.repository import threads
from checkpoint_sa.sql import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeAlias

    from sqlalchemy import Table

    from checkpoint_sa.database import Database
    from checkpoint_sa.saver import SQLAlchemySaver

    Rows: TypeAlias = tuple[Table, list[dict[str, Any]]]  # named as in `stored.page`

_THREADS = 100
_MODULUS = 2**128


class CopySummary(NamedTuple):
    """The numbers of copied threads, rows and bytes."""

    threads: int
    """Threads of which at least one row was copied."""
    skipped: int
    """Threads that were already equal in the target."""
    checkpoints: int
    values: int
    writes: int
    bytes: int
    """Bytes of the copied values and documents, as stored."""


def copy(
    source: SQLAlchemySaver,
    target: SQLAlchemySaver,
    *,
    threads: Iterable[str] | None = None,
    dry_run: bool = False,
    progress: Callable[[str], object] | None = None,
) -> CopySummary:
    """Copy threads to another database, on any engine, as they are stored.

    A second call after an interruption copies the missing rows. The source is only read, and may be
    in use: the next copy copies checkpoints that were stored while their thread was copied.

    Args:
        source: A saver on the source database. Its serializer isn't used.
        target: A saver on the target database; `setup()` has made its tables.
        threads: Ids of threads; all by default.
        dry_run: Whether to compare and count only.
        progress: Called with the id of each thread after it is copied.

    Raises:
        ThreadExistsError: A thread has other content in the target. Nothing of it was changed;
            threads before it were copied.
        TransferError: The source has no such thread, or the target's rows differ from the source's
            at the end.
        ValueTooLargeError: The target's server refuses a value for its size.
        SchemaError: The source's or the target's tables aren't those of this release.
        ConfigurationError: A saver is async, or isn't a saver.
    """
    if isinstance(source, AsyncSQLAlchemySaver) or isinstance(target, AsyncSQLAlchemySaver):
        raise ConfigurationError("copy() takes sync savers. Use `await acopy(...)` for async ones.")
    both = database_of(source, "copy"), database_of(target, "copy")
    return _copy(*both, threads, progress, dry_run=dry_run)


async def acopy(
    source: AsyncSQLAlchemySaver | SQLAlchemySaver,
    target: AsyncSQLAlchemySaver | SQLAlchemySaver,
    *,
    threads: Iterable[str] | None = None,
    dry_run: bool = False,
    progress: Callable[[str], object] | None = None,
) -> CopySummary:
    """Copy threads to another database, as `copy` does; a sync saver blocks the event loop."""
    both = database_of(source, "acopy"), database_of(target, "acopy")
    return await greenlet_spawn(partial(_copy, *both, threads, progress, dry_run=dry_run))


def database_of(saver: AsyncSQLAlchemySaver | SQLAlchemySaver, function: str) -> Database:
    """Return the database of a saver that was passed to a function.

    Raises:
        ConfigurationError: It isn't a saver.
    """
    if not isinstance(saver, BaseSaver):
        raise ConfigurationError(
            f"{function}() expects a saver here, this is {binds.name_of(saver)}. For a URL make"
            " one by from_conn_string() of SQLAlchemySaver or AsyncSQLAlchemySaver."
        )
    return saver.database


def _copy(
    source: Database,
    target: Database,
    threads: Iterable[str] | None,
    progress: Callable[[str], object] | None,
    *,
    dry_run: bool,
) -> CopySummary:
    def copied(thread_id: str) -> CopySummary | None:
        # The keys of checkpoints are read first: then all rows that these refer to exist already.
        checkpoints = source.read("copy", stored.checkpoint_keys, thread_id)
        if not checkpoints:
            return None
        return _copy_thread(source, target, thread_id, checkpoints, dry_run=dry_run)

    return copy_threads(copied, threads, _threads(source), progress)


def copy_threads(
    one: Callable[[str], CopySummary | None],
    threads: Iterable[str] | None,
    there: Iterable[str],
    progress: Callable[[str], object] | None,
) -> CopySummary:
    """Copy threads one after another, and return the sum.

    Args:
        one: Copies a thread; returns None if the source doesn't have it.
        threads: Ids of the threads; None for all of `there`.
        there: The ids of all threads.
        progress: Called with the id of each thread after it is copied.

    Raises:
        TransferError: The source has no such thread.
    """
    total = CopySummary(0, 0, 0, 0, 0, 0)
    for thread_id in there if threads is None else dict.fromkeys(map(codec.thread_id, threads)):
        done = one(thread_id)
        if done is not None:
            total = CopySummary(*map(sum, zip(total, done, strict=True)))
            if progress is not None:
                progress(thread_id)
        elif threads is not None:  # otherwise the thread was deleted meanwhile
            raise TransferError(
                f"The source has no thread {thread_id!r}. Leave it out, or name no thread to copy"
                " all threads."
            )
    return total


def _threads(source: Database) -> Iterator[str]:
    after = None
    while True:
        page = source.read("copy", threads.list_ids, _THREADS, after)
        yield from page
        if len(page) < _THREADS:
            return
        after = page[-1]


def _copy_thread(
    source: Database, target: Database, thread_id: str, checkpoints: set[bytes], *, dry_run: bool
) -> CopySummary:
    """Copy a thread's missing rows; of its checkpoints only the listed ones."""

    def pages() -> Iterator[Rows]:
        for table, rows, _ in _pages(source, thread_id, "copy"):
            is_checkpoint = table is tables.checkpoints
            yield (
                table,
                [
                    r
                    for r in rows
                    if not is_checkpoint or stored.key_digest(table, r) in checkpoints
                ],
            )

    return store_thread(pages, target, thread_id, dry_run=dry_run)


def store_thread(  # noqa: PLR0913 - an argument for each option
    pages: Callable[[], Iterable[Rows]],
    target: Database,
    thread_id: str,
    *,
    dry_run: bool,
    validate_first: bool = False,
    name: str = "copy",
) -> CopySummary:
    """Store a thread's missing rows in the target, and read the thread back.

    Args:
        pages: Yields the rows of the thread as they are to be stored, checkpoints last. It is
            called several times, and yields the same rows each time.
        target: The target database.
        thread_id: The thread.
        dry_run: Whether to compare and count only.
        validate_first: Convert every row once before any is stored, so that a bad row leaves the
            target untouched.
        name: The operation, for logs.

    Raises:
        ThreadExistsError: The thread has other content in the target.
        TransferError: The target's rows differ from the source's at the end.
    """
    existing = {
        stored.key_digest(page.table, row): stored.row_digest(page.table, row)
        for page in _pages(target, thread_id, name)
        for row in page.rows
    }
    if (existing or validate_first) and not _lacks_rows(pages, thread_id, existing):
        return CopySummary(0, 1, 0, 0, 0, 0)
    counts = dict.fromkeys(tables.TABLES, 0)
    size = copied = 0
    for table, rows in pages():
        copied += _sum(table, rows)
        missing = [row for row in rows if stored.key_digest(table, row) not in existing]
        counts[table] += len(missing)
        size += sum(map(stored.size_of, missing))
        if missing and not dry_run:
            target.write(name, stored.store, table, missing)
    if not dry_run:
        total = sum(_sum(page.table, page.rows) for page in _pages(target, thread_id, name))
        if (total - copied) % _MODULUS:
            raise TransferError(
                f"Thread {thread_id!r} in the target differs from the source after the copy."
                " Either another writer changes it, or the target can't store it as it is."
                " Delete it in the target and copy it again."
            )
    return CopySummary(
        1, 0, counts[tables.checkpoints], counts[tables.blobs], counts[tables.writes], size
    )


def _lacks_rows(
    pages: Callable[[], Iterable[Rows]], thread_id: str, existing: dict[bytes, bytes]
) -> bool:
    """Whether the target lacks rows of a thread.

    Raises:
        ThreadExistsError: The target has a row that the source lacks, or has with other content.
    """
    same = 0
    is_behind = False
    for table, rows in pages():
        for row in rows:
            found = existing.get(stored.key_digest(table, row))
            if found is None:
                is_behind = True
            elif found == stored.row_digest(table, row):
                same += 1
    if same < len(existing):
        raise ThreadExistsError(
            f"The target has a thread {thread_id!r} with other content: {len(existing) - same} of"
            f" its {len(existing)} rows aren't in the source, or differ. Nothing of it was changed."
            " To keep the source's thread, delete it in the target and do this again."
        )
    return is_behind


def _pages(database: Database, thread_id: str, name: str) -> Iterator[stored.Page]:
    for table in tables.TABLES:
        last = None
        while True:
            page = database.read(name, stored.page, table, thread_id, last)
            if page.last is None:
                break
            yield page
            last = page.last


def _sum(table: Any, found: Iterable[dict[str, Any]]) -> int:
    return sum(int.from_bytes(stored.row_digest(table, row), "big") for row in found)
