"""Threads of LangGraph's own savers in databases of ours: what theirs returns, ours returns."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pickle
import sqlite3
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.mysql.pymysql import PyMySQLSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from stores import KINDS, Store
from test_interop import VALUES, exact
from test_migration_adoption import HASH
from test_transfer import DATA, DONE, USAGE, InterruptedCopyError, open_store

import checkpoint_sa
from checkpoint_sa import (
    AESGCMSerializer,
    AsyncSQLAlchemySaver,
    ConfigurationError,
    CopySummary,
    CorruptDataError,
    InvalidInputError,
    SchemaError,
    SQLAlchemySaver,
    ThreadExistsError,
    TransferError,
    msgpack,
    raw,
)
from checkpoint_sa.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph
    from servers import Server

__all__ = ["open_store"]

SOURCES = ("sqlite", "postgresql", "mariadb", "mysql")
TARGETS = ("sqlite", "pg-psycopg", "mariadb-pymysql", "mysql-pymysql")
DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mariadb": "mariadb+pymysql",
    "mysql": "mysql+pymysql",
}
ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "mariadb": "mariadb+aiomysql",
    "mysql": "mysql+aiomysql",
}
names = (f"peer_{os.getpid()}_{number}" for number in itertools.count())


class Peer:
    """A saver of LangGraph's on a database of its own."""

    def __init__(self, saver: Any, url: str) -> None:
        self.saver = saver
        self.url = url

    def put(
        self, thread_id: str = "t", parent: RunnableConfig | None = None, **options: Any
    ) -> RunnableConfig:
        """Store a checkpoint with new values."""
        root: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        return put(self.saver, parent or root, **options)

    def sql(self, statement: str, *parameters: Any) -> None:
        """Change what an SqliteSaver stored."""
        self.saver.conn.execute(statement, parameters)
        self.saver.conn.commit()


def put(
    saver: Any,
    parent: RunnableConfig,
    values: dict[str, Any] | None = None,
    metadata: Any = None,
    versions: dict[str, Any] | None = None,
) -> RunnableConfig:
    checkpoint = empty_checkpoint()
    checkpoint["v"] = 4
    checkpoint["channel_values"] = dict(values or {})
    versions = versions or {name: saver.get_next_version(None, None) for name in values or {}}
    checkpoint["channel_versions"] = versions
    checkpoint["versions_seen"] = {"node": dict(versions)}
    return saver.put(parent, checkpoint, metadata or {"step": 1}, versions)  # type: ignore[no-any-return]


