"""What went wrong in other savers, tried on this one: every engine, the public thread beside it.

LG is langchain-ai/langgraph, JS is langchain-ai/langgraphjs, MY is tjni/langgraph-checkpoint-mysql.
Where no number is given, the bug was seen by running langgraph-checkpoint-postgres 3.2.0,
langgraph-checkpoint-sqlite 3.1.2 or langgraph-checkpoint-mysql 3.0.0.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import operator
import pickle
import subprocess
import sys
import traceback
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

import pytest
from databases import bare_store
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from stores import KINDS, ONE_PER_SERVER, Store, exact, thread

from checkpoint_sa import (
    AsyncShallowSQLAlchemySaver,
    AsyncSQLAlchemySaver,
    CorruptDataError,
    InvalidInputError,
    SchemaError,
    ShallowSQLAlchemySaver,
    SQLAlchemySaver,
    ValueTooLargeError,
    migrate,
)
from checkpoint_sa.migrate import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langgraph.graph.state import CompiledStateGraph

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

__all__ = ["bare_store"]

ASYNC = [name for name, kind in KINDS.items() if kind.is_async]
HOSTILE_CHANNELS = [":", "a:b", ".", "a.b", 'a"b', "a'b", "$.a", "a[0]", "ü", "x" * 300, "%s", ""]


def values_of(store: Store, config: Any) -> dict[str, Any]:
    return store.found(config).checkpoint["channel_values"]


def history(store: Store, config: Any, *channels: str) -> dict[str, Any]:
    return {name: dict(found) for name, found in store.history(config, channels).items()}


@contextmanager
def another_process(store: Store) -> Iterator[Store]:
    """A store on connections of its own, as another process has them."""
    with closing(Store(store.kind, store.url)) as other:
        yield other


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def make_graph(saver: Any) -> CompiledStateGraph[Any]:
    builder = StateGraph(State)
    builder.add_node("node", lambda state: {"log": [f"{len(state['log'])}"]})
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile(checkpointer=saver)


# Two forks of one checkpoint got one version, and one read the other's value (JS#2584, JS#1812)


def test_versions_made_from_one_version_differ(store: Store) -> None:
    current = None
    for _ in range(3):
        made = {store.saver.get_next_version(current, None) for _ in range(50)}
        assert len(made) == 50
        assert current is None or min(made) > current
        current = min(made)


def test_two_forks_of_one_checkpoint_keep_their_own_values(store: Store) -> None:
    base = store.save(values={"a": ["base"]})
    version = store.found(base).checkpoint["channel_versions"]["a"]
    forks = {
        name: store.save(
            values={"a": [name]},
            parent=base,
            versions={"a": store.saver.get_next_version(version, None)},
        )
        for name in ("left", "right")
    }
    assert {name: values_of(store, fork) for name, fork in forks.items()} == {
        "left": {"a": ["left"]},
        "right": {"a": ["right"]},
    }
    assert values_of(store, base) == {"a": ["base"]}


def test_two_forks_of_a_graph_keep_their_own_state(store: Store) -> None:
    graph = make_graph(store.saver)

    async def fork() -> list[Any]:
        await graph.ainvoke({"log": ["in"]}, thread(ns=None))
        states = [state async for state in graph.aget_state_history(thread(ns=None))]
        forks = [await graph.aupdate_state(states[1].config, {"log": [n]}) for n in ("l", "r")]
        return [(await graph.aget_state(config)).values["log"] for config in forks]

    assert store.run(fork()) == [["in", "l"], ["in", "r"]]


# checkpoint_ns was left out of keys, so equal ids in two namespaces were one (MY)


def test_equal_ids_in_two_namespaces_are_two_checkpoints(store: Store) -> None:
    for ns in ("", "child", "child|grandchild"):
        config = store.save(ns=ns, checkpoint_id="1", values={"a": [ns]}, versions={"a": "1"})
        store.put_writes(config, [("a", ns), ("__error__", ns)], "task")
    for ns in ("", "child", "child|grandchild"):
        found = store.found(thread("t", ns, checkpoint_id="1"))
        assert found.checkpoint["channel_values"] == {"a": [ns]}
        assert found.pending_writes == [("task", "__error__", ns), ("task", "a", ns)]
        assert [item.config for item in store.list(thread("t", ns))] == [found.config]
    assert len(store.list(thread(ns=None))) == 3


# One ordinary write in a batch kept a stale error: the rule is for each row (LG#8833, LG#8976)


@pytest.mark.parametrize("special", ["__error__", "__scheduled__", "__interrupt__", "__resume__"])
def test_a_special_write_is_replaced_whatever_is_written_with_it(
    store: Store, special: str
) -> None:
    config = store.save()
    store.put_writes(config, [(special, "stale"), ("a", "first")], "task")
    store.put_writes(config, [("a", "second"), (special, "fresh"), ("b", "new")], "task")
    assert store.found(config).pending_writes == [
        ("task", special, "fresh"),
        # Rows are known by their position: the second batch has "a" at 0, where nothing was.
        ("task", "a", "second"),
        ("task", "a", "first"),
        ("task", "b", "new"),
    ]


def test_an_ordinary_write_stays_as_first_written_whatever_is_written_with_it(
    store: Store,
) -> None:
    config = store.save()
    store.put_writes(config, [("a", "first")], "task")
    store.put_writes(config, [("a", "second"), ("__error__", "new")], "task")
    assert store.found(config).pending_writes == [
        ("task", "__error__", "new"),
        ("task", "a", "first"),
    ]


# A late write brought a deleted thread back (LG#7206)


def test_a_late_write_brings_no_deleted_thread_back(store: Store) -> None:
    config = store.save(values={"a": [1]})
    store.delete_thread("t")
    store.put_writes(config, [("a", [2])], "task")
    assert store.get_tuple(thread()) is None
    assert store.get_tuple(config) is None
    assert store.list(None) == []
    assert history(store, config, "a") == {"a": {"writes": []}}
    store.delete_thread("t")
    assert store.rows() == (0, 0, 0)


def test_a_late_write_is_not_seen_by_the_next_run_of_the_thread(store: Store) -> None:
    config = store.save(values={"a": [1]})
    store.delete_thread("t")
    store.put_writes(config, [("a", [2])], "task")
    new = store.save(values={"a": [3]})
    assert store.found(thread()).config == new
    assert store.found(thread()).pending_writes == []
    assert history(store, store.save(parent=new), "a")["a"] == {"seed": [3], "writes": []}


# A cancelled run that finished late replaced newer state in a shallow saver (LG#8810)


def test_a_late_put_replaces_nothing_newer_in_a_shallow_saver(store: Store) -> None:
    shallow = store.using(store.make_saver(shallow=True))
    first = shallow.save(checkpoint_id="1", values={"a": ["first"]})
    newest = shallow.save(checkpoint_id="3", values={"a": ["newest"]}, parent=first)
    shallow.put_writes(newest, [("a", "kept")], "task")
    late = shallow.save(checkpoint_id="2", values={"a": ["late"]}, parent=first)
    shallow.put_writes(late, [("a", "too late")], "task")
    found = shallow.found(thread())
    assert found.config == newest
    assert found.checkpoint["channel_values"] == {"a": ["newest"]}
    assert found.pending_writes == [("task", "a", "kept")]
    assert [item.config for item in shallow.list(None)] == [newest]
    assert store.count("checkpoint_blobs") == 1


# A write was never committed (aput_writes of AsyncSqliteSaver, MY#40)


def test_all_is_committed_when_a_call_returns(store: Store) -> None:
    with another_process(store) as other:
        config = store.save(values={"a": [1]}, metadata={"run_id": "r"})
        assert values_of(other, config) == {"a": [1]}
        store.put_writes(config, [("a", 2)], "task")
        assert other.found(config).pending_writes == [("task", "a", 2)]
        store.put_writes(config, [("__error__", "e")], "task")
        assert len(other.found(config).pending_writes or []) == 2
        store.copy_thread("t", "copy")
        assert values_of(other, thread("copy")) == {"a": [1]}
        child = store.save(parent=config)
        store.prune(["t"])
        assert [item.config for item in other.list(thread())] == [child]
        store.delete_for_runs(["r"])
        assert other.get_tuple(thread("copy")) is None
        store.delete_thread("t")
        assert other.rows() == (0, 0, 0)


# Migrations were known by their position, and positions shifted (LG#3080)


def test_revisions_are_known_by_name(store: Store) -> None:
    assert store.sql(f"SELECT version_num FROM {VERSION_TABLE}") == [(migrate.HEAD,)]
    # A ledger of positions, such as that of LangGraph's savers, says nothing here.
    store.sql("CREATE TABLE IF NOT EXISTS checkpoint_migrations (v INTEGER PRIMARY KEY)")
    try:
        store.sql("INSERT INTO checkpoint_migrations VALUES (99)")
        store.setup()
        config = store.using(store.make_saver()).save(values={"a": [1]})
        assert values_of(store, config) == {"a": [1]}
    finally:
        store.sql("DROP TABLE checkpoint_migrations")


# A migration that was due went unnoticed: "column task_path does not exist" (LG#3080, LG#3049)


@pytest.mark.parametrize("found", ["0001", "9999"])
def test_tables_of_another_revision_are_noticed_at_the_first_use(store: Store, found: str) -> None:
    store.sql(f"UPDATE {VERSION_TABLE} SET version_num = :found", found=found)
    try:
        late = store.using(store.make_saver())
        with pytest.raises(SchemaError, match=rf"{found}.*needs {migrate.HEAD}"):
            late.get_tuple(thread())
        with pytest.raises(SchemaError, match=rf"{found}.*needs {migrate.HEAD}"):
            late.save()
    finally:
        store.sql(f"UPDATE {VERSION_TABLE} SET version_num = :head", head=migrate.HEAD)


# Values were corrupted under concurrent async use (LG#4168)


def test_large_values_survive_concurrent_use(store: Store) -> None:
    async def write_and_read(number: int) -> None:
        value = bytes([number]) * 200_000
        config = thread(f"t{number % 4}", f"ns{number}")
        checkpoint: Any = {
            "v": 4,
            "id": "1",
            "ts": "2024-05-04T06:32:42.235444+00:00",
            "channel_values": {"a": value, "b": str(number) * 200_000},
            "channel_versions": {"a": "1", "b": "2"},
            "versions_seen": {},
        }
        stored = await store.saver.aput(config, checkpoint, {}, checkpoint["channel_versions"])
        await store.saver.aput_writes(stored, [("a", value), ("b", number)], "task")
        found = await store.saver.aget_tuple(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == checkpoint["channel_values"]
        assert found.pending_writes == [("task", "a", value), ("task", "b", number)]

    async def all_at_once() -> None:
        await asyncio.gather(*(write_and_read(number) for number in range(16)))

    store.run(all_at_once())
    listed = store.list(None)
    assert len(listed) == 16
    for item in listed:
        number = int(item.config["configurable"]["checkpoint_ns"][2:])
        assert item.checkpoint["channel_values"]["a"] == bytes([number]) * 200_000


# Null values and empty bytes were lost (MY)


def test_empty_values_are_values(store: Store) -> None:
    values: dict[str, Any] = {"none": None, "text": "", "zero": 0, "false": False}
    values |= {"bytes": b"", "bytearray": bytearray(), "list": [], "dict": {}}
    config = store.save(values=values, versions={"no value": "1"}, new=["no value", *values])
    store.put_writes(config, list(values.items()), "task")
    found = store.found(config)
    assert exact(found.checkpoint["channel_values"]) == exact(values)
    assert exact(found.pending_writes) == exact([("task", *item) for item in values.items()])


# Channel names with : . " broke JSON paths in SQL; others came back missing without an error (MY)


def test_channel_names_are_no_paths(store: Store) -> None:
    values = {name: [name] for name in HOSTILE_CHANNELS} | {f"{n}!": n for n in HOSTILE_CHANNELS}
    config = store.save(values=values)
    store.put_writes(config, list(values.items()), "task")
    found = store.found(config)
    assert found.checkpoint["channel_values"] == values
    assert found.pending_writes == [("task", *item) for item in values.items()]
    child = store.save(parent=config)
    assert history(store, child, *HOSTILE_CHANNELS) == {
        name: {"seed": [name], "writes": [("task", name, [name])]} for name in HOSTILE_CHANNELS
    }


# Old checkpoints: without channel_values, with metadata.writes, with pending sends


def rewrite(store: Store, column: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON document of the only checkpoint, as an old release would have left it."""
    is_postgresql = store.kind.server == "postgresql"
    as_text = f"CAST({column} AS TEXT)" if is_postgresql else column
    document = json.loads(store.sql(f"SELECT {as_text} FROM checkpoints")[0][0])
    change(document)
    as_json = "CAST(:document AS JSONB)" if is_postgresql else ":document"
    store.sql(f"UPDATE checkpoints SET {column} = {as_json}", document=json.dumps(document))


