"""Values as chains of changes, so that a version costs about what it adds. No database.

A chain is a value and the changes that followed it, each a row of `checkpoint_deltas`:

    position 0   the bytes of a value, as the serializer made them
    position p   what makes the value at p out of the one at p - 1: splices, each of three
                 numbers (bytes to keep, to drop and to put in) and the bytes to put in

A version's row in `checkpoint_blobs` says where its value stands: `chain` and `position`. Its
`type` is the serializer's tag with SUFFIX, which no other reader takes for its own. Its `blob` is a
reference, by which the value is checked: its size, and a SHA-256 of its bytes, of which those that
MessagePack begins a list or dict with come last, followed by how many these are. So a list that has
grown is hashed from where it has. Numbers are big-endian: four bytes in a splice, eight in a
reference.

A task's write mostly resembles the value that its channel has in the checkpoint from which the task
ran. Such a row of `checkpoint_writes` has SINCE at the end of its `type`; its `blob` is a reference
and the splices that make the write out of that value. Who has the checkpoint has the value.

A new chain begins where reading the old one would take more than twice the value's bytes or more
than ROWS rows, and where little of a value stays the same. So what is stored grows with what is
added, and what is read stays in proportion to the value.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import struct
import threading
from bisect import bisect_left
from collections import Counter, OrderedDict
from contextlib import suppress
from functools import partial
from heapq import nlargest
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from hashlib import _Hash

SUFFIX = ":chain"
SINCE = ":since"

LEAST_BYTES = 2048
"""Smaller values stay plain: a chain's rows have some 200 bytes of keys each."""

ROWS = 256
"""The most rows of a chain: one takes about 4 us to read, besides its bytes."""

CACHE_BYTES = 48 * 2**20
"""What a saver remembers of values: about a hundred conversations of 400 turns."""

KNOWN = 4
"""Of how many values a statement that reads a checkpoint leaves out the rows."""

TYPE_BYTES = 255 - len(SUFFIX)

_REFERENCE = struct.Struct(">Q32s")
_SPLICE = struct.Struct(">III")
# Fixed widths: four times as fast to read as numbers of seven bits a byte, and a turn of a chat is
# 10 bytes of 700 longer.


class InconsistentError(Exception):
    """A change doesn't fit the value that it is applied to."""


class OutdatedError(Exception):
    """A value that a change was to be appended to isn't there any more."""


# Differences


class _Match(NamedTuple):
    old: int
    new: int
    size: int


def difference(old: bytes, new: bytes) -> bytes:
    """Return the splices that make `new` out of `old`: few and small where they are alike."""
    splices = []
    at_old = at_new = keep = 0
    for match in [*_matches(old, new), _Match(len(old), len(new), 0)]:
        if match[:2] != (at_old, at_new):
            drop, added = match.old - at_old, new[at_new : match.new]
            splices.append(_SPLICE.pack(keep, drop, len(added)) + added)
            keep = 0
        keep += match.size
        at_old, at_new = match.old + match.size, match.new + match.size
    return b"".join(splices)


def apply(value: bytearray, change: bytes) -> None:
    """Change a value in place: its bytes are moved only where they are spliced.

    Raises:
        InconsistentError: The change was made for another value, or is damaged.
    """
    at = position = 0
    while position < len(change):
        try:
            keep, drop, size = _SPLICE.unpack_from(change, position)
        except struct.error:
            raise InconsistentError from None
        at += keep
        start = position + _SPLICE.size
        position = start + size
        if at + drop > len(value) or position > len(change):
            raise InconsistentError
        value[at : at + drop] = change[start:position]
        at += size


