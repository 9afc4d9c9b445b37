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
from sqlalchemy.ext.asyncio import create_async_engine
from stores import Store, exact
from test_interop import VALUES
from test_migration_adoption import HASH
from test_transfer import DATA, DONE, USAGE, interrupted_after, open_store

import checkpoint_sa
from checkpoint_sa import (
    AESGCMSerializer,
    AsyncSQLAlchemySaver,
    ConfigurationError,
    CopySummary,
    CorruptDataError,
    InvalidInputError,
    SchemaError,
    ThreadExistsError,
    TransferError,
)
from checkpoint_sa.cli import main
from checkpoint_sa.moving import msgpack

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
        with SqliteSaver.from_conn_string(str(file)) as on_file:
            on_file.setup()
            yield Peer(on_file, f"sqlite:///{file}")
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


@pytest.fixture
def open_peer(
    start_server: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Peer]]:
    """Open a saver of LangGraph's on a new database, by the name of its engine."""
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(opened(kind, start_server, tmp_path, monkeypatch))


@pytest.fixture(params=SOURCES)
def peer(request: pytest.FixtureRequest, open_peer: Callable[[str], Peer]) -> Peer:
    return open_peer(request.param)


@pytest.fixture
def file(open_peer: Callable[[str], Peer]) -> Peer:
    """An SqliteSaver, for what doesn't depend on the source."""
    return open_peer("sqlite")


@pytest.fixture
def target(sqlite_store: Store) -> Store:
    return sqlite_store


def import_from(source: Peer | str, target: Store, **options: Any) -> CopySummary:
    url = source.url if isinstance(source, Peer) else source
    return checkpoint_sa.import_from(url, target.saver, **options)  # type: ignore[arg-type]


def seen(saver: Any) -> dict[tuple[str, ...], Any]:
    """Return all that a saver lists, by key, in a form whose equality is identity."""
    found: dict[tuple[str, ...], Any] = {}
    for item in list(saver.list(None)):  # its lock is not for two
        key = item.config["configurable"]
        parts = {name: exact(part) for name, part in item._asdict().items()}
        # langgraph-checkpoint-mysql gives them in no order.
        parts["pending_writes"] = sorted(map(repr, item.pending_writes))
        found[key["thread_id"], key["checkpoint_ns"], key["checkpoint_id"]] = parts
        assert exact(saver.get_tuple(item.config).checkpoint) == parts["checkpoint"]
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
    answers = [
        graph_on(s).invoke(Command(resume="yes"), config) for s in (target.saver, peer.saver)
    ]
    assert answers[0] == answers[1]
    assert answers[0]["notes"][-1] == "yes"


def put_all_values(peer: Peer) -> None:
    first = peer.put(
        "values", values=VALUES, metadata={"n": 1, "x": [1.5, None, "é"], "run_id": "r"}
    )
    peer.saver.put_writes(first, list(VALUES.items()), "task", "~path")
    peer.saver.put_writes(first, [("__error__", "e"), (TASKS, Send("a", {"b": 1}))], "task 2")
    second = peer.put("values", parent=first, values={"list": [1, 2]})
    peer.put("values", parent=first, values={"fork": {"a": b"\0"}})
    peer.saver.put_writes(second, [("list", [3])], "task 3")
    inner: RunnableConfig = {
        "configurable": {"thread_id": "values", "checkpoint_ns": "child:1|Child:2"}
    }
    peer.put(parent=inner, values={"snapshot": _DeltaSnapshot([1, 2])})