def test_a_checkpoint_without_channel_values_loads(store: Store) -> None:
    config = store.save(values={"a": [1], "b": "inline"})
    rewrite(store, "checkpoint", lambda document: document.pop("channel_values"))
    assert values_of(store, config) == {"a": [1]}
    assert [item.checkpoint["channel_values"] for item in store.list(None)] == [{"a": [1]}]
    child = store.save(parent=config)
    assert history(store, child, "a", "b") == {
        "a": {"seed": [1], "writes": []},
        "b": {"writes": []},
    }
    store.prune(["t"])
    assert [item.config for item in store.list(None)] == [child]


@pytest.mark.parametrize("name", ["channel_versions", "versions_seen", "v"])
def test_a_checkpoint_without_other_parts_loads(store: Store, name: str) -> None:
    config = store.save(values={"b": "inline"})
    rewrite(store, "checkpoint", lambda document: document.pop(name))
    assert values_of(store, config) == {"b": "inline"}
    assert len(store.list(None)) == 1
    store.prune(["t"])
    store.delete_for_runs(["none"])
    assert values_of(store, config) == {"b": "inline"}


def test_writes_in_the_metadata_of_old_checkpoints_load(store: Store) -> None:
    config = store.save()
    rewrite(store, "metadata", lambda document: document.update(writes={"node": {"a": 1}}))
    assert store.found(config).metadata["writes"] == {"node": {"a": 1}}  # type: ignore[typeddict-item]
    assert len(store.list(None, filter={"writes": {"node": {}}})) == 1


