"""DeltaChannel: what rebuilds a channel is found again, and pruning never takes it away."""

from __future__ import annotations

import itertools
import operator
import re
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from graphs import App, T, anew, joined
from langchain_core.messages import AIMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint, writes_sort_key
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Overwrite, interrupt
from sqlalchemy import delete, event, insert, make_url, update
from stores import KINDS, ONE_PER_PROTOCOL, Store, id_of, thread
from typing_extensions import TypedDict

from checkpoint_sa import Checkpoint, CheckpointBlob, CheckpointWrite, SQLAlchemySaver
from checkpoint_sa.engine.engines import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory
    from sqlalchemy import Executable

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

POSTGRESQL = [name for name, kind in KINDS.items() if kind.server == "postgresql"]

SERVERS = [name for name, kind in KINDS.items() if kind.server]

on_servers = pytest.mark.parametrize("migrated_store", SERVERS, indirect=True)
on_postgresql = pytest.mark.parametrize("migrated_store", POSTGRESQL, indirect=True)


# The history of a channel, beside what LangGraph's own walk finds


def walked(
    store: Store, config: RunnableConfig, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """Return the history as LangGraph's default finds it: one checkpoint after the other."""
    asked: Any = {"config": config, "channels": channels}
    if store.kind.is_async:
        return store.run(  # type: ignore[no-any-return]
            BaseCheckpointSaver.aget_delta_channel_history(store.saver, **asked)
        )
    return BaseCheckpointSaver.get_delta_channel_history(store.saver, **asked)


def history(store: Store, config: RunnableConfig, *channels: str) -> dict[str, Any]:
    """Return the history of channels, which is the one that LangGraph's default finds.

    But for a seed that is None: `test_a_stored_none_is_where_the_history_begins` says why.
    """
    found = dict(store.history(config, list(channels)))
    expected: dict[str, Any] = dict(walked(store, config, list(channels)))
    for entry in expected.values():
        if "seed" in entry and entry["seed"] is None:
            del entry["seed"]
    assert found == expected
    assert repr(found) == repr(expected)  # 1 is True, and a snapshot is a tuple, for ==
    return found


def values_of(entry: Any) -> list[Any]:
    """Return the values of an entry's writes."""
    return [value for _, _, value in entry["writes"]]


def step(
    store: Store,
    parent: RunnableConfig,
    *writes: tuple[str, Any],
    values: Mapping[str, Any] | None = None,
    **save: Any,
) -> RunnableConfig:
    """Save what tasks wrote from a checkpoint, then the checkpoint that was made of it."""
    for number, (channel, value) in enumerate(writes):
        store.put_writes(parent, [(channel, value)], f"task {number}", f"path {number}")
    before = store.found(parent).checkpoint["channel_versions"]
    written = {channel: store.saver.get_next_version(None, None) for channel, _ in writes}
    versions = {k: v for k, v in {**before, **written}.items() if k not in (values or {})}
    return store.save(parent=parent, values=values, versions=versions, **save)


def steps(store: Store, parent: RunnableConfig, *values: Any, **save: Any) -> list[RunnableConfig]:
    """Make a step for each value, which one task writes to the channel `log`."""
    made = [parent]
    for value in values:
        made.append(step(store, made[-1], ("log", value), **save))
    return made[1:]


def execute(store: Store, statement: Executable, rows: Sequence[dict[str, Any]] = ()) -> None:
    """Run a statement of the test's own in a transaction of its own."""
    if store.async_engine is None:
        with store.engine.begin() as connection:
            connection.execute(statement, list(rows) or None)
        return

    async def in_loop() -> None:
        assert store.async_engine is not None
        async with store.async_engine.begin() as connection:
            await connection.execute(statement, list(rows) or None)

    store.run(in_loop())


def test_writes_come_oldest_first_and_without_those_of_the_checkpoint_itself(store: Store) -> None:
    made = steps(store, store.save(), "a", "b", "c")
    store.put_writes(made[-1], [("log", "pending")], "task")
    found = history(store, made[-1], "log")
    assert found == {"log": {"writes": [("task 0", "log", value) for value in "abc"]}}


def test_every_checkpoint_has_the_history_of_its_own_ancestors(store: Store) -> None:
    first = store.save()
    made = [first, *steps(store, first, *"abcd")]
    for number, config in enumerate(made):
        assert values_of(history(store, config, "log")["log"]) == list("abcd"[:number])


def test_a_config_without_a_checkpoint_means_the_latest(store: Store) -> None:
    made = steps(store, store.save(), "a", "b")
    assert history(store, thread(), "log") == history(store, made[-1], "log")
    assert values_of(history(store, thread(), "log")["log"]) == ["a", "b"]


def test_a_snapshot_is_where_the_history_begins(store: Store) -> None:
    early = steps(store, store.save(), "a", "b")[-1]
    snapshot = step(store, early, ("log", "c"), values={"log": _DeltaSnapshot(["a", "b", "c"])})
    made = steps(store, snapshot, "d", "e")
    assert history(store, made[-1], "log") == {
        "log": {
            "writes": [("task 0", "log", "d"), ("task 0", "log", "e")],
            "seed": _DeltaSnapshot(["a", "b", "c"]),
        }
    }
    assert isinstance(history(store, made[-1], "log")["log"]["seed"], _DeltaSnapshot)


def test_a_snapshot_of_the_checkpoint_itself_is_no_ancestor(store: Store) -> None:
    early = steps(store, store.save(), "a", "b")[-1]
    snapshot = step(store, early, ("log", "c"), values={"log": _DeltaSnapshot(["a", "b", "c"])})
    assert history(store, snapshot, "log") == {
        "log": {"writes": [("task 0", "log", value) for value in "abc"]}
    }


def test_the_nearest_of_several_snapshots_counts(store: Store) -> None:
    at = store.save()
    for value in "abc":
        at = step(store, at, ("log", value), values={"log": _DeltaSnapshot([value])})
    after = steps(store, at, "d")[-1]
    assert history(store, after, "log")["log"]["seed"] == _DeltaSnapshot(["c"])
    assert values_of(history(store, after, "log")["log"]) == ["d"]


def test_a_fork_has_the_writes_of_its_own_branch(store: Store) -> None:
    base = steps(store, store.save(), "a")[-1]
    left = store.save(parent=base)
    store.put_writes(base, [("log", "b")], "task")
    left = steps(store, left, "left", "left again")[-1]
    right = steps(store, base, "right")[-1]
    right = steps(store, right, "right again")[-1]
    assert values_of(history(store, left, "log")["log"]) == [
        "a",
        "b",
        "right",
        "left",
        "left again",
    ]
    assert values_of(history(store, right, "log")["log"]) == ["a", "b", "right", "right again"]


def test_a_value_that_another_branch_stored_is_no_seed(store: Store) -> None:
    """LG#8534: the seed came from whichever branch stored one."""
    base = steps(store, store.save(), "a")[-1]
    right = step(store, base, ("log", "b"))
    left = step(store, base, values={"log": _DeltaSnapshot(["left"])})
    left = steps(store, left, "c")[-1]
    right = steps(store, right, "d")[-1]
    assert history(store, left, "log")["log"] == {
        "writes": [("task 0", "log", "c")],
        "seed": _DeltaSnapshot(["left"]),
    }
    assert "seed" not in history(store, right, "log")["log"]
    assert values_of(history(store, right, "log")["log"]) == ["a", "b", "d"]


PLAIN: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1.5,
    "",
    "text",
    "x" * 1_000,
    b"",
    b"bytes",
    [],
    {},
    ["a", {"b": None}],
    ("a",),
    2**70,
    "\0",
]


