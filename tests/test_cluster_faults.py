"""Nodes of a cluster that fail: work goes on, once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from conftest import on
from stores import KINDS, Kind, Store, thread
from test_faults import ids, put

if TYPE_CHECKING:
    from clusters import Galera, GroupReplication

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OUTAGE = 8.0


@on("galera", "group-replication", "multi-primary")
def test_a_put_outlives_a_node_without_the_others(
    cluster: Galera | GroupReplication, kind: Kind
) -> None:
    node = cluster.primary()
    others = [i for i in range(3) if i != node]
    store = Store(kind, cluster.url(kind.driver, node))
    store.setup()
    store.clear()
    store.saver.retry_seconds = 120
    put(store, "1")
    for other in others:
        cluster.kill(other)
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(put, store, "2", parent="1")
            deadline = time.monotonic() + 30
            while cluster.takes_writes(node):
                assert time.monotonic() < deadline, cluster.states()[node]
                time.sleep(0.05)
            time.sleep(OUTAGE)
            assert not waiting.done()
            cluster.bootstrap(node)  # to stop Group Replication takes 30 s
            waiting.result(30)
    finally:
        for other in others:
            cluster.restart(other)
    cluster.wait()
    assert store.saver.metrics.retries > 0
    assert ids(store) == ["2", "1"]
    store.close()


@pytest.mark.parametrize("cluster", ["group-replication"], indirect=True)
@pytest.mark.parametrize("name", ["mysql-pymysql", "mysql-async"])
def test_a_put_on_a_secondary_waits_until_it_is_the_primary(
    cluster: GroupReplication, name: str
) -> None:
    kind = KINDS[name]
    primary = cluster.primary()
    other = (primary + 1) % 3
    first = Store(kind, cluster.url(kind.driver, primary))
    first.setup()
    first.clear()
    put(first, "1")
    first.close()
    store = Store(kind, cluster.url(kind.driver, other))
    store.saver.retry_seconds = 60
    while not store.get_tuple(thread("a")):
        time.sleep(0.05)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(put, store, "2", parent="1")
        time.sleep(1)
        assert not waiting.done()
        cluster.ask(other, "DO group_replication_set_as_primary(@@server_uuid)")
        waiting.result(30)
    assert store.saver.metrics.retries > 0
    assert ids(store) == ["2", "1"]
    store.close()
