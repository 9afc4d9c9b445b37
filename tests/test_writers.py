"""Several writers: of one thread, and of one SQLite file."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph
from proxy import Proxy
from stores import KINDS, Store, id_of, thread
from test_faults import on_servers, put

from checkpoint_sa import ParentConflictError
from checkpoint_sa.repository.writing import TURN_CHANNEL


@pytest.fixture(params=[False, True], ids=["all", "shallow"])
def checking(store: Store, request: pytest.FixtureRequest) -> Store:
    return store.using(store.make_saver(check_parent=True, shallow=request.param))


def test_a_checkpoint_that_continues_the_latest_is_stored(checking: Store) -> None:
    put(checking, "1")
    put(checking, "2", parent="1")
    put(checking, "2", parent="1")  # again
    put(checking, "1", of="b")
    assert id_of(checking.found(thread("a")).config) == "2"


def test_a_checkpoint_from_an_older_one_is_refused_with_both_names(checking: Store) -> None:
    put(checking, "1")
    put(checking, "2", parent="1")
    with pytest.raises(ParentConflictError, match=r"'3' was made from '1'.* latest is '2'"):
        put(checking, "3", parent="1")
    with pytest.raises(ParentConflictError, match=r"'3' was made from None.* latest is '2'"):
        put(checking, "3")
    found = checking.found(thread("a"))
    assert id_of(found.config) == "2"
    assert found.checkpoint["channel_values"] == {"list": ["2"], "small": "2"}


def test_the_row_that_writers_take_turns_with_changes_each_time(checking: Store) -> None:
    """What is only locked, other nodes of a cluster don't get to know."""
    found = []
    for checkpoint_id, parent in (("1", None), ("2", "1"), ("2", "1")):
        put(checking, checkpoint_id, parent=parent)
        found += checking.sql(
            "SELECT * FROM checkpoint_blobs WHERE channel = :channel", channel=TURN_CHANNEL
        )
    assert len({repr(row) for row in found}) == len(found) > 1


def test_without_the_check_an_older_one_is_forked(store: Store) -> None:
    put(store, "1")
    put(store, "2", parent="1")
    put(store, "3", parent="1")
    assert id_of(store.found(thread("a")).config) == "3"


@pytest.mark.parametrize("parent", [None, "0"])
def test_of_writers_at_the_same_moment_one_is_heard(store: Store, parent: str | None) -> None:
    saver: Any = store.make_saver(check_parent=True, retry_seconds=60)
    if parent:
        put(store, parent)

    def arguments(i: int) -> Any:
        checkpoint = empty_checkpoint()
        checkpoint["id"] = f"{i}"
        return thread("a", checkpoint_id=parent), checkpoint, {}, {}

    if store.kind.is_async:

        async def all_at_once() -> list[Any]:
            calls = [saver.aput(*arguments(i)) for i in range(1, 7)]
            return await asyncio.gather(*calls, return_exceptions=True)

        results = store.run(all_at_once())
    else:
        with ThreadPoolExecutor(6) as pool:
            results = [pool.submit(saver.put, *arguments(i)) for i in range(1, 7)]
        results = [future.exception() or future.result() for future in results]
    stored = [result for result in results if not isinstance(result, ParentConflictError)]
    assert [id_of(result) for result in stored] == [id_of(store.found(thread("a")).config)]
    assert len(store.list(thread("a"))) == (2 if parent else 1)


@on_servers
def test_a_put_whose_answer_was_lost_is_no_conflict_with_itself(store: Store) -> None:
    put(store, "1")
    with Proxy(store.url) as proxy:
        far = Store(store.kind, proxy.url)
        checking = far.using(far.make_saver(check_parent=True))
        checking.get_tuple(thread())
        message = 0
        while True:
            proxy.reset_at(message, answered=True)
            put(checking, f"{message + 2}", parent=f"{message + 1}")
            if not proxy.disarm():
                break
            message += 1
        far.close()
    assert checking.saver.metrics.retries >= 3
    assert len(store.list(thread("a"))) == message + 2


def test_a_graph_runs_and_is_interrupted_by_another_run(sqlite_store: Store) -> None:
    graph: Any = StateGraph(dict)
    graph.add_node("one", lambda state: {**state, "one": True})
    graph.add_edge(START, "one")
    graph = graph.compile(checkpointer=sqlite_store.make_saver(check_parent=True))
    config = thread("g")
    graph.invoke({"x": 1}, config)
    first = graph.get_state(config).config
    graph.invoke({"x": 2}, config)
    assert graph.get_state(config).values == {"x": 2, "one": True}
    with pytest.raises(ParentConflictError):
        graph.invoke({"x": 3}, first)


# SQLite

PROCESS = """
import sys
sys.path.insert(0, sys.argv[2])
from stores import KINDS, Store
from test_faults import put
store = Store(KINDS[sys.argv[3]], sys.argv[1])
for i in range(int(sys.argv[5])):
    put(store, f"{i:04}", of=sys.argv[4])
store.close()
"""


def test_processes_threads_and_tasks_write_to_one_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    sync = Store(KINDS["sqlite"], f"sqlite+pysqlite:///{path}")
    sync.setup()
    tasks = Store(KINDS["aiosqlite"], f"sqlite+aiosqlite:///{path}")
    count = 60

    def process(kind: str, name: str) -> Popen[bytes]:
        url = f"{KINDS[kind].driver}:///{path}"
        folder = str(Path(__file__).parent)
        command = [sys.executable, "-c", PROCESS, url, folder, kind, name, f"{count}"]
        return Popen(command, stderr=PIPE)

    processes = [process("sqlite", "p1"), process("aiosqlite", "p2")]

    async def write(name: str) -> None:
        for i in range(count):
            checkpoint = empty_checkpoint()
            checkpoint["id"] = f"{i:04}"
            await tasks.saver.aput(thread(name), checkpoint, {}, {})

    async def several() -> None:
        await asyncio.gather(*(write(f"a{i}") for i in range(4)))

    def put_all(name: str) -> None:
        for i in range(count):
            put(sync, f"{i:04}", of=name)

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(put_all, f"t{i}") for i in range(2)]
        waiting.append(pool.submit(tasks.run, several()))
        for future in waiting:
            future.result()
    for running in processes:
        assert running.communicate()[1] == b""
        assert running.returncode == 0
    for name in ("p1", "p2", "t0", "t1", "a0", "a1", "a2", "a3"):
        assert len(sync.list(thread(name))) == count
    tasks.close()
    sync.close()
