"""A common interface of sync and async savers for tests: the class `Store`."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from checkpoint_sa import AsyncSQLAlchemySaver, SQLAlchemySaver, ThreadSummary

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from datetime import datetime, timedelta

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        Checkpoint,
        CheckpointMetadata,
        DeltaChannelHistory,
    )
    from typing_extensions import Self

    from checkpoint_sa import Deleted

Saver = SQLAlchemySaver | AsyncSQLAlchemySaver
Listed = list[CheckpointTuple]
Summaries = list[ThreadSummary]


class Store:
    """A saver with the methods of LangGraph's contract in their sync form.

    An async saver's methods run to completion in an event loop of the store's own. So the same test
    calls the native methods of both kinds of saver.

    Args:
        saver: The saver; the caller disposes of its engine.
    """

    def __init__(self, saver: Saver) -> None:
        self.saver = saver
        self.loop = asyncio.new_event_loop()

    @property
    def is_async(self) -> bool:
        """Whether the saver is async."""
        return isinstance(self.saver, AsyncSQLAlchemySaver)

    def using(self, saver: Saver) -> Self:
        """Return this store with another saver on its engine, in the same event loop."""
        other = copy(self)
        other.saver = saver
        return other

    def close(self) -> None:
        """Close the event loop."""
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to completion in the store's event loop."""
        return self.loop.run_until_complete(coroutine)

    def _do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.is_async:
            return self.run(getattr(self.saver, f"a{method}")(*args, **kwargs))
        return getattr(self.saver, method)(*args, **kwargs)

    def setup(self) -> None:
        result = self.saver.setup()
        if result is not None:
            self.run(result)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata | dict[str, Any],
        new_versions: Mapping[str, Any],
    ) -> RunnableConfig:
        return self._do("put", config, checkpoint, metadata, new_versions)  # type: ignore[no-any-return]

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self._do("put_writes", config, writes, task_id, task_path)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._do("get_tuple", config)  # type: ignore[no-any-return]

    def found(self, config: RunnableConfig) -> CheckpointTuple:
        """Return the result of `get_tuple`, which must not be None."""
        result = self.get_tuple(config)
        assert result is not None, config
        return result

    def list(self, config: RunnableConfig | None, **criteria: Any) -> Listed:
        if not self.is_async:
            return list(self.saver.list(config, **criteria))

        async def collect() -> Listed:
            return [item async for item in self.saver.alist(config, **criteria)]

        return self.run(collect())  # type: ignore[no-any-return]

    def threads(self, **criteria: Any) -> Summaries:
        if not self.is_async:
            return [*self.saver.threads(**criteria)]

        async def collect() -> Summaries:
            return [item async for item in self.saver.athreads(**criteria)]

        return self.run(collect())  # type: ignore[no-any-return]

    def delete_thread(self, thread_id: str) -> None:
        self._do("delete_thread", thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._do("delete_for_runs", run_ids)

    def copy_thread(self, source: str, target: str) -> None:
        self._do("copy_thread", source, target)

    def prune(self, thread_ids: Sequence[str] | None = None, **options: Any) -> Deleted:
        return self._do("prune", thread_ids, **options)  # type: ignore[no-any-return]

    def prunable(self, thread_ids: Sequence[str] | None = None, **options: Any) -> Deleted:
        return self._do("prunable", thread_ids, **options)  # type: ignore[no-any-return]

    def delete_where(self, metadata: Mapping[str, Any], **options: Any) -> Deleted:
        return self._do("delete_where", metadata, **options)  # type: ignore[no-any-return]

    def vacuum_orphans(self, *older_than: timedelta | datetime, **options: Any) -> Deleted:
        return self._do("vacuum_orphans", *older_than, **options)  # type: ignore[no-any-return]

    def rewrite(self, thread_ids: Sequence[str] | None = None, **options: Any) -> int:
        return self._do("rewrite", thread_ids, **options)  # type: ignore[no-any-return]

    def history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._do("get_delta_channel_history", config=config, channels=channels)  # type: ignore[no-any-return]

    def save(
        self,
        thread_id: str = "t",
        values: Mapping[str, Any] | None = None,
        *,
        parent: RunnableConfig | None = None,
        ns: str = "",
        metadata: Mapping[str, Any] | None = None,
        versions: Mapping[str, Any] | None = None,
        new: Sequence[str] | None = None,
        checkpoint_id: str | None = None,
        v: int | None = None,
        ts: Any = None,
    ) -> RunnableConfig:
        """Put a checkpoint, well-formed as LangGraph makes it, and return its config.

        Args:
            thread_id: The thread.
            values: Channel values; each gets a new version unless `versions` has its channel.
            parent: The parent's config; its thread and namespace are used then.
            ns: The namespace.
            metadata: The metadata.
            versions: Channel versions, of these values or of others.
            new: The channels with a new version; by default all that have a value.
            checkpoint_id: The checkpoint's id; a new id by default.
            v: The version of the checkpoint format.
            ts: The time of the checkpoint; now by default.
        """
        configurable = dict((parent or {}).get("configurable") or {})
        configurable.setdefault("thread_id", thread_id)
        configurable.setdefault("checkpoint_ns", ns)
        checkpoint = empty_checkpoint()
        checkpoint["id"] = checkpoint_id or str(uuid6(clock_seq=0))
        checkpoint["v"] = v or 4
        checkpoint["ts"] = ts or checkpoint["ts"]
        checkpoint["channel_values"] = dict(values or {})
        checkpoint["channel_versions"] = {
            **{channel: self.saver.get_next_version(None, None) for channel in values or {}},
            **(versions or {}),
        }
        changed = checkpoint["channel_values"] if new is None else new
        return self.put(
            {"configurable": configurable},
            checkpoint,
            {"source": "loop", "step": 1, "parents": {}, **(metadata or {})},
            {channel: checkpoint["channel_versions"][channel] for channel in changed},
        )


def thread(thread_id: object = "t", ns: str | None = "", **more: Any) -> RunnableConfig:
    """Make a config."""
    configurable = {"thread_id": thread_id, **more}
    if ns is not None:
        configurable["checkpoint_ns"] = ns
    return {"configurable": configurable}


def id_of(config: RunnableConfig) -> str:
    """Return the checkpoint id of a config."""
    return str(config["configurable"]["checkpoint_id"])