def test_writes_in_metadata_that_nothing_can_store_are_no_obstacle(store: Store) -> None:
    config = store.save(metadata={"writes": {"node": object()}})
    assert "writes" not in store.found(config).metadata


def test_pending_sends_before_version_4_are_carried_over(store: Store) -> None:
    parent = store.save(
        v=3, values={"a": [1]}, versions={"a": "00000000000000000000000000000007.5"}
    )
    store.put_writes(parent, [(TASKS, Send("b", 1)), ("a", [2]), (TASKS, Send("c", 2))], "2")
    store.put_writes(parent, [(TASKS, Send("a", 0))], "1")
    versions = store.found(parent).checkpoint["channel_versions"]
    child = store.save(v=3, parent=parent, versions=versions)
    found = store.found(child).checkpoint
    assert found["channel_values"] == {"a": [1], TASKS: [Send("a", 0), Send("b", 1), Send("c", 2)]}
    assert found["channel_versions"] == {"a": versions["a"], TASKS: versions["a"]}
    assert store.list(None) == [store.found(child), store.found(parent)]


def test_pending_sends_are_not_carried_over_to_a_checkpoint_of_version_4(store: Store) -> None:
    parent = store.save(v=3)
    store.put_writes(parent, [(TASKS, Send("a", 1))], "task")
    old = store.save(values={"a": 1}, v=3, parent=parent)
    new = store.save(values={"a": 2}, v=4, parent=parent)
    assert values_of(store, old) == {"a": 1, TASKS: [Send("a", 1)]}
    assert values_of(store, new) == {"a": 2}
    assert store.list(None) == [store.found(config) for config in (new, old, parent)]


