"""What the store does with the database, over a `Connection` that the caller opened and ends.

Written once: the Engine saver calls these functions directly, the AsyncEngine saver through
`AsyncConnection.run_sync`. They see ids, JSON and serialized bytes, never a state value.

Every function runs in the caller's transaction and commits nothing. Where one reads twice, the
second reading confirms the first, so that READ COMMITTED is enough.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from checkpoint_sa import statements as sql
from checkpoint_sa import types
from checkpoint_sa.deltas.chain import (
    VALUE_SUFFIX,
    WRITE_SUFFIX,
    Chains,
    DeltaValue,
    DeltaWrite,
)
from checkpoint_sa.errors import CheckpointError, ThreadExistsError
from checkpoint_sa.rows import MAX_SINGLES as _SINGLES
from checkpoint_sa.rows import MAX_TUPLES as _TUPLES
from checkpoint_sa.rows import History, Stored, Write, versions_of
from checkpoint_sa.rows import chunks as _chunks
from checkpoint_sa.rows import loads_or_none as said

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Table

    from checkpoint_sa.deltas.chain import Base
    from checkpoint_sa.rows import AnyRow, BlobKey, CheckpointKey, Criteria

_ATTEMPTS = 10
_ATTEMPTS_AT_CHAINS = 2
"""A row may have been deleted or rewritten between two statements; else it is missing for good."""

# A chain of parents is mostly short; a long one is read in few parts.
_OLDER_ROWS = (64, 4_096)


# Reading


def get(
    connection: Connection,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str | None,
    *,
    known: Sequence[Base] | None = None,
) -> Stored | None:
    """Read one checkpoint, or the latest of its namespace: one statement, or two.

    Values that stand in chains cost one statement more, unless `known` says that there may be some
    and which of them needn't be read.
    """
    reach = types.reach(connection.dialect)
    parameters = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is not None:
        parameters["checkpoint_id"] = checkpoint_id
    if reach is not types.Reach.NONE:
        statements = sql.GET_LATEST if checkpoint_id is None else sql.GET_ONE
        statement = statements[reach, known is not None]
        for _ in range(_ATTEMPTS_AT_CHAINS):
            rows = connection.execute(statement, parameters | sql.known(known)).all()
            found = _Found(rows, known or ())
            if not found.checkpoints:
                return None
            if not found.is_whole(reach):
                break
            if complete_chains(connection, found.chains):
                return found.stored()[0]
            known = known and ()  # it is outdated
        else:
            return found.stored()[0]  # a row is missing for good: who reads the value is told
    return _get_in_two(connection, parameters, known)


def _get_in_two(
    connection: Connection, parameters: dict[str, str], known: Sequence[Base] | None
) -> Stored | None:
    """Read a checkpoint and then its parts, which the second statement has in one snapshot."""
    statement = sql.GET_HEAD if "checkpoint_id" in parameters else sql.GET_LATEST_HEAD
    for attempt in range(_ATTEMPTS):
        head = connection.execute(statement, parameters).first()
        if head is None:
            return None
        found = Chains(known or ())
        stored = _complete(connection, parameters, head, found, known)
        if stored is None:
            continue  # it was deleted between the two statements: look again
        if complete_chains(connection, found) or attempt + 1 >= _ATTEMPTS_AT_CHAINS:
            return stored
        known = known and ()  # it is outdated
    raise CheckpointError(
        f"The checkpoint was deleted and stored again {_ATTEMPTS} times while it was being read:"
        f" {parameters!r}. Try again."
    )


def _complete(
    connection: Connection,
    namespace: Mapping[str, str],
    head: AnyRow,
    found: Chains,
    known: Sequence[Base] | None,
) -> Stored | None:
    """Read the parts of a checkpoint; None if it is gone."""
    checkpoint_id, parent_id, checkpoint, metadata, type_, exact = head
    thread_id, checkpoint_ns = namespace["thread_id"], namespace["checkpoint_ns"]
    document = json.loads(checkpoint)
    wanted = {
        "thread_id": thread_id,
        "checkpoint_ns": checkpoint_ns,
        "checkpoint_id": checkpoint_id,
        "writes_of": checkpoint_id,
        "sends_of": (parent_id or "") if _is_old(document) else "",
        **sql.known(known),
    }
    versions = versions_of(document)
    writes: dict[int, list[Write]] = {sql.WRITE: [], sql.SEND: []}
    blobs: dict[str, tuple[str, bytes | DeltaValue]] = {}
    for chunk in _chunks(list(versions.items()), _TUPLES) or [[]]:
        rows = _parts(connection, wanted, chunk, chains=known is not None)
        wanted |= {"writes_of": "", "sends_of": ""}
        # What counts is what the last statement still sees.
        if all(row.kind != sql.CHECKPOINT for row in rows):
            return None
        for kind, channel, version, task_id, idx, part_type, blob in rows:
            if kind == sql.BLOB:  # its chain and position are where a write has its task
                key = (thread_id, checkpoint_ns, channel)
                place = (task_id, idx)
                blobs[channel] = _value(found, key, version, place, part_type, blob)
            elif kind == sql.DELTA:
                found.add((thread_id, checkpoint_ns, channel, task_id), idx, _bytes(blob))
            elif kind != sql.CHECKPOINT:
                writes[kind].append(Write(version, task_id, idx, channel, part_type, _bytes(blob)))
    return Stored(
        key=(thread_id, checkpoint_ns, checkpoint_id),
        parent_id=parent_id or None,
        checkpoint=document,
        metadata=json.loads(metadata),
        type=type_,
        exact=None if exact is None else bytes(exact),
        blobs=blobs,
        writes=_in_order(writes[sql.WRITE], blobs),
        sends=sorted(writes[sql.SEND]),
    )


def _parts(
    connection: Connection,
    wanted: Mapping[str, str],
    versions: Sequence[tuple[str, str]],
    *,
    chains: bool,
) -> Sequence[AnyRow]:
    """Read the parts of a checkpoint with these (channel, version)."""
    if len(versions) > sql.FEW:
        return connection.execute(
            sql.parts(None, chains=chains), {**wanted, "versions": versions}
        ).all()
    # A statement for each power of two: the last value is looked up again.
    count = 1 << max(0, len(versions) - 1).bit_length()
    padded = [*versions, *[versions[-1] if versions else ("", "")] * (count - len(versions))]
    names = {f"wanted_channel_{i}": channel for i, (channel, _) in enumerate(padded)}
    names |= {f"wanted_version_{i}": version for i, (_, version) in enumerate(padded)}
    return connection.execute(sql.parts(count, chains=chains), {**wanted, **names}).all()


def _is_old(document: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's pending sends are kept with its parent."""
    return (document.get("v") or 1) < sql.FIRST_WITHOUT_SENDS


