"""Tests of the behaviour that all engines share: for `from checkpoint_sa.testing.suite import *`.

They store a checkpoint and read it back: keys, parents, writes, old formats. The tests need a
fixture `store`, a `checkpoint_sa.testing.Store` without checkpoints.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.base import WRITES_IDX_MAP, empty_checkpoint, writes_sort_key
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED, TASKS
from langgraph.types import Send

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