@pytest.mark.parametrize("kind", SOURCES)
def test_async_drivers_and_the_command(
    kind: str,
    open_peer: Callable[[str], Peer],
    open_store: Callable[[str], Store],
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = open_store("pg-psycopg")
    peer = open_peer(kind)
    put_all_values(peer)
    scheme = peer.url.partition(":")[0]
    source = peer.url.replace(scheme, ASYNC_DRIVERS[kind], 1)

    async def run_async() -> CopySummary:
        url = target.url.replace("+psycopg", "+asyncpg")
        async with AsyncSQLAlchemySaver.from_conn_string(url) as saver:
            return await checkpoint_sa.aimport_from(source, saver)

    assert asyncio.run(run_async()).threads == 1
    assert seen(target.saver) == seen(peer.saver)
    for url in (source, peer.url):
        given = ["import", "--from", url, "--to", target.url, "--json", "values"]
        assert main(given) == DONE
        assert json.loads(capsys.readouterr().out)["skipped"] == 1
    with pytest.raises(ConfigurationError, match="aimport_from"):
        import_from(source, target)


def test_the_command(file: Peer, target: Store, capsys: pytest.CaptureFixture[str]) -> None:
    put_all_values(file)
    given = ["import", "--from", file.url, "--to", target.url]
    assert main([*given, "--dry-run", "--json"]) == DONE
    counted = capsys.readouterr().out
    assert target.rows() == (0, 0, 0)
    assert main([*given, "--json"]) == DONE
    assert capsys.readouterr().out == counted
    assert main([*given, "nosuch"]) == DATA
    assert "nosuch" in capsys.readouterr().err
    assert main(["import", "--from", file.url]) == USAGE
    assert main(["import", "--from", target.url, "--to", target.url]) == DATA
    assert "checkpoint-sa copy" in capsys.readouterr().err


def test_an_async_saver_of_langgraph_on_sqlite(tmp_path: Path, target: Store) -> None:
    async def fill() -> dict[str, Any]:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "peer.db")) as saver:
            config: RunnableConfig = {"configurable": {"thread_id": "t"}}
            return await graph_on(saver).ainvoke({"messages": [], "notes": [], "count": 0}, config)

    asyncio.run(fill())
    assert import_from(f"sqlite:///{tmp_path / 'peer.db'}", target).threads == 1
    with SqliteSaver.from_conn_string(str(tmp_path / "peer.db")) as saver:
        assert seen(target.saver) == seen(saver)


# What is found


def test_the_source_is_only_read(file: Peer, target: Store, tmp_path: Path) -> None:
    put_all_values(file)
    with sqlite3.connect(tmp_path / "peer.db") as connection:
        before = list(connection.iterdump())
    import_from(file, target)
    with sqlite3.connect(tmp_path / "peer.db") as connection:
        assert list(connection.iterdump()) == before
    connection.close()


def test_a_database_of_ours_is_to_be_copied(target: Store) -> None:
    with pytest.raises(SchemaError, match="checkpoint-sa copy"):
        import_from(target.url, target)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([], "no table `checkpoints`"),
        (["checkpoints (a TEXT)"], "another application"),
        (["checkpoints (thread_id TEXT, checkpoint BLOB)"], "has no .*checkpoint_ns"),
    ],
)
def test_other_databases_are_told(
    tmp_path: Path, target: Store, tables: list[str], said: str
) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE something (a TEXT)")
    for table in tables:
        connection.execute(f"CREATE TABLE {table}")
    connection.close()
    with pytest.raises(SchemaError, match=said):
        import_from(f"sqlite:///{tmp_path / 'other.db'}", target)


