"""A thread or task that deletes expired items at intervals, until it is stopped.

It holds its store weakly: a store that nobody uses any more ends it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING

from checkpoint_sa.engine.faults import error_code

if TYPE_CHECKING:
    from checkpoint_sa.store.aio import AsyncSQLAlchemyStore
    from checkpoint_sa.store.sync import SQLAlchemyStore

_log = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0
"""Seconds after which a sweeper looks whether its store is still in use."""


def _log_result(deleted: int) -> None:
    if deleted:
        _log.info("%d expired items were deleted", deleted)


def _log_failure(error: Exception) -> None:
    """Log the kind of an error: a driver's message may quote a row."""
    _log.error("A sweep of expired items failed (%s), the next one follows", error_code(error))


class ThreadSweeper:
    """The thread of a `SQLAlchemyStore`.

    Attributes:
        future: Is done when the thread has ended; cancelling it stops the thread.
    """

    def __init__(self, store: SQLAlchemyStore, seconds: float) -> None:
        self.future: Future[None] = Future()
        self._store = weakref.ref(store)
        self._seconds = seconds
        self._stopped = threading.Event()
        self.future.add_done_callback(lambda _: self._stopped.set())
        self._thread = threading.Thread(target=self._run, name="checkpoint-sa-sweeper", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread lives, and nobody has stopped it."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def _run(self) -> None:
        while not self._waits():
            store = self._store()
            if store is None:
                break
            try:
                _log_result(store.sweep_ttl())
            except Exception as error:  # noqa: BLE001 - the database may be back for the next one
                _log_failure(error)
            del store
        with suppress(InvalidStateError):  # it was cancelled
            self.future.set_result(None)

    def _waits(self) -> bool:
        """Wait until the next sweep; return whether there is none."""
        left = self._seconds
        while left > 0:
            if self._stopped.wait(min(left, _LONGEST_WAIT)) or self._store() is None:
                return True
            left -= _LONGEST_WAIT
        return False

    def stop(self, timeout: float | None) -> bool:
        """Stop it; return whether it has ended in time."""
        self._stopped.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()


class TaskSweeper:
    """The task of an `AsyncSQLAlchemyStore`.

    Attributes:
        task: Cancelling it stops the sweeper.
    """

    def __init__(self, store: AsyncSQLAlchemyStore, seconds: float) -> None:
        self._store = weakref.ref(store)
        self._seconds = seconds
        self._stopped = False
        self.task = asyncio.create_task(self._run(), name="checkpoint-sa-sweeper")

    @property
    def is_running(self) -> bool:
        """Whether the task lives, and nobody has stopped it."""
        cancelling = getattr(self.task, "cancelling", int)()  # from Python 3.11 on
        return not (self.task.done() or self._stopped or cancelling)

    async def _run(self) -> None:
        while True:
            left = self._seconds
            while left > 0:
                await asyncio.sleep(min(left, _LONGEST_WAIT))
                left -= _LONGEST_WAIT
            store = self._store()
            if store is None:
                return
            try:
                _log_result(await store.sweep_ttl())
            except Exception as error:  # noqa: BLE001 - the database may be back for the next one
                _log_failure(error)
            del store

    async def stop(self, timeout: float | None) -> bool:
        """Stop it; return whether it has ended in time."""
        self._stopped = True
        self.task.cancel()
        await asyncio.wait([self.task], timeout=timeout)  # a cancellation of the caller goes on
        return self.task.done()
