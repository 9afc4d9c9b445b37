"""`list`: its order, its criteria, its pages, and what a filter matches, on every engine alike."""

from __future__ import annotations

import asyncio
import enum
import gc
import itertools
import json
import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

import pytest
from langgraph.checkpoint.serde.types import TASKS
from langgraph.types import Send
from stores import ONE_PER_PROTOCOL, Store, id_of, thread

from checkpoint_sa import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

Address = tuple[str, str, str]


def address(item: CheckpointTuple) -> Address:
    """Return thread, namespace and id of what was listed."""
    configurable = item.config["configurable"]
    return configurable["thread_id"], configurable["checkpoint_ns"], configurable["checkpoint_id"]


def ids(items: Sequence[CheckpointTuple]) -> list[str]:
    return [id_of(item.config) for item in items]


def iterate(
    store: Store, config: RunnableConfig | None = None, **criteria: Any
) -> Iterator[CheckpointTuple]:
    """Step through `list` or `alist`: between two steps, everything else may be done."""
    if not store.kind.is_async:
        yield from store.saver.list(config, **criteria)
        return
    generator: Any = store.saver.alist(config, **criteria)
    while True:
        try:
            item = store.run(generator.__anext__())
        except StopAsyncIteration:
            return
        yield item


def checked_out(store: Store) -> int:
    pool: Any = store.engine.pool
    return int(pool.checkedout())


def save_many(store: Store, threads: int, each: int, value: Any = None) -> None:
    """Store so many threads of so many checkpoints; all threads have the same checkpoint ids."""
    config = None
    for number in range(each):
        values = {"x": [number] if value is None else value(number)}
        config = store.save(
            "t000", values, parent=config, metadata={"n": number}, checkpoint_id=f"{number:05}"
        )
    for number in range(1, threads):
        store.copy_thread("t000", f"t{number:03}")


# Order


def test_the_newest_comes_first(store: Store) -> None:
    for checkpoint_id in ("3", "1", "9", "5", "2"):
        store.save("t", {"x": checkpoint_id}, checkpoint_id=checkpoint_id)
    found = store.list(thread())
    assert ids(found) == ["9", "5", "3", "2", "1"]
    assert [item.checkpoint["channel_values"]["x"] for item in found] == ["9", "5", "3", "2", "1"]


def test_the_newest_comes_first_across_threads_and_namespaces(store: Store) -> None:
    for checkpoint_id, thread_id, ns in (
        ("2", "b", ""),
        ("4", "a", "n"),
        ("1", "a", ""),
        ("3", "c", ""),
    ):
        store.save(thread_id, ns=ns, checkpoint_id=checkpoint_id)
    assert ids(store.list(None)) == ["4", "3", "2", "1"]


def test_what_is_listed_is_what_is_read_one_by_one(store: Store) -> None:
    config = None
    for number in range(25):
        config = store.save(
            "t",
            {"small": number, "large": [number], "text": "y" * 300},
            parent=config,
            metadata={"n": number, "inexact": math.inf},
        )
        store.put_writes(config, [("x", number), ("__error__", "e")], "task")
    found = store.list(thread())
    assert len(found) == 25
    assert found == [store.found(item.config) for item in found]


def test_forks_of_one_checkpoint_are_listed_with_its_pending_sends_once(store: Store) -> None:
    parent = store.save(v=3)
    sends = [Send("node", 1), Send("node", 2)]
    store.put_writes(parent, [(TASKS, send) for send in sends], "task")
    forks = [store.save(parent=parent, v=3) for _ in range(2)]
    listed = {id_of(item.config): item.checkpoint["channel_values"] for item in store.list(None)}
    assert [listed[id_of(fork)][TASKS] for fork in forks] == [sends, sends]
    for fork in forks:
        assert store.found(fork).checkpoint["channel_values"][TASKS] == sends


def test_nothing_is_listed_where_nothing_is(store: Store) -> None:
    assert store.list(None) == []
    assert store.list(thread()) == []


# Criteria


MIXES = list(
    itertools.product(
        (None, "t"), (None, "", "n"), (None, "2"), (None, "3"), (None, 1, 3), (None, "even")
    )
)


