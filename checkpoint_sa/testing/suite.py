"""Tests of the behaviour that all engines share: for `from checkpoint_sa.testing.suite import *`.

They call every operation of a saver: checkpoints are stored, read, listed, copied, rewritten,
pruned and deleted. The tests need a fixture `store`, a `checkpoint_sa.testing.Store` without
checkpoints.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from langgraph.checkpoint.base import WRITES_IDX_MAP, empty_checkpoint, writes_sort_key
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED, TASKS
from langgraph.types import Send

from checkpoint_sa import Deleted, ThreadExistsError
from checkpoint_sa.testing.store import Store, id_of, thread

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import Checkpoint


ALIKE = [
    "abc",
    "ABC",
    "Abc",
    "ábc",
    "a\u0301bc",  # á as two code points
    "abç",
    "abc ",
    "abc  ",
    " abc",
    "abc\t",
    "abc\n",
    "abß",
    "abss",
    "ａｂｃ",  # noqa: RUF001 - full width
    "😀",
    "😁",
    "a%c",
    "a_c",
    "a'c",
    'a"c',
    "a\\c",
    "0",
    "00",
    "0.0",
    "null",
]
"""Different names that some collation, padding or number conversion compares as equal."""


def checkpoint(
    checkpoint_id: str, values: dict[str, Any] | None = None, versions: dict[str, Any] | None = None
) -> Checkpoint:
    made = empty_checkpoint()
    made["v"] = 4
    made["id"] = checkpoint_id
    made["channel_values"] = values or {}
    made["channel_versions"] = versions or {}
    return made


def namespace(levels: int) -> str:
    """Make the namespace of nested subgraphs, as LangGraph does: `node:uuid|node:uuid|...`."""
    digests = (hashlib.sha256(str(level).encode()).hexdigest() for level in range(levels))
    return "|".join(
        f"sub_graph_{level:02}:{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:32]}"
        for level, d in enumerate(digests)
    )


def incompressible(size: int) -> str:
    """Make text of `size` bytes that no engine's index compression shortens."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:|"
    stream = itertools.chain.from_iterable(
        hashlib.sha256(str(number).encode()).digest() for number in itertools.count()
    )
    return "".join(alphabet[byte % 64] for byte in itertools.islice(stream, size))


# Values that are read back


def test_all_of_a_checkpoint_comes_back(store: Store) -> None:
    made: Checkpoint = {
        "v": 4,
        "id": "1ef4f797-8335-6428-8001-8a1503f9b875",
        "ts": "2024-07-31T20:14:19.804150+00:00",
        "channel_values": {"a": 1, "b": ["x"]},
        "channel_versions": {"a": "2.5", "b": "3.25", "gone": "4.125"},
        "versions_seen": {"node": {"a": "2.5"}, "__input__": {}},
        "updated_channels": ["a", "b"],
    }
    config = store.put(thread("t", "ns"), made, {"source": "input", "step": -1}, {"b": "3.25"})
    assert config == thread("t", "ns", checkpoint_id=made["id"])
    found = store.found(config)
    assert found.checkpoint == made
    assert found.config == config
    assert found.metadata == {"source": "input", "step": -1}
    assert found.parent_config is None
    assert found.pending_writes == []


def test_put_leaves_its_arguments_as_they_are(store: Store) -> None:
    made = checkpoint("1", {"a": 1, "b": [1]}, {"a": "1", "b": "1"})
    metadata = {"source": "loop", "writes": {"node": 1}}
    config = {**thread("t"), "metadata": {"user": "u"}}
    before = json.dumps([made, metadata, config])
    store.put(config, made, metadata, {"a": "1", "b": "1"})  # type: ignore[arg-type]
    assert json.dumps([made, metadata, config]) == before


@pytest.mark.parametrize(
    "config",
    [
        thread("other"),
        thread("t", "other"),
        thread("t", checkpoint_id="other"),
        thread("t", "other", checkpoint_id="1"),
        thread("T"),
        thread(""),
    ],
    ids=str,
)
def test_what_is_not_there_is_none(store: Store, config: RunnableConfig) -> None:
    store.save("t", {"x": [1]}, checkpoint_id="1")
    assert store.get_tuple(config) is None


def test_the_latest_checkpoint_has_the_greatest_id(store: Store) -> None:
    for checkpoint_id in ("2", "9", "10", "5"):
        store.save("t", {"x": checkpoint_id}, checkpoint_id=checkpoint_id)
    assert id_of(store.found(thread()).config) == "9"


