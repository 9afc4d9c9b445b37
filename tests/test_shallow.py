"""The savers that keep only the latest checkpoint of each namespace, and what it needs."""

from __future__ import annotations

import itertools
import operator
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from graphs import App, app, joined
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.serde.types import ERROR, TASKS, _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from sqlalchemy import event
from stores import KINDS, ONE_PER_PROTOCOL, Store, id_of, thread
from typing_extensions import TypedDict

from checkpoint_sa import (
    AsyncShallowSQLAlchemySaver,
    AsyncSQLAlchemySaver,
    ShallowSQLAlchemySaver,
    SQLAlchemySaver,
)
from checkpoint_sa.engine.engines import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_core.runnables import RunnableConfig

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

SYNC_SERVERS = [name for name, kind in KINDS.items() if kind.server and not kind.is_async]
on_sync_servers = pytest.mark.parametrize("migrated_store", SYNC_SERVERS, indirect=True)


@pytest.fixture
def shallow(store: Store) -> Store:
    """The store, through a saver that keeps the latest only."""
    return store.using(store.make_saver(shallow=True))


def line(shallow: Store, length: int, **save: Any) -> list[RunnableConfig]:
    """Put a line of checkpoints: each with a value of its own, the first one's, and a write."""
    first = shallow.saver.get_next_version(None, None)
    made: list[RunnableConfig] = []
    for turn in range(length):
        config = shallow.save(
            values=values(turn),
            parent=made[-1] if made else None,
            versions={"first": first},
            new=["turn", "small"] if made else ["first", "turn", "small"],
            **save,
        )
        shallow.put_writes(config, [("note", [turn])], f"task {turn}")
        made.append(config)
    return made


def values(turn: int) -> dict[str, Any]:
    return {"first": ["first"], "turn": [turn], "small": turn}


def test_the_shallow_savers_are_savers_of_their_colour(store: Store) -> None:
    kind = AsyncShallowSQLAlchemySaver if store.kind.is_async else ShallowSQLAlchemySaver
    base = AsyncSQLAlchemySaver if store.kind.is_async else SQLAlchemySaver
    assert type(store.make_saver(shallow=True)) is kind
    assert issubclass(kind, base)


def test_only_the_latest_is_there(shallow: Store) -> None:
    made = line(shallow, 5)
    assert [found.config for found in shallow.list(thread(ns=None))] == [made[-1]]
    assert shallow.found(thread()).config == made[-1]


def test_the_latest_is_whole(shallow: Store) -> None:
    made = line(shallow, 5, metadata={"user": "ann", "exact": [2**70, "\0"]})
    found = shallow.found(thread())
    assert found.config == made[-1]
    assert found.checkpoint["channel_values"] == values(4)
    assert found.metadata == {
        "source": "loop",
        "step": 1,
        "parents": {},
        "user": "ann",
        "exact": [2**70, "\0"],
    }
    assert found.pending_writes == [("task 4", "note", [4])]


def test_the_latest_has_no_parent_that_is_not_there(shallow: Store) -> None:
    line(shallow, 3)
    assert shallow.found(thread()).parent_config is None


def test_who_asks_for_one_that_was_replaced_gets_the_latest(shallow: Store) -> None:
    """As with ShallowPostgresSaver: an application may have kept the config of an open question."""
    made = line(shallow, 5)
    latest = shallow.found(thread())
    for config in (*made, thread(checkpoint_id="unknown")):
        assert shallow.found(config) == latest


def test_who_asks_for_one_where_there_is_none_gets_none(shallow: Store) -> None:
    line(shallow, 2)
    assert shallow.get_tuple(thread("nobody", checkpoint_id="1")) is None
    assert shallow.get_tuple(thread(ns="child", checkpoint_id="1")) is None


def test_one_that_a_delta_channel_is_rebuilt_from_counts_as_replaced(shallow: Store) -> None:
    """A graph goes on alike whether it has a DeltaChannel or not."""
    first = shallow.save()
    shallow.put_writes(first, [("log", "a")], "task")
    version = shallow.saver.get_next_version(None, None)
    latest = shallow.save(parent=first, versions={"log": version}, metadata=counted(1))
    assert shallow.count("checkpoints") == 2
    assert shallow.found(first).config == latest


