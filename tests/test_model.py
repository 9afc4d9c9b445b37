"""Every engine beside LangGraph's InMemorySaver, or beside the contract where that one differs.

A state machine does the same things to both and finds no difference; `DIFFERENCES` lists where
InMemorySaver itself is not the measure, each with its reason. Then hostile values, hostile keys and
filters, which Hypothesis thinks of.

The same examples come in every run. CHECKPOINT_SA_EXAMPLES=500 looks for that many random ones.
"""

from __future__ import annotations

import itertools
import math
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from stores import KINDS, ONE_PER_SERVER, Store, exact, id_of, thread

from checkpoint_sa import InvalidInputError, ThreadExistsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from hypothesis.strategies import DataObject, SearchStrategy
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

WISHED = int(os.environ.get("CHECKPOINT_SA_EXAMPLES", "0"))


def examples(count: int, **options: Any) -> settings:
    return settings(
        max_examples=WISHED or count,
        derandomize=not WISHED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )


def seen(item: CheckpointTuple | None) -> Any:
    """Return all that a reader sees of a checkpoint, in its exact form."""
    return None if item is None else exact(item._asdict())


class Memory(Store):
    """InMemorySaver with the methods of a `Store`."""

    def __init__(self) -> None:
        self.kind = KINDS["sqlite"]  # called directly, without a loop
        self.memory = InMemorySaver()
        self.saver = self.memory  # type: ignore[assignment]


# The model: InMemorySaver, and what it doesn't have or has otherwise (see DIFFERENCES)

Place = tuple[str, str, str]
"""thread_id, checkpoint_ns, checkpoint_id."""


class Model(Memory):
    """What a store must show after the same calls."""

    def places(self) -> list[Place]:
        return [
            (thread_id, namespace, checkpoint_id)
            for thread_id, namespaces in self.memory.storage.items()
            for namespace, checkpoints in namespaces.items()
            for checkpoint_id in checkpoints
        ]

    def metadata(self, place: Place) -> Mapping[str, Any]:
        thread_id, namespace, checkpoint_id = place
        return self.found(thread(thread_id, namespace, checkpoint_id=checkpoint_id)).metadata

    def parent(self, place: Place) -> str | None:
        thread_id, namespace, checkpoint_id = place
        return self.memory.storage[thread_id][namespace][checkpoint_id][2]

    def is_in_use(self, thread_id: str) -> bool:
        return any(place[0] == thread_id for place in [*self.places(), *self.memory.writes])

    def newest_first(
        self,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> list[CheckpointTuple]:
        found = [
            item
            for item in self.memory.list(config, before=before)
            if matches(item.metadata, filter or {})
        ]
        found.sort(
            key=lambda item: (
                id_of(item.config),
                item.config["configurable"]["thread_id"],
                item.config["configurable"]["checkpoint_ns"],
            ),
            reverse=True,
        )
        return found[:limit]

    def copy_thread(self, source: str, target: str) -> None:
        for namespace, checkpoints in self.memory.storage[source].items():
            self.memory.storage[target][namespace].update(checkpoints)
        for write, value in list(self.memory.writes.items()):
            if write[0] == source:
                self.memory.writes[(target, *write[1:])] = dict(value)
        for blob, content in list(self.memory.blobs.items()):
            if blob[0] == source:
                self.memory.blobs[(target, *blob[1:])] = content

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._delete(
            [p for p in self.places() if str(self.metadata(p).get("run_id")) in set(run_ids)]
        )

    def prune(
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        needed: Collection[Place] = (),
        **_: Any,
    ) -> Any:
        """Keep the latest of each namespace, and the checkpoints that it needs."""
        latest: dict[tuple[str, str], str] = {}
        for thread_id, namespace, checkpoint_id in self.places():
            key = (thread_id, namespace)
            latest[key] = max(checkpoint_id, latest.get(key, ""))
        self._delete(
            [
                place
                for place in self.places()
                if place[0] in (thread_ids or ())
                and latest[place[:2]] != place[2]
                and place not in needed
            ]
        )

    def _delete(self, doomed: Sequence[Place]) -> None:
        storage = self.memory.storage
        for thread_id, namespace, checkpoint_id in doomed:
            del storage[thread_id][namespace][checkpoint_id]
            self.memory.writes.pop((thread_id, namespace, checkpoint_id), None)
        for thread_id, namespace, checkpoint_id in self.places():
            content, metadata, parent = storage[thread_id][namespace][checkpoint_id]
            if (thread_id, namespace, parent) in doomed:
                storage[thread_id][namespace][checkpoint_id] = (content, metadata, None)


# What the machine draws from

GONE = object()
"""A channel that is updated and has no value afterwards."""
NEVER_STORED = "never stored"

threads = st.sampled_from(["t", "T", "t "])
namespaces = st.sampled_from(["", "child", "child|deeper"])
# Few, so that ids come again: in another namespace, in another thread, before an older one.
ids = st.integers(0, 40).map(lambda number: f"{number:032}")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]),
    st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e22, 1e308, 5e-324, math.inf, -math.inf, math.nan]),
    st.sampled_from(["", "a", "A", "\0", "a\0b", "é", "\U0001f600", "x" * 300, '"', "\\u0000"]),
)
values = scalars | st.binary(max_size=3) | st.lists(scalars, max_size=3)
channels = st.sampled_from(["a", "b", 'c".:$'])
items = st.lists(st.integers(0, 9), max_size=3)
changes = st.builds(
    lambda plain, delta: {**plain, **delta},
    st.dictionaries(channels, values | st.just(GONE), max_size=3),
    st.fixed_dictionaries(
        {}, optional={"delta": st.just(GONE) | items | items.map(_DeltaSnapshot)}
    ),
)
runs = st.sampled_from(["run 1", "run 2"])
tame = scalars.filter(lambda value: not isinstance(value, str) or "\0" not in value)
metadatas = st.fixed_dictionaries(
    {"source": st.sampled_from(["input", "loop"]), "step": st.integers(-1, 2)},
    optional={"run_id": runs, "x": tame, "y": st.lists(tame, max_size=2)},
)
version_types: SearchStrategy[Callable[[int], Any]] = st.sampled_from(
    [str, "{:032}.0".format, int, float]
)
tasks = st.tuples(
    st.sampled_from(["task", "Task", "other"]),
    st.sampled_from(["", "~__pregel_pull, a", "~__pregel_push, a"]),
)
batches = st.lists(
    st.tuples(st.sampled_from(["a", "delta", "delta", *sorted(WRITES_IDX_MAP)]), values),
    min_size=1,
    max_size=4,
)