def test_the_greatest_id_is_that_of_its_code_points(store: Store) -> None:
    ids = ["A", "Z", "_", "a", "b", "ä", "é", "Ω", "€", "\uffee", "😀"]
    for number, checkpoint_id in enumerate(sorted(ids)):
        store.save("t", {"x": number}, checkpoint_id=checkpoint_id)
        assert id_of(store.found(thread()).config) == checkpoint_id
    assert [id_of(item.config) for item in store.list(thread())] == sorted(ids, reverse=True)


def test_a_clock_that_steps_back_makes_no_older_checkpoint_the_latest(store: Store) -> None:
    later = store.save("t", {"x": 1}, checkpoint_id="1f000000-0000-6000-8000-000000000000")
    store.save("t", {"x": 2}, parent=later, checkpoint_id="1e000000-0000-6000-8000-000000000000")
    assert store.found(thread()).config == later


def test_each_namespace_has_a_latest_of_its_own(store: Store) -> None:
    store.save("t", {"x": 1}, checkpoint_id="2")
    store.save("t", {"x": 2}, checkpoint_id="1", ns="sub")
    assert store.found(thread("t")).checkpoint["channel_values"] == {"x": 1}
    assert store.found(thread("t", "sub")).checkpoint["channel_values"] == {"x": 2}


# Keys


def test_namespaces_are_exact(store: Store) -> None:
    names = ["", *ALIKE]
    for name in names:
        config = store.save("t", {"x": [name]}, ns=name, checkpoint_id="1", versions={"x": "1"})
        store.put_writes(config, [("x", name)], "task")
    for name in names:
        found = store.found(thread("t", name))
        assert found.config == thread("t", name, checkpoint_id="1")
        assert found.checkpoint["channel_values"] == {"x": [name]}
        assert found.pending_writes == [("task", "x", name)]


def test_checkpoint_ids_are_exact(store: Store) -> None:
    for name in ALIKE:
        store.put_writes(store.save("t", {"x": name}, checkpoint_id=name), [("x", name)], "task")
    for name in ALIKE:
        found = store.found(thread("t", checkpoint_id=name))
        assert found.config == thread("t", checkpoint_id=name)
        assert found.checkpoint["channel_values"] == {"x": name}
        assert found.pending_writes == [("task", "x", name)]


def test_parents_are_exact(store: Store) -> None:
    for number, name in enumerate(ALIKE):
        parent = thread("t", checkpoint_id=name)
        child = store.save(parent=parent, checkpoint_id=str(number))
        assert store.found(child).parent_config == parent


def test_channels_and_their_versions_are_exact(store: Store) -> None:
    names = [*ALIKE, "a.b", "$", "a:b", "[0]", "a b", "ü", "c" * 300]
    one = store.save("t", {name: [name, 1] for name in names}, versions=dict.fromkeys(names, "v"))
    two = store.save(
        "t", {name: [name, 2] for name in names}, versions=dict.fromkeys(names, "V"), parent=one
    )
    assert store.found(one).checkpoint["channel_values"] == {name: [name, 1] for name in names}
    assert store.found(two).checkpoint["channel_values"] == {name: [name, 2] for name in names}


def test_task_ids_are_exact(store: Store) -> None:
    config = store.save()
    for name in ALIKE:
        store.put_writes(config, [("x", name)], name)
    written = store.found(config).pending_writes
    assert written == [(name, "x", name) for name in sorted(ALIKE)]


@pytest.mark.parametrize("ns", [None, ""], ids=["missing", "empty"])
def test_the_namespace_is_empty_by_default(store: Store, ns: str | None) -> None:
    config = store.put(thread("t", ns), checkpoint("1"), {}, {})
    assert config == thread("t", "", checkpoint_id="1")
    store.put_writes(thread("t", ns, checkpoint_id="1"), [("x", 1)], "task")
    found = store.found(thread("t", ns))
    assert found.config == config
    assert found.pending_writes == [("task", "x", 1)]


def test_a_namespace_that_is_none_is_the_empty_one(store: Store) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": None}}
    assert store.put(config, checkpoint("1"), {}, {}) == thread("t", "", checkpoint_id="1")
    assert store.found(config).config == thread("t", "", checkpoint_id="1")


def test_forty_levels_of_subgraphs_fit(store: Store) -> None:
    ns = namespace(40)
    assert len(ns) > 1900
    config = store.save("1ef4f797-8335-6428-8001-8a1503f9b875", {"messages": [1]}, ns=ns)
    store.put_writes(config, [("messages", 2)], "1ef4f797-8335-6428-8001-8a1503f9b876")
    found = store.found(config)
    assert found.config["configurable"]["checkpoint_ns"] == ns
    assert found.checkpoint["channel_values"] == {"messages": [1]}
    assert found.pending_writes == [("1ef4f797-8335-6428-8001-8a1503f9b876", "messages", 2)]


