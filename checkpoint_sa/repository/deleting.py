"""Deletion: a plan lists the rows to delete, and `carry_out` deletes them in one lock order.

Over a `Connection` that the caller opened and ends; no serializer. Every deletion has a plan,
except that of whole threads: by rule, by run, by metadata, of orphans, and of the checkpoints that
a shallow saver replaces.

Values are listed before the checkpoints that may reference them, and only listed values are
deleted. So a checkpoint that an application stores meanwhile stays complete.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa.engine.statements import Statement, execute
from checkpoint_sa.repository import writing
from checkpoint_sa.repository.dependencies import (
    Lines,
    latest_of,
    referenced,
    references,
    with_dependencies,
)
from checkpoint_sa.repository.reading import metadata_alone
from checkpoint_sa.rows import MAX_SINGLES, MAX_TUPLES, chunks
from checkpoint_sa.sql import deleting as sql
from checkpoint_sa.sql import dependencies as dependencies_sql
from checkpoint_sa.sql import tables
from checkpoint_sa.sql import threads as threads_sql
from checkpoint_sa.times import is_older, time_of_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from sqlalchemy import Connection, Delete, Update

    from checkpoint_sa.deltas.chain import ChainKey
    from checkpoint_sa.repository.dependencies import Checkpoints
    from checkpoint_sa.rows import AnyRow, BlobKey, CheckpointKey, Stored


class Deleted(NamedTuple):
    """The number of rows that were deleted, or would be."""

    threads: int = 0
    """Threads with a deleted row."""
    checkpoints: int = 0
    values: int = 0
    """Versions of channels."""
    writes: int = 0
    bytes: int = 0
    """Bytes of the values and writes, as they are stored; their rows take some more."""

    def __add__(self, other: Deleted) -> Deleted:  # type: ignore[override]
        """Return the sum of both."""
        return Deleted(*map(sum, zip(self, other, strict=True)))

    def plus(self, other: Deleted) -> Deleted:
        """Return the sum of both, as `+` does."""
        return self + other


class Rule(NamedTuple):
    """The checkpoints that `prune` keeps; `keep` or `since` is enough for a checkpoint to stay."""

    keep: int | None = None
    """The number of latest checkpoints of each namespace."""
    since: datetime | None = None
    """Checkpoints that are younger."""
    active_since: datetime | None = None
    """Threads that have a younger checkpoint; other threads are deleted as a whole."""

    @property
    def has_times(self) -> bool:
        """Whether the times of checkpoints decide."""
        return self.since is not None or self.active_since is not None


KEEP_LATEST = Rule(keep=1)


# Stored rows


class _Stored(NamedTuple):
    """The values of a thread; with sizes, also the rows of its chains and its writes.

    They are listed before the checkpoints.
    """

    values: dict[BlobKey, AnyRow]
    deltas: dict[ChainKey, list[AnyRow]]
    writes: dict[CheckpointKey, AnyRow]

    def ends(self, leaving: Collection[BlobKey] = ()) -> dict[ChainKey, int]:
        """Return the position of the last value of each chain, without the values that leave."""
        ends: dict[ChainKey, int] = {}
        for key, row in self.values.items():
            if row.chain is not None and key not in leaving:
                chain = (*key[:3], row.chain)
                ends[chain] = max(row.position, ends.get(chain, -1))
        return ends


def _list_stored(connection: Connection, scope: Mapping[str, str], *, measure: bool) -> _Stored:
    """List the values of a thread, or of a namespace: one statement, three to measure a thread."""
    thread_id = scope["thread_id"]
    stored = _Stored({}, defaultdict(list), {})
    # The MySQL family reads a value to tell its size.
    statement = sql.GET_VALUES if measure else sql.blob_keys(namespace="checkpoint_ns" in scope)
    for value in connection.execute(statement, scope):
        stored.values[thread_id, value.checkpoint_ns, value.channel, value.version] = value
    if measure:
        for delta in connection.execute(sql.GET_DELTA_SIZES, scope):
            chain = (thread_id, delta.checkpoint_ns, delta.channel, delta.chain)
            stored.deltas[chain].append(delta)
        for write in connection.execute(sql.GET_WRITE_SIZES, scope):
            stored.writes[thread_id, write.checkpoint_ns, write.checkpoint_id] = write
    return stored


def _list_checkpoints(
    connection: Connection, scope: Mapping[str, str], *, times: bool = False
) -> Checkpoints:
    """List the checkpoints of a thread, or of a namespace, in the database's order of their ids."""
    found: Checkpoints = defaultdict(dict)
    statement = dependencies_sql.thread_checkpoints(namespace="checkpoint_ns" in scope, times=times)
    for row in connection.execute(statement, scope):
        found[row.checkpoint_ns][row.checkpoint_id] = row
    return found