def page(
    connection: Connection, criteria: Criteria, size: int, last: CheckpointKey | None
) -> tuple[list[Stored], CheckpointKey | None]:
    """Read up to `size` checkpoints, newest first: one statement, or two.

    Returns the checkpoints, and where the next page begins: give it back as `last`. None says that
    there is none.
    """
    reach = types.reach(connection.dialect)
    thread_id, checkpoint_ns, checkpoint_id, before, filter_json = criteria
    statement = sql.page(
        reach=reach,
        thread=thread_id is not None,
        namespace=checkpoint_ns is not None,
        checkpoint=checkpoint_id is not None,
        before=before is not None,
        filtered=filter_json is not None,
        after=last is not None,
    )
    parameters: dict[str, Any] = {
        name: value for name, value in criteria._asdict().items() if value is not None
    }
    if last is not None:
        parameters["after_id"] = last[2]
        if thread_id is None or checkpoint_ns is None:
            parameters |= {"after_thread": last[0], "after_ns": last[1]}
    for _ in range(_ATTEMPTS_AT_CHAINS):
        found = _Found(connection.execute(statement, {**parameters, "size": size}).all())
        after = found.last if len(found.checkpoints) == size else None
        if not found.is_whole(reach):
            found.complete(connection)
        if complete_chains(connection, found.chains):
            break
    return found.stored(), after


def complete_chains(connection: Connection, chains: Chains) -> bool:
    """Read the rows of chains that are missing; return whether none is any more."""
    statement = sql.GET_DELTAS[types.reach(connection.dialect)]
    for chunk in _chunks(chains.missing(), _TUPLES):
        for row in connection.execute(statement, {"blob_keys": chunk}):
            _take_delta(chains, row)
    return not chains.missing()


def _take_delta(chains: Chains, row: AnyRow) -> None:
    chains.add((row[1], row[2], row[4], row[7]), row[8], bytes(row[10]))


def _blob(chains: Chains, row: AnyRow) -> tuple[str, bytes | DeltaValue]:
    _, thread_id, namespace, _, channel, version, _, chain, position, type_, blob = row
    return _value(chains, (thread_id, namespace, channel), version, (chain, position), type_, blob)


