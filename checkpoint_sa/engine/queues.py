"""The order in which operations wait: for a pool, a shared connection, SQLite's only writer.

SQLAlchemy's pool gives a returned connection to the next task that asks, most often the task that
has just returned it. Of 64 tasks on 16 connections, one was served once in ten seconds, others 400
times. So operations that find the pool exhausted wait here in a queue.

A waiter holds its place for one attempt at an operation; a retry queues again. No permits are
counted, so none can leak: the head of the queue goes when another operation ends, or when the pool
has room.

The pool's overflow is used only while no connection comes back. A connection of the overflow is
closed at its return, and to open a new connection takes longer than to wait for a turn: 32 tasks on
a pool of 5 with an overflow of 10 did 97 cycles a second, without overflow 239.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, QueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, StaticPool
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

_LOOK_SECONDS = 0.05
"""The interval at which a waiter looks for a connection that other code has returned to the pool.

If no operation ends in this time, the overflow is used.
"""

_queues: WeakKeyDictionary[Engine, AbstractContextManager[None]] = WeakKeyDictionary()

Waiter = TypeVar("Waiter", threading.Event, "asyncio.Future[None]")


class _PoolQueue(Generic[Waiter]):
    """The operations that wait for a connection of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.proxy(engine)  # its entry in `_queues` ends with it
        self._waiting: deque[Waiter] = deque()
        self._counts = threading.Lock()
        self._begun = self._ended = 0
        """Turns; each turn that has not ended will return a connection."""
        self._given = 0
        """Turns of waiters that have not woken up yet."""

    def _begin(self, *, was_given: bool = False) -> None:
        with self._counts:
            self._begun += 1
            self._given -= was_given

    def __exit__(self, *_: object) -> None:
        with self._counts:
            self._ended += 1
        self._give()

    def _give(self) -> None:
        if self._waiting:
            with suppress(IndexError):  # another thread was faster
                waiter = self._waiting.popleft()
                with self._counts:
                    self._given += 1
                self._wake(waiter)

    def _abandon(self, waiter: Waiter) -> None:
        """Leave the queue for good; a turn that has come goes to the next waiter."""
        if not self._leave(waiter):
            with self._counts:
                self._given -= 1
            self._give()

    def _wake(self, waiter: Waiter) -> None:
        """Wake a waiter up: its turn has come."""
        raise NotImplementedError

    def _is_free(self) -> bool:
        return not self._waiting and self._has_room(-1)

    def _has_room(self, ended: int) -> bool:
        """Whether the pool can give a connection without a wait.

        Args:
            ended: The number of turns that had ended at the waiter's last look.
        """
        pool = self._engine.pool
        if not isinstance(pool, QueuePool) or pool.size() == 0:
            return True  # other pools never make a task wait
        stands_still = self._ended in (ended, self._begun)
        overflow = _overflow(pool) if stands_still else 0
        return overflow < 0 or pool.checkedout() + self._given < pool.size() + overflow

    def _can_go(self, waiter: Waiter, ended: int) -> bool:
        """Leave the queue if the waiter is at its head, and the pool has room."""
        with suppress(IndexError):  # a thread that ends has taken the waiter out
            if self._waiting[0] is waiter and self._has_room(ended):
                return self._leave(waiter)
        return False

    def _leave(self, waiter: Waiter) -> bool:
        """Leave the queue; return whether the waiter was still in it."""
        try:
            self._waiting.remove(waiter)
        except ValueError:
            return False
        return True

    def _deadline(self) -> float:
        pool = self._engine.pool
        timeout: float | None = pool.timeout() if isinstance(pool, QueuePool) else 0.0
        return math.inf if timeout is None else time.monotonic() + timeout

    def _timed_out(self) -> PoolTimeoutError:
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - other pools always have room
        return PoolTimeoutError(
            f"QueuePool limit of size {pool.size()} overflow {_overflow(pool)} reached, connection"
            f" timed out, timeout {pool.timeout():.2f}",
            code="3o7r",  # SQLAlchemy's page on it
        )


class _Threads(_PoolQueue[threading.Event]):
    """A context around an operation in a thread."""

    def __enter__(self) -> None:
        self._begin(was_given=not self._is_free() and self._enter())

    def _enter(self) -> bool:
        waiter = threading.Event()
        self._waiting.append(waiter)
        try:
            self._wait(waiter)
        except BaseException:
            self._abandon(waiter)
            raise
        return waiter.is_set()

    def _wait(self, waiter: threading.Event) -> None:
        deadline = self._deadline()
        ended = -1
        while not waiter.is_set() and not self._can_go(waiter, ended):
            ended = self._ended
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._timed_out()
            waiter.wait(min(left, _LOOK_SECONDS))

    def _wake(self, waiter: threading.Event) -> None:
        waiter.set()


class _Tasks(_PoolQueue["asyncio.Future[None]"]):
    """A context around an operation of a task, in a greenlet of SQLAlchemy's."""

    def __enter__(self) -> None:
        self._begin(was_given=not self._is_free() and await_only(self._enter()))

    async def _enter(self) -> bool:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await self._wait(waiter)
        except BaseException:
            self._abandon(waiter)
            raise
        return waiter.done()

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        deadline = self._deadline()
        ended = -1
        while not waiter.done() and not self._can_go(waiter, ended):
            ended = self._ended
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._timed_out()
            await asyncio.wait([waiter], timeout=min(left, _LOOK_SECONDS))

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        waiter.set_result(None)


def pool_queue(engine: Engine) -> AbstractContextManager[None]:
    """Return the queue of an engine, shared by all savers on it."""
    made: AbstractContextManager[None] | None = _queues.get(engine)
    if made is None:
        kind = _Tasks if engine.dialect.is_async else _Threads
        made = _queues.setdefault(engine, kind(engine))
    return made


def _overflow(pool: QueuePool) -> int:
    return pool._max_overflow  # noqa: SLF001 - overflow() is the part in use


_locks: WeakKeyDictionary[object, AbstractContextManager[object]] = WeakKeyDictionary()


class _TaskLock:
    """A lock that tasks take, in greenlets of SQLAlchemy's, as threads take `threading.RLock`."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def __enter__(self) -> None:
        await_only(self._lock.acquire())

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _lock_of(owner: Engine | Connection) -> AbstractContextManager[object]:
    """Return the lock of an engine or connection, shared by all savers on it."""
    found = _locks.get(owner)
    if found is None:
        made = _TaskLock() if owner.dialect.is_async else threading.RLock()
        found = _locks.setdefault(owner, made)
    return found


def shared_connection_lock(owner: Engine | Connection) -> AbstractContextManager[object] | None:
    """Return the lock of a single, shared connection; None if a pool has several connections.

    The lock belongs to the engine or connection, so that several savers on it take turns as well.
    """
    if isinstance(owner, Engine) and not isinstance(owner.pool, StaticPool):
        return None
    return _lock_of(owner)


def sqlite_writer_lock(owner: Engine | Connection) -> AbstractContextManager[object] | None:
    """Return the lock in which an SQLite engine's writers wait for each other; None elsewhere.

    SQLite has one writer at a time; the others sleep for milliseconds before they ask again. That
    took 7.6 ms of a graph's turn, in which `put` and `put_writes` come from two threads at once.
    """
    if not isinstance(owner, Engine) or owner.dialect.name != "sqlite":
        return None
    # A NullPool serves several event loops, a lock of asyncio only one.
    if isinstance(owner.pool, StaticPool | NullPool):
        return None
    return _lock_of(owner)
