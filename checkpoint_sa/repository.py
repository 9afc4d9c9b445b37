"""What the store does with the database, over a `Connection` that the caller opened and ends.

Written once: the Engine saver calls these functions directly, the AsyncEngine saver through
`AsyncConnection.run_sync`. They see ids, JSON and serialized bytes, never a state value.

Every function runs in the caller's transaction and commits nothing. Where one reads twice, the
second reading confirms the first, so that READ COMMITTED is enough.
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa import statements as sql
from checkpoint_sa import types
from checkpoint_sa.errors import CheckpointError, ThreadExistsError
from checkpoint_sa.upsert import nests

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection, Delete, Dialect, Row, Update
    from typing_extensions import Unpack

    AnyRow: TypeAlias = Row[Unpack[tuple[Any, ...]]]

CheckpointKey = tuple[str, str, str]
"""thread_id, checkpoint_ns, checkpoint_id."""
BlobKey = tuple[str, str, str, str]
"""thread_id, checkpoint_ns, channel, version."""

# A list of tuples of 1,000 keys stays below every limit on parameters and stack depth (8,000
# overflow PostgreSQL's stack); single columns go up to 10,000 (SQLite takes 32,766 parameters).
_TUPLES = 1_000
_SINGLES = 10_000

_ATTEMPTS = 10

# MySQL ends a recursion at 1,000 steps, so a chain is read in parts; short ones in one small part.
_CHAIN_DEPTHS = (64, 512, 999)


class Write(NamedTuple):
    """One pending write, as stored."""

    task_path: str
    task_id: str
    idx: int
    channel: str
    type: str
    blob: bytes


class Stored(NamedTuple):
    """One checkpoint with all that belongs to it, as stored."""

    key: CheckpointKey
    parent_id: str | None
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    type: str | None
    exact: bytes | None
    blobs: dict[str, tuple[str, bytes]]
    """Channel -> (type, bytes), for the channels that have a blob."""
    writes: list[Write]
    """In the order of `writes_sort_key`."""
    sends: list[Write]
    """Pending sends kept with the parent, for checkpoints before version 4."""


class Criteria(NamedTuple):
    """What `list` looks for; None is any."""

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    before: str | None = None
    filter_json: str | None = None


class History(NamedTuple):
    """What one channel got since its last stored value, as stored; see `delta_history`."""

    writes: list[Write]
    """Oldest first."""
    seed: tuple[str, bytes] | None = None
    """(type, bytes) of the value to start from."""
    inline: dict[str, Any] | None = None
    """{channel: value} where the value to start from is part of a checkpoint's JSON."""


# Reading


def get(
    connection: Connection, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None
) -> Stored | None:
    """Read one checkpoint, or the latest of its namespace: one statement, or two."""
    parameters = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is not None:
        parameters["checkpoint_id"] = checkpoint_id
    statements = sql.GET_LATEST if checkpoint_id is None else sql.GET_ONE
    reach = types.reach(connection.dialect)
    for _ in range(_ATTEMPTS):
        found = _Found(connection.execute(statements[reach], parameters))
        if not found.checkpoints:
            return None
        if found.is_whole(reach) or found.complete(connection):
            return found.stored()[0]
        # It was deleted between the two statements: look again.
    raise CheckpointError(
        f"The checkpoint was deleted and stored again {_ATTEMPTS} times while it was being read:"
        f" thread_id={thread_id!r}, checkpoint_ns={checkpoint_ns!r}. Try again."
    )


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
    found = _Found(connection.execute(statement, {**parameters, "size": size}))
    after = found.last if len(found.checkpoints) == size else None
    if not found.is_whole(reach):
        found.complete(connection)
    return found.stored(), after


