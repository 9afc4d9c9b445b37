"""The cache of a saver: values of the latest checkpoints, as bases of the next deltas."""

from __future__ import annotations

import threading
from collections import OrderedDict
from heapq import nlargest
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from checkpoint_sa.deltas.chain import Base

CACHE_BYTES = 48 * 2**20
"""The size of a saver's cache: about a hundred conversations of 400 turns."""

MAX_EXCLUDED = 4
"""How many cached values a read can exclude; each is two bound parameters."""


class BaseCache:
    """The values of the latest checkpoint of each namespace; the least recently used are dropped.

    A version always names the same value, so a cached value is never wrong. It may be outdated, if
    its row was deleted or rewritten: the statement that appends a delta checks the row of its base.
    """

    def __init__(self, limit: int = CACHE_BYTES, *, keeps_removed: bool = True) -> None:
        self._limit = limit
        self.keeps_removed = keeps_removed
        """Whether the database keeps a value that the latest checkpoint doesn't have any more."""
        self.bytes = 0
        self.entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> dict[str, Base] | None:
        """Return channel -> base of a checkpoint; None if the checkpoint isn't cached."""
        with self._lock:
            entry = self.entries.get((thread_id, checkpoint_ns))
            if entry is None or entry.checkpoint_id != checkpoint_id:
                return None
            self.entries.move_to_end((thread_id, checkpoint_ns))
            return entry.bases

    def largest(self, thread_id: str, checkpoint_ns: str) -> list[Base]:
        """Return the bases for a read to exclude: the largest first, removed values last."""
        with self._lock:
            entry = self.entries.get((thread_id, checkpoint_ns))
            bases = entry.bases.values() if entry else ()
        return nlargest(MAX_EXCLUDED, bases, key=_benefit)

    def put(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, bases: dict[str, Base]
    ) -> None:
        """Cache a checkpoint's values; they replace the cached values of its namespace."""
        size = 1024 + sum(1024 + len(base.value) for base in bases.values())
        with self._lock:
            self._discard((thread_id, checkpoint_ns))
            self.entries[thread_id, checkpoint_ns] = Entry(checkpoint_id, bases, size)
            self.bytes += size
            while self.bytes > self._limit:
                self._discard(next(iter(self.entries)))

    def discard(self, thread_id: str, checkpoint_ns: str) -> None:
        """Remove the values of a namespace."""
        with self._lock:
            self._discard((thread_id, checkpoint_ns))

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self.entries.clear()
            self.bytes = 0

    def _discard(self, key: tuple[str, str]) -> None:
        entry = self.entries.pop(key, None)
        self.bytes -= entry.size if entry else 0


def _benefit(base: Base) -> tuple[bool, int]:
    return not base.is_removed, len(base.value)


class Entry(NamedTuple):
    """The cached values of a namespace."""

    checkpoint_id: str
    bases: dict[str, Base]
    size: int