def test_every_mix_of_criteria(store: Store) -> None:
    rows = {
        (thread_id, ns, str(number)): "even" if number % 2 == 0 else "odd"
        for thread_id in ("t", "u")
        for ns in ("", "n")
        for number in range(4)
    }
    for (thread_id, ns, checkpoint_id), kind in rows.items():
        store.save(thread_id, ns=ns, checkpoint_id=checkpoint_id, metadata={"kind": kind})
    for mix in MIXES:
        by_thread, by_ns, by_id, before, limit, by_kind = mix
        given = {"thread_id": by_thread, "checkpoint_ns": by_ns, "checkpoint_id": by_id}
        given = {name: value for name, value in given.items() if value is not None}
        found = [
            address(item)
            for item in store.list(
                {"configurable": given} if given else None,
                filter={"kind": by_kind} if by_kind else None,
                before=thread(checkpoint_id=before) if before else None,
                limit=limit,
            )
        ]
        expected = {
            row
            for row, kind in rows.items()
            if by_thread in (None, row[0])
            and by_ns in (None, row[1])
            and by_id in (None, row[2])
            and (before is None or row[2] < before)
            and by_kind in (None, kind)
        }
        newest_first = sorted((row[2] for row in expected), reverse=True)
        assert [row[2] for row in found] == newest_first[:limit], mix
        assert set(found) <= expected, mix
        assert len(set(found)) == len(found), mix


def test_a_limit_is_the_beginning_of_the_whole_list(store: Store) -> None:
    save_many(store, 3, 9)
    everything = [address(item) for item in store.list(None)]
    assert len(everything) == 27
    for limit in (1, 9, 10, 11, 26, 27, 28, 1000):
        assert [address(item) for item in store.list(None, limit=limit)] == everything[:limit]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_gives_nothing(store: Store, limit: int) -> None:
    store.save("t")
    with store.statements() as sent:
        assert store.list(None, limit=limit) == []
    assert len(sent) == 0


def test_a_limit_counts_what_the_filter_matches(store: Store) -> None:
    for number in range(60):
        store.save("t", checkpoint_id=f"{number:02}", metadata={"rare": number % 20 == 0})
    assert ids(store.list(thread(), filter={"rare": True}, limit=2)) == ["40", "20"]
    assert ids(store.list(thread(), filter={"rare": True}, limit=9)) == ["40", "20", "00"]


def test_a_limit_counts_what_only_an_exact_check_tells_apart(store: Store) -> None:
    for number in range(60):
        store.save(
            "t",
            checkpoint_id=f"{number:02}",
            metadata={"k": {"n": 1 if number % 20 == 0 else True}},
        )
    assert ids(store.list(thread(), filter={"k": {"n": 1}}, limit=2)) == ["40", "20"]


def test_before_leaves_out_the_checkpoint_itself(store: Store) -> None:
    for checkpoint_id in "12345":
        store.save("t", checkpoint_id=checkpoint_id)
    assert ids(store.list(thread(), before=thread(checkpoint_id="3"))) == ["2", "1"]
    assert ids(store.list(thread(), before=thread(checkpoint_id="2a"))) == ["2", "1"]
    assert ids(store.list(thread(), before=thread(checkpoint_id="1"))) == []


def test_before_counts_by_its_checkpoint_id_alone(store: Store) -> None:
    for checkpoint_id in "123":
        store.save("t", checkpoint_id=checkpoint_id)
    elsewhere = thread("other", "other", checkpoint_id="3")
    nowhere: RunnableConfig = {"configurable": {"checkpoint_id": "3"}}
    assert ids(store.list(thread(), before=elsewhere)) == ["2", "1"]
    assert ids(store.list(thread(), before=nowhere)) == ["2", "1"]


def test_before_without_a_checkpoint_id_limits_nothing(store: Store) -> None:
    store.save("t", checkpoint_id="1")
    assert ids(store.list(thread(), before=thread())) == ["1"]


def test_a_config_without_a_namespace_lists_all_of_them(store: Store) -> None:
    for number, ns in enumerate(("", "n", "n|m")):
        store.save("t", ns=ns, checkpoint_id=str(number))
    assert ids(store.list(thread("t", None))) == ["2", "1", "0"]
    assert ids(store.list(thread("t", ""))) == ["0"]
    assert ids(store.list(thread("t", "n"))) == ["1"]