def test_asking_for_one_that_was_replaced_takes_no_more_statements(shallow: Store) -> None:
    made = line(shallow, 2)
    counts = []
    for config in (thread(), made[-1], made[0]):
        with shallow.statements() as statements:
            shallow.get_tuple(config)
        counts.append(len(statements))
    assert counts[1:] == counts[:1] * 2


def test_a_put_on_one_that_was_replaced_is_the_latest_and_has_no_parent(shallow: Store) -> None:
    made = line(shallow, 3)
    after = shallow.save(parent=made[0], values={"turn": [9]})
    found = shallow.found(thread())
    assert (found.config, found.parent_config) == (after, None)
    assert found.checkpoint["channel_values"] == {"turn": [9]}
    assert shallow.rows() == (1, 1, 0)


def test_writes_to_one_that_was_replaced_are_none_of_the_latest(shallow: Store) -> None:
    made = line(shallow, 3)
    shallow.put_writes(made[0], [("note", ["late"])], "late task")
    assert shallow.found(made[0]).pending_writes == [("task 2", "note", [2])]


def test_what_is_stored_is_there_for_everyone(store: Store, shallow: Store) -> None:
    made = line(shallow, 3)
    other = Store(store.kind, store.url)
    try:
        assert other.found(thread()).config == made[-1]
        assert other.found(thread()).checkpoint["channel_values"] == values(2)
        assert other.rows() == (1, 2, 1)
    finally:
        other.close()


def test_fifty_puts_leave_as_many_rows_as_one(shallow: Store) -> None:
    first = line(shallow, 1)
    once = shallow.rows()
    assert once == (1, 2, 1)
    shallow.delete_thread("t")
    made = line(shallow, 50)
    assert shallow.rows() == once
    assert shallow.found(thread()).config == made[-1] != first[0]
    assert shallow.found(thread()).checkpoint["channel_values"] == values(49)


def test_a_value_that_stays_is_kept_over_many_puts(shallow: Store) -> None:
    line(shallow, 10)
    assert shallow.found(thread()).checkpoint["channel_values"]["first"] == ["first"]


def test_a_channel_that_is_gone_leaves_no_value(shallow: Store) -> None:
    first = shallow.save(values={"x": [1], "y": [2]})
    shallow.save(parent=first, values={"x": [3]})
    assert shallow.found(thread()).checkpoint["channel_values"] == {"x": [3]}
    assert shallow.rows() == (1, 1, 0)


def test_each_namespace_keeps_its_own_latest(shallow: Store) -> None:
    latest = {ns: line(shallow, 3, ns=ns)[-1] for ns in ("", "child", "Child", "node:1")}
    assert shallow.rows() == (4, 8, 4)
    for ns, config in latest.items():
        assert shallow.found(thread(ns=ns)).config == config
        assert shallow.found(config).checkpoint["channel_values"] == values(2)


def test_other_threads_keep_their_own_latest(shallow: Store) -> None:
    latest = {name: line(shallow, 2, thread_id=name)[-1] for name in ("t", "T", "t ", "u")}
    assert shallow.rows() == (4, 8, 4)
    for name, config in latest.items():
        assert shallow.found(thread(name)).config == config


def test_equal_versions_of_another_namespace_stay(shallow: Store) -> None:
    shallow.save(values={"x": ["root"]}, versions={"x": "1"})
    for version in ("1", "2"):
        shallow.save(ns="child", values={"x": [version]}, versions={"x": version})
    assert shallow.found(thread()).checkpoint["channel_values"] == {"x": ["root"]}
    assert shallow.rows() == (2, 2, 0)


def test_putting_the_latest_again_updates_it(shallow: Store) -> None:
    line(shallow, 2)
    first = shallow.save(values={"x": [1]}, checkpoint_id="z", metadata={"step": 1})
    shallow.put_writes(first, [("x", 1)], "task")
    again = shallow.save(values={"x": [2]}, checkpoint_id="z", metadata={"step": 2})
    found = shallow.found(thread())
    assert found.config == again == first
    assert found.checkpoint["channel_values"] == {"x": [2]}
    assert found.metadata["step"] == 2
    assert found.pending_writes == [("task", "x", 1)]


# Those who come late


