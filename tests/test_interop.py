"""One PostgreSQL database for this package and langgraph-checkpoint-postgres: each reads the other.

`ours` is a store on a saver of this package, `peer` one on the real PostgresSaver or
AsyncPostgresSaver, both on one empty database. What is asserted holds in the middle of a rolling
deploy, where processes with either saver work on one thread.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import operator
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.postgres.base import MIGRATIONS
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row
from pydantic import BaseModel
from sqlalchemy import create_engine, make_url, text
from stores import KINDS, Store, exact, id_of, thread

from checkpoint_sa import SchemaError, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple
    from langgraph.graph.state import CompiledStateGraph
    from servers import Server
    from sqlalchemy import Engine

names = (f"interop_{os.getpid()}_{number}" for number in itertools.count())

PAIRS = {
    "pg-psycopg and PostgresSaver": ("pg-psycopg", False),
    "pg-psycopg-async and AsyncPostgresSaver": ("pg-psycopg-async", True),
    "pg-asyncpg and PostgresSaver": ("pg-asyncpg", False),
}


class Peer(Store):
    """A saver of langgraph-checkpoint-postgres with the methods of a `Store`."""

    def __init__(self, url: str, *, is_async: bool) -> None:
        self.kind = KINDS["pg-psycopg-async" if is_async else "pg-psycopg"]
        self.loop = asyncio.new_event_loop()
        address = make_url(url).set(drivername="postgresql")
        conninfo = address.render_as_string(hide_password=False)
        if is_async:

            async def connect() -> AsyncPostgresSaver:
                connection = await AsyncConnection.connect(
                    conninfo, autocommit=True, prepare_threshold=0, row_factory=dict_row
                )
                return AsyncPostgresSaver(connection)

            self.peer: Any = self.run(connect())
        else:
            connection = Connection.connect(
                conninfo, autocommit=True, prepare_threshold=0, row_factory=dict_row
            )
            self.peer = PostgresSaver(connection)
        self.saver = self.peer

    def with_serde(self, serde: Any) -> Store:
        async def make() -> Any:  # AsyncPostgresSaver wants to be made in its loop
            return type(self.peer)(self.peer.conn, serde=serde)

        return self.using(self.run(make()))

    def close(self) -> None:
        closed = self.peer.conn.close()
        if closed is not None:
            self.run(closed)
        self.loop.close()


class Database(NamedTuple):
    """A database of a test's own."""

    url: str
    kind: str
    peer_is_async: bool

    def ours(self) -> Store:
        kind = KINDS[self.kind]
        url = make_url(self.url).set(drivername=kind.driver)
        return Store(kind, url.render_as_string(hide_password=False))

    def peer(self) -> Peer:
        return Peer(self.url, is_async=self.peer_is_async)