class _Found:
    """Checkpoints out of the database, and the parts of them that came along."""

    def __init__(self, rows: Iterable[AnyRow]) -> None:
        self.checkpoints: dict[CheckpointKey, AnyRow] = {}
        self.documents: dict[CheckpointKey, dict[str, Any]] = {}
        self._writes: dict[CheckpointKey, list[Write]] = defaultdict(list)
        self._sends: dict[CheckpointKey, list[Write]] = defaultdict(list)
        self._blobs: dict[BlobKey, tuple[str, bytes]] = {}
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

    def _is_old(self, key: CheckpointKey) -> bool:
        return (self.documents[key].get("v") or 1) < sql.FIRST_WITHOUT_SENDS

    def _take(self, rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
        """Sort parts into place; yield the rows of checkpoints."""
        for row in rows:
            kind = row[0]
            if kind == sql.BLOB:
                _, thread_id, namespace, _, channel, version, *_, type_, blob = row
                self._blobs[thread_id, namespace, channel, version] = (type_, bytes(blob or b""))
            elif kind == sql.CHECKPOINT:
                yield row
            else:
                into = self._writes if kind == sql.WRITE else self._sends
                into[row[1:4]].append(_write(row))

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
            if row.version and self._is_old(key)
        ]
        self._writes.clear()  # they may have come along
        self._sends.clear()
        wanted: dict[str, Any] = {"checkpoint_keys": keys, "send_keys": send_keys}
        for chunk in _chunks(list(blob_keys), _TUPLES) or [[]]:
            parts = connection.execute(
                sql.GET_PARTS, {**wanted, "blob_keys": chunk, "present_keys": keys}
            )
            # What counts is what the last statement still sees.
            present = {row[1:4] for row in self._take(parts)}
            wanted = {"checkpoint_keys": [], "send_keys": []}
        self.checkpoints = {key: row for key, row in self.checkpoints.items() if key in present}
        return bool(self.checkpoints)

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
                blobs={
                    channel: blob
                    for channel, version in versions_of(self.documents[key]).items()
                    if (blob := self._blobs.get((*key[:2], channel, version)))
                },
                writes=sorted(self._writes[key]),
                sends=sorted(self._sends[(*key[:2], row.version)]) if self._is_old(key) else [],
            )
            for key, row in sorted(self.checkpoints.items(), key=lambda item: item[1].idx)
        ]


def _write(row: AnyRow) -> Write:
    *_, channel, _, task_path, task_id, idx, type_, blob = row
    return Write(task_path, task_id, idx, channel, type_, bytes(blob or b""))


def versions_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return channel -> version of a checkpoint's document, as the blobs name it."""
    return {k: str(version) for k, version in (document.get("channel_versions") or {}).items()}


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


# Writing


