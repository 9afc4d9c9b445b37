"""A cluster under load whose node in use fails: nothing is lost, and no operation fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from conftest import on, proxy_before
from load import RETRY_SECONDS, Load
from stores import KINDS, Kind, Store

if TYPE_CHECKING:
    from clusters import Cluster, Patroni

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CUT_OFF_SECONDS = 12.0
"""Longer than each of the clusters takes to go on without a node."""

everywhere = on("galera", "group-replication", "multi-primary", "patroni")


def prepared(kind: Kind, url: str) -> Store:
    store = Store(kind, url)
    store.setup()
    store.clear()
    store.saver.retry_seconds = RETRY_SECONDS
    return store


def check(load: Load, what: str) -> None:
    print(f"{what}: {load}")  # noqa: T201 - pytest -rP shows it; docs/distributed.md quotes it
    assert load.retries > 0
    assert load.lost() == []
    load.store.close()


def kill_the_node_in_use(cluster: Cluster, load: Load) -> None:
    node = cluster.primary()
    try:
        load.run(lambda: cluster.kill(node))
    finally:
        cluster.restart(node)
        cluster.wait()


@everywhere
def test_a_node_that_is_killed(cluster: Cluster, kind: Kind) -> None:
    with proxy_before(cluster) as proxy:
        load = Load(prepared(kind, proxy.url(kind.driver)))
        kill_the_node_in_use(cluster, load)
        check(load, "killed")


@everywhere
def test_a_node_that_is_cut_off_and_comes_back(cluster: Cluster, kind: Kind) -> None:
    """Its process is stopped; when it goes on, it takes itself for a part of the cluster."""
    with proxy_before(cluster) as proxy:
        store = prepared(kind, proxy.url(kind.driver))
        # Until Patroni stops it, an old primary that goes on compares parents with its old rows.
        load = Load(store, checks_parents=cluster.kind != "Patroni")
        node = cluster.primary()
        try:
            load.run(
                lambda: cluster.freeze(node),
                lambda: time.sleep(CUT_OFF_SECONDS),
                lambda: cluster.thaw(node),
            )
        finally:
            cluster.thaw(node)
            cluster.rejoin(node)
            cluster.wait()
        check(load, "cut off")


@pytest.mark.parametrize("cluster", ["patroni"], indirect=True)
@pytest.mark.parametrize("name", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"])
def test_with_a_url_of_all_nodes_a_primary_that_is_killed(cluster: Patroni, name: str) -> None:
    load = Load(prepared(KINDS[name], cluster.url_of_all(KINDS[name].driver)))
    kill_the_node_in_use(cluster, load)
    check(load, "killed, URL of all nodes")


@on("patroni")
def test_without_a_quorum_writes_wait(cluster: Patroni, kind: Kind) -> None:
    """Without etcd, the primary takes no writes: another one might have been chosen."""
    with proxy_before(cluster) as proxy:
        load = Load(prepared(kind, proxy.url(kind.driver)))
        without: list[int] = []

        def lose_quorum() -> None:
            cluster.etcd.freeze()
            time.sleep(CUT_OFF_SECONDS)
            without.append(len(load.acknowledged))
            time.sleep(1)
            without.append(len(load.acknowledged))

        try:
            load.run(lose_quorum, cluster.etcd.thaw)
        finally:
            cluster.etcd.thaw()
            cluster.wait()
        assert without[0] == without[1] < len(load.acknowledged)
        check(load, "without quorum")
