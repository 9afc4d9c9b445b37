"""Long-term memory on every engine: items, namespaces, values, batches, transactions."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from databases import SYNC, bare_store
from langgraph.graph import START, StateGraph
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.sqlite import SqliteStore
from memories import Labels, Memory
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from stores import KINDS, ONE_PER_PROTOCOL, Store, exact, thread
from test_behaviour import fails_at_each_of_its_statements

from checkpoint_sa import (
    AsyncSQLAlchemySaver,
    AsyncSQLAlchemyStore,
    CheckpointError,
    ConfigurationError,
    InvalidInputError,
    SchemaError,
    SQLAlchemySaver,
    SQLAlchemyStore,
    ValueTooLargeError,
    migrate,
)
from checkpoint_sa.store import NamespaceError, repository
from checkpoint_sa.store.namespaces import to_labels, to_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from langgraph.store.base import BaseStore, Item

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

__all__ = ["bare_store"]

NS = ("users", "1")


def on(*kinds: str) -> pytest.MarkDecorator:
    """Run a test on some of the engines."""
    return pytest.mark.parametrize("migrated_store", kinds, indirect=True)


on_each_server = on(*(name for name, kind in KINDS.items() if kind.server))
on_each_sync = on(*SYNC)


# Items


def test_an_item_is_read_as_it_was_put(memory: Memory) -> None:
    before = datetime.now(timezone.utc)
    memory.put(NS, "k", {"theme": "dark", "n": 1})
    item = memory.found(NS, "k")
    assert (item.namespace, item.key, item.value) == (NS, "k", {"theme": "dark", "n": 1})
    assert item.created_at == item.updated_at
    assert item.created_at.tzinfo is timezone.utc
    assert abs(item.created_at - before) < timedelta(seconds=30)


def test_a_put_replaces_the_value_and_keeps_the_time_of_creation(memory: Memory) -> None:
    memory.put(NS, "k", {"a": 1})
    first = memory.found(NS, "k")
    time.sleep(0.01)
    memory.put(NS, "k", {"b": 2})
    second = memory.found(NS, "k")
    assert second.value == {"b": 2}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at


def test_a_deleted_item_is_gone_and_a_missing_one_is_no_error(memory: Memory) -> None:
    memory.put(NS, "k", {"a": 1})
    memory.delete(NS, "k")
    memory.delete(NS, "k")
    assert memory.get(NS, "k") is None
    assert memory.list_namespaces() == []


def test_an_item_is_committed_when_put_returns(memory: Memory) -> None:
    memory.put(NS, "k", {"a": 1})
    other = Store(memory.on.kind, memory.on.url)
    try:
        assert Memory(other).found(NS, "k").value == {"a": 1}
    finally:
        other.close()


# Values


class Colour(str, Enum):
    RED = "red"


DEEP: Any = []
for _ in range(100):
    DEEP = [DEEP]

VALUES: dict[str, Any] = {
    "empty": {},
    "texts": {"a": "ü€😀", "b": 'quotes " and \\', "c": "' ; --", "d": "%s %(x)s :x {y}"},
    "numbers": {"a": 0, "b": -1, "c": 1.5, "d": 2**63 - 1, "e": -(2**63), "f": 1.0, "g": 1e-7},
    "others": {"a": None, "b": True, "c": False, "d": [], "e": {}, "f": [1, [2, {"x": [None]}]]},
    "not finite": {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "plain": 1},
    "floats": {"zero": -0.0, "large": 1e308, "exponent": 1e22, "small": 5e-324},
    "integers": {"large": 2**70, "larger": 10**400, "nested": [{"x": -(2**64)}]},
    "surrogates": {"a": "\ud800", "b": ["x\udfff"], "\ud800": 1},
    "nul": {"a": "\0", "b": {"x\0y": 1}, "\0": 2},
    "deep": {"deep": DEEP, "plain": "x"},
    "names": {"": 1, "a.b": 2, "$.a": 3, 'a"b': 4, "a'b": 5, "$eq": 6, "😀": 7},
    "mark": {"__checkpoint_sa__": "mine", "x": 1},
    "mark of ours": {"__checkpoint_sa__": '{"x": 2}', "x": 1},
    "mark and nan": {"__checkpoint_sa__": math.nan},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_read_back_exactly(memory: Memory, name: str) -> None:
    memory.put(NS, "k", VALUES[name])
    assert exact(memory.found(NS, "k").value) == exact(VALUES[name])
    (found,) = memory.search(NS)
    assert exact(found.value) == exact(VALUES[name])


def test_what_json_has_no_word_for_becomes_its_nearest(memory: Memory) -> None:
    memory.put(NS, "k", {"tuple": (1, (2,)), "enum": Colour.RED, "key": {Colour.RED: math.nan}})
    value = memory.found(NS, "k").value
    assert value["tuple"] == [1, [2]]
    assert type(value["enum"]) is str
    assert math.isnan(value["key"]["red"])


CYCLE: dict[str, Any] = {}
CYCLE["secret"] = CYCLE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["secret"], "The value is of type list"),
        (None, "The value is None. Use delete"),
        ({"a": {1: "secret"}}, r"A key of value\['a'\] is of type int"),
        ({"a": [b"secret"]}, r"value\['a'\]\[0\] is of type bytes"),
        ({"a": datetime.now(timezone.utc)}, r"value\['a'\] is of type datetime"),
        (CYCLE, "contains itself"),
    ],
)
def test_a_value_that_cannot_be_stored_is_an_error_that_says_where(
    memory: Memory, value: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        memory.put(NS, "k", value)
    assert "secret'" not in str(error.value).replace("['secret']", "")
    assert memory.on.count("store") == 0


@on("mariadb-pymysql", "mariadb-async", "mysql-pymysql", "mysql-async")
def test_a_value_larger_than_the_packet_is_refused(memory: Memory) -> None:
    limit = memory.on.sql("SELECT @@max_allowed_packet")[0][0]
    with pytest.raises(ValueTooLargeError, match=r"Item 'k' has .* bytes"):
        memory.put(NS, "k", {"a": "x" * int(limit)})
    memory.put(NS, "k", {"a": 1})


def test_a_batch_of_large_values_is_stored(memory: Memory) -> None:
    memory.batch([PutOp(NS, f"{i}", {"a": "x" * 300_000}) for i in range(10)])
    assert len(memory.search(NS, limit=20)) == 10


# Namespaces and keys

NAMESPACES: list[Labels] = [
    ("a",),
    ("a", "b"),
    ("a", "b", "c"),
    ("ab",),
    ("a.b",),
    ("a", "b.c"),
    ("a.b", "c"),
    ("",),
    ("", ""),
    ("a", ""),
    ("a", "", "b"),
    ("", "a"),
    (".",),
    ("..",),
    ("a", ".", "b"),
    ("A",),
    ("á",),
    ("a\u0301",),
    ("a ",),
    (" a",),
    ("a\t",),
    ("a%",),
    ("a_",),
    ("aXb",),
    ("a%002Eb",),
    (".%002E",),
    ("a/b",),
    ("a/",),
    ("a\\",),
    ("a'b",),
    ("😀", "user@example.com"),
    ("nul\0",),
    ("\ud800",),
    ("\uffff",),
    ("*",),
    ("x" * 700, "y" * 700),
]


def test_namespaces_are_exact(memory: Memory) -> None:
    memory.batch([PutOp(ns, "k", {"i": i}) for i, ns in enumerate(NAMESPACES)])
    assert memory.on.count("store") == len(NAMESPACES)
    for i, namespace in enumerate(NAMESPACES):
        item = memory.found(namespace, "k")
        assert (item.namespace, item.value) == (namespace, {"i": i})
        found = {item.namespace for item in memory.search(namespace, limit=100)}
        assert found == {ns for ns in NAMESPACES if ns[: len(namespace)] == namespace}
        listed = memory.list_namespaces(prefix=namespace)
        if "*" not in namespace:
            assert listed == sorted(found)
    assert memory.list_namespaces() == sorted(NAMESPACES)
    assert len(memory.search((), limit=100)) == len(NAMESPACES)


def test_each_namespace_has_one_text_and_ordinary_ones_that_of_postgresstore() -> None:
    assert len({to_text(ns) for ns in NAMESPACES}) == len(NAMESPACES)
    assert [to_labels(to_text(ns)) for ns in NAMESPACES] == NAMESPACES
    assert to_text(("a", "50% _x", "ü")) == "a.50% _x.ü"
    assert to_labels("") == ()
    assert to_labels("a.") == ("a", "")


KEYS = ["k", "K", "k ", " k", "", "ü", "u\u0308", "😀", "a.b", "a%", "a_", "a'\"\\", "x" * 800]


def test_keys_are_exact(memory: Memory) -> None:
    for i, key in enumerate(KEYS):
        memory.put(NS, key, {"i": i})
    for i, key in enumerate(KEYS):
        item = memory.found(NS, key)
        assert (item.key, item.value) == (key, {"i": i})
    memory.delete(NS, "K")
    assert sorted(memory.keys(NS, limit=100)) == sorted(set(KEYS) - {"K"})


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ((), "is empty"),
        (("langgraph", "x"), "LangGraph's own"),
        ((1,), "of type int"),
        ("users", "single text"),
        (("x" * 1501,), "1501 bytes, 1500 fit"),
        (("ü" * 751,), "1502 bytes"),
    ],
)
def test_a_namespace_that_cannot_be_one_is_langgraphs_error_or_a_value_error(
    memory: Memory, namespace: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        memory.put(namespace, "k", {})
    assert isinstance(error.value, InvalidNamespaceError) or "fit" in message or "bytes" in message
    assert isinstance(error.value, CheckpointError)


@pytest.mark.parametrize("key", ["x" * 801, "\0", "\ud800"])
def test_a_key_that_cannot_be_stored_is_an_error(memory: Memory, key: str) -> None:
    for act in (memory.get, memory.delete):
        with pytest.raises(InvalidInputError, match="key has"):
            act(NS, key)
    with pytest.raises(InvalidInputError, match="key has"):
        memory.put(NS, key, {})


# Searching


def put_in_order(memory: Memory, count: int) -> None:
    """Put items of which each is later than the one before, by the clock of the database."""
    memory.batch([PutOp(NS, f"{i:03}", {"i": i, "odd": i % 2}) for i in range(count)])
    later = {
        "": "strftime('%Y-%m-%d %H:%M:%f000', 'now', json_extract(value, '$.i') || ' seconds')",
        "postgresql": "now() + (value ->> 'i')::int * interval '1 second'",
        "mysql": "utc_timestamp(6) + interval json_value(value, '$.i') second",
        "mariadb": "utc_timestamp(6) + interval json_value(value, '$.i') second",
    }[memory.on.kind.server]
    memory.on.sql(f"UPDATE store SET updated_at = {later}")


def test_a_search_returns_the_latest_first_and_pages(memory: Memory) -> None:
    put_in_order(memory, 25)
    names = [f"{i:03}" for i in range(24, -1, -1)]
    assert memory.keys(NS) == names[:10]
    assert memory.keys(NS, limit=7, offset=20) == names[20:]
    assert memory.keys(NS, limit=0) == []
    assert memory.keys(NS, offset=30) == []
    assert memory.search(NS, limit=1)[0].score is None
    odd = [name for name in names if int(name) % 2]
    assert memory.keys(NS, filter={"odd": 1}, limit=5) == odd[:5]
    assert memory.keys(NS, filter={"odd": 1}, limit=5, offset=3) == odd[3:8]
    assert memory.keys(NS, filter={"i": {"$lt": 5}}, limit=3, offset=1) == ["003", "002", "001"]


def test_a_filter_that_python_answers_reads_pages(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_order(memory, 60)
    monkeypatch.setattr(repository, "_PAGE_ROWS", (7, 7))
    with memory.on.statements() as sent:
        found = memory.keys(NS, filter={"i": {"$gte": 0}}, limit=100)
    assert found == [f"{i:03}" for i in range(59, -1, -1)]
    assert len([s for s in sent.texts if s.startswith("SELECT")]) == 9
    # Items of one and the same time are passed over by namespace and key.
    memory.on.sql("UPDATE store SET updated_at = created_at")
    assert sorted(memory.keys(NS, filter={"i": {"$gte": 0}}, limit=100)) == sorted(found)


def test_namespaces_are_read_in_pages(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces = [(f"{i % 7}", f"{i:02}", "x") for i in range(30)]
    memory.batch([PutOp(ns, key, {}) for ns in namespaces for key in "ab"])
    monkeypatch.setattr(repository, "_NAMESPACES", 4)
    assert memory.list_namespaces() == sorted(namespaces)
    assert memory.list_namespaces(limit=3, offset=10) == sorted(namespaces)[10:13]
    assert memory.list_namespaces(max_depth=1) == [(f"{i}",) for i in range(7)]
    assert memory.list_namespaces(max_depth=1, limit=2, offset=1) == [("1",), ("2",)]
    assert memory.list_namespaces(suffix=("03", "*")) == [("3", "03", "x")]
    assert memory.list_namespaces(prefix=("*", "03")) == [("3", "03", "x")]


@pytest.mark.parametrize(
    "options",
    [
        {"limit": -1},
        {"offset": -1},
        {"limit": 1.5},
        {"limit": True},
        {"filter": ["x"]},
        {"filter": {"a": {"$like": "x"}}},
        {"filter": {"a": {"$gt": "secret"}}},
        {"filter": {"a": {"$gt": None}}},
        {"filter": {"a": {"$gt": 1, "b": 2}}},
        {"filter": {"a": [{"$foo": 1}]}},
        {"filter": {"a": {1: 2}}},
    ],
)
def test_a_search_that_has_no_meaning_is_an_error(memory: Memory, options: Any) -> None:
    with pytest.raises(InvalidInputError) as error:
        memory.search(NS, **options)
    assert "secret" not in str(error.value)


def test_a_list_that_has_no_meaning_is_an_error(memory: Memory) -> None:
    for options in ({"limit": -1}, {"offset": -1}, {"max_depth": -1}, {"prefix": (1,)}):
        with pytest.raises(InvalidInputError):
            memory.list_namespaces(**options)
    unknown: Any = MatchCondition("middle", ("a",))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="middle"):
        memory.batch([ListNamespacesOp((unknown,))])


# Batches


def test_reads_of_a_batch_see_what_was_there_before_its_writes(memory: Memory) -> None:
    memory.put(NS, "old", {"v": 1})
    results = memory.batch(
        [
            PutOp(NS, "new", {"v": 2}),
            GetOp(NS, "new"),
            PutOp(NS, "old", None),
            GetOp(NS, "old"),
            SearchOp(NS),
            PutOp(("other",), "x", {}),
            ListNamespacesOp(),
            GetOp(NS, "old"),
        ]
    )
    assert [results[i] for i in (0, 1, 2, 5)] == [None] * 4
    assert results[3].value == results[7].value == {"v": 1}
    assert [item.key for item in results[4]] == ["old"]
    assert results[6] == [NS]
    assert memory.keys(NS) == ["new"]


def test_the_last_write_of_a_key_counts(memory: Memory) -> None:
    memory.batch(
        [
            PutOp(NS, "a", {"v": 1}),
            PutOp(NS, "b", {"v": 1}),
            PutOp(NS, "a", {"v": 2}),
            PutOp(NS, "b", None),
            PutOp(NS, "c", None),
            PutOp(NS, "c", {"v": 3}),
        ]
    )
    assert {item.key: item.value["v"] for item in memory.search(NS)} == {"a": 2, "c": 3}


def test_an_empty_batch_and_an_unknown_operation(memory: Memory) -> None:
    assert memory.batch([]) == []
    unknown: Any = "get"
    with pytest.raises(InvalidInputError, match="Operation 1 of the batch is of type str"):
        memory.batch([PutOp(NS, "k", {}), unknown])
    assert memory.on.count("store") == 0


def test_a_bad_operation_keeps_all_of_its_batch_from_being_done(memory: Memory) -> None:
    with pytest.raises(InvalidInputError):
        memory.batch([PutOp(NS, "a", {}), PutOp(NS, "b", {"x": object()})])
    assert memory.on.count("store") == 0


def test_a_batch_is_stored_as_a_whole_or_not_at_all(memory: Memory) -> None:
    memory.batch([PutOp(NS, f"{i}", {}) for i in range(4)])

    def act(label: str) -> None:
        many = [PutOp((label,), f"{i}", {}) for i in range(200)]
        memory.batch([*many, PutOp(NS, "1", None), PutOp(NS, "2", None), GetOp(NS, "3")])

    def rows() -> Any:
        return sorted(tuple(row) for row in memory.on.sql("SELECT prefix FROM store"))

    fails_at_each_of_its_statements(memory.on, act, rows)


COUNTS: dict[str, tuple[list[Any], int]] = {
    "get": ([GetOp(NS, "1")], 1),
    "100 gets": ([GetOp(("n", f"{i % 3}"), f"{i}") for i in range(100)], 1),
    "put": ([PutOp(NS, "1", {"a": 1})], 1),
    "100 puts": ([PutOp(("n", f"{i % 3}"), f"{i}", {"a": i}) for i in range(100)], 1),
    "delete": ([PutOp(NS, "1", None)], 1),
    "100 deletes": ([PutOp(NS, f"{i}", None) for i in range(100)], 1),
    "search": ([SearchOp(NS)], 1),
    "search with a filter": ([SearchOp(NS, {"kind": "note"})], 1),
    "list": ([ListNamespacesOp()], 1),
    "puts and deletes": ([*(PutOp(NS, f"{i}", {} if i % 2 else None) for i in range(50))], 2),
    "one of each": (
        [
            GetOp(NS, "1"),
            SearchOp(NS),
            ListNamespacesOp(),
            PutOp(NS, "2", {}),
            PutOp(NS, "3", None),
        ],
        5,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_batch_is_as_few_statements_as_it_can_be(memory: Memory, name: str) -> None:
    ops, count = COUNTS[name]
    memory.batch(ops)  # which checks the schema
    with memory.on.statements() as sent:
        memory.batch(ops)
    counted = [s for s in sent.texts if not s.startswith("BEGIN")]
    assert len(counted) == count, counted


def test_hot_statements_are_compiled_once(memory: Memory) -> None:
    memory.batch([PutOp(NS, f"{i}", {}) for i in range(100)])
    cache: Any = memory.on.root._compiled_cache  # noqa: SLF001
    before = len(cache)
    for _ in range(3):
        memory.batch([PutOp(NS, f"{i}", {}) for i in range(100)])
    assert len(cache) == before


# Transactions of the caller's


def test_an_item_a_checkpoint_and_a_row_commit_together(memory: Memory) -> None:
    store = memory.on
    store.sql("DROP TABLE IF EXISTS mine")
    store.sql("CREATE TABLE mine (id INTEGER)")
    config = thread("t")

    def three(commits: bool) -> None:
        with store.engine.connect() as connection:
            SQLAlchemyStore(connection).put(NS, "k", {"a": 1})
            put_checkpoint(SQLAlchemySaver(connection), config)
            connection.execute(text("INSERT INTO mine VALUES (1)"))
            assert SQLAlchemyStore(connection).get(NS, "k") is not None
            connection.commit() if commits else connection.rollback()

    async def athree(commits: bool) -> None:
        assert store.async_engine is not None
        async with store.async_engine.connect() as connection:
            await AsyncSQLAlchemyStore(connection).aput(NS, "k", {"a": 1})
            await aput_checkpoint(AsyncSQLAlchemySaver(connection), config)
            await connection.execute(text("INSERT INTO mine VALUES (1)"))
            assert await AsyncSQLAlchemyStore(connection).aget(NS, "k") is not None
            await (connection.commit() if commits else connection.rollback())

    for commits in (False, True):
        store.run(athree(commits)) if store.kind.is_async else three(commits)
        there = (store.count("mine"), store.count("checkpoints"), store.count("store"))
        assert there == ((1, 1, 1) if commits else (0, 0, 0))
    store.sql("DROP TABLE mine")


def checkpoint() -> Any:
    from langgraph.checkpoint.base import empty_checkpoint  # noqa: PLC0415

    return empty_checkpoint()


def put_checkpoint(saver: SQLAlchemySaver, config: Any) -> None:
    saver.put(config, checkpoint(), {"source": "input", "step": -1, "parents": {}}, {})


async def aput_checkpoint(saver: AsyncSQLAlchemySaver, config: Any) -> None:
    await saver.aput(config, checkpoint(), {"source": "input", "step": -1, "parents": {}}, {})


@on_each_sync
def test_a_failed_operation_leaves_the_callers_transaction_usable(memory: Memory) -> None:
    with memory.on.engine.begin() as connection:
        store = SQLAlchemyStore(connection)
        store.put(NS, "a", {})
        with pytest.raises(InvalidInputError):
            store.put(NS, "b", {"x": object()})
        store.put(NS, "c", {})
    assert sorted(memory.keys(NS)) == ["a", "c"]


# Several writers


def test_writers_of_the_same_items_wait_for_each_other(memory: Memory) -> None:
    def ops(writer: int) -> list[PutOp]:
        order = range(50) if writer % 2 else range(49, -1, -1)
        return [PutOp(NS, f"{i}", {"writer": writer}) for i in order]

    if memory.on.kind.is_async:

        async def all_writers() -> None:
            await asyncio.gather(*(memory.store.abatch(ops(w)) for w in range(8) for _ in range(5)))

        memory.on.run(all_writers())
    else:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda w: [memory.store.batch(ops(w)) for _ in range(5)], range(8)))
    found = memory.search(NS, limit=100)
    assert len(found) == 50
    assert len({item.value["writer"] for item in found}) == 1  # a batch is one transaction


# Both colours


def test_what_is_no_engine_is_refused_with_the_line_to_write() -> None:
    wrong: Any = sqlite3.connect(":memory:")
    line = r"Write {}\({}\('sqlite.*`{} {}\.from_conn_string\('sqlite.*'\) as store:`"
    sync = line.format("SQLAlchemyStore", "create_engine", "with", "SQLAlchemyStore")
    with pytest.raises(ConfigurationError, match=sync):
        SQLAlchemyStore(wrong)
    name = "AsyncSQLAlchemyStore"
    with pytest.raises(
        ConfigurationError, match=line.format(name, "create_async_engine", "async with", name)
    ):
        AsyncSQLAlchemyStore(wrong)
    wrong.close()
    engine: Any = create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match=r"Use SQLAlchemyStore for it\."):
        AsyncSQLAlchemyStore(engine)
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(ConfigurationError, match=r"Use AsyncSQLAlchemyStore for it\."):
        SQLAlchemyStore(engine)


def test_the_sync_methods_of_an_async_store_work_from_other_threads(memory: Memory) -> None:
    store = memory.store
    if not memory.on.kind.is_async:

        async def use() -> Item | None:
            await store.aput(NS, "k", {"a": 1})
            return await store.aget(NS, "k")  # type: ignore[no-any-return]

        item = asyncio.run(use())
        assert item is not None
        assert item.value == {"a": 1}
        return
    with pytest.raises(ConfigurationError, match="Use SQLAlchemyStore with an Engine"):
        store.get(NS, "k")

    async def from_a_thread() -> Any:
        await store.aput(NS, "k", {"a": 1})
        with pytest.raises(asyncio.InvalidStateError, match=r"await store\.aget"):
            store.get(NS, "k")
        return await asyncio.to_thread(store.get, NS, "k")

    assert memory.on.run(from_a_thread()).value == {"a": 1}


# A graph


class State(TypedDict):
    said: str


def remember(state: State, *, store: BaseStore) -> State:
    store.put(("said",), state["said"], {"text": state["said"]})
    return {"said": ", ".join(sorted(item.value["text"] for item in store.search(("said",))))}


async def aremember(state: State, *, store: BaseStore) -> State:
    await store.aput(("said",), state["said"], {"text": state["said"]})
    found = await store.asearch(("said",))
    return {"said": ", ".join(sorted(item.value["text"] for item in found))}


def test_a_graph_remembers_across_threads(memory: Memory) -> None:
    builder = StateGraph(State)
    node: Any = aremember if memory.on.kind.is_async else remember
    builder.add_node("remember", node)
    builder.add_edge(START, "remember")
    graph = builder.compile(checkpointer=memory.on.saver, store=memory.store)
    for name, said in (("a", "x"), ("b", "x, y")):
        given: Any = {"said": said[-1]}
        if memory.on.kind.is_async:
            result = memory.on.run(graph.ainvoke(given, thread(name, ns=None)))
        else:
            result = graph.invoke(given, thread(name, ns=None))
        assert result == {"said": said}
    assert memory.on.count("checkpoints") == 6


# The schema, and what it is that can't work


@on_each_server
def test_a_schema_of_its_own(memory: Memory) -> None:
    other = memory.using(schema="elsewhere")
    memory.on.sql("DROP SCHEMA IF EXISTS elsewhere" + cascade(memory))
    memory.on.sql("CREATE SCHEMA elsewhere")
    with pytest.raises(SchemaError):
        other.get(NS, "k")
    other.run("setup")
    other.put(NS, "k", {"a": 1})
    assert memory.get(NS, "k") is None
    assert other.found(NS, "k").value == {"a": 1}
    assert other.list_namespaces() == [NS]
    memory.on.sql("DROP SCHEMA elsewhere" + cascade(memory))


def cascade(memory: Memory) -> str:
    return " CASCADE" if memory.on.kind.server == "postgresql" else ""


def test_an_applications_own_table_store_is_left_alone(bare_store: Store) -> None:
    bare_store.sql("CREATE TABLE store (id INTEGER, city VARCHAR(20))")
    bare_store.sql("INSERT INTO store VALUES (1, 'Bern')")
    bare_store.setup()
    bare_store.save("t", {"a": [1]})
    assert bare_store.found(thread("t")).checkpoint["channel_values"] == {"a": [1]}
    with pytest.raises(SchemaError, match="a table `store` of another layout"):
        Memory(bare_store).get(NS, "k")
    assert bare_store.sql("SELECT * FROM store") == [(1, "Bern")]
    # An index keeps its name when its table is renamed.
    bare_store.sql("CREATE INDEX idx_store_expires_at ON store (id)")
    bare_store.sql("ALTER TABLE store RENAME TO shops")
    with pytest.raises(SchemaError, match="no table `store`"):
        Memory(bare_store).get(NS, "k")
    bind: Any = bare_store.async_engine or bare_store.engine
    for revision in ("checkpoint_sa_0005", "head"):
        if bare_store.kind.is_async:
            move: Any = migrate.adowngrade if revision != "head" else migrate.aupgrade
            bare_store.run(move(bind, revision))
        else:
            (migrate.downgrade if revision != "head" else migrate.upgrade)(bind, revision)
    Memory(bare_store).put(NS, "k", {})
    assert bare_store.sql("SELECT * FROM shops") == [(1, "Bern")]


@pytest.mark.parametrize("bare_store", SYNC, indirect=True)
def test_a_downgrade_keeps_a_table_that_has_items(bare_store: Store) -> None:
    bare_store.setup()
    Memory(bare_store).put(NS, "k", {"a": 1})
    migrate.downgrade(bare_store.engine, "checkpoint_sa_0005")
    assert bare_store.count("store") == 1
    migrate.upgrade(bare_store.engine)
    assert Memory(bare_store).found(NS, "k").value == {"a": 1}
    Memory(bare_store).delete(NS, "k")
    migrate.downgrade(bare_store.engine, "checkpoint_sa_0005")
    with pytest.raises(SchemaError, match="checkpoint_sa_0005, this release needs"):
        Memory(bare_store).get(NS, "k")


def test_what_is_not_an_engine_is_refused() -> None:
    given: Any = "sqlite:///secret.db"
    with pytest.raises(ConfigurationError, match=r"SQLAlchemyStore\.from_conn_string") as error:
        SQLAlchemyStore(given)
    assert "secret" not in str(error.value)
    with pytest.raises(ConfigurationError, match=r"AsyncSQLAlchemyStore\.from_conn_string"):
        AsyncSQLAlchemyStore(given)


def test_from_conn_string_sets_up_and_disposes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with SQLAlchemyStore.from_conn_string(url) as store:
        store.setup()
        store.put(NS, "k", {"a": 1})
        assert store.metrics.operations == 2

    async def read() -> Item | None:
        async with AsyncSQLAlchemyStore.from_conn_string(url) as other:
            await other.setup()
            return await other.aget(NS, "k")

    item = asyncio.run(read())
    assert item is not None
    assert item.value == {"a": 1}


@pytest.mark.parametrize(
    "bare_store", [name for name, kind in KINDS.items() if kind.server], indirect=True
)
def test_a_lost_connection_is_retried(bare_store: Store) -> None:
    """The other faults are those of the saver's operations, which run the same way.

    A database of its own: all connections to it are killed, whoever has them.
    """
    bare_store.setup()
    memory = Memory(bare_store)
    memory.put(NS, "k", {"a": 1})
    kill: Callable[[], None] = kill_connections(memory.on)
    kill()
    memory.put(NS, "k", {"a": 2})
    kill()
    assert memory.found(NS, "k").value == {"a": 2}
    assert memory.store.metrics.retries >= 1


def kill_connections(store: Store) -> Callable[[], None]:
    def kill() -> None:
        other = Store(store.kind, store.url)
        if store.kind.server == "postgresql":
            other.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        else:
            own = other.sql("SELECT connection_id()")[0][0]
            for (number,) in other.sql(
                "SELECT id FROM information_schema.processlist WHERE db = database()"
            ):
                if number != own:
                    other.sql(f"KILL {int(number)}")
        other.close()

    return kill


def test_importing_the_package_does_not_load_the_store() -> None:
    program = (
        "import sys, checkpoint_sa; from checkpoint_sa import SQLAlchemySaver;"
        "assert 'checkpoint_sa.store' not in sys.modules;"
        "from checkpoint_sa import SQLAlchemyStore, AsyncSQLAlchemyStore;"
        "assert 'checkpoint_sa.store' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_namespace_error_is_in_both_trees() -> None:
    assert issubclass(NamespaceError, InvalidInputError)
    assert issubclass(NamespaceError, InvalidNamespaceError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": {"default": 60}}, "`ttl` has no 'default'.*default_ttl"),
        ({"ttl": 60}, "`ttl` is of type int.*default_ttl"),
        ({"index": {"dims": 2, "embed": len, "field": ["x"]}}, "`index` has no 'field'.*fields"),
        ({"index": [2]}, "`index` is of type list"),
        ({"retry_seconds": "10"}, "retry_seconds is of type str"),
    ],
)
def test_a_misspelled_option_is_refused(
    sqlite_store: Store, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SQLAlchemyStore(sqlite_store.engine, **options)


@pytest.mark.parametrize("bare_store", ["sqlite", "aiosqlite"], indirect=True)
def test_setup_refuses_a_table_of_langgraphs_sqlitestore(bare_store: Store) -> None:
    with SqliteStore.from_conn_string(str(bare_store.engine.url.database)) as peer:
        peer.setup()
        peer.put(NS, "k", {"a": 1})
    with pytest.raises(SchemaError, match="a table `store` of another layout"):
        Memory(bare_store).run("setup")