@pytest.mark.parametrize("ns", [incompressible(2000), "é" * 1000], ids=["mixed", "two-byte"])
def test_a_namespace_of_2000_bytes_works(store: Store, ns: str) -> None:
    config = store.save("t", {"x": [1]}, ns=ns)
    store.put_writes(config, [("x", 2)], "task")
    found = store.found(config)
    assert found.checkpoint["channel_values"] == {"x": [1]}
    assert found.pending_writes == [("task", "x", 2)]
    assert store.list(thread("t", ns))[0].config == config


def test_keys_of_2600_bytes_together_work(store: Store) -> None:
    long = incompressible(2600)
    config = store.save(long[:472], {}, ns=long[472:2472], checkpoint_id=long[2472:])
    assert store.found(config).config == config
    near = incompressible(2599)
    written = thread(near[:512], near[512:2384], checkpoint_id="1")
    store.put_writes(written, [("x", 1)], near[2385:])
    store.save(near[:512], {}, ns=near[512:2384], checkpoint_id="1")
    assert store.found(written).pending_writes == [(near[2385:], "x", 1)]
    valued = store.save(
        long[:472], {long[2000:2400]: [1]}, ns=long[472:2072], versions={long[2000:2400]: "v" * 128}
    )
    assert store.found(valued).checkpoint["channel_values"] == {long[2000:2400]: [1]}


# Putting again


def test_put_again_updates_the_checkpoint_and_its_metadata(store: Store) -> None:
    store.put(
        thread(),
        checkpoint("1", {"a": 1, "b": [1], "c": float("inf")}, {"a": "1", "b": "1", "c": "1"}),
        {"step": 1, "only": "first", "inexact": -0.0},
        {"a": "1", "b": "1", "c": "1"},
    )
    again = checkpoint("1", {"a": 2, "b": [2]}, {"a": "2", "b": "2"})
    config = store.put(thread(), again, {"step": 2}, {"a": "2", "b": "2"})
    found = store.found(config)
    assert found.checkpoint == again
    assert found.metadata == {"step": 2}
    assert store.list(thread(), filter={"only": "first"}) == []
    assert store.list(thread(), filter={"step": 2}) == [found]


def test_put_again_keeps_the_parent(store: Store) -> None:
    first, other = (store.save("t", {"x": 1}, checkpoint_id=name) for name in ("1", "2"))
    config = store.save(parent=first, checkpoint_id="3")
    store.save(parent=other, checkpoint_id="3")
    store.save("t", checkpoint_id="3")
    assert store.found(config).parent_config == first


def test_put_again_keeps_having_no_parent(store: Store) -> None:
    first = store.save("t", checkpoint_id="1")
    config = store.save("t", checkpoint_id="3")
    store.save(parent=first, checkpoint_id="3")
    assert store.found(config).parent_config is None


def test_put_again_keeps_the_writes(store: Store) -> None:
    config = store.save("t", checkpoint_id="1")
    store.put_writes(config, [("x", 1)], "task")
    store.save("t", {"x": 2}, checkpoint_id="1")
    assert store.found(config).pending_writes == [("task", "x", 1)]


# Values by version


def test_an_unchanged_channel_keeps_its_value(store: Store) -> None:
    first = store.save("t", {"kept": ["k"], "text": "y" * 999, "new": [1]})
    before = store.found(first).checkpoint
    second = store.put(
        first,
        checkpoint("f", {**before["channel_values"], "new": [2]}, before["channel_versions"])
        | {"channel_versions": {**before["channel_versions"], "new": "2"}},
        {},
        {"new": "2"},
    )
    assert store.found(second).checkpoint["channel_values"] == {
        "kept": ["k"],
        "text": "y" * 999,
        "new": [2],
    }
    assert store.found(first).checkpoint["channel_values"]["new"] == [1]


def test_a_channel_that_was_consumed_has_no_value(store: Store) -> None:
    first = store.save("t", {"x": [1], "y": 1})
    second = store.put(
        first,
        checkpoint("f", {}, {"x": "8", "y": "9"}),
        {},
        {"x": "8", "y": "9"},
    )
    found = store.found(second).checkpoint
    assert found["channel_values"] == {}
    assert found["channel_versions"] == {"x": "8", "y": "9"}
    assert store.found(first).checkpoint["channel_values"] == {"x": [1], "y": 1}


@pytest.mark.parametrize("empty", [None, [], {}, "", b"", 0, False], ids=repr)
def test_an_empty_value_is_a_value(store: Store, empty: Any) -> None:
    config = store.save("t", {"x": empty})
    found = store.found(config).checkpoint["channel_values"]
    assert found == {"x": empty}
    assert type(found["x"]) is type(empty)