# A plan and its execution


class Plan(NamedTuple):
    """The rows to delete."""

    stored: _Stored = _Stored({}, {}, {})
    """The listed rows, for the sizes and the ends of chains."""
    checkpoints: AbstractSet[CheckpointKey] = frozenset()
    writes: Collection[CheckpointKey] = ()
    """Checkpoints; their writes are deleted."""
    writes_before: CheckpointKey | None = None
    """A checkpoint; the writes of all older checkpoints of its namespace are deleted as well."""
    without_parent: Collection[CheckpointKey] = ()
    """Checkpoints that stay and lose their parent."""
    values: AbstractSet[BlobKey] = frozenset()
    """Values; those without a reference are deleted."""
    references: Iterable[AnyRow] = ()
    """Rows of `dependencies.references`."""
    chains: Collection[ChainKey] | None = None
    """Chains with rows to free; None means the chains of the deleted values."""


def carry_out(
    connection: Connection, plan: Plan, *, measure: bool = True, dry_run: bool = False
) -> Deleted:
    """Delete the rows of a plan.

    Every deletion locks rows in the same order, and by key within each step. Two deletions of the
    same rows wait for each other; with two orders they would deadlock:

    1. checkpoints to delete,
    2. their writes,
    3. checkpoints that stay and lose their parent,
    4. the first row of each chain, so that no writer appends to it any more,
    5. values,
    6. the rows of chains behind the last value that stays.

    Only `delete_thread` begins with chains and values: it deletes by thread, so that a checkpoint
    that is being stored is deleted with its thread.

    Args:
        connection: The connection.
        plan: The rows. Its references are read between 3 and 4, when few are left, unless they were
            read before or this is a dry run.
        measure: Whether to count from the plan, which has the sizes. Otherwise the rows are counted
            as they are deleted, and bytes aren't counted.
        dry_run: Whether to measure only.

    Returns:
        The number of rows that were deleted, or would be.
    """
    counts = Deleted()
    if not dry_run:
        checkpoints = _apply(connection, sql.DELETE_CHECKPOINTS, plan.checkpoints)
        writes = _apply(connection, sql.DELETE_WRITES, plan.writes)
        if plan.writes_before is not None:
            names = ("thread_id", "checkpoint_ns", "checkpoint_id")
            older = dict(zip(names, plan.writes_before, strict=True))
            writes += connection.execute(sql.DELETE_OLDER_WRITES, older).rowcount
        _apply(connection, sql.CLEAR_PARENT, plan.without_parent)
        counts = Deleted(checkpoints=checkpoints, writes=writes)
    values = plan.values - _referenced(plan.references, plan.checkpoints)
    ends = plan.stored.ends(values)
    chains = _chains_to_free(plan, values, ends)
    if not dry_run:
        lock_chains(connection, chains)
        counts += Deleted(values=_apply(connection, sql.DELETE_BLOBS, values))
        free_chains(connection, chains)
    if measure:
        counts = _measured(plan, values, chains, ends)
    keys = [*plan.checkpoints, *plan.writes, *values, *chains]
    return counts._replace(threads=len({key[0] for key in keys}))