def test_a_config_that_names_nothing_lists_everything(store: Store) -> None:
    store.save("t", checkpoint_id="1")
    store.save("u", checkpoint_id="2", ns="n")
    assert ids(store.list({"configurable": {}})) == ["2", "1"]
    assert ids(store.list({})) == ["2", "1"]


@pytest.mark.parametrize("wrong", [["k"], "k", 1], ids=repr)
def test_a_filter_that_is_no_dict_is_refused(store: Store, wrong: Any) -> None:
    with store.statements() as sent, pytest.raises(InvalidInputError, match="pass a dict"):
        store.list(None, filter=wrong)
    assert len(sent) == 0


# Pages


def test_equal_ids_in_many_threads_and_namespaces_come_once_each(store: Store) -> None:
    expected = set()
    for ns, number in itertools.product(("", "n", "N", "n "), range(20)):
        store.save("t000", {"x": [ns, number]}, ns=ns, checkpoint_id=f"{number:02}")
        expected |= {(f"t{copy:03}", ns, f"{number:02}") for copy in range(4)}
    for copy in range(1, 4):
        store.copy_thread("t000", f"t{copy:03}")
    everything = store.list(None)
    found = [address(item) for item in everything]
    assert len(found) == len(expected) == 320
    assert set(found) == expected
    assert [row[2] for row in found] == sorted((row[2] for row in found), reverse=True)
    for item in everything:
        _, ns, checkpoint_id = address(item)
        assert item.checkpoint["channel_values"] == {"x": [ns, int(checkpoint_id)]}
    for config, part in (
        (thread("t002", None), {row for row in expected if row[0] == "t002"}),
        ({"configurable": {"checkpoint_ns": "n"}}, {row for row in expected if row[1] == "n"}),
        ({"configurable": {"checkpoint_id": "07"}}, {row for row in expected if row[2] == "07"}),
        (thread("t003", "n "), {row for row in expected if (row[0], row[1]) == ("t003", "n ")}),
    ):
        listed = [address(item) for item in store.list(config)]  # type: ignore[arg-type]
        assert len(listed) == len(part)
        assert set(listed) == part


@pytest.mark.parametrize("count", [9, 10, 11, 20, 209, 210, 211])
def test_no_length_of_a_list_loses_or_repeats_a_checkpoint(sqlite_store: Store, count: int) -> None:
    save_many(sqlite_store, 1, count)
    expected = [f"{number:05}" for number in reversed(range(count))]
    assert ids(sqlite_store.list(thread("t000"))) == expected


def test_no_connection_is_held_while_the_caller_works(store: Store) -> None:
    save_many(store, 1, 25)
    held = []
    for item in iterate(store):
        held.append(checked_out(store))
        assert store.found(item.config) == item
    assert held == [0] * 25


def test_no_connection_is_held_inside_the_loop_of_the_caller(store: Store) -> None:
    save_many(store, 1, 25)
    held = []
    if store.kind.is_async:

        async def loop() -> None:
            async for _ in store.saver.alist(None):
                held.append(checked_out(store))
                await asyncio.sleep(0)

        store.run(loop())
    else:
        held += [checked_out(store) for _ in store.saver.list(None)]
    assert held == [0] * 25


def test_no_connection_is_held_while_the_caller_of_the_other_colour_works(store: Store) -> None:
    save_many(store, 1, 25)
    saver = store.saver

    async def from_a_thread() -> list[int]:
        return await asyncio.to_thread(lambda: [checked_out(store) for _ in saver.list(None)])

    async def in_a_loop() -> list[int]:
        return [checked_out(store) async for _ in saver.alist(None)]

    held = store.run(from_a_thread() if store.kind.is_async else in_a_loop())
    assert held == [0] * 25


class Tracked:
    """A value that knows how many of its kind there are in memory."""

    alive: ClassVar[WeakSet[Tracked]] = WeakSet()

    def __init__(self, number: int, size: int = 0) -> None:
        self.number = number
        self.size = size
        self.alive.add(self)


