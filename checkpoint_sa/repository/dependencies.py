"""The checkpoints that other checkpoints need: ancestors for DeltaChannels, and pending sends.

The functions only read, over a `Connection` that the caller opened and ends. All deletions that
keep some checkpoints of a thread ask here, so that a kept checkpoint reads as before.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from checkpoint_sa.repository.history import Link, Walk, link_of
from checkpoint_sa.rows import MAX_SINGLES, MAX_TUPLES, chunks, loads_or_none
from checkpoint_sa.sql import dependencies as sql
from checkpoint_sa.sql import tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection

    from checkpoint_sa.rows import AnyRow, BlobKey

    Checkpoints: TypeAlias = dict[str, dict[str, AnyRow]]
    """Namespace -> checkpoint id -> row of `sql.dependencies.thread_checkpoints`, oldest first."""


def references(
    connection: Connection, thread_id: str, namespaces: Iterable[str]
) -> Iterator[AnyRow]:
    """Yield a row for each checkpoint of some namespaces, with the values that it references.

    The rows are read when the first row is asked for.
    """
    for chunk in chunks([(thread_id, namespace) for namespace in sorted(namespaces)], MAX_TUPLES):
        yield from connection.execute(sql.GET_REFERENCES, {"namespace_keys": chunk})


def referenced(row: AnyRow) -> Iterator[BlobKey]:
    """Yield the keys of the values that a row of `references` names."""
    for channel, version in (loads_or_none(row.versions) or {}).items():
        yield row.thread_id, row.checkpoint_ns, channel, str(version)


def latest_of(checkpoints: Checkpoints) -> dict[str, set[str]]:
    """Return the id of the latest checkpoint of each namespace."""
    return {namespace: {next(reversed(rows))} for namespace, rows in checkpoints.items()}


class Lines:
    """The versions and inline values of a thread's checkpoints, as far as they are needed."""

    def __init__(
        self, connection: Connection, thread_id: str, rows: Iterable[AnyRow], *, is_whole: bool
    ) -> None:
        """Begin with the rows of some checkpoints; with `is_whole`, of all checkpoints."""
        self._connection = connection
        self._thread_id = thread_id
        self._is_whole = is_whole
        self._rows: dict[tuple[str, str], AnyRow] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._take(rows)

    def _take(self, rows: Iterable[AnyRow]) -> None:
        self._rows.update(((row.checkpoint_ns, row.checkpoint_id), row) for row in rows)

    def complete(self, namespaces: Iterable[str]) -> None:
        """Read all checkpoints of some namespaces, unless all are known: one statement."""
        if not self._is_whole:
            self._take(references(self._connection, self._thread_id, namespaces))

    def get(self, namespace: str, checkpoint_id: str) -> Link | None:
        """Return a checkpoint; None if it isn't there, or isn't known so far."""
        key = (namespace, checkpoint_id)
        if key in self._rows and key not in self._links:
            row = self._rows[key]
            self._links[key] = link_of(
                row.checkpoint_id, row.parent_checkpoint_id, row.versions, row.inline
            )
        return self._links.get(key)

    def walk(
        self,
        namespace: str,
        head: Link,
        channels: Iterable[str],
        stored: Collection[tuple[str, ...]],
    ) -> tuple[Walk, list[Link]]:
        """Follow the parents of a checkpoint until each channel has met a stored value.

        Returns the walk, and the checkpoint with the ancestors on the way.
        """
        walk = Walk(channels)
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


