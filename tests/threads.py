"""Write threads as an older LangGraph writes them into tests/threads, for today's code to prune.

    python -m pip install langgraph==1.2.5 sqlalchemy alembic  # in an environment of its own
    PYTHONPATH=. python tests/threads.py

The file has the rows of each thread, and the states that this LangGraph reads from them. Files that
are there stay: they are what releases wrote.
"""

from __future__ import annotations

import base64
import itertools
import json
import operator
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from langgraph.channels import DeltaChannel, EphemeralValue, UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Overwrite, interrupt
from typing_extensions import TypedDict

from checkpoint_sa import SQLAlchemySaver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_core.runnables import RunnableConfig

FOLDER = Path(__file__).parent / "threads"
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def joined(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    """Join the lists that a DeltaChannel got."""
    return [*state, *itertools.chain.from_iterable(writes)]


def said(state: str, writes: Sequence[str]) -> str:
    """Join the words that a DeltaChannel got."""
    return state + "".join(writes)


def graph(
    frequency: int | None = 1_000, *, ask: bool = False, memory: bool | None = False
) -> StateGraph[Any]:
    """Build a graph whose nodes first, second and third add to `log` after its input.

    Args:
        frequency: How often its DeltaChannels store a snapshot; None makes them ordinary channels.
        ask: Whether the last node asks.
        memory: The checkpointer of the graph as part of another one; False is without that one.
    """
    log: Any = operator.add
    word: Any = str
    if frequency is not None:
        log = DeltaChannel(joined, snapshot_frequency=frequency)
        word = Annotated[str, DeltaChannel(said, snapshot_frequency=frequency)]
    fields = {
        "log": Annotated[list[str], log],
        "word": word,
        "turn": int,
        # Two channels whose versions stay when their values are gone.
        "jump": Annotated[str, EphemeralValue],
        "calls": Annotated[int, UntrackedValue],
    }
    state: Any = TypedDict("state", fields)  # type: ignore[misc]

    def third(state: Any) -> dict[str, Any]:
        return {"log": [interrupt("well?") if ask else "third"], "turn": state["turn"] + 1}

    builder: Any = StateGraph(state)
    builder.add_node("first", lambda _: {"log": ["first"], "calls": 1})
    builder.add_node("second", lambda _: {"log": ["second"], "jump": "over", "calls": 2})
    builder.add_node("third", third)
    for before, after in itertools.pairwise([START, "first", "second", "third", END]):
        builder.add_edge(before, after)
    if memory is False:
        return builder  # type: ignore[no-any-return]
    outer: Any = StateGraph(state)
    outer.add_node("inner", builder.compile(checkpointer=memory))
    outer.add_edge(START, "inner")
    outer.add_edge("inner", END)
    return outer  # type: ignore[no-any-return]


class Thread(NamedTuple):
    """A thread that a graph makes."""

    app: Any
    config: RunnableConfig
    saver: Any

    def invoke(self, turns: int = 1, **options: Any) -> None:
        for _ in range(turns):
            self.app.invoke({"log": ["in"], "turn": 0}, self.config, **options)

    def update(self, *values: Any) -> None:
        for value in values:
            self.app.update_state(self.config, {"log": value}, as_node="third")


def updated(thread: Thread) -> None:
    thread.update(["a"], ["b"])


def updated_often(thread: Thread) -> None:
    thread.update(["a"], ["b"], ["c"], ["d"], ["e"], ["f"])


def invoked(thread: Thread) -> None:
    thread.invoke()


def invoked_and_updated(thread: Thread) -> None:
    thread.invoke()
    thread.update(["a"])


def pruned_between(thread: Thread) -> None:
    thread.invoke()
    thread.saver.prune([thread.config["configurable"]["thread_id"]])
    thread.update(["a"])


def invoked_often(thread: Thread) -> None:
    thread.invoke(3)


def at_exit(thread: Thread) -> None:
    thread.invoke(durability="exit")


def at_exit_and_updated(thread: Thread) -> None:
    thread.invoke(2, durability="exit")
    thread.update(["a"])


def resumed(thread: Thread) -> None:
    thread.invoke()
    thread.app.invoke(Command(resume="answer"), thread.config)
    thread.update(["a"])


def overwritten(thread: Thread) -> None:
    thread.update(["a"], ["b"], Overwrite(["anew"]), ["c"])


def forked(thread: Thread) -> None:
    thread.update(["a"], ["b"])
    first = list(thread.app.get_state_history(thread.config))[-1]
    thread.app.update_state(first.config, {"log": ["fork"]}, as_node="third")


def untracked(thread: Thread) -> None:
    thread.invoke(2)
    thread.app.update_state(thread.config, {"calls": 7, "jump": "over"}, as_node="third")
    thread.invoke()


def migrated(thread: Thread) -> None:
    plain = graph(None).compile(checkpointer=thread.saver)
    plain.invoke({"log": ["plain"], "word": "word", "turn": 0}, thread.config)
    thread.update(["a"], ["b"])


THREADS: dict[str, tuple[dict[str, Any], Callable[[Thread], None]]] = {
    "updated": ({}, updated),
    "updated often": ({"frequency": 4}, updated_often),
    "invoked, then updated": ({}, invoked_and_updated),
    "a snapshot, then updated": ({"frequency": 1}, invoked_and_updated),
    "a snapshot, pruned, then updated": ({"frequency": 1}, pruned_between),
    "snapshots at times": ({"frequency": 4}, invoked_often),
    "at exit, then updated": ({}, at_exit_and_updated),
    "asking": ({"ask": True}, invoked),
    "asking, at exit": ({"ask": True}, at_exit),
    "resumed": ({"ask": True}, resumed),
    "overwritten": ({}, overwritten),
    "forked": ({}, forked),
    "migrated": ({}, migrated),
    "inside another": ({"ask": True, "memory": None}, invoked),
    "inside another, with a memory": ({"ask": True, "memory": True}, invoked),
    "plain": ({"frequency": None}, invoked_often),
    "plain, at exit, then updated": ({"frequency": None}, at_exit_and_updated),
    "plain, asking": ({"frequency": None, "ask": True}, invoked),
    "plain, resumed": ({"frequency": None, "ask": True}, resumed),
    "plain, an untracked value updated": ({"frequency": None}, untracked),
    "plain, inside another": ({"frequency": None, "ask": True, "memory": None}, invoked),
}
"""By name, as `graph` is called for a thread, and how that graph makes it."""


def states(state: Any) -> Iterator[dict[str, Any]]:
    """Yield the values of a state, and of the subgraphs that wait in it."""
    yield dict(state.values)
    for task in state.tasks:
        if hasattr(task.state, "values"):
            yield from states(task.state)


def stored(value: Any) -> Any:
    """Return a column's value as JSON has it."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def main() -> None:
    """Write the file of the LangGraph that is installed."""
    file = FOLDER / f"langgraph_{version('langgraph')}.json"
    if file.exists():
        return
    found: dict[str, Any] = {"states": {}}
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "threads.db"
        with SQLAlchemySaver.from_conn_string(f"sqlite:///{database}") as saver:
            saver.setup()
            for name, (options, make) in THREADS.items():
                app = graph(**options).compile(checkpointer=saver)
                config: RunnableConfig = {"configurable": {"thread_id": name}}
                make(Thread(app, config, saver))
                state = app.get_state(config, subgraphs=True)
                found["states"][name] = list(states(state))
        connection = sqlite3.connect(database)
        for table in TABLES:
            rows = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in rows.description]
            found[table] = [names, *([stored(value) for value in row] for row in rows)]
        connection.close()
    lines = (f'"{name}": [\n' + ",\n".join(map(json.dumps, found[name])) + "\n]" for name in TABLES)
    states_ = json.dumps(found["states"])
    file.write_text("{\n" + ",\n".join([f'"states": {states_}', *lines]) + "\n}\n")


if __name__ == "__main__":
    main()
