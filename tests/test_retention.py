"""What is old goes; what stays reads as before, and nothing is left that nobody refers to."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select
from stores import ONE_PER_PROTOCOL, Store, id_of, thread
from test_deleting import at_statement, beside, everything, execute, fail, line, listed, on_servers

from checkpoint_sa import (
    Checkpoint,
    CheckpointBlob,
    CheckpointDelta,
    Deleted,
    InvalidInputError,
    times,
)

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
NOTHING = Deleted()


def id_at(time: datetime, number: int = 0) -> str:
    """Make an id as LangGraph makes it, a UUID of version 6, of another time."""
    ticks = int((time - datetime(1582, 10, 15, tzinfo=timezone.utc)).total_seconds() * 10**7)
    return str(UUID(int=(ticks >> 12) << 80 | 6 << 76 | (ticks & 0xFFF) << 64 | 1 << 63 | number))


def save_at(store: Store, age: timedelta, thread_id: str = "t", **save: Any) -> RunnableConfig:
    """Save a checkpoint that is so old, with a value and a write of its own."""
    time = NOW - age
    at = {"ts": time.isoformat(), "checkpoint_id": id_at(time)}
    config = store.save(thread_id, {"turn": [str(age)]}, **{**at, **save})
    store.put_writes(config, [("note", [str(age)])], "task")
    return config


def aged(store: Store, *days: float, thread_id: str = "t", ns: str = "") -> list[RunnableConfig]:
    """Save checkpoints that are so many days old, each made from the one before."""
    made: list[RunnableConfig] = []
    for number in days:
        parent = made[-1] if made else None
        made.append(save_at(store, number * DAY, thread_id, ns=ns, parent=parent))
    return made


def ids(*configs: RunnableConfig) -> list[str]:
    return sorted(map(id_of, configs), reverse=True)


# What stays


def test_older_than_keeps_what_is_younger(store: Store) -> None:
    made = aged(store, 40, 31, 29, 1)
    store.prune(["t"], older_than=30 * DAY)
    assert listed(store) == ids(*made[2:])
    assert store.rows() == (2, 2, 2)
    assert store.found(made[2]).parent_config is None
    assert store.found(made[3]).parent_config == made[2]


def test_older_than_keeps_the_latest_of_each_namespace(store: Store) -> None:
    roots, children = aged(store, 50, 40), aged(store, 60, 55, ns="child")
    store.prune(["t"], older_than=30 * DAY)
    assert listed(store, ns="") == ids(roots[-1])
    assert listed(store, ns="child") == ids(children[-1])
    assert store.rows() == (2, 2, 2)


def test_older_than_may_be_a_time(store: Store) -> None:
    made = aged(store, 4, 3, 2, 1)
    store.prune(["t"], older_than=NOW - 2.5 * DAY)
    assert listed(store) == ids(*made[2:])


def test_keep_counts_in_each_namespace(store: Store) -> None:
    roots, children = line(store, 5), line(store, 2, ns="child")
    store.prune(["t"], keep=3)
    assert listed(store, ns="") == ids(*roots[2:])
    assert listed(store, ns="child") == ids(*children)
    assert store.rows() == (5, 5 + 2, 5)


def test_keep_of_one_is_keep_latest(store: Store) -> None:
    for thread_id in ("t", "u"):
        line(store, 4, thread_id)
        line(store, 3, thread_id, ns="child")
    store.prune(["t"])
    store.prune(["u"], keep=1)
    counted = [len(rows) for rows in everything(store, "t")]
    assert counted == [len(rows) for rows in everything(store, "u")] == [2, 4, 2]


def test_what_keep_or_older_than_keeps_stays(store: Store) -> None:
    made = aged(store, 40, 39, 38, 37)
    young = aged(store, 3, 2, 1, thread_id="u")
    store.prune(keep=2, older_than=30 * DAY)
    assert listed(store) == ids(*made[2:])
    assert listed(store, "u") == ids(*young)


def test_idle_threads_go_as_a_whole(store: Store) -> None:
    aged(store, 100, 95)
    aged(store, 100, thread_id="late")
    aged(store, 1, thread_id="late", ns="child")
    store.put_writes(thread("t", checkpoint_id=id_at(NOW - 99 * DAY)), [("a", 1)], "late")
    before = everything(store, "late")
    assert store.prunable(idle_for=90 * DAY).threads == 1
    store.prune(idle_for=90 * DAY)
    assert everything(store, "t") == [[], [], []]
    assert everything(store, "late") == before


def test_idleness_and_keep_go_together(store: Store) -> None:
    aged(store, 100, 95)
    made = aged(store, 100, 3, 2, 1, thread_id="u")
    store.prune(idle_for=90 * DAY, keep=2)
    assert listed(store) == []
    assert listed(store, "u") == ids(*made[2:])


def test_a_subgraph_call_goes_with_the_root_checkpoint_that_made_it(store: Store) -> None:
    roots = line(store, 4)
    for number, root in enumerate(roots):
        line(store, 2, ns=f"node:{number}", metadata={"parents": {"": id_of(root)}})
    store.prune(["t"], keep=2)
    found = [
        one.config["configurable"]["checkpoint_ns"] for one in store.list(thread("t", ns=None))
    ]
    assert sorted(found) == ["", "", "node:2", "node:2", "node:3", "node:3"]


def test_the_time_is_ts_and_else_the_ids(store: Store) -> None:
    old, new = id_at(NOW - 40 * DAY, 1), id_at(NOW - 40 * DAY, 2)
    store.save("t", checkpoint_id=old, ts=(NOW - 40 * DAY).isoformat().replace("+00:00", "Z"))
    store.save("t", checkpoint_id=new, ts=NOW.isoformat())
    for number, ts in enumerate(["soon", 12, "2020-13-01T00:00:00Z", ["2020-01-01"]], 3):
        store.save("t", checkpoint_id=id_at(NOW - 40 * DAY, number), ts=ts)
    without = (id_at(NOW - 50 * DAY), id_at(NOW - 5 * DAY), "00-no-uuid")
    for checkpoint_id in without:
        put_without_time(store, checkpoint_id)
    latest = store.save("t", checkpoint_id=id_at(NOW))
    store.prune(["t"], older_than=30 * DAY)
    left = listed(store)
    assert old not in left
    assert without[0] not in left
    assert {new, *without[1:], id_of(latest)} < set(left)
    assert len(left) == 8


def put_without_time(store: Store, checkpoint_id: str) -> None:
    """Store a checkpoint without `ts`."""
    document = {"v": 4, "id": checkpoint_id, "channel_versions": {}, "versions_seen": {}}
    row = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": checkpoint_id, "run_id": ""}
    execute(store, insert(Checkpoint), [{**row, "checkpoint": document, "metadata": {}}])


def test_the_time_in_an_id() -> None:
    assert times.time_of_id(id_at(NOW)) == pytest.approx(NOW, abs=timedelta(microseconds=100))
    # The example of RFC 9562.
    assert times.time_of_id("1EC9414C-232A-6B00-B3C8-9F6BDECED846") == datetime(
        2022, 2, 22, 19, 22, 22, tzinfo=timezone.utc
    )
    assert times.time_of_id("c2d1dd8a-3f6d-4a5e-8f33-9b1f7a0f2f9b") is None


def test_what_was_deleted_adds_up() -> None:
    one, two = Deleted(1, 2, 3, 4, 5), Deleted(10, 20, 30, 40, 50)
    assert one + two == one.plus(two) == sum([one, two], NOTHING) == Deleted(11, 22, 33, 44, 55)


def test_threads_with_nothing_old_are_read_once(store: Store) -> None:
    for number in range(3):
        aged(store, 2, 1, thread_id=f"t{number}")
    with store.statements() as sent:
        store.prune(older_than=30 * DAY)
    assert len([text for text in sent.texts if "SELECT" in text and "ORDER BY" in text]) == 3 + 2
    assert not any("DELETE" in text for text in sent.texts)


@pytest.mark.parametrize("length", [3, 40])
def test_statements_do_not_grow_with_checkpoints(sqlite_store: Store, length: int) -> None:
    line(sqlite_store, length)
    with sqlite_store.statements() as sent:
        sqlite_store.prune(["t"], keep=2)
    assert len([text for text in sent.texts if text.startswith(("SELECT", "WITH"))]) == 6
    assert len([text for text in sent.texts if text.startswith(("DELETE", "UPDATE"))]) == 4


# Nothing by accident


def test_all_threads_are_never_meant_by_accident(store: Store) -> None:
    line(store, 3)
    for options in ({}, {"strategy": "delete"}, {"strategy": "keep_latest"}):
        with pytest.raises(InvalidInputError, match="neither threads nor an option"):
            store.prune(**options)
    store.prune([], keep=1)
    store.prune([], idle_for=timedelta(0))
    assert store.rows() == (3, 4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep is 0"),
        ({"keep": True}, "keep is True"),
        ({"keep": 1.5}, "keep is 1.5"),
        ({"older_than": 30}, "older_than is 30"),
        ({"older_than": -DAY}, "older_than is datetime.timedelta"),
        ({"idle_for": datetime(2024, 1, 1)}, "idle_for is"),  # noqa: DTZ001 - what is refused
        ({"keep": 1, "strategy": "delete"}, "keeps nothing"),
        ({"keep": 1, "thread_ids": "t"}, "single str"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(
    sqlite_store: Store, options: dict[str, Any], message: str
) -> None:
    for method in (sqlite_store.prune, sqlite_store.prunable):
        with pytest.raises(InvalidInputError, match=message):
            method(**options)


@pytest.mark.parametrize("wrong", [{}, None, [("a", 1)], "user"], ids=repr)
def test_delete_where_needs_metadata(sqlite_store: Store, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="metadata is"):
        sqlite_store.delete_where(wrong)


def test_an_age_longer_than_time_is_no_error(sqlite_store: Store) -> None:
    line(sqlite_store, 3)
    sqlite_store.prune(older_than=timedelta.max)
    assert sqlite_store.rows() == (3, 4, 3)


# By metadata


def test_delete_where_deletes_whole_threads(store: Store) -> None:
    line(store, 2, "mine")
    line(store, 2, "mine", ns="child", metadata={"user_id": "ann"})
    line(store, 2, "other", metadata={"user_id": "Ann"})
    line(store, 2, "no metadata")
    before = everything(store, "other"), everything(store, "no metadata")
    found = store.delete_where({"user_id": "ann"}, dry_run=True)
    assert found[:4] == (1, 4, 6, 4)
    assert store.rows() == (8, 12, 8)
    assert store.delete_where({"user_id": "ann"}) == found
    assert (everything(store, "other"), everything(store, "no metadata")) == before
    assert store.rows() == (4, 6, 4)
    assert store.delete_where({"user_id": "ann"}) == NOTHING


@pytest.mark.parametrize(
    "wanted",
    [{"n": 1}, {"who": {"id": "ann"}}, {"name": "José"}, {"big": 2**80}, {"n": 1, "name": "José"}],
    ids=repr,
)
def test_delete_where_matches_as_list_does(store: Store, wanted: dict[str, Any]) -> None:
    metadata = {"n": 1, "who": {"id": "ann", "at": "home"}, "name": "José", "big": 2**80}
    line(store, 1, "one", metadata=metadata)
    line(store, 1, "two", metadata={"n": True, "who": {"id": "bob"}, "name": "jose", "big": 1})
    assert len(store.list(None, filter=wanted)) == 1
    assert store.delete_where(wanted).threads == 1
    assert listed(store, "one") == []
    assert len(listed(store, "two")) == 1


def test_delete_where_of_checkpoints_alone(store: Store) -> None:
    old = line(store, 2, metadata={"run_id": "a"})
    new = store.save("t", {"turn": [9]}, parent=old[-1], metadata={"run_id": "b"})
    with store.statements() as sent:
        deleted = store.delete_where({"run_id": "a"}, whole_threads=False)
    assert deleted[:4] == (1, 2, 3, 2)
    assert store.list(thread("t"))[0].config == new
    assert store.rows() == (1, 1, 0)
    assert store.found(new).parent_config is None
    assert len(sent) < 25


def test_delete_where_goes_through_many_threads(store: Store) -> None:
    for number in range(45):
        store.save(f"t{number}", {"a": [1]}, metadata={"odd": number % 2 == 1, "run_id": "r"})
    assert store.delete_where({"odd": True}, dry_run=True).threads == 22
    assert store.delete_where({"run_id": "r", "odd": False}).threads == 23
    assert store.delete_where({"run_id": "r"}).threads == 22
    assert store.rows() == (0, 0, 0)


# What nothing refers to


def orphan(store: Store, age: timedelta, thread_id: str = "t", ns: str = "") -> RunnableConfig:
    """Store a write without its checkpoint."""
    config = thread(thread_id, ns, checkpoint_id=id_at(NOW - age))
    store.put_writes(config, [("a", "late"), ("b", "later")], "task")
    return config


def add_blob(store: Store, channel: str, thread_id: str = "t") -> None:
    row = {"thread_id": thread_id, "checkpoint_ns": "", "channel": channel, "version": "9"}
    execute(store, insert(CheckpointBlob), [{**row, "type": "bytes", "blob": b"123"}])


def test_vacuum_deletes_old_writes_without_a_checkpoint(store: Store) -> None:
    aged(store, 5, 0)
    orphan(store, 2 * DAY)
    orphan(store, 2 * DAY, "gone")
    store.put_writes(thread("gone", checkpoint_id="no time"), [("a", 1)], "task")
    young = orphan(store, timedelta(hours=1))
    found = store.vacuum_orphans(dry_run=True)
    assert found == (2, 0, 0, 4, found.bytes)
    assert store.rows() == (2, 2, 2 + 2 + 2 + 1 + 2)
    assert store.vacuum_orphans() == found
    assert store.rows() == (2, 2, 2 + 1 + 2)
    assert store.vacuum_orphans() == NOTHING
    store.save("t", checkpoint_id=id_of(young))
    assert len(store.found(young).pending_writes or ()) == 2


def test_vacuum_deletes_unused_values_where_all_is_old(store: Store) -> None:
    aged(store, 5, 3)
    aged(store, 5, 0, thread_id="busy")
    for thread_id in ("t", "busy", "gone"):
        add_blob(store, "unused", thread_id)
    assert store.vacuum_orphans() == (2, 0, 2, 0, 6)
    assert store.rows() == (4, 5, 4)
    assert store.vacuum_orphans(timedelta(0))[:4] == (1, 0, 1, 0)
    assert [store.found(one.config) for one in store.list(None)] == store.list(None)


def test_vacuum_deletes_changes_without_a_value(store: Store) -> None:
    changes = store.using(store.make_saver(incremental=True))
    long = [f"item {number}" * 20 for number in range(40)]
    for size in (30, 35, 40):
        parent = changes.get_tuple(thread("t"))
        changes.save("t", {"items": long[:size]}, parent=parent and parent.config)
    assert store.count("checkpoint_deltas") == 3
    assert changes.vacuum_orphans(timedelta(0)) == NOTHING
    head = changes.found(thread("t"))
    version = head.checkpoint["channel_versions"]["items"]
    before = changes.list(thread("t"))[1:]
    execute(store, delete(Checkpoint).where(Checkpoint.checkpoint_id == id_of(head.config)))
    execute(store, delete(CheckpointBlob).where(CheckpointBlob.version == version))
    found = changes.vacuum_orphans(timedelta(0), dry_run=True)
    assert found[:4] == (1, 0, 0, 0)
    assert found.bytes > 0
    assert changes.vacuum_orphans(timedelta(0)) == found
    assert store.count("checkpoint_deltas") == 2
    assert changes.list(thread("t")) == before


def test_vacuum_leaves_the_turns_of_writers(store: Store) -> None:
    checked = store.using(store.make_saver(check_parent=True))
    checked.save("t", {"a": [1]})
    assert checked.vacuum_orphans(timedelta(0)) == NOTHING


def test_a_write_that_meets_its_checkpoint_during_a_vacuum_stays(store: Store) -> None:
    """The writes come first, the checkpoint after the first statement of the vacuum."""
    config = orphan(store, 2 * DAY)
    other = beside(store)
    with at_statement(store, 1, lambda: other.save("t", {"a": [1]}, checkpoint_id=id_of(config))):
        store.vacuum_orphans(dry_run=True)
    other.engine.dispose()
    assert store.vacuum_orphans() == NOTHING
    assert len(store.found(config).pending_writes or ()) == 2


# Interrupted, and beside a writer


OPERATIONS = {
    "prune": lambda store: store.prune(keep=1),
    "idle": lambda store: store.prune(idle_for=timedelta(0)),
    "delete_where": lambda store: store.delete_where({"source": "loop"}),
    "vacuum": lambda store: store.vacuum_orphans(timedelta(0)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_is_interrupted_goes_on(store: Store, operation: str) -> None:
    """Whatever thread it stopped at is as it was; a second run leaves what one run leaves."""

    def prepare() -> None:
        store.clear()
        for thread_id in ("a", "b", "c"):
            aged(store, 3, 2, 1, thread_id=thread_id)
            orphan(store, 2 * DAY, thread_id)
            add_blob(store, "unused", thread_id)

    prepare()
    with at_statement(store, -1, fail) as sent:
        OPERATIONS[operation](store)
    expected = store.rows()
    for number in range(0, len(sent), 5):
        prepare()
        before = {name: everything(store, name) for name in "abc"}
        with suppress(ZeroDivisionError), at_statement(store, number, fail):
            OPERATIONS[operation](store)
        changed = [name for name in "abc" if everything(store, name) != before[name]]
        assert changed == list("abc")[: len(changed)]
        OPERATIONS[operation](store)
        assert store.rows() == expected


@on_servers
def test_a_thread_that_comes_alive_stays(store: Store) -> None:
    """A checkpoint that is stored between any two statements of a prune by idleness."""
    other = beside(store)
    sent, number = 1, 0
    while number < sent:
        store.clear()
        old = aged(store, 100, 99)[-1]
        wake = partial(other.save, "t", {"new": [1]}, parent=old)
        with at_statement(store, number, wake) as numbers:
            store.prune(idle_for=90 * DAY)
        found = store.list(thread("t"))
        assert found[0].checkpoint["channel_values"] == {"new": [1]}
        sent = len(numbers)
        number += 1
    other.engine.dispose()


@pytest.mark.parametrize("operation", ["prune", "vacuum"])
def test_beside_a_writer_all_stays_readable(store: Store, operation: str) -> None:
    other = beside(store)
    first = other.save("t", {"always": ["x"], "turn": [0]})

    def write() -> list[RunnableConfig]:
        made = [first]
        for turn in range(30):
            before = other.found(made[-1]).checkpoint["channel_versions"]
            other.put_writes(made[-1], [("turn", turn)], "task")
            made.append(
                other.save(
                    "t",
                    {"turn": [turn]},
                    parent=made[-1],
                    versions={"always": before["always"]},
                    new=["turn"],
                )
            )
        return made

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            OPERATIONS[operation](store)
    latest = store.found(writing.result()[-1])
    assert latest.checkpoint["channel_values"] == {"always": ["x"], "turn": [29]}
    OPERATIONS[operation](store)
    for one in store.list(thread("t")):
        assert one.checkpoint["channel_values"].keys() == {"always", "turn"}
    other.engine.dispose()


# Beside what a plain reading of the rules says


def grown(store: Store, seed: int) -> Store:
    """Store a thread at random: forks, namespaces, DeltaChannels, chains of changes, ages."""
    chance = random.Random(seed)
    made: dict[str, list[RunnableConfig]] = {"": [], "child": [], "node:1": [], "node:2": []}
    into = store.using(store.make_saver(incremental=chance.random() < 0.5))
    words = [f"word {number} " * 9 for number in range(60)]
    for number in range(chance.randint(6, 16)):
        ns = chance.choice(list(made)) if made[""] else ""
        parent = chance.choice(made[ns][-2:]) if made[ns] else None
        before = into.found(parent).checkpoint["channel_versions"] if parent else {}
        values: dict[str, Any] = {"turn": [number]}
        if chance.random() < 0.7:
            values["words"] = words[: 20 + number]
        metadata: dict[str, Any] = {"parents": {"": id_of(chance.choice(made[""]))} if ns else {}}
        if chance.random() < 0.2:
            values["log"] = ["snapshot", number]
        else:
            metadata["counters_since_delta_snapshot"] = {"log": [1, 1]}
        new = {name: into.saver.get_next_version(None, None) for name in [*values, "log"]}
        config = into.save(
            "t",
            values,
            ns=ns,
            parent=parent,
            metadata=metadata,
            versions={**before, **new},
            new=list(values),
            checkpoint_id=id_at(NOW - (40 - 2 * number) * DAY, number),
            ts=(NOW - (40 - 2 * number) * DAY).isoformat(),
        )
        into.put_writes(config, [("log", number), ("other", [number])], "task")
        made[ns].append(config)
    return into


def seen(store: Store) -> dict[tuple[str, str], Any]:
    """Return all that a reader sees of each checkpoint, but for its parent."""
    return {
        (one.config["configurable"]["checkpoint_ns"], id_of(one.config)): (
            one.checkpoint,
            one.metadata,
            one.pending_writes,
            # What the checkpoint holds itself is looked for nowhere else.
            "log" in one.checkpoint["channel_values"] or store.history(one.config, ["log"]),
        )
        for one in store.list(thread("t", ns=None))
    }


def count_referenced(store: Store, found: dict[tuple[str, str], Any]) -> int:
    """Count the stored values that a checkpoint names."""
    named = {
        (ns, channel, version)
        for (ns, _), (checkpoint, *_) in found.items()
        for channel, version in checkpoint["channel_versions"].items()
    }
    table = CheckpointBlob.__table__
    rows = execute(store, select(table.c.checkpoint_ns, table.c.channel, table.c.version))
    return len(named & {tuple(row) for row in rows})


def expected_of(found: dict[tuple[str, str], Any], options: dict[str, Any]) -> set[tuple[str, str]]:
    """Say in plain words what must stay, without what a DeltaChannel needs."""
    namespaces = {ns for ns, _ in found}
    stay = set()
    for ns in namespaces:
        own = sorted(key for key in found if key[0] == ns)
        stay.update(own[-options.get("keep", 1) :])
        if "older_than" in options:
            limit = (NOW - options["older_than"]).isoformat()
            stay.update(key for key in own if found[key][0]["ts"] > limit)
    return stay


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "options",
    [{"keep": 1}, {"keep": 3}, {"older_than": 25 * DAY}, {"keep": 2, "older_than": 15 * DAY}],
    ids=str,
)
def test_what_stays_reads_as_before_and_nothing_else_is_left(
    store: Store, seed: int, options: dict[str, Any]
) -> None:
    store = grown(store, seed)
    before = seen(store)
    foretold = store.prunable(["t"], **options)
    rows = store.rows()
    assert store.prune(["t"], **options) == foretold
    after = seen(store)

    wanted = expected_of(before, options)
    calls = {key for key in wanted if ":" in key[0]}
    assert wanted - calls <= after.keys() <= before.keys()
    for key in wanted & after.keys():
        assert after[key] == before[key]
    for key in after:
        assert after[key][:3] == before[key][:3]
    roots = {checkpoint_id for ns, checkpoint_id in after if not ns}
    for ns in ("node:1", "node:2"):
        own = sorted(key for key in before if key[0] == ns)
        if own:
            called_by = before[own[-1]][1]["parents"][""]
            assert (own[-1] in after) is (called_by in roots)

    # What a DeltaChannel keeps more is a line of ancestors of one that was wanted.
    assert store.vacuum_orphans(timedelta(0), dry_run=True) == NOTHING
    left = store.rows()
    assert left[0] == len(after)
    assert left[1] == count_referenced(store, after)
    assert left[2] == sum(len(one[2]) for one in after.values())
    assert (len(before) - left[0], rows[1] - left[1], rows[2] - left[2]) == foretold[1:4]
    assert chains_without_values(store) == 0
    assert store.prunable(["t"], **options) == NOTHING


def chains_without_values(store: Store) -> int:
    """Count the chains that have changes behind their last value."""
    ends = []
    for model in (CheckpointDelta, CheckpointBlob):
        key = (model.checkpoint_ns, model.channel, model.chain)
        statement = select(*key, func.max(model.position)).where(model.chain.is_not(None))
        ends.append({tuple(row) for row in execute(store, statement.group_by(*key))})
    return len(ends[0] - ends[1])


@pytest.mark.parametrize("seed", range(3))
def test_a_thread_that_is_deleted_leaves_nothing(store: Store, seed: int) -> None:
    store = grown(store, seed)
    before = store.rows()
    assert store.prunable(["t"], strategy="delete")[1:4] == before
    assert store.delete_where({"source": "loop"}, dry_run=True)[1:4] == before
    foretold = store.prunable(["t"], strategy="delete")
    if seed % 2:
        assert store.prune(idle_for=timedelta(0)) == foretold
    else:
        assert store.prune(["t"], strategy="delete") == foretold._replace(bytes=0)
    assert (store.rows(), store.count("checkpoint_deltas")) == ((0, 0, 0), 0)