class SideBySide(RuleBasedStateMachine):
    """A store and the model of it, driven alike.

    Few rules of many kinds each: Hypothesis leaves out some of them in every example.
    """

    ours: Store

    def __init__(self) -> None:
        super().__init__()
        self.ours.clear()
        self.model = Model()
        self.numbers = itertools.count(1)
        self.content: dict[Place, tuple[dict[str, Any], dict[str, Any]]] = {}
        """Values and versions, to go on from."""

    def teardown(self) -> None:
        self.compare_list(None)

    @initialize(data=st.data(), thread_id=threads, namespace=namespaces)
    def begin(self, data: DataObject, thread_id: str, namespace: str) -> None:
        for _ in range(3):
            self.put_one(data, (thread_id, namespace, data.draw(ids)))

    # Writing

    @rule(data=st.data(), thread_id=threads, namespace=namespaces, checkpoint_id=ids)
    def put(self, data: DataObject, thread_id: str, namespace: str, checkpoint_id: str) -> None:
        self.put_one(data, (thread_id, namespace, checkpoint_id))

    @precondition(lambda self: self.model.places())
    @rule(data=st.data(), checkpoint_id=ids)
    def put_a_child_or_put_again(self, data: DataObject, checkpoint_id: str) -> None:
        place = self.draw_place(data)
        self.put_one(data, data.draw(st.sampled_from([place, (*place[:2], checkpoint_id)])))

    def put_one(self, data: DataObject, place: Place) -> None:
        checkpoint_id = place[2]
        siblings = sorted(i for t, n, i in self.model.places() if (t, n) == place[:2])
        parent = data.draw(st.sampled_from([*siblings, None, NEVER_STORED]), label="parent")
        base_values, base_versions = self.content.get((*place[:2], parent or ""), ({}, {}))
        changed = data.draw(changes, label="changed channels")
        make_version = data.draw(version_types)
        new_versions = {channel: make_version(next(self.numbers)) for channel in changed}
        versions = base_versions | new_versions
        current = {
            channel: value
            for channel, value in (base_values | changed).items()
            if value is not GONE and (channel != "delta" or channel in changed)
        }
        checkpoint: Any = {
            "v": 4,
            "id": checkpoint_id,
            "ts": "2024-05-04T06:32:42.235444+00:00",
            "channel_values": current,
            "channel_versions": versions,
            "versions_seen": {"node": base_versions},
            "updated_channels": sorted(changed) or None,
        }
        if parent:
            self.put_a_batch((*place[:2], parent), data.draw(tasks), data.draw(batches))
        rest = (checkpoint, data.draw(metadatas, label="metadata"), new_versions)
        kept = self.model.parent(place) if checkpoint_id in siblings else parent
        assert self.ours.put(at((*place[:2], parent)), *rest) == self.model.put(
            at((*place[:2], kept)), *rest
        )
        self.content[place] = (current, versions)
        self.compare_tuple(place)
        self.compare_history(place)

    @precondition(lambda self: self.model.places())
    @rule(data=st.data(), task=tasks, batch=batches)
    def put_writes(
        self, data: DataObject, task: tuple[str, str], batch: list[tuple[str, Any]]
    ) -> None:
        place = self.draw_place(data)
        # Also of a checkpoint that comes later, or never.
        place = data.draw(st.sampled_from([place, (*place[:2], data.draw(ids))]))
        self.put_a_batch(place, task, batch)
        self.compare_tuple(place)

    def put_a_batch(
        self, place: Place, task: tuple[str, str], batch: list[tuple[str, Any]]
    ) -> None:
        self.ours.put_writes(at(place), batch, *task)
        self.model.put_writes(at(place), batch, *task)

    # Reading

    @precondition(lambda self: self.model.places())
    @rule(data=st.data())
    def read(self, data: DataObject) -> None:
        thread_id, namespace, checkpoint_id = self.draw_place(data)
        place = (thread_id, namespace, data.draw(st.sampled_from([checkpoint_id, None])))
        self.compare_tuple(place)
        self.compare_history(place)

    @precondition(lambda self: self.model.places())
    @rule(data=st.data(), limit=st.none() | st.integers(0, 5))
    def list(self, data: DataObject, limit: int | None) -> None:
        place = self.draw_place(data)
        thread_id, namespace, checkpoint_id = place
        config = data.draw(
            st.none()
            | st.fixed_dictionaries(
                {"thread_id": st.just(thread_id)},
                optional={
                    "checkpoint_ns": st.just(namespace),
                    "checkpoint_id": st.just(checkpoint_id),
                },
            ),
            label="config",
        )
        named = data.draw(st.sets(st.sampled_from(sorted(self.model.metadata(place)))))
        wanted = {name: self.model.metadata(place)[name] for name in named}
        before = data.draw(st.none() | ids.map(lambda i: at(("", "", i))), label="before")
        self.compare_list(
            None if config is None else {"configurable": config},
            filter=data.draw(st.sampled_from([wanted, None]), label="filter"),
            before=before,
            limit=limit,
        )

    # Deleting and copying

    @precondition(lambda self: self.model.places())
    @rule(
        data=st.data(),
        what=st.sampled_from(["copy_thread", "copy_thread", "delete", "delete_for_runs", "prune"]),
    )
    def copy_or_delete(self, data: DataObject, what: str) -> None:
        source = self.draw_place(data)[0]
        if what == "copy_thread":
            self.copy(source, data.draw(threads))
            return
        arguments: Any = source if what == "delete" else [source]
        if what == "delete_for_runs":
            arguments = [data.draw(runs)]
        what = "delete_thread" if what == "delete" else what
        ancestors = self.ancestors(source)
        getattr(self.ours, what)(arguments)
        if what == "prune":
            # Which of these a DeltaChannel needs is decided in test_delta.py and
            # test_older_langgraph.py; no other may stay.
            stay = {
                (source, item.config["configurable"]["checkpoint_ns"], id_of(item.config))
                for item in self.ours.list(thread(source, None))
            }
            self.model.prune(arguments, needed=ancestors & stay)
        else:
            getattr(self.model, what)(arguments)

    def ancestors(self, thread_id: str) -> set[Place]:
        """Return the ancestors of latest checkpoints that have a channel without a value."""
        found = set()
        places = [place for place in self.model.places() if place[0] == thread_id]
        for namespace in {place[1] for place in places}:
            at = max(place[2] for place in places if place[1] == namespace)
            values, versions = self.content[thread_id, namespace, at]
            parent: str | None = at
            while versions.keys() - values.keys() and parent is not None:
                parent = self.model.parent((thread_id, namespace, parent))
                place = (thread_id, namespace, parent or "")
                if place in found or place not in places:
                    break
                found.add(place)
        return found

    def copy(self, source: str, target: str) -> None:
        if self.model.is_in_use(target):
            with pytest.raises(ThreadExistsError):
                self.ours.copy_thread(source, target)
            return
        self.ours.copy_thread(source, target)
        self.model.copy_thread(source, target)
        for place in [place for place in self.content if place[0] == source]:
            self.content[(target, *place[1:])] = self.content[place]

    # What the rules share

    def draw_place(self, data: DataObject) -> Place:
        return data.draw(st.sampled_from(sorted(self.model.places())), label="place")

    def compare_tuple(self, place: tuple[str, str, str | None]) -> None:
        assert seen(self.ours.get_tuple(at(place))) == seen(self.model.get_tuple(at(place)))

    def compare_history(self, place: tuple[str, str, str | None]) -> None:
        names = ["delta", "a", "never"]
        ours, model = (s.history(at(place), names) for s in (self.ours, self.model))
        # A stored None is no seed of ours; test_delta.py says why.
        expected = {
            name: {key: value for key, value in found.items() if key != "seed" or value is not None}
            for name, found in model.items()
        }
        assert exact(ours) == exact(expected)

    def compare_list(self, config: RunnableConfig | None, **criteria: Any) -> None:
        ours = self.ours.list(config, **criteria)
        model = self.model.newest_first(config, **criteria)
        assert [seen(item) for item in ours] == [seen(item) for item in model]


