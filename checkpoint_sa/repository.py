"""What the store does with the database, over a `Connection` that the caller opened and ends.

Written once: the Engine saver calls these functions directly, the AsyncEngine saver through
`AsyncConnection.run_sync`. They see ids, JSON and serialized bytes, never a state value.

Every function runs in the caller's transaction and commits nothing. Where one reads twice, the
second reading confirms the first, so that READ COMMITTED is enough.
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from checkpoint_sa import statements as sql
from checkpoint_sa import types
from checkpoint_sa.deltas.chain import VALUE_SUFFIX, WRITE_SUFFIX, Chains, DeltaWrite
from checkpoint_sa.errors import CheckpointError, ThreadExistsError
from checkpoint_sa.rows import (
    HEAD,
    Blob,
    Delta,
    Head,
    History,
    Send,
    Stored,
    Write,
    as_bytes,
    chunks,
    decode,
    loads_or_none,
    versions_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection, Delete, Update

    from checkpoint_sa.deltas.chain import Base, ChainKey, DeltaValue
    from checkpoint_sa.rows import AnyRow, BlobKey, CheckpointKey, Criteria, Part

    Values: TypeAlias = dict[tuple[str, str], tuple[str, bytes | DeltaValue]]
    """(channel, version) -> the serializer's tag, and the value."""

# A list of tuples of 1,000 keys stays below every limit on parameters and stack depth (8,000
# overflow PostgreSQL's stack); single columns go up to 10,000 (SQLite takes 32,766 parameters).
_TUPLES = 1_000
_SINGLES = 10_000

_ATTEMPTS = 10
_ATTEMPTS_AT_CHAINS = 2
"""A row may have been deleted or rewritten between two statements; else it is missing for good."""

# A chain of parents is mostly short; a long one is read in few parts.
_OLDER_ROWS = (64, 4_096)


# Reading


def get(  # noqa: PLR0913 - the checkpoint, and how to read it
    connection: Connection,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str | None,
    *,
    read_deltas: bool = False,
    cached: Sequence[Base] = (),
) -> Stored | None:
    """Read one checkpoint, or the latest of its namespace: one statement, or two.

    Values that stand in chains cost one statement more, unless `read_deltas` says that there may be
    some. The rows of those that are cached aren't read, then.
    """
    wanted = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is not None:
        wanted["checkpoint_id"] = checkpoint_id
    found = _read(connection, wanted, read_deltas=read_deltas, cached=cached)
    if found is not None and not complete_chains(connection, found.chains):
        # A chain was rewritten meanwhile, or the cache is outdated. A row that is missing from the
        # second reading too is missing for good: that is told when its value is made.
        found = _read(connection, wanted, read_deltas=read_deltas, cached=())
        if found is not None:
            complete_chains(connection, found.chains)
    return None if found is None else found.stored()[0]


def _read(
    connection: Connection,
    wanted: Mapping[str, str],
    *,
    read_deltas: bool,
    cached: Sequence[Base],
) -> Assembly | None:
    """Read a checkpoint and its parts, with one statement where it reaches them."""
    excluded = sql.excluding(cached) if read_deltas else {}
    reach = types.reach(connection.dialect)
    if reach is not types.Reach.NONE:
        statements = sql.GET_ONE if "checkpoint_id" in wanted else sql.GET_LATEST
        found = Assembly(Chains(cached))
        found.take(connection.execute(statements[reach, read_deltas], {**wanted, **excluded}).all())
        if not found.heads:
            return None
        if found.has_parts(reach):
            return found
    statement = sql.GET_HEAD if "checkpoint_id" in wanted else sql.GET_LATEST_HEAD
    for _ in range(_ATTEMPTS):
        row = connection.execute(statement, wanted).first()
        if row is None:
            return None
        checkpoint_id, parent_id, document, metadata, type_, exact = row
        key = (wanted["thread_id"], wanted["checkpoint_ns"], checkpoint_id)
        found = Assembly(Chains(cached))
        found.add(key, decode(HEAD, document, parent_id, metadata, 0, type_, exact))
        if _fetch_parts_of(connection, key, found, excluded, read_deltas=read_deltas):
            return found
        # It was deleted between the two statements: look again.
    raise CheckpointError(
        f"The checkpoint was deleted and stored again {_ATTEMPTS} times while it was being read:"
        f" {wanted!r}. Try again."
    )


