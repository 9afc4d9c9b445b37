"""Looking at what is stored: `threads()`, and the commands that read."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import os
import re
import select
import subprocess
import sys
import tempfile
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from databases import bare_store, on_connection
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError
from stores import ONE_PER_SERVER, Store, id_of, thread
from test_migration_schemas import schemas
from test_retention import NOW, id_at
from test_security import HOSTILE, RAN

from checkpoint_sa import (
    AESGCMSerializer,
    InvalidInputError,
    SQLAlchemySaver,
    ThreadSummary,
)
from checkpoint_sa.cli import DATA, DONE, USAGE, layout, main, parser, readable, terminal
from checkpoint_sa.cli.look import drawn
from checkpoint_sa.engine import engines, retry
from checkpoint_sa.repository import statistics
from checkpoint_sa.sql.statistics import GET_TABLE_SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Summaries

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

__all__ = ["bare_store", "schemas"]

Captured = pytest.CaptureFixture[str]


def ids(found: Summaries) -> list[str]:
    return [summary.thread_id for summary in found]


# The method threads


def test_a_thread_is_summed_up(store: Store) -> None:
    first = store.save("t", {"words": ["one"]})
    store.save("t", {"words": ["two"], "small": 1}, parent=first)
    store.save("t", {"words": ["three"]}, ns="node:1")
    store.put_writes(first, [("a", 1), ("b", 2)], "task")
    (found,) = store.threads()
    assert isinstance(found, ThreadSummary)
    assert found[:3] == ("t", 3, 2)
    assert found.namespaces == 2
    assert found.first is not None
    assert found.last is not None
    assert timedelta() < found.last - found.first < timedelta(minutes=1)
    assert abs(datetime.now(timezone.utc) - found.last) < timedelta(minutes=1)


def test_bytes_are_those_of_documents_values_and_writes(store: Store) -> None:
    config = store.save("t", {"x": ["a" * 10_000]})
    (without,) = store.threads()
    assert 10_000 < without.bytes < 11_500
    store.put_writes(config, [("x", ["b" * 5_000])], "task")
    (with_writes,) = store.threads()
    assert 5_000 < with_writes.bytes - without.bytes < 5_100
    store.save("ü", {"x": ["ü" * 1_000]}, metadata={"name": "ü" * 1_000})
    (other,) = store.threads(after="t")
    assert 4_000 < other.bytes < 9_000  # JSON may escape it


def test_values_in_chains_count_as_what_is_stored(store: Store) -> None:
    changes = store.using(store.make_saver(incremental=True))
    config = None
    text = "a" * 5_000
    for step in range(10):
        text += f"{step}"
        config = changes.save("t", {"x": [text]}, parent=config)
    (found,) = store.threads()
    assert 5_000 < found.bytes < 10_000


def test_the_time_comes_from_the_id_where_the_document_has_none(store: Store) -> None:
    document = store.found(store.save("t")).checkpoint
    store.clear()
    for name, ts in (("a", ""), ("b", "not a time"), ("c", "2026-01-02T03:04:05Z")):
        store.put(thread(name), {**document, "ts": ts}, {}, {})
    store.put(thread("d"), {**document, "ts": "", "id": "1"}, {}, {})
    a, b, c, d = store.threads()
    assert a.first is not None
    assert a.first == b.first == a.last
    assert abs(datetime.now(timezone.utc) - a.first) < timedelta(minutes=1)
    assert c.first == c.last == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert (d.first, d.last) == (None, None)


def test_threads_come_in_pages_and_each_once(store: Store) -> None:
    names = [f"thread {number:03}" for number in range(230)]
    for name in names:
        store.save(name)
    store.save(names[7], ns="node:1")
    assert ids(store.threads()) == names
    assert ids(store.threads(after=names[99])) == names[100:]
    assert ids(store.threads(after=names[3], limit=2)) == names[4:6]
    assert ids(store.threads(limit=130)) == names[:130]
    assert store.threads(limit=0) == []
    assert store.threads(after="zzz") == []


def test_the_number_of_statements_is_that_of_pages(store: Store) -> None:
    for number in range(210):
        store.save(f"{number:03}", {"x": [number]})
    store.threads(limit=1)
    with store.statements() as sent:
        store.threads()
    assert sum(text != "BEGIN" for text in sent.texts) == 3 * 5


def test_where_is_metadata_as_list_means_it(store: Store) -> None:
    stored: list[dict[str, Any]] = [
        {"user": "ann"},
        {"user": "bob"},
        {"user": "ann", "n": 1},
        {"n": True},
        {"n": 1.0},
        {},
    ]
    for number, metadata in enumerate(stored):
        first = store.save(f"{number}", metadata=metadata)
        store.save(f"{number}", parent=first)
    assert ids(store.threads(where={"user": "ann"})) == ["0", "2"]
    assert ids(store.threads(where={"user": "ann"}, limit=1)) == ["0"]
    assert ids(store.threads(where={"user": "ann"}, after="0")) == ["2"]
    assert ids(store.threads(where={"n": 1})) == ["2", "4"]
    assert ids(store.threads(where={"n": True})) == ["3"]
    assert ids(store.threads(where={"n": 1.0, "user": "ann"})) == ["2"]
    assert ids(store.threads(where={"parents": {}})) == ["0", "1", "2", "3", "4", "5"]
    assert store.threads(where={"user": "carl"}) == []


def test_where_over_several_pages(store: Store) -> None:
    config = None
    for number in range(150):
        config = store.save("a", parent=config, metadata={"text": f"ü{number}"})
    store.save("b", metadata={"text": "ü149"})
    store.save("c", metadata={"text": "ü0"})
    assert ids(store.threads(where={"text": "ü149"})) == ["a", "b"]
    assert ids(store.threads(where={"text": "ü0"})) == ["a", "c"]


def test_what_is_no_filter_or_thread_is_refused(store: Store) -> None:
    wrong: Any = "user"
    with pytest.raises(InvalidInputError, match="dict"):
        store.threads(where=wrong)
    with pytest.raises(InvalidInputError, match="NUL"):
        store.threads(after="a\0")


def test_the_twins_find_the_same(store: Store) -> None:
    for number in range(3):
        store.save(f"{number}")
    if store.kind.is_async:
        found = store.run(asyncio.to_thread(lambda: [*store.saver.threads(after="0")]))

        async def in_loop() -> None:
            next(store.saver.threads())

        with pytest.raises(asyncio.InvalidStateError, match=r"checkpointer\.athreads"):
            store.run(in_loop())
    else:

        async def collect() -> Summaries:
            return [item async for item in store.saver.athreads(after="0")]

        found = store.run(collect())
    assert found == store.threads(after="0")
    assert ids(found) == ["1", "2"]


# The commands


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHECKPOINT_SA_URL", "CHECKPOINT_SA_SCHEMA", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def run(store: Store, capsys: Captured, *arguments: str) -> list[list[str]]:
    """Run a command; return the fields of the lines that it prints."""
    assert main([*arguments, "--url", store.url]) == DONE
    said = capsys.readouterr()
    assert said.err == ""
    return [line.split("\t") for line in said.out.splitlines()]


def objects(store: Store, capsys: Captured, *arguments: str) -> list[dict[str, Any]]:
    """Run a command with --json; return its objects."""
    return [json.loads(line) for (line,) in run(store, capsys, *arguments, "--json")]


@pytest.fixture
def pretty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands print as for a person, without colours."""
    monkeypatch.setattr(terminal, "is_pretty", lambda _=None: True)
    monkeypatch.setenv("COLUMNS", "200")


