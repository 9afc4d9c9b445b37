"""Operations that are cancelled or interrupted: done or not, and no connection is lost."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from sqlalchemy import event, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool
from stores import KINDS, Store, thread
from test_faults import before_statement, dump, fill, put

from checkpoint_sa import AsyncSQLAlchemySaver, AsyncSQLAlchemyStore, Checkpoint
from checkpoint_sa.engine.engines import make_async_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

ASYNC = [name for name, kind in KINDS.items() if kind.is_async]
SYNC = [name for name, kind in KINDS.items() if not kind.is_async]

OPERATIONS: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "get_tuple": lambda saver: saver.aget_tuple(thread("a")),
    "put_writes": lambda saver: saver.aput_writes(thread("a", checkpoint_id="2"), [("x", 1)], "t"),
    "copy_thread": lambda saver: saver.acopy_thread("a", "b"),
    "prune": lambda saver: saver.aprune(["a"]),
}


class CancelledAt:
    """Awaits a coroutine, and cancels its task when that waits for the n-th time."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int) -> None:
        self._coroutine = coroutine
        self._number = number
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        while True:
            try:
                waited = self._coroutine.throw(error) if error else self._coroutine.send(None)
            except StopIteration as stop:
                return stop.value
            if self.waits == self._number:
                task.cancel()
            self.waits += 1
            error = None
            try:
                yield waited
            except BaseException as thrown:  # noqa: BLE001 - passed on
                error = thrown


async def settled(store: Store) -> None:
    """Wait until every connection is back: a cancelled one is closed in a task of its own."""
    pool: Any = store.engine.pool
    for _ in range(500):
        if pool.checkedout() == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(pool.status())


@pytest.mark.parametrize("migrated_store", ASYNC, indirect=True)
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_task_cancelled_at_any_await_loses_no_connection(store: Store, name: str) -> None:
    own = Store(store.kind, store.url, pool_size=1, max_overflow=0, pool_timeout=5)
    fill(store)
    before = dump(store)
    store.run(OPERATIONS[name](store.saver))
    after = dump(store)
    own.get_tuple(thread())

    async def cancelled(number: int) -> bool:
        operation = CancelledAt(OPERATIONS[name](own.saver), number)

        async def call() -> None:
            await operation

        with suppress(asyncio.CancelledError):
            await asyncio.create_task(call())
        await settled(own)
        assert await own.saver.aget_tuple(thread()) is None
        return operation.waits > number

    for number in count():
        fill(store)
        was_cancelled = own.run(cancelled(number))
        assert dump(store) in (before, after), number
        if not was_cancelled:
            break
    assert number > 0
    own.close()


IN_MEMORY: dict[str, Callable[[], AsyncEngine]] = {
    "StaticPool": lambda: create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool),
    "from_conn_string": lambda: make_async_engine("sqlite+aiosqlite://"),
}


@pytest.mark.parametrize("name", list(IN_MEMORY))
def test_a_cancelled_task_leaves_a_database_in_memory_whole(name: str) -> None:
    async def cancelled(number: int) -> bool:
        engine = IN_MEMORY[name]()
        saver, store = AsyncSQLAlchemySaver(engine), AsyncSQLAlchemyStore(engine)
        await saver.setup()
        await store.aput(("n",), "k", {"a": 1}, ttl=5)
        more = False
        for operation in (
            store.aget(("n",), "k"),
            store.aput(("n",), "l", {}),
            saver.aget_tuple(thread()),
            saver.aput(thread(), empty_checkpoint(), {"source": "input", "step": -1}, {}),
        ):
            at = CancelledAt(operation, number)

            async def call(at: CancelledAt = at) -> None:
                await at

            with suppress(asyncio.CancelledError):
                await asyncio.create_task(call())
            found = await store.aget(("n",), "k")
            assert found is not None
            assert found.value == {"a": 1}
            more |= at.waits > number
        assert await saver.aget_tuple(thread()) is not None  # the put was done to its end
        assert await store.aget(("n",), "l") is not None
        await engine.dispose()
        return more

    number = 0
    while asyncio.run(cancelled(number)):
        number += 1
    assert number > 0


CALLS: dict[str, Callable[[Store], Any]] = {
    "get_tuple": lambda store: store.get_tuple(thread("a")),
    "put": lambda store: put(store, "3", parent="2"),
    "prune": lambda store: store.prune(["a"]),
}


@contextmanager
def interrupted_at(store: Store, name: str, number: int) -> Iterator[list[str]]:
    """Raise a KeyboardInterrupt at the n-th event of a kind from now."""
    seen: list[str] = []

    def interrupt(*_: object) -> None:
        seen.append(name)
        if len(seen) == number + 1:
            raise KeyboardInterrupt

    event.listen(store.root, name, interrupt)
    try:
        yield seen
    finally:
        event.remove(store.root, name, interrupt)


@pytest.mark.parametrize("migrated_store", SYNC, indirect=True)
@pytest.mark.parametrize("name", list(CALLS))
def test_an_interrupt_at_any_statement_loses_no_connection(store: Store, name: str) -> None:
    own = Store(store.kind, store.url, pool_size=1, max_overflow=0, pool_timeout=5)
    pool: Any = own.engine.pool
    fill(store)
    before = dump(store)
    CALLS[name](store)
    after = dump(store)
    own.get_tuple(thread())
    for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
        for number in count():
            fill(store)
            with interrupted_at(own, moment, number) as seen, suppress(KeyboardInterrupt):
                CALLS[name](own)
            assert pool.checkedout() == 0
            assert own.get_tuple(thread()) is None
            assert dump(store) in (before, after)
            if len(seen) <= number:
                break
    own.close()


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C as a terminal has it: a process in the background may have been told to ignore it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("migrated_store", SYNC[1:], indirect=True)  # SQLite waits in C
def test_control_c_ends_an_operation_that_waits_for_a_lock(store: Store, interrupts: None) -> None:
    own = Store(store.kind, store.url, pool_size=1, max_overflow=0, pool_timeout=5)
    pool: Any = own.engine.pool
    fill(store)
    own.get_tuple(thread())
    with store.engine.connect() as holder:
        holder.execute(update(Checkpoint).values(run_id="held"))
        for _ in range(3):
            main = threading.get_ident()
            timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))

            def start(_: object, timer: threading.Timer = timer) -> None:
                timer.start()

            with pytest.raises(KeyboardInterrupt), before_statement(own, 0, start):
                own.delete_thread("a")
            timer.join()
            assert pool.checkedout() == 0
        holder.rollback()
    own.delete_thread("a")
    assert store.rows() == (0, 0, 0)
    own.close()