def _fetch_parts_of(
    connection: Connection,
    key: CheckpointKey,
    found: Assembly,
    excluded: Mapping[str, Any],
    *,
    read_deltas: bool,
) -> bool:
    """Read the parts of one checkpoint, in one snapshot; return whether it is still there."""
    thread_id, checkpoint_ns, checkpoint_id = key
    parent_id = found.heads[key].parent_id or ""
    wanted = {
        "thread_id": thread_id,
        "checkpoint_ns": checkpoint_ns,
        "checkpoint_id": checkpoint_id,
        "writes_of": checkpoint_id,
        "sends_of": parent_id if _is_old(found.documents[key]) else "",
        **excluded,
    }
    parent = (thread_id, checkpoint_ns, parent_id)
    versions = list(found.versions[key].items())
    for chunk in chunks(versions, _TUPLES) or [[]]:
        # What counts is what the last statement still sees.
        found.present.clear()
        for row in _parts(connection, wanted, chunk, chains=read_deltas):
            part = decode(*row)
            found.add(parent if type(part) is Send else key, part)
        if key not in found.present:
            return False
        wanted |= {"writes_of": "", "sends_of": ""}
    return True


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
        found = Assembly(Chains())
        found.take(connection.execute(statement, {**parameters, "size": size}).all())
        after = found.last if len(found.heads) == size else None
        if not found.has_parts(reach):
            found.fetch_parts(connection)
        if complete_chains(connection, found.chains):
            break
    return found.stored(), after


def complete_chains(connection: Connection, chains: Chains) -> bool:
    """Read the rows of chains that are missing; return whether none is any more."""
    statement = sql.GET_DELTAS[types.reach(connection.dialect)]
    for chunk in chunks(chains.missing(), _TUPLES):
        Assembly(chains).take(connection.execute(statement, {"blob_keys": chunk}).all())
    return not chains.missing()


