"""Items from LangGraph's own stores, and between our engines: values, namespaces and times."""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, patch

import pytest
import sqlite_vec
from databases import SYNC, bare_store, sync_url
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.store.base import PutOp
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import SqliteStore
from sqlalchemy.util import greenlet_spawn
from stores import KINDS, ONE_PER_SERVER, Store, exact, thread
from test_faults import put
from test_store import NAMESPACES, VALUES
from test_store_index import INDEX, embed

from checkpoint_sa import SchemaError
from checkpoint_sa.cli import DONE, main
from checkpoint_sa.store.moving import Copied, copy_items

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from memories import Memory, OpenTarget
    from sqlalchemy import Engine

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

__all__ = ["bare_store"]

NS = ("users", "1")
TEXTS = [f"{a} {b}" for a in ("tea", "lake", "sun") for b in ("blue", "green", "red")]


def peer_on(store: Store) -> AbstractContextManager[Any]:
    """Open LangGraph's own store on a database."""
    if store.kind.server == "":
        return SqliteStore.from_conn_string(str(store.engine.url.database))
    url = sync_url(store).replace("+psycopg", "").replace("+pymysql", "")
    if store.kind.server == "postgresql":
        return PostgresStore.from_conn_string(url)
    # The package imports a driver that isn't installed, in whichever of its modules.
    drivers = {name: MagicMock() for name in ("asyncmy", "asyncmy.cursors")}
    with patch.dict(sys.modules, drivers):
        from langgraph.store.mysql.pymysql import PyMySQLStore  # noqa: PLC0415
    return PyMySQLStore.from_conn_string(url.replace("mariadb://", "mysql://"))


def copied_into(memory: Memory, source: Engine, **options: Any) -> Copied:
    """Copy items into a store with a sync or an async driver."""
    if not memory.on.kind.is_async:
        return copy_items(source, memory.store, **options)
    return memory.on.run(greenlet_spawn(copy_items, source, memory.store, **options))  # type: ignore[no-any-return]


@pytest.mark.parametrize("bare_store", SYNC, indirect=True)
def test_items_of_langgraphs_stores_are_brought(bare_store: Store, open_target: OpenTarget) -> None:
    values = {"a": {"x": [1, None, "ü😀", 1.5]}, "b": {"deep": {"y": True}}, "c": {}}
    with peer_on(bare_store) as peer:
        peer.setup()
        for key, value in values.items():
            peer.put((*NS, "x y"), key, value)
        theirs = {item.key: item for item in peer.search(NS)}
    memory = open_target()
    assert copy_items(bare_store.engine, memory.store) == Copied(3, 0)
    for key, value in values.items():
        item = memory.found((*NS, "x y"), key)
        assert exact(item.value) == exact(value)
        if bare_store.kind.server in ("", "postgresql"):
            ours, peers = (
                at.replace(tzinfo=None) for at in (item.created_at, theirs[key].created_at)
            )
            assert abs(ours - peers) < timedelta(seconds=1)
    memory.put((*NS, "x y"), "a", {"ours": 1})
    memory.delete((*NS, "x y"), "b")
    assert copy_items(bare_store.engine, memory.store) == Copied(1, 2)
    assert memory.found((*NS, "x y"), "a").value == {"ours": 1}


@pytest.mark.parametrize("migrated_store", SYNC, indirect=True)
def test_items_of_ours_are_copied_exactly_in_both_directions(
    memory: Memory, open_target: OpenTarget
) -> None:
    other = open_target()
    memory.batch([PutOp(NS, name, value) for name, value in VALUES.items()])
    memory.batch([PutOp(namespace, "k", {}, ttl=500) for namespace in NAMESPACES])
    memory.put(NS, "gone", {}, ttl=5)
    memory.expire("gone")
    before = {(i.namespace, i.key): i for i in memory.search((), limit=999, refresh_ttl=False)}
    count = len(VALUES) + len(NAMESPACES)
    assert copy_items(memory.on.engine, other.store) == Copied(count, 0)
    memory.on.sql("DELETE FROM store")
    assert copy_items(other.on.engine, memory.store) == Copied(count, 0)
    after = {(i.namespace, i.key): i for i in memory.search((), limit=999, refresh_ttl=False)}
    assert after.keys() == before.keys()
    for key, item in before.items():
        assert exact(after[key].value) == exact(item.value)
        assert after[key].created_at == item.created_at
        assert after[key].updated_at == item.updated_at
    assert memory.minutes_left() == pytest.approx([500] * len(NAMESPACES), abs=2)