def test_every_command_on_every_driver(store: Store, capsys: Captured) -> None:
    first = store.save("t", {"words": ["one"]}, metadata={"user": "ann"})
    second = store.save("t", {"words": ["two"]}, parent=first)
    store.put_writes(first, [("words", ["three"])], "task")
    store.save("u")
    assert [row[:3] for row in run(store, capsys, "threads")] == [["t", "2", "1"], ["u", "1", "0"]]
    assert [row[0] for row in run(store, capsys, "threads", "--where", "user=ann")] == ["t"]
    assert [row[0] for row in run(store, capsys, "threads", "--after", "t")] == ["u"]
    assert [row[0] for row in run(store, capsys, "threads", "--limit", "1")] == ["t"]
    history = run(store, capsys, "history", "t")
    assert [row[0] for row in history] == [id_of(second), id_of(first)]
    assert [row[-1] for row in history] == [id_of(first), ""]
    assert ["value", "words", "", '["two"]'] in run(store, capsys, "show", "t")
    assert ["write", "words", "task", '["three"]'] in run(store, capsys, "show", "t", id_of(first))
    (changed,) = objects(store, capsys, "diff", "t", id_of(first), id_of(second))
    assert changed["diff"] == ["@@ -1,3 +1,3 @@", " [", '-  "one"', '+  "two"', " ]"]
    found = {(row["kind"], row["name"]): row for row in objects(store, capsys, "stats")}
    assert found["table", "checkpoints"]["rows"] == 3
    assert found["thread", "t"]["rows"] == 2
    assert found["channel", "words"]["rows"] == 2
    assert found["table", "total"]["on_disk"] > 0
    assert found["prune", "keep_latest frees"]["rows"] == 1
    total = found["table", "total"]["bytes"]
    assert total == sum(row["bytes"] for (kind, _), row in found.items() if kind == "day")
    assert total == sum(summary.bytes for summary in store.threads())


def test_sizes_are_those_of_the_schema(bare_store: Store, schemas: tuple[str, str]) -> None:
    for name, number in zip(schemas, (1, 200), strict=True):
        store = bare_store.using(bare_store.make_saver(schema=name))
        store.setup()
        for _ in range(number):
            store.save(values={"x": ["a" * 2_000]})
        assert ids(store.threads()) == ["t"]
    names = list(GET_TABLE_SIZES)
    small, large = (
        on_connection(bare_store, lambda c, name=name: engines.sizes_on_disk(c, names, name))  # type: ignore[misc]
        for name in schemas
    )
    assert small.keys() == large.keys()
    assert 0 < sum(small.values()) <= sum(large.values())
    if bare_store.kind.server in ("", "postgresql"):  # elsewhere an estimate
        assert sum(small.values()) < sum(large.values())