@pytest.mark.parametrize(
    "versions", [("1", "2"), (1, 2), (1.0, 2.0), (1.5, 1.25)], ids=["text", "int", "float", "part"]
)
def test_versions_come_back_as_they_were(store: Store, versions: tuple[Any, Any]) -> None:
    first = store.save("t", {"x": ["a"]}, versions={"x": versions[0]})
    second = store.save(parent=first, values={"x": ["b"]}, versions={"x": versions[1]})
    for config, version, value in ((first, versions[0], ["a"]), (second, versions[1], ["b"])):
        found = store.found(config).checkpoint
        assert found["channel_versions"] == {"x": version}
        assert type(found["channel_versions"]["x"]) is type(version)
        assert found["channel_values"] == {"x": value}


def test_two_forks_of_one_checkpoint_keep_their_own_values(store: Store) -> None:
    base = store.save("t", {"x": ["base"]})
    version = store.found(base).checkpoint["channel_versions"]["x"]
    forks = [
        store.save(
            parent=base,
            values={"x": [name]},
            versions={"x": store.saver.get_next_version(version, None)},
        )
        for name in ("left", "right")
    ]
    values = [store.found(config).checkpoint["channel_values"] for config in (*forks, base)]
    assert values == [{"x": ["left"]}, {"x": ["right"]}, {"x": ["base"]}]
    assert [store.found(config).parent_config for config in forks] == [base, base]


# Metadata of the config


def test_metadata_takes_in_what_the_config_says(store: Store) -> None:
    config: RunnableConfig = {
        "metadata": {"user": "u", "step": 99, "object": {"a": 1}, "langgraph_node": "n"},
        "configurable": {
            "thread_id": "t",
            "checkpoint_ns": "",
            "tenant": "x",
            "user": "other",
            "level": 3,
            "on": True,
            "__private": "no",
            "checkpoint_map": {},
        },
    }
    stored = store.put(config, checkpoint("1"), {"source": "loop", "step": 1}, {})
    expected = {
        "source": "loop",
        "step": 1,
        "user": "u",
        "tenant": "x",
        "level": 3,
        "on": True,
    }
    assert store.found(stored).metadata == expected
    assert len(store.list(None, filter={"user": "u", "tenant": "x", "on": True})) == 1


# Pending writes


def test_special_writes_replace_and_ordinary_ones_stay_row_by_row(store: Store) -> None:
    config = store.save()
    store.put_writes(config, [("x", "old"), (ERROR, "old"), ("y", "old")], "task")
    store.put_writes(config, [("x", "new"), (ERROR, "new"), ("z", "new"), ("more", "new")], "task")
    assert store.found(config).pending_writes == [
        ("task", ERROR, "new"),
        ("task", "x", "old"),
        ("task", "y", "old"),
        ("task", "more", "new"),
    ]


@pytest.mark.parametrize("channel", [ERROR, SCHEDULED, INTERRUPT, RESUME])
def test_a_special_write_replaces_the_one_before(store: Store, channel: str) -> None:
    assert channel in WRITES_IDX_MAP
    config = store.save()
    for value in ([1], None, "last"):
        store.put_writes(config, [(channel, value)], "task", "path")
    assert store.found(config).pending_writes == [("task", channel, "last")]


def test_of_special_writes_in_one_batch_the_last_one_counts(store: Store) -> None:
    config = store.save()
    store.put_writes(config, [(ERROR, 1), (RESUME, "r"), (ERROR, 2)], "task")
    assert store.found(config).pending_writes == [("task", RESUME, "r"), ("task", ERROR, 2)]


def test_two_writes_of_one_task_to_one_channel_are_both_there(store: Store) -> None:
    config = store.save()
    store.put_writes(config, [("x", 1), ("x", 1), ("x", 2)], "task")
    assert store.found(config).pending_writes == [
        ("task", "x", 1),
        ("task", "x", 1),
        ("task", "x", 2),
    ]


def test_writes_may_come_before_their_checkpoint(store: Store) -> None:
    config = thread("t", checkpoint_id="1")
    store.put_writes(config, [("x", 1)], "task")
    assert store.get_tuple(config) is None
    store.save("t", checkpoint_id="1")
    assert store.found(config).pending_writes == [("task", "x", 1)]