class Assembly:
    """Checkpoints, put together from rows of them and their parts in any order."""

    def __init__(self, chains: Chains) -> None:
        self.heads: dict[CheckpointKey, Head] = {}
        self.documents: dict[CheckpointKey, dict[str, Any]] = {}
        self.present: set[CheckpointKey] = set()
        """The checkpoints that the last statement still saw."""
        self.versions: dict[CheckpointKey, dict[str, str]] = {}
        self.blobs: dict[tuple[str, str], Values] = defaultdict(dict)
        """By thread and namespace."""
        self.chains = chains
        self._writes: dict[CheckpointKey, list[Write]] = defaultdict(list)
        self._sends: dict[CheckpointKey, set[Send]] = defaultdict(set)
        """One statement has them once for each fork of the checkpoint."""

    def take(self, rows: Iterable[AnyRow]) -> None:
        """Take wide rows, see `rows`."""
        for thread_id, checkpoint_ns, checkpoint_id, *part in rows:
            self.add((thread_id, checkpoint_ns, checkpoint_id), decode(*part))

    def add(self, key: CheckpointKey, part: Part) -> None:
        """Put a part in its place.

        Args:
            key: Of its checkpoint: for a pending send, of the parent that it is stored with; for a
                value or a delta, the namespace is enough.
            part: The part.
        """
        if type(part) is Write:
            self._writes[key].append(part)
        elif isinstance(part, Blob):
            channel, version, chain, position, type_, blob = part
            value: bytes | DeltaValue = blob
            if chain is not None and position is not None:
                type_ = type_.removesuffix(VALUE_SUFFIX)
                value = self.chains.value((*key[:2], channel, chain), position, version, blob)
            self.blobs[key[:2]][channel, version] = type_, value
        elif isinstance(part, Delta):
            self.chains.add((*key[:2], part.channel, part.chain), part.position, part.data)
        elif isinstance(part, Send):
            self._sends[key].add(part)
        elif isinstance(part, Head):
            self.heads[key] = part
            self.documents[key] = json.loads(part.checkpoint)
            self.versions[key] = versions_of(self.documents[key])
        else:
            self.present.add(key)

    @property
    def last(self) -> CheckpointKey:
        """The key of the last one in the order of the statement."""
        return max(self.heads, key=lambda key: self.heads[key].rank)

    def has_parts(self, reach: types.Reach) -> bool:
        """Whether the parts came along.

        Not where a version is a float: engines write it with another number of digits.
        """
        return reach is not types.Reach.NONE and not any(
            isinstance(version, float)
            for document in self.documents.values()
            for version in (document.get("channel_versions") or {}).values()
        )

    def fetch_parts(self, connection: Connection) -> None:
        """Read the parts with a statement of their own; drop checkpoints deleted meanwhile."""
        keys = list(self.heads)
        blob_keys = dict.fromkeys(
            (*key[:2], *version)
            for key, versions in self.versions.items()
            for version in versions.items()
        )
        send_keys = [
            (*key[:2], head.parent_id)
            for key, head in self.heads.items()
            if head.parent_id and _is_old(self.documents[key])
        ]
        self._writes.clear()  # they may have come along
        self._sends.clear()
        wanted: dict[str, Any] = {"checkpoint_keys": keys, "send_keys": send_keys}
        for chunk in chunks(list(blob_keys), _TUPLES) or [[]]:
            # What counts is what the last statement still sees.
            self.present.clear()
            wanted |= {"blob_keys": chunk, "present_keys": keys}
            self.take(connection.execute(sql.GET_PARTS, wanted).all())
            wanted |= {"checkpoint_keys": [], "send_keys": []}
        self.heads = {key: head for key, head in self.heads.items() if key in self.present}

    def _blobs_of(self, key: CheckpointKey) -> dict[str, tuple[str, bytes | DeltaValue]]:
        found = self.blobs[key[:2]]
        versions = self.versions[key].items()
        return {version[0]: found[version] for version in versions if version in found}

    def stored(self) -> list[Stored]:
        """Put everything together, in the order of the statement."""
        return [
            Stored(
                key=key,
                parent_id=head.parent_id,
                checkpoint=self.documents[key],
                metadata=json.loads(head.metadata),
                type=head.type,
                exact=head.exact,
                blobs=(blobs := self._blobs_of(key)),
                writes=_in_order(self._writes[key], blobs),
                sends=sorted(self._sends[(*key[:2], head.parent_id)])
                if head.parent_id and _is_old(self.documents[key])
                else [],
            )
            for key, head in sorted(self.heads.items(), key=lambda item: item[1].rank)
        ]


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


# DeltaChannel


class _Link(NamedTuple):
    checkpoint_id: str
    parent_id: str | None
    versions: dict[str, Any]
    """As the document has them; blobs name them by their `str`."""
    inline: dict[str, Any]


def _link(row: AnyRow) -> _Link:
    return _Link(
        row.checkpoint_id,
        row.parent_checkpoint_id or None,
        loads_or_none(row.versions) or {},
        loads_or_none(row.inline) or {},
    )


class _Walk:
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

    def take(self, link: _Link, stored: Collection[tuple[str, ...]]) -> None:
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

    found = Assembly(Chains())
    if walk.seed:
        keys = [(thread_id, checkpoint_ns, *item) for item in walk.seed.items()]
        found.take(connection.execute(sql.GET_BLOBS, {"blob_keys": keys}).all())
        complete_chains(connection, found.chains)
    seeds = {
        channel: (type_, blob, version)
        for (channel, version), (type_, blob) in found.blobs[thread_id, checkpoint_ns].items()
    }

    collected: dict[tuple[str, str], list[Write]] = defaultdict(list)
    ancestors = list(dict.fromkeys(i for path in walk.path.values() for i in path))
    for ids in chunks(ancestors, _SINGLES):
        wanted = {**namespace, "checkpoint_ids": ids, "channels": list(channels)}
        rows = connection.execute(sql.GET_CHANNEL_WRITES, wanted).all()
        for ancestor, channel, path, task_id, idx, type_, blob in rows:
            write = Write(path, task_id, idx, channel, type_, as_bytes(blob))
            collected[ancestor, channel].append(write)
    # A channel that has such writes has a value at most of its checkpoints, so these are few.
    for (ancestor, channel), writes in collected.items():
        if any((write.type or "").endswith(WRITE_SUFFIX) for write in writes):
            stored = get(connection, thread_id, checkpoint_ns, ancestor, read_deltas=True)
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
) -> _Walk:
    """Follow the parents of a checkpoint until every channel has met a stored value."""
    namespace = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    walk = _Walk(channels)
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
            for chunk in chunks(list(versions), _SINGLES)
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
        links: list[_Link] = []
        while at is not None and at in by_id and at not in seen:
            seen.add(at)
            links.append(_link(by_id[at]))
            at = links[-1].parent_id
        if not links:
            return
        yield links
        is_dense = len(links) * 2 > len(rows)
        size = min(_OLDER_ROWS[1], size * 8) if is_dense else _OLDER_ROWS[0]


