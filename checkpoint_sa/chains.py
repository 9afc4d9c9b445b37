"""Values as chains of changes, in the database: what `incremental` needs beyond the repository.

Like the repository, over a `Connection` that the caller opened and ends. Its functions see
serialized bytes, never a state value.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from checkpoint_sa import engines, incremental, repository
from checkpoint_sa import statements as sql
from checkpoint_sa.incremental import SINCE, SUFFIX, Chains, Since, Tail
from checkpoint_sa.upsert import nests, selects

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Dialect, Table

    from checkpoint_sa.rows import AnyRow, BlobKey

_BATCH_BYTES = 4 * 2**20
_BATCH_VALUES = 200
_THREADS = 100


class OutdatedError(Exception):
    """A value that a change was to be appended to isn't there any more."""


class Changes(NamedTuple):
    """What one `put` stores: `blobs` as they are, `changed` as rows of chains."""

    checkpoint: dict[str, Any]
    blobs: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    tails: dict[str, Tail]
    """What the checkpoint's values end in, by channel."""

    @property
    def namespace(self) -> tuple[str, str]:
        """Thread and namespace."""
        return self.checkpoint["thread_id"], self.checkpoint["checkpoint_ns"]


def changes(  # noqa: PLR0913 - what a checkpoint has, and what is known
    checkpoint: dict[str, Any],
    blobs: Sequence[dict[str, Any]],
    versions: Mapping[str, Any],
    new_versions: Mapping[str, Any],
    tails: Mapping[str, Tail],
    *,
    keeps_past: bool = True,
) -> Changes:
    """Find what there is to store of a checkpoint, given the values that its parent has.

    A channel that loses its value, as the one of the input does at each turn, may get a similar one
    later: with `keeps_past` its last value is remembered for that.
    """
    result = Changes(checkpoint, [], [], {})
    for channel, tail in tails.items():
        if channel not in new_versions and str(versions.get(channel)) == tail.version:
            result.tails[channel] = tail
        elif keeps_past:
            result.tails[channel] = tail._replace(is_past=True)
    for row in blobs:
        channel = row["channel"]
        if channel in new_versions and incremental.is_worth_it(row):
            changed, result.tails[channel] = incremental.chained(row, tails.get(channel))
            result.changed.append(changed)
        elif channel not in result.tails or result.tails[channel].is_past:  # else it is stored
            result.blobs.append(row)
    return result


def puts_at_once(dialect: Dialect, changes: Changes) -> bool:
    """Whether one statement stores these; it needs no transaction around it, then."""
    if not changes.changed:
        return repository.puts_at_once(dialect, changes.blobs)
    return nests(dialect) and max(len(changes.blobs), len(changes.changed)) <= sql.AT_ONCE


def put(connection: Connection, changes: Changes) -> None:
    """Store a checkpoint and the values it brings: one statement, or up to five.

    Raises:
        OutdatedError, IntegrityError: A value that is appended to was deleted or has been appended
            to, or a version is there already; nothing is stored once the transaction is rolled
            back.
    """
    if not changes.changed:
        repository.put(connection, changes.checkpoint, changes.blobs)
    elif puts_at_once(connection.dialect, changes):
        connection.execute(
            sql.put_changes_at_once(len(changes.blobs), len(changes.changed)),
            changes.checkpoint
            | sql.several(changes.blobs, sql.OF_ALL_BLOBS)
            | sql.several(changes.changed, sql.OF_ALL_BLOBS, "chained_"),
        )
    else:
        _insert(connection, changes.changed)
        repository.put(connection, changes.checkpoint, changes.blobs)


def without_stored(connection: Connection, changes: Changes) -> Changes:
    """Leave out the values that are there: a version is never stored twice."""
    keys = [_blob_key(row) for row in changes.changed]
    found = connection.execute(sql.GET_EXISTING, {"blob_keys": keys}) if keys else ()
    there = {(row.channel, row.version) for row in found}
    rows = [row for row in changes.changed if (row["channel"], row["version"]) not in there]
    return changes._replace(changed=rows)


