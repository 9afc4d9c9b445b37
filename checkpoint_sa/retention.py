"""The options of `prune`, `delete_where` and `vacuum_orphans`, as steps.

A step deletes rows of one thread, in a transaction of its own. So the same call continues after an
interruption. The steps are functions of `deleting`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from checkpoint_sa import codec
from checkpoint_sa.errors import InvalidInputError
from checkpoint_sa.repository import deleting, threads
from checkpoint_sa.repository.deleting import KEEP_LATEST, Deleted, Rule
from checkpoint_sa.sql import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy import Connection, Table

    from checkpoint_sa.repository.threads import Steps
    from checkpoint_sa.rows import Stored

    Moment: TypeAlias = timedelta | datetime
    """An age, or a time."""
    Report: TypeAlias = Callable[[Deleted], object]

GRACE = timedelta(days=1)
"""The time after its writes in which a checkpoint may still arrive, by default."""

_PAGE = 20
"""The number of threads that are listed at a time, and searched for metadata."""

_STRATEGIES: dict[str, Callable[..., Deleted]] = {
    "keep_latest": deleting.prune_thread,
    "delete": deleting.delete_thread,
    "delete_all": deleting.delete_thread,  # as LangGraph's server calls it
}


def rule(
    *,
    keep: int | None,
    older_than: Moment | None,
    idle_for: Moment | None,
) -> Rule | None:
    """Return the rule for the options of `prune`; None without an option.

    Raises:
        InvalidInputError: `keep` isn't a number from 1 on, or an age or time is invalid.
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
        None if older_than is None else cutoff("older_than", older_than),
        None if idle_for is None else cutoff("idle_for", idle_for),
    )


