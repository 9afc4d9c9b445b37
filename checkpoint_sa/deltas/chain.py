"""Chains that were read, and the values to rebuild from them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from checkpoint_sa.deltas.diff import InconsistentError, apply
from checkpoint_sa.deltas.fingerprint import FINGERPRINT, body_digest, fingerprint, size_of
from checkpoint_sa.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from hashlib import _Hash

    from checkpoint_sa.rows import CheckpointKey, LazyValue, Write

VALUE_SUFFIX = ":chain"
"""At the end of the `type` of a value that is stored in a chain."""

WRITE_SUFFIX = ":since"
"""At the end of the `type` of a write that is stored as a delta."""

ChainKey = tuple[str, str, str, str]
"""thread_id, checkpoint_ns, channel, chain."""


class Place(NamedTuple):
    """The place of a value in a chain, and its fingerprint: a row of `checkpoint_blobs`."""

    version: str
    fingerprint: bytes
    chain: str
    position: int


class Base(NamedTuple):
    """A value in a chain, to encode the next value against."""

    version: str
    fingerprint: bytes
    chain: str
    position: int
    chain_bytes: int
    """The bytes of the chain's rows up to this position."""
    value: bytes
    body: _Hash
    """See `body_digest`."""
    is_removed: bool = False
    """Whether the channel has no value any more; a later value may still resemble this value."""

    @property
    def place(self) -> Place:
        """The place of the value."""
        return Place(*self[:4])


class DeltaValue:
    """A value that is stored in a chain, rebuilt when it is read."""

    __slots__ = ("base", "place")

    is_delta: ClassVar[bool] = True

    def __init__(self, place: Place, base: Callable[[], Base]) -> None:
        self.place = place
        self.base = base
        """Returns the value as a base; raises CorruptDataError."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        return size_of(self.place.fingerprint)

    def read(self) -> bytes:
        """Return the value.

        Raises:
            CorruptDataError: A row is missing, or the value lacks the stored fingerprint.
        """
        return self.base().value


class DeltaWrite:
    """A write that is stored as a delta against a value, rebuilt when it is read.

    Args:
        key: Its checkpoint.
        write: The write as stored.
        base: The value of its channel in the checkpoint.
    """

    __slots__ = ("_base", "_delta", "_fingerprint", "_key", "_write")

    is_delta: ClassVar[bool] = True

    def __init__(self, key: CheckpointKey, write: Write, base: LazyValue) -> None:
        self._key = key
        self._write = write
        self._base = base
        blob = write.blob.read()
        self._fingerprint = blob[: FINGERPRINT.size]
        self._delta = blob[FINGERPRINT.size :]

    @property
    def size(self) -> int:
        """The number of bytes."""
        return size_of(self._fingerprint)

    def read(self) -> bytes:
        """Return the write.

        Raises:
            CorruptDataError: The base or the delta isn't as it was stored.
        """
        try:
            value = bytearray(self._base.read())
        except CorruptDataError as error:
            raise self._corrupt(str(error)) from None
        with suppress(InconsistentError):  # the fingerprint differs then
            apply(value, self._delta)
        if fingerprint(value) != self._fingerprint:
            raise self._corrupt(
                "it is stored as a delta against its channel's value in the checkpoint, and that"
                " value or the delta has changed"
            )
        return bytes(value)

    def _corrupt(self, reason: str) -> CorruptDataError:
        thread, namespace, checkpoint_id = self._key
        return CorruptDataError(
            f"A write can't be read: {reason}. Row: checkpoint_writes: thread_id={thread!r},"
            f" checkpoint_ns={namespace!r}, {checkpoint_id=}, task_id={self._write.task_id!r},"
            f" idx={self._write.idx!r}."
        )


class Chain:
    """The rows of a chain that were read, and the places of the values to rebuild."""

    def __init__(self, key: ChainKey) -> None:
        self.key = key
        self.rows: dict[int, bytes] = {}
        self.places: dict[int, Place] = {}
        """By position."""
        self._bases: dict[int, Base] = {}
        self._error: CorruptDataError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether no row is missing up to the last value to rebuild."""
        return all(position in self.rows for position in range(max(self.places) + 1))

    def base(self, position: int) -> Base:
        """Return a value; the first call rebuilds all values of the chain, in one pass.

        Raises:
            CorruptDataError: A row is missing, or the value lacks the stored fingerprint.
        """
        if not self._bases and self._error is None:
            try:
                self._rebuild()
            except CorruptDataError as error:
                self._error = error
        if position not in self._bases and self._error is not None:
            raise self._error
        return self._bases[position]

    def _rebuild(self) -> None:
        value = bytearray()
        chain_bytes = 0
        for position in range(max(self.places) + 1):
            row = self.rows.get(position)
            if row is None:
                raise self._corrupt(f"the row at position {position} is missing")
            if position == 0:
                value += row
            else:
                try:
                    apply(value, row)
                except InconsistentError:
                    raise self._corrupt(f"the delta at position {position} doesn't fit") from None
            chain_bytes += len(row)
            place = self.places.get(position)
            if place is not None:
                body = body_digest(value)
                if fingerprint(value, body) != place.fingerprint:
                    raise self._corrupt(
                        f"the value at position {position} has another fingerprint than the row of"
                        f" checkpoint_blobs with version={place.version!r} names"
                    )
                self._bases[position] = Base(*place, chain_bytes, bytes(value), body)

    def _corrupt(self, reason: str) -> CorruptDataError:
        thread, namespace, channel, chain = self.key
        return CorruptDataError(
            f"A value can't be rebuilt: {reason}. Rows: checkpoint_deltas:"
            f" thread_id={thread!r}, checkpoint_ns={namespace!r}, {channel=}, {chain=}."
        )


class Chains:
    """The chains of some rows, by key.

    Args:
        cached: Cached values. If a row of `checkpoint_blobs` has the place of a cached value, the
            value isn't rebuilt.
    """

    def __init__(self, cached: Iterable[Base] = ()) -> None:
        self._cached = {base.place: base._replace(is_removed=False) for base in cached}
        self._chains: dict[ChainKey, Chain] = {}

    def _chain(self, key: ChainKey) -> Chain:
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = Chain(key)
        return chain

    def value(self, key: ChainKey, position: int, version: str, fingerprint: bytes) -> DeltaValue:
        """Register a row of `checkpoint_blobs`, and return its value, to be rebuilt when read."""
        place = Place(version, fingerprint, key[3], position)
        cached = self._cached.get(place)
        if cached is not None:
            return DeltaValue(place, lambda: cached)
        chain = self._chain(key)
        chain.places[position] = place
        return DeltaValue(place, partial(chain.base, position))

    def add(self, key: ChainKey, position: int, data: bytes) -> None:
        """Add a row of `checkpoint_deltas`."""
        self._chain(key).rows[position] = data

    def missing(self) -> list[tuple[str, str, str, str]]:
        """Return the blob key of the last value of each chain that lacks rows."""
        return [
            (*chain.key[:3], chain.places[max(chain.places)].version)
            for chain in self._chains.values()
            if chain.places and not chain.is_complete
        ]
