"""One shape for every engine under test: a `Store` drives a sync or an async saver alike.

The methods of the async saver run to completion in an event loop of the store's own, so that a test
reads the same for all engines and still goes through the saver's native methods.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from sqlalchemy import Engine, event, text

from checkpoint_sa import (
    AsyncShallowSQLAlchemySaver,
    AsyncSQLAlchemySaver,
    ShallowSQLAlchemySaver,
    SQLAlchemySaver,
)
from checkpoint_sa.engines import make_async_engine, make_engine

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from sqlalchemy.ext.asyncio import AsyncEngine

    Saver = SQLAlchemySaver | AsyncSQLAlchemySaver
    Listed = list[CheckpointTuple]
    Rows = list[Any]


class Kind(NamedTuple):
    """An engine under test."""

    server: str
    """postgresql, mariadb, mysql; '' for SQLite."""
    driver: str
    is_async: bool


KINDS = {
    "sqlite": Kind("", "sqlite+pysqlite", is_async=False),
    "aiosqlite": Kind("", "sqlite+aiosqlite", is_async=True),
    "pg-psycopg": Kind("postgresql", "postgresql+psycopg", is_async=False),
    "pg-psycopg-async": Kind("postgresql", "postgresql+psycopg", is_async=True),
    "pg-asyncpg": Kind("postgresql", "postgresql+asyncpg", is_async=True),
    "mariadb-pymysql": Kind("mariadb", "mariadb+pymysql", is_async=False),
    "mariadb-async": Kind("mariadb", "mariadb+aiomysql", is_async=True),
    "mysql-pymysql": Kind("mysql", "mysql+pymysql", is_async=False),
    "mysql-async": Kind("mysql", "mysql+aiomysql", is_async=True),
}


@dataclass
class Statements:
    """The SQL statements that were sent while counting; an executemany is one."""

    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)


class Store:
    """A saver on one engine, with the methods of the contract in their sync form."""

    def __init__(self, kind: Kind, url: str) -> None:
        self.kind = kind
        self.url = url
        self.loop = asyncio.new_event_loop()
        self.async_engine: AsyncEngine | None = None
        if kind.is_async:
            self.async_engine = make_async_engine(url)
            self.engine: Engine = self.async_engine.sync_engine
        else:
            self.engine = make_engine(url)
        self.saver: Saver = self.make_saver()

    def make_saver(self, *, shallow: bool = False, **options: Any) -> Saver:
        """Make another saver on the same engine."""
        if self.async_engine is not None:
            async_class = AsyncShallowSQLAlchemySaver if shallow else AsyncSQLAlchemySaver
            return async_class(self.async_engine, **options)
        sync_class = ShallowSQLAlchemySaver if shallow else SQLAlchemySaver
        return sync_class(self.engine, **options)

    def using(self, saver: Saver) -> Store:
        """Return this store with another saver on its engine."""
        other = object.__new__(Store)
        other.__dict__ = {**self.__dict__, "saver": saver}
        return other

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end in the store's event loop."""
        return self.loop.run_until_complete(coroutine)

    def _do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.kind.is_async:
            return self.run(getattr(self.saver, f"a{method}")(*args, **kwargs))
        return getattr(self.saver, method)(*args, **kwargs)

    # The contract

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
        """`get_tuple`, where there must be one."""
        result = self.get_tuple(config)
        assert result is not None, config
        return result

    def list(self, config: RunnableConfig | None, **criteria: Any) -> Listed:
        if not self.kind.is_async:
            return list(self.saver.list(config, **criteria))

        async def collect() -> Listed:
            return [item async for item in self.saver.alist(config, **criteria)]

        return self.run(collect())  # type: ignore[no-any-return]

    def delete_thread(self, thread_id: str) -> None:
        self._do("delete_thread", thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._do("delete_for_runs", run_ids)

    def copy_thread(self, source: str, target: str) -> None:
        self._do("copy_thread", source, target)

    def prune(self, thread_ids: Sequence[str], **options: Any) -> None:
        self._do("prune", thread_ids, **options)

    def history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._do("get_delta_channel_history", config=config, channels=channels)  # type: ignore[no-any-return]

    # Around it

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
    ) -> RunnableConfig:
        """Put one checkpoint, well-formed as LangGraph makes it, and return its config.

        Args:
            thread_id: The thread.
            values: Channel values; each gets a new version unless `versions` names one.
            parent: The config of its parent, which names thread and namespace then.
            ns: The namespace.
            metadata: Its metadata.
            versions: Channel versions, of these values or of others.
            new: The channels that are new; by default all that have a value.
            checkpoint_id: An id of one's own.
            v: The version of the checkpoint format.
        """
        configurable = dict((parent or {}).get("configurable") or {})
        configurable.setdefault("thread_id", thread_id)
        configurable.setdefault("checkpoint_ns", ns)
        checkpoint = empty_checkpoint()
        checkpoint["id"] = checkpoint_id or str(uuid6(clock_seq=0))
        checkpoint["v"] = v or 4
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

    def sql(self, statement: str, **parameters: Any) -> Rows:
        """Run a statement of the test's own in a transaction, on a connection of its own."""
        if self.async_engine is None:
            with self.engine.begin() as connection:
                result = connection.execute(text(statement), parameters)
                return list(result) if result.returns_rows else []

        async def execute() -> Rows:
            assert self.async_engine is not None
            async with self.async_engine.begin() as connection:
                result = await connection.execute(text(statement), parameters)
                return list(result) if result.returns_rows else []

        return self.run(execute())  # type: ignore[no-any-return]

    def count(self, table: str) -> int:
        """Count the rows of a table, on a connection of its own."""
        return int(self.sql(f"SELECT count(*) FROM {table}")[0][0])

    def rows(self) -> tuple[int, int, int]:
        """Count checkpoints, blobs and writes."""
        return (
            self.count("checkpoints"),
            self.count("checkpoint_blobs"),
            self.count("checkpoint_writes"),
        )

    def clear(self) -> None:
        """Empty the tables."""
        for table in ("checkpoint_writes", "checkpoint_blobs", "checkpoints"):
            self.sql(f"DELETE FROM {table}")

    @contextmanager
    def statements(self) -> Iterator[Statements]:
        """Collect the statements that the engine sends."""
        collected = Statements([])

        def collect(_: Any, __: Any, statement: str, *___: Any) -> None:
            collected.texts.append(statement)

        event.listen(self.engine, "before_cursor_execute", collect)
        try:
            yield collected
        finally:
            event.remove(self.engine, "before_cursor_execute", collect)

    def close(self) -> None:
        """Dispose of the engine and the loop."""
        if self.async_engine is not None:
            self.run(self.async_engine.dispose())
        self.engine.dispose()
        self.loop.close()


def thread(thread_id: object = "t", ns: str | None = "", **more: Any) -> RunnableConfig:
    """Make a config."""
    configurable = {"thread_id": thread_id, **more}
    if ns is not None:
        configurable["checkpoint_ns"] = ns
    return {"configurable": configurable}


def id_of(config: RunnableConfig) -> str:
    """Return the checkpoint id of a config."""
    return str(config["configurable"]["checkpoint_id"])