class TrackingSerde:
    """A serializer of JSON, and of `Tracked`."""

    def dumps(self, obj: Any) -> bytes:
        if isinstance(obj, Tracked):
            return json.dumps({"tracked": obj.number}).encode().ljust(obj.size)
        return json.dumps(obj).encode()

    def loads(self, data: bytes) -> Any:
        value = json.loads(data)
        return (
            Tracked(value["tracked"]) if isinstance(value, dict) and "tracked" in value else value
        )


def most_alive(store: Store, expected: int, **criteria: Any) -> int:
    """List and forget; return how many values were in memory at most."""
    gc.collect()
    assert len(Tracked.alive) == 0
    most = seen = 0
    for item in iterate(store, **criteria):
        assert isinstance(item.checkpoint["channel_values"]["x"], Tracked)
        seen += 1
        most = max(most, len(Tracked.alive))
    assert seen == expected
    return most


def tracking(store: Store) -> Store:
    return store.using(store.make_saver(serde=TrackingSerde()))


def test_more_than_a_thousand_checkpoints_stream_through_memory(store: Store) -> None:
    save_many(tracking(store), 40, 30, Tracked)
    assert 0 < most_alive(tracking(store), 1200) <= 400


def test_ten_thousand_checkpoints_stream_through_memory(sqlite_store: Store) -> None:
    save_many(tracking(sqlite_store), 200, 50, Tracked)
    assert 0 < most_alive(tracking(sqlite_store), 10_000) <= 400


def test_a_filter_that_few_match_streams_as_well(sqlite_store: Store) -> None:
    save_many(tracking(sqlite_store), 40, 30, Tracked)
    few = {"parents": {}, "n": 7}
    assert 0 < most_alive(tracking(sqlite_store), 40, filter=few) <= 400


def test_large_checkpoints_are_read_a_few_at_a_time(sqlite_store: Store) -> None:
    save_many(tracking(sqlite_store), 20, 3, lambda number: Tracked(number, size=2**20))
    assert 0 < most_alive(tracking(sqlite_store), 60) <= 24


def test_the_first_checkpoint_of_many_comes_soon(store: Store) -> None:
    save_many(tracking(store), 10, 20, Tracked)
    gc.collect()
    iterator = iterate(tracking(store))
    first = next(iterator)
    assert 0 < len(Tracked.alive) <= 20
    assert id_of(first.config) == "00019"
    iterator.close()  # type: ignore[attr-defined]


def test_pages_are_few(store: Store) -> None:
    save_many(store, 10, 20)
    with store.statements() as sent:
        assert len(store.list(None)) == 200
    assert len([statement for statement in sent.texts if statement.startswith("SELECT")]) <= 8


# Changes meanwhile


def test_a_thread_that_is_deleted_while_it_is_listed_ends_the_list(store: Store) -> None:
    save_many(store, 1, 120)
    iterator = iterate(store, thread("t000"))
    seen = [next(iterator) for _ in range(3)]
    store.delete_thread("t000")
    seen += iterator
    assert ids(seen) == [f"{number:05}" for number in reversed(range(120))][: len(seen)]
    for item in seen:
        assert item.checkpoint["channel_values"] == {"x": [item.metadata["n"]]}  # type: ignore[typeddict-item]
    assert store.list(None) == []
    assert len(seen) < 120


def test_the_page_that_is_deleted_next_is_skipped(store: Store) -> None:
    for number in range(60):
        run = {"run_id": "doomed"} if 10 <= number < 45 else {}
        store.save("t", {"x": [number]}, checkpoint_id=f"{number:02}", metadata=run)
    iterator = iterate(store, thread())
    seen = [next(iterator)]
    store.delete_for_runs(["doomed"])
    seen += iterator
    kept = [f"{number:02}" for number in reversed((*range(10), *range(45, 60)))]
    assert ids(seen) == kept


def test_the_checkpoint_where_a_page_ends_may_be_deleted(store: Store) -> None:
    for number in range(25):
        store.save("t", checkpoint_id=f"{number:02}", metadata={"run_id": f"run {number}"})
    seen = []
    for item in iterate(store, thread()):
        seen.append(id_of(item.config))
        store.delete_for_runs([str(item.metadata["run_id"])])
    assert seen == [f"{number:02}" for number in reversed(range(25))]
    assert store.list(None) == []