# DeltaChannel


def delta_chain(store: Store, *values: Any) -> list[Any]:
    """A chain of checkpoints, each with a value of the channel (or Ellipsis) and a write to it."""
    configs: list[Any] = []
    version = None
    for number, value in enumerate(values):
        version = store.saver.get_next_version(version, None)
        config = store.save(
            parent=configs[-1] if configs else None,
            values={} if value is ... else {"delta": value},
            versions={"delta": version},
            new=["delta"],
            metadata={"counters_since_delta_snapshot": {"delta": [number, number]}},
        )
        store.put_writes(config, [("delta", f"write {number}")], f"task {number}")
        configs.append(config)
    return configs


# The first write after a channel became a DeltaChannel was dropped (LG#8384)
# Values from before that were invisible in one saver or the other (LG#8534)


SEEDS = {
    "list": ["plain"],
    "text": "text",
    "long text": "long" * 100,
    "number": 7,
    "none": None,
    "false": False,
    "empty text": "",
    "large float": 1e308,
    "snapshot": _DeltaSnapshot([1]),
}


@pytest.mark.parametrize("value", SEEDS.values(), ids=SEEDS)
def test_a_delta_starts_from_the_nearest_value_and_the_write_at_it(
    store: Store, value: Any
) -> None:
    configs = delta_chain(store, ["too old"], value, ..., ...)
    found = history(store, configs[-1], "delta")["delta"]
    assert exact(found.get("seed")) == exact(value)
    assert ("seed" in found) is (value is not None)  # a None ends the walk, and isn't one
    assert found["writes"] == [("task 1", "delta", "write 1"), ("task 2", "delta", "write 2")]


# A value without any write was read wrongly where the statement began with it (LG#8534)