def test_a_late_put_of_an_older_checkpoint_replaces_nothing(shallow: Store) -> None:
    """LG#8810: a run that was cancelled finishes late, and overwrote what is newer."""
    shallow.save(values={"x": ["old"]}, checkpoint_id="1")
    newer = shallow.save(values={"x": ["new"]}, checkpoint_id="3")
    shallow.put_writes(newer, [("x", "pending")], "task")
    before = shallow.found(thread())
    shallow.save(values={"x": ["late"]}, checkpoint_id="2", parent=thread(checkpoint_id="1"))
    assert shallow.found(thread()) == before
    assert before.checkpoint["channel_values"] == {"x": ["new"]}
    assert id_of(shallow.found(thread(checkpoint_id="2")).config) == "3"
    assert shallow.rows() == (1, 1, 1)


def test_a_late_put_that_shares_values_with_the_latest_takes_none_away(shallow: Store) -> None:
    first = shallow.save(values={"x": ["shared"]}, versions={"x": "1"}, checkpoint_id="1")
    shallow.save(
        parent=first,
        values={"x": ["shared"], "y": ["new"]},
        versions={"x": "1", "y": "3"},
        new=["y"],
        checkpoint_id="3",
    )
    shallow.save(
        parent=first,
        values={"x": ["shared"], "y": ["late"]},
        versions={"x": "1", "y": "2"},
        new=["y"],
        checkpoint_id="2",
    )
    assert shallow.found(thread()).checkpoint["channel_values"] == {"x": ["shared"], "y": ["new"]}
    assert shallow.rows() == (1, 2, 0)


def test_late_writes_do_not_pile_up(shallow: Store) -> None:
    at = shallow.save(values={"x": [0]})
    for turn in range(1, 30):
        before, at = at, shallow.save(parent=at, values={"x": [turn]})
        shallow.put_writes(before, [("x", turn), (ERROR, "late")], f"late task {turn}")
        assert shallow.rows() == (1, 1, 2)
    assert shallow.found(thread()).pending_writes == []
    shallow.save(parent=at, values={"x": [30]})
    assert shallow.rows() == (1, 1, 0)


def test_writes_that_come_before_their_checkpoint_are_kept(shallow: Store) -> None:
    first = shallow.save(checkpoint_id="1")
    shallow.put_writes(thread(checkpoint_id="2"), [("x", "early")], "task")
    shallow.save(parent=first, checkpoint_id="2")
    assert shallow.found(thread()).pending_writes == [("task", "x", "early")]
    assert shallow.rows() == (1, 0, 1)


def test_late_writes_of_other_namespaces_stay_apart(shallow: Store) -> None:
    config = shallow.save(ns="child", checkpoint_id="1")
    shallow.put_writes(config, [("x", "child's")], "task")
    for checkpoint_id in ("2", "3"):
        shallow.save(checkpoint_id=checkpoint_id)
    assert shallow.found(config).pending_writes == [("task", "x", "child's")]


@contextmanager
def at_statement(store: Store, number: int, action: Callable[[], object]) -> Iterator[list[int]]:
    """Do something in a thread before a statement is sent; collect the numbers of those sent.

    What has to wait for rows of the store's transaction goes on when that one is over.
    """
    sent: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[object]] = []

        def before(*_: Any) -> None:
            sent.append(len(sent))
            if sent[-1] == number:
                begun.append(pool.submit(action))
                wait(begun, timeout=0.2)

        event.listen(store.root, "before_cursor_execute", before)
        try:
            yield sent
        finally:
            event.remove(store.root, "before_cursor_execute", before)
        for future in begun:
            future.result()


@on_sync_servers
@pytest.mark.parametrize("older", [1, 3])
@pytest.mark.parametrize("beside", ["3", "5"], ids=["an older one", "a newer one"])
def test_two_puts_that_overlap_leave_the_newest(
    store: Store, shallow: Store, beside: str, older: int
) -> None:
    """Where neither sees the other, both stay; the next put tidies up."""

    def put(saver: Store, name: str) -> None:
        changed = {"x": [name], "y": ["y"]}
        saver.save(values=changed, versions={"y": "1"}, new=["x"], checkpoint_id=name)

    engine = make_engine(store.url)
    other = store.using(ShallowSQLAlchemySaver(engine))
    for number in itertools.count():
        store.clear()
        for name in range(older):
            store.save(values={"y": ["y"]}, versions={"y": "1"}, checkpoint_id=str(name))
        with at_statement(shallow, number, partial(put, other, beside)) as sent:
            put(shallow, "4")
        if len(sent) <= number:
            break
        found = shallow.found(thread())
        assert id_of(found.config) == max("4", beside)
        assert found.checkpoint["channel_values"] == {"x": [max("4", beside)], "y": ["y"]}
        put(shallow, "9")
        assert shallow.rows() == (1, 2, 0)
    engine.dispose()
    assert number >= 5