def at(place: tuple[str, str, str | None]) -> RunnableConfig:
    thread_id, namespace, checkpoint_id = place
    more = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return thread(thread_id, namespace, **more)


def test_does_what_in_memory_saver_does(store: Store) -> None:
    class OnThisEngine(SideBySide):
        ours = store

    run_state_machine_as_test(OnThisEngine, settings=examples(25, stateful_step_count=15))


# What a filter matches


def matches(found: Any, wanted: Mapping[str, Any]) -> bool:
    """Say what a filter matches, by the contract's words alone."""
    return all(
        name in found
        and (
            isinstance(found[name], dict) and matches(found[name], value)
            if isinstance(value, dict)
            else equal(found[name], value)
        )
        for name, value in wanted.items()
    )


def equal(found: Any, wanted: Any) -> bool:
    """Compare as JSON does: numbers by value and nothing else, the rest by type and content."""
    left, right = json_kind(found), json_kind(wanted)
    if left != right:
        return False
    if left == "number":
        if not {repr(found), repr(wanted)} & {"nan", "inf", "-inf"}:
            return Fraction(found) == Fraction(wanted)
        return bool(found == wanted)  # infinity is itself, NaN is nothing
    if left == "array":
        return len(found) == len(wanted) and all(map(equal, found, wanted))
    if left == "object":
        return set(found) == set(wanted) and all(equal(found[name], wanted[name]) for name in found)
    return bool(found == wanted)