def _matches(old: bytes, new: bytes) -> Iterator[_Match]:
    """Yield what is the same in both, in the order of both."""
    # The number of items of a list or dict comes first; the items begin behind it.
    at_old, at_new = _header(old), _header(new)
    if old[:at_old] == new[:at_new] or 0 in (at_old, at_new):
        at_old = at_new = 0
    size = _run(old, at_old, new, at_new)
    yield _Match(at_old, at_new, size)
    at_old, at_new = at_old + size, at_new + size
    end = _run_back(old, len(old), new, len(new), min(len(old) - at_old, len(new) - at_new))
    end_old, end_new = len(old) - end, len(new) - end
    for match in _matches_between(old[at_old:end_old], new[at_new:end_new]):
        yield _Match(at_old + match.old, at_new + match.new, match.size)
    yield _Match(end_old, end_new, end)


def _header(data: bytes | bytearray) -> int:
    """Return the size of MessagePack's header of a list or dict; 0 of anything else."""
    first = data[0] if data else 0
    if 0x80 <= first <= 0x9F:  # noqa: PLR2004
        return 1
    return {0xDC: 3, 0xDE: 3, 0xDD: 5, 0xDF: 5}.get(first, 0)


_LEAST_PIECE = 64
_PIECES = 2048
_FIRST, _SECOND = (re.escape(bytes(range(rest, 256, 8))) for rest in (1, 5))


def _matches_between(old: bytes, new: bytes) -> Iterator[_Match]:
    """Yield what is the same in both, by pieces that are cut at places that the content decides.

    Bytes that moved as a whole are cut alike, wherever they stand. Equal pieces are paired, those
    that stay in order are extended in both directions.
    """
    if min(len(old), len(new)) < _LEAST_PIECE:
        return
    least = _LEAST_PIECE
    while least * _PIECES < max(len(old), len(new)):
        least *= 2
    places = _pieces(old, least)
    pairs = [(places[piece], at) for piece, at in _pieces(new, least).items() if piece in places]
    at_old = at_new = 0
    for one, other in _ascending(pairs):
        if one >= at_old and other >= at_new:
            back = _run_back(old, one, new, other, min(one - at_old, other - at_new))
            size = back + _run(old, one, new, other)
            yield _Match(one - back, other - back, size)
            at_old, at_new = one - back + size, other - back + size


def _pieces(data: bytes, least: int) -> dict[tuple[bytes, int], int]:
    """Return piece and how often it came before -> offset.

    A piece ends with two bytes of which each is one of eight in whatever content: about as often
    as pieces have to end, so that they end alike soon after a difference.
    """
    # A regular expression cuts at the speed of C: 1 ms for 300 KB.
    cut = rb"(?s).{%d}.{0,%d}?[%s][%s]|.{1,%d}" % (least, 4 * least, _FIRST, _SECOND, 4 * least)
    seen: Counter[bytes] = Counter()
    offsets: dict[tuple[bytes, int], int] = {}
    at = 0
    for piece in re.findall(cut, data):
        offsets[piece, seen[piece]] = at
        seen[piece] += 1
        at += len(piece)
    return offsets


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest run of pairs whose first parts ascend; their second ones do already."""
    ends: list[int] = []
    end_pairs: list[int] = []
    before: list[int] = []
    for number, (first, _) in enumerate(pairs):
        place = bisect_left(ends, first)
        ends[place : place + 1] = [first]
        end_pairs[place : place + 1] = [number]
        before.append(end_pairs[place - 1] if place else -1)
    run = []
    number = end_pairs[-1] if end_pairs else -1
    while number >= 0:
        run.append(pairs[number])
        number = before[number]
    return run[::-1]


def _run(old: bytes, at_old: int, new: bytes, at_new: int) -> int:
    """Return how many bytes are the same from here on; the time is that of comparing these."""
    view = memoryview(old)

    def is_same(done: int, size: int) -> bool:
        one = at_old + done
        return new.startswith(view[one : one + size], at_new + done)

    return _longest(is_same, min(len(old) - at_old, len(new) - at_new))


def _run_back(old: bytes, at_old: int, new: bytes, at_new: int, limit: int) -> int:
    """Return how many bytes are the same before here, of at most `limit`."""
    view = memoryview(old)

    def is_same(done: int, size: int) -> bool:
        one = at_old - done
        return new.startswith(view[one - size : one], at_new - done - size)

    return _longest(is_same, limit)


def _longest(is_same: Callable[[int, int], bool], limit: int) -> int:
    """Return how far two stretches are the same, given whether a part of them is."""
    if is_same(0, limit):
        return limit
    same, differs = 0, limit
    while differs - same > 1:
        middle = (same + differs) // 2
        if is_same(same, middle - same):
            same = middle
        else:
            differs = middle
    return same


# Digests


def refer(value: bytes | bytearray) -> bytes:
    """Return the reference that a value is checked by."""
    return _reference(value, _hashed(value))


def _hashed(value: bytes | bytearray, tail: Tail | None = None) -> _Hash:
    """Return the SHA-256 of what stands behind a value's header, by that of a value it goes on."""
    # SHA-256 has instructions of its own on today's processors: 0.24 ms for 450 KB, BLAKE2b 0.35.
    start = _header(value)
    if tail is not None:
        known = memoryview(tail.value)[_header(tail.value) :]
        if value.startswith(known, start):
            digest = tail.hashed.copy()
            digest.update(memoryview(value)[start + len(known) :])
            return digest
    return hashlib.sha256(memoryview(value)[start:])