# Deleting


def delete_threads(connection: Connection, thread_ids: Sequence[str]) -> None:
    """Delete all of some threads: five statements."""
    for chunk in chunks(sorted(thread_ids), _SINGLES):
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
    parts = (chunks(ids, _SINGLES) for ids in (run_ids, peer_run_ids))
    for ids, peer_ids in zip_longest(*parts, fillvalue=[]):
        rows = connection.execute(sql.GET_RUNS, {"run_ids": ids, "peer_run_ids": peer_ids})
        doomed.update(row[:3] for row in rows)
    freed: set[BlobKey] = set()
    kept: set[BlobKey] = set()
    orphans: list[CheckpointKey] = []
    for chunk in chunks(sorted({key[:2] for key in doomed}), _TUPLES):
        for row in connection.execute(sql.GET_USE, {"namespace_keys": chunk}):
            key = row[:3]
            (freed if key in doomed else kept).update(used(row))
            if key not in doomed and (*key[:2], row.parent_checkpoint_id) in doomed:
                orphans.append(key)
    chains: set[ChainKey] = set()
    for chunk in chunks(sorted(freed - kept), _TUPLES):
        chains.update(row[:4] for row in connection.execute(sql.GET_CHAINS, {"blob_keys": chunk}))
    delete_checkpoints(connection, doomed, writes_of=doomed, orphans=orphans)
    delete_values(connection, freed - kept, chains)


# Every deletion locks rows in one order: `delete_checkpoints`, then `delete_values`. Two of them
# that meet on the same rows wait for each other; in two orders they would deadlock.


def delete_checkpoints(
    connection: Connection,
    checkpoints: Collection[CheckpointKey],
    *,
    writes_of: Collection[CheckpointKey],
    orphans: Collection[CheckpointKey],
) -> None:
    """Delete checkpoints and writes; checkpoints that stay behind as orphans lose their parent."""
    apply(connection, sql.DELETE_CHECKPOINTS, checkpoints)
    apply(connection, sql.DELETE_WRITES, writes_of)
    apply(connection, sql.FORGET_PARENTS, orphans)


def delete_values(
    connection: Connection, blobs: Collection[BlobKey], chains: Collection[ChainKey]
) -> None:
    """Delete values, and of chains the rows behind the last value that stays."""
    lock_chains(connection, chains)
    apply(connection, sql.DELETE_BLOBS, blobs)
    free_chains(connection, chains)


def used(row: AnyRow) -> Iterator[BlobKey]:
    """Yield the keys of the values that a row of `uses` names."""
    for channel, version in (loads_or_none(row.versions) or {}).items():
        yield row.thread_id, row.checkpoint_ns, channel, str(version)