def _referenced(rows: Iterable[AnyRow], gone: Collection[CheckpointKey]) -> set[BlobKey]:
    """Return the values that checkpoints reference, except the checkpoints to delete."""
    return {key for row in rows if row[:3] not in gone for key in referenced(row)}


def _chains_to_free(
    plan: Plan, values: Collection[BlobKey], ends: Mapping[ChainKey, int]
) -> Collection[ChainKey]:
    """Return the chains that have rows behind the last value that stays, as far as is known.

    Args:
        plan: The plan.
        values: The values to delete.
        ends: The position of the last value that stays, for each chain.
    """
    stored = plan.stored
    last = stored.ends()
    for chain, rows in stored.deltas.items():
        last[chain] = max(row.position for row in rows)
    if plan.chains is None:
        chains = {(*key[:3], chain) for key in values if (chain := stored.values[key].chain)}
    else:
        chains = {*plan.chains}
    return {chain for chain in chains if last.get(chain, 0) > ends.get(chain, -1)}


def _measured(
    plan: Plan,
    values: Collection[BlobKey],
    chains: Collection[ChainKey],
    ends: Mapping[ChainKey, int],
) -> Deleted:
    """Add up the rows to delete, by their listed sizes."""
    stored = plan.stored
    rows = [
        *(stored.values[key] for key in values),
        *(
            row
            for chain in chains
            for row in stored.deltas.get(chain, ())
            if row.position > ends.get(chain, -1)
        ),
    ]
    writes = [stored.writes[key] for key in plan.writes if key in stored.writes]
    return Deleted(
        checkpoints=len(plan.checkpoints),
        values=len(values),
        writes=sum(row.rows for row in writes),
        bytes=sum(int(row.size or 0) for row in rows) + sum(int(row.bytes or 0) for row in writes),
    )


def _apply(
    connection: Connection, statement: Delete | Update, keys: Iterable[tuple[str, ...]]
) -> int:
    """Execute a statement for some keys, a thousand at a time; return the number of rows."""
    rows = 0
    for chunk in chunks(sorted(keys), MAX_TUPLES):
        # MariaDB reads and locks the whole table to delete or update by a list of one tuple; the
        # same tuple twice is looked up in the index.
        wanted = {"keys": chunk if len(chunk) > 1 else [*chunk, *chunk]}
        rows += connection.execute(statement, wanted).rowcount
    return rows


def lock_chains(connection: Connection, chains: Collection[ChainKey]) -> None:
    """Lock chains, so that no writer appends to them until the end of the transaction."""
    for chunk in chunks(sorted(chains), MAX_TUPLES):
        connection.execute(sql.LOCK_CHAINS, {"chain_keys": chunk}).all()


def free_chains(connection: Connection, chains: Collection[ChainKey]) -> None:
    """Delete the rows of locked chains behind the last values that still exist."""
    for chunk in chunks(sorted(chains), MAX_TUPLES):
        ends: dict[ChainKey, int] = {}
        for row in connection.execute(
            sql.GET_CHAINED,
            {
                "channel_keys": sorted({key[:3] for key in chunk}),
                "chains": sorted({key[3] for key in chunk}),
            },
        ):
            ends[row[:4]] = max(row.position, ends.get(row[:4], 0))
        _apply(connection, sql.DELETE_CHAINS, [key for key in chunk if key not in ends])
        names = ("thread_id", "checkpoint_ns", "channel", "chain", "position")
        if tails := [dict(zip(names, (*key, end), strict=True)) for key, end in ends.items()]:
            connection.execute(sql.DELETE_TAIL, tails)


# Whole threads


def of_thread(thread_id: str) -> list[Statement]:
    """Return the statements that delete all of a thread."""
    return [Statement(clause, {"thread_id": thread_id}) for clause in sql.DELETE_THREAD]


