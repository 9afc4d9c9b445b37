"""Interleaved timing: the noise of a shared machine falls on both sides alike."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

INTERVAL_DRAWS = 300


class Samples:
    """Wall and process CPU seconds of each operation of each side."""

    def __init__(self) -> None:
        self.wall: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.cpu: dict[tuple[str, str], list[float]] = defaultdict(list)

    async def time(self, side: str, operation: str, call: Awaitable[Any]) -> None:
        """Await a call; its time includes that of the driver's and the pool's threads."""
        cpu, wall = time.process_time(), time.perf_counter()
        await call
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.wall[side, operation].append(wall)
        self.cpu[side, operation].append(cpu)

    def milliseconds(self, side: str, operation: str) -> float:
        """Return the median wall time in milliseconds."""
        return round(median(self.wall[side, operation]) * 1e3, 1)

    def row(self, operation: str) -> dict[str, Any]:
        """Return medians in microseconds, and how many times as long the peer takes."""
        ours = self.wall["ours", operation]
        ours_cpu = median(self.cpu["ours", operation])
        row: dict[str, Any] = {
            "operation": operation,
            "n": len(ours),
            "ours us": round(median(ours) * 1e6),
            "ours CPU us": round(ours_cpu * 1e6),
        }
        if peer := self.wall["peer", operation]:
            peer_cpu = median(self.cpu["peer", operation])
            row |= {
                "peer us": round(median(peer) * 1e6),
                "peer CPU us": round(peer_cpu * 1e6),
                "peer/ours": round(median(peer) / median(ours), 2),
                "95 %": "{:.2f}-{:.2f}".format(*interval(peer, ours)) if len(ours) > 4 else "",
                "CPU peer/ours": round(peer_cpu / ours_cpu, 2),
            }
        return row


def interval(above: list[float], below: list[float]) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the ratio of two medians."""
    ratios = sorted(
        median(random.choices(above, k=len(above))) / median(random.choices(below, k=len(below)))
        for _ in range(INTERVAL_DRAWS)
    )
    return ratios[INTERVAL_DRAWS // 40], ratios[-1 - INTERVAL_DRAWS // 40]


def shuffled(sides: Mapping[str, Any]) -> list[str]:
    """Return the names of the sides in random order."""
    return random.sample(list(sides), len(sides))