def test_what_is_stored_meanwhile_repeats_nothing(store: Store) -> None:
    save_many(store, 1, 40)
    iterator = iterate(store)
    seen = [next(iterator)]
    store.save("t000", checkpoint_id="99999")
    store.save("t000", {"x": [7]}, checkpoint_id="00007")
    seen += iterator
    assert ids(seen) == [f"{number:05}" for number in reversed(range(40))]


# Iterators that are left


@pytest.mark.parametrize("how", ["forgotten", "closed", "raised in"])
def test_an_iterator_that_is_left_half_way_leaks_nothing(store: Store, how: str) -> None:
    save_many(store, 1, 30)
    iterators = []
    for _ in range(8):
        iterator = iterate(store)
        next(iterator)
        iterators.append(iterator)
    assert checked_out(store) == 0
    for iterator in iterators:
        if how == "closed":
            iterator.close()  # type: ignore[attr-defined]
        elif how == "raised in":
            with pytest.raises(ZeroDivisionError):
                iterator.throw(ZeroDivisionError())  # type: ignore[attr-defined]
    del iterators, iterator
    gc.collect()
    store.run(asyncio.sleep(0))  # a loop closes what was forgotten when it runs next
    assert checked_out(store) == 0
    assert len(store.list(None)) == 30


def break_off(store: Store, error: type[Exception] | None) -> None:
    """Leave a loop of one's own at its first checkpoint, by `break` or by an error."""

    def leave() -> None:
        for _ in store.saver.list(None):
            if error:
                raise error
            break

    async def aleave() -> None:
        async for _ in store.saver.alist(None):
            if error:
                raise error
            break

    if store.kind.is_async:
        store.run(aleave())
    else:
        leave()


def test_a_loop_that_is_left_leaks_nothing(store: Store) -> None:
    save_many(store, 1, 30)
    break_off(store, None)
    with pytest.raises(ZeroDivisionError):
        break_off(store, ZeroDivisionError)
    gc.collect()
    assert checked_out(store) == 0
    assert len(store.list(None)) == 30


def test_an_iterator_that_was_never_started_asks_nothing(store: Store) -> None:
    with store.statements() as sent:
        iterator = iterate(store)
        del iterator
        gc.collect()
    assert len(sent) == 0


# What a filter matches


def matching(store: Store, filter: dict[Any, Any]) -> set[str]:
    """Return the threads that a filter finds."""
    found = [address(item)[0] for item in store.list(None, filter=filter)]
    assert len(found) == len(set(found))
    return set(found)


def check_equality(store: Store, groups: Sequence[Sequence[Any]]) -> None:
    """Check that each value finds those of its own group, and no others.

    Values stand in metadata beside a row that lacks the key, and beside rows that have the value
    one level deeper, in a list, or under a similar key: none of these is ever found.
    """
    store.save("missing")
    store.save("elsewhere", metadata={"K": groups[0][0], "k ": groups[0][0], "outer": {"k": 1}})
    for number, group in enumerate(groups):
        for position, value in enumerate(group):
            store.save(f"{number}.{position}", metadata={"k": value, "other": [value]})
    for number, group in enumerate(groups):
        expected = {f"{number}.{position}" for position in range(len(group))}
        for value in group:
            assert matching(store, {"k": value}) == expected, ascii(value)[:60]


def test_a_filter_tells_null_booleans_numbers_and_text_apart(store: Store) -> None:
    check_equality(
        store,
        [
            [None],
            [True],
            [False],
            [0, 0.0, -0.0],
            [1, 1.0],
            [-1, -1.0],
            ["0"],
            ["1"],
            ["1.0"],
            ["true"],
            ["false"],
            ["null"],
            [""],
            [[]],
            ["[]"],
            ["{}"],
            [[None]],
            [[1], [1.0], (1,)],
            [[True]],
            [[0], [0.0]],
            [[False]],
        ],
    )