def test_pending_writes_come_in_the_order_of_the_sort_key(store: Store) -> None:
    config = store.save()
    tasks = [
        ("b", ""),
        ("a", "~__pregel_pull, node"),
        ("c", "~__pregel_pull, Node"),
        ("a2", "~__pregel_push, 10"),
        ("a3", "~__pregel_push, 2"),
        ("é", "x"),
        ("😀", "x"),
        ("\uffee", "x"),
        ("Z", "x"),
        ("a ", "x"),
    ]
    expected = []
    for task_id, path in tasks:
        batch: list[tuple[str, Any]] = [(f"c{idx}", idx) for idx in range(12)]
        batch[3] = (ERROR, "e")
        batch[7] = (INTERRUPT, "i")
        store.put_writes(config, batch, task_id, path)
        expected += [
            (writes_sort_key(path, task_id, WRITES_IDX_MAP.get(c, idx)), (task_id, c, value))
            for idx, (c, value) in enumerate(batch)
        ]
    expected.sort(key=lambda item: item[0])
    assert store.found(config).pending_writes == [write for _, write in expected]
    assert store.list(thread())[0].pending_writes == [write for _, write in expected]


def test_writes_belong_to_their_checkpoint_alone(store: Store) -> None:
    first = store.save("t", {"x": 1})
    second = store.save(parent=first, values={"x": 2})
    other = store.save("t", {"x": 3}, ns="sub", checkpoint_id=id_of(first))
    store.put_writes(first, [("x", "first")], "task")
    store.put_writes(other, [("x", "other")], "task")
    assert store.found(first).pending_writes == [("task", "x", "first")]
    assert store.found(second).pending_writes == []
    assert store.found(other).pending_writes == [("task", "x", "other")]


def test_more_channels_than_fit_into_one_statement_come_back(store: Store) -> None:
    values = {f"channel-{number:04}": [number] for number in range(1100)}
    config = store.save("t", values)
    assert store.found(config).checkpoint["channel_values"] == values


def test_many_writes_of_one_task_come_back_in_order(store: Store) -> None:
    config = store.save()
    writes = [(f"c{number % 7}", number) for number in range(1500)]
    store.put_writes(config, writes, "task")
    assert store.found(config).pending_writes == [("task", *write) for write in writes]


# Old formats


def test_pending_sends_before_version_4_come_from_the_parent(store: Store) -> None:
    parent = store.save("t", {"x": [1]}, v=3)
    store.put_writes(parent, [(TASKS, Send("b", 2)), ("x", 9), (TASKS, Send("c", 3))], "2", "p2")
    store.put_writes(parent, [(TASKS, Send("a", 1))], "9", "p1")
    child = store.save(parent=parent, values={"x": [2]}, versions={"x": "7"}, v=3)
    expected = [Send("a", 1), Send("b", 2), Send("c", 3)]
    for found in (store.found(child), store.list(thread())[0]):
        assert found.checkpoint["channel_values"] == {"x": [2], TASKS: expected}
        assert found.checkpoint["channel_versions"] == {"x": "7", TASKS: "7"}
        assert found.checkpoint["v"] == 3
    assert TASKS not in store.found(parent).checkpoint["channel_values"]


def test_pending_sends_take_the_greatest_version(store: Store) -> None:
    parent = store.save("t", v=1)
    store.put_writes(parent, [(TASKS, Send("a", 1))], "task")
    child = store.save(parent=parent, values={"x": 1, "y": 2}, versions={"x": 3, "y": 5}, v=1)
    assert store.found(child).checkpoint["channel_versions"] == {"x": 3, "y": 5, TASKS: 5}


def test_pending_sends_of_a_checkpoint_without_versions_get_a_first_one(store: Store) -> None:
    parent = store.save("t", v=1)
    store.put_writes(parent, [(TASKS, Send("a", 1))], "task")
    found = store.found(store.save(parent=parent, v=1)).checkpoint
    assert found["channel_values"] == {TASKS: [Send("a", 1)]}
    assert str(found["channel_versions"][TASKS]).startswith(f"{1:032}.")


def test_from_version_4_on_pending_sends_are_a_channel_of_their_own(store: Store) -> None:
    parent = store.save("t", v=4)
    store.put_writes(parent, [(TASKS, Send("a", 1))], "task")
    child = store.save(parent=parent, values={"x": 1}, v=4)
    assert store.found(child).checkpoint["channel_values"] == {"x": 1}
    assert store.list(thread())[0].checkpoint["channel_values"] == {"x": 1}


def test_pending_sends_of_another_namespace_or_thread_stay_there(store: Store) -> None:
    parents = [
        store.save(thread_id, ns=ns, checkpoint_id="1", v=3)
        for thread_id, ns in (("t", ""), ("t", "sub"), ("u", ""))
    ]
    for number, parent in enumerate(parents[1:]):
        store.put_writes(parent, [(TASKS, Send("other", number))], "task")
    child = store.save(parent=parents[0], values={"x": 1}, checkpoint_id="2", v=3)
    assert store.found(child).checkpoint["channel_values"] == {"x": 1}
    assert store.list(thread("t", ""))[0].checkpoint["channel_values"] == {"x": 1}