@pytest.fixture(scope="session")
def admin(start_server: Callable[[str], Server]) -> Iterator[Engine]:
    url = start_server("postgresql").url("postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def run_sql(admin: Engine, statement: str) -> None:
    with admin.connect() as connection:
        connection.execute(text(statement))


@contextmanager
def new_database(admin: Engine, pair: str) -> Iterator[Database]:
    name = next(names)
    run_sql(admin, f"CREATE DATABASE {name}")
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    yield Database(url, *PAIRS[pair])
    run_sql(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=PAIRS)
def empty(request: pytest.FixtureRequest, admin: Engine) -> Iterator[Database]:
    """A database without tables."""
    with new_database(admin, request.param) as database:
        yield database


@pytest.fixture(scope="session", params=PAIRS)
def pair(request: pytest.FixtureRequest, admin: Engine) -> Iterator[tuple[Store, Peer]]:
    """Both, on a database that both have set up."""
    with (
        new_database(admin, request.param) as database,
        closing(database.ours()) as ours,
        closing(database.peer()) as peer,
    ):
        ours.setup()
        peer.setup()
        yield ours, peer


@pytest.fixture
def ours(pair: tuple[Store, Peer]) -> Store:
    pair[0].clear()
    return pair[0]


@pytest.fixture
def peer(pair: tuple[Store, Peer], ours: Store) -> Peer:
    return pair[1]


@pytest.fixture(params=["ours first", "the peer first"])
def both(request: pytest.FixtureRequest, ours: Store, peer: Peer) -> tuple[Store, Store]:
    return (ours, peer) if request.param == "ours first" else (peer, ours)


def seen(item: CheckpointTuple | None) -> Any:
    assert item is not None
    return {name: exact(part) for name, part in item._asdict().items()}


# Each reads what the other wrote


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float


class Model(BaseModel):
    name: str
    points: list[int]


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "one as a float": 1.0,
    "largest integer": 2**63 - 1,
    "smallest integer": -(2**63),
    "fraction": 0.1,
    "empty text": "",
    "text": 'é "quoted" \\ \U0001f600 \u2028',
    "long text": "x" * 300,
    "very long text": "é" * 100_000,
    "bytes": b"\0\xff",
    "empty bytes": b"",
    "bytearray": bytearray(b"a"),
    "list": [1, 1.0, True, None, "a", math.inf, -0.0, 1e308, "\0"],
    "dict": {"a": {"b": [1]}, "": {}},
    "set": {1, 2},
    "datetime": datetime(2024, 5, 4, tzinfo=timezone.utc),
    "decimal": Decimal("1.10"),
    "uuid": UUID(int=1),
    "enum": Colour.RED,
    "dataclass": Point(1, 2.5),
    "model": Model(name="a", points=[1]),
    "messages": [HumanMessage("hi", id="1"), AIMessage("ho", id="2")],
    "send": Send("node", {"a": 1}),
}
BEYOND_THE_PEER = {
    "nan": math.nan,
    "infinity": -math.inf,
    "minus zero": -0.0,
    "with an exponent": 1e308,
    "beyond 64 bits": 2**70,
    "nul": "a\0b",
    "lone surrogate": "a\ud800",
}


def test_the_values_of_all_types_are_read(both: tuple[Store, Store]) -> None:
    writer, reader = both
    config = writer.save(values=VALUES)
    assert exact(reader.found(config).checkpoint["channel_values"]) == exact(VALUES)
    assert seen(reader.found(thread())) == seen(writer.found(thread()))


def test_the_peer_reads_values_of_ours_that_it_could_not_store(ours: Store, peer: Peer) -> None:
    config = ours.save(values=BEYOND_THE_PEER)
    found = peer.found(config).checkpoint["channel_values"]
    assert exact(found) == exact(BEYOND_THE_PEER)


def test_writes_are_read_in_their_order(both: tuple[Store, Store]) -> None:
    writer, reader = both
    config = writer.save(values={"a": [1]})
    writer.put_writes(config, list(VALUES.items()), "b", "2")
    writer.put_writes(config, [("a", 1), ("b", 2)], "task 2", "1")
    writer.put_writes(config, [("a", 3)], "task 1", "1")
    writer.put_writes(config, [("__error__", "old")], "task 1", "1")
    writer.put_writes(config, [("__error__", "new")], "task 1", "1")
    writer.put_writes(config, [("__interrupt__", [1]), ("__resume__", 2)], "task 2", "1")
    assert exact(reader.found(config).pending_writes) == exact(
        [
            ("task 1", "__error__", "new"),
            ("task 1", "a", 3),
            ("task 2", "__resume__", 2),
            ("task 2", "__interrupt__", [1]),
            ("task 2", "a", 1),
            ("task 2", "b", 2),
            *(("b", name, value) for name, value in VALUES.items()),
        ]
    )


def test_a_write_of_the_other_is_kept_or_replaced_by_the_same_rules(
    both: tuple[Store, Store],
) -> None:
    writer, other = both
    config = writer.save()
    writer.put_writes(config, [("a", "first")], "task")
    writer.put_writes(config, [("__error__", "first")], "task")
    other.put_writes(config, [("a", "second")], "task")
    other.put_writes(config, [("__error__", "second")], "task")
    for reader in (writer, other):
        assert reader.found(config).pending_writes == [
            ("task", "__error__", "second"),
            ("task", "a", "first"),
        ]