def test_a_filter_compares_numbers_by_value(store: Store) -> None:
    check_equality(
        store,
        [
            [10**15, 1e15],
            [2**53, float(2**53)],
            [2**53 + 1],
            [2**53 - 1, float(2**53 - 1)],
            [2**63 - 1],
            [2**63, float(2**63)],
            [-(2**63), float(-(2**63))],
            [2**64],
            [2**70, float(2**70)],
            [2**70 + 1],
            [10**22, 1e22],
            [1e23],
            [1e308],
            [-1e308],
            [0.1],
            [0.1 + 2**-55],
            [1e-7],
            [5e-324],
            [123456789.123456789],
            [math.inf],
            [-math.inf],
            [100, 100.0, 1e2],
            [10**400],
        ],
    )


def test_a_filter_for_nan_finds_nothing(store: Store) -> None:
    for name, value in (("nan", math.nan), ("null", None), ("text", "NaN"), ("inf", math.inf)):
        store.save(name, metadata={"k": value})
    assert matching(store, {"k": math.nan}) == set()
    assert matching(store, {"k": "NaN"}) == {"text"}
    assert matching(store, {"k": None}) == {"null"}


def test_a_filter_compares_text_by_its_code_points(store: Store) -> None:
    check_equality(
        store,
        [
            [text]
            for text in (
                *("a", "A", "á", "a\u0301", "ä", "ß", "ss", "ａ"),  # noqa: RUF001 - full width
                *(" ", "a ", " a", "a\t", "a\n", "\n", "\\n", "\t"),
                *("'", '"', '""', "\\", "\\\\", '\\"', "a'b", 'a"b', "a\\b", "`", "/", "\\/"),
                *("%", "a%", "_", "?", ":k", "%s", "%(k)s", "%%", "{}", "{k}", "${k}", "$.k"),
                *("\0", "a\0b", "a\0"),
                *("\x01", "\x1f", "\x7f", "\u2028", "\ufeff", "\uffff", "\ufffd"),
                *("\ud800", "\udfff", "a\ud800b", "😀", "\U0010ffff", "\\u0041", "\\ud800"),
                *("' OR 1=1 --", "'; DROP TABLE checkpoints; --", '") OR 1=1 --'),
                *("x" * 255, "x" * 256, "x" * 257, "x" * 70_000, "x" * 70_001),
            )
        ],
    )


def test_a_list_matches_as_a_whole(store: Store) -> None:
    check_equality(
        store,
        [
            [[1, 2], (1, 2), [1.0, 2.0]],
            [[2, 1]],
            [[1, 2, 2]],
            [[1]],
            [[1, [2]]],
            [[[1, 2]]],
            [["a"]],
            [["A"]],
            ["a"],
            [[{"a": 1}], [{"a": 1.0}]],
            [[{"a": True}]],
            [[{"a": 1, "b": 2}], [{"b": 2, "a": 1}]],
            [[{}]],
            [[[]]],
            [[None, None]],
            [[{"a": [1]}]],
            [[math.inf, "\0", 2**70]],
        ],
    )