def test_a_delta_that_has_a_value_and_no_writes_is_read(store: Store) -> None:
    parent = store.save(values={"delta": ["value"], "other": "x"})
    child = store.save(parent=parent)
    assert history(store, child, "delta") == {"delta": {"seed": ["value"], "writes": []}}
    assert history(store, child, "none", "other", "delta") == {
        "none": {"writes": []},
        "other": {"seed": "x", "writes": []},
        "delta": {"seed": ["value"], "writes": []},
    }


def test_a_delta_has_nothing_of_another_branch(store: Store) -> None:
    base, old, *_ = delta_chain(store, ["base"], ..., _DeltaSnapshot(["old branch"]), ...)
    fork = store.save(parent=base, versions={"delta": store.saver.get_next_version(None, None)})
    store.put_writes(fork, [("delta", "of the fork")], "fork")
    head = store.save(parent=fork)
    assert history(store, head, "delta")["delta"] == {
        "seed": ["base"],
        "writes": [("task 0", "delta", "write 0"), ("fork", "delta", "of the fork")],
    }
    assert history(store, old, "delta")["delta"]["writes"] == [("task 0", "delta", "write 0")]


# A naive keep_latest destroyed the state of a DeltaChannel (LG#8531)


def test_keeping_the_latest_keeps_what_a_delta_is_rebuilt_from(store: Store) -> None:
    configs = delta_chain(store, ["old"], ..., _DeltaSnapshot(["snapshot"]), ..., ...)
    before = history(store, thread(), "delta")
    store.prune(["t"])
    assert history(store, thread(), "delta") == before
    assert before["delta"]["writes"] == [
        ("task 2", "delta", "write 2"),
        ("task 3", "delta", "write 3"),
    ]
    assert [item.config for item in store.list(None)] == configs[:1:-1]
    assert store.rows() == (3, 1, 3)


# A clock that steps back makes an older checkpoint the latest (JS#2854)


def test_the_latest_is_the_greatest_id_whatever_was_stored_last(store: Store) -> None:
    first = store.save(checkpoint_id="5", values={"a": [5]})
    second = store.save(checkpoint_id="4", values={"a": [4]}, parent=first)
    assert store.found(thread()).config == first
    assert [item.config for item in store.list(thread())] == [first, second]
    assert [i.config for i in store.list(thread(), before=thread(checkpoint_id="5"))] == [second]


def test_a_checkpoint_with_a_smaller_id_than_its_parents_is_whole(store: Store) -> None:
    parents = None
    for number, checkpoint_id in enumerate(["5", "9", "7", "1"]):
        values = {} if number else {"delta": ["seed"]}
        parents = store.save(checkpoint_id=checkpoint_id, values=values, parent=parents)
        store.put_writes(parents, [("delta", checkpoint_id)], "task")
    found = store.found(thread(checkpoint_id="1"))
    assert found.parent_config == thread(checkpoint_id="7")
    assert history(store, found.config, "delta")["delta"] == {
        "seed": ["seed"],
        "writes": [("task", "delta", name) for name in ("5", "9", "7")],
    }


# Values that failed the put, or came back as something else (the savers for PostgreSQL and SQLite)

DIFFICULT = {
    "not a number": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "nul": "a\0b",
    "lone surrogate": "a\ud800b",
    "minus zero": -0.0,
    "large float": 1e308,
    "float that is whole": 1e22,
    "beyond 64 bits": 2**64,
    "far beyond 64 bits": -(10**200),
    "unsigned": 2**63,
}


@pytest.mark.parametrize("name", DIFFICULT)
def test_a_difficult_value_comes_back_as_it_was(store: Store, name: str) -> None:
    value = DIFFICULT[name]
    metadata = {"x": value, "nested": {"y": [value], value if isinstance(value, str) else "z": 1}}
    config = store.save(values={"a": value}, metadata=metadata)
    store.put_writes(config, [("a", value)], "task")
    for found in (store.found(config), *store.list(thread())):
        assert exact(found.checkpoint["channel_values"]) == exact({"a": value})
        assert exact(found.pending_writes) == exact([("task", "a", value)])
        assert exact(found.metadata) == exact(
            {"source": "loop", "step": 1, "parents": {}, **metadata}
        )


# An EncryptedSerializer left text in clear in the checkpoints table; plain rows were taken for
# encrypted ones (LG#8938, LG#9027)

SECRETS = {
    "text": "planted text",
    "number": 918273645546372819,
    "flag": True,
    "list": ["planted list"],
    "dict": {"planted key": "planted value"},
    "message": HumanMessage("planted message"),
    "surrogate": "planted \ud800",
    "large": 918273645546372819**3,
    "snapshot": _DeltaSnapshot(["planted snapshot"]),
}