METADATA = {
    "run_id": "run",
    "user": {"name": "é", "tags": ["a", 1, True, None, 1.5], "empty": {}},
    "counters_since_delta_snapshot": {"delta": [1, 2]},
}


def test_metadata_is_read(both: tuple[Store, Store]) -> None:
    writer, reader = both
    config = writer.save(metadata=METADATA)
    whole = {"source": "loop", "step": 1, "parents": {}, **METADATA}
    assert exact(reader.found(config).metadata) == exact(whole)


def test_the_peer_reads_as_much_metadata_as_json_says(ours: Store, peer: Peer) -> None:
    config = ours.save(metadata={"a": math.nan, "b": {"c": "\0", "d": 1}, "e": "\ud800"})
    found = peer.found(config).metadata
    assert found == {"source": "loop", "step": 1, "parents": {}, "b": {"d": 1}}


def test_the_whole_checkpoint_is_read(both: tuple[Store, Store]) -> None:
    writer, reader = both
    first = writer.save(values={"a": [1], "b": "x"}, metadata={"run_id": "r"})
    kept = writer.found(first).checkpoint["channel_versions"]
    second = writer.save(parent=first, values={"a": [1], "b": "y"}, versions=kept, new=["b"])
    writer.put_writes(second, [("a", [2])], "task")
    for config in (first, second, thread()):
        assert seen(reader.found(config)) == seen(writer.found(config))
    assert reader.found(second).parent_config == first


def test_what_the_other_wrote_is_listed(both: tuple[Store, Store]) -> None:
    writer, reader = both
    configs = [
        writer.save(
            thread_id, {"a": number}, ns=ns, metadata={"n": number % 2, "at": {"x": number, "y": 0}}
        )
        for number, (thread_id, ns) in enumerate([("t", ""), ("u", ""), ("t", "child"), ("t", "")])
    ]
    questions: list[tuple[Any, dict[str, Any]]] = [
        (None, {}),
        (thread(), {}),
        (thread(ns=None), {}),
        (thread("t", "child"), {}),
        (None, {"filter": {"n": 1}}),
        (None, {"filter": {"at": {"x": 2}}}),
        (None, {"filter": {"n": 1, "source": "loop"}, "limit": 1}),
        (None, {"before": configs[2]}),
        (thread(), {"before": configs[3], "limit": 1}),
        (configs[0], {}),
    ]
    for config, criteria in questions:
        found = [seen(item) for item in reader.list(config, **criteria)]
        assert found == [seen(item) for item in writer.list(config, **criteria)]
        assert found


def test_pending_sends_of_an_old_checkpoint_are_read(
    both: tuple[Store, Store],
) -> None:
    writer, reader = both
    parent = writer.save(v=3, values={"a": [1]})
    writer.put_writes(parent, [(TASKS, Send("b", 1)), ("a", 1), (TASKS, Send("c", 2))], "2")
    writer.put_writes(parent, [(TASKS, Send("a", 0))], "1")
    child = writer.save(parent=parent, v=3, values={"a": [2]})
    found = reader.found(child)
    assert found.checkpoint["channel_values"][TASKS] == [Send("a", 0), Send("b", 1), Send("c", 2)]
    assert seen(found) == seen(writer.found(child))
    assert [seen(item) for item in reader.list(thread())] == [
        seen(item) for item in writer.list(thread())
    ]


def test_what_was_encrypted_is_read_with_the_key(ours: Store, peer: Peer) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    ours, other = ours.using(ours.make_saver(serde=serde)), peer.with_serde(serde)
    for writer, reader in ((ours, other), (other, ours)):
        config = writer.save(values=VALUES)
        writer.put_writes(config, [("a", "x")], "task")
        assert seen(reader.found(config)) == seen(writer.found(config))
        assert exact(reader.found(config).checkpoint["channel_values"]) == exact(VALUES)


