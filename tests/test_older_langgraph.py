"""Threads as older releases of LangGraph write them: pruning takes no state away.

They count few updates of a DeltaChannel, and often store neither a snapshot nor a value of it: it
has a version, and its value is in the writes of the ancestors. tests/threads.py made the threads.
"""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import threads
from graphs import App, app
from langgraph.graph import START, StateGraph
from sqlalchemy import insert
from stores import ONE_PER_SERVER, Store, id_of, thread
from typing_extensions import TypedDict

from checkpoint_sa import Checkpoint, CheckpointBlob, CheckpointWrite

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

RELEASES = ("1.2.0", "1.2.5", "1.2.8")

MODELS: dict[str, Any] = {
    "checkpoints": Checkpoint,
    "checkpoint_blobs": CheckpointBlob,
    "checkpoint_writes": CheckpointWrite,
}
DOCUMENTS = ("checkpoint", "metadata")
BYTES = ("blob", "exact")


on_each_release = pytest.mark.parametrize(
    ("migrated_store", "older"),
    [
        *[("sqlite", release) for release in RELEASES],
        *[(kind, RELEASES[-1]) for kind in ONE_PER_SERVER if kind != "sqlite"],
    ],
    indirect=True,
)
"""The releases store different rows; a server returns the rows that it was given."""


@pytest.fixture
def older(request: pytest.FixtureRequest, store: Store) -> Store:
    """The store, with the threads of an older LangGraph."""
    found = json.loads((threads.FOLDER / f"langgraph_{request.param}.json").read_text())
    for table, model in MODELS.items():
        names, *rows = found[table]
        inserted = [
            {name: column(name, value) for name, value in zip(names, row, strict=True)}
            for row in rows
        ]
        execute(store, model, inserted)
    return store


def column(name: str, value: Any) -> Any:
    """Return what is stored in a column."""
    if value is None:
        return None
    return (
        json.loads(value)
        if name in DOCUMENTS
        else base64.b64decode(value)
        if name in BYTES
        else value
    )


def execute(store: Store, model: Any, rows: list[dict[str, Any]]) -> None:
    """Insert rows in a transaction of their own."""
    if store.async_engine is None:
        with store.engine.begin() as connection:
            connection.execute(insert(model), rows)
        return

    async def in_loop() -> None:
        assert store.async_engine is not None
        async with store.async_engine.begin() as connection:
            await connection.execute(insert(model), rows)

    store.run(in_loop())


def anew(store: Store, name: str, saver: Any = None) -> App:
    """Compile the graph of a thread once more, on a saver that has seen nothing yet."""
    options, _ = threads.THREADS[name]
    return app(store, threads.graph(**options), saver or store.make_saver())


def states(store: Store, *names: str) -> dict[str, Any]:
    """Return the states of threads as today's LangGraph reads them, with what they wait for."""

    def of(name: str) -> Iterator[Any]:
        state = anew(store, name).state(thread(name, ns=None), subgraphs=True)
        yield state.next, [question.value for question in state.interrupts]
        yield from threads.states(state)

    return {name: list(of(name)) for name in names or threads.THREADS}


def left(store: Store, name: str) -> int:
    """Count the checkpoints of a thread."""
    return len(store.list(thread(name, ns=None)))


def lengths(store: Store) -> dict[str, int]:
    return {name: left(store, name) for name in threads.THREADS}


@on_each_release
def test_the_threads_have_the_states_that_they_had(older: Store) -> None:
    found = states(older)
    for name in ("updated often", "a snapshot, pruned, then updated", "migrated", "resumed"):
        entry = found[name][1]["log"]
        assert entry[-1:] == {"updated often": ["f"], "migrated": ["b"]}.get(name, ["a"])
        assert len(entry) >= 5
    assert found["asking"][0] == (("third",), ["well?"])
    assert found["asking"][1]["log"] == ["in", "first", "second"]


@on_each_release
@pytest.mark.parametrize(
    ("options", "incremental"),
    [
        ({"strategy": "keep_latest"}, False),
        ({"strategy": "keep_latest", "report": len}, True),
        ({"keep": 1}, True),
        ({"older_than": timedelta(0)}, False),
    ],
    ids=["keep_latest", "with a report, incremental", "keep, incremental", "older_than"],
)
def test_the_states_after_prune_are_the_states_before(
    older: Store, options: dict[str, Any], *, incremental: bool
) -> None:
    if incremental:
        older.rewrite(incremental=True)
    before = states(older)
    older.prune(list(threads.THREADS), **options)
    assert states(older) == before
    if incremental:
        older.rewrite(incremental=False)
        assert states(older) == before
    kept = lengths(older)
    older.prune(list(threads.THREADS), **options)
    assert lengths(older) == kept


@on_each_release
@pytest.mark.parametrize("keep", [2, 3])
def test_each_of_the_states_that_prune_was_to_keep_is_the_state_before(
    older: Store, keep: int
) -> None:
    def kept() -> dict[str, Any]:
        return {
            name: [(state.config, state.values, state.next) for state in history[:keep]]
            for name in threads.THREADS
            if (history := anew(older, name).history(thread(name, ns=None)))
        }

    before = kept()
    older.prune(keep=keep)
    assert kept() == before


@on_each_release
def test_prune_keeps_no_more_than_back_to_the_nearest_value(older: Store) -> None:
    """And of a thread without a DeltaChannel, one checkpoint of each namespace."""
    before = lengths(older)
    older.prune(list(threads.THREADS))
    after = lengths(older)
    assert {name: after[name] for name in after if name.startswith("plain")} == {
        "plain": 1,
        "plain, at exit, then updated": 1,
        "plain, asking": 1,
        "plain, resumed": 1,
        "plain, an untracked value updated": 1,
        "plain, inside another": 2,
    }
    assert after["a snapshot, then updated"] == 2
    assert after["a snapshot, pruned, then updated"] == 2
    # `word` was stored where it was a plain channel, and is two updates away.
    assert after["migrated"] == 3
    assert after["snapshots at times"] < before["snapshots at times"] - 4