def json_kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), type(value).__name__)


# Where InMemorySaver is not the measure


def value_of(store: Store, config: RunnableConfig | None = None, channel: str = "a") -> Any:
    return store.found(config or thread()).checkpoint["channel_values"].get(channel)


def put_and_read(value: Any) -> Callable[[Store], Any]:
    return lambda store: value_of(store, store.save(values={"a": value}))


def put_and_read_metadata(**metadata: Any) -> Callable[[Store], Any]:
    def do(store: Store) -> Any:
        found: Any = store.found(store.save(metadata=metadata)).metadata
        return found.get(next(iter(metadata)))

    return do


def filtered(metadata: dict[str, Any], filter: dict[str, Any]) -> Callable[[Store], Any]:
    def do(store: Store) -> int:
        store.save(metadata=metadata)
        return len(store.list(thread(), filter=filter))

    return do


def parent_after_another_put(store: Store) -> Any:
    first, second = store.save(), store.save()
    child = store.save(parent=first)
    store.save(parent=second, checkpoint_id=id_of(child))
    parent = store.found(child).parent_config
    return parent == first


def value_after_another_put_of_its_version(store: Store) -> Any:
    first = store.save(values={"a": ["first"]}, versions={"a": "1"})
    store.save(values={"a": ["second"]}, versions={"a": "1"})
    return value_of(store, first)