def steps_of(store: Store, thread_id: str = "t") -> list[statistics.Step]:
    """Read a thread as `history` and `stats` do, in four statements."""
    with store.statements() as sent:
        found = on_connection(store, lambda connection: statistics.thread(connection, thread_id))
    assert sum(not text.startswith("BEGIN") for text in sent.texts) == 4
    return found


@pytest.mark.parametrize("incremental", [False, True])
def test_what_prune_frees_is_told_before(store: Store, incremental: bool) -> None:
    writer = store.using(store.make_saver(incremental=incremental))
    config = None
    texts = []
    for number in range(12):
        texts.append(f"{number}" * 500)
        values = {"messages": texts, "other": [number]}
        config = writer.save("t", values, parent=config)
        writer.put_writes(config, [("x", [number])], "task")
        metadata = {"parents": {"": id_of(config)}}
        writer.save("t", {"x": ["sub" * 100]}, ns=f"node:{number}", metadata=metadata)
    writer.save("t", {"x": ["own"]}, ns="own")
    (before,) = store.threads()
    assert sum(step.bytes for step in steps_of(store)) == before.bytes
    rows, stored = store.rows(), bytes_of_parts(store)
    found = store.prunable(keep=1)
    assert store.prune(["t"]) == found._replace(bytes=0)  # no size is read for it
    (after,) = store.threads()
    assert found.bytes == stored - bytes_of_parts(store) > 0
    assert found[1:4] == tuple(old - new for old, new in zip(rows, store.rows(), strict=True))
    assert found.checkpoints == before.checkpoints - after.checkpoints


def bytes_of_parts(store: Store) -> int:
    """Sum up the values, deltas and writes."""
    sizes = on_connection(store, lambda connection: statistics.table_sizes(connection, None))
    return sum(size.bytes for size in sizes if size.name not in ("checkpoints", "total"))


def test_stats_tell_exactly_how_many_checkpoints_prune_deletes(
    sqlite_store: Store, capsys: Captured
) -> None:
    first = sqlite_store.save()
    second = sqlite_store.save(parent=first)
    sqlite_store.put_writes(second, [("__pregel_tasks", Send("node", 1))], "task")
    sqlite_store.save(parent=second, v=3)  # it needs the pending send of its parent
    found = {(row["kind"], row["name"]): row for row in objects(sqlite_store, capsys, "stats")}
    assert found["prune", "keep_latest frees"]["rows"] == 1
    assert sqlite_store.prune(["t"]).checkpoints == 1


def test_a_step_tells_what_comes_next_and_what_changed(sqlite_store: Store) -> None:
    store = sqlite_store
    first = store.save(values={"__start__": {"a": 1}}, metadata={"source": "input", "step": -1})
    store.save(
        parent=first,
        values={"branch:to:b": None, "branch:to:a": None, "x": [1]},
        metadata={"step": 0},
    )
    one, two = steps_of(store)
    assert (one.next, one.changed, one.source, one.step) == (
        ["__start__"],
        ["__start__"],
        "input",
        -1,
    )
    assert two.next == ["a", "b"]
    assert two.changed == ["branch:to:a", "branch:to:b", "x"]


def test_forks_are_drawn_and_chains_are_not(sqlite_store: Store, capsys: Captured) -> None:
    store = sqlite_store
    root = store.save()
    line = [store.save(parent=root)]
    line += [store.save(parent=line[0])]
    assert [tree for _, tree in drawn(steps_of(store))] == ["", "", ""]
    fork = store.save(parent=root)
    store.save(parent=line[0])
    store.save(parent=fork)
    assert [tree for _, tree in drawn(steps_of(store))] == [
        "●",
        "│ ●",
        "● │",
        "│ │ ●",
        "│ ●─┘",
        "●─┘",
    ]
    (*_, oldest) = objects(store, capsys, "history", "t")
    assert "tree" not in oldest
    assert oldest["parent_id"] is None


def test_a_line_ends_where_the_parent_is_gone(sqlite_store: Store) -> None:
    root = sqlite_store.save()
    for _ in range(2):
        sqlite_store.save(parent=thread(checkpoint_id="0"))
    sqlite_store.save(parent=sqlite_store.save(parent=root))
    assert [tree for _, tree in drawn(steps_of(sqlite_store))] == [
        "●",
        "●",
        "│ ●",
        "│ ●",
        "●",
    ]


def test_a_free_column_is_used_again(sqlite_store: Store) -> None:
    root = sqlite_store.save()
    sqlite_store.save(parent=root)
    other = sqlite_store.save()
    sqlite_store.save(parent=root)
    sqlite_store.save(parent=other)
    assert [tree for _, tree in drawn(steps_of(sqlite_store))] == ["●", "│ ●", "● │", "● │", "●─┘"]


def test_many_forks_end_in_their_parent(sqlite_store: Store) -> None:
    root = sqlite_store.save()
    other = sqlite_store.save()
    for parent in (root, root, other, root):
        sqlite_store.save(parent=parent)
    assert [tree for _, tree in drawn(steps_of(sqlite_store))] == [
        "●",
        "│ ●",
        "│ │ ●",
        "│ │ │ ●",
        "│ ● │ │",
        "●───┴─┘",
    ]


