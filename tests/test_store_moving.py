"""Items from LangGraph's own stores, and between our engines: values, namespaces and times."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, patch

import pytest
from databases import SYNC, bare_store, sync_url
from langgraph.store.base import PutOp
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import SqliteStore
from memories import Memory
from stores import KINDS, ONE_PER_SERVER, Store, exact
from test_store import NAMESPACES, VALUES

from checkpoint_sa import SchemaError
from checkpoint_sa.cli import DONE, main
from checkpoint_sa.store.moving import Copied, copy_items

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

__all__ = ["bare_store"]

NS = ("users", "1")


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


def target_in(folder: Path) -> Memory:
    store = Store(KINDS["sqlite"], f"sqlite:///{folder / 'target.db'}")
    store.setup()
    return Memory(store)


@pytest.mark.parametrize("bare_store", SYNC, indirect=True)
def test_items_of_langgraphs_stores_are_brought(bare_store: Store, tmp_path: Path) -> None:
    values = {"a": {"x": [1, None, "ü😀", 1.5]}, "b": {"deep": {"y": True}}, "c": {}}
    with peer_on(bare_store) as peer:
        peer.setup()
        for key, value in values.items():
            peer.put((*NS, "x y"), key, value)
        theirs = {item.key: item for item in peer.search(NS)}
    memory = target_in(tmp_path)
    assert copy_items(bare_store.engine, memory.store) == Copied(3, 0)
    for key, value in values.items():
        item = memory.found((*NS, "x y"), key)
        assert exact(item.value) == exact(value)
        if bare_store.kind.server in ("", "postgresql"):
            ours, peers = (
                time.replace(tzinfo=None) for time in (item.created_at, theirs[key].created_at)
            )
            assert abs(ours - peers) < timedelta(seconds=1)
    memory.put((*NS, "x y"), "a", {"ours": 1})
    memory.delete((*NS, "x y"), "b")
    assert copy_items(bare_store.engine, memory.store) == Copied(1, 2)
    assert memory.found((*NS, "x y"), "a").value == {"ours": 1}
    memory.on.close()


@pytest.mark.parametrize("migrated_store", SYNC, indirect=True)
def test_items_of_ours_are_copied_exactly_in_both_directions(
    memory: Memory, tmp_path: Path
) -> None:
    other = target_in(tmp_path)
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
    other.on.close()


def test_the_command_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SqliteStore.from_conn_string(str(tmp_path / "items.db")) as peer:
        peer.setup()
        peer.put(NS, "k", {"a": 1}, ttl=5)
        peer.put(NS, "l", {"a": 2})
    memory = target_in(tmp_path)
    urls = ["--from", f"sqlite:///{tmp_path / 'items.db'}", "--to", memory.on.url]
    assert main(["store", "copy", *urls]) == DONE
    assert capsys.readouterr().out == "2\t0\n"
    assert main(["store", "copy", *urls, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out) == {"items": 0, "present": 2}
    assert memory.minutes_left() == pytest.approx([5], abs=1)
    memory.on.close()


def test_the_command_makes_no_file_by_a_typo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = target_in(tmp_path)
    missing = tmp_path / "missing.db"
    for urls in (
        ["--from", f"sqlite:///{missing}", "--to", memory.on.url],
        ["--from", memory.on.url, "--to", f"sqlite:///{missing}"],
    ):
        assert main(["store", "copy", *urls]) != DONE
        assert "There is no SQLite file" in capsys.readouterr().err
    assert not missing.exists()
    memory.on.close()


def test_the_command_takes_async_drivers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    memory = target_in(tmp_path)
    other = target_in(tmp_path / "other")
    memory.put(NS, "k", {"a": 1})
    urls = [one.on.url.replace("+pysqlite", "+aiosqlite") for one in (memory, other)]
    assert main(["store", "copy", "--from", urls[0], "--to", urls[1]]) == DONE
    assert capsys.readouterr().out == "1\t0\n"
    assert other.found(NS, "k").value == {"a": 1}
    for one in (memory, other):
        one.on.close()


def test_a_source_without_such_a_table_is_refused(tmp_path: Path) -> None:
    memory = target_in(tmp_path)
    source = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / 'source.db'}")
    with pytest.raises(SchemaError, match="no table `store`"):
        copy_items(source.engine, memory.store)
    source.sql("CREATE TABLE store (id INTEGER)")
    with pytest.raises(SchemaError, match="neither ours nor one of LangGraph's"):
        copy_items(source.engine, memory.store)
    source.close()
    memory.on.close()