def _reference(value: bytes | bytearray, hashed: _Hash) -> bytes:
    whole = hashed.copy()
    start = _header(value)
    whole.update(value[:start] + bytes([start]))
    return _REFERENCE.pack(len(value), whole.digest())


# Reading

ChainKey = tuple[str, str, str, str]
"""thread_id, checkpoint_ns, channel, chain."""


class Chain:
    """The rows of a chain that were read, and the values that are wanted of it."""

    def __init__(self, key: ChainKey) -> None:
        self.key = key
        self.rows: dict[int, bytes] = {}
        self.wanted: dict[int, Place] = {}
        """By position."""
        self._tails: dict[int, Tail] = {}
        self._error: CorruptDataError | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no row is missing up to the last value that is wanted."""
        return all(position in self.rows for position in range(max(self.wanted) + 1))

    def tail(self, position: int) -> Tail:
        """Return a wanted value; the first call puts all of them together, in one pass.

        Raises:
            CorruptDataError: A row is missing, or the value isn't the one that was stored.
        """
        if not self._tails and self._error is None:
            try:
                self._put_together()
            except CorruptDataError as error:
                self._error = error
        if position not in self._tails and self._error is not None:
            raise self._error
        return self._tails[position]

    def _put_together(self) -> None:
        value = bytearray()
        chain_bytes = 0
        for position in range(max(self.wanted) + 1):
            row = self.rows.get(position)
            if row is None:
                raise self._corrupt(f"the row at position {position} is missing")
            if position == 0:
                value += row
            else:
                try:
                    apply(value, row)
                except InconsistentError:
                    raise self._corrupt(f"the change at position {position} doesn't fit") from None
            chain_bytes += len(row)
            place = self.wanted.get(position)
            if place is not None:
                hashed = _hashed(value)
                if _reference(value, hashed) != place.reference:
                    raise self._corrupt(
                        f"the value at position {position} has another digest than the row of"
                        f" checkpoint_blobs with version={place.version!r} names"
                    )
                self._tails[position] = Tail(*place, chain_bytes, bytes(value), hashed)

    def _corrupt(self, what: str) -> CorruptDataError:
        thread, namespace, channel, chain = self.key
        return CorruptDataError(
            f"A value can't be put together: {what}. Rows: checkpoint_deltas:"
            f" thread_id={thread!r}, checkpoint_ns={namespace!r}, {channel=}, {chain=}."
        )


def size_of(reference: bytes) -> int:
    """Return the size of the value that a reference names."""
    return int.from_bytes(reference[:8], "big")


class Place(NamedTuple):
    """What a row of `checkpoint_blobs` says of a value: where it stands, and what it is."""

    version: str
    reference: bytes
    chain: str
    position: int


class Chained:
    """A value that is stored in a chain; its length is the value's."""

    def __init__(self, place: Place, tail: Callable[[], Tail]) -> None:
        self.place = place
        self.tail = tail
        """Returns the value, as what a next one is appended to; raises CorruptDataError."""

    def __len__(self) -> int:
        return size_of(self.place.reference)

    def whole(self) -> bytes:
        """Return the value."""
        return self.tail().value


