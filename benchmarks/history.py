"""Long threads: whether a checkpoint costs the same at the end, and what whole threads cost."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from measure import Samples, shuffled
from peers import open_pair
from stores import KINDS
from workload import Thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from peers import Contender, Servers

TITLE = "History"
ABOUT = (
    "Threads of so many checkpoints of about 200 bytes of messages: `put` and `get_tuple` at their "
    "end, a `list` of all of it, its peak of memory (by tracemalloc, each item let go "
    "at once), `get_delta_channel_history` over as many ancestors, and the operations that only "
    "ours has or does in the database: `copy_thread`, `prune` to the latest, `delete_thread`."
)
ENGINES = tuple(name for name, kind in KINDS.items() if kind.server != "mysql")
LENGTHS = (10, 1_000, 10_000)
DELTA = "get_delta_channel_history"
OPERATIONS = ("put", "get_tuple", "list", DELTA, "copy_thread", "prune", "delete_thread")
BYTES = 200


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Alternate between the sides, operation by operation."""
    rows = []
    async with open_pair(servers, kind) as pair:
        for warm, length in enumerate((5, 10) if quick else (10, *LENGTHS)):
            samples = Samples()
            threads = {name: Thread(side, BYTES) for name, side in pair.sides.items()}
            await at_the_end(threads, samples, length, 3 if quick else 100)
            peaks = {}
            for name in shuffled(threads):
                side, thread_id = pair.sides[name], threads[name].thread_id
                await samples.time(name, "list", walk(side, thread_id))
                tracemalloc.start()
                await walk(side, thread_id)
                peaks[f"{name} peak MB"] = round(tracemalloc.get_traced_memory()[1] / 1e6, 1)
                tracemalloc.stop()
            ours, thread_id = pair.sides["ours"], threads["ours"].thread_id
            copy = str(uuid4())
            await samples.time("ours", "copy_thread", ours.do("copy_thread", thread_id, copy))
            await samples.time("ours", "prune", ours.do("prune", [copy], strategy="keep_latest"))
            for name in shuffled(threads):
                gone = pair.sides[name].do("delete_thread", threads[name].thread_id)
                await samples.time(name, "delete_thread", gone)
            if not warm:
                continue
            if ours.is_async or pair.kind.server != "mariadb":  # else the peer takes minutes
                await histories(pair.sides, samples, length // 2)
            for operation in OPERATIONS:
                if not samples.wall["ours", operation]:
                    continue
                row = {"checkpoints": length, **samples.row(operation)}
                rows.append(row | peaks if operation == "list" else row)
    return rows


async def at_the_end(
    threads: dict[str, Thread], samples: Samples, length: int, rounds: int
) -> None:
    """Fill threads, then put and get alternately."""
    for thread in threads.values():
        for _ in range(length):
            await thread.put(*thread.next())
    for _ in range(rounds):
        for name in shuffled(threads):
            arguments = threads[name].next()
            await samples.time(name, "put", threads[name].put(*arguments))
        for name in shuffled(threads):
            await samples.time(name, "get_tuple", threads[name].get_tuple())


async def histories(sides: dict[str, Contender], samples: Samples, length: int) -> None:
    """Store a DeltaChannel with a value at the beginning and a write a checkpoint; read it."""
    ends = {}
    for name, side in sides.items():
        config: Any = {"configurable": {"thread_id": str(uuid4()), "checkpoint_ns": ""}}
        version = side.saver.get_next_version(None, None)
        for step in range(length + 1):
            checkpoint = empty_checkpoint()
            checkpoint["id"] = str(uuid6(clock_seq=step))
            checkpoint["channel_versions"] = {"log": version}
            checkpoint["channel_values"] = {} if step else {"log": ["seed"]}
            metadata = {"source": "loop", "step": step, "parents": {}}
            new = {} if step else {"log": version}
            config = await side.do("put", config, checkpoint, metadata, new)
            await side.do("put_writes", config, [("log", step)], str(uuid4()))
            version = side.saver.get_next_version(version, None)
        ends[name] = config
    for _ in range(5):
        for name in shuffled(sides):
            call = sides[name].do(DELTA, config=ends[name], channels=["log"])
            await samples.time(name, DELTA, call)


async def walk(side: Contender, thread_id: str) -> None:
    """List a thread, and keep nothing of it."""
    config = {"configurable": {"thread_id": thread_id}}
    async for _ in items(side, config):
        pass


async def items(side: Contender, config: Any) -> AsyncIterator[Any]:
    """Yield what a saver lists."""
    if side.is_async:
        async for found in side.saver.alist(config):
            yield found
    else:
        for found in side.saver.list(config):
            yield found
