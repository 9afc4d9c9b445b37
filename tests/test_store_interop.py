"""Beside LangGraph's PostgresStore on one table: at each of its versions, before it and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from databases import as_admin, bare_store, sync_twin, sync_url
from langgraph.store.postgres import PostgresStore
from langgraph.store.postgres.base import MIGRATIONS
from langgraph.store.sqlite import SqliteStore
from memories import Memory
from stores import Store, exact

from checkpoint_sa import SchemaError, migrate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["bare_store"]

NS = ("users", "1")

on_postgresql = pytest.mark.parametrize(
    "bare_store", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"], indirect=True
)


def peer_of(store: Store, **options: Any) -> AbstractContextManager[PostgresStore]:
    url = sync_url(store).replace("+psycopg", "")
    return PostgresStore.from_conn_string(url, **options)


def make_peer_tables(store: Store, version: int) -> None:
    """Run PostgresStore's migrations up to one version, and store an item as it does."""
    admin = Store(sync_twin(store.kind), sync_url(store))
    as_admin(admin, "CREATE TABLE store_migrations (v INTEGER PRIMARY KEY)")
    for number, migration in enumerate(MIGRATIONS[: version + 1]):
        as_admin(admin, migration, f"INSERT INTO store_migrations (v) VALUES ({number})")
    as_admin(admin, """INSERT INTO store VALUES ('users.1', 'old', '{"a": 1}')""")
    admin.close()


def table_of(store: Store) -> list[Any]:
    """Read what a migration could change."""
    return [
        *store.sql(
            "SELECT column_name, data_type, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_name = 'store' ORDER BY 1"
        ),
        *store.sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'store' ORDER BY 1"),
    ]


@on_postgresql
def test_the_table_is_postgresstores_own(bare_store: Store) -> None:
    with peer_of(bare_store) as peer:
        peer.setup()
    theirs = table_of(bare_store)
    bare_store.sql("DROP TABLE store, store_migrations")
    bare_store.setup()
    assert table_of(bare_store) == theirs


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
@on_postgresql
def test_every_version_of_postgresstore_is_adopted(bare_store: Store, version: int) -> None:
    make_peer_tables(bare_store, version)
    with bare_store.statements() as sent:
        bare_store.setup()
    built = [s for s in sent.texts if s.startswith("CREATE INDEX") and "_store_" in s]
    assert all(s.startswith("CREATE INDEX CONCURRENTLY") for s in built)
    memory = Memory(bare_store)
    assert memory.found(NS, "old").value == {"a": 1}
    memory.put(NS, "new", {"a": 2}, ttl=5)
    adopted = table_of(bare_store)
    with peer_of(bare_store) as peer:
        peer.setup()
        assert {item.key for item in peer.search(NS)} == {"old", "new"}
        peer.put(NS, "theirs", {"a": 3})
    assert table_of(bare_store) == adopted
    assert bare_store.sql("SELECT max(v) FROM store_migrations") == [(len(MIGRATIONS) - 1,)]
    assert sorted(memory.keys(NS)) == ["new", "old", "theirs"]


@on_postgresql
def test_postgresstore_comes_after_us(bare_store: Store) -> None:
    bare_store.setup()
    memory = Memory(bare_store)
    memory.put(NS, "ours", {"a": 1})
    before = table_of(bare_store)
    with peer_of(bare_store) as peer:
        peer.setup()
        peer.setup()
        assert table_of(bare_store) == before
        item = peer.get(NS, "ours")
        assert item is not None
        assert item.value == {"a": 1}
    migrate.downgrade(sync_url(bare_store).replace("asyncpg", "psycopg"), "checkpoint_sa_0005")
    assert bare_store.count("store") == 1  # it is PostgresStore's as well