def delete_thread(
    connection: Connection, thread_id: str, *, measure: bool = True, dry_run: bool = False
) -> Deleted:
    """Delete all of a thread, and count it; without the bytes unless they are measured."""
    if measure:
        scope = {"thread_id": thread_id}
        stored = _list_stored(connection, scope, measure=True)
        plan = _plan_all(stored, thread_id, _list_checkpoints(connection, scope))
        if not dry_run:
            execute(connection, of_thread(thread_id))
        return carry_out(connection, plan, dry_run=True)
    rows: dict[Any, int] = defaultdict(int)
    for clause in sql.DELETE_THREAD:
        rows[clause.table] += connection.execute(clause, {"thread_id": thread_id}).rowcount
    threads = int(any(rows.values()))
    return Deleted(threads, rows[tables.checkpoints], rows[tables.blobs], rows[tables.writes])


# Deletions in one thread, each by a plan


def prune_thread(  # noqa: PLR0913 - an argument for each option
    connection: Connection,
    thread_id: str,
    rule: Rule = KEEP_LATEST,
    *,
    checkpoint_ns: str | None = None,
    measure: bool = True,
    dry_run: bool = False,
) -> Deleted:
    """Delete the checkpoints that a rule doesn't keep, and the values that only they reference.

    A kept checkpoint needs its values and writes, the parent that holds its pending sends (before
    version 4), and for a DeltaChannel the ancestors back to the last stored value. The namespace of
    a subgraph call is deleted with the root checkpoint that made the call.

    Without chains, pending sends and uncounted DeltaChannels it takes seven statements; two if
    nothing is deleted. To measure takes three more; if nothing is deleted, it is one in all.

    Args:
        connection: The connection.
        thread_id: The thread.
        rule: The rule.
        checkpoint_ns: Only this namespace, for a shallow saver; not with `measure`.
        measure: Whether the sizes are read, and the bytes counted.
        dry_run: Whether to measure only.
    """
    scope = {"thread_id": thread_id}
    if checkpoint_ns is not None:
        scope["checkpoint_ns"] = checkpoint_ns
    if measure:  # sizes are much to read if nothing is deleted
        checkpoints = _list_checkpoints(connection, scope, times=rule.has_times)
        if _wanted(checkpoints, rule) == {ns: rows.keys() for ns, rows in checkpoints.items()}:
            return Deleted()
    plan = _plan_by_rule(connection, scope, rule, measure=measure, read_all=dry_run)
    if not plan.checkpoints:
        return Deleted()
    return carry_out(connection, plan, measure=measure, dry_run=dry_run)


def _plan_by_rule(
    connection: Connection, scope: Mapping[str, str], rule: Rule, *, measure: bool, read_all: bool
) -> Plan:
    """Plan to delete the checkpoints that a rule doesn't keep and no kept checkpoint needs.

    Args:
        connection: The connection.
        scope: The thread, or a namespace of it.
        rule: The rule.
        measure: Whether sizes are read.
        read_all: Whether the references of all checkpoints are read at once. Otherwise they are
            read after checkpoints are deleted, unless more than the latest checkpoints stay.
    """
    thread_id, checkpoint_ns = scope["thread_id"], scope.get("checkpoint_ns")
    stored = _list_stored(connection, scope, measure=measure)
    checkpoints = _list_checkpoints(connection, scope, times=rule.has_times)
    found: Iterable[AnyRow] = references(connection, thread_id, checkpoints)
    if _is_idle(checkpoints, rule):
        return _plan_all(stored, thread_id, checkpoints)._replace(references=found)

    wanted = _wanted(checkpoints, rule)
    rows: Iterable[AnyRow]  # with versions: the latest, or all of a namespace
    if checkpoint_ns is not None:
        rows, is_whole = checkpoints.get(checkpoint_ns, {}).values(), True
    elif read_all or wanted != latest_of(checkpoints):
        rows = found = [*found]
        is_whole = True
    else:
        rows, is_whole = [next(reversed(ids.values())) for ids in checkpoints.values()], False
    lines = Lines(connection, thread_id, rows, is_whole=is_whole)
    types = {key: value.type for key, value in stored.values.items()}
    kept = with_dependencies(connection, thread_id, checkpoints, types, wanted, lines)
    plan = _plan_keeping(stored, thread_id, checkpoints, kept, found)
    if checkpoint_ns is not None and plan.checkpoints:
        # Late writers leave writes of checkpoints that an earlier put has deleted.
        oldest = next(i for i in checkpoints[checkpoint_ns] if i in kept[checkpoint_ns])
        # A parent that was deleted before this checkpoint was stored isn't named any more either.
        plan = plan._replace(
            writes=(),
            writes_before=(thread_id, checkpoint_ns, oldest),
            without_parent={key for key, _ in _absent_parents(thread_id, checkpoints, kept)},
        )
    return plan