def is_one_statement(dialect: Dialect, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one statement stores these blobs with their checkpoint, or these writes.

    It needs no transaction around it, then.
    """
    kinds = {row.get("idx", 0) < 0 for row in rows}
    return nests(dialect) and len(rows) <= sql.AT_ONCE and len(kinds) <= 1


def put(
    connection: Connection, checkpoint: dict[str, Any], blobs: Sequence[dict[str, Any]]
) -> None:
    """Store a checkpoint and the values it brings: one statement, or two."""
    if not blobs:
        connection.execute(sql.PUT_CHECKPOINT, checkpoint)
    elif is_one_statement(connection.dialect, blobs):
        connection.execute(sql.put_at_once(len(blobs)), checkpoint | sql.numbered(blobs))
    else:
        connection.execute(sql.PUT_BLOBS, blobs)
        connection.execute(sql.PUT_CHECKPOINT, checkpoint)


def put_only(
    connection: Connection, checkpoint: dict[str, Any], blobs: Sequence[dict[str, Any]]
) -> None:
    """Store a checkpoint and delete what it replaces in its namespace.

    Where a newer one is there already, this one goes instead: a cancelled run that finishes late
    replaces nothing.
    """
    put(connection, checkpoint, blobs)
    keep_latest(connection, checkpoint["thread_id"], checkpoint["checkpoint_ns"])


def put_writes(connection: Connection, writes: Sequence[dict[str, Any]]) -> None:
    """Store a task's writes: special ones replace, ordinary ones stay as first written.

    One statement, or two where there are writes of both kinds.
    """
    for special in (False, True):
        rows = [write for write in writes if (write["idx"] < 0) is special]
        if rows and is_one_statement(connection.dialect, rows):
            statement = sql.put_writes_at_once(len(rows), special=special)
            connection.execute(statement, sql.numbered(rows))
        elif rows:
            connection.execute(sql.REPLACE_WRITES if special else sql.PUT_WRITES, rows)


# DeltaChannel


class _Link(NamedTuple):
    checkpoint_id: str
    parent_id: str | None
    versions: dict[str, str]
    inline: dict[str, Any]


def _link(row: AnyRow) -> _Link:
    return _Link(
        row.checkpoint_id,
        row.parent_checkpoint_id or None,
        versions_of({"channel_versions": _said(row.versions)}),
        _said(row.inline) or {},
    )


class _Walk:
    """How far back a set of channels reaches: for each the ancestors to replay, and the seed."""

    def __init__(self, channels: Iterable[str]) -> None:
        self.path: dict[str, list[str]] = {channel: [] for channel in channels}
        self.seed: dict[str, str] = {}
        """Channel -> version of its blob."""
        self.inline: dict[str, Any] = {}
        """Channel -> value out of a checkpoint's JSON."""
        self.open = set(self.path)

    def take(self, link: _Link, stored: Collection[tuple[str, ...]]) -> None:
        """Go one ancestor back; a channel ends where a value of it is stored."""
        for channel in list(self.open):
            self.path[channel].append(link.checkpoint_id)
            version = link.versions.get(channel)
            if version is not None and (channel, version) in stored:
                self.seed[channel] = version  # also of a snapshot, whose inline value is a marker
            elif channel in link.inline:
                self.inline[channel] = link.inline[channel]
            else:
                continue
            self.open.discard(channel)


def delta_history(
    connection: Connection,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str | None,
    channels: Sequence[str],
) -> dict[str, History]:
    """Collect each channel's writes since its nearest stored value among the ancestors.

    Statements: two for each part of the chain (64 ancestors, 512 more, then 999 at a time), and two
    at the end.
    """
    namespace = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is None:
        checkpoint_id = connection.scalar(sql.GET_LATEST_ID, namespace)
    if checkpoint_id is None:
        return {channel: History([]) for channel in channels}
    walk = _walk(connection, thread_id, checkpoint_ns, checkpoint_id, channels)

    seeds: dict[str, tuple[str, bytes]] = {}
    if walk.seed:
        keys = [(thread_id, checkpoint_ns, *item) for item in walk.seed.items()]
        for row in connection.execute(sql.GET_BLOBS, {"blob_keys": keys}):
            seeds[row.channel] = (row.type, bytes(row.blob or b""))

    collected: dict[tuple[str, str], list[Write]] = defaultdict(list)
    ancestors = list(dict.fromkeys(i for path in walk.path.values() for i in path))
    for ids in _chunks(ancestors, _SINGLES):
        wanted = {**namespace, "checkpoint_ids": ids, "channels": list(channels)}
        for row in connection.execute(sql.GET_CHANNEL_WRITES, wanted):
            collected[row.checkpoint_id, row.channel].append(_write(row))

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
) -> _Walk:
    """Follow the parents of a checkpoint until every channel has met a stored value."""
    namespace = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    walk = _Walk(channels)
    for links in _ancestors(connection, namespace, checkpoint_id):
        versions = {
            link.versions[channel]
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
) -> Iterator[list[_Link]]:
    """Yield the ancestors of a checkpoint, nearest first, in parts."""
    seen = {checkpoint_id}
    start = checkpoint_id
    depths = iter(_CHAIN_DEPTHS)
    depth = next(depths)
    while True:
        rows = connection.execute(
            sql.GET_CHAIN, {**namespace, "checkpoint_id": start, "depth": depth}
        ).all()
        links = [
            _link(row)
            for row in rows[1:]  # the first is where this part starts: already seen
            if row.checkpoint_id not in seen
        ]
        if not links:
            return
        yield links
        if links[-1].parent_id is None:
            return
        seen.update(link.checkpoint_id for link in links)
        start = links[-1].checkpoint_id
        depth = next(depths, depth)


# Deleting


def delete_threads(connection: Connection, thread_ids: Sequence[str]) -> None:
    """Delete all of some threads: three statements."""
    for chunk in _chunks(sorted(thread_ids), _SINGLES):
        for statement in sql.DELETE_THREADS:
            connection.execute(statement, {"thread_ids": chunk})