@pytest.mark.usefixtures("pretty")
def test_ids_that_begin_alike_are_told_apart(sqlite_store: Store, capsys: Captured) -> None:
    ids = [f"1f0a6b00-aaaa-6{end}" for end in "12"]
    for one in ids:
        sqlite_store.save(checkpoint_id=one)
    text = "\n".join(map(" ".join, run(sqlite_store, capsys, "history", "t")))
    assert all(one in text for one in ids)


def test_a_size_beyond_the_largest_unit_is_in_that_unit() -> None:
    assert terminal.size(1.5e15) == "1500.0 TB"


@pytest.mark.usefixtures("pretty")
def test_a_person_sees_the_tree(sqlite_store: Store, capsys: Captured) -> None:
    root = sqlite_store.save()
    sqlite_store.save(parent=root)
    sqlite_store.save(parent=root)
    found = run(sqlite_store, capsys, "history", "t")
    assert [line[0][:3].strip() for line in found] == ["", "●", "│ ●", "●─┘"]


def test_subgraphs_are_shown_when_asked(sqlite_store: Store, capsys: Captured) -> None:
    root = sqlite_store.save()
    inner = sqlite_store.save(values={"x": [1]}, ns="node:1")
    assert [row[0] for row in run(sqlite_store, capsys, "history", "t")] == [id_of(root)]
    found = run(sqlite_store, capsys, "history", "t", "--all")
    assert [(row[0], row[-2]) for row in found] == [(id_of(root), ""), (id_of(inner), "node:1")]
    shown = run(sqlite_store, capsys, "show", "t", "--namespace", "node:1")
    assert ["value", "x", "", "[1]"] in shown


def test_long_values_are_folded_unless_asked(sqlite_store: Store, capsys: Captured) -> None:
    sqlite_store.save(values={"x": "a" * 5_000})
    (folded,) = [row[3] for row in run(sqlite_store, capsys, "show", "t") if row[1] == "x"]
    assert len(folded) < 300
    assert "5002 characters" in folded
    whole = run(sqlite_store, capsys, "show", "t", "--full")
    assert ["value", "x", "", f'"{"a" * 5_000}"'] in whole
    (found,) = objects(sqlite_store, capsys, "show", "t")
    assert found["values"] == {"x": "a" * 5_000}


def test_diff_tells_what_came_and_went(sqlite_store: Store, capsys: Captured) -> None:
    first = sqlite_store.save(values={"gone": 1, "same": [1]})
    second = sqlite_store.save(parent=first, values={"new": {"a": 1}, "same": [1]})
    found = run(sqlite_store, capsys, "diff", "t", id_of(first), id_of(second))
    assert found == [
        ["removed gone"],
        ["@@ -1 +0,0 @@"],
        ["-1"],
        ["added new"],
        ["@@ -0,0 +1,3 @@"],
        ["+{"],
        ['+  "a": 1'],
        ["+}"],
    ]
    assert run(sqlite_store, capsys, "diff", "t", id_of(first), id_of(first)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["history", "nobody"],
        ["show", "nobody"],
        ["show", "t", "none"],
        ["show", "t", "--namespace", "none"],
        ["diff", "nobody", "1", "2"],
    ],
)
def test_what_is_not_there_is_named(
    sqlite_store: Store, capsys: Captured, arguments: list[str]
) -> None:
    sqlite_store.save()
    assert main([*arguments, "--url", sqlite_store.url]) == DATA
    said = capsys.readouterr()
    assert said.out == ""
    assert repr(arguments[1]) in said.err
    assert all(repr(part) in said.err for part in arguments[2:3] if part == "1")


def test_a_time_that_utc_does_not_reach_is_that_of_the_id(sqlite_store: Store) -> None:
    sqlite_store.save(ts="0001-01-01T00:00:00+14:00", checkpoint_id=id_at(NOW))
    (summary,) = sqlite_store.threads()
    assert summary.first == summary.last == pytest.approx(NOW, abs=timedelta(milliseconds=1))
    (step,) = steps_of(sqlite_store)
    assert step.time == summary.first


def test_a_criterion_needs_a_name_and_a_value(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["threads", "--where", "user"])
    assert "'user' isn't NAME=VALUE" in capsys.readouterr().err


# What is stored is looked at, never run