def value_that_a_checkpoint_leaves_out(store: Store) -> Any:
    parent = store.save(values={"a": 1}, versions={"a": "1"})
    return value_of(store, store.save(parent=parent, versions={"a": "1"}))


def order_across_threads(store: Store) -> Any:
    for number, thread_id in enumerate(["t", "u", "t"]):
        store.save(thread_id, checkpoint_id=str(number))
    return [id_of(item.config) for item in store.list(None, limit=2)]


def pending_sends_of_an_old_parent(store: Store) -> Any:
    parent = store.save(v=3)
    store.put_writes(parent, [(TASKS, "sent")], "task")
    return value_of(store, store.save(parent=parent, v=3), TASKS)


def read_as_text_what_was_put_as_a_number(store: Store) -> Any:
    store.save(thread_id=7)  # type: ignore[arg-type]
    return len(store.list(thread("7")))


def put_without_a_namespace(store: Store) -> Any:
    checkpoint: Any = store.found(store.save("other")).checkpoint
    return store.put(thread(ns=None), checkpoint, {}, {})["configurable"]["checkpoint_ns"]


def config_that_comes_back(store: Store) -> Any:
    config = store.save()
    config["configurable"]["user_id"] = "u"
    return "user_id" in store.found(config).config["configurable"]


def delete_what_a_number_names(store: Store) -> Any:
    store.save("7")
    store.delete_thread(7)  # type: ignore[arg-type]
    return len(store.list(thread("7")))


def copied(store: Store) -> Any:
    store.save()
    store.copy_thread("t", "copy")
    return len(store.list(thread("copy")))


def deleted_for_runs(store: Store) -> Any:
    store.save(metadata={"run_id": "r"})
    store.delete_for_runs(["r"])
    return len(store.list(thread()))


def pruned(store: Store) -> Any:
    store.save(parent=store.save())
    store.prune(["t"])
    return len(store.list(thread()))


class Difference(NamedTuple):
    do: Callable[[Store], Any]
    memory: Any
    """What InMemorySaver gives, or the error it raises."""
    ours: Any
    reason: str