def _blob_key(row: Mapping[str, Any]) -> BlobKey:
    return row["thread_id"], row["checkpoint_ns"], row["channel"], row["version"]


def _lock_bases(connection: Connection, changed: Sequence[dict[str, Any]]) -> None:
    bases = {
        (row["channel"], row["base_version"], row["base_blob"]): row
        for row in changed
        if row["base_version"]
    }
    if bases:
        rows = list(bases.values())
        wanted = {name: rows[0][name] for name in ("thread_id", "checkpoint_ns")}
        wanted["channels"] = sorted({row["channel"] for row in rows})
        wanted["chains"] = sorted({row["chain"] for row in rows})
        wanted["versions"] = sorted({row["base_version"] for row in rows})
        found = connection.execute(sql.LOCK_BASES, wanted)
        if bases.keys() - {(row.channel, row.version, bytes(row.blob)) for row in found}:
            raise OutdatedError


def _insert(connection: Connection, changed: Sequence[dict[str, Any]]) -> None:
    if selects(connection.dialect) and len(changed) <= sql.AT_ONCE:
        parameters = sql.several(changed, sql.OF_ALL_BLOBS, "chained_")
        connection.execute(sql.put_deltas(len(changed)), parameters)
    else:
        _lock_bases(connection, changed)
        connection.execute(sql.PUT_DELTAS, _columns(sql.deltas, changed))
    connection.execute(sql.PUT_CHAINED, _columns(sql.blobs, changed))


def _columns(table: Table, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{column.name: row[column.name] for column in table.c} for row in rows]


# Rewriting what is stored


def rewriting(
    thread_ids: Sequence[str] | None, *, to_chains: bool
) -> Generator[Callable[[Connection], Any], Any, int]:
    """Yield the steps of `rewrite`, each for a transaction of its own; take what each returns.

    Memory and transactions stay bounded: a step holds about 4 MB of values, or one value, and what
    these are put together from. Returns how many values were rewritten.
    """
    total = 0
    last = ""
    while threads := thread_ids or (yield partial(_threads, after=last)):
        for thread_id in threads:
            values = yield partial(_values, thread_id=thread_id, to_chains=to_chains)
            tail: Tail | None = None
            channel: tuple[str, ...] = ()
            for batch in _batches(values, to_chains=to_chains):
                if batch[0][:3] != channel:
                    channel, tail = batch[0][:3], None
                if to_chains:
                    count, tail = yield partial(_chain, keys=batch, tail=tail)
                else:
                    count = yield partial(_unchain, keys=batch)
                total += count
            if not to_chains:
                for key in (yield partial(_changed_writes, thread_id=thread_id)):
                    total += yield partial(_whole_writes, key=key)
        if thread_ids is not None:
            break
        last = threads[-1]
    return total


def _threads(connection: Connection, after: str) -> list[str]:
    found = connection.execute(sql.GET_THREADS, {"after": after, "size": _THREADS})
    return [row.thread_id for row in found]


def _values(connection: Connection, thread_id: str, *, to_chains: bool) -> list[AnyRow]:
    """List the values of a thread that are to be rewritten, in an order that suits."""
    rows = connection.execute(sql.GET_VALUES, {"thread_id": thread_id}).all()
    if to_chains:
        # A value that EncryptedSerializer wrote (its tag has a plus) shares nothing with another.
        plain = (
            row
            for row in rows
            if row.chain is None
            and (row.size or 0) >= incremental.LEAST_BYTES
            and len(row.type.encode()) <= incremental.TYPE_BYTES
            and "+" not in row.type
        )
        return sorted(plain, key=lambda row: (*row[:3], *_order(row.version)))
    # From a chain's end, so that it can be freed behind.
    return sorted(
        (row for row in rows if row.chain is not None),
        key=lambda row: (*row[:3], row.chain, -row.position),
    )


def _order(version: str) -> tuple[int, str]:
    number = version.split(".", maxsplit=1)[0]
    return (int(number) if number.isdecimal() else 0), version