def _value(  # noqa: PLR0913, PLR0917 - what there is of a value
    chains: Chains,
    channel: tuple[str, str, str],
    version: str,
    place: tuple[str | None, int],
    type_: str,
    blob: Any,
) -> tuple[str, bytes | DeltaValue]:
    """Return the serializer's tag, and the bytes of a value or what they are put together from."""
    chain, position = place
    if chain is None:
        return type_, _bytes(blob)
    key = (*channel, chain)
    return type_.removesuffix(VALUE_SUFFIX), chains.value(key, position, version, _bytes(blob))


class _Found:
    """Checkpoints out of the database, and the parts of them that came along."""

    def __init__(self, rows: Sequence[AnyRow], known: Sequence[Base] = ()) -> None:
        self.checkpoints: dict[CheckpointKey, AnyRow] = {}
        self.documents: dict[CheckpointKey, dict[str, Any]] = {}
        self._writes: dict[CheckpointKey, list[Write]] = defaultdict(list)
        self._sends: dict[CheckpointKey, list[Write]] = defaultdict(list)
        self._blobs: dict[BlobKey, tuple[str, bytes | DeltaValue]] = {}
        self.chains = Chains(known)
        for row in self._take(rows):
            self.checkpoints[row[1:4]] = row
            self.documents[row[1:4]] = json.loads(row.channel)

    @property
    def last(self) -> CheckpointKey:
        """The key of the last one in the order of the statement."""
        return max(self.checkpoints, key=lambda key: self.checkpoints[key].idx)

    def is_whole(self, reach: types.Reach) -> bool:
        """Whether the parts came along.

        Not where a version is a float: engines write it with another number of digits.
        """
        return reach is not types.Reach.NONE and not any(
            isinstance(version, float)
            for document in self.documents.values()
            for version in (document.get("channel_versions") or {}).values()
        )

    def _take(self, rows: Sequence[AnyRow]) -> Iterator[AnyRow]:
        """Sort parts into place; yield the rows of checkpoints."""
        for row in rows:
            kind, thread_id, namespace, checkpoint_id, channel, version, *_ = row
            if kind == sql.BLOB:
                self._blobs[thread_id, namespace, channel, version] = _blob(self.chains, row)
            elif kind == sql.CHECKPOINT:
                yield row
            elif kind == sql.DELTA:
                _take_delta(self.chains, row)
            else:
                into = self._writes if kind == sql.WRITE else self._sends
                into[thread_id, namespace, checkpoint_id].append(_write(row))

    def complete(self, connection: Connection) -> bool:
        """Read the parts with a statement of their own; drop checkpoints deleted meanwhile.

        Returns whether one is left.
        """
        keys = list(self.checkpoints)
        blob_keys = dict.fromkeys(
            (*key[:2], *version)
            for key, document in self.documents.items()
            for version in versions_of(document).items()
        )
        send_keys = [
            (*key[:2], row.version)
            for key, row in self.checkpoints.items()
            if row.version and _is_old(self.documents[key])
        ]
        self._writes.clear()  # they may have come along
        self._sends.clear()
        wanted: dict[str, Any] = {"checkpoint_keys": keys, "send_keys": send_keys}
        for chunk in _chunks(list(blob_keys), _TUPLES) or [[]]:
            parts = connection.execute(
                sql.GET_PARTS, {**wanted, "blob_keys": chunk, "present_keys": keys}
            ).all()
            # What counts is what the last statement still sees.
            present = {row[1:4] for row in self._take(parts)}
            wanted = {"checkpoint_keys": [], "send_keys": []}
        self.checkpoints = {key: row for key, row in self.checkpoints.items() if key in present}
        return bool(self.checkpoints)

    def _blobs_of(self, key: CheckpointKey) -> dict[str, tuple[str, bytes | DeltaValue]]:
        return {
            channel: blob
            for channel, version in versions_of(self.documents[key]).items()
            if (blob := self._blobs.get((*key[:2], channel, version)))
        }

    def stored(self) -> list[Stored]:
        """Put everything together, in the order of the statement."""
        return [
            Stored(
                key=key,
                parent_id=row.version or None,
                checkpoint=self.documents[key],
                metadata=json.loads(row.task_path),
                type=row.type,
                exact=None if row.blob is None else bytes(row.blob),
                blobs=(blobs := self._blobs_of(key)),
                writes=_in_order(self._writes[key], blobs),
                sends=sorted(self._sends[(*key[:2], row.version)])
                if _is_old(self.documents[key])
                else [],
            )
            for key, row in sorted(self.checkpoints.items(), key=lambda item: item[1].idx)
        ]