@pytest.mark.parametrize("change", [{"ttl": 500}, {"ttl": None}])
def test_a_second_copy_brings_what_was_put_later(
    memory: Memory, open_target: OpenTarget, change: dict[str, Any]
) -> None:
    other = open_target()
    for key in ("changed", "refreshed", "same", "ours"):
        other.put(NS, key, {"a": 1, "nan": math.nan}, ttl=5)
    assert copied_into(memory, other.on.engine, dry_run=True) == Copied(4, 0)
    assert memory.search(()) == []
    assert copied_into(memory, other.on.engine) == Copied(4, 0)
    other.put(NS, "changed", {"a": 2}, **change)
    other.on.sql(
        "UPDATE store SET expires_at = '2100-01-01 00:00:00.000000' WHERE key = 'refreshed'"
    )
    memory.put(NS, "ours", {"a": 3})
    assert copied_into(memory, other.on.engine, dry_run=True) == Copied(2, 2)
    assert memory.found(NS, "changed", refresh_ttl=False).value["a"] == 1
    for expected in (Copied(2, 2), Copied(0, 4)):
        assert copied_into(memory, other.on.engine) == expected
        assert memory.found(NS, "ours").value == {"a": 3}
        found = memory.found(NS, "changed", refresh_ttl=False)
        theirs = other.found(NS, "changed", refresh_ttl=False)
        assert found.value == theirs.value == {"a": 2}
        assert found.updated_at == theirs.updated_at
        left = sorted(memory.minutes_left())
        assert left[0] == pytest.approx(5, abs=1)
        assert left[-1] > 30 * 365 * 24 * 60
        assert len(left) == (2 if change["ttl"] is None else 3)


def put_texts(memory: Memory, texts: Iterable[str]) -> None:
    memory.batch([PutOp(NS, text, {"text": text}) for text in texts])


def ranked(memory: Memory, query: str = "tea blue") -> list[tuple[str, float]]:
    """Return the keys of the items that a query finds, with their scores."""
    found = memory.search(NS, query=query, limit=99)
    return [(item.key, round(item.score or 0.0, 4)) for item in found]


@pytest.mark.parametrize("migrated_store", SYNC, indirect=True)
def test_vectors_are_copied_in_both_directions(memory: Memory, open_target: OpenTarget) -> None:
    memory, other = memory.using(index=INDEX), open_target().using(index=INDEX)
    put_texts(memory, TEXTS)
    memory.put(NS, "gone", {"text": "tea blue"}, ttl=5)
    memory.expire("gone")
    memory.put(NS, "plain", {"text": "tea blue"}, index=False)
    before = ranked(memory)
    assert copied_into(other, memory.on.engine, dry_run=True).vectors == len(TEXTS)
    assert copied_into(other, memory.on.engine).vectors == len(TEXTS)
    assert ranked(other) == before
    memory.on.sql("DELETE FROM store")
    memory.on.sql("DELETE FROM store_embeddings")
    assert copied_into(memory, other.on.engine).vectors == len(TEXTS)
    assert ranked(memory) == before


def test_vectors_change_with_their_items(memory: Memory, open_target: OpenTarget) -> None:
    memory, other = memory.using(index=INDEX), open_target().using(index=INDEX)
    put_texts(other, ["a", "b", "ours", "plain"])
    copied_into(memory, other.on.engine)
    other.put(NS, "a", {"text": "tea blue"})
    other.put(NS, "plain", {"text": "tea blue"}, index=False)
    other.put(NS, "ours", {"text": "tea blue"})
    time.sleep(0.01)  # the clock of SQLite counts milliseconds
    memory.put(NS, "ours", {"text": "lake"})
    copied_into(memory, other.on.engine)
    assert ranked(memory)[0] == ("a", 1.0)
    assert dict(ranked(memory))["ours"] < 1
    assert "plain" not in dict(ranked(memory))


