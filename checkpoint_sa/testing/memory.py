"""Tests of the long-term memory: for `from checkpoint_sa.testing.memory import *`.

They call every operation of LangGraph's stores. The tests need the fixture `store` of the suite of
savers, `checkpoint_sa.testing.suite`: its database has the tables of the memory as well. Each test
has a namespace of its own, and needs no empty table.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langgraph.store.base import GetOp, PutOp

from checkpoint_sa import AsyncSQLAlchemyStore, SQLAlchemyStore
from checkpoint_sa.testing.suite import ALIKE

if TYPE_CHECKING:
    from collections.abc import Callable

    from checkpoint_sa.testing.store import Store

    Do = Callable[..., Any]

Labels = tuple[str, ...]

VALUES: dict[str, Any] = {
    "text": "ü😀 \" \\ ' % _",
    "numbers": [0, -1, 2**63 - 1, 1.5, True, None],
    "beyond JSON": [2**200, float("inf"), 1e22, "\0"],
    "nested": {"a": {"b": [{"c": {}}]}},
    "": "no name",
}


@pytest.fixture
def do(store: Store) -> Do:
    """A function that calls a method of the memory, in its async form on an async engine."""
    bind: Any = store.saver.bind
    if not store.is_async:
        memory = SQLAlchemyStore(bind, schema=store.saver.schema)
        return lambda name, *args, **options: getattr(memory, name)(*args, **options)
    others = AsyncSQLAlchemyStore(bind, schema=store.saver.schema)

    def run(name: str, *args: Any, **options: Any) -> Any:
        method = others.sweep_ttl if name == "sweep_ttl" else getattr(others, f"a{name}")
        return store.run(method(*args, **options))

    return run


@pytest.fixture
def place() -> Labels:
    """A namespace that no other test uses."""
    return ("suite", str(uuid4()))


def test_an_item_is_read_as_it_was_put(do: Do, place: Labels) -> None:
    assert do("get", place, "k") is None
    do("put", place, "k", VALUES)
    first = do("get", place, "k")
    assert (first.namespace, first.key, first.value) == (place, "k", VALUES)
    do("put", place, "k", {"a": 1})
    second = do("get", place, "k")
    assert second.value == {"a": 1}
    assert second.created_at == first.created_at <= first.updated_at <= second.updated_at
    do("delete", place, "k")
    do("delete", place, "k")
    assert do("get", place, "k") is None


def test_keys_and_namespaces_are_exact(do: Do, place: Labels) -> None:
    labels = [label for label in ALIKE if label]
    ops = [PutOp(place, key, {"key": key}) for key in ALIKE]
    do("batch", [*ops, *(PutOp((*place, label), "k", {"label": label}) for label in labels)])
    assert [do("get", place, key).value["key"] for key in ALIKE] == ALIKE
    assert [do("get", (*place, label), "k").value["label"] for label in labels] == labels
    assert {*do("list_namespaces", prefix=place)} == {place, *((*place, one) for one in labels)}
    assert [item.value for item in do("search", (*place, "abc"))] == [{"label": "abc"}]


def test_a_batch_reads_before_it_writes(do: Do, place: Labels) -> None:
    do("put", place, "old", {"n": 0})
    ops = [
        *(PutOp(place, f"{i}", {"n": i}) for i in range(300)),
        GetOp(place, "old"),
        PutOp(place, "old", None),
        PutOp(place, "0", {"n": "last"}),
    ]
    results = do("batch", ops)
    assert results[300].value == {"n": 0}
    assert results[:300] == [None] * 300
    found = do("batch", [GetOp(place, f"{i}") for i in range(300)])
    assert [item.value["n"] for item in found] == ["last", *range(1, 300)]
    assert do("get", place, "old") is None
    assert len(do("search", place, limit=1000)) == 300


def test_a_search_filters_and_pages(do: Do, place: Labels) -> None:
    for i in range(6):
        do("put", place, f"{i}", {"n": i, "name": "abc"[i % 3], "deep": {"on": i > 3}})
        time.sleep(0.002)  # the clocks of some engines count milliseconds

    def keys(**options: Any) -> list[str]:
        return [item.key for item in do("search", place, **options)]

    assert keys() == ["5", "4", "3", "2", "1", "0"]
    assert keys(limit=2, offset=1) == ["4", "3"]
    assert keys(filter={"name": "b"}) == ["4", "1"]
    assert keys(filter={"n": {"$gte": 2, "$lt": 4}}) == ["3", "2"]
    assert keys(filter={"name": {"$ne": "a"}, "deep": {"on": True}}) == ["5", "4"]
    assert keys(filter={"n": {"$gt": 1}}, limit=2, offset=2) == ["3", "2"]
    assert keys(filter={"missing": 1}) == []


def test_namespaces_are_listed(do: Do, place: Labels) -> None:
    for labels in (("a", "x"), ("a", "y"), ("b", "x", "deep")):
        do("put", (*place, *labels), "k", {})
    assert do("list_namespaces", prefix=place) == [
        (*place, "a", "x"),
        (*place, "a", "y"),
        (*place, "b", "x", "deep"),
    ]
    assert do("list_namespaces", prefix=place, suffix=("x",)) == [(*place, "a", "x")]
    assert do("list_namespaces", prefix=place, max_depth=3) == [(*place, "a"), (*place, "b")]
    assert do("list_namespaces", prefix=place, limit=1, offset=1) == [(*place, "a", "y")]


def test_an_expired_item_is_gone_and_swept(do: Do, place: Labels) -> None:
    do("put", place, "brief", {}, ttl=0.0001)  # minutes
    do("put", place, "long", {}, ttl=60)
    time.sleep(0.1)
    assert do("get", place, "brief") is None
    assert [item.key for item in do("search", place)] == ["long"]
    assert do("sweep_ttl") >= 1
    assert do("get", place, "long") is not None