def test_listing_gives_each_old_checkpoint_its_own_sends(store: Store) -> None:
    config = store.save("t", {"n": 0}, v=3)
    for number in range(1, 25):
        store.put_writes(config, [(TASKS, Send("a", number))], "task")
        config = store.save(parent=config, values={"n": number}, v=3)
    sends = [item.checkpoint["channel_values"].get(TASKS) for item in store.list(thread())]
    assert sends == [*([Send("a", number)] for number in range(24, 0, -1)), None]


def test_new_checkpoints_get_no_legacy_writes_in_metadata(store: Store) -> None:
    config = store.save("t", metadata={"writes": {"node": {"x": [1]}}, "source": "loop"})
    assert "writes" not in store.found(config).metadata


def test_an_old_checkpoint_with_pending_sends_of_its_own_keeps_them(store: Store) -> None:
    config = store.put(
        thread(),
        {**checkpoint("1"), "v": 1, "pending_sends": [Send("a", 1)]},  # type: ignore[typeddict-unknown-key]
        {},
        {},
    )
    found: Any = store.found(config).checkpoint
    assert found["pending_sends"] == [Send("a", 1)]


# Lists


def turns(store: Store, count: int, thread_id: str = "t", **options: Any) -> list[RunnableConfig]:
    """Save checkpoints, each made from the one before, each with a value and a write."""
    made: list[RunnableConfig] = []
    for number in range(count):
        parent = made[-1] if made else None
        metadata = {"turn": number, "even": number % 2 == 0}
        config = store.save(thread_id, {"x": [number]}, parent=parent, metadata=metadata, **options)
        store.put_writes(config, [("note", [number])], "task")
        made.append(config)
    return made


def days_ago(
    store: Store, *days: float, thread_id: str = "t", **options: Any
) -> list[RunnableConfig]:
    """Save checkpoints that are so many days old, each with a value and a write."""
    made = []
    for number in days:
        time = datetime.now(timezone.utc) - timedelta(days=number)
        config = store.save(
            thread_id,
            {"x": [number]},
            checkpoint_id=_id_at(time),
            ts=time.isoformat(),
            **options,
        )
        store.put_writes(config, [("note", [number])], "task")
        made.append(config)
    return made


def _id_at(time: datetime) -> str:
    """Make an id as LangGraph makes it, a UUID of version 6, of another time."""
    ticks = int((time - datetime(1582, 10, 15, tzinfo=timezone.utc)).total_seconds() * 10**7)
    return str(UUID(int=(ticks >> 12) << 80 | 6 << 76 | (ticks & 0xFFF) << 64 | 1 << 63))


def listed(store: Store, thread_id: str = "t", **criteria: Any) -> list[RunnableConfig]:
    """Return the configs of a thread's checkpoints in all namespaces, latest first."""
    return [item.config for item in store.list(thread(thread_id, None), **criteria)]


def contents(store: Store, thread_id: str) -> list[Any]:
    """Return the content of a thread's checkpoints, without the thread itself."""
    return [
        (id_of(item.config), item.checkpoint, item.metadata, item.pending_writes)
        for item in store.list(thread(thread_id, None))
    ]


def test_list_takes_limit_and_before(store: Store) -> None:
    made = turns(store, 5)
    assert listed(store) == made[::-1]
    assert listed(store, limit=2) == made[:2:-1]
    assert listed(store, before=made[3]) == made[2::-1]
    assert listed(store, before=made[3], limit=1) == [made[2]]
    assert store.list(made[1]) == [store.found(made[1])]


@pytest.mark.parametrize(
    ("wanted", "turns_found"),
    [
        ({"turn": 3}, [3]),
        ({"even": True}, [4, 2, 0]),
        ({"even": True, "turn": 2}, [2]),
        ({"even": True, "turn": 3}, []),
        ({"turn": "3"}, []),
        ({"even": 1}, []),
        ({"gone": None}, []),
        ({"o'brien": '"'}, []),
    ],
    ids=str,
)
def test_list_takes_a_filter(store: Store, wanted: dict[str, Any], turns_found: list[int]) -> None:
    made = turns(store, 5)
    assert listed(store, filter=wanted) == [made[number] for number in turns_found]


def test_list_goes_through_all_threads(store: Store) -> None:
    made = [*turns(store, 3, "a"), *turns(store, 2, "b", ns="sub")]
    found = [item.config for item in store.list(None)]
    assert sorted(found, key=id_of) == sorted(made, key=id_of)