@on_postgresql
def test_both_read_write_and_delete_the_same_items(bare_store: Store) -> None:
    bare_store.setup()
    memory = Memory(bare_store)
    with peer_of(bare_store) as peer:
        peer.setup()
        values: dict[str, Any] = {"a": {"x": [1, None, "ü😀", 1.5]}, "b": {"deep": {"y": True}}}
        for key, value in values.items():
            peer.put((*NS, "a b%_"), key, value)
        for key, value in values.items():
            ours = memory.found((*NS, "a b%_"), key)
            theirs = peer.get((*NS, "a b%_"), key)
            assert theirs is not None
            assert exact(ours.value) == exact(theirs.value) == exact(value)
            assert (ours.created_at, ours.updated_at) == (theirs.created_at, theirs.updated_at)
        assert memory.list_namespaces() == peer.list_namespaces() == [(*NS, "a b%_")]
        memory.put(NS, "c", {"kind": "note"})
        assert [item.key for item in peer.search(NS, filter={"kind": "note"})] == ["c"]
        assert memory.keys(NS) == [item.key for item in peer.search(NS)]
        memory.delete((*NS, "a b%_"), "a")
        assert peer.get((*NS, "a b%_"), "a") is None
        peer.delete(NS, "c")
        assert memory.get(NS, "c") is None


@on_postgresql
def test_a_put_of_postgresstore_replaces_a_value_that_json_cannot_hold(bare_store: Store) -> None:
    bare_store.setup()
    memory = Memory(bare_store)
    with peer_of(bare_store) as peer:
        memory.put(NS, "k", {"big": 2**70, "text": "\0", "plain": 1})
        item = peer.get(NS, "k")
        assert item is not None
        assert item.value["plain"] == 1
        peer.put((*NS, "copy"), "k", item.value)  # a copy has all of it
        assert memory.found((*NS, "copy"), "k").value == {"big": 2**70, "text": "\0", "plain": 1}
        peer.put(NS, "k", {"plain": 2})
    assert memory.found(NS, "k").value == {"plain": 2}


@on_postgresql
def test_both_know_the_same_times_to_live(bare_store: Store) -> None:
    bare_store.setup()
    memory = Memory(bare_store)
    with peer_of(bare_store, ttl={"omit_expired": True}) as peer:
        memory.put(NS, "ours", {}, ttl=5)
        peer.put(NS, "theirs", {}, ttl=5)
        bare_store.sql("UPDATE store SET ttl_minutes = ttl_minutes * 10")
        assert peer.get(NS, "ours", refresh_ttl=True)
        assert memory.get(NS, "theirs", refresh_ttl=True)
        assert memory.minutes_left() == pytest.approx([50, 50], abs=1)
        for key in ("ours", "theirs"):
            memory.expire(key)
            assert peer.get(NS, key) is None
            assert memory.get(NS, key) is None
        assert peer.sweep_ttl() == 2
        memory.put(NS, "ours", {}, ttl=5)
        memory.expire("ours")
        assert memory.sweep() == 1


@on_postgresql
def test_escaped_namespaces_are_below_the_same_ones_for_postgresstore(bare_store: Store) -> None:
    bare_store.setup()
    Memory(bare_store).put((*NS, "a.b"), "k", {})
    with peer_of(bare_store) as peer:
        (item,) = peer.search(NS)
        assert item.namespace == (*NS, "", "a%002Eb")


@on_postgresql
def test_deleting_an_item_deletes_its_vectors(bare_store: Store) -> None:
    """PostgresStore's foreign key does, as this one on a table without vectors."""
    bare_store.setup()
    memory = Memory(bare_store)
    memory.put(NS, "k", {})
    bare_store.sql(
        "CREATE TABLE store_vectors (prefix text, key text, field_name text, PRIMARY KEY"
        " (prefix, key, field_name), FOREIGN KEY (prefix, key) REFERENCES store(prefix, key)"
        " ON DELETE CASCADE)"
    )
    bare_store.sql("INSERT INTO store_vectors VALUES ('users.1', 'k', '$')")
    memory.put(NS, "k", {"a": 1})
    assert bare_store.count("store_vectors") == 1
    memory.delete(NS, "k")
    assert bare_store.count("store_vectors") == 0


def test_a_table_of_sqlitestore_is_left_to_it(sqlite_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "both.db"
    with SqliteStore.from_conn_string(str(file)) as peer:
        peer.setup()
        peer.put(NS, "k", {"a": 1})
    store = Store(sqlite_store.kind, f"sqlite:///{file}")
    try:
        store.setup()
        store.save("t", {"a": 1})
        with pytest.raises(SchemaError, match="another layout"):
            Memory(store).get(NS, "k")
    finally:
        store.close()
    with SqliteStore.from_conn_string(str(file)) as peer:
        item = peer.get(NS, "k")
        assert item is not None
        assert item.value == {"a": 1}
