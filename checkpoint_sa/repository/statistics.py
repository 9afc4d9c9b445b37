"""Sums of threads, and checkpoints without their values; over a `Connection`."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa.engine import engines
from checkpoint_sa.repository import reading, threads
from checkpoint_sa.rows import versions_of
from checkpoint_sa.sql import deleting as deleting_sql
from checkpoint_sa.sql import statistics as sql
from checkpoint_sa.sql import tables
from checkpoint_sa.times import time_of_id, time_of_ts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from checkpoint_sa.rows import AnyRow, CheckpointKey, Stored


class ThreadSummary(NamedTuple):
    """The sums of the rows of a thread."""

    thread_id: str
    checkpoints: int
    writes: int
    bytes: int
    """Serialized values and writes, and documents as text; the engine may compress them."""
    first: datetime | None
    """The time of its first checkpoint; None if neither `ts` nor its id has a time."""
    last: datetime | None
    namespaces: int
    """The namespaces of the root graph and of each call of a subgraph."""


class Value(NamedTuple):
    """A version of a channel."""

    bytes: int
    """With its row in a chain."""
    is_empty: bool


class Step(NamedTuple):
    """A checkpoint without its values."""

    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    time: datetime | None
    source: str | None
    step: int | None
    next: list[str]
    """Nodes that a `branch:to:` channel, or the input, starts from here."""
    changed: list[str]
    """Channels whose version isn't the parent's."""
    writes: int
    bytes: int
    """Of its documents, its writes, and the values that no earlier checkpoint has."""


class Pending(NamedTuple):
    """A write of a task."""

    key: CheckpointKey
    task_id: str
    channel: str
    type: str | None
    blob: bytes | None
    """The value of an interrupt; of another channel it isn't read."""


class TableSize(NamedTuple):
    """The rows of a table."""

    name: str
    rows: int
    bytes: int
    on_disk: int | None
    """With indexes and unused space; None if the engine doesn't tell."""


class ChannelSize(NamedTuple):
    """The values of all channels of one name, without those in a checkpoint's document."""

    name: str
    rows: int
    bytes: int


def time_of(said: object, checkpoint_id: str) -> datetime | None:
    """Return the time of a checkpoint: its `ts`, or the time in its id if that is a UUID 6."""
    return time_of_ts(said) or time_of_id(checkpoint_id)


class Position(NamedTuple):
    """The start of a page of threads, and their criteria."""

    filters: bool
    filter_json: str | None
    """The part of the filter that the engine can compare."""
    after: str | None
    """Only threads after this id."""
    last: CheckpointKey | None
    """Only checkpoints after this key; `after` doesn't count then."""
    size: int


def page(connection: Connection, position: Position) -> list[Stored]:
    """Read up to `size` checkpoints with their metadata alone, by thread: one statement.

    Without a filter: one placeholder for each thread; only its thread_id is set.
    """
    _, filter_json, after, last, size = position
    parameters: dict[str, Any] = {"size": size}
    if last is not None:
        parameters |= dict(zip(("after", "after_ns", "after_id"), last, strict=True))
    elif after is not None:
        parameters["after"] = after
    if not position.filters:
        ids = threads.list_ids(connection, size, after)
        return [reading.metadata_alone((thread_id, "", ""), "{}", None, None) for thread_id in ids]
    if filter_json is not None:
        parameters["filter_json"] = filter_json
    statement = sql.candidates(
        filtered=filter_json is not None,
        after=after is not None and last is None,
        inside=last is not None,
    )
    return [
        reading.metadata_alone(tuple(row[:3]), row.metadata, row.type, row.exact)
        for row in connection.execute(statement, parameters)
    ]


def summaries(connection: Connection, thread_ids: Sequence[str]) -> list[ThreadSummary]:
    """Sum up some threads, in the order that is given: four statements.

    A thread that has no checkpoints any more is left out.
    """
    threads = {"thread_ids": list(thread_ids)}
    found = {row.thread_id: row for row in connection.execute(sql.SUMMARIZE_CHECKPOINTS, threads)}
    others: dict[str, dict[str, AnyRow]] = {
        table.name: {row.thread_id: row for row in connection.execute(statement, threads)}
        for table, statement in sql.SUMMARIZE_OTHERS.items()
    }
    writes = others[tables.writes.name]
    return [
        ThreadSummary(
            thread_id,
            row.rows,
            writes[thread_id].rows if thread_id in writes else 0,
            _bytes_of(row) + sum(_bytes_of(rows.get(thread_id)) for rows in others.values()),
            time_of(row.first_time, row.first_id),
            time_of(row.last_time, row.last_id),
            row.namespaces,
        )
        for thread_id in thread_ids
        if (row := found.get(thread_id)) is not None
    ]


