"""Each saver has every method of the contract in both colours, native ones and their twins."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from stores import KINDS, Store, id_of, thread

from checkpoint_sa import (
    AsyncShallowSQLAlchemySaver,
    AsyncSQLAlchemySaver,
    ConfigurationError,
    Deleted,
    InvalidInputError,
    ShallowSQLAlchemySaver,
    SQLAlchemySaver,
    ThreadExistsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from langchain_core.runnables import RunnableConfig
    from stores import Listed

ASYNC = [name for name, kind in KINDS.items() if kind.is_async]
on_async_engines = pytest.mark.parametrize("migrated_store", ASYNC, indirect=True)

CLASSES = [
    SQLAlchemySaver,
    AsyncSQLAlchemySaver,
    ShallowSQLAlchemySaver,
    AsyncShallowSQLAlchemySaver,
]

ON_TOP = {"get", "aget", "config_specs", "with_allowlist"}
"""What the base class does itself, with the methods that a saver has."""

CONTRACT = sorted(
    name for name in vars(BaseCheckpointSaver) if not name.startswith("_") and name != "serde"
)
OWN = [name for name in CONTRACT if name not in ON_TOP]
SYNC_METHODS = [name for name in OWN if f"a{name}" in OWN]


# What there is


def test_the_contract_is_the_one_that_these_tests_know() -> None:
    assert SYNC_METHODS == [
        "copy_thread",
        "delete_for_runs",
        "delete_thread",
        "get_delta_channel_history",
        "get_tuple",
        "list",
        "prune",
        "put",
        "put_writes",
    ]
    assert set(CONTRACT) == {
        *(*SYNC_METHODS, *(f"a{name}" for name in SYNC_METHODS)),
        *(*ON_TOP, "get_next_version"),
    }


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("saver", CLASSES)
def test_a_saver_has_every_method_of_its_own(saver: type, name: str) -> None:
    assert getattr(saver, name) is not getattr(BaseCheckpointSaver, name)


def shape(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Return names, kinds and defaults of a function's parameters."""
    parameters = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]


@pytest.mark.parametrize("name", [name for name in OWN if name != "get_next_version"])
@pytest.mark.parametrize("saver", CLASSES)
def test_a_method_takes_what_the_contract_says(saver: type, name: str) -> None:
    found, expected = shape(getattr(saver, name)), shape(getattr(BaseCheckpointSaver, name))
    if name.endswith("prune"):  # takes more, and needs less
        assert [parameter[:2] for parameter in found[:3]] == [one[:2] for one in expected]
        assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in found[3:])
    else:
        assert found == expected


@pytest.mark.parametrize("saver", CLASSES)
def test_get_next_version_takes_the_deprecated_argument_or_not(saver: type) -> None:
    expected = shape(BaseCheckpointSaver.get_next_version)
    found = shape(saver.get_next_version)  # type: ignore[attr-defined]
    assert found[:-1] == expected[:-1]
    assert found[-1] == (*expected[-1][:2], None)


@pytest.mark.parametrize(
    "name", [*SYNC_METHODS, "rewrite", "prunable", "delete_where", "vacuum_orphans"]
)
@pytest.mark.parametrize("saver", CLASSES)
def test_the_async_twin_is_async_and_takes_the_same(saver: type, name: str) -> None:
    sync, twin = getattr(saver, name), getattr(saver, f"a{name}")
    assert shape(sync) == shape(twin)
    assert not inspect.iscoroutinefunction(sync)
    is_async = inspect.isasyncgenfunction if name == "list" else inspect.iscoroutinefunction
    assert is_async(twin)


# What the twins do


class Twin(Store):
    """A store that goes through the methods of the other colour.

    The sync methods of an async saver from a thread, while the saver's event loop is running; the
    async methods of a sync saver in an event loop.
    """

    def _do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.kind.is_async:
            return self.run(asyncio.to_thread(getattr(self.saver, method), *args, **kwargs))
        return self.run(getattr(self.saver, f"a{method}")(*args, **kwargs))

    def get(self, config: RunnableConfig) -> Any:
        return self._do("get", config)

    def list(self, config: RunnableConfig | None, **criteria: Any) -> Listed:
        if self.kind.is_async:
            collected = asyncio.to_thread(lambda: [*self.saver.list(config, **criteria)])
            return self.run(collected)  # type: ignore[no-any-return]

        async def collect() -> Listed:
            return [item async for item in self.saver.alist(config, **criteria)]

        return self.run(collect())  # type: ignore[no-any-return]