def stored_bytes(store: Store) -> bytes:
    """All that lies in the tables."""
    parts = []
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_deltas", "checkpoint_writes"):
        for row in store.sql(f"SELECT * FROM {table}"):
            for cell in row:
                is_binary = isinstance(cell, bytes | bytearray | memoryview)
                parts.append(bytes(cell) if is_binary else repr(cell).encode())
    return b"\n".join(parts)


def encrypted(key: bytes = b"k" * 16) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


def test_no_state_lies_in_clear_text_with_an_encrypting_serializer(store: Store) -> None:
    own = store.using(store.make_saver(serde=encrypted()))
    config = own.save(values=SECRETS)
    own.put_writes(config, [*SECRETS.items(), ("__error__", "planted error")], "task")
    own.put_writes(config, [(TASKS, Send("node", "planted send"))], "sender")
    content = stored_bytes(store)
    assert b"planted" not in content
    assert b"918273645546372819" not in content
    assert (918273645546372819).to_bytes(8, "big") not in content
    assert exact(values_of(own, config)) == exact(SECRETS)
    # The same without a key: the search above finds what is there.
    plain = store.save("plain", SECRETS)
    store.put_writes(plain, list(SECRETS.items()), "task")
    assert b"planted message" in stored_bytes(store)
    assert b"918273645546372819" in stored_bytes(store)


def test_every_value_goes_through_the_serializer_that_was_given(store: Store) -> None:
    class Counting(JsonPlusSerializer):
        def __init__(self) -> None:
            super().__init__()
            self.dumped: list[Any] = []
            self.loaded = 0

        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            self.dumped.append(obj)
            return super().dumps_typed(obj)

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            self.loaded += 1
            return super().loads_typed(data)

    serde = Counting()
    own = store.using(store.make_saver(serde=serde))
    values = {"a": "text", "b": 1, "c": 1.5, "d": None, "e": True, "f": [1], "g": b""}
    config = own.save(values=values)
    assert sorted(map(repr, serde.dumped)) == sorted(map(repr, values.values()))
    own.put_writes(config, [("a", "text"), ("b", 2)], "task")
    assert serde.dumped[len(values) :] == ["text", 2]
    assert values_of(own, config) == values
    assert serde.loaded == len(values) + 2


def test_what_another_key_encrypted_is_an_error_that_shows_nothing(store: Store) -> None:
    config = store.using(store.make_saver(serde=encrypted())).save(values={"a": "planted"})
    other = store.using(store.make_saver(serde=encrypted(b"o" * 16)))
    with pytest.raises(CorruptDataError, match="another serializer or key") as error:
        other.found(config)
    shown = "".join(traceback.format_exception(error.value))
    assert "planted" not in shown
    assert "channel='a'" in shown


# Deserializing could run code (CVE-2025-64439, CVE-2026-28277)

RAN: list[str] = []


class Exploit:
    def __reduce__(self) -> Any:
        return RAN.append, ("pickle",)


EXPLOITS = {
    "pickle": ("pickle", pickle.dumps(Exploit())),
    "json constructor": (
        "json",
        json.dumps(
            {
                "lc": 2,
                "type": "constructor",
                "id": [__name__, "RAN", "append"],
                "args": ["json"],
                "method": None,
            }
        ).encode(),
    ),
    "json system": (
        "json",
        b'{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["exit 1"]}',
    ),
    "unknown": ("no such type", b"x"),
}


@pytest.mark.parametrize("name", EXPLOITS)
@pytest.mark.parametrize("table", ["checkpoint_blobs", "checkpoint_writes", "checkpoints"])
def test_a_planted_row_runs_no_code(store: Store, table: str, name: str) -> None:
    RAN.clear()
    config = store.save(values={"a": [1]}, metadata={"exact": math.nan})
    store.put_writes(config, [("a", 1)], "task")
    kind, content = EXPLOITS[name]
    column = store.engine.dialect.identifier_preparer.quote(
        "exact" if table == "checkpoints" else "blob"
    )
    tag = kind.encode() if store.kind.server in ("mariadb", "mysql") else kind
    store.sql(f"UPDATE {table} SET type = :tag, {column} = :content", tag=tag, content=content)
    try:
        found = store.found(config)
    except CorruptDataError:
        pass
    else:
        assert not isinstance(found.checkpoint["channel_values"]["a"], Exploit)
    assert RAN == []


class Secret(NamedTuple):
    """A type of an application, which a strict serializer doesn't know."""

    value: int


