"""The history of DeltaChannels: a walk along the parents of a checkpoint."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa.deltas.chain import WRITE_SUFFIX, Chains
from checkpoint_sa.engine.cursors import fetch_all
from checkpoint_sa.repository.reading import Assembly, complete_chains, get
from checkpoint_sa.rows import (
    MAX_SINGLES,
    REVISION_MARK,
    History,
    WholeValue,
    Write,
    as_bytes,
    chunks,
    loads_or_none,
)
from checkpoint_sa.sql import history as sql
from checkpoint_sa.sql import reading as reading_sql

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

# A chain of parents is mostly short; a long one is read in few parts.
_OLDER_ROWS = (64, 4_096)


class Link(NamedTuple):
    """A checkpoint in a line of ancestors."""

    checkpoint_id: str
    parent_id: str | None
    versions: dict[str, Any]
    """As the document has them; blobs name them by their `str`."""
    inline: dict[str, Any]


def link_of(
    checkpoint_id: str, parent_id: str | None, versions: str | None, inline: str | None
) -> Link:
    """Make a link of a checkpoint, with versions and inline values as JSON."""
    return Link(
        checkpoint_id, parent_id or None, loads_or_none(versions) or {}, loads_or_none(inline) or {}
    )


class Walk:
    """A walk along ancestors: for each channel the ancestors to replay, and the seed."""

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
                self.seed[channel] = str(version)  # a snapshot's inline value is a marker
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
        latest = fetch_all(connection, reading_sql.GET_LATEST_ID, namespace)
        if not latest:
            return {channel: History([]) for channel in channels}
        checkpoint_id = latest[0][0]
    walk = _walk(connection, thread_id, checkpoint_ns, checkpoint_id, channels)

    found = Assembly(Chains())
    if walk.seed:
        keys = [(thread_id, checkpoint_ns, *item) for item in walk.seed.items()]
        found.take(fetch_all(connection, sql.GET_BLOBS, {"blob_keys": keys}))
        complete_chains(connection, found.chains)
    seeds = {
        channel: (type_, blob, version)
        for (channel, version), (type_, blob) in found.blobs[thread_id, checkpoint_ns].items()
    }

    collected: dict[tuple[str, str], list[Write]] = defaultdict(list)
    ancestors = list(dict.fromkeys(i for path in walk.path.values() for i in path))
    for ids in chunks(ancestors, MAX_SINGLES):
        wanted = {**namespace, "checkpoint_ids": ids, "channels": list(channels)}
        rows = fetch_all(connection, sql.GET_CHANNEL_WRITES, wanted)
        for ancestor, channel, marked_path, task_id, idx, type_, blob in rows:
            path = marked_path.partition(REVISION_MARK)[0]
            write = Write(path, task_id, idx, channel, type_, WholeValue(as_bytes(blob)))
            collected[ancestor, channel].append(write)
    # A channel with such writes has a value at most of its checkpoints, so these are few.
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
            tuple(row)
            for chunk in chunks(list(versions), MAX_SINGLES)
            for row in fetch_all(
                connection,
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

    A part is read from the rows before its first checkpoint, in the order of ids. If ids follow
    time, nearly all of these rows are ancestors. Otherwise a part ends early, and the next part
    begins at the parent.
    """
    seen: set[str] = set()
    at: str | None = checkpoint_id
    size = _OLDER_ROWS[0]
    while at is not None:
        rows = fetch_all(connection, sql.older(size), {**namespace, "checkpoint_id": at})
        by_id = {row[0]: row for row in rows}
        links: list[Link] = []
        while at is not None and at in by_id and at not in seen:
            seen.add(at)
            links.append(link_of(*by_id[at]))
            at = links[-1].parent_id
        if not links:
            return
        yield links
        is_dense = len(links) * 2 > len(rows)
        size = min(_OLDER_ROWS[1], size * 8) if is_dense else _OLDER_ROWS[0]
