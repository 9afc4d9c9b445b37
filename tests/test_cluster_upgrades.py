"""Upgrades by several processes, through several nodes of a cluster at once."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import pytest
from conftest import proxy_before
from databases import rights_to_migrate
from sqlalchemy import make_url
from upgrading import APPLYING, STOPS

from checkpoint_sa import SchemaError, migrate
from checkpoint_sa.engine import clusters

if TYPE_CHECKING:
    from clusters import Cluster, GroupReplication, Patroni

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROUNDS = 5
PROCESSES = 6
UPGRADING = str(Path(__file__).with_name("upgrading.py"))
on_all_nodes = pytest.mark.parametrize("cluster", ["galera", "multi-primary"], indirect=True)


def start(*arguments: str) -> Popen[str]:
    """Start a process that will upgrade."""
    return Popen(
        [sys.executable, UPGRADING, *arguments], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True
    )


def holds(process: Popen[str]) -> None:
    """Let a process begin, and wait until it stops in the middle of the revisions."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == STOPS + "\n"


def upgrade_at_once(urls: list[str]) -> list[tuple[int, list[str], str]]:
    """Upgrade from a process for each URL; return how each ended, its lines and its errors."""
    with ExitStack() as stack:
        processes = [stack.enter_context(start(url)) for url in urls]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        results = [process.communicate() for process in processes]
        return [
            (process.returncode, out.split(), err)
            for process, (out, err) in zip(processes, results, strict=True)
        ]


def empty_database(cluster: Cluster, name: str) -> None:
    cluster.ask(cluster.primary(), f"CREATE DATABASE {name}")
    for node in range(len(cluster.nodes)):
        while not cluster.ask(node, f"SHOW DATABASES LIKE '{name}'"):
            pass


def in_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def check_results(cluster: Cluster, results: list[tuple[int, list[str], str]]) -> None:
    states = cluster.states()
    said = [err.strip().splitlines()[-4:] for _, _, err in results]
    assert [code for code, _, _ in results] == [0] * len(results), (states, said)
    assert sum(lines.count(APPLYING) for _, lines, _ in results) == 1
    assert {lines[-1] for _, lines, _ in results} == {migrate.HEAD}


def check(cluster: Cluster, name: str, results: list[tuple[int, list[str], str]]) -> None:
    """Check that all succeeded, that one applied the revisions, and that all nodes have them."""
    check_results(cluster, results)
    cluster.wait(seconds=10)
    for node in range(len(cluster.nodes)):
        migrate.verify(in_database(cluster.url("mysql+pymysql", node), name))


@on_all_nodes
@pytest.mark.parametrize("drivers", [("pymysql",), ("pymysql", "aiomysql")], ids=["sync", "both"])
def test_processes_that_upgrade_through_all_nodes_at_once_all_succeed(
    cluster: Cluster, drivers: tuple[str, ...]
) -> None:
    for i in range(ROUNDS):
        name = f"at_once_{len(drivers)}_{i}"
        empty_database(cluster, name)
        urls = [
            cluster.url(f"mysql+{drivers[j // 3 % len(drivers)]}", j % len(cluster.nodes))
            for j in range(PROCESSES)
        ]
        check(cluster, name, upgrade_at_once([in_database(url, name) for url in urls]))


@on_all_nodes
def test_behind_a_proxy_that_takes_all_nodes_in_turn_all_succeed(cluster: Cluster) -> None:
    with proxy_before(cluster, in_turn=True) as proxy:
        for i in range(ROUNDS):
            name = f"behind_proxy_{i}"
            empty_database(cluster, name)
            url = in_database(proxy.url("mysql+pymysql"), name)
            check(cluster, name, upgrade_at_once([url] * PROCESSES))


@on_all_nodes
def test_the_grants_that_the_docs_name_are_enough(cluster: Cluster) -> None:
    name = "grants"
    empty_database(cluster, name)
    cluster.ask(0, "CREATE USER migrator@'127.0.0.1' IDENTIFIED BY ''")
    cluster.ask(0, f"GRANT {rights_to_migrate()} ON {name}.* TO migrator@'127.0.0.1'")
    url = make_url(cluster.url("mysql+pymysql")).set(username="migrator", database=name)
    migrate.upgrade(url)
    migrate.downgrade(url, "base")
    migrate.upgrade(url)
    check(cluster, name, [(0, [APPLYING, migrate.HEAD], "")])


@on_all_nodes
def test_the_right_of_a_process_that_died_is_taken_over(cluster: Cluster) -> None:
    name = "died"
    empty_database(cluster, name)
    urls = [in_database(cluster.url("mysql+pymysql", node), name) for node in range(2)]
    with start(urls[0], "stops") as first:
        holds(first)
        first.kill()
    begin = time.monotonic()
    check(cluster, name, upgrade_at_once(urls))
    assert time.monotonic() - begin > clusters.SILENT_SECONDS  # nobody was hasty
    assert cluster.ask(2, f"SELECT * FROM {name}.{clusters.LOCK_TABLE}") == []


@on_all_nodes
@pytest.mark.parametrize("driver", ["pymysql", "aiomysql"])
def test_a_process_that_was_stopped_too_long_changes_nothing_any_more(
    cluster: Cluster, driver: str
) -> None:
    name = f"stopped_{driver}"
    empty_database(cluster, name)
    first, *others = (in_database(cluster.url(f"mysql+{driver}", i), name) for i in range(3))
    with start(first, "stops") as stopped:
        holds(stopped)
        stopped.send_signal(signal.SIGSTOP)
        check(cluster, name, upgrade_at_once(others))
        stopped.send_signal(signal.SIGCONT)
        _, err = stopped.communicate("\n")
    assert "gave no sign of life for more than 30 seconds" in err
    check(cluster, name, [(0, [APPLYING, migrate.HEAD], "")])


@on_all_nodes
def test_one_that_lives_is_waited_for_and_named(cluster: Cluster) -> None:
    name = "lives"
    empty_database(cluster, name)
    first, second = (in_database(cluster.url("mysql+pymysql", i), name) for i in range(2))
    with start(first, "stops") as process:
        holds(process)
        with pytest.raises(SchemaError, match=r"for 35 seconds: connection \d+ at .*user root@"):
            migrate.upgrade(second, lock_timeout=35)
        out, err = process.communicate("\n")
    check(cluster, name, [(process.returncode, out.split(), err)])


@pytest.mark.parametrize("cluster", ["group-replication"], indirect=True)
def test_where_one_node_takes_writes_its_own_lock_is_used(cluster: GroupReplication) -> None:
    name = "one_primary"
    empty_database(cluster, name)
    url = in_database(cluster.url("mysql+pymysql", cluster.primary()), name)
    check(cluster, name, upgrade_at_once([url] * 3))
    assert cluster.ask(0, f"SHOW TABLES IN {name} LIKE '{clusters.LOCK_TABLE}'") == []


@pytest.mark.parametrize("cluster", ["patroni"], indirect=True)
def test_through_a_proxy_and_urls_of_all_nodes_all_succeed(cluster: Patroni) -> None:
    with proxy_before(cluster) as proxy:
        for i in range(2):
            name = f"with_patroni_{i}"
            cluster.ask(cluster.primary(), f"CREATE DATABASE {name}")
            urls = [
                in_database(address(f"postgresql+{driver}"), name)
                for address in (proxy.url, cluster.url_of_all)
                for driver in ("psycopg", "asyncpg", "psycopg")
            ]
            check_results(cluster, upgrade_at_once(urls))
            migrate.verify(urls[0])