def test_a_plain_value_from_before_the_channel_was_migrated_is_the_seed(store: Store) -> None:
    """LG#8384: such a seed was invisible, or the first write after it was lost."""
    names = [f"channel {number}" for number in range(len(PLAIN))]
    at = store.save(values=dict.fromkeys(names, "older"))
    at = step(store, at, values=dict(zip(names, PLAIN, strict=True)))
    before = store.found(at).checkpoint["channel_values"]
    at = step(store, at, *((name, "first") for name in names))
    at = step(store, at, *((name, "second") for name in names))
    found = history(store, at, *names)
    for name in names:
        assert repr(found[name].get("seed")) == repr(before[name])
        assert values_of(found[name]) == ["first", "second"]


def test_a_stored_none_is_where_the_history_begins(store: Store) -> None:
    """It ends the walk, and there is no seed: the channel begins empty.

    PostgresSaver 3.2.0 leaves the seed out as well, but goes on to an older value, which the None
    had replaced. InMemorySaver and SqliteSaver give None as the seed. A DeltaChannel of today's
    LangGraph begins empty then; up to 1.2.8 it begins with None, and so does an ordinary channel
    with a reducer. Neither can add to it, and the thread can't be read any more.
    """
    at = step(store, store.save(values={"log": ["older"], "snapshot": 1}), ("log", "no part of it"))
    at = step(store, at, values={"log": None, "snapshot": _DeltaSnapshot(None)})
    at = step(store, at, ("log", "a"), ("snapshot", "a"))
    at = step(store, at, ("log", "b"))
    assert history(store, at, "log", "snapshot") == {
        "log": {"writes": [("task 0", "log", "a"), ("task 0", "log", "b")]},
        "snapshot": {"writes": [("task 1", "snapshot", "a")], "seed": _DeltaSnapshot(None)},
    }


def test_an_encrypted_none_is_where_the_history_begins(store: Store) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    secret = store.using(store.make_saver(serde=serde))
    at = step(secret, secret.save(values={"log": ["older"]}), values={"log": None})
    assert store.count("checkpoint_blobs") == 2
    at = steps(secret, at, "a")[-1]
    assert history(secret, at, "log") == {"log": {"writes": [("task 0", "log", "a")]}}


@pytest.mark.parametrize("delta", [True, False], ids=["a DeltaChannel", "a reducer again"])
def test_a_channel_that_was_none_before_it_was_a_delta_channel_is_read(
    store: Store, *, delta: bool
) -> None:
    def turns(channel: Any) -> Any:
        fields = {"log": channel}
        state: Any = TypedDict("state", fields)  # type: ignore[misc]
        builder: Any = StateGraph(state)
        builder.add_node("node", lambda _: None)
        builder.add_edge(START, "node")
        return builder

    plain = turns(list[str] | None)
    for value in (["older"], None):
        anew(store, plain).update({"log": value}, as_node="node")
    delta_channel = turns(Annotated[list[str], DeltaChannel(joined)])
    for entry in ("a", "b"):
        anew(store, delta_channel).update({"log": [entry]}, as_node="node")
    reader = delta_channel if delta else turns(Annotated[list[str], operator.add])
    for _ in range(2):
        assert anew(store, reader).state().values == {"log": ["a", "b"]}
        store.prune(["t"])


def test_an_unchanged_plain_value_is_found_where_it_was_last_valid(store: Store) -> None:
    for plain in ("inline", ["blob"]):
        store.clear()
        first = store.save(values={"log": plain})
        version = store.found(first).checkpoint["channel_versions"]["log"]
        store.put_writes(first, [("other", "before")], "task")
        second = store.save(
            parent=first, values={"log": plain}, versions={"log": version}, new=["other"][:0]
        )
        made = steps(store, second, "after")
        assert history(store, made[-1], "log")["log"] == {
            "writes": [("task 0", "log", "after")],
            "seed": plain,
        }


def test_a_value_that_its_version_still_names_is_the_seed(store: Store) -> None:
    first = store.save(values={"log": ["blob"]})
    store.put_writes(first, [("log", "no part of it")], "task")
    versions = store.found(first).checkpoint["channel_versions"]
    second = store.save(parent=first, versions=versions)
    made = steps(store, second, "after")
    assert history(store, made[-1], "log")["log"] == {
        "writes": [("task 0", "log", "after")],
        "seed": ["blob"],
    }