def test_the_history_of_a_channel_has_the_writes_of_the_ancestors(store: Store) -> None:
    made = turns(store, 4)
    found = store.history(made[-1], ["note", "gone"])
    assert [value for _, _, value in found["note"]["writes"]] == [[0], [1], [2]]
    assert found["gone"]["writes"] == []


# Summaries


def test_threads_are_summed_up(store: Store) -> None:
    turns(store, 3, "a")
    made = days_ago(store, 2, 1, thread_id="b")
    turns(store, 1, "b", ns="sub")
    a, b = store.threads()
    assert a[:3] == ("a", 3, 3)
    assert b[:3] == ("b", 3, 3)
    assert (a.namespaces, b.namespaces) == (1, 2)
    times = [store.found(config).checkpoint["ts"] for config in (made[0], *listed(store, "b")[:1])]
    assert b.first == datetime.fromisoformat(times[0])
    assert b.last is not None
    assert b.last > b.first


def test_the_bytes_of_a_thread_are_those_of_its_values_and_documents(store: Store) -> None:
    for name, size, note in (("a", 1000, 0), ("b", 3000, 0), ("c", 1000, 500)):
        value, metadata = ["é" * size], {"note": "n" * note}
        store.save(name, {"x": value}, metadata=metadata, versions={"x": "1"})
    a, b, c = store.threads()
    assert b.bytes - a.bytes == 4000
    assert c.bytes - a.bytes == 500
    before = a.bytes
    store.put_writes(listed(store, "a")[0], [("x", b"w" * 700)], "task")
    assert 700 <= store.threads(limit=1)[0].bytes - before < 720


def test_threads_take_where_after_and_limit(store: Store) -> None:
    for name in ("a", "b", "c", "d"):
        store.save(name, metadata={"user": name in "bd"})

    def found(**criteria: Any) -> list[str]:
        return [summary.thread_id for summary in store.threads(**criteria)]

    assert found() == ["a", "b", "c", "d"]
    assert found(after="a", limit=2) == ["b", "c"]
    assert found(where={"user": True}) == ["b", "d"]
    assert found(where={"user": True}, after="b") == ["d"]
    assert found(where={"user": 1}) == []


# Copies


def test_a_copy_reads_as_its_source_and_has_a_future_of_its_own(store: Store) -> None:
    turns(store, 3)
    turns(store, 2, ns="sub")
    before = contents(store, "t")
    store.copy_thread("t", "copy")
    assert contents(store, "copy") == before
    store.save("copy", {"x": ["new"]})
    store.delete_thread("t")
    assert contents(store, "copy")[1:] == before


def test_a_copy_never_replaces_a_thread(store: Store) -> None:
    turns(store, 1)
    turns(store, 2, "used")
    before = contents(store, "used")
    with pytest.raises(ThreadExistsError):
        store.copy_thread("t", "used")
    assert contents(store, "used") == before


# Deltas


def long(size: int) -> list[str]:
    """Make a value that deltas are worth."""
    return [f"item {number}" * 20 for number in range(size)]


def talk(store: Store, *sizes: int) -> list[RunnableConfig]:
    """Save a growing value as LangGraph does, and a write that contains it."""
    made: list[RunnableConfig] = []
    for size in sizes:
        parent = made[-1] if made else None
        config = store.save("t", {"items": long(size)}, parent=parent)
        store.put_writes(config, [("items", long(size + 1)), ("y", size)], "task")
        made.append(config)
    return made


def as_deltas(store: Store) -> Store:
    """Return the store with an incremental saver."""
    saver = store.saver
    make: Any = type(saver)
    return store.using(make(saver.bind, schema=saver.schema, incremental=True))


def bytes_of(store: Store) -> int:
    """Return the bytes that the only thread takes."""
    (summary,) = store.threads()
    return summary.bytes


def test_values_as_deltas_read_as_they_were(store: Store) -> None:
    incremental = as_deltas(store)
    sizes = [30, 33, 36, 2, 36]
    made = talk(incremental, *sizes)
    for reader in (incremental, store, as_deltas(store)):
        for config, size in zip(made, sizes, strict=True):
            found = reader.found(config)
            assert found.checkpoint["channel_values"] == {"items": long(size)}
            assert found.pending_writes == [("task", "items", long(size + 1)), ("task", "y", size)]
        assert [item.config for item in reader.list(thread())] == made[::-1]


def test_deltas_take_less_room_than_values(store: Store) -> None:
    talk(as_deltas(store), *range(30, 40))
    smaller = bytes_of(store)
    store.delete_thread("t")
    talk(store, *range(30, 40))
    assert smaller < bytes_of(store) / 3


