"""The row with which upgrades of a cluster take turns, on servers that are taken for clusters.

The clusters themselves are in test_cluster_upgrades.py.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from databases import bare_store, on_connection
from sqlalchemy import inspect, text
from sqlalchemy.pool import QueuePool
from stores import ALL_DRIVERS, KINDS, ONE_PER_SERVER, Store

from checkpoint_sa import SchemaError, migrate
from checkpoint_sa.engine import clusters, locks, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["bare_store"]

on_mysql_family = pytest.mark.parametrize(
    "bare_store",
    [
        name
        for name, kind in KINDS.items()
        if kind.server in ("mariadb", "mysql") and (ALL_DRIVERS or name in ONE_PER_SERVER)
    ],
    indirect=True,
)
CURRENT = clusters.Current("lock_wait_timeout", "50")  # a setting that a single server has


@pytest.fixture
def as_cluster(bare_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store on a database that is taken for a cluster's; its processes are quick to give up."""
    monkeypatch.setattr(clusters, "current_reads", lambda _: CURRENT)
    monkeypatch.setattr(clusters, "_BEAT_SECONDS", 0.1)
    monkeypatch.setattr(clusters, "_SURE_SECONDS", 1.0)
    monkeypatch.setattr(clusters, "SILENT_SECONDS", 2.0)
    yield bare_store
    assert bare_store.sql("SELECT @@SESSION.lock_wait_timeout") != [(50,)]


def leave_a_row(store: Store) -> None:
    """Leave what a process leaves that is killed while it migrates."""
    store.sql(clusters.MAKE)
    store.sql(f"INSERT INTO {clusters.LOCK_TABLE} VALUES (1, 'gone', 'connection 1 at x', 7)")


def rows(store: Store) -> list[Any]:
    return store.sql(f"SELECT holder FROM {clusters.LOCK_TABLE}")


def upgrade(store: Store, **options: Any) -> None:
    on_connection(store, lambda connection: migrate.upgrade(connection, **options))


@on_mysql_family
def test_a_single_server_has_no_such_table(bare_store: Store) -> None:
    upgrade(bare_store)
    names = on_connection(bare_store, lambda connection: inspect(connection).get_table_names())
    assert clusters.LOCK_TABLE not in names


@on_mysql_family
def test_the_row_is_there_during_an_upgrade_and_gone_afterwards(as_cluster: Store) -> None:
    upgrade(as_cluster, revision="checkpoint_sa_0001")
    assert rows(as_cluster) == []
    upgrade(as_cluster)
    assert rows(as_cluster) == []
    assert on_connection(as_cluster, migrate.current) == migrate.HEAD


@on_mysql_family
def test_the_row_of_a_process_that_died_is_taken_over(as_cluster: Store) -> None:
    leave_a_row(as_cluster)
    begin = time.monotonic()
    upgrade(as_cluster)
    assert time.monotonic() - begin > clusters.SILENT_SECONDS
    assert rows(as_cluster) == []


@on_mysql_family
def test_the_row_of_one_that_lives_is_not_and_says_whose_it_is(as_cluster: Store) -> None:
    # Its pool has one connection, which migrates: the sign of life has another one.
    assert isinstance(as_cluster.root.pool, QueuePool)
    other = Store(as_cluster.kind, as_cluster.url, pool_size=1, max_overflow=0)
    began, ends = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        with locks.migration_lock(connection):
            began.set()
            while not ends.is_set():
                waiting.pause(connection, 0.05)
            connection.execute(text("SELECT 1"))

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(on_connection, other, hold)
        try:
            assert began.wait(30)
            named = r"for 4 seconds: connection \d+ at .*, user root@"
            with pytest.raises(SchemaError, match=named):
                upgrade(as_cluster, lock_timeout=4)
            assert len(rows(as_cluster)) == 1
        finally:
            ends.set()
        holding.result(30)
    other.close()
    upgrade(as_cluster)


@on_mysql_family
def test_who_has_lost_the_row_sends_no_statement_any_more(as_cluster: Store) -> None:
    def lose(connection: Connection) -> None:
        with locks.migration_lock(connection):
            connection.execute(text("SELECT 1"))
            with connection.engine.connect() as thief:
                thief.execute(text(f"UPDATE {clusters.LOCK_TABLE} SET holder = 'thief'"))
                thief.commit()
            waiting.pause(connection, 1.5)
            with pytest.raises(SchemaError, match="another process may have taken over"):
                connection.execute(text("CREATE TABLE not_this (id INTEGER)"))

    on_connection(as_cluster, lose)
    assert rows(as_cluster) == [("thief",)]
    assert as_cluster.sql("SHOW TABLES LIKE 'not_this'") == []


class Answers:
    """A connection to a server with these settings."""

    def __init__(self, **settings: str) -> None:
        self.settings = settings

    def execute(self, _: object) -> list[tuple[str, str]]:
        return [*self.settings.items()]


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"wsrep_on": "ON", "wsrep_provider": "libgalera_smm.so"}, "wsrep_sync_wait"),
        ({"wsrep_on": "ON", "wsrep_provider": "none"}, None),
        ({"wsrep_on": "OFF", "wsrep_provider": "libgalera_smm.so"}, None),
        (
            {
                "group_replication_group_name": "group",
                "group_replication_single_primary_mode": "OFF",
            },
            "group_replication_consistency",
        ),
        (
            {
                "group_replication_group_name": "group",
                "group_replication_single_primary_mode": "ON",
            },
            None,
        ),
        ({"group_replication_group_name": ""}, None),
    ],
)
def test_a_cluster_is_known_by_the_settings_of_its_nodes(
    settings: dict[str, str], setting: str | None
) -> None:
    server: Any = Answers(**settings)
    found = clusters.current_reads(server)
    assert (found and found[0]) == setting
