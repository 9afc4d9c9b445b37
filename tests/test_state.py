"""State that changes shape: upgraded on read and by `rewrite`, on every engine."""

from __future__ import annotations

import operator
import random
import sys
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, cast

import pytest
from graphs import App, T, app, joined
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import RESUME
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from sqlalchemy import create_engine, event, make_url
from stores import ONE_PER_PROTOCOL, Store, exact, id_of
from typing_extensions import TypedDict

from checkpoint_sa import (
    AESGCMSerializer,
    CorruptDataError,
    InvalidInputError,
    SQLAlchemySaver,
    StateUpgradeError,
)
from checkpoint_sa.cli import main
from checkpoint_sa.state import State, StateWrite, rename_channel, rename_node, set_default

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TypeAlias

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import Checkpoint, CheckpointTuple

    from checkpoint_sa.state import Revision, StateDiff

    Rewrite: TypeAlias = "Callable[..., tuple[int, str, str]]"

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

LONG = "x" * 3000
"""A text that isn't stored in a checkpoint's JSON, and is stored in a chain."""

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "incremental": {"incremental": True},
    "shallow": {"shallow": True},
    "encrypted": {"serde": AESGCMSerializer(b"k" * 32)},
}
in_every_form = pytest.mark.parametrize("form", list(FORMS))


class Before(TypedDict):
    text: list[str]
    notes: Annotated[list[str], operator.add]


class After(TypedDict):
    summary: list[str]
    notes: Annotated[list[str], operator.add]
    language: str


def asked(state: Before) -> dict[str, Any]:
    answer = interrupt("sure?")
    return {"notes": [f"{answer} {len(state['text'])}"]}


def asked_after(state: After) -> dict[str, Any]:
    answer = interrupt("sure?")
    return {"notes": [f"{answer} {len(state['summary'])} {state['language']}"]}


def beside(_: Any) -> dict[str, Any]:
    return {"notes": ["beside"]}


def ended(_: Any) -> dict[str, Any]:
    return {"notes": ["joined"]}


def waiting_graph(schema: type, name: str, ask: Any) -> Any:
    """A graph that waits in a node, beside a task that has ended; a join starts `end`."""
    builder: Any = StateGraph(schema)
    builder.add_node(name, ask)
    builder.add_node("beside", beside)
    builder.add_node("end", ended)
    builder.add_edge(START, name)
    builder.add_edge(START, "beside")
    builder.add_edge([name, "beside"], "end")
    builder.add_edge("end", END)
    return builder


def old_graph() -> Any:
    return waiting_graph(Before, "ask", asked)


def new_graph() -> Any:
    return waiting_graph(After, "confirm", asked_after)


REVISIONS: dict[str, Revision] = {
    "1_summary": rename_channel("text", "summary"),
    "2_confirm": rename_node("ask", "confirm"),
    "3_language": set_default("language", "en"),
}


def waiting(store: Store, form: str) -> App:
    """Run the old graph until its interrupt."""
    saver = store.make_saver(**FORMS[form])
    old = app(store, old_graph(), saver)
    assert "__interrupt__" in old.invoke({"text": [*LONG], "notes": ["begin"]})
    return old


def upgrading(store: Store, form: str, revisions: Mapping[str, Revision] = REVISIONS) -> Store:
    return store.using(store.make_saver(**FORMS[form], upgrade_state=revisions))


@in_every_form
def test_a_waiting_thread_resumes_in_a_graph_with_other_names(store: Store, form: str) -> None:
    waiting(store, form)
    newer = upgrading(store, form)
    new = app(newer, new_graph(), newer.saver)
    assert new.state().next == ("confirm",)
    done = new.invoke(Command(resume="yes"))
    expected = {
        "summary": [*LONG],
        "notes": ["begin", "beside", "yes 3000 en", "joined"],
        "language": "en",
    }
    assert {**done, "notes": sorted(done["notes"])} == {
        **expected,
        "notes": sorted(expected["notes"]),
    }
    # Another process reads the values from the database.
    other = upgrading(store, form)
    assert app(other, new_graph(), other.saver).state().values == done


@in_every_form
def test_a_rewritten_thread_resumes(store: Store, form: str) -> None:
    waiting(store, form)
    saver = store.using(store.make_saver(**FORMS[form]))
    assert saver.rewrite(transform=REVISIONS) == len(saver.list(T))
    assert saver.rewrite(transform=REVISIONS) == 0
    newer = upgrading(store, form)
    new = app(newer, new_graph(), newer.saver)
    done = new.invoke(Command(resume="yes"))
    assert sorted(done["notes"]) == ["begin", "beside", "joined", "yes 3000 en"]


