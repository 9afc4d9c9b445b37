"""Storage and time of growing state: LangGraph's own savers, ours, and ours with `incremental`.

    pip install -e ".[test]" matplotlib
    python benchmarks/incremental.py --postgresql postgresql://user@host/database --plot docs

Four graphs, each turn of each on every store in turns, so that all of them see the same noise:

    chat        a user's and an assistant's message a turn, 360 characters each
    agent       a question, three calls of tools with 1,500 characters of result, an answer
    document    a document of 20,000 characters, of which each turn replaces a sentence
    resent      the same, with the whole document as each turn's input

The tables of a server's database are emptied. Without a server, SQLite alone is measured.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from sqlalchemy import create_engine, inspect, text
from typing_extensions import TypedDict

from checkpoint_sa import SQLAlchemySaver
from checkpoint_sa.engine.engines import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langgraph.checkpoint.base import BaseCheckpointSaver
    from sqlalchemy import Engine

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_deltas", "writes")


class Document(TypedDict):
    text: str
    wish: str


def words(characters: int) -> str:
    line = ""
    while len(line) < characters:
        line += random.choice(WORDS) + " "
    return line[:characters]


WORDS = ["".join(random.Random(i).choices("etaoinshrdlu", k=2 + i % 9)) for i in range(2000)]


def chat() -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("answer", lambda _: {"messages": [AIMessage(words(360))]})
    builder.add_edge(START, "answer")
    return builder, lambda _: {"messages": [HumanMessage(words(360))]}


def agent() -> Any:
    def think(state: MessagesState) -> dict[str, list[AnyMessage]]:
        calls = 0
        for message in reversed(state["messages"]):
            if isinstance(message, HumanMessage):
                break
            calls += isinstance(message, ToolMessage)
        if calls == 3:
            return {"messages": [AIMessage(words(400))]}
        call = {"name": "search", "args": {"query": words(60)}, "id": f"call-{random.random()}"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    def use(state: MessagesState) -> dict[str, list[AnyMessage]]:
        call = state["messages"][-1].tool_calls[0]  # type: ignore[union-attr]
        return {"messages": [ToolMessage(words(1500), tool_call_id=call["id"])]}

    def which(state: MessagesState) -> str:
        return "use" if state["messages"][-1].tool_calls else "__end__"  # type: ignore[union-attr]

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("use", use)
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", which)
    builder.add_edge("use", "think")
    return builder, lambda _: {"messages": [HumanMessage(words(200))]}


def document(*, resent: bool = False) -> Any:
    def edit(state: Document) -> dict[str, str]:
        time.sleep(0.02)  # a model takes longer; the checkpoint is stored meanwhile
        at = random.randrange(0, 19_900)
        return {"text": state["text"][:at] + words(80) + state["text"][at + 80 :]}

    builder = StateGraph(Document)
    builder.add_node("edit", edit)
    builder.add_edge(START, "edit")
    first = words(20_000)
    later = {"text": None} if resent else {"wish": "Say it better."}
    return builder, lambda turn: {"text": first, "wish": ""} if turn == 1 else later


GRAPHS: dict[str, Callable[[], Any]] = {
    "chat": chat,
    "agent": agent,
    "document": document,
    "resent": partial(document, resent=True),
}
TURNS = {"chat": 400, "agent": 40, "document": 160, "resent": 160}


class Place(NamedTuple):
    """A saver, and how many bytes it has stored."""

    saver: BaseCheckpointSaver[Any]
    payload: Callable[[], int] = lambda: 0
    physical: Callable[[], int] = lambda: 0


def places(stack: ExitStack, folder: Path, urls: dict[str, str]) -> Iterator[tuple[str, Place]]:
    yield "memory", Place(InMemorySaver())
    file = folder / "peer.db"
    peer = stack.enter_context(SqliteSaver.from_conn_string(str(file)))
    peer.setup()
    yield "sqlite peer", of_engine(peer, create_engine(f"sqlite:///{file}"))
    for incremental in (False, True):
        engine = make_engine(f"sqlite:///{folder / f'{incremental}.db'}")
        stack.callback(engine.dispose)
        yield f"sqlite {name(incremental)}", ours(engine, incremental=incremental)
    for server, url in urls.items():
        if server == "postgresql":
            engine = emptied(url, "peer")
            stack.callback(engine.dispose)
            target = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
            saver = stack.enter_context(PostgresSaver.from_conn_string(target))
            saver.setup()
            yield "postgresql peer", of_engine(saver, engine)
        for incremental in (False, True):
            engine = emptied(url, name(incremental))
            stack.callback(engine.dispose)
            yield f"{server} {name(incremental)}", ours(engine, incremental=incremental)


def name(incremental: bool) -> str:
    return "incremental" if incremental else "plain"


def emptied(url: str, database: str) -> Engine:
    """Make a database beside the one that a URL names."""
    first = make_engine(url, isolation_level="AUTOCOMMIT")
    own = f"{first.url.database}_{database}"
    with first.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {own}"))
        connection.execute(text(f"CREATE DATABASE {own}"))
    return make_engine(first.url.set(database=own))


def ours(engine: Engine, *, incremental: bool) -> Place:
    saver = SQLAlchemySaver(engine, incremental=incremental)
    saver.setup()
    return of_engine(saver, engine)


def of_engine(saver: BaseCheckpointSaver[Any], engine: Engine) -> Place:
    return Place(saver, partial(payload, engine), partial(physical, engine))


def payload(engine: Engine) -> int:
    """Count the bytes of all columns of all rows."""
    length = "length(CAST({} AS BLOB))" if engine.dialect.name == "sqlite" else "octet_length({})"
    if engine.dialect.name == "postgresql":
        length = "octet_length({}::text)"
    total = 0
    with engine.connect() as connection:
        quote = engine.dialect.identifier_preparer.quote
        for table in set(inspect(connection).get_table_names()) & set(TABLES):
            parts = []
            for column in inspect(connection).get_columns(table):
                one = quote(column["name"])
                is_bytes = engine.dialect.name == "postgresql" and "BYTEA" in str(column["type"])
                form = "octet_length({})" if is_bytes else length
                parts.append(f"coalesce({form.format(one)}, 0)")
            total += connection.scalar(text(f"SELECT sum({' + '.join(parts)}) FROM {table}")) or 0
    return int(total)


def physical(engine: Engine) -> int:
    """Count the bytes of the tables with their indexes, as the engine has them on disk."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            pages = connection.scalar(text("PRAGMA page_count"))
            return int(pages * connection.scalar(text("PRAGMA page_size")))
        tables = sorted(set(inspect(connection).get_table_names()) & set(TABLES))
        if engine.dialect.name == "postgresql":
            sizes = " + ".join(f"pg_total_relation_size('{table}')" for table in tables)
            return int(connection.scalar(text(f"SELECT {sizes}")) or 0)
        connection.execute(text(f"ANALYZE TABLE {', '.join(tables)}")).all()
        size = "SELECT sum(data_length + index_length) FROM information_schema.tables"
        return int(connection.scalar(text(f"{size} WHERE table_schema = database()")) or 0)


