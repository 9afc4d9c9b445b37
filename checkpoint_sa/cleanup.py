"""What the options of `prune`, `delete_where` and `vacuum_orphans` mean, as steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from checkpoint_sa import codec, repository, retention
from checkpoint_sa.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy import Connection

    from checkpoint_sa.retention import Moment, Report, Steps


def prune_strategy(name: str) -> Callable[[Connection, str], None]:
    """Return what a strategy does to one thread.

    Raises:
        InvalidInputError: There is no such strategy.
    """
    strategies: dict[str, Callable[[Connection, str], None]] = {
        "keep_latest": repository.keep_latest,
        "delete": _delete_thread,
        "delete_all": _delete_thread,  # what LangGraph's server calls it
    }
    if name not in strategies:
        raise InvalidInputError(
            f"There is no prune strategy {name!r}; there are {', '.join(map(repr, strategies))}."
        )
    return strategies[name]


def _delete_thread(connection: Connection, thread_id: str) -> None:
    repository.delete_threads(connection, [thread_id])


def pruning(  # noqa: PLR0913 - one for each option
    thread_ids: Sequence[str] | None,
    *,
    strategy: str,
    older_than: Moment | None,
    idle_for: Moment | None,
    keep: int | None,
    dry_run: bool = False,
    report: Report | None = None,
) -> Steps:
    """Return the steps of `prune`, or with `dry_run` of `prunable`.

    Raises:
        InvalidInputError: An option is wrong, options contradict each other, or no thread is named
            where all of them must be meant.
    """
    prune = prune_strategy(strategy)
    rule = retention.rule(keep=keep, older_than=older_than, idle_for=idle_for)
    ids = None if thread_ids is None else codec.thread_ids(thread_ids)
    deletes = prune is _delete_thread
    if rule is not None and deletes:
        raise InvalidInputError(
            f"{strategy=} keeps nothing, so it goes with none of older_than, idle_for and"
            " keep. For whole threads that nobody uses any more, pass idle_for alone."
        )
    if rule is None and ids is None:
        raise InvalidInputError(
            "prune() has neither threads nor an option. Pass thread_ids, or for all threads one of"
            " older_than, idle_for and keep; keep=1 is what 'keep_latest' does."
        )
    if rule is None and not dry_run and report is None:
        return _uncounted(ids or [], prune)
    if rule is None and deletes:
        return retention.going_through(
            ids, partial(retention.delete_thread, dry_run=dry_run), report
        )
    rule = rule or retention.Rule(keep=1)
    step = partial(retention.prune_thread, rule=rule, dry_run=dry_run)
    return retention.going_through(ids, step, report)


def _uncounted(thread_ids: Sequence[str], prune: Callable[[Connection, str], None]) -> Steps:
    for thread_id in thread_ids:
        yield partial(prune, thread_id=thread_id)  # type: ignore[call-arg]
    return retention.Deleted()


def deleting_where(
    serde: SerializerProtocol,
    metadata: Mapping[str, Any],
    *,
    whole_threads: bool,
    dry_run: bool,
    report: Report | None,
) -> Steps:
    """Return the steps of `delete_where`.

    Raises:
        InvalidInputError: `metadata` is empty, or isn't a mapping.
    """
    if not isinstance(metadata, Mapping) or not metadata:
        found = "empty" if isinstance(metadata, Mapping) else f"a {type(metadata).__name__}"
        raise InvalidInputError(
            f"metadata is {found}; pass a dict with an entry, such as {{'user_id': 'ann'}}."
            " An empty one would mean every thread."
        )

    def matches(stored: repository.Stored) -> bool:
        return codec.matches(codec.load_metadata(serde, stored), metadata)

    run = metadata.get("run_id")
    return retention.deleting_where(
        codec.criteria(None, None, metadata).filter_json,
        matches,
        codec.run_ids([run]) if isinstance(run, str) else None,
        report,
        whole_threads=whole_threads,
        dry_run=dry_run,
    )


def vacuuming(older_than: Moment, *, dry_run: bool, report: Report | None) -> Steps:
    """Return the steps of `vacuum_orphans`.

    Raises:
        InvalidInputError: `older_than` isn't an age or a time.
    """
    before = retention.moment("older_than", older_than)
    step = partial(retention.vacuum_thread, before=before, dry_run=dry_run)
    return retention.going_through(None, step, report, orphans=True)