@pytest.mark.parametrize("version", range(1, 10))
def test_every_version_of_the_postgres_saver(
    open_peer: Callable[[str], Peer],
    monkeypatch: pytest.MonkeyPatch,
    target: Store,
    version: int,
) -> None:
    migrations = PostgresSaver.MIGRATIONS[: version + 1]
    monkeypatch.setattr(PostgresSaver, "MIGRATIONS", migrations)
    peer = open_peer("postgresql")
    connection = peer.saver.conn
    document = {**empty_checkpoint(), "channel_versions": {"a": "1", "b": "1"}}
    document["channel_values"] = {"a": "x" * 300}
    connection.execute(
        "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ('t', %s, %s)",
        (document["id"], json.dumps(document)),
    )
    kind, blob = JsonPlusSerializer().dumps_typed([1])
    if version >= 2:
        connection.execute(
            "INSERT INTO checkpoint_blobs (thread_id, channel, version, type, blob)"
            " VALUES ('t', 'b', '1', %s, %s)",
            (kind, blob),
        )
    if version >= 3:
        connection.execute(
            "INSERT INTO checkpoint_writes"
            " (thread_id, checkpoint_id, task_id, idx, channel, type, blob)"
            " VALUES ('t', %s, 'task', 0, 'b', %s, %s)",
            (document["id"], kind, blob),
        )
    done = import_from(peer, target)
    assert done[2:5] == (1, 1 + (version >= 2), int(version >= 3))
    found = target.list({"configurable": {"thread_id": "t"}})[0]
    expected = {"a": "x" * 300} | ({"b": [1]} if version >= 2 else {})
    assert found.checkpoint["channel_values"] == expected
    assert found.pending_writes == ([("task", "b", [1])] if version >= 3 else [])


def test_writes_of_old_files_have_no_path(file: Peer, target: Store) -> None:
    config = file.put(values={"a": [1]})
    file.saver.put_writes(config, [("a", [2])], "task")
    file.sql("ALTER TABLE writes DROP COLUMN task_path")
    import_from(file, target)
    assert target.found(config).pending_writes == [("task", "a", [2])]


@pytest.mark.parametrize("kind", ["msgpack", "json"])
def test_pending_sends_of_old_documents_become_tasks(file: Peer, target: Store, kind: str) -> None:
    config = file.put(values={"a": [1], "small": "x"})
    sends: list[Any] = [Send("node", {"n": 1})] if kind == "msgpack" else [{"n": 1}]
    document = {**file.saver.get_tuple(config).checkpoint, "v": 1, "pending_sends": sends}
    dumped = JsonPlusSerializer().dumps_typed(document)[1]
    if kind == "json":
        dumped = json.dumps(document).encode()
    file.sql("UPDATE checkpoints SET type = ?, checkpoint = ?, metadata = NULL", kind, dumped)
    import_from(file, target)
    found = target.found(config).checkpoint
    assert found["channel_values"] == {"a": [1], "small": "x", TASKS: sends}
    assert found["channel_versions"][TASKS] == max(document["channel_versions"].values())
    assert "pending_sends" not in found


def test_objects_of_json_documents_are_data_until_they_are_read(file: Peer, target: Store) -> None:
    message = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "HumanMessage"],
        "kwargs": {"content": "hi", "id": "1"},
    }
    config = file.put(values={"messages": []})
    document = file.saver.get_tuple(config).checkpoint
    document["channel_values"] = {"messages": [message]}
    file.sql("UPDATE checkpoints SET type = 'json', checkpoint = ?", json.dumps(document).encode())
    import_from(file, target)
    values = target.found(config).checkpoint["channel_values"]
    assert values == {"messages": [HumanMessage("hi", id="1")]}
    assert values == file.saver.get_tuple(config).checkpoint["channel_values"]


def test_a_value_that_changed_under_its_version_gets_one_of_its_own(
    file: Peer, target: Store
) -> None:
    version = file.saver.get_next_version(None, None)
    first = file.put(values={"a": [1]}, versions={"a": version})
    second = file.put(parent=first, values={"a": [1, 2]}, versions={"a": version})
    third = file.put(parent=second, values={"a": [1]}, versions={"a": version})
    import_from(file, target)
    found = [target.found(config).checkpoint for config in (first, second, third)]
    assert [each["channel_values"]["a"] for each in found] == [[1], [1, 2], [1]]
    versions = [each["channel_versions"]["a"] for each in found]
    assert versions[0] == versions[2] == version < versions[1]
    assert versions[1] < file.saver.get_next_version(version, None)
    assert [each["versions_seen"]["node"]["a"] for each in found] == versions
    assert import_from(file, target).skipped == 1