class Since:
    """A write that is stored as what makes it out of a value; its length is the write's."""

    def __init__(self, base: bytes | Chained, blob: bytes) -> None:
        self._base = base
        self._reference = blob[: _REFERENCE.size]
        self._change = blob[_REFERENCE.size :]

    def __len__(self) -> int:
        return size_of(self._reference)

    def whole(self) -> bytes:
        """Return the write.

        Raises:
            CorruptDataError: The value or the change isn't the one that was stored.
        """
        base = self._base.whole() if isinstance(self._base, Chained) else self._base
        value = bytearray(base)
        with suppress(InconsistentError):  # the digest tells
            apply(value, self._change)
        if refer(value) != self._reference:
            raise CorruptDataError(
                "it is stored as what changed since its channel's value in the checkpoint, and that"
                " value, or the change, isn't the one that was stored"
            )
        return bytes(value)


class Chains:
    """The chains that some rows are part of.

    Args:
        known: Values that needn't be read where rows of `checkpoint_blobs` name just these.
    """

    def __init__(self, known: Iterable[Tail] = ()) -> None:
        self._known = {tail.place: tail._replace(is_past=False) for tail in known}
        self._chains: dict[ChainKey, Chain] = {}

    def _of(self, key: ChainKey) -> Chain:
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = Chain(key)
        return chain

    def name(self, key: ChainKey, position: int, version: str, reference: bytes) -> Chained:
        """Want the value of a row of `checkpoint_blobs`."""
        place = Place(version, reference, key[3], position)
        known = self._known.get(place)
        if known is not None:
            return Chained(place, lambda: known)
        chain = self._of(key)
        chain.wanted[position] = place
        return Chained(place, partial(chain.tail, position))

    def add(self, key: ChainKey, position: int, data: bytes) -> None:
        """Take a row of `checkpoint_deltas`."""
        self._of(key).rows[position] = data

    def lacking(self) -> list[tuple[str, str, str, str]]:
        """Name, by the keys of their blobs, the last values of the chains that aren't whole."""
        return [
            (*chain.key[:3], chain.wanted[max(chain.wanted)].version)
            for chain in self._chains.values()
            if chain.wanted and not chain.is_whole
        ]


# Writing


class Tail(NamedTuple):
    """A value that stands in a chain, and what a next one needs to know of it."""

    version: str
    reference: bytes
    chain: str
    position: int
    chain_bytes: int
    """The bytes of all rows of the chain up to this one."""
    value: bytes
    hashed: _Hash
    """See `_hashed`."""
    is_past: bool = False
    """Whether the channel has no value any more; a next one may still resemble this."""

    @property
    def place(self) -> Place:
        """Where the value stands."""
        return Place(*self[:4])


