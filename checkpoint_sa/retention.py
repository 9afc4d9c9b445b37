"""Deleting what is old, a person's threads, and rows that nothing refers to any more.

Like the repository, over a `Connection` that the caller opened and ends; no serializer. Each step
decides what goes of one thread and deletes it, in a transaction of its own: who is interrupted
begins again and goes on. Parts are listed before the checkpoints that may use them and only listed
rows are deleted, so what an application stores meanwhile stays whole.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from checkpoint_sa import repository, writing
from checkpoint_sa import statements as sql
from checkpoint_sa.errors import InvalidInputError
from checkpoint_sa.repository import Family, Stored, said

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection

    from checkpoint_sa.deltas.chain import ChainKey
    from checkpoint_sa.repository import AnyRow, BlobKey, CheckpointKey

    Ids: TypeAlias = Mapping[str, Collection[str]]
    """Checkpoint ids by namespace."""
    Moment: TypeAlias = timedelta | datetime
    """An age, or a time."""
    Report: TypeAlias = Callable[["Deleted"], object]
    Steps: TypeAlias = Generator[Callable[[Connection], Any], Any, "Deleted"]
    """What is done with a connection, each in a transaction of its own."""

GRACE = timedelta(days=1)
"""For how long a checkpoint may be on its way after its writes, by default."""

_PAGE = 20
"""Threads that are listed at a time, and whose metadata is looked through at a time."""

_GREGORIAN = datetime(1582, 10, 15, tzinfo=timezone.utc)
_UUID6 = 6


class Deleted(NamedTuple):
    """What was deleted, or would be."""

    threads: int = 0
    """Of which something went."""
    checkpoints: int = 0
    values: int = 0
    """Versions of channels."""
    writes: int = 0
    bytes: int = 0
    """Of the values and writes, as they are stored; rows have some more."""

    def plus(self, other: Deleted) -> Deleted:
        """Return the sum of two."""
        return Deleted(*map(sum, zip(self, other, strict=True)))


class Rule(NamedTuple):
    """What `prune` keeps; a checkpoint stays where one of `keep` and `since` says so."""

    keep: int | None = None
    """How many of each namespace."""
    since: datetime | None = None
    """Checkpoints that are younger."""
    active_since: datetime | None = None
    """Threads that have a younger checkpoint; others go as a whole."""


def rule(
    *,
    keep: int | None,
    older_than: Moment | None,
    idle_for: Moment | None,
) -> Rule | None:
    """Return the rule for the options of `prune`; None where none is given.

    Raises:
        InvalidInputError: `keep` isn't a number from 1 on, or a time isn't one.
    """
    if keep is None and older_than is None and idle_for is None:
        return None
    if keep is not None and (not isinstance(keep, int) or isinstance(keep, bool) or keep < 1):
        raise InvalidInputError(
            f"keep is {keep!r}; pass how many checkpoints of each namespace stay, 1 or more."
            " To delete whole threads, use strategy='delete'."
        )
    return Rule(
        keep,
        None if older_than is None else moment("older_than", older_than),
        None if idle_for is None else moment("idle_for", idle_for),
    )


def moment(name: str, value: Moment) -> datetime:
    """Return the time that an age means now, or the time itself.

    Raises:
        InvalidInputError: It is neither, or has no time zone.
    """
    if isinstance(value, timedelta) and value >= timedelta(0):
        try:
            return datetime.now(timezone.utc) - value
        except OverflowError:
            return datetime.min.replace(tzinfo=timezone.utc)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    raise InvalidInputError(
        f"{name} is {value!r}; pass a timedelta such as timedelta(days=30), or a datetime with a"
        " time zone."
    )


def time_of(row: AnyRow) -> datetime | None:
    """Return when a checkpoint was made: its `ts`, else its id's time; None if neither says."""
    if row.ts is None or row.ts == "null":
        return time_of_id(row.checkpoint_id)
    return time_said(json.loads(row.ts))


def time_said(stamp: Any) -> datetime | None:
    """Return the time that a `ts` names, in UTC where it names no zone; None if it names none."""
    try:
        time = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (AttributeError, ValueError, OverflowError):
        return None