def _batches(values: Sequence[AnyRow], *, to_chains: bool) -> Iterator[list[BlobKey]]:
    for _, group in groupby(values, lambda row: (*row[:3], None if to_chains else row.chain)):
        batch: list[BlobKey] = []
        size = 0
        for row in group:
            size += row.size if to_chains else incremental.size_of(bytes(row.reference))
            batch.append(row[:4])
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_VALUES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _chain(
    connection: Connection, keys: Sequence[BlobKey], tail: Tail | None
) -> tuple[int, Tail | None]:
    """Put values of one channel into chains."""
    if tail is not None:
        base: dict[str, Any] = dict(zip(sql.BLOB_KEY, keys[0], strict=True))
        base |= {"chain": tail.chain, "base_version": tail.version, "base_blob": tail.reference}
        try:
            _lock_bases(connection, [base])
        except OutdatedError:
            tail = None
    found = {row[:4]: row for row in connection.execute(sql.LOCK_VALUES, {"blob_keys": list(keys)})}
    rows = [found[key] for key in keys if key in found and found[key].chain is None]
    changed, tail = engines.aside(connection, _chained, rows, tail)
    for change in changed:
        connection.execute(sql.PUT_DELTAS, _columns(sql.deltas, [change]))
        _update(connection, change)
    return len(changed), tail


def _chained(rows: Sequence[AnyRow], tail: Tail | None) -> tuple[list[dict[str, Any]], Tail | None]:
    changed = []
    for row in rows:
        value = {**row._mapping, "blob": bytes(row.blob)}  # noqa: SLF001 - a public name
        change, tail = incremental.chained(value, tail)
        changed.append(change)
    return changed, tail


def _unchain(connection: Connection, keys: Sequence[BlobKey]) -> int:
    """Make values of one chain plain, each checked by its digest; free what isn't needed then."""
    found = connection.execute(sql.GET_CHAINS, {"blob_keys": list(keys)})
    chain_keys = {row[:4] for row in found}
    repository.lock_chains(connection, chain_keys)
    chains = Chains()
    values = {}
    for row in connection.execute(sql.LOCK_VALUES, {"blob_keys": list(keys)}):
        if row.chain is not None:
            values[row[:4]] = (
                row.type,
                chains.name((*row[:3], row.chain), row.position, row.version, bytes(row.blob)),
            )
    repository.complete_chains(connection, chains)
    whole = engines.aside(connection, lambda: [value.whole() for _, value in values.values()])
    for (key, (kind, _)), blob in zip(values.items(), whole, strict=True):
        plain = {"type": kind.removesuffix(SUFFIX), "blob": blob}
        named = dict(zip(sql.BLOB_KEY, key, strict=True))
        _update(connection, named | plain | {"chain": None, "position": None})
    repository.free_chains(connection, chain_keys)
    return len(values)


def _changed_writes(connection: Connection, thread_id: str) -> list[tuple[str, str, str]]:
    """List the checkpoints that have writes stored as what changed."""
    wanted = {"thread_id": thread_id, "pattern": f"%{SINCE}"}
    return [(thread_id, *row) for row in connection.execute(sql.GET_CHANGED_WRITES, wanted)]


def _whole_writes(connection: Connection, key: tuple[str, str, str]) -> int:
    """Make the writes of one checkpoint whole."""
    stored = repository.get(connection, *key, read_deltas=True)
    changed = [write for write in stored.writes if isinstance(write.blob, Since)] if stored else []
    names = ("key_thread_id", "key_checkpoint_ns", "key_checkpoint_id")
    for write in changed:
        row = {"key_task_id": write.task_id, "key_idx": write.idx, "type": write.type}
        row |= dict(zip(names, key, strict=True)) | {"blob": cast("Since", write.blob).whole()}
        connection.execute(sql.REWRITE_WRITE, row)
    return len(changed)


def _update(connection: Connection, row: Mapping[str, Any]) -> None:
    names = ("type", "blob", "chain", "position")
    key = {f"key_{name}": row[name] for name in sql.BLOB_KEY}
    connection.execute(sql.REWRITE_VALUE, key | {name: row[name] for name in names})
