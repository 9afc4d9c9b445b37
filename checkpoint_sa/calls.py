"""How a call of an operation runs: in the caller's thread or another, or in a greenlet.

An operation is a plain synchronous method. `SyncCalls` calls it, or has a thread do so.
`AsyncCalls` runs it in a greenlet of SQLAlchemy's, in which the driver can await.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn

from checkpoint_sa import migrate
from checkpoint_sa.engine import binds
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from checkpoint_sa.database import Database

P = ParamSpec("P")
T = TypeVar("T")

THREAD_BYTES = 256 * 1024
"""Values from this size on are serialized beside the event loop; a thread costs about 100 us."""


class Calls:
    """The two hooks by which a public method runs its operation, and helpers of operations."""

    database: Database

    def _call(self, operation: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation for a sync caller."""
        raise NotImplementedError

    async def _acall(self, operation: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation for an async caller."""
        raise NotImplementedError

    def _offload(
        self,
        size: Callable[[], int],
        function: Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run work for the CPU: beside the event loop of an async driver where it is large."""
        if self.database.dialect.is_async and size() >= THREAD_BYTES:
            return await_only(asyncio.to_thread(function, *args, **kwargs))
        return function(*args, **kwargs)


class SyncCalls(Calls):
    """Calls on a sync engine."""

    bind: Engine | Connection

    def _upgrade(self) -> None:
        """Bring the tables to this release's revision."""
        with self.database.lock:
            if isinstance(self.bind, Connection) and not self.bind.in_transaction():
                self.bind.begin()  # the caller commits it
            migrate.upgrade(self.bind, schema=self.database.schema)

    def _call(self, operation: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return operation(*args, **kwargs)

    async def _acall(self, operation: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(operation, *args, **kwargs)


class AsyncCalls(Calls):
    """Calls on an async engine."""

    sync_class: str
    """The class for code without asyncio, for messages."""
    bind: AsyncEngine | AsyncConnection

    @classmethod
    def _sync_bind(cls, bind: AsyncEngine | AsyncConnection) -> Engine | Connection:
        """Return the engine or connection on which operations run.

        Raises:
            ConfigurationError: It is another object, or a connection that isn't open.
        """
        if not isinstance(bind, AsyncEngine | AsyncConnection):
            raise binds.refused(bind, cls.__name__, is_async=True, sync_class=cls.sync_class)
        found = bind.sync_engine if isinstance(bind, AsyncEngine) else bind.sync_connection
        if found is None:
            raise ConfigurationError(
                "This AsyncConnection isn't open yet. Use `async with engine.connect() as"
                " connection`, or pass the engine."
            )
        return found

    def _upgrade(self) -> None:
        """Bring the tables to this release's revision, in a greenlet."""
        self.database.enter_loop()
        with self.database.lock:
            if isinstance(self.bind, AsyncConnection) and not self.bind.in_transaction():
                await_only(self.bind.begin())  # the caller commits it
            await_only(migrate.aupgrade(self.bind, schema=self.database.schema))

    async def _acall(self, operation: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        # All in one greenlet: AsyncEngine takes three, and a task, for each connection.
        running = greenlet_spawn(partial(operation, *args, **kwargs))
        if not self.database.is_in_memory:
            return await running
        # SQLAlchemy closes the connection of a cancelled statement, and the database would end with
        # it. The caller is cancelled at once, the operation is done to its end.
        return await asyncio.shield(running)

    def _call(self, operation: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation in the event loop of the object, from another thread, and wait for it.

        Raises:
            asyncio.InvalidStateError: This is the loop's own thread, which would wait for itself.
            ConfigurationError: No event loop has used the object yet.
        """
        loop = self.database.loop
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None and running in (loop, None if loop else running):
            raise asyncio.InvalidStateError(
                f"Synchronous calls to {type(self).__name__} are only allowed from a different"
                " thread. From the main thread, use the async interface. For example, use"
                f" `{self._async_call(operation.__name__.strip('_'))}` or"
                " `await graph.ainvoke(...)`."
            )
        if loop is None or not loop.is_running():
            raise ConfigurationError(
                f"No event loop is running for this {type(self).__name__}, so its sync methods have"
                f" nothing to run in. Use {self.sync_class} with an Engine for code without"
                " asyncio."
            )
        coroutine = self._acall(operation, *args, **kwargs)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    @staticmethod
    def _async_call(operation: str) -> str:
        """Return the async call of an operation, for a message."""
        raise NotImplementedError
