"""Latency by the size of the state, and how long a large one holds up the event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from measure import Samples, shuffled
from peers import open_pair
from stores import KINDS
from workload import Thread

if TYPE_CHECKING:
    from peers import Servers

TITLE = "Size of the state"
ABOUT = (
    "`put` and `get_tuple` of a state whose messages have so many bytes (medians, microseconds), "
    "and the longest time during it between two turns of a task that sleeps for a millisecond at a "
    "time: how long the event loop stood still (median, milliseconds; async savers only)."
)
ENGINES = tuple(name for name, kind in KINDS.items() if kind.server in {"", "postgresql"})
SIZES = {1_000: 60, 100_000: 40, 1_000_000: 12, 20_000_000: 5}


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Alternate between the sides, operation by operation."""
    rows = []
    async with open_pair(servers, kind) as pair:
        for size, rounds in {10_000: 2}.items() if quick else SIZES.items():
            samples, stalls = Samples(), Samples()
            threads = {name: Thread(side, size) for name, side in pair.sides.items()}
            for number in range(rounds + 1):
                if number == 1:  # the first was for warming up
                    samples, stalls = Samples(), Samples()
                arguments = {name: thread.next() for name, thread in threads.items()}
                for name in shuffled(threads):
                    thread = threads[name]
                    for operation, call in (
                        ("put", thread.put(*arguments[name])),
                        ("get_tuple", thread.get_tuple()),
                    ):
                        with_ticker = pair.kind.is_async
                        gap = asyncio.create_task(longest_gap()) if with_ticker else None
                        await asyncio.sleep(0)
                        await samples.time(name, operation, call)
                        if gap is not None:
                            gap.cancel()
                            stalls.wall[name, operation].append(await gap)
            for operation in ("put", "get_tuple"):
                row = {"bytes": size, **samples.row(operation)}
                if pair.kind.is_async:
                    for name in pair.sides:
                        row[f"{name} stall ms"] = stalls.milliseconds(name, operation)
                rows.append(row)
    return [{c: v for c, v in row.items() if "CPU" not in c} for row in rows]


async def longest_gap() -> float:
    """Return, when cancelled, the longest time between two turns of the event loop."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return max(longest, time.perf_counter() - last)
