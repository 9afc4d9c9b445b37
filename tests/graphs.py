"""Graphs on the savers of stores."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from stores import Store, thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.types import StateSnapshot, StateUpdate

T = thread("t", ns=None)


def joined(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    """Join the lists that a DeltaChannel got."""
    return [*state, *itertools.chain.from_iterable(writes)]


class App:
    """A graph with a checkpointer: `graph.invoke` and so on, or `graph.ainvoke` and so on."""

    def __init__(self, store: Store, graph: Any) -> None:
        self.store = store
        self.graph = graph

    def _do(self, method: str, *args: Any, **options: Any) -> Any:
        if self.store.kind.is_async:
            return self.store.run(getattr(self.graph, f"a{method}")(*args, **options))
        return getattr(self.graph, method)(*args, **options)

    def _collect(self, method: str, *args: Any, **options: Any) -> list[Any]:
        if not self.store.kind.is_async:
            return list(getattr(self.graph, method)(*args, **options))

        async def collect() -> list[Any]:
            return [item async for item in getattr(self.graph, f"a{method}")(*args, **options)]

        return self.store.run(collect())  # type: ignore[no-any-return]

    def invoke(self, work: Any, config: RunnableConfig = T, **options: Any) -> Any:
        return self._do("invoke", work, config, **options)

    def stream(self, work: Any, config: RunnableConfig = T, **options: Any) -> list[Any]:
        return self._collect("stream", work, config, **options)

    def state(self, config: RunnableConfig = T, **options: Any) -> StateSnapshot:
        return self._do("get_state", config, **options)  # type: ignore[no-any-return]

    def history(self, config: RunnableConfig = T, **criteria: Any) -> list[StateSnapshot]:
        return self._collect("get_state_history", config, **criteria)

    def update(
        self, values: Any, config: RunnableConfig = T, as_node: str | None = None
    ) -> RunnableConfig:
        return self._do("update_state", config, values, as_node)  # type: ignore[no-any-return]

    def bulk_update(
        self, supersteps: Sequence[Sequence[StateUpdate]], config: RunnableConfig = T
    ) -> RunnableConfig:
        return self._do("bulk_update_state", config, supersteps)  # type: ignore[no-any-return]


def app(store: Store, builder: Any, saver: Any = None) -> App:
    return App(store, builder.compile(checkpointer=saver or store.saver))


def anew(store: Store, builder: Any) -> App:
    """Compile a graph once more, on a saver that has seen nothing yet."""
    return app(store, builder, store.make_saver())