# DeltaChannel


def delta_chain(writer: Store, seed: Any) -> list[Any]:
    """A channel that was an ordinary one, then has writes only, then a snapshot, then writes."""
    configs: list[Any] = []
    versions: dict[str, Any] = {}
    for number, value in enumerate([seed, None, None, _DeltaSnapshot(["snapshot"]), None, None]):
        versions = {"delta": writer.saver.get_next_version(versions.get("delta"), None)}
        config = writer.save(
            parent=configs[-1] if configs else None,
            values={} if value is None else {"delta": value},
            versions=versions,
            new=["delta"],
            metadata={"counters_since_delta_snapshot": {"delta": [number, number]}},
        )
        writer.put_writes(config, [("delta", [f"write {number}"]), ("other", 1)], f"task {number}")
        configs.append(config)
    return configs


@pytest.mark.parametrize(
    "seed", [["a"], "text", "long" * 100, 7, 1.0, True, {"a": 1}], ids=lambda seed: repr(seed)[:9]
)
def test_delta_history_is_read(both: tuple[Store, Store], seed: Any) -> None:
    writer, reader = both
    configs = delta_chain(writer, seed)
    before_the_snapshot = reader.history(configs[2], ["delta", "other"])
    assert exact(before_the_snapshot["delta"]["seed"]) == exact(seed)
    assert before_the_snapshot["delta"]["writes"] == [
        ("task 0", "delta", ["write 0"]),
        ("task 1", "delta", ["write 1"]),
    ]
    assert before_the_snapshot["other"] == {
        "writes": [("task 0", "other", 1), ("task 1", "other", 1)]
    }
    assert reader.history(thread(), ["delta"])["delta"] == {
        "seed": _DeltaSnapshot(["snapshot"]),
        "writes": [("task 3", "delta", ["write 3"]), ("task 4", "delta", ["write 4"])],
    }
    for config in configs:
        assert reader.history(config, ["delta"]) == writer.history(config, ["delta"])
        assert seen(reader.found(config)) == seen(writer.found(config))


# Both write one thread in turn


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[str], operator.add]
    notes: Annotated[list[str], DeltaChannel(lambda state, writes: sum(writes, state))]
    turn: int
    title: str  # short, never changes: the peer keeps it in the checkpoint, and so do we
    document: str  # long, never changes: the peer keeps it in the checkpoint, we in a blob
    story: str  # grows from short to long
    flag: Any  # None, True, 1, 1.0: one after the other
    unset: Any  # None
    picture: bytes


FLAGS = [True, 1, 1.0, None, 0, False, "", "1", 2**60, 0.1]


