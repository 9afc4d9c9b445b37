"""dqlite, SQLite over Raft: three nodes, of which the leader fails under load (`nox -s dqlite`)."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from graphs import app
from langgraph.types import Command
from load import RETRY_SECONDS, Load
from sqlalchemy import create_engine
from stores import Kind, Store
from test_cluster_load import CUT_OFF_SECONDS
from test_cluster_resuming import BUILDER, interrupted
from test_faults import ids, put

from checkpoint_sa import ParentConflictError, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[1] / "examples" / "dqlite"
sys.path.append(str(EXAMPLE))

from cluster import Cluster  # noqa: E402
from dqlite_rules import connect_to_any  # noqa: E402

pytestmark = [
    pytest.mark.dqlite,
    pytest.mark.timeout(300),
    # The driver leaves sockets open where a connection fails.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

KINDS = [Kind("dqlite", "dqlite", is_async=False), Kind("dqlite", "dqlite+aio", is_async=True)]

ROUNDS = 100
UPGRADES = 5


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


def open_store(nodes: Cluster, kind: Kind, node: int = 0) -> Store:
    store = Store(kind, nodes.url(node, kind.driver))
    addresses = [*nodes.addresses[node:], *nodes.addresses[:node]]
    connect_to_any(store.root, addresses)
    store.saver.retry_seconds = RETRY_SECONDS
    return store


@pytest.fixture(params=KINDS, ids=[kind.driver for kind in KINDS])
def store(nodes: Cluster, request: pytest.FixtureRequest) -> Iterator[Store]:
    nodes.wait()
    store = open_store(nodes, request.param)
    store.setup()
    store.clear()
    yield store
    store.close()


def check(load: Load, what: str) -> None:
    print(f"{what}: {load}")  # noqa: T201 - pytest -rP shows it; docs/distributed.md quotes it
    assert load.retries > 0
    assert load.lost() == []


def test_a_leader_that_is_killed(nodes: Cluster, store: Store) -> None:
    load = Load(store)
    leader = nodes.leader()
    try:
        load.run(lambda: nodes.kill(leader))
    finally:
        nodes.start(leader)
    check(load, "killed")


def test_a_leader_that_is_cut_off_and_comes_back(nodes: Cluster, store: Store) -> None:
    load = Load(store)
    leader = nodes.leader()
    load.run(
        lambda: nodes.freeze(leader),
        lambda: time.sleep(CUT_OFF_SECONDS),
        lambda: nodes.thaw(leader),
    )
    check(load, "cut off")


def test_without_a_quorum_a_put_waits(nodes: Cluster, store: Store) -> None:
    put(store, "1")
    others = [node for node in range(3) if node != nodes.leader()]
    for node in others:
        nodes.kill(node)
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(put, store, "2", parent="1")
            time.sleep(8)
            assert not waiting.done()
            nodes.start(others[0])
            waiting.result(60)
    finally:
        for node in others[1:]:
            nodes.start(node)
    assert ids(store) == ["2", "1"]


def test_a_graph_is_resumed_through_another_node(nodes: Cluster, store: Store) -> None:
    stores = [store, *(open_store(nodes, store.kind, node) for node in (1, 2))]
    graphs = [app(each, BUILDER) for each in stores]
    for number in range(ROUNDS):
        config = interrupted(graphs[number % 3], number)
        resumed = graphs[(number + 1) % 3].invoke(Command(resume="!"), config)
        assert resumed == {"question": f"{number}", "answer": f"{number}!"}
    for each in stores[1:]:
        each.close()


def test_two_writers_that_check_the_parent(nodes: Cluster, store: Store) -> None:
    other = open_store(nodes, store.kind, 1)
    savers = [each.make_saver(check_parent=True, retry_seconds=60) for each in (store, other)]
    writers = [each.using(saver) for each, saver in zip((store, other), savers, strict=True)]

    def accepted(writer: Store, number: int, turn: int) -> bool:
        try:
            put(writer, f"{turn:03}-{number}", parent=parents[-1])
        except ParentConflictError:
            return False
        return True

    put(store, "000")
    parents = ["000"]
    for turn in range(1, 31):
        with ThreadPoolExecutor(2) as pool:
            done = [*pool.map(accepted, writers, (0, 1), (turn, turn))]
        assert sum(done) == 1
        parents.append(f"{turn:03}-{done.index(True)}")
    other.close()


UPGRADE = """
import sys
sys.path.append(sys.argv[2])
import dqlite_rules
from sqlalchemy import create_engine
from checkpoint_sa import migrate
with create_engine(sys.argv[1]).begin() as connection:
    migrate.upgrade(connection)
"""


def test_processes_that_upgrade_at_once_all_succeed(nodes: Cluster) -> None:
    """Each in a transaction: it has the leader's only lock for writes."""
    engine = create_engine(nodes.url())
    for _ in range(UPGRADES):
        with engine.begin() as connection:
            migrate.downgrade(connection, "base")
        commands = [
            [sys.executable, "-c", UPGRADE, nodes.url(i % 3), str(EXAMPLE)] for i in range(6)
        ]
        processes = [
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands
        ]
        errors = [process.communicate()[1].splitlines()[-1:] for process in processes]
        assert [process.returncode for process in processes] == [0] * 6, errors
        migrate.verify(engine)
    engine.dispose()


def test_its_tests_pass() -> None:
    """Of the example: all of the public suite."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "."]
    command += ["-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=EXAMPLE, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