class Measured(NamedTuple):
    milliseconds: list[float]
    payloads: dict[int, int]
    physicals: dict[int, int]
    gets: list[float]


def measure(graph: str, stores: dict[str, Place], turns: int, marks: list[int]) -> Any:
    builder, ask = GRAPHS[graph]()
    compiled = {place: builder.compile(checkpointer=stores[place].saver) for place in stores}
    measured = {place: Measured([], {}, {}, []) for place in stores}
    config = named(graph)
    order = list(stores)
    for turn in range(1, turns + 1):
        random.shuffle(order)
        for place in order:
            random.seed(turn)
            question = ask(turn)
            if question == {"text": None}:
                question = {"text": compiled[place].get_state(config).values["text"]}
            began = time.perf_counter()
            compiled[place].invoke(question, config)
            measured[place].milliseconds.append((time.perf_counter() - began) * 1000)
        if turn in marks:
            for place, store in stores.items():
                measured[place].payloads[turn] = store.payload()
                measured[place].physicals[turn] = store.physical()
    for _, place in zip(range(10 * len(order)), cycle(order), strict=False):
        began = time.perf_counter()
        stores[place].saver.get_tuple(config)
        measured[place].gets.append((time.perf_counter() - began) * 1000)
    return measured


def report(graph: str, measured: dict[str, Measured], marks: list[int]) -> None:
    print(f"\n### {graph}\n")
    columns = [f"MB at {mark}" for mark in marks] + ["MB on disk"]
    columns += [f"ms a turn at {mark}" for mark in marks] + ["ms get_tuple"]
    print(f"| | {' | '.join(columns)} |")
    print("| --- " * (len(columns) + 1) + "|")
    for place, found in measured.items():
        cells = [f"{found.payloads[mark] / 1e6:.2f}" for mark in marks]
        cells.append(f"{found.physicals[marks[-1]] / 1e6:.2f}")
        cells += [f"{around(found, mark):.1f}" for mark in marks]
        cells.append(f"{statistics.median(found.gets):.1f}")
        print(f"| {place} | {' | '.join(cells)} |")