def apply(
    connection: Connection, statement: Delete | Update, keys: Iterable[tuple[str, ...]]
) -> None:
    """Execute a statement for some keys, a thousand at a time."""
    for chunk in chunks(sorted(keys), _TUPLES):
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
    blobs: dict[BlobKey, str] = {}
    positions: dict[ChainKey, dict[BlobKey, int]] = defaultdict(dict)
    for row in connection.execute(sql.blob_keys(namespace=one), scope):
        key = (thread_id, row.checkpoint_ns, row.channel, row.version)
        blobs[key] = row.type
        if row.chain is not None:
            positions[(*key[:3], row.chain)][key] = row.position
    # In the database's order of ids, by which a latest one is read as well.
    family: Family = defaultdict(dict)
    for row in connection.execute(sql.family(namespace=one), scope):
        family[row.checkpoint_ns][row.checkpoint_id] = row
    latest = latest_of(family)
    rows = [
        row
        for namespace, members in family.items()
        for checkpoint_id, row in members.items()
        if one or checkpoint_id in latest[namespace]
    ]
    lines = Lines(connection, thread_id, rows, is_whole=one)
    kept = kept_of(connection, thread_id, family, blobs, latest, lines)
    doomed = [
        (thread_id, namespace, checkpoint_id)
        for namespace, rows in family.items()
        for checkpoint_id in rows.keys() - kept[namespace]
    ]
    if not doomed:
        return
    orphans = [
        (thread_id, namespace, checkpoint_id)
        for namespace, ids in kept.items()
        for checkpoint_id in ids
        if (parent := family[namespace][checkpoint_id].parent_checkpoint_id) and parent not in ids
    ]
    writes_of = doomed if checkpoint_ns is None else []
    delete_checkpoints(connection, doomed, writes_of=writes_of, orphans=orphans)
    if checkpoint_ns is not None:  # also of late writers, whose checkpoints went at an earlier put
        ids = family[checkpoint_ns]
        oldest = {"checkpoint_id": next(i for i in ids if i in kept[checkpoint_ns])}
        connection.execute(sql.DELETE_OLDER_WRITES, scope | oldest)
    needed = {key for row in uses(connection, thread_id, family) for key in used(row)}
    unused = {key for key in blobs.keys() - needed if key[1] in family}
    # A chain has rows to free where its last value goes.
    chains = {
        chain
        for chain, values in positions.items()
        if max(values, key=values.__getitem__) in unused
    }
    delete_values(connection, unused, chains)


def lock_chains(connection: Connection, chains: Collection[ChainKey]) -> None:
    """Let nobody append to some chains until the end of the transaction."""
    for chunk in chunks(sorted(chains), _TUPLES):
        connection.execute(sql.LOCK_CHAINS, {"chain_keys": chunk}).all()


def free_chains(connection: Connection, chains: Collection[ChainKey]) -> None:
    """Delete the rows of chains, which are locked, behind the last values that are still there."""
    for chunk in chunks(sorted(chains), _TUPLES):
        ends: dict[ChainKey, int] = {}
        for row in connection.execute(
            sql.GET_CHAINED,
            {
                "channel_keys": sorted({key[:3] for key in chunk}),
                "chains": sorted({key[3] for key in chunk}),
            },
        ):
            ends[row[:4]] = max(row.position, ends.get(row[:4], 0))
        apply(connection, sql.DELETE_CHAINS, [key for key in chunk if key not in ends])
        names = ("thread_id", "checkpoint_ns", "channel", "chain", "position")
        if tails := [dict(zip(names, (*key, end), strict=True)) for key, end in ends.items()]:
            connection.execute(sql.DELETE_TAIL, tails)


Family = dict[str, dict[str, "AnyRow"]]
"""Namespace -> checkpoint id -> row of `statements.family`, oldest first."""


def uses(connection: Connection, thread_id: str, namespaces: Iterable[str]) -> Iterator[AnyRow]:
    """Yield what the checkpoints of some namespaces use."""
    for chunk in chunks([(thread_id, namespace) for namespace in sorted(namespaces)], _TUPLES):
        yield from connection.execute(sql.GET_USE, {"namespace_keys": chunk})


def latest_of(family: Family) -> dict[str, set[str]]:
    """Return the id of the latest checkpoint of each namespace."""
    return {namespace: {next(reversed(rows))} for namespace, rows in family.items()}