def _write(row: AnyRow) -> Write:
    *_, channel, _, task_path, task_id, idx, type_, blob = row
    return Write(task_path, task_id, idx, channel, type_, _bytes(blob))


def _in_order(
    writes: Iterable[Write], blobs: Mapping[str, tuple[str, bytes | DeltaValue]]
) -> list[Write]:
    """Sort the writes of a checkpoint; those stored as what changed get its values to build on."""
    return sorted(
        write._replace(
            type=write.type.removesuffix(WRITE_SUFFIX),
            blob=DeltaWrite(blobs.get(write.channel, ("", b""))[1], cast("bytes", write.blob)),
        )
        if (write.type or "").endswith(WRITE_SUFFIX)
        else write
        for write in writes
    )


def _bytes(blob: Any) -> bytes:
    return blob if type(blob) is bytes else bytes(blob or b"")


# DeltaChannel


class Link(NamedTuple):
    """A checkpoint in a line of ancestors."""

    checkpoint_id: str
    parent_id: str | None
    versions: dict[str, Any]
    """As the document has them; blobs name them by their `str`."""
    inline: dict[str, Any]


def link_of(row: AnyRow) -> Link:
    """Return the link that a row with versions and inline values is."""
    return Link(
        row.checkpoint_id,
        row.parent_checkpoint_id or None,
        said(row.versions) or {},
        said(row.inline) or {},
    )


class Walk:
    """How far back a set of channels reaches: for each the ancestors to replay, and the seed."""

    def __init__(self, channels: Iterable[str]) -> None:
        self.path: dict[str, list[str]] = {channel: [] for channel in channels}
        self.seed: dict[str, str] = {}
        """Channel -> version of its blob."""
        self.inline: dict[str, Any] = {}
        """Channel -> value out of a checkpoint's JSON."""
        self.found: dict[str, str] = {}
        """Channel -> version that the checkpoint with the value has."""
        self.open = set(self.path)

    def take(self, link: Link, stored: Collection[tuple[str, ...]]) -> None:
        """Go one ancestor back; a channel ends where a value of it is stored."""
        for channel in list(self.open):
            self.path[channel].append(link.checkpoint_id)
            version = link.versions.get(channel)
            if version is not None and (channel, str(version)) in stored:
                self.seed[channel] = str(
                    version
                )  # also of a snapshot, whose inline value is a marker
            elif channel in link.inline:
                self.inline[channel] = link.inline[channel]
            else:
                continue
            self.found[channel] = str(version)
            self.open.discard(channel)


def delta_history(
    connection: Connection,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str | None,
    channels: Sequence[str],
) -> dict[str, History]:
    """Collect each channel's writes since its nearest stored value among the ancestors.

    Statements: two for each part of the chain (64 checkpoints, 512, then 4,096 at a time), and two
    at the end.
    """
    namespace = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is None:
        checkpoint_id = connection.scalar(sql.GET_LATEST_ID, namespace)
    if checkpoint_id is None:
        return {channel: History([]) for channel in channels}
    walk = _walk(connection, thread_id, checkpoint_ns, checkpoint_id, channels)

    seeds: dict[str, tuple[str, bytes | DeltaValue, str]] = {}
    if walk.seed:
        chains = Chains()
        keys = [(thread_id, checkpoint_ns, *item) for item in walk.seed.items()]
        for row in connection.execute(sql.GET_BLOBS, {"blob_keys": keys}):
            seeds[row.channel] = (*_blob(chains, row), row.version)
        complete_chains(connection, chains)

    collected: dict[tuple[str, str], list[Write]] = defaultdict(list)
    ancestors = list(dict.fromkeys(i for path in walk.path.values() for i in path))
    for ids in _chunks(ancestors, _SINGLES):
        wanted = {**namespace, "checkpoint_ids": ids, "channels": list(channels)}
        rows = connection.execute(sql.GET_CHANNEL_WRITES, wanted).all()
        for ancestor, channel, path, task_id, idx, type_, blob in rows:
            write = Write(path, task_id, idx, channel, type_, _bytes(blob))
            collected[ancestor, channel].append(write)
    # A channel that has such writes has a value at most of its checkpoints, so these are few.
    for (ancestor, channel), writes in collected.items():
        if any((write.type or "").endswith(WRITE_SUFFIX) for write in writes):
            stored = get(connection, thread_id, checkpoint_ns, ancestor, known=())
            if stored is not None:
                writes[:] = [write for write in stored.writes if write.channel == channel]

    return {
        channel: History(
            writes=[
                write
                for ancestor in reversed(walk.path[channel])
                for write in sorted(collected[ancestor, channel])
            ],
            seed=seeds.get(channel),
            inline={channel: walk.inline[channel]} if channel in walk.inline else None,
        )
        for channel in channels
    }