def _is_idle(checkpoints: Checkpoints, rule: Rule) -> bool:
    since = rule.active_since
    rows = (row for ids in checkpoints.values() for row in ids.values())
    return since is not None and all(is_older(row, since) for row in rows)


def _wanted(checkpoints: Checkpoints, rule: Rule) -> dict[str, set[str]]:
    """Return the checkpoints that a rule keeps, by namespace, without their dependencies."""
    if _is_idle(checkpoints, rule):
        return {namespace: set() for namespace in checkpoints}
    if rule.keep is None and rule.since is None:
        return {namespace: set(rows) for namespace, rows in checkpoints.items()}
    return {
        namespace: {
            *list(rows)[-(rule.keep or 1) :],
            *(i for i, row in rows.items() if rule.since and not is_older(row, rule.since)),
        }
        for namespace, rows in checkpoints.items()
    }


def _plan_keeping(
    stored: _Stored,
    thread_id: str,
    checkpoints: Checkpoints,
    kept: Mapping[str, Collection[str]],
    found: Iterable[AnyRow],
) -> Plan:
    """Plan to delete all checkpoints except the kept ones, and unreferenced values."""
    to_delete = {
        (thread_id, namespace, checkpoint_id)
        for namespace, rows in checkpoints.items()
        for checkpoint_id in rows.keys() - set(kept[namespace])
    }
    return Plan(
        stored,
        to_delete,
        writes=to_delete,
        # A parent that isn't stored is still named: it may be on its way.
        without_parent={
            key
            for key, parent in _absent_parents(thread_id, checkpoints, kept)
            if parent in to_delete
        },
        values={key for key in stored.values if key[1] in checkpoints},
        references=found,
    )


def _absent_parents(
    thread_id: str, checkpoints: Checkpoints, kept: Mapping[str, Collection[str]]
) -> Iterator[tuple[CheckpointKey, CheckpointKey]]:
    """Yield the checkpoints that stay without their parent, each with its parent."""
    for namespace, ids in kept.items():
        for checkpoint_id in ids:
            parent = checkpoints[namespace][checkpoint_id].parent_checkpoint_id
            if parent and parent not in ids:
                yield (thread_id, namespace, checkpoint_id), (thread_id, namespace, parent)


def _plan_all(stored: _Stored, thread_id: str, checkpoints: Checkpoints) -> Plan:
    """Plan to delete all of a thread."""
    keys = {
        (thread_id, ns, checkpoint_id) for ns, rows in checkpoints.items() for checkpoint_id in rows
    }
    return Plan(
        stored,
        keys,
        writes=keys | stored.writes.keys(),
        values=stored.values.keys(),
        chains=stored.deltas.keys(),
    )


def delete_checkpoints(
    connection: Connection,
    thread_id: str,
    to_delete: Collection[tuple[str, str]],
    *,
    dry_run: bool = False,
) -> Deleted:
    """Delete checkpoints of a thread by (namespace, id), and values that only they reference."""
    scope = {"thread_id": thread_id}
    stored = _list_stored(connection, scope, measure=True)
    checkpoints = _list_checkpoints(connection, scope)
    kept = {
        namespace: {i for i in rows if (namespace, i) not in to_delete}
        for namespace, rows in checkpoints.items()
    }
    found = references(connection, thread_id, checkpoints)
    plan = _plan_keeping(stored, thread_id, checkpoints, kept, found)
    return carry_out(connection, plan, dry_run=dry_run)