def delete_runs(
    connection: Connection, run_ids: Sequence[str], peer_run_ids: Sequence[str]
) -> None:
    """Delete the checkpoints that runs made, their writes, and the blobs only they used.

    Args:
        connection: Where to run.
        run_ids: As the column `run_id` has them.
        peer_run_ids: As the metadata of rows without `run_id` has them.
    """
    doomed: set[CheckpointKey] = set()
    chunks = (_chunks(ids, _SINGLES) for ids in (run_ids, peer_run_ids))
    for ids, peer_ids in zip_longest(*chunks, fillvalue=[]):
        rows = connection.execute(sql.GET_RUNS, {"run_ids": ids, "peer_run_ids": peer_ids})
        doomed.update(row[:3] for row in rows)
    freed: set[BlobKey] = set()
    kept: set[BlobKey] = set()
    orphans: list[CheckpointKey] = []
    for chunk in _chunks(sorted({key[:2] for key in doomed}), _TUPLES):
        for row in connection.execute(sql.GET_USE, {"namespace_keys": chunk}):
            key = row[:3]
            (freed if key in doomed else kept).update(_used(row))
            if key not in doomed and (*key[:2], row.parent_checkpoint_id) in doomed:
                orphans.append(key)
    _apply(connection, sql.DELETE_BLOBS, freed - kept)
    _apply(connection, sql.DELETE_CHECKPOINTS, doomed)
    _apply(connection, sql.DELETE_WRITES, doomed)
    _apply(connection, sql.FORGET_PARENTS, orphans)


def _used(row: AnyRow) -> Iterator[BlobKey]:
    for channel, version in (_said(row.versions) or {}).items():
        yield row.thread_id, row.checkpoint_ns, channel, str(version)


def _apply(
    connection: Connection, statement: Delete | Update, keys: Iterable[tuple[str, ...]]
) -> None:
    for chunk in _chunks(sorted(keys), _TUPLES):
        # MariaDB reads and locks the whole table to delete or update by a list of one tuple; the
        # same tuple twice is looked up in the index.
        connection.execute(statement, {"keys": chunk if len(chunk) > 1 else [*chunk, *chunk]})


def keep_latest(connection: Connection, thread_id: str, checkpoint_ns: str | None = None) -> None:
    """Delete all of a thread but the latest checkpoint of each namespace and what that one needs.

    It needs its blobs and writes, the parent that holds its pending sends (before version 4), and
    for a DeltaChannel the ancestors back to the last stored value. A subgraph call's namespace goes
    with the root checkpoint that made the call. With `checkpoint_ns`, only that namespace.

    What a running graph stores meanwhile stays: blobs are listed before the checkpoints that may
    use them, and only listed rows are deleted.
    """
    one = checkpoint_ns is not None
    scope = {"thread_id": thread_id, **({"checkpoint_ns": checkpoint_ns} if one else {})}
    blobs: dict[BlobKey, str] = {
        (thread_id, row.checkpoint_ns, row.channel, row.version): row.type
        for row in connection.execute(sql.blob_keys(namespace=one), scope)
    }
    # In the database's order of ids, by which a latest one is read as well.
    family: _Family = defaultdict(dict)
    for row in connection.execute(sql.family(namespace=one), scope):
        family[row.checkpoint_ns][row.checkpoint_id] = row
    kept = _kept(connection, thread_id, family, blobs)
    doomed = [
        (thread_id, namespace, checkpoint_id)
        for namespace, rows in family.items()
        for checkpoint_id in rows.keys() - kept[namespace]
    ]
    if not doomed:
        return
    _apply(connection, sql.DELETE_CHECKPOINTS, doomed)
    if checkpoint_ns is None:
        _apply(connection, sql.DELETE_WRITES, doomed)
    else:  # with those of late writers, whose checkpoints went at an earlier put
        ids = family[checkpoint_ns]
        oldest = {"checkpoint_id": next(i for i in ids if i in kept[checkpoint_ns])}
        connection.execute(sql.DELETE_OLDER_WRITES, scope | oldest)
    orphans = [
        (thread_id, namespace, checkpoint_id)
        for namespace, ids in kept.items()
        for checkpoint_id in ids
        if family[namespace][checkpoint_id].parent_checkpoint_id in family[namespace].keys() - ids
    ]
    _apply(connection, sql.FORGET_PARENTS, orphans)
    used = {key for row in _uses(connection, thread_id, family) for key in _used(row)}
    _apply(connection, sql.DELETE_BLOBS, {key for key in blobs.keys() - used if key[1] in family})