def with_dependencies(  # noqa: PLR0913, PLR0917 - all that is known of a thread
    connection: Connection,
    thread_id: str,
    checkpoints: Checkpoints,
    blobs: Mapping[BlobKey, str],
    wanted: Mapping[str, Collection[str]],
    lines: Lines,
) -> dict[str, set[str]]:
    """Return the checkpoints that stay, by namespace: wanted checkpoints and their dependencies."""
    kept = {namespace: set(ids) for namespace, ids in wanted.items()}

    with_sends = [
        (thread_id, namespace, row.parent_checkpoint_id)
        for namespace, ids in wanted.items()
        for row in map(checkpoints[namespace].__getitem__, ids)
        if (loads_or_none(row.v) or 1) < tables.FIRST_WITHOUT_SENDS
        and row.parent_checkpoint_id in checkpoints[namespace].keys() - kept[namespace]
    ]
    for chunk in chunks(with_sends, MAX_TUPLES):
        for row in connection.execute(sql.CHECKPOINTS_WITH_SENDS, {"keys": chunk}):
            kept[row.checkpoint_ns].add(row.checkpoint_id)

    ancestors = rebuilt_from(connection, thread_id, checkpoints, blobs, wanted, lines)
    for namespace, ids in ancestors.items():
        kept[namespace] |= ids

    # The namespace of a call ends in a colon and a task id; a subgraph with a checkpointer of its
    # own has no task id, and its state outlives each call. A call can be stored before the root
    # checkpoint that it started from: it is deleted only together with that checkpoint.
    gone = checkpoints.get("", {}).keys() - kept.get("", set())
    for namespace, rows in checkpoints.items():
        latest = next(reversed(rows.values()))
        if ":" in namespace and (loads_or_none(latest.parents) or {}).get("") in gone:
            kept[namespace] = set()
    return {namespace: ids & checkpoints[namespace].keys() for namespace, ids in kept.items()}


def rebuilt_from(  # noqa: PLR0913, PLR0917 - all that is known of a thread
    connection: Connection,
    thread_id: str,
    checkpoints: Checkpoints,
    blobs: Mapping[BlobKey, str],
    wanted: Mapping[str, Collection[str]],
    lines: Lines,
) -> dict[str, set[str]]:
    """Return the ancestors from which values of wanted checkpoints are rebuilt, by namespace.

    LangGraph rebuilds a DeltaChannel if a checkpoint has a version of it and no value: from the
    nearest value that an ancestor has, or from nothing, and from the writes since. A version
    without a value doesn't prove a DeltaChannel, because a cleared channel is stored alike. A
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
        # If the parent is wanted as well, it needs all that its child needs.
        if link and link.parent_id in checkpoints[namespace] and link.parent_id not in ids
        if (channels := _without_value(link, stored[namespace]))
    ]
    if not heads:
        return {}

    namespaces = {namespace for namespace, *_ in heads}
    lines.complete(namespaces)
    counted = {namespace: _counted(checkpoints[namespace].values()) for namespace in namespaces}
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
            if (row := checkpoints[namespace].get(child.checkpoint_id))
            else None
            for child in line
        ]
        if _is_rebuilt(channel, line, sources, written[namespace], is_same=is_same):
            needed[namespace].update(link.checkpoint_id for link in line[1:])
    return needed


def _without_value(link: Link, stored: Collection[tuple[str, ...]]) -> list[str]:
    """Return the channels that may be DeltaChannels and have no value at a checkpoint."""
    walk = Walk(
        channel
        for channel in link.versions
        if channel not in (tables.INPUT, tables.TASKS) and not channel.startswith(tables.BRANCH)
    )
    walk.take(link, stored)
    return sorted(walk.open)


def _counted(rows: Iterable[AnyRow]) -> Collection[str] | None:
    """Return the channels that metadata knows as DeltaChannels; None if any channel may be one.

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
    """Return the channels of the writes, by namespace and checkpoint."""
    written: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for chunk in chunks(sorted(namespaces), MAX_SINGLES):
        wanted = {"thread_id": thread_id, "namespaces": chunk}
        for row in connection.execute(sql.GET_WRITTEN, wanted):
            written[row.checkpoint_ns][row.checkpoint_id].add(row.channel)
    return written


def _is_rebuilt(
    channel: str,
    line: Sequence[Link],
    sources: Sequence[str | None],
    written: Mapping[str, Collection[str]],
    *,
    is_same: bool,
) -> bool:
    """Whether a channel that no metadata counts is rebuilt from the ancestors of a checkpoint.

    It is a DeltaChannel if ancestors have writes to it, from the nearest value on. A cleared
    channel had its value after the last write, so there is no write since. An UntrackedValue never
    has a value, and `update_state` stores writes to it. LangGraph's loop changes its version too
    and doesn't store the write beside the others: the latest change decides.

    If the nearest value has the checkpoint's version, nothing was written since. Then a plain
    channel became a DeltaChannel, or the graph doesn't have the channel any more. The loop would
    count a DeltaChannel.

    Args:
        channel: The channel.
        line: The checkpoint and its ancestors, back to the nearest value.
        sources: `source` in the metadata of each.
        written: Checkpoint id -> channels of its writes.
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