@contextmanager
def opened(
    kind: str, start_server: Callable[[str], Server], folder: Path, patch: pytest.MonkeyPatch
) -> Iterator[Peer]:
    """Open a saver of LangGraph's on a new database."""
    if kind == "sqlite":
        file = folder / "peer.db"
        with SqliteSaver.from_conn_string(str(file)) as saver:
            saver.setup()
            yield Peer(saver, f"sqlite:///{file}")
        return
    server, name = start_server(kind), next(names)
    admin = create_engine(server.url(DRIVERS[kind]), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection, ExitStack() as stack:
        connection.execute(text(f"CREATE DATABASE {name}"))
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        stack.callback(connection.execute, text(f"DROP DATABASE {name}{force}"))
        url = server.url(DRIVERS[kind]).replace(f"/{server.database}", f"/{name}")
        if kind == "postgresql":
            plain = url.replace("+psycopg", "")
            saver: Any = stack.enter_context(PostgresSaver.from_conn_string(plain))
        else:
            _give_md5(connection, stack)
            migrations = [m.replace("MD5(checkpoint_ns)", HASH) for m in PyMySQLSaver.MIGRATIONS]
            patch.setattr(PyMySQLSaver, "MIGRATIONS", migrations)
            plain = url.replace(DRIVERS[kind], "mysql")
            saver = stack.enter_context(PyMySQLSaver.from_conn_string(plain))
        saver.setup()
        yield Peer(saver, url)
    admin.dispose()


def _give_md5(connection: Any, stack: ExitStack) -> None:
    """Let langgraph-checkpoint-mysql have the MD5 that MySQL has in a component since 9.6."""
    try:
        connection.execute(text("SELECT md5('')"))
    except DBAPIError:
        component = "COMPONENT 'file://component_classic_hashing'"
        connection.execute(text(f"INSTALL {component}"))
        stack.callback(connection.execute, text(f"UNINSTALL {component}"))


@pytest.fixture(params=SOURCES)
def peer(
    request: pytest.FixtureRequest,
    start_server: Callable[[str], Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Peer]:
    with opened(request.param, start_server, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Peer]:
    """An SqliteSaver, for what doesn't depend on the source."""
    path = tmp_path / "peer.db"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        yield Peer(saver, f"sqlite:///{path}")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Store]:
    store = Store(KINDS["sqlite"], f"sqlite+pysqlite:///{tmp_path / 'target.db'}")
    store.setup()
    yield store
    store.close()


def import_from(source: Peer | str, target: Store, **options: Any) -> CopySummary:
    url = source.url if isinstance(source, Peer) else source
    return checkpoint_sa.import_from(url, target.saver, **options)  # type: ignore[arg-type]


def seen(saver: Any) -> dict[tuple[str, ...], Any]:
    """Return all that a saver lists, by key, in a form whose equality is identity."""
    found = {}
    for item in list(saver.list(None)):  # its lock is not for two
        key = item.config["configurable"]
        parts = exact(item._asdict())
        # langgraph-checkpoint-mysql gives them in no order.
        parts["pending_writes"] = sorted(map(repr, item.pending_writes))
        found[key["thread_id"], key["checkpoint_ns"], key["checkpoint_id"]] = parts
        assert exact(saver.get_tuple(item.config)._asdict())["checkpoint"] == parts["checkpoint"]
    return found


# A real graph


class Inner(TypedDict):
    notes: Annotated[list[str], lambda a, b: a + b]


class State(Inner):
    messages: Annotated[list[AnyMessage], add_messages]
    count: int


def graph_on(saver: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    def ask(state: Inner) -> dict[str, Any]:
        return {"notes": [interrupt("sure?")]}

    def fan_out(state: State) -> list[Send]:
        return [Send("work", {"n": n}) for n in range(2)]

    inner = StateGraph(Inner)
    inner.add_node("note", lambda _: {"notes": ["inner"]})
    inner.add_node("ask", ask)
    inner.add_edge(START, "note")
    inner.add_edge("note", "ask")
    builder = StateGraph(State)
    builder.add_node("say", lambda s: {"messages": [AIMessage("hi", id="a")], "count": 1})
    builder.add_node("work", lambda s: {"notes": [f"work {s['n']}"]})
    builder.add_node("sub", inner.compile())
    builder.add_edge(START, "say")
    builder.add_conditional_edges("say", fan_out, ["work"])
    builder.add_edge("work", "sub")
    return builder.compile(checkpointer=saver)


def run(saver: Any, thread_id: str = "t") -> None:
    """Run a graph up to a question, fork it, and ask again."""
    graph = graph_on(saver)
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}, "metadata": {"user": "é"}}
    graph.invoke({"messages": [HumanMessage("hello", id="h")], "notes": [], "count": 0}, config)
    first = list(graph.get_state_history(config))[-2].config
    fork = graph.update_state(first, {"notes": ["forked"]})
    graph.invoke(None, fork)


@pytest.mark.parametrize("name", TARGETS)
def test_a_graph_goes_on(peer: Peer, open_store: Callable[[str], Store], name: str) -> None:
    target = open_store(name)
    run(peer.saver)
    put_all_values(peer)
    done = import_from(peer, target)
    assert (done.threads, done.skipped) == (2, 0)
    assert (done.checkpoints, done.values, done.writes) == target.rows()
    assert seen(target.saver) == seen(peer.saver)
    assert len({namespace for _, namespace, _ in seen(target.saver)}) > 2
    assert import_from(peer, target) == CopySummary(0, 2, 0, 0, 0, 0)
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    answers = [graph_on(s).invoke(Command(resume="yes"), config) for s in (target.saver, peer.saver)]
    assert answers[0] == answers[1]
    assert answers[0]["notes"][-1] == "yes"


def put_all_values(peer: Peer) -> None:
    first = peer.put("values", values=VALUES, metadata={"n": 1, "x": [1.5, None, "é"], "run_id": "r"})
    peer.saver.put_writes(first, list(VALUES.items()), "task", "~path")
    peer.saver.put_writes(first, [("__error__", "e"), (TASKS, Send("a", {"b": 1}))], "task 2")
    second = peer.put("values", parent=first, values={"list": [1, 2]})
    peer.put("values", parent=first, values={"fork": {"a": b"\0"}})
    peer.saver.put_writes(second, [("list", [3])], "task 3")
    inner = {"configurable": {"thread_id": "values", "checkpoint_ns": "child:1|Child:2"}}
    peer.put(parent=inner, values={"snapshot": _DeltaSnapshot([1, 2])})