def vacuum_thread(
    connection: Connection, thread_id: str, before: datetime, *, dry_run: bool = False
) -> Deleted:
    """Delete rows that no checkpoint references, and no checkpoint on its way will reference.

    - Writes without their checkpoint, if the time in its id is before `before`. LangGraph stores
      writes and their checkpoint independently, in either order. Writes stay if the id contains no
      time.
    - Values that no checkpoint of their namespace references, and deltas behind the last value of a
      chain, in namespaces with only older checkpoints. A checkpoint is stored in one transaction
      with its new values, and its other values belong to a stored checkpoint.
    """
    scope = {"thread_id": thread_id}
    stored = _list_stored(connection, scope, measure=True)
    checkpoints = _list_checkpoints(connection, scope, times=True)
    busy = {
        namespace
        for namespace, rows in checkpoints.items()
        if not all(is_older(row, before) for row in rows.values())
    }
    writes = {
        key
        for key in stored.writes
        if key[2] not in checkpoints.get(key[1], ())
        and (time := time_of_id(key[2])) is not None
        and time < before
    }
    values = {
        key
        for key in stored.values
        if key[1] not in busy and not (key[2] == writing.TURN_CHANNEL and key[1] in checkpoints)
    }
    plan = Plan(
        stored,
        writes=writes,
        values=values,
        references=references(connection, thread_id, checkpoints),
        chains={chain for chain in stored.deltas if chain[1] not in busy},
    )
    return carry_out(connection, plan, dry_run=dry_run)


# Runs


def delete_runs(
    connection: Connection, run_ids: Sequence[str], peer_run_ids: Sequence[str]
) -> Deleted:
    """Delete the checkpoints that runs made, their writes, and values that only they reference.

    Args:
        connection: The connection.
        run_ids: As the column `run_id` has them.
        peer_run_ids: As the metadata of rows without `run_id` has them.
    """
    to_delete: set[CheckpointKey] = set()
    parts = (chunks(ids, MAX_SINGLES) for ids in (run_ids, peer_run_ids))
    for ids, peer_ids in zip_longest(*parts, fillvalue=[]):
        rows = connection.execute(threads_sql.GET_RUNS, {"run_ids": ids, "peer_run_ids": peer_ids})
        to_delete.update(row[:3] for row in rows)
    freed: set[BlobKey] = set()
    kept: set[BlobKey] = set()
    without_parent: list[CheckpointKey] = []
    for chunk in chunks(sorted({key[:2] for key in to_delete}), MAX_TUPLES):
        for row in connection.execute(dependencies_sql.GET_REFERENCES, {"namespace_keys": chunk}):
            key = row[:3]
            (freed if key in to_delete else kept).update(referenced(row))
            if key not in to_delete and (*key[:2], row.parent_checkpoint_id) in to_delete:
                without_parent.append(key)
    chains: set[ChainKey] = set()
    for chunk in chunks(sorted(freed - kept), MAX_TUPLES):
        chains.update(row[:4] for row in connection.execute(sql.GET_CHAINS, {"blob_keys": chunk}))
    plan = Plan(
        checkpoints=to_delete,
        writes=to_delete,
        without_parent=without_parent,
        values=freed - kept,
        chains=chains,
    )
    return carry_out(connection, plan, measure=False)


# Metadata


def metadata_of(
    connection: Connection, thread_ids: Sequence[str], filter_json: str | None
) -> list[Stored]:
    """Read the metadata that may match of some threads' checkpoints: one statement."""
    statement = sql.metadata_of(filtered=filter_json is not None)
    wanted = {"thread_ids": thread_ids} | ({"filter_json": filter_json} if filter_json else {})
    return [
        metadata_alone(tuple(row[:3]), row.metadata, row.type, row.exact)
        for row in connection.execute(statement, wanted)
    ]
