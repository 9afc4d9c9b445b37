"""What the savers of both colours share; no database is opened here."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy import Connection, Engine

from checkpoint_sa import (
    chains,
    codec,
    engines,
    migrate,
    overview,
    raw,
    repository,
    retention,
    retry,
    turns,
)
from checkpoint_sa.encryption import AESGCMSerializer
from checkpoint_sa.errors import CorruptDataError, InvalidInputError
from checkpoint_sa.incremental import Chained, Tails, is_worth_it, since

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager

    from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointTuple
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from typing_extensions import Self

    from checkpoint_sa.incremental import Tail
    from checkpoint_sa.retention import Moment, Report, Steps

P = ParamSpec("P")
T = TypeVar("T")
Rows = TypeVar("Rows", codec.CheckpointRows, chains.Changes)

_FIRST_PAGE = 10
_LARGEST_PAGE = 100
"""PostgreSQL compiles the statement of a larger page at each execution: 270 ms instead of 48."""
_PAGE_BYTES = 8 * 2**20


class BaseSaver(BaseCheckpointSaver[str]):
    """A saver's settings, and how one operation runs on its engine or connection."""

    keeps_latest_only = False

    def __init__(  # noqa: PLR0913 - one for each setting
        self,
        bind: Engine | Connection,
        *,
        serde: SerializerProtocol | None,
        schema: str | None,
        incremental: bool,
        retry_seconds: float,
        check_parent: bool,
    ) -> None:
        super().__init__(serde=serde)
        self.schema = schema
        self.retry_seconds = retry_seconds
        self.check_parent = check_parent
        self.tails = Tails(keeps_past=not self.keeps_latest_only) if incremental else None
        self._verified = False
        self._counts = retry.Counts()
        self._owner = bind
        self._dialect = bind.dialect
        self._connection: Connection | None = None
        self._turns: AbstractContextManager[None] = nullcontext()
        if isinstance(bind, Engine):
            self._turns = turns.of(bind)
            engines.check_engine(bind)
            engine = engines.in_schema(bind, schema)
            self._once = engines.at_once(engine)
            self._writing = engines.writing(engine)
            self._commits_at_once = engines.is_autocommit(self._once) and not engines.begins(engine)
        else:
            engines.check_connection(bind)
            self._connection = bind
            self._commits_at_once = False

    def get_next_version(self, current: str | float | None, channel: None = None) -> str:  # noqa: ARG002
        """Return a version greater than `current`: a counter and a random part."""
        return codec.next_version(current)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """Return a clone whose serializer may make more classes, for LangGraph's strict mode."""
        if not isinstance(self.serde, AESGCMSerializer):
            return cast("Self", super().with_allowlist(extra_allowlist))
        clone = copy.copy(self)
        clone.serde = self.serde.with_msgpack_allowlist(extra_allowlist)
        return clone

    @property
    def metrics(self) -> retry.Metrics:
        """Counts since the saver was made, and the state of its pool."""
        counts, pool = self._counts, self._owner.engine.pool
        checked_out = getattr(pool, "checkedout", None)
        with counts.lock:
            return retry.Metrics(
                counts.operations,
                counts.retries,
                counts.failures,
                counts.slow,
                checked_out() if checked_out else None,
                pool.status(),
            )

    def _run_read(
        self,
        function: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one operation that reads, or that one statement does."""
        result: T = self._run(self._read_once, function, *args, **kwargs)
        return result

    def _run_write(
        self,
        function: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one operation that writes: in a savepoint where the transaction is the caller's."""
        result: T = self._run(self._write_once, function, *args, **kwargs)
        return result

    def _run(
        self, once: Callable[..., Any], function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run one operation, again if need be: each of them may be done twice.

        What the caller's transaction is part of isn't tried again.
        """
        # The steps of some are made as they go.
        name = _METHODS.get(getattr(function, "func", function), "rewrite")
        seconds = self.retry_seconds if self._connection is None else 0.0
        with retry.Operation(name, self._counts, seconds) as operation:
            while True:
                try:
                    with self._turns:
                        return once(function, *args, **kwargs)
                except Exception as error:
                    pause = operation.pause(error, has_worked=self._verified)
                    if pause is None:
                        raise
                engines.pause(self._owner, pause)

    def _read_once(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if not self._verified:
            self._verify()
        if self._connection is not None:
            with engines.joined(self._connection, schema=self.schema):
                return function(self._connection, *args, **kwargs)
        with engines.connected(self._once) as connection:
            return function(connection, *args, **kwargs)

    def _write_once(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if not self._verified:
            self._verify()
        if self._connection is not None:
            with engines.joined(self._connection, schema=self.schema):
                engines.begin_write(self._connection)
                with self._connection.begin_nested():
                    return function(self._connection, *args, **kwargs)
        with engines.connected(self._writing) as connection, engines.writes(connection):
            return function(connection, *args, **kwargs)

    def _run_put(self, rows: codec.CheckpointRows) -> None:
        """Store a checkpoint."""
        store = store_only_checkpoint if self.keeps_latest_only else store_checkpoint
        self._run_store(store, rows, at_once=repository.puts_at_once(self._dialect, rows.blobs))

    def _run_put_writes(self, rows: Sequence[dict[str, Any]]) -> None:
        """Store a task's writes."""
        if self._commits_at_once and repository.puts_writes_at_once(self._dialect, rows):
            self._run_read(store_writes, rows)
        else:
            self._run_write(store_writes, rows)

    def _run_put_changes(self, changes: chains.Changes) -> None:
        """Store a checkpoint, with values as what changed."""
        store = store_only_changes if self.keeps_latest_only else store_changes
        self._run_store(store, changes, at_once=chains.puts_at_once(self._dialect, changes))

    def _run_put_missing(self, changes: chains.Changes) -> None:
        """Store a checkpoint of which some values may be there already: the second attempt."""
        self._counts.failed_first()
        store = store_only_changes if self.keeps_latest_only else store_changes
        self._run_store(partial(store_missing, store=store), changes, at_once=False)

    def _run_store(
        self, store: Callable[[Connection, Rows], None], rows: Rows, *, at_once: bool
    ) -> None:
        """Store a checkpoint's rows: one statement that commits itself needs no transaction."""
        if self.check_parent:
            self._run_write(store_next_checkpoint, store, rows)
        elif at_once and self._commits_at_once and not self.keeps_latest_only:
            self._run_read(store, rows)
        else:
            self._run_write(store, rows)

    @property
    def incremental(self) -> bool:
        """Whether values are stored as what changed."""
        return self.tails is not None

    def _known(
        self, thread_id: str, checkpoint_ns: str, _: str | None = None
    ) -> Sequence[Tail] | None:
        """Return values that needn't be read; None if only other savers store what changed."""
        return None if self.tails is None else self.tails.known(thread_id, checkpoint_ns)

    def _as_changes(self, rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """Make writes what changed since the values of their checkpoint, where these are known."""
        if self.tails is None or codec.encrypts(self.serde) or not rows:
            return rows
        key = (rows[0]["thread_id"], rows[0]["checkpoint_ns"], rows[0]["checkpoint_id"])
        known = self.tails.of(*key) or {}
        return [since(row, known.get(row["channel"])) for row in rows]

    def _loaded(self, stored: repository.Stored) -> CheckpointTuple:
        """Make LangGraph's tuple, and remember what a next checkpoint's values may resemble."""
        loaded = codec.load_checkpoint(self.serde, stored)
        if self.tails is not None:
            known = self.tails.of(*stored.key)
            if known is None or is_outdated(known, stored):
                self.tails.remember(*stored.key, tails_of(stored))
        return loaded

    def _verify(self) -> None:
        """Check the schema's revision, at the saver's first use."""
        if self._connection is not None:
            migrate.verify(self._connection, schema=self.schema)
        else:
            with self._writing.connect() as connection:
                migrate.verify(connection, schema=self.schema)
        self._verified = True


class Paging:
    """Where `list` stands, and how many checkpoints its next page may have."""

    def __init__(
        self, criteria: repository.Criteria, filter: Mapping[str, Any] | None, limit: int | None
    ) -> None:
        self._criteria = criteria
        self._filter = filter
        self._limit = limit
        self._size = _FIRST_PAGE
        self._last: repository.CheckpointKey | None = None
        self.unfinished = limit is None or limit > 0

    @property
    def position(self) -> tuple[repository.Criteria, int, repository.CheckpointKey | None]:
        """Return the arguments of `repository.page`."""
        size = self._size
        if self._limit is not None and not self._filter:
            size = min(size, self._limit)
        return self._criteria, size, self._last

    def take(
        self,
        serde: SerializerProtocol,
        page: Sequence[repository.Stored],
        last: repository.CheckpointKey | None,
    ) -> list[repository.Stored]:
        """Move past a page and return what matches of it.

        The size of the next page follows from the bytes of this one: many small checkpoints at a
        time, or few large ones.
        """
        matching = [
            stored
            for stored in page
            if codec.matches(codec.load_metadata(serde, stored), self._filter)
        ][: self._limit]
        if self._limit is not None:
            self._limit -= len(matching)
        self._last = last
        self.unfinished = last is not None and self._limit != 0
        average = sum(map(size_of, page)) // max(1, len(page))
        self._size = max(1, min(_LARGEST_PAGE, _PAGE_BYTES // max(1, average)))
        return matching


class ThreadPaging:
    """Where `threads` stands."""

    def __init__(
        self, where: Mapping[str, Any] | None, after: str | None, limit: int | None
    ) -> None:
        self._where = where
        self._filter_json = codec.criteria(None, None, where).filter_json
        self._after = None if after is None else codec.thread_id(after)
        self._last: repository.CheckpointKey | None = None
        self._limit = limit
        self.unfinished = limit is None or limit > 0

    @property
    def position(self) -> overview.Position:
        """Return where the next page begins."""
        size = _LARGEST_PAGE
        if self._limit is not None and not self._where:
            size = min(size, self._limit)
        return overview.Position(
            bool(self._where), self._filter_json, self._after, self._last, size
        )

    def take(self, serde: SerializerProtocol, page: Sequence[repository.Stored]) -> list[str]:
        """Move past a page and return the threads that match of it."""
        size = self.position.size
        matching = {
            stored.key[0]: None
            for stored in page
            if codec.matches(codec.load_metadata(serde, stored), self._where)
        }
        found = list(matching)[: self._limit]
        if self._limit is not None:
            self._limit -= len(found)
        self.unfinished = len(page) == size and self._limit != 0
        if page:  # of a thread that matches, nothing more is read
            self._after = page[-1].key[0]
            self._last = None if self._after in matching else page[-1].key
        return found


def size_of(stored: repository.Stored) -> int:
    """Return the bytes of a checkpoint's values and writes."""
    values = sum(len(blob) for _, blob in stored.blobs.values())
    return 1024 + values + sum(len(write.blob) for write in stored.writes)


def store_checkpoint(connection: Connection, rows: codec.CheckpointRows) -> None:
    """Store a checkpoint."""
    engines.check_size(connection, [*rows.blobs, rows.checkpoint])
    repository.put(connection, rows.checkpoint, rows.blobs)


def store_only_checkpoint(connection: Connection, rows: codec.CheckpointRows) -> None:
    """Store a checkpoint and delete what it replaces in its namespace."""
    engines.check_size(connection, [*rows.blobs, rows.checkpoint])
    repository.put_only(connection, rows.checkpoint, rows.blobs)


def store_next_checkpoint(
    connection: Connection, store: Callable[[Connection, Rows], None], rows: Rows
) -> None:
    """Store a checkpoint where its parent is the latest one."""
    repository.expect_latest(connection, rows.checkpoint)
    store(connection, rows)


def store_changes(connection: Connection, changes: chains.Changes) -> None:
    """Store a checkpoint, with values as what changed."""
    engines.check_size(connection, [*changes.blobs, *changes.changed, changes.checkpoint])
    chains.put(connection, changes)


def store_only_changes(connection: Connection, changes: chains.Changes) -> None:
    """Store a checkpoint, with values as what changed, and delete what it replaces."""
    store_changes(connection, changes)
    repository.keep_latest(connection, *changes.namespace)


def store_missing(
    connection: Connection,
    changes: chains.Changes,
    store: Callable[[Connection, chains.Changes], None],
) -> None:
    """Store a checkpoint of which some values may be there already."""
    store(connection, chains.without_stored(connection, changes))


class Change:
    """What one `put` has to store, given the values that the checkpoint's parent has.

    These are looked up in memory, or else in the database, so that storage never grows with the
    square for want of memory. Storing fails where one of them is gone or has been appended to, and
    where a value is there already: `afresh`, what isn't there is stored as a whole.
    """

    def __init__(
        self,
        tails: Tails,
        rows: codec.CheckpointRows,
        checkpoint: Checkpoint,
        new_versions: ChannelVersions,
    ) -> None:
        self._tails = tails
        self._rows = rows
        self._versions = checkpoint["channel_versions"], new_versions
        row = rows.checkpoint
        self._key = row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"]
        self._parent = row["parent_checkpoint_id"]
        self._known = tails.of(*self._key[:2], self._parent) if self._parent else {}
        self.size = sum(len(blob["blob"]) for blob in rows.blobs)

    @property
    def unknown(self) -> tuple[str, str, str] | None:
        """The checkpoint that must be read before; None if there is none."""
        if self._known is None and any(map(is_worth_it, self._rows.blobs)):
            return *self._key[:2], self._parent
        return None

    def find(self, parent: repository.Stored | None) -> chains.Changes:
        """Find what changed since the parent, which was read if it was unknown.

        A task's writes may be there before the checkpoint is stored: what it has of its parent's
        values is remembered at once.
        """
        if parent is not None:
            self._known = tails_of(parent)
        changes = self._since(self._known or {})
        new = {row["channel"] for row in changes.changed}
        kept = {channel: tail for channel, tail in changes.tails.items() if channel not in new}
        self._tails.remember(*self._key, kept)
        return changes

    def afresh(self) -> chains.Changes:
        """Forget what was known; return everything, as whole values."""
        self._tails.forget(*self._key[:2])
        return self._since({})

    def _since(self, known: Mapping[str, Tail]) -> chains.Changes:
        return chains.changes(
            self._rows.checkpoint,
            self._rows.blobs,
            *self._versions,
            known,
            keeps_past=self._tails.keeps_past,
        )

    def stored(self, changes: chains.Changes) -> None:
        """Remember what was stored."""
        self._tails.remember(*self._key, changes.tails)


def tails_of(stored: repository.Stored) -> dict[str, Tail]:
    """Return what the values of a checkpoint end in, without those that can't be read."""
    tails = {}
    for channel, (_, blob) in stored.blobs.items():
        if isinstance(blob, Chained):
            with suppress(CorruptDataError):
                tails[channel] = blob.tail()
    return tails


def is_outdated(tails: Mapping[str, Tail], stored: repository.Stored) -> bool:
    """Whether a checkpoint has other values than those known of it, or has them elsewhere."""
    return any(
        isinstance(blob, Chained) and (channel not in tails or tails[channel].place != blob.place)
        for channel, (_, blob) in stored.blobs.items()
    )


def store_writes(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Store a task's writes."""
    engines.check_size(connection, rows)
    repository.put_writes(connection, rows)


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


_METHODS: dict[Callable[..., object], str] = {
    repository.get: "get_tuple",
    repository.page: "list",
    repository.delta_history: "get_delta_channel_history",
    overview.page: "threads",
    overview.summaries: "threads",
    overview.thread: "thread",
    overview.table_sizes: "table_sizes",
    overview.channel_sizes: "channel_sizes",
    raw.page: "copy",
    raw.checkpoint_keys: "copy",
    raw.store: "copy",
    store_checkpoint: "put",
    store_changes: "put",
    store_only_changes: "put",
    store_missing: "put",
    store_only_checkpoint: "put",
    store_next_checkpoint: "put",
    store_writes: "put_writes",
    repository.delete_threads: "delete_thread",
    repository.delete_runs: "delete_for_runs",
    repository.copy_thread: "copy_thread",
    repository.keep_latest: "prune",
    _delete_thread: "prune",
    retention.prune_thread: "prune",
    retention.delete_thread: "delete_where",
    retention.delete_checkpoints: "delete_where",
    retention.vacuum_thread: "vacuum_orphans",
    retention.metadata_of: "list",
    retention.threads: "list",
}
"""What an operation is called in logs, errors and traces."""
