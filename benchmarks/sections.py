"""Where a `put` and a `get_tuple` spend their time: `python benchmarks/sections.py sqlite`.

Ours and the peer take turns, as in the part `latency`. A section's time is without the sections
inside it; to take it costs about a microsecond. On SQLite, also the pages that a commit writes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from measure import shuffled
from peers import Servers, open_pair
from report import table
from workload import Thread

from checkpoint_sa import codec
from checkpoint_sa.engine import cursors
from checkpoint_sa.repository import reading

SECTIONS = {
    "commit": (cursors.PooledConnection, "commit"),
    "driver": (cursors, "_execute"),
    "serializer": (JsonPlusSerializer, "dumps_typed"),
    "deserializer": (JsonPlusSerializer, "loads_typed"),
    "documents and keys": (codec, "dump_checkpoint"),
    "rows": (reading, "get"),
    "connect": (cursors.CursorEngine, "connect"),
    "close": (cursors.PooledConnection, "close"),
}
"""Section -> the owner and the name of its function."""
ROUNDS = 400
LENGTH = 30


def timed(function: Any, section: str, spent: dict[str, float], inner: list[float]) -> Any:
    """Return the function, which adds its seconds to those of its section."""

    def call(*args: Any, **kwargs: Any) -> Any:
        begin = perf_counter()
        inner.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            whole = perf_counter() - begin
            spent[section] += whole - inner.pop()
            if inner:
                inner[-1] += whole

    return call


def pages(folder: Path) -> int:
    """Return the number of pages in the logs of SQLite's files; a log that is full begins anew."""
    found = [file.read_bytes()[16:20] for file in folder.glob("*-shm")]
    return sum(int.from_bytes(count, "little") for count in found)


async def main(kind: str) -> None:
    """Measure, and print medians in microseconds."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    written: dict[str, list[int]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        servers = Servers(folder)
        with servers.stack:
            async with open_pair(servers, kind) as pair:
                for number in range(ROUNDS):
                    if number % LENGTH == 0:
                        threads = {name: Thread(side) for name, side in pair.sides.items()}
                    for operation in ("put", "get_tuple"):
                        for name in shuffled(threads):
                            arguments = threads[name].next() if operation == "put" else ()
                            spent: dict[str, float] = defaultdict(float)
                            inner: list[float] = []
                            with ExitStack() as stack:
                                for section, (owner, function) in SECTIONS.items():
                                    if name == "ours":
                                        run = timed(getattr(owner, function), section, spent, inner)
                                        stack.enter_context(mock.patch.object(owner, function, run))
                                before, begin = pages(folder), perf_counter()
                                await getattr(threads[name], operation)(*arguments)
                                whole = perf_counter() - begin
                            for section, time in {**spent, f"{name}, in all": whole}.items():
                                seconds[operation, section].append(time)
                            if operation == "put" and pages(folder) > before:
                                written[name].append(pages(folder) - before)
    rows = [
        {"operation": operation, "section": section, "us": round(median(times) * 1e6)}
        for (operation, section), times in sorted(seconds.items())
    ]
    print(table(rows))
    for name, counts in written.items():
        print(f"{name}: {mean(counts):.1f} pages a put")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