def time_of_id(checkpoint_id: str) -> datetime | None:
    """Return the time in a UUID of version 6, as RFC 9562 places it; None in any other id."""
    try:
        number = UUID(checkpoint_id)
    except ValueError:
        return None
    if number.version != _UUID6:
        return None
    ticks = number.int >> 80 << 12 | number.int >> 64 & 0xFFF
    return _GREGORIAN + timedelta(microseconds=ticks // 10)


# Choosing


def _is_idle(family: Family, rule: Rule) -> bool:
    since = rule.active_since
    rows = (row for rows in family.values() for row in rows.values())
    return since is not None and all(_is_older(row, since) for row in rows)


def _is_older(row: AnyRow, than: datetime) -> bool:
    time = time_of(row)
    return time is not None and time < than


def _wanted(family: Family, rule: Rule) -> dict[str, set[str]]:
    """Return the checkpoints that a rule keeps, by namespace, without what these need."""
    if _is_idle(family, rule):
        return {namespace: set() for namespace in family}
    if rule.keep is None and rule.since is None:
        return {namespace: set(rows) for namespace, rows in family.items()}
    return {
        namespace: {
            *list(rows)[-(rule.keep or 1) :],
            *(i for i, row in rows.items() if rule.since and not _is_older(row, rule.since)),
        }
        for namespace, rows in family.items()
    }


# What is stored of a thread


class _Parts(NamedTuple):
    """What belongs to a thread's checkpoints, by key."""

    blobs: dict[BlobKey, AnyRow]
    deltas: dict[ChainKey, list[AnyRow]]
    writes: dict[CheckpointKey, AnyRow]


def _parts(connection: Connection, thread_id: str) -> _Parts:
    scope = {"thread_id": thread_id}
    found = _Parts({}, defaultdict(list), {})
    for blob in connection.execute(sql.GET_SIZES, scope):
        found.blobs[thread_id, blob.checkpoint_ns, blob.channel, blob.version] = blob
    for delta in connection.execute(sql.GET_DELTA_SIZES, scope):
        found.deltas[thread_id, delta.checkpoint_ns, delta.channel, delta.chain].append(delta)
    for write in connection.execute(sql.GET_WRITE_SIZES, scope):
        found.writes[thread_id, write.checkpoint_ns, write.checkpoint_id] = write
    return found


def _family(connection: Connection, thread_id: str) -> Family:
    found: Family = defaultdict(dict)
    statement = sql.family(namespace=False, times=True)
    for row in connection.execute(statement, {"thread_id": thread_id}):
        found[row.checkpoint_ns][row.checkpoint_id] = row
    return found


class _Plan(NamedTuple):
    """Which rows of a thread go."""

    checkpoints: Collection[CheckpointKey] = ()
    without_parent: Collection[CheckpointKey] = ()
    """They stay; their parent goes."""
    blobs: Collection[BlobKey] = ()
    chains: Collection[ChainKey] = ()
    """They have changes behind the last value that stays."""
    writes: Collection[CheckpointKey] = ()
    """Those of these checkpoints."""
    size: Deleted = Deleted()


def _sized(parts: _Parts, plan: _Plan) -> _Plan:
    """Add up what goes, with the changes behind the last values that stay; drop other chains."""
    ends: dict[ChainKey, int] = {}
    for key, row in parts.blobs.items():
        if row.chain is not None and key not in plan.blobs:
            chain = (*key[:3], row.chain)
            ends[chain] = max(row.position, ends.get(chain, -1))
    free = {
        chain: rows
        for chain in plan.chains
        if (rows := [row for row in parts.deltas[chain] if row.position > ends.get(chain, -1)])
    }
    goes = plan.checkpoints or plan.blobs or plan.writes or free
    rows = [
        *(parts.blobs[key] for key in plan.blobs),
        *(row for rows in free.values() for row in rows),
    ]
    writes = [parts.writes[key] for key in plan.writes]
    size = Deleted(
        threads=int(bool(goes)),
        checkpoints=len(plan.checkpoints),
        values=len(plan.blobs),
        writes=sum(row.rows for row in writes),
        bytes=sum(int(row.size or 0) for row in rows) + sum(int(row.bytes or 0) for row in writes),
    )
    return plan._replace(chains=free.keys(), size=size)


def _carry_out(connection: Connection, parts: _Parts, plan: _Plan, *, dry_run: bool) -> Deleted:
    plan = _sized(parts, plan)
    if not dry_run:
        repository.delete_checkpoints(
            connection, plan.checkpoints, writes_of=plan.writes, orphans=plan.without_parent
        )
        repository.delete_values(connection, plan.blobs, plan.chains)
    return plan.size


# Steps, each on one thread


def prune_thread(
    connection: Connection, thread_id: str, rule: Rule, *, dry_run: bool = False
) -> Deleted:
    """Delete what a rule doesn't keep, and what only that used.

    One statement where nothing is old; else it reads with six, or some more where there are
    DeltaChannels or thousands of namespaces.
    """
    family = _family(connection, thread_id)
    wanted = _wanted(family, rule)
    if all(ids == rows.keys() for ids, rows in zip(wanted.values(), family.values(), strict=True)):
        return Deleted()
    parts = _parts(connection, thread_id)
    family = _family(connection, thread_id)
    if _is_idle(family, rule):
        keys = {
            (thread_id, namespace, checkpoint_id)
            for namespace, rows in family.items()
            for checkpoint_id in rows
        }
        kept = _used(repository.uses(connection, thread_id, family), keys)
        blobs = parts.blobs.keys() - kept
        plan = _Plan(keys, (), blobs, parts.deltas.keys(), parts.writes.keys())
        return _carry_out(connection, parts, plan, dry_run=dry_run)
    types = {key: row.type for key, row in parts.blobs.items()}
    uses = [*repository.uses(connection, thread_id, family)]
    lines = repository.Lines(connection, thread_id, uses, is_whole=True)
    wanted = _wanted(family, rule)
    stay = repository.kept_of(connection, thread_id, family, types, wanted, lines)
    plan = _without(thread_id, parts, family, stay, uses)
    return _carry_out(connection, parts, plan, dry_run=dry_run)


def _without(
    thread_id: str, parts: _Parts, family: Family, stay: Ids, uses: Iterable[AnyRow]
) -> _Plan:
    """Plan to delete all checkpoints but those that stay."""
    doomed = {
        (thread_id, namespace, checkpoint_id)
        for namespace, rows in family.items()
        for checkpoint_id in rows.keys() - set(stay[namespace])
    }
    without_parent = [
        (thread_id, namespace, checkpoint_id)
        for namespace, ids in stay.items()
        for checkpoint_id in ids
        if (thread_id, namespace, family[namespace][checkpoint_id].parent_checkpoint_id) in doomed
    ]
    used = _used(uses, doomed)
    unused = {key for key in parts.blobs.keys() - used if key[1] in family}
    chains = {(*key[:3], chain) for key in unused if (chain := parts.blobs[key].chain)}
    return _Plan(doomed, without_parent, unused, chains, doomed & parts.writes.keys())


def _used(uses: Iterable[AnyRow], doomed: Collection[Any]) -> set[BlobKey]:
    """Return the values that checkpoints use, those that go left out."""
    return {key for row in uses if row[:3] not in doomed for key in repository.used(row)}


def delete_checkpoints(
    connection: Connection,
    thread_id: str,
    doomed: Collection[tuple[str, str]],
    *,
    dry_run: bool = False,
) -> Deleted:
    """Delete some checkpoints of a thread by (namespace, id), and what only those used."""
    parts = _parts(connection, thread_id)
    family = _family(connection, thread_id)
    stay = {
        namespace: {i for i in rows if (namespace, i) not in doomed}
        for namespace, rows in family.items()
    }
    uses = repository.uses(connection, thread_id, family)
    plan = _without(thread_id, parts, family, stay, uses)
    return _carry_out(connection, parts, plan, dry_run=dry_run)


def delete_thread(connection: Connection, thread_id: str, *, dry_run: bool = False) -> Deleted:
    """Delete all of a thread, whatever it is, and count it."""
    parts = _parts(connection, thread_id)
    family = _family(connection, thread_id)
    keys = [(thread_id, ns, checkpoint_id) for ns, rows in family.items() for checkpoint_id in rows]
    plan = _Plan(keys, (), parts.blobs.keys(), parts.deltas.keys(), parts.writes.keys())
    if not dry_run:
        repository.delete_threads(connection, [thread_id])
    return _sized(parts, plan).size


def vacuum_thread(
    connection: Connection, thread_id: str, before: datetime, *, dry_run: bool = False
) -> Deleted:
    """Delete what no checkpoint refers to and none on its way will.

    - Writes whose checkpoint isn't there and whose id says that it was made before. LangGraph
      stores writes and their checkpoint independently, in either order. An id without a time keeps
      its writes.
    - Values that no checkpoint of their namespace names, and changes behind the last value of a
      chain, in namespaces whose checkpoints are all older. A checkpoint is stored in one
      transaction with the values it brings, and takes the others from one that is there.
    """
    parts = _parts(connection, thread_id)
    family = _family(connection, thread_id)
    used = _used(repository.uses(connection, thread_id, family), ())
    busy = {
        namespace
        for namespace, rows in family.items()
        if not all(_is_older(row, before) for row in rows.values())
    }
    writes = {
        key
        for key in parts.writes
        if key[2] not in family.get(key[1], ())
        and (time := time_of_id(key[2])) is not None
        and time < before
    }
    blobs = {
        key
        for key in parts.blobs.keys() - used
        if key[1] not in busy and not (key[2] == writing.TURN_CHANNEL and key[1] in family)
    }
    chains = {chain for chain in parts.deltas if chain[1] not in busy}
    plan = _Plan(blobs=blobs, chains=chains, writes=writes)
    return _carry_out(connection, parts, plan, dry_run=dry_run)


# Steps, one after another


def threads(
    connection: Connection,
    after: str,
    *,
    orphans: bool = False,
    runs: tuple[Sequence[str], Sequence[str]] | None = None,
) -> list[str]:
    """List a page of threads: those with checkpoints, with any rows, or with checkpoints of runs.

    Args:
        connection: Where to run.
        after: The last thread of the page before; '' for the first one.
        orphans: Whether threads without checkpoints count.
        runs: The runs, as `GET_RUNS` looks for them.
    """
    wanted: dict[str, Any] = {"after": after, "size": _PAGE}
    statement = sql.GET_ALL_THREADS if orphans else sql.GET_THREADS_WITH_CHECKPOINTS
    if runs is not None:
        statement = sql.GET_THREADS_OF_RUNS
        wanted |= {"run_ids": runs[0], "peer_run_ids": runs[1]}
    return [row.thread_id for row in connection.execute(statement, wanted)]


def metadata_of(
    connection: Connection, thread_ids: Sequence[str], filter_json: str | None
) -> list[Stored]:
    """Read the metadata that may match of some threads' checkpoints."""
    statement = sql.metadata_of(filtered=filter_json is not None)
    wanted = {"thread_ids": thread_ids} | ({"filter_json": filter_json} if filter_json else {})
    return [
        Stored(
            key=tuple(row[:3]),
            parent_id=None,
            checkpoint={},
            metadata=said(row.metadata) or {},
            type=row.type,
            exact=None if row.exact is None else bytes(row.exact),
            blobs={},
            writes=[],
            sends=[],
        )
        for row in connection.execute(statement, wanted)
    ]


def going_through(
    thread_ids: Sequence[str] | None,
    step: Callable[..., Deleted],
    report: Report | None = None,
    *,
    orphans: bool = False,
) -> Steps:
    """Yield a step for each thread; take what each returns, and return the sum.

    Args:
        thread_ids: The threads; None is all.
        step: What is done with a connection and a thread.
        report: Called after each step with what went.
        orphans: Whether threads without checkpoints count.
    """
    total = Deleted()
    last = ""
    while True:
        page = thread_ids
        if page is None:
            page = yield partial(threads, after=last, orphans=orphans)
        for thread_id in page:
            deleted = yield partial(step, thread_id=thread_id)
            total = total.plus(deleted)
            if report is not None:
                report(deleted)
        if thread_ids is not None or not page:
            return total
        last = page[-1]


def deleting_where(  # noqa: PLR0913 - one for each option
    filter_json: str | None,
    matches: Callable[[Stored], bool],
    runs: tuple[Sequence[str], Sequence[str]] | None,
    report: Report | None = None,
    *,
    whole_threads: bool,
    dry_run: bool,
) -> Steps:
    """Yield the steps of `delete_where`; take what each returns, and return the sum.

    Args:
        filter_json: What the metadata has, as far as JSON can say it; None if it can't.
        matches: Decides about what was found.
        runs: The run that the metadata names, as `GET_RUNS` looks for it.
        report: Called for each thread of which something went.
        whole_threads: Whether all of a thread goes.
        dry_run: Whether nothing goes.
    """
    total = Deleted()
    last = ""
    while page := (yield partial(threads, after=last, runs=runs)):
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for stored in (yield partial(metadata_of, thread_ids=page, filter_json=filter_json)):
            if matches(stored):
                found[stored.key[0]].add(stored.key[1:])
        for thread_id in page:
            if not (doomed := found.get(thread_id)):
                continue
            if whole_threads:
                step = partial(delete_thread, thread_id=thread_id, dry_run=dry_run)
            else:
                step = partial(
                    delete_checkpoints, thread_id=thread_id, doomed=doomed, dry_run=dry_run
                )
            deleted = yield step
            total = total.plus(deleted)
            if report is not None:
                report(deleted)
        last = page[-1]
    return total