DOCUMENTS: dict[str, Any] = {
    "missing": {},
    "null": {"k": None},
    "text": {"k": "a"},
    "list": {"k": ["a"]},
    "empty": {"k": {}},
    "a": {"k": {"a": 1}},
    "a float": {"k": {"a": 1.0}},
    "a true": {"k": {"a": True}},
    "a null": {"k": {"a": None}},
    "a text": {"k": {"a": "1"}},
    "a b": {"k": {"a": 1, "b": 2}},
    "a list": {"k": {"a": [1, 2]}},
    "deep": {"k": {"a": {"b": {"c": 1, "d": [1]}, "e": "\0"}}},
    "deep list": {"k": {"a": {"b": [{"c": 1}]}}},
    "upper": {"k": {"A": 1}},
    "a.b": {"k.a": 1, "k": {"a.b": 1}},
}


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set(DOCUMENTS)),
    ({"k": {}}, set(DOCUMENTS) - {"missing", "null", "text", "list"}),
    ({"k": {"a": 1}}, {"a", "a float", "a b"}),
    ({"k": {"a": 1.0}}, {"a", "a float", "a b"}),
    ({"k": {"a": True}}, {"a true"}),
    ({"k": {"a": None}}, {"a null"}),
    ({"k": {"a": "1"}}, {"a text"}),
    ({"k": {"a": 1, "b": 2}}, {"a b"}),
    ({"k": {"b": 2, "a": 1}}, {"a b"}),
    ({"k": {"a": 1, "b": None}}, set()),
    ({"k": {"c": None}}, set()),
    ({"k": {"a": {}}}, {"deep", "deep list"}),
    ({"k": {"a": {"b": {}}}}, {"deep"}),
    ({"k": {"a": {"b": {"c": 1}}}}, {"deep"}),
    ({"k": {"a": {"b": {"c": 1, "d": [1]}}}}, {"deep"}),
    ({"k": {"a": {"b": {"d": []}}}}, set()),
    ({"k": {"a": {"e": "\0"}}}, {"deep"}),
    ({"k": {"a": {"b": [{"c": 1}]}}}, {"deep list"}),
    ({"k": {"a": {"b": [{}]}}}, set()),
    ({"k": {"a": [1, 2]}}, {"a list"}),
    ({"k": {"a": [1]}}, set()),
    ({"k": {"a": 1}, "source": "loop"}, {"a", "a float", "a b"}),
    ({"k": {"a": 1}, "source": "input"}, set()),
    ({"k": {"A": 1}}, {"upper"}),
    ({"k": {"a.b": 1}}, {"a.b"}),
    ({"k.a": 1}, {"a.b"}),
    ({"k.a.b": 1}, set()),
    ({"k": None}, {"null"}),
    ({"K": {"a": 1}}, set()),
    ({"absent": None}, set()),
    ({"absent": {}}, set()),
    ({"parents": {}}, set(DOCUMENTS)),
    ({"step": 1, "source": "loop", "parents": {}}, set(DOCUMENTS)),
]


def test_a_dict_matches_as_a_subset(store: Store) -> None:
    for name, metadata in DOCUMENTS.items():
        store.save(name, metadata=metadata)
    found = {str(wanted): matching(store, wanted) for wanted, _ in FILTERS}
    assert found == {str(wanted): expected for wanted, expected in FILTERS}


HOSTILE_KEYS = [
    "",
    " ",
    "k ",
    "K",
    "k",
    "'",
    '"',
    '""',
    "''",
    "\\",
    '\\"',
    "`",
    "k'k",
    'k"k',
    "k\\k",
    ".",
    "k.k",
    "..",
    "$",
    "$.k",
    '$."k"',
    "$[0]",
    "[0]",
    "k[0]",
    "*",
    "**",
    "$**",
    "#",
    "#-1",
    "@",
    "%",
    "%s",
    "%%",
    "%(k)s",
    "%(filter_json)s",
    ":k",
    ":filter_json",
    "?",
    "{}",
    "{k}",
    "0",
    "-1",
    "null",
    "true",
    "ü",
    "u\u0308",
    "😀",
    "\0",
    "k\0k",
    "\ud800",
    "\n",
    "\x1f",
    "\u2028",
    "/",
    "--",
    "; DROP TABLE checkpoints",
    "' OR '1'='1",
    '") OR 1=1 --',
    "k') IS NOT NULL OR ('1",
    "x" * 1000,
]


def test_hostile_keys_are_names_like_others(store: Store) -> None:
    for number, key in enumerate(HOSTILE_KEYS):
        store.save(f"{number}", metadata={key: number, "nested": {key: f"{number}"}})
    for number, key in enumerate(HOSTILE_KEYS):
        shown = ascii(key)[:60]
        assert matching(store, {key: number}) == {f"{number}"}, shown
        assert matching(store, {"nested": {key: f"{number}"}}) == {f"{number}"}, shown
    assert store.count("checkpoints") == len(HOSTILE_KEYS)


def test_hostile_keys_with_text_booleans_and_null(store: Store) -> None:
    values: list[Any] = ["v", True, None, 'a"b', {"v": 1}, [1]]
    for number, key in enumerate(HOSTILE_KEYS):
        store.save(f"{number}", metadata={key: values[number % len(values)]})
    for number, key in enumerate(HOSTILE_KEYS):
        assert matching(store, {key: values[number % len(values)]}) == {f"{number}"}, ascii(key)[
            :60
        ]