def test_channels_reach_back_as_far_as_each_needs(store: Store) -> None:
    at = store.save(values={"plain": "p", "other": 1})
    at = step(store, at, ("log", 1), ("plain", 1), ("near", 1))
    at = step(store, at, ("log", 2), values={"snapshot": _DeltaSnapshot([2])})
    at = step(store, at, ("plain", 3), ("snapshot", 3), ("log", 3))
    at = step(store, at, ("near", 4), ("log", 4), values={"near": ["n"]})
    at = step(store, at, ("log", 5), ("snapshot", 5))
    assert history(store, at, "snapshot", "log", "near", "plain", "unknown") == {
        "snapshot": {
            "writes": [("task 1", "snapshot", 3), ("task 1", "snapshot", 5)],
            "seed": _DeltaSnapshot([2]),
        },
        "log": {
            "writes": [
                ("task 0", "log", 1),
                ("task 0", "log", 2),
                ("task 2", "log", 3),
                ("task 1", "log", 4),
                ("task 0", "log", 5),
            ]
        },
        "near": {"writes": [], "seed": ["n"]},
        "plain": {"writes": [("task 1", "plain", 1), ("task 0", "plain", 3)], "seed": "p"},
        "unknown": {"writes": []},
    }


def test_channels_that_are_alike_are_told_apart(store: Store) -> None:
    names = ["log", "Log", "lóg", "log ", "l.g", 'l"g', "l'g", "l%g", "l$g", ":", "😀"]
    at = step(store, store.save(), *((name, [name]) for name in names))
    at = step(store, at, values={name: _DeltaSnapshot(name) for name in names[::2]})
    at = step(store, at)
    found = history(store, at, *names)
    assert [found[name].get("seed") for name in names] == [
        None if number % 2 else _DeltaSnapshot(name) for number, name in enumerate(names)
    ]
    assert [values_of(found[name]) for name in names] == [
        [[name]] if number % 2 else [] for number, name in enumerate(names)
    ]


def test_a_channel_that_is_asked_for_twice_comes_once(store: Store) -> None:
    made = steps(store, store.save(), "a", "b")
    assert list(history(store, made[-1], "log", "log")) == ["log"]
    assert values_of(history(store, made[-1], "log", "log")["log"]) == ["a", "b"]


def test_no_channels_are_no_statements(store: Store) -> None:
    made = steps(store, store.save(), "a")
    with store.statements() as statements:
        assert store.history(made[-1], []) == {}
        assert len(statements) == 0


@pytest.mark.parametrize(
    "config",
    [
        thread("unknown"),
        thread("unknown", checkpoint_id="unknown"),
        thread(checkpoint_id="unknown"),
        thread(ns="child"),
    ],
    ids=["no thread", "no checkpoint of no thread", "no checkpoint", "no namespace"],
)
def test_what_is_not_there_has_an_empty_history(store: Store, config: RunnableConfig) -> None:
    steps(store, store.save(), "a")
    assert history(store, config, "log", "other") == {
        "log": {"writes": []},
        "other": {"writes": []},
    }


def test_a_history_ends_where_an_ancestor_is_missing(store: Store) -> None:
    made = steps(store, store.save(values={"log": ["seed"]}), *"abcd")
    gone = delete(Checkpoint).where(Checkpoint.checkpoint_id == id_of(made[1]))
    execute(store, gone)
    assert history(store, made[-1], "log") == {
        "log": {"writes": [("task 0", "log", "d")]},
    }
    assert history(store, made[2], "log") == {"log": {"writes": []}}


def test_writes_of_one_step_come_in_the_order_of_the_sort_key(store: Store) -> None:
    """Paths first, then tasks, then positions: as live execution applied them."""
    first = store.save()
    paths = ["", "~__pregel_pull, b", "~__pregel_pull, a", "é", "z", "Z", "\uffff", "😀", "a ", "a"]
    expected = []
    for number, path in enumerate(paths):
        for task in ("y", "X", "x"):
            values = [f"{number} {task} {idx}" for idx in range(3)]
            store.put_writes(first, [("log", value) for value in values], task + path, path)
            expected += [
                (writes_sort_key(path, task + path, idx), value) for idx, value in enumerate(values)
            ]
    at = step(store, first)
    assert values_of(history(store, at, "log")["log"]) == [value for _, value in sorted(expected)]


def test_more_than_ten_writes_of_a_task_come_in_the_order_of_their_numbers(store: Store) -> None:
    first = store.save()
    store.put_writes(first, [("log", number) for number in range(120)], "task", "path")
    at = step(store, first)
    assert values_of(history(store, at, "log")["log"]) == list(range(120))


def test_writes_to_other_channels_are_left_out(store: Store) -> None:
    first = store.save()
    store.put_writes(
        first,
        [("log", 1), ("other", 2), ("log", 3), (ERROR, "e"), (INTERRUPT, "i"), ("Log", 4)],
        "task",
    )
    at = step(store, first)
    assert values_of(history(store, at, "log")["log"]) == [1, 3]
    assert values_of(history(store, at, ERROR)[ERROR]) == ["e"]


def test_writes_come_back_exactly(store: Store) -> None:
    written: list[Any] = [None, True, 1, b"", "", 2**70, -0.0, Overwrite(["x"]), AIMessage("hi")]
    first = store.save()
    store.put_writes(first, [("log", value) for value in written], "task")
    at = step(store, first)
    assert list(map(repr, values_of(history(store, at, "log")["log"]))) == list(map(repr, written))


