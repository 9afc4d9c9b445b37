"""Load on a cluster while something fails: nothing that was acknowledged may be lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import empty_checkpoint
from stores import id_of, thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.runnables import RunnableConfig
    from stores import Store

WRITERS = 4
RETRY_SECONDS = 60.0
REST_SECONDS = 3.0


class Load:
    """Writers with a thread each: a checkpoint and a task's write, again and again.

    Every other writer checks the parents: a retry must not take its own checkpoint for another's.
    """

    def __init__(self, store: Store, *, checks_parents: bool = True) -> None:
        self.store = store
        self._checks_parents = checks_parents
        self.acknowledged: list[tuple[RunnableConfig, str]] = []
        self.longest = 0.0
        """The longest time between two acknowledgements to one writer, in seconds."""
        self.retries = 0
        self._is_over = False

    def run(self, *faults: Callable[[], object]) -> None:
        """Write while the faults happen, one after another, with a rest around each.

        An error of a writer is raised at the end.
        """
        self.store.run(self._run(faults))

    def lost(self) -> list[str]:
        """Compare each acknowledged checkpoint and write with the stored ones."""
        found = {
            (item.config["configurable"]["thread_id"], id_of(item.config)): item
            for writer in range(WRITERS)
            for item in self.store.list(thread(f"writer-{writer}"))
        }
        return [
            f"{config}: {item}"
            for config, value in self.acknowledged
            if (item := found.get((config["configurable"]["thread_id"], id_of(config)))) is None
            or item.checkpoint["channel_values"] != {"x": value}
            or item.pending_writes != [("task", "x", value)]
        ]

    def __str__(self) -> str:
        count = len(self.acknowledged)
        return f"{count} checkpoints, {self.retries} retries, longest gap {self.longest:.1f} s"

    async def _run(self, faults: tuple[Callable[[], object], ...]) -> None:
        writers = [asyncio.create_task(self._write(i)) for i in range(WRITERS)]
        try:
            for fault in faults:
                await asyncio.sleep(REST_SECONDS)
                await asyncio.to_thread(fault)
            await asyncio.sleep(REST_SECONDS)
        finally:
            self._is_over = True
            await asyncio.gather(*writers)

    async def _write(self, writer: int) -> None:
        saver: Any = self.store.make_saver(
            check_parent=self._checks_parents and writer % 2 == 1, retry_seconds=RETRY_SECONDS
        )
        config = thread(f"writer-{writer}")
        number, last = 0, time.monotonic()
        while not self._is_over:
            number += 1
            checkpoint = empty_checkpoint()
            value = f"{writer}-{number} " * 100
            checkpoint["channel_values"] = {"x": value}
            checkpoint["channel_versions"] = {"x": f"{number}"}
            config = await saver.aput(config, checkpoint, {}, {"x": f"{number}"})
            await saver.aput_writes(config, [("x", value)], "task")
            self.acknowledged.append((config, value))
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now
        self.retries += saver.metrics.retries