def test_a_strict_serializer_stays_strict_and_an_allowlist_extends_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    strict = store.make_saver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    own = store.using(strict)
    with caplog.at_level(logging.ERROR):
        config = own.save(values={"a": Secret(1)})
        assert type(values_of(own, config)["a"]) is not Secret
        allowed: Any = strict.with_allowlist([(__name__, "Secret")])
        assert values_of(store.using(allowed), config) == {"a": Secret(1)}
        assert type(values_of(store.using(allowed), config)["a"]) is Secret
        assert type(values_of(own, config)["a"]) is not Secret


# Keys of a filter became SQL (CVE-2025-67644, CVE-2026-27022)

INJECTIONS = [
    "' OR 1=1 --",
    "x') OR ('1'='1",
    'x" OR "1"="1',
    "$.x' OR '1'='1",
    "x\\' OR 1=1 -- ",
    "*",
    "**",
    "$",
    "$[*]",
    "a.b",
    "%",
    "_",
    ":step",
    "%(step)s",
    "?",
    "x'; DROP TABLE checkpoints; --",
]


@pytest.mark.parametrize("key", INJECTIONS)
def test_a_key_of_a_filter_is_no_sql(store: Store, key: str) -> None:
    store.save("other", metadata={"x": 1, "a": {"b": 1}})
    own = store.save("own", metadata={key: 1})
    for value in (1, 1.0):
        found = store.list(None, filter={key: value})
        assert [item.config for item in found] == [own]
    others: list[dict[str, Any]] = [{key: 2}, {key: key}, {key: None}, {key: {}}, {"x": key}]
    for other in (*others, {"a": {key: 1}}):
        assert store.list(None, filter=other) == []


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_value_is_no_sql(store: Store, value: str) -> None:
    store.save("other", metadata={"x": "y"})
    own = store.save(value, {value: value}, ns=value, metadata={"x": value, "run_id": value})
    store.put_writes(own, [(value, value)], value, value)
    assert [item.config for item in store.list(None, filter={"x": value})] == [own]
    assert [item.config for item in store.list(thread(value, value))] == [own]
    assert history(store, store.save(parent=own), value)[value]["seed"] == value
    store.copy_thread(value, "copy")
    assert len(store.list(thread("copy", value))) == 2
    store.delete_for_runs([value])
    store.prune([value])
    store.delete_thread(value)
    assert len(store.list(thread("other"))) == 1


# A constructor didn't take `serde` (LG#8116, LG#7695)


@pytest.mark.parametrize("saver_class", [SQLAlchemySaver, ShallowSQLAlchemySaver])
def test_every_way_to_a_saver_takes_a_serializer(tmp_path: Path, saver_class: Any) -> None:
    serde, url = encrypted(), f"sqlite:///{tmp_path / 'serde.db'}"
    with saver_class.from_conn_string(url, serde=serde) as saver:
        assert saver.serde is serde
        saver.setup()
    engine = create_engine(url)
    assert saver_class(engine, serde=serde).serde is serde
    with engine.connect() as connection:
        assert saver_class(connection, serde=serde).serde is serde
    engine.dispose()


@pytest.mark.parametrize("saver_class", [AsyncSQLAlchemySaver, AsyncShallowSQLAlchemySaver])
def test_every_way_to_an_async_saver_takes_a_serializer(tmp_path: Path, saver_class: Any) -> None:
    serde, url = encrypted(), f"sqlite+aiosqlite:///{tmp_path / 'serde.db'}"

    async def use() -> None:
        async with saver_class.from_conn_string(url, serde=serde) as saver:
            assert saver.serde is serde
            await saver.setup()
        engine = create_async_engine(url)
        assert saver_class(engine, serde=serde).serde is serde
        async with engine.connect() as connection:
            assert saver_class(connection, serde=serde).serde is serde
        await engine.dispose()

    asyncio.run(use())


# NUL characters failed the put, or were stripped (LG#1878)


def test_a_nul_is_kept_in_values_and_refused_in_keys(store: Store) -> None:
    config = store.save(values={"a": "\0", "b": ["x\0y", {"k\0": b"\0"}]}, metadata={"n\0": "\0m"})
    store.put_writes(config, [("a", "\0")], "task")
    found = store.found(config)
    assert found.checkpoint["channel_values"] == {"a": "\0", "b": ["x\0y", {"k\0": b"\0"}]}
    assert found.metadata["n\0"] == "\0m"  # type: ignore[typeddict-item]
    assert found.pending_writes == [("task", "a", "\0")]
    before = store.rows()
    for refused in (
        lambda: store.save("t\0"),
        lambda: store.save(ns="\0"),
        lambda: store.save(values={"a\0": [1]}),
        lambda: store.put_writes(config, [("a\0", 1)], "task"),
        lambda: store.put_writes(config, [("a", 1)], "task\0"),
    ):
        with pytest.raises(InvalidInputError, match="NUL"):
            refused()
    assert store.rows() == before


