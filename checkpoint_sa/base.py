"""The operations of all savers, each written once; `saver` and `aio` decide how a call runs.

An operation is a plain synchronous method. `SQLAlchemySaver` calls it directly, or in a thread for
an async caller. `AsyncSQLAlchemySaver` runs it in a greenlet of SQLAlchemy's, where the driver can
await.
"""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy.exc import IntegrityError

from checkpoint_sa import codec, retention, upgrading
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
from checkpoint_sa.errors import InvalidInputError
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
from checkpoint_sa.rows import REVISION_KEY
from checkpoint_sa.upgrading import StoredUpgrades, Upgrades

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Collection,
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
    from checkpoint_sa.repository.threads import Steps
    from checkpoint_sa.retention import Moment, Report
    from checkpoint_sa.rows import CheckpointRows, Stored
    from checkpoint_sa.state import Revisions, StateReport

P = ParamSpec("P")
T = TypeVar("T")


class BaseSaver(Calls, BaseCheckpointSaver[str]):
    """Every operation of the savers.

    Attributes:
        database: The engine or connection, and how an operation runs on it.
        check_parent: Whether `put` refuses a checkpoint unless its parent is the latest checkpoint.
        cache: The bases of the next deltas; None if values are stored whole.
        upgrades: The revisions of state that are applied on read; None without `upgrade_state`.
    """

    keeps_latest_only = False

    def __init__(  # noqa: PLR0913 - an argument for each setting
        self,
        bind: Engine | Connection,
        *,
        serde: SerializerProtocol | None,
        schema: str | None,
        incremental: bool,
        retry_seconds: float,
        check_parent: bool,
        upgrade_state: Revisions | None,
    ) -> None:
        super().__init__(serde=serde)
        self.database = Database(bind, schema=schema, retry_seconds=retry_seconds)
        self.check_parent = check_parent
        self.cache = BaseCache(keeps_removed=not self.keeps_latest_only) if incremental else None
        self.upgrades = None if upgrade_state is None else Upgrades(upgrade_state)
        self._stored_upgrades = StoredUpgrades()

    @property
    def schema(self) -> str | None:
        """Schema of the tables; None is the connection's own."""
        return self.database.schema

    @property
    def retry_seconds(self) -> float:
        """Seconds during which an operation is retried after its first failure."""
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
        """Counts since the saver was made, those of its clones included, and its pool's state."""
        return self.database.metrics

    def get_next_version(self, current: str | float | None, channel: None = None) -> str:  # noqa: ARG002
        """Return a version greater than `current`: a counter and a random part."""
        return codec.next_version(current)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """Return a clone with more classes allowed to its serializer (LangGraph's strict mode)."""
        if not isinstance(self.serde, AESGCMSerializer):
            return cast("Self", super().with_allowlist(extra_allowlist))
        clone = copy.copy(self)
        clone.serde = self.serde.with_msgpack_allowlist(extra_allowlist)
        return clone

    # Reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint with its values and pending writes.

        Args:
            config: Names the thread, the namespace (`checkpoint_ns`, '' by default) and the
                checkpoint. Without `checkpoint_id` it is the latest of the namespace.

        Returns:
            The checkpoint, or None if it doesn't exist.

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
            # An application may keep the config of an interrupt, and resume the graph with it
            # twice. The checkpoint was replaced then; the latest checkpoint continues it.
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

        Checkpoints are read in pages; no connection is held between two pages. A checkpoint that is
        stored or deleted meanwhile may or may not be listed; each listed checkpoint is complete.

        Args:
            config: Only checkpoints with its `thread_id`, `checkpoint_ns` and `checkpoint_id`, as
                far as it has them; None lists all threads.
            filter: Metadata that a checkpoint must have. A dict matches as a subset, other values
                by JSON equality: 1 is not true, 1 equals 1.0, null is not a missing key.
            before: Only checkpoints with a smaller id than its `checkpoint_id`.
            limit: The largest number of checkpoints.

        Raises:
            InvalidInputError: An id can't be stored, or `filter` isn't a dict.
        """
        return self._iterate(Paging(codec.criteria(config, before, filter), filter, limit))

    def _iterate(self, paging: Paging) -> Iterator[CheckpointTuple]:
        while paging.unfinished:
            # One at a time: a whole page of objects keeps Python's garbage collector busy.
            for stored in self._call(self._list, paging):
                yield self._load(stored)

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
                    yield self._load(stored)
                else:  # many small checkpoints must not block the event loop either
                    yield await asyncio.to_thread(self._load, stored)
                    size = 0

    def _list(self, paging: Paging) -> Sequence[Stored]:
        page = self.database.read("list", reading.page, *paging.position)
        return paging.take(self.serde, *page)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Read the history of DeltaChannels: the nearest stored value, and the writes since.

        Args:
            config: Names the checkpoint; the walk begins at its parent.
            channels: Names of the channels.

        Returns:
            An entry for each channel: `writes`, oldest first, and `seed` if a value is stored.
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
        name = "get_delta_channel_history"
        place = codec.address(config)
        if self.upgrades is not None:
            newest = self.upgrades.newest
            if self.database.read(name, upgrading.behind, newest, *place[:2]):
                return self._upgraded_history(*place, channels)
        found = self.database.read(name, history.delta_history, *place, codec.channels(channels))

        def size() -> int:
            return sum(write.blob.size for history in found.values() for write in history.writes)

        return self._offload(size, codec.load_history, self.serde, config, found)

    def _upgraded_history(
        self,
        thread_id: str,
        checkpoint_ns: str,
        checkpoint_id: str | None,
        channels: Sequence[str],
    ) -> Mapping[str, DeltaChannelHistory]:
        """Collect the history from upgraded checkpoints, each with a read of its own."""
        read = partial(self._stored, "get_delta_channel_history", thread_id, checkpoint_ns)
        found: dict[str, DeltaChannelHistory] = {name: {"writes": []} for name in channels}
        remaining = set(channels)
        seen: set[str] = set()
        stored = read(checkpoint_id)
        while remaining and stored is not None and stored.parent_id:
            seen.add(stored.key[2])
            stored = read(stored.parent_id)
            if stored is None or stored.key[2] in seen:
                break
            loaded = self._offload(partial(size_of, stored), self._load, stored)
            for write in reversed(loaded.pending_writes or ()):
                if write[1] in remaining:
                    found[write[1]]["writes"].append(write)
            values = loaded.checkpoint["channel_values"]
            for channel in remaining & values.keys():
                if values[channel] is not None:  # a stored None ends the walk
                    found[channel]["seed"] = values[channel]
                remaining.discard(channel)
        for entry in found.values():
            entry["writes"].reverse()  # oldest first
        return found

    def threads(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[ThreadSummary]:
        """Iterate over summaries of the threads, in the database's order of their ids.

        Threads are read in pages; no connection is held between two pages, and no value is read.

        Args:
            where: Metadata that a checkpoint of the thread must have, as `filter` of `list`.
            after: Only threads after this id; a thread with the id needn't exist.
            limit: The largest number of threads.

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

        Storing an id again updates the checkpoint and its metadata; its parent and values stay.

        Args:
            config: Names the thread, the namespace and, as `checkpoint_id`, the parent.
            checkpoint: The checkpoint.
            metadata: Stored beside it, joined with the metadata of the config.
            new_versions: Versions of the changed channels; their values are stored.

        Returns:
            The config that names the stored checkpoint.

        Raises:
            InvalidInputError: An id or a version can't be stored.
            ParentConflictError: With `check_parent`, another writer has stored a checkpoint after
                the parent.
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
        if self.upgrades is not None:
            checkpoint = cast("Checkpoint", {**checkpoint, REVISION_KEY: self.upgrades.newest})
            new_versions = self._stored_upgrades.with_missing(config, checkpoint, new_versions)
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
        if self.upgrades is not None:
            self._stored_upgrades.add(rows.config, checkpoint["channel_versions"])
        return rows.config

    def _put_deltas(self, encoder: PutEncoder) -> None:
        """Store a checkpoint, with values as deltas against the values of its parent."""
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
        """Store a checkpoint; some of its values may be stored already."""
        missing = writing.without_stored(connection, rows)
        statements = [*self._checks(rows), *writing.put(connection.dialect, missing)]
        execute(connection, statements)
        if self.keeps_latest_only:
            self._replace(rows, connection)

    def _checks(self, rows: CheckpointRows) -> Sequence[Statement]:
        return writing.expect_latest(rows.checkpoint) if self.check_parent else ()

    def _replace(self, rows: CheckpointRows, connection: Connection) -> None:
        """Delete the checkpoints that a new checkpoint replaces in its namespace.

        If the namespace has a newer checkpoint already, the new one is deleted instead: a cancelled
        run that finishes late replaces nothing.
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
        """Store a task's writes; a read of the checkpoint returns them as `pending_writes`.

        LangGraph's special writes (`WRITES_IDX_MAP`) replace earlier writes; ordinary writes stay
        as first written.

        Args:
            config: Names the checkpoint from which the task ran.
            writes: Pairs of channel and value.
            task_id: The task.
            task_path: The place of the task in the superstep.

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
            "" if self.upgrades is None else self.upgrades.newest,
        )
        if not rows:
            return
        # With revisions, writes are stored whole: `rewrite` may replace the base of a delta.
        if self.cache is not None and self.upgrades is None and not codec.encrypts(self.serde):
            blobs = [row["blob"] for row in rows]
            rows = self._offload(lambda: sum(map(len, blobs)), self._as_deltas, self.cache, rows)
        self.database.execute("put_writes", writing.put_writes(self.database.dialect, rows))

    def _as_deltas(
        self, cache: BaseCache, rows: Sequence[dict[str, Any]]
    ) -> Sequence[dict[str, Any]]:
        """Encode writes against the values of their checkpoint, if these are cached."""
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
        statements = deleting.of_thread(codec.thread_id(thread_id))
        self.database.execute("delete_thread", statements)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of some runs, by `metadata.run_id`, their writes and values.

        The children of a deleted checkpoint lose their parent. A DeltaChannel can't be rebuilt past
        a deleted checkpoint.
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

    def prune(  # type: ignore[override]  # noqa: PLR0913 - an argument for each option; LangGraph's returns None
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

        Without options this is LangGraph's `prune`: the threads are named, and `strategy` decides.
        With any of `older_than`, `idle_for` and `keep`, a checkpoint stays if `keep` or
        `older_than` keeps it, together with its values, its writes and the ancestors from which a
        DeltaChannel is rebuilt. A kept checkpoint may lose its parent. After an interruption, call
        `prune` again.

        Args:
            thread_ids: The threads. None means all threads, and needs an option.
            strategy: "keep_latest" keeps the latest checkpoint of each namespace, its values and
                writes, and for a DeltaChannel the ancestors back to its last stored value. A
                subgraph call is deleted with the root checkpoint that made the call. "delete", or
                "delete_all" as LangGraph's server calls it, keeps nothing.
            older_than: An age, or a time: older checkpoints are deleted, except the latest of each
                namespace. The time of a checkpoint is its `ts`, or the time in its id; a checkpoint
                without both is never old.
            idle_for: An age, or a time: threads without a newer checkpoint are deleted as a whole.
            keep: The number of latest checkpoints that stay in each namespace at least.
            report: Called after each thread with a `Deleted`.

        Returns:
            The number of deleted rows. Sizes are read only with an option or `report`; otherwise
            `bytes` is 0.

        Raises:
            InvalidInputError: `strategy` is unknown, `thread_ids` is a single string, no thread and
                no option is given, or an option has a wrong value.
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

    async def aprune(  # type: ignore[override]  # noqa: PLR0913 - an argument for each option
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

    def prunable(  # noqa: PLR0913 - an argument for each option
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

    async def aprunable(  # noqa: PLR0913 - an argument for each option
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

        Such a thread is deleted as a whole, in a transaction of its own: the checkpoints of all
        namespaces, with or without this metadata, their values and writes. A thread isn't found if
        its checkpoints with the metadata were pruned.

        Args:
            metadata: Entries that the checkpoint's metadata must have, as `filter` of `list`.
            whole_threads: False deletes only the checkpoints with the metadata, their writes, and
                the values that no other checkpoint uses, as `delete_for_runs` does.
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
        """Delete writes and values without a checkpoint, as late writers leave them.

        This is safe beside running applications; each thread has a transaction of its own. Writes
        are deleted if their checkpoint doesn't exist and the time in its id is old enough.
        LangGraph may store writes before their checkpoint: `older_than` must outlast any run.
        Writes stay if the id contains no time. Values are deleted if no checkpoint of their
        namespace references them and all checkpoints of the namespace are old enough.

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

    def rewrite(
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        incremental: bool | None = None,
        transform: Revisions | None = None,
        dry_run: bool = False,
        report: StateReport | None = None,
    ) -> int:
        """Rewrite values as deltas, or as whole values again; or states in their newest shape.

        It works beside running applications, in transactions of about 4 MB. Values that are stored
        meanwhile have the form of their saver. After an interruption, call `rewrite` again.

        With `transform`, each checkpoint is read, changed, stored and read back, with its writes,
        in one transaction. Savers without these revisions must have ended before: they would take
        the new states for their own. The values before stay until `vacuum_orphans`.

        Args:
            thread_ids: The threads; all threads by default.
            incremental: True stores deltas. False stores whole values, which every PostgresSaver
                reads. It may be left out with `transform`: then it is as in this saver.
            transform: Revisions of state by name, as `upgrade_state` of a saver. Checkpoints and
                writes that lack revisions get them.
            dry_run: Whether to report the changes of `transform` only, and store nothing.
            report: With `transform`, called with a `StateDiff` of each checkpoint.

        Returns:
            The number of rewritten values; with `transform` the number of checkpoints.

        Raises:
            CorruptDataError: A value can't be rebuilt as it was stored, or a changed state doesn't
                read back. This value and its successors, or this checkpoint, stay as they are.
            InvalidInputError: Neither `incremental` nor `transform` is given, or `transform` isn't
                a mapping of names and functions; or `dry_run` or `report` is given without it.
            StateUpgradeError: A state can't get a revision; it stays as it is.
        """
        options = (incremental, transform)
        return self._call(self._rewrite, thread_ids, *options, dry_run=dry_run, report=report)

    async def arewrite(
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        incremental: bool | None = None,
        transform: Revisions | None = None,
        dry_run: bool = False,
        report: StateReport | None = None,
    ) -> int:
        """`rewrite`, async."""
        options = (incremental, transform)
        return await self._acall(
            self._rewrite, thread_ids, *options, dry_run=dry_run, report=report
        )

    def _rewrite(
        self,
        thread_ids: Sequence[str] | None,
        incremental: bool | None,
        transform: Revisions | None,
        *,
        dry_run: bool,
        report: StateReport | None,
    ) -> int:
        ids = None if thread_ids is None else codec.thread_ids(thread_ids)
        run = partial(self.database.read if dry_run else self.database.write, "rewrite")
        if transform is None:
            if incremental is None or dry_run or report is not None:
                raise InvalidInputError(
                    "rewrite() needs incremental=True or False, or transform= with revisions of"
                    " state. dry_run= and report= need transform=."
                )
            return self._go(rewriting.steps(ids, to_deltas=incremental), run)
        steps = upgrading.steps(
            self.serde,
            ids,
            Upgrades(transform),
            dry_run=dry_run,
            report=report or (lambda _: None),
        )
        try:
            count = self._go(steps, run)
        finally:
            if self.cache is not None:  # a checkpoint may have other values now
                self.cache.clear()
        if not dry_run and (incremental is not None or self.incremental):
            self._go(rewriting.steps(ids, to_deltas=incremental is not False), run)
        return count

    # Shared by the operations

    def _stored(
        self, name: str, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None
    ) -> Stored | None:
        """Read a checkpoint, without the rows of cached values."""
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
        """Make LangGraph's tuple, and cache its values as bases of the next deltas."""
        loaded = self._load(stored)
        if self.upgrades is not None:
            versions = stored.checkpoint.get("channel_versions") or {}
            self._stored_upgrades.add(loaded.config, versions)
        if self.cache is not None:
            bases = self.cache.get(*stored.key)
            if bases is None or is_outdated(bases, stored):
                self.cache.put(*stored.key, bases_of(stored))
        return loaded

    def _load(self, stored: Stored) -> CheckpointTuple:
        """Make LangGraph's tuple, in the newest shape."""
        loaded = codec.load_checkpoint(self.serde, stored)
        if self.upgrades is None:
            return loaded
        upgraded = self.upgrades.upgrade(self.serde, stored, loaded)
        return loaded if upgraded is None else upgraded.loaded

    def _go(self, steps: Steps[T], run: Callable[[Callable[[Connection], Any]], Any]) -> T:
        """Run the steps of an operation, each in a transaction of its own."""
        done = None
        while True:
            try:
                step = steps.send(done)
            except StopIteration as end:
                result: T = end.value
                return result
            done = run(step)