def make_graph(saver: Any) -> CompiledStateGraph[Any]:
    def begin(state: State) -> State:
        turn = state.get("turn", 0) + 1
        update: State = {
            "turn": turn,
            "log": [f"begin {turn}"],
            "messages": [AIMessage(f"turn {turn}", id=f"ai {turn}")],
            "story": state.get("story", "") + "once upon a time " * 3,
        }
        if turn % 3 == 1:
            update["flag"] = FLAGS[(turn // 3) % len(FLAGS)]
        if turn % 4 == 0:
            update["notes"] = [f"note {turn}"]
        return update

    def end(state: State) -> State:
        return {"log": ["end"]}

    builder = StateGraph(State)
    builder.add_node("begin", begin)
    builder.add_node("end", end)
    builder.add_edge(START, "begin")
    builder.add_edge("begin", "end")
    builder.add_edge("end", END)
    return builder.compile(checkpointer=saver)


def invoke(store: Store, graph: CompiledStateGraph[Any], value: Any, **options: Any) -> Any:
    config: RunnableConfig = {**thread(ns=None), "max_concurrency": 1}
    if store.kind.is_async:
        return store.run(graph.ainvoke(value, config, **options))
    return graph.invoke(value, config, **options)


def snapshots(store: Store, graph: CompiledStateGraph[Any]) -> list[Any]:
    """All states of the thread, oldest first, without what differs from run to run."""

    async def collect() -> list[Any]:
        return [state async for state in graph.aget_state_history(thread(ns=None))]

    states = (
        store.run(collect())
        if store.kind.is_async
        else list(graph.get_state_history(thread(ns=None)))
    )
    return [
        exact([state.values, state.next, (state.metadata or {}).get("step")])
        for state in reversed(states)
    ]


class Reference(Store):
    """The same graph in memory."""

    def __init__(self) -> None:
        self.kind = KINDS["pg-psycopg"]
        self.saver: Any = InMemorySaver()


FIRST: State = {
    "messages": [HumanMessage("hello", id="human")],
    "notes": ["first note"],
    "title": "a title",
    "document": "a long document " * 30,
    "unset": None,
    "picture": b"\0\xff",
}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_thread_goes_on_whoever_writes_it(ours: Store, peer: Store, durability: str) -> None:
    stores = [ours, peer, Reference()]
    graphs = [make_graph(store.saver) for store in stores]
    reference = 2
    # Each has turns of its own for a while, and each takes over from the other more than once.
    for turn, who in enumerate([0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1]):
        given: State = FIRST if turn == 0 else {"log": [f"turn {turn}"]}
        results = [
            invoke(stores[index], graphs[index], given, durability=durability)
            for index in (who, reference)
        ]
        assert exact(results[0]) == exact(results[1])
        assert results[0]["title"] == FIRST["title"]
        assert results[0]["document"] == FIRST["document"]
    expected = snapshots(stores[reference], graphs[reference])
    assert snapshots(ours, graphs[0]) == expected
    assert snapshots(peer, graphs[1]) == expected


def test_a_value_that_never_changes_is_there_at_every_checkpoint(ours: Store, peer: Peer) -> None:
    for number, store in enumerate((peer, ours, peer, ours, ours, peer, ours)):
        invoke(store, make_graph(store.saver), {"log": ["x"]} if number else FIRST)
    for store in (ours, peer):
        listed = [item.checkpoint["channel_values"] for item in store.list(thread())]
        values = [item for item in listed if "turn" in item]
        assert len(values) == 7 * 4 - 2  # without the first input and its step before the graph
        for name in ("document", "title", "unset", "picture"):
            assert [exact(item[name]) for item in values] == [exact(FIRST[name])] * len(values)


def interrupting_graph(saver: Any) -> CompiledStateGraph[Any]:
    def ask(state: State) -> State:
        return {"log": [f"answered {interrupt('question')}"]}

    def fan_out(state: State) -> list[Send]:
        return [Send("work", {"turn": number}) for number in range(3)]

    def work(state: State) -> State:
        return {"log": [f"worked {state['turn']}"]}

    builder = StateGraph(State)
    for name, node in (("ask", ask), ("work", work)):
        builder.add_node(name, node)
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", fan_out, ["work"])
    builder.add_edge("work", END)
    return builder.compile(checkpointer=saver)


def test_an_interrupt_of_one_is_resumed_by_the_other(
    both: tuple[Store, Store],
) -> None:
    first, second = both
    stopped = invoke(first, interrupting_graph(first.saver), {"log": ["asked"]})
    assert [item.value for item in stopped["__interrupt__"]] == ["question"]
    resumed = invoke(second, interrupting_graph(second.saver), Command(resume="yes"))
    assert resumed["log"] == ["asked", "answered yes", "worked 0", "worked 1", "worked 2"]
    assert snapshots(first, interrupting_graph(first.saver)) == snapshots(
        second, interrupting_graph(second.saver)
    )


def failing_graph(saver: Any, *, fails: bool) -> CompiledStateGraph[Any]:
    def works(state: State) -> State:
        return {"log": ["worked before the failure" if fails else "worked again"]}

    def breaks(state: State) -> State:
        if fails:
            raise ZeroDivisionError
        return {"log": ["repaired"]}

    builder = StateGraph(State)
    # In the order of their names, one at a time.
    for name, node in (("1", works), ("2", breaks)):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    return builder.compile(checkpointer=saver)


def test_a_step_that_failed_with_one_goes_on_with_the_other(
    both: tuple[Store, Store],
) -> None:
    first, second = both
    with pytest.raises(ZeroDivisionError):
        invoke(first, failing_graph(first.saver, fails=True), {"log": ["start"]})
    result = invoke(second, failing_graph(second.saver, fails=False), None)
    # What worked isn't run again: its writes are taken from the checkpoint.
    assert result["log"] == ["start", "worked before the failure", "repaired"]


def test_a_fork_of_the_others_checkpoint_leaves_its_branch_as_it_was(
    both: tuple[Store, Store],
) -> None:
    first, second = both
    invoke(first, make_graph(first.saver), FIRST)
    before = [seen(item) for item in first.list(thread())]
    base = first.list(thread())[1].config
    forks = {}
    for title, store in (("first fork", first), ("second fork", second)):
        graph = make_graph(store.saver)
        update = {"title": title, "picture": title.encode()}
        if store.kind.is_async:
            forks[title] = store.run(graph.aupdate_state(base, update))
        else:
            forks[title] = graph.update_state(base, update)
    for store in (first, second):
        assert [seen(item) for item in store.list(thread())[2:]] == before
        for title, fork in forks.items():
            values = store.found(fork).checkpoint["channel_values"]
            assert (values["title"], values["picture"]) == (title, title.encode())


# Setting up


def schema_of(database: Database) -> dict[str, Any]:
    """Describe the tables, without the peer's ledger and ours."""
    with closing(database.ours()) as store:
        columns = store.sql(
            "SELECT table_name, column_name, data_type, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_name LIKE 'checkpoint%'"
            " AND table_name NOT IN ('checkpoint_migrations', 'checkpoint_sa_version')"
        )
        indexes = store.sql(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'checkpoint%'"
            " AND tablename NOT IN ('checkpoint_migrations', 'checkpoint_sa_version')"
        )
    return {"columns": set(map(tuple, columns)), "indexes": dict(map(tuple, indexes))}


def apply(database: Database, migrations: Sequence[str]) -> None:
    """Make the tables as an older release of the peer left them, with its ledger."""
    engine = create_engine(
        make_url(database.url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        for number, statement in enumerate(migrations):
            connection.execute(text(statement))
            connection.execute(text(f"INSERT INTO checkpoint_migrations VALUES ({number})"))
    engine.dispose()


def revision(store: Store) -> str:
    return str(store.sql("SELECT version_num FROM checkpoint_sa_version")[0][0])


def test_tables_of_the_peer_are_adopted_with_their_rows(empty: Database) -> None:
    with closing(empty.peer()) as peer, closing(empty.ours()) as ours:
        peer.setup()
        first = peer.save(values=VALUES, metadata={"run_id": "r"})
        second = peer.save(parent=first, values={"a": [2]})
        peer.put_writes(second, [("a", [3])], "task")
        before, rows = peer.list(None), ours.rows()
        ours.setup()
        assert revision(ours) == migrate.HEAD
        assert ours.rows() == rows
        assert [seen(item) for item in ours.list(None)] == [seen(item) for item in before]
        assert [seen(item) for item in peer.list(None)] == [seen(item) for item in before]
        # And the peer goes on working.
        third = peer.save(parent=second, values={"a": [4]})
        assert seen(ours.found(third)) == seen(peer.found(third))


@pytest.mark.parametrize("count", range(1, len(MIGRATIONS)))
def test_tables_of_an_older_release_of_the_peer_are_completed(empty: Database, count: int) -> None:
    apply(empty, MIGRATIONS[:count])
    with closing(empty.ours()) as ours, closing(empty.peer()) as peer:
        if count > 3:
            ours.sql(
                "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint, metadata) VALUES"
                """ ('t', '1', '{"v": 1, "id": "1", "ts": "", "channel_values": {"a": 1},"""
                """ "channel_versions": {"a": 1, "b": 2}, "versions_seen": {}}', '{"step": 1}')"""
            )
            ours.sql("INSERT INTO checkpoint_blobs VALUES ('t', '', 'b', '2', 'bytes', 'x')")
            ours.sql("INSERT INTO checkpoint_writes VALUES ('t', '', '1', 'k', 0, 'a', 'null', '')")
        ours.setup()
        assert revision(ours) == migrate.HEAD
        if count > 3:
            found = ours.found(thread())
            assert found.checkpoint["channel_values"] == {"a": 1, "b": b"x"}
            assert found.pending_writes == [("k", "a", None)]
        adopted = schema_of(empty)
        peer.setup()
        config = peer.save(values=VALUES)
        peer.put_writes(config, [("a", 1)], "task", "path")
        assert seen(ours.found(config)) == seen(peer.found(config))
    assert schema_of(empty)["columns"] == adopted["columns"]


def test_the_peers_setup_changes_nothing_in_our_tables(empty: Database) -> None:
    with closing(empty.ours()) as ours, closing(empty.peer()) as peer:
        ours.setup()
        config = ours.save(values=VALUES | BEYOND_THE_PEER, metadata={"x": math.nan})
        ours.put_writes(config, [("a", 1)], "task")
        before, rows, listed = schema_of(empty), ours.rows(), ours.list(None)
        peer.setup()
        after = schema_of(empty)
        assert after["columns"] == before["columns"]
        added = after["indexes"].keys() - before["indexes"].keys()
        assert added == {f"{table}_thread_id_idx" for table in TABLES}
        assert before["indexes"].items() <= after["indexes"].items()
        assert ours.rows() == rows
        assert [seen(item) for item in ours.list(None)] == [seen(item) for item in listed]
        # Setting up once more, in any order, finds nothing to do.
        for store in (ours, peer, ours):
            store.setup()
        assert schema_of(empty) == after
        assert revision(ours) == migrate.HEAD


TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def test_both_orders_of_setting_up_end_alike(admin: Engine) -> None:
    schemas = []
    for order in ([Database.ours, Database.peer], [Database.peer, Database.ours]):
        with new_database(admin, "pg-psycopg and PostgresSaver") as database:
            for make in order:
                with closing(make(database)) as store:
                    store.setup()
            schemas.append(schema_of(database))
    assert schemas[0] == schemas[1]
    assert len(schemas[0]["columns"]) == 32


def test_both_work_in_a_schema_of_their_own(empty: Database) -> None:
    in_schema = make_url(empty.url).update_query_dict({"options": "-csearch_path=app"})
    url = in_schema.render_as_string(hide_password=False)
    with closing(empty.ours()) as store, closing(empty._replace(url=url).peer()) as peer:
        store.sql("CREATE SCHEMA app")
        ours = store.using(store.make_saver(schema="app"))
        ours.setup()
        peer.setup()
        for writer, reader in ((ours, peer), (peer, ours)):
            config = writer.save(values=VALUES)
            writer.put_writes(config, [("a", 1)], "task")
            assert seen(reader.found(config)) == seen(writer.found(config))
        assert store.count("app.checkpoints") == 2
        assert store.sql("SELECT to_regclass('public.checkpoints')") == [(None,)]


def test_a_database_that_only_the_peer_has_set_up_is_refused(empty: Database) -> None:
    with closing(empty.peer()) as peer, closing(empty.ours()) as ours:
        peer.setup()
        with pytest.raises(SchemaError, match=rf"{migrate.HEAD}.*setup\(\)"):
            ours.get_tuple(thread())


# Deleting, copying and pruning what the other wrote


def conversation(store: Store, thread_id: str = "t", length: int = 3) -> list[Any]:
    configs: list[Any] = []
    for number in range(length):
        configs.append(
            store.save(
                thread_id,
                {"a": [number], "b": number, "document": "x" * 300},
                parent=configs[-1] if configs else None,
                metadata={"run_id": f"run {number}"},
            )
        )
        store.put_writes(configs[-1], [("a", number)], f"task {number}")
    return configs


def test_runs_of_the_peer_are_found_and_deleted(ours: Store, peer: Peer) -> None:
    configs = conversation(peer)
    conversation(peer, "other")
    ours.delete_for_runs(["run 1", "run 0"])
    for store in (ours, peer):
        found = store.list(thread())
        assert [item.config for item in found] == [configs[2]]
        assert found[0].parent_config is None
        assert found[0].checkpoint["channel_values"] == {"a": [2], "b": 2, "document": "x" * 300}
        assert len(store.list(thread("other"))) == 1
    assert ours.rows() == (2, 2, 2)  # the peer has a blob for "a" alone


@pytest.mark.parametrize("strategy", ["keep_latest", "delete"])
def test_what_the_other_wrote_is_pruned(both: tuple[Store, Store], strategy: str) -> None:
    writer, pruner = both
    configs = conversation(writer)
    conversation(writer, "other")
    before, other = seen(writer.found(configs[-1])), writer.list(thread("other"))
    pruner.prune(["t"], strategy=strategy)
    for store in (writer, pruner):
        left = [seen(item) for item in store.list(thread())]
        assert left == ([] if strategy == "delete" else [before | {"parent_config": exact(None)}])
        assert [seen(i) for i in store.list(thread("other"))] == [seen(i) for i in other]


def test_nothing_unused_is_left_of_what_was_pruned(ours: Store, both: tuple[Store, Store]) -> None:
    writer, pruner = both
    conversation(writer)
    pruner.prune(["t"])
    values = writer.found(thread()).checkpoint["channel_versions"].items()
    assert ours.count("checkpoints") == 1
    assert ours.count("checkpoint_writes") == 1
    used = {(channel, str(version)) for channel, version in values}
    assert {tuple(row) for row in ours.sql("SELECT channel, version FROM checkpoint_blobs")} <= used


def test_a_delta_thread_of_the_peer_is_pruned_with_what_it_needs(ours: Store, peer: Peer) -> None:
    delta_chain(peer, ["seed"])
    before = peer.history(thread(), ["delta"])
    ours.prune(["t"])
    assert len(ours.list(thread())) == 3  # the snapshot's and the two after it
    assert peer.history(thread(), ["delta"]) == before
    assert ours.history(thread(), ["delta"]) == before


def test_a_delta_thread_of_ours_is_refused_by_the_peer(ours: Store, peer: Peer) -> None:
    configs = delta_chain(ours, ["seed"])
    with pytest.raises(NotImplementedError, match="DeltaChannel"):
        peer.prune(["t"])
    assert len(ours.list(thread())) == len(configs)


def test_a_snapshot_of_ours_is_all_that_the_peer_needs_to_refuse(ours: Store, peer: Peer) -> None:
    # On a thread's first snapshot there are no counters yet.
    ours.save(parent=ours.save(values={"delta": _DeltaSnapshot(["snapshot"])}))
    with pytest.raises(NotImplementedError, match="DeltaChannel"):
        peer.prune(["t"])
    assert len(ours.list(thread())) == 2


def test_a_thread_of_the_other_is_deleted_whole(ours: Store, both: tuple[Store, Store]) -> None:
    writer, deleter = both
    conversation(writer)
    deleter.delete_thread("t")
    assert ours.rows() == (0, 0, 0)


def test_a_copy_of_the_peers_thread_is_read_by_both(ours: Store, peer: Peer) -> None:
    configs = conversation(peer)
    ours.copy_thread("t", "copy")
    for store in (ours, peer):
        copies = store.list(thread("copy"))
        assert [id_of(item.config) for item in copies] == [id_of(c) for c in configs[::-1]]
        for copy, original in zip(copies, store.list(thread()), strict=True):
            assert copy.checkpoint == original.checkpoint
            assert copy.metadata == original.metadata
            assert copy.pending_writes == original.pending_writes
    ours.delete_for_runs(["run 0"])
    assert [len(peer.list(thread(name))) for name in ("t", "copy")] == [2, 2]
