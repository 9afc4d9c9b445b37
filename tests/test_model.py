"""Every engine beside LangGraph's InMemorySaver, and beside what the contract says where they differ.

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
from hypothesis import HealthCheck, given, note, settings
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
from stores import KINDS, Store, id_of, thread

from checkpoint_sa import InvalidInputError, ThreadExistsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hypothesis.strategies import DataObject, SearchStrategy
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple

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


def exact(value: Any) -> Any:
    """Return a form whose equality is identity of content: 1, 1.0 and True differ, NaN is NaN."""
    if isinstance(value, dict):
        return {(type(name).__name__, name): exact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [exact(item) for item in value]
    return type(value).__name__, repr(value) if isinstance(value, float) else value


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
        return self.found(thread(thread_id, namespace, checkpoint_id=checkpoint_id)).metadata  # type: ignore[return-value]

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

    def prune(self, thread_ids: Sequence[str], **_: Any) -> None:
        latest: dict[tuple[str, str], str] = {}
        for thread_id, namespace, checkpoint_id in self.places():
            key = (thread_id, namespace)
            latest[key] = max(checkpoint_id, latest.get(key, ""))
        self._delete(
            [
                place
                for place in self.places()
                if place[0] in thread_ids and latest[place[:2]] != place[2]
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
version_types = st.sampled_from([str, "{:032}.0".format, int, float])
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

    def __init__(self, store: Store) -> None:
        super().__init__()
        store.clear()
        self.ours = store
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
        thread_id, namespace, checkpoint_id = place
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
        filter = {name: self.model.metadata(place)[name] for name in named}
        before = data.draw(st.none() | ids.map(lambda i: at(("", "", i))), label="before")
        self.compare_list(
            None if config is None else {"configurable": config},
            filter=data.draw(st.sampled_from([filter, None]), label="filter"),
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
        getattr(self.ours, what)(arguments)
        getattr(self.model, what)(arguments)

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
        assert exact(ours) == exact(model)

    def compare_list(self, config: RunnableConfig | None, **criteria: Any) -> None:
        ours = self.ours.list(config, **criteria)
        model = self.model.newest_first(config, **criteria)
        assert [seen(item) for item in ours] == [seen(item) for item in model]


def at(place: tuple[str, str, str | None]) -> RunnableConfig:
    thread_id, namespace, checkpoint_id = place
    more = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return thread(thread_id, namespace, **more)


def test_does_what_in_memory_saver_does(store: Store) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: SideBySide(store), settings=examples(25, stateful_step_count=15)
    )


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
        return (
            math.isfinite(found) and math.isfinite(wanted) and Fraction(found) == Fraction(wanted)
        )
    if left == "array":
        return len(found) == len(wanted) and all(map(equal, found, wanted))
    if left == "object":
        return set(found) == set(wanted) and all(equal(found[name], wanted[name]) for name in found)
    return bool(found == wanted)


def json_kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), type(value).__name__)