def test_a_key_may_be_longer_than_an_engine_takes(store: Store) -> None:
    long = "x" * 70_000
    config = store.save("long", metadata={long: 1, "nested": {long: "a"}, "beside": "b"})
    store.save("other", metadata={f"{long}x": 1, "nested": {f"{long}x": "a"}})
    assert matching(store, {long: 1}) == {"long"}
    assert matching(store, {long: 1, "beside": "b"}) == {"long"}
    assert matching(store, {"nested": {long: "a"}}) == {"long"}
    assert matching(store, {long: None}) == set()
    found: Any = store.found(config).metadata
    assert found[long] == 1
    assert found["nested"] == {long: "a"}


def test_all_of_many_criteria_must_match(store: Store) -> None:
    metadata: dict[str, Any] = {f"k{number:02}": number for number in range(30)}
    metadata |= {f"nested{number:02}": {"n": number} for number in range(30)}
    store.save("all", metadata=metadata)
    for name in metadata:
        store.save(f"all but {name}", metadata={**metadata, name: "other"})
    assert matching(store, metadata) == {"all"}


def nested(depth: int, innermost: Any) -> Any:
    value = innermost
    for _ in range(depth):
        value = {"d": value}
    return value


@pytest.mark.parametrize("depth", [20, 24, 32, 33, 101, 150])
def test_deep_metadata_is_found_and_comes_back(store: Store, depth: int) -> None:
    store.save("deep", metadata={"k": nested(depth, 1), "beside": "b"})
    store.save("deep list", metadata={"k": [nested(depth, 1)]})
    store.save("other", metadata={"k": nested(depth, 2)})
    assert matching(store, {"k": nested(depth, 1)}) == {"deep"}
    assert matching(store, {"k": [nested(depth, 1)]}) == {"deep list"}
    assert matching(store, {"beside": "b"}) == {"deep"}
    (found,) = store.list(None, filter={"k": nested(depth, 2)})
    assert found.metadata["k"] == nested(depth, 2)  # type: ignore[typeddict-item]


def test_a_filter_finds_what_stands_beside_values_that_no_engine_says(store: Store) -> None:
    odd = [math.nan, math.inf, "\0", "\ud800", 2**70, -0.0, b"x", {1: 2}, {"\0": 1}, {1, 2}]
    for number, value in enumerate(odd):
        store.save(f"{number}", metadata={"k": f"{number}", "n": {"k": number}, "odd": value})
    for number in range(len(odd)):
        assert matching(store, {"k": f"{number}"}) == {f"{number}"}
        assert matching(store, {"n": {"k": number}}) == {f"{number}"}


class Colour(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def test_a_filter_finds_enums_that_are_text_or_numbers(store: Store) -> None:
    store.save("low red", metadata={"colour": Colour.RED, "level": Level.LOW})
    store.save("high blue", metadata={"colour": Colour.BLUE, "level": Level.HIGH})
    store.save("plain", metadata={"colour": "red", "level": 2})
    assert matching(store, {"colour": "red"}) == {"low red", "plain"}
    assert matching(store, {"colour": Colour.RED}) == {"low red", "plain"}
    assert matching(store, {"level": 2}) == {"high blue", "plain"}
    assert matching(store, {"level": Level.HIGH, "colour": Colour.BLUE}) == {"high blue"}


def test_a_filter_finds_values_that_are_not_json(store: Store) -> None:
    moment = datetime(2024, 2, 29, 12, tzinfo=timezone.utc)
    store.save("moment", metadata={"k": moment})
    store.save("bytes", metadata={"k": b"moment"})
    store.save("text", metadata={"k": moment.isoformat()})
    assert matching(store, {"k": moment}) == {"moment"}
    assert matching(store, {"k": b"moment"}) == {"bytes"}
    assert matching(store, {"k": moment.isoformat()}) == {"text"}


def test_a_filter_does_not_change_what_it_is_given(sqlite_store: Store) -> None:
    wanted = {"k": {"a": [1]}, "n": None}
    sqlite_store.list(None, filter=wanted)
    assert wanted == {"k": {"a": [1]}, "n": None}