DIFFERENCES = {
    "an integer beyond 64 bits": Difference(
        put_and_read(2**64),
        TypeError,
        2**64,
        "values come back exactly; msgpack ends there",
    ),
    "a lone surrogate": Difference(
        put_and_read("\ud800"), "?", "\ud800", "values come back exactly; msgpack replaces it"
    ),
    "an integer beyond 64 bits in metadata": Difference(
        put_and_read_metadata(x=[-(2**70)]), TypeError, [-(2**70)], "metadata too"
    ),
    "a lone surrogate in metadata": Difference(
        put_and_read_metadata(x={"y": "\udfff"}), {"y": "?"}, {"y": "\udfff"}, "metadata too"
    ),
    "a NUL in metadata": Difference(
        put_and_read_metadata(x="a\0b"), "ab", "a\0b", "it strips what PostgreSQL's JSON can't hold"
    ),
    "writes in metadata": Difference(
        put_and_read_metadata(writes={"a": 1}),
        {"a": 1},
        None,
        "the writes are stored on their own; LangGraph's savers for databases drop these as well",
    ),
    "a filter with a part of a dict": Difference(
        filtered({"x": {"y": 1, "z": 2}}, {"x": {"y": 1}}), 0, 1, "a dict matches as a subset"
    ),
    "a filter with true for 1": Difference(
        filtered({"x": 1}, {"x": True}), 1, 0, "JSON's equality, not Python's"
    ),
    "a filter with null for a missing key": Difference(
        filtered({}, {"x": None}), 1, 0, "null is null, a missing key is none"
    ),
    "the parent of what is put again": Difference(
        parent_after_another_put, False, True, "a checkpoint keeps the parent it was made from"
    ),
    "another value under a version that is stored": Difference(
        value_after_another_put_of_its_version, ["second"], ["first"], "a version names one value"
    ),
    "a small value that a later checkpoint leaves out": Difference(
        value_that_a_checkpoint_leaves_out,
        1,
        None,
        "small values are a part of each checkpoint, as in PostgresSaver: LangGraph names them all",
    ),
    "the order across threads": Difference(
        order_across_threads, ["2", "0"], ["2", "1"], "newest first, not thread by thread"
    ),
    "pending sends of a checkpoint before version 4": Difference(
        pending_sends_of_an_old_parent, None, ["sent"], "no old checkpoint is left in memory"
    ),
    "a thread_id that is no text": Difference(
        read_as_text_what_was_put_as_a_number, 0, 1, "a thread_id is turned into text"
    ),
    "a thread_id that is no text, to delete": Difference(
        delete_what_a_number_names, 1, 0, "a thread_id is turned into text"
    ),
    "a put without a namespace": Difference(
        put_without_a_namespace, KeyError, "", "checkpoint_ns defaults to ''"
    ),
    "the config of a checkpoint that was asked for": Difference(
        config_that_comes_back, True, False, "the config names the checkpoint and nothing else"
    ),
    "copy_thread": Difference(copied, NotImplementedError, 1, "it has none"),
    "delete_for_runs": Difference(deleted_for_runs, NotImplementedError, 0, "it has none"),
    "prune": Difference(pruned, NotImplementedError, 1, "it has none"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_contract_decides_where_in_memory_saver_differs(store: Store, name: str) -> None:
    do, memory, ours, _ = DIFFERENCES[name]
    assert exact(do(store)) == exact(ours)
    if isinstance(memory, type):
        with pytest.raises(memory):
            do(Memory())
    else:
        assert exact(do(Memory())) == exact(memory)


# Hostile values

texts = st.text(st.characters(), max_size=8)  # surrogates and NUL as well
hostile_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**63 - 2, 2**63 + 2).flatmap(lambda n: st.sampled_from([n, -n])),
    st.integers(1, 400).map(lambda exponent: 10**exponent),
    st.floats(),
    texts,
    st.integers(250, 260).flatmap(lambda size: texts.map(lambda text: (text * size)[:size])),
)
json_like = st.recursive(
    hostile_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
# Inside of a container, LangGraph's serializer decides what can be said.
packed_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
)
packed = st.recursive(
    packed_scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
hostile_values = hostile_scalars | packed | st.binary(max_size=8)


def test_values_come_back_exactly(store: Store) -> None:
    threads = itertools.count()

    @examples(50)
    @given(st.lists(hostile_values, min_size=1, max_size=5))
    def check(values: list[Any]) -> None:
        named = {f"channel {number}": value for number, value in enumerate(values)}
        config = store.save(str(next(threads)), named)
        store.put_writes(config, list(named.items()), "task")
        found = store.found(config)
        assert exact(found.checkpoint["channel_values"]) == exact(named)
        assert exact(found.pending_writes) == exact([("task", *item) for item in named.items()])

    check()


def test_metadata_comes_back_exactly(store: Store) -> None:
    threads = itertools.count()

    @examples(50)
    @given(st.dictionaries(texts, json_like, max_size=4))
    def check(metadata: dict[str, Any]) -> None:
        metadata.pop("writes", None)
        config = store.save(str(next(threads)), metadata=metadata)
        whole = {"source": "loop", "step": 1, "parents": {}} | metadata
        assert exact(store.found(config).metadata) == exact(whole)
        assert [exact(item.metadata) for item in store.list(config)] == [exact(whole)]

    check()


# Hostile keys

STORABLE = [
    *("", " ", "a ", "É", "e\u0301", "ß", "\U0001f600", "\r\n", "\x7f", "\u202e", "x" * 100),
    *("'", '"', "`", "\\", "%s", "%(a)s", ":a", "$.a", "a.b", "a[0]", "--", "{}", "?", ";"),
]
UNSTORABLE = ["\0", "a\0b", "\ud800", "a\udfff", "x" * 3000, "é" * 1500]
keys = st.text(max_size=6) | st.sampled_from(STORABLE) | texts | st.sampled_from(UNSTORABLE)
POSITIONS = [
    *("thread_id", "checkpoint_ns", "checkpoint_id", "channel", "version"),
    *("task_id", "task_path", "written"),
]


def is_harmless(text: str) -> bool:
    """Whether a text must be accepted as any key: short, no NUL, no lone surrogates."""
    return "\0" not in text and len(text.encode(errors="replace")) <= 100 and is_unicode(text)


def is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def put_under(store: Store, names: Mapping[str, str], value: Any) -> bool:
    """Put a checkpoint and a write under some keys; say whether they were accepted."""
    checkpoint: Any = {
        "v": 4,
        "id": names["checkpoint_id"],
        "ts": "2024-05-04T06:32:42.235444+00:00",
        "channel_values": {names["channel"]: [value]},
        "channel_versions": {names["channel"]: names["version"]},
        "versions_seen": {},
    }
    accepted = True
    config = thread(names["thread_id"], names["checkpoint_ns"])
    with store.statements() as sent:
        try:
            store.put(config, checkpoint, {}, checkpoint["channel_versions"])
        except InvalidInputError:
            assert sent.texts == []
            accepted = False
    config["configurable"]["checkpoint_id"] = names["checkpoint_id"]
    with store.statements() as sent:
        try:
            write = (names["written"], value)
            store.put_writes(config, [write], names["task_id"], names["task_path"])
        except InvalidInputError:
            assert sent.texts == []
            accepted = False
    return accepted


def test_a_key_comes_back_exactly_or_is_refused_before_the_database_is_asked(store: Store) -> None:
    @examples(40)
    @given(st.sampled_from(POSITIONS), keys)
    def check(position: str, text: str) -> None:
        store.clear()
        # Others that some engine may take for the same one, under the same keys.
        texts = list(dict.fromkeys([text, text.swapcase(), f"{text} ", f"{text}\u0301"]))
        accepted = {}
        for number, other in enumerate(texts):
            if position == "checkpoint_id" and not other:
                continue  # asks for the latest
            names = dict.fromkeys(POSITIONS, "x") | {"checkpoint_id": str(number)}
            if position in ("checkpoint_id", "task_id", "task_path", "written"):
                names["version"] = str(number)  # of a value of its own
            names[position] = other
            if put_under(store, names, other):
                accepted[other] = names
            else:
                assert not is_harmless(other)
        for other, names in accepted.items():
            place = thread(
                names["thread_id"], names["checkpoint_ns"], checkpoint_id=names["checkpoint_id"]
            )
            found = store.found(place)
            assert found.config == place
            assert found.checkpoint["channel_values"] == {names["channel"]: [other]}
            assert found.checkpoint["channel_versions"] == {names["channel"]: names["version"]}
            assert found.pending_writes == [(names["task_id"], names["written"], other)]
            assert store.list(place) == [found]

    check()


@pytest.mark.parametrize("position", POSITIONS)
def test_what_postgresql_or_mysql_cannot_hold_as_a_key_is_refused_everywhere(
    store: Store, position: str
) -> None:
    for text in UNSTORABLE:
        names = dict.fromkeys(POSITIONS, "x") | {position: text}
        is_long_path = position == "task_path" and len(text) > 1000  # these have no limit
        assert put_under(store, names, 1) == is_long_path


def test_a_version_of_any_type_is_stored_exactly_or_refused(store: Store) -> None:
    numbers = itertools.count()

    @examples(40)
    @given(st.integers() | st.floats() | st.booleans() | keys)
    def check(version: Any) -> None:
        thread_id = str(next(numbers))
        with store.statements() as sent:
            try:
                config = store.save(thread_id, {"a": [1], "b": 1}, versions={"a": version})
            except InvalidInputError:
                assert type(version) is not int or not -(2**63) <= version < 2**63
                assert not isinstance(version, str) or not is_harmless(version)
                assert sent.texts == []
                return
        found = store.found(config).checkpoint
        assert exact(found["channel_versions"]["a"]) == exact(version)
        assert found["channel_values"] == {"a": [1], "b": 1}

    check()


def test_every_method_takes_any_text_or_refuses_it_before_the_database_is_asked(
    store: Store,
) -> None:
    child = store.save(parent=store.save("somebody else's", {"a": [1]}))
    calls: list[Callable[[str], Any]] = [
        lambda text: store.get_tuple(thread(text)),
        lambda text: store.get_tuple(thread("t", text)),
        lambda text: store.get_tuple(thread("t", checkpoint_id=text)),
        lambda text: store.list(thread(text)),
        lambda text: store.list(thread("t", text)),
        lambda text: store.list(thread("t", checkpoint_id=text)),
        lambda text: store.list(thread("t"), before=thread("t", checkpoint_id=text)),
        lambda text: store.list(None, filter={text: text}),
        lambda text: store.history(thread(text), ["a"])["a"]["writes"],
        lambda text: store.history(child, [text])[text]["writes"],
        store.delete_thread,
        lambda text: store.delete_for_runs([text]),
        lambda text: store.copy_thread(text, "free"),
        lambda text: store.copy_thread("none", text),
        lambda text: any(store.prune([text])),
        lambda text: any(store.prune([text], strategy="delete")),
    ]

    def check(text: str) -> None:
        for call in calls:
            with store.statements() as sent:
                try:
                    assert not call(text)
                except InvalidInputError:
                    assert not is_harmless(text)
                    assert sent.texts == []

    for text in (*STORABLE, *UNSTORABLE):
        check(text)
    examples(20)(given(keys)(check))()
    assert len(store.list(None)) == 2


# Filters, against the oracle above

NAMES = ["", "a", "A", "a.b", "$", "$.a", 'a"b', "a'b", "a\\b", "%s", "?", "é", "a[0]", "*", "\0"]
names = st.sampled_from(NAMES) | texts
like_each_other: SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [
            *(None, True, False, 0, 1, 1.0, -0.0, 2**53, 2**53 + 1, float(2**53), 10**25, 1e25),
            *("", "1", "true", "null", "a", "A", "a ", "é", '"', "\\", "'", "%", "\0", "\ud800"),
            *(math.nan, math.inf, 0.1, 10**400),
        ]
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def asked(draw: Any, stored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw a filter that some of the metadata may match, whole or in part."""
    of = draw(st.sampled_from(stored))
    chosen = draw(st.lists(st.sampled_from([*of, *NAMES]), max_size=2, unique=True))
    return {name: draw(part(of[name]) if name in of else like_each_other) for name in chosen}


def part(value: Any) -> SearchStrategy[Any]:
    if isinstance(value, dict) and value:
        some = st.sets(st.sampled_from(sorted(value)))
        return st.just(value) | some.map(lambda names: {name: value[name] for name in names})
    if isinstance(value, int | float) and abs(value) < 2**60:
        return st.sampled_from([value, float(value), int(value), bool(value), str(value)])
    return st.just(value) | like_each_other


def test_a_filter_finds_what_it_describes_and_nothing_else(store: Store) -> None:
    threads = itertools.count()
    metadata = st.dictionaries(names, like_each_other, max_size=3)

    @examples(60)
    @given(st.data(), st.lists(metadata, min_size=1, max_size=3))
    def check(data: DataObject, metadatas: list[dict[str, Any]]) -> None:
        thread_id = str(next(threads))
        for number, metadata in enumerate(metadatas):
            metadata.pop("writes", None)
            store.save(thread_id, metadata=metadata, checkpoint_id=str(number))
        wholes = [{"source": "loop", "step": 1, "parents": {}} | m for m in metadatas]
        for _ in range(3):
            asking = data.draw(asked(wholes))
            found = [id_of(item.config) for item in store.list(thread(thread_id), filter=asking)]
            wanted = [str(i) for i, whole in enumerate(wholes) if matches(whole, asking)]
            assert found == wanted[::-1], asking

    check()
