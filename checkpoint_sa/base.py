"""What the savers of both colours share; no database is opened here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from langgraph.checkpoint.base import BaseCheckpointSaver

from checkpoint_sa import codec, engines, migrate, repository
from checkpoint_sa.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from langgraph.checkpoint.base import CheckpointTuple
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")

RETRIES = 4
"""How often a transaction that the database ended for another one's sake is tried again."""

_FIRST_PAGE = 10
_LARGEST_PAGE = 100
"""PostgreSQL compiles the statement of a larger page at each execution: 270 ms instead of 48."""
_PAGE_BYTES = 8 * 2**20


class BaseSaver(BaseCheckpointSaver[str]):
    """A saver's settings, and how one operation runs inside a connection."""

    keeps_latest_only = False
    _joins = False

    def __init__(self, *, serde: SerializerProtocol | None, schema: str | None) -> None:
        super().__init__(serde=serde)
        self.schema = schema
        self._verified = False

    def get_next_version(self, current: str | float | None, channel: None = None) -> str:  # noqa: ARG002
        """Return a version greater than `current`: a counter and a random part."""
        return codec.next_version(current)

    def _within(
        self,
        connection: Connection,
        function: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one operation that reads."""
        if self._joins:
            with engines.joined(connection, schema=self.schema):
                self._verify(connection)
                return function(connection, *args, **kwargs)
        self._verify(connection)
        return function(connection, *args, **kwargs)

    def _within_write(
        self,
        connection: Connection,
        function: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one operation that writes: in a savepoint where the transaction is the caller's."""
        if self._joins:
            with engines.joined(connection, schema=self.schema):
                engines.begin_write(connection)
                self._verify(connection)
                with connection.begin_nested():
                    return function(connection, *args, **kwargs)
        engines.begin_write(connection)
        self._verify(connection)
        return function(connection, *args, **kwargs)

    def _verify(self, connection: Connection) -> None:
        """Check the schema's revision at the saver's first use."""
        if not self._verified:
            migrate.verify(connection, schema=self.schema)
            self._verified = True


class Paging:
    """Where `list` stands, and how many checkpoints its next page may have."""

    def __init__(
        self, criteria: repository.Criteria, filter: Mapping[str, Any] | None, limit: int | None
    ) -> None:
        self._criteria = criteria
        self._filter = filter
        self._limit = limit
        self._size = _FIRST_PAGE
        self._last: repository.CheckpointKey | None = None
        self.unfinished = limit is None or limit > 0

    @property
    def position(self) -> tuple[repository.Criteria, int, repository.CheckpointKey | None]:
        """Return the arguments of `repository.page`."""
        size = self._size
        if self._limit is not None and not self._filter:
            size = min(size, self._limit)
        return self._criteria, size, self._last

    def take(
        self,
        serde: SerializerProtocol,
        page: Sequence[repository.Stored],
        last: repository.CheckpointKey | None,
    ) -> list[CheckpointTuple]:
        """Move past a page and return what matches of it.

        The size of the next page follows from the bytes of this one: many small checkpoints at a
        time, or few large ones.
        """
        matching = [
            stored
            for stored in page
            if codec.matches(codec.load_metadata(serde, stored), self._filter)
        ][: self._limit]
        if self._limit is not None:
            self._limit -= len(matching)
        self._last = last
        self.unfinished = last is not None and self._limit != 0
        average = sum(map(size_of, page)) // max(1, len(page))
        self._size = max(1, min(_LARGEST_PAGE, _PAGE_BYTES // max(1, average)))
        return [codec.load_checkpoint(serde, stored) for stored in matching]


def size_of(stored: repository.Stored) -> int:
    """Return the bytes of a checkpoint's values and writes."""
    values = sum(len(blob) for _, blob in stored.blobs.values())
    return 1024 + values + sum(len(write.blob) for write in stored.writes)


def store_checkpoint(connection: Connection, rows: codec.CheckpointRows) -> None:
    """Store a checkpoint."""
    engines.check_size(connection, [*rows.blobs, rows.checkpoint])
    repository.put(connection, rows.checkpoint, rows.blobs)


def store_only_checkpoint(connection: Connection, rows: codec.CheckpointRows) -> None:
    """Store a checkpoint and delete what it replaces in its namespace."""
    engines.check_size(connection, [*rows.blobs, rows.checkpoint])
    repository.put_only(connection, rows.checkpoint, rows.blobs)


def store_writes(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Store a task's writes."""
    engines.check_size(connection, rows)
    repository.put_writes(connection, rows)


def prune_strategy(name: str) -> Callable[[Connection, str], None]:
    """Return what a strategy does to one thread.

    Raises:
        InvalidInputError: There is no such strategy.
    """
    strategies: dict[str, Callable[[Connection, str], None]] = {
        "keep_latest": repository.keep_latest,
        "delete": lambda connection, thread_id: repository.delete_threads(connection, [thread_id]),
    }
    if name not in strategies:
        raise InvalidInputError(
            f"There is no prune strategy {name!r}; there are {', '.join(map(repr, strategies))}."
        )
    return strategies[name]