@on_each_release
def test_what_is_said_to_be_prunable_is_what_goes(older: Store) -> None:
    reports: list[Any] = []
    expected = older.prunable(keep=1)
    older.prune(keep=1, report=reports.append)
    assert sum(report.checkpoints for report in reports) == expected.checkpoints > 0
    again = older.prunable(keep=1)
    assert (again.checkpoints, again.values, again.writes) == (0, 0, 0)


@on_each_release
def test_a_thread_goes_on_after_prune(older: Store) -> None:
    before = states(older)
    older.prune(list(threads.THREADS))
    for name in threads.THREADS:
        if "inside" in name:
            continue
        config = thread(name, ns=None)
        anew(older, name).update({"log": ["on"]}, config, as_node="third")
        older.prune([name])
        assert anew(older, name).state(config).values["log"] == [*before[name][1]["log"], "on"]


@on_each_release
def test_a_shallow_saver_goes_on_with_a_thread(older: Store) -> None:
    before = states(older)
    for name in threads.THREADS:
        if "inside" in name:
            continue
        config = thread(name, ns=None)
        for turn in range(1, 4):
            saver = older.make_saver(shallow=True)
            anew(older, name, saver).update({"log": ["on"]}, config, as_node="third")
            expected = [*before[name][1]["log"], *["on"] * turn]
            assert anew(older, name).state(config).values["log"] == expected
            if name.startswith("plain"):
                assert left(older, name) == 1


def update_as_before(store: Store, parent: Any, *values: str) -> Any:
    """Update a DeltaChannel as LangGraph 1.2.5 does: a version and a write, and no count of it."""
    for value in values:
        if parent is not None:
            store.put_writes(parent, [("log", [value])], f"task {value}")
        version = store.saver.get_next_version(None, None)
        parent = store.save(parent=parent, versions={"log": version})
    return parent


def test_a_shallow_saver_keeps_the_updates_of_a_delta_channel(store: Store) -> None:
    shallow = store.using(store.make_saver(shallow=True))
    first = shallow.save()
    last = update_as_before(shallow, first, "a", "b", "c")
    found = shallow.history(last, ["log"])["log"]
    assert [value for _, _, value in found["writes"]] == [["a"], ["b"], ["c"]]
    assert shallow.count("checkpoints") == 4


def test_an_empty_row_of_another_saver_is_no_value(store: Store) -> None:
    """LangGraph's own savers may store one for each version without a value."""
    last = update_as_before(store, store.save(), "a", "b")
    for found in store.list(thread()):
        for version in found.checkpoint["channel_versions"].values():
            row = {"thread_id": "t", "checkpoint_ns": "", "channel": "log", "version": version}
            execute(store, CheckpointBlob, [row | {"type": "empty", "blob": None}])
    before = store.history(last, ["log"])
    assert [value for _, _, value in before["log"]["writes"]] == [["a"], ["b"]]
    store.prune(["t"])
    assert store.history(last, ["log"]) == before


@pytest.mark.parametrize("empty", [False, True], ids=["no row", "an empty row"])
def test_a_channel_that_was_cleared_keeps_nothing(store: Store, empty: bool) -> None:
    """An EphemeralValue: it has its value after the write, and a version without one later."""
    first = store.save()
    store.put_writes(first, [("jump", "over")], "task")
    second = store.save(parent=first, values={"jump": "over"})
    third = store.save(parent=second, versions={"jump": "9"})
    latest = store.save(parent=third, versions={"jump": "9"})
    if empty:
        row = {"thread_id": "t", "checkpoint_ns": "", "channel": "jump", "version": "9"}
        execute(store, CheckpointBlob, [row | {"type": "empty", "blob": None}])
    store.prune(["t"])
    assert [found.config for found in store.list(thread())] == [latest]


@pytest.mark.parametrize("shallow", [False, True], ids=["prune", "a shallow saver"])
def test_a_channel_that_the_graph_has_no_more_keeps_nothing(store: Store, *, shallow: bool) -> None:
    """LangGraph keeps its version; a small value was in the JSON of the checkpoints."""

    def graph(**fields: Any) -> Any:
        state: Any = TypedDict("state", {"turn": int, **fields})  # type: ignore[misc]
        builder: Any = StateGraph(state)
        builder.add_node("node", lambda state: {"turn": state["turn"] + 1})
        builder.add_edge(START, "node")
        return builder

    builder = graph(word=str, words=list[str])
    app(store, builder).invoke({"turn": 0, "word": "w", "words": ["w"]})
    for turn in range(3):
        app(store, graph(), store.make_saver(shallow=shallow)).invoke({"turn": turn})
    store.prune(["t"])
    (found,) = store.list(thread())
    assert found.checkpoint["channel_values"]["turn"] == 3
    assert {"word", "words"} < found.checkpoint["channel_versions"].keys()


def test_a_delta_channel_that_was_never_written_keeps_nothing(store: Store) -> None:
    """LangGraph counts the steps of every DeltaChannel; this one has no version."""
    at = store.save()
    for turn in range(1, 5):
        counters = {"counters_since_delta_snapshot": {"log": [0, turn]}}
        at = store.save(parent=at, values={"turn": [turn]}, metadata=counters)
    store.prune(["t"])
    assert [id_of(found.config) for found in store.list(thread())] == [id_of(at)]
