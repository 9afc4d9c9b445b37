"""The savers' operations, each written once; `saver` and `aio` say how a call of one runs.

An operation is a plain synchronous method. `SQLAlchemySaver` calls it, or has a thread do so;
`AsyncSQLAlchemySaver` runs it in a greenlet of SQLAlchemy's, in which the driver can await.
"""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy.exc import IntegrityError

from checkpoint_sa import codec, retention
from checkpoint_sa.calls import THREAD_BYTES, Calls
from checkpoint_sa.database import Database
from checkpoint_sa.deltas.cache import BaseCache
from checkpoint_sa.deltas.encoding import (
    OutdatedError,
    PutEncoder,
    bases_of,
    encode_write,
    is_outdated,
)
from checkpoint_sa.encryption import AESGCMSerializer
from checkpoint_sa.engine.statements import execute
from checkpoint_sa.paging import Paging, ThreadPaging, size_of
from checkpoint_sa.repository import (
    copying,
    deleting,
    history,
    reading,
    rewriting,
    statistics,
    writing,
)
from checkpoint_sa.retention import GRACE

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Collection,
        Generator,
        Iterator,
        Mapping,
        Sequence,
    )

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy import Connection, Engine
    from typing_extensions import Self

    from checkpoint_sa.engine.retry import Metrics
    from checkpoint_sa.engine.statements import Statement
    from checkpoint_sa.repository.deleting import Deleted
    from checkpoint_sa.repository.statistics import ThreadSummary
    from checkpoint_sa.retention import Moment, Report
    from checkpoint_sa.rows import CheckpointRows, Stored

P = ParamSpec("P")
T = TypeVar("T")
Steps: TypeAlias = "Generator[Callable[[Connection], Any], Any, T]"
"""The parts of an operation, each a transaction of its own; their results are sent back."""