class Lines:
    """The versions and inline values of a thread's checkpoints, as far as they are needed."""

    def __init__(
        self, connection: Connection, thread_id: str, rows: Iterable[AnyRow], *, is_whole: bool
    ) -> None:
        """Begin with the rows of some checkpoints, or with `is_whole` of all."""
        self._connection = connection
        self._thread_id = thread_id
        self._is_whole = is_whole
        self._rows: dict[tuple[str, str], AnyRow] = {}
        self._links: dict[tuple[str, str], _Link] = {}
        self._take(rows)

    def _take(self, rows: Iterable[AnyRow]) -> None:
        self._rows.update(((row.checkpoint_ns, row.checkpoint_id), row) for row in rows)

    def complete(self, namespaces: Iterable[str]) -> None:
        """Read all checkpoints of some namespaces, unless all are known: one statement."""
        if not self._is_whole:
            self._take(uses(self._connection, self._thread_id, namespaces))

    def get(self, namespace: str, checkpoint_id: str) -> _Link | None:
        """Return a checkpoint; None if it isn't there, or isn't known so far."""
        key = (namespace, checkpoint_id)
        if key in self._rows and key not in self._links:
            self._links[key] = _link(self._rows[key])
        return self._links.get(key)

    def walk(
        self,
        namespace: str,
        head: _Link,
        channels: Iterable[str],
        stored: Collection[tuple[str, ...]],
    ) -> tuple[_Walk, list[_Link]]:
        """Follow the parents of a checkpoint until each channel has met a stored value.

        Returns where each channel met it, and the checkpoint with the ancestors that were met.
        """
        walk = _Walk(channels)
        line = [head]
        seen = {head.checkpoint_id}
        while walk.open and (at := line[-1].parent_id) is not None and at not in seen:
            link = self.get(namespace, at)
            if link is None:
                break
            seen.add(at)
            line.append(link)
            walk.take(link, stored)
        return walk, line


def kept_of(  # noqa: PLR0913, PLR0917 - all that is known of a thread
    connection: Connection,
    thread_id: str,
    family: Family,
    blobs: Mapping[BlobKey, str],
    wanted: Mapping[str, Collection[str]],
    lines: Lines,
) -> dict[str, set[str]]:
    """Return the checkpoints that stay, by namespace: those that are wanted and what they need."""
    kept = {namespace: set(ids) for namespace, ids in wanted.items()}

    with_sends = [
        (thread_id, namespace, row.parent_checkpoint_id)
        for namespace, ids in wanted.items()
        for row in map(family[namespace].__getitem__, ids)
        if (loads_or_none(row.v) or 1) < sql.FIRST_WITHOUT_SENDS
        and row.parent_checkpoint_id in family[namespace].keys() - kept[namespace]
    ]
    for chunk in chunks(with_sends, _TUPLES):
        for row in connection.execute(sql.GET_SENDERS, {"keys": chunk}):
            kept[row.checkpoint_ns].add(row.checkpoint_id)

    ancestors = rebuilt_from(connection, thread_id, family, blobs, wanted, lines)
    for namespace, ids in ancestors.items():
        kept[namespace] |= ids

    # A call's namespace ends in its task id, after a colon; a subgraph with a checkpointer of its
    # own has none, and its state outlives each call. A call can be stored before the root
    # checkpoint it started from: it goes only when that one is there and goes.
    gone = family.get("", {}).keys() - kept.get("", set())
    for namespace, rows in family.items():
        latest = next(reversed(rows.values()))
        if ":" in namespace and (loads_or_none(latest.parents) or {}).get("") in gone:
            kept[namespace] = set()
    return {namespace: ids & family[namespace].keys() for namespace, ids in kept.items()}


def rebuilt_from(  # noqa: PLR0913, PLR0917 - all that is known of a thread
    connection: Connection,
    thread_id: str,
    family: Family,
    blobs: Mapping[BlobKey, str],
    wanted: Mapping[str, Collection[str]],
    lines: Lines,
) -> dict[str, set[str]]:
    """Return the ancestors that the values of wanted checkpoints are rebuilt from, by namespace.

    LangGraph rebuilds a DeltaChannel where a checkpoint has a version of it and no value: from the
    nearest value that an ancestor has, or from nothing, and from the writes since. A version
    without a value isn't enough to know one by, for a channel that was cleared is stored alike. A
    channel is a DeltaChannel if

    - the metadata of its namespace counts its updates, or LangGraph.js has marked the thread;
    - or it is rebuilt all the same, as older releases of LangGraph don't count all updates; see
      `_is_rebuilt`.
    """
    stored: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for key, kind in blobs.items():
        if kind != "empty":
            stored[key[1]].add(key[2:])
    heads = [
        (namespace, link, channels)
        for namespace, ids in wanted.items()
        for link in (lines.get(namespace, checkpoint_id) for checkpoint_id in ids)
        # If the parent is wanted as well, it needs all that this one does.
        if link and link.parent_id in family[namespace] and link.parent_id not in ids
        if (channels := _without_value(link, stored[namespace]))
    ]
    if not heads:
        return {}

    namespaces = {namespace for namespace, *_ in heads}
    lines.complete(namespaces)
    counted = {namespace: _counted(family[namespace].values()) for namespace in namespaces}
    needed: dict[str, set[str]] = defaultdict(set)
    doubtful = []
    for namespace, link, channels in heads:
        walk, line = lines.walk(namespace, link, channels, stored[namespace])
        known = counted[namespace]
        for channel, path in walk.path.items():
            if known is None or channel in known:
                needed[namespace].update(path)
            else:
                is_same = walk.found.get(channel) == str(link.versions[channel])
                doubtful.append((namespace, channel, line[: len(path) + 1], is_same))
    namespaces = {namespace for namespace, _, _, is_same in doubtful if not is_same}
    written = _written(connection, thread_id, namespaces)
    for namespace, channel, line, is_same in doubtful:
        sources = [
            loads_or_none(row.source)
            if (row := family[namespace].get(child.checkpoint_id))
            else None
            for child in line
        ]
        if _is_rebuilt(channel, line, sources, written[namespace], is_same=is_same):
            needed[namespace].update(link.checkpoint_id for link in line[1:])
    return needed