@in_every_form
def test_reading_and_rewriting_give_the_same(store: Store, form: str) -> None:
    waiting(store, form)
    newer = upgrading(store, form)
    before = [shown(found) for found in newer.list(T)]
    assert "summary" in newer.found(T).checkpoint["channel_values"]
    store.using(store.make_saver(**FORMS[form])).rewrite(transform=REVISIONS)
    assert [shown(found) for found in newer.list(T)] == before
    # A saver without revisions sees them as well, and no name of ours.
    plain = store.using(store.make_saver(**FORMS[form]))
    assert [shown(found) for found in plain.list(T)] == before
    assert "checkpoint_sa_revision" not in plain.found(T).checkpoint


def shown(found: CheckpointTuple) -> dict[str, Any]:
    """Return all of a checkpoint in a form whose equality is that of the content."""
    checkpoint = dict(found.checkpoint)
    return {
        "config": found.config,
        "parent": found.parent_config,
        "values": exact(checkpoint.pop("channel_values")),
        "checkpoint": exact(checkpoint),
        "metadata": exact(found.metadata),
        "writes": [
            (task, channel, exact(value)) for task, channel, value in found.pending_writes or ()
        ],
    }


# A model: three deploys with 0, 1 and 3 revisions write checkpoints and writes, in any order.


def change(state: State, channel: str, function: Callable[[Any], Any]) -> None:
    """Change a channel's value, and the writes to it."""
    if channel in state.values:
        state.values[channel] = function(state.values[channel])
    for write in state.writes:
        if write.channel == channel:
            write.value = function(write.value)


def extended(value: list[Any]) -> list[Any]:
    value.append("more")  # in place, as a revision may do
    return value


MODEL: dict[str, Revision] = {
    "1": rename_channel("a", "b"),
    "2": lambda state: change(state, "c", extended),
    "3": lambda state: change(state, "b", lambda value: f"{value}!"),
}
DEPLOYS = (0, 1, 3)
"""The number of revisions of each deploy."""


def modelled(channel: str, value: Any, done: int, wanted: int) -> tuple[str, Any]:
    """Return a channel and its value after the revisions from `done` to `wanted`."""
    for number in range(done, wanted):
        if number == 0 and channel == "a":
            channel = "b"
        if number == 1 and channel == "c":
            value = [*value, "more"]
        if number == 2 and channel == "b":
            value = f"{value}!"
    return channel, value


@pytest.mark.parametrize("form", [form for form in FORMS if form != "shallow"])
@pytest.mark.parametrize("seed", range(4))
def test_random_threads_read_as_the_model_says(store: Store, form: str, seed: int) -> None:
    generator = random.Random(seed)
    savers = {
        number: store.using(
            store.make_saver(
                **FORMS[form], upgrade_state=dict([*MODEL.items()][:number]) if number else None
            )
        )
        for number in DEPLOYS
    }
    made: list[tuple[RunnableConfig, int, dict[str, Any]]] = []
    written: dict[str, list[tuple[str, Any]]] = {}
    reached: dict[str, int] = {}  # the last deploy that has stored a part of a checkpoint
    for step in range(14):
        deploy = generator.choice(DEPLOYS)
        saver = savers[deploy]
        parents = [each for each in made if reached[id_of(each[0])] <= deploy]
        parent, values, kept = None, {}, {}
        if parents:
            parent, done, before = generator.choice(parents)
            values = dict(modelled(*item, done, deploy) for item in before.items())
            found = saver.found(parent).checkpoint
            assert found["channel_values"] == values
            kept = found["channel_versions"]
        new = {
            channel: value
            for channel, value in {
                "a" if deploy == 0 else "b": f"{step} {LONG}",
                "c": [step, LONG],
                "d": step,
            }.items()
            if not parents or generator.random() < 1 / 3
        }
        values |= new
        versions = {channel: kept[channel] for channel in values.keys() - new}
        config = saver.save("t", values, parent=parent, versions=versions, new=list(new))
        made.append((config, deploy, values))
        reached[id_of(config)] = deploy
        target, _, _ = generator.choice(made)
        deploy = generator.choice(DEPLOYS)
        reached[id_of(target)] = max(reached[id_of(target)], deploy)
        write = ("a" if deploy == 0 else "b", f"written {step}")
        writes: list[tuple[str, Any]] = [write, ("c", [step])]
        savers[deploy].put_writes(target, writes, f"{step:03}")
        written.setdefault(id_of(target), []).extend(
            modelled(*item, deploy, len(MODEL)) for item in writes
        )

    def check() -> None:
        for config, deploy, values in made:
            found = savers[len(MODEL)].found(config)
            expected = dict(modelled(*item, deploy, len(MODEL)) for item in values.items())
            assert found.checkpoint["channel_values"] == expected
            assert found.checkpoint["channel_versions"].keys() == expected.keys()
            assert [w[1:] for w in found.pending_writes or ()] == written.get(id_of(config), [])

    check()
    savers[0].rewrite(transform=MODEL)
    check()
    savers[0].rewrite(incremental=generator.random() < 1 / 2)
    check()
    assert savers[0].rewrite(transform=MODEL) == 0


