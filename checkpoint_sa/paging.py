"""The position of `list` and `threads` between two pages, and the size of the next page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkpoint_sa import codec
from checkpoint_sa.repository import statistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langgraph.checkpoint.serde.base import SerializerProtocol

    from checkpoint_sa.rows import CheckpointKey, Criteria, Stored

_FIRST_PAGE = 10
_LARGEST_PAGE = 100
"""PostgreSQL compiles the statement of a larger page at each execution: 270 ms instead of 48."""
_PAGE_BYTES = 8 * 2**20


class Paging:
    """The position of `list`, and the largest number of checkpoints in its next page."""

    def __init__(
        self, criteria: Criteria, filter: Mapping[str, Any] | None, limit: int | None
    ) -> None:
        self._criteria = criteria
        self._filter = filter
        self._limit = limit
        self._size = _FIRST_PAGE
        self._last: CheckpointKey | None = None
        self.unfinished = limit is None or limit > 0

    @property
    def position(self) -> tuple[Criteria, int, CheckpointKey | None]:
        """Return the arguments of `repository.reading.page`."""
        size = self._size
        if self._limit is not None and not self._filter:
            size = min(size, self._limit)
        return self._criteria, size, self._last

    def take(
        self,
        serde: SerializerProtocol,
        page: Sequence[Stored],
        last: CheckpointKey | None,
    ) -> list[Stored]:
        """Move past a page and return its matching checkpoints.

        The size of the next page follows from the bytes of this page: many small checkpoints, or
        few large checkpoints.
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
        return matching


class ThreadPaging:
    """The position of `threads`."""

    def __init__(
        self, where: Mapping[str, Any] | None, after: str | None, limit: int | None
    ) -> None:
        self._where = where
        self._filter_json = codec.criteria(None, None, where).filter_json
        self._after = None if after is None else codec.thread_id(after)
        self._last: CheckpointKey | None = None
        self._limit = limit
        self.unfinished = limit is None or limit > 0

    @property
    def position(self) -> statistics.Position:
        """Return the start of the next page."""
        size = _LARGEST_PAGE
        if self._limit is not None and not self._where:
            size = min(size, self._limit)
        return statistics.Position(
            bool(self._where), self._filter_json, self._after, self._last, size
        )

    def take(self, serde: SerializerProtocol, page: Sequence[Stored]) -> list[str]:
        """Move past a page and return its matching threads."""
        size = self.position.size
        matching = {
            stored.key[0]: None
            for stored in page
            if codec.matches(codec.load_metadata(serde, stored), self._where)
        }
        found = list(matching)[: self._limit]
        if self._limit is not None:
            self._limit -= len(found)
        self.unfinished = len(page) == size and self._limit != 0
        if page:  # the rest of a matching thread isn't read
            self._after = page[-1].key[0]
            self._last = None if self._after in matching else page[-1].key
        return found


def size_of(stored: Stored) -> int:
    """Return the bytes of a checkpoint's values and writes."""
    values = sum(blob.size for _, blob in stored.blobs.values())
    return 1024 + values + sum(write.blob.size for write in stored.writes)
