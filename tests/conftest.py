"""Fixtures: servers that start when a test needs them, and one store for each engine."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

import pytest
from clusters import CLUSTERS, Cluster, HAProxy
from memories import Memory, OpenTarget
from servers import MariaDB, MySQL, PostgreSQL, Server
from stores import ALL_DRIVERS, KINDS, Kind, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# It needs Python 3.13: `nox -s dqlite` has it.
collect_ignore = [] if find_spec("sqlalchemydqlite") else ["test_cluster_dqlite.py"]

SERVERS: dict[str, type[Server]] = {
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "mysql": MySQL,
}

StartServer = "Callable[[str], Server]"


Found = TypeVar("Found", Server, Cluster)


def found_or_skipped(name: str, found: Found | str) -> Found:
    """Return a server, or skip the test where its programs are missing."""
    if isinstance(found, str):
        if os.environ.get("CHECKPOINT_SA_REQUIRE_ENGINES") == "1":
            pytest.fail(f"{name} must not be skipped here: {found}")
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[[str], Server]]:
    """Start a server once, by name; skip the test where its programs are missing.

    CHECKPOINT_SA_REQUIRE_ENGINES=1 makes that a failure: nothing is skipped in CI.
    """
    running: dict[str, Server] = {}

    def start(name: str) -> Server:
        if name not in running:
            running[name] = found_or_skipped(name, SERVERS[name].find()).start()
        return running[name]

    yield start
    for server in running.values():
        server.stop()


@pytest.fixture(scope="session", params=list(CLUSTERS))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of three nodes; for tests that are marked `cluster`."""
    with found_or_skipped(request.param, CLUSTERS[request.param].find()) as running:
        yield running


DRIVERS = {
    "mysql": {"sync": "mysql-pymysql", "async": "mysql-async"},
    "patroni": {"sync": "pg-psycopg", "async": "pg-asyncpg"},
}
"""The drivers of each kind of cluster, sync and async: names of KINDS."""


def on(*clusters: str) -> pytest.MarkDecorator:
    """Run a test on clusters, with a sync and an async driver: `cluster` and `kind`."""
    pairs = [
        pytest.param(cluster, KINDS[name], id=f"{cluster}-{colour}")
        for cluster in clusters
        for colour, name in DRIVERS.get(cluster, DRIVERS["mysql"]).items()
    ]
    # Of the scope of a test, as they are by default, they would start the cluster for each test.
    return pytest.mark.parametrize(
        ("cluster", "kind"), pairs, indirect=["cluster"], scope="session"
    )


def proxy_before(cluster: Cluster, *, in_turn: bool = False) -> HAProxy:
    """Return a proxy, not yet started: to the first node that takes writes, or to all in turn."""
    proxy = found_or_skipped("haproxy", HAProxy.find())
    assert isinstance(proxy, HAProxy)
    proxy.upstream, proxy.in_turn = cluster, in_turn
    return proxy


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start each cluster once; leave out the second drivers of modules marked `kinds`."""
    items.sort(key=_cluster_of)
    if ALL_DRIVERS:
        return
    left_out = [item for item in items if _has_second_driver(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in {*left_out}]


def _cluster_of(item: pytest.Item) -> int:
    name = getattr(item, "callspec", None) and item.callspec.params.get("cluster")  # type: ignore[attr-defined]
    return list(CLUSTERS).index(name) if name else -1


def pytest_collection_finish() -> None:
    """Keep modules and tests out of garbage collections, which took a tenth of the CPU."""
    gc.collect()
    gc.freeze()


def _has_second_driver(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("kinds")
    if marker is None or any("_store" in str(m.args[0]) for m in item.iter_markers("parametrize")):
        return False  # a test that names its engines gets them
    parameters = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
    return any(
        (parameters or {}).get(fixture, marker.args[0][0]) not in marker.args[0]
        for fixture in ("migrated_store", "bare_store")
    )


def url_of(kind: Kind, start: Callable[[str], Server], folder: Path) -> str:
    """Return the URL of an engine under test."""
    if not kind.server:
        return f"{kind.driver}:///{folder / 'store.db'}"
    return start(kind.server).url(kind.driver)


@pytest.fixture(scope="session", params=list(KINDS))
def migrated_store(
    request: pytest.FixtureRequest,
    start_server: Callable[[str], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Store]:
    """A store on each engine, its schema made by Alembic once."""
    kind = KINDS[request.param]
    store = Store(kind, url_of(kind, start_server, tmp_path_factory.mktemp(request.param)))
    try:
        store.setup()
        yield store
    finally:
        store.close()


@pytest.fixture
def store(migrated_store: Store) -> Store:
    """An empty store on each engine."""
    migrated_store.clear()
    return migrated_store


@pytest.fixture
def open_target(tmp_path: Path) -> Iterator[OpenTarget]:
    """Open an empty store on SQLite, another at each call."""
    opened: list[Memory] = []

    def open_() -> Memory:
        store = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / f'target{len(opened)}.db'}")
        opened.append(Memory(store))
        store.setup()
        return opened[-1]

    yield open_
    for memory in opened:
        memory.on.close()


@pytest.fixture
def memory(migrated_store: Store) -> Memory:
    """An empty long-term memory on each engine, beside an empty store of checkpoints."""
    migrated_store.clear("store")
    return Memory(migrated_store)


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A store on SQLite, for what no engine makes different."""
    store = Store(KINDS["sqlite"], f"sqlite+pysqlite:///{tmp_path / 'store.db'}")
    store.setup()
    yield store
    store.close()