def test_equal_ids_of_other_threads_and_namespaces_stay_there(store: Store) -> None:
    places = [("t", ""), ("t", "child"), ("T", ""), ("t ", "")]
    for thread_id, ns in places:
        first = store.save(thread_id, {"log": [thread_id, ns]}, ns=ns, checkpoint_id="1")
        second = step(store, first, ("log", f"a {thread_id} {ns}"), checkpoint_id="2")
        step(store, second, ("log", f"b {thread_id} {ns}"), checkpoint_id="3")
    for thread_id, ns in places:
        assert history(store, thread(thread_id, ns, checkpoint_id="3"), "log")["log"] == {
            "writes": [("task 0", "log", f"{letter} {thread_id} {ns}") for letter in "ab"],
            "seed": [thread_id, ns],
        }


def test_parents_are_followed_whatever_the_order_of_ids(store: Store) -> None:
    at = store.save(values={"log": ["seed"]}, checkpoint_id="m")
    for checkpoint_id in ("z", "a", "x", "b"):
        at = step(store, at, ("log", checkpoint_id), checkpoint_id=checkpoint_id)
    assert values_of(history(store, at, "log")["log"]) == ["z", "a", "x", "b"]
    assert history(store, at, "log")["log"]["seed"] == ["seed"]


@pytest.mark.parametrize("versions", [(1, 2, 3), (1.0, 2.0, 2.5)])
def test_versions_that_are_numbers_find_their_value(
    store: Store, versions: tuple[Any, Any, Any]
) -> None:
    first = store.save(values={"log": _DeltaSnapshot([0])}, versions={"log": versions[0]})
    store.put_writes(first, [("log", 1)], "task")
    second = store.save(parent=first, versions={"log": versions[1]})
    third = store.save(parent=second, versions={"log": versions[2]})
    assert history(store, third, "log")["log"] == {
        "writes": [("task", "log", 1)],
        "seed": _DeltaSnapshot([0]),
    }


def test_a_snapshot_is_the_value_and_not_its_marker(store: Store) -> None:
    """LangGraph marks a snapshot by a true in the checkpoint, where a plain true stands as well."""
    at = store.save(values={"log": _DeltaSnapshot(None), "plain": True})
    at = steps(store, at, "a")[-1]
    found = history(store, at, "log", "plain")
    assert repr(found["log"]["seed"]) == "_DeltaSnapshot(value=None)"
    assert found["plain"]["seed"] is True


def test_an_encrypting_serializer_has_the_same_histories(store: Store) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    secret = store.using(store.make_saver(serde=serde))
    at = secret.save(values={"log": _DeltaSnapshot(["s"]), "plain": None, "text": "x"})
    at = steps(secret, at, "a", "b")[-1]
    assert history(secret, at, "log", "plain", "text") == {
        "log": {
            "writes": [("task 0", "log", "a"), ("task 0", "log", "b")],
            "seed": _DeltaSnapshot(["s"]),
        },
        "plain": {"writes": []},
        "text": {"writes": [], "seed": "x"},
    }


def test_an_empty_value_of_langgraphs_own_saver_is_no_seed(store: Store) -> None:
    first = store.save(values={"log": ["seed"]})
    second = step(store, first, ("log", "a"))
    version = store.found(second).checkpoint["channel_versions"]["log"]
    key = {"thread_id": "t", "checkpoint_ns": "", "channel": "log", "version": version}
    execute(store, insert(CheckpointBlob), [{**key, "type": "empty", "blob": None}])
    third = step(store, second, ("log", "b"))
    assert history(store, third, "log")["log"] == {
        "writes": [("task 0", "log", "a"), ("task 0", "log", "b")],
        "seed": ["seed"],
    }


# Long chains


def long_chain(store: Store, length: int, channels: Sequence[str] = ("log",)) -> list[str]:
    """Insert a line of checkpoints, each with a write to every channel, and return their ids."""
    ids = [f"{number:08}" for number in range(length)]
    rows = []
    for number, checkpoint_id in enumerate(ids):
        row = {
            "thread_id": "t",
            "checkpoint_ns": "",
            "checkpoint_id": checkpoint_id,
            "parent_checkpoint_id": ids[number - 1] if number else None,
            "checkpoint": {
                "v": 4,
                "id": checkpoint_id,
                "ts": "2026-01-01T00:00:00+00:00",
                "channel_values": {},
                "channel_versions": {name: f"{name} {number}" for name in channels},
                "versions_seen": {},
                "updated_channels": None,
            },
            "metadata": {
                "counters_since_delta_snapshot": {name: [number, number] for name in channels}
            },
            "run_id": "",
        }
        rows.append(row)
    execute(store, insert(Checkpoint), rows)
    store_writes(store, channels[:1], ids)
    return ids


def store_writes(store: Store, channels: Sequence[str], ids: Sequence[str]) -> None:
    """Insert a write of each checkpoint's own id to channels."""
    kind, blob = "json", '"{}"'
    rows = [
        {
            "thread_id": "t",
            "checkpoint_ns": "",
            "checkpoint_id": checkpoint_id,
            "task_id": f"task {channel}",
            "idx": 0,
            "channel": channel,
            "type": kind,
            "blob": blob.format(checkpoint_id).encode(),
            "task_path": "",
        }
        for checkpoint_id in ids
        for channel in channels
    ]
    execute(store, insert(CheckpointWrite), rows)


def store_seed(store: Store, version: str) -> None:
    key = {"thread_id": "t", "checkpoint_ns": "", "channel": "log", "version": version}
    execute(store, insert(CheckpointBlob), [{**key, "type": "json", "blob": b'"seed"'}])


