"""What is stored: a cycle of put, put_writes and get_tuple, as a chat agent causes it."""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
    from peers import Contender

CHANGED = ("messages", "plan", "notes")


def messages(size: int = 10_000, count: int = 20) -> list[BaseMessage]:
    """Return real message objects of about this many bytes of text that does not compress."""
    letters = string.ascii_letters + string.digits + " "
    return [
        (HumanMessage if index % 2 else AIMessage)(
            content="".join(random.choices(letters, k=size // count)), id=str(uuid4())
        )
        for index in range(count)
    ]


class Thread:
    """A thread of one saver, with what LangGraph keeps in memory between two checkpoints."""

    def __init__(self, contender: Contender, size: int = 10_000) -> None:
        self.contender = contender
        self.thread_id = str(uuid4())
        self.latest: RunnableConfig = {
            "configurable": {"thread_id": self.thread_id, "checkpoint_ns": ""}
        }
        self.config = self.latest
        self.versions: dict[str, Any] = {}
        self.step = 0
        sent = messages(size)
        self.values: dict[str, Any] = {
            "messages": sent,
            "plan": {"steps": [{"do": "search", "number": number} for number in range(20)]},
            "notes": ["a", "b"],
            "user": "ann",
        }
        self.writes = [
            ("messages", sent[:1]),
            ("plan", self.values["plan"]),
            ("branch:to:tools", None),
        ]

    def next(
        self,
    ) -> tuple[RunnableConfig, Checkpoint, CheckpointMetadata, dict[str, str | int | float]]:
        """Return the arguments of the next put, in which three channels changed."""
        saver = self.contender.saver
        new = {c: saver.get_next_version(self.versions.get(c), None) for c in CHANGED}
        self.versions.update(new)
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6(clock_seq=self.step))
        checkpoint["channel_values"] = self.values
        checkpoint["channel_versions"] = {"user": f"{1:032}.0.5", **self.versions}
        checkpoint["versions_seen"] = {"__input__": {}, "agent": dict(new)}
        self.step += 1
        return self.config, checkpoint, {"source": "loop", "step": self.step, "parents": {}}, new

    async def put(self, *arguments: Any) -> None:
        self.config = await self.contender.do("put", *arguments)

    async def put_writes(self, task_id: str) -> None:
        await self.contender.do("put_writes", self.config, self.writes, task_id)

    async def get_tuple(self) -> None:
        found = await self.contender.do("get_tuple", self.latest)
        if found is None or len(found.checkpoint["channel_values"]["messages"]) != 20:
            raise AssertionError(f"{self.contender.name} lost a checkpoint")

    async def list(self) -> None:
        await self.contender.list({"configurable": {"thread_id": self.thread_id}}, limit=10)

    async def cycle(self) -> None:
        """Put, put_writes and get_tuple."""
        await self.put(*self.next())
        await self.put_writes(str(uuid4()))
        await self.get_tuple()
