"""More operations at once than a pool has connections: each gets its turn."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from stores import Store, thread
from test_faults import ids, put
from test_trouble import opened

from checkpoint_sa import SQLAlchemySaver
from checkpoint_sa.engine import queues
from checkpoint_sa.engine.engines import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORKERS, OPERATIONS, CONNECTIONS = 12, 30, 3


def at_once(store: Store, work: Callable[[int], Any], workers: int = WORKERS) -> None:
    """Run a function in threads, or a coroutine function in tasks."""
    if store.is_async:

        async def tasks() -> None:
            await asyncio.gather(*map(work, range(workers)))

        store.run(tasks())
        return
    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for started in threads:
        started.start()
    for started in threads:
        started.join()


def test_nobody_is_overtaken_again_and_again(store: Store) -> None:
    put(store, "1")
    done = [0] * WORKERS
    ahead: list[int] = []

    def count(number: int) -> None:
        done[number] += 1
        if min(done) > 0 and max(done) < OPERATIONS:  # all have begun, and none has ended
            ahead.append(max(done) - min(done))

    with opened(store, pool_size=CONNECTIONS, max_overflow=0) as own:
        own.get_tuple(thread("a"))
        own_saver: Any = own.saver
        if not own.is_async:  # threads run one after another, where nothing makes them wait
            event.listen(own.root, "before_cursor_execute", lambda *_: time.sleep(0.001))

        async def task(number: int) -> None:
            for _ in range(OPERATIONS):
                await own_saver.aget_tuple(thread("a"))
                count(number)

        def in_thread(number: int) -> None:
            for _ in range(OPERATIONS):
                own_saver.get_tuple(thread("a"))
                count(number)

        at_once(own, task if own.is_async else in_thread)
        assert own.saver.metrics.connections == 0
        assert own.saver.metrics.retries == 0
    assert done == [OPERATIONS] * WORKERS
    # Without turns one worker ends before another one begins.
    assert len(ahead) > WORKERS * OPERATIONS / 3
    assert max(ahead) < OPERATIONS / 2


def test_waiters_take_pooled_connections_and_leave_the_overflow_alone(store: Store) -> None:
    """To open a connection, which is closed when it comes back, takes longer than to wait."""
    put(store, "1")
    connects: list[object] = []
    with opened(store, pool_size=CONNECTIONS, max_overflow=5) as own:
        own.get_tuple(thread("a"))
        own_saver: Any = own.saver
        event.listen(own.root, "connect", lambda *_: connects.append(None))
        if not own.is_async:
            event.listen(own.root, "before_cursor_execute", lambda *_: time.sleep(0.001))

        async def task(_: int) -> None:
            for _ in range(OPERATIONS):
                await own_saver.aget_tuple(thread("a"))

        def in_thread(_: int) -> None:
            for _ in range(OPERATIONS):
                own_saver.get_tuple(thread("a"))

        at_once(own, task if own.is_async else in_thread)
    # The overflow is for a pool that stands still, as a loaded machine may for a moment.
    assert len(connects) < 2 * CONNECTIONS


def test_a_pool_whose_connections_others_hold_is_used_to_its_overflow(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}", pool_size=1, max_overflow=1)
    saver = SQLAlchemySaver(engine)
    saver.setup()
    with engine.connect():
        begin = time.monotonic()
        for _ in range(100):
            saver.get_tuple(thread())
        assert time.monotonic() - begin < 100 * queues._LOOK_SECONDS  # noqa: SLF001
    engine.dispose()


def test_a_connection_that_somebody_else_gives_back_is_used(store: Store) -> None:
    with opened(store, pool_size=1, max_overflow=0, pool_timeout=20) as own:
        own.get_tuple(thread())
        if own.async_engine is None:
            taken: Any = own.engine.connect()
            timer = threading.Timer(0.2, taken.close)
            timer.start()
            put(own, "1")
            timer.join()
        else:

            async def use() -> None:
                assert own.async_engine is not None
                taken = await own.async_engine.connect()
                waiting = asyncio.create_task(own.saver.aget_tuple(thread()))
                await asyncio.sleep(0.2)
                assert not waiting.done()
                await taken.close()
                await asyncio.wait_for(waiting, 10)

            own.run(use())
            put(own, "1")
        assert ids(own) == ["1"]


@pytest.mark.parametrize("migrated_store", ["aiosqlite", "pg-asyncpg"], indirect=True)
def test_a_task_that_is_cancelled_gives_its_turn_to_the_next(store: Store) -> None:
    with opened(store, pool_size=1, max_overflow=0, pool_timeout=20) as own:

        async def use() -> None:
            saver: Any = own.saver
            await saver.aget_tuple(thread())
            for _ in range(20):
                tasks = [asyncio.create_task(saver.aget_tuple(thread())) for _ in range(8)]
                for number, task in enumerate(tasks):
                    if number % 2:
                        task.cancel()
                    await asyncio.sleep(0)
                for number, task in enumerate(tasks):
                    if number % 2:
                        with suppress(asyncio.CancelledError):
                            await task
                    else:
                        assert await asyncio.wait_for(task, 10) is None

        own.run(use())
        assert own.saver.metrics.connections == 0


def test_a_queue_goes_with_its_engine(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}")
    SQLAlchemySaver(engine)
    before = len(queues._queues)  # noqa: SLF001
    engine.dispose()
    del engine
    gc.collect()
    assert len(queues._queues) < before  # noqa: SLF001


def test_who_waits_too_long_is_told_and_leaves_the_queue(tmp_path: Path) -> None:
    engine = make_engine(
        f"sqlite:///{tmp_path / 'a.db'}", pool_size=1, max_overflow=0, pool_timeout=0.2
    )
    queue = queues.pool_queue(engine)
    taken = engine.connect()
    begin = time.monotonic()
    with pytest.raises(PoolTimeoutError, match="QueuePool limit of size 1 overflow 0"), queue:
        pytest.fail("there is no connection")
    assert 0.2 <= time.monotonic() - begin < 5
    taken.close()
    with queue:
        pass
    engine.dispose()