def test_thousands_of_ancestors_are_read_in_a_few_statements(store: Store) -> None:
    ids = long_chain(store, 3_001)
    store.history(thread("nobody"), ["log"])  # the first use checks the schema
    with store.statements() as statements:
        found = store.history(thread(), ["log"])
    assert found == {"log": {"writes": [("task log", "log", i) for i in ids[:-1]]}}
    assert len(statements) <= 13

    store_seed(store, "log 1")
    with store.statements() as statements:
        found = store.history(thread(), ["log"])
    assert found["log"]["seed"] == "seed"
    assert values_of(found["log"]) == ids[1:-1]
    assert len(statements) <= 14

    for depth in (0, 1, 2, 63, 64, 65, 66, 575, 576, 577, 578, 1_574, 1_575, 1_576, 1_577, 2_574):
        found = store.history(thread(checkpoint_id=ids[depth]), ["log"])
        assert found["log"].get("seed") == ("seed" if depth > 1 else None)
        assert values_of(found["log"]) == ids[1 if depth > 1 else 0 : depth]


def test_a_near_value_keeps_a_long_chain_unread(store: Store) -> None:
    ids = long_chain(store, 1_000)
    store_seed(store, "log 990")
    store.history(thread("nobody"), ["log"])  # the first use checks the schema
    with store.statements() as statements:
        found = store.history(thread(), ["log"])
    assert found["log"]["seed"] == "seed"
    assert values_of(found["log"]) == ids[990:-1]
    assert len(statements) == 5


@pytest.mark.parametrize("migrated_store", ["sqlite", "pg-asyncpg"], indirect=True)
def test_many_channels_of_a_long_chain_are_read_at_once(store: Store) -> None:
    """A part of the chain has 40,000 versions, more than SQLite and asyncpg take as parameters."""
    channels = [f"log {number}" for number in range(40)]
    ids = long_chain(store, 1_601, channels)
    found = store.history(thread(), channels)
    assert list(found) == channels
    assert values_of(found["log 0"]) == ids[:-1]
    assert [values_of(found[channel]) for channel in channels[1:]] == [[]] * 39