def thread(connection: Connection, thread_id: str) -> list[Step]:
    """Read the checkpoints of a thread without their values: four statements.

    By namespace, oldest first.
    """
    parameters = {"thread_id": thread_id}
    changes = {
        tuple(row[:4]): int(row.size)
        for row in connection.execute(deleting_sql.GET_DELTA_SIZES, parameters)
    }
    values: dict[str, dict[tuple[str, str], Value]] = defaultdict(dict)
    for row in connection.execute(deleting_sql.GET_VALUES, parameters):
        change = changes.get((row.checkpoint_ns, row.channel, row.chain, row.position), 0)
        values[row.checkpoint_ns][row.channel, row.version] = Value(
            int(row.size or 0) + change, row.type == "empty"
        )
    writes = {
        tuple(row[:2]): row for row in connection.execute(deleting_sql.GET_WRITE_SIZES, parameters)
    }
    namespaces: dict[str, list[AnyRow]] = defaultdict(list)
    for row in connection.execute(sql.GET_STEPS, parameters):
        namespaces[row.checkpoint_ns].append(row)
    return [
        step
        for namespace, rows in namespaces.items()
        for step in _steps(rows, values[namespace], writes)
    ]


def latest_pending(connection: Connection, thread_ids: Sequence[str]) -> list[Pending]:
    """Read the writes of the latest root checkpoint of some threads: one statement."""
    rows = connection.execute(sql.GET_LATEST_PENDING, {"thread_ids": list(thread_ids)})
    return [_pending(row) for row in rows]


def interrupted(connection: Connection, thread_id: str) -> list[Pending]:
    """Read the writes of a thread's tasks that were interrupted: one statement."""
    rows = connection.execute(sql.GET_INTERRUPTED, {"thread_id": thread_id})
    return [_pending(row) for row in rows]


def _pending(row: AnyRow) -> Pending:
    key = (row.thread_id, row.checkpoint_ns, row.checkpoint_id)
    blob = None if row.blob is None else bytes(row.blob)
    return Pending(key, row.task_id, row.channel, row.type, blob)


def _steps(
    rows: Iterable[AnyRow],
    values: Mapping[tuple[str, str], Value],
    writes: Mapping[tuple[str, ...], AnyRow],
) -> list[Step]:
    """Make the steps of a namespace."""
    steps = []
    versions_at: dict[str, dict[str, str]] = {}
    counted: set[tuple[str, str]] = set()
    for row in rows:
        document, metadata = json.loads(row.checkpoint), json.loads(row.metadata)
        versions = versions_at[row.checkpoint_id] = versions_of(document)
        before = versions_at.get(row.parent_checkpoint_id or "", {})
        new = versions.items() - counted
        counted |= new
        written = writes.get((row.checkpoint_ns, row.checkpoint_id))
        steps.append(
            Step(
                row.checkpoint_ns,
                row.checkpoint_id,
                row.parent_checkpoint_id,
                time_of(document.get("ts"), row.checkpoint_id),
                metadata.get("source"),
                metadata.get("step"),
                _next(document, values),
                sorted(name for name, version in versions.items() if before.get(name) != version),
                written.rows if written else 0,
                int(row.bytes)
                + _bytes_of(written)
                + sum(value.bytes for key in new if (value := values.get(key)) is not None),
            )
        )
    return steps


def _next(document: Mapping[str, Any], values: Mapping[tuple[str, str], Value]) -> list[str]:
    """Return the nodes that haven't seen the version of their channel's value."""
    inline = document.get("channel_values") or {}
    seen = document.get("versions_seen") or {}
    found = []
    for channel, version in (document.get("channel_versions") or {}).items():
        if channel != tables.INPUT and not channel.startswith(tables.BRANCH):
            continue
        node = channel.removeprefix(tables.BRANCH)
        stored = values.get((channel, str(version)))
        has_value = channel in inline or (stored is not None and not stored.is_empty)
        if has_value and (seen.get(node) or {}).get(channel) != version:
            found.append(node)
    return sorted(found)


def _bytes_of(row: AnyRow | None) -> int:
    """Return a sum of sizes, which some drivers give as a decimal number."""
    return 0 if row is None else int(row.bytes or 0)


def table_sizes(connection: Connection, schema: str | None) -> list[TableSize]:
    """Measure the tables and, as `total`, all of them, reading all rows: a statement each."""
    on_disk = engines.sizes_on_disk(connection, list(sql.GET_TABLE_SIZES), schema)
    sizes = []
    for name, statement in sql.GET_TABLE_SIZES.items():
        row = connection.execute(statement).one()
        sizes.append(TableSize(name, row.rows, _bytes_of(row), on_disk.get(name)))
    rows, stored = sum(size.rows for size in sizes), sum(size.bytes for size in sizes)
    total = on_disk.get("total", sum(on_disk.values()) or None)
    return [*sizes, TableSize("total", rows, stored, total)]


def channel_sizes(connection: Connection, number: int) -> list[ChannelSize]:
    """Return the channels that take the most room, reading all rows: one statement."""
    return [
        ChannelSize(row.channel, row.rows, _bytes_of(row))
        for row in connection.execute(sql.GET_CHANNEL_SIZES, {"size": number})
    ]
