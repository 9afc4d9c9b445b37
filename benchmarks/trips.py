"""How often a warm operation waits for the server."""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from delay import Proxy, proxy
from peers import open_pair
from stores import KINDS
from workload import Thread

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from peers import Servers

TITLE = "Round trips"
ABOUT = (
    "Counted by a proxy before the server: how often the client speaks after the server has "
    "spoken, per warm operation (median)."
)
ENGINES = tuple(name for name, kind in KINDS.items() if kind.server)
OPERATIONS = ("put", "put_writes", "get_tuple")


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Count each operation by itself."""
    rounds = 3 if quick else 20
    address = servers.address(kind)
    with proxy(address.host, address.port) as between:
        async with open_pair(servers, kind, pool_size=1, port=between.port) as pair:
            counts: dict[str, dict[str, int]] = {}
            for name, side in pair.sides.items():
                thread = Thread(side)
                for _ in range(10):  # drivers prepare a statement when it comes again
                    await thread.cycle()
                counted: dict[str, list[int]] = {operation: [] for operation in OPERATIONS}
                for _ in range(rounds):
                    for operation, call in (
                        ("put", thread.put(*thread.next())),
                        ("put_writes", thread.put_writes(str(uuid4()))),
                        ("get_tuple", thread.get_tuple()),
                    ):
                        counted[operation].append(await _trips(between, call))
                counts[name] = {o: median_low(found) for o, found in counted.items()}
    return [
        {"operation": operation, **{name: found[operation] for name, found in counts.items()}}
        for operation in OPERATIONS
    ]


async def _trips(between: Proxy, call: Awaitable[None]) -> int:
    before = between.trips
    await call
    return between.trips - before