# ainvoke with a sync saver: NotImplementedError (LG#4193)


def test_ainvoke_works_with_either_saver(store: Store) -> None:
    graph = make_graph(store.saver)

    async def use() -> Any:
        await graph.ainvoke({"log": ["one"]}, thread(ns=None))
        return (await graph.ainvoke({"log": ["two"]}, thread(ns=None)))["log"]

    assert store.run(use()) == ["one", "1", "two", "3"]


def test_invoke_works_with_either_saver_outside_of_the_event_loop(store: Store) -> None:
    graph = make_graph(store.saver)

    async def use() -> Any:
        await store.saver.aget_tuple(thread())  # the async saver's loop is this one
        await asyncio.to_thread(graph.invoke, {"log": ["one"]}, thread(ns=None))
        return await asyncio.to_thread(graph.invoke, {"log": ["two"]}, thread(ns=None))

    assert store.run(use())["log"] == ["one", "1", "two", "3"]


@pytest.mark.parametrize("migrated_store", ASYNC, indirect=True)
def test_invoke_in_the_event_loops_own_thread_says_what_to_use(store: Store) -> None:
    graph = make_graph(store.saver)

    async def use() -> None:
        await store.saver.aget_tuple(thread())
        with pytest.raises(asyncio.InvalidStateError, match=r"ainvoke"):
            graph.invoke({"log": ["one"]}, thread(ns=None))

    store.run(use())


# Threads whose ids differ in case only were one: a user read another's state (MY on MariaDB)


def test_ids_that_collations_take_for_equal_are_different(store: Store) -> None:
    ids = ["user", "User", "USER", "üser", "user ", " user", "u\u0308ser", "user\t", "\U0001f600"]
    for name in ids:
        config = store.save(name, {name: [name]}, ns=name)
        store.put_writes(config, [(name, name)], name)
    assert store.rows() == (len(ids), len(ids), len(ids))
    for name in ids:
        found = store.found(thread(name, name))
        assert found.checkpoint["channel_values"] == {name: [name]}
        assert found.pending_writes == [(name, name, name)]
        assert store.get_tuple(thread(name, "")) is None
    store.delete_thread("user")
    assert store.get_tuple(thread("user", "user")) is None
    assert len(store.list(None)) == len(ids) - 1


# A large string dropped the connection, and the saver never recovered (MY)


def test_a_string_of_20_mb_is_stored_or_refused_and_the_saver_goes_on(store: Store) -> None:
    large = "x" * (20 * 2**20)
    packet = 2**62
    if store.kind.server in ("mariadb", "mysql"):
        packet = store.sql("SELECT @@max_allowed_packet")[0][0]
    config = store.save(values={"a": ["small"]})
    if packet < 2**25:
        with pytest.raises(ValueTooLargeError, match="max_allowed_packet"):
            store.save(values={"a": large})
        with pytest.raises(ValueTooLargeError, match="max_allowed_packet"):
            store.put_writes(config, [("a", large)], "task")
        assert store.rows() == (1, 1, 0)
    else:
        assert values_of(store, store.save("large", {"a": large})) == {"a": large}
    for number in range(5):
        assert values_of(store, store.save(values={"a": [number]})) == {"a": [number]}


# Eight processes that set up one database at once: duplicate keys

EIGHT_PROCESSES = """
import asyncio, os, sys, traceback
import alembic.command
from langgraph.checkpoint.base import empty_checkpoint
from checkpoint_sa import AsyncSQLAlchemySaver

async def set_up():
    async with AsyncSQLAlchemySaver.from_conn_string(sys.argv[1]) as saver:
        await saver.setup()
        config = {"configurable": {"thread_id": str(os.getpid()), "checkpoint_ns": ""}}
        await saver.aput(config, empty_checkpoint(), {}, {})

def child():
    try:
        asyncio.run(set_up())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

children = [os.fork() or child() for _ in range(8)]
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in children))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("bare_store", ASYNC, indirect=True)
def test_eight_processes_set_up_one_database_at_once(bare_store: Store) -> None:
    result = subprocess.run(
        [sys.executable, "-c", EIGHT_PROCESSES, bare_store.url],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert result.returncode == 0, result.stderr
    assert bare_store.sql(f"SELECT version_num FROM {VERSION_TABLE}") == [(migrate.HEAD,)]
    assert len(bare_store.list(None)) == 8