class BaseSaver(Calls, BaseCheckpointSaver[str]):
    """Every operation of the savers.

    Attributes:
        database: The engine or connection, and how an operation runs on it.
        check_parent: Whether `put` refuses a checkpoint whose parent isn't the latest one.
        cache: The values against which the next ones are encoded; None if values are stored whole.
    """

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
        self.database = Database(bind, schema=schema, retry_seconds=retry_seconds)
        self.check_parent = check_parent
        self.cache = BaseCache(keeps_removed=not self.keeps_latest_only) if incremental else None

    @property
    def schema(self) -> str | None:
        """Schema of the tables; None is the connection's own."""
        return self.database.schema

    @property
    def retry_seconds(self) -> float:
        """For how long an operation is tried again after its first failure."""
        return self.database.retry_seconds

    @retry_seconds.setter
    def retry_seconds(self, seconds: float) -> None:
        self.database.retry_seconds = seconds

    @property
    def incremental(self) -> bool:
        """Whether values are stored as deltas."""
        return self.cache is not None

    @property
    def metrics(self) -> Metrics:
        """Counts since the saver was made, its clones included, and the state of its pool."""
        return self.database.metrics

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

    # Reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read one checkpoint with its values and pending writes.

        Args:
            config: Names a thread, and a checkpoint or, without `checkpoint_id`, the latest of
                the namespace (`checkpoint_ns`, '' by default).

        Returns:
            The checkpoint, or None if there is none.

        Raises:
            InvalidInputError: The config has no `thread_id`, or an id that can't be stored.
            SchemaError: The tables aren't those of this release.
            CorruptDataError: A stored value can't be deserialized.
        """
        return self._call(self._get_tuple, config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple`, async."""
        return await self._acall(self._get_tuple, config)

    def _get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id, checkpoint_ns, checkpoint_id = codec.address(config)
        if self.keeps_latest_only:
            # An application may keep the config of an open question, and resume the graph with it
            # twice: the checkpoint was replaced, and the latest one continues it.
            checkpoint_id = None
        stored = self._stored("get_tuple", thread_id, checkpoint_ns, checkpoint_id)
        if stored is None:
            return None
        return self._offload(partial(size_of, stored), self._loaded, stored)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Iterate over checkpoints, newest first.

        They are read in pages; no connection is held in between. A checkpoint that is stored or
        deleted meanwhile may or may not be seen; each one that is seen is whole.

        Args:
            config: Limits to its `thread_id`, `checkpoint_ns` and `checkpoint_id`, those that it
                has; None lists all threads.
            filter: Metadata that a checkpoint must have. A dict matches as a subset, other values
                by JSON equality: 1 is not true, 1 equals 1.0, null is not a missing key.
            before: Only checkpoints with a smaller id than its `checkpoint_id`.
            limit: How many at the most.

        Raises:
            InvalidInputError: An id can't be stored, or `filter` isn't a dict.
        """
        return self._iterate(Paging(codec.criteria(config, before, filter), filter, limit))

    def _iterate(self, paging: Paging) -> Iterator[CheckpointTuple]:
        while paging.unfinished:
            # One at a time: a page of them alive at once keeps Python's collector busy.
            for stored in self._call(self._list, paging):
                yield codec.load_checkpoint(self.serde, stored)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, async."""
        paging = Paging(codec.criteria(config, before, filter), filter, limit)
        size = 0
        while paging.unfinished:
            for stored in await self._acall(self._list, paging):
                size += size_of(stored)
                if size < THREAD_BYTES:
                    yield codec.load_checkpoint(self.serde, stored)
                else:  # many small ones must not hold up the event loop either
                    yield await asyncio.to_thread(codec.load_checkpoint, self.serde, stored)
                    size = 0

    def _list(self, paging: Paging) -> Sequence[Stored]:
        page = self.database.read("list", reading.page, *paging.position)
        return paging.take(self.serde, *page)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Read the history of DeltaChannels: the nearest stored value, and the writes since.

        Args:
            config: Names the checkpoint whose ancestors are walked.
            channels: Names of the channels.

        Returns:
            An entry for each channel: `writes`, oldest first, and `seed` where there is one.
        """
        return self._call(self._get_delta_channel_history, config, channels)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`get_delta_channel_history`, async."""
        return await self._acall(self._get_delta_channel_history, config, channels)

    def _get_delta_channel_history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        if not channels:
            return {}
        found = self.database.read(
            "get_delta_channel_history",
            history.delta_history,
            *codec.address(config),
            codec.channels(channels),
        )

        def size() -> int:
            return sum(len(write.blob) for history in found.values() for write in history.writes)

        return self._offload(size, codec.load_history, self.serde, config, found)

    def threads(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[ThreadSummary]:
        """Iterate over summaries of the threads, in the database's order of their ids.

        They are read in pages; no connection is held in between, and no value is read.

        Args:
            where: Metadata that one of its checkpoints must have, as `filter` of `list`.
            after: Only threads behind this one, which needn't be there.
            limit: How many at the most.

        Raises:
            InvalidInputError: An id can't be stored, or `where` isn't a dict.
        """
        return self._iterate_threads(ThreadPaging(where, after, limit))

    def _iterate_threads(self, paging: ThreadPaging) -> Iterator[ThreadSummary]:
        while paging.unfinished:
            yield from self._call(self._threads, paging)

    async def athreads(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[ThreadSummary]:
        """`threads`, async."""
        paging = ThreadPaging(where, after, limit)
        while paging.unfinished:
            for item in await self._acall(self._threads, paging):
                yield item

    def _threads(self, paging: ThreadPaging) -> Sequence[ThreadSummary]:
        page = self.database.read("threads", statistics.page, paging.position)
        found = paging.take(self.serde, page)
        return self.database.read("threads", statistics.summaries, found) if found else []

    # Writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, as a whole or not at all.

        Storing an id again updates the checkpoint and its metadata; parent and values stay.

        Args:
            config: Names the thread, the namespace and, as `checkpoint_id`, the parent.
            checkpoint: The checkpoint.
            metadata: Stored beside it, joined with the metadata of the config.
            new_versions: Versions of the channels that changed: their values are stored.

        Returns:
            The config that names the stored checkpoint.

        Raises:
            InvalidInputError: An id or a version can't be stored.
            ParentConflictError: With `check_parent`, another writer has gone on meanwhile.
            ValueTooLargeError: A value is larger than the server takes.
        """
        return self._call(self._put, config, checkpoint, metadata, new_versions)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put`, async."""
        return await self._acall(self._put, config, checkpoint, metadata, new_versions)

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        rows = self._offload(
            partial(codec.estimate_size, checkpoint["channel_values"]),
            codec.dump_checkpoint,
            self.serde,
            config,
            checkpoint,
            metadata,
            new_versions,
        )
        if self.cache is not None and not codec.encrypts(self.serde):
            self._put_deltas(PutEncoder(self.cache, rows, checkpoint, new_versions))
        else:
            self._store(rows)
        return rows.config

    def _put_deltas(self, encoder: PutEncoder) -> None:
        """Store a checkpoint, with values as deltas against those of its parent."""
        parent = self._stored("put", *encoder.uncached) if encoder.uncached else None
        rows = self._offload(lambda: encoder.size, encoder.encode, parent)
        try:
            self._store(rows)
        except (IntegrityError, OutdatedError):
            rows = self._offload(lambda: encoder.size, encoder.encode_whole)
            self.database.counts.failed_first()
            self.database.write("put", self._store_missing, rows)
        else:
            encoder.committed()

    def _store(self, rows: CheckpointRows) -> None:
        statements = writing.put(self.database.dialect, rows)
        then = partial(self._replace, rows) if self.keeps_latest_only else None
        self.database.execute("put", [*self._checks(rows), *statements], then=then)

    def _store_missing(self, connection: Connection, rows: CheckpointRows) -> None:
        """Store a checkpoint of which some values may be there already."""
        missing = writing.without_stored(connection, rows)
        statements = [*self._checks(rows), *writing.put(connection.dialect, missing)]
        execute(connection, statements)
        if self.keeps_latest_only:
            self._replace(rows, connection)

    def _checks(self, rows: CheckpointRows) -> Sequence[Statement]:
        return writing.expect_latest(rows.checkpoint) if self.check_parent else ()

    def _replace(self, rows: CheckpointRows, connection: Connection) -> None:
        """Delete the checkpoints that a new one replaces in its namespace.

        Where a newer one is there already, this one goes instead: a cancelled run that finishes
        late replaces nothing.
        """
        row = rows.checkpoint
        deleting.prune_thread(
            connection, row["thread_id"], checkpoint_ns=row["checkpoint_ns"], measure=False
        )

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store a task's writes, to be found as `pending_writes`.

        LangGraph's special writes (`WRITES_IDX_MAP`) replace earlier ones; ordinary ones are kept
        as first written.

        Args:
            config: Names the checkpoint from which the task ran.
            writes: Pairs of channel and value.
            task_id: The task.
            task_path: Where the task stands in the superstep.

        Raises:
            InvalidInputError: An id can't be stored.
            ValueTooLargeError: A value is larger than the server takes.
        """
        self._call(self._put_writes, config, writes, task_id, task_path)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`put_writes`, async."""
        await self._acall(self._put_writes, config, writes, task_id, task_path)

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, path: str
    ) -> None:
        rows: Sequence[dict[str, Any]] = self._offload(
            partial(codec.estimate_size, writes),
            codec.dump_writes,
            self.serde,
            config,
            writes,
            task_id,
            path,
        )
        if not rows:
            return
        if self.cache is not None and not codec.encrypts(self.serde):
            blobs = [row["blob"] for row in rows]
            rows = self._offload(lambda: sum(map(len, blobs)), self._as_deltas, self.cache, rows)
        self.database.execute("put_writes", writing.put_writes(self.database.dialect, rows))

    def _as_deltas(
        self, cache: BaseCache, rows: Sequence[dict[str, Any]]
    ) -> Sequence[dict[str, Any]]:
        """Encode writes against the values of their checkpoint, where these are cached."""
        key = (rows[0]["thread_id"], rows[0]["checkpoint_ns"], rows[0]["checkpoint_id"])
        bases = cache.get(*key) or {}
        return [encode_write(row, bases.get(row["channel"])) for row in rows]

    # Deleting and copying

    def delete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints, values and writes of a thread."""
        self._call(self._delete_thread, thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, async."""
        await self._acall(self._delete_thread, thread_id)

    def _delete_thread(self, thread_id: str) -> None:
        ids = [codec.thread_id(thread_id)]
        self.database.write("delete_thread", deleting.delete_threads, ids)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose `metadata.run_id` is given, their writes and values.

        Checkpoints that were made from a deleted one lose their parent. A DeltaChannel can't be
        rebuilt past a deleted checkpoint.
        """
        self._call(self._delete_for_runs, run_ids)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs`, async."""
        await self._acall(self._delete_for_runs, run_ids)

    def _delete_for_runs(self, run_ids: Sequence[str]) -> None:
        runs = codec.run_ids(run_ids)
        if runs.indexed:
            self.database.write("delete_for_runs", deleting.delete_runs, *runs)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread inside the database, under the same checkpoint ids.

        Raises:
            ThreadExistsError: The target has checkpoints already; nothing was copied.
            InvalidInputError: The serializer binds values to their thread.
        """
        self._call(self._copy_thread, source_thread_id, target_thread_id)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread`, async."""
        await self._acall(self._copy_thread, source_thread_id, target_thread_id)

    def _copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        source, target = codec.check_copyable(self.serde, source_thread_id, target_thread_id)
        empty: set[str] = set()
        self.database.write("copy_thread", copying.copy_thread, source, target, empty)

    def prune(  # type: ignore[override]  # noqa: PLR0913 - one for each option; LangGraph's returns None
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: Moment | None = None,
        idle_for: Moment | None = None,
        keep: int | None = None,
        report: Report | None = None,
    ) -> Deleted:
        """Delete old checkpoints of some threads, each thread in a transaction of its own.

        Without options it is LangGraph's `prune`: the threads are named, and `strategy` decides.
        With one of `older_than`, `idle_for` and `keep`, a checkpoint stays where `keep` or
        `older_than` says so, together with its values, its writes and the ancestors from which a
        DeltaChannel is rebuilt. A kept checkpoint may have lost its parent. After an interruption,
        call it again.

        Args:
            thread_ids: The threads. None is all of them, and needs one of the options.
            strategy: "keep_latest" keeps the latest checkpoint of each namespace, its values and
                writes, and for a DeltaChannel the ancestors back to its last stored value.
                Subgraph calls go with the root checkpoint that made them. "delete", or
                "delete_all" as LangGraph's server calls it, keeps nothing.
            older_than: An age, or a time: checkpoints from before go, the latest of each namespace
                stays. A checkpoint's time is its `ts`, otherwise that of its id; a checkpoint
                without either is never old.
            idle_for: An age, or a time: threads without a checkpoint since go as a whole.
            keep: How many of the latest checkpoints of each namespace stay at the least.
            report: Called after each thread with a `Deleted`.

        Returns:
            The number of rows that were deleted. Sizes are read with an option or `report`;
            without, `bytes` is 0.

        Raises:
            InvalidInputError: `strategy` is another one, `thread_ids` is a single string, no thread
                and no option is given, or an option has a wrong value.
        """
        steps = retention.prune(
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            report=report,
        )
        return self._call(self._prune, steps)

    async def aprune(  # type: ignore[override]  # noqa: PLR0913 - one for each option
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: Moment | None = None,
        idle_for: Moment | None = None,
        keep: int | None = None,
        report: Report | None = None,
    ) -> Deleted:
        """`prune`, async."""
        steps = retention.prune(
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            report=report,
        )
        return await self._acall(self._prune, steps)

    def _prune(self, steps: Steps[Deleted]) -> Deleted:
        return self._go(steps, partial(self.database.write, "prune"))

    def prunable(  # noqa: PLR0913 - one for each option
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: Moment | None = None,
        idle_for: Moment | None = None,
        keep: int | None = None,
        report: Report | None = None,
    ) -> Deleted:
        """Count the rows that `prune` would delete now, with the same arguments; delete nothing.

        Raises:
            InvalidInputError: As from `prune`.
        """
        steps = retention.prune(
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            dry_run=True,
            report=report,
        )
        return self._call(self._prunable, steps)

    async def aprunable(  # noqa: PLR0913 - one for each option
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: Moment | None = None,
        idle_for: Moment | None = None,
        keep: int | None = None,
        report: Report | None = None,
    ) -> Deleted:
        """`prunable`, async."""
        steps = retention.prune(
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            dry_run=True,
            report=report,
        )
        return await self._acall(self._prunable, steps)

    def _prunable(self, steps: Steps[Deleted]) -> Deleted:
        return self._go(steps, partial(self.database.read, "prunable"))

    def delete_where(
        self,
        metadata: Mapping[str, Any],
        *,
        whole_threads: bool = True,
        dry_run: bool = False,
        report: Report | None = None,
    ) -> Deleted:
        """Delete the threads that have a checkpoint with this metadata, to erase a user.

        All of such a thread goes, each in a transaction of its own: checkpoints of all namespaces,
        with this metadata or without, their values and writes. Threads in which no checkpoint has
        the metadata any more (it was pruned) aren't found.

        Args:
            metadata: Entries that the checkpoint's metadata must have, as `filter` of `list`.
            whole_threads: False deletes only the checkpoints that have the metadata, with their
                writes and the values that only they used, as `delete_for_runs` does.
            dry_run: Whether to count only.
            report: Called after each thread with a `Deleted`.

        Returns:
            The number of deleted rows; `threads` is the number of threads.

        Raises:
            InvalidInputError: `metadata` is empty, or isn't a mapping.
        """
        steps = retention.delete_where(
            self.serde, metadata, whole_threads=whole_threads, dry_run=dry_run, report=report
        )
        return self._call(self._delete_where, steps, dry_run=dry_run)

    async def adelete_where(
        self,
        metadata: Mapping[str, Any],
        *,
        whole_threads: bool = True,
        dry_run: bool = False,
        report: Report | None = None,
    ) -> Deleted:
        """`delete_where`, async."""
        steps = retention.delete_where(
            self.serde, metadata, whole_threads=whole_threads, dry_run=dry_run, report=report
        )
        return await self._acall(self._delete_where, steps, dry_run=dry_run)

    def _delete_where(self, steps: Steps[Deleted], *, dry_run: bool) -> Deleted:
        run = self.database.read if dry_run else self.database.write
        return self._go(steps, partial(run, "delete_where"))

    def vacuum_orphans(
        self,
        older_than: Moment = GRACE,
        *,
        dry_run: bool = False,
        report: Report | None = None,
    ) -> Deleted:
        """Delete writes and values that no checkpoint has, as late writers leave them.

        Safe beside running applications, each thread in a transaction of its own. Writes go if
        their checkpoint isn't there and its id is from before; LangGraph may store writes first, so
        `older_than` should be longer than any run. An id that has no time keeps its writes. Values
        that no checkpoint of their namespace names go if all of its checkpoints are from before.

        Args:
            older_than: An age, a day by default, or a time.
            dry_run: Whether to count only.
            report: Called after each thread with a `Deleted`.

        Returns:
            The number of deleted rows.

        Raises:
            InvalidInputError: `older_than` is neither an age nor a time with a zone.
        """
        steps = retention.vacuum_orphans(older_than, dry_run=dry_run, report=report)
        return self._call(self._vacuum_orphans, steps, dry_run=dry_run)

    async def avacuum_orphans(
        self,
        older_than: Moment = GRACE,
        *,
        dry_run: bool = False,
        report: Report | None = None,
    ) -> Deleted:
        """`vacuum_orphans`, async."""
        steps = retention.vacuum_orphans(older_than, dry_run=dry_run, report=report)
        return await self._acall(self._vacuum_orphans, steps, dry_run=dry_run)

    def _vacuum_orphans(self, steps: Steps[Deleted], *, dry_run: bool) -> Deleted:
        run = self.database.read if dry_run else self.database.write
        return self._go(steps, partial(run, "vacuum_orphans"))

    def rewrite(self, thread_ids: Sequence[str] | None = None, *, incremental: bool) -> int:
        """Store values as deltas, or as whole values again; a database may hold both.

        In transactions of about 4 MB, beside running applications. Values that are stored meanwhile
        get the form that their saver gives them.

        Args:
            thread_ids: The threads; all of them by default.
            incremental: As deltas. False makes values that every PostgresSaver reads.

        Returns:
            How many values were rewritten.

        Raises:
            CorruptDataError: A value isn't the one that was stored; it and its successors stay as
                they are.
        """
        return self._call(self._rewrite, thread_ids, incremental=incremental)

    async def arewrite(self, thread_ids: Sequence[str] | None = None, *, incremental: bool) -> int:
        """`rewrite`, async."""
        return await self._acall(self._rewrite, thread_ids, incremental=incremental)

    def _rewrite(self, thread_ids: Sequence[str] | None, *, incremental: bool) -> int:
        ids = None if thread_ids is None else codec.thread_ids(thread_ids)
        steps = rewriting.steps(ids, to_deltas=incremental)
        return self._go(steps, partial(self.database.write, "rewrite"))

    # Shared by the operations

    def _stored(
        self, name: str, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None
    ) -> Stored | None:
        """Read a checkpoint, without the rows of values that are cached."""
        cached = () if self.cache is None else self.cache.largest(thread_id, checkpoint_ns)
        return self.database.read(
            name,
            reading.get,
            thread_id,
            checkpoint_ns,
            checkpoint_id,
            read_deltas=self.cache is not None,
            cached=cached,
        )

    def _loaded(self, stored: Stored) -> CheckpointTuple:
        """Make LangGraph's tuple, and cache the values against which the next ones are encoded."""
        loaded = codec.load_checkpoint(self.serde, stored)
        if self.cache is not None:
            bases = self.cache.get(*stored.key)
            if bases is None or is_outdated(bases, stored):
                self.cache.put(*stored.key, bases_of(stored))
        return loaded

    def _go(self, steps: Steps[T], run: Callable[[Callable[[Connection], Any]], Any]) -> T:
        """Do the steps of an operation that has many, each in a transaction of its own."""
        done = None
        while True:
            try:
                step = steps.send(done)
            except StopIteration as end:
                result: T = end.value
                return result
            done = run(step)