def _walk(
    connection: Connection,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str,
    channels: Iterable[str],
) -> Walk:
    """Follow the parents of a checkpoint until every channel has met a stored value."""
    namespace = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    walk = Walk(channels)
    start = True
    for links in _ancestors(connection, namespace, checkpoint_id):
        if start:
            del links[0]  # its own writes and values aren't part of its history
            start = False
        versions = {
            str(link.versions[channel])
            for link in links
            for channel in walk.open
            if channel in link.versions
        }
        stored = {
            (row.channel, row.version)
            for chunk in _chunks(list(versions), _SINGLES)
            for row in connection.execute(
                sql.GET_BLOB_VERSIONS,
                {**namespace, "channels": list(walk.open), "versions": chunk},
            )
        }
        for link in links:
            walk.take(link, stored)
        if not walk.open:
            break
    return walk


def _ancestors(
    connection: Connection, namespace: Mapping[str, str], checkpoint_id: str
) -> Iterator[list[Link]]:
    """Yield a checkpoint and its ancestors, nearest first, in parts.

    A part is found among the rows that come before its first one in the order of ids. That is
    nearly all of them where ids follow time; where they don't, a part ends early and the next one
    begins at the parent.
    """
    seen: set[str] = set()
    at: str | None = checkpoint_id
    size = _OLDER_ROWS[0]
    while at is not None:
        rows = connection.execute(
            sql.GET_OLDER, {**namespace, "checkpoint_id": at, "size": size}
        ).all()
        by_id = {row.checkpoint_id: row for row in rows}
        links: list[Link] = []
        while at is not None and at in by_id and at not in seen:
            seen.add(at)
            links.append(link_of(by_id[at]))
            at = links[-1].parent_id
        if not links:
            return
        yield links
        is_dense = len(links) * 2 > len(rows)
        size = min(_OLDER_ROWS[1], size * 8) if is_dense else _OLDER_ROWS[0]


# Threads


def thread_ids(
    connection: Connection,
    size: int,
    after: str | None = None,
    *,
    tables: Sequence[Table] = (sql.checkpoints,),
    runs: tuple[Sequence[str], Sequence[str]] | None = None,
) -> list[str]:
    """List a page of threads, in the database's order of their ids: one statement.

    Args:
        connection: Where to run.
        size: How many at the most.
        after: The last thread of the page before; None for the first page.
        tables: A thread counts that has rows in one of them.
        runs: Only threads with checkpoints of these runs, as `GET_RUNS` looks for them.
    """
    wanted: dict[str, Any] = {"size": size}
    if after is not None:
        wanted["after"] = after
    if runs is not None:
        wanted |= {"run_ids": runs[0], "peer_run_ids": runs[1]}
    statement = sql.thread_ids(*tables, after=after is not None, of_runs=runs is not None)
    return [row.thread_id for row in connection.execute(statement, wanted)]


def copy_thread(connection: Connection, source: str, target: str, empty: set[str]) -> None:
    """Copy all of a thread inside the database: five statements.

    Args:
        connection: Where to run.
        source: The thread to copy.
        target: The thread to make.
        empty: Gets the target once it was seen without rows. When the operation is tried again, a
            copy that is there now is its own: the answer to a commit was lost.

    Raises:
        ThreadExistsError: The target has rows already.
    """
    if connection.execute(sql.THREAD_EXISTS, {"thread_id": target}).first():
        if target in empty and _is_copy(connection, source, target):
            return
        raise ThreadExistsError(
            f"Thread {target!r} already has checkpoints, so {source!r} was not copied to it."
            " Copy to a thread_id that is not in use, or delete_thread() the target first."
        )
    empty.add(target)
    for statement in sql.COPY_THREAD:
        connection.execute(statement, {"source": source, "target": target})


def _is_copy(connection: Connection, source: str, target: str) -> bool:
    """Whether one thread has all checkpoints of the other: either may have gone on meanwhile."""
    ids: dict[str, set[tuple[str, str]]] = {}
    for thread_id in (source, target):
        rows = connection.execute(sql.thread_checkpoints(namespace=False), {"thread_id": thread_id})
        ids[thread_id] = {(row.checkpoint_ns, row.checkpoint_id) for row in rows}
    return ids[source] <= ids[target] or ids[target] <= ids[source]