def around(found: Measured, turn: int) -> float:
    """Return the median time of the 20 turns up to one."""
    return statistics.median(found.milliseconds[max(0, turn - 20) : turn])


def added(stores: dict[str, Place], early: int, late: int, samples: int = 60) -> None:
    """Say what a turn of the chat takes more than memory's, early and late in turns.

    Side by side in time: a machine that others use is twice as fast in one minute as in another.
    """
    builder, ask = chat()
    compiled = {place: builder.compile(checkpointer=stores[place].saver) for place in stores}
    order = [(place, turn) for place in stores for turn in (early, late)]
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in order}
    for place, turn in order:
        random.seed(turn)
        first = [ask(turn)["messages"][0] for _ in range(2 * turn - samples)]
        compiled[place].invoke({"messages": first}, named(f"added-{turn}"))
    for sample in range(samples):
        random.shuffle(order)
        for place, turn in order:
            random.seed(sample)
            question = ask(turn)
            began = time.perf_counter()
            compiled[place].invoke(question, named(f"added-{turn}"))
            taken[place, turn].append((time.perf_counter() - began) * 1000)
    print(f"\n| | ms more at {early} | at {late} | growth | of the peer's at {late} |")
    print("| --- | --- | --- | --- | --- |")
    more = {
        (place, turn): statistics.median(
            one - other for one, other in zip(times, taken["memory", turn], strict=True)
        )
        for (place, turn), times in taken.items()
    }
    for place in list(stores)[1:]:
        first_, last = more[place, early], more[place, late]
        peers = more.get((f"{place.split()[0]} peer", late))
        share = f"{last / peers:.2f}" if peers else ""
        print(f"| {place} | {first_:.1f} | {last:.1f} | {last / first_:.2f} | {share} |")


def named(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


def plot(folder: Path, graph: str, measured: dict[str, Measured], marks: list[int]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only plots need it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "checkpoint_sa"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (sizes, times) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    styles = {"peer": ":", "plain": "--", "incremental": "-", "memory": "-."}
    engines = sorted({place.split()[0] for place in measured})
    colours = dict(zip(engines, plt.rcParams["axes.prop_cycle"].by_key()["color"], strict=False))
    for place, found in measured.items():
        look = {"ls": styles[place.split()[-1]], "color": colours[place.split()[0]], "label": place}
        if place != "memory":
            sizes.plot(marks, [found.payloads[mark] / 1e6 for mark in marks], marker=".", **look)
        times.plot(marks, [around(found, mark) for mark in marks], marker=".", **look)
    sizes.set(xlabel="turns", ylabel="MB stored", yscale="log", title=f"{graph}: bytes")
    times.set(xlabel="turns", ylabel="milliseconds a turn", title=f"{graph}: time", ylim=0)
    times.legend(fontsize="small")
    figure.savefig(folder / f"incremental_{graph}.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for server in ("postgresql", "mariadb", "mysql"):
        parser.add_argument(f"--{server}", default=os.environ.get(f"BENCHMARK_{server.upper()}"))
    parser.add_argument("--turns", type=int, help="default: 400 of the chat, 40 and 160")
    parser.add_argument("--graph", choices=list(GRAPHS), action="append")
    parser.add_argument("--plot", type=Path, help="the folder for plots")
    given = parser.parse_args()
    urls = {s: u for s in ("postgresql", "mariadb", "mysql") if (u := getattr(given, s))}
    for graph in given.graph or GRAPHS:
        turns = given.turns or TURNS[graph]
        marks = sorted({max(1, turns * share // 8) for share in range(1, 9)})
        with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            stores = dict(places(stack, Path(folder), urls))
            measured = measure(graph, stores, turns, marks)
            report(graph, measured, [marks[0], marks[-1]])
            if graph == "chat":
                added(stores, marks[0], marks[-1])
            if given.plot:
                plot(given.plot, graph, measured, marks)


if __name__ == "__main__":
    main()