def test_a_name_can_move_to_another_channel(store: Store) -> None:
    """Both have the same version, as the channels of one step have."""
    swap: dict[str, Revision] = {
        "1": rename_channel("a", "c"),
        "2": rename_channel("b", "a"),
        "3": rename_channel("c", "b"),
    }
    version = store.saver.get_next_version(None, None)
    versions = dict.fromkeys("ab", version)
    first = store.save("t", {"a": f"a{LONG}", "b": f"b{LONG}"}, versions=versions)
    newer = store.using(store.make_saver(upgrade_state=swap))
    found = newer.found(first).checkpoint
    swapped = {"a": f"b{LONG}", "b": f"a{LONG}"}
    assert found["channel_values"] == swapped
    second = newer.save(
        "t", swapped | {"d": 1}, parent=first, versions=found["channel_versions"], new=["d"]
    )
    fresh = store.using(store.make_saver(upgrade_state=swap))
    assert fresh.found(second).checkpoint["channel_values"] == swapped | {"d": 1}
    store.rewrite(transform=swap)
    assert fresh.found(first).checkpoint["channel_values"] == swapped


def following(store: Store, parent: RunnableConfig, **new: Any) -> RunnableConfig:
    """Store a checkpoint as LangGraph does: with the values of its parent, and new ones."""
    found = store.found(parent).checkpoint
    values = found["channel_values"] | new
    versions = {k: v for k, v in found["channel_versions"].items() if k not in new}
    return store.save(parent=parent, values=values, versions=versions, new=list(new))


def test_a_value_that_stays_is_stored_once(store: Store) -> None:
    first = store.save("t", {"text": [LONG]})
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    second = following(newer, first, n=1)
    with newer.statements() as sent:
        last = following(newer, following(newer, second, n=2), n=3)
    assert store.count("checkpoint_blobs") == 2  # under both names
    assert not any("INSERT INTO checkpoint_blobs" in each for each in sent.texts)
    assert newer.found(last).checkpoint["channel_values"] == {
        "summary": [LONG],
        "language": "en",
        "n": 3,
    }


def test_a_fork_stores_a_value_whose_rows_were_deleted(store: Store) -> None:
    first = store.save("t", {"text": [LONG]})
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    found = newer.found(first).checkpoint
    gone = newer.save(
        parent=first,
        values=found["channel_values"],
        versions=found["channel_versions"],
        new=[],
        metadata={"run_id": "gone"},
    )
    newer.delete_for_runs(["gone"])
    assert newer.get_tuple(gone) is None
    fork = newer.save(
        parent=first, values=found["channel_values"], versions=found["channel_versions"], new=[]
    )
    assert newer.found(fork).checkpoint["channel_values"]["summary"] == [LONG]


def test_a_checkpoint_of_a_process_without_revisions_is_before_the_first(store: Store) -> None:
    newer = store.using(store.make_saver(upgrade_state={"1": rename_channel("a", "b")}))
    first = newer.save("t", {"b": LONG})
    second = store.save(parent=first, values={"a": LONG})
    assert newer.found(second).checkpoint["channel_values"] == {"b": LONG}
    store.put_writes(first, [("a", 1)], "old task")
    newer.put_writes(first, [("b", 2)], "task")
    assert newer.found(first).pending_writes == [("old task", "b", 1), ("task", "b", 2)]


def test_metadata_changes_as_well(store: Store) -> None:
    def rename(state: State) -> None:
        state.metadata["owner"] = state.metadata.pop("user")

    config = store.save("t", {"a": 1}, metadata={"user": "ann", "odd": float("nan")})
    newer = store.using(store.make_saver(upgrade_state={"1": rename}))
    assert newer.found(config).metadata["owner"] == "ann"  # type: ignore[typeddict-item]
    assert newer.list(None, filter={"user": "ann"})  # as it is stored
    assert store.rewrite(transform={"1": rename}) == 1
    found = store.list(None, filter={"owner": "ann"})
    assert "user" not in found[0].metadata


def test_a_trial_reports_names_and_types_and_stores_nothing(store: Store) -> None:
    config = store.save("t", {"text": "secret", "notes": ["secret"]}, metadata={"user": "secret"})
    store.put_writes(config, [("text", "secret")], "task")
    before = shown(store.found(config))

    def drop(state: State) -> None:
        del state.metadata["user"]
        state.values["notes"].append("secret")

    diffs: list[StateDiff] = []
    options: dict[str, Any] = {
        "transform": {**REVISIONS, "4_drop": drop},
        "report": diffs.append,
    }
    assert store.rewrite(dry_run=True, **options) == 1
    assert shown(store.found(config)) == before
    changes = (
        "~ writes: text",
        "+ language: str",
        "~ notes: list",
        "+ summary: str",
        "- text: str",
        "- metadata: user",
    )
    assert diffs == [("t", "", id_of(config), changes)]
    assert store.rewrite(**options) == 1
    assert diffs[0] == diffs[1]
    assert shown(store.found(config)) != before