@on_sync_servers
def test_many_puts_at_a_time_leave_the_newest(shallow: Store) -> None:
    for start in range(3):
        ids = [f"{start}{number}" for number in range(4)]
        barrier = threading.Barrier(len(ids))

        def put(checkpoint_id: str, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            shallow.save(values={"x": [checkpoint_id]}, checkpoint_id=checkpoint_id)

        with ThreadPoolExecutor(len(ids)) as pool:
            list(pool.map(put, ids))
        found = shallow.found(thread())
        assert id_of(found.config) == ids[-1]
        assert found.checkpoint["channel_values"] == {"x": [ids[-1]]}
    shallow.save(values={"x": ["last"]}, checkpoint_id="9")
    assert shallow.rows() == (1, 1, 0)


def test_a_put_that_fails_half_way_leaves_the_latest_as_it_was(shallow: Store) -> None:
    made = line(shallow, 2)
    before = shallow.found(thread())

    def fail(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("DELETE FROM checkpoint_blobs"):
            raise ZeroDivisionError

    event.listen(shallow.root, "before_cursor_execute", fail)
    try:
        with pytest.raises(ZeroDivisionError):
            shallow.save(parent=made[-1], values={"turn": ["never"]})
    finally:
        event.remove(shallow.root, "before_cursor_execute", fail)
    assert shallow.found(thread()) == before
    assert shallow.rows() == (1, 2, 1)


# What the latest needs


def test_pending_sends_before_version_4_keep_their_parent(shallow: Store) -> None:
    first = shallow.save(values={"turn": [0]}, v=3)
    shallow.put_writes(first, [(TASKS, Send("node", 1))], "sender")
    second = shallow.save(parent=first, values={"turn": [1]}, v=3)
    assert shallow.found(second).checkpoint["channel_values"] == {
        "turn": [1],
        TASKS: [Send("node", 1)],
    }
    assert shallow.count("checkpoints") == 2
    third = shallow.save(parent=second, values={"turn": [2]}, v=4)
    assert [found.config for found in shallow.list(thread())] == [third]
    assert shallow.rows() == (1, 1, 0)


def counted(updates: int) -> dict[str, Any]:
    """Make the metadata by which LangGraph counts the updates of a DeltaChannel."""
    return {"counters_since_delta_snapshot": {"log": [updates, updates]}} if updates else {}


def test_a_delta_channel_keeps_what_rebuilds_it_and_no_more(shallow: Store) -> None:
    at = shallow.save(values={"turn": [0]})
    for turn in range(1, 21):
        shallow.put_writes(at, [("log", turn)], "task")
        snapshot = {"log": _DeltaSnapshot(list(range(1, turn + 1)))} if turn % 4 == 0 else {}
        changed = {"turn": [turn], **snapshot}
        log = {} if snapshot else {"log": shallow.saver.get_next_version(None, None)}
        at = shallow.save(parent=at, values=changed, versions=log, metadata=counted(turn % 4))
        found = shallow.history(at, ["log"])["log"]
        if turn % 4:
            start = turn - turn % 4
            assert [value for _, _, value in found["writes"]] == list(range(start + 1, turn + 1))
            assert found.get("seed") == (
                _DeltaSnapshot(list(range(1, start + 1))) if start else None
            )
        assert shallow.count("checkpoints") == turn % 4 + 1
        assert shallow.count("checkpoint_writes") == turn % 4


# Beside the ordinary saver


def test_it_reads_what_the_ordinary_saver_wrote_and_keeps_its_latest(
    store: Store, shallow: Store
) -> None:
    made = line(store, 4)
    assert shallow.found(thread()) == store.found(thread())
    assert len(shallow.list(thread())) == 4
    latest = shallow.save(parent=made[-1], values={"turn": [4]})
    assert [found.config for found in store.list(thread())] == [latest]
    assert store.rows() == (1, 1, 0)


def test_the_ordinary_saver_goes_on_from_it(store: Store, shallow: Store) -> None:
    made = line(shallow, 3)
    after = store.save(parent=made[-1], values={"turn": [3]})
    assert [found.config for found in store.list(thread())] == [after, made[-1]]
    assert store.found(after).parent_config == made[-1]


def test_deleting_copying_and_pruning_work_as_ever(shallow: Store) -> None:
    line(shallow, 3, metadata={"run_id": "run"})
    shallow.copy_thread("t", "copy")
    assert shallow.found(thread("copy")).checkpoint["channel_values"] == values(2)
    shallow.prune(["t"])
    assert shallow.rows() == (2, 4, 2)
    shallow.delete_for_runs(["run"])
    assert shallow.rows() == (0, 0, 0)


# Graphs


def anew(store: Store, builder: Any) -> App:
    """Compile a graph on a new shallow saver."""
    return app(store, builder, store.make_saver(shallow=True))


class State(TypedDict):
    words: Annotated[list[str], operator.add]
    log: Annotated[list[str], DeltaChannel(joined, snapshot_frequency=3)]
    turn: int


def says(name: str) -> Any:
    return lambda state: {"words": [name], "log": [f"{name} {state['turn']}"]}


def asks(_: Any) -> dict[str, Any]:
    answer = interrupt("well?")
    return {"words": [answer], "log": [answer]}


def graph(**nodes: Any) -> Any:
    """Build a graph of nodes in a row."""
    builder: Any = StateGraph(State)
    names = list(nodes)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder


def asking() -> Any:
    return graph(first=says("first"), ask=asks, last=says("last"))


DURABILITIES = ["sync", "async", "exit"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_graph_is_interrupted_and_resumed(store: Store, durability: str) -> None:
    for turn in range(3):
        anew(store, asking()).invoke(
            {"words": ["in"], "log": [f"in {turn}"], "turn": turn}, durability=durability
        )
        waiting = anew(store, asking()).state()
        assert waiting.next == ("ask",)
        assert [question.value for question in waiting.interrupts] == ["well?"]
        anew(store, asking()).invoke(Command(resume=f"answer {turn}"), durability=durability)
    state = anew(store, asking()).state()
    assert state.next == ()
    assert state.values["words"] == [
        word for turn in range(3) for word in ("in", "first", f"answer {turn}", "last")
    ]
    assert state.values["log"] == [
        word
        for turn in range(3)
        for word in (f"in {turn}", f"first {turn}", f"answer {turn}", f"last {turn}")
    ]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("channel", ["words", "log"], ids=["plain", "a DeltaChannel"])
def test_a_graph_that_is_resumed_twice_with_one_config_goes_on(
    store: Store, channel: str, durability: str
) -> None:
    """An application keeps the config beside the question that was open first."""

    def asks_as(name: str) -> Any:
        return lambda _: {channel: [f"{name}:{interrupt('well?')}"]}

    questions = graph(a=lambda _: {channel: ["a"]}, b=asks_as("b"), c=asks_as("c"))
    anew(store, questions).invoke({channel: ["in"], "turn": 0}, durability=durability)
    config = anew(store, questions).state().config
    for answer, expected in (("x", ["b:x"]), ("y", ["b:x", "c:y"])):
        anew(store, questions).invoke(Command(resume=answer), config, durability=durability)
        assert anew(store, questions).state().values[channel] == ["in", "a", *expected]
        assert anew(store, questions).state(config).values[channel] == ["in", "a", *expected]
    anew(store, questions).update({channel: ["human"]}, config)
    assert anew(store, questions).state().values[channel] == ["in", "a", "b:x", "c:y", "human"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_graph_without_delta_channels_leaves_one_checkpoint(
    store: Store, durability: str
) -> None:
    class Plain(TypedDict):
        words: Annotated[list[str], operator.add]

    builder: Any = StateGraph(Plain)
    builder.add_node("a", lambda _: {"words": ["a"]})
    builder.add_edge(START, "a")
    builder.add_edge("a", END)
    for _ in range(5):
        anew(store, builder).invoke({"words": ["in"]}, durability=durability)
    assert anew(store, builder).state().values == {"words": ["in", "a"] * 5}
    assert store.count("checkpoints") == 1


def test_a_graph_with_a_delta_channel_keeps_a_bounded_chain(store: Store) -> None:
    plain = graph(first=says("first"), last=says("last"))
    most = 0
    for turn in range(12):
        anew(store, plain).invoke({"words": ["in"], "log": [f"in {turn}"], "turn": turn})
        most = max(most, store.count("checkpoints"))
        assert anew(store, plain).state().values["log"] == [
            f"{name} {done}" for done in range(turn + 1) for name in ("in", "first", "last")
        ]
    assert most <= 6


def test_a_state_is_updated(store: Store) -> None:
    anew(store, asking()).invoke({"words": ["in"], "log": ["in"], "turn": 0})
    anew(store, asking()).update({"words": ["human"], "log": ["human"]})
    anew(store, asking()).invoke(Command(resume="answer"))
    assert anew(store, asking()).state().values["log"] == [
        *("in", "first 0", "human"),
        *("answer", "last 0"),
    ]


def test_a_node_that_failed_runs_again_and_the_others_do_not(store: Store) -> None:
    ran: list[str] = []
    worked = threading.Event()

    def fails_once(_: Any) -> dict[str, Any]:
        ran.append("fails")
        if ran.count("fails") == 1:
            worked.wait(10)
            time.sleep(0.5)  # LangGraph cancels a task whose end it hasn't seen yet
            raise ZeroDivisionError
        return {"words": ["fails"]}

    def works(_: Any) -> dict[str, Any]:
        ran.append("works")
        worked.set()
        return {"words": ["works"]}

    builder: Any = StateGraph(State)
    builder.add_node("fails", fails_once)
    builder.add_node("works", works)
    for name in ("fails", "works"):
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    with pytest.raises(ZeroDivisionError):
        anew(store, builder).invoke({"words": ["in"]})
    anew(store, builder).invoke(None)
    assert sorted(ran) == ["fails", "fails", "works"]
    assert anew(store, builder).state().values["words"] == ["in", "fails", "works"]


def test_a_fan_out_of_sends_comes_together(store: Store) -> None:
    builder: Any = StateGraph(State)
    builder.add_node("split", lambda _: {"words": ["split"]})
    builder.add_node("work", lambda parcel: {"words": [f"parcel {parcel['number']}"]})
    builder.add_edge(START, "split")
    builder.add_conditional_edges(
        "split", lambda _: [Send("work", {"number": number}) for number in range(3)], ["work"]
    )
    anew(store, builder).invoke({"words": []})
    assert anew(store, builder).state().values["words"] == [
        "split",
        *(f"parcel {number}" for number in range(3)),
    ]


@pytest.mark.parametrize("memory", [None, True], ids=["of each call", "of its own"])
def test_a_subgraph_is_interrupted_and_resumed(store: Store, memory: bool | None) -> None:
    def outer() -> Any:
        return graph(child=asking().compile(checkpointer=memory), end=says("end"))

    anew(store, outer()).invoke({"words": ["in"], "log": ["in"], "turn": 0})
    inside: Any = anew(store, outer()).state(subgraphs=True).tasks[0].state
    assert inside.next == ("ask",)
    assert inside.values["words"] == ["in", "first"]
    anew(store, outer()).invoke(Command(resume="answer"))
    state = anew(store, outer()).state()
    assert state.next == ()
    assert state.values["words"][-3:] == ["answer", "last", "end"]
    namespaces = {found.config["configurable"]["checkpoint_ns"] for found in store.list(None)}
    assert len(namespaces) == 2


def test_the_history_of_a_graph_is_its_latest_state(store: Store) -> None:
    plain: Any = StateGraph(State)
    plain.add_node("a", lambda _: {"words": ["a"]})
    plain.add_edge(START, "a")
    app = anew(store, plain)
    for _ in range(3):
        app.invoke({"words": ["in"]})
    history = app.history()
    assert history[0].values["words"] == ["in", "a"] * 3
    assert history[0].config == app.state().config