def test_vectors_of_sqlitestore_are_brought(
    memory: Memory, open_target: OpenTarget, tmp_path: Path
) -> None:
    memory = memory.using(index=INDEX)
    source = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / 'items.db'}")
    with SqliteStore.from_conn_string(str(tmp_path / "items.db")) as peer:
        peer.setup()
        for migration in peer.VECTOR_MIGRATIONS:  # with an index, setup() needs an extension
            source.sql(migration)
        for text in TEXTS:
            peer.put((*NS, "x"), text, {"text": text})
            source.sql(
                "INSERT INTO store_vectors (prefix, key, field_name, embedding)"
                " VALUES ('users.1.x', :key, 'text', :embedding)",
                key=text,
                embedding=sqlite_vec.serialize_float32(embed([text])[0]),
            )
    assert copied_into(memory, source.engine) == Copied(len(TEXTS), 0, len(TEXTS))
    own = open_target().using(index=INDEX)
    put_texts(own, TEXTS)
    assert ranked(memory) == ranked(own)
    source.close()


@pytest.mark.parametrize("migrated_store", SYNC, indirect=True)
def test_whole_seconds_hide_no_change(memory: Memory, tmp_path: Path) -> None:
    with SqliteStore.from_conn_string(str(tmp_path / "items.db")) as peer:
        peer.setup()
        source = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / 'items.db'}")
        peer.put(NS, "k", {"a": 1})
        source.sql("UPDATE store SET updated_at = '2026-01-01 00:00:00'")
        assert copy_items(source.engine, memory.store) == Copied(1, 0)
        peer.put(NS, "k", {"a": 2})
        source.sql("UPDATE store SET updated_at = '2026-01-01 00:00:00'")
    assert copy_items(source.engine, memory.store) == Copied(1, 0)
    assert copy_items(source.engine, memory.store) == Copied(0, 1)
    assert memory.found(NS, "k").value == {"a": 2}
    source.close()


def moved(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, int]:
    assert main([*words, "--json"]) == DONE
    found: dict[str, int] = json.loads(capsys.readouterr().out)
    return found