def test_an_interrupted_rewrite_goes_on(store: Store) -> None:
    configs = [store.save(f"t{number}", {"text": LONG}) for number in range(3)]
    stored = []

    def stop(diff: StateDiff) -> None:
        stored.append(diff.thread_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.rewrite(transform=REVISIONS, report=stop)
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    for config in configs:
        assert newer.found(config).checkpoint["channel_values"]["summary"] == LONG
    assert store.rewrite(transform=REVISIONS) == 2
    assert all("summary" in store.found(c).checkpoint["channel_values"] for c in configs)


def test_rewriting_leaves_the_values_of_other_checkpoints(store: Store) -> None:
    """Two checkpoints share a value; a revision fails at the second."""
    first = store.save("t", {"text": LONG, "n": 1})
    second = following(store, first, n=2)

    def fail(state: State) -> None:
        if state.values["n"] == 2:
            raise ZeroDivisionError
        state.values["text"] += "!"

    with pytest.raises(ZeroDivisionError):
        store.rewrite(transform={"1": fail})
    assert store.found(second).checkpoint["channel_values"] == {"text": LONG, "n": 2}
    assert store.found(first).checkpoint["channel_values"]["text"] == LONG  # one transaction


def test_a_rewrite_that_fails_at_any_statement_leaves_states_that_read_alike(store: Store) -> None:
    waiting(store, "plain")
    newer = upgrading(store, "plain")
    before = [shown(found) for found in newer.list(T)]
    number = 0
    while True:
        number += 1
        left = number

        def fail(*_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise ZeroDivisionError

        event.listen(store.root, "before_cursor_execute", fail)
        try:
            store.rewrite(transform=REVISIONS)
        except ZeroDivisionError:
            pass
        else:
            break
        finally:
            event.remove(store.root, "before_cursor_execute", fail)
        assert [shown(found) for found in newer.list(T)] == before
    assert number > 10
    assert [shown(found) for found in newer.list(T)] == before
    assert store.rewrite(transform=REVISIONS) == 0


def test_a_rewrite_in_repeatable_read_keeps_an_answer_that_arrives_meanwhile(store: Store) -> None:
    """The engine is the application's; two checkpoints are rewritten in one transaction."""
    drivers = {"": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
    drivers |= {name: f"{name}+pymysql" for name in ("mysql", "mariadb")}
    url = make_url(store.url).set(drivername=drivers[store.kind.server])
    level: Any = {"isolation_level": "REPEATABLE READ"} if store.kind.server else {}
    configs = [store.save("t", {"text": [LONG], "n": number}) for number in range(2)]
    store.put_writes(configs[1], [(RESUME, ["first"])], "task")
    threads: list[Thread] = []

    def answer() -> None:
        engine = create_engine(url)
        saver = SQLAlchemySaver(engine, upgrade_state={"1": rename})
        saver.put_writes(configs[1], [(RESUME, ["first", "second"])], "task")
        engine.dispose()

    def rename(state: State) -> None:
        rename_channel("text", "summary")(state)
        if not threads:
            threads.append(Thread(target=answer))
            threads[0].start()
            threads[0].join(1)  # it may wait for the end of the rewrite

    engine = create_engine(url, **level)
    assert SQLAlchemySaver(engine).rewrite(transform={"1": rename}) == 2
    engine.dispose()
    threads[0].join()
    assert store.found(configs[1]).pending_writes == [("task", RESUME, ["first", "second"])]


def test_a_value_that_does_not_read_back_stays(store: Store) -> None:
    class Label(str):
        """Text that reads back as a str."""

        __slots__ = ()

    config = store.save("t", {"text": LONG})
    spoil = {"1": lambda state: state.values.update(text=Label("secret" + LONG))}
    with pytest.raises(CorruptDataError, match="channel 'text', Label, differs") as caught:
        store.rewrite(transform=spoil)
    assert "secret" not in str(caught.value)
    assert store.found(config).checkpoint["channel_values"] == {"text": LONG}

    def spoil_write(state: State) -> None:
        state.writes[0].value = Label("secret" + LONG)

    store.put_writes(config, [("text", "a"), ("text", "b")], "task")
    with pytest.raises(CorruptDataError, match="a write to channel 'text', Label") as caught:
        store.rewrite(transform={"1": spoil_write})
    assert "secret" not in str(caught.value)
    assert [write[2] for write in store.found(config).pending_writes or ()] == ["a", "b"]


def test_two_writes_in_one_place_are_refused(store: Store) -> None:
    config = store.save("t", {"text": LONG})
    store.put_writes(config, [("text", "a"), ("text", "b")], "task")

    def merge(state: State) -> None:
        state.writes[1].idx = state.writes[0].idx

    with pytest.raises(CorruptDataError, match="two writes have one task_id and idx"):
        store.rewrite(transform={"1": merge})
    assert [write[2] for write in store.found(config).pending_writes or ()] == ["a", "b"]


def test_a_revision_of_a_later_deploy_is_refused(store: Store) -> None:
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    config = newer.save("t", {"summary": LONG})
    earlier = {"1_summary": REVISIONS["1_summary"]}
    older = store.using(store.make_saver(upgrade_state=earlier))
    with pytest.raises(StateUpgradeError, match="'3_language', which isn't among the 1 given"):
        older.found(config)
    with pytest.raises(StateUpgradeError, match="A later deploy has written it"):
        older.list(None)
    with pytest.raises(StateUpgradeError, match="A later deploy"):
        store.rewrite(transform=earlier)


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_write_of_a_deploy_between_gets_later_revisions_with_its_checkpoint(
    store: Store, *, rewritten: bool
) -> None:
    """It renames a task that a join has started; the second deploy has stored its interrupt."""

    def graph(name: str) -> Any:
        builder: Any = StateGraph(Before)
        builder.add_node("ask", lambda _: {"notes": ["ask"]})
        builder.add_node("beside", beside)
        builder.add_node(name, lambda _: {"notes": [interrupt("one"), interrupt("two")]})
        builder.add_edge(START, "ask")
        builder.add_edge(START, "beside")
        builder.add_edge(["ask", "beside"], name)
        return builder

    def rename_user(state: State) -> None:
        state.metadata["owner"] = state.metadata.pop("user")

    config: Any = {**T, "metadata": {"user": "ann"}}
    app(store, graph("confirm")).invoke({"text": [LONG], "notes": []}, config)
    second = {"1": lambda _: None}
    deploy = app(store, graph("confirm"), store.make_saver(upgrade_state=second))
    deploy.invoke(Command(resume="1"))
    third = {**second, "2": rename_node("confirm", "review"), "3": rename_user}
    if rewritten:
        store.rewrite(transform=third)
    new = app(store, graph("review"), store.make_saver(upgrade_state=third))
    assert new.state().metadata["owner"] == "ann"  # type: ignore[index,typeddict-item]
    assert [each.value for each in new.state().interrupts] == ["two"]
    assert sorted(new.invoke(Command(resume="2"))["notes"]) == ["1", "2", "ask", "beside"]


def test_writes_of_all_deploys_are_upgraded_from_their_own_revision(store: Store) -> None:
    def append(name: str) -> Revision:
        return lambda state: change(state, "log", lambda value: f"{value} {name}")

    revisions = {name: append(name) for name in "123"}
    savers = [store.saver] + [
        store.make_saver(upgrade_state={name: revisions[name] for name in "123"[: number + 1]})
        for number in range(3)
    ]
    config = store.using(savers[2]).save("t", {"log": LONG})
    for number, saver in enumerate(savers):
        store.using(saver).put_writes(config, [("log", f"from {number}")], f"task {number}")
    newest = store.using(savers[3])
    expected = [
        ("task 0", "log", "from 0 1 2 3"),
        ("task 1", "log", "from 1 2 3"),
        ("task 2", "log", "from 2 3"),
        ("task 3", "log", "from 3"),
    ]
    assert newest.found(config).pending_writes == expected
    diffs: list[StateDiff] = []
    assert store.rewrite(transform=revisions, report=diffs.append) == 1
    assert diffs[0].changes == ("~ writes: log", "~ log: str")
    assert store.found(config).pending_writes == expected
    assert store.found(config).checkpoint["channel_values"] == {"log": f"{LONG} 3"}


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("incremental", [False, True])
def test_an_incremental_saver_forgets_the_values_that_it_has_rewritten(
    store: Store, *, incremental: bool, read: bool
) -> None:
    """A write is stored as a delta against the value of its checkpoint."""
    saver = store.using(store.make_saver(incremental=True))
    notes = [f"{number}{LONG}" for number in range(20)]
    config = saver.save("t", {"notes": notes})
    shorten = {"1": lambda state: change(state, "notes", lambda value: value[:1])}
    saver.rewrite(transform=shorten, incremental=incremental)
    if read:
        saver.found(config)
    saver.put_writes(config, [("notes", [*notes, "more"])], "task")
    found = store.using(store.make_saver(incremental=True)).found(config)
    assert found.pending_writes == [("task", "notes", [*notes, "more"])]


def test_a_cached_value_that_another_process_has_rewritten_is_no_base(store: Store) -> None:
    saver = store.using(store.make_saver(incremental=True))
    notes = [f"{number}{LONG}" for number in range(20)]
    config = saver.save("t", {"notes": notes})
    store.rewrite(transform={"1": lambda state: change(state, "notes", lambda value: value[:1])})
    saver.found(config)
    saver.put_writes(config, [("notes", [*notes, "more"])], "task")
    assert store.found(config).pending_writes == [("task", "notes", [*notes, "more"])]


def test_a_child_stores_the_value_of_a_checkpoint_that_came_back_in_its_old_shape(
    store: Store,
) -> None:
    """A rollback or a backup brings it back, while the saver has seen it rewritten."""
    versions = {"text": store.saver.get_next_version(None, None)}
    first = store.save("t", {"text": [LONG]}, versions=versions)
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    store.rewrite(transform=REVISIONS)
    newer.found(first)
    store.clear()
    store.save("t", {"text": [LONG]}, versions=versions, checkpoint_id=id_of(first))
    child = following(newer, first, n=1)
    assert newer.found(child).checkpoint["channel_values"]["summary"] == [LONG]


def test_a_loop_of_parents_ends_a_history(store: Store) -> None:
    config = store.save("t", {"a": 1})
    store.sql("UPDATE checkpoints SET parent_checkpoint_id = checkpoint_id")
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    for each in (store, newer):
        assert each.history(config, ["log"]) == {"log": {"writes": []}}


def test_no_threads_are_no_threads(store: Store) -> None:
    config = store.save("t", {"text": [LONG]})
    assert store.rewrite([], transform=REVISIONS) == 0
    assert store.rewrite([], incremental=True) == 0
    assert store.found(config).checkpoint["channel_values"] == {"text": [LONG]}


def test_a_version_without_a_point_has_a_next_version(store: Store) -> None:
    config = store.save("t", {"text": [LONG]}, versions={"text": "7"})
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    version = str(newer.found(config).checkpoint["channel_versions"]["summary"])
    assert "7" < version < "8"
    assert int(newer.saver.get_next_version(version, None).partition(".")[0]) == 8


def test_metadata_that_is_not_a_number_has_not_changed(store: Store) -> None:
    store.save("t", {"a": 1}, metadata={"odd": float("nan")})
    diffs: list[StateDiff] = []
    store.rewrite(transform={"1": lambda _: None}, dry_run=True, report=diffs.append)
    assert diffs[0].changes == ()


def test_two_values_for_one_name_are_refused(store: Store) -> None:
    config = store.save("t", {"text": "secret", "summary": "secret"})
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    with pytest.raises(StateUpgradeError, match="Both channels 'text' and 'summary'") as caught:
        newer.found(config)
    assert "secret" not in str(caught.value)


def test_versions_that_are_no_text_are_refused(store: Store) -> None:
    config = store.save("t", {"text": 1}, versions={"text": 7})
    newer = store.using(store.make_saver(upgrade_state=REVISIONS))
    with pytest.raises(StateUpgradeError, match="aren't text"):
        newer.found(config)


@pytest.mark.parametrize(
    ("revisions", "message"),
    [
        ({}, "without an entry"),
        ([], "are list"),
        (len, "are builtin_function_or_method"),
        ({"": len}, "'' can't be the name"),
        ({"a b": len}, "'a b' can't be the name"),
        ({1: len}, "1 can't be the name"),
        ({"1": "text"}, "'1' is str"),
    ],
)
def test_a_wrong_mapping_is_refused(sqlite_store: Store, revisions: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        sqlite_store.make_saver(upgrade_state=revisions)
    with pytest.raises(InvalidInputError, match=message):
        sqlite_store.rewrite(transform=revisions)


def test_rewrite_wants_something_to_do(sqlite_store: Store) -> None:
    for options in ({}, {"incremental": True, "dry_run": True}, {"report": print}):
        with pytest.raises(InvalidInputError, match=r"pass|needs"):
            sqlite_store.rewrite(**options)


# Tasks and channels of LangGraph


def test_a_send_to_a_node_with_another_name_resumes(store: Store) -> None:
    def graph(name: str) -> Any:
        builder: Any = StateGraph(Before)
        builder.add_node("plan", lambda _: {"notes": ["plan"]})
        builder.add_node(name, lambda state: {"notes": [f"{interrupt(state)} {state}"]})
        builder.add_edge(START, "plan")
        builder.add_conditional_edges("plan", lambda _: [Send(name, 1), Send(name, 2)], [name])
        return builder

    old = app(store, graph("work"))
    old.invoke({"text": LONG, "notes": []})
    old_ids = {each.id for each in old.state().interrupts}
    saver = store.make_saver(upgrade_state={"1": rename_node("work", "labour")})
    new = app(store, graph("labour"), saver)
    waiting_for = {each.value: each.id for each in new.state().interrupts}
    assert sorted(waiting_for) == [1, 2]
    assert old_ids.isdisjoint(waiting_for.values())
    new.invoke(Command(resume={waiting_for[2]: "second"}))
    store.rewrite(transform={"1": rename_node("work", "labour")})
    done = new.invoke(Command(resume={waiting_for[1]: "first"}))
    assert done["notes"] == ["plan", "first 1", "second 2"]


def test_a_second_interrupt_of_a_renamed_node_keeps_the_first_answer(store: Store) -> None:
    def graph(name: str) -> Any:
        builder: Any = StateGraph(Before)
        builder.add_node(name, lambda _: {"notes": [interrupt("one"), interrupt("two")]})
        builder.add_edge(START, name)
        return builder

    old = app(store, graph("ask"))
    old.invoke({"text": LONG, "notes": []})
    old.invoke(Command(resume="1"))
    saver = store.make_saver(upgrade_state={"1": rename_node("ask", "confirm")})
    new = app(store, graph("confirm"), saver)
    assert [each.value for each in new.state().interrupts] == ["two"]
    assert new.invoke(Command(resume="2"))["notes"] == ["1", "2"]


def with_child(name: str, child: Any) -> Any:
    builder: Any = StateGraph(Before)
    builder.add_node(name, child.compile())
    builder.add_edge(START, name)
    return builder


def test_a_channel_of_a_subgraph_is_renamed_by_its_path(store: Store) -> None:
    class Inner(TypedDict):
        notes: Annotated[list[str], operator.add]
        draft: str

    class Later(TypedDict):
        notes: Annotated[list[str], operator.add]
        outline: str

    def child(schema: type, channel: str) -> Any:
        builder: Any = StateGraph(schema)
        builder.add_node("write", lambda _: {channel: LONG})
        builder.add_node("ask", lambda s: {"notes": [f"{interrupt('ok?')} {len(s[channel])}"]})
        builder.add_edge(START, "write")
        builder.add_edge("write", "ask")
        return builder

    old = app(store, with_child("child", child(Inner, "draft")))
    old.invoke({"text": LONG, "notes": []})
    revisions = {"1": rename_channel("draft", "outline", path=("child",))}
    saver = store.make_saver(upgrade_state=revisions)
    new = app(store, with_child("child", child(Later, "outline")), saver)
    assert new.invoke(Command(resume="yes"))["notes"] == ["yes 3000"]


def test_a_node_that_waits_inside_a_subgraph_is_not_renamed(store: Store) -> None:
    builder: Any = StateGraph(Before)
    builder.add_node("ask", asked)
    builder.add_edge(START, "ask")
    app(store, with_child("child", builder)).invoke({"text": LONG, "notes": []})
    revisions = {"1": rename_node("child", "part")}
    new = app(store, with_child("part", builder), store.make_saver(upgrade_state=revisions))
    with pytest.raises(StateUpgradeError, match="it waits inside a subgraph"):
        new.state()


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_delta_channel_gets_another_name(store: Store, *, rewritten: bool) -> None:
    def graph(channel: str) -> Any:
        kind = Annotated[list[str], DeltaChannel(joined)]
        state = TypedDict("State", {channel: kind})  # type: ignore[misc]
        builder: Any = StateGraph(state)
        builder.add_node("answer", lambda state: {channel: [str(len(state[channel]))]})
        builder.add_edge(START, "answer")
        return builder

    old = app(store, graph("log"))
    old.invoke({"log": ["a"]})
    old.invoke({"log": ["b"]})
    revisions = {"1": rename_channel("log", "lines")}
    if rewritten:
        store.rewrite(transform=revisions)
    newer = store.using(store.make_saver(upgrade_state=revisions))
    new = app(newer, graph("lines"), newer.saver)
    assert new.invoke({"lines": ["c"]}) == {"lines": ["a", "1", "b", "3", "c", "5"]}
    head = newer.found(T)
    with newer.statements() as sent:
        history = newer.history(head.config, ["lines"])
    assert joined([], [write[2] for write in history["lines"]["writes"]])[-1] in {"5", "c"}
    assert (len(sent) < 8) is rewritten  # otherwise a read for each checkpoint
    store.rewrite(transform=revisions)
    assert new.state().values == {"lines": ["a", "1", "b", "3", "c", "5"]}
    newer.prune(["t"])
    assert new.state().values == {"lines": ["a", "1", "b", "3", "c", "5"]}


# The command


@pytest.fixture
def rewrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Rewrite:
    """`checkpoint-sa rewrite` in a folder with the modules of an application."""
    (tmp_path / "shapes.py").write_text(
        "from checkpoint_sa import AESGCMSerializer\n"
        "from checkpoint_sa.state import rename_channel\n"
        "ALL = {'1': rename_channel('text', 'summary')}\n"
        "def serde():\n"
        "    return AESGCMSerializer(b'k' * 32)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shapes", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        return main(["rewrite", *arguments]), *capsys.readouterr()

    return run


@pytest.mark.parametrize("form", ["plain", "encrypted"])
def test_the_command_rewrites_states(store: Store, form: str, rewrite: Rewrite) -> None:
    saver = store.using(store.make_saver(**FORMS[form]))
    config = saver.save("t", {"text": ["secret"]})
    arguments = ["--url", store.url, "--transform", "shapes:ALL"]
    if form == "encrypted":
        arguments += ["--serde", "shapes:serde"]
    _, shown, error = rewrite(*arguments, "--dry-run")
    lines = ["+ summary: list", "- text: list"]
    assert shown.splitlines() == [
        *(f"       1 {line}" for line in lines),
        "1 checkpoints would be rewritten",
    ], error
    assert saver.found(config).checkpoint["channel_values"] == {"text": ["secret"]}
    _, shown, error = rewrite(*arguments, "t")
    assert shown.splitlines()[-1] == "1 checkpoints rewritten", error
    assert saver.found(config).checkpoint["channel_values"] == {"summary": ["secret"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--transform", "shapes"], "Pass MODULE:NAME"),
        (["--transform", "shapes:missing"], "'shapes' has no 'missing'"),
        (["--transform", "missing.shapes:ALL"], "there is no module 'missing.shapes'"),
        (["--dry-run", "--plain"], "--serde and --dry-run need --transform"),
        ([], "Pass --incremental, --plain or --transform"),
    ],
)
def test_wrong_arguments_are_explained(
    sqlite_store: Store, rewrite: Rewrite, arguments: list[str], message: str
) -> None:
    code, _, error = rewrite("--url", sqlite_store.url, *arguments)
    assert code == 2
    assert message in error


def test_revisions_of_the_graph_leave_a_subgraph_alone(store: Store) -> None:
    builder: Any = StateGraph(Before)
    builder.add_node("ask", asked)
    builder.add_edge(START, "ask")
    old = app(store, with_child("child", builder))
    old.invoke({"text": LONG, "notes": []})
    revisions: Mapping[str, Revision] = {
        "1": rename_node("ask", "confirm"),
        "2": set_default("language", "en"),
        "3": rename_channel("draft", "outline"),
    }
    newer = store.using(store.make_saver(upgrade_state=revisions))
    found = {item.config["configurable"]["checkpoint_ns"]: item for item in newer.list(None)}
    (inner,) = [item for ns, item in found.items() if ns]
    assert "language" not in inner.checkpoint["channel_values"]
    assert found[""].checkpoint["channel_values"]["language"] == "en"
    new = app(newer, with_child("child", builder), newer.saver)
    assert new.invoke(Command(resume="yes"))["notes"] == ["yes 3000"]


@pytest.mark.parametrize("seed", [["seed"], None])
def test_a_history_begins_with_the_value_of_a_renamed_channel(store: Store, seed: Any) -> None:
    first = store.save("t", {"log": seed})
    store.put_writes(first, [("log", "a")], "task")
    second = store.save(parent=first)
    newer = store.using(store.make_saver(upgrade_state={"1": rename_channel("log", "trail")}))
    found = newer.history(second, ["trail"])["trail"]
    assert [write[2] for write in found["writes"]] == ["a"]
    assert found.get("seed") == seed


def state_with(*writes: StateWrite, **values: Any) -> State:
    checkpoint = {**empty_checkpoint(), "channel_values": values}
    checkpoint["channel_versions"] = dict.fromkeys(values, "1")
    return State("t", "", cast("Checkpoint", checkpoint), {"step": 1}, [*writes])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~__pregel_pull, ask", "its triggers aren't known"),
        ("~__pregel_push, ~0000000000, ~__pregel_pull, ask, x", "it has called tasks"),
    ],
)
def test_a_task_that_is_not_understood_keeps_its_name(path: str, message: str) -> None:
    state = state_with(StateWrite("of another graph", "text", LONG, path, 0))
    with pytest.raises(StateUpgradeError, match=message) as caught:
        rename_node("ask", "confirm")(state)
    assert state.writes == [StateWrite("of another graph", "text", LONG, path, 0)]
    assert LONG not in str(caught.value)


@pytest.mark.parametrize("path", ["~__pregel_push, 0000000003, False", "~__pregel_pull, other", ""])
def test_a_task_of_another_node_stays(path: str) -> None:
    write = StateWrite("1", "text", LONG, path, 0)
    state = state_with(replace(write))
    rename_node("ask", "confirm")(state)
    assert state.writes == [write]


@pytest.mark.parametrize("kind", [set, list, tuple])
def test_a_join_knows_the_new_name_of_a_node_that_has_ended(kind: type) -> None:
    join, other = "join:ask+beside:end", "join:beside+more:end"
    write = StateWrite("1", join, "ask", "", 0)
    state = state_with(write, **{join: kind(["ask", "beside"]), other: kind(["beside"])})
    rename_node("ask", "confirm")(state)
    assert state.values == {
        "join:confirm+beside:end": kind(["confirm", "beside"]),
        other: kind(["beside"]),
    }
    assert state.writes == [StateWrite("1", "join:confirm+beside:end", "confirm", "", 0)]