def _without_value(link: _Link, stored: Collection[tuple[str, ...]]) -> list[str]:
    """Name the channels that may be DeltaChannels and have no value at a checkpoint."""
    walk = _Walk(
        channel
        for channel in link.versions
        if channel not in (sql.INPUT, sql.TASKS) and not channel.startswith(sql.BRANCH)
    )
    walk.take(link, stored)
    return sorted(walk.open)


def _counted(rows: Iterable[AnyRow]) -> Collection[str] | None:
    """Name the channels that metadata knows as DeltaChannels; None: each of them may be one.

    LangGraph counts the updates of a DeltaChannel. LangGraph.js only marks the thread.
    """
    channels: set[str] = set()
    for row in rows:
        if loads_or_none(row.delta):
            return None
        channels.update(loads_or_none(row.counters) or ())
    return channels


def _written(
    connection: Connection, thread_id: str, namespaces: Collection[str]
) -> dict[str, dict[str, set[str]]]:
    """Return the channels that the checkpoints of some namespaces have writes to."""
    written: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for chunk in chunks(sorted(namespaces), _SINGLES):
        wanted = {"thread_id": thread_id, "namespaces": chunk}
        for row in connection.execute(sql.GET_WRITTEN, wanted):
            written[row.checkpoint_ns][row.checkpoint_id].add(row.channel)
    return written


def _is_rebuilt(
    channel: str,
    line: Sequence[_Link],
    sources: Sequence[str | None],
    written: Mapping[str, Collection[str]],
    *,
    is_same: bool,
) -> bool:
    """Whether a channel that no metadata counts is rebuilt from the ancestors of a checkpoint.

    It is a DeltaChannel if ancestors have writes to it, from the nearest value on. A channel that
    was cleared had its value after the last write, so that there is none since. An UntrackedValue
    never has one, and `update_state` stores writes to it. LangGraph's loop changes its version too
    and doesn't store the write beside the others: the latest change decides.

    Where the nearest value has the checkpoint's version, nothing was written since. A plain channel
    became a DeltaChannel, or the graph has it no more. The loop would count a DeltaChannel.

    Args:
        channel: The channel.
        line: The checkpoint and its ancestors, back to the one with the nearest value.
        sources: `source` of each one's metadata.
        written: Checkpoint id -> channels that it has writes to.
        is_same: Whether the nearest value has the version that the checkpoint has.
    """
    if is_same:
        return not {"loop", "input"}.intersection(map(str, sources[:-1]))
    if not any(channel in written.get(ancestor.checkpoint_id, ()) for ancestor in line[1:]):
        return False
    for (child, parent), source in zip(pairwise(line), sources, strict=False):
        if child.versions.get(channel) != parent.versions.get(channel):
            found = written.get(parent.checkpoint_id, ())
            return channel in found or not found or source != "loop"
    return True


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
        rows = connection.execute(sql.family(namespace=False), {"thread_id": thread_id})
        ids[thread_id] = {(row.checkpoint_ns, row.checkpoint_id) for row in rows}
    return ids[source] <= ids[target] or ids[target] <= ids[source]