_Family = dict[str, dict[str, "AnyRow"]]
"""Namespace -> checkpoint id -> row of `statements.family`, oldest first."""


def _uses(connection: Connection, thread_id: str, namespaces: Iterable[str]) -> Iterator[AnyRow]:
    for chunk in _chunks([(thread_id, namespace) for namespace in sorted(namespaces)], _TUPLES):
        yield from connection.execute(sql.GET_USE, {"namespace_keys": chunk})


def _kept(
    connection: Connection, thread_id: str, family: _Family, blobs: Mapping[BlobKey, str]
) -> dict[str, set[str]]:
    """Decide which checkpoints `keep_latest` keeps, by namespace."""
    heads = {namespace: next(reversed(rows.values())) for namespace, rows in family.items()}
    kept = {namespace: {head.checkpoint_id} for namespace, head in heads.items()}

    with_sends = [
        (thread_id, namespace, head.parent_checkpoint_id)
        for namespace, head in heads.items()
        if (_said(head.v) or 1) < sql.FIRST_WITHOUT_SENDS
        and head.parent_checkpoint_id in family[namespace]
    ]
    for chunk in _chunks(with_sends, _TUPLES):
        for row in connection.execute(sql.GET_SENDERS, {"keys": chunk}):
            kept[row.checkpoint_ns].add(row.checkpoint_id)

    # LangGraph counts each DeltaChannel's updates in metadata. LangGraph.js only marks the thread:
    # there, every channel with a version and no value may be one.
    deltas = {
        namespace: {channel for row in rows.values() for channel in _said(row.counters) or ()}
        for namespace, rows in family.items()
        if any(_said(row.counters) or _said(row.delta) for row in rows.values())
    }
    links: dict[str, dict[str, _Link]] = defaultdict(dict)
    for row in _uses(connection, thread_id, deltas):
        links[row.checkpoint_ns][row.checkpoint_id] = _link(row)
    for namespace, channels in deltas.items():
        head_link = links[namespace].get(heads[namespace].checkpoint_id)
        if head_link is not None:
            if any(_said(row.delta) for row in family[namespace].values()):
                channels.update(head_link.versions)
            stored = {
                key[2:] for key, kind in blobs.items() if key[1] == namespace and kind != "empty"
            }
            kept[namespace].update(_needed(head_link, links[namespace], channels, stored))

    # A call's namespace ends in its task id, after a colon; a subgraph with a checkpointer of its
    # own has none, and its state outlives each call. A call can be stored before the root
    # checkpoint it started from: it goes only when that one is there and goes.
    gone = family.get("", {}).keys() - kept.get("", set())
    for namespace, head in heads.items():
        if ":" in namespace and (_said(head.parents) or {}).get("") in gone:
            kept[namespace] = set()
    return {namespace: ids & family[namespace].keys() for namespace, ids in kept.items()}


def _said(text: str | None) -> Any:
    """Return a part of a document; None where it is missing, which SQLite says as null."""
    return json.loads(text) if text else None


def _needed(
    head: _Link,
    links: Mapping[str, _Link],
    channels: Iterable[str],
    stored: Collection[tuple[str, ...]],
) -> set[str]:
    """Name the ancestors from which the DeltaChannels of a checkpoint are rebuilt."""
    start = _Walk(channels)
    start.take(head, stored)
    walk = _Walk(start.open)  # what the checkpoint holds itself needs no ancestor
    seen = {head.checkpoint_id}
    at = head.parent_id
    while walk.open and at is not None and at in links and at not in seen:
        seen.add(at)
        walk.take(links[at], stored)
        at = links[at].parent_id
    return set().union(*walk.path.values())


def copy_thread(connection: Connection, source: str, target: str) -> None:
    """Copy all of a thread inside the database: four statements.

    Raises:
        ThreadExistsError: The target has rows already.
    """
    if connection.execute(sql.THREAD_EXISTS, {"thread_id": target}).first():
        raise ThreadExistsError(
            f"Thread {target!r} already has checkpoints, so {source!r} was not copied to it."
            " Copy to a thread_id that is not in use, or delete_thread() the target first."
        )
    for statement in sql.COPY_THREAD:
        connection.execute(statement, {"source": source, "target": target})
