"""The steps of `rewrite`: whole values into deltas, and back.

Like the repository, over a `Connection` that the caller opened and ends. Its functions see
serialized bytes, never a state value.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from checkpoint_sa.deltas.chain import VALUE_SUFFIX, WRITE_SUFFIX, Chains
from checkpoint_sa.deltas.encoding import MIN_BYTES, TYPE_BYTES, OutdatedError, encode_value
from checkpoint_sa.deltas.fingerprint import size_of
from checkpoint_sa.engine import waiting
from checkpoint_sa.engine.statements import execute
from checkpoint_sa.repository import deleting, reading, threads, writing
from checkpoint_sa.rows import BLOB_KEY
from checkpoint_sa.sql import deleting as deleting_sql
from checkpoint_sa.sql import rewriting as sql
from checkpoint_sa.sql import tables
from checkpoint_sa.sql import writing as writing_sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from checkpoint_sa.deltas.chain import Base
    from checkpoint_sa.repository.threads import Steps
    from checkpoint_sa.rows import AnyRow, BlobKey

_BATCH_BYTES = 4 * 2**20
_BATCH_VALUES = 200


def steps(thread_ids: Sequence[str] | None, *, to_deltas: bool) -> Steps[int]:
    """Yield the steps of `rewrite`; return the number of rewritten values.

    Memory and transactions stay bounded: a step holds about 4 MB of values, or one value, and the
    rows to rebuild them from.
    """
    of_thread = partial(_of_thread, to_deltas=to_deltas)
    return threads.for_each(thread_ids, of_thread, 0, tables=(tables.blobs,))


def _of_thread(thread_id: str, *, to_deltas: bool) -> Steps[int]:
    total = 0
    base: Base | None = None
    channel: tuple[str, ...] = ()
    values = yield partial(_values, thread_id=thread_id, to_deltas=to_deltas)
    for batch in _batches(values, to_deltas=to_deltas):
        if batch[0][:3] != channel:
            channel, base = batch[0][:3], None
        if to_deltas:
            count, base = yield partial(_to_deltas, keys=batch, base=base)
        else:
            count = yield partial(_to_whole, keys=batch)
        total += count
    if not to_deltas:
        for key in (yield partial(_changed_writes, thread_id=thread_id)):
            total += yield partial(_whole_writes, key=key)
    return total


def _values(connection: Connection, thread_id: str, *, to_deltas: bool) -> list[AnyRow]:
    """List the values of a thread to rewrite, in the order of rewriting."""
    rows = connection.execute(deleting_sql.GET_VALUES, {"thread_id": thread_id}).all()
    if to_deltas:
        # A value that EncryptedSerializer wrote (its tag has a plus) shares nothing with another.
        plain = (
            row
            for row in rows
            if row.chain is None
            and (row.size or 0) >= MIN_BYTES
            and len(row.type.encode()) <= TYPE_BYTES
            and "+" not in row.type
        )
        return sorted(plain, key=lambda row: (*row[:3], *_order(row.version)))
    # From the end of a chain, so that its last rows can be freed.
    return sorted(
        (row for row in rows if row.chain is not None),
        key=lambda row: (*row[:3], row.chain, -row.position),
    )


def _order(version: str) -> tuple[int, str]:
    number = version.split(".", maxsplit=1)[0]
    return (int(number) if number.isdecimal() else 0), version


def _batches(values: Sequence[AnyRow], *, to_deltas: bool) -> Iterator[list[BlobKey]]:
    for _, group in groupby(values, lambda row: (*row[:3], None if to_deltas else row.chain)):
        batch: list[BlobKey] = []
        size = 0
        for row in group:
            size += row.size if to_deltas else size_of(bytes(row.reference))
            batch.append(row[:4])
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_VALUES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _to_deltas(
    connection: Connection, keys: Sequence[BlobKey], base: Base | None
) -> tuple[int, Base | None]:
    """Store values of one channel in chains."""
    if base is not None:
        row: dict[str, Any] = dict(zip(BLOB_KEY, keys[0], strict=True))
        row |= {"chain": base.chain, "base_version": base.version, "base_blob": base.fingerprint}
        try:
            execute(connection, writing.lock_bases([row]))
        except OutdatedError:
            base = None
    found = {row[:4]: row for row in connection.execute(sql.LOCK_VALUES, {"blob_keys": list(keys)})}
    whole = [found[key] for key in keys if key in found and found[key].chain is None]
    rows, base = waiting.offload(connection, _encode, whole, base)
    for delta in rows:
        connection.execute(writing_sql.PUT_DELTAS, writing.columns_of(tables.deltas, [delta]))
        _update(connection, delta)
    return len(rows), base


def _encode(
    values: Sequence[AnyRow], base: Base | None
) -> tuple[list[dict[str, Any]], Base | None]:
    rows = []
    for value in values:
        whole = {**value._mapping, "blob": bytes(value.blob)}  # noqa: SLF001 - a public name
        row, base = encode_value(whole, base)
        rows.append(row)
    return rows, base


def _to_whole(connection: Connection, keys: Sequence[BlobKey]) -> int:
    """Make values of a chain whole, each checked by its fingerprint; free rows of the chain."""
    found = connection.execute(deleting_sql.GET_CHAINS, {"blob_keys": list(keys)})
    chain_keys = {row[:4] for row in found}
    deleting.lock_chains(connection, chain_keys)
    chains = Chains()
    values = {}
    for row in connection.execute(sql.LOCK_VALUES, {"blob_keys": list(keys)}):
        if row.chain is not None:
            values[row[:4]] = (
                row.type,
                chains.value((*row[:3], row.chain), row.position, row.version, bytes(row.blob)),
            )
    reading.complete_chains(connection, chains)
    whole = waiting.offload(connection, lambda: [value.read() for _, value in values.values()])
    for (key, (kind, _)), blob in zip(values.items(), whole, strict=True):
        plain = {"type": kind.removesuffix(VALUE_SUFFIX), "blob": blob}
        named = dict(zip(BLOB_KEY, key, strict=True))
        _update(connection, named | plain | {"chain": None, "position": None})
    deleting.free_chains(connection, chain_keys)
    return len(values)


def _changed_writes(connection: Connection, thread_id: str) -> list[tuple[str, str, str]]:
    """List the checkpoints that have writes stored as deltas."""
    wanted = {"thread_id": thread_id, "pattern": f"%{WRITE_SUFFIX}"}
    return [(thread_id, *row) for row in connection.execute(sql.GET_CHANGED_WRITES, wanted)]


def _whole_writes(connection: Connection, key: tuple[str, str, str]) -> int:
    """Make the writes of one checkpoint whole."""
    stored = reading.get(connection, *key, read_deltas=True)
    changed = [write for write in stored.writes if write.blob.is_delta] if stored else []
    names = ("key_thread_id", "key_checkpoint_ns", "key_checkpoint_id")
    for write in changed:
        row = {"key_task_id": write.task_id, "key_idx": write.idx, "type": write.type}
        row |= dict(zip(names, key, strict=True)) | {"blob": write.blob.read()}
        connection.execute(sql.REWRITE_WRITE, row)
    return len(changed)


def _update(connection: Connection, row: Mapping[str, Any]) -> None:
    names = ("type", "blob", "chain", "position")
    key = {f"key_{name}": row[name] for name in BLOB_KEY}
    connection.execute(sql.REWRITE_VALUE, key | {name: row[name] for name in names})