@on_postgresql
def test_a_long_chain_is_read_along_the_index_whatever_the_statistics_say(store: Store) -> None:
    """One thread that is huge among many small ones: the statistics know the small ones."""
    small = [
        {
            "thread_id": f"thread {number}",
            "checkpoint_ns": "",
            "checkpoint_id": "1",
            "checkpoint": {"v": 4},
            "metadata": {},
            "run_id": "",
        }
        for number in range(300)
    ]
    execute(store, insert(Checkpoint), small)
    store.sql("ANALYZE checkpoints")
    long_chain(store, 1_601)
    sent: list[Any] = []

    def collect(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "checkpoint_id <= " in statement:
            sent.append(("EXPLAIN (ANALYZE, BUFFERS) " + statement, parameters))

    event.listen(store.root, "before_cursor_execute", collect)
    try:
        store.history(thread(), ["log"])
    finally:
        event.remove(store.root, "before_cursor_execute", collect)
    assert len(sent) == 3
    if store.async_engine is None:
        with store.engine.connect() as connection:
            plan = connection.exec_driver_sql(*sent[2]).scalars().all()
    else:

        async def explain() -> Any:
            assert store.async_engine is not None
            async with store.async_engine.connect() as connection:
                return (await connection.exec_driver_sql(*sent[2])).scalars().all()

        plan = store.run(explain())
    pages = next(re.search(r"shared hit=(\d+)", line) for line in plan if "Buffers:" in line)
    assert pages is not None
    assert int(pages[1]) < 3_000  # a row of the index and of the table each, at most


# What prune keeps of threads with a DeltaChannel


def counted(**channels: int) -> dict[str, Any]:
    """Make the metadata by which LangGraph counts the updates of its DeltaChannels."""
    return {"counters_since_delta_snapshot": {name: [n, n] for name, n in channels.items()}}


def delta_line(store: Store, length: int, *, snapshots: Sequence[int] = ()) -> list[RunnableConfig]:
    """Save a line of checkpoints whose `log` is a DeltaChannel, with snapshots at some of them."""
    made: list[RunnableConfig] = [store.save(values={"turn": [0]})]
    since = 0
    for turn in range(1, length):
        since = 0 if turn in snapshots else since + 1
        values: dict[str, Any] = {"turn": [turn]}
        if turn in snapshots:
            values["log"] = _DeltaSnapshot(list(range(1, turn + 1)))
        metadata = counted(log=since) if since else {}
        made.append(step(store, made[-1], ("log", turn), values=values, metadata=metadata))
    return made


def ids_left(store: Store, ns: str = "") -> list[str]:
    return [id_of(found.config) for found in reversed(store.list(thread(ns=ns)))]


def test_keep_latest_keeps_the_ancestors_back_to_the_last_snapshot(store: Store) -> None:
    made = delta_line(store, 10, snapshots=(3, 6))
    before = history(store, made[-1], "log")
    assert before["log"]["seed"] == _DeltaSnapshot([1, 2, 3, 4, 5, 6])
    assert store.rows() == (10, 12, 9)
    store.prune(["t"])
    assert ids_left(store) == [id_of(config) for config in made[6:]]
    assert history(store, made[-1], "log") == before
    assert store.rows() == (4, 5, 3)
    assert store.found(made[6]).parent_config is None
    assert store.found(made[7]).parent_config == made[6]
    assert store.found(made[-1]).checkpoint["channel_values"] == {"turn": [9]}


def test_keep_latest_of_a_latest_with_a_snapshot_keeps_it_alone(store: Store) -> None:
    made = delta_line(store, 7, snapshots=(3, 6))
    store.prune(["t"])
    assert ids_left(store) == [id_of(made[-1])]
    assert store.found(thread()).checkpoint["channel_values"] == {
        "turn": [6],
        "log": _DeltaSnapshot([1, 2, 3, 4, 5, 6]),
    }
    assert store.rows() == (1, 2, 0)


def test_keep_latest_keeps_all_of_a_line_without_a_snapshot(store: Store) -> None:
    """LG#8531: the latest alone would be an empty channel."""
    made = delta_line(store, 6)
    before = history(store, made[-1], "log")
    assert values_of(before["log"]) == [1, 2, 3, 4, 5]
    rows = store.rows()
    store.prune(["t"])
    assert store.rows() == rows
    assert history(store, made[-1], "log") == before


def test_keep_latest_of_a_delta_line_again_changes_nothing(store: Store) -> None:
    made = delta_line(store, 10, snapshots=(3, 6))
    store.prune(["t"])
    rows, found = store.rows(), store.list(thread())
    store.prune(["t"])
    assert store.rows() == rows
    assert store.list(thread()) == found
    assert values_of(history(store, made[-1], "log")["log"]) == [7, 8, 9]


def test_keep_latest_deletes_the_branches_beside_a_delta_line(store: Store) -> None:
    made = delta_line(store, 6, snapshots=(3,))
    beside = step(store, made[2], ("log", "beside"), metadata=counted(log=1))
    latest = step(store, made[-1], ("log", 6), metadata=counted(log=3))
    before = history(store, latest, "log")
    store.prune(["t"])
    assert ids_left(store) == [id_of(config) for config in (*made[3:], latest)]
    assert history(store, latest, "log") == before
    assert store.get_tuple(beside) is None


def test_keep_latest_reaches_as_far_as_the_farthest_channel(store: Store) -> None:
    at = store.save()
    made = [at]
    for turn in range(1, 8):
        values = {"near": _DeltaSnapshot([turn])} if turn == 5 else {}
        values |= {"far": _DeltaSnapshot([turn])} if turn == 2 else {}
        metadata = counted(near=turn, far=turn)
        made.append(
            step(store, made[-1], ("near", turn), ("far", turn), values=values, metadata=metadata)
        )
    before = history(store, made[-1], "near", "far")
    store.prune(["t"])
    assert ids_left(store) == [id_of(config) for config in made[2:]]
    assert history(store, made[-1], "near", "far") == before
    assert [before[channel]["seed"].value for channel in ("near", "far")] == [[5], [2]]


@pytest.mark.parametrize("plain", [None, True, "", ["blob"]], ids=repr)
def test_keep_latest_keeps_the_plain_value_that_a_migrated_channel_begins_with(
    store: Store, plain: Any
) -> None:
    old = step(store, store.save(values={"log": ["older"]}), values={"log": plain})
    first = step(store, old, ("log", 1), metadata=counted(log=1))
    latest = step(store, first, ("log", 2), metadata=counted(log=2))
    before = history(store, latest, "log")
    store.prune(["t"])
    assert ids_left(store) == [id_of(config) for config in (old, first, latest)]
    assert history(store, latest, "log") == before
    assert repr(before["log"].get("seed")) == repr(plain)
    assert store.count("checkpoint_blobs") == (1 if isinstance(plain, list) else 0)


def test_keep_latest_knows_the_threads_that_langgraph_js_marks(store: Store) -> None:
    """Its checkpoints have no counters, but its DeltaChannel threads are marked at their start."""
    made = [store.save(values={"turn": [0]}, metadata={"delta_writes_versioned": True})]
    for turn in (1, 2, 3):
        values = {"turn": [turn]} | ({"log": _DeltaSnapshot([1])} if turn == 1 else {})
        made.append(step(store, made[-1], ("log", turn), values=values))
    before = history(store, made[-1], "log")
    store.prune(["t"])
    assert ids_left(store) == [id_of(config) for config in made[1:]]
    assert history(store, made[-1], "log") == before


def test_keep_latest_keeps_lines_of_several_namespaces(store: Store) -> None:
    made: dict[str, list[RunnableConfig]] = {}
    snapshots = {"": 0, "child": 2, "other": 4}
    for ns, snapshot in snapshots.items():
        made[ns] = [store.save(ns=ns)]
        for turn in range(1, 6):
            values = {"log": _DeltaSnapshot([ns, turn])} if turn == snapshot else {}
            written = ("log", [ns, turn])
            made[ns].append(
                step(store, made[ns][-1], written, values=values, metadata=counted(log=1))
            )
    before = {ns: history(store, line[-1], "log") for ns, line in made.items()}
    store.prune(["t"])
    assert {ns: history(store, line[-1], "log") for ns, line in made.items()} == before
    for ns, line in made.items():
        assert ids_left(store, ns) == [id_of(config) for config in line[snapshots[ns] :]]


def test_keep_latest_keeps_a_long_chain(store: Store) -> None:
    ids = long_chain(store, 1_300)
    store_seed(store, "log 100")
    store.prune(["t"])
    assert store.rows() == (1_200, 1, 1_200)
    found = store.history(thread(), ["log"])
    assert found["log"]["seed"] == "seed"
    assert values_of(found["log"]) == ids[100:-1]


def test_keep_latest_ends_where_an_ancestor_is_missing(store: Store) -> None:
    made = delta_line(store, 6)
    execute(store, delete(Checkpoint).where(Checkpoint.checkpoint_id == id_of(made[2])))
    before = history(store, made[-1], "log")
    store.prune(["t"])
    assert ids_left(store) == [id_of(config) for config in made[3:]]
    assert history(store, made[-1], "log") == before


def test_keep_latest_of_a_thread_that_was_copied_keeps_the_same(store: Store) -> None:
    made = delta_line(store, 10, snapshots=(6,))
    store.copy_thread("t", "copy")
    store.prune(["copy"])
    copied = [id_of(found.config) for found in reversed(store.list(thread("copy")))]
    assert copied == [id_of(config) for config in made[6:]]
    assert store.history(thread("copy"), ["log"]) == store.history(thread(), ["log"])
    assert len(ids_left(store)) == 10


@contextmanager
def before_statement(store: Store, number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do something before a statement is sent."""
    numbers = itertools.count()

    def before(*_: Any) -> None:
        if next(numbers) == number:
            action()

    event.listen(store.root, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(store.root, "before_cursor_execute", before)


def grow(saver: SQLAlchemySaver, head: CheckpointTuple, grown: list[RunnableConfig]) -> None:
    """Go two steps on from a line's ninth checkpoint, whose last snapshot is four steps back."""
    config = head.config
    for turn in (8, 9):
        saver.put_writes(config, [("log", turn)], "task 0", "path 0")
        checkpoint = empty_checkpoint()
        checkpoint["channel_versions"] = {"log": saver.get_next_version(None)}
        metadata: Any = counted(log=turn - 4)
        config = saver.put(config, checkpoint, metadata, {})
        grown.append(config)


@on_servers
def test_a_delta_line_that_grows_between_the_statements_of_prune_is_whole(store: Store) -> None:
    driver = "psycopg" if store.kind.server == "postgresql" else "pymysql"
    url = make_url(store.url).set(drivername=f"{store.kind.server}+{driver}")
    engine = make_engine(url)
    for number in itertools.count():
        store.clear()
        head = store.found(delta_line(store, 8, snapshots=(4,))[-1])
        grown: list[RunnableConfig] = []
        with before_statement(store, number, partial(grow, SQLAlchemySaver(engine), head, grown)):
            store.prune(["t"])
        if not grown:
            break
        for _ in range(2):
            found = history(store, grown[-1], "log")["log"]
            assert found["seed"] == _DeltaSnapshot([1, 2, 3, 4])
            assert values_of(found) == [5, 6, 7, 8, 9]
            store.prune(["t"])
        assert store.count("checkpoints") == 6
    engine.dispose()
    assert number >= 6


# Graphs


def diary(frequency: int, *, ask: bool = False, delta: bool = True) -> Any:
    """Build a graph that writes a log: morning, then noon and tea at a time, then evening."""

    def channel(snapshot_frequency: int) -> Any:
        reducer: Any = DeltaChannel(joined, snapshot_frequency=snapshot_frequency)
        return Annotated[list[str], reducer if delta else operator.add]

    fields = {"log": channel(frequency), "rare": channel(2 * frequency), "turn": int}
    state: Any = TypedDict("state", fields)  # type: ignore[misc]

    def says(name: str) -> Any:
        return lambda state: {"log": [f"{name} {state['turn']}"]}

    def evening(state: Any) -> Any:
        entry = interrupt("well?") if ask else "evening"
        return {"log": [f"{entry} {state['turn']}"], "rare": [f"rare {state['turn']}"]}

    builder: Any = StateGraph(state)
    for name in ("morning", "noon", "tea"):
        builder.add_node(name, says(name))
    builder.add_node("evening", evening)
    builder.add_edge(START, "morning")
    builder.add_edge("morning", "noon")
    builder.add_edge("morning", "tea")
    builder.add_edge(["noon", "tea"], "evening")
    builder.add_edge("evening", END)
    return builder


def day(turn: int, entry: str = "evening") -> list[str]:
    return [f"{what} {turn}" for what in ("day", "morning", "noon", "tea", entry)]


def days(*turns: int) -> dict[str, Any]:
    """Return the state after some turns."""
    return {
        "log": [page for turn in turns for page in day(turn)],
        "rare": [f"rare {turn}" for turn in turns],
        "turn": turns[-1],
    }


def live(app: App, *turns: int, **options: Any) -> None:
    for turn in turns:
        app.invoke({"log": [f"day {turn}"], "turn": turn}, **options)


def unreferenced(store: Store) -> Iterator[Any]:
    """Return blobs and writes that belong to no checkpoint."""
    checkpoints = store.list(None)
    keys = {tuple(found.config["configurable"].values()) for found in checkpoints}
    used = {
        (*tuple(found.config["configurable"].values())[:2], channel, str(version))
        for found in checkpoints
        for channel, version in found.checkpoint["channel_versions"].items()
    }

    def text(row: Any) -> tuple[str, ...]:
        return tuple(v.decode() if isinstance(v, bytes) else v for v in row)

    blobs = "SELECT thread_id, checkpoint_ns, channel, version FROM checkpoint_blobs"
    yield from {text(row) for row in store.sql(blobs)} - used
    writes = "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoint_writes"
    yield from {text(row) for row in store.sql(writes)} - keys


@pytest.mark.parametrize(
    ("frequency", "durability"),
    [(1, "sync"), (3, "sync"), (3, "async"), (3, "exit"), (1_000, "sync"), (1_000, "exit")],
)
def test_the_state_after_prune_is_the_state_before(
    store: Store, frequency: int, durability: str
) -> None:
    graph = diary(frequency)
    for turn in range(3):
        live(anew(store, graph), turn, durability=durability)
        before = anew(store, graph).state()
        assert before.values == days(*range(turn + 1))
        store.prune(["t"])
        after = anew(store, graph).state()
        assert (after.values, after.next, after.config) == (before.values, (), before.config)
        assert list(unreferenced(store)) == []


@pytest.mark.parametrize(("frequency", "most"), [(1, 4), (3, 16)])
def test_prune_keeps_no_more_than_back_to_the_last_snapshots(
    store: Store, frequency: int, most: int
) -> None:
    live(anew(store, diary(frequency)), *range(12))
    assert store.count("checkpoints") == 12 * 5
    store.prune(["t"])
    assert store.count("checkpoints") <= most
    assert anew(store, diary(frequency)).state().values == days(*range(12))


def test_every_state_that_prune_leaves_from_a_snapshot_on_is_the_one_it_was(store: Store) -> None:
    """What is left before the latest is there to rebuild it; its own states stay whole as well."""
    live(anew(store, diary(2)), *range(4))
    before = {id_of(state.config): state.values for state in anew(store, diary(2)).history()}
    store.prune(["t"])
    after = anew(store, diary(2)).history()
    assert after[0].values == days(*range(4))
    assert [state.values["turn"] for state in after] == [3] * len(after)
    assert [state.values["log"] for state in after] == [
        before[id_of(state.config)]["log"] for state in after
    ]


@pytest.mark.parametrize("frequency", [1, 4, 1_000])
def test_a_fork_after_prune_goes_on_from_its_own_state(store: Store, frequency: int) -> None:
    graph = diary(frequency)
    live(anew(store, graph), *range(3))
    base = next(
        state
        for state in anew(store, graph).history()
        if state.values.get("turn") == 1 and state.next == ("evening",)
    )
    fork = anew(store, graph).update({"log": ["fork"]}, base.config, as_node="tea")
    before = anew(store, graph).state()
    assert before.values["log"] == [*day(0), *day(1)[:-1], "fork"]
    store.prune(["t"])
    after = anew(store, graph).state()
    assert (after.values, after.config["configurable"]["checkpoint_id"]) == (
        before.values,
        id_of(fork),
    )
    anew(store, graph).invoke(None, T)
    live(anew(store, graph), 5)
    expected = [*day(0), *day(1)[:-1], "fork", "evening 1", *day(5)]
    assert anew(store, graph).state().values["log"] == expected
    store.prune(["t"])
    assert anew(store, graph).state().values["log"] == expected
    assert list(unreferenced(store)) == []


@pytest.mark.parametrize(
    ("frequency", "durability"), [(1, "sync"), (3, "sync"), (3, "exit"), (1_000, "exit")]
)
def test_an_interrupted_run_is_resumed_after_prune(
    store: Store, frequency: int, durability: str
) -> None:
    graph = diary(frequency, ask=True)
    for turn in range(2):
        live(anew(store, graph), turn, durability=durability)
        store.prune(["t"])
        waiting = anew(store, graph).state()
        assert waiting.next == ("evening",)
        assert [question.value for question in waiting.interrupts] == ["well?"]
        anew(store, graph).invoke(Command(resume="night"), durability=durability)
        store.prune(["t"])
    assert anew(store, graph).state().values["log"] == [*day(0, "night"), *day(1, "night")]


def test_a_channel_that_becomes_a_delta_channel_survives_prune(store: Store) -> None:
    live(anew(store, diary(1_000, delta=False)), 0, 1)
    graph = diary(1_000)
    for turn in (2, 3):
        live(anew(store, graph), turn)
        store.prune(["t"])
        assert anew(store, graph).state().values == days(*range(turn + 1))


def test_a_channel_that_was_a_delta_channel_survives_prune(store: Store) -> None:
    live(anew(store, diary(1_000)), 0, 1)
    graph = diary(1_000, delta=False)
    store.prune(["t"])
    assert anew(store, graph).state().values == days(0, 1)
    anew(store, graph).update({"turn": 1}, as_node="evening")
    store.prune(["t"])
    assert anew(store, graph).state().values == days(0, 1)
    live(anew(store, graph), 2)
    store.prune(["t"])
    assert anew(store, graph).state().values == days(0, 1, 2)


def test_an_overwritten_delta_channel_survives_prune(store: Store) -> None:
    graph = diary(1_000)
    live(anew(store, graph), 0, 1)
    anew(store, graph).update({"log": Overwrite(["anew"])}, as_node="evening")
    live(anew(store, graph), 2)
    store.prune(["t"])
    assert anew(store, graph).state().values["log"] == ["anew", *day(2)]


def test_a_copied_checkpoint_of_a_delta_channel_survives_prune(store: Store) -> None:
    """`__copy__`: a checkpoint beside the one it copies, without updates of its own."""
    graph = diary(1_000)
    live(anew(store, graph), 0, 1)
    base = anew(store, graph).history()[4]
    anew(store, graph).update(None, base.config, as_node="__copy__")
    before = anew(store, graph).state()
    assert before.values["log"] == base.values["log"]
    store.prune(["t"])
    assert anew(store, graph).state().values == before.values


@pytest.mark.parametrize("memory", [None, True], ids=["of each call", "of its own"])
def test_a_delta_channel_in_a_subgraph_survives_prune(store: Store, memory: bool | None) -> None:
    def outer() -> Any:
        child = diary(1_000, ask=True).compile(checkpointer=memory)
        builder: Any = StateGraph(diary(1_000).state_schema)
        builder.add_node("child", child)
        builder.add_edge(START, "child")
        builder.add_edge("child", END)
        return builder

    live(anew(store, outer()), 0)
    before = anew(store, outer()).state(subgraphs=True)
    store.prune(["t"])
    after = anew(store, outer()).state(subgraphs=True)
    assert after.values == before.values
    inside: list[Any] = [state.tasks[0].state for state in (before, after)]
    assert inside[0].values == inside[1].values
    assert inside[1].values["log"][-3:] == ["morning 0", "noon 0", "tea 0"]
    assert anew(store, outer()).invoke(Command(resume="night"))["log"][-1] == "night 0"
    store.prune(["t"])
    assert anew(store, outer()).state().values["log"][-1] == "night 0"
    assert list(unreferenced(store)) == []


def test_the_default_finds_a_graphs_own_histories(store: Store) -> None:
    live(anew(store, diary(3)), *range(3))
    for found in store.list(thread()):
        history(store, found.config, "log", "rare", "turn")


def test_a_prune_that_counters_alone_would_not_show_keeps_the_snapshot(store: Store) -> None:
    """The first update of a thread stores a snapshot and counts nothing."""
    graph = diary(1_000)
    anew(store, graph).update({"log": ["first"], "turn": 0}, as_node="evening")
    anew(store, graph).update({"turn": 7}, as_node="evening")
    before = anew(store, graph).state().values
    assert (before["log"], before["turn"]) == (["first"], 7)
    store.prune(["t"])
    assert anew(store, graph).state().values == before


def test_late_writes_do_not_reach_the_history_of_what_exists(store: Store) -> None:
    made = steps(store, store.save(), "a", "b")
    execute(store, update(Checkpoint).values(run_id="run"))
    store.delete_for_runs(["run"])
    store.put_writes(made[0], [("log", "late")], "task")
    assert history(store, made[-1], "log") == {"log": {"writes": []}}