@pytest.fixture
def twin(store: Store) -> Twin:
    other = object.__new__(Twin)
    other.__dict__.update(store.__dict__)
    return other


def test_the_twin_of_put_stores_a_checkpoint(store: Store, twin: Twin) -> None:
    first = twin.save("t", {"words": ["one"]}, metadata={"run_id": "r"})
    second = twin.save("t", {"words": ["two"]}, parent=first)
    found = store.found(thread("t"))
    assert found.config == second
    assert found.parent_config == first
    assert found.checkpoint["channel_values"] == {"words": ["two"]}
    assert store.found(first).metadata["run_id"] == "r"


def test_the_twin_of_put_writes_stores_writes(store: Store, twin: Twin) -> None:
    config = store.save("t")
    twin.put_writes(config, [("a", 1), ("b", [2])], "task", "path")
    twin.put_writes(config, [("a", 3)], "another task")
    assert store.found(config).pending_writes == [
        ("another task", "a", 3),
        ("task", "a", 1),
        ("task", "b", [2]),
    ]


def test_the_twin_of_get_tuple_finds_the_same(store: Store, twin: Twin) -> None:
    first = store.save("t", {"a": ["x"]}, metadata={"user": "ann"})
    store.save("t", {"a": ["y"]}, parent=first)
    store.put_writes(first, [("a", {"deep": b"bytes"})], "task")
    assert twin.get_tuple(first) == store.found(first)
    assert twin.get_tuple(thread("t")) == store.found(thread("t"))
    assert twin.get_tuple(thread("t", "elsewhere")) is None


def test_get_gives_the_checkpoint_alone(store: Store, twin: Twin) -> None:
    config = store.save("t", {"a": 1})
    checkpoint = store.found(config).checkpoint
    assert twin.get(thread("t")) == checkpoint
    assert twin.get(thread("nobody")) is None
    assert store._do("get", config) == checkpoint  # noqa: SLF001 - no method of Store's
    assert store._do("get", thread("nobody")) is None  # noqa: SLF001


@pytest.mark.parametrize(
    "criteria",
    [{}, {"limit": 0}, {"limit": 11}, {"filter": {"odd": True}}, {"filter": {"odd": 1}}],
    ids=str,
)
def test_the_twin_of_list_finds_the_same_over_several_pages(
    store: Store, twin: Twin, criteria: dict[str, Any]
) -> None:
    for number in range(25):
        store.save("t", {"number": [number]}, metadata={"odd": number % 2 == 1})
    store.save("other")
    before = store.list(thread("t"))[3].config
    assert twin.list(thread("t"), **criteria) == store.list(thread("t"), **criteria)
    found = twin.list(thread("t"), before=before, **criteria)
    assert found == store.list(thread("t"), before=before, **criteria)
    assert len(twin.list(None)) == 26


def test_the_twin_of_get_delta_channel_history_finds_the_same(store: Store, twin: Twin) -> None:
    first = store.save("t", {"log": ["seed"]})
    store.put_writes(first, [("log", "one"), ("other", "x")], "task")
    second = store.save("t", parent=first)
    store.put_writes(second, [("log", "two")], "task")
    third = store.save("t", parent=second)
    history = twin.history(third, ["log", "other"])
    assert history == store.history(third, ["log", "other"])
    assert history["log"] == {
        "writes": [("task", "log", "one"), ("task", "log", "two")],
        "seed": ["seed"],
    }


def test_the_twin_of_delete_thread_deletes_a_thread(store: Store, twin: Twin) -> None:
    for thread_id in ("t", "T"):
        config = store.save(thread_id, {"a": [1]})
        store.put_writes(config, [("a", 2)], "task")
    twin.delete_thread("t")
    assert store.rows() == (1, 1, 1)
    assert store.get_tuple(thread("t")) is None


def test_the_twin_of_delete_for_runs_deletes_runs(store: Store, twin: Twin) -> None:
    configs = [store.save("t", {"a": [1]}, metadata={"run_id": run}) for run in ("x", "y", "z")]
    twin.delete_for_runs(["x", "z"])
    assert [item.config for item in store.list(None)] == [configs[1]]
    assert store.rows() == (1, 1, 0)


