"""Values and writes as deltas against values that are stored."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from checkpoint_sa.deltas.chain import VALUE_SUFFIX, WRITE_SUFFIX, Base, DeltaValue
from checkpoint_sa.deltas.diff import difference
from checkpoint_sa.deltas.fingerprint import body_digest, fingerprint
from checkpoint_sa.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from langgraph.checkpoint.base import ChannelVersions, Checkpoint

    from checkpoint_sa.deltas.cache import BaseCache
    from checkpoint_sa.rows import CheckpointRows, Stored

MIN_BYTES = 2048
"""Smaller values are stored whole: a row of a chain has some 200 bytes of keys."""

MAX_ROWS = 256
"""The largest number of rows in a chain: to read a row takes about 4 us, besides its bytes."""

TYPE_BYTES = 255 - len(VALUE_SUFFIX)


class OutdatedError(Exception):
    """The base of a delta isn't stored any more."""


def is_large_enough(row: Mapping[str, Any]) -> bool:
    """Whether a value may be stored in a chain."""
    return len(row["blob"]) >= MIN_BYTES and len(row["type"].encode()) <= TYPE_BYTES


def encode_value(row: Mapping[str, Any], base: Base | None) -> tuple[dict[str, Any], Base]:
    """Encode the row of a whole value as a delta, or as the base of a new chain.

    Args:
        row: The row, as for `checkpoint_blobs`.
        base: A value of the same channel, most likely similar.

    Returns:
        The row that `writing.put` stores, and the value as the base of the next delta.
    """
    value = row["blob"]
    delta = None if base is None else _delta(base, value)
    body = body_digest(value, base)
    made = Base(
        version=row["version"],
        fingerprint=fingerprint(value, body),
        chain=secrets.token_hex(8),
        position=0,
        chain_bytes=len(value),
        value=value,
        body=body,
    )
    if base is not None and delta is not None:
        made = made._replace(
            chain=base.chain,
            position=base.position + 1,
            chain_bytes=base.chain_bytes + len(delta),
        )
    is_appended = base is not None and made.position > 0
    return {
        **row,
        "type": row["type"] + VALUE_SUFFIX,
        "blob": made.fingerprint,
        "chain": made.chain,
        "position": made.position,
        "data": value if delta is None else delta,
        "base_version": base.version if base and is_appended else "",
        "base_blob": base.fingerprint if base and is_appended else b"",
    }, made


def _delta(base: Base, value: bytes) -> bytes | None:
    """Return the delta if it is worth storing, otherwise None."""
    if base.position + 1 >= MAX_ROWS:
        return None
    delta = difference(base.value, value)
    small = 2 * len(delta) <= len(value) and base.chain_bytes + len(delta) <= 2 * len(value)
    return delta if small else None


def encode_write(row: dict[str, Any], base: Base | None) -> dict[str, Any]:
    """Encode the row of a write as a delta against its channel's value, if that halves its size."""
    if base is None or base.is_removed or not is_large_enough(row):
        return row
    delta = difference(base.value, row["blob"])
    if 2 * len(delta) > len(row["blob"]):
        return row
    return {**row, "type": row["type"] + WRITE_SUFFIX, "blob": fingerprint(row["blob"]) + delta}


class PutEncoder:
    """The rows of a `put`, with values as deltas against the values of the parent checkpoint.

    The parent's values come from the cache; if they aren't cached, from the database, so that a
    small cache costs no storage. The put fails if a base was deleted, if another delta was appended
    to it, or if a value is stored already. Then `encode_whole` makes the rows without bases.
    """

    def __init__(
        self,
        cache: BaseCache,
        rows: CheckpointRows,
        checkpoint: Checkpoint,
        new_versions: ChannelVersions,
    ) -> None:
        self._cache = cache
        self._rows = rows
        self._versions = checkpoint["channel_versions"]
        self._new_versions = new_versions
        row = rows.checkpoint
        self._key = row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"]
        self._parent = row["parent_checkpoint_id"]
        self._bases = cache.get(*self._key[:2], self._parent) if self._parent else {}
        self._made: dict[str, Base] = {}
        self.size = sum(len(blob["blob"]) for blob in rows.blobs)
        """The bytes to compare."""

    @property
    def uncached(self) -> tuple[str, str, str] | None:
        """The key of the parent, if it must be read first; otherwise None."""
        if self._bases is None and any(map(is_large_enough, self._rows.blobs)):
            return *self._key[:2], self._parent
        return None

    def encode(self, parent: Stored | None) -> CheckpointRows:
        """Return the rows, given the parent if it was uncached.

        The values that the checkpoint shares with its parent are cached at once, because a task's
        writes may arrive before the checkpoint is stored.
        """
        if parent is not None:
            self._bases = bases_of(parent)
        rows, self._made = self._encode(self._bases or {})
        new = {row["channel"] for row in rows.deltas}
        shared = {channel: base for channel, base in self._made.items() if channel not in new}
        self._cache.put(*self._key, shared)
        return rows

    def encode_whole(self) -> CheckpointRows:
        """Discard the cached values; return the rows with every value whole."""
        self._cache.discard(*self._key[:2])
        return self._encode({})[0]

    def committed(self) -> None:
        """Cache the values that were stored."""
        self._cache.put(*self._key, self._made)

    def _encode(self, bases: Mapping[str, Base]) -> tuple[CheckpointRows, dict[str, Base]]:
        """Return the rows, and channel -> base of the checkpoint.

        A channel may lose its value and get a similar value later, as the input's channel does at
        each turn. So its last value stays cached, marked as removed.
        """
        made: dict[str, Base] = {}
        whole: list[dict[str, Any]] = []
        deltas: list[dict[str, Any]] = []
        for channel, base in bases.items():
            is_shared = str(self._versions.get(channel)) == base.version
            if channel not in self._new_versions and is_shared:
                made[channel] = base
            elif self._cache.keeps_removed:
                made[channel] = base._replace(is_removed=True)
        for row in self._rows.blobs:
            channel = row["channel"]
            if channel in self._new_versions and is_large_enough(row):
                delta, made[channel] = encode_value(row, bases.get(channel))
                deltas.append(delta)
            elif channel not in made or made[channel].is_removed:  # otherwise it is stored
                whole.append(row)
        return self._rows._replace(blobs=whole, deltas=deltas), made


def bases_of(stored: Stored) -> dict[str, Base]:
    """Return channel -> base of the values in chains, without corrupt values."""
    bases = {}
    for channel, value in _in_chains(stored):
        with suppress(CorruptDataError):
            bases[channel] = value.base()
    return bases


def is_outdated(bases: Mapping[str, Base], stored: Stored) -> bool:
    """Whether the cache lacks a value of a checkpoint, or has it at another place.

    Or it has another value: a rewrite of states changes the versions of a checkpoint.
    """
    versions = stored.checkpoint.get("channel_versions") or {}
    return any(
        not base.is_removed and str(versions.get(channel)) != base.version
        for channel, base in bases.items()
    ) or any(
        channel not in bases or bases[channel].place != value.place
        for channel, value in _in_chains(stored)
    )


def _in_chains(stored: Stored) -> Iterator[tuple[str, DeltaValue]]:
    """Yield the channels whose values can be appended to, as only those in chains can be."""
    for channel, (_, value) in stored.blobs.items():
        if isinstance(value, DeltaValue):
            yield channel, value
