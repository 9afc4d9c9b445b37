"""Cycles a second by the number of tasks, near the server and far from it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from delay import proxy
from measure import shuffled
from peers import open_pair
from stores import KINDS
from workload import Thread

if TYPE_CHECKING:
    from peers import Contender, Pair, Servers

TITLE = "Throughput"
ABOUT = (
    "Cycles (put, put_writes, get_tuple) a second with 20 connections, through a proxy that adds "
    "the round trip, by the number of tasks (threads, where the saver is sync), each on a thread "
    "of its own. `default` connections: both as their `from_conn_string` opens them, ours with 10, "
    "LangGraph's with one."
)
ENGINES = tuple(name for name, kind in KINDS.items() if kind.server == "postgresql")
CONNECTIONS = 20


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Let the sides take turns in each cell."""
    tasks = (1, 2) if quick else (1, 2, 4, 8, 16, 32)
    turns, seconds = (1, 0.1) if quick else (2, 1.0)
    address = servers.address(kind)
    rows = []
    with proxy(address.host, address.port) as between:
        for connections in (CONNECTIONS, None):
            async with open_pair(servers, kind, pool_size=connections, port=between.port) as pair:
                for side in pair.sides.values():
                    await cycles(side, CONNECTIONS, seconds)
                for milliseconds in (0, 2, 10):
                    between.set_round_trip(milliseconds / 1000)
                    for count in tasks if connections else tasks[-1:]:
                        rates = await _rates(pair, count, turns, seconds)
                        rows.append(
                            {
                                "connections": connections or "default",
                                "round trip ms": milliseconds,
                                "tasks": count,
                                **{f"{name} cycles/s": round(rates[name]) for name in rates},
                                "ours/peer": round(rates["ours"] / rates["peer"], 2),
                            }
                        )
                between.set_round_trip(0)
    return rows


async def _rates(pair: Pair, count: int, turns: int, seconds: float) -> dict[str, float]:
    """Return the cycles a second of each side, which take turns."""
    rates = dict.fromkeys(pair.sides, 0.0)
    for _ in range(turns):
        for name in shuffled(pair.sides):
            rates[name] += await cycles(pair.sides[name], count, seconds) / turns
    return rates


async def cycles(side: Contender, count: int, seconds: float) -> float:
    """Return how many cycles a second this many tasks finish together."""
    begin = time.perf_counter()

    async def work(thread: Thread) -> int:
        done = 0
        while time.perf_counter() - begin < seconds:
            await thread.cycle()
            done += 1
        return done

    threads = [Thread(side) for _ in range(count)]
    begin = time.perf_counter()
    if side.is_async:
        done = sum(await asyncio.gather(*map(work, threads)))
    else:
        with ThreadPoolExecutor(count) as pool:
            done = sum(pool.map(lambda thread: asyncio.run(work(thread)), threads))
    return done / (time.perf_counter() - begin)