def cutoff(name: str, value: Moment) -> datetime:
    """Return the time that an age means now, or the time itself.

    Raises:
        InvalidInputError: It is neither an age nor a time, or has no time zone.
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


def prune(  # noqa: PLR0913 - an argument for each option
    thread_ids: Sequence[str] | None,
    *,
    strategy: str,
    older_than: Moment | None,
    idle_for: Moment | None,
    keep: int | None,
    dry_run: bool = False,
    report: Report | None = None,
) -> Steps[Deleted]:
    """Return the steps of `prune`, or with `dry_run` of `prunable`.

    Raises:
        InvalidInputError: An option is wrong, options contradict each other, or neither threads nor
            an option is given.
    """
    if strategy not in _STRATEGIES:
        raise InvalidInputError(
            f"There is no prune strategy {strategy!r}; there are"
            f" {', '.join(map(repr, _STRATEGIES))}."
        )
    found = rule(keep=keep, older_than=older_than, idle_for=idle_for)
    ids = None if thread_ids is None else codec.thread_ids(thread_ids)
    step = _STRATEGIES[strategy]
    if found is not None and step is deleting.delete_thread:
        raise InvalidInputError(
            f"{strategy=} keeps nothing, so it can't be combined with older_than, idle_for or"
            " keep. To delete whole threads that aren't used any more, pass idle_for alone."
        )
    if found is None and ids is None:
        raise InvalidInputError(
            "prune() has neither threads nor an option. Pass thread_ids, or for all threads one of"
            " older_than, idle_for and keep; keep=1 does the same as 'keep_latest'."
        )
    if step is deleting.prune_thread:
        step = partial(step, rule=found or KEEP_LATEST)
    measure = found is not None or dry_run or report is not None
    return for_each_thread(ids, partial(step, measure=measure, dry_run=dry_run), report)


def delete_where(
    serde: SerializerProtocol,
    metadata: Mapping[str, Any],
    *,
    whole_threads: bool,
    dry_run: bool,
    report: Report | None,
) -> Steps[Deleted]:
    """Return the steps of `delete_where`.

    Raises:
        InvalidInputError: `metadata` is empty, or isn't a mapping.
    """
    if not isinstance(metadata, Mapping) or not metadata:
        found = "empty" if isinstance(metadata, Mapping) else f"a {type(metadata).__name__}"
        raise InvalidInputError(
            f"metadata is {found}; pass a dict with an entry, such as {{'user_id': 'ann'}}."
            " Empty metadata would match every thread."
        )

    def matches(stored: Stored) -> bool:
        return codec.matches(codec.load_metadata(serde, stored), metadata)

    run = metadata.get("run_id")
    return _deleting_where(
        codec.criteria(None, None, metadata).filter_json,
        matches,
        codec.run_ids([run]) if isinstance(run, str) else None,
        report,
        whole_threads=whole_threads,
        dry_run=dry_run,
    )


def vacuum_orphans(older_than: Moment, *, dry_run: bool, report: Report | None) -> Steps[Deleted]:
    """Return the steps of `vacuum_orphans`.

    Raises:
        InvalidInputError: `older_than` isn't an age or a time.
    """
    before = cutoff("older_than", older_than)
    step = partial(deleting.vacuum_thread, before=before, dry_run=dry_run)
    return for_each_thread(None, step, report, tables=tables.TABLES)


# Steps, one after another


def for_each_thread(
    thread_ids: Sequence[str] | None,
    step: Callable[..., Deleted],
    report: Report | None = None,
    *,
    tables: Sequence[Table] = (tables.checkpoints,),
) -> Steps[Deleted]:
    """Yield a step for each thread; receive the result of each, and return the sum.

    Args:
        thread_ids: The threads; None means all threads.
        step: A function of a connection and a thread.
        report: Called after each step with its result.
        tables: For all threads: only threads with rows in any of these tables.
    """

    def of_thread(thread_id: str) -> Steps[Deleted]:
        deleted: Deleted = yield _counted_once(partial(step, thread_id=thread_id))
        if report is not None:
            report(deleted)
        return deleted

    return threads.for_each(thread_ids, of_thread, Deleted(), tables=tables)


def _counted_once(step: Callable[[Connection], Deleted]) -> Callable[[Connection], Deleted]:
    """Return a step that returns the counts of the attempt that deleted rows.

    If the answer to a commit is lost, the next attempt finds nothing left to delete.
    """
    counted = Deleted()

    def attempt(connection: Connection) -> Deleted:
        nonlocal counted
        deleted = step(connection)
        if any(deleted):
            counted = deleted
        return counted

    return attempt


def _deleting_where(  # noqa: PLR0913 - an argument for each option
    filter_json: str | None,
    matches: Callable[[Stored], bool],
    runs: tuple[Sequence[str], Sequence[str]] | None,
    report: Report | None = None,
    *,
    whole_threads: bool,
    dry_run: bool,
) -> Steps[Deleted]:
    """Yield the steps of `delete_where`; receive the result of each, and return the sum.

    Args:
        filter_json: The part of the metadata that the engine can compare; None without such a part.
        matches: Decides whether a found checkpoint matches.
        runs: The run that the metadata names, as `GET_RUNS` looks for it.
        report: Called after each thread that has a matching checkpoint.
        whole_threads: Whether threads are deleted as a whole.
        dry_run: Whether to count only.
    """
    total = Deleted()
    last: str | None = None
    while page := (yield partial(threads.list_ids, size=_PAGE, after=last, runs=runs)):
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for stored in (
            yield partial(deleting.metadata_of, thread_ids=page, filter_json=filter_json)
        ):
            if matches(stored):
                found[stored.key[0]].add(stored.key[1:])
        for thread_id in page:
            if not (to_delete := found.get(thread_id)):
                continue
            step = (
                deleting.delete_thread
                if whole_threads
                else partial(deleting.delete_checkpoints, to_delete=to_delete)
            )
            deleted = yield _counted_once(partial(step, thread_id=thread_id, dry_run=dry_run))
            total += deleted
            if report is not None:
                report(deleted)
        last = page[-1]
    return total