def test_the_twin_of_copy_thread_copies_a_thread(store: Store, twin: Twin) -> None:
    config = store.save("t", {"a": [1]})
    store.put_writes(config, [("a", 2)], "task")
    twin.copy_thread("t", "copy")
    found = store.found(thread("copy"))
    assert id_of(found.config) == id_of(config)
    assert found.checkpoint["channel_values"] == {"a": [1]}
    assert found.pending_writes == [("task", "a", 2)]
    assert store.rows() == (2, 2, 2)


@pytest.mark.parametrize(
    ("options", "left"), [({}, 1), ({"strategy": "keep_latest"}, 1), ({"strategy": "delete"}, 0)]
)
def test_the_twin_of_prune_prunes(
    store: Store, twin: Twin, options: dict[str, Any], left: int
) -> None:
    for thread_id in ("t", "u", "kept"):
        first = store.save(thread_id, {"a": [1]})
        store.save(thread_id, {"a": [2]}, parent=first)
    deleted = twin.prune(["t", "u"], **options)
    assert deleted == Deleted(2, 4 - 2 * left, 4 - 2 * left, 0, 0)
    counts = [len(store.list(thread(thread_id))) for thread_id in ("t", "u", "kept")]
    assert counts == [left, left, 2]
    assert store.count("checkpoint_blobs") == 2 * left + 2


def test_the_twins_of_what_deletes_delete_the_same(store: Store, twin: Twin) -> None:
    for thread_id in ("t", "u"):
        first = store.save(thread_id, {"a": [1]}, metadata={"user": thread_id})
        store.save(thread_id, {"a": [2]}, parent=first)
    store.put_writes(thread("t", checkpoint_id=str(uuid6())), [("a", 1)], "late")
    found = twin.prunable(keep=1)
    assert found == store.prunable(keep=1)
    assert found[:4] == (2, 2, 2, 0)
    reports: list[Deleted] = []
    assert twin.prune(keep=1, report=reports.append) == found
    assert [report.checkpoints for report in reports] == [1, 1]
    assert twin.vacuum_orphans(timedelta(0)).writes == 1
    assert twin.delete_where({"step": 1}, dry_run=True).threads == 2
    assert twin.delete_where({"step": 1}).threads == 2
    assert store.rows() == (0, 0, 0)


def test_the_twins_raise_what_the_methods_raise(store: Store, twin: Twin) -> None:
    config = store.save("t")
    store.save("u")
    for one in (store, twin):
        with pytest.raises(InvalidInputError, match="no thread_id"):
            one.get_tuple({"configurable": {}})
        with pytest.raises(InvalidInputError, match="no checkpoint_id"):
            one.put_writes(thread("t"), [("a", 1)], "task")
        with pytest.raises(InvalidInputError, match="filter is a list"):
            one.list(config, filter=["no dict"])
        with pytest.raises(InvalidInputError, match="no prune strategy 'most'"):
            one.prune(["t"], strategy="most")
        with pytest.raises(ThreadExistsError, match="'u' already has checkpoints"):
            one.copy_thread("t", "u")


def test_twenty_calls_of_twins_at_a_time_do_not_mix(store: Store, twin: Twin) -> None:
    saver = store.saver
    names = [f"thread {number}" for number in range(20)]
    for name in names:
        store.save(name, {"name": [name] * 1000})

    def values(found: Any) -> Any:
        return found.checkpoint["channel_values"]["name"]

    async def in_tasks() -> Any:
        return await asyncio.gather(*(saver.aget_tuple(thread(name)) for name in names))

    def in_threads() -> Any:
        with ThreadPoolExecutor(len(names)) as pool:
            return list(pool.map(saver.get_tuple, map(thread, names)))

    found = twin.run(asyncio.to_thread(in_threads) if store.kind.is_async else in_tasks())
    assert [values(one) for one in found] == [[name] * 1000 for name in names]


# Where the twins run


@contextmanager
def executing_threads(store: Store) -> Iterator[set[int]]:
    """Collect the threads that statements are executed in."""
    seen: set[int] = set()

    def collect(*_: Any) -> None:
        seen.add(threading.get_ident())

    event.listen(store.root, "before_cursor_execute", collect)
    try:
        yield seen
    finally:
        event.remove(store.root, "before_cursor_execute", collect)