class Shop:
    """A module of an application, which is imported only here, and a class of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._made = folder / "shop.py.made"
        (folder / "shop.py").write_text(
            "from dataclasses import dataclass\n"
            "@dataclass\n"
            "class Order:\n"
            "    item: str\n"
            "    def __post_init__(self):\n"
            "        open(__file__ + '.made', 'a').close()\n"
        )
        monkeypatch.syspath_prepend(folder)
        self.Order = importlib.import_module("shop").Order

    def forget(self) -> None:
        """Forget that it was imported and used."""
        self._made.unlink()
        del sys.modules["shop"]

    def was_made(self) -> bool:
        return "shop" in sys.modules or self._made.exists()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path, monkeypatch)


def test_objects_are_shown_and_not_made(sqlite_store: Store, capsys: Captured, shop: Shop) -> None:
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    config = sqlite_store.save(values={"order": shop.Order("tea"), "at": [at]})
    sqlite_store.put_writes(config, [("order", Send("pay", shop.Order("cup")))], "task")
    shop.forget()
    (found,) = objects(sqlite_store, capsys, "show", "t")
    assert found["values"]["order"] == {"__type__": "shop.Order", "fields": {"item": "tea"}}
    assert found["values"]["at"][0]["__type__"] == "datetime.datetime"
    assert "shop.Order" in json.dumps(found["writes"])
    assert not shop.was_made()


@pytest.mark.parametrize("what", list(HOSTILE))
def test_a_hostile_row_runs_nothing(sqlite_store: Store, capsys: Captured, what: str) -> None:
    sqlite_store.save(values={"x": [1]})
    kind, data = HOSTILE[what]
    sqlite_store.sql("UPDATE checkpoint_blobs SET type = :kind, blob = :data", kind=kind, data=data)
    RAN.clear()
    assert main(["show", "t", "--url", sqlite_store.url]) in (DONE, DATA)
    assert RAN == []


def test_metadata_is_looked_at_and_makes_nothing(
    sqlite_store: Store, capsys: Captured, shop: Shop
) -> None:
    sqlite_store.save(metadata={"order": shop.Order("tea"), "user": "ann"})
    shop.forget()
    assert [row[0] for row in run(sqlite_store, capsys, "threads", "--where", "user=ann")] == ["t"]
    assert "shop.Order" in json.dumps(run(sqlite_store, capsys, "show", "t"))
    assert not shop.was_made()


def test_encrypted_values_are_shown_as_such(sqlite_store: Store, capsys: Captured) -> None:
    serde = AESGCMSerializer(b"k" * 32)
    secret = sqlite_store.using(sqlite_store.make_saver(serde=serde))
    config = secret.save(values={"x": "secret", "y": ["secret"]})
    secret.put_writes(config, [("x", "secret")], "task")
    (found,) = objects(sqlite_store, capsys, "show", "t")
    for value in (*found["values"].values(), found["writes"][0]["value"]):
        assert value.keys() == {"__type__", "bytes"}
    assert [row[0] for row in run(sqlite_store, capsys, "threads")] == ["t"]


ESCAPES = "\x1b[31mred\x9b2J\x7f\u202e[bold]x[/bold]\r\n\tend"


@pytest.mark.parametrize("form", ["pipe", "json", "pretty"])
def test_stored_text_sends_no_escape_codes(
    sqlite_store: Store, capsys: Captured, form: str, request: pytest.FixtureRequest
) -> None:
    first = sqlite_store.save(ESCAPES, {ESCAPES: {ESCAPES: ESCAPES}}, metadata={"a": ESCAPES})
    second = sqlite_store.save(parent=first, values={ESCAPES: [ESCAPES]}, ns=ESCAPES)
    sqlite_store.put_writes(first, [(ESCAPES, ESCAPES)], ESCAPES)
    if form == "pretty":
        request.getfixturevalue("pretty")
    for arguments in (
        ["threads"],
        ["history", ESCAPES, "--all"],
        ["show", ESCAPES],
        ["diff", ESCAPES, id_of(first), id_of(second)],
        ["stats"],
    ):
        given = ["--json"] if form == "json" else []
        assert main([*arguments, *given, "--url", sqlite_store.url]) == DONE
        out = capsys.readouterr().out
        assert "[bold]x[/bold]" in out
        assert set("\x1b\x9b\x7f\u202e\r").isdisjoint(out)
    assert main(["show", "\x1b[31m", "--url", sqlite_store.url]) == DATA
    assert "\x1b" not in capsys.readouterr().err


# Conversations, and threads that wait for a person


def chat(state: MessagesState) -> dict[str, Any]:
    if len(state["messages"]) > 1:
        return {"messages": [AIMessage("Sunny,\nand warm.")]}
    call = {"name": "weather", "args": {"city": "Porto", "days": 2}, "id": "1"}
    return {"messages": [AIMessage("I look.", tool_calls=[call])]}


def weather(state: MessagesState) -> dict[str, Any]:
    interrupt({"allow": "weather"})
    return {"messages": [ToolMessage("22 degrees", tool_call_id="1")]}


@pytest.fixture
def conversations(sqlite_store: Store) -> Store:
    """A store with a finished conversation, and with one in which a tool waits."""
    builder = StateGraph(MessagesState)
    builder.add_node("chat", chat)
    builder.add_node("weather", weather)
    builder.add_edge(START, "chat")
    builder.add_conditional_edges(
        "chat", lambda state: "weather" if len(state["messages"]) == 2 else END, ["weather", END]
    )
    builder.add_edge("weather", "chat")
    graph = builder.compile(checkpointer=sqlite_store.saver)
    for name in ("done", "waits"):
        graph.invoke({"messages": [HumanMessage("What is the weather?")]}, config_of(name))
    graph.invoke(Command(resume=True), config_of("done"))
    return sqlite_store


def config_of(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def test_show_shows_a_conversation(conversations: Store, capsys: Captured) -> None:
    shown = [row for row in run(conversations, capsys, "show", "done") if row[0] == "message"]
    assert [row[1:] for row in shown] == [
        ["messages", "", "human: What is the weather?"],
        ["messages", "", "ai: I look. -> weather(city=Porto, days=2)"],
        ["messages", "", "tool: 22 degrees"],
        ["messages", "", "ai: Sunny, and warm."],
    ]
    full = run(conversations, capsys, "show", "done", "--full", "--channel", "messages")
    assert [row[3] for row in full][-1] == "ai: Sunny,\\nand warm."
    (found,) = objects(conversations, capsys, "show", "done", "--channel", "messages")
    assert found["values"].keys() == {"messages"}
    assert found["interrupts"] == []
    assert main(["show", "done", "--channel", "mesages", "--url", conversations.url]) == DATA
    assert "no channel 'mesages'; it has 'messages'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ({"role": "user", "content": "hi"}, "human: hi"),
        ({"role": "assistant", "content": [{"type": "text", "text": "a"}, "b"]}, "ai: a b"),
        ({"type": "system", "content": ""}, "system:"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, None),
        (HumanMessage("hi", name="ann"), "human (ann): hi"),
        (ToolMessage("no", tool_call_id="1", status="error"), "tool (error): no"),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
            "ai: -> f()",
        ),
    ],
)
def test_messages_of_any_form_are_read(
    sqlite_store: Store, capsys: Captured, message: Any, line: str | None
) -> None:
    sqlite_store.save(values={"x": [message]})
    (shown,) = run(sqlite_store, capsys, "show", "t", "--channel", "x")
    assert shown == ["message", "x", "", line or "human: [image_url]"]


@pytest.mark.parametrize("value", [[], ["hi"], {"content": "x"}, [{"role": 1, "content": "x"}]])
def test_other_values_are_no_conversation(
    sqlite_store: Store, capsys: Captured, value: Any
) -> None:
    sqlite_store.save(values={"x": value})
    (shown,) = run(sqlite_store, capsys, "show", "t", "--channel", "x")
    assert shown[0] == "value"


def test_the_latest_messages_are_shown(sqlite_store: Store, capsys: Captured) -> None:
    messages = [{"role": "user", "content": f"{number}"} for number in range(30)]
    sqlite_store.save(values={"x": messages})
    shown = [row[3] for row in run(sqlite_store, capsys, "show", "t", "--channel", "x")]
    assert shown[0] == "(20 earlier messages; --full shows all)"
    assert shown[1:] == [f"human: {number}" for number in range(20, 30)]
    assert len(run(sqlite_store, capsys, "show", "t", "--channel", "x", "--full")) == 30


def test_interrupts_are_shown_until_they_are_answered(
    conversations: Store, capsys: Captured
) -> None:
    done, waits = objects(conversations, capsys, "threads")
    assert (done["interrupts"], waits["interrupts"]) == ([], [{"allow": "weather"}])
    (row,) = run(conversations, capsys, "threads", "--waiting")
    assert (row[0], row[-1]) == ("waits", '{"allow": "weather"}')
    assert [row["interrupts"] for row in objects(conversations, capsys, "history", "waits")] == [
        [{"allow": "weather"}],
        [],
        [],
    ]
    assert not any(row["interrupts"] for row in objects(conversations, capsys, "history", "done"))
    shown = run(conversations, capsys, "show", "waits")
    assert [row[3] for row in shown if row[0] == "waiting"] == ['{"allow": "weather"}']
    (found,) = objects(conversations, capsys, "show", "waits")
    assert found["interrupts"] == [{"allow": "weather"}]


def test_waiting_threads_on_every_driver(store: Store, capsys: Captured) -> None:
    for name in ("a", "b", "c"):
        config = store.save(name)
        store.put_writes(config, [("__interrupt__", [{"value": name, "id": "1"}])], "task")
    store.put_writes(config, [("x", 1)], "task")  # answered
    store.save("b", parent=store.found(thread("b")).config)
    assert [row["interrupts"] for row in objects(store, capsys, "threads")] == [["a"], [], []]
    for name, waiting in (("a", ["a"]), ("b", []), ("c", [])):
        (newest, *_) = objects(store, capsys, "history", name, "--limit", "1")
        assert newest["interrupts"] == waiting
    assert [row[0] for row in run(store, capsys, "threads", "--waiting")] == ["a"]
    newest_first = [row[0] for row in run(store, capsys, "threads", "--newest")]
    assert newest_first == ["b", "c", "a"]
    assert [row[0] for row in run(store, capsys, "threads", "--newest", "--limit", "2")] == [
        "b",
        "c",
    ]


def test_history_has_a_limit(sqlite_store: Store, capsys: Captured) -> None:
    config = None
    made = []
    for _ in range(4):
        config = sqlite_store.save(parent=config)
        made.append(id_of(config))
    shown = [row[0] for row in run(sqlite_store, capsys, "history", "t", "--limit", "2")]
    assert shown == [made[3], made[2]]


@pytest.mark.parametrize("command", ["threads", "history t"])
def test_a_limit_is_not_negative(capsys: Captured, command: str) -> None:
    with pytest.raises(SystemExit) as error:
        main([*command.split(), "--limit", "-1"])
    assert error.value.code == USAGE
    assert "'-1' isn't a number from 0 on" in capsys.readouterr().err


def test_a_slow_command_prints_no_warning(
    sqlite_store: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SLOW_SECONDS", 0)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's
    sqlite_store.save()
    assert run(sqlite_store, capsys, "threads")


# JSON


def test_json_is_strict(sqlite_store: Store, capsys: Captured) -> None:
    sqlite_store.save(values={"x": [float("nan"), {"a": float("-inf")}, float("inf"), 1.5]})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert main(["show", "t", "--json", "--url", sqlite_store.url]) == DONE
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["values"]["x"] == ["NaN", {"a": "-Infinity"}, "Infinity", 1.5]


# Terminals and pipes


WIDTHS = [60, 80, 100, 200]


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("rich", [True, False])
def test_an_id_is_never_cut_or_wrapped(
    sqlite_store: Store,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    rich: bool,
) -> None:
    name, other = str(uuid.uuid4()), str(uuid.uuid4())
    config = sqlite_store.save(name, {"words": ["one two"] * 30, "branch:to:node": None})
    sqlite_store.put_writes(config, [("__interrupt__", [{"value": "May I? " * 9}])], other)
    sqlite_store.save(name, ns=f"node:{other}", values={"x": [1]})
    monkeypatch.setattr(terminal, "is_pretty", lambda _=None: True)
    monkeypatch.setattr(terminal, "has_rich", lambda: rich)
    monkeypatch.setenv("COLUMNS", str(columns))
    for command, ids in (
        (["threads"], [name]),
        (["history", name], [id_of(config)[:13]]),
        (["history", name, "--all"], [f"node:{other}"]),
        (["show", name], [name, id_of(config)]),
    ):
        assert main([*command, "--url", sqlite_store.url]) == DONE
        out = capsys.readouterr().out
        lines = out.splitlines()
        assert all(each in out for each in ids), out
        too_long = [line for line in lines if len(line) > columns]
        assert not too_long or "--all" in command or columns < 80, out
        headings = lines[0].split()
        assert {"thread", "checkpoint", "name"} & {*headings}


def test_words_are_wrapped_and_never_broken() -> None:
    assert layout.wrapped("one two  three", 8) == ["one two", "three"]
    assert layout.wrapped("a" * 20, 8) == ["a" * 20]
    assert layout.wrapped("  indented\n\nmore", 80) == ["  indented", "", "more"]
    assert layout.width("日本") == 4


def test_a_terminal_without_rich_has_a_table_and_a_hint(
    sqlite_store: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_store.save("short")
    sqlite_store.save("a longer name")
    monkeypatch.setattr(terminal, "is_pretty", lambda _=None: True)
    monkeypatch.setattr(terminal, "has_rich", lambda: False)
    assert main(["threads", "--url", sqlite_store.url]) == DONE
    said = capsys.readouterr()
    heading, *lines = said.out.splitlines()
    assert heading.startswith("thread         steps")
    assert [line[15:20] for line in lines] == ["    1"] * 2
    assert "langgraph-checkpoint-sa[cli]" in said.err
    found = id_of(sqlite_store.found(thread("short")).config)
    assert main(["diff", "short", found, found, "--url", sqlite_store.url]) == DONE


def test_an_ascii_terminal_shows_everything(sqlite_store: Store) -> None:
    root = sqlite_store.save("t", {"x": "näme"})
    sqlite_store.save(parent=root)
    sqlite_store.save(parent=root)
    given = {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    shown = at_terminal("history", "t", "--url", sqlite_store.url, **given)
    assert "| *" in shown
    assert "*-'" in shown
    assert shown.isascii()
    command = ["show", "t", id_of(root), "--url", sqlite_store.url]
    shown = at_terminal(*command, **given)
    assert "n\\u00e4me" in shown
    with process(*command, "--json", stdout=subprocess.PIPE, env={**os.environ, **given}) as piped:
        assert piped.stdout is not None
        assert json.loads(piped.stdout.read())["values"]["x"] == "näme"


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_look_changes_nothing_and_leaves_no_file(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "app ü.db"
    with SQLAlchemySaver.from_conn_string(f"sqlite:///{path}") as saver:
        saver.setup()
        saver.put(thread("t"), empty_checkpoint(), {}, {})
    before = path.read_bytes()
    for url in (f"{driver}:///{path}", f"{driver}:///file:{path}?uri=true"):
        for command in ("threads", "history t", "show t", "stats", "verify", "current"):
            assert main([*command.split(), "--url", url]) == DONE
            assert [each.name for each in tmp_path.iterdir()] == ["app ü.db"]
    assert path.read_bytes() == before
    engine = engines.make_engine(engines.read_only(make_url(f"sqlite:///{path}")))
    with engine.connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.exec_driver_sql("DELETE FROM checkpoints")
    engine.dispose()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter.

    A pytest run closes pytest's own folder to other users when it starts,
    and some tests start one beside this test.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_folder_can_be_looked_at(open_folder: Path) -> None:
    """By a user who can't write there; root always can."""
    url = f"sqlite:///{open_folder / 'app.db'}"
    with SQLAlchemySaver.from_conn_string(url) as saver:
        saver.setup()
        saver.put(thread("t"), empty_checkpoint(), {}, {})
    (open_folder / "app.db").chmod(0o444)
    open_folder.chmod(0o555)
    program = (
        "import os, sys, sqlite3, checkpoint_sa.cli.look, checkpoint_sa.saver;"
        "from sqlalchemy.dialects.sqlite import pysqlite;"
        "from checkpoint_sa.cli import main;"
        "os.geteuid() or os.setgid(65534) or os.setuid(65534);"
        "given = ['--url', sys.argv[1]];"
        "sys.exit(main(['threads', *given]) or main(['verify', *given]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("t\t1\t")
    assert [path.name for path in open_folder.iterdir()] == ["app.db"]


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "checkpoint_sa", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def at_terminal(*arguments: str, **environment: str) -> str:
    """Run a command at a terminal and return what it prints."""
    ours, its = os.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", **environment}
    with process(*arguments, stdout=its, env=env) as running:
        os.close(its)
        said = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                part = os.read(ours, 4096)
            except OSError:  # it is done
                break
            said += part
            if not part:
                break
        os.close(ours)
    assert running.returncode == 0
    return said.decode()


def test_colours_are_for_terminals_and_not_with_no_color(sqlite_store: Store) -> None:
    sqlite_store.save(values={"branch:to:a": None})
    given = ["history", "t", "--url", sqlite_store.url]
    assert "\x1b[32m" in at_terminal(*given)
    assert "\x1b[3" not in at_terminal(*given, NO_COLOR="1")
    with process(*given, stdout=subprocess.PIPE) as piped:
        assert piped.stdout is not None
        assert "\x1b" not in piped.stdout.read()


def test_a_reader_that_has_seen_enough_is_no_error(sqlite_store: Store) -> None:
    sqlite_store.save()
    with process("threads", "--url", sqlite_store.url, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == ""
    assert running.returncode == 0


def test_a_probe_imports_no_rich(sqlite_store: Store) -> None:
    code = (
        "import sys; from checkpoint_sa.cli import main; main(sys.argv[1:]);"
        "print([name for name in ('rich', 'shtab', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "verify", "--url", sqlite_store.url],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[1:] == ["[]"]


# Extras


def test_stats_are_drawn(sqlite_store: Store, capsys: Captured, tmp_path: Path) -> None:
    sqlite_store.save()
    run(sqlite_store, capsys, "stats", "--plot", str(tmp_path / "days.png"))
    assert (tmp_path / "days.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_the_commands(capsys: Captured, shell: str) -> None:
    assert main(["completion", shell]) == DONE
    said = capsys.readouterr().out
    assert "history" in said
    assert "where" in said


def test_completion_without_shtab_names_the_extra(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == USAGE
    assert "langgraph-checkpoint-sa[cli]" in capsys.readouterr().err


def test_a_plot_without_matplotlib_names_the_extra(
    sqlite_store: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["stats", "--plot", "days.png", "--url", sqlite_store.url]) == USAGE
    assert "langgraph-checkpoint-sa[plot]" in capsys.readouterr().err


# Documentation


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    (actions,) = [
        action
        for action in parser()._actions  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    ]
    yield from actions.choices.items()


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_and_option_is_documented(name: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found, f"docs/cli.md has no section '## {name}'"
    common = page[: page.index("\n## ")]
    for action in dict(commands())[name]._actions:  # noqa: SLF001
        names = action.option_strings or [str(action.metavar or action.dest).upper()]
        if names[-1] not in common:
            assert names[-1] in found[1], f"docs/cli.md: '## {name}' doesn't say {names[-1]}"


def test_the_beginning_of_an_id_names_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with SQLAlchemySaver.from_conn_string(url) as saver:
        saver.setup()
        for checkpoint_id in ("1a-first", "1a-second", "2b"):
            checkpoint = empty_checkpoint()
            checkpoint["id"] = checkpoint_id
            saver.put(thread("t"), checkpoint, {}, {})
    assert main(["show", "t", "1a-f", "--url", url]) == DONE
    assert "1a-first" in capsys.readouterr().out
    assert main(["diff", "t", "1a-f", "2", "--url", url]) == DONE
    assert main(["show", "t", "1a", "--url", url]) == DATA
    assert "pass more of the id: 1a-" in capsys.readouterr().err
    assert main(["show", "t", "3", "--url", url]) == DATA


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (5, "human: 5"),
        ([{"type": "tool_use", "name": "search"}, {"type": "text", "text": "hi"}], "human: hi"),
        ([{"type": "image"}, "hi"], "human: [image] hi"),
    ],
)
def test_a_message_is_shown_whatever_its_content_is(content: Any, line: str) -> None:
    assert readable.conversation([{"role": "user", "content": content}]) == [line]


def test_an_interrupt_of_another_library_is_shown_as_it_is() -> None:
    waiting = readable.waiting([("task", INTERRUPT, "sure?"), ("task", INTERRUPT, {"ask": 1})])
    assert waiting == {"task": ["sure?", {"ask": 1}]}