def chained(row: Mapping[str, Any], tail: Tail | None) -> tuple[dict[str, Any], Tail]:
    """Make of the row of a plain value that of a change, or of the first value of a chain.

    Args:
        row: The row, as for `checkpoint_blobs`.
        tail: A value of the same channel, most likely a similar one.

    Returns:
        What `statements.put_changes` takes, and the tail that it makes.
    """
    value = row["blob"]
    change = None if tail is None else _change(tail, value)
    hashed = _hashed(value, tail)
    made = Tail(
        version=row["version"],
        reference=_reference(value, hashed),
        chain=secrets.token_hex(8),
        position=0,
        chain_bytes=len(value),
        value=value,
        hashed=hashed,
    )
    if tail is not None and change is not None:
        made = made._replace(
            chain=tail.chain,
            position=tail.position + 1,
            chain_bytes=tail.chain_bytes + len(change),
        )
    goes_on = tail is not None and made.position > 0
    return {
        **row,
        "type": row["type"] + SUFFIX,
        "blob": made.reference,
        "chain": made.chain,
        "position": made.position,
        "data": value if change is None else change,
        "base_version": tail.version if tail and goes_on else "",
        "base_blob": tail.reference if tail and goes_on else b"",
    }, made


def _change(tail: Tail, value: bytes) -> bytes | None:
    """Return a change that is worth storing, else None."""
    if tail.position + 1 >= ROWS:
        return None
    change = difference(tail.value, value)
    small = 2 * len(change) <= len(value) and tail.chain_bytes + len(change) <= 2 * len(value)
    return change if small else None


def since(row: dict[str, Any], tail: Tail | None) -> dict[str, Any]:
    """Make of the row of a write what changed since its channel's value, if that is less."""
    if tail is None or tail.is_past or not is_worth_it(row):
        return row
    change = difference(tail.value, row["blob"])
    if 2 * len(change) > len(row["blob"]):
        return row
    return {**row, "type": row["type"] + SINCE, "blob": refer(row["blob"]) + change}


def is_worth_it(row: Mapping[str, Any]) -> bool:
    """Whether a value may stand in a chain."""
    return len(row["blob"]) >= LEAST_BYTES and len(row["type"].encode()) <= TYPE_BYTES


class Tails:
    """The values that checkpoints end in, for the latest ones that were read or stored here.

    A version names one value for good, so what is remembered is never wrong. It may be outdated:
    the database is asked for the row again when a change is appended to it.
    """

    def __init__(self, limit: int = CACHE_BYTES, *, keeps_past: bool = True) -> None:
        self._limit = limit
        self.keeps_past = keeps_past
        """Whether values that no checkpoint has any more stay in the database."""
        self.bytes = 0
        self.entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> dict[str, Tail] | None:
        """Return channel -> tail of a checkpoint; None if it isn't the last one known here."""
        with self._lock:
            entry = self.entries.get((thread_id, checkpoint_ns))
            if entry is None or entry.checkpoint_id != checkpoint_id:
                return None
            self.entries.move_to_end((thread_id, checkpoint_ns))
            return entry.tails

    def known(self, thread_id: str, checkpoint_ns: str) -> list[Tail]:
        """Return the values of the checkpoint known here that are best not read: the largest."""
        with self._lock:
            entry = self.entries.get((thread_id, checkpoint_ns))
            tails = entry.tails.values() if entry else ()
        return nlargest(KNOWN, tails, key=lambda tail: (not tail.is_past, len(tail.value)))

    def remember(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, tails: dict[str, Tail]
    ) -> None:
        """Remember a checkpoint's tails instead of those of another one of its namespace."""
        size = 1024 + sum(1024 + len(tail.value) for tail in tails.values())
        with self._lock:
            self._forget((thread_id, checkpoint_ns))
            self.entries[thread_id, checkpoint_ns] = Entry(checkpoint_id, tails, size)
            self.bytes += size
            while self.bytes > self._limit:
                self._forget(next(iter(self.entries)))

    def forget(self, thread_id: str, checkpoint_ns: str) -> None:
        """Forget what is known of a namespace."""
        with self._lock:
            self._forget((thread_id, checkpoint_ns))

    def _forget(self, key: tuple[str, str]) -> None:
        entry = self.entries.pop(key, None)
        self.bytes -= entry.size if entry else 0


class Entry(NamedTuple):
    """What is remembered of a namespace."""

    checkpoint_id: str
    tails: dict[str, Tail]
    size: int