def call_them_all(store: Store) -> None:
    config = store.save("t", {"a": [1]}, metadata={"run_id": "r"})
    store.put_writes(config, [("a", 1)], "task")
    assert store.found(config).config == config
    assert len(store.list(config)) == 1
    store.history(config, ["a"])
    store.copy_thread("t", "u")
    store.prune(["u"])
    store.delete_for_runs(["r"])
    store.delete_thread("t")


def test_twins_execute_nothing_in_the_thread_they_must_not_block(store: Store, twin: Twin) -> None:
    """The event loop's thread for the async twins; a connection's own loop for the sync ones."""
    with executing_threads(store) as seen:
        call_them_all(twin)
    here = threading.get_ident()  # where the event loop runs as well
    assert (seen == {here}) is store.kind.is_async
    assert (here in seen) is store.kind.is_async


def checked_out(store: Store) -> int:
    return int(store.engine.pool.checkedout())  # type: ignore[attr-defined]


def test_no_connection_is_held_between_the_items_of_a_twins_list(store: Store) -> None:
    for number in range(15):
        store.save("t", {"number": [number]})
    saver = store.saver

    def sync() -> list[int]:
        return [checked_out(store) for _ in saver.list(thread("t"))]

    async def in_loop() -> list[int]:
        return [checked_out(store) async for _ in saver.alist(thread("t"))]

    counts = store.run(asyncio.to_thread(sync) if store.kind.is_async else in_loop())
    assert counts == [0] * 15


def test_a_twins_list_that_is_left_early_leaves_nothing_behind(store: Store) -> None:
    for number in range(15):
        store.save("t", {"number": [number]})
    saver = store.saver

    def sync() -> Any:
        items = saver.list(thread("t"))
        first = next(iter(items))
        items.close()  # type: ignore[attr-defined]
        return first

    async def in_loop() -> Any:
        items = saver.alist(thread("t"))
        first = await anext(items)
        await items.aclose()  # type: ignore[attr-defined]
        return first

    first = store.run(asyncio.to_thread(sync) if store.kind.is_async else in_loop())
    assert first == store.found(thread("t"))
    assert checked_out(store) == 0


# Sync methods of the async saver in the wrong place


def calls_of(saver: Any, config: RunnableConfig) -> dict[str, Callable[[], Any]]:
    """Return a call of every sync method."""
    checkpoint = {"id": "x", "v": 4, "channel_values": {}, "channel_versions": {}}
    return {
        "copy_thread": lambda: saver.copy_thread("t", "u"),
        "delete_for_runs": lambda: saver.delete_for_runs(["r"]),
        "delete_thread": lambda: saver.delete_thread("t"),
        "get_delta_channel_history": lambda: saver.get_delta_channel_history(
            config=config, channels=["a"]
        ),
        "get_tuple": lambda: saver.get_tuple(config),
        "list": lambda: next(saver.list(config), None),
        "prune": lambda: saver.prune(["t"]),
        "put": lambda: saver.put(config, checkpoint, {}, {}),
        "put_writes": lambda: saver.put_writes(config, [("a", 1)], "task"),
    }


@on_async_engines
@pytest.mark.parametrize("name", SYNC_METHODS)
def test_a_sync_method_in_the_event_loops_thread_names_the_async_one(
    store: Store, name: str
) -> None:
    config = store.save("t", {"a": [1]}, metadata={"run_id": "r"})
    before = store.rows()

    async def call() -> None:
        calls_of(store.saver, config)[name]()

    with pytest.raises(asyncio.InvalidStateError) as caught:
        store.run(call())
    assert str(caught.value) == (
        "Synchronous calls to AsyncSQLAlchemySaver are only allowed from a different thread. From"
        " the main thread, use the async interface. For example, use"
        f" `await checkpointer.a{name}(...)` or `await graph.ainvoke(...)`."
    ).replace("await checkpointer.alist", "checkpointer.alist")
    assert store.rows() == before


@on_async_engines
def test_a_sync_method_in_a_running_loop_before_any_async_one_is_refused_too(store: Store) -> None:
    saver = store.make_saver()  # made outside of any loop

    async def call() -> None:
        saver.get_tuple(thread("t"))

    with pytest.raises(asyncio.InvalidStateError, match="only allowed from a different thread"):
        store.run(call())