def test_a_value_that_changed_under_a_number_is_an_error(file: Peer, target: Store) -> None:
    first = file.put(values={"a": [1]}, versions={"a": 1})
    file.put(parent=first, values={"a": [2]}, versions={"a": 1})
    with pytest.raises(TransferError, match="another value under version 1"):
        import_from(file, target)
    assert target.rows() == (0, 0, 0)


# Again, and interrupted


@pytest.mark.parametrize("pages", range(1, 6))
def test_an_interrupted_import_goes_on(
    file: Peer, target: Store, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    put_all_values(file)
    monkeypatch.setattr("checkpoint_sa.moving.stored.PAGE_ROWS", 5)
    with interrupted_after(pages):
        import_from(file, target)
    assert 0 < sum(target.rows()) <= 5 * pages
    assert import_from(file, target).threads == 1
    assert seen(target.saver) == seen(file.saver)


def test_a_second_import_brings_what_is_new(file: Peer, target: Store) -> None:
    config = file.put(values={"a": [1]})
    import_from(file, target)
    file.put(parent=config, values={"a": [1, 2]})
    assert import_from(file, target)[:5] == (1, 0, 1, 1, 0)
    assert seen(target.saver) == seen(file.saver)


def test_other_content_is_an_error(file: Peer, target: Store) -> None:
    file.put(values={"a": [1]})
    import_from(file, target)
    target.sql("UPDATE checkpoints SET metadata = '{}'")
    with pytest.raises(ThreadExistsError):
        import_from(file, target)


def test_only_the_threads_that_are_asked_for(file: Peer, target: Store) -> None:
    for thread_id in ("a", "b", "c"):
        file.put(thread_id, values={"a": [thread_id]})
    done: list[str] = []
    assert import_from(file, target, threads=["c", "a", "c"], progress=done.append).threads == 2
    assert done == ["c", "a"]
    with pytest.raises(TransferError, match="no thread 'd'"):
        import_from(file, target, threads=["d"])


def test_many_threads_are_found_in_pages(
    file: Peer, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_sa.moving.sources._THREADS", 2)
    for number in range(5):
        file.put(str(number), values={"a": [number]})
    assert import_from(file, target).threads == 5


# Hostile sources

GOOD = JsonPlusSerializer().dumps_typed(["good"])[1]
RUN: list[int] = []


def ran() -> None:
    RUN.append(1)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return ran, ()


PICKLE = pickle.dumps(Bomb())
CALL = ormsgpack.packb(("test_import", "ran", ()))
HOSTILE = {
    "truncated": ("msgpack", GOOD[:-1], CorruptDataError),
    "nothing": ("msgpack", b"", CorruptDataError),
    "something behind": ("msgpack", GOOD + b"\xc0", CorruptDataError),
    "a length beyond the end": ("msgpack", b"\xdd\xff\xff\xff\xff", CorruptDataError),
    "deep": ("msgpack", b"\x91" * 100_000 + b"\xc0", CorruptDataError),
    "unknown extension": ("msgpack", ormsgpack.packb(ormsgpack.Ext(99, b"\xc0")), CorruptDataError),
    "an extension of two values": (
        "msgpack",
        ormsgpack.packb(ormsgpack.Ext(0, b"\xc0\xc0")),
        CorruptDataError,
    ),
    "no text": ("msgpack", b"\xa1\xff", CorruptDataError),
    "deep json": ("json", b"[" * 100_000, CorruptDataError),
    "no json": ("json", b"{", CorruptDataError),
    "pickle": ("pickle", PICKLE, TransferError),
}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_write_is_named_and_nothing_is_stored(
    open_peer: Callable[[str], Peer],
    target: Store,
    name: str,
    kind: str,
) -> None:
    type_, data, error = HOSTILE[name]
    peer = open_peer(kind)
    config = peer.put("thread", values={"a": [1]})
    peer.saver.put_writes(config, [("a", [1])], "the task")
    mark = "?" if kind == "sqlite" else "%s"
    change = "writes SET type = {0}, value = {0}"
    if kind == "postgresql":
        change = "checkpoint_writes SET type = {0}, blob = {0}"
    peer.saver.conn.execute(f"UPDATE {change.format(mark)}", (type_, data))
    peer.saver.conn.commit()
    with pytest.raises(error, match=r"thread_id='thread'.*task_id='the task'"):
        import_from(peer, target)
    assert target.rows() == (0, 0, 0)
    assert not RUN


def document(**changes: Any) -> bytes:
    found: dict[str, Any] = {**empty_checkpoint(), "id": "1", **changes}
    return ormsgpack.packb({name: item for name, item in found.items() if item is not ...})


DOCUMENTS = {
    **{name: (kind, data) for name, (kind, data, _) in HOSTILE.items() if kind != "json"},
    "a list": ("msgpack", GOOD),
    "values that are a list": ("msgpack", document(channel_values=[1])),
    "names that are numbers": (
        "msgpack",
        ormsgpack.packb({1: 2}, option=ormsgpack.OPT_NON_STR_KEYS),
    ),
    "versions that are a list": ("msgpack", document(channel_versions=[1])),
    "no id": ("msgpack", document(id=...)),
    "another id": ("msgpack", document(id="2")),
    "a value without a version": ("msgpack", document(channel_values={"a": [1]})),
    "an object elsewhere": ("msgpack", document(ts=ormsgpack.Ext(0, CALL))),
    "an object in a value's extension": (
        "msgpack",
        document(channel_values={"a": ormsgpack.Ext(0, b"\xc1")}, channel_versions={"a": "1"}),
    ),
    "encrypted": ("msgpack+aes", b"x"),
    "no type": (None, b"x"),
    "deep json": ("json", b'{"a":' * 100_000),
    "an object in json": ("json", b'{"id": "1", "ts": {"lc": 2, "id": ["test_import", "ran"]}}'),
    "a version of another type": ("json", b'{"id": "1", "channel_versions": {"a": true}}'),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_hostile_document_is_named_and_nothing_is_stored(
    file: Peer, target: Store, name: str
) -> None:
    file.put("before", values={"a": [1]})
    file.put("thread", values={"a": [1]})
    file.sql(
        "UPDATE checkpoints SET checkpoint_id = '1', type = ?, checkpoint = ?"
        " WHERE thread_id = 'thread'",
        *DOCUMENTS[name],
    )
    with pytest.raises(
        (CorruptDataError, TransferError, InvalidInputError), match="thread_id='thread'"
    ) as raised:
        import_from(file, target)
    assert "good" not in str(raised.value)
    assert {thread for thread, _, _ in seen(target.saver)} == {"before"}
    assert not RUN


def test_metadata_that_is_no_json_is_named(file: Peer, target: Store) -> None:
    file.put("thread", values={"a": [1]})
    file.sql("UPDATE checkpoints SET metadata = ?", b"{")
    with pytest.raises(CorruptDataError, match="thread_id='thread'"):
        import_from(file, target)


def test_an_id_that_does_not_fit_is_named(file: Peer, target: Store) -> None:
    file.put("x" * 600, values={"a": [1]})
    with pytest.raises(InvalidInputError, match="600 bytes"):
        import_from(file, target)


# Encryption


def test_encrypted_values_of_the_postgres_saver_stay_readable(
    open_peer: Callable[[str], Peer],
    target: Store,
) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=bytes(16))
    peer = open_peer("postgresql")
    peer.saver.serde = serde
    config = peer.put(values={"a": ["secret"]})
    import_from(peer, target)
    saver = target.make_saver(serde=serde)
    assert target.using(saver).found(config).checkpoint["channel_values"] == {"a": ["secret"]}


def test_a_saver_that_would_refuse_plain_values_is_refused(file: Peer, target: Store) -> None:
    file.put(values={"a": [1]})
    saver = target.make_saver(serde=AESGCMSerializer(bytes(32)))
    with pytest.raises(ConfigurationError, match="allow_plain"):
        import_from(file, target.using(saver))
    saver = target.make_saver(serde=AESGCMSerializer(bytes(32), allow_plain=True))
    assert import_from(file, target.using(saver)).threads == 1


# MessagePack


def test_spans_are_what_the_serializer_wrote() -> None:
    serde = JsonPlusSerializer()
    data = serde.dumps_typed({"v": 1, "channel_values": VALUES, "z": [{}]})[1]
    msgpack.check(data)
    fields, values = msgpack.split(data, "channel_values")
    assert fields == {"v": b"\x01", "z": b"\x91\x80"}
    assert values.keys() == VALUES.keys()
    for name in VALUES.keys() - {"bytearray", "none", "bytes", "empty bytes"}:
        assert values[name] == serde.dumps_typed(VALUES[name])[1], name


def test_no_prefix_of_a_document_is_whole() -> None:
    data = JsonPlusSerializer().dumps_typed({"a": [VALUES["model"], "é", 1.5, 2**40, b"x" * 300]})[
        1
    ]
    for end in range(len(data)):
        with pytest.raises(msgpack.MalformedError):
            msgpack.check(data[:end])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE writes SET idx = 'x'", "idx isn't an integer"),
        ("UPDATE writes SET value = 5", "it has no bytes"),
        ("UPDATE writes SET channel = x'00'", "channel isn't text"),
        ("UPDATE checkpoints SET type = 'other'", "its type is 'other'"),
    ],
)
def test_a_row_that_langgraph_cannot_have_written_is_named(
    file: Peer, target: Store, change: str, message: str
) -> None:
    config = file.put(values={"a": [1]})
    file.saver.put_writes(config, [("a", [2])], "task")
    file.sql(change)
    with pytest.raises((CorruptDataError, TransferError), match=message):
        import_from(file, target)
    assert target.rows() == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_versions": [1]}, "channel_versions is no map"),
        ({"channel_versions": {1: "x"}}, "a channel's name isn't text"),
        ({"id": 5}, "its document has no id"),
        ({"pending_sends": [Send("node", 1)]}, "A checkpoint has pending_sends"),
    ],
)
def test_a_document_that_langgraph_cannot_have_written_is_named(
    file: Peer, target: Store, change: dict[str, Any], message: str
) -> None:
    file.put(values={"a": [1]})
    (row,) = file.saver.conn.execute("SELECT checkpoint FROM checkpoints").fetchall()
    serde = JsonPlusSerializer()
    document = {**serde.loads_typed(("msgpack", row[0])), **change}
    file.sql("UPDATE checkpoints SET checkpoint = ?", serde.dumps_typed(document)[1])
    with pytest.raises((CorruptDataError, TransferError), match=message):
        import_from(file, target)
    assert target.rows() == (0, 0, 0)


def test_engines_are_sources_of_an_async_import(file: Peer, tmp_path: Path) -> None:
    file.put(values={"a": [1]})

    async def run() -> list[tuple[int, int]]:
        url = f"sqlite+aiosqlite:///{tmp_path / 'target.db'}"
        async_source = create_async_engine(file.url.replace("sqlite:", "sqlite+aiosqlite:"))
        async with AsyncSQLAlchemySaver.from_conn_string(url) as saver:
            await saver.setup()
            done = await checkpoint_sa.aimport_from(async_source, saver)
            again = await checkpoint_sa.aimport_from(create_engine(file.url), saver)
        await async_source.dispose()
        return [done[:2], again[:2]]

    assert asyncio.run(run()) == [(1, 0), (0, 1)]
