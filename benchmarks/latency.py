"""Latency and client CPU of one task, operation by operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from measure import Samples, shuffled
from peers import open_pair
from stores import KINDS
from workload import Thread

if TYPE_CHECKING:
    from peers import Servers

TITLE = "Latency"
ABOUT = (
    "One task on loopback: `put` with three changed channels and about 10 KB of messages, "
    "`put_writes` with three writes, `get_tuple`, and `list` with a limit of 10, on threads of up "
    "to 30 checkpoints. Medians; CPU is that of the client's process."
)
ENGINES = tuple(KINDS)
OPERATIONS = ("put", "put_writes", "get_tuple", "list")
THREAD_LENGTH = 30


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Alternate between the sides, operation by operation."""
    rounds, warm = (6, 2) if quick else (600, 60)
    samples = Samples()
    async with open_pair(servers, kind) as pair:
        threads: dict[str, Thread] = {}
        for number in range(warm + rounds):
            if number == warm:
                samples = Samples()
            if number % THREAD_LENGTH == 0:
                threads = {name: Thread(side) for name, side in pair.sides.items()}
            arguments = {name: thread.next() for name, thread in threads.items()}
            task = str(uuid4())
            for name in shuffled(threads):
                await samples.time(name, "put", threads[name].put(*arguments[name]))
            for name in shuffled(threads):
                await samples.time(name, "put_writes", threads[name].put_writes(task))
            for name in shuffled(threads):
                await samples.time(name, "get_tuple", threads[name].get_tuple())
            for name in shuffled(threads):
                await samples.time(name, "list", threads[name].list())
    return [samples.row(operation) for operation in OPERATIONS]