def test_values_are_rewritten_as_deltas_and_back(store: Store) -> None:
    talk(store, *range(30, 40))
    before, plain = contents(store, "t"), bytes_of(store)
    assert store.rewrite(incremental=True) > 0
    assert bytes_of(store) < plain * 0.7
    assert contents(store, "t") == before
    assert store.rewrite(["t"], incremental=False) > 0
    assert bytes_of(store) == plain
    assert contents(store, "t") == before


@pytest.mark.parametrize("keep", [1, 3])
def test_deltas_outlive_the_checkpoint_of_their_base(store: Store, keep: int) -> None:
    talk(as_deltas(store), *range(30, 40))
    before = contents(store, "t")
    store.prune(["t"], keep=keep)
    assert contents(store, "t") == before[:keep]


# Deletions


def test_a_deleted_thread_leaves_the_others(store: Store) -> None:
    for name in ("t", "T", "t "):
        turns(store, 2, name)
        turns(store, 1, name, ns="sub")
    store.delete_thread("t")
    assert contents(store, "t") == []
    assert [summary[:3] for summary in store.threads()] == [("T", 3, 3), ("t ", 3, 3)]


def test_the_checkpoints_of_deleted_runs_are_gone(store: Store) -> None:
    kept = [
        store.save(name, {"x": [run]}, metadata={"run_id": run})
        for name in ("a", "b")
        for run in ("run", "Run", "other")
    ]
    store.delete_for_runs(["run", "unknown"])
    assert [store.get_tuple(config) is None for config in kept] == [True, False, False] * 2


def test_prune_keeps_the_latest_of_each_namespace(store: Store) -> None:
    roots, children = turns(store, 4), turns(store, 3, ns="child")
    before = store.found(roots[-1]), store.found(children[-1])
    store.prune(["t"])
    after = store.found(roots[-1]), store.found(children[-1])
    for old, new in zip(before, after, strict=True):
        assert new == old._replace(parent_config=None)
    assert len(store.list(thread("t", None))) == 2


def test_prune_by_age_and_number_does_as_prunable_says(store: Store) -> None:
    made = days_ago(store, 40, 35, 20, 1)
    young = days_ago(store, 2, 1, thread_id="young")
    expected = store.prunable(older_than=timedelta(days=30))
    assert expected[:4] == (1, 2, 2, 2)
    assert expected.bytes > 0
    assert len(store.list(None)) == 6
    assert store.prune(older_than=timedelta(days=30)) == expected
    assert listed(store) == made[:1:-1]
    assert store.prune(keep=1)[:4] == (2, 2, 2, 2)
    assert [listed(store, name) for name in ("t", "young")] == [made[3:], young[1:]]
    assert store.prune(keep=1, older_than=timedelta(days=30)) == Deleted()


def test_idle_threads_are_deleted_as_a_whole(store: Store) -> None:
    days_ago(store, 50, 40, thread_id="idle")
    days_ago(store, 50, 1, thread_id="busy")
    assert store.prune(idle_for=timedelta(days=30))[:4] == (1, 2, 2, 2)
    assert [summary.thread_id for summary in store.threads()] == ["busy"]


def test_threads_are_deleted_by_their_metadata(store: Store) -> None:
    for name in ("a", "b"):
        store.save(name, {"x": [1]}, metadata={"user": name})
        store.save(name, {"x": [2]}, ns="sub")
    expected = store.delete_where({"user": "a"}, dry_run=True)
    assert expected[:4] == (1, 2, 2, 0)
    assert len(store.threads()) == 2
    assert store.delete_where({"user": "a"}) == expected
    assert [summary.thread_id for summary in store.threads()] == ["b"]
    assert store.delete_where({"user": "b"}, whole_threads=False)[:4] == (1, 1, 1, 0)
    assert [summary[:2] for summary in store.threads()] == [("b", 1)]


def test_vacuum_deletes_writes_whose_checkpoint_never_came(store: Store) -> None:
    now = datetime.now(timezone.utc)
    days_ago(store, 5, 0)
    for age in (timedelta(days=2), timedelta(hours=1)):
        late = thread("t", checkpoint_id=_id_at(now - age))
        store.put_writes(late, [("a", "text"), ("b", "text")], "task")
    before = contents(store, "t")
    expected = store.vacuum_orphans(dry_run=True)
    assert expected[:4] == (1, 0, 0, 2)
    assert store.vacuum_orphans() == expected
    assert store.vacuum_orphans() == Deleted()
    assert store.vacuum_orphans(timedelta(minutes=1))[:4] == (1, 0, 0, 2)
    assert contents(store, "t") == before