def test_copy_takes_items_along(
    memory: Memory, open_target: OpenTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    other = open_target()
    put(other.on, "1")
    other.put(NS, "k", {"a": 1}, ttl=500)
    other.put(NS, "l", {"a": 2})
    words = ["copy", "--from", other.on.url, "--to", memory.on.url]
    for count, options in ((2, ["--dry-run"]), (2, []), (0, [])):
        found = moved(capsys, *words, *options)
        assert (found["items"], found["items_present"]) == (count, 2 - count)
        assert found["threads"] == (1 if count else 0)
        assert memory.on.count("store") == (0 if options else 2)
    assert memory.found(NS, "l").value == {"a": 2}
    assert memory.minutes_left() == pytest.approx([500], abs=1)
    other.put(NS, "m", {})
    assert moved(capsys, *words, "a")["items"] == 0  # threads are named
    assert moved(capsys, *words)["items"] == 1


@pytest.mark.parametrize(
    "migrated_store",
    ["pg-psycopg-async", "pg-asyncpg", "mariadb-async", "mysql-async"],
    indirect=True,
)
def test_copy_reads_items_with_each_async_driver(
    memory: Memory, open_target: OpenTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    other = open_target()
    memory.batch([PutOp(NS, f"{i}", {"i": i}) for i in range(450)])
    assert moved(capsys, "copy", "--from", memory.on.url, "--to", other.on.url)["items"] == 450
    assert len(other.search(NS, limit=999)) == 450


def test_import_brings_the_items_of_sqlitestore(
    memory: Memory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "peers.db")
    with SqliteStore.from_conn_string(file) as peer:
        peer.setup()
        peer.put(NS, "k", {"a": [1, None, "ü😀", 1.5]}, ttl=500)
        peer.put(NS, "l", {"a": 2})
    words = ["import", "--from", f"sqlite:///{file}", "--to", memory.on.url]
    for count, options in ((2, ["--dry-run"]), (2, []), (0, [])):
        found = moved(capsys, *words, *options)
        assert (found["items"], found["items_present"]) == (count, 2 - count)
        assert found["threads"] == 0
    assert memory.found(NS, "k", refresh_ttl=False).value == {"a": [1, None, "ü😀", 1.5]}
    assert memory.minutes_left() == pytest.approx([500], abs=1)
    with SqliteSaver.from_conn_string(file) as saver:
        saver.put(thread(), empty_checkpoint(), {"source": "input", "step": -1}, {})
    with SqliteStore.from_conn_string(file) as peer:
        peer.delete(NS, "l")
        peer.put(NS, "m", {})
    found = moved(capsys, *words)
    assert (found["threads"], found["items"], found["items_present"]) == (1, 1, 1)


@pytest.mark.parametrize("bare_store", ["mariadb-pymysql", "mysql-pymysql"], indirect=True)
def test_import_brings_the_items_of_mysqlstore(
    bare_store: Store, open_target: OpenTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    with peer_on(bare_store) as peer:
        peer.setup()
        peer.put(NS, "k", {"a": 1})
    memory = open_target()
    words = ["import", "--from", bare_store.url, "--to", memory.on.url]
    assert moved(capsys, *words)["items"] == 1
    assert moved(capsys, *words)["items_present"] == 1
    assert memory.found(NS, "k").value == {"a": 1}


def test_an_import_without_either_is_refused(
    open_target: OpenTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = open_target()
    source = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / 'source.db'}")
    source.sql("CREATE TABLE store (id INTEGER)")
    assert main(["import", "--from", source.url, "--to", memory.on.url]) != DONE
    assert "no table `checkpoints`" in capsys.readouterr().err
    source.close()


def test_copy_leaves_an_applications_own_table_alone(
    open_target: OpenTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = open_target(), open_target()
    put(one.on, "1")
    for memory in (one, other):
        memory.on.sql("DROP TABLE store_embeddings")
        memory.on.sql("DROP TABLE store")
        memory.on.sql("CREATE TABLE store (id INTEGER)")
    found = moved(capsys, "copy", "--from", one.on.url, "--to", other.on.url)
    assert (found["threads"], found["items"]) == (1, 0)


def test_the_command_copies(
    open_target: OpenTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SqliteStore.from_conn_string(str(tmp_path / "items.db")) as peer:
        peer.setup()
        peer.put(NS, "k", {"a": 1}, ttl=5)
        peer.put(NS, "l", {"a": 2})
    memory = open_target()
    urls = ["--from", f"sqlite:///{tmp_path / 'items.db'}", "--to", memory.on.url]
    for options in (["--dry-run"], []):
        assert memory.search(()) == []
        assert main(["store", "copy", *urls, *options]) == DONE
        assert capsys.readouterr().out == "2\t0\t0\n"
    assert main(["store", "copy", *urls, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out) == {"items": 0, "present": 2, "vectors": 0}
    assert memory.minutes_left() == pytest.approx([5], abs=1)


def test_the_command_makes_no_file_by_a_typo(
    open_target: OpenTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = open_target()
    missing = tmp_path / "missing.db"
    for urls in (
        ["--from", f"sqlite:///{missing}", "--to", memory.on.url],
        ["--from", memory.on.url, "--to", f"sqlite:///{missing}"],
    ):
        assert main(["store", "copy", *urls]) != DONE
        assert "There is no SQLite file" in capsys.readouterr().err
    assert not missing.exists()


def test_the_command_takes_async_drivers(
    open_target: OpenTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = open_target()
    other = open_target()
    memory.put(NS, "k", {"a": 1})
    urls = [one.on.url.replace("+pysqlite", "+aiosqlite") for one in (memory, other)]
    assert main(["store", "copy", "--from", urls[0], "--to", urls[1]]) == DONE
    assert capsys.readouterr().out == "1\t0\t0\n"
    assert other.found(NS, "k").value == {"a": 1}


def test_a_source_without_such_a_table_is_refused(open_target: OpenTarget, tmp_path: Path) -> None:
    memory = open_target()
    source = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / 'source.db'}")
    with pytest.raises(SchemaError, match="no table `store`"):
        copy_items(source.engine, memory.store)
    source.sql("CREATE TABLE store (id INTEGER)")
    with pytest.raises(SchemaError, match="neither ours nor one of LangGraph's"):
        copy_items(source.engine, memory.store)
    source.close()