@on_async_engines
@pytest.mark.parametrize("name", SYNC_METHODS)
def test_a_sync_method_without_a_running_loop_says_that_there_is_none(
    store: Store, name: str
) -> None:
    config = store.save("t")
    with pytest.raises(ConfigurationError, match="No event loop is running") as caught:
        calls_of(store.saver, config)[name]()
    assert "Use SQLAlchemySaver with an Engine" in str(caught.value)


@on_async_engines
def test_a_sync_method_works_in_the_thread_of_another_running_loop(store: Store) -> None:
    config = store.save("t", {"a": [1]})

    async def elsewhere() -> Any:
        return store.saver.get_tuple(config)

    found = store.run(asyncio.to_thread(asyncio.run, elsewhere()))
    assert found == store.found(config)


# Event loops


@on_async_engines
def test_a_second_event_loop_gets_a_clear_error(store: Store) -> None:
    config = store.save("t")

    def calls() -> list[Coroutine[Any, Any, Any]]:
        async def first() -> Any:
            return await anext(store.saver.alist(config))

        return [
            store.saver.aget_tuple(config),
            first(),
            store.saver.aput_writes(config, [("a", 1)], "task"),
            store.saver.aprune(["t"]),
            store.saver.setup(),  # type: ignore[list-item]
        ]

    for call in calls():
        with pytest.raises(ConfigurationError) as caught:
            asyncio.run(call)
        assert str(caught.value) == (
            "This engine belongs to another event loop: connections of its pool"
            " can't be used in two. Make an engine and a saver for each loop, or give"
            " create_async_engine poolclass=sqlalchemy.pool.NullPool."
        )
    assert store.found(config).pending_writes == []


@on_async_engines
def test_a_saver_still_works_in_its_loop_after_another_one_was_refused(store: Store) -> None:
    config = store.save("t", {"a": [1]})
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(store.saver.aget_tuple(config))
    assert store.found(config).checkpoint["channel_values"] == {"a": [1]}


@pytest.fixture
def pool_less(store: Store) -> Store:
    """A store whose async saver has an engine without a pool."""
    return store.using(AsyncSQLAlchemySaver(create_async_engine(store.url, poolclass=NullPool)))


@on_async_engines
def test_without_a_pool_a_saver_works_in_several_event_loops(pool_less: Store) -> None:
    config = pool_less.save("t", {"a": [1]})
    for number in range(3):
        writes = [("a", number)]
        asyncio.run(pool_less.saver.aput_writes(config, writes, f"task {number}"))
    found = pool_less.found(config)
    assert found.pending_writes == [(f"task {number}", "a", number) for number in range(3)]


@on_async_engines
def test_without_a_pool_sync_methods_work_in_whatever_loop_the_saver_is_in(
    pool_less: Store,
) -> None:
    config = pool_less.save("t", {"a": [1]})
    saver = pool_less.saver

    async def elsewhere() -> Any:
        await saver.aget_tuple(config)
        return await asyncio.to_thread(saver.get_tuple, config)

    assert asyncio.run(elsewhere()) == pool_less.found(config)


# Clones


def test_a_clone_with_another_serializer_has_its_own(store: Store) -> None:
    clone = copy.copy(store.saver)
    clone.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    config = store.using(clone).save("t", {"a": ["secret"], "b": "secret"})
    plain = store.save("u", {"a": ["plain"]})
    found = store.using(clone).found(config)
    assert found.checkpoint["channel_values"] == {"a": ["secret"], "b": "secret"}
    assert store.found(plain).checkpoint["channel_values"] == {"a": ["plain"]}
    types = store.sql("SELECT type FROM checkpoint_blobs")
    tags = {tag.decode() if isinstance(tag, bytes) else tag for (tag,) in types}
    assert tags == {"msgpack+aes", "msgpack"}


def test_the_twins_of_a_clone_use_its_serializer(store: Store, twin: Twin) -> None:
    clone = copy.copy(store.saver)
    clone.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    twin.saver = clone
    config = twin.save("t", {"a": ["secret"]})
    twin.put_writes(config, [("a", "more")], "task")
    expected = store.using(clone).found(config)
    assert expected.checkpoint["channel_values"] == {"a": ["secret"]}
    assert expected.pending_writes == [("task", "a", "more")]
    assert twin.get_tuple(config) == expected
    assert twin.list(config) == [expected]


@on_async_engines
def test_a_clone_belongs_to_the_event_loop_of_the_original(store: Store) -> None:
    store.save("t")
    clone = copy.copy(store.saver)
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(clone.aget_tuple(thread("t")))
